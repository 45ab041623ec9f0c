"""When compiled code is taken, and that it gives the bits of plain torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nisampler.base.kernels import tried
from nisampler.base.machine_code import Kernel
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.tables import Bicubics, Cubics, Table

FILE = Path(__file__).with_name("kernels.safetensors")
"""The compiled functions, which `shipping` writes."""


class Kernels(NamedTuple):
    """Compiled functions, see `numba_tables`.

    >>> Kernels._fields
    ('cubic', 'bicubic', 'pairs')
    """

    cubic: Callable[..., None]
    bicubic: Callable[..., None]
    pairs: Callable[..., None]


def kernels_for(*parts: Tensor) -> Kernels | None:
    """Compiled functions for these tensors, None where plain torch does it: for gradients, and on a GPU.

    >>> kernels_for(torch.zeros(3, requires_grad=True)) is None
    True
    """
    differentiated = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    return None if differentiated or parts[0].device.type != "cpu" else compiled()


def rows(table: Table, *places: Tensor) -> tuple[Tensor, Tensor | int]:
    """Rows of a table, see `Table.rows`.

    >>> table = Cubics(padded(torch.ones(2, 1, dtype=torch.float64)), CubicAxis([torch.arange(2.0).double()]))
    >>> rows(table, torch.zeros(1, dtype=torch.float64))
    (tensor([[1.]], dtype=torch.float64), 0)
    """
    kernels = kernels_for(*places)
    if kernels is None:
        return table.rows(*places)
    return table.by_kernel(kernels.bicubic if len(places) == 2 else kernels.cubic, places)


@cache
def compiled() -> Kernels | None:
    """The compiled functions, None where llvmlite is not installed or does not work.

    >>> compiled() is compiled()
    True
    """

    def load() -> Kernels:
        kernels = Kernels(*(Kernel(FILE, name) for name in Kernels._fields))
        _require_same_bits(kernels)
        return kernels

    return tried(load, "parton densities are interpolated in plain torch, some times slower", "llvmlite")


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
