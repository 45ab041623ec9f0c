r"""Colour of currents as strings of legs, and the exact colour matrix of complete strings.

Gluons are matrices A = sum_a A^a t^a with t^a = sqrt(2) T^a, so that tr(t^a t^b) = delta^ab. A string
(q, (a, b, ...), qbar) is (t^a t^b ...)_{q qbar}, from the colour of an outgoing quark to the anticolour of an outgoing
antiquark; a trace has no ends. An open current lacks one end or both:

- a quark: (q, word), open to the right; an antiquark: (word, qbar), open to the left;
- a gluon that no quark pair feeds: a word, open on both sides; one that a pair feeds: (word, qbar) to the right of its
  left opening and (q, word) to the left of its right one, as the colour flow of hep-ph/0209271.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from nisampler.processes.constants import COLOURS

Word = tuple[int, ...]
String = tuple[int, Word, int]
"""Quark, gluons in order, antiquark: legs; both ends are -1 in a trace."""


NUMBERS = tuple(range(1, int(COLOURS) + 1))
"""The colours."""


class Colour(Protocol):
    """The colour of a current: strings of legs (`Flow`), or given numbers (`Indices`); None where nothing is left.

    >>> colour: Colour = Flow()
    >>> colour.kind
    'none'
    """

    @property
    def kind(self) -> str:
        """What is open: "none", "quark", "antiquark", "word", or of a flow "cut"."""

    @property
    def strings(self) -> tuple[String, ...]:
        """What is complete."""

    def beside(self, other: Any) -> Colour | None:
        """Both, where at most one of them is open."""

    def joined(self, antiquark: Any) -> Colour | None:
        """A quark and an antiquark whose openings are contracted."""

    def cut(self, antiquark: Any) -> Colour | None:
        """The gluon that a quark and an antiquark feed."""

    def times(self, other: Any) -> Colour | None:
        """The product."""

    def traced(self) -> Colour | None:
        """The trace."""


@dataclass(frozen=True, order=True)
class Indices:
    """The colour of a current of legs with given colours, 1 to 3: a row (quark), a column (antiquark) or a matrix.

    Attributes
    ----------
    left, right
        The one row and the one column that is not zero; 0 where there is none.

    Examples
    --------
    >>> quark, gluon, antiquark = Indices(right=1), Indices(1, 2), Indices(left=2)
    >>> quark.times(gluon)
    Indices(left=0, right=2)
    >>> quark.times(gluon).joined(antiquark), quark.joined(antiquark)
    (Indices(left=0, right=0), None)
    """

    left: int = 0
    right: int = 0

    @property
    def kind(self) -> str:
        """What it is."""
        return (("none", "quark"), ("antiquark", "word"))[self.left > 0][self.right > 0]

    @property
    def strings(self) -> tuple[String, ...]:
        """None: there are no strings of legs."""
        return ()

    def beside(self, other: Indices) -> Indices:
        """Both, where at most one of them is open."""
        return Indices(self.left or other.left, self.right or other.right)

    def joined(self, antiquark: Indices) -> Indices | None:
        """A quark and an antiquark of one colour."""
        return self.times(antiquark)

    def cut(self, antiquark: Indices) -> Indices:
        """The gluon that a quark and an antiquark feed, without the part of a singlet."""
        return Indices(antiquark.left, self.right)

    def times(self, other: Indices) -> Indices | None:
        """The product, None where it is zero."""
        return Indices(self.left, other.right) if self.right == other.left else None

    def traced(self) -> Indices | None:
        """The trace, None where it is zero."""
        return Indices() if self.left == self.right else None


@dataclass(frozen=True, order=True)
class Flow:
    """The colour of a current: complete strings, and what is open.

    Attributes
    ----------
    kind
        "none", "quark", "antiquark", "word" or "cut".
    right
        (q, word), open to the right, of a quark or of a cut gluon; a word's gluons stand in `left`.
    left
        (word, qbar), open to the left, of an antiquark or of a cut gluon.
    strings
        What is complete, sorted.

    Examples
    --------
    >>> quark, antiquark = Flow("quark", right=(0, ())), Flow("antiquark", left=((), 1))
    >>> quark.joined(antiquark).strings
    ((0, (), 1),)
    >>> quark.times(Flow("word", left=((2,), -1))).right
    (0, (2,))
    """

    kind: Literal["none", "quark", "antiquark", "word", "cut"] = "none"
    right: tuple[int, Word] = (-1, ())
    left: tuple[Word, int] = ((), -1)
    strings: tuple[String, ...] = ()

    def beside(self, other: Flow) -> Flow:
        """Both, where at most one of them is open."""
        opened, closed = (other, self) if self.kind == "none" else (self, other)
        return Flow(opened.kind, opened.right, opened.left, _sorted(opened.strings, closed.strings))

    def joined(self, antiquark: Flow) -> Flow:
        """A quark and an antiquark whose openings are contracted."""
        quark, gluons = self.right
        more, end = antiquark.left
        return Flow(strings=_sorted(self.strings, antiquark.strings, ((quark, gluons + more, end),)))

    def cut(self, antiquark: Flow) -> Flow:
        """The gluon that a quark and an antiquark feed, without the part of a singlet."""
        return Flow("cut", self.right, antiquark.left, _sorted(self.strings, antiquark.strings))

    def times(self, other: Flow) -> Flow:
        """The product of two matrices, of a quark and a gluon, or of a gluon and an antiquark."""
        strings = _sorted(self.strings, other.strings)
        if self.kind == "word":
            left = (self.left[0] + other.left[0], other.left[1])
            return Flow(other.kind, other.right, left, strings)
        if other.kind == "word":
            return Flow(self.kind, (self.right[0], self.right[1] + other.left[0]), self.left, strings)
        (quark, gluons), (more, antiquark) = self.right, other.left
        strings = _sorted(strings, ((quark, gluons + more, antiquark),))
        left_open, right_open = self.kind == "cut", other.kind == "cut"
        kind: Literal["none", "quark", "antiquark", "cut"]
        kind = "cut" if left_open and right_open else "antiquark" if left_open else "quark" if right_open else "none"
        return Flow(kind, other.right if right_open else (-1, ()), self.left if left_open else ((), -1), strings)

    def traced(self) -> Flow:
        """A gluon whose two openings are contracted, a trace turned so that its largest leg stands last."""
        if self.kind == "cut":
            (word, antiquark), (quark, gluons) = self.left, self.right
            return Flow(strings=_sorted(self.strings, ((quark, gluons + word, antiquark),)))
        word = self.left[0]
        turn = word.index(max(word)) + 1
        return Flow(strings=_sorted(self.strings, ((-1, word[turn:] + word[:turn], -1),)))


def _sorted(*groups: tuple[String, ...]) -> tuple[String, ...]:
    return tuple(sorted(itertools.chain(*groups)))


def colour_matrix(flows: Sequence[tuple[String, ...]]) -> npt.NDArray[np.float64]:
    r"""C_ij = sum over all colours of flow i times the conjugate of flow j, (flows, flows).

    Gluons are summed by sum_a t^a_ij t^a_kl = delta_il delta_kj - delta_ij delta_kl / N.

    Parameters
    ----------
    flows
        Complete strings; all flows have the same quarks, antiquarks and gluons.

    Examples
    --------
    A quark, a gluon and an antiquark: N C_F, in the normalisation tr(t t) = 1 twice of it.

    >>> colour_matrix([((0, (2,), 1),)])
    array([[8.]])
    """
    size = len(flows)
    matrix = np.empty((size, size))
    for i, j in itertools.combinations_with_replacement(range(size), 2):
        matrix[i, j] = matrix[j, i] = _contraction(_renamed(_closed(flows[i], flows[j])))
    return matrix


def _closed(flow: tuple[String, ...], other: tuple[String, ...]) -> list[Word]:
    """The traces of a flow and the conjugate of another one; conjugation reverses words."""
    backward = {end: (start, word[::-1]) for start, word, end in other if end >= 0}
    forward = {start: (end, word) for start, word, end in flow if start >= 0}
    traces = [word for start, word, _ in flow if start < 0] + [word[::-1] for start, word, _ in other if start < 0]
    while forward:
        start = next(iter(forward))
        whole: Word = ()
        while start in forward:
            end, word = forward.pop(start)
            start, back = backward[end]
            whole += word + back
        traces.append(whole)
    return traces


def _renamed(traces: list[Word]) -> tuple[Word, ...]:
    """Gluons numbered as they come, so that equal contractions are done once."""
    names: dict[int, int] = {}
    return tuple(tuple(names.setdefault(gluon, len(names)) for gluon in trace) for trace in traces)


@cache
def _contraction(traces: tuple[Word, ...]) -> float:
    """The product of traces in which every gluon occurs twice."""
    for index, trace in enumerate(traces):
        if not trace:
            continue
        others = [*traces[:index], *traces[index + 1 :]]
        gluon, rest = trace[0], trace[1:]
        if gluon in rest:
            place = rest.index(gluon)
            first, second = rest[:place], rest[place + 1 :]
            joined = _contraction(_renamed([*others, first, second]))
            return joined - _contraction(_renamed([*others, first + second])) / COLOURS
        for other_index, other in enumerate(others):
            if gluon in other:
                place = other.index(gluon)
                turned = other[place + 1 :] + other[:place]
                del others[other_index]
                joined = _contraction(_renamed([*others, rest + turned]))
                return joined - _contraction(_renamed([*others, rest, turned])) / COLOURS
    return float(COLOURS ** len(traces))
