"""Bulk storage of events or weighted points in HDF5, written and read in chunks.

Schema, version 1. Root attributes: ``format`` = "nisampler-events" or "nisampler-points", ``version`` = 1,
``n`` (number of rows), ``units`` (JSON), ``generator``.

Events: group ``events`` with one dataset for each column of `EventBatch`, the event axis first: ``momenta``
(n, p, 4) as (E, px, py, pz) in GeV, ``masses`` (n, p), ``pdg_ids``, ``status``, ``mothers`` (n, p, 2),
``colours`` (n, p, 2), ``spins``, ``lifetimes`` (mm), ``weights`` (n,), ``scales``, ``alpha_em``, ``alpha_s``,
``process_ids``, and ``mu_r``, ``pdf_x`` (n, 2), ``pdf_xf`` (n, 2), which an older file lacks, ``pt_clust`` (n, p)
and ``named_weights`` (n, k), where there are any; a shorter event ends in slots of status 0. Group ``init`` says what
`nisampler.events.hdf5_init` does.

Points: group ``points`` with ``x`` (n, d) and ``weights`` (n,); the unit of the integral, if any, is the root
attribute ``unit``, the box of the points, where it is known, the root attribute ``domain`` (d, 2).

Every column carries a Fletcher-32 checksum, so that altered bytes are found when they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nisampler._version import __version__
from nisampler.base.hdf5_input import attribute, require_readable
from nisampler.base.hdf5_output import HDF5Output, new_hdf5
from nisampler.base.storage import MIB
from nisampler.errors import CorruptFileError, EventCountError, EventFormatError, StorageError
from nisampler.events.batch import EventBatch, PointBatch
from nisampler.events.columns import COLUMN_NAMES, MOST_SLOTS, OPTIONAL
from nisampler.events.hdf5_init import read_init, write_init
from nisampler.events.info import InitInfo
from nisampler.events.rules import CheckedBatches

EVENT_FORMAT = "nisampler-events"
POINT_FORMAT = "nisampler-points"
SCHEMA_VERSION = 1
_ROWS_READ = 100_000
# Of the rows that are held at a time, all columns together.
_BYTES_READ = 32 * MIB
_ROWS_PER_BLOCK, _BLOCK_BYTES = 4096, 8 * MIB
_ROWS_UNKNOWN = 256
_UNITS = {"momenta": "GeV", "masses": "GeV", "scales": "GeV", "mu_r": "GeV", "lifetimes": "mm", "cross_section": "pb"}
_GROUPS = {EVENT_FORMAT: "events", POINT_FORMAT: "points"}
_MEND = "write the file again"
_SOMETIMES = "pt_clust"


def _append(group: Any, columns: dict[str, NDArray[Any]], start: int, rows: int | None) -> None:
    """Add to the datasets of `group`, making them at the first call for so many rows, and slots where needed.

    Space is taken in blocks of rows: as many as there will be, where it is known and they are few.
    """
    for name, column in columns.items():
        if name not in group:
            group.create_dataset(
                name,
                shape=(0, *column.shape[1:]),
                maxshape=(None, *((None,) * (column.ndim - 1))),
                chunks=(_block(rows, column), *(max(1, size) for size in column.shape[1:])),
                dtype=column.dtype,
                fillvalue=9.0 if name == "spins" else 0,
                fletcher32=True,
            )
        data = group[name]
        inner = tuple(max(old, new) for old, new in zip(data.shape[1:], column.shape[1:], strict=True))
        data.resize((start + len(column), *inner))
        region = (slice(start, start + len(column)), *(slice(0, size) for size in column.shape[1:]))
        data[region] = column
        # Takes its space now, in this order, and not when whoever holds the dataset lets go of it, such as a profiler.
        data.flush()


def _block(rows: int | None, first: NDArray[Any]) -> int:
    """Rows of a block for a file of that many rows, or, where that is not known, of so many in its first batch."""
    fitting = _BLOCK_BYTES // max(1, first.dtype.itemsize * math.prod(first.shape[1:]))
    return max(1, min(_ROWS_PER_BLOCK, fitting, rows if rows is not None else max(_ROWS_UNKNOWN, len(first))))


@contextmanager
def _new_file(path: Path, kind: str) -> Iterator[HDF5Output]:
    """An HDF5 file that appears under `path` once it is complete."""
    if path.suffix not in (".h5", ".hdf5"):
        raise EventFormatError(f"{path}: the name of an HDF5 file must end in .h5 or .hdf5")
    with new_hdf5(path) as output:
        with output.writing():
            output.file.attrs["format"] = kind
            output.file.attrs["version"] = SCHEMA_VERSION
            output.file.attrs["generator"] = f"nisampler {__version__}"
        yield output


def _close_count(output: HDF5Output, path: Path, found: int, declared: int | None) -> None:
    if declared is not None and found != declared:
        raise EventCountError(f"{path}: {declared} rows were declared, {found} were made")
    with output.writing():
        output.file.attrs["n"] = found
        group = output.file.get(_GROUPS[EVENT_FORMAT], {})
        if _SOMETIMES in group:  # in the batches that have it
            group[_SOMETIMES].resize(group["momenta"].shape[:2])


def write_hdf5(
    path: str | Path,
    batches: EventBatch | Iterable[EventBatch],
    info: InitInfo,
    n_events: int | None = None,
) -> int:
    """Write events to ``.h5``; the file appears complete or not at all.

    Parameters
    ----------
    path
        Ends in ``.h5`` or ``.hdf5``.
    batches
        One batch, or any iterable of batches: only one is held at a time.
    info
        Beams and cross-sections.
    n_events
        If given, another number of events is an error.

    Returns
    -------
    int
        The number of events written.

    Raises
    ------
    EventFormatError
        If an event breaks a rule of the record; nothing is written then.
    EventCountError
        If the number of events is not the declared one.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_hdf5(f"{folder}/events.h5", EventBatch.empty(4), info)
    >>> count
    0
    """
    target = Path(path)
    source = CheckedBatches(batches, info, target)
    rows = len(batches) if isinstance(batches, EventBatch) and n_events is None else n_events
    with _new_file(target, EVENT_FORMAT) as output:
        with output.writing():
            output.file.attrs["units"] = json.dumps(_UNITS, sort_keys=True)
            write_init(output.file, info)
            group = output.file.create_group("events")
        for batch in source:
            if len(batch):
                with output.writing():
                    _append(group, batch.columns(), source.count - len(batch), rows)
        if source.count == 0:
            with output.writing():
                _append(group, EventBatch.empty().columns(), 0, 0)
        _close_count(output, target, source.count, n_events)
    return source.count


def write_points(
    path: str | Path,
    batches: PointBatch | Iterable[PointBatch],
    unit: str = "",
    n_points: int | None = None,
    domain: ArrayLike | None = None,
) -> int:
    """Write weighted points to ``.h5``; the file appears complete or not at all.

    Parameters
    ----------
    path
        Ends in ``.h5`` or ``.hdf5``.
    batches
        One batch, or any iterable of batches: only one is held at a time.
    unit
        Of the integral.
    n_points
        If given, another number of points is an error.
    domain
        (d, 2) smallest and largest value of each coordinate, with which `check_file` compares the points.

    Returns
    -------
    int
        The number of points.

    Raises
    ------
    EventFormatError
        If a number is not finite, or the dimension changes.
    EventCountError
        If the number of points is not the declared one.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_points(f"{folder}/points.h5", PointBatch([[0.5]], [1.0]))
    >>> count
    1
    """
    target, count = Path(path), 0
    rows = len(batches) if isinstance(batches, PointBatch) and n_points is None else n_points
    source = iter((batches,) if isinstance(batches, PointBatch) else batches)
    first = next(source, PointBatch(np.zeros((0, 0)), np.zeros(0)))
    with _new_file(target, POINT_FORMAT) as output:
        with output.writing():
            output.file.attrs["units"] = json.dumps({"weights": unit})
            output.file.attrs["unit"] = unit
            if domain is not None:
                output.file.attrs["domain"] = np.asarray(domain, dtype=np.float64)
            group = output.file.create_group("points")
        for batch in chain((first,), source):
            if batch.dim != first.dim:
                raise EventFormatError(f"{target}: points of dimension {batch.dim} after {first.dim}")
            try:
                batch.validate()
            except EventFormatError as error:
                raise EventFormatError(f"{target}, batch starting after point {count}: {error}") from error
            with output.writing():
                _append(group, {"x": batch.x, "weights": batch.weights}, count, rows)
            count += len(batch)
        _close_count(output, target, count, n_points)
    return count


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of the HDF5 library as errors that name the file."""
    try:
        yield
    except (CorruptFileError, EventFormatError, StorageError):
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path}: truncated or altered ({error}): {_MEND}") from error


def _stored(group: Any, kind: str) -> list[str]:
    """The columns to read: all that are not optional, and the optional ones that the file has."""
    if kind == POINT_FORMAT:
        return ["x", "weights"]
    return [name for name in COLUMN_NAMES if name in group or name not in OPTIONAL]


def _chunks(
    path: Path, kind: str, chunk: int, wanted: tuple[str, ...] | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of a file, or the wanted ones, at most `chunk` rows at a time, and fewer where rows are long."""
    with _open_file(path, kind, wanted) as (_, n, columns):
        row = sum(column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns.values())
        step = min(chunk, max(1, _BYTES_READ // max(1, row)))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            with _named_errors(path):
                part = {name: column[rows] for name, column in columns.items()}
            yield part


@contextmanager
def _open_file(
    path: Path, kind: str, wanted: tuple[str, ...] | None = None
) -> Iterator[tuple[Any, int, dict[str, Any]]]:
    """The file, checked for format and version, its number of rows, and its columns, or the wanted ones, checked."""
    if not path.is_file():
        raise StorageError(f"cannot read {path}: no such file")
    with _named_errors(path), h5py.File(path, "r") as file:
        found = attribute(file, "format", None)
        if found != kind:
            raise EventFormatError(f"{path}: need format {kind}, found {found}")
        version = int(attribute(file, "version"))
        if version != SCHEMA_VERSION:
            raise StorageError(f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}")
        group, n = file[_GROUPS[kind]], int(attribute(file, "n"))
        columns = {name: group[name] for name in wanted or _stored(group, kind)}
        require_readable(path, columns)
        for name, column in columns.items():
            if len(column) != n:
                raise CorruptFileError(f"{path} declares {n} rows, column {name} has {len(column)}: {_MEND}")
        slots = columns["momenta"].shape[1] if "momenta" in columns else 0
        if slots > MOST_SLOTS:
            raise EventFormatError(f"{path}: events of {slots} particles, an event can have {MOST_SLOTS}")
        yield file, n, columns


def file_format(path: str | Path) -> str:
    """``"nisampler-events"``, ``"nisampler-points"`` or whatever the file says about itself.

    Raises
    ------
    StorageError, CorruptFileError
        If the file is missing or damaged.

    Examples
    --------
    >>> file_format("nowhere.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    target = Path(path)
    if not target.is_file():
        raise StorageError(f"cannot read {target}: no such file")
    with _named_errors(target), h5py.File(target, "r") as file:
        return str(attribute(file, "format", ""))


def read_hdf5_header(path: str | Path) -> tuple[InitInfo, int]:
    """The run information and the number of events.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError
        If the file is missing, damaged or of another kind.

    Examples
    --------
    >>> read_hdf5_header("nowhere.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    with _open_file(Path(path), EVENT_FORMAT) as (file, n, _):
        return read_init(file), n


def iterate_hdf5(path: str | Path, chunk: int = _ROWS_READ) -> Iterator[EventBatch]:
    """The events of a file, at most `chunk` at a time.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError
        If the file is missing, damaged or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_hdf5(f"{folder}/no.h5", EventBatch.empty(4), info)
    ...     assert list(iterate_hdf5(f"{folder}/no.h5")) == []
    """
    for columns in _chunks(Path(path), EVENT_FORMAT, chunk):
        yield EventBatch(**columns)


def iterate_points(path: str | Path, chunk: int = _ROWS_READ) -> Iterator[PointBatch]:
    """The weighted points of a file, at most `chunk` at a time.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError
        If the file is missing, damaged or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_points(f"{folder}/points.h5", PointBatch([[0.5], [0.6]], [1.0, 2.0]))
    ...     sizes = [len(batch) for batch in iterate_points(f"{folder}/points.h5", chunk=1)]
    >>> sizes
    [1, 1]
    """
    for columns in _chunks(Path(path), POINT_FORMAT, chunk):
        yield PointBatch(**columns)


def iterate_weights(
    path: str | Path, chunk: int = _ROWS_READ
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """The process and the weight of the events of a file alone, at most `chunk` at a time; raises as `iterate_hdf5`.

    >>> list(iterate_weights("nowhere.h5"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    for columns in _chunks(Path(path), EVENT_FORMAT, chunk, ("process_ids", "weights")):
        yield columns["process_ids"], columns["weights"]


def read_points_header(path: str | Path) -> tuple[str, int]:
    """The unit of the integral and the number of points.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError
        If the file is missing, damaged or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_points(f"{folder}/points.h5", PointBatch([[0.5]], [1.0]), unit="pb")
    ...     header = read_points_header(f"{folder}/points.h5")
    >>> header
    ('pb', 1)
    """
    with _open_file(Path(path), POINT_FORMAT) as (file, n, _):
        return str(attribute(file, "unit")), n


def read_points_domain(path: str | Path) -> NDArray[np.float64] | None:
    """Smallest and largest value of each coordinate (d, 2), None where the file does not tell; raises as others do.

    >>> read_points_domain("nowhere.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    target = Path(path)
    with _open_file(target, POINT_FORMAT) as (file, _, columns):
        stored = attribute(file, "domain", None)
        if stored is None:
            return None
        domain, dim = np.asarray(stored, dtype=np.float64), columns["x"].shape[1]
        if domain.shape != (dim, 2):
            raise EventFormatError(f"{target}: the domain has shape {domain.shape}, the points have dimension {dim}")
        return domain
