"""Unweighting: policies, exactly n events, kept overweights, signs, the right distribution, shards, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor
from windows import p_limit

from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, EventCountError, UnweightingError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.processes.functions.functions import annulus, camel
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.flow import FlowSampler
from nisampler.samplers.tree import TreeConfig, TreeSampler, grow_tree
from nisampler.unweighting.unweighter import Efficiencies, UnweightedPoints, Unweighter, UnweightingConfig

LEAST = p_limit(checks=4)
POLICIES = ("overweight", "strict", "quantile", "bootstrap")
FUNCTION = camel(2)


def rough_sampler() -> Sampler:
    u = torch.rand(6000, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return TreeSampler(grow_tree(u, FUNCTION(u), TreeConfig(leaves=40)))


def weights_of(function: Any, sampler: Sampler, n: int = 20_000, seed: int = 6) -> tuple[Tensor, Tensor]:
    x, log_q = sampler.sample(n, torch.Generator().manual_seed(seed))
    return x, function(x) * torch.exp(-log_q)


def unweighter(function: Any = FUNCTION, sampler: Sampler | None = None, seed: int = 1, **settings: Any) -> Unweighter:
    sampler = sampler or rough_sampler()
    config = UnweightingConfig(**settings)
    weights = weights_of(function, sampler)[1]
    w_max = config.max_weight(weights, Streams(seed))
    efficiency = Efficiencies.of(weights, w_max).chosen
    return Unweighter(Integrand(function, 2), sampler, w_max, efficiency, Streams(seed), config)


def disagreement(points: UnweightedPoints, function: Any = FUNCTION, weights: Tensor | None = None) -> float:
    """p-value of binned events against the binned integrand (midpoint rule)."""
    bins, fine = 6, 60
    middle = (torch.arange(bins * fine, dtype=torch.float64) + 0.5) / (bins * fine)
    grid = torch.cartesian_prod(middle, middle)
    truth = torch.zeros(bins * bins, dtype=torch.float64)
    truth.index_add_(0, ((grid * bins).long() * torch.tensor([bins, 1])).sum(1), function(grid).abs())
    truth /= truth.sum()
    w = points.weights.abs() if weights is None else weights
    place = ((points.x * bins).long().clamp(max=bins - 1) * torch.tensor([bins, 1])).sum(1)
    first = torch.zeros_like(truth).index_add_(0, place, w)
    second = torch.zeros_like(truth).index_add_(0, place, w**2)
    used = truth * len(w) > 10
    expected = truth * w.sum()
    chi2 = float(((first - expected) ** 2 / second)[used].sum())
    return float(scipy_stats.chi2.sf(chi2, int(used.sum()) - 1))


@pytest.mark.parametrize("policy", POLICIES)
def test_exactly_n_events_that_follow_the_integrand(policy: str) -> None:
    for n, shard in ((1, 0), (7, 3), (30_000, 1)):
        points = unweighter(policy=policy).generate(n, shard)
        assert points.x.shape == (n, 2) and points.weights.shape == (n,)
        assert bool((points.weights >= 1).all()) and points.trials >= n
        assert points.overweight == int((points.weights > 1).sum())
        excess = float((points.weights - 1).sum() / points.weights.sum())
        assert points.overweight_fraction == pytest.approx(excess, abs=1e-9)
    assert disagreement(points) > LEAST


@pytest.mark.parametrize("overweight", [0.02, 0.2, 0.5])
def test_overweights_keep_their_weight(overweight: float) -> None:
    points = unweighter(overweight=overweight).generate(30_000)
    assert 0 < points.overweight_fraction < overweight
    assert points.overweight > 100
    assert disagreement(points) > LEAST


def test_forgetting_the_overweights_is_found() -> None:
    points = unweighter(sampler=UniformSampler(2), overweight=0.5).generate(30_000)
    assert disagreement(points) > LEAST
    assert disagreement(points, weights=torch.ones(30_000).double()) < 1e-6


def test_accepting_all_is_found() -> None:
    sampler = rough_sampler()
    x, _ = weights_of(FUNCTION, sampler, 30_000)
    everything = UnweightedPoints(x, x, torch.ones(30_000).double(), 30_000)
    assert disagreement(everything) < 1e-6


def test_a_wrong_density_is_found() -> None:
    class Liar(UniformSampler):
        def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
            return u, torch.log(0.9 + 0.2 * u[:, 0])

    assert disagreement(unweighter(sampler=Liar(2)).generate(60_000)) < 1e-6
    assert disagreement(unweighter(sampler=UniformSampler(2)).generate(60_000)) > LEAST


def signed(x: Tensor) -> Tensor:
    return torch.cos(7 * x[:, 0]) + 0.4 * x[:, 1]


def test_negative_integrands_give_signed_unit_weights() -> None:
    sampler = UniformSampler(2)
    tool = unweighter(signed, sampler, policy="strict")
    points = tool.generate(40_000)
    assert bool((points.weights < 0).any()) and bool((points.weights.abs() >= 1).all())
    assert bool((torch.sign(points.weights) == torch.sign(signed(points.x))).all())
    middle = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    grid = signed(torch.cartesian_prod(middle, middle))
    ratio = float(grid.mean() / grid.abs().mean())
    found = float(points.weights.sum() / points.weights.abs().sum())
    assert found == pytest.approx(ratio, abs=4.5 * math.sqrt((1 - ratio**2) / 40_000))
    assert disagreement(points, signed) > LEAST
    negative = unweighter(lambda x: -FUNCTION(x)).generate(1000)
    assert bool((negative.weights <= -1).all())


def test_the_moment_of_an_observable() -> None:
    """Sums over weighted points and over events agree, for an observable no histogram above contains."""
    sampler = rough_sampler()
    x, w = weights_of(FUNCTION, sampler, 200_000, seed=44)
    points = unweighter(sampler=sampler, overweight=0.1).generate(50_000)
    observable = lambda x: torch.sin(20 * x[:, 0] * x[:, 1])  # noqa: E731
    expected = float((observable(x) * w).sum() / w.sum())
    value = observable(points.x)
    found = float((value * points.weights).sum() / points.weights.sum())
    assert found == pytest.approx(expected, abs=4.5 * float(value.std()) * (50_000**-0.5 + 100_000**-0.5))


def test_the_share_of_overweights_is_as_asked() -> None:
    sampler = UniformSampler(2)
    _, weights = weights_of(FUNCTION, sampler, 100_000)
    for fraction in (1e-3, 1e-2, 0.1):
        w_max = UnweightingConfig(overweight=fraction).max_weight(weights, Streams(0))
        above = weights > w_max
        assert float(weights[above].sum() / weights.sum()) <= fraction
        assert float(weights[weights >= w_max].sum() / weights.sum()) > fraction
        share = UnweightingConfig("quantile", fraction).max_weight(weights, Streams(0))
        assert float((weights > share).double().mean()) == pytest.approx(fraction, abs=1e-4)


def test_policies_are_ordered() -> None:
    _, weights = weights_of(FUNCTION, rough_sampler())
    strict, bootstrap, overweight, loose = (
        UnweightingConfig(policy, share).max_weight(weights, Streams(0))
        for policy, share in (("strict", 0.0), ("bootstrap", 0.0), ("overweight", 1e-3), ("overweight", 1e-2))
    )
    assert strict == float(weights.max()) >= bootstrap > overweight > loose
    assert UnweightingConfig("overweight", 0.0).max_weight(weights, Streams(0)) == strict
    assert UnweightingConfig("quantile", 0.0).max_weight(weights, Streams(0)) == strict


def test_the_bootstrap_median_is_that_of_resampled_maxima() -> None:
    weights = torch.rand(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64) ** -0.5
    index = torch.randint(2000, (4001, 2000), generator=torch.Generator().manual_seed(4))
    maxima = weights[index].max(1).values.sort().values
    found = [UnweightingConfig("bootstrap").max_weight(weights, Streams(seed)) for seed in range(20)]
    assert UnweightingConfig("bootstrap").max_weight(weights, Streams(0)) == found[0]
    assert float(maxima[1200]) <= min(found) and max(found) <= float(maxima[2800])


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_that_leave_nothing_to_unweight(policy: str) -> None:
    with pytest.raises(UnweightingError):
        UnweightingConfig(policy).max_weight(torch.zeros(100), Streams(0))


@pytest.mark.parametrize("policy", POLICIES)
def test_mostly_zero_weights_give_a_positive_maximum(policy: str) -> None:
    weights = torch.zeros(10_000, dtype=torch.float64)
    weights[5] = -3.0
    weights[6] = 2.0
    assert UnweightingConfig(policy).max_weight(weights, Streams(0)) > 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_maximal_weights_that_cannot_be(bad: float) -> None:
    with pytest.raises(UnweightingError, match="positive and finite"):
        Unweighter(Integrand(FUNCTION), UniformSampler(2), bad, 0.5, Streams(0))


def test_too_few_events_is_an_error() -> None:
    tool = Unweighter(Integrand(FUNCTION), UniformSampler(2), 1e9, 0.5, Streams(0), UnweightingConfig(max_trials=100))
    with pytest.raises(EventCountError, match="of 50 events") as caught:
        tool.generate(50)
    assert "max_trials" in str(caught.value)
    zero = Unweighter(
        Integrand(lambda x: 0 * x[:, 0], 2), UniformSampler(2), 1.0, 0.5, Streams(0), UnweightingConfig(max_trials=50)
    )
    with pytest.raises(EventCountError, match="only 0 of 50"):
        zero.generate(50)


@pytest.mark.parametrize("n", [0, -5])
def test_no_events(n: int) -> None:
    with pytest.raises(ConfigError):
        unweighter().generate(n)


def test_shards_depend_on_seed_and_index_alone() -> None:
    tool = unweighter()
    forward = [tool.generate(500, shard) for shard in range(4)]
    torch.manual_seed(9)
    backward = [unweighter().generate(500, shard) for shard in (3, 2, 1, 0)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.weights, other.weights)
        assert one.trials == other.trials
    everything = torch.cat([points.x for points in forward])
    assert len(everything.unique(dim=0)) == 2000
    assert not torch.equal(unweighter(seed=2).generate(500).x, forward[0].x)


def flow_sampler() -> FlowSampler:
    config = CouplingConfig(Spline(bins=6), NetConfig(hidden=16, layers=2))
    sampler = FlowSampler.create(2, config, torch.Generator().manual_seed(5))
    with torch.no_grad():
        for parameter in sampler.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return sampler


@pytest.mark.parametrize("make", [rough_sampler, flow_sampler])
def test_fewer_events_are_the_beginning_of_more_and_little_is_evaluated_in_vain(make: Callable[[], Sampler]) -> None:
    tool = unweighter(sampler=make())
    whole = tool.generate(30_000)
    for n in (1, 300, 5000, 20_000):
        calls = tool.integrand.calls
        points = tool.generate(n)
        assert torch.equal(points.x, whole.x[:n]) and torch.equal(points.weights, whole.weights[:n])
        assert points.trials <= tool.integrand.calls - calls <= 1.15 * points.trials + 512


def test_trials_measure_the_efficiency() -> None:
    tool = unweighter(annulus(), UniformSampler(2), policy="strict")
    points = tool.generate(20_000)
    truth = annulus().integral
    assert 20_000 / points.trials == pytest.approx(truth, abs=4.5 * truth * math.sqrt((1 - truth) / 20_000))


def test_efficiencies() -> None:
    weights = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    found = Efficiencies.of(weights, 1.0)
    assert found.strict == pytest.approx(0.5) and found.cut == 0.75
    assert found.chosen == pytest.approx(0.75)
    assert found.ess_fraction == pytest.approx(4 / 6 / 4)
    _, weights = weights_of(FUNCTION, rough_sampler())
    found = Efficiencies.of(weights, float(weights.max()))
    assert 0 < found.strict == pytest.approx(found.chosen)
    assert found.strict < found.at_0p1 < found.at_1 < 1


def test_batches_are_bounded_and_so_is_memory() -> None:
    """However many events are asked for and however low the efficiency, no batch exceeds a fixed size."""
    sizes: list[int] = []

    def function(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return FUNCTION(x)

    integrand = Integrand(function, 2, kind="torch")
    w_max = 40.0 * float(FUNCTION(torch.full((1, 2), 1 / 3, dtype=torch.float64)))
    points = Unweighter(integrand, UniformSampler(2), w_max, 1e-9, Streams(0)).generate(2000)
    assert len(points.x) == 2000
    assert max(sizes) <= 65_536 < sum(sizes)
    kept = points.x.untyped_storage().nbytes() + points.weights.untyped_storage().nbytes()
    assert kept <= 4 * 2000 * 3 * 8


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "lenient"},
        {"overweight": -0.1},
        {"overweight": 1.0},
        {"overweight": math.nan},
        {"max_trials": 0.5},
        {"max_trials": math.nan},
    ],
    ids=str,
)
def test_contradictory_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        UnweightingConfig(**settings)
    assert next(iter(settings)) in str(caught.value)
