"""Numbers to digits, compiled: the fewest digits that read back to the same bits, written as Python's ``repr`` does.

The digits are those of Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2021): the number and the
borders halfway to its neighbours are multiplied by a power of ten, kept in 128 bits, and the shortest decimal between
the borders is among four candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nisampler.base.kernels import kept
from nisampler.events.text.fields import INTEGER, REAL
from nisampler.events.text.powers import LEAST

OPTIONS: Any = {"nogil": True, "error_model": "numpy"}

_0, _1, _2, _4, _10, _40 = (np.uint64(value) for value in (0, 1, 2, 4, 10, 40))
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_FRACTION, _HIDDEN = np.uint64((1 << 52) - 1), np.uint64(1 << 52)
_SIGN, _EXPONENT = np.uint64(63), np.uint64(52)
_EIGHT = np.uint64(100_000_000)
_MINUS, _PLUS, _POINT, _ZERO, _E = (ord(letter) for letter in "-+.0e")


compiled = njit(**(OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}))
"""What only other compiled functions call: it is compiled with them."""


@njit(**OPTIONS)
def upper_product(a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two numbers of 64 bits.

    >>> int(upper_product(np.uint64(1 << 63), np.uint64(6)))
    3
    """
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    middle = a_high * b_low + ((a_low * b_low) >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _HALF) + (other >> _HALF)


@compiled
def _scaled(power: Any, lower: Any, number: Any) -> Any:
    """The upper 64 bits of a product of 128 and 64 bits; the last one says too whether anything is lost."""
    middle = upper_product(lower, number)
    low = power * number + middle
    high = upper_product(power, number) + (_1 if low < middle else _0)
    return high | (_1 if low > _1 else _0)


@compiled
def _shortest(bits: Any, powers: Any) -> Any:
    """Digits and exponent of ten of a positive number, given by its bits; the digits may end in zeros."""
    fraction, biased = bits & _FRACTION, np.int64(bits >> _EXPONENT)
    c = fraction if biased == 0 else fraction | _HIDDEN
    q = (np.int64(1) if biased == 0 else biased) - 1075
    # Below a power of two the next number is half as far as above.
    lopsided = fraction == _0 and biased > 1
    # floor(log10(2^q)), or of 3/4 of it; floor(log2(10^k)) is in the shift.
    k = (q * 1262611 - (524031 if lopsided else 0)) >> 22
    shift = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    power, lower = powers[0, -k - LEAST], powers[1, -k - LEAST]
    value = _scaled(power, lower, (c * _4) << shift)
    odd = c & _1
    below = _scaled(power, lower, (c * _4 - (_1 if lopsided else _2)) << shift) + odd
    above = _scaled(power, lower, (c * _4 + _2) << shift) - odd
    s = value // _4
    if s >= _10:
        tens = s // _10
        down, up = below <= _40 * tens, _40 * tens + _40 <= above
        if down != up:
            return tens + (_1 if up else _0), k + 1
    down, up = below <= _4 * s, _4 * s + _4 <= above
    if down != up:
        return s + (_1 if up else _0), k
    middle = _4 * s + _2
    round_up = value > middle or (value == middle and s & _1 == _1)
    return s + (_1 if round_up else _0), k


@compiled
def _put_digits(number: Any, scratch: Any) -> Any:
    """The digits of a number at the end of the scratch; returns where they begin."""
    at = len(scratch)
    while number >= _EIGHT:
        rest, number = np.uint32(number % _EIGHT), number // _EIGHT
        for _ in range(8):
            at -= 1
            tens = rest // np.uint32(10)
            scratch[at] = _ZERO + (rest - tens * np.uint32(10))
            rest = tens
    rest = np.uint32(number)
    while True:
        at -= 1
        tens = rest // np.uint32(10)
        scratch[at] = _ZERO + (rest - tens * np.uint32(10))
        rest = tens
        if rest == 0:
            return at


@compiled
def _put_integer(out: Any, at: Any, value: Any, scratch: Any) -> Any:
    if value < 0:
        out[at] = _MINUS
        at += 1
    begin = _put_digits(np.uint64(abs(value)), scratch)
    for i in range(begin, len(scratch)):
        out[at] = scratch[i]
        at += 1
    return at


@compiled
def _put_real(out: Any, at: Any, x: Any, powers: Any, scratch: Any) -> Any:
    bits = np.float64(x).view(np.uint64)
    if bits >> _SIGN:
        out[at] = _MINUS
        at += 1
        bits &= ~(_1 << _SIGN)
    if bits == _0:
        out[at], out[at + 1], out[at + 2] = _ZERO, _POINT, _ZERO
        return at + 3
    digits, exponent = _shortest(bits, powers)
    while digits % _EIGHT == _0:
        digits //= _EIGHT
        exponent += 8
    while digits % _10 == _0:
        digits //= _10
        exponent += 1
    begin, end = _put_digits(digits, scratch), len(scratch)
    # The number is 0.d1d2d3… times ten to the power of `point`.
    point = end - begin + exponent
    scientific = point <= -4 or point > 16
    before = 1 if scientific else point
    if before <= 0:
        out[at], out[at + 1] = _ZERO, _POINT
        at += 2
        for _ in range(-before):
            out[at] = _ZERO
            at += 1
    for i in range(begin, max(end, begin + before)):
        if i - begin == before and i > begin:
            out[at] = _POINT
            at += 1
        out[at] = scratch[i] if i < end else _ZERO
        at += 1
    if scientific:
        out[at], out[at + 1] = _E, _MINUS if point < 1 else _PLUS
        at += 2
        power = np.int64(abs(point - 1))
        if power < 10:
            out[at] = _ZERO
            at += 1
        return _put_integer(out, at, power, scratch)
    if before >= end - begin:
        out[at], out[at + 1] = _POINT, _ZERO
        at += 2
    return at


def _fill(table: Any, which: Any, starts: Any, fields: Any, begins: Any, pieces: Any, powers: Any, out: Any) -> Any:
    """Write rows of numbers, each by its template, into `out`; returns how many bytes it takes.

    Parameters
    ----------
    table
        (n, w) numbers
    which
        (n,) the template of each row
    starts
        Where each template begins among the fields, one more than there are
    fields
        (f, 2) column of each field, and what it is
    begins
        Where the piece of text before each field begins, one more than there are
    pieces
        All pieces of text together
    powers
        See `powers_of_ten`
    out
        Bytes, enough of them
    """
    scratch = np.empty(24, np.uint8)
    at = np.int64(0)
    for i in range(len(table)):
        for f in range(starts[which[i]], starts[which[i] + 1]):
            for j in range(begins[f], begins[f + 1]):
                out[at] = pieces[j]
                at += 1
            kind = fields[f, 1]
            if kind == REAL:
                at = _put_real(out, at, table[i, fields[f, 0]], powers, scratch)
            elif kind == INTEGER:
                at = _put_integer(out, at, np.int64(table[i, fields[f, 0]]), scratch)
    return at


fill = kept(_fill, **OPTIONS)
