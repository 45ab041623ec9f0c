"""Toy channels with known integrals: peaks across a box, a Z′-like line shape, and a space that is covered in parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from scipy import integrate as scipy_integrate
from torch import Tensor

from nisampler.density.channels import Multichannel


class Line(Protocol):
    """A map of [0, 1] to an interval, with its density."""

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]: ...

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Flat:
    """Uniform between low and high, nothing outside."""

    low: float = 0.0
    high: float = 1.0

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.low + (self.high - self.low) * u, self._log_density(u)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = (x >= self.low) & (x <= self.high)
        return (x - self.low) / (self.high - self.low), torch.where(inside, self._log_density(x), -math.inf)

    def _log_density(self, x: Tensor) -> Tensor:
        return torch.full_like(x, -math.log(self.high - self.low))


@dataclass(frozen=True)
class Peak:
    """A Breit-Wigner (Cauchy) density between low and high."""

    centre: float
    width: float
    low: float = 0.0
    high: float = 1.0

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = (math.atan((end - self.centre) / self.width) for end in (self.low, self.high))
        return low, high - low

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        low, span = self._ends
        x = (self.centre + self.width * torch.tan(low + span * u)).clamp(self.low, self.high)
        return x, self._log_density(x)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, span = self._ends
        return (torch.atan((x - self.centre) / self.width) - low) / span, self._log_density(x)

    def _log_density(self, x: Tensor) -> Tensor:
        scaled = (x - self.centre) / self.width
        return -torch.log1p(scaled**2) - math.log(self.width * self._ends[1])


@dataclass(frozen=True)
class Falling:
    """A density 1/x² between low and high."""

    low: float
    high: float

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x = (1.0 / (u / self.high + (1.0 - u) / self.low)).clamp(self.low, self.high)
        return x, self._log_density(x)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (1.0 / self.low - 1.0 / x) / (1.0 / self.low - 1.0 / self.high), self._log_density(x)

    def _log_density(self, x: Tensor) -> Tensor:
        return -2.0 * torch.log(x) - math.log(1.0 / self.low - 1.0 / self.high)


@dataclass(frozen=True)
class ProductChannel:
    """One line for each coordinate of a point (n, dim)."""

    name: str
    lines: Sequence[Line]

    @property
    def dim(self) -> int:
        return len(self.lines)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        parts = [line.forward(u[:, k]) for k, line in enumerate(self.lines)]
        return torch.stack([x for x, _ in parts], 1), torch.stack([log_g for _, log_g in parts]).sum(0)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [line.inverse(x[:, k]) for k, line in enumerate(self.lines)]
        return torch.stack([u for u, _ in parts], 1).clamp(0.0, 1.0), torch.stack([g for _, g in parts]).sum(0)


RIDGES = ((0.3, 0.02), (0.7, 0.01), (0.5, 0.05))
HEIGHTS = (1.0, 2.0, 0.5)
RIDGE_INTEGRAL = sum(HEIGHTS)


def ridge_channels(flat: bool = False) -> list[ProductChannel]:
    """A peak across each coordinate of the unit cube, and the flat cube if wanted."""
    made = [
        ProductChannel(f"ridge {k}", [Peak(*RIDGES[k]) if axis == k else Flat() for axis in range(3)]) for k in range(3)
    ]
    return [*made, ProductChannel("flat", [Flat()] * 3)] if flat else made


def ridges(x: Tensor) -> Tensor:
    """Σ_k h_k BW_k(x_k) (1 + cos(2π x_{k+1}) / 2) on the unit cube; its integral is Σ_k h_k."""
    total = torch.zeros_like(x[:, 0])
    for k, height in enumerate(HEIGHTS):
        line = Peak(*RIDGES[k]).inverse(x[:, k])[1].exp()
        total = total + height * line * (1.0 + 0.5 * torch.cos(2.0 * math.pi * x[:, (k + 1) % 3]))
    return total


def ridge_function(**settings: object) -> Multichannel:
    """The ridges seen through their three channels."""
    return Multichannel(ridges, ridge_channels(), **settings)  # type: ignore[arg-type]


def gentle_function(**settings: object) -> Multichannel:
    """2³ x_0 x_1 x_2 with integral 1, seen through wide peaks, so that no choice of weights is a catastrophe."""
    lines = ((Peak(0.3, 0.4), Flat(), Flat()), (Flat(), Peak(0.8, 0.5), Flat()), (Flat(), Flat(), Flat()))
    channels = [ProductChannel(f"gentle {k}", three) for k, three in enumerate(lines)]
    return Multichannel(lambda x: 8.0 * x.prod(1), channels, **settings)  # type: ignore[arg-type]


MASS_RANGE = (50.0, 1000.0)
Z, Z_PRIME = (91.2, 1.25), (400.0, 3.0)


def line_shape(m: Tensor) -> Tensor:
    """A photon, a Z and a Z′ with an interference that changes its sign on the way, in the mass m."""
    value = 30.0 / m**2
    for (centre, width), height in ((Z, 1.0), (Z_PRIME, 0.3)):
        square = 1.0 / ((m - centre) ** 2 + width**2)
        value = value + height * width * square * (1.0 + 0.2 * (m - centre) / width / (1.0 + m / centre))
    return value


def z_prime(x: Tensor) -> Tensor:
    """The line shape in m = x_0 times 1 + c² + A(m) c in the cosine c = x_1, and 6 y (1 - y) in y = x_2."""
    m, c, y = x.unbind(1)
    asymmetry = torch.tanh((m - Z[0]) / 50.0)
    return line_shape(m) * (1.0 + c**2 + asymmetry * c) * 6.0 * y * (1.0 - y)


def z_prime_integral() -> float:
    """By quadrature in m; the integrals over c and y are 8/3 and 1."""
    cuts = [MASS_RANGE[0], *(c + k * w for c, w in (Z, Z_PRIME) for k in (-8, -1, 0, 1, 8)), MASS_RANGE[1]]
    parts = [
        scipy_integrate.quad(lambda m: float(line_shape(torch.tensor(m, dtype=torch.float64))), low, high)[0]
        for low, high in pairwise(cuts)
    ]
    return 8.0 / 3.0 * sum(parts)


def z_prime_channels() -> list[ProductChannel]:
    """A peak at the Z, one at the Z′, and the falling spectrum of the photon."""
    others = [Flat(-1.0, 1.0), Flat()]
    return [
        ProductChannel("Z", [Peak(*Z, *MASS_RANGE), *others]),
        ProductChannel("Z'", [Peak(*Z_PRIME, *MASS_RANGE), *others]),
        ProductChannel("photon", [Falling(*MASS_RANGE), *others]),
    ]


def z_prime_features(x: Tensor) -> Tensor:
    """log m, c and y."""
    return torch.stack([torch.log(x[:, 0]), x[:, 1], x[:, 2]], 1)


def z_prime_function() -> Multichannel:
    """The Z′-like integrand with its three channels."""
    return Multichannel(z_prime, z_prime_channels(), features=z_prime_features)


def parted_channels(edge: float = 0.5) -> list[ProductChannel]:
    """Two halves of the square, cut at x_0 = edge; only the right one is covered by a second channel."""
    return [
        ProductChannel("left", [Flat(0.0, edge), Flat()]),
        ProductChannel("right", [Flat(edge, 1.0), Flat()]),
        ProductChannel("right again", [Flat(edge, 1.0), Peak(0.5, 0.2)]),
    ]


PARTED_INTEGRAL = 1.5


def parted(x: Tensor) -> Tensor:
    """1 + x_0 on the square."""
    return 1.0 + x[:, 0]


def grid_mean(function: Multichannel, n: int, seed: int) -> tuple[float, float]:
    """Plain Monte Carlo estimate of an integrand on the cube with its error."""
    u = torch.rand(n, function.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = function(u).detach()
    return float(values.mean()), float(values.std()) / math.sqrt(n)
