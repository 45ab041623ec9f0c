"""A plan run tile by tile of points, with all currents of a tile in the processor's cache, compiled by numba."""

from __future__ import annotations

import math
from typing import Any

from nisampler.flows.splines.numba_maths import compiled, filled
from nisampler.processes.amplitudes.recursion.compiled.lanes import execute
from nisampler.processes.amplitudes.recursion.compiled.tiles import KINDS, TILE, TINY

_SPINOR, _MASSLESS, _TRANSVERSE, _LONGITUDINAL = (
    KINDS.index(kind) for kind in ("spinor", "massless", "transverse", "longitudinal")
)


@compiled
def _directions(p: Any, mass: Any, base: Any) -> None:
    """Rows of one leg: 0-3 the two-spinor of helicity +, 4 sqrt(E - p), 5 sqrt(E + p) over its norm, 6 |p|."""
    for t in range(TILE):
        x, y, z = p[1, t], p[2, t], p[3, t]
        momentum = math.sqrt(x * x + y * y + z * z) + TINY if mass > 0.0 else p[0, t]
        root = math.sqrt(momentum + abs(z) + TINY)
        real, imaginary = x / root, y / root
        forward = z >= 0.0
        base[0, t] = root if forward else real
        base[1, t] = 0.0 if forward else -imaginary
        base[2, t] = real if forward else root
        base[3, t] = imaginary if forward else 0.0
        large = math.sqrt(p[0, t] + momentum) if mass > 0.0 else 1.0
        norm = 1.0 / math.sqrt(2.0 * momentum) if mass > 0.0 else 1.0
        base[4, t], base[5, t], base[6, t] = mass / large * norm, large * norm, momentum


@compiled
def _spinor(base: Any, minus: Any, conjugated: Any, large: Any, sign: Any, rows: Any) -> None:
    for t in range(TILE):
        factor = sign * (base[5, t] if large else base[4, t])
        flip = -1.0 if conjugated else 1.0
        up, up_i, down, down_i = base[0, t], base[1, t], base[2, t], base[3, t]
        rows[0, t] = factor * (-down if minus else up)
        rows[1, t] = factor * flip * (down_i if minus else up_i)
        rows[2, t] = factor * (up if minus else down)
        rows[3, t] = factor * flip * (-up_i if minus else down_i)


@compiled
def _massless(p: Any, minus: Any, rows: Any) -> None:
    root = math.sqrt(2.0)
    for t in range(TILE):
        forward = p[3, t] >= 0.0
        left = forward != minus
        scale = -root / (p[0, t] + abs(p[3, t]))
        along, along_i = p[1, t] * scale, (-p[2, t] if left else p[2, t]) * scale
        rows[0, t], rows[1, t] = (0.0 if forward else along), (0.0 if forward else along_i)
        rows[2, t], rows[3, t] = (along if forward else 0.0), (along_i if forward else 0.0)
        rows[4, t], rows[5, t] = (-root if left else 0.0), 0.0
        rows[6, t], rows[7, t] = (0.0 if left else -root), 0.0


@compiled
def _transverse(base: Any, minus: Any, rows: Any) -> None:
    for t in range(TILE):
        scale = math.sqrt(0.5) / base[6, t]
        up, down = complex(base[0, t], base[1, t]), complex(base[2, t], base[3, t])
        plus, left, right = -up * down * scale, -down * down * scale, up * up * scale
        flip = 1.0 if minus else -1.0
        first, second = (left, right) if minus else (right, left)
        rows[0, t], rows[1, t] = plus.real, flip * plus.imag
        rows[2, t], rows[3, t] = -plus.real, -flip * plus.imag
        rows[4, t], rows[5, t] = first.real, flip * first.imag
        rows[6, t], rows[7, t] = second.real, flip * second.imag


@compiled
def _longitudinal(p: Any, base: Any, mass: Any, rows: Any) -> None:
    for t in range(TILE):
        momentum = base[6, t]
        scale = p[0, t] / (momentum * mass)
        along = (TINY if momentum <= 2 * TINY else p[3, t]) * scale
        rows[0, t], rows[1, t] = momentum / mass + along, 0.0
        rows[2, t], rows[3, t] = momentum / mass - along, 0.0
        rows[4, t], rows[5, t] = p[1, t] * scale, p[2, t] * scale
        rows[6, t], rows[7, t] = p[1, t] * scale, -p[2, t] * scale


@compiled
def _fill(p: Any, mass: Any, waves: Any, base: Any, work: Any) -> None:
    """Wave functions of one tile; columns of `waves`: leg, row, kind, minus, conjugated, large, sign."""
    for leg in range(len(mass)):
        _directions(p[leg], mass[leg], base[leg])
    for w in range(len(waves)):
        leg, row, kind, minus, conjugated, large, sign = waves[w]
        rows = work[2 * row :]
        if kind == _SPINOR:
            _spinor(base[leg], minus != 0, conjugated != 0, large != 0, float(sign), rows)
        elif kind == _MASSLESS:
            _massless(p[leg], minus != 0, rows)
        elif kind == _TRANSVERSE:
            _transverse(base[leg], minus != 0, rows)
        elif kind == _LONGITUDINAL:
            _longitudinal(p[leg], base[leg], mass[leg], rows)
        else:
            filled(rows[0], 1.0)
            filled(rows[1], 0.0)


@compiled
def _sums(p: Any, mass: Any, signs: Any, sets: Any, momenta: Any) -> None:
    """p+, p-, px, py of every set of legs, of p+ and p- of a leg the smaller one from the mass."""
    for row in range(len(momenta)):
        filled(momenta[row], 0.0)
    for leg in range(len(mass)):
        for t in range(TILE):
            z = p[leg, 3, t]
            large = p[leg, 0, t] + abs(z)
            small = (p[leg, 1, t] ** 2 + p[leg, 2, t] ** 2 + mass[leg] ** 2) / large
            p[leg, 4, t] = signs[leg] * (large if z > 0.0 else small)
            p[leg, 5, t] = signs[leg] * (small if z > 0.0 else large)
        for s in range(len(sets)):
            if sets[s] >> leg & 1:
                for t in range(TILE):
                    momenta[4 * s, t] += p[leg, 4, t]
                    momenta[4 * s + 1, t] += p[leg, 5, t]
                    momenta[4 * s + 2, t] += signs[leg] * p[leg, 1, t]
                    momenta[4 * s + 3, t] += signs[leg] * p[leg, 2, t]


@compiled
def _contract(work: Any, ends: Any, strong: Any, a: Any, row_sum: Any, total: Any, flows: Any) -> None:
    """Add the colour sums of one tile; columns of `results`: flow, row, power of g."""
    results, factors, groups, times, matrix = ends
    for g in range(len(groups) - 1):
        for row in range(len(a)):
            filled(a[row], 0.0)
        for r in range(groups[g], groups[g + 1]):
            flow, row, power = results[r, 0], results[r, 1], results[r, 2]
            for t in range(TILE):
                real, imaginary = work[2 * row, t] * strong[power, t], work[2 * row + 1, t] * strong[power, t]
                a[2 * flow, t] += factors[r, 0] * real - factors[r, 1] * imaginary
                a[2 * flow + 1, t] += factors[r, 0] * imaginary + factors[r, 1] * real
        for i in range(len(matrix)):
            for t in range(TILE):
                flows[i, t] += times[g] * (a[2 * i, t] ** 2 + a[2 * i + 1, t] ** 2)
            for part in range(2):
                for t in range(TILE):
                    row_sum[t] = a[2 * i + part, t] * (0.5 * matrix[i, i])
                for j in range(i):
                    for t in range(TILE):
                        row_sum[t] += matrix[i, j] * a[2 * j + part, t]
                for t in range(TILE):
                    total[t] += 2.0 * times[g] * row_sum[t] * a[2 * i + part, t]


@compiled
def squared(p: Any, g: Any, legs: Any, table: Any, ends: Any, scratch: Any, squares: Any, flows: Any) -> None:
    """Colour sums of all points, and where `flows` has rows those of each flow; see `Tiles`.

    >>> callable(squared)
    True
    """
    mass, signs = legs
    sets, waves, ops, numbers = table
    work, momenta, tile, base, strong, a, sums = scratch
    flow, row_sum, total = sums[2:], sums[0], sums[1]
    filled(strong[0], 1.0)
    for start in range(0, len(p), TILE):
        for t in range(TILE):
            point = min(start + t, len(p) - 1)
            for leg in range(len(mass)):
                for c in range(4):
                    tile[leg, c, t] = p[point, leg, c]
            for power in range(1, len(strong)):
                strong[power, t] = strong[power - 1, t] * g[point]
        _fill(tile, mass, waves, base, work)
        _sums(tile, mass, signs, sets, momenta)
        for k in range(len(ops)):
            o = ops[k]
            execute(work, momenta, o[0], o[1], o[2], o[3], o[4], o[5], o[6], numbers[k, 0], numbers[k, 1])
        for row in range(1, len(sums)):
            filled(sums[row], 0.0)
        _contract(work, ends, strong, a, row_sum, total, flow)
        for t in range(min(TILE, len(p) - start)):
            squares[start + t] = total[t]
            for i in range(len(flows)):
                flows[i, start + t] = flow[i, t]
