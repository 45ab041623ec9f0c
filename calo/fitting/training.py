"""Training of the parts of a shower model: epochs over the data, the best weights of them all, and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.base.storage import has_checkpoint, load_checkpoint, save_checkpoint, write_json
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.recipe import FitOptions, Part, Precision
from nisampler.calo.recipe import Recipe as Recipe
from nisampler.errors import ConfigError, ModelError, TrainingDivergedError
from nisampler.ui.monitor import SILENT, Monitor

RECORD = "training.json"

# What a roll-back does to the learning rate, and how many are tried.
_LOWER_RATE, _MOST_ROLL_BACKS = 0.3, 5
_KEPT = ("epoch", "rate_scale", "roll_backs", "best_epoch", "best_loss", "warnings", "done")


@dataclass(frozen=True)
class EpochRecord:
    """One pass: mean training loss and its terms, validation loss, last learning rate, largest gradient norm."""

    epoch: int
    loss: float
    validation: float
    learning_rate: float
    gradient: float
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PartResult:
    """How the training of a part went."""

    name: str
    best_epoch: int
    best_loss: float
    roll_backs: int
    history: list[EpochRecord]
    warnings: list[str]

    def figures(self) -> dict[str, str]:
        """For a monitor."""
        last = self.history[-1]
        shown = {"loss": last.loss, "validation": last.validation, "best": self.best_loss}
        return {"epoch": f"{len(self.history)}"} | {name: f"{value:.5g}" for name, value in shown.items()}


def stage_of(part: Part) -> str:
    """What monitors call the training of a part."""
    return f"fit {part.name}"


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
    """

    def __init__(
        self, part: Part, recipe: Recipe, data: ShowerData, streams: Streams, device: torch.device | str = "cpu"
    ) -> None:
        self.part, self.recipe, self.data, self.streams = part, recipe, data, streams
        self.device = torch.device(device)
        self.weights = {name: p for name, p in part.module.named_parameters() if p.requires_grad}
        if not self.weights:
            raise ModelError(f"part {part.name} has no weights to train")
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.weights.items()} if recipe.ema else {}
        self.epoch = self.roll_backs = self.best_epoch = 0
        self.rate_scale, self.best_loss, self.done = 1.0, math.inf, False
        self.best: dict[str, Tensor] = {}
        self.history: list[EpochRecord] = []
        self.warnings: list[str] = []
        self._begin = time.monotonic()

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
        if record.validation < self.best_loss:
            self.best_loss, self.best_epoch = record.validation, self.epoch
            with self._averaged():
                self.best = _copies(self.part.module.state_dict())
        waited = self.epoch - self.best_epoch
        self.done = self.epoch == self.recipe.epochs or 0 < self.recipe.patience <= waited
        if self.done and self.epoch < self.recipe.epochs:
            self.warnings.append(
                f"{self.part.name}: stopped after {self.epoch} of {self.recipe.epochs} epochs, {waited} without gain"
            )

    def _learn(self, monitor: Monitor) -> EpochRecord | None:
        """The steps of one epoch; None if something was not finite."""
        count, total = len(self.data.training), len(self.data.training) * self.recipe.epochs
        rng = self.streams.numpy("order", self.epoch, self.roll_backs)
        sums: dict[str, float] = {}
        largest = rate = 0.0
        seen = 0
        start = time.monotonic()
        self.part.module.train()
        for index, (voxels, incident) in enumerate(self.data.training.shuffled(self.recipe.batch, rng)):
            generator = self.streams.generator("batch", self.epoch, self.roll_backs, index, device=self.device)
            rate = self.rate_scale * self.recipe.rate((self.epoch + seen / count) / self.recipe.epochs)
            norm, terms = self._step(voxels, incident, generator, rate)
            if not all(map(math.isfinite, (norm, *terms.values()))):
                return None
            seen += len(voxels)
            largest = max(largest, norm)
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value * len(voxels)
            done = self.epoch * count + seen
            left = (time.monotonic() - start) / seen * (total - done)
            monitor.progress(stage_of(self.part), done, total, self._figures(sums["loss"] / seen, rate, left))
        validation = self.validate()
        if not math.isfinite(validation):
            return None
        means = {key: value / seen for key, value in sums.items()}
        return EpochRecord(self.epoch + 1, means.pop("loss"), validation, rate, largest, means)

    def _figures(self, loss: float, rate: float, left: float) -> dict[str, str]:
        figures = {"epoch": f"{self.epoch + 1}/{self.recipe.epochs}", "loss": f"{loss:.5g}"}
        if self.history:
            figures |= {"validation": f"{self.history[-1].validation:.5g}", "best": f"{self.best_loss:.5g}"}
        return figures | {"rate": f"{rate:.1e}", "left": f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"}

    def _step(
        self, voxels: Tensor, incident: Tensor, generator: torch.Generator, rate: float
    ) -> tuple[float, dict[str, float]]:
        """One step of the optimizer: the norm of its gradient, and the loss and its terms before it.

        Nothing is changed if the norm or the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._losses(voxels, incident, generator)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.clip or math.inf)
        values = torch.stack([norm.float(), *(value.detach().float() for value in terms.values())]).tolist()
        if all(map(math.isfinite, values)):
            self.optimizer.step()
            self._follow()
        return values[0], dict(zip(terms, values[1:], strict=True))

    def _losses(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch means of the loss and its terms."""
        with _precision(self.device, self.recipe.precision):
            found = self.part.loss(voxels, incident, generator)
        terms = {"loss": found} if isinstance(found, Tensor) else dict(found)
        return {name: value.mean() for name, value in terms.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average; it is young at first and follows faster."""
        if self.average:
            step = float(next(iter(self.optimizer.state.values()))["step"])
            share = 1.0 - min(self.recipe.ema, (1.0 + step) / (10.0 + step))
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), share)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The running average in the place of the weights."""
        if not self.average:
            yield
            return
        weights = _copies(self.weights)
        _put(self.weights, self.average)
        try:
            yield
        finally:
            _put(self.weights, weights)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss of the validation showers; noise is the same at every call."""
        self.part.module.eval()
        total = 0.0
        with self._averaged():
            for index, (voxels, incident) in enumerate(self.data.validation.ordered(self.recipe.batch)):
                generator = self.streams.generator("validation", index, device=self.device)
                total += float(self._losses(voxels, incident, generator)["loss"]) * len(voxels)
        return total / len(self.data.validation)

    def _roll_back(self, entry: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        epoch, roll_backs, rate_scale = self.epoch + 1, self.roll_backs + 1, self.rate_scale * _LOWER_RATE
        if roll_backs > _MOST_ROLL_BACKS:
            raise TrainingDivergedError(
                f"{self.part.name}: a loss or its gradient was not finite {roll_backs} times, last in epoch {epoch}; "
                f"lower learning_rate (now {self.recipe.learning_rate:g}), set clip, or look at the data"
            )
        self.load_state(*entry)
        self.roll_backs, self.rate_scale = roll_backs, rate_scale
        self.warnings.append(
            f"{self.part.name}: a loss or its gradient was not finite in epoch {epoch}, which was undone; the learning "
            f"rate is lowered to {rate_scale:.2g} of its recipe"
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue; after the end, the best weights."""
        tensors = {f"best.{name}": t.clone() for name, t in self.best.items()}
        if not self.done:
            tensors |= {f"model.{name}": t for name, t in _copies(self.part.module.state_dict()).items()}
            tensors |= {f"average.{name}": t.clone() for name, t in self.average.items()}
            for index, moments in self.optimizer.state_dict()["state"].items():
                tensors |= {f"adam.{index}.{name}": t.clone() for name, t in moments.items()}
        meta: dict[str, Any] = {name: getattr(self, name) for name in _KEPT}
        meta |= {"recipe": _described(self.recipe)}
        meta |= {"history": [asdict(record) for record in self.history], "warnings": list(self.warnings)}
        meta["best_loss"] = self.best_loss if self.best else None
        return tensors, meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Stand where the trainer stood that returned this state.

        Raises
        ------
        ConfigError
            If that was a training with another recipe.
        """
        _check_recipe(self.part, self.recipe, meta)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}

        for name in _KEPT:
            setattr(self, name, meta[name])
        self.warnings = list(meta["warnings"])
        self.best_loss = math.inf if meta["best_loss"] is None else meta["best_loss"]
        self.history = [EpochRecord(**record) for record in meta["history"]]
        self.best = part("best.")
        if self.done:
            return
        self.part.module.load_state_dict(part("model."))
        average = part("average.")
        self.average = {name: average[name] for name in self.weights} if average else {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("adam.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})

    def finish(self) -> PartResult:
        """Put the best weights into the part."""
        self.part.module.load_state_dict(self.best)
        self.part.module.eval()
        return PartResult(self.part.name, self.best_epoch, self.best_loss, self.roll_backs, self.history, self.warnings)


def fit_part(
    part: Part,
    data: ShowerData,
    directory: str | Path,
    options: FitOptions,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
    resume: bool = False,
) -> PartResult:
    """Train one part; afterwards it holds the weights with the best validation loss.

    Parameters
    ----------
    part, data
        What to train, with what.
    directory
        Of the checkpoint and of ``training.json``.
    options, device, monitor
        As they say.
    resume
        Continue from the checkpoint, if there is one; the result has the same bytes as that of a training in one go.

    Returns
    -------
    PartResult
        The records of all epochs.

    Raises
    ------
    TrainingDivergedError
        If a loss or gradient is not finite after several roll-backs.
    ConfigError
        If a checkpoint is of another recipe.
    StorageError, CorruptFileError
        If a checkpoint cannot be written or read.
    """
    streams = Streams(options.seed).child(f"part {part.name}")
    part.begin()
    trainer = PartTrainer(part, options.recipe(part), data, streams, device)
    if resume and has_checkpoint(directory):
        trainer.load_state(*load_checkpoint(directory, device))
        monitor.line(f"{part.name}: {trainer.epoch} of {trainer.recipe.epochs} epochs were done")
    saved, told = time.monotonic(), len(trainer.warnings)
    while not trainer.done:
        trainer.advance(monitor)
        for text in trainer.warnings[told:]:
            monitor.line(text)
        told = len(trainer.warnings)
        if trainer.done or time.monotonic() - saved >= options.checkpoint_seconds:
            save_checkpoint(directory, *trainer.state())
            saved = time.monotonic()
    result = trainer.finish()
    write_json(Path(directory) / RECORD, asdict(result))
    return result


def restore_part(
    part: Part, directory: str | Path, options: FitOptions, device: torch.device | str = "cpu"
) -> PartResult | None:
    """A part whose training is over, with its best weights in place; None if it is not over.

    Parameters
    ----------
    part, directory, options, device
        As for `fit_part`.

    Raises
    ------
    ConfigError
        If it was trained with another recipe.
    CorruptFileError
        If its checkpoint is damaged.
    """
    if not has_checkpoint(directory):
        return None
    tensors, meta = load_checkpoint(directory, device)
    if not meta["done"]:
        return None
    _check_recipe(part, options.recipe(part), meta)
    part.begin()
    part.module.load_state_dict({name.removeprefix("best."): tensor for name, tensor in tensors.items()})
    part.module.eval()
    history = [EpochRecord(**record) for record in meta["history"]]
    result = PartResult(
        part.name, meta["best_epoch"], meta["best_loss"], meta["roll_backs"], history, list(meta["warnings"])
    )
    write_json(Path(directory) / RECORD, asdict(result))
    return result


def _described(recipe: Recipe) -> dict[str, Any]:
    """As JSON has it."""
    return asdict(recipe) | {"milestones": list(recipe.milestones)}


def _check_recipe(part: Part, recipe: Recipe, meta: Mapping[str, Any]) -> None:
    changed = sorted(name for name, value in _described(recipe).items() if meta["recipe"].get(name) != value)
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


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _put(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(values[name])
