"""HadronProcess with parts whose answer is known: integral, masks, flavour shares, events and errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nisampler import IntegrationConfig, TrainingConfig, integrate
from nisampler.density.integrand import Integrand
from nisampler.errors import AmplitudeError, DomainError, ShapeError
from nisampler.events.rules import violations
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.base import draw
from nisampler.processes.constants import GEV2_PB
from nisampler.processes.hadron.cuts import Cuts, MassCut, TransverseMomentumCut
from nisampler.processes.hadron.events import BW_CUTOFF, Decay, FinalState, Pole
from nisampler.processes.hadron.process import HadronProcess, HadronSetup
from nisampler.processes.hadron.scales import make_scales

SQRT_S, M_MIN = 1000.0, 50.0
TAU_MIN = (M_MIN / SQRT_S) ** 2
SQUARED = (3.0, 5.0)
POLES = (Pole(23, 91.0, 2.5), Pole(32, 400.0, 10.0))
FACTOR = 0.25


class PowerPdf:
    """x f(x) = x for the up quark, 2x for its antiquark, zero for all others: luminosities are constants."""

    lhapdf_id = 1234

    def column(self, pdg):
        return pdg + 6 if pdg != 21 else 6

    def xf(self, x, q2):
        table = torch.zeros(*x.shape, 13, dtype=x.dtype)
        table[..., self.column(2)], table[..., self.column(-2)] = x, 2 * x
        return table

    def alpha_s(self, q2):
        return torch.full_like(q2, 0.1)


class LimitedPdf(PowerPdf):
    q2_range = (1.5**2, 1000.0**2)


class Constant:
    """u ubar -> e+ e- with constant squared matrix elements, another one for the beams swapped."""

    subprocesses = (
        SubProcess((2, -2), (-11, 11), 0),
        SubProcess((-2, 2), (-11, 11), 1),
        SubProcess((-2, 2), (-13, 13), 1, FACTOR),
        SubProcess((4, -4), (-11, 11), 0),
    )
    elements = 2

    def __init__(self):
        self.points = 0

    def squared(self, incoming, outgoing, alpha_s):
        self.points += len(outgoing)
        return outgoing.new_tensor(SQUARED).expand(len(outgoing), 2)

    def colour_flows(self, element, incoming, outgoing, alpha_s):
        line = [[501, 0], [0, 501]] if element == 0 else [[0, 502], [502, 0]]
        return outgoing.new_ones(len(outgoing), 1), torch.tensor([[*line, [0, 0], [0, 0]]])


class TwoBody:
    """tau = tau_min^(1 - u), flat rapidity, isotropic decay of massless legs."""

    name, dim = "two-body", 4

    def forward(self, u):
        log_tau = math.log(TAU_MIN) * (1 - u[:, 0])
        x1, x2 = torch.exp(log_tau * u[:, 1]), torch.exp(log_tau * (1 - u[:, 1]))
        energy, rapidity = 0.5 * SQRT_S * torch.exp(0.5 * log_tau), 0.5 * torch.log(x1 / x2)
        cosine, azimuth = 2 * u[:, 2] - 1, 2 * math.pi * u[:, 3]
        sine = (1 - cosine**2).sqrt()
        one = torch.ones_like(sine)
        rest = energy[:, None] * torch.stack([one, sine * azimuth.cos(), sine * azimuth.sin(), cosine], 1)
        legs = []
        for sign in (1.0, -1.0):
            e, z = rest[:, 0], sign * rest[:, 3]
            boosted = (e * rapidity.cosh() + z * rapidity.sinh(), e * rapidity.sinh() + z * rapidity.cosh())
            legs.append(torch.stack([boosted[0], sign * rest[:, 1], sign * rest[:, 2], boosted[1]], 1))
        # dx1 dx2 dPhi_2 = tau |log tau_min| |log tau| / (8 pi) du
        jacobian = torch.exp(log_tau) * -math.log(TAU_MIN) * -log_tau / (8 * math.pi)
        return torch.stack(legs, 1), -torch.log(jacobian)

    def inverse(self, x):
        total = x.sum(1)
        plus, minus = (total[:, 0] + total[:, 3]) / SQRT_S, (total[:, 0] - total[:, 3]) / SQRT_S
        log_tau = torch.log(plus * minus)
        mass, rapidity = SQRT_S * torch.exp(0.5 * log_tau), 0.5 * torch.log(plus / minus)
        e, z = x[:, 0, 0], x[:, 0, 3]
        cosine = (z * rapidity.cosh() - e * rapidity.sinh()) / (0.5 * mass)
        azimuth = torch.remainder(torch.atan2(x[:, 0, 2], x[:, 0, 1]), 2 * math.pi)
        u = torch.stack(
            [1 - log_tau / math.log(TAU_MIN), torch.log(plus) / log_tau, (cosine + 1) / 2, azimuth / (2 * math.pi)], 1
        )
        jacobian = torch.exp(log_tau) * -math.log(TAU_MIN) * -log_tau / (8 * math.pi)
        return u.clamp(0, 1), -torch.log(jacobian)


def build(*cuts, amplitude=None, **changes):
    state = FinalState((0.0, 0.0), (Decay((0, 1), POLES),), (), (0, 1))
    setup = HadronSetup(
        name="toy",
        final_state=state,
        amplitude=amplitude or Constant(),
        pdf=PowerPdf(),
        scales=make_scales("m_ll", ((0, 1),), {}, (0.5, 2.0)),
        cuts=Cuts(cuts, SQRT_S),
        channels=[TwoBody()],
        alpha_em=0.01,
    )
    return HadronProcess(replace(setup, **changes))


def cube(n, dim=4, seed=1):
    return torch.rand(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_channel_of_this_test_passes_the_self_test():
    build().multichannel.self_test()


def test_integral_is_exact():
    # int dx1 dx2 / (x1 x2) over tau > tau_min is log^2(tau_min) / 2, times f_a f_b M / (16 pi s)
    u = cube(40_000)
    values = build()(u)
    flux = 2 * SQUARED[0] + 2 * (1 + FACTOR) * SQUARED[1]
    exact = GEV2_PB * flux / (16 * math.pi * SQRT_S**2) * 0.5 * math.log(TAU_MIN) ** 2
    error = float(values.std()) / math.sqrt(len(u))
    assert abs(float(values.mean()) - exact) < 4 * error
    assert error < 0.01 * exact


@pytest.mark.parametrize("dynamic", (True, False))
def test_what_is_at_the_end_of_its_range_is_counted(dynamic):
    """The scales are the mass (from 50 GeV) over 80 and 40, or .9 and 1.8 GeV; the coupling is known from 1.5 GeV."""
    scales = (make_scales("m_ll", ((0, 1),), {}, (1 / 80, 1 / 40)), make_scales(1.8, ((0, 1),), {}, (0.5, 1.0)))
    process = build(pdf=LimitedPdf(), scales=scales[0 if dynamic else 1])
    u = cube(1000)
    process(u)
    mass = SQRT_S * process.fractions(process.momenta(u)).prod(1).sqrt()
    low, frozen = int((mass < 80).sum()), int((mass < 120).sum())
    assert 0 < low < frozen < 1000
    expected = (low, frozen) if dynamic else (1000, 1000)
    names = ("points", "scales below 1 GeV", "alpha_s outside its table")
    assert process.limits() == dict(zip(names, (1000, *expected), strict=True))
    integrand = Integrand(process)
    config = {"training": TrainingConfig(calls=5000, sampler="vegas"), "integration": IntegrationConfig(points=4096)}
    result = integrate(integrand, seed=1, progress=False, **config)
    assert result.limits["points"] == result.calls["integration"] >= 4096
    assert 0 < result.limits[names[1]] <= result.limits[names[2]]
    assert f"{names[1]}, " in result.summary() and "limits " in result.summary()
    assert "limits" not in integrate(build(), seed=1, progress=False, **config).summary()


def test_cuts_act_before_the_matrix_element_and_only_as_a_mask():
    amplitude = Constant()
    process, free = build(TransverseMomentumCut((0, 1), 40.0), amplitude=amplitude), build()
    u = cube(1000)
    values, passed = process(u), process.passes(process.momenta(u))
    assert amplitude.points == int(passed.sum()) and 0 < amplitude.points < 1000
    torch.testing.assert_close(values, torch.where(passed, free(u), 0.0))


def test_nothing_passing_is_zero_without_a_call():
    amplitude = Constant()
    process = build(MassCut((0, 1), 999.9), amplitude=amplitude)
    assert not process(cube(50) * 0.5).any() and amplitude.points == 0


def test_momentum_fractions_above_one_give_zero():
    process = build()
    p = process.momenta(cube(20))
    too_fast = p * 1000.0
    assert not process.differential(too_fast).any() and not process.passes(too_fast).any()


def test_momenta_that_are_not_finite_are_no_cut():
    process = build(TransverseMomentumCut((0, 1), 40.0))
    p = process.momenta(cube(20))
    p[3, 1, 2], p[7] = math.nan, math.inf
    value = process.differential(p)
    assert torch.nonzero(value.isnan()).flatten().tolist() == [3, 7]
    assert process.differential(p[3:4]).isnan().all()


@pytest.mark.parametrize("extreme", [0.0, 1.0, 1e-300, 1 - 2**-53])
def test_values_and_features_are_finite_at_the_borders(extreme):
    process = build()
    u = torch.full((1, 4), extreme, dtype=torch.float64)
    assert torch.isfinite(process(u)).all() and torch.isfinite(process.features(process.momenta(u))).all()
    assert torch.isfinite(process.features(torch.zeros(1, 2, 4, dtype=torch.float64))).all()


def test_events_obey_the_rules_and_draw_flavours_by_their_share():
    process = build()
    u, n = cube(4000, seed=3), 4000
    batch = process.events(u, torch.ones(n), torch.Generator().manual_seed(5))
    assert not list(violations(batch, 1e-10))
    shares = np.array([SQUARED[0], SQUARED[1], FACTOR * SQUARED[1]])
    shares /= shares.sum()
    swapped, muons = batch.pdg_ids[:, 0] == -2, batch.final_state()[1][:, 1] == 13
    assert set(batch.pdg_ids[:, 0]) == {2, -2}
    found = np.array([(~swapped).mean(), (swapped & ~muons).mean(), (swapped & muons).mean()])
    assert (np.abs(found - shares) < 4 * np.sqrt(shares / n)).all()
    assert (batch.colours[swapped, 0] == [0, 502]).all() and (batch.colours[~swapped, 0] == [501, 0]).all()


def test_a_resonance_is_written_near_its_pole_only():
    process = build()
    n = 4000
    batch = process.events(cube(n, seed=3), torch.ones(n), torch.Generator().manual_seed(5))
    assert not list(violations(batch, 1e-10))
    legs, codes = batch.final_state()
    pair = legs.sum(1)
    mass = np.sqrt(pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(1))
    near = {code: np.abs(mass - peak) < BW_CUTOFF * width for code, peak, width in POLES}
    assert not (near[23] & near[32]).any()
    written = batch.status == 2
    for code, rows in near.items():
        assert 100 < rows.sum() < n - 100
        assert (written[rows, 2].all()) and (batch.pdg_ids[rows, 2] == code).all()
        assert batch.mothers[rows][0].tolist() == [[0, 0], [0, 0], [1, 2], [3, 3], [3, 3]]
        np.testing.assert_allclose(batch.momenta[rows, 2], pair[rows], rtol=1e-12)
    rest = ~near[23] & ~near[32]
    assert rest.sum() > 100 and not written[rest].any() and written.sum() == (~rest).sum()
    assert (batch.status[rest] == [-1, -1, 1, 1, 0]).all()
    assert batch.mothers[rest][0].tolist() == [[0, 0], [0, 0], [1, 2], [1, 2], [0, 0]]
    # The same legs, flavours and colours are there as in records that always have a resonance.
    wide = build(final_state=FinalState((0.0, 0.0), (Decay((0, 1), (Pole(23, 91.0, 1e6),)),), (), (0, 1)))
    other = wide.events(cube(n, seed=3), torch.ones(n), torch.Generator().manual_seed(5))
    assert (other.status[:, 2] == 2).all()
    np.testing.assert_array_equal(other.final_state()[0], legs)
    np.testing.assert_array_equal(other.final_state()[1], codes)
    np.testing.assert_array_equal(other.colours[:, :2], batch.colours[:, :2])


def test_of_several_poles_the_nearest_in_widths_is_written():
    # 95 GeV is 3.8 GeV from a Z of 2.5 GeV, and 5 GeV from a boson of 100 GeV that is wider, or narrower.
    at = torch.tensor([95.0])
    for width, expected in ((5.0, 32), (0.4, 23)):
        assert Decay((0, 1), (Pole(23, 91.2, 2.5), Pole(32, 100.0, width))).written(at).tolist() == [expected]
    edge = torch.tensor([91.2 - 37.6, 91.2 - 37.4, 91.2 + 37.4, 91.2 + 37.6], dtype=torch.float64)
    assert Decay((0, 1), (Pole(23, 91.2, 2.5),)).written(edge).tolist() == [0, 23, 23, 0]


def test_a_record_costs_the_matrix_elements_that_the_process_says():
    amplitude = Constant()
    process = build(amplitude=amplitude)
    process.events(cube(50), torch.ones(50), torch.Generator().manual_seed(5))
    assert amplitude.points == 50 * process.record_calls


def test_events_carry_scales_couplings_and_densities():
    process = build()
    batch = process.events(cube(50), torch.full((50,), 2.0), torch.Generator().manual_seed(5))
    pair = batch.final_state()[0].sum(1)
    mass = np.sqrt(pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(1))
    np.testing.assert_allclose(batch.mu_r, 0.5 * mass)
    np.testing.assert_allclose(batch.scales, 2 * mass)
    np.testing.assert_allclose(batch.pdf_x.prod(1) * SQRT_S**2, mass**2)
    factor = np.where(batch.pdg_ids[:, :2] > 0, 1.0, 2.0)
    np.testing.assert_allclose(batch.pdf_xf, factor * batch.pdf_x)
    assert (batch.alpha_s == 0.1).all() and (batch.alpha_em == 0.01).all() and (batch.weights == 2).all()
    assert process.beams.pdf_sets == (1234, 1234)


def test_several_channels_give_the_same_integral_and_share_flows_if_told():
    process = build(channels=[TwoBody(), TwoBody()], groups=(0, 0))
    assert process.dim == 5 and process.multichannel.groups == (0, 0)
    u = cube(1000, 5)
    torch.testing.assert_close(process(u), build()(u[:, 1:]))
    torch.testing.assert_close(process.with_weights(None)(u), process(u))


def test_draw_never_takes_what_has_no_share():
    shares = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 2.0]])
    assert draw(shares, torch.tensor([0.0, 0.5])).tolist() == [1, 2]
    assert draw(shares, torch.tensor([0.999999, 0.0])).tolist() == [1, 0]


def test_errors_are_named():
    process = build(TransverseMomentumCut((0, 1), 40.0))
    u = cube(100)
    with pytest.raises(DomainError, match="outside the cuts"):
        process.events(u, torch.ones(100), torch.Generator())
    with pytest.raises(ShapeError, match="weights"):
        process.events(u, torch.ones(99), torch.Generator())
    with pytest.raises(ShapeError):
        build(channels=[TwoBody(), TwoBody()])(u)
    amplitude = Constant()
    amplitude.elements = 1
    with pytest.raises(AmplitudeError, match="elements 0 to 0"):
        build(amplitude=amplitude)
    amplitude = Constant()
    amplitude.elements = 3
    with pytest.raises(AmplitudeError, match="squared must return"):
        build(amplitude=amplitude)(u)
