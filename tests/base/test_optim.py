"""The one gradient step: schedules, clipping, what is not finite, roll-backs, and states of any optimizer."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nisampler.base.optim import (
    COSINE,
    Best,
    OptimizerFactory,
    RateSchedule,
    RollBacks,
    Stepper,
    adamw,
    copies,
)
from nisampler.errors import ConfigError, TrainingDivergedError


class Counting(torch.optim.SGD):
    """Plain steps, shorter each time, from a Python number that it remembers for each parameter."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                count = self.state[parameter].get("count", 0)
                self.state[parameter]["count"] = count + 1
                parameter.data.add_(parameter.grad, alpha=-group["lr"] / (1 + count))


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "adamw": adamw(1e-2, 1e-3),
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "nadam": partial(torch.optim.NAdam, lr=1e-2),
    "rprop": partial(torch.optim.Rprop, lr=1e-2),
    "counting": partial(Counting, lr=0.1),
}


def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 1))


def loss_of(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    loss: Tensor = (net(x)[:, 0] - x.prod(1)).square().mean()
    return loss


def train(stepper: Stepper, first: int, last: int, steps: int = 20) -> list[float]:
    return [stepper.step(loss_of(stepper.module, step), step / steps)[0] for step in range(first, last)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_goes_on_where_it_was(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    whole = Stepper(module(), optimizer, clip=1.0)
    first = train(whole, 0, 7)
    middle = whole.state()
    rest = train(whole, 7, 20)
    again = Stepper(module(), optimizer, clip=1.0)
    again.load_state({key: tensor.clone() for key, tensor in middle.items()})
    assert again.steps == 7 and train(again, 7, 20) == rest
    assert all(torch.equal(tensor, whole.state()[key]) for key, tensor in again.state().items())
    whole.load_state(middle)
    assert train(whole, 7, 20) == rest  # what was put back is not what is trained
    other = Stepper(module(), optimizer, clip=1.0)
    assert train(other, 0, 7) == first
    if name != "sgd":  # negative control: the memory of the optimizer matters
        forgetful = {key: tensor for key, tensor in middle.items() if not key.startswith("optimizer.")}
        other.load_state(forgetful)
        assert train(other, 7, 20) != rest


def test_the_rate_of_a_step() -> None:
    net = nn.Linear(1, 1, bias=False)
    roll_backs = RollBacks()
    stepper = Stepper(net, partial(torch.optim.SGD, lr=0.5), lambda progress: progress, roll_backs=roll_backs)
    for progress, scale in ((0.0, 1.0), (0.25, 1.0), (1.0, 0.3)):
        roll_backs.rate_scale = scale
        before = net.weight.item()
        stepper.step(net.weight.sum(), progress)
        assert before - net.weight.item() == pytest.approx(0.5 * progress * scale, abs=1e-6)
        assert stepper.rate(progress) == pytest.approx(0.5 * progress * scale)
    assert stepper.peak == 0.5


def test_every_group_keeps_its_own_rate() -> None:
    net = nn.Linear(1, 1)

    def groups(_: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [net.weight], "lr": 0.1}, {"params": [net.bias]}], lr=0.4)

    stepper, before = Stepper(net, groups), copies(net.state_dict())
    stepper.step(net.weight.sum() + net.bias.sum(), 0.5)
    moves = [float((before[name] - tensor).abs()) for name, tensor in copies(net.state_dict()).items()]
    assert moves == pytest.approx([0.05, 0.2], rel=1e-5)


def test_a_step_is_clipped_and_tells_the_whole_norm() -> None:
    net = nn.Linear(1, 1, bias=False)
    for clip, move in ((math.inf, 300.0), (2.0, 2.0)):
        for step in (Stepper.step, Stepper.unchecked_step):
            stepper, before = Stepper(net, partial(torch.optim.SGD, lr=1.0), clip=clip), net.weight.item()
            found = step(stepper, 300.0 * net.weight.sum(), 0.0)
            assert before - net.weight.item() == pytest.approx(move, rel=1e-4)
            assert found is None or found[1] == pytest.approx(300.0)


@pytest.mark.parametrize("what", ["loss", "gradient", "other"])
def test_nothing_moves_unless_all_is_finite(what: str) -> None:
    stepper = Stepper(module(), adamw(0.1))
    train(stepper, 0, 3)
    before = stepper.state()
    loss = loss_of(stepper.module, 0)
    others = [torch.tensor(math.inf)] if what == "other" else []
    if what == "loss":
        loss = loss + math.inf
    if what == "gradient":  # the root of zero: a finite number with an infinite slope
        weight = next(stepper.module.parameters())
        loss = loss + (weight - weight.detach()).abs().sum().sqrt()
    values = stepper.step(loss, 0.0, *others)
    assert not all(map(math.isfinite, values)) and math.isfinite(values[0]) == (what != "loss")
    after, statistics = stepper.state(), "model.2."  # of the batches, which any loss moves
    assert all(torch.equal(after[name], t) for name, t in before.items() if not name.startswith(statistics))
    with pytest.raises(AssertionError):  # negative control: the unchecked step breaks the weights, as it says
        stepper.unchecked_step(loss_of(stepper.module, 0) * math.nan, 0.0)
        assert all(torch.isfinite(tensor).all() for tensor in stepper.state().values())


def test_a_loss_without_a_gradient_changes_nothing() -> None:
    stepper = Stepper(module(), adamw(0.1))
    before = stepper.state()
    assert stepper.step(torch.tensor(2.5), 0.0) == [2.5, 0.0]
    assert stepper.steps == 0 and all(torch.equal(stepper.state()[name], tensor) for name, tensor in before.items())


def test_what_makes_no_optimizer_is_told() -> None:
    with pytest.raises(ConfigError, match=r"as torch\.optim\.SGD does; it made list"):
        Stepper(module(), list)  # type: ignore[arg-type]


def test_roll_backs_lower_the_rate_five_times() -> None:
    found = RollBacks()
    for count in range(1, 6):
        text = found.again(f"at step {count}", "the loss was not finite", 1e-2, "raise batch")
        assert found.rate_scale == pytest.approx(0.3**count) and f"{1e-2 * 0.3**count:.1e}" in text
    with pytest.raises(TrainingDivergedError, match=r"6 times, last at step 6 because .* \(now 0.01\) or raise batch"):
        found.again("at step 6", "the loss was not finite", 1e-2, "raise batch")


def test_the_best_weights_are_kept_and_put_back() -> None:
    net, best = nn.Linear(1, 1), Best()
    seen: dict[int, dict[str, Tensor]] = {}
    for epoch, figure in enumerate((0.5, 0.2, math.nan, 0.3), 1):
        with torch.no_grad():
            net.weight.fill_(epoch)
        seen[epoch] = copies(net.state_dict())
        assert best.note(figure, epoch, net) == (epoch <= 2)
    assert (best.epoch, best.figure, best.waited(4)) == (2, 0.2, 2)
    best.restore(net)
    assert net.weight.item() == 2.0


SHAPES = {
    "cosine": (RateSchedule(), (1.0, 0.0), 0),
    "one cycle": (RateSchedule(warm_up=0.4, start=0.04, end=1e-6), (0.04, 1e-6), 40),
    "ahead": (RateSchedule(warm_up=0.4, ahead=1e-3), (1.542e-5, 0.0), 40),
    "constant": (RateSchedule("constant"), (1.0, 1.0), 0),
    "milestones": (RateSchedule("milestones", milestones=(0.25, 0.5)), (1.0, 0.25), 0),
    "exponential": (RateSchedule("exponential", end=3e-3), (1.0, 3e-3), 0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_schedules(name: str) -> None:
    schedule, ends, peak = SHAPES[name]
    factors = [schedule(share) for share in np.linspace(0.0, 1.0, 101).tolist()]
    assert max(factors) == pytest.approx(1.0, abs=1e-12) and min(factors) >= 0.0
    assert (factors[0], factors[-1]) == pytest.approx(ends, rel=1e-3, abs=1e-12) and np.argmax(factors) == peak
    assert all(a <= b for a, b in pairwise(factors[: peak + 1])) and all(a >= b for a, b in pairwise(factors[peak:]))
    assert schedule(1.5) == schedule(1.0)


def test_a_cosine_is_half_way_in_the_middle() -> None:
    assert COSINE(0.25) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert json.dumps([COSINE(share) for share in (0.0, 0.5, 1.0)]) == "[1.0, 0.5, 0.0]"


@pytest.mark.parametrize(
    "wrong", [{"kind": "linear"}, {"warm_up": 1.0}, {"start": -0.1}, {"end": math.inf}, {"milestones": ("a",)}]
)
def test_schedules_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RateSchedule(**wrong)
