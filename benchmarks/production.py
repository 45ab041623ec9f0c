"""The events of one order by one job, 7, 200, two workers, and Dask whose workers are killed: bytes, CPU, memory, disk.

    python benchmarks/production.py --events 200000 --output results/production.json
    python benchmarks/production.py --events 1000000 --only "one job" "7 jobs" --output results/production.json

Every row is commands of the command line, one after the other, as a user types them. CPU-seconds are those of all
processes that a row takes, their starts included; memory is that of the largest of them; disk is what lies there at
the end. The last column says whether the merged file has the bytes of the first row.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measurements import BenchmarkError, Row, Rows, markdown, stamp
from rich.console import Console

from nisampler.base.storage import sha256

SEED, FILE, KILLED = 7, "events.lhe.gz", "Dask, workers killed twice"
NOTE = (
    "200 shards. Disk is that of all shards and of the finished file; of merging and checking, of the file. Jobs are "
    "started one by one from the shell: what they take more than one job, over their number, is the cost of a start."
)
# Of `prctl`: processes whose parent has ended become children of this one.
_SUBREAPER = 36
COLUMNS = ("row", "events", "CPU-s", "s", "largest process, MiB", "disk, MiB", "bytes of one job")


@dataclass
class Cost:
    """CPU-seconds, seconds and the memory of the largest process in MiB."""

    cpu: float = 0.0
    seconds: float = 0.0
    memory: float = 0.0

    def command(self, *words: object, disturb: threading.Thread | None = None) -> None:
        """Run a command of nisampler, and add what it cost, by a process that all of its processes belong to."""
        begin = time.perf_counter()
        line = [sys.executable, str(Path(__file__).resolve()), "--measured", *map(str, words)]
        child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)  # noqa: S603
        if disturb is not None:
            disturb.start()
        found = json.loads(child.communicate()[0])
        if found["code"]:
            raise BenchmarkError(f"{' '.join(map(str, words))}: {found['told']}")
        self.cpu += found["cpu"]
        self.seconds += time.perf_counter() - begin
        self.memory = max(self.memory, found["memory"])


def measured(words: Sequence[str]) -> Row:
    """Run a command of nisampler; its exit code, the end of its messages, and what all its processes cost.

    Those whose parent has ended become children of this process, which waits until none is left.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    found: Row = {"cpu": 0.0, "memory": 0.0, "code": 0}
    with tempfile.TemporaryFile() as told:
        line = [sys.executable, "-m", "nisampler", *words]
        child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=told)  # noqa: S603
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                break
            found["cpu"] += usage.ru_utime + usage.ru_stime
            found["memory"] = max(found["memory"], usage.ru_maxrss / 1024)
            if pid == child.pid:
                found["code"] = child.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        return found | {"told": told.read().decode()[-500:]}


def killer(shards: Path, at: Sequence[int]) -> threading.Thread:
    """A thread that kills a Dask worker of this process's children whenever so many shards are there."""

    def work() -> None:
        for count in at:
            while len(list(shards.glob("*.json"))) < count:
                time.sleep(0.05)
            os.kill(dask_workers()[0], signal.SIGKILL)

    return threading.Thread(target=work, daemon=True)


def dask_workers() -> list[int]:
    """Workers of Dask that a command started by this process has started."""
    found: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.setdefault(int(fields[1]), []).append(int(place.parent.name))
    measuring = [child for parent in found.get(os.getpid(), []) for child in found.get(parent, [])]
    return sorted(
        child
        for parent in measuring
        for child in found.get(parent, [])
        if b"spawn_main" in (Path("/proc") / str(child) / "cmdline").read_bytes()
    )


def measure(name: str, run: Path, folder: Path, events: int, size: int) -> Iterator[Row]:
    """The row of this name, and for several jobs that of their merging, for one that of checking its file."""
    cost, more, target = Cost(), Cost(), folder / "events"
    order = (run, "--events", events, "--seed", SEED, "--shard-size", size)
    file, extra = target / FILE, ""
    if name == "one job":
        cost.command("generate", *order, "--output", target)
        more.command("check", file)
        extra = "check of the file"
    elif name == "two workers":
        cost.command("generate", *order, "--workers", 2, "--output", target)
    elif name == KILLED:
        shards = events // size
        disturb = killer(target / "shards", (max(1, shards // 5), max(2, shards // 2)))
        cost.command("submit", *order, "--backend", "dask", "--workers", 2, "--output", target, disturb=disturb)
        if disturb.is_alive():
            raise BenchmarkError("the workers were too quick to be killed: take more events")
    else:
        jobs = int(name.split()[0])
        folders = [folder / str(number) for number in range(1, jobs + 1)]
        for number, place in enumerate(folders, 1):
            cost.command("generate", *order, "--job", f"{number}/{jobs}", "--shards-only", "--output", place)
        file, extra = folder / FILE, f"merge of {name}"
        more.command("merge", *folders, "--output", file)
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    common = {"events": events, "sha256": sha256(file)} | stamp()
    yield {"row": name, "disk": disk} | vars(cost) | common
    if extra:
        yield {"row": extra, "disk": file.stat().st_size / 2**20} | vars(more) | common


def lines_of(rows: Sequence[Row]) -> list[list[str]]:
    """The table."""
    first = {row["events"]: row["sha256"] for row in rows if row["row"] == "one job"}
    return [
        [
            str(row["row"]),
            str(row["events"]),
            f"{row['cpu']:.0f}",
            f"{row['seconds']:.0f}",
            f"{row['memory']:.0f}",
            f"{row['disk']:.0f}",
            {True: "yes", False: "NO"}[row["sha256"] == first[row["events"]]] if row["events"] in first else "",
        ]
        for row in rows
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--only", nargs="*", help='rows, such as "one job", "two workers", "7 jobs"; all by default')
    parser.add_argument("--card", type=Path, default=Path(__file__).resolve().parents[1] / "examples/drell_yan.toml")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--measured", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measured:
        print(json.dumps(measured(given.measured)))
        return 0
    console = Console(soft_wrap=True)
    names = given.only or ["one job", "two workers", "7 jobs", "200 jobs", KILLED]
    kept = Rows(given.output, ("row", "events"), "production.py")
    size = max(1, given.events // given.shards)
    todo = kept.missing([{"row": name, "events": given.events} for name in names], given.refresh)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        if todo:
            Cost().command("run", given.card, "--events", 1000, "--output", run)
        for job in todo:
            folder = Path(scratch) / "way"
            folder.mkdir()
            for row in measure(job["row"], run, folder, given.events, size):
                kept.add(row)
                console.print(" | ".join(lines_of(kept.rows)[-1]), markup=False, highlight=False)
            shutil.rmtree(folder)
    if given.output:
        where = f"`production.py`, Drell–Yan, {kept.rows[0]['hardware']}, {kept.rows[0]['date']}."
        text = markdown("Events of one order by many", (where, NOTE), COLUMNS, lines_of(kept.rows))
        given.output.with_suffix(".md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
