"""Matrix elements and cross-sections of processes from strings: small rows, both tables, wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("standard_model")


def test_speed_of_a_matrix_element(script: ModuleType) -> None:
    row = script.measure({"series": "speed", "process": "g g > t t~", "repeats": 1})
    assert row["seconds"] > 0 and row["flows"] == 2 and row["helicities"] == 8 and row["operations"] > 50


def test_draws_in_place_of_sums(script: ModuleType) -> None:
    row = script.measure({"series": "draws", "process": "u d~ > e+ ve g g", "repeats": 1, "points": 500})
    assert min(row["sums"], row["helicity"], row["colour"]) > 0
    assert 0 < row["kinds"] <= 10
    assert 0.1 < row["colour_variance"] < 20


def test_a_cross_section_within_its_error(script: ModuleType) -> None:
    row = script.measure({"series": "sigma", "process": "g g > t t~ g", "calls": 6000, "sampler": "vegas", "seed": 3})
    value, _ = script.MADGRAPH["g g > t t~ g"]
    assert abs(row["value"] - value) < 5 * row["error"] and row["error"] < 0.1 * value


def test_tables(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamp = {"threads": 1, "hardware": "a CPU", "date": "2026-11-30T00:00:00"}
    speed = {"series": "speed", "process": "g g > t t~", "seconds": 2e-6, "peer": 6e-6, "made": 0.1}
    sigma = {"series": "sigma", "process": "p p > t t~ j", "value": 1000.0, "error": 2.0, "calls": 10, "cpu": 1.0}
    draws = {"series": "draws", "process": "g g > t t~ g", "sums": 4e-6, "helicity": 2e-6, "colour": 1e-6}
    draws |= {"helicity_variance": 1.5, "colour_variance": 2.5, "kinds": 59, "made": 3.0} | stamp
    rows = [draws, speed | {"operations": 1200, "flows": 2, "helicities": 8} | stamp, sigma | stamp]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    assert script.main(["--speeds", "--draws", "--sigmas", "--output", str(tmp_path / "rows.json")]) == 0
    page = (tmp_path / "rows.md").read_text()
    assert "| g g > t t~ | 2.00 | 6.00 | 3.0 | 1,200 | 2 | 8 | 0.10 |" in page
    assert "| g g > t t~ g | 4.00 | 2.00 | 2.0 | 1.5 | 1.00 | 4.0 | 2.5 | 59 | 3.0 |" in page
    assert "| p p > t t~ j | 1000.00 +- 2.00 | 997.5605 +- 0.35 | 1.0024(20) | 1.2 | 10 | 1 |" in page
    assert "Cross-sections" in capsys.readouterr().out


def test_wrong_use(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--calls", "0"]) == 2
    assert "positive" in capsys.readouterr().err
