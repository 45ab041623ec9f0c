"""Sampling of autoregressive flows: plain passes give the same points, tiny rows, the table, wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nisampler.errors import MissingExtraError

JOB = {"dim": 5, "hidden": 8, "layers": 2, "bins": 4, "blocks": 2, "batch": 3, "device": "cpu"}
JOB |= {"repeats": 1, "budget": 1.0, "threads": 1}


@pytest.fixture
def sampling(imported: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = imported("autoregressive_sampling")

    def fail(name: str) -> None:
        raise MissingExtraError(f"{name} is not installed")

    monkeypatch.setattr(module, "library", fail)
    return module


def test_plain_passes_give_the_same_points_and_densities(sampling: ModuleType) -> None:
    flow = sampling.make_flow(JOB)
    assert sampling.difference(JOB, flow) < 1e-12
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = sampling.plain_sample(flow, z)[0] - z
    assert float(moved.abs().max()) > 1e-3


def test_a_row_times_all_ways(sampling: ModuleType) -> None:
    row = sampling.measure(JOB)
    assert set(row["times"]) == {"nisampler", "plain", "one pass"}
    assert row["missing"] is True
    assert json.loads(json.dumps(row)) == row
    lines = sampling.lines_of([row])
    assert [line[5] for line in lines] == ["nisampler", "plain", "one pass", "nflows"]
    assert lines[-1][6] == "n/a"


def test_the_aim_is_judged_at_its_size_and_the_table_is_written(
    sampling: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"nisampler": [1.0, 2.0], "plain": [11.0, 22.0]}
    row: dict[str, Any] = JOB | {"dim": 368, "hidden": 378, "bins": 8, "blocks": 1, "batch": 100, "times": times}
    row |= {"missing": False, "gpu": None, "torch": "2", "difference": 1e-15, "hardware": "a CPU"}
    row["date"] = "2026-11-23T00:00:00"
    assert "batch 100 11.0 times (met)" in sampling.acceptance([row])
    assert "(not met)" in sampling.acceptance([row | {"times": {"nisampler": [1.0], "plain": [2.0]}}])
    assert sampling.acceptance([row | {"dim": 12}]) == ""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [row]}))
    assert sampling.main(["--batch", "100", "--output", str(path)]) == 0
    assert "11.0 times" in capsys.readouterr().out
    assert "| 368 | 2x378, 8 bins | 1 | 100 |" in path.with_suffix(".md").read_text()


def test_wrong_use(sampling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampling.main(["--blocks", "0"]) == 2
    assert "positive" in capsys.readouterr().err
