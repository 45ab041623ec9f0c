"""Symmetries of collisions: seen where they are, and refused where a cut or a matrix element breaks them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import nisampler
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.flows import Action
from nisampler.processes.hadron.cuts import TransverseMomentumCut
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.training.trainer import Trainer


def uniform(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_stated(process: HadronProcess, n: int = 2000) -> None:
    """The cross-section in each channel, before channel weights, has the symmetries that are stated of its group."""
    channels = process.multichannel.channels
    first, u = int(len(channels) > 1), uniform(n, process.dim)
    value = process.multichannel.evaluate(u).value
    assert float((value > 0.0).double().mean()) > 0.05
    channel = (u[:, 0] * len(channels)).long() if first else torch.zeros(n, dtype=torch.long)
    group = torch.tensor(process.multichannel.groups)[channel]
    for number, symmetry in enumerate(process.symmetry()):
        own, expected = u[group == number], value[group == number]
        inner = own[:, first:]
        turned = inner.clone()
        columns = list(symmetry.turned)
        turned[:, columns] = torch.remainder(inner[:, columns] + 0.3, 1.0)
        for moved in (turned, *(action.of(symmetry.counted(inner)) for action in symmetry.actions)):
            other = process.multichannel.evaluate(torch.cat([own[:, :first], moved], 1)).value
            torch.testing.assert_close(other, expected, rtol=1e-6, atol=1e-9 * float(value.max()))


@pytest.mark.parametrize(
    ("name", "options", "actions"),
    [
        ("w_plus_jets", {"n_jets": 1}, [2]),
        ("w_plus_jets", {"n_jets": 2}, [3, 2, 2]),
        ("z_jets", {"n_jets": 0}, [1]),
        ("g g > t t~ g", {}, [3]),
    ],
)
def test_the_cross_section_has_the_symmetries_that_are_stated(
    name: str, options: dict[str, int], actions: list[int]
) -> None:
    process = create(name, **options)
    assert isinstance(process, HadronProcess)
    found = process.symmetry()
    assert [len(symmetry.actions) for symmetry in found] == actions
    assert all(len(symmetry.turned) == 1 for symmetry in found)
    if name != "z_jets":  # widths leave a percent of it odd
        assert_stated(process)


def test_azimuths_that_turn_together_and_bosons_that_are_alike() -> None:
    """Two equal bosons between jets of different flavours; widths leave some percent odd under reflections."""
    process = create("u c > w+ w+ d s QCD=0")
    assert isinstance(process, HadronProcess)
    for symmetry in process.symmetry():
        assert symmetry.turned == (2, 5, 8)
        mirror, exchange = symmetry.actions
        assert mirror == Action.reflection(5, 8) and not exchange.diagonal
        assert {(0, 3, -1, 0), (3, 0, -1, 0)} <= set(exchange.rows)


class OneSided:
    """A cut that sees which side of the beams a leg is on."""

    legs = (0,)

    def __init__(self, component: int) -> None:
        self.component = component

    def mask(self, p: Tensor) -> Tensor:
        return p[:, 0, self.component] > 0.0


@pytest.mark.parametrize(("component", "left"), [(2, Action.reflection(1, 3, 5)), (3, Action.reflection(2))])
def test_a_one_sided_cut_breaks_what_it_sees(component: int, left: Action) -> None:
    process = create("w_plus_jets", n_jets=1)
    assert isinstance(process, HadronProcess)
    cuts = type(process.setup.cuts)([*process.setup.cuts.cuts, OneSided(component)], process.sqrt_s)
    (found,) = HadronProcess(dataclasses.replace(process.setup, cuts=cuts)).symmetry()
    assert found.turned == (() if component == 2 else (6,))
    assert found.actions == (left,)


def test_a_cut_on_one_of_the_jets_keeps_them_apart() -> None:
    process = create("w_plus_jets", n_jets=2)
    assert isinstance(process, HadronProcess)
    cuts = type(process.setup.cuts)(
        [*process.setup.cuts.cuts, TransverseMomentumCut((process.setup.final_state.jets[0],), 60.0)], process.sqrt_s
    )
    found = HadronProcess(dataclasses.replace(process.setup, cuts=cuts)).symmetry()
    assert all(action.diagonal for symmetry in found for action in symmetry.actions)
    assert any(not action.diagonal for symmetry in process.symmetry() for action in symmetry.actions)


def test_a_training_learns_what_is_left() -> None:
    process = create("w_plus_jets", n_jets=1)
    small = FlowSettings(hidden=16, layers=1, fourier=0)
    found = Trainer(Integrand(process), TrainingConfig(calls=5000, sampler="flow", flow=small), Streams(1))
    found.fit()
    assert found.flow is not None
    flow = found.flow.arms[0].sampler.model
    assert flow.origin[1]["config"].symmetry == process.symmetry() != ()  # type: ignore[attr-defined, index]
    result = nisampler.integrate(
        process,
        training=TrainingConfig(calls=5000, sampler="flow", flow=small),
        integration=nisampler.IntegrationConfig(points=8192),
    )
    plain = uniform(100_000, process.dim)
    value = process(plain)
    expected, error = float(value.mean()), float(value.std()) / 100_000**0.5
    assert abs(result.estimate.value - expected) < 5.0 * (error**2 + result.estimate.error**2) ** 0.5
