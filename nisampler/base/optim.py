"""The one gradient step: learning-rate schedules, clipping, the check that all is finite, roll-backs and best weights.

A `Stepper` owns a module and its optimizer. The rate of a step is the optimizer's own rate, times what roll-backs left
of it, times the schedule: so any optimizer of torch serves, and its own rate is the peak of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nisampler.base import tuning
from nisampler.base.checkpoints import part, prefixed
from nisampler.base.checks import Finite, Fraction, NonNegative, Row, settings
from nisampler.base.flat_adamw import FlatAdamW, shrinking
from nisampler.errors import ConfigError, TrainingDivergedError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Any]
"""Makes an optimizer from parameters: `torch.optim.SGD`, or `functools.partial(torch.optim.SGD, lr=0.1)`."""


def adamw(learning_rate: float, weight_decay: float = 0.0, fused: bool = True) -> OptimizerFactory:
    """The factory of AdamW (1711.05101).

    Parameters
    ----------
    learning_rate, weight_decay
        As AdamW takes them.
    fused
        All parameters in one kernel, on a CPU in one piece of memory: faster, but rounded differently.

    Examples
    --------
    >>> adamw(1e-3)([nn.Parameter(torch.zeros(2))]).defaults["lr"]
    0.001
    """
    return partial(_make_adamw, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def _make_adamw(parameters: Iterable[nn.Parameter], fused: bool, **options: Any) -> Any:
    found = list(parameters)
    if fused and FlatAdamW.fits(found):
        return FlatAdamW(found, **options)
    return torch.optim.AdamW(found, fused=fused, **options)


@settings
class RateSchedule:
    """The learning rate, in units of its peak, over the share of a training that is done.

    Parameters
    ----------
    kind
        "cosine" rises along half a cosine and falls along another (1708.07120), "exponential" falls to `end`,
        "milestones" halves at some shares, "constant" stays.
    warm_up
        Share of the training in which "cosine" rises.
    start, end
        First and last value.
    ahead
        How far the rise is ahead of the share: with it, a rise from 0 has no first step of length 0.
    milestones
        Shares at which "milestones" halves.

    Examples
    --------
    >>> [RateSchedule()(share) for share in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """

    kind: Literal["cosine", "exponential", "milestones", "constant"] = "cosine"
    warm_up: Fraction = 0.0
    start: NonNegative = 0.0
    end: NonNegative = 0.0
    ahead: NonNegative = 0.0
    milestones: Row[Finite] = ()

    def __call__(self, share: float) -> float:
        """The factor when this share of the training is done; what is above 1 counts as 1."""
        share = min(share, 1.0)
        if self.kind == "constant":
            return 1.0
        if self.kind == "exponential":
            return float(self.end**share)
        if self.kind == "milestones":
            return float(0.5 ** sum(share >= point for point in self.milestones))
        if share < self.warm_up:
            return _half_cosine(self.start, 1.0, (share + self.ahead) / self.warm_up)
        return _half_cosine(1.0, self.end, (share - self.warm_up) / (1.0 - self.warm_up))


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * share))


COSINE = RateSchedule()
"""From 1 down to 0 along half a cosine (1608.03983)."""


@dataclass
class RollBacks:
    """How often a training was taken back, and what this left of its learning rate.

    Examples
    --------
    >>> found = RollBacks()
    >>> found.again("at step 7", "the loss was not finite", 1e-3, "raise batch")
    'training diverged at step 7 (the loss was not finite): rolled back, learning rate lowered to 3.0e-04'
    """

    count: int = 0
    rate_scale: float = 1.0

    def again(self, where: str, why: str, rate: float, advice: str) -> str:
        """One more, after which all steps are shorter.

        Parameters
        ----------
        where, why
            For the message: "at step 7", "the loss was not finite".
        rate
            The highest learning rate without roll-backs.
        advice
            What to do besides lowering the rate.

        Returns
        -------
        str
            A warning.

        Raises
        ------
        TrainingDivergedError
            If there were too many.
        """
        count = self.count + 1
        if count > tuning.MOST_ROLL_BACKS:
            raise TrainingDivergedError(
                f"training diverged {count} times, last {where} because {why}; lower learning_rate (now {rate:g}) or "
                f"{advice}"
            )
        self.count, self.rate_scale = count, self.rate_scale * tuning.ROLLED_BACK_RATE
        return f"training diverged {where} ({why}): rolled back, learning rate lowered to {rate * self.rate_scale:.1e}"


class Stepper:
    """A module with its optimizer.

    Parameters
    ----------
    module
        What is trained; parameters without a gradient stay as they are.
    optimizer
        Makes the optimizer from all parameters; its learning rates are the highest ones.
    schedule
        Factor of the learning rates from the progress that `step` is told, by default a `RateSchedule` that falls.
    clip
        Largest norm of a gradient; infinite for no limit.
    roll_backs
        Those of the training, which may be shared by several modules.

    Raises
    ------
    ConfigError
        If the factory does not make an optimizer.

    Examples
    --------
    >>> line = nn.Linear(1, 1)
    >>> stepper = Stepper(line, partial(torch.optim.SGD, lr=0.1), clip=1.0)
    >>> before = stepper.state()
    >>> loss, norm = stepper.step(line(torch.ones(8, 1)).square().mean(), 0.0)
    >>> torch.equal(line.bias, before["model.bias"])
    False
    >>> stepper.load_state(before)
    >>> torch.equal(line.bias, before["model.bias"])
    True
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Callable[[float], float] = COSINE,
        clip: float = math.inf,
        roll_backs: RollBacks | None = None,
    ) -> None:
        self.module, self.schedule, self.clip = module, schedule, clip
        self.roll_backs = RollBacks() if roll_backs is None else roll_backs
        self.parameters = list(module.parameters())
        self.optimizer = optimizer(self.parameters)
        if not isinstance(self.optimizer, FlatAdamW | torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer must make a torch.optim.Optimizer from parameters, as torch.optim.SGD does; it made "
                f"{type(self.optimizer).__name__}"
            )
        self.steps = 0
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def peak(self) -> float:
        """The highest learning rate, before roll-backs."""
        return float(max(self._peaks))

    def rate(self, progress: float) -> float:
        """The largest learning rate of a step at that progress."""
        return self.peak * self.roll_backs.rate_scale * self.schedule(progress)

    def step(self, loss: Tensor, progress: float, *others: Tensor) -> list[float]:
        """Follow the gradient of a loss, unless something is not finite.

        Parameters
        ----------
        loss
            A number; one that hangs on no parameter changes nothing.
        progress
            What the schedule is asked for.
        others
            Numbers that must be finite, too. All are read at once, so that a GPU waits only once.

        Returns
        -------
        list of float
            Loss, norm of its gradient before it was clipped, and the others; nothing was changed if one of them is not
            finite.
        """
        norm = torch.zeros(())
        if loss.requires_grad:
            self._differentiate(loss, progress)
            norm = self._norm()
        numbers = [number.detach().to(loss.device, torch.float64) for number in (loss, norm, *others)]
        values: list[float] = torch.stack(numbers).tolist()
        if loss.requires_grad and all(map(math.isfinite, values)):
            self._move(values[1])
        return values

    def collecting(self) -> AbstractContextManager[None]:
        """For the making of a loss that only `step` differentiates: many parameters may then share one gradient."""
        return self.optimizer.collecting() if isinstance(self.optimizer, FlatAdamW) else nullcontext()

    def unchecked_step(self, loss: Tensor, progress: float) -> None:
        """Follow the gradient of a loss, and read nothing back: a GPU need not wait."""
        self._differentiate(loss, progress)
        flat = isinstance(self.optimizer, FlatAdamW)
        norm = self._norm() if self.clip < math.inf else torch.zeros(())
        self._move(float(norm) if flat else 0.0)

    def _norm(self) -> Tensor:
        """Norm of the gradient, which an optimizer of torch finds clipped already."""
        if isinstance(self.optimizer, FlatAdamW):
            return self.optimizer.norm()
        return nn.utils.clip_grad_norm_(self.parameters, self.clip)

    def _differentiate(self, loss: Tensor, progress: float) -> None:
        scale, factor = self.roll_backs.rate_scale, self.schedule(progress)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * scale * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def _move(self, norm: float) -> None:
        if isinstance(self.optimizer, FlatAdamW):
            self.optimizer.step(shrinking(norm, self.clip))
        else:
            self.optimizer.step()
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """Copies of weights and buffers ("model.name"), and of what the optimizer remembers ("optimizer.index.name").

        A number that an optimizer keeps outside of a tensor becomes one, under "optimizer.index.number.name".
        """
        tensors = prefixed(copies(self.module.state_dict()), "model.")
        tensors["steps"] = torch.tensor(self.steps)
        for index, memory in self.optimizer.state_dict()["state"].items():
            for name, value in memory.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value.detach().clone()
                elif value is not None:
                    tensors[f"optimizer.{index}.number.{name}"] = torch.tensor(value)
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.module.load_state_dict(part(tensors, "model."))
        self.steps = int(tensors["steps"])
        memories: dict[int, dict[str, object]] = {}
        for key, tensor in part(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            number = name.startswith("number.")
            value = tensor.item() if number else tensor.clone()
            memories.setdefault(int(index), {})[name.removeprefix("number.")] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": memories})


@dataclass
class Best:
    """The weights with the lowest figure of merit so far.

    Examples
    --------
    >>> line, best = nn.Linear(1, 1), Best()
    >>> [best.note(figure, epoch, line) for epoch, figure in enumerate((0.3, 0.2, 0.4), 1)]
    [True, True, False]
    >>> best.epoch, best.waited(5)
    (2, 3)
    """

    figure: float = math.inf
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def note(self, figure: float, epoch: int, module: nn.Module) -> bool:
        """Keep the weights and buffers of a module if the figure is the lowest one; says whether it is."""
        better = figure < self.figure
        if better:
            self.figure, self.epoch, self.weights = figure, epoch, copies(module.state_dict())
        return better

    def waited(self, epoch: int) -> int:
        """Epochs since the best one."""
        return epoch - self.epoch

    def restore(self, module: nn.Module) -> None:
        """Put the best weights into a module."""
        module.load_state_dict(self.weights)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of named tensors, such as the weights and buffers of a module.

    Examples
    --------
    >>> sorted(copies(nn.Linear(2, 1).state_dict()))
    ['bias', 'weight']
    """
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
