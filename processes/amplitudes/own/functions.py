"""A function of one's own as the matrix elements of a process string."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nisampler.base.blame import blaming
from nisampler.errors import AmplitudeError
from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.own.combinations import Codes, Combinations, Listed
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.strings import ProcessLegs
from nisampler.processes.amplitudes.tree import ColourFlow, colour_tags, joined_momenta
from nisampler.processes.base import draw
from nisampler.processes.constants import GLUON
from nisampler.processes.particles import conjugate, expression, is_coloured

SquaredFunction = Callable[[Tensor, Tensor, Codes], Tensor]
"""|M|² (n,) from momenta (n, 2 + m, 4) in GeV, the strong coupling (n,) and the PDG codes of the legs."""
_EQUAL, _ZERO = 1e-9, 1e-24


class OwnAmplitude:
    """The squared matrix elements of a process string by a function of one's own.

    The function takes momenta (n, 2 + m, 4) in GeV in the laboratory, incoming legs first, in the order of the string,
    the strong coupling (n,) and the PDG codes of the legs, and returns |M|² (n,): averaged over spins and colours of
    incoming legs, summed over those of outgoing ones, with the factor of identical particles. It is asked for every
    combination of flavours at a few momenta; equal ones are computed once, those that vanish are left out. Colour flows
    of event records are drawn by the leading-colour weights of the Standard Model; where it has no such diagram, all
    flows that colours allow are equally likely.

    Parameters
    ----------
    process
        The string; its combinations are those that the Standard Model has diagrams for, or, where it has none, all that
        conserve charges.
    function
        The function. With a method `select(momenta, alpha_s, codes, uniform)`, which returns colour tags (n, 2 + m, 2)
        and helicities (n, 2 + m), or None for one of them, it draws those of event records itself, by numbers in [0, 1)
        (n,).
    couplings
        Masses, and the vertices that phase space follows.
    flavours
        Massless quarks that ``p`` and ``j`` stand for.
    listed
        Combinations to take in place of those, such as "u u~ > e- e+".

    Raises
    ------
    AmplitudeError
        If the string cannot be read, a combination is not one of it, or the function raises an error, vanishes
        everywhere, or returns what is not finite or has another shape.

    Examples
    --------
    >>> from nisampler.processes.parameters import StandardModel
    >>> def constant(momenta, alpha_s, codes):
    ...     return alpha_s**2 * (1.0 if abs(codes[0]) % 2 else 2.0)
    >>> amplitude = OwnAmplitude("p p > e- e+", constant, Couplings(StandardModel()))
    >>> amplitude.elements, len(amplitude.subprocesses), amplitude.alpha_s_power
    (4, 10, 2)
    """

    def __init__(
        self,
        process: str,
        function: SquaredFunction,
        couplings: Couplings,
        flavours: int = 5,
        listed: Sequence[Listed] = (),
    ) -> None:
        self.process, self.couplings, self._function = process, couplings, function
        self.name = getattr(function, "__name__", type(function).__name__)
        combined = Combinations.of(process, Vertices(couplings), flavours)
        self.combinations = combined.only(listed) if listed else combined
        probed = {codes: self._probe(codes) for codes in self.combinations.powers}
        largest = torch.stack([values for values, _ in probed.values()]).abs().max()
        found = {codes: item for codes, item in probed.items() if bool((item[0].abs() > _ZERO * largest).any())}
        if not found:
            raise AmplitudeError(f"{self.name} vanishes for every combination of {process!r}")
        self._element_codes: list[Codes] = []
        subprocesses: list[SubProcess] = []
        for codes, (values, _) in found.items():
            alike = (
                k
                for k, other in enumerate(self._element_codes)
                if torch.allclose(values, found[other][0], rtol=_EQUAL, atol=0.0) and _colours(codes) == _colours(other)
            )
            element = next(alike, len(self._element_codes))
            if element == len(self._element_codes):
                self._element_codes.append(codes)
            subprocesses.append(SubProcess((codes[0], codes[1]), codes[2:], element))
        self.subprocesses, self.elements = tuple(subprocesses), len(self._element_codes)
        powers = {power for _, power in found.values()}
        self.alpha_s_power = powers.pop() if len(powers) == 1 else None
        self._flows: dict[int, _Flows] = {}
        if hasattr(function, "select"):
            self.drawn = self._drawn

    @property
    def legs(self) -> ProcessLegs:
        """What the legs of the string can be."""
        return self.combinations.legs

    @property
    def representatives(self) -> list[Codes]:
        """A combination of flavours of each element."""
        return self._element_codes

    @property
    def strong(self) -> set[int]:
        """Powers of g_s of the diagrams that the Standard Model has."""
        return {power for found in self.combinations.powers.values() for power in found}

    def _probe(self, codes: Codes) -> tuple[Tensor, int | None]:
        """Values at a few momenta, and the power of the strong coupling where it is one."""
        momenta = probe_momenta([self.couplings.mass(code) for code in codes])
        alpha_s = torch.linspace(0.1, 0.15, len(momenta), dtype=torch.float64)
        values = self._values(momenta, alpha_s, codes)
        ratio = self._values(momenta, 2 * alpha_s, codes) / values
        if not bool((ratio > 0).all()):
            return values, None
        power = round(math.log2(ratio[0]))
        return values, power if torch.allclose(ratio, torch.full_like(ratio, 2.0**power)) else None

    def _values(self, momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
        with blaming(f"{self.name} failed for {expression(codes)!r}", AmplitudeError):
            found = self._function(momenta, alpha_s, codes)
        if not isinstance(found, Tensor) or found.shape != (len(momenta),):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AmplitudeError(f"{self.name} must return a tensor ({len(momenta)},), got {what}")
        wrong = int((~torch.isfinite(found)).sum())
        if wrong:
            raise AmplitudeError(
                f"{self.name} is not finite at {wrong} of {len(found)} points of {expression(codes)!r}"
            )
        return found.to(momenta)

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Squared matrix elements (n, elements) in GeV^(4 - 2m); incoming (n, 2, 4) and outgoing (n, m, 4) in GeV.

        Raises
        ------
        AmplitudeError
            If the function raises an error, or returns what is not finite or has another shape.
        ShapeError
            If the momenta have another shape.
        """
        momenta = self._momenta(incoming, outgoing)
        return torch.stack([self._values(momenta, alpha_s, codes) for codes in self._element_codes], 1)

    def colour_flows(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Leading-colour weights (n, flows) of an element and its tags (flows, 2 + m, 2); raises as `squared`."""
        if element not in self._flows:
            codes = self._element_codes[element]
            self._flows[element] = _Flows(codes, self.combinations.powers[codes], self.couplings)
        return self._flows[element].of(self._momenta(incoming, outgoing), alpha_s)

    def _drawn(
        self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Colour tags (n, 2 + m, 2) and helicities (n, 2 + m) by numbers in [0, 1) (n,)."""
        function: Any = self._function
        momenta = self._momenta(incoming, outgoing)
        tags, spins = function.select(momenta, alpha_s, self._element_codes[element], uniform)
        if tags is None:
            weights, flows = self.colour_flows(element, incoming, outgoing, alpha_s)
            tags = flows[draw(weights, uniform)]
        return tags, momenta.new_full(momenta.shape[:2], UNKNOWN_SPIN) if spins is None else spins.to(momenta)

    def _momenta(self, incoming: Tensor, outgoing: Tensor) -> Tensor:
        return joined_momenta(self.process, incoming, outgoing, len(self.combinations.legs.final))


def _colours(codes: Codes) -> list[int]:
    """Kind of colour of each leg: 3 and -3 of quarks and antiquarks, 8 of gluons, 0."""
    return [0 if not is_coloured(code) else 8 if code == GLUON else 3 if code > 0 else -3 for code in codes]


class _Flows:
    """Colour flows of a combination of flavours."""

    def __init__(self, codes: Codes, strong: set[int], couplings: Couplings) -> None:
        self._matrix = MatrixElement(codes[:2], codes[2:], couplings, strong) if strong else None
        lines = possible_lines(codes) if self._matrix is None else self._matrix.colour_lines
        self._tags = torch.tensor([colour_tags(flow, len(codes)) for flow in lines])

    def of(self, momenta: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (n, flows) and tags."""
        tags = self._tags.to(momenta.device)
        if self._matrix is None:
            return momenta.new_ones(len(momenta), len(tags)), tags
        return self._matrix.flow_weights(momenta, alpha_s), tags


def possible_lines(codes: Sequence[int]) -> list[ColourFlow]:
    """All ways to join the colours of legs, two incoming codes first, to the anticolours of others.

    Raises
    ------
    AmplitudeError
        If there is none.

    Examples
    --------
    >>> possible_lines((2, -2, 21, 23))
    [((1, 2), (2, 0))]
    >>> possible_lines((2, -2, 11, -11))
    [((1, 0),)]
    """
    outgoing = [conjugate(code) if place < 2 else code for place, code in enumerate(codes)]
    starts = [leg for leg, code in enumerate(outgoing) if is_coloured(code) and (code == GLUON or code > 0)]
    ends = [leg for leg, code in enumerate(outgoing) if is_coloured(code) and (code == GLUON or code < 0)]
    found = [
        tuple(zip(starts, order, strict=True))
        for order in itertools.permutations(ends)
        if len(starts) == len(ends) and all(a != b for a, b in zip(starts, order, strict=True))
    ]
    if not found:
        raise AmplitudeError(f"{expression(tuple(codes))!r} does not conserve colour")
    return found
