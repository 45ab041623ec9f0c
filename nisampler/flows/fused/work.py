"""Memory for tiles of points on their way through a chain, used again by the next evaluation."""

from __future__ import annotations

from collections import deque
from math import prod
from typing import Any

import numpy as np

from nisampler.base.machine_code import Place

# Bytes at which a row of a matrix begins, and those that a chain keeps for its next evaluation.
_LINE, _KEPT_BYTES = 64, 1 << 28


class Spare:
    """Pieces of memory that nobody uses just now.

    >>> spare = Spare()
    >>> memory = spare.borrowed(100)
    >>> spare.give_back(memory)
    >>> spare.borrowed(50) is memory
    True
    """

    def __init__(self) -> None:
        self._pieces: deque[Any] = deque()

    def borrowed(self, size: int) -> Any:
        """At least so many bytes, to be handed back."""
        for _ in range(len(self._pieces)):
            try:
                piece = self._pieces.popleft()
            except IndexError:
                break
            if size <= len(piece) <= max(4 * size, 1 << 20):
                return piece
            self._pieces.append(piece)
        return np.empty(size, np.uint8)

    def give_back(self, piece: Any) -> None:
        """Let others use this memory."""
        self._pieces.append(piece)
        while sum(map(len, tuple(self._pieces))) > _KEPT_BYTES:
            self._pieces.popleft()


def matrices(
    piece: Any, count: int | None, columns: int, rows: tuple[int, ...], kinds: tuple[Any, ...]
) -> tuple[Place, ...]:
    """For each number of rows and kind of numbers, `count` matrices with so many columns, inside a piece of memory.

    With None there is one of each, without an axis for their number.

    >>> kinds = np.dtype("f4"), np.dtype("i2")
    >>> piece = np.empty(size_of(2, 16, (3, 1), kinds), np.uint8)
    >>> [(array.code, array.numbers[1:]) for array in matrices(piece, 2, 16, (3, 1), kinds)]
    [('3f4', (2, 3, 16)), ('3i2', (2, 1, 16))]
    """
    at, found = piece.ctypes.data, []
    at += -at % _LINE
    before = () if count is None else (count,)
    for number, kind in zip(rows, kinds, strict=True):
        shape = (*before, number, columns)
        found.append(Place(f"{len(shape)}{kind.str[1:]}", (at, *shape)))
        at += -(-prod(shape) * kind.itemsize // _LINE) * _LINE
    return tuple(found)


def size_of(count: int, columns: int, rows: tuple[int, ...], kinds: tuple[Any, ...]) -> int:
    """Bytes that `matrices` needs.

    >>> size_of(1, 16, (1,), (np.dtype("f4"),))
    128
    """
    sizes = [int(count * number * columns * kind.itemsize) for number, kind in zip(rows, kinds, strict=True)]
    return _LINE + sum(-(-size // _LINE) * _LINE for size in sizes)
