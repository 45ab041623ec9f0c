"""Decays of resonances: which sets of legs may have currents, and when a decay is possible at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.skeleton import strong_powers
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import Product, Resonance
from nisampler.processes.particles import NAMES, conjugate

Shape = Literal["on_shell", "breit_wigner"]
"""Masses of what decays: at the pole, or within `WINDOW` widths of it by its propagator."""
Codes = Sequence[int] | Mapping[int, int]
"""PDG codes of the final legs, or of those that matter."""
WINDOW = 15.0
"""Widths, as in MadGraph (bwcutoff)."""


class Chains:
    """Resonances as sets of legs, given by bits, and what they forbid.

    Parameters
    ----------
    codes
        PDG code of each resonance, as an outgoing particle, by the set of legs that come from it.

    Examples
    --------
    The legs 2 and 3 come from a Z: a set has both or none of them, or is within.

    >>> chains = Chains({0b1100: 23})
    >>> [chains.allow(legs) for legs in (0b1101, 0b0100, 0b0101)]
    [True, True, False]
    """

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = dict(codes)

    @classmethod
    def of(cls, resonances: Iterable[Resonance], before: int) -> Chains:
        """Those of a process string, with so many incoming legs before the final ones."""
        return cls({sum(1 << before + leg for leg in item.legs): item.code for item in resonances})

    def without_last(self, count: int) -> Chains:
        """The same of `count` legs, seen from sets that have not the last one: the rest in its place."""
        every = (1 << count) - 1
        return Chains(
            {
                every ^ legs if legs >> count - 1 else legs: conjugate(code) if legs >> count - 1 else code
                for legs, code in self.codes.items()
            }
        )

    def allow(self, legs: int) -> bool:
        """Whether a set holds each resonance as a whole or not at all, or is a part of it."""
        return all(legs & own in (0, own, legs) for own in self.codes)

    def allow_vertex(self, parts: Sequence[int]) -> bool:
        """Whether no resonance is some parts of a vertex, but not one of them."""
        return not any(first | second in self.codes for first in parts for second in parts if first != second)

    def particles(self, legs: int, codes: Sequence[int]) -> list[int]:
        """Codes of a set: its outermost resonances, the set itself apart, and the other legs."""
        inner = [own for own in self.codes if own != legs and own & legs == own]
        outermost = [own for own in inner if not any(own != other and own & other == own for other in inner)]
        rest = legs & ~sum(outermost)
        return [self.codes[own] for own in outermost] + [code for leg, code in enumerate(codes) if rest >> leg & 1]


def identical(produced: Sequence[Product], codes: Codes) -> int:
    """Product of factorials of how many products of one origin are alike, decays included.

    Parameters
    ----------
    produced
        What the collision makes.
    codes
        PDG codes of the final legs.

    Examples
    --------
    >>> pairs = [Resonance(23, (0, 1)), Resonance(23, (2, 3))]
    >>> identical(pairs, [-11, 11, -11, 11]), identical(pairs, [-11, 11, -13, 13])
    (2, 1)
    """
    counts = Counter(kind(part, codes) for part in produced)
    found = math.prod(math.factorial(count) for count in counts.values())
    return found * math.prod(identical(part.products, codes) for part in produced if isinstance(part, Resonance))


def kind(product: Product, codes: Codes) -> str:
    """The same text for products that are alike.

    >>> kind(Resonance(23, (0, 1)), [11, -11])
    '23(-11 11)'
    """
    if isinstance(product, int):
        return str(codes[product])
    return f"{product.code}({' '.join(sorted(kind(part, codes) for part in product.products))})"


def codes_of(products: Sequence[Product], codes: Codes) -> list[int]:
    """PDG codes of products, those that decay included.

    >>> codes_of([Resonance(23, (0, 1)), 2], [11, -11, 25])
    [23, 25]
    """
    return [codes[part] if isinstance(part, int) else part.code for part in products]


def decay_powers(resonance: Resonance, codes: Codes, vertices: Vertices) -> set[int]:
    """Powers of the strong coupling of a decay, its products stable; empty where it does not exist.

    >>> from nisampler.processes.parameters import StandardModel
    >>> decay_powers(Resonance(24, (0, 1)), [2, -1], Vertices(Couplings(StandardModel())))
    {0}
    """
    return strong_powers([conjugate(resonance.code), *codes_of(resonance.products, codes)], vertices)


def mass_window(code: int, couplings: Couplings, shape: Shape) -> tuple[float, float]:
    """Least and largest mass of a resonance in GeV.

    >>> from nisampler.processes.parameters import StandardModel
    >>> mass_window(23, Couplings(StandardModel()), "on_shell")
    (91.1876, 91.1876)
    """
    reach = WINDOW * couplings.width(code) if shape == "breit_wigner" else 0.0
    return max(couplings.mass(code) - reach, 0.0), couplings.mass(code) + reach


def check_decay(
    process: str, resonance: Resonance, choices: Sequence[Codes], couplings: Couplings, shape: Shape
) -> None:
    """Refuse a decay that does not exist, of what has no width, or to more than its mass.

    Parameters
    ----------
    process
        The string, for the message.
    resonance
        What decays.
    choices
        PDG codes of its legs, for each choice of flavours that conserves charge, quarks and leptons.
    couplings
        Masses and widths.
    shape
        What mass it has.

    Raises
    ------
    AmplitudeError
        If the decay is impossible, or the scheme has no real masses.

    Examples
    --------
    >>> from nisampler.processes.parameters import StandardModel
    >>> couplings = Couplings(StandardModel())
    >>> check_decay("h > w+ w-", Resonance(25, (0, 1)), [[24, -24]], couplings, "on_shell")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: 'h > w+ w-': H, of 125 GeV, cannot decay to W+ W-, which have at least 160.838 GeV
    """
    name, vertices = NAMES[resonance.code], Vertices(couplings)
    if couplings.scheme != "fixed":
        raise AmplitudeError(f'{process!r}: decays take the scheme "fixed", got "{couplings.scheme}"')
    if not couplings.width(resonance.code):
        raise AmplitudeError(f"{process!r}: {name} has no width, so it cannot decay")
    if not any(decay_powers(resonance, codes, vertices) for codes in choices):
        kinds = sorted({" ".join(NAMES[code] for code in codes_of(resonance.products, codes)) for codes in choices})
        why = (
            f"no vertices join it with {', or '.join(kinds)}"
            if kinds
            else "charge, quarks or leptons are not conserved"
        )
        raise AmplitudeError(f"{process!r}: there is no such decay of {name}, {why}")
    most = mass_window(resonance.code, couplings, shape)[1]
    for codes in choices:
        least = sum(
            couplings.mass(codes[part]) if isinstance(part, int) else mass_window(part.code, couplings, shape)[0]
            for part in resonance.products
        )
        if not least < most:
            products = " ".join(NAMES[code] for code in codes_of(resonance.products, codes))
            raise AmplitudeError(
                f"{process!r}: {name}, of {most:.6g} GeV, cannot decay to {products}, which have at least "
                f"{least:.6g} GeV"
            )
