"""A laboratory of the training: one default against other values of it, on fresh or stored points, with several seeds.

    python benchmarks/learning.py --question flow.learning_rate --values 2e-3 8e-3 --cases camel8 w1 w2 \
        --calls 60000 --seeds 1 2 3 --output benchmarks/results/learning.json --figure rates.svg

A question is a setting of `[training]` by its path (`flow.batch`), or a constant of `nisampler.base.tuning`
(`tuning.TAIL`), or `several`, whose values are objects such as '{"flow.batch": 64, "flow.reuse": 2}'. The default is
always measured besides. With `--stored N` a training proposes no points: N points of a sampler that was trained once
lie in a cache with their values, three quarters are learned from with the density that they were drawn from, and the
rest judges, weighted with q/g. So a costly matrix element is paid for once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from measurements import Row, Rows, key, markdown, measure_all, median, run_script, wide_console
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.base.weights import importance_weights
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.processes.registry import create
from nisampler.samplers.base import Sampler
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training.arm import Batch
from nisampler.training.config import TrainingConfig
from nisampler.training.evaluation import rated
from nisampler.training.flow_trainer import FlowTrainer
from nisampler.training.records import TrainingResult
from nisampler.training.trainer import Trainer
from nisampler.ui.palette import BLUE, GREY, INK, ORANGE
from nisampler.ui.plots import PLAIN

SCRIPT = "benchmarks/learning.py"
CASES = MappingProxyType(
    {
        **{name: (name, {}) for name in ("camel4", "camel8", "circles2", "annulus")},
        **{f"w{jets}": ("w_plus_jets", {"n_jets": jets}) for jets in range(4)},
        "z3": ("z_jets", {"n_jets": 3}),
        "ttj": ("p p > t t~ j", {}),
        "vbs": ("u c > w+ w+ d s QCD=0", {}),
    }
)
"""What is learned: name of the process and its parameters."""
DEFAULT, SEVERAL = "default", "several"
KEY = ("question", "value", "case", "calls", "stored", "seed")
FIGURES = ("efficiency", "flow", "spread", "seconds")
COLUMNS = ("question", "value", "case", "calls", "0.1 %", "flow alone", "std/mean", "CPU-s", "/default", "seeds")
NOTE = (
    "Medians over the seeds. 0.1 %: unweighting efficiency with that fraction of the integral in weights above the "
    "maximum, of the sampler that was chosen; flow alone: of the flow before trees and other candidates, which is all "
    "there is with stored points. std/mean: relative spread of the weights of the chosen one. CPU-s: of the training, "
    "after everything was compiled. /default: efficiency over that of the default, median over seeds of the ratio."
)
_BATCH, _REHEARSAL, _HELD_OUT = 20_000, 6000, 0.25


def changed(config: TrainingConfig, path: str, value: Any) -> TrainingConfig:
    """The settings with another value at a path, such as "flow.batch".

    Raises
    ------
    ConfigError
        If there is no such setting.
    """
    *parts, last = path.split(".")
    owner = config
    for part in parts:
        owner = getattr(owner, part, None)  # type: ignore[assignment]
    if not dataclasses.is_dataclass(owner) or last not in {field.name for field in dataclasses.fields(owner)}:
        raise ConfigError(f"no setting of [training] is called {path!r}")
    inner = dataclasses.replace(owner, **{last: value})
    return changed(config, ".".join(parts), inner) if parts else inner  # type: ignore[return-value]


def configured(job: Row, calls: int) -> TrainingConfig:
    """The settings of a row; constants are set for this process.

    Raises
    ------
    ConfigError
        If the question names nothing.
    """
    config = TrainingConfig(calls=calls, sampler="flow", events=0)
    if job["value"] == DEFAULT:
        return config
    try:
        value = json.loads(job["value"])
    except ValueError:
        value = job["value"]
    if job["question"] == SEVERAL and not isinstance(value, dict):
        raise ConfigError(f"values of the question {SEVERAL!r} are JSON objects, got {job['value']}")
    for path, item in value.items() if job["question"] == SEVERAL else [(job["question"], value)]:
        owner, _, name = path.partition(".")
        if owner != "tuning":
            config = changed(config, path, item)
        elif hasattr(tuning, name):
            setattr(tuning, name, tuple(item) if isinstance(item, list) else item)
        else:
            raise ConfigError(f"nisampler.base.tuning has no {name!r}")
    return config


class StoredTrainer(FlowTrainer):
    """A training whose points come from a store, in their order, and from the start again at its end."""

    store: tuple[Tensor, ...]
    taken = 0

    def _draw(self, sampler: TrainableSampler, count: int, generator: torch.Generator) -> list[Batch]:
        index = (torch.arange(count * self.batch) + self.taken) % len(self.store[0])
        self.taken += count * self.batch
        y, f, log_g, extra = (column[index] for column in self.store)
        f = f / self.scale
        with torch.no_grad():
            weights = sampler.target(y, f, extra.to(sampler.dtype)) * torch.exp(-log_g)
        columns = [column.to(sampler.dtype) for column in (y, f, log_g, extra)]
        parts = (column.view(count, self.batch, *column.shape[1:]).unbind(0) for column in (y, weights, *columns))
        return [Batch(y, weights, tuple(stored)) for y, weights, *stored in zip(*parts, strict=True)]


def stored_points(case: str, n: int, cache: Path) -> tuple[Tensor, ...]:
    """Points y (n, dim) of a sampler that was trained for them, |f| (n,), log g (n,) and extra columns (n, k)."""
    name, options = CASES[case]
    folder = cache / f"{case}-{n}"
    if not folder.is_dir():
        integrand = Integrand(create(name, **options))
        trainer = Trainer(integrand, TrainingConfig(calls=max(20_000, n // 2), sampler="flow"), Streams(1000))
        trainer.fit()
        flow = trainer.flow
        if flow is None or flow.base is not None:
            raise ConfigError(f"{case} has no flow of its own to draw stored points from")
        sampler, generator = flow.arms[0].sampler, torch.Generator().manual_seed(1000)
        parts = []
        with torch.no_grad():
            for _ in range(0, n, _BATCH):
                y, log_g = sampler.map(sampler.latent(_BATCH, generator))
                value, extra = sampler.observe(integrand, y)
                parts.append((y, value.abs().double(), log_g.double(), extra.double()))
        names = ("y", "f", "log_g", "extra")
        columns = {name: torch.cat(column)[:n] for name, column in zip(names, zip(*parts, strict=True), strict=True)}
        save_checkpoint(folder, columns, {"case": case})
    tensors, _ = load_checkpoint(folder)
    return tuple(tensors[name].double() for name in ("y", "f", "log_g", "extra"))


def judged(sampler: Sampler, integrand: Integrand, points: int) -> tuple[float, float]:
    """Efficiency at 0.1 % overweight and relative spread of the weights of fresh points."""
    view, generator, found = sampler.view(integrand), torch.Generator().manual_seed(77), []
    with torch.no_grad():
        for _ in range(max(1, points // _BATCH)):
            x, log_q = sampler.map(torch.rand(_BATCH, integrand.dim, generator=generator, dtype=torch.float64))
            found.append(importance_weights(view(x).double(), log_q.double()).abs())
    return figures_of(torch.cat(found))


def figures_of(weights: Tensor, counts: Tensor | None = None) -> tuple[float, float]:
    """Efficiency at 0.1 % overweight, and relative spread, of weights (n,) that stand for `counts` (n,) draws each."""
    candidate = rated("", weights, counts)
    return candidate.efficiency_0p1, max(0.0, 1.0 / max(candidate.ess_fraction, 1e-12) - 1.0) ** 0.5


def measure(job: Row) -> Row:
    """One row in this process."""
    name, options = CASES[job["case"]]
    integrand = Integrand(create(name, **options))
    Trainer(integrand, TrainingConfig(calls=_REHEARSAL, sampler="flow"), Streams(9)).fit()
    config = configured(job, job["calls"])
    if job["stored"]:
        return job | learned_from_store(job, integrand, config)
    start = time.process_time()
    trainer = Trainer(integrand, config, Streams(job["seed"]))
    result = trainer.fit()
    seconds = time.process_time() - start
    efficiency, spread = judged(result.sampler, integrand, job["points"])
    alone = 0.0 if trainer.flow is None else judged(trainer.flow.sampler(), integrand, job["points"])[0]
    known = {"vegas": surveyed(result), "flows": trainer.survey.flows, "dim": integrand.dim}
    return job | {"efficiency": efficiency, "flow": alone, "spread": spread, "seconds": seconds} | known


def surveyed(result: TrainingResult) -> float:
    """The efficiency at 0.1 % overweight of VEGAS at the end of its survey."""
    return next((record.efficiency_0p1 for record in reversed(result.history) if record.stage == "vegas"), 0.0)


def learned_from_store(job: Row, integrand: Integrand, config: TrainingConfig) -> Row:
    """What a training on stored points gives, on those that it has not seen."""
    store = stored_points(job["case"], job["stored"], Path(job["cache"]))
    kept = int((1.0 - _HELD_OUT) * job["stored"])
    surveyed = Trainer(integrand, config, Streams(job["seed"]))
    while surveyed.stage == "survey":
        surveyed._survey()
    known = surveyed.flow
    if known is None or known.base is not None:
        raise ConfigError(f"{job['case']} has no flow of its own to be trained on stored points")
    trainer = StoredTrainer(
        *(integrand, known.config, known.streams, known.fresh, None, job["calls"], known.scale, known.device)
    )
    trainer.store = tuple(column[:kept] for column in store)
    start = time.process_time()
    while not trainer.done:
        trainer.advance(0)
    seconds = time.process_time() - start
    y, f, log_g, extra = (column[kept:] for column in store)
    sampler = trainer.arms[0].sampler
    with torch.no_grad():
        log_q = sampler.log_prob(y)
        weights = sampler.target(y, f, extra.to(sampler.dtype)) * torch.exp(-log_q)
    efficiency, spread = figures_of(weights, torch.exp(log_q - log_g))
    return {"efficiency": efficiency, "flow": efficiency, "spread": spread, "seconds": seconds}


def values_of(rows: Sequence[Row]) -> list[str]:
    """The values of a question, the default first."""
    found = {row["value"] for row in rows} - {DEFAULT}

    def order(value: str) -> tuple[float, str]:
        try:
            return float(value), value
        except ValueError:
            return 0.0, value

    return [DEFAULT, *sorted(found, key=order)]


def ratio(rows: Sequence[Row], base: Sequence[Row], name: str) -> float:
    """Median over the seeds of a figure over that of the default."""
    of_seed = {row["seed"]: row[name] for row in base}
    found = [row[name] / of_seed[row["seed"]] for row in rows if of_seed.get(row["seed"])]
    return statistics.median(found) if found else float("nan")


def grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by case, calls, stored points and value; the default's rows serve every question."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(key(row, ("question", "case", "calls", "stored", "value")), []).append(row)
    return found


def table_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each question, case, number of calls and value."""
    groups, lines = grouped(rows), []
    for question in dict.fromkeys(row["question"] for row in rows if row["question"]):
        mine = [row for row in rows if row["question"] == question]
        for place in sorted({key(row, ("case", "calls", "stored")) for row in mine}):
            base = groups.get(("", *place, DEFAULT), [])
            for value in values_of(mine):
                group = base if value == DEFAULT else groups.get((question, *place, value), [])
                lines += [cells(question, value, place, group, base)] if group else []
    return lines


def cells(question: str, value: str, place: tuple[Any, ...], group: list[Row], base: list[Row]) -> tuple[str, ...]:
    """One line of the table."""
    case, calls, stored = place
    return (
        *(question, value, case, f"{calls:,}" + (f" on {stored:,} stored" if stored else "")),
        *(f"{median(group, name):.3g}" for name in FIGURES),
        f"{ratio(group, base, 'efficiency'):.3f}",
        str(len(group)),
    )


def draw(rows: Sequence[Row], question: str, path: Path) -> None:
    """Efficiency over CPU-seconds for each value of a question: a panel for each case, a line over the calls."""
    mine = [row for row in rows if row["question"] == question]
    cases = list(dict.fromkeys(row["case"] for row in mine))
    colours = (INK, BLUE, ORANGE, "#2a8c6e", "#7a4fa3", GREY)
    with mpl.rc_context(PLAIN):
        canvas = Figure(figsize=(3.4 * len(cases) + 1.0, 3.6), layout="constrained")
        panels = canvas.subplots(1, len(cases), squeeze=False)[0]
        for axis, case in zip(panels, cases, strict=True):
            places = {key(row, ("calls", "stored")) for row in mine if row["case"] == case}
            for value, colour in zip(values_of(mine), colours, strict=False):
                asked = "" if value == DEFAULT else question
                of_value = [row for row in rows if (row["question"], row["case"], row["value"]) == (asked, case, value)]
                shown = [row for row in of_value if key(row, ("calls", "stored")) in places]
                curve = sorted({key(row, ("calls", "stored")) for row in shown})
                at = [[row for row in shown if key(row, ("calls", "stored")) == place] for place in curve]
                x, y = ([median(group, name) for group in at] for name in ("seconds", "efficiency"))
                axis.plot(x, y, "o-", color=colour, markersize=5, label=value)
                single = ([row[name] for row in shown] for name in ("seconds", "efficiency"))
                axis.plot(*single, ".", color=colour, alpha=0.4, markersize=4)
            axis.set(xscale="log", xlabel="CPU-seconds of the training", title=case)
            axis.tick_params(axis="x", which="both", labelsize=8)
        panels[0].set_ylabel("efficiency at 0.1 %")
        panels[0].legend(title=question, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table of the question, write that of all beside the rows, and draw."""
    shown = [row for row in rows if row["question"] in ("", options.question)]
    table = Table(title="Learning", caption=NOTE)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < 3 else "right", no_wrap=True)
    for line in table_lines(shown):
        table.add_row(*line)
    console.print(table)
    if options.output:
        text = f"One thread on {'; '.join(sorted({row['hardware'] for row in rows}))}. Rows of `{SCRIPT}`."
        page = markdown("Learning: rows", (text, NOTE), COLUMNS, table_lines(rows))
        options.output.with_suffix(".rows.md").write_text(page, encoding="utf-8")
    if options.figure and any(row["question"] == options.question for row in rows):
        draw(rows, options.question, options.figure)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure: the default, which serves every question, and the values.

    Raises
    ------
    ConfigError
        If a number is not positive, or values are given without a question.
    """
    if min(*options.calls, options.points, *options.seeds) < 1 or options.stored < 0:
        raise ConfigError("--calls, --points and --seeds must be positive, and --stored not negative")
    if options.values and not options.question:
        raise ConfigError("--values need a --question")
    asked = [("", DEFAULT), *((options.question, value) for value in options.values)]
    fixed = {"points": options.points, "cache": str(options.cache)}
    return [
        dict(zip(KEY, (*pair, case, calls, options.stored, seed), strict=True)) | fixed
        for calls in options.calls
        for case in options.cases
        for seed in options.seeds
        for pair in asked
    ]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, print a line for each row, then the table; the number of failed rows."""
    kept = Rows(options.output, KEY, SCRIPT)
    todo = kept.missing(jobs_of(options), options.refresh)
    failed = measure_all(__file__, todo, options.threads, kept, console, label, brief)
    show(console, kept.rows, options)
    return failed


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['question']} = {job['value']}, {job['case']}, {job['calls']} calls, seed {job['seed']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return ", ".join(f"{name} {row[name]:.3g}" for name in FIGURES)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="One default of the training against other values of it.")
    parser.add_argument("--question", default="", help="flow.learning_rate, tuning.TAIL, ...; none for defaults alone")
    parser.add_argument("--values", nargs="+", default=[], help="JSON, or text")
    parser.add_argument("--cases", nargs="+", default=["camel8", "w1", "w2"], choices=list(CASES))
    parser.add_argument("--calls", nargs="+", type=int, default=[60_000], help="integrand calls of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="one row for each")
    parser.add_argument("--points", type=int, default=200_000, help="fresh points that judge")
    parser.add_argument("--stored", type=int, default=0, help="learn from so many stored points; 0 for fresh ones")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "nisampler-learning")
    parser.add_argument("--threads", type=int, default=1, help="threads of each row")
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those there; table beside it, .rows.md")
    parser.add_argument("--figure", type=Path, help="draw the question")
    parser.add_argument("--refresh", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask a question; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, run, wide_console(150))


if __name__ == "__main__":
    sys.exit(main())
