"""What a GPU must show, tried without one: a part measures, a failure is kept, the page says what is met."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def gpu(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("gpu")


@pytest.fixture
def table(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("gpu_table")


def test_laws_hold_to_rounding(gpu: ModuleType) -> None:
    rows = gpu.laws(gpu.TINY, "cpu")
    assert len(rows) > 10
    assert max(row.get("float64", 0.0) for row in rows) < 1e-9
    assert max(row["float64, gradients"] for row in rows if "float64, gradients" in row) < 1e-7
    assert 0.0 < max(row.get("float32", 0.0) for row in rows) < 1e-4


def test_a_part_that_fails_leaves_its_error(
    gpu: ModuleType, table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too little time for the first part, and a table of what there is."""
    output = tmp_path / "gpu.json"
    given = ["--device", "cpu", "--size", "tiny", "--only", "laws", "--seconds", "0", "--output", str(output)]
    assert gpu.main(given) == 1
    row = json.loads(output.read_text())["rows"][0]
    assert row["part"] == "laws" and "took more than 1 s" in row["error"]
    assert table.main([str(output)]) == 1
    text = output.with_suffix(".md").read_text()
    assert "FAILED: laws" in text and "CPU only, to try the script" in text
    capsys.readouterr()


def test_targets_are_judged(table: ModuleType) -> None:
    def flow(ours: float) -> dict[str, Any]:
        times = {"sample": {"nisampler": [ours], "madnis": [1.0]}}
        return {"dim": 8, "layers": 3, "hidden": 64, "batch": 1000, "times": times}

    showers = [{"model": "convl2l-getting-high", "batch": 1000, "ms": 0.5}]
    parts = {"flows": {"rows": [flow(0.1), flow(0.5)]}, "showers": {"rows": showers}}
    said = list(table.verdicts(parts))
    assert [line.partition(":")[0] for line in said] == ["met", "MISSED", "met"]


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--device", "cuda"]) == 2
    assert "no GPU is visible here" in capsys.readouterr().err
