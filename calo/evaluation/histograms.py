"""Histograms that can be filled in pieces, and how far two of them are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from nisampler.errors import ShowerDataError
from nisampler.ui.histograms import Floats, Histogram


class Counts(Histogram):
    """How many values lie in each bin of an axis, below it and above it; all of them must be numbers.

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis
    >>> counts = Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0])))
    >>> counts.fill([0.5, 0.7, 1.5, 3.0])
    >>> counts.shares, counts.outside
    (array([0.66666667, 0.33333333]), 0.25)
    """

    def fill(self, values: Any, weights: None = None) -> None:
        """Add values of any shape.

        Raises
        ------
        ShowerDataError
            If one is NaN.
        """
        missing = int(np.isnan(values).sum())
        if missing:
            raise ShowerDataError(f"{self.axis.name}: {missing} of {np.size(values)} values are NaN")
        super().fill(values)

    @property
    def total(self) -> int:
        """Number of values, inside and outside."""
        return int(self.inside.sum()) + self.under + self.over

    @property
    def shares(self) -> Floats:
        """(b,) normalised to 1 inside the range; zeros without any value there."""
        shares: Floats = self.inside / max(float(self.inside.sum()), 1.0)
        return shares

    def density(self, scale: float = 1.0) -> tuple[Floats, Floats]:
        """(b,) per unit of the axis (per unit of log10 on a logarithmic one), and its statistical error."""
        edges = np.log10(self.axis.edges) if self.axis.log else self.axis.edges
        norm = scale / np.diff(edges) / max(self.total, 1)
        return self.inside * norm, np.sqrt(self.inside) * norm


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

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis
    >>> counts = Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0])))
    >>> counts.fill([0.5, 1.5])
    >>> Difference.between(counts, counts)
    Difference(separation=0.0, chi2=0.0, degrees=1, outside=(0.0, 0.0))
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

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis
    >>> first, second = (Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0]))) for _ in range(2))
    >>> first.fill([0.5])
    >>> second.fill([1.5])
    >>> separation(first, second)
    1.0
    """
    first.same_bins(second)
    if not (first.inside.any() and second.inside.any()):
        return float(first.inside.any() != second.inside.any())
    h, g = first.shares, second.shares
    filled = h + g > 0
    return 0.5 * float(np.sum((h - g)[filled] ** 2 / (h + g)[filled]))


def chi_square(first: Counts, second: Counts) -> tuple[float, int]:
    r"""Chi-square of two shapes, :math:`\sum_b (\sqrt{M/N}\,n_b - \sqrt{N/M}\,m_b)^2 / (n_b + m_b)`, and its degrees.

    N and M are the sums of the bins n_b and m_b (Gagunashvili, physics/0605123). The degrees of freedom are the
    bins with entries, less one; (0, 0) if a histogram is empty.

    >>> from nisampler.ui.histograms import Axis
    >>> first, second = (Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0]))) for _ in range(2))
    >>> first.fill([0.5, 0.6])
    >>> second.fill([1.5, 1.6])
    >>> chi_square(first, second)
    (4.0, 1)
    """
    n, m = first.inside, second.inside
    if not (n.any() and m.any()):
        return 0.0, 0
    filled = n + m > 0
    ratio = math.sqrt(m.sum() / n.sum())
    pulls = (ratio * n - m / ratio)[filled] ** 2 / (n + m)[filled]
    return float(pulls.sum()), int(filled.sum()) - 1


def wasserstein(reference: Floats, other: Floats) -> tuple[float, float]:
    """Wasserstein-1 distance of two samples in their unit, and over the standard deviation of the reference.

    The second is 0 for a constant reference that the other equals, and counts in the unit itself if it differs.

    >>> wasserstein(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    (1.0, 1.0)
    """
    distance = float(wasserstein_distance(reference, other))
    spread = float(np.std(reference))
    return distance, distance / spread if spread > 0 else distance
