"""Showers as batches of tensors: held in memory, or streamed from their file in shuffled pools."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.checks import Positive, checked
from nisampler.base.device import resolve_device
from nisampler.calo.data.joined import JoinedReader, Paths, listed
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.errors import ShowerDataError

Batch = tuple[Tensor, Tensor]

_BYTES = 4  # of a voxel
# Share of a GPU's free memory that showers may take.
_GPU_SHARE = 0.5


class ShowerSource(Protocol):
    """Showers that can be gone through often: voxels (m, v) and incident energies (m,) in MeV, float32.

    Where the geometry has k conditions, these are columns (m, 1 + k) beside the incident energies.

    >>> showers = Showers(np.array([1e3, 2e3, 3e3]), np.ones((3, 4), dtype=np.float32))
    >>> source_of: ShowerSource = MemorySource(showers)
    >>> [len(voxels) for voxels, _ in source_of.ordered(2)]
    [2, 1]
    """

    def __len__(self) -> int:
        """Number of showers."""
        ...

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`."""
        ...

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
        ...

    def window(self, columns: slice) -> ShowerSource:
        """The same showers with these of their voxels alone."""
        ...


def pieces(n: int, size: int) -> list[NDArray[np.int64]]:
    """The numbers 0 … n-1 in parts of nearly equal length near `size`, so that no small batch is left over.

    >>> [len(part) for part in pieces(10, 4)]
    [5, 5]
    """
    return np.array_split(np.arange(n), max(1, round(n / size)))


class MemorySource:
    """Showers held as tensors: on the device if they take at most half of its free memory, else on the CPU.

    Parameters
    ----------
    showers
        At least one.
    device
        Where the batches go.

    Raises
    ------
    ShowerDataError
        If there is no shower.

    Examples
    --------
    >>> showers = Showers(np.array([1e3, 2e3, 3e3]), np.ones((3, 4), dtype=np.float32))
    >>> voxels, incident = next(MemorySource(showers).shuffled(2, np.random.default_rng(0)))
    >>> voxels.shape, incident.shape
    (torch.Size([2, 4]), torch.Size([2]))
    """

    def __init__(self, showers: Showers, device: torch.device | str = "cpu") -> None:
        if not len(showers):
            raise ShowerDataError("there are no showers to learn from or to validate with")
        self._device = resolve_device(device)
        self._voxels = torch.from_numpy(np.ascontiguousarray(showers.voxels, dtype=np.float32))
        self._incident = torch.from_numpy(np.asarray(showers.particles, dtype=np.float32))
        self._place()

    def _place(self) -> None:
        """Move what is held to the device, if it is small enough."""
        size = self._voxels.numel() * _BYTES
        if self._device.type == "cuda" and size < _GPU_SHARE * torch.cuda.mem_get_info(self._device)[0]:
            self._voxels, self._incident = self._voxels.to(self._device), self._incident.to(self._device)

    def __len__(self) -> int:
        return len(self._incident)

    def _take(self, rows: Tensor | slice) -> Batch:
        return self._voxels[rows].to(self._device), self._incident[rows].to(self._device)

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`."""
        order = torch.from_numpy(rng.permutation(len(self))).to(self._voxels.device)
        for part in pieces(len(self), size):
            yield self._take(order[int(part[0]) : int(part[-1]) + 1])

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
        for start in range(0, len(self), size):
            yield self._take(slice(start, start + size))

    def window(self, columns: slice) -> MemorySource:
        """The same showers with these of their voxels alone; nothing is copied on the CPU."""
        part = copy.copy(self)
        part._voxels = self._voxels[:, columns]
        part._place()
        return part


class StreamedSource:
    """Showers that stay in their files: each epoch reads random blocks of rows into pools, which are shuffled.

    Two showers of a batch come from the same block a little more often than in a perfect shuffle, and never from
    different pools. Blocks are those of the readers, which read every chunk of a file once in an epoch.

    Parameters
    ----------
    paths, geometry
        The file, or several.
    rows
        Increasing positions of the showers in it, or in all of them together.
    device
        Where the batches go.
    memory
        Bytes that a pool may take.
    columns
        Only these voxels.

    Raises
    ------
    ShowerDataError
        If there is no shower.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.writer import ShowerWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShowerWriter(f"{folder}/a.h5", geometry("toy")) as writer:
    ...         writer.append(Showers(np.array([1e3, 2e3]), np.ones((2, 240), dtype=np.float32)))
    ...     len(StreamedSource(f"{folder}/a.h5", geometry("toy"), np.arange(2)))
    2
    """

    def __init__(
        self,
        paths: Paths,
        geometry: Geometry,
        rows: NDArray[np.int64],
        device: torch.device | str = "cpu",
        memory: float = 2e9,
        columns: slice | None = None,
    ) -> None:
        self._paths, self._geometry, self._rows, self._device = listed(paths), geometry, rows, resolve_device(device)
        if not len(rows):
            named = ", ".join(map(str, self._paths))
            raise ShowerDataError(f"{named}: there are no showers to learn from or to validate with")
        self._memory, self._columns = memory, columns or slice(0, geometry.n_voxels)
        with JoinedReader(paths, geometry) as reader:
            block = reader.blocks(rows)
        self._blocks = np.split(rows, np.flatnonzero(np.diff(block)) + 1)
        self._pools = math.ceil(_size(rows, self._columns) / memory)

    def __len__(self) -> int:
        return len(self._rows)

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`."""
        pools = np.array_split(rng.permutation(len(self._blocks)), min(self._pools, len(self._blocks)))
        with JoinedReader(self._paths, self._geometry) as reader:
            for pool in pools:
                rows = np.concatenate([self._blocks[block] for block in sorted(pool)])
                yield from self._read(reader, rows).shuffled(size, rng)

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
        with JoinedReader(self._paths, self._geometry) as reader:
            for start in range(0, len(self), size):
                yield from self._read(reader, self._rows[start : start + size]).ordered(size)

    def _read(self, reader: JoinedReader, rows: NDArray[np.int64]) -> MemorySource:
        return MemorySource(reader.select(rows, self._columns), self._device)

    def window(self, columns: slice) -> ShowerSource:
        """The same showers with these of their voxels alone: read once if they fit into the memory, else streamed."""
        start = self._columns.start
        inner = slice(start + columns.start, start + columns.stop)
        return source(self._paths, self._geometry, self._rows, self._device, self._memory, inner)


@dataclass(frozen=True)
class ShowerData:
    """What a model learns from and what it is validated with.

    >>> showers = MemorySource(Showers(np.array([1e3, 2e3]), np.ones((2, 4), dtype=np.float32)))
    >>> voxels, _ = next(ShowerData(showers, showers).window(slice(0, 3)).training.ordered(2))
    >>> voxels.shape
    torch.Size([2, 3])
    """

    training: ShowerSource
    validation: ShowerSource

    def window(self, columns: slice) -> ShowerData:
        """The same showers with these of their voxels alone."""
        return ShowerData(self.training.window(columns), self.validation.window(columns))


def _size(rows: NDArray[np.int64], columns: slice) -> int:
    """Bytes of these voxels."""
    return _BYTES * len(rows) * int(columns.stop - columns.start)


def source(
    paths: Paths,
    geometry: Geometry,
    rows: NDArray[np.int64],
    device: torch.device | str = "cpu",
    memory: float = 4e9,
    columns: slice | None = None,
) -> ShowerSource:
    """Showers of a file or several: in memory if they take at most `memory` bytes, else streamed.

    Parameters
    ----------
    paths, geometry, rows, device, columns
        As for `StreamedSource`.
    memory
        Bytes that showers may take.

    Raises
    ------
    ConfigError
        If the memory is not positive.
    ShowerDataError
        If there is no shower, or one that is read is malformed.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.writer import ShowerWriter
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShowerWriter(f"{folder}/a.h5", geometry("toy")) as writer:
    ...         writer.append(Showers(np.array([1e3, 2e3]), np.ones((2, 240), dtype=np.float32)))
    ...     type(source(f"{folder}/a.h5", geometry("toy"), np.arange(2))).__name__
    'MemorySource'
    """
    checked("memory", memory, Positive)
    if _size(rows, columns or slice(0, geometry.n_voxels)) > memory:
        return StreamedSource(paths, geometry, rows, device, memory, columns)
    with JoinedReader(paths, geometry) as reader:
        return MemorySource(reader.select(rows, columns), device)
