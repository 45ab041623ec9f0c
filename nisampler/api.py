"""The whole chain in one call: adapt, freeze, integrate, and be ready to unweight."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.checks import Natural, Threads, Whole, checked, settings
from nisampler.base.device import point_threads, resolve_device
from nisampler.base.rng import Seed, Streams
from nisampler.density.integrand import Integrand
from nisampler.density.spread import Executor
from nisampler.density.values import Kind
from nisampler.errors import ConfigError, ScalarFunctionWarning
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.result import Result, scalar_advice
from nisampler.samplers.base import Sampler
from nisampler.stored import (
    CHECKPOINT,
    INTEGRATION,
    SAMPLER,
    Integrated,
    Trained,
    WeightDistribution,
    is_stored,
)
from nisampler.training.config import TrainingConfig
from nisampler.training.trainer import Callback, Trainer
from nisampler.ui.monitor import SILENT, Monitor
from nisampler.ui.progress import monitor_for
from nisampler.unweighting.two_stage import two_stages
from nisampler.unweighting.unweighter import Efficiencies, UnweightingConfig

if TYPE_CHECKING:
    from nisampler.flows import Flow

CHECKPOINT_SECONDS = 20.0
# Integrand calls in all.
_Calls = Annotated[Whole, Field(ge=200)]
# The last stage of a training.
_FINISH = "finish"


@settings
class ChainConfig:
    """What a chain is told.

    Parameters
    ----------
    training, integration, unweighting
        Settings of the three parts.
    seed
        Same seed, same numbers.
    threads
        Of the CPU, see `point_threads`.

    Examples
    --------
    >>> config = ChainConfig(TrainingConfig(calls=5000), seed=1)
    >>> config.training.calls, config.threads
    (5000, 1)
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    integration: IntegrationConfig = field(default_factory=IntegrationConfig)
    unweighting: UnweightingConfig = field(default_factory=UnweightingConfig)
    seed: Seed = 0
    threads: Threads = 1


class Chain:
    """Adapts a sampler, integrates with it, and prepares the unweighting: each stage once.

    With a folder every stage is stored there and read from then on, so that a killed chain continues and ends with the
    same bytes.

    Parameters
    ----------
    integrand
        What to sample.
    config
        See `ChainConfig`.
    device
        Where the sampler lives.
    monitor
        Is told about progress.
    folder
        Where the stages are kept, if anywhere.
    counted
        Counters of the integrand before any of its work was done for this chain; zero by default.

    Examples
    --------
    >>> quick = ChainConfig(TrainingConfig(calls=5000), IntegrationConfig(points=4096))
    >>> chain = Chain(Integrand(lambda x: x.sum(1), 2), quick)
    >>> trained = chain.train()
    >>> result = chain.integrate(trained)
    >>> abs(result.estimate.value - 1) < 5 * result.estimate.error
    True
    """

    def __init__(
        self,
        integrand: Integrand,
        config: ChainConfig | None = None,
        device: torch.device | str = "cpu",
        monitor: Monitor | None = None,
        folder: Path | None = None,
        counted: Mapping[str, int] | None = None,
    ) -> None:
        self.integrand, self.config = integrand, config or ChainConfig()
        self.device, self.monitor, self.folder = torch.device(device), monitor or SILENT, folder
        self.streams = Streams(self.config.seed)
        counted = counted or dict.fromkeys(integrand.counts(), 0)
        self._before = counted
        self._calls = {"detection": integrand.calls - counted["calls"]}
        self._seconds: dict[str, float] = {}

    def train(
        self,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        callback: Callback | None = None,
        start: Sampler | Flow | None = None,
    ) -> Trained:
        """Adapt a sampler, or read the one of an earlier session.

        Parameters
        ----------
        checkpoint_seconds
            Between checkpoints; they have no influence on the result.
        callback, start
            See `nisampler.training.trainer.Trainer`.

        Raises
        ------
        CorruptFileError
            If a stored sampler or checkpoint is damaged; it is named.
        IntegrandError, TrainingDivergedError
            As the trainer does.
        """
        if not is_stored(self.folder, SAMPLER):
            begin = time.perf_counter()
            trained = self._train(checkpoint_seconds, callback, start)
            self._seconds["training"] = time.perf_counter() - begin
            if self.folder is not None:
                save_checkpoint(self.folder / SAMPLER, *trained.state())
        if self.folder is not None:
            trained = Trained.read(self.folder, self.device)
            self.integrand.restore_counts(dict(trained.counts))
            self.integrand.restore_learned(trained.function)
        return trained

    def _train(self, checkpoint_seconds: float, callback: Callback | None, start: Sampler | Flow | None) -> Trained:
        first = self.integrand.calls
        config, monitor = self.config.training, self.monitor
        trainer = Trainer(self.integrand, config, self.streams, self.device, monitor, callback, start)
        checkpoints = None
        if self.folder is not None:
            if is_stored(self.folder, CHECKPOINT):
                trainer.load_state(*load_checkpoint(self.folder / CHECKPOINT, self.device))
                monitor.line(f"training continues after {trainer.calls} calls")
            checkpoints = _Checkpoints(self.folder / CHECKPOINT, checkpoint_seconds)
        result = trainer.fit(checkpoints)
        monitor.progress("training", 1, 1, {})
        calls = self._calls | {"training": self.integrand.calls - first}
        return Trained(result, calls, self.integrand.counts(), self.integrand.learned())

    def integrate(self, trained: Trained) -> Result:
        """Integrate with the frozen sampler, choose w_max and see whether two stages pay, or read what was found.

        Raises
        ------
        CorruptFileError
            If the stored integral is damaged.
        IntegrandError, UnweightingError
            As `Integrator` and the policy do.
        """
        if not is_stored(self.folder, INTEGRATION):
            result = self._integrate(trained)
            if self.folder is not None:
                result.write_integration(self.folder)
        if self.folder is not None:
            stored = Integrated.read(self.folder)
            self.integrand.restore_counts(dict(stored.counts))
            result = Result.of(self.folder, trained, stored, self.integrand, self.config.threads)
        return result

    def _integrate(self, trained: Trained) -> Result:
        start, before, limits = time.perf_counter(), self.integrand.calls, self.integrand.limits()
        training, config, unweighting = trained.result, self.config.integration, self.config.unweighting
        config = config.for_events(self.config.training.events or 0, training.efficiency)
        integrator = Integrator(self.integrand, training.sampler, config, self.streams, training.known)
        found = integrator.run(self.monitor)
        seconds = self._seconds | {"integration": time.perf_counter() - start}
        w_max = unweighting.max_weight(found.weights, self.streams)
        worth = Efficiencies.of(found.weights, w_max)
        stages = two_stages(
            self.integrand, training.sampler, found.weights, worth, config, unweighting, training.choice, self.streams
        )
        calls = {
            **trained.calls,
            "integration": self.integrand.calls - before,
            "nonfinite": self.integrand.nonfinite - self._before["nonfinite"],
            **{name: count - limits.get(name, 0) for name, count in self.integrand.limits().items()},
        }
        return Result(
            training=training,
            integration=found,
            distribution=WeightDistribution.of(found.weights, w_max),
            efficiencies=worth,
            max_weight=w_max,
            integrand=self.integrand,
            streams=self.streams,
            unweighting=unweighting,
            calls=calls,
            seconds=seconds,
            threads=self.config.threads,
            stages=stages,
        )


class _Checkpoints:
    """Stores the trainer now and then, and always when a sampler was chosen and where the last stage begins."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._last, self._chosen = time.monotonic(), False

    def __call__(self, trainer: Trainer) -> None:
        chosen, self._chosen = self._chosen, trainer.choice is not None
        due = time.monotonic() - self._last >= self._seconds
        if not (due or trainer.stage == _FINISH or self._chosen > chosen):
            return
        save_checkpoint(self._folder, *trainer.state())
        self._last = time.monotonic()


def integrate(
    function: Callable[..., Any] | Integrand,
    dim: int | None = None,
    *,
    domain: Sequence[tuple[float, float]] | None = None,
    kind: Kind = "auto",
    steer: str | int | None = None,
    seed: int = 0,
    device: str = "auto",
    training: TrainingConfig | None = None,
    integration: IntegrationConfig | None = None,
    unweighting: UnweightingConfig | None = None,
    sampler: Sampler | Flow | None = None,
    callback: Callback | None = None,
    progress: bool | Monitor | None = None,
    threads: int = 1,
    events: int | None = None,
    calls: int | None = None,
    executor: Executor | None = None,
) -> Result:
    """Integrate a function over a box: learn a proposal, freeze it, estimate with it.

    Parameters
    ----------
    function
        Maps points (n, dim) to values (n,), as torch tensors or NumPy arrays, or one point (dim,) to a number; or an
        `Integrand`, which has more options. For several integrals at once it returns (n, k) or a dictionary of (n,).
    dim
        Number of coordinates, if neither `domain` nor the function tells it.
    domain
        One (low, high) pair for each coordinate; the unit cube by default.
    kind
        "torch", "numpy" or "scalar" instead of finding out.
    steer
        Name or number of the integral, among several, that the sampler learns and events are drawn from; the first one
        by default.
    seed
        Same seed, same numbers.
    device
        "auto", "cpu" or "cuda".
    training, integration, unweighting
        Settings of the three parts.
    sampler
        A sampler or flow of your own, to be trained in place of those that would be made, or used as it is; see
        `nisampler.training.trainer.Trainer`.
    callback
        Called with a `nisampler.training.records.Progress` after each unit of the training; where it returns True the
        training stops, and what was learned is kept.
    progress
        None shows a bar in a terminal or a notebook, and nothing elsewhere; True shows plain lines there; False shows
        nothing; a `nisampler.ui.monitor.Monitor` of your own is told.
    threads
        Of the CPU, see `point_threads`.
    events
        Number of events that will be unweighted, instead of `training.events`: the sampler is chosen by the time they
        take, see `TrainingConfig`.
    calls
        Integrand calls in all, at least 200: half of them for the training, half for the integration, instead of
        `training.calls` and `integration.points`. Finding out the kind of function takes a few more.

    executor
        Anything with `map`, of `concurrent.futures`, Dask or mpi4py: its workers share the points of each call of the
        function, in training and integration, where these take longer than their shipping. They get the function once;
        processes need one that can be pickled, or of `nisampler.process`. No value depends on it.

    Returns
    -------
    Result
        Prints as value with error, such as `0.98874(12)`.

    Raises
    ------
    NisamplerError
        A subclass that names what was wrong with the function or an option, and how to mend it.

    Warns
    -----
    ScalarFunctionWarning
        If the function takes one point at a time.

    Examples
    --------
    >>> import nisampler
    >>> quick = nisampler.TrainingConfig(calls=10_000)
    >>> result = nisampler.integrate(
    ...     lambda x: (2 * x).prod(1), dim=2, training=quick, integration=nisampler.IntegrationConfig(points=4096)
    ... )
    >>> abs(result.estimate.value - 1) < 5 * result.estimate.error
    True
    >>> result.unweight(10).x.shape
    torch.Size([10, 2])

    Several integrals on the same points know their covariance:

    >>> both = nisampler.integrate(
    ...     lambda x: {"norm": x[:, 0], "x2": x[:, 0] ** 3},
    ...     dim=1, training=quick, integration=nisampler.IntegrationConfig(points=4096)
    ... )
    >>> ratio = both["x2"] / both["norm"]
    >>> abs(ratio.value - 0.5) < 5 * ratio.error, ratio.relative_error < 0.01
    (True, True)
    """
    place = resolve_device(device)
    if isinstance(function, Integrand):
        if dim not in (None, function.dim) or domain is not None or kind != "auto" or steer is not None:
            raise ConfigError("dim, domain, kind and steer belong to the Integrand: set them there")
        integrand = function
    else:
        integrand = Integrand(function, dim, domain=domain, kind=kind, device=place, steer=steer)
    training = TrainingConfig() if training is None else checked("training", training, TrainingConfig)
    if events is not None:
        training = replace(training, events=checked("events", events, Natural))
    integration = IntegrationConfig() if integration is None else checked("integration", integration, IntegrationConfig)
    if calls is not None:
        half = checked("calls", calls, _Calls) // 2
        training, integration = replace(training, calls=half), replace(integration, points=half)
    config = ChainConfig(
        training, integration, UnweightingConfig() if unweighting is None else unweighting, seed, threads
    )
    counted = integrand.counts() if integrand is function else None
    with point_threads(threads), monitor_for(progress) as monitor:
        sharing = nullcontext(integrand) if executor is None else integrand.sharing(executor, tell=monitor.line)
        with sharing as integrand:
            chain = Chain(integrand, config, place, monitor, counted=counted)
            result = chain.integrate(chain.train(callback=callback, start=sampler))
    if integrand.kind == "scalar":
        warnings.warn(scalar_advice(integrand), ScalarFunctionWarning, stacklevel=2)
    return result
