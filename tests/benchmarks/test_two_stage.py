"""Two-stage against plain unweighting: a tiny row, the table, the comparison of histograms, failures."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from windows import ks_accepts, p_limit

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("two_stage")
    for name in ("two_stage", "measurements"):
        sys.modules.pop(name, None)


def a_row(control: float = 1e-9) -> dict[str, Any]:
    figures = {"calls_per_event": 4.0, "seconds_per_event": 4e-3, "overweight": 1e-4, "preparation": 0.0}
    two = figures | {"calls_per_event": 1.6, "seconds_per_event": 1.8e-3, "preparation": 20.0}
    p = {"two stages": {"y": 0.5}, "hasty surrogate": {"y": 0.4}, "its first stage alone": {"y": control}}
    job = {"process": "w_plus_jets", "jets": 2, "calls": 10, "points": 20, "events": 100_000, "seed": 1}
    said = {"milliseconds": 1.0, "sampler": "flow", "hardware": "none", "threads": 1, "date": "2026-01-01"}
    return job | said | {"results": {"one stage": figures, "two stages": two, "hasty surrogate": two}, "p_values": p}


def test_a_row_counts_calls_and_compares_distributions(bench: ModuleType) -> None:
    job = dict(zip(bench.KEY, ("camel2", None, 5000, 12_288, 6000, 1, 1.0), strict=True)) | {"steps": 400}
    row = bench.measure(job)
    one, two = (row["results"][name] for name in bench.METHODS[:2])
    assert 1.0 < two["calls_per_event"] and 1.0 < one["calls_per_event"]
    assert one["seconds_per_event"] > 1e-3 * one["calls_per_event"]
    assert min(row["p_values"]["two stages"].values()) > p_limit(2)
    assert set(row["p_values"]["its first stage alone"]) == {"x0", "x1"}
    assert json.loads(json.dumps(row)) == row


def test_the_comparison_finds_a_wrong_distribution(bench: ModuleType) -> None:
    random, edges = np.random.default_rng(1), np.linspace(0, 1, 21)
    flat, other, ones = random.random(9000), random.random(4000), torch.ones(9000)
    tilted = random.random(20_000)
    p = [bench.p_value(flat, random.random(4000), edges, ones, torch.ones(4000)) for _ in range(50)]
    assert ks_accepts(p, "uniform")
    assert bench.p_value(flat, tilted**1.2, edges, ones, torch.ones(20_000)) < 1e-6
    w = torch.from_numpy(0.5 + other)
    assert bench.p_value(flat, other, edges, ones, w) < 1e-6
    assert bench.p_value(flat, other, edges, ones, 3.0 * torch.ones(4000)) > p_limit()


def test_the_table_and_the_page(bench: ModuleType, tmp_path: Path) -> None:
    options = bench.parse(["--output", str(tmp_path / "rows.json")])
    bench.show(Console(width=160), [a_row()], options)
    lines = [dict(zip(bench.COLUMNS, line, strict=True)) for line in bench.table_lines([a_row()])]
    assert [line["fewer calls"] for line in lines] == ["1.00", "2.50", "2.50", ""]
    assert lines[1]["faster"] == "2.00" and lines[-1]["least p"] == "1e-09"
    assert "agree and the control fails" in (tmp_path / "rows.md").read_text()
    bench.show(Console(width=160), [a_row(control=0.5)], options)
    assert "NOT all" in (tmp_path / "rows.md").read_text()
    bench.show(Console(), [], options)


def test_a_control_that_does_not_fail_is_a_failure(bench: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for control, code in ((1e-9, 0), (0.5, 1)):
        path.write_text(json.dumps({"rows": [a_row(control)]}))
        arguments = ["--jets", "2", "--calls", "10", "--points", "20", "--events", "100000", "--output", str(path)]
        assert bench.main(arguments) == code


def test_a_wrong_option_is_named(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--events", "0"]) == 2
    assert "--events must be positive" in capsys.readouterr().err
