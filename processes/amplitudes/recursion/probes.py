"""Momenta at which symmetries of amplitudes are found: no special frame, no special angle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.processes.phase_space.rambo import RamboOnDiet

_POINTS = 3


def probe_momenta(masses: Sequence[float], incoming: int = 2, points: int = _POINTS) -> Tensor:
    """Physical momenta (points, legs, 4) in GeV, the incoming ones first, in a frame that moves in no special way.

    >>> from nisampler.processes.phase_space.kinematics import mass2
    >>> p = probe_momenta([0.0, 0.0, 80.4, 0.0])
    >>> torch.allclose(p[:, :2].sum(1), p[:, 2:].sum(1)), torch.allclose(mass2(p[:, 2]), torch.tensor(80.4**2).double())
    (True, True)
    """
    generator = torch.Generator().manual_seed(20)
    before, after = list(masses[:incoming]), list(masses[incoming:])
    energy = sum(after) if len(after) == 1 else 1.7 * max(sum(before), sum(after)) + 310.0
    sides = [_side(side, energy, points, generator) for side in (before, after)]
    velocity = torch.tensor([0.31, -0.23, 0.42], dtype=torch.float64)
    return _boosted(torch.cat(sides, dim=1), velocity)


def _side(masses: Sequence[float], energy: float, points: int, generator: torch.Generator) -> Tensor:
    if len(masses) == 1:
        return torch.tensor([[[energy, 0.0, 0.0, 0.0]]], dtype=torch.float64).expand(points, 1, 4)
    phase_space = RamboOnDiet(masses)
    u = torch.rand(points, phase_space.dim, generator=generator, dtype=torch.float64)
    return phase_space.forward(0.1 + 0.8 * u, energy)[0]


def _boosted(p: Tensor, velocity: Tensor) -> Tensor:
    gamma = (1 - velocity.square().sum()).rsqrt()
    along = p[..., 1:] @ velocity
    shift = gamma**2 / (1 + gamma) * along + gamma * p[..., 0]
    return torch.cat([(gamma * (p[..., 0] + along)).unsqueeze(-1), p[..., 1:] + shift.unsqueeze(-1) * velocity], dim=-1)
