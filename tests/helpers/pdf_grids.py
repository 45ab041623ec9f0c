"""A small set of parton densities on disk: smooth, with a coupling for each member, and below zero in a corner."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from nisampler.processes.partons.alpha_s import RunningAlphaS

X = [10 ** (-5 + 0.2 * i) for i in range(25)] + [1.0]
Q = [1.0 * 10 ** (0.25 * i) for i in range(17)]
FLAVOURS = (-5, -4, -3, -2, -1, 21, 1, 2, 3, 4, 5)
COUPLINGS = {0: 0.118, 1: 0.118, 2: 0.118, 3: 0.117, 4: 0.119}


def density(member: int, flavour: int, x: float, q: float) -> float:
    """x f of a member, below zero for bottom quarks at large x."""
    slope = 0.15 + 0.02 * member + 0.01 * (flavour % 7)
    shape = x**-slope * (1 - x) ** (3 + 0.1 * member) * (1 + 0.05 * member * math.log(q) + 0.3 * math.log(1 + q))
    return shape - (0.02 * x**20 if abs(flavour) == 5 else 0.0)


def member_text(member: int) -> str:
    coupling = RunningAlphaS(COUPLINGS[member], loops=2)
    values = [coupling(torch.tensor(q**2, dtype=torch.float64)).item() for q in Q]
    head = f"Format: lhagrid1\nAlphaS_MZ: {COUPLINGS[member]}\nAlphaS_Qs: {Q}\nAlphaS_Vals: {values}\n"
    rows = [" ".join(f"{density(member, pdg, x, q):.16e}" for pdg in FLAVOURS) for x in X for q in Q]
    axes = (" ".join(map(repr, X)), " ".join(map(repr, Q)), " ".join(map(str, FLAVOURS)))
    return "---\n".join([head, "\n".join([*axes, *rows, ""]), ""])


def write_set(folder: Path, name: str = "toyset", error_type: str = "symmhessian+as") -> Path:
    """The folder of a set of five members, the last two of which have other couplings."""
    path = folder / name
    path.mkdir(parents=True)
    for member in COUPLINGS:
        (path / f"{name}_{member:04d}.dat").write_text(member_text(member))
    (path / f"{name}.info").write_text(
        f"SetIndex: 99000\nNumMembers: {len(COUPLINGS)}\nErrorType: {error_type}\nErrorConfLevel: 68\n"
    )
    return path
