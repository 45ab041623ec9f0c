"""Normal noise that is a function of a seed and of the number of a shower, in operations that every runtime has.

Philox 4x32-10, the counter-based generator of Salmon et al. (Parallel random numbers: as easy as 1, 2, 3, SC 2011,
doi:10.1145/2063384.2063405), in 64-bit integers, and the transform of Box and Muller. The same seed gives the same
integers everywhere, and showers do not depend on how many are made at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FACTORS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD, _HALF = 0xFFFFFFFF, 0xFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four words of 32 bits from a counter of four words and a key of two, all in int64 tensors that broadcast.

    >>> zero = torch.zeros(1, dtype=torch.long)
    >>> [f"{int(word):x}" for word in philox((zero, zero, zero, zero), (zero, zero))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(_ROUNDS):
        (high_a, low_a), (high_c, low_c) = _product(a, _FACTORS[0]), _product(c, _FACTORS[1])
        a, b, c, d = high_c ^ b ^ first, low_c, high_a ^ d ^ second, low_a
        first, second = (first + _WEYL[0]) & _WORD, (second + _WEYL[1]) & _WORD
    return a, b, c, d


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Upper and lower word of a product of two words, without leaving int64."""
    low = (word & _HALF) * factor
    middle = (word // (_HALF + 1)) * factor + low // (_HALF + 1)
    return middle // (_HALF + 1), (middle & _HALF) * (_HALF + 1) + (low & _HALF)


def normal_noise(seed: Tensor, first: Tensor, count: int, columns: int) -> Tensor:
    """Independent normal numbers (count, columns) in float32 for the showers `first`, `first` + 1, ... of a seed.

    Parameters
    ----------
    seed, first
        int64, shape (1,), not negative.
    count, columns
        Numbers of showers and of noise of each.

    Examples
    --------
    >>> seed, first = torch.tensor([7]), torch.tensor([0])
    >>> torch.equal(normal_noise(seed, first, 5, 9)[3:], normal_noise(seed, first + 3, 2, 9))
    True
    """
    rows = (first + torch.arange(count, device=seed.device)).unsqueeze(1)
    blocks = torch.arange(-(-columns // 4), device=seed.device).unsqueeze(0)
    none = torch.zeros_like(rows)
    words = philox((rows & _WORD, rows // (_WORD + 1), blocks, none), (seed & _WORD, seed // (_WORD + 1)))
    # the middles of 2^23 equal parts of (0, 1) are exact in single precision: no logarithm of zero, none of one
    u = [((word // 512).to(torch.float32) + 0.5) * 2.0**-23 for word in words]
    parts = []
    for radius, angle in ((u[0], u[1]), (u[2], u[3])):
        length, turn = torch.sqrt(-2 * torch.log(radius)), 2 * math.pi * angle
        parts += [length * torch.cos(turn), length * torch.sin(turn)]
    return torch.stack(parts, dim=2).flatten(1)[:, :columns]
