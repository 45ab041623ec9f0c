"""Seconds to unweighted events: tiny rows, slowed integrands, best budgets, aims, wrong use."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nisampler.density.channels import Multichannel
from nisampler.processes.registry import create

JOB = {"case": "gauss4", "microseconds": 0.0, "calls": 5000, "seed": 1, "events": 2000, "patience": 60.0, "threads": 1}


@pytest.fixture
def ends(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("end_to_end")


def a_row(method: str, cpu: float, **changes: Any) -> dict[str, Any]:
    row = JOB | {"method": method, "cpu": cpu, "wall": 2 * cpu, "efficiency": 0.5, "overweight": 1e-4, "chosen": ""}
    row |= {f"{phase}_cpu": cpu / 3 for phase in ("training", "integration", "generation")}
    row |= {"phases": {phase: {"calls": 1000} for phase in ("training", "integration", "generation")}}
    row |= {"generated": row["events"], "versions": {"nisampler": "0"}, "hardware": "a CPU"}
    return row | {"date": "2026-11-23T00:00:00"} | changes


@pytest.mark.parametrize("method", ["nisampler", "nisampler-vegas", "vegas"])
def test_a_row_counts_every_phase(ends: ModuleType, method: str) -> None:
    row = ends.measure(JOB | {"method": method})
    assert row["generated"] == 2000
    assert row["cpu"] == pytest.approx(sum(row[f"{phase}_cpu"] for phase in ends.PHASES))
    assert all(row["phases"][phase]["calls"] > 0 for phase in ends.PHASES)
    assert row["phases"]["training"]["calls"] <= 5100
    assert row["phases"]["generation"]["calls"] >= row["generated"] / row["efficiency"]
    assert 0.02 < row["efficiency"] < 1
    assert row["overweight"] < 0.01
    assert abs(row["value"] - create("gauss4").integral) < 6 * row["error"]
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("method", ["nisampler", "vegas"])
def test_the_price_of_a_call_is_paid_or_owed(ends: ModuleType, method: str) -> None:
    row = ends.measure(JOB | {"method": method, "microseconds": 10.0})
    for phase in ends.PHASES:
        told = row["phases"][phase]
        assert told["cpu"] >= 0.99e-5 * told["calls"]
    if method == "nisampler":
        assert "for 2000 events" in row["line"]


def test_a_generation_that_takes_too_long_is_extrapolated(ends: ModuleType) -> None:
    row = ends.measure(JOB | {"method": "vegas", "patience": 1e-9, "events": 200_000})
    assert 1024 <= row["generated"] < 200_000
    assert row["phases"]["generation"]["calls"] > 200_000
    (line,) = ends.lines_of([row | {"hardware": "a CPU"}])
    assert dict(zip(ends.COLUMNS, line, strict=True))["generation"].startswith("(")


def test_a_slowed_process_waits_or_owes(ends: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed, process = sys.modules["slowed"], create("camel2")
    function = slowed.Slowed(process, 1e-3)
    u = torch.rand(20, 2, dtype=torch.float64)
    torch.testing.assert_close(function(u), process(u))
    assert function.owed == pytest.approx(0.02)
    ticks = itertools.count()
    monkeypatch.setattr(slowed.time, "process_time", lambda: 1e-3 * next(ticks))
    function.waiting = True
    function(u)
    assert function.owed == pytest.approx(0.02)
    assert next(ticks) == pytest.approx(20, abs=2)
    assert (function.calls, function.dim, function.name) == (40, 2, "camel2")


def test_channels_are_slowed_in_all_their_uses(ends: ModuleType) -> None:
    process = create("w_plus_jets", n_jets=0)
    function = sys.modules["slowed"].Slowed(process, 1.0)
    assert isinstance(function.multichannel, Multichannel)
    u = torch.rand(8, function.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(function(u), process(u))
    function.multichannel.evaluate(u)
    function.multichannel.with_weights(None)(u)
    assert (function.calls, function.owed) == (24, 24.0)


def test_the_best_budget_of_a_peer_counts_and_aims_are_judged(ends: ModuleType) -> None:
    rows = [a_row("nisampler", 10.0), a_row("nisampler-vegas", 9.6)]
    rows += [a_row("madnis", 40.0, calls=9000), a_row("madnis", 50.0, calls=8000), a_row("vegas", 8.0)]
    rows += [a_row("nisampler", 1.0, case="camel8", microseconds=100.0)]
    rows += [a_row("vegas", 6.0, case="camel8", microseconds=100.0)]
    lines = [dict(zip(ends.COLUMNS, line, strict=True)) for line in ends.lines_of(rows)]
    assert [line["method"] for line in lines[:4]] == ["nisampler", "nisampler-vegas", "vegas", "madnis"]
    assert (lines[3]["budget"], lines[3]["CPU ratio"]) == ("9,000", "4.00")
    said = ends.acceptance(rows)
    assert "against madnis at least 4.00 (gauss4) of 3, met" in said
    assert "against nisampler-vegas at least 0.96 (gauss4) of 0.95, met" in said
    assert "against vegas at least 0.80 (gauss4) of 0.95, not met" in said
    assert "against vegas slowed at least 6.00 (camel8) of 5, met" in said


def test_rows_that_are_there_are_shown(ends: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [a_row("nisampler", 1.0), a_row("nisampler-vegas", 2.0)]}))
    arguments = ["--case", "gauss4", "--methods", "nisampler", "nisampler-vegas", "--events", "2000"]
    assert ends.main([*arguments, "--limit", "5000", "--output", str(path)]) == 0
    assert "against nisampler-vegas at least 2.00" in capsys.readouterr().out
    assert "| gauss4 | 0 | nisampler |" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("wrong", [["--events", "0"], ["--calls", "10"], ["--patience", "0"]])
def test_wrong_use(ends: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ends.main(wrong) == 2
    assert "must be" in capsys.readouterr().err
