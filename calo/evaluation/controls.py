"""Deliberately wrong showers, which a metric has to recognise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nisampler.base.checks import Several, checked
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Floats, Geometry


def shuffle_voxels(
    showers: Showers, geometry: Geometry, rng: np.random.Generator, neighbours: int | None = 50
) -> Showers:
    """Every voxel shuffled by itself over showers: its spectrum stays as it is, correlations are lost.

    Parameters
    ----------
    showers
        Taken as they are; incident energies keep their places.
    geometry
        Their cells.
    rng
        Of the permutations.
    neighbours
        Values move only among showers of the same incident energy where each has so many, else among at least so many
        of about the same, so that the spectra at a given energy stay too; None shuffles over all showers.

    Raises
    ------
    ConfigError
        If there are fewer than two neighbours.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.full(4, 1e3), np.arange(960.0, dtype=np.float32).reshape(4, 240))
    >>> mixed = shuffle_voxels(showers, geometry("toy"), np.random.default_rng(0), neighbours=None)
    >>> bool((np.sort(mixed.voxels, axis=0) == showers.voxels).all())
    True
    """
    geometry.check(showers.voxels)
    n = len(showers)
    checked("neighbours", neighbours, Several | None)
    ties = rng.random(n)
    order = np.lexsort((ties, showers.incident))
    group = _groups(showers.incident[order], neighbours)[:, None]
    voxels = np.empty_like(showers.voxels)
    for layer in range(geometry.n_layers):
        cells = geometry.slice(layer)
        keys = group + rng.random((n, cells.stop - cells.start))
        voxels[order, cells] = np.take_along_axis(showers.voxels[order, cells], np.argsort(keys, axis=0), axis=0)
    return Showers(showers.incident, voxels, showers.conditions)


def _groups(energies: Floats, neighbours: int | None) -> NDArray[np.int64]:
    """Numbers of the groups of sorted incident energies among which values move."""
    n = len(energies)
    if neighbours is None:
        return np.zeros(n, dtype=np.int64)
    values, place = np.unique(energies, return_inverse=True)
    if len(values) * neighbours <= n:
        return place
    return np.arange(n) * max(1, n // neighbours) // max(n, 1)
