"""The registered hadron processes from their cards: wiring of the parts, and every wrong value by name."""

from __future__ import annotations

import math

import pytest
import torch

from nisampler.errors import ConfigError, MissingExtraError, PdfError, ShapeError
from nisampler.events.rules import require_valid
from nisampler.processes.amplicol import amplitude, cache
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.hadron import lhc, wiring
from nisampler.processes.registry import create

NAMES = ("z_prime", "drell_yan", "w_plus_jets", "w_minus_jets", "z_jets", "ttbar")
JETS = tuple((name, n) for name in ("w_plus_jets", "w_minus_jets", "z_jets") for n in (0, 1))


class ToyPdf:
    """x f = (1 - x)^3, the same for all partons; alpha_s falls with the scale."""

    lhapdf_id = 7

    def column(self, pdg):
        return pdg + 6 if pdg != 21 else 6

    def xf(self, x, q2):
        return ((1 - x) ** 3).unsqueeze(-1).expand(*x.shape, 13)

    def alpha_s(self, q2):
        return 1 / torch.log(q2)


class Recorder:
    """Stands where generated matrix elements do and remembers what was asked for."""

    asked = ()
    elements = 1

    def __init__(self, process, model, *, workers, on_progress):
        Recorder.asked = (process, model.mass_top, workers)
        on_progress("made")
        final = {"e+": -11, "ve": 12, "e-": 11, "ve~": -12, "t": 6, "t~": -6, "j": 21}
        codes = tuple(final[token] for token in process.split(" > ")[1].split())
        self.subprocesses = (SubProcess((21, 21), codes, 0),)

    def squared(self, incoming, outgoing, alpha_s):
        return outgoing.new_ones(len(outgoing), 1)


@pytest.fixture(autouse=True)
def toy_pdf(monkeypatch):
    monkeypatch.setattr(wiring, "load_pdf", lambda name: ToyPdf())


def cube(process, n=400, seed=1):
    return torch.rand(n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("channels", "weights"), [("chili", "densities"), ("topology", "densities"), ("topology", "propagators")]
)
@pytest.mark.parametrize("name", NAMES)
def test_channels_of_every_process_pass_their_self_test(name, channels, weights):
    process = create(name, channels=channels, channel_weights=weights)
    process.multichannel.self_test()
    assert torch.isfinite(process(cube(process))).all() and process(cube(process)).any()


def test_the_integral_does_not_depend_on_the_weights_of_channels():
    """Of Z + 1 jet in a window; the same points with other weights give another sum, as they must."""
    found = []
    for weights in ("densities", "propagators"):
        process = create("z_jets", n_jets=1, channels="topology", channel_weights=weights, m_max=120.0)
        engine = torch.quasirandom.SobolEngine(process.dim, scramble=True, seed=3)
        values = process(engine.draw(1 << 16, dtype=torch.float64))
        found.append(float(values.mean()))
    assert found[0] != found[1] and found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parametrize(("name", "jets"), JETS)
def test_events_conserve_charge_and_follow_the_rules(name, jets):
    process = create(name, n_jets=jets)
    u = cube(process)
    u = u[process(u) > 0]
    batch = process.events(u, torch.ones(len(u)), torch.Generator().manual_seed(2))
    require_valid(batch)
    charge = {21: 0, 11: -3, 12: 0, 22: 0, 23: 0, 24: 3} | {q: (2 if q % 2 == 0 else -1) for q in range(1, 6)}
    total = sum(
        (1 if status == 1 else -1) * (1 if code > 0 else -1) * charge[abs(code)]
        for codes, states in zip(batch.pdg_ids, batch.status, strict=True)
        for code, status in zip(codes.tolist(), states.tolist(), strict=True)
        if status in (1, -1)
    )
    assert total == 0
    boson = {"w_plus_jets": 24, "w_minus_jets": -24, "z_jets": 23}[name]
    assert set(batch.pdg_ids[batch.status == 2].tolist()) == {boson}
    for observable in process.observables:
        assert math.isfinite(observable(batch).sum())


def test_cross_sections_follow_the_couplings():
    """alpha_s enters a one-jet cross-section once, whatever its running."""
    values = []
    for alpha in (0.1, 0.13):
        process = create("w_plus_jets", n_jets=1, alpha_s=alpha, scale=lhc.StandardModel().mass_z)
        values.append(process(cube(process)))
    torch.testing.assert_close(values[1], 1.3 * values[0], rtol=1e-6, atol=0)
    fixed, running = create("z_jets", n_jets=1), create("z_jets", n_jets=1, scale="H_T/2", mu_r_factor=2.0)
    u = cube(fixed)
    p = fixed.momenta(u)
    passed = p[fixed.passes(p)]
    mu_r = running.setup.scales(passed)[0]
    ratio = torch.log(torch.tensor(91.1876**2)) / torch.log(mu_r**2)
    torch.testing.assert_close(running.differential(passed), fixed.differential(passed) * ratio)


def test_z_prime_has_a_channel_for_each_propagator():
    process = create("z_prime")
    assert process.multichannel.names == ("photon", "Z", "Z'") and process.multichannel.groups == (0, 1, 2)
    assert process.dim == 5
    p = process.momenta(cube(process, 3000))
    mass = (p.sum(1)[:, 0] ** 2 - p.sum(1)[:, 1:].square().sum(1)).sqrt()
    assert (mass > 49.999).all() and (mass < 1000.001).all()
    assert 0.2 < float(((mass - 400).abs() < 2).double().mean()) < 0.4


GENERATED = {
    ("w_plus_jets", 2): "p p > e+ ve j j",
    ("w_minus_jets", 3): "p p > e- ve~ j j j",
    ("z_jets", 2): "p p > e- e+ j j",
    ("ttbar_jet", None): "p p > t t~ j",
}


@pytest.mark.parametrize("key", GENERATED)
def test_more_jets_have_matrix_elements_by_recursion(key):
    name, jets = key
    settings = {"mass_top": 170.0} if jets is None else {"n_jets": jets}
    process = create(name, **settings)
    assert process.setup.amplitude.process == GENERATED[key]
    assert process.setup.amplitude.model.mass_top == settings.get("mass_top", 173.0)
    u = cube(process)
    values = process(u)
    assert torch.isfinite(values).all() and values.any()
    batch = process.events(u[values > 0], torch.ones(int((values > 0).sum())), torch.Generator().manual_seed(1))
    coloured = batch.colours[(batch.status == 1) & ((abs(batch.pdg_ids) < 7) | (batch.pdg_ids == 21))]
    assert (coloured.sum(1) > 0).all()


@pytest.mark.parametrize("key", GENERATED)
def test_more_jets_take_generated_matrix_elements(key, monkeypatch, capsys):
    monkeypatch.setattr(amplitude, "AmplicolAmplitude", Recorder)
    name, jets = key
    settings = {"mass_top": 170.0} if jets is None else {"n_jets": jets}
    for channels in ("chili", "topology"):
        process = create(name, matrix_element="pyamplicol", workers=2, channels=channels, **settings)
        assert Recorder.asked == (GENERATED[key], settings.get("mass_top", 173.0), 2)
        u = cube(process)
        assert torch.isfinite(process(u)).all() and process(u).any()
    assert len(set(process.multichannel.names)) == len(process.multichannel.names)
    assert "made" in capsys.readouterr().err


def test_generated_matrix_elements_need_their_package(monkeypatch):
    monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="sm"):
        create("ttbar_jet", matrix_element="pyamplicol")


WRONG = {
    "unknown parameter": ({"jets": 2}, "no setting jets"),
    "too many jets": ({"n_jets": 4}, "n_jets = 4: must be a whole number, at least 0 and at most 3"),
    "negative jets": ({"n_jets": -1}, "n_jets = -1"),
    "half a jet": ({"n_jets": 1.5}, "whole number"),
    "jets as text": ({"n_jets": "two"}, "whole number"),
    "energy": ({"sqrt_s": 0.0}, "sqrt_s"),
    "energy as text": ({"sqrt_s": "13 TeV"}, "sqrt_s"),
    "no number": ({"m_max": math.nan}, "m_max"),
    "set as number": ({"pdf": 315000}, "pdf = 315000: must be a string"),
    "unknown scale": ({"scale": "HT"}, "no scale 'HT'"),
    "scale below a GeV": ({"scale": 0.1}, "at least 1"),
    "scale factor": ({"mu_f_factor": 0.0}, "factor"),
    "unknown channels": ({"channels": "vegas"}, '"chili" or "topology"'),
    "propagators of no tree": ({"channel_weights": "propagators"}, 'needs channels = "topology"'),
    "coupling": ({"alpha_s": 3.0}, "alpha_s = 3.0"),
    "loops": ({"alpha_s": 0.118, "alpha_s_loops": 5}, "alpha_s_loops = 5: must be 1 or 2 or 3"),
    "loops that are not used": ({"alpha_s_loops": 0}, "loops"),
    "workers": ({"workers": -1}, "workers"),
    "infinite energy": ({"sqrt_s": math.inf}, "sqrt_s = inf"),
    "massless photon": ({"m_min": 0.0}, "m_min"),
    "soft jets": ({"n_jets": 1, "pt_jet_min": 0.0}, "pt_jet_min"),
    "collinear jets": ({"n_jets": 2, "delta_r_jj_min": 0.0}, "delta_r_jj_min"),
    "empty mass window": ({"m_min": 90.0, "m_max": 80.0}, "contradictory cuts"),
    "mass above the energy": ({"m_min": 14000.0}, "contradictory cuts"),
    "pT above the limit": ({"n_jets": 1, "pt_jet_min": 7000.0}, "contradictory cuts"),
    "leptons harder than the energy": ({"pt_lepton_min": 6500.0}, "contradictory cuts"),
    "leptons harder than half their mass": ({"pt_lepton_min": 60.0}, "contradictory cuts"),
    "no invisible leg": ({"pt_missing_min": 20.0}, "no leg is invisible"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters(name):
    settings, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        create("z_jets", **settings)


@pytest.mark.parametrize("name", ["drell_yan", "z_prime", "w_plus_jets"])
def test_report_covers_the_masses_that_are_asked_for(name):
    open_ended = create(name, m_min=700.0, m_max=math.inf).observables[0]
    assert open_ended.low == 700.0 and 1000.0 < open_ended.high < 13000.0
    window = create(name, m_min=50.0, m_max=1000.0).observables[0]
    assert (window.low, window.high) == (50.0, 1000.0)


def test_couplings_of_the_z_prime_are_parameters():
    """At its peak a Z' without leptons changes nothing, and twice its lepton coupling makes four times as much."""
    narrow = {"m_min": 399.9, "m_max": 400.1}
    silent, single, double = (
        create("z_prime", **narrow, z_prime_lepton=[0.0, strength]) for strength in (0.0, -0.5, -1.0)
    )
    u = cube(silent)
    without = create("drell_yan", **narrow)
    torch.testing.assert_close(silent.differential(silent.momenta(u)), without.differential(silent.momenta(u)))
    assert float(double(u).sum() / single(u).sum()) == pytest.approx(4.0, rel=0.01)
    with pytest.raises(ConfigError, match=r"z_prime_up = .1.0.: must be a list of 2 values"):
        create("z_prime", z_prime_up=[1.0])


@pytest.mark.parametrize("name", ["ttbar", "ttbar_jet"])
def test_top_pairs_above_the_energy_are_refused(name):
    with pytest.raises(ConfigError, match="too heavy"):
        create(name, mass_top=6500.0)


def test_z_prime_with_two_jets_is_refused():
    with pytest.raises(ConfigError, match="n_jets = 2: must be 0 or 1"):
        create("z_prime", n_jets=2)


def test_missing_grid_is_named(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(PdfError):
        create("drell_yan", pdf="/nowhere/none_0000.dat")


def test_wrong_shape_of_points():
    with pytest.raises(ShapeError):
        create("drell_yan")(torch.rand(5, 3, dtype=torch.float64))
