"""One row of the comparison: adapt a sampler to a function, integrate, and measure its weights.

Every sampler is used as its own documentation recommends, with its default settings, and gets the same budgets: `calls`
for the adaptation and `points` for the final estimate.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import vegas
from torch import Tensor

from nisampler import Integrand, IntegrationConfig, TrainingConfig
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.integrator import Integrator
from nisampler.processes.base import FunctionProcess, Process
from nisampler.processes.ee_analytic import analytic_cross_section
from nisampler.processes.ee_to_3jets import EEToThreeJets
from nisampler.processes.registry import create
from nisampler.rng import Streams
from nisampler.stats import efficiencies_at, kish_ess
from nisampler.trainer import Trainer

# The vegas manual: adapt and discard, then integrate; 10 to 20 iterations are typical. With 20 shorter ones for the
# adaptation its errors here are as small as with 10 long ones, or smaller.
VEGAS_ADAPTATION, VEGAS_ITERATIONS = 20, 10
_BATCH = 100_000


TWICE_THE_CALLS = "map after integration"


@dataclass
class Counted:
    """A process that counts its calls and can be called with arrays and single precision.

    Parameters
    ----------
    process
        Evaluated in double precision, whatever precision a sampler works in.
    """

    process: Process
    calls: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Values (n,) in the precision of the cube points x (n, dim)."""
        self.calls += len(x)
        return self.process(x.double().clamp(0.0, 1.0)).to(x.dtype)

    def of_array(self, x: Any) -> Any:
        """The same for NumPy arrays."""
        return self(torch.from_numpy(np.array(x, dtype=np.float64))).numpy()


@dataclass(frozen=True)
class Outcome:
    """What a sampler gives: an estimate, weights of fresh points, and what both cost."""

    value: float
    error: float
    weights: dict[str, Tensor]
    training_calls: int
    integration_calls: int
    training_seconds: float
    integration_seconds: float


def truth_of(process: Process) -> float | None:
    """The exact integral, where there is one."""
    if isinstance(process, FunctionProcess):
        return process.integral
    return analytic_cross_section(process.parameters) if isinstance(process, EEToThreeJets) else None


def run_nisampler(process: Process, seed: int, calls: int, points: int) -> Outcome:
    """nisampler's defaults; the weights are those of the integration itself."""
    integrand, streams = Integrand(process), Streams(seed)
    start, before = time.process_time(), integrand.calls
    trained = Trainer(integrand, TrainingConfig(calls=calls), streams).fit()
    middle, between = time.process_time(), integrand.calls
    result = Integrator(integrand, trained.sampler, IntegrationConfig(points=points), streams).run()
    end = time.process_time()
    estimate = result.estimate
    spent = (between - before, integrand.calls - between, middle - start, end - middle)
    return Outcome(estimate.value, estimate.error, {trained.sampler.describe(): result.weights}, *spent)


def run_vegas(process: Process, seed: int, calls: int, points: int) -> Outcome:
    """The library's integrator with its stratification, adapted, discarded, and called again for the estimate.

    It goes on adapting while it integrates, which is its default. Its weights are those of its map after the
    adaptation, of its map after the integration, and of its stratified points.
    """
    function, random = Counted(process), np.random.default_rng(seed)
    integrator = vegas.Integrator([[0.0, 1.0]] * process.dim, ran_array_generator=random.random)
    batched = vegas.lbatchintegrand(function.of_array)
    start = time.process_time()
    integrator(batched, nitn=VEGAS_ADAPTATION, neval=calls // VEGAS_ADAPTATION)
    middle, between = time.process_time(), function.calls
    early = vegas.AdaptiveMap(integrator.map.extract_grid())
    restart = time.process_time()
    result = integrator(batched, nitn=VEGAS_ITERATIONS, neval=points // VEGAS_ITERATIONS)
    end = time.process_time()
    spent = (between, function.calls - between, middle - start, end - restart)
    weights = {
        "map": _map_weights(early, process, points, random),
        TWICE_THE_CALLS: _map_weights(integrator.map, process, points, random),
        "stratified": _stratified_weights(integrator, process),
    }
    return Outcome(float(result.mean), float(result.sdev), weights, *spent)


def _map_weights(grid: Any, process: Process, points: int, random: np.random.Generator) -> Tensor:
    parts = []
    for first in range(0, points, _BATCH):
        y = random.random((min(_BATCH, points - first), process.dim))
        x, jacobian = np.empty_like(y), np.empty(len(y))
        grid.map(y, x, jacobian)
        parts.append(process(torch.from_numpy(x)) * torch.from_numpy(jacobian))
    return torch.cat(parts)


def _stratified_weights(integrator: Any, process: Process) -> Tensor:
    """Weights of as many iterations as the integration had, with map and strata frozen."""
    integrator.set(adapt=False)
    parts = []
    for _ in range(VEGAS_ITERATIONS):
        for x, weight in integrator.random_batch():
            values = process(torch.from_numpy(np.array(x, dtype=np.float64)))
            parts.append(values * torch.from_numpy(np.array(weight, dtype=np.float64)))
    return torch.cat(parts)


def run_madnis(process: Process, seed: int, calls: int, points: int) -> Outcome:
    """madnis' integrator with its defaults, trained for as many steps as the calls allow.

    The estimate is the mean of the same weights that `Integrator.integrate` averages, summed in double precision.
    """
    peer: Any = importlib.import_module("madnis.integrator")
    torch.manual_seed(seed)
    function = Counted(process)
    start = time.process_time()
    integrator = peer.Integrator(function, dims=process.dim)
    while function.calls + integrator.batch_size <= calls:
        integrator.train_step()
    middle, between = time.process_time(), function.calls
    weights = integrator.sample(points).weights.double()
    value, error = float(weights.mean()), float(weights.std()) / len(weights) ** 0.5
    end = time.process_time()
    spent = (between, function.calls - between, middle - start, end - middle)
    return Outcome(value, error, {"flow": weights}, *spent)


SAMPLERS: dict[str, Callable[[Process, int, int, int], Outcome]] = {
    "vegas": run_vegas,
    "madnis": run_madnis,
    "nisampler": run_nisampler,
}


def require(samplers: list[str]) -> None:
    """Check that the peers are known and installed.

    Raises
    ------
    ConfigError, MissingExtraError
        If one is not.
    """
    for name in samplers:
        if name not in SAMPLERS:
            raise ConfigError(f"no sampler {name!r}; known: {', '.join(SAMPLERS)}")
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"{name} is not installed; pip install 'nisampler[bench]'")


def measure(function: str, sampler: str, seed: int, calls: int, points: int) -> dict[str, Any]:
    """The row of one function, sampler and seed.

    Of several sets of weights, the best at 0.1 % counts among those that have learned from `calls` points.
    """
    process = create(function)
    outcome = SAMPLERS[sampler](process, seed, calls, points)
    truth = truth_of(process)
    efficiencies = {
        name: [efficiency for _, efficiency in efficiencies_at(weights, [0.0, 1e-3, 1e-2])]
        for name, weights in outcome.weights.items()
    }
    best = max(efficiencies.keys() - {TWICE_THE_CALLS}, key=lambda name: efficiencies[name][1])
    weights = outcome.weights[best]
    strict, at_0p1, at_1 = efficiencies[best]
    return {
        "function": function,
        "sampler": sampler,
        "version": version(sampler),
        "seed": seed,
        "calls": calls,
        "points": points,
        "value": outcome.value,
        "error": outcome.error,
        "truth": truth,
        "relative_error": outcome.error / abs(outcome.value),
        "pull": None if truth is None else (outcome.value - truth) / outcome.error,
        "weights": best,
        "strict": strict,
        "at_0p1": at_0p1,
        "at_1": at_1,
        "ess_fraction": kish_ess(weights) / len(weights),
        "efficiencies": efficiencies,
        "training_calls": outcome.training_calls,
        "integration_calls": outcome.integration_calls,
        "training_seconds": outcome.training_seconds,
        "integration_seconds": outcome.integration_seconds,
    }
