"""Cuts on final states, declared once, applied as masks; cuts that no event can pass are refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nisampler.base.checks import Limit, Natural, NonNegative, Positive, Row, settings
from nisampler.errors import ConfigError
from nisampler.processes.phase_space.kinematics import mass2

_TINY = 1e-300


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


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(f"contradictory cuts: {message}")


@settings
class _Window:
    """Limits of a quantity of some legs, in GeV."""

    legs: Row[Natural]
    minimum: NonNegative = 0.0
    maximum: Limit = math.inf

    def __post_init__(self) -> None:
        _require(self.minimum < self.maximum, f"{self} is an empty window")


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

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        for first, second in itertools.combinations(self.legs, 2):
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
        _require(bool(self.legs) or self.minimum == 0, "missing pT is cut, but no leg is invisible")

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


class Cuts:
    """All cuts of a process.

    Parameters
    ----------
    cuts
        Any number of them; none lets everything pass.
    sqrt_s
        Energy of the collision in GeV, the kinematic limit.

    Raises
    ------
    ConfigError
        If no event can pass: an energy above sqrt_s, a distance that the rapidities do not allow, a pair mass below the
        one that pT and Delta R enforce.

    Examples
    --------
    >>> cuts = Cuts([TransverseMomentumCut((0,), 2.0), PseudorapidityCut((0,), 2.5)], sqrt_s=100.0)
    >>> cuts.mask(torch.tensor([[[5.0, 3.0, 0.0, 4.0]]]))
    tensor([True])
    >>> Cuts([TransverseMomentumCut((0,), 60.0)], sqrt_s=100.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: contradictory cuts: pT > 60.0 is above the kinematic limit of 50.0 GeV
    """

    def __init__(self, cuts: Sequence[Cut], sqrt_s: float) -> None:
        self.cuts, self.sqrt_s = tuple(cuts), sqrt_s
        self._check()

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass every cut, shape (n,) of bool."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        for cut in self.cuts:
            passed = passed & cut.mask(p)
        return passed

    def _check(self) -> None:
        legs = {leg for cut in self.cuts for leg in cut.legs}
        energy = sum(self._pt_minimum(leg) for leg in legs)
        _require(energy < self.sqrt_s, f"the minimal transverse momenta add up to {energy} of {self.sqrt_s} GeV")
        for cut in self.cuts:
            match cut:
                case TransverseMomentumCut() | MissingTransverseMomentumCut():
                    limit = 0.5 * self.sqrt_s
                    _require(cut.minimum < limit, f"pT > {cut.minimum} is above the kinematic limit of {limit} GeV")
                case MassCut():
                    self._check_mass(cut)
                case SeparationCut():
                    self._check_separation(cut)
        for leg in legs:
            self._check_leg(leg)

    def _check_mass(self, cut: MassCut) -> None:
        _require(cut.minimum < self.sqrt_s, f"mass > {cut.minimum} is above the energy of {self.sqrt_s} GeV")
        if len(cut.legs) == 2:
            self._check_pair(cut)

    def _check_separation(self, cut: SeparationCut) -> None:
        for first, second in itertools.combinations(cut.legs, 2):
            widest = math.hypot(self._eta_maximum(first) + self._eta_maximum(second), math.pi)
            text = f"Delta R > {cut.minimum} of legs {first} and {second} cannot exceed {widest:.4g}"
            _require(cut.minimum < widest, text)

    def _check_leg(self, leg: int) -> None:
        maxima = [c.maximum for c in self.cuts if isinstance(c, TransverseMomentumCut) and leg in c.legs]
        lowest, highest = self._pt_minimum(leg), min(maxima, default=math.inf)
        _require(lowest < highest, f"leg {leg} needs {lowest} < pT < {highest}")

    def _check_pair(self, cut: MassCut) -> None:
        first, second = cut.legs
        together = [c.minimum for c in self.cuts if isinstance(c, SeparationCut) and {first, second} <= {*c.legs}]
        # m^2 = 2 pT pT' (cosh delta_eta - cos delta_phi), which is smallest at a given Delta R for delta_eta = 0.
        opening = 1 - math.cos(min(max(together, default=0.0), math.pi))
        smallest = math.sqrt(2 * self._pt_minimum(first) * self._pt_minimum(second) * opening)
        text = f"legs {first} and {second} have a mass above {smallest:.4g} by pT and Delta R, not below {cut.maximum}"
        _require(smallest < cut.maximum, text)

    def _pt_minimum(self, leg: int) -> float:
        minima = [c.minimum for c in self.cuts if isinstance(c, TransverseMomentumCut) and leg in c.legs]
        return max(minima, default=0.0)

    def _eta_maximum(self, leg: int) -> float:
        maxima = [c.maximum for c in self.cuts if isinstance(c, PseudorapidityCut) and leg in c.legs]
        # pT cosh(eta) is the energy of a massless leg.
        lowest = self._pt_minimum(leg)
        return min([math.inf if lowest == 0 else math.acosh(0.5 * self.sqrt_s / lowest), *maxima])


def separation2(a: Tensor, b: Tensor) -> Tensor:
    """Delta R^2 of two momenta (..., 4), finite (though large) for a momentum along the beam.

    >>> separation2(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])).sqrt()
    tensor(1.5708)
    """
    azimuth = torch.atan2(a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1], a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])
    return (_finite_eta(a) - _finite_eta(b)).square() + azimuth.square()


def _finite_eta(p: Tensor) -> Tensor:
    return torch.asinh(p[..., 3] / _transverse2(p).clamp(min=_TINY).sqrt())


def _transverse2(p: Tensor) -> Tensor:
    return p[..., 1].square() + p[..., 2].square()
