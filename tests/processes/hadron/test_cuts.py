"""Cuts: masks against their definition, finite along the beam, and every contradiction refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nisampler.errors import ConfigError
from nisampler.processes.hadron.cuts import (
    Cuts,
    MassCut,
    MissingTransverseMomentumCut,
    PseudorapidityCut,
    SeparationCut,
    TransverseMomentumCut,
    separation2,
)
from nisampler.processes.phase_space.kinematics import delta_r, eta, mass, pt

SQRT_S = 13000.0


def momenta(n=500, legs=4, seed=2):
    generator = torch.Generator().manual_seed(seed)
    space = 60 * torch.randn(n, legs, 3, dtype=torch.float64, generator=generator)
    return torch.cat([space.norm(dim=-1, keepdim=True), space], -1)


CASES = {
    "pT": (TransverseMomentumCut((2, 3), 30.0, 150.0), lambda p: ((pt(p) >= 30) & (pt(p) <= 150))[:, 2:].all(1)),
    "eta": (PseudorapidityCut((0, 3), 1.1), lambda p: (eta(p)[:, [0, 3]].abs() < 1.1).all(1)),
    "Delta R": (
        SeparationCut((1, 2, 3), 1.3),
        lambda p: torch.stack([delta_r(p[:, a], p[:, b]) > 1.3 for a, b in ((1, 2), (1, 3), (2, 3))], 1).all(1),
    ),
    "mass": (MassCut((0, 1), 50.0, 120.0), lambda p: (mass(p[:, :2].sum(1)) > 50) & (mass(p[:, :2].sum(1)) < 120)),
    "missing pT": (MissingTransverseMomentumCut((1,), 40.0), lambda p: pt(p[:, 1]) >= 40),
}


@pytest.mark.parametrize("name", CASES)
def test_masks_are_the_definitions(name):
    cut, definition = CASES[name]
    p = momenta()
    found = Cuts([cut], SQRT_S).mask(p)
    assert found.dtype == torch.bool and found.equal(definition(p))
    assert 0 < int(found.sum()) < len(p)


def test_cuts_multiply_and_none_lets_all_pass():
    p = momenta()
    every = [cut for cut, _ in CASES.values()]
    each = torch.stack([Cuts([cut], SQRT_S).mask(p) for cut in every]).all(0)
    assert Cuts(every, SQRT_S).mask(p).equal(each)
    assert Cuts([], SQRT_S).mask(p).all()


def test_a_leg_along_the_beam_fails_without_a_warning():
    p = torch.tensor([[[5.0, 0.0, 0.0, 5.0], [5.0, 3.0, 0.0, 4.0]]], dtype=torch.float64)
    assert not PseudorapidityCut((0,), 400.0).mask(p).any()
    assert torch.isfinite(separation2(p[:, 0], p[:, 1])).all()
    assert not torch.isnan(separation2(p[:, 0], p[:, 0])).any()


@given(st.floats(-3, 3), st.floats(0, 6.28), st.floats(0.1, 500), st.floats(-3, 3), st.floats(-3, 3))
def test_distance_survives_rotation_and_boost_along_the_beam(rapidity, turn, scale, y1, y2):
    def leg(pt_, y, phi):
        components = [pt_ * math.cosh(y), pt_ * math.cos(phi), pt_ * math.sin(phi), pt_ * math.sinh(y)]
        return torch.tensor(components, dtype=torch.float64)

    before = separation2(leg(20.0, y1, 0.3), leg(30.0, y2, 2.0))
    after = separation2(leg(20.0 * scale, y1 + rapidity, 0.3 + turn), leg(30.0, y2 + rapidity, 2.0 + turn))
    torch.testing.assert_close(before, after, rtol=1e-8, atol=1e-8)


CONTRADICTIONS = {
    "empty pT window": (lambda: [TransverseMomentumCut((0,), 50.0, 20.0)], "empty window"),
    "negative pT": (lambda: [TransverseMomentumCut((0,), -1.0)], "minimum = -1.0: must be"),
    "empty mass window": (lambda: [MassCut((0, 1), 100.0, 60.0)], "empty window"),
    "negative eta": (lambda: [PseudorapidityCut((0,), -2.5)], "maximum = -2.5: must be"),
    "negative Delta R": (lambda: [SeparationCut((0, 1), -0.4)], "minimum = -0.4: must be"),
    "negative missing pT": (lambda: [MissingTransverseMomentumCut((0,), -5.0)], "minimum = -5.0: must be"),
    "nothing invisible": (lambda: [MissingTransverseMomentumCut((), 20.0)], "no leg is invisible"),
    "pT above the limit": (lambda: [TransverseMomentumCut((0,), 6600.0)], "kinematic limit"),
    "missing pT above the limit": (lambda: [MissingTransverseMomentumCut((0,), 6600.0)], "kinematic limit"),
    "sum of pT": (lambda: [TransverseMomentumCut((0, 1, 2), 5000.0)], "add up to"),
    "mass above the energy": (lambda: [MassCut((0, 1), 14000.0)], "above the energy"),
    "two windows apart": (
        lambda: [TransverseMomentumCut((0, 1), 50.0), TransverseMomentumCut((1, 2), 0.0, 30.0)],
        "leg 1 needs",
    ),
    "Delta R wider than eta": (lambda: [PseudorapidityCut((0, 1), 1.0), SeparationCut((0, 1), 4.0)], "cannot exceed"),
    "pair mass below pT and Delta R": (
        lambda: [TransverseMomentumCut((0, 1), 50.0), SeparationCut((0, 1), 1.0), MassCut((0, 1), 0.0, 40.0)],
        "by pT and Delta R",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(name):
    cuts, message = CONTRADICTIONS[name]
    with pytest.raises(ConfigError, match=message if "must be" in message else "contradictory cuts.*" + message):
        Cuts(cuts(), SQRT_S)


def test_what_just_works_is_accepted():
    Cuts([TransverseMomentumCut((0, 1), 50.0), SeparationCut((0, 1), 1.0), MassCut((0, 1), 0.0, 50.0)], SQRT_S)
    Cuts([PseudorapidityCut((0, 1), 1.0), SeparationCut((0, 1), 3.7)], SQRT_S)
