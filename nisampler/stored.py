"""The stages of a chain as tensors and JSON, and back: what the folders `sampler/` and `integration/` hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.checkpoints import has_checkpoint, load_checkpoint, part, prefixed
from nisampler.base.device import resolve_device
from nisampler.base.estimates import Estimates
from nisampler.base.moments import Moments
from nisampler.base.storage import read_sealed, understood
from nisampler.base.versions import finite
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, MissingFunctionError, StorageError
from nisampler.integration.integrator import IntegrationResult
from nisampler.samplers.base import State
from nisampler.samplers.registry import sampler_from_state
from nisampler.training.costs import Choice
from nisampler.training.records import Candidate, Known, TrainingRecord, TrainingResult
from nisampler.unweighting.unweighter import Efficiencies

CHECKPOINT, SAMPLER, INTEGRATION, TWO_STAGE = "checkpoint", "sampler", "integration", "two_stage"
SECONDS, TIMELINE = "seconds.json", "timeline.json"
# Before the names of tensors that the function learned itself.
_FUNCTION = "function."
# Names of limits that say how often there was one to meet.
_TOTALS = ("points", "densities")

# Of the histogram of |w| over its mean: 200 bins for each of 16 decades.
_DECADES = (-10, 6)
_EDGES = np.geomspace(10.0 ** _DECADES[0], 10.0 ** _DECADES[1], 16 * 200 + 1)

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class WeightDistribution:
    """How the weights of an integration are distributed.

    Attributes
    ----------
    edges, counts
        Histogram of |w| over its mean, zeros left out: shapes (b + 1,) and (b,).
    mean
        Mean of |w|.
    overweight
        Fraction of the sum of |w| that lies above w_max.

    Examples
    --------
    >>> WeightDistribution.of(torch.tensor([1.0, 3.0]), max_weight=2.0).overweight
    0.25
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    mean: float
    overweight: float

    def __repr__(self) -> str:
        filled = np.flatnonzero(self.counts)
        ends = f", from {self.edges[filled[0]]:.2g} to {self.edges[filled[-1] + 1]:.2g} of it" if filled.size else ""
        return f"WeightDistribution({int(self.counts.sum())} weights, mean {self.mean:.6g}{ends})"

    @classmethod
    def of(cls, weights: Tensor, max_weight: float) -> Self:
        """The distribution of weights (n,) with this w_max.

        Examples
        --------
        >>> found = WeightDistribution.of(torch.tensor([1.0, -2.0, 0.0, 5.0]), 4.0)
        >>> found.mean, found.overweight, found.counts.sum().item()
        (2.0, 0.125, 3.0)
        """
        size = weights.abs()
        mean = float(size.mean())
        counts = torch.histc(torch.log10(size / mean), len(_EDGES) - 1, *_DECADES).cpu().numpy()
        return cls(_EDGES, counts, mean, float((size - max_weight).clamp(min=0.0).sum() / size.sum()))


@dataclass(frozen=True)
class Trained:
    """A training as it is stored: its result, the counters of the integrand at its end, and what that learned itself.

    >>> from nisampler.samplers.base import UniformSampler
    >>> trained = Trained(TrainingResult(UniformSampler(2), steps=5), calls={"training": 100}, counts={})
    >>> tensors, meta = trained.state()
    >>> meta["steps"], meta["calls"]
    (5, {'training': 100})
    """

    result: TrainingResult
    calls: Mapping[str, int]
    counts: Mapping[str, int]
    function: Mapping[str, Tensor] = field(default_factory=dict)

    def state(self) -> State:
        """Tensors and JSON metadata."""
        result = self.result
        tensors, sampler = result.sampler.state()
        return {**tensors, **prefixed(self.function, _FUNCTION)}, {
            "sampler": sampler,
            "history": plain(result.history),
            "candidates": plain(result.candidates),
            "warnings": list(result.warnings),
            "steps": result.steps,
            "steps_per_call": result.steps_per_call,
            "choice": None if result.choice is None else plain(result.choice),
            "known": plain(result.known),
            "calls": dict(self.calls),
            "counts": dict(self.counts),
        }

    @staticmethod
    def history(folder: Path) -> list[dict[str, Any]]:
        """The records of the training in a folder as plain data; no sampler is built."""
        _, meta = load_checkpoint(folder / SAMPLER)
        return list(meta["history"])

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> Self:
        """The training in a folder; CorruptFileError names what is damaged."""
        tensors, meta = load_checkpoint(folder / SAMPLER, device)
        function = part(tensors, _FUNCTION)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FUNCTION)}
        with understood(folder / SAMPLER):
            result = TrainingResult(
                sampler_from_state(own, meta["sampler"]),
                [filled(TrainingRecord, record) for record in meta["history"]],
                [filled(Candidate, candidate) for candidate in meta["candidates"]],
                list(meta["warnings"]),
                meta["steps"],
                meta["steps_per_call"],
                None if meta["choice"] is None else Choice.of(meta["choice"]),
                filled(Known, meta["known"]),
            )
            return cls(result, meta["calls"], meta["counts"], function)


@dataclass(frozen=True)
class Integrated:
    """An integration as it is stored: with its first points and weights, and the distribution of all weights.

    Attributes
    ----------
    result, efficiencies, max_weight, distribution
        The integral, and what its weights are worth with w_max.
    calls, counts
        Calls so far by stage, and the counters of the integrand at the end.
    two_stage
        Whether a surrogate is stored beside it.
    source
        What the integrand and its settings are, see `nisampler.result.Result.save`.

    Examples
    --------
    >>> from nisampler.integration.integrator import IntegrationConfig, Integrator
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand = Integrand(lambda x: 2 * x[:, 0], 1, kind="torch")
    >>> found = Integrator(integrand, UniformSampler(1), IntegrationConfig(points=1000)).run()
    >>> worth, spread = Efficiencies.of(found.weights, 2.0), WeightDistribution.of(found.weights, 2.0)
    >>> stored = Integrated(found, worth, 2.0, spread, calls={}, counts={}, two_stage=False, source={})
    >>> tensors, meta = stored.state()
    >>> sorted(tensors), meta["max_weight"]
    (['point_weights', 'points', 'weight_counts', 'weight_edges'], 2.0)
    """

    result: IntegrationResult
    efficiencies: Efficiencies
    max_weight: float
    distribution: WeightDistribution
    calls: Mapping[str, int]
    counts: Mapping[str, int]
    two_stage: bool
    source: Mapping[str, Any]

    def state(self) -> State:
        """Tensors and JSON metadata."""
        result, weights = self.result, self.distribution
        tensors = {"weight_edges": torch.from_numpy(weights.edges), "weight_counts": torch.from_numpy(weights.counts)}
        tensors |= {"points": result.points.cpu(), "point_weights": result.weights[: len(result.points)].cpu()}
        return tensors, {
            "estimates": result.estimates.to_dict(),
            "steered": result.steered,
            "batch_means": list(result.batch_means),
            "moments": plain(result.moments),
            "warnings": list(result.warnings),
            "mean_weight": weights.mean,
            "overweight_fraction": weights.overweight,
            "max_weight": self.max_weight,
            "efficiencies": plain(self.efficiencies),
            "calls": dict(self.calls),
            "counts": dict(self.counts),
            "two_stage": self.two_stage,
            "source": finite(dict(self.source)),
        }

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The integration in a folder; CorruptFileError names what is damaged."""
        tensors, meta = load_checkpoint(folder / INTEGRATION)
        with understood(folder / INTEGRATION):
            result = IntegrationResult(
                Estimates.from_dict(meta["estimates"]),
                meta["steered"],
                meta["batch_means"],
                filled(Moments, meta["moments"]),
                tensors["point_weights"],
                meta["warnings"],
                tensors["points"],
            )
            edges, counts = tensors["weight_edges"].numpy(), tensors["weight_counts"].numpy()
            distribution = WeightDistribution(edges, counts, meta["mean_weight"], meta["overweight_fraction"])
            efficiencies = filled(Efficiencies, meta["efficiencies"])
            rest = {name: meta[name] for name in ("max_weight", "calls", "counts", "two_stage", "source")}
        return cls(result=result, efficiencies=efficiencies, distribution=distribution, **rest)


@dataclass(frozen=True)
class AbsentFunction:
    """Stands for the function of a result that was read without it; a call says how to hand it in.

    Attributes
    ----------
    source
        What is stored of the function: its name, unit, domain, and whether it has channels.
    reason
        Why it is not there, if there is more to say.

    Examples
    --------
    >>> AbsentFunction({"name": "f", "unit": "pb"})(torch.rand(1, 2))
    Traceback (most recent call last):
    ...
    nisampler.errors.MissingFunctionError: its values: this needs the function f, which is not stored with a result; ...
    """

    source: Mapping[str, Any]
    reason: str = ""

    @property
    def name(self) -> str:
        """Of the function."""
        return str(self.source["name"])

    @property
    def unit(self) -> str:
        """Of its values."""
        return str(self.source["unit"])

    def __call__(self, x: Tensor) -> NoReturn:
        """MissingFunctionError."""
        raise self.error("its values")

    def error(self, wanted: str) -> MissingFunctionError:
        """What is missing for what is wanted."""
        text = f"{wanted}: this needs the function {self.name}, which is not stored with a result"
        return MissingFunctionError(
            f"{text}{f' ({self.reason})' if self.reason else ''}; hand it in by nisampler.load(folder, function)"
        )


def limits_line(limits: Mapping[str, int]) -> str:
    """What a function counted (see `Integrand.limits`), in a line; empty where there was nothing to count.

    >>> limits_line({"points": 1000, "scales below 1 GeV": 3, "densities": 26000, "densities below zero": 0})
    '3 scales below 1 GeV (of 1,000 points, 26,000 densities)'
    """
    found = [f"{count:,} {name}" for name, count in limits.items() if count and name not in _TOTALS]
    totals = [f"{limits[name]:,} {name}" for name in _TOTALS if name in limits]
    return ", ".join(found) + (f" (of {', '.join(totals)})" if totals else "") if found else ""


def is_stored(folder: Path | None, stage: str) -> bool:
    """Whether a folder holds this stage.

    >>> is_stored(None, SAMPLER)
    False
    """
    return folder is not None and has_checkpoint(folder / stage)


def require_stages(folder: Path) -> None:
    """StorageError unless a folder holds a sampler and its integral.

    >>> require_stages(Path("nowhere"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere holds no finished integration: `nisampler resume` finishes a run
    """
    if not (is_stored(folder, SAMPLER) and is_stored(folder, INTEGRATION)):
        raise StorageError(f"{folder} holds no finished integration: `nisampler resume` finishes a run")


def plain(data: Any) -> Any:
    """A dataclass, or a list of them, as JSON; what is not finite becomes None.

    >>> plain([Candidate("vegas", 0.3, math.nan)])
    [{'name': 'vegas', 'efficiency_0p1': 0.3, 'ess_fraction': None, 'chosen': False, 'seconds_per_event': None}]
    """
    return [plain(item) for item in data] if isinstance(data, list) else finite(asdict(data))


def filled(cls: type[T], data: Mapping[str, Any]) -> T:
    """The dataclass whose `plain` form this is: a number that JSON has no form for is NaN, and an error infinite.

    >>> filled(Candidate, {"name": "vegas", "efficiency_0p1": 0.3, "ess_fraction": None}).ess_fraction
    nan
    """
    numbers = {item.name for item in fields(cast(Any, cls)) if item.type in ("float", float)}
    missing = {name: math.inf if name == "error" else math.nan for name in numbers}
    return cls(**{name: missing.get(name) if value is None else value for name, value in data.items()})


def stored_integrand(
    source: Mapping[str, Any], function: Callable[..., Any] | Integrand | None, device: torch.device, reason: str
) -> Integrand:
    """The integrand of a stored result.

    >>> source = {"domain": [[0.0, 2.0]], "kind": "torch", "nonfinite": 0, "steer": None}
    >>> stored_integrand(source, lambda x: x[:, 0], torch.device("cpu"), "").volume
    2.0
    """
    dim = len(source["domain"])
    if isinstance(function, Integrand):
        if function.dim != dim:
            raise ConfigError(f"the result belongs to a function of {dim} coordinates, this one has {function.dim}")
        return function
    box, limit = source["domain"], source["nonfinite"]
    if function is None:
        return Integrand(AbsentFunction(source, reason), dim, domain=box, kind="torch", nonfinite=limit, device=device)
    kind, steer = source["kind"], source["steer"]
    return Integrand(function, dim, domain=box, kind=kind, nonfinite=limit, device=device, steer=steer)


def stored_device(name: str) -> torch.device:
    """The device that a result was made on, or the CPU where it is not there.

    >>> stored_device("cuda:99")
    device(type='cpu')
    """
    with suppress(ConfigError):
        return resolve_device(name)
    return torch.device("cpu")


def stored_seconds(folder: Path) -> dict[str, float]:
    """Seconds of each stage, as far as they are known.

    >>> stored_seconds(Path("nowhere"))
    {}
    """
    with suppress(StorageError, TypeError, ValueError):
        return {str(name): float(value) for name, value in read_sealed(folder / SECONDS).items()}
    return {}


@dataclass
class Timeline:
    """CPU-seconds of a training at numbers of calls, over all its sessions; they are told, and nothing depends on them.

    Attributes
    ----------
    calls, seconds
        Both increasing.

    Examples
    --------
    >>> timeline = Timeline()
    >>> for calls, seconds in ((100, 1.0), (200, 3.0), (150, 4.0)):
    ...     timeline.note(calls, seconds)
    >>> timeline.calls, timeline.seconds_at(np.array([50.0, 125.0])).tolist()
    ([100, 150], [0.5, 2.5])
    """

    calls: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self, calls: int, seconds: float) -> None:
        """Calls so far; what an earlier session did beyond them was lost, but its time was spent."""
        while self.calls and self.calls[-1] >= calls:
            self.calls.pop()
            self.seconds.pop()
        self.calls.append(calls)
        self.seconds.append(round(seconds, 3))

    def seconds_at(self, calls: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) at these calls (n,), between what was noted."""
        return np.interp(calls, [0, *self.calls], [0.0, *self.seconds])


def stored_timeline(folder: Path) -> Timeline | None:
    """The timeline of a training, None where it was not noted.

    >>> stored_timeline(Path("nowhere")) is None
    True
    """
    with suppress(StorageError, TypeError, ValueError, KeyError):
        data = read_sealed(folder / TIMELINE)
        calls, seconds = [int(n) for n in data["calls"]], [float(value) for value in data["seconds"]]
        if len(calls) == len(seconds):
            return Timeline(calls, seconds)
    return None
