"""The GFLASH profiles: normalisation, means, correlations, hand-computed values, and no NaN at low energy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from nisampler.calo.detector.media import LEAD, SILICON, TUNGSTEN, Medium, mixture, sampling_medium
from nisampler.calo.simulation.gflash import (
    Profile,
    Radial,
    average_profile,
    draw_profile,
    radial_profile,
    spot_number,
    spot_profile,
)

PAR04 = sampling_medium(TUNGSTEN, 1.4, SILICON, 0.3)
SOLID = mixture([(LEAD, 1.0)])
MEDIA = pytest.mark.parametrize("medium", [PAR04, SOLID], ids=["sampling", "homogeneous"])


def _one(value: float) -> np.ndarray:
    return np.asarray([value])


def test_average_profile_by_hand() -> None:
    log_y = math.log(50e3 / PAR04.critical_energy)
    profile = average_profile(_one(50.0), PAR04)
    frequency = PAR04.sampling_frequency
    assert frequency is not None
    rest = 1 - PAR04.e_over_mip
    assert profile.maximum[0] == pytest.approx(log_y - 0.858 - 0.59 / frequency - 0.53 * rest)
    assert profile.shape[0] == pytest.approx(0.21 + (0.492 + 2.38 / PAR04.Z) * log_y - 0.444 / frequency)
    solid = average_profile(_one(50.0), SOLID)
    log_y = math.log(50e3 / SOLID.critical_energy)
    assert solid.maximum[0] == pytest.approx(log_y - 0.858)
    assert solid.shape[0] == pytest.approx(0.21 + (0.492 + 2.38 / 82) * log_y)


@MEDIA
def test_drawn_profiles_scatter_around_the_average(medium: Medium) -> None:
    energy = np.full(20_000, 50.0)
    drawn = draw_profile(energy, medium, np.random.default_rng(1))
    average = average_profile(_one(50.0), medium)
    edges = np.linspace(0, 40, 81)
    mean = drawn.fractions(np.zeros(len(energy)), edges).mean(axis=0)
    expected = average.fractions(np.zeros(1), edges)[0]
    assert np.abs(mean - expected).max() < 0.1 * expected.max()
    assert np.exp(np.mean(np.log(drawn.maximum))) == pytest.approx(average.maximum[0], rel=0.05)


@MEDIA
def test_widths_and_correlation(medium: Medium) -> None:
    energy = np.full(50_000, 100.0)
    drawn = draw_profile(energy, medium, np.random.default_rng(2))
    log_y = math.log(100e3 / medium.critical_energy)
    slopes = (1.26, -1.4, 0.86, -0.58, 0.705) if medium is SOLID else (1.25, -2.5, 0.79, -0.82, 0.784)
    log_t, log_a = np.log(drawn.maximum), np.log(drawn.shape)
    assert log_t.std() == pytest.approx(1 / (slopes[1] + slopes[0] * log_y), rel=0.02)
    assert log_a.std() == pytest.approx(1 / (slopes[3] + slopes[2] * log_y), rel=0.02)
    assert np.corrcoef(log_t, log_a)[0, 1] == pytest.approx(slopes[4] - 0.023 * log_y, abs=0.02)


def test_fractions_are_the_integral_of_the_profile() -> None:
    profile = Profile(_one(4.0), _one(0.5), _one(1.0))
    edges = np.asarray([0.0, 3.0, 9.0, 200.0])
    shares = profile.fractions(_one(1.0), edges)[0]
    for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
        value = quad(lambda t: 0.5**4 * t**3 * math.exp(-0.5 * t) / 6.0, max(low - 1, 0), high - 1)[0]
        assert share == pytest.approx(value, abs=1e-7)
    assert shares.sum() == pytest.approx(1.0)


@MEDIA
@given(energy=st.floats(1e-3, 1e4), tau=st.floats(0, 20), seed=st.integers(0, 1000))
def test_nothing_is_nan_at_any_energy(medium: Medium, energy: float, tau: float, seed: int) -> None:
    drawn = draw_profile(_one(energy), medium, np.random.default_rng(seed))
    for profile in (drawn, average_profile(_one(energy), medium), spot_profile(drawn, medium)):
        assert profile.maximum[0] >= 0.999 and profile.shape[0] >= 1.1 and profile.tau_scale[0] > 0
        shares = profile.fractions(np.zeros(1), np.linspace(0, 500, 11))
        assert np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() <= 1 + 1e-9
    radial = radial_profile(_one(energy), np.asarray([[tau]]), medium)
    assert 0.01 <= radial.core[0, 0] <= 20 and 0.01 <= radial.tail[0, 0] <= 20 and 0 <= radial.core_weight[0, 0] <= 1
    assert spot_number(_one(energy), medium, 0.1)[0] > 0


def test_without_the_guards_the_logarithm_has_no_argument() -> None:
    """The control: at 10 MeV, where the guarded profile is finite, ln y - 0.812 is negative."""
    assert math.log(10 / PAR04.critical_energy) - 0.812 < 0
    assert np.isfinite(draw_profile(_one(0.01), PAR04, np.random.default_rng(1)).maximum).all()


def test_radial_profile_by_hand() -> None:
    tau, log_e, Z = 1.3, math.log(20.0), SOLID.Z
    radial = radial_profile(_one(20.0), np.asarray([[tau]]), SOLID)
    assert radial.core[0, 0] == pytest.approx(0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * Z) * tau)
    grow = math.exp(-2.59 * (tau - 0.645)) + math.exp((0.3585 + 0.0421 * log_e) * (tau - 0.645))
    assert radial.tail[0, 0] == pytest.approx((0.659 - 0.00309 * Z) * grow)
    reduced = (0.401 + 0.00187 * Z - tau) / (1.313 - 0.0686 * log_e)
    assert radial.core_weight[0, 0] == pytest.approx((2.632 - 0.00094 * Z) * math.exp(reduced - math.exp(reduced)))
    corrected = radial_profile(_one(20.0), np.asarray([[tau]]), PAR04)
    assert corrected.core[0, 0] == pytest.approx(
        0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * PAR04.Z) * tau
        - 0.0203 * (1 - PAR04.e_over_mip) + 0.0397 * math.exp(-tau) / (PAR04.sampling_frequency or 1)
    )  # fmt: skip


def test_showers_grow_wider_with_depth() -> None:
    radial = radial_profile(_one(50.0), np.asarray([[0.5, 1.0, 2.0, 3.0]]), PAR04)
    inner = radial.rings(np.asarray([0.0, 0.4]))[0, :, 0]
    assert np.all(np.diff(inner) < 0)


def test_ring_and_rectangle_shares_agree_with_thrown_points() -> None:
    radial = Radial(_one(2.0), _one(9.0), _one(0.7))
    rng = np.random.default_rng(3)
    n = 400_000
    u, scale = rng.random(n), np.where(rng.random(n) < 0.7, 2.0, 9.0)
    r, angle = scale * np.sqrt(u / (1 - u)), rng.uniform(-math.pi, math.pi, n)
    edges = np.asarray([0.0, 1.0, 4.0, 20.0])
    assert radial.rings(edges)[0] == pytest.approx(np.histogram(r, edges)[0] / n, abs=4e-3)
    x, y = np.asarray([-5.0, -1.0, 2.0, 8.0]), np.asarray([-3.0, 0.0, 6.0])
    counts = np.histogram2d(r * np.cos(angle), r * np.sin(angle), [x, y])[0]
    assert radial.rectangles(x, y)[0] == pytest.approx(counts / n, abs=4e-3)


def test_all_of_the_plane_has_all_of_the_energy() -> None:
    radial = Radial(_one(2.0), _one(9.0), _one(0.3))
    assert radial.rings(np.asarray([0.0, 1e6])).sum() == pytest.approx(1.0)
    assert radial.rectangles(np.asarray([-1e7, 0.0, 1e7]), np.asarray([-1e7, 1e7])).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("distance", [0.3, 1.0, 3.0])
def test_spread_has_the_median_of_the_sum(distance: float) -> None:
    rng = np.random.default_rng(4)

    def displacement(radius: float) -> np.ndarray:
        u = rng.random(200_000)
        return radius * np.sqrt(u / (1 - u)) * np.exp(2j * math.pi * rng.random(200_000))

    median = np.median(np.abs(displacement(1.0) + displacement(distance)))
    spread = Radial(_one(1.0), _one(1.0), _one(1.0)).spread(distance)
    assert spread.core[0] == pytest.approx(float(median), rel=0.02)


def test_spots() -> None:
    assert spot_number(_one(10.0), PAR04, 0.105)[0] == pytest.approx(10.3 / 0.105 * 10**0.959)
    assert spot_number(_one(10.0), SOLID, 0.105)[0] == pytest.approx(93 * math.log(82) * 10**0.876)
    profile = average_profile(_one(10.0), PAR04)
    spots = spot_profile(profile, PAR04)
    assert spots.maximum[0] == pytest.approx(profile.maximum[0] * (0.813 + 0.0019 * PAR04.Z))
    assert spots.shape[0] == pytest.approx(profile.shape[0] * (0.844 + 0.0026 * PAR04.Z))
    solid = average_profile(_one(10.0), SOLID)
    assert spot_profile(solid, SOLID).shape[0] == pytest.approx(solid.shape[0] * (0.639 + 0.00334 * SOLID.Z))
