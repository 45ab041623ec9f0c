"""Digits to numbers, compiled: rounded to the nearest as IEEE 754 says, or left to Python where that takes more bits.

Up to 19 digits make an integer of 64 bits. Its product with a power of ten, kept in 128 bits and rounded up, is too
large by less than one in its 65th bit (D. Lemire, arXiv:2101.11408); where that could decide about the rounding, or
the number is not normal, it is left to Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nisampler.events.text.numba_digits import OPTIONS, compiled, upper_product
from nisampler.events.text.powers import GREATEST, LEAST

_0, _1, _10, _64 = (np.uint64(value) for value in (0, 1, 10, 64))
_ALL = np.uint64((1 << 64) - 1)
_TOP, _HIDDEN = np.uint64(1 << 63), np.uint64(1 << 53)
_EXACT_POWERS = np.array([10.0**k for k in range(23)])
_MOST_DIGITS, _FAR = 19, 100_000
_MINUS, _PLUS, _POINT, _ZERO, _NINE, _E, _LARGE_E = (ord(letter) for letter in "-+.09eE")


@compiled
def _rounded(w: Any, exponent: Any, powers: Any) -> Any:
    """w times ten to the power of the exponent for w > 0, and whether that is certain."""
    if w <= _HIDDEN and -23 < exponent < 23:
        # Both are exact, so that one rounding is all there is.
        x = np.float64(w)
        return (x / _EXACT_POWERS[-exponent], True) if exponent < 0 else (x * _EXACT_POWERS[exponent], True)
    if exponent < LEAST or exponent > GREATEST:
        return 0.0, False
    binary = np.int64(((exponent * 1741647) >> 19) + 1)
    for step in (32, 16, 8, 4, 2, 1):
        if w >> np.uint64(64 - step) == _0:
            w <<= np.uint64(step)
            binary -= step
    upper, lower = powers[0, exponent - LEAST], powers[1, exponent - LEAST]
    middle = upper_product(w, lower)
    low = w * upper + middle
    high = upper_product(w, upper) + (_1 if low < middle else _0)
    # The number is high + low/2^64 times a power of two, or less by at most 2^-64.
    if high < _TOP:
        high = (high << _1) | (low >> np.uint64(63))
        low <<= _1
        binary -= 1
    cut, half = high & np.uint64(2047), np.uint64(1024)
    if (cut == half and low <= np.uint64(4)) or (cut == half - _1 and low >= _ALL - np.uint64(4)):
        return 0.0, False
    mantissa = (high >> np.uint64(11)) + (_1 if cut >= half else _0)
    binary += 11
    if mantissa == _HIDDEN:
        mantissa >>= _1
        binary += 1
    biased = binary + 1075
    if biased < 1 or biased > 2046:
        return 0.0, False
    bits = (np.uint64(biased) << np.uint64(52)) | (mantissa & np.uint64((1 << 52) - 1))
    return np.uint64(bits).view(np.float64), True


@compiled
def _digits(text: Any, at: Any, w: Any) -> Any:
    """Digits behind those of w, and where they end."""
    while True:
        digit = np.uint64(np.int64(text[at]) - _ZERO)
        if digit >= _10:
            return w, at
        w = w * _10 + digit
        at += 1


@njit(**OPTIONS)
def number(text: Any, at: Any, powers: Any) -> Any:
    """The number that begins at a place: where it ends, its value, and whether that is certain.

    Where there is none, the place is negative.

    >>> from nisampler.events.text.powers import powers_of_ten
    >>> number(np.frombuffer(b"-1.25e-3 ", np.uint8), 0, powers_of_ten())
    (8, -0.00125, True)
    """
    negative = text[at] == _MINUS
    if negative or text[at] == _PLUS:
        at += 1
    begin, near = at, True
    w, at = _digits(text, at, _0)
    digits, exponent = at - begin, np.int64(0)
    if text[at] == _POINT:
        whole = at + 1
        w, at = _digits(text, whole, w)
        exponent = whole - at
        digits -= exponent
    if digits == 0:
        return np.int64(-1), 0.0, False
    while digits > _MOST_DIGITS and (text[begin] == _ZERO or text[begin] == _POINT):
        digits -= text[begin] == _ZERO
        begin += 1
    if text[at] == _E or text[at] == _LARGE_E:
        at += 1
        down = text[at] == _MINUS
        if down or text[at] == _PLUS:
            at += 1
        if not _ZERO <= text[at] <= _NINE:
            return np.int64(-1), 0.0, False
        power = np.int64(0)
        while _ZERO <= text[at] <= _NINE:
            power = min(power * 10 + (text[at] - _ZERO), np.int64(_FAR))
            at += 1
        exponent += -power if down else power
        near = bool(power < _FAR)
    if w == _0 and digits <= _MOST_DIGITS:
        return at, -0.0 if negative else 0.0, True
    if digits > _MOST_DIGITS or not near:
        return at, 0.0, False
    value, certain = _rounded(w, exponent, powers)
    return at, -value if negative else value, certain
