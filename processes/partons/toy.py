"""Parton densities in closed form, for examples and tests that must not need the files of a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.processes.constants import ALPHA_S
from nisampler.processes.partons.pdf import PDF_FLAVOURS, PartonDensity


class ToyDensity:
    """x f = (1 - x)^3 for every parton at every scale, with a constant strong coupling.

    Examples
    --------
    >>> toy = ToyDensity()
    >>> toy.xf(torch.tensor([0.5]), 100.0)[0, toy.column(21)]
    tensor(0.1250)
    """

    lhapdf_id = 0
    column = staticmethod(PartonDensity.column)

    def xf(self, x: Tensor, q2: Tensor | float) -> Tensor:
        """Densities (..., 13) at momentum fractions x (...), whatever the squared scale q2 is."""
        return (1 - x).clamp(min=0).pow(3).unsqueeze(-1).expand(*x.shape, len(PDF_FLAVOURS))

    def alpha_s(self, q2: Tensor) -> Tensor:
        """The coupling at the Z mass, of the shape of q2."""
        return torch.full_like(q2, ALPHA_S)
