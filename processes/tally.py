"""What a process counts while it is called, without waiting for the device that calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Tally:
    """Sums by name, added up as tensors where they were made and read only when they are asked for.

    Parameters
    ----------
    names
        What is counted.

    Examples
    --------
    >>> tally = Tally("points", "negative")
    >>> values = torch.tensor([1.0, -2.0, 3.0])
    >>> tally.add("points", len(values))
    >>> tally.add("negative", values < 0)
    >>> tally.counts()
    {'points': 3, 'negative': 1}
    """

    def __init__(self, *names: str) -> None:
        self._sums: dict[str, int | Tensor] = dict.fromkeys(names, 0)

    def add(self, name: str, found: Tensor | int) -> None:
        """Add a number, or how many entries of a mask are true."""
        self._sums[name] = self._sums[name] + (torch.count_nonzero(found) if isinstance(found, Tensor) else found)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forget what is added until the block ends."""
        before = dict(self._sums)
        try:
            yield
        finally:
            self._sums = before

    def counts(self) -> dict[str, int]:
        """The sums so far."""
        return {name: int(total) for name, total in self._sums.items()}
