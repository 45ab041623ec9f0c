"""The choice for a number of events: what is cheap takes VEGAS, what is costly a flow, and a decision stays."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from channel_examples import ridge_function
from training_settings import training

from nisampler import api as engine
from nisampler.base import tuning
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.integration.integrator import IntegrationConfig
from nisampler.processes.functions.functions import camel
from nisampler.samplers.chain import ChainSampler
from nisampler.samplers.tree import TreeSampler
from nisampler.training import costs
from nisampler.training.call_budget import CallBudget
from nisampler.training.chooser import Chooser
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import (
    Choice,
    Costs,
    Meter,
    Option,
    flow_efficiency,
    integration_calls,
    points_of,
    rounded,
)
from nisampler.training.prices import Prices
from nisampler.training.trainer import Trainer
from nisampler.unweighting.unweighter import UnweightingConfig

CHEAP, DEAR = Costs(1e-7), Costs(1e-2)
TINY: dict[str, Any] = {"calls": 40_000, "hidden": 16, "layers": 2, "batch": 500, "fourier": 0, "events": 200_000}


def trainer(price: Costs | None = DEAR, function: Any = None, **settings: Any) -> Trainer:
    return Trainer(Integrand(function or camel(2)), training(**(TINY | settings), costs=price), Streams(3))


def chooser_of(events: int | None, price: Costs | None) -> Chooser:
    config = TrainingConfig(events=events, costs=price)
    return Chooser(config, CallBudget(config, Prices(config)))


class FakeClock:
    """Seconds go by only where somebody looks: the same for every measurement."""

    def __init__(self) -> None:
        self.now, self.read, self.step = 0.0, 0, 1e-3

    def __call__(self) -> float:
        self.read += 1
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(costs, "perf_counter", fake)
    return fake


@pytest.fixture(scope="module")
def dear() -> Trainer:
    one = trainer()
    one.fit()
    return one


def test_a_costly_call_pays_for_a_flow(dear: Trainer) -> None:
    result, choice = dear.result, dear.choice
    assert result is not None and choice is not None and result.choice == choice
    assert choice.chosen.startswith("flow") and "flow" in result.sampler.describe()
    assert {option.name for option in choice.options} == {"VEGAS", "VEGAS + tree", "flow 2x16"}
    assert choice.options == sorted(choice.options, key=lambda option: option.seconds)
    assert choice.costs == dataclasses.asdict(DEAR)
    assert dear.calls <= 40_000
    assert result.efficiency == next(c.efficiency_0p1 for c in result.candidates if c.chosen)


def test_a_cheap_call_stays_with_vegas() -> None:
    one = trainer(CHEAP, events=20_000)
    result = one.fit()
    assert result.choice is not None and result.choice.chosen.startswith("VEGAS")
    assert result.choice.reason == "a flow would take longer at best"
    assert not any(record.stage == "flow" for record in result.history)
    assert "vegas" in result.sampler.describe() and one.calls < 20_000


def test_candidates_are_compared_by_seconds(dear: Trainer) -> None:
    assert dear.result is not None
    for candidate in dear.result.candidates:
        assert candidate.seconds_per_event is not None
        assert candidate.seconds_per_event * candidate.efficiency_0p1 == pytest.approx(1e-2, rel=0.01)
    best = min(candidate.seconds_per_event or 0.0 for candidate in dear.result.candidates)
    chosen = next(candidate for candidate in dear.result.candidates if candidate.chosen)
    assert chosen.seconds_per_event is not None and chosen.seconds_per_event < 1.05 * best


def test_the_price_of_a_point_counts_in_the_end() -> None:
    """The same flow is trained, but its points are so dear that VEGAS makes the events."""
    one = trainer(dataclasses.replace(DEAR, small=10.0, large=10.0))
    one.chooser.take(Choice(200_000, "flow 2x16", options=[Option("flow 2x16", 16_000, 0.9, 1.0)]))
    one.chooser.decide = lambda *_: None  # type: ignore[method-assign]
    result = one.fit()
    assert any(record.stage == "flow" for record in result.history)
    assert any("flow" in candidate.name for candidate in result.candidates)
    assert "flow" not in result.sampler.describe()


@pytest.mark.parametrize("sampler", ["vegas", "flow"])
def test_a_sampler_that_is_named_is_taken(sampler: str) -> None:
    price = DEAR if sampler == "vegas" else CHEAP
    one = trainer(price, sampler=sampler, reuse=1)
    result = one.fit()
    assert sampler in result.sampler.describe()
    if sampler == "vegas":
        assert result.choice is not None and result.choice.reason == "as told"
        assert result.choice.line() == "VEGAS for 200000 events; as told"
    else:
        plain = trainer(None, sampler="flow", events=0, reuse=1).fit()
        assert result.choice is None and result.candidates == plain.candidates


def test_without_events_no_clock_is_read_and_nothing_is_chosen(clock: FakeClock) -> None:
    result = trainer(None, calls=6000, events=0, batch=200).fit()
    assert clock.read == 0
    assert result.choice is None and any(record.stage == "flow" for record in result.history)
    assert all(candidate.seconds_per_event is None for candidate in result.candidates)
    assert "choice" not in trainer(None, events=0).state()[1]


def test_a_clock_is_read_only_where_it_is_asked_for(clock: FakeClock) -> None:
    trainer(batch=None, calls=6000, choose_by="clock").fit()
    counted = trainer(None, batch=None, calls=6000).fit().choice
    assert clock.read == 0 and counted is not None
    assert (
        counted.costs == dataclasses.asdict(Costs(tuning.LEAST_CALL["torch"]))
        and "foreseen by stated costs" in counted.line()
    )
    clock.step = 10.0
    one = trainer(None, choose_by="clock")
    choice = one.fit().choice
    assert clock.read > 0 and choice is not None and "foreseen by measured costs" in choice.line()
    assert set(choice.costs) == {field.name for field in dataclasses.fields(Costs)} - {"small", "small_training"}
    assert all(cost == rounded(cost) > 0.0 for cost in choice.costs.values())
    again = trainer(Costs(**(dataclasses.asdict(Costs(1.0)) | choice.costs))).fit()
    assert again.choice is not None and again.choice.chosen == choice.chosen
    assert again.choice.options == choice.options


@pytest.mark.parametrize("step", [1e-6, 1e2])
def test_a_busy_machine_makes_the_same_events(clock: FakeClock, step: float, tmp_path: Path) -> None:
    """However long everything takes, and wherever it was killed: the same sampler, after the same calls."""

    def one_run(folder: Path) -> Trainer:
        one = trainer(None)
        one.fit(lambda now: save_checkpoint(folder, *now.state()) if now.stage == "survey" else None)
        return one

    first = one_run(tmp_path / "at")
    clock.step = step
    for again in (trainer(None), trainer(None)):
        again.load_state(*load_checkpoint(tmp_path / "at"))
        again.fit()
        assert bytes_of(again, tmp_path / "again") == bytes_of(first, tmp_path / "first")
    assert bytes_of(one_run(tmp_path / "other"), tmp_path / "again") == bytes_of(first, tmp_path / "first")


def test_a_function_states_what_its_call_costs() -> None:
    class Costly:
        dim, seconds_per_call = 2, 1e-2

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return camel(2)(x)

    one = trainer(None, Costly())
    assert one.fit().choice == trainer().fit().choice
    assert one.choice is not None and one.choice.chosen.startswith("flow")
    given = trainer(CHEAP, Costly())
    assert given.budget.prices.call() == CHEAP.call
    Costly.seconds_per_call = -1.0
    with pytest.raises(ConfigError, match="seconds_per_call"):
        Integrand(Costly())


def test_more_events_and_dearer_calls_train_longer() -> None:
    def calls(events: int, price: float) -> int:
        chooser = chooser_of(events, Costs(price))
        return chooser.flow("large", 0.01, 800_000).calls

    by_events = [calls(events, 1e-4) for events in (1000, 100_000, 10_000_000)]
    assert by_events == sorted(set(by_events))
    cheap, dear = calls(100_000, 1e-6), calls(100_000, 1e-2)
    assert cheap < dear <= 800_000
    assert chooser_of(10, DEAR).flow("large", 0.01, 7000).calls == 7000


def test_the_flow_that_is_quicker_to_make_points_wins_where_calls_are_cheap() -> None:
    for price, small in ((1e-7, True), (1.0, False)):
        prices = Costs(price, small=1e-6, large=1e-4, small_training=1e-4, large_training=1e-4)
        chooser = chooser_of(10_000_000, prices)
        options = [chooser.flow(name, 0.001, 800_000) for name in chooser.sizes()]
        assert [option.name for option in options] == ["flow 2x32", "flow 3x64"]
        assert (options[0].seconds < 0.7 * options[1].seconds) == small


def test_a_flow_must_be_clearly_quicker() -> None:
    vegas = Option("VEGAS", 0, 0.5, 10.0)
    for seconds, chosen in ((8.0, "VEGAS"), (7.0, "flow 3x64")):
        chooser = chooser_of(1000, DEAR)
        chooser.decide([vegas], [Option("flow 3x64", 20_000, 0.8, seconds)], "", 5000)
        assert chooser.choice is not None and chooser.choice.chosen == chosen
        assert chooser.takes_flow == (chosen != "VEGAS")
        assert chooser.choice.options[0].seconds == seconds


def test_no_flow_is_timed_where_vegas_is_quick() -> None:
    chooser = chooser_of(1000, CHEAP)
    assert not chooser.worth_timing("large", [Option("VEGAS", 0, 0.5, 19.0)], 0.5, 100_000)
    assert chooser.worth_timing("large", [Option("VEGAS", 0, 0.5, 400.0)], 0.5, 100_000)
    slow_small = Option("flow 2x32", 0, 0.5, 4000.0)
    assert not chooser.worth_timing("large", [Option("VEGAS", 0, 0.5, 400.0), slow_small], 0.5, 100_000)


def bytes_of(one: Trainer, folder: Path) -> bytes:
    assert one.result is not None
    tensors, meta = one.result.sampler.state()
    candidates = [vars(candidate) for candidate in one.result.candidates]
    choice = dataclasses.asdict(one.result.choice) if one.result.choice else None
    save_checkpoint(folder, tensors, {"m": meta, "c": candidates, "d": choice})
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


@pytest.mark.parametrize("price", [CHEAP, DEAR], ids=["cheap", "dear"])
def test_resume_gives_the_same_bytes(price: Costs, tmp_path: Path) -> None:
    count = 0

    def keep(now: Trainer) -> None:
        nonlocal count
        save_checkpoint(tmp_path / str(count), *now.state())
        count += 1

    whole = trainer(price)
    whole.fit(keep)
    expected = bytes_of(whole, tmp_path / "whole")
    for index in sorted({0, count // 3, count // 2, count - 1}):
        again = trainer(price)
        again.load_state(*load_checkpoint(tmp_path / str(index)))
        again.fit()
        assert bytes_of(again, tmp_path / f"{index} again") == expected
        assert again.integrand.counts() == whole.integrand.counts()


def test_a_decision_is_not_taken_again(clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that began where a call was slow goes on with its flow where it is quick."""
    monkeypatch.setattr(Meter, "seconds", lambda self, name: 1e-2 if name == "call" else 1e-5)
    slow = trainer(None, choose_by="clock")

    def keep(now: Trainer) -> None:
        if now.stage == "flow" and not (tmp_path / "at").exists():
            save_checkpoint(tmp_path / "at", *now.state())

    slow.fit(keep)
    monkeypatch.setattr(Meter, "seconds", lambda self, name: 1e-9)
    assert trainer(None, choose_by="clock").fit().choice != slow.choice
    quick = trainer(None, choose_by="clock")
    quick.load_state(*load_checkpoint(tmp_path / "at"))
    quick.fit()
    assert quick.choice == slow.choice and quick.chooser.takes_flow
    assert bytes_of(quick, tmp_path / "quick") == bytes_of(slow, tmp_path / "slow")


def test_channels_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "FLOW_MARGIN", 0.5)
    function = ridge_function()
    one = trainer(DEAR, function)
    assert one.chooser.flows == len(set(function.groups))
    result = one.fit()
    assert result.choice is not None and result.choice.chosen.startswith("flow")
    mixture = [c for c in result.candidates if "mixture" in c.name]
    plain = [c for c in result.candidates if "learned" in c.name]
    cost = [(c.seconds_per_event or 0.0) * c.efficiency_0p1 for c in (mixture[0], plain[0])]
    assert cost[0] > cost[1] > 1e-2
    quick = trainer(CHEAP, function).fit()
    assert quick.choice is not None and quick.choice.chosen.startswith("VEGAS")


def test_little_to_gain_and_nothing_to_learn_take_vegas() -> None:
    for function in (lambda x: 1.0 + 0.0 * x[:, 0], lambda x: 1.0 + 0.01 * x[:, 0]):
        integrand = Integrand(function, 2)
        result = Trainer(integrand, training(**TINY, costs=DEAR), Streams(1)).fit()
        assert result.choice is not None and result.choice.reason == "there is little to gain"


def test_a_flow_that_is_given_up_leaves_vegas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nisampler.training.flow_trainer.FlowTrainer._loss",
        lambda self: lambda log_q, f, log_g, norm: log_q.mean() * math.nan,
    )
    result = trainer().fit()
    assert "vegas" in result.sampler.describe()
    assert any("in favour of VEGAS" in warning for warning in result.warnings)


def test_trees_are_grown_in_a_part_of_the_time() -> None:
    one = trainer(DEAR, sampler="vegas")
    one.fit()
    sampler = one.survey.sampler()
    few, many = (chooser_of(n, CHEAP).budget.tree(0.1, sampler, 3) for n in (3_000, 1_000_000))
    assert few < 1000 < many
    assert chooser_of(None, None).budget.tree(0.1, sampler, 3) > 10**12
    assert one.result is not None and isinstance(one.result.sampler, ChainSampler)
    assert isinstance(one.result.sampler.samplers[1], TreeSampler)
    dear_tree = trainer(dataclasses.replace(CHEAP, growth=1.0), sampler="vegas").fit()
    assert not any("tree" in candidate.name for candidate in dear_tree.candidates)


def test_points_of_the_integration_follow_the_events() -> None:
    assert [integration_calls(n, 0.5) for n in (1000, 100_000, 10**6, 10**8)] == [16384, 20000, 200_000, 1_000_000]
    assert integration_calls(100_000, 0.0) == 1_000_000
    assert points_of(100_000, 0.5) == 220_000
    config = IntegrationConfig()
    assert config.round == config.for_events(0, 0.5).round == 1_000_000
    assert config.for_events(100_000, 0.5).points == 20_000
    assert IntegrationConfig(points=5000).for_events(100_000, 0.5).points == 5000


def test_what_flows_are_expected_to_reach() -> None:
    found = [flow_efficiency(0.01, calls) for calls in (1000, 30_000, 300_000, 3_000_000)]
    assert found == sorted(found) and 0.01 < found[0] < 0.02 and 0.4 < found[-1] < 1.0
    assert flow_efficiency(0.01, 100_000, flows=4) < flow_efficiency(0.01, 100_000)
    assert flow_efficiency(0.5, 100_000) > flow_efficiency(0.01, 100_000)
    assert flow_efficiency(0.0, 100_000) > 0.0


def test_measurements_are_rounded_and_the_quickest_counts(clock: FakeClock) -> None:
    meter = Meter()
    for points in (10, 1000, *[10] * 4):
        with meter.timed("call", points):
            pass
    assert meter.seconds("call") == rounded(1e-6)
    with meter.timed("call", 10):
        pass
    assert meter.seconds("call") == rounded(1e-4) != 1e-4  # the sixth before counts no more
    assert rounded(1.15e-4) == rounded(1.3e-4) and rounded(2e-4) == pytest.approx(2 * rounded(1e-4))
    assert rounded(0.0) > 0.0


def test_the_engine_tells_the_choice_in_one_line() -> None:
    settings = training(**{**TINY, "events": 0}, costs=DEAR)
    once = UnweightingConfig(two_stage="never")
    result = engine.integrate(camel(2), training=settings, unweighting=once, events=200_000)
    choice = result.training.choice
    assert choice is not None and choice.events == 200_000
    lines = [line for line in result.summary().splitlines() if line.startswith("choice")]
    assert lines == [f"choice       {choice.line()}"]
    for part in ("flow 2x16 for 200000 events", "VEGAS", " s"):
        assert part in lines[0]
    expected = integration_calls(200_000, result.training.efficiency)
    assert 0.9 * expected < result.calls["integration"] <= expected
    plain = engine.integrate(camel(2), training=settings, integration=IntegrationConfig(points=4096))
    assert plain.training.choice is None and "choice" not in plain.summary()
    assert plain.calls["integration"] == 4080 or plain.calls["integration"] == 4096


def test_a_choice_survives_json() -> None:
    choice = Choice(5, "VEGAS", "as told", [Option("VEGAS", 1, 0.5, 2.0)], {"call": 1e-6})
    assert Choice.of(dataclasses.asdict(choice)) == choice
    assert choice.line() == "VEGAS for 5 events; foreseen by stated costs: VEGAS 2 s; as told"


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrainingConfig(events=-1),
        lambda: TrainingConfig(events=1e5),  # type: ignore[arg-type]
        lambda: TrainingConfig(costs={"call": 1.0}),  # type: ignore[arg-type]
        lambda: Costs(0.0),
        lambda: Costs(math.nan),
        lambda: Costs(1e-6, grid=-1.0),
        lambda: Costs(1e-6, large=math.inf),
        lambda: engine.integrate(camel(2), events=-5),
    ],
)
def test_what_is_wrong_is_named(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"events|costs|call|grid|large"):
        make()
