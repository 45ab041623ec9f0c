"""Conditions on final states, declared once, applied as masks."""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
from torch import Tensor

from nisampler.base.checks import Limit, Natural, NonNegative, Positive, Row, settings
from nisampler.base.four_vectors import separation2 as separation2
from nisampler.errors import ConfigError
from nisampler.processes.phase_space.kinematics import eta, mass2, pt


class Cut(Protocol):
    """One condition on the momenta of the final legs.

    >>> cut: Cut = MassCut((0, 1), 50.0)
    >>> cut.legs
    (0, 1)
    """

    @property
    def legs(self) -> tuple[int, ...]:
        """The legs it looks at."""

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""


def require(condition: bool, message: str) -> None:
    """ConfigError, which says that cuts contradict each other, unless the condition holds.

    >>> require(1 > 2, "nothing is left")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: contradictory cuts: nothing is left
    """
    if not condition:
        raise ConfigError(f"contradictory cuts: {message}")


@settings
class _Window:
    """Limits of a quantity of some legs, in GeV."""

    legs: Row[Natural]
    minimum: NonNegative = 0.0
    maximum: Limit = math.inf

    def __post_init__(self) -> None:
        require(self.minimum < self.maximum, f"{self} is an empty window")


@settings
class TransverseMomentumCut(_Window):
    """minimum <= pT <= maximum, in GeV, for each of the legs.

    Raises
    ------
    ConfigError
        If a limit is negative or the window is empty.

    Examples
    --------
    >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0]], [[13.0, 0.0, 12.0, 5.0]]])
    >>> TransverseMomentumCut((0,), minimum=10.0).mask(p)
    tensor([False,  True])
    """

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        pt2 = _transverse2(p[:, list(self.legs)])
        return ((pt2 >= self.minimum**2) & (pt2 <= self.maximum**2)).all(-1)


@settings
class PseudorapidityCut:
    """|eta| < maximum for each of the legs; a leg along the beam fails.

    Raises
    ------
    ConfigError
        If the maximum is not positive.

    Examples
    --------
    >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0]], [[5.0, 0.0, 0.0, 5.0]]])
    >>> PseudorapidityCut((0,), maximum=2.5).mask(p)
    tensor([ True, False])
    """

    legs: Row[Natural]
    maximum: Positive

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        chosen = p[:, list(self.legs)]
        # |eta| < eta_max is |pz| < sinh(eta_max) pT: no logarithm, finite along the beam.
        return (chosen[..., 3].square() < math.sinh(min(self.maximum, 300.0)) ** 2 * _transverse2(chosen)).all(-1)


@settings
class SeparationCut:
    """sqrt(delta eta^2 + delta phi^2) > minimum for each pair of the legs.

    Raises
    ------
    ConfigError
        If the minimum is negative.

    Examples
    --------
    >>> p = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]]])
    >>> SeparationCut((0, 1), minimum=0.4).mask(p)
    tensor([True])
    """

    legs: Row[Natural]
    minimum: NonNegative

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pairs of legs that are kept apart."""
        return tuple(itertools.combinations(self.legs, 2))

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        for first, second in self.pairs:
            passed = passed & (separation2(p[:, first], p[:, second]) > self.minimum**2)
        return passed


@settings
class MassCut(_Window):
    """minimum < m < maximum, in GeV, for the invariant mass of the sum of the legs.

    Raises
    ------
    ConfigError
        If a limit is negative or the window is empty.

    Examples
    --------
    >>> p = torch.tensor([[[50.0, 30.0, 0.0, 40.0], [50.0, -30.0, 0.0, -40.0]]])
    >>> MassCut((0, 1), 66.0, 116.0).mask(p)
    tensor([True])
    >>> MassCut((0, 1), 116.0, 66.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: contradictory cuts: MassCut(... minimum=116.0, maximum=66.0) is an empty window
    """

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        squared = mass2(p[:, list(self.legs)].sum(1))
        return (squared > self.minimum**2) & (squared < self.maximum**2)


@settings
class MissingTransverseMomentumCut:
    """|sum of the transverse momenta of the invisible legs| > minimum, in GeV.

    Raises
    ------
    ConfigError
        If the minimum is negative or there is no invisible leg.

    Examples
    --------
    >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0]]])
    >>> MissingTransverseMomentumCut((0,), minimum=20.0).mask(p)
    tensor([False])
    """

    legs: Row[Natural]
    minimum: NonNegative

    def __post_init__(self) -> None:
        require(bool(self.legs) or self.minimum == 0, "missing pT is cut, but no leg is invisible")

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        return _transverse2(p[:, list(self.legs)].sum(1)) >= self.minimum**2


def leg_cuts(legs: tuple[int, ...], pt_min: float, eta_max: float) -> list[Cut]:
    """Cuts on transverse momentum and pseudorapidity of each of some legs, where they cut anything.

    >>> [type(cut).__name__ for cut in leg_cuts((0, 1), pt_min=20.0, eta_max=math.inf)]
    ['TransverseMomentumCut']
    """
    cuts: list[Cut] = []
    if legs and pt_min != 0:
        cuts.append(TransverseMomentumCut(legs, pt_min))
    if legs and not math.isinf(eta_max):
        cuts.append(PseudorapidityCut(legs, eta_max))
    return cuts


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

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pairs of legs that are kept apart."""
        return tuple(itertools.product(self.legs, self.others))

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


def _transverse2(p: Tensor) -> Tensor:
    return p[..., 1].square() + p[..., 2].square()
