"""Symmetries of collisions: seen where they are, and refused where a cut or a matrix element breaks them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import nisampler
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.flows import Symmetry
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.training.trainer import Trainer


def uniform(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "options", "mirrors"),
    [("w_plus_jets", {"n_jets": 1}, 2), ("w_plus_jets", {"n_jets": 2}, 1), ("z_jets", {"n_jets": 0}, 1)],
)
def test_the_cross_section_has_the_symmetries_that_are_stated(name: str, options: dict[str, int], mirrors: int) -> None:
    process = create(name, **options)
    assert isinstance(process, HadronProcess)
    found, first = process.symmetry(), int(len(process.setup.channels) > 1)
    assert len(found.mirrors) == mirrors and len(found.flat) == 1
    u = uniform(2000, process.dim)
    value = process(u)
    assert float((value > 0.0).double().mean()) > 0.05
    for mirror in found.mirrors:
        other = u.clone()
        own = [first + k for k in mirror]
        other[:, own] = 1.0 - other[:, own]
        torch.testing.assert_close(process(other), value, rtol=1e-6, atol=0.0)
    turned = u.clone()
    turned[:, first + found.flat[0]] = uniform(2000, 1, seed=2)[:, 0]
    torch.testing.assert_close(process(turned), value, rtol=1e-6, atol=0.0)


class OneSided:
    """A cut that sees which side of the beams a leg is on."""

    legs = (0,)

    def __init__(self, component: int) -> None:
        self.component = component

    def mask(self, p: Tensor) -> Tensor:
        return p[:, 0, self.component] > 0.0


@pytest.mark.parametrize(("component", "left"), [(2, ((1, 3, 5),)), (3, ((2, 6),))])
def test_a_one_sided_cut_breaks_what_it_sees(component: int, left: tuple[tuple[int, ...], ...]) -> None:
    process = create("w_plus_jets", n_jets=1)
    assert isinstance(process, HadronProcess)
    cuts = type(process.setup.cuts)([*process.setup.cuts.cuts, OneSided(component)], process.sqrt_s)
    found = HadronProcess(dataclasses.replace(process.setup, cuts=cuts)).symmetry()
    assert found.flat == (() if component == 2 else (6,))
    assert found.mirrors == (() if component == 2 else left)


def test_a_training_learns_what_is_left() -> None:
    process = create("w_plus_jets", n_jets=1)
    small = FlowSettings(hidden=16, layers=1, fourier=0)
    found = Trainer(Integrand(process), TrainingConfig(calls=5000, sampler="flow", flow=small), Streams(1))
    found.fit()
    assert found.flow is not None
    flow = found.flow.arms[0].sampler.model
    assert flow.origin[1]["config"].symmetry == process.symmetry() != Symmetry()  # type: ignore[attr-defined, index]
    result = nisampler.integrate(
        process,
        training=TrainingConfig(calls=5000, sampler="flow", flow=small),
        integration=nisampler.IntegrationConfig(points=8192),
    )
    plain = uniform(100_000, process.dim)
    value = process(plain)
    expected, error = float(value.mean()), float(value.std()) / 100_000**0.5
    assert abs(result.estimate.value - expected) < 5.0 * (error**2 + result.estimate.error**2) ** 0.5
