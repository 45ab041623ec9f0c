"""Renormalisation and factorisation scales: a number, or a function of the final state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.blame import blaming
from nisampler.base.checks import Finite, Positive, checked, settings
from nisampler.errors import ConfigError, ProcessError
from nisampler.processes.constants import LOWEST_SCALE
from nisampler.processes.own import resolved
from nisampler.processes.phase_space.kinematics import mass, momentum, pt

ScaleFunction = Callable[[Tensor], Tensor]
_TINY = 1e-30
ConstantScale = Annotated[Finite, Field(ge=LOWEST_SCALE)]
"""A scale in GeV."""
ScaleName = str | ConstantScale | ScaleFunction
"""As a card gives it, or a function of the momenta."""


@settings
class Scales:
    """Both scales of a process: one central function times constant factors.

    mu_R = renormalisation_factor * mu(p), mu_F = factorisation_factor * mu(p), in GeV.

    Attributes
    ----------
    name
        Name of the central scale, for reports.
    central
        Maps final states (n, m, 4) to scales (n,) in GeV, or is one number of at least 1 GeV for all.
    renormalisation_factor, factorisation_factor
        For variations, usually between 1/2 and 2.

    Raises
    ------
    ConfigError
        If a factor is not positive, or a constant scale is below 1 GeV.

    Examples
    --------
    >>> Scales("fixed", 90.0, factorisation_factor=0.5).constant
    (90.0, 45.0)
    """

    name: str
    central: ScaleFunction | ConstantScale
    renormalisation_factor: Positive = 1.0
    factorisation_factor: Positive = 1.0

    @property
    def constant(self) -> tuple[float, float] | None:
        """mu_R and mu_F where they are the same for all final states, None for dynamic scales."""
        if callable(self.central):
            return None
        factors = (self.renormalisation_factor, self.factorisation_factor)
        mu_r, mu_f = (max(factor * self.central, LOWEST_SCALE) for factor in factors)
        return mu_r, mu_f

    def __call__(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """mu_R and mu_F in GeV, each (n,), of the final states p (n, m, 4); at least 1 GeV."""
        if not callable(self.central):
            mu_r, mu_f = (p.new_full((len(p),), mu) for mu in self.constant or ())
            return mu_r, mu_f
        central = self.central(p)
        return (
            (self.renormalisation_factor * central).clamp(min=LOWEST_SCALE),
            (self.factorisation_factor * central).clamp(min=LOWEST_SCALE),
        )

    def clamped(self, mu_r: Tensor, mu_f: Tensor) -> Tensor | int:
        """How many of the scales (n,) that it gave would be below 1 GeV: a mask (2, n), or a number."""
        if callable(self.central):
            return torch.stack([mu_r, mu_f]) <= LOWEST_SCALE
        factors = (self.renormalisation_factor, self.factorisation_factor)
        return len(mu_r) * sum(factor * self.central < LOWEST_SCALE for factor in factors)


def transverse_mass(p: Tensor) -> Tensor:
    """Transverse mass sqrt(E^2 - pz^2) = sqrt(m^2 + pT^2) of momenta (..., 4).

    >>> transverse_mass(torch.tensor([5.0, 1.0, 1.0, 3.0]))
    tensor(4.)
    """
    return ((p[..., 0] - p[..., 3]) * (p[..., 0] + p[..., 3])).clamp(min=0).sqrt()


def make_scales(
    scale: ScaleName,
    bosons: Sequence[tuple[int, ...]],
    masses: dict[str, float],
    factors: tuple[float, float] = (1.0, 1.0),
) -> Scales:
    """A scale by its name, as a number in GeV, or as a function of one's own.

    Names: "m_ll", the invariant mass of the boson; "m_T", its transverse mass, averaged where there are several heavy
    particles; "H_T", the sum of the transverse masses of boson (or tops) and partons, and "H_T/2" and "H_T/4" of it;
    "sum m_T" and "sum m_T/2", the same of all final legs, the leptons of a boson one by one, as MadGraph has it; "sum
    E_T", the sum of E sin(theta) of all final legs; "sqrt(s^)", their mass; "file.py:function", from momenta (n, m, 4)
    in GeV of the final legs to scales (n,); and each key of `masses`, "m_Z" for example, for that constant.

    Parameters
    ----------
    scale
        The name, or a number.
    bosons
        Legs of each heavy particle, for example ((0, 1),) for a boson that decays to the legs 0 and 1.
    masses
        Constants with a name, in GeV.
    factors
        The renormalisation and the factorisation scale in units of the central one.

    Raises
    ------
    ConfigError
        If there is no scale of that name, or the number is below 1 GeV.
    ProcessError, UnknownProcessError
        If a function cannot be found; when it is called, if it raises an error or returns no positive scales.

    Examples
    --------
    >>> p = torch.tensor([[[50.0, 30.0, 0.0, 40.0], [50.0, -30.0, 0.0, -40.0]]])
    >>> make_scales("m_ll", ((0, 1),), {})(p)[0]
    tensor([100.])
    >>> make_scales("m_Q", ((0, 1),), {"m_Z": 91.1876})
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: no scale 'm_Q'; known: H_T, H_T/2, H_T/4, sum m_T, sum m_T/2, sum E_T, sqrt(s^), ...
    """
    checked("scale", scale, ScaleName)
    if callable(scale) or (isinstance(scale, str) and ":" in scale):
        return Scales(resolved(scale)[0], FunctionScale(scale), *factors)
    groups = [list(legs) for legs in bosons]
    decayed = {leg for legs in groups for leg in legs}

    def heavy(p: Tensor) -> Tensor:
        return torch.stack([p[:, legs].sum(1) for legs in groups], 1)

    def h_t(p: Tensor) -> Tensor:
        partons = [leg for leg in range(p.shape[1]) if leg not in decayed]
        boson = transverse_mass(heavy(p)).sum(1) if groups else 0.0
        return boson + transverse_mass(p[:, partons]).sum(1)

    known: dict[str, ScaleFunction | float] = {
        "H_T": h_t,
        "H_T/2": lambda p: 0.5 * h_t(p),
        "H_T/4": lambda p: 0.25 * h_t(p),
        "sum m_T": lambda p: transverse_mass(p).sum(1),
        "sum m_T/2": lambda p: 0.5 * transverse_mass(p).sum(1),
        "sum E_T": lambda p: (p[..., 0] * pt(p) / momentum(p).clamp(min=_TINY)).sum(1),
        "sqrt(s^)": lambda p: mass(p.sum(1)),
    }
    if groups:
        known["m_T"] = lambda p: transverse_mass(heavy(p)).mean(1)
        known["m_ll"] = lambda p: mass(heavy(p)).mean(1)
    known |= masses
    if not isinstance(scale, str):
        return Scales(f"{scale} GeV", scale, *factors)
    if scale not in known:
        raise ConfigError(
            f"no scale {scale!r}; known: {', '.join(known)}, file.py:function of your own, or a number in GeV"
        )
    return Scales(scale, known[scale], *factors)


class FunctionScale:
    """A function of one's own from momenta (n, m, 4) to scales (n,) in GeV, by name or itself.

    Raises
    ------
    ProcessError, UnknownProcessError
        If there is none of that name; when it is called, if it raises an error or returns no positive scales.

    Examples
    --------
    >>> FunctionScale(lambda p: p[:, 0, 0])(torch.ones(3, 2, 4))
    tensor([1., 1., 1.])
    """

    def __init__(self, function: str | ScaleFunction) -> None:
        self._name, self._function = resolved(function)

    def __call__(self, p: Tensor) -> Tensor:
        """Scales (n,) in GeV of the final states p (n, m, 4)."""
        with blaming(f"the scale {self._name} failed", ProcessError):
            found = self._function(p)
        if not isinstance(found, Tensor) or found.shape != p.shape[:1]:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ProcessError(f"the scale {self._name} must return a tensor ({len(p)},), got {what}")
        if not bool((torch.isfinite(found) & (found > 0)).all()):
            raise ProcessError(f"the scale {self._name} is not positive and finite everywhere")
        return found
