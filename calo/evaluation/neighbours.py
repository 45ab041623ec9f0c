"""The closest reference shower of a generated one: is it a copy?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.errors import ShapeError

Floats = NDArray[np.float64]

_SMALLEST = 1e-3
"""MeV that stand for an empty cell if the geometry has no threshold."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of a shower and its nearest reference shower.

    Attributes
    ----------
    index
        (m,) position of the nearest reference shower.
    distance
        (m,) root mean square over the cells of the difference of log10 E.

    Examples
    --------
    >>> Neighbours(np.array([3]), np.array([0.5])).distance.min().item()
    0.5
    """

    index: NDArray[np.int64]
    distance: Floats


def nearest(showers: Showers, reference: Showers, geometry: Geometry, pool: int = 200) -> Neighbours:
    """The nearest reference shower in log10 of the cell energies, among those of the same incident energy.

    Parameters
    ----------
    showers
        m of them.
    reference
        Where neighbours are looked for.
    geometry
        Of both. Cells below its threshold count as cells at the threshold.
    pool
        How many reference showers, those closest in incident energy, are looked at for each shower. If more than
        that have exactly its energy, all of those are.

    Raises
    ------
    ShapeError
        If the reference is empty or has other cells.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.array([1e3, 2e3]), np.random.default_rng(0).random((2, 240)).astype(np.float32))
    >>> nearest(showers, showers, geometry("toy")).distance
    array([0., 0.])
    """
    geometry.check(showers.voxels)
    geometry.check(reference.voxels)
    if not len(reference):
        raise ShapeError("there is no reference shower to be a neighbour")
    order = np.argsort(reference.incident, kind="stable")
    energies = reference.incident[order]
    index, distance = np.empty(len(showers), dtype=np.int64), np.empty(len(showers))
    for i in range(len(showers)):
        near = order[_window(energies, float(showers.incident[i]), pool)]
        difference = _logarithm(reference.voxels[near], geometry) - _logarithm(showers.voxels[i], geometry)
        squares = np.einsum("ij,ij->i", difference, difference) / geometry.n_voxels
        best = int(np.argmin(squares))
        index[i], distance[i] = near[best], np.sqrt(squares[best])
    return Neighbours(index, distance)


def _window(energies: Floats, energy: float, pool: int) -> slice:
    """The part of sorted energies that is closest to one, of `pool` elements or all that equal it."""
    first, last = (int(np.searchsorted(energies, energy, side)) for side in ("left", "right"))
    if last - first >= pool:
        return slice(first, last)
    start = min(max(0, (first + last - pool) // 2), max(0, len(energies) - pool))
    return slice(start, start + pool)


def _logarithm(voxels: NDArray[np.float32], geometry: Geometry) -> Floats:
    return np.log10(np.maximum(voxels, geometry.threshold or _SMALLEST), dtype=np.float64)
