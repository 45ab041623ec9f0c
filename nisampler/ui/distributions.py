"""Differential distributions of weighted and of unweighted events, filled in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.events import EventBatch, Observable, PointBatch

Floats = NDArray[np.float64]

MAX_COORDINATES = 6

_COORDINATE_BINS = 40


@dataclass(frozen=True)
class Axis:
    """What is histogrammed: its name, its label in mathtext, its bin edges (b + 1,)."""

    name: str
    label: str
    edges: Floats
    log: bool = False


class Histogram:
    """Sums of weights and of their squares in the bins of an axis.

    Parameters
    ----------
    axis
        The bins.
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.total = np.zeros(len(axis.edges) - 1)
        self.squares = np.zeros(len(axis.edges) - 1)
        self.count = 0
        self.sum_weights = 0.0

    def fill(self, values: Floats, weights: Floats) -> None:
        """Add values (n,) with weights (n,); those outside the bins count in the number of events only."""
        self.total += np.histogram(values, self.axis.edges, weights=weights)[0]
        self.squares += np.histogram(values, self.axis.edges, weights=weights**2)[0]
        self.count += len(values)
        self.sum_weights += float(weights.sum())

    def density(self, scale: float) -> tuple[Floats, Floats]:
        r"""(b,) density of the mean weight times `scale`, and its statistical error.

        The error of a bin that holds :math:`\sum w` is :math:`\sqrt{\sum w^2 - (\sum w)^2 / n}`.
        """
        n = max(self.count, 1)
        norm = scale / n / np.diff(self.axis.edges)
        spread = np.clip(self.squares - self.total**2 / n, 0.0, None)
        return self.total * norm, np.sqrt(spread) * abs(norm)


def observable_axes(observables: Sequence[Observable]) -> tuple[Axis, ...]:
    """The axes of the observables of a process with an event record."""
    return tuple(Axis(item.name, item.label, item.edges(), item.log) for item in observables)


def coordinate_axes(domain: Floats) -> tuple[Axis, ...]:
    """The axes of the first coordinates of a process without one; `domain` (dim, 2) is their box."""
    return tuple(
        Axis(f"x{i + 1}", f"$x_{{{i + 1}}}$", np.linspace(low, high, _COORDINATE_BINS + 1))
        for i, (low, high) in enumerate(domain[:MAX_COORDINATES])
    )


def fill_events(histograms: tuple[Histogram, ...], observables: Sequence[Observable], batch: EventBatch) -> None:
    """Add events with their weights."""
    for histogram, observable in zip(histograms, observables, strict=True):
        histogram.fill(observable(batch), batch.weights)


def fill_points(histograms: tuple[Histogram, ...], batch: PointBatch) -> None:
    """Add the coordinates of points with their weights."""
    for index, histogram in enumerate(histograms):
        histogram.fill(batch.x[:, index], batch.weights)


@dataclass(frozen=True)
class Comparison:
    """One distribution twice: of weighted points, and of unweighted events with the same integral.

    Attributes
    ----------
    axis
        The bins.
    weighted, weighted_error
        (b,) differential cross-section of the weighted points.
    unweighted, unweighted_error
        (b,) the same of the events.
    """

    axis: Axis
    weighted: Floats
    weighted_error: Floats
    unweighted: Floats
    unweighted_error: Floats

    @classmethod
    def of(cls, weighted: Histogram, unweighted: Histogram, integral: float) -> Comparison:
        """Weighted entries carry f/q; the events share `integral` in proportion to their weights."""
        mean = unweighted.sum_weights / max(unweighted.count, 1)
        scale = integral / mean if mean else integral
        return cls(weighted.axis, *weighted.density(1.0), *unweighted.density(scale))

    @property
    def ratio(self) -> tuple[Floats, Floats, Floats]:
        """(b,) events over weighted points, its error, and the relative error of the weighted points."""
        with np.errstate(all="ignore"):
            scale = np.where(self.weighted != 0.0, self.weighted, np.nan)
            return (
                self.unweighted / scale,
                np.abs(self.unweighted_error / scale),
                np.abs(self.weighted_error / scale),
            )

    def chi2(self) -> tuple[float, int]:
        """Chi-square between the two shapes and its number of bins that have entries in both."""
        variance = self.weighted_error**2 + self.unweighted_error**2
        used = (variance > 0) & (self.weighted != 0) & (self.unweighted != 0)
        pulls = (self.unweighted - self.weighted)[used] ** 2 / variance[used]
        return float(pulls.sum()), int(used.sum())
