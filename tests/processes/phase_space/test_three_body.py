"""The three-body map: regions, inverse, Jacobian, conservation laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.processes.phase_space.kinematics import durham_y23, mass2
from nisampler.processes.phase_space.rambo import RamboOnDiet, massless_volume
from nisampler.processes.phase_space.three_body import (
    DalitzRegion,
    DurhamRegion,
    ThreeBodyMap,
    TransverseMomentumRegion,
)

SQRT_S = 91.1876
REGIONS: list[DalitzRegion] = [
    DurhamRegion(0.001),
    DurhamRegion(0.01),
    DurhamRegion(0.25),
    TransverseMomentumRegion(1e-4),
    TransverseMomentumRegion.around_durham(0.01),
]


def cube(n: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 5, dtype=torch.float64, generator=Streams(seed).generator("cube"))


def dalitz_coordinates(momenta: torch.Tensor) -> torch.Tensor:
    """(x_1, x_2, cos theta, phi, chi): axis p_1 - p_2 and the azimuth of parton 3 about it."""
    x = 2 * momenta[:2, 0] / SQRT_S
    axis = momenta[0, 1:] - momenta[1, 1:]
    n = axis / axis.norm()
    east = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), n)
    east = east / east.norm()
    south = torch.linalg.cross(east, n)
    third = momenta[2, 1:]
    return torch.stack([x[0], x[1], n[2], torch.atan2(n[1], n[0]), torch.atan2(third @ east, third @ south)])


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_momenta_are_conserved_and_massless(region: DalitzRegion) -> None:
    momenta, weight = ThreeBodyMap(region).forward(cube(5000), SQRT_S)
    total = torch.tensor([SQRT_S, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(momenta.sum(1), total.expand(5000, 4), atol=1e-11)
    assert torch.allclose(mass2(momenta), torch.zeros(5000, 3, dtype=torch.float64), atol=1e-7)
    assert bool((weight > 0).all())


@given(st.sampled_from(REGIONS), st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5))
@example(DurhamRegion(0.001), [1.9e-10, 0.0, 0.0, 0.0, 0.0])
def test_inverse(region: DalitzRegion, point: list[float]) -> None:
    u = torch.tensor([point], dtype=torch.float64)
    mapping = ThreeBodyMap(region)
    momenta, _ = mapping.forward(u, SQRT_S)
    again, _ = mapping.forward(mapping.inverse(momenta), SQRT_S)
    assert torch.allclose(again, momenta, atol=1e-5)


@pytest.mark.parametrize("region", [item for item in REGIONS if isinstance(item, DurhamRegion)], ids=str)
def test_corners_and_edges_are_inside(region: DalitzRegion) -> None:
    """There the interval of the second number is smaller than the rounding of momenta."""
    edges = torch.tensor([0.0, 1e-300, 1e-17, 1e-10, 1e-6, 0.5], dtype=torch.float64)
    edges = torch.cat([edges, 1 - edges])
    u = torch.cat([torch.cartesian_prod(edges, edges), cube(len(edges) ** 2)[:, :3]], 1)
    mapping = ThreeBodyMap(region)
    momenta = mapping.forward(u, SQRT_S)[0]
    assert torch.allclose(mapping.forward(mapping.inverse(momenta), SQRT_S)[0], momenta, atol=1e-8)


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_inverse_gives_the_cube_point_back(region: DalitzRegion) -> None:
    u = cube(5000, 2)
    mapping = ThreeBodyMap(region)
    assert torch.allclose(mapping.inverse(mapping.forward(u, SQRT_S)[0]), u, atol=1e-8)


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_weight_against_autograd(region: DalitzRegion) -> None:
    """d Phi_3 = s / (128 pi^3) dx_1 dx_2 d cos theta d phi d chi / (8 pi^2)."""
    mapping = ThreeBodyMap(region)
    u = cube(10, 3)
    weight = mapping.forward(u, SQRT_S)[1]
    for point, expected in zip(u, weight, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: dalitz_coordinates(mapping.forward(v.unsqueeze(0), SQRT_S)[0][0]), point
        )
        volume = SQRT_S**2 / (128 * math.pi**3) * torch.linalg.det(jacobian).abs() / (8 * math.pi**2)
        assert volume.item() == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_volume_of_the_region_agrees_with_flat_phase_space(region: DalitzRegion) -> None:
    """The share of flat phase space whose points the region holds, found from RAMBO."""
    flat, _ = RamboOnDiet([0.0] * 3).forward(cube(300_000, 4), SQRT_S)
    if isinstance(region, DurhamRegion):
        inside = durham_y23(flat) > region.y_cut
    else:
        x = 2 * flat[..., 0] / SQRT_S
        inside = (1 - x[:, 0]) * (1 - x[:, 1]) > region.kt2_min  # type: ignore[attr-defined]
    share = inside.double().mean().item()
    _, weight = ThreeBodyMap(region).forward(cube(300_000, 5), SQRT_S)
    volume = weight / massless_volume(3, SQRT_S)
    error = math.sqrt((share * (1 - share) + volume.var().item()) / 300_000)
    assert abs(volume.mean().item() - share) < 4 * error


@pytest.mark.parametrize("y_cut", [1e-4, 0.01, 0.1, 0.2, 0.32])
def test_durham_region_is_the_cut(y_cut: float) -> None:
    """Inside points pass the cut, its edges lie on it, points beyond the edges fail."""
    mapping = ThreeBodyMap(DurhamRegion(y_cut))
    u = cube(3000, 6)
    assert bool((durham_y23(mapping.forward(u, SQRT_S)[0]) > y_cut * (1 - 1e-9)).all())
    for edge, beyond in ((0.0, -1e-6), (1.0, 1 + 1e-6)):
        u[:, 1] = edge
        on = durham_y23(mapping.forward(u, SQRT_S)[0])
        assert torch.allclose(on, torch.full_like(on, y_cut), rtol=1e-7)
        u[:, 1] = beyond
        assert bool((durham_y23(mapping.forward(u, SQRT_S)[0]) < y_cut).all())


@pytest.mark.parametrize("y_cut", [1e-3, 0.01, 0.1, 0.3])
def test_transverse_momentum_region_holds_the_durham_region(y_cut: float) -> None:
    inner, outer = (
        ThreeBodyMap(DurhamRegion(y_cut)),
        ThreeBodyMap(TransverseMomentumRegion.around_durham(y_cut)),
    )
    momenta, _ = inner.forward(cube(5000, 7), SQRT_S)
    u = outer.inverse(momenta)
    assert bool(((u >= 0) & (u <= 1)).all())
    outside, _ = outer.forward(cube(5000, 8), SQRT_S)
    with pytest.raises(DomainError, match="DurhamRegion"):
        inner.inverse(outside)


def test_orientation_is_isotropic() -> None:
    momenta, _ = ThreeBodyMap(DurhamRegion(0.01)).forward(cube(100_000, 9), SQRT_S)
    for leg in range(3):
        n = momenta[:, leg, 1:] / momenta[:, leg, :1]
        second = (n.unsqueeze(-1) * n.unsqueeze(-2)).mean(0)
        assert torch.allclose(n.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.01)
        assert torch.allclose(second, torch.eye(3, dtype=torch.float64) / 3, atol=0.01)


def test_every_corner_of_the_cube_is_finite() -> None:
    for dtype in (torch.float32, torch.float64):
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0], dtype=dtype)] * 5)
        for region in REGIONS:
            momenta, weight = ThreeBodyMap(region).forward(corners, SQRT_S)
            assert momenta.dtype == dtype
            assert bool(torch.isfinite(momenta).all() & torch.isfinite(weight).all())


@pytest.mark.parametrize("y_cut", [0.0, -1.0, 1 / 3, math.nan])
def test_cut_outside_its_range_is_refused(y_cut: float) -> None:
    with pytest.raises(ConfigError, match="y_cut"):
        DurhamRegion(y_cut)
    with pytest.raises(ConfigError, match="y_cut"):
        TransverseMomentumRegion.around_durham(y_cut)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="kt2_min"):
        TransverseMomentumRegion(0.25)
    mapping = ThreeBodyMap(DurhamRegion(0.01))
    with pytest.raises(ShapeError, match=r"\(n, 5\)"):
        mapping.forward(torch.zeros(3, 4), SQRT_S)
    with pytest.raises(ShapeError, match="3, 4"):
        mapping.inverse(torch.zeros(3, 4, 4))
