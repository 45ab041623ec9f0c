"""Flavour combinations of a process, and the few matrix elements that they share.

Matrix elements of different flavours are equal when a symmetry relates them. The ones used here hold at leading
order in QCD with massless quarks: relabelling flavours that couple alike, CP (legs become antiparticles and momenta are
reflected), and, where a single W is the only colourless boson, weak isospin (the doublets u d and e nu turned over).
Every combination is taken to the first of its orbit; only that one is generated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.amplicol.particles import (
    ProcessLegs,
    conjugate,
    expression,
    is_lepton,
    is_quark,
    isospin_partner,
    parse_process,
    thrice_charge,
)
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.constants import GLUON, HIGGS, TAU, TOP, W_BOSON, Z_BOSON
from nisampler.processes.parameters import StandardModel

_UPS, _DOWNS = (2, 4), (1, 3, 5)
_ORDER = (11, -11, 12, -12, 2, 1, 3, 4, 5, 6, -2, -1, -3, -4, -5, -6)
_RANK = {code: rank for rank, code in enumerate(_ORDER)}


@dataclass(frozen=True)
class GeneratedElement:
    """A matrix element to evaluate: a generated process and where its momenta come from.

    Attributes
    ----------
    process
        PDG codes of the generated process, the two incoming legs first.
    permutation
        Leg k of the generated process takes the momentum of leg ``permutation[k]`` of the user's process.
    conjugated
        Whether CP relates the two: then the momenta are reflected and colours become anticolours.
    """

    process: tuple[int, ...]
    permutation: tuple[int, ...]
    conjugated: bool


@dataclass(frozen=True)
class FlavourTable:
    """All flavour combinations of a process, the matrix elements that they share and the power of alpha_s."""

    process: str
    legs: ProcessLegs
    subprocesses: tuple[SubProcess, ...]
    elements: tuple[GeneratedElement, ...]

    @property
    def generated(self) -> tuple[tuple[int, ...], ...]:
        """PDG codes of the processes to generate, sorted."""
        return tuple(sorted({element.process for element in self.elements}))


@dataclass(frozen=True)
class _Symmetry:
    """How flavours may change and be relabelled, from the colourless legs alone.

    Attributes
    ----------
    charge
        Charge that the quarks lose to the colourless legs by a single W; None where several W can appear.
    blind
        Whether quarks that do not couple to the colourless legs are alike whatever their charge.
    isospin
        Whether the doublets can be turned over.
    """

    charge: int | None
    blind: bool
    isospin: bool

    @classmethod
    def of(cls, legs: ProcessLegs) -> _Symmetry:
        colourless = legs.electroweak
        if not colourless:
            return cls(0, blind=True, isospin=False)
        leptons = [code for code in colourless if is_lepton(code)]
        bosons = [code for code in colourless if abs(code) == W_BOSON]
        charged = [code for code in leptons if code % 2]
        charge = sum(thrice_charge(code) for code in colourless) // 3
        single = len(bosons) + len(leptons) // 2 == 1 and abs(charge) == 1 and len(leptons) in (0, 2)
        if single:
            alone = len(leptons) + len(bosons) == len(colourless)
            # The tau has its mass in pyamplicol's model, so it cannot change places with its neutrino.
            return cls(charge, blind=alone, isospin=alone and all(abs(code) < TAU for code in leptons))
        if not bosons and charge == 0 and (len(leptons) == 2 or len(charged) == len(leptons)):
            return cls(0, blind=False, isospin=False)
        return cls(None, blind=False, isospin=False)


def _net_flavours(codes: Sequence[int]) -> Counter[int]:
    """Quarks minus antiquarks of each flavour among codes of which the first two are incoming."""
    net: Counter[int] = Counter()
    for place, code in enumerate(codes):
        if is_quark(code):
            net[abs(code)] += (1 if code > 0 else -1) * (-1 if place < 2 else 1)
    return Counter({flavour: count for flavour, count in net.items() if count})


def _changing_pair(codes: Sequence[int]) -> tuple[int, int] | None:
    """(up, down) flavours of the one quark line that changes flavour, or None if the change is another one."""
    net = _net_flavours(codes)
    if sorted(net.values()) != [-1, 1]:
        return None
    up, down = sorted(net, key=lambda flavour: flavour % 2)
    return (up, down) if up % 2 == 0 and down % 2 == 1 else None


def _allowed(codes: Sequence[int], symmetry: _Symmetry) -> bool:
    """Whether a tree diagram at leading order in QCD exists, electroweak charges being conserved."""
    if sum(map(thrice_charge, codes[2:])) != sum(map(thrice_charge, codes[:2])):
        return False
    coloured = any(code == GLUON or is_quark(code) for code in codes)
    colourless = any(not (code == GLUON or is_quark(code)) for code in codes)
    if coloured and colourless and not any(map(is_quark, codes)):
        return False
    if symmetry.charge == 0:
        return not _net_flavours(codes)
    if symmetry.charge is not None:
        return _changing_pair(codes) is not None
    net = _net_flavours(codes)
    return all(net[down] + net[down + 1] == 0 for down in _DOWNS)


def _relabellings(codes: Sequence[int], symmetry: _Symmetry, turned: bool) -> Iterator[dict[int, int]]:
    """Maps from the flavours that occur to canonical ones; the top quark and the pair of a W are fixed first.

    The pair becomes (u, d), or (d, u) where the doublet is turned over; none is yielded if that is impossible.
    """
    flavours = sorted({abs(code) for code in codes if is_quark(code)})
    if symmetry.charge is None:
        yield {flavour: flavour for flavour in flavours}
        return
    fixed = {TOP: TOP} if TOP in flavours else {}
    pair = _changing_pair(codes)
    if pair is not None and pair[0] == TOP:
        if turned:
            return
        fixed[pair[1]] = 5
    elif pair is not None:
        fixed.update(zip(pair, (1, 2) if turned else (2, 1), strict=True))
    others = [flavour for flavour in flavours if flavour not in fixed]
    kinds = [others] if symmetry.blind else [[f for f in others if f % 2 == parity] for parity in (0, 1)]
    labels = [(2, 1, 3, 4, 5)] if symmetry.blind else [_UPS, _DOWNS]
    free = [[label for label in choice if label not in fixed.values()] for choice in labels]
    choices = [itertools.permutations(room[: len(kind)]) for kind, room in zip(kinds, free, strict=True)]
    for assignment in itertools.product(*choices):
        yield fixed | {f: t for kind, to in zip(kinds, assignment, strict=True) for f, t in zip(kind, to, strict=True)}


def _renamed(code: int, labels: dict[int, int], turned: bool) -> int:
    if is_quark(code):
        return labels[code] if code > 0 else -labels[-code]
    return isospin_partner(code) if turned else code


def _canonical(codes: tuple[int, ...], symmetry: _Symmetry) -> GeneratedElement:
    """The first process of the orbit of `codes` under all symmetries, with the legs in a fixed order."""
    best: tuple[tuple[int, ...], GeneratedElement] | None = None
    for conjugated, turned in itertools.product((False, True), (False, True) if symmetry.isospin else (False,)):
        image = tuple(conjugate(code) for code in codes) if conjugated else codes
        for labels in _relabellings(image, symmetry, turned):
            named = [_renamed(code, labels, turned) for code in image]
            ranks = [_RANK.get(code, len(_ORDER) + abs(code) * 2 + (code < 0)) for code in named]
            order = sorted(range(2), key=ranks.__getitem__) + sorted(range(2, len(codes)), key=ranks.__getitem__)
            key = tuple(ranks[place] for place in order)
            if best is None or key < best[0]:
                best = key, GeneratedElement(tuple(named[place] for place in order), tuple(order), conjugated)
    if best is None:
        raise AmplitudeError(f"no relabelling of {expression(codes)}")
    return best[1]


def _order_jets(
    codes: tuple[int, ...], element: GeneratedElement, jets: Sequence[int]
) -> tuple[tuple[int, ...], GeneratedElement]:
    """Put the flavours on the jet legs in the order of the generated process, so that fewer permutations occur."""
    places = [jet + 2 for jet in jets]
    wanted = [place for place in element.permutation if place in places]
    moved = dict(zip(wanted, places, strict=True))
    final = list(codes)
    for source, target in moved.items():
        final[target] = codes[source]
    permutation = tuple(moved.get(place, place) for place in element.permutation)
    return tuple(final), GeneratedElement(element.process, permutation, element.conjugated)


def _refuse(process: str, legs: ProcessLegs) -> None:
    colourless = legs.electroweak
    coloured = [leg[0] for leg in (*legs.initial, *legs.final) if leg[0] == GLUON or is_quark(leg[0])]
    partners = (W_BOSON, Z_BOSON)
    massive = TOP in map(abs, coloured) or any(abs(c) in partners or is_lepton(c) for c in colourless)
    if HIGGS in colourless and not massive:
        raise AmplitudeError(
            f"{process!r} has no tree diagram at leading order in QCD: a Higgs boson without W, Z, leptons or top "
            "quarks comes from a loop or from electroweak exchange between quark lines (VBF), which cannot be generated"
        )


def flavour_table(process: str, model: StandardModel) -> FlavourTable:
    """Enumerate the flavour combinations of a process string and the matrix elements that they share.

    Both orders of the beams are included. Jets that differ only by their order are counted once; which jet leg has
    which flavour is fixed by the class of the combination. A single W brings the factor |V_ij|^2 of the flavours
    that change; with several W the CKM matrix is taken as the unit matrix.

    Raises
    ------
    AmplitudeError
        If the string cannot be read or no flavour combination exists at leading order in QCD.
    """
    legs = parse_process(process)
    _refuse(process, legs)
    symmetry = _Symmetry.of(legs)
    jets = legs.jets
    fixed = [leg[0] for leg in legs.final]
    subprocesses: list[SubProcess] = []
    elements: dict[GeneratedElement, int] = {}
    for initial in itertools.product(*legs.initial):
        for chosen in itertools.combinations_with_replacement(legs.final[jets[0]] if jets else (), len(jets)):
            final = list(fixed)
            for place, code in zip(jets, chosen, strict=True):
                final[place] = code
            codes = (*initial, *final)
            if not _allowed(codes, symmetry):
                continue
            factor = 1.0
            if symmetry.charge:
                factor = model.ckm_squared(*(_changing_pair(codes) or (0, 0)))
            if factor == 0:
                continue
            codes, element = _order_jets(codes, _canonical(codes, symmetry), jets)
            index = elements.setdefault(element, len(elements))
            subprocesses.append(SubProcess((codes[0], codes[1]), codes[2:], index, factor))
    if not subprocesses:
        raise AmplitudeError(
            f"{process!r} has no flavour combination at leading order in QCD: charge or flavour is not conserved, or "
            "it needs electroweak exchange between quark lines (VBF, VBS, single top), which cannot be generated"
        )
    return FlavourTable(process, legs, tuple(subprocesses), tuple(elements))
