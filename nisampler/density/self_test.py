"""Channels are checked before a training spends calls on them: inverses, densities and priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.density.maps import Channel, InvertibleChannel, inverses, invertible
from nisampler.errors import ChannelError

# Points of the self-test in each channel, and agreement that it asks for.
_TEST_POINTS, _TEST_TOLERANCE = 512, 1e-6
# Jacobians from a channel to others: how many points and other channels, step, largest log of a ratio, agreement.
_TEST_JACOBIANS, _TEST_PARTNERS, _TEST_STEP, _TEST_RATIO, _TEST_JACOBIAN = 32, 3, 1e-6, 10.0, 0.01


def check_channels(
    channels: Sequence[Channel],
    inside: Callable[[Tensor], Tensor],
    prior: Callable[[Tensor], Tensor] | None,
    streams: Streams,
    device: torch.device | str,
) -> None:
    """Check channels as `nisampler.density.channels.Multichannel.self_test` says.

    Parameters
    ----------
    channels
        Of one dimension.
    inside
        Mask (n,) of points where the function may be different from zero.
    prior
        Log weights (n, K) of points, if they are not the densities.
    streams, device
        Of the test points.

    Raises
    ------
    ChannelError
        Naming the first channel that fails, and how.

    Examples
    --------
    >>> class Wrong:
    ...     name, dim = "wrong", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros_like(u[:, 0])
    ...     def inverse(self, x):
    ...         return 1 - x, torch.zeros_like(x[:, 0])
    >>> check_channels([Wrong()], lambda x: x[:, 0] >= 0, None, Streams(0), "cpu")
    Traceback (most recent call last):
    ...
    nisampler.errors.ChannelError: channel 'wrong' fails its self-test: its inverse misses the point it came from by ...
    """
    made: list[tuple[Tensor, ...]] = []
    for index, channel in enumerate(channels):
        generator = streams.generator("channel test", index, device=device)
        u = torch.rand(_TEST_POINTS, channel.dim, generator=generator, dtype=torch.float64, device=device)
        x, log_g = channel.forward(u)
        if not bool(torch.isfinite(x).all() & torch.isfinite(log_g).all()):
            raise ChannelError(f"channel {channel.name!r} makes points or densities that are not finite")
        where = inside(x)
        if invertible(channel):
            _check_inverse(channel, u[where], x[where], log_g[where])
        made.append((u[where], x[where], log_g[where]))
    x = torch.cat([x for _, x, _ in made])
    if all(invertible(channel) for channel in channels):
        densities = _densities(channels, x)
        _check_densities(channels, made, densities)
    if prior is not None:
        _check_prior(channels, prior(x), x)


def _check_inverse(channel: InvertibleChannel, u: Tensor, x: Tensor, log_g: Tensor) -> None:
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


def _densities(channels: Sequence[Channel], x: Tensor) -> Tensor:
    """log g (n, K) of all channels at points that the channels made."""
    log_g = inverses(channels, x)[1]
    bad = torch.isnan(log_g) | (log_g == math.inf)
    for _, index in torch.nonzero(bad)[:1].tolist():
        raise ChannelError(
            f"channel {channels[index].name!r}: the log density of its inverse is NaN or infinite at a point of "
            "another channel: return -inf where the channel does not reach"
        )
    return log_g


def _check_densities(channels: Sequence[Channel], made: Sequence[tuple[Tensor, ...]], densities: Tensor) -> None:
    """Compare ratios of densities with jacobians from channel to channel: |∂u_j/∂u_i| = g_j / g_i."""
    found: list[tuple[int, int, float]] = []
    parts = torch.split(densities, [len(u) for u, _, _ in made])
    for index, ((u, _, log_g), own) in enumerate(zip(made, parts, strict=True)):
        ratio = own - log_g.unsqueeze(1)
        usable = (ratio.abs() < _TEST_RATIO) & ((u > _TEST_STEP) & (u < 1.0 - _TEST_STEP)).all(1, keepdim=True)
        usable[:, index] = False
        for other in torch.argsort(usable.sum(0), descending=True).tolist()[:_TEST_PARTNERS]:
            chosen = torch.nonzero(usable[:, other]).squeeze(1)[:_TEST_JACOBIANS]
            if len(chosen) >= _TEST_JACOBIANS // 4:
                numeric = _log_jacobian(channels[index], channels[other], u[chosen])
                # the median does not mind a kink of a map here or there
                mismatch = (numeric - ratio[chosen, other]).nan_to_num(math.inf).median()
                found.append((index, other, float(mismatch)))
    wrong = [pair for pair in found if not abs(pair[2]) < _TEST_JACOBIAN]
    if not wrong:
        return
    first = max(range(len(made)), key=lambda k: sum(k in pair[:2] for pair in wrong))
    index, other, size = next(pair for pair in wrong if first in pair[:2])
    partner = channels[other if first == index else index].name
    raise ChannelError(
        f"channel {channels[first].name!r} fails its self-test: density times jacobian is not one (compared "
        f"with channel {partner!r} it is off by {abs(size):.2g} in the logarithm)"
    )


def _check_prior(channels: Sequence[Channel], log_prior: Tensor, x: Tensor) -> None:
    """Prior weights are numbers, and none lies where a channel with an inverse does not reach."""
    if log_prior.shape != (len(x), len(channels)):
        raise ChannelError(
            f"the prior returned shape {tuple(log_prior.shape)} for {len(x)} points of {len(channels)} channels; "
            f"return log weights of shape ({len(x)}, {len(channels)})"
        )
    if not bool((log_prior < math.inf).all()):
        raise ChannelError("the prior of a point is NaN or +inf: return log weights, -inf for no weight")
    for index, channel in enumerate(channels):
        if not invertible(channel):
            continue
        if bool(((log_prior[:, index] > -math.inf) & (channel.inverse(x)[1] == -math.inf)).any()):
            raise ChannelError(
                f"the prior gives channel {channel.name!r} a weight at points that it does not reach, whose part of "
                "the integral would be lost: return -inf there"
            )


def _log_jacobian(channel: Channel, other: Channel, u: Tensor) -> Tensor:
    """log |∂u_j/∂u_i| (n,) from a channel i to another channel j at the points u (n, dim), by central differences."""
    shifts = _TEST_STEP * torch.eye(u.shape[1], dtype=u.dtype, device=u.device).unsqueeze(1)
    ends = torch.cat([u + shifts, u - shifts]).flatten(0, 1)
    high, low = inverses([other], channel.forward(ends)[0])[0].view(2, u.shape[1], *u.shape).unbind(0)
    matrices = (high - low).permute(1, 0, 2) / (2.0 * _TEST_STEP)
    log_size: Tensor = torch.linalg.slogdet(matrices).logabsdet
    return log_size
