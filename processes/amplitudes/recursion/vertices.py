"""Which sets of legs join at a vertex, and with which number: the Feynman rules as rules of combination.

A set of legs has the quantum numbers of one outgoing particle. Codes are PDG codes of that particle, so a fermion with
a positive code is a row (psi-bar) and one with a negative code a column.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Literal

from nisampler.processes.amplitudes.recursion.model import NEUTRAL, SINGLET, Couplings, partners
from nisampler.processes.constants import COLOURS, GLUON, HIGGS, PHOTON, W_BOSON, Z_BOSON
from nisampler.processes.particles import conjugate, is_fermion, is_quark, thrice_charge

Joint = Literal["beside", "joined", "cut", "times", "commutator", "ordered"]
"""How the colours of the inputs meet."""


@dataclass(frozen=True)
class Vertex:
    """What two or three sets of legs make.

    Attributes
    ----------
    output
        Code of the set.
    kind
        "current" (row, column), "emission" (boson, fermion), or an operation of the graph.
    couplings
        One number; for fermions the left- and the right-handed one.
    order
        Which input stands where, as places.
    colour
        How colours meet.
    strong
        Power of the strong coupling.

    Examples
    --------
    >>> Vertex(22, "current", (-0.3, -0.3)).colour
    'beside'
    """

    output: int
    kind: str
    couplings: tuple[complex, ...]
    order: tuple[int, ...] = (0, 1)
    colour: Joint = "beside"
    strong: int = 0


class Vertices:
    """All vertices of the Standard Model in unitary gauge.

    >>> from nisampler.processes.parameters import StandardModel
    >>> rules = Vertices(Couplings(StandardModel()))
    >>> sorted(vertex.output for vertex in rules.pair(2, -2))
    [9, 21, 22, 23]
    >>> [vertex.output for vertex in rules.pair(24, 1)]
    [2, 4, 6]
    """

    def __init__(self, couplings: Couplings) -> None:
        self.couplings = couplings
        self.pair = cache(self._pair)
        self.triple = cache(self._triple)

    def _pair(self, a: int, b: int) -> tuple[Vertex, ...]:
        """Vertices of two sets."""
        fermions = [is_fermion(a), is_fermion(b)]
        if all(fermions):
            return self._currents(a, b)
        if any(fermions):
            order = (1, 0) if fermions[0] else (0, 1)
            return self._emissions((a, b)[order[0]], (a, b)[order[1]], order)
        return self._bosons(a, b)

    def _currents(self, a: int, b: int) -> tuple[Vertex, ...]:
        order = (0, 1) if a > 0 else (1, 0)
        row, column = max(a, b), min(a, b)
        if row < 0 or column > 0 or is_quark(row) != is_quark(column):
            return ()
        colour: Joint = "joined" if is_quark(row) else "beside"
        c = self.couplings
        if row != -column:
            if -column not in partners(row) or not c.charged(row, column):
                return ()
            code = W_BOSON if thrice_charge(row) + thrice_charge(column) > 0 else -W_BOSON
            return (Vertex(code, "current", (c.charged(row, column), 0.0), order, colour),)
        found = [Vertex(v, "current", c.fermion(v, row), order, colour) for v in NEUTRAL if any(c.fermion(v, row))]
        if c.mass(row):
            found.append(Vertex(HIGGS, "current", (c.yukawa(row),), order, colour))
        if is_quark(row):
            found.append(Vertex(GLUON, "current", c.fermion(GLUON, row), order, "cut", 1))
            left, right = c.fermion(SINGLET, row)
            found.append(Vertex(SINGLET, "current", (-left / COLOURS, -right / COLOURS), order, "joined", 1))
        return tuple(found)

    def _emissions(self, boson: int, fermion: int, order: tuple[int, int]) -> tuple[Vertex, ...]:
        c = self.couplings
        if abs(boson) == W_BOSON:
            charge = thrice_charge(fermion) + thrice_charge(boson)
            found = [code for code in partners(fermion) if thrice_charge(code) == charge]
            couplings = {code: c.charged(fermion, code) for code in found}
            return tuple(Vertex(code, "emission", (g, 0.0), order) for code, g in couplings.items() if g)
        if boson == HIGGS:
            return (Vertex(fermion, "emission", (c.yukawa(fermion),), order),) if c.mass(fermion) else ()
        couplings_ = c.fermion(boson, fermion)
        if not any(couplings_):
            return ()
        strong = int(boson in (GLUON, SINGLET))
        colour: Joint = "times" if boson == GLUON else "beside"
        return (Vertex(fermion, "emission", couplings_, order, colour, strong),)

    def _bosons(self, a: int, b: int) -> tuple[Vertex, ...]:
        c = self.couplings
        if a == b == GLUON:
            return (Vertex(GLUON, "three_vectors", (-(0.5**0.5),), colour="commutator", strong=1),)
        if {a, b} & {GLUON, SINGLET}:
            return ()
        if a == b == HIGGS:
            return (Vertex(HIGGS, "number_number", (c.three_higgs,)),)
        if HIGGS in (a, b):
            vector, order = (b, (0, 1)) if a == HIGGS else (a, (1, 0))
            if vector == PHOTON:
                return ()
            return (Vertex(vector, "number_vector", (c.higgs_vectors(vector),), order),)
        found: list[Vertex] = []
        charge = (thrice_charge(a) + thrice_charge(b)) // 3
        if abs(a) == W_BOSON or abs(b) == W_BOSON:
            outputs = NEUTRAL if charge == 0 else (charge * W_BOSON,) if abs(charge) == 1 else ()
            for output in outputs:
                fields = (conjugate(a), conjugate(b), output)
                neutral = next(code for code in fields if code in NEUTRAL)
                found.append(Vertex(output, "three_vectors", (_sign(fields) * c.triple(neutral),)))
        if charge == 0 and a == conjugate(b) and abs(a) in (W_BOSON, Z_BOSON):
            found.append(Vertex(HIGGS, "vector_product", (c.higgs_vectors(a),)))
        return tuple(found)

    def _triple(self, a: int, b: int, c: int) -> tuple[Vertex, ...]:
        """Vertices of three sets."""
        codes = (a, b, c)
        if codes == (GLUON,) * 3:
            return (Vertex(GLUON, "four_vectors", (0.5,), (0, 1, 2), "ordered", 2),)
        if any(is_fermion(code) or code in (GLUON, SINGLET) for code in codes):
            return ()
        scalars = codes.count(HIGGS)
        return self._four_vectors(codes) if scalars == 0 else self._four_with_scalars(codes, scalars)

    def _four_with_scalars(self, codes: tuple[int, int, int], scalars: int) -> tuple[Vertex, ...]:
        k = self.couplings
        if scalars == 3:
            return (Vertex(HIGGS, "three_numbers", (k.four_higgs,), (0, 1, 2)),)
        order = tuple(sorted(range(3), key=lambda place: codes[place] == HIGGS))
        vectors = [codes[place] for place in order if codes[place] != HIGGS]
        if PHOTON in vectors:
            return ()
        if scalars == 2:
            return (Vertex(vectors[0], "vector_numbers", (k.two_higgs_vectors(vectors[0]),), order),)
        if vectors[0] != conjugate(vectors[1]):
            return ()
        return (Vertex(HIGGS, "vectors_number", (k.two_higgs_vectors(vectors[0]),), order),)

    def _four_vectors(self, codes: tuple[int, int, int]) -> tuple[Vertex, ...]:
        k = self.couplings
        charged = [place for place in range(3) if abs(codes[place]) == W_BOSON]
        charge = sum(map(thrice_charge, codes)) // 3
        if len(charged) == 3:
            # Like charges are one pair; the fourth field is like the charge that stands alone.
            alone = next(p for p in charged if codes[p] != charge * W_BOSON) if abs(charge) == 1 else None
            if alone is None:
                return ()
            order = (alone, *(p for p in charged if p != alone))
            return (Vertex(charge * W_BOSON, "four_vectors", (k.quartic(W_BOSON, W_BOSON),), order),)
        if len(charged) == 2 and charge == 0:
            other = next(p for p in range(3) if p not in charged)
            return tuple(
                Vertex(code, "four_vectors", (k.quartic(codes[other], code),), (other, *charged)) for code in NEUTRAL
            )
        if len(charged) == 1:
            others = [p for p in range(3) if p not in charged]
            coupling = k.quartic(codes[others[0]], codes[others[1]])
            return (Vertex(codes[charged[0]], "four_vectors", (coupling,), (charged[0], *others)),)
        return ()


def _sign(fields: tuple[int, int, int]) -> int:
    """Sign of the order of three fields against (neutral, W+, W-)."""
    places = [0 if code in NEUTRAL else 1 if code == W_BOSON else 2 for code in fields]
    swaps = sum(places[i] > places[j] for i, j in itertools.combinations(range(3), 2))
    return -1 if swaps % 2 else 1
