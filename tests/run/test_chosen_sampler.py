"""Runs whose sampler is chosen for the number of events: by default, with given costs, and overruled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nisampler.base.checkpoints import has_checkpoint
from nisampler.base.storage import read_sealed
from nisampler.errors import CardError
from nisampler.run.directory import RunDirectory
from nisampler.run.pipeline import execute, start
from nisampler.run.report.summary import summary
from nisampler.training.costs import Choice
from nisampler.training.pilot import Pilot
from nisampler.training.trainer import Trainer

CARD = """process = "camel"
[parameters]
dim = 2
[training]
calls = 40_000
{training}
[training.flow]
hidden = 16
layers = 2
batch = 500
fourier = 0
[training.costs]
call = {call}
[unweighting]
two_stage = "never"
[events]
n = 300
"""
MANY = "events = 200_000"


def run(folder: Path, name: str, training: str = "", call: float = 1e-2) -> dict[str, Any]:
    card = folder / f"{name}.toml"
    card.write_text(CARD.format(training=training, call=call))
    with start(card, folder / name) as directory:
        return execute(directory)


def test_the_choice_is_told_in_all_places(tmp_path: Path) -> None:
    result = run(tmp_path, "many", MANY)
    choice = result["sampler"]["choice"]
    assert choice["events"] == 200_000 and choice["chosen"].startswith("flow") and choice["costs"]["call"] == 1e-2
    assert {option["name"] for option in choice["options"]} == {"VEGAS", "VEGAS + tree", "flow 2x16"}
    assert read_sealed(tmp_path / "many" / "result.json") == result
    line = Choice.of(choice).line()
    assert ("choice", line) in summary(result, tmp_path)
    assert f"choice: {line}" in (tmp_path / "many" / "run.log").read_text()
    assert all(item["seconds_per_event"] >= 1e-2 for item in result["sampler"]["candidates"])


def test_by_default_the_events_of_the_card_count(tmp_path: Path) -> None:
    result = run(tmp_path, "few")
    choice = result["sampler"]["choice"]
    assert choice["events"] == 300 and choice["chosen"].startswith("VEGAS")
    assert "vegas" in result["sampler"]["name"]
    assert result["integral"]["n_points"] <= 2**14
    assert run(tmp_path, "again")["integral"] == result["integral"]
    files = [(tmp_path / name / "events.h5").read_bytes() for name in ("few", "again")]
    assert files[0] == files[1]


def test_it_can_be_overruled(tmp_path: Path) -> None:
    points = "[integration]\npoints = 3000"
    by_efficiency = run(tmp_path, "efficiency", "events = 0", call=1e-7)
    assert by_efficiency["sampler"]["choice"] is None and "flow" in by_efficiency["sampler"]["name"]
    assert "choice" not in dict(summary(by_efficiency, tmp_path))
    assert by_efficiency["integral"]["n_points"] > 900_000
    assert "seconds_per_event" in by_efficiency["sampler"]["candidates"][0]
    told = run(tmp_path, "told", f'sampler = "vegas"\n{MANY}')
    assert told["sampler"]["choice"]["reason"] == "as told" and "vegas" in told["sampler"]["name"]
    with pytest.raises(CardError, match=r"training\.costs\.call = -1"):
        run(tmp_path, "wrong", points, call=-1.0)


def test_a_decision_is_stored_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, "whole", MANY)

    def stop(self: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_flow", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "killed", MANY)
    assert has_checkpoint(tmp_path / "killed" / "checkpoint")
    patched = []
    monkeypatch.setattr(Pilot, "run", lambda *_: patched.append(1))
    with RunDirectory.open(tmp_path / "killed") as directory:
        resumed = execute(directory)
    assert not patched
    assert resumed["sampler"] == whole["sampler"] and resumed["integral"] == whole["integral"]
