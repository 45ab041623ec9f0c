"""Functions of the form (u, channel) -> f, y, α, as MadNIS and MadGraph write them, as channels of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.base.checks import Count, Dimension, checked
from nisampler.density.channels import Multichannel
from nisampler.errors import ChannelError

Joint = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class _JointChannel:
    """One channel of a joint function. A point is the row (f/g, y, α) of what the function returns there."""

    function: Joint
    index: int
    dim: int
    count: int

    @property
    def name(self) -> str:
        return f"channel {self.index}"

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, 1 + F + K) at cube points u (n, dim); their density is inside f/g."""
        value, y, alpha = self.function(u, torch.full((len(u),), self.index, dtype=torch.long, device=u.device))
        if value.shape != (len(u),) or alpha.shape != (len(u), self.count) or len(y) != len(u):
            raise ChannelError(
                f"{self.name}: f, y and alpha must have shapes ({len(u)},), ({len(u)}, ...) and ({len(u)}, "
                f"{self.count}), got {tuple(value.shape)}, {tuple(y.shape)} and {tuple(alpha.shape)}"
            )
        parts = [value.unsqueeze(1), y.flatten(1), alpha]
        return torch.cat([part.double() for part in parts], 1), u.new_zeros(len(u), dtype=torch.float64)


def joint_channels(function: Joint, dim: int, channels: int, groups: Sequence[int] | None = None) -> Multichannel:
    """An integrand of channels from one function that returns value, features and channel weights together.

    This is the contract of MadNIS (2311.01548) and MadGraph. The channels have no inverse, so mixture weights are not
    tried, and the self-test sees shapes and numbers alone; it and the scales of the features call the function for 512
    points of each channel and 4096 points more, which no counter holds. A surrogate does not spare calls. What a user
    gets to see of a point are its features.

    Parameters
    ----------
    function
        Torch function of cube points u (n, dim) and the numbers of their channels (n,), all equal in one call. It
        returns f(x)/g(x) (n,), with g the density that the channel gives to its point x(u); features y (n, ...), such
        as the momenta, which the network of the channel weights sees; and prior weights α (n, K), not negative.
    dim, channels
        Coordinates of each channel's cube, and the number K of channels.
    groups
        See `Multichannel`.

    Raises
    ------
    ChannelError
        Where shapes do not fit.

    Examples
    --------
    The integral of 1 over [0, 1] through x = u² and x = 1 - u², with prior weights 1 - x and x:

    >>> def both(u, channel):
    ...     x = torch.where(channel == 0, u[:, 0] ** 2, 1 - u[:, 0] ** 2)
    ...     return 2 * u[:, 0], x[:, None], torch.stack([1 - x, x], 1)
    >>> function = joint_channels(both, dim=1, channels=2)
    >>> u = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> abs(float(function(u).mean()) - 1) < 0.05
    True
    """
    dim, count = checked("dim", dim, Dimension), checked("channels", channels, Count)
    made = Multichannel(
        _value,
        [_JointChannel(function, index, dim, count) for index in range(count)],
        features=_Features(count),
        prior=_LogWeights(count),
        groups=groups,
        shown=_Features(count),
    )
    made.name = str(getattr(function, "name", getattr(function, "__name__", "joint channels")))
    made.unit = str(getattr(function, "unit", ""))
    return made


@dataclass(frozen=True)
class _Features:
    """The features in rows of so many channels."""

    channels: int

    def __call__(self, rows: Tensor) -> Tensor:
        return rows[:, 1 : rows.shape[1] - self.channels]


@dataclass(frozen=True)
class _LogWeights:
    """The log of the prior weights in rows of so many channels."""

    channels: int

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.log(rows[:, -self.channels :])


def _value(rows: Tensor) -> Tensor:
    return rows[:, 0]
