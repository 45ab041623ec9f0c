"""Top pairs and QCD two-to-two: cross-sections, crossing, limits, lists of sub-processes, colour flows."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.qcd import (
    S_CHANNEL,
    T_CHANNEL,
    U_CHANNEL,
    Qcd,
    channel,
    four_gluons,
    four_quarks,
    two_quarks_two_gluons,
)
from nisampler.processes.amplitudes.top_pair import GLUON_FUSION, TopPair
from nisampler.processes.amplitudes.tree import TreeAmplitude
from nisampler.processes.lepton.ee_matrix_element import beam_momenta
from nisampler.processes.parameters import StandardModel
from nisampler.processes.phase_space.kinematics import boost, rotate

PARTONS = (-5, -4, -3, -2, -1, 21, 1, 2, 3, 4, 5)
AMPLITUDES: dict[str, TreeAmplitude] = {"qcd": Qcd(), "top_pair": TopPair()}
MASSES = {"qcd": 0.0, "top_pair": 173.0}


def scattering(cosine: Tensor, sqrt_s: float = 500.0, m: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Incoming and outgoing momenta in the rest frame at the given cosines, and g_s = 1."""
    energy = 0.5 * sqrt_s
    p = math.sqrt(energy**2 - m**2)
    x = p * (1 - cosine**2).sqrt()
    first = torch.stack([torch.full_like(x, energy), 0.6 * x, 0.8 * x, p * cosine], -1)
    outgoing = torch.stack([first, first * torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)], 1)
    alpha_s = torch.full_like(cosine, 1 / (4 * math.pi))
    return beam_momenta(sqrt_s, outgoing).expand(len(x), 2, 4), outgoing, alpha_s


def grid(n: int = 21) -> Tensor:
    return torch.linspace(-0.95, 0.95, n, dtype=torch.float64)


def qcd_column(initial: tuple[int, int], final: tuple[int, int]) -> int:
    return next(s.element for s in AMPLITUDES["qcd"].subprocesses if (s.initial, s.final) == (initial, final))


@pytest.mark.parametrize("sqrt_s", [350.0, 500.0, 3000.0])
def test_top_pair_cross_sections_are_the_known_ones(sqrt_s: float) -> None:
    """alpha_s^2 / m^2 f with f of Nason, Dawson, Ellis, Nucl. Phys. B 303 (1988) 607.

    f_qq = pi beta rho (2 + rho) / 27,
    f_gg = pi beta rho ((rho^2 + 16 rho + 16) / beta ln((1 + beta) / (1 - beta)) - 28 - 31 rho) / 192.
    """
    m = 173.0
    nodes, weights = np.polynomial.legendre.leggauss(200)
    squared = AMPLITUDES["top_pair"].squared(*scattering(torch.from_numpy(nodes), sqrt_s, m))
    rho = 4 * m**2 / sqrt_s**2
    beta = math.sqrt(1 - rho)
    sigma = (squared.T @ torch.from_numpy(weights)) * beta / (16 * math.pi) / (2 * sqrt_s**2)
    alpha_s = 1 / (4 * math.pi)
    quarks = math.pi * beta * rho * (2 + rho) / 27
    logarithm = math.log((1 + beta) / (1 - beta))
    gluons = math.pi * beta * rho * ((rho**2 + 16 * rho + 16) / beta * logarithm - 28 - 31 * rho) / 192
    expected = [alpha_s**2 / m**2 * f for f in (quarks, quarks, gluons)]
    assert sigma.tolist() == pytest.approx(expected, rel=1e-10)
    assert sigma.tolist() != pytest.approx([1.001 * x for x in expected], rel=1e-4)


def test_top_pair_without_mass_is_quark_pair_production() -> None:
    light = TopPair(StandardModel(mass_top=1e-6))
    at = scattering(grid())
    qcd = AMPLITUDES["qcd"].squared(*at)
    expected = torch.stack(
        [qcd[:, qcd_column(i, f)] for i, f in (((1, -1), (2, -2)), ((-1, 1), (2, -2)), ((21, 21), (2, -2)))], 1
    )
    assert torch.allclose(light.squared(*at), expected, rtol=1e-12)


@given(st.floats(0.01, 0.99))
def test_expressions_are_each_others_crossings(fraction: float) -> None:
    stu = [torch.tensor([x], dtype=torch.float64) for x in (1.0, -fraction, fraction - 1)]
    s, t, u = stu
    crossed = [u, t, s]
    assert torch.allclose(four_quarks(stu, [T_CHANNEL, U_CHANNEL]), four_quarks(crossed, [S_CHANNEL, T_CHANNEL]))
    assert torch.allclose(four_quarks(stu, [S_CHANNEL]), four_quarks([t, s, u], [T_CHANNEL]))
    assert torch.allclose(four_gluons(stu), four_gluons(crossed))
    # gluons of s become those of t: the values of table 7.1 of Ellis, Stirling, Webber
    compton = -8 / 3 * two_quarks_two_gluons(-s / t, -u / t)
    known = -4 / 9 * (s**2 + u**2) / (s * u) + (u**2 + s**2) / t**2
    assert torch.allclose(compton, known)


def test_values_at_ninety_degrees_are_the_known_ones() -> None:
    """The column |M|^2 / g^4 at theta = pi/2 of table 7.1 of Ellis, Stirling, Webber, which has no factors 1/2."""
    known = {
        ((1, 2), (1, 2)): 2.22,
        ((1, -2), (1, -2)): 2.22,
        ((1, 1), (1, 1)): 3.26 / 2,
        ((1, -1), (2, -2)): 0.22,
        ((1, -1), (1, -1)): 2.59,
        ((1, -1), (21, 21)): 1.04 / 2,
        ((21, 21), (1, -1)): 0.15,
        ((1, 21), (1, 21)): 6.11,
        ((21, 21), (21, 21)): 30.4 / 2,
    }
    values = AMPLITUDES["qcd"].squared(*scattering(torch.zeros(1, dtype=torch.float64)))[0]
    for (initial, final), value in known.items():
        assert values[qcd_column(initial, final)].item() == pytest.approx(value, abs=0.05 if value > 10 else 0.006)


def test_small_angles_see_the_colour_charges() -> None:
    """Exchange of a gluon in t: q q' to q g to g g as C_F^2 to C_F C_A to C_A^2."""
    values = AMPLITUDES["qcd"].squared(*scattering(torch.tensor([1 - 1e-7], dtype=torch.float64)))[0]
    quarks = values[qcd_column((1, 2), (1, 2))].item()
    assert values[qcd_column((1, 21), (1, 21))].item() / quarks == pytest.approx(9 / 4, rel=1e-5)
    assert 2 * values[qcd_column((21, 21), (21, 21))].item() / quarks == pytest.approx((9 / 4) ** 2, rel=1e-5)
    assert values[qcd_column((1, -1), (1, -1))].item() / quarks == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name", AMPLITUDES)
def test_squared_matrix_elements_are_lorentz_invariant_and_positive(name: str) -> None:
    incoming, outgoing, alpha_s = scattering(grid(), m=MASSES[name])
    values = AMPLITUDES[name].squared(incoming, outgoing, alpha_s)
    assert values.shape == (21, AMPLITUDES[name].elements)
    assert (values > 0).all()
    velocity = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64)
    turn = torch.tensor([[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=torch.float64)
    moved = [rotate(boost(p, velocity), turn) for p in (incoming, outgoing)]
    assert torch.allclose(AMPLITUDES[name].squared(*moved, alpha_s), values, rtol=1e-9)
    assert torch.allclose(AMPLITUDES[name].squared(incoming, outgoing, 2 * alpha_s), 4 * values)


def test_identical_partons_are_symmetric() -> None:
    incoming, outgoing, alpha_s = scattering(grid())
    for name, columns in {"qcd": [((21, 21), (21, 21)), ((2, 2), (2, 2)), ((2, -2), (21, 21))], "top_pair": []}.items():
        at = scattering(grid(), m=MASSES[name])
        swapped = AMPLITUDES[name].squared(at[0], at[1].flip(1), at[2])
        values = AMPLITUDES[name].squared(*at)
        for element in [qcd_column(*c) for c in columns] or [GLUON_FUSION]:
            assert torch.allclose(swapped[:, element], values[:, element])
    element = qcd_column((2, 1), (2, 1))
    values, swapped = (
        AMPLITUDES["qcd"].squared(incoming, p, alpha_s)[:, element] for p in (outgoing, outgoing.flip(1))
    )
    assert not torch.allclose(swapped, values, rtol=0.1)


def flavours(codes: tuple[int, ...]) -> Counter[int]:
    """Net number of quarks of each flavour."""
    net = Counter({q: 0 for q in range(1, 6)})
    for code in codes:
        if code != 21:
            net[abs(code)] += 1 if code > 0 else -1
    return net


def test_qcd_has_every_flavour_conserving_channel_once() -> None:
    expected = {
        (initial, final)
        for initial in itertools.product(PARTONS, repeat=2)
        for final in itertools.combinations_with_replacement(PARTONS, 2)
        if flavours(initial) == flavours(final)
    }
    found = [(s.initial, tuple(sorted(s.final, key=PARTONS.index))) for s in AMPLITUDES["qcd"].subprocesses]
    assert len(found) == len(set(found)) == 176
    assert set(found) == expected
    assert all(s.factor == 1 for s in AMPLITUDES["qcd"].subprocesses)
    assert {s.element for s in AMPLITUDES["qcd"].subprocesses} == set(range(AMPLITUDES["qcd"].elements))


def test_top_pairs_come_from_every_quark_in_both_beams_and_from_gluons() -> None:
    subprocesses = AMPLITUDES["top_pair"].subprocesses
    assert {s.initial for s in subprocesses} == {(q, -q) for q in PARTONS if q != 21} | {(21, 21)}
    assert len(subprocesses) == 11
    assert {s.final for s in subprocesses} == {(6, -6)}


@pytest.mark.parametrize("name", AMPLITUDES)
def test_colour_flows_are_positive_and_conserved(name: str) -> None:
    amplitude = AMPLITUDES[name]
    at = scattering(grid(), m=MASSES[name])
    for s in amplitude.subprocesses:
        weights, tags = amplitude.colour_flows(s.element, *at)
        assert weights.shape == (21, len(tags))
        assert (weights > 0).all()
        assert len({str(flow) for flow in tags.tolist()}) == len(tags)
        for flow in tags:
            for pdg_id, (colour, anticolour) in zip((*s.initial, *s.final), flow.tolist(), strict=True):
                assert (colour > 0) == (pdg_id > 0)
                assert (anticolour > 0) == (pdg_id < 0 or pdg_id == 21)
                assert colour != anticolour
            into = sorted([*flow[:2, 0].tolist(), *flow[2:, 1].tolist()])
            out = sorted([*flow[:2, 1].tolist(), *flow[2:, 0].tolist()])
            assert [x for x in into if x] == [x for x in out if x]
    assert (amplitude.spins(0, *at) == 9).all()


@pytest.mark.parametrize(("initial", "final"), [((1, 1), (1, 1)), ((1, -1), (1, -1)), ((-2, 2), (-2, 2))])
def test_forward_quarks_exchange_their_colours(initial: tuple[int, int], final: tuple[int, int]) -> None:
    """In the forward direction only the flow of t-channel exchange is left: no line joins legs 1 and 3."""
    at = scattering(torch.tensor([0.9999], dtype=torch.float64))
    weights, tags = AMPLITUDES["qcd"].colour_flows(qcd_column(initial, final), *at)
    shares = weights[0] / weights.sum()
    forward = int(shares.argmax())
    assert shares[forward] > 1 - 1e-6
    lines = [set(tags[forward, leg].tolist()) - {0} for leg in range(4)]
    assert not lines[0] & lines[2]


def test_quark_flow_weights_are_those_of_each_exchange_alone() -> None:
    at = scattering(grid())
    values = AMPLITUDES["qcd"].squared(*at)
    same, _ = AMPLITUDES["qcd"].colour_flows(qcd_column((1, -1), (1, -1)), *at)
    exchange, annihilation = values[:, qcd_column((1, -2), (1, -2))], values[:, qcd_column((1, -1), (2, -2))]
    shares = same / same.sum(1, keepdim=True)
    expected = exchange / (exchange + annihilation)
    assert any(torch.allclose(shares[:, i], expected) for i in range(2))


@pytest.mark.parametrize("name", AMPLITUDES)
def test_amplitudes_stay_on_their_device(name: str) -> None:
    at = [x.to("meta") for x in scattering(grid(3), m=MASSES[name])]
    results = [AMPLITUDES[name].squared(*at), *AMPLITUDES[name].colour_flows(2, *at), AMPLITUDES[name].spins(0, *at)]
    assert {x.device.type for x in results} == {"meta"}


def test_channels_of_pairs_of_legs() -> None:
    pairs = itertools.combinations(range(4), 2)
    assert {p: channel(*p) for p in pairs} == {(0, 1): 0, (2, 3): 0, (0, 2): 1, (1, 3): 1, (0, 3): 2, (1, 2): 2}


def test_bad_requests_are_refused() -> None:
    at = scattering(grid(3))
    with pytest.raises(AmplitudeError, match="elements 0 to 17, not 18"):
        AMPLITUDES["qcd"].colour_flows(18, *at)
    with pytest.raises(ShapeError, match=r"outgoing ones \(n, 2, 4\)"):
        AMPLITUDES["top_pair"].squared(at[0], at[1][:, :1], at[2])
