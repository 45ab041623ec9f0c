"""Histograms of weighted values that are filled in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import ShapeError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """What is histogrammed: its name, its label in mathtext, its bin edges (b + 1,).

    Examples
    --------
    >>> Axis("e", "$E$ [GeV]", np.array([1.0, 100.0]), log=True).centres.round(9)
    array([10.])
    """

    name: str
    label: str
    edges: Floats
    log: bool = False

    @property
    def centres(self) -> Floats:
        """(b,) the middles of the bins, geometric ones on a logarithmic axis."""
        low, high = self.edges[:-1], self.edges[1:]
        return np.sqrt(low * high) if self.log else 0.5 * (low + high)

    def bins(self, values: Any) -> NDArray[np.int64]:
        """The bin (n,) of each value, from 1 to b; 0 below the range, b + 1 above it.

        Bins are closed below and open above, the last one closed at both ends.
        """
        flat = np.ravel(values)
        place = np.searchsorted(self.edges, flat, side="right")
        place[flat == self.edges[-1]] = len(self.edges) - 1
        return place


class Histogram:
    """Sums of weights and of their squares in the bins of an axis.

    Bins are closed below and open above, the last one closed at both ends. A value that is not a number counts as one
    above the range.

    Parameters
    ----------
    axis
        The bins.

    Attributes
    ----------
    inside, squares
        (b,) sums of the weights and of their squares.
    under, over, count
        Values below the range and above it, and all of them.
    sum_weights
        Of all values.

    Examples
    --------
    >>> histogram = Histogram(Axis("x", "$x$", np.array([0.0, 0.5, 1.0])))
    >>> histogram.fill([0.1, 0.2, 0.7, 2.0], [1.0, 3.0, 2.0, 2.0])
    >>> histogram.inside, histogram.over
    (array([4., 2.]), 1)
    >>> histogram.density()[0]
    array([2., 1.])
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.inside = np.zeros(len(axis.edges) - 1)
        self.squares = np.zeros(len(axis.edges) - 1)
        self.under = self.over = self.count = 0
        self.sum_weights = 0.0

    def fill(self, values: Any, weights: Any = None) -> None:
        """Add values of any shape with their weights, 1 by default."""
        edges, place = self.axis.edges, self.axis.bins(values)
        found = np.bincount(place, minlength=len(edges) + 1)
        self.under += int(found[0])
        self.over += int(found[-1])
        self.count += place.size
        w = None if weights is None else np.asarray(weights, dtype=np.float64).ravel()
        sums: Any = found if w is None else np.bincount(place, w, minlength=len(edges) + 1)
        squares: Any = found if w is None else np.bincount(place, w**2, minlength=len(edges) + 1)
        self.inside += sums[1:-1]
        self.squares += squares[1:-1]
        self.sum_weights += float(sums.sum())

    def merge(self, other: Histogram) -> None:
        """Add what another piece holds.

        Raises
        ------
        ShapeError
            If its bins are different.
        """
        self.same_bins(other)
        for name in ("inside", "squares", "under", "over", "count", "sum_weights"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def same_bins(self, other: Histogram) -> None:
        """Refuse a histogram with other bins.

        Raises
        ------
        ShapeError
            If its bins are different.
        """
        if not np.array_equal(self.axis.edges, other.axis.edges):
            raise ShapeError(f"histograms of {self.axis.name} have different bins: fill them with one axis")

    @property
    def outside(self) -> float:
        """Share of the values that no bin holds."""
        return (self.under + self.over) / self.count if self.count else 0.0

    def density(self, scale: float = 1.0) -> tuple[Floats, Floats]:
        r"""(b,) density of the mean weight times `scale`, and its statistical error.

        The error of a bin that holds :math:`\sum w` is :math:`\sqrt{\sum w^2 - (\sum w)^2 / n}`.
        """
        n = max(self.count, 1)
        norm = scale / n / np.diff(self.axis.edges)
        spread = np.clip(self.squares - self.inside**2 / n, 0.0, None)
        return self.inside * norm, np.sqrt(spread) * abs(norm)
