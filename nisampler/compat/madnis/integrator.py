"""Training and integration of an integrand of madnis, by the names of madnis."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nisampler.base.checks import Count, checked
from nisampler.base.device import resolve_device
from nisampler.base.estimate import Estimate
from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.compat.madnis.integrand import Integrand, as_integrand
from nisampler.compat.madnis.records import IntegrationMetrics, SampleBatch, UnweightingMetrics
from nisampler.compat.starting import start_of
from nisampler.density.channels import Multichannel, multichannel_of
from nisampler.errors import ConfigError, NonFiniteError, UnsupportedError
from nisampler.integration.integrator import IntegrationConfig, IntegrationResult
from nisampler.integration.integrator import Integrator as FrozenIntegrator
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.training.config import ChannelSettings, TrainingConfig
from nisampler.training.records import TrainingResult
from nisampler.training.trainer import Callback, Trainer
from nisampler.unweighting.unweighter import Efficiencies, UnweightedPoints, Unweighter, UnweightingConfig

# Mixture weights need inverses of the channels, which integrands of madnis do not have.
_CHANNELS = ChannelSettings(mixture=False)
# Points that tell the largest weight before events are drawn.
_PILOT = 50_000
# Arguments of madnis that have another place here.
_INSTEAD = {
    "flow": "a flow of your own trains by nisampler.integrate(as_integrand(...), sampler=flow)",
    "flow_kwargs": "training=TrainingConfig(flow=FlowSettings(bins=, layers=, hidden=))",
    "cwnet": "training=TrainingConfig(channels=ChannelSettings(...)); the network is made here",
    "train_channel_weights": "training=TrainingConfig(channels=ChannelSettings(learned_weights=False))",
    "loss": "training=TrainingConfig(flow=FlowSettings(divergence=...))",
    "optimizer": "training=TrainingConfig(flow=FlowSettings(optimizer=...))",
    "learning_rate": "training=TrainingConfig(flow=FlowSettings(learning_rate=...))",
    "scheduler": "the learning rate follows a cosine with its peak at FlowSettings(learning_rate=...)",
    "buffer_capacity": "training=TrainingConfig(flow=FlowSettings(buffer=...))",
    "buffered_steps": "training=TrainingConfig(flow=FlowSettings(reuse=...))",
    "channel_dropping_threshold": "training=TrainingConfig(channels=ChannelSettings(drop=...))",
    "freeze_cwnet_iteration": "training=TrainingConfig(channels=ChannelSettings(freeze=...))",
}


class Integrator:
    """Trains a sampler for an integrand of madnis and integrates with it, by the names of madnis.

    Parameters
    ----------
    integrand
        See `as_integrand`; or a function of x (n, dims) alone.
    dims
        Coordinates of such a function.
    batch_size
        Points of a step, by which `train` counts.
    device, dtype
        Where the flows live; how precisely the integrand wants its points.
    training
        Settings of the training; `calls` are set by `train`.
    seed
        Same seed, same numbers.
    options
        Further arguments of madnis are errors that name what has their place here.

    Attributes
    ----------
    integrand, sampler
        The integrand on the unit cube, and what draws its points: uniform ones before a training.
    training
        How the sampler was trained, once it was.

    Raises
    ------
    UnsupportedError
        If an argument of madnis has another name here.
    ConfigError, UnsupportedError
        As `as_integrand` does.

    Examples
    --------
    >>> integrator = Integrator(lambda x: 3 * x[:, 0] ** 2, dims=1)
    >>> integrator.train(steps=10)
    >>> value, error = integrator.integrate(10_000)
    >>> abs(value - 1) < 5 * error < 0.05
    True
    """

    training: TrainingResult | None = None

    def __init__(
        self,
        integrand: Any,
        dims: int = 0,
        *,
        batch_size: int = 1024,
        device: Any = None,
        dtype: torch.dtype = torch.float64,
        training: TrainingConfig | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        for name in options:
            advice = _INSTEAD.get(name, "see nisampler.TrainingConfig for what a training is told")
            raise UnsupportedError(f"{name} of madnis is not here: {advice}")
        self._device = resolve_device("auto" if device is None else str(device))
        found = integrand if hasattr(integrand, "input_dim") else Integrand(integrand, dims)
        self.integrand = as_integrand(found, self._device, dtype)
        self.batch_size = checked("batch_size", batch_size, Count)
        self.config = TrainingConfig(sampler="flow", channels=_CHANNELS) if training is None else training
        self.sampler: Sampler = UniformSampler(self.integrand.dim, self._device)
        self._streams, self._drawn, self._estimates = Streams(seed), 0, list[Estimate]()

    def train(self, steps: int, callback: Callback | None = None) -> None:
        """Train with the calls of so many steps, on from what was learned before where that is possible.

        Parameters
        ----------
        steps
            Each stands for `batch_size` calls; the whole for at least 100.
        callback
            Called with a `nisampler.training.records.Progress`; True ends the training.

        Raises
        ------
        NisamplerError
            As `nisampler.integrate` does.
        """
        config = replace(self.config, calls=checked("steps", steps, Count) * self.batch_size)
        start = start_of(self.sampler)
        trainer = Trainer(self.integrand, config, self._next(), self._device, callback=callback, start=start)
        self.training = trainer.fit()
        self.sampler, self._estimates = self.training.sampler, []

    def integrate(self, n: int) -> tuple[float, float]:
        """The integral and its error from n new points, at least 48, of scrambled Sobol sets."""
        estimate = self.integration(n).estimate
        self._estimates.append(estimate)
        return estimate.value, estimate.error

    def integration(self, n: int) -> IntegrationResult:
        """The same with all that is known of it: whether the error is to be trusted, weights, batches."""
        return FrozenIntegrator(self.integrand, self.sampler, IntegrationConfig(points=n), self._next()).run()

    def integral(self) -> tuple[float, float]:
        """Value and error of all calls of `integrate` since the last training.

        Raises
        ------
        ConfigError
            If there was none.
        """
        if not self._estimates:
            raise ConfigError("no integral is known yet: call integrate(n)")
        estimate = Estimate.combine(self._estimates)
        return estimate.value, estimate.error

    def sample(self, n: int, batch_size: int = 100_000) -> SampleBatch:
        """n independent points with their weights; the function gets at most `batch_size` of them at once.

        Raises
        ------
        NonFiniteError
            If a value is NaN or infinite.
        """
        size = checked("batch_size", batch_size, Count)
        generator = self._next().generator("sample", device=self.sampler.device)
        u, log_q = self.sampler.sample(n, generator)
        pieces = zip(torch.split(u, size), torch.split(log_q, size), strict=True)
        return SampleBatch.cat([self._weighted(*piece) for piece in pieces])

    def _weighted(self, u: Tensor, log_q: Tensor) -> SampleBatch:
        density, function = log_q.exp(), self.sampler.view(self.integrand).function
        own = multichannel_of(function, 1)
        if own is None:
            values = self.integrand(u).to(u.device)
            return SampleBatch(u, None, density, values, None, None, values / density)
        channel, rows, log_g = own.points(u)
        values = rows[:, 0]
        self.integrand.restore_counts({"calls": self.integrand.calls + len(u)})
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError(f"{self.integrand.name} returned NaN or infinity: mend the function there")
        alphas = _alphas(own, rows, channel, log_g)
        density = density / len(own.channels)
        weights = alphas.gather(1, channel[:, None])[:, 0] * values / density
        x = u if len(own.channels) == 1 else u[:, 1:]
        return SampleBatch(x, own.features_of(rows), density, values, channel, alphas, weights)

    def integration_metrics(self, n: int) -> IntegrationMetrics:
        """How well n independent points integrate, in all and in each channel."""
        batch = self.sample(n)
        whole = Moments.from_tensor(batch.weights)
        channels = torch.zeros_like(batch.weights, dtype=torch.long) if batch.channels is None else batch.channels
        count = 1 if batch.alphas is None else batch.alphas.shape[1]
        parts = [Moments.from_tensor(torch.where(channels == c, batch.weights, 0.0)) for c in range(count)]
        relative = whole.standard_error / abs(whole.mean) if whole.mean else math.inf
        return IntegrationMetrics(
            whole.mean,
            whole.count,
            whole.standard_error,
            relative,
            relative * math.sqrt(whole.count),
            [part.mean for part in parts],
            torch.bincount(channels, minlength=count).tolist(),
            [part.standard_error for part in parts],
        )

    def unweighting_metrics(self, n: int) -> UnweightingMetrics:
        """What the weights of n points are worth for unweighting with one largest weight for all channels."""
        size = self.sample(n).weights.abs()
        largest = UnweightingConfig("bootstrap").max_weight(size, self._next())
        kept = size[size > 0.0]
        cut, full = len(kept) / len(size), float(kept.mean()) / largest
        once = float((kept / largest).clamp(max=1.0).mean())
        over = float((kept > largest).double().mean())
        return UnweightingMetrics(cut, cut * full, cut * once, full, once, over)

    def unweight(self, n: int) -> UnweightedPoints:
        """n points of weight one, after an integration of 50,000 points that tells the largest weight."""
        weights, config, streams = self.integration(_PILOT).weights, UnweightingConfig(), self._next()
        largest = config.max_weight(weights, streams)
        chosen = Efficiencies.of(weights, largest).chosen
        return Unweighter(self.integrand, self.sampler, largest, chosen, streams, config).generate(n)

    def _next(self) -> Streams:
        """Random numbers that no earlier call had."""
        self._drawn += 1
        return self._streams.child("madnis", self._drawn)


def _alphas(own: Multichannel, rows: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
    """Weights of the channels (n, K) where the function is not zero, and equal ones elsewhere."""
    alphas = rows.new_full((len(rows), len(own.channels)), 1.0 / len(own.channels))
    inside = torch.nonzero(rows[:, 0]).squeeze(1)
    if len(inside):
        alphas[inside] = own.log_weights(rows[inside], channel[inside], log_g[inside]).exp().detach()
    return alphas
