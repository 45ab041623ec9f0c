"""The training of one part of a shower model: epochs over the data, roll-backs, and the best weights of them all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from nisampler.base.checkpoints import part as named
from nisampler.base.checkpoints import prefixed
from nisampler.base.optim import Best, RollBacks, Stepper, adamw
from nisampler.base.rng import Streams
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.fitting.average import RunningAverage
from nisampler.calo.fitting.records import EpochRecord, stage_of
from nisampler.calo.recipe import Part, Precision, Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.ui.monitor import Monitor


class PartTrainer:
    """Trains one part, epoch by epoch.

    An epoch in which a loss or a gradient is not finite is undone and tried again with other random numbers and a lower
    learning rate.

    Parameters
    ----------
    part, recipe
        What to train and how.
    data
        Showers.
    streams
        Source of all random numbers.
    device
        Where the part lives.

    Raises
    ------
    ModelError
        If the part has nothing to train.

    Examples
    --------
    Every part of a model has a recipe of its own; `fit_part` takes the trainer through all its epochs.

    >>> from types import SimpleNamespace
    >>> part = SimpleNamespace(name="empty", module=torch.nn.Identity())
    >>> PartTrainer(part, Recipe(1, 10, 1e-3), None, Streams(1))
    Traceback (most recent call last):
    ...
    nisampler.errors.ModelError: part empty has no weights to train
    """

    def __init__(
        self, part: Part, recipe: Recipe, data: ShowerData, streams: Streams, device: torch.device | str = "cpu"
    ) -> None:
        self.part, self.recipe, self.data, self.streams = part, recipe, data, streams
        self.device = torch.device(device)
        if not any(parameter.requires_grad for parameter in part.module.parameters()):
            raise ModelError(f"part {part.name} has no weights to train")
        optimizer = adamw(recipe.learning_rate, recipe.weight_decay)
        self.stepper = Stepper(part.module, optimizer, recipe.rates, recipe.clip or math.inf)
        self.average = RunningAverage(part.module, recipe.ema)
        self.best = Best()
        self.epoch, self.done = 0, False
        self.history: list[EpochRecord] = []
        self.warnings: list[str] = []

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from these weights, which are kept unless an epoch finds better ones."""
        self.part.module.load_state_dict(weights)
        self.average = RunningAverage(self.part.module, self.recipe.ema)
        self.best.note(self.validate(), 0, self.part.module)

    def advance(self, monitor: Monitor) -> None:
        """One epoch and its validation.

        Raises
        ------
        TrainingDivergedError
            If it was rolled back too often.
        """
        entry = self.state()
        record = self._learn(monitor)
        if record is None:
            self._roll_back(entry)
            return
        self.epoch += 1
        self.history.append(record)
        with self.average.in_place():
            self.best.note(record.validation, self.epoch, self.part.module)
        waited = self.best.waited(self.epoch)
        self.done = self.epoch == self.recipe.epochs or 0 < self.recipe.patience <= waited
        if self.done and self.epoch < self.recipe.epochs:
            self.warnings.append(
                f"{self.part.name}: stopped after {self.epoch} of {self.recipe.epochs} epochs, {waited} without gain"
            )

    def _learn(self, monitor: Monitor) -> EpochRecord | None:
        """The steps of one epoch; None if something was not finite."""
        count, tries = len(self.data.training), self.stepper.roll_backs.count
        rng = self.streams.numpy("order", self.epoch, tries)
        sums: dict[str, float] = {}
        largest = share = 0.0
        seen = 0
        start = time.monotonic()
        self.part.module.train()
        for index, (voxels, incident) in enumerate(self.data.training.shuffled(self.recipe.batch, rng)):
            generator = self.streams.generator("batch", self.epoch, tries, index, device=self.device)
            share = (self.epoch + seen / count) / self.recipe.epochs
            losses = self._losses(voxels, incident, generator)
            norm, terms = self._step({name: value.mean() for name, value in losses.items()}, share)
            if not all(map(math.isfinite, (norm, *terms.values()))):
                return None
            seen += len(voxels)
            largest = max(largest, norm)
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value * len(voxels)
            self._tell(monitor, seen, sums["loss"] / seen, share, time.monotonic() - start)
        validation = self.validate()
        if not math.isfinite(validation):
            return None
        means = {key: value / seen for key, value in sums.items()}
        return EpochRecord(self.epoch + 1, means.pop("loss"), validation, self.stepper.rate(share), largest, means)

    def _tell(self, monitor: Monitor, seen: int, loss: float, share: float, seconds: float) -> None:
        """What was done and reached after `seen` showers of this epoch."""
        count = len(self.data.training)
        done, total = self.epoch * count + seen, count * self.recipe.epochs
        left = seconds / seen * (total - done)
        figures = {"epoch": f"{self.epoch + 1}/{self.recipe.epochs}", "loss": f"{loss:.5g}"}
        if self.history:
            figures |= {"validation": f"{self.history[-1].validation:.5g}", "best": f"{self.best.figure:.5g}"}
        figures |= {"rate": f"{self.stepper.rate(share):.1e}"}
        figures |= {"left": f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"}
        monitor.progress(stage_of(self.part), done, total, figures)

    def _step(self, terms: dict[str, Tensor], share: float) -> tuple[float, dict[str, float]]:
        """The norm of the gradient and the loss and its terms; nothing moves unless all are finite."""
        others = [name for name in terms if name != "loss"]
        steps = self.stepper.steps
        loss, norm, *values = self.stepper.step(terms["loss"], share, *(terms[name] for name in others))
        if self.stepper.steps > steps:
            self.average.follow(self.stepper.steps)
        return norm, {"loss": loss} | dict(zip(others, values, strict=True))

    def _losses(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss and its terms, each of every shower or one number."""
        with _precision(self.device, self.recipe.precision):
            found = self.part.loss(voxels, incident, generator)
        return {"loss": found} if isinstance(found, Tensor) else dict(found)

    @torch.no_grad()
    def validate(self) -> float:
        """Trimmed mean loss of the validation showers, see `trimmed_mean`; noise is the same at every call."""
        self.part.module.eval()
        losses = []
        with self.average.in_place():
            for index, (voxels, incident) in enumerate(self.data.validation.ordered(self.recipe.batch)):
                generator = self.streams.generator("validation", index, device=self.device)
                losses.append(self._losses(voxels, incident, generator)["loss"].expand(len(voxels)))
        return trimmed_mean(torch.cat(losses))

    def _roll_back(self, entry: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        """Stand where the epoch began, with a lower learning rate."""
        where, why = f"in epoch {self.epoch + 1} of {self.part.name}", "a loss or its gradient was not finite"
        roll_backs = self.stepper.roll_backs
        warning = roll_backs.again(where, why, self.recipe.learning_rate, "set clip, or look at the data")
        self.load_state(*entry)
        self.stepper.roll_backs = roll_backs
        self.warnings.append(warning)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue; after the end, the best weights."""
        tensors = prefixed(self.best.weights, "best.")
        if not self.done:
            tensors |= prefixed(self.stepper.state(), "now.") | prefixed(self.average.state(), "average.")
        meta: dict[str, Any] = {
            "epoch": self.epoch,
            "done": self.done,
            "best_epoch": self.best.epoch,
            "best_loss": self.best.figure if self.best.weights else None,
            "roll_backs": asdict(self.stepper.roll_backs),
            "recipe": described(self.recipe),
            "history": [asdict(record) for record in self.history],
            "warnings": list(self.warnings),
        }
        return tensors, meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Stand where the trainer stood that returned this state.

        Raises
        ------
        ConfigError
            If that was a training with another recipe.
        """
        check_recipe(self.part, self.recipe, meta)
        self.epoch, self.done = meta["epoch"], meta["done"]
        self.history = [EpochRecord(**record) for record in meta["history"]]
        self.warnings = list(meta["warnings"])
        self.stepper.roll_backs = RollBacks(**meta["roll_backs"])
        loss = math.inf if meta["best_loss"] is None else meta["best_loss"]
        self.best = Best(loss, meta["best_epoch"], named(tensors, "best."))
        if not self.done:
            self.stepper.load_state(named(tensors, "now."))
            self.average.load_state(named(tensors, "average."))


def trimmed_mean(losses: Tensor) -> float:
    """Mean of losses (n,) without the lowest and the highest one in a hundred, at least one of ten losses or more.

    A single odd shower can have a loss a thousand times that of the others, and would choose the best epoch alone. NaN
    if a loss is not finite.

    Examples
    --------
    >>> trimmed_mean(torch.tensor([2.0] * 9 + [4e4])), trimmed_mean(torch.tensor([2.0, 4.0]))
    (2.0, 3.0)
    """
    if not torch.isfinite(losses).all():
        return math.nan
    n = len(losses)
    cut = max(n // 100, int(n >= 10))
    return float(losses.double().sort().values[cut : n - cut].mean())


def described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON has it.

    Examples
    --------
    >>> described(Recipe(1, 10, 1e-3, milestones=(0.5,)))["milestones"]
    [0.5]
    """
    return asdict(recipe) | {"milestones": list(recipe.milestones)}


def check_recipe(part: Part, recipe: Recipe, meta: Mapping[str, Any]) -> None:
    """ConfigError unless a state belongs to a training with this recipe.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> part, recipe = SimpleNamespace(name="total"), Recipe(1, 10, 1e-3)
    >>> check_recipe(part, recipe, {"recipe": described(recipe)})
    """
    changed = sorted(name for name, value in described(recipe).items() if meta["recipe"].get(name) != value)
    if changed:
        raise ConfigError(f"{part.name} was trained with another {', '.join(changed)}: resume with the same")


@contextmanager
def _precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """Faster matrix products on a GPU, if wanted."""
    if device.type != "cuda" or precision == "float32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
