"""Events by other people's schedulers: the bytes of one job, whoever makes them and whoever dies meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
from commands import call
from other_process import DyingOnce

from nisampler.base.storage import read_sealed
from nisampler.errors import ConfigError, MissingExtraError, StorageError, WorkerError
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.workers import Crew, spread
from nisampler.run.packing.pack import pack
from nisampler.run.submission import clusters
from nisampler.run.submission.clusters import crew_of, dask_crew
from nisampler.run.submission.submit import Submission, write_scripts
from nisampler.ui.monitor import SILENT, Monitor

N, SIZE, SEED = 130, 20, 7
ORDER = ("--events", N, "--seed", SEED, "--shard-size", SIZE)

# Stands for Slurm: runs every job of an array, one after the other, and ends with the number of the array.
SBATCH = """#!/bin/sh
set -eu
for script; do :; done
array=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for number in $(seq "${array:-1}"); do
    log=$(sed -n 's/^#SBATCH --output=//p' "$script" | sed "s/%a/$number/")
    SLURM_ARRAY_TASK_ID=$number sh "$script" > "$log" 2>&1
done
echo 4711
"""


@pytest.fixture(scope="module")
def whole(events_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All events by one job; not to be changed."""
    target = tmp_path_factory.mktemp("submission") / "whole"
    generate_events(RunDirectory.read(events_run), N, SEED, target, shard_size=SIZE)
    return target


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    """Two workers of a Dask cluster on this machine."""
    with dask_crew("local", 2, SILENT) as found:
        yield found


class Seen(Monitor):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.figures: dict[str, str] = {}
        self.table: dict[str, dict[str, str]] = {}

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int, figures: dict[str, str]) -> None:  # type: ignore[override]
        self.figures |= figures

    def workers(self, figures: dict[str, dict[str, str]]) -> None:  # type: ignore[override]
        self.table = figures


def test_workers_of_dask_that_die_are_replaced(crew: Crew, events_run: Path, whole: Path, tmp_path: Path) -> None:
    """A worker dies at two of the shards: these are made again, no event is lost, doubled or another one."""
    seen = Seen()
    recipe = DyingOnce(events_run, SEED, str(tmp_path), (2, 5))
    todo = [(index, min(SIZE, N - index * SIZE)) for index in range(7)]
    (tmp_path / "shards").mkdir()
    made = spread(recipe, tmp_path / "shards", todo, crew, seen)
    assert sorted(path.name for path in tmp_path.glob("died-*")) == ["died-2", "died-5"]
    assert [(shard.index, shard.events) for shard in made] == todo
    for shard in sorted((whole / "shards").iterdir()):
        assert (tmp_path / "shards" / shard.name).read_bytes() == shard.read_bytes()
    assert len(list((tmp_path / "shards").iterdir())) == 14
    assert seen.figures["shards"] == "7/7" and "workers" in seen.figures
    assert sum(int(row["shards"]) for row in seen.table.values()) == 7
    assert re.search(r"workers?, at most \d+ MiB each, \d", seen.lines[-1])


def test_a_worker_with_another_run_or_other_versions_is_refused(crew: Crew, events_run: Path, tmp_path: Path) -> None:
    todo = [(0, 10)]
    other = DyingOnce(events_run, SEED, str(tmp_path), (), identity="0" * 16)
    with pytest.raises(WorkerError, match=r"is another run on .*: put it where all machines see it"):
        spread(other, tmp_path, todo, crew, SILENT)
    older = DyingOnce(events_run, SEED, str(tmp_path), (), made_with=(("nisampler", "0.0.1"),))
    with pytest.raises(WorkerError, match=r"nisampler 0\.0\.1 then.*: install the same versions on all machines"):
        spread(older, tmp_path, todo, crew, SILENT)


def documented(backend: str, run: Path, kind: str) -> list[str]:
    """The first command of the documentation for a backend, with a small order for this run and two workers."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "production.md").read_text()
    line = next(line for line in text.splitlines() if f"--backend {backend}" in line and "nisampler submit" in line)
    for old, new in (("runs/dy", run), ("1000000", N), ("--workers 8", "--workers 2"), ("-n 9", "-n 2")):
        line = line.replace(old, str(new))
    tools = {"nisampler": f"{sys.executable} -W error -m nisampler", "mpiexec": Path(sys.executable).parent / "mpiexec"}
    words = " ".join(str(tools.get(word, word)) for word in line.split())
    return [*words.split(), "--shard-size", str(SIZE), "--format", kind]


def outcome_of(words: list[str], folder: Path) -> tuple[int, str, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_for_dask(events_run: Path, whole: Path, tmp_path: Path) -> None:
    """From a pack, which is unpacked beside the events."""
    packed = tmp_path / "run.nispack"
    pack(RunDirectory.read(events_run), packed)
    code, text, wrong = outcome_of(documented("dask", packed, "lhe"), tmp_path)
    assert (code, wrong) == (0, "")
    assert "Dask: tcp://127.0.0.1" in text and re.search(r"events +130\n", text)
    assert (tmp_path / "by_dask" / "events.lhe").read_bytes() == (whole / "events.lhe").read_bytes()
    assert not list(tmp_path.glob("nispack-*"))


def test_the_command_for_mpi(events_run: Path, whole: Path, tmp_path: Path) -> None:
    words = documented("mpi", events_run, "h5")
    code, text, wrong = outcome_of(words, tmp_path)
    assert (code, wrong) == (0, "")
    assert len(re.findall(r"events +130\n", text)) == 1
    assert (tmp_path / "by_mpi" / "events.h5").read_bytes() == (whole / "events.h5").read_bytes()
    words[words.index("--seed") + 1] = "8"
    code, _, wrong = outcome_of(words, tmp_path)
    assert code == 1 and "holds other events: choose another --output" in wrong


def test_the_scripts_for_slurm_run_as_they_are(events_run: Path, whole: Path, tmp_path: Path) -> None:
    target, tools = tmp_path / "with space" / "events", tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH)
    (tools / "sbatch").chmod(0o755)
    given = (
        "--backend",
        "slurm",
        "--jobs",
        2,
        "--format",
        "h5",
        "--option",
        "time=00:10:00",
        "--setup",
        "export OMP_NUM_THREADS=1",
    )
    code, text, _ = call("submit", events_run, *ORDER, *given, "--output", target)
    assert code == 0 and re.search(r"jobs +2, of 7 shards\n", text)
    assert "#SBATCH --time=00:10:00\n" in (target / "jobs.sbatch").read_text()
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", target / "submit.sh"], env=environment, capture_output=True, timeout=120, check=True)
    assert done.stdout == b"4711\n"
    assert (target / "events.h5").read_bytes() == (whole / "events.h5").read_bytes()
    assert read_sealed(target / "events.h5.json")["jobs"] == 2
    assert not list((target / "jobs" / "1").glob("events.*"))
    assert "130 of 2 jobs" in (target / "logs" / "merge.txt").read_text()
    with pytest.raises(StorageError, match="is not empty: choose another --output"):
        write_scripts(Submission(events_run, N, SEED, target), "slurm", 3, 1, (), "")


def test_the_files_for_condor_name_every_job(events_run: Path, tmp_path: Path) -> None:
    order = Submission(events_run, N, SEED, tmp_path / "events", SIZE, ("h5",))
    rows = dict(write_scripts(order, "htcondor", 9, 2, ["request_memory=2GB"], ""))
    assert rows["warning"] == "there are 7 shards, so there are 7 jobs: a smaller --shard-size makes more"
    jobs = (tmp_path / "events" / "jobs.sub").read_text()
    assert "request_cpus = 2\n" in jobs and "request_memory = 2GB\n" in jobs
    assert re.findall(r"^\d+$", jobs, re.MULTILINE) == list("1234567")
    assert (tmp_path / "events" / "events.dag").read_text().endswith("PARENT events CHILD merge\n")
    assert "--workers 2" in (tmp_path / "events" / "job.sh").read_text()


@pytest.mark.parametrize(
    ("option", "setup", "error", "message"),
    [
        ("time", "", ConfigError, "--option must be NAME=VALUE"),
        ("time=1\n#SBATCH --account=other", "", ConfigError, "--option must be NAME=VALUE"),
        ("no time=1", "", ConfigError, "--option must be NAME=VALUE"),
        ("time=1", "one\ntwo", ConfigError, "--setup must be one line"),
    ],
)
def test_scripts_with_wrong_options_are_not_written(
    events_run: Path, tmp_path: Path, option: str, setup: str, error: type[Exception], message: str
) -> None:
    order = Submission(events_run, N, SEED, tmp_path / "events")
    with pytest.raises(error, match=message):
        write_scripts(order, "slurm", None, 1, [option], setup)
    assert not (tmp_path / "events").exists()


def test_unusable_clusters_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match=r"nowhere\.json: there is no such file of a scheduler"),
        crew_of("dask", 1, str(tmp_path / "nowhere.json"), SILENT),
    ):
        pass
    soon = dask.config.set({"distributed.comm.timeouts.connect": "100ms"})
    for address in ("127.0.0.1:9", "no such thing"):
        answered = pytest.raises(WorkerError, match=f"no Dask scheduler answers at {address}")
        with soon, answered, crew_of("dask", 1, address, SILENT):
            pass
    with (
        pytest.raises(ConfigError, match="--cluster is for --backend dask, not mpi"),
        crew_of("mpi", 1, "local", SILENT),
    ):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=_unconfigured))
    configured = pytest.raises(ConfigError, match=r"dask-jobqueue cannot start workers: no cores; .*jobqueue\.yaml")
    with configured, crew_of("dask", 1, "slurm", SILENT):
        pass
    monkeypatch.setattr(clusters.importlib, "import_module", _missing)
    for backend, extra in (("dask", "dask"), ("mpi", "mpi")):
        with (
            pytest.raises(MissingExtraError, match=rf"pip install .*\[{extra}\]"),
            crew_of(backend, 1, None, SILENT),
        ):
            pass


def _unconfigured() -> None:
    raise ValueError("no cores")


def _missing(name: str) -> object:
    raise ImportError(name)
