"""Several files of showers, read as one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.files import ShowerReader
from nisampler.calo.data.point_files import PointReader
from nisampler.calo.data.points import PointShowers
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.errors import ConfigError, ShowerDataError

Paths = str | Path | Sequence[str | Path]
"""A file, or several."""


def listed(paths: Paths) -> tuple[Path, ...]:
    """The paths of one file or several, each once.

    Raises
    ------
    ConfigError
        If there is none, or one twice: the same showers would be learned and validated with.

    Examples
    --------
    >>> [path.name for path in listed(["a.h5", "b.h5"])]
    ['a.h5', 'b.h5']
    """
    found = tuple(Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths))
    if not found:
        raise ConfigError("data: give at least one file of showers")
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise ConfigError(f"data: {path} is given twice: give each file once")
        seen.add(path.resolve())
    return found


class JoinedFiles:
    """One file of showers or several of the same cells, opened for reading: the showers of the first come first.

    Parameters
    ----------
    paths, geometry
        The files, and whose cells they have.
    opener
        From a path and the geometry to the reader of a file.

    Raises
    ------
    NisamplerError
        As the readers and `listed`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> JoinedFiles([], geometry("toy"), ShowerReader)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: data: give at least one file of showers
    """

    def __init__(self, paths: Paths, geometry: Geometry, opener: Callable[[Path, Geometry], Any]) -> None:
        self.paths, self.geometry = listed(paths), geometry
        self.name = ", ".join(path.name for path in self.paths)
        with ExitStack() as stack:
            self._readers = [stack.enter_context(opener(path, geometry)) for path in self.paths]
            self._stack = stack.pop_all()
        self.incident: Floats = np.concatenate([reader.incident for reader in self._readers])
        self.conditions: Floats = np.concatenate([reader.conditions for reader in self._readers])
        self._starts = np.cumsum([0, *(len(reader) for reader in self._readers)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def notes(self) -> list[str]:
        """Those of all files."""
        return [note for reader in self._readers for note in reader.notes()]

    def _check(self, index: NDArray[np.int64]) -> None:
        if len(index) and (index[0] < 0 or index[-1] >= len(self) or bool(np.any(np.diff(index) <= 0))):
            raise ShowerDataError(f"{self.name}: numbers of showers must increase within 0 to {len(self) - 1}")

    def _shares(self, index: NDArray[np.int64]) -> Iterator[tuple[Any, slice, int]]:
        """Each reader, which of the increasing numbers are its own, and the number of its first shower."""
        for reader, first, last in zip(self._readers, self._starts, self._starts[1:], strict=False):
            yield reader, slice(*np.searchsorted(index, (first, last))), int(first)


class JoinedReader(JoinedFiles):
    """Files of showers in cells.

    Parameters
    ----------
    paths
        The files.
    geometry
        Whose cells they have.

    Attributes
    ----------
    name
        The names of the files, for messages.
    incident, conditions
        As those of `ShowerReader`.

    Raises
    ------
    NisamplerError
        As `ShowerReader` and `listed`.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.writer import ShowerWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> toy = geometry("toy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = [f"{folder}/a.h5", f"{folder}/b.h5"]
    ...     for energy, file in enumerate(files, 1):
    ...         with ShowerWriter(file, toy) as writer:
    ...             writer.append(Showers(np.full(2, 1e3 * energy), np.ones((2, 240), dtype=np.float32)))
    ...     with JoinedReader(files, toy) as reader:
    ...         len(reader), reader.name, reader.select(np.array([1, 2])).incident
    (4, 'a.h5, b.h5', array([1000., 2000.]))
    """

    def __init__(self, paths: Paths, geometry: Geometry) -> None:
        super().__init__(paths, geometry, ShowerReader)

    def blocks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the block that each shower is in: increasing with the rows, and new with each file."""
        found, before = np.empty_like(rows), 0
        for reader, first, last in zip(self._readers, self._starts, self._starts[1:], strict=False):
            inside = (rows >= first) & (rows < last)
            found[inside] = before + (rows[inside] - first) // reader.block
            before += -(-len(reader) // reader.block)
        return found

    def select(self, index: NDArray[np.int64], columns: slice | None = None) -> Showers:
        """The showers of increasing numbers, as `ShowerReader.select`.

        Raises
        ------
        ShowerDataError
            If the numbers do not increase or leave the files.
        ShapeError
            If there are no such voxels.
        """
        self._check(index)
        if len(self._readers) == 1:
            one: Showers = self._readers[0].select(index, columns)
            return one
        window = slice(0, self.geometry.n_voxels) if columns is None else columns
        voxels = np.empty((len(index), window.stop - window.start), dtype=np.float32)
        for reader, inside, first in self._shares(index):
            voxels[inside] = reader.select(index[inside] - first, columns).voxels
        return Showers(self.incident[index], voxels, self.conditions[index])


class JoinedPoints(JoinedFiles):
    """Files of point clouds.

    Parameters and errors are those of `JoinedFiles`.

    Attributes
    ----------
    counts
        Points of each shower, (n,).

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.point_files import PointWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> toy, cloud = geometry("toy"), PointShowers(np.array([1e3]), np.array([[0, 1, 0, 5]]), np.array([1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = [f"{folder}/a.h5", f"{folder}/b.h5"]
    ...     for file in files:
    ...         with PointWriter(file, toy) as writer:
    ...             writer.append(cloud)
    ...     with JoinedPoints(files, toy) as reader:
    ...         reader.select(np.array([0, 1])).points.shape
    (2, 4)
    """

    def __init__(self, paths: Paths, geometry: Geometry) -> None:
        super().__init__(paths, geometry, PointReader)
        self.counts = np.concatenate([reader.counts for reader in self._readers])

    def select(self, index: NDArray[np.int64]) -> PointShowers:
        """The showers of increasing numbers, as `PointReader.select`.

        Raises
        ------
        ShowerDataError
            If the numbers do not increase or leave the files.
        """
        self._check(index)
        found = [reader.select(index[inside] - first) for reader, inside, first in self._shares(index)]
        points, counts = (np.concatenate([getattr(part, name) for part in found]) for name in ("points", "counts"))
        return PointShowers(self.incident[index], points, counts, self.conditions[index])
