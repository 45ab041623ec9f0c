"""Growth of time and memory: tiny rows of every series, fitted exponents, the table, wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

JOB = {"dim": 2, "batch": 64, "function": "gauss2", "repeats": 1, "budget": 1.0, "threads": 1}


@pytest.fixture
def growth(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("growth")


def a_row(value: int, seconds: float, **changes: Any) -> dict[str, Any]:
    row = JOB | {"axis": "batch", "operation": "sample", "value": value, "seconds": seconds, "bytes": 3 * value}
    return row | {"torch": "2", "hardware": "a CPU", "date": "2026-11-23T00:00:00"} | changes


@pytest.mark.parametrize(
    ("axis", "operation"),
    [
        ("dim", "sample"),
        ("batch", "backward"),
        ("channels", "sample"),
        ("channels", "backward"),
        ("events", "unweight"),
    ],
)
def test_a_row_of_every_series(growth: ModuleType, axis: str, operation: str) -> None:
    row = growth.measure(JOB | {"axis": axis, "operation": operation, "value": 4})
    assert row["seconds"] > 0
    assert row["bytes"] >= 0
    assert growth.size_of(row) == (4 if axis in ("batch", "events") else 64)
    assert json.loads(json.dumps(row)) == row


def test_exponents_are_those_of_the_larger_half(growth: ModuleType) -> None:
    values = [1, 10, 100, 1000, 10_000, 100_000]
    rows = [a_row(value, 7.0 if value < 1000 else 1e-3 * value**1.5) for value in values]
    assert growth.exponent(rows, "seconds") == pytest.approx(1.5)
    assert growth.exponent(rows, "bytes") == pytest.approx(1.0)
    assert growth.exponent(rows[:1], "seconds") is None
    assert growth.exponent([row | {"bytes": 0} for row in rows], "bytes") is None
    lines = [dict(zip(growth.COLUMNS, line, strict=True)) for line in growth.lines_of(rows)]
    assert [line["p(time)"] for line in lines] == [""] * 5 + ["1.50"]


def test_rows_that_are_there_are_shown(growth: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": [a_row(100, 0.1), a_row(1000, 1.0)]}))
    arguments = ["--axis", "batch", "--batches", "100", "1000", "--largest", "1", "--output", str(path)]
    assert growth.main(arguments) == 0
    assert "1.00" in capsys.readouterr().out
    assert "| batch | sample | 1,000 | 1 |" in path.with_suffix(".md").read_text()


def test_wrong_use(growth: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main(["--channels", "0"]) == 2
    assert "positive" in capsys.readouterr().err
