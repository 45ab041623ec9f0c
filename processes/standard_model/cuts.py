"""Cuts between two kinds of legs, and on the two jets of highest transverse momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base.checks import Natural, NonNegative, Row, settings
from nisampler.processes.hadron.cuts import separation2
from nisampler.processes.phase_space.kinematics import eta, mass2, pt


@settings
class DistanceCut:
    """sqrt(delta eta^2 + delta phi^2) > minimum for each leg of the first and each of the second kind.

    Raises
    ------
    ConfigError
        If the minimum is negative.

    Examples
    --------
    >>> p = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]]])
    >>> DistanceCut((0,), (1,), minimum=2.0).mask(p)
    tensor([False])
    """

    legs: Row[Natural]
    others: Row[Natural]
    minimum: NonNegative

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        first, second = p[:, list(self.legs)].unsqueeze(2), p[:, list(self.others)].unsqueeze(1)
        return (separation2(first, second) > self.minimum**2).flatten(1).all(1)


@settings
class LeadingPairCut:
    """Mass in GeV and distance in pseudorapidity of the two legs of highest transverse momentum, at least.

    Raises
    ------
    ConfigError
        If a minimum is negative.

    Examples
    --------
    >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0], [5.0, -3.0, 0.0, -4.0], [1.0, 0.0, 1.0, 0.0]]])
    >>> LeadingPairCut((0, 1, 2), mass=9.0, delta_eta=2.0).mask(p)
    tensor([True])
    """

    legs: Row[Natural]
    mass: NonNegative = 0.0
    delta_eta: NonNegative = 0.0

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        jets = p[:, list(self.legs)]
        if len(self.legs) > 2:
            jets = torch.take_along_dim(jets, pt(jets).topk(2, dim=1).indices.unsqueeze(2), 1)
        rapidities = eta(jets)
        far = (rapidities[:, 0] - rapidities[:, 1]).abs() >= self.delta_eta
        return far & (mass2(jets.sum(1)) >= self.mass**2)
