"""Compare nisampler with vegas and madnis: the same functions, the same number of calls, one table.

    pip install ".[bench]" && python benchmarks/integrals.py

Every row (function, sampler, seed) runs in a process of its own with a fixed number of threads. The table has medians
over the seeds; `benchmarks/README.md` explains its columns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measurements
import torch
from measurements import BenchmarkError, Row, markdown, median, write_rows
from peers import SAMPLERS, measure, require
from rich.console import Console
from rich.table import Table

from nisampler.errors import ConfigError, NisamplerError
from nisampler.processes.registry import create

FUNCTIONS = ("gauss4", "camel4", "camel8", "circles2", "annulus", "poly18", "ee_to_3jets")
OURS = "nisampler"
KEY = ("function", "sampler", "seed", "calls", "points")
COLUMNS = (
    "function",
    "sampler",
    "rel. error",
    "pull",
    "strict",
    "0.1 %",
    "1 %",
    "ESS/N",
    "calls/1000",
    "CPU-s",
    "seeds",
    "error ratio",
    "0.1 % ratio",
    "CPU ratio",
)
NOTE = (
    "Medians over the seeds; pull without its sign. calls and CPU-s: adaptation + integration. ratio: nisampler's "
    "figure divided by that of the row. vegas' efficiencies are those of its map after the adaptation or of its "
    "stratified points, whichever is better at 0.1 %."
)

_WIDTH = 160


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; none if there is no such file; BenchmarkError if the file is not this script's."""
    return measurements.read_rows(path, KEY, "benchmarks/integrals.py")


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement."""
    return measurements.key(row, KEY)


def with_row(rows: list[Row], new: Row) -> list[Row]:
    """The rows, with `new` in the place of the one that measured the same."""
    return measurements.with_row(rows, new, KEY)


def run_row(job: Row, threads: int) -> Row:
    """Measure one row in a fresh process; BenchmarkError if that process failed."""
    return measurements.run_row(__file__, job, threads, f"{job['function']} with {job['sampler']}, seed {job['seed']}")


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1.0 else f"{value:.2f}"


def cpu(rows: list[Row]) -> float:
    """Median CPU-seconds of adaptation and integration together."""
    return float(statistics.median(row["training_seconds"] + row["integration_seconds"] for row in rows))


def _cells(function: str, sampler: str, rows: list[Row], ours: list[Row]) -> tuple[str, ...]:
    pulls = [abs(row["pull"]) for row in rows if row["pull"] is not None]
    calls = "+".join(f"{median(rows, name) / 1000:.0f}" for name in ("training_calls", "integration_calls"))
    seconds = "+".join(_seconds(median(rows, name)) for name in ("training_seconds", "integration_seconds"))
    ratios = ("", "", "")
    if ours and sampler != OURS:
        ratios = (
            f"{median(ours, 'relative_error') / median(rows, 'relative_error'):.2f}",
            f"{median(ours, 'at_0p1') / median(rows, 'at_0p1'):.2f}",
            f"{cpu(ours) / cpu(rows):.1f}",
        )
    efficiencies = (f"{median(rows, name):.3f}" for name in ("strict", "at_0p1", "at_1", "ess_fraction"))
    seeds = str(len(rows))
    pull = f"{statistics.median(pulls):.1f}" if pulls else "–"
    return (
        function,
        sampler,
        f"{median(rows, 'relative_error'):.1e}",
        pull,
        *efficiencies,
        calls,
        seconds,
        seeds,
        *ratios,
    )


def table_lines(rows: list[Row], calls: int, points: int) -> list[tuple[str, ...]]:
    """One line of the table for every function and sampler that was measured with these budgets."""
    chosen = [row for row in rows if (row["calls"], row["points"]) == (calls, points)]
    functions = sorted({row["function"] for row in chosen}, key=lambda name: (_place(name), name))
    lines = []
    for function in functions:
        groups = {s: [r for r in chosen if (r["function"], r["sampler"]) == (function, s)] for s in SAMPLERS}
        lines += [_cells(function, s, group, groups[OURS]) for s, group in groups.items() if group]
    return lines


def _place(function: str) -> int:
    return FUNCTIONS.index(function) if function in FUNCTIONS else len(FUNCTIONS)


def conditions(rows: list[Row], calls: int, points: int) -> str:
    """Where and when the rows of these budgets were measured, and with which versions."""
    chosen = [row for row in rows if (row["calls"], row["points"]) == (calls, points)]
    versions = sorted({f"{row['sampler']} {row['version']}" for row in chosen})
    dates = sorted({row["date"][:10] for row in chosen})
    threads = "/".join(sorted({str(row["threads"]) for row in chosen}))
    return (
        f"{calls} calls of adaptation and {points} of integration; {threads} thread(s) on "
        f"{'; '.join(sorted({row['hardware'] for row in chosen}))}; {', '.join(versions)}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    )


def show(console: Console, rows: list[Row], calls: int, points: int) -> None:
    """Print the table."""
    lines = table_lines(rows, calls, points)
    if not lines:
        return
    table = Table(title="nisampler and its peers", caption=NOTE)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for index, line in enumerate(lines):
        last = index + 1 == len(lines) or lines[index + 1][0] != line[0]
        table.add_row(*line, end_section=last, style="bold" if line[1] == OURS else None)
    console.print(table)
    console.print(conditions(rows, calls, points), highlight=False)


def write_markdown(path: Path, rows: list[Row], calls: int, points: int) -> None:
    """The same table in Markdown."""
    lines = table_lines(rows, calls, points)
    if not lines:
        return
    text = markdown("nisampler and its peers", (conditions(rows, calls, points), NOTE), COLUMNS, lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Compare nisampler with vegas and madnis on the same functions.")
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), help="test functions or processes")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), help=f"of {', '.join(SAMPLERS)}")
    parser.add_argument("--calls", type=int, default=1_000_000, help="integrand calls of the adaptation")
    parser.add_argument("--points", type=int, default=1_000_000, help="integrand calls of the integration")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 1, 2, ...")
    parser.add_argument("--threads", type=int, default=1, help="threads of each row")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--output", type=Path, help="write all rows to this JSON file; it is replaced if it exists")
    files.add_argument("--merge", type=Path, help="add the missing rows to this JSON file, and show all of its rows")
    parser.add_argument("--refresh", action="store_true", help="with --merge: measure rows again that are there")
    parser.add_argument("--table", type=Path, help="write the table to this Markdown file too")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> list[Row]:
    """The rows to measure, sampler by sampler, the fastest first.

    Raises
    ------
    NisamplerError
        If a name is unknown, a peer is not installed or a number is not positive.
    """
    for name in ("calls", "points", "seeds", "threads"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    require(options.samplers)
    for name in options.functions:
        create(name)
    samplers = [name for name in SAMPLERS if name in options.samplers]
    return [
        dict(zip(KEY, (function, sampler, seed, options.calls, options.points), strict=True))
        for sampler in samplers
        for function in options.functions
        for seed in range(1, options.seeds + 1)
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, print a line for each row, then the table; the number of failed rows."""
    jobs = check(options)
    path: Path | None = options.merge or options.output
    if options.output:
        write_rows(options.output, [])
    rows = read_rows(path) if path else []
    known = {key(row) for row in rows}
    todo = [job for job in jobs if options.refresh or key(job) not in known]
    failed = 0
    for index, job in enumerate(todo, 1):
        start = time.perf_counter()
        label = f"[{index}/{len(todo)}] {job['function']} {job['sampler']} seed {job['seed']}"
        try:
            row = run_row(job, options.threads)
        except BenchmarkError as error:
            failed += 1
            console.print(f"{label}: failed: {error}", markup=False, highlight=False)
            continue
        # Another run may have added rows to the same file meanwhile.
        rows = with_row(read_rows(path) if path else rows, row)
        if path:
            write_rows(path, rows)
        console.print(
            f"{label}: rel. error {row['relative_error']:.1e}, 0.1 % {row['at_0p1']:.3f}, "
            f"{time.perf_counter() - start:.0f} s",
            markup=False,
            highlight=False,
        )
    show(console, rows, options.calls, options.points)
    if options.table:
        write_markdown(options.table, rows, options.calls, options.points)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    options = parse(arguments)
    if options.row:
        torch.set_num_threads(options.threads)
        sys.stdout.write(json.dumps(measure(**json.loads(options.row))) + "\n")
        return 0
    console = Console()
    if not console.is_terminal or console.width < _WIDTH:
        console = Console(width=_WIDTH)
    try:
        return 1 if run(options, console) else 0
    except NisamplerError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
