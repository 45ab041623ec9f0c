"""An integral, the frozen sampler behind it, and what it is worth for unweighting; saved, loaded and sent around."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.checks import Count, Natural, checked
from nisampler.base.device import point_threads, resolve_device
from nisampler.base.estimate import Estimate
from nisampler.base.estimates import Estimates
from nisampler.base.locks import LOCK_NAME
from nisampler.base.outputs import atomic_folder
from nisampler.base.rng import Streams
from nisampler.base.storage import understood, write_sealed
from nisampler.density.channels import multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.errors import MissingFunctionError
from nisampler.figures import Figures
from nisampler.integration.integrator import IntegrationResult
from nisampler.samplers.base import Sampler
from nisampler.stored import (
    INTEGRATION,
    SAMPLER,
    SECONDS,
    TWO_STAGE,
    AbsentFunction,
    Integrated,
    Trained,
    WeightDistribution,
    limits_line,
    require_stages,
    stored_device,
    stored_integrand,
    stored_seconds,
)
from nisampler.training.records import TrainingResult
from nisampler.ui.page import Table
from nisampler.unweighting.explanation import Explanation, explain, quantities_of
from nisampler.unweighting.points import WeightedPoints
from nisampler.unweighting.two_stage import TwoStageUnweighter
from nisampler.unweighting.unweighter import (
    Efficiencies,
    UnweightedPoints,
    Unweighter,
    UnweightingConfig,
    physical_points,
)

# Stages that call the function, in words.
_CALLS = {"detection": "to find its kind", "training": "training", "integration": "integration"}

# Names in `Result.calls` that are no limits.
_COUNTED = (*_CALLS, "nonfinite")
# Points of a weighted sample that the function gets at once.
_BATCH = 65_536


@dataclass(frozen=True, repr=False)
class Result:
    """An integral, the frozen sampler behind it, and what it is worth for unweighting.

    It prints as its estimate; `summary()` tells the rest, `plot` has its figures, `unweight(n)` draws unit-weight
    points, `sample(n)` weighted ones, `save(folder)` stores it for `nisampler.load`. A notebook shows it as a table.

    Attributes
    ----------
    training
        The frozen sampler and the record of its training.
    integration
        Estimate, batches and moments. Of a result that was read, only the weights of its first points.
    distribution
        Histogram of the weights.
    efficiencies, max_weight
        What the weights are worth, and w_max.
    integrand
        The function, seen on the unit cube.
    streams, unweighting, threads
        Source of random numbers, and settings of the unweighting.
    calls, seconds
        Of each stage; calls "nonfinite" counts values that were NaN or infinite, further names are those of `limits`.
    stages
        Draws points in two stages, where that is wanted or pays.

    Examples
    --------
    >>> import nisampler
    >>> quick = {
    ...     "training": nisampler.TrainingConfig(calls=5000),
    ...     "integration": nisampler.IntegrationConfig(points=4096),
    ... }
    >>> result = nisampler.integrate(lambda x: 2 * x[:, 0], domain=[(0, 3), (5, 6)], **quick)
    >>> abs(result.estimate.value - 9) < 5 * result.estimate.error
    True
    >>> points = result.sample(100)
    >>> points.x.shape, bool((points.x[:, 1] >= 5).all())
    (torch.Size([100, 2]), True)
    """

    training: TrainingResult
    integration: IntegrationResult
    distribution: WeightDistribution
    efficiencies: Efficiencies
    max_weight: float
    integrand: Integrand
    streams: Streams
    unweighting: UnweightingConfig
    calls: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    stages: TwoStageUnweighter | None = None

    @property
    def estimate(self) -> Estimate:
        """Value and error."""
        return self.integration.estimate

    @property
    def estimates(self) -> Estimates:
        """All integrals of the function, with their covariance."""
        return self.integration.estimates

    def __getitem__(self, key: str | int) -> Estimate:
        """One of several integrals, by its name or number."""
        return self.estimates[key]

    @property
    def sampler(self) -> Sampler:
        """The frozen proposal."""
        return self.training.sampler

    @property
    def signed(self) -> bool:
        """Whether a weight was negative."""
        return self.integration.moments.negatives > 0

    @property
    def events_per_call(self) -> float:
        """Expected unweighted events per integrand call."""
        return self.efficiencies.chosen if self.stages is None else 1.0 / self.stages.gain.calls_with

    @property
    def events_per_second(self) -> float:
        """Expected unweighted events per second, from the pace of the integration, or the costs behind two stages.

        NaN where the pace is not known.
        """
        if self.stages is not None:
            return 1.0 / self.stages.gain.seconds_with
        return self.efficiencies.chosen * self.calls["integration"] / self.seconds.get("integration", math.nan)

    @property
    def limits(self) -> dict[str, int]:
        """What the function counted while it was integrated, by name; see `Integrand.limits`."""
        return {name: count for name, count in self.calls.items() if name not in _COUNTED}

    @property
    def trusted(self) -> bool:
        """Whether the error can be trusted; if not, the result prints with the mark `(?)`, and `warnings` say why."""
        return self.estimate.trusted

    @property
    def warnings(self) -> list[str]:
        """What went wrong, makes the error doubtful, or is slow."""
        found = [*self.training.warnings, *self.integration.warnings]
        return [*found, scalar_advice(self.integrand)] if self.integrand.kind == "scalar" else found

    @property
    def plot(self) -> Figures:
        """Its figures: `plot.training()`, `plot.weights()`, `plot.marginals()`."""
        box = None if multichannel_of(self.integrand.function, 1) is not None else self.integrand.domain
        return Figures(self.training, self.distribution, self.max_weight, box, self.sample)

    def __str__(self) -> str:
        return str(self.estimate)

    def __repr__(self) -> str:
        value, efficiency = f"{self.estimate} {self.estimate.unit}".rstrip(), 100 * self.efficiencies.at_0p1
        calls = sum(self.calls.get(stage, 0) for stage in _CALLS)
        return (
            f"Result({value}, relative error {self.estimate.relative_error:.1e}, {self.sampler.describe()}, "
            f"efficiency {efficiency:.1f} %, {calls:,} calls)"
        )

    def _repr_html_(self) -> str:
        """The result as a table, for notebooks."""
        e, estimate, gain = self.efficiencies, self.estimate, self.stages
        agreement = f"{estimate.chi2_per_dof:.2f} (dof {estimate.dof}, Q {estimate.q_value:.2g})"
        several = len(self.estimates) > 1
        rows = [
            *[(name if several else "integral", _with_unit(found)) for name, found in self.estimates.items()],
            ("relative error", f"{estimate.relative_error:.2g}"),
            *([("χ²/dof", agreement)] if estimate.dof else []),
            ("unweighting efficiency", f"{_percent(e.at_0p1)} at 0.1 % overweight"),
            ("", f"{_percent(e.at_1)} at 1 %, {_percent(e.strict)} at the largest weight"),
            ("effective sample size", f"{_percent(e.ess_fraction)} of the points"),
            *([] if gain is None else [("two stages", gain.gain.line())]),
            ("sampler", self.sampler.describe()),
            ("calls", ", ".join(f"{self.calls.get(stage, 0):,} {words}" for stage, words in _CALLS.items())),
            *([("limits", found)] if (found := limits_line(self.limits)) else []),
            *[("warning", warning) for warning in self.warnings],
        ]
        return Table(self.integrand.name, rows, inline=True).html()

    def summary(self) -> str:
        """The result in a few lines, with every count and warning."""
        e, calls, choice = self.efficiencies, self.calls, self.training.choice
        lines = [
            self.estimate.summary(),
            *([f"integrals    {self.estimates}"] if len(self.estimates) > 1 else []),
            f"sampler      {self.sampler.describe()}",
            *([] if choice is None else [f"choice       {choice.line()}"]),
            f"efficiency   {e.at_0p1:.3f} at 0.1 % overweight, {e.at_1:.3f} at 1 %, {e.strict:.3f} strict; "
            f"ESS/N {e.ess_fraction:.3f}, non-zero {e.cut:.3f}",
            f"unweighting  {self.events_per_call:.3g} events per call, {self.events_per_second:.3g} per second",
            *([] if self.stages is None else [f"two stages   {self.stages.gain.line()}"]),
            f"calls        {calls['detection']} to find the kind of function, {calls['training']} training, "
            f"{calls['integration']} integration; {calls['nonfinite']} not finite",
            *([f"limits       {found}"] if (found := limits_line(self.limits)) else []),
            *(["function     called with one point at a time"] if self.integrand.kind == "scalar" else []),
            f"steps        {self.training.steps}; each point of the training served {self.training.steps_per_call:.3g}",
        ]
        return "\n".join(lines + [f"warning      {warning}" for warning in self.warnings])

    def unweight(self, n: int, shard: int = 0) -> UnweightedPoints:
        """Exactly n points of the domain with unit weights (signed; overweight ones keep their excess).

        Parameters
        ----------
        n
            How many.
        shard
            Another number gives other points; fewer points are the first ones of more.

        Raises
        ------
        EventCountError
            If they cannot be found within the configured number of trials.
        MissingFunctionError
            If the result was read without its function.
        """
        with point_threads(self.threads):
            return self.unweighter().generate(n, shard)

    def unweighter(self, streams: Streams | None = None) -> Unweighter:
        """What draws the unit-weight points, in one stage or two; with other `streams` it draws other ones.

        Raises
        ------
        MissingFunctionError
            If the result was read without its function.
        """
        if isinstance(self.integrand.function, AbsentFunction):
            raise self.integrand.function.error("unit-weight points")
        if self.stages is not None:
            return self.stages.with_streams(streams or self.streams)
        efficiency, w_max = self.efficiencies.chosen, self.max_weight
        return Unweighter(self.integrand, self.sampler, w_max, efficiency, streams or self.streams, self.unweighting)

    def sample(self, n: int, shard: int = 0) -> WeightedPoints:
        """Exactly n independent points of the frozen sampler with weights f/q, whose mean is the integral.

        Without the function the points know neither values nor weights.

        Parameters
        ----------
        n
            How many.
        shard
            Another number gives other points.
        """
        generator = self.streams.generator("sample", checked("shard", shard, Natural), device=self.sampler.device)
        with point_threads(self.threads):
            u, log_q = self.sampler.sample(checked("n", n, Count), generator)
            volume, absent = self.integrand.volume, self.integrand.function
            x: Tensor | MissingFunctionError
            values: Tensor | MissingFunctionError
            if isinstance(absent, AbsentFunction):
                x = (
                    absent.error("points of channels")
                    if absent.source["channels"]
                    else physical_points(self.integrand, u)
                )
                values = absent.error("values and weights")
            else:
                view = self.sampler.view(self.integrand)
                x = physical_points(self.integrand, u)
                values = torch.cat([view(part).to(u.device) for part in torch.split(u, _BATCH)]) / volume
        return WeightedPoints(u, log_q - math.log(volume), x, values)

    def explain(self, n: int = 100_000, worst: int = 100, shard: int = 0) -> Explanation:
        """What the largest weights of n fresh points have in common: coordinates, channels, momenta, edges of cuts.

        Parameters
        ----------
        n, worst
            Points that are drawn, each with a call of the function, and how many of them count as the worst.
        shard
            Another number draws other points.

        Raises
        ------
        MissingFunctionError
            If the result was read without its function.
        ConfigError
            If there are fewer than ten worst points, or not ten times as many in all.
        """
        points = self.sample(n, shard)
        channels = multichannel_of(self.integrand.function)
        return explain(points.u, points.weights, quantities_of(self.integrand, points.u), worst, channels)

    def save(self, folder: str | Path) -> Path:
        """Store everything but the function: sampler, integral and surrogate, as a run directory holds them.

        The files are safetensors and JSON, with checksums. The folder appears complete or not at all.

        Parameters
        ----------
        folder
            A new or empty one.

        Returns
        -------
        Path
            The folder, for `nisampler.load`.

        Raises
        ------
        StorageError
            If the folder holds anything, or cannot be written.
        """
        target = Path(folder)
        with atomic_folder(target) as (temporary, lock), lock:
            self.write(temporary)
            (temporary / LOCK_NAME).unlink()
        return target

    def write(self, folder: Path) -> None:
        """The stages as `save` stores them, in a folder that is there."""
        trained = Trained(self.training, self.calls, self.integrand.counts(), self.integrand.learned())
        save_checkpoint(folder / SAMPLER, *trained.state())
        self.write_integration(folder)
        write_sealed(folder / SECONDS, dict(self.seconds))

    def write_integration(self, folder: Path) -> None:
        """The integral and the surrogate, in the folder of their sampler."""
        if self.stages is not None:
            save_checkpoint(folder / TWO_STAGE, *self.stages.state())
        stored = Integrated(
            result=self.integration,
            efficiencies=self.efficiencies,
            max_weight=self.max_weight,
            distribution=self.distribution,
            calls=self.calls,
            counts=self.integrand.counts(),
            two_stage=self.stages is not None,
            source=self._source(),
        )
        save_checkpoint(folder / INTEGRATION, *stored.state())

    def _source(self) -> dict[str, Any]:
        """What the function and the settings were, for a reader that has neither."""
        integrand = self.integrand
        if isinstance(integrand.function, AbsentFunction):
            return dict(integrand.function.source)
        return {
            "name": integrand.name,
            "unit": integrand.unit,
            "channels": multichannel_of(integrand.function, 1) is not None,
            "domain": integrand.domain.tolist(),
            "kind": integrand.kind,
            "nonfinite": integrand.allowed_nonfinite,
            "steer": integrand.names[integrand.steered] if integrand.names else None,
            "seed": self.streams.seed,
            "device": str(self.sampler.device),
            "unweighting": asdict(self.unweighting),
        }

    @classmethod
    def load(
        cls,
        folder: str | Path,
        function: Callable[..., Any] | Integrand | None = None,
        device: str | None = None,
        reason: str = "",
    ) -> Self:
        """The result that `save` stored, or that a run left; see `nisampler.load`, which also builds processes by name.

        `reason` is added to the message about a missing function.
        """
        place = Path(folder)
        require_stages(place)
        with understood(place):
            stored = Integrated.read(place)
            where = stored_device(stored.source["device"]) if device is None else resolve_device(device)
            trained = Trained.read(place, where)
            return cls.of(place, trained, stored, stored_integrand(stored.source, function, where, reason))

    @classmethod
    def of(cls, folder: Path, trained: Trained, stored: Integrated, integrand: Integrand, threads: int = 1) -> Self:
        """The result of stages that were read from a folder, with the surrogate that lies beside them."""
        sampler, source = trained.result.sampler, stored.source
        integrand.restore_learned(trained.function)
        streams, unweighting = Streams(source["seed"]), UnweightingConfig(**source["unweighting"])
        stages = None
        if stored.two_stage:
            state = load_checkpoint(folder / TWO_STAGE, sampler.device)
            stages = TwoStageUnweighter.load(integrand, sampler, state, streams, unweighting)
        return cls(
            training=trained.result,
            integration=stored.result,
            distribution=stored.distribution,
            efficiencies=stored.efficiencies,
            max_weight=stored.max_weight,
            integrand=integrand,
            streams=streams,
            unweighting=unweighting,
            calls=stored.calls,
            seconds=stored_seconds(folder),
            threads=threads,
            stages=stages,
        )


def _with_unit(estimate: Estimate) -> str:
    return f"{estimate:pm} {estimate.unit}".rstrip()


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def scalar_advice(integrand: Integrand) -> str:
    """What to tell about a function that takes one point at a time.

    >>> scalar_advice(Integrand(lambda x: x[0], 1, kind="scalar"))
    '... is called with one point at a time, which is slow: let it take points (n, 1) and return values (n,), ...'
    """
    return (
        f"{integrand.name} is called with one point at a time, which is slow: let it take points (n, {integrand.dim}) "
        "and return values (n,), as in `def f(x): return x[:, 0] * x[:, 1]`"
    )
