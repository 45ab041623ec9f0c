"""Tables of cubics, and sums of products of densities, compiled: what plain torch does beside them, to the bit.

Products and sums stand in the order in which torch does them, and none are fused.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from nisampler.processes.partons.interpolation.axes import STENCIL

# No memory is taken, since nobody would give it back, and nothing is rounded otherwise than written.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "_nrt": False}
_compiled = njit(**OPTIONS)


@_compiled
def _located(t: Any, starts: Any, widths: Any, guesses: Any, low: Any, scale: Any) -> Any:
    """The cell of t and its place in it, see `CubicAxis.locate`; any cell for NaN."""
    cell = guesses[max(0, min(int((t - low) * scale), len(guesses) - 1))]
    while cell + 1 < len(starts) and starts[cell + 1] <= t:
        cell += 1
    while cell > 0 and starts[cell] > t:
        cell -= 1
    return cell, (t - starts[cell]) / widths[cell]


@_compiled
def _stencil(t: Any, axis: Any, weights: Any) -> Any:
    """The first of the four knots that count at t, whose weights are filled in; see `CubicAxis.stencil`."""
    starts, widths, guesses, low, scale, first, cubics = axis
    cell, u = _located(t, starts, widths, guesses, low, scale)
    for k in range(STENCIL):
        weights[k] = ((cubics[cell, k, 3] * u + cubics[cell, k, 2]) * u + cubics[cell, k, 1]) * u + cubics[cell, k, 0]
    return first[cell]


@_compiled
def bicubic(places: Any, axes: Any, table: Any, lowest: Any, rows: Any, below: Any, work: Any) -> None:
    """Fill in rows (n, columns) at n places of the inner and the outer axis, and how many values were below the lowest.

    The table is flat, (outer knots, inner knots, columns).

    >>> callable(bicubic)
    True
    """
    inner, outer = places
    n, columns = rows.shape
    clipped, step, width = 0, axes[2] * columns, STENCIL * columns
    weights, others, values = work[:STENCIL], work[STENCIL : 2 * STENCIL], work[2 * STENCIL :]
    for i in range(n):
        begin = _stencil(inner[i], axes[0], weights)
        begin = (_stencil(outer[i], axes[1], others) * axes[2] + begin) * columns
        p, q, r, s = others[0], others[1], others[2], others[3]
        first, second = table[begin : begin + width], table[begin + step : begin + step + width]
        begin += 2 * step
        third, fourth = table[begin : begin + width], table[begin + step : begin + step + width]
        for j in range(width):
            values[j] = p * first[j] + q * second[j] + r * third[j] + s * fourth[j]
        a, b, c, d = weights[0], weights[1], weights[2], weights[3]
        row = rows[i]
        for f in range(columns):
            y = a * values[f] + b * values[f + columns] + c * values[f + 2 * columns] + d * values[f + 3 * columns]
            if y < lowest:
                y = lowest
                clipped += 1
            row[f] = y
    below[0] = clipped


@_compiled
def cubic(places: Any, axis: Any, table: Any, lowest: Any, rows: Any, below: Any, work: Any) -> None:
    """The same for one axis from the coefficients (4, cells, columns) of 1, u, u² and u³; it needs no memory.

    >>> callable(cubic)
    True
    """
    (inner,), (starts, widths, guesses, low, scale) = places, axis
    n, columns = rows.shape
    clipped = 0
    for i in range(n):
        cell, u = _located(inner[i], starts, widths, guesses, low, scale)
        a, b, c, d = table[0, cell], table[1, cell], table[2, cell], table[3, cell]
        row = rows[i]
        for f in range(columns):
            y = ((d[f] * u + c[f]) * u + b[f]) * u + a[f]
            if y < lowest:
                y = lowest
                clipped += 1
            row[f] = y
    below[0] = clipped


@_compiled
def pairs(densities: Any, terms: Any, factors: Any, sums: Any) -> None:
    """Add to the sums (n, elements) products of a density of either beam, from (n, 2, flavours).

    A row of the terms (m, 3) holds the two flavours and the element, in the order of the elements.

    >>> callable(pairs)
    True
    """
    for i in range(len(sums)):
        first, second, row = densities[i, 0], densities[i, 1], sums[i]
        for j in range(len(terms)):
            row[terms[j, 2]] += first[terms[j, 0]] * second[terms[j, 1]] * factors[j]
