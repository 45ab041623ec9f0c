"""Four-vector algebra."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nisampler.base.rng import Streams
from nisampler.errors import ShapeError
from nisampler.processes.phase_space import kinematics as k
from nisampler.processes.phase_space.rambo import RamboOnDiet

unit = st.floats(-0.95, 0.95)
seeds = st.integers(0, 1000)


def momenta(legs: int, n: int = 50, seed: int = 0, sqrt_s: float = 90.0) -> torch.Tensor:
    generator = Streams(seed).generator("momenta")
    u = torch.rand(n, 3 * legs - 4, dtype=torch.float64, generator=generator)
    return RamboOnDiet([0.0] * legs).forward(u, sqrt_s)[0]


def rotation(seed: int) -> torch.Tensor:
    a = torch.randn(3, 3, dtype=torch.float64, generator=Streams(seed).generator("rotation"))
    q, _ = torch.linalg.qr(a)
    return q * torch.linalg.det(q)


@given(unit, unit, unit, seeds)
def test_boost_keeps_products_and_is_undone(x: float, y: float, z: float, seed: int) -> None:
    velocity = 0.57 * torch.tensor([x, y, z], dtype=torch.float64)
    p = momenta(4, 5, seed)
    boosted = k.boost(p, velocity)
    assert torch.allclose(k.dot(boosted[:, 0], boosted[:, 1]), k.dot(p[:, 0], p[:, 1]), rtol=1e-9, atol=1e-9)
    assert torch.allclose(k.boost(boosted, -velocity), p, rtol=1e-10, atol=1e-10)


def test_boost_of_a_particle_at_rest() -> None:
    moved = k.boost(torch.tensor([2.0, 0, 0, 0], dtype=torch.float64), torch.tensor([0, 0, 0.6], dtype=torch.float64))
    assert torch.allclose(moved, torch.tensor([2.5, 0, 0, 1.5], dtype=torch.float64))
    assert k.mass(moved).item() == pytest.approx(2.0)


def test_boosts_to_and_from_rest() -> None:
    p = momenta(4)
    frame = p[:, 0] + p[:, 1]
    rest = k.boost_to_rest(frame, frame)
    assert torch.allclose(rest[:, 1:], torch.zeros_like(rest[:, 1:]), atol=1e-10)
    assert torch.allclose(rest[:, 0], k.mass(frame))
    there = k.boost_to_rest(p[:, 2], frame)
    assert torch.allclose(k.boost_from_rest(there, frame), p[:, 2], atol=1e-8)


@given(seeds)
def test_event_shapes_do_not_change_under_rotations(seed: int) -> None:
    p = momenta(3, 20, seed)
    turned = k.rotate(p, rotation(seed))
    assert torch.allclose(k.durham_y(turned), k.durham_y(p), rtol=1e-9, atol=1e-12)
    assert torch.allclose(k.thrust(turned), k.thrust(p), rtol=1e-12)
    assert torch.allclose(k.mass2(turned), k.mass2(p), atol=1e-9)


def test_angles_and_rapidities_of_known_vectors() -> None:
    p = torch.tensor([[5.0, 3.0, 0.0, 4.0], [5.0, 0.0, -3.0, 4.0]], dtype=torch.float64)
    assert k.pt(p).tolist() == [3.0, 3.0]
    assert k.phi(p).tolist() == pytest.approx([0.0, -math.pi / 2])
    assert k.eta(p).tolist() == pytest.approx([math.log(3.0)] * 2)
    assert torch.allclose(k.rapidity(p), k.eta(p))
    assert k.cos_theta(p).tolist() == pytest.approx([0.8, 0.8])
    assert k.delta_r(p[0], p[1]).item() == pytest.approx(math.pi / 2)


def test_rapidity_shifts_under_boosts_along_the_beam() -> None:
    p = momenta(4)
    shifted = k.boost(p, torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))
    assert torch.allclose(k.rapidity(shifted) - k.rapidity(p), torch.full_like(p[..., 0], math.atanh(0.5)))


def test_azimuthal_difference_wraps() -> None:
    def at(angle: float) -> torch.Tensor:
        return torch.tensor([1.0, math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)

    assert k.delta_phi(at(3.0), at(-3.0)).item() == pytest.approx(6.0 - 2 * math.pi)


def mercedes() -> torch.Tensor:
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3], dtype=torch.float64)
    zero = torch.zeros_like(angles)
    return torch.stack([torch.ones_like(angles), zero, torch.sin(angles), torch.cos(angles)], -1).unsqueeze(0)


def test_symmetric_three_partons() -> None:
    p = mercedes()
    assert k.thrust(p).item() == pytest.approx(2 / 3)
    assert k.durham_y23(p).item() == pytest.approx(1 / 3)


def test_three_massless_partons_in_closed_form() -> None:
    p = momenta(3, 500)
    x = 2 * p[..., 0] / p[..., 0].sum(-1, keepdim=True)
    assert torch.allclose(k.thrust(p), x.amax(-1))
    pairs = [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
    ratio = torch.stack([torch.minimum(x[:, i] / x[:, j], x[:, j] / x[:, i]) for i, j, _ in pairs], -1)
    expected = torch.stack([1 - x[:, m] for _, _, m in pairs], -1) * ratio
    assert torch.allclose(k.durham_y(p), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("legs", [2, 4, 5])
def test_thrust_is_the_maximum_over_directions(legs: int) -> None:
    p = momenta(legs, 10)
    value, axis = k.thrust_axis(p)
    total = p[..., 1:].square().sum(-1).sqrt().sum(-1)
    along = (p[..., 1:] @ axis.unsqueeze(-1)).abs().sum((-1, -2)) / total
    assert torch.allclose(along, value)
    trial = torch.randn(20_000, 3, dtype=torch.float64, generator=Streams(4).generator("axes"))
    trial = trial / trial.square().sum(-1, keepdim=True).sqrt()
    scanned = ((p[..., 1:] @ trial.T).abs().sum(1) / total.unsqueeze(-1)).amax(-1)
    assert bool((scanned <= value + 1e-12).all())
    assert torch.allclose(scanned, value, rtol=2e-3)


def test_batch_axes_are_free() -> None:
    p = momenta(3, 12).reshape(3, 4, 3, 4)
    assert k.thrust(p).shape == (3, 4)
    assert k.durham_y23(p).shape == (3, 4)


def test_wrong_multiplicities_are_refused() -> None:
    with pytest.raises(ShapeError, match="3, 4"):
        k.durham_y23(momenta(4))
    with pytest.raises(ShapeError, match="2 to 16"):
        k.thrust(torch.ones(1, 17, 4))
    with pytest.raises(ShapeError, match="2 to 16"):
        k.thrust(torch.ones(1, 1, 4))
