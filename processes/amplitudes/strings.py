"""The reading of a process string such as ``p p > e+ ve j j``."""

from __future__ import annotations

from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS
from nisampler.processes.particles import BY_LOWER_CASE, CODES, conjugate, is_coloured

PARTONS = (GLUON, *MASSLESS_QUARKS, *(-code for code in MASSLESS_QUARKS))

_MULTIPARTICLES = {"p": PARTONS, "j": PARTONS}
_NOT_A_PARTICLE = "=/$[]{}@^,"


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
    if name not in BY_LOWER_CASE:
        known = ", ".join([*_MULTIPARTICLES, *CODES])
        raise AmplitudeError(f"unknown particle {token!r} in the process {process!r}; known: {known}")
    return (BY_LOWER_CASE[name],)


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
