"""Phase-space channels that follow the diagrams of a process, the few that matter chosen by a survey.

Each diagram is a topology channel: momentum fractions, masses of what decays by a Breit-Wigner or a power law, momentum
transfers of what is exchanged by a power law from its mass on. Diagrams with equal maps are one channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import torch

from nisampler.density.channels import Multichannel
from nisampler.errors import ChannelError
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.constants import W_BOSON, Z_BOSON
from nisampler.processes.hadron.cuts import Condition, Cuts
from nisampler.processes.hadron.cuts.kinds import require
from nisampler.processes.phase_space import (
    BreitWigner,
    FixedEnergy,
    IntervalMap,
    MomentumFractions,
    OnShell,
    PowerLaw,
    TopologyChannel,
)
from nisampler.processes.phase_space.topology import Branch as Tree
from nisampler.processes.phase_space.topology import Cluster, Fractions
from nisampler.processes.standard_model.diagrams import Branch, Diagram, Splitting

MOST = 24
"""Channels that are kept."""
_POINTS, _SHARE = 64, 0.9995
_MASSIVE = (W_BOSON, Z_BOSON)


@dataclass(frozen=True)
class Region:
    """What channels need to know of the cuts.

    Attributes
    ----------
    sqrt_s
        Energy of the collision in GeV.
    masses
        Of the final legs, in GeV.
    pt_min
        Least transverse momentum of each leg in GeV, 0 where nothing is asked for.
    mass_min, mass_max
        Limits of the masses of sets of legs in GeV.
    fixed
        Whether each collision has the energy `sqrt_s`.
    least
        Least energy of the partons in GeV that is asked for besides.
    on_shell
        Sets of legs that come from a particle on its mass shell.

    Examples
    --------
    >>> round(Region(13000.0, (0.0, 0.0), (20.0, 20.0), {(0, 1): 50.0}).least_energy, 6)
    50.0
    """

    sqrt_s: float
    masses: tuple[float, ...]
    pt_min: tuple[float, ...]
    mass_min: dict[tuple[int, ...], float]
    mass_max: dict[tuple[int, ...], float] = field(default_factory=dict)
    fixed: bool = False
    least: float = 0.0
    on_shell: frozenset[tuple[int, ...]] = frozenset()

    @classmethod
    def of(
        cls,
        cuts: Cuts,
        masses: tuple[float, ...],
        fixed: bool = False,
        resonances: Mapping[tuple[int, ...], tuple[float, float]] = MappingProxyType({}),
    ) -> Region:
        """The region that cuts leave, and masses of particles that decay: a window for the legs of each, in order.

        Raises
        ------
        ConfigError
            If nothing is left.

        >>> from nisampler.processes.hadron.cuts import MassCut, TransverseMomentumCut
        >>> Region.of(Cuts([TransverseMomentumCut((0, 1), 50.0), MassCut((0, 1), 0.0, 80.0)], 13000.0), (80.4, 0.0))
        Traceback (most recent call last):
        ...
        nisampler.errors.ConfigError: contradictory cuts: legs (0, 1) have a mass of at least 144.679 ... not below 80.0
        """
        windows = cuts.mass_windows()
        for legs, (low, high) in resonances.items():
            lowest, highest = windows.get(legs, (0.0, math.inf))
            windows[legs] = max(low, lowest), min(high, highest)
        least: dict[tuple[int, ...], float] = {
            pair: cuts.pair_mass(*pair) for pair in itertools.combinations(range(len(masses)), 2)
        }
        for legs, (low, _) in windows.items():
            least[legs] = max(low, least.get(legs, 0.0))
        found = cls(
            sqrt_s=cuts.sqrt_s,
            masses=masses,
            pt_min=tuple(map(cuts.pt_minimum, range(len(masses)))),
            mass_min={legs: low for legs, low in least.items() if low > 0},
            mass_max={legs: high for legs, (_, high) in windows.items() if high < math.inf},
            fixed=fixed,
            least=cuts.least_energy,
            on_shell=frozenset(legs for legs, (low, high) in resonances.items() if low == high),
        )
        low = found.least_energy
        require(low < cuts.sqrt_s, f"the final state has at least {low:.6g} GeV, sqrt_s is {cuts.sqrt_s} GeV")
        for cut in cuts.cuts:
            if isinstance(cut, Condition) and cut.quantity == "ht":
                low = sum(map(cuts.pt_minimum, cut.legs))
                require(low < cut.high, f"{cut} leaves nothing: pT add up to {low:.6g} GeV")
        everything = tuple(range(len(masses)))
        for legs, high in found.mass_max.items():
            low = found.least_energy if legs == everything else found.least_mass(legs)
            enough = low <= high if legs in found.on_shell else low < high
            require(enough, f"legs {legs} have a mass of at least {low:.6g} GeV, not below {high}")
        return found

    @cached_property
    def least_energy(self) -> float:
        """Least energy of the partons in GeV: transverse masses add up, and so do masses of parts of the legs."""
        transverse = sum(math.hypot(m, pt) for m, pt in zip(self.masses, self.pt_min, strict=True))
        # The channels add up masses in their own order: the last digit is theirs.
        return (1 + 1e-12) * max(transverse, self.least_mass(range(len(self.masses))), self.least, 1.0)

    def least_mass(self, legs: Iterable[int]) -> float:
        """Least mass of some legs in GeV: that of a pair, or the largest sum over two parts."""
        return self._least(frozenset(legs))

    def most_mass(self, legs: Iterable[int]) -> float:
        """Largest mass of some legs in GeV that cuts on just them allow."""
        return self.mass_max.get(tuple(sorted(legs)), math.inf)

    def _least(self, legs: frozenset[int]) -> float:
        if legs not in self._known:
            if len(legs) == 1:
                found = self.masses[min(legs)]
            else:
                first = min(legs)
                rest = sorted(legs - {first})
                parts = (
                    frozenset({first, *chosen})
                    for size in range(len(rest))
                    for chosen in itertools.combinations(rest, size)
                )
                found = max(self._least(part) + self._least(legs - part) for part in parts)
                found = max(found, self.mass_min.get(tuple(sorted(legs)), 0.0))
            self._known[legs] = found
        return self._known[legs]

    @cached_property
    def _known(self) -> dict[frozenset[int], float]:
        return {}

    @property
    def scale(self) -> float:
        """A transverse momentum in GeV below which nothing is resolved."""
        return max([pt for pt in self.pt_min if pt > 0], default=20.0)


def _invariant(code: int, couplings: Couplings, region: Region) -> IntervalMap:
    """Map of the squared mass of what decays."""
    mass, width = couplings.mass(code), couplings.width(code)
    if mass and width:
        return BreitWigner(mass, width)
    return PowerLaw(1.0, offset=0.1 * region.scale**2)


def _exchange(code: int, couplings: Couplings, region: Region) -> IntervalMap:
    """Map of the squared momentum transfer: of the propagator of a massive boson, flatter for all others."""
    if abs(code) in _MASSIVE:
        return PowerLaw(2.0, offset=2 * couplings.mass(code) ** 2)
    return PowerLaw(1.3, offset=2 * (couplings.mass(code) or region.scale) ** 2)


def _tree(branch: Branch, couplings: Couplings, region: Region) -> Tree:
    if isinstance(branch, int):
        return branch
    left, right = (_tree(part, couplings, region) for part in (branch.left, branch.right))
    low, high = region.least_mass(branch.legs), region.most_mass(branch.legs)
    if tuple(sorted(branch.legs)) in region.on_shell:
        return Cluster(left, right, OnShell(couplings.mass(branch.code), couplings.width(branch.code)), low)
    return Cluster(left, right, _invariant(branch.code, couplings, region), low, high)


def _root(diagram: Diagram, couplings: Couplings, region: Region) -> Cluster | None:
    """The whole tree: a decay of everything, or a chain of exchanges; None for a single particle."""
    *first, last = (_tree(branch, couplings, region) for branch in diagram.emitted)
    root: Tree = last
    for branch, code in zip(reversed(first), reversed(diagram.exchanged), strict=True):
        exchange = _exchange(code, couplings, region)
        # What is left when one is emitted is uniform in its mass, which cuts and thresholds keep from being low.
        root = Cluster(branch, root, PowerLaw(0.5), exchange=exchange)
    if isinstance(root, int):
        return None
    # Its mass is that of the partons: what it decays from is a matter of their energy alone.
    return Cluster(root.left, root.right, min_mass=root.min_mass, exchange=root.exchange)


def _fractions(diagram: Diagram, couplings: Couplings, region: Region) -> Fractions:
    """The squared energy of the partons: fixed, a resonance where everything comes from one, else a power law."""
    if region.fixed:
        return FixedEnergy(region.sqrt_s)
    most = region.most_mass(range(len(region.masses)))
    return MomentumFractions(region.sqrt_s, region.least_energy, _energy(diagram, couplings), most)


def _energy(diagram: Diagram, couplings: Couplings) -> IntervalMap:
    """Scattering of two massive bosons asks for more energy than all else."""
    if len(diagram.emitted) == 1 and isinstance(whole := diagram.emitted[0], Splitting):
        mass, width = couplings.mass(whole.code), couplings.width(whole.code)
        if mass and width:
            return BreitWigner(mass, width)
    return PowerLaw(1.25 if sum(abs(code) in _MASSIVE for code in diagram.exchanged) > 1 else 1.5)


def diagram_channels(
    found: Iterable[Diagram], couplings: Couplings, region: Region, jets: Sequence[int]
) -> tuple[list[TopologyChannel], list[int]]:
    """A channel for each set of maps that diagrams have, and groups of those that differ by the order of jets only.

    >>> from nisampler.processes.parameters import StandardModel
    >>> region = Region(13000.0, (173.0, 173.0), (0.0, 0.0), {})
    >>> gluons = [Diagram((Splitting(21, 0, 1),), ()), Diagram((0, 1), (6,)), Diagram((1, 0), (-6,))]
    >>> channels, groups = diagram_channels(gluons, Couplings(StandardModel()), region, jets=())
    >>> [channel.name for channel in channels], groups
    (['(0 1)', '(0|1)', '(1|0)'], [0, 1, 2])
    """
    channels: dict[str, TopologyChannel] = {}
    shapes: dict[str, str] = {}
    for diagram in found:
        root, fractions = _root(diagram, couplings, region), _fractions(diagram, couplings, region)
        if root is None:
            continue
        key = repr((_ordered(root), fractions))
        if key not in channels:
            channels[key] = TopologyChannel(root, region.masses, fractions)
            shapes[key] = repr((_ordered(root, tuple(jets)), fractions))
    numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes.values()))}
    return list(channels.values()), [numbers[shapes[key]] for key in channels]


def plain_channel(region: Region) -> TopologyChannel:
    """Legs one after the other from a system of all of them: a channel that fits everything and nothing well.

    >>> plain_channel(Region(13000.0, (0.0, 0.0, 0.0), (20.0, 20.0, 0.0), {})).name
    '(0 (1 2))'
    """
    root: Tree = len(region.masses) - 1
    law = PowerLaw(1.0, offset=0.1 * region.scale**2)
    for leg in reversed(range(len(region.masses) - 1)):
        root = Cluster(leg, root, law, min_mass=region.least_mass(range(leg, len(region.masses))))
    energy = MomentumFractions(region.sqrt_s, region.least_energy, PowerLaw(1.5))
    if not isinstance(root, Cluster):
        raise ChannelError("a channel needs two legs")
    return TopologyChannel(root, region.masses, FixedEnergy(region.sqrt_s) if region.fixed else energy)


def _ordered(branch: Tree, alike: tuple[int, ...] = ()) -> object:
    """A description in which decays do not know left from right, and legs that are alike have one name."""
    if isinstance(branch, int):
        return "jet" if branch in alike else branch
    parts = [_ordered(part, alike) for part in (branch.left, branch.right)]
    if branch.exchange is None:
        parts.sort(key=repr)
    return parts, branch.invariant, branch.exchange


def chosen(
    multichannel: Multichannel, groups: Sequence[int], generator: torch.Generator, most: int = MOST
) -> list[int]:
    """Channels that together carry nearly all of the cross-section, whole groups at a time, at most about `most`.

    Points are drawn from every channel; channel i carries the integral of alpha_i f, alpha_i its share of the density.

    Parameters
    ----------
    multichannel
        All candidates.
    groups
        The group of each.
    generator
        Draws the points.
    most
        How many to keep.

    Examples
    --------
    See `nisampler.processes.standard_model.process`.

    >>> MOST
    24
    """
    count = len(multichannel.channels)
    u = torch.rand(_POINTS * count, multichannel.dim, generator=generator, dtype=torch.float64)
    if count > 1:
        u[:, 0] = (torch.arange(len(u), dtype=torch.float64) + 0.5) / len(u)
    found = multichannel.evaluate(u)
    alpha = found.log_prior.exp()
    own = alpha.gather(1, found.channel.unsqueeze(1))
    carried = (found.value.abs().unsqueeze(1) * own * alpha).sum(0)
    by_group: dict[int, float] = {}
    for group, share in zip(groups, carried.tolist(), strict=True):
        by_group[group] = by_group.get(group, 0.0) + share
    total = sum(by_group.values())
    kept: list[int] = []
    reached = 0.0
    for group in sorted(by_group, key=lambda g: -by_group[g]):
        members = [channel for channel, own in enumerate(groups) if own == group]
        if kept and (reached > _SHARE * total or len(kept) + len(members) > most):
            continue
        kept += members
        reached += by_group[group]
    return sorted(kept)
