r"""Massless jets from random numbers in pT, rapidity and azimuth, alone or near another jet, and back.

The measure is \prod_j p_T dp_T dy d\phi. A jet near a parent jet takes Delta R from a map (by default density
1 / Delta R, as collinear splittings have it) and the direction in the (y, phi) plane uniformly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Natural, NonNegative, Positive, settings
from nisampler.errors import ChannelError, ConfigError
from nisampler.processes.phase_space.kinematics import phi, pt
from nisampler.processes.phase_space.mappings import LOGARITHMIC, IntervalMap, PowerLaw, Uniform

_TINY = 1e-30
_TWO_PI = 2 * math.pi


@settings
class Jet:
    """How one massless jet is generated.

    Parameters
    ----------
    parent
        None: rapidity uniform, azimuth uniform with respect to the first jet. Otherwise the index of the
        jet near which it lies.
    transverse
        Map of pT; an offset lets the lower limit be 0.
    recoils
        The columns of pT and azimuth are those of the boson, from pT = 0 on, and the jet balances the boson and the
        other jets. It makes soft bosons beside hard jets, for which independent jets would have to balance by chance.

    Examples
    --------
    >>> Jet(parent=0).recoils
    False
    """

    parent: Natural | None = None
    transverse: IntervalMap = field(default=PowerLaw(2.0))
    recoils: bool = False


@settings
class JetRegion:
    """Where jets are generated. Cuts may be tighter, not looser; without parents all Delta R are covered.

    Parameters
    ----------
    pt_min
        Least pT in GeV; 0 needs maps with an offset.
    y_max
        Greatest |rapidity| of jets without a parent. Those with a parent may lie beyond it.
    r_min, r_max
        Limits of Delta R from the parent, r_min < r_max; beyond pi the azimuth wraps.
    radial
        Map of Delta R.

    Raises
    ------
    ConfigError
        If a limit is outside its range.

    Examples
    --------
    >>> JetRegion(pt_min=30.0).y_max
    5.0
    >>> JetRegion(r_min=2.0, r_max=1.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: jets near a jet need r_min < r_max, got 2.0 and 1.0
    """

    pt_min: NonNegative = 20.0
    y_max: Positive = 5.0
    r_min: Positive = 0.4
    r_max: Annotated[Positive, Field(le=math.pi)] = math.pi
    radial: IntervalMap = field(default=LOGARITHMIC)

    def __post_init__(self) -> None:
        if not self.r_min < self.r_max:
            raise ConfigError(f"jets near a jet need r_min < r_max, got {self.r_min} and {self.r_max}")


class JetGenerator:
    """Jets from u (n, 3 J): the columns of pT, then of rapidity or Delta R, then of the azimuths or directions.

    Parameters
    ----------
    jets
        The jets: first those without a parent, then those with an earlier jet as parent.
    region
        Where they are generated.

    Raises
    ------
    ChannelError
        If the jets are not in this order, another jet than the last recoils or a jet has a parent then, or a pT starts
        at 0 with a power law without an offset.

    Examples
    --------
    >>> jets = JetGenerator([Jet(), Jet(0)], JetRegion(pt_min=20.0))
    >>> p, log_density = jets.forward(torch.full((1, 6), 0.5, dtype=torch.float64), torch.tensor([[6000.0]]))
    >>> p.shape, torch.allclose(jets.inverse(p, torch.tensor([[6000.0]]))[1], log_density)
    (torch.Size([1, 2, 4]), True)
    """

    def __init__(self, jets: Sequence[Jet], region: JetRegion) -> None:
        self.jets, self.region = tuple(jets), region
        self.count = len(self.jets)
        self.parents = [jet.parent for jet in self.jets if jet.parent is not None]
        self.roots = self.count - len(self.parents)
        self.recoil = any(jet.recoils for jet in self.jets)
        _check_parents(self.jets)
        _check_recoil(self.jets)
        for jet in self.jets:
            _check_law(jet.transverse, _lowest(jet, region))
        self._pieces = _pieces(self.jets, region)
        self._y_sums = _ancestry([*[None] * self.roots, *self.parents])
        # The first jet turns all others with it.
        self._phi_sums = _ancestry([None, *[0] * (self.roots - 1), *self.parents])

    def forward(self, u: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (n, J, 4) and log(du / prod pT dpT dy dphi) (n,).

        Parameters
        ----------
        u
            Coordinates (n, 3 J).
        edge
            Greatest pT cosh(y) of a jet in GeV, (n, 1).
        """
        u_pt, u_first, u_angle = (u[:, i * self.count : (i + 1) * self.count] for i in range(3))
        parts = [law.forward(u_pt[:, where], low, edge) for law, low, where in self._pieces]
        drawn = transverse = torch.cat([values for values, _ in parts], dim=-1)
        azimuth = _TWO_PI * u_angle
        if self.parents:
            r, log_r = self._radial(u_first[:, self.roots :], inverse=False)
            angle = azimuth[:, self.roots :]
            azimuth = torch.cat([azimuth[:, : self.roots], r * torch.sin(angle)], dim=-1)
        if self.count > 1:
            azimuth = azimuth @ azimuth.new_tensor(self._phi_sums)
        if self.recoil:
            transverse, azimuth = _balanced(transverse, azimuth)
        limit = self._y_limit(edge, transverse)
        y, log_first = Uniform().forward(u_first[:, : self.roots], -limit, limit)
        if self.parents:
            y = torch.cat([y, r * torch.cos(angle)], dim=-1) @ y.new_tensor(self._y_sums)
            log_first = torch.cat([log_first, log_r - torch.log(r)], dim=-1)
        log_pt = torch.cat([log_density for _, log_density in parts], dim=-1)
        return _momenta(transverse, y, azimuth), self._total(log_pt, log_first, drawn)

    def inverse(self, p: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (n, 3 J), not clamped, and the log-density of the momenta (n, J, 4)."""
        transverse, azimuth = pt(p), phi(p)
        y = torch.asinh(p[..., 3] / transverse.clamp(min=_TINY))
        limit = self._y_limit(edge, transverse)
        if self.recoil:
            transverse, azimuth = _balanced(transverse, azimuth)
        parts = [law.inverse(transverse[:, where], low, edge) for law, low, where in self._pieces]
        u_first, log_first = Uniform().inverse(y[:, : self.roots], -limit, limit)
        turn = torch.cat([azimuth[:, :1], azimuth[:, 1 : self.roots] - azimuth[:, :1]], dim=-1)
        if self.parents:
            dy = y[:, self.roots :] - y[:, self.parents]
            dphi = azimuth[:, self.roots :] - azimuth[:, self.parents]
            dphi = torch.remainder(dphi + math.pi, _TWO_PI) - math.pi
            r = torch.hypot(dy, dphi).clamp(min=_TINY)
            u_r, log_r = self._radial(r, inverse=True)
            u_first = torch.cat([u_first, u_r], dim=-1)
            log_first = torch.cat([log_first, log_r - torch.log(r)], dim=-1)
            turn = torch.cat([turn, torch.atan2(dphi, dy)], dim=-1)
        columns = [u for u, _ in parts] + [u_first, torch.remainder(turn / _TWO_PI, 1.0)]
        log_pt = torch.cat([log_density for _, log_density in parts], dim=-1)
        return torch.cat(columns, dim=-1), self._total(log_pt, log_first, transverse)

    def _radial(self, value: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        radial = self.region.radial
        return (radial.inverse if inverse else radial.forward)(value, self.region.r_min, self.region.r_max)

    def _y_limit(self, edge: Tensor, transverse: Tensor) -> Tensor:
        """Greatest |y| (n, roots): pT cosh(y) <= edge, a necessary condition for x_1, x_2 <= 1."""
        ratio = edge / transverse[:, : self.roots].clamp(min=_TINY)
        return torch.acosh(ratio.clamp(min=1 + 1e-12)).clamp(max=self.region.y_max)

    def _total(self, log_pt: Tensor, log_first: Tensor, transverse: Tensor) -> Tensor:
        log_angles = self.count * math.log(_TWO_PI)
        return (log_pt + log_first - torch.log(transverse.clamp(min=_TINY))).sum(-1) - log_angles


def _check_parents(jets: Sequence[Jet]) -> None:
    """Raise ChannelError unless jets without a parent come first and every parent is an earlier jet."""
    parents = [jet.parent for jet in jets]
    roots = parents.count(None)
    earlier = all(0 <= parent < index for index, parent in enumerate(parents) if parent is not None)
    if not earlier or any(parent is not None for parent in parents[:roots]):
        raise ChannelError(
            f"jets without a parent come first, then jets whose parent is an earlier jet; got the parents {parents}"
        )


def _check_recoil(jets: Sequence[Jet]) -> None:
    """Raise ChannelError unless the last jet alone recoils, or none does."""
    recoiling = [index for index, jet in enumerate(jets) if jet.recoils]
    attached = any(jet.parent is not None for jet in jets)
    if recoiling and (attached or recoiling != [len(jets) - 1]):
        raise ChannelError("only the last jet can recoil, and only where no jet has a parent")


def _check_law(law: IntervalMap, lowest: float) -> None:
    """Raise ChannelError if the density of pT has no finite area from its lowest value on."""
    if lowest == 0 and isinstance(law, PowerLaw) and law.offset == 0 and law.exponent >= 1:
        raise ChannelError("a pT that starts at 0 needs a power law with an offset, such as PowerLaw(2.0, offset=10.0)")


def _lowest(jet: Jet, region: JetRegion) -> float:
    """Least pT of the jet, or of the boson that recoils in its place."""
    return 0.0 if jet.recoils else region.pt_min


def _pieces(jets: Sequence[Jet], region: JetRegion) -> list[tuple[IntervalMap, float, slice]]:
    """Runs of neighbouring jets whose pT is generated alike: map, lowest value and columns."""
    pieces: list[tuple[IntervalMap, float, slice]] = []
    start = 0
    for (law, lowest), run in itertools.groupby((jet.transverse, _lowest(jet, region)) for jet in jets):
        stop = start + len(list(run))
        pieces.append((law, lowest, slice(start, stop)))
        start = stop
    return pieces


def _balanced(transverse: Tensor, azimuth: Tensor) -> tuple[Tensor, Tensor]:
    """pT and azimuths (n, J) with the last one replaced by what balances them all; its own inverse."""
    x, y = transverse * torch.cos(azimuth), transverse * torch.sin(azimuth)
    x, y = -x.sum(-1, keepdim=True), -y.sum(-1, keepdim=True)
    last = torch.hypot(x, y), torch.atan2(y, x)
    return torch.cat([transverse[:, :-1], last[0]], dim=-1), torch.cat([azimuth[:, :-1], last[1]], dim=-1)


def _ancestry(parents: Sequence[int | None]) -> list[list[float]]:
    """Matrix A with A[j][i] = 1 where j is i or one of its ancestors: steps @ A are sums along the lines."""
    count = len(parents)
    matrix = [[0.0] * count for _ in range(count)]
    for i in range(count):
        j: int | None = i
        while j is not None:
            matrix[j][i] = 1.0
            j = parents[j]
    return matrix


def _momenta(transverse: Tensor, y: Tensor, azimuth: Tensor) -> Tensor:
    """Massless momenta (..., 4) from pT, rapidity and azimuth (...)."""
    up = 0.5 * transverse * torch.exp(y)
    down = 0.5 * transverse * torch.exp(-y)
    return torch.stack([up + down, transverse * torch.cos(azimuth), transverse * torch.sin(azimuth), up - down], dim=-1)
