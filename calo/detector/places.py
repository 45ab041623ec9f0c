"""Which cell a place belongs to, and cells cut into finer ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nisampler.base.checks import Count, checked
from nisampler.calo.detector.geometry import Floats, Geometry, Layer

# Squares around listed cells whose centres are looked at, the nearest first.
_NEIGHBOURS = 9


def cells_at(layer: Layer, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """Flat index of the cell of a layer that each place (m,) in mm lies in, -1 beside all of them.

    A cell has its lower edges, the last one of an axis both. A listed cell is the square around its centre; where such
    squares overlap, a place belongs to the nearest centre.

    Examples
    --------
    >>> cells_at(Layer.polar(0, 4, (0, 5, 10)), np.array([-1.0, 0.0, 20.0]), np.array([-1.0, 7.0, 0.0]))
    array([ 0,  7, -1])
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if layer.kind == "cells":
        return _listed(layer, x, y)
    if layer.kind == "rectangular":
        first, second = _bins(layer.first, x), _bins(layer.second, y)
    else:
        low = layer.first[0]
        first = _bins(layer.first, low + np.mod(np.arctan2(y, x) - low, 2 * np.pi))
        second = _bins(layer.second, np.hypot(x, y))
    inside = (first >= 0) & (second >= 0)
    return np.where(inside, first * layer.shape[1] + second, -1)


def _bins(edges: tuple[float, ...], values: Floats) -> NDArray[np.int64]:
    """Bins of the values (m,), -1 beside them; a rounding beyond a whole turn stays in the last one."""
    last = len(edges) - 2
    found = np.searchsorted(edges, values, side="right") - 1
    found = np.where((found == last + 1) & (values <= edges[-1] * (1 + 1e-12)), last, found)
    return np.where((found >= 0) & (found <= last), found, -1)


def _listed(layer: Layer, x: Floats, y: Floats) -> NDArray[np.int64]:
    """The same for listed cells."""
    centres, halves = np.column_stack(layer.centres()), 0.5 * np.asarray(layer.widths)
    places = np.column_stack([x, y])
    found = np.full(len(places), -1, dtype=np.int64)
    if not len(places):
        return found
    count = min(_NEIGHBOURS, len(centres))
    _, near = cKDTree(centres).query(places, k=count, p=np.inf)
    near = near.reshape(len(places), count)
    for column in near.T[::-1]:
        distance = np.abs(places - centres[column]).max(axis=1)
        found = np.where(distance <= halves[column], column, found)
    return found


def finer(geometry: Geometry, times: int) -> Geometry:
    """The same calorimeter with every cell cut so many times along both axes, and no thresholds.

    Parameters
    ----------
    geometry
        Whose cells are cut; turns that map its cells on each other do so with the finer ones.
    times
        Parts of a side.

    Raises
    ------
    ConfigError
        If the number is not positive.
    GeometryError
        If there are too many cells then.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> geometry("toy").n_voxels, finer(geometry("toy"), 3).n_voxels
    (240, 2160)
    """
    checked("times", times, Count)
    layers = tuple(_cut(layer, times) for layer in geometry.layers)
    return replace(geometry, layers=layers, threshold=0.0, thresholds=())


def _cut(layer: Layer, times: int) -> Layer:
    if layer.kind == "cells":
        widths = np.repeat(np.asarray(layer.widths) / times, times * times)
        steps = np.arange(times) - 0.5 * (times - 1)
        dx, dy = np.repeat(steps, times), np.tile(steps, times)
        x, y = (np.repeat(centre, times * times) for centre in layer.centres())
        parts = (x + np.tile(dx, layer.n_voxels) * widths, y + np.tile(dy, layer.n_voxels) * widths, widths)
        return Layer(layer.id, "cells", *(tuple(part.tolist()) for part in parts))
    return replace(layer, first=_between(layer.first, times), second=_between(layer.second, times))


def _between(edges: tuple[float, ...], times: int) -> tuple[float, ...]:
    """The edges with `times` - 1 equidistant ones between each pair."""
    wide = np.asarray(edges)
    inner = wide[:-1, None] + np.diff(wide)[:, None] * np.arange(times) / times
    return (*inner.ravel().tolist(), edges[-1])


def places_in(layer: Layer, cells: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Random places x and y (m,) in mm in these cells of a layer, uniform in their area.

    Examples
    --------
    >>> layer = Layer.polar(0, 4, (0, 5, 10))
    >>> cells_at(layer, *places_in(layer, np.arange(8), np.random.default_rng(1)))
    array([0, 1, 2, 3, 4, 5, 6, 7])
    """
    u, v = rng.random((2, len(cells)))
    if layer.kind == "cells":
        (x, y), width = layer.centres(), np.asarray(layer.widths)[cells]
        return x[cells] + (u - 0.5) * width, y[cells] + (v - 0.5) * width
    slow, fast = np.divmod(cells, layer.shape[1])
    first, second = np.asarray(layer.first), np.asarray(layer.second)
    a = first[slow] + u * (first[slow + 1] - first[slow])
    if layer.kind == "rectangular":
        return a, second[fast] + v * (second[fast + 1] - second[fast])
    square = second**2
    r = np.sqrt(square[fast] + v * (square[fast + 1] - square[fast]))
    return r * np.cos(a), r * np.sin(a)
