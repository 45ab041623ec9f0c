"""The choice where the integral is all that is wanted: a flow where it pays, and where not, nothing but VEGAS."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from training_settings import training

import nisampler
from nisampler.base import tuning
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.processes.base import CallableProcess, FunctionProcess
from nisampler.processes.functions.functions import camel
from nisampler.training.call_budget import CallBudget
from nisampler.training.chooser import Chooser
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import Costs, integral_gain
from nisampler.training.prices import Prices
from nisampler.training.records import TrainingRecord
from nisampler.training.trainer import Trainer

SMALL: dict[str, Any] = {"hidden": 16, "layers": 2, "fourier": 0}
CHEAP, DEAR = Costs(1e-7), Costs(1e-2)


def trainer(price: Costs | None, calls: int = 20_000, **settings: Any) -> Trainer:
    return Trainer(Integrand(camel(2)), training(calls=calls, costs=price, **(SMALL | settings)), Streams(3))


def chosen(price: Costs, spread: float, calls: int, dim: int = 4) -> Chooser:
    config = TrainingConfig(calls=calls, costs=price)
    chooser = Chooser(config, CallBudget(config, Prices(config)))
    record = TrainingRecord("vegas", calls // 12, 10, 0.0, 0.0, 1.0 / (1.0 + spread), 0.1, 0.01)
    chooser.for_integral(record, dim, "")
    return chooser


def test_a_cheap_function_takes_vegas_and_no_tree() -> None:
    one = trainer(CHEAP)
    result = one.fit()
    assert result.choice is not None and result.choice.chosen == "VEGAS" and result.choice.events == 0
    assert {record.stage for record in result.history} == {"vegas"}
    assert not any("tree" in candidate.name for candidate in result.candidates)
    assert "VEGAS for the integral; foreseen by stated costs" in result.choice.line()
    assert result.choice.costs == dataclasses.asdict(CHEAP)


def test_a_costly_function_takes_a_flow() -> None:
    result = trainer(DEAR).fit()
    assert result.choice is not None and result.choice.chosen == "flow 2x16"
    assert any(record.stage == "flow" for record in result.history)
    assert result.choice.options[0].name == "flow 2x16"


def test_a_named_sampler_makes_no_choice() -> None:
    result = trainer(DEAR, sampler="vegas").fit()
    assert result.choice is None and not any("tree" in candidate.name for candidate in result.candidates)
    with_events = trainer(DEAR, sampler="vegas", events=0).fit()
    assert any("tree" in candidate.name for candidate in with_events.candidates)


def test_where_there_is_little_to_gain_no_cost_makes_a_flow() -> None:
    one = Trainer(Integrand(lambda x: 1.0 + 0.01 * x[:, 0], 2), training(calls=40_000, costs=DEAR), Streams(1))
    result = one.fit()
    assert result.choice is not None and result.choice.chosen == "VEGAS"
    assert result.choice.reason == "there is little to gain"


@given(
    spread=st.floats(1e-3, 1e3),
    calls=st.integers(10_000, 10**8),
    dim=st.integers(1, 16),
    price=st.floats(-8, 0).map(lambda power: 10.0**power),
)
def test_a_flow_is_taken_exactly_where_it_is_said_to_pay(spread: float, calls: int, dim: int, price: float) -> None:
    """The cost of a call from which on it pays, as it is printed, is where the choice changes."""
    chooser = chosen(Costs(price), spread, calls, dim)
    choice = chooser.choice
    assert choice is not None
    seconds = {option.name: option.seconds for option in choice.options}
    pays = seconds["VEGAS"] > max(tuning.WORTH_A_FLOW, tuning.FLOW_MARGIN * seconds["flow 3x64"])
    assert chooser.takes_flow is pays
    if choice.reason:
        least = float(choice.reason.split()[4])
        assert not chosen(Costs(0.94 * least), spread, calls, dim).takes_flow
        assert chosen(Costs(1.06 * least), spread, calls, dim).takes_flow


@given(st.floats(1e-3, 1e3), st.integers(1, 16), st.integers(1000, 10**8))
def test_what_a_flow_gains_grows_with_calls_and_with_what_is_left(spread: float, dim: int, calls: int) -> None:
    gain = integral_gain(spread, dim, calls)
    assert gain < integral_gain(2 * spread, dim, calls) and gain < integral_gain(spread, dim, 2 * calls)
    assert integral_gain(spread, dim, calls, flows=3) < gain < 1.0 / tuning.EVENNESS / tuning.FLOW_SPREAD * spread


def test_what_functions_are_taken_to_cost() -> None:
    def vector(x: Tensor) -> Tensor:
        return x[:, 0]

    def point(x: Any) -> float:
        return float(x[0])

    assert Integrand(vector, 2).expected_seconds == tuning.LEAST_CALL["torch"]
    assert Integrand(point, 2, kind="scalar").expected_seconds == tuning.LEAST_CALL["scalar"]
    assert Integrand(FunctionProcess(camel(2))).expected_seconds == tuning.LEAST_CALL["torch"]
    vector.dim = 2  # type: ignore[attr-defined]
    assert Integrand(CallableProcess(vector, "mine")).expected_seconds == tuning.ASSUMED_CALL
    vector.seconds_per_call = 0.25  # type: ignore[attr-defined]
    assert Integrand(vector).expected_seconds == Integrand(CallableProcess(vector, "mine")).expected_seconds == 0.25


def test_a_clock_replaces_what_is_assumed_of_a_call() -> None:
    choice = trainer(None, choose_by="clock").fit().choice
    assert choice is not None and choice.measured
    stated = dataclasses.asdict(Costs(1.0))
    assert {name for name, cost in choice.costs.items() if cost == stated[name]} >= {"large", "large_training"}


@pytest.mark.parametrize("price", [CHEAP, DEAR], ids=["cheap", "dear"])
def test_a_resumed_training_keeps_the_choice(price: Costs, tmp_path: Path) -> None:
    kept: list[Path] = []

    def keep(now: Trainer) -> None:
        kept.append(tmp_path / str(len(kept)))
        save_checkpoint(kept[-1], *now.state())

    whole = trainer(price).fit(keep)
    again = trainer(price)
    again.load_state(*load_checkpoint(kept[-1]))
    assert again.choice == whole.choice is not None
    assert again.fit().candidates == whole.candidates


def test_the_result_tells_the_choice_and_is_the_same_again(tmp_path: Path) -> None:
    first, second = (nisampler.integrate(camel(2), calls=2000, seed=5) for _ in range(2))
    assert first.estimate == second.estimate and torch.equal(first.integration.weights, second.integration.weights)
    (line,) = [line for line in first.summary().splitlines() if line.startswith("choice")]
    assert "VEGAS for the integral" in line
    assert nisampler.load(first.save(tmp_path / "kept"), camel(2)).training.choice == first.training.choice


def test_so_many_calls_are_made() -> None:
    """No stage spends more than its share, whatever was chosen."""
    for calls in (200, 1000, 10_000, 100_000):
        result = nisampler.integrate(camel(2), calls=calls)
        made = result.calls
        assert 0.6 * calls / 2 < made["training"] <= calls / 2
        assert 0.6 * calls / 2 < made["integration"] <= calls / 2
        assert made["detection"] == camel(2).dim + 5


def test_vegas_alone_needs_neither_numba_nor_an_optimizer() -> None:
    code = (
        "import sys, nisampler; before = set(sys.modules); "
        "nisampler.integrate(lambda x: x.prod(1), dim=2, calls=10_000); "
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('numba', 'triton', 'matplotlib')"
        " or name in ('torch._dynamo', 'nisampler.flows', 'nisampler.training.flow_trainer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert trainer(DEAR, calls=5000, sampler="flow").fit() and "nisampler.training.flow_trainer" in sys.modules
