"""Several integrals on the same points: values, covariances, ratios, and the one that steers as if it were alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import gvar
import numpy as np
import pytest
import torch
from channel_examples import RIDGE_INTEGRAL, ridge_channels, ridges
from torch import Tensor

from nisampler.base.estimate import Estimate, pull
from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import NonFiniteError, ZeroIntegrandError
from nisampler.integration.integrator import IntegrationConfig, IntegrationResult, Integrator
from nisampler.integration.sums import Sums
from nisampler.samplers.base import UniformSampler

METHODS = ("sobol", "mc")
REPLICAS = 200


def norm(x: Tensor) -> Tensor:
    return torch.exp(-8.0 * (x - 0.4).square().sum(1))


def moments(x: Tensor) -> dict[str, Tensor]:
    """A peak, its first moment, and a part of it with both signs."""
    f = norm(x)
    return {"norm": f, "x": f * x[:, 0], "odd": f * torch.sin(2 * math.pi * x[:, 1])}


def truths() -> dict[str, float]:
    """By Gauss-Legendre quadrature."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(60))
    x = torch.cartesian_prod(0.5 * (nodes + 1), 0.5 * (nodes + 1))
    w = torch.cartesian_prod(weights, weights).prod(1) / 4
    return {name: float((w * value).sum()) for name, value in moments(x).items()}


TRUTH = truths()


def run(function: Any = moments, dim: int = 2, seed: int = 8, steer: Any = None, **settings: Any) -> IntegrationResult:
    config = IntegrationConfig(**({"points": 24 * 64} | settings))
    integrand = Integrand(function, dim, steer=steer, kind="torch", nonfinite=0.5)
    return Integrator(integrand, UniformSampler(dim), config, Streams(seed)).run()


@pytest.mark.parametrize("method", METHODS)
def test_each_integral_is_as_if_it_were_alone(method: str) -> None:
    together = run(method=method, points=8192)
    for number, name in enumerate(TRUTH):
        alone = run(lambda x, name=name: moments(x)[name], method=method, points=8192)
        assert together[name] == together[number] == alone.estimate == alone[0]
        steered = run(method=method, points=8192, steer=name)
        assert steered.estimate == alone.estimate and steered.batch_means == alone.batch_means
        assert steered.moments == alone.moments and torch.equal(steered.weights, alone.weights)
        assert steered.estimate is steered[name]
        assert abs(pull(together[name], TRUTH[name])) < 4.5


def widths(pulls: list[float]) -> tuple[float, float]:
    """Spread of pulls about zero, and how far it may be from one by chance (4.5 sigma)."""
    return math.sqrt(statistics.fmean(p * p for p in pulls)), 4.5 / math.sqrt(2 * len(pulls))


@pytest.mark.parametrize("method", METHODS)
def test_the_error_of_a_ratio_is_right_over_replicas(method: str) -> None:
    truth = TRUTH["x"] / TRUTH["norm"]
    right, loose, sums = [], [], []
    for seed in range(REPLICAS):
        found = run(seed=seed, method=method)
        right.append(pull(found["x"] / found["norm"], truth))
        sums.append(pull(found["x"] + 2 * found["odd"], TRUTH["x"] + 2 * TRUTH["odd"]))
        independent = [Estimate(e.value, e.error, e.n) for e in (found["x"], found["norm"])]
        loose.append(pull(independent[0] / independent[1], truth))
    for pulls in (right, sums):
        width, slack = widths(pulls)
        assert abs(width - 1.0) < slack + 0.05
    # negative control: the same errors with the covariance ignored
    width, slack = widths(loose)
    assert width < 1.0 - slack - 0.05


def test_the_covariance_of_independent_points_is_that_of_all_weights() -> None:
    sums = Sums(["a", "b", "c"], 0, dependent=False)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3000, 3, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.9, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 1e-3]], dtype=torch.float64
    )
    weights += torch.tensor([5.0, 1e4, 1.0], dtype=torch.float64)
    for batch in torch.split(weights, [1000, 1, 17, 982, 1000]):
        sums.add(batch.unsqueeze(0))
    np.testing.assert_allclose(sums.estimates().covariance, np.cov(weights.numpy().T) / 3000, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_gvars_have_the_covariance(method: str) -> None:
    found = run(method=method)
    numbers = found.estimates.gvar()
    np.testing.assert_allclose(gvar.evalcov(numbers), found.estimates.covariance, rtol=1e-12)
    ratio = numbers[1] / numbers[0]
    assert ratio.sdev == pytest.approx((found["x"] / found["norm"]).error, rel=1e-9)
    assert found.estimates.correlation[0, 1] > 0.7


def test_channels_share_their_points() -> None:
    function = Multichannel(lambda x: torch.stack([ridges(x), ridges(x) * x[:, 2]], 1), ridge_channels())
    found = run(function, 4, points=24 * 1024)
    assert abs(pull(found[0], RIDGE_INTEGRAL)) < 4.5
    assert found.estimates.names == ("0", "1") and found["1"] is found[1]
    assert (found[1] / found[0]).relative_error < math.hypot(found[0].relative_error, found[1].relative_error)


def test_an_integral_that_vanishes_is_zero_unless_it_steers() -> None:
    def half(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], torch.zeros_like(x[:, 0]), torch.full_like(x[:, 0], 2.0)], 1)

    found = run(half, method="mc")
    assert (found[1].value, found[1].error) == (0.0, 0.0) and str(found[2]) == "2(0)"
    assert np.isfinite(found.estimates.covariance).all()
    with pytest.raises(ZeroIntegrandError):
        run(half, steer=1)


def test_a_weight_out_of_range_names_its_integral() -> None:
    class Narrow(UniformSampler):
        def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
            return u, u.new_full((len(u),), -700.0)

    integrand = Integrand(lambda x: {"f": x[:, 0], "big": 1e20 * x[:, 0]}, 1, kind="torch")
    with pytest.raises(NonFiniteError, match=r"\['big'\]: a weight"):
        Integrator(integrand, Narrow(1), IntegrationConfig(points=100)).run()


def test_warnings_name_the_integral() -> None:
    def spiked(x: Tensor) -> dict[str, Tensor]:
        return {"flat": 1.0 + x[:, 0], "spike": torch.exp(-((x - 0.31) ** 2).sum(1) / 2e-5)}

    found = run(spiked)
    assert [text for text in found.warnings if text.startswith("spike: a single point")] == found.warnings
    assert any(text.startswith("a single point") for text in run(spiked, steer="spike").warnings)


@pytest.mark.parametrize("method", METHODS)
def test_the_target_is_tested_as_after_every_round_from_all_batches(method: str) -> None:
    """Running sums decide when to look; what is decided is what all batches say."""
    most = 48 * 25
    whole = run(norm, method=method, points=48, target=1e-9, max_points=most)
    batches = [Moments.from_tensor(part) for part in whole.weights.split(2)]
    rounds = []
    for end in range(24, 24 * 26, 24):
        by_means = Estimate.from_batch_means(whole.batch_means[:end], 2)
        rounds.append((by_means if method == "sobol" else Estimate.from_batches(batches[:end])).relative_error)
    assert rounds[-1] == pytest.approx(whole.estimate.relative_error, rel=1e-14)
    for target in (rounds[5], rounds[20] * (1 - 1e-12), rounds[20] * (1 + 1e-12), 0.03):
        found = run(norm, method=method, points=48, target=target, max_points=most)
        expected = next((n for n, error in enumerate(rounds, 1) if error <= target), len(rounds))
        assert found.estimate.n == 48 * expected


def test_the_work_grows_with_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are looked at once at the end, not after every round."""
    seen: list[int] = []
    plain = Estimate.from_batch_means.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Estimate], means: Sequence[float], size: int, **more: Any) -> Any:
        seen.append(len(means))
        return plain(cls, means, size, **more)

    monkeypatch.setattr(Estimate, "from_batch_means", classmethod(counted))
    found = run(points=48, target=1e-4, max_points=48 * 60)
    assert len(found.batch_means) == 24 * 60 and len(seen) == 3
