"""How the parts of a shower model are trained: schedule, batch, and what a user may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from nisampler.base.checks import Count, Finite, Fraction, Natural, NonNegative, Positive, Row, Width, settings
from nisampler.base.optim import RateSchedule

Precision = Literal["float32", "tf32", "bfloat16"]
SymmetryChoice = Literal["auto", "on", "off"]
_Share = Annotated[Finite, Field(gt=0.0, lt=1.0)]

# One-cycle: where it starts and ends, as shares of its peak. Exponential: where it ends.
_START, _END, _DECAY = 1 / 25, 4e-6, 3e-3


@settings
class Recipe:
    """How one part of a model is trained.

    Parameters
    ----------
    epochs, batch
        Passes over the training data, and showers per step.
    learning_rate
        The largest learning rate.
    schedule
        How the learning rate changes over the share of the training that is done, whatever the batch: "one-cycle" rises
        and falls with half a cosine each, "cosine" falls, "milestones" halves at some shares, "exponential" falls to
        0.3 %.
    warm_up
        Share of the training in which "one-cycle" rises.
    milestones
        Shares of the training at which "milestones" halves.
    weight_decay
        Weight decay of AdamW.
    clip
        Largest norm of a gradient; None for no limit.
    ema
        Decay per step of a running average of the weights, which is what is validated and kept; 0 for none.
    patience
        Epochs without a better validation loss after which training ends; 0 for none.
    precision
        Precision of matrix products on a GPU. "bfloat16" is autocast: the part must cast what its networks return. On a
        CPU it is always float32.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> recipe = Recipe(10, 100, 1e-3, "cosine")
    >>> recipe.learning_rate * recipe.rates(0.5)
    0.0005
    """

    epochs: Count
    batch: Count
    learning_rate: Positive
    schedule: Literal["one-cycle", "cosine", "constant", "milestones", "exponential"] = "one-cycle"
    warm_up: Fraction = 0.3
    milestones: Row[_Share] = ()
    weight_decay: NonNegative = 0.0
    clip: Positive | None = None
    ema: Fraction = 0.0
    patience: Natural = 0
    precision: Precision = "float32"

    @property
    def rates(self) -> RateSchedule:
        """Factor of the learning rate over the share of the training that is done."""
        if self.schedule == "one-cycle":
            return RateSchedule("cosine", self.warm_up, _START, _END)
        if self.schedule == "exponential":
            return RateSchedule("exponential", end=_DECAY)
        return RateSchedule(self.schedule, milestones=self.milestones)


class Part(Protocol):
    """One network of a model that is trained by itself.

    >>> from nisampler.calo.models.base import ModelPart
    >>> recipe = Recipe(epochs=2, batch=16, learning_rate=1e-3)
    >>> part: Part = ModelPart("energies", nn.Identity(), recipe, lambda voxels, incident, generator: voxels.sum(1))
    >>> part.name, part.recipe.epochs, part.layers
    ('energies', 2, None)
    """

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


@settings
class FitOptions:
    """What a user may say about a training, whatever the model.

    Parameters
    ----------
    seed
        Same seed, same model.
    epochs, batch, patience, learning_rate
        Instead of the recipes'.
    hidden
        Width of all networks, instead of that of the settings of the model.
    symmetry
        Whether training showers are turned and mirrored at random: "auto" does what the settings of the model say,
        unless a test of the showers contradicts.
    start
        Folder of a fitted model from whose weights to begin; None for fresh ones.
    tensorboard
        Write the losses for TensorBoard, too.
    checkpoint_seconds
        A checkpoint is written at the end of the first epoch after that time; nothing else depends on it.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> FitOptions(epochs=3).epochs
    3
    """

    seed: Natural = 1
    epochs: Count | None = None
    batch: Count | None = None
    patience: Natural | None = None
    symmetry: SymmetryChoice = "auto"
    learning_rate: Positive | None = None
    hidden: Width | None = None
    start: str | Path | None = None
    tensorboard: bool = False
    checkpoint_seconds: NonNegative = 30.0

    def recipe(self, part: Part) -> Recipe:
        """The recipe of a part with what is said here."""
        changes = {name: getattr(self, name) for name in ("epochs", "batch", "patience", "learning_rate")}
        return Recipe(**asdict(part.recipe) | {name: value for name, value in changes.items() if value is not None})
