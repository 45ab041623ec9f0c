"""Events of a hadron process: sub-process, colour flow and helicities drawn, everything written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.events.batch import FINAL, INCOMING, UNKNOWN_SPIN, EventBatch
from nisampler.events.columns import RESONANCE
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.base import draw
from nisampler.processes.hadron.groups import group_codes
from nisampler.processes.partons.luminosity import Pdf
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.phase_space.kinematics import leg_quantities, mass, pt

BW_CUTOFF = 15.0
"""Widths around its pole within which a resonance is written, as in MadGraph (bwcutoff)."""


class Pole(NamedTuple):
    """A resonance: its PDG code, mass and width in GeV.

    >>> Pole(23, 91.1876, 2.4955).code
    23
    """

    code: int
    mass: float
    width: float


class Decay(NamedTuple):
    """Legs that come from a resonance, and which ones it can be.

    >>> Decay((0, 1), (Pole(23, 91.1876, 2.4955),)).written(torch.tensor([30.0, 91.0]))
    tensor([ 0, 23])
    """

    legs: tuple[int, ...]
    poles: tuple[Pole, ...]

    def written(self, mass: Tensor) -> Tensor:
        """The code (n,) that a record names at the masses (n,) of its legs: of the pole that is nearest in widths, 0
        where it is `BW_CUTOFF` away or more. A shower would take a photon of 30 GeV for a Z otherwise.
        """
        codes, masses, widths = (mass.new_tensor(column) for column in zip(*self.poles, strict=True))
        distance, nearest = ((mass.unsqueeze(1) - masses).abs() / widths).min(1)
        return torch.where(distance < BW_CUTOFF, codes[nearest], 0.0).long()


@dataclass(frozen=True)
class FinalState:
    """What the legs of a process are.

    Attributes
    ----------
    masses
        Mass of each leg in GeV.
    decays
        Legs of each particle that decays, and what it can be, each before those among its products.
    jets, leptons, invisible
        Legs by kind, for cuts and observables; leptons are the charged ones.

    Examples
    --------
    >>> decay = Decay((0, 1), (Pole(23, 91.1876, 2.4955),))
    >>> FinalState(masses=(0.0, 0.0, 0.0), decays=(decay,), jets=(2,), leptons=(0, 1)).jets
    (2,)
    """

    masses: tuple[float, ...]
    decays: tuple[Decay, ...] = ()
    jets: tuple[int, ...] = ()
    leptons: tuple[int, ...] = ()
    invisible: tuple[int, ...] = ()

    def quantities(self, p: Tensor) -> dict[str, Tensor]:
        """What momenta p (n, m, 4) look like (n,) by name, see `leg_quantities`; jets come by their pT.

        >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0], [13.0, 5.0, 0.0, 12.0]]])
        >>> FinalState(masses=(0.0, 0.0), jets=(0, 1)).quantities(p)["pT(j1)"]
        tensor([5.])
        """
        names = [f"p{k + 1}" for k in range(len(self.masses))]
        for letter, legs in (("j", self.jets), ("l", self.leptons), ("v", self.invisible)):
            for number, leg in enumerate(legs, 1):
                names[leg] = f"{letter}{number}"
        jets = list(self.jets)
        if len(jets) > 1:
            order = pt(p[:, jets]).argsort(dim=1, descending=True, stable=True)
            p = p.clone()
            p[:, jets] = torch.take_along_dim(p[:, jets], order.unsqueeze(2), 1)
        found = leg_quantities(p, names)
        masses = {f"m({' '.join(names[leg] for leg in item.legs)})": item.legs for item in self.decays}
        return found | {name: mass(p[:, list(legs)].sum(1)) for name, legs in masses.items()}


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
    Incoming partons, decayed particles near their pole, final legs, in this order.

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
    _, codes_of_groups = group_codes(source.amplitude.subprocesses)
    layout = _Layout(source.final_state.decays, points.outgoing)
    codes = _of_subprocess([(*item.initial, *item.final) for item in source.amplitude.subprocesses], chosen)
    masses = points.outgoing.new_tensor((0.0, 0.0, *source.final_state.masses)).expand(n, -1)
    return EventBatch(
        momenta=layout.insert(torch.cat([points.incoming, points.outgoing], 1), layout.momenta),
        masses=layout.insert(masses, mass(layout.momenta)),
        pdg_ids=layout.insert(codes, layout.codes),
        status=layout.status,
        mothers=layout.mothers,
        colours=layout.insert(colours, _open_lines(colours[:, 2:], source.final_state.decays)),
        spins=layout.insert(spins, spins.new_full(layout.codes.shape, UNKNOWN_SPIN), UNKNOWN_SPIN),
        weights=_array(weights.double()),
        scales=_array(points.mu_f),
        alpha_em=np.full(n, source.alpha_em),
        alpha_s=_array(points.alpha_s),
        process_ids=_array(torch.tensor(codes_of_groups, device=chosen.device)[chosen]),
        mu_r=_array(points.mu_r),
        **_densities(source, points, chosen),
    )


def _of_subprocess(rows: list[tuple[int, ...]], chosen: Tensor) -> Tensor:
    """The row (n, k) of the sub-process of each event."""
    return torch.tensor(rows, device=chosen.device)[chosen]


def _densities(source: EventSource, points: PartonPoints, chosen: Tensor) -> dict[str, NDArray[Any]]:
    """Momentum fractions and densities x f (n, 2) of the incoming partons of each event; none of point-like beams."""
    if isinstance(source.pdf, PointBeams):
        return {}
    rows = [tuple(source.pdf.column(pdg) for pdg in item.initial) for item in source.amplitude.subprocesses]
    found = points.densities.gather(2, _of_subprocess(rows, chosen).unsqueeze(2)).squeeze(2)
    return {"pdf_x": _array(points.x), "pdf_xf": _array(found)}


class _Layout:
    """Order of the particles of events: two incoming, resonances, final legs, empty slots; and their mothers."""

    def __init__(self, decays: tuple[Decay, ...], outgoing: Tensor) -> None:
        n, legs = outgoing.shape[:2]
        self.momenta = outgoing.new_zeros(n, len(decays), 4)
        self.codes = torch.zeros(n, len(decays), dtype=torch.long, device=outgoing.device)
        for index, decay in enumerate(decays):
            self.momenta[:, index] = outgoing[:, list(decay.legs)].sum(1)
            self.codes[:, index] = decay.written(mass(self.momenta[:, index]))
        self._written = self.codes != 0
        place = 2 + self._written.cumsum(1)
        mothers = torch.tensor([[0, 0], [0, 0], *[[1, 2]] * legs], device=outgoing.device).repeat(n, 1, 1)
        for index, decay in enumerate(decays):
            rows = torch.nonzero(self._written[:, index]).squeeze(1)
            for leg in decay.legs:
                mothers[rows, 2 + leg] = place[rows, index].unsqueeze(1)
        status = torch.tensor([INCOMING] * 2 + [FINAL] * legs, device=outgoing.device).expand(n, -1)
        present = torch.cat([status[:, :2] != 0, self._written, status[:, 2:] != 0], 1)
        self._order = (~present).to(torch.uint8).argsort(dim=1, stable=True)
        self.status = self.insert(status, torch.full_like(self.codes, RESONANCE))
        of_resonances = mothers.new_tensor([1, 2]).repeat(n, len(decays), 1)
        for index, decay in enumerate(decays):
            for outer, other in enumerate(decays[:index]):
                if {*decay.legs} < {*other.legs}:
                    rows = torch.nonzero(self._written[:, outer]).squeeze(1)
                    of_resonances[rows, index] = place[rows, outer].unsqueeze(1)
        self.mothers = self.insert(mothers, of_resonances)

    def insert(self, particles: Tensor, resonances: Tensor, empty: float = 0.0) -> NDArray[Any]:
        """Columns (n, slots, ...) from those of partons and legs (n, 2 + m, ...) and of resonances (n, r, ...)."""
        axes = (...,) + (None,) * (particles.dim() - 2)
        inner = torch.where(self._written[axes], resonances.to(particles.dtype), empty)
        column = torch.cat([particles[:, :2], inner.to(particles.dtype), particles[:, 2:]], 1)
        return _array(torch.take_along_dim(column, self._order[axes], 1))


def _open_lines(colours: Tensor, decays: tuple[Decay, ...]) -> Tensor:
    """Tags (n, decays, 2) of what decays: those of its products (n, m, 2) that do not end among them."""
    found = colours.new_zeros(len(colours), len(decays), 2)
    for index, decay in enumerate(decays):
        starts, ends = colours[:, list(decay.legs)].unbind(-1)
        for side, (own, other) in enumerate(((starts, ends), (ends, starts))):
            closed = (own.unsqueeze(2) == other.unsqueeze(1)).any(2)
            found[:, index, side] = torch.where(closed, 0, own).sum(1)
    return found


def _colours_and_spins(
    source: EventSource, points: PartonPoints, chosen: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Colour tags (n, 2 + m, 2) drawn by leading-colour weights, and helicities (n, 2 + m), 9 where unknown.

    An amplitude with a method `drawn` draws both by itself.
    """
    amplitude = source.amplitude
    n, legs = len(chosen), 2 + points.outgoing.shape[1]
    colours = torch.zeros(n, legs, 2, dtype=torch.long, device=chosen.device)
    spins = points.outgoing.new_full((n, legs), UNKNOWN_SPIN)
    known, drawn = getattr(amplitude, "spins", None), getattr(amplitude, "drawn", None)
    element = torch.tensor([item.element for item in amplitude.subprocesses], device=chosen.device)[chosen]
    for index in sorted(set(element.tolist())):
        rows = torch.nonzero(element == index).squeeze(1)
        at = (points.incoming[rows], points.outgoing[rows], points.alpha_s[rows])
        if drawn is not None:
            colours[rows], spins[rows] = drawn(index, *at, uniform[rows])
            continue
        flow_weights, tags = amplitude.colour_flows(index, *at)
        colours[rows] = tags.to(chosen.device).long()[draw(flow_weights, uniform[rows])]
        if known is not None:
            spins[rows] = known(index, *at).to(spins)
    return colours, spins


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()
