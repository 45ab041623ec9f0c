"""CPU-seconds before and after the events of a job: start, load, write; and what one start costs that many jobs share.

    python benchmarks/startup.py --output benchmarks/results/startup.md

Rows are taken in turn, each in a process of its own; the smallest of all takes is what the row costs, the median shows
how busy the machine was. `import torch` is the floor of every job of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from measurements import hardware, markdown

CARD = """
process = "drell_yan"
threads = 1
[training]
calls = 20000
sampler = "{sampler}"
[integration]
points = 16384
[events]
n = 0
"""
# What a worker of a cluster does: the first shard pays for the start, the others do not.
AGAIN = """
import time, sys, tempfile
from pathlib import Path
from unittest.mock import patch
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
spent = []
with tempfile.TemporaryDirectory() as folder:
    for seed in (5, 6):
        start = time.process_time()
        generate_events(RunDirectory.read(sys.argv[1]), 1, seed, Path(folder, str(seed)), formats=["h5"])
        spent.append(time.process_time() - start)
print(spent[-1])
"""
FORKED = """
import os, time, sys, tempfile
from pathlib import Path
from unittest.mock import patch
import nisampler.processes.registry, nisampler.processes.hadron.lhc
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
if os.fork() == 0:
    with tempfile.TemporaryDirectory() as folder:
        generate_events(RunDirectory.read(sys.argv[1]), 1, 5, Path(folder, "5"), formats=["h5"])
    print(time.process_time(), flush=True)
    os._exit(0)
os.wait()
"""
# What a notebook does first.
FIRST = """
import torch
from nisampler.flows import coupling_flow
flow = coupling_flow(4)
flow.log_prob(torch.rand(1000, 4)).mean().backward()
"""
DRELL_YAN = str(Path(__file__).resolve().parents[1] / "examples" / "drell_yan.toml")
COLUMNS = ("", "CPU-s, least", "median")
CACHES = ("NISAMPLER_CACHE", "NUMBA_CACHE_DIR")
LIMITS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def output(arguments: list[str]) -> str:
    done = subprocess.run(  # noqa: S603
        [sys.executable, *arguments], env=os.environ | LIMITS, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def cpu(*arguments: str) -> float:
    """CPU-seconds of a Python process with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output(list(arguments))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold(*arguments: str) -> float:
    """The same where nothing compiled is kept yet."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, dict.fromkeys(CACHES, folder)):
        return cpu(*arguments)


def whole() -> float:
    """CPU-seconds of 10,000 Drell-Yan events from the shell."""
    with tempfile.TemporaryDirectory() as folder:
        return cpu("-m", "nisampler", "run", DRELL_YAN, "--output", f"{folder}/run", "--quiet")


def job(run: Path, ending: str) -> float:
    """CPU-seconds of a job of one event."""
    with tempfile.TemporaryDirectory() as folder:
        order = ("--events", "1", "--seed", "5", "--format", ending, "--output", f"{folder}/job", "--quiet")
        return cpu("-m", "nisampler", "generate", str(run), *order)


def rows(folder: Path) -> dict[str, Callable[[], float]]:
    """What is measured, by name; the runs are made first."""
    runs = {}
    for sampler in ("vegas", "flow"):
        card, runs[sampler] = folder / f"{sampler}.toml", folder / sampler
        card.write_text(CARD.format(sampler=sampler))
        output(["-m", "nisampler", "run", str(card), "--output", str(runs[sampler]), "--quiet"])
    vegas, flow = runs["vegas"], runs["flow"]
    return {
        "python": lambda: cpu("-c", ""),
        "import numpy": lambda: cpu("-c", "import numpy"),
        "import torch": lambda: cpu("-c", "import torch"),
        "import torch, numba": lambda: cpu("-c", "import torch, numba"),
        "import torch, pylhe": lambda: cpu("-c", "import torch, pylhe"),
        "nisampler --version": lambda: cpu("-m", "nisampler", "--version"),
        "import torch, and a first flow with its gradient": lambda: cpu("-c", FIRST),
        "the same where no kernel is kept": lambda: cold("-c", FIRST),
        "nisampler run examples/drell_yan.toml: 10,000 events": whole,
        "Drell-Yan, VEGAS: a job of one event to h5": lambda: job(vegas, "h5"),
        "the same to lhe.gz": lambda: job(vegas, "lhe.gz"),
        "Drell-Yan, flow: a job of one event to h5": lambda: job(flow, "h5"),
        "another job in the same process, as in a worker of Dask or MPI: VEGAS": lambda: float(
            output(["-c", AGAIN, str(vegas)])
        ),
        "the same with the flow": lambda: float(output(["-c", AGAIN, str(flow)])),
        "a job in a fork of a process that has imported everything: VEGAS": lambda: float(
            output(["-c", FORKED, str(vegas)])
        ),
    }


def page(taken: dict[str, list[float]]) -> str:
    """The table."""
    lines = [(name, f"{min(values):.2f}", f"{statistics.median(values):.2f}") for name, values in taken.items()]
    text = (
        f"{hardware()}, load {os.getloadavg()[0]:.1f}; kernels of flows and parsed densities are in the cache.",
        "A job of its own cannot be cheaper than `import torch`, in which its process and its sampler are written.",
    )
    return markdown("The start of a job", text, COLUMNS, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = rows(Path(folder))
        taken: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(given.repeats):
            for name, measure in measured.items():
                taken[name].append(measure())
    text = page(taken)
    print(text)
    if given.output is not None:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
