"""One-dimensional maps and blocks of phase space: inverses, densities, limits, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError
from nisampler.processes.phase_space.blocks import (
    Exchange,
    FixedEnergy,
    Frame,
    MomentumFractions,
    decay,
    decay_inverse,
    transverse_axes,
)
from nisampler.processes.phase_space.kinematics import boost_from_rest, boost_to_rest, mass2
from nisampler.processes.phase_space.mappings import (
    LOGARITHMIC,
    BreitWigner,
    IntervalMap,
    PowerLaw,
    Uniform,
    finish_inverse,
)

MAPS = [
    Uniform(),
    LOGARITHMIC,
    PowerLaw(0.0),
    PowerLaw(2.0),
    PowerLaw(-1.5),
    PowerLaw(0.7, offset=3.0),
    PowerLaw(1.0 + 1e-9),
    PowerLaw(3.0, offset=100.0),
    BreitWigner(91.1876, 2.495514921),
    BreitWigner(400.0, 1e-3),
]


def cube(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=Streams(seed).generator("cube", dim))


def column(n: int, low: float, high: float, seed: int) -> Tensor:
    return low + (high - low) * cube(n, 1, seed)[:, 0]


@given(st.sampled_from(MAPS), st.floats(0.1, 1e4), st.floats(0.01, 1e6), st.integers(0, 1000))
def test_maps_are_inverted_and_give_their_density(kind: IntervalMap, low: float, length: float, seed: int) -> None:
    u = cube(50, 1, seed)[:, 0].requires_grad_()
    s, log_density = kind.forward(u, low, low + length)
    assert bool(((s >= low * (1 - 1e-12)) & (s <= (low + length) * (1 + 1e-12))).all())
    again, log_again = kind.inverse(s, low, low + length)
    (slope,) = torch.autograd.grad(s.sum(), u)
    forth, _ = kind.forward(again, low, low + length)
    assert torch.allclose(forth, s, rtol=1e-7)
    assert torch.allclose(log_again, log_density, atol=1e-6)
    assert torch.allclose(-torch.log(slope), log_density, atol=1e-6)


@pytest.mark.parametrize("kind", MAPS)
def test_densities_are_normalised(kind: IntervalMap) -> None:
    low, high = 90.0**2, 92.0**2
    value = quad(lambda s: math.exp(kind.inverse(torch.tensor(s, dtype=torch.float64), low, high)[1].item()), low, high)
    assert value[0] == pytest.approx(1, rel=1e-6)


def test_limits_may_be_tensors() -> None:
    low = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    u = torch.full((3,), 0.3, dtype=torch.float64)
    for kind in MAPS:
        many = kind.forward(u, low, 2 * low)
        single = [kind.forward(u[i], float(low[i]), 2 * float(low[i])) for i in range(3)]
        assert torch.allclose(many[0], torch.stack([s for s, _ in single]))
        assert torch.allclose(many[1], torch.stack([d for _, d in single]))


def test_a_power_law_with_offset_starts_at_zero() -> None:
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    s, _ = PowerLaw(2.0, offset=10.0).forward(u, 0.0, 1000.0)
    assert s[0] == 0
    assert s[2].item() == pytest.approx(1000, rel=1e-12)
    assert PowerLaw(2.0, offset=10.0).inverse(s, 0.0, 1000.0)[0][1].item() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", MAPS)
def test_nothing_is_infinite_on_an_empty_interval(kind: IntervalMap) -> None:
    s, log_density = kind.forward(cube(5, 1)[:, 0], 7.0, 7.0)
    assert torch.allclose(s, torch.full_like(s, 7.0))
    assert bool(torch.isfinite(log_density).all())


@pytest.mark.parametrize("kind", MAPS)
def test_points_outside_have_coordinates_outside(kind: IntervalMap) -> None:
    u, _ = kind.inverse(torch.tensor([8000.0, 9000.0], dtype=torch.float64), 8100.0, 8600.0)
    assert u[0] < 0
    assert u[1] > 1


def test_finish_inverse_marks_what_is_outside() -> None:
    first = torch.tensor([0.5, 1 + 1e-12, 1.1, math.nan, 0.2], dtype=torch.float64)
    log_g = torch.tensor([1.0, 2.0, 3.0, 4.0, math.nan], dtype=torch.float64)
    u, log_g = finish_inverse([first, first.unsqueeze(-1).expand(-1, 2)], log_g)
    assert log_g.tolist() == [1.0, 2.0, -math.inf, -math.inf, -math.inf]
    assert u.shape == (5, 3)
    assert bool(((u >= 0) & (u <= 1)).all())


@given(st.floats(1.0, 1e3), st.sampled_from([LOGARITHMIC, PowerLaw(2.0), BreitWigner(91.2, 2.5)]))
def test_momentum_fractions(min_mass: float, kind: IntervalMap) -> None:
    block = MomentumFractions(13000.0, min_mass, kind)
    u = cube(100, 2)
    s_hat, y, log_g = block.forward(u)
    x1, x2 = (s_hat.sqrt() / 13000.0 * torch.exp(sign * y) for sign in (1, -1))
    assert bool((torch.maximum(x1, x2) <= 1 + 1e-12).all())
    again, log_again = block.inverse(s_hat, y)
    assert torch.allclose(again, u, atol=1e-7)
    assert torch.allclose(log_again, log_g, atol=1e-6)


def test_momentum_fractions_cover_their_area() -> None:
    """The area of x_1 x_2 > tau_0 is 1 - tau_0 (1 - log tau_0)."""
    _, _, log_g = MomentumFractions(100.0, 10.0, Uniform()).forward(cube(100_000, 2))
    tau = 0.01
    weight = torch.exp(-log_g)
    assert abs(weight.mean().item() - (1 - tau * (1 - math.log(tau)))) < 4 * weight.std().item() / math.sqrt(100_000)


def test_axes_are_orthonormal_everywhere() -> None:
    z = torch.tensor([1.0, 0.3, -0.3, -1 + 1e-9, -1 + 1e-13, -1.0], dtype=torch.float64)
    side = ((1 - z) * (1 + z)).sqrt()
    axis = torch.stack([0.6 * side, 0.8 * side, z], dim=-1)
    basis = torch.stack([*transverse_axes(axis[:-1]), axis[:-1]], dim=-1)
    assert torch.allclose(basis.mT @ basis, torch.eye(3, dtype=torch.float64).expand(5, 3, 3), atol=1e-9)
    assert bool(torch.isfinite(torch.stack(transverse_axes(axis))).all())


def test_frame_is_the_usual_boost_and_stays_precise() -> None:
    total = torch.tensor([[50.0, 3.0, -20.0, 30.0]], dtype=torch.float64)
    p = torch.tensor([[7.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    frame = Frame(mass2(total).sqrt(), total)
    assert torch.allclose(frame.from_rest(p), boost_from_rest(p, total))
    assert torch.allclose(frame.to_rest(p), boost_to_rest(p, total))
    light = torch.tensor([1e-3], dtype=torch.float64)
    fast = torch.tensor([[math.hypot(5000.0, 1e-3), 3000.0, 0.0, 4000.0]], dtype=torch.float64)
    rest = torch.tensor([[5e-4, 0.0, 5e-4, 0.0]], dtype=torch.float64)
    made = Frame(light, fast).from_rest(rest)
    assert torch.allclose(made + Frame(light, fast).from_rest(rest * torch.tensor([1, -1, -1, -1])), fast, rtol=1e-13)
    assert torch.equal(Frame(light).to_rest(rest), rest)


@given(st.floats(0, 40), st.floats(0, 40), st.integers(0, 1000))
def test_decay(m1: float, m2: float, seed: int) -> None:
    u = cube(20, 2, seed)
    s, s1, s2 = (torch.full((20,), value, dtype=torch.float64) for value in (100.0**2, m1**2, m2**2))
    p1, log_g = decay(u, s, s1, s2)
    assert torch.allclose(mass2(p1), s1, atol=1e-8)
    rest = torch.tensor([100.0, 0, 0, 0], dtype=torch.float64) - p1
    assert torch.allclose(mass2(rest), s2, atol=1e-8)
    again, log_again = decay_inverse(p1, s, s1, s2)
    assert torch.allclose(again, u, atol=1e-7)
    assert torch.allclose(log_again, log_g)
    lam = (s - (m1 + m2) ** 2) * (s - (m1 - m2) ** 2)
    assert torch.allclose(torch.exp(-log_g), lam.sqrt() / (8 * math.pi * s))


@given(st.floats(0, 40), st.floats(0, 40), st.floats(0, 1e4), st.integers(0, 1000))
def test_exchange(m1: float, m2: float, virtuality: float, seed: int) -> None:
    """The transfer computed from the momenta is inside its limits, and the inverse undoes the map."""
    n = 20
    u = cube(n, 2, seed)
    s = column(n, 90.0**2, 110.0**2, seed)
    masses2 = torch.full((n,), m1**2, dtype=torch.float64), torch.full((n,), m2**2, dtype=torch.float64)
    t_a = torch.full((n,), virtuality, dtype=torch.float64)
    axis = torch.nn.functional.normalize(cube(n, 3, seed + 1) - 0.5, dim=-1)
    block = Exchange(PowerLaw(1.0, offset=10.0))
    p1, log_g = block.forward(u, s, masses2, t_a, axis)
    assert torch.allclose(mass2(p1), masses2[0], atol=1e-7)
    leg = torch.cat([((s - t_a) / (2 * s.sqrt())).unsqueeze(-1), axis * ((s + t_a) / (2 * s.sqrt())).unsqueeze(-1)], -1)
    low, high, _, _ = block._limits(s, t_a, *masses2)
    transfer = -mass2(leg - p1)
    expected, _ = block.transfer.forward(u[:, 0], low, high)
    assert torch.allclose(transfer, expected, rtol=1e-9, atol=1e-7)
    again, log_again = block.inverse(p1, s, masses2, t_a, axis)
    assert torch.allclose(again, u, atol=1e-6)
    assert torch.allclose(log_again, log_g, atol=1e-6)


def test_exchange_fills_two_body_phase_space() -> None:
    n = 100_000
    s, s1, s2, t_a = (torch.full((n,), value, dtype=torch.float64) for value in (1e4, 400.0, 900.0, 300.0))
    axis = torch.tensor([0.0, 0.6, -0.8], dtype=torch.float64).expand(n, 3)
    _, log_g = Exchange(PowerLaw(0.5, offset=500.0)).forward(cube(n, 2), s, (s1, s2), t_a, axis)
    weight = torch.exp(-log_g)
    volume = math.sqrt((1e4 - 50.0**2) * (1e4 - 10.0**2)) / (8 * math.pi * 1e4)
    assert abs(weight.mean().item() - volume) < 4 * weight.std().item() / math.sqrt(n)


def test_fixed_energy_knows_its_energy() -> None:
    block = FixedEnergy(100.0)
    s = torch.tensor([1e4, 1.1e4, 1e4], dtype=torch.float64)
    _, log_g = block.inverse(s, torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64))
    assert log_g.tolist() == [0.0, -math.inf, -math.inf]
    assert block.min_mass == 100.0


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"exponent = nan: must be a number"):
        PowerLaw(math.nan)
    with pytest.raises(ConfigError, match=r"offset = -1.0: must be a number, at least 0"):
        PowerLaw(1.0, offset=-1.0)
    with pytest.raises(ConfigError, match=r"width = 0.0: must be a number, more than 0"):
        BreitWigner(173.0, 0.0)
    with pytest.raises(ConfigError, match=r"min_mass = 0.0: must be"):
        MomentumFractions(100.0, 0.0)
    with pytest.raises(ConfigError, match="min_mass < max_mass"):
        MomentumFractions(100.0, 10.0, max_mass=5.0)
    with pytest.raises(ConfigError, match=r"sqrt_s = -1.0"):
        FixedEnergy(-1.0)
