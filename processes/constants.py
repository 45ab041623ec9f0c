"""Particle codes and physical constants of all processes, each written once.

Charges, colours and unit factors are fixed; masses, widths and couplings are the defaults of the settings that take
them. Masses and widths are in GeV.
"""

from __future__ import annotations

from typing import Literal

from nisampler.events.pdg import ELECTRON as ELECTRON
from nisampler.events.pdg import ELECTRON_NEUTRINO as ELECTRON_NEUTRINO
from nisampler.events.pdg import GLUON as GLUON
from nisampler.events.pdg import HIGGS as HIGGS
from nisampler.events.pdg import PHOTON as PHOTON
from nisampler.events.pdg import PROTON as PROTON
from nisampler.events.pdg import TAU as TAU
from nisampler.events.pdg import TOP as TOP
from nisampler.events.pdg import W_BOSON as W_BOSON
from nisampler.events.pdg import Z_BOSON as Z_BOSON
from nisampler.events.pdg import Z_PRIME as Z_PRIME

GEV2_PB = 0.3893793721e9
"""(hbar c)^2 in GeV^2 pb (CODATA 2018, exact): turns a cross-section in GeV^-2 into pb."""

COLOURS, CASIMIR_F = 3.0, 4.0 / 3.0
"""N_c and C_F of SU(3)."""

UP_QUARKS, DOWN_QUARKS = (2, 4, TOP), (1, 3, 5)
Flavour = Literal[1, 2, 3, 4, 5]
MASSLESS_QUARKS: tuple[Flavour, ...] = (1, 2, 3, 4, 5)

FermionType = Literal["up", "down", "lepton"]
CHARGE_ISOSPIN: dict[FermionType, tuple[float, float]] = {
    "up": (2 / 3, 0.5),
    "down": (-1 / 3, -0.5),
    "lepton": (-1.0, -0.5),
}
"""Electric charge and third component of the weak isospin of the left-handed fermion."""

ALPHA_EM, SIN2_THETA_W, ALPHA_S = 0.00781751, 0.2315, 0.118
"""Couplings at the Z mass."""
MASS_Z, WIDTH_Z = 91.1876, 2.495514921
MASS_W, WIDTH_W = 80.419, 2.08712367
MASS_HIGGS, WIDTH_HIGGS = 125.0, 0.00407
MASS_TOP, WIDTH_TOP = 173.0, 1.49
"""Mass of the top quark in matrix elements; the running of alpha_s has its own thresholds."""
THRESHOLDS = (1.5, 4.8, 171.0)
"""Charm, bottom and top masses at which the number of flavours of a running alpha_s changes."""

LOWEST_SCALE = 1.0
"""GeV; below neither parton densities nor the strong coupling have a meaning."""

CKM = ((0.97383, 0.2272, 0.00396), (0.2271, 0.97296, 0.04221), (0.00814, 0.04161, 0.9991))
"""Rows u, c, t, columns d, s, b: the absolute values that Pythia 8 takes."""
