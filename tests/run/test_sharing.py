"""Workers of a run: they share the calls of its function, change no byte, and end whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from other_process import die, wait_for_ever
from pdf_grids import write_set

from nisampler.density.spread import Spread
from nisampler.errors import WorkerError
from nisampler.run.directory import RunDirectory
from nisampler.run.pipeline import execute, start
from nisampler.run.sharing import Workers, worker_pool
from nisampler.ui.monitor import SILENT, Monitor

SETTINGS = """
[training]
calls = 3000
sampler = "vegas"
[training.tree]
leaves = 50
[integration]
points = 8192
[events]
n = 0
"""
MORTAL = """
import multiprocessing, os, signal

class Mortal:
    dim, seconds_per_call = 2, 1.0

    def __call__(self, x):
        if len(x) > 10 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return x[:, 0] + x[:, 1] ** 1.7
"""


class Lines(Monitor):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Everything is shared out that can be; counts the batches of the workers."""
    batches: Counter[str] = Counter()
    share = Spread._shared

    def counted(self: Spread, function: Callable[..., Any], x: Any) -> Any:
        batches["all"] += 1
        return share(self, function, x)

    monkeypatch.setattr(Spread, "_worth", lambda self, n: self._executor is not None and n > self._step)
    monkeypatch.setattr(Spread, "_shared", counted)
    return batches


def told(run: Path) -> dict[str, Any]:
    """All that a run found, but for seconds."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    del result["seconds"], result["checksum"], result["unweighting"]["events_per_second"]
    return result


def make(card: Path, run: Path, workers: int, watcher: Monitor = SILENT) -> None:
    with start(card, run) as directory:
        execute(directory, watcher, workers=workers)


def same(first: Path, second: Path) -> bool:
    """Whether two runs have the same sampler, integral, events and figures."""
    files = [path.relative_to(first) for path in first.rglob("*") if path.suffix in (".h5", ".gz", ".safetensors")]
    assert len(files) > 1
    return told(first) == told(second) and all((first / x).read_bytes() == (second / x).read_bytes() for x in files)


def test_workers_change_no_byte(tmp_path: Path, shared: Counter[str]) -> None:
    """Of a process with channels of its own, and counters, each worker builds its own from the card."""
    grids = write_set(tmp_path / "sets", "Grids") / "Grids_0000.dat"
    text = f'process = "z_jets"\nthreads = 1\n[parameters]\nn_jets = 0\npdf = "{grids}"\n' + SETTINGS
    (tmp_path / "card.toml").write_text(text)
    make(tmp_path / "card.toml", tmp_path / "one", 1)
    assert not shared
    watcher = Lines()
    make(tmp_path / "card.toml", tmp_path / "two", 2, watcher)
    assert shared["all"] > 3 and "2 workers share the calls of the function" in watcher.lines
    assert told(tmp_path / "one")["limits"]["points"] > 2000
    assert same(tmp_path / "one", tmp_path / "two")


def test_a_worker_that_dies_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    (tmp_path / "card.toml").write_text(f'process = "{tmp_path / "mortal.py"}:Mortal"\n' + SETTINGS)
    make(tmp_path / "card.toml", tmp_path / "one", 1)
    with pytest.raises(WorkerError, match="a worker died, perhaps for lack of memory: start the command again"):
        make(tmp_path / "card.toml", tmp_path / "two", 2)
    assert not multiprocessing.active_children()
    with RunDirectory.open(tmp_path / "two") as directory:
        execute(directory)
    assert same(tmp_path / "one", tmp_path / "two")


def test_workers_that_cannot_begin_are_named() -> None:
    with pytest.raises(WorkerError, match="a worker died"), Workers(1, die, SILENT).serving() as some:
        list(some.map(abs, [1]))


def test_workers_begin_when_their_work_is_worth_it() -> None:
    watcher = Lines()
    with Workers(1, None, watcher).serving() as some:
        assert not some.takes(1.5) and not watcher.lines
        assert some.takes(10.0) and len(watcher.lines) == 1
        assert list(some.map(abs, [-1, -2])) == [1, 2] and some.takes(1e-3)


def test_no_worker_outlives_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), worker_pool(2, None, at_once=True) as pool:
        assert pool.submit(abs, -1).result() == 1
        pool.submit(wait_for_ever)
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()


ORPHANS = """
import os, signal
from nisampler.run.sharing import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(pool.submit(abs, -1).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_worker_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    """Their output stays open as long as one of them lives."""
    (tmp_path / "orphans.py").write_text(ORPHANS)
    done = subprocess.run(
        [sys.executable, tmp_path / "orphans.py"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-9, "1\n")
