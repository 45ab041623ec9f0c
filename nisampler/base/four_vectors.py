"""Quantities of four-momenta (..., 4) as tensors: last axis (E, px, py, pz), GeV, every other axis is a batch axis."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-300


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Minkowski product a.b = E_a E_b - p_a . p_b; (..., 4) and (..., 4) to (...).

    >>> dot(torch.tensor([5.0, 0.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    tensor(1.)
    """
    return a[..., 0] * b[..., 0] - (a[..., 1:] * b[..., 1:]).sum(-1)


def mass2(p: Tensor) -> Tensor:
    """Invariant mass squared E^2 - |p|^2; may be slightly negative by rounding.

    >>> mass2(torch.tensor([5.0, 0.0, 0.0, 4.0]))
    tensor(9.)
    """
    return dot(p, p)


def mass(p: Tensor) -> Tensor:
    """Invariant mass sqrt(max(E^2 - |p|^2, 0)).

    >>> mass(torch.tensor([5.0, 0.0, 0.0, 4.0]))
    tensor(3.)
    """
    return mass2(p).clamp(min=0).sqrt()


def pt(p: Tensor) -> Tensor:
    """Transverse momentum sqrt(px^2 + py^2).

    >>> pt(torch.tensor([6.0, 3.0, 4.0, 1.0]))
    tensor(5.)
    """
    return torch.hypot(p[..., 1], p[..., 2])


def phi(p: Tensor) -> Tensor:
    """Azimuth atan2(py, px) in (-pi, pi].

    >>> phi(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    tensor(1.5708)
    """
    return torch.atan2(p[..., 2], p[..., 1])


def eta(p: Tensor) -> Tensor:
    """Pseudorapidity asinh(pz / pT); infinite along the beam.

    >>> eta(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(0.)
    """
    return torch.asinh(p[..., 3] / pt(p))


def rapidity(p: Tensor) -> Tensor:
    """Rapidity atanh(pz / E).

    >>> rapidity(torch.tensor([5.0, 0.0, 0.0, 0.0]))
    tensor(0.)
    """
    return torch.atanh(p[..., 3] / p[..., 0])


def delta_phi(a: Tensor, b: Tensor) -> Tensor:
    """Azimuthal difference phi_a - phi_b wrapped to [-pi, pi).

    >>> delta_phi(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(1.5708)
    """
    difference = phi(a) - phi(b)
    return torch.remainder(difference + torch.pi, 2 * torch.pi) - torch.pi


def separation2(a: Tensor, b: Tensor) -> Tensor:
    """Delta R^2 of two momenta (..., 4), finite (though large) for a momentum along the beam.

    >>> separation2(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])).sqrt()
    tensor(1.5708)
    """
    azimuth = torch.atan2(a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1], a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])
    return (_finite_eta(a) - _finite_eta(b)).square() + azimuth.square()


def _finite_eta(p: Tensor) -> Tensor:
    return torch.asinh(p[..., 3] / (p[..., 1].square() + p[..., 2].square()).clamp(min=_TINY).sqrt())
