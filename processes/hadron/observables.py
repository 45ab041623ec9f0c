"""Observables of hadron processes for the report: bosons or tops, leptons, missing momentum and jets ordered in pT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nisampler.events.observables import Observable
from nisampler.processes.hadron.cuts import separation2
from nisampler.processes.hadron.events import FinalState
from nisampler.processes.observables import LegFunction, of_legs
from nisampler.processes.phase_space.kinematics import eta, mass, pt, rapidity

_BINS = 40


def hadron_observables(
    state: FinalState, mass_range: tuple[float, float], jet_pt_min: float, jet_eta_max: float
) -> tuple[Observable, ...]:
    """The observables of a final state.

    Parameters
    ----------
    state
        Legs by kind.
    mass_range
        Lowest and highest mass in GeV of the boson, or of the pair of heavy legs without one.
    jet_pt_min, jet_eta_max
        Limits of the jets, for the ranges of histograms.

    Examples
    --------
    >>> from nisampler.processes.hadron.events import Decay, Pole
    >>> decay = Decay((0, 1), (Pole(23, 91.1876, 2.4955),))
    >>> state = FinalState(masses=(0.0, 0.0), decays=(decay,), leptons=(0, 1))
    >>> [item.name for item in hadron_observables(state, (50.0, 1000.0), 20.0, 5.0)]
    ['mass_boson', 'y_boson', 'pt_lepton', 'eta_lepton']
    """
    make = _Histograms(state)
    jets = _jets(make, state, jet_pt_min, jet_eta_max) if state.jets else ()
    heavy = _heavy(make, state, mass_range) if state.decays or any(state.masses) else ()
    return (*heavy, *_leptons(make, state), *jets)


class _Histograms:
    """Makes observables from functions of the momenta (n, m, 4) of all legs."""

    def __init__(self, state: FinalState) -> None:
        self._legs = len(state.masses)

    def __call__(
        self, name: str, label: str, limits: tuple[float, float], function: LegFunction, *, log: bool = False
    ) -> Observable:
        return Observable(name, label, *limits, _BINS, of_legs(function, self._legs), log=log)


def _heavy(make: _Histograms, state: FinalState, mass_range: tuple[float, float]) -> Iterator[Observable]:
    """Mass, rapidity and pT of the boson; without one, of the pair of massive legs, and those of its first leg."""
    decays = [list(item.legs) for item in state.decays]
    pair = decays[0] if decays else [leg for leg, value in enumerate(state.masses) if value > 0]
    name, text = ("boson", "boson") if decays else ("pair", "$t\\bar t$")

    def total(p: Tensor) -> Tensor:
        return p[:, pair].sum(1)

    log = mass_range[1] > 5 * mass_range[0]
    invariant = make(f"mass_{name}", f"{text} mass [GeV]", mass_range, lambda p: mass(total(p)), log=log)
    yield replace(invariant, bins=2 * _BINS)
    yield make(f"y_{name}", f"{text} rapidity", (-5.0, 5.0), lambda p: rapidity(total(p)))
    if state.jets:
        yield make(f"pt_{name}", f"{text} $p_T$ [GeV]", (5.0, 500.0), lambda p: pt(total(p)), log=True)
    if not decays:
        yield make("pt_top", "top $p_T$ [GeV]", (0.0, 500.0), lambda p: pt(p[:, pair[0]]))
        yield make("y_top", "top rapidity", (-4.0, 4.0), lambda p: rapidity(p[:, pair[0]]))


def _leptons(make: _Histograms, state: FinalState) -> Iterator[Observable]:
    legs, hidden = list(state.leptons), list(state.invisible)
    if legs:
        yield make("pt_lepton", "leading-lepton $p_T$ [GeV]", (0.0, 150.0), lambda p: pt(p[:, legs]).amax(1))
        yield make("eta_lepton", "lepton $\\eta$", (-5.0, 5.0), lambda p: eta(p[:, legs[0]]))
    if hidden:
        yield make("pt_missing", "missing $p_T$ [GeV]", (0.0, 150.0), lambda p: pt(p[:, hidden].sum(1)))


def _jets(make: _Histograms, state: FinalState, pt_min: float, eta_max: float) -> Iterator[Observable]:
    legs = list(state.jets)

    def ordered(p: Tensor) -> Tensor:
        jets = p[:, legs]
        order = pt(jets).argsort(1, descending=True)
        return torch.take_along_dim(jets, order.unsqueeze(2), 1)

    def jet(index: int, function: LegFunction) -> LegFunction:
        return lambda p: function(ordered(p)[:, index])

    def distance(p: Tensor) -> Tensor:
        jets = ordered(p)
        return separation2(jets[:, 0], jets[:, 1]).sqrt()

    for index in range(len(legs)):
        label = f"$p_T$ of jet {index + 1} [GeV]"
        yield make(f"pt_jet{index + 1}", label, (pt_min, 25 * pt_min), jet(index, pt), log=True)
    limit = min(eta_max, 8.0)
    yield make("eta_jet1", "leading-jet $\\eta$", (-limit, limit), jet(0, eta))
    if len(legs) > 1:
        yield make("delta_r_jj", "$\\Delta R$ of the leading jets", (0.0, 2 * math.pi), distance)
        limits = (0.25 * pt_min, 50 * pt_min)
        label = "mass of the leading jets [GeV]"
        yield make("mass_jj", label, limits, lambda p: mass(ordered(p)[:, :2].sum(1)), log=True)
