"""A process from its string: amplitudes, phase space along its diagrams, cuts, scales and event records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nisampler.base.described import Setting, described
from nisampler.density.maps import Channel
from nisampler.errors import AmplitudeError, ConfigError, PdfError
from nisampler.processes.amplitudes.own.combinations import couplings_of
from nisampler.processes.amplitudes.own.functions import OwnAmplitude
from nisampler.processes.amplitudes.own.umami import UmamiFunction, UmamiLibrary
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.resonances import mass_window
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import PARTONS, Resonance, parse_process
from nisampler.processes.constants import ALPHA_S, PHOTON, Z_BOSON
from nisampler.processes.hadron.cuts import (
    Cut,
    DistanceCut,
    LeadingPairCut,
    MassCut,
    MissingTransverseMomentumCut,
    SeparationCut,
    leg_cuts,
)
from nisampler.processes.hadron.events import Decay, FinalState, Pole
from nisampler.processes.hadron.legs import Legs
from nisampler.processes.hadron.process import HadronProcess, HadronSetup
from nisampler.processes.hadron.wiring import Parts, all_cuts, running_coupling, wired
from nisampler.processes.own import resolved
from nisampler.processes.particles import NAMES, is_lepton
from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.luminosity import Pdf
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.phase_space import TopologyChannel
from nisampler.processes.phase_space.densities import propagator_weights
from nisampler.processes.standard_model.channels import Region, chosen, diagram_channels, plain_channel
from nisampler.processes.standard_model.diagrams import Diagram, Splitting, diagrams, splittings
from nisampler.processes.standard_model.pairs import branches_of, pair_channels, pair_of, transverse_channels
from nisampler.processes.standard_model.parameters import UMAMI, StringParameters

_ENERGY, _OF_BEAMS = 500.0, "Energy of both beams together in GeV; it has no default, this one is an example."
# Branches of events that diagrams describe better.
_FEW = 3


def create_from_string(process: str, **parameters: Any) -> HadronProcess:
    """A process like ``p p > w+ w+ j j QCD=0`` or ``e+ e- > mu+ mu- h``; parameters are those of `StringParameters`.

    Partons come from protons. Charged leptons and photons are beams themselves, with half of ``sqrt_s`` each, which is
    then to be given; they radiate nothing. The matrix element is that of the Standard Model, or with ``amplitude`` a
    function of one's own or a UMAMI library; ``umami:libX.so p p > e- e+ j`` is the same as ``p p > e- e+ j`` with
    ``amplitude = "umami:libX.so"``.

    Raises
    ------
    AmplitudeError
        If the string cannot be read, no diagram exists, the incoming particles are no beams, or an own matrix element
        fails.
    ConfigError
        If a parameter is unknown, missing, of the wrong type or outside its range, or cuts contradict each other.
    PdfError
        If the parton densities are missing, or a parton of the process has none.
    ProcessError, UnknownProcessError
        If a function of one's own cannot be found.

    Examples
    --------
    >>> create_from_string("e+ e- > mu+ mu- h", sqrt_s=240.0).beams.pdg_ids
    (-11, 11)
    >>> create_from_string("e- p > e- j")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: 'e- p > e- j': beams are two protons, of gluons and light quarks, or two ...

    Muon pairs from photons alone, by an amplitude of one's own:

    >>> def photon(p, alpha_s, codes):
    ...     s, t, u = (2 * dot(p[:, 0], p[:, 1]), -2 * dot(p[:, 0], p[:, 2]), -2 * dot(p[:, 0], p[:, 3]))
    ...     return 2 * (4 * math.pi / 137.0) ** 2 * (t**2 + u**2) / s**2
    >>> from nisampler.processes.phase_space.kinematics import dot
    >>> process = create_from_string("e+ e- > mu+ mu-", amplitude=photon, sqrt_s=10.0, pt_lepton_min=0.0)
    >>> process.setup.amplitude.elements
    1
    """
    library, string = _library(process)
    if library:
        if "amplitude" in parameters:
            raise ConfigError(f"{process!r} names its matrix element itself; take amplitude out of the parameters")
        parameters["amplitude"] = library
    card = StringParameters(**parameters)
    model = card.model
    amplitude = _amplitude(string, card)
    pdf = _densities(process, amplitude, card, set(parameters))
    point_like = isinstance(pdf, PointBeams)
    couplings, resonances = amplitude.couplings, amplitude.legs.resonances
    finals = [item.final for item in amplitude.subprocesses]
    decaying = [(item.code, item.legs) for item in resonances]
    legs = Legs(finals, tuple(couplings.mass(code) for code in finals[0]), decaying)
    decayed = {leg for item in resonances for leg in item.legs} if not card.cut_decays else set()
    cuts = all_cuts(_card_cuts(legs, card, decayed), legs, card)
    windows = {tuple(sorted(item.legs)): mass_window(item.code, couplings, card.resonances) for item in resonances}
    region = Region.of(cuts, legs.masses, point_like, windows)
    state = legs.final_state(model)
    if resonances:
        state = replace(state, decays=tuple(_decay(item, couplings) for item in resonances))
    channels, groups = _channels(amplitude, state, region, card)
    parts = Parts(
        name=process,
        amplitude=amplitude,
        final_state=state,
        cuts=cuts,
        channels=channels,
        groups=groups,
        prior=None if card.channel_weights == "densities" else propagator_weights(channels),
        alpha_s_power=amplitude.alpha_s_power,
        shown=(1.0, card.sqrt_s if point_like else 0.2 * card.sqrt_s),
    )
    setup = wired(parts, card, model, pdf)
    return _with_the_best(setup, card) if isinstance(card.channels, str) else HadronProcess(setup, card)


def string_parameters(process: str) -> tuple[Setting, ...]:
    """The parameters of a process string: of collisions at fixed energy `sqrt_s` and no densities.

    Raises
    ------
    AmplitudeError
        If the string cannot be read.

    Examples
    --------
    >>> [found.name for found in string_parameters("e+ e- > mu+ mu-")][:2]
    ['sqrt_s', 'scale']
    """
    library, string = _library(process)
    found = {item.name: item for item in described(StringParameters)}
    if library:
        found.pop("amplitude")
    if not {code for leg in parse_process(string).initial for code in leg} <= set(PARTONS):
        found.pop("pdf")
        found["sqrt_s"] = replace(found["sqrt_s"], default=_ENERGY, text=_OF_BEAMS)
    return tuple(found.values())


def _library(process: str) -> tuple[str, str]:
    """The library in front of a process string, empty where there is none, and the string."""
    if not process.startswith(UMAMI):
        return "", process
    before, arrow, after = process.partition(">")
    library, *beams = before.rsplit(maxsplit=2)
    if len(beams) != 2 or library == UMAMI:
        raise AmplitudeError(f"{process!r}: a library and its process read 'umami:libX.so p p > e- e+'")
    return library, f"{' '.join(beams)} {arrow}{after}"


def _amplitude(process: str, card: StringParameters) -> RecursiveAmplitude | OwnAmplitude:
    """The matrix elements: of the Standard Model, or one's own."""
    if card.amplitude is None:
        return RecursiveAmplitude(process, card.model, card.scheme, card.flavours, card.resonances, card.ckm)
    couplings = couplings_of(process, card.model, card.scheme, card.flavours)
    if not card.is_library:
        return OwnAmplitude(process, resolved(card.amplitude)[1], couplings, card.flavours, card.combinations)
    library = UmamiLibrary(str(card.amplitude).removeprefix(UMAMI), card.param_card)
    tables = card.combinations, card.colour_indices, card.helicity_indices
    found = UmamiFunction(library, process, couplings, card.flavours, *tables)
    return OwnAmplitude(process, found, couplings, card.flavours, found.listed)


def _decay(resonance: Resonance, couplings: Couplings) -> Decay:
    code = resonance.code
    return Decay(resonance.legs, (Pole(code, couplings.mass(code), couplings.width(code)),))


def _densities(process: str, amplitude: Amplitude, card: StringParameters, given: set[str]) -> Pdf:
    """Those of protons, or beams of leptons and photons."""
    pairs = {item.initial for item in amplitude.subprocesses}
    codes = {code for pair in pairs for code in pair}
    if codes <= set(PARTONS):
        pdf = load_pdf(card.pdf)
        missing = sorted(codes - set(pdf.flavours))
        if missing:
            text, there = (", ".join(NAMES[code] for code in found) for found in (missing, pdf.flavours))
            raise PdfError(
                f"{card.pdf} has no density of {text} for {process!r}: there are {there}; flavours = 3 or 4 leaves the "
                "heavier quarks out of p and j"
            )
        return pdf
    if len(pairs) > 1 or not all(code == PHOTON or (is_lepton(code) and code % 2) for code in codes):
        raise AmplitudeError(
            f"{process!r}: beams are two protons, of gluons and light quarks, or two charged leptons or photons, "
            "each of one kind"
        )
    if "sqrt_s" not in given or "pdf" in given:
        raise ConfigError(f"{process!r} needs sqrt_s, the energy of the beams together in GeV, and has no use for pdf")
    return PointBeams(pairs.pop(), running_coupling(card) or RunningAlphaS(ALPHA_S, loops=card.alpha_s_loops))


def _channels(
    amplitude: RecursiveAmplitude | OwnAmplitude, state: FinalState, region: Region, card: StringParameters
) -> tuple[Sequence[Channel], list[int]]:
    """Those of the card, along the diagrams, or Chili channels, where the card says so or they do better."""
    if not isinstance(card.channels, str):
        return card.channels, list(range(len(card.channels)))
    found, couplings = _all_diagrams(amplitude), amplitude.couplings
    decaying = {item for diagram in found for branch in diagram.emitted for item in splittings(branch)}
    strong = min(amplitude.strong, default=0) >= len(state.jets)
    possible = not region.fixed and not amplitude.legs.resonances
    pair, branches = (pair_of(state), branches_of(state, region)) if possible else (None, None)
    along = card.channels == "topology"
    if card.channels == "auto":
        # Chili channels suit jets from no resonance: strong ones beside a pair, weak ones beside two and more bosons.
        suit = pair is not None if strong else branches is not None and len(branches) > _FEW
        resonant = any(_resonant(item, couplings, region, state.jets) for item in decaying)
        along = not found or resonant or not suit or card.channel_weights != "densities"
    if along:
        return diagram_channels(found, couplings, region, state.jets) if found else ([plain_channel(region)], [0])
    alike = len({tuple(amplitude.legs.final[leg]) for leg in state.jets}) == 1
    if branches is not None and not (strong and pair):
        return transverse_channels(branches, state, region, card.eta_jet_max, alike)
    if pair is not None:
        codes = {item.code for item in decaying if {*item.legs} == {*pair}} if found else _codes_of_record(state, pair)
        poles = [Pole(code, couplings.mass(code), couplings.width(code)) for code in sorted(codes)]
        return pair_channels(state, region, poles, card.delta_r_jj_min, card.eta_jet_max, alike)
    raise ConfigError(
        'channels = "chili" needs protons, and jets beside two other final legs or beside bosons, no decays; '
        'take "topology"'
    )


def _resonant(item: Splitting, couplings: Couplings, region: Region, jets: Sequence[int]) -> bool:
    """Whether this is a resonance that a jet comes from."""
    reached = couplings.width(item.code) and region.least_mass(item.legs) < couplings.mass(item.code)
    return bool(reached) and not set(jets).isdisjoint(item.legs)


def _codes_of_record(state: FinalState, pair: tuple[int, int]) -> set[int]:
    """What two legs may come from by the event record, where there are no diagrams; beside a Z a photon."""
    codes = {pole.code for decay in state.decays if {*decay.legs} == {*pair} for pole in decay.poles}
    return codes | ({PHOTON} if Z_BOSON in codes else set())


def _with_the_best(setup: HadronSetup, card: StringParameters) -> HadronProcess:
    """The process with those channels along diagrams that a survey at fixed points finds important."""
    if len(setup.channels) == 1 or not all(isinstance(channel, TopologyChannel) for channel in setup.channels):
        return HadronProcess(setup, card)
    whole = HadronProcess(replace(setup, elements="summed"), card)
    generator = torch.Generator().manual_seed(1)
    kept = chosen(whole.multichannel, whole.multichannel.groups, generator)
    groups = [whole.multichannel.groups[place] for place in kept]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    channels = [setup.channels[place] for place in kept]
    prior = None if setup.prior is None else propagator_weights(channels)
    return HadronProcess(replace(setup, channels=channels, groups=[numbers[g] for g in groups], prior=prior), card)


def _all_diagrams(amplitude: RecursiveAmplitude | OwnAmplitude) -> list[Diagram]:
    """Those of every matrix element, with the legs of the process."""
    vertices = Vertices(amplitude.couplings)
    found: dict[Diagram, None] = {}
    for codes in amplitude.representatives:
        resonances = amplitude.legs.resonances
        found |= dict.fromkeys(diagrams(codes[:2], codes[2:], vertices, amplitude.strong, resonances))
    return list(found)


def _card_cuts(legs: Legs, card: StringParameters, spared: set[int]) -> list[Cut]:
    """All cuts with a name of their own that cut anything; some legs are spared."""
    jets, leptons, photons, neutrinos = (
        tuple(leg for leg in members if leg not in spared)
        for members in (legs.jets, legs.leptons, legs.photons, legs.neutrinos)
    )
    charged = leptons + photons
    found: list[Cut] = []
    for members, least, widest in (
        (jets, card.pt_jet_min, card.eta_jet_max),
        (leptons, card.pt_lepton_min, card.eta_lepton_max),
        (photons, card.pt_photon_min, card.eta_photon_max),
    ):
        found += leg_cuts(members, least, widest)
    if len(jets) > 1:
        found.append(SeparationCut(jets, card.delta_r_jj_min))
        if card.m_jj_min or card.delta_eta_jj_min:
            found.append(LeadingPairCut(jets, card.m_jj_min, card.delta_eta_jj_min))
    if len(charged) > 1 and card.delta_r_ll_min:
        found.append(SeparationCut(charged, card.delta_r_ll_min))
    if charged and jets and card.delta_r_jl_min:
        found.append(DistanceCut(charged, jets, card.delta_r_jl_min))
    if card.m_ll_min or not math.isinf(card.m_ll_max):
        pairs = [pair for pair in legs.pairs if not spared & {*pair}]
        found += [MassCut(pair, card.m_ll_min, card.m_ll_max) for pair in pairs]
    if card.pt_missing_min:
        found.append(MissingTransverseMomentumCut(neutrinos, card.pt_missing_min))
    return found
