"""Matrix elements sampled beside summed ones: time of a trial, unweighting efficiency, time of an unweighted event.

    python benchmarks/discrete.py --output benchmarks/results/discrete.json --before ../older/bin/python

With ``--before`` the same is measured for W + 2 jets by the Python of an environment that has commit 1850f07, whose
matrix elements come from pyamplicol (extra [sm]). Every sampler is trained with as many calls. A trial is a point of
the frozen sampler with its density and value; the efficiency is that at 0.1 % overweight.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from measurements import BenchmarkError, Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table

from nisampler import IntegrationConfig, TrainingConfig, integrate
from nisampler.errors import ConfigError
from nisampler.processes.registry import create

SCRIPT = "benchmarks/discrete.py"
PROCESSES = {
    "W + 2 jets": ("w_plus_jets", {"n_jets": 2}),
    "W + 3 jets": ("w_plus_jets", {"n_jets": 3}),
    "t t~ j j": ("p p > t t~ j j", {}),
}
MODES = ("summed", "sampled")
BEFORE = "1850f07"
KEY = ("process", "mode")
COLUMNS = ("process", "elements", "sampler", "sigma [pb]", "us a trial", "efficiency", "us an event", "gain")
_BATCH, _WIDTH = 16384, 130


def cpu() -> float:
    """CPU-seconds of this process and those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def measure(job: Row) -> Row:
    """Train, integrate, and time trials; by another Python where the row is one of `BEFORE`."""
    if job["mode"] == BEFORE and job["python"] is not None:
        return _elsewhere(job)
    name, parameters = PROCESSES[job["process"]]
    process = create(name, **parameters, **({} if job["mode"] == BEFORE else {"elements": job["mode"]}))
    result = integrate(
        process,
        seed=job["seed"],
        training=TrainingConfig(calls=job["calls"], sampler=job["sampler"]),
        integration=IntegrationConfig(points=job["points"]),
    )
    view = result.sampler.view(result.integrand)
    seconds = []
    for repeat in range(job["repeats"] + 1):
        start = cpu()
        u, _ = result.sampler.sample(_BATCH, torch.Generator().manual_seed(repeat))
        view(u)
        seconds.append(cpu() - start)
    return job | {
        "value": result.estimate.value,
        "error": result.estimate.error,
        "trial": statistics.median(seconds[1:]) / _BATCH,
        "efficiency": result.efficiencies.at_0p1,
        "described": result.sampler.describe(),
    }


def _elsewhere(job: Row) -> Row:
    """The row as the Python of another environment measures it."""
    command = [job["python"], __file__, "--row", json.dumps(job | {"python": None})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command[:2])} failed: {done.stderr[-500:]}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def show(console: Console, rows: list[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    lines: list[tuple[str, ...]] = []
    for process in PROCESSES:
        found = {row["mode"]: row for row in rows if row["process"] == process}
        for mode in (BEFORE, *MODES):
            if row := found.get(mode):
                event = row["trial"] / row["efficiency"]
                first = next(iter(found[name] for name in (BEFORE, *MODES) if name in found))
                gain = first["trial"] / first["efficiency"] / event
                figures = f"{1e6 * row['trial']:.2f}", f"{row['efficiency']:.4f}", f"{1e6 * event:.1f}", f"{gain:.2f}"
                sigma = f"{row['value']:.1f} +- {row['error']:.1f}"
                lines.append((process, mode, row["sampler"], sigma, *figures))
    if not lines:
        return
    table = Table(title="Matrix elements sampled beside summed ones")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if output:
        places = ", ".join(sorted({row["hardware"] for row in rows}))
        dates = sorted({row["date"][:10] for row in rows})
        calls = ", ".join(f"{row['process']} {row['calls']:,}" for row in rows if row["mode"] == MODES[0])
        text = (
            f"{places}, one thread; {dates[0]} to {dates[-1]}. {SCRIPT}. Calls of trainings: {calls}.",
            "Times in CPU-microseconds. Gain: time of an event in the first row of a process over that in its row.",
        )
        page = markdown("Matrix elements sampled beside summed ones", text, COLUMNS, lines)
        output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Matrix elements sampled beside summed ones.")
    parser.add_argument("--processes", nargs="*", default=list(PROCESSES), choices=list(PROCESSES), metavar="PROCESS")
    parser.add_argument("--before", help=f"the Python of an environment with commit {BEFORE}")
    parser.add_argument("--calls", type=int, default=100_000, help="of the training")
    parser.add_argument("--points", type=int, default=100_000, help="of the integration")
    parser.add_argument("--sampler", default="vegas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    if min(options.calls, options.points, options.repeats, options.threads) <= 0:
        raise ConfigError("every number must be positive")
    names = ("calls", "points", "sampler", "seed", "repeats")
    common = {name: getattr(options, name) for name in names} | {"python": None}
    jobs = [{"process": process, "mode": mode} | common for process in options.processes for mode in MODES]
    first = next(iter(PROCESSES))
    if options.before and first in options.processes:
        jobs.insert(0, {"process": first, "mode": BEFORE} | common | {"python": options.before})
    return jobs


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['process']}, {job['mode']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return f"{1e6 * row['trial']:.2f} us a trial, efficiency {row['efficiency']:.4f}"


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
