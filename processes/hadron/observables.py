"""Observables of hadron processes for the report: bosons or tops, leptons, missing momentum and jets ordered in pT."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.events.batch import EventBatch
from nisampler.events.observables import Observable
from nisampler.processes.hadron.cuts import separation2
from nisampler.processes.hadron.events import FinalState
from nisampler.processes.phase_space.kinematics import eta, mass, pt, rapidity

LegFunction = Callable[[Tensor], Tensor]

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
        Of the boson, or of the pair of heavy legs without one, in GeV.
    jet_pt_min, jet_eta_max
        Limits of the jets, for the ranges of histograms.
    """
    found = [*_heavy(state, mass_range), *_leptons(state)]
    if state.jets:
        found += _jets(state, jet_pt_min, jet_eta_max)
    return tuple(found)


def _of_legs(state: FinalState, function: LegFunction) -> Callable[[EventBatch], NDArray[np.float64]]:
    """A function of the legs' momenta (n, m, 4) as a function of event batches."""
    first, legs = 2 + len(state.resonances), len(state.masses)

    def observable(batch: EventBatch) -> NDArray[np.float64]:
        momenta = torch.from_numpy(np.ascontiguousarray(batch.momenta[:, first : first + legs]))
        return function(momenta).numpy()

    return observable


def _heavy(state: FinalState, mass_range: tuple[float, float]) -> list[Observable]:
    """Mass, rapidity and pT of the boson; without one, of the pair of massive legs, and those of its first leg."""
    decays = [list(legs) for _, legs in state.resonances]
    pair = decays[0] if decays else [leg for leg, value in enumerate(state.masses) if value > 0]
    name, text = ("boson", "boson") if decays else ("pair", "$t\\bar t$")
    low, high = mass_range
    found = [
        Observable(
            f"mass_{name}",
            f"{text} mass [GeV]",
            low,
            high,
            2 * _BINS,
            _of_legs(state, lambda p: mass(p[:, pair].sum(1))),
            log=high > 5 * low,
        ),
        Observable(
            f"y_{name}", f"{text} rapidity", -5.0, 5.0, _BINS, _of_legs(state, lambda p: rapidity(p[:, pair].sum(1)))
        ),
    ]
    if state.jets:
        function = _of_legs(state, lambda p: pt(p[:, pair].sum(1)))
        found.append(Observable(f"pt_{name}", f"{text} $p_T$ [GeV]", 5.0, 500.0, _BINS, function, log=True))
    if not decays:
        function = _of_legs(state, lambda p: pt(p[:, pair[0]]))
        found.append(Observable("pt_top", "top $p_T$ [GeV]", 0.0, 500.0, _BINS, function))
        function = _of_legs(state, lambda p: rapidity(p[:, pair[0]]))
        found.append(Observable("y_top", "top rapidity", -4.0, 4.0, _BINS, function))
    return found


def _leptons(state: FinalState) -> list[Observable]:
    found = []
    if state.leptons:
        legs = list(state.leptons)
        leading = _of_legs(state, lambda p: pt(p[:, legs]).amax(1))
        found.append(Observable("pt_lepton", "leading-lepton $p_T$ [GeV]", 0.0, 150.0, _BINS, leading))
        forward = _of_legs(state, lambda p: eta(p[:, legs[0]]))
        found.append(Observable("eta_lepton", "lepton $\\eta$", -5.0, 5.0, _BINS, forward))
    if state.invisible:
        hidden = list(state.invisible)
        missing = _of_legs(state, lambda p: pt(p[:, hidden].sum(1)))
        found.append(Observable("pt_missing", "missing $p_T$ [GeV]", 0.0, 150.0, _BINS, missing))
    return found


def _jets(state: FinalState, pt_min: float, eta_max: float) -> list[Observable]:
    legs = list(state.jets)

    def ordered(p: Tensor) -> Tensor:
        jets = p[:, legs]
        order = pt(jets).argsort(1, descending=True)
        return torch.take_along_dim(jets, order.unsqueeze(2), 1)

    found = []
    for index in range(len(legs)):
        function = _of_legs(state, _component(ordered, index, pt))
        label = f"$p_T$ of jet {index + 1} [GeV]"
        found.append(Observable(f"pt_jet{index + 1}", label, pt_min, 25 * pt_min, _BINS, function, log=True))
    function = _of_legs(state, _component(ordered, 0, eta))
    limit = min(eta_max, 8.0)
    found.append(Observable("eta_jet1", "leading-jet $\\eta$", -limit, limit, _BINS, function))
    if len(legs) > 1:
        found += _dijets(state, ordered, pt_min)
    return found


def _dijets(state: FinalState, ordered: LegFunction, pt_min: float) -> list[Observable]:
    def distance(p: Tensor) -> Tensor:
        jets = ordered(p)
        return separation2(jets[:, 0], jets[:, 1]).sqrt()

    together = _of_legs(state, lambda p: mass(ordered(p)[:, :2].sum(1)))
    return [
        Observable("delta_r_jj", "$\\Delta R$ of the leading jets", 0.0, 2 * math.pi, _BINS, _of_legs(state, distance)),
        Observable("mass_jj", "mass of the leading jets [GeV]", 0.25 * pt_min, 50 * pt_min, _BINS, together, log=True),
    ]


def _component(ordered: LegFunction, index: int, function: LegFunction) -> LegFunction:
    return lambda p: function(ordered(p)[:, index])
