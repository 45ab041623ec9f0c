"""Flavour combinations of the pyamplicol adapter: complete, conserved, and related by symmetries that hold."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.currents import ChargedCurrent, NeutralCurrent
from nisampler.processes.amplitudes.flavours import FlavourTable, GeneratedElement, flavour_table
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.amplitudes.qcd import Qcd
from nisampler.processes.amplitudes.strings import parse_process
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import CODES, conjugate, expression, isospin_partner
from nisampler.processes.phase_space.rambo import RamboOnDiet

MODEL = StandardModel()
QUARKS = (1, 2, 3, 4, 5)
CHARGE = {1: -1, 2: 2, 3: -1, 4: 2, 5: -1, 6: 2, 11: -3, 12: 0, 21: 0, 24: 3}


def charge(code: int) -> int:
    return CHARGE[abs(code)] * (1 if code > 0 else -1)


def quark_lines(boson: int, coloured: int) -> Iterator[tuple[int, ...]]:
    """Coloured legs, all outgoing, of quark lines and gluons; the first line emits the boson of charge +1, -1 or 0."""
    if boson:
        first = [(d, -u) if boson > 0 else (u, -d) for u in (2, 4) for d in (1, 3, 5)]
    else:
        first = [(q, -q) for q in QUARKS]
    for lines in range(1, coloured // 2 + 1):
        for line, *others in itertools.product(first, *[[(q, -q) for q in QUARKS]] * (lines - 1)):
            yield (*line, *(code for pair in others for code in pair), *[21] * (coloured - 2 * lines))


def expected_combinations(boson: int, jets: int) -> set[tuple[tuple[int, int], tuple[int, ...]]]:
    """(initial, sorted jets): any two legs of the all-outgoing set, crossed to the initial state in both orders."""
    found = set()
    for legs in quark_lines(boson, jets + 2):
        for first, second in itertools.permutations(range(len(legs)), 2):
            rest = tuple(sorted(code for place, code in enumerate(legs) if place not in (first, second)))
            found.add(((conjugate(legs[first]), conjugate(legs[second])), rest))
    return found


@pytest.mark.parametrize(
    ("process", "boson", "jets", "generated"),
    [
        ("p p > e+ ve j", +1, 1, 2),
        ("p p > e+ ve j j", +1, 2, 11),
        ("p p > e- ve~ j j", -1, 2, 11),
        ("p p > e- e+ j j", 0, 2, 20),
        ("p p > e+ ve j j j", +1, 3, 16),
        ("p p > e- e+ j j j", 0, 3, 26),
    ],
)
def test_every_combination_is_there_once(process: str, boson: int, jets: int, generated: int) -> None:
    table = flavour_table(process, MODEL)
    found = Counter((s.initial, tuple(sorted(s.final[2:]))) for s in table.subprocesses)
    assert set(found) == expected_combinations(boson, jets)
    assert set(found.values()) == {1}
    assert len(table.generated) == generated


def test_four_quark_combinations_by_hand() -> None:
    finals = {
        (s.initial, tuple(sorted(s.final[2:])))
        for s in flavour_table("p p > e+ ve j j", MODEL).subprocesses
        if s.initial == (2, 2)
    }
    assert finals == {((2, 2), (1, 2)), ((2, 2), (2, 3)), ((2, 2), (2, 5))}


@pytest.mark.parametrize("process", ["p p > e+ ve j j j", "p p > e- e+ j j", "p p > t t~ j", "p p > W+ W-"])
def test_charge_and_quark_number_are_conserved(process: str) -> None:
    for one in flavour_table(process, MODEL).subprocesses:
        assert sum(map(charge, one.initial)) == sum(map(charge, one.final))
        number = [sum((abs(c) < 7) * (1 if c > 0 else -1) for c in codes) for codes in (one.initial, one.final)]
        assert number[0] == number[1]


def test_the_factor_is_that_of_the_flavours_that_change() -> None:
    factors = {(s.initial, s.final[2:]): s.factor for s in flavour_table("p p > e+ ve j j", MODEL).subprocesses}
    assert factors[(2, -1), (21, 21)] == pytest.approx(0.97383**2, rel=1e-12)
    assert factors[(4, -5), (21, 21)] == pytest.approx(0.04221**2, rel=1e-12)
    initial = [(key, f) for key, f in factors.items() if key[0] == (2, 4) and sorted(key[1]) == [1, 4]]
    assert [f for _, f in initial] == [pytest.approx(0.97383**2, rel=1e-12)]
    assert {s.factor for s in flavour_table("p p > e- e+ j j", MODEL).subprocesses} == {1.0}


def test_a_vanishing_ckm_element_drops_its_combinations() -> None:
    diagonal = StandardModel(ckm=((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)))
    assert len(flavour_table("p p > e+ ve", diagonal).subprocesses) == 4
    assert len(flavour_table("p p > e+ ve", MODEL).subprocesses) == 12


def image_of(codes: tuple[int, ...], element: GeneratedElement) -> tuple[int, ...]:
    moved = tuple(codes[place] for place in element.permutation)
    return tuple(conjugate(code) for code in moved) if element.conjugated else moved


@pytest.mark.parametrize(
    "process", ["p p > e+ ve j j j", "p p > e- ve~ j j", "p p > e- e+ j j j", "p p > t t~ j", "p p > j j j"]
)
def test_members_of_an_element_differ_by_a_relabelling_alone(process: str) -> None:
    table = flavour_table(process, MODEL)
    for one in table.subprocesses:
        codes = (*one.initial, *one.final)
        element = table.elements[one.element]
        assert sorted(element.permutation[:2]) == [0, 1]
        assert sorted(element.permutation) == list(range(len(codes)))
        image = image_of(codes, element)
        labels: dict[int, int] = {}
        for mine, theirs in zip(image, element.process, strict=True):
            if 1 <= abs(mine) <= 6:
                assert mine * theirs > 0
                assert labels.setdefault(abs(mine), abs(theirs)) == abs(theirs)
            else:
                assert theirs in (mine, isospin_partner(mine))
        assert len(set(labels.values())) == len(labels)
        assert labels.get(6, 6) == 6
        if process.startswith("p p > e- e+"):
            assert all((one - other) % 2 == 0 for one, other in labels.items())
        same = [sorted(Counter(codes[2:]).values()), sorted(Counter(element.process[2:]).values())]
        assert same[0] == same[1]


def points(legs: int, n: int = 20) -> tuple[Tensor, Tensor]:
    space = RamboOnDiet([0.0] * legs)
    u = torch.rand(n, space.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    beams = u.new_tensor([[250.0, 0, 0, 250.0], [250.0, 0, 0, -250.0]]).expand(n, 2, 4)
    return beams.contiguous(), space.forward(u, 500.0)[0]


def by_flavour(amplitude: Amplitude, momenta: Tensor) -> dict[tuple[int, ...], Tensor]:
    """|M|^2 without CKM factors by flavours; leptons and partons in the order of the amplitude."""
    values = amplitude.squared(momenta[:, :2], momenta[:, 2:], momenta.new_full((len(momenta),), 0.118))
    return {(*s.initial, *s.final): values[:, s.element] for s in amplitude.subprocesses}


def sorted_legs(codes: tuple[int, ...], known: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The order of the final legs under which the flavours are known to the other amplitude."""
    for order in itertools.permutations(range(2, len(codes))):
        if (*codes[:2], *(codes[place] for place in order)) in known:
            return (0, 1, *order)
    raise AssertionError(f"{codes} is unknown")


def look_up(codes: tuple[int, ...], momenta: Tensor, amplitudes: list[Amplitude]) -> Tensor:
    for amplitude in amplitudes:
        known = {(*s.initial, *s.final) for s in amplitude.subprocesses}
        try:
            order = sorted_legs(codes, known)
        except AssertionError:
            continue
        return by_flavour(amplitude, momenta[:, list(order)])[tuple(codes[place] for place in order)]
    raise AssertionError(f"{expression(codes)} is unknown to every amplitude")


@pytest.mark.parametrize(
    ("process", "amplitudes"),
    [
        ("p p > e+ ve j", [VectorJet(ChargedCurrent(+1)), VectorJet(ChargedCurrent(-1))]),
        ("p p > e- ve~ j", [VectorJet(ChargedCurrent(+1)), VectorJet(ChargedCurrent(-1))]),
        ("p p > e- e+ j", [VectorJet(NeutralCurrent())]),
        ("p p > j j", [Qcd()]),
    ],
)
def test_the_symmetries_hold_for_known_matrix_elements(process: str, amplitudes: list[Amplitude]) -> None:
    table = flavour_table(process, MODEL)
    incoming, outgoing = points(len(table.legs.final))
    momenta = torch.cat([incoming, outgoing], 1)
    for one in table.subprocesses:
        element = table.elements[one.element]
        moved = momenta[:, list(element.permutation)].clone()
        if element.conjugated:
            moved[..., 2] *= -1
        direct = look_up((*one.initial, *one.final), momenta, amplitudes)
        assert torch.allclose(look_up(element.process, moved, amplitudes), direct, rtol=1e-10, atol=0)


def test_a_wrong_permutation_would_be_seen() -> None:
    amplitudes: list[Amplitude] = [VectorJet(ChargedCurrent(+1))]
    incoming, outgoing = points(3)
    momenta = torch.cat([incoming, outgoing], 1)
    direct = look_up((2, 21, -11, 12, 1), momenta, amplitudes)
    swapped = look_up((2, 21, -11, 12, 1), momenta[:, [0, 1, 3, 2, 4]], amplitudes)
    assert not torch.allclose(swapped, direct, rtol=1e-2)


def test_w_plus_and_w_minus_are_generated_once() -> None:
    plus, minus = (flavour_table(f"p p > {leptons} j j j", MODEL) for leptons in ("e+ ve", "e- ve~"))
    assert plus.generated == minus.generated


def test_a_massive_tau_keeps_its_place() -> None:
    table = flavour_table("p p > ta+ vt j", MODEL)
    for element in table.elements:
        tau = element.process.index(-15 if -15 in element.process else 15)
        assert element.permutation[tau] == 2
    assert len(table.generated) == 3


def test_several_w_bosons_conserve_generations() -> None:
    table = flavour_table("p p > W+ W-", MODEL)
    assert {s.initial for s in table.subprocesses} == {(s * q, -s * q) for q in QUARKS for s in (1, -1)}
    top = flavour_table("p p > t W-", MODEL)
    assert top.generated == ((5, 21, 6, -24),)
    assert {(s.initial, s.factor) for s in top.subprocesses if s.initial[1] == 21} == {
        ((d, 21), MODEL.ckm_squared(6, d)) for d in (1, 3, 5)
    }


def refusal(process: str) -> str:
    with pytest.raises(AmplitudeError) as caught:
        flavour_table(process, MODEL)
    return str(caught.value)


def test_refusals_name_what_is_wrong() -> None:
    assert "electroweak exchange between quark lines" in refusal("p p > t j")
    assert "electroweak exchange between quark lines" in refusal("p p > H j j")
    assert "no flavour combination" in refusal("u u~ > W+ g")
    assert "unknown particle 'x'" in refusal("p p > x j")
    assert "limits couplings" in refusal("p p > e+ ve j j QED=4")
    assert "two incoming" in refusal("p > e+ ve")
    assert "at least two outgoing" in refusal("p p > Z")


def test_names_are_read_in_either_case_and_written_as_pyamplicol_does() -> None:
    legs = parse_process("U d~ > w+ G")
    assert legs.final == ((24,), (21,))
    assert legs.alpha_s_power == 1
    assert expression((2, -1, 24, 21)) == "u d~ > W+ g"
    assert len(set(CODES.values())) == len(CODES)


def test_leptonic_initial_states_have_no_strong_power() -> None:
    table: FlavourTable = flavour_table("e- e+ > mu- mu+", MODEL)
    assert table.legs.alpha_s_power == 0
    assert [s.initial for s in table.subprocesses] == [(11, -11)]
