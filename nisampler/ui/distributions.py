"""Differential distributions of weighted and of unweighted events, filled in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nisampler.errors import EventFormatError
from nisampler.events import EventBatch, Observable, PointBatch
from nisampler.events.uncertainty import band_of
from nisampler.events.weights import WeightGroup
from nisampler.ui.histograms import Axis, Floats, Histogram

MAX_COORDINATES = 6

_COORDINATE_BINS = 40


def observable_axes(observables: Sequence[Observable]) -> tuple[Axis, ...]:
    """The axes of the observables of a process with an event record.

    >>> energy = Observable("e", "$E$", 1.0, 100.0, 2, lambda batch: batch.weights, log=True)
    >>> observable_axes([energy])[0].centres.round(3)
    array([ 3.162, 31.623])
    """
    return tuple(Axis(item.name, item.label, item.edges(), item.log) for item in observables)


def coordinate_axes(domain: Floats) -> tuple[Axis, ...]:
    """The axes of the first coordinates of a process without one; `domain` (dim, 2) is their box.

    >>> [axis.name for axis in coordinate_axes(np.array([[0.0, 1.0], [-1.0, 1.0]]))]
    ['x1', 'x2']
    """
    return tuple(
        Axis(f"x{i + 1}", f"$x_{{{i + 1}}}$", np.linspace(low, high, _COORDINATE_BINS + 1))
        for i, (low, high) in enumerate(domain[:MAX_COORDINATES])
    )


def fill_events(histograms: tuple[Histogram, ...], observables: Sequence[Observable], batch: EventBatch) -> None:
    """Add events with their weights.

    >>> weight = Observable("w", "$w$", 0.0, 2.0, 2, lambda batch: batch.weights)
    >>> histograms = tuple(Histogram(axis) for axis in observable_axes([weight]))
    >>> fill_events(histograms, [weight], EventBatch.empty(2))
    >>> histograms[0].count
    0
    """
    for histogram, observable in zip(histograms, observables, strict=True):
        histogram.fill(observable(batch), batch.weights)


def fill_points(histograms: tuple[Histogram, ...], batch: PointBatch) -> None:
    """Add the coordinates of points with their weights.

    >>> histograms = tuple(Histogram(axis) for axis in coordinate_axes(np.array([[0.0, 1.0]])))
    >>> fill_points(histograms, PointBatch(np.array([[0.25], [0.75]]), np.array([1.0, 3.0])))
    >>> histograms[0].sum_weights
    4.0
    """
    for index, histogram in enumerate(histograms):
        histogram.fill(batch.x[:, index], batch.weights)


@dataclass(frozen=True)
class Shade:
    """An uncertainty of a distribution: a name, and the lower and upper differential cross-section (b,).

    >>> Shade("scales", np.array([0.9]), np.array([1.2])).name
    'scales'
    """

    name: str
    low: Floats
    high: Floats


class NamedSums:
    """Sums of the named weights of events in the bins of several axes.

    Parameters
    ----------
    axes
        One for each observable.
    groups
        What the named weights are.

    Examples
    --------
    >>> NamedSums([], ()).shades(0, Histogram(Axis("x", "$x$", np.array([0.0, 1.0]))))
    []
    """

    def __init__(self, axes: Sequence[Axis], groups: Sequence[WeightGroup]) -> None:
        self._axes, self._groups, count = axes, groups, sum(len(group.weights) for group in groups)
        self._sums = [np.zeros((count, len(axis.edges) - 1)) for axis in axes]
        self._totals = np.zeros((len(axes), count))

    def fill(self, observables: Sequence[Observable], batch: EventBatch) -> None:
        """Add events."""
        for index, observable in enumerate(observables):
            self.add(index, observable(batch), batch.named_weights)

    def add(self, index: int, values: Floats, named_weights: Floats) -> None:
        """Add values (n,) of one observable with the named weights (n, k) of their events."""
        self._totals[index] += named_weights.sum(axis=0)
        place, size = self._axes[index].bins(values), len(self._axes[index].edges) + 1
        for row, weights in zip(self._sums[index], named_weights.T, strict=True):
            row += np.bincount(place, weights, minlength=size)[1:-1]

    def shades(self, index: int, nominal: Histogram, shape: bool = False) -> list[Shade]:
        """Uncertainties of an observable in units of sums of weights, one for each group that has a rule.

        Of the shape alone, each weight is scaled to the sum of the weights of all events.
        """
        shades, start = [], 0
        for group in self._groups:
            own = slice(start, start + len(group.weights))
            start = own.stop
            part = self._sums[index][own]
            if shape:
                with np.errstate(all="ignore"):
                    part = part * (nominal.sum_weights / self._totals[index][own])[:, None]
            try:
                bands = [band_of(group, column, value) for column, value in zip(part.T, nominal.inside, strict=True)]
            except EventFormatError:  # members that the rule needs are missing
                continue
            low = np.array([item.central - item.minus for item in bands])
            high = np.array([item.central + item.plus for item in bands])
            if np.isfinite(low).all() and np.isfinite(high).all():
                shades.append(Shade(group.name, low, high))
        return shades


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
    shades
        Uncertainties from the named weights of the events.

    Examples
    --------
    >>> weighted, events = (Histogram(Axis("x", "$x$", np.linspace(0.0, 1.0, 3))) for _ in range(2))
    >>> weighted.fill([0.2, 0.4, 0.7], [3.0, 3.0, 3.0])
    >>> events.fill([0.1, 0.3, 0.8])
    >>> Comparison.of(weighted, events, integral=3.0).chi2()
    (0.0, 2)
    """

    axis: Axis
    weighted: Floats
    weighted_error: Floats
    unweighted: Floats
    unweighted_error: Floats
    shades: tuple[Shade, ...] = ()

    @classmethod
    def of(
        cls, weighted: Histogram, unweighted: Histogram, integral: float, shades: Sequence[Shade] = ()
    ) -> Comparison:
        """Weighted entries carry f/q; the events share `integral` in proportion to their weights, as do the shades."""
        mean = unweighted.sum_weights / max(unweighted.count, 1)
        scale = integral / mean if mean else integral
        norm = scale / max(unweighted.count, 1) / np.diff(weighted.axis.edges)
        scaled = tuple(Shade(shade.name, norm * shade.low, norm * shade.high) for shade in shades)
        return cls(weighted.axis, *weighted.density(1.0), *unweighted.density(scale), scaled)

    def chi2(self) -> tuple[float, int]:
        """Chi-square between the two shapes and its number of bins that have entries in both."""
        variance = self.weighted_error**2 + self.unweighted_error**2
        used = (variance > 0) & (self.weighted != 0) & (self.unweighted != 0)
        pulls = (self.unweighted - self.weighted)[used] ** 2 / variance[used]
        return float(pulls.sum()), int(used.sum())
