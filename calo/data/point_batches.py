"""Point clouds as batches of padded tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.base.checks import Positive, checked
from nisampler.base.device import resolve_device
from nisampler.calo.data.batches import Batch, ShowerSource, pieces
from nisampler.calo.data.joined import JoinedPoints, Paths
from nisampler.calo.data.points import PointShowers
from nisampler.calo.detector.geometry import Geometry
from nisampler.errors import ConfigError, ShowerDataError

_BYTES = 16  # of a point


class PointSource:
    """Point clouds held in memory, without padding until they are a batch.

    Parameters
    ----------
    clouds
        At least one.
    device
        Where the batches go.

    Raises
    ------
    ShowerDataError
        If there is no shower.

    Examples
    --------
    >>> clouds = PointShowers(np.array([1e3, 2e3]), np.array([[0, 1, 0, 5], [2, 0, 1, 7]]), np.array([2, 0]))
    >>> points, incident = next(PointSource(clouds).shuffled(2, np.random.default_rng(0)))
    >>> points.shape, incident.shape
    (torch.Size([2, 2, 4]), torch.Size([2]))
    """

    def __init__(self, clouds: PointShowers, device: torch.device | str = "cpu") -> None:
        if not len(clouds):
            raise ShowerDataError("there are no showers to learn from or to validate with")
        self._clouds, self._device = clouds, resolve_device(device)

    def __len__(self) -> int:
        return len(self._clouds)

    def _take(self, rows: NDArray[np.int64] | slice) -> Batch:
        part = self._clouds[rows]
        incident = torch.from_numpy(np.asarray(part.particles, dtype=np.float32))
        return torch.from_numpy(part.padded()).to(self._device), incident.to(self._device)

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All showers once, in random order, in batches of about `size`: points (n, P, 4) and particles."""
        order = rng.permutation(len(self))
        for part in pieces(len(self), size):
            yield self._take(order[part])

    def ordered(self, size: int) -> Iterator[Batch]:
        """All showers once, in order, in batches of at most `size`."""
        for start in range(0, len(self), size):
            yield self._take(slice(start, start + size))

    def window(self, columns: slice) -> PointSource:
        """All points: those of some layers alone are not held apart."""
        return self


def point_source(
    paths: Paths,
    geometry: Geometry,
    rows: NDArray[np.int64],
    device: torch.device | str = "cpu",
    memory: float = 4e9,
) -> ShowerSource:
    """Point clouds of a file or several, in memory.

    Parameters
    ----------
    paths, geometry, rows, device
        As for `nisampler.calo.data.batches.source`.
    memory
        Bytes that they may take.

    Raises
    ------
    ConfigError
        If they take more, or the memory is not positive.
    ShowerDataError
        If there is no shower, or one that is read is malformed.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.simulation.points import simulate_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = simulate_points(f"{folder}/a.h5", geometry("toy"), 3, seed=1)
    ...     len(point_source(f"{folder}/a.h5", geometry("toy"), np.arange(3)))
    3
    """
    checked("memory", memory, Positive)
    with JoinedPoints(paths, geometry) as reader:
        size = _BYTES * float(reader.counts[rows].sum())
        if size > memory:
            raise ConfigError(
                f"the points of {len(rows)} showers of {reader.name} take {size / 1e9:.3g} GB and may take "
                f"{memory / 1e9:.3g}: give them more --memory, or take fewer --showers"
            )
        return PointSource(reader.select(rows), device)
