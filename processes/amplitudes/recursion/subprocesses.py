"""Flavour combinations of any coupling orders, and the few matrix elements that they share, found by their values.

Two combinations share a matrix element where their values agree at momenta in no special place, with legs permuted as
the case may be. First the two light generations are exchanged, which changes nothing where the CKM matrix is the unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.flavours import FlavourTable, GeneratedElement
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.recursion.resonances import Shape, check_decay, codes_of, decay_powers, kind
from nisampler.processes.amplitudes.recursion.skeleton import Known, strong_powers
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import ProcessLegs, Product, parse_process
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS
from nisampler.processes.particles import conjugate, is_lepton, is_quark, thrice_charge

Codes = tuple[int, ...]
_EQUAL = 1e-9
_CONSERVED = ("charge", *(f"the number of {kind}" for kind in ("quarks", "electrons", "muons", "taus")))
_SWAPPED = {1: 3, 3: 1, 2: 4, 4: 2}


def combinations(legs: ProcessLegs) -> Iterator[Codes]:
    """Every choice of a code for each leg that conserves charge, quarks and leptons, in each decay, too.

    Legs with the same choices that differ by their order alone are one choice; so are decays of equal particles.

    >>> from nisampler.processes.amplitudes.strings import parse_process
    >>> list(combinations(parse_process("e+ e- > l+ l-")))
    [(-11, 11, -11, 11), (-11, 11, -13, 13)]
    """
    if legs.resonances:
        yield from _with_decays(legs)
        return
    groups: dict[Codes, list[int]] = {}
    for place, leg in enumerate(legs.final):
        groups.setdefault(leg, []).append(place)
    choices = [itertools.combinations_with_replacement(codes, len(places)) for codes, places in groups.items()]
    finals: list[Codes] = []
    for chosen in itertools.product(*choices):
        final = [0] * len(legs.final)
        for places, codes in zip(groups.values(), chosen, strict=True):
            for place, code in zip(places, codes, strict=True):
                final[place] = code
        finals.append(tuple(final))
    for initial in itertools.product(*legs.initial):
        before = _conserved(initial)
        yield from ((*initial, *final) for final in finals if _conserved(final) == before)


def _with_decays(legs: ProcessLegs) -> Iterator[Codes]:
    finals = list(_choices(legs.produced, legs).values())
    for initial in itertools.product(*legs.initial):
        before = _conserved(initial)
        for found in finals:
            codes = tuple(found[leg] for leg in range(len(legs.final)))
            if _conserved(codes_of(legs.produced, codes)) == before:
                yield (*initial, *codes)


def _choices(products: Sequence[Product], legs: ProcessLegs) -> dict[tuple[str, ...], dict[int, int]]:
    """Codes by leg of some products, one choice of each kind."""
    found: dict[tuple[str, ...], dict[int, int]] = {}
    for chosen in itertools.product(*(_choices_of(part, legs) for part in products)):
        codes = {leg: code for part in chosen for leg, code in part.items()}
        found.setdefault(tuple(sorted(kind(part, codes) for part in products)), codes)
    return found


def _choices_of(product: Product, legs: ProcessLegs) -> list[dict[int, int]]:
    if isinstance(product, int):
        return [{product: code} for code in legs.final[product]]
    before = _conserved([product.code])
    found = _choices(product.products, legs).values()
    return [codes for codes in found if _conserved(codes_of(product.products, codes)) == before]


def _conserved(codes: Sequence[int]) -> tuple[int, ...]:
    """Thrice the charge, quarks, and leptons of each generation."""
    quarks = sum((code > 0) - (code < 0) for code in codes if is_quark(code))
    leptons = [0, 0, 0]
    for code in codes:
        if is_lepton(code):
            leptons[(abs(code) - 11) // 2] += 1 if code > 0 else -1
    return sum(map(thrice_charge, codes)), quarks, *leptons


def unconserved(legs: ProcessLegs) -> str:
    """Says that no choice of flavours conserves everything, and what its legs can have before and after.

    >>> from nisampler.processes.amplitudes.strings import parse_process
    >>> unconserved(parse_process("p p > e+ e+"))
    'no choice of flavours conserves charge, quarks and leptons: charge is -4/3 to 4/3 before, 2 after; ...'
    """
    found = []
    for place, name in enumerate(_CONSERVED):
        before, after = (_totals(side, place) for side in (legs.initial, legs.final))
        if before.isdisjoint(after):
            unit = 1 if place else 3
            found.append(f"{name} is {_listed(before, unit)} before, {_listed(after, unit)} after")
    return ": ".join(filter(None, ["no choice of flavours conserves charge, quarks and leptons", "; ".join(found)]))


def _totals(side: Sequence[Codes], place: int) -> set[int]:
    """What the legs of one side of the arrow can have together."""
    found = {0}
    for leg in side:
        found = {total + _conserved((code,))[place] for total in found for code in leg}
    return found


def _listed(totals: set[int], unit: int) -> str:
    low, *_, high = (str(Fraction(total, unit)) for total in sorted([*totals, *totals]))
    return low if low == high else f"{low} to {high}"


@dataclass
class _Known:
    """A matrix element and its values at the probes in every order of legs that may change places."""

    codes: Codes
    matrix: MatrixElement
    values: list[tuple[Codes, Tensor]]


@dataclass
class OrderTable:
    """All combinations of a process string with limits on couplings, their matrix elements and powers.

    Where the CKM matrix is not the unit, combinations that differ by a factor share a matrix element, too. Without
    limits amplitudes have the largest power of the strong coupling that occurs.

    Parameters
    ----------
    process
        The string.
    couplings
        The Feynman rules.
    flavours
        Massless quarks that ``p`` and ``j`` stand for.
    shape
        What masses particles have that decay.

    Raises
    ------
    AmplitudeError
        If the string cannot be read, a decay is impossible, or no combination has a diagram of these orders; the
        message says which powers there are.

    Examples
    --------
    >>> from nisampler.processes.parameters import StandardModel
    >>> found = OrderTable("u c > u c QCD=0", Couplings(StandardModel().on_shell()))
    >>> found.table.subprocesses[0].final, found.table.elements[0].process
    ((2, 4), (2, 4, 2, 4))
    """

    process: str
    couplings: Couplings
    flavours: int = len(MASSLESS_QUARKS)
    shape: Shape = "on_shell"
    matrices: dict[Codes, MatrixElement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._vertices, self._known = Vertices(self.couplings), list[_Known]()
        self._probes: Tensor | None = None
        self._currents: Known = {}
        self._legs = legs = parse_process(self.process, self.flavours)
        every = list(combinations(legs))
        for item in reversed(legs.resonances):
            check_decay(self.process, item, _choices_of(item, legs), self.couplings, self.shape)
        powers = {codes: self._powers(codes) for codes in every}
        allowed = orders_of(legs, powers)
        chosen = {codes: found & allowed for codes, found in powers.items() if found & allowed}
        if not chosen:
            total = len(legs.initial) + len(legs.produced) - 2
            raise AmplitudeError(f"{self.process!r} has no diagram: {_reason(powers, total, legs)}")
        subprocesses: list[SubProcess] = []
        elements: dict[GeneratedElement, int] = {}
        seen: dict[Codes, tuple[GeneratedElement, float]] = {}
        mixed = self.couplings.model != self.couplings.model.without_mixing()
        for codes, strong in chosen.items():
            alike = codes if mixed else min(codes, tuple(_swapped(code) for code in codes))
            if alike not in seen:
                seen[alike] = self._element(alike, {power + self._of_decays(codes) for power in strong}, mixed)
            element, factor = seen[alike]
            index = elements.setdefault(element, len(elements))
            subprocesses.append(SubProcess((codes[0], codes[1]), codes[2:], index, factor))
        self.table = FlavourTable(self.process, legs, tuple(subprocesses), tuple(elements))

    def _powers(self, codes: Codes) -> set[int]:
        """Powers of what is produced; none where a decay does not exist."""
        if not all(decay_powers(item, codes[2:], self._vertices) for item in self._legs.resonances):
            return set()
        outgoing = [conjugate(code) for code in codes[:2]] + codes_of(self._legs.produced, codes[2:])
        return strong_powers(outgoing, self._vertices, self._currents)

    def _of_decays(self, codes: Codes) -> int:
        """The largest powers of all decays together."""
        return sum(max(decay_powers(item, codes[2:], self._vertices)) for item in self._legs.resonances)

    def _element(self, codes: Codes, strong: set[int], mixed: bool) -> tuple[GeneratedElement, float]:
        """A matrix element whose values these are, where generations mix up to a factor, or a new one."""
        matrix = MatrixElement(codes[:2], codes[2:], self.couplings, strong, self._legs.produced, self.shape)
        if self._probes is None:
            self._probes = probe_momenta([leg.mass for leg in matrix.legs])
        alpha_s = torch.linspace(0.1, 0.15, len(self._probes), dtype=torch.float64)
        own = matrix.squared(self._probes, alpha_s)
        for known in self._known:
            for order, values in known.values:
                coloured = [_colour(codes[source]) for source in order] == [_colour(code) for code in known.codes]
                factor = float(own[0] / values[0]) if mixed else 1.0
                if coloured and torch.allclose(own, factor * values, rtol=_EQUAL, atol=0.0):
                    return GeneratedElement(known.codes, order, conjugated=False), factor
        moved = [(order, matrix.squared(self._probes[:, list(order)], alpha_s)) for order in self._orders(matrix)]
        self._known.append(_Known(codes, matrix, moved))
        self.matrices[codes] = matrix
        return GeneratedElement(codes, tuple(range(len(codes))), conjugated=False), 1.0

    def _orders(self, matrix: MatrixElement) -> Iterator[Codes]:
        """Permutations of the beams and of coloured legs of one mass, the identity first."""
        masses = [leg.mass for leg in matrix.legs]
        free = [leg for leg in range(2, len(masses)) if is_quark(matrix.legs[leg].code) or matrix.legs[leg].code == 21]
        for beams in ((0, 1), (1, 0)):
            for moved in itertools.permutations(free):
                order = [*beams, *range(2, len(masses))]
                for place, source in zip(free, moved, strict=True):
                    order[place] = source
                if all(masses[place] == masses[source] for place, source in enumerate(order)):
                    yield tuple(order)


def _colour(code: int) -> int:
    """1 of quarks, -1 of antiquarks, 8 of gluons, 0 of others: equal elements have equal colours in event records."""
    return (code > 0) - (code < 0) if is_quark(code) else 8 if code == GLUON else 0


def orders_of(legs: ProcessLegs, powers: Mapping[Codes, set[int]]) -> set[int]:
    """Powers of g_s that a process asks for: those of its limits, or else the largest one that occurs.

    >>> orders_of(parse_process("u c > u c"), {(2, 4, 2, 4): {0, 2}})
    {2}
    """
    if legs.orders.given:
        return legs.orders.powers(len(legs.initial) + len(legs.produced) - 2)
    return {max((power for found in powers.values() for power in found), default=0)}


def _swapped(code: int) -> int:
    """The quark of the other light generation; everything else itself."""
    other = _SWAPPED.get(abs(code), abs(code))
    return other if code > 0 else -other


def _reason(powers: dict[Codes, set[int]], total: int, legs: ProcessLegs) -> str:
    found = sorted({power for strong in powers.values() for power in strong})
    if not powers:
        return unconserved(legs)
    if not found:
        return "no vertices of the Standard Model join these particles at tree level"
    listed = ", ".join(f"QCD={power} QED={total - power}" for power in found)
    return f"no amplitude has these orders; there are {listed}"
