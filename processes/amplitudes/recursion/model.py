"""Masses, widths and couplings of every vertex, from the parameters of the Standard Model and a scheme for widths."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nisampler.base.checks import checked
from nisampler.processes.constants import DOWN_QUARKS, GLUON, HIGGS, PHOTON, TAU, TOP, UP_QUARKS, W_BOSON, Z_BOSON
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import is_quark

Scheme = Literal["zero", "fixed", "complex"]
"""How unstable particles enter: no widths, -i M Gamma in every denominator, or complex masses and mixing angle."""

Mixing = Literal["unit", "model"]
"""The CKM matrix: the unit, or that of the model."""

SINGLET = 9
"""Code of the part of the gluon that is a colour singlet: -1/N of every exchange between two quark lines."""
NEUTRAL = (PHOTON, Z_BOSON)
MASSLESS_BOSONS = (PHOTON, GLUON, SINGLET)


def partners(code: int) -> tuple[int, ...]:
    """Codes of the fermions that a W turns this fermion into.

    >>> partners(2), partners(-11)
    ((1, 3, 5), (-12,))
    """
    size, sign = abs(code), 1 if code > 0 else -1
    if is_quark(code):
        found: tuple[int, ...] = DOWN_QUARKS if size in UP_QUARKS else UP_QUARKS
    else:
        found = (size + 1,) if size % 2 else (size - 1,)
    return tuple(sign * other for other in found)


@dataclass(frozen=True)
class Couplings:
    r"""Numbers of the Feynman rules in unitary gauge: i Gamma at vertices, all fields incoming.

    Denner's conventions (0709.1075, appendix A): the photon couples to fermions by -e Q, the Z by
    e (T_3 P_L - Q s^2) / (s c), the W by e V / (sqrt(2) s) P_L; photon, W+, W- by e and Z, W+, W- by -e c/s. The strong
    coupling is taken out.

    Parameters
    ----------
    model
        Masses, widths, alpha and the CKM matrix.
    scheme
        "complex" replaces every M^2 by M^2 - i M Gamma, in s^2 = 1 - M_W^2 / M_Z^2 too, which keeps gauge invariance;
        "fixed" and "zero" take the mixing angle of the model.
    stable
        PDG codes of particles without width, whatever the scheme.

    Raises
    ------
    ConfigError
        If there is no such scheme.

    Examples
    --------
    >>> couplings = Couplings(StandardModel(), "fixed")
    >>> couplings.mass_squared(24)
    (6467.21...-167.84...j)
    >>> couplings.fermion(22, 11)
    ((0.313...+0j), (0.313...+0j))
    """

    model: StandardModel
    scheme: Scheme = "fixed"
    stable: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        checked("scheme", self.scheme, Scheme)

    def mass(self, code: int) -> float:
        """Mass in GeV."""
        m = self.model
        masses = {Z_BOSON: m.mass_z, W_BOSON: m.mass_w, HIGGS: m.mass_higgs, TOP: m.mass_top}
        return {**masses, 5: m.mass_bottom, TAU: m.mass_tau}.get(abs(code), 0.0)

    def width(self, code: int) -> float:
        """Width in GeV, 0 in the scheme "zero" and for particles that are stable."""
        return 0.0 if self.scheme == "zero" or abs(code) in self.stable else self.decay_width(code)

    def decay_width(self, code: int) -> float:
        """Width in GeV, whatever the scheme."""
        m = self.model
        widths = {Z_BOSON: m.width_z, W_BOSON: m.width_w, HIGGS: m.width_higgs, TOP: m.width_top}
        return widths.get(abs(code), 0.0)

    def mass_squared(self, code: int) -> complex:
        """M^2 - i M Gamma in GeV^2."""
        return complex(self.mass(code) ** 2, -self.mass(code) * self.width(code))

    def numerator_mass(self, code: int) -> complex:
        """The mass of numerators and couplings in GeV: the root of M^2 - i M Gamma with complex masses, else M."""
        return cmath.sqrt(self.mass_squared(code)) if self.scheme == "complex" else complex(self.mass(code))

    @cached_property
    def charge(self) -> float:
        """e."""
        return math.sqrt(self.model.charge_squared)

    @cached_property
    def sine(self) -> complex:
        """s of the mixing angle."""
        if self.scheme == "complex":
            return cmath.sqrt(1 - self.mass_squared(W_BOSON) / self.mass_squared(Z_BOSON))
        return complex(self.model.sin2_theta_w**0.5)

    @cached_property
    def cosine(self) -> complex:
        """c of the mixing angle."""
        return cmath.sqrt(1 - self.sine**2)

    def _charges(self, fermion: int) -> tuple[float, float]:
        """Electric charge and third component of the isospin."""
        size = abs(fermion)
        if is_quark(size):
            return (-1 / 3, -0.5) if size % 2 else (2 / 3, 0.5)
        return (-1.0, -0.5) if size % 2 else (0.0, 0.5)

    def fermion(self, boson: int, fermion: int) -> tuple[complex, complex]:
        """Left- and right-handed coupling of a neutral vector boson to a fermion and its antiparticle."""
        charge, isospin = self._charges(fermion)
        if boson in (GLUON, SINGLET):
            value = complex(0.5**0.5 if is_quark(fermion) else 0.0)
            return value, value
        if boson == PHOTON:
            return complex(-self.charge * charge), complex(-self.charge * charge)
        unit = self.charge / (self.sine * self.cosine)
        return unit * (isospin - charge * self.sine**2), -unit * charge * self.sine**2

    def charged(self, first: int, second: int) -> complex:
        """Left-handed coupling of a W to two fermions of different isospin; 0 where the CKM element is."""
        unit = self.charge / (math.sqrt(2) * self.sine)
        if not is_quark(first):
            return unit
        up, down = sorted((abs(first), abs(second)), key=lambda code: code % 2)
        return unit * self.model.ckm_element(up, down)

    def yukawa(self, fermion: int) -> complex:
        """Coupling of the Higgs to a fermion and its antiparticle."""
        return -self.charge * self.numerator_mass(fermion) / (2 * self.sine * self.numerator_mass(W_BOSON))

    def triple(self, boson: int) -> complex:
        """Coupling of a photon or a Z, W+ and W-."""
        return complex(self.charge) if boson == PHOTON else -self.charge * self.cosine / self.sine

    def quartic(self, first: int, second: int) -> complex:
        """Coupling of W+ W- and two bosons, whose product of metrics is 2 (W+ W-)(V V') - ...; of (W+ W+)(W- W-)."""
        if abs(first) == W_BOSON:
            return self.charge**2 / self.sine**2
        return -self.triple(first) * self.triple(second)

    def higgs_vectors(self, boson: int) -> complex:
        """Coupling of a Higgs and two equal heavy bosons, in GeV."""
        return self.two_higgs_vectors(boson) * 2 * self.numerator_mass(W_BOSON) * self.sine / self.charge

    def two_higgs_vectors(self, boson: int) -> complex:
        """Coupling of two Higgs bosons and two equal heavy bosons."""
        value = self.charge**2 / (2 * self.sine**2)
        return value if abs(boson) == W_BOSON else value / self.cosine**2

    @property
    def three_higgs(self) -> complex:
        """Self-coupling of three Higgs bosons in GeV."""
        return -1.5 * self.charge * self.mass_squared(HIGGS) / (self.sine * self.numerator_mass(W_BOSON))

    @property
    def four_higgs(self) -> complex:
        """Self-coupling of four Higgs bosons."""
        return self.three_higgs * self.charge / (2 * self.sine * self.numerator_mass(W_BOSON))
