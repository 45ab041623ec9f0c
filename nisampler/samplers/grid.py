"""VEGAS grids, adapted by the vegas library (Lepage, J. Comput. Phys. 27 (1978) 192; 2009.05112).

The library refines the grid; the grid itself is a tensor, so that it maps points on any device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checks import Positive, Several, checked
from nisampler.samplers.base import Sampler, State

Array = NDArray[np.float64]

_NARROWEST = 1e-12
# Relative widths of cells whose product cannot vanish.
_FACTORS = 24


@dataclass(frozen=True)
class VegasGrid:
    """A product of piecewise-constant densities: each cell of a coordinate's grid has the same probability.

    Parameters
    ----------
    nodes
        Float64, shape (dim, increments + 1), rising from 0 to 1 in each row.

    Examples
    --------
    >>> grid = VegasGrid(torch.tensor([[0.0, 0.25, 1.0]], dtype=torch.float64))
    >>> grid.map(torch.tensor([[0.25], [0.75]], dtype=torch.float64))[0].flatten().tolist()
    [0.125, 0.625]
    """

    nodes: Tensor

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.nodes.shape[0])

    @property
    def increments(self) -> int:
        """Number of cells of each coordinate."""
        return int(self.nodes.shape[1]) - 1

    def map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, dim) and log q(x) (n,)."""
        if self.nodes.device.type == "cpu":
            return self._map_compiled(u)
        scaled = (u.t() * self.increments).contiguous()
        cell = scaled.long().clamp_(max=self.increments - 1)
        inner = scaled.sub_(cell)
        low = self.nodes.gather(1, cell)
        width = self.nodes.gather(1, cell.add_(1)).sub_(low)
        x = torch.addcmul(low, inner, width).clamp_(0.0, 1.0)
        return x.t(), self._log_density(width)

    def _map_compiled(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The same by the compiled loop of the vegas library, which takes a third of the time."""
        n, found = len(u), []
        for columns, compiled in self._compiled:
            y = np.ascontiguousarray(u[:, columns].double().numpy())
            x, volume = np.empty_like(y), np.empty(n)
            compiled.map(y, x, volume)
            found.append((torch.from_numpy(x), -torch.from_numpy(volume).log_()))
        if len(found) == 1:
            return found[0]
        return torch.cat([x for x, _ in found], 1), torch.stack([log_q for _, log_q in found]).sum(0)

    @cached_property
    def _compiled(self) -> list[tuple[slice, Any]]:
        """Grids of a few coordinates each, for the vegas library."""
        import vegas  # not before it is needed

        rows = self.nodes.tolist()
        groups = [slice(first, first + _FACTORS) for first in range(0, self.dim, _FACTORS)]
        return [(columns, vegas.AdaptiveMap(rows[columns])) for columns in groups]

    def unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, dim) -> u (n, dim) and log q(x) (n,)."""
        points = x.t().contiguous()
        cell = (torch.searchsorted(self.nodes, points, right=True) - 1).clamp(0, self.increments - 1)
        low = self.nodes.gather(1, cell)
        width = self.nodes.gather(1, cell + 1) - low
        u = ((cell + (points - low) / width) / self.increments).clamp(0.0, 1.0)
        return u.t(), self._log_density(width)

    def _log_density(self, width: Tensor) -> Tensor:
        """log q (n,) in cells of these widths (dim, n); with few logarithms, as products of a few widths are safe."""
        parts = torch.split(width * self.increments, _FACTORS)
        return -sum((torch.log(part.prod(0)) for part in parts), start=width.new_zeros(()))


class VegasSampler(Sampler):
    """An adapted VEGAS grid: a product of one-dimensional piecewise-constant densities (Lepage, 2009.05112).

    >>> grid = VegasGrid(torch.tensor([[0.0, 0.25, 1.0]], dtype=torch.float64))
    >>> VegasSampler(grid).log_prob(torch.tensor([[0.1]])).exp()
    tensor([2.], dtype=torch.float64)
    """

    kind = "vegas"

    def __init__(self, grid: VegasGrid) -> None:
        self.grid = grid
        self.dim = grid.dim

    @property
    def device(self) -> torch.device:
        return self.grid.nodes.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.unmap(x)

    def describe(self) -> str:
        return f"vegas ({self.grid.increments} increments)"

    def state(self) -> State:
        return {"nodes": self.grid.nodes}, {"kind": self.kind, "dim": self.dim}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        return cls(VegasGrid(tensors["nodes"]))


class VegasAdapter:
    """Refines a grid from weighted points, iteration after iteration.

    Parameters
    ----------
    dim
        Number of coordinates.
    increments
        Cells of each coordinate.
    alpha
        Damping of the refinement; smaller is slower and steadier.
    nodes
        A grid to continue from; the uniform one by default.

    Examples
    --------
    >>> adapter, u = VegasAdapter(1, 16), torch.linspace(0.0, 1.0, 1000).unsqueeze(1)
    >>> adapter.add(u, (u[:, 0] - 0.5).abs())
    >>> adapter.refine()
    >>> float(adapter.grid().nodes[0].diff().argmax())
    7.0
    """

    def __init__(self, dim: int, increments: int = 256, alpha: float = 0.5, nodes: Tensor | None = None) -> None:
        increments = checked("increments", increments, Several)
        alpha = checked("alpha", alpha, Positive)
        import vegas  # takes as long as torch does, so not before it is needed

        start = [[0.0, 1.0]] * dim if nodes is None else nodes.cpu().tolist()
        self._map = vegas.AdaptiveMap(start, ninc=increments)
        self.increments, self.alpha = increments, alpha

    def add(self, u: Tensor, weights: Tensor) -> None:
        """Account for points u (n, dim) of the grid's own latent cube with weights f/q (n,); signs do not matter."""
        size = np.abs(weights.double().cpu().numpy())
        largest = float(size.max(initial=0.0))
        if largest > 0.0:
            points = np.ascontiguousarray(u.double().cpu().numpy())
            self._map.add_training_data(points, np.ascontiguousarray((size / largest) ** 2))

    def refine(self) -> None:
        """Adapt the grid to the points added since the last call, with neighbouring cells of comparable widths."""
        self._map.adapt(alpha=self.alpha, ninc=self.increments)
        nodes = self._nodes()
        graded = _graded(nodes)
        if graded.shape != nodes.shape:
            self._map = type(self._map)(graded.tolist())

    def grid(self, device: torch.device | str = "cpu") -> VegasGrid:
        """The present grid, with cells no narrower than 1e-12."""
        return VegasGrid(torch.from_numpy(self._nodes()).to(device))

    def _nodes(self) -> Array:
        nodes = np.asarray(self._map.grid)
        widths = np.maximum(np.diff(nodes, axis=1), _NARROWEST)
        edges = np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(widths, axis=1)], axis=1)
        return np.asarray(edges / edges[:, -1:])


def _graded(nodes: Array) -> Array:
    """Nodes (dim, m + 1) with cells inserted where a cell is much wider than its neighbour.

    Next to a peak, VEGAS leaves a wide cell that reaches into the flank of the peak, with a density far below what the
    flank needs: its points would be so rare that neither value nor error of an integral show that they are missing.
    """
    rows = [_graded_row(row) for row in nodes]
    most = max(len(row) for row in rows)
    quantiles = np.linspace(0.0, 1.0, most)
    even = [row if len(row) == most else np.interp(quantiles, np.linspace(0.0, 1.0, len(row)), row) for row in rows]
    return np.array(even)


def _graded_row(nodes: Array) -> Array:
    while True:
        width = np.diff(nodes)
        left = np.concatenate([[np.inf], width[:-1]])
        right = np.concatenate([width[1:], [np.inf]])
        near = tuning.STEEPEST_CELLS * np.minimum(left, right)
        wide = width > 1.5 * near
        if not wide.any():
            return nodes
        cut = np.where(left <= right, nodes[:-1] + near, nodes[1:] - near)
        nodes = np.sort(np.concatenate([nodes, cut[wide]]))
