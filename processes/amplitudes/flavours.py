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
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.strings import ProcessLegs, parse_process
from nisampler.processes.constants import GLUON, HIGGS, MASSLESS_QUARKS, TAU, TOP, W_BOSON, Z_BOSON
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import conjugate, expression, is_lepton, is_quark, isospin_partner, thrice_charge

MOST_ELEMENTS = 600
"""Elements that a table may have in which each order of the jets is an element of its own."""
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

    Examples
    --------
    >>> GeneratedElement((2, -2, 11, -11), (0, 1, 2, 3), conjugated=False).process
    (2, -2, 11, -11)
    """

    process: tuple[int, ...]
    permutation: tuple[int, ...]
    conjugated: bool


def move_tags(tags: Sequence[Sequence[int]], permutation: Sequence[int], conjugated: bool) -> list[tuple[int, int]]:
    """Tags of the user's legs from those of the generated process, colours and anticolours exchanged under CP.

    >>> move_tags([(501, 0), (0, 501)], [1, 0], conjugated=False)
    [(0, 501), (501, 0)]
    >>> move_tags([(501, 0), (0, 501)], [1, 0], conjugated=True)
    [(501, 0), (0, 501)]
    """
    moved = [(0, 0)] * len(tags)
    for place, source in enumerate(permutation):
        colour, anticolour = tags[place]
        moved[source] = (anticolour, colour) if conjugated else (colour, anticolour)
    return moved


@dataclass(frozen=True)
class FlavourTable:
    """All flavour combinations of a process, the matrix elements that they share and the power of alpha_s.

    >>> table = flavour_table("p p > e+ ve", StandardModel())
    >>> table.generated
    ((2, -1, -11, 12),)
    """

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
        leptons = [code for code in colourless if is_lepton(code)]
        bosons = [code for code in colourless if abs(code) == W_BOSON]
        charge = sum(thrice_charge(code) for code in colourless) // 3
        if not colourless:
            return cls(0, blind=True, isospin=False)
        if abs(charge) == 1 and (len(leptons), len(bosons)) in ((2, 0), (0, 1)):
            alone = len(leptons) + len(bosons) == len(colourless)
            # The tau has its mass in pyamplicol's model, so it cannot change places with its neutrino.
            return cls(charge, blind=alone, isospin=alone and all(abs(code) < TAU for code in leptons))
        neutral = len(leptons) == 2 or all(code % 2 for code in leptons)
        return cls(0 if neutral and charge == 0 and not bosons else None, blind=False, isospin=False)


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
    """Maps from the flavours that occur to canonical ones; none where a doublet cannot be turned over as asked."""
    flavours = sorted({abs(code) for code in codes if is_quark(code)})
    if symmetry.charge is None:
        yield {flavour: flavour for flavour in flavours}
        return
    fixed = _fixed_labels(codes, turned)
    if fixed is not None:
        yield from _free_labels([flavour for flavour in flavours if flavour not in fixed], fixed, symmetry.blind)


def _fixed_labels(codes: Sequence[int], turned: bool) -> dict[int, int] | None:
    """Labels that leave no choice: the top quark keeps its own, the pair of a W becomes (u, d), or (d, u) turned over.

    None where the pair is (t, b) and would be turned over: the top quark has its mass.
    """
    fixed = {TOP: TOP} if TOP in map(abs, codes) else {}
    pair = _changing_pair(codes)
    if pair is None:
        return fixed
    if pair[0] == TOP:
        return None if turned else fixed | {pair[1]: 5}
    up, down = pair
    return fixed | ({up: 1, down: 2} if turned else {up: 2, down: 1})


def _free_labels(flavours: Sequence[int], fixed: dict[int, int], blind: bool) -> Iterator[dict[int, int]]:
    """`fixed` with every choice of the first labels that are left for the other flavours.

    Flavours of all charges share one set of labels where the symmetry is blind to charge; otherwise up-type flavours
    and down-type ones have a set each.
    """
    sets = [(2, 1, 3, 4, 5)] if blind else [_UPS, _DOWNS]
    assignments: list[list[dict[int, int]]] = []
    for labels in sets:
        members = [flavour for flavour in flavours if flavour in labels]
        left = [label for label in labels if label not in fixed.values()][: len(members)]
        assignments.append([dict(zip(members, order, strict=True)) for order in itertools.permutations(left)])
    for parts in itertools.product(*assignments):
        yield fixed | {flavour: label for part in parts for flavour, label in part.items()}


def _renamed(code: int, labels: dict[int, int], turned: bool) -> int:
    if is_quark(code):
        return labels[code] if code > 0 else -labels[-code]
    return isospin_partner(code) if turned else code


def _rank(code: int) -> int:
    """Place of a code in the fixed order of legs."""
    return _RANK.get(code, len(_ORDER) + abs(code) * 2 + (code < 0))


def _images(codes: tuple[int, ...], symmetry: _Symmetry) -> Iterator[tuple[list[int], bool]]:
    """All processes that a symmetry relates to `codes`, leg by leg, and whether CP was used."""
    turns = (False, True) if symmetry.isospin else (False,)
    for conjugated, turned in itertools.product((False, True), turns):
        image = [conjugate(code) for code in codes] if conjugated else list(codes)
        for labels in _relabellings(image, symmetry, turned):
            yield [_renamed(code, labels, turned) for code in image], conjugated


def _canonical(codes: tuple[int, ...], symmetry: _Symmetry) -> GeneratedElement:
    """The first process of the orbit of `codes` under all symmetries, with the legs in a fixed order."""
    best: tuple[list[int], GeneratedElement] | None = None
    for image, conjugated in _images(codes, symmetry):
        ranks = [_rank(code) for code in image]
        order = sorted(range(2), key=ranks.__getitem__) + sorted(range(2, len(codes)), key=ranks.__getitem__)
        key = [ranks[place] for place in order]
        if best is None or key < best[0]:
            best = key, GeneratedElement(tuple(image[place] for place in order), tuple(order), conjugated)
    if best is None:
        raise AmplitudeError(f"no relabelling of {expression(codes)}")
    return best[1]


def in_every_order(table: FlavourTable) -> FlavourTable:
    """The same table with the flavours of jets in every order, each with its share: symmetric in the jets.

    A jet leg of a table usually has a flavour of its own. Where all orders are there, exchanging the momenta of two
    jets does not change the sum, which is smoother then, and one flow learns all channels that differ by their order.
    Tables that would have more than `MOST_ELEMENTS` stay as they are.

    >>> table = flavour_table("p p > e+ ve j j", StandardModel())
    >>> len(table.subprocesses), len(in_every_order(table).subprocesses)
    (342, 648)
    """
    places = [leg for leg in table.legs.jets if len(table.legs.final[leg]) > 1]
    alike = [leg for leg in places if table.legs.final[leg] == table.legs.final[places[0]]]
    elements: dict[GeneratedElement, int] = {}
    found: list[SubProcess] = []
    for item in table.subprocesses:
        source = table.elements[item.element]
        orders: dict[tuple[int, ...], list[int]] = {}
        for order in itertools.permutations(alike):
            moved = list(range(len(item.final)))
            for place, leg in zip(alike, order, strict=True):
                moved[place] = leg
            orders.setdefault(tuple(item.final[leg] for leg in moved), moved)
        for final, moved in orders.items():
            goes = {0: 0, 1: 1} | {leg + 2: place + 2 for place, leg in enumerate(moved)}
            permutation = tuple(goes[leg] for leg in source.permutation)
            element = GeneratedElement(source.process, permutation, source.conjugated)
            index = elements.setdefault(element, len(elements))
            found.append(SubProcess(item.initial, final, index, item.factor / len(orders)))
        if len(elements) > MOST_ELEMENTS:
            return table
    return FlavourTable(table.process, table.legs, tuple(found), tuple(elements))


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


def _combinations(legs: ProcessLegs) -> Iterator[tuple[int, ...]]:
    """Every choice of one code for each leg; jets that differ by their order alone are one choice."""
    choices = legs.final[legs.jets[0]] if legs.jets else ()
    for initial in itertools.product(*legs.initial):
        for chosen in itertools.combinations_with_replacement(choices, len(legs.jets)):
            final = [leg[0] for leg in legs.final]
            for place, code in zip(legs.jets, chosen, strict=True):
                final[place] = code
            yield (*initial, *final)


def flavour_table(process: str, model: StandardModel, flavours: int = len(MASSLESS_QUARKS)) -> FlavourTable:
    """Enumerate the flavour combinations of a process string and the matrix elements that they share.

    Both orders of the beams are included. Jets that differ only by their order are counted once; which jet leg has
    which flavour is fixed by the class of the combination. A single W brings the factor |V_ij|^2 of the flavours
    that change; with several W the CKM matrix is taken as the unit matrix.

    Raises
    ------
    AmplitudeError
        If the string cannot be read or no flavour combination exists at leading order in QCD.

    Examples
    --------
    >>> table = flavour_table("p p > e- e+ j", StandardModel())
    >>> len(table.subprocesses), len(table.elements), len(table.generated)
    (30, 12, 4)
    >>> flavour_table("p p > e+ e+", StandardModel())
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: 'p p > e+ e+' has no flavour combination at leading order in QCD: ...
    """
    return table_of_legs(process, parse_process(process, flavours), model)


def table_of_legs(process: str, legs: ProcessLegs, model: StandardModel) -> FlavourTable:
    """As `flavour_table`, of legs that are read already; the string is for messages.

    >>> table_of_legs("p p > e+ ve", parse_process("p p > e+ ve"), StandardModel()).generated
    ((2, -1, -11, 12),)
    """
    if legs.orders.given or legs.resonances:
        raise AmplitudeError(f"{process!r} limits couplings or has decays; this table is that of leading order in QCD")
    _refuse(process, legs)
    symmetry = _Symmetry.of(legs)
    subprocesses: list[SubProcess] = []
    elements: dict[GeneratedElement, int] = {}
    for codes in _combinations(legs):
        if not _allowed(codes, symmetry):
            continue
        factor = model.ckm_squared(*(_changing_pair(codes) or (0, 0))) if symmetry.charge else 1.0
        if factor == 0:
            continue
        ordered, element = _order_jets(codes, _canonical(codes, symmetry), legs.jets)
        index = elements.setdefault(element, len(elements))
        subprocesses.append(SubProcess((ordered[0], ordered[1]), ordered[2:], index, factor))
    if not subprocesses:
        raise AmplitudeError(
            f"{process!r} has no flavour combination at leading order in QCD: charge or flavour is not conserved, or "
            "it needs electroweak exchange between quark lines (VBF, VBS, single top), which cannot be generated"
        )
    return FlavourTable(process, legs, tuple(subprocesses), tuple(elements))
