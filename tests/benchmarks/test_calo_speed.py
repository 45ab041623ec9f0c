"""The times of showers, and the cost of one flow of a chain: small models, their tables, wrong use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def speed(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("calo_speed")


@pytest.fixture
def causal(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("calo_causal_flow")


def test_a_model_is_timed_once_and_stands_beside_what_was_published(
    speed: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    arguments = ["--model", "small=toy", "--batch", "1", "--repeats", "1", "--output", str(path)]
    assert speed.main(arguments) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["model"], row["geometry"], row["rows"][0]["batch"]) == ("small", "toy", 1)
    assert row["rows"][0]["generate"] > 0
    assert "| toy | small |" in path.with_suffix(".md").read_text()
    assert "small for toy" in capsys.readouterr().out

    def never(*job: object) -> None:
        raise AssertionError(job)

    monkeypatch.setattr(sys.modules["measurements"], "run_row", never)
    assert speed.main(arguments) == 0
    known = row | {"model": "convl2l-ds3", "geometry": "ds3", "gpu": None}
    assert speed.lines_of(known)[0][-1] == "2.36e+03"


def test_a_step_of_a_flow_is_measured(causal: ModuleType) -> None:
    row = causal.measure(
        {"model": "small-convl2l", "geometry": "toy", "part": 3, "batch": 8, "steps": 1, "device": "cpu"}
    )
    assert (row["name"], row["parts"]) == ("layer-02", 5)
    assert row["seconds"] > 0
    assert 0 < row["parameters"] < row["all_parameters"]


@pytest.mark.parametrize("wrong", [["--model", "small"], ["--batch", "0"]])
def test_wrong_use_of_the_causal_flow(causal: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert causal.main(wrong) == 2
    assert "must be" in capsys.readouterr().err


def test_a_model_needs_a_geometry(speed: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--model", "small"]) == 2
    assert "PRESET=GEOMETRY" in capsys.readouterr().err
