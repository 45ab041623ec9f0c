"""The registered proton-proton processes, put together from their parts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nisampler.density.maps import Channel
from nisampler.processes.amplitudes.currents import ChargedCurrent, LeptonicCurrent, NeutralCurrent
from nisampler.processes.amplitudes.drell_yan import DrellYan
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.amplitudes.top_pair import TopPair
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.constants import ELECTRON, ELECTRON_NEUTRINO, TOP, W_BOSON, Z_BOSON, Z_PRIME
from nisampler.processes.hadron.cuts import (
    Cut,
    Cuts,
    MassCut,
    MissingTransverseMomentumCut,
    SeparationCut,
    leg_cuts,
)
from nisampler.processes.hadron.events import Decay, FinalState, Pole
from nisampler.processes.hadron.legs import Legs
from nisampler.processes.hadron.lhc_parameters import (
    CollisionParameters,
    LeptonPairParameters,
    TopPairParameters,
    WJetsParameters,
    ZJetsParameters,
    ZPrimeParameters,
)
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.hadron.wiring import Parts, all_cuts, wired
from nisampler.processes.parameters import StandardModel, ZPrime
from nisampler.processes.particles import NAMES
from nisampler.processes.phase_space import (
    Boson,
    BreitWigner,
    ChiliChannel,
    Hadronic,
    IntervalMap,
    JetRegion,
    PowerLaw,
    TopologyChannel,
    chili_channels,
    heavy_pair_channels,
    topology_channels,
)
from nisampler.processes.phase_space.densities import propagator_weights

# |M|² of a virtual photon depends on angles alone: its cross-section falls as 1/ŝ, the densities as another 1/ŝ.
_PHOTON = PowerLaw(2.0)
# The two legs of the boson, and the two tops.
_PAIR = (0, 1)
# Rapidities beyond this need more energy than any collider has.
_WIDEST = 12.0

ChannelSet = tuple[list[Channel], list[int]]


def create_drell_yan(**parameters: Any) -> HadronProcess:
    """p p -> e- e+ through photon and Z; parameters are those of `LeptonPairParameters`.

    Raises
    ------
    ConfigError
        If a parameter is unknown, of the wrong type or outside its range, or cuts contradict each other.
    PdfError
        If the parton densities are missing.
    MissingExtraError
        If they, or the matrix element, need a package that is not installed.

    Examples
    --------
    >>> create_drell_yan(m_min=0.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: m_min = 0.0: must be a number, more than 0
    """
    card, model = LeptonPairParameters(**parameters), StandardModel()
    maps: dict[str, IntervalMap] = {"photon": _PHOTON, "Z": BreitWigner(model.mass_z, model.width_z)}
    return _lepton_pair("drell_yan", card, NeutralCurrent(model), (_z_pole(model),), maps)


def create_z_prime(**parameters: Any) -> HadronProcess:
    """p p -> e- e+ through photon, Z and Z', a channel for each; raises as `create_drell_yan` does.

    >>> create_z_prime(n_jets=2)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: n_jets = 2: must be 0 or 1
    """
    card, model = ZPrimeParameters(**parameters), StandardModel()
    maps: dict[str, IntervalMap] = {
        "photon": _PHOTON,
        "Z": BreitWigner(model.mass_z, model.width_z),
        "Z'": BreitWigner(card.m_z_prime, card.width_z_prime),
    }
    couplings = (card.z_prime_up, card.z_prime_down, card.z_prime_lepton)
    current = NeutralCurrent(model, ZPrime(card.m_z_prime, card.width_z_prime, *couplings))
    poles = (_z_pole(model), Pole(Z_PRIME, card.m_z_prime, card.width_z_prime))
    return _lepton_pair("z_prime", card, current, poles, maps)


def create_z_jets(**parameters: Any) -> HadronProcess:
    """p p -> e- e+ + n_jets jets through photon and Z; raises as `create_drell_yan` does.

    >>> create_z_jets(delta_r_jj_min=4.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: delta_r_jj_min = 4.0: must be a number, more than 0 and less than 3.14159
    """
    card, model = ZJetsParameters(**parameters), StandardModel()
    maps = {"Z": BreitWigner(model.mass_z, model.width_z)}
    return _lepton_pair("z_jets", card, NeutralCurrent(model), (_z_pole(model),), maps)


def create_w_plus_jets(**parameters: Any) -> HadronProcess:
    """p p -> W+ -> e+ nu_e + n_jets jets; raises as `create_drell_yan` does.

    >>> create_w_plus_jets(n_jets=4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: n_jets = 4: must be a whole number, at least 0 and at most 3
    """
    return _w_jets("w_plus_jets", 1, parameters)


def create_w_minus_jets(**parameters: Any) -> HadronProcess:
    """p p -> W- -> e- nubar_e + n_jets jets; raises as `create_drell_yan` does.

    >>> create_w_minus_jets(channels="vegas")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: channels = "vegas": must be "chili" or "topology"
    """
    return _w_jets("w_minus_jets", -1, parameters)


def create_ttbar(**parameters: Any) -> HadronProcess:
    """p p -> t tbar of stable tops; raises as `create_drell_yan` does.

    >>> create_ttbar(mass_top=7000.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: mass_top = 7000.0 is too heavy for a pair at sqrt_s = 13000.0 GeV
    """
    return _top_pair("ttbar", 0, parameters)


def create_ttbar_jet(**parameters: Any) -> HadronProcess:
    """p p -> t tbar and one jet; raises as `create_drell_yan` does.

    >>> create_ttbar_jet(pt_jet_min=0.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: pt_jet_min = 0.0: must be a number, more than 0
    """
    return _top_pair("ttbar_jet", 1, parameters)


def _w_jets(name: str, charge: int, parameters: dict[str, Any]) -> HadronProcess:
    card, model = WJetsParameters(**parameters), StandardModel()
    maps = {"W": BreitWigner(model.mass_w, model.width_w)}
    pole = Pole(charge * W_BOSON, model.mass_w, model.width_w)
    return _lepton_pair(name, card, ChargedCurrent(charge, model), (pole,), maps)


def _z_pole(model: StandardModel) -> Pole:
    return Pole(Z_BOSON, model.mass_z, model.width_z)


def _lepton_pair(
    name: str,
    card: LeptonPairParameters,
    current: LeptonicCurrent,
    poles: tuple[Pole, ...],
    maps: Mapping[str, IntervalMap],
) -> HadronProcess:
    """A boson with these poles to leptons, and jets; one set of channels for each map of the boson's mass."""
    kinds = [abs(code) for code in current.leptons]
    state = FinalState(
        masses=(0.0,) * (2 + card.n_jets),
        decays=(Decay(_PAIR, poles),),
        jets=tuple(range(2, 2 + card.n_jets)),
        leptons=tuple(leg for leg in _PAIR if kinds[leg] == ELECTRON),
        invisible=tuple(leg for leg in _PAIR if kinds[leg] == ELECTRON_NEUTRINO),
    )
    cuts = _lepton_pair_cuts(state, card)
    channels = _lepton_pair_channels(card, maps)
    heaviest = max((shape.mass for shape in maps.values() if isinstance(shape, BreitWigner)), default=0.0)
    shown = min(card.sqrt_s, 2.5 * max(heaviest, card.m_min)) if math.isinf(card.m_max) else card.m_max
    amplitude = _lepton_pair_amplitude(current, card)
    return _process(name, card, state, amplitude, cuts, channels, (card.m_min, shown))


def _lepton_pair_cuts(state: FinalState, card: LeptonPairParameters) -> Cuts:
    cuts: list[Cut] = [MassCut(_PAIR, card.m_min, card.m_max)]
    cuts += leg_cuts(state.leptons, card.pt_lepton_min, card.eta_lepton_max)
    if card.pt_missing_min != 0:
        cuts.append(MissingTransverseMomentumCut(state.invisible, card.pt_missing_min))
    cuts += leg_cuts(state.jets, card.pt_jet_min, card.eta_jet_max)
    if len(state.jets) > 1:
        cuts.append(SeparationCut(state.jets, card.delta_r_jj_min))
    return Cuts(cuts, card.sqrt_s)


def _lepton_pair_channels(card: LeptonPairParameters, maps: Mapping[str, IntervalMap]) -> ChannelSet:
    """Channels of every boson map, and the flow of each; channels of different maps share none."""
    channels: list[Channel] = []
    groups: list[int] = []
    for label, shape in maps.items():
        boson = Boson(shape, card.m_min, min(card.m_max, card.sqrt_s))
        found, own = _boson_channels(card, boson, card.n_jets, card.delta_r_jj_min)
        for channel in found:
            channel.name = f"{label}: {channel.name}" if card.n_jets else label
        first = max(groups, default=-1) + 1
        channels += found
        groups += [first + group for group in own]
    return channels, groups


def _boson_channels(
    card: CollisionParameters, boson: Boson, jets: int, distance: float = 0.4
) -> tuple[list[ChiliChannel] | list[TopologyChannel], list[int]]:
    if card.channels == "topology":
        return topology_channels(boson, jets, Hadronic(card.sqrt_s, card.pt_jet_min))
    region = JetRegion(card.pt_jet_min, min(card.eta_jet_max, _WIDEST), distance)
    return chili_channels(boson, jets, region=region, sqrt_s=card.sqrt_s)


def _lepton_pair_amplitude(current: LeptonicCurrent, card: LeptonPairParameters) -> Amplitude:
    if card.n_jets == 0:
        return DrellYan(current)
    if card.n_jets == 1:
        return VectorJet(current)
    return _generated((*current.leptons,), card.n_jets, StandardModel(), card)


def _generated(codes: tuple[int, ...], jets: int, model: StandardModel, card: CollisionParameters) -> Amplitude:
    """The matrix element of particles and jets; pyamplicol reports on stderr while it makes a new one."""
    process = " ".join(["p p >", *(NAMES[code] for code in codes), *["j"] * jets])
    # Their modules take a tenth of a second to import, which most processes need not wait for.
    if card.matrix_element == "recursion":
        from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude

        return RecursiveAmplitude(process, model)
    from nisampler.processes.amplicol.amplitude import AmplicolAmplitude

    return AmplicolAmplitude(process, model, workers=card.workers, on_progress=_report)


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _top_pair(name: str, jets: int, parameters: dict[str, Any]) -> HadronProcess:
    card = TopPairParameters(**parameters)
    model, mass = StandardModel(mass_top=card.mass_top), card.mass_top
    state = FinalState(masses=(mass, mass) + (0.0,) * jets, jets=tuple(range(2, 2 + jets)))
    cuts = Cuts(leg_cuts(state.jets, card.pt_jet_min, card.eta_jet_max), card.sqrt_s)
    amplitude = _generated((TOP, -TOP), jets, model, card) if jets else TopPair(model)
    return _process(name, card, state, amplitude, cuts, _top_channels(card, jets), (2 * mass, 8 * mass))


def _top_channels(card: TopPairParameters, jets: int) -> ChannelSet:
    mass = card.mass_top
    if card.channels == "topology":
        found, groups = heavy_pair_channels(mass, jets, Hadronic(card.sqrt_s, card.pt_jet_min))
        return list(found), groups
    pair = Boson(PowerLaw(2.5), 2 * mass, card.sqrt_s, (mass, mass))
    channels, groups = _boson_channels(card, pair, jets)
    return list(channels), groups


def _process(
    name: str,
    card: CollisionParameters,
    state: FinalState,
    amplitude: Amplitude,
    cuts: Cuts,
    channels: ChannelSet,
    mass_range: tuple[float, float],
) -> HadronProcess:
    model = StandardModel()
    legs = Legs((item.final for item in amplitude.subprocesses), state.masses)
    parts = Parts(
        name=name,
        amplitude=amplitude,
        final_state=state,
        cuts=all_cuts(cuts.cuts, legs, card),
        channels=channels[0],
        groups=channels[1],
        prior=None if card.channel_weights == "densities" else propagator_weights(channels[0]),
        alpha_s_power=_coloured_legs(state),
        shown=mass_range,
    )
    return HadronProcess(wired(parts, card, replace(model, mass_top=max(state.masses) or model.mass_top)), card)


def _coloured_legs(state: FinalState) -> int:
    """Legs that are no decay products of a boson: at leading order each costs a power of the strong coupling."""
    return len(state.masses) - sum(len(item.legs) for item in state.decays)
