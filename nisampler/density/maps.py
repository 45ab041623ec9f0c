"""One map of the unit cube: a channel, with or without its inverse, of torch or of NumPy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

from nisampler.base.checks import Count, checked
from nisampler.errors import ChannelError

# Distance that points keep from the borders between channels, so that rounding to float32 does not change a channel.
# No value depends on the position within a channel's interval.
_BORDER = 4e-6
# How far rounding may carry the inverse of a point out of the cube.
_OUTSIDE = 1e-6


class Channel(Protocol):
    """A map of the unit cube [0, 1]^dim to points x of any shape (n, ...), with the density that it gives them.

    It may take and return torch tensors or NumPy arrays. An `InvertibleChannel` knows the way back too.

    Examples
    --------
    >>> class Square:
    ...     name, dim = "square", 1
    ...     def forward(self, u):
    ...         return u**2, -torch.log(2 * u[:, 0])
    >>> channel: Channel = Square()
    >>> x, log_g = channel.forward(torch.tensor([[0.5]]))
    >>> x.tolist(), log_g.tolist()
    ([[0.25]], [-0.0])
    """

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


class InvertibleChannel(Channel, Protocol):
    """A channel that knows where a point came from, and its own density at the points of other channels.

    >>> class Square:
    ...     name, dim = "square", 1
    ...     def forward(self, u):
    ...         return u**2, -torch.log(2 * u[:, 0])
    ...     def inverse(self, x):
    ...         return x.sqrt(), -torch.log(2 * x[:, 0].sqrt())
    >>> channel: InvertibleChannel = Square()
    >>> channel.inverse(torch.tensor([[0.25]]))[0]
    tensor([[0.5000]])
    """

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, ...) -> u (n, dim) and log g(x) (n,); -inf, with any u, where the channel does not reach."""
        ...


class _NumpyChannel:
    """A channel of NumPy functions, as one of torch."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.name, self.dim = channel, channel.name, channel.dim

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """As `Channel` asks."""
        return _through_numpy(self.channel.forward, u)


class _InvertibleNumpyChannel(_NumpyChannel):
    """The same with the way back."""

    channel: InvertibleChannel

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `InvertibleChannel` asks."""
        return _through_numpy(self.channel.inverse, x)


def _through_numpy(function: Callable[[Any], Any], points: Tensor) -> tuple[Tensor, Tensor]:
    values, log_density = function(points.detach().cpu().numpy())
    return tuple(torch.as_tensor(np.asarray(part)).to(points.device) for part in (values, log_density))  # type: ignore[return-value]


def invertible(channel: Channel) -> TypeGuard[InvertibleChannel]:
    """Whether a channel has an inverse.

    >>> class OneWay:
    ...     name, dim = "one way", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros(len(u))
    >>> invertible(OneWay())
    False
    """
    return callable(getattr(channel, "inverse", None))


def require_channels(channels: Sequence[Channel]) -> None:
    """Refuse what are no channels, or not of one cube.

    Raises
    ------
    ChannelError, ConfigError
        If one lacks something, or they have no common dimension.

    Examples
    --------
    >>> require_channels([torch.nn.Identity()])
    Traceback (most recent call last):
    nisampler.errors.ChannelError: channel 0 (Identity) lacks name, dim: a channel has a name, its number of ...
    """
    if not isinstance(channels, Sequence):
        raise ChannelError(f"channels must be a list of them, got {type(channels).__name__}")
    for index, channel in enumerate(channels):
        lacks = [word for word in ("name", "dim", "forward") if not hasattr(channel, word)]
        if lacks:
            raise ChannelError(
                f"channel {index} ({type(channel).__name__}) lacks {', '.join(lacks)}: a channel has a name, its "
                "number of coordinates dim, and forward(u), which gives points and the log of their density"
            )
        checked(f"dim of channel {channel.name!r}", channel.dim, Count)
    if len({channel.dim for channel in channels}) != 1:
        dims = {channel.name: channel.dim for channel in channels}
        raise ChannelError(f"channels must be given and have one common dimension, got {dims}")


def as_torch(channel: Channel) -> Channel:
    """The channel itself if it is one of torch, which is tried with two points, or one that wraps its NumPy functions.

    One with the attribute ``kind = "torch"`` is not tried. A channel that takes neither is returned as it is: its own
    message comes when it is used.

    Examples
    --------
    >>> class Square:
    ...     name, dim = "square", 1
    ...     def forward(self, u):
    ...         return np.square(u), -np.log(2 * u[:, 0])
    >>> as_torch(Square()).forward(torch.tensor([[0.5]], dtype=torch.float64))[0]
    tensor([[0.2500]], dtype=torch.float64)
    """
    if getattr(channel, "kind", None) == "torch":
        return channel
    wrapped = (_InvertibleNumpyChannel if invertible(channel) else _NumpyChannel)(channel)
    u = torch.linspace(0.25, 0.75, 2 * channel.dim, dtype=torch.float64).view(2, channel.dim)
    for candidate in (channel, wrapped):
        with suppress(Exception), warnings.catch_warnings():
            warnings.filterwarnings("error", message="__array_wrap__")  # a NumPy function, given tensors
            x, log_g = candidate.forward(u.clone())
            if isinstance(x, Tensor) and isinstance(log_g, Tensor):
                return candidate
    return channel


def inverses(channels: Sequence[Channel], x: Tensor) -> tuple[Tensor, Tensor]:
    """Where each channel would have made the points: u (K, n, dim) in the cube, and log g (n, K).

    Where a channel does not reach (log g = -inf) its u is some point of the cube.

    Raises
    ------
    ChannelError
        If a channel has no inverse, or it leads out of the cube where the channel reaches.

    Examples
    --------
    >>> class Half:
    ...     name, dim = "half", 1
    ...     def forward(self, u):
    ...         return u / 2, torch.full((len(u),), math.log(2))
    ...     def inverse(self, x):
    ...         return 2 * x, torch.where(x[:, 0] <= 0.5, math.log(2), -math.inf)
    >>> u, log_g = inverses([Half()], torch.tensor([[0.25], [0.75]]))
    >>> u.flatten().tolist(), log_g.exp().flatten().tolist()
    ([0.5, 1.0], [2.0, 0.0])
    """
    cubes, densities = zip(*(channel.inverse(x) for channel in all_invertible(channels)), strict=True)
    u, log_g = torch.stack(cubes), torch.stack(densities, 1)
    outside = ~((u >= -_OUTSIDE) & (u <= 1.0 + _OUTSIDE)).all(2).t() & (log_g > -math.inf)
    if bool(outside.any()):
        outside &= torch.isfinite(x).flatten(1).all(1, keepdim=True)
        for point, index in torch.nonzero(outside)[:1].tolist():
            raise ChannelError(
                f"channel {channels[index].name!r}: the inverse of a point is {u[index, point].tolist()}, outside the "
                "unit cube, although its density is not zero: return log g = -inf where the channel does not reach"
            )
    return u.nan_to_num(0.5).clamp(0.0, 1.0), log_g


def all_invertible(channels: Sequence[Channel]) -> list[InvertibleChannel]:
    """The channels, if all of them have an inverse; ChannelError naming those that have none.

    >>> class OneWay:
    ...     name, dim = "one way", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros(len(u))
    >>> all_invertible([OneWay()])
    Traceback (most recent call last):
    ...
    nisampler.errors.ChannelError: channels without an inverse ('one way') do not tell their densities at a point: ...
    """
    found = [channel for channel in channels if invertible(channel)]
    if len(found) < len(channels):
        missing = ", ".join(repr(channel.name) for channel in channels if not invertible(channel))
        raise ChannelError(
            f"channels without an inverse ({missing}) do not tell their densities at a point: mixture weights, and a "
            "prior in proportion to the densities, need them. Give prior=, the weights of the channels as a function "
            "of the point, or an inverse"
        )
    return found


def channel_of(first: Tensor, count: int) -> Tensor:
    """The channel ⌊K u_0⌋ that the first cube coordinate (n,) stands for.

    >>> channel_of(torch.tensor([0.1, 0.9, 1.0]), 3)
    tensor([0, 2, 2])
    """
    return (first.double() * count).long().clamp(0, count - 1)


def channel_coordinate(channel: Tensor, position: Tensor, count: int) -> Tensor:
    """The first cube coordinate of a channel (n,) at a position in [0, 1] within its interval.

    >>> channel_coordinate(torch.tensor([0, 2]), torch.tensor([0.5, 0.5]), 4)
    tensor([0.1250, 0.6250])
    """
    return (channel + position.clamp(_BORDER, 1.0 - _BORDER)) / count
