"""Unweighting efficiencies of processes from strings: nisampler, its VEGAS grids, the vegas package and madnis.

    pip install ".[bench,shower]"
    python benchmarks/string_efficiencies.py --output benchmarks/results/string_efficiencies.json

All methods use the same channels, prior weights, calls of training and number of fresh points. The vegas package knows
no channels: it sees one cube whose first coordinate chooses the channel. Every row runs in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from peers import VEGAS_PACKAGE, measure_method
from rich.console import Console
from rich.table import Table

from nisampler.base.notation import format_with_error
from nisampler.errors import ConfigError

SCRIPT = "benchmarks/string_efficiencies.py"
PROCESSES = ("g g > t t~ g", "u d~ > w+ w+ w-", "g g > t t~ g g", "u c > w+ w+ d s QCD=0")
OURS = "nisampler"
SHOWN = ("plain", VEGAS_PACKAGE, "vegas", "madnis", OURS)
KEY = ("process", "method", "seed", "calls", "points")
COLUMNS = ("process", "method", "strict", "0.1 %", "1 %", "std/mean", "calls/1000", "CPU-s", "pb", "seed")
NOTE = (
    "strict, 0.1 %, 1 %: unweighting efficiency with that fraction of the integral in weights above the maximum. "
    "std/mean: relative standard deviation of the weights. calls and CPU-s: training + fresh points. vegas: grids of "
    "nisampler for each channel. madnis: in its own shares of the channels or in the best ones, whichever is better."
)
_WIDTH = 150


def measure(job: Row) -> Row:
    """One row in this process."""
    return job | measure_method(job["process"], {}, job["method"], (job["seed"], job["calls"], job["points"]))


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is printed."""
    figures = (f"{row[name]:#.3g}" for name in ("strict", "at_0p1", "at_1", "deviation"))
    calls = "+".join(f"{row[name] / 1000:.0f}" for name in ("training_calls", "integration_calls"))
    seconds = "+".join(f"{row[name]:.0f}" for name in ("training_seconds", "integration_seconds"))
    value = format_with_error(row["value"], row["error"])
    return row["process"], row["method"], *figures, calls, seconds, value, str(row["seed"])


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    names = [(process, method) for process in PROCESSES for method in SHOWN]
    found = sorted(rows, key=lambda row: (names.index((row["process"], row["method"])), row["calls"], row["seed"]))
    table = Table(title="Unweighting efficiencies of processes from strings", caption=NOTE)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for row in found:
        table.add_row(*cells(row), style="bold" if row["method"] == OURS else None)
    console.print(table)
    if output and found:
        places = "; ".join(sorted({row["hardware"] for row in found}))
        dates = sorted({row["date"][:10] for row in found})
        text = f"13 TeV, NNPDF31_lo_as_0118, default cuts; {places}, one thread; {dates[0]} to {dates[-1]}. {SCRIPT}."
        page = markdown("Unweighting efficiencies of processes from strings", (text, NOTE), COLUMNS, map(cells, found))
        output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Unweighting efficiencies of processes from strings.")
    parser.add_argument("--processes", nargs="+", default=list(PROCESSES), choices=PROCESSES, metavar="PROCESS")
    parser.add_argument("--methods", nargs="+", default=list(SHOWN), choices=SHOWN)
    parser.add_argument("--calls", type=int, default=300_000, help="integrand calls of each training")
    parser.add_argument("--points", type=int, default=2**17, help="fresh points for estimate and efficiencies")
    parser.add_argument("--seed", type=int, default=1)
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    if min(options.calls, options.points, options.threads) <= 0:
        raise ConfigError("every number must be positive")
    settings = (options.seed, options.calls, options.points)
    return [
        dict(zip(KEY, (process, method, *settings), strict=True))
        for process in options.processes
        for method in options.methods
    ]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['process']}, {job['method']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return ", ".join(f"{name} {row[name]:.3g}" for name in ("strict", "at_0p1", "at_1"))


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
