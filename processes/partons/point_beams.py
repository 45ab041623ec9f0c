"""Beams of leptons or photons: particles without structure, which carry all of the energy of their beam."""

from __future__ import annotations

from torch import Tensor

from nisampler.errors import PdfError
from nisampler.processes.particles import NAMES
from nisampler.processes.partons.alpha_s import AlphaS


class PointBeams:
    """The densities of two beams of one kind of particle each: one at x = 1, in the form that protons have theirs.

    Parameters
    ----------
    codes
        PDG codes of the beams, the one along +z first.
    alpha_s
        The strong coupling, which no fit of densities brings along.

    Examples
    --------
    >>> import torch
    >>> from nisampler.processes.partons.alpha_s import RunningAlphaS
    >>> beams = PointBeams((11, -11), RunningAlphaS(0.118))
    >>> beams.xf(torch.ones(1, 2), 100.0)
    tensor([[[1., 0.],
             [0., 1.]]])
    >>> beams.column(13)
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: beams of e- and e+ have no mu-
    """

    lhapdf_id = 0

    def __init__(self, codes: tuple[int, int], alpha_s: AlphaS) -> None:
        self.codes, self._alpha_s = codes, alpha_s
        self._kinds = list(dict.fromkeys(codes))

    def column(self, pdg: int) -> int:
        """The column of `xf` that holds this particle; raises PdfError where neither beam is of it."""
        if pdg not in self._kinds:
            first, second = (NAMES[code] for code in self.codes)
            raise PdfError(f"beams of {first} and {second} have no {NAMES.get(pdg, pdg)}")
        return self._kinds.index(pdg)

    def xf(self, x: Tensor, q2: Tensor | float) -> Tensor:
        """(n, 2, kinds) at x (n, 2): one for the particle that a beam is of, at every scale."""
        own = [[float(kind == code) for kind in self._kinds] for code in self.codes]
        return x.new_tensor(own).expand(len(x), -1, -1)

    def alpha_s(self, q2: Tensor) -> Tensor:
        """The strong coupling (n,) at Q² (n,) in GeV²."""
        return self._alpha_s(q2)
