"""A process from its string: amplitudes, phase space along its diagrams, cuts, scales and event records."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import torch

from nisampler.errors import AmplitudeError, ConfigError
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import PARTONS
from nisampler.processes.constants import ALPHA_S, PHOTON, W_BOSON, Z_BOSON
from nisampler.processes.hadron.cuts import (
    Cut,
    Cuts,
    MassCut,
    MissingTransverseMomentumCut,
    SeparationCut,
    leg_cuts,
)
from nisampler.processes.hadron.events import Decay, FinalState, Pole
from nisampler.processes.hadron.observables import hadron_observables
from nisampler.processes.hadron.process import HadronProcess, HadronSetup
from nisampler.processes.hadron.scales import make_scales
from nisampler.processes.particles import is_coloured, is_lepton, thrice_charge
from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.luminosity import Pdf
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.partons.variations import Nominal
from nisampler.processes.standard_model.channels import Region, chosen, diagram_channels
from nisampler.processes.standard_model.cuts import DistanceCut, LeadingPairCut
from nisampler.processes.standard_model.diagrams import Diagram, diagrams
from nisampler.processes.standard_model.parameters import StringParameters


def create_from_string(process: str, **parameters: Any) -> HadronProcess:
    """A process like ``p p > w+ w+ j j QCD=0`` or ``e+ e- > mu+ mu- h``; parameters are those of `StringParameters`.

    Partons come from protons. Charged leptons and photons are beams themselves, with half of ``sqrt_s`` each, which is
    then to be given; they radiate nothing.

    Raises
    ------
    AmplitudeError
        If the string cannot be read, no diagram exists, or the incoming particles are no beams.
    ConfigError
        If a parameter is unknown, missing, of the wrong type or outside its range, or cuts contradict each other.
    PdfError
        If the parton densities are missing, or a parton of the process has none.

    Examples
    --------
    >>> create_from_string("e+ e- > mu+ mu- h", sqrt_s=240.0).beams.pdg_ids
    (-11, 11)
    >>> create_from_string("e- p > e- j")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: 'e- p > e- j': beams are two protons, of gluons and light quarks, or two ...
    """
    card = StringParameters(**parameters)
    model = card.model
    amplitude = RecursiveAmplitude(process, model, card.scheme, card.flavours)
    pdf = _densities(process, amplitude, card, set(parameters))
    point_like = isinstance(pdf, PointBeams)
    couplings = amplitude.couplings
    legs = _Legs(amplitude)
    state, region = legs.final_state(couplings), legs.region(couplings, card, point_like)
    powers = {power for item in amplitude.matrices.values() for power in item.strong}
    if not region.least_energy < card.sqrt_s:
        raise ConfigError(
            f"contradictory cuts: the final state of {process!r} has at least {region.least_energy:.6g} GeV, "
            f"sqrt_s is {card.sqrt_s} GeV"
        )
    channels, groups = diagram_channels(_all_diagrams(amplitude, powers), couplings, region, state.jets)
    constants = {"m_Z": model.mass_z, "m_W": model.mass_w, "m_t": model.mass_top, "m_H": model.mass_higgs}
    heavy = [item.legs for item in state.decays] + [(leg,) for leg, mass in enumerate(state.masses) if mass]
    setup = HadronSetup(
        name=process,
        final_state=state,
        amplitude=amplitude,
        pdf=pdf,
        scales=make_scales(card.scale, heavy, constants, (card.mu_r_factor, card.mu_f_factor)),
        cuts=Cuts(legs.cuts(card), card.sqrt_s),
        channels=channels,
        groups=groups,
        alpha_s=_alpha_s(card),
        alpha_em=model.alpha_em,
        nominal=None
        if point_like or len(powers) > 1
        else Nominal(card.pdf, min(powers), card.alpha_s, card.alpha_s_loops),
        observables=hadron_observables(
            state, (1.0, card.sqrt_s if point_like else 0.2 * card.sqrt_s), card.pt_jet_min, card.eta_jet_max
        ),
    )
    return _with_the_best(setup, card)


def _densities(process: str, amplitude: RecursiveAmplitude, card: StringParameters, given: set[str]) -> Pdf:
    """Those of protons, or beams of leptons and photons."""
    pairs = {item.initial for item in amplitude.subprocesses}
    codes = {code for pair in pairs for code in pair}
    if codes <= set(PARTONS):
        return load_pdf(card.pdf)
    if len(pairs) > 1 or not all(code == PHOTON or (is_lepton(code) and code % 2) for code in codes):
        raise AmplitudeError(
            f"{process!r}: beams are two protons, of gluons and light quarks, or two charged leptons or photons, "
            "each of one kind"
        )
    if "sqrt_s" not in given or "pdf" in given:
        raise ConfigError(f"{process!r} needs sqrt_s, the energy of the beams together in GeV, and has no use for pdf")
    return PointBeams(pairs.pop(), _alpha_s(card) or RunningAlphaS(ALPHA_S, loops=card.alpha_s_loops))


def _alpha_s(card: StringParameters) -> RunningAlphaS | None:
    return None if card.alpha_s is None else RunningAlphaS(card.alpha_s, loops=card.alpha_s_loops)


def _with_the_best(setup: HadronSetup, card: StringParameters) -> HadronProcess:
    """The process with those channels that a survey at fixed points finds important."""
    whole = HadronProcess(setup, card)
    if len(setup.channels) == 1:
        return whole
    generator = torch.Generator().manual_seed(1)
    kept = chosen(whole.multichannel, whole.multichannel.groups, generator)
    groups = [whole.multichannel.groups[place] for place in kept]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return HadronProcess(
        replace(setup, channels=[setup.channels[k] for k in kept], groups=[numbers[g] for g in groups]), card
    )


def _all_diagrams(amplitude: RecursiveAmplitude, powers: set[int]) -> list[Diagram]:
    """Those of every matrix element, with the legs of the process."""
    vertices = Vertices(amplitude.couplings)
    found: dict[Diagram, None] = {}
    for element in amplitude.table.elements:
        codes = [0] * len(element.process)
        for place, source in enumerate(element.permutation):
            codes[source] = element.process[place]
        found |= dict.fromkeys(diagrams(codes[:2], codes[2:], vertices, powers))
    return list(found)


class _Legs:
    """The final legs by kind; those of a fixed particle know which one."""

    def __init__(self, amplitude: RecursiveAmplitude) -> None:
        self.codes = amplitude.subprocesses[0].final
        kinds = list(enumerate(self.codes))
        self.leptons = tuple(leg for leg, code in kinds if is_lepton(code) and code % 2)
        self.neutrinos = tuple(leg for leg, code in kinds if is_lepton(code) and not code % 2)
        self.photons = tuple(leg for leg, code in kinds if code == PHOTON)
        self.jets = tuple(leg for leg, code in kinds if is_coloured(code) and not amplitude.couplings.mass(code))
        self.fixed = [len(codes) == 1 for codes in amplitude.table.legs.final]
        # A pair of one charged lepton and its antiparticle may come from a photon.
        self.pairs = [
            pair
            for pair in itertools.combinations(self.leptons, 2)
            if any(item.final[pair[0]] == -item.final[pair[1]] for item in amplitude.subprocesses)
        ]

    def final_state(self, couplings: Couplings) -> FinalState:
        """What event records and scales need."""
        masses = tuple(couplings.mass(code) for code in self.codes)
        return FinalState(masses, self._decays(couplings), self.jets, self.leptons, self.neutrinos)

    def _decays(self, couplings: Couplings) -> tuple[Decay, ...]:
        """W and Z from leptons of one generation, where only one pairing is possible."""
        decays: list[Decay] = []
        for generation in (11, 13, 15):
            members = [leg for leg, code in enumerate(self.codes) if abs(code) in (generation, generation + 1)]
            if len(members) != 2 or not all(self.fixed[leg] for leg in members):
                continue
            charge = sum(map(thrice_charge, (self.codes[leg] for leg in members))) // 3
            if abs(charge) > 1:
                continue
            code = charge * W_BOSON if charge else Z_BOSON
            decays.append(Decay((members[0], members[1]), (Pole(code, couplings.mass(code), couplings.width(code)),)))
        return tuple(decays)

    def _pt_min(self, leg: int, card: StringParameters) -> float:
        for legs, least in (
            (self.jets, card.pt_jet_min),
            (self.leptons, card.pt_lepton_min),
            (self.photons, card.pt_photon_min),
        ):
            if leg in legs:
                return least
        return 0.0

    def region(self, couplings: Couplings, card: StringParameters, fixed: bool) -> Region:
        """What channels need to know of the cuts."""
        count = range(len(self.codes))
        least = tuple(self._pt_min(leg, card) for leg in count)
        pairs: dict[tuple[int, int], float] = {}
        for first, second in itertools.combinations(count, 2):
            distance = self._distance(first, second, card)
            opening = 1 - math.cos(min(distance, math.pi))
            pairs[first, second] = math.sqrt(2 * least[first] * least[second] * opening)
        for pair in self.pairs:
            pairs[pair] = max(pairs[pair], card.m_ll_min)
        if len(self.jets) == 2:
            pairs[self.jets[0], self.jets[1]] = max(pairs[self.jets[0], self.jets[1]], card.m_jj_min)
        masses = tuple(couplings.mass(code) for code in self.codes)
        return Region(card.sqrt_s, masses, least, {pair: low for pair, low in pairs.items() if low > 0}, fixed)

    def _distance(self, first: int, second: int, card: StringParameters) -> float:
        charged = self.leptons + self.photons
        jets, leptons = (sum(leg in legs for leg in (first, second)) for legs in (self.jets, charged))
        if jets == 2:
            return card.delta_r_jj_min
        if leptons == 2:
            return card.delta_r_ll_min
        return card.delta_r_jl_min if jets == leptons == 1 else 0.0

    def cuts(self, card: StringParameters) -> list[Cut]:
        """All cuts that cut anything."""
        charged = self.leptons + self.photons
        found: list[Cut] = []
        for legs, least, widest in (
            (self.jets, card.pt_jet_min, card.eta_jet_max),
            (self.leptons, card.pt_lepton_min, card.eta_lepton_max),
            (self.photons, card.pt_photon_min, card.eta_photon_max),
        ):
            found += leg_cuts(legs, least, widest)
        if len(self.jets) > 1:
            found.append(SeparationCut(self.jets, card.delta_r_jj_min))
            if card.m_jj_min or card.delta_eta_jj_min:
                found.append(LeadingPairCut(self.jets, card.m_jj_min, card.delta_eta_jj_min))
        if len(charged) > 1 and card.delta_r_ll_min:
            found.append(SeparationCut(charged, card.delta_r_ll_min))
        if charged and self.jets and card.delta_r_jl_min:
            found.append(DistanceCut(charged, self.jets, card.delta_r_jl_min))
        if card.m_ll_min or not math.isinf(card.m_ll_max):
            found += [MassCut(pair, card.m_ll_min, card.m_ll_max) for pair in self.pairs]
        if card.pt_missing_min:
            found.append(MissingTransverseMomentumCut(self.neutrinos, card.pt_missing_min))
        return found
