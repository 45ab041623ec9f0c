"""Monotone splines on [0, 1]: linear, quadratic and cubic, and `Spline`, which puts any of them on a domain.

Every function has the form `f(x, params, inverse=False, *, boundary, ...) -> (y, log_slope)` with x of
shape (..., d) in [0, 1], raw network outputs `params` of shape (..., d, P), y of shape (..., d) in [0, 1]
and log_slope = log dy/dx of the direction asked for, per coordinate. Points outside [0, 1] are clamped.
Zero parameters give the identity.

`boundary` is "free", "linear" (slope one at both ends, to meet linear tails) or "periodic" (equal slopes at
both ends). Nothing here indexes with a boolean mask, so shapes never depend on the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from nisampler.base.checks import Positive, Whole, settings
from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.splines import fused_spline
from nisampler.flows.splines.rational_quadratic import Boundary, n_params

Domain = Literal["unit", "line", "circle"]
Kind = Literal["linear", "quadratic", "cubic", "rational_quadratic"]

_HALVINGS = 8
_NEWTON_STEPS = 16
_LOGIT_THIRD = math.log(0.5)


def linear(
    x: Tensor,
    params: Tensor,
    inverse: bool = False,
    *,
    boundary: Boundary = "free",
    min_height: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Piecewise-linear spline: K bins of equal width, heights by softmax (1808.03856).

    P = K for "free", K - 1 for "periodic" (the outer bins share a height) and K - 2 for "linear" (outer
    heights 1/K).

    Raises
    ------
    ShapeError
        If `params` leaves no bin to learn.

    Examples
    --------
    >>> linear(torch.tensor([[0.4]]), torch.zeros(1, 1, 5))[0]
    tensor([[0.4000]])
    """
    fixed = {"free": 0, "periodic": 1, "linear": 2}[boundary]
    bins = params.shape[-1] + fixed
    _check_bins(bins, fixed + 1)
    if boundary == "periodic":
        params = torch.cat([params, params[..., :1]], dim=-1)
    heights = _partition(params, min_height)
    if boundary == "linear":
        heights = functional.pad(heights * ((bins - 2) / bins), (1, 1), value=1.0 / bins)
    edges = _knots(heights)
    if inverse:
        y = x.clamp(0.0, 1.0)
        index = _bin(y, edges)
        height = _take(heights, index)
        position = ((y - _take(edges, index)) / height).clamp(0.0, 1.0)
        return (index + position) / bins, -torch.log(height * bins)
    scaled = x.clamp(0.0, 1.0) * bins
    index = scaled.detach().floor().clamp(0, bins - 1).long()
    height = _take(heights, index)
    y = _take(edges, index) + (scaled - index) * height
    return y.clamp(0.0, 1.0), torch.log(height * bins)


def quadratic(
    x: Tensor,
    params: Tensor,
    inverse: bool = False,
    *,
    boundary: Boundary = "free",
    min_width: float = 1e-4,
    min_slope: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Quadratic spline: the density is piecewise linear between K + 1 vertices (1808.03856).

    P = 2K + 1 for "free" (K widths, K + 1 vertices), 2K for "periodic" and 2K - 1 for "linear".

    Raises
    ------
    ShapeError
        If the number of parameters fits no number of bins.

    Examples
    --------
    >>> quadratic(torch.tensor([[0.4]]), torch.zeros(1, 1, 11))[0]
    tensor([[0.4000]])
    """
    missing = {"free": 1, "periodic": 0, "linear": -1}[boundary]
    bins, rest = divmod(params.shape[-1] - missing, 2)
    _check_bins(bins if rest == 0 else 0, 2 if boundary == "linear" else 1)
    widths = _partition(params[..., :bins], min_width)
    vertices = _vertices(params[..., bins:], widths, boundary, min_slope)
    heights = 0.5 * (vertices[..., :-1] + vertices[..., 1:]) * widths
    left, bottom = _knots(widths), _knots(heights)
    index = _bin(x, bottom if inverse else left)
    x_left, y_left, width = _take(left, index), _take(bottom, index), _take(widths, index)
    first, last = _take(vertices, index), _take(vertices, index + 1)
    if inverse:
        # the square of the density is linear in the height: a sum of positive numbers, which loses no digits
        area, whole = (x.clamp(0.0, 1.0) - y_left) / width, 0.5 * (first + last)
        share = (area / whole).clamp(0.0, 1.0)
        slope = torch.sqrt(first.square() * (1 - share) + last.square() * share)
        area = share * whole
        position = (2 * area / (first + slope)).clamp(0.0, 1.0)
        return (x_left + position * width).clamp(0.0, 1.0), -torch.log(slope)
    position = ((x.clamp(0.0, 1.0) - x_left) / width).clamp(0.0, 1.0)
    change = (last - first) * position
    y = y_left + width * position * (first + 0.5 * change)
    return y.clamp(0.0, 1.0), torch.log(first + change)


def cubic(
    x: Tensor,
    params: Tensor,
    inverse: bool = False,
    *,
    boundary: Boundary = "free",
    min_width: float = 1e-4,
    min_height: float = 1e-4,
    min_slope: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Monotone cubic Hermite spline with Steffen's slopes at the knots (1906.02145).

    P = 2K + 2 for "free" (K widths, K heights, two end slopes) and 2K for "periodic" and "linear". The
    inverse brackets the root with a fixed number of bisections and guarded Newton steps; its gradient is
    that of the last Newton step.

    Raises
    ------
    ShapeError
        If the number of parameters fits no number of bins.

    Examples
    --------
    >>> cubic(torch.tensor([[0.4]]), torch.zeros(1, 1, 12))[0]
    tensor([[0.4000]])
    """
    bins, rest = divmod(params.shape[-1] - (2 if boundary == "free" else 0), 2)
    _check_bins(bins if rest == 0 else 0, 2 if boundary == "linear" else 1)
    widths = _partition(params[..., :bins], min_width)
    heights = _partition(params[..., bins : 2 * bins], min_height)
    if boundary == "linear":
        heights = _raise_ends(heights, widths)
    slopes = _steffen_slopes(widths, heights, params[..., 2 * bins :], boundary)
    heights = (1 - min_slope) * heights + min_slope * widths
    slopes = (1 - min_slope) * slopes + min_slope
    left, bottom = _knots(widths), _knots(heights)
    index = _bin(x, bottom if inverse else left)
    x_left, y_left = _take(left, index), _take(bottom, index)
    width, height = _take(widths, index), _take(heights, index)
    piece = _Cubic(width, height, _take(slopes, index), _take(slopes, index + 1))
    if inverse:
        position = piece.solve((x.clamp(0.0, 1.0) - y_left).clamp_min(0.0))
        y = x_left + position * width
        return y.clamp(0.0, 1.0), -torch.log(piece.slope(position))
    position = ((x.clamp(0.0, 1.0) - x_left) / width).clamp(0.0, 1.0)
    return (y_left + piece.value(position)).clamp(0.0, 1.0), torch.log(piece.slope(position))


class _SplineFunction(Protocol):
    def __call__(
        self, x: Tensor, params: Tensor, inverse: bool = False, *, boundary: Boundary = "free"
    ) -> tuple[Tensor, Tensor]: ...


_FUNCTIONS: dict[str, _SplineFunction] = {
    "linear": linear,
    "quadratic": quadratic,
    "cubic": cubic,
    "rational_quadratic": fused_spline.spline,
}
# number of parameters of K bins: (factor of K, {boundary: what is added})
_COUNTS: dict[str, tuple[int, dict[str, int]]] = {
    "linear": (1, {"free": 0, "linear": -2, "periodic": -1}),
    "quadratic": (2, {"free": 1, "linear": -1, "periodic": 0}),
    "cubic": (2, {"free": 2, "linear": 0, "periodic": 0}),
}
_BOUNDARIES: dict[str, Boundary] = {"unit": "free", "line": "linear", "circle": "periodic"}


@settings
class Spline:
    """A family of one-dimensional splines: its kind, number of bins and domain.

    Parameters
    ----------
    kind
        "rational_quadratic" (1906.04032, the usual choice), "cubic" (1906.02145), "quadratic" or "linear"
        (1808.03856).
    bins
        Number of bins K, at least 3.
    domain
        "unit": [0, 1] onto itself. "line": a box [-bound, bound] with the identity outside, coordinate by
        coordinate. "circle": angles in units of the full turn, a periodic spline after a learned rotation
        (2002.02428).
    bound
        Half width of the box on the line; without meaning on the other domains.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> spline = Spline("cubic", bins=5, domain="line", bound=3.0)
    >>> y, log_slope = spline(torch.tensor([[0.4], [7.0]]), torch.zeros(2, 1, spline.n_params))
    >>> y, log_slope.shape
    (tensor([[0.4000],
             [7.0000]]), torch.Size([2, 1]))
    """

    kind: Kind = "rational_quadratic"
    bins: Annotated[Whole, Field(ge=3)] = 10
    domain: Domain = "unit"
    bound: Positive = 5.0

    @property
    def boundary(self) -> Boundary:
        """The end condition that belongs to the domain."""
        return _BOUNDARIES[self.domain]

    @property
    def n_params(self) -> int:
        """Raw parameters per coordinate."""
        if self.kind == "rational_quadratic":
            count = n_params(self.bins, self.boundary)
        else:
            factor, extra = _COUNTS[self.kind]
            count = factor * self.bins + extra[self.boundary]
        return count + (self.domain == "circle")

    def __call__(self, x: Tensor, params: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Apply to x (..., d) with params (..., d, n_params): the values and log |dy/dx|, both (..., d)."""
        function = _FUNCTIONS[self.kind]
        if self.kind != "rational_quadratic":
            params = params.to(x.dtype)
        if self.domain == "unit":
            return function(x, params, inverse)
        if self.domain == "circle":
            turn, params = _wrap(params[..., 0]), params[..., 1:]
            if inverse:
                angle, log_slope = function(x, params, True, boundary="periodic")
                return _wrap(angle - turn), log_slope
            return function(_wrap(x + turn), params, boundary="periodic")
        if self.kind == "rational_quadratic":
            return fused_spline.spline(x, params, inverse, boundary="linear", bound=self.bound)
        return fused_spline.boxed(partial(function, params=params, inverse=inverse, boundary="linear"), x, self.bound)


def _wrap(angle: Tensor) -> Tensor:
    """The angle, in turns, within [0, 1]."""
    return (angle - angle.detach().floor()).clamp(0.0, 1.0)


@dataclass(frozen=True)
class _Cubic:
    """One monotone cubic piece per element, as a function of the position t in [0, 1] in its bin."""

    width: Tensor
    height: Tensor
    first: Tensor  # dy/dx at t = 0
    last: Tensor  # dy/dx at t = 1

    def value(self, t: Tensor) -> Tensor:
        return self.height * t * t * (3 - 2 * t) + self.width * t * (1 - t) * (self.first * (1 - t) - self.last * t)

    def slope(self, t: Tensor) -> Tensor:
        """dy/dx; the lower bound only takes away rounding below zero where the exact slope is almost zero."""
        bulk = 6 * (self.height / self.width) * t * (1 - t)
        ends = self.first * (1 - t) * (1 - 3 * t) + self.last * t * (3 * t - 2)
        least = torch.finfo(t.dtype).eps * self.height / self.width
        return torch.maximum(bulk + ends, least)

    def solve(self, y: Tensor) -> Tensor:
        """The t with value(t) = y."""
        with torch.no_grad():
            low, high = torch.zeros_like(y), torch.ones_like(y)
            t = torch.full_like(y, 0.5)
            for step in range(_HALVINGS + _NEWTON_STEPS):
                excess = self.value(t) - y
                low = torch.where(excess <= 0, t, low)
                high = torch.where(excess >= 0, t, high)
                middle = 0.5 * (low + high)
                if step < _HALVINGS:
                    t = middle
                else:
                    newton = t - excess / (self.slope(t) * self.width)
                    t = torch.where((newton >= low) & (newton <= high), newton, middle)
        return (t - (self.value(t) - y) / (self.slope(t) * self.width)).clamp(0.0, 1.0)


def _partition(raw: Tensor, smallest: float) -> Tensor:
    """Positive shares that sum to one along the last axis, each at least `smallest`."""
    bins = raw.shape[-1]
    if bins * smallest >= 1:
        raise ConfigError(f"{bins} bins of size at least {smallest} do not fit in [0, 1]; use fewer bins")
    return smallest + (1 - bins * smallest) * torch.softmax(raw, dim=-1)


def _knots(sizes: Tensor) -> Tensor:
    """Bin edges from bin sizes, with exact ends 0 and 1."""
    inner = torch.cumsum(sizes, dim=-1)[..., :-1]
    return functional.pad(functional.pad(inner, (1, 0)), (0, 1), value=1.0)


def _bin(x: Tensor, edges: Tensor) -> Tensor:
    """Index of the bin that holds x; points beyond the ends belong to the outer bins."""
    return (x.detach().unsqueeze(-1) >= edges.detach()[..., 1:-1]).sum(dim=-1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _check_bins(bins: int, least: int) -> None:
    if bins < least:
        raise ShapeError(f"the number of spline parameters gives {bins} bins, but at least {least} are needed")


def _vertices(raw: Tensor, widths: Tensor, boundary: Boundary, min_slope: float) -> Tensor:
    """Densities at the K + 1 knots such that the trapezoids have total area one."""
    if boundary == "periodic":
        raw = torch.cat([raw, raw[..., :1]], dim=-1)
    vertices = torch.exp(raw - raw.detach().amax(dim=-1, keepdim=True))
    # the area that belongs to a vertex: half the width of the bins at its two sides
    share = 0.5 * (functional.pad(widths, (0, 1)) + functional.pad(widths, (1, 0)))
    if boundary == "linear":
        inner = share[..., 1:-1]
        area = 1.0 - share[..., :1] - share[..., -1:]
        vertices = vertices * area / (vertices * inner).sum(dim=-1, keepdim=True)
        vertices = functional.pad(vertices, (1, 1), value=1.0)
    else:
        vertices = vertices / (vertices * share).sum(dim=-1, keepdim=True)
    return (1 - min_slope) * vertices + min_slope


def _raise_ends(heights: Tensor, widths: Tensor) -> Tensor:
    """Mix the outer bins half and half with the identity, so that an end slope of one keeps them monotone."""
    first = 0.5 * (heights[..., :1] + widths[..., :1])
    last = 0.5 * (heights[..., -1:] + widths[..., -1:])
    inner = heights[..., 1:-1]
    if inner.shape[-1]:
        # what is left of 1 - first - last, as a sum of positive numbers
        inner = inner * (0.5 + 0.5 * widths[..., 1:-1].sum(dim=-1, keepdim=True) / inner.sum(dim=-1, keepdim=True))
    return torch.cat([first, inner, last], dim=-1)


def _steffen_slopes(widths: Tensor, heights: Tensor, raw: Tensor, boundary: Boundary) -> Tensor:
    """Slopes at the K + 1 knots that keep every piece monotone (M. Steffen, A&A 239 (1990) 443)."""
    secants = heights / widths
    if boundary == "periodic":
        secants = torch.cat([secants[..., -1:], secants, secants[..., :1]], dim=-1)
        widths = torch.cat([widths[..., -1:], widths, widths[..., :1]], dim=-1)
    before, after = secants[..., :-1], secants[..., 1:]
    left, right = widths[..., :-1], widths[..., 1:]
    parabola = (before * right + after * left) / (left + right)
    inner = torch.minimum(2 * torch.minimum(before, after), parabola)
    if boundary == "periodic":
        return inner
    if boundary == "linear":
        return functional.pad(inner, (1, 1), value=1.0)
    ends = 3 * torch.sigmoid(raw + _LOGIT_THIRD)
    first, last = ends[..., :1] * secants[..., :1], ends[..., 1:] * secants[..., -1:]
    return torch.cat([first, inner, last], dim=-1)
