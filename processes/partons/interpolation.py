"""Piecewise cubic interpolation on given knots: the part that parton densities and tabulated couplings share."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

STENCIL = 4


def powers(u: Tensor, one: Tensor | None = None) -> Tensor:
    """The monomials (1, u, u^2, u^3) of u (n,), shape (n, 4), times `one` (n,) where that is given.

    >>> powers(torch.tensor([2.0]))
    tensor([[1., 2., 4., 8.]])
    """
    first = torch.ones_like(u) if one is None else one
    second = first * u
    third = second * u
    return torch.stack((first, second, third, third * u), dim=-1)


class CubicAxis:
    """One axis of a table: segments of knots, on each of which it is interpolated by cubics on its own.

    In every cell between two neighbouring knots the interpolant is the polynomial through the four nearest knots
    of the segment (two on either side, one-sided at the ends; all of them where a segment has fewer than four).
    Outside the knots the nearest value holds. Segments follow one another without a gap; a point on their border
    belongs to the upper one.

    Parameters
    ----------
    segments
        Knots of each segment, shape (k,) with k >= 2, strictly rising.

    Examples
    --------
    >>> axis = CubicAxis([torch.tensor([0.0, 1.0, 2.0, 4.0])])
    >>> cell, u = axis.locate(torch.tensor([3.0]))
    >>> cubics = axis.coefficients([torch.tensor([0.0, 1.0, 8.0, 64.0])])
    >>> (cubics[cell] * powers(u)).sum().item()
    27.0
    """

    def __init__(self, segments: Sequence[Tensor]) -> None:
        self.segments = tuple(segments)
        self.starts = torch.cat([knots[:-1] for knots in segments])
        self.widths = torch.cat([knots.diff() for knots in segments])
        self.low, self.high = float(segments[0][0]), float(segments[-1][-1])

    @property
    def cells(self) -> int:
        """Number of cells of all segments together."""
        return self.starts.shape[0]

    def to(self, device: torch.device) -> CubicAxis:
        """The same axis with its knots on another device."""
        moved = copy.copy(self)
        moved.segments = tuple(knots.to(device) for knots in self.segments)
        moved.starts, moved.widths = self.starts.to(device), self.widths.to(device)
        return moved

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cell (n,) of each t (n,) and its place u in [0, 1] there; NaN gives u = NaN in the last cell."""
        t = t.clamp(self.low, self.high)
        cell = torch.searchsorted(self.starts[1:].contiguous(), t, right=True)
        return cell, (t - self.starts[cell]) / self.widths[cell]

    def stencils(self) -> tuple[Tensor, Tensor]:
        """The knots (cells, 4) that count in each cell, and the polynomials (cells, 4, 4) of their weights.

        Knots are numbered over all segments in a row. The interpolant at u is the sum of the values on the knots, each
        times its row of coefficients on 1, u, u², u³; a short segment repeats its last knot with weight zero.
        """
        parts = [_stencils(knots) for knots in self.segments]
        lengths = [0, *itertools.accumulate(len(knots) for knots in self.segments)]
        numbers, weights = [], []
        for (stencil, solve), first in zip(parts, lengths, strict=False):
            missing = STENCIL - stencil.shape[1]
            numbers.append(first + torch.cat([stencil, stencil[:, -1:].expand(-1, missing)], 1))
            weights.append(torch.nn.functional.pad(solve.transpose(1, 2), (0, missing, 0, missing)))
        return torch.cat(numbers), torch.cat(weights)

    def coefficients(self, values: Sequence[Tensor]) -> Tensor:
        """Coefficients (cells, 4, ...) of 1, u, u^2, u^3 from the values (k, ...) on the knots of each segment."""
        pairs = zip(self.segments, values, strict=True)
        return torch.cat([_segment_coefficients(knots, value) for knots, value in pairs])


def _stencils(knots: Tensor) -> tuple[Tensor, Tensor]:
    """The knots (cells, points) that count in each cell, and coefficients (cells, powers, points) by their values."""
    count = knots.shape[0]
    points = min(STENCIL, count)
    cell = torch.arange(count - 1, device=knots.device)
    first = (cell - 1).clamp(0, count - points)
    stencil = first.unsqueeze(-1) + torch.arange(points, device=knots.device)
    u = (knots[stencil] - knots[:-1, None]) / knots.diff().unsqueeze(-1)
    # The rows of the inverse Vandermonde matrix are the coefficients of the Lagrange polynomials.
    return stencil, torch.linalg.inv(torch.linalg.vander(u, N=points))


def _segment_coefficients(knots: Tensor, values: Tensor) -> Tensor:
    stencil, solve = _stencils(knots)
    result = torch.einsum("cpk,ck...->cp...", solve, values[stencil])
    padding = result.new_zeros(result.shape[0], STENCIL - solve.shape[1], *result.shape[2:])
    return torch.cat((result, padding), dim=1)
