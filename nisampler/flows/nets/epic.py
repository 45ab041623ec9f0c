"""EPiC networks: maps of masked sets of points that do not know an order (2301.08128, 2310.00049).

Points speak to each other only through a few numbers for the whole set, so that the cost grows with the number of
points and not with its square. Places that the mask leaves out change nothing and stay zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from nisampler.base.checks import Count, Depth, Positive, Width, settings
from nisampler.errors import ShapeError
from nisampler.flows.nets.mlp import make_linear


@settings
class EpicConfig:
    """Settings of an EPiC network; the defaults are those of EPiC-FM (2310.00049).

    Parameters
    ----------
    layers, hidden
        Number of EPiC layers, and their width for each point.
    shared
        Numbers for the whole set.
    frequencies
        Cosines of the time that the network is given.
    sum_scale
        Factor of the sum over the points, which stands beside their mean.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> EpicConfig(hidden=32).layers
    6
    """

    layers: Depth = 6
    hidden: Width = 128
    shared: Width = 10
    frequencies: Count = 16
    sum_scale: Positive = 1e-2


class _Joined(nn.Module):
    """A linear layer with normalised weights (1602.07868) of what each point has and of what all points share."""

    def __init__(self, d_point: int, d_shared: int, d_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.d_point = d_point
        self.layer = weight_norm(make_linear(d_point + d_shared, d_out, generator))

    def forward(self, points: Tensor, shared: Tensor) -> Tensor:
        """(n, m, d_point) and (n, d_shared) to (n, m, d_out); the shared part is multiplied once for each set."""
        weight = self.layer.weight
        common = functional.linear(shared, weight[:, self.d_point :], self.layer.bias)
        return functional.linear(points, weight[:, : self.d_point]) + common.unsqueeze(1)


class EpicLayer(nn.Module):
    """One exchange between the points and what they share, both with residuals.

    Parameters
    ----------
    config
        Widths.
    context_dim
        Numbers that are known of each set, time included.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> layer = EpicLayer(EpicConfig(hidden=4, shared=2), 1, torch.Generator().manual_seed(0))
    >>> x, shared = layer(torch.zeros(5, 3, 4), torch.zeros(5, 2), torch.zeros(5, 1), torch.ones(5, 3, 1))
    >>> x.shape, shared.shape
    (torch.Size([5, 3, 4]), torch.Size([5, 2]))
    """

    def __init__(self, config: EpicConfig, context_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden, shared = config.hidden, config.shared
        self.scale = config.sum_scale
        pooled = 2 * hidden + shared + context_dim
        self.pool = weight_norm(make_linear(pooled, hidden, generator))
        self.share = weight_norm(make_linear(hidden, shared, generator))
        self.inner = _Joined(hidden, shared + context_dim, hidden, generator)
        self.outer = weight_norm(make_linear(hidden, hidden, generator))

    def forward(self, x: Tensor, shared: Tensor, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, m, hidden), what they share (n, shared), context (n, c) and mask (n, m, 1): the first two anew."""
        pooled = functional.leaky_relu(self.pool(torch.cat([pool(x, mask, self.scale), shared, context], dim=1)))
        shared = functional.leaky_relu(self.share(pooled) + shared)
        inner = functional.leaky_relu(self.inner(x, torch.cat([shared, context], dim=1)))
        return functional.leaky_relu(self.outer(inner) + x) * mask, shared


def pool(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Mean and scaled sum (n, 2 d) of the points (n, m, d) that the mask (n, m, 1) leaves.

    >>> pool(torch.tensor([[[1.0], [3.0], [7.0]]]), torch.tensor([[[1.0], [1.0], [0.0]]]), 0.5)
    tensor([[2., 2.]])
    """
    total = (x * mask).sum(1)
    return torch.cat([total / mask.sum(1).clamp_min(1.0), scale * total], dim=1)


class EpicNet(nn.Module):
    """A map of sets of points, a time and a context to a vector for each point; zero at the start.

    Exchanging points exchanges the results, and places outside the mask have no influence and the result zero.

    Parameters
    ----------
    dim
        Coordinates of a point.
    context_dim
        Numbers that are known of each set.
    config
        Sizes.
    generator
        Source of the initial weights.

    Raises
    ------
    ShapeError
        If what the network is given has other shapes.

    Examples
    --------
    >>> net = EpicNet(3, 2, EpicConfig(layers=1, hidden=8), torch.Generator().manual_seed(0))
    >>> x, mask = torch.zeros(5, 7, 3), torch.ones(5, 7, dtype=torch.bool)
    >>> net(x, torch.zeros(5, 1), mask, torch.zeros(5, 2)).shape
    torch.Size([5, 7, 3])
    """

    waves: Tensor

    def __init__(self, dim: int, context_dim: int, config: EpicConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.dim, self.context_dim, self.scale = dim, context_dim, config.sum_scale
        known = context_dim + config.frequencies
        self.register_buffer("waves", math.pi * torch.arange(1, config.frequencies + 1), persistent=False)
        self.enter = _Joined(dim, known, config.hidden, generator)
        self.lift = weight_norm(make_linear(config.hidden, config.hidden, generator))
        self.gather = weight_norm(make_linear(2 * config.hidden + known, config.hidden, generator))
        self.begin = weight_norm(make_linear(config.hidden, config.shared, generator))
        self.layers = nn.ModuleList(EpicLayer(config, known, generator) for _ in range(config.layers))
        self.leave = nn.Linear(config.hidden, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """Points (n, m, dim), times (n, 1), mask (n, m) and context (n, context_dim) to (n, m, dim)."""
        n = len(x)
        found = (tuple(x.shape[2:]), tuple(t.shape), tuple(mask.shape), tuple(context.shape))
        if found != ((self.dim,), (n, 1), tuple(x.shape[:2]), (n, self.context_dim)):
            raise ShapeError(
                f"expected points (n, m, {self.dim}), times (n, 1), a mask (n, m) and a context "
                f"(n, {self.context_dim}), got {tuple(x.shape)}, {found[1]}, {found[2]} and {found[3]}"
            )
        known = torch.cat([torch.cos(t * self.waves), context], dim=1)
        places = mask.unsqueeze(2).to(x.dtype)
        h = functional.leaky_relu(self.enter(x * places, known))
        h = functional.leaky_relu(self.lift(h) + h) * places
        shared = functional.leaky_relu(self.gather(torch.cat([pool(h, places, self.scale), known], dim=1)))
        shared = functional.leaky_relu(self.begin(shared))
        for layer in self.layers:
            h, shared = layer(h, shared, known, places)
        velocity: Tensor = self.leave(h) * places
        return velocity
