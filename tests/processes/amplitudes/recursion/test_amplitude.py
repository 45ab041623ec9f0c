"""Matrix elements of process strings: against those written by hand, with their flows and spins."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.currents import ChargedCurrent, NeutralCurrent
from nisampler.processes.amplitudes.drell_yan import DrellYan
from nisampler.processes.amplitudes.qcd import Qcd
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.build import Recursion
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.recursion.skeleton import strong_powers
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.top_pair import TopPair
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import conjugate

BY_HAND = {
    "p p > e- e+": lambda: DrellYan(NeutralCurrent()),
    "p p > e- ve~": lambda: DrellYan(ChargedCurrent(-1)),
    "p p > e- e+ j": lambda: VectorJet(NeutralCurrent()),
    "p p > e+ ve j": lambda: VectorJet(ChargedCurrent(1)),
    "p p > t t~": TopPair,
    "p p > j j": Qcd,
}
ALPHA_S = torch.tensor([0.09, 0.118, 0.13], dtype=torch.float64)


def points(amplitude: RecursiveAmplitude) -> tuple[torch.Tensor, torch.Tensor]:
    masses = [173.0 if abs(codes[0]) == 6 else 0.0 for codes in amplitude.table.legs.final]
    p = probe_momenta([0.0, 0.0, *masses])
    return p[:, :2], p[:, 2:]


def by_flavour(amplitude: Any, incoming: torch.Tensor, outgoing: torch.Tensor) -> dict[Any, torch.Tensor]:
    """Values of each combination of flavours; those of jets in any order are added."""
    values = amplitude.squared(incoming, outgoing, ALPHA_S)
    return {(s.initial, s.final): s.factor * values[:, s.element] for s in amplitude.subprocesses}


@pytest.mark.parametrize("process", [name for name in BY_HAND if name != "p p > j j"])
def test_matrix_elements_written_by_hand(process: str) -> None:
    amplitude = RecursiveAmplitude(process, StandardModel())
    at = points(amplitude)
    found, wanted = by_flavour(amplitude, *at), by_flavour(BY_HAND[process](), *at)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key], value, rtol=1e-10, atol=0.0), key


def test_two_jets() -> None:
    """Which jet has which flavour is a choice, so both orders are added."""
    amplitude = RecursiveAmplitude("p p > j j")
    incoming, outgoing = points(amplitude)
    sums: list[dict[Any, torch.Tensor]] = []
    for which in (amplitude, Qcd()):
        total: dict[Any, torch.Tensor] = {}
        for final in (outgoing, outgoing.flip(1)):
            for (initial, codes), value in by_flavour(which, incoming, final).items():
                key = (initial, tuple(sorted(codes)))
                total[key] = total.get(key, 0) + value
        sums.append(total)
    assert sums[0].keys() == sums[1].keys()
    for key, value in sums[1].items():
        assert torch.allclose(sums[0][key], value, rtol=1e-10, atol=0.0), key


@pytest.mark.parametrize("process", ["p p > e+ ve j j", "p p > t t~ j", "p p > e- e+ j j"])
def test_every_combination_is_that_of_its_own_recursion(process: str) -> None:
    """Symmetries of the table, CP and permutations, against the process itself, for some combinations."""
    amplitude = RecursiveAmplitude(process)
    incoming, outgoing = points(amplitude)
    values = amplitude.squared(incoming, outgoing, ALPHA_S)
    couplings = Couplings(amplitude.model)
    jets = amplitude.legs.jets
    for item in amplitude.subprocesses[::17]:
        orders = len(set(itertools.permutations(item.final[leg] for leg in jets)))
        unit = MatrixElement(item.initial, item.final, couplings, {amplitude.table.legs.alpha_s_power})
        own = unit.squared(torch.cat([incoming, outgoing], 1), ALPHA_S)
        assert torch.allclose(orders * item.factor * values[:, item.element], own, rtol=1e-9, atol=0.0), item


@pytest.mark.parametrize("process", ["p p > e+ ve j", "p p > t t~ j", "p p > e- ve~ j j"])
def test_flows_carry_every_colour_from_one_leg_to_another(process: str) -> None:
    amplitude = RecursiveAmplitude(process)
    incoming, outgoing = points(amplitude)
    for element in range(amplitude.elements):
        weights, tags = amplitude.colour_flows(element, incoming, outgoing, ALPHA_S)
        assert weights.shape == (3, len(tags)) and bool((weights > 0).any(1).all())
        sub = next(item for item in amplitude.subprocesses if item.element == element)
        for flow in tags.tolist():
            codes = (*sub.initial, *sub.final)
            for leg, code in enumerate(codes):
                has = (flow[leg][0] > 0, flow[leg][1] > 0)
                assert has == ((True, True) if code == 21 else (0 < code < 7, -7 < code < 0)), (codes, flow)
            starts = sorted(flow[leg][0 if leg > 1 else 1] for leg in range(len(codes)))
            ends = sorted(flow[leg][1 if leg > 1 else 0] for leg in range(len(codes)))
            assert starts == ends


def test_spins_where_a_boson_selects_them() -> None:
    amplitude = RecursiveAmplitude("p p > e+ ve j")
    at = (*points(amplitude), ALPHA_S)
    for item in amplitude.subprocesses:
        spins = amplitude.spins(item.element, *at)[0].tolist()
        codes = (*item.initial, *item.final)
        assert spins == [UNKNOWN_SPIN if c == 21 else -1.0 if c > 0 else 1.0 for c in codes], codes


def test_errors() -> None:
    amplitude = RecursiveAmplitude("p p > e+ ve")
    incoming, outgoing = points(amplitude)
    with pytest.raises(AmplitudeError, match="elements 0 to 1, got 2"):
        amplitude.colour_flows(2, incoming, outgoing, ALPHA_S)
    with pytest.raises(ShapeError, match=r"\(n, 2, 4\)"):
        amplitude.squared(incoming, outgoing[:, :1], ALPHA_S)


WRONG = {
    "p p > e+ xx": "unknown particle 'xx'",
    "p p > e+ e+": "no choice of flavours conserves charge",
    "g g > h h QCD=2": "no vertices of the Standard Model join these particles at tree level",
    "p p > w+ w+ j j QED=1": "no amplitude has these orders; there are QCD=0 QED=4, QCD=2 QED=2",
    "p p > w+ w+ j j QCD==1": "no amplitude has these orders",
    "p p > w+ w+ j j QCD=0 QCD=2": "limits the same coupling twice",
    "p p > w+ > e+ ve": "a process reads",
    "p p > e+ ve / z": "neither a particle nor a limit on couplings such as QCD=0",
}


@pytest.mark.parametrize("process", WRONG)
def test_processes_that_do_not_exist(process: str) -> None:
    with pytest.raises(AmplitudeError, match=re.escape(WRONG[process])):
        RecursiveAmplitude(process)


ANY_ORDERS = ["p p > w+ w+ j j QCD=0", "p p > z j j QED=3", "p p > t j QCD=0", "p p > l+ l- h", "e+ e- > w+ w- a"]


@pytest.mark.parametrize("process", ANY_ORDERS)
def test_combinations_of_any_orders_are_those_of_their_own_recursion(process: str) -> None:
    amplitude = RecursiveAmplitude(process)
    unit = Couplings(replace(amplitude.model, ckm=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))))
    first = amplitude.subprocesses[0]
    masses = [unit.mass(code) for code in (*first.initial, *first.final)]
    p = probe_momenta(masses)
    values = amplitude.squared(p[:, :2], p[:, 2:], ALPHA_S)
    total = len(masses) - 2
    for item in amplitude.subprocesses[:: 1 + len(amplitude.subprocesses) // 12]:
        codes = [conjugate(code) for code in item.initial] + list(item.final)
        orders = amplitude.table.legs.orders.powers(total) & strong_powers(codes, Vertices(unit))
        powers = orders if amplitude.table.legs.orders.given else {max(orders)}
        own = MatrixElement(item.initial, item.final, unit, powers).squared(p, ALPHA_S)
        assert torch.allclose(values[:, item.element], own, rtol=1e-9, atol=0.0), item
    assert amplitude.elements < len(amplitude.subprocesses) or len(amplitude.subprocesses) < 5


def test_powers_agree_with_the_recursion() -> None:
    couplings = Couplings(StandardModel().on_shell())
    for codes in ((2, 2, 24, 24, 1, 1), (2, -2, 6, -6, 21), (21, 21, 25, 6, -6), (2, -2, 24, -24)):
        outgoing = [conjugate(code) for code in codes[:2]] + list(codes[2:])
        recursion = Recursion(outgoing, couplings, [(None,)] * len(codes), set(range(len(codes) - 1)))
        found = {output.strong for output in recursion.outputs}
        assert found == strong_powers(outgoing, Vertices(couplings)), codes


def test_scalar_pairs_of_two_generations_share_their_elements() -> None:
    amplitude = RecursiveAmplitude("p p > h j j QCD=0")
    flavours = {(item.initial, item.final) for item in amplitude.subprocesses}
    assert ((2, 1), (25, 1, 2)) in flavours and ((4, 3), (25, 3, 4)) in flavours
    by_codes = {(item.initial, item.final): item.element for item in amplitude.subprocesses}
    assert by_codes[(2, 1), (25, 1, 2)] == by_codes[(4, 3), (25, 3, 4)]
    assert by_codes[(2, 1), (25, 1, 2)] != by_codes[(2, 2), (25, 2, 2)]
