"""Estimates from a frozen sampler: independent scrambled Sobol batches, or plain Monte Carlo.

A frozen sampler makes the estimate unbiased whatever the training did. Points are uniform in the latent cube; a
scrambled Sobol set (Owen 1995; here the digital shift and linear matrix scrambling of Matoušek 1998) fills it more
evenly than independent points do, and the spread over independent scramblings gives an honest error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nisampler.base.estimate import Estimate
from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, NonFiniteError, ZeroIntegrandError
from nisampler.samplers.base import Sampler
from nisampler.training.costs import integration_points

_FEWEST_BATCHES = 24
_POINTS = 1_000_000
_SOBOL_DIGITS = 2.0**-30
_LARGEST_SHARE = 0.01
_LARGEST_SPREAD = 0.25
# Points of small batches that are evaluated together.
_TOGETHER = 8192


@dataclass(frozen=True)
class IntegrationConfig:
    """How to integrate with a frozen sampler.

    Parameters
    ----------
    points
        Integrand calls of one round; rounded down to a whole number of equal batches. None takes 1,000,000, or, where
        the sampler was chosen for a number of events, as many as these need
        (`nisampler.training.costs.integration_points`).
    method
        "sobol": each batch is an independent scrambling of a Sobol set. "mc": independent points.
    target
        Relative error to reach; rounds are added until it is, or until `max_points`. 0 for one round.
    max_points
        Most integrand calls in all rounds.
    keep_weights
        Most weights that are kept for efficiencies and plots.
    """

    points: int | None = None
    method: str = "sobol"
    target: float = 0.0
    max_points: int = 100_000_000
    keep_weights: int = 4_000_000

    def __post_init__(self) -> None:
        if self.method not in ("sobol", "mc"):
            raise ConfigError(f"method must be 'sobol' or 'mc', got {self.method!r}")
        for name in ("points", "max_points", "keep_weights"):
            if not isinstance(getattr(self, name), int | None if name == "points" else int):
                raise ConfigError(f"{name} must be an integer, got {getattr(self, name)!r}")
        if self.round < 2 * _FEWEST_BATCHES:
            raise ConfigError(f"points must be at least {2 * _FEWEST_BATCHES}, got {self.points}")
        if not 0.0 <= self.target < 1.0:
            raise ConfigError(f"target is a relative error in [0, 1), got {self.target}")
        if self.max_points < self.round or self.keep_weights < 1:
            raise ConfigError("max_points must be at least points, and keep_weights at least 1")

    @property
    def round(self) -> int:
        """Integrand calls of one round."""
        return self.points or _POINTS

    def for_events(self, events: int, efficiency: float) -> IntegrationConfig:
        """The same with the points that so many events of this efficiency need, unless a number was given."""
        if self.points is not None or not events:
            return self
        return replace(self, points=min(integration_points(events, efficiency), self.max_points))

    def shape(self) -> tuple[int, int]:
        """Number of batches of a round and points in each; for Sobol sets a power of two."""
        size = 2 ** int(math.log2(self.round / _FEWEST_BATCHES))
        return self.round // size, size


@dataclass(frozen=True)
class IntegrationResult:
    """An integral with its error and the weights behind it.

    Attributes
    ----------
    estimate
        Value and error.
    batch_means
        The integral in each independent batch.
    moments
        Of all weights, in units of a power of two.
    weights
        The weights f/q that were kept, float64.
    warnings
        What makes the error doubtful, if anything does.
    """

    estimate: Estimate
    batch_means: list[float]
    moments: Moments
    weights: Tensor
    warnings: list[str] = field(default_factory=list)

    @property
    def cut_efficiency(self) -> float:
        """Fraction of points where the integrand is not zero."""
        return 1.0 - self.moments.zeros / self.moments.count


def latent_points(n: int, dim: int, streams: Streams, index: int, method: str, device: torch.device) -> Tensor:
    """Batch number `index` of uniform points (n, dim), float64: a scrambled Sobol set or independent ones."""
    generator = streams.generator("integration", index, device=device)
    uniform = torch.rand(n, dim, generator=generator, dtype=torch.float64, device=device)
    if method == "mc":
        return uniform
    seed = streams.integer("scrambling", index) % 2**31
    engine = torch.quasirandom.SobolEngine(dim, True, seed)  # type: ignore[no-untyped-call]
    points: Tensor = engine.draw(n, dtype=torch.float64).to(device)
    return torch.add(points, uniform, alpha=_SOBOL_DIGITS).clamp_(max=1.0)


class Integrator:
    """Integrates with a frozen sampler.

    Parameters
    ----------
    integrand, sampler
        What to integrate, and what draws the points.
    config
        See `IntegrationConfig`.
    streams
        Source of all random numbers.
    """

    def __init__(
        self,
        integrand: Integrand,
        sampler: Sampler,
        config: IntegrationConfig | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.integrand, self.sampler = sampler.view(integrand), sampler
        self.config = config or IntegrationConfig()
        self.streams = streams or Streams(0)

    def run(self, on_progress: Callable[[int, int, Estimate | None], None] | None = None) -> IntegrationResult:
        """Integrate to the budget or the target error.

        `on_progress` is called after each batch with the points done, the points planned and, after each round, the
        estimate.

        Raises
        ------
        ZeroIntegrandError
            If every value was zero.
        """
        batches, size = self.config.shape()
        counted = self.integrand.counts()
        scale = 0.0  # a power of two near the first weights, so that squares neither overflow nor vanish
        parts: list[Moments] = []
        kept: list[Tensor] = []
        room = self.config.keep_weights
        while True:
            for weights in self._round(len(parts), batches, size):
                largest = float(weights.abs().max())
                if not math.isfinite(largest):
                    raise NonFiniteError(
                        f"{self.integrand.name}: a weight f/q is not finite; divide the function by a constant"
                    )
                scale = scale or (2.0 ** math.floor(math.log2(largest)) if largest else 0.0)
                parts.append(Moments.from_tensor(weights / (scale or 1.0)))
                if room > 0:
                    kept.append(weights[:room])
                    room -= len(kept[-1])
                if on_progress is not None:
                    on_progress(len(parts) * size, -(-len(parts) // batches) * batches * size, None)
            moments = Moments.merge_all(parts)
            if moments.sum_abs == 0.0:
                raise ZeroIntegrandError(
                    f"{self.integrand.name} is zero at all {moments.count} points of the integration"
                )
            estimate = self._estimate(parts, moments, size)
            estimate = replace(estimate, value=estimate.value * scale, error=estimate.error * scale)
            if on_progress is not None:
                on_progress(len(parts) * size, len(parts) * size, estimate)
            reached = estimate.relative_error <= self.config.target
            if not self.config.target or reached or (len(parts) + batches) * size > self.config.max_points:
                break
        if not math.isfinite(estimate.value) or not estimate.error >= 0.0:
            raise NonFiniteError(
                f"the integral of {self.integrand.name} leaves the range of floating-point numbers "
                f"({estimate.value} ± {estimate.error}); divide the function by a constant"
            )
        warnings = self._warnings(moments, self.integrand.nonfinite - counted["nonfinite"])
        if self.config.target and not reached:
            warnings.append(
                f"the target error {self.config.target:g} was not reached within {self.config.max_points} points"
            )
        means = [part.mean * scale for part in parts]
        return IntegrationResult(estimate, means, moments, torch.cat(kept), warnings)

    def _round(self, first: int, batches: int, size: int) -> Iterator[Tensor]:
        dim, method, device = self.sampler.dim, self.config.method, self.sampler.device
        step = max(1, _TOGETHER // size)
        for begin in range(first, first + batches, step):
            group = range(begin, min(begin + step, first + batches))
            u = torch.cat([latent_points(size, dim, self.streams, index, method, device) for index in group])
            x, log_q = self.sampler.map(u)
            yield from torch.split(self.integrand(x).to(log_q.device) * torch.exp(-log_q), size)

    def _estimate(self, parts: list[Moments], moments: Moments, size: int) -> Estimate:
        unit = self.integrand.unit
        if self.config.method == "mc":
            return Estimate.from_batches(parts, unit)
        means = [part.mean for part in parts]
        return Estimate.from_batch_means(means, size, ess_fraction=moments.ess_fraction, unit=unit)

    def _warnings(self, moments: Moments, nonfinite: int) -> list[str]:
        warnings = []
        share = moments.max_abs / moments.sum_abs
        if share > _LARGEST_SHARE:
            warnings.append(
                f"a single point carries {100 * share:.1f} % of the integral: value and error are not reliable; "
                "train longer, or map the variables closer to the peak"
            )
        elif moments.m2 <= 1e-20 * moments.sum_squares:
            warnings.append(
                f"all {moments.count} weights are equal: a feature in less than {3.0 / moments.count:.1e} of the "
                "volume would not have been seen"
            )
        elif max(moments.maximum - moments.mean, moments.mean - moments.minimum) ** 2 > _LARGEST_SPREAD * moments.m2:
            warnings.append(
                "a single point makes up most of the variance: there may be a peak that has hardly been seen, "
                "and the error is not reliable; train longer, or map the variables closer to the peak"
            )
        if nonfinite:
            warnings.append(
                f"{nonfinite} of {moments.count} values of the integration were NaN or infinite and count as zero"
            )
        return warnings
