"""What a user may hand in: an optimizer, a loss, a flow, a sampler, and a callback that ends the training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from channel_examples import z_prime_function
from torch import Tensor, nn
from training_settings import training

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, StorageError, ZeroIntegrandError
from nisampler.flows import CouplingConfig, Flow, NetConfig, Spline, coupling_flow
from nisampler.flows.distributions import StandardNormal
from nisampler.processes.functions.functions import camel
from nisampler.samplers.base import Sampler, State, UniformSampler
from nisampler.samplers.registry import READERS, register, sampler_from_state
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.training.divergence import FDivergence
from nisampler.training.records import Progress, TrainingResult
from nisampler.training.trainer import Trainer
from nisampler.ui.monitor import Monitor

TINY: dict[str, Any] = {"calls": 6000, "hidden": 8, "layers": 1, "fourier": 0, "on": False, "events": 0}


def line(x: Tensor) -> Tensor:
    """1.5 √x in every coordinate, of integral one."""
    return (1.5 * x.sqrt()).prod(1)


def trainer(start: Sampler | Flow | None = None, function: Any = line, dim: int | None = 2, **settings: Any) -> Trainer:
    integrand = Integrand(function, dim, kind="torch")
    return Trainer(integrand, training(**(TINY | settings)), Streams(3), start=start)


def spread(result: TrainingResult, function: Any = line, n: int = 4000) -> float:
    """Relative standard deviation of the weights."""
    x, log_q = result.sampler.sample(n, torch.Generator().manual_seed(7))
    weights = function(x) * torch.exp(-log_q)
    return float(weights.std() / weights.mean())


class Powers(TrainableSampler):
    """x = u^(1/a) in each coordinate with learned a, which the line needs at 1.5."""

    kind = "powers"

    def __init__(self, dim: int = 2) -> None:
        self.dim, self.powers = dim, nn.ParameterList([nn.Parameter(torch.zeros(dim))])

    @property
    def model(self) -> nn.Module:
        return self.powers

    def log_q(self, x: Tensor) -> Tensor:
        power = self.powers[0].exp()
        return (power.log() + (power - 1.0) * torch.log(x.clamp(min=1e-30))).sum(1)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x = u ** torch.exp(-self.powers[0].double())
        return x, self.log_q(x).double()

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x ** torch.exp(self.powers[0].double()), self.log_q(x).double()

    def state(self) -> State:
        return {"powers": self.powers[0].detach()}, {"kind": self.kind, "dim": self.dim}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Powers:
        made = cls(meta["dim"])
        made.powers[0].data.copy_(tensors["powers"])
        return made


class Fixed(Sampler):
    """x = √u: a density of 2x in each coordinate."""

    kind, dim = "fixed", 2

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u.sqrt(), torch.log(2.0 * u.sqrt()).sum(1)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.square(), torch.log(2.0 * x).sum(1)


def small_flow(dim: int = 2) -> Flow:
    config = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=1))
    return coupling_flow(dim, config, generator=torch.Generator().manual_seed(1))


def test_an_optimizer_of_ones_own_is_used_and_its_rate_is_the_peak() -> None:
    made: list[torch.optim.Optimizer] = []

    def factory(parameters: Any) -> torch.optim.Optimizer:
        made.append(torch.optim.RMSprop(parameters, lr=2e-3))
        return made[-1]

    one = trainer(sampler="flow", optimizer=factory)
    result = one.fit()
    assert len(made) == 1 and one.flow is not None and one.flow.arms[0].stepper.optimizer is made[0]
    rates = [record.learning_rate for record in result.history if record.stage == "flow"]
    assert 0.0 <= rates[-1] < rates[0] < 2e-3 and math.isfinite(spread(result))


def test_what_makes_no_optimizer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"torch\.optim\.Optimizer"):
        trainer(sampler="flow", optimizer=lambda parameters: "sgd").fit()
    with pytest.raises(ConfigError, match="optimizer"):
        FlowSettings(optimizer="sgd")  # type: ignore[arg-type]


class Watched(FDivergence):
    """Forward KL, counting how often it is asked."""

    name = "watched"

    def __init__(self) -> None:
        object.__setattr__(self, "asked", 0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        object.__setattr__(self, "asked", self.asked + 1)  # type: ignore[attr-defined]
        return p * log_t + q - p


def test_a_divergence_of_ones_own_is_followed() -> None:
    first, last = Watched(), Watched()
    one = trainer(sampler="flow", divergence=first, tail_divergence=last, reuse=0)
    one.fit()
    assert one.flow is not None
    asked = [loss.asked for loss in (first, last)]  # type: ignore[attr-defined]
    assert all(number > 0 for number in asked) and sum(asked) == one.flow.step - math.ceil(0.08 * one.flow.steps)
    plain = trainer(sampler="flow", divergence=first, tail_divergence="none", reuse=0).config.plain()
    assert "Watched" in plain["flow"]["divergence"] and plain["flow"]["tail_divergence"] == "none"


def test_a_checkpoint_knows_another_optimizer(tmp_path: Any) -> None:
    save_checkpoint(tmp_path, *trainer(optimizer=partial(torch.optim.SGD, lr=1e-3)).state())
    trainer(optimizer=partial(torch.optim.SGD, lr=1e-3)).load_state(*load_checkpoint(tmp_path))
    for other in (None, partial(torch.optim.SGD, lr=1e-2), partial(torch.optim.Adam, lr=1e-3)):
        with pytest.raises(ConfigError, match="other training settings"):
            trainer(optimizer=other).load_state(*load_checkpoint(tmp_path))


def test_a_flow_of_ones_own_is_trained_in_place() -> None:
    flow = small_flow()
    before = [parameter.clone() for parameter in flow.parameters()]
    one = trainer(flow, reuse=3)
    result = one.fit()
    assert any(not torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True))
    assert result.sampler.describe().startswith("flow") and len(result.candidates) == 1
    assert not any(record.stage == "vegas" and record.step > 1 for record in result.history)
    assert spread(result) < 0.8 * float(line(torch.rand(4000, 2, generator=torch.Generator().manual_seed(1))).std())
    corner = torch.full((1, 2), 0.2, dtype=torch.float64)
    assert torch.equal(sampler_from_state(*result.sampler.state()).map(corner)[0], result.sampler.map(corner)[0])
    flow.origin = None
    assert "of its own making" in result.sampler.describe()
    with pytest.raises(StorageError, match="put together by hand"):
        result.sampler.state()


def test_a_sampler_that_can_be_trained_is_trained() -> None:
    start = Powers()
    result = trainer(start, reuse=3, learning_rate=0.05).fit()
    assert result.sampler is start and spread(result) < 0.1
    assert start.powers[0].exp().tolist() == pytest.approx([1.5, 1.5], abs=0.1)


def test_a_trained_sampler_of_ones_own_is_stored_and_read(tmp_path: Any) -> None:
    result = trainer(Powers(), learning_rate=0.05).fit()
    save_checkpoint(tmp_path, *result.sampler.state())
    stored = load_checkpoint(tmp_path)
    with pytest.raises(Exception, match="powers"):
        sampler_from_state(*stored)
    register(Powers)
    try:
        again = sampler_from_state(*stored)
    finally:
        READERS.pop("powers")
    u = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(again.map(u), result.sampler.map(u), strict=True))


def test_resume_of_a_sampler_of_ones_own() -> None:
    states: list[Any] = []
    whole = trainer(Powers()).fit(lambda one: states.append(one.state()))
    again = trainer(Powers())
    again.load_state(*states[len(states) // 2])
    tensors = [result.sampler.state()[0]["powers"] for result in (whole, again.fit())]
    assert torch.equal(*tensors)


def test_a_sampler_that_cannot_be_trained_is_used_as_it_is() -> None:
    start = Fixed()
    one = trainer(start, on=True)
    result = one.fit()
    assert result.sampler is start and [candidate.name for candidate in result.candidates] == ["fixed"]
    assert result.warnings == ["fixed cannot be trained and was used as it is"]
    assert result.efficiency > 0.1 and one.calls < 6000 // 3 and result.steps == 0


@pytest.mark.parametrize(
    ("start", "settings", "message"),
    [
        (UniformSampler(3), {}, "dimension 3"),
        (Fixed(), {"sampler": "vegas"}, "was given"),
        (Flow(StandardNormal(2), small_flow().transform), {}, "UniformCube"),
        (UniformSampler(2, "meta"), {}, "move it there"),
    ],
    ids=["dimension", "vegas", "base", "device"],
)
def test_a_start_that_does_not_fit_is_named(start: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(start, **settings)


class Told(Monitor):
    """A monitor that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[tuple[str, int, int, Mapping[str, str]]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        self.seen.append((stage, done, total, figures))


@pytest.mark.parametrize("stage", ["survey", "vegas", "flow", "trial"])
def test_a_callback_ends_the_training_and_keeps_what_was_learned(stage: str) -> None:
    told = Told()
    settings: dict[str, Any] = {"sampler": "vegas"} if stage in ("survey", "vegas") else {"fourier": -1}

    def stop(progress: Progress) -> bool:
        windows = sum(record.stage == "flow" for record in one.history)
        if stage in ("flow", "trial"):
            return windows == (3 if stage == "flow" else 1)
        return progress.stage == stage

    config = training(**(TINY | {"calls": 30_000 if stage == "flow" else 12_000} | settings))
    one = Trainer(Integrand(camel(2)), config, Streams(3), monitor=told, callback=stop)
    result = one.fit()
    stopped = [line for line in result.warnings if "was stopped after" in line]
    assert len(stopped) == 1 and stopped == told.lines
    assert one.calls < config.calls and sum(candidate.chosen for candidate in result.candidates) == 1
    assert ("flow" in stage or stage == "trial") == any("flow" in candidate.name for candidate in result.candidates)
    assert one.flow is None or len(one.flow.arms) == 1
    assert {entry[0] for entry in told.seen} == {"training"}
    assert all(0 < done <= total and "efficiency" in figures for _, done, total, figures in told.seen)


def test_a_callback_that_stops_at_once_waits_for_a_value() -> None:
    """Nothing was learned yet where the integrand was zero at all points."""
    one = Trainer(Integrand(lambda x: 0.0 * x[:, 0], 2, kind="torch"), training(**TINY), callback=lambda _: True)
    with pytest.raises(ZeroIntegrandError):
        one.fit()


def test_channels_may_be_stopped_too() -> None:
    config = training(**(TINY | {"sampler": "flow"}))
    one = Trainer(Integrand(z_prime_function()), config, Streams(3), callback=lambda progress: progress.stage == "flow")
    result = one.fit()
    assert "multichannel" in result.sampler.describe() and any("stopped" in line for line in result.warnings)


def test_a_config_with_objects_equals_itself() -> None:
    loss = Watched()
    assert TrainingConfig(flow=FlowSettings(divergence=loss)) == TrainingConfig(flow=FlowSettings(divergence=loss))
