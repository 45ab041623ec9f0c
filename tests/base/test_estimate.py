"""Moments, estimates and their printing, effective sample size, pulls and efficiencies."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from windows import assert_calibrated, ks_accepts, limit

from nisampler.base.estimate import ONE_SIGMA, Estimate, pull, student_t_factor
from nisampler.base.moments import Moments
from nisampler.base.notation import format_with_error
from nisampler.base.weights import efficiencies_at, efficiency_at, kish_ess, pareto_shape
from nisampler.errors import ConfigError, NonFiniteError, ShapeError, UnweightingError

numbers = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: 0.0 if abs(v) < 1e-6 else v)
weights_lists = st.lists(numbers, min_size=1, max_size=40)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lognormal(n: int, seed: int, sigma: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(n, dtype=torch.float64).normal_(generator=generator).mul_(sigma).exp_()


# Moments


@given(weights_lists)
def test_moments_against_numpy(values: list[float]) -> None:
    m, w = Moments.from_tensor(tensor(values)), np.array(values)
    assert m.count == len(w) and m.zeros == (w == 0).sum() and m.negatives == (w < 0).sum()
    assert (m.minimum, m.maximum, m.max_abs) == (w.min(), w.max(), np.abs(w).max())
    scale = np.abs(w).max()
    assert m.mean == pytest.approx(w.mean(), rel=1e-12, abs=1e-12 * scale)
    assert m.m2 == pytest.approx(((w - w.mean()) ** 2).sum(), rel=1e-9, abs=1e-20 * scale**2)
    assert m.sum_abs == pytest.approx(np.abs(w).sum(), rel=1e-12)
    assert m.sum_squares == pytest.approx((w**2).sum(), rel=1e-12)


@given(st.lists(weights_lists, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_merging_in_any_order(parts: list[list[float]], random: object) -> None:
    whole = Moments.from_tensor(tensor([w for part in parts for w in part]))
    shuffled = sorted(parts, key=lambda part: random.random())  # type: ignore[attr-defined]
    merged = Moments.merge_all(Moments.from_tensor(tensor(part)) for part in shuffled)
    scale = whole.max_abs
    for name, value in whole.to_dict().items():
        power = {"m2": 2, "sum_squares": 2, "m3": 3, "m4": 4}.get(name, 1)
        assert getattr(merged, name) == pytest.approx(value, rel=1e-10, abs=1e-11 * scale**power), name


def test_higher_moments_are_those_of_scipy() -> None:
    w = lognormal(3000, 4)
    m = Moments.merge_all(Moments.from_tensor(part) for part in w.split(47))
    assert m.skew * math.sqrt(m.count) == pytest.approx(stats.skew(w.numpy()), rel=1e-10)
    assert m.excess**2 * m.count == pytest.approx(stats.kurtosis(w.numpy()), rel=1e-10)
    assert Moments.from_tensor(tensor([2.0, 2.0])).skew == Moments().excess == 0.0


def test_merging_keeps_small_variance_on_a_large_mean() -> None:
    w = 1e9 + lognormal(4000, 1)
    merged = Moments.merge_all(Moments.from_tensor(part) for part in w.split(137))
    assert merged.variance == pytest.approx(float(w.var()), rel=1e-6)
    naive = float(w.square().sum() / 4000 - w.mean().square())
    assert abs(naive / float(w.var()) - 1) > 1e-3  # negative control: the sum of squares cancels


def test_empty_moments_are_neutral() -> None:
    some = Moments.from_tensor(tensor([1.0, -2.0]))
    assert some + Moments() == some == Moments() + some
    assert Moments.from_tensor(tensor([])) == Moments() == Moments.merge_all([])
    assert Moments().max_abs == 0.0 and Moments().ess_fraction == 0.0
    assert Moments().standard_error == math.inf and Moments.from_tensor(tensor([3.0])).variance == math.inf


def test_moments_survive_json() -> None:
    m = Moments.from_tensor(lognormal(100, 2))
    assert Moments.from_dict(json.loads(json.dumps(m.to_dict()))) == m
    with pytest.raises(ConfigError, match="keys"):
        Moments.from_dict({"count": 1})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_weights_stay_visible(bad: float) -> None:
    estimate = Estimate.from_moments(Moments.from_tensor(tensor([1.0, bad, 2.0])))
    assert not math.isfinite(estimate.value) and math.isnan(estimate.error)
    assert "nan" in str(estimate)


# Printing


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.988741, 0.000118, "0.98874(12)"),
        (1603.214, 0.41, "1603.2(4)"),
        (1603.214, 4.1, "1603(4)"),
        (1603.214, 0.354, "1603.21(35)"),
        (1603.214, 0.356, "1603.2(4)"),
        (1603.214, 0.949, "1603.2(9)"),
        (1603.214, 0.951, "1603.2(10)"),
        (1603.214, 0.9996, "1603.2(10)"),
        (1603.214, 12.3, "1603(12)"),
        (1603.214, 123.0, "1.60(12)e3"),
        (1603.214, 99.0, "1.60(10)e3"),
        (1.234e-15, 3.9e-17, "1.23(4)e-15"),
        (1.234e15, 3.9e13, "1.23(4)e15"),
        (-0.988741, 0.000118, "-0.98874(12)"),
        (-1.234e-15, 3.9e-17, "-1.23(4)e-15"),
        (0.0, 0.00012, "0.00000(12)"),
        (0.0, 1.2e-20, "0.0(12)e-20"),
        (-0.0, 0.5, "0.0(5)"),
        (0.001, 25.0, "0(25)"),
        (2.0, 0.0, "2(0)"),
        (0.1 + 0.2, 0.0, "0.3(0)"),
        (0.0, 0.0, "0(0)"),
        (0.5, math.inf, "0.5 ± inf"),
        (0.5, math.nan, "0.5 ± nan"),
        (math.nan, math.nan, "nan ± nan"),
        (math.inf, 0.1, "inf ± 0.1"),
        (12345678.9, 0.2, "12345678.90(20)"),
        (1e300, 2e290, "1.00000000000(20)e300"),
    ],
)
def test_printing(value: float, error: float, text: str) -> None:
    assert format_with_error(value, error) == text


@given(st.floats(-1e30, 1e30), st.floats(1e-25, 1e25))
def test_printed_number_reads_back(value: float, error: float) -> None:
    """Read back, value and error are those put in, to half a unit of the last digit."""
    text = format_with_error(value, error)
    match = re.fullmatch(r"(-?\d+)(?:\.(\d+))?\((\d+)\)(?:e(-?\d+))?", text)
    assert match is not None, text
    whole, decimals, units, exponent = match.groups()
    unit = 10.0 ** (int(exponent or 0) - len(decimals or ""))
    shown = float(f"{whole}.{decimals or 0}e{exponent or 0}")
    assert abs(shown - value) <= 0.5001 * unit + 1e-15 * abs(value)
    assert abs(int(units) * unit - error) <= 0.5001 * unit
    assert 4 <= int(units) <= 9 or 10 <= int(units) <= 35


def test_estimate_prints_and_summarises() -> None:
    e = Estimate(1603.214, 0.41, n=1_000_000, chi2_per_dof=1.25, dof=9, ess_fraction=0.934, unit="pb")
    assert str(e) == "1603.2(4)" and float(e) == 1603.214
    text = e.summary()
    for part in ("1603.2(4) pb", "0.00026", "1000000", "1.25 (dof 9, Q 0.26)", "0.934"):
        assert part in text
    assert "chi2" not in Estimate(1.0, 0.1, n=3).summary() and "ESS" not in Estimate(1.0, 0.1, n=3).summary()
    assert e.relative_error == pytest.approx(0.41 / 1603.214)
    assert Estimate(0.0, 0.1, 5).relative_error == math.inf
    assert math.isnan(Estimate(0.0, 0.1, 5).q_value)


@pytest.mark.parametrize("arguments", [(1.0, -0.1, 5), (1.0, 0.1, -5), (1.0, 0.1, 5, 1.0, -1)])
def test_negative_errors_and_counts_are_refused(arguments: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        Estimate(*arguments)


# Estimates from data


def test_coverage_of_estimates_from_moments() -> None:
    w = lognormal(400 * 4000, 3, sigma=0.5).reshape(400, 4000)
    truth = math.exp(0.125)
    pulls = np.array([pull(Estimate.from_moments(Moments.from_tensor(row)), truth) for row in w])
    assert_calibrated(pulls)
    biased = np.array([pull(Estimate.from_moments(Moments.from_tensor(1.02 * row)), truth) for row in w])
    for wrong, match in ((biased, "mean pull"), (pulls / 0.7, r"mean pull|width"), (pulls / 1.3, "width")):
        with pytest.raises(AssertionError, match=match):  # negative controls
            assert_calibrated(wrong)


def test_chi2_of_batches_follows_its_distribution() -> None:
    """Kolmogorov-Smirnov of Q over replicas; batches that drift are noticed."""
    w = lognormal(300 * 8 * 400, 4, sigma=0.5).reshape(300, 8, 400)
    estimates = [Estimate.from_batches([Moments.from_tensor(b) for b in row]) for row in w]
    assert all(e.dof == 7 and e.n == 3200 for e in estimates)
    assert ks_accepts([e.q_value for e in estimates], "uniform")
    drift = torch.linspace(0.9, 1.1, 8, dtype=torch.float64)[:, None]
    drifting = [Estimate.from_batches([Moments.from_tensor(b) for b in row * drift]) for row in w]
    assert np.median([e.q_value for e in drifting]) < 0.05


def test_batches_of_a_constant_agree_and_different_constants_do_not() -> None:
    third = Moments.from_tensor(torch.full((7,), 1.0 / 3.0, dtype=torch.float64))
    e = Estimate.from_batches([third, Moments(), third + third])
    assert e.value == pytest.approx(1 / 3) and e.error < 1e-15 and e.dof == 1 and e.chi2_per_dof < 10
    other = Moments.from_tensor(torch.full((8,), 2.0, dtype=torch.float64))
    one = Moments.from_tensor(torch.full((8,), 1.0, dtype=torch.float64))
    assert Estimate.from_batches([one, other]).chi2_per_dof == math.inf
    assert Estimate.from_batches([one, one]).chi2_per_dof == 0.0


def test_estimates_without_points_are_refused() -> None:
    for make in (
        lambda: Estimate.from_moments(Moments()),
        lambda: Estimate.from_batches([]),
        lambda: Estimate.from_batch_means([], 5),
        lambda: Estimate.from_batch_means([1.0], 0),
        lambda: Estimate.combine([]),
        lambda: Estimate.combine([Estimate(0.0, 0.0, 0)]),
    ):
        with pytest.raises(ConfigError):
            make()


def test_one_point_has_an_unknown_error() -> None:
    e = Estimate.from_moments(Moments.from_tensor(tensor([2.5])))
    assert str(e) == "2.5 ± inf"
    assert Estimate.from_batch_means([2.5], 100).error == math.inf


def test_batch_means_cover_as_often_as_they_should() -> None:
    """Four means each: the bare standard error covers 61 %, the widened one 68.27 %."""
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(4000, 4, dtype=torch.float64, generator=generator)
    estimates = [Estimate.from_batch_means(row, 256) for row in means.tolist()]
    assert estimates[0].n == 1024
    covered = np.mean([abs(pull(e, 0.0)) < 1 for e in estimates])
    bare = np.mean([abs(pull(e, 0.0)) * student_t_factor(3) < 1 for e in estimates])
    tolerance = limit() * math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / 4000)
    assert abs(covered - ONE_SIGMA) < tolerance < abs(bare - ONE_SIGMA)


def test_student_factor() -> None:
    assert student_t_factor(1) == pytest.approx(1.8373, abs=1e-3)
    assert student_t_factor(10_000_000) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match="dof"):
        student_t_factor(0)


# Combination


@given(st.lists(weights_lists.filter(lambda w: len(w) > 1), min_size=1, max_size=5))
def test_combination_has_value_n_and_ess_of_all_points(parts: list[list[float]]) -> None:
    combined = Estimate.combine([Estimate.from_moments(Moments.from_tensor(tensor(p))) for p in parts])
    whole = Moments.from_tensor(tensor([w for part in parts for w in part]))
    assert combined.n == whole.count
    assert combined.value == pytest.approx(whole.mean, rel=1e-9, abs=1e-9 * whole.max_abs)
    if all(abs(sum(part)) > 1e-3 * sum(map(abs, part)) for part in parts):
        assert combined.ess_fraction == pytest.approx(whole.ess_fraction, rel=1e-6, abs=1e-9)


def test_combination_error_and_nested_chi2() -> None:
    parts = [Estimate(1.0, 0.1, 100, 1.5, 4), Estimate(1.2, 0.1, 100, 0.5, 2), Estimate(1.1, 0.05, 400)]
    e = Estimate.combine(parts)
    assert e.value == pytest.approx((1.0 + 1.2 + 4 * 1.1) / 6)
    assert e.error == pytest.approx(math.sqrt(0.01 + 0.01 + 16 * 0.0025) / 6)
    # equal variances per point: the part between is the plain sum of (v_i - v)^2 / e_i^2
    assert e.dof == 8 and e.chi2_per_dof == pytest.approx((1.5 * 4 + 0.5 * 2 + 2.0) / 8)
    assert Estimate.combine(parts[:1]) == parts[0]
    assert Estimate.combine([parts[0], Estimate(0.0, 0.0, 0)]) == parts[0]


def test_chi2_between_parts_of_unequal_precision_has_mean_dof() -> None:
    rng = np.random.default_rng(6)
    sizes, sigmas = np.array([100, 400, 50]), np.array([1.0, 3.0, 0.5])
    errors = sigmas / np.sqrt(sizes)
    chi2 = []
    for values in 5.0 + errors * rng.standard_normal((4000, 3)):
        parts = [Estimate(v, e, int(n)) for v, e, n in zip(values, errors, sizes, strict=True)]
        chi2.append(Estimate.combine(parts).chi2_per_dof * 2)
    assert np.mean(chi2) == pytest.approx(2.0, abs=limit() * np.std(chi2) / math.sqrt(4000))


def test_weighting_by_points_is_unbiased_where_inverse_variance_is_not() -> None:
    """Skewed weights: the claim that forbids inverse variances, shown."""
    w = lognormal(500 * 10 * 50, 7, sigma=1.2).reshape(500, 10, 50)
    truth, by_points, by_variance = math.exp(0.72), [], []
    for row in w:
        parts = [Estimate.from_moments(Moments.from_tensor(part)) for part in row]
        by_points.append(Estimate.combine(parts).value)
        inverse = np.array([1 / part.error**2 for part in parts])
        by_variance.append((inverse * np.array([part.value for part in parts])).sum() / inverse.sum())
    significance = [(np.mean(v) - truth) / (np.std(v) / math.sqrt(500)) for v in (by_points, by_variance)]
    assert abs(significance[0]) < limit() and significance[1] < -20


def test_parts_that_disagree_are_noticed() -> None:
    assert Estimate.combine([Estimate(1.0, 0.01, 100), Estimate(2.0, 0.01, 100)]).q_value < 1e-6
    assert Estimate.combine([Estimate(1.0, 0.0, 100), Estimate(2.0, 0.0, 100)]).chi2_per_dof == math.inf
    assert Estimate.combine([Estimate(1.0, 0.0, 100), Estimate(1.0, 0.0, 300)]).chi2_per_dof == 0.0


def test_different_units_cannot_be_combined() -> None:
    with pytest.raises(ConfigError, match=r"\['fb', 'pb'\]"):
        Estimate.combine([Estimate(1.0, 0.1, 5, unit="pb"), Estimate(1.0, 0.1, 5, unit="fb")])


# Effective sample size, pull, efficiency


def test_kish_ess() -> None:
    assert kish_ess(torch.ones(2, 50)) == pytest.approx(100)
    assert kish_ess(tensor([0.0, 0.0, 3.0])) == pytest.approx(1)
    assert kish_ess(tensor([1e-200, 1e-200])) == pytest.approx(2)
    assert kish_ess(tensor([1e200, 1e200])) == pytest.approx(2)
    assert kish_ess(tensor([])) == 0.0 == kish_ess(torch.zeros(4))
    w = lognormal(1000, 8)
    assert kish_ess(w) / 1000 == pytest.approx(Moments.from_tensor(w).ess_fraction)


def test_pull() -> None:
    assert pull(Estimate(1.1, 0.05, 10), 1.0) == pytest.approx(2)
    assert pull(Estimate(1.0, 0.0, 10), 1.0) == 0
    assert pull(Estimate(0.9, 0.0, 10), 1.0) == -math.inf


def test_efficiency_by_hand() -> None:
    w = tensor([5.0, -1.0, 1.0, 1.0, 2.0])  # |w| sums to 10
    assert efficiency_at(w, 0.0) == (5.0, 0.4)
    assert efficiency_at(w, 0.49) == (5.0, 0.4)
    assert efficiency_at(w, 0.5) == (2.0, 1.0)
    assert efficiency_at(w, 0.7) == (1.0, 1.0)
    assert efficiency_at(torch.ones(1000), 0.001) == (1.0, 1.0)


@given(weights_lists.filter(any), st.lists(st.floats(0.0, 0.99), min_size=1, max_size=4))
def test_efficiency_carries_no_more_than_allowed(values: list[float], fractions: list[float]) -> None:
    w = np.abs(np.array(values))
    for fraction, (cut, efficiency) in zip(fractions, efficiencies_at(tensor(values), fractions), strict=True):
        assert w[w > cut].sum() <= fraction * w.sum() * (1 + 1e-12)
        assert w[w >= cut].sum() > fraction * w.sum() * (1 - 1e-12)  # the next smaller cut carries too much
        assert 0 < efficiency <= 1 and efficiency == pytest.approx(min(1, w.mean() / cut))


def test_efficiency_refusals() -> None:
    with pytest.raises(UnweightingError, match="all weights are zero"):
        efficiency_at(torch.zeros(3), 0.001)
    for fraction in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match="overweight_fraction"):
            efficiency_at(torch.ones(3), fraction)
    for shape in ((0,), (2, 2)):
        with pytest.raises(ShapeError):
            efficiency_at(torch.ones(shape), 0.0)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(NonFiniteError):
            efficiency_at(tensor([1.0, bad]), 0.001)


@pytest.mark.parametrize("shape", [0.25, 0.5, 1.0])
def test_the_shape_of_a_tail(shape: float) -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weights = u**-shape
    # the tail has 1341 points, and the error of the shape is (1 + k)/√1341
    assert pareto_shape(weights) == pytest.approx(shape, abs=limit(checks=3) * (1 + shape) / math.sqrt(1341) + 0.01)
    assert pareto_shape(weights) == pytest.approx(pareto_shape(-1e-250 * weights), rel=1e-6)
    assert pareto_shape(u) < 0.0 and math.isnan(pareto_shape(u[:40])) and math.isnan(pareto_shape(u * 0.0))


def test_an_error_that_is_not_trusted_carries_a_mark() -> None:
    good, poor = Estimate(1603.214, 0.41, 100, unit="pb"), Estimate(1603.214, 0.41, 100, unit="pb", trusted=False)
    assert (str(good), str(poor)) == ("1603.2(4)", "1603.2(4) (?)")
    assert (f"{poor:pm}", f"{poor:.1f}", f"{poor:>16}") == ("1603.2 ± 0.4 (?)", "1603.2 ± 0.4 (?)", "   1603.2(4) (?)")
    assert "1603.2(4) (?) pb" in poor.summary() and "trusted=False" in repr(poor)
    assert Estimate.from_dict(poor.to_dict()) == poor and Estimate.from_dict(good.to_dict()).trusted


def test_a_mark_spreads_to_what_depends_on_it() -> None:
    good, poor = Estimate(2.0, 0.1, 100), Estimate(3.0, 0.1, 100, trusted=False)
    for spoilt in (
        good + poor,
        good * poor,
        poor / good,
        2 - poor,
        abs(-poor),
        poor**2,
        Estimate.combine([good, poor]),
    ):
        assert not spoilt.trusted and str(spoilt).endswith(" (?)")
    for fine in (good + 1, good - good, good**3, Estimate.combine([good, good]), good + 0 * poor):
        assert fine.trusted


def test_agreement_of_few_batches_follows_an_f_law() -> None:
    """Groups of batches against the rest: with 24 batches a chi-square law would find one in forty below 1 %."""
    generator = torch.Generator().manual_seed(7)
    found = [
        Estimate.from_batch_means(torch.randn(24, generator=generator, dtype=torch.float64).tolist(), 64)
        for _ in range(2000)
    ]
    assert ks_accepts([estimate.q_value for estimate in found], "uniform")
    infinite = [dataclasses.replace(estimate, dof_within=0).q_value for estimate in found]
    assert not ks_accepts(infinite, "uniform")  # negative control
