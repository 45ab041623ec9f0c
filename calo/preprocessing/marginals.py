"""Coordinates made normal one by one, given an energy, with quantiles of the training showers.

How often a voxel is empty, and how its energy falls, changes steeply with the energy of the layer; a flow needs most of
its training for that alone. Counting quantiles takes seconds, and leaves to the flow how voxels depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import Transform
from nisampler.flows.splines.rational_quadratic import segment, solve_segment

_LAST_KNOT = 3.2
_LAST_JUMP = 4.5
_HALF_JUMP = 5e-4
_NOISE_KNOTS = 5
_EDGE = (0.0, 0.001, 0.004, 0.015, 0.05)
_SMALLEST_GAP = 1e-4
_FEWEST = 200
_FEWEST_HITS = 20
_MOST_VALUES, _MOST_HITS = 2**18, 2**20
_BINS = 256


class Marginals(Transform):
    r"""y_i = S_i(x_i; c_k), where S_i maps the quantiles that x_i has at condition c_k to those of a normal variable.

    S_i is a monotone rational-quadratic spline (1906.04032) through `knots` quantiles with linear tails. The quantiles
    are kept at `levels` values of each condition and interpolated between them. The context holds the conditions
    (n, G): logarithms of layer energies for voxels, that of the incident energy for layer energies.

    A coordinate that is often empty jumps from noise to hits. Five of its knots describe the noise, the others
    the hits, and the jump takes almost nothing of the normal variable, so that nothing comes to lie between.

    Between quantiles of two levels lie quantiles of neither: a peak that stands at the same place in both is smeared.
    So `places` knots, up to a core of the spectrum, stand at the same x at all levels; what is counted at a level, and
    interpolated, is the normal variable that belongs to them.

    Parameters
    ----------
    sizes
        Numbers of consecutive coordinates that belong to each condition.
    knots, levels
        Quantiles of a coordinate, and values of the condition at which they are counted.
    jumps
        Whether coordinates can be empty.
    places
        Further knots, in the core of the spectrum of the hits; only with `jumps`.

    Raises
    ------
    ConfigError
        If there are fewer than twelve knots or two levels.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> step = Marginals([2], knots=12, levels=2)
    >>> x, conditions = torch.rand(500, 2, generator=generator), torch.rand(500, 1, generator=generator)
    >>> step.fit(x, conditions, torch.tensor([0, 1]))
    >>> y, _ = step(x, conditions)
    >>> torch.allclose(step.inverse(y, conditions)[0], x, atol=1e-4)
    True
    """

    levels: Tensor
    quantiles: Tensor
    normal: Tensor
    group: Tensor

    def __init__(
        self, sizes: Sequence[int], knots: int = 28, levels: int = 16, jumps: bool = False, places: int = 0
    ) -> None:
        super().__init__()
        if knots < 12 or levels < 2:
            raise ConfigError(f"marginals need at least twelve knots and two levels, got {knots} and {levels}")
        self._sizes = list(sizes)
        self.first_hit, self.places = _NOISE_KNOTS if jumps else 0, places
        normal = torch.linspace(-_LAST_KNOT, _LAST_KNOT, knots + places)
        group = torch.cat([torch.full((size,), index) for index, size in enumerate(self._sizes)])
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("levels", torch.arange(levels, dtype=torch.float32).repeat(len(self._sizes), 1))
        self.register_buffer("quantiles", normal.repeat(levels, len(group), 1))
        self.register_buffer("normal", normal.repeat(levels, len(group), 1))

    @torch.no_grad()
    def fit(
        self, x: Tensor, conditions: Tensor, orbits: Tensor, empty: Tensor | None = None, core: float = math.inf
    ) -> None:
        """Count quantiles.

        Parameters
        ----------
        x, conditions
            (n, d) and (n, G).
        orbits
            Coordinates (d,) with equal numbers are pooled.
        empty
            Which coordinates (n, d) hold noise; needed where there are jumps.
        core
            Hits up to there have knots at the same places at all levels.
        """
        empty = torch.zeros_like(x, dtype=torch.bool) if empty is None else empty
        of_all = {}  # where too few showers have a hit, hits of all showers say where hits lie
        for orbit in torch.unique(orbits):
            alike = torch.nonzero(orbits == orbit)[:, 0]
            of_all[int(orbit)] = x[:, alike][~empty[:, alike]][:_MOST_VALUES]
        for group, members in enumerate(torch.split(torch.arange(len(orbits), device=x.device), self._sizes)):
            condition = conditions[:, group].contiguous()
            self.levels[group] = self._levels(condition, empty[:, members].all(1))
            places = self._places(x[:, members], empty[:, members], core)
            nearest = torch.bucketize(condition, 0.5 * (self.levels[group, 1:] + self.levels[group, :-1]))
            for level in range(self.levels.shape[1]):
                rows = torch.nonzero(nearest == level)[:, 0]
                if len(rows) < min(_FEWEST, len(x)):
                    rows = (condition - self.levels[group, level]).abs().argsort()[:_FEWEST]
                chosen, without = x[rows], empty[rows]
                for orbit in torch.unique(orbits[members]):
                    alike = members[orbits[members] == orbit]
                    values = chosen[:, alike].flatten()[:_MOST_VALUES].double()
                    noise = without[:, alike].flatten()[:_MOST_VALUES]
                    if self.first_hit and bool(empty[:, alike].any()):
                        counted = self._count(values, noise, of_all[int(orbit)].double(), places)
                    else:
                        counted = self._plain(values)
                    for table, knots in zip((self.quantiles, self.normal), counted, strict=True):
                        table[level, alike] = knots.to(table.dtype)
        self.quantiles.copy_(_spread_out(self.quantiles, _SMALLEST_GAP))
        self.normal.copy_(_spread_out(self.normal, _SMALLEST_GAP))

    def _levels(self, condition: Tensor, without: Tensor) -> Tensor:
        """Where quantiles are counted: one level for showers (n,) without a hit, the others spread over the rest."""
        count, hit = self.levels.shape[1], condition[~without]
        first = [condition[without].median()] if 0 < len(hit) < len(condition) else []
        if len(hit) == 0:
            hit = condition
        shares = torch.arange(count - len(first), dtype=condition.dtype, device=condition.device) + 0.5
        levels = torch.quantile(hit[:_MOST_VALUES], shares / len(shares))
        levels = torch.cat([torch.stack(first), levels]) if first else levels
        return _spread_out(levels.to(self.levels.dtype), 10 * _SMALLEST_GAP)

    def _places(self, x: Tensor, empty: Tensor, core: float) -> Tensor:
        """Places (P,) of the knots in the core, for the coordinates (n, m) of a group.

        Half of them go where there are many hits (as the root of the density), half to the edges (as the root of its
        slope).
        """
        hits = x[~empty & (x <= core)][:_MOST_HITS].double()
        if not self.places or len(hits) < _FEWEST:
            return torch.linspace(0, 1, self.places, dtype=torch.float64, device=x.device)
        low, high = float(hits.kthvalue(1 + len(hits) // 500).values), float(hits.max())
        if not high > low:
            return hits.min() + torch.linspace(0, 1, self.places, dtype=torch.float64, device=x.device)
        density = torch.histc(hits, _BINS, low, high)
        for _ in range(2):
            padded = torch.cat([density[:1], density, density[-1:]])
            density = 0.25 * padded[:-2] + 0.5 * density + 0.25 * padded[2:]
        steep = torch.gradient(density)[0].abs().sqrt()
        monitor = density.sqrt() / density.sqrt().mean() + steep / steep.mean().clamp_min(1e-9)
        sums = torch.cat([monitor.new_zeros(1), monitor.cumsum(0)]) / monitor.sum()
        wanted = torch.linspace(0, 1, self.places - 1, dtype=torch.float64, device=x.device)
        above = torch.searchsorted(sums, wanted).clamp(1, _BINS)
        share = (wanted - sums[above - 1]) / (sums[above] - sums[above - 1])
        inner = low + (high - low) / _BINS * (above - 1 + share)
        return torch.cat([hits.min()[None], inner])

    def _plain(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiles (K,) of values (m,) that are never empty, and the normal variables (K,) that belong to them."""
        knots = self.normal.shape[-1]
        normal = torch.linspace(-_LAST_KNOT, _LAST_KNOT, knots, dtype=values.dtype, device=values.device)
        return torch.quantile(values, _probability(normal)), normal

    def _count(self, values: Tensor, noise: Tensor, spare: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The same of values of which some are noise."""
        knots, first = self.normal.shape[-1], self.first_hit
        least = min(0.5, 0.5 / len(values))
        share = noise.to(values.dtype).mean().clamp(least, 1 - least)
        jump = torch.special.ndtri(share).clamp(-_LAST_JUMP, _LAST_JUMP)
        bottom, top = jump - _HALF_JUMP, jump + _HALF_JUMP
        steps = torch.linspace(0, 1, first, dtype=values.dtype, device=values.device)
        low = bottom - (1 - steps) * (bottom + _LAST_KNOT).clamp_min(0.1)
        empties = values[noise] if bool(noise.any()) else values.amin() - 1 - steps
        hits = values[~noise]
        if len(hits) < _FEWEST_HITS:
            hits = torch.cat([hits, spare]) if len(spare) else values.amax() + 1 + steps
        core, high, of_hits, hits = self._upper(hits, spare, places, top, knots - first - len(places))
        of_noise = (_probability(low) / _probability(bottom)).clamp(0, 1)
        quantiles = torch.cat([torch.quantile(empties, of_noise), places, torch.quantile(hits, of_hits)])
        return quantiles, torch.cat([low, core, high])

    def _upper(self, hits: Tensor, spare: Tensor, places: Tensor, top: Tensor, count: int) -> tuple[Tensor, ...]:
        """Normal variables (P,) of the places, those of `count` knots above, and which quantiles of which hits these
        are, if hits begin at `top`."""
        if not len(places):
            # the lower edge of the hits is often far below most of them
            edge = _after(top, hits.new_tensor(_EDGE))
            rest = torch.linspace(0, 1, count - len(_EDGE) + 1, dtype=hits.dtype, device=hits.device)
            high = torch.cat([edge[:-1], edge[-1] + rest * (_LAST_KNOT - edge[-1]).clamp_min(0.1)])
            return places, high, _share_after(high, top), hits
        core = _after(top, torch.searchsorted(hits.sort().values, places, right=True) / len(hits))
        core[0] = top
        above = hits[hits > places[-1]]
        if len(above) < _FEWEST_HITS:
            above = torch.cat([above, spare[spare > places[-1]], places[-1] + 1 + places - places[0]])
        rest = torch.linspace(0, 1, count + 1, dtype=hits.dtype, device=hits.device)[1:]
        high = core[-1] + rest * (_LAST_KNOT - core[-1]).clamp_min(0.1)
        return core, high, _share_after(high, core[-1]), above

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = self._rows(x, context)
        left, width, bottom, height, first, last = self._bin(rows, rows.search(self.quantiles, x))
        theta = (x - left) / width
        rise, log_slope = segment(theta.clamp(0, 1), height / width, first, last)
        y = bottom + height * rise + (theta.clamp_max(0) * first + (theta - 1).clamp_min(0) * last) * width
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = self._rows(y, context)
        left, width, bottom, height, first, last = self._bin(rows, rows.search(self.normal, y))
        rise = (y - bottom).clamp_min(0).minimum(height)
        x, log_slope = solve_segment(rise, left, width, height, first, last)
        x = x + (y - bottom).clamp_max(0) / first + (y - bottom - height).clamp_min(0) / last
        return x, -log_slope.sum(1)

    def _rows(self, x: Tensor, context: Tensor | None) -> _Rows:
        """The rows of the tables that the conditions of the showers lie between."""
        if context is None or context.shape != (x.shape[0], len(self._sizes)):
            shape = None if context is None else tuple(context.shape)
            raise ShapeError(f"marginals need conditions of shape {(x.shape[0], len(self._sizes))}, got {shape}")
        levels = self.levels.to(x.dtype)
        above = (levels < context.unsqueeze(2)).sum(2).clamp(1, levels.shape[1] - 1)
        columns = torch.arange(levels.shape[0], device=x.device)
        low, high = levels[columns, above - 1], levels[columns, above]
        share = ((context - low) / (high - low)).clamp(0, 1).index_select(1, self.group)
        _, dim, knots = self.quantiles.shape
        step = dim * knots
        first = (above - 1).index_select(1, self.group) * step + torch.arange(0, step, knots, device=x.device)
        return _Rows(first, step, share, knots)

    def _bin(self, rows: _Rows, index: Tensor) -> tuple[Tensor, ...]:
        """Left end, width, bottom, height and end slopes of bins; a slope is the geometric mean of its two secants."""
        last = self.quantiles.shape[-1] - 1
        near = [(index + step).clamp(0, last) for step in (-1, 0, 1, 2)]
        x, y = ([rows.at(table, place) for place in near] for table in (self.quantiles, self.normal))
        width, height = x[2] - x[1], y[2] - y[1]
        # outer bins have one neighbour only, those beside a jump no other that is like them: they take their own secant
        jump = self.first_hit - 1
        alone_left = (index == 0) | ((index == jump) | (index == jump + 1) if jump > 0 else index < 0)
        alone_right = (index == last - 1) | ((index == jump) | (index == jump - 1) if jump > 0 else index < 0)
        secant = height / width
        slopes = []
        for side, alone in ((0, alone_left), (2, alone_right)):
            other_width = torch.where(alone, width, x[side + 1] - x[side])
            other_height = torch.where(alone, height, y[side + 1] - y[side])
            slopes.append(torch.sqrt(secant * other_height / other_width))
        return x[1], width, y[1], height, *slopes


@dataclass(frozen=True)
class _Rows:
    """For every coordinate two neighbouring rows of a table (levels, d, K), and where between them it reads.

    Tables are read at single knots: whole rows of all coordinates would be far larger than what is needed of them.

    Attributes
    ----------
    first
        Position (n, d) of knot 0 of the lower row in the flat table.
    step
        From a row to the next.
    share
        Of the upper row (n, d).
    knots
        K.
    """

    first: Tensor
    step: int
    share: Tensor
    knots: int

    def at(self, table: Tensor, knot: Tensor) -> Tensor:
        """Values (n, d) at knots (n, d)."""
        flat, place = table.reshape(-1), (self.first + knot).flatten()
        low, high = (flat.index_select(0, row).to(self.share.dtype) for row in (place, place + self.step))
        return torch.lerp(low, high, self.share.flatten()).view(self.share.shape)

    def search(self, table: Tensor, x: Tensor) -> Tensor:
        """The bins (n, d) that x (n, d) lies in, 0 ... K - 2, by bisection; the outer ones go on for ever."""
        low = torch.zeros_like(self.first)
        high = torch.full_like(self.first, self.knots - 1)
        for _ in range((self.knots - 2).bit_length()):
            middle = (low + high) // 2
            right = (self.at(table, middle) < x) & (middle > low)
            low, high = torch.where(right, middle, low), torch.where(right, high, torch.maximum(middle, low + 1))
        return low


def _probability(normal: Tensor) -> Tensor:
    probability: Tensor = torch.special.ndtr(normal)
    return probability


def _after(top: Tensor, share: Tensor) -> Tensor:
    """The normal variables below which a share of the hits lies, if hits begin at `top`."""
    normal: Tensor = torch.special.ndtri(_probability(top) + share * (1 - _probability(top)))
    return normal.minimum((top + 0.1).clamp_min(_LAST_KNOT))


def _share_after(normal: Tensor, top: Tensor) -> Tensor:
    """The share of what lies above `top` that lies below normal variables."""
    return ((_probability(normal) - _probability(top)) / (1 - _probability(top))).clamp(0, 1)


def _spread_out(values: Tensor, gap: float) -> Tensor:
    """The values with at least a gap between neighbours along the last axis."""
    gaps = torch.arange(values.shape[-1], device=values.device, dtype=values.dtype) * gap
    return (values - gaps).cummax(dim=-1).values + gaps
