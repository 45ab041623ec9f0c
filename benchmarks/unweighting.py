"""Unweighting efficiencies of W+, W- and Z with 0 to 3 jets: channels alone, VEGAS, madnis and nisampler.

    pip install ".[bench,shower,sm]" && python benchmarks/unweighting.py --jets 0 1

All methods use the same channels, prior weights, calls and number of fresh points. Every row (process, jets, method,
seed) runs in a process of its own; rows are kept in a JSON file and can be measured in any order. The table has
medians over the seeds; `benchmarks/README.md` explains its columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurements import Row, Rows, key, markdown, measure_all, median, run_script, wide_console
from peers import METHODS, measure_method
from rich.console import Console
from rich.table import Table

from nisampler.base.notation import format_with_error
from nisampler.errors import ConfigError

SCRIPT = "benchmarks/unweighting.py"
PROCESSES = ("w_plus_jets", "w_minus_jets", "z_jets")
MOST_JETS = 3
OURS = "nisampler"
KEY = ("process", "jets", "method", "seed", "calls", "points", "channels")
# Efficiencies of 2001.10028, table 1: Sherpa and i-flow, for 0 to 3 jets.
PUBLISHED = {
    "w_plus_jets": ((0.28, 0.61), (0.038, 0.12), (0.0075, 0.010), (0.0015, 0.0018)),
    "w_minus_jets": ((0.29, 0.70), (0.040, 0.15), (0.0077, 0.011), (0.0020, 0.0022)),
    "z_jets": ((0.31, 0.38), (0.036, 0.10), (0.015, 0.014), (0.0047, 0.0024)),
}
COLUMNS = (
    "process",
    "jets",
    "method",
    "strict",
    "0.1 %",
    "1 %",
    "std/mean",
    "calls/1000",
    "CPU-s",
    "events/s",
    "events/1000 ME",
    "pb",
    "seeds",
    "Sherpa",
    "i-flow",
)
NOTE = (
    "Medians over the seeds. strict, 0.1 %, 1 %: unweighting efficiency with that fraction of the integral in weights "
    "above the maximum. std/mean: relative standard deviation of the weights. calls and CPU-s: training + integration. "
    "events/s and events/1000 ME: unweighted events at 0.1 % per CPU-second of the integration, and per 1000 matrix "
    "elements, which are evaluated inside the cuts only. madnis: in its own shares of the channels or in the best "
    "ones, whichever is better. Sherpa and i-flow: published in 2001.10028, with its own cuts and settings."
)
_WIDTH = 170


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}" if value < 1.0 else f"{value:.3f}"


def cells(rows: list[Row]) -> tuple[str, ...]:
    """One line of the table: the rows of all seeds of a process, number of jets and method."""
    first = rows[0]
    calls = "+".join(f"{median(rows, name) / 1000:.0f}" for name in ("training_calls", "integration_calls"))
    seconds = "+".join(f"{median(rows, name):.1f}" for name in ("training_seconds", "integration_seconds"))
    published = PUBLISHED[first["process"]][first["jets"]]
    return (
        first["process"],
        str(first["jets"]),
        first["method"],
        *(figure(median(rows, name)) for name in ("strict", "at_0p1", "at_1", "deviation")),
        calls,
        seconds,
        f"{median(rows, 'events_per_second'):.0f}",
        f"{median(rows, 'events_per_1000_elements'):.1f}",
        format_with_error(median(rows, "value"), median(rows, "error")),
        str(len(rows)),
        *(f"{value:g}" for value in published),
    )


def table_lines(rows: list[Row], channels: str) -> list[tuple[str, ...]]:
    """A line for every process, number of jets, number of calls and method that was measured with these channels."""
    chosen = [row for row in rows if row["channels"] == channels]
    lines = []
    for process in PROCESSES:
        for jets in range(MOST_JETS + 1):
            mine = [row for row in chosen if (row["process"], row["jets"]) == (process, jets)]
            found = {key(row, ("calls", "method", "points")) for row in mine}
            methods = list(METHODS)
            for place in sorted(found, key=lambda place: (place[0], methods.index(place[1]), place[2])):
                lines.append(cells([row for row in mine if key(row, ("calls", "method", "points")) == place]))
    return lines


def conditions(rows: list[Row], channels: str) -> str:
    """Where, when and how the rows with these channels were measured."""
    chosen = [row for row in rows if row["channels"] == channels]
    dates = sorted({row["date"][:10] for row in chosen})
    versions = sorted({f"{name} {number}" for row in chosen for name, number in row["versions"].items()})
    threads = "/".join(sorted({str(row["threads"]) for row in chosen}))
    return (
        f"13 TeV, NNPDF31_lo_as_0118, {channels} channels; {threads} thread(s) on "
        f"{'; '.join(sorted({row['hardware'] for row in chosen}))}; {', '.join(versions)}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}. Compare rows with the same number of calls."
    )


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table, and write it beside the rows."""
    lines = table_lines(rows, options.channels)
    if not lines:
        return
    table = Table(title="Unweighting efficiencies", caption=NOTE)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index in (0, 2) else "right", no_wrap=True)
    for index, line in enumerate(lines):
        last = index + 1 == len(lines) or lines[index + 1][:2] != line[:2]
        table.add_row(*line, end_section=last, style="bold" if line[2] == OURS else None)
    console.print(table)
    text = conditions(rows, options.channels)
    console.print(text, highlight=False)
    if options.output:
        page = markdown("Unweighting efficiencies", (text, NOTE), COLUMNS, lines)
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Unweighting efficiencies of vector bosons with jets.")
    parser.add_argument("--process", nargs="+", default=list(PROCESSES), choices=PROCESSES)
    parser.add_argument("--jets", nargs="+", type=int, default=[0, 1], choices=range(MOST_JETS + 1))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--calls", type=int, default=1_000_000, help="integrand calls of each training")
    parser.add_argument("--points", type=int, default=2**18, help="fresh points for estimate and efficiencies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="one row for each")
    parser.add_argument("--channels", default="chili", help="phase-space channels: chili or topology")
    parser.add_argument("--threads", type=int, default=1, help="threads of each row")
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--refresh", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure, cheap ones first.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    for name in ("calls", "points", "threads"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    settings = (options.calls, options.points, options.channels)
    return [
        dict(zip(KEY, (process, jets, method, seed, *settings), strict=True))
        for jets in sorted(set(options.jets))
        for method in METHODS
        if method in options.methods
        for process in options.process
        for seed in options.seeds
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, print a line for each row, then the table; the number of failed rows."""
    kept = Rows(options.output, KEY, SCRIPT)
    todo = kept.missing(jobs_of(options), options.refresh)
    failed = measure_all(__file__, todo, options.threads, kept, console, label, efficiencies)
    show(console, kept.rows, options)
    return failed


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['process']} + {job['jets']} jets, {job['method']}, seed {job['seed']}"


def efficiencies(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return ", ".join(f"{name} {row[name]:.3g}" for name in ("strict", "at_0p1", "at_1"))


def measure(job: dict[str, Any]) -> Row:
    """One row in this process."""
    card = {"n_jets": job["jets"], "channels": job["channels"]}
    found = measure_method(job["process"], card, job["method"], (job["seed"], job["calls"], job["points"]))
    return job | found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
