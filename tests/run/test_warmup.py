"""What is done beforehand on a new machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import call

from nisampler.run import warmup
from nisampler.run.directory import RunDirectory
from nisampler.ui.monitor import SILENT


def test_flows_and_what_a_run_needs(points_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in points_run.rglob("*")}
    assert list(warmup.warm_up(RunDirectory.read(points_run), SILENT)) == ["flows", "events", "run"]
    assert {path: path.stat().st_mtime_ns for path in points_run.rglob("*")} == before


def test_the_command(points_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "_flows", lambda: None)
    code, told, _ = call("warmup", points_run)
    assert code == 0 and "flows: 0.0 s" in told and "run: " in told
    code, _, errors = call("warmup", tmp_path / "nowhere")
    assert code == 1 and "is not a run directory" in errors
