"""A lepton pair and one parton: all crossings of q qbar g with a neutral or a charged current."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from nisampler.processes.amplitudes.currents import LeptonicCurrent, QuarkPair
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.tree import Element, TreeAmplitude, momentum_products
from nisampler.processes.constants import CASIMIR_F, COLOURS, GLUON

# Legs: the beams 0 and 1, the leptons 2 and 3, the jet.
LEPTONS = (2, 3)
JET = 4
PARTONS = (0, 1, JET)
# Where quark, antiquark and gluon of e- e+ -> q qbar g stand after crossing.
CROSSINGS = tuple(itertools.permutations(PARTONS))
# The leg of the gluon, the other two partons, and the couplings over the average of initial spins and colours.
GLUONS = tuple(
    (gluon, *others, 8 * math.pi * CASIMIR_F / (COLOURS if gluon == JET else COLOURS**2 - 1))
    for gluon, others in ((JET, (0, 1)), (0, (1, JET)), (1, (0, JET)))
)


def _pdg_ids(pair: QuarkPair, crossing: tuple[int, ...]) -> tuple[int, int, int]:
    """PDG codes of beam 1, beam 2 and jet: an outgoing quark becomes, crossed, an incoming antiquark."""
    outgoing = dict(zip(crossing, (-pair.antiquark, -pair.quark, GLUON), strict=True))
    first, second = (code if code == GLUON else -code for code in (outgoing[0], outgoing[1]))
    return first, second, outgoing[JET]


class VectorJet(TreeAmplitude):
    r"""q qbar -> l lbar g, q g -> l lbar q, qbar g -> l lbar qbar, both orders of the beams, leptons spin-correlated.

    One expression, that of e- e+ -> q qbar g (:func:`chirality_structures`), at crossed momenta:
    sum |M|^2 = 32 pi alpha_s N_c C_F s_ll (equal sum_equal |P|^2 + opposite sum_opposite |P|^2), with a sign for the
    crossing of one fermion. Final legs are the current's two leptons, then the jet. Elements: for each kind of quark
    pair, the six crossings.

    Parameters
    ----------
    current
        `NeutralCurrent()`, `ChargedCurrent(+1)`, ...

    Examples
    --------
    >>> from nisampler.processes.amplitudes.currents import ChargedCurrent
    >>> amplitude = VectorJet(ChargedCurrent(+1))
    >>> amplitude.elements, amplitude.subprocesses[0].initial, amplitude.subprocesses[0].final
    (6, (-1, 2), (-11, 12, 21))
    """

    def __init__(self, current: LeptonicCurrent) -> None:
        self.current = current
        subprocesses: list[SubProcess] = []
        columns: dict[int, Element] = {}
        for pair in current.quark_pairs:
            for index, crossing in enumerate(CROSSINGS):
                element = len(CROSSINGS) * pair.kind + index
                first, second, jet = _pdg_ids(pair, crossing)
                final = (*current.leptons, jet)
                quark, antiquark, gluon = crossing
                flow = ((quark, gluon), (gluon, antiquark))
                columns[element] = Element((flow,), current.helicities((first, second, *final)))
                subprocesses.append(SubProcess((first, second), final, element, pair.factor))
        super().__init__(subprocesses, [columns[element] for element in sorted(columns)])

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n, elements) in GeV^-2; incoming (n, 2, 4) and outgoing (n, 3, 4) in GeV, alpha_s (n,)."""
        self._check(incoming, outgoing)
        products = momentum_products(incoming, outgoing)
        antilepton, lepton = LEPTONS[self.current.antilepton], LEPTONS[1 - self.current.antilepton]
        s = 2 * products[LEPTONS]
        # Every product occurs squared or with another one that changes sign with it under a crossing, up to the sign of
        # crossing one fermion: momenta need not be crossed, and the values are positive.
        strength = alpha_s * s
        eikonals = {
            gluon: factor * strength / (products[gluon, first] * products[gluon, second])
            for gluon, first, second, factor in GLUONS
        }
        one, two = ({parton: products[leg, parton].square() for parton in PARTONS} for leg in (lepton, antilepton))
        equal, opposite = (
            torch.stack([(minus[q] + plus[qbar]) * eikonals[g] for q, qbar, g in CROSSINGS])
            for minus, plus in ((one, two), (two, one))
        )
        same, flipped = (factors.unsqueeze(1) for factors in self.current.chirality_factors(s))
        return (same * equal).addcmul_(flipped, opposite).flatten(0, 1).T
