"""CPU-seconds to the same error, and to the same number of events, beside the vegas package, for budgets of every size.

    pip install ".[bench]"
    python benchmarks/budgets.py --output benchmarks/results/budgets.json

Each function and budget is measured in a process of its own, warm, by nisampler with its default choice and by vegas in
turns. vegas adapts with a half of the calls, in five or in ten iterations, whichever reaches an error sooner, takes
its points in batches, and unweights those of its adapted map.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vegas
from event_chains import CHAINS, OURS, VEGAS, Stopwatch
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from slowed import Slowed
from torch import Tensor

import nisampler
from nisampler.base import tuning
from nisampler.processes.base import CallableProcess, FunctionProcess, Process
from nisampler.processes.functions.functions import genz
from nisampler.processes.registry import create

SCRIPT = "benchmarks/budgets.py"
KEY = ("aim", "function", "budget", "threads")
FUNCTIONS = (
    *("gauss1", "gauss2", "gauss4", "gauss8", "gauss16", "camel2", "camel4", "camel8"),
    *("circles2", "annulus", "poly18", "ridge2", "ridge4", "ridge8"),
    *("oscillatory5", "product_peak5", "corner_peak5", "gaussian5", "continuous5", "discontinuous5"),
    *("three integrals", "one point"),
)
EVENTS = ("gauss4", "camel8", "w_plus_0", "gauss2", "camel4", "circles2", "annulus", "ridge4")
BUDGETS = (200, 1000, 10_000, 100_000, 1_000_000)
# What a job may take besides, and how many times what vegas takes.
SLACK, LAW = 0.1, 1.5
# Iterations of vegas; runs of each, fewer where one takes long.
ITERATIONS, RUNS, LONG = (5, 10), 7, 5.0
COLUMNS = ("function", "budget", "CPU-s", "error", "vegas", "error", "vegas to it", "ratio", "beyond .1 s", "sampler")
NOTE = (
    "Medians over seeds, CPU-seconds in a warm process. budget: integrand calls in all, or events; error: relative, as "
    "it is quoted. vegas to it: what vegas takes to the error of nisampler, as its square falls with the calls, or to "
    "the events. ratio: CPU-s over that. beyond .1 s: the same for what is left of CPU-s after .1 s. vegas: the better "
    "of 5 and 10 iterations, of 100,000 and 1,000,000 calls before events."
)
_WIDTH = 150


def ridge(dim: int) -> Process:
    """A narrow ridge along a diagonal, which no grid can follow."""

    def function(x: Tensor) -> Tensor:
        return torch.exp(-200.0 * (x.sum(1) - 0.5 * dim) ** 2)

    function.dim, function.seconds_per_call = dim, tuning.LEAST_CALL["torch"]  # type: ignore[attr-defined]
    return CallableProcess(function, f"ridge{dim}")


def process_of(name: str) -> Process:
    """The function of a row as a process."""
    family, dim = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz_") or 0)
    if name == "w_plus_0":
        return create("w_plus_jets", n_jets=0)
    if family == "ridge":
        return ridge(dim)
    if family in ("oscillatory", "product_peak", "corner_peak", "gaussian", "continuous", "discontinuous"):
        return FunctionProcess(genz(family, dim))  # type: ignore[arg-type]
    return create(name)


def integrands(name: str) -> tuple[Callable[..., Any], Any, int]:
    """What nisampler gets, what vegas gets, and the number of coordinates."""
    if name == "one point":

        def point(x: Any) -> float:
            return math.exp(-25.0 * ((x[0] - 0.5) ** 2 + (x[1] - 0.5) ** 2))

        return point, point, 2
    if name == "three integrals":

        def moments(x: Any) -> dict[str, Any]:
            f = np.exp(-25.0 * ((x - 0.5) ** 2).sum(1))
            return {"norm": f, "x": f * x[:, 0], "x2": f * x[:, 0] ** 2}

        return moments, vegas.lbatchintegrand(moments), 4
    process = process_of(name)
    whole = vegas.lbatchintegrand(lambda x: process(torch.from_numpy(np.array(x))).numpy())
    return process, whole, process.dim


def by_nisampler(name: str, calls: int, seed: int) -> tuple[float, str]:
    """Relative error, and the sampler that was chosen."""
    function, _, dim = integrands(name)
    kind: Any = {"three integrals": "numpy", "one point": "scalar"}.get(name, "torch")
    integrand = nisampler.Integrand(function, dim, kind=kind)
    result = nisampler.integrate(integrand, calls=calls, seed=seed, progress=False)
    return result.estimate.relative_error, result.sampler.describe()


def by_vegas(name: str, calls: int, seed: int, iterations: int) -> float:
    """Relative error after a half of the calls for adaptation."""
    _, function, dim = integrands(name)
    random = np.random.default_rng(seed)
    integrator = vegas.Integrator([[0.0, 1.0]] * dim, ran_array_generator=random.random)
    number = max(2, calls // (2 * iterations))
    integrator(function, nitn=iterations, neval=number)
    found = integrator(function, nitn=iterations, neval=number)
    first = found["norm"] if name == "three integrals" else found
    return float(first.sdev / abs(first.mean))


def measure(job: Row) -> Row:
    """One row in this process, after a small job of each kind."""
    measured = to_error(job) if job["aim"] == "error" else to_events(job)
    return job | measured | {"versions": {name: version(name) for name in ("nisampler", "vegas")}}


def to_error(job: Row) -> Row:
    """CPU-seconds and errors of both at the same number of calls."""
    name, calls = job["function"], job["budget"]
    by_nisampler(name, 1000, 0)
    by_vegas(name, 1000, 0, ITERATIONS[0])
    ours: list[tuple[float, float]] = []
    theirs: dict[int, list[tuple[float, float]]] = {iterations: [] for iterations in ITERATIONS}
    begin, sampler = time.process_time(), ""
    for seed in range(1, RUNS + 1):
        start = time.process_time()
        error, sampler = by_nisampler(name, calls, seed)
        ours.append((time.process_time() - start, error))
        for iterations, found in theirs.items():
            start = time.process_time()
            error = by_vegas(name, calls, seed, iterations)
            found.append((time.process_time() - start, error))
        if (time.process_time() > begin + LONG and seed >= 3) or time.process_time() > begin + 10 * LONG:
            break
    seconds, error = medians(ours)
    peer = min((medians(found) for found in theirs.values()), key=lambda pair: pair[0] * pair[1] ** 2)
    reached = peer[0] * (peer[1] / error) ** 2 if error else math.inf
    figures = {"seconds": seconds, "error": error, "peer": peer[0], "peer_error": peer[1], "to": reached}
    return figures | {"sampler": sampler}


def to_events(job: Row) -> Row:
    """CPU-seconds of both to the same number of events."""
    process = process_of(job["function"])
    process(torch.full((2, process.dim), 0.5, dtype=torch.float64))
    common = {"events": job["budget"], "threads": 1, "patience": 1e9, "microseconds": 0.0}
    methods = [(OURS, 1_000_000), (VEGAS, 100_000), (VEGAS, 1_000_000)]
    times: dict[tuple[str, int], list[float]] = {method: [] for method in methods}
    chain(Slowed(create("gauss2")), OURS, {**common, "events": 100, "seed": 0, "calls": 5000})
    begin, sampler = time.process_time(), ""
    for seed in range(1, RUNS + 1):
        for method, calls in methods:
            found = chain(Slowed(process), method, {**common, "method": method, "seed": seed, "calls": calls})
            times[method, calls].append(found["cpu"])
            sampler = found["chosen"] or sampler
        if time.process_time() > begin + 4 * LONG:
            break
    seconds, *peers = (statistics.median(found) for found in times.values())
    figures = {"seconds": seconds, "error": None, "peer": min(peers), "peer_error": None, "to": min(peers)}
    return figures | {"sampler": sampler}


def chain(function: Slowed, method: str, job: Row) -> Row:
    """From the function to the events, with the CPU-seconds of it."""
    watch = Stopwatch(function)
    found = CHAINS[method](function, {"method": method, **job}, watch)
    return found | {"cpu": sum(phase["cpu"] for phase in watch.phases.values())}


def medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of seconds and errors."""
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def ratios(row: Row) -> tuple[float, float]:
    """Seconds over those of vegas, with all of them and beyond the slack."""
    return row["seconds"] / row["to"], max(0.0, row["seconds"] - SLACK) / row["to"]


def worst(rows: list[Row], aim: str) -> str:
    """The largest ratios of the rows with this aim, in words."""
    named = {f"{row['function']}, {row['budget']:,}": ratios(row) for row in rows if row["aim"] == aim}
    if not named:
        return ""
    whole, beyond = (max(named, key=lambda name: named[name][part]) for part in (0, 1))
    kept = "kept" if named[beyond][1] <= LAW else "not kept"
    same = {"error": "error", "events": "number of events"}[aim]
    return (
        f"To the same {same}: at most {named[beyond][1]:.2f} times vegas beyond {SLACK} s ({beyond}), the aim of {LAW} "
        f"is {kept}; with all seconds at most {named[whole][0]:.1f} times vegas ({whole})."
    )


def lines_of(rows: list[Row]) -> list[tuple[str, ...]]:
    """The lines of the table, those of errors first."""
    order = {name: place for place, name in enumerate([*FUNCTIONS, *EVENTS])}
    found = []
    for row in sorted(rows, key=lambda row: (row["aim"] != "error", order.get(row["function"], 99), row["budget"])):
        whole, beyond = ratios(row)
        errors = ["" if row[name] is None else f"{row[name]:.1e}" for name in ("error", "peer_error")]
        budget = f"{row['budget']:,}{' events' if row['aim'] == 'events' else ''}"
        cells = (f"{row['seconds']:.3g}", errors[0], f"{row['peer']:.3g}", errors[1], f"{row['to']:.3g}")
        found.append((row["function"], budget, *cells, f"{whole:.2g}", f"{beyond:.2f}", row["sampler"]))
    return found


def show(console: Console, rows: list[Row], output: Path | None) -> None:
    """Print the worst ratios, and write the table beside the output."""
    claims = [text for text in (worst(rows, "error"), worst(rows, "events")) if text]
    for text in claims:
        console.print(text, highlight=False)
    if output and rows:
        versions = sorted({f"{name} {number}" for row in rows for name, number in row["versions"].items()})
        dates = sorted({row["date"][:10] for row in rows})
        machines = "; ".join(sorted({row["hardware"] for row in rows}))
        head = f"{machines}, one thread; {', '.join(versions)}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
        page = markdown("Small and large budgets beside vegas", (head, *claims, NOTE), COLUMNS, lines_of(rows))
        output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="CPU-seconds to an error and to events, beside the vegas package.")
    parser.add_argument("--functions", nargs="*", default=list(FUNCTIONS))
    parser.add_argument("--budgets", nargs="*", type=int, default=list(BUDGETS), help="integrand calls")
    parser.add_argument("--events", nargs="*", type=int, default=[1000, 100_000], help="numbers of events")
    parser.add_argument("--event-functions", nargs="*", default=list(EVENTS))
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure."""
    pairs = [("error", name, budget) for name in options.functions for budget in options.budgets]
    pairs += [("events", name, budget) for name in options.event_functions for budget in options.events]
    return [dict(zip(KEY, (*pair, options.threads), strict=True)) for pair in pairs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    script = Script(
        file=__file__,
        name=SCRIPT,
        key=KEY,
        jobs_of=jobs_of,
        label=lambda row: f"{row['function']}, {row['budget']:,} for the {row['aim']}",
        brief=lambda row: "{:.2g} times vegas, {:.2f} beyond .1 s".format(*ratios(row)),
        show=show,
    )
    return run_script(parse(arguments), measure, script.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
