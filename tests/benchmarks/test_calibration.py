"""Calibration of errors: a tiny row, the statistics of the table, wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

JOB = {"function": "cut3", "sampler": "vegas", "calls": 2000, "replicas": 4, "shared": 200_000}


@pytest.fixture
def calibration(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("calibration")


def a_row(pulls: list[float], trusted: list[bool], **changes: Any) -> dict[str, Any]:
    row = JOB | {"pulls": pulls, "trusted": trusted, "replicas": len(pulls), "seconds": 60.0}
    return row | {"hardware": "a CPU", "date": "2026-11-30T00:00:00"} | changes


def test_integrals_are_those_of_many_points(calibration: ModuleType) -> None:
    for name, function in calibration.FUNCTIONS.items():
        u = torch.rand(200_000, function.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        values = function(u)
        far = abs(float(values.mean()) - function.integral)
        assert far < 5 * float(values.std()) / 447 or name in ("narrow8", "edge2"), name


@pytest.mark.parametrize("shared", [1000, 200_000])
def test_a_row(calibration: ModuleType, shared: int) -> None:
    row = calibration.measure(JOB | {"shared": shared})
    assert len(row["pulls"]) == len(row["trusted"]) == 4 and len(set(row["pulls"])) == 4
    assert max(map(abs, row["pulls"])) < 6 and json.loads(json.dumps(row)) == row


def test_the_table_shows_marks_and_what_they_miss(calibration: ModuleType) -> None:
    good = [(-1) ** k * (0.5 + 0.01 * k) for k in range(100)]
    line = dict(zip(calibration.COLUMNS[6:], calibration.line_of(a_row(good, [True] * 100))[6:], strict=True))
    assert line["marked"] == "0.0 %" and line["above 5"] == "0" and "*" not in line["width"]
    wrong = a_row([*good, 8.0, -9.0], [*[True] * 100, False, True])
    assert calibration.line_of(wrong)[-2:] == ["-9.0", "1"]
    assert calibration.line_of(a_row([3 * value for value in good], [True] * 100))[8].endswith("*")
    assert calibration.line_of(a_row(good, [False] * 100))[7:] == ["", "", "", "0"]
    hidden = a_row([-20.0, -30.0], [True, True], function="hidden6")
    assert "of the 2 with a pull above 5 1" in calibration.summary_of([wrong, hidden])


def test_wrong_use_is_named(calibration: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibration.main(["--replicas", "1"]) == 2
    assert "two replicas" in capsys.readouterr().err
