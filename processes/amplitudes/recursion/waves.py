r"""Wave functions of external particles, in the components of `formulas`.

Spinors follow HELAS: u(p, h) = (sqrt(E - h p) chi_h, sqrt(E + h p) chi_h), v(p, h) = h (-sqrt(E + h p) chi_-h,
sqrt(E - h p) chi_-h). Massless vectors are in the light-cone gauge whose axis points away from the momentum along z, so
that nothing is singular near the beams; massive ones have the helicities of their own momentum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nisampler.processes.constants import HIGGS
from nisampler.processes.particles import is_fermion

_TINY = 1e-150
"""GeV; at rest the spin is along z."""


@dataclass(frozen=True)
class Leg:
    """An external particle as it is in the process.

    Attributes
    ----------
    code
        PDG code of the particle, incoming or outgoing.
    incoming
        Which of both.
    mass
        GeV.

    Examples
    --------
    >>> Leg(24, incoming=False, mass=80.4).code
    24
    """

    code: int
    incoming: bool
    mass: float


def light_cone(p: Tensor, mass: float) -> Tensor:
    """(p+, p-, px, py) (n, 4) of physical momenta (n, 4) in GeV; of p+ and p- the smaller keeps its digits.

    >>> light_cone(torch.tensor([[5.0, 3.0, 0.0, 4.0]]), 0.0)
    tensor([[9., 1., 3., 0.]])
    """
    energy, x, y, z = p.unbind(-1)
    large = energy + z.abs()
    small = (x.square() + y.square() + mass**2) / large
    forward = z > 0
    return torch.stack([torch.where(forward, large, small), torch.where(forward, small, large), x, y], dim=-1)


@dataclass(frozen=True)
class Recipe:
    """How one part of a wave function comes from the direction of its leg.

    Attributes
    ----------
    kind
        What it is.
    minus
        Spinors: made of the two-spinor of helicity -. Vectors: the outgoing helicity is -.
    conjugated
        Whether the complex conjugate is taken.
    large
        Spinors: the factor is sqrt(E + |p|), else sqrt(E - |p|).
    sign
        1 or -1.

    Examples
    --------
    >>> Recipe("massless", minus=True).sign
    1
    """

    kind: Literal["one", "spinor", "massless", "transverse", "longitudinal"]
    minus: bool = False
    conjugated: bool = False
    large: bool = True
    sign: int = 1


def recipe(leg: Leg, helicity: int, part: int) -> Recipe:
    """Recipe of a leg whose *outgoing* helicity is given: an incoming particle has the opposite one.

    >>> recipe(Leg(11, incoming=True, mass=0.0), helicity=1, part=0)
    Recipe(kind='spinor', minus=True, conjugated=False, large=True, sign=1)
    """
    if leg.code == HIGGS:
        return Recipe("one")
    if not is_fermion(leg.code):
        if not leg.mass:
            return Recipe("massless", minus=helicity < 0)
        return Recipe("transverse", minus=helicity < 0) if helicity else Recipe("longitudinal")
    physical = -helicity if leg.incoming else helicity
    particle = leg.code > 0
    column = leg.incoming == particle
    right = (part == 1) == column
    minus = particle != (physical > 0)
    sign = 1 if particle else physical if right else -physical
    return Recipe("spinor", minus, not column, right != minus, sign)


def wave(leg: Leg, p: Tensor, helicity: int, part: int) -> Tensor:
    """Components (2, n) of a part of a spinor, (4, n) of a vector, (1, n) of a scalar; p (n, 4) physical, in GeV.

    >>> wave(Leg(21, incoming=False, mass=0.0), torch.tensor([[5.0, 3.0, 0.0, 4.0]]), helicity=1, part=0).shape
    torch.Size([4, 1])
    """
    how = recipe(leg, helicity, part)
    if how.kind == "one":
        return torch.ones_like(p[:, :1].T, dtype=torch.complex128)
    if how.kind == "massless":
        return _massless_vector(p, how)
    momentum = p[:, 1:].square().sum(-1).sqrt() + _TINY if leg.mass else p[:, 0]
    if how.kind == "longitudinal":
        return _longitudinal(p, momentum, leg.mass)
    up, down = _direction(p, momentum)
    if how.kind == "transverse":
        return _transverse(up, down, momentum, how)
    chi = torch.stack([-down.conj(), up.conj()] if how.minus else [up, down])
    if leg.mass:
        large = (p[:, 0] + momentum).sqrt()
        chi = chi * ((large if how.large else leg.mass / large) / (2 * momentum).sqrt())
    elif not how.large:
        chi = torch.zeros_like(chi)
    return how.sign * (chi.conj() if how.conjugated else chi)


def _direction(p: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """Two-spinor (n,), (n,) of helicity + along p, of norm sqrt(2 |p|)."""
    _, x, y, z = p.unbind(-1)
    root = (momentum + z.abs() + _TINY).sqrt()
    across = torch.complex(x, y) / root
    forward, whole = z >= 0, torch.complex(root, torch.zeros_like(root))
    return torch.where(forward, whole, across.conj()), torch.where(forward, across, whole)


def _massless_vector(p: Tensor, how: Recipe) -> Tensor:
    energy, x, y, z = p.unbind(-1)
    forward = z >= 0
    # Seen from its momentum, a wave that turns left along +z turns right along -z.
    turn = torch.where(forward != how.minus, 1.0, -1.0).to(x)
    along = torch.complex(x, -turn * y) * (-(2**0.5) / (energy + z.abs()))
    zero = torch.zeros_like(along)
    across = torch.full_like(along, -(2**0.5))
    return torch.stack(
        [
            torch.where(forward, zero, along),
            torch.where(forward, along, zero),
            torch.where(turn > 0, across, zero),
            torch.where(turn > 0, zero, across),
        ]
    )


def _longitudinal(p: Tensor, momentum: Tensor, mass: float) -> Tensor:
    energy, x, y, z = p.unbind(-1)
    scale = energy / (momentum * mass)
    along = torch.where(momentum <= 2 * _TINY, _TINY, z) * scale
    base = momentum / mass
    across = torch.complex(x, y) * scale
    return torch.stack(
        [torch.complex(part, torch.zeros_like(part)) for part in (base + along, base - along)] + [across, across.conj()]
    )


def _transverse(up: Tensor, down: Tensor, momentum: Tensor, how: Recipe) -> Tensor:
    """The outgoing helicity +: the conjugate of chi_-^dagger sigma chi_+ / sqrt(2), two-spinors of norm 1."""
    scale = 0.5**0.5 / momentum
    plus, left, right = -up * down * scale, -down * down * scale, up * up * scale
    vector = torch.stack([plus, -plus, left, right])
    return vector if how.minus else conjugated(vector)


def conjugated(vector: Tensor) -> Tensor:
    """Complex conjugate of a vector (4, n): components V1 + i V2 and V1 - i V2 change places.

    >>> conjugated(torch.tensor([[1j], [2j], [3j], [4j]])).squeeze(-1)
    tensor([0.-1.j, 0.-2.j, 0.-4.j, 0.-3.j])
    """
    plus, minus, left, right = vector.conj()
    return torch.stack([plus, minus, right, left])
