"""Decays of resonances: strings, amplitudes at the poles, rates, angles of leptons, event records and errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.errors import AmplitudeError, ConfigError
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.strings import Resonance, parse_process
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.phase_space.kinematics import mass
from nisampler.processes.registry import create

MODEL = StandardModel().on_shell()
ALPHA_S = torch.tensor([0.118], dtype=torch.float64)
WW = "e+ e- > w+ w-, w+ > mu+ vm, w- > ta- vt~"
TOPS = "p p > t t~, (t > b w+, w+ > e+ ve), (t~ > b~ w-, w- > mu- vm~)"


def made(process: str, **parameters: Any) -> HadronProcess:
    found = create(process, **parameters)
    assert isinstance(found, HadronProcess)
    return found


def cube(process: HadronProcess, n: int, seed: int) -> Tensor:
    return torch.rand(n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / len(values) ** 0.5


def rate(process: HadronProcess, n: int, seed: int) -> tuple[float, float]:
    return mean_and_error(process(cube(process, n, seed)))


def two_body_width(initial: int, final: tuple[int, int]) -> float:
    """Of a decay, in GeV."""
    couplings = Couplings(MODEL)
    element = MatrixElement((initial,), final, couplings, {0})
    heavy, (first, second) = couplings.mass(initial), (couplings.mass(code) for code in final)
    momentum = math.sqrt((heavy**2 - (first + second) ** 2) * (heavy**2 - (first - second) ** 2)) / (2 * heavy)
    rest, one = heavy - math.hypot(first, momentum), math.hypot(first, momentum)
    p = torch.tensor([[[heavy, 0, 0, 0], [one, 0, momentum, 0], [rest, 0, -momentum, 0]]], dtype=torch.float64)
    return element.squared(p, ALPHA_S).item() * momentum / (8 * math.pi * heavy**2)


def test_strings_become_trees() -> None:
    legs = parse_process("p p > t t~ j QCD=3, (t > b w+, w+ > l+ vl), t~ > b~ mu- vm~")
    assert legs.produced == (Resonance(6, (0, Resonance(24, (1, 2)))), Resonance(-6, (3, 4, 5)), 6)
    assert legs.final[:4] == ((5,), (-11, -13), (12, 14, 16), (-5,))
    assert legs.orders.strong == 3
    assert [item.code for item in legs.resonances] == [6, 24, -6]
    both = parse_process("p p > z z, z > e+ e-, z > mu+ mu-")
    assert [both.final[leg] for leg in both.resonances[1].legs] == [(-13,), (13,)]
    assert len(parse_process("p p > z z, z > e+ e-").resonances) == 2


ERRORS = {
    "p p > t t~, t > e+ ve": "no such decay of t, charge, quarks or leptons are not conserved",
    "p p > z j, z > a a": "no such decay of Z, no vertices join it with a a",
    "p p > h j, h > mu+ mu-": "no such decay of H",
    "p p > t t~, z > e+ e-": "'z > e. e-' in .* is a decay of what is not among t, t~",
    "p p > h h, h > w+ w-": "H, of 125 GeV, cannot decay to W. W., which have at least 160.8",
    "p p > h h, (h > w+ w-, w+ > e+ ve, w- > e- ve~)": "H, of 125 GeV, cannot decay to W. W.",
    "p p > a j, a > e+ e-": "a has no width",
    "p p > z z z, z > e+ e-, z > mu+ mu-": "has 3 z and 2 decays of it: write one, or one for each",
    "p p > z j, (z > e+ e-": "parentheses of decays do not match",
    "p p > z j), z > e+ e-": "parentheses of decays do not match",
    "p p > z j, z > e+": "a decay reads 'a > b c ...' or",
    "p p > j j, j > e+ ve": "'j' in .* is not one particle",
    "p p > z j, z > e+ e- QCD=0": "'QCD=0' in the process",
}


@pytest.mark.parametrize("process", ERRORS)
def test_impossible_decays_are_refused(process: str) -> None:
    with pytest.raises(AmplitudeError, match=ERRORS[process]):
        RecursiveAmplitude(process)


def test_decays_need_a_width_and_real_masses() -> None:
    with pytest.raises(AmplitudeError, match="t has no width"):
        RecursiveAmplitude("p p > t t~, t > b w+", replace(MODEL, width_top=0.0))
    with pytest.raises(AmplitudeError, match='decays take the scheme "fixed", got "complex"'):
        RecursiveAmplitude("p p > t t~, t > b w+", scheme="complex")
    with pytest.raises(ConfigError, match=r"contradictory cuts: legs \(0, 1\) have a mass of at least 100"):
        made("p p > z j, z > e+ e-", cuts=["m(e+, e-) > 100"])


def test_off_shell_the_higgs_decays_to_two_w() -> None:
    process = made("e+ e- > z h, (h > w+ w-, w+ > e+ ve, w- > mu- vm~)", sqrt_s=250.0, resonances="breit_wigner")
    p = process.momenta(cube(process, 200, 1))
    heavy = torch.stack([mass(p[:, list(item.legs)].sum(1)) for item in process.setup.final_state.decays])
    assert ((heavy[0] - 125).abs() < 0.1).all()
    assert ((heavy[1:] - MODEL.mass_w).abs() < 15 * MODEL.width_w).all()
    assert process(cube(process, 200, 1)).isfinite().all()


FULL = {
    WW: "e+ e- > mu+ vm ta- vt~",
    "g g > t t~, t > b w+, t~ > b~ w-": "g g > b w+ b~ w- QCD=2 QED=2",
    "u d~ > w+ z, w+ > e+ ve, z > mu+ mu-": "u d~ > e+ ve mu+ mu-",
}


@pytest.mark.parametrize("process", FULL)
def test_at_the_poles_the_whole_amplitude_is_that_of_the_resonances(process: str) -> None:
    """Everything else is suppressed by the width: by 1/10 of it, a tenth remains; with moved spins all does."""
    energy = {"sqrt_s": 500.0} if process == WW else {}
    generator = made(process.replace("g g", "p p").replace("u d~", "p p"), **energy)
    p = generator.momenta(cube(generator, 40, 4))
    total = p.sum(1)
    half = 0.5 * torch.stack([total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]], 1)
    zero = torch.zeros_like(half)
    incoming = torch.stack([half, zero, zero, half * half.new_tensor([1.0, -1.0])], -1)
    deviations = []
    for part in (1e-2, 1e-3):
        widths = {name: part * getattr(MODEL, name) for name in ("width_w", "width_z", "width_top")}
        model = replace(MODEL, **widths)
        alone, whole = RecursiveAmplitude(process, model), RecursiveAmplitude(FULL[process], model)
        values = alone.squared(incoming, p, ALPHA_S.expand(40))[:, 0]
        deviations.append((whole.squared(incoming, p, ALPHA_S.expand(40))[:, 0] / values - 1).abs().median().item())
    assert deviations[0] < 0.02
    assert deviations[1] < 0.2 * deviations[0]


def pull(decayed: tuple[float, float], produced: tuple[float, float], share: float) -> float:
    error = math.hypot(decayed[1], share * produced[1])
    return (decayed[0] - share * produced[0]) / error


def test_rates_are_those_of_production_times_branching_ratios() -> None:
    share = (two_body_width(24, (-13, 14)) / MODEL.width_w) ** 2
    assert two_body_width(24, (-13, 14)) == pytest.approx(
        MODEL.charge_squared * MODEL.mass_w / (48 * math.pi * MODEL.sin2_theta_w)
    )
    decayed, produced = rate(made(WW, sqrt_s=500.0), 60_000, 11), rate(made("e+ e- > w+ w-", sqrt_s=500.0), 60_000, 12)
    assert abs(pull(decayed, produced, share)) < 3
    assert abs(pull(decayed, produced, 1.1 * share)) > 5


def test_rates_of_nested_decays() -> None:
    share = (two_body_width(6, (5, 24)) / MODEL.width_top * two_body_width(24, (-11, 12)) / MODEL.width_w) ** 2
    decayed, produced = rate(made(TOPS), 30_000, 13), rate(made("p p > t t~"), 30_000, 14)
    assert abs(pull(decayed, produced, share)) < 3
    assert abs(pull(decayed, produced, 1.1 * share)) > 5


def test_identical_decays_count_once() -> None:
    """Two pairs of one kind are half as many as two of two kinds; two generations make up twice as many."""
    one, two, all_kinds = (
        made(f"e+ e- > z z, {decays}", sqrt_s=400.0)
        for decays in ("z > mu+ mu-", "z > mu+ mu-, z > ta+ ta-", "z > l+ l-")
    )
    p = two.momenta(cube(two, 100, 2))
    p = p[two.passes(p)]
    assert torch.allclose(one.differential(p), 0.5 * two.differential(p), rtol=1e-9)
    codes = {item.final for item in all_kinds.setup.amplitude.subprocesses}
    assert len(codes) == 3
    mirrored = MatrixElement((11, -11), (-13, 13, -11, 11), Couplings(MODEL), {0}, all_kinds_produced())
    assert mirrored.average == pytest.approx(1 / 4)


def all_kinds_produced() -> tuple[Resonance, Resonance]:
    return Resonance(23, (0, 1)), Resonance(23, (2, 3))


def cosine(p: Tensor, lepton: int, neutrino: int, bottom: int) -> Tensor:
    """Of the angle between the charged lepton and the direction against the bottom quark, in the frame of the W."""
    w = p[:, lepton] + p[:, neutrino]

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a[:, 0] * b[:, 0] - (a[:, 1:] * b[:, 1:]).sum(1)

    m2, lw, bw = product(w, w), product(p[:, lepton], w), product(p[:, bottom], w)
    across = product(p[:, lepton], p[:, bottom])
    # In the frame of the W: energies are products with it over its mass.
    return -(lw * bw / m2 - across) / (lw * bw / m2)


def test_leptons_from_tops_know_the_helicities_of_the_w() -> None:
    """Means of cos and cos^2 in 3/4 F_0 (1 - c^2) + 3/8 (1 - F_0) (1 - c)^2, F_0 = m_t^2 / (m_t^2 + 2 m_W^2)."""
    process = made(TOPS)
    u = cube(process, 30_000, 21)
    weights = process(u)
    p = process.momenta(u)
    long = MODEL.mass_top**2 / (MODEL.mass_top**2 + 2 * MODEL.mass_w**2)
    for legs in ((1, 2, 0), (4, 5, 3)):
        c = cosine(p, *legs)
        for power, expected, other in ((1, -(1 - long) / 2, 0.0), (2, long / 5 + (1 - long) * 2 / 5, 1 / 3)):
            mean = (weights * c**power).sum() / weights.sum()
            error = (weights * (c**power - mean)).square().sum().sqrt() / weights.sum()
            assert abs(mean - expected) < 3.5 * error
            assert abs(mean - other) > 5 * error


def test_spins_of_tops_are_correlated() -> None:
    """Leptons of one gluon pair know of each other: with one top's leptons turned, the values are other ones."""
    amplitude = RecursiveAmplitude("g g > t t~, t > b e+ ve, t~ > b~ mu- vm~")
    generator = made(TOPS)
    p = generator.momenta(cube(generator, 50, 3))
    total = p.sum(1)
    half = 0.5 * torch.stack([total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]], 1)
    incoming = torch.stack([half, 0 * half, 0 * half, half * half.new_tensor([1.0, -1.0])], -1)
    one = amplitude.matrices[21, 21, 5, -11, 12, -5, 13, -14]
    couplings = Couplings(MODEL)
    spins = MatrixElement((21, 21), (6, -6), couplings, {2})
    tops = torch.stack([p[:, :3].sum(1), p[:, 3:].sum(1)], 1)
    produced = spins.squared(torch.cat([incoming, tops], 1), ALPHA_S)
    decay = MatrixElement((6,), (5, -11, 12), couplings, {0})
    other = MatrixElement((-6,), (-5, 13, -14), couplings, {0})
    alone = decay.squared(torch.cat([tops[:, :1], p[:, :3]], 1), ALPHA_S) * other.squared(
        torch.cat([tops[:, 1:], p[:, 3:]], 1), ALPHA_S
    )
    factor = (MODEL.mass_top * MODEL.width_top) ** -4
    ratio = one.squared(torch.cat([incoming, p], 1), ALPHA_S) / (produced * alone * factor)
    # Without correlation all of these are 1; with it they are 1 on average over the angles.
    assert ratio.std() > 0.1
    assert (ratio > 0.2).all()
    assert (ratio < 2.5).all()


@pytest.mark.parametrize(
    "process",
    [
        TOPS,
        "p p > t t~, t > b e+ ve, t~ > b~ j j",
        "p p > t t~ j, t > b e+ ve, t~ > b~ mu- vm~",
        "p p > w+ z j, z > mu+ mu-",
    ],
)
def test_channels_fit_together_and_records_know_mothers_and_colours(process: str) -> None:
    found = made(process)
    found.multichannel.self_test(Streams(3))
    u = cube(found, 400, 2)
    u = u[found(u) > 0][:50]
    batch = found.events(u, torch.ones(len(u)), torch.Generator().manual_seed(1))
    resonances = found.setup.amplitude.table.legs.resonances  # type: ignore[attr-defined]
    assert ((batch.status == 2).sum(1) == len(resonances)).all()
    codes, mothers = batch.pdg_ids, batch.mothers[..., 0]
    assert set(codes[batch.status == 2].tolist()) == {item.code for item in resonances}
    for row in range(len(u)):
        for place in np.flatnonzero(batch.status[row] == 2):
            below = np.flatnonzero(mothers[row] == place + 1)
            total = batch.momenta[row, below].sum(0)
            np.testing.assert_allclose(total, batch.momenta[row, place], rtol=1e-9, atol=1e-6)
            colours = [set(batch.colours[row, below, side]) - {0} for side in (0, 1)]
            own = [set(batch.colours[row, [place], side]) - {0} for side in (0, 1)]
            assert [colours[0] - colours[1], colours[1] - colours[0]] == own
            assert bool(own[0]) == (codes[row, place] == 6)
            assert bool(own[1]) == (codes[row, place] == -6)
    quarks, gluons = (abs(codes) > 0) & (abs(codes) < 7), codes == 21
    assert ((batch.colours > 0) == np.stack([gluons | quarks & (codes > 0), gluons | quarks & (codes < 0)], 2)).all()


def test_equal_elements_of_beams_turned_over_keep_the_colours_of_each() -> None:
    """Quark and antiquark of beams turned over give the same values here, but not the same colours."""
    amplitude = RecursiveAmplitude("p p > t t~ QCD=2")
    p = probe_momenta([0.0, 0.0, MODEL.mass_top, MODEL.mass_top], points=1)
    for item in amplitude.subprocesses:
        tags = amplitude.colour_flows(item.element, p[:, :2], p[:, 2:], ALPHA_S)[1]
        for place, code in enumerate(item.initial):
            assert ((tags[:, place, 0] > 0) == (code > 0)).all()
            assert ((tags[:, place, 1] > 0) == (code < 0 or code == 21)).all()


def test_cuts_spare_decays_unless_asked_for() -> None:
    process, cut = "p p > t t~, t > b e+ ve, t~ > b~ mu- vm~", {"pt_lepton_min": 40.0}
    spared, tight = made(process, **cut), made(process, **cut, cut_decays=True)
    p = spared.momenta(cube(spared, 500, 2))
    assert spared.passes(p).all()
    assert 0 < tight.passes(p).sum() < 500
    named = made(process, cuts=["pt(l) > 40"])
    assert 0 < named.passes(p).sum() < 500


def test_momenta_off_the_shell_are_outside_the_channels() -> None:
    process = made(WW, sqrt_s=500.0)
    channel = process.multichannel.channels[0]
    off = probe_momenta([0.0] * 6)[:, 2:]
    assert (channel.inverse(off)[1] == -math.inf).all()
    p, log_density = channel.forward(cube(process, 20, 1)[:, : channel.dim])
    assert torch.allclose(channel.inverse(p)[1], log_density)
