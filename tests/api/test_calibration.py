"""Are the errors right? 400 independent integrations of functions with known integrals, and four ways to be wrong.

The same check must pass for every honest integration and fail for each dishonest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pstdev

import pytest
import torch
from torch import Tensor

from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.processes.functions.functions import TestFunction as Known
from nisampler.processes.functions.functions import annulus, camel, circles, gauss, genz, poly
from nisampler.samplers.base import Sampler, State, UniformSampler
from nisampler.training.config import TrainingConfig
from nisampler.training.trainer import Trainer

REPLICAS = 400
STREAMS = Streams(20_260_101)
CONFIG = IntegrationConfig(points=36 * 256)
SHORT = IntegrationConfig(points=24 * 64)
FUNCTIONS: dict[str, Callable[[], Known]] = {
    "gauss": lambda: gauss(3),
    "camel": lambda: camel(2),
    "circles": circles,
    "annulus": annulus,
    "poly": lambda: poly(3),
    "genz": lambda: genz("product_peak", 2),
}


class Wrapped(Sampler):
    """Another sampler's points and densities, to be tampered with."""

    kind = "wrapped"

    def __init__(self, inner: Sampler) -> None:
        self.inner, self.dim = inner, inner.dim

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner._map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner._unmap(x)

    def state(self) -> State:
        return self.inner.state()


class WrongJacobian(Wrapped):
    """The density is 1 % too large."""

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_q = self.inner._map(u)
        return x, log_q + math.log(1.01)


class BiasedGenerator(Wrapped):
    """The random numbers are u^1.01 instead of u."""

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner._map(u**1.01)


class DroppedRegion(Wrapped):
    """No point is drawn from the lowest 2 % of the first coordinate, but the density says so."""

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        inside = 0.02 + 0.98 * u[:, :1]
        return self.inner._map(torch.cat([inside, u[:, 1:]], 1))


def replicas(
    function: Known,
    sampler: Sampler,
    method: str = "sobol",
    n: int = REPLICAS,
    config: IntegrationConfig = CONFIG,
) -> list[float]:
    """Pulls of n independent integrations."""
    integrand = Integrand(function, kind="torch")
    config = replace(config, method=method)
    runs = (Integrator(integrand, sampler, config, STREAMS.child("replica", r)).run() for r in range(n))
    return [pull(run.estimate, function.integral) for run in runs]


def trained(function: Known, kind: str) -> Sampler:
    config = TrainingConfig(calls=20_000, sampler=kind, hidden=16, layers=1, fourier=0)
    return Trainer(Integrand(function), config, STREAMS.child("training")).fit().sampler


def check(pulls: list[float]) -> None:
    """Pulls of mean 0 and width 1, and confidence intervals that hold what they promise."""
    n = len(pulls)
    assert n >= REPLICAS and all(math.isfinite(value) for value in pulls)
    assert abs(fmean(pulls)) <= 3 / math.sqrt(n), f"mean pull {fmean(pulls):.3f}"
    assert 0.93 <= pstdev(pulls) <= 1.07, f"width of pulls {pstdev(pulls):.3f}"
    for limit in (1.0, 2.0):
        share = math.erf(limit / math.sqrt(2))
        covered = sum(abs(value) <= limit for value in pulls) / n
        assert abs(covered - share) <= 3 * math.sqrt(share * (1 - share) / n), f"{limit} sigma cover {covered:.3f}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_scrambled_sobol_points_are_calibrated(name: str) -> None:
    function = FUNCTIONS[name]()
    check(replicas(function, trained(function, "vegas")))


def test_errors_of_independent_points_are_calibrated() -> None:
    """All functions in one sample, a hundred replicas each."""
    pulls: list[float] = []
    for make in FUNCTIONS.values():
        function = make()
        pulls += replicas(function, trained(function, "vegas"), "mc", 100)
    check(pulls)


@pytest.mark.parametrize("method", ["sobol", "mc"])
def test_errors_with_a_flow_are_calibrated(method: str) -> None:
    """The default chain, a flow with a tree behind it: two functions in one sample, 400 short replicas each."""
    pulls: list[float] = []
    for name in ("camel", "circles"):
        function = FUNCTIONS[name]()
        sampler = trained(function, "flow")
        assert "flow" in sampler.describe()
        pulls += replicas(function, sampler, method, config=SHORT)
    check(pulls)


def test_the_honest_plain_integration_passes() -> None:
    check(replicas(gauss(2), UniformSampler(2)))


@pytest.mark.parametrize("lie", [WrongJacobian, BiasedGenerator, DroppedRegion])
def test_a_dishonest_sampler_fails(lie: type[Wrapped]) -> None:
    pulls = replicas(gauss(2), lie(UniformSampler(2)))
    with pytest.raises(AssertionError, match="mean pull"):
        check(pulls)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_errors_of_the_wrong_size_fail(factor: float) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(REPLICAS, generator=generator, dtype=torch.float64)
    values = (values - values.mean()) / values.std(correction=0)
    check(values.tolist())
    with pytest.raises(AssertionError, match="width"):
        check((values / factor).tolist())
