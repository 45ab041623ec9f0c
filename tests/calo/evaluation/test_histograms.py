"""Separation by hand, pieces against one go, what lies outside, the binning of the challenge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from windows import ks_accepts

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts, Difference, chi_square, separation, wasserstein
from nisampler.calo.evaluation.quantities import quantities, spectrum_axis
from nisampler.errors import ShapeError, ShowerDataError
from nisampler.ui.histograms import Axis

AXIS = Axis("x", "$x$", np.array([0.0, 1.0, 2.0, 4.0]))


def counts(*values: float, axis: Axis = AXIS) -> Counts:
    made = Counts(axis)
    made.fill(np.array(values))
    return made


def random_features(known: Geometry, n: int = 20) -> Features:
    rng = np.random.default_rng(0)
    voxels = rng.lognormal(1.0, 2.0, (n, known.n_voxels)).astype(np.float32)
    return Features.of(Showers(known.incident.sample(n, rng), voxels), known)


def test_bins_are_closed_below_and_the_last_at_both_ends() -> None:
    made = counts(-0.1, 0.0, 0.5, 1.0, 2.0, 3.9, 4.0, 4.1, np.inf)
    assert made.inside.tolist() == [2, 1, 3]
    assert (made.under, made.over, made.total) == (1, 2, 9)
    assert made.outside == pytest.approx(3 / 9)
    expected, _ = np.histogram([-0.1, 0.0, 0.5, 1.0, 2.0, 3.9, 4.0, 4.1], AXIS.edges)
    assert made.inside.tolist() == expected.tolist()


def test_separation_by_hand() -> None:
    # shares (1/2, 1/4, 1/4) and (1/4, 0, 3/4): ((1/4)^2/(3/4) + 1/4 + (1/2)^2/1) / 2 = (1/12 + 1/4 + 1/4) / 2
    first, second = counts(0.1, 0.2, 1.5, 3.0), counts(0.3, 2.5, 3.0, 3.5)
    assert separation(first, second) == pytest.approx(7 / 24)
    assert separation(second, first) == pytest.approx(7 / 24)


def test_separation_is_0_for_one_shape_and_1_without_overlap() -> None:
    first = counts(0.5, 1.5, 1.5)
    assert separation(first, counts(0.2, 0.3, 1.1, 1.2, 1.3, 1.4)) == pytest.approx(0.0)
    assert separation(first, counts(3.0)) == pytest.approx(1.0)
    assert separation(first, Counts(AXIS)) == 1.0
    assert separation(Counts(AXIS), Counts(AXIS)) == 0.0


def test_what_lies_outside_does_not_change_the_separation_but_is_reported() -> None:
    first, second = counts(0.5, 1.5), counts(0.5, 1.5, 9.0, -3.0)
    found = Difference.between(first, second)
    assert found.separation == 0.0
    assert found.outside == (0.0, 0.5)


@given(st.integers(0, 10_000), st.integers(1, 7))
def test_pieces_are_one_go(seed: int, pieces: int) -> None:
    values = np.random.default_rng(seed).normal(1.5, 1.5, 200)
    whole, merged = counts(*values), Counts(AXIS)
    for part in np.array_split(values, pieces):
        merged.merge(counts(*part))
    assert merged.inside.tolist() == whole.inside.tolist()
    assert (merged.under, merged.over) == (whole.under, whole.over)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_separation_and_chi_square_have_their_bounds(first: list[int], second: list[int]) -> None:
    a, b = (Counts(AXIS) for _ in range(2))
    a.inside, b.inside = np.array(first), np.array(second)
    assert 0.0 <= separation(a, b) <= 1.0 + 1e-12
    assert separation(a, b) == pytest.approx(separation(b, a))
    chi2, degrees = chi_square(a, b)
    assert chi2 >= 0.0
    assert degrees <= 2


def test_chi_square_of_two_samples_of_one_law_follows_its_law() -> None:
    rng = np.random.default_rng(0)
    axis = Axis("x", "$x$", np.linspace(-2.0, 2.0, 11))
    found = [chi_square(counts(*rng.normal(size=400), axis=axis), counts(*rng.normal(size=900), axis=axis))
             for _ in range(200)]  # fmt: skip
    assert {degrees for _, degrees in found} == {9}
    assert ks_accepts([chi2 for chi2, _ in found], stats.chi2(9).cdf)
    shifted, _ = chi_square(counts(*rng.normal(size=400), axis=axis), counts(*rng.normal(1.0, 1, 900), axis=axis))
    assert shifted > 2 * stats.chi2(9).isf(1e-4)


def test_density_integrates_to_the_share_inside() -> None:
    made = counts(0.5, 1.5, 3.0, 9.0)
    density, error = made.density()
    assert float((density * np.diff(AXIS.edges)).sum()) == pytest.approx(0.75)
    np.testing.assert_allclose(error, density)
    log = counts(2.0, 20.0, axis=Axis("e", "E", np.array([1.0, 10.0, 1000.0]), log=True))
    np.testing.assert_allclose(log.density()[0], [0.5, 0.25])


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    values = np.random.default_rng(0).normal(size=500)
    distance, scaled = wasserstein(values, values + 0.3)
    assert distance == pytest.approx(0.3)
    assert scaled == pytest.approx(0.3 / values.std())
    assert wasserstein(np.ones(4), np.ones(3)) == (0.0, 0.0)


def test_wrong_values_and_bins_are_refused() -> None:
    with pytest.raises(ShowerDataError, match="1 of 2 values are NaN"):
        counts(0.5, np.nan)
    other = counts(0.5, axis=Axis("x", "$x$", np.array([0.0, 1.0, 2.0, 5.0])))
    for act in (lambda: separation(counts(0.5), other), lambda: counts(0.5).merge(other)):
        with pytest.raises(ShapeError, match="different bins"):
            act()


@pytest.mark.parametrize(
    ("name", "quantity", "bins", "low", "high"),
    [
        ("ds1-photons", "response", 100, 0.5, 1.5),
        ("ds1-photons", "eta_1", 100, -100, 100),
        ("ds1-photons", "eta_width_2", 100, 0, 100),
        ("ds1-photons", "r_2", 100, 0, 500),
        ("ds1-photons", "r_12", 100, 0, 1500),
        ("ds1-pions", "phi_13", 100, -500, 500),
        ("ds1-pions", "phi_width_12", 100, 0, 400),
        ("ds1-pions", "r_width_14", 100, 0, 1500),
        ("ds2", "eta_20", 100, -30, 30),
        ("ds2", "eta_width_20", 100, 0, 30),
        ("ds2", "r_44", 100, 0, 42),
        ("ds2", "r_width_0", 100, 0, 20),
        ("ds2", "sparsity_3", 20, 0, 1),
    ],
)
def test_bins_of_the_challenge(name: str, quantity: str, bins: int, low: float, high: float) -> None:
    known = geometry(name)
    axis = {item.name: item.axis for item in quantities(random_features(known), known)}[quantity]
    assert len(axis.edges) == bins + 1
    assert (axis.edges[0], axis.edges[-1]) == (low, high)


@pytest.mark.parametrize("name", sorted(GEOMETRIES))
def test_every_geometry_has_bins(name: str) -> None:
    known = geometry(name)
    features = random_features(known)
    found = quantities(features, known)
    assert len({item.name for item in found}) == len(found)
    for item in found:
        values = item.values(features)
        assert values.shape == (len(features),)
        assert (np.diff(item.axis.edges) > 0).all()
        if item.family == "energy":
            made = Counts(item.axis)
            made.fill(values)
            assert len(made.inside) == 39
            assert made.over == 0
    assert spectrum_axis(features, known).edges[-1] == pytest.approx(features.hottest.max())
    assert len(spectrum_axis(features, known).edges) == 50


def test_an_empty_layer_has_bins_and_features_of_others_none() -> None:
    known = geometry("toy")
    empty = Features.of(Showers(np.array([1e3, 2e3]), np.zeros((2, known.n_voxels))), known)
    for item in quantities(empty, known):
        assert (np.diff(item.axis.edges) > 0).all()
    with pytest.raises(ShapeError, match="layers"):
        quantities(empty, geometry("ds2"))
