"""Two-stage unweighting: a cheap surrogate rejects most points before the integrand is called (2109.11964).

With a surrogate s of the weight, cut off at s_max, a point passes the first stage with probability s/s_max. Only then
is the integrand called, and the point is kept with probability min(1, |r|/r_max), r = w/s. Its weight is
sign(r) max(1, |r|/r_max): on average the two stages leave w/(s_max r_max), whatever s, s_max and r_max are, so the
events follow the integrand exactly and a bad surrogate costs only time. For a perfect one r is constant, and an event
takes one call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checks import Positive, settings
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at, importance_weights
from nisampler.density.integrand import Integrand
from nisampler.errors import CorruptFileError, NonFiniteError, ShapeError, UnweightingError
from nisampler.integration.integrator import IntegrationConfig, LatentPoints
from nisampler.samplers.base import Sampler, State
from nisampler.training.costs import Choice, Meter
from nisampler.unweighting.surrogate import Surrogate, SurrogateConfig
from nisampler.unweighting.unweighter import Efficiencies, Unweighter, UnweightingConfig


@settings
class StageCosts:
    """Seconds on which it depends whether two stages pay.

    Parameters
    ----------
    call
        Of the integrand at one point where it may be non-zero.
    point, surrogate
        Of drawing a point, and of the surrogate at one; by default those of one core of a server. None measures: such
        seconds are rounded, see `nisampler.training.costs`, but they influence s_max, and so the events of one seed
        may differ from run to run.

    Examples
    --------
    >>> StageCosts(call=1e-3).point
    2e-05
    """

    call: Positive
    point: Positive | None = tuning.SURROGATE_POINT
    surrogate: Positive | None = tuning.SURROGATE_POINT


@dataclass(frozen=True)
class TwoStageGain:
    """What two-stage unweighting is worth, as held-out points let expect.

    Attributes
    ----------
    first, second
        Fraction of all points that pass the first stage, and of these that are accepted.
    single
        Fraction of all points that one stage accepts at the same overweight.
    calls_without, calls_with
        Integrand calls of an event with one stage and with two. Points where the integrand is known to be zero, which
        lie outside the cuts of a process, are no calls.
    seconds_without, seconds_with
        Seconds of an event.
    preparation
        Seconds that fitting and testing the surrogate took.
    costs
        Seconds behind these: of a call, of drawing a point, and of the surrogate.

    Examples
    --------
    >>> gain = TwoStageGain(0.2, 0.8, 0.16, 5.0, 1.25, 5e-3, 1.3e-3, 40.0, {})
    >>> gain.calls, gain.pays(events=100_000)
    (4.0, True)
    """

    first: float
    second: float
    single: float
    calls_without: float
    calls_with: float
    seconds_without: float
    seconds_with: float
    preparation: float
    costs: dict[str, float]

    @property
    def calls(self) -> float:
        """How many times fewer calls an event takes."""
        return self.calls_without / self.calls_with

    def pays(self, events: int) -> bool:
        """Whether so many events are made sooner with two stages, the preparation included."""
        return events * self.seconds_with + self.preparation < events * self.seconds_without

    def line(self) -> str:
        """One line for a summary.

        >>> TwoStageGain(0.2, 0.8, 0.16, 5.0, 1.25, 5e-3, 1.3e-3, 40.0, {}).line()
        '1.25 calls an event instead of 5 (first stage 0.2, second 0.8); 0.0013 s instead of 0.005 s, 40 s to prepare'
        """
        return (
            f"{self.calls_with:.3g} calls an event instead of {self.calls_without:.3g} (first stage {self.first:.3g}, "
            f"second {self.second:.3g}); {self.seconds_with:.2g} s instead of {self.seconds_without:.2g} s, "
            f"{self.preparation:.3g} s to prepare"
        )


def worth_preparing(events: int, single: float, inside: float, costs: StageCosts, preparation: float) -> bool:
    """Whether two stages could pay at all for so many events, with a surrogate that follows every weight.

    Parameters
    ----------
    events
        To be made.
    single
        Unweighting efficiency of one stage.
    inside
        Fraction of the points that cost a call.
    costs, preparation
        Seconds of a call and of the surrogate at every point, and of a preparation as far as they can be foreseen.

    >>> worth_preparing(100_000, single=0.1, inside=1.0, costs=StageCosts(call=1e-3), preparation=60.0)
    True
    >>> worth_preparing(10**9, single=0.1, inside=1.0, costs=StageCosts(call=1e-5), preparation=60.0)
    False
    """
    surrogate = costs.surrogate or tuning.SURROGATE_POINT
    saved = (inside * costs.call - surrogate) / max(single, 1e-9) - costs.call
    return events * saved > preparation


class TwoStageUnweighter(Unweighter):
    """Draws unit-weight events in two stages; in all else it is an `Unweighter`.

    Parameters
    ----------
    surrogate
        Stands for |w|; its integrand is called for the points that pass the first stage.
    sampler
        The frozen proposal.
    max_surrogate, max_ratio
        s_max and r_max, positive; s is cut off at s_max.
    gain
        What is expected of it.
    streams, config
        As for `Unweighter`.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand, sampler = Integrand(lambda x: 2 * x[:, 0], 1, kind="torch"), UniformSampler(1)
    >>> surrogate = Surrogate(integrand, sampler)
    >>> u = torch.rand(256, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> _ = surrogate.fit(u, torch.zeros(256), 2 * u[:, 0], SurrogateConfig(hidden=8, layers=1, steps=2), Streams(0))
    >>> gain = TwoStageGain(0.5, 0.5, 0.5, 2.0, 2.0, 1.0, 1.0, 0.0, {})
    >>> TwoStageUnweighter(surrogate, sampler, 2.0, 2.0, gain, Streams(0)).generate(10).x.shape
    torch.Size([10, 1])
    """

    _decisions = 2

    def __init__(
        self,
        surrogate: Surrogate,
        sampler: Sampler,
        max_surrogate: float,
        max_ratio: float,
        gain: TwoStageGain,
        streams: Streams,
        config: UnweightingConfig | None = None,
    ) -> None:
        for name, value in (("s_max", max_surrogate), ("r_max", max_ratio)):
            if not 0.0 < value < math.inf:
                raise UnweightingError(f"{name} must be positive and finite, got {value}")
        efficiency = gain.first * gain.second
        super().__init__(surrogate.integrand, sampler, max_surrogate * max_ratio, efficiency, streams, config)
        self.surrogate, self.max_surrogate, self.max_ratio = surrogate, max_surrogate, max_ratio
        self.gain = gain

    def _try(self, latent: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, log_q = self.sampler.map(latent)
        proposed = _cut_off(self.surrogate(u, log_q), self.max_surrogate)
        passed = torch.nonzero(thresholds[0] * self.max_surrogate < proposed).squeeze(1)
        weights = importance_weights(self.integrand(u[passed]), log_q[passed])
        ratio = torch.zeros_like(log_q).index_copy(0, passed, weights / proposed[passed] / self.max_ratio)
        return u, ratio, thresholds[1] < ratio.abs()

    def state(self) -> State:
        """Tensors and JSON metadata for `load`."""
        tensors, meta = self.surrogate.state()
        maxima = {"max_surrogate": self.max_surrogate, "max_ratio": self.max_ratio}
        return tensors, {"surrogate": meta, **maxima, "gain": asdict(self.gain)}

    @classmethod
    def load(
        cls, integrand: Integrand, sampler: Sampler, state: State, streams: Streams, config: UnweightingConfig | None
    ) -> TwoStageUnweighter:
        """The unweighter whose `state` this is: it makes the same events.

        Raises
        ------
        CorruptFileError
            If the state does not fit together.
        """
        tensors, meta = state
        try:
            gain, maxima = TwoStageGain(**meta["gain"]), (meta["max_surrogate"], meta["max_ratio"])
            surrogate = Surrogate.load(integrand, sampler, tensors, meta["surrogate"])
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"the stored two-stage unweighting cannot be rebuilt: {error}") from error
        return cls(surrogate, sampler, *maxima, gain, streams, config)


def prepare_two_stage(
    integrand: Integrand,
    sampler: Sampler,
    weights: Tensor,
    costs: StageCosts,
    streams: Streams,
    integration: IntegrationConfig | None = None,
    unweighting: UnweightingConfig | None = None,
    config: SurrogateConfig | None = None,
    kind: type[Surrogate] = Surrogate,
) -> TwoStageUnweighter:
    """Fit a surrogate to the points of an integration, and set the maxima by points that it has not seen.

    The integrand is not called: the points of the integration are made again. What to expect is in `gain`.

    Parameters
    ----------
    integrand, sampler
        What was integrated, and the frozen proposal.
    weights
        `IntegrationResult.weights` (n,), as they were kept.
    costs
        Seconds of an integrand call, and of other things.
    streams, integration
        Those of the integration.
    unweighting
        Policy for the maxima: the fraction `overweight` of the integral lies above s_max r_max altogether.
    config, kind
        Of the surrogate, and its class.

    Raises
    ------
    ShapeError
        If these weights cannot be those of that integration.
    UnweightingError
        If hardly any weight is different from zero.
    TrainingDivergedError
        If the training of the surrogate fails.

    Examples
    --------
    >>> from nisampler.integration.integrator import Integrator
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand, sampler = Integrand(lambda x: 2 * x[:, 0], 1, kind="torch"), UniformSampler(1)
    >>> points, quick = IntegrationConfig(points=1000), SurrogateConfig(hidden=8, layers=1, steps=5)
    >>> weights = Integrator(integrand, sampler, points, Streams(0)).run().weights
    >>> cost = StageCosts(call=1e-3)
    >>> stages = prepare_two_stage(integrand, sampler, weights, cost, Streams(0), points, config=quick)
    >>> stages.generate(10).x.shape
    torch.Size([10, 1])
    """
    start, meter = perf_counter(), Meter()
    unweighting = unweighting or UnweightingConfig()
    with meter.timed("point", min(len(weights), tuning.SURROGATE_POINTS)):
        u, log_q = points_again(sampler, len(weights), streams, integration or IntegrationConfig())
    size = weights[: len(u)].abs().to(u.device)
    if size.shape != log_q.shape:
        raise ShapeError(f"expected weights of shape (n,), got {tuple(weights.shape)}")
    seen = _seen(len(u))
    surrogate = kind(integrand, sampler)
    surrogate.fit(u[:seen], log_q[:seen], size[:seen], config or SurrogateConfig(), streams)
    with meter.timed("surrogate", len(u) - seen):
        values = surrogate(u[seen:], log_q[seen:])
    seconds = {name: value or meter.seconds(name) for name, value in asdict(costs).items()}
    options = [_stages(values, size[seen:], cut, unweighting, streams) for cut in tuning.SURROGATE_CUTS]
    best = min(options, key=lambda stages: stages.seconds(seconds))
    max_weight = unweighting.max_weight(weights, streams)
    gain = _gain(best, values, weights.abs(), max_weight, seconds, perf_counter() - start)
    return TwoStageUnweighter(surrogate, sampler, best.max_surrogate, best.max_ratio, gain, streams, unweighting)


def two_stages(
    integrand: Integrand,
    sampler: Sampler,
    weights: Tensor,
    efficiencies: Efficiencies,
    config: IntegrationConfig,
    unweighting: UnweightingConfig,
    choice: Choice | None,
    streams: Streams,
) -> TwoStageUnweighter | None:
    """The two-stage unweighter of an integrated sampler if it is wanted or pays; None where one stage is better.

    Parameters
    ----------
    integrand, sampler
        What was integrated, and the frozen proposal.
    weights, efficiencies
        `IntegrationResult.weights` (n,), and what they are worth in one stage.
    config, streams
        How the integration was made, and its source of random numbers.
    unweighting
        Says whether two stages are wanted.
    choice
        How the sampler was chosen for a number of events: its costs decide.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand, sampler = Integrand(lambda x: 2 * x[:, 0], 1, kind="torch"), UniformSampler(1)
    >>> weights, never = torch.ones(100), UnweightingConfig(two_stage="never")
    >>> worth = Efficiencies.of(weights, 1.0)
    >>> two_stages(integrand, sampler, weights, worth, IntegrationConfig(), never, None, Streams(0)) is None
    True
    """
    wish, costs = unweighting.two_stage, StageCosts(tuning.COSTLY_CALL)
    if wish == "never":
        return None
    if choice is not None and choice.events and choice.costs.get("call", 0.0):
        costs = _known_costs(choice, efficiencies)
        if wish == "auto" and not _promising(choice, costs, efficiencies, len(weights)):
            return None
    elif wish == "auto":
        return None
    found = prepare_two_stage(integrand, sampler, weights, costs, streams, config, unweighting)
    return found if wish == "always" or found.gain.seconds_with < found.gain.seconds_without else None


def _known_costs(choice: Choice, efficiencies: Efficiencies) -> StageCosts:
    """Costs by which a sampler was chosen. A call is one where the integrand may be non-zero."""
    # drawing a point and evaluating the surrogate cost about as much as a flow does
    flow = choice.costs.get("large", tuning.SURROGATE_POINT)
    return StageCosts(choice.costs["call"] / efficiencies.cut, flow, flow)


def _promising(choice: Choice, costs: StageCosts, efficiencies: Efficiencies, points: int) -> bool:
    """Whether a perfect surrogate of so many points would be worth its preparation."""
    steps = SurrogateConfig().steps_for(_seen(min(points, tuning.SURROGATE_POINTS)))
    preparation = tuning.SURROGATE_STEP * steps
    return worth_preparing(choice.events, efficiencies.chosen, efficiencies.cut, costs, preparation)


def _seen(points: int) -> int:
    """How many of the points a surrogate learns from; the others are held out."""
    return round((1.0 - tuning.HELD_OUT) * points)


def points_again(sampler: Sampler, n: int, streams: Streams, integration: IntegrationConfig) -> tuple[Tensor, Tensor]:
    """The first n points of an integration (or 2^20 if it had more) again: u (n, dim), and log q(u) (n,).

    >>> from nisampler.samplers.base import UniformSampler
    >>> u, log_q = points_again(UniformSampler(2), 5, Streams(0), IntegrationConfig(points=1000))
    >>> u.shape, log_q.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    size = integration.shape()[1]
    n = min(n, tuning.SURROGATE_POINTS)
    latent = LatentPoints(size, sampler.dim, streams, integration.method, sampler.device)
    parts = [sampler.map(latent.batches(range(index, index + 1))) for index in range(-(-n // size))]
    return torch.cat([u for u, _ in parts])[:n], torch.cat([log_q for _, log_q in parts])[:n]


def _cut_off(values: Tensor, most: float) -> Tensor:
    """The surrogate (n,) up to s_max."""
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError("a value of the surrogate is not finite: divide the integrand by a constant")
    return values.clamp(max=most)


@dataclass(frozen=True)
class _Stages:
    """Maxima, and the fractions of the points that pass the first stage and, of these, the second."""

    max_surrogate: float
    max_ratio: float
    first: float
    second: float

    def seconds(self, costs: Mapping[str, float]) -> float:
        """Seconds of an event."""
        return (costs["call"] + (costs["point"] + costs["surrogate"]) / self.first) / self.second


def _stages(values: Tensor, weights: Tensor, cut: float, unweighting: UnweightingConfig, streams: Streams) -> _Stages:
    """Stages with the share `cut` of the surrogate's sum above s_max, for values of it (n,) and |w| (n,)."""
    most = efficiencies_at(values, [cut])[0][0]
    proposed = _cut_off(values, most)
    inside = proposed > 0.0
    if bool((weights[~inside] > 0.0).any()):
        raise UnweightingError("the surrogate vanishes where the integrand does not: check the support of the channels")
    ratio = weights[inside] / proposed[inside]
    max_ratio = unweighting.max_weight(ratio, streams, proposed[inside])
    accepted = float((proposed[inside] * (ratio / max_ratio).clamp(max=1.0)).sum() / proposed.sum())
    return _Stages(most, max_ratio, float(proposed.mean()) / most, accepted)


def _gain(
    stages: _Stages, values: Tensor, weights: Tensor, max_weight: float, costs: dict[str, float], preparation: float
) -> TwoStageGain:
    """What these stages save; `weights` are all |w| of the integration."""
    inside = float((values > 0.0).double().mean())
    single = float((weights / max_weight).clamp(max=1.0).mean())
    return TwoStageGain(
        first=stages.first,
        second=stages.second,
        single=single,
        calls_without=inside / single,
        calls_with=1.0 / stages.second,
        seconds_without=(inside * costs["call"] + costs["point"]) / single,
        seconds_with=stages.seconds(costs),
        preparation=preparation,
        costs=costs,
    )
