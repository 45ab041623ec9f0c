"""Linearity and resolution at each incident energy: their errors, ratios, and the widths that pooling hides."""

from __future__ import annotations

import numpy as np
import pytest

from nisampler.calo.detector.geometry import IncidentEnergy
from nisampler.calo.evaluation.energies import Response, compared, responses, worst
from nisampler.calo.evaluation.features import Features

DISCRETE = IncidentEnergy("discrete", (256.0, 65536.0, 4194304.0), (1, 1, 1))
CONTINUOUS = IncidentEnergy("log-uniform", (1e3, 1e5))


def features(incident: np.ndarray, response: np.ndarray) -> Features:
    """Showers of one layer."""
    n = len(incident)
    layer, none = np.zeros((n, 1)), np.zeros((n, 0))
    return Features(incident, (incident * response)[:, None], none, none, none, none, layer, layer, layer, np.ones(n))


def sample(widths: dict[float, float], n: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    incident = np.repeat(list(widths), n)
    return features(incident, 0.9 + np.repeat(list(widths.values()), n) * rng.standard_normal(len(incident)))


def test_a_width_that_pooling_hides_is_seen_at_its_energy() -> None:
    """Fifteen times the resolution at the highest energy changes the pooled width by a few per cent."""
    true = sample({256.0: 0.2, 65536.0: 0.02, 4194304.0: 0.002}, 2000, 1)
    made = sample({256.0: 0.2, 65536.0: 0.02, 4194304.0: 0.03}, 2000, 2)
    rows = compared(responses(made, DISCRETE), responses(true, DISCRETE))
    assert [row["energy"] for row in rows] == [256.0, 65536.0, 4194304.0]
    assert made.response.std() / true.response.std() == pytest.approx(1.0, abs=0.04)
    assert rows[2]["resolution_ratio"] == pytest.approx(15.0, rel=0.1) and rows[2]["separation"] > 0.15
    for row in rows[:2]:
        assert row["resolution_ratio"] == pytest.approx(1.0, abs=4 * row["resolution_ratio_error"])
    assert worst(rows, "resolution") == rows[2] and worst([], "resolution") is None


def test_errors_are_those_of_replicas() -> None:
    found = [responses(sample({256.0: 0.1}, 500, seed), DISCRETE)[0] for seed in range(200)]
    for name in ("linearity", "resolution"):
        spread = np.std([getattr(item, name) for item in found])
        assert np.mean([getattr(item, f"{name}_error") for item in found]) == pytest.approx(spread, rel=0.15)


def test_bins_of_a_continuous_law() -> None:
    rng = np.random.default_rng(5)
    incident = CONTINUOUS.sample(6000, rng)
    found = responses(features(incident, np.full(6000, 0.8)), CONTINUOUS)
    assert len(found) == 12 and sum(len(item.values) for item in found) == 6000
    assert np.all(np.diff([item.energy for item in found]) > 0)
    assert found[0].linearity == pytest.approx(0.8) and found[0].resolution == pytest.approx(0.0, abs=1e-12)
    (row,) = compared(found[:1], found[:2])
    assert row["linearity_ratio"] == pytest.approx(1.0)


def test_few_or_empty_showers_have_no_row() -> None:
    assert responses(features(np.full(9, 256.0), np.ones(9)), DISCRETE) == []
    assert responses(features(np.full(20, 256.0), np.zeros(20)), DISCRETE) == []
    alone = Response(1, 65536.0, np.ones(20))
    assert compared([alone], [Response(0, 256.0, np.ones(20))]) == []
    (row,) = compared([alone], [alone])
    assert "resolution_ratio" not in row and row["separation"] == 0.0
