"""Regions of integration and what maps the unit cube onto them, as vegas gives them to its users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gvar
import numpy as np
import torch
import vegas
from numpy.typing import NDArray

from nisampler.errors import ConfigError, UnsupportedError
from nisampler.samplers.base import Sampler

Array = NDArray[np.float64]


class Region(NamedTuple):
    """A box, and how its points look.

    Attributes
    ----------
    limits
        Lower and upper ends (dim, 2).
    sample
        A point as functions get it: an array of any shape, or a `gvar.BufferDict`.
    nodes
        Grid on the unit cube to start from (dim, m + 1), if the region brought one.

    Examples
    --------
    >>> region_of({"r": (0, 2), "phi": [(0, 1), (0, 1)]}).sample["phi"].shape
    (2,)
    """

    limits: Array
    sample: Any
    nodes: torch.Tensor | None = None


def region_of(given: Any) -> Region:
    """The region that vegas takes by the name `map`: limits (..., 2), a dictionary of them, a map or an integrator.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> region_of([[-1, 1], [0, 1]]).limits.tolist()
    [[-1.0, 1.0], [0.0, 1.0]]
    """
    if isinstance(given, vegas.AdaptiveMap):
        limits = np.array([given.region(axis) for axis in range(given.dim)])
        return Region(limits, _inside(limits), _nodes(given, limits))
    if isinstance(given, vegas.Integrator):
        return region_of(given.map)._replace(sample=given.xsample)
    if isinstance(given, SamplerMap):
        return region_of(given.region())
    try:
        if isinstance(given, Mapping):
            boxes = {name: np.array(box, dtype=float) for name, box in given.items()}
            limits = np.concatenate([box.reshape(-1, 2) for box in boxes.values()])
            shapes = gvar.BufferDict({name: np.zeros(box.shape[:-1]) for name, box in boxes.items()})
            return Region(limits, gvar.BufferDict(shapes, buf=_inside(limits)))
        box = np.array(given, dtype=float)
        if box.ndim > 1 and box.shape[-1] == 2:
            limits = box.reshape(-1, 2)
            return Region(limits, _inside(limits).reshape(box.shape[:-1]))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a region must be made of (low, high) pairs of numbers, got {given!r}") from error
    raise ConfigError(
        f"a region must be (low, high) pairs, a dictionary of them or a vegas.AdaptiveMap, got {given!r}: "
        "give a grid as AdaptiveMap(nodes)"
    )


def _inside(limits: Array) -> Array:
    """A point in the middle of nowhere: functions are tried there."""
    part = np.sqrt(2.5 + np.arange(len(limits))) % 1.0
    return np.asarray(limits[:, 0] + part * (limits[:, 1] - limits[:, 0]))


def _nodes(given: Any, limits: Array) -> torch.Tensor:
    """The nodes of a map on the unit cube, as many on each axis."""
    most = max(given.ninc) + 1
    grid, counts = np.asarray(given.grid), np.asarray(given.ninc) + 1
    rows = [
        np.interp(np.linspace(0.0, 1.0, most), np.linspace(0.0, 1.0, count), (row[:count] - low) / (high - low))
        for row, count, (low, high) in zip(grid, counts, limits, strict=True)
    ]
    return torch.tensor(np.array(rows))


def grid_map(nodes: torch.Tensor, limits: Array) -> vegas.AdaptiveMap:
    """A grid on the unit cube (dim, m + 1) as a `vegas.AdaptiveMap` of the region.

    >>> grid_map(torch.tensor([[0.0, 0.25, 1.0]]), np.array([[0.0, 4.0]]))([0.5]).tolist()
    [1.0]
    """
    rows = nodes.cpu().double().numpy()
    return vegas.AdaptiveMap((limits[:, :1] + rows * (limits[:, 1:] - limits[:, :1])).tolist())


class SamplerMap:
    """A sampler as a map from the unit cube to the region, with the methods of `vegas.AdaptiveMap`.

    What belongs to the axes of a grid raises `UnsupportedError`.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> found = SamplerMap(UniformSampler(1), np.array([[0.0, 4.0]]))
    >>> found([[0.5]]).tolist(), found.jac([[0.5]]).tolist()
    ([[2.0]], [4.0])
    """

    def __init__(self, sampler: Sampler, limits: Array) -> None:
        self.sampler, self._limits, self.dim = sampler, limits, sampler.dim

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError(f"{self.sampler.describe()} has no {name}: that belongs to the axes of a grid")

    def region(self, axis: int = -1) -> Any:
        """Lower and upper end of an axis, or of all of them."""
        pairs = [(float(low), float(high)) for low, high in self._limits]
        return pairs if axis < 0 else pairs[axis]

    def settings(self, ngrid: int = 5) -> str:
        """What the sampler is."""
        return f"    {self.sampler.describe()}\n"

    def __call__(self, y: Any) -> Array:
        """Points of the region at points y (n, dim) of the cube."""
        return self._map(y)[0]

    def jac(self, y: Any) -> Array:
        """dx/dy (n,) at points y (n, dim) of the cube."""
        return self._map(y)[1]

    def map(self, y: Array, x: Array, jac: Array, ny: int = -1) -> None:
        """Fill x and jac with the points and the Jacobian at the first ny points y, or all of them."""
        n = len(y) if ny < 0 else ny
        x[:n], jac[:n] = self._map(y[:n])

    def invmap(self, x: Array, y: Array, jac: Array, nx: int = -1) -> None:
        """Fill y and jac with the cube points and the Jacobian dx/dy of the first nx points x, or of all of them."""
        n, low, width = len(x) if nx < 0 else nx, self._limits[:, 0], np.diff(self._limits).T[0]
        found, log_q = self.sampler.unmap(torch.from_numpy((x[:n] - low) / width))
        y[:n], jac[:n] = found.cpu().numpy(), np.exp(-log_q.cpu().numpy()) * width.prod()

    def _map(self, y: Any) -> tuple[Array, Array]:
        low, width = self._limits[:, 0], np.diff(self._limits).T[0]
        x, log_q = self.sampler.map(torch.from_numpy(np.array(y, dtype=float)))
        return low + width * x.cpu().numpy(), np.exp(-log_q.cpu().numpy()) * width.prod()
