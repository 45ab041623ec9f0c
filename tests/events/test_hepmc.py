"""HepMC3 files: read back by pyhepmc, with every weight by name; collected where pyhepmc is installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nisampler.errors import EventCountError, EventFormatError
from nisampler.events import write_events
from nisampler.events.weights import WeightGroup, WeightInfo

pyhepmc = pytest.importorskip("pyhepmc")


@pytest.fixture
def varied(resonant):
    rng = np.random.default_rng(1)
    columns = {
        "mu_r": rng.uniform(10, 100, 6),
        "pdf_x": rng.uniform(0.1, 1, (6, 2)),
        "pdf_xf": rng.uniform(0, 1, (6, 2)),
        "pt_clust": np.tile([0.0, 0, 0, 91.2, 20.5, 13000], (6, 1)),
    }
    return replace(resonant(6), named_weights=rng.uniform(-1, 2, (6, 2)), **columns)


@pytest.fixture
def named(info):
    groups = (WeightGroup("scales", "envelope", (WeightInfo("MUR0.5_MUF1.0_PDF1"), WeightInfo("b"))),)
    return replace(info, weight_groups=groups, header=(("card", 'process = "ee"\nseed = 1 # R&D'),))


@pytest.mark.parametrize("suffix", (".hepmc", ".hepmc.gz"))
def test_what_pyhepmc_reads_is_what_was_written(suffix, varied, named, tmp_path):
    path = tmp_path / f"events{suffix}"
    assert write_events(path, varied, named) == 6
    with pyhepmc.open(path) as file:
        events = list(file)
    assert len(events) == 6
    for index, event in enumerate(events):
        assert event.weight_names == ["Default", "MUR0.5_MUF1.0_PDF1", "b"]
        assert event.weights == [varied.weights[index], *varied.named_weights[index]]
        assert event.cross_section.xsec() == named.cross_section
        densities = [event.pdf_info.x1, event.pdf_info.x2, event.pdf_info.xf1, event.pdf_info.xf2]
        np.testing.assert_allclose(densities, [*varied.pdf_x[index], *varied.pdf_xf[index]], rtol=1e-8)
        final = [particle for particle in event.particles if particle.status == 1]
        momenta = [[p.momentum.e, p.momentum.px, p.momentum.py, p.momentum.pz] for p in final]
        np.testing.assert_allclose(momenta, varied.momenta[index][varied.status[index] == 1], rtol=1e-15)
        assert [particle.attributes["pt_clust"].astype(float) for particle in final] == [91.2, 20.5, 13000]
        assert [beam.pid for beam in event.beams] == [-11, 11]
        (decay,) = [particle for particle in event.particles if particle.status == 2]
        assert decay.pid == 23 and len(decay.end_vertex.particles_out) == 3
    assert events[0].run_info.attributes["card"].astype(str) == named.header[0][1]
    assert events[0].attributes["alphaQCD"].astype(float) == varied.alpha_s[0]
    again = tmp_path / f"again{suffix}"
    write_events(again, iter([varied.select(slice(0, 4)), varied.select(slice(4, 6))]), named, 6)
    assert again.read_bytes() == path.read_bytes()


def test_hadrons_stand_before_their_partons(varied, named, tmp_path):
    path = tmp_path / "events.hepmc"
    hadronic = replace(named, beam_ids=(2212, 2212), beam_energies=(6500.0, 6500.0))
    write_events(path, varied, hadronic)
    with pyhepmc.open(path) as file:
        event = next(iter(file))
    assert [(beam.pid, beam.status, beam.momentum.e) for beam in event.beams] == [(2212, 4, 6500.0)] * 2
    partons = [beam.end_vertex.particles_out[0] for beam in event.beams]
    assert [parton.pid for parton in partons] == varied.pdg_ids[0, :2].tolist()
    assert event.beams[0].momentum.pz > 0 > event.beams[1].momentum.pz


def test_nothing_is_left_of_a_file_that_fails(varied, named, tmp_path):
    path = tmp_path / "events.hepmc"
    with pytest.raises(EventCountError, match="7 events were declared, 6 were made"):
        write_events(path, varied, named, 7)
    broken = varied.momenta.copy()
    broken[5, 3] = np.nan
    with pytest.raises(EventFormatError, match="momenta"):
        write_events(path, iter([varied, replace(varied, momenta=broken)]), named)
    assert list(tmp_path.iterdir()) == []
