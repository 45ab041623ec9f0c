"""Are the errors right? 800 independent integrations of functions with known integrals, and five ways to be wrong.

The same check must pass for every honest integration, at any seed, and fail for each dishonest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from training_settings import training
from windows import FEWEST_DOF, assert_calibrated

from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.processes.functions.functions import TestFunction as Known
from nisampler.processes.functions.functions import annulus, camel, circles, gauss, genz, poly
from nisampler.samplers.base import Sampler, State, UniformSampler
from nisampler.training.trainer import Trainer

REPLICAS = 320
STREAMS = Streams(20_260_101)
CONFIG = IntegrationConfig(points=24 * 256)
DOF = {"sobol": FEWEST_DOF, "mc": math.inf}
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


def replicas(function: Known, sampler: Sampler, method: str = "sobol", n: int = REPLICAS) -> list[float]:
    """Pulls of n independent integrations."""
    integrand = Integrand(function, kind="torch")
    config = replace(CONFIG, method=method)
    runs = (Integrator(integrand, sampler, config, STREAMS.child("replica", r)).run() for r in range(n))
    return [pull(run.estimate, function.integral) for run in runs]


def trained(function: Known, kind: str) -> Sampler:
    config = training(calls=20_000, sampler=kind, hidden=16, layers=1, fourier=0)
    return Trainer(Integrand(function), config, STREAMS.child("training")).fit().sampler


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_scrambled_sobol_points_are_calibrated(name: str) -> None:
    function = FUNCTIONS[name]()
    assert_calibrated(replicas(function, trained(function, "vegas")), DOF["sobol"])


def test_errors_of_independent_points_are_calibrated() -> None:
    """All functions in one sample, eighty replicas each."""
    pulls: list[float] = []
    for make in FUNCTIONS.values():
        function = make()
        pulls += replicas(function, trained(function, "vegas"), "mc", 80)
    assert_calibrated(pulls, DOF["mc"])


@pytest.mark.parametrize("method", ["sobol", "mc"])
def test_errors_with_a_flow_are_calibrated(method: str) -> None:
    """The default chain, a flow with a tree behind it: two functions in one sample, 80 replicas each."""
    pulls: list[float] = []
    for name in ("camel", "circles"):
        function = FUNCTIONS[name]()
        sampler = trained(function, "flow")
        assert "flow" in sampler.describe()
        pulls += replicas(function, sampler, method, REPLICAS // 4)
    assert_calibrated(pulls, DOF[method])


@cache
def honest(method: str) -> list[float]:
    return replicas(gauss(2), UniformSampler(2), method)


@pytest.mark.parametrize("method", DOF)
def test_the_honest_plain_integration_passes(method: str) -> None:
    assert_calibrated(honest(method), DOF[method])


@pytest.mark.parametrize("lie", [WrongJacobian, BiasedGenerator, DroppedRegion])
def test_a_dishonest_sampler_fails(lie: type[Wrapped]) -> None:
    pulls = replicas(gauss(2), lie(UniformSampler(2)), n=100)
    with pytest.raises(AssertionError, match="mean pull"):
        assert_calibrated(pulls, DOF["sobol"])


@pytest.mark.parametrize("method", DOF)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_errors_of_the_wrong_size_fail(factor: float, method: str) -> None:
    """The pulls of an honest integration with an error 30 % too small, or too large."""
    with pytest.raises(AssertionError, match=r"mean pull|width"):
        assert_calibrated([value / factor for value in honest(method)], DOF[method])
