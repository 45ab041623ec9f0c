"""Tables of cubics in one or two variables: rows of numbers at many places.

Compiled code and plain torch give the same bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.processes.partons.interpolation.axes import STENCIL, CubicAxis

# Places at a time, so that their rows stay in the cache of a core.
_BLOCK = 2048
# Equal steps of an axis, for each of which the cell of its beginning is known.
_GUESSES = 1024


class Table(ABC):
    """Rows of numbers at places of one or two axes; those below `lowest` are raised to it.

    >>> issubclass(Cubics, Table) and issubclass(Bicubics, Table)
    True
    """

    def __init__(self, table: Tensor, axes: Sequence[CubicAxis], lowest: float) -> None:
        self.table, self.axes, self.lowest = table.contiguous(), tuple(axes), lowest

    def to(self, device: torch.device) -> Self:
        """The same table on another device."""
        other = type(self).__new__(type(self))
        Table.__init__(other, self.table.to(device), [axis.to(device) for axis in self.axes], self.lowest)
        return other

    def rows(self, *places: Tensor) -> tuple[Tensor, Tensor | int]:
        """Rows (n, columns) at places (n,), float64, and a mask or the number of what was below the lowest.

        One place for each axis. NaN gives NaN.
        """
        on_cpu = places[0].device.type == "cpu"
        blocks = zip(*(torch.split(part, _BLOCK if on_cpu else max(len(part), 1)) for part in places), strict=True)
        found = torch.cat([self._plain(*block) for block in blocks])
        # On a CPU one look at the smallest value is ten times cheaper than counting.
        if on_cpu and (not found.numel() or float(found.detach().amin()) >= self.lowest):
            return found, 0
        return found.clamp(min=self.lowest), found.detach() < self.lowest

    def by_kernel(self, kernel: Callable[..., None], places: Sequence[Tensor]) -> tuple[Tensor, int]:
        """The same by compiled code, which takes no gradients and no places on a GPU."""
        arguments = self.arguments(places)
        kernel(*arguments)
        return torch.from_numpy(arguments[4]), int(arguments[5][0])

    def arguments(self, places: Sequence[Tensor]) -> tuple[Any, ...]:
        """What compiled code takes: places, axes, table, lowest, and rows and their count, which it fills in."""
        columns = self.table.shape[-1]
        inside = [_array(place.clamp(axis.low, axis.high)) for place, axis in zip(places, self.axes, strict=True)]
        rows, work = np.empty((len(places[0]), columns)), np.empty((2 + columns) * STENCIL)
        return tuple(inside), *self._of_kernel, self.lowest, rows, np.zeros(1, np.int64), work

    @property
    @abstractmethod
    def _of_kernel(self) -> tuple[Any, ...]:
        """Axes and table in the form that the kernel takes."""

    @abstractmethod
    def _plain(self, *places: Tensor) -> Tensor:
        """The rows in plain torch, nothing raised."""


class Cubics(Table):
    """Rows of numbers as cubics of one variable.

    Parameters
    ----------
    values
        (knots, columns), as many knots as `padded` makes of those of the axis.
    axis
        The axis.
    lowest
        Numbers below it are raised to it, and counted.

    Examples
    --------
    >>> from nisampler.processes.partons.interpolation.axes import padded
    >>> knots = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    >>> cubics = Cubics(padded(knots.pow(3).unsqueeze(1)), CubicAxis([knots]))
    >>> cubics.rows(torch.tensor([1.5], dtype=torch.float64))
    (tensor([[3.3750]], dtype=torch.float64), 0)
    """

    def __init__(self, values: Tensor, axis: CubicAxis, lowest: float = -math.inf) -> None:
        knots = axis.first.unsqueeze(1) + torch.arange(STENCIL, device=values.device)
        # Coefficients (4, cells, columns) of 1, u, u² and u³.
        super().__init__(torch.einsum("ckp,ckf->pcf", axis.cubics, values[knots]), [axis], lowest)

    def _plain(self, *places: Tensor) -> Tensor:
        cell, u = self.axes[0].locate(places[0])
        u = u.unsqueeze(1)
        found = self.table[3].index_select(0, cell)
        for power in (2, 1, 0):
            found = (found * u).add_(self.table[power].index_select(0, cell))
        return found

    @cached_property
    def _of_kernel(self) -> tuple[Any, ...]:
        return _located(self.axes[0]), self.table.numpy()


class Bicubics(Table):
    """Rows of numbers as cubics of an inner and an outer variable.

    Parameters
    ----------
    values
        (outer knots, inner knots, columns), as many knots as `padded` makes of those of the axes.
    inner, outer
        The axes.
    lowest
        Numbers below it are raised to it, and counted.

    Examples
    --------
    >>> from nisampler.processes.partons.interpolation.axes import padded
    >>> knots = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    >>> values = torch.outer(knots, knots.square()).unsqueeze(2)
    >>> table = Bicubics(padded(padded(values), 1), CubicAxis([knots]), CubicAxis([knots]))
    >>> place = torch.tensor([1.5], dtype=torch.float64)
    >>> table.rows(place, 2 * place)[0]
    tensor([[6.7500]], dtype=torch.float64)
    """

    def __init__(self, values: Tensor, inner: CubicAxis, outer: CubicAxis, lowest: float = -math.inf) -> None:
        super().__init__(values, [inner, outer], lowest)

    def at(self, outer: Tensor) -> Cubics:
        """The table of the inner variable at one place (1,) of the outer one."""
        first, weights = self.axes[1].stencil(outer)
        knots = first + torch.arange(STENCIL, device=first.device)
        return Cubics(_weighted(weights, self.table[knots].unbind(0)), self.axes[0], self.lowest)

    def _plain(self, *places: Tensor) -> Tensor:
        wide, knots = self._wide
        begin, weights = self.axes[0].stencil(places[0])
        first, others = self.axes[1].stencil(places[1])
        rows = (first * knots + begin).unsqueeze(1) + knots * torch.arange(STENCIL, device=begin.device)
        # A sum of table rows with weights, in one pass: the gathered rows are never stored.
        found = torch.nn.functional.embedding_bag(rows, wide, per_sample_weights=others, mode="sum")
        return _weighted(weights.unsqueeze(2), found.view(-1, STENCIL, self.table.shape[2]).unbind(1))

    @cached_property
    def _wide(self) -> tuple[Tensor, int]:
        """The table with the values of four inner knots in a row, and how many rows an outer knot has."""
        windows = self.table.unfold(1, STENCIL, 1).transpose(2, 3)
        return windows.flatten(2).flatten(0, 1), windows.shape[1]

    @cached_property
    def _of_kernel(self) -> tuple[Any, ...]:
        stencils = [(*_located(axis), _array(axis.first), _array(axis.cubics)) for axis in self.axes]
        return (*stencils, self.table.shape[1]), self.table.numpy().reshape(-1)


def _weighted(weights: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The sum of four parts (n, ...) times weights (n, 4, ...), added one after the other as compiled code does."""
    found = weights[:, 0] * parts[0]
    for k in range(1, STENCIL):
        found.add_(weights[:, k] * parts[k])
    return found


def _array(part: Tensor) -> NDArray[Any]:
    return part.detach().contiguous().numpy()


def _located(axis: CubicAxis) -> tuple[Any, ...]:
    """What a kernel needs to find the cells of an axis."""
    edges = torch.linspace(axis.low, axis.high, _GUESSES + 1, dtype=torch.float64)[:-1]
    guesses = torch.searchsorted(axis.starts[1:].contiguous(), edges, right=True)
    return *map(_array, (axis.starts, axis.widths, guesses)), axis.low, _GUESSES / (axis.high - axis.low)
