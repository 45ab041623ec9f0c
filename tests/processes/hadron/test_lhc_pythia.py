"""Cross-sections with real densities, and events that Pythia 8 showers. Collected where pythia8mc is installed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import pythia8mc
import torch

from nisampler.events import InitInfo, ProcessInfo, write_events
from nisampler.events.matching import clustering_scales
from nisampler.processes.registry import create

# 13 TeV, NNPDF31_lo_as_0118, fixed scale, no cut but the mass: what Pythia and an independent integration agree on.
DRELL_YAN, W_PLUS = 1603.2, 8995.9
TOLERANCE = 0.003


def integrate(process, log2_points, chunk=1 << 15):
    """Mean over a scrambled Sobol sequence: a smooth cross-section comes out to a part in a thousand."""
    engine = torch.quasirandom.SobolEngine(process.dim, scramble=True, seed=3)
    total = sum(
        float(process(engine.draw(chunk, dtype=torch.float64)).sum()) for _ in range((1 << log2_points) // chunk)
    )
    return total / (1 << log2_points)


@pytest.mark.parametrize(("name", "expected"), [("drell_yan", DRELL_YAN), ("w_plus_jets", W_PLUS)])
def test_cross_sections_are_those_of_the_table(name, expected):
    assert integrate(create(name), 18) == pytest.approx(expected, rel=TOLERANCE)


def test_another_scale_misses_the_table():
    assert integrate(create("drell_yan", mu_f_factor=2.0), 16) != pytest.approx(DRELL_YAN, rel=5 * TOLERANCE)


def test_both_sets_of_channels_give_the_same_jet_cross_section():
    settings = {"n_jets": 1, "scale": "H_T/2"}
    chili = integrate(create("w_minus_jets", **settings), 17)
    topology = integrate(create("w_minus_jets", channels="topology", **settings), 18)
    assert topology == pytest.approx(chili, rel=0.02)


def unweighted(process, count, seed=4):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(30_000, process.dim, dtype=torch.float64, generator=generator)
    values = process(u)
    chance = torch.rand(len(u), dtype=torch.float64, generator=generator) * torch.quantile(values, 0.999)
    u = u[chance < values][:count]
    return process.events(u, torch.ones(len(u)), generator)


@pytest.mark.parametrize(
    ("name", "settings", "resonances"),
    [
        ("z_prime", {"m_min": 20.0, "m_max": 120.0}, {0, 23}),
        ("z_prime", {"m_min": 380.0, "m_max": 420.0}, {0, 32}),
        ("w_plus_jets", {"n_jets": 1}, {0, 24}),
        ("ttbar", {}, {0}),
    ],
)
def test_pythia_showers_every_event(name, settings, resonances, tmp_path, capfd):
    process = create(name, **settings)
    batch = unweighted(process, 60)
    assert set(np.where(batch.status == 2, batch.pdg_ids, 0).max(1).tolist()) <= resonances
    info = InitInfo(
        process.beams.pdg_ids,
        process.beams.energies,
        tuple(ProcessInfo(1.0, 0.0, process_id=code) for code in process.event_groups),
        pdf_sets=process.beams.pdf_sets,
    )
    path = tmp_path / "events.lhe"
    write_events(path, batch, info)
    pythia = pythia8mc.Pythia("", False)
    for setting in ("Beams:frameType = 4", f"Beams:LHEF = {path}", "Print:quiet = on", "HadronLevel:all = off"):
        assert pythia.readString(setting)
    assert pythia.init()
    showered = 0
    for index in range(len(batch)):
        assert pythia.next()
        seen = pythia.infoPython()
        for found, written in zip((seen.x1pdf(), seen.x2pdf()), batch.pdf_x[index], strict=True):
            assert math.isclose(found, written, rel_tol=1e-9)
        assert math.isclose(seen.pdf1(), batch.pdf_xf[index, 0], rel_tol=1e-9)
        showered += 1
    assert showered == len(batch) == 60
    capfd.readouterr()


def matched(jets, path, settings, hooks=None):
    """Events of W+ and jets with scales for matching, and Pythia that reads them."""
    process = create("w_plus_jets", n_jets=jets)
    batch = unweighted(process, 200)
    batch = replace(batch, pt_clust=clustering_scales(batch, process.sqrt_s))
    processes = tuple(ProcessInfo(1.0, 0.0, process_id=code) for code in process.event_groups)
    info = InitInfo(process.beams.pdg_ids, process.beams.energies, processes, pdf_sets=process.beams.pdf_sets)
    write_events(path, batch, info)
    pythia = pythia8mc.Pythia("", False)
    usual = ("Beams:frameType = 4", f"Beams:LHEF = {path}", "Print:quiet = on", "HadronLevel:all = off")
    for setting in (*usual, "Beams:setProductionScalesFromLHEF = on", *settings):
        assert pythia.readString(setting)
    assert hooks is None or pythia.addUserHooksPtr(hooks)
    assert pythia.init()
    return batch, pythia


def test_pythia_takes_the_scales_of_matching_by_position(tmp_path, capfd):
    batch, pythia = matched(1, tmp_path / "events.lhe", ["PartonLevel:all = off"])
    for row in range(len(batch)):
        assert pythia.next()
        final = batch.final[row]
        written = sorted(zip(batch.pdg_ids[row, final].tolist(), batch.pt_clust[row, final].tolist(), strict=True))
        seen = [pythia.process[place] for place in range(pythia.process.size())]
        found = sorted((item.id(), item.scale()) for item in seen if item.isFinal())
        assert [code for code, _ in found] == [code for code, _ in written]
        assert [scale for _, scale in found] == pytest.approx([scale for _, scale in written])
    capfd.readouterr()


@pytest.mark.parametrize(("jets", "low", "high"), [(0, 0.6, 0.95), (1, 0.2, 0.7)])
def test_pythia_matches_by_mlm(jets, low, high, tmp_path, capfd):
    """Each multiplicity keeps the share of its events in which a shower made no jet above 30 GeV of its own."""
    names = {"merge": "on", "scheme": 1, "setMad": "off", "qCut": 30.0, "coneRadius": 1.0, "etaJetMax": 10.0}
    settings = [f"JetMatching:{name} = {value}" for name, value in (names | {"nJetMax": 1, "nQmatch": 5}).items()]
    more = ["PartonLevel:MPI = off", "Random:setSeed = on", "Random:seed = 3"]
    batch, pythia = matched(jets, tmp_path / "events.lhe", [*settings, *more], pythia8mc.JetMatchingMadgraph())
    kept = sum(pythia.next() for _ in range(len(batch)))
    assert low < kept / len(batch) < high
    assert pythia.infoPython().atEndOfFile()
    capfd.readouterr()
