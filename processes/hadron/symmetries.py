"""Symmetries of a collision in the cubes of its channels: rotations about the beams, reflections, exchanges of legs.

What these do to the coordinates of a channel is seen at probes: some turn together about the beams, others
are reflected, turned by half a circle or exchanged. Whether the cross-section stays the same is seen there too.
A wrong answer would cost efficiency alone: densities of flows stay exact.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nisampler.density.maps import Channel, InvertibleChannel, invertible
from nisampler.errors import ConfigError
from nisampler.flows import Action, Symmetry
from nisampler.flows.folding import folded
from nisampler.flows.symmetry import NONE

_PROBES, _FEWEST, _ELEMENTS = 256, 8, 96
_EXACT, _ANGLE = 1e-6, 1.0
# Widths leave a percent of Z + jets odd under reflections: less than what the mirror saves.
_NEARLY, _RARE = 0.03, 0.05

Turn = Callable[[Tensor], Tensor]


def across(p: Tensor) -> Tensor:
    """Momenta (..., 4) reflected at the plane of the beams and the x axis.

    >>> across(torch.tensor([4.0, 1.0, 2.0, 3.0]))
    tensor([ 4.,  1., -2.,  3.])
    """
    return p * p.new_tensor([1.0, 1.0, -1.0, 1.0])


def along(p: Tensor) -> Tensor:
    """Momenta (..., 4) with the two beams exchanged.

    >>> along(torch.tensor([4.0, 1.0, 2.0, 3.0]))
    tensor([ 4.,  1.,  2., -3.])
    """
    return p * p.new_tensor([1.0, 1.0, 1.0, -1.0])


def around(p: Tensor) -> Tensor:
    """Momenta (..., 4) turned about the beams.

    >>> bool(around(torch.tensor([1.0, 1.0, 0.0, 0.0]))[2] > 0.8)
    True
    """
    c, s = math.cos(_ANGLE), math.sin(_ANGLE)
    x, y = p[..., 1], p[..., 2]
    return torch.stack([p[..., 0], c * x - s * y, s * x + c * y, p[..., 3]], -1)


def exchanged(first: int, second: int) -> Turn:
    """Momenta (..., m, 4) with two legs exchanged.

    >>> exchanged(0, 1)(torch.arange(8.0).view(2, 4))[0]
    tensor([4., 5., 6., 7.])
    """

    def turn(p: Tensor) -> Tensor:
        order = list(range(p.shape[-2]))
        order[first], order[second] = second, first
        return p[..., order, :]

    return turn


def symmetries_of_channels(
    channels: Sequence[Channel],
    groups: Sequence[int],
    passes: Turn,
    differential: Turn,
    masses: Sequence[float],
    same_beams: bool,
) -> tuple[Symmetry, ...]:
    """The symmetry of each group of channels: what all channels of the group have in common.

    Parameters
    ----------
    channels
        Maps of the cube to momenta; without an inverse nothing is found.
    groups
        The group of each.
    passes, differential
        Of momenta (n, m, 4): which are inside the cuts (n,), and the cross-section (n,) of those.
    masses
        Of the legs; those of equal mass may be alike.
    same_beams
        Whether the beams may be.

    Examples
    --------
    >>> import nisampler
    >>> for symmetry in nisampler.process("w_plus_jets", n_jets=1).symmetry():
    ...     print(symmetry.turned, [sorted(action.columns()) for action in symmetry.actions])
    (6,) [[2], [1, 3, 5]]
    """
    generator = torch.Generator().manual_seed(0)
    alike = [(i, j) for i, j in itertools.combinations(range(len(masses)), 2) if masses[i] == masses[j]]
    turns: list[Turn] = [around, across, *([along] if same_beams else []), *itertools.starmap(exchanged, alike)]
    probes: list[tuple[InvertibleChannel, Tensor, Tensor]] = []
    for channel in channels:
        if not invertible(channel):
            return ()
        u = torch.rand(_PROBES, channel.dim, generator=generator, dtype=torch.float64)
        p = channel.forward(u)[0]
        inside = passes(p)
        if int(inside.sum()) < _FEWEST:
            return ()
        probes.append((channel, u[inside], p[inside]))
    judges = torch.cat([p[: max(_FEWEST, _ELEMENTS // len(channels))] for _, _, p in probes])
    before = differential(judges)
    kept = [turn for turn in turns if _same(differential, passes, turn(judges), before)]
    free = [_turning(channel, u, p) if around in kept else () for channel, u, p in probes]
    found: dict[int, Symmetry] = {}
    for (channel, u, p), group, turned in zip(probes, groups, free, strict=True):
        own = Symmetry(turned if all(free) else ())
        moved = [own.counted(channel.inverse(turn(p))[0]) for turn in kept if turn is not around]
        seen = [action for value in moved if (action := _action(value, own.counted(u))) is not None and action.rows]
        if group in found:
            both = [action for action in found[group].actions if action in seen]
            own, seen = found[group], both if own.turned == found[group].turned else []
        found[group] = Symmetry(own.turned, tuple(seen))
    return tuple(_foldable(channels[0].dim, found[group]) for group in sorted(found))


def _same(differential: Turn, passes: Turn, turned: Tensor, before: Tensor) -> bool:
    """Whether the cross-section at nearly all momenta (n, m, 4) is nearly what it was (n,) before they were turned."""
    if not bool(passes(turned).all()):
        return False
    after = differential(turned)
    off = (after - before).abs() > _NEARLY * torch.maximum(after, before).abs()
    return float(off.double().mean()) <= _RARE


def _turning(channel: InvertibleChannel, u: Tensor, p: Tensor) -> tuple[int, ...]:
    """The coordinates that a rotation about the beams turns, if it leaves the others as they are."""
    moved = channel.inverse(around(p))[0]
    turned = _distance(moved - u, _ANGLE / (2.0 * math.pi)) < _EXACT
    same = (moved - u).abs().amax(0) < _EXACT
    return tuple(torch.nonzero(turned).squeeze(1).tolist()) if bool((turned | same).all()) else ()


def _distance(a: Tensor, b: Tensor | float) -> Tensor:
    """Largest distance of each column of a and b (n, k) on a circle of circumference one, (k,)."""
    off = torch.remainder(a - b, 1.0)
    return torch.minimum(off, 1.0 - off).amax(0)


def _action(moved: Tensor, u: Tensor) -> Action | None:
    """What brings coordinates u (n, d) to (n, d); None if it is nothing that an action can be."""
    rows: list[tuple[int, int, int, int]] = []
    for column in range(u.shape[1]):
        if float((moved[:, column] - u[:, column]).abs().max()) >= _EXACT:
            row = _row(column, moved[:, column : column + 1], u)
            if row is None:
                return None
            rows.append(row)
    return Action(tuple(rows))


def _row(column: int, moved: Tensor, u: Tensor) -> tuple[int, int, int, int] | None:
    """How a coordinate (n, 1) comes from the others u (n, d); the simplest way first."""
    for halves in (0, 1):
        shifted = moved - 0.5 * halves
        for sign in (-1, 1):
            near = _distance(shifted, sign * u) < _EXACT
            if bool(near[column]) or (bool(near.any()) and not halves):
                source = column if bool(near[column]) else int(near.nonzero()[0])
                return (column, NONE, source, halves) if sign < 0 else (column, source, NONE, halves)
    for plus in range(u.shape[1]):
        near = _distance(moved - u[:, plus : plus + 1], -u) < _EXACT
        if bool(near.any()):
            return column, plus, int(near.nonzero()[0]), 0
    return None


def _foldable(dim: int, symmetry: Symmetry) -> Symmetry:
    """The symmetry without actions that the cube cannot be folded by."""
    kept = Symmetry(symmetry.turned)
    for action in symmetry.actions:
        more = Symmetry(kept.turned, (*kept.actions, action))
        with contextlib.suppress(ConfigError):
            folded(dim, 1, (more,))
            kept = more
    return kept
