"""A small process whose matrix elements can be sampled, with a hand-written amplitude."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nisampler.processes.amplitudes.currents import NeutralCurrent
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.hadron.cuts import Cuts, MassCut, leg_cuts
from nisampler.processes.hadron.events import FinalState
from nisampler.processes.hadron.process import HadronProcess, HadronSetup
from nisampler.processes.hadron.scales import Scales
from nisampler.processes.partons.toy import ToyDensity
from nisampler.processes.phase_space import Boson, PowerLaw, chili_channels
from nisampler.processes.phase_space.jets import JetRegion

PARTS = (0.25, 0.75)


class Halves:
    """A hand-written amplitude whose elements are sums of two parts each, such as helicities."""

    def __init__(self) -> None:
        self.whole = VectorJet(NeutralCurrent())
        self.subprocesses, self.elements = self.whole.subprocesses, self.whole.elements
        self.choices = tuple(k for k in range(self.elements) for _ in PARTS)
        self.operations = (30_000.0,) * len(self.choices)
        self.colour_flows = self.whole.colour_flows
        self.squared = self.whole.squared

    def chosen(self, choice: Tensor, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        table = self.whole.squared(incoming, outgoing, alpha_s)
        element = torch.tensor(self.choices)[choice]
        return table.gather(1, element.unsqueeze(1)).squeeze(1) * torch.tensor(PARTS).double()[choice % 2]


def setup(**changes: Any) -> HadronSetup:
    region = JetRegion(20.0, 5.0, 0.4)
    channels, groups = chili_channels(Boson(PowerLaw(2.0), 50.0), 1, region=region, sqrt_s=13000.0)
    state = FinalState(masses=(0.0,) * 3, jets=(2,))
    cuts = Cuts([MassCut((0, 1), 50.0), *leg_cuts((2,), 20.0, 5.0)], 13000.0)
    made = HadronSetup("toy", state, Halves(), ToyDensity(), Scales("fixed", 91.2), cuts, channels, groups)
    return replace(made, **changes)


def points(process: HadronProcess, n: int, seed: int) -> Tensor:
    return torch.rand(n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
