"""Rows of measurements: each in a process of its own, kept in a JSON file that can be added to at any time."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nisampler.errors import NisamplerError

Row = dict[str, Any]


class BenchmarkError(NisamplerError):
    """A row could not be measured, or a file of rows cannot be read."""


def hardware() -> str:
    """The processor and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def stamp() -> Row:
    """Where and when a row was measured."""
    return {"hardware": hardware(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def read_rows(path: Path, names: Sequence[str], script: str) -> list[Row]:
    """Rows of an earlier run; none if there is no such file.

    Raises
    ------
    BenchmarkError
        If the file is not one of that script's: rows that lack one of these names.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        if any(name not in row for row in rows for name in names):
            raise KeyError("rows")
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} holds no rows of {script}; choose another file") from error
    return list(rows)


def write_rows(path: Path, rows: list[Row]) -> None:
    """Replace the file at once, so that it is readable whenever a run is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """What makes two rows the same measurement."""
    return tuple(row[name] for name in names)


def with_row(rows: list[Row], new: Row, names: Sequence[str]) -> list[Row]:
    """The rows, with `new` in the place of the one that measured the same."""
    return [row for row in rows if key(row, names) != key(new, names)] + [new]


def run_row(script: str | Path, job: Row, threads: int, label: str) -> Row:
    """Measure one row in a fresh process of that script, which prints it as its last line.

    Raises
    ------
    BenchmarkError
        If that process failed.
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    command = [sys.executable, str(Path(script).resolve()), "--row", json.dumps(job), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | limits)  # noqa: S603
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise BenchmarkError(f"{label}: {reason}")
    row: Row = json.loads(lines[-1])
    return row | {"threads": threads} | stamp()


class Rows:
    """The rows of a script, kept in a file if there is one.

    Parameters
    ----------
    path
        The file; None keeps them in memory alone.
    names
        What makes two rows the same measurement.
    script
        Its name, for errors.

    Raises
    ------
    BenchmarkError
        If the file is not one of that script's.
    """

    def __init__(self, path: Path | None, names: Sequence[str], script: str) -> None:
        self.path, self.names, self.script = path, names, script
        self.rows = self._read() if path else []

    def _read(self) -> list[Row]:
        return read_rows(self.path, self.names, self.script) if self.path else self.rows

    def missing(self, jobs: Sequence[Row], refresh: bool = False) -> list[Row]:
        """The jobs without a row, or all of them."""
        known = {key(row, self.names) for row in self.rows}
        return [job for job in jobs if refresh or key(job, self.names) not in known]

    def add(self, row: Row) -> None:
        """Keep a row; another run may have added some to the same file meanwhile."""
        self.rows = with_row(self._read(), row, self.names)
        if self.path:
            write_rows(self.path, self.rows)


def measure_all(
    script: str | Path,
    jobs: Sequence[Row],
    threads: int,
    kept: Rows,
    console: Console,
    label: Callable[[Row], str],
    tell: Callable[[Row], str],
) -> int:
    """Measure every job in a process of its own, with a line for each; the number of those that failed.

    Parameters
    ----------
    script, threads
        As for `run_row`.
    jobs
        What to measure.
    kept
        Takes the rows.
    label, tell
        What a job is called, and what is said of its row.
    """
    failed = 0
    for index, job in enumerate(jobs, 1):
        start = time.perf_counter()
        try:
            row = run_row(script, job, threads, label(job))
        except BenchmarkError as error:
            failed += 1
            text = f"failed: {error}"
        else:
            kept.add(row)
            text = f"{label(job)}: {tell(row)}; {time.perf_counter() - start:.0f} s"
        console.print(f"[{index}/{len(jobs)}] {text}", markup=False, highlight=False)
    return failed


@dataclass(frozen=True)
class Script:
    """A script whose rows are all measured in one way.

    Parameters
    ----------
    file, name
        The script, and what errors call it.
    key
        What makes two rows the same measurement.
    jobs_of
        The rows to measure, from the options.
    label, brief
        What a job is called, and what is said of its row.
    show
        Prints the table of all rows, and writes it beside the output.
    """

    file: str
    name: str
    key: Sequence[str]
    jobs_of: Callable[[argparse.Namespace], list[Row]]
    label: Callable[[Row], str]
    brief: Callable[[Row], str]
    show: Callable[[Console, list[Row], Path | None], None]

    def run(self, options: argparse.Namespace, console: Console) -> int:
        """Measure what is missing, print a line for each row, then the table; the number of failed rows."""
        kept = Rows(options.output, self.key, self.name)
        todo = kept.missing(self.jobs_of(options), options.refresh)
        failed = measure_all(self.file, todo, options.threads, kept, console, self.label, self.brief)
        self.show(console, kept.rows, options.output)
        return failed


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options that a `Script` reads itself."""
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--refresh", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--row", help=argparse.SUPPRESS)


def wide_console(width: int) -> Console:
    """A console of at least that width, so that no column of a table is cut."""
    console = Console()
    return console if console.is_terminal and console.width >= width else Console(width=width)


def run_script(
    options: argparse.Namespace, measure: Callable[[Row], Row], run: Callable[..., int], console: Console
) -> int:
    """What a script does once its options are read; its exit code.

    With `options.row` it measures that row for the process that asked for it (see `run_row`), else all of them: 0 if
    every row could be measured, 1 if some could not, 2 for an error, which is printed.
    """
    if options.row:
        torch.set_num_threads(options.threads)
        sys.stdout.write(json.dumps(measure(json.loads(options.row))) + "\n")
        return 0
    try:
        return 1 if run(options, console) else 0
    except NisamplerError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        return 2


def median(rows: list[Row], name: str) -> float:
    """Median of one figure over the seeds."""
    return float(statistics.median(row[name] for row in rows))


def markdown(title: str, text: Sequence[str], columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A page with a table between the first text and the others."""
    body = [f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *lines)]
    rest = [part for paragraph in text[1:] for part in ("", paragraph)]
    return "\n".join([f"# {title}", "", text[0], "", *body, *rest]) + "\n"
