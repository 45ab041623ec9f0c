"""Few calls and many: errors are right, or the result says with a mark that they are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_settings import training
from windows import assert_calibrated

import nisampler
from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.result import Result
from nisampler.training.trainer import Trainer

# Batches of the integrations below, less one.
DOF = {5000: 38, 20_000: 38, 1_000_000: 29}


@dataclass(frozen=True)
class Known:
    dim: int
    function: Callable[[Tensor], Tensor]
    integral: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def peaks(dim: int, *parts: tuple[float, float, float]) -> Known:
    """Normal densities far from the borders: share, centre and width of each."""

    def function(x: Tensor) -> Tensor:
        found = torch.zeros_like(x[:, 0])
        for share, centre, width in parts:
            found += (
                share * torch.exp(-((x - centre) ** 2).sum(1) / (2 * width**2)) * (width**2 * 2 * math.pi) ** (-dim / 2)
            )
        return found

    return Known(dim, function, sum(share for share, _, _ in parts))


CUT = Known(3, lambda x: 8 * x.prod(1) * (x.sum(1) > 1.0), 1 - 8 / math.factorial(6))
BALL = Known(5, lambda x: (((x - 0.5) ** 2).sum(1) < 0.16).double(), 8 * math.pi**2 / 15 * 0.4**5)
SIGNED = Known(3, lambda x: 3 * torch.sin(2 * math.pi * x[:, 0]) * x[:, 1] + x[:, 2], 0.5)
NARROW = peaks(8, (1.0, 0.45, 0.06))
CAMEL = peaks(4, (0.5, 0.4, 0.08), (0.5, 0.6, 0.08))
LOST = peaks(8, (0.7, 0.3, 0.06), (0.3, 0.7, 0.06))
UNEQUAL = peaks(3, (0.9, 0.35, 0.07), (0.1, 0.75, 0.05))
MIXED = peaks(6, (0.5, 0.35, 0.08), (0.3, 0.5, 0.07), (0.2, 0.65, 0.06))


def run(function: Known, calls: int, seed: int, kind: str = "vegas") -> Result:
    integrand = Integrand(function, function.dim, kind="torch")
    settings = training(sampler=kind, hidden=16, layers=1, fourier=0)
    return nisampler.integrate(integrand, calls=calls, seed=seed, training=settings, progress=False)


def assert_control(pulls: list[float], dof: int) -> None:
    """The same with errors that were halved fails."""
    with pytest.raises(AssertionError, match=r"mean pull|width|sigma"):
        assert_calibrated([2.0 * value for value in pulls], dof)


@pytest.mark.parametrize("calls", [5000, 20_000])
def test_errors_without_a_mark_are_calibrated(calls: int) -> None:
    """Cut, signed and peaked functions in one sample; few of these results carry a mark."""
    functions = [CUT, BALL, SIGNED] if calls == 5000 else [CUT, BALL, SIGNED, CAMEL, NARROW]
    found = [(run(function, calls, seed), function) for function in functions for seed in range(60 // len(functions))]
    pulls = [pull(result.estimate, function.integral) for result, function in found if result.trusted]
    assert len(pulls) > 0.85 * len(found)
    assert_calibrated(pulls, DOF[calls])
    assert_control(pulls, DOF[calls])


def test_errors_of_a_million_calls_are_calibrated() -> None:
    pulls: list[float] = []
    for function in (CUT, CAMEL):
        integrand = Integrand(function, function.dim, kind="torch")
        trained = Trainer(integrand, training(calls=500_000, sampler="vegas", on=False), Streams(1)).fit()
        for replica in range(20):
            streams, config = Streams(1).child("replica", replica), IntegrationConfig(points=500_000)
            found = Integrator(integrand, trained.sampler, config, streams, trained.known).run().estimate
            assert found.trusted
            pulls.append(pull(found, function.integral))
    assert_calibrated(pulls, DOF[1_000_000])
    assert_control(pulls, DOF[1_000_000])


@pytest.mark.parametrize(
    ("function", "calls"),
    [(LOST, 5000), (LOST, 20_000), (UNEQUAL, 20_000), (MIXED, 1000), (MIXED, 5000)],
    ids=["lost 5000", "lost 20000", "unequal", "mixed 1000", "mixed 5000"],
)
def test_what_is_far_off_carries_a_mark(function: Known, calls: int) -> None:
    """Peaks of which some point of the training has met at least the flank."""
    found = [run(function, calls, seed) for seed in range(12)]
    off = [result for result in found if abs(pull(result.estimate, function.integral)) > 5]
    assert not any(result.trusted for result in off)
    if calls >= 5000:
        assert off  # so that there is something to mark


def test_a_flow_that_lost_a_peak_carries_a_mark() -> None:
    found = [run(LOST, 10_000, seed, "auto") for seed in range(2)]
    assert any(abs(pull(result.estimate, 1.0)) > 5 for result in found)
    assert not any(result.trusted for result in found if abs(pull(result.estimate, 1.0)) > 5)


def test_the_mark_stands_wherever_the_number_does(tmp_path: Path) -> None:
    poor, good = run(LOST, 5000, 1), run(SIGNED, 5000, 1)
    for result, mark in ((poor, True), (good, False)):
        texts = [str(result), repr(result), result._repr_html_(), result.summary(), str(result.estimates)]
        assert [" (?)" in text for text in texts] == [mark] * len(texts)
        assert result.trusted is not mark and any("not reliable" in text for text in result.warnings) is mark
        again = nisampler.load(result.save(tmp_path / str(mark)))
        assert str(again) == str(result) and again.trusted is result.trusted


@pytest.mark.parametrize("kind", ["auto", "flow", "vegas"])
@pytest.mark.parametrize("calls", [200, 1000])
def test_so_few_calls_are_allowed(calls: int, kind: str) -> None:
    """vegas' own tutorial takes a thousand points for each of its iterations, and fewer are a beginning."""
    result = run(SIGNED, calls, 2, kind)
    assert abs(pull(result.estimate, 0.5)) < 6 or not result.trusted
    used = sum(result.calls[stage] for stage in ("detection", "training", "integration"))
    assert used <= 1.1 * calls and np.isfinite(result.estimate.error)


def test_fewer_calls_than_that_are_refused_by_name() -> None:
    for calls in (199, 0, -5, 2.5, True):
        with pytest.raises(ConfigError, match="calls"):
            nisampler.integrate(SIGNED, calls=calls)  # type: ignore[arg-type]
