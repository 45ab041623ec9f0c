"""Adaptive stratified sampling of the latent cube (Lepage, 2009.05112, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.compat.vegas.options import Options
from nisampler.errors import ConfigError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Points of consecutive strata.

    Attributes
    ----------
    y
        Points of the latent cube (n, dim), those of one stratum together.
    share
        What each point stands for, (n,): the volume of its stratum over the number of its points.
    stratum, counts
        Number of the stratum of each point (n,), and points of each stratum (m,).

    Examples
    --------
    >>> batch = next(Strata(Options(neval=32), 2).batches(np.random.default_rng(1).random))
    >>> float(batch.share.sum()), batch.y.shape == (len(batch.stratum), 2)
    (1.0, True)
    """

    y: Array
    share: Array
    stratum: Whole
    counts: Whole

    def sums(self, values: Array) -> tuple[Array, Array, Array]:
        """Integral (k,), its covariance (k, k), and the variance (m,) of the first integral in each stratum.

        From values (n, k) of the integrands at the points, as functions of y.
        """
        parts = values * self.share[:, None]
        first = np.cumsum(self.counts) - self.counts
        totals = np.add.reduceat(parts, first)
        spread = parts - np.repeat(totals / self.counts[:, None], self.counts, axis=0)
        factor = self.counts / (self.counts - 1.0)
        weighted = spread * np.repeat(factor, self.counts)[:, None]
        return totals.sum(0), weighted.T @ spread, np.add.reduceat(weighted[:, 0] * spread[:, 0], first)


class Strata:
    """Equal boxes that fill the latent cube, and what is known of the integrand in each of them.

    Of the points that are not moved each box gets the same number, at least two; the others go where sigma^beta is
    large.

    Parameters
    ----------
    options
        How many points, and how freely they move.
    dim
        Number of axes.

    Raises
    ------
    ConfigError
        If `nstrat` has another number of axes, or needs more than `neval` points.

    Examples
    --------
    >>> strata = Strata(Options(neval=1000), 4)
    >>> strata.nstrat.tolist(), strata.count, strata.least
    ([4, 3, 3, 3], 108, 2)
    """

    def __init__(self, options: Options, dim: int) -> None:
        self.nstrat = _given(options, dim) if options.nstrat else _even(options, dim)
        self.count = int(self.nstrat.prod())
        self.least = (
            max(2, int((1.0 - options.moved) * options.neval / self.count)) if self.count > 1 else options.neval
        )
        self.moves = options.moved > 0.0 and self.count > 1
        self.sigma = np.ones(self.count)
        self.options = options

    def counts(self) -> Whole:
        """Points of each stratum in the next iteration (count,)."""
        options = self.options
        if not self.moves:
            return np.full(self.count, max(2, options.neval // self.count), dtype=np.int64)
        moved = np.floor(self.sigma * (options.neval_frac * options.neval / self.sigma.sum())).astype(np.int64)
        most = max(options.max_neval_hcube, self.least)
        return np.asarray(np.minimum(moved + self.least, most))

    def batches(self, random: Callable[[tuple[int, int]], Array]) -> Iterator[Batch]:
        """The points of an iteration, from a source of uniform numbers."""
        counts = self.counts()
        ends, start, dim = np.cumsum(counts), 0, len(self.nstrat)
        while start < self.count:
            before = ends[start - 1] if start else 0
            stop = 1 + int(np.searchsorted(ends, min(before + self.options.min_neval_batch, ends[-1])))
            own = counts[start:stop]
            stratum = np.repeat(np.arange(start, stop), own)
            place = np.stack(np.unravel_index(stratum, self.nstrat, order="F"), 1)
            y = (place + np.asarray(random((len(stratum), dim)))) / self.nstrat
            yield Batch(y, 1.0 / (self.count * np.repeat(own, own)), stratum, own)
            start = stop

    def learn(self, variances: Array) -> None:
        """Take the variances of the strata (count,) of an iteration, for the next one."""
        if self.moves:
            sigma = np.maximum(variances, 0.0) ** (self.options.beta / 2.0)
            self.sigma = sigma if sigma.sum() > 0.0 else np.ones(self.count)


def _even(options: Options, dim: int) -> Whole:
    """As many strata as leave two points in each, with one more along the first axes."""
    most = max(1.0, (1.0 - options.moved) * options.neval / 2.0)
    low = max(1, math.floor(most ** (1.0 / dim) + 1e-12))
    more = 0 if options.uniform_nstrat else math.floor(math.log(most / low**dim) / math.log(1.0 + 1.0 / low) + 1e-12)
    return np.array([low + 1] * more + [low] * (dim - more))


def _given(options: Options, dim: int) -> Whole:
    nstrat = np.array(options.nstrat, dtype=np.int64)
    least = int(2.0 * nstrat.prod(dtype=float) / (1.0 - options.moved))
    if len(nstrat) != dim:
        raise ConfigError(f"nstrat has {len(nstrat)} numbers, one is needed for each of {dim} axes")
    if options.neval < least:
        raise ConfigError(f"neval = {options.neval}: {nstrat.prod()} strata need at least {least} evaluations")
    return nstrat
