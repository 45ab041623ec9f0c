"""A transformer of sets of points that lie in layers: attention within a set, to neighbouring layers alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.checks import Count, Depth, Natural, Width, settings
from nisampler.errors import ConfigError
from nisampler.flows.nets.mlp import ACTIVATIONS, Activation, make_linear
from nisampler.flows.nets.pointwise import Embedding
from nisampler.flows.solvers import SolverName

# Entries of the attention of one head that are computed at a time, and sets of alike size that are padded together.
_MOST_PAIRS, _MOST_SETS = 1 << 20, 32


@settings
class PointTransformerConfig:
    """A transformer of points and how its velocity is integrated.

    Parameters
    ----------
    kind
        Says which network settings belong to.
    hidden, layers, heads, expansion
        Width, blocks, heads of the attention, and width of the perceptrons over `hidden`.
    reach
        Points see those of layers at most so many positions away.
    activation
        A key of `ACTIVATIONS`.
    frequencies
        Number of frequencies of the time.
    solver, steps
        As those of `VelocityConfig`.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range, or the heads do not divide the width.

    Examples
    --------
    >>> PointTransformerConfig(hidden=10)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: 4 heads do not divide a width of 10
    """

    kind: Literal["point-transformer"] = "point-transformer"
    hidden: Width = 64
    layers: Depth = 4
    heads: Width = 4
    expansion: Depth = 4
    reach: Natural = 2
    activation: Activation = "gelu"
    frequencies: Natural = 8
    solver: SolverName = "midpoint"
    steps: Count = 16

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide a width of {self.hidden}")


class _Block(nn.Module):
    """Attention and a perceptron, each on normalised points that their layer scales and shifts."""

    def __init__(self, config: PointTransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        hidden, wide = config.hidden, config.hidden * config.expansion
        self.heads = config.heads
        self.gates = make_linear(hidden, 4 * hidden, generator, gain=0.0)
        self.qkv = make_linear(hidden, 3 * hidden, generator)
        self.joined = make_linear(hidden, hidden, generator)
        self.first, self.second = make_linear(hidden, wide, generator), make_linear(wide, hidden, generator)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, known: Tensor, seen: Tensor) -> Tensor:
        a, b, c, d = self.gates(known).chunk(4, dim=2)
        n, p, hidden = x.shape
        y = functional.layer_norm(x, (hidden,)) * (1 + a) + b
        q, k, v = self.qkv(y).reshape(n, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.joined(found.transpose(1, 2).reshape(n, p, hidden))
        y = functional.layer_norm(x, (hidden,)) * (1 + c) + d
        result: Tensor = x + self.second(self._activation(self.first(y)))
        return result


class PointTransformer(nn.Module):
    """Points (m, d) of sets that consist of layers -> (m, d), each given those of its set in layers near its own.

    Groups are the layers of the sets: the first `depth` groups are those of the first set. Sets of alike size are
    padded together; what is padded is seen by nobody. The last layer starts at zero.

    Parameters
    ----------
    dim, context_dim, depth
        Numbers of coordinates of a point, of conditions of a group, and of layers of a set.
    config
        Width, depth and reach.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> net = PointTransformer(3, 2, 2, PointTransformerConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 3), torch.zeros(4, 1), torch.zeros(4, 2), torch.tensor([0, 1, 1, 2, 3])).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, dim: int, context_dim: int, depth: int, config: PointTransformerConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.depth, self.reach = depth, config.reach
        self.embedding = Embedding(context_dim, config.hidden, config.frequencies, generator)
        self.input = make_linear(dim, config.hidden, generator)
        self.blocks = nn.ModuleList(_Block(config, generator) for _ in range(config.layers))
        self.output = make_linear(config.hidden, dim, generator, gain=0.0)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, rows: Tensor) -> Tensor:
        """Points (m, d) of groups `rows` (m,) with t (g, 1) and a context (g, c)."""
        groups, found = self.embedding(t, context), torch.zeros_like(x)
        for index in self._chunks(rows, len(context) // self.depth):
            there = index >= 0
            own = index.clamp(min=0)
            y = self._sets(x[own], groups[rows[own]], rows[own] % self.depth, there)
            found = found.index_put((index[there],), y[there])
        return found

    def _sets(self, x: Tensor, known: Tensor, layer: Tensor, there: Tensor) -> Tensor:
        """Padded points (n, P, d) of which those `there` (n, P) exist."""
        near = (layer.unsqueeze(2) - layer.unsqueeze(1)).abs() <= self.reach
        itself = torch.eye(layer.shape[1], dtype=torch.bool, device=x.device)
        seen = ((near & there.unsqueeze(1)) | itself).unsqueeze(1)
        x = self.input(x) + known
        for block in self.blocks:
            x = block(x, known, seen)
        found: Tensor = self.output(functional.layer_norm(x, (x.shape[2],)))
        return found

    def _chunks(self, rows: Tensor, sets: int) -> Iterator[Tensor]:
        """Numbers of points (n, P) of sets of alike size, -1 where there is none."""
        owner = rows // self.depth
        counts = torch.bincount(owner, minlength=sets)
        points, starts = owner.argsort(stable=True), counts.cumsum(0) - counts
        order = counts.argsort(descending=True, stable=True)
        sizes = counts[order].tolist()
        first = 0
        while first < sets and sizes[first]:
            width = sizes[first]
            chosen = order[first : first + max(1, min(_MOST_SETS, _MOST_PAIRS // width**2))]
            place = torch.arange(width, device=rows.device)
            inside = place < counts[chosen].unsqueeze(1)
            index = (starts[chosen].unsqueeze(1) + place).clamp(max=len(points) - 1)
            yield torch.where(inside, points[index], -1)
            first += len(chosen)
