"""Functions that numba turns into vector instructions: no branches, no calls, single and double precision.

A NaN gives a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

# Products and sums may be fused and the sign of zero lost; NaN and infinity keep their meaning, and 1/0 is infinite.
# No memory is taken, since nobody would give it back.
OPTIONS: Any = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True, "_nrt": False}
WHOLE: set[str] = set()
"""Names of functions that stay functions in machine code, which is then made in half the time."""
short = njit(**OPTIONS)
"""For functions that become part of those that call them."""
inlined = njit(inline="always", **OPTIONS)
"""For short functions with constant arguments, which are compiled anew for each constant otherwise."""


def compiled(function: Callable[..., Any]) -> Any:
    """A compiled function that stays a function: it has loops over samples, beside which calls cost nothing.

    >>> double = compiled(lambda x: 2.0 * x)
    >>> double.py_func(1.5)
    3.0
    """
    WHOLE.add(function.__name__)
    return njit(**OPTIONS)(function)


@compiled
def copied(source: Any, target: Any) -> None:
    """Numbers of a row into another one; an assignment of arrays takes a second to compile, each.

    >>> target = np.zeros(2)
    >>> copied(np.ones(2), target)
    >>> target.tolist()
    [1.0, 1.0]
    """
    for j in range(len(source)):
        target[j] = source[j]


@compiled
def filled(target: Any, value: Any) -> None:
    """One number in all places of a row.

    >>> target = np.zeros(2)
    >>> filled(target, 1.0)
    >>> target.tolist()
    [1.0, 1.0]
    """
    for j in range(len(target)):
        target[j] = value


def exp(x: Any) -> Any:
    """exp(x) for x below 88 (single precision) or 709; the overload is what is compiled.

    >>> float(exp(0.0))
    1.0
    """
    return np.exp(x)


def log(x: Any) -> Any:
    """log(x) of a positive normal number.

    >>> float(log(1.0))
    0.0
    """
    return np.log(x)


def log1p(x: Any) -> Any:
    """log(1 + x) for x in [0, 1].

    >>> float(log1p(0.0))
    0.0
    """
    return np.log1p(x)


def _formats(x: Any) -> tuple[bool, Any, Any]:
    """Whether x has single precision, and the types of such numbers and of their bits."""
    single = x == types.float32
    return single, np.float32 if single else np.float64, np.int32 if single else np.int64


@overload(exp, jit_options=OPTIONS)
def _compile_exp(x: Any) -> Callable[[Any], Any]:
    """2^n times a Taylor polynomial of the rest, which is at most log(2)/2."""
    single, real, integer = _formats(x)
    shift, bias = integer(23 if single else 52), integer(127 if single else 1023)
    least, rounder = real(-87.0 if single else -708.0), real(1.5 * 2.0 ** (23 if single else 52))
    octaves, high, low = real(1.0 / math.log(2.0)), real(0.693359375), real(math.log(2.0) - 0.693359375)
    first, *others = [real(1.0 / math.factorial(k)) for k in reversed(range(8 if single else 14))]
    rest = tuple(others)

    def power(x: Any) -> Any:
        x = least if x < least else x
        shifted = x * octaves + rounder
        n = shifted - rounder
        r = (x - n * high) - n * low
        p = first
        for c in rest:
            p = p * r + c
        return p * integer(integer(real(shifted).view(integer) + bias) << shift).view(real)

    return power


def _twice_artanh(real: Any, terms: int) -> Callable[[Any], Any]:
    """2 artanh(s) as a series in s."""
    first, *others = [real(2.0 / (2 * k + 1)) for k in reversed(range(terms))]
    rest = tuple(others)

    @short
    def series(s: Any) -> Any:
        square = s * s
        p = first
        for c in rest:
            p = p * square + c
        return p * s

    return series  # type: ignore[no-any-return]


@overload(log, jit_options=OPTIONS)
def _compile_log(x: Any) -> Callable[[Any], Any]:
    """log(2^n m) with m within a factor sqrt(2) of one: n log(2) + 2 artanh((m - 1)/(m + 1))."""
    single, real, integer = _formats(x)
    shift = integer(23 if single else 52)
    # the bits of sqrt(1/2): what lies above it in the exponent belongs to n
    origin = integer(np.sqrt(real(0.5)).view(integer))
    one, octave = real(1.0), real(math.log(2.0))
    series = _twice_artanh(real, 5 if single else 11)

    def logarithm(x: Any) -> Any:
        bits = real(x).view(integer)
        n = integer(integer(bits - origin) >> shift)
        m = integer(bits - integer(n << shift)).view(real)
        # adding x - x hands on a NaN or an infinity
        return real(n) * octave + series((m - one) / (m + one)) + (x - x)

    return logarithm


@overload(log1p, jit_options=OPTIONS)
def _compile_log1p(x: Any) -> Callable[[Any], Any]:
    """2 artanh(x/(2 + x))."""
    single, real, _ = _formats(x)
    two, series = real(2.0), _twice_artanh(real, 8 if single else 17)

    def logarithm(x: Any) -> Any:
        return series(x / (two + x))

    return logarithm


@short
def softplus(x: Any) -> Any:
    """log(1 + e^x).

    >>> round(float(softplus.py_func(0.0)), 6)
    0.693147
    """
    zero = x - x
    return (x if x > zero else zero) + log1p(exp(-abs(x)))


@short
def sigmoid(x: Any) -> Any:
    """1/(1 + e^-x).

    >>> float(sigmoid.py_func(0.0))
    0.5
    """
    zero = x - x
    one = exp(zero)
    e = exp(-abs(x))
    return (one if x >= zero else e) / (one + e)
