"""Names, charges and the reading of a process string such as ``p p > e+ ve j j``."""

from __future__ import annotations

from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.constants import GLUON, HIGGS, MASSLESS_QUARKS, PHOTON, TOP, W_BOSON, Z_BOSON

PARTONS = (GLUON, *MASSLESS_QUARKS, *(-code for code in MASSLESS_QUARKS))

# The names of pyamplicol's Standard Model.
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
_BY_LOWER_CASE = {name.lower(): code for name, code in CODES.items()}
_MULTIPARTICLES = {"p": PARTONS, "j": PARTONS}
_SELF_CONJUGATE = (GLUON, PHOTON, Z_BOSON, HIGGS)
_NOT_A_PARTICLE = "=/$[]{}@^,"


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


def is_coloured(code: int) -> bool:
    """True for quarks and gluons.

    >>> is_coloured(21), is_coloured(23)
    (True, False)
    """
    return code == GLUON or is_quark(code)


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


@dataclass(frozen=True)
class ProcessLegs:
    """The legs of a process string: for each leg the PDG codes that it may have.

    Attributes
    ----------
    initial, final
        One tuple of codes a leg, in the order of the string.
    jets
        Positions in `final` of the legs written as ``j``.

    Examples
    --------
    >>> parse_process("e+ e- > u u~ g").alpha_s_power
    1
    """

    initial: tuple[tuple[int, ...], ...]
    final: tuple[tuple[int, ...], ...]
    jets: tuple[int, ...]

    @property
    def electroweak(self) -> tuple[int, ...]:
        """Codes of the colourless legs, all taken as outgoing."""
        incoming = tuple(conjugate(leg[0]) for leg in self.initial if not is_coloured(leg[0]))
        return incoming + tuple(leg[0] for leg in self.final if not is_coloured(leg[0]))

    @property
    def alpha_s_power(self) -> int:
        """n of |M|^2 ~ alpha_s^n at leading order in the strong coupling: coloured legs - 2."""
        coloured = sum(is_coloured(leg[0]) for leg in (*self.initial, *self.final))
        return max(coloured - 2, 0)


def _codes(token: str, process: str) -> tuple[int, ...]:
    name = token.lower()
    if name in _MULTIPARTICLES:
        return _MULTIPARTICLES[name]
    if any(character in token for character in _NOT_A_PARTICLE):
        raise AmplitudeError(
            f"{token!r} in the process {process!r} is not a particle: coupling orders, vetoes and decay chains are not "
            "supported; every process is taken at leading order in QCD with the fewest electroweak couplings, and "
            "electroweak exchange between quark lines cannot be generated"
        )
    if name not in _BY_LOWER_CASE:
        known = ", ".join([*_MULTIPARTICLES, *CODES])
        raise AmplitudeError(f"unknown particle {token!r} in the process {process!r}; known: {known}")
    return (_BY_LOWER_CASE[name],)


def parse_process(process: str) -> ProcessLegs:
    """Read a process string: two incoming particles, ``>``, two or more outgoing ones.

    ``p`` and ``j`` stand for a gluon or one of five massless quarks or antiquarks; the other names are those of
    `CODES`, in upper or lower case.

    Raises
    ------
    AmplitudeError
        If the string is not of that form, a name is unknown, or it asks for coupling orders.

    Examples
    --------
    >>> parse_process("p p > e+ ve j").jets
    (2,)
    >>> parse_process("p p > e+")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: a process reads 'a b > c d ...' with two incoming ...
    """
    sides = [side.split() for side in process.split(">")]
    if len(sides) != 2 or len(sides[0]) != 2 or len(sides[1]) < 2:
        raise AmplitudeError(
            f"a process reads 'a b > c d ...' with two incoming and at least two outgoing particles, got {process!r}"
        )
    initial, final = (tuple(_codes(token, process) for token in side) for side in sides)
    jets = tuple(place for place, leg in enumerate(final) if len(leg) > 1)
    return ProcessLegs(initial, final, jets)


def expression(codes: tuple[int, ...]) -> str:
    """The process string of concrete legs, the two incoming ones first.

    >>> expression((2, -2, 11, -11))
    'u u~ > e- e+'
    """
    names = [NAMES[code] for code in codes]
    return f"{' '.join(names[:2])} > {' '.join(names[2:])}"
