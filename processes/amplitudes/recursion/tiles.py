"""A plan run by compiled code, tile by tile of points, with all currents of a tile in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nisampler.base.kernels import kept
from nisampler.processes.amplitudes.recursion.graph import NAMES
from nisampler.processes.amplitudes.recursion.lanes import TILE, execute
from nisampler.processes.amplitudes.recursion.plan import Plan
from nisampler.processes.amplitudes.recursion.waves import Leg, recipe

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ONE, _SPINOR, _MASSLESS, _TRANSVERSE, _LONGITUDINAL = range(5)
_KINDS = {
    "one": _ONE,
    "spinor": _SPINOR,
    "massless": _MASSLESS,
    "transverse": _TRANSVERSE,
    "longitudinal": _LONGITUDINAL,
}
_TINY = 1e-150


def _directions(p, mass, base):  # type: ignore[no-untyped-def]
    """Rows of one leg: 0-3 the two-spinor of helicity +, 4 sqrt(E - p), 5 sqrt(E + p) over its norm, 6 |p|."""
    for t in range(TILE):
        x, y, z = p[1, t], p[2, t], p[3, t]
        momentum = math.sqrt(x * x + y * y + z * z) + _TINY if mass > 0.0 else p[0, t]
        root = math.sqrt(momentum + abs(z) + _TINY)
        real, imaginary = x / root, y / root
        forward = z >= 0.0
        base[0, t] = root if forward else real
        base[1, t] = 0.0 if forward else -imaginary
        base[2, t] = real if forward else root
        base[3, t] = imaginary if forward else 0.0
        large = math.sqrt(p[0, t] + momentum) if mass > 0.0 else 1.0
        norm = 1.0 / math.sqrt(2.0 * momentum) if mass > 0.0 else 1.0
        base[4, t], base[5, t], base[6, t] = mass / large * norm, large * norm, momentum


def _spinor(base, minus, conjugated, large, sign, rows):  # type: ignore[no-untyped-def]
    for t in range(TILE):
        factor = sign * (base[5, t] if large else base[4, t])
        flip = -1.0 if conjugated else 1.0
        up, up_i, down, down_i = base[0, t], base[1, t], base[2, t], base[3, t]
        rows[0, t] = factor * (-down if minus else up)
        rows[1, t] = factor * flip * (down_i if minus else up_i)
        rows[2, t] = factor * (up if minus else down)
        rows[3, t] = factor * flip * (-up_i if minus else down_i)


def _massless(p, minus, rows):  # type: ignore[no-untyped-def]
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


def _transverse(base, minus, rows):  # type: ignore[no-untyped-def]
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


def _longitudinal(p, base, mass, rows):  # type: ignore[no-untyped-def]
    for t in range(TILE):
        momentum = base[6, t]
        scale = p[0, t] / (momentum * mass)
        along = (_TINY if momentum <= 2 * _TINY else p[3, t]) * scale
        rows[0, t], rows[1, t] = momentum / mass + along, 0.0
        rows[2, t], rows[3, t] = momentum / mass - along, 0.0
        rows[4, t], rows[5, t] = p[1, t] * scale, p[2, t] * scale
        rows[6, t], rows[7, t] = p[1, t] * scale, -p[2, t] * scale


def _fill(p, mass, waves, base, work):  # type: ignore[no-untyped-def]
    """Wave functions of one tile; columns of `waves`: leg, row, kind, minus, conjugated, large, sign."""
    for leg in range(len(mass)):
        directions(p[leg], mass[leg], base[leg])
    for w in range(len(waves)):
        leg, row, kind, minus, conjugated, large, sign = waves[w]
        rows = work[2 * row :]
        if kind == _SPINOR:
            spinor(base[leg], minus != 0, conjugated != 0, large != 0, float(sign), rows)
        elif kind == _MASSLESS:
            massless(p[leg], minus != 0, rows)
        elif kind == _TRANSVERSE:
            transverse(base[leg], minus != 0, rows)
        elif kind == _LONGITUDINAL:
            longitudinal(p[leg], base[leg], mass[leg], rows)
        else:
            rows[0, :] = 1.0
            rows[1, :] = 0.0


def _sums(p, mass, signs, sets, momenta):  # type: ignore[no-untyped-def]
    """p+, p-, px, py of every set of legs, of p+ and p- of a leg the smaller one from the mass."""
    momenta[:] = 0.0
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


def _contract(work, results, factors, groups, times, matrix, strong, a, total, flows):  # type: ignore[no-untyped-def]
    """Add the colour sums of one tile; columns of `results`: flow, row, power of g."""
    for g in range(len(groups) - 1):
        a[:] = 0.0
        for r in range(groups[g], groups[g + 1]):
            flow, row, power = results[r]
            for t in range(TILE):
                real, imaginary = work[2 * row, t] * strong[power, t], work[2 * row + 1, t] * strong[power, t]
                a[2 * flow, t] += factors[r, 0] * real - factors[r, 1] * imaginary
                a[2 * flow + 1, t] += factors[r, 0] * imaginary + factors[r, 1] * real
        for i in range(len(matrix)):
            for t in range(TILE):
                flows[i, t] += times[g] * (a[2 * i, t] ** 2 + a[2 * i + 1, t] ** 2)
            for part in range(2):
                row_sum = a[2 * i + part] * (0.5 * matrix[i, i])
                for j in range(i):
                    for t in range(TILE):
                        row_sum[t] += matrix[i, j] * a[2 * j + part, t]
                for t in range(TILE):
                    total[t] += 2.0 * times[g] * row_sum[t] * a[2 * i + part, t]


def _run(p, g, mass, signs, sets, waves, ops, numbers, rows, results, factors, groups, times, matrix, squares, flows):  # type: ignore[no-untyped-def]
    legs, flow_count = len(mass), len(matrix)
    work, momenta = np.empty((2 * rows, TILE)), np.empty((4 * len(sets), TILE))
    tile, base = np.empty((legs, 6, TILE)), np.empty((legs, 7, TILE))
    a, total, flow = np.empty((2 * flow_count, TILE)), np.empty(TILE), np.empty((flow_count, TILE))
    strong = np.ones((results[:, 2].max() + 1, TILE))
    for start in range(0, len(p), TILE):
        for t in range(TILE):
            point = min(start + t, len(p) - 1)
            for leg in range(legs):
                for c in range(4):
                    tile[leg, c, t] = p[point, leg, c]
            for power in range(1, len(strong)):
                strong[power, t] = strong[power - 1, t] * g[point]
        fill(tile, mass, waves, base, work)
        sums(tile, mass, signs, sets, momenta)
        for k in range(len(ops)):
            o = ops[k]
            execute(work, momenta, o[0], o[1], o[2], o[3], o[4], o[5], o[6], numbers[k, 0], numbers[k, 1])
        total[:] = 0.0
        flow[:] = 0.0
        contract(work, results, factors, groups, times, matrix, strong, a, total, flow)
        for t in range(min(TILE, len(p) - start)):
            squares[start + t] = total[t]
            for i in range(len(flows)):
                flows[i, start + t] = flow[i, t]


directions, spinor, massless, transverse, longitudinal = (
    kept(function) for function in (_directions, _spinor, _massless, _transverse, _longitudinal)
)
fill, sums, contract = kept(_fill), kept(_sums), kept(_contract)
_compiled = kept(_run)


class Tiles:
    """The tables of a plan, and the compiled loop over them.

    Parameters
    ----------
    plan
        What to compute.
    legs
        The external particles.
    results
        (helicities, flow, power of the strong coupling) of each result of the plan, sorted by helicities.
    times
        How many helicities each of them stands for.
    matrix
        Colour matrix (flows, flows).

    Examples
    --------
    `MatrixElement` makes one where numba is installed.

    >>> Tiles.squared.__name__
    'squared'
    """

    def __init__(
        self,
        plan: Plan,
        legs: Sequence[Leg],
        results: Sequence[tuple[int, int, int]],
        times: Mapping[int, int],
        matrix: Floats,
    ) -> None:
        self._mass = np.array([leg.mass for leg in legs])
        self._signs = np.array([-1.0 if leg.incoming else 1.0 for leg in legs])
        self._sets = np.array(plan.sets, dtype=np.int64)
        self._waves = np.array([_wave_row(legs[w.leg], w) for w in plan.waves], dtype=np.int64)
        ops: list[tuple[int, ...]] = []
        numbers: list[tuple[float, float]] = []
        written: set[int] = set()
        for step in plan.steps:
            for output, inputs, coefficient in zip(step.outputs, step.inputs, step.coefficients, strict=True):
                code = 2 * NAMES.index(step.kind) + (coefficient.imag != 0.0)
                padded = (*inputs, *(0,) * (4 - len(inputs)))
                ops.append((code, output, *padded, int(output in written)))
                numbers.append((coefficient.real, coefficient.imag))
                written.add(output)
        self._ops, self._numbers, self._rows = np.array(ops, dtype=np.int64), np.array(numbers), plan.rows
        table = [(flow, row, power) for (_, flow, power), (row, _) in zip(results, plan.results, strict=True)]
        self._results = np.array(table, dtype=np.int64)
        self._factors = np.array([(factor.real, factor.imag) for _, factor in plan.results])
        starts = [k for k in range(len(results)) if k == 0 or results[k][0] != results[k - 1][0]]
        self._groups = np.array([*starts, len(results)], dtype=np.int64)
        self._times = np.array([float(times[results[k][0]]) for k in starts])
        self._matrix = matrix

    def squared(self, p: Floats, g: Floats, flows: bool = False) -> tuple[Floats, Floats]:
        """Sums over helicities and colours (n,), and with `flows` those of each colour flow alone (flows, n).

        p (n, legs, 4) physical momenta in GeV, g (n,) the strong coupling.
        """
        squares = np.empty(len(p))
        sums_ = np.empty((len(self._matrix) if flows else 0, len(p)))
        tables = (self._mass, self._signs, self._sets, self._waves, self._ops, self._numbers, self._rows)
        _compiled(p, g, *tables, self._results, self._factors, self._groups, self._times, self._matrix, squares, sums_)
        return squares, sums_


def _wave_row(leg: Leg, item: Any) -> tuple[int, ...]:
    how = recipe(leg, item.helicity or 0, item.part)
    return item.leg, item.row, _KINDS[how.kind], int(how.minus), int(how.conjugated), int(how.large), how.sign
