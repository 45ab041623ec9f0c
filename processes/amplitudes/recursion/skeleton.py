"""Which diagrams exist, from flavours and powers of the coupling alone: fast, before any amplitude is built."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.particles import conjugate

Powers = dict[int, dict[int, set[int]]]
Known = dict[tuple[int, ...], dict[int, set[int]]]


def partitions(legs: int) -> Iterator[tuple[int, int]]:
    """Both parts of every split of a set of legs, given as bits; the first part has the lowest leg.

    >>> list(partitions(0b111))
    [(5, 2), (3, 4), (1, 6)]
    """
    lowest = legs & -legs
    rest = legs ^ lowest
    subset = rest
    while subset:
        subset = (subset - 1) & rest
        yield lowest | subset, rest ^ subset


def currents(codes: Sequence[int], vertices: Vertices, known: Known | None = None) -> Powers:
    """For each set of legs the codes that it can have, each with the possible powers of the strong coupling.

    Parameters
    ----------
    codes
        PDG codes of the legs as outgoing particles.
    vertices
        The Feynman rules.
    known
        What is known already, by the sorted codes of a set; new sets are added.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.model import Couplings
    >>> from nisampler.processes.parameters import StandardModel
    >>> table = currents([2, -2, 11], Vertices(Couplings(StandardModel())))
    >>> sorted(table[0b11].items())
    [(9, {1}), (21, {1}), (22, {0}), (23, {0})]
    """
    known = {} if known is None else known
    table: Powers = {1 << leg: {code: {0}} for leg, code in enumerate(codes)}
    for size in range(2, len(codes) + 1):
        for legs in map(sum, itertools.combinations([1 << leg for leg in range(len(codes))], size)):
            alike = tuple(sorted(code for leg, code in enumerate(codes) if legs >> leg & 1))
            if alike not in known:
                known[alike] = _joined(legs, table, vertices)
            table[legs] = known[alike]
    return table


def _joined(legs: int, table: Powers, vertices: Vertices) -> dict[int, set[int]]:
    """The codes of a set from those of its parts."""
    found: dict[int, set[int]] = defaultdict(set)
    for a, b in partitions(legs):
        for (one, powers), (two, more) in itertools.product(table[a].items(), table[b].items()):
            for vertex in vertices.pair(one, two):
                found[vertex.output] |= {k + m + vertex.strong for k in powers for m in more}
        for c, d in partitions(b):
            _add_triples(found, [table[part] for part in (a, c, d)], vertices)
    return dict(found)


def _add_triples(found: dict[int, set[int]], tables: list[dict[int, set[int]]], vertices: Vertices) -> None:
    for entries in itertools.product(*(table.items() for table in tables)):
        for vertex in vertices.triple(*(code for code, _ in entries)):
            sums = (sum(powers) for powers in itertools.product(*(powers for _, powers in entries)))
            found[vertex.output] |= {power + vertex.strong for power in sums}


def strong_powers(codes: Sequence[int], vertices: Vertices, known: Known | None = None) -> set[int]:
    """Powers of the strong coupling with which diagrams of these outgoing legs exist; empty where none does.

    `known` is that of `currents`.

    >>> from nisampler.processes.amplitudes.recursion.model import Couplings
    >>> from nisampler.processes.parameters import StandardModel
    >>> rules = Vertices(Couplings(StandardModel()))
    >>> strong_powers([-2, -4, 2, 4], rules), strong_powers([-2, -2, 1, 1], rules)
    ({0, 2}, set())
    """
    return currents(codes[:-1], vertices, known)[(1 << len(codes) - 1) - 1].get(conjugate(codes[-1]), set())
