"""What two worker processes are worth: making events, and training and integrating a function of 1 ms a call.

    python benchmarks/workers.py --output benchmarks/results/workers.md

Each row is a command of its own, once with one worker and once with several, in turn. Beside the seconds on the clock
stand the CPU-seconds of all processes together, which tell the overhead on a machine that is not idle, where the clock
says little: the load before each row is in the table. The bytes of events and samplers are compared.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from measurements import hardware, markdown

FUNCTION = '''
import time

class Slow:
    """Two peaks in four dimensions, each of whose values takes {seconds} CPU-seconds."""

    dim = 4

    def __call__(self, x):
        end = time.process_time() + {seconds} * len(x)
        while time.process_time() < end:
            pass
        return ((-25 * (x - 1 / 3) ** 2).sum(1)).exp() + ((-25 * (x - 2 / 3) ** 2).sum(1)).exp()
'''
LEARNED = """
process = "slow.py:Slow"
threads = 1
[training]
calls = {calls}
sampler = "flow"
[integration]
points = {calls}
[events]
n = 0
"""
EVENTS = """
process = "{process}"
threads = 1
[training]
calls = 20000
[integration]
points = 16384
[events]
n = 0
formats = ["{ending}"]
"""
_CHILD_SUBREAPER = 36
COLUMNS = ("", "workers", "seconds", "CPU-s in all", "speed-up", "CPU-s, relative", "load", "same bytes")


@dataclass(frozen=True)
class Row:
    """Medians of one row."""

    name: str
    workers: int
    seconds: float
    cpu: float
    load: float
    same: bool


def command(*arguments: object) -> tuple[float, float]:
    """Seconds and CPU-seconds of a command of nisampler, with all its processes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    limits = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "nisampler", *map(str, arguments), "--quiet"],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    wall = time.perf_counter() - start
    with suppress(ChildProcessError):
        while True:  # what the command left to end by itself: the server of its workers
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def learning(folder: Path, calls: int, seconds: float, workers: int, take: int) -> tuple[float, float, Path]:
    """Seconds of training and integration, CPU-seconds of the whole run, and its sampler."""
    (folder / "slow.py").write_text(FUNCTION.format(seconds=seconds))
    card, run = folder / "slow.toml", folder / f"slow-{workers}-{take}"
    card.write_text(LEARNED.format(calls=calls).replace("slow.py", str(folder / "slow.py")))
    _, cpu = command("run", card, "--output", run, "--workers", workers)
    spent = json.loads((run / "result.json").read_text())["seconds"]
    (sampler,) = run.glob("sampler/*.safetensors")
    return spent["training"] + spent["integration"], cpu, sampler


def generating(folder: Path, process: str, n: int, ending: str, workers: int, take: int) -> tuple[float, float, Path]:
    """Seconds and CPU-seconds of making n events, and their file."""
    card, run = folder / f"{process}.toml", folder / process
    if not run.exists():
        card.write_text(EVENTS.format(process=process, ending=ending))
        command("run", card, "--output", run)
    target = folder / f"events-{workers}-{take}"
    wall, cpu = command("generate", run, "--events", n, "--seed", 7, "--output", target, "--workers", workers)
    return wall, cpu, target / f"events.{ending}"


def rows(given: argparse.Namespace) -> list[Row]:
    """Both measurements with one worker and with several, in turn."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {
            f"{given.process}, {given.events:,} events to {given.format}": lambda workers, take: generating(
                folder, given.process, given.events, given.format, workers, take
            ),
            f"flow, {given.calls:,} + {given.calls:,} calls of {1e3 * given.seconds:g} ms": lambda workers, take: (
                learning(folder, given.calls, given.seconds, workers, take)
            ),
        }
        for label, measure in kinds.items():
            taken: dict[int, list[tuple[float, float, float]]] = {1: [], given.workers: []}
            made: set[bytes] = set()
            for take in range(given.repeats):
                for workers in taken:
                    load = os.getloadavg()[0]
                    wall, cpu, file = measure(workers, take)
                    taken[workers].append((wall, cpu, load))
                    made.add(file.read_bytes())
                    print(f"{label}: {workers} workers, {wall:.1f} s, {cpu:.1f} CPU-s, load {load:.1f}", flush=True)
            for workers, values in taken.items():
                wall, cpu, load = (statistics.median(column) for column in zip(*values, strict=True))
                found.append(Row(label, workers, wall, cpu, load, len(made) == 1))
    return found


def page(found: list[Row]) -> str:
    """The table."""
    lines = []
    for row in found:
        alone = next(other for other in found if other.name == row.name and other.workers == 1)
        figures = (f"{row.seconds:.1f}", f"{row.cpu:.1f}", f"{alone.seconds / row.seconds:.2f}")
        relative = (f"{row.cpu / alone.cpu:.2f}", f"{row.load:.1f}", "yes" if row.same else "no")
        lines.append((row.name, str(row.workers), *figures, *relative))
    text = (
        f"{hardware()}. Medians; the load is that of the last minute before each command. Seconds of the function "
        "of 1 ms are those of training and integration; CPU-seconds are those of the whole command and its processes.",
        "Where the load leaves no core idle the speed-up says nothing; the CPU-seconds then tell what sharing costs.",
    )
    return markdown("Worker processes", text, COLUMNS, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--process", default="drell_yan")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--format", default="h5")
    parser.add_argument("--calls", type=int, default=40_000)
    parser.add_argument("--seconds", type=float, default=1e-3, help="of each call")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)  # processes that outlive a command are counted too
    text = page(rows(given))
    print(text)
    if given.output is not None:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
