"""Fréchet and kernel physics distance on laws with known answers; neighbour metrics by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from nisampler.calo.evaluation.distances import (
    DistanceConfig,
    fpd,
    frechet_distance,
    kpd,
    neighbour_metrics,
    polynomial_mmd,
)
from nisampler.errors import ConfigError, ShapeError, ShowerDataError

_RAW = DistanceConfig(200, 2000, 5, 10, 10, 1000, normalise=False)


def _covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    root = rng.normal(size=(d, d))
    return root @ root.T / d


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_frechet_distance_agrees_with_the_published_formula(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    c1, c2, m1, m2 = _covariance(rng, d), _covariance(rng, d), rng.normal(size=d), rng.normal(size=d)
    published = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    # The root of a product loses half of the digits where a covariance is nearly singular.
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(published, abs=1e-5)
    assert frechet_distance(m1, c1, m1, c1) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_in_one_dimension_and_of_singular_covariances() -> None:
    one = np.ones((1, 1))
    assert frechet_distance(np.zeros(1), 4 * one, np.full(1, 3.0), 9 * one) == pytest.approx(9.0 + 1.0)
    flat = np.diag([1.0, 0.0])
    assert frechet_distance(np.zeros(2), flat, np.zeros(2), 4 * flat) == pytest.approx(1.0)


def test_fpd_finds_the_distance_of_two_gaussians() -> None:
    rng = np.random.default_rng(3)
    d, n = 4, 20_000
    c1, c2, shift = _covariance(rng, d), _covariance(rng, d), rng.normal(size=d)
    x = rng.multivariate_normal(np.zeros(d), c1, n)
    y = rng.multivariate_normal(shift, c2, n)
    exact = frechet_distance(np.zeros(d), c1, shift, c2)
    found = fpd(x, y, seed=1, config=_RAW)
    assert found.value == pytest.approx(exact, rel=0.03)
    assert found.error < 0.05 * exact


def test_fpd_of_equal_laws_is_far_below_the_bias_of_one_sample() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 20_000, 4))
    found = fpd(x, y, seed=1, config=replace(_RAW, resamples=40))
    biased = np.mean([
        frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
        for a, b in ((x[i : i + 200], y[i : i + 200]) for i in range(0, 4000, 200))
    ])  # fmt: skip
    assert 0.0 <= found.value < min(0.1 * biased, 4.0 * found.error)


def test_fpd_is_bounded_below_and_its_error_stays_finite() -> None:
    x = np.random.default_rng(5).normal(size=(500, 3))
    found = fpd(x, x, seed=2, config=_RAW)
    assert found.value >= 0.0
    assert math.isfinite(found.error)


def _polynomial_mmd_of_moments(p: list[float], q: list[float]) -> float:
    """E k(x,x') + E k(y,y') - 2 E k(x,y) for (xy + 1)^4 in one dimension, from the moments of order 0 to 4."""
    return sum(math.comb(4, j) * (p[j] - q[j]) ** 2 for j in range(5))


def test_kpd_agrees_with_the_moments_of_two_gaussians() -> None:
    """In units in which the kernel does not hang on a few points of the tails: the scatter is 7 % of the value."""
    rng = np.random.default_rng(6)
    mean, width, n = 0.25, 0.5, 20_000
    p = [1.0, 0.0, width**2, 0.0, 3 * width**4]
    q = [1.0, mean, mean**2 + p[2], mean**3 + 3 * mean * p[2], mean**4 + 6 * mean**2 * p[2] + p[4]]
    exact, config = _polynomial_mmd_of_moments(p, q), DistanceConfig(batch=1500, normalise=False)
    reference, shifted, same = (rng.normal(place, width, (n, 1)) for place in (0.0, mean, 0.0))
    found = kpd(reference, shifted, 1, config)
    assert found.value == pytest.approx(exact, rel=0.35)
    assert found.error < 0.5 * found.value
    assert abs(kpd(reference, same, 1, config).value) < 0.2 * exact  # the control


def test_polynomial_mmd_by_hand() -> None:
    x, y = np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([[1.0, -1.0], [2.0, 0.0]])
    k = lambda a, b: (float(a @ b) / 2 + 1) ** 4  # noqa: E731
    expected = k(x[0], x[1]) + k(y[0], y[1]) - 0.5 * sum(k(a, b) for a in x for b in y)
    assert polynomial_mmd(x, y) == pytest.approx(expected)


def test_polynomial_mmd_is_unbiased() -> None:
    rng = np.random.default_rng(7)
    values = np.array([polynomial_mmd(*rng.normal(size=(2, 10, 2))) for _ in range(4000)])
    assert abs(values.mean()) < 4.0 * values.std() / math.sqrt(len(values))
    biased = np.array([  # negative control: with the diagonal, equal laws seem to differ
        np.mean((x @ x.T / 2 + 1) ** 4) + np.mean((y @ y.T / 2 + 1) ** 4) - 2 * np.mean((x @ y.T / 2 + 1) ** 4)
        for x, y in rng.normal(size=(500, 2, 10, 2))
    ])  # fmt: skip
    assert biased.mean() > 4.0 * biased.std() / math.sqrt(len(biased))


def test_distances_do_not_depend_on_the_units_of_a_feature_and_are_reproducible() -> None:
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(400, 3)), rng.normal(0.3, 1.0, size=(500, 3))
    units = np.array([1.0, 1e3, 1e-4])
    for distance in (fpd, kpd):
        first, again, scaled = distance(x, y, 5), distance(x, y, 5), distance(x * units, y * units, 5)
        assert first == again
        assert scaled.value == pytest.approx(first.value, rel=1e-6)
        assert distance(x, y, 6).value != first.value


def test_settings_shrink_with_the_sample_and_are_recorded() -> None:
    rng = np.random.default_rng(9)
    found = fpd(rng.normal(size=(1000, 2)), rng.normal(size=(300, 2)))
    assert (found.settings.smallest, found.settings.largest, found.settings.batch) == (60, 300, 150)
    assert (found.n_reference, found.n_generated) == (1000, 300)
    assert found.as_dict()["settings"]["points"] == 10
    assert DistanceConfig().fitted_to(100_000) == DistanceConfig()


def test_a_constant_feature_does_no_harm() -> None:
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    zeros = np.zeros((200, 1))
    assert fpd(np.hstack([x, zeros]), np.hstack([y, zeros])).value == pytest.approx(fpd(x, y).value, abs=1e-9)


def test_neighbour_metrics_by_hand() -> None:
    # Balls around the reference reach 1, 1 and 9; around the generated showers 0.5, 0.5 and 99.5.
    reference, generated = np.array([[0.0], [1.0], [10.0]]), np.array([[0.25], [0.75], [100.25]])
    found = neighbour_metrics(reference, generated, k=1)
    assert found.precision == pytest.approx(2 / 3)  # the one at 100.25 is in no ball
    assert found.recall == pytest.approx(1.0)  # 10 is within 99.5 of 100.25
    assert found.density == pytest.approx((2 + 2 + 0) / 3 + 0 / 3)  # 0.75 and 0.25 in the balls of 0 and 1
    assert found.coverage == pytest.approx(2 / 3)


def test_neighbour_metrics_agree_with_a_direct_computation() -> None:
    rng = np.random.default_rng(11)
    x, y, k = rng.normal(size=(60, 3)), rng.normal(0.7, 0.8, size=(50, 3)), 5
    cross = np.linalg.norm(x[:, None] - y[None], axis=2)
    rx = np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1)[:, k]
    ry = np.sort(np.linalg.norm(y[:, None] - y[None], axis=2), axis=1)[:, k]
    found = neighbour_metrics(x, y, k)
    inside = cross < rx[:, None]
    assert found.precision == pytest.approx(inside.any(axis=0).mean())
    assert found.recall == pytest.approx((cross < ry[None]).any(axis=1).mean())
    assert found.density == pytest.approx(inside.sum() / (k * len(y)))
    assert found.coverage == pytest.approx(inside.any(axis=1).mean())


def test_errors_name_what_is_wrong() -> None:
    x = np.random.default_rng(12).normal(size=(100, 3))
    bad = x.copy()
    bad[7, 2] = math.nan
    with pytest.raises(
        ShowerDataError, match="generated showers are not finite, the first one in column 2 of shower 7"
    ):
        fpd(x, bad)
    with pytest.raises(ShowerDataError, match="reference"):
        kpd(bad, x)
    with pytest.raises(ShapeError, match="same columns"):
        fpd(x, x[:, :2])
    with pytest.raises(ShapeError, match="tables"):
        neighbour_metrics(x[:, 0], x)
    with pytest.raises(ConfigError, match="showers of each kind = 19: must be a whole number, at least 20"):
        kpd(x[:19], x)
    with pytest.raises(ConfigError, match=r"k must be in \[1, 100\)"):
        neighbour_metrics(x, x, k=100)
    with pytest.raises(ConfigError, match="resamples = 0: must be a whole number, at least 1"):
        DistanceConfig(resamples=0)
    with pytest.raises(ConfigError, match="sizes of the samples must grow"):
        DistanceConfig(smallest=100, largest=100)
