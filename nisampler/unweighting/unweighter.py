"""From weighted points to unit-weight events: max-weight policies and streaming accept–reject.

A point is kept with probability min(1, |w|/w_max) and gets the weight sign(w) · max(1, |w|/w_max): points above w_max
keep their excess, so the events are unbiased whatever w_max is.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checks import Count, Finite, Fraction, Natural, checked, settings
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at, importance_weights, kish_ess
from nisampler.density.channels import multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.errors import EventCountError, UnweightingError
from nisampler.samplers.base import Sampler


@settings
class UnweightingConfig:
    """How the maximal weight is chosen, and when to give up.

    Parameters
    ----------
    policy
        "overweight": the weights above w_max carry the fraction `overweight` of the integral. "strict": the largest
        weight seen. "quantile": the fraction `overweight` of the *points* lies above. "bootstrap": the median of the
        largest weights of resampled sets of points (2001.10028).
    overweight
        That fraction.
    max_trials
        Most trials per requested event before `EventCountError`; it comes earlier, after a thousand times as many
        trials as the integration lets expect.
    two_stage
        Whether a surrogate of the weight rejects points before the integrand is called, see
        `nisampler.unweighting.two_stage`. "auto": where the costs behind the choice of the sampler
        (`TrainingConfig.events`) say that it pays. "always", "never".

    Examples
    --------
    >>> UnweightingConfig("strict").max_weight(torch.tensor([1.0, -3.0]), Streams(0))
    3.0
    """

    policy: Literal["overweight", "strict", "quantile", "bootstrap"] = "overweight"
    overweight: Fraction = 1e-3
    max_trials: Annotated[Finite, Field(ge=1.0)] = 1e6
    two_stage: Literal["auto", "always", "never"] = "auto"

    def max_weight(self, weights: Tensor, streams: Streams, counts: Tensor | None = None) -> float:
        """w_max for the weights (n,) of an integration, each of which stands for `counts` (n,) points, one by default.

        Raises
        ------
        UnweightingError
            If all weights are zero.
        """
        if self.policy in ("overweight", "strict"):
            fraction = self.overweight if self.policy == "overweight" else 0.0
            return efficiencies_at(weights, [fraction], counts)[0][0]
        if counts is not None:
            total, regular = counts.double().cumsum(0), torch.arange(len(counts), device=counts.device) + 0.5
            weights = weights[torch.searchsorted(total, regular * (total[-1] / len(counts))).clamp(max=len(counts) - 1)]
        size = np.sort(weights.abs().cpu().numpy())
        if not size.size or size[-1] == 0.0:
            raise UnweightingError("all weights are zero: there is nothing to unweight")
        if self.policy == "quantile":
            return float(size[max(0, math.ceil((1.0 - self.overweight) * size.size) - 1)]) or float(size[-1])
        # The largest of n resampled ordered weights is size[floor(n max(u))]; max(u) is distributed as u^(1/n).
        largest = streams.numpy("bootstrap").random(tuning.BOOTSTRAPS) ** (1.0 / size.size)
        index = np.minimum((largest * size.size).astype(np.int64), size.size - 1)
        return float(np.median(size[index]))


@dataclass(frozen=True)
class Efficiencies:
    """What a set of weights f/q is worth for unweighting.

    Attributes
    ----------
    strict, at_0p1, at_1
        ⟨|w|⟩/w_max with w_max the largest weight, and such that the weights above it carry 0.1 % or 1 % of the sum.
    ess_fraction
        Kish's effective sample size over the number of points.
    cut
        Fraction of points with a non-zero weight.
    chosen
        Efficiency at the w_max in use.

    Examples
    --------
    >>> Efficiencies.of(torch.tensor([1.0, 1.0, 2.0, 0.0]), 2.0).strict
    0.5
    """

    strict: float
    at_0p1: float
    at_1: float
    ess_fraction: float
    cut: float
    chosen: float

    @classmethod
    def of(cls, weights: Tensor, max_weight: float) -> Efficiencies:
        """Efficiencies of weights (n,); the chosen one counts each kept point once."""
        strict, at_0p1, at_1 = (efficiency for _, efficiency in efficiencies_at(weights, [0.0, 1e-3, 1e-2]))
        kept = float((weights.abs() / max_weight).clamp(max=1.0).mean())
        cut = float((weights != 0.0).double().mean())
        return cls(strict, at_0p1, at_1, kish_ess(weights) / len(weights), cut, kept)


@dataclass(frozen=True, repr=False)
class UnweightedPoints:
    """Accepted points.

    Attributes
    ----------
    x
        Points of the domain (n, dim), float64; with channels the points (n, ...) that they made.
    u
        The same points in the unit cube (n, dim), float64.
    weights
        Shape (n,): ±1, and beyond for the overweight ones.
    trials
        Points tried up to the last accepted one; the rest of its batch was evaluated too.

    Examples
    --------
    >>> u = torch.tensor([[0.2], [0.7]])
    >>> UnweightedPoints(u, u, torch.tensor([1.0, -1.5]), 5).overweight_fraction
    0.2
    """

    x: Tensor
    u: Tensor
    weights: Tensor
    trials: int

    def __repr__(self) -> str:
        return f"UnweightedPoints(x {tuple(self.x.shape)}, {self.overweight} overweight, {self.trials} trials)"

    @property
    def overweight(self) -> int:
        """Number of accepted points above w_max."""
        return int((self.weights.abs() > 1.0).sum())

    @property
    def weight_sum(self) -> float:
        """Sum of |weights|."""
        return float(self.weights.abs().sum())

    @property
    def overweight_sum(self) -> float:
        """What the |weights| exceed one by, in all."""
        return float((self.weights.abs() - 1.0).clamp(min=0.0).sum())

    @property
    def overweight_fraction(self) -> float:
        """Share of the sum of |weights| that is excess over one."""
        return self.overweight_sum / self.weight_sum


class Unweighter:
    """Draws unit-weight events; a shard depends on the seed and its index alone, and a shorter one is its beginning.

    Parameters
    ----------
    integrand, sampler
        What to draw from, and the frozen proposal.
    max_weight
        w_max, positive; see `UnweightingConfig.max_weight`.
    efficiency
        Expected fraction of accepted points; sets the size of the batches.
    streams
        Source of all random numbers.
    config
        For `max_trials`.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> tool = Unweighter(Integrand(lambda x: x[:, 0], 1), UniformSampler(1), 1.0, 0.5, Streams(0))
    >>> points = tool.generate(100)
    >>> points.x.shape, bool((points.weights == 1).all())
    (torch.Size([100, 1]), True)
    """

    # Thresholds for each point: one for each decision.
    _decisions = 1

    def __init__(
        self,
        integrand: Integrand,
        sampler: Sampler,
        max_weight: float,
        efficiency: float,
        streams: Streams,
        config: UnweightingConfig | None = None,
    ) -> None:
        if not 0.0 < max_weight < math.inf:
            raise UnweightingError(f"the maximal weight must be positive and finite, got {max_weight}")
        self.integrand, self.sampler, self.max_weight = sampler.view(integrand), sampler, max_weight
        self.efficiency = min(1.0, max(efficiency, 1e-9))
        self.streams = streams
        self.config = config or UnweightingConfig()

    def generate(self, n: int, shard: int = 0) -> UnweightedPoints:
        """Exactly n events of shard number `shard`.

        Raises
        ------
        EventCountError
            If n events took more than `max_trials` trials per event.
        """
        n, shard = checked("n", n, Count), checked("shard", shard, Natural)
        size = 2 ** math.ceil(math.log2(min(tuning.EVENT_BATCH_LARGEST, tuning.EVENT_BATCH_EVENTS / self.efficiency)))
        most = min(self.config.max_trials * n, tuning.PATIENCE * n / self.efficiency + tuning.EVENT_BATCH_LARGEST)
        kept_u: list[Tensor] = []
        kept_w: list[Tensor] = []
        found = trials = 0
        while found < n:
            if trials >= most:
                raise EventCountError(
                    f"only {found} of {n} events were accepted in {trials} trials (w_max = {self.max_weight:g}); "
                    "train longer, allow a larger overweight fraction, or raise max_trials"
                )
            batch, begin = divmod(trials, size)
            if begin == 0:
                latent, thresholds = self._draw(size, shard, batch)
            rate = (found + 1) / (trials + 1 / self.efficiency)
            part = slice(begin, begin + self._wanted((n - found) / rate))
            u, ratio, accepted = self._try(latent[part], thresholds[:, part])
            order = torch.nonzero(accepted).squeeze(1)[: n - found]
            trials += len(u) if found + len(order) < n else int(order[-1]) + 1
            kept_u.append(u[order])
            kept_w.append(ratio[order])
            found += len(order)
        weights = torch.cat(kept_w)
        weights = torch.sign(weights) * weights.abs().clamp(min=1.0)
        u = torch.cat(kept_u)
        return UnweightedPoints(physical_points(self.integrand, u), u, weights, trials)

    def with_streams(self, streams: Streams) -> Self:
        """The same with other random numbers."""
        other = copy.copy(self)
        other.streams = streams
        return other

    def _wanted(self, points: float) -> int:
        """How many points to evaluate at once where so many are wanted."""
        most = tuning.EVENT_SLICE_CPU if self.sampler.device.type == "cpu" else tuning.EVENT_BATCH_LARGEST
        return min(most, tuning.EVENT_SLICE_LEAST * math.ceil(points / tuning.EVENT_SLICE_LEAST))

    def _draw(self, size: int, shard: int, batch: int) -> tuple[Tensor, Tensor]:
        """Latent points (size, dim) and thresholds (decisions, size), all the random numbers of a batch."""
        device = self.sampler.device
        generator = self.streams.generator("events", shard, batch, device=device)
        latent = torch.rand(size, self.sampler.dim, generator=generator, dtype=torch.float64, device=device)
        return latent, torch.rand(self._decisions, size, generator=generator, dtype=torch.float64, device=device)

    def _try(self, latent: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points of the cube, their w/w_max and whether they are accepted."""
        u, log_q = self.sampler.map(latent)
        ratio = importance_weights(self.integrand(u), log_q) / self.max_weight
        return u, ratio, thresholds[0] < ratio.abs()


def physical_points(integrand: Integrand, u: Tensor) -> Tensor:
    """Cube points u (n, dim) as points x of the function: of its domain, or those (n, ...) that its channels make.

    >>> physical_points(Integrand(lambda x: x.sum(1), domain=[(10, 12)]), torch.tensor([[0.5]]))
    tensor([[11.]], dtype=torch.float64)
    """
    x = integrand.to_domain(u)
    channels = multichannel_of(integrand.function, 1)
    return (x if channels is None else channels.shown(x)).to(u.device)
