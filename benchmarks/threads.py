"""Two threads beside one: integration, training and sampling, on a machine that is idle or has another job.

    python benchmarks/threads.py --output benchmarks/results/threads.md

Workers with one thread and with several live side by side and are asked in turns; ratios are medians over the turns.
"Beside another job": each core has one more process that never waits. On a machine that is not idle anyway the load in
the table says what "idle" is worth.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from measurements import hardware, markdown

COLUMNS = ("", "other jobs", "seconds, 1 thread", "threads", "seconds", "ratio", "CPU-s, ratio", "load")
LIMIT = 1.05


def tasks() -> dict[str, Callable[[int], Any]]:
    """What is measured, by name, for a number of threads."""
    import torch

    import nisampler
    from nisampler.base.device import cpu_threads
    from nisampler.flows import coupling_flow
    from nisampler.integration.integrator import IntegrationConfig
    from nisampler.processes.registry import create
    from nisampler.training.config import TrainingConfig

    flow, points = coupling_flow(8), torch.rand(50_000, 8)
    functions = {"camel8": create("camel8"), "W+ + 1 jet": create("w_plus_jets", n_jets=1)}

    def integrate(name: str, sampler: str, calls: int, final: int) -> Callable[[int], Any]:
        training = TrainingConfig(calls=calls, sampler=sampler)
        options = {"training": training, "integration": IntegrationConfig(points=final), "progress": False}
        return lambda threads: nisampler.integrate(functions[name], threads=threads, **options)

    def sample(threads: int) -> None:
        with cpu_threads(threads), torch.no_grad():
            flow.sample(200_000)

    def gradient(threads: int) -> None:
        with cpu_threads(threads):
            for part in points.split(10_000):
                flow.zero_grad()
                flow.log_prob(part).mean().backward()  # type: ignore[no-untyped-call]

    return {
        "integrate, camel8, VEGAS, 100,000 + 200,000 calls": integrate("camel8", "vegas", 100_000, 200_000),
        "integrate, W+ + 1 jet, VEGAS, 50,000 + 50,000 calls": integrate("W+ + 1 jet", "vegas", 50_000, 50_000),
        "train, camel8, flow, 20,000 calls": integrate("camel8", "flow", 20_000, 4096),
        "train, W+ + 1 jet, flow, 20,000 calls": integrate("W+ + 1 jet", "flow", 20_000, 4096),
        "flow.sample, d = 8, 200,000 points": sample,
        "flow.log_prob and gradients, d = 8, batches of 10,000": gradient,
    }


def work(threads: int) -> None:
    """Answer names of tasks, one a line, with seconds and CPU-seconds, until there are no more."""
    known = tasks()
    for line in sys.stdin:
        start, spent = time.perf_counter(), time.process_time()
        known[json.loads(line)](threads)
        answer = time.perf_counter() - start, time.process_time() - spent
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Worker:
    """A process that measures with so many threads."""

    def __init__(self, threads: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(threads)]
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)  # noqa: S603

    def ask(self, name: str) -> tuple[float, float]:
        """Seconds and CPU-seconds of a task."""
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise SystemExit("the worker has no pipes")
        into.write(json.dumps(name) + "\n")
        into.flush()
        line = out.readline()
        if not line:
            raise SystemExit(f"a worker has ended at {name!r}; its errors stand above")
        wall, cpu = json.loads(line)
        return wall, cpu

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def spin() -> None:
    """Never wait."""
    while True:
        pass


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Other jobs beside the block."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        for _ in range(count):
            process = context.Process(target=spin, daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
        yield


def main() -> int:
    """Measure and print the table; 1 if several threads are slower than one by more than five per cent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--jobs", type=int, nargs="*", default=[0, os.cpu_count() or 1], help="other jobs beside")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return 0
    one, several = Worker(1), Worker(given.threads)
    lines, slowest = [], 0.0
    for name in tasks():
        for worker in (one, several):
            worker.ask(name)  # compiles, imports
        for jobs in given.jobs:
            load = os.getloadavg()[0]
            with busy(jobs):
                pairs = [(one.ask(name), several.ask(name)) for _ in range(given.turns)]
            alone, shared = (statistics.median(pair[k][0] for pair in pairs) for k in (0, 1))
            wall, cpu = (statistics.median(b[k] / a[k] for a, b in pairs) for k in (0, 1))
            slowest = max(slowest, wall)
            figures = (f"{alone:.2f}", str(given.threads), f"{shared:.2f}", f"{wall:.2f}", f"{cpu:.2f}", f"{load:.1f}")
            lines.append((name, str(jobs), *figures))
            print(*lines[-1], flush=True)
    for worker in (one, several):
        worker.close()
    text = (
        f"{hardware()}; {given.turns} turns. Ratios: several threads over one. The load is that of the last minute "
        "before a row.",
        "Threads share the points of a batch in the function alone; the rest takes one.",
    )
    page = markdown("Two threads beside one", text, COLUMNS, lines)
    print(page)
    if given.output is not None:
        given.output.write_text(page)
    return int(slowest > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
