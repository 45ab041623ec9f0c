"""Distances between two sets of feature vectors: Fréchet and kernel physics distance, precision and recall.

The features are the high-level ones of the CaloChallenge; the estimators are those of 2211.10295 with the settings
of the challenge (2410.21611). Rows are showers, columns are features, everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import nnls

from nisampler.base.checks import Count, Several, Whole, checked, settings
from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, ShapeError, ShowerDataError

Floats = NDArray[np.float64]
_SIGMA = (16.275, 83.725)  # percentiles between which the challenge takes the spread of the kernel distance
_CHUNK = 2000
_FEWEST = 20


@settings
class DistanceConfig:
    """Settings of the Fréchet and the kernel distance; the defaults are those of the CaloChallenge.

    Parameters
    ----------
    smallest, largest, points
        Sizes of the samples for the Fréchet distance, evenly spaced in 1/size.
    resamples
        Samples with replacement at each size.
    batches, batch
        Number and size of the batches of the kernel distance.
    normalise
        Divide each feature by its largest absolute value in the reference.

    Raises
    ------
    ConfigError
        If a number is too small to estimate anything.

    Examples
    --------
    >>> DistanceConfig().fitted_to(1000).largest
    1000
    """

    smallest: Several = 10_000
    largest: Several = 50_000
    points: Several = 10
    resamples: Count = 20
    batches: Count = 10
    batch: Several = 10_000
    normalise: bool = True

    def __post_init__(self) -> None:
        if not self.smallest < self.largest:
            raise ConfigError(f"the sizes of the samples must grow, got {self.smallest} and {self.largest}")

    def fitted_to(self, n: int) -> DistanceConfig:
        """The same for `n` showers: no sample larger than n, no batch above n/2, so that batches differ.

        Raises
        ------
        ConfigError
            If there are fewer than 20 showers.
        """
        checked("showers of each kind", n, Annotated[Whole, Field(ge=_FEWEST)])
        largest = min(self.largest, n)
        smallest = min(self.smallest, max(2, largest // 5))
        return replace(self, smallest=smallest, largest=largest, batch=min(self.batch, n // 2))


@dataclass(frozen=True)
class Distance:
    """A distance with its error, and the settings that were really used.

    Attributes
    ----------
    value, error
        The challenge quotes both times 1000.
    n_reference, n_generated
        Showers at hand.
    settings
        Of the estimator; smaller than the challenge's where showers are fewer.

    Examples
    --------
    >>> Distance(0.01, 0.001, 100, 100, DistanceConfig()).as_dict()["value"]
    0.01
    """

    value: float
    error: float
    n_reference: int
    n_generated: int
    settings: DistanceConfig

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


def _checked(reference: NDArray[Any], generated: NDArray[Any]) -> tuple[Floats, Floats]:
    """Both tables as float64, with the same columns and finite."""
    real, fake = (np.asarray(table, dtype=np.float64) for table in (reference, generated))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or 0 in real.shape + fake.shape:
        raise ShapeError(
            f"expected two tables of showers (n, d) and (m, d) with the same columns, got {real.shape} and {fake.shape}"
        )
    for name, table in (("reference", real), ("generated", fake)):
        bad = ~np.isfinite(table)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ShowerDataError(
                f"{int(bad.sum())} numbers of the {name} showers are not finite, the first one in column {column} of "
                f"shower {row}: check the energies of that shower"
            )
    return real, fake


def _prepared(
    reference: NDArray[Any], generated: NDArray[Any], config: DistanceConfig | None
) -> tuple[Floats, Floats, DistanceConfig]:
    """Both tables, checked and normalised, and the settings that fit their sizes."""
    real, fake = _checked(reference, generated)
    settings = (config or DistanceConfig()).fitted_to(min(len(real), len(fake)))
    if settings.normalise:
        scale = np.abs(real).max(axis=0)
        scale[scale == 0.0] = 1.0
        real, fake = real / scale, fake / scale
    return real, fake, settings


def frechet_distance(mean1: Floats, covariance1: Floats, mean2: Floats, covariance2: Floats) -> float:
    r"""Squared 2-Wasserstein distance of two Gaussians.

    :math:`|\mu_1-\mu_2|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1^{1/2}\Sigma_2\Sigma_1^{1/2})^{1/2})`, with
    symmetric roots, which exist for singular covariances too.

    Parameters
    ----------
    mean1, mean2
        Shape (d,).
    covariance1, covariance2
        Shape (d, d), symmetric and positive semi-definite.

    Examples
    --------
    >>> float(frechet_distance(np.zeros(1), np.eye(1), np.ones(1), np.eye(1)))
    1.0
    """
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariance2 @ root), 0.0, None)).sum()
    return float(((mean1 - mean2) ** 2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2.0 * cross)


def _sample_moments(table: Floats, n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Mean (d,) and covariance (d, d) of n rows drawn with replacement."""
    sample = table[rng.integers(len(table), size=n)]
    return sample.mean(axis=0), np.atleast_2d(np.cov(sample, rowvar=False))


def _intercept(sizes: Floats, values: Floats) -> tuple[float, float]:
    """Non-negative intercept and slope of a line in 1/size by least squares; the intercept and its error."""
    design = np.stack([np.ones_like(sizes), 1.0 / sizes], axis=1)
    scale = np.abs(design).max(axis=0)
    solution, residual = nnls(design / scale, values)
    inverse = np.linalg.inv((design / scale).T @ (design / scale))
    variance = residual**2 / max(1, len(sizes) - 2) * inverse[0, 0]
    return float(solution[0]), math.sqrt(variance)


def fpd(
    reference: NDArray[Any], generated: NDArray[Any], seed: int = 0, config: DistanceConfig | None = None
) -> Distance:
    r"""Fréchet physics distance, extrapolated to infinitely many showers (2211.10295).

    The Fréchet distance of samples of N showers has a bias :math:`\propto 1/N`; its mean over resamples is fitted by
    a line in 1/N, whose intercept, not below zero, is the result.

    Parameters
    ----------
    reference, generated
        Features (n, d) and (m, d).
    seed
        Of the resamples.
    config
        Default: the challenge's settings.

    Raises
    ------
    ShapeError, ShowerDataError, ConfigError
        If the tables do not match, hold numbers that are not finite, or fewer than 20 rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> near, far = (fpd(rng.normal(size=(100, 2)), rng.normal(shift, 1, (100, 2))).value for shift in (0.0, 3.0))
    >>> near < far
    True
    """
    real, fake, settings = _prepared(reference, generated, config)
    streams = Streams(seed).child("frechet physics distance")
    sizes = (1.0 / np.linspace(1.0 / settings.smallest, 1.0 / settings.largest, settings.points)).astype(np.int64)
    values = np.zeros(len(sizes))
    for point, size in enumerate(sizes):
        found = []
        for resample in range(settings.resamples):
            rng = streams.numpy("resample", point, resample)
            found.append(
                frechet_distance(*_sample_moments(real, int(size), rng), *_sample_moments(fake, int(size), rng))
            )
        values[point] = np.mean(found)
    value, error = _intercept(sizes.astype(np.float64), values)
    return Distance(value, error, len(real), len(fake), settings)


def _kernel_sum(x: Floats, y: Floats) -> float:
    """Sum of (x.y/d + 1)^4 over all pairs of rows."""
    total = 0.0
    for start in range(0, len(x), _CHUNK):
        squares = np.square(x[start : start + _CHUNK] @ y.T / x.shape[1] + 1.0)
        total += float(np.vdot(squares, squares))
    return total


def polynomial_mmd(x: Floats, y: Floats) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy with the kernel :math:`(x\cdot y/d + 1)^4`.

    :math:`\sum_{i\ne j} k(x_i,x_j)/n(n-1) + \sum_{i\ne j} k(y_i,y_j)/m(m-1) - 2\sum_{ij} k(x_i,y_j)/nm`.

    Parameters
    ----------
    x, y
        Rows drawn independently from the two laws, shapes (n, d) and (m, d), n, m ≥ 2.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> bool(polynomial_mmd(x, x + 5.0) > polynomial_mmd(x, x[::-1]))
    True
    """

    def within(z: Floats) -> float:
        diagonal = float(((np.square(z).sum(axis=1) / z.shape[1] + 1.0) ** 4).sum())
        return (_kernel_sum(z, z) - diagonal) / (len(z) * (len(z) - 1))

    return within(x) + within(y) - 2.0 * _kernel_sum(x, y) / (len(x) * len(y))


def kpd(
    reference: NDArray[Any], generated: NDArray[Any], seed: int = 0, config: DistanceConfig | None = None
) -> Distance:
    """Kernel physics distance: the median of the unbiased squared discrepancy over batches (2211.10295).

    The error is half the range between the 16.275 and the 83.725 percentile. The showers of a batch differ from each
    other; drawing them with replacement would add a bias of the order of one over the number of showers.
    Parameters and errors as for `fpd`.

    >>> rng = np.random.default_rng(0)
    >>> near, far = (kpd(rng.normal(size=(100, 2)), rng.normal(shift, 1, (100, 2))).value for shift in (0.0, 3.0))
    >>> near < far
    True
    """
    real, fake, settings = _prepared(reference, generated, config)
    streams = Streams(seed).child("kernel physics distance")
    values = []
    for batch in range(settings.batches):
        rng = streams.numpy("batch", batch)
        x, y = (table[rng.choice(len(table), settings.batch, replace=False)] for table in (real, fake))
        values.append(polynomial_mmd(x, y))
    low, high = np.percentile(values, _SIGMA)
    return Distance(float(np.median(values)), float(0.5 * (high - low)), len(real), len(fake), settings)


@dataclass(frozen=True)
class NeighbourMetrics:
    """Precision, recall, density and coverage from the k-th nearest neighbours (1904.06991, 2002.09797).

    >>> NeighbourMetrics(0.9, 0.8, 1.0, 0.95, 5, 100, 100).as_dict()["recall"]
    0.8
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    n_reference: int
    n_generated: int

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


def _squared_distances(x: Floats, y: Floats) -> Iterator[tuple[slice, Floats]]:
    """Squared distances of some rows of x from all rows of y, rows after rows."""
    squares = np.square(y).sum(axis=1)
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(x)))
        near = x[rows]
        yield rows, np.maximum(np.square(near).sum(axis=1)[:, None] + squares - 2.0 * near @ y.T, 0.0)


def _squared_radii(x: Floats, k: int) -> Floats:
    """Squared distance of each row from its k-th nearest other row."""
    radii = np.empty(len(x))
    for rows, squares in _squared_distances(x, x):
        squares[np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)] = 0.0
        radii[rows] = np.partition(squares, k, axis=1)[:, k]
    return radii


def neighbour_metrics(reference: NDArray[Any], generated: NDArray[Any], k: int = 5) -> NeighbourMetrics:
    r"""Precision, recall, density and coverage.

    Around each shower lies a ball that reaches to its k-th nearest neighbour of the same sample. Precision: the share
    of generated showers in a ball of the reference; recall: the share of reference showers in a ball of the generated
    ones; density: the mean number of reference balls around a generated shower over k; coverage: the share of
    reference balls with a generated shower inside. The challenge takes log10 of the voxels, empty ones at 0.1 MeV.

    Parameters
    ----------
    reference, generated
        Vectors (n, d) and (m, d); time and memory grow as (n + m)² and n + m.
    k
        The neighbour that sets the radius.

    Raises
    ------
    ShapeError, ShowerDataError, ConfigError
        If the tables do not match, hold numbers that are not finite, or have no k-th neighbour.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> neighbour_metrics(x, x).coverage
    1.0
    """
    real, fake = _checked(reference, generated)
    if not 1 <= k < min(len(real), len(fake)):
        raise ConfigError(f"k must be in [1, {min(len(real), len(fake))}), got {k}")
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    inside, covered = np.zeros(len(fake), dtype=np.int64), np.zeros(len(real), dtype=bool)
    recalled = np.zeros(len(real), dtype=bool)
    for rows, squares in _squared_distances(real, fake):
        within = squares < real_radii[rows, None]
        inside += within.sum(axis=0)
        covered[rows] = within.any(axis=1)
        recalled[rows] = (squares < fake_radii).any(axis=1)
    return NeighbourMetrics(
        float((inside > 0).mean()), float(recalled.mean()), float(inside.mean() / k), float(covered.mean()),
        k, len(real), len(fake),
    )  # fmt: skip
