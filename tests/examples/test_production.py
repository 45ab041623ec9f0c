"""The production of examples/production in small: every step, the numbers of its picture, and a second call."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from commands import call
from pdf_grids import write_set

from nisampler.events import EventFile
from nisampler.events.uncertainty import uncertainties

SCRIPT = Path(__file__).parents[2] / "examples" / "production" / "pipeline.py"
CARD = """
process = "w_plus_jets"
[parameters]
n_jets = 1
pdf = "NNPDF31_lo_as_0118"
[training]
sampler = "vegas"
calls = 5000
[integration]
points = 5000
[events]
n = 0
"""
QUICK = ["--cluster", "", "--pythia", "PartonLevel:MPI = off", "--pythia", "HadronLevel:all = off"]
N = 60

Production = Callable[..., list[str]]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("production_pipeline", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def produce(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Production:
    """Runs the script, its commands in this process, and gives the names of these."""
    write_set(tmp_path / "sets")
    monkeypatch.setenv("LHAPDF_DATA_PATH", str(tmp_path / "sets"))
    (tmp_path / "small.toml").write_text(CARD)

    def run(*more: Any) -> list[str]:
        names: list[str] = []

        def command(*words: object) -> None:
            code, _, err = call(*words)
            assert code == 0, err
            names.append(str(words[0]))

        monkeypatch.setattr(script, "nisampler", command)
        words = [tmp_path / "out", "--events", N, "--card", tmp_path / "small.toml", "--pdf", "toyset", *QUICK, *more]
        monkeypatch.setattr(sys, "argv", ["pipeline.py", *map(str, words)])
        script.main()
        return names

    return run


def test_a_production_from_card_to_picture(produce: Production, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    whole = ["run", "pack", "generate", "generate", "generate", "merge", "reweight", "uncertainty"]
    assert produce() == whole
    assert f"{N} events showered, 0 refused" in capfd.readouterr().out
    folder = tmp_path / "out"
    made = json.loads((folder / "histograms.json").read_text())
    file = EventFile.open(folder / "varied.lhe.gz")
    assert file.count() == N and made["failed"] == 0
    assert made["total"] == pytest.approx(file.info.cross_section, rel=1e-6)
    for name in ("pt_w", "pt_j1", "n_jets"):
        value = np.array(made[name]["value"])
        assert made[name]["bands"].keys() == {"Central scale variation", "toyset"}
        for band in made[name]["bands"].values():
            low, high = np.array(band["low"]), np.array(band["high"])
            assert (low <= value).all() and (value <= high).all() and (high > low)[value > 0].all()
    assert sum(made["n_jets"]["value"]) == pytest.approx(made["total"])
    assert np.array(made["pt_w"]["value"]) @ np.diff(made["pt_w"]["edges"]) == pytest.approx(made["total"], rel=0.1)
    # Pythia hands on each named weight as the file has it.
    found, stored = np.load(folder / "showered.npz"), uncertainties(folder / "varied.lhe.gz").values
    for column, name in enumerate(sorted(stored)):
        assert found["named"][:, column].mean() == pytest.approx(stored[name], rel=1e-6), name
    assert len(stored) == len(set(stored)) == 7 + 4

    picture = (folder / "production.svg").read_bytes()
    assert picture.startswith(b"<?xml")
    for lost in ("varied.lhe.gz", "showered.npz", "histograms.json"):
        (folder / lost).unlink()
    assert produce() == ["reweight", "uncertainty"]
    assert json.loads((folder / "histograms.json").read_text()) == made
    assert (folder / "production.svg").read_bytes() == picture
    with pytest.raises(SystemExit, match="holds a production with other settings"):
        produce("--pythia", "TimeShower:alphaSvalue = 0.12")
    capfd.readouterr()


def test_a_command_that_fails_ends_the_script(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    script.nisampler("info", "nowhere.lhe")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemExit, match="1"):
        script.nisampler("info", "nowhere.lhe")
