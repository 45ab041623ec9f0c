"""Two-stage against plain unweighting with a costly matrix element: calls per event, and the same distributions.

    pip install ".[shower,sm]" && python benchmarks/two_stage.py --output benchmarks/results/two_stage.json

Both make the events from the same frozen sampler at the same overweight. Calls are matrix elements inside the cuts,
each charged a fixed time, one millisecond by default, on top of the CPU time of everything else. The observables of the
two sets of events are compared by χ²; the events of a hasty surrogate are compared with and without its second stage,
so that the comparison is seen to find a wrong distribution.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measurements import Row, Rows, key, markdown, measure_all, median, run_script
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats as scipy_stats
from torch import Tensor

from nisampler import Integrand, IntegrationConfig, TrainingConfig, UnweightingConfig
from nisampler.base.rng import Streams
from nisampler.errors import ConfigError
from nisampler.integration.integrator import Integrator
from nisampler.processes.base import Process
from nisampler.processes.registry import create
from nisampler.training.trainer import Trainer
from nisampler.unweighting.surrogate import SurrogateConfig
from nisampler.unweighting.two_stage import StageCosts, TwoStageUnweighter, prepare_two_stage
from nisampler.unweighting.unweighter import Efficiencies, UnweightedPoints, Unweighter

SCRIPT = "benchmarks/two_stage.py"
KEY = ("process", "jets", "calls", "points", "events", "seed", "milliseconds")
METHODS = ("one stage", "two stages", "hasty surrogate")
CONTROL = "its first stage alone"
COLUMNS = (
    "events by",
    "calls/event",
    "fewer calls",
    "s/event",
    "faster",
    "above max, %",
    "least p",
    "median p",
    "seeds",
)
NOTE = (
    "Medians over the seeds. calls/event: matrix elements inside the cuts. s/event: CPU-seconds with their charge; "
    "faster: with the preparation of the surrogate spread over the events. above max: part of the events' weight that "
    "exceeds one. p: of the χ² of each observable against the events of one stage, which must not be below 0.001 for "
    "the first three; the last line, events that only the surrogate has chosen, is the negative control and must be."
)
# Training steps of the hasty surrogate; fewest entries of a bin that is compared; points drawn at once.
_HASTY, _FEWEST, _BATCH = 300, 20, 8192


def p_value(first: NDArray[np.float64], second: NDArray[np.float64], edges: NDArray[np.float64], *w: Tensor) -> float:
    """p-value of the χ² between two weighted histograms, each normalised to one, in the bins that both fill."""
    weights = [part.numpy() for part in w]
    samples = list(zip((first, second), weights, strict=True))
    count = [np.histogram(x, edges)[0] for x, _ in samples]
    used = (count[0] >= _FEWEST) & (count[1] >= _FEWEST)
    total = [np.histogram(x, edges, weights=v)[0][used] for x, v in samples]
    square = [np.histogram(x, edges, weights=v**2)[0][used] for x, v in samples]
    shape = [part / part.sum() for part in total]
    variance = sum(part / whole.sum() ** 2 for part, whole in zip(square, total, strict=True))
    chi2 = float(((shape[0] - shape[1]) ** 2 / variance).sum())
    return float(scipy_stats.chi2.sf(chi2, max(1, int(used.sum()) - 1)))


def values_of(process: Process, points: UnweightedPoints, seed: int) -> dict[str, NDArray[np.float64]]:
    """The observables of these events by name; the coordinates of a process without events."""
    if not process.has_events:
        return {f"x{k}": points.u[:, k].numpy() for k in range(process.dim)}
    batch = process.events(points.u, points.weights, torch.Generator().manual_seed(seed))
    return {observable.name: observable(batch) for observable in process.observables}


def edges_of(process: Process) -> dict[str, NDArray[np.float64]]:
    """Edges of the bins of every observable."""
    if not process.has_events:
        return {f"x{k}": np.linspace(0.0, 1.0, 41) for k in range(process.dim)}
    return {observable.name: observable.edges() for observable in process.observables}


def first_stage(tool: TwoStageUnweighter, n: int, generator: torch.Generator) -> UnweightedPoints:
    """n points that pass the first stage, with unit weights: they follow the surrogate."""
    kept: list[Tensor] = []
    while sum(map(len, kept)) < n:
        x, log_q = tool.sampler.sample(_BATCH, generator)
        threshold = torch.rand(_BATCH, generator=generator, dtype=torch.float64) * tool.max_surrogate
        kept.append(x[threshold < tool.surrogate(x, log_q)])
    chosen = torch.cat(kept)
    inside = chosen[tool.integrand(chosen) != 0.0][:n]
    return UnweightedPoints(inside, inside, torch.ones(len(inside), dtype=torch.float64), 0)


def made(tool: Unweighter, n: int, shard: int, charge: float) -> tuple[UnweightedPoints, dict[str, float]]:
    """n events, and what each of them took."""
    counts, start = tool.integrand.counts(), time.process_time()
    points = tool.generate(n, shard)
    seconds, after = time.process_time() - start, tool.integrand.counts()
    calls = sum((after[name] - counts[name]) * sign for name, sign in (("calls", 1), ("zeros", -1)))
    return points, {
        "calls_per_event": calls / n,
        "seconds_per_event": (seconds + charge * calls) / n,
        "overweight": points.overweight_fraction,
    }


def measure(job: Row) -> Row:
    """Train, integrate, and make events in every way."""
    process = create(job["process"], **({} if job["jets"] is None else {"n_jets": job["jets"]}))
    if process.has_events:
        process.prepare_events()
    integrand, streams, charge = Integrand(process), Streams(job["seed"]), 1e-3 * job["milliseconds"]
    sampler = Trainer(integrand, TrainingConfig(calls=job["calls"], events=0), streams).fit().sampler
    integration, config = IntegrationConfig(points=job["points"]), UnweightingConfig()
    weights = Integrator(integrand, sampler, integration, streams).run().weights
    largest = config.max_weight(weights, streams)
    efficiency = Efficiencies.of(weights, largest).chosen
    settings = SurrogateConfig() if job["steps"] is None else SurrogateConfig(steps=job["steps"])
    tools: dict[str, Unweighter] = {METHODS[0]: Unweighter(integrand, sampler, largest, efficiency, streams, config)}
    seconds = {METHODS[0]: 0.0}
    for name, chosen in zip(METHODS[1:], (settings, replace(settings, steps=_HASTY)), strict=True):
        start = time.process_time()
        costs = StageCosts(charge)
        tools[name] = prepare_two_stage(integrand, sampler, weights, costs, streams, integration, config, chosen)
        seconds[name] = time.process_time() - start
    row: Row = {"sampler": sampler.describe(), "results": {}, "gain": tools[METHODS[1]].gain.line()}
    points: dict[str, UnweightedPoints] = {}
    for shard, (name, tool) in enumerate(tools.items()):
        points[name], figures = made(tool, job["events"], shard, charge)
        row["results"][name] = figures | {"preparation": seconds[name]}
    hasty = tools[METHODS[2]]
    points[CONTROL] = first_stage(hasty, job["events"], streams.generator("control"))
    edges = edges_of(process)
    values = {name: values_of(process, part, index) for index, (name, part) in enumerate(points.items())}
    reference = METHODS[0]
    row["p_values"] = {
        name: {
            observable: p_value(
                own[observable], values[reference][observable], edge, part.weights, points[reference].weights
            )
            for observable, edge in edges.items()
        }
        for (name, own), part in zip(values.items(), points.values(), strict=True)
        if name != reference
    }
    return job | row


def passes(row: Row) -> bool:
    """Whether all distributions agree, and the negative control does not."""
    least = {name: min(found.values()) for name, found in row["p_values"].items()}
    return min(least[METHODS[1]], least[METHODS[2]]) > 1e-3 > least[CONTROL]


def table_lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """A line for each way to make events."""
    lines = []
    for name in (*METHODS, CONTROL):
        cells = [""] * 5
        if name != CONTROL:
            found = [
                row["results"][name] | {"events": row["events"], "one": row["results"][METHODS[0]]} for row in rows
            ]
            fewer = [part | {"x": part["one"]["calls_per_event"] / part["calls_per_event"]} for part in found]
            faster = [part | {"x": part["one"]["seconds_per_event"] / _spread(part)} for part in found]
            cells = [
                f"{median(found, 'calls_per_event'):.2f}",
                f"{median(fewer, 'x'):.2f}",
                f"{median(found, 'seconds_per_event'):.5f}",
                f"{median(faster, 'x'):.2f}",
                f"{100 * median(found, 'overweight'):.3f}",
            ]
        p = [list(row["p_values"][name].values()) for row in rows if name in row["p_values"]]
        least = [f"{min(map(min, p)):.2g}", f"{np.median(p):.2g}"] if p else ["", ""]
        lines.append((name, *cells, *least, str(len(rows))))
    return lines


def _spread(part: Row) -> float:
    """Seconds of an event with its part of the preparation."""
    return float(part["seconds_per_event"] + part["preparation"] / part["events"])


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table and every p-value, and write them beside the rows."""
    if not rows:
        return
    first = rows[0]
    jets = "" if first["jets"] is None else f" + {first['jets']} jets"
    title = f"Two-stage unweighting: {first['process']}{jets}, {first['milliseconds']:g} ms a call"
    table = Table(title=title, caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    lines = table_lines(rows)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    names = [name for name in (*METHODS[1:], CONTROL)]
    each = [
        f"seed {row['seed']}, p of {name}: "
        + ", ".join(f"{observable} {p:.2g}" for observable, p in row["p_values"][name].items())
        for row in rows
        for name in names
    ]
    verdict = "all distributions agree and the control fails" if all(map(passes, rows)) else "NOT all as it must be"
    for text in (*each, verdict):
        console.print(text, highlight=False)
    if options.output:
        text = (
            f"{first['events']} events of each kind after {first['calls']} calls of training and {first['points']} of "
            f"integration, {first['sampler']}; {first['hardware']}, {first['threads']} thread(s); {first['date'][:10]}."
        )
        page = markdown(title, (text, NOTE, *each, f"Result: {verdict}."), COLUMNS, lines)
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Two-stage against plain unweighting of a costly matrix element.")
    parser.add_argument("--process", default="w_plus_jets")
    parser.add_argument("--jets", type=int, help="jets beside the boson, for processes that have them")
    parser.add_argument("--calls", type=int, default=200_000, help="calls of the training")
    parser.add_argument("--points", type=int, default=2**18, help="of the integration, from which the surrogate learns")
    parser.add_argument("--events", type=int, default=50_000, help="of each kind")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--milliseconds", type=float, default=1.0, help="time of a matrix element")
    parser.add_argument("--steps", type=int, help="of the training of the surrogate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """A row for each seed.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    for name in ("calls", "points", "events", "threads", "milliseconds"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    settings = (options.process, options.jets, options.calls, options.points, options.events)
    return [
        dict(zip(KEY, (*settings, seed, options.milliseconds), strict=True)) | {"steps": options.steps}
        for seed in options.seeds
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, then the table; the number of failed rows, and of those that are not as they must be."""
    kept, jobs = Rows(options.output, KEY, SCRIPT), jobs_of(options)
    label: Callable[[Row], str] = lambda job: f"seed {job['seed']}"  # noqa: E731
    failed = measure_all(__file__, kept.missing(jobs), options.threads, kept, console, label, lambda row: row["gain"])
    wanted = {key(job, KEY) for job in jobs}
    rows = [row for row in kept.rows if key(row, KEY) in wanted]
    show(console, rows, options)
    return failed + sum(not passes(row) for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured and its distributions are as they must be."""
    return run_script(parse(arguments), measure, run, Console(width=150))


if __name__ == "__main__":
    sys.exit(main())
