"""What the planner expects of flows, fitted to rows of the laboratory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from nisampler.base import tuning
from nisampler.training.costs import flow_efficiency


@pytest.fixture
def planner(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("planner")


def rows(planner: ModuleType, factor: float = 1.0) -> list[dict[str, object]]:
    found = []
    for value in (planner.DEFAULT, planner.SMALL):
        for calls in (20_000, 200_000, 1_000_000):
            for vegas, flows in ((0.2, 1), (0.01, 1), (0.03, 3)):
                row = {"case": "w1", "value": value, "calls": calls, "vegas": vegas, "flows": flows}
                found.append(row | {"efficiency": factor * planner.expected(row)})
    return found


def test_a_fit_finds_the_constants_that_made_the_rows(planner: ModuleType) -> None:
    constants, error = planner.fitted(rows(planner))
    assert constants == pytest.approx([*tuning.HALF_WAY, tuning.SHARED_HALF_WAY], rel=1e-3) and error < 1e-6
    others, error = planner.fitted(rows(planner, factor=0.5))
    assert others[0] > 1.2 * tuning.HALF_WAY[0] and error > 0.05


def test_small_flows_are_expected_to_reach_less(planner: ModuleType) -> None:
    assert flow_efficiency(0.03, 100_000, 3, small=True) < 0.95 * flow_efficiency(0.03, 100_000, 3)


def test_a_page_and_a_picture(planner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "planner.json"
    blind = {"case": "camel4", "value": planner.DEFAULT, "calls": 5000, "efficiency": 0.5}
    path.write_text(json.dumps({"rows": [*rows(planner, factor=1.2), blind]}))
    assert planner.main(["--rows", str(path), "--figure", str(tmp_path / "planner.png")]) == 0
    page = path.with_suffix(".md").read_text()
    assert capsys.readouterr().out == page
    assert page.count("| w1 |") == 18 and "camel4" not in page and "within a factor 1.20 of" in page
    assert (tmp_path / "planner.png").stat().st_size > 5000
