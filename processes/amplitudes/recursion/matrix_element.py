"""Squared matrix elements of one process by recursion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.recursion.build import Output, Recursion
from nisampler.processes.amplitudes.recursion.colours import String, colour_matrix
from nisampler.processes.amplitudes.recursion.graph import COMPONENTS
from nisampler.processes.amplitudes.recursion.model import (
    Couplings,
    conjugate,
    is_fermion,
    is_quark,
)
from nisampler.processes.amplitudes.recursion.plan import Plan, lowered, run
from nisampler.processes.amplitudes.recursion.waves import Leg, light_cone, wave
from nisampler.processes.constants import GLUON, HIGGS


def spins(code: int, mass: float) -> tuple[int, ...]:
    """Helicities of a particle.

    >>> spins(24, 80.4), spins(21, 0.0), spins(25, 125.0)
    ((-1, 0, 1), (-1, 1), (0,))
    """
    if code == HIGGS:
        return (0,)
    return (-1, 0, 1) if mass and not is_fermion(code) else (-1, 1)


class MatrixElement:
    """|M|^2 of a process with given legs, averaged over initial and summed over final spins and colours.

    Parameters
    ----------
    initial, final
        PDG codes.
    couplings
        The Feynman rules.
    strong
        Powers of g_s that the amplitude may have; all others are electroweak. Amplitudes of different powers
        interfere.

    Raises
    ------
    AmplitudeError
        If no diagram exists.

    Examples
    --------
    >>> from nisampler.processes.parameters import StandardModel
    >>> element = MatrixElement((11, -11), (13, -13), Couplings(StandardModel(), "zero"), {0})
    >>> p = torch.tensor([[[50.0, 0, 0, 50], [50, 0, 0, -50], [50, 50, 0, 0], [50, -50, 0, 0]]], dtype=torch.float64)
    >>> element.squared(p, torch.tensor([0.118])).shape
    torch.Size([1])
    """

    def __init__(
        self, initial: Sequence[int], final: Sequence[int], couplings: Couplings, strong: set[int]
    ) -> None:
        self.initial, self.final, self.couplings = tuple(initial), tuple(final), couplings
        codes = (*self.initial, *self.final)
        self.legs = [
            Leg(code, place < len(self.initial), couplings.mass(code)) for place, code in enumerate(codes)
        ]
        outgoing = [conjugate(leg.code) if leg.incoming else leg.code for leg in self.legs]
        self.helicities = [spins(leg.code, leg.mass) for leg in self.legs]
        recursion = Recursion(outgoing, couplings, self.helicities, strong)
        if not recursion.outputs:
            raise AmplitudeError(f"no tree diagram of {self.initial} > {self.final} with powers {sorted(strong)} of g_s")
        self._keep(recursion, list(recursion.outputs))
        self.average = 1.0
        for leg in self.legs:
            if leg.incoming:
                colours = 8 if leg.code == GLUON else 3 if is_quark(leg.code) else 1
                self.average /= colours * len(spins(leg.code, leg.mass))
        for count in Counter(self.final).values():
            self.average /= math.factorial(count)

    def _keep(self, recursion: Recursion, outputs: Sequence[Output]) -> None:
        self.outputs = sorted(outputs, key=lambda o: (o.helicities, o.strings, o.strong))
        refs = [recursion.outputs[output] for output in self.outputs]
        self.plan: Plan = lowered(recursion.graph, [(ref.node, ref.factor) for ref in refs])
        self.flows: list[tuple[String, ...]] = sorted({output.strings for output in self.outputs})
        self.matrix = torch.from_numpy(colour_matrix(self.flows))

    def _momenta(self, p: Tensor) -> Tensor:
        cones = torch.stack([light_cone(p[:, i], leg.mass) for i, leg in enumerate(self.legs)], dim=1)
        sign = torch.tensor([-1.0 if leg.incoming else 1.0 for leg in self.legs], dtype=p.dtype, device=p.device)
        cones = cones * sign[:, None]
        member = torch.tensor(
            [[float(legs >> i & 1) for i in range(len(self.legs))] for legs in self.plan.sets],
            dtype=p.dtype,
            device=p.device,
        )
        plus, minus, x, y = torch.einsum("sl,nlc->csn", member, cones)
        zero = torch.zeros_like(plus)
        return torch.stack(
            [torch.complex(plus, zero), torch.complex(minus, zero), torch.complex(x, y), torch.complex(x, -y)], dim=1
        )

    def _waves(self, p: Tensor) -> Tensor:
        known: dict[tuple[int, int], Tensor] = {}
        rows = []
        for item in self.plan.waves:
            key = (item.leg, item.helicity or 0)
            if key not in known:
                known[key] = wave(self.legs[item.leg], p[:, item.leg], key[1])
            size = COMPONENTS[item.shape]  # type: ignore[index]
            rows.append(known[key][item.part * size : (item.part + 1) * size])
        return torch.cat(rows)

    def amplitudes(self, p: Tensor) -> Tensor:
        """Partial amplitudes (outputs, n) without the strong coupling; p (n, legs, 4) physical momenta in GeV."""
        if p.ndim != 3 or p.shape[1:] != (len(self.legs), 4):
            raise ShapeError(f"momenta must be (n, {len(self.legs)}, 4), got {tuple(p.shape)}")
        return run(self.plan, self._waves(p), self._momenta(p))

    def squared(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n,) of physical momenta p (n, legs, 4) in GeV, incoming ones first, with alpha_s (n,) or (1,)."""
        values = self.amplitudes(p)
        g = (4 * math.pi * alpha_s).sqrt()
        places: dict[int, dict[int, Tensor]] = {}
        for output, value in zip(self.outputs, values, strict=True):
            row = places.setdefault(output.helicities, {})
            flow = self.flows.index(output.strings)
            row[flow] = row.get(flow, 0) + value * g**output.strong
        total = torch.zeros_like(p[:, 0, 0])
        for row in places.values():
            order = sorted(row)
            vector = torch.stack([row[flow] for flow in order])
            matrix = self.matrix[order][:, order].to(vector)
            total = total + (vector.conj() * (matrix @ vector)).sum(0).real
        return total * self.average
