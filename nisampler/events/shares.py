"""What each group of sub-processes has of a cross-section: the share of the weights that its events have.

The integral is known for all groups together. Events are drawn by it, so that the weights of those of one group are its
share, and a file declares for each group what its own events add up to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nisampler.events.info import InitInfo, ProcessInfo


def _sum(values: Iterable[float]) -> float:
    """The exact sum, rounded once; NaN where it is none."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan


@dataclass
class ProcessSums:
    """Numbers, sums of weights and sums of their squares of the events of each process.

    Examples
    --------
    >>> sums = ProcessSums()
    >>> sums.add(np.array([1, 1, 1, 2]), np.ones(4))
    >>> info = InitInfo((2212, 2212), (6500.0, 6500.0), (ProcessInfo(0.0, 0.0), ProcessInfo(0.0, 0.0, process_id=2)))
    >>> shared = sums.shared(replace(info, total=(100.0, 0.1)))
    >>> [f"{item.cross_section} {item.error:.3f}" for item in shared.processes], shared.cross_section, shared.error
    (['75.0 21.651', '25.0 21.651'], 100.0, 0.1)
    """

    _totals: list[float] = field(default_factory=list)
    _rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Of all weights."""
        return _sum(self._totals)

    def add(self, process_ids: NDArray[np.int32], weights: NDArray[np.float64]) -> None:
        """Add events: the code of the process and the weight of each, both (n,)."""
        codes, places = np.unique(process_ids, return_inverse=True)
        with np.errstate(over="ignore", invalid="ignore"):
            self._totals.append(float(weights.sum()))
            rows = [np.bincount(places, power) for power in (np.ones_like(weights), weights, weights * weights)]
        for code, row in zip(codes.tolist(), np.stack(rows, 1), strict=True):
            self._rows[code] = self._rows.get(code, 0.0) + row

    @classmethod
    def joined(cls, parts: Iterable[ProcessSums]) -> ProcessSums:
        """Those of several files together."""
        found = list(parts)
        rows: dict[int, list[NDArray[np.float64]]] = {}
        for part in found:
            for code, row in part._rows.items():
                rows.setdefault(code, []).append(row)
        joined = {code: np.array([_sum(column) for column in zip(*own, strict=True)]) for code, own in rows.items()}
        return cls([part.total for part in found], joined)

    def shared(self, info: InitInfo) -> InitInfo:
        """The same where each process has its share of the total, if one is known; otherwise as it is."""
        if info.total is None:
            return info
        return replace(info, processes=tuple(self._processes(info, *info.total)))

    def _processes(self, info: InitInfo, value: float, error: float) -> Iterator[ProcessInfo]:
        number, total, squares = (_sum(row[column] for row in self._rows.values()) for column in range(3))
        for process in info.processes:
            if not number:
                yield replace(process, cross_section=0.0, error=abs(value))
                continue
            own_number, own, own_squares = self._rows.get(process.process_id, np.zeros(3)).tolist()
            # Weights that cancel tell no shares: numbers of events do then.
            share = own / total if total else own_number / number
            # Of a process without events it is known that it has about one or none.
            variance = (1 - share) ** 2 * own_squares + share**2 * (squares - own_squares)
            spread = math.sqrt(max(variance if own_number else squares / number, 0.0)) / abs(total or number)
            yield replace(process, cross_section=share * value, error=math.hypot(share * error, spread * value))
