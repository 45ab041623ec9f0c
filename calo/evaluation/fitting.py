"""Training of a classifier between two or more samples of showers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.checks import Count, Fraction, Natural, NonNegative, Positive, Row, Whole, settings
from nisampler.base.optim import Best, RateSchedule, Stepper, adamw
from nisampler.base.rng import Streams
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.inputs import Columns, input_kind
from nisampler.calo.evaluation.networks import Standardise, perceptron
from nisampler.calo.evaluation.resnet import ResNet3D
from nisampler.calo.evaluation.splitting import Index, Parts
from nisampler.errors import ConfigError, TrainingDivergedError
from nisampler.ui.monitor import Monitor

_CHUNK = 4096  # showers that are scored at once
_SCHEDULES = {"constant": RateSchedule("constant"), "one-cycle": RateSchedule(warm_up=0.15, ahead=1e-3)}


@settings
class ClassifierConfig:
    """A classifier and its training; an area under its ROC curve means little without the name and the version.

    Parameters
    ----------
    name, version
        Recorded with every figure of merit; a change of any setting asks for another version.
    inputs
        One of `nisampler.calo.evaluation.inputs.INPUTS`.
    epochs, batch, learning_rate
        Passes over the showers, showers of a step, and the highest learning rate of Adam.
    hidden
        Widths of the layers of "mlp"; without meaning for "resnet".
    network
        "mlp" with leaky ReLU, or "resnet", see `ResNet3D`.
    schedule
        "constant", or "one-cycle": up to the learning rate and down to zero, both along a cosine.
    weight_decay
        Weight decay of AdamW; 0 is plain Adam.
    dropout
        Probability that an output of a hidden layer of "mlp" is set to zero in training.
    patience
        Stop after so many epochs without a better one; 0 never does.
    split
        Shares of each class for training, for selection and calibration, and for the figures of merit.
    selection
        Keep the epoch with the best "accuracy" or the lowest "loss" on the second part.
    standardise
        Shift and scale each input by its mean and standard deviation in the first part.
    dtype
        "float32" or "float64".

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> ClassifierConfig("tiny", "tiny/1", "low", epochs=2, batch=8, learning_rate=1e-3, hidden=(4,)).split
    (0.6, 0.2, 0.2)
    """

    name: str
    version: str
    inputs: str
    epochs: Count
    batch: Annotated[Whole, Field(ge=2)]
    learning_rate: Positive
    hidden: Row[Count] = ()
    network: Literal["mlp", "resnet"] = "mlp"
    schedule: Literal["constant", "one-cycle"] = "constant"
    weight_decay: NonNegative = 0.0
    dropout: Fraction = 0.0
    patience: Natural = 0
    split: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] = (0.6, 0.2, 0.2)
    selection: Literal["accuracy", "loss"] = "accuracy"
    standardise: bool = False
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        input_kind(self.inputs)
        if self.network == "mlp" and not self.hidden:
            raise ConfigError(f"hidden must name the width of each hidden layer, got {self.hidden}")
        if self.network == "resnet" and (self.inputs != "low" or self.standardise):
            raise ConfigError("the convolutional network takes the inputs 'low', not standardised")
        if sum(self.split) > 1.0 + 1e-9:
            raise ConfigError(f"split must be three positive shares with a sum of at most 1, got {self.split}")

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


class Classifier:
    """Tells which of several samples a shower is from.

    Parameters
    ----------
    geometry, config
        The cells of the showers; network and training.
    samples
        What `InputKind.columns` keeps of each sample; the position is the label.
    streams
        Source of all random numbers.
    device
        Where the network lives; the samples stay where they are and follow batch by batch.

    Examples
    --------
    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.evaluation.splitting import split_classes
    >>> from nisampler.ui.monitor import SILENT
    >>> toy, rng = geometry("toy"), np.random.default_rng(1)
    >>> columns = input_kind("low").columns
    >>> samples = [columns(Showers(np.full(60, 1e3), rng.random((60, toy.n_voxels))), toy) for _ in range(2)]
    >>> config = ClassifierConfig("tiny", "tiny/1", "low", epochs=2, batch=8, learning_rate=1e-3, hidden=(4,))
    >>> classifier = Classifier(toy, config, samples, Streams(1))
    >>> parts = split_classes([60, 60], config.split, Streams(1))
    >>> classifier.fit(parts, SILENT, "tiny")
    >>> classifier.epochs_run, classifier.scores(parts[0].test, 0).shape
    (2, (12, 1))
    """

    def __init__(
        self,
        geometry: Geometry,
        config: ClassifierConfig,
        samples: Sequence[Columns],
        streams: Streams,
        device: torch.device | str = "cpu",
    ) -> None:
        self.geometry, self.config, self.samples, self.streams = geometry, config, tuple(samples), streams
        self.device = torch.device(device)
        self.dtype = torch.float64 if config.dtype == "float64" else torch.float32
        self.epochs_run, self.best = 0, Best()
        self._kind = input_kind(config.inputs)
        outputs = 1 if len(self.samples) == 2 else len(self.samples)
        dim = self._inputs(np.arange(1), 0).shape[1]
        weights = streams.generator("weights")
        self.standardise = Standardise(dim).to(self.device, self.dtype)
        if config.network == "resnet":
            if geometry.conditions:
                raise ConfigError(f"a resnet sees no conditions, which {geometry.name} has: choose another classifier")
            body: nn.Module = ResNet3D(geometry.grid, outputs, weights)
        else:
            masks = streams.generator("dropout", device=self.device)
            body = perceptron((dim, *config.hidden), outputs, config.dropout, weights, masks)
        self.network = body.to(self.device, self.dtype)

    @property
    def best_epoch(self) -> int:
        """The epoch that was kept."""
        return self.best.epoch

    def _inputs(self, rows: Index, sample: int | Columns) -> Tensor:
        """Inputs (n, d) of some showers of the sample with a label, or of any other one."""
        index = torch.from_numpy(rows)
        columns = self.samples[sample] if isinstance(sample, int) else sample
        return self._kind.inputs(self.geometry, *(column[index].to(self.device, self.dtype) for column in columns))

    def _batches(self, parts: Sequence[Index], rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of all showers of the parts in random order, in batches."""
        labels = np.concatenate([np.full(len(part), label) for label, part in enumerate(parts)])
        rows = np.concatenate(parts)
        order = rng.permutation(len(rows))
        for start in range(0, len(order), self.config.batch):
            chosen = order[start : start + self.config.batch]
            if len(chosen) < 2:
                continue  # batch normalisation has no variance of one shower; another one is left out next time
            by_label = [rows[chosen[labels[chosen] == label]] for label in range(len(parts))]
            inputs = torch.cat([self._inputs(part, label) for label, part in enumerate(by_label)])
            counts = torch.tensor([len(part) for part in by_label], device=self.device)
            yield inputs, torch.repeat_interleave(torch.arange(len(parts), device=self.device), counts)

    def scores(self, rows: Index, sample: int | Columns) -> NDArray[np.float64]:
        """Outputs (n, outputs) for some showers: log-odds of class 1 of two, else unnormalised log-probabilities.

        Parameters
        ----------
        rows
            Which showers, shape (n,).
        sample
            The label of a sample, or the columns of another one.
        """
        self.network.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(rows), _CHUNK):
                inputs = self._inputs(rows[start : start + _CHUNK], sample)
                found.append(self.network(self.standardise(inputs)).double().cpu().numpy())
        return np.concatenate(found)

    def fit(self, parts: Sequence[Parts], monitor: Monitor, stage: str) -> None:
        """Train on the first parts and keep the epoch that does best on the second ones.

        Raises
        ------
        TrainingDivergedError
            If the loss is not finite.
        """
        config = self.config
        train = [part.train for part in parts]
        if config.standardise:
            blocks = ((label, rows[i : i + _CHUNK]) for label, rows in enumerate(train)
                      for i in range(0, len(rows), _CHUNK))  # fmt: skip
            self.standardise.set_from(self._inputs(rows, label) for label, rows in blocks)
        # Not fused, as the figures of the CaloChallenge were made: a fused step is rounded differently.
        optimizer = adamw(config.learning_rate, config.weight_decay, fused=False)
        stepper = Stepper(self.network, optimizer, _SCHEDULES[config.schedule])
        for epoch in range(1, config.epochs + 1):
            loss = self._epoch(train, stepper, epoch - 1)
            if not math.isfinite(loss):
                raise TrainingDivergedError(
                    f"the loss of classifier {config.name} is {loss} in epoch {epoch}: lower learning_rate (now "
                    f"{config.learning_rate:g})"
                )
            figure = self._figure([part.selection for part in parts])
            self.epochs_run = epoch
            self.best.note(figure, epoch, self.network)
            shown = 1.0 - figure if config.selection == "accuracy" else figure
            monitor.progress(stage, epoch, config.epochs, {"loss": f"{loss:.4f}", config.selection: f"{shown:.4f}"})
            if config.patience and self.best.waited(epoch) >= config.patience:
                monitor.progress(stage, config.epochs, config.epochs, {})
                break
        self.best.restore(self.network)

    def _epoch(self, train: Sequence[Index], stepper: Stepper, epoch: int) -> float:
        """One pass over the showers; returns the mean loss of its batches."""
        self.network.train()
        per_epoch = math.ceil(sum(len(rows) for rows in train) / self.config.batch)
        total, steps = torch.zeros((), device=self.device, dtype=self.dtype), 0
        for inputs, labels in self._batches(train, self.streams.numpy("order", epoch)):
            loss = _loss(self.network(self.standardise(inputs)), labels)
            stepper.unchecked_step(loss, (epoch + steps / per_epoch) / self.config.epochs)
            total, steps = total + loss.detach(), steps + 1
        return float(total) / max(steps, 1)

    def _figure(self, selection: Sequence[Index]) -> float:
        """The loss, or one minus the accuracy, of the second parts."""
        scores = np.concatenate([self.scores(rows, label) for label, rows in enumerate(selection)])
        labels = np.concatenate([np.full(len(rows), label) for label, rows in enumerate(selection)])
        if self.config.selection == "loss":
            return float(_loss(torch.from_numpy(scores), torch.from_numpy(labels)))
        predicted = scores[:, 0] > 0.0 if scores.shape[1] == 1 else scores.argmax(axis=1)
        return 1.0 - float((predicted == labels).mean())


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of labels (n,) under outputs (n, 1) or (n, classes)."""
    if scores.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(scores[:, 0], labels.to(scores.dtype))
    return functional.cross_entropy(scores, labels)
