"""Showers in HDF5, read in blocks, so that memory is bounded whatever the size of a file.

The datasets are those of `nisampler.calo.data.layouts`. Any floating-point type is read. Incident energies are written
in float64 and voxels in float32: the evaluation script of the CaloChallenge divides one by the other and needs float64,
which the incident energies then give, while voxels keep half the size. The root attributes ``generator``, ``geometry``
and ``cells`` (a fingerprint) are extras that other programs skip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from nisampler.base.checks import Count, Finite, Natural, Row, checked
from nisampler.base.hdf5_input import attribute, require_readable
from nisampler.base.rng import Streams
from nisampler.calo.data.checks import check_incident, check_order, check_scale, check_units, check_voxels
from nisampler.calo.data.columns import named_errors
from nisampler.calo.data.layouts import columns_of
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import GEOMETRIES
from nisampler.calo.detector.geometry import Floats, Geometry, Layout
from nisampler.errors import (
    ConfigError,
    GeometryError,
    ShapeError,
    ShowerDataError,
    StorageError,
)

Indices = NDArray[np.int64]

_BLOCK_BYTES = 1 << 26  # of voxels in memory at a time
_MOST_SHOWERS = 1 << 25  # in a file: their incident energies are held in memory
_ENERGIES = 1 << 20  # incident energies that are read at a time
_NAMES = 20  # most names of datasets in a message
CELLS = "cells"
"""Attribute of a file with the fingerprint of its geometry."""


class ShowerReader:
    """Showers of an HDF5 file, in blocks.

    Opening checks structure and incident energies; every read checks the voxels: finite, not negative, in MeV and in
    the right order. Use it in a ``with`` statement.

    Parameters
    ----------
    path
        The file.
    geometry
        Whose cells it must have.
    layout
        Default: that of the geometry.

    Attributes
    ----------
    incident
        Incident energies in MeV, shape (n,).
    conditions
        Those that the geometry has, shape (n, k).
    unused
        Names of other datasets with a row for each shower, such as incident angles, which are not read.

    Raises
    ------
    StorageError
        If there is no such file.
    CorruptFileError
        If it is not HDF5, truncated or altered, or rows or chunks are larger than those of any real file.
    ShowerDataError
        If datasets are missing, empty, of more than 33,554,432 rows, of unequal length, of the wrong shape or type, or
        if values or units are wrong.
    GeometryError
        If the layout cannot hold the geometry, or the file says that it was written for other cells.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.writer import ShowerWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> toy = geometry("toy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShowerWriter(f"{folder}/a.h5", toy) as writer:
    ...         writer.append(Showers(np.array([1e3, 2e3]), np.ones((2, 240), dtype=np.float32)))
    ...     with ShowerReader(f"{folder}/a.h5", toy) as reader:
    ...         len(reader), reader.read(1, 2).incident
    (2, array([2000.]))
    """

    def __init__(self, path: str | Path, geometry: Geometry, layout: Layout | None = None) -> None:
        self.path, self.geometry = Path(path), geometry
        self._columns = columns_of(geometry, layout)
        if not self.path.is_file():
            raise StorageError(f"cannot read {self.path}: no such file")
        with ExitStack() as stack, named_errors(self.path):
            self._file = stack.enter_context(h5py.File(self.path, "r"))
            energy = self._dataset(self._columns.energy)
            self._voxels = [(self._dataset(name), where) for name, where, _ in self._columns.voxels]
            self._check_structure(energy)
            known = {self._columns.energy: energy, **{name: self._file[name] for name, _, _ in self._columns.voxels}}
            known |= {one.name: self._condition(one.name, len(energy)) for one in geometry.conditions}
            require_readable(self.path, known)
            self.incident = self._energies(energy)
            self.conditions = self._read_conditions(known)
            check_units(self.incident, geometry, self.path, self._columns.energy_unit)
            self.unused = self._others(len(energy), {*known, *(["overflow"] if self._columns.overflow else [])})
            self._stack = stack.pop_all()

    def _energies(self, data: Any) -> Floats:
        """The incident energies, checked piece by piece, so that rows that were never written end it early."""
        incident = np.empty(len(data), dtype=np.float64)
        for start in range(0, len(data), _ENERGIES):
            part = incident[start : start + _ENERGIES]
            part[:] = data[start : start + _ENERGIES].reshape(-1)
            part *= self._columns.factor
            check_incident(part, self.path, start)
        return incident

    def _condition(self, name: str, n: int) -> Any:
        """A dataset of one number for each shower."""
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or found.shape not in ((n,), (n, 1)):
            raise ShowerDataError(
                f"{self.path} needs a dataset {name!r} of one number for each of {n} showers, which "
                f"{self.geometry.name} has as a condition"
            )
        return found

    def _read_conditions(self, known: Mapping[str, Any]) -> Floats:
        """The columns (n, k), checked."""
        found = np.empty((len(self.incident), len(self.geometry.conditions)))
        for column, condition in zip(found.T, self.geometry.conditions, strict=True):
            column[:] = np.asarray(known[condition.name][()], dtype=np.float64).reshape(-1)
            condition.check(column, self.path)
        return found

    def _others(self, rows: int, known: set[str]) -> tuple[str, ...]:
        """Datasets beside the known ones with so many rows."""
        found: list[str] = []

        def look(name: str, item: Any) -> bool | None:
            if name not in known and isinstance(item, h5py.Dataset) and item.shape and item.shape[0] == rows:
                found.append(name)
            return True if len(found) == _NAMES else None

        self._file.visititems(look)
        return tuple(found)

    def _dataset(self, name: str) -> Any:
        """A dataset of floating-point numbers."""
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            stored: list[str] = []
            self._file.visit(lambda other: stored.append(other) if len(stored) < _NAMES else True)
            raise ShowerDataError(
                f"{self.path} has no dataset {name!r}, only {', '.join(stored) or 'nothing'}; "
                "give the layout in which it was written"
            )
        if found.dtype.kind != "f":
            raise ShowerDataError(f"{self.path}: {name} has the type {found.dtype}; store energies as floats")
        return found

    def _check_structure(self, energy: Any) -> None:
        """ShowerDataError unless all datasets have one length and the shapes of the geometry."""
        n = len(energy) if energy.shape else 0
        if n == 0:
            raise ShowerDataError(f"{self.path} holds no showers; write the file again")
        if n > _MOST_SHOWERS:
            raise ShowerDataError(f"{self.path} declares {n} showers, a file can have {_MOST_SHOWERS}; split it")
        if energy.shape not in ((n,), (n, 1)):
            raise ShowerDataError(f"{self.path}: {self._columns.energy} must be ({n}, 1), got {energy.shape}")
        for name, _, shape in self._columns.voxels:
            found = self._file[name].shape
            if found[1:] != shape:
                raise ShowerDataError(
                    f"{self.path}: {name} has the shape {found}, {self.geometry.name} needs (N, "
                    f"{', '.join(map(str, shape))}): {_guess(found)}"
                )
            if found[0] != n:
                raise ShowerDataError(
                    f"{self.path}: {found[0]} rows in {name}, but {n} in {self._columns.energy}; write the file again"
                )
        cells = attribute(self._file, CELLS, self.geometry.digest)
        if cells != self.geometry.digest:
            raise GeometryError(
                f"{self.path} was written for the geometry {attribute(self._file, 'geometry', '')!r}, whose cells are "
                f"not those of {self.geometry.name}; open it with its own"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def block(self) -> int:
        """Showers of a block of `chunks`: whole HDF5 chunks, about 64 MiB of voxels."""
        rows = max(1, _BLOCK_BYTES // (4 * self.geometry.n_voxels))
        height = max((data.chunks[0] if data.chunks else 1) for data, _ in self._voxels)
        return rows if height > rows else rows // height * height

    def notes(self) -> list[str]:
        """A sentence on the datasets that are not read; none where there are none."""
        text = "nothing here uses them: --condition NAME of `fit` lets a model depend on them"
        return [f"{self.path} also holds {', '.join(self.unused)} for each shower; {text}"] if self.unused else []

    def overflow(self) -> Floats | None:
        """What missed the cells of each layer, MeV, shape (n, n_layers); None unless a CaloGAN file has it.

        Voxels do not contain it.
        """
        with named_errors(self.path):
            found = self._file.get("overflow") if self._columns.overflow else None
            if found is not None:
                require_readable(self.path, {"overflow": found})
            return None if found is None else np.asarray(found[()], dtype=np.float64)

    def read(self, start: int, stop: int, columns: slice | None = None) -> Showers:
        """The showers of [start, stop), in memory.

        Parameters
        ----------
        start, stop
            Numbers of showers.
        columns
            Only these voxels, from start to stop of the slice. The scale and the order of showers are looked at in
            whole showers only.

        Raises
        ------
        ShowerDataError
            If the range is not inside the file, or values are wrong; the message names event and voxel.
        ShapeError
            If there are no such voxels.
        CorruptFileError
            If stored bytes are damaged.
        StorageError
            If the reader is closed.
        """
        if not self._file:
            raise StorageError(f"{self.path} is closed; read inside its with statement")
        if not 0 <= start <= stop <= len(self):
            raise ShowerDataError(f"{self.path} has showers 0 to {len(self) - 1}, got the range [{start}, {stop})")
        window = self._window(columns)
        voxels = np.empty((stop - start, window.stop - window.start), dtype=np.float32)
        with named_errors(self.path):
            for data, where in self._voxels:
                first, last = max(where.start, window.start), min(where.stop, window.stop)
                if first < last:
                    found = _cut(data, start, stop, first - where.start, last - where.start)
                    voxels[:, first - window.start : last - window.start] = found
        if self._columns.unit != 1.0:
            voxels *= np.float32(self._columns.unit)
        showers = Showers(self.incident[start:stop], voxels, self.conditions[start:stop])
        check_voxels(voxels, self.geometry, self.path, start, window.start)
        if voxels.shape[1] == self.geometry.n_voxels:
            check_scale(showers, self.geometry, self.path, start)
            check_order(showers, self.geometry, self.path, start)
        self.geometry.suppress(showers.voxels, window.start)
        return showers

    def _window(self, columns: slice | None) -> slice:
        """Columns with both ends, or all."""
        n = self.geometry.n_voxels
        window = slice(0, n) if columns is None else columns
        if not 0 <= window.start < window.stop <= n or window.step not in (None, 1):
            raise ShapeError(f"{self.geometry.name} has voxels 0 to {n - 1}, got the columns {window}")
        return window

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """All showers, in blocks of `size` (default: `block`, which reads every HDF5 chunk once).

        Raises
        ------
        ConfigError
            If the size is not positive.
        ShowerDataError, CorruptFileError
            As `read`.
        """
        step = self.block if size is None else checked("size", size, Count)
        for start in range(0, len(self), step):
            yield self.read(start, min(start + step, len(self)))

    def select(self, index: Sequence[int] | NDArray[Any], columns: slice | None = None) -> Showers:
        """The showers of increasing numbers, e.g. of `split`: one block and the result are in memory.

        Parameters
        ----------
        index
            The numbers.
        columns
            As in `read`.

        Raises
        ------
        ShowerDataError
            If the numbers do not increase or leave the file.
        ShapeError
            If there are no such voxels.
        """
        wanted = np.asarray(index, dtype=np.int64)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self) or bool(np.any(np.diff(wanted) <= 0))):
            raise ShowerDataError(f"{self.path}: numbers of showers must increase within 0 to {len(self) - 1}")
        window = self._window(columns)
        voxels = np.empty((len(wanted), window.stop - window.start), dtype=np.float32)
        done = 0
        while done < len(wanted):
            start = int(wanted[done])
            end = (start // self.block + 1) * self.block
            upto = int(np.searchsorted(wanted, end))
            block = self.read(start, int(wanted[upto - 1]) + 1, window)
            voxels[done:upto] = block.voxels[wanted[done:upto] - start]
            done = upto
        return Showers(self.incident[wanted], voxels, self.conditions[wanted])


def _cut(data: Any, start: int, stop: int, first: int, last: int) -> NDArray[np.float32]:
    """Columns [first, last) of the rows [start, stop) of a dataset whose rows are read as flat.

    Only what lies between them along its second axis is read.
    """
    inner = math.prod(data.shape[2:])
    low, high = first // inner, math.ceil(last / inner)
    found: NDArray[np.float32] = data.astype(np.float32)[start:stop, low:high].reshape(
        stop - start, inner * (high - low)
    )
    return found[:, first - low * inner : last - low * inner]


def _guess(shape: tuple[int, ...]) -> str:
    """Which registered geometry an array of that shape may belong to."""
    count = math.prod(shape[1:])
    names = [name for name, known in GEOMETRIES.items() if known.n_voxels == count]
    if not names:
        return f"no registered geometry has {count} voxels; describe your own in a TOML file"
    return f"{count} voxels are those of {' or '.join(names)}"


def read_showers(path: str | Path, geometry: Geometry, limit: int | None = None) -> Showers:
    """The first `limit` showers of a file (default: all), in memory.

    Raises
    ------
    StorageError, CorruptFileError, ShowerDataError, GeometryError
        As `ShowerReader`.
    ConfigError
        If the limit is not positive.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.writer import ShowerWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShowerWriter(f"{folder}/a.h5", geometry("toy")) as writer:
    ...         writer.append(Showers(np.array([1e3, 2e3]), np.ones((2, 240), dtype=np.float32)))
    ...     read_showers(f"{folder}/a.h5", geometry("toy"), limit=1).voxels.shape
    (1, 240)
    """
    checked("limit", limit, Count | None)
    with ShowerReader(path, geometry) as reader:
        n = len(reader) if limit is None else min(limit, len(reader))
        return reader.select(np.arange(n))


def split(n: int, fractions: Sequence[float], seed: int) -> tuple[Indices, ...]:
    """Disjoint sets of shower numbers, e.g. for training, validation and test.

    Parameters
    ----------
    n
        Number of showers.
    fractions
        Not negative, of sum at most 1; with sum 1 every shower is in one set.
    seed
        Same seed and n, same sets.

    Returns
    -------
    tuple
        Increasing numbers for each fraction.

    Raises
    ------
    ConfigError
        If a fraction is negative or the sum exceeds 1, or n is negative.

    Examples
    --------
    >>> first, second = split(10, (0.7, 0.3), seed=1)
    >>> len(first), len(second), set(first) & set(second)
    (7, 3, set())
    """
    checked("n", n, Natural)
    total = math.fsum(checked("fractions", fractions, Row[Finite]))
    if not all(fraction >= 0 for fraction in fractions) or not total <= 1 + 1e-9:
        raise ConfigError(f"fractions must not be negative and sum to at most 1, got {tuple(fractions)}")
    order = Streams(seed).numpy("split").permutation(n)
    ends = [math.floor(n * math.fsum(fractions[:position]) + 0.5) for position in range(len(fractions) + 1)]
    return tuple(np.sort(order[start:end]) for start, end in pairwise(ends))
