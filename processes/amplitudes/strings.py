"""The reading of a process string such as ``p p > e+ ve j j`` or ``u c > w+ w+ d s QCD=0``.

Decays of final particles follow after commas, ``p p > t t~, t > b e+ ve, t~ > b~ mu- vm~``; decays of their products
with them in parentheses, ``p p > t t~, (t > b w+, w+ > e+ ve)``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
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
class Resonance:
    """A particle that a string lets decay: its PDG code, and its products, each a position in `final` or another one.

    >>> Resonance(6, (Resonance(24, (0, 1)), 2)).legs
    (0, 1, 2)
    """

    code: int
    products: tuple[Resonance | int, ...]

    @property
    def legs(self) -> tuple[int, ...]:
        """Positions of everything that comes from it."""
        return tuple(leg for part in self.products for leg in ((part,) if isinstance(part, int) else part.legs))

    @property
    def chain(self) -> tuple[Resonance, ...]:
        """Itself and what decays among its products, outermost first."""
        return (self, *(item for part in self.products if isinstance(part, Resonance) for item in part.chain))


Product = Resonance | int


@dataclass(frozen=True)
class ProcessLegs:
    """The legs of a process string: for each leg the PDG codes that it may have.

    Attributes
    ----------
    initial, final
        One tuple of codes a leg, in the order of the string, products of decays in place of what decays.
    jets
        Positions in `final` of the legs written as ``j``.
    orders
        Limits on the powers of the couplings, of what is produced.
    produced
        What the collision makes: positions in `final`, and particles that decay.

    Examples
    --------
    >>> parse_process("e+ e- > u u~ g").alpha_s_power
    1
    >>> parse_process("e+ e- > z h, z > mu+ mu-").produced
    (Resonance(code=23, products=(0, 1)), 2)
    """

    initial: tuple[tuple[int, ...], ...]
    final: tuple[tuple[int, ...], ...]
    jets: tuple[int, ...]
    orders: Orders = Orders()
    produced: tuple[Product, ...] = ()

    @property
    def resonances(self) -> tuple[Resonance, ...]:
        """All particles that decay, each before those among its products."""
        return tuple(item for part in self.produced if isinstance(part, Resonance) for item in part.chain)

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
            "or QCD==2; limits follow what is produced, vetoes are not supported"
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

    After commas come decays ``a > b c ...``, each of one outgoing particle, or of all of that name; several of one name
    are for one particle each, in order. ``(a > b c, b > d e)`` lets a product decay.

    Raises
    ------
    AmplitudeError
        If the string is not of that form, a name is unknown, or what decays is not there.

    Examples
    --------
    >>> parse_process("p p > e+ ve j").jets
    (2,)
    >>> parse_process("p p > e+")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: a process reads 'a b > c d ...' with two incoming ...
    """
    head, *decays = _pieces(process, process)
    particles, orders = _split_orders(head)
    sides = [side.split() for side in particles.split(">")]
    if len(sides) != 2 or len(sides[0]) != 2 or len(sides[1]) < 2:
        raise AmplitudeError(
            f"a process reads 'a b > c d ...' with two incoming and at least two outgoing particles, got {process!r}"
        )
    initial = tuple(_codes(token, process, flavours) for token in sides[0])
    final = _Final(process, flavours)
    produced = final.products(sides[1], decays)
    jets = tuple(place for place, leg in enumerate(final.legs) if leg == partons(flavours))
    return ProcessLegs(initial, tuple(final.legs), jets, orders, produced)


def _pieces(text: str, process: str) -> list[str]:
    """What stands between the commas that are outside all parentheses."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    if depth:
        raise AmplitudeError(f"parentheses of decays do not match in {process!r}")
    return [piece.strip() for piece in pieces]


class _Final:
    """Collects the final legs of a string with their decays."""

    def __init__(self, process: str, flavours: int) -> None:
        self._process, self._flavours = process, flavours
        self.legs: list[tuple[int, ...]] = []

    def products(self, tokens: Sequence[str], decays: Sequence[str]) -> tuple[Product, ...]:
        """Particles with their decays."""
        codes = [_codes(token, self._process, self._flavours) for token in tokens]
        of_code: dict[tuple[int, ...], list[tuple[list[str], list[str]]]] = defaultdict(list)
        for text in decays:
            mother, daughters, further = self._decay(text)
            if codes.count(mother) == 0:
                raise AmplitudeError(
                    f"{text!r} in {self._process!r} is a decay of what is not among {', '.join(tokens)}"
                )
            of_code[mother].append((daughters, further))
        for mother, found in of_code.items():
            if len(found) not in (1, codes.count(mother)):
                count, name = codes.count(mother), tokens[codes.index(mother)]
                raise AmplitudeError(
                    f"{self._process!r} has {count} {name} and {len(found)} decays of it: write one, or one for each"
                )
        made: list[Product] = []
        for own in codes:
            if own in of_code:
                found = of_code[own]
                made.append(Resonance(own[0], self.products(*(found.pop(0) if len(found) > 1 else found[0]))))
            else:
                made.append(len(self.legs))
                self.legs.append(own)
        return tuple(made)

    def _decay(self, text: str) -> tuple[tuple[int, ...], list[str], list[str]]:
        """What decays, its products, and their decays."""
        inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
        head, *further = _pieces(inner, self._process)
        sides = [side.split() for side in head.split(">")]
        if len(sides) != 2 or len(sides[0]) != 1 or len(sides[1]) < 2 or (further and inner is text):
            raise AmplitudeError(
                f"a decay reads 'a > b c ...' or '(a > b c ..., b > d e ...)' with at least two products, got {text!r} "
                f"in {self._process!r}"
            )
        mother = _codes(sides[0][0], self._process, self._flavours)
        if len(mother) > 1:
            raise AmplitudeError(f"{sides[0][0]!r} in {self._process!r} is not one particle, it cannot decay")
        return mother, sides[1], further


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
