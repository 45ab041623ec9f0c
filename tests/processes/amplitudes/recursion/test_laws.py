"""Laws of amplitudes: gauge invariance, unitarity at high energy, symmetries, gradients, sums over spins."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from nisampler.errors import AmplitudeError, ConfigError, ShapeError
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.recursion.waves import Leg, conjugated, light_cone, wave
from nisampler.processes.parameters import StandardModel

MODEL = StandardModel().on_shell()
ALPHA_S = torch.tensor([0.118], dtype=torch.float64)
METRIC = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.complex128))


class Broken(Couplings):
    """A negative control: bosons couple to each other a tenth too weakly."""

    def triple(self, boson: int) -> complex:
        return 0.9 * super().triple(boson)


def momenta(element: MatrixElement, points: int = 3) -> Tensor:
    return probe_momenta([leg.mass for leg in element.legs], points=points)


def cartesian(vector: Tensor) -> Tensor:
    plus, minus, left, right = vector
    return torch.stack([(plus + minus) / 2, (left + right) / 2, (left - right) / 2j, (plus - minus) / 2])


def with_momentum_for(element: MatrixElement, p: Tensor, leg: int) -> Tensor:
    """Amplitudes in which the polarisation of a leg is replaced by its momentum, over a typical energy."""
    waves = []
    for item in element.plan.waves:
        if item.leg == leg:
            plus, minus, x, y = light_cone(p[:, leg], 0.0).unbind(-1)
            zero = torch.zeros_like(x)
            parts = (torch.complex(plus, zero), torch.complex(minus, zero), torch.complex(x, y), torch.complex(x, -y))
            waves.append(torch.stack(parts) / p[:, leg, 0])
        else:
            waves.append(wave(element.legs[item.leg], p[:, item.leg], item.helicity or 0, item.part))
    return element.tables(p.device).loop(torch.cat(waves), element._momenta(p))


WARD = [
    ((2, -1), (24, 22), 0),
    ((2, -2), (24, -24, 22), 0),
    ((2, -2), (24, -24, 22, 22), 0),
    ((21, 21), (21, 21, 21), 3),
    ((21, 21), (6, -6, 21), 3),
    ((2, -2), (1, -1, 21, 21), 4),
    ((2, -1), (-11, 12, 21, 21, 22), 2),
]


@pytest.mark.parametrize(("initial", "final", "strong"), WARD)
def test_ward_identities(initial: Any, final: Any, strong: int) -> None:
    element = MatrixElement(initial, final, Couplings(MODEL, "zero"), {strong})
    p = momenta(element)
    leg = len(element.legs) - 1
    size = element.amplitudes(p).abs().amax()
    assert with_momentum_for(element, p, leg).abs().amax() < 1e-10 * size


@pytest.mark.parametrize(
    "final", [(-11, 12, -13, 13, 1, 2), (11, -12, -13, 13, 2, 4), (15, -16, 11, -11, 2, 2)], ids=str
)
def test_any_leg_may_be_the_last(final: tuple[int, ...]) -> None:
    """Chains of massive bosons give coefficients of any size: none may be taken for what is left of a cancellation."""
    initial = {(-11, 12, -13, 13, 1, 2): (2, 2), (11, -12, -13, 13, 2, 4): (2, 3)}.get(final, (2, 1))
    element = MatrixElement(initial, final, Couplings(MODEL), {0})
    p = momenta(element)
    for places in ([0, 1, 2, 3, 5, 4], [5, 1, 2, 3, 4, 0]):
        turned = MatrixElement(initial, [final[place] for place in places], Couplings(MODEL), {0})
        again = turned.squared(p[:, [0, 1, *(2 + place for place in places)]], ALPHA_S)
        assert torch.allclose(again, element.squared(p, ALPHA_S), rtol=1e-9, atol=0.0)


STABLE = [((21, 21), (6, -6, 21), {3}), ((2, -2), (6, -6, 25), {2}), ((2, -2), (24, -24, 22), {0})]


@pytest.mark.parametrize(("initial", "final", "strong"), STABLE)
@pytest.mark.parametrize("scheme", ["fixed", "complex"])
def test_particles_that_are_legs_have_no_width(initial: Any, final: Any, strong: set[int], scheme: Any) -> None:
    narrow = replace(MODEL, width_z=1e-12, width_w=1e-12, width_higgs=0.0)
    own, zero = (MatrixElement(initial, final, Couplings(narrow, s), strong) for s in (scheme, "zero"))
    p = momenta(own)
    assert torch.allclose(own.squared(p, ALPHA_S), zero.squared(p, ALPHA_S), rtol=1e-11, atol=0.0)


def test_resonances_beside_a_leg_of_their_kind_have_their_width() -> None:
    legs: Any = ((2, -2), (6, -5, -24))
    p = momenta(MatrixElement(*legs, Couplings(MODEL), {2}))
    values = [
        MatrixElement(*legs, Couplings(replace(MODEL, width_top=width)), {2}).squared(p, ALPHA_S)
        for width in (0.0, 1.5, 30.0)
    ]
    assert not torch.allclose(values[0], values[1], rtol=1e-5, atol=0.0)
    assert not torch.allclose(values[0], values[2], rtol=1e-3, atol=0.0)
    with pytest.raises(AmplitudeError, match="t is a leg and a resonance at once"):
        MatrixElement(*legs, Couplings(MODEL, "complex"), {2})


def test_a_wrong_triple_coupling_breaks_the_ward_identity() -> None:
    element = MatrixElement((2, -1), (24, 22), Broken(MODEL, "zero"), {0})
    p = momenta(element)
    assert with_momentum_for(element, p, 3).abs().amax() > 1e-3 * element.amplitudes(p).abs().amax()


@pytest.mark.parametrize("scheme", ["zero", "fixed", "complex"])
def test_constant_widths_keep_the_ward_identity_of_one_resonance(scheme: Any) -> None:
    element = MatrixElement((2, -1), (-11, 12, 22), Couplings(MODEL, scheme), {0})
    p = momenta(element)
    assert with_momentum_for(element, p, 4).abs().amax() < 1e-10 * element.amplitudes(p).abs().amax()


def two_to_two(masses: list[float], energy: float) -> Tensor:
    """A point (1, 4, 4) at 70 degrees."""
    cosine, sine = math.cos(1.2), math.sin(1.2)
    p = torch.zeros(1, 4, 4, dtype=torch.float64)
    for first, direction in ((0, (0.0, 0.0, 1.0)), (2, (sine, 0.0, cosine))):
        a, b = masses[first] ** 2, masses[first + 1] ** 2
        s = energy**2
        length = math.sqrt((s - a - b) ** 2 - 4 * a * b) / (2 * energy)
        for leg, sign in ((first, 1.0), (first + 1, -1.0)):
            p[0, leg, 0] = math.sqrt(length**2 + masses[leg] ** 2)
            p[0, leg, 1:] = sign * length * torch.tensor(direction)
    return p


HIGH_ENERGY = [
    ((24, -24), (24, -24)),
    ((24, 24), (24, 24)),
    ((24, -24), (23, 23)),
    ((24, 23), (24, 23)),
    ((24, -24), (25, 25)),
    ((23, 23), (25, 25)),
    ((25, 25), (25, 25)),
    ((6, -6), (24, -24)),
    ((6, -6), (23, 23)),
    ((6, -6), (23, 25)),
    ((6, -6), (25, 25)),
    ((24, 22), (24, 25)),
]


def growth(initial: Any, final: Any, couplings: Couplings) -> float:
    element = MatrixElement(initial, final, couplings, {0})
    masses = [leg.mass for leg in element.legs]
    low, high = (element.squared(two_to_two(masses, energy), ALPHA_S) for energy in (4e3, 8e3))
    return float(high / low)


@pytest.mark.parametrize(("initial", "final"), HIGH_ENERGY)
def test_amplitudes_do_not_grow_with_energy(initial: Any, final: Any) -> None:
    assert growth(initial, final, Couplings(MODEL, "zero")) < 1.05


def test_they_do_with_a_wrong_coupling() -> None:
    assert growth((24, -24), (24, -24), Broken(MODEL, "zero")) > 10


@pytest.mark.parametrize("mass", [0.0, 1.5, 173.0])
@pytest.mark.parametrize("particle", [1, -1])
def test_spinors_solve_the_dirac_equation_and_sum_to_it(mass: float, particle: int) -> None:
    p = probe_momenta([0.0, 0.0, mass, 40.0])[:, 2]
    code = particle * 6
    column, row = Leg(code, particle > 0, mass), Leg(code, particle < 0, mass)
    plus, minus, x, y = light_cone(p, mass).unbind(-1)
    zero = torch.zeros_like(x)
    sigma = torch.stack([torch.complex(a, b) for a, b in ((minus, zero), (-x, y), (-x, -y), (plus, zero))], -1)
    sigma_bar = torch.stack([torch.complex(a, b) for a, b in ((plus, zero), (x, -y), (x, y), (minus, zero))], -1)
    slash = torch.zeros(len(p), 4, 4, dtype=torch.complex128)
    slash[:, :2, 2:], slash[:, 2:, :2] = sigma.reshape(-1, 2, 2), sigma_bar.reshape(-1, 2, 2)
    total = torch.zeros_like(slash)
    for helicity in (-1, 1):
        u = torch.cat([wave(column, p, helicity, part) for part in (0, 1)]).T
        # The row of the same spin is that of the particle on the other side, of the opposite outgoing helicity.
        ubar = torch.cat([wave(row, p, -helicity, part) for part in (0, 1)]).T
        assert torch.allclose((slash @ u.unsqueeze(-1)).squeeze(-1), particle * mass * u, atol=1e-9)
        total += u.unsqueeze(-1) * ubar.unsqueeze(-2)
    assert torch.allclose(total, slash + particle * mass * torch.eye(4), atol=1e-9)


@pytest.mark.parametrize("mass", [0.0, 80.4])
@pytest.mark.parametrize("incoming", [True, False])
@pytest.mark.parametrize("at_rest", [False, True])
def test_polarisations_are_transverse_and_complete(mass: float, incoming: bool, at_rest: bool) -> None:
    p = probe_momenta([0.0, 0.0, mass, 40.0])[:, 2]
    if at_rest:
        p = torch.tensor([[mass or 45.0, 0.0, 0.0, 0.0 if mass else -45.0]], dtype=torch.float64)
    leg = Leg(24 if mass else 21, incoming, mass)
    total = torch.zeros(len(p), 4, 4, dtype=torch.complex128)
    for helicity in (-1, 0, 1) if mass else (-1, 1):
        vector = cartesian(wave(leg, p, helicity, 0))
        across = cartesian(conjugated(wave(leg, p, helicity, 0)))
        assert torch.allclose(across, vector.conj())
        assert (vector.T * (p @ METRIC.real)).sum(1).abs().amax() < 1e-10 * p.abs().amax()
        total += torch.einsum("an,bn->nab", vector, vector.conj())
    if mass:
        assert torch.allclose(total, -METRIC + torch.einsum("na,nb->nab", p, p).to(total) / mass**2, atol=1e-9)
    else:
        assert torch.allclose(torch.einsum("naa->n", total @ METRIC), torch.full((len(p),), -2.0).to(total))


SYMMETRIC = MatrixElement((2, 2), (24, 24, 1, 1), Couplings(MODEL, "fixed"), {0, 2})


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.floats(-3.0, 3.0))
def test_values_do_not_depend_on_the_frame(velocity: tuple[float, float, float], angle: float) -> None:
    p = momenta(SYMMETRIC)
    v = torch.tensor(velocity, dtype=torch.float64)
    gamma = (1 - v.square().sum()).rsqrt()
    along = p[..., 1:] @ v
    shift = gamma**2 / (1 + gamma) * along + gamma * p[..., 0]
    moved = torch.cat([(gamma * (p[..., 0] + along)).unsqueeze(-1), p[..., 1:] + shift.unsqueeze(-1) * v], -1)
    rotation = torch.eye(4, dtype=torch.float64)
    rotation[1, 1] = rotation[3, 3] = math.cos(angle)
    rotation[1, 3], rotation[3, 1] = math.sin(angle), -math.sin(angle)
    expected = SYMMETRIC.squared(p, ALPHA_S)
    assert torch.allclose(SYMMETRIC.squared(moved @ rotation, ALPHA_S), expected, rtol=1e-9)


@pytest.mark.parametrize("swap", [(0, 1), (2, 3), (4, 5)])
def test_identical_particles_can_change_places(swap: tuple[int, int]) -> None:
    p = momenta(SYMMETRIC)
    order = list(range(6))
    order[swap[0]], order[swap[1]] = swap[1], swap[0]
    assert torch.allclose(SYMMETRIC.squared(p[:, order], ALPHA_S), SYMMETRIC.squared(p, ALPHA_S), rtol=1e-10)
    assert not torch.allclose(SYMMETRIC.squared(p[:, [0, 1, 2, 4, 3, 5]], ALPHA_S), SYMMETRIC.squared(p, ALPHA_S))


def test_orders_interfere() -> None:
    p = momenta(SYMMETRIC)
    parts = [MatrixElement((2, 2), (24, 24, 1, 1), Couplings(MODEL, "fixed"), {k}).squared(p, ALPHA_S) for k in (0, 2)]
    whole = SYMMETRIC.squared(p, ALPHA_S)
    assert (whole - sum(parts)).abs().amax() > 1e-4 * whole.amax()
    strong = SYMMETRIC.squared(p, 4 * ALPHA_S)
    # A polynomial in alpha_s: electroweak, interference, strong.
    double = SYMMETRIC.squared(p, 2 * ALPHA_S)
    interference = whole - sum(parts)
    assert torch.allclose(double, parts[0] + 2 * interference + 4 * parts[1], rtol=1e-9)
    assert torch.allclose(strong, parts[0] + 4 * interference + 16 * parts[1], rtol=1e-9)


@pytest.mark.parametrize(("initial", "final", "strong"), [((21, 21), (6, -6, 21), 3), ((2, -1), (24, 23, 22), 0)])
def test_gradients_agree_with_differences(initial: Any, final: Any, strong: int) -> None:
    element = MatrixElement(initial, final, Couplings(MODEL, "fixed"), {strong})
    p = momenta(element, 2)
    beams = torch.tensor([[200.0, 0, 0, 200.0], [200.0, 0, 0, -200.0]], dtype=torch.float64)
    p[1] = probe_momenta([leg.mass for leg in element.legs], points=1)[0]
    p[1, :2] = beams
    direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moving = p.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(element.squared(moving, ALPHA_S).sum(), moving)
    assert bool(torch.isfinite(gradient).all())
    step = 1e-4
    with torch.no_grad():
        plain = p.clone()
        up, down = (element.squared((plain + sign * step * direction).requires_grad_(), ALPHA_S) for sign in (1, -1))
    slope = (up.sum() - down.sum()) / (2 * step)
    assert torch.allclose((gradient * direction).sum(), slope, rtol=1e-5)


def test_only_different_helicities_are_computed() -> None:
    element = MatrixElement((21, 21), (6, -6), Couplings(MODEL, "fixed"), {2})
    assert sum(element._times.values()) == 16 and len(element._times) == 8
    chiral = MatrixElement((2, -1), (-11, 12, 21), Couplings(MODEL, "fixed"), {1})
    assert len(chiral._times) == sum(chiral._times.values()) == 2


def test_plan_is_a_table() -> None:
    element = MatrixElement((2, -1), (-11, 12), Couplings(MODEL, "fixed"), {0})
    text = str(element.plan)
    assert (
        "left_current" in text
        and "inverse_square" in text
        and text.count("\n") == sum(len(step.outputs) for step in element.plan.steps)
    )


def test_errors() -> None:
    couplings = Couplings(MODEL)
    with pytest.raises(AmplitudeError, match="no tree diagram"):
        MatrixElement((2, 2), (1, 1), couplings, {0})
    with pytest.raises(AmplitudeError, match="power of g_s"):
        MatrixElement((2, -2), (11, -11), couplings, {2})
    with pytest.raises(ConfigError, match="scheme"):
        Couplings(MODEL, "running")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(n, 4, 4\)"):
        MatrixElement((2, -2), (11, -11), couplings, {0}).squared(torch.zeros(2, 5, 4), ALPHA_S)


CLOSED = [
    ((2, -2), (1, -1, 21, 21), {4}),
    ((2, 2), (2, 2, 21), {3}),
    ((2, -1), (-11, 12, 3, -3, 21), {3}),
    ((2, -2), (1, -1, 3, -3), {4}),
    ((21, 21), (25, 6, -6), {2}),
    ((2, 2), (24, 24, 1, 1), {0, 2}),
    ((6, -6), (24, -24, 25), {0}),
]


@pytest.mark.parametrize(("initial", "final", "strong"), CLOSED)
def test_any_leg_can_close_the_recursion(initial: Any, final: Any, strong: set[int]) -> None:
    """The last leg is treated in another way, and which quark lines and gluons meet inside follows from it."""
    couplings = Couplings(MODEL, "fixed")
    whole = MatrixElement(initial, final, couplings, strong)
    p = momenta(whole)
    expected = whole.squared(p, ALPHA_S)
    for turn in range(1, len(final)):
        places = [*range(turn, len(final)), *range(turn)]
        turned = MatrixElement(initial, [final[k] for k in places], couplings, strong)
        found = turned.squared(p[:, [0, 1, *(2 + k for k in places)]], ALPHA_S)
        assert torch.allclose(found, expected, rtol=1e-9, atol=0.0), turn
