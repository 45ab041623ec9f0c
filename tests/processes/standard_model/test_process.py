"""Processes from strings: against those with names, their channels, cuts, events and errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.errors import AmplitudeError, ConfigError, NisamplerError
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.hadron.cuts import DistanceCut, LeadingPairCut
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.phase_space import TopologyChannel
from nisampler.processes.phase_space.kinematics import eta, mass, pt
from nisampler.processes.registry import create
from nisampler.processes.standard_model.channels import Region
from nisampler.processes.standard_model.diagrams import diagrams

UNIT_CKM = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def made(process: str, **parameters: Any) -> HadronProcess:
    found = create(process, **parameters)
    assert isinstance(found, HadronProcess)
    return found


def points(process: HadronProcess, n: int = 2000) -> Tensor:
    u = torch.rand(n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return process.momenta(u)


def test_top_pairs_are_those_with_a_name() -> None:
    ours, named = made("p p > t t~", scale="m_t"), made("ttbar", scale="m_t")
    p = points(named)
    assert torch.allclose(ours.differential(p), named.differential(p), rtol=1e-9)


def test_w_and_jets_differ_from_those_with_a_name_by_the_mixing_angle_alone() -> None:
    cuts = {"pt_lepton_min": 0.0, "eta_lepton_max": math.inf}
    loose = {"delta_r_jl_min": 0.0, "delta_r_ll_min": 0.0}
    ours, named = made("p p > e+ ve j j", scale="m_W", **cuts, **loose), made("w_plus_jets", n_jets=2, **cuts)
    p = points(named)
    a, b = ours.differential(p), named.differential(p)
    kept = b > 0
    angles = [StandardModel().sin2_theta_w, StandardModel().on_shell().sin2_theta_w]
    assert kept.sum() > 100
    assert torch.allclose(a[kept] / b[kept], torch.full_like(a[kept], (angles[0] / angles[1]) ** 2), rtol=1e-9)


PROCESSES: dict[str, dict[str, Any]] = {
    "p p > w+ w-": {},
    "p p > z z": {},
    "p p > w+ w- w+": {},
    "p p > t j QCD=0": {},
    "p p > h j j QCD=0": {},
    "p p > j j": {},
    "p p > a a": {"pt_photon_min": 30.0},
    "p p > e+ e- mu+ mu-": {"m_ll_min": 4.0},
    "p p > w+ w+ j j QCD=0": {"m_jj_min": 300.0, "delta_eta_jj_min": 2.0},
    "p p > e+ ve mu+ vm j j QCD=0": {"m_jj_min": 300.0, "scheme": "complex"},
    "p p > j t j t~": {},
    "p p > j w+ z j QCD=0": {"m_jj_min": 300.0},
    "p p > e+ ve mu+ j mu- j QCD=0": {"m_ll_min": 76.0, "m_ll_max": 106.0, "m_jj_min": 300.0},
    "p p > e+ j e-": {"m_ll_min": 40.0},
    "g g > t t~ g": {"channels": "topology", "channel_weights": "propagators"},
}


@pytest.mark.parametrize("name", PROCESSES)
def test_channels_fit_together_and_events_have_all_colours(name: str) -> None:
    process = made(name, **PROCESSES[name])
    if len(process.multichannel.channels) > 1:
        process.multichannel.self_test(Streams(3))
    u = torch.rand(3000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = process(u)
    assert bool(torch.isfinite(values).all()) and int((values > 0).sum()) > 50
    passed = u[values > 0][:40]
    batch = process.events(passed, torch.ones(len(passed)), torch.Generator().manual_seed(1))
    final = batch.status == 1
    codes = batch.pdg_ids
    coloured = (codes == 21) | ((abs(codes) > 0) & (abs(codes) < 7))
    assert ((batch.colours.sum(2) > 0) == coloured).all()
    legs = process.setup.final_state.masses
    assert (final.sum(1) == len(legs)).all()


def test_legs_beside_jets_stand_where_the_string_has_them() -> None:
    """Chili channels draw the two other legs first; points come back whatever the order."""
    process = made("p p > j t j t~")
    assert process.multichannel.names == ("V j1 j2", "V j1 j2~j1", "V j2 -j1", "V j1 -j2")
    masses = torch.tensor([0.0, 173.0, 0.0, 173.0], dtype=torch.float64)
    for channel in process.setup.channels:
        u = torch.rand(200, channel.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        p, log_density = channel.forward(u)
        assert torch.allclose(mass(p), masses, atol=1e-2)
        again, found = channel.inverse(p)
        fine = torch.isfinite(found)
        assert fine.float().mean() > 0.9
        assert torch.allclose(again[fine], u[fine], atol=1e-5)
        assert torch.allclose(found[fine], log_density[fine], rtol=1e-6)


@pytest.mark.parametrize(
    "process", ["p p > w+ w- b b~", "p p > w+ z j j QCD=0", "p p > h j j QCD=0", "p p > e+ ve mu+ mu- j"]
)
def test_jets_from_resonances_and_from_electroweak_vertices_follow_the_diagrams(process: str) -> None:
    assert all(isinstance(channel, TopologyChannel) for channel in made(process).setup.channels)


def test_flavours_that_differ_share_no_flow() -> None:
    assert made("p p > t t~ j j").multichannel.groups == (0, 1, 2, 2)
    assert made("u d > t t~ u d").multichannel.groups == (0, 1, 2, 3)


@pytest.mark.parametrize("process", ["g g > t t~ g", "p p > e+ ve j j", "u c > w+ w+ d s QCD=0"])
def test_channels_of_both_kinds_give_one_cross_section(process: str) -> None:
    found: list[tuple[float, float]] = []
    for channels in ("chili", "topology"):
        one = made(process, channels=channels)
        u = torch.rand(40000, one.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        values = one(u)
        found.append((float(values.mean()), float(values.std()) / len(values) ** 0.5))
    (a, da), (b, db) = found
    assert abs(a - b) < 4 * math.hypot(da, db)
    assert math.hypot(da, db) < 0.1 * a


def test_resonances_of_leptons_are_written() -> None:
    process = made("p p > e+ ve mu+ vm j j QCD=0")
    assert [(item.legs, item.poles[0].code) for item in process.setup.final_state.decays] == [
        ((0, 1), 24),
        ((2, 3), 24),
    ]
    process = made("p p > e+ e- j")
    assert [item.poles[0].code for item in process.setup.final_state.decays] == [23]


CUTS: dict[str, tuple[dict[str, Any], Any]] = {
    "jets": ({"pt_jet_min": 60.0}, lambda p: pt(p[:, 2:]).amin(1)),
    "leptons": ({"pt_lepton_min": 60.0}, lambda p: pt(p[:, :1]).amin(1)),
    "missing": ({"pt_missing_min": 60.0}, lambda p: pt(p[:, 1])),
    "mass of jets": ({"m_jj_min": 300.0}, lambda p: mass(p[:, 2:].sum(1))),
    "distance of jets": ({"delta_eta_jj_min": 2.0}, lambda p: (eta(p[:, 2]) - eta(p[:, 3])).abs()),
}


@pytest.mark.parametrize("name", CUTS)
def test_cuts_cut_what_they_say(name: str) -> None:
    changed, quantity = CUTS[name]
    loose, tight = made("p p > e+ ve j j"), made("p p > e+ ve j j", **changed)
    p = points(loose, 4000)
    p = p[loose.passes(p)]
    (limit,) = changed.values()
    assert torch.equal(tight.passes(p), quantity(p) >= limit)
    assert 0 < int(tight.passes(p).sum()) < len(p)


def test_cuts_of_a_card_narrow_the_phase_space() -> None:
    """Channels draw no masses outside a window, and the cross-section is that of the window as a cut alone."""
    window, narrow = ["m(e+, e-) in [86, 96]", "pt(l) > 20"], {"pt_lepton_min": 0.0}
    process = made("p p > e+ e- j", cuts=window, **narrow)
    pairs = mass(points(process)[:, :2].sum(1))
    assert bool(((pairs > 86.0 - 1e-6) & (pairs < 96.0 + 1e-6)).all())
    assert any("86.0" in str(cut) for cut in process.setup.cuts.cuts) and "86.0" in process.header["cuts"]
    wide = made("p p > e+ e- j", m_ll_min=60.0, **narrow)
    u = torch.rand(40_000, wide.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    p = wide.momenta(u)
    inside = made("p p > e+ e- j", cuts=["m(e+, e-) > 60", *window], **narrow).passes(p)
    values, direct = wide(u) * inside, process(u[:, : process.dim])
    error = math.hypot(float(values.std()), float(direct.std())) / math.sqrt(len(u))
    assert abs(float(values.mean() - direct.mean())) < 4 * error
    assert float(direct.std()) < 0.8 * float(values.std())


def test_distances_between_kinds() -> None:
    close = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, math.cos(0.3), math.sin(0.3), 0.0], [1.0, -1.0, 0.0, 0.0]]])
    assert not DistanceCut((0,), (1, 2), 0.4).mask(close).item()
    assert DistanceCut((0,), (1, 2), 0.2).mask(close).item()
    jets = torch.tensor([[[50.0, 30.0, 0.0, 40.0], [5.0, 3.0, 0.0, -4.0], [50.0, -30.0, 0.0, 40.0]]])
    assert LeadingPairCut((0, 1, 2), 0.0, 0.0).mask(jets).item()
    assert not LeadingPairCut((0, 1, 2), 0.0, 0.1).mask(jets).item(), "the soft jet is not one of the two"


def test_flavours_and_parameters_of_the_card() -> None:
    four = made("p p > t t~ j", flavours=4)
    codes = {code for item in four.setup.amplitude.subprocesses for code in (*item.initial, *item.final)}
    assert 4 in codes and 5 not in codes
    weaker = made("p p > w+ w-", alpha_em=0.5 * StandardModel().alpha_em)
    p = points(weaker, 50)
    usual = made("p p > w+ w-").differential(p)
    assert torch.allclose(4 * weaker.differential(p), usual, rtol=1e-12) and bool((usual > 0).all())
    assert made("p p > w+ w-", mass_w=81.0).setup.final_state.masses == (81.0, 81.0)


def test_least_energies_add_up() -> None:
    region = Region(13000.0, (80.0, 80.0, 0.0, 0.0), (0.0, 0.0, 30.0, 30.0), {(2, 3): 500.0})
    assert math.isclose(region.least_energy, 660.0, rel_tol=1e-10)
    assert region.least_mass((0, 2, 3)) == 580.0


def test_pairs_of_tops_are_found_behind_their_decays() -> None:
    process = made("p p > w+ w- b b~")
    tops = [c for c in process.setup.channels if repr(c.root).count("BreitWigner(mass=173.0") == 2]  # type: ignore[attr-defined]
    assert tops
    u = torch.rand(20_000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    values = process(u)
    assert values.max() < 1000 * values.mean()


def test_diagrams_are_counted_as_by_others() -> None:
    """Feynman diagrams without vertices of four particles."""
    rules = Vertices(Couplings(StandardModel(ckm=UNIT_CKM).on_shell()))
    assert len(diagrams([11, -11], [13, -13], rules, {0})) == 2
    assert len(diagrams([21, 21], [21, 21], rules, {2})) == 3
    assert len(diagrams([21, 21], [6, -6, 21], rules, {3})) == 15
    assert len(diagrams([2, -1], [-11, 12, 21, 21], rules, {2})) == 8


def test_bottom_quarks_with_a_mass_are_no_jets_and_couple_to_the_higgs() -> None:
    process = made("p p > b b~ h", mass_bottom=4.7, flavours=4)
    light = made("p p > b b~ h")
    assert process.setup.final_state.masses == (4.7, 4.7, 125.0) and process.setup.final_state.jets == ()
    assert light.setup.final_state.jets == (0, 1)
    assert len(process.setup.amplitude.subprocesses) == 9
    assert process(torch.full((1, process.dim), 0.4, dtype=torch.float64)) > 0


@pytest.mark.parametrize(
    ("several", "one", "times"),
    [
        ("p p > vl vl~ j", "p p > ve ve~ j", 3),
        ("p p > l+ l- j", "p p > e+ e- j", 2),
        ("p p > l+ vl j", "p p > e+ ve j", 2),
    ],
)
def test_generations_add_up_and_have_the_same_resonances(several: str, one: str, times: int) -> None:
    added, alone = made(several, elements="summed"), made(one, elements="summed")
    u = torch.rand(200, alone.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert added.setup.final_state == alone.setup.final_state and added.setup.final_state.decays
    assert torch.allclose(added(u), times * alone(u), rtol=1e-9)


def test_pairings_that_are_not_the_only_ones_are_no_decays() -> None:
    assert made("p p > l+ l- l+ l-").setup.final_state.decays == ()


WRONG: dict[str, tuple[str, dict[str, Any], type[NisamplerError], str]] = {
    "unknown parameter": ("p p > t t~", {"n_jets": 1}, ConfigError, "no setting n_jets"),
    "channels": ("p p > t t~", {"channels": "chili"}, ConfigError, "needs protons, and jets beside"),
    "weights": ("p p > t t~ j", {"channels": "chili", "channel_weights": "propagators"}, ConfigError, "topology"),
    "massive bottoms in protons": ("p p > b b~", {"mass_bottom": 4.7}, ConfigError, "flavours = 3 or 4"),
    "pyamplicol": ("p p > t t~", {"matrix_element": "pyamplicol"}, ConfigError, "matrix_element"),
    "scheme": ("p p > t t~", {"scheme": "running"}, ConfigError, "scheme"),
    "masses of leptons": ("p p > e+ e-", {"m_ll_min": 60.0, "m_ll_max": 50.0}, ConfigError, "contradictory cuts"),
    "energy": ("p p > t t~", {"sqrt_s": 300.0}, ConfigError, "contradictory cuts: the final state"),
    "scale": ("p p > j j", {"scale": "m_ll"}, ConfigError, "no scale 'm_ll'"),
    "cut of a particle that is not there": ("p p > t t~", {"cuts": ["pt(e+) > 5"]}, ConfigError, "no leg is always 'e"),
    "cuts that leave nothing": ("p p > t t~", {"cuts": ["m(t, t~) < 300"]}, ConfigError, "at least 346 GeV, not below"),
    "no diagram": ("p p > h", {}, AmplitudeError, "at least two outgoing"),
    "density of the top": ("t t~ > w+ w-", {}, AmplitudeError, "beams are two protons"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_is_wrong(name: str) -> None:
    process, parameters, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        create(process, **parameters)
