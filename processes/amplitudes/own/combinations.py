"""Which combinations of flavours a process string stands for where the matrix element is one's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.recursion.model import Couplings, Scheme
from nisampler.processes.amplitudes.recursion.skeleton import Known, strong_powers
from nisampler.processes.amplitudes.recursion.subprocesses import combinations, orders_of, unconserved
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import ProcessLegs, parse_process
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import conjugate, expression, thrice_charge

Codes = tuple[int, ...]
Listed = str | Sequence[str]


@dataclass(frozen=True)
class Combinations:
    """All combinations of flavours of a process, with the powers of the strong coupling that the Standard Model has.

    Attributes
    ----------
    process
        The string.
    legs
        What its legs can be.
    powers
        Of each combination, two incoming codes first; empty where the Standard Model has no diagram.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.model import Couplings
    >>> from nisampler.processes.parameters import StandardModel
    >>> rules = Vertices(Couplings(StandardModel()))
    >>> found = Combinations.of("p p > e- e+", rules, flavours=2)
    >>> sorted(found.powers)
    [(-2, 2, 11, -11), (-1, 1, 11, -11), (1, -1, 11, -11), (2, -2, 11, -11)]
    >>> sorted(found.only(["u u~ > e- e+"]).powers)
    [(-2, 2, 11, -11), (2, -2, 11, -11)]
    """

    process: str
    legs: ProcessLegs
    powers: dict[Codes, set[int]]

    @classmethod
    def of(cls, process: str, vertices: Vertices, flavours: int) -> Combinations:
        """Those that have a diagram in the Standard Model; where none has, all that conserve charges.

        Raises
        ------
        AmplitudeError
            If the string cannot be read or has decays, or no combination conserves charge, quarks and leptons.
        """
        legs = parse_process(process, flavours)
        if legs.resonances:
            raise AmplitudeError(f"{process!r} has decays; a matrix element of one's own has the final legs alone")
        known: Known = {}
        powers = {
            codes: strong_powers([*map(conjugate, codes[:2]), *codes[2:]], vertices, known)
            for codes in combinations(legs)
        }
        if not powers:
            raise AmplitudeError(f"{process!r}: {unconserved(legs)}")
        allowed = orders_of(legs, powers)
        chosen = {codes: found & allowed for codes, found in powers.items() if found & allowed}
        return cls(process, legs, chosen or {codes: set() for codes in powers})

    def only(self, listed: Sequence[Listed]) -> Combinations:
        """Those that are listed as strings such as ``u u~ > e- e+``, in any order of the beams and of the final legs.

        Raises
        ------
        AmplitudeError
            If one is not one of the process, or the same as another one.
        """
        wanted = index_of(listed)
        possible = list(combinations(self.legs))
        known = set(map(unordered, possible))
        for key, (_, codes) in wanted.items():
            if key not in known:
                raise AmplitudeError(f"{expression(codes)!r} is no combination of {self.process!r}")
        chosen = {codes: self.powers.get(codes, set()) for codes in possible if unordered(codes) in wanted}
        return Combinations(self.process, self.legs, chosen)

    @property
    def apart(self) -> list[Codes]:
        """Combinations that differ by more than the order of legs, one of each."""
        return list({unordered(codes): codes for codes in reversed(self.powers)}.values())[::-1]


def couplings_of(process: str, model: StandardModel, scheme: Scheme, flavours: int) -> Couplings:
    """The vertices that tell which combinations exist: quarks mix where the colourless legs carry a charge.

    Where they carry none, several W would have to mix them, and the CKM matrix is taken as the unit matrix.

    Raises
    ------
    AmplitudeError
        If the string cannot be read.

    Examples
    --------
    >>> [couplings_of(text, StandardModel(), "fixed", 5).model.ckm[0][1] > 0 for text in ("p p > e+ ve", "p p > w+ w-")]
    [True, False]
    """
    charge = sum(map(thrice_charge, parse_process(process, flavours).electroweak))
    return Couplings(model if charge else model.without_mixing(), scheme)


def unordered(codes: Sequence[int]) -> tuple[Codes, Codes]:
    """A combination whatever the order of its beams and of its final legs.

    >>> unordered((2, -2, 11, -11)) == unordered((-2, 2, -11, 11))
    True
    """
    return tuple(sorted(codes[:2])), tuple(sorted(codes[2:]))


def index_of(listed: Sequence[Listed]) -> dict[tuple[Codes, Codes], tuple[int, Codes]]:
    """The place of each listed combination, and its codes in the order in which they are listed.

    Several strings at one place are combinations with one matrix element.

    Raises
    ------
    AmplitudeError
        If a string has a label of several particles, or comes twice.

    Examples
    --------
    >>> index_of([["u u~ > e- e+", "c c~ > e- e+"], "d d~ > e- e+"])[unordered((4, -4, -11, 11))]
    (0, (4, -4, 11, -11))
    """
    found: dict[tuple[Codes, Codes], tuple[int, Codes]] = {}
    for place, entry in enumerate(listed):
        for text in [entry] if isinstance(entry, str) else entry:
            legs = parse_process(text)
            each = (*legs.initial, *legs.final)
            if any(len(codes) > 1 for codes in each):
                raise AmplitudeError(f"{text!r} must name one particle for each leg")
            codes = tuple(itertools.chain.from_iterable(each))
            if unordered(codes) in found:
                raise AmplitudeError(f"{text!r} is listed twice")
            found[unordered(codes)] = place, codes
    return found


def order_of(codes: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Places in `codes` of the legs of `wanted`, which is the same but for the order of beams and of final legs.

    >>> order_of((-2, 2, 11, -11), (2, -2, -11, 11))
    (1, 0, 3, 2)
    """
    found: list[int] = []
    for place, code in enumerate(wanted):
        side = range(2) if place < 2 else range(2, len(codes))
        found.append(next(source for source in side if codes[source] == code and source not in found))
    return tuple(found)
