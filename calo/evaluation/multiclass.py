"""One classifier over the showers of several models: which of them does a reference shower look like?

A binary classifier judges each model by itself; the mean log-posterior of the reference ranks them against each
other (2410.21611; 2211.11765).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from nisampler.base.rng import Streams
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.fitting import Classifier, ClassifierConfig
from nisampler.calo.evaluation.inputs import check_showers, input_kind
from nisampler.calo.evaluation.splitting import split_classes
from nisampler.errors import ConfigError, ShowerDataError
from nisampler.ui.monitor import SILENT, Monitor


@dataclass(frozen=True)
class MulticlassResult:
    """Mean log-posteriors, in nats.

    Attributes
    ----------
    names
        Of the N samples.
    log_posterior
        Mean of log p(sample | x) over the reference showers: the higher, the closer the sample is to the reference,
        compared with the others.
    random
        -log N, what every sample has if all are alike.
    confusion
        Row for each true sample: the mean of log p(sample | x) over its own test showers.
    accuracy
        Share of the test showers for which the true sample has the highest posterior.
    classifier, version, seed
        Of the classifier and its training.
    n_reference
        Reference showers.
    n_train, n_selection, n_test
        Showers of each sample in the three parts.
    unused
        Showers of each sample left out because another one has fewer.
    epochs_run, best_epoch
        Epochs of the training, and the one that was kept.

    Examples
    --------
    >>> posteriors, sizes = ((-0.2, -1.0), -0.7, ((-0.1, -2.0), (-2.0, -0.1))), (9, 9, 9, 9, (0, 0), 5, 4)
    >>> MulticlassResult(("a", "b"), *posteriors, 0.9, "small-high", "small/2", 1, *sizes).accuracy
    0.9
    """

    names: tuple[str, ...]
    log_posterior: tuple[float, ...]
    random: float
    confusion: tuple[tuple[float, ...], ...]
    accuracy: float
    classifier: str
    version: str
    seed: int
    n_reference: int
    n_train: int
    n_selection: int
    n_test: int
    unused: tuple[int, ...]
    epochs_run: int
    best_epoch: int

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


def multiclass(
    reference: Showers,
    samples: Mapping[str, Showers],
    geometry: Geometry,
    config: ClassifierConfig,
    seed: int,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
) -> MulticlassResult:
    """Train one classifier over several samples and ask it about reference showers, which it has never seen.

    Parameters
    ----------
    reference
        Test showers that no model was trained on.
    samples
        Showers of each model by name; all are cut to the size of the smallest.
    geometry, config, seed, device, monitor
        As in `nisampler.calo.evaluation.classifiers.classify`.

    Raises
    ------
    ConfigError
        If there are fewer than two samples.
    GeometryError, ShowerDataError, TrainingDivergedError
        As in `classify`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.evaluation.classifiers import classifier_config
    >>> rng = np.random.default_rng(0)
    >>> samples = {name: Showers(np.full(100, 1e3), rng.random((100, 240))) for name in "ab"}
    >>> config = replace(classifier_config("small-high"), epochs=1, hidden=(8,))
    >>> multiclass(samples["a"], samples, geometry("toy"), config, seed=1).names
    ('a', 'b')
    """
    if len(samples) < 2:
        raise ConfigError(f"a comparison needs the showers of at least two models, got {list(samples)}")
    check_showers(reference, geometry, "reference")
    if not len(reference):
        raise ShowerDataError("there are no reference showers to compare the models on")
    for name, sample in samples.items():
        check_showers(sample, geometry, name)
    streams = Streams(seed).child(f"multiclass {config.name}")
    parts = split_classes([len(sample) for sample in samples.values()], config.split, streams)
    columns = input_kind(config.inputs).columns
    classifier = Classifier(
        geometry, config, [columns(sample, geometry) for sample in samples.values()], streams, device
    )  # fmt: skip
    classifier.fit(parts, monitor, "multiclass")
    posteriors = [_log_posterior(classifier.scores(rows.test, label)) for label, rows in enumerate(parts)]
    judged = _log_posterior(classifier.scores(np.arange(len(reference)), columns(reference, geometry)))
    used = sum(len(rows) for rows in (parts[0].train, parts[0].selection, parts[0].test))
    right = [(table.argmax(axis=1) == label).mean() for label, table in enumerate(posteriors)]
    return MulticlassResult(
        names=tuple(samples),
        log_posterior=tuple(judged.mean(axis=0).tolist()),
        random=-math.log(len(samples)),
        confusion=tuple(tuple(table.mean(axis=0).tolist()) for table in posteriors),
        accuracy=float(np.mean(right)),
        classifier=config.name,
        version=config.version,
        seed=seed,
        n_reference=len(reference),
        n_train=len(parts[0].train),
        n_selection=len(parts[0].selection),
        n_test=len(parts[0].test),
        unused=tuple(len(sample) - used for sample in samples.values()),
        epochs_run=classifier.epochs_run,
        best_epoch=classifier.best_epoch,
    )


def _log_posterior(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities (n, N) of outputs (n, N), or of log-odds (n, 1) of the second of two."""
    both = np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores
    return np.asarray(log_softmax(both, axis=1))
