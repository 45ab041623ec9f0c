"""How time and memory grow with dimensions, batch, channels and events.

    python benchmarks/growth.py --output benchmarks/results/growth.json

Every row runs in a process of its own, whose largest resident memory tells what its work needed beyond the libraries.
Exponents p of time ~ n^p are fitted to the larger half of each series, where fixed costs matter less.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flow_libraries import FlowShape, build
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from roofline import seconds_of

from nisampler import IntegrationConfig, TrainingConfig, integrate
from nisampler.errors import ConfigError
from nisampler.flows import GroupedFlow
from nisampler.processes.registry import create

SCRIPT = "benchmarks/growth.py"
# What grows, and what is done with it.
SERIES = {
    "dim": ("sample", "backward"),
    "batch": ("sample", "backward"),
    "channels": ("sample", "backward"),
    "events": ("unweight",),
}
KEY = ("axis", "value", "operation", "threads")
COLUMNS = ("axis", "operation", "value", "CPU-s", "unit", "MB", "p(time)", "p(memory)")
NOTE = (
    "CPU-s: median of one operation. unit: for each sample, or for each event. MB: largest resident memory less that "
    "after a small operation of the same kind. p: fitted exponents of the larger half of the series. dim, batch, "
    "channels: coupling flows with 3x64 networks and 10 bins, in {dim} dimensions with a batch of {batch} where these "
    "do not grow; sample without gradients, backward: log_prob and all gradients. channels: one grouped flow, the "
    "batch spread evenly. events: unweighting of {function} with VEGAS."
)
_WIDTH = 120
_FEW = 16
_MEGABYTE = 1e6
_PAGES = 1024 if sys.platform != "darwin" else 1


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PAGES


def operation_of(job: Row) -> Callable[[int], object]:
    """What is measured of a job, as a function of the number of samples or events."""
    if job["axis"] == "events":
        result = integrate(
            create(job["function"]),
            seed=1,
            device="cpu",
            training=TrainingConfig(calls=20_000, sampler="vegas"),
            integration=IntegrationConfig(points=20_000),
        )
        return lambda n: result.unweight(n)
    dim = job["value"] if job["axis"] == "dim" else job["dim"]
    x = torch.rand(size_of(job), dim, generator=torch.Generator().manual_seed(1))
    if job["axis"] != "channels":
        flow = build("nisampler", FlowShape(dim))
        if job["operation"] == "sample":
            return _frozen(flow.sample)
        return _gradient(flow.module, lambda n: flow.log_prob(x[:n]))
    grouped = GroupedFlow(dim, job["value"], generator=torch.Generator().manual_seed(1))
    group = torch.arange(len(x)) % job["value"]
    if job["operation"] == "sample":
        return _frozen(lambda n: grouped.sample(group[:n], torch.Generator().manual_seed(2)))
    return _gradient(grouped, lambda n: grouped.log_prob(x[:n], group[:n]))


def size_of(job: Row) -> int:
    """Number of samples or events of an operation."""
    return int(job["value"] if job["axis"] in ("batch", "events") else job["batch"])


def _frozen(action: Callable[[int], object]) -> Callable[[int], object]:
    def run(n: int) -> None:
        with torch.inference_mode():
            action(n)

    return run


def _gradient(module: torch.nn.Module, log_prob: Callable[[int], torch.Tensor]) -> Callable[[int], object]:
    def run(n: int) -> None:
        module.zero_grad(set_to_none=True)
        log_prob(n).mean().backward()  # type: ignore[no-untyped-call]

    return run


def measure(job: dict[str, Any]) -> Row:
    """One row in this process: the memory of the first run, the time of the later ones."""
    operation, size = operation_of(job), size_of(job)
    # whatever is loaded or compiled at the first use
    operation(_FEW)
    before = peak_bytes()
    start = time.process_time()
    operation(size)
    first = time.process_time() - start
    memory = peak_bytes() - before
    repeats = max(0, min(job["repeats"], int(job["budget"] / max(first, 1e-9))))
    times = [seconds_of(lambda: operation(size), "cpu") for _ in range(repeats)] or [first]
    return job | {"seconds": statistics.median(times), "bytes": memory, "base": before, "torch": torch.__version__}


def exponent(rows: Sequence[Row], name: str) -> float | None:
    """p of the least-squares line log(figure) = p log(value) + const through the larger half of a series."""
    chosen = sorted((row for row in rows if row[name] > 0), key=lambda row: float(row["value"]))
    chosen = chosen[-max(3, math.ceil(len(chosen) / 2)) :]
    if len(chosen) < 2 or chosen[0]["value"] == chosen[-1]["value"]:
        return None
    fit = statistics.linear_regression([math.log(r["value"]) for r in chosen], [math.log(r[name]) for r in chosen])
    return fit.slope


def lines_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each measurement; exponents on the last one of a series."""
    lines: list[tuple[str, ...]] = []
    for axis, operations in SERIES.items():
        for operation in operations:
            series = [row for row in rows if (row["axis"], row["operation"]) == (axis, operation)]
            series.sort(key=lambda row: float(row["value"]))
            fitted = [exponent(series, name) for name in ("seconds", "bytes")]
            for row in series:
                said = ["" if row is not series[-1] or p is None else f"{p:.2f}" for p in fitted]
                each = f"{1e9 * row['seconds'] / size_of(row):.0f} ns"
                figures = (f"{row['value']:,}", f"{row['seconds']:.3g}", each, f"{row['bytes'] / _MEGABYTE:.0f}")
                lines.append((axis, operation, *figures, *said))
    return lines


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    lines = lines_of(rows)
    if not lines:
        return
    title = "Growth of time and memory"
    note = NOTE.format(**{name: rows[0][name] for name in ("dim", "batch", "function")})
    table = Table(title=title, caption=note)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("axis", "operation") else "right", no_wrap=True)
    for index, line in enumerate(lines):
        table.add_row(*line, end_section=index + 1 == len(lines) or lines[index + 1][:2] != line[:2])
    console.print(table)
    places = ", ".join(sorted({f"{row['hardware']}, {row['threads']} thread(s)" for row in rows}))
    dates = sorted({row["date"][:10] for row in rows})
    text = f"{places}; torch {'/'.join(sorted({row['torch'] for row in rows}))}; "
    text += f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    console.print(text, markup=False, highlight=False)
    if output:
        output.with_suffix(".md").write_text(markdown(title, (text, note), COLUMNS, lines), encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Growth of time and memory.")
    parser.add_argument("--axis", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--dims", nargs="+", type=int, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--batches", nargs="+", type=int, default=[100, 1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--channels", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--events", nargs="+", type=int, default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=8, help="dimensions where they do not grow")
    parser.add_argument("--batch", type=int, default=10_000, help="batch where it does not grow")
    parser.add_argument("--largest", type=int, default=100_000, help="largest batch with gradients")
    parser.add_argument("--function", default="gauss4", help="what is unweighted")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for the repeats of a row")
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    values = {"dim": options.dims, "batch": options.batches, "channels": options.channels, "events": options.events}
    common = {name: getattr(options, name) for name in ("dim", "batch", "function", "repeats", "budget", "threads")}
    numbers = [number for row in values.values() for number in row]
    if min(*numbers, options.largest, *(value for value in common.values() if not isinstance(value, str))) <= 0:
        raise ConfigError("every number must be positive")
    return [
        common | {"axis": axis, "value": value, "operation": operation}
        for axis in options.axis
        for operation in SERIES[axis]
        for value in sorted(set(values[axis]))
        if not (axis == "batch" and operation == "backward" and value > options.largest)
    ]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['axis']} {job['value']}, {job['operation']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return f"{row['seconds']:.3g} CPU-s, {row['bytes'] / _MEGABYTE:.0f} MB"


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
