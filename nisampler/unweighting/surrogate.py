"""A cheap stand-in for the weights of a frozen sampler: the integrand from a network, everything else exact.

The weight of a point is w = f α K / (g q): only the integrand f is costly, while the density q of the sampler and, for
several channels, the weight α and the density g of the channel that made the point are known without it. Of f itself a
process knows a factor k, parton densities and couplings, and which of its matrix elements the point has (`Factors`).
The network learns the log of the rest as a function of the features of the point, one for each of these, and

    s(x) = exp(net(features)) k α K / (g q)

follows w closely enough to be unweighted in its place (2109.11964). That sums of dipoles with learned coefficients
(2301.13562) do no better at the length of these trainings is measured by `benchmarks/two_stage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from nisampler.base import tuning
from nisampler.base.checks import Count, Depth, Finite, Positive, Width, settings
from nisampler.base.optim import COSINE, Stepper, adamw
from nisampler.base.rng import Streams
from nisampler.density.channels import multichannel_of
from nisampler.density.factors import Factors
from nisampler.density.integrand import Integrand
from nisampler.errors import CorruptFileError, ShapeError, TrainingDivergedError, UnweightingError
from nisampler.samplers.base import Sampler, State

# Points seen by the network and by all channels at once; least width of a feature, and how many widths it may be away.
_TILE, _CHUNK, _NARROWEST, _FARTHEST = 8192, 65_536, 1e-6, 10.0


@settings
class SurrogateConfig:
    """The network behind a surrogate and its training.

    Parameters
    ----------
    hidden, layers
        Width of the network, and number of its hidden layers.
    steps, batch
        Steps of the training, and points in each. None takes as many steps as see every point 80 times, from 1000 to
        20,000: on few points more of them bring nothing.
    learning_rate
        Peak of a cosine schedule.
    order
        Order of the Rényi divergence in the second half of the training. A large one shortens the tail of w/s, whose
        maximum decides what the surrogate is worth.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> SurrogateConfig().steps_for(100_000)
    15625
    """

    hidden: Width = 64
    layers: Depth = 3
    steps: Count | None = None
    batch: Count = 512
    learning_rate: Positive = 1e-2
    order: Annotated[Finite, Field(gt=1.0)] = 8.0

    def steps_for(self, points: int) -> int:
        """Steps of a training on so many points."""
        return self.steps or min(
            tuning.SURROGATE_MOST_STEPS,
            max(tuning.SURROGATE_LEAST_STEPS, tuning.SURROGATE_PASSES * points // self.batch),
        )


class SurrogateNet(nn.Module):
    """log r from features (n, F), kept within the range of the values that it has learned from.

    Parameters
    ----------
    features, kinds
        Number of features, and of functions r, see `Factors`.
    config
        See `SurrogateConfig`.
    generator
        Draws the weights of the network; the last layer starts at zero.

    Examples
    --------
    >>> net = SurrogateNet(2, 1, SurrogateConfig(hidden=8))
    >>> net.adapt(torch.rand(9, 2), torch.full((9,), 1.5))
    >>> net.log_r(torch.rand(3, 2), torch.zeros(3).long()).tolist()
    [1.5, 1.5, 1.5]
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    centre: Tensor
    width: Tensor

    def __init__(
        self, features: int, kinds: int, config: SurrogateConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.features, self.kinds, self.config = features, kinds, config
        from nisampler.flows.nets.mlp import NetConfig  # which few jobs need

        settings = NetConfig(hidden=config.hidden, layers=config.layers)
        self.net = settings.build(features, kinds, generator or torch.Generator().manual_seed(0))
        self.register_buffer("shift", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))
        for name, value in (("low", -math.inf), ("high", math.inf), ("centre", 0.0), ("width", 1.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def adapt(self, features: Tensor, log_r: Tensor) -> None:
        """Take the scales from the features (n, F) and log r (n,) of points with f ≠ 0."""
        self.shift.copy_(features.mean(0))
        self.scale.copy_(1.0 / features.std(0).clamp(min=_NARROWEST))
        self.low.copy_(log_r.min())
        self.high.copy_(log_r.max())
        self.centre.copy_(log_r.mean())
        self.width.copy_(log_r.std().clamp(min=_NARROWEST))

    def standardised(self, features: Tensor) -> Tensor:
        """Features (n, F) as the network sees them, float32."""
        return ((features - self.shift) * self.scale).clamp(-_FARTHEST, _FARTHEST).float()

    def forward(self, features: Tensor, kind: Tensor) -> Tensor:
        """(log r - centre) / width (n,), float32, from standardised features (n, F) and kinds (n,)."""
        out: Tensor = self.net(features).gather(1, kind.unsqueeze(1)).squeeze(1)
        return out

    @torch.no_grad()
    def log_r(self, features: Tensor, kind: Tensor) -> Tensor:
        """log r (n,), float64 and finite, at features (n, F) of points of these kinds (n,)."""
        tiles = zip(torch.split(self.standardised(features), _TILE), torch.split(kind, _TILE), strict=True)
        parts = [self(*tile).double() for tile in tiles]
        found = self.centre + self.width * (torch.cat(parts) if parts else features.new_zeros(0))
        return found.clamp(self.low, self.high)


@dataclass(frozen=True)
class Known:
    """What is known of points without the integrand.

    Attributes
    ----------
    inside
        Indices (m,) of the points where the integrand may be non-zero.
    factors
        Of these, of the weight: with α K / (g q) as a part of the known factor.

    Examples
    --------
    >>> Known(torch.arange(2), Factors(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2), 1)).inside
    tensor([0, 1])
    """

    inside: Tensor
    factors: Factors


class Surrogate:
    """s(x) in place of |w| = |f| α K / (g q).

    Parameters
    ----------
    integrand, sampler
        Whose weights it stands for.
    net
        The network; a fresh one, to be fitted, by default.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> x, log_q = torch.rand(1000, 2, dtype=torch.float64), torch.zeros(1000, dtype=torch.float64)
    >>> surrogate = Surrogate(Integrand(lambda x: 1.0 + x[:, 0], 2), UniformSampler(2))
    >>> surrogate.fit(x, log_q, 1.0 + x[:, 0], SurrogateConfig(hidden=8, layers=1, steps=20), Streams(1))
    >>> surrogate(x, log_q).shape
    torch.Size([1000])
    """

    network: type[SurrogateNet] = SurrogateNet

    def __init__(self, integrand: Integrand, sampler: Sampler, net: SurrogateNet | None = None) -> None:
        self.integrand = sampler.view(integrand)
        self._function = multichannel_of(self.integrand.function, 1)
        self.net = net

    @torch.no_grad()
    def known(self, x: Tensor, log_q: Tensor) -> Known:
        """All but the integrand at cube points x (n, dim) with log densities log_q (n,)."""
        parts = [self._known(*pair) for pair in zip(torch.split(x, _CHUNK), torch.split(log_q, _CHUNK), strict=True)]
        found = [part.factors for part in parts]
        factors = Factors(
            torch.cat([part.log_factor for part in found]),
            torch.cat([part.features for part in found]),
            torch.cat([part.kind for part in found]),
            found[0].kinds,
        )
        return Known(torch.cat([part.inside + index * _CHUNK for index, part in enumerate(parts)]), factors)

    def _known(self, x: Tensor, log_q: Tensor) -> Known:
        function = self._function
        if function is None:
            every = torch.arange(len(x), device=x.device)
            return Known(every, Factors(-log_q, 2.0 * x - 1.0, torch.zeros_like(every), 1))
        channel, points, log_g = function.points(self.integrand.to_domain(x))
        inside = torch.nonzero(function.inside(points)).squeeze(1)
        channel, points, log_g = channel[inside], points[inside], log_g[inside]
        log_factor = math.log(len(function.channels)) - log_g - log_q[inside]
        if len(function.channels) > 1 and len(inside):
            log_alpha = function.log_weights(points, channel, log_g)
            alpha = log_alpha.gather(1, channel.unsqueeze(1)).squeeze(1)
            log_factor = log_factor + torch.where(torch.isnan(alpha), -torch.inf, alpha)  # where no channel has one
        own = function.factors_of(points)
        return Known(inside, replace(own, log_factor=own.log_factor + log_factor))

    def __call__(self, x: Tensor, log_q: Tensor) -> Tensor:
        """s (n,), float64, at cube points x (n, dim) with log densities log_q (n,).

        Positive wherever the integrand may be non-zero, and zero where its channels say that it is zero.
        """
        if self.net is None:
            raise UnweightingError("this surrogate has not been fitted")
        known = self.known(x, log_q)
        factors = known.factors
        values = torch.exp(factors.log_factor + self.net.log_r(factors.features, factors.kind))
        return torch.zeros_like(log_q).index_copy(0, known.inside, values)

    def fit(self, x: Tensor, log_q: Tensor, weights: Tensor, config: SurrogateConfig, streams: Streams) -> None:
        """Learn from points x (n, dim) with log densities log_q (n,) and weights (n,); signs are dropped.

        Raises
        ------
        ShapeError
            If the shapes do not fit together.
        UnweightingError
            If hardly any weight is different from zero.
        TrainingDivergedError
            If the network does not stay finite.
        """
        if weights.shape != log_q.shape or x.shape[:1] != log_q.shape:
            shapes = [tuple(tensor.shape) for tensor in (x, log_q, weights)]
            raise ShapeError(f"expected x (n, dim), log_q (n,) and weights (n,), got {shapes}")
        known = self.known(x, log_q)
        size = weights.double().abs()[known.inside]
        found = size > 0.0
        if int(found.sum()) < tuning.SURROGATE_FEWEST:
            raise UnweightingError(
                f"a surrogate needs {tuning.SURROGATE_FEWEST} points with a non-zero weight, got {int(found.sum())}"
            )
        factors = known.factors
        generator = streams.generator("surrogate weights")
        net = self.network(factors.features.shape[1], factors.kinds, config, generator).to(x.device)
        net.adapt(factors.features[found], (torch.log(size) - factors.log_factor)[found])
        _train(net, factors, torch.log(size / size.mean()), torch.log(size.mean()), streams)
        self.net = net.eval()

    def state(self) -> State:
        """Tensors and JSON metadata for `load`."""
        if self.net is None:
            raise UnweightingError("this surrogate has not been fitted")
        return dict(self.net.state_dict()), {
            "features": self.net.features,
            "kinds": self.net.kinds,
            "config": asdict(self.net.config),
        }

    @classmethod
    def load(
        cls, integrand: Integrand, sampler: Sampler, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> Surrogate:
        """The surrogate whose `state` this is.

        Raises
        ------
        CorruptFileError
            If the state does not fit together.
        """
        try:
            net = cls.network(meta["features"], meta["kinds"], SurrogateConfig(**meta["config"]))
            net.load_state_dict(dict(tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptFileError(f"the stored surrogate cannot be rebuilt: {error}") from error
        return cls(integrand, sampler, net.to(sampler.device).eval())


def _train(net: SurrogateNet, factors: Factors, log_w: Tensor, log_mean: Tensor, streams: Streams) -> None:
    """Fit log s to log_w (n,), which is -inf where the integrand is zero; both are in units of the mean weight.

    First the mean of log²(w/s), which is quick to learn from. Then the Rényi divergence of the normalised weights from
    the normalised surrogate, log(⟨w (w/s)^(α-1)⟩^(1/(α-1)) ⟨s⟩): for a large order α its exponential is max(w/s)
    ⟨s⟩/⟨w⟩, the integrand calls for an event. Only this sees points where the integrand is zero. Points of large
    weight, which decide about events, are drawn more often, and counted less in the divergence.
    """
    config, features = net.config, net.standardised(factors.features)
    steps = config.steps_for(len(features))
    stepper = Stepper(net, adamw(config.learning_rate), lambda step: _rate(step, steps), tuning.SURROGATE_CLIP)
    offset, width = (net.centre + factors.log_factor - log_mean).float(), float(net.width)
    often = torch.exp(tuning.SURROGATE_EMPHASIS * log_w)
    often = (1.0 - tuning.SURROGATE_EVEN) * often / often.mean() + tuning.SURROGATE_EVEN
    places, log_often = often.cumsum(0) / often.sum(), torch.log(often).float()
    log_w, power = log_w.float(), config.order - 1.0
    for step in range(steps):
        generator = streams.generator("surrogate batch", step, device=features.device)
        number = torch.rand(config.batch, generator=generator, dtype=places.dtype, device=features.device)
        index = torch.searchsorted(places, number).clamp(max=len(places) - 1)
        log_s, counted = offset[index] + width * net(features[index], factors.kind[index]), log_often[index]
        found = log_w[index] > -math.inf
        log_r = log_w[index][found] - log_s[found]
        if not len(log_r):
            continue
        if step < tuning.SURROGATE_SQUARED * steps:
            loss = log_r.square().mean()
        else:
            tail = torch.logsumexp(log_w[index][found] - counted[found] + power * log_r, 0) / power
            loss = tail + torch.logsumexp(log_s - counted, 0) - math.log(config.batch)
        if not all(map(math.isfinite, stepper.step(loss, step))):
            raise TrainingDivergedError(
                f"loss or gradient of the surrogate were not finite in step {step + 1} of {steps}: lower its "
                f"learning_rate (now {config.learning_rate:g})"
            )


def _rate(step: float, steps: int) -> float:
    """Factor of the learning rate: a straight line up, and a cosine down."""
    return min(1.0, (step + 1) / tuning.SURROGATE_WARM_UP) * COSINE(step / steps)
