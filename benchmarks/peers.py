"""One row of the comparison: adapt a sampler to a function, integrate, and measure its weights.

Every sampler is used as its own documentation recommends, with its default settings, and gets the same budgets: `calls`
for the adaptation and `points` for the final estimate.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import vegas
from torch import Tensor

from nisampler import Integrand, IntegrationConfig, TrainingConfig
from nisampler.base.extras import install
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at, kish_ess
from nisampler.density.channels import Multichannel
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.integration.integrator import Integrator
from nisampler.processes.base import FunctionProcess, Process
from nisampler.processes.lepton.ee_analytic import analytic_cross_section
from nisampler.processes.lepton.ee_to_3jets import EEToThreeJets
from nisampler.processes.registry import create
from nisampler.samplers.base import UniformSampler
from nisampler.samplers.shares import best_shares
from nisampler.training.trainer import Trainer

# The vegas manual: adapt and discard, then integrate; 10 to 20 iterations are typical. With 20 shorter ones for the
# adaptation its errors here are as small as with 10 long ones, or smaller.
VEGAS_ADAPTATION, VEGAS_ITERATIONS = 20, 10
# The madnis manual: a VEGAS start whose iterations double, here with this share of the calls; samples distributed by
# the channels' standard deviations but for a tenth; a cosine schedule. Buffered steps as in 2311.01548. In trials with
# W+ + 1 jet (300,000 calls) these did better than one buffered step (.34 against .44 at 0.1 % overweight), and the
# variance, its loss for several channels, better than the KL divergence, its loss for one (.54 against .44).
MADNIS_START, MADNIS_SHARES, MADNIS_UNIFORM, MADNIS_BUFFERED = 0.05, (1, 2, 4), 0.1, 3
MADNIS_BUFFER, MADNIS_DROP = 300_000, 1e-3
# Hidden units as in nisampler, and a learning rate between its default and that of nisampler: .54 became .57, and .61.
MADNIS_UNITS, MADNIS_RATE = 64, 3e-3
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


def run_nisampler(process: Process, seed: int, calls: int, points: int, **settings: Any) -> Outcome:
    """nisampler's defaults, or other settings of its training; the weights are those of the integration itself.

    Without calls there is no training: the bare cube, or the channels in equal shares with their prior weights.
    """
    integrand, streams = Integrand(process), Streams(seed)
    start, before = time.process_time(), integrand.calls
    config = TrainingConfig(**{"calls": calls, "events": 0, **settings}) if calls else None
    sampler = Trainer(integrand, config, streams).fit().sampler if config else UniformSampler(process.dim)
    middle, between = time.process_time(), integrand.calls
    result = Integrator(integrand, sampler, IntegrationConfig(points=points), streams).run()
    end = time.process_time()
    estimate = result.estimate
    spent = (between - before, integrand.calls - between, middle - start, end - middle)
    return Outcome(estimate.value, estimate.error, {sampler.describe(): result.weights}, *spent)


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


@dataclass
class CountedChannels:
    """A function with channels as madnis wants it: value, features and prior weights of a point of a channel's cube.

    Parameters
    ----------
    function
        The channels; evaluated in double precision.
    """

    function: Multichannel
    calls: int = 0

    def __call__(self, x: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f/g (n,), features (n, F) and prior weights (n, K) at the points x (n, d) of the channels' cubes."""
        self.calls += len(x)
        count = len(self.function.channels)
        first = (channel.double() + 0.5) / count
        cube = x.double().clamp(0.0, 1.0)
        found = self.function.evaluate(torch.cat([first.unsqueeze(1), cube], 1))
        prior = found.log_prior.exp()
        return (found.value / count).to(x.dtype), found.features.to(x.dtype), prior.to(x.dtype)


@dataclass(frozen=True)
class TrainedMadnis:
    """madnis' integrator after its training, what it calls, and the channels, if there are several."""

    integrator: Any
    function: Counted | CountedChannels
    channels: Multichannel | None


def train_madnis(process: Process, seed: int, calls: int) -> TrainedMadnis:
    """madnis with what its manual recommends: VEGAS start, buffered steps, cosine schedule, and for several channels
    prior and learned weights, shared flows, stratified training and dropping of channels."""
    peer: Any = importlib.import_module("madnis.integrator")
    torch.manual_seed(seed)
    function: Any = Counted(process)
    integrand: Any = function
    multichannel = getattr(process, "multichannel", None)
    channels = multichannel if isinstance(multichannel, Multichannel) and len(multichannel.channels) > 1 else None
    if channels is not None:
        function = CountedChannels(channels)
        integrand = peer.Integrand(
            function,
            input_dim=process.dim - 1,
            channel_count=len(channels.channels),
            remapped_dim=channels.feature_count(),
            has_channel_weight_prior=True,
            channel_grouping=peer.ChannelGrouping(_targets(channels.groups)),
        )
    integrator = peer.Integrator(
        integrand,
        dims=process.dim,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, function.calls / calls)))
        ),
        flow_kwargs={"units": MADNIS_UNITS},
        loss=peer.stratified_variance,
        learning_rate=MADNIS_RATE,
        uniform_channel_ratio=MADNIS_UNIFORM,
        buffer_capacity=MADNIS_BUFFER,
        buffered_steps=MADNIS_BUFFERED,
        channel_dropping_threshold=MADNIS_DROP if channels else 0.0,
    )
    vegas_start = peer.VegasPreTraining(integrator)
    vegas_start.rng = np.random.default_rng(seed)
    share = MADNIS_START * calls / sum(MADNIS_SHARES) / len(vegas_start.grids)
    vegas_start.train([int(share * part) for part in MADNIS_SHARES])
    vegas_start.initialize_integrator()
    while function.calls + integrator.batch_size <= calls:
        integrator.train_step()
    return TrainedMadnis(integrator, function, channels)


def run_madnis_channels(process: Process, seed: int, calls: int, points: int) -> Outcome:
    """madnis trained by `train_madnis`.

    Its weights are those of its own shares of the channels, and those of the shares that are best for unweighting.
    """
    start = time.process_time()
    trained = train_madnis(process, seed, calls)
    function, channels = trained.function, trained.channels
    middle, between = time.process_time(), function.calls
    batch = trained.integrator.sample(points)
    weights = batch.weights.double().detach()
    end = time.process_time()
    spent = (between, function.calls - between, middle - start, end - middle)
    found = {"its shares": weights}
    if channels is not None:
        found["best shares"] = _in_best_shares(channels, batch.channels, weights)
    return Outcome(float(weights.mean()), float(weights.std()) / len(weights) ** 0.5, found, *spent)


def _targets(groups: tuple[int, ...]) -> list[int | None]:
    """For each channel the one whose flow it uses, None for its own."""
    first = {group: groups.index(group) for group in groups}
    return [None if first[group] == channel else first[group] for channel, group in enumerate(groups)]


def _in_best_shares(function: Multichannel, channel: Tensor, weights: Tensor) -> Tensor:
    """Weights as if the channels had been drawn in the shares that are best for unweighting.

    Points of a channel are repeated or left out at regular steps, to the number that its new share asks for.
    """
    count = torch.bincount(channel, minlength=len(function.channels)).double()
    share = count / count.sum()
    ratio = best_shares(share, channel, weights) / share.clamp(min=1e-12)
    parts = []
    for index in torch.nonzero((count > 0) & (ratio > 0)).squeeze(1).tolist():
        own = weights[channel == index]
        wanted = max(1, round(float(ratio[index]) * len(own)))
        chosen = (torch.arange(wanted) * (len(own) / wanted)).long()
        parts.append(own[chosen] / ratio[index])
    return torch.cat(parts)


SAMPLERS: dict[str, Callable[[Process, int, int, int], Outcome]] = {
    "vegas": run_vegas,
    "madnis": run_madnis,
    "nisampler": run_nisampler,
}


METHODS: dict[str, Callable[[Process, int, int, int], Outcome]] = {
    "plain": lambda process, seed, calls, points: run_nisampler(process, seed, 0, points),
    "vegas": partial(run_nisampler, sampler="vegas"),
    "madnis": run_madnis_channels,
    "nisampler": run_nisampler,
}
VEGAS_PACKAGE = "vegas package"


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
            raise MissingExtraError(f"{name} is not installed: {install('bench')}")


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


def measure_method(process: str, card: dict[str, Any], method: str, budget: tuple[int, int, int]) -> dict[str, Any]:
    """What a row of `unweighting.py` says of a process and a method; `budget` is seed, calls and points.

    Of several sets of weights of the same points, the best at 0.1 % counts.
    """
    run = run_vegas if method == VEGAS_PACKAGE else METHODS[method]
    outcome = run(create(process, **card), *budget)
    levels = [0.0, 1e-3, 1e-2]
    efficiencies = {name: [e for _, e in efficiencies_at(w, levels)] for name, w in outcome.weights.items()}
    best = max(efficiencies.keys() - {TWICE_THE_CALLS}, key=lambda name: efficiencies[name][1])
    weights, (strict, at_0p1, at_1) = outcome.weights[best], efficiencies[best]
    inside = float((weights != 0.0).double().mean())
    packages = ["nisampler", *{"madnis": ["madnis"], VEGAS_PACKAGE: ["vegas"]}.get(method, [])]
    return {
        "versions": {name: version(name) for name in packages},
        "value": outcome.value,
        "error": outcome.error,
        "weights": best,
        "strict": strict,
        "at_0p1": at_0p1,
        "at_1": at_1,
        "efficiencies": efficiencies,
        "deviation": float(weights.std() / weights.mean().abs()),
        "cut_efficiency": inside,
        "events_per_second": at_0p1 * outcome.integration_calls / outcome.integration_seconds,
        "events_per_1000_elements": 1000.0 * at_0p1 / inside,
        "training_calls": outcome.training_calls,
        "integration_calls": outcome.integration_calls,
        "training_seconds": outcome.training_seconds,
        "integration_seconds": outcome.integration_seconds,
    }
