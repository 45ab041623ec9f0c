"""Coordinates made normal one by one, given an energy, with quantiles of the training showers.

How often a voxel is empty, and how its energy falls, changes steeply with the energy of the layer; a flow needs most of
its training for that alone. Counting quantiles takes seconds, and leaves to the flow how voxels depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import Transform
from nisampler.flows.rational_quadratic import segment, solve_segment

_LAST_KNOT = 3.2
_SMALLEST_GAP = 1e-3
_FEWEST = 200
_MOST_VALUES = 2**18


class Marginals(Transform):
    r"""y_i = S_i(x_i; c_k), where S_i maps the quantiles that x_i has at condition c_k to those of a normal variable.

    S_i is a monotone rational-quadratic spline (1906.04032) through `knots` quantiles with linear tails. The quantiles
    are kept at `levels` values of each condition and interpolated between them. The context holds the conditions
    (n, G): logarithms of layer energies for voxels, that of the incident energy for layer energies.

    Parameters
    ----------
    sizes
        Numbers of consecutive coordinates that belong to each condition.
    knots, levels
        Quantiles of a coordinate, and values of the condition at which they are counted.

    Raises
    ------
    ConfigError
        If there are fewer than three knots or two levels.
    """

    levels: Tensor
    quantiles: Tensor
    group: Tensor
    normal: Tensor

    def __init__(self, sizes: Sequence[int], knots: int = 24, levels: int = 16) -> None:
        super().__init__()
        if knots < 3 or levels < 2:
            raise ConfigError(f"marginals need at least three knots and two levels, got {knots} and {levels}")
        self._sizes = list(sizes)
        normal = torch.linspace(-_LAST_KNOT, _LAST_KNOT, knots)
        group = torch.cat([torch.full((size,), index) for index, size in enumerate(self._sizes)])
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("levels", torch.arange(levels, dtype=torch.float32).repeat(len(self._sizes), 1))
        self.register_buffer("quantiles", normal.repeat(levels, len(group), 1))

    @torch.no_grad()
    def fit(self, x: Tensor, conditions: Tensor, orbits: Tensor) -> None:
        """Count quantiles of x (n, d) given the conditions (n, G); equal numbers in `orbits` (d,) are pooled."""
        count = self.levels.shape[1]
        shares = (torch.arange(count, dtype=x.dtype, device=x.device) + 0.5) / count
        probabilities = 0.5 * (1 + torch.erf(self.normal / math.sqrt(2)))
        levels = torch.quantile(conditions[:_MOST_VALUES], shares, dim=0).t()
        self.levels.copy_(_spread_out(levels))
        for group, members in enumerate(torch.split(torch.arange(len(orbits), device=x.device), self._sizes)):
            condition = conditions[:, group].contiguous()
            nearest = torch.bucketize(condition, 0.5 * (self.levels[group, 1:] + self.levels[group, :-1]))
            for level in range(count):
                rows = torch.nonzero(nearest == level)[:, 0]
                if len(rows) < min(_FEWEST, len(x)):
                    rows = (condition - self.levels[group, level]).abs().argsort()[:_FEWEST]
                chosen = x[rows]
                for orbit in torch.unique(orbits[members]):
                    alike = members[orbits[members] == orbit]
                    values = chosen[:, alike].flatten()[:_MOST_VALUES]
                    self.quantiles[level, alike] = torch.quantile(values, probabilities.to(values.dtype))
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
        """Quantiles (n, d, K) at the conditions of the showers."""
        if context is None or context.shape != (x.shape[0], len(self._sizes)):
            shape = None if context is None else tuple(context.shape)
            raise ShapeError(f"marginals need conditions of shape {(x.shape[0], len(self._sizes))}, got {shape}")
        levels = self.levels.to(x.dtype)
        above = torch.searchsorted(levels, context.t().contiguous()).t().clamp(1, levels.shape[1] - 1)
        columns = torch.arange(levels.shape[0], device=x.device)
        low, high = levels[columns, above - 1], levels[columns, above]
        share = ((context - low) / (high - low)).clamp(0, 1).index_select(1, self.group).unsqueeze(-1)
        above = above.index_select(1, self.group)
        coordinates = torch.arange(x.shape[1], device=x.device)
        quantiles = self.quantiles.to(x.dtype)
        return torch.lerp(quantiles[above - 1, coordinates], quantiles[above, coordinates], share)

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
