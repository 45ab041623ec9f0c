"""The rational-quadratic spline compiled for the CPU: parameters to bins to values and log slopes, in one pass.

numba turns these loops into the code that is shipped, see `nisampler.flows.fused.shipping`. They run in blocks of
samples that stay in the fastest cache, without branches that depend on the data and along rows of contiguous memory,
which is what turns every inner loop into vector instructions. The mathematics is that of `rational_quadratic`, the
reference.

Arrays are C-contiguous with the samples last: points (A, n), raw parameters (P, A, n), which may be single where points
are double. A NaN in a point or in one of its parameters gives a NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nisampler.flows.splines.fused_spline import BLOCK, ROWS
from nisampler.flows.splines.numba_maths import compiled, copied, exp, inlined, log, short, sigmoid, softplus

# Rows of the scratch of a block: behind them come the shares of the bins.
_TARGET, _WORK, _EDGE, _INDEX, _LOG, _RAW_0, _RAW_1, _SLOPE_0, _SLOPE_1 = range(9)
_LEFT, _WIDTH, _BOTTOM, _HEIGHT = range(9, 13)
_G_LEFT, _G_WIDTH, _G_BOTTOM, _G_HEIGHT, _G_0, _G_1, _G_VALUE, _G_LOG = range(13, 21)


@inlined
def _row(s: Any, number: int, count: int) -> Any:
    """A row of the scratch."""
    return s[number * BLOCK : number * BLOCK + count]


@compiled
def _load(x: Any, target: Any, bound: float) -> None:
    """Points as fractions of the unit interval."""
    zero, half, one = x.dtype.type(0.0), x.dtype.type(0.5), x.dtype.type(1.0)
    scale = one if bound == 0.0 else x.dtype.type(0.5 / bound)
    shift = zero if bound == 0.0 else half
    for j in range(len(x)):
        u = x[j] * scale + shift
        u = zero if u < zero else u
        target[j] = one if u > one else u


@compiled
def _softmax(raw: Any, first: int, bins: int, block: Any, s: Any, e: Any, at: int) -> None:
    """Shares of the bins into the rows from `at` on; a block is a coordinate, its first sample and their number.

    Exponentials are taken in the precision of the parameters, with `e` as scratch, and added in that of the points.
    """
    i, start, count = block
    peak, power, total = e[:count], e[BLOCK : BLOCK + count], _row(s, _EDGE, count)
    row = raw[first, i, start : start + count]
    for j in range(count):
        peak[j] = row[j]
        total[j] = s.dtype.type(0.0)
    for k in range(1, bins):
        row = raw[first + k, i, start : start + count]
        for j in range(count):
            v = row[j]
            peak[j] = v if v > peak[j] else peak[j]
    for k in range(bins):
        row, share = raw[first + k, i, start : start + count], _row(s, at + k, count)
        for j in range(count):
            power[j] = exp(row[j] - peak[j])
        for j in range(count):
            share[j] = power[j]
            total[j] += share[j]
    for j in range(count):
        total[j] = s.dtype.type(1.0) / total[j]
    for k in range(bins):
        share = _row(s, at + k, count)
        for j in range(count):
            share[j] *= total[j]


@compiled
def _shift(raw: Any, bias: Any, block: Any) -> None:
    """Add the bias of a layer (P, A) to the parameters of a block."""
    i, start, count = block
    for k in range(raw.shape[0]):
        row, own = raw[k, i, start : start + count], bias[k, i]
        for j in range(count):
            row[j] += own


@compiled
def _exchange(raw: Any, first: int, bins: int, block: Any, s: Any, at: int, keep: bool) -> None:
    """Put the shares of the bins in the place of their raw parameters, or read those that were kept there."""
    i, start, count = block
    for k in range(bins):
        row, share = raw[first + k, i, start : start + count], _row(s, at + k, count)
        if keep:
            copied(share, row)
        else:
            copied(row, share)


@compiled
def _find(bins: int, least: float, count: int, s: Any, edge: int) -> None:
    """The bin that holds the target: its index, and its lower edge and size in two rows."""
    minimum, scale = s.dtype.type(least), s.dtype.type(1.0 - bins * least)
    zero = s.dtype.type(0.0)
    target, top, index = _row(s, _TARGET, count), _row(s, _EDGE, count), _row(s, _INDEX, count)
    low, size = _row(s, edge, count), _row(s, edge + 1, count)
    share = _row(s, ROWS, count)
    for j in range(count):
        size[j] = share[j] * scale + minimum
        top[j] = size[j]
    for j in range(count):
        low[j], index[j] = zero, zero
    for k in range(1, bins):
        number, share = s.dtype.type(k), _row(s, ROWS + k, count)
        for j in range(count):
            edge_here, low_so_far, index_so_far = top[j], low[j], index[j]
            reached = target[j] >= edge_here
            low[j] = edge_here if reached else low_so_far
            index[j] = number if reached else index_so_far
        for j in range(count):
            own, size_so_far = share[j] * scale + minimum, size[j]
            size[j] = own if index[j] == number else size_so_far
            top[j] += own


@compiled
def _take(bins: int, least: float, count: int, s: Any, at: int, edge: int) -> None:
    """Lower edge and size of the bin with the known index; the shares stand from row `at` on."""
    minimum, scale = s.dtype.type(least), s.dtype.type(1.0 - bins * least)
    index, low, size = _row(s, _INDEX, count), _row(s, edge, count), _row(s, edge + 1, count)
    for j in range(count):
        low[j], size[j] = s.dtype.type(0.0), s.dtype.type(0.0)
    for k in range(bins):
        number, share = s.dtype.type(k), _row(s, at + k, count)
        for j in range(count):
            own, size_so_far, chosen = share[j] * scale + minimum, size[j], index[j]
            low[j] += own if number < chosen else s.dtype.type(0.0)
            size[j] = own if number == chosen else size_so_far


@short
def _knot_row(k: int, shape: Any) -> Any:
    """Where the raw slope at a knot stands among the parameters; -1 if it is one."""
    if shape.boundary == 0:
        return 2 * shape.bins + k
    if shape.boundary == 2:
        return 2 * shape.bins + k % shape.bins
    return -1 if k in (0, shape.bins) else 2 * shape.bins + k - 1


@compiled
def _slopes(raw: Any, block: Any, s: Any, shape: Any) -> None:
    """Raw slopes at the two knots of the bin and the slopes themselves; zero stands for a slope of one."""
    i, start, count = block
    offset = s.dtype.type(math.log(math.expm1(1.0 - shape.min_slope)))
    least = s.dtype.type(shape.min_slope)
    index, raw_0, raw_1 = _row(s, _INDEX, count), _row(s, _RAW_0, count), _row(s, _RAW_1, count)
    for j in range(count):
        raw_0[j], raw_1[j] = s.dtype.type(0.0), s.dtype.type(0.0)
    for k in range(shape.bins + 1):
        number = _knot_row(k, shape)
        if number >= 0:
            row, here, before = raw[number, i, start : start + count], s.dtype.type(k), s.dtype.type(k - 1)
            for j in range(count):
                v, chosen, so_far_0, so_far_1 = row[j], index[j], raw_0[j], raw_1[j]
                raw_0[j] = v if chosen == here else so_far_0
                raw_1[j] = v if chosen == before else so_far_1
    slope_0, slope_1 = _row(s, _SLOPE_0, count), _row(s, _SLOPE_1, count)
    for j in range(count):
        slope_0[j] = softplus(raw_0[j] + offset) + least
    for j in range(count):
        slope_1[j] = softplus(raw_1[j] + offset) + least


@short
def _position(s: Any, target: Any, low: Any, size: Any, mean: Any, slope_0: Any, slope_1: Any, inverse: bool) -> Any:
    """The place of the target in its bin, from 0 to 1; `low` and `size` are those of the side it is on.

    With `inverse` it solves a quadratic, as `solve_segment` does.
    """
    zero, one, two = s.dtype.type(0.0), s.dtype.type(1.0), s.dtype.type(2.0)
    theta = (target - low) / size
    theta = zero if theta < zero else theta
    theta = one if theta > one else theta
    if inverse:
        rest = one - theta
        lead, twice = slope_0 * rest - slope_1 * theta, two * mean
        root = math.sqrt(lead * lead + twice * twice * (theta * rest))
        long = abs(lead) + root
        short = twice * (theta if lead > zero else rest)
        theta = (short if lead > zero else long) / (short + long)
    return theta


@compiled
def _evaluate(count: int, s: Any, inverse: bool) -> None:
    """Value into the row of targets and log slope into its own (1906.04032 eqs. (4)-(8))."""
    zero, one, two = s.dtype.type(0.0), s.dtype.type(1.0), s.dtype.type(2.0)
    for j in range(count):
        width, height = s[_WIDTH * BLOCK + j], s[_HEIGHT * BLOCK + j]
        slope_0, slope_1 = s[_SLOPE_0 * BLOCK + j], s[_SLOPE_1 * BLOCK + j]
        target, left, bottom = s[_TARGET * BLOCK + j], s[_LEFT * BLOCK + j], s[_BOTTOM * BLOCK + j]
        mean = height / width
        bend = slope_0 + slope_1 - two * mean
        low, size = (bottom, height) if inverse else (left, width)
        theta = _position(s, target, low, size, mean, slope_0, slope_1, inverse)
        rest = one - theta
        mixed = theta * rest
        below = mean + bend * mixed
        above = slope_1 * theta * theta + two * mean * mixed + slope_0 * rest * rest
        ratio = mean / below
        log_slope = log(ratio * ratio * above)
        if inverse:
            value, log_slope = left + width * theta, -log_slope
        else:
            value = bottom + height * ((mean * theta * theta + slope_0 * mixed) / below)
        value = zero if value < zero else value
        s[_TARGET * BLOCK + j] = one if value > one else value
        s[_LOG * BLOCK + j] = log_slope


@compiled
def _store(x: Any, y: Any, log_slope: Any, target: Any, slope: Any, bound: float) -> None:
    """Results of a block, log slopes added to what is there; outside of the box points stay what they are."""
    zero, limit, width = x.dtype.type(0.0), x.dtype.type(bound), x.dtype.type(2.0 * bound)
    if bound == 0.0:
        for j in range(len(x)):
            y[j] = target[j]
            log_slope[j] += slope[j]
        return
    for j in range(len(x)):
        point, value, own = x[j], target[j] * width - limit, slope[j]
        outside = abs(point) > limit
        y[j] = point if outside else value
        log_slope[j] += zero if outside else own


@compiled
def spline(
    x: Any, raw: Any, y: Any, log_slope: Any, index: Any, layer: Any, inverse: bool, shape: Any, span: Any, work: Any
) -> None:
    """Fill values y and the numbers of the bins (A, n), int16, for points x (A, n), and add up their log slopes.

    `raw` are the parameters (P, A, n), and `layer` says what else is to be done: (rows, bias, mode). The value of row i
    of x goes to row rows[i] of y. Log slopes are added to the rows of `log_slope`, or to the only one. In mode 0
    parameters stay as they are; in mode 1 `bias` (P, A) is added to them first; in mode 2 the shares of the bins take
    their place afterwards. `inverse` asks for the other direction. Only samples of a span (first, last) are touched.

    `work` is scratch, see `fused_spline.workspace`.

    >>> from nisampler.base.machine_code import Kernel
    >>> from nisampler.flows.splines.fused_spline import FILE, examples
    >>> arguments = examples("f4", "f4")["spline"]
    >>> Kernel(FILE, "spline f4 f4")(*arguments)
    >>> arguments[2], arguments[4]
    (array([[0.5]], dtype=float32), array([[1]], dtype=int16))
    """
    (rows, bias, mode), (first, last), (s, e) = layer, span, work
    bins = shape.bins
    on_y, on_x = (bins, shape.min_height, _BOTTOM), (0, shape.min_width, _LEFT)
    known, other = (on_y, on_x) if inverse else (on_x, on_y)
    for i in range(x.shape[0]):
        out, total = y[rows[i]], log_slope[min(i, log_slope.shape[0] - 1)]
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            block, part = (i, start, count), slice(start, start + count)
            _load(x[i, part], _row(s, _TARGET, count), shape.bound)
            if mode > 0:
                _shift(raw, bias, block)
            _softmax(raw, known[0], bins, block, s, e, ROWS)
            _find(bins, known[1], count, s, known[2])
            if mode == 2:
                _exchange(raw, known[0], bins, block, s, ROWS, True)
            _softmax(raw, other[0], bins, block, s, e, ROWS)
            _take(bins, other[1], count, s, ROWS, other[2])
            if mode == 2:
                _exchange(raw, other[0], bins, block, s, ROWS, True)
            _slopes(raw, block, s, shape)
            chosen, kept = _row(s, _INDEX, count), index[i, part]
            for j in range(count):
                kept[j] = np.int16(chosen[j])
            _evaluate(count, s, inverse)
            _store(x[i, part], out[part], total[part], _row(s, _TARGET, count), _row(s, _LOG, count), shape.bound)


@compiled
def _load_gradient(x: Any, g_y: Any, g_log: Any, g_value: Any, g_slope: Any, bound: float) -> None:
    """Gradients of value and log slope, in units of the unit interval; those of points outside of the box are zero."""
    zero, limit, width = x.dtype.type(0.0), x.dtype.type(bound), x.dtype.type(2.0 * bound)
    if bound == 0.0:
        for j in range(len(x)):
            g_value[j] = g_y[j]
            g_slope[j] = g_log[j]
        return
    for j in range(len(x)):
        outside, value, slope = abs(x[j]) > limit, g_y[j] * width, g_log[j]
        g_value[j] = zero if outside else value
        g_slope[j] = zero if outside else slope


@compiled
def _segment_gradient(count: int, s: Any, inverse: bool) -> None:
    """Gradients with respect to the bin's edges, sizes and slopes; that of the point into the row of targets.

    A change of a parameter moves the solution of the inverse so that the value stays: its gradients are those of the
    forward direction at the same place with -dL/dx divided by the slope in the place of dL/dy.
    """
    one, two = s.dtype.type(1.0), s.dtype.type(2.0)
    for j in range(count):
        width, height = s[_WIDTH * BLOCK + j], s[_HEIGHT * BLOCK + j]
        slope_0, slope_1 = s[_SLOPE_0 * BLOCK + j], s[_SLOPE_1 * BLOCK + j]
        mean, left, bottom = height / width, s[_LEFT * BLOCK + j], s[_BOTTOM * BLOCK + j]
        low, size = (bottom, height) if inverse else (left, width)
        theta = _position(s, s[_TARGET * BLOCK + j], low, size, mean, slope_0, slope_1, inverse)
        rest = one - theta
        mixed, turn = theta * rest, one - two * theta
        bend = slope_0 + slope_1 - two * mean
        below = mean + bend * mixed
        above = slope_1 * theta * theta + two * mean * mixed + slope_0 * rest * rest
        per_below, per_above = one / below, one / above
        rise = (mean * theta * theta + slope_0 * mixed) * per_below
        slope = mean * mean * above * per_below * per_below
        g_value, g = s[_G_VALUE * BLOCK + j], s[_G_LOG * BLOCK + j]
        along = two * ((slope_1 * theta + mean * turn - slope_0 * rest) * per_above - bend * turn * per_below)
        if inverse:
            g = -g
            g_value = -(g_value + g * along / width) / slope
        pull = g_value * height * per_below
        g_mean = pull * (theta * theta - rise * (one - two * mixed)) + g * two * (
            one / mean - (one - two * mixed) * per_below + mixed * per_above
        )
        g_theta = g_value * width * slope + g * along
        common = two * g * mixed * per_below
        s[_G_0 * BLOCK + j] = pull * mixed * (one - rise) + g * rest * rest * per_above - common
        s[_G_1 * BLOCK + j] = g * theta * theta * per_above - pull * mixed * rise - common
        s[_G_BOTTOM * BLOCK + j] = g_value
        s[_G_HEIGHT * BLOCK + j] = g_value * rise + g_mean / width
        s[_G_WIDTH * BLOCK + j] = -(g_mean * mean + g_theta * theta) / width
        s[_G_LEFT * BLOCK + j] = -g_theta / width
        s[_TARGET * BLOCK + j] = -g_value if inverse else g_theta / width


@compiled
def _share_gradient(g_raw: Any, first: int, least: float, block: Any, s: Any, rows: Any, bins: int) -> None:
    """Gradient of the raw sizes from those of the bin's edge and size.

    `rows` of the scratch: where the shares begin, edge and size, and the gradients of these two.
    """
    i, start, count = block
    at, edge, g_edge = rows
    minimum, scale, zero = s.dtype.type(least), s.dtype.type(1.0 - bins * least), s.dtype.type(0.0)
    index, low, size = _row(s, _INDEX, count), _row(s, edge, count), _row(s, edge + 1, count)
    g_low, g_size, mean = _row(s, g_edge, count), _row(s, g_edge + 1, count), _row(s, _WORK, count)
    for j in range(count):
        mean[j] = g_low[j] * (low[j] - index[j] * minimum)
    for j in range(count):
        mean[j] += g_size[j] * (size[j] - minimum)
    for k in range(bins):
        number, share, out = s.dtype.type(k), _row(s, at + k, count), g_raw[first + k, i, start : start + count]
        for j in range(count):
            left, own, chosen = g_low[j] * scale, g_size[j] * scale, index[j]
            g = left if number < chosen else zero
            g = own if number == chosen else g
            out[j] = share[j] * (g - mean[j])


@compiled
def _slope_gradient(g_raw: Any, block: Any, s: Any, shape: Any) -> None:
    """Gradient of the raw slopes."""
    i, start, count = block
    offset, zero = s.dtype.type(math.log(math.expm1(1.0 - shape.min_slope))), s.dtype.type(0.0)
    index, g_0, g_1 = _row(s, _INDEX, count), _row(s, _G_0, count), _row(s, _G_1, count)
    raw_0, raw_1 = _row(s, _RAW_0, count), _row(s, _RAW_1, count)
    for j in range(count):
        g_0[j] *= sigmoid(raw_0[j] + offset)
    for j in range(count):
        g_1[j] *= sigmoid(raw_1[j] + offset)
    for k in range(shape.bins + 1):
        number = _knot_row(k, shape)
        if number >= 0:
            out, here, before = g_raw[number, i, start : start + count], s.dtype.type(k), s.dtype.type(k - 1)
            again = shape.boundary == 2 and k == shape.bins
            for j in range(count):
                left, right, chosen, kept = g_0[j], g_1[j], index[j], out[j]
                g = left if chosen == here else zero
                g = right if chosen == before else g
                out[j] = g + kept if again else g


@compiled
def _store_gradient(x: Any, g_y: Any, g_x: Any, g: Any, bound: float) -> None:
    """Gradient of the points of a block: zero where they were clamped, that of the value outside of the box."""
    zero, one, limit = g.dtype.type(0.0), g.dtype.type(1.0), g.dtype.type(bound)
    if bound == 0.0:
        for j in range(len(g)):
            point, own = x[j], g[j]
            g_x[j] = zero if (point < zero) | (point > one) else own
        return
    scale = g.dtype.type(0.5 / bound)
    for j in range(len(g)):
        outer, inner = g_y[j], g[j] * scale
        g_x[j] = outer if abs(x[j]) > limit else inner


@compiled
def spline_gradient(
    x: Any, raw: Any, index: Any, grads: Any, layer: Any, inverse: bool, shape: Any, span: Any, work: Any
) -> None:
    """Fill the gradients g_x and g_raw (P, A, n) from those of values and log slopes; all are (g_y, g_log, g_x, g_raw).

    `x` (A, n) and `raw` (P, A, n) are those of `spline`, after it was called, and `index` are the numbers of the bins.
    `layer` is (rows, mode): row i of x has its gradients in row rows[i] of g_y and g_x; g_log has rows for each
    coordinate or a single one. Only the samples of a span (first, last) are touched.

    >>> from nisampler.base.machine_code import Kernel
    >>> from nisampler.flows.splines.fused_spline import FILE, examples
    >>> arguments = examples("f4", "f4")["spline_gradient"]
    >>> Kernel(FILE, "spline_gradient f4 f4")(*arguments)
    >>> arguments[3][2].round(4)
    array([[0.5]], dtype=float32)
    """
    (g_y, g_log, g_x, g_raw), (rows, mode), (first, last), (s, e) = grads, layer, span, work
    bins, widths, heights = shape.bins, ROWS, ROWS + shape.bins
    for i in range(x.shape[0]):
        g_to, g_from, g_added = g_y[rows[i]], g_x[rows[i]], g_log[min(i, g_log.shape[0] - 1)]
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            block, part = (i, start, count), slice(start, start + count)
            _load(x[i, part], _row(s, _TARGET, count), shape.bound)
            g_value, g_slope = _row(s, _G_VALUE, count), _row(s, _G_LOG, count)
            _load_gradient(x[i, part], g_to[part], g_added[part], g_value, g_slope, shape.bound)
            chosen, kept = _row(s, _INDEX, count), index[i, part]
            for j in range(count):
                chosen[j] = kept[j]
            if mode == 2:
                _exchange(raw, 0, 2 * bins, block, s, widths, False)
            else:
                _softmax(raw, 0, bins, block, s, e, widths)
                _softmax(raw, bins, bins, block, s, e, heights)
            _take(bins, shape.min_width, count, s, widths, _LEFT)
            _take(bins, shape.min_height, count, s, heights, _BOTTOM)
            _slopes(raw, block, s, shape)
            _segment_gradient(count, s, inverse)
            _share_gradient(g_raw, 0, shape.min_width, block, s, (widths, _LEFT, _G_LEFT), bins)
            _share_gradient(g_raw, bins, shape.min_height, block, s, (heights, _BOTTOM, _G_BOTTOM), bins)
            _slope_gradient(g_raw, block, s, shape)
            _store_gradient(x[i, part], g_to[part], g_from[part], _row(s, _TARGET, count), shape.bound)
