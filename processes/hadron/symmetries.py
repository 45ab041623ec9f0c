"""Symmetries of a collision in the cube of its channels: rotations about the beams, reflections across and along them.

What a rotation or reflection of the momenta does to the coordinates of a channel is seen at probes: coordinates that
only turn about the beams are flat, and others may go over into 1 - u together. Whether cuts, scales and matrix elements
stay the same is seen there too. A wrong answer would cost efficiency alone: densities of flows stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nisampler.density.maps import Channel, invertible
from nisampler.flows import Symmetry

_PROBES, _FEWEST, _ELEMENTS = 256, 8, 16
_EXACT, _ANGLE = 1e-6, 1.0
# Widths leave a percent of Z + jets odd under reflections: less than what the mirror saves.
_NEARLY = 0.03

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


def symmetry_of_channels(
    channels: Sequence[Channel],
    passes: Turn,
    constant: Callable[[Tensor], Sequence[Tensor]],
    squared: Turn,
    same_beams: bool,
) -> Symmetry:
    """Mirrors and flat coordinates that all channels share.

    Parameters
    ----------
    channels
        Maps of the cube to momenta; without an inverse nothing is found.
    passes, constant, squared
        Of momenta (n, m, 4): which are inside the cuts (n,), what a turn must leave as it is, such as scales, and
        squared matrix elements (n, k).
    same_beams
        Whether the beams may be exchanged.

    Examples
    --------
    >>> import nisampler
    >>> nisampler.process("w_plus_jets", n_jets=1).symmetry()
    Symmetry(mirrors=((2, 6), (1, 3, 5)), flat=(6,))
    """
    generator = torch.Generator().manual_seed(0)
    acts: dict[Turn, set[tuple[str, ...] | None]] = {across: set(), along: set(), around: set()}
    kept = dict.fromkeys(acts, True)
    for channel in channels:
        if not invertible(channel):
            return Symmetry()
        u = torch.rand(_PROBES, channel.dim, generator=generator, dtype=torch.float64)
        p = channel.forward(u)[0]
        inside = passes(p)
        if int(inside.sum()) < _FEWEST:
            return Symmetry()
        for turn, found in acts.items():
            kept[turn] &= torch.equal(passes(turn(p)), inside)
            found.add(_action(channel.inverse(turn(p[inside]))[0] - u[inside], u[inside]))
        _judge(p[inside][:_ELEMENTS], kept, constant, squared)
    kept[along] &= kept[across] and same_beams
    whole = {turn: next(iter(found)) for turn, found in acts.items() if kept[turn] and len(found) == 1}
    turned = whole.get(around) or ()
    flat = tuple(k for k, act in enumerate(turned) if act == "turned")
    mirrors = [whole[turn] for turn in (across, along) if whole.get(turn)]
    sets = tuple(tuple(k for k, act in enumerate(acts_of or ()) if act == "flipped") for acts_of in mirrors)
    return Symmetry(tuple(own for own in sets if set(own) - set(flat)), flat if len(flat) == 1 else ())


def _action(moved: Tensor, u: Tensor) -> tuple[str, ...] | None:
    """What a turn does to each coordinate u (n, d), which it moves by (n, d): None if it mixes them."""
    found = []
    for step, own in zip(moved.unbind(1), u.unbind(1), strict=True):
        back = torch.remainder(step + 2.0 * own, 1.0)
        around_once = torch.remainder(step - _ANGLE / (2.0 * math.pi), 1.0)
        if float(step.abs().max()) < _EXACT:
            found.append("same")
        elif float(torch.minimum(back, 1.0 - back).max()) < _EXACT:
            found.append("flipped")
        elif float(torch.minimum(around_once, 1.0 - around_once).max()) < _EXACT:
            found.append("turned")
        else:
            return None
    return tuple(found)


def _judge(p: Tensor, kept: dict[Turn, bool], constant: Callable[[Tensor], Sequence[Tensor]], squared: Turn) -> None:
    """Give up turns that change scales, or across and around the beams matrix elements, at momenta p (n, m, 4)."""
    elements = squared(p)
    for turn in kept:
        pairs = zip(constant(p), constant(turn(p)), strict=True)
        kept[turn] &= all(torch.allclose(a, b, rtol=_EXACT) for a, b in pairs)
        if turn is not along:
            change = (squared(turn(p)) - elements).abs()
            kept[turn] &= bool((change <= _NEARLY * elements.amax(1, keepdim=True)).all())
