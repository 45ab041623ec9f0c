"""The benchmark beside MadSpace: our part of every row, the table with and without the peer, wrong use."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nisampler.errors import MissingExtraError


@pytest.fixture
def bench(imported: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a machine without MadSpace, with a clock that moves by a second at each look."""
    found = imported("beside_madspace")
    ticks = itertools.count()
    monkeypatch.setattr(sys.modules["roofline"], "clock", lambda device: float(next(ticks)))

    def missing(name: str) -> None:
        raise MissingExtraError(f"{name} is not installed")

    monkeypatch.setattr(found, "library", missing)
    return found


def a_row(**changes: Any) -> dict[str, Any]:
    row = {"part": "densities", "batch": 1000, "threads": 1, "hardware": "a CPU", "date": "2026-11-30T00:00:00"}
    row |= {"versions": {"torch": "2", "madspace": "0.2"}}
    times = {
        "densities": {"nisampler": [1e-4, 2e-4], "madspace": [3e-4, 4e-4]},
        "coupling": {"nisampler": [1e-5, 1e-5]},
    }
    return row | {"times": times} | changes


@pytest.mark.parametrize("part", ["flow", "phase space", "event files", "densities", "Drell-Yan"])
def test_our_part_of_a_row(bench: ModuleType, part: str) -> None:
    if part in ("densities", "Drell-Yan") and importlib.util.find_spec("pythia8mc") is None:
        pytest.skip("its densities come with pythia8mc")
    row = bench.measure({"part": part, "batch": 40, "threads": 1, "repeats": 1})
    assert row["versions"]["madspace"] is None and json.loads(json.dumps(row)) == row
    lines = [dict(zip(bench.COLUMNS, line, strict=True)) for line in bench.lines_of([row])]
    assert len(lines) == len(row["times"]) >= 1
    for line in lines:
        assert float(line["nisampler, μs"]) > 0
        assert line["MadSpace, μs"] == line["MadSpace / nisampler"] == "n/a"


def test_ratios_are_taken_within_a_repeat_and_rows_are_shown(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = bench.lines_of([a_row()])
    assert lines[0] == ("densities", "densities", "1,000", "0.15", "0.35", "2.5")
    assert lines[1][3:] == ("0.01", "-", "-")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [a_row()]}))
    assert bench.main(["--part", "densities", "--batch", "1000", "--output", str(path)]) == 0
    assert "2.5" in capsys.readouterr().out
    assert "| densities | densities | 1,000 | 0.15 | 0.35 | 2.5 |" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--repeats", "0"], ["--threads", "0"]])
def test_wrong_use(bench: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(wrong) == 2
    assert "must be positive" in capsys.readouterr().err
