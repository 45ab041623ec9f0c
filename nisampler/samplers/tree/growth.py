"""How density trees grow.

Leaves are split where that lowers most the sum of volume times the k-th moment norm of the weights, (⟨w^k⟩)^(1/k):
k = 2 gives the smallest variance of an integral, larger k come closer to the envelope that unweighting needs. The
moment of a leaf is shrunk towards that of its parent.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nisampler.base import kernels, tuning
from nisampler.base.checks import Count, Finite, NonNegative, Whole, settings
from nisampler.base.moments import power_of_two
from nisampler.samplers.tree.density import Array, DensityTree

# Weights, in units of the mean of those known first, whose powers and sums of powers stay far from an overflow.
_LARGEST = 1e15


@settings
class TreeConfig:
    """How a density tree grows.

    Parameters
    ----------
    leaves
        Largest number of leaves.
    min_points
        Fewest points in a leaf.
    shrinkage
        Pseudo-points by which a leaf's moment is pulled towards its parent's; 0 overfits the tail.
    order
        k of the moment norm.
    cuts
        A box is cut at one of (cuts - 1) equidistant positions of one coordinate.
    floor
        Share of the mean density that an empty leaf keeps, so that nothing is excluded.

    Examples
    --------
    >>> TreeConfig(leaves=100).order
    4.0
    """

    leaves: Annotated[Whole, Field(ge=1, le=1_000_000)] = 50_000
    min_points: Count = 50
    shrinkage: NonNegative = 50.0
    order: Annotated[Finite, Field(ge=1.0)] = 4.0
    cuts: Annotated[Count, Field(ge=2)] = 8
    floor: Annotated[Finite, Field(gt=0.0, le=1.0)] = 1e-3


@dataclass(order=True)
class _Leaf:
    priority: float
    number: int
    low: Array = field(compare=False)
    high: Array = field(compare=False)
    points: NDArray[np.int64] = field(compare=False)
    parent: float = field(compare=False)
    moment: float = field(compare=False)
    axis: int = field(compare=False, default=-1)
    cut: float = field(compare=False, default=0.0)
    path: tuple[int, ...] = field(compare=False, default=())


def grow_tree(
    u: Tensor, weights: Tensor, config: TreeConfig | None = None, importance: Tensor | None = None
) -> DensityTree:
    """Grow a density tree for points of the latent cube.

    Parameters
    ----------
    u
        Points, shape (n, dim).
    weights
        f/q at the points, shape (n,); signs do not matter.
    config
        Size, shrinkage and moment.
    importance
        Factors (n,) that make the points uniform in the cube; one by default.

    Returns
    -------
    DensityTree
        On the device of `u`.

    Examples
    --------
    >>> u = torch.rand(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> grow_tree(u, (u[:, 0] > 0.5).double(), TreeConfig(leaves=2)).high[0]
    tensor([0.5000], dtype=torch.float64)
    """
    builder = _Builder(u, weights, importance, config or TreeConfig())
    builder.grow()
    return builder.tree()


def explore_tree(
    weigh: Callable[[Tensor], Tensor],
    calls: int,
    known: tuple[Tensor, Tensor],
    config: TreeConfig | None = None,
    generator: torch.Generator | None = None,
) -> DensityTree:
    """Grow a density tree that asks for points where it does not know enough: cells are explored as in Foam.

    In rounds, new points are thrown into each leaf in proportion to its volume times what its density is above the mean
    of its weights: where weights are even there is nothing to gain. Where all of them are, points go everywhere. They
    stay uniform inside each leaf.

    Parameters
    ----------
    weigh
        Weights f/q (n,) of points u (n, dim).
    calls
        How many points it may be asked for.
    known
        Uniform points (n, dim) to begin with, and their weights (n,).
    config
        As for `grow_tree`.
    generator
        Source of the new points, on the device of `known`.

    References
    ----------
    Jadach, physics/0203033, throws points into cells before it divides them.

    Examples
    --------
    >>> disc = lambda u: (u.square().sum(1) < 1.0).double()
    >>> u = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> tree = explore_tree(disc, 9000, (u, disc(u)), TreeConfig(min_points=10, shrinkage=3.0, order=8.0))
    >>> tree.leaves > 3 * grow_tree(u, disc(u), TreeConfig(min_points=10)).leaves
    True
    """
    u, weights = known
    builder = _Builder(u, weights, None, config or TreeConfig())
    builder.grow()
    for left in range(tuning.ROUNDS, 0, -1):
        share = calls // left
        calls -= share
        even = torch.rand(share, u.shape[1], generator=generator, dtype=torch.float64, device=u.device)
        builder.explore(weigh, even)
        builder.grow()
    return builder.tree()


def count_cells(
    points: Array, powers: Array, factor: Array, chosen: NDArray[np.int64], low: Array, scale: Array, found: Array
) -> None:
    """Add points, their powers and their factors up in cells of each axis.

    Parameters
    ----------
    points, powers, factor
        All points (n, dim), and their numbers (n,).
    chosen
        Indices of the points inside a box, shape (m,).
    low, scale
        Its lower corner (dim,), and cells over its width (dim,).
    found
        Zeros (3, dim, cells), to be filled.

    Examples
    --------
    >>> found, ones = np.zeros((3, 1, 2)), np.ones(2)
    >>> count_cells(np.array([[0.1], [0.9]]), 2.0 * ones, ones, np.arange(2), np.zeros(1), np.array([2.0]), found)
    >>> found[:, 0].tolist()
    [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]
    """
    _, dim, cells = found.shape
    cell = np.clip(((points[chosen] - low) * scale).astype(np.int64), 0, cells - 1)
    flat = (cell + np.arange(dim) * cells).ravel()
    for row, values in zip(found, (None, powers[chosen], factor[chosen]), strict=True):
        spread = None if values is None else np.repeat(values, dim)
        row[:] = np.bincount(flat, spread, dim * cells).reshape(dim, cells)


def count_each(
    points: Any, powers: Any, factor: Any, chosen: Any, low: Any, scale: Any, found: Any
) -> None:  # pragma: no cover
    """What `count_cells` does, point after point, to be compiled: the sums have the same order and the same bits.

    >>> found, ones = np.zeros((3, 1, 2)), np.ones(2)
    >>> count_each(np.array([[0.1], [0.9]]), 2.0 * ones, ones, np.arange(2), np.zeros(1), np.array([2.0]), found)
    >>> found[:, 0].tolist()
    [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]
    """
    last = found.shape[2] - 1
    for i in chosen:
        for axis in range(found.shape[1]):
            cell = min(max(int((points[i, axis] - low[axis]) * scale[axis]), 0), last)
            found[0, axis, cell] += 1.0
            found[1, axis, cell] += powers[i]
            found[2, axis, cell] += factor[i]


@cache
def _compiled_count() -> Any:
    """`count_each` for the machine, or None."""

    def load() -> Any:
        found, row, none = kernels.kept(count_each, nogil=True), np.zeros(1), np.zeros(0, np.int64)
        found(np.zeros((1, 1)), row, row, none, row, row, np.zeros((3, 1, 2)))
        return found

    return kernels.tried(load, "density trees grow in plain NumPy")


class _Builder:
    """Best-first growth: the leaf whose best cut lowers the objective most is cut next."""

    def __init__(self, u: Tensor, weights: Tensor, importance: Tensor | None, config: TreeConfig) -> None:
        self.config, self.device, self.dim = config, u.device, u.shape[1]
        self.count = (_compiled_count() if kernels.at_work() else None) or count_cells
        size = weights.double().abs()
        self.unit = power_of_two(float(size.max())) if len(size) else 1.0
        mean = float((size / self.unit).mean()) if len(size) else 0.0
        self.scale = mean if mean > 0.0 else 1.0
        self.points = np.ascontiguousarray(u.double().cpu().numpy())
        self.factor = np.ones(len(size)) if importance is None else importance.double().cpu().numpy()
        self.size = self._sizes(weights)
        self.powers = self.factor * self.size**config.order
        root = float(self.powers.sum() / max(self.factor.sum(), 1e-300))
        everything = np.arange(len(size))
        self.number = 0
        self.leaves = [self._leaf(0, np.zeros(self.dim), np.ones(self.dim), everything, root, ())]

    def _sizes(self, weights: Tensor) -> Array:
        """Weights (n,) without their sign, in units of the mean of the first ones."""
        found: Array = (weights.double().abs() / self.unit / self.scale).cpu().numpy()
        return found

    def grow(self) -> None:
        """Cut leaves as long as that is worth something."""
        waiting, final = self.leaves, list[_Leaf]()
        heapq.heapify(waiting)
        while waiting and len(waiting) + len(final) < self.config.leaves:
            leaf = heapq.heappop(waiting)
            if leaf.axis < 0:
                final.append(leaf)
                continue
            right = self.points[leaf.points, leaf.axis] >= leaf.cut
            for side, chosen in enumerate((leaf.points[~right], leaf.points[right])):
                low, high = leaf.low.copy(), leaf.high.copy()
                (high if side == 0 else low)[leaf.axis] = leaf.cut
                self.number += 1
                heapq.heappush(waiting, self._leaf(self.number, low, high, chosen, leaf.moment, (*leaf.path, side)))
        self.leaves = waiting + final

    def explore(self, weigh: Callable[[Tensor], Tensor], u: Tensor) -> None:
        """Learn the weights of new points where the tree knows least: uniform ones (n, dim), moved into its leaves."""
        low, high = (np.array([getattr(leaf, name) for leaf in self.leaves]) for name in ("low", "high"))
        share = np.cumsum([self._excess(leaf) for leaf in self.leaves])
        if not share[-1] > 0.0:
            share = np.cumsum(np.prod(high - low, axis=1))
        even = (np.arange(len(u)) + 0.5) / len(u)
        chosen = np.minimum(np.searchsorted(share / share[-1], even, side="right"), len(self.leaves) - 1)
        begin, end = (torch.from_numpy(corner[chosen]).to(u) for corner in (low, high))
        u = torch.lerp(begin, end, u)
        self._add(chosen, u, weigh(u))

    def _add(self, places: NDArray[np.int64], u: Tensor, weights: Tensor) -> None:
        """Take points (n, dim) and their weights into account; `places` of their leaves (n,) ascend."""
        first, size = len(self.points), self._sizes(weights)
        largest = float(size.max(initial=0.0))
        if largest > _LARGEST:
            size = size / largest
            self._shrink(largest)
        self.points = np.concatenate([self.points, u.double().cpu().numpy()])
        self.size = np.concatenate([self.size, size])
        self.factor = np.concatenate([self.factor, np.ones(len(size))])
        self.powers = np.concatenate([self.powers, size**self.config.order])
        edges = np.searchsorted(places, np.arange(len(self.leaves) + 1)) + first
        for place, leaf in enumerate(self.leaves):
            new = np.arange(edges[place], edges[place + 1])
            if len(new):
                chosen = np.concatenate([leaf.points, new])
                self.leaves[place] = self._leaf(leaf.number, leaf.low, leaf.high, chosen, leaf.parent, leaf.path)

    def _shrink(self, by: float) -> None:
        """Count weights in units that are so many times larger: powers of a peak that was unknown would overflow."""
        order = self.config.order
        self.scale *= by
        self.size /= by
        self.powers = self.factor * self.size**order
        self.leaves = [
            replace(leaf, priority=leaf.priority / by, parent=leaf.parent * by**-order, moment=leaf.moment * by**-order)
            for leaf in self.leaves
        ]

    def _excess(self, leaf: _Leaf) -> float:
        """Volume times density above the mean of the weights: what cuts of a leaf could gain at most."""
        factor = self.factor[leaf.points]
        mean = float((self.size[leaf.points] * factor).sum() / max(factor.sum(), 1e-300))
        norm: float = leaf.moment ** (1.0 / self.config.order)
        return float(np.prod(leaf.high - leaf.low)) * max(norm - mean, 0.0)

    def tree(self) -> DensityTree:
        """The leaves with their densities."""
        leaves = sorted(self.leaves, key=lambda leaf: leaf.path)
        low, high = np.array([leaf.low for leaf in leaves]), np.array([leaf.high for leaf in leaves])
        norm = np.array([leaf.moment for leaf in leaves]) ** (1.0 / self.config.order)
        volume = np.prod(high - low, axis=1)
        mean = float((norm * volume).sum())
        mass = volume * (np.maximum(norm, self.config.floor * mean) if mean > 0.0 else 1.0)
        return DensityTree(*(torch.from_numpy(part).to(self.device) for part in (low, high, mass / mass.sum())))

    def _leaf(
        self,
        number: int,
        low: Array,
        high: Array,
        chosen: NDArray[np.int64],
        parent: float,
        path: tuple[int, ...],
    ) -> _Leaf:
        total, count = self.powers[chosen].sum(), self.factor[chosen].sum()
        shrinkage = self.config.shrinkage
        moment = float((total + shrinkage * parent) / max(count + shrinkage, 1e-300))
        gain, axis, cut = self._best_cut(low, high, chosen, moment)
        return _Leaf(-gain, number, low, high, chosen, parent, moment, axis, cut, path)

    def _best_cut(self, low: Array, high: Array, chosen: NDArray[np.int64], moment: float) -> tuple[float, int, float]:
        """(gain, axis, position) of the best cut; axis -1 if no cut leaves enough points on both sides."""
        config = self.config
        if len(chosen) < 2 * config.min_points:
            return 0.0, -1, 0.0
        width = high - low
        scale = config.cuts / width
        found = np.zeros((3, self.dim, config.cuts))
        self.count(self.points, self.powers, self.factor, chosen, low, scale, found)
        below = np.cumsum(found, axis=2)
        sides = np.stack([below[:, :, :-1], below[:, :, -1:] - below[:, :, :-1]])
        number, powers, factor = sides[:, 0], sides[:, 1], sides[:, 2]
        pseudo = config.shrinkage
        share = np.arange(1, config.cuts) / config.cuts
        norm = ((powers + pseudo * moment) / np.maximum(factor + pseudo, 1e-300)) ** (1.0 / config.order)
        cost = share * norm[0] + (1 - share) * norm[1]
        cost[(number < config.min_points).any(0)] = np.inf
        best = int(np.argmin(cost))
        axis, position = divmod(best, config.cuts - 1)
        gain = (moment ** (1.0 / config.order) - float(cost.flat[best])) * float(np.prod(width))
        if not math.isfinite(gain) or gain <= 0.0:
            return 0.0, -1, 0.0
        return gain, axis, float(low[axis] + width[axis] * share[position])
