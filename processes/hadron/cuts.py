"""Cuts on final states, declared once, applied as masks; cuts that no event can pass are refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.processes.phase_space.kinematics import mass2

_TINY = 1e-300


class Cut(Protocol):
    """One condition on the momenta of the final legs."""

    @property
    def legs(self) -> tuple[int, ...]:
        """The legs it looks at."""

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(f"contradictory cuts: {message}")


def _check_window(name: str, minimum: float, maximum: float) -> None:
    _require(minimum >= 0, f"{name} needs a minimum of at least 0, got {minimum}")
    _require(minimum < maximum, f"{name} lies between {minimum} and {maximum}, an empty window")


@dataclass(frozen=True)
class TransverseMomentumCut:
    """minimum <= pT <= maximum, in GeV, for each of the legs.

    Raises
    ------
    ConfigError
        If the window is empty.
    """

    legs: tuple[int, ...]
    minimum: float = 0.0
    maximum: float = math.inf

    def __post_init__(self) -> None:
        _check_window("the transverse momentum", self.minimum, self.maximum)

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        pt2 = _transverse2(p[:, list(self.legs)])
        return ((pt2 >= self.minimum**2) & (pt2 <= self.maximum**2)).all(-1)


@dataclass(frozen=True)
class PseudorapidityCut:
    """|eta| < maximum for each of the legs; a leg along the beam fails.

    Raises
    ------
    ConfigError
        If the maximum is not positive.
    """

    legs: tuple[int, ...]
    maximum: float

    def __post_init__(self) -> None:
        _require(self.maximum > 0, f"|eta| < {self.maximum} is empty, use a positive limit")

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        chosen = p[:, list(self.legs)]
        # |eta| < eta_max is |pz| < sinh(eta_max) pT: no logarithm, finite along the beam.
        return (chosen[..., 3].square() < math.sinh(min(self.maximum, 300.0)) ** 2 * _transverse2(chosen)).all(-1)


@dataclass(frozen=True)
class SeparationCut:
    """sqrt(delta eta^2 + delta phi^2) > minimum for each pair of the legs.

    Raises
    ------
    ConfigError
        If the minimum is negative.
    """

    legs: tuple[int, ...]
    minimum: float

    def __post_init__(self) -> None:
        _require(self.minimum >= 0, f"Delta R > {self.minimum} needs a distance of at least 0")

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        for first, second in itertools.combinations(self.legs, 2):
            passed = passed & (separation2(p[:, first], p[:, second]) > self.minimum**2)
        return passed


@dataclass(frozen=True)
class MassCut:
    """minimum < m < maximum, in GeV, for the invariant mass of the sum of the legs.

    Raises
    ------
    ConfigError
        If the window is empty.
    """

    legs: tuple[int, ...]
    minimum: float = 0.0
    maximum: float = math.inf

    def __post_init__(self) -> None:
        _check_window("the invariant mass", self.minimum, self.maximum)

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        squared = mass2(p[:, list(self.legs)].sum(1))
        return (squared > self.minimum**2) & (squared < self.maximum**2)


@dataclass(frozen=True)
class MissingTransverseMomentumCut:
    """|sum of the transverse momenta of the invisible legs| > minimum, in GeV.

    Raises
    ------
    ConfigError
        If the minimum is negative or there is no invisible leg.
    """

    legs: tuple[int, ...]
    minimum: float

    def __post_init__(self) -> None:
        _require(self.minimum >= 0, f"missing pT > {self.minimum} needs a minimum of at least 0")
        _require(bool(self.legs) or self.minimum == 0, "missing pT is cut, but no leg is invisible")

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        return _transverse2(p[:, list(self.legs)].sum(1)) >= self.minimum**2


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
        energy = sum(self._pt_minimum(leg) for leg in {leg for cut in self.cuts for leg in cut.legs})
        _require(energy < self.sqrt_s, f"the minimal transverse momenta add up to {energy} of {self.sqrt_s} GeV")
        for cut in self.cuts:
            if isinstance(cut, TransverseMomentumCut | MissingTransverseMomentumCut):
                limit = 0.5 * self.sqrt_s
                _require(cut.minimum < limit, f"pT > {cut.minimum} is above the kinematic limit of {limit} GeV")
            if isinstance(cut, MassCut):
                _require(cut.minimum < self.sqrt_s, f"mass > {cut.minimum} is above the energy of {self.sqrt_s} GeV")
                if len(cut.legs) == 2:
                    self._check_pair(cut)
            if isinstance(cut, SeparationCut):
                for first, second in itertools.combinations(cut.legs, 2):
                    widest = math.hypot(self._eta_maximum(first) + self._eta_maximum(second), math.pi)
                    text = f"Delta R > {cut.minimum} of legs {first} and {second} cannot exceed {widest:.4g}"
                    _require(cut.minimum < widest, text)
        for leg in {leg for cut in self.cuts for leg in cut.legs}:
            self._check_leg(leg)

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
    """Delta R^2 of two momenta (..., 4), finite (though large) for a momentum along the beam."""
    azimuth = torch.atan2(a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1], a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])
    return (_finite_eta(a) - _finite_eta(b)).square() + azimuth.square()


def _finite_eta(p: Tensor) -> Tensor:
    return torch.asinh(p[..., 3] / _transverse2(p).clamp(min=_TINY).sqrt())


def _transverse2(p: Tensor) -> Tensor:
    return p[..., 1].square() + p[..., 2].square()
