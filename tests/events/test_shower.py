"""Pythia 8 showers the events: none rejected, none lost, no error. Collected where pythia8mc is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import pythia8mc

from nisampler.events import EventFile, check_file, merge_shards, shard_path, write_events
from nisampler.events.weights import WeightGroup, WeightInfo


@dataclass(frozen=True)
class Showered:
    accepted: int
    tried: int
    errors: tuple[str, ...]
    reached_end: bool
    cross_section_pb: float
    weight_sum: float
    weights: tuple[float, ...]


@pytest.fixture
def shower(capfd):
    """shower(path): hadron-level events that Pythia made of a file, and the errors in its statistics."""

    def run(path):
        pythia = pythia8mc.Pythia("", False)
        quiet = ("Init:showProcesses", "Init:showChangedSettings", "Init:showChangedParticleData")
        counts = ("Next:numberCount", "Next:numberShowLHA", "Next:numberShowInfo", "Next:numberShowProcess")
        settings = {"Beams:frameType": 4, "Beams:LHEF": path, "Random:setSeed": "on", "Random:seed": 11}
        settings |= dict.fromkeys(quiet, "off") | dict.fromkeys((*counts, "Next:numberShowEvent"), 0)
        for name, value in settings.items():
            assert pythia.readString(f"{name} = {value}")
        assert pythia.init()
        failures, weights = 0, []
        while failures < 10 and not pythia.infoPython().atEndOfFile():
            if pythia.next():
                weights.append(pythia.infoPython().weight())
            elif not pythia.infoPython().atEndOfFile():
                failures += 1
        capfd.readouterr()
        pythia.stat()
        table = capfd.readouterr().out
        lines = re.findall(r"\d+\s+((?:Error|Abort).*?)\s*\|", table)
        tried = re.search(r"sum\s+\|\s+(\d+)", table)
        info = pythia.infoPython()
        errors = tuple(line for line in lines if "reached end of Les Houches Events File" not in line)
        sums = (info.sigmaGen() * 1e9, info.weightSum())
        return Showered(len(weights), int(tried[1]), errors, info.atEndOfFile(), *sums, tuple(weights))

    return run


@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz"))
@pytest.mark.parametrize("kind", ("direct", "resonant"))
def test_pythia_accepts_every_event(suffix, kind, shower, events, resonant, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    batch = events(200) if kind == "direct" else resonant(200)
    batch.weights[5] = 1.75
    write_events(path, batch, info)
    result = shower(path)
    assert (result.accepted, result.tried, result.errors) == (200, 200, ())
    assert result.reached_end
    assert result.cross_section_pb == pytest.approx(1234.5)
    assert result.weight_sum == pytest.approx(np.sum(batch.weights))


@pytest.mark.parametrize("signed", (False, True))
def test_a_shower_hands_on_weights_that_average_to_the_cross_section(signed, shower, events, info, tmp_path):
    """Weights of an overweight and of a negative event, as Pythia tells them; with IDWTUP = ±3 they are lost."""
    weights = np.ones(100)
    weights[7] = 1.75
    if signed:
        weights[11] = -1.25
        info = replace(info, strategy=-3)
    for index in (0, 1):
        part = slice(50 * index, 50 * index + 50)
        write_events(shard_path(tmp_path, index, ".h5"), events(50, index, weights[part]), info)
    found = {}
    for average in (True, False):
        merge_shards(tmp_path, tmp_path / "all.lhe", average=average)
        found[average] = shower(tmp_path / "all.lhe")
        assert (found[average].accepted, found[average].errors) == (100, ())
        file = EventFile.open(tmp_path / "all.lhe")
        assert file.info.strategy == (4 if average else 3) * (-1 if signed else 1)
        assert check_file(tmp_path / "all.lhe").n_overweight == (2 if signed else 1)
    factor = info.cross_section * 100 / weights.sum()
    np.testing.assert_allclose(found[True].weights, factor * weights, rtol=1e-6)
    assert np.mean(found[True].weights) == pytest.approx(info.cross_section, rel=1e-6)
    assert found[True].cross_section_pb == pytest.approx(info.cross_section, rel=1e-6)
    assert found[False].weights == tuple(np.sign(weights))


def test_pythia_complains_about_what_the_rules_forbid(shower, events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(20), info)
    path.write_text(path.read_text().replace("502 501", "502 509"))
    result = shower(path)
    assert result.accepted < 20
    assert result.errors


def test_pythia_finds_every_weight_by_its_name(events, info, tmp_path):
    """Seven scales and 43 members: names are the ids, and values stand to the nominal one as in the file."""
    scales = [f"MUR{r}_MUF{f}_PDF315000" for r in (0.5, 1.0, 2.0) for f in (0.5, 1.0, 2.0) if {r, f} != {0.5, 2.0}]
    members = [f"MUR1.0_MUF1.0_PDF{93300 + member}" for member in range(43)]
    groups = (
        WeightGroup("Central scale variation", "envelope", tuple(map(WeightInfo, scales))),
        WeightGroup("PDF4LHC21_40_pdfas", "symmhessian+as", tuple(map(WeightInfo, members))),
    )
    ratios = np.random.default_rng(1).uniform(-0.5, 2, (20, 50))
    batch = replace(events(20), named_weights=ratios)
    path = tmp_path / "events.lhe"
    header = (("card", 'seed = 1  # <init> R&D "]]>"\n'), ("cuts", "none"))
    write_events(path, batch, replace(info, weight_groups=groups, header=header))
    pythia = pythia8mc.Pythia("", False)
    for line in ("Beams:frameType = 4", f"Beams:LHEF = {path}", "Print:quiet = on"):
        assert pythia.readString(line)
    assert pythia.init()
    for row in ratios:
        assert pythia.next()
        found = pythia.infoPython()
        names = [found.weightNameByIndex(index) for index in range(found.numberOfWeights())]
        values = {name: found.weightValueByIndex(index) for index, name in enumerate(names)}
        assert {*scales, *members} <= values.keys()
        np.testing.assert_allclose([values[name] / values[names[0]] for name in (*scales, *members)], row, rtol=1e-12)
