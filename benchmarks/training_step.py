"""Gradients and trainings of this version beside an older one, beside madnis and nflows, and the products alone.

    git worktree add ../before 0410178
    python3 -m venv ../old && ../old/bin/pip install "../before[fast,shower]"
    python benchmarks/training_step.py --before ../old/bin/python --output benchmarks/results/training_step.json
    python benchmarks/training_step.py --before ../older/bin/python --commit 1850f07 --gradients --steps \
        --output benchmarks/results/training_step.json

Workers of both versions live side by side and are asked in turns, so that all of them see the same noise; ratios are
medians over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flow_libraries import FlowShape, build
from measurements import Row, Rows, hardware, key, markdown, stamp, wide_console
from roofline import Products
from throughput import points_of

from nisampler.base.device import point_threads
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.processes.registry import create
from nisampler.samplers.flow import FlowSampler
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.training.flow_trainer import FlowTrainer

KEY = ("part", "dim", "hidden", "batch", "case", "calls", "seed")
COLUMNS = ("what", "unit", "now", "before", "madnis", "nflows", "products", "/before", "/madnis", "/nflows", "of bound")
TRAINING_COLUMNS = ("training", "CPU-s now", "before", "ratio", "efficiency", "before", "ESS", "before", "seeds")
NOTE = (
    "gradient: log_prob and the gradients of all weights, CPU-microseconds a point. step: a step of a training on "
    "camel8, with its share of sampling, integrand and buffer, CPU-milliseconds an optimizer step. products: the "
    "matrix products of the same networks alone, in the best layout and tile found. /before, /madnis, /nflows: how "
    "many times longer these take, medians of the ratios within a turn; of bound: time of the products over ours."
)
TRAINING_NOTE = (
    "Sampler 'flow'; efficiency: at 0.1 % overweight, ESS: fraction of the points, both of the sampler that was "
    "chosen, on 200,000 fresh points."
)
_SHORTEST = 0.2


def seconds_of(action: Callable[[], object]) -> float:
    """CPU-seconds of one call, from as many as take a while together."""
    action()
    start, count = time.process_time(), 0
    while True:
        action()
        count += 1
        spent = time.process_time() - start
        if spent >= _SHORTEST:
            return spent / count


def gradient(name: str, job: Row) -> float:
    """Seconds for each point of `log_prob` and its gradients in a library, or of the products alone."""
    shape = FlowShape(job["dim"], job["hidden"])
    if name == "products":
        return seconds_of(Products(shape.products(), job["batch"], "cpu").gradient) / float(job["batch"])
    flow = build(name, shape)
    x = points_of(flow, shape.dim, job["batch"], "cpu")

    def action() -> None:
        flow.module.zero_grad(set_to_none=True)
        flow.log_prob(x).mean().backward()  # type: ignore[no-untyped-call]

    return seconds_of(action) / float(job["batch"])


def step(job: Row) -> float:
    """Seconds of an optimizer step of a training."""
    streams, process = Streams(1), create("camel8")
    coupling = CouplingConfig(Spline(), NetConfig(hidden=job["hidden"], centre=True))
    config = TrainingConfig(calls=10**7, flow=FlowSettings(batch=job["batch"], fourier=0, reuse=1))
    trainer = FlowTrainer(
        *(Integrand(process), config, streams),
        *(lambda fourier: FlowSampler.create(process.dim, coupling, streams.generator("weights")), None),
        *(10**7, 1.0, torch.device("cpu")),
    )
    steps = 2 * getattr(trainer, "rehearsed", job["batch"]) // job["batch"]
    return seconds_of(trainer.rehearse) / float(steps)


def answer(job: Row) -> Any:
    """What a worker is asked for: a number, several, or None for a library that is not there."""
    with point_threads(1):
        try:
            if job["part"] == "gradient":
                return gradient(job["library"], job)
            return step(job)
        except MissingExtraError:
            return None


class Worker:
    """A process that measures trainings, or else steps, with the package that is installed for an interpreter."""

    def __init__(self, python: str, trainings: bool) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        own = Path(__file__).resolve()
        script = [str(own.with_name("training_worker.py"))] if trainings else [str(own), "--worker"]
        command, pipe = [python, *script], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | limits)  # noqa: S603

    def ask(self, job: Row) -> Any:
        """Its answer.

        Raises
        ------
        ConfigError
            If it has ended.
        """
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise ConfigError("the worker has no pipes")
        into.write(json.dumps(job) + "\n")
        into.flush()
        line = out.readline()
        if not line:
            raise ConfigError(f"a worker has ended at {job}; its errors stand above")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def work() -> int:
    """Answer jobs, one a line, until there are no more."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
    return 0


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """What is to be measured."""
    empty = {"dim": 0, "hidden": 0, "batch": 0, "case": "", "calls": 0, "seed": 0}
    jobs = [empty | {"part": "gradient", "dim": d, "hidden": h, "batch": b} for d, h, b in options.gradients]
    jobs += [empty | {"part": "step", "dim": 8, "hidden": h, "batch": b} for h, b in options.steps]
    cases: dict[str, Row] = {"camel8": {}, "w_plus_jets": {"n_jets": 1}}
    return jobs + [
        empty | {"part": "training", "case": case, "calls": calls, "seed": seed, "options": cases[case]}
        for case in options.case
        for calls in options.calls
        for seed in options.seeds
    ]


def measure(job: Row, workers: dict[str, Worker], turns: int) -> Row:
    """The answers of all contestants, turn by turn."""
    now, before = workers["now"], workers.get("before", workers["now"])
    contestants: dict[str, tuple[Worker, Row]] = {"now": (now, {"library": "nisampler"})}
    if "before" in workers:
        contestants["before"] = (before, {"library": "nisampler"})
    if job["part"] == "gradient":
        contestants |= {name: (now, {"library": name}) for name in ("madnis", "nflows", "products")}
    count = 1 if job["part"] == "training" else turns
    found: dict[str, list[Any]] = {name: [] for name in contestants}
    for _ in range(count):
        for name, (worker, more) in contestants.items():
            found[name].append(worker.ask(job | more))
    return job | {"found": {name: values for name, values in found.items() if None not in values}} | stamp()


def _line(row: Row) -> tuple[str, ...]:
    found, size = row["found"], f"d = {row['dim']}, 3x{row['hidden']}, batch {row['batch']:,}"
    scale, unit = (1e6, "us/point") if row["part"] == "gradient" else (1e3, "ms/step")

    def shown(name: str) -> str:
        return f"{scale * statistics.median(found[name]):.3g}" if name in found else "-"

    def ratio(name: str) -> float | None:
        pairs = zip(found.get(name, []), found["now"], strict=False)
        return statistics.median([a / b for a, b in pairs]) if name in found else None

    ratios = [ratio(name) for name in ("before", "madnis", "nflows")]
    bound = ratio("products")
    names = ("now", "before", "madnis", "nflows", "products")
    said = ["-" if value is None else f"{value:.2f}" for value in ratios]
    return (f"{row['part']}, {size}", unit, *map(shown, names), *said, "-" if bound is None else f"{100 * bound:.0f}%")


def _training_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    lines = []
    for case, calls in dict.fromkeys((row["case"], row["calls"]) for row in rows):
        found = [row["found"] for row in rows if (row["case"], row["calls"]) == (case, calls)]

        def middle(name: str, what: str, found: list[Any] = found) -> str:
            values = [entry[name][0][what] for entry in found if name in entry]
            return f"{statistics.median(values):.3g}" if values else "-"

        ratios = [one["before"][0]["seconds"] / one["now"][0]["seconds"] for one in found if "before" in one]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        seconds = middle("now", "seconds"), middle("before", "seconds"), ratio
        worth = [middle(name, what) for what in ("efficiency", "ess") for name in ("now", "before")]
        lines.append((f"{case}, {calls:,} calls", *seconds, *worth, str(len(found))))
    return lines


def _before(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row["commit"] for row in rows}))


def write(rows: Sequence[Row], output: Path) -> None:
    """The tables beside the rows."""
    dates = sorted(row["date"][:10] for row in rows)
    steps = sorted(
        (row for row in rows if row["part"] != "training"), key=lambda row: (row["part"], key(row, KEY[1:4]))
    )
    text = f"{hardware()}, one thread; torch {torch.__version__}; {dates[0]} to {dates[-1]}; before: {_before(steps)}."
    page = markdown("Gradients and steps of a training", [text, NOTE], COLUMNS, [_line(row) for row in steps])
    trainings = sorted((row for row in rows if row["part"] == "training"), key=lambda row: key(row, KEY[4:]))
    if trainings:
        text = f"Medians over the seeds; before: {_before(trainings)}."
        page += "\n" + markdown("Trainings", [text, TRAINING_NOTE], TRAINING_COLUMNS, _training_lines(trainings))
    output.with_suffix(".md").write_text(page, encoding="utf-8")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Gradients and trainings beside another checkout and other libraries.")
    sizes = "8,64,128 8,64,512 8,64,10000 16,64,10000 8,256,512".split()
    parser.add_argument("--gradients", nargs="*", type=_numbers, default=[*map(_numbers, sizes)], help="d,hidden,batch")
    parser.add_argument("--steps", nargs="*", type=_numbers, default=[(64, 128), (64, 512)], help="hidden,batch")
    parser.add_argument("--case", nargs="*", choices=["camel8", "w_plus_jets"], default=["camel8", "w_plus_jets"])
    parser.add_argument("--calls", nargs="+", type=int, default=[60_000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--before", help="a Python interpreter for which an older commit is installed")
    parser.add_argument("--commit", default="0410178", help="what that commit is called in the table")
    parser.add_argument("--output", type=Path, help="rows in JSON; tables beside it, .md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything that is not in the file yet; 0 if all went well."""
    options = parse(arguments)
    if options.worker:
        return work()
    kept, console = Rows(options.output, KEY, "benchmarks/training_step.py"), wide_console(150)
    pythons = {"now": sys.executable} | ({} if options.before is None else {"before": options.before})
    workers: dict[bool, dict[str, Worker]] = {}
    for job in kept.missing(jobs_of(options)):
        trainings = job["part"] == "training"
        if trainings not in workers:
            workers[trainings] = {name: Worker(python, trainings) for name, python in pythons.items()}
        row = measure(job, workers[trainings], options.turns) | {"commit": options.commit}
        kept.add(row)
        lines = _training_lines([row]) if row["part"] == "training" else [_line(row)]
        console.print(" ".join(lines[0]), markup=False, highlight=False)
    for worker in [worker for group in workers.values() for worker in group.values()]:
        worker.close()
    if options.output is not None:
        write(kept.rows, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
