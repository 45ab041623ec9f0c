"""Seconds to unweighted events, training included: nisampler, its VEGAS alone, the vegas package and madnis.

    pip install ".[bench,shower,sm]"
    python benchmarks/end_to_end.py --output benchmarks/results/end_to_end.json

All methods use the same integrand, the same rule for the number of integration points and the same maximal weight:
0.1 % of the integral lies in weights above it. A slowed integrand is charged for every call; while nisampler measures
what a call costs, the processor is really kept busy for so long. Every row runs in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from event_chains import CHAINS, GRID, MADNIS, METHODS, OURS, PEERS, VEGAS, Stopwatch, warm_up
from measurements import Row, Script, add_output_options, key, markdown, median, run_script, wide_console
from rich.console import Console
from rich.table import Table
from slowed import Slowed

from nisampler.errors import ConfigError
from nisampler.processes.base import Process
from nisampler.processes.registry import create

SCRIPT = "benchmarks/end_to_end.py"
KEY = ("case", "microseconds", "method", "calls", "events", "seed", "threads")
PHASES = ("training", "integration", "generation")
# The functions and processes, and those that are measured with a slowed integrand too.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gauss4": ("gauss4", {}),
    "camel8": ("camel8", {}),
    "ee_to_3jets": ("ee_to_3jets", {}),
    "w_plus_0": ("w_plus_jets", {"n_jets": 0}),
    "w_plus_1": ("w_plus_jets", {"n_jets": 1}),
    "w_plus_2": ("w_plus_jets", {"n_jets": 2}),
}
SLOWED = ("camel8", "w_plus_2")
COLUMNS = (
    "case",
    "us/call",
    "method",
    "budget",
    "training",
    "integration",
    "generation",
    "CPU-s",
    "wall s",
    "1000 calls",
    "0.1 %",
    "overweight",
    "chosen",
    "CPU ratio",
    "wall ratio",
    "seeds",
)
NOTE = (
    "Medians over the seeds, to the same number of events. training, integration, generation: CPU-seconds, those "
    "charged for a slowed integrand included, as in CPU-s and wall s. budget: most integrand calls of the training; of "
    "several budgets of a peer the quickest is shown. 1000 calls: of each phase. 0.1 %: unweighting efficiency in the "
    "generation. overweight: share of the events' weights that is excess over the maximum. chosen: by nisampler. CPU "
    "ratio, wall ratio: seconds over those of nisampler on the same case. In brackets: extrapolated from fewer events."
)
# Least ratios to nisampler that are promised: madnis and VEGAS everywhere, VEGAS where a call takes 100 microseconds.
AIM_MADNIS, AIM_VEGAS, AIM_SLOWED = 3.0, 0.95, 5.0
_WIDTH = 230
# A chain that takes fewer CPU-seconds is run so many times.
_SHORT, _REPEATS = 3.0, 5


def measure(job: dict[str, Any]) -> Row:
    """One row in this process; what has to be done once for a process is not timed.

    What is over within `_SHORT` seconds is done several times, and the one with the median time counts.
    """
    name, card = CASES[job["case"]]
    process = create(name, **card)
    process(torch.full((2, process.dim), 0.5, dtype=torch.float64))
    warm_up(job["method"], job)
    found = [chain(process, job)]
    while found[0]["cpu"] < _SHORT and len(found) < _REPEATS:
        found.append(chain(process, job))
    packages = ["nisampler", *([job["method"]] if job["method"] in PEERS else [])]
    middle = sorted(found, key=lambda run: float(run["cpu"]))[len(found) // 2]
    return job | middle | {"versions": {name: version(name) for name in packages}}


def chain(process: Process, job: Row) -> Row:
    """From the integrand to the events once, with the seconds of each phase and of all of them."""
    function = Slowed(process, 1e-6 * job["microseconds"])
    watch = Stopwatch(function)
    found = CHAINS[job["method"]](function, job, watch)
    for quantity in watch.phases["generation"]:
        watch.phases["generation"][quantity] *= job["events"] / found["generated"]
    whole = {name: sum(watch.phases[phase][name] for phase in PHASES) for name in ("cpu", "wall")}
    whole |= {f"{phase}_cpu": watch.phases[phase]["cpu"] for phase in PHASES}
    return found | whole | {"phases": watch.phases, "efficiency": found["generated"] / found["trials"]}


Group = list[Row]


def groups_of(rows: Sequence[Row]) -> dict[tuple[str, float, int], dict[str, Group]]:
    """For each case, price of a call and number of events: the rows of each method, of a peer with its best budget."""
    found: dict[tuple[str, float, int], dict[str, Group]] = {}
    order = sorted(rows, key=lambda row: (row["events"], row["microseconds"], list(CASES).index(row["case"])))
    for row in order:
        mine = found.setdefault((row["case"], row["microseconds"], row["events"]), {})
        if row["method"] in mine:
            continue
        same = [
            other for other in order if key(other, KEY[:3]) == key(row, KEY[:3]) and other["events"] == row["events"]
        ]
        budgets = [[other for other in same if other["calls"] == calls] for calls in {other["calls"] for other in same}]
        mine[row["method"]] = min(budgets, key=lambda group: median(group, "cpu"))
    return found


def against(groups: dict[str, Group], method: str, clock: str) -> float | None:
    """Seconds of a method over those of nisampler: the median over the seeds that both have, if there are any."""
    ours, theirs = ({row["seed"]: float(row[clock]) for row in groups.get(name, [])} for name in (OURS, method))
    ratios = [theirs[seed] / ours[seed] for seed in ours.keys() & theirs.keys()]
    return statistics.median(ratios) if ratios else None


def lines_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each case and method."""
    lines: list[tuple[str, ...]] = []
    for (case, microseconds, _), groups in groups_of(rows).items():
        for method in METHODS:
            if method not in groups:
                continue
            group = groups[method]
            cut = "({})" if any(row["generated"] < row["events"] for row in group) else "{}"
            ratios = (against(groups, method, clock) for clock in ("cpu", "wall"))
            lines.append(
                (
                    case,
                    f"{microseconds:g}",
                    method,
                    f"{group[0]['calls']:,}",
                    *(f"{median(group, f'{phase}_cpu'):.3g}" for phase in PHASES[:2]),
                    *(cut.format(f"{median(group, name):.3g}") for name in ("generation_cpu", "cpu", "wall")),
                    _calls(group),
                    f"{median(group, 'efficiency'):.3g}",
                    f"{median(group, 'overweight'):.1e}",
                    group[0]["chosen"],
                    *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                    str(len(group)),
                )
            )
    return lines


def _calls(group: Group) -> str:
    return "+".join(f"{1e-3 * sorted(row['phases'][p]['calls'] for row in group)[len(group) // 2]:.0f}" for p in PHASES)


def acceptance(rows: Sequence[Row]) -> str:
    """The least ratios over all cases, beside what is promised."""
    found: dict[str, tuple[float, str]] = {}
    for (case, microseconds, _), groups in groups_of(rows).items():
        for method in (GRID, VEGAS, MADNIS):
            value = against(groups, method, "cpu")
            if value is None:
                continue
            for name in (method, f"{method} slowed") if microseconds else (method,):
                found[name] = min(found.get(name, (math.inf, "")), (value, case))
    aims = {MADNIS: AIM_MADNIS, GRID: AIM_VEGAS, VEGAS: AIM_VEGAS}
    aims |= {f"{method} slowed": AIM_SLOWED for method in (GRID, VEGAS)}
    said = [
        f"against {name} at least {found[name][0]:.2f} ({found[name][1]}) of {aim:g}, "
        f"{'met' if found[name][0] >= aim else 'not met'}"
        for name, aim in aims.items()
        if name in found
    ]
    return f"Aims, in CPU-seconds: {'; '.join(said)}." if said else ""


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    lines = lines_of(rows)
    if not lines:
        return
    events = "/".join(f"{number:,}" for number in sorted({row["events"] for row in rows}))
    title = f"Seconds to {events} unweighted events at 0.1 % overweight"
    table = Table(title=title, caption=NOTE)
    for name in COLUMNS:
        left, long = name in ("case", "method", "chosen"), name == "chosen"
        table.add_column(name, justify="left" if left else "right", no_wrap=not long, max_width=50 if long else None)
    for index, line in enumerate(lines):
        last = index + 1 == len(lines) or lines[index + 1][:2] != line[:2]
        table.add_row(*line, end_section=last, style="bold" if line[2] == OURS else None)
    console.print(table)
    places = ", ".join(sorted({f"{row['hardware']}, {row['threads']} thread(s)" for row in rows}))
    versions = ", ".join(sorted({f"{name} {number}" for row in rows for name, number in row["versions"].items()}))
    dates = sorted({row["date"][:10] for row in rows})
    text = f"{places}; {versions}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    texts = [text, *filter(None, [acceptance(rows)]), NOTE]
    for part in texts[:-1]:
        console.print(part, markup=False, highlight=False)
    if output:
        output.with_suffix(".md").write_text(markdown(title, texts, COLUMNS, lines), encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Seconds to unweighted events, training included.")
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--slowed", nargs="*", default=list(SLOWED), choices=list(CASES), help="measured slowed too")
    parser.add_argument("--microseconds", type=float, default=100.0, help="of each call of a slowed integrand")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--patience", type=float, default=120.0, help="seconds of a generation; then extrapolate")
    parser.add_argument("--limit", type=int, default=1_000_000, help="most calls of nisampler's training")
    parser.add_argument("--calls", nargs="+", type=int, default=[100_000, 1_000_000], help="budgets of the peers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure, cheap integrands first.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    numbers = [options.events, options.threads, *options.seeds]
    if min(numbers) < 1 or min(options.microseconds, options.patience) <= 0:
        raise ConfigError("events, threads, seeds, microseconds and patience must be positive")
    if min(options.limit, *options.calls) < 5000:
        raise ConfigError(f"budgets must be at least 5000 calls, got {min(options.limit, *options.calls)}")
    cases = [(0.0, case) for case in options.case]
    cases += [(options.microseconds, case) for case in options.case if case in options.slowed]
    common = {"events": options.events, "patience": options.patience, "threads": options.threads}
    return [
        {"case": case, "microseconds": price, "method": method, "calls": calls, "seed": seed} | common
        for price, case in cases
        for seed in options.seeds
        for method in METHODS
        if method in options.methods
        for calls in (sorted(set(options.calls)) if method in PEERS else [options.limit])
    ]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['case']}, {job['microseconds']:g} us, {job['method']}, {job['calls']} calls, seed {job['seed']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return f"{row['cpu']:.3g} CPU-s, {row['wall']:.3g} s, efficiency {row['efficiency']:.3g} {row['chosen']}"


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
