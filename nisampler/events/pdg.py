"""Particle codes of the Particle Data Group that event records and processes speak of, and names, each written once.

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

CODES = {
    "g": GLUON,
    "a": PHOTON,
    "Z": Z_BOSON,
    "W+": W_BOSON,
    "W-": -W_BOSON,
    "H": HIGGS,
    **{name: code for code, name in enumerate("duscbt", 1)},
    **{f"{name}~": -code for code, name in enumerate("duscbt", 1)},
    **{name: code for name, code in (("e-", 11), ("mu-", 13), ("ta-", 15), ("e+", -11), ("mu+", -13), ("ta+", -15))},
    **{name: code for name, code in (("ve", 12), ("vm", 14), ("vt", 16), ("ve~", -12), ("vm~", -14), ("vt~", -16))},
}
NAMES = {code: name for name, code in CODES.items()}
BY_LOWER_CASE = {name.lower(): code for name, code in CODES.items()}
"""Names of particles as strings of processes have them, and the reverse; the last one in small letters."""

CHARGED_LEPTONS = tuple(code for code in CODES.values() if abs(code) in (11, 13, 15))
NEUTRINOS = tuple(code for code in CODES.values() if abs(code) in (12, 14, 16))
KINDS = {
    "l": CHARGED_LEPTONS,
    "l+": tuple(code for code in CHARGED_LEPTONS if code < 0),
    "l-": tuple(code for code in CHARGED_LEPTONS if code > 0),
    "v": NEUTRINOS,
    "vl": tuple(code for code in NEUTRINOS if code > 0),
    "vl~": tuple(code for code in NEUTRINOS if code < 0),
    "w": (W_BOSON, -W_BOSON),
    "b": (5, -5),
    "t": (TOP, -TOP),
}
"""Names of several particles."""
