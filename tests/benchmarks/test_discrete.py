"""The benchmark of sampled matrix elements: small rows, the table, wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("discrete")


def test_rows_of_both_ways_agree(script: ModuleType) -> None:
    small = {"process": "W + 2 jets", "calls": 3000, "points": 4096, "sampler": "vegas", "seed": 3, "repeats": 1}
    one, two = (script.measure(small | {"mode": mode, "python": None}) for mode in script.MODES)
    assert abs(one["value"] - two["value"]) < 5 * (one["error"] ** 2 + two["error"] ** 2) ** 0.5
    assert one["trial"] > 0 and 0 < two["efficiency"] < 1


def test_table(script: ModuleType, tmp_path: Path) -> None:
    common = {"process": "W + 2 jets", "value": 960.0, "error": 2.0, "calls": 1000, "sampler": "flow", "threads": 1}
    common |= {"hardware": "a CPU", "date": "2026-11-30T00:00:00"}
    figures = {"1850f07": (80e-6, 0.2), "summed": (20e-6, 0.2), "sampled": (8e-6, 0.16)}
    rows = [common | {"mode": mode, "trial": t, "efficiency": e} for mode, (t, e) in figures.items()]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    assert script.main(["--processes", "--output", str(tmp_path / "rows.json")]) == 0
    page = (tmp_path / "rows.md").read_text()
    assert "| W + 2 jets | 1850f07 | flow | 960.0 +- 2.0 | 80.00 | 0.2000 | 400.0 | 1.00 |" in page
    assert "| W + 2 jets | sampled | flow | 960.0 +- 2.0 | 8.00 | 0.1600 | 50.0 | 8.00 |" in page


def test_wrong_use(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--points", "0"]) == 2
    assert "positive" in capsys.readouterr().err
    assert [job["mode"] for job in script.jobs_of(script.parse(["--before", "python"]))][:2] == ["1850f07", "summed"]
