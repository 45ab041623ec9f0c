"""Area under the curve, calibration and Jensen-Shannon divergence, against scikit-learn and by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, roc_auc_score

from nisampler.calo.evaluation.roc import CLIP, IsotonicCalibration, auc, cross_entropy, jensen_shannon
from nisampler.errors import ConfigError, NonFiniteError, ShapeError


def _case(seed: int, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return np.round(rng.normal(labels, 1.0) * levels) / levels, labels


@given(st.integers(0, 10_000), st.integers(2, 300), st.sampled_from([1, 3, 1000]))
def test_auc_agrees_with_scikit_learn_with_and_without_ties(seed: int, n: int, levels: int) -> None:
    scores, labels = _case(seed, n, levels)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_by_hand() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert auc(np.zeros(7), np.array([0, 1, 1, 0, 1, 0, 0])) == 0.5
    assert auc(np.arange(4.0), np.array([0, 0, 1, 1])) == 1.0


@given(st.integers(0, 10_000), st.integers(2, 200), st.sampled_from([1, 3, 1000]))
def test_calibration_agrees_with_scikit_learn(seed: int, n: int, levels: int) -> None:
    scores, labels = _case(seed, n, levels)
    other = IsotonicRegression(out_of_bounds="clip", y_min=CLIP, y_max=1 - CLIP).fit(scores, labels)
    asked = np.linspace(scores.min() - 1, scores.max() + 1, 50)
    np.testing.assert_allclose(IsotonicCalibration.fit(scores, labels)(asked), other.predict(asked), atol=1e-9)


def test_cross_entropy_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    p, labels = rng.uniform(0.01, 0.99, 100), np.arange(100) % 2
    assert cross_entropy(p, labels) == pytest.approx(log_loss(labels, p), rel=1e-12)


def test_jensen_shannon_is_zero_without_information_and_one_for_separable_classes() -> None:
    labels = np.repeat([0, 1], 500)
    assert jensen_shannon(np.full(1000, 0.5), labels) == pytest.approx(0.0, abs=1e-15)
    scores = np.repeat([-3.0, 3.0], 500)
    assert jensen_shannon(IsotonicCalibration.fit(scores, labels)(scores), labels) == pytest.approx(1.0, abs=1e-5)


def test_jensen_shannon_of_two_gaussians() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 100_000)
    x = rng.normal(labels, 1.0)
    grid = np.linspace(-8, 9, 20_001)
    p, q = (np.exp(-0.5 * (grid - mean) ** 2) / math.sqrt(2 * math.pi) for mean in (0.0, 1.0))
    m = 0.5 * (p + q)
    exact = 0.5 * np.trapezoid(p * np.log2(p / m) + q * np.log2(q / m), grid)
    half = rng.permutation(len(x))
    fitted, asked = half[:100_000], half[100_000:]
    asked = np.concatenate([asked[labels[asked] == k][:49_000] for k in (0, 1)])
    calibration = IsotonicCalibration.fit(3.0 * x[fitted] - 7.0, labels[fitted])  # any increasing score will do
    assert jensen_shannon(calibration(3.0 * x[asked] - 7.0), labels[asked]) == pytest.approx(exact, abs=0.006)


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        ([1.0, 2.0], [0, 1, 1], ShapeError, "equally long"),
        ([1.0, math.nan], [0, 1], NonFiniteError, "1 of 2 scores"),
        ([1.0, 2.0], [1, 1], ConfigError, "one class only"),
        ([1.0, 2.0], [0, 2], ConfigError, "0 or 1"),
    ],
)
def test_errors_name_what_is_wrong(
    scores: list[float], labels: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        auc(np.array(scores), np.array(labels))


def test_probabilities_and_balance_are_checked() -> None:
    with pytest.raises(ConfigError, match="strictly between"):
        cross_entropy(np.array([0.0, 0.5]), np.array([0, 1]))
    with pytest.raises(ConfigError, match=re.escape("equal size")):
        jensen_shannon(np.array([0.4, 0.5, 0.6]), np.array([0, 1, 1]))
