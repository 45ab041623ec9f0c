"""From an integrand to unweighted events with each method, timed in phases: training, integration, generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import vegas
from measurements import Row
from peers import train_madnis
from slowed import Slowed
from torch import Tensor

from nisampler import Integrand, TrainingConfig, integrate
from nisampler.base.weights import efficiencies_at
from nisampler.processes.registry import create
from nisampler.training.costs import integration_calls
from nisampler.training.records import Progress
from nisampler.unweighting.unweighter import UnweightedPoints

OURS, GRID, VEGAS, MADNIS = METHODS = ("nisampler", "nisampler-vegas", "vegas", "madnis")
PEERS = (VEGAS, MADNIS)
_OVERWEIGHT = 1e-3
_FIRST, _LARGEST, _SMALLEST = 20_000, 65_536, 1024
# As in the manual of vegas: ten iterations to adapt, whose results are discarded.
_ITERATIONS = 10

Weigh = Callable[[int], tuple[Tensor, Tensor]]


@dataclass
class Stopwatch:
    """CPU-seconds, wall seconds and calls of each phase; what an integrand is owed counts as both kinds of seconds."""

    function: Slowed
    phases: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._last = self._now()

    def _now(self) -> tuple[float, float, int]:
        owed = self.function.owed
        return time.process_time() + owed, time.perf_counter() + owed, self.function.calls

    def lap(self, phase: str) -> None:
        """What passed since the last lap belongs to this phase."""
        now = self._now()
        self.phases[phase] = {name: b - a for name, a, b in zip(("cpu", "wall", "calls"), self._last, now, strict=True)}
        self._last = now


def run_nisampler(function: Slowed, job: Row, watch: Stopwatch) -> Row:
    """The default choice for this number of events, or VEGAS alone."""
    function.waiting = function.seconds > 0.0

    def progress(state: Progress) -> None:
        # the choice is taken at the end of the survey; after it, waiting would tell nobody anything
        function.waiting = function.waiting and state.stage == "survey"
        watch.lap("training")
        laps.append(watch.phases["training"])

    laps: list[dict[str, float]] = []
    sampler = "vegas" if job["method"] == GRID else "auto"
    result = integrate(
        Integrand(function),
        seed=job["seed"],
        device="cpu",
        training=TrainingConfig(calls=job["calls"], sampler=sampler),
        threads=job["threads"],
        events=job["events"],
        callback=progress,
        progress=False,
    )
    watch.lap("integration")
    watch.phases["training"] = {name: sum(lap[name] for lap in laps) for name in laps[0]}
    pace = result.events_per_second
    points = result.unweight(min(job["events"], max(_SMALLEST, int(job["patience"] * pace))))
    watch.lap("generation")
    choice = result.training.choice
    return {
        "chosen": result.sampler.describe(),
        "line": "" if choice is None else choice.line(),
        "value": result.estimate.value,
        "error": result.estimate.error,
        "generated": len(points.x),
        "trials": points.trials,
        "overweight": points.overweight_fraction,
    }


def unweighted(weigh: Weigh, job: Row, watch: Stopwatch) -> Row:
    """Integration, maximal weight and events of a trained peer; `weigh` draws points and their weights.

    The number of points is that of nisampler for the same events and efficiency, which is seen on the first of them.
    """
    weights = weigh(_FIRST)[1]
    efficiency = efficiencies_at(weights, [_OVERWEIGHT])[0][1]
    more = integration_calls(job["events"], efficiency) - len(weights)
    parts = [weights, *(weigh(min(_LARGEST, more - first))[1] for first in range(0, max(0, more), _LARGEST))]
    weights = torch.cat(parts)
    largest, efficiency = efficiencies_at(weights, [_OVERWEIGHT])[0]
    value, error = float(weights.mean()), float(weights.std()) / math.sqrt(len(weights))
    watch.lap("integration")
    generator = torch.Generator().manual_seed(job["seed"])
    found, trials, start = 0, 0, time.process_time()
    kept_points: list[Tensor] = []
    kept_weights: list[Tensor] = []
    while found < job["events"] and (found < _SMALLEST or time.process_time() < start + job["patience"]):
        size = math.ceil(1.02 * (job["events"] - found) / max(efficiency, 1e-6))
        x, weights = weigh(min(_LARGEST, max(_SMALLEST, size)))
        ratio = weights.abs() / largest
        kept = torch.nonzero(torch.rand(len(ratio), generator=generator, dtype=torch.float64) < ratio).squeeze(1)
        kept = kept[: job["events"] - found]
        trials += len(ratio) if found + len(kept) < job["events"] else int(kept[-1]) + 1
        found += len(kept)
        kept_points.append(x[kept])
        kept_weights.append(ratio[kept].clamp(min=1.0))
    events = UnweightedPoints(torch.cat(kept_points), torch.cat(kept_points), torch.cat(kept_weights), trials)
    watch.lap("generation")
    return {
        "chosen": "",
        "line": "",
        "value": value,
        "error": error,
        "generated": found,
        "trials": trials,
        "overweight": events.overweight_fraction,
    }


def run_vegas(function: Slowed, job: Row, watch: Stopwatch) -> Row:
    """The map of the vegas package, adapted as its manual advises with its stratification on."""
    random = np.random.default_rng(job["seed"])
    integrator = vegas.Integrator([[0.0, 1.0]] * function.dim, ran_array_generator=random.random)

    def values(x: Any) -> Any:
        return function(torch.from_numpy(np.array(x, dtype=np.float64))).numpy()

    integrator(vegas.lbatchintegrand(values), nitn=_ITERATIONS, neval=job["calls"] // _ITERATIONS)
    watch.lap("training")

    def weigh(n: int) -> tuple[Tensor, Tensor]:
        y = random.random((n, function.dim))
        x, jacobian = np.empty_like(y), np.empty(n)
        integrator.map.map(y, x, jacobian)
        points = torch.from_numpy(x)
        return points, function(points) * torch.from_numpy(jacobian)

    return unweighted(weigh, job, watch)


def run_madnis(function: Any, job: Row, watch: Stopwatch) -> Row:
    """madnis, trained as in `peers.py`."""
    trained = train_madnis(function, job["seed"], job["calls"])
    watch.lap("training")

    def weigh(n: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            batch = trained.integrator.sample(n)
        return batch.x, batch.weights.double()

    return unweighted(weigh, job, watch)


CHAINS: dict[str, Callable[[Any, Row, Stopwatch], Row]] = {
    OURS: run_nisampler,
    GRID: run_nisampler,
    VEGAS: run_vegas,
    MADNIS: run_madnis,
}


def warm_up(method: str, job: Row) -> None:
    """Load, and compile where it is not in a cache, what a method needs once in a process."""
    function = Slowed(create("gauss2"))
    small = job | {"calls": 5000, "events": 1000, "method": method, "microseconds": 0.0}
    CHAINS[method](function, small, Stopwatch(function))
    if method == OURS:
        integrate(create("gauss2"), device="cpu", training=TrainingConfig(calls=5000, sampler="flow"))
