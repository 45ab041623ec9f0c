"""The whole chain in one call: adapt, freeze, integrate, and be ready to unweight."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nisampler.base.device import cpu_threads, resolve_device
from nisampler.base.estimate import Estimate
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.density.values import Kind
from nisampler.errors import ConfigError
from nisampler.integration.integrator import IntegrationConfig, IntegrationResult, Integrator
from nisampler.samplers.base import Sampler
from nisampler.training.config import TrainingConfig
from nisampler.training.records import Progress, TrainingResult
from nisampler.training.trainer import Trainer
from nisampler.unweighting.two_stage import TwoStageUnweighter, two_stages
from nisampler.unweighting.unweighter import Efficiencies, UnweightedPoints, Unweighter, UnweightingConfig


@dataclass(frozen=True)
class Result:
    """An integral, the frozen sampler behind it, and what it is worth for unweighting.

    It prints as its estimate; `summary()` tells the rest, `unweight(n)` draws unit-weight points.
    """

    training: TrainingResult
    integration: IntegrationResult
    efficiencies: Efficiencies
    max_weight: float
    integrand: Integrand
    streams: Streams
    unweighting: UnweightingConfig
    calls: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    threads: int = 1
    stages: TwoStageUnweighter | None = None

    @property
    def events_per_call(self) -> float:
        """Expected unweighted events per integrand call."""
        return self.efficiencies.chosen if self.stages is None else 1.0 / self.stages.gain.calls_with

    @property
    def events_per_second(self) -> float:
        """Expected unweighted events per second, from the pace of the integration, or the costs behind two stages."""
        if self.stages is not None:
            return 1.0 / self.stages.gain.seconds_with
        return self.efficiencies.chosen * self.calls["integration"] / self.seconds["integration"]

    @property
    def estimate(self) -> Estimate:
        """Value and error."""
        return self.integration.estimate

    @property
    def sampler(self) -> Sampler:
        """The frozen proposal."""
        return self.training.sampler

    @property
    def warnings(self) -> list[str]:
        """What went wrong, or makes the error doubtful."""
        return self.training.warnings + self.integration.warnings

    def __str__(self) -> str:
        return str(self.estimate)

    def summary(self) -> str:
        """The result in a few lines, with every count and warning."""
        e, calls = self.efficiencies, self.calls
        lines = [
            self.estimate.summary(),
            f"sampler      {self.sampler.describe()}",
            *([] if self.training.choice is None else [f"choice       {self.training.choice.line()}"]),
            f"efficiency   {e.at_0p1:.3f} at 0.1 % overweight, {e.at_1:.3f} at 1 %, {e.strict:.3f} strict; "
            f"ESS/N {e.ess_fraction:.3f}, non-zero {e.cut:.3f}",
            f"unweighting  {self.events_per_call:.3g} events per call, {self.events_per_second:.3g} per second",
            *([] if self.stages is None else [f"two stages   {self.stages.gain.line()}"]),
            f"calls        {calls['detection']} to find the kind of function, {calls['training']} training, "
            f"{calls['integration']} integration; {calls['nonfinite']} not finite",
            f"steps        {self.training.steps}; each point of the training served {self.training.steps_per_call:.3g}",
        ]
        return "\n".join(lines + [f"warning      {warning}" for warning in self.warnings])

    def unweight(self, n: int, shard: int = 0) -> UnweightedPoints:
        """Exactly n points of the unit cube with unit weights (signed; overweight ones keep their excess).

        Raises
        ------
        EventCountError
            If they cannot be found within the configured number of trials.
        """
        unweighter = self.stages or Unweighter(
            self.integrand,
            self.sampler,
            self.max_weight,
            self.efficiencies.chosen,
            self.streams,
            self.unweighting,
        )
        with cpu_threads(self.threads):
            return unweighter.generate(n, shard)


def integrate(
    function: Callable[..., Any] | Integrand,
    dim: int | None = None,
    *,
    domain: Sequence[tuple[float, float]] | None = None,
    kind: Kind = "auto",
    seed: int = 0,
    device: str = "auto",
    training: TrainingConfig | None = None,
    integration: IntegrationConfig | None = None,
    unweighting: UnweightingConfig | None = None,
    on_progress: Callable[[Progress], bool | None] | None = None,
    threads: int = 1,
    events: int | None = None,
) -> Result:
    """Integrate a function over a box: learn a proposal, freeze it, estimate with it.

    Parameters
    ----------
    function
        Maps points (n, dim) to values (n,), as torch tensors or NumPy arrays, or one point (dim,) to a number; or an
        `Integrand`, which has more options.
    dim
        Number of coordinates, if neither `domain` nor the function tells it.
    domain
        One (low, high) pair for each coordinate; the unit cube by default.
    kind
        "torch", "numpy" or "scalar" instead of finding out.
    seed
        Same seed, same numbers.
    device
        "auto", "cpu" or "cuda".
    training, integration, unweighting
        Settings of the three parts.
    on_progress
        Called during the training; it may stop it by returning True, and what was learned is kept.
    threads
        Of the CPU, see `cpu_threads`.
    events
        Number of events that will be unweighted, instead of `training.events`: the sampler is chosen by the time they
        take, see `TrainingConfig`.

    Returns
    -------
    Result
        Prints as value with error, such as `0.98874(12)`.

    Raises
    ------
    NisamplerError
        A subclass that names what was wrong with the function or an option, and how to mend it.

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
    """
    place = resolve_device(device)
    if isinstance(function, Integrand):
        if dim not in (None, function.dim) or domain is not None or kind != "auto":
            raise ConfigError("dim, domain and kind belong to the Integrand: set them there")
        integrand = function
    else:
        integrand = Integrand(function, dim, domain=domain, kind=kind, device=place)
    streams, unweighting = Streams(seed), unweighting or UnweightingConfig()
    training, integration = training or TrainingConfig(), integration or IntegrationConfig()
    training = training if events is None else replace(training, events=events)
    counted = integrand.counts() if integrand is function else dict.fromkeys(integrand.counts(), 0)
    before, start = integrand.calls, time.perf_counter()
    with cpu_threads(threads):
        trained = Trainer(integrand, training, streams, place, callback=on_progress).fit()
        between, middle = integrand.calls, time.perf_counter()
        integration = integration.for_events(training.events or 0, trained.efficiency)
        result = Integrator(integrand, trained.sampler, integration, streams).run()
        seconds = {"training": middle - start, "integration": time.perf_counter() - middle}
        w_max = unweighting.max_weight(result.weights, streams)
        efficiencies = Efficiencies.of(result.weights, w_max)
        stages = two_stages(
            integrand, trained.sampler, result.weights, efficiencies, integration, unweighting, trained.choice, streams
        )
    calls = {
        "detection": before - counted["calls"],
        "training": between - before,
        "integration": integrand.calls - between,
        "nonfinite": integrand.nonfinite - counted["nonfinite"],
    }
    return Result(
        trained, result, efficiencies, w_max, integrand, streams, unweighting, calls, seconds, threads, stages
    )
