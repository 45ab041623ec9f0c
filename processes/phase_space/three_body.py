r"""Three massless partons from five numbers, in the variables in which soft and collinear emission is flat.

With x_i = 2 E_i / sqrt(s) and a = 1 - x_1, b = 1 - x_2 the QCD matrix element behaves as 1 / (a b). The map
draws

- the rapidity-like eta = ln(a / b) / 2 between its kinematic limits, with a triangular density;
- ln(a b) / 2, the logarithm of the transverse momentum of parton 3, uniformly between its limits at this eta;
- the direction of p_1 - p_2 and the azimuth of parton 3 about it, uniformly (three Euler angles).

The limits in (a, b) are a region object: `DurhamRegion`, closed-form limits of a Durham cut, or
`TransverseMomentumRegion`, everything above a lower bound on a b, for any other infrared-safe cut. A region
must contain all points that survive the cut; the cut itself is applied by the process.
"""

from __future__ import annotations

import math
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Finite, checked, settings
from nisampler.errors import DomainError, ShapeError
from nisampler.processes.phase_space.kinematics import direction

DurhamCut = Annotated[Finite, Field(gt=0.0, lt=1 / 3)]
"""A least Durham distance of three partons; 1/3 is the symmetric point, the largest value there is."""


_ROUNDING = 64
"""Units in the last place by which energies of partons may be rounded."""


class DalitzRegion(Protocol):
    """A part of the Dalitz plane, symmetric in a and b, an interval on every ray a / b = const.

    >>> region: DalitzRegion = DurhamRegion(0.05)
    >>> round(region.max_ratio, 6)
    9.5
    """

    @property
    def max_ratio(self) -> float:
        """The largest ratio max(a, b) / min(a, b) in the region."""
        ...

    def limits(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest min(a, b) on the ray max(a, b) = ratio min(a, b), ratio >= 1."""
        ...


@settings
class TransverseMomentumRegion:
    """All of the Dalitz plane with a b >= kt2_min, where a b = s_13 s_23 / s^2.

    Raises
    ------
    ConfigError
        Unless 0 < kt2_min < 1/4.

    Examples
    --------
    >>> TransverseMomentumRegion(0.01).limits(torch.tensor([1.0]))
    (tensor([0.1000]), tensor([0.5000]))
    """

    kt2_min: Annotated[Finite, Field(gt=0.0, lt=0.25)]

    @classmethod
    def around_durham(cls, y_cut: float) -> TransverseMomentumRegion:
        """The smallest such region with all points of y_23 > y_cut; a b is least at a = b.

        Raises
        ------
        ConfigError
            Unless 0 < y_cut < 1/3.
        """
        checked("y_cut", y_cut, DurhamCut)
        a = 2 * y_cut / (y_cut + math.sqrt(y_cut**2 + 8 * y_cut))
        return cls(a**2)

    @property
    def max_ratio(self) -> float:
        """Ratio at the corner where a b = kt2_min meets a + b = 1."""
        return math.exp(2 * math.acosh(0.5 / math.sqrt(self.kt2_min)))

    def limits(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest min(a, b) at this ratio."""
        return (self.kt2_min / ratio).sqrt(), 1 / (1 + ratio)


@settings
class DurhamRegion:
    r"""The region where every Durham distance y_ij = (s_ij / s) min(x_i / x_j, x_j / x_i) exceeds y_cut.

    For a >= b the distance y_23 is never the smallest; y_13 and y_12 give, on a ray a = r b, quadratic or
    linear conditions on b.

    Raises
    ------
    ConfigError
        Unless 0 < y_cut < 1/3 (1/3 is the symmetric point, the largest value there is).

    Examples
    --------
    >>> DurhamRegion(0.01).max_ratio
    49.5
    >>> DurhamRegion(0.4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: y_cut = 0.4: must be a number, more than 0 and less than 0.333333
    """

    y_cut: DurhamCut

    @property
    def max_ratio(self) -> float:
        """Ratio at the corner b = y_cut, x_1 = x_3."""
        return (1 - self.y_cut) / (2 * self.y_cut)

    def limits(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest min(a, b) at this ratio."""
        y, r = self.y_cut, ratio
        low = 2 * y / (y * r + (y**2 * r**2 + 4 * y * (1 + r)).sqrt())
        high_13 = (1 - y * (1 + r)) / r
        discriminant = 1 + y**2 + y * (4 * r**2 - 2)
        high_12 = 2 * (1 - y) / (1 + 2 * r - y + discriminant.sqrt())
        return low, torch.minimum(high_13, high_12)


class ThreeBodyMap:
    """Massless three-body phase space in the rest frame: u (n, 5) to momenta (n, 3, 4) and back.

    u = (eta, ln kT, cos theta, phi, chi), see the module's text. The weight is d Phi_3 / d u in GeV^2, with
    d Phi_3 = s / (128 pi^3) dx_1 dx_2 d cos theta d phi d chi / (8 pi^2).

    Parameters
    ----------
    region
        The part of the Dalitz plane that is filled.

    Examples
    --------
    >>> mapping = ThreeBodyMap(DurhamRegion(0.01))
    >>> u = torch.full((1, 5), 0.3, dtype=torch.float64)
    >>> momenta, weight = mapping.forward(u, sqrt_s=91.2)
    >>> momenta.shape, torch.allclose(mapping.inverse(momenta), u)
    (torch.Size([1, 3, 4]), True)
    """

    dim = 5

    def __init__(self, region: DalitzRegion) -> None:
        self.region = region
        self.eta_max = 0.5 * math.log(region.max_ratio)

    def forward(self, u: Tensor, sqrt_s: float) -> tuple[Tensor, Tensor]:
        """Momenta (n, 3, 4) in GeV and weights d Phi_3 / d u (n,) in GeV^2.

        Raises
        ------
        ShapeError
            If u is not of shape (n, 5).
        """
        if u.ndim != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"three-body map takes points of shape (n, 5), got {tuple(u.shape)}")
        a, b, density = self._dalitz(u[:, 0], u[:, 1])
        weight = sqrt_s**2 / (128 * math.pi**3) / density
        return _orient(a, b, u[:, 2:], sqrt_s), weight

    def inverse(self, momenta: Tensor) -> Tensor:
        """Cube points (n, 5) of momenta (n, 3, 4) in their rest frame.

        Raises
        ------
        ShapeError
            If momenta are not of shape (n, 3, 4).
        DomainError
            If a point lies outside the region.
        """
        if momenta.ndim != 3 or momenta.shape[1:] != (3, 4):
            raise ShapeError(f"expected momenta of shape (n, 3, 4), got {tuple(momenta.shape)}")
        x = 2 * momenta[..., 0] / momenta[..., 0].sum(-1, keepdim=True)
        a, b = 1 - x[:, 0], 1 - x[:, 1]
        eta = 0.5 * torch.log(a / b)
        small = torch.minimum(a, b)
        low, high = self.region.limits(torch.exp(2 * eta.abs().clamp(max=self.eta_max)))
        above, below = torch.log(small / low), torch.log(high / small)
        # a = 1 - x has the rounding of x: of the logarithms the part that it is of the smaller of a and b.
        rounding = _ROUNDING * torch.finfo(x.dtype).eps / small
        outside = ~((self.eta_max - eta.abs() > -rounding) & (above > -rounding) & (below > -rounding))
        if bool(outside.any()):
            raise DomainError(f"{int(outside.sum())} of {len(x)} momenta lie outside {self.region}")
        above, below = above.clamp(min=0), below.clamp(min=0)
        # At the corners of the region the interval is a point.
        second = above / (above + below).clamp(min=torch.finfo(x.dtype).tiny)
        half = 0.5 * (1 - eta.abs() / self.eta_max).clamp(min=0).square()
        first = torch.where(eta < 0, half, 1 - half)
        columns = [first, second, *_euler_angles(momenta)]
        return torch.stack(columns, dim=1)

    def _dalitz(self, u0: Tensor, u1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b) and the density d(u0, u1) / d(a, b)."""
        folded = torch.minimum(u0, 1 - u0).clamp(min=torch.finfo(u0.dtype).eps)
        gap = (2 * folded).sqrt()
        ratio = torch.exp(2 * self.eta_max * (1 - gap))
        low, high = self.region.limits(ratio)
        span = torch.log(high / low)
        small = low * torch.exp(u1 * span)
        large = ratio * small
        negative = u0 < 0.5
        density = gap / (2 * self.eta_max * span * small * large)
        return torch.where(negative, small, large), torch.where(negative, large, small), density


def _axes(cosine: Tensor, azimuth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right-handed unit vectors (theta, phi, n) of the direction n."""
    n = direction(cosine, azimuth)
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
    c, s = torch.cos(azimuth), torch.sin(azimuth)
    return torch.stack([cosine * c, cosine * s, -sine], -1), torch.stack([-s, c, torch.zeros_like(c)], -1), n


def _orient(a: Tensor, b: Tensor, angles: Tensor, sqrt_s: float) -> Tensor:
    """Momenta (n, 3, 4) from |p_1 - p_2| and the components of p_3 along and across it."""
    x = torch.stack([1 - a, 1 - b, a + b], dim=-1)
    energy = 0.5 * sqrt_s * x
    c = (1 - a - b).clamp(min=torch.finfo(a.dtype).eps)
    difference = 0.5 * sqrt_s * ((a - b).square() + 4 * c).sqrt()
    longitudinal = (energy[:, 1] - energy[:, 0]) * (energy[:, 1] + energy[:, 0]) / difference
    transverse = sqrt_s**2 * (a * b * c).sqrt() / difference
    theta, azimuth, n = _axes(2 * angles[:, 0] - 1, 2 * math.pi * angles[:, 1])
    chi = 2 * math.pi * angles[:, 2]
    side = torch.cos(chi).unsqueeze(-1) * theta + torch.sin(chi).unsqueeze(-1) * azimuth
    p3 = longitudinal.unsqueeze(-1) * n + transverse.unsqueeze(-1) * side
    separation = difference.unsqueeze(-1) * n
    space = torch.stack([0.5 * (separation - p3), -0.5 * (separation + p3), p3], dim=1)
    return torch.cat([energy.unsqueeze(-1), space], dim=-1)


def _euler_angles(momenta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    separation = momenta[:, 0, 1:] - momenta[:, 1, 1:]
    n = separation / separation.square().sum(-1, keepdim=True).sqrt()
    cosine, turn = n[:, 2].clamp(-1, 1), torch.atan2(n[:, 1], n[:, 0])
    theta, azimuth, _ = _axes(cosine, turn)
    p3 = momenta[:, 2, 1:]
    chi = torch.atan2((p3 * azimuth).sum(-1), (p3 * theta).sum(-1))
    full = 2 * math.pi
    return 0.5 * (1 + cosine), torch.remainder(turn / full, 1.0), torch.remainder(chi / full, 1.0)
