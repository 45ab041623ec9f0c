"""Renormalisation and factorisation scales: a number, or a function of the final state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Finite, Positive, checked, settings
from nisampler.errors import ConfigError
from nisampler.processes.constants import LOWEST_SCALE
from nisampler.processes.phase_space.kinematics import mass

ScaleFunction = Callable[[Tensor], Tensor]
ConstantScale = Annotated[Finite, Field(ge=LOWEST_SCALE)]
"""A scale in GeV."""
ScaleName = str | ConstantScale


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
    """A scale by its name or as a number in GeV.

    Names: "m_ll", the invariant mass of the boson; "m_T", its transverse mass, averaged where there are several heavy
    particles; "H_T/2", half the sum of the transverse masses of boson (or tops) and partons; and each key of `masses`,
    "m_Z" for example, for that constant.

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

    Examples
    --------
    >>> p = torch.tensor([[[50.0, 30.0, 0.0, 40.0], [50.0, -30.0, 0.0, -40.0]]])
    >>> make_scales("m_ll", ((0, 1),), {})(p)[0]
    tensor([100.])
    >>> make_scales("m_Q", ((0, 1),), {"m_Z": 91.1876})
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: no scale 'm_Q'; known: H_T/2, m_T, m_ll, m_Z, or a number in GeV
    """
    checked("scale", scale, ScaleName)
    groups = [list(legs) for legs in bosons]
    decayed = {leg for legs in groups for leg in legs}

    def heavy(p: Tensor) -> Tensor:
        return torch.stack([p[:, legs].sum(1) for legs in groups], 1)

    def half_h_t(p: Tensor) -> Tensor:
        partons = [leg for leg in range(p.shape[1]) if leg not in decayed]
        boson = transverse_mass(heavy(p)).sum(1) if groups else 0.0
        return 0.5 * (boson + transverse_mass(p[:, partons]).sum(1))

    named: dict[str, ScaleFunction | float] = {
        "H_T/2": half_h_t,
    }
    if groups:
        named["m_T"] = lambda p: transverse_mass(heavy(p)).mean(1)
        named["m_ll"] = lambda p: mass(heavy(p)).mean(1)
    known: dict[str, ScaleFunction | float] = {**named, **masses}
    if not isinstance(scale, str):
        return Scales(f"{scale} GeV", scale, *factors)
    if scale not in known:
        raise ConfigError(f"no scale {scale!r}; known: {', '.join(known)}, or a number in GeV")
    return Scales(scale, known[scale], *factors)
