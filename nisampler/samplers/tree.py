"""A density tree: boxes of the latent cube with a constant density each, sampled exactly.

It narrows what no smooth flow can: sharp cut edges and empty regions. Leaves are split where that lowers most the sum
of volume times the k-th moment norm of the weights, (⟨w^k⟩)^(1/k): k = 2 gives the smallest variance of an integral,
larger k come closer to the envelope that unweighting needs. The moment of a leaf is shrunk towards that of its parent.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nisampler.base import kernels
from nisampler.base.checks import Count, Finite, NonNegative, Whole, settings
from nisampler.base.moments import power_of_two
from nisampler.samplers.base import Sampler, State

Array = NDArray[np.float64]


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

    leaves: Annotated[Whole, Field(ge=1, le=1_000_000)] = 4000
    min_points: Count = 50
    shrinkage: NonNegative = 50.0
    order: Annotated[Finite, Field(ge=1.0)] = 4.0
    cuts: Annotated[Count, Field(ge=2)] = 8
    floor: Annotated[Finite, Field(gt=0.0, le=1.0)] = 1e-3


class DensityTree:
    """Boxes that fill the unit cube, each with a probability spread evenly over it.

    Parameters
    ----------
    low, high
        Corners of the boxes in the order of the tree, float64, shape (leaves, dim).
    probability
        Of each leaf, shape (leaves,), positive.

    Examples
    --------
    >>> halves = torch.tensor([[0.0], [0.5]]), torch.tensor([[0.5], [1.0]])
    >>> tree = DensityTree(*halves, torch.tensor([0.8, 0.2]))
    >>> tree.unmap(torch.tensor([[0.1], [0.9]]))[1].exp()
    tensor([1.6000, 0.4000])
    """

    def __init__(self, low: Tensor, high: Tensor, probability: Tensor) -> None:
        self.low, self.high, self.probability = low, high, probability
        total = torch.cumsum(probability, 0)
        self._sum = total / total[-1]
        self._start = torch.cat([self._sum.new_zeros(1), self._sum[:-1]])
        self._width = self._sum - self._start
        self._log_q = torch.log(self._width / (high - low).prod(1))

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return len(self.probability)

    def map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, dim) and log q(x) (n,): the first coordinate chooses the leaf and a place in it."""
        first = u[:, 0].contiguous()
        leaf = torch.searchsorted(self._sum, first, right=True).clamp(max=self.leaves - 1)
        inner = ((first - self._start[leaf]) / self._width[leaf]).clamp_(0.0, 1.0)
        local = u.clone()
        local[:, 0] = inner
        low, high = self.low.index_select(0, leaf), self.high.index_select(0, leaf)
        return torch.lerp(low, high, local), self._log_q[leaf]

    def unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, dim) -> u (n, dim) and log q(x) (n,)."""
        leaf = self._index.find(x)
        low, high = self.low[leaf], self.high[leaf]
        u = ((x - low) / (high - low)).clamp(0.0, 1.0)
        first = torch.addcmul(self._start[leaf], u[:, 0], self._width[leaf]).clamp(0.0, 1.0)
        return torch.cat([first.unsqueeze(1), u[:, 1:]], 1), self._log_q[leaf]

    @cached_property
    def _index(self) -> _LeafIndex:
        return _LeafIndex(self.low, self.high)


class TreeSampler(Sampler):
    """A density tree: draws a leaf by its probability and a point uniformly in it.

    >>> u = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> sampler = TreeSampler(grow_tree(u, (u[:, 0] < 0.5).double(), TreeConfig(leaves=2)))
    >>> sampler.describe(), bool(sampler.sample(100, torch.Generator())[0][:, 0].median() < 0.5)
    ('density tree (2 leaves)', True)
    """

    kind = "tree"

    def __init__(self, tree: DensityTree) -> None:
        self.tree = tree
        self.dim = int(tree.low.shape[1])

    @property
    def device(self) -> torch.device:
        return self.tree.low.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.tree.map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.tree.unmap(x)

    def describe(self) -> str:
        return f"density tree ({self.tree.leaves} leaves)"

    def state(self) -> State:
        tree = self.tree
        tensors = {"low": tree.low, "high": tree.high, "probability": tree.probability}
        return tensors, {"kind": self.kind, "dim": self.dim}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        return cls(DensityTree(**tensors))

    def cost(self, costs: Mapping[str, float]) -> float:
        return costs["tree"]


class _LeafIndex:
    """Finds the leaf of a point by bisection over the leaves in their order along the tree."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        nodes = _rebuild(low.cpu().numpy(), high.cpu().numpy())
        device = low.device
        self.axis = torch.tensor([n[0] for n in nodes], device=device)
        self.cut = torch.tensor([n[1] for n in nodes], dtype=torch.float64, device=device)
        self.children = torch.tensor([[n[2], n[3]] for n in nodes], device=device)
        self.depth = max(n[4] for n in nodes)

    def find(self, x: Tensor) -> Tensor:
        """Leaf index (n,) of points (n, dim)."""
        node = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        for _ in range(self.depth):
            inside = node.clamp(min=0)
            coordinate = x.gather(1, self.axis[inside].unsqueeze(1)).squeeze(1)
            right = (coordinate >= self.cut[inside]).long()
            child = self.children[inside].gather(1, right.unsqueeze(1)).squeeze(1)
            node = torch.where(node >= 0, child, node)
        return -1 - node


def _rebuild(low: Array, high: Array) -> list[tuple[int, float, int, int, int]]:
    """Cuts (axis, position, left, right, depth) from leaf boxes in tree order; children < 0 are leaves -1 - i.

    The first leaf of a node has its lower corner and the last one its upper corner; the cut is where the leaves
    split into a lower and an upper part.
    """
    nodes: list[tuple[int, float, int, int, int]] = []
    if len(low) == 1:
        return [(0, 2.0, -1, -1, 1)]
    stack = [(0, len(low), -1, 0, 1)]
    while stack:
        begin, end, parent, side, depth = stack.pop()
        if end - begin == 1:
            index = -1 - begin
        else:
            axis, middle = _first_cut(low[begin:end], high[begin:end])
            index = len(nodes)
            nodes.append((axis, float(low[begin + middle, axis]), 0, 0, depth))
            stack.append((begin, begin + middle, index, 0, depth + 1))
            stack.append((begin + middle, end, index, 1, depth + 1))
        if parent >= 0:
            node = nodes[parent]
            left, right = (index, node[3]) if side == 0 else (node[2], index)
            nodes[parent] = (node[0], node[1], left, right, node[4])
    return nodes


def _first_cut(low: Array, high: Array) -> tuple[int, int]:
    """Axis and number of leaves of the lower part of the one cut that separates consecutive leaves."""
    reached = np.maximum.accumulate(high, axis=0)[:-1]
    start = np.minimum.accumulate(low[::-1], axis=0)[::-1][1:]
    position, axis = np.nonzero(reached <= start)
    return int(axis[0]), int(position[0]) + 1


@dataclass(order=True)
class _Leaf:
    priority: float
    number: int
    low: Array = field(compare=False)
    high: Array = field(compare=False)
    points: NDArray[np.int64] = field(compare=False)
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
    config = config or TreeConfig()
    points = np.ascontiguousarray(u.double().cpu().numpy())
    size = weights.double().abs().cpu().numpy()
    size = size / power_of_two(float(size.max(initial=0.0)))
    scale = size.mean() if size.size and size.mean() > 0 else 1.0
    factor = np.ones(len(size)) if importance is None else importance.double().cpu().numpy()
    builder = _Builder(points, factor * (size / scale) ** config.order, factor, config)
    low, high, density = builder.grow()
    mass = density * np.prod(high - low, axis=1)
    mass /= mass.sum()
    device = u.device
    return DensityTree(*(torch.from_numpy(a).to(device) for a in (low, high, mass)))


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

    def __init__(self, points: Array, powers: Array, factor: Array, config: TreeConfig) -> None:
        self.points, self.powers, self.factor, self.config = points, powers, factor, config
        self.count = (_compiled_count() if kernels.at_work() else None) or count_cells
        self.root = float(powers.sum() / max(factor.sum(), 1e-300))
        self.dim = points.shape[1]

    def grow(self) -> tuple[Array, Array, Array]:
        """Boxes and densities of the leaves, in tree order."""
        everything = np.arange(len(self.points))
        counter = 0
        heap = [self._leaf(0, np.zeros(self.dim), np.ones(self.dim), everything, self.root, ())]
        done: list[_Leaf] = []
        while heap and len(heap) + len(done) < self.config.leaves:
            leaf = heapq.heappop(heap)
            if leaf.axis < 0:
                done.append(leaf)
                continue
            right = self.points[leaf.points, leaf.axis] >= leaf.cut
            for side, chosen in enumerate((leaf.points[~right], leaf.points[right])):
                low, high = leaf.low.copy(), leaf.high.copy()
                (high if side == 0 else low)[leaf.axis] = leaf.cut
                counter += 1
                heapq.heappush(
                    heap,
                    self._leaf(counter, low, high, chosen, leaf.moment, (*leaf.path, side)),
                )
        leaves = sorted(heap + done, key=lambda leaf: leaf.path)
        norm = np.array([leaf.moment for leaf in leaves]) ** (1.0 / self.config.order)
        volume = np.prod(np.array([leaf.high - leaf.low for leaf in leaves]), axis=1)
        mean = float((norm * volume).sum())
        norm = np.maximum(norm, self.config.floor * mean) if mean > 0.0 else np.ones_like(norm)
        return np.array([leaf.low for leaf in leaves]), np.array([leaf.high for leaf in leaves]), norm

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
        return _Leaf(-gain, number, low, high, chosen, moment, axis, cut, path)

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
