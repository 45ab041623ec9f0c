"""Derivatives of cross-sections with respect to points of the cube: phase space, densities, couplings, elements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create

STEP = 1e-6
"""Small, since densities have kinks at their knots."""
PROCESSES: list[tuple[str, dict[str, Any]]] = [
    ("z_prime", {}),
    ("w_plus_jets", {"n_jets": 1}),
    ("z_jets", {"n_jets": 2}),
    ("ttbar", {"scale": "H_T/2"}),
    ("ttbar_jet", {}),
    ("p p > e+ ve j j", {"scale": "H_T/2"}),
    ("p p > t t~ j", {}),
    ("p p > w+ w- z", {}),
    ("p p > e+ e- mu+ mu-", {"scheme": "complex"}),
    ("u c > w+ w+ d s QCD=0", {"alpha_s": 0.118}),
    ("u u > d d e+ ve mu+ vm QCD=0", {"scale": "m_W"}),
]


def made(name: str, **parameters: Any) -> Any:
    """A process; what it learned of its elements in float64, since single precision shows in small steps."""
    process = create(name, **parameters)
    if isinstance(process, HadronProcess) and process.choice is not None:
        learned = process.choice._choice
        learned.weights.double()
        vars(learned)["_kernel"] = None
    return process


def points(process: Any, count: int, seed: int) -> Tensor:
    """Points (count, dim) inside the cuts, as are those near them."""
    generator = torch.Generator().manual_seed(seed)
    u = 0.02 + 0.96 * torch.rand(1500, process.dim, generator=generator, dtype=torch.float64)
    return u[inside(process, u)][:count]


def inside(process: Any, u: Tensor) -> Tensor:
    """Mask of points that stay inside the cuts, and in their channel, in every direction."""
    kept = process(u) > 0
    for axis in range(process.dim):
        for step in (-2 * STEP, 2 * STEP):
            moved = u.clone()
            moved[:, axis] += step
            kept &= process(moved) > 0
    return kept


def errors(process: Any, u: Tensor) -> Tensor:
    """Differences (n,) of the derivative to that along the axes in small steps, in units of value and derivative."""
    leaf = u.clone().requires_grad_()
    value = process(leaf)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    expected = torch.empty_like(found)
    for axis in range(process.dim):
        step = torch.zeros(process.dim, dtype=torch.float64)
        step[axis] = STEP
        near, far = (process(u + k * step) - process(u - k * step) for k in (1, 2))
        expected[:, axis] = (8 * near - far) / (12 * STEP)
    size = value.detach().abs() + expected.abs().amax(1)
    return (found - expected).abs().amax(1) / size


@pytest.mark.parametrize(("name", "parameters"), PROCESSES)
def test_the_derivative_of_a_cross_section_is_that_of_small_steps(name: str, parameters: dict[str, Any]) -> None:
    process = made(name, **parameters)
    u = points(process, 25, seed=5)
    assert len(u) >= 10
    found = errors(process, u)
    assert found.median() < 1e-7
    # Narrow resonances cost digits of the steps, not of the derivative.
    assert found.max() < 1e-4


def test_a_missing_part_of_the_derivative_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    process = create("ttbar", scale="H_T/2")
    assert isinstance(process, HadronProcess)
    u, density = points(process, 25, seed=5), process.setup.pdf
    whole = density.xf
    monkeypatch.setattr(density, "xf", lambda x, q2: whole(x, q2.detach()))
    assert errors(process, u).median() > 1e-4


@pytest.mark.parametrize("name", ["z_prime", "p p > e+ ve j j", "ttbar_jet"])
def test_the_derivative_outside_the_cuts_is_zero(name: str) -> None:
    process = create(name)
    generator = torch.Generator().manual_seed(2)
    u = torch.rand(300, process.dim, generator=generator, dtype=torch.float64).requires_grad_()
    value = process(u)
    (found,) = torch.autograd.grad(value.sum(), u)
    assert bool(torch.isfinite(found).all())
    assert bool((found[value == 0] == 0).all())
    assert bool((found[value != 0] != 0).any(1).all())


def test_a_point_with_and_without_its_derivative_has_one_value() -> None:
    process = create("p p > t t~ j")
    u = points(process, 50, seed=3)
    with torch.no_grad():
        plain = process(u)
    assert torch.allclose(process(u.requires_grad_()), plain, rtol=1e-12, atol=0.0)


def test_the_coupling_alone_may_ask_for_a_derivative() -> None:
    amplitude = RecursiveAmplitude("g g > t t~ g")
    process = create("p p > t t~ j")
    assert isinstance(process, HadronProcess)
    p = process.momenta(points(process, 4, seed=4))
    incoming = process._incoming(process.fractions(p))
    alpha_s = torch.full((len(p),), 0.118, dtype=torch.float64, requires_grad=True)
    value = amplitude.squared(incoming, p, alpha_s)
    (slope,) = torch.autograd.grad(value.sum(), alpha_s)
    assert torch.allclose(slope * alpha_s, 3 * value[:, 0], rtol=1e-12, atol=0.0)


def test_langevin_steps_keep_to_the_cross_section() -> None:
    """Metropolis-adjusted Langevin steps from points of the cross-section stay points of it."""
    process = create("ttbar")
    generator = torch.Generator().manual_seed(8)
    u = torch.rand(20000, process.dim, generator=generator, dtype=torch.float64)
    weights = process(u)
    sample = u[torch.multinomial(weights, 2000, replacement=True, generator=generator)]
    rapidity = sample[:, 0].clone()

    def log_density(place: Tensor) -> tuple[Tensor, Tensor]:
        leaf = place.clone().requires_grad_()
        value = process(leaf.clamp(0.0, 1.0)).log()
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        return torch.where(((place >= 0) & (place <= 1)).all(1), value.detach(), -torch.inf), slope

    size, (before, slope), accepted = 0.02, log_density(sample), 0
    for _ in range(10):
        ahead = sample + size**2 / 2 * slope
        moved = ahead + size * torch.randn(sample.shape, generator=generator, dtype=torch.float64)
        after, other = log_density(moved)
        back = moved + size**2 / 2 * other
        ratio = after - before + ((moved - ahead).square() - (sample - back).square()).sum(1) / (2 * size**2)
        taken = torch.rand(len(sample), generator=generator, dtype=torch.float64).log() < ratio
        sample = torch.where(taken.unsqueeze(1), moved, sample)
        before, slope = torch.where(taken, after, before), torch.where(taken.unsqueeze(1), other, slope)
        accepted += int(taken.sum())
    assert accepted > 0.8 * 10 * len(sample)
    moments = torch.stack([(u**k * weights.unsqueeze(1)).sum(0) / weights.sum() for k in (1, 2)])
    found = torch.stack([(sample**k).mean(0) for k in (1, 2)])
    assert bool(((found - moments).abs() < 4 * torch.stack([sample.std(0), (sample**2).std(0)]) / 2000**0.5).all())
    assert float((sample[:, 0] - rapidity).abs().mean()) > size
