"""One-dimensional maps of [0, 1] onto an interval, with their density: the bricks of every phase-space channel.

A map has `forward(u, low, high)`, which returns the variable s in [low, high] and log(du / ds), and
`inverse(s, low, high)`, which returns u and the same log-density. The limits are numbers or tensors that
broadcast against u. Outside [low, high] the inverse returns a u outside [0, 1]: the channel decides on its
support with `finish_inverse`. An interval of no length is treated as a very short one, so that nothing
returned is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nisampler.base.checks import Finite, NonNegative, Positive, settings

Limit = Tensor | float

SUPPORT_TOLERANCE = 1e-7
SHELL_TOLERANCE = 1e-6
"""Of squared masses: momenta of fast resonances add up to no more digits."""
_TINY = 1e-30


@runtime_checkable
class IntervalMap(Protocol):
    """An invertible map of [0, 1] onto [low, high] with a density.

    >>> isinstance(PowerLaw(1.0), IntervalMap)
    True
    """

    def forward(self, u: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The variable s and log(du / ds), each of the shape of u."""
        ...

    def inverse(self, s: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The coordinate u, outside [0, 1] where s is outside its interval, and log(du / ds)."""
        ...


def as_limits(like: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
    """Both limits as tensors of the type and on the device of `like`.

    >>> as_limits(torch.zeros(1, dtype=torch.float64), 0, 1)[1]
    tensor(1., dtype=torch.float64)
    """
    return (
        torch.as_tensor(low, dtype=like.dtype, device=like.device),
        torch.as_tensor(high, dtype=like.dtype, device=like.device),
    )


def finish_inverse(columns: Sequence[Tensor], log_density: Tensor) -> tuple[Tensor, Tensor]:
    """Cube points (n, dim) from their columns, and the density with -inf outside the cube.

    Each column is of shape (n,) or (n, k). Rounding may take a point of the support out of the cube by
    1e-7; such points count as inside, and every coordinate is clamped to the cube.

    >>> finish_inverse([torch.tensor([0.2, 1.5])], torch.zeros(2))
    (tensor([[0.2000],
            [1.0000]]), tensor([0., -inf]))
    """
    u = torch.cat([c if c.ndim == 2 else c.unsqueeze(-1) for c in columns], dim=-1)
    inside = ((u - 0.5).abs() < 0.5 + SUPPORT_TOLERANCE).all(-1) & torch.isfinite(log_density)
    u = torch.nan_to_num(u, nan=0.5).clamp(0, 1)
    return u, torch.where(inside, log_density, torch.full_like(log_density, -math.inf))


@dataclass(frozen=True)
class Uniform:
    """s uniform between its limits.

    >>> s, log_density = Uniform().forward(torch.tensor([0.25]), 2.0, 6.0)
    >>> s, log_density.exp()
    (tensor([3.]), tensor([0.2500]))
    """

    def forward(self, u: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """s = low + u (high - low)."""
        low, high = as_limits(u, low, high)
        span = (high - low).clamp(min=_TINY)
        return low + u * span, -torch.log(span).expand_as(u)

    def inverse(self, s: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """u = (s - low) / (high - low)."""
        low, high = as_limits(s, low, high)
        span = (high - low).clamp(min=_TINY)
        return (s - low) / span, -torch.log(span).expand_as(s)


@settings
class PowerLaw:
    r"""Density proportional to (s + offset)^(-exponent); exponent 1 is uniform in log(s + offset).

    With r = (high + offset) / (low + offset) and k the exponent
    s + offset = (low + offset) [1 + u (r^{1-k} - 1)]^{1/(1-k)}.

    Parameters
    ----------
    exponent
        Any real number; 0 is a uniform density (as is `Uniform`, which also allows negative limits).
    offset
        Added to s, in its units; not negative. It keeps the density finite where the lower limit is 0:
        low + offset must be positive.

    Raises
    ------
    ConfigError
        If the exponent is not finite or the offset is negative or not finite.

    Examples
    --------
    >>> s, _ = PowerLaw(1.0).forward(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 1.0, 100.0)
    >>> [round(value, 6) for value in s.tolist()]
    [1.0, 10.0, 100.0]
    """

    exponent: Finite
    offset: NonNegative = 0.0

    def _limits(self, like: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor, Tensor]:
        """Lower limit, a = low + offset and the log of the ratio of the limits with their offsets."""
        low, high = as_limits(like, low, high)
        a = (low + self.offset).clamp(min=_TINY)
        return low, a, torch.log1p(((high - low) / a).clamp(min=1e-14))

    def _log_density(self, log_scaled: Tensor, a: Tensor, log_ratio: Tensor) -> Tensor:
        """log(du / ds) at log((s + offset) / a)."""
        power = 1 - self.exponent
        area = log_ratio if power == 0 else torch.expm1(power * log_ratio) / power
        return -self.exponent * log_scaled - torch.log(a * area)

    def forward(self, u: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The quantile of the power law between the limits."""
        low, a, log_ratio = self._limits(u, low, high)
        power = 1 - self.exponent
        if power == 0:
            log_scaled = u * log_ratio
        else:
            log_scaled = torch.log1p(u * torch.expm1(power * log_ratio)) / power
            log_scaled = torch.minimum(log_scaled, log_ratio)
        return low + a * torch.expm1(log_scaled), self._log_density(log_scaled, a, log_ratio)

    def inverse(self, s: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The distribution function of the power law between the limits."""
        low, a, log_ratio = self._limits(s, low, high)
        power = 1 - self.exponent
        log_scaled = torch.log1p(((s - low) / a).clamp(min=1e-15 - 1))
        if power == 0:
            u = log_scaled / log_ratio
        else:
            u = torch.expm1(power * log_scaled) / torch.expm1(power * log_ratio)
        return u, self._log_density(log_scaled, a, log_ratio)


@settings
class BreitWigner:
    r"""Squared mass s with density proportional to 1 / ((s - m^2)^2 + m^2 \Gamma^2).

    s = m^2 + m \Gamma \tan(a + u (b - a)) with a and b the arctangents of the limits.

    Parameters
    ----------
    mass, width
        Mass and width of the resonance in GeV. A stable particle takes `Uniform` or `PowerLaw`.

    Raises
    ------
    ConfigError
        If the mass or the width is not positive and finite.

    Examples
    --------
    >>> z = BreitWigner(91.1876, 2.4955)
    >>> s, log_density = z.forward(torch.tensor([0.3]), 50.0**2, 120.0**2)
    >>> torch.allclose(z.inverse(s, 50.0**2, 120.0**2)[0], torch.tensor([0.3]), atol=1e-4)
    True
    """

    mass: Positive
    width: Positive

    def _angles(self, like: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        low, high = as_limits(like, low, high)
        start = self._angle(low)
        return start, (self._angle(high) - start).clamp(min=1e-15)

    def _angle(self, s: Tensor) -> Tensor:
        return torch.atan((s - self.mass**2) / (self.mass * self.width))

    def _log_density(self, s: Tensor, span: Tensor) -> Tensor:
        scale = self.mass * self.width
        return -torch.log(((s - self.mass**2).square() / scale + scale) * span)

    def forward(self, u: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The quantile of the Breit-Wigner between the limits."""
        start, span = self._angles(u, low, high)
        low, high = as_limits(u, low, high)
        s = self.mass**2 + self.mass * self.width * torch.tan(start + u * span)
        s = torch.minimum(torch.maximum(s, low), high)
        return s, self._log_density(s, span)

    def inverse(self, s: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """The distribution function of the Breit-Wigner between the limits."""
        start, span = self._angles(s, low, high)
        return (self._angle(s) - start) / span, self._log_density(s, span)


@settings
class OnShell:
    r"""Squared mass s = m^2: the delta function that a narrow Breit-Wigner becomes, which takes no coordinate.

    1 / ((s - m^2)^2 + m^2 \Gamma^2) becomes \pi / (m \Gamma) \delta(s - m^2): the density stands for that of a
    `BreitWigner` at its pole, 1 / (\pi m \Gamma), for integrands with the propagator at the pole.

    Parameters
    ----------
    mass, width
        Mass and width of the resonance in GeV.

    Raises
    ------
    ConfigError
        If the mass or the width is not positive and finite.

    Examples
    --------
    >>> OnShell(10.0, 0.5).forward(torch.empty(1), 0.0, 400.0)[0]
    tensor([100.])
    """

    mass: Positive
    width: Positive

    def forward(self, u: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """m^2, whatever the coordinate."""
        return torch.full_like(u, self.mass**2), torch.full_like(u, -math.log(math.pi * self.mass * self.width))

    def inverse(self, s: Tensor, low: Limit, high: Limit) -> tuple[Tensor, Tensor]:
        """No coordinate, 0.5 in its place; the density is 0 away from the pole."""
        at_pole = (s / self.mass**2 - 1).abs() < SHELL_TOLERANCE
        density = torch.where(at_pole, -math.log(math.pi * self.mass * self.width), -math.inf)
        return torch.full_like(s, 0.5), density.to(s)


LOGARITHMIC = PowerLaw(1.0)
