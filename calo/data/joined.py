"""Several files of showers, read as one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.files import ShowerReader
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
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


class JoinedReader:
    """One file of showers or several of the same cells, opened for reading: the showers of the first come first.

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
        self.paths, self.geometry = listed(paths), geometry
        self.name = ", ".join(path.name for path in self.paths)
        with ExitStack() as stack:
            self._readers = [stack.enter_context(ShowerReader(path, geometry)) for path in self.paths]
            self._stack = stack.pop_all()
        self.incident = np.concatenate([reader.incident for reader in self._readers])
        self.conditions = np.concatenate([reader.conditions for reader in self._readers])
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
        if len(index) and (index[0] < 0 or index[-1] >= len(self) or bool(np.any(np.diff(index) <= 0))):
            raise ShowerDataError(f"{self.name}: numbers of showers must increase within 0 to {len(self) - 1}")
        if len(self._readers) == 1:
            return self._readers[0].select(index, columns)
        window = slice(0, self.geometry.n_voxels) if columns is None else columns
        voxels = np.empty((len(index), window.stop - window.start), dtype=np.float32)
        for reader, first, last in zip(self._readers, self._starts, self._starts[1:], strict=False):
            inside = slice(*np.searchsorted(index, (first, last)))
            voxels[inside] = reader.select(index[inside] - first, columns).voxels
        return Showers(self.incident[index], voxels, self.conditions[index])
