"""The two kinds of showers, voxels and points: how each is read, held, written and judged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.calo.data.batches import ShowerSource, source
from nisampler.calo.data.joined import JoinedPoints, JoinedReader, Paths
from nisampler.calo.data.point_batches import point_source
from nisampler.calo.data.point_files import PointWriter
from nisampler.calo.data.points import ENERGY as POINT_ENERGY
from nisampler.calo.data.points import LAYER, PointShowers
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometry import Floats, Geometry

AnyShowers = Showers | PointShowers


class Writer(Protocol):
    """What a file is written by, see `ShowerWriter`.

    >>> Writer.__name__
    'Writer'
    """

    def append(self, showers: Any) -> None:
        """Add showers at the end."""
        ...


@dataclass(frozen=True)
class DataKind:
    """How showers of one kind are handled.

    Attributes
    ----------
    name
        "voxels" or "points".
    reader, writer
        From paths or a path, and a geometry, to what reads files or writes one, for a ``with`` statement.
    source
        As `nisampler.calo.data.batches.source`.
    made
        From a geometry, incident energies (n,), what a model has drawn, and conditions (n, k), to showers.
    malformed
        Which of what a model has drawn for a number of layers no calorimeter could hold, (n,).
    filled, filling
        From showers and their geometry to a mean that says how full they are, and its name.

    Examples
    --------
    >>> VOXELS.filling, POINTS.filling
    ('occupancy', 'points a shower')
    """

    name: str
    reader: Callable[[Paths, Geometry], Any]
    writer: Callable[[str | Path, Geometry], AbstractContextManager[Writer]]
    source: Callable[[Paths, Geometry, NDArray[np.int64], torch.device | str, float], ShowerSource]
    made: Callable[[Geometry, Floats, NDArray[np.float32], Floats], AnyShowers]
    malformed: Callable[[NDArray[np.float32], Geometry], NDArray[np.bool_]]
    filled: Callable[[Any, Geometry], float]
    filling: str


def _showers(geometry: Geometry, incident: Floats, voxels: NDArray[np.float32], conditions: Floats) -> Showers:
    """Showers of voxels (n, V), which are cut in place at the thresholds of the layers."""
    geometry.suppress(voxels)
    return Showers(incident, voxels, conditions)


def _clouds(geometry: Geometry, incident: Floats, points: NDArray[np.float32], conditions: Floats) -> PointShowers:
    return PointShowers.unpadded(incident, points, conditions)


def _occupancy(showers: Showers, geometry: Geometry) -> float:
    return float(np.count_nonzero(showers.voxels > geometry.threshold)) / len(showers) / geometry.n_voxels


def _bad_voxels(voxels: NDArray[np.float32], geometry: Geometry) -> NDArray[np.bool_]:
    """Which showers (n, n_voxels) are not finite or have negative voxels."""
    good: NDArray[np.bool_] = np.all((voxels >= 0.0) & (voxels < np.inf), axis=1)
    return ~good


def _bad_points(points: NDArray[np.float32], geometry: Geometry) -> NDArray[np.bool_]:
    """Which clouds (n, P, 4) are not finite, or have negative energies or points in no layer."""
    layer = points[:, :, LAYER]
    good: NDArray[np.bool_] = np.isfinite(points).all(axis=2) & (points[:, :, POINT_ENERGY] >= 0.0)
    good &= (layer >= 0) & (layer < geometry.n_layers)
    return np.logical_not(good.all(axis=1))


VOXELS = DataKind(
    "voxels", JoinedReader, ShowerWriter, source, _showers, _bad_voxels, _occupancy, "occupancy"
)  # fmt: skip
"""Energies of the cells of a geometry."""
POINTS = DataKind(
    "points", JoinedPoints, PointWriter, point_source, _clouds, _bad_points,
    lambda clouds, geometry: len(clouds.points) / len(clouds), "points a shower",
)  # fmt: skip
"""Clouds of points."""
