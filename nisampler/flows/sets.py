"""Transport of masked sets of normal points to sets of data: flow matching, and diffusion with a score.

Both are given a network that maps points (n, m, d), times (n, 1), a mask (n, m) and a context (n, c) to a vector for
each point, such as `EpicNet`. Data are expected to have mean zero and a known spread in each coordinate.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.flows.solvers import SOLVERS, SolverName, integrate

_SIGMA_MIN = 1e-4
# Where the noise of a diffusion begins and ends: sine and cosine of the angle.
_EDGE = 0.01
_FIRST, _LAST = math.asin(_EDGE), math.acos(_EDGE)
_LIKELIHOOD = 1e-3


class SetFlow(nn.Module, ABC):
    """What matching and diffusion of sets have in common.

    Parameters
    ----------
    net
        Takes points (n, m, d), times (n, 1), mask (n, m) and context (n, c), and gives a vector for each point.
    dim
        Coordinates d of a point.
    spread
        Standard deviation of the coordinates of the data.

    Examples
    --------
    >>> from nisampler.flows.nets.epic import EpicConfig, EpicNet
    >>> net = EpicNet(3, 1, EpicConfig(layers=1, hidden=8), torch.Generator().manual_seed(0))
    >>> mask, context = torch.tensor([[True, True, False]]), torch.zeros(1, 1)
    >>> for flow in (SetMatching(net, 3), SetDiffusion(net, 3)):
    ...     bool((flow.draw(mask, context, torch.Generator().manual_seed(1), steps=2)[0, 2] == 0.0).all())
    True
    True
    """

    def __init__(self, net: nn.Module, dim: int, spread: float = 1.0) -> None:
        super().__init__()
        self.net, self.dim, self.spread = net, dim, spread

    @abstractmethod
    def loss(self, x: Tensor, mask: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
        """The loss (n,) of sets (n, m, d), a mean over the points of each."""

    @abstractmethod
    def transport(self, noise: Tensor, mask: Tensor, context: Tensor, steps: int, solver: SolverName) -> Tensor:
        """Normal points (n, m, d), zero outside the mask, to points of the data."""

    @torch.no_grad()
    def draw(
        self, mask: Tensor, context: Tensor, generator: torch.Generator, steps: int, solver: SolverName = "midpoint"
    ) -> Tensor:
        """New points (n, m, d), zero where the mask (n, m) is, in `steps` steps."""
        noise = _noise(context.new_empty(*mask.shape, self.dim), generator) * mask.unsqueeze(2)
        return self.transport(noise, mask, context, steps, solver)


class SetMatching(SetFlow):
    r"""Flow matching (2210.02747; for jets EPiC-FM, 2310.00049), from normal points at t = 0 to data at t = 1.

    On the line :math:`x_t = (1 - (1 - σ) t) x_0 + t x_1`, σ = 1e-4, the velocity is :math:`x_1 - (1 - σ) x_0`. That of
    normal data is known; the network, whose input has unit variance at all times, learns what is missing.

    Parameters
    ----------
    net, dim, spread
        As for every `SetFlow`.

    Examples
    --------
    >>> from nisampler.flows.nets.epic import EpicConfig, EpicNet
    >>> flow = SetMatching(EpicNet(3, 1, EpicConfig(layers=1, hidden=8), torch.Generator().manual_seed(0)), 3)
    >>> mask, context = torch.tensor([[True, True, False]]), torch.zeros(1, 1)
    >>> flow.loss(torch.ones(1, 3, 3), mask, context, torch.Generator().manual_seed(1)).shape
    torch.Size([1])
    """

    def velocity(self, x: Tensor, t: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """dx/dt (n, m, d) of the points at the times (n, 1)."""
        at = t.unsqueeze(2)
        square = (self.spread * at) ** 2 + (1 - at) ** 2
        known = x * (self.spread**2 * at - (1 - at)) / square
        found: Tensor = known + self.spread * self.net(x / square.sqrt(), t, mask, context)
        return found * mask.unsqueeze(2)

    def loss(self, x: Tensor, mask: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
        """Mean square of what the velocity misses, over the points of each set and in units of the spread: (n,)."""
        start, t = _noise(x, generator), _times(x, generator)
        at = t.unsqueeze(2)
        way = (1 - (1 - _SIGMA_MIN) * at) * start + at * x
        missed = (self.velocity(way, t, mask, context) - (x - (1 - _SIGMA_MIN) * start)) / self.spread
        return masked_mean(missed.square(), mask)

    def transport(self, noise: Tensor, mask: Tensor, context: Tensor, steps: int, solver: SolverName) -> Tensor:
        """Normal points (n, m, d) to points of the data, along the velocity."""

        def velocity(t: float, x: Tensor) -> Tensor:
            return self.velocity(x, torch.full_like(x[:, :1, 0], t), mask, context)

        return integrate(velocity, noise, 0.0, 1.0, steps, SOLVERS[solver])


class SetDiffusion(SetFlow):
    r"""Diffusion that keeps the variance, trained on its noise (PC-JeDi, 2303.05376; EPiC-JeDi, 2310.00049).

    Points are :math:`x = \cos φ\, x_1 + \sin φ\, ε`, and the angle grows evenly with the time from data to noise. The
    network gives :math:`v = dx/dφ`, so that the noise is :math:`\sin φ\, x + \cos φ\, v` and the path without noise of
    the same densities is just dx/dφ = v: nothing is divided by a small number at either end. The loss is
    :math:`(1 + α β/\sin^2 φ) |\hat ε - ε|^2` with the rate :math:`β = 2 \tan φ\, dφ/dt` and α = 1e-3; the second term
    is that of the likelihood.

    Parameters
    ----------
    net, dim, spread
        As for every `SetFlow`; points are divided by their spread.

    Examples
    --------
    >>> from nisampler.flows.nets.epic import EpicConfig, EpicNet
    >>> flow = SetDiffusion(EpicNet(3, 1, EpicConfig(layers=1, hidden=8), torch.Generator().manual_seed(0)), 3)
    >>> round(flow.angle(1.0), 2)
    1.56
    """

    @staticmethod
    def angle(t: Any) -> Any:
        """The angle at a time between 0, data, and 1, noise; a number or a tensor."""
        return _FIRST + (_LAST - _FIRST) * t

    def loss(self, x: Tensor, mask: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
        """Weighted mean square of what the noise misses, over the points of each set: (n,)."""
        noise, t = _noise(x, generator), _times(x, generator)
        angle = self.angle(t).unsqueeze(2)
        sine, cosine = angle.sin(), angle.cos()
        way = (cosine * x / self.spread + sine * noise) * mask.unsqueeze(2)
        found = sine * way + cosine * self.net(way, t, mask, context)
        rate = 2.0 * (_LAST - _FIRST) * sine / cosine
        weight = 1.0 + _LIKELIHOOD * rate / sine.square()
        return masked_mean(weight * (found - noise).square(), mask)

    def transport(self, noise: Tensor, mask: Tensor, context: Tensor, steps: int, solver: SolverName) -> Tensor:
        """Normal points (n, m, d) to points of the data, along the path without noise."""
        first, last = self.angle(0.0), self.angle(1.0)

        def velocity(angle: float, x: Tensor) -> Tensor:
            t = torch.full_like(x[:, :1, 0], (angle - first) / (last - first))
            found: Tensor = self.net(x, t, mask, context)
            return found

        return self.spread * integrate(velocity, noise, last, first, steps, SOLVERS[solver])


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (n,) of values (n, m, d) over the places of a mask (n, m).

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    total = (values * mask.unsqueeze(2)).sum((1, 2))
    return total / (mask.sum(1).clamp_min(1) * values.shape[2])


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)


def _times(x: Tensor, generator: torch.Generator) -> Tensor:
    """Times (n, 1), shuffled, one from each of n equal parts of [0, 1]."""
    n, device = len(x), generator.device
    stratum = torch.randperm(n, generator=generator, device=device)
    t = (stratum + torch.rand(n, generator=generator, dtype=x.dtype, device=device)) / n
    return t.to(x.device).unsqueeze(1)
