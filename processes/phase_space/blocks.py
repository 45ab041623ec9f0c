r"""Blocks of phase-space channels: momentum fractions, two-body decay, t-channel scattering, with inverse and density.

Every density is the logarithm of du / d(measure): dx_1 dx_2 for momentum fractions and
d\Phi_2 = (2\pi)^{-2} \delta^4(P - p_1 - p_2) d^3p_1/(2E_1) d^3p_2/(2E_2) for two bodies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from nisampler.base.checks import Limit, Positive, settings
from nisampler.errors import ConfigError
from nisampler.processes.phase_space.kinematics import direction
from nisampler.processes.phase_space.mappings import IntervalMap, PowerLaw

_TINY = 1e-30


def sqrt_kallen(s: Tensor, s1: Tensor, s2: Tensor) -> Tensor:
    r"""\sqrt{\lambda(s, s_1, s_2)} for s_1, s_2 >= 0, zero below threshold; 2 \sqrt{s} times the momentum.

    >>> sqrt_kallen(torch.tensor([100.0]), torch.tensor([0.0]), torch.tensor([36.0]))
    tensor([64.])
    """
    m1, m2 = s1.sqrt(), s2.sqrt()
    return ((s - (m1 + m2).square()) * (s - (m1 - m2).square())).clamp(min=_TINY).sqrt()


@settings
class MomentumFractions:
    r"""Momentum fractions of the partons from two numbers: s_hat = \tau s from a map, rapidity y uniform.

    x_{1,2} = \sqrt{\tau} e^{\pm y}, |y| <= \log(1/\tau) / 2, and dx_1 dx_2 = d\tau dy.

    Parameters
    ----------
    sqrt_s
        Hadronic centre-of-mass energy in GeV.
    min_mass
        Least partonic energy sqrt(s_hat) in GeV, from masses and cuts; positive.
    invariant
        Map of s_hat in GeV^2.
    max_mass
        Greatest sqrt(s_hat) in GeV, where it is less than sqrt_s.

    Raises
    ------
    ConfigError
        Unless 0 < min_mass < sqrt_s and min_mass < max_mass.

    Examples
    --------
    >>> fractions = MomentumFractions(sqrt_s=13000.0, min_mass=50.0)
    >>> s_hat, y, log_density = fractions.forward(torch.tensor([[0.0, 0.5]], dtype=torch.float64))
    >>> round(s_hat.sqrt().item(), 6), y.item()
    (50.0, 0.0)
    """

    sqrt_s: Positive
    min_mass: Positive
    invariant: IntervalMap = field(default=PowerLaw(1.0))
    max_mass: Limit = math.inf
    dim: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not self.min_mass < min(self.sqrt_s, self.max_mass):
            raise ConfigError(
                "momentum fractions need min_mass < sqrt_s and min_mass < max_mass, "
                f"got {self.min_mass}, {self.sqrt_s} and {self.max_mass} GeV"
            )

    @property
    def _limits(self) -> tuple[float, float]:
        return self.min_mass**2, min(self.sqrt_s, self.max_mass) ** 2

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s_hat (n,) in GeV^2, the rapidity (n,) of the partons and log(du / dx_1 dx_2), from u (n, 2)."""
        s = self.sqrt_s**2
        s_hat, log_density = self.invariant.forward(u[:, 0], *self._limits)
        log_inverse_tau = torch.log(s / s_hat).clamp(min=1e-12)
        y = (u[:, 1] - 0.5) * log_inverse_tau
        return s_hat, y, log_density + math.log(s) - torch.log(log_inverse_tau)

    def inverse(self, s_hat: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (n, 2), not clamped, and log(du / dx_1 dx_2) of s_hat (n,) and the rapidity (n,)."""
        s = self.sqrt_s**2
        u, log_density = self.invariant.inverse(s_hat, *self._limits)
        log_inverse_tau = torch.log(s / s_hat).clamp(min=1e-12)
        columns = torch.stack([u, 0.5 + y / log_inverse_tau], dim=-1)
        return columns, log_density + math.log(s) - torch.log(log_inverse_tau)


@settings
class FixedEnergy:
    """Partons of a fixed energy in their rest frame: no random number, no factor in the measure.

    Parameters
    ----------
    sqrt_s
        Energy in GeV; positive.

    Raises
    ------
    ConfigError
        If sqrt_s is not positive and finite.

    Examples
    --------
    >>> FixedEnergy(91.2).min_mass
    91.2
    """

    sqrt_s: Positive
    dim: ClassVar[int] = 0

    @property
    def min_mass(self) -> float:
        """The energy, which is also the least there is."""
        return self.sqrt_s

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s (n,), rapidity zero (n,) and log-density zero (n,) from u (n, 0)."""
        zero = u.new_zeros(len(u))
        return zero + self.sqrt_s**2, zero, zero

    def inverse(self, s_hat: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (n, 0) and log-density zero (n,), -inf off the energy or out of the rest frame (1e-6)."""
        off = ((s_hat / self.sqrt_s**2 - 1).abs() > 1e-6) | (y.abs() > 1e-6)
        return s_hat.new_zeros(len(s_hat), 0), torch.where(off, -math.inf, torch.zeros_like(s_hat))


def decay(u: Tensor, s: Tensor, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
    r"""Isotropic decay in the rest frame: momentum (n, 4) of the first body, log(du / d\Phi_2), from u (n, 2).

    d\Phi_2 = \sqrt{\lambda} / (8 \pi s) du_1 du_2, u_1 for cos(theta) and u_2 for the azimuth.

    >>> s, zero = torch.tensor([100.0]), torch.tensor([0.0])
    >>> p, log_density = decay(torch.tensor([[1.0, 0.0]]), s, zero, zero)
    >>> p, (8 * torch.pi * torch.ones(1)).log().allclose(log_density)
    (tensor([[5., 0., 0., 5.]]), True)
    """
    root = sqrt_kallen(s, s1, s2)
    mass = s.sqrt()
    space = direction(2 * u[:, 0] - 1, 2 * math.pi * u[:, 1]) * (root / (2 * mass)).unsqueeze(-1)
    energy = (s + s1 - s2) / (2 * mass)
    return torch.cat([energy.unsqueeze(-1), space], dim=-1), torch.log(8 * math.pi * s / root)


def decay_inverse(p1: Tensor, s: Tensor, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of `decay`: coordinates (n, 2) and log-density from the rest-frame momentum (n, 4).

    >>> s, zero = torch.tensor([100.0]), torch.tensor([0.0])
    >>> decay_inverse(torch.tensor([[5.0, 0.0, 0.0, 5.0]]), s, zero, zero)[0]
    tensor([[1., 0.]])
    """
    root = sqrt_kallen(s, s1, s2)
    length = p1[:, 1:].square().sum(-1).sqrt().clamp(min=_TINY)
    turn = torch.atan2(p1[:, 2], p1[:, 1]) / (2 * math.pi)
    u = torch.stack([0.5 + 0.5 * p1[:, 3] / length, torch.remainder(turn, 1.0)], dim=-1)
    return u, torch.log(8 * math.pi * s / root)


def transverse_axes(axis: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (n, 3) that complete the unit vector (n, 3) to a basis, smooth except along -z.

    The rotation about z cross axis that takes z to the axis takes x and y to the two vectors.

    >>> first, second = transverse_axes(torch.tensor([[0.0, 0.0, 1.0]]))
    >>> first.abs(), second.abs()
    (tensor([[1., 0., 0.]]), tensor([[0., 1., 0.]]))
    """
    x, y, z = axis.unbind(-1)
    rho2 = (x * x + y * y).clamp(min=_TINY)
    # 1 / (1 + z) without the cancellation near z = -1
    inverse = torch.where(z < 0, (1 - z) / rho2, 1 / (1 + z.clamp(min=0)))
    xx, yy, xy = (1 - x * x * inverse, 1 - y * y * inverse, -x * y * inverse)
    return torch.stack([xx, xy, -x], dim=-1), torch.stack([xy, yy, -y], dim=-1)


@settings
class Exchange:
    r"""Two-body scattering a + b -> 1 + 2 with |t|, t = (p_a - p_1)^2, from a map; b is massless.

    Leg a has the squared mass t_a <= 0 (0 for a beam); legs 1 and 2 may be massive. In their rest frame
    -t = C - D cos(theta), -t_a = T, and with s the energy squared

    - C = [s^2 - s (s_1 + s_2 - T) - T (s_1 - s_2)] / (2 s), D = (s + T) \sqrt{\lambda(s, s_1, s_2)} / (2 s),
    - the limits of |t| have the product s_2 [(s + T)(s_1 + T) - T s_2] / s,
    - d\Phi_2 = d|t| d\phi / (16 \pi^2 (s + T)) (Byckling and Kajantie, Particle Kinematics, chapter IV).

    Parameters
    ----------
    transfer
        Map of |t| in GeV^2; |t| = 0 is allowed, so a power law wants an offset.

    Examples
    --------
    >>> block = Exchange(PowerLaw(1.0, offset=1.0))
    >>> s, zero, axis = torch.tensor([100.0]), torch.tensor([0.0]), torch.tensor([[0.0, 0.0, 1.0]])
    >>> p, log_density = block.forward(torch.tensor([[0.5, 0.25]]), s, (zero, zero), zero, axis)
    >>> again = block.inverse(p, s, (zero, zero), zero, axis)[0]
    >>> torch.allclose(again, torch.tensor([[0.5, 0.25]]), atol=1e-5)
    True
    """

    transfer: IntervalMap

    @staticmethod
    def _limits(s: Tensor, virtuality: Tensor, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lowest and highest |t|, D and the root of the Kallen function."""
        root = sqrt_kallen(s, s1, s2)
        centre = 0.5 * (s - (s1 + s2 - virtuality) - virtuality * (s1 - s2) / s)
        half = 0.5 * (1 + virtuality / s) * root
        high = centre + half
        product = s2 * ((1 + virtuality / s) * (s1 + virtuality) - virtuality * s2 / s)
        return product / high.clamp(min=_TINY), high, half, root

    def forward(
        self, u: Tensor, s: Tensor, masses2: tuple[Tensor, Tensor], virtuality: Tensor, axis: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Momentum (n, 4) of body 1 in the rest frame and log(du / d\Phi_2).

        Parameters
        ----------
        u
            Coordinates (n, 2) of |t| and of the azimuth about the axis.
        s
            Energy squared (n,).
        masses2
            Squared masses s_1 and s_2 (n,).
        virtuality
            T = -t_a >= 0 (n,).
        axis
            Direction (n, 3) of leg a in the rest frame.
        """
        low, high, half, root = self._limits(s, virtuality, *masses2)
        t, log_density = self.transfer.forward(u[:, 0], low, high)
        cosine = (1 - (t - low) / half).clamp(-1, 1)
        sine = ((t - low).clamp(min=0) * (high - t).clamp(min=0)).sqrt() / half
        azimuth = 2 * math.pi * u[:, 1]
        first, second = transverse_axes(axis)
        side = torch.cos(azimuth).unsqueeze(-1) * first + torch.sin(azimuth).unsqueeze(-1) * second
        mass = s.sqrt()
        space = (cosine.unsqueeze(-1) * axis + sine.unsqueeze(-1) * side) * (root / (2 * mass)).unsqueeze(-1)
        energy = (s + masses2[0] - masses2[1]) / (2 * mass)
        momentum = torch.cat([energy.unsqueeze(-1), space], dim=-1)
        return momentum, log_density + torch.log(8 * math.pi * (s + virtuality))

    def log_density(self, t: Tensor, s: Tensor, masses2: tuple[Tensor, Tensor], virtuality: Tensor) -> Tensor:
        """log(du / d\\Phi_2) at |t| in GeV², which rounding may take off its limits; see `forward`, in any shape."""
        low, high, _, _ = self._limits(s, virtuality, *masses2)
        t = torch.minimum(torch.maximum(t, low), high)
        return self.transfer.inverse(t, low, high)[1] + torch.log(8 * math.pi * (s + virtuality))

    def inverse(
        self, p1: Tensor, s: Tensor, masses2: tuple[Tensor, Tensor], virtuality: Tensor, axis: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Coordinates (n, 2) and log-density from the rest-frame momentum (n, 4) of body 1; see `forward`."""
        low, high, half, _ = self._limits(s, virtuality, *masses2)
        unit = p1[:, 1:] / p1[:, 1:].square().sum(-1, keepdim=True).sqrt().clamp(min=_TINY)
        # 1 - cos(theta) as half the squared chord: precise at small angles
        t = low + 0.5 * half * (unit - axis).square().sum(-1)
        u, log_density = self.transfer.inverse(t, low, high)
        first, second = transverse_axes(axis)
        turn = torch.atan2((unit * second).sum(-1), (unit * first).sum(-1)) / (2 * math.pi)
        columns = torch.stack([u, torch.remainder(turn, 1.0)], dim=-1)
        return columns, log_density + torch.log(8 * math.pi * (s + virtuality))


@dataclass(frozen=True)
class Frame:
    """Rest frame of a momentum (n, 4) whose mass (n,) is known; None as momentum: at rest already.

    With the mass given, and not taken from E^2 - p^2, boosts stay precise for light and fast systems.

    >>> frame = Frame(torch.tensor([3.0]), torch.tensor([[5.0, 0.0, 0.0, 4.0]]))
    >>> frame.from_rest(torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
    tensor([[5., 0., 0., 4.]])
    """

    mass: Tensor
    total: Tensor | None = None

    def from_rest(self, p: Tensor) -> Tensor:
        """Momenta (n, 4) given in the rest frame, in the frame in which the total momentum is given."""
        return p if self.total is None else self._boost(p, self.total[:, 0], self.total[:, 1:])

    def to_rest(self, p: Tensor) -> Tensor:
        """The inverse of `from_rest`."""
        return p if self.total is None else self._boost(p, self.total[:, 0], -self.total[:, 1:])

    def axis(self, p: Tensor) -> Tensor:
        """Direction (n, 3) of the momentum (n, 4) in the rest frame."""
        space = self.to_rest(p)[:, 1:]
        return space / space.square().sum(-1, keepdim=True).sqrt().clamp(min=_TINY)

    def _boost(self, p: Tensor, total_energy: Tensor, space: Tensor) -> Tensor:
        energy = (total_energy * p[:, 0] + (space * p[:, 1:]).sum(-1)) / self.mass
        factor = (p[:, 0] + energy) / (total_energy + self.mass)
        return torch.cat([energy.unsqueeze(-1), p[:, 1:] + factor.unsqueeze(-1) * space], dim=-1)
