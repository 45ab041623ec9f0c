r"""Flat n-body phase space: RAMBO (Kleiss, Stirling, Ellis) and RAMBO on diet (Platzer, arXiv:1308.2922).

Both return momenta in the rest frame of the total momentum and the weight d Phi_n / d u, where
d Phi_n = (2 pi)^{4 - 3 n} \delta^4(P - \sum p) \prod d^3 p_i / (2 E_i), in GeV^(2 n - 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nisampler.base.checks import NonNegative, Row, checked
from nisampler.errors import ConfigError, DomainError, ProcessError, ShapeError
from nisampler.processes.phase_space.kinematics import (
    boost_from_rest,
    boost_to_rest,
    cos_theta,
    direction,
    mass,
    momentum,
    phi,
)


class PhaseSpaceMap(Protocol):
    """A map from the unit cube to final-state momenta, with its inverse.

    >>> mapping: PhaseSpaceMap = RamboOnDiet([0.0, 0.0, 0.0])
    >>> mapping.dim
    5
    """

    @property
    def dim(self) -> int:
        """Number of uniform random numbers a point."""
        ...

    def forward(self, u: Tensor, sqrt_s: float) -> tuple[Tensor, Tensor]:
        """Momenta (n, legs, 4) and weights d Phi / d u (n,) of the cube points u (n, dim)."""
        ...

    def inverse(self, momenta: Tensor) -> Tensor:
        """The cube points (n, dim) of the momenta (n, legs, 4)."""
        ...


def massless_volume(legs: int, sqrt_s: float) -> float:
    """Volume of massless n-body phase space, (2 pi)^(4-3n) (pi/2)^(n-1) s^(n-2) / ((n-1)! (n-2)!), n >= 2.

    >>> round(massless_volume(2, 100.0) * 8 * math.pi, 12)
    1.0
    """
    log_volume = (4 - 3 * legs) * math.log(2 * math.pi) + (legs - 1) * math.log(math.pi / 2)
    log_volume += (2 * legs - 4) * math.log(sqrt_s) - math.lgamma(legs) - math.lgamma(legs - 1)
    return math.exp(log_volume)


def _checked_masses(masses: Sequence[float]) -> tuple[float, ...]:
    values: tuple[float, ...] = checked("masses", tuple(masses), Row[NonNegative])
    if len(values) < 2:
        raise ConfigError(f"phase space needs at least two final-state masses, got {len(values)}")
    return values


def _checked_input(u: Tensor, dim: int, sqrt_s: float, masses: Sequence[float]) -> None:
    if u.ndim != 2 or u.shape[1] != dim:
        raise ShapeError(f"phase-space map takes points of shape (n, {dim}), got {tuple(u.shape)}")
    if not sum(masses) < sqrt_s < math.inf:
        raise ProcessError(f"sqrt_s = {sqrt_s} GeV is not above the sum of the masses, {sum(masses)} GeV")


def _beta_quantile(r: Tensor, m: int) -> Tensor:
    """Solve (m + 1) t^m - m t^(m+1) = r for t in [0, 1]: the quantile of Beta(m, 2); differentiable in r."""
    eps = torch.finfo(r.dtype).eps
    with torch.no_grad():
        low, high = torch.zeros_like(r), torch.ones_like(r)
        for _ in range(int(-math.log2(eps)) + 2):
            middle = 0.5 * (low + high)
            below = middle**m * (1 + m * (1 - middle)) < r
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        t = (0.5 * (low + high)).clamp(eps, 1 - eps)
        slope = (m * (m + 1) * t ** (m - 1) * (1 - t)).clamp(min=torch.finfo(r.dtype).tiny)
        usable = 1 - t > 1e-6
    step = (r - t**m * (1 + m * (1 - t))) / slope
    return (t + torch.where(usable, step, torch.zeros_like(step))).clamp(eps, 1 - eps)


def _two_body_momentum(total: Tensor, m1: Tensor | float, m2: Tensor | float) -> Tensor:
    """Momentum of the decay total -> m1 + m2 in its rest frame."""
    product = (total - m1 - m2) * (total + m1 + m2) * (total - m1 + m2) * (total + m1 - m2)
    return product.clamp(min=0).sqrt() / (2 * total)


class RamboOnDiet:
    """Flat phase space from 3 n - 4 numbers, invertible, massless or massive (1308.2922, algorithms 1 and 2).

    A chain of two-body decays, each isotropic in its rest frame. The weight is the constant volume for
    massless legs; massive legs carry the ratio of two-body momenta as a weight.

    Parameters
    ----------
    masses
        The masses of the legs in GeV, one each, at least two.

    Raises
    ------
    ConfigError
        If there are fewer than two legs, or a mass is negative or not finite.

    Examples
    --------
    >>> mapping = RamboOnDiet([0.0, 0.0, 173.0])
    >>> u = torch.full((1, mapping.dim), 0.4, dtype=torch.float64)
    >>> momenta, weight = mapping.forward(u, sqrt_s=500.0)
    >>> momenta.shape, torch.allclose(mapping.inverse(momenta), u)
    (torch.Size([1, 3, 4]), True)
    """

    def __init__(self, masses: Sequence[float]) -> None:
        self.masses = _checked_masses(masses)
        self.legs = len(self.masses)
        self.dim = 3 * self.legs - 4
        tail = [sum(self.masses[i:]) for i in range(self.legs)]
        self._mass_tails = tuple(tail)

    def forward(self, u: Tensor, sqrt_s: float) -> tuple[Tensor, Tensor]:
        """Momenta (n, legs, 4) and weights d Phi / d u (n,) at the cube points u (n, dim).

        Raises
        ------
        ShapeError
            If u is not of shape (n, dim).
        ProcessError
            If sqrt_s is not above the sum of the masses.
        """
        _checked_input(u, self.dim, sqrt_s, self.masses)
        n = self.legs
        reduced = [torch.full_like(u[:, 0], sqrt_s - self._mass_tails[0])]
        for i in range(n - 2):
            reduced.append(reduced[-1] * _beta_quantile(u[:, i], n - 2 - i).sqrt())
        reduced.append(torch.zeros_like(reduced[0]))
        intermediate = [k + tail for k, tail in zip(reduced, self._mass_tails, strict=True)]
        weight = torch.full_like(u[:, 0], massless_volume(n, sqrt_s - self._mass_tails[0]))
        angles = u[:, n - 2 :]
        frame = torch.zeros(u.shape[0], 4, dtype=u.dtype, device=u.device)
        frame[:, 0] = sqrt_s
        momenta = []
        for i in range(n - 1):
            total, rest, leg = intermediate[i], intermediate[i + 1], self.masses[i]
            q = _two_body_momentum(total, leg, rest)
            if self._mass_tails[0] > 0:
                weight = weight * (2 * q / total) / (1 - (reduced[i + 1] / reduced[i]).square())
                if i > 0:
                    weight = weight * total / reduced[i]
            space = q.unsqueeze(-1) * direction(2 * angles[:, 2 * i] - 1, 2 * math.pi * angles[:, 2 * i + 1])
            energy = torch.hypot(q, torch.full_like(q, leg)).unsqueeze(-1)
            other = torch.hypot(q, rest).unsqueeze(-1)
            momenta.append(boost_from_rest(torch.cat([energy, space], -1), frame))
            frame = boost_from_rest(torch.cat([other, -space], -1), frame)
        momenta.append(frame)
        return torch.stack(momenta, dim=1), weight

    def inverse(self, momenta: Tensor) -> Tensor:
        """Cube points (n, dim) of momenta (n, legs, 4) given in their rest frame.

        Raises
        ------
        ShapeError
            If momenta are not of shape (n, legs, 4).
        """
        n = self.legs
        if momenta.ndim != 3 or momenta.shape[1:] != (n, 4):
            raise ShapeError(f"expected momenta of shape (n, {n}, 4), got {tuple(momenta.shape)}")
        frames = momenta.flip(1).cumsum(1).flip(1)
        reduced = [mass(frames[:, i]) - self._mass_tails[i] for i in range(n - 1)]
        columns = []
        for i in range(n - 2):
            t = (reduced[i + 1] / reduced[i]).square().clamp(0, 1)
            m = n - 2 - i
            columns.append(t**m * (1 + m * (1 - t)))
        for i in range(n - 1):
            leg = boost_to_rest(momenta[:, i], frames[:, i])
            columns.append(0.5 * (1 + cos_theta(leg)))
            columns.append(torch.remainder(phi(leg) / (2 * math.pi), 1.0))
        return torch.stack(columns, dim=1)


class Rambo:
    """The original RAMBO: 4 n uniform numbers, not invertible (Comput. Phys. Commun. 40 (1986) 359).

    Massless momenta have a constant weight. Massive ones are the massless ones rescaled so that energy is
    conserved (eqs. 4.1 to 4.11), with the weight that belongs to it.

    Parameters
    ----------
    masses
        The masses of the legs in GeV, one each, at least two.

    Raises
    ------
    ConfigError
        If there are fewer than two legs, or a mass is negative or not finite.

    Examples
    --------
    >>> momenta, weight = Rambo([0.0, 0.0]).forward(torch.rand(3, 8, dtype=torch.float64), sqrt_s=100.0)
    >>> bool(((momenta.sum(1)[:, 0] - 100.0).abs() < 1e-9).all())
    True
    """

    def __init__(self, masses: Sequence[float]) -> None:
        self.masses = _checked_masses(masses)
        self.legs = len(self.masses)
        self.dim = 4 * self.legs

    def forward(self, u: Tensor, sqrt_s: float) -> tuple[Tensor, Tensor]:
        """Momenta (n, legs, 4) and weights d Phi / d u (n,) at the cube points u (n, dim).

        Raises
        ------
        ShapeError
            If u is not of shape (n, dim).
        ProcessError
            If sqrt_s is not above the sum of the masses.
        """
        _checked_input(u, self.dim, sqrt_s, self.masses)
        r = u.reshape(u.shape[0], self.legs, 4)
        tiny = torch.finfo(u.dtype).tiny
        energy = -torch.log((r[..., 2] * r[..., 3]).clamp(min=tiny))
        space = energy.unsqueeze(-1) * direction(2 * r[..., 0] - 1, 2 * math.pi * r[..., 1])
        q = torch.cat([energy.unsqueeze(-1), space], dim=-1)
        total = q.sum(1)
        invariant = mass(total)
        p = boost_to_rest(q, total.unsqueeze(1)) * (sqrt_s / invariant).reshape(-1, 1, 1)
        weight = torch.full_like(invariant, massless_volume(self.legs, sqrt_s))
        if sum(self.masses) == 0:
            return p, weight
        return self._massive(p, weight, sqrt_s)

    def inverse(self, momenta: Tensor) -> Tensor:
        """Not possible: 4 n numbers make 3 n - 4 degrees of freedom.

        Raises
        ------
        DomainError
            Always; `RamboOnDiet` has an inverse.
        """
        raise DomainError(f"RAMBO has no inverse (momenta {tuple(momenta.shape)}); use RamboOnDiet")

    def _massive(self, p: Tensor, weight: Tensor, sqrt_s: float) -> tuple[Tensor, Tensor]:
        masses2 = p.new_tensor(self.masses).square()
        lengths2 = p[..., 0].square()
        scale = torch.full_like(weight, math.sqrt(1 - (sum(self.masses) / sqrt_s) ** 2))
        for _ in range(30):
            energies = (masses2 + scale.square().unsqueeze(-1) * lengths2).sqrt()
            excess = energies.sum(-1) - sqrt_s
            slope = scale * (lengths2 / energies).sum(-1)
            scale = scale - excess / slope
        energies = (masses2 + scale.square().unsqueeze(-1) * lengths2).sqrt()
        k = torch.cat([energies.unsqueeze(-1), p[..., 1:] * scale.reshape(-1, 1, 1)], dim=-1)
        lengths = momentum(k)
        factor = (lengths.sum(-1) / sqrt_s) ** (2 * self.legs - 3) * (lengths / energies).prod(-1)
        return k, weight * factor * sqrt_s / (lengths.square() / energies).sum(-1)
