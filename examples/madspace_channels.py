"""Phase space of MadSpace as channels: two resonances in three particles. It needs `pip install 'madspace>=0.2'`."""

from __future__ import annotations

import madspace as ms
import torch

import nisampler
from nisampler.processes.madspace import MadSpaceChannel
from nisampler.processes.phase_space.kinematics import mass2

SQRT_S, MASS, WIDTH = 500.0, 91.2, 2.5  # GeV
PAIRS = ((0, 1), (0, 2))


def channel(pair: tuple[int, int]) -> MadSpaceChannel:
    """A resonance that decays to this pair, beside the third particle: i are beams, p propagators, o what goes out."""
    (other,) = {0, 1, 2} - set(pair)
    lines = [["i0", "i1", "p0"], ["p0", f"o{other}", "p1"], ["p1", f"o{pair[0]}", f"o{pair[1]}"]]
    vertices = [[ms.LineRef(line) for line in vertex] for vertex in lines]
    diagram = ms.Diagram([0.0] * 2, [0.0] * 3, [ms.Propagator(), ms.Propagator(MASS, WIDTH)], vertices)
    mapping = ms.PhaseSpaceMapping(ms.Topology(diagram), SQRT_S, leptonic=True)
    return MadSpaceChannel(mapping, SQRT_S, leptonic=True, name=f"pair {pair}")


def resonances(momenta: torch.Tensor) -> torch.Tensor:
    """What to integrate over three-body phase space, at momenta (n, 3, 4): it need not know of any map."""
    s = torch.stack([mass2(momenta[:, list(pair)].sum(1)) for pair in PAIRS], 1)
    return (1 / ((s - MASS**2) ** 2 + (MASS * WIDTH) ** 2)).sum(1)


if __name__ == "__main__":
    function = nisampler.Multichannel(resonances, [channel(pair) for pair in PAIRS])
    print(nisampler.integrate(function, calls=20_000, progress=False).summary())
