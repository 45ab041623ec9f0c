"""The reading of a process string such as ``p p > e+ ve j j`` or ``u c > w+ w+ d s QCD=0``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS
from nisampler.processes.particles import BY_LOWER_CASE, CODES, conjugate, is_coloured

PARTONS = (GLUON, *MASSLESS_QUARKS, *(-code for code in MASSLESS_QUARKS))

_MULTIPARTICLES = {
    "l+": (-11, -13),
    "l-": (11, 13),
    "vl": (12, 14, 16),
    "vl~": (-12, -14, -16),
}
_NOT_A_PARTICLE = "=/$[]{}@^,"
_ORDER = re.compile(r"(QCD|QED|EW)(<=|==|=)(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Orders:
    """Powers of couplings that amplitudes may have: at most, or with ``==`` exactly; None: no limit.

    Attributes
    ----------
    strong, electroweak
        Largest power of g_s, and of all other couplings.
    exact
        Which of the two, "strong" or "electroweak", are meant exactly.

    Examples
    --------
    >>> Orders(strong=2).powers(4)
    {0, 1, 2}
    >>> Orders(electroweak=3, exact=frozenset({"electroweak"})).powers(4)
    {1}
    """

    strong: int | None = None
    electroweak: int | None = None
    exact: frozenset[str] = frozenset()

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return self.strong is not None or self.electroweak is not None

    def powers(self, total: int) -> set[int]:
        """Powers of g_s that are allowed where all powers together are `total`."""
        found = set(range(total + 1))
        for name, limit in (("strong", self.strong), ("electroweak", self.electroweak)):
            if limit is not None:
                found = {k for k in found if _within(k if name == "strong" else total - k, limit, name in self.exact)}
        return found


def _within(power: int, limit: int, exact: bool) -> bool:
    return power == limit if exact else power <= limit


@dataclass(frozen=True)
class ProcessLegs:
    """The legs of a process string: for each leg the PDG codes that it may have.

    Attributes
    ----------
    initial, final
        One tuple of codes a leg, in the order of the string.
    jets
        Positions in `final` of the legs written as ``j``.
    orders
        Limits on the powers of the couplings.

    Examples
    --------
    >>> parse_process("e+ e- > u u~ g").alpha_s_power
    1
    """

    initial: tuple[tuple[int, ...], ...]
    final: tuple[tuple[int, ...], ...]
    jets: tuple[int, ...]
    orders: Orders = Orders()

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


def partons(flavours: int) -> tuple[int, ...]:
    """The gluon and so many massless quarks and antiquarks.

    >>> partons(2)
    (21, 1, 2, -1, -2)
    """
    return tuple(code for code in PARTONS if code == GLUON or abs(code) <= flavours)


def _codes(token: str, process: str, flavours: int) -> tuple[int, ...]:
    name = token.lower()
    if name in ("p", "j"):
        return partons(flavours)
    if name in _MULTIPARTICLES:
        return _MULTIPARTICLES[name]
    if any(character in token for character in _NOT_A_PARTICLE):
        raise AmplitudeError(
            f"{token!r} in the process {process!r} is neither a particle nor a limit on couplings such as QCD=0, QED=4 "
            "or QCD==2; vetoes and decay chains are not supported"
        )
    if name not in BY_LOWER_CASE:
        known = ", ".join(["p", "j", *_MULTIPARTICLES, *CODES])
        raise AmplitudeError(f"unknown particle {token!r} in the process {process!r}; known: {known}")
    return (BY_LOWER_CASE[name],)


def parse_process(process: str, flavours: int = len(MASSLESS_QUARKS)) -> ProcessLegs:
    """Read a process string: two incoming particles, ``>``, two or more outgoing ones.

    ``p`` and ``j`` stand for a gluon or one of `flavours` massless quarks or antiquarks, ``l+``, ``l-``, ``vl`` and
    ``vl~`` for leptons; the other names are those of `CODES`, in upper or lower case. ``QCD=2`` at the end limits the
    power of the strong coupling in amplitudes, ``QED=4`` or ``EW=4`` that of all others, ``==`` fixes it.

    Raises
    ------
    AmplitudeError
        If the string is not of that form or a name is unknown.

    Examples
    --------
    >>> parse_process("p p > e+ ve j").jets
    (2,)
    >>> parse_process("p p > e+")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: a process reads 'a b > c d ...' with two incoming ...
    """
    particles, orders = _split_orders(process)
    sides = [side.split() for side in particles.split(">")]
    if len(sides) != 2 or len(sides[0]) != 2 or len(sides[1]) < 2:
        raise AmplitudeError(
            f"a process reads 'a b > c d ...' with two incoming and at least two outgoing particles, got {process!r}"
        )
    initial, final = (tuple(_codes(token, process, flavours) for token in side) for side in sides)
    jets = tuple(place for place, leg in enumerate(final) if leg == partons(flavours))
    return ProcessLegs(initial, final, jets, orders)


def _split_orders(process: str) -> tuple[str, Orders]:
    """The particles of a string, and the limits at its end."""
    limits: dict[str, int] = {}
    exact: set[str] = set()
    tokens = process.split()
    while tokens and (found := _ORDER.fullmatch(tokens[-1])):
        name = "strong" if found[1].upper() == "QCD" else "electroweak"
        if name in limits:
            raise AmplitudeError(f"{process!r} limits the same coupling twice")
        limits[name] = int(found[3])
        exact |= {name} if found[2] == "==" else set()
        tokens.pop()
    return " ".join(tokens), Orders(limits.get("strong"), limits.get("electroweak"), frozenset(exact))
