"""Channels from a declarative description: momentum fractions and a tree of decays and t-channel exchanges.

A tree is made of legs, given by their index, and of `Cluster`s of two branches. Each cluster below the root
takes its squared mass from a map; its two branches come out isotropically in its rest frame, or, with an
`exchange`, by a momentum transfer from beam 1. A chain of exchanges,
Cluster(A, Cluster(B, C, exchange=m), exchange=m), emits A, then B, from beam 1 towards beam 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nisampler.errors import ChannelError, ShapeError
from nisampler.processes.phase_space.blocks import (
    Exchange,
    FixedEnergy,
    Frame,
    MomentumFractions,
    decay,
    decay_inverse,
)
from nisampler.processes.phase_space.kinematics import mass2
from nisampler.processes.phase_space.mappings import IntervalMap, OnShell, PowerLaw, finish_inverse

TINY = 1e-30
# Squared masses of clusters start at this fraction of their parent's: below it, boosts have no digits left.
FLOOR = 1e-12


@dataclass(frozen=True)
class Cluster:
    """Two branches of a tree, each the index of a leg or another cluster.

    Parameters
    ----------
    left, right
        The branches.
    invariant
        Map of the squared mass; not used at the root, where the momentum fractions give it. One that is `OnShell`
        takes no column of the cube.
    min_mass, max_mass
        Limits on the mass in GeV, beside those of kinematics.
    exchange
        None: isotropic. Else the map of |t| of the left branch with respect to beam 1, at the root, or, in the
        right branch of another exchange, with respect to what is left of beam 1.

    Examples
    --------
    >>> Cluster(0, Cluster(1, 2), exchange=PowerLaw(1.0, offset=400.0)).legs
    (0, 1, 2)
    """

    left: Cluster | int
    right: Cluster | int
    invariant: IntervalMap = field(default=PowerLaw(1.0, offset=1.0))
    min_mass: float = 0.0
    max_mass: float = math.inf
    exchange: IntervalMap | None = None

    @property
    def legs(self) -> tuple[int, ...]:
        """Indices of the legs, from left to right."""
        return tuple(leg for branch in (self.left, self.right) for leg in _legs(branch))


Branch = Cluster | int
Fractions = MomentumFractions | FixedEnergy


def _on_shell(branch: Branch) -> int:
    """How many clusters below a branch have a fixed mass."""
    if isinstance(branch, int):
        return 0
    below = (branch.left, branch.right)
    return sum(_on_shell(part) + (isinstance(part, Cluster) and isinstance(part.invariant, OnShell)) for part in below)


def _legs(branch: Branch) -> tuple[int, ...]:
    return (branch,) if isinstance(branch, int) else branch.legs


@dataclass
class _Columns:
    """Takes the columns of the cube one after the other."""

    u: Tensor
    used: int = 0

    def take(self, count: int) -> Tensor:
        self.used += count
        return self.u[:, self.used - count : self.used]


@dataclass(frozen=True)
class _Node:
    """Where a cluster stands: its squared mass (n,), its momentum (None: at rest), what is left of beam 1."""

    s: Tensor
    total: Tensor | None = None
    beam: Tensor | None = None

    @property
    def frame(self) -> Frame:
        """The rest frame of the cluster."""
        return Frame(self.s.sqrt(), self.total)

    def incoming(self) -> tuple[Tensor, Tensor]:
        """Virtuality (n,) of the incoming leg and its direction (n, 3) in the rest frame; beam 1 at the root."""
        if self.total is None or self.beam is None:
            return torch.zeros_like(self.s), self.s.new_tensor([0.0, 0.0, 1.0]).expand(len(self.s), 3)
        return -mass2(self.beam).clamp(max=0), self.frame.axis(self.beam)

    def remainder(self, cluster: Cluster, emitted: Tensor) -> Tensor | None:
        """What is left of beam 1 after an exchange."""
        if cluster.exchange is None:
            return None
        half, zero = 0.5 * self.s.sqrt(), torch.zeros_like(self.s)
        beam = torch.stack([half, zero, zero, half], dim=-1) if self.beam is None else self.beam
        return beam - emitted


@dataclass
class _Record:
    """Collects what the inverse finds: columns of the cube and the log-density."""

    columns: list[Tensor]
    log_g: Tensor

    def add(self, found: tuple[Tensor, Tensor]) -> None:
        self.columns.append(found[0])
        self.log_g = self.log_g + found[1]


class TopologyChannel:
    r"""A channel that follows a tree: momentum fractions, then invariants and angles or transfers, root first.

    The measure is dx_1 dx_2 d\Phi_m, or d\Phi_m at a `FixedEnergy`.

    Parameters
    ----------
    root
        The tree; each leg appears once.
    masses
        Masses of the legs in GeV, in the order of the legs of the events.
    fractions
        `MomentumFractions` or `FixedEnergy`.
    name
        Name of the channel.

    Raises
    ------
    ChannelError
        If legs are missing or appear twice, an exchange stands where there is no beam, limits contradict each
        other or the energy does not suffice.

    Examples
    --------
    >>> channel = TopologyChannel(Cluster(Cluster(0, 1), 2), (0.0, 0.0, 0.0), MomentumFractions(13000.0, 100.0))
    >>> u = torch.full((1, channel.dim), 0.4, dtype=torch.float64)
    >>> p, log_density = channel.forward(u)
    >>> p.shape, torch.allclose(channel.inverse(p)[0], u)
    (torch.Size([1, 3, 4]), True)
    """

    kind = "torch"

    def __init__(
        self,
        root: Cluster,
        masses: Sequence[float],
        fractions: Fractions,
        name: str | None = None,
    ) -> None:
        self.root, self.masses, self.fractions = root, tuple(float(m) for m in masses), fractions
        self.name = _label(root) if name is None else name
        self.legs = len(self.masses)
        if sorted(root.legs) != list(range(self.legs)) or min(self.masses) < 0:
            raise ChannelError(
                f"channel {self.name}: each of the legs 0..{self.legs - 1} must appear once with a mass >= 0, "
                f"got the legs {root.legs} and the masses {self.masses}"
            )
        self._check(root, has_beam=True)
        least = self.least_mass(root)
        if not (least <= fractions.min_mass and 0 < fractions.min_mass):
            raise ChannelError(
                f"channel {self.name}: the tree needs {least} GeV, but the momentum fractions start at "
                f"{fractions.min_mass} GeV; raise its min_mass"
            )
        self.dim = 3 * self.legs - 4 + fractions.dim - _on_shell(root)

    def __repr__(self) -> str:
        return f"TopologyChannel({self.name!r})"

    def _check(self, cluster: Cluster, has_beam: bool) -> None:
        if cluster.exchange is not None and not has_beam:
            raise ChannelError(
                f"channel {self.name}: the exchange in {_label(cluster)} has no beam; only the root and the right "
                "branch of an exchange have one"
            )
        if not self.least_mass(cluster) < cluster.max_mass:
            raise ChannelError(f"channel {self.name}: {_label(cluster)} has no mass below {cluster.max_mass} GeV")
        if isinstance(cluster.left, Cluster):
            self._check(cluster.left, has_beam=False)
        if isinstance(cluster.right, Cluster):
            self._check(cluster.right, has_beam=cluster.exchange is not None)

    def least_mass(self, branch: Branch) -> float:
        """The least mass of a branch in GeV."""
        if isinstance(branch, int):
            return self.masses[branch]
        return max(branch.min_mass, self.least_mass(branch.left) + self.least_mass(branch.right))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Momenta (n, m, 4) in GeV and log(du / d\mu) (n,) of the cube points u (n, dim).

        Raises
        ------
        ShapeError
            If u is not of shape (n, dim).
        """
        if u.ndim != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"channel {self.name} takes points of shape (n, {self.dim}), got {tuple(u.shape)}")
        columns = _Columns(u)
        s, y, log_g = self.fractions.forward(columns.take(self.fractions.dim))
        found: dict[int, Tensor] = {}
        log_g = log_g + self._forward(self.root, _Node(s), columns, found)
        momenta = torch.stack([found[i] for i in range(self.legs)], dim=1)
        return (_boost_z(momenta, y) if self.fractions.dim else momenta), log_g

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Cube points (n, dim) and log(du / d\mu) (n,), -inf outside the support, of momenta (n, m, 4).

        Raises
        ------
        ShapeError
            If x is not of shape (n, m, 4).
        """
        if x.ndim != 3 or x.shape[1:] != (self.legs, 4):
            raise ShapeError(f"channel {self.name} takes momenta (n, {self.legs}, 4), got {tuple(x.shape)}")
        total = x.sum(1)
        plus, minus = (total[:, 0] + total[:, 3]).clamp(min=TINY), (total[:, 0] - total[:, 3]).clamp(min=TINY)
        s, y = plus * minus, 0.5 * torch.log(plus / minus)
        record = _Record([], torch.zeros_like(s))
        record.add(self.fractions.inverse(s, y))
        momenta = _boost_z(x, -y) if self.fractions.dim else x
        self._inverse(self.root, _Node(s), momenta, record)
        return finish_inverse(record.columns, record.log_g)

    def _interval(self, branch: Cluster, s: Tensor, other: Tensor | float) -> tuple[Tensor, Tensor]:
        """Limits of the squared mass of a branch of a cluster (s), whose other branch has at least the mass `other`."""
        low = (FLOOR * s).clamp(min=self.least_mass(branch) ** 2)
        high = (s.sqrt() - other).clamp(min=0).square().clamp(max=branch.max_mass**2)
        return low, torch.maximum(low, high)

    def _forward(self, cluster: Cluster, node: _Node, columns: _Columns, found: dict[int, Tensor]) -> Tensor:
        """Fill `found` with the legs of a cluster; return its log g."""
        s = node.s
        log_g = torch.zeros_like(s)
        masses2: list[Tensor] = []
        other: Tensor | float = self.least_mass(cluster.right)
        for branch in (cluster.left, cluster.right):
            if isinstance(branch, Cluster):
                u = s if isinstance(branch.invariant, OnShell) else columns.take(1).squeeze(-1)
                mass_squared, log_density = branch.invariant.forward(u, *self._interval(branch, s, other))
                log_g = log_g + log_density + math.log(2 * math.pi)
            else:
                mass_squared = torch.full_like(s, self.masses[branch] ** 2)
            masses2.append(mass_squared)
            other = mass_squared.sqrt()
        u = columns.take(2)
        if cluster.exchange is None:
            p1, log_split = decay(u, s, masses2[0], masses2[1])
        else:
            p1, log_split = Exchange(cluster.exchange).forward(u, s, (masses2[0], masses2[1]), *node.incoming())
        energy = (p1[:, 1:].square().sum(-1) + masses2[1]).sqrt()
        rest = torch.cat([energy.unsqueeze(-1), -p1[:, 1:]], dim=-1)
        left, right = node.frame.from_rest(p1), node.frame.from_rest(rest)
        log_g = log_g + log_split
        nodes = _Node(masses2[0], left), _Node(masses2[1], right, node.remainder(cluster, left))
        for branch, below in zip((cluster.left, cluster.right), nodes, strict=True):
            if isinstance(branch, Cluster):
                log_g = log_g + self._forward(branch, below, columns, found)
            elif below.total is not None:
                found[branch] = below.total
        return log_g

    def _inverse(self, cluster: Cluster, node: _Node, momenta: Tensor, record: _Record) -> None:
        """Append the columns of a cluster to the record, in the order of `_forward`."""
        s = node.s
        masses2: list[Tensor] = []
        sums: list[Tensor] = []
        other: Tensor | float = self.least_mass(cluster.right)
        for branch in (cluster.left, cluster.right):
            if isinstance(branch, Cluster):
                sums.append(momenta[:, branch.legs].sum(1))
                mass_squared = mass2(sums[-1]).clamp(min=TINY)
                u, log_density = branch.invariant.inverse(mass_squared, *self._interval(branch, s, other))
                column = u.unsqueeze(-1)[:, : 0 if isinstance(branch.invariant, OnShell) else 1]
                record.add((column, log_density + math.log(2 * math.pi)))
            else:
                sums.append(momenta[:, branch])
                mass_squared = torch.full_like(s, self.masses[branch] ** 2)
            masses2.append(mass_squared)
            other = mass_squared.sqrt()
        p1 = node.frame.to_rest(sums[0])
        if cluster.exchange is None:
            record.add(decay_inverse(p1, s, masses2[0], masses2[1]))
        else:
            exchange = Exchange(cluster.exchange)
            record.add(exchange.inverse(p1, s, (masses2[0], masses2[1]), *node.incoming()))
        nodes = _Node(masses2[0], sums[0]), _Node(masses2[1], sums[1], node.remainder(cluster, sums[0]))
        for branch, below in zip((cluster.left, cluster.right), nodes, strict=True):
            if isinstance(branch, Cluster):
                self._inverse(branch, below, momenta, record)


def _boost_z(p: Tensor, y: Tensor) -> Tensor:
    """Momenta (n, m, 4) boosted along z by the rapidity (n,)."""
    factor = torch.exp(y).unsqueeze(-1)
    up, down = 0.5 * (p[..., 0] + p[..., 3]) * factor, 0.5 * (p[..., 0] - p[..., 3]) / factor
    return torch.stack([up + down, p[..., 1], p[..., 2], up - down], dim=-1)


def _label(branch: Branch) -> str:
    if isinstance(branch, int):
        return str(branch)
    return f"({_label(branch.left)}{' ' if branch.exchange is None else '|'}{_label(branch.right)})"
