"""Showers as batches of tensors: held in memory, or streamed from their file in shuffled pools."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.calo.files import ShowerReader
from nisampler.calo.geometry import Geometry
from nisampler.calo.showers import Showers
from nisampler.errors import ConfigError, ShowerDataError

Batch = tuple[Tensor, Tensor]

_BYTES = 4  # of a voxel
# Share of a GPU's free memory that showers may take.
_GPU_SHARE = 0.5


class ShowerSource(Protocol):
    """Showers that can be gone through often: voxels (m, n_voxels) and incident energies (m,) in MeV, float32."""

    def __len__(self) -> int:
        """Number of showers."""
        ...

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`."""
        ...

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
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
    """

    def __init__(self, showers: Showers, device: torch.device | str = "cpu") -> None:
        if not len(showers):
            raise ShowerDataError("there are no showers to learn from or to validate with")
        self._device = torch.device(device)
        self._voxels = torch.from_numpy(np.ascontiguousarray(showers.voxels, dtype=np.float32))
        self._incident = torch.from_numpy(np.asarray(showers.incident, dtype=np.float32))
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


class StreamedSource:
    """Showers that stay in their file: each epoch reads random blocks of rows into pools, which are shuffled.

    Two showers of a batch come from the same block a little more often than in a perfect shuffle, and never from
    different pools. Blocks are those of the reader, which reads every chunk of the file once in an epoch.

    Parameters
    ----------
    path, geometry
        The file.
    rows
        Increasing positions of the showers in it.
    device
        Where the batches go.
    memory
        Bytes that a pool and its shuffled copy may take.

    Raises
    ------
    ShowerDataError
        If there is no shower.
    """

    def __init__(
        self,
        path: str | Path,
        geometry: Geometry,
        rows: NDArray[np.int64],
        device: torch.device | str = "cpu",
        memory: float = 2e9,
    ) -> None:
        if not len(rows):
            raise ShowerDataError(f"{path}: there are no showers to learn from or to validate with")
        self._path, self._geometry, self._rows, self._device = Path(path), geometry, rows, torch.device(device)
        with ShowerReader(path, geometry) as reader:
            block = rows // reader.block
        self._blocks = np.split(rows, np.flatnonzero(np.diff(block)) + 1)
        self._pools = math.ceil(2 * len(rows) * geometry.n_voxels * _BYTES / memory)

    def __len__(self) -> int:
        return len(self._rows)

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`."""
        pools = np.array_split(rng.permutation(len(self._blocks)), min(self._pools, len(self._blocks)))
        with ShowerReader(self._path, self._geometry) as reader:
            for pool in pools:
                read = Showers.concatenate([reader.select(self._blocks[block]) for block in sorted(pool)])
                yield from MemorySource(read, self._device).shuffled(size, rng)

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
        with ShowerReader(self._path, self._geometry) as reader:
            for start in range(0, len(self), size):
                yield from MemorySource(reader.select(self._rows[start : start + size]), self._device).ordered(size)


@dataclass(frozen=True)
class ShowerData:
    """What a model learns from and what it is validated with."""

    training: ShowerSource
    validation: ShowerSource


def source(
    path: str | Path,
    geometry: Geometry,
    rows: NDArray[np.int64],
    device: torch.device | str = "cpu",
    memory: float = 4e9,
) -> ShowerSource:
    """Showers of a file: in memory if they take at most `memory` bytes, else streamed.

    Raises
    ------
    ConfigError
        If the memory is not positive.
    ShowerDataError
        If there is no shower, or one that is read is malformed.
    """
    if not memory > 0:
        raise ConfigError(f"memory must be a positive number of bytes, got {memory}")
    if len(rows) * geometry.n_voxels * _BYTES > memory:
        return StreamedSource(path, geometry, rows, device, memory)
    with ShowerReader(path, geometry) as reader:
        return MemorySource(reader.select(rows), device)
