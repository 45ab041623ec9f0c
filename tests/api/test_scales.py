"""Functions of any size, and on a large ground: the same numbers as of one near unity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from channel_examples import ridge_channels, ridges
from torch import Tensor
from training_settings import training

import nisampler
from nisampler import IntegrationConfig, Result
from nisampler.base.estimate import Estimate
from nisampler.base.estimates import Estimates

# 1e-300, 1e-200, 1e200 and 1e300 as powers of two, which scale exactly.
SCALES = [2.0**-997, 2.0**-664, 2.0**664, 2.0**997]


def camel(x: Tensor) -> Tensor:
    return sum(torch.exp(-50 * ((x - centre) ** 2).sum(1)) for centre in (0.3, 0.7))  # type: ignore[return-value]


def cut(x: Tensor) -> Tensor:
    return (x.sum(1) > 1.0) * x[:, 0] ** -0.3


SETTINGS: dict[str, dict[str, Any]] = {
    "vegas": {"sampler": "vegas", "leaves": 50},
    "flow": {"sampler": "flow", "hidden": 8, "layers": 1, "fourier": 0},
    "auto": {"hidden": 8, "layers": 1, "fourier": 0},
    "events": {"events": 2000, "sampler": "auto", "hidden": 8, "layers": 1},
}


def run(function: Callable[[Tensor], Any], name: str, **options: Any) -> Result:
    settings = training(calls=8000, **SETTINGS[name])
    return nisampler.integrate(
        function, 2, training=settings, integration=IntegrationConfig(points=4096), kind="torch", **options
    )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("function", [camel, cut])
def test_a_power_of_two_changes_nothing(function: Callable[[Tensor], Tensor], name: str) -> None:
    plain = run(function, name)
    for scale in SCALES[::2] if name in ("flow", "auto") else SCALES:
        scaled = run(lambda x, scale=scale: scale * function(x), name)  # type: ignore[misc]
        assert scaled.sampler.describe() == plain.sampler.describe() and scaled.warnings == plain.warnings
        assert scaled.estimate.value == pytest.approx(scale * plain.estimate.value, rel=1e-12)
        assert scaled.estimate.error == pytest.approx(scale * plain.estimate.error, rel=1e-6)
        assert scaled.efficiencies.at_0p1 == pytest.approx(plain.efficiencies.at_0p1, rel=1e-9)
        assert scaled.trusted is plain.trusted
        assert torch.equal(scaled.unweight(50).x, plain.unweight(50).x)


@pytest.mark.parametrize("scale", SCALES)
def test_channels_are_shared_as_at_unit_scale(scale: float) -> None:
    settings = {"training": training(calls=6000, sampler="vegas"), "integration": IntegrationConfig(points=4096)}
    plain, scaled = (
        nisampler.integrate(nisampler.Multichannel(lambda x, by=by: by * ridges(x), ridge_channels()), **settings)  # type: ignore[arg-type, misc]
        for by in (1.0, scale)
    )
    assert scaled.estimate.value / scale == pytest.approx(plain.estimate.value, rel=1e-12)
    assert scaled.sampler.describe() == plain.sampler.describe()


@pytest.mark.parametrize("scale", SCALES)
def test_errors_spread_at_any_scale(scale: float) -> None:
    """Squares of such errors vanish or overflow; what is computed from the numbers still has the right error."""
    one, two = Estimate(3.0 * scale, 0.1 * scale, 100), Estimate(4.0 * scale, 0.2 * scale, 100)
    assert (2 * one).error == pytest.approx(0.2 * scale, rel=1e-12)
    assert (one + two).error == pytest.approx(np.hypot(0.1, 0.2) * scale, rel=1e-12)
    assert (one / two).error == pytest.approx((Estimate(3.0, 0.1, 100) / Estimate(4.0, 0.2, 100)).error, rel=1e-12)
    assert (one - one).error == 0.0
    both, unit = (
        Estimate.combine([Estimate(3.0 * by, 0.1 * by, 50, ess_fraction=0.5), Estimate(4.0 * by, 0.2 * by, 100)])
        for by in (scale, 1.0)
    )
    assert both.error == pytest.approx(scale * unit.error, rel=1e-12)
    assert both.chi2_per_dof == pytest.approx(unit.chi2_per_dof, rel=1e-9)
    means = Estimate.from_batch_means([1.0 * scale, 2.0 * scale, 4.0 * scale] * 8, 10)
    plain = Estimate.from_batch_means([1.0, 2.0, 4.0] * 8, 10)
    assert means.error == pytest.approx(scale * plain.error, rel=1e-12)
    assert means.chi2_per_dof == pytest.approx(plain.chi2_per_dof, rel=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_correlations_are_known_at_any_scale(scale: float) -> None:
    matrix = [[1.0, 0.9], [0.9, 1.0]]
    found = Estimates.correlated({"x": Estimate(2 * scale, 0.1 * scale, 50), "y": Estimate(4.0, 0.2, 50)}, matrix)
    assert found.correlation == pytest.approx(np.array(matrix), abs=1e-12)
    assert Estimates.combine([found, found]).correlation == pytest.approx(np.array(matrix), abs=1e-12)
    assert (found["x"] / found["y"]).relative_error == pytest.approx(np.sqrt(2 * 0.05**2 * 0.1), rel=1e-9)


@pytest.mark.parametrize("name", ["vegas", "auto"])
@pytest.mark.parametrize("ground", [1e3, 1e6, -1e6, 1e10])
def test_a_large_ground_leaves_no_noise_of_a_grid(ground: float, name: str) -> None:
    """Weights spread as the function does over the cube: adaptation has nothing to gain, and adds nothing."""
    result = run(lambda x: ground + camel(x), name)
    u = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moments = result.integration.moments
    spread = np.sqrt(moments.variance) / abs(moments.mean)
    assert spread <= 1.2 * float(camel(u).std()) / abs(ground) + 1e-12
    truth = ground + float(camel(u).mean())
    assert abs(result.estimate.value - truth) < 5 * np.hypot(result.estimate.error, float(camel(u).std()) / 447)
