"""The densities of many topology channels at a point, or products of their propagators, from its invariants alone.

The density of a channel is a product over the clusters of its tree, and each factor depends on a few invariants:
squared masses of sets of legs, and squared momentum transfers from beam 1 to such sets. Trees of one process have most
of their clusters in common. Each factor is worked out once, without a boost, and those of one kind in one go.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nisampler.errors import ChannelError, ConfigError, ShapeError
from nisampler.processes.phase_space.blocks import Exchange, MomentumFractions, sqrt_kallen
from nisampler.processes.phase_space.mappings import SUPPORT_TOLERANCE, BreitWigner, IntervalMap, PowerLaw
from nisampler.processes.phase_space.topology import FLOOR, TINY, Branch, Cluster, Fractions, TopologyChannel


class _Trees:
    """Sums of logs of factors for each of several trees of the same legs."""

    def __init__(
        self, channels: Sequence[TopologyChannel], factors: Callable[[TopologyChannel], list[_Factor]]
    ) -> None:
        if not channels or any(channel.masses != channels[0].masses for channel in channels):
            raise ChannelError("channels whose densities are worked out together have the same legs and masses")
        self.masses, self.legs = channels[0].masses, channels[0].legs
        each = [factors(channel) for channel in channels]
        kinds: dict[object, list[_Factor]] = {}
        for factor in dict.fromkeys(itertools.chain.from_iterable(each)):
            kinds.setdefault((type(factor), factor.shape), []).append(factor)
        self._kinds = tuple(tuple(kind) for kind in kinds.values())
        number = {factor: place for place, factor in enumerate(itertools.chain.from_iterable(self._kinds))}
        most = max(map(len, each))
        # The row after the last one is zero, for trees with fewer factors.
        self._rows = [
            [number[own[place]] if place < len(own) else len(number) for own in each] for place in range(most)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        r"""Logs (n, K) for every channel, -inf outside its support, at momenta (n, m, 4).

        Raises
        ------
        ShapeError
            If x is not of shape (n, m, 4).
        """
        if x.ndim != 3 or x.shape[1:] != (self.legs, 4):
            raise ShapeError(f"these channels take momenta (n, {self.legs}, 4), got {tuple(x.shape)}")
        found = _Invariants.of(x, self.masses)
        table = torch.cat([*(kind[0].logs(kind, found) for kind in self._kinds), x.new_zeros(1, len(x))])
        logs = table[self._rows[0]]
        for rows in self._rows[1:]:
            logs += table[rows]
        return logs.t()


class TopologyDensities(_Trees):
    r"""log(du / d\mu) of topology channels, which their inverses give, too.

    Parameters
    ----------
    channels
        Trees of the same legs.

    Raises
    ------
    ChannelError
        If there is none, or their legs have different masses.

    Examples
    --------
    >>> from nisampler.processes.phase_space.blocks import MomentumFractions
    >>> fractions = MomentumFractions(13000.0, 100.0)
    >>> trees = [Cluster(Cluster(0, 1), 2), Cluster(Cluster(1, 2), 0)]
    >>> channels = [TopologyChannel(tree, (0.0, 0.0, 0.0), fractions) for tree in trees]
    >>> p, own = channels[0].forward(torch.full((1, 7), 0.4, dtype=torch.float64))
    >>> torch.allclose(TopologyDensities(channels)(p)[:, 0], own)
    True
    """

    def __init__(self, channels: Sequence[TopologyChannel]) -> None:
        super().__init__(channels, lambda channel: [_Energy(channel.fractions), *_factors(channel, channel.root)])


class TopologyPropagators(_Trees):
    r"""Weights of topology channels as MadGraph has them: log of the product of 1/|D|² over the propagators of a tree.

    D is s - m² + i m Γ for a Breit-Wigner, and s or |t| plus the offset for a power law (hep-ph/0208156, section 2;
    2602.06895, equation 2.7). Where a grid or a flow adapts the maps of the channels, these weights do about as well as
    the densities; bare maps want their densities.

    Parameters
    ----------
    channels
        Trees of the same legs.

    Raises
    ------
    ChannelError
        As for `TopologyDensities`.

    Examples
    --------
    >>> from nisampler.processes.phase_space.blocks import MomentumFractions
    >>> trees = [Cluster(Cluster(0, 1), 2), Cluster(Cluster(1, 2), 0)]
    >>> channels = [TopologyChannel(tree, (0.0, 0.0, 0.0), MomentumFractions(13000.0, 100.0)) for tree in trees]
    >>> p, _ = channels[0].forward(torch.full((1, 7), 0.4, dtype=torch.float64))
    >>> logs = TopologyPropagators(channels)(p)
    >>> ratio = ((p[:, 1] + p[:, 2])[:, 0] ** 2 - ((p[:, 1] + p[:, 2])[:, 1:] ** 2).sum(1) + 1) ** 2
    >>> ratio /= ((p[:, 0] + p[:, 1])[:, 0] ** 2 - ((p[:, 0] + p[:, 1])[:, 1:] ** 2).sum(1) + 1) ** 2
    >>> torch.allclose((logs[:, 0] - logs[:, 1]).exp(), ratio)
    True
    """

    def __init__(self, channels: Sequence[TopologyChannel]) -> None:
        super().__init__(channels, _propagators)


def propagator_weights(channels: Sequence[object]) -> TopologyPropagators:
    """Weights from the propagators of channels.

    Raises
    ------
    ConfigError
        If one is no topology channel.

    Examples
    --------
    >>> propagator_weights([None])
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: channel_weights = "propagators" needs channels = "topology", whose trees have some
    """
    trees = [channel for channel in channels if isinstance(channel, TopologyChannel)]
    if len(trees) < len(channels):
        raise ConfigError('channel_weights = "propagators" needs channels = "topology", whose trees have some')
    return TopologyPropagators(trees)


def joint_densities(channels: Sequence[object]) -> TopologyDensities | None:
    """The densities of several channels at once, None where one is no topology channel.

    >>> joint_densities([]) is None
    True
    """
    trees = [channel for channel in channels if isinstance(channel, TopologyChannel)]
    return TopologyDensities(trees) if trees and len(trees) == len(channels) else None


@dataclass(frozen=True)
class _Invariants:
    """Of all sets of legs, which are numbers with a bit for each leg: squared masses and transfers (sets, n) in GeV².

    A transfer is |t| between beam 1 and the set. `plus` and `minus` (n,) are the sums of E + pz and E - pz.
    """

    s: Tensor
    transfer: Tensor
    plus: Tensor
    minus: Tensor

    @classmethod
    def of(cls, x: Tensor, masses: Sequence[float]) -> _Invariants:
        """Those of momenta (n, m, 4). Products of E + pz and E - pz do not change with a boost along the beams."""
        legs = torch.stack([x[..., 0] + x[..., 3], x[..., 0] - x[..., 3], x[..., 1], x[..., 2]]).permute(0, 2, 1)
        sums = x.new_zeros(4, 1, len(x))
        for leg in range(len(masses)):
            sums = torch.cat([sums, sums + legs[:, leg : leg + 1]], 1)
        s = (sums[0] * sums[1] - sums[2].square() - sums[3].square()).clamp(min=TINY)
        for leg, mass in enumerate(masses):
            s[1 << leg] = mass**2
        plus, minus = sums[0, -1].clamp(min=TINY), sums[1, -1].clamp(min=TINY)
        return cls(s, (plus * sums[1] - s).clamp(min=0), plus, minus)


class _Factor(Protocol):
    """A factor of the density of a tree."""

    @property
    def shape(self) -> object:
        """What draws its variable."""

    @staticmethod
    def logs(kind: Sequence[Any], found: _Invariants) -> Tensor:
        """Logs (factors, n) of factors of one kind, which have their shape in common; -inf outside the support."""


@dataclass(frozen=True)
class _Energy:
    """The momentum fractions."""

    shape: Fractions

    @staticmethod
    def logs(kind: Sequence[_Energy], found: _Invariants) -> Tensor:
        """As `_Factor` says."""
        s, y = found.plus * found.minus, 0.5 * torch.log(found.plus / found.minus)
        columns, log_density = kind[0].shape.inverse(s, y)
        return _inside(log_density, *columns.unbind(1)).unsqueeze(0)


@dataclass(frozen=True)
class _Mass:
    """The squared mass of a branch, from its map between the least and the most that its cluster leaves it.

    The other branch has the mass of the legs `beside`, or where that is chosen later, at least `least_beside`.
    """

    shape: IntervalMap
    legs: int
    parent: int
    beside: int
    least_beside: float
    least: float
    most: float

    @staticmethod
    def logs(kind: Sequence[_Mass], found: _Invariants) -> Tensor:
        """As `_Factor` says."""
        s, parent, beside = (found.s[[getattr(item, name) for item in kind]] for name in ("legs", "parent", "beside"))
        least_beside, least, most = (
            s.new_tensor([[getattr(item, name)] for item in kind]) for name in ("least_beside", "least", "most")
        )
        other = torch.where(s.new_tensor([[item.beside] for item in kind]) > 0, beside.sqrt(), least_beside)
        low = torch.maximum(FLOOR * parent, least.square())
        high = torch.minimum((parent.sqrt() - other).clamp(min=0).square(), most.square())
        u, log_density = kind[0].shape.inverse(s, low, torch.maximum(low, high))
        return _inside(log_density + math.log(2 * math.pi), u)


@dataclass(frozen=True)
class _Split:
    """Two branches of a cluster: isotropic, or by a transfer; `before` are the legs between beam 1 and the cluster."""

    shape: IntervalMap | None
    left: int
    right: int
    before: int

    @staticmethod
    def logs(kind: Sequence[_Split], found: _Invariants) -> Tensor:
        """As `_Factor` says."""
        s1, s2 = (found.s[[getattr(item, name) for item in kind]] for name in ("left", "right"))
        s = found.s[[item.left | item.right for item in kind]]
        shape = kind[0].shape
        if shape is None:
            return torch.log(8 * math.pi * s / sqrt_kallen(s, s1, s2))
        virtuality = found.transfer[[item.before for item in kind]]
        t = found.transfer[[item.before | item.left for item in kind]]
        return Exchange(shape).log_density(t, s, (s1, s2), virtuality)


@dataclass(frozen=True)
class _Propagator:
    """1/|D|² of the squared mass of some legs, or of the transfer between beam 1 and them."""

    shape: IntervalMap
    transfer: bool
    legs: int
    least: float
    most: float

    @staticmethod
    def logs(kind: Sequence[_Propagator], found: _Invariants) -> Tensor:
        """As `_Factor` says."""
        shape = kind[0].shape
        s, t = (values[[item.legs for item in kind]] for values in (found.s, found.transfer))
        of_transfer = torch.tensor([[item.transfer] for item in kind], device=s.device)
        v = torch.where(of_transfer, t, s)
        least, most = (v.new_tensor([[getattr(item, name)] for item in kind]).square() for name in ("least", "most"))
        if isinstance(shape, BreitWigner):
            logs = -torch.log((v - shape.mass**2).square() + (shape.mass * shape.width) ** 2)
        else:
            offset = shape.offset if isinstance(shape, PowerLaw) else 0.0
            logs = -2 * torch.log((v + offset).clamp(min=TINY))
        inside = (v >= least * (1 - SUPPORT_TOLERANCE)) & (v <= most * (1 + SUPPORT_TOLERANCE))
        return torch.where(inside, logs, -math.inf)


def _inside(log_density: Tensor, *columns: Tensor) -> Tensor:
    """The density with -inf where a column is outside the cube, as `finish_inverse` does it."""
    inside = torch.isfinite(log_density)
    for u in columns:
        inside = inside & ((u - 0.5).abs() < 0.5 + SUPPORT_TOLERANCE)
    return torch.where(inside, log_density, -math.inf)


def _factors(channel: TopologyChannel, cluster: Cluster, before: int = 0) -> Iterator[_Factor]:
    """The factors of a cluster and of all below it, in any order."""
    left, right, parent = _bits(cluster.left), _bits(cluster.right), _bits(cluster)
    yield _Split(cluster.exchange, left, right, before if cluster.exchange is not None else 0)
    beside, least_beside = 0, channel.least_mass(cluster.right)
    for branch, legs, passed in ((cluster.left, left, 0), (cluster.right, right, before | left)):
        if isinstance(branch, Cluster):
            limits = channel.least_mass(branch), branch.max_mass
            yield _Mass(branch.invariant, legs, parent, beside, least_beside, *limits)
            yield from _factors(channel, branch, passed if cluster.exchange is not None else 0)
        beside, least_beside = left, 0.0


def _propagators(channel: TopologyChannel) -> list[_Factor]:
    """Those of a tree, with the energy of the partons."""
    fractions, found = channel.fractions, list[_Factor]()
    if isinstance(fractions, MomentumFractions):
        limits = fractions.min_mass, fractions.max_mass
        found.append(_Propagator(fractions.invariant, False, _bits(channel.root), *limits))
    for factor in _factors(channel, channel.root):
        if isinstance(factor, _Mass):
            found.append(_Propagator(factor.shape, False, factor.legs, factor.least, factor.most))
        elif isinstance(factor, _Split) and factor.shape is not None:
            found.append(_Propagator(factor.shape, True, factor.before | factor.left, 0.0, math.inf))
    return found


def _bits(branch: Branch) -> int:
    return 1 << branch if isinstance(branch, int) else sum(1 << leg for leg in branch.legs)
