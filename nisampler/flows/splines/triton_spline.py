"""The rational-quadratic spline compiled for a GPU by Triton: parameters to bins to values and log slopes, in one pass.

A program takes a tile of all bins and as many points as it has threads, so that a thread holds the bins of its point
in registers: every parameter is read once, in full lines of memory, and of the slopes only the two that are needed;
nothing passes between threads. The mathematics is that of `rational_quadratic`, the reference.

Tensors are contiguous with the samples last: points (A, n), raw parameters (P, A, n), taken as rows of A n numbers.
A NaN in a point or in one of its parameters gives a NaN: limits are set by comparisons, which a NaN passes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from nisampler.flows.splines.fused_spline import Shape

# Points of a program, one for each thread of its warps.
_BLOCK, _WARPS = 128, 4

# The length of a row stays a plain number: if Triton knew that it is a multiple of 16, it would read four points at a
# time and spread the bins of a point over several threads.
_kernel = triton.jit(do_not_specialize=["n"])


@triton.jit
def _clamp(u: tl.tensor) -> Any:
    """u limited to [0, 1]."""
    u = tl.where(u < 0.0, 0.0, u)
    return tl.where(u > 1.0, 1.0, u)


@triton.jit
def _softplus(x: tl.tensor) -> Any:
    """log(1 + e^x); what rounding took from e in 1 + e is given back by a ratio."""
    e = tl.exp(-tl.abs(x))
    total = 1.0 + e
    added = total - 1.0
    lost = added == 0.0
    return tl.where(x > 0.0, x, 0.0) + tl.where(lost, e, tl.log(total) * (e / tl.where(lost, 1.0, added)))


@triton.jit
def _sigmoid(x: tl.tensor) -> Any:
    """1/(1 + e^-x)."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def _unit(x: tl.tensor, bound: tl.constexpr) -> Any:
    """Points as fractions of the unit interval."""
    if bound != 0.0:
        x = x * (0.5 / bound) + 0.5
    return _clamp(x)


@triton.jit
def _shares(raw: tl.tensor, stride: tl.tensor, inside: tl.tensor, number: tl.tensor, bins: tl.constexpr) -> Any:
    """Shares of the bins by softmax; rows that only fill up the tile have none."""
    values = tl.load(raw + number * stride, mask=inside & (number < bins), other=0.0)
    values = tl.where(number < bins, values, float("-inf"))
    powers = tl.exp(values - tl.max(values, 0, keep_dims=True))
    return powers * (1.0 / tl.sum(powers, 0, keep_dims=True))


@triton.jit
def _find(target: tl.tensor, shares: tl.tensor, number: tl.tensor, bins: tl.constexpr, least: tl.constexpr) -> Any:
    """Number of the bin that holds the target."""
    edges = tl.cumsum(shares * (1.0 - bins * least) + least, 0)
    return tl.sum(((edges <= target) & (number < bins - 1)).to(tl.int32), 0, keep_dims=True)


@triton.jit
def _take(index: tl.tensor, shares: tl.tensor, number: tl.tensor, bins: tl.constexpr, least: tl.constexpr) -> Any:
    """Lower edge and size of a bin."""
    sizes = shares * (1.0 - bins * least) + least
    low = tl.sum(tl.where(number < index, sizes, 0.0), 0, keep_dims=True)
    return low, tl.sum(tl.where(number == index, sizes, 0.0), 0, keep_dims=True)


@triton.jit
def _knots(index: tl.tensor, bins: tl.constexpr, boundary: tl.constexpr) -> Any:
    """Rows of the raw slopes at the two knots of a bin; outside of their range where a slope is one."""
    if boundary == 1:
        return index - 1, index
    elif boundary == 2:
        return index, tl.where(index == bins - 1, 0, index + 1)
    else:
        return index, index + 1


@triton.jit
def _raw_slope(raw: tl.tensor, stride: tl.tensor, inside: tl.tensor, knot: tl.tensor, knots: tl.constexpr) -> Any:
    """Raw slope at a knot; zero stands for a slope of one."""
    return tl.load(raw + knot * stride, mask=inside & (knot >= 0) & (knot < knots), other=0.0)


@triton.jit
def _position(
    target: tl.tensor,
    left: tl.tensor,
    width: tl.tensor,
    bottom: tl.tensor,
    height: tl.tensor,
    slope_0: tl.tensor,
    slope_1: tl.tensor,
    inverse: tl.constexpr,
) -> Any:
    """Relative position in the bin; with `inverse` a quadratic is solved for it, as `solve_segment` does."""
    if inverse:
        eta, twice = _clamp((target - bottom) / height), 2.0 * height / width
        rest = 1.0 - eta
        lead = slope_0 * rest - slope_1 * eta
        long = tl.abs(lead) + tl.sqrt(lead * lead + twice * twice * (eta * rest))
        short = twice * tl.where(lead > 0.0, eta, rest)
        return tl.where(lead > 0.0, short, long) / (short + long)
    else:
        return _clamp((target - left) / width)


@triton.jit
def _evaluate(
    target: tl.tensor,
    left: tl.tensor,
    width: tl.tensor,
    bottom: tl.tensor,
    height: tl.tensor,
    slope_0: tl.tensor,
    slope_1: tl.tensor,
    inverse: tl.constexpr,
) -> Any:
    """Value and log slope (1906.04032 eqs. (4), (5))."""
    theta = _position(target, left, width, bottom, height, slope_0, slope_1, inverse)
    rest, mean = 1.0 - theta, height / width
    mixed, bend = theta * rest, slope_0 + slope_1 - 2.0 * mean
    below = mean + bend * mixed
    above = slope_1 * theta * theta + 2.0 * mean * mixed + slope_0 * rest * rest
    ratio = mean / below
    log_slope = tl.log(ratio * ratio * above)
    if inverse:
        return _clamp(left + width * theta), -log_slope
    else:
        return _clamp(bottom + height * ((mean * theta * theta + slope_0 * mixed) / below)), log_slope


@_kernel
def _spline_kernel(
    x_at: tl.tensor,
    raw_at: tl.tensor,
    y_at: tl.tensor,
    log_at: tl.tensor,
    index_at: tl.tensor,
    n: tl.tensor,
    bins: tl.constexpr,
    rows: tl.constexpr,
    knots: tl.constexpr,
    knot_rows: tl.constexpr,
    boundary: tl.constexpr,
    min_width: tl.constexpr,
    min_height: tl.constexpr,
    min_slope: tl.constexpr,
    offset: tl.constexpr,
    bound: tl.constexpr,
    inverse: tl.constexpr,
    block: tl.constexpr,
) -> None:
    at = (tl.program_id(0).to(tl.int64) * block + tl.arange(0, block))[None, :]
    number = tl.arange(0, rows)[:, None]
    inside, stride = at < n, tl.cast(n, tl.int64)
    x = tl.load(x_at + at, mask=inside, other=0.0)
    target = _unit(x, bound)
    raw_at += at
    widths = _shares(raw_at, stride, inside, number, bins)
    heights = _shares(raw_at + bins * stride, stride, inside, number, bins)
    if inverse:
        index = _find(target, heights, number, bins, min_height)
    else:
        index = _find(target, widths, number, bins, min_width)
    left, width = _take(index, widths, number, bins, min_width)
    bottom, height = _take(index, heights, number, bins, min_height)
    knot_0, knot_1 = _knots(index, bins, boundary)
    raw_at += 2 * bins * stride
    slope_0 = _softplus(_raw_slope(raw_at, stride, inside, knot_0, knots) + offset) + min_slope
    slope_1 = _softplus(_raw_slope(raw_at, stride, inside, knot_1, knots) + offset) + min_slope
    y, log_slope = _evaluate(target, left, width, bottom, height, slope_0, slope_1, inverse)
    if bound != 0.0:
        outside = tl.abs(x) > bound
        y = tl.where(outside, x, y * (2.0 * bound) - bound)
        log_slope = tl.where(outside, 0.0, log_slope)
    tl.store(y_at + at, y, mask=inside)
    tl.store(log_at + at, log_slope, mask=inside)
    tl.store(index_at + at, index.to(tl.int16), mask=inside)


@triton.jit
def _segment_gradient(
    target: tl.tensor,
    left: tl.tensor,
    width: tl.tensor,
    bottom: tl.tensor,
    height: tl.tensor,
    slope_0: tl.tensor,
    slope_1: tl.tensor,
    g_value: tl.tensor,
    g: tl.tensor,
    inverse: tl.constexpr,
) -> Any:
    """Gradients with respect to left, width, bottom, height, the two slopes and the point.

    A change of a parameter moves the solution of the inverse so that the value stays: its gradients are those of the
    forward direction at the same place with -dL/dx divided by the slope in the place of dL/dy.
    """
    theta = _position(target, left, width, bottom, height, slope_0, slope_1, inverse)
    rest, mean = 1.0 - theta, height / width
    mixed, turn = theta * rest, 1.0 - 2.0 * theta
    straight = 1.0 - 2.0 * mixed
    bend = slope_0 + slope_1 - 2.0 * mean
    above = slope_1 * theta * theta + 2.0 * mean * mixed + slope_0 * rest * rest
    per_below, per_above = 1.0 / (mean + bend * mixed), 1.0 / above
    rise = (mean * theta * theta + slope_0 * mixed) * per_below
    slope = mean * mean * above * per_below * per_below
    along = 2.0 * ((slope_1 * theta + mean * turn - slope_0 * rest) * per_above - bend * turn * per_below)
    if inverse:
        g = -g
        g_value = -(g_value + g * along / width) / slope
    pull = g_value * height * per_below
    g_mean = pull * (theta * theta - rise * straight)
    g_mean += 2.0 * g * (1.0 / mean - straight * per_below + mixed * per_above)
    common = 2.0 * g * mixed * per_below
    g_0 = pull * mixed * (1.0 - rise) + g * rest * rest * per_above - common
    g_1 = g * theta * theta * per_above - pull * mixed * rise - common
    g_x = (g_value * width * slope + g * along) / width
    g_width, g_height = -g_mean * mean / width - g_x * theta, g_value * rise + g_mean / width
    return -g_x, g_width, g_value, g_height, g_0, g_1, -g_value if inverse else g_x


@triton.jit
def _size_gradient(
    shares: tl.tensor,
    number: tl.tensor,
    index: tl.tensor,
    low: tl.tensor,
    size: tl.tensor,
    g_low: tl.tensor,
    g_size: tl.tensor,
    bins: tl.constexpr,
    least: tl.constexpr,
) -> Any:
    """Gradients of the raw sizes from those of the bin's edge and size."""
    g = tl.where(number < index, g_low, tl.where(number == index, g_size, 0.0))
    return shares * (g * (1.0 - bins * least) - (g_low * (low - index * least) + g_size * (size - least)))


@_kernel
def _gradient_kernel(
    points_at: tl.tensor,
    raw_at: tl.tensor,
    index_at: tl.tensor,
    g_y_at: tl.tensor,
    g_log_at: tl.tensor,
    g_points_at: tl.tensor,
    g_raw_at: tl.tensor,
    n: tl.tensor,
    bins: tl.constexpr,
    rows: tl.constexpr,
    knots: tl.constexpr,
    knot_rows: tl.constexpr,
    boundary: tl.constexpr,
    min_width: tl.constexpr,
    min_height: tl.constexpr,
    min_slope: tl.constexpr,
    offset: tl.constexpr,
    bound: tl.constexpr,
    inverse: tl.constexpr,
    block: tl.constexpr,
) -> None:
    at = (tl.program_id(0).to(tl.int64) * block + tl.arange(0, block))[None, :]
    number, row = tl.arange(0, rows)[:, None], tl.arange(0, knot_rows)[:, None]
    inside, stride = at < n, tl.cast(n, tl.int64)
    points = tl.load(points_at + at, mask=inside, other=0.0)
    g_y, g_log = tl.load(g_y_at + at, mask=inside, other=0.0), tl.load(g_log_at + at, mask=inside, other=0.0)
    index = tl.load(index_at + at, mask=inside, other=0).to(tl.int32)
    target = _unit(points, bound)
    raw_at += at
    widths = _shares(raw_at, stride, inside, number, bins)
    heights = _shares(raw_at + bins * stride, stride, inside, number, bins)
    left, width = _take(index, widths, number, bins, min_width)
    bottom, height = _take(index, heights, number, bins, min_height)
    knot_0, knot_1 = _knots(index, bins, boundary)
    raw_at += 2 * bins * stride
    raw_0 = _raw_slope(raw_at, stride, inside, knot_0, knots) + offset
    raw_1 = _raw_slope(raw_at, stride, inside, knot_1, knots) + offset
    slope_0, slope_1 = _softplus(raw_0) + min_slope, _softplus(raw_1) + min_slope
    g_value, outside = g_y, tl.abs(points) > bound
    if bound != 0.0:
        g_value, g_log = tl.where(outside, 0.0, g_y * (2.0 * bound)), tl.where(outside, 0.0, g_log)
    g_left, g_width, g_bottom, g_height, g_0, g_1, g_points = _segment_gradient(
        target, left, width, bottom, height, slope_0, slope_1, g_value, g_log, inverse
    )
    if bound != 0.0:
        g_points = tl.where(outside, g_y, g_points * (0.5 / bound))
    else:
        g_points = tl.where((points < 0.0) | (points > 1.0), 0.0, g_points)
    tl.store(g_points_at + at, g_points, mask=inside)
    g_raw_at += at
    g = _size_gradient(widths, number, index, left, width, g_left, g_width, bins, min_width)
    tl.store(g_raw_at + number * stride, g, mask=inside & (number < bins))
    g = _size_gradient(heights, number, index, bottom, height, g_bottom, g_height, bins, min_height)
    tl.store(g_raw_at + (bins + number) * stride, g, mask=inside & (number < bins))
    g = tl.where(row == knot_0, g_0 * _sigmoid(raw_0), 0.0) + tl.where(row == knot_1, g_1 * _sigmoid(raw_1), 0.0)
    tl.store(g_raw_at + (2 * bins + row) * stride, g, mask=inside & (row < knots))


def _launch(kernel: Any, tensors: tuple[Tensor, ...], inverse: bool, shape: Shape) -> None:
    """Run a kernel on the current stream of the device that holds the tensors."""
    points, knots = tensors[0], shape.bins + (1, -1, 0)[shape.boundary]
    with torch.cuda.device_of(points):  # type: ignore[no-untyped-call]
        kernel[(triton.cdiv(points.numel(), _BLOCK),)](
            *tensors,
            points.numel(),
            shape.bins,
            triton.next_power_of_2(shape.bins),
            knots,
            triton.next_power_of_2(knots),
            shape.boundary,
            shape.min_width,
            shape.min_height,
            shape.min_slope,
            math.log(math.expm1(1.0 - shape.min_slope)),
            shape.bound,
            inverse,
            _BLOCK,
            num_warps=_WARPS,
            enable_fp_fusion=True,
        )


def spline(x: Tensor, raw: Tensor, y: Tensor, log_slope: Tensor, index: Tensor, inverse: bool, shape: Shape) -> None:
    """Fill values y (A, n), log slopes (A, n) and the numbers of the bins (A, n), int16, for points x (A, n).

    `raw` are the parameters (P, A, n); `inverse` asks for the other direction.

    >>> from nisampler.flows.splines.fused_spline import Shape
    >>> x, raw = torch.full((1, 2), 0.4, device="cuda"), torch.zeros(31, 1, 2, device="cuda")
    >>> y, log_slope, index = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x, dtype=torch.int16)
    >>> spline(x, raw, y, log_slope, index, False, Shape(10, 0, 1e-4, 1e-4, 1e-4, 0.0))
    >>> y.cpu()
    tensor([[0.4000, 0.4000]])
    """
    _launch(_spline_kernel, (x, raw, y, log_slope, index), inverse, shape)


def spline_gradient(
    x: Tensor,
    raw: Tensor,
    index: Tensor,
    g_y: Tensor,
    g_log: Tensor,
    g_x: Tensor,
    g_raw: Tensor,
    inverse: bool,
    shape: Shape,
) -> None:
    """Fill the gradients g_x (A, n) and g_raw (P, A, n) from those of values and log slopes, g_y and g_log (A, n).

    `x` and `raw` were given to `spline`, and `index` are the numbers of the bins.

    >>> from nisampler.flows.splines.fused_spline import Shape
    >>> x, raw = torch.full((1, 2), 0.35, device="cuda"), torch.zeros(31, 1, 2, device="cuda")
    >>> index, g_x, g_raw = torch.full_like(x, 3, dtype=torch.int16), torch.empty_like(x), torch.empty_like(raw)
    >>> given = (x, raw, index, torch.ones_like(x), torch.zeros_like(x), g_x, g_raw)
    >>> spline_gradient(*given, False, Shape(10, 0, 1e-4, 1e-4, 1e-4, 0.0))
    >>> g_x.cpu().round(decimals=3)
    tensor([[1., 1.]])
    """
    _launch(_gradient_kernel, (x, raw, index, g_y, g_log, g_x, g_raw), inverse, shape)
