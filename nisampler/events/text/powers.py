"""Powers of ten in 128 bits, with which digits become numbers and numbers digits."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

LEAST, GREATEST = -342, 324
"""Exponents of the powers: all that products of 19 digits with finite numbers of double precision need."""
_BITS = 128


@cache
def powers_of_ten() -> NDArray[np.uint64]:
    """(2, n) upper and lower 64 bits of 10^k / 2^(floor(log2(10^k)) - 127), rounded up, for k from LEAST to GREATEST.

    The first is 2^63 or more, so that no bit is lost.

    >>> [hex(int(part)) for part in powers_of_ten()[:, -LEAST]]
    ['0x8000000000000000', '0x0']
    """
    words = np.empty((2, GREATEST - LEAST + 1), np.uint64)
    for k in range(LEAST, GREATEST + 1):
        value = _scaled(k)
        words[:, k - LEAST] = value >> 64, value & ((1 << 64) - 1)
    return words


def _scaled(k: int) -> int:
    power: int = 10 ** abs(k)
    if k >= 0:
        shift = _BITS - power.bit_length()
        return power << shift if shift >= 0 else -(-power >> -shift)
    # The least power of two times which 10^k has 128 bits.
    return -((-1 << (_BITS + power.bit_length() - 1)) // power)
