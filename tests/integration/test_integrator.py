"""Integration with a frozen sampler: truth covered, target reached or not said so, independent batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from windows import p_limit

from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, IntegrandCallError, ZeroIntegrandError
from nisampler.integration.integrator import IntegrationConfig, IntegrationResult, Integrator, LatentPoints
from nisampler.processes.functions.functions import camel, gauss, poly
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.tree import TreeSampler, grow_tree
from nisampler.ui.monitor import Monitor

METHODS = ("sobol", "mc")


def run(
    function: Any, dim: int | None = None, sampler: Sampler | None = None, seed: int = 8, **settings: Any
) -> IntegrationResult:
    integrand = function if isinstance(function, Integrand) else Integrand(function, dim)
    config = IntegrationConfig(**({"points": 8192} | settings))
    return Integrator(integrand, sampler or UniformSampler(integrand.dim), config, Streams(seed)).run()


def tree_for(function: Any, dim: int) -> Sampler:
    u = torch.rand(5000, dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return TreeSampler(grow_tree(u, function(u)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", [gauss(2), camel(3), poly(5)], ids=lambda f: f.name)
def test_the_truth_is_covered(function: Any, method: str) -> None:
    result = run(function, method=method)
    estimate = result.estimate
    assert abs(pull(estimate, function.integral)) < 4.5
    assert estimate.relative_error < 0.03
    assert estimate.n == result.moments.count == len(result.weights) == sum(1 for _ in result.batch_means) * 256
    assert estimate.value == pytest.approx(float(result.weights.mean()), rel=1e-12)
    assert not result.warnings
    # independent points: chi², with the variance within 8192; Sobol sets: groups of batches against the rest, an F law
    inner = len(result.batch_means) - 1 - estimate.dof if method == "sobol" else math.inf
    agreement = stats.f.sf(estimate.chi2_per_dof, estimate.dof, inner) if inner < math.inf else estimate.q_value
    assert p_limit(2) < agreement < 1 - p_limit(2)


@pytest.mark.parametrize("method", METHODS)
def test_the_proposal_changes_the_error_not_the_value(method: str) -> None:
    function = camel(2)
    plain, learned = run(function, method=method), run(function, sampler=tree_for(function, 2), method=method)
    assert learned.estimate.ess_fraction > plain.estimate.ess_fraction + 0.2
    for result in (plain, learned):
        assert abs(pull(result.estimate, function.integral)) < 4.5


def test_sobol_points_are_better_than_independent_ones() -> None:
    for function in (gauss(2), poly(5), camel(2)):
        assert run(function).estimate.error < 0.5 * run(function, method="mc").estimate.error


@pytest.mark.parametrize("method", METHODS)
def test_latent_points(method: str) -> None:
    place = torch.device("cpu")
    state = torch.random.get_rng_state()
    batches = LatentPoints(1024, 3, Streams(1), method, place).batches(range(40)).split(1024)
    again = LatentPoints(1024, 3, Streams(1), method, place).batches(range(7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again, batches[7])
    assert not torch.equal(LatentPoints(1024, 3, Streams(2), method, place).batches(range(7, 8)), again)
    whole = torch.cat(batches)
    assert whole.dtype == torch.float64 and bool(((whole >= 0) & (whole <= 1)).all())
    assert len(whole.unique(dim=0)) == len(whole)
    counts = torch.histc(batches[0][:, 0], 64, 0, 1)
    assert bool((counts == 16).all()) == (method == "sobol")
    means = torch.stack([batch.mean(0) for batch in batches])
    assert float((means.mean(0) - 0.5).abs().max()) < 5 * math.sqrt(1 / 12 / len(whole))


def test_batches_are_independent() -> None:
    points = LatentPoints(64, 2, Streams(1), "sobol", torch.device("cpu")).batches(range(400))
    column = points.prod(1).view(400, 64).mean(1)
    column = (column - column.mean()) / column.std()
    for lag in (1, 2, 3, 10):
        assert abs(float((column[lag:] * column[:-lag]).mean())) < 4 / math.sqrt(400)


@pytest.mark.parametrize("method", METHODS)
def test_batches_do_not_depend_on_how_many_there_are(method: str) -> None:
    function = camel(2)
    short, long = run(function, method=method, points=24 * 128), run(function, method=method, points=40 * 128)
    assert long.batch_means[:24] == short.batch_means
    assert torch.equal(long.weights[: 24 * 128], short.weights)


def test_the_estimate_does_not_depend_on_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(camel(2), sampler=tree_for(camel(2), 2))
    monkeypatch.setattr("nisampler.samplers.base._TILE", 100)
    tiled = run(camel(2), sampler=tree_for(camel(2), 2))
    assert tiled.batch_means == whole.batch_means and torch.equal(tiled.weights, whole.weights)


@pytest.mark.parametrize("method", METHODS)
def test_the_target_is_reached(method: str) -> None:
    calls = Integrand(camel(3))
    result = run(calls, method=method, points=16_384, target=4e-3, max_points=2_000_000)
    assert result.estimate.relative_error <= 4e-3
    assert result.estimate.n < 2_000_000 and result.estimate.n % len(result.batch_means) == 0
    assert not result.warnings
    assert abs(pull(result.estimate, camel(3).integral)) < 4.5
    loose = run(camel(3), method=method, points=4096, target=0.5)
    assert loose.estimate.n <= 4096


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_is_not_reached_is_told(method: str) -> None:
    result = run(camel(3), method=method, points=4096, target=1e-7, max_points=20_000)
    assert result.estimate.n <= 20_000
    assert result.estimate.relative_error > 1e-7
    assert [warning for warning in result.warnings if "1e-07" in warning and "20000" in warning]


@pytest.mark.parametrize("method", METHODS)
def test_negative_values_are_integrated(method: str) -> None:
    oscillating = lambda x: torch.cos(9 * x[:, 0]) + x[:, 1] - 0.6  # noqa: E731
    truth = math.sin(9) / 9 - 0.1
    result = run(oscillating, 2, method=method)
    assert truth < 0 and result.moments.negatives > 1000
    assert abs(pull(result.estimate, truth)) < 4.5
    negative = run(lambda x: -camel(2)(x), 2, method=method)
    assert negative.estimate.value == -run(camel(2), method=method).estimate.value


@pytest.mark.parametrize("method", METHODS)
def test_an_integral_that_vanishes(method: str) -> None:
    result = run(lambda x: x[:, 0] - 0.5, 1, method=method)
    assert abs(result.estimate.value) < 4.5 * result.estimate.error
    assert math.isfinite(result.estimate.error) and result.estimate.error > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_is_exact(method: str) -> None:
    result = run(lambda x: torch.full_like(x[:, 0], -2.5), 3, method=method)
    assert result.estimate.value == -2.5 and result.estimate.error == 0.0
    assert str(result.estimate) == "-2.5(0)" and result.cut_efficiency == 1.0
    assert result.estimate.ess_fraction == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_only_zeros_are_named(method: str) -> None:
    with pytest.raises(ZeroIntegrandError, match="zero at all"):
        run(lambda x: 0 * x[:, 0], 2, method=method)


def test_cut_efficiency() -> None:
    result = run(lambda x: (x[:, 0] < 0.3).double(), 2)
    assert result.cut_efficiency == pytest.approx(0.3, abs=0.01)
    assert result.estimate.value == pytest.approx(0.3, abs=4.5 * result.estimate.error)


@pytest.mark.parametrize("method", METHODS)
def test_one_point_that_carries_the_integral_is_told(method: str) -> None:
    spike = lambda x: torch.exp(-((x - 0.31) ** 2).sum(1) / (2 * 3e-3**2))  # noqa: E731
    result = run(spike, 2, method=method)
    assert any("single point" in warning and "not reliable" in warning for warning in result.warnings)
    assert not run(camel(2), method=method).warnings


def test_kept_weights_are_bounded() -> None:
    result = run(camel(2), keep_weights=1000)
    assert len(result.weights) == 1000 and result.moments.count == 32 * 256
    assert torch.equal(result.weights, run(camel(2)).weights[:1000])


@pytest.mark.parametrize("points", [48, 49, 1000, 24 * 1024, 24 * 1024 - 1, 1_000_000])
def test_the_shape_of_a_round(points: int) -> None:
    batches, size = IntegrationConfig(points=points).shape()
    assert 24 <= batches < 49 and size & (size - 1) == 0
    assert batches * size <= points < (batches + 1) * size


def test_progress_is_told() -> None:
    told: list[tuple[int, int, dict[str, str]]] = []

    class Listener(Monitor):
        def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
            assert stage == "integration"
            told.append((done, total, dict(figures)))

    config = IntegrationConfig(points=4096, target=1e-7, max_points=13_000)
    result = Integrator(Integrand(camel(2)), UniformSampler(2), config, Streams(1)).run(Listener())
    assert all(0 < done <= planned for done, planned, _ in told)
    assert [done for done, _, figures in told if "error" in figures] == [4096, 8192, 12_288]
    assert told[-1][2]["error"] == f"{result.estimate.relative_error:.1e}"


def test_the_seed_decides() -> None:
    torch.manual_seed(1)
    first = run(camel(2))
    torch.manual_seed(2)
    assert run(camel(2)).batch_means == first.batch_means
    assert run(camel(2), seed=9).batch_means != first.batch_means


def test_errors_of_the_function_come_through() -> None:
    def function(x: Tensor) -> Tensor:
        if len(x) > 100:
            raise RuntimeError("out of memory")
        return x.sum(1)

    with pytest.raises(IntegrandCallError, match="out of memory"):
        run(function, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"points": 47},
        {"points": 0},
        {"points": True},
        {"target": "small"},
        {"max_points": 0},
        {"points": 1e5},
        {"method": "halton"},
        {"target": -0.1},
        {"target": 1.0},
        {"target": math.nan},
        {"points": 10_000, "max_points": 9999},
        {"keep_weights": 0},
    ],
    ids=str,
)
def test_contradictory_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        IntegrationConfig(**settings)
    assert any(name in str(caught.value) for name in settings)
