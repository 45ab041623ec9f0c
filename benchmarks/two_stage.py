"""Two-stage against plain unweighting: calls and time of an event, what surrogates know, and the same distributions.

    pip install ".[fast,shower]" && python benchmarks/two_stage.py --output benchmarks/results/two_stage.json

All make the events from the same frozen sampler at the same overweight. Calls are matrix elements inside the cuts; each
can be charged a fixed time on top of the CPU time of everything. Surrogates differ in what they know: factors and the
invariants of each matrix element (two stages), nothing but features (features alone, with the larger network and half
the steps that this took before), or that a matrix element is a sum of dipoles with learned coefficients (2301.13562).
The observables are compared by χ² with those of one stage; the events of a hasty surrogate are compared with and
without its second stage, so that the comparison is seen to find a wrong distribution.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
from nisampler.flows.nets.mlp import NetConfig
from nisampler.integration.integrator import Integrator
from nisampler.processes.base import Process
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create
from nisampler.samplers.base import Sampler
from nisampler.training.trainer import Trainer
from nisampler.unweighting.surrogate import Surrogate, SurrogateConfig, SurrogateNet
from nisampler.unweighting.two_stage import StageCosts, TwoStageGain, TwoStageUnweighter, prepare_two_stage
from nisampler.unweighting.unweighter import Efficiencies, UnweightedPoints, Unweighter

SCRIPT = "benchmarks/two_stage.py"
PROCESSES: dict[str, tuple[str, dict[str, Any]]] = {
    "W + 2 jets": ("w_plus_jets", {"n_jets": 2}),
    "W + 3 jets": ("w_plus_jets", {"n_jets": 3}),
    "W + 3 jets, summed": ("w_plus_jets", {"n_jets": 3, "elements": "summed"}),
    "t t~ j j": ("p p > t t~ j j", {}),
    "W + 4 jets": ("p p > e+ ve j j j j", {}),
    "camel2": ("camel2", {}),
}
KEY = ("process", "sampler", "calls", "points", "events", "seed", "milliseconds")
METHODS = ("one stage", "two stages", "features alone", "dipoles", "hasty surrogate")
CONTROL = "its first stage alone"
COLUMNS = (
    "process",
    "events by",
    "passed",
    "accepted",
    "calls/event",
    "fewer calls",
    "ms/event",
    "faster",
    "prepared, s",
    "pays from, us",
    "above max, %",
    "least p",
    "seeds",
)
NOTE = (
    "Medians over the seeds. passed, accepted: shares in the first and the second stage at held-out points. "
    "calls/event: matrix elements inside the cuts. ms/event: CPU-milliseconds with the charge of the calls; faster: "
    "than one stage, without the CPU-seconds that the surrogate was prepared in. pays from: cost of a call from which "
    "on two stages make an event sooner. above max: part of the events' weight that exceeds one. p: least of the χ² of "
    "the observables against the events of one stage, which must not be below 0.001 but in the last line of a process: "
    "events that only the surrogate has chosen are the negative control."
)
# Training steps of the hasty surrogate; fewest entries of a bin that is compared; points drawn at once.
_HASTY, _FEWEST, _BATCH = 100, 20, 8192
_OLD_WIDTH = 128


class FeaturesAlone(Surrogate):
    """A surrogate that is told no factors."""

    def __init__(self, integrand: Integrand, sampler: Sampler, net: SurrogateNet | None = None) -> None:
        super().__init__(integrand, sampler, net)
        if self._function is not None:
            self._function = copy.copy(self._function)
            self._function._factors = None


class DipoleNet(SurrogateNet):
    """log of c_0 + Σ c_ij / s_ij over all pairs of legs, with positive coefficients from the network.

    The invariants are the last features, see `nisampler.processes.discrete.factors.factors_of_choice`.
    """

    pairs = 0

    def __init__(
        self, features: int, kinds: int, config: SurrogateConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(features, kinds, config, generator)
        settings = NetConfig(hidden=config.hidden, layers=config.layers)
        self.net = settings.build(features + kinds, self.pairs + 1, generator or torch.Generator().manual_seed(0))

    def forward(self, features: Tensor, kind: Tensor) -> Tensor:
        """As of a `SurrogateNet`."""
        which = torch.nn.functional.one_hot(kind, self.kinds).to(features.dtype)
        # A feature is log(s) / 2 in units of its spread.
        dipoles = -2.0 * features[:, -self.pairs :] / self.scale[-self.pairs :].float()
        terms = torch.nn.functional.pad(dipoles, (0, 1))
        coefficients = self.width.float() * self.net(torch.cat([features, which], 1))
        return torch.logsumexp(coefficients + terms, 1) / self.width.float()


class Dipoles(Surrogate):
    """A surrogate that sums dipoles."""

    network = DipoleNet


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


def ways(process: Process, settings: SurrogateConfig) -> dict[str, tuple[type[Surrogate], SurrogateConfig]]:
    """The surrogates by the names of their methods; dipoles where the invariants of matrix elements are features."""
    known = replace(settings, hidden=_OLD_WIDTH, steps=max(1, settings.steps // 2) if settings.steps else None)
    found: dict[str, tuple[type[Surrogate], SurrogateConfig]] = {
        METHODS[1]: (Surrogate, settings),
        METHODS[2]: (FeaturesAlone, known),
        METHODS[3]: (Dipoles, settings),
        METHODS[4]: (Surrogate, replace(settings, steps=_HASTY)),
    }
    legs = 2 + len(process.setup.final_state.masses) if isinstance(process, HadronProcess) else 0
    DipoleNet.pairs = legs * (legs - 1) // 2
    if not (isinstance(process, HadronProcess) and process.choice):
        del found[METHODS[3]]
    return found


def call_seconds(process: Process, sampler: Sampler) -> float:
    """CPU-seconds of the process at a point of the sampler where it is not zero."""
    u = sampler.sample(_BATCH, torch.Generator().manual_seed(1))[0]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        inside = int((process(u) != 0.0).sum())
        seconds.append((time.process_time() - start) / max(1, inside))
    return min(seconds)


def measure(job: Row) -> Row:
    """Train, integrate, and make events in every way."""
    name, parameters = PROCESSES[job["process"]]
    process = create(name, **parameters)
    if process.has_events:
        process.prepare_events()
    integrand, streams, charge = Integrand(process), Streams(job["seed"]), 1e-3 * job["milliseconds"]
    training = TrainingConfig(calls=job["calls"], events=0, sampler=job["sampler"])
    sampler = Trainer(integrand, training, streams).fit().sampler
    integration, config = IntegrationConfig(points=job["points"]), UnweightingConfig()
    weights = Integrator(integrand, sampler, integration, streams).run().weights
    largest = config.max_weight(weights, streams)
    efficiency = Efficiencies.of(weights, largest).chosen
    settings = SurrogateConfig(steps=job["steps"] or SurrogateConfig().steps_for(round(0.75 * len(weights))))
    tools: dict[str, Unweighter] = {METHODS[0]: Unweighter(integrand, sampler, largest, efficiency, streams, config)}
    row: Row = {"described": sampler.describe(), "results": {METHODS[0]: {"preparation": 0.0}}}
    own = call_seconds(process, sampler)
    for method, (kind, chosen) in ways(process, settings).items():
        start = time.process_time()
        costs = StageCosts(charge + own, None, None)
        tool = prepare_two_stage(integrand, sampler, weights, costs, streams, integration, config, chosen, kind)
        tools[method], gain = tool, tool.gain
        row["results"][method] = {"preparation": time.process_time() - start, "gain": asdict(gain)}
    row["call"] = own
    points: dict[str, UnweightedPoints] = {}
    for shard, (method, made_by) in enumerate(tools.items()):
        points[method], figures = made(made_by, job["events"], shard, charge)
        row["results"][method] |= figures
    hasty = tools[METHODS[-1]]
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
    return min(found for name, found in least.items() if name != CONTROL) > 1e-3 > least[CONTROL]


def pays_from(part: Row, one: Row, call: float) -> float:
    """Seconds of a call from which on events take less time than with one stage, by what both take at `call` each."""
    fewer = one["calls_per_event"] - part["calls_per_event"]
    dearer = part["seconds_per_event"] - one["seconds_per_event"]
    return max(0.0, call + dearer / fewer) if fewer > 0.0 else math.inf


def table_lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """A line for each way to make events of each process."""
    lines = []
    for process in dict.fromkeys(row["process"] for row in rows):
        own = [row for row in rows if row["process"] == process]
        for name in (*METHODS, CONTROL):
            if name in own[0]["results"] or name == CONTROL:
                lines.append((process, *_line(name, own)))
    return lines


def _line(name: str, rows: list[Row]) -> tuple[str, ...]:
    cells = [""] * 9
    if name != CONTROL:
        charged = [
            {"call": row["call"] + 1e-3 * row["milliseconds"], "one": row["results"][METHODS[0]]} for row in rows
        ]
        found = [row["results"][name] | cost for row, cost in zip(rows, charged, strict=True)]
        for part in found:
            part["fewer"] = part["one"]["calls_per_event"] / part["calls_per_event"]
            part["faster"] = part["one"]["seconds_per_event"] / part["seconds_per_event"]
            part |= {"first": part["gain"]["first"], "second": part["gain"]["second"]} if "gain" in part else {}
            part["pays"] = pays_from(part, part["one"], part["call"])
        two = name != METHODS[0]
        cells = [
            f"{median(found, 'first'):.3f}" if two else "",
            f"{median(found, 'second'):.3f}" if two else "",
            f"{median(found, 'calls_per_event'):.2f}",
            f"{median(found, 'fewer'):.2f}",
            f"{1e3 * median(found, 'seconds_per_event'):.3g}",
            f"{median(found, 'faster'):.2f}",
            f"{median(found, 'preparation'):.0f}" if two else "",
            f"{1e6 * median(found, 'pays'):.3g}" if two else "",
            f"{100 * median(found, 'overweight'):.3f}",
        ]
    p = [list(row["p_values"][name].values()) for row in rows if name in row["p_values"]]
    return (name, *cells, f"{min(map(min, p)):.2g}" if p else "", str(len(rows)))


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table and every p-value, and write them beside the rows."""
    if not rows:
        return
    title = "Two-stage unweighting"
    table = Table(title=title, caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right", no_wrap=True)
    lines = table_lines(rows)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    each = [
        f"{row['process']}, seed {row['seed']}, p of {name}: "
        + ", ".join(f"{observable} {p:.2g}" for observable, p in found.items())
        for row in rows
        for name, found in row["p_values"].items()
    ]
    verdict = "all distributions agree and the control fails" if all(map(passes, rows)) else "NOT all as it must be"
    for text in (*each, verdict):
        console.print(text, highlight=False)
    if options.output:
        settings = [
            f"{row['process']}, seed {row['seed']}: {row['events']} events of each kind after {row['calls']} calls of "
            f"training and {row['points']} of integration, {row['described']}; a call takes {1e6 * row['call']:.3g} "
            f"CPU-microseconds, and is charged {row['milliseconds']:g} ms."
            for row in rows
        ]
        places = ", ".join(sorted({f"{row['hardware']}, {row['threads']} thread(s)" for row in rows}))
        dates = sorted({row["date"][:10] for row in rows})
        text = f"{places}; {dates[0]} to {dates[-1]}. {SCRIPT}."
        page = markdown(title, (text, NOTE, *settings, *each, f"Result: {verdict}."), COLUMNS, lines)
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Two-stage against plain unweighting of a matrix element.")
    parser.add_argument("--processes", nargs="+", default=list(PROCESSES)[:4], choices=PROCESSES, metavar="PROCESS")
    parser.add_argument("--sampler", default="vegas")
    parser.add_argument("--calls", type=int, default=200_000, help="calls of the training")
    parser.add_argument("--points", type=int, default=2**17, help="of the integration, from which the surrogate learns")
    parser.add_argument("--events", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--milliseconds", type=float, default=0.0, help="charged for a call")
    parser.add_argument("--steps", type=int, help="of the training of the surrogate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """A row for each process and seed.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    for name in ("calls", "points", "events", "threads"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    if options.milliseconds < 0.0:
        raise ConfigError(f"--milliseconds must not be negative, got {options.milliseconds}")
    common = options.sampler, options.calls, options.points, options.events
    return [
        dict(zip(KEY, (process, *common, seed, options.milliseconds), strict=True)) | {"steps": options.steps}
        for process in options.processes
        for seed in options.seeds
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, then the table; the number of failed rows, and of those that are not as they must be."""
    kept, jobs = Rows(options.output, KEY, SCRIPT), jobs_of(options)
    label: Callable[[Row], str] = lambda job: f"{job['process']}, seed {job['seed']}"  # noqa: E731
    brief: Callable[[Row], str] = lambda row: TwoStageGain(**row["results"][METHODS[1]]["gain"]).line()  # noqa: E731
    failed = measure_all(__file__, kept.missing(jobs), options.threads, kept, console, label, brief)
    wanted = {key(job, KEY) for job in jobs}
    rows = [row for row in kept.rows if key(row, KEY) in wanted]
    show(console, kept.rows, options)
    return failed + sum(not passes(row) for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured and its distributions are as they must be."""
    return run_script(parse(arguments), measure, run, Console(width=180))


if __name__ == "__main__":
    sys.exit(main())
