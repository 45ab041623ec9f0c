"""The matrix elements of a process string by recursion, as a hadron process takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError
from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.flavours import (
    FlavourTable,
    GeneratedElement,
    in_every_order,
    move_tags,
    table_of_legs,
)
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings, Mixing, Scheme
from nisampler.processes.amplitudes.recursion.resonances import Shape
from nisampler.processes.amplitudes.recursion.subprocesses import OrderTable, combinations
from nisampler.processes.amplitudes.strings import ProcessLegs, parse_process
from nisampler.processes.amplitudes.tree import by_number, colour_tags, joined_momenta
from nisampler.processes.constants import ELECTRON, MASSLESS_QUARKS
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import is_coloured, is_lepton
from nisampler.processes.partons.devices import OnDevices


class RecursiveAmplitude:
    """The squared matrix elements of a process string such as ``p p > e+ ve j j`` or ``p p > w+ w+ j j QCD=0``.

    Combinations of flavours that are equal share a matrix element. Without limits on couplings, amplitudes have the
    largest power of the strong coupling that occurs. Where a single W is all that is electroweak, the CKM matrix is
    that of the model, elsewhere the unit matrix, or what `ckm` says. On a CPU points run through compiled code where
    llvmlite is installed, on a GPU through a kernel of Triton; where gradients are asked for through plain torch.

    With decays, ``p p > t t~, t > b e+ ve, t~ > b~ mu- vm~``, only diagrams with these resonances are taken, and the
    correlations of spins are those of the whole. Values have the propagators with fixed widths: at the pole, times
    delta(p^2 - m^2) pi m Gamma for each resonance, they are those of the narrow-width approximation. The orders of a
    string are those of what is produced.

    Parameters
    ----------
    process
        Two incoming and two or more outgoing particles; the outgoing legs keep the order of the string.
    model
        Couplings, masses, widths and the CKM matrix; by default that of `StandardModel.on_shell`.
    scheme
        How widths enter, see `Couplings`.
    flavours
        Massless quarks that ``p`` and ``j`` stand for.
    shape
        Whether particles that decay are "on_shell", and their other propagators without width, or have the masses of a
        "breit_wigner".
    ckm
        The CKM matrix where several W can occur, orders are limited or particles decay: the "unit", or that of the
        "model" with the signs of a real matrix.
    precision
        On a GPU and in plain torch, "double" or "single", see `MatrixElement.use_single_precision`.

    Raises
    ------
    AmplitudeError
        If the string cannot be read, a decay is impossible, or no flavours have a diagram of these orders.

    Examples
    --------
    >>> amplitude = RecursiveAmplitude("p p > e- e+ j")
    >>> len(amplitude.subprocesses), amplitude.elements
    (30, 12)
    >>> RecursiveAmplitude("u c > d s e+ ve QCD=2")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: 'u c > d s e+ ve QCD=2' has no diagram: no choice of flavours conserves charge, ...
    """

    def __init__(
        self,
        process: str,
        model: StandardModel | None = None,
        scheme: Scheme = "fixed",
        flavours: int = len(MASSLESS_QUARKS),
        shape: Shape = "on_shell",
        ckm: Mixing = "unit",
        precision: Literal["double", "single"] = "double",
    ) -> None:
        self.process, self.model = process, model or StandardModel().on_shell()
        # The table has the CKM element of the one line that a single W changes as a factor of each combination.
        couplings = Couplings(self.model.without_mixing(), scheme)
        table = _leading_in_qcd(process, self.model, flavours)
        if table is not None:
            power = {table.legs.alpha_s_power}
            made = {codes: MatrixElement(codes[:2], codes[2:], couplings, power) for codes in table.generated}
        else:
            couplings = Couplings(self.model, scheme) if ckm == "model" else couplings
            found = OrderTable(process, couplings, flavours, shape)
            table, made = found.table, found.matrices
        self.table, self.matrices, self.couplings = in_every_order(table), made, couplings
        for matrix in made.values() if precision == "single" else ():
            matrix.use_single_precision()
        self.subprocesses: tuple[SubProcess, ...] = self.table.subprocesses
        self.elements = len(self.table.elements)
        self._elements = [_Element(item, made[item.process]) for item in self.table.elements]
        self.choices = tuple(range(self.elements))
        self.operations = tuple(item.matrix.operations for item in self._elements)
        self._matrices = list({id(item.matrix): item.matrix for item in self._elements}.values())
        self._places = OnDevices(_Places.of(self._elements, self._matrices), torch.device("cpu"))

    @property
    def legs(self) -> ProcessLegs:
        """What the legs of the string can be, and what they come from."""
        return self.table.legs

    @property
    def representatives(self) -> list[tuple[int, ...]]:
        """PDG codes of a combination of flavours of each element, with the legs of the process."""
        found = []
        for element in self.table.elements:
            codes = [0] * len(element.process)
            for place, source in enumerate(element.permutation):
                codes[source] = element.process[place]
            found.append(tuple(codes))
        return found

    @property
    def kinds(self) -> int:
        """Number of matrix elements that are no other one with its legs in another order."""
        return len(self._matrices)

    @property
    def strong(self) -> set[int]:
        """Powers of g_s that occur in amplitudes."""
        return {power for item in self.matrices.values() for power in item.strong}

    @property
    def alpha_s_power(self) -> int | None:
        """Power of the strong coupling in |M|², None where there is more than one."""
        return min(self.strong) if len(self.strong) == 1 else None

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Squared matrix elements (n, elements) in GeV^(4 - 2m), averaged, summed, with identical-particle factors.

        Parameters
        ----------
        incoming, outgoing
            Momenta (n, 2, 4) and (n, m, 4) in GeV.
        alpha_s
            Strong coupling (n,).

        Raises
        ------
        ShapeError
            If the shapes do not fit the process.
        """
        momenta = self._momenta(incoming, outgoing)
        return torch.stack([item.matrix.squared(item.placed(momenta), alpha_s) for item in self._elements], dim=1)

    def chosen(self, choice: Tensor, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """The squared matrix element (n,) of the element `choice` (n,) of each point; see `squared`.

        Points of elements that are one matrix element with its legs in another order are evaluated together.
        """
        kind, placed = self.placed(choice, incoming, outgoing)

        def value(matrix: int, rows: Tensor) -> Tensor:
            return self._matrices[matrix].squared(placed[rows], alpha_s[rows])

        return by_number(kind, value, placed)

    def placed(self, choice: Tensor, incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
        """The number (n,) of the matrix element of each point's choice (n,), and its momenta (n, 2 + m, 4) in order.

        Elements that are one matrix element with its legs in another order have the same number; see `squared`.
        """
        momenta = self._momenta(incoming, outgoing)
        places = self._places.on(momenta.device)
        placed = torch.take_along_dim(momenta, places.permutation[choice].unsqueeze(2), 1)
        return places.matrix[choice], placed * places.signs[choice].unsqueeze(1).to(placed)

    def colour_flows(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (n, flows), the squares of the flows without interference, and tags (flows, 2 + m, 2) of an element.

        Raises
        ------
        AmplitudeError
            If there is no such element.
        ShapeError
            If the shapes do not fit the process.
        """
        item = self._element(element)
        momenta = item.placed(self._momenta(incoming, outgoing))
        return item.matrix.flow_weights(momenta, alpha_s), item.tags.to(incoming.device)

    def spins(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Helicities (n, 2 + m) of the legs where only one contributes, 9 elsewhere; raises as `colour_flows` does."""
        self._momenta(incoming, outgoing)
        return self._element(element).spins.to(incoming).expand(len(incoming), -1)

    def _element(self, element: int) -> _Element:
        if not 0 <= element < self.elements:
            raise AmplitudeError(f"{self.process!r} has elements 0 to {self.elements - 1}, got {element}")
        return self._elements[element]

    def _momenta(self, incoming: Tensor, outgoing: Tensor) -> Tensor:
        return joined_momenta(self.process, incoming, outgoing, len(self.table.legs.final))


@dataclass(frozen=True)
class _Places:
    """For each element its matrix element, which leg stands at each of its places, and the signs of components."""

    matrix: Tensor
    permutation: Tensor
    signs: Tensor

    @classmethod
    def of(cls, elements: Sequence[_Element], matrices: Sequence[MatrixElement]) -> _Places:
        numbers = {id(matrix): number for number, matrix in enumerate(matrices)}
        mirrored = [-1.0 if item.source.conjugated else 1.0 for item in elements]
        return cls(
            torch.tensor([numbers[id(item.matrix)] for item in elements]),
            torch.tensor([item.source.permutation for item in elements]),
            torch.tensor([[1.0, sign, sign, sign] for sign in mirrored], dtype=torch.float64),
        )

    def to(self, device: torch.device) -> _Places:
        return _Places(self.matrix.to(device), self.permutation.to(device), self.signs.to(device))


@dataclass(frozen=True)
class _Element:
    """A matrix element at the momenta of the process's legs."""

    source: GeneratedElement
    matrix: MatrixElement

    def placed(self, momenta: Tensor) -> Tensor:
        """Momenta (n, legs, 4) of the generated process; CP reflects them."""
        placed = momenta[:, list(self.source.permutation)]
        return placed * placed.new_tensor([1.0, -1.0, -1.0, -1.0]) if self.source.conjugated else placed

    @cached_property
    def tags(self) -> Tensor:
        """Les Houches tags (flows, 2 + m, 2)."""
        legs = len(self.source.process)
        generated = [colour_tags(lines, legs) for lines in self.matrix.colour_lines]
        return torch.tensor([move_tags(tags, self.source.permutation, self.source.conjugated) for tags in generated])

    @cached_property
    def spins(self) -> Tensor:
        """Helicities (2 + m,), 9 where more than one contributes."""
        known = self._moved([_alone(found) for found in self.matrix.contributing_helicities()])
        return torch.tensor(known, dtype=torch.float64)

    def _moved(self, spins: Sequence[float]) -> list[float]:
        moved = [UNKNOWN_SPIN] * len(spins)
        for place, source in enumerate(self.source.permutation):
            flipped = self.source.conjugated and spins[place] != UNKNOWN_SPIN
            moved[source] = -spins[place] if flipped else spins[place]
        return moved


def _leading_in_qcd(process: str, model: StandardModel, flavours: int) -> FlavourTable | None:
    """The table of known symmetries, where every coloured leg but two costs a power of the strong coupling.

    Each choice of leptons has the table of those of the first generations.
    """
    legs = parse_process(process, flavours)
    several = [place for place, leg in enumerate(legs.final) if len(leg) > 1 and place not in legs.jets]
    others = [legs.final[place] for place in several]
    if legs.orders.given or legs.resonances or any(is_coloured(leg[0]) for leg in others):
        return None
    if any(len(leg) > 1 and not is_coloured(leg[0]) for leg in legs.initial):
        return None
    subprocesses: list[SubProcess] = []
    elements: dict[GeneratedElement, int] = {}
    for choice in dict.fromkeys(tuple(codes[2 + place] for place in several) for codes in combinations(legs)):
        final, alike = list(legs.final), list(legs.final)
        for place, code in zip(several, choice, strict=True):
            final[place] = alike[place] = (code,)
        if not model.mass_tau and not any(is_lepton(leg[0]) for leg in legs.initial):
            alike = _first_generations(final)
        try:
            table = table_of_legs(process, replace(legs, final=tuple(alike)), model)
        except AmplitudeError:
            return None
        places = [elements.setdefault(element, len(elements)) for element in table.elements]
        for item in table.subprocesses:
            codes = tuple(leg[0] if len(leg) == 1 else code for leg, code in zip(final, item.final, strict=True))
            subprocesses.append(replace(item, final=codes, element=places[item.element]))
    return FlavourTable(process, legs, tuple(subprocesses), tuple(elements)) if subprocesses else None


def _first_generations(final: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Leptons without mass, by generations in the order in which they appear."""
    order: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for leg in final:
        size = abs(leg[0])
        if is_lepton(size):
            code = ELECTRON + 2 * order.setdefault((size - ELECTRON) // 2, len(order)) + (size - ELECTRON) % 2
            found.append((code if leg[0] > 0 else -code,))
        else:
            found.append(leg)
    return found


def _alone(helicities: set[int]) -> float:
    return float(next(iter(helicities))) if len(helicities) == 1 else UNKNOWN_SPIN
