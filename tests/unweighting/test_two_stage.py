"""Two-stage unweighting: the right distribution whatever the surrogate, its gain, counts, shards, and stored states."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from channel_examples import gentle_function
from torch import Tensor
from windows import limit

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.density.channels import Multichannel
from nisampler.density.factors import Factors
from nisampler.density.integrand import Integrand
from nisampler.errors import (
    ChannelError,
    ConfigError,
    CorruptFileError,
    EventCountError,
    NonFiniteError,
    ShapeError,
    TrainingDivergedError,
    UnweightingError,
)
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.processes.functions.functions import annulus, camel
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.unweighting import two_stage
from nisampler.unweighting.surrogate import Surrogate, SurrogateConfig
from nisampler.unweighting.two_stage import (
    StageCosts,
    TwoStageGain,
    TwoStageUnweighter,
    points_again,
    prepare_two_stage,
    worth_preparing,
)
from nisampler.unweighting.unweighter import UnweightedPoints, Unweighter, UnweightingConfig

FUNCTION = camel(2)
POINTS = IntegrationConfig(points=24_576)
SMALL = SurrogateConfig(hidden=32, layers=2, steps=600, batch=256)
LIMIT = limit(checks=12)  # of the twelve observables
POOR = replace(SMALL, steps=20)
COSTS = StageCosts(call=1e-3, point=1e-6, surrogate=1e-6)


def signed(x: Tensor) -> Tensor:
    return (torch.cos(7 * x[:, 0]) + 0.4 * x[:, 1]) * FUNCTION(x)


def prepared(
    function: Any = FUNCTION,
    config: SurrogateConfig = SMALL,
    seed: int = 1,
    sampler: Sampler | None = None,
    **settings: Any,
) -> TwoStageUnweighter:
    integrand = function if isinstance(function, Integrand) else Integrand(function, 2)
    sampler, streams = sampler or UniformSampler(integrand.dim), Streams(seed)
    weights = Integrator(integrand, sampler, POINTS, streams).run().weights
    unweighting = UnweightingConfig(**settings)
    return prepare_two_stage(integrand, sampler, weights, COSTS, streams, POINTS, unweighting, config)


@cache
def good() -> TwoStageUnweighter:
    return prepared()


def pulls(points: UnweightedPoints, function: Any = FUNCTION, weights: Tensor | None = None) -> Tensor:
    """Sums over events of twelve observables against the integral (midpoint rule), in units of their errors."""
    middle = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    grid = torch.cartesian_prod(middle, middle)

    def observables(x: Tensor) -> Tensor:
        waves = [torch.sin(k * x[:, 0] + (4 - k) * x[:, 1] + shift) for k in range(4) for shift in (0.0, 1.5)]
        return torch.stack([*waves, x[:, 0], x[:, 1] ** 2, (x[:, 0] > 0.5).double(), x.prod(1)], 1)

    truth = function(grid).unsqueeze(1)
    value, sign = observables(points.x), points.weights.unsqueeze(1)
    expected = (observables(grid) * truth).sum(0) / truth.sum()
    w = sign if weights is None else weights.unsqueeze(1)
    found = (value * w).sum(0) / w.sum()
    spread = ((value - found) ** 2 * w**2).sum(0).sqrt() / w.sum().abs()
    return (found - expected) / spread


@pytest.mark.parametrize(("function", "policy"), [(FUNCTION, "overweight"), (signed, "strict"), (annulus(), "strict")])
def test_events_follow_the_integrand(function: Any, policy: str) -> None:
    points = prepared(function, policy=policy).generate(20_000)
    assert points.x.shape == (20_000, 2) and bool(torch.isfinite(points.weights).all())
    assert bool((points.weights.abs() >= 1.0).all())
    assert torch.equal(torch.sign(points.weights), torch.sign(function(points.x)))
    assert float(pulls(points, function).abs().max()) < LIMIT


@pytest.mark.parametrize("overweight", [1e-3, 0.3])
def test_a_bad_surrogate_costs_time_alone(overweight: float) -> None:
    bad, fine = prepared(config=POOR, overweight=overweight), prepared(overweight=overweight)
    assert fine.gain.second > bad.gain.second
    assert float(pulls(bad.generate(20_000)).abs().max()) < LIMIT


@pytest.mark.parametrize("kind", ["constant", "random"])
def test_any_positive_surrogate_gives_the_same_events(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(self: Surrogate, x: Tensor, log_q: Tensor) -> Tensor:
        return torch.ones_like(log_q) if kind == "constant" else 0.2 + (997.0 * x.sum(1)) % 1.0

    monkeypatch.setattr(Surrogate, "__call__", stand_in)
    points = prepared(config=POOR).generate(20_000)
    assert float(pulls(points).abs().max()) < LIMIT


def test_leaving_out_the_second_stage_is_found() -> None:
    """Negative control."""
    tool = prepared(config=POOR)
    x, log_q = UniformSampler(2).sample(60_000, torch.Generator().manual_seed(3))
    values = tool.surrogate(x, log_q).clamp(max=tool.max_surrogate)
    passed = torch.rand(60_000, generator=torch.Generator().manual_seed(4)) * tool.max_surrogate < values
    ones = torch.ones(int(passed.sum()), dtype=torch.float64)
    assert float(pulls(UnweightedPoints(x[passed], x[passed], ones, 60_000)).abs().max()) > 8.0


def test_forgetting_the_overweights_is_found() -> None:
    """Negative control."""
    points = prepared(config=POOR, overweight=0.6).generate(20_000)
    assert points.overweight > 1000
    assert float(pulls(points).abs().max()) < LIMIT
    assert float(pulls(points, weights=torch.sign(points.weights)).abs().max()) > 5.0


def test_the_gain_is_what_events_take() -> None:
    integrand = Integrand(FUNCTION, 2)
    tool = prepared(integrand)
    before = integrand.calls
    points = tool.generate(30_000)
    gain = tool.gain
    assert (integrand.calls - before) / 30_000 == pytest.approx(gain.calls_with, rel=0.05)
    assert 30_000 / points.trials == pytest.approx(gain.first * gain.second, rel=0.05)
    assert gain.calls > 3.0 and gain.second > 0.7
    weights = Integrator(integrand, UniformSampler(2), POINTS, Streams(1)).run().weights
    single = Unweighter(integrand, UniformSampler(2), tool.config.max_weight(weights, Streams(1)), 0.2, Streams(1))
    assert 30_000 / single.generate(30_000).trials == pytest.approx(gain.single, rel=0.05)
    assert gain.calls_without == pytest.approx(1.0 / gain.single)
    assert gain.seconds_without == pytest.approx((1e-3 + 1e-6) / gain.single)
    assert gain.seconds_with == pytest.approx(1e-3 * gain.calls_with + 2e-6 / (gain.first * gain.second))
    assert points.overweight_fraction < 2e-3
    assert "instead of" in gain.line()


def test_a_costly_integrand_pays_and_a_cheap_one_does_not() -> None:
    gain = TwoStageGain(0.2, 0.8, 0.16, 5.0, 1.25, 5e-3, 1.3e-3, 37.0, {})
    assert gain.calls == 4.0
    assert gain.pays(20_000) and not gain.pays(10_000)
    assert not replace(gain, seconds_with=6e-3).pays(10**9)
    costs = StageCosts(1e-3)
    assert worth_preparing(20_000, 0.2, 1.0, costs, 60.0) and not worth_preparing(10_000, 0.2, 1.0, costs, 60.0)
    assert not worth_preparing(10**9, 1.0, 0.9, costs, 1.0)
    assert not worth_preparing(10**9, 0.1, 1.0, StageCosts(1e-5, surrogate=1e-5), 1.0)


def test_no_clock_decides_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "COSTS", StageCosts(call=1e-3))
    first = prepared(config=POOR)
    ticks = count()
    monkeypatch.setattr("nisampler.training.costs.perf_counter", lambda: 10.0 ** next(ticks))
    again = prepared(config=POOR)
    assert (first.max_surrogate, first.max_ratio) == (again.max_surrogate, again.max_ratio)
    assert first.gain.costs == again.gain.costs


def test_measured_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("nisampler.training.costs.perf_counter", lambda: 1e-3 * next(ticks))
    monkeypatch.setattr(two_stage, "perf_counter", lambda: 5.0 * next(ticks))
    monkeypatch.setitem(globals(), "COSTS", StageCosts(call=1e-3, point=None, surrogate=None))
    gain = prepared(config=POOR).gain
    assert gain.costs["call"] == 1e-3 and gain.preparation == 25.0
    assert gain.costs["point"] == pytest.approx(1e-3 / 24_576, rel=0.2)
    assert gain.costs["surrogate"] == pytest.approx(1e-3 / 6144, rel=0.2)


def test_dear_points_move_work_to_the_second_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "COSTS", StageCosts(call=1e-6, point=1e-3, surrogate=1e-6))
    dear = prepared(config=POOR).gain
    monkeypatch.undo()
    assert dear.first * dear.second >= prepared(config=POOR).gain.first * prepared(config=POOR).gain.second


def test_shards_depend_on_seed_and_index_alone() -> None:
    tool = good()
    shards = [tool.generate(400, shard) for shard in range(3)]
    torch.manual_seed(9)
    other = prepared()
    for shard in (2, 1, 0):
        again = other.generate(400, shard)
        assert torch.equal(again.x, shards[shard].x) and torch.equal(again.weights, shards[shard].weights)
    start, whole = tool.generate(150, 1), tool.generate(3000, 1)
    assert torch.equal(start.x, whole.x[:150]) and torch.equal(start.weights, whole.weights[:150])
    assert start.trials < whole.trials
    assert len(torch.cat([points.x for points in shards]).unique(dim=0)) == 1200


def test_a_stored_surrogate_makes_the_same_events(tmp_path: Any) -> None:
    tool = good()
    save_checkpoint(tmp_path, *tool.state())
    assert json.loads(json.dumps(tool.state()[1])) == tool.state()[1]
    state = load_checkpoint(tmp_path)
    again = TwoStageUnweighter.load(Integrand(FUNCTION, 2), UniformSampler(2), state, Streams(1), tool.config)
    assert again.gain == tool.gain
    one, other = tool.generate(500, 7), again.generate(500, 7)
    assert torch.equal(one.x, other.x) and torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("key", ["gain", "max_ratio", "surrogate", "features", "kinds"])
def test_a_damaged_state_is_named(key: str) -> None:
    tensors, meta = good().state()
    if key in ("features", "kinds"):
        meta["surrogate"][key] = 3
    else:
        del meta[key]
    with pytest.raises(CorruptFileError, match="cannot be rebuilt"):
        TwoStageUnweighter.load(Integrand(FUNCTION, 2), UniformSampler(2), (tensors, meta), Streams(1), None)


def test_no_calls_for_the_preparation() -> None:
    integrand = Integrand(FUNCTION, 2)
    weights = Integrator(integrand, UniformSampler(2), POINTS, Streams(1)).run().weights
    before = integrand.calls
    prepare_two_stage(integrand, UniformSampler(2), weights, COSTS, Streams(1), POINTS, None, POOR)
    assert integrand.calls == before


@pytest.mark.parametrize("kept", [24_576, 10_001])
def test_the_points_of_the_integration_come_again(kept: int) -> None:
    streams, sampler = Streams(5), UniformSampler(2)
    config = replace(POINTS, keep_weights=kept)
    weights = Integrator(Integrand(FUNCTION, 2), sampler, config, streams).run().weights
    x, log_q = points_again(sampler, len(weights), streams, config)
    assert torch.equal(FUNCTION(x) * torch.exp(-log_q), weights) and len(weights) == kept


def cut_function() -> Multichannel:
    """8 x_0 x_1 x_2 through three channels, but nothing below x_2 = 0.3."""

    def beside(x: Tensor) -> Tensor:
        return x[:, 2] > 0.3

    function = gentle_function(support=beside)
    whole = function.function
    function.function = lambda x: whole(x) * beside(x)
    return function


def test_channels_and_cuts() -> None:
    """The surrogate knows channels, their weights and the support, so that no call is spent outside of it."""
    function = cut_function()
    integrand = Integrand(function)
    tool = prepared(integrand, SMALL)
    before = integrand.counts()
    points = tool.generate(5000)
    counts = integrand.counts()
    assert counts["zeros"] == before["zeros"] and counts["calls"] - before["calls"] < 8000
    assert tool.gain.calls_without < 0.9 / tool.gain.single
    x, log_q = tool.sampler.sample(4000, torch.Generator().manual_seed(1))
    weights = tool.integrand(x) * torch.exp(-log_q)
    values = tool.surrogate(x, log_q)
    assert torch.equal(values > 0.0, weights > 0.0)
    assert tool.gain.second > 0.6
    third = points.x[:, 2]
    assert float(third.min()) > 0.3


def test_what_is_known_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = Surrogate(Integrand(cut_function()), UniformSampler(4))
    x, log_q = UniformSampler(4).sample(1000, torch.Generator().manual_seed(1))
    whole = surrogate.known(x, log_q)
    monkeypatch.setattr("nisampler.unweighting.surrogate._CHUNK", 300)
    again = surrogate.known(x, log_q)
    assert torch.equal(again.inside, whole.inside)
    torch.testing.assert_close(again.factors.features, whole.factors.features)
    torch.testing.assert_close(again.factors.log_factor, whole.factors.log_factor)


KNOWN = torch.tensor([1.0, 30.0])


def jumping(factors: bool = True, kind: Tensor | None = None) -> Multichannel:
    """Two lines in x_1, one for each half of x_0, times a factor of this half and a comb in x_1 that may be known."""

    def half(x: Tensor) -> Tensor:
        return (x[:, 0] > 0.5).long()

    def comb(x: Tensor) -> Tensor:
        return KNOWN[half(x)] * (1.0 + 20.0 * torch.sin(40.0 * x[:, 1]) ** 2)

    def value(x: Tensor) -> Tensor:
        return comb(x) * torch.where(half(x) == 0, 1.0 + x[:, 1], 3.0 - 2.0 * x[:, 1])

    def known(x: Tensor) -> Factors:
        return Factors(torch.log(comb(x)), x[:, 1:], half(x) if kind is None else kind.expand(len(x)), 2)

    return Multichannel(value, [Square()], factors=known if factors else None)


class Square:
    name, dim = "square", 2

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, torch.zeros_like(u[:, 0])


def test_a_surrogate_learns_what_is_not_known() -> None:
    knowing, one, none = (
        prepared(Integrand(function))
        for function in (jumping(), jumping(kind=torch.zeros(1).long()), jumping(factors=False))
    )
    assert knowing.gain.second > 0.95
    assert knowing.gain.second > 1.2 * one.gain.second > 1.2 * none.gain.second
    for tool in (knowing, none):
        assert float(pulls(tool.generate(20_000), jumping().function).abs().max()) < LIMIT


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("log_factor", torch.zeros(3), "expected log_factor"),
        ("kind", torch.zeros(2, 1).long(), "expected log_factor"),
        ("features", torch.zeros(2), "expected log_factor"),
        ("features", torch.tensor([[0.0], [math.nan]]), "feature is not finite"),
        ("log_factor", torch.tensor([0.0, math.nan]), "NaN or"),
        ("log_factor", torch.tensor([0.0, math.inf]), "NaN or"),
        ("kind", torch.tensor([0, 2]), "kind must be from 0 to 1, got 0 to 2"),
        ("kind", torch.tensor([-1, 0]), "kind must be from 0 to 1, got -1 to 0"),
    ],
)
def test_factors_that_cannot_be(name: str, bad: Tensor, text: str) -> None:
    good = {"log_factor": torch.tensor([0.0, -math.inf]), "features": torch.zeros(2, 1), "kind": torch.zeros(2).long()}
    Factors(**good, kinds=2)
    with pytest.raises(ChannelError, match=text):
        Factors(**{**good, name: bad}, kinds=2)


def test_a_wrong_support_is_found() -> None:
    function = cut_function()
    function.function = gentle_function().function
    with pytest.raises(UnweightingError, match="support"):
        prepared(Integrand(function), POOR)


def test_too_few_events_is_an_error() -> None:
    tool = prepared(config=POOR, max_trials=2.0)
    with pytest.raises(EventCountError, match="of 50000 events"):
        tool.generate(50_000)
    with pytest.raises(ConfigError):
        tool.generate(0)


def test_too_few_points_to_learn_from() -> None:
    with pytest.raises(UnweightingError, match="non-zero weight"):
        prepared(lambda x: (x[:, 0] < 1e-3) * 1.0)
    surrogate = Surrogate(Integrand(FUNCTION, 2), UniformSampler(2))
    x, log_q = UniformSampler(2).sample(10, torch.Generator())
    with pytest.raises(UnweightingError, match="not been fitted"):
        surrogate(x, log_q)
    with pytest.raises(UnweightingError, match="not been fitted"):
        surrogate.state()
    with pytest.raises(ShapeError):
        surrogate.fit(x, log_q, log_q[:5], POOR, Streams(0))


def test_a_training_that_diverges_is_named() -> None:
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        prepared(config=replace(SMALL, learning_rate=1e30, steps=200))


def test_values_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Surrogate, "__call__", lambda self, x, log_q: torch.full_like(log_q, math.nan))
    with pytest.raises(NonFiniteError):
        prepared(config=POOR)


def test_the_surrogate_stays_within_what_it_has_seen() -> None:
    tool = good()
    net = tool.surrogate.net
    assert net is not None
    far = net.log_r(torch.tensor([[1e30, -1e30], [0.0, 1e9]], dtype=torch.float64), torch.zeros(2).long())
    assert bool(((far >= net.low) & (far <= net.high)).all())
    assert net.log_r(torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0).long()).shape == (0,)


@pytest.mark.parametrize(("name", "bad"), [("max_surrogate", 0.0), ("max_ratio", math.inf), ("max_ratio", math.nan)])
def test_maxima_that_cannot_be(name: str, bad: float) -> None:
    tool = good()
    maxima = {"max_surrogate": 1.0, "max_ratio": 1.0} | {name: bad}
    with pytest.raises(UnweightingError, match="positive and finite"):
        TwoStageUnweighter(tool.surrogate, tool.sampler, gain=tool.gain, streams=Streams(0), **maxima)


@pytest.mark.parametrize(
    "settings", [{"hidden": 0}, {"layers": 1.5}, {"steps": 0}, {"batch": -1}, {"learning_rate": 0.0}, {"order": 1.0}]
)
def test_contradictory_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SurrogateConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{"call": 0.0}, {"call": 1.0, "point": -1.0}, {"call": 1.0, "surrogate": math.inf}]
)
def test_impossible_costs_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(settings)[-1]):
        StageCosts(**settings)


@pytest.mark.parametrize("policy", ["quantile", "bootstrap"])
def test_maxima_of_weights_that_stand_for_several_points(policy: str) -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(5000, generator=generator, dtype=torch.float64)
    counts = torch.randint(0, 4, (5000,), generator=generator).double()
    config = UnweightingConfig(policy, 0.05)
    repeated = config.max_weight(weights.repeat_interleave(counts.long()), Streams(0))
    assert config.max_weight(weights, Streams(0), counts) == pytest.approx(repeated, rel=2e-2)
    assert config.max_weight(weights, Streams(0), torch.ones(5000)) == config.max_weight(weights, Streams(0))


def test_steps_of_a_surrogate_follow_the_points_unless_they_are_given() -> None:
    assert [SurrogateConfig().steps_for(n) for n in (300, 36_000, 10**6)] == [1000, 5625, 20_000]
    assert SurrogateConfig(steps=50).steps_for(10**6) == 50
