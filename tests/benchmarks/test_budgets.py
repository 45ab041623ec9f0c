"""Budgets beside vegas: tiny rows of every kind, the worst ratios, the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console


@pytest.fixture
def budgets(imported: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = imported("budgets")
    monkeypatch.setattr(found, "RUNS", 1)
    return found


@pytest.mark.filterwarnings("ignore::nisampler.errors.ScalarFunctionWarning")
@pytest.mark.parametrize("function", ["gauss2", "ridge3", "continuous2", "three integrals", "one point"])
def test_a_row_of_an_error(budgets: ModuleType, function: str) -> None:
    row = budgets.measure({"aim": "error", "function": function, "budget": 500, "threads": 1})
    assert row["seconds"] > 0 and row["peer"] > 0 and 0 < row["error"] < 1
    assert row["to"] == pytest.approx(row["peer"] * (row["peer_error"] / row["error"]) ** 2)
    assert json.loads(json.dumps(row)) == row


def test_a_row_of_events(budgets: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def quick(function: Any, method: str, job: dict[str, Any]) -> dict[str, Any]:
        found.append(method)
        assert job["patience"] > 0
        return {"cpu": 2.0 if method == budgets.OURS else 1e-5 * job["calls"], "chosen": "vegas"}

    monkeypatch.setattr(budgets, "chain", quick)
    row = budgets.measure({"aim": "events", "function": "gauss2", "budget": 100, "threads": 1})
    assert (row["seconds"], row["to"], row["sampler"]) == (2.0, 1.0, "vegas")
    assert found[1:] == [budgets.OURS, budgets.VEGAS, budgets.VEGAS]


def test_the_worst_is_told_and_the_table_is_written(budgets: ModuleType, tmp_path: Path) -> None:
    common = {
        "versions": {"vegas": "6"},
        "date": "2026-11-30T00:00",
        "hardware": "a CPU",
        "peer": 1.0,
        "sampler": "vegas",
    }
    rows = [
        {
            "aim": "error",
            "function": name,
            "budget": 1000,
            "seconds": seconds,
            "to": to,
            "error": 0.1,
            "peer_error": 0.1,
        }
        for name, seconds, to in (("gauss2", 0.05, 0.001), ("mine", 2.1, 1.0))
    ]
    rows = [row | common for row in rows]
    assert budgets.ratios(rows[0]) == (50.0, 0.0)
    told = budgets.worst(rows, "error")
    assert "at most 2.00 times vegas beyond 0.1 s (mine, 1,000), the aim of 1.5 is not kept" in told
    assert "at most 50.0 times vegas (gauss2, 1,000)" in told and budgets.worst(rows, "events") == ""
    budgets.show(Console(quiet=True), rows, tmp_path / "rows.json")
    page = (tmp_path / "rows.md").read_text()
    assert told in page and page.index("| gauss2 |") < page.index("| mine |")
