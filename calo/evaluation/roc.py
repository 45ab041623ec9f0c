"""Figures of merit of a binary classifier: area under the ROC curve, calibrated probabilities, Jensen-Shannon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from nisampler.errors import ConfigError, NonFiniteError, ShapeError

Floats = NDArray[np.float64]
CLIP = 1e-6
"""Calibrated probabilities stay this far from 0 and 1, so that no cross entropy is infinite."""


def _scores_and_labels(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores (n,) and labels (n,) as float64 and bool, both classes present."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ShapeError(f"scores and labels must be two equally long rows, got {scores.shape} and {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ConfigError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise NonFiniteError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    positive = labels.astype(bool)
    if positive.all() or not positive.any():
        raise ConfigError("the labels hold one class only: a classifier is judged on showers of both classes")
    return scores, positive


def auc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    r"""Area under the ROC curve: the probability that a member of class 1 has the higher score, ties counting half.

    By the rank statistic of Mann and Whitney, :math:`(R_1 - n_1(n_1+1)/2)/(n_0 n_1)` with :math:`R_1` the sum of the
    mid-ranks of class 1.

    Parameters
    ----------
    scores
        Any monotone function of the probability of class 1, shape (n,).
    labels
        0 or 1, shape (n,).

    Raises
    ------
    ShapeError, ConfigError, NonFiniteError
        If the rows do not match, a class is missing, or a score is not finite.

    Examples
    --------
    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    scores, positive = _scores_and_labels(scores, labels)
    n1 = int(positive.sum())
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - 0.5 * n1 * (n1 + 1)) / (n1 * (len(scores) - n1))


@dataclass(frozen=True)
class IsotonicCalibration:
    """The best increasing map from scores to probabilities of class 1, linear between its knots.

    Attributes
    ----------
    scores, probabilities
        Knots (k,), both increasing; outside them the map is constant.

    Examples
    --------
    >>> scores, labels = np.array([-1.0, 0.0, 1.0, 2.0]), np.array([0, 1, 0, 1])
    >>> IsotonicCalibration.fit(scores, labels)(np.array([0.5])).round(3)
    array([0.5])
    """

    scores: Floats
    probabilities: Floats

    @classmethod
    def fit(cls, scores: NDArray[Any], labels: NDArray[Any]) -> IsotonicCalibration:
        """Least-squares isotonic regression of the labels (n,) on the scores (n,), clipped to [1e-6, 1 - 1e-6].

        Equal scores share one knot. Raises as `auc` does.
        """
        scores, positive = _scores_and_labels(scores, labels)
        knots, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
        share = np.bincount(inverse, weights=positive) / counts
        fitted = isotonic_regression(share, weights=counts.astype(np.float64)).x
        return cls(knots, np.clip(fitted, CLIP, 1.0 - CLIP))

    def __call__(self, scores: NDArray[Any]) -> Floats:
        """Probabilities of class 1 of the scores (n,)."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)


def cross_entropy(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean of -log p(true class) in nats, of probabilities (n,) of class 1 strictly between 0 and 1.

    >>> round(cross_entropy(np.array([0.5, 0.5]), np.array([0, 1])), 6)
    0.693147
    """
    probabilities, positive = _scores_and_labels(probabilities, labels)
    if not ((probabilities > 0) & (probabilities < 1)).all():
        raise ConfigError("probabilities must lie strictly between 0 and 1: calibrate or clip them first")
    return float(-np.log(np.where(positive, probabilities, 1.0 - probabilities)).mean())


def jensen_shannon(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    r"""Estimate of the Jensen-Shannon divergence between the classes in bits, :math:`1 - \mathrm{BCE}/\ln 2`.

    A lower bound of the divergence up to statistics: 1 for classes that the classifier tells apart, 0 for equal
    classes, around which it fluctuates to small negative values. Both classes must be equally large.

    Parameters
    ----------
    probabilities
        Calibrated probabilities (n,) of class 1 of showers that were used for neither training nor calibration.
    labels
        0 or 1, shape (n,).

    Raises
    ------
    ConfigError
        If the classes differ in size, or as in `cross_entropy`.

    Examples
    --------
    >>> round(jensen_shannon(np.array([0.5, 0.5]), np.array([0, 1])), 6)
    0.0
    """
    labels = np.asarray(labels)
    entropy = cross_entropy(probabilities, labels)
    if 2 * int((labels == 1).sum()) != len(labels):
        raise ConfigError("the divergence is estimated from classes of equal size: use as many showers of each")
    return 1.0 - entropy / math.log(2.0)
