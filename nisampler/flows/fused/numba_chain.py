"""A chain of coupling blocks compiled for the CPU: all blocks of a tile of points in one call, and their gradient.

Points (d, n) have the samples last, sorted by group. A tile (group, first, last) is a range of samples of one group.
Its numbers lie in three matrices whose rows hold one number for each sample: those of the networks and those of the
points, each in its precision, and the numbers of bins. `table` says for each block what it is and where its rows begin.
"""

from __future__ import annotations

from typing import Any

from nisampler.flows.fused.numba_layers import activate, activate_again, features, features_gradient, sum_rows
from nisampler.flows.fused.numba_products import multiply
from nisampler.flows.fused.plan import COLUMNS
from nisampler.flows.splines.numba_maths import compiled, copied, filled
from nisampler.flows.splines.numba_memory import view
from nisampler.flows.splines.numba_spline import spline, spline_gradient

_INPUTS, _LAYERS, _UNITS, _KEPT, _CHANGED, _PARAMS, _HARMONICS, _CENTRE, _CONTEXT, *_PLACES = range(len(COLUMNS))
_WEIGHTS, _ROWS, _FEATURES, _SUMS, _RAW, _BEFORE, _INDEX = _PLACES


@compiled
def _layer(block: Any, number: int, group: int, groups: int) -> Any:
    """Inputs and outputs of a layer, and where its weight and its bias begin."""
    outputs, units, layers = block[_PARAMS] * block[_CHANGED], block[_UNITS], block[_LAYERS]
    at = block[_WEIGHTS]
    for k in range(number + 1):
        inputs = block[_INPUTS] if k == 0 else units
        own = outputs if k == layers else units
        weight, bias = at + group * own * inputs, at + groups * own * inputs + group * own
        at += groups * own * (inputs + 1)
    return inputs, own, weight, bias


@compiled
def _rows(block: Any, rows: Any) -> Any:
    """Rows of the coordinates that a block sees, and of those that it changes."""
    at, middle = block[_ROWS], block[_ROWS] + block[_KEPT]
    return rows[at:middle], rows[middle : middle + block[_CHANGED]]


@compiled
def _block_forward(
    block: Any,
    rows: Any,
    tile: Any,
    groups: int,
    w: Any,
    given: Any,
    space: Any,
    mode: int,
    inverse: bool,
    form: Any,
    work: Any,
) -> None:
    """A block: rows of points are overwritten, and log slopes added to the row behind them."""
    group, first, last = tile
    networks, points, numbers = space
    shape, kind, dim = form
    n, t = last - first, points.shape[1]
    kept, changed = _rows(block, rows)
    layers, outputs = block[_LAYERS], block[_PARAMS] * block[_CHANGED]
    raw = networks[block[_RAW] : block[_RAW] + outputs]
    if block[_INPUTS] == 0:
        bias = w[block[_WEIGHTS] + group * outputs :][:outputs]
        for k in range(outputs):
            filled(raw[k, :n], raw.dtype.type(0.0))
    else:
        seen = networks[block[_FEATURES] : block[_FEATURES] + block[_INPUTS]]
        features(points, kept, block[_HARMONICS], block[_CENTRE] > 0, seen, n)
        for k in range(block[_CONTEXT]):
            copied(given[k, first:last], seen[block[_INPUTS] - block[_CONTEXT] + k])
        for number in range(layers + 1):
            inputs, own, weight, at = _layer(block, number, group, groups)
            start = block[_SUMS] + number * block[_UNITS]
            sums = raw if number == layers else networks[start : start + own]
            multiply(w[weight:], seen, sums, (False, False), (own, n, inputs), (inputs, t, t), False)
            bias = w[at : at + own]
            if number < layers:
                seen = networks[:own]
                activate(kind, sums, bias, seen, n)
    before = points[block[_BEFORE] : block[_BEFORE] + block[_CHANGED]]
    index = numbers[block[_INDEX] : block[_INDEX] + block[_CHANGED]]
    for i in range(len(changed)):
        copied(points[changed[i], :n], before[i])
    cube, log_det = (block[_PARAMS], block[_CHANGED], t), points[dim : dim + 1]
    layer = (changed, view(bias, cube[:2]), mode)
    spline(before, view(raw, cube), points, log_det, index, layer, inverse, shape, (0, n), work)


@compiled
def forward(
    x: Any,
    y: Any,
    log_det: Any,
    tiles: Any,
    groups: int,
    table: Any,
    rows: Any,
    w: Any,
    given: Any,
    space: Any,
    mode: int,
    inverse: bool,
    form: Any,
    work: Any,
) -> None:
    """Points x (d, n) through all blocks: y (d, n) and log determinants (n,).

    `work` is scratch, see `fused_spline.workspace`.

    >>> forward.__name__
    'forward'
    """
    networks, points, numbers = space
    dim = x.shape[0]
    for k in range(tiles.shape[0]):
        tile = (tiles[k, 0], tiles[k, 1], tiles[k, 2])
        own = k % points.shape[0]
        part = (networks[own], points[own], numbers[own])
        first, last = tile[1], tile[2]
        n = last - first
        for i in range(dim):
            copied(x[i, first:last], points[own, i])
        filled(points[own, dim, :n], x.dtype.type(0.0))
        for b in range(table.shape[0]):
            _block_forward(table[b], rows, tile, groups, w, given, part, mode, inverse, form, work)
        for i in range(dim):
            copied(points[own, i, :n], y[i, first:last])
        copied(points[own, dim, :n], log_det[first:last])


@compiled
def _block_backward(
    block: Any,
    rows: Any,
    tile: Any,
    groups: int,
    w: Any,
    g_w: Any,
    given: Any,
    space: Any,
    scratch: Any,
    mode: int,
    inverse: bool,
    form: Any,
    work: Any,
    inner: bool,
    add: bool,
) -> None:
    """The gradient of a block: that of the points is overwritten, those of the weights are filled or added to."""
    group, first, last = tile
    networks, points, numbers = space
    g_networks, g_points = scratch
    shape, kind, dim = form
    n, t = last - first, points.shape[1]
    kept, changed = _rows(block, rows)
    layers, outputs, units = block[_LAYERS], block[_PARAMS] * block[_CHANGED], block[_UNITS]
    raw = networks[block[_RAW] : block[_RAW] + outputs]
    before = points[block[_BEFORE] : block[_BEFORE] + block[_CHANGED]]
    index = numbers[block[_INDEX] : block[_INDEX] + block[_CHANGED]]
    cube = (block[_PARAMS], block[_CHANGED], t)
    g, g_log = g_networks[:outputs], g_points[dim : dim + 1]
    grads = (g_points, g_log, g_points, view(g, cube))
    spline_gradient(before, view(raw, cube), index, grads, (changed, mode), inverse, shape, (0, n), work)
    if block[_INPUTS] == 0:
        at = block[_WEIGHTS] + group * outputs
        sum_rows(g, n, g_w[at : at + outputs], add)
        return
    place = outputs
    for layer in range(layers, -1, -1):
        inputs, own, weight, at = _layer(block, layer, group, groups)
        sum_rows(g, n, g_w[at : at + own], add)
        if layer or inner:
            g_seen = g_networks[place : place + inputs]
            multiply(w[weight:], g, g_seen, (True, False), (inputs, n, own), (inputs, t, t), False)
        if layer:
            start = block[_SUMS] + (layer - 1) * units
            seen = networks[:units]
            _, _, _, below = _layer(block, layer - 1, group, groups)
            activate_again(kind, networks[start : start + units], w[below : below + units], seen, g_seen, n)
        else:
            seen = networks[block[_FEATURES] : block[_FEATURES] + inputs]
        multiply(g, seen, g_w[weight:], (False, True), (own, inputs, n), (t, t, inputs), add)
        if layer or inner:
            g, place = g_seen, outputs + (max(units, block[_INPUTS]) if place == outputs else 0)
    if inner:
        features_gradient(seen, g, kept, block[_HARMONICS], block[_CENTRE] > 0, g_points, n)
        for k in range(block[_CONTEXT]):
            source, out = g[block[_INPUTS] - block[_CONTEXT] + k], given[k, first:last]
            for j in range(n):
                out[j] += source[j]


@compiled
def backward(
    g_y: Any,
    g_log_det: Any,
    g_x: Any,
    tiles: Any,
    groups: int,
    table: Any,
    rows: Any,
    w: Any,
    g_w: Any,
    given: Any,
    space: Any,
    scratch: Any,
    mode: int,
    inverse: bool,
    form: Any,
    work: Any,
    inner: bool,
) -> None:
    """Gradients g_x (d, n) of points, g_w of weights, and of a context, added to `given`, from those of the results.

    The tiles lie in `space` as `forward` has left them in this mode. `scratch` is memory for gradients of networks, for
    those of points, and a byte for each group.

    >>> backward.__name__
    'backward'
    """
    networks, points, numbers = space
    (g_networks, g_points, done), dim = scratch, g_y.shape[0]
    for k in range(groups):
        done[k] = 0
    for k in range(tiles.shape[0]):
        tile = (tiles[k, 0], tiles[k, 1], tiles[k, 2])
        first, last = tile[1], tile[2]
        n = last - first
        part = (networks[k], points[k], numbers[k])
        for i in range(dim):
            copied(g_y[i, first:last], g_points[i])
        copied(g_log_det[first:last], g_points[dim])
        for b in range(table.shape[0] - 1, -1, -1):
            own = inner or b > 0
            _block_backward(
                table[b],
                rows,
                tile,
                groups,
                w,
                g_w,
                given,
                part,
                (g_networks, g_points),
                mode,
                inverse,
                form,
                work,
                own,
                done[tile[0]] > 0,
            )
        done[tile[0]] = 1
        for i in range(dim):
            copied(g_points[i, :n], g_x[i, first:last])
