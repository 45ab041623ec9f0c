"""RAMBO and RAMBO on diet: volumes, inverses, conservation laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, DomainError, ProcessError, ShapeError
from nisampler.processes.phase_space.kinematics import dot, mass2
from nisampler.processes.phase_space.rambo import Rambo, RamboOnDiet, massless_volume

SQRT_S = 100.0
MASSES = [
    [0.0, 0.0],
    [10.0, 30.0],
    [0.0, 0.0, 0.0],
    [5.0, 0.0, 40.0],
    [0.0] * 4,
    [20.0, 1.0, 0.0, 30.0],
    [3.0] * 6,
]


def cube(n: int, dim: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=Streams(seed).generator("cube", dim))


def kallen(a: float, b: float, c: float) -> float:
    return a * a + b * b + c * c - 2 * (a * b + b * c + c * a)


def two_body_volume(total: float, m1: float, m2: float) -> float:
    return math.sqrt(max(kallen(total**2, m1**2, m2**2), 0.0)) / (8 * math.pi * total**2)


def three_body_volume(total: float, m1: float, m2: float, m3: float) -> float:
    def slice_(m: float) -> float:
        return two_body_volume(total, m1, m) * two_body_volume(m, m2, m3) * m / math.pi

    return quad(slice_, m2 + m3, total - m1, epsrel=1e-10)[0]


@pytest.mark.parametrize("masses", MASSES)
@pytest.mark.parametrize("kind", [Rambo, RamboOnDiet])
def test_momenta_are_conserved_and_on_shell(kind: type[Rambo | RamboOnDiet], masses: list[float]) -> None:
    generator = kind(masses)
    momenta, weight = generator.forward(cube(2000, generator.dim), SQRT_S)
    total = torch.tensor([SQRT_S, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(momenta.sum(1), total.expand(2000, 4), atol=1e-9)
    assert torch.allclose(mass2(momenta), torch.tensor(masses, dtype=torch.float64).square(), atol=1e-7)
    assert bool((weight > 0).all())


@pytest.mark.parametrize("legs", [2, 3, 4, 7])
@pytest.mark.parametrize("kind", [Rambo, RamboOnDiet])
def test_massless_weight_is_the_volume(kind: type[Rambo | RamboOnDiet], legs: int) -> None:
    generator = kind([0.0] * legs)
    _, weight = generator.forward(cube(10, generator.dim), SQRT_S)
    assert torch.allclose(weight, torch.full_like(weight, massless_volume(legs, SQRT_S)))


def test_massless_volumes_in_closed_form() -> None:
    assert massless_volume(2, SQRT_S) == pytest.approx(1 / (8 * math.pi))
    assert massless_volume(3, SQRT_S) == pytest.approx(SQRT_S**2 / (2 * (4 * math.pi) ** 3 * 2))
    assert massless_volume(3, SQRT_S) == pytest.approx(three_body_volume(SQRT_S, 0, 0, 0))


@pytest.mark.parametrize("kind", [Rambo, RamboOnDiet])
@pytest.mark.parametrize("masses", [[10.0, 30.0], [5.0, 0.0, 40.0], [30.0, 30.0, 30.0]])
def test_massive_volume_agrees_with_quadrature(kind: type[Rambo | RamboOnDiet], masses: list[float]) -> None:
    generator = kind(masses)
    _, weight = generator.forward(cube(200_000, generator.dim, 7), SQRT_S)
    exact = (two_body_volume if len(masses) == 2 else three_body_volume)(SQRT_S, *masses)
    error = weight.std().item() / math.sqrt(len(weight))
    assert abs(weight.mean().item() - exact) < 4 * error + 1e-9 * exact


@pytest.mark.parametrize("masses", [[0.0] * 4, [10.0, 0.0, 25.0, 5.0]])
def test_both_generators_give_the_same_distribution(masses: list[float]) -> None:
    """Mean of two invariants under the weights; the same with a wrong weight must differ."""
    results = []
    for kind in (Rambo, RamboOnDiet):
        generator = kind(masses)
        momenta, weight = generator.forward(cube(200_000, generator.dim, 3), SQRT_S)
        s12 = dot(momenta[:, 0], momenta[:, 1])
        values = torch.stack([weight, weight * s12, weight * momenta[:, 3, 0].square()], 1)
        results.append((values.mean(0), values.var(0) / len(values), s12.mean()))
    difference = results[0][0] - results[1][0]
    assert bool((difference.square() < 16 * (results[0][1] + results[1][1]) + 1e-20 * results[0][0] ** 2).all())


def test_unweighted_massive_points_would_be_wrong() -> None:
    generator = RamboOnDiet([30.0, 30.0, 30.0])
    momenta, weight = generator.forward(cube(200_000, generator.dim, 5), SQRT_S)
    energy = momenta[:, 0, 0]
    flat = energy.mean()
    proper = (weight * energy).sum() / weight.sum()
    assert abs(flat - proper) > 6 * energy.std() / math.sqrt(len(energy))


@given(st.sampled_from(MASSES), st.integers(0, 10_000))
def test_diet_inverse(masses: list[float], seed: int) -> None:
    generator = RamboOnDiet(masses)
    u = cube(20, generator.dim, seed)
    momenta, _ = generator.forward(u, SQRT_S)
    again, _ = generator.forward(generator.inverse(momenta), SQRT_S)
    assert torch.allclose(again, momenta, atol=1e-6)
    difference = (generator.inverse(momenta) - u).abs()
    assert float(torch.minimum(difference, 1 - difference).max()) < 1e-7


@pytest.mark.parametrize("masses", [[0.0, 0.0, 0.0], [5.0, 0.0, 40.0]])
def test_diet_jacobian_against_autograd(masses: list[float]) -> None:
    """d Phi_3 = d E_1 d E_2 d cos theta d phi d chi / (8 (2 pi)^5): the weight follows from d(...)/du."""
    generator = RamboOnDiet(masses)

    def coordinates(u: torch.Tensor) -> torch.Tensor:
        p = generator.forward(u.unsqueeze(0), SQRT_S)[0][0]
        n = p[0, 1:] / p[0, 1:].norm()
        normal = torch.linalg.cross(p[0, 1:], p[1, 1:])
        normal = normal / normal.norm()
        east = torch.stack([-n[1], n[0], torch.zeros_like(n[0])])
        chi = torch.atan2(
            (normal * torch.linalg.cross(n, east / east.norm())).sum(), (normal * east / east.norm()).sum()
        )
        return torch.stack([p[0, 0], p[1, 0], n[2], torch.atan2(n[1], n[0]), chi])

    u = 0.1 + 0.8 * cube(12, generator.dim, 9)
    _, weight = generator.forward(u, SQRT_S)
    for point, expected in zip(u, weight, strict=True):
        jacobian = torch.autograd.functional.jacobian(coordinates, point)
        value = torch.linalg.det(jacobian).abs() / (8 * (2 * math.pi) ** 5)
        assert value.item() == pytest.approx(expected.item(), rel=1e-7)


def test_weights_stay_finite_on_the_faces_of_the_cube() -> None:
    for dtype in (torch.float32, torch.float64):
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=dtype)] * 5)
        momenta, weight = RamboOnDiet([1.0, 2.0, 3.0]).forward(corners, SQRT_S)
        assert momenta.dtype == dtype
        assert bool(torch.isfinite(weight).all() & torch.isfinite(momenta).all())


def test_errors() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        RamboOnDiet([0.0])
    with pytest.raises(ConfigError, match=r"masses = \(0.0, -1.0\): must be"):
        Rambo([0.0, -1.0])
    with pytest.raises(ConfigError, match=r"masses = \(0.0, nan\): must be"):
        Rambo([0.0, math.nan])
    with pytest.raises(ProcessError, match="not above"):
        RamboOnDiet([60.0, 60.0]).forward(cube(1, 2), SQRT_S)
    with pytest.raises(ShapeError, match=r"\(n, 5\)"):
        RamboOnDiet([0.0] * 3).forward(cube(1, 4), SQRT_S)
    with pytest.raises(ShapeError, match="3, 4"):
        RamboOnDiet([0.0] * 3).inverse(torch.ones(2, 4, 4))
    with pytest.raises(DomainError, match="RamboOnDiet"):
        Rambo([0.0] * 3).inverse(torch.ones(2, 3, 4))


def test_energies_are_flat_in_the_dalitz_plane() -> None:
    """Massless three-body phase space is uniform in (x_1, x_2): mean 2/3, variance 1/18, covariance -1/36."""
    momenta, _ = RamboOnDiet([0.0] * 3).forward(cube(200_000, 5, 2), SQRT_S)
    x = (2 * momenta[..., 0] / SQRT_S).numpy()
    covariance = np.cov(x.T)
    assert np.allclose(x.mean(0), 2 / 3, atol=4 * math.sqrt(1 / 18 / 200_000))
    assert np.allclose(np.diag(covariance), 1 / 18, rtol=0.02)
    assert np.allclose(covariance[0, 1], -1 / 36, rtol=0.03)
