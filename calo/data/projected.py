"""Showers in cells of a file of either kind: point clouds are projected while they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nisampler.calo.data.files import Indices, ShowerReader
from nisampler.calo.data.point_files import PointReader, holds_points
from nisampler.calo.data.points import project
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry

_BLOCK = 2000


def open_showers(path: str | Path, geometry: Geometry) -> ShowerReader | PointReader:
    """A reader of a file of voxels or of points, for a ``with`` statement.

    Raises
    ------
    NisamplerError
        As `ShowerReader` and `PointReader`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> open_showers("nowhere.h5", geometry("toy"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    return PointReader(path, geometry) if holds_points(path) else ShowerReader(path, geometry)


def in_cells(reader: ShowerReader | PointReader, index: Indices) -> Showers:
    """The showers of increasing numbers in cells.

    Raises
    ------
    NisamplerError
        As the `select` of the reader.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.simulation.points import simulate_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = simulate_points(f"{folder}/a.h5", geometry("toy"), 3, seed=1)
    ...     with open_showers(f"{folder}/a.h5", geometry("toy")) as reader:
    ...         in_cells(reader, np.array([0, 2])).voxels.shape
    (2, 240)
    """
    if isinstance(reader, ShowerReader):
        return reader.select(index)
    blocks = np.split(index, np.arange(_BLOCK, len(index), _BLOCK))
    return Showers.concatenate([project(reader.select(block), reader.geometry).showers for block in blocks])
