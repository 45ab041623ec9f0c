"""Products of the parton densities of both beams, for all flavour combinations of a process at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.partons.devices import OnDevices
from nisampler.processes.partons.interpolation.compiled import kernels_for


class Pdf(Protocol):
    """Parton densities of a proton with their strong coupling.

    >>> from nisampler.processes.partons.toy import ToyDensity
    >>> pdf: Pdf = ToyDensity()
    >>> pdf.column(21)
    6
    """

    @property
    def lhapdf_id(self) -> int:
        """Number of the set, 0 if it has none."""

    def xf(self, x: Tensor, q2: Tensor | float) -> Tensor:
        """x f(x, Q²) of all flavours, (n, 2, flavours), at x (n, 2) and Q² (n, 1), or one number, in GeV²."""

    def column(self, pdg: int) -> int:
        """The column of `xf` that holds this parton."""

    def alpha_s(self, q2: Tensor) -> Tensor:
        """The strong coupling (n,) at Q² (n,) in GeV²."""


class Luminosity:
    """x1 f_a(x1) x2 f_b(x2) of all sub-processes, and their sums by matrix element.

    Parameters
    ----------
    subprocesses, elements
        Sub-processes of the amplitude and their number of matrix elements.
    column
        Column of a parton in the table of densities.

    Raises
    ------
    AmplitudeError
        If a sub-process names a matrix element that there is not.

    Examples
    --------
    >>> luminosity = Luminosity([SubProcess((2, -2), (), 0), SubProcess((1, -1), (), 0)], 1, lambda pdg: pdg + 6)
    >>> luminosity.by_element(torch.ones(1, 2, 13, dtype=torch.float64))
    tensor([[2.]], dtype=torch.float64)
    """

    def __init__(self, subprocesses: Sequence[SubProcess], elements: int, column: Callable[[int], int]) -> None:
        wrong = [item.element for item in subprocesses if not 0 <= item.element < elements]
        if wrong or not subprocesses:
            raise AmplitudeError(f"need sub-processes with elements 0 to {elements - 1}, got {wrong or 'none'}")
        self.elements = elements
        self._each = OnDevices(_Terms.of(subprocesses, column), torch.device("cpu"))
        summed: dict[tuple[tuple[int, int], int], float] = {}
        for item in subprocesses:
            key = (item.initial, item.element)
            summed[key] = summed.get(key, 0.0) + item.factor
        # Flavour combinations that differ only in the final state share one product of densities.
        merged = [SubProcess(initial, (), element, factor) for (initial, element), factor in summed.items()]
        merged.sort(key=lambda item: item.element)
        self._merged = OnDevices(_Terms.of(merged, column), torch.device("cpu"))

    def by_subprocess(self, densities: Tensor, squared: Tensor) -> Tensor:
        """Contributions (n, sub-processes), up to a common factor, from (n, 2, flavours) and (n, elements)."""
        terms = self._each.on(densities.device)
        return terms.products(densities) * squared[:, terms.element]

    def by_element(self, densities: Tensor) -> Tensor:
        """Σ factor x1 f_a x2 f_b over the sub-processes of each element, (n, elements)."""
        terms = self._merged.on(densities.device)
        sums = densities.new_zeros(len(densities), self.elements, dtype=torch.float64)
        kernels = kernels_for(densities)
        if kernels is None:
            return sums.index_add_(1, terms.element, terms.products(densities))
        columns = torch.stack([terms.first, terms.second, terms.element], 1)
        kernels.pairs(densities.double().contiguous().numpy(), columns.numpy(), terms.factor.numpy(), sums.numpy())
        return sums


@dataclass(frozen=True)
class _Terms:
    """Columns of the two densities, constant factor and element of each product."""

    first: Tensor
    second: Tensor
    factor: Tensor
    element: Tensor

    @classmethod
    def of(cls, subprocesses: Sequence[SubProcess], column: Callable[[int], int]) -> _Terms:
        columns = torch.tensor([[column(pdg) for pdg in item.initial] for item in subprocesses])
        factor = torch.tensor([item.factor for item in subprocesses], dtype=torch.float64)
        return cls(columns[:, 0], columns[:, 1], factor, torch.tensor([item.element for item in subprocesses]))

    def to(self, device: torch.device) -> _Terms:
        return _Terms(*(part.to(device) for part in (self.first, self.second, self.factor, self.element)))

    def products(self, densities: Tensor) -> Tensor:
        return densities[:, 0].index_select(1, self.first) * densities[:, 1].index_select(1, self.second) * self.factor
