"""Squared matrix elements and colour flows of the hadron-collider processes against pyamplicol's, point by point."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nisampler.events.columns import FIRST_COLOUR_TAG
from nisampler.processes.amplitudes.currents import ChargedCurrent, NeutralCurrent
from nisampler.processes.amplitudes.drell_yan import DrellYan
from nisampler.processes.amplitudes.qcd import Qcd
from nisampler.processes.amplitudes.top_pair import TopPair
from nisampler.processes.amplitudes.tree import TreeAmplitude
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.parameters import StandardModel

DATA = Path(__file__).parent / "data" / "hadron_pyamplicol.json"
UNIT_CKM = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CURRENTS = {"z": NeutralCurrent, "w_plus": partial(ChargedCurrent, 1), "w_minus": partial(ChargedCurrent, -1)}
REFERENCES: list[dict[str, Any]] = json.loads(DATA.read_text())["points"]
PROCESSES = list(dict.fromkeys(r["process"] for r in REFERENCES))


def amplitude_of(reference: dict[str, Any], **changes: float) -> TreeAmplitude:
    model = StandardModel(**(reference["model"] | changes), ckm=UNIT_CKM)
    name = reference["amplitude"]
    if name in ("qcd", "top_pair"):
        return Qcd() if name == "qcd" else TopPair(model)
    current = CURRENTS[name.removesuffix("_jet")](model=model)
    return VectorJet(current) if name.endswith("_jet") else DrellYan(current)


def element_of(amplitude: TreeAmplitude, initial: list[int], final: list[int]) -> int:
    (found,) = (s for s in amplitude.subprocesses if [list(s.initial), list(s.final)] == [initial, final])
    assert found.factor == 1
    return found.element


def momenta_of(reference: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    momenta = torch.tensor(reference["momenta"], dtype=torch.float64)
    alpha_s = torch.full((len(momenta),), reference["alpha_s"], dtype=torch.float64)
    return momenta[:, :2], momenta[:, 2:], alpha_s


def ratios(reference: dict[str, Any], initial: list[int] | None = None, **changes: float) -> torch.Tensor:
    amplitude = amplitude_of(reference, **changes)
    element = element_of(amplitude, initial or reference["initial"], reference["final"])
    values = amplitude.squared(*momenta_of(reference))[:, element]
    return values / torch.tensor(reference["squared"], dtype=torch.float64)


def test_the_references_cover_every_amplitude() -> None:
    assert len(PROCESSES) == 24
    assert sum(len(r["squared"]) for r in REFERENCES) == 24 * 9
    assert {r["amplitude"] for r in REFERENCES} >= {"z", "z_jet", "w_plus_jet", "w_minus_jet", "top_pair", "qcd"}


@pytest.mark.parametrize("process", PROCESSES)
def test_squared_matrix_elements_agree_with_pyamplicol(process: str) -> None:
    for reference in (r for r in REFERENCES if r["process"] == process):
        values = ratios(reference)
        assert torch.allclose(values, torch.ones_like(values), rtol=1e-9, atol=0)


@pytest.mark.parametrize("process", PROCESSES)
def test_swapped_beams_give_the_element_of_the_other_order(process: str) -> None:
    for reference in (r for r in REFERENCES if r["process"] == process):
        incoming, outgoing, alpha_s = momenta_of(reference)
        initial, final = reference["initial"], reference["final"]
        if reference["amplitude"] == "qcd" and sorted(initial) == sorted(final):
            outgoing, final = outgoing.flip(1), final[::-1]
        amplitude = amplitude_of(reference)
        values = amplitude.squared(incoming.flip(1), outgoing, alpha_s)[:, element_of(amplitude, initial[::-1], final)]
        assert torch.allclose(values, torch.tensor(reference["squared"], dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("process", ["u u~ > e- e+", "u d~ > e+ ve", "d u~ > e- ve~ g", "u g > e- e+ u", "u g > u g"])
def test_the_comparison_sees_beams_in_the_wrong_order(process: str) -> None:
    for reference in (r for r in REFERENCES if r["process"] == process):
        if "g" in process.split(">")[0]:
            reference = reference | {"momenta": [[p[1], p[0], *p[2:]] for p in reference["momenta"]]}
            assert (ratios(reference) - 1).abs().min() > 1e-3
        else:
            assert (ratios(reference, reference["initial"][::-1]) - 1).abs().min() > 1e-3


def test_the_comparison_sees_wrong_parameters() -> None:
    changes = {"z": {"sin2_theta_w": 0.24}, "w_plus_jet": {"mass_w": 80.419}, "top_pair": {"mass_top": 170.0}}
    for reference in REFERENCES:
        if reference["amplitude"] in changes:
            assert (ratios(reference, **changes[reference["amplitude"]]) - 1).abs().max() > 1e-7


def lines_of_word(word: list[int], closed: bool) -> frozenset[tuple[int, int]]:
    """Colour lines (leg of the colour, leg of the anticolour), legs from 0, all outgoing, of a word of pyamplicol's."""
    ends = [*word[1:], word[0]] if closed else word[1:]
    return frozenset((a - 1, b - 1) for a, b in zip(word, ends, strict=False))


def lines_of_tags(tags: list[list[int]]) -> frozenset[tuple[int, int]]:
    """The same of Les Houches tags: the colour of an incoming leg is an outgoing anticolour."""
    starts = {pair[0 if leg > 1 else 1]: leg for leg, pair in enumerate(tags)}
    ends = {pair[1 if leg > 1 else 0]: leg for leg, pair in enumerate(tags)}
    assert starts.keys() - {0} == ends.keys() - {0} == set(range(FIRST_COLOUR_TAG, max(starts) + 1))
    return frozenset((starts[tag], ends[tag]) for tag in starts if tag)


@pytest.mark.parametrize("process", [r["process"] for r in REFERENCES[::3] if r["flows"]])
def test_colour_flows_agree_with_pyamplicol(process: str) -> None:
    for reference in (r for r in REFERENCES if r["process"] == process):
        amplitude = amplitude_of(reference)
        element = element_of(amplitude, reference["initial"], reference["final"])
        weights, tags = amplitude.colour_flows(element, *momenta_of(reference))
        expected = torch.tensor(reference["flows"]["fractions"], dtype=torch.float64)
        words = [lines_of_word(word, process == "g g > g g") for word in reference["flows"]["words"]]
        order = [words.index(lines_of_tags(flow)) for flow in tags.tolist()]
        assert sorted(order) == list(range(len(words)))
        assert torch.allclose(weights / weights.sum(1, keepdim=True), expected[:, order], rtol=1e-9)
