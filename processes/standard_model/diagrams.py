"""The diagrams of a process as paths from one beam to the other with trees of decays: what phase space follows.

A diagram is drawn from beam 1: it emits a cluster of final legs, goes on as a particle that is exchanged, emits the
next one, until beam 2 is reached. Vertices of four particles give no new paths and are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nisampler.processes.amplitudes.recursion.resonances import Chains
from nisampler.processes.amplitudes.recursion.skeleton import partitions
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import Resonance
from nisampler.processes.particles import conjugate


@dataclass(frozen=True, order=True)
class Splitting:
    """A particle that decays into two branches, each a final leg or another one.

    >>> Splitting(23, 0, 1).legs
    (0, 1)
    """

    code: int
    left: Splitting | int
    right: Splitting | int

    @property
    def legs(self) -> tuple[int, ...]:
        """Final legs, from left to right."""
        return (*branch_legs(self.left), *branch_legs(self.right))


Branch = Splitting | int


def branch_legs(branch: Branch) -> tuple[int, ...]:
    """Final legs of a branch.

    >>> branch_legs(3)
    (3,)
    """
    return (branch,) if isinstance(branch, int) else branch.legs


def splittings(branch: Branch) -> Iterator[Splitting]:
    """A branch and all that is in it, without final legs.

    >>> [item.code for item in splittings(Splitting(25, Splitting(23, 0, 1), 2))]
    [25, 23]
    """
    if isinstance(branch, Splitting):
        yield branch
        yield from splittings(branch.left)
        yield from splittings(branch.right)


@dataclass(frozen=True)
class Diagram:
    """What beam 1 emits one after the other, and the codes of what is exchanged in between, one fewer.

    >>> Diagram((0, 1), (21,)).exchanged
    (21,)
    """

    emitted: tuple[Branch, ...]
    exchanged: tuple[int, ...]


_Trees = dict[int, list[tuple[Branch, int]]]
_Paths = dict[int, list[tuple[Diagram, int]]]


def diagrams(
    initial: Sequence[int],
    final: Sequence[int],
    vertices: Vertices,
    strong: set[int],
    resonances: Sequence[Resonance] = (),
) -> list[Diagram]:
    """All diagrams of a process with these powers of the strong coupling, as paths of massive and massless particles.

    Parameters
    ----------
    initial, final
        PDG codes.
    vertices
        The Feynman rules.
    strong
        Powers of g_s.
    resonances
        Particles of which each diagram has all.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.model import Couplings
    >>> from nisampler.processes.parameters import StandardModel
    >>> rules = Vertices(Couplings(StandardModel()))
    >>> for diagram in diagrams([21, 21], [6, -6], rules, {2}):
    ...     print(diagram)
    Diagram(emitted=(Splitting(code=21, left=0, right=1),), exchanged=())
    Diagram(emitted=(0, 1), exchanged=(6,))
    Diagram(emitted=(1, 0), exchanged=(-6,))
    """
    count = len(final)
    trees: dict[int, _Trees] = {1 << leg: {code: [(leg, 0)]} for leg, code in enumerate(final)}
    chains = Chains.of(resonances, 0)
    for legs in _subsets(count, 2):
        found: _Trees = {}
        if not chains.allow(legs):
            trees[legs] = found
            continue
        for a, b in partitions(legs):
            for (one, left), (two, right) in itertools.product(trees[a].items(), trees[b].items()):
                for vertex in vertices.pair(one, two):
                    if chains.codes.get(legs, vertex.output) != vertex.output:
                        continue
                    for (x, k), (y, m) in itertools.product(left, right):
                        power = k + m + vertex.strong
                        found.setdefault(vertex.output, []).append((Splitting(vertex.output, x, y), power))
        trees[legs] = found
    paths: dict[int, _Paths] = {0: {conjugate(initial[0]): [(Diagram((), ()), 0)]}}
    for legs in _subsets(count, 1):
        paths[legs] = _paths(legs, paths, trees, vertices, chains)
    ends = paths[(1 << count) - 1].get(initial[1], [])
    # The last particle of a path is beam 2 itself.
    complete = {Diagram(d.emitted, d.exchanged[:-1]) for d, power in ends if power in strong}
    return sorted(complete, key=lambda d: (len(d.emitted), repr(d)))


def _paths(legs: int, paths: dict[int, _Paths], trees: dict[int, _Trees], vertices: Vertices, chains: Chains) -> _Paths:
    found: _Paths = {}
    subset = legs
    while subset:
        if any(subset & own == subset != own for own in chains.codes):
            subset = (subset - 1) & legs
            continue
        before = legs ^ subset
        for (one, starts), (two, branches) in itertools.product(paths[before].items(), trees[subset].items()):
            for vertex in vertices.pair(one, two):
                for (path, k), (branch, m) in itertools.product(starts, branches):
                    longer = Diagram((*path.emitted, branch), (*path.exchanged, vertex.output))
                    found.setdefault(vertex.output, []).append((longer, k + m + vertex.strong))
        subset = (subset - 1) & legs
    return found


def _subsets(count: int, least: int) -> list[int]:
    """Sets of final legs by size."""
    bits = [1 << leg for leg in range(count)]
    return [sum(chosen) for size in range(least, count + 1) for chosen in itertools.combinations(bits, size)]
