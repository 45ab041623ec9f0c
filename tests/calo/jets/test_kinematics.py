"""pT, mass and energy-flow polynomials against plain formulas, brute force and FastJet."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from small_jets import small_jets

from nisampler.calo.jets.kinematics import EFPS, calibrated, efps, features, totals

GRAPHS = {
    "square": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "triangle with a tail": [(0, 1), (1, 2), (2, 0), (0, 3)],
    "path, end doubled": [(0, 1), (0, 1), (1, 2), (2, 3)],
    "path, middle doubled": [(0, 1), (1, 2), (1, 2), (2, 3)],
    "star, a ray doubled": [(0, 1), (0, 1), (0, 2), (0, 3)],
}


def test_polynomials_are_the_sums_of_their_definition() -> None:
    jets = small_jets(3, most=5)
    found = efps(jets.constituents)
    assert tuple(GRAPHS) == EFPS
    for jet, row in zip(jets.constituents.astype(float), found, strict=True):
        for value, edges in zip(row, GRAPHS.values(), strict=True):
            total = 0.0
            for chosen in product(range(len(jet)), repeat=4):
                term = np.prod(jet[list(chosen), 2])
                for first, second in edges:
                    term *= np.hypot(*(jet[chosen[first], :2] - jet[chosen[second], :2]))
                total += term
            assert value == pytest.approx(total, rel=1e-9)


def test_masked_places_count_nothing_whatever_their_number() -> None:
    jets = small_jets(40, most=6)
    wider = np.pad(jets.constituents, ((0, 0), (0, 30), (0, 0)))
    np.testing.assert_allclose(efps(wider), efps(jets.constituents), rtol=1e-12)
    np.testing.assert_allclose(totals(wider), totals(jets.constituents), rtol=1e-12)


def test_pt_and_mass_are_those_of_fastjet() -> None:
    fastjet = pytest.importorskip("fastjet", exc_type=ImportError)
    jets = small_jets(20)
    pt, mass = totals(jets.constituents)
    for index, (points, mask) in enumerate(zip(jets.constituents.astype(float), jets.mask, strict=True)):
        total = fastjet.PseudoJet(0.0, 0.0, 0.0, 0.0)
        for eta, phi, share in points[mask]:
            total = fastjet.join(total, fastjet.PtYPhiM(share, eta, phi, 0.0))
        assert pt[index] == pytest.approx(total.pt(), rel=1e-6)
        assert mass[index] == pytest.approx(total.m(), rel=1e-6)


def test_the_mass_of_two_equal_constituents_is_known() -> None:
    """m^2 = 2 pT1 pT2 (cosh Δη - cos Δφ)."""
    points = np.array([[[0.3, 0.1, 0.7], [-0.2, -0.4, 0.2]]], dtype=np.float32)
    expected = np.sqrt(2 * 0.7 * 0.2 * (np.cosh(0.5) - np.cos(0.5)))
    assert totals(points)[1][0] == pytest.approx(expected, rel=1e-6)
    assert totals(points[:, :1])[1][0] == pytest.approx(0.0, abs=1e-6)


def test_calibrated_jets_have_the_pt_and_mass_that_were_asked_for() -> None:
    jets = small_jets(200)
    pt, mass = totals(jets.constituents)
    rng = np.random.default_rng(1)
    wanted_pt, wanted_mass = pt * rng.uniform(0.9, 1.1, 200), mass * rng.uniform(0.7, 1.4, 200)
    assert np.abs(mass / wanted_mass - 1).max() > 0.3
    found_pt, found_mass = totals(calibrated(jets.constituents, wanted_pt, wanted_mass))
    np.testing.assert_allclose(found_pt, wanted_pt, rtol=1e-5)
    np.testing.assert_allclose(found_mass, wanted_mass, rtol=1e-3)


def test_masses_out_of_reach_are_approached() -> None:
    jets = small_jets(20)
    pt, mass = totals(jets.constituents)
    made = calibrated(jets.constituents, pt, 10 * mass)
    assert np.isfinite(made).all() and np.all(totals(made)[1] > 1.5 * mass)
    assert not calibrated(np.zeros((1, 3, 3), dtype=np.float32), np.ones(1), np.ones(1)).any()


def test_features_tell_one_prong_from_three() -> None:
    jets = small_jets(400)
    table = features(jets)
    assert table.shape == (400, 8) and np.isfinite(table).all()
    means = [table[jets.types == kind].mean(axis=0) for kind in (0, 2)]
    assert np.all(means[1][[0, 3, 4]] > 2 * means[0][[0, 3, 4]])
