"""What particles that cross active layers leave there: a smooth law, or one with a sharp edge at a single crossing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Moyal's law (Phil. Mag. 46 (1955) 263) rises within a few times this width, relative to the most probable energy.
_WIDTH = 0.06
_MOYAL_MEAN = np.euler_gamma + np.log(2.0)
_LONGEST = 8.0  # paths, in the thickness of the slab
_SINGLY = 32  # more crossings than that are drawn as one Gamma variable: their peaks have merged


@dataclass(frozen=True)
class Crossings:
    """The law of the crossings of one layer.

    With the most probable energy `mip` of a straight crossing the others have longer paths: a straight crossing leaves
    mip (1 + w M), with M of Moyal's law, which rises within a tenth of mip and has a long upper tail. A share of the
    crossings comes from all sides: paths longer than l are as frequent as 1/l², up to eight times the slab. That share
    follows from the mean.

    Parameters
    ----------
    mean
        Mean energy of one crossing, MeV.
    shape
        Of the Gamma law of one crossing.
    mip
        0 for the Gamma law.

    Examples
    --------
    >>> law = Crossings.of(6.0, 3.2, 1.0)
    >>> energies = law.sums(np.ones(5000, dtype=np.int64), np.random.default_rng(0))
    >>> bool(energies.min() > 2.5), round(float(np.median(energies)))
    (True, 5)
    """

    mean: float
    shape: float
    mip: float = 0.0

    @classmethod
    def of(cls, mean: float, mip: float, shape: float) -> Crossings:
        """Crossings of that mean, or of the nearest one that straight or inclined ones can have.

        `shape` is that of the Gamma law where `mip` is 0.
        """
        if not mip:
            return cls(mean, shape)
        straight = mip * (1.0 + _WIDTH * _MOYAL_MEAN)
        mean = min(max(mean, straight), straight * _path(1))
        inclined = (mean / straight - 1.0) / (_path(1) - 1.0)
        square = 1.0 + (_WIDTH * np.pi) ** 2 / 2.0 / (1.0 + _WIDTH * _MOYAL_MEAN) ** 2
        paths = 1.0 - inclined + inclined * _path(2)
        variance = square * paths * (straight / mean) ** 2 - 1.0
        return cls(mean, 1.0 / variance, mip)

    def sums(self, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Energies (n,) in MeV of so many crossings each, (n,)."""
        if not self.mip:
            return self._smooth(counts, rng)
        energies = np.zeros(len(counts), dtype=np.float32)
        many = counts > _SINGLY
        energies[many] = self._smooth(counts[many], rng)
        few = np.flatnonzero(~many & (counts > 0))
        owners = np.repeat(few, counts[few])
        energies += np.bincount(owners, self._single(len(owners), rng), len(counts)).astype(np.float32)
        return energies

    def _smooth(self, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        shapes = (self.shape * counts).astype(np.float32)
        return np.float32(self.mean / self.shape) * rng.standard_gamma(shapes, dtype=np.float32)

    def _single(self, n: int, rng: np.random.Generator) -> Floats:
        """Energies (n,) of single crossings."""
        straight = self.mip * (1.0 + _WIDTH * _MOYAL_MEAN)
        inclined = (self.mean / straight - 1.0) / (_path(1) - 1.0)
        moyal = -2.0 * np.log(np.abs(rng.standard_normal(n)) + 1e-12)
        least = _LONGEST**-2.0
        paths = (1.0 - (1.0 - least) * rng.random(n)) ** -0.5
        paths = np.where(rng.random(n) < inclined, paths, 1.0)
        energies: Floats = self.mip * (1.0 + _WIDTH * moyal) * paths
        return np.maximum(energies, 0.0)


def _path(power: int) -> float:
    """Mean of the first or the second power of the paths that come from all sides."""
    norm = 1.0 - _LONGEST**-2.0
    return float(2.0 * (1.0 - 1.0 / _LONGEST) / norm if power == 1 else 2.0 * np.log(_LONGEST) / norm)
