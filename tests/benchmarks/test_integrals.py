"""The comparison of samplers: a tiny run, what it measures, and its table."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nisampler.errors import ConfigError, MissingExtraError

TINY = ["--functions", "gauss4", "--calls", "20000", "--points", "20000", "--seeds", "1"]


@pytest.fixture
def integrals(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("integrals")


def a_row(sampler: str, seed: int, error: float, at_0p1: float, seconds: float, **other: Any) -> dict[str, Any]:
    row = {"function": "gauss4", "sampler": sampler, "seed": seed, "calls": 20000, "points": 20000}
    row |= {"version": "1.0", "relative_error": error, "pull": -1.0, "strict": 0.1, "at_0p1": at_0p1, "at_1": 0.3}
    row |= {"ess_fraction": 0.9, "training_calls": 20000, "integration_calls": 19000}
    row |= {"training_seconds": seconds, "integration_seconds": seconds, "threads": 1}
    return row | {"hardware": "a machine", "date": "2026-01-02T03:04:05+00:00"} | other


def test_a_row_runs_in_its_own_process_and_is_not_measured_twice(
    integrals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, table = tmp_path / "rows.json", tmp_path / "results" / "table.md"
    assert integrals.main([*TINY, "--samplers", "vegas", "--merge", str(rows), "--table", str(table)]) == 0
    (row,) = json.loads(rows.read_text())["rows"]
    assert abs(row["pull"]) < 5
    assert 0 < row["strict"] <= row["at_0p1"] <= row["at_1"] <= 1
    assert set(row["efficiencies"]) == {"map", "map after integration", "stratified"}
    equal_calls = row["efficiencies"].keys() - {"map after integration"}
    assert row["at_0p1"] == max(row["efficiencies"][name][1] for name in equal_calls)
    assert 0.8 * 20000 < row["training_calls"] <= 20000
    assert 0.8 * 20000 < row["integration_calls"] <= 20000
    assert "| gauss4 | vegas |" in table.read_text()
    assert "[1/1] gauss4 vegas seed 1" in capsys.readouterr().out

    def never(job: Any, threads: int) -> None:
        raise AssertionError(job, threads)

    monkeypatch.setattr(integrals, "run_row", never)
    assert integrals.main([*TINY, "--samplers", "vegas", "--merge", str(rows)]) == 0
    with pytest.raises(AssertionError):
        integrals.main([*TINY, "--samplers", "vegas", "--merge", str(rows), "--refresh"])
    with pytest.raises(AssertionError):
        integrals.main([*TINY, "--samplers", "vegas", "--output", str(rows)])
    assert json.loads(rows.read_text())["rows"] == []


def test_nisampler_is_measured_on_the_points_of_its_integration(integrals: ModuleType) -> None:
    row = integrals.measure("annulus", "nisampler", 1, 12000, 4096)
    assert abs(row["pull"]) < 5
    assert row["truth"] == pytest.approx(math.pi * (0.45**2 - 0.2**2))
    assert 0 < row["training_calls"] <= 12000
    assert 0.9 * 4096 <= row["integration_calls"] <= 4096
    assert 0 < row["strict"] <= row["at_0p1"] <= row["at_1"] <= 1
    assert row["training_seconds"] > 0
    assert json.loads(json.dumps(row)) == row


def test_the_table_has_medians_and_ratios(integrals: ModuleType) -> None:
    rows = [a_row("vegas", seed, error, 0.2, 1.0) for seed, error in ((1, 4e-4), (2, 2e-4), (3, 9e-4))]
    rows += [a_row("nisampler", seed, error, 0.5, 3.0) for seed, error in ((1, 1e-4), (2, 2e-4), (3, 9e-4))]
    rows.append(a_row("madnis", 1, 1.0, 0.1, 1.0, calls=5000))
    vegas, ours = (
        dict(zip(integrals.COLUMNS, line, strict=True)) for line in integrals.table_lines(rows, 20000, 20000)
    )
    assert (vegas["sampler"], vegas["rel. error"], vegas["pull"]) == ("vegas", "4.0e-04", "1.0")
    assert (vegas["error ratio"], vegas["0.1 % ratio"], vegas["CPU ratio"]) == ("0.50", "2.50", "3.0")
    assert (vegas["calls/1000"], vegas["CPU-s"]) == ("20+19", "1.0+1.0")
    assert vegas["seeds"] == ours["seeds"] == "3"
    assert (ours["sampler"], ours["error ratio"]) == ("nisampler", "")
    where = integrals.conditions(rows, 20000, 20000)
    assert "a machine" in where
    assert "2026-01-02." in where
    assert "madnis" not in where


def test_without_a_known_truth_there_is_no_pull(integrals: ModuleType) -> None:
    (line,) = integrals.table_lines([a_row("vegas", 1, 1e-3, 0.2, 1.0, pull=None)], 20000, 20000)
    assert dict(zip(integrals.COLUMNS, line, strict=True))["pull"] == "–"


def test_a_new_row_replaces_the_same_measurement_only(integrals: ModuleType) -> None:
    rows = [a_row("vegas", 1, 1e-3, 0.2, 1.0), a_row("vegas", 2, 1e-3, 0.2, 1.0)]
    rows = integrals.with_row(rows, a_row("vegas", 1, 5e-4, 0.2, 1.0))
    assert [(row["seed"], row["relative_error"]) for row in rows] == [(2, 1e-3), (1, 5e-4)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{"function": "gauss4"}]}'])
def test_a_foreign_file_is_refused_and_kept(
    integrals: ModuleType, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert integrals.main([*TINY, "--samplers", "vegas", "--merge", str(path)]) == 2
    assert "other.json" in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize("options", [["--samplers", "foam"], ["--functions", "nothing"], ["--seeds", "0"]])
def test_a_wrong_option_is_named(integrals: ModuleType, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert integrals.main([*TINY, "--samplers", "vegas", *options]) == 2
    assert options[1] in capsys.readouterr().err


def test_a_failed_row_is_reported_and_the_others_go_on(
    integrals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_fails(job: dict[str, Any], threads: int) -> dict[str, Any]:
        if job["seed"] == 1:
            raise integrals.BenchmarkError("out of luck")
        return a_row("vegas", job["seed"], 1e-3, 0.2, 1.0)

    monkeypatch.setattr(integrals, "run_row", first_fails)
    path = tmp_path / "rows.json"
    assert integrals.main([*TINY[:-1], "2", "--samplers", "vegas", "--output", str(path)]) == 1
    assert [row["seed"] for row in integrals.read_rows(path)] == [2]
    assert "seed 1: failed: out of luck" in capsys.readouterr().out


def test_the_error_of_a_row_is_passed_on(integrals: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["env"]["OMP_NUM_THREADS"] == "2"
        return subprocess.CompletedProcess(command, 1, "", "Traceback\n  line\nConfigError: too few calls\n")

    monkeypatch.setattr(subprocess, "run", fails)
    job = {"function": "gauss4", "sampler": "nisampler", "seed": 1, "calls": 10, "points": 20000}
    with pytest.raises(integrals.BenchmarkError, match=r"gauss4 with nisampler, seed 1: ConfigError: too few calls"):
        integrals.run_row(job, 2)


def test_a_peer_that_is_not_installed_is_named(integrals: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = sys.modules["peers"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"madnis.*pip install .*\[bench\]"):
        peers.require(["madnis"])
    with pytest.raises(ConfigError, match="foam"):
        peers.require(["foam"])
