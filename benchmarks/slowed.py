"""A process whose every call costs more than it takes: it waits, or the time is added to what a clock shows."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

from torch import Tensor

from nisampler.density.channels import Multichannel
from nisampler.processes.base import Process


@dataclass
class Slowed:
    """A process whose calls take `seconds` more, each.

    While `waiting` the processor is kept busy for so long, so that whoever measures the cost of a call sees it;
    otherwise the time is only written down in `owed`.

    Parameters
    ----------
    process
        What is evaluated, with one channel or several.
    seconds
        Of each point; 0 for none.
    """

    process: Process
    seconds: float = 0.0
    waiting: bool = False
    calls: int = 0
    owed: float = 0.0
    multichannel: Multichannel | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        found = getattr(self.process, "multichannel", None)
        if isinstance(found, Multichannel):
            self.multichannel = copy.copy(found)
            self.multichannel.function = lambda x: self._charge(found.function(x))

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.process.dim

    @property
    def seconds_per_call(self) -> float | None:
        """What a call costs, as a process states it."""
        return (self.process.seconds_per_call or self.process.seconds_assumed or 0.0) + self.seconds or None

    @property
    def name(self) -> str:
        """That of the process."""
        return self.process.name

    @property
    def unit(self) -> str:
        """That of the process."""
        return self.process.unit

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim)."""
        return self._charge(self.process(u)) if self.multichannel is None else self.multichannel(u)

    def _charge(self, values: Tensor) -> Tensor:
        self.calls += len(values)
        price = self.seconds * len(values)
        if not self.waiting:
            self.owed += price
            return values
        end = time.process_time() + price
        while time.process_time() < end:
            pass
        return values
