"""Particle codes of the Particle Data Group that event records and processes speak of, each written once.

Source: Review of Particle Physics, "Monte Carlo particle numbering scheme".
"""

from __future__ import annotations

QUARKS = tuple(range(1, 9))
"""Quarks of four generations; the fourth one is hypothetical."""
TOP = 6
ELECTRON, ELECTRON_NEUTRINO, TAU = 11, 12, 15
LEPTONS = tuple(range(11, 19))
"""Charged leptons and neutrinos of four generations."""
GLUON, PHOTON, Z_BOSON, W_BOSON, HIGGS, Z_PRIME = 21, 22, 23, 24, 25, 32
COLOURLESS = (*LEPTONS, PHOTON, Z_BOSON, W_BOSON, HIGGS, Z_PRIME)
"""Particles without colour that are known to the rules of event records."""
PROTON, NEUTRON = 2212, 2112
