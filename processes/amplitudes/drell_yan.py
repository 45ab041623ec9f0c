"""q qbar to a lepton pair through a neutral or a charged current."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.processes.amplitudes.currents import LeptonicCurrent
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.tree import Element, TreeAmplitude, momentum_products
from nisampler.processes.constants import COLOURS

# All-outgoing colours: the incoming antiquark carries the colour of the line, the incoming quark its anticolour.
FLOW = {0: ((1, 0),), 1: ((0, 1),)}


class DrellYan(TreeAmplitude):
    r"""q qbar -> l lbar: |M|^2 = ((2 q.lbar)^2 sum_equal |P|^2 + (2 q.l)^2 sum_opposite |P|^2) / 3.

    Final legs are the current's two leptons. Elements: for each kind of quark pair of the current, the quark in beam 1,
    then the quark in beam 2. Source: Campbell, Huston, Krauss, "The Black Book of Quantum Chromodynamics", section 2.2.

    Parameters
    ----------
    current
        `NeutralCurrent()`, `ChargedCurrent(+1)`, ...

    Examples
    --------
    >>> from nisampler.processes.amplitudes.currents import NeutralCurrent
    >>> incoming = torch.tensor([[[45.0, 0, 0, 45.0], [45.0, 0, 0, -45.0]]], dtype=torch.float64)
    >>> outgoing = torch.tensor([[[45.0, 45.0, 0, 0], [45.0, -45.0, 0, 0]]], dtype=torch.float64)
    >>> amplitude = DrellYan(NeutralCurrent())
    >>> amplitude.squared(incoming, outgoing, torch.tensor([0.118])).shape
    torch.Size([1, 4])
    """

    def __init__(self, current: LeptonicCurrent) -> None:
        self.current = current
        subprocesses: list[SubProcess] = []
        columns: dict[int, Element] = {}
        for pair in current.quark_pairs:
            for order, initial in enumerate(((pair.quark, pair.antiquark), (pair.antiquark, pair.quark))):
                element = 2 * pair.kind + order
                columns[element] = Element((FLOW[order],), current.helicities((*initial, *current.leptons)))
                subprocesses.append(SubProcess(initial, current.leptons, element, pair.factor))
        super().__init__(subprocesses, [columns[element] for element in sorted(columns)])

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n, elements), dimensionless; incoming (n, 2, 4) and outgoing (n, 2, 4) in GeV, alpha_s unused."""
        self._check(incoming, outgoing)
        products = momentum_products(incoming, outgoing)
        equal, opposite = self.current.chirality_factors(2 * products[0, 1])
        # 2 q.lbar for the quark in beam 1 and in beam 2; each is 2 q.l of the other.
        antilepton = 2 + self.current.antilepton
        first = (4 / COLOURS) * torch.stack([products[beam, antilepton] for beam in (0, 1)]).square()
        values = equal.unsqueeze(1) * first + opposite.unsqueeze(1) * first.flip(0)
        return values.flatten(0, 1).T
