"""q qbar -> t tbar and g g -> t tbar."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.qcd import two_quarks_two_gluons
from nisampler.processes.amplitudes.tree import ColourFlow, Element, TreeAmplitude, momentum_products
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS, TOP
from nisampler.processes.parameters import StandardModel

GLUON_FUSION = 2
# Legs 0 and 1 are the beams, 2 the top, 3 the antitop; quark in beam 1, quark in beam 2, two gluons.
FLOWS: tuple[tuple[ColourFlow, ...], ...] = (
    (((2, 0), (1, 3)),),
    (((2, 1), (0, 3)),),
    (((2, 0), (0, 1), (1, 3)), ((2, 1), (1, 0), (0, 3))),
)


class TopPair(TreeAmplitude):
    """t tbar of stable top quarks, five massless flavours.

    q qbar: (4/9) g_s^4 (tau1^2 + tau2^2 + rho / 2), g g: :func:`two_quarks_two_gluons`, tau_i = 2 p_i.t / s,
    rho = 4 m^2 / s. Final legs are (t, tbar). Elements: quark in beam 1, quark in beam 2, two gluons.
    Source: Ellis, Stirling, Webber, "QCD and Collider Physics", table 10.2.

    Parameters
    ----------
    model
        Its `mass_top` must be that of the momenta.

    Examples
    --------
    >>> amplitude = TopPair()
    >>> amplitude.subprocesses[-1]
    SubProcess(initial=(21, 21), final=(6, -6), element=2, factor=1.0)
    >>> amplitude.elements
    3
    """

    def __init__(self, model: StandardModel | None = None) -> None:
        self.model = StandardModel() if model is None else model
        quarks = [(q, -q, 0) for q in MASSLESS_QUARKS] + [(-q, q, 1) for q in MASSLESS_QUARKS]
        subprocesses = [SubProcess((a, b), (TOP, -TOP), i) for a, b, i in [*quarks, (GLUON, GLUON, GLUON_FUSION)]]
        super().__init__(subprocesses, [Element(flows, (UNKNOWN_SPIN,) * 4) for flows in FLOWS])

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n, 3), dimensionless; incoming and outgoing (n, 2, 4) in GeV, alpha_s (n,)."""
        self._check(incoming, outgoing)
        s, tau1, tau2 = self._invariants(incoming, outgoing)
        rho = 4 * self.model.mass_top**2 / s
        quarks = (4 / 9) * (tau1.square() + tau2.square() + 0.5 * rho)
        gluons = two_quarks_two_gluons(tau1, tau2, rho)
        return ((4 * math.pi * alpha_s).square() * torch.stack([quarks, quarks, gluons])).T

    def _invariants(self, incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        products = momentum_products(incoming, outgoing)
        s = products[0, 1]
        return 2 * s, products[0, 2] / s, products[1, 2] / s

    def _flow_weights(self, element: int, incoming: Tensor, outgoing: Tensor) -> Tensor:
        """tau2^2 for the flow with the pole in tau1 (top beside gluon 1), tau1^2 for the other one."""
        _, tau1, tau2 = self._invariants(incoming, outgoing)
        return torch.stack([tau2.square(), tau1.square()], dim=-1)
