"""Binary classifiers between reference and generated showers, in the form of the CaloChallenge (2410.21611).

An area under the ROC curve depends on inputs, architecture, training and even the year of the challenge's script:
every result carries the name and the version of its classifier. Compare it with the floor, the same classifier
between two samples of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from nisampler.base.rng import Streams
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.fitting import Classifier, ClassifierConfig
from nisampler.calo.evaluation.inputs import check_showers, input_kind
from nisampler.calo.evaluation.roc import IsotonicCalibration, auc, cross_entropy, jensen_shannon
from nisampler.calo.evaluation.splitting import split_classes
from nisampler.errors import ConfigError
from nisampler.ui.monitor import SILENT, Monitor


def _challenge(name: str, inputs: str) -> ClassifierConfig:
    """The network and the training of the challenge's final tables."""
    return ClassifierConfig(
        f"challenge-{name}", "calochallenge 2410.21611/1", inputs, epochs=50, batch=1000, learning_rate=2e-4,
        hidden=(2048, 2048, 2048), dtype="float64",
    )  # fmt: skip


def _small(name: str, inputs: str, hidden: tuple[int, ...], epochs: int) -> ClassifierConfig:
    """A network for a CPU: standardised inputs, the lowest loss of a one-cycle training that stops early."""
    return ClassifierConfig(
        f"small-{name}", "small/2", inputs, epochs=epochs, batch=512, learning_rate=1e-3, hidden=hidden,
        schedule="one-cycle", weight_decay=1e-2, dropout=0.1, patience=6, selection="loss", standardise=True,
    )  # fmt: skip


CLASSIFIERS: Mapping[str, ClassifierConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            _challenge("low", "low"),
            _challenge("low-normed", "low-normed"),
            _challenge("high", "high"),
            _small("low", "log-hits", (512, 512, 512), 15),
            _small("log-voxels", "log-low", (512, 512, 512), 15),
            _small("high", "high-ratios", (256, 256, 256), 30),
            ClassifierConfig(
                "cnn-resnet", "calochallenge 2410.21611/1", "low", epochs=50, batch=1000, learning_rate=2e-4,
                network="resnet",
            ),
        )
    }
)  # fmt: skip
"""Classifiers by name: those of the challenge want a GPU, the small ones are made for a CPU."""


def classifier_config(name: str) -> ClassifierConfig:
    """Look up a classifier.

    Raises
    ------
    ConfigError
        If there is none of that name.

    Examples
    --------
    >>> classifier_config("small-high").inputs
    'high-ratios'
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {name!r}")
    return CLASSIFIERS[name]


@dataclass(frozen=True)
class ClassifierResult:
    """Figures of merit on showers that served for neither training nor calibration.

    Attributes
    ----------
    auc
        Area under the ROC curve: 0.5 for equal laws, 1 for laws that the classifier tells apart.
    jsd
        Jensen-Shannon divergence in bits, 1 - log_loss/ln 2.
    accuracy, log_loss
        Share of showers on the right side of even odds; cross entropy in nats after isotonic calibration.
    name, version, seed
        Of the classifier and its training.
    n_train, n_selection, n_test
        Showers of each class in the three parts.
    unused_reference, unused_generated
        Showers left out because the other class has fewer.
    epochs_run, best_epoch
        Epochs of the training, and the one that was kept.

    Examples
    --------
    >>> result = ClassifierResult(0.6, 0.1, 0.55, 0.65, "small-high", "small/2", 1, 600, 200, 200, 0, 0, 30, 20)
    >>> result.as_dict()["auc"]
    0.6
    """

    auc: float
    jsd: float
    accuracy: float
    log_loss: float
    name: str
    version: str
    seed: int
    n_train: int
    n_selection: int
    n_test: int
    unused_reference: int
    unused_generated: int
    epochs_run: int
    best_epoch: int

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class ClassifierSummary:
    """Several trainings of one classifier: mean and standard deviation between them, as the challenge quotes them.

    Attributes
    ----------
    results
        One for each seed; each has its own split, initial weights and order of batches.

    Examples
    --------
    >>> result = ClassifierResult(0.6, 0.1, 0.55, 0.65, "small-high", "small/2", 1, 600, 200, 200, 0, 0, 30, 20)
    >>> ClassifierSummary((result, result)).mean("auc")
    0.6
    """

    results: tuple[ClassifierResult, ...]

    def mean(self, figure: str) -> float:
        """Mean of "auc", "jsd", "accuracy" or "log_loss"."""
        return fmean(getattr(result, figure) for result in self.results)

    def std(self, figure: str) -> float:
        """Standard deviation between the trainings; NaN for a single one."""
        values = [getattr(result, figure) for result in self.results]
        return stdev(values) if len(values) > 1 else math.nan

    def as_dict(self) -> dict[str, Any]:
        """JSON data: means, standard deviations (None for a single training), and every training."""
        figures = ("auc", "jsd", "accuracy", "log_loss")
        spread = {f"{name}_std": self.std(name) if len(self.results) > 1 else None for name in figures}
        trainings = [result.as_dict() for result in self.results]
        return {
            "name": self.results[0].name,
            "version": self.results[0].version,
            **{name: self.mean(name) for name in figures},
            **spread,
            "trainings": trainings,
        }


def classify(
    reference: Showers,
    generated: Showers,
    geometry: Geometry,
    config: ClassifierConfig,
    seed: int,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
) -> ClassifierResult:
    """Train a classifier between two samples and judge it on unseen showers.

    Cells below the threshold of the geometry count as empty in both samples. Both classes are cut to the same number
    of showers and split into three parts: for training, for the choice of the epoch and the isotonic calibration, and
    for the figures of merit. On a CPU the seed determines the result.

    Parameters
    ----------
    reference, generated
        Class 1 and class 0; they must not share showers.
    geometry, config
        See `CLASSIFIERS`.
    seed
        Of split, weights and order.
    device
        Where the network lives.
    monitor
        Told of each epoch.

    Raises
    ------
    GeometryError
        If a sample belongs to another geometry, or the classifier needs a grid that the geometry does not have.
    ShowerDataError
        If there are too few showers, or energies are negative or not finite.
    TrainingDivergedError
        If the loss is not finite.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from nisampler.calo.detector.geometries import geometry
    >>> rng = np.random.default_rng(0)
    >>> first, second = (Showers(np.full(100, 1e3), rng.random((100, 240)) * scale) for scale in (1.0, 2.0))
    >>> config = replace(classifier_config("small-high"), epochs=2, hidden=(8,))
    >>> classify(first, second, geometry("toy"), config, seed=1).epochs_run
    2
    """
    for name, sample in (("reference", reference), ("generated", generated)):
        check_showers(sample, geometry, name)
    streams = Streams(seed).child(f"classifier {config.name}")
    parts = split_classes([len(generated), len(reference)], config.split, streams)
    columns = input_kind(config.inputs).columns
    classifier = Classifier(
        geometry, config, [columns(generated, geometry), columns(reference, geometry)], streams, device
    )
    classifier.fit(parts, monitor, config.name)
    selection, selection_labels = _scores(classifier, [part.selection for part in parts])
    test, test_labels = _scores(classifier, [part.test for part in parts])
    probabilities = IsotonicCalibration.fit(selection, selection_labels)(test)
    used = sum(len(rows) for rows in (parts[0].train, parts[0].selection, parts[0].test))
    return ClassifierResult(
        auc=auc(test, test_labels),
        jsd=jensen_shannon(probabilities, test_labels),
        accuracy=float(((test > 0.0) == test_labels).mean()),
        log_loss=cross_entropy(probabilities, test_labels),
        name=config.name,
        version=config.version,
        seed=seed,
        n_train=len(parts[0].train),
        n_selection=len(parts[0].selection),
        n_test=len(parts[0].test),
        unused_reference=len(reference) - used,
        unused_generated=len(generated) - used,
        epochs_run=classifier.epochs_run,
        best_epoch=classifier.best_epoch,
    )


def _scores(classifier: Classifier, rows: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> tuple[Any, Any]:
    """Log-odds of being a reference shower and labels, (n,) each."""
    scores = [classifier.scores(part, label)[:, 0] for label, part in enumerate(rows)]
    return np.concatenate(scores), np.concatenate([np.full(len(part), label) for label, part in enumerate(rows)])


def classify_many(
    reference: Showers,
    generated: Showers,
    geometry: Geometry,
    config: ClassifierConfig,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
) -> ClassifierSummary:
    """Several trainings with different seeds, see `classify`; the challenge makes ten.

    Raises
    ------
    ConfigError
        If there is no seed, or one is named twice.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from nisampler.calo.detector.geometries import geometry
    >>> rng = np.random.default_rng(0)
    >>> first, second = (Showers(np.full(100, 1e3), rng.random((100, 240))) for _ in range(2))
    >>> config = replace(classifier_config("small-high"), epochs=1, hidden=(8,))
    >>> len(classify_many(first, second, geometry("toy"), config, (1, 2)).results)
    2
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be at least one and all different, got {list(seeds)}")
    return ClassifierSummary(
        tuple(classify(reference, generated, geometry, config, seed, device, monitor) for seed in seeds)
    )
