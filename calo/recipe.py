"""How the parts of a shower model are trained: schedule, batch, and what a user may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError

Schedule = Literal["one-cycle", "cosine", "constant", "milestones", "exponential"]
Precision = Literal["float32", "tf32", "bfloat16"]

# One-cycle: where it starts and ends, as shares of its peak. Exponential: where it ends.
_START, _END, _DECAY = 1 / 25, 4e-6, 3e-3


@dataclass(frozen=True)
class Recipe:
    """How one part of a model is trained.

    Parameters
    ----------
    epochs, batch
        Passes over the training data, and showers per step.
    learning_rate
        Largest one.
    schedule
        Of the learning rate over the share of the training that is done, whatever the batch: "one-cycle" rises and
        falls with half a cosine each, "cosine" falls, "milestones" halves at some shares, "exponential" falls to 0.3 %.
    warm_up
        Share of the training in which "one-cycle" rises.
    milestones
        Shares of the training at which "milestones" halves.
    weight_decay
        Of AdamW.
    clip
        Largest norm of a gradient; None for no limit.
    ema
        Decay per step of a running average of the weights, which is what is validated and kept; 0 for none.
    patience
        Epochs without a better validation loss after which training ends; 0 for none.
    precision
        Of matrix products on a GPU. "bfloat16" is autocast: the part must cast what its networks return. On a CPU it is
        always float32.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    epochs: int
    batch: int
    learning_rate: float
    schedule: Schedule = "one-cycle"
    warm_up: float = 0.3
    milestones: tuple[float, ...] = ()
    weight_decay: float = 0.0
    clip: float | None = None
    ema: float = 0.0
    patience: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        choices = {
            "schedule": ("one-cycle", "cosine", "constant", "milestones", "exponential"),
            "precision": ("float32", "tf32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        rules = {
            "epochs": self.epochs >= 1,
            "batch": self.batch >= 1,
            "learning_rate": 0.0 < self.learning_rate < math.inf,
            "warm_up": 0.0 <= self.warm_up < 1.0,
            "milestones": all(0.0 < share < 1.0 for share in self.milestones),
            "weight_decay": 0.0 <= self.weight_decay < math.inf,
            "clip": self.clip is None or 0.0 < self.clip < math.inf,
            "ema": 0.0 <= self.ema < 1.0,
            "patience": self.patience >= 0,
        }
        for name, good in rules.items():
            if not good:
                raise ConfigError(f"{name} of a recipe is out of range: {getattr(self, name)!r}")

    def rate(self, share: float) -> float:
        """The learning rate when a share in [0, 1] of the training is done.

        >>> Recipe(10, 100, 1e-3, "cosine").rate(0.5)
        0.0005
        """
        scale = 1.0
        if self.schedule == "cosine":
            scale = _cosine(1.0, 0.0, share)
        elif self.schedule == "exponential":
            scale = _DECAY**share
        elif self.schedule == "milestones":
            scale = 0.5 ** sum(share >= point for point in self.milestones)
        elif self.schedule == "one-cycle" and share < self.warm_up:
            scale = _cosine(_START, 1.0, share / self.warm_up)
        elif self.schedule == "one-cycle":
            scale = _cosine(1.0, _END, (share - self.warm_up) / (1.0 - self.warm_up))
        return self.learning_rate * scale


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


class Part(Protocol):
    """One network of a model that is trained by itself."""

    @property
    def name(self) -> str:
        """A name for files."""
        ...

    @property
    def module(self) -> nn.Module:
        """What is trained; parameters that need no gradient stay as they are."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How."""
        ...

    @property
    def layers(self) -> tuple[int, int] | None:
        """Positions of the first layer that the loss needs and of the one behind the last; None for all."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the parts that must be trained before this one."""
        ...

    def begin(self) -> object:
        """Called before the training, with the parts of `after` trained."""
        ...

    def loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor | Mapping[str, Tensor]:
        """Losses (n,) of the voxels (n, v) of `layers` in MeV; or "loss" and terms of it, each (n,) or a number."""
        ...


@dataclass(frozen=True)
class FitOptions:
    """What a user may say about a training, whatever the model.

    Parameters
    ----------
    seed
        Same seed, same model.
    epochs, batch
        Instead of the recipe's.
    checkpoint_seconds
        A checkpoint is written at the end of the first epoch after that time; nothing else depends on it.
    """

    seed: int = 1
    epochs: int | None = None
    batch: int | None = None
    checkpoint_seconds: float = 30.0

    def recipe(self, part: Part) -> Recipe:
        """The recipe of a part with what is said here."""
        changes = {"epochs": self.epochs, "batch": self.batch}
        return Recipe(**asdict(part.recipe) | {name: value for name, value in changes.items() if value is not None})
