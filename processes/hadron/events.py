"""Events of a hadron process: sub-process, colour flow and helicities drawn, everything written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.events.batch import FINAL, INCOMING, UNKNOWN_SPIN, EventBatch
from nisampler.events.columns import RESONANCE
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.base import draw
from nisampler.processes.partons.luminosity import Pdf
from nisampler.processes.phase_space.kinematics import mass


@dataclass(frozen=True)
class FinalState:
    """What the legs of a process are.

    Attributes
    ----------
    masses
        Mass of each leg in GeV.
    resonances
        PDG code and legs of each particle that decays to final legs.
    jets, leptons, invisible
        Legs by kind, for cuts and observables; leptons are the charged ones.

    Examples
    --------
    >>> FinalState(masses=(0.0, 0.0, 0.0), resonances=((23, (0, 1)),), jets=(2,), leptons=(0, 1)).jets
    (2,)
    """

    masses: tuple[float, ...]
    resonances: tuple[tuple[int, tuple[int, ...]], ...] = ()
    jets: tuple[int, ...] = ()
    leptons: tuple[int, ...] = ()
    invisible: tuple[int, ...] = ()


@dataclass(frozen=True)
class PartonPoints:
    """Everything a cross-section is made of at points that pass the cuts.

    Attributes
    ----------
    outgoing, incoming
        Momenta (n, m, 4) and (n, 2, 4).
    x
        Momentum fractions (n, 2).
    mu_r, mu_f
        Scales (n,).
    alpha_s
        Strong coupling (n,) at mu_r.
    densities
        x f of both beams, (n, 2, flavours).
    squared
        Squared matrix elements (n, elements).

    Examples
    --------
    >>> one, p = torch.ones(1), torch.zeros(1, 2, 4)
    >>> points = PartonPoints(p, p, x=torch.rand(1, 2), mu_r=91.2 * one, mu_f=91.2 * one, alpha_s=0.118 * one,
    ...                       densities=torch.rand(1, 2, 13), squared=torch.rand(1, 4))
    >>> len(points.alpha_s)
    1
    """

    outgoing: Tensor
    incoming: Tensor
    x: Tensor
    mu_r: Tensor
    mu_f: Tensor
    alpha_s: Tensor
    densities: Tensor
    squared: Tensor


class EventSource(Protocol):
    """What events need to know of a process.

    >>> def charged_legs(source: EventSource) -> int:
    ...     return len(source.final_state.leptons)
    """

    @property
    def final_state(self) -> FinalState:
        """Its legs."""

    @property
    def amplitude(self) -> Amplitude:
        """Its sub-processes and colour flows."""

    @property
    def pdf(self) -> Pdf:
        """Its parton densities."""

    @property
    def alpha_em(self) -> float:
        """The electromagnetic coupling."""


def event_batch(
    source: EventSource, points: PartonPoints, shares: Tensor, weights: Tensor, generator: torch.Generator
) -> EventBatch:
    """Events at points inside the cuts.

    Parameters
    ----------
    source
        The process.
    points
        Momenta, scales, couplings and densities of n events.
    shares
        (n, sub-processes) contributions to the cross-section, in any unit; each event draws one by them.
    weights
        (n,) event weights.
    generator
        Draws two numbers an event: its sub-process and its colour flow.

    Returns
    -------
    Incoming partons, decayed particles, final legs, in this order.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from nisampler.processes.amplitudes.currents import NeutralCurrent
    >>> from nisampler.processes.amplitudes.drell_yan import DrellYan
    >>> from nisampler.processes.partons.toy import ToyDensity
    >>> amplitude = DrellYan(NeutralCurrent())
    >>> source = SimpleNamespace(
    ...     final_state=FinalState(masses=(0.0, 0.0)), amplitude=amplitude, pdf=ToyDensity(), alpha_em=0.0078
    ... )
    >>> incoming = torch.tensor([[[45.0, 0, 0, 45.0], [45.0, 0, 0, -45.0]]], dtype=torch.float64)
    >>> outgoing = torch.tensor([[[45.0, 45.0, 0, 0], [45.0, -45.0, 0, 0]]], dtype=torch.float64)
    >>> scale, densities = torch.tensor([91.2]), torch.ones(1, 2, 13)
    >>> points = PartonPoints(outgoing, incoming, torch.ones(1, 2), scale, scale, scale, densities, torch.ones(1, 4))
    >>> shares = torch.zeros(1, len(amplitude.subprocesses))
    >>> shares[0, 2] = 1.0
    >>> event_batch(source, points, shares, torch.ones(1), torch.Generator()).pdg_ids
    array([[  2,  -2,  11, -11]], dtype=int32)
    """
    n = len(weights)
    uniform = torch.rand(n, 2, generator=generator, dtype=torch.float64, device=generator.device).to(shares.device)
    chosen = draw(shares, uniform[:, 0])
    colours, spins = _colours_and_spins(source, points, chosen, uniform[:, 1])
    layout = _Layout(source.final_state)
    codes = _of_subprocess([(*item.initial, *item.final) for item in source.amplitude.subprocesses], chosen)
    heavy = layout.decayed(points.outgoing)
    masses = points.outgoing.new_tensor((0.0, 0.0, *source.final_state.masses)).expand(n, -1)
    return EventBatch(
        momenta=layout.insert(torch.cat([points.incoming, points.outgoing], 1), heavy),
        masses=layout.insert(masses, mass(heavy)),
        pdg_ids=layout.insert(codes, codes.new_tensor(layout.resonance_codes).expand(n, -1)),
        status=np.broadcast_to(layout.status, (n, layout.slots)),
        mothers=np.broadcast_to(layout.mothers, (n, layout.slots, 2)),
        colours=layout.insert(colours, colours.new_zeros(n, heavy.shape[1], 2)),
        spins=layout.insert(spins, spins.new_full((n, heavy.shape[1]), UNKNOWN_SPIN)),
        weights=_array(weights.double()),
        scales=_array(points.mu_f),
        alpha_em=np.full(n, source.alpha_em),
        alpha_s=_array(points.alpha_s),
        process_ids=np.ones(n, dtype=np.int32),
        mu_r=_array(points.mu_r),
        pdf_x=_array(points.x),
        pdf_xf=_array(_incoming_densities(source, points, chosen)),
    )


def _of_subprocess(rows: list[tuple[int, ...]], chosen: Tensor) -> Tensor:
    """The row (n, k) of the sub-process of each event."""
    return torch.tensor(rows, device=chosen.device)[chosen]


def _incoming_densities(source: EventSource, points: PartonPoints, chosen: Tensor) -> Tensor:
    """Densities x f (n, 2) of the two incoming partons of each event."""
    rows = [tuple(source.pdf.column(pdg) for pdg in item.initial) for item in source.amplitude.subprocesses]
    return points.densities.gather(2, _of_subprocess(rows, chosen).unsqueeze(2)).squeeze(2)


class _Layout:
    """Order of the particles of an event: two incoming, resonances, final legs, and their mothers."""

    def __init__(self, final_state: FinalState) -> None:
        count, legs = len(final_state.resonances), len(final_state.masses)
        self.slots = 2 + count + legs
        self.resonance_codes = [code for code, _ in final_state.resonances]
        self._daughters = [list(legs) for _, legs in final_state.resonances]
        self.status = np.array([INCOMING] * 2 + [RESONANCE] * count + [FINAL] * legs)
        self.mothers = np.array([(0, 0)] * 2 + [(1, 2)] * (count + legs))
        for index, (_, daughters) in enumerate(final_state.resonances):
            for leg in daughters:
                self.mothers[2 + count + leg] = (3 + index, 3 + index)

    def decayed(self, outgoing: Tensor) -> Tensor:
        """Momenta (n, r, 4) of the resonances from those of the legs (n, m, 4)."""
        momenta = [outgoing[:, legs].sum(1) for legs in self._daughters]
        return torch.stack(momenta, 1) if momenta else outgoing.new_zeros(len(outgoing), 0, 4)

    def insert(self, particles: Tensor, resonances: Tensor) -> NDArray[Any]:
        """Columns (n, slots, ...) from those of partons and legs (n, 2 + m, ...) and of resonances (n, r, ...)."""
        return _array(torch.cat([particles[:, :2], resonances.to(particles.dtype), particles[:, 2:]], 1))


def _colours_and_spins(
    source: EventSource, points: PartonPoints, chosen: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Colour tags (n, 2 + m, 2) drawn by leading-colour weights, and helicities (n, 2 + m), 9 where unknown."""
    amplitude = source.amplitude
    n, legs = len(chosen), 2 + points.outgoing.shape[1]
    colours = torch.zeros(n, legs, 2, dtype=torch.long, device=chosen.device)
    spins = points.outgoing.new_full((n, legs), UNKNOWN_SPIN)
    known = getattr(amplitude, "spins", None)
    element = torch.tensor([item.element for item in amplitude.subprocesses], device=chosen.device)[chosen]
    for index in sorted(set(element.tolist())):
        rows = torch.nonzero(element == index).squeeze(1)
        at = (points.incoming[rows], points.outgoing[rows], points.alpha_s[rows])
        flow_weights, tags = amplitude.colour_flows(index, *at)
        colours[rows] = tags.to(chosen.device).long()[draw(flow_weights, uniform[rows])]
        if known is not None:
            spins[rows] = known(index, *at).to(spins)
    return colours, spins


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()
