"""Rows of numbers as text by templates, with the fewest digits that read back to the same bits: those of ``repr``.

Compiled code and plain Python give the same bytes. numba takes two seconds to start, which pays off only where there is
much to write, or where it is at work already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.base.kernels import at_work, tried
from nisampler.events.text.fields import NOTHING, REAL
from nisampler.events.text.powers import powers_of_ten

_LONGEST = (0, 20, 24)
_MARKS = ("", "%d", "%r")
# Numbers that plain Python writes in the time that numba takes to start.
_WORTH_COMPILING = 4_000_000
_BYTES = 4 << 20


@dataclass(frozen=True)
class Template:
    """Pieces of text, and the number behind each.

    Attributes
    ----------
    pieces
        Text in ASCII, all but the last with a number behind it.
    fields
        The column of each number, and whether it is an INTEGER or a REAL one.

    Examples
    --------
    >>> Template(("x = ", ";"), ((0, REAL),)).plain
    'x = %r;'
    """

    pieces: tuple[str, ...]
    fields: tuple[tuple[int, int], ...]

    @property
    def plain(self) -> str:
        """The template as Python takes it."""
        texts = [piece.replace("%", "%%") for piece in self.pieces]
        marks = [*(_MARKS[kind] for _, kind in self.fields), ""]
        return "".join(text + mark for text, mark in zip(texts, marks, strict=True))

    @property
    def longest(self) -> int:
        """Bytes that a row may take."""
        return sum(map(len, self.pieces)) + sum(_LONGEST[kind] for _, kind in self.fields)


class Renderer:
    """Makes text of rows of finite numbers.

    Parameters
    ----------
    compiled
        Whether numba is used; by default where it works and pays off.

    Examples
    --------
    >>> from nisampler.events.text.fields import INTEGER
    >>> templates = [Template(("x = ", ";"), ((0, REAL),)), Template(("n = ", ";"), ((0, INTEGER),))]
    >>> b"".join(Renderer().blocks(np.array([[0.1], [7.0]]), np.array([0, 1]), templates))
    b'x = 0.1;n = 7;'
    """

    def __init__(self, compiled: bool | None = None) -> None:
        self._compiled, self._written = compiled, 0

    def blocks(
        self, table: NDArray[np.float64], which: NDArray[np.int64], templates: Sequence[Template]
    ) -> Iterator[bytes]:
        """The text of rows (n, w), each by the template that `which` (n,) gives, in blocks of some MiB."""
        self._written += table.size
        if self._compiled is None and (at_work() or self._written >= _WORTH_COMPILING):
            self._compiled = True
        kernel = filler() if self._compiled else None
        rows = max(_BYTES // max((template.longest for template in templates), default=1), 1)
        for begin in range(0, len(table), rows):
            part = table[begin : begin + rows], which[begin : begin + rows]
            yield _plain(*part, templates) if kernel is None else _filled(kernel, *part, templates)


@cache
def filler() -> Callable[..., int] | None:
    """The compiled function that fills templates, None where numba does not work; it is compiled now.

    >>> filler() is filler()
    True
    """

    def load() -> Callable[..., int]:
        from nisampler.events.text.numba_digits import fill

        _filled(fill, np.ones((1, 1)), np.zeros(1, np.int64), [Template(("", ""), ((0, REAL),))])
        return fill

    return tried(load, "event files are written in plain Python, some times slower")


def _plain(table: NDArray[np.float64], which: NDArray[np.int64], templates: Sequence[Template]) -> bytes:
    """Rows of one template after the other are written at once."""
    breaks = np.flatnonzero(np.diff(which)) + 1
    texts = []
    for rows, kinds in zip(np.split(table, breaks), np.split(which, breaks), strict=True):
        if len(rows):
            template = templates[int(kinds[0])]
            numbers = rows[:, [column for column, _ in template.fields]].ravel().tolist()
            texts.append(template.plain * len(rows) % tuple(numbers))
    return "".join(texts).encode()


def _filled(
    kernel: Callable[..., int], table: NDArray[np.float64], which: NDArray[np.int64], templates: Sequence[Template]
) -> bytes:
    fields = [field for template in templates for field in (*template.fields, (0, NOTHING))]
    pieces = [piece.encode() for template in templates for piece in template.pieces]
    starts = np.cumsum([0, *(len(template.pieces) for template in templates)])
    layout = starts, np.array(fields, np.int64).reshape(-1, 2), np.cumsum([0, *map(len, pieces)])
    sizes = np.array([template.longest for template in templates])
    out: NDArray[Any] = np.empty(int(sizes[which].sum()), np.uint8)
    text = np.array(bytearray(b"".join(pieces)), np.uint8)
    return out[: kernel(table, which, *layout, text, powers_of_ten(), out)].tobytes()
