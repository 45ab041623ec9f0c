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
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.base.rng import Streams
from nisampler.density.factors import Factors
from nisampler.density.maps import Channel, all_invertible, as_torch, channel_of, inverses, invertible, require_channels
from nisampler.density.self_test import check_channels
from nisampler.density.spread import Call
from nisampler.density.values import ADAPTERS, Kind, Values
from nisampler.errors import ChannelError, ConfigError, ShapeError


class Weights(Protocol):
    """Weights of the channels as a function of a point alone, such as `ChannelWeights`.

    >>> class Equal:
    ...     def log_alpha(self, function, x, channel, log_g):
    ...         count = len(function.channels)
    ...         return torch.full((len(x), count), -math.log(count), dtype=torch.float64)
    >>> weights: Weights = Equal()
    """

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

    Examples
    --------
    >>> weights = ChannelWeights(channels=2, features=1)
    >>> prior = torch.tensor([[0.25, 0.75]])
    >>> weights(torch.zeros(1, 1), torch.log(prior)).exp().detach()
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
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
        from nisampler.flows.nets.mlp import MLP, NetConfig  # which few jobs need

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
        log_alpha: Tensor = self(function.features_of(x), function.log_prior(x, channel, log_g))
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
        K f(x) / g_i(x), shape (n,), for the channel i that made the point; of several integrals in the form that f has.
    channel
        That channel, shape (n,).
    log_prior
        Log of the prior weights, shape (n, K), float64.
    features
        Of the points x, shape (n, F).

    Examples
    --------
    >>> class Whole:
    ...     name, dim = "whole", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros_like(u[:, 0])
    >>> function = Multichannel(lambda x: x[:, 0], [Whole(), Whole()], prior=lambda x: torch.zeros(len(x), 2))
    >>> found = function.evaluate(torch.tensor([[0.1, 0.5], [0.9, 0.25]]))
    >>> found.value, found.channel
    (tensor([1.0000, 0.5000]), tensor([0, 1]))
    """

    value: Any
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
        f of points x (n, ...), returning (n,), or for several integrals (n, k) or a dictionary of (n,). Its kind is
        found, or given, as for any `nisampler.density.integrand.Integrand`.
    channels
        All of one dimension.
    features
        Maps points x to finite numbers (n, F) that the weight network sees; x itself, flattened, by default.
    groups
        For each channel the number of the flow that it uses; channels that are images of each other under a symmetry
        share one. By default each has its own.
    prior
        Maps points x to log weights (n, K), such as products of propagators, which must be -inf where a channel does
        not reach; by default the log densities of the channels, which then need an inverse.
    densities
        Maps points x to the log densities (n, K) of all channels, where that costs less than their inverses.
    support
        Cheap mask (n,) of the points where f may be non-zero; others get no prior weights.
    weights
        What the weights of the channels are; the prior by default.
    shown
        What a user gets to see of points x; all of it by default.
    factors
        What is known of f at points x without calling it, from and in torch tensors: a surrogate learns the rest. By
        default nothing is, and it learns f from the features.

    Raises
    ------
    ChannelError
        If there is no channel, dimensions differ, the groups do not fit, or channels without an inverse have no prior.

    Examples
    --------
    >>> class Power:
    ...     dim = 1
    ...     def __init__(self, power):
    ...         self.name, self.power = f"power {power}", power
    ...     def forward(self, u):
    ...         x = u ** (1 / self.power)
    ...         return x, self.log_density(x)
    ...     def inverse(self, x):
    ...         return x**self.power, self.log_density(x)
    ...     def log_density(self, x):
    ...         return torch.log(self.power * x[:, 0] ** (self.power - 1))
    >>> function = Multichannel(lambda x: 3 * x[:, 0] ** 2, [Power(2.0), Power(4.0)])
    >>> u = torch.rand(5000, function.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> abs(float(function(u).mean()) - 1) < 0.02
    True
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        channels: Sequence[Channel],
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        groups: Sequence[int] | None = None,
        prior: Callable[[Tensor], Tensor] | None = None,
        densities: Callable[[Tensor], Tensor] | None = None,
        support: Callable[[Tensor], Tensor] | None = None,
        weights: Weights | None = None,
        shown: Callable[[Tensor], Tensor] | None = None,
        factors: Callable[[Tensor], Factors] | None = None,
    ) -> None:
        require_channels(channels)
        self.function, self.channels = function, tuple(as_torch(channel) for channel in channels)
        self.groups = tuple(range(len(channels))) if groups is None else tuple(groups)
        if len(self.groups) != len(channels) or sorted(set(self.groups)) != list(range(max(self.groups) + 1)):
            raise ChannelError(f"groups must name a flow 0, 1, ... for each of {len(channels)} channels, got {groups}")
        if prior is None and len(channels) > 1:
            all_invertible(self.channels)
        self.features = features or _flat
        self._prior, self._densities, self._support, self._shown = prior, densities, support, shown
        self._factors = factors
        self.kind: Kind = "torch"
        self.call: Call = ADAPTERS["torch"]
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
        return int(self.features_of(self.channels[0].forward(u)[0]).shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.channels)

    def as_kind(self, kind: Kind) -> Multichannel:
        """The same with the function of the points, prior, features and support called as functions of this kind.

        Of a "scalar" function of one point these take arrays of all points.
        """
        if kind == self.kind:
            return self
        other = copy.copy(self)
        other.kind, other.call = kind, ADAPTERS[kind]
        return other

    def with_call(self, call: Call) -> Multichannel:
        """The same with another way to call the function of the points, see `nisampler.density.spread`."""
        other = copy.copy(self)
        other.call = call
        return other

    @property
    def invertible(self) -> bool:
        """Whether every channel has an inverse, so that all densities of a point are known."""
        return all(invertible(channel) for channel in self.channels)

    def with_weights(self, weights: Weights | None) -> Multichannel:
        """The same integral split by other weights."""
        other = copy.copy(self)
        other.weights = weights
        return other

    def __call__(self, u: Tensor) -> Any:
        """Values (n,), or what else the function returns, at the cube points u (n, dim)."""
        count = len(self.channels)
        channel, x, log_g = self.points(u)
        value = self._value(x, log_g)
        inside = torch.nonzero(value.nonzero).squeeze(1)
        if count == 1 or not len(inside):
            return value.returned()
        log_alpha = self.log_weights(x[inside], channel[inside], log_g[inside])
        own = log_alpha.gather(1, channel[inside].unsqueeze(1)).squeeze(1)
        return value.scaled(own.exp(), inside).returned()

    def _value(self, x: Tensor, log_g: Tensor) -> Values:
        """K f / g at points x of channels with these log densities (n,)."""
        found = Values.of(self.name, self.call(self.function, x), len(x))
        found = replace(found, table=len(self.channels) * found.table.to(x.device))
        return found.scaled(torch.exp(-log_g))

    def _of_points(self, function: Callable[[Any], Any], x: Tensor) -> Tensor:
        """A prior, a support or features at points x, from torch or NumPy as the function of the points is."""
        if self.kind == "torch":
            found: Tensor = function(x)
            return found
        return torch.as_tensor(np.asarray(function(x.cpu().numpy()))).to(x.device)

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

    def shown(self, u: Tensor) -> Tensor:
        """What a user gets to see of the points (n, ...) at cube points u (n, dim)."""
        x = self.points(u)[1]
        return x if self._shown is None else self._shown(x)

    def evaluate(self, u: Tensor) -> ChannelValues:
        """Everything that is known of the cube points u (n, dim) before channel weights are applied."""
        channel, x, log_g = self.points(u)
        value = self._value(x, log_g)
        inside = torch.nonzero(value.nonzero).squeeze(1)
        count = len(self.channels)
        log_prior = value.table.new_full((len(u), count), -math.log(count))
        log_prior[inside] = self.log_prior(x[inside], channel[inside], log_g[inside])
        return ChannelValues(value.returned(), channel, log_prior, self.checked_features(x))

    def features_of(self, x: Tensor) -> Tensor:
        """Features (n, F) of points x."""
        return self._of_points(self.features, x)

    def checked_features(self, x: Tensor) -> Tensor:
        """Features (n, F) of points x; ChannelError if one is not finite."""
        features = self.features_of(x)
        if not bool(torch.isfinite(features).all()):
            column = int(torch.nonzero(~torch.isfinite(features))[0, 1])
            raise ChannelError(
                f"{self.name}: feature {column} of a point is not finite; features must be finite everywhere, also "
                "where the function is zero: clamp their arguments"
            )
        return features

    def factors_of(self, x: Tensor) -> Factors:
        """What is known of f at points x, the features alone where nothing else is; ChannelError if it cannot be."""
        if self._factors is not None:
            return self._factors(x)
        nothing = x.new_zeros(len(x), dtype=torch.float64)
        return Factors(nothing, self.checked_features(x).double(), nothing.long(), 1)

    def log_densities(self, x: Tensor) -> Tensor:
        """log g_i(x) of every channel, shape (n, K)."""
        if self._densities is not None:
            return self._of_points(self._densities, x)
        return torch.stack([channel.inverse(x)[1] for channel in all_invertible(self.channels)], 1)

    def inverses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where each channel would have made points x: u (K, n, dim) in its cube, and log g (n, K)."""
        return inverses(self.channels, x)

    def log_prior(self, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """Log of the prior weights (n, K); arguments as for `log_weights`."""
        if len(self.channels) == 1:
            return log_g.new_zeros(len(log_g), 1)
        if self._prior is not None:
            return torch.log_softmax(self._of_points(self._prior, x), 1)
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
        given = self._prior or self._densities
        prior = None if given is None else lambda x: self._of_points(given, x)
        check_channels(self.channels, self.inside, prior, streams or Streams(0), device)

    def inside(self, x: Tensor) -> Tensor:
        """Whether each point (n, d) lies where the function may be different from zero, bool (n,)."""
        if self._support is None:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return self._of_points(self._support, x)


def multichannel_of(function: Callable[..., Any], at_least: int = 2) -> Multichannel | None:
    """The channels behind a function, if it has at least so many.

    >>> multichannel_of(torch.sin) is None
    True
    """
    found = getattr(function, "multichannel", None)
    return found if isinstance(found, Multichannel) and len(found.channels) >= at_least else None


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)
