"""Drell-Yan and boson + jet: laws, limits, the Z', lists of sub-processes, errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.errors import AmplitudeError, ConfigError, ShapeError
from nisampler.processes.amplitudes.currents import ChargedCurrent, NeutralCurrent
from nisampler.processes.amplitudes.drell_yan import DrellYan
from nisampler.processes.amplitudes.tree import TreeAmplitude
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.lepton.ee_matrix_element import EEToThreeJetsParameters, beam_momenta, squared_matrix_element
from nisampler.processes.parameters import CKM, StandardModel, ZPrime
from nisampler.processes.phase_space.kinematics import boost, dot, mass, rotate
from nisampler.processes.phase_space.rambo import RamboOnDiet

CURRENTS = {"z": NeutralCurrent(), "w_plus": ChargedCurrent(1), "w_minus": ChargedCurrent(-1)}
AMPLITUDES: dict[str, TreeAmplitude] = {
    **{name: DrellYan(current) for name, current in CURRENTS.items()},
    **{f"{name}_jet": VectorJet(current) for name, current in CURRENTS.items()},
}
ODD_Z_PRIME = ZPrime(mass=350.0, width=20.0, up=(0.3, -0.2), down=(-0.7, 0.1), lepton=(0.4, 0.9))
CHARGES = {1: -1, 2: 2, 3: -1, 4: 2, 5: -1, 11: -3, 12: 0, 21: 0}


def points(legs: int, n: int = 50, sqrt_s: float = 300.0, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    phase_space = RamboOnDiet([0.0] * legs)
    u = torch.rand(n, phase_space.dim, dtype=torch.float64, generator=Streams(seed).generator("points"))
    outgoing, _ = phase_space.forward(u, sqrt_s)
    alpha_s = torch.linspace(0.1, 0.2, n, dtype=torch.float64)
    return beam_momenta(sqrt_s, outgoing).expand(n, 2, 4), outgoing, alpha_s


def legs_of(amplitude: TreeAmplitude) -> int:
    return len(amplitude.subprocesses[0].final)


def charge(pdg_id: int) -> int:
    return CHARGES[abs(pdg_id)] * (1 if pdg_id > 0 else -1)


def column(amplitude: TreeAmplitude, initial: tuple[int, int]) -> int:
    return next(s.element for s in amplitude.subprocesses if s.initial == initial)


# Dirac matrices in the Dirac representation, for traces with explicit numbers.
PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
GAMMA = np.array([np.kron([[1, 0], [0, -1]], np.eye(2)), *(np.kron([[0, 1], [-1, 0]], sigma) for sigma in PAULI)])
GAMMA5 = 1j * GAMMA[0] @ GAMMA[1] @ GAMMA[2] @ GAMMA[3]
METRIC = np.diag([1.0, -1.0, -1.0, -1.0])


def slash(p: Any) -> Any:
    return np.einsum("m,mab->ab", METRIC @ p, GAMMA)


def dirac_trace_drell_yan(m: StandardModel, z_prime: ZPrime, kind: Any, charges: Any, p: Any) -> float:
    """Averaged |M|^2 of q(p0) qbar(p1) -> l(p2) lbar(p3) from traces over explicit Dirac matrices."""
    e = math.sqrt(4 * math.pi * m.alpha_em)
    unit = e / (2 * math.sqrt(m.sin2_theta_w * (1 - m.sin2_theta_w)))
    pairs = [(charges[0], 0.0), tuple(unit / e * x for x in m.vector_axial(kind))]
    pairs.append(tuple(unit / e * x for x in z_prime.vector_axial(kind, m)))
    leptons = [(charges[1], 0.0), tuple(unit / e * x for x in m.vector_axial("lepton"))]
    leptons.append(tuple(unit / e * x for x in z_prime.vector_axial("lepton", m)))
    total = p[0] + p[1]
    s = total @ METRIC @ total
    squares = [(0.0, 0.0), (m.mass_z, m.width_z), (z_prime.mass, z_prime.width)]
    propagators = [1 / (s - mass_**2 + 1j * mass_ * width) for mass_, width in squares]
    amplitude = 0.0
    for a, b in itertools.product(range(3), repeat=2):
        quark, lepton = (
            np.array(
                [
                    [
                        np.trace(
                            slash(p[i])
                            @ GAMMA[mu]
                            @ (v[0] * np.eye(4) - v[1] * GAMMA5)
                            @ slash(p[j])
                            @ GAMMA[nu]
                            @ (w[0] * np.eye(4) - w[1] * GAMMA5)
                        )
                        for nu in range(4)
                    ]
                    for mu in range(4)
                ]
            )
            for i, j, v, w in ((1, 0, pairs[a], pairs[b]), (2, 3, leptons[a], leptons[b]))
        )
        contracted = np.einsum("mn,mr,ns,rs->", quark, METRIC, METRIC, lepton)
        amplitude += (propagators[a] * np.conj(propagators[b]) * contracted).real
    return e**4 * amplitude / 12


@pytest.mark.parametrize(
    ("kind", "initial", "charges"), [("up", (2, -2), (2 / 3, -1)), ("down", (5, -5), (-1 / 3, -1))]
)
@pytest.mark.parametrize("sqrt_s", [60.0, 345.0])
def test_z_prime_agrees_with_dirac_traces(kind: Any, initial: tuple[int, int], charges: Any, sqrt_s: float) -> None:
    amplitude = DrellYan(NeutralCurrent(z_prime=ODD_Z_PRIME))
    incoming, outgoing, alpha_s = points(2, 4, sqrt_s)
    ours = amplitude.squared(incoming, outgoing, alpha_s)[:, column(amplitude, initial)]
    for value, momenta in zip(ours.tolist(), torch.cat([incoming, outgoing], 1).numpy(), strict=True):
        expected = dirac_trace_drell_yan(StandardModel(), ODD_Z_PRIME, kind, charges, momenta)
        assert value == pytest.approx(expected, rel=1e-10)
        flipped = ZPrime(mass=350.0, width=20.0, up=(0.3, 0.2), down=(-0.7, -0.1), lepton=(0.4, 0.9))
        assert abs(value / dirac_trace_drell_yan(StandardModel(), flipped, kind, charges, momenta) - 1) > 1e-5


def test_z_prime_without_couplings_does_nothing_and_the_default_is_sequential() -> None:
    at = points(3)
    silent = ZPrime(up=(0, 0), down=(0, 0), lepton=(0, 0))
    expected = AMPLITUDES["z_jet"].squared(*at)
    assert torch.allclose(VectorJet(NeutralCurrent(z_prime=silent)).squared(*at), expected, rtol=1e-12)
    m = StandardModel()
    explicit = ZPrime(400.0, 0.5, *(m.vector_axial(kind) for kind in ("up", "down", "lepton")))
    sequential = VectorJet(NeutralCurrent(m, ZPrime())).squared(*at)
    assert torch.equal(sequential, VectorJet(NeutralCurrent(m, explicit)).squared(*at))
    assert not torch.allclose(sequential, expected, rtol=1e-3)


def test_w_cross_section_at_its_peak_is_that_of_the_partial_widths() -> None:
    """sigma = (12 pi / m^2) Gamma_ud Gamma_enu / Gamma^2 / 9, Gamma_enu = g^2 m / (48 pi), Gamma_ud three times it."""
    m = StandardModel()
    nodes, weights = np.polynomial.legendre.leggauss(4)
    cosine = torch.from_numpy(nodes)
    half, sine = 0.5 * m.mass_w, (1 - cosine**2).sqrt()
    direction = torch.stack([torch.ones_like(cosine), sine, torch.zeros_like(sine), cosine], -1)
    outgoing = half * torch.stack([direction, direction * torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)], 1)
    incoming = beam_momenta(m.mass_w, outgoing).expand(4, 2, 4)
    squared = AMPLITUDES["w_plus"].squared(incoming, outgoing, torch.ones(4, dtype=torch.float64))
    integral = (squared.T @ torch.from_numpy(weights)) / (16 * math.pi) / (2 * m.mass_w**2)
    partial = m.weak_coupling_squared * m.mass_w / (48 * math.pi)
    expected = 12 * math.pi / m.mass_w**2 * 3 * partial**2 / m.width_w**2 / 9
    assert integral.tolist() == pytest.approx([expected, expected], rel=1e-12)


@pytest.mark.parametrize("name", AMPLITUDES)
def test_squared_matrix_elements_are_lorentz_invariant_and_positive(name: str) -> None:
    amplitude = AMPLITUDES[name]
    incoming, outgoing, alpha_s = points(legs_of(amplitude))
    values = amplitude.squared(incoming, outgoing, alpha_s)
    assert values.shape == (50, amplitude.elements)
    assert (values > 0).all()
    velocity = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64)
    turn = torch.tensor([[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=torch.float64)
    moved = [rotate(boost(p, velocity), turn) for p in (incoming, outgoing)]
    assert torch.allclose(amplitude.squared(*moved, alpha_s), values, rtol=1e-9)


@pytest.mark.parametrize("name", ["w_plus", "w_plus_jet"])
def test_w_minus_is_the_charge_conjugate_of_w_plus(name: str) -> None:
    """CP: the same number with all particles replaced by their antiparticles at mirrored momenta."""
    plus, minus = AMPLITUDES[name], AMPLITUDES[name.replace("plus", "minus")]
    incoming, outgoing, alpha_s = points(legs_of(plus))
    mirror = torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    ours, theirs = (
        plus.squared(incoming, outgoing, alpha_s),
        minus.squared(incoming * mirror, outgoing * mirror, alpha_s),
    )
    conjugates = {(s.initial, s.final): s for s in minus.subprocesses}
    for s in plus.subprocesses:
        initial, final = (tuple(x if x == 21 else -x for x in codes) for codes in (s.initial, s.final))
        partner = conjugates.pop((initial, final))
        assert partner.factor == s.factor
        assert torch.allclose(ours[:, s.element], theirs[:, partner.element], rtol=1e-10)
    assert not conjugates


def test_boson_and_jet_is_the_crossed_matrix_element_of_e_plus_e_minus() -> None:
    """All six crossings of `squared_matrix_element` at momenta with signs; its average over lepton spins is undone."""
    amplitude = AMPLITUDES["z_jet"]
    incoming, outgoing, _ = points(3, 5)
    alpha_s = torch.full((5,), 0.118, dtype=torch.float64)
    values = amplitude.squared(incoming, outgoing, alpha_s)
    lepton, antilepton = outgoing[:, 0], outgoing[:, 1]
    for s in (
        s for s in amplitude.subprocesses if s.final[2] in (21, 2, -2, 1, -1) and set(s.initial) & {2, -2, 1, -1}
    ):
        flavour = next(abs(x) for x in s.initial if x != 21)
        crossed = [(x if x == 21 else -x, -incoming[:, i]) for i, x in enumerate(s.initial)]
        crossed.append((s.final[2], outgoing[:, 2]))
        partons = torch.stack([dict(crossed)[x] for x in (flavour, -flavour, 21)], 1)
        colours = 9 if s.final[2] == 21 else 24
        for i in range(5):
            p = EEToThreeJetsParameters(sqrt_s=mass(lepton[i] + antilepton[i]).item())
            ee = squared_matrix_element(p, torch.stack([-antilepton[i], -lepton[i]]), partons[i], flavour)
            sign = 1 if s.final[2] == 21 else -1
            assert sign * 4 * ee.item() / (4 * colours) == pytest.approx(values[i, s.element].item(), rel=1e-9)


def with_jet(jet: Tensor, sqrt_s: float = 300.0) -> tuple[Tensor, Tensor]:
    """Incoming momenta and leptons plus the given massless jet (4,), the leptons at generic angles."""
    incoming = beam_momenta(sqrt_s, jet)
    boson = incoming.sum(0) - jet
    axis = torch.tensor([0.36, -0.48, 0.8], dtype=torch.float64)
    half = 0.5 * mass(boson)
    pair = torch.stack([torch.cat([half.view(1), sign * half * axis]) for sign in (1, -1)])
    leptons = boost(pair, (boson[1:] / boson[0]).expand(2, 3))
    return incoming.unsqueeze(0), torch.cat([leptons, jet.unsqueeze(0)]).unsqueeze(0)


@pytest.mark.parametrize("name", CURRENTS)
def test_soft_gluon_gives_the_eikonal_factor(name: str) -> None:
    """|M|^2 -> 4 pi alpha_s C_F 2 p1.p2 / (p1.k p2.k) |M_0|^2."""
    alpha_s = torch.tensor([0.118], dtype=torch.float64)
    jet = 1e-5 * torch.tensor([1.0, 0.6, 0.0, 0.8], dtype=torch.float64)
    incoming, outgoing = with_jet(jet)
    born = AMPLITUDES[name].squared(incoming, outgoing[:, :2], alpha_s)
    one, two = dot(incoming[:, 0], jet), dot(incoming[:, 1], jet)
    eikonal = 4 * math.pi * 0.118 * (4 / 3) * 2 * dot(incoming[:, 0], incoming[:, 1]) / (one * two)
    soft = AMPLITUDES[f"{name}_jet"].squared(incoming, outgoing, alpha_s)
    for s in AMPLITUDES[name].subprocesses:
        element = column(AMPLITUDES[f"{name}_jet"], s.initial)
        assert soft[0, element].item() == pytest.approx((eikonal * born[0, s.element]).item(), rel=1e-5)


@pytest.mark.parametrize("name", CURRENTS)
def test_collinear_gluon_splitting_gives_the_splitting_function(name: str) -> None:
    """q(p1) g(p2) -> V q(k), k along p2: |M|^2 -> (4 pi alpha_s / p2.k) P_qg(x) / x |M_0(p1, x p2)|^2.

    P_qg = (x^2 + (1 - x)^2) / 2, with x the fraction of p2 that enters the hard process.
    """
    alpha_s, x, angle = torch.tensor([0.118], dtype=torch.float64), 0.3, 1e-5
    energy = (1 - x) * 150.0
    jet = energy * torch.tensor([1.0, math.sin(angle), 0.0, -math.cos(angle)], dtype=torch.float64)
    incoming, outgoing = with_jet(jet)
    hard = incoming * torch.tensor([1.0, x], dtype=torch.float64).view(1, 2, 1)
    born = AMPLITUDES[name].squared(hard, outgoing[:, :2], alpha_s)
    splitting = 0.5 * (x**2 + (1 - x) ** 2)
    factor = 4 * math.pi * 0.118 / (150.0 * energy * 2 * math.sin(angle / 2) ** 2) * splitting / x
    values = AMPLITUDES[f"{name}_jet"].squared(incoming, outgoing, alpha_s)
    for s in AMPLITUDES[name].subprocesses:
        element = next(
            j.element
            for j in AMPLITUDES[f"{name}_jet"].subprocesses
            if j.initial == (s.initial[0], 21) and j.final[2] == -s.initial[1]
        )
        assert values[0, element].item() == pytest.approx((factor * born[0, s.element]).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "count", "elements"),
    [
        ("z", 10, 4),
        ("w_plus", 12, 2),
        ("w_minus", 12, 2),
        ("z_jet", 30, 12),
        ("w_plus_jet", 36, 6),
        ("w_minus_jet", 36, 6),
    ],
)
def test_subprocesses_are_complete_and_conserve_charge(name: str, count: int, elements: int) -> None:
    amplitude = AMPLITUDES[name]
    assert amplitude.elements == elements
    assert len({(s.initial, s.final) for s in amplitude.subprocesses}) == len(amplitude.subprocesses) == count
    assert {s.element for s in amplitude.subprocesses} == set(range(elements))
    leptons = {"z": (11, -11), "w_p": (-11, 12), "w_m": (11, -12)}[name[:3].removesuffix("_j")]
    for s in amplitude.subprocesses:
        assert s.final[:2] == leptons
        assert sum(map(charge, s.initial)) == sum(map(charge, s.final))
        quarks = [sum((x > 0) - (x < 0) for x in codes if abs(x) < 7) for codes in (s.initial, s.final)]
        assert quarks[0] == quarks[1]
        assert (s.initial[1], s.initial[0]) in {other.initial for other in amplitude.subprocesses}


def test_charged_currents_carry_the_ckm_elements() -> None:
    factors = {s.initial: s.factor for s in AMPLITUDES["w_plus"].subprocesses}
    assert factors[(2, -1)] == factors[(-1, 2)] == CKM[0][0] ** 2
    assert factors[(4, -3)] == CKM[1][1] ** 2
    assert factors[(-5, 2)] == CKM[0][2] ** 2
    jets = {(s.initial, s.final[2]): s.factor for s in AMPLITUDES["w_minus_jet"].subprocesses}
    assert jets[((3, 21), 2)] == jets[((21, -2), -3)] == jets[((-2, 3), 21)] == CKM[0][1] ** 2
    assert all(s.factor == 1 for s in AMPLITUDES["z_jet"].subprocesses)


@pytest.mark.parametrize("name", AMPLITUDES)
def test_colour_tags_are_conserved_and_fit_the_partons(name: str) -> None:
    amplitude = AMPLITUDES[name]
    at = points(legs_of(amplitude), 3)
    for s in amplitude.subprocesses:
        weights, tags = amplitude.colour_flows(s.element, *at)
        assert weights.shape == (3, 1)
        assert (weights > 0).all()
        for pdg_id, (colour, anticolour) in zip((*s.initial, *s.final), tags[0].tolist(), strict=True):
            coloured = abs(pdg_id) < 7 or pdg_id == 21
            assert (colour > 0) == (coloured and pdg_id > 0)
            assert (anticolour > 0) == (coloured and (pdg_id < 0 or pdg_id == 21))
        into = sorted([*tags[0, :2, 0].tolist(), *tags[0, 2:, 1].tolist()])
        out = sorted([*tags[0, :2, 1].tolist(), *tags[0, 2:, 0].tolist()])
        assert [x for x in into if x] == [x for x in out if x]


def test_helicities_of_the_w_are_left_handed_and_those_of_the_z_unknown() -> None:
    at = points(3, 3)
    for s in AMPLITUDES["w_plus_jet"].subprocesses:
        spins = AMPLITUDES["w_plus_jet"].spins(s.element, *at)
        assert spins.shape == (3, 5)
        expected = [9.0 if x == 21 else -math.copysign(1, x) for x in (*s.initial, *s.final)]
        assert spins[0].tolist() == spins[2].tolist() == expected
    assert (AMPLITUDES["z_jet"].spins(0, *at) == 9).all()


@pytest.mark.parametrize("name", AMPLITUDES)
def test_amplitudes_stay_on_their_device(name: str) -> None:
    at = [x.to("meta") for x in points(legs_of(AMPLITUDES[name]), 3)]
    results = [AMPLITUDES[name].squared(*at), *AMPLITUDES[name].colour_flows(0, *at), AMPLITUDES[name].spins(0, *at)]
    assert {x.device.type for x in results} == {"meta"}


def test_left_handed_decay_vanishes_where_angular_momentum_forbids_it() -> None:
    """u dbar -> e+ nu: no e+ along u's direction of flight reversed, i.e. along dbar."""
    incoming, _, alpha_s = points(2, 1)
    forward = torch.tensor([[150.0, 0, 0, 150.0], [150.0, 0, 0, -150.0]], dtype=torch.float64).unsqueeze(0)
    values = AMPLITUDES["w_plus"].squared(incoming, forward, alpha_s)[0]
    assert values[column(AMPLITUDES["w_plus"], (2, -1))] == 0
    assert values[column(AMPLITUDES["w_plus"], (-1, 2))] > 0


@pytest.mark.parametrize(
    "settings",
    [
        *({"alpha_em": 0.0}, {"mass_z": float("nan")}, {"width_w": -2.0}, {"sin2_theta_w": 1.0}),
        *({"mass_top": "173"}, {"alpha_em": True}, {"ckm": "unit"}, {"ckm": ((1.0, 0.0), (0.0, 1.0))}),
        {"ckm": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.1))},
    ],
)
def test_bad_models_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        StandardModel(**settings)


@pytest.mark.parametrize(
    "settings", [{"mass": -1.0}, {"width": None}, {"up": (1.0,)}, {"down": 0.5}, {"lepton": (math.inf, 0.0)}]
)
def test_bad_z_primes_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))}.* = .*: must be"):
        ZPrime(**settings)


def test_bad_requests_are_refused() -> None:
    amplitude, at = AMPLITUDES["z_jet"], points(3, 2)
    with pytest.raises(AmplitudeError, match="elements 0 to 11, not 12"):
        amplitude.colour_flows(12, *at)
    with pytest.raises(AmplitudeError, match="not -1"):
        amplitude.spins(-1, *at)
    with pytest.raises(ShapeError, match=r"outgoing ones \(n, 3, 4\), got \(2, 2, 4\) and \(2, 2, 4\)"):
        amplitude.squared(at[0], at[1][:, :2], at[2])
    with pytest.raises(AmplitudeError, match=r"charge of the W must be \+1 or -1, got 0"):
        ChargedCurrent(0)
    with pytest.raises(AmplitudeError, match="CKM matrix has rows"):
        StandardModel().ckm_squared(1, 2)
    with pytest.raises(AmplitudeError, match="fermion type"):
        StandardModel().vector_axial("neutrino")  # type: ignore[arg-type]
