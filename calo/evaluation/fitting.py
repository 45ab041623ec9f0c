"""Training of a classifier between two or more samples of showers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.rng import Streams
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.inputs import Columns, input_kind
from nisampler.calo.evaluation.resnet import ResNet3D
from nisampler.errors import ConfigError, ShowerDataError, TrainingDivergedError
from nisampler.flows.nets.mlp import make_linear
from nisampler.ui.monitor import Monitor

Index = NDArray[np.int64]
_FEWEST = 10  # showers of each class in each part
_CHUNK = 4096  # showers that are scored at once
_WARM_UP = 0.15  # share of the steps in which the rate of a one-cycle schedule rises


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier and its training; an area under its ROC curve means little without the name and the version.

    Parameters
    ----------
    name, version
        Recorded with every figure of merit; a change of any setting asks for another version.
    inputs
        One of `nisampler.calo.evaluation.inputs.INPUTS`.
    epochs, batch, learning_rate
        Of Adam.
    hidden
        Widths of the layers of "mlp"; without meaning for "resnet".
    network
        "mlp" with leaky ReLU, or "resnet", see `ResNet3D`.
    schedule
        "constant", or "one-cycle": up to the learning rate and down to zero, both along a cosine.
    weight_decay
        Of AdamW; 0 is plain Adam.
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
    """

    name: str
    version: str
    inputs: str
    epochs: int
    batch: int
    learning_rate: float
    hidden: tuple[int, ...] = ()
    network: Literal["mlp", "resnet"] = "mlp"
    schedule: Literal["constant", "one-cycle"] = "constant"
    weight_decay: float = 0.0
    dropout: float = 0.0
    patience: int = 0
    split: tuple[float, float, float] = (0.6, 0.2, 0.2)
    selection: Literal["accuracy", "loss"] = "accuracy"
    standardise: bool = False
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        input_kind(self.inputs)
        choices: dict[str, tuple[str, ...]] = {
            "network": ("mlp", "resnet"),
            "schedule": ("constant", "one-cycle"),
            "selection": ("accuracy", "loss"),
            "dtype": ("float32", "float64"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least in (("epochs", 1), ("batch", 2), ("patience", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.network == "mlp" and (not self.hidden or min(self.hidden) < 1):
            raise ConfigError(f"hidden must name the width of each hidden layer, got {self.hidden}")
        if self.network == "resnet" and (self.inputs != "low" or self.standardise):
            raise ConfigError("the convolutional network takes the inputs 'low', not standardised")
        if not 0.0 < self.learning_rate < math.inf or not 0.0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"learning_rate must be positive and weight_decay not negative, got {self.learning_rate} and "
                f"{self.weight_decay}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")
        if len(self.split) != 3 or min(self.split) <= 0.0 or sum(self.split) > 1.0 + 1e-9:
            raise ConfigError(f"split must be three positive shares with a sum of at most 1, got {self.split}")

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Parts:
    """Which showers of one class serve for training, for selection and calibration, and for the figures of merit."""

    train: Index
    selection: Index
    test: Index


def split_classes(sizes: Sequence[int], shares: tuple[float, float, float], streams: Streams) -> tuple[Parts, ...]:
    """Split each class at random into parts as large as the smallest class allows.

    Parameters
    ----------
    sizes
        Number of showers of each class.
    shares
        Of the three parts.
    streams
        Each class is shuffled by its own stream.

    Raises
    ------
    ShowerDataError
        If a part has fewer than ten showers of a class.
    """
    n = min(sizes)
    train, selection = (round(share * n) for share in shares[:2])
    test = min(n - train - selection, round(shares[2] * n))
    if min(train, selection, test) < _FEWEST:
        raise ShowerDataError(
            f"{n} showers of a class make parts of {train}, {selection} and {test}; each needs at least {_FEWEST}: "
            "use more showers"
        )
    shuffled = [streams.numpy("split", k).permutation(size) for k, size in enumerate(sizes)]
    return tuple(
        Parts(order[:train], order[train : train + selection], order[train + selection : train + selection + test])
        for order in shuffled
    )


class Dropout(nn.Module):
    """Dropout whose masks come from a generator of its own."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self._probability, self._generator = probability, generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self._probability == 0.0:
            return x
        uniform = torch.rand(x.shape, generator=self._generator, device=x.device, dtype=x.dtype)
        return x * (uniform >= self._probability) / (1.0 - self._probability)


class Standardise(nn.Module):
    """(x - mean)/scale with constants that are set before training."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def set_from(self, batches: Iterator[Tensor]) -> None:
        """Take mean and standard deviation of all rows; a constant input keeps the scale 1."""
        n = 0
        shift = total = squares = torch.zeros_like(self.mean, dtype=torch.float64)
        for batch in batches:
            rows = batch.double()
            shift = rows.mean(dim=0) if n == 0 else shift  # so that the squares do not cancel
            n, total, squares = n + len(rows), total + (rows - shift).sum(0), squares + (rows - shift).square().sum(0)
        mean = total / n
        deviation = (squares / n - mean.square()).clamp(min=0.0).sqrt()
        self.mean.copy_(mean + shift)
        self.scale.copy_(torch.where(deviation > 1e-8, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


class Classifier:
    """Tells which of several samples a shower is from.

    Parameters
    ----------
    geometry, config
        Of the showers; of network and training.
    samples
        What `InputKind.columns` keeps of each sample; the position is the label.
    streams
        Source of all random numbers.
    device
        Where the network lives; the samples stay where they are and follow batch by batch.
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
        self.epochs_run = self.best_epoch = 0
        self._kind = input_kind(config.inputs)
        outputs = 1 if len(self.samples) == 2 else len(self.samples)
        dim = self._inputs(np.arange(1), 0).shape[1]
        weights = streams.generator("weights")
        self.standardise = Standardise(dim).to(self.device, self.dtype)
        body = (
            ResNet3D(geometry.grid, outputs, weights)
            if config.network == "resnet"
            else self._perceptron((dim, *config.hidden), outputs, weights)
        )
        self.network = body.to(self.device, self.dtype)

    def _perceptron(self, sizes: tuple[int, ...], outputs: int, weights: torch.Generator) -> nn.Module:
        masks = self.streams.generator("dropout", device=self.device)
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise(sizes):
            layers += [make_linear(d_in, d_out, weights), nn.LeakyReLU(), Dropout(self.config.dropout, masks)]
        return nn.Sequential(*layers, make_linear(sizes[-1], outputs, weights))

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
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        per_epoch = math.ceil(sum(len(rows) for rows in train) / config.batch)
        best, state = math.inf, {}
        for epoch in range(config.epochs):
            loss = self._epoch(train, optimizer, epoch, per_epoch)
            if not math.isfinite(loss):
                raise TrainingDivergedError(
                    f"the loss of classifier {config.name} is {loss} in epoch {epoch + 1}: lower learning_rate (now "
                    f"{config.learning_rate:g})"
                )
            figure = self._figure([part.selection for part in parts])
            self.epochs_run = epoch + 1
            if figure < best:
                best, self.best_epoch = figure, epoch + 1
                state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            shown = 1.0 - figure if config.selection == "accuracy" else figure
            monitor.progress(stage, epoch + 1, config.epochs, {"loss": f"{loss:.4f}", config.selection: f"{shown:.4f}"})
            if config.patience and self.epochs_run - self.best_epoch >= config.patience:
                monitor.progress(stage, config.epochs, config.epochs, {})
                break
        self.network.load_state_dict(state)

    def _epoch(self, train: Sequence[Index], optimizer: torch.optim.Optimizer, epoch: int, per_epoch: int) -> float:
        """One pass over the showers; returns the mean loss of its batches."""
        self.network.train()
        total, steps = torch.zeros((), device=self.device, dtype=self.dtype), 0
        for inputs, labels in self._batches(train, self.streams.numpy("order", epoch)):
            fraction = (epoch + steps / per_epoch) / self.config.epochs
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * _SCHEDULES[self.config.schedule](fraction)
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(self.network(self.standardise(inputs)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
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


def _one_cycle(fraction: float) -> float:
    if fraction < _WARM_UP:
        return 0.5 * (1.0 - math.cos(math.pi * (fraction + 1e-3) / _WARM_UP))
    return 0.5 * (1.0 + math.cos(math.pi * (fraction - _WARM_UP) / (1.0 - _WARM_UP)))


_SCHEDULES: dict[str, Callable[[float], float]] = {"constant": lambda _: 1.0, "one-cycle": _one_cycle}
