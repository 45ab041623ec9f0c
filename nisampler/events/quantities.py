"""Quantities of particles of an event by the names that cuts and observables have for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from nisampler.base.four_vectors import delta_phi, eta, mass, mass2, pt, rapidity, separation2

Momenta = Sequence[Tensor]
Quantity = Callable[[Momenta], Tensor]


def _total(momenta: Momenta) -> Tensor:
    return torch.stack(list(momenta)).sum(0)


def _transverse_mass(momenta: Momenta) -> Tensor:
    """sqrt((sum E_T)^2 - (sum pT)^2) with E_T^2 = m^2 + pT^2 of each."""
    energy = torch.stack([(mass2(p).clamp(min=0) + pt(p).square()).sqrt() for p in momenta]).sum(0)
    return (energy.square() - pt(_total(momenta)).square()).clamp(min=0).sqrt()


OF_SUMS: Mapping[str, Quantity] = MappingProxyType(
    {
        "pt": lambda momenta: pt(_total(momenta)),
        "eta": lambda momenta: eta(_total(momenta)),
        "y": lambda momenta: rapidity(_total(momenta)),
        "m": lambda momenta: mass(_total(momenta)),
        "mt": _transverse_mass,
        "e": lambda momenta: _total(momenta)[:, 0],
    }
)
"""Of one particle, or of the sum of several: pT, pseudorapidity, rapidity, mass, transverse mass, energy."""
OF_PAIRS: Mapping[str, Quantity] = MappingProxyType(
    {
        "dr": lambda momenta: separation2(*momenta).sqrt(),
        "deta": lambda momenta: (eta(momenta[0]) - eta(momenta[1])).abs(),
        "dy": lambda momenta: (rapidity(momenta[0]) - rapidity(momenta[1])).abs(),
        "dphi": lambda momenta: delta_phi(*momenta).abs(),
    }
)
"""Of two particles, without sign: distance, and that in pseudorapidity, rapidity and azimuth."""
OF_EVENTS: Mapping[str, Quantity] = MappingProxyType(
    {
        "met": lambda momenta: pt(_total(momenta)),
        "ht": lambda momenta: torch.stack([pt(p) for p in momenta]).sum(0),
        "sqrt_shat": lambda momenta: mass(_total(momenta)),
    }
)
"""Of all legs of some kind: transverse momentum of their sum, sum of their transverse momenta, mass of all."""
QUANTITIES: Mapping[str, Quantity] = {**OF_SUMS, **OF_PAIRS, **OF_EVENTS}
