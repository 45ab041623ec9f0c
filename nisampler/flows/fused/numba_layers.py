"""Layers of conditioner networks compiled for the CPU: features, activations and their gradients.

Matrices (rows, n) have the samples last. Their rows may be parts of longer ones, but are contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from nisampler.flows.fused.plan import ACTIVATIONS
from nisampler.flows.splines.numba_maths import OPTIONS, compiled, exp
from nisampler.flows.splines.numba_memory import stack

_SILU, _RELU, _LEAKY, _ELU, _TANH = range(len(ACTIVATIONS))
_LEAK = 0.01
# Partial sums, which is what lets a sum be made of vector instructions.
_LANES = 64
# Where exp(-x) is so large that adding one changes nothing.
_MOST = 87.0
_TURN = 2.0 * math.pi


@compiled
def _total(row: Any, lanes: Any) -> Any:
    """The sum of a row, in an order that depends on its length alone; `lanes` is scratch."""
    whole = len(row) // _LANES * _LANES
    for k in range(_LANES):
        lanes[k] = lanes.dtype.type(0.0)
    for start in range(0, whole, _LANES):
        part = row[start : start + _LANES]
        for k in range(_LANES):
            lanes[k] += part[k]
    half = _LANES // 2
    while half:
        for k in range(half):
            lanes[k] += lanes[half + k]
        half //= 2
    found = lanes[0]
    for j in range(whole, len(row)):
        found += row[j]
    return found


@compiled
def sum_rows(g: Any, n: int, out: Any, add: bool) -> None:
    """Fill `out` (units,) with the sums of the first n samples of g (units, t), or add these to it.

    >>> out = np.ones(1)
    >>> sum_rows(np.ones((1, 70)), 70, out, True)
    >>> float(out[0])
    71.0
    """
    lanes = stack(g.dtype, _LANES)
    for i in range(g.shape[0]):
        found = _total(g[i, :n], lanes)
        out[i] = out[i] + found if add else found


@compiled
def activate(kind: int, z: Any, bias: Any, h: Any, n: int) -> None:
    """Fill the first n samples of h (units, t) with the activation of sums z (units, t) and their bias (units,).

    >>> h = np.empty((1, 1))
    >>> activate(0, np.array([[0.5]]), np.array([0.5]), h, 1)
    >>> h.round(6)
    array([[0.731059]])
    """
    real = z.dtype.type
    zero, one, two, most, leak = real(0.0), real(1.0), real(2.0), real(_MOST), real(_LEAK)
    for i in range(z.shape[0]):
        row, out, shift = z[i, :n], h[i, :n], bias[i]
        if kind == _SILU:
            for j in range(n):
                v = row[j] + shift
                u = -v
                u = most if u > most else u
                out[j] = v / (one + exp(u))
        elif kind == _TANH:
            for j in range(n):
                v = row[j] + shift
                e = exp(-two * abs(v))
                size = (one - e) / (one + e)
                out[j] = size if v > zero else -size
        elif kind == _ELU:
            for j in range(n):
                v = row[j] + shift
                below = exp(v if v < zero else zero) - one
                out[j] = v if v > zero else below
        else:
            least = zero if kind == _RELU else leak
            for j in range(n):
                v = row[j] + shift
                out[j] = v if v > zero else v * least


@compiled
def activate_again(kind: int, z: Any, bias: Any, h: Any, g: Any, n: int) -> None:
    """Fill h as `activate` does, and multiply gradients g (units, t) by the slopes there.

    >>> h, g = np.empty((1, 1)), np.ones((1, 1))
    >>> activate_again(0, np.zeros((1, 1)), np.zeros(1), h, g, 1)
    >>> float(g[0, 0])
    0.5
    """
    real = z.dtype.type
    zero, one, two, most, leak = real(0.0), real(1.0), real(2.0), real(_MOST), real(_LEAK)
    for i in range(z.shape[0]):
        row, out, down, shift = z[i, :n], h[i, :n], g[i, :n], bias[i]
        if kind == _SILU:
            for j in range(n):
                v = row[j] + shift
                u = -v
                u = most if u > most else u
                share = one / (one + exp(u))
                value = v * share
                out[j] = value
                down[j] *= share + value * (one - share)
        elif kind == _TANH:
            for j in range(n):
                v = row[j] + shift
                e = exp(-two * abs(v))
                size = (one - e) / (one + e)
                out[j] = size if v > zero else -size
                down[j] *= one - size * size
        elif kind == _ELU:
            for j in range(n):
                v = row[j] + shift
                below = exp(v if v < zero else zero)
                out[j] = v if v > zero else below - one
                down[j] *= one if v > zero else below
        else:
            least = zero if kind == _RELU else leak
            for j in range(n):
                v = row[j] + shift
                out[j] = v if v > zero else v * least
                down[j] *= one if v > zero else least


def _sine(r: Any) -> Any:
    """sin(2πr) for r between -1/4 and 1/4; the overload is what is compiled."""


@overload(_sine, jit_options=OPTIONS)
def _compile_sine(r: Any) -> Callable[[Any], Any]:
    """Taylor's series."""
    single = r == types.float32
    real = np.float32 if single else np.float64
    terms = range(7 if single else 12)
    first, *others = [real((-1.0) ** k * _TURN ** (2 * k + 1) / math.factorial(2 * k + 1)) for k in reversed(terms)]
    rest = tuple(others)

    def series(r: Any) -> Any:
        square = r * r
        p = first
        for c in rest:
            p = p * square + c
        return p * r

    return series


@compiled
def features(x: Any, rows: Any, harmonics: int, centre: bool, f: Any, n: int) -> None:
    """Fill f with the features of some rows of x (d, t), as `FourierFeatures` makes them.

    First come the coordinates, with `centre` as 2x - 1, then sin 2πkx and then cos 2πkx for k up to `harmonics`.

    >>> f = np.empty((3, 1))
    >>> features(np.array([[0.25]]), np.arange(1), 1, True, f, 1)
    >>> f.round(6).tolist()
    [[-0.5], [1.0], [0.0]]
    """
    real, count = f.dtype.type, len(rows)
    quarter, half, one, two = real(0.25), real(0.5), real(1.0), real(2.0)
    scale, shift = (two, one) if centre else (one, real(0.0))
    for i in range(count):
        source, plain = x[rows[i], :n], f[i, :n]
        for j in range(n):
            plain[j] = scale * real(source[j]) - shift
        for k in range(harmonics):
            number, at = real(k + 1), count + i * harmonics + k
            sine, cosine = f[at, :n], f[at + count * harmonics, :n]
            for j in range(n):
                turns = real(source[j]) * number
                turns -= np.floor(turns + half)
                size = abs(turns)
                folded = half - size if size > quarter else size
                sine[j] = _sine(folded if turns > real(0.0) else -folded)
                cosine[j] = _sine(quarter - size)


@compiled
def features_gradient(f: Any, g: Any, rows: Any, harmonics: int, centre: bool, g_x: Any, n: int) -> None:
    """Add to rows of g_x (d, t) what gradients g of features f give.

    >>> g_x = np.ones((1, 1))
    >>> features_gradient(np.zeros((1, 1)), np.ones((1, 1)), np.arange(1), 0, True, g_x, 1)
    >>> g_x
    array([[3.]])
    """
    real, count = f.dtype.type, len(rows)
    scale = real(2.0) if centre else real(1.0)
    for i in range(count):
        own, plain = g_x[rows[i], :n], g[i, :n]
        for j in range(n):
            own[j] += scale * plain[j]
        for k in range(harmonics):
            number, at = real(_TURN * (k + 1)), count + i * harmonics + k
            other = at + count * harmonics
            sine, cosine, g_sine, g_cosine = f[at, :n], f[other, :n], g[at, :n], g[other, :n]
            for j in range(n):
                own[j] += number * (g_sine[j] * cosine[j] - g_cosine[j] * sine[j])
