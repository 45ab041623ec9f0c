"""Names, charges and kinds of the particles of the Standard Model."""

from __future__ import annotations

from functools import cache

from nisampler.events.pdg import BY_LOWER_CASE as BY_LOWER_CASE
from nisampler.events.pdg import CODES as CODES
from nisampler.events.pdg import NAMES as NAMES
from nisampler.processes.constants import GLUON, HIGGS, PHOTON, TOP, W_BOSON, Z_BOSON

_SELF_CONJUGATE = (GLUON, PHOTON, Z_BOSON, HIGGS)


def conjugate(code: int) -> int:
    """PDG code of the antiparticle.

    >>> conjugate(24), conjugate(21)
    (-24, 21)
    """
    return code if code in _SELF_CONJUGATE else -code


def isospin_partner(code: int) -> int:
    """PDG code of the other member of a lepton doublet; W+ and W- exchanged, other bosons themselves.

    >>> isospin_partner(11), isospin_partner(-12), isospin_partner(24)
    (12, -11, -24)
    """
    size = abs(code)
    if size == W_BOSON:
        return -code
    if not is_lepton(code):
        return code
    partner = size + 1 if size % 2 else size - 1
    return partner if code > 0 else -partner


def is_quark(code: int) -> bool:
    """True for the six quarks and their antiquarks.

    >>> is_quark(-6), is_quark(21)
    (True, False)
    """
    return 1 <= abs(code) <= TOP


def is_lepton(code: int) -> bool:
    """True for charged leptons, neutrinos and their antiparticles.

    >>> is_lepton(-12), is_lepton(22)
    (True, False)
    """
    return 11 <= abs(code) <= 16


def is_fermion(code: int) -> bool:
    """True for quarks, leptons and their antiparticles.

    >>> is_fermion(12), is_fermion(24)
    (True, False)
    """
    return is_quark(code) or is_lepton(code)


def is_coloured(code: int) -> bool:
    """True for quarks and gluons.

    >>> is_coloured(21), is_coloured(23)
    (True, False)
    """
    return code == GLUON or is_quark(code)


@cache
def thrice_charge(code: int) -> int:
    """Three times the electric charge.

    >>> thrice_charge(2), thrice_charge(-11), thrice_charge(-24)
    (2, 3, -3)
    """
    size = abs(code)
    sign = 1 if code > 0 else -1
    if is_quark(code):
        return sign * (-1 if size % 2 else 2)
    if is_lepton(code):
        return -3 * sign if size % 2 else 0
    return 3 * sign if size == W_BOSON else 0


def expression(codes: tuple[int, ...]) -> str:
    """The process string of concrete legs, the two incoming ones first.

    >>> expression((2, -2, 11, -11))
    'u u~ > e- e+'
    """
    names = [NAMES[code] for code in codes]
    return f"{' '.join(names[:2])} > {' '.join(names[2:])}"
