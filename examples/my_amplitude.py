"""Your own matrix element at a proton collider: q qbar -> e- e+ through the photon and a heavy boson, in 25 lines.

    nisampler run examples/my_amplitude.toml --output runs/my_amplitude

The process string gives legs, flavours and phase space; densities, cuts, scales and event records are those of every
process. From Python: `nisampler.process("p p > e- e+", amplitude=squared, cuts=[forward, "m(e+, e-) > 200"])`.
"""

from __future__ import annotations

import math

import torch

from nisampler.processes.phase_space.kinematics import dot

ALPHA, MASS, WIDTH, COUPLING = 1 / 128, 3000.0, 90.0, 0.4  # GeV; of the boson to all fermions, in units of e


def squared(p: torch.Tensor, alpha_s: torch.Tensor, codes: tuple[int, ...]) -> torch.Tensor:
    """|M|^2 (n,) averaged over spins and colours, at momenta (n, 4, 4) of the legs with these PDG codes."""
    s, t, u = 2 * dot(p[:, 0], p[:, 1]), -2 * dot(p[:, 0], p[:, 2]), -2 * dot(p[:, 0], p[:, 3])
    charge = 1 / 3 if codes[0] % 2 else -2 / 3  # of the quark times that of the electron
    pole = s / torch.complex(s - MASS**2, torch.full_like(s, MASS * WIDTH))
    return 2 * (4 * math.pi * ALPHA) ** 2 * (charge + COUPLING**2 * pole).abs().square() * (t**2 + u**2) / (3 * s**2)


def scale(p: torch.Tensor) -> torch.Tensor:
    """Both scales (n,) in GeV: half the energy of the leptons in their rest frame."""
    return 0.5 * (2 * dot(p[:, 0], p[:, 1])).sqrt()


def forward(p: torch.Tensor) -> torch.Tensor:
    """A cut (n,) of your own: the pair flies along the beam."""
    return p[:, :, 3].sum(1).abs() > 100.0
