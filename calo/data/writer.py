"""Showers in HDF5, written in blocks, so that memory is bounded whatever the size of a file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nisampler._version import __version__
from nisampler.base.hdf5_output import new_hdf5
from nisampler.calo.data.checks import check_incident, check_voxels
from nisampler.calo.data.files import CELLS
from nisampler.calo.data.layouts import columns_of
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry, Layout
from nisampler.errors import ShapeError, ShowerDataError

_CHUNK_BYTES = 1 << 20  # of an HDF5 chunk: a few showers of 40,500 voxels, about a thousand of 240
_CACHE_BYTES = 1 << 24  # holds the chunks that the end of a block left unfinished
_ROWS = 4096


class ShowerWriter:
    """A file of showers that appears complete or not at all.

    Use it in a ``with`` statement: if the block raises, the file that was there stays as it was.

    Parameters
    ----------
    path
        The file to make or replace.
    geometry
        The cells of the showers.
    layout
        Default: that of the geometry.

    Attributes
    ----------
    count
        Showers written so far.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    GeometryError
        If the layout cannot hold the geometry.
    ShowerDataError
        At the end, if no shower was written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.files import read_showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShowerWriter(f"{folder}/a.h5", geometry("toy")) as writer:
    ...         writer.append(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)))
    ...     len(read_showers(f"{folder}/a.h5", geometry("toy")))
    1
    """

    def __init__(self, path: str | Path, geometry: Geometry, layout: Layout | None = None) -> None:
        self.path, self.geometry, self.count = Path(path), geometry, 0
        self._columns = columns_of(geometry, layout)
        with ExitStack() as stack:
            self._output = stack.enter_context(new_hdf5(self.path, rdcc_nbytes=_CACHE_BYTES))
            with self._output.writing():
                self._data = self._make(self._output.file)
            self._stack = stack.pop_all()

    def _make(self, file: Any) -> dict[str, Any]:
        """Empty datasets that can grow, by name."""
        shapes: list[tuple[str, tuple[int, ...], type[np.floating[Any]]]] = [(self._columns.energy, (1,), np.float64)]
        shapes += [(known.name, (1,), np.float64) for known in self.geometry.conditions]
        shapes += [(name, shape, np.float32) for name, _, shape in self._columns.voxels]
        if self._columns.overflow:
            shapes.append(("overflow", (self.geometry.n_layers,), np.float32))
        rows = min(_ROWS, max(1, _CHUNK_BYTES // (4 * self.geometry.n_voxels)))
        file.attrs["generator"] = f"nisampler {__version__}"
        file.attrs["geometry"] = self.geometry.name
        file.attrs[CELLS] = self.geometry.digest
        return {
            name: file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(rows, *shape),
                dtype=dtype,
                compression="gzip",
                compression_opts=1,
            )
            for name, shape, dtype in shapes
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.count == 0:
            with self._stack:
                raise ShowerDataError(f"{self.path}: no shower was written, so no file was made; append at least one")
        self._stack.__exit__(kind, error, trace)

    def append(self, showers: Showers) -> None:
        """Add showers at the end.

        A CaloGAN file gets zeros as overflow, since showers do not carry it.

        Raises
        ------
        ShapeError
            If the showers have another number of voxels or of conditions.
        ShowerDataError
            If an energy is negative or not finite; the message names event (counted in the file) and voxel.
        StorageError
            If the disk is full or the file cannot be written.
        """
        self.geometry.check(showers.voxels)
        check_incident(showers.incident, self.path, self.count)
        check_voxels(showers.voxels, self.geometry, self.path, self.count)
        start, stop = self.count, self.count + len(showers)
        columns: dict[str, NDArray[Any]] = {self._columns.energy: showers.incident[:, None] / self._columns.factor}
        if showers.conditions.shape[1] != len(self.geometry.conditions):
            raise ShapeError(
                f"{self.geometry.name} has {len(self.geometry.conditions)} conditions, got {showers.conditions.shape}"
            )
        for known, values in zip(self.geometry.conditions, showers.conditions.T, strict=True):
            columns[known.name] = values[:, None]
        for name, where, shape in self._columns.voxels:
            columns[name] = showers.voxels[:, where].reshape(-1, *shape) / np.float32(self._columns.unit)
        with self._output.writing():
            for name, data in self._data.items():
                data.resize(stop, axis=0)
                if name in columns:
                    data[start:stop] = columns[name]
        self.count = stop
