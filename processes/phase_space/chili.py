r"""Chili-type channels for a pair of legs and jets, generated in transverse momenta, rapidities and azimuths.

The measure d\mu = dx_1 dx_2 d\Phi_m of a boson V -> l_1 l_2 with J massless jets is
d\mu = (2\pi)^4 (2/s) dM^2/(2\pi) d\Phi_2(V -> l_1 l_2) dy_V / (2 (2\pi)^3) \prod_j p_T dp_T dy d\phi / (2 (2\pi)^3):
the boson's transverse momentum recoils against the jets, and energy and p_z fix x_1 and x_2.
Source: Bothmann et al., arXiv:2302.10449, section 2. The jets near another jet are an addition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nisampler.base.checks import Limit, Natural, NonNegative, Positive, checked, settings
from nisampler.errors import ChannelError, ConfigError, ShapeError
from nisampler.processes.phase_space.blocks import sqrt_kallen
from nisampler.processes.phase_space.jets import Jet, JetGenerator, JetRegion
from nisampler.processes.phase_space.mappings import IntervalMap, PowerLaw, finish_inverse

_TINY = 1e-30
_SOFT = 50.0  # GeV: below it the density of a boson against which a jet recoils grows with its transverse momentum
_TWO_PI = 2 * math.pi


@settings
class Boson:
    """The pair of legs that come from a boson, or from any s-channel, such as a pair of top quarks.

    Parameters
    ----------
    invariant
        Map of the squared mass of the pair.
    min_mass, max_mass
        Limits on the mass of the pair in GeV; max_mass is lowered to what the energy allows.
    masses
        Masses of the two legs in GeV.

    Raises
    ------
    ConfigError
        Unless 0 < min_mass < max_mass and min_mass is at least the sum of the masses.

    Examples
    --------
    >>> Boson(PowerLaw(2.0), min_mass=50.0).masses
    (0.0, 0.0)
    >>> Boson(PowerLaw(2.0), min_mass=50.0, max_mass=40.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: a boson needs min_mass < max_mass and ... got 50.0 and 40.0 GeV
    """

    invariant: IntervalMap
    min_mass: Positive
    max_mass: Limit = math.inf
    masses: tuple[NonNegative, NonNegative] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not sum(self.masses) <= self.min_mass < self.max_mass:
            raise ConfigError(
                f"a boson needs min_mass < max_mass and min_mass >= the masses {self.masses} of its legs, "
                f"got {self.min_mass} and {self.max_mass} GeV"
            )


class ChiliChannel:
    """A channel for two legs from a boson and massless jets: legs (l_1, l_2, jet_1, ..., jet_J).

    Columns of the cube: mass, cos(theta*) and phi* of l_1 in the Collins-Soper frame (phi* from the boson's
    transverse momentum), boson rapidity; then pT of every jet; then the rapidity or Delta R of every jet; then
    the azimuth of every jet. The rapidity of the boson is uniform between the limits at which x_1 or x_2
    becomes 1. Jets may take more than the beams have: such points come out with x_1 > 1 or x_2 > 1, finite.

    Parameters
    ----------
    boson
        The pair of legs.
    jets
        The jets: those without a parent first, a parent before its children.
    region
        Where jets are generated.
    sqrt_s
        Hadronic centre-of-mass energy in GeV.
    order
        `order[i]` is the place among the jet legs of `jets[i]`; default: as they come.
    name
        Name of the channel; made from the jets by default.

    Raises
    ------
    ChannelError
        If the jets or their order are inconsistent, or the energy does not suffice.

    Examples
    --------
    >>> channel = ChiliChannel(Boson(PowerLaw(2.0), 50.0), [Jet()])
    >>> u = torch.full((1, channel.dim), 0.4, dtype=torch.float64)
    >>> p, log_density = channel.forward(u)
    >>> channel, p.shape, torch.allclose(channel.inverse(p)[0], u)
    (ChiliChannel('V j1'), torch.Size([1, 3, 4]), True)
    """

    def __init__(
        self,
        boson: Boson,
        jets: Sequence[Jet] = (),
        *,
        region: JetRegion | None = None,
        sqrt_s: float = 13000.0,
        order: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        count = len(jets)
        region = JetRegion() if region is None else region
        self.boson, self.sqrt_s = boson, float(sqrt_s)
        self.order = tuple(range(count)) if order is None else tuple(order)
        if sorted(self.order) != list(range(count)):
            raise ChannelError(f"the order of {count} jets must be a permutation of 0..{count - 1}, got {self.order}")
        self.name = _name(jets, self.order) if name is None else name
        self.legs = 2 + count
        self.dim = 4 + 3 * count
        self._generator = JetGenerator(jets, region) if jets else None
        self._roles = [self.order.index(place) for place in range(count)]
        self._mass2_limits = (boson.min_mass**2, self._top_mass(region if jets else None) ** 2)
        self._log_measure = _log_measure(count, self.sqrt_s)

    def _top_mass(self, region: JetRegion | None) -> float:
        """Greatest mass of the boson in GeV beside one jet at its least pT; None: without jets."""
        reserve = 1.0 if region is None else 1 - 2 * region.pt_min / self.sqrt_s
        top = min(self.boson.max_mass, self.sqrt_s * math.sqrt(max(reserve, 0.0)))
        if not self.boson.min_mass < top:
            raise ChannelError(
                f"channel {self.name}: {self.sqrt_s} GeV do not suffice for {self.boson} and jets in {region}"
            )
        return top

    def __repr__(self) -> str:
        return f"ChiliChannel({self.name!r})"

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Momenta (n, 2 + J, 4) in GeV and log(du / d\mu) (n,) of the cube points u (n, 4 + 3 J).

        Raises
        ------
        ShapeError
            If u is not of shape (n, 4 + 3 J).
        """
        if u.ndim != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"channel {self.name} takes points of shape (n, {self.dim}), got {tuple(u.shape)}")
        s, log_g = self.boson.invariant.forward(u[:, 0], *self._mass2_limits)
        jets = None
        if self._generator is not None:
            jets, log_jets = self._generator.forward(u[:, 4:], self._edge(s))
            log_g = log_g + log_jets
        q, low, span, mt = self._boson_rapidity(s, jets)
        legs, log_decay = self._decay(u[:, 1:3], s, q, mt, torch.exp(low + u[:, 3] * span))
        if jets is not None:
            legs = torch.cat([legs, jets if self._in_order else jets[:, self._roles]], dim=1)
        return legs, log_g + log_decay - torch.log(span) - self._log_measure

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Cube points (n, 4 + 3 J) and log(du / d\mu) (n,), -inf outside the support, of momenta (n, 2 + J, 4).

        Raises
        ------
        ShapeError
            If x is not of shape (n, 2 + J, 4).
        """
        if x.ndim != 3 or x.shape[1:] != (self.legs, 4):
            raise ShapeError(f"channel {self.name} takes momenta (n, {self.legs}, 4), got {tuple(x.shape)}")
        s = self._pair_mass2(x[:, 0], x[:, 1])
        u_mass, log_g = self.boson.invariant.inverse(s, *self._mass2_limits)
        jets = None if self._generator is None else x[:, 2:]
        q, low, span, mt = self._boson_rapidity(s, jets)
        rapidity = torch.asinh((x[:, 0, 3] + x[:, 1, 3]) / mt)
        u_decay, log_decay = self._decay_inverse(x[:, 0], s, q, mt, rapidity)
        columns = [u_mass, u_decay, (rapidity - low) / span]
        log_g = log_g + log_decay - torch.log(span) - self._log_measure
        if self._generator is not None and jets is not None:
            jets = jets if self._in_order else jets[:, self.order]
            u_jets, log_jets = self._generator.inverse(jets, self._edge(s))
            columns.append(u_jets)
            log_g = log_g + log_jets
        return finish_inverse(columns, log_g)

    @property
    def _in_order(self) -> bool:
        return self._roles == sorted(self._roles)

    def _edge(self, s: Tensor) -> Tensor:
        """Greatest pT cosh(y) (n, 1) of a jet beside a pair of squared mass s: (S - s) / (2 sqrt(S))."""
        return (0.5 * (self.sqrt_s - s / self.sqrt_s)).unsqueeze(-1)

    def _pair_mass2(self, p1: Tensor, p2: Tensor) -> Tensor:
        m1, m2 = self.boson.masses
        space = (p1[:, 1:] * p2[:, 1:]).sum(-1)
        return (m1**2 + m2**2 + 2 * (p1[:, 0] * p2[:, 0] - space)).clamp(min=_TINY)

    def _boson_rapidity(self, s: Tensor, jets: Tensor | None) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """Boson's (px, py), lower limit and length of its rapidity interval, and its transverse mass."""
        if jets is None:
            zero = torch.zeros_like(s)
            span = (2 * math.log(self.sqrt_s) - torch.log(s)).clamp(min=1e-9)
            return (zero, zero), -0.5 * span, span, s.sqrt()
        energy, px, py, pz = jets.sum(1).unbind(-1)
        mt2 = s + px.square() + py.square()
        # The floor is idle where x_1, x_2 <= 1 can be met: there (sqrt_s - P+)(sqrt_s - P-) >= mT^2.
        floor = mt2 / self.sqrt_s
        plus = torch.maximum(self.sqrt_s - (energy + pz), floor)
        minus = torch.maximum(self.sqrt_s - (energy - pz), floor)
        mt = mt2.sqrt()
        return (-px, -py), torch.log(mt / minus), torch.log(plus * minus / mt2).clamp(min=1e-9), mt

    def _rest_frame(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | float]:
        """Mass of the pair, momentum and energy of leg 1 at rest, and log(s / sqrt(lambda))."""
        mass = s.sqrt()
        m1, m2 = self.boson.masses
        if m1 == m2 == 0:
            return mass, 0.5 * mass, 0.5 * mass, 0.0
        root = sqrt_kallen(s, s.new_tensor(m1**2), s.new_tensor(m2**2))
        return mass, 0.5 * root / mass, 0.5 * (s + m1**2 - m2**2) / mass, torch.log(s / root)

    def _decay(
        self, u: Tensor, s: Tensor, q: tuple[Tensor, Tensor], mt: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """Both legs (n, 2, 4): Collins-Soper frame, boost along q_T, then along z by log(factor)."""
        mass, k, rest_energy, log_decay = self._rest_frame(s)
        azimuth = _TWO_PI * u[:, 1]
        side = 2 * k * (u[:, 0] * (1 - u[:, 0])).clamp(min=0).sqrt()
        along, across, kz = side * torch.cos(azimuth), side * torch.sin(azimuth), k * (2 * u[:, 0] - 1)
        energy, px, py = rest_energy, along, across
        if self._generator is not None:
            qt, hx, hy = _recoil(q)
            energy, along = (mt * rest_energy + qt * along) / mass, (mt * along + qt * rest_energy) / mass
            px, py = along * hx - across * hy, along * hy + across * hx
        up, down = 0.5 * (energy + kz) * factor, 0.5 * (energy - kz) / factor
        total_up, total_down = 0.5 * mt * factor, 0.5 * mt / factor
        first = torch.stack([up + down, px, py, up - down], dim=-1)
        total = torch.stack([total_up + total_down, *q, total_up - total_down], dim=-1)
        return torch.stack([first, total - first], dim=1), log_decay

    def _decay_inverse(
        self, p1: Tensor, s: Tensor, q: tuple[Tensor, Tensor], mt: Tensor, rapidity: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """Coordinates (n, 2) of the direction of leg 1 in the Collins-Soper frame."""
        mass, k, _, log_decay = self._rest_frame(s)
        factor = torch.exp(rapidity)
        energy, along, across, pz = p1.unbind(-1)
        up, down = 0.5 * (energy + pz) / factor, 0.5 * (energy - pz) * factor
        if self._generator is not None:
            qt, hx, hy = _recoil(q)
            along, across = along * hx + across * hy, across * hx - along * hy
            along = (mt * along - qt * (up + down)) / mass
        turn = torch.atan2(across, along) / _TWO_PI
        return torch.stack([0.5 + 0.5 * (up - down) / k, torch.remainder(turn, 1.0)], dim=-1), log_decay


def _recoil(q: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Length and direction of the transverse momentum; along x where it vanishes."""
    length = torch.hypot(*q)
    safe, nothing = length.clamp(min=_TINY), length <= _TINY
    return length, torch.where(nothing, 1.0, q[0] / safe), torch.where(nothing, 0.0, q[1] / safe)


def _log_measure(jets: int, sqrt_s: float) -> float:
    """Log of the constants of the measure, see the text of the module."""
    one_particle = 1 / (2 * _TWO_PI**3)
    return math.log(_TWO_PI**3 * 2 / sqrt_s**2 / (8 * math.pi)) + (jets + 1) * math.log(one_particle)


def _name(jets: Sequence[Jet], order: Sequence[int]) -> str:
    labels = []
    for place, jet in zip(order, jets, strict=True):
        near = "" if jet.parent is None else f"~j{order[jet.parent] + 1}"
        labels.append(f"{'-' if jet.recoils else ''}j{place + 1}{near}")
    return " ".join(["V", *labels])


def chili_channels(
    boson: Boson,
    jets: int,
    *,
    region: JetRegion | None = None,
    transverse: IntervalMap | None = None,
    near: IntervalMap | None = None,
    sqrt_s: float = 13000.0,
) -> tuple[list[ChiliChannel], list[int]]:
    """Channels for a boson and any number of jets, and the group of each.

    One channel has all jets alone, and the boson recoils. For every way to gather some jets around one of them (a
    pair; for three and more jets also all others around one) there is one more. With two and more jets there is one
    for each jet that recoils against a softer boson and the others. Channels of a group are the same map with the jet
    legs permuted, so they can share a flow where the integrand is symmetric in the jets.

    Parameters
    ----------
    boson
        The pair of legs.
    jets
        Number of jets, 0 or more.
    region
        Where jets are generated.
    transverse
        Map of pT of jets that lie alone; default pT^-2.
    near
        Map of pT of jets near another jet; default: as `transverse`.
    sqrt_s
        Hadronic centre-of-mass energy in GeV.

    Raises
    ------
    ConfigError
        If the number of jets is negative or a setting is out of its range.

    Examples
    --------
    >>> channels, groups = chili_channels(Boson(PowerLaw(2.0), 50.0), jets=2)
    >>> [channel.name for channel in channels], groups
    (['V j1 j2', 'V j1 j2~j1', 'V j2 -j1', 'V j1 -j2'], [0, 1, 2, 2])
    """
    checked("jets", jets, Natural)
    alone = Jet() if transverse is None else Jet(transverse=transverse)
    attached = Jet(0, alone.transverse if near is None else near)
    layouts = list(_layouts(jets, alone, attached))
    channels = [ChiliChannel(boson, kinds, region=region, sqrt_s=sqrt_s, order=order) for kinds, order, _ in layouts]
    return channels, [group for _, _, group in layouts]


def _layouts(count: int, alone: Jet, attached: Jet) -> Iterator[tuple[list[Jet], tuple[int, ...], int]]:
    """Jets, their places among the legs, and the group of every channel."""
    places = range(count)

    def without(*taken: int) -> list[int]:
        return [place for place in places if place not in taken]

    yield [alone] * count, tuple(places), 0
    for first, second in itertools.combinations(places, 2):
        yield [alone] * (count - 1) + [attached], (first, *without(first, second), second), 1
    for centre in places if count > 2 else ():
        yield [alone] + [attached] * (count - 1), (centre, *without(centre)), 2
    recoil = Jet(transverse=PowerLaw(2.0, offset=_SOFT), recoils=True)
    for last in places if count > 1 else ():
        yield [alone] * (count - 1) + [recoil], (*without(last), last), min(count, 3)
