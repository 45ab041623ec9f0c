"""The benchmarks of workers and of the start of a job: their tables, and a small function measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def scripts(imported: Callable[[str], ModuleType]) -> tuple[ModuleType, ModuleType]:
    return imported("workers"), imported("startup")


def test_rows_in_turn_and_their_table(
    scripts: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench, taken = scripts[0], []

    def measure(workers: int, take: int) -> tuple[float, float, Path]:
        taken.append(workers)
        (tmp_path / "same").write_bytes(b"events")
        return 8.0 / workers, 8.0 + workers, tmp_path / "same"

    monkeypatch.setattr(bench, "learning", lambda folder, calls, seconds, *rest: measure(*rest))
    monkeypatch.setattr(bench, "generating", lambda folder, process, n, ending, *rest: measure(*rest))
    given = argparse.Namespace(process="camel4", events=10, format="h5", calls=10, seconds=1e-3, workers=2, repeats=2)
    page = bench.page(bench.rows(given))
    assert taken == [1, 2, 1, 2] * 2
    assert "| camel4, 10 events to h5 | 2 | 4.0 | 10.0 | 2.00 | 1.11 |" in page and page.count("| yes |") == 4


def test_a_slow_function_is_learned(scripts: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    wall, cpu, sampler = scripts[0].learning(tmp_path, 2000, 1e-6, 1, 0)
    assert wall > 0 and cpu > 0 and sampler.is_file()


def test_the_start_of_a_job(scripts: tuple[ModuleType, ModuleType]) -> None:
    bench = scripts[1]
    assert bench.cpu("-c", "sum(range(10**6))") > 0
    assert "| import torch | 1.00 | 2.00 |" in bench.page({"import torch": [2.0, 1.0, 3.0]})
    with pytest.raises(SystemExit, match="no module named"):
        bench.output(["-c", "raise SystemExit('no module named')"])
