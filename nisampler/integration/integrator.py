"""Estimates from a frozen sampler: independent scrambled Sobol batches, or plain Monte Carlo.

A frozen sampler makes the estimate unbiased whatever the training did. Points are uniform in the latent cube; a
scrambled Sobol set (Owen 1995; here the digital shift and linear matrix scrambling of Matoušek 1998) fills it more
evenly than independent points do, and the spread over independent digital shifts gives an honest error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checks import Count, Fraction, Whole, settings
from nisampler.base.estimate import Estimate
from nisampler.base.estimates import Estimates
from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.base.weights import importance_weights
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, NonFiniteError, ZeroIntegrandError
from nisampler.integration.reliability import heavy, missed
from nisampler.integration.sums import Sums
from nisampler.samplers.base import Sampler
from nisampler.training.costs import integration_calls
from nisampler.training.records import Known
from nisampler.ui.monitor import SILENT, Monitor

# Binary digits of a coordinate, those of a double: a Sobol set has 30 of them, and the shift fills the others.
_DIGITS = 53

_POINTS, _POINT_BYTES = 25_000, 4 << 20


@settings
class IntegrationConfig:
    """How to integrate with a frozen sampler.

    Parameters
    ----------
    points
        Integrand calls of one round, at least 48; rounded down to a whole number of equal batches. By default
        1,000,000, or, where the sampler was chosen for a number of events, as many as these need
        (`nisampler.training.costs.integration_calls`).
    method
        "sobol": each batch is an independent scrambling of a Sobol set. "mc": independent points.
    target
        Relative error to reach; rounds are added until it is, or until `max_points`. 0 for one round. To stop by an
        error that is itself estimated shifts the value, by about a twentieth of the error where weights are skewed: for
        an unbiased value give `points` instead.
    max_points
        Most integrand calls in all rounds.
    keep_weights
        Most weights that are kept for efficiencies and plots.

    Raises
    ------
    ConfigError
        If a number is out of range, or one round has more than `max_points`.

    Examples
    --------
    >>> IntegrationConfig(points=100_000, target=1e-3).shape()
    (24, 4096)
    """

    points: Annotated[Whole, Field(ge=2 * tuning.FEWEST_BATCHES, le=10**9)] | None = None
    method: Literal["sobol", "mc"] = "sobol"
    target: Fraction = 0.0
    max_points: Count = 100_000_000
    keep_weights: Annotated[Whole, Field(ge=1, le=10**9)] = 4_000_000

    def __post_init__(self) -> None:
        if self.max_points < self.round:
            raise ConfigError(f"max_points = {self.max_points}: must be at least the {self.round} points of a round")

    @property
    def round(self) -> int:
        """Integrand calls of one round."""
        return self.points or tuning.INTEGRATION_POINTS

    def for_events(self, events: int, efficiency: float) -> IntegrationConfig:
        """The same with the points that so many events of this efficiency need, unless a number was given."""
        if self.points is not None or not events:
            return self
        return replace(self, points=min(integration_calls(events, efficiency), self.max_points))

    def shape(self) -> tuple[int, int]:
        """Number of batches of a round and points in each; for Sobol sets a power of two."""
        size = 2 ** int(math.log2(self.round / tuning.FEWEST_BATCHES))
        return self.round // size, size


@dataclass(frozen=True, repr=False)
class IntegrationResult:
    """Integrals with their errors and the weights behind the one that steers.

    Attributes
    ----------
    estimates
        All integrals with their covariance, by the names of the function or as "0", "1", ...
    steered
        Number of the one that steers.
    batch_means
        That integral in each independent batch.
    moments
        Of all its weights, in units of a power of two.
    weights
        Its weights f/q that were kept, float64.
    warnings
        What makes an error doubtful, if anything does.
    points
        The first points (k, dim) in the cube, those of the first weights: at most 25,000 and 4 MiB of them.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand = Integrand(lambda x: 2 * x[:, 0], 1, kind="torch")
    >>> result = Integrator(integrand, UniformSampler(1), IntegrationConfig(points=1000)).run()
    >>> f"{result.estimate.value:.2f}", result.cut_efficiency
    ('1.00', 1.0)
    """

    estimates: Estimates
    steered: int
    batch_means: list[float]
    moments: Moments
    weights: Tensor
    warnings: list[str] = field(default_factory=list)
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 1, dtype=torch.float64))

    def __repr__(self) -> str:
        found = str(self.estimates) if len(self.estimates) > 1 else f"{self.estimate} {self.estimate.unit}".rstrip()
        counts = f"{self.moments.count} points in {len(self.batch_means)} batches, {len(self.warnings)} warnings"
        return f"IntegrationResult({found}, {counts})"

    @property
    def estimate(self) -> Estimate:
        """Value and error of the integral that steers."""
        return self.estimates[self.steered]

    def __getitem__(self, key: str | int) -> Estimate:
        return self.estimates[key]

    @property
    def cut_efficiency(self) -> float:
        """Fraction of points where the integrand is not zero."""
        return 1.0 - self.moments.zeros / self.moments.count


class LatentPoints:
    """Batches of uniform points: scrambled Sobol sets, or independent points.

    The scramblings of an integration have their linear part in common, and each batch has digits of its own to be
    added to all of its points. So each is uniform and independent of the others, whatever the linear part is.

    Parameters
    ----------
    size, dim
        Points of a batch, for Sobol sets best a power of two, and coordinates.
    streams
        Source of all random numbers.
    method
        "sobol" or "mc".
    device
        Where points are made.

    Examples
    --------
    >>> points = LatentPoints(4, 1, Streams(1), "sobol", torch.device("cpu"))
    >>> u = points.batches(range(2))
    >>> u.shape, sorted((4 * u[:4]).long().flatten().tolist()), bool((points.batches(range(1, 2)) == u[4:]).all())
    (torch.Size([8, 1]), [0, 1, 2, 3], True)
    """

    def __init__(self, size: int, dim: int, streams: Streams, method: str, device: torch.device) -> None:
        self.size, self.dim, self.streams, self.method, self.device = size, dim, streams, method, device
        if method == "sobol":
            seed = streams.integer("scrambling") % 2**31
            engine = torch.quasirandom.SobolEngine(dim, True, seed)  # type: ignore[no-untyped-call]
            self._digits = (engine.draw(size, dtype=torch.float64).to(device) * 2.0**_DIGITS).long()

    def batches(self, numbers: range) -> Tensor:
        """The points (n · size, dim) of the batches with these numbers, float64."""
        generators = [self.streams.generator("integration", number, device=self.device) for number in numbers]
        if self.method == "mc":
            return torch.cat(
                [
                    torch.rand(self.size, self.dim, generator=generator, dtype=torch.float64, device=self.device)
                    for generator in generators
                ]
            )
        shifts = [torch.randint(1 << _DIGITS, (1, self.dim), generator=g, device=self.device) for g in generators]
        points = self._digits ^ torch.stack(shifts)
        return (points.double() * 2.0**-_DIGITS).view(-1, self.dim)


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
    known
        What the training of the sampler knows of its weights.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> integrand = Integrand(lambda x: {"norm": x[:, 0], "x": x[:, 0] ** 2}, dim=1)
    >>> result = Integrator(integrand, UniformSampler(1), IntegrationConfig(points=1000)).run()
    >>> f"{result['x'] / result['norm']:.2f}"
    '0.67 ± 0.00'
    """

    def __init__(
        self,
        integrand: Integrand,
        sampler: Sampler,
        config: IntegrationConfig | None = None,
        streams: Streams | None = None,
        known: Known | None = None,
    ) -> None:
        self.integrand, self.sampler, self.known = sampler.view(integrand), sampler, known or Known()
        self.config = config or IntegrationConfig()
        self.streams = streams or Streams(0)

    def run(self, monitor: Monitor = SILENT) -> IntegrationResult:
        """Integrate to the budget or the target error.

        Parameters
        ----------
        monitor
            Is told the calls done and planned after each batch, or several small ones, and the relative error after
            each round.

        Raises
        ------
        ZeroIntegrandError
            If every value was zero.
        NonFiniteError
            If a weight or an integral leaves the range of floating-point numbers.
        """
        config, nonfinite = self.config, self.integrand.nonfinite
        batches, size = config.shape()
        latent = LatentPoints(size, self.sampler.dim, self.streams, config.method, self.sampler.device)
        sums: Sums | None = None
        kept, points = list[Tensor](), list[Tensor]()
        room, places = config.keep_weights, _most_points(self.sampler.dim, config.keep_weights)
        while True:
            for x, weights in self._round(0 if sums is None else sums.batches, batches, latent):
                sums = self._sums() if sums is None else sums
                sums.add(weights.view(-1, size, weights.shape[1]))
                if room > 0:
                    kept.append(weights[:room, sums.steered].clone())
                    room -= len(kept[-1])
                if places > 0:
                    points.append(x[:places].double().clone())
                    places -= len(points[-1])
                total, calls = -(-sums.batches // batches) * batches * size, {"calls": f"{sums.count:,}"}
                monitor.progress("integration", sums.count, total, calls)
            if sums is None or sums.total.sum_abs == 0.0:
                raise ZeroIntegrandError(
                    f"{self.integrand.name} is zero at all {batches * size} points of the integration"
                )
            monitor.progress("integration", sums.count, sums.count, calls | {"error": f"{sums.relative_error:.1e}"})
            reached = not config.target or sums.reached(config.target)
            if reached or sums.count + batches * size > config.max_points:
                break
        weights = torch.cat(kept)
        reasons = [heavy(total, weights if k == sums.steered else None) for k, total in enumerate(sums.totals)]
        unseen = missed(sums.total, self.known.met / (sums.scales[sums.steered] or 1.0))
        estimates = sums.estimates([bool(reason or unseen or self.known.lost) for reason in reasons])
        _check(sums, estimates)
        warnings = [*([unseen] if unseen else []), *_warnings(sums, reasons, self.integrand.nonfinite - nonfinite)]
        if not reached:
            warnings.append(f"the target error {config.target:g} was not reached within {config.max_points} points")
        return IntegrationResult(
            estimates, sums.steered, sums.batch_means, sums.total, weights, warnings, torch.cat(points)
        )

    def _sums(self) -> Sums:
        """Empty sums, once a first call has told which integrals there are."""
        integrand = self.integrand
        names, dependent = integrand.names or ("0",), self.config.method == "sobol"
        return Sums(names, integrand.steered, dependent, integrand.unit, integrand.name)

    def _round(self, first: int, batches: int, latent: LatentPoints) -> Iterator[tuple[Tensor, Tensor]]:
        """Points (n · size, dim) and weights (n · size, k) of the batches of a round, n small ones together."""
        step = max(1, tuning.POINTS_TOGETHER // latent.size)
        for begin in range(first, first + batches, step):
            x, log_q = self.sampler.map(latent.batches(range(begin, min(begin + step, first + batches))))
            yield x, importance_weights(self.integrand.values(x), log_q)


def _most_points(dim: int, weights: int) -> int:
    """How many points are kept."""
    return min(_POINTS, _POINT_BYTES // (8 * dim), weights)


def _check(sums: Sums, estimates: Estimates) -> None:
    for index, estimate in enumerate(estimates.values()):
        if not math.isfinite(estimate.value) or not estimate.error >= 0.0:
            raise NonFiniteError(
                f"the integral of {sums.label(index)} leaves the range of floating-point numbers "
                f"({estimate.value} ± {estimate.error}); divide the function by a constant"
            )


def _warnings(sums: Sums, reasons: Sequence[str], nonfinite: int) -> list[str]:
    """What makes the errors doubtful, first that of the integral that steers."""
    order = sorted(range(len(sums.names)), key=lambda index: index != sums.steered)
    warnings = []
    for index in order:
        text = reasons[index] or _equal(sums.totals[index])
        warnings += [text if index == sums.steered else f"{sums.names[index]}: {text}"] if text else []
    if nonfinite:
        warnings.append(f"{nonfinite} of {sums.count} values of the integration were NaN or infinite and count as zero")
    return warnings


def _equal(moments: Moments) -> str:
    """What to know of an exact integral; empty for others."""
    if moments.m2 > 1e-20 * moments.sum_squares:
        return ""
    return (
        f"all {moments.count} weights are equal: a feature in less than {3.0 / moments.count:.1e} of the "
        "volume would not have been seen"
    )
