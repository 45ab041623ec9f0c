"""Errors that are not to be trusted carry a mark, and no others do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.integration.integrator import IntegrationConfig, IntegrationResult, Integrator
from nisampler.integration.reliability import heavy, missed
from nisampler.samplers.base import UniformSampler
from nisampler.training.records import Known

METHODS = ("sobol", "mc")


def spike(x: Tensor) -> Tensor:
    return torch.exp(-((x - 0.31) ** 2).sum(1) / (2 * 3e-3**2))


def edge(x: Tensor) -> Tensor:
    """Of infinite variance."""
    return (1.0 - x[:, 0]) ** -0.7


def sides(x: Tensor) -> Tensor:
    """Tails on both sides: no skewness."""
    return (x[:, 0] - 0.5) * ((x[:, 0] - 0.5) ** 2 + 1e-9) ** -0.85


def few(x: Tensor) -> Tensor:
    return (x.amax(1) < 0.05).double()


def slope(x: Tensor) -> Tensor:
    return 1.0 + x[:, 0]


def bell(x: Tensor) -> Tensor:
    return torch.exp(-8 * ((x - 0.5) ** 2).sum(1))


def wave(x: Tensor) -> Tensor:
    return torch.sin(6 * x[:, 0]) * x[:, 1]


def cut(x: Tensor) -> Tensor:
    return (x.sum(1) > 1.0).double() * x[:, 0]


def run(
    function: Callable[[Tensor], Tensor], method: str = "sobol", points: int = 4096, known: Known | None = None
) -> IntegrationResult:
    config = IntegrationConfig(points=points, method=method)  # type: ignore[arg-type]
    return Integrator(Integrand(function, 2, kind="torch"), UniformSampler(2), config, Streams(3), known).run()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-200, 1e200])
@pytest.mark.parametrize("function", [spike, edge, sides, few])
def test_few_weights_that_make_up_an_error_are_told(
    function: Callable[[Tensor], Tensor], scale: float, method: str
) -> None:
    result = run(lambda x: scale * function(x), method)
    assert not result.estimate.trusted and str(result.estimate).endswith(" (?)")
    assert any("not reliable" in warning for warning in result.warnings)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("points", [200, 500, 4096, 100_000])
@pytest.mark.parametrize("function", [slope, bell, wave, cut])
def test_good_errors_carry_no_mark(function: Callable[[Tensor], Tensor], points: int, method: str) -> None:
    result = run(function, method, points)
    assert result.estimate.trusted and not result.warnings


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-200, 1e200])
def test_a_weight_that_only_the_training_met_is_told(method: str, scale: float) -> None:
    function = lambda x: scale * bell(x)  # noqa: E731
    assert run(function, method, known=Known(met=2.0 * scale)).estimate.trusted
    result = run(function, method, known=Known(met=300.0 * scale))
    assert not result.estimate.trusted
    assert any("the training met a weight 3e+02 times" in warning for warning in result.warnings)


def test_a_lost_region_marks_the_result() -> None:
    assert not run(bell, known=Known(lost=True)).estimate.trusted


def test_a_peak_beside_a_constant_that_only_the_training_met_is_told() -> None:
    flat = lambda x: torch.ones_like(x[:, 0])  # noqa: E731
    assert run(flat).estimate.trusted
    assert not run(flat, known=Known(met=1e4)).estimate.trusted
    assert run(flat, known=Known(met=1.0 + 1e-13)).estimate.trusted  # rounding


def test_every_integral_has_a_mark_of_its_own() -> None:
    integrand = Integrand(lambda x: {"spike": spike(x), "slope": slope(x)}, 2, kind="torch", steer="slope")
    found = Integrator(integrand, UniformSampler(2), IntegrationConfig(points=4096), Streams(3)).run().estimates
    assert found["slope"].trusted and not found["spike"].trusted and not (found["spike"] / found["slope"]).trusted
    met = Integrator(integrand, UniformSampler(2), IntegrationConfig(points=4096), Streams(3), Known(met=1e4)).run()
    assert not any(estimate.trusted for estimate in met.estimates.values())


def test_moments_beyond_the_range_of_numbers_are_not_trusted() -> None:
    huge = Moments.from_tensor(torch.tensor([1.0, 1e90, 2.0], dtype=torch.float64))
    assert math.isinf(huge.m4) and heavy(huge)
    even = Moments.from_tensor(torch.linspace(0.0, 1.0, 100, dtype=torch.float64))
    assert missed(even, 1e90) and missed(even, -1e300) and missed(even, math.inf) and missed(even, math.nan)
