"""Several integrals in one call: what steers, ratios, and a result that is saved and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nisampler
from nisampler.base.estimate import pull
from nisampler.errors import ConfigError

QUICK: dict[str, Any] = {
    "training": nisampler.TrainingConfig(calls=5000, sampler="vegas"),
    "integration": nisampler.IntegrationConfig(points=24 * 256),
    "domain": [(0.0, 2.0)],
}


def line(x: np.ndarray) -> dict[str, Any]:
    return {"norm": np.exp(-x[:, 0]), "x": x[:, 0] * np.exp(-x[:, 0])}


def test_a_result_knows_all_integrals(tmp_path: Path) -> None:
    result = nisampler.integrate(line, steer="x", **QUICK)
    norm, first = 1 - np.exp(-2), 1 - 3 * np.exp(-2)
    assert result.estimate is result["x"] is result[1] and result.estimates.names == ("norm", "x")
    assert abs(pull(result["norm"], norm)) < 4.5 and abs(pull(result["x"], first)) < 4.5
    assert abs(pull(result["x"] / result["norm"], first / norm)) < 4.5
    assert f"integrals    norm = {result['norm']}, x = {result['x']}" in result.summary()
    result.save(tmp_path / "saved")
    for function in (None, line):
        again = nisampler.load(tmp_path / "saved", function)
        assert again.estimate == result.estimate and again.estimates.names == result.estimates.names
        np.testing.assert_allclose(again.estimates.covariance, result.estimates.covariance, rtol=1e-12)
    assert torch.equal(again.unweight(20).x, result.unweight(20).x)


def test_what_steers_is_learned_and_drawn() -> None:
    mean = {steer: float(nisampler.integrate(line, steer=steer, **QUICK).unweight(2000).x.mean()) for steer in (0, 1)}
    assert mean[0] == pytest.approx((1 - 3 * np.exp(-2)) / (1 - np.exp(-2)), abs=0.06)
    assert mean[1] == pytest.approx((2 - 10 * np.exp(-2)) / (1 - 3 * np.exp(-2)), abs=0.06)


def test_steering_belongs_to_the_integrand() -> None:
    with pytest.raises(ConfigError, match="steer belong to the Integrand"):
        nisampler.integrate(nisampler.Integrand(line, 1), steer="x")
    with pytest.raises(ConfigError, match="returns norm, x"):
        nisampler.integrate(line, 1, steer="y")
