"""The benchmark of jobs, small: all ways end with the same bytes, and the table says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CARD = """
process = "ee_to_3jets"
training = {calls = 4000, sampler = "vegas"}
integration = {points = 2048}
"""


@pytest.fixture
def bench(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("production")


def test_commands_are_measured(bench: ModuleType, tmp_path: Path) -> None:
    card, output = tmp_path / "card.toml", tmp_path / "rows.json"
    card.write_text(CARD)
    given = ["--events", "60", "--shards", "3", "--card", str(card), "--output", str(output)]
    assert bench.main([*given, "--only", "one job"]) == 0
    rows = [line.split(" | ") for line in output.with_suffix(".md").read_text().splitlines() if line.startswith("| ")]
    names = ["one job", "check of the file"]
    assert [row[0].strip("| ") for row in rows[2:]] == names
    assert all(row[-1].strip(" |") == "yes" and float(row[2]) > 0 for row in rows[2:])


def test_other_bytes_are_told(bench: ModuleType) -> None:
    row = {"row": "one job", "events": 60, "cpu": 1.0, "seconds": 1.0, "memory": 1.0, "disk": 1.0, "sha256": "a"}
    found = bench.lines_of([row, row | {"row": "2 jobs", "sha256": "b"}])
    assert [line[-1] for line in found] == ["yes", "NO"]
