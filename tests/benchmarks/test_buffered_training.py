"""Online against buffered training: a tiny row, the table, and a matrix element that waits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from nisampler.processes.registry import create


@pytest.fixture
def buffered(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("buffered_training")


def a_row(calls: int, reuse: int, at_0p1: float) -> dict[str, Any]:
    row: dict[str, Any] = {"calls": calls, "used": calls, "reuse": reuse, "steps": 10, "strict": 0.1}
    return row | {"at_0p1": at_0p1, "at_1": 0.9, "seconds": 1.0, "with_calls": 2.0}


def test_a_row_counts_calls_and_charges_for_them(buffered: ModuleType) -> None:
    job = dict(zip(buffered.KEY, ("camel2", None, 5000, 3, 1, 4096, 1.0), strict=True)) | {"wait": False}
    row = buffered.measure(job)
    assert 0 < row["used"] <= 5000
    assert row["steps_per_call"] == pytest.approx(4, rel=0.05)
    assert row["with_calls"] == pytest.approx(row["seconds"] + 1e-3 * row["used"])
    assert 0 < row["strict"] <= row["at_0p1"] <= row["at_1"] <= 1
    assert json.loads(json.dumps(row)) == row


def test_waiting_takes_the_time_of_the_matrix_element(buffered: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(buffered.time, "process_time", lambda: 1e-3 * next(ticks))
    slow = buffered.Slow(create("camel2"), 0.5)
    u = torch.rand(100, slow.dim, dtype=torch.float64)
    torch.testing.assert_close(slow(u), create("camel2")(u))
    assert next(ticks) == pytest.approx(50, abs=2)


def test_the_table_says_what_reaches_online_training(buffered: ModuleType) -> None:
    rows = [a_row(50_000, 0, 0.8), a_row(10_000, 4, 0.7), a_row(10_000, 15, 0.85)]
    lines = [dict(zip(buffered.COLUMNS, line, strict=True)) for line in buffered.table_lines(rows)]
    assert [line["training"] for line in lines] == ["online", "buffered", "buffered"]
    assert [line["reached"] for line in lines] == ["", "no", "with 5.0 times fewer calls"]


def test_a_wrong_option_is_named(buffered: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert buffered.main(["--calls", "0"]) == 2
    assert "positive" in capsys.readouterr().err
