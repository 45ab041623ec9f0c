"""Jets of gluons, light quarks and top quarks in the layout of JetNet, made by Pythia 8 and FastJet.

    python examples/pythia_jets.py jets.hdf5 --jets 30000 --constituents 30

Hard processes at a pT of about 1 TeV in proton-proton collisions at 13 TeV, with showers, hadronisation and the
underlying event; anti-kT jets of radius 0.8 within |eta| < 2.5, the two hardest of each event. The jets of an event
are kept where a parton of the hard process lies within the radius. Types take turns, so that any first jets of the
file hold all of them alike. Needs the packages pythia8mc and fastjet: the extra "jets".
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import fastjet
import numpy as np
import pythia8mc

from nisampler.calo.jets.files import write_jets
from nisampler.calo.jets.jets import RADIUS, Jets, type_number

BEAMS = ("Beams:eCM = 13000.", "PhaseSpace:pTHatMin = 950.", "PhaseSpace:pTHatMax = 1100.", "Print:quiet = on")
PROCESSES = {
    "g": ("HardQCD:gg2gg = on", "HardQCD:qqbar2gg = on"),
    "q": ("HardQCD:gg2qqbar = on", "HardQCD:qqbar2qqbarNew = on", "HardQCD:qq2qq = on"),
    "t": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
}
"""By type; qq2qq holds the scattering of quarks and antiquarks, of which each jet is one of a light quark."""
WINDOW = (800.0, 1300.0)
FORWARD = 2.5
Row = tuple[np.ndarray, tuple[float, float, float, float]]
"""Constituents (n, 3) as etarel, phirel, ptrel, hardest first; eta, phi, pT and mass of the jet."""
REACH = FORWARD + RADIUS + 0.2
ALONE = "PartonLevel:MPI = off"


def near(eta: float, phi: float) -> bool:
    """Whether these differences are within the radius of a jet."""
    return math.hypot(eta, math.remainder(phi, 2 * math.pi)) < RADIUS


def generator(kind: str, seed: int, settings: tuple[str, ...] = ()) -> pythia8mc.Pythia:
    """Pythia for the process of a type."""
    pythia = pythia8mc.Pythia("", False)
    for line in (*BEAMS, *PROCESSES[kind], *settings, "Random:setSeed = on", f"Random:seed = {seed}"):
        pythia.readString(line)
    if not pythia.init():
        raise SystemExit("Pythia does not start: see its messages above")
    return pythia


def clustered(event: pythia8mc.Event) -> list[Row]:
    """The two hardest jets of the particles that a detector sees."""
    seen = [
        fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e())
        for p in event
        if p.isFinal() and abs(p.eta()) < REACH and p.isVisible()
    ]
    sequence = fastjet.ClusterSequence(seen, fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS))
    found = fastjet.sorted_by_pt(sequence.inclusive_jets(WINDOW[0]))[:2]
    return [row(jet) for jet in found if abs(jet.eta()) < FORWARD and jet.pt() < WINDOW[1]]


def row(jet: fastjet.PseudoJet) -> Row:
    """Constituents and features of a jet."""
    eta, pt = jet.eta(), jet.pt()
    hardest = fastjet.sorted_by_pt(jet.constituents())
    return np.array([(c.eta() - eta, jet.delta_phi_to(c), c.pt() / pt) for c in hardest]), (eta, jet.phi(), pt, jet.m())


def jets_of(kind: str, seed: int, settings: tuple[str, ...]) -> Iterator[Row]:
    """Jets of a type without end."""
    pythia = generator(kind, seed, settings)
    while True:
        if not pythia.next():
            continue
        partons = [(p.eta(), p.phi()) for p in pythia.process if p.status() in (23, -22)]
        for constituents, features in clustered(pythia.event):
            if any(near(features[0] - eta, features[1] - phi) for eta, phi in partons):
                yield constituents, features


def make(count: int, most: int, kinds: tuple[str, ...], seed: int, settings: tuple[str, ...] = ()) -> Jets:
    """So many jets, of the types in turn, with at most `most` constituents each."""
    sources = {kind: jets_of(kind, seed + number, settings) for number, kind in enumerate(kinds)}
    constituents, mask = np.zeros((count, most, 3), dtype=np.float32), np.zeros((count, most), dtype=bool)
    features = np.zeros((count, 4))
    types = [kinds[index % len(kinds)] for index in range(count)]
    for index, kind in enumerate(types):
        found, features[index] = next(sources[kind])
        n = min(most, len(found))
        constituents[index, :n], mask[index, :n] = found[:n], True
        if (index + 1) % 1000 == 0:
            print(f"{index + 1} of {count} jets", flush=True)
    eta, _, pt, mass = features.T
    return Jets(constituents, mask, np.array([type_number(kind) for kind in types]), pt, eta, mass)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--jets", type=int, default=30_000)
    parser.add_argument("--constituents", type=int, default=30, help="places for each jet: 30 or 150 in JetNet")
    parser.add_argument("--types", default="g,q,t")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hard-only", action="store_true", help="no underlying event: half the time and constituents")
    given = parser.parse_args()
    settings = (ALONE,) if given.hard_only else ()
    jets = make(given.jets, given.constituents, tuple(given.types.split(",")), given.seed, settings)
    write_jets(given.output, jets)


if __name__ == "__main__":
    main()
