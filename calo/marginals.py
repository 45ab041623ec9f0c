"""Voxels made normal one by one, given the energy of their layer, with quantiles of the training showers.

How often a voxel is empty, and how its energy falls, changes steeply with the energy of the layer; a flow needs most of
its training for that alone. Counting quantiles takes seconds, and leaves to the flow how voxels depend on each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nisampler.calo.geometry import Geometry
from nisampler.errors import ConfigError
from nisampler.flows import Transform
from nisampler.flows.rational_quadratic import segment, solve_segment

_LAST_KNOT = 3.2
_SMALLEST_GAP = 1e-3
_FEWEST = 50
_MOST_VALUES = 2**18


class Marginals(Transform):
    r"""y_i = S_i(x_i; E_k), where S_i maps quantiles of x_i at layer energy E_k to those of a normal variable.

    S_i is a monotone rational-quadratic spline (1906.04032) through `knots` quantiles with linear tails. The quantiles
    are kept at `levels` energies of each layer and interpolated between them. The context is log E_k, shape (n, L).

    Parameters
    ----------
    geometry
        Which voxel lies in which layer.
    knots, levels
        Quantiles of a voxel, and energies at which they are counted.

    Raises
    ------
    ConfigError
        If there are fewer than three knots or two levels.
    """

    levels: Tensor
    quantiles: Tensor
    layer: Tensor
    normal: Tensor

    def __init__(self, geometry: Geometry, knots: int = 24, levels: int = 16) -> None:
        super().__init__()
        if knots < 3 or levels < 2:
            raise ConfigError(f"marginals need at least three knots and two levels, got {knots} and {levels}")
        self._sizes = geometry.sizes
        normal = torch.linspace(-_LAST_KNOT, _LAST_KNOT, knots)
        self.register_buffer("layer", torch.tensor(geometry.layer_of_voxel), persistent=False)
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("levels", torch.arange(levels, dtype=torch.float32).repeat(geometry.n_layers, 1))
        self.register_buffer("quantiles", normal.repeat(levels, geometry.n_voxels, 1))

    @torch.no_grad()
    def fit(self, x: Tensor, log_energies: Tensor, orbits: Tensor) -> None:
        """Count quantiles of x (n, V) given log E (n, L); voxels with the same number in `orbits` (V,) are pooled."""
        count = self.levels.shape[1]
        shares = (torch.arange(count, dtype=x.dtype, device=x.device) + 0.5) / count
        probabilities = 0.5 * (1 + torch.erf(self.normal / math.sqrt(2)))
        levels = torch.quantile(log_energies[:_MOST_VALUES], shares, dim=0).t()
        self.levels.copy_(_spread_out(levels))
        for layer, voxels in enumerate(torch.split(torch.arange(len(orbits), device=x.device), self._sizes)):
            energies = log_energies[:, layer].contiguous()
            nearest = torch.bucketize(energies, 0.5 * (self.levels[layer, 1:] + self.levels[layer, :-1]))
            for level in range(count):
                rows = torch.nonzero(nearest == level)[:, 0]
                if len(rows) < min(_FEWEST, len(x)):
                    rows = (energies - self.levels[layer, level]).abs().argsort()[:_FEWEST]
                chosen = x[rows]
                for orbit in torch.unique(orbits[voxels]):
                    members = voxels[orbits[voxels] == orbit]
                    values = chosen[:, members].flatten()[:_MOST_VALUES]
                    self.quantiles[level, members] = torch.quantile(values, probabilities.to(values.dtype))
        self.quantiles.copy_(_spread_out(self.quantiles))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        knots = self._knots(x, context)
        index = (torch.searchsorted(knots, x.unsqueeze(-1)).squeeze(-1) - 1).clamp(0, knots.shape[-1] - 2)
        left, width, bottom, height, first, last = self._bin(knots, index)
        theta = (x - left) / width
        rise, log_slope = segment(theta.clamp(0, 1), height / width, first, last)
        y = bottom + height * rise + (theta.clamp_max(0) * first + (theta - 1).clamp_min(0) * last) * width
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        knots = self._knots(y, context)
        normal = self.normal.to(y.dtype)
        index = (torch.searchsorted(normal, y.contiguous()) - 1).clamp(0, len(normal) - 2)
        left, width, bottom, height, first, last = self._bin(knots, index)
        rise = (y - bottom).clamp_min(0).minimum(height)
        x, log_slope = solve_segment(rise, left, width, height, first, last)
        x = x + (y - bottom).clamp_max(0) / first + (y - bottom - height).clamp_min(0) / last
        return x, -log_slope.sum(1)

    def _knots(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Quantiles (n, V, K) at the energies of the showers."""
        if context is None:
            raise ConfigError("marginals are given log layer energies as their context")
        levels = self.levels.to(x.dtype)
        above = torch.searchsorted(levels, context.t().contiguous()).t().clamp(1, levels.shape[1] - 1)
        columns = torch.arange(levels.shape[0], device=x.device)
        low, high = levels[columns, above - 1], levels[columns, above]
        share = ((context - low) / (high - low)).clamp(0, 1).index_select(1, self.layer).unsqueeze(-1)
        above = above.index_select(1, self.layer)
        voxels = torch.arange(x.shape[1], device=x.device)
        quantiles = self.quantiles.to(x.dtype)
        return torch.lerp(quantiles[above - 1, voxels], quantiles[above, voxels], share)

    def _bin(self, knots: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Left end, width, bottom, height and end slopes of bins; a slope is the geometric mean of its two secants."""
        last = knots.shape[-1] - 1
        near = torch.stack([index - 1, index, index + 1, index + 2], dim=-1).clamp(0, last)
        x = knots.gather(-1, near)
        normal = self.normal.to(x.dtype)
        height = normal[1] - normal[0]
        gaps = x[..., 1:] - x[..., :-1]
        width = gaps[..., 1]
        # the outer bins have one neighbour only and take their own secant for the other
        before = torch.where(index > 0, gaps[..., 0], width)
        after = torch.where(index < last - 1, gaps[..., 2], width)
        slopes = height / torch.sqrt(before * width), height / torch.sqrt(width * after)
        return x[..., 1], width, normal[index], height.expand_as(width), *slopes


def _spread_out(values: Tensor) -> Tensor:
    """The values with at least a smallest gap between neighbours along the last axis."""
    gaps = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype) * _SMALLEST_GAP
    return (values - gaps).cummax(dim=-1).values + gaps
