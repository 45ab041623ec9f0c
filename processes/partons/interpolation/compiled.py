"""When compiled code is taken, and that it gives the bits of plain torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from nisampler.base.kernels import at_work, tried
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.tables import Bicubics, Cubics, Table

# Places that plain torch interpolates in the time that numba takes to start and compile.
_WORTH_COMPILING = 8_000_000


class Kernels(NamedTuple):
    """Compiled functions, see `numba_tables`.

    >>> Kernels._fields
    ('cubic', 'bicubic', 'pairs')
    """

    cubic: Callable[..., int]
    bicubic: Callable[..., int]
    pairs: Callable[..., None]


class Demand:
    """Counts places, because numba takes a second to start: that pays off only where there are many.

    >>> Demand().kernels(torch.zeros(3, requires_grad=True)) is None
    True
    """

    def __init__(self) -> None:
        self._asked = 0

    def kernels(self, *parts: Tensor) -> Kernels | None:
        """Compiled functions for tensors (n, ...), None where plain torch must or should do."""
        self._asked += len(parts[0])
        differentiated = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
        if differentiated or parts[0].device.type != "cpu":
            return None
        return compiled() if at_work() or self._asked >= _WORTH_COMPILING else None

    def rows(self, table: Table, *places: Tensor) -> tuple[Tensor, Tensor | int]:
        """Rows of a table, see `Table.rows`."""
        kernels = self.kernels(*places)
        if kernels is None:
            return table.rows(*places)
        return table.by_kernel(kernels.bicubic if len(places) == 2 else kernels.cubic, places)


@cache
def compiled() -> Kernels | None:
    """The compiled functions, None where numba does not work; they are compiled now.

    >>> compiled() is compiled()
    True
    """

    def load() -> Kernels:
        from nisampler.processes.partons.interpolation.numba_tables import bicubic, cubic, pairs

        kernels = Kernels(cubic, bicubic, pairs)
        _require_same_bits(kernels)
        return kernels

    return tried(load, "parton densities are interpolated in plain torch, some times slower")


def _require_same_bits(kernels: Kernels) -> None:
    """RuntimeError unless these give what plain torch gives, which another processor might round otherwise."""
    generator = torch.Generator().manual_seed(1)
    place, other = torch.rand(2, 64, generator=generator, dtype=torch.float64)
    values = padded(padded(torch.rand(9, 9, 5, generator=generator, dtype=torch.float64)), 1)
    axis = CubicAxis([torch.linspace(0.0, 1.0, 9, dtype=torch.float64)])
    one, two = Cubics(values[0], axis), Bicubics(values, axis, axis)
    found = one.by_kernel(kernels.cubic, (place,))[0], two.by_kernel(kernels.bicubic, (place, other))[0]
    if not (torch.equal(found[0], one.rows(place)[0]) and torch.equal(found[1], two.rows(place, other)[0])):
        raise RuntimeError("compiled code rounds otherwise than torch")
