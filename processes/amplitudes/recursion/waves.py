r"""Wave functions of external particles, in the components of `formulas`.

Spinors follow HELAS: u(p, h) = (sqrt(E - h p) chi_h, sqrt(E + h p) chi_h), v(p, h) = h (-sqrt(E + h p) chi_-h,
sqrt(E - h p) chi_-h). Massless vectors are in the light-cone gauge whose axis points away from the momentum along z, so
that nothing is singular near the beams; massive ones have the helicities of their own momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.processes.amplitudes.recursion.model import is_fermion
from nisampler.processes.constants import HIGGS

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
    """

    code: int
    incoming: bool
    mass: float


def light_cone(p: Tensor, mass: float) -> Tensor:
    """(p+, p-, px, py) (n, 4) of physical momenta (n, 4) in GeV; of p+ and p- the smaller keeps its digits."""
    energy, x, y, z = p.unbind(-1)
    large = energy + z.abs()
    small = (x.square() + y.square() + mass**2) / large
    forward = z > 0
    return torch.stack([torch.where(forward, large, small), torch.where(forward, small, large), x, y], dim=-1)


def wave(leg: Leg, p: Tensor, helicity: int) -> Tensor:
    """Components of a leg whose *outgoing* helicity is given: (4, n) spinor parts or vector, (1, n) for a scalar.

    Parameters
    ----------
    leg
        The particle.
    p
        Physical momenta (n, 4) in GeV.
    helicity
        -1, 0 or 1, with the leg taken as outgoing: an incoming particle has the opposite one.
    """
    if abs(leg.code) == HIGGS:
        return torch.ones_like(p[:, :1].T, dtype=torch.complex128)
    if is_fermion(leg.code):
        return _spinor(leg, p, helicity)
    return _massive_vector(leg, p, helicity) if leg.mass else _massless_vector(p, helicity)


def _direction(p: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """Two-spinor (n,), (n,) of helicity + along p, of norm sqrt(2 |p|)."""
    _, x, y, z = p.unbind(-1)
    root = (momentum + z.abs() + _TINY).sqrt()
    across = torch.complex(x, y) / root
    forward, whole = z >= 0, torch.complex(root, torch.zeros_like(root))
    return torch.where(forward, whole, across.conj()), torch.where(forward, across, whole)


def _spinor(leg: Leg, p: Tensor, helicity: int) -> Tensor:
    energy = p[:, 0]
    if leg.mass:
        momentum = p[:, 1:].square().sum(-1).sqrt() + _TINY
        large = (energy + momentum).sqrt()
        small = leg.mass / large
        chi = tuple(part / (2 * momentum).sqrt() for part in _direction(p, momentum))
    else:
        large, small, chi = torch.ones_like(energy), torch.zeros_like(energy), _direction(p, energy)
    physical = -helicity if leg.incoming else helicity
    particle = leg.code > 0
    if particle != (physical > 0):
        # u of helicity - and v of helicity + have the two-spinor of helicity -.
        chi = -chi[1].conj(), chi[0].conj()
    if particle:
        factors = (small, large) if physical > 0 else (large, small)
    else:
        factors = (-physical * large, physical * small) if physical > 0 else (-physical * small, physical * large)
    left, right = ([factor * part for part in chi] for factor in factors)
    if leg.incoming == particle:
        return torch.stack([*left, *right])
    return torch.stack([part.conj() for part in (*right, *left)])


def _massless_vector(p: Tensor, helicity: int) -> Tensor:
    energy, x, y, z = p.unbind(-1)
    forward = z >= 0
    # Seen from its momentum, a wave that turns left along +z turns right along -z.
    turn = torch.where(forward, float(helicity), -float(helicity))
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


def _massive_vector(leg: Leg, p: Tensor, helicity: int) -> Tensor:
    energy, x, y, z = p.unbind(-1)
    momentum = p[:, 1:].square().sum(-1).sqrt() + _TINY
    if helicity == 0:
        scale = energy / (momentum * leg.mass)
        longitudinal = z + torch.where(momentum <= 2 * _TINY, _TINY, 0.0)
        along = longitudinal * scale
        base = momentum / leg.mass
        return torch.stack([base + along, base - along, torch.complex(x, y) * scale, torch.complex(x, -y) * scale])
    up, down = (part / (2 * momentum).sqrt() for part in _direction(p, momentum))
    # chi_-^dagger sigma chi_+ / sqrt(2), the vector of helicity + of an incoming particle.
    root = 2**0.5
    plus = torch.stack([-root * down * up, root * up * down, -root * down * down, root * up * up])
    physical = -helicity if leg.incoming else helicity
    incoming = plus if physical > 0 else conjugated(plus)
    return incoming if leg.incoming else conjugated(incoming)


def conjugated(vector: Tensor) -> Tensor:
    """Complex conjugate of a vector (4, n): components V1 + i V2 and V1 - i V2 change places."""
    return vector.conj()[[0, 1, 3, 2]]
