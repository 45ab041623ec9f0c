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
_TEN, _HUNDRED = np.uint32(10), np.uint32(100)
_TENS = np.array([10**power for power in range(20)], np.uint64)
_PAIRS = np.frombuffer("".join(f"{pair:02d}" for pair in range(100)).encode(), np.uint8)
_MOST_DIGITS = 17
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
def _length(number: Any, at_most: Any) -> Any:
    """How many digits a number has, counted down from so many as it can have."""
    n = at_most
    while n > 1 and number < _TENS[n - 1]:
        n -= 1
    return n


@compiled
def _put_digits(out: Any, end: Any, number: Any) -> None:
    """The digits of a number, so that they end before `end`, two at a time."""
    while number >= _EIGHT:
        upper = number // _EIGHT
        rest = np.uint32(number - upper * _EIGHT)
        number = upper
        for _ in range(4):
            end -= 2
            rest = _put_pair(out, end, rest)
    rest = np.uint32(number)
    while rest >= _HUNDRED:
        end -= 2
        rest = _put_pair(out, end, rest)
    if rest >= _TEN:
        _put_pair(out, end - 2, rest)
    else:
        out[end - 1] = _ZERO + rest


@compiled
def _put_pair(out: Any, at: Any, number: Any) -> Any:
    """The last two digits of a number, which is returned without them."""
    hundreds = number // _HUNDRED
    pair = np.uint32(2) * (number - hundreds * _HUNDRED)
    out[at], out[at + 1] = _PAIRS[pair], _PAIRS[pair + np.uint32(1)]
    return hundreds


@compiled
def _put_integer(out: Any, at: Any, value: Any) -> Any:
    if value < 0:
        out[at] = _MINUS
        at += 1
    size = np.uint64(abs(value))
    if size < _10:
        out[at] = _ZERO + size
        return at + 1
    end = at + _length(size, len(_TENS))
    _put_digits(out, end, size)
    return end


@compiled
def _put_real(out: Any, at: Any, bits: Any, powers: Any) -> Any:
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
    n = _length(digits, _MOST_DIGITS)
    # The number is 0.d1d2d3… times ten to the power of `point`.
    point = n + exponent
    if -4 < point <= 0:
        out[at], out[at + 1] = _ZERO, _POINT
        end = at + 2 - point
        for i in range(at + 2, end):
            out[i] = _ZERO
        _put_digits(out, end + n, digits)
        return end + n
    if n <= point <= 16:
        _put_digits(out, at + n, digits)
        for i in range(at + n, at + point):
            out[i] = _ZERO
        out[at + point], out[at + point + 1] = _POINT, _ZERO
        return at + point + 2
    scientific = point <= -4 or point > 16
    before = 1 if scientific else point
    # What stands before the point is moved there from behind it.
    _put_digits(out, at + n + 1, digits)
    for i in range(at, at + before):
        out[i] = out[i + 1]
    out[at + before] = _POINT
    at += n + 1 if n > 1 else 1
    return _put_exponent(out, at, point - 1) if scientific else at


@compiled
def _put_exponent(out: Any, at: Any, power: Any) -> Any:
    out[at], out[at + 1] = _E, _MINUS if power < 0 else _PLUS
    at += 2
    if abs(power) < 10:
        out[at] = _ZERO
        at += 1
    return _put_integer(out, at, np.int64(abs(power)))


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
    at = np.int64(0)
    # Of each field the bits that were written last, and where: many numbers come again in the next row.
    last = np.zeros((len(fields), 3), np.int64)
    for i in range(len(table)):
        for f in range(starts[which[i]], starts[which[i] + 1]):
            for j in range(begins[f], begins[f + 1]):
                out[at] = pieces[j]
                at += 1
            kind = fields[f, 1]
            if kind == INTEGER:
                at = _put_integer(out, at, np.int64(table[i, fields[f, 0]]))
            elif kind == REAL:
                bits, begin = np.float64(table[i, fields[f, 0]]).view(np.uint64), at
                if last[f, 2] > 0 and np.uint64(last[f, 0]) == bits:
                    for j in range(last[f, 1], last[f, 2]):
                        out[at] = out[j]
                        at += 1
                else:
                    at = _put_real(out, at, bits, powers)
                last[f, 0], last[f, 1], last[f, 2] = np.int64(bits), begin, at
    return at


fill = kept(_fill, **OPTIONS)
