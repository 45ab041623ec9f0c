"""A density tree: boxes of the latent cube with a constant density each, sampled exactly.

It narrows what no smooth flow can: sharp cut edges and empty regions. How it grows is told in `growth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.samplers.base import Sampler, State

Array = NDArray[np.float64]


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

    >>> low, high, probability = (torch.tensor(part).double() for part in ([[0.0], [0.5]], [[0.5], [1.0]], [0.9, 0.1]))
    >>> sampler = TreeSampler(DensityTree(low, high, probability))
    >>> sampler.describe(), bool(sampler.sample(100, torch.Generator())[0].median() < 0.5)
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
