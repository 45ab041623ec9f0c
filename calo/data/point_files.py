"""Point clouds in the HDF5 files of `showerdata` (PyPI, 0.7).

| dataset    | shape                       | what                                                                     |
|------------|-----------------------------|--------------------------------------------------------------------------|
| showers    | (N,), rows of any length    | float32 points one after the other, each x, y in mm, layer, E (and time) |
| energies   | (N, 1)                      | incident energies in GeV                                                 |
| directions | (N, 3)                      | unit vectors                                                             |
| pdg        | (N,)                        | PDG codes                                                                |
| shower_ids | (N,)                        | numbers of the showers                                                   |
| shape      | (3,)                        | N, the largest number of points, 4 or 5 columns                          |
| num_points | (N,)                        | numbers of points                                                        |

Points have energies in MeV and layers counted from zero, as the observables of `showerdata` take them; `Geometry.files`
says where units differ. Conditions of the geometry are further datasets with their names; in files without them, angles
are taken from the directions and the category of the particle from its PDG code.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from nisampler._version import __version__
from nisampler.base.hdf5_input import attribute, require_readable
from nisampler.base.hdf5_output import new_hdf5
from nisampler.calo.data.checks import check_incident, check_units
from nisampler.calo.data.columns import named_errors
from nisampler.calo.data.files import CELLS
from nisampler.calo.data.points import ENERGY, PointShowers
from nisampler.calo.detector.conditions import Condition
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.errors import CorruptFileError, GeometryError, ShapeError, ShowerDataError, StorageError

LAYOUT = "0.7.0"
"""Release of `showerdata` whose layout is written."""
_GEV = 1e3
_MOST_SHOWERS = 1 << 25
_MOST_POINTS = 1 << 20  # of a shower
_MOST_SHARE = 1 << 27  # points that are read at a time
_ROWS = 4096
_COLUMNS = ("energies", "directions", "pdg", "num_points")


def holds_points(path: str | Path) -> bool:
    """Whether a file is one of point clouds; False for what is no HDF5 file too.

    >>> holds_points("nowhere.h5")
    False
    """
    try:
        with h5py.File(path, "r") as file:
            return isinstance(file.get("num_points"), h5py.Dataset) and "showers" in file
    except OSError:
        return False


class PointReader:
    """Point clouds of a file. Use it in a ``with`` statement.

    Parameters
    ----------
    path
        The file.
    geometry
        Gives units, the number of layers, and conditions.

    Attributes
    ----------
    incident, conditions
        Incident energies (n,) in MeV, conditions (n, k).
    counts
        Points of each shower (n,), those without energy included.

    Raises
    ------
    StorageError
        If there is no such file.
    CorruptFileError
        If it is not HDF5, truncated or altered, or larger than any real file.
    ShowerDataError
        If datasets are missing, empty, of unequal length or of the wrong type, or values or units are wrong.
    GeometryError
        If the file says that it was written for other cells.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> toy, cloud = geometry("toy"), PointShowers(np.array([1e3]), np.array([[0, 1, 0, 5]]), np.array([1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with PointWriter(f"{folder}/a.h5", toy) as writer:
    ...         writer.append(cloud)
    ...     with PointReader(f"{folder}/a.h5", toy) as reader:
    ...         reader.select([0]).points
    array([[0., 1., 0., 5.]], dtype=float32)
    """

    def __init__(self, path: str | Path, geometry: Geometry) -> None:
        self.path, self.geometry = Path(path), geometry
        if not self.path.is_file():
            raise StorageError(f"cannot read {self.path}: no such file")
        with ExitStack() as stack, named_errors(self.path):
            self._file = stack.enter_context(h5py.File(self.path, "r"))
            self._check_structure()
            require_readable(self.path, {name: self._file[name] for name in _COLUMNS})
            factor = _GEV if geometry.files.incident_unit is None else geometry.files.incident_unit
            self.incident = np.asarray(self._file["energies"][()], dtype=np.float64).reshape(-1) * factor
            check_incident(self.incident, self.path)
            check_units(self.incident, geometry, self.path, "GeV")
            self.counts = np.asarray(self._file["num_points"][()], dtype=np.int64)
            if np.any((self.counts < 0) | (self.counts > _MOST_POINTS)):
                raise ShowerDataError(f"{self.path}: a shower has 0 to {_MOST_POINTS} points; write the file again")
            self.conditions = self._conditions()
            self._stack = stack.pop_all()

    def _check_structure(self) -> None:
        """ShowerDataError unless the datasets are there, with one length and the right types."""
        kinds = {"showers": "O", "energies": "f", "directions": "f", "pdg": "iu", "num_points": "iu", "shape": "iu"}
        for name, kind in kinds.items():
            found = self._file.get(name)
            if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kind:
                raise ShowerDataError(f"{self.path} is no file of showerdata: it needs the dataset {name!r}")
        row = h5py.check_vlen_dtype(self._file["showers"].dtype)
        if row != np.dtype("float32"):
            raise ShowerDataError(f"{self.path}: the rows of showers must be float32, got {row}")
        lengths = {name: self._file[name].shape[0] for name in ("showers", *_COLUMNS)}
        n = lengths["showers"]
        if n == 0 or len(set(lengths.values())) > 1 or n > _MOST_SHOWERS:
            raise ShowerDataError(f"{self.path}: one row for each of 1 to {_MOST_SHOWERS} showers, got {lengths}")
        shape = self._file["shape"]
        self._width = int(shape[2]) if shape.shape == (3,) else 0
        if self._width not in (4, 5):
            raise ShowerDataError(f"{self.path}: points have 4 or 5 columns, the dataset shape says {self._width}")
        cells = attribute(self._file, CELLS, self.geometry.digest)
        if cells != self.geometry.digest:
            raise GeometryError(
                f"{self.path} was written for the geometry {attribute(self._file, 'geometry', '')!r}, whose cells are "
                f"not those of {self.geometry.name}; open it with its own"
            )

    def _conditions(self) -> Floats:
        """The columns (n, k), checked."""
        found = np.empty((len(self), len(self.geometry.conditions)))
        for column, known in zip(found.T, self.geometry.conditions, strict=True):
            column[:] = self._condition(known)
            known.check(column, self.path)
        return found

    def _condition(self, known: Condition) -> Floats:
        stored = self._file.get(known.name)
        if isinstance(stored, h5py.Dataset) and stored.shape in ((len(self),), (len(self), 1)):
            require_readable(self.path, {known.name: stored})
            return np.asarray(stored[()], dtype=np.float64).reshape(-1)
        if known.name == "particle":
            return np.asarray(self._file["pdg"][()], dtype=np.float64)
        if known.name not in ("theta", "phi"):
            raise ShowerDataError(f"{self.path} has no dataset {known.name!r} of one number for each shower")
        x, y, z = np.asarray(self._file["directions"][()], dtype=np.float64).T
        angle = np.arctan2(np.hypot(x, y), z) if known.name == "theta" else np.arctan2(y, x)
        found: Floats = np.rad2deg(angle) if known.unit == "deg" else angle
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return len(self.incident)

    def notes(self) -> list[str]:
        """A sentence on what is not read; none."""
        return []

    def select(self, index: Sequence[int] | NDArray[Any]) -> PointShowers:
        """The showers of increasing numbers, without points that have no energy.

        Raises
        ------
        ShowerDataError
            If the numbers do not increase or leave the file, values are wrong, or they are too many points at once.
        CorruptFileError
            If rows are damaged or not as long as the file says.
        """
        wanted = np.asarray(index, dtype=np.int64)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self) or bool(np.any(np.diff(wanted) <= 0))):
            raise ShowerDataError(f"{self.path}: numbers of showers must increase within 0 to {len(self) - 1}")
        if self.counts[wanted].sum() > _MOST_SHARE:
            raise ShowerDataError(
                f"{self.path}: {self.counts[wanted].sum()} points are more than the {_MOST_SHARE} that are read at a "
                "time; take fewer showers"
            )
        rows: list[NDArray[np.float32]] = []
        with named_errors(self.path):
            for start in range(0, len(wanted), _ROWS):
                rows += list(self._file["showers"][wanted[start : start + _ROWS]])
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        if np.any(lengths != self._width * self.counts[wanted]):
            raise CorruptFileError(f"{self.path}: rows of showers are not as long as num_points says; write it again")
        points = np.concatenate(rows or [np.empty(0, np.float32)]).reshape(-1, self._width)[:, :4].copy()
        points[:, ENERGY] *= np.float32(self.geometry.files.unit or 1.0)
        owners = np.repeat(np.arange(len(wanted)), self.counts[wanted])
        there = points[:, ENERGY] != 0.0
        counts = np.bincount(owners[there], minlength=len(wanted))
        clouds = PointShowers(self.incident[wanted], points[there], counts, self.conditions[wanted])
        clouds.check(self.geometry, self.path)
        return clouds


class PointWriter:
    """A file of point clouds that appears complete or not at all. Use it in a ``with`` statement.

    Parameters
    ----------
    path
        The file to make or replace.
    geometry
        The calorimeter.

    Attributes
    ----------
    count
        Showers written so far.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    ShowerDataError
        At the end, if no shower was written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with PointWriter(f"{folder}/a.h5", geometry("toy")) as writer:
    ...         writer.append(PointShowers(np.array([1e3]), np.array([[0, 1, 0, 5]]), np.array([1])))
    ...     holds_points(f"{folder}/a.h5")
    True
    """

    def __init__(self, path: str | Path, geometry: Geometry) -> None:
        self.path, self.geometry, self.count, self._most = Path(path), geometry, 0, 0
        with ExitStack() as stack:
            self._output = stack.enter_context(new_hdf5(self.path))
            with self._output.writing():
                self._make(self._output.file)
            self._stack = stack.pop_all()

    def _make(self, file: Any) -> None:
        """Empty datasets that can grow."""
        file.attrs["showerdata_version"] = LAYOUT
        file.attrs["generator"] = f"nisampler {__version__}"
        file.attrs["geometry"] = self.geometry.name
        file.attrs[CELLS] = self.geometry.digest
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "showers": ((), h5py.vlen_dtype(np.float32)),
            "energies": ((1,), np.float32),
            "directions": ((3,), np.float32),
            "pdg": ((), np.int32),
            "shower_ids": ((), np.int32),
            "num_points": ((), np.int32),
        }
        shapes |= {known.name: ((1,), np.float64) for known in self.geometry.conditions}
        for name, (shape, dtype) in shapes.items():
            file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(_ROWS, *shape))
        file.create_dataset("shape", data=np.array([0, 0, 5]), dtype=np.int32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.count == 0:
            with self._stack:
                raise ShowerDataError(f"{self.path}: no shower was written, so no file was made; append at least one")
        self._stack.__exit__(kind, error, trace)

    def append(self, clouds: PointShowers) -> None:
        """Add showers at the end; the time of a point, which clouds do not carry, is zero.

        Raises
        ------
        ShowerDataError
            If incident energies or points are malformed.
        ShapeError
            If the geometry has another number of conditions.
        StorageError
            If the disk is full or the file cannot be written.
        """
        check_incident(clouds.incident, self.path, self.count)
        clouds.check(self.geometry, self.path, self.count)
        if clouds.conditions.shape[1] != len(self.geometry.conditions):
            raise ShapeError(
                f"{self.geometry.name} has {len(self.geometry.conditions)} conditions, got {clouds.conditions.shape}"
            )
        files = self.geometry.files
        points = np.zeros((len(clouds.points), 5), dtype=np.float32)
        points[:, :4] = clouds.points
        points[:, ENERGY] /= np.float32(files.unit or 1.0)
        start, stop = self.count, self.count + len(clouds)
        columns: dict[str, Any] = {
            # a list: the library takes an array of rows of one length for a table
            "showers": np.split(points.ravel(), 5 * np.cumsum(clouds.counts)[:-1]),
            "energies": clouds.incident[:, None] / (files.incident_unit or _GEV),
            "shower_ids": np.arange(start, stop),
            "num_points": clouds.counts,
            **self._particle(clouds),
        }
        self._most = max(self._most, int(clouds.counts.max(initial=0)))
        with self._output.writing():
            for name, data in columns.items():
                self._output.file[name].resize(stop, axis=0)
                self._output.file[name][start:stop] = data
            self._output.file["shape"][:2] = (stop, self._most)
        self.count = stop

    def _particle(self, clouds: PointShowers) -> dict[str, NDArray[Any]]:
        """Directions, PDG codes, and the conditions themselves."""
        known = {
            one.name: (one, values) for one, values in zip(self.geometry.conditions, clouds.conditions.T, strict=True)
        }
        zero = np.zeros(len(clouds))
        theta, phi = (known[name][0].radians(known[name][1]) if name in known else zero for name in ("theta", "phi"))
        sine = np.sin(theta)
        pdg = known["particle"][1] if "particle" in known else np.full(len(clouds), self.geometry.pdg)
        columns = {name: values[:, None] for name, (_, values) in known.items()}
        directions = np.column_stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)])
        return columns | {"directions": directions, "pdg": pdg}
