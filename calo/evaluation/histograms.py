"""Histograms that can be filled in pieces, and how far two of them are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from nisampler.errors import ShapeError, ShowerDataError
from nisampler.ui.distributions import Axis

Floats = NDArray[np.float64]


class Counts:
    """How many values lie in each bin of an axis, below it and above it.

    Bins are closed below and open above, the last one closed at both ends.

    Parameters
    ----------
    axis
        The bins.
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.inside = np.zeros(len(axis.edges) - 1, dtype=np.int64)
        self.under = 0
        self.over = 0

    def fill(self, values: NDArray[np.floating]) -> None:
        """Add values of any shape.

        Raises
        ------
        ShowerDataError
            If one is NaN.
        """
        flat = np.ravel(values)
        if np.isnan(flat).any():
            raise ShowerDataError(f"{self.axis.name}: {int(np.isnan(flat).sum())} of {flat.size} values are NaN")
        edges = self.axis.edges
        place = np.searchsorted(edges, flat, side="right")
        place[flat == edges[-1]] = len(edges) - 1
        found = np.bincount(place, minlength=len(edges) + 1)
        self.under += int(found[0])
        self.inside += found[1:-1]
        self.over += int(found[-1])

    def merge(self, other: Counts) -> None:
        """Add the counts of another piece.

        Raises
        ------
        ShapeError
            If its bins are different.
        """
        if not np.array_equal(self.axis.edges, other.axis.edges):
            raise ShapeError(f"histograms of {self.axis.name} have different bins and cannot be merged")
        self.inside += other.inside
        self.under += other.under
        self.over += other.over

    @property
    def total(self) -> int:
        """Number of values, inside and outside."""
        return int(self.inside.sum()) + self.under + self.over

    @property
    def outside(self) -> float:
        """Share of the values that no bin holds."""
        return (self.under + self.over) / self.total if self.total else 0.0

    @property
    def shares(self) -> Floats:
        """(b,) normalised to 1 inside the range; zeros without any value there."""
        return self.inside / max(int(self.inside.sum()), 1)

    def density(self) -> tuple[Floats, Floats]:
        """(b,) per unit of the axis (per unit of log10 on a logarithmic one), and its statistical error."""
        edges = np.log10(self.axis.edges) if self.axis.log else self.axis.edges
        scale = 1.0 / np.diff(edges) / max(self.total, 1)
        return self.inside * scale, np.sqrt(self.inside) * scale


@dataclass(frozen=True)
class Difference:
    """How far two histograms are apart.

    Attributes
    ----------
    separation
        `separation`, in [0, 1].
    chi2, degrees
        Chi-square between the two shapes and its degrees of freedom.
    outside
        Share of the values outside the range: of the reference, of the other.
    """

    separation: float
    chi2: float
    degrees: int
    outside: tuple[float, float]

    @classmethod
    def between(cls, reference: Counts, other: Counts) -> Difference:
        """All of them."""
        chi2, degrees = chi_square(reference, other)
        return cls(separation(reference, other), chi2, degrees, (reference.outside, other.outside))


def separation(first: Counts, second: Counts) -> float:
    r"""Separation power :math:`S = \frac12 \sum_b (h_b - h'_b)^2 / (h_b + h'_b)` (CaloChallenge, 2410.21611).

    Both histograms are normalised to 1 inside the range: 0 for equal shapes, 1 without overlap. What lies outside
    is invisible to it, look at `Counts.outside` too. It is 1 if only one of them has entries in the range, 0 if none.

    Raises
    ------
    ShapeError
        If the bins are different.
    """
    if not np.array_equal(first.axis.edges, second.axis.edges):
        raise ShapeError(f"histograms of {first.axis.name} have different bins and cannot be compared")
    if not (first.inside.any() and second.inside.any()):
        return float(first.inside.any() != second.inside.any())
    h, g = first.shares, second.shares
    filled = h + g > 0
    return 0.5 * float(np.sum((h - g)[filled] ** 2 / (h + g)[filled]))


def chi_square(first: Counts, second: Counts) -> tuple[float, int]:
    r"""Chi-square of two shapes, :math:`\sum_b (\sqrt{M/N}\,n_b - \sqrt{N/M}\,m_b)^2 / (n_b + m_b)`, and its degrees.

    N and M are the sums of the bins n_b and m_b (Gagunashvili, physics/0605123). The degrees of freedom are the
    bins with entries, less one; (0, 0) if a histogram is empty.
    """
    n, m = first.inside.astype(np.float64), second.inside.astype(np.float64)
    if not (n.any() and m.any()):
        return 0.0, 0
    filled = n + m > 0
    ratio = math.sqrt(m.sum() / n.sum())
    pulls = (ratio * n - m / ratio)[filled] ** 2 / (n + m)[filled]
    return float(pulls.sum()), int(filled.sum()) - 1


def wasserstein(reference: Floats, other: Floats) -> tuple[float, float]:
    """Wasserstein-1 distance of two samples in their unit, and over the standard deviation of the reference.

    The second is 0 for a constant reference that the other equals, and counts in the unit itself if it differs.
    """
    distance = float(wasserstein_distance(reference, other))
    spread = float(np.std(reference))
    return distance, distance / spread if spread > 0 else distance
