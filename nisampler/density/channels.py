"""Many maps of one space: channels, their prior and learned weights, and the integrand that they make together.

A channel i maps the unit cube to points x with density g_i(x) = |du/dx|, and back. The integral of f is split as

    I = Σ_i ∫ α_i(x) f(x) dx = Σ_i ∫ α_i(x_i(u)) f(x_i(u)) / g_i(x_i(u)) du,   Σ_i α_i(x) = 1,

with weights α_i that are free: any choice gives the same integral, a good one makes α_i f / g_i smooth in each channel.
The prior α_i ∝ g_i is the multichannel method of Kleiss and Pittau (hep-ph/9405257); a network learns its correction
(MadNIS, 2212.06172 section 3, 2311.01548).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nisampler.base.rng import Streams
from nisampler.errors import ChannelError, ConfigError, ShapeError
from nisampler.flows.nets.mlp import MLP, NetConfig

# Points of the self-test in each channel, and agreement that it asks for.
_TEST_POINTS, _TEST_TOLERANCE = 512, 1e-6
# Jacobians from a channel to others: how many points and other channels, step, largest log of a ratio, agreement.
_TEST_JACOBIANS, _TEST_PARTNERS, _TEST_STEP, _TEST_RATIO, _TEST_JACOBIAN = 32, 3, 1e-6, 10.0, 0.01
# Distance that points keep from the borders between channels, so that rounding to float32 does not change a channel.
# No value depends on the position within a channel's interval.
_BORDER = 4e-6


class Channel(Protocol):
    """An invertible map of the unit cube [0, 1]^dim to points x of any shape (n, ...), with its density."""

    @property
    def name(self) -> str:
        """A short identifier for messages and tables."""
        ...

    @property
    def dim(self) -> int:
        """Number of coordinates of the cube."""
        ...

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, ...) and log g(x) (n,), finite for every u of the closed cube."""
        ...

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, ...) -> u (n, dim) and log g(x) (n,), which is -inf where the channel does not reach."""
        ...


class Weights(Protocol):
    """Weights of the channels as a function of a point alone, such as `ChannelWeights`."""

    def log_alpha(self, function: Multichannel, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """log α (n, K), float64, at points x made by the channels (n,) of `function` with log densities log_g (n,)."""
        ...


class ChannelWeights(nn.Module):
    """α_i(x) ∝ prior_i(x) · exp(net_i(features of x)), summing to one over the channels that are not dropped.

    The network's last layer starts at zero, so that training starts at the prior. The softmax is taken in float64.

    Parameters
    ----------
    channels, features
        Numbers of channels and of features of a point.
    hidden, layers
        Of the network.
    generator
        Draws its weights.
    """

    shift: Tensor
    scale: Tensor
    active: Tensor

    def __init__(
        self,
        channels: int,
        features: int,
        hidden: int = 64,
        layers: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if channels < 2 or features < 1:
            raise ConfigError(f"channel weights need two channels and a feature, got {channels} and {features}")
        config = NetConfig(hidden=hidden, layers=layers)
        self.net = MLP(features, channels, config, generator or torch.Generator().manual_seed(0))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("active", torch.ones(channels, dtype=torch.bool))

    def standardise(self, features: Tensor) -> None:
        """Bring features to mean zero and width one, as they are among these points (n, F)."""
        self.shift.copy_(features.mean(0))
        self.scale.copy_(1.0 / features.std(0).clamp(min=1e-6))

    def forward(self, features: Tensor, log_prior: Tensor) -> Tensor:
        """log α (n, K), float64, from features (n, F) and the log of the prior weights (n, K)."""
        scaled = (features.to(self.shift.dtype) - self.shift) * self.scale
        logits = log_prior.double() + self.net(scaled.clamp(-10.0, 10.0)).double()
        return torch.log_softmax(logits.masked_fill(~self.active, -math.inf), 1)

    def log_alpha(self, function: Multichannel, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """As `Weights` asks."""
        log_alpha: Tensor = self(function.features(x), function.log_prior(x, channel, log_g))
        return log_alpha

    def drop(self, channels: Tensor) -> None:
        """Give the channels of this mask (K,) the weight zero; the others share what they had."""
        if bool((~self.active | channels).all()):
            raise ChannelError("every channel would be dropped: keep at least one")
        self.active &= ~channels.to(self.active.device)


@dataclass(frozen=True)
class ChannelValues:
    """What an integrand gives at cube points before any channel weight is applied.

    Attributes
    ----------
    value
        K f(x) / g_i(x), shape (n,), for the channel i that made the point.
    channel
        That channel, shape (n,).
    log_prior
        Log of the prior weights, shape (n, K), float64.
    features
        Of the points x, shape (n, F).
    """

    value: Tensor
    channel: Tensor
    log_prior: Tensor
    features: Tensor


class Multichannel:
    """f, seen through several channels, as one integrand on a unit cube.

    With K > 1 channels of dimension d the cube has 1 + d coordinates: the first one u_0 chooses channel ⌊K u_0⌋, and
    the value is K α_i f / g_i. With one channel the cube is the channel's own.

    Parameters
    ----------
    function
        f of points x (n, ...), returning (n,).
    channels
        All of one dimension.
    features
        Maps points x to finite numbers (n, F) that the weight network sees; x itself, flattened, by default.
    groups
        For each channel the number of the flow that it uses; channels that are images of each other under a symmetry
        share one. By default each has its own.
    prior
        Maps points x to log weights (n, K), such as products of propagators, which must be -inf where a channel does
        not reach; by default the log densities of the channels.
    support
        Cheap mask (n,) of the points where f may be non-zero; others get no prior weights.
    weights
        What the weights of the channels are; the prior by default.

    Raises
    ------
    ChannelError
        If there is no channel, dimensions differ, or the groups do not fit.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        channels: Sequence[Channel],
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        groups: Sequence[int] | None = None,
        prior: Callable[[Tensor], Tensor] | None = None,
        support: Callable[[Tensor], Tensor] | None = None,
        weights: Weights | None = None,
    ) -> None:
        if not channels or len({channel.dim for channel in channels}) != 1:
            dims = {channel.name: channel.dim for channel in channels}
            raise ChannelError(f"channels must be given and have one common dimension, got {dims}")
        self.function, self.channels = function, tuple(channels)
        self.groups = tuple(range(len(channels))) if groups is None else tuple(groups)
        if len(self.groups) != len(channels) or sorted(set(self.groups)) != list(range(max(self.groups) + 1)):
            raise ChannelError(f"groups must name a flow 0, 1, ... for each of {len(channels)} channels, got {groups}")
        self.features = features or _flat
        self._prior, self._support = prior, support
        self.weights = weights
        self.dim = channels[0].dim + (1 if len(channels) > 1 else 0)
        self.name = str(getattr(function, "name", getattr(function, "__name__", "multichannel")))
        self.unit = str(getattr(function, "unit", ""))

    @property
    def multichannel(self) -> Multichannel:
        """Itself: how the engine knows a function with channels, or one that delegates to such a function."""
        return self

    def feature_count(self, device: torch.device | str = "cpu") -> int:
        """Number of features of a point."""
        u = torch.full((1, self.channels[0].dim), 0.5, dtype=torch.float64, device=device)
        return int(self.features(self.channels[0].forward(u)[0]).shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.channels)

    def with_weights(self, weights: Weights | None) -> Multichannel:
        """The same integral split by other weights."""
        other = copy.copy(self)
        other.weights = weights
        return other

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim)."""
        count = len(self.channels)
        channel, x, log_g = self.points(u)
        value = count * self.function(x) * torch.exp(-log_g)
        inside = torch.nonzero(value != 0.0).squeeze(1)
        if count == 1 or not len(inside):
            return value
        log_alpha = self.log_weights(x[inside], channel[inside], log_g[inside])
        own = log_alpha.gather(1, channel[inside].unsqueeze(1)).squeeze(1)
        return value.index_copy(0, inside, value[inside] * own.exp())

    def log_weights(self, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """log α (n, K) at points x that the channels (n,) made with log densities log_g (n,)."""
        if self.weights is not None:
            return self.weights.log_alpha(self, x, channel, log_g)
        return self.log_prior(x, channel, log_g)

    def points(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The channel (n,), the point x (n, ...) and the log density log g of that channel (n,) at cube points u."""
        if u.dim() != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"expected cube points of shape (n, {self.dim}), got {tuple(u.shape)}")
        if len(self.channels) == 1:
            return u.new_zeros(len(u), dtype=torch.long), *self.channels[0].forward(u)
        channel = channel_of(u[:, 0], len(self.channels))
        order = torch.argsort(channel, stable=True)
        counts = torch.bincount(channel, minlength=len(self.channels)).tolist()
        parts = [
            member.forward(block)
            for member, block in zip(self.channels, torch.split(u[order, 1:], counts), strict=True)
            if len(block)
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=u.device)
        if not parts:
            return channel, *self.channels[0].forward(u[:, 1:])
        return channel, torch.cat([x for x, _ in parts])[back], torch.cat([log_g for _, log_g in parts])[back]

    def evaluate(self, u: Tensor) -> ChannelValues:
        """Everything that is known of the cube points u (n, dim) before channel weights are applied."""
        count = len(self.channels)
        channel, x, log_g = self.points(u)
        value = count * self.function(x) * torch.exp(-log_g)
        inside = torch.nonzero(value != 0.0).squeeze(1)
        log_prior = value.new_full((len(u), count), -math.log(count))
        log_prior[inside] = self.log_prior(x[inside], channel[inside], log_g[inside])
        return ChannelValues(value, channel, log_prior, self.checked_features(x))

    def checked_features(self, x: Tensor) -> Tensor:
        """Features (n, F) of points x; ChannelError if one is not finite."""
        features = self.features(x)
        if not bool(torch.isfinite(features).all()):
            column = int(torch.nonzero(~torch.isfinite(features))[0, 1])
            raise ChannelError(
                f"{self.name}: feature {column} of a point is not finite; features must be finite everywhere, also "
                "where the function is zero: clamp their arguments"
            )
        return features

    def log_densities(self, x: Tensor) -> Tensor:
        """log g_i(x) of every channel, shape (n, K)."""
        return torch.stack([channel.inverse(x)[1] for channel in self.channels], 1)

    def log_prior(self, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """Log of the prior weights (n, K); arguments as for `log_weights`."""
        if self._prior is not None:
            return torch.log_softmax(self._prior(x), 1)
        densities = self.log_densities(x).scatter(1, channel.unsqueeze(1), log_g.unsqueeze(1))
        return torch.log_softmax(densities, 1)

    def self_test(self, streams: Streams | None = None, device: torch.device | str = "cpu") -> None:
        """Check that every channel's inverse undoes it, and that its density is the one of its points.

        The second part needs other channels that reach the same points: what all densities have in common cannot be
        seen, nor anything of a single channel.

        Raises
        ------
        ChannelError
            Naming the first channel that fails, and how.
        """
        streams = streams or Streams(0)
        made: list[tuple[Tensor, ...]] = []
        for index, channel in enumerate(self.channels):
            generator = streams.generator("channel test", index, device=device)
            u = torch.rand(_TEST_POINTS, channel.dim, generator=generator, dtype=torch.float64, device=device)
            x, log_g = channel.forward(u)
            if not bool(torch.isfinite(x).all() & torch.isfinite(log_g).all()):
                raise ChannelError(f"channel {channel.name!r} makes points or densities that are not finite")
            inside = self.inside(x)
            _check_inverse(channel, u[inside], x[inside], log_g[inside])
            made.append((u[inside], x[inside], log_g[inside]))
        self._check_densities(made)
        if self._prior is not None:
            self._check_prior(torch.cat([x for _, x, _ in made]), self._prior)

    def inside(self, x: Tensor) -> Tensor:
        """Whether each point (n, d) lies where the function may be different from zero, bool (n,)."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device) if self._support is None else self._support(x)

    def _check_densities(self, made: Sequence[tuple[Tensor, ...]]) -> None:
        """Compare ratios of densities with jacobians from channel to channel: |∂u_j/∂u_i| = g_j / g_i."""
        found: list[tuple[int, int, float]] = []
        for index, (u, x, log_g) in enumerate(made):
            ratio = self.log_densities(x) - log_g.unsqueeze(1)
            usable = (ratio.abs() < _TEST_RATIO) & ((u > _TEST_STEP) & (u < 1.0 - _TEST_STEP)).all(1, keepdim=True)
            usable[:, index] = False
            for other in torch.argsort(usable.sum(0), descending=True).tolist()[:_TEST_PARTNERS]:
                chosen = torch.nonzero(usable[:, other]).squeeze(1)[:_TEST_JACOBIANS]
                if len(chosen) >= _TEST_JACOBIANS // 4:
                    numeric = _log_jacobian(self.channels[index], self.channels[other], u[chosen])
                    # the median does not mind a kink of a map here or there
                    mismatch = (numeric - ratio[chosen, other]).nan_to_num(math.inf).median()
                    found.append((index, other, float(mismatch)))
        wrong = [pair for pair in found if not abs(pair[2]) < _TEST_JACOBIAN]
        if not wrong:
            return
        first = max(range(len(made)), key=lambda k: sum(k in pair[:2] for pair in wrong))
        index, other, size = next(pair for pair in wrong if first in pair[:2])
        partner = self.channels[other if first == index else index].name
        raise ChannelError(
            f"channel {self.channels[first].name!r} fails its self-test: density times jacobian is not one (compared "
            f"with channel {partner!r} it is off by {abs(size):.2g} in the logarithm)"
        )

    def _check_prior(self, x: Tensor, prior: Callable[[Tensor], Tensor]) -> None:
        bad = (prior(x) > -math.inf) & (self.log_densities(x) == -math.inf)
        if bool(bad.any()):
            name = self.channels[int(torch.nonzero(bad)[0, 1])].name
            raise ChannelError(
                f"the prior gives channel {name!r} a weight at points that it does not reach, whose part of the "
                "integral would be lost: return -inf there"
            )


def _log_jacobian(channel: Channel, other: Channel, u: Tensor) -> Tensor:
    """log |∂u_j/∂u_i| (n,) from a channel i to another channel j at the points u (n, dim), by central differences."""
    shifts = _TEST_STEP * torch.eye(u.shape[1], dtype=u.dtype, device=u.device).unsqueeze(1)
    ends = torch.cat([u + shifts, u - shifts]).flatten(0, 1)
    high, low = other.inverse(channel.forward(ends)[0])[0].view(2, u.shape[1], *u.shape).unbind(0)
    matrices = (high - low).permute(1, 0, 2) / (2.0 * _TEST_STEP)
    log_size: Tensor = torch.linalg.slogdet(matrices).logabsdet
    return log_size


def channel_of(first: Tensor, count: int) -> Tensor:
    """The channel ⌊K u_0⌋ that the first cube coordinate (n,) stands for."""
    return (first.double() * count).long().clamp(0, count - 1)


def channel_coordinate(channel: Tensor, position: Tensor, count: int) -> Tensor:
    """The first cube coordinate of a channel (n,) at a position in [0, 1] within its interval."""
    return (channel + position.clamp(_BORDER, 1.0 - _BORDER)) / count


def multichannel_of(function: Callable[..., Any], at_least: int = 2) -> Multichannel | None:
    """The channels behind a function, if it has at least so many."""
    found = getattr(function, "multichannel", None)
    return found if isinstance(found, Multichannel) and len(found.channels) >= at_least else None


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _check_inverse(channel: Channel, u: Tensor, x: Tensor, log_g: Tensor) -> None:
    back, density = channel.inverse(x)
    if back.shape != u.shape or density.shape != log_g.shape:
        raise ChannelError(f"channel {channel.name!r}: the inverse returns {tuple(back.shape)} for {tuple(u.shape)}")
    if not len(u):
        return
    distance = float((back - u).abs().nan_to_num(math.inf).max())
    if not distance < _TEST_TOLERANCE:
        raise ChannelError(
            f"channel {channel.name!r} fails its self-test: its inverse misses the point it came from by {distance:.2g}"
        )
    mismatch = float((density - log_g).abs().nan_to_num(math.inf).max())
    if not mismatch < _TEST_TOLERANCE:
        raise ChannelError(
            f"channel {channel.name!r} fails its self-test: density times jacobian is not one (log density of the "
            f"inverse and of the map differ by {mismatch:.2g})"
        )
