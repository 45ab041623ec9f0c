"""Stored matrix elements against fresh ones: the same efficiency with fewer calls of a costly matrix element.

    pip install ".[shower]" && python benchmarks/buffered_training.py --output benchmarks/results/buffered.json

Online training uses every point once, buffered training again and again (`FlowSettings.reuse`). The matrix element
is charged a fixed time for each call, one millisecond by default, on top of the measured CPU time; with `--wait` the
processor is really kept busy for so long.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measurements import Row, Rows, key, markdown, measure_all, median, run_script
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nisampler import FlowSettings, Integrand, TrainingConfig
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at
from nisampler.density.channels import Multichannel
from nisampler.errors import ConfigError
from nisampler.processes.base import Process
from nisampler.processes.registry import create
from nisampler.training.trainer import Trainer

SCRIPT = "benchmarks/buffered_training.py"
KEY = ("process", "jets", "calls", "reuse", "seed", "points", "milliseconds")
LEVELS = (0.0, 1e-3, 1e-2)
COLUMNS = (
    "training",
    "calls",
    "reuse",
    "steps",
    "strict",
    "0.1 %",
    "1 %",
    "CPU-s",
    "with calls, s",
    "seeds",
    "reached",
)
NOTE = (
    "Medians over the seeds; efficiencies on fresh points that are not counted. calls: matrix elements of the whole "
    "adaptation. reuse: steps on stored points after each step on fresh ones. with calls: CPU-seconds of the training "
    "and the time of its matrix elements. reached: at least the efficiency at 0.1 % of online training."
)


@dataclass
class Slow:
    """A process whose every call takes `milliseconds` more, if it is to wait.

    Parameters
    ----------
    process
        What is evaluated.
    milliseconds
        Of busy waiting for each point; 0 for none.
    """

    process: Process
    milliseconds: float = 0.0

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.process.dim

    @property
    def multichannel(self) -> Multichannel | None:
        """The channels of the process."""
        found = getattr(self.process, "multichannel", None)
        if isinstance(found, Multichannel) and self.milliseconds and len(found.channels) > 1:
            raise ConfigError("waiting is for processes with one channel")
        return found

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim)."""
        values = self.process(u)
        end = time.process_time() + 1e-3 * self.milliseconds * len(u)
        while self.milliseconds and time.process_time() < end:
            pass
        return values


def measure(job: dict[str, Any]) -> Row:
    """Train with these settings, and look at the weights of fresh points."""
    process = create(job["process"], **({} if job["jets"] is None else {"n_jets": job["jets"]}))
    integrand, streams = Integrand(Slow(process, job["milliseconds"] if job["wait"] else 0.0)), Streams(job["seed"])
    calls, start = integrand.calls, time.process_time()
    trained = Trainer(
        integrand, TrainingConfig(calls=job["calls"], events=0, flow=FlowSettings(reuse=job["reuse"])), streams
    ).fit()
    seconds, calls = time.process_time() - start, integrand.calls - calls
    quick = Integrand(process)
    points, log_q = trained.sampler.sample(job["points"], streams.generator("fresh"))
    weights = trained.sampler.view(quick)(points) * torch.exp(-log_q)
    strict, at_0p1, at_1 = (efficiency for _, efficiency in efficiencies_at(weights, LEVELS))
    charged = 0.0 if job["wait"] else 1e-3 * job["milliseconds"] * calls
    return job | {
        "sampler": trained.sampler.describe(),
        "used": calls,
        "steps": trained.steps,
        "steps_per_call": trained.steps_per_call,
        "strict": strict,
        "at_0p1": at_0p1,
        "at_1": at_1,
        "seconds": seconds,
        "with_calls": seconds + charged,
    }


def table_lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """A line for each setting: online training first, then the buffered ones by falling number of calls."""
    settings = sorted({(row["calls"], row["reuse"]) for row in rows}, key=lambda pair: (pair[1] > 0, -pair[0], pair[1]))
    groups = [[row for row in rows if (row["calls"], row["reuse"]) == pair] for pair in settings]
    online = [group for group in groups if group[0]["reuse"] == 0]
    aim = max((median(group, "at_0p1") for group in online), default=None)
    most = max((median(group, "used") for group in online), default=0.0)
    lines = []
    for group in groups:
        first = group[0]
        reached = "" if aim is None or not first["reuse"] else "no"
        if aim is not None and first["reuse"] and median(group, "at_0p1") >= aim:
            reached = f"with {most / median(group, 'used'):.1f} times fewer calls"
        lines.append(
            (
                "buffered" if first["reuse"] else "online",
                f"{median(group, 'used'):.0f}",
                str(first["reuse"]),
                f"{median(group, 'steps'):.0f}",
                *(f"{median(group, name):.3f}" for name in ("strict", "at_0p1", "at_1")),
                *(f"{median(group, name):.0f}" for name in ("seconds", "with_calls")),
                str(len(group)),
                reached,
            )
        )
    return lines


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table, and write it beside the rows."""
    lines = table_lines(rows)
    if not lines:
        return
    jets = "" if options.jets is None else f" + {options.jets} jets"
    title = f"Buffered training: {options.process}{jets}, {options.milliseconds:g} ms a call"
    table = Table(title=title, caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("training", "reached") else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line, style="bold" if line[-1].startswith("with") else None)
    console.print(table)
    if options.output:
        text = f"{rows[0]['points']} fresh points; {rows[0]['hardware']}, {rows[0]['threads']} thread(s)."
        page = markdown(title, (text, NOTE), COLUMNS, lines)
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Online against buffered training of a costly matrix element.")
    parser.add_argument("--process", default="w_plus_jets")
    parser.add_argument("--jets", type=int, help="jets beside the boson, for processes that have them")
    parser.add_argument("--calls", type=int, default=500_000, help="calls of online training")
    parser.add_argument("--fewer", nargs="+", type=int, default=[5, 10], help="divisors of the calls when buffered")
    parser.add_argument("--reuse", nargs="+", type=int, default=[4, 9, 15], help="steps on stored points, buffered")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--points", type=int, default=2**18, help="fresh points of the efficiencies")
    parser.add_argument("--milliseconds", type=float, default=1.0, help="time of a matrix element")
    parser.add_argument("--wait", action="store_true", help="keep the processor busy for so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """Online training, then every buffered setting.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    numbers = [options.calls, options.points, options.threads, *options.fewer, *options.reuse]
    if min(numbers) < 1 or options.milliseconds < 0:
        raise ConfigError("calls, points, threads, fewer and reuse must be positive, and milliseconds not negative")
    settings = [(options.calls, 0)]
    settings += [(options.calls // fewer, reuse) for fewer in options.fewer for reuse in options.reuse]
    return [
        dict(
            zip(
                KEY,
                (options.process, options.jets, calls, reuse, seed, options.points, options.milliseconds),
                strict=True,
            )
        )
        | {"wait": options.wait}
        for calls, reuse in settings
        for seed in options.seeds
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, then the table; the number of failed rows."""
    kept, jobs = Rows(options.output, KEY, SCRIPT), jobs_of(options)
    failed = measure_all(
        __file__,
        kept.missing(jobs),
        options.threads,
        kept,
        console,
        lambda job: f"{job['calls']} calls, reuse {job['reuse']}, seed {job['seed']}",
        lambda row: f"0.1 % {row['at_0p1']:.3f}, {row['seconds']:.0f} s of training",
    )
    wanted = {key(job, KEY) for job in jobs}
    show(console, [row for row in kept.rows if key(row, KEY) in wanted], options)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, run, Console(width=150))


if __name__ == "__main__":
    sys.exit(main())
