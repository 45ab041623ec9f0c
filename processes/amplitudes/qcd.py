"""QCD two-to-two scattering of massless partons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.tree import ColourFlow, Element, TreeAmplitude, momentum_products
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS

LEGS = 4
S_CHANNEL, T_CHANNEL, U_CHANNEL = range(3)

# 1 stands for a quark of any flavour, 2 for one of another flavour. Outgoing partons keep the order of the incoming
# ones where they can: one sub-process fills the whole phase space, and an exchange is the same function of t for all.
PARTONS = (
    *(((a, b), (a, b)) for a, b in ((1, 2), (1, -2), (-1, 2), (-1, -2))),
    *(((a, b), (a, b)) for a, b in ((1, 1), (-1, -1), (1, -1), (-1, 1))),
    *(((a, -a), (2, -2)) for a in (1, -1)),
    *(((a, -a), (GLUON, GLUON)) for a in (1, -1)),
    ((GLUON, GLUON), (1, -1)),
    *(((a, GLUON), (a, GLUON)) for a in (1, -1)),
    *(((GLUON, a), (GLUON, a)) for a in (1, -1)),
    ((GLUON, GLUON), (GLUON, GLUON)),
)


def channel(i: int, j: int) -> int:
    """The invariant (p_i + p_j)^2, all legs outgoing: 0, 1, 2 for s, t, u; legs 0 to 3, beams first.

    >>> channel(0, 1), channel(2, 3), channel(0, 2)
    (0, 0, 1)
    """
    return (i ^ j) - 1


def four_quarks(stu: Sequence[Tensor], exchanged: Sequence[int]) -> Tensor:
    """|M|^2 / g_s^4 of four massless quarks with a gluon in the channels `exchanged`, one or two of them, averaged.

    (4/9) (b^2 + c^2) / a^2 for each channel a, and -(8/27) c^2 / (a b) for two channels a and b.
    Source: Ellis, Stirling, Webber, "QCD and Collider Physics", table 7.1.

    >>> s, t, u = (torch.tensor([x]) for x in (2.0, -1.0, -1.0))
    >>> four_quarks((s, t, u), exchanged=(1,))
    tensor([2.2222])
    """
    squares = [x.square() for x in stu]
    total = squares[0] + squares[1] + squares[2]
    value = sum((total / squares[a] - 1 for a in exchanged), torch.zeros_like(total)) * (4 / 9)
    if len(exchanged) == 2:
        a, b = exchanged
        value = value - (8 / 27) * squares[3 - a - b] / (stu[a] * stu[b])
    return value


def two_quarks_two_gluons(tau1: Tensor, tau2: Tensor, rho: Tensor | float = 0.0) -> Tensor:
    """|M|^2 / g_s^4 of g g -> Q Qbar, averaged: (1/(6 tau1 tau2) - 3/8)(tau1^2 + tau2^2 + rho - rho^2/(4 tau1 tau2)).

    tau_i = 2 g_i.Q / s and rho = 4 m^2 / s, with s the invariant of the gluons; other channels by crossing.
    Source: Ellis, Stirling, Webber, "QCD and Collider Physics", table 10.2.

    >>> two_quarks_two_gluons(torch.tensor([0.5]), torch.tensor([0.5]))
    tensor([0.1458])
    """
    product = tau1 * tau2
    return (1 / (6 * product) - 3 / 8) * (tau1.square() + tau2.square() + rho - rho**2 / (4 * product))


def four_gluons(stu: Sequence[Tensor]) -> Tensor:
    """|M|^2 / g_s^4 of g g -> g g, averaged, without the factor 1/2: (9/2)(3 - tu/s^2 - su/t^2 - st/u^2).

    >>> four_gluons([torch.tensor([x]) for x in (2.0, -1.0, -1.0)])
    tensor([30.3750])
    """
    s, t, u = stu
    return 4.5 * (3 - t * u / s.square() - s * u / t.square() - s * t / u.square())


@dataclass(frozen=True)
class Kernel:
    """Which expression gives an element: the one of 4, 2 or no quarks, its channels and a constant factor.

    >>> Kernel(0, (), 0.5)([torch.tensor([x]) for x in (2.0, -1.0, -1.0)])
    tensor([15.1875])
    """

    quarks: int
    channels: tuple[int, ...]
    factor: float

    def __call__(self, stu: Sequence[Tensor]) -> Tensor:
        """|M|^2 / g_s^4 (n,) from s, t, u."""
        if self.quarks == 4:
            return self.factor * four_quarks(stu, self.channels)
        if self.quarks == 2:
            (gluons,) = self.channels
            first, second = (stu[x] for x in range(3) if x != gluons)
            return self.factor * two_quarks_two_gluons(-first / stu[gluons], -second / stu[gluons])
        return self.factor * four_gluons(stu)


def _four_quark_flows(outgoing: Sequence[int]) -> tuple[tuple[int, ...], list[ColourFlow]]:
    """Exchanged channels and colour flows: a gluon between two quark lines connects each with the other's colour."""
    colours = [i for i in range(LEGS) if outgoing[i] > 0]
    anticolours = [i for i in range(LEGS) if outgoing[i] < 0]
    channels: list[int] = []
    flows: list[ColourFlow] = []
    for first, second in itertools.permutations(anticolours):
        if outgoing[colours[0]] == -outgoing[first] and outgoing[colours[1]] == -outgoing[second]:
            channels.append(channel(colours[0], first))
            flows.append(((colours[0], second), (colours[1], first)))
    return tuple(channels), flows


@dataclass(frozen=True)
class _Row:
    """What `PARTONS` says about one element: its expression, and its colour flows with the channel of each weight."""

    kernel: Kernel
    flows: list[ColourFlow]
    channels: list[int]


def _row(initial: tuple[int, int], final: tuple[int, int]) -> _Row:
    outgoing = [x if x == GLUON else -x for x in initial] + list(final)
    symmetry = 0.5 if final[0] == final[1] else 1.0
    gluons = [leg for leg in range(LEGS) if outgoing[leg] == GLUON]
    if not gluons:
        channels, flows = _four_quark_flows(outgoing)
        return _Row(Kernel(4, channels, symmetry), flows, list(channels))
    if len(gluons) == LEGS:
        return _four_gluon_row(symmetry)
    # The average over initial colours relative to g g, and the sign of crossing one fermion.
    crossing = (1.0, -8 / 3, 64 / 9)[sum(x != GLUON for x in initial)]
    return _two_gluon_row(outgoing, (gluons[0], gluons[1]), symmetry * crossing)


def _four_gluon_row(factor: float) -> _Row:
    orders = [(0, *rest) for rest in itertools.permutations((1, 2, 3))]
    flows = [tuple(zip(order, (*order[1:], order[0]), strict=True)) for order in orders]
    return _Row(Kernel(0, (), factor), flows, [channel(order[0], order[2]) for order in orders])


def _two_gluon_row(outgoing: Sequence[int], gluons: tuple[int, int], factor: float) -> _Row:
    quark = next(leg for leg in range(LEGS) if outgoing[leg] in (1, 2))
    antiquark = next(leg for leg in range(LEGS) if outgoing[leg] in (-1, -2))
    orders = (gluons, gluons[::-1])
    flows: list[ColourFlow] = [((quark, a), (a, b), (b, antiquark)) for a, b in orders]
    return _Row(Kernel(2, (channel(*gluons),), factor), flows, [channel(quark, b) for _, b in orders])


class Qcd(TreeAmplitude):
    """Scattering of two massless partons into two, five flavours, averaged and summed over spins and colours.

    Final legs are the two partons. Elements: one for each entry of `PARTONS`.

    >>> amplitude = Qcd()
    >>> amplitude.elements, amplitude.subprocesses[0]
    (18, SubProcess(initial=(1, 2), final=(1, 2), element=0, factor=1.0))
    """

    def __init__(self) -> None:
        subprocesses: list[SubProcess] = []
        rows = [_row(initial, final) for initial, final in PARTONS]
        self._kernels = [row.kernel for row in rows]
        self._channels = [row.channels for row in rows]
        columns = [Element(tuple(row.flows), (UNKNOWN_SPIN,) * LEGS) for row in rows]
        for element, (initial, final) in enumerate(PARTONS):
            symbols = sorted({abs(x) for x in (*initial, *final)} - {GLUON})
            for flavours in itertools.permutations(MASSLESS_QUARKS, len(symbols)):
                codes = {sign * x: sign * q for x, q in zip(symbols, flavours, strict=True) for sign in (1, -1)}
                codes[GLUON] = GLUON
                one, two, three, four = (codes[x] for x in (*initial, *final))
                subprocesses.append(SubProcess((one, two), (three, four), element))
        super().__init__(subprocesses, columns)

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n, elements), dimensionless; incoming and outgoing (n, 2, 4) in GeV, alpha_s (n,)."""
        self._check(incoming, outgoing)
        stu = self._invariants(incoming, outgoing)
        values = {kernel: kernel(stu) for kernel in dict.fromkeys(self._kernels)}
        return ((4 * math.pi * alpha_s).square() * torch.stack([values[kernel] for kernel in self._kernels])).T

    def _invariants(self, incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        products = momentum_products(incoming, outgoing)
        return 2 * products[0, 1], -2 * products[0, 2], -2 * products[0, 3]

    def _flow_weights(self, element: int, incoming: Tensor, outgoing: Tensor) -> Tensor:
        """Weights (n, flows), those of leading colour times squares of invariants that make them finite.

        Four quarks: (b^2 + c^2) / a^2 for exchange in a. Otherwise |M_flow|^2 is a common factor over the squares of
        the two invariants of legs that are neighbours in colour, so times all squares it is that of the third one.
        """
        squares = [x.square() for x in self._invariants(incoming, outgoing)]
        if self._kernels[element].quarks == 4:
            total = squares[0] + squares[1] + squares[2]
            (first, second) = self._channels[element]
            weights = [(total - squares[a]) * squares[b] for a, b in ((first, second), (second, first))]
        else:
            weights = [squares[third] for third in self._channels[element]]
        return torch.stack(weights, dim=-1)
