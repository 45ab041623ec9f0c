"""Texts with mathematics between dollar signs, as the labels of figures have them, as text of SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from nisampler.errors import NisamplerError

_NAMES = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_GREEK = dict(zip(_NAMES.split(), "αβγδϵζηθκλμνξπρστϕχψω", strict=True))
_UPRIGHT = dict(zip("Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), "ΓΔΘΛΞΠΣΦΨΩ", strict=True)) | {
    **{name: name for name in "cos sin tan cosh sinh tanh exp ln log max min arccos arctan".split()},
    **{",": "\u2009", ";": "\u2005", "quad": "\u2003", " ": " ", "langle": "⟨", "rangle": "⟩", "pm": "±", "times": "×"},
    **{"cdot": "·", "to": "→", "infty": "∞", "approx": "≈", "sqrt": "√", "%": "%", "leq": "≤", "geq": "≥", "sim": "∼"},
    **{"perp": "⊥", "parallel": "∥", "prime": "′", "circ": "°", "!": ""},
}
_ITALIC = _GREEK | {"ell": "ℓ", "hbar": "ℏ"}
_ORDINARY, _HIGH, _DEEP = "0123456789−+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "₀₁₂₃₄₅₆₇₈₉₋₊"
_ACCENTS = {"bar": "\u0304", "overline": "\u0305", "hat": "\u0302", "tilde": "\u0303", "dot": "\u0307", "vec": "\u20d7"}
_FONTS = ("mathrm", "text", "mathdefault", "operatorname")
_SIGN = re.compile(r"\\[A-Za-z]+ ?|\\.|.", re.DOTALL)
_RAISED, _LOWERED, _SMALL = -0.38, 0.22, 0.72


class UnknownNotationError(NisamplerError):
    """A text has mathematics that is not known here; matplotlib knows more of it.

    >>> issubclass(UnknownNotationError, NisamplerError)
    True
    """


@dataclass(frozen=True)
class Piece:
    """A part of a text in one font.

    Attributes
    ----------
    text
        Its letters.
    italic
        Whether it is a symbol.
    level
        1 above the line, −1 below it, 0 on it.

    Examples
    --------
    >>> Piece("x", italic=True).level
    0
    """

    text: str
    italic: bool = False
    level: int = 0


def pieces(text: str) -> list[Piece]:
    """The parts of a text.

    Raises
    ------
    UnknownNotationError
        If there is a command that is not known, or a group without end.

    Examples
    --------
    >>> pieces("$p_T$ [GeV]")
    [Piece(text='p', italic=True, level=0), Piece(text='T', italic=True, level=-1), Piece(text=' [GeV]', ...)]
    >>> pieces(r"$\\frac{a}{b}$")
    Traceback (most recent call last):
    nisampler.ui.sketch.notation.UnknownNotationError: no notation for '\\\\frac' in '$\\\\frac{a}{b}$'
    """
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2 == 0:
        raise UnknownNotationError(f"an odd number of dollar signs in {text!r}")
    found: list[Piece] = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            plain = part.replace("\\$", "$")
            found += [Piece(plain)] if plain else []
        else:
            found += _mathematics(list(_SIGN.findall(part)), text, 0)
    return _joined([_of_font(part) for part in _joined(found)])


def _of_font(part: Piece) -> Piece:
    """The same on the line, where fonts have all of its letters raised or lowered."""
    known = {1: _HIGH, 0: "", -1: _DEEP}[part.level]
    if not part.level or not set(part.text) <= set(_ORDINARY):
        return part
    return Piece(part.text.translate(str.maketrans(_ORDINARY, known)))


def _mathematics(signs: list[str], text: str, level: int) -> Iterator[Piece]:
    """The parts of a formula; signs are taken from the list."""
    signs.reverse()
    while signs:
        sign = signs.pop().rstrip(" ") or " "
        if sign == "}":
            raise UnknownNotationError(f"a group without beginning in {text!r}")
        if sign in ("^", "_"):
            if level:
                raise UnknownNotationError(f"an index of an index in {text!r}")
            yield from _mathematics(_argument(signs, text), text, 1 if sign == "^" else -1)
        elif sign == "{":
            yield from _mathematics(_group(signs, text), text, level)
        elif sign[0] == "\\":
            name = sign[1:]
            if name in _FONTS:
                letters = "".join(_argument(signs, text))
                if re.search(r"[\\^_{}]", letters):
                    raise UnknownNotationError(f"no notation for {letters!r} in {text!r}")
                yield Piece(letters, level=level)
            elif name in _ACCENTS:
                yield _accented(list(_mathematics(_argument(signs, text), text, level)), _ACCENTS[name], text)
            elif name in _UPRIGHT:
                yield Piece(_UPRIGHT[name], level=level)
            elif name in _ITALIC:
                yield Piece(_ITALIC[name], True, level)
            else:
                raise UnknownNotationError(f"no notation for {sign!r} in {text!r}")
        elif not sign.isspace():
            yield Piece({"-": "−"}.get(sign, sign), sign.isalpha() and sign.isascii(), level)


def _accented(parts: list[Piece], accent: str, text: str) -> Piece:
    """A letter with an accent."""
    if len(parts) != 1 or len(parts[0].text) != 1:
        raise UnknownNotationError(f"accents stand above single letters here, not as in {text!r}")
    return Piece(parts[0].text + accent, parts[0].italic, parts[0].level)


def _argument(signs: list[str], text: str) -> list[str]:
    """The group or the one sign that comes next."""
    while signs and signs[-1].isspace():
        signs.pop()
    if not signs:
        raise UnknownNotationError(f"something is missing at the end of {text!r}")
    sign = signs.pop()
    return _group(signs, text) if sign == "{" else [sign]


def _group(signs: list[str], text: str) -> list[str]:
    """What stands before the brace that closes."""
    found: list[str] = []
    depth = 1
    while signs:
        sign = signs.pop()
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if not depth:
            return found
        found.append(sign)
    raise UnknownNotationError(f"a group without end in {text!r}")


def _joined(parts: list[Piece]) -> list[Piece]:
    """The same with neighbours of one font together."""
    found: list[Piece] = []
    for part in parts:
        if found and (found[-1].italic, found[-1].level) == (part.italic, part.level):
            found[-1] = Piece(found[-1].text + part.text, part.italic, part.level)
        else:
            found.append(part)
    return found


def spans(text: str, size: float) -> str:
    """The text as ``<tspan>`` elements of a ``<text>`` of this font size; raises as `pieces`.

    >>> spans("$x^2$ & more", 10.0)
    '<tspan font-style="italic">x</tspan>² &amp; more'
    >>> spans("$p_T$", 10.0)
    '<tspan font-style="italic">p</tspan><tspan dy="2.2" font-size="7.2" font-style="italic">T</tspan>'
    """
    parts, found, at = pieces(text), [], 0.0
    for part in parts:
        where = size * {1: _RAISED, 0: 0.0, -1: _LOWERED}[part.level]
        look = f' dy="{where - at:.4g}"' if where != at else ""
        look += f' font-size="{_SMALL * size:.4g}"' if part.level else ""
        look += ' font-style="italic"' if part.italic else ""
        found.append(f"<tspan{look}>{escape(part.text)}</tspan>" if look else escape(part.text))
        at = where
    return "".join(found)


def width(text: str, size: float) -> float:
    """About how wide it is, in the unit of the font size: letters differ among fonts; raises as `pieces`.

    >>> 20.0 < width("mass", 10.0) < 30.0
    True
    """
    total = 0.0
    for part in pieces(text):
        narrow = sum(letter in " .,:;|/()[]ijlItfr'!1\u2009" for letter in part.text)
        wide = sum(letter in "mwMW@%" for letter in part.text)
        units = 0.62 * (len(part.text) - narrow - wide) + 0.4 * narrow + 0.95 * wide
        total += units * size * (_SMALL if part.level else 1.0)
    return total
