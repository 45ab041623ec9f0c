"""Piecewise cubic interpolation on given knots: the part that parton densities and tabulated couplings share."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

STENCIL = 4


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
    >>> first, weights = axis.stencil(torch.tensor([3.0]))
    >>> first, (weights * torch.tensor([0.0, 1.0, 8.0, 64.0])).sum(1)
    (tensor([0]), tensor([27.]))
    """

    def __init__(self, segments: Sequence[Tensor]) -> None:
        self.starts = torch.cat([knots[:-1] for knots in segments])
        self.widths = torch.cat([knots.diff() for knots in segments])
        self.low, self.high = float(segments[0][0]), float(segments[-1][-1])
        lengths = [0, *itertools.accumulate(len(knots) for knots in segments)]
        parts = [_stencils(knots) for knots in segments]
        self.first = torch.cat([first + begin for (first, _), begin in zip(parts, lengths, strict=False)])
        self.cubics = torch.cat([cubics for _, cubics in parts])

    @property
    def cells(self) -> int:
        """Number of cells of all segments together."""
        return self.starts.shape[0]

    def to(self, device: torch.device) -> CubicAxis:
        """The same axis with its knots on another device."""
        moved = copy.copy(self)
        for name in ("starts", "widths", "first", "cubics"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cell (n,) of each t (n,) and its place u in [0, 1] there; NaN gives u = NaN in the last cell."""
        t = t.clamp(self.low, self.high)
        cell = torch.searchsorted(self.starts[1:].contiguous(), t, right=True)
        return cell, (t - self.starts.index_select(0, cell)) / self.widths.index_select(0, cell)

    def stencil(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The first (n,) of the four knots in a row that count at t (n,), and their weights (n, 4).

        Knots are numbered over all segments in a row. Where a segment has fewer than four, knots beyond its end have
        the weight zero, up to two beyond the last one of all: see `padded`. Compiled code takes products and sums in
        the same order.
        """
        cell, u = self.locate(t)
        a, b, c, d = self.cubics.flatten(1).index_select(0, cell).view(-1, STENCIL, STENCIL).unbind(-1)
        u = u.unsqueeze(1)
        return self.first.index_select(0, cell), ((d * u + c) * u + b) * u + a


def padded(values: Tensor, dim: int = 0) -> Tensor:
    """Values on knots with zeros on two more knots of the axis `dim`, for `CubicAxis.stencil`.

    >>> padded(torch.ones(2))
    tensor([1., 1., 0., 0.])
    """
    shape = list(values.shape)
    shape[dim] = STENCIL - 2
    return torch.cat([values, values.new_zeros(shape)], dim)


def _stencils(knots: Tensor) -> tuple[Tensor, Tensor]:
    """The first knot (cells,) that counts in each cell, and the cubics (cells, 4, 4) of the weights of four knots.

    The weight of a knot is a row of coefficients on 1, u, u², u³.
    """
    count = knots.shape[0]
    points = min(STENCIL, count)
    first = (torch.arange(count - 1, device=knots.device) - 1).clamp(0, count - points)
    stencil = first.unsqueeze(-1) + torch.arange(points, device=knots.device)
    u = (knots[stencil] - knots[:-1, None]) / knots.diff().unsqueeze(-1)
    # The rows of the inverse Vandermonde matrix are the coefficients of the Lagrange polynomials.
    solve = torch.linalg.inv(torch.linalg.vander(u, N=points))
    missing = STENCIL - points
    return first, torch.nn.functional.pad(solve.transpose(1, 2), (0, missing, 0, missing))
