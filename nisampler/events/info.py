"""What a file of events says about the run: beams, cross-sections, generator."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from nisampler.errors import EventFormatError
from nisampler.events.weights import WeightGroup, ids_of, is_plain

GENERATOR = "nisampler"
"""What an event file of this package says made it."""
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ProcessInfo:
    """Cross-section of one sub-process in pb, its error, the largest event weight and its code.

    >>> ProcessInfo(cross_section=1.5, error=0.1).max_weight
    1.0
    >>> ProcessInfo(1.5, -0.1)
    Traceback (most recent call last):
    ...
    nisampler.errors.EventFormatError: process 1: the error -0.1 is negative
    """

    cross_section: float
    error: float
    max_weight: float = 1.0
    process_id: int = 1

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.cross_section, self.error, self.max_weight)):
            raise EventFormatError(f"process {self.process_id}: cross-section, error and weight must be finite")
        if self.error < 0:
            raise EventFormatError(f"process {self.process_id}: the error {self.error} is negative")


@dataclass(frozen=True)
class InitInfo:
    """The ``<init>`` block of hep-ph/0609017.

    Parameters
    ----------
    beam_ids
        Codes of the beam along +z and of the beam along −z.
    beam_energies
        In GeV.
    processes
        One entry for each sub-process.
    pdf_groups, pdf_sets
        LHAPDF identifiers of the beams, 0 for none.
    strategy
        IDWTUP. 3: events of weight +1 (overweight events keep theirs, but showers take every event for +1); −3: the
        same with negative weights allowed; ±4: weighted events whose mean weight is the cross-section in pb, which
        showers hand on. Files of others may have ±1 and ±2.
    generator, version
        The program that made the events.
    weight_groups
        What the named weights of the events are, in the order of their columns.
    header
        What the file tells of itself: pairs of a name (letters, digits, "_", "-", ".") and a text, such as the card.
    total
        Cross-section of all processes together and its error in pb, where they are known better than by adding up the
        processes, whose errors depend on each other: each has its share of the events, see
        `nisampler.events.shares`.

    Raises
    ------
    EventFormatError
        If an energy is not positive, the strategy unknown, no process given, or a code, the id of a weight or the name
        of a text used twice.

    Examples
    --------
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> info.cross_section, info.signed
    (1.0, False)
    """

    beam_ids: tuple[int, int]
    beam_energies: tuple[float, float]
    processes: tuple[ProcessInfo, ...]
    pdf_groups: tuple[int, int] = (0, 0)
    pdf_sets: tuple[int, int] = (0, 0)
    strategy: int = 3
    generator: str = GENERATOR
    version: str = ""
    weight_groups: tuple[WeightGroup, ...] = ()
    header: tuple[tuple[str, str], ...] = ()
    total: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(energy) and energy > 0 for energy in self.beam_energies):
            raise EventFormatError(f"beam energies must be positive, got {self.beam_energies}")
        if abs(self.strategy) not in (1, 2, 3, 4):
            raise EventFormatError(f"the weighting strategy is one of ±1, ±2, ±3, ±4, got {self.strategy}")
        if self.total is not None and not (all(map(math.isfinite, self.total)) and self.total[1] >= 0):
            raise EventFormatError(f"the total cross-section and its error must be finite, got {self.total}")
        codes = [process.process_id for process in self.processes]
        if not codes or len(set(codes)) != len(codes):
            raise EventFormatError(f"need processes with different codes, got {codes}")
        for what, names in (
            ("named weight", self.weight_ids),
            ("text of the header", [name for name, _ in self.header]),
        ):
            for name, count in Counter(names).items():
                if count > 1:
                    raise EventFormatError(f"the {what} {name!r} is declared {count} times")
        for name, _ in self.header:
            if _ENTRY.fullmatch(name) is None:
                raise EventFormatError(f"{name!r} cannot name a text of the header: letters, digits, '_', '-' and '.'")
        for group in self.weight_groups:
            if not group.weights:
                raise EventFormatError(f"the group {group.name!r} has no weights")
        for name, text in self.header:
            if not is_plain(text):
                raise EventFormatError(f"the text {name!r} of the header has characters that a file cannot hold")

    @property
    def weight_ids(self) -> tuple[str, ...]:
        """The names of the named weights, in the order of their columns."""
        return ids_of(self.weight_groups)

    @property
    def signed(self) -> bool:
        """Whether negative weights may occur (IDWTUP < 0)."""
        return self.strategy < 0

    @property
    def cross_section(self) -> float:
        """Of all processes, in pb."""
        if self.total is not None:
            return self.total[0]
        return math.fsum(process.cross_section for process in self.processes)

    @property
    def error(self) -> float:
        """Of the cross-section, in pb; where no total is known, those of the processes in quadrature."""
        return self.total[1] if self.total is not None else math.hypot(*(process.error for process in self.processes))
