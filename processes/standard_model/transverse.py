r"""A channel for particles at moderate transverse momenta over all rapidities, such as bosons between two forward jets.

Each branch, a leg or a pair that decays, has a transverse momentum, a rapidity and an azimuth of its own; the last one
balances the transverse momenta of the others. Energy and p_z fix x_1 and x_2. With m branches
dx_1 dx_2 d\Phi = (2\pi)^4 (2/s) dy_m / (2 (2\pi)^3) \prod_{i<m} dp_{T,i}^2 dy_i d\phi_i / (4 (2\pi)^3)
(Bothmann et al., arXiv:2302.10449, section 2), times dM^2 / (2\pi) d\Phi_2 for each pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field

import torch
from torch import Tensor

from nisampler.base.checks import Limit, Natural, NonNegative, Row, settings
from nisampler.errors import ChannelError, ShapeError
from nisampler.processes.phase_space.blocks import Frame, decay, decay_inverse
from nisampler.processes.phase_space.kinematics import mass2
from nisampler.processes.phase_space.mappings import IntervalMap, PowerLaw, finish_inverse

_TINY = 1e-30
_TWO_PI = 2 * math.pi
# Pairs of massless legs start at this mass in GeV: below it boosts have no digits left.
_LIGHTEST = 1e-3


@settings
class Emitted:
    """A branch: a leg, or two legs that decay from one particle.

    Parameters
    ----------
    legs
        Indices of one or two legs.
    transverse
        Map of the squared transverse momentum in GeV^2; where `pt_min` is 0 a power law wants an offset.
    pt_min
        Least transverse momentum in GeV.
    y_max
        Greatest rapidity.
    invariant
        Map of the squared mass of a pair.
    min_mass, max_mass
        Limits of the mass of a pair in GeV.

    Examples
    --------
    >>> Emitted((0,)).y_max
    inf
    """

    legs: Row[Natural]
    transverse: IntervalMap = field(default=PowerLaw(2.0, offset=6400.0))
    pt_min: NonNegative = 0.0
    y_max: Limit = math.inf
    invariant: IntervalMap = field(default=PowerLaw(1.0, offset=1.0))
    min_mass: NonNegative = 0.0
    max_mass: Limit = math.inf


class TransverseChannel:
    r"""A channel of branches with transverse momenta of their own, the last of which balances the others.

    The columns of the cube are the squared masses of pairs, squared transverse momenta, rapidities and azimuths of all
    branches but the last, the rapidity of the last one, and two angles for each pair. Branches may take more than the
    beams have: such points come out with x_1 > 1 or x_2 > 1, finite.

    Parameters
    ----------
    branches
        At least two; each leg appears once. Rapidity and transverse momentum of the last are not limited.
    masses
        Of the legs in GeV.
    sqrt_s
        Hadronic centre-of-mass energy in GeV.
    name
        Of the channel.

    Raises
    ------
    ChannelError
        If legs are missing or appear twice, or the energy does not suffice.

    Examples
    --------
    >>> channel = TransverseChannel([Emitted((0,)), Emitted((1,), pt_min=20.0), Emitted((2,))], (80.4, 0.0, 0.0))
    >>> u = torch.full((1, channel.dim), 0.4, dtype=torch.float64)
    >>> p, log_density = channel.forward(u)
    >>> channel.name, p.shape, torch.allclose(channel.inverse(p)[0], u)
    ('0, 1, -2', torch.Size([1, 3, 4]), True)
    """

    def __init__(
        self, branches: Sequence[Emitted], masses: Sequence[float], sqrt_s: float = 13000.0, name: str | None = None
    ) -> None:
        self.branches, self.masses, self.sqrt_s = tuple(branches), tuple(map(float, masses)), float(sqrt_s)
        labels = ["".join(map(str, item.legs)) for item in self.branches]
        self.name = ", ".join([*labels[:-1], f"-{labels[-1]}"]) if name is None else name
        legs = sorted(leg for item in self.branches for leg in item.legs)
        if len(self.branches) < 2 or legs != list(range(len(masses))) or max(len(b.legs) for b in branches) > 2:
            raise ChannelError(f"channel {self.name}: two branches of one or two legs, each leg once, got {legs}")
        self._least = [self._least_mass(item) for item in self.branches]
        energy = sum(math.hypot(low, item.pt_min) for low, item in zip(self._least, self.branches, strict=True))
        if not energy < self.sqrt_s:
            raise ChannelError(f"channel {self.name}: {self.sqrt_s} GeV do not suffice for {energy} GeV")
        self._pairs = [place for place, item in enumerate(self.branches) if len(item.legs) == 2]
        self._count = len(self.branches)
        self.dim = 3 * self._count - 2 + 3 * len(self._pairs)
        one = 1 / (2 * _TWO_PI**3)
        self._log_measure = math.log(_TWO_PI**4 * 2 / self.sqrt_s**2 * one) + (self._count - 1) * math.log(one / 2)

    def __repr__(self) -> str:
        return f"TransverseChannel({self.name!r})"

    def _least_mass(self, item: Emitted) -> float:
        own = sum(self.masses[leg] for leg in item.legs)
        return own if len(item.legs) == 1 else max(own, item.min_mass, _LIGHTEST)

    def _mass_limits(self, place: int) -> tuple[float, float]:
        rest = sum(self._least) - self._least[place]
        return self._least[place] ** 2, min(self.branches[place].max_mass, self.sqrt_s - rest) ** 2

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Momenta (n, m, 4) in GeV and log(du / d\mu) (n,) of the cube points u (n, dim).

        Raises
        ------
        ShapeError
            If u is not of shape (n, dim).
        """
        if u.ndim != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"channel {self.name} takes points of shape (n, {self.dim}), got {tuple(u.shape)}")
        used = len(self._pairs)
        log_g = torch.zeros_like(u[:, 0])
        s = [torch.full_like(log_g, low**2) for low in self._least]
        for column, place in enumerate(self._pairs):
            limits = self._mass_limits(place)
            s[place], log_mass = self.branches[place].invariant.forward(u[:, column], *limits)
            log_g = log_g + log_mass + math.log(_TWO_PI)
        moved: list[Tensor] = []
        for item, squared in zip(self.branches[:-1], s, strict=False):
            pt2, log_pt = item.transverse.forward(u[:, used], item.pt_min**2, self._most(item))
            widest = self._widest(item, squared + pt2)
            y, azimuth = widest * (2 * u[:, used + 1] - 1), _TWO_PI * u[:, used + 2]
            log_g = log_g + log_pt - torch.log(2 * widest) - math.log(_TWO_PI)
            moved.append(_momentum(pt2.sqrt(), azimuth, y, squared + pt2))
            used += 3
        (px, py), low, span, mt2 = self._last(s[-1], torch.stack(moved, 1))
        y = low + u[:, used] * span
        log_g = log_g - torch.log(span) - self._log_measure
        mt = mt2.sqrt()
        moved.append(torch.stack([mt * torch.cosh(y), px, py, mt * torch.sinh(y)], -1))
        used += 1
        found: dict[int, Tensor] = {}
        for place, (item, p) in enumerate(zip(self.branches, moved, strict=True)):
            if len(item.legs) == 1:
                found[item.legs[0]] = p
                continue
            first, log_decay = decay(u[:, used : used + 2], s[place], *self._squared(item, s[place]))
            found[item.legs[0]] = Frame(s[place].sqrt(), p).from_rest(first)
            found[item.legs[1]] = p - found[item.legs[0]]
            log_g = log_g + log_decay
            used += 2
        return torch.stack([found[leg] for leg in range(len(self.masses))], 1), log_g

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Cube points (n, dim) and log(du / d\mu) (n,), -inf outside the support, of momenta (n, m, 4).

        Raises
        ------
        ShapeError
            If x is not of shape (n, m, 4).
        """
        if x.ndim != 3 or x.shape[1:] != (len(self.masses), 4):
            raise ShapeError(f"channel {self.name} takes momenta (n, {len(self.masses)}, 4), got {tuple(x.shape)}")
        columns: list[Tensor] = []
        log_g = torch.zeros_like(x[:, 0, 0])
        moved = [x[:, list(item.legs)].sum(1) for item in self.branches]
        s = [torch.full_like(log_g, low**2) for low in self._least]
        for place in self._pairs:
            s[place] = mass2(moved[place]).clamp(min=_TINY)
            u, log_mass = self.branches[place].invariant.inverse(s[place], *self._mass_limits(place))
            columns.append(u)
            log_g = log_g + log_mass + math.log(_TWO_PI)
        for item, squared, p in zip(self.branches[:-1], s, moved, strict=False):
            pt2 = p[:, 1].square() + p[:, 2].square()
            u, log_pt = item.transverse.inverse(pt2, item.pt_min**2, self._most(item))
            mt2 = squared + pt2
            widest = self._widest(item, mt2)
            turn = torch.remainder(torch.atan2(p[:, 2], p[:, 1]) / _TWO_PI, 1.0)
            columns += [u, 0.5 + 0.5 * torch.asinh(p[:, 3] / mt2.sqrt()) / widest, turn]
            log_g = log_g + log_pt - torch.log(2 * widest) - math.log(_TWO_PI)
        _, low, span, mt2 = self._last(s[-1], torch.stack(moved[:-1], 1))
        columns.append((torch.asinh(moved[-1][:, 3] / mt2.sqrt()) - low) / span)
        log_g = log_g - torch.log(span) - self._log_measure
        for place in self._pairs:
            item = self.branches[place]
            rest = Frame(s[place].sqrt(), moved[place]).to_rest(x[:, item.legs[0]])
            u, log_decay = decay_inverse(rest, s[place], *self._squared(item, s[place]))
            columns.append(u)
            log_g = log_g + log_decay
        return finish_inverse(columns, log_g)

    def _most(self, item: Emitted) -> float:
        """Greatest squared transverse momentum of a branch."""
        return max(0.5 * self.sqrt_s, 2 * item.pt_min) ** 2

    def _widest(self, item: Emitted, mt2: Tensor) -> Tensor:
        """Greatest rapidity (n,) of a branch of this squared transverse mass: there one beam has no energy left."""
        most = math.log(self.sqrt_s) - 0.5 * torch.log(mt2)
        return most.clamp(min=1e-9, max=min(item.y_max, 1e3))

    def _squared(self, item: Emitted, like: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (torch.full_like(like, self.masses[leg] ** 2) for leg in item.legs)
        return first, second

    def _last(self, s: Tensor, others: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """(px, py), lower limit and length of the rapidity interval, and squared transverse mass of the last branch."""
        energy, px, py, pz = others.sum(1).unbind(-1)
        mt2 = (s + px.square() + py.square()).clamp(min=_TINY)
        # The floor is idle where x_1, x_2 <= 1 can be met: there (sqrt_s - P+)(sqrt_s - P-) >= mT^2.
        floor = mt2 / self.sqrt_s
        plus = torch.maximum(self.sqrt_s - (energy + pz), floor)
        minus = torch.maximum(self.sqrt_s - (energy - pz), floor)
        low = 0.5 * torch.log(mt2) - torch.log(minus)
        return (-px, -py), low, torch.log(plus * minus / mt2).clamp(min=1e-9), mt2


def _momentum(pt: Tensor, azimuth: Tensor, y: Tensor, mt2: Tensor) -> Tensor:
    mt = mt2.sqrt()
    return torch.stack(
        [mt * torch.cosh(y), pt * torch.cos(azimuth), pt * torch.sin(azimuth), mt * torch.sinh(y)], dim=-1
    )
