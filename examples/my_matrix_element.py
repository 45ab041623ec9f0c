"""Your own matrix element as a process: e- e+ -> mu- mu+ by photon exchange, in pb.

Anything with an attribute `dim` that maps points u (n, dim) of the unit cube to values (n,) will do. The name
of this process is `examples/my_matrix_element.py:MuonPair`, or `module:object` for an importable module;
its parameters are those of `__init__`. Run as a script, the file compares the result with the exact one.
"""

from __future__ import annotations

import math

import torch

from nisampler.processes.constants import GEV2_PB
from nisampler.processes.phase_space.kinematics import dot
from nisampler.processes.phase_space.rambo import RamboOnDiet


class MuonPair:
    dim = 2  # a two-body final state has 3 * 2 - 4 = 2 degrees of freedom
    unit = "pb"

    def __init__(self, sqrt_s: float = 10.0, alpha_em: float = 1 / 137.036) -> None:
        self.sqrt_s, self.alpha_em = sqrt_s, alpha_em
        self.phase_space = RamboOnDiet([0.0, 0.0])

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        s, half = self.sqrt_s**2, 0.5 * self.sqrt_s
        momenta, weight = self.phase_space.forward(u, self.sqrt_s)
        electron = u.new_tensor([half, 0.0, 0.0, half])
        t, w = -2 * dot(electron, momenta[:, 0]), -2 * dot(electron, momenta[:, 1])
        matrix_element = 2 * (4 * math.pi * self.alpha_em) ** 2 * (t**2 + w**2) / s**2
        return GEV2_PB * matrix_element * weight / (2 * s)


if __name__ == "__main__":
    process = MuonPair()
    points = torch.rand(100_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = 4 * math.pi * process.alpha_em**2 / (3 * process.sqrt_s**2) * GEV2_PB
    print(f"sigma = {process(points).mean().item():.2f} pb, exact {exact:.2f} pb")
