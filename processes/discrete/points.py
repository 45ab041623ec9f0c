"""Points that bring the number along by which a discrete choice is made: momenta with one row more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nisampler.density.maps import Channel, InvertibleChannel, invertible


def joined(p: Tensor, choice: Tensor) -> Tensor:
    """Momenta p (n, m, 4) and numbers (n,) as points (n, m + 1, 4).

    >>> joined(torch.zeros(1, 2, 4), torch.ones(1)).shape
    torch.Size([1, 3, 4])
    """
    row = torch.nn.functional.pad(choice.to(p.dtype).reshape(-1, 1, 1), (0, 3))
    return torch.cat([p, row], 1)


def momenta_of(x: Tensor) -> Tensor:
    """The momenta (n, m, 4) of points (n, m + 1, 4).

    >>> momenta_of(torch.zeros(1, 3, 4)).shape
    torch.Size([1, 2, 4])
    """
    return x[:, :-1]


def choice_of(x: Tensor) -> Tensor:
    """The numbers (n,) of points (n, m + 1, 4).

    >>> choice_of(joined(torch.zeros(1, 2, 4), torch.tensor([0.25])))
    tensor([0.2500])
    """
    return x[:, -1, 0]


def on_momenta(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of momenta as one of points.

    >>> on_momenta(lambda p: p.sum((1, 2)))(joined(torch.ones(1, 2, 4), torch.ones(1)))
    tensor([8.])
    """
    return lambda x: function(momenta_of(x))


def with_choice(channel: Channel) -> Channel:
    """A channel of momenta with one coordinate more, the last one, which becomes the number of the choice.

    >>> from nisampler.processes.phase_space import Boson, ChiliChannel, PowerLaw
    >>> channel = with_choice(ChiliChannel(Boson(PowerLaw(2.0), 50.0)))
    >>> x, log_g = channel.forward(torch.full((1, channel.dim), 0.5, dtype=torch.float64))
    >>> channel.dim, x.shape
    (5, torch.Size([1, 3, 4]))
    """
    return _Invertible(channel) if invertible(channel) else _OneWay(channel)


class _OneWay:
    def __init__(self, channel: Channel) -> None:
        self.channel, self.name, self.dim = channel, channel.name, channel.dim + 1

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """As `Channel` asks."""
        p, log_g = self.channel.forward(u[:, :-1])
        return joined(p, u[:, -1]), log_g


class _Invertible(_OneWay):
    channel: InvertibleChannel

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `InvertibleChannel` asks."""
        u, log_g = self.channel.inverse(momenta_of(x))
        return torch.cat([u, choice_of(x).to(u.dtype).unsqueeze(1)], 1), log_g
