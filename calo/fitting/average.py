"""A running average of the weights of a network, which can take their place for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nisampler.base.optim import copies


class RunningAverage:
    """The exponential running average of the trainable weights of a module.

    Parameters
    ----------
    module
        Whose weights are followed.
    decay
        What is kept of the average in each step; 0 for no average at all, which then is the weights themselves.

    Examples
    --------
    >>> line = nn.Linear(1, 1, bias=False)
    >>> average = RunningAverage(line, 0.9)
    >>> first = line.weight.item()
    >>> _ = line.weight.data.add_(1.0)
    >>> average.follow(100)
    >>> with average.in_place():
    ...     print(f"{line.weight.item() - first:.2f}")
    0.10
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: p for name, p in module.named_parameters() if p.requires_grad} if decay else {}
        self.values = copies(self._weights)

    @torch.no_grad()
    def follow(self, steps: int) -> None:
        """Move towards the weights after so many steps; the average is young at first and follows faster."""
        if self._weights:
            share = 1.0 - min(self._decay, (1.0 + steps) / (10.0 + steps))
            torch._foreach_lerp_(list(self.values.values()), list(self._weights.values()), share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the weights."""
        weights = copies(self._weights)
        self._put(self.values)
        try:
            yield
        finally:
            self._put(weights)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def state(self) -> dict[str, Tensor]:
        """Copies of the average, by name."""
        return copies(self.values)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        self.values = {name: tensors[name].clone() for name in self._weights}
