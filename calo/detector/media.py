"""Materials of calorimeters: elements, layered sampling media and the lengths and energies of showers in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nisampler.errors import GeometryError

SCALE_ENERGY = 21.2
"""The energy E_s = m_e c² √(4π/α) of multiple scattering, MeV."""


@dataclass(frozen=True)
class Element:
    """A material of one element, or what is treated as one.

    Parameters
    ----------
    name
        Its name.
    Z, A
        Atomic number and mass number (g/mol).
    density
        g/cm³.
    radiation_length
        g/cm².
    ionisation
        Energy loss dE/dx of a minimally ionising particle, MeV cm²/g.
    interaction_length
        Nuclear interaction length, g/cm²; None where it is not known.

    Raises
    ------
    GeometryError
        If a number is not positive.

    Examples
    --------
    >>> lead = Element("Pb", 82, 207.2, 11.35, 5.612, 12.74)
    >>> round(lead.critical_energy, 2)
    6.4
    """

    name: str
    Z: float
    A: float
    density: float
    radiation_length: float
    ionisation: float
    interaction_length: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.Z, self.A, self.density, self.radiation_length, self.ionisation]
        numbers += [] if self.interaction_length is None else [self.interaction_length]
        if not all(0 < number < math.inf for number in numbers):
            raise GeometryError(f"element {self.name}: Z, A, density, lengths and dE/dx must be positive")

    @property
    def critical_energy(self) -> float:
        """E_c = 2.66 (X0 Z/A)^1.1 MeV with X0 in g/cm² (Dovzhenko and Pomanskii).

        >>> round(TUNGSTEN.critical_energy, 2)
        8.0
        """
        return 2.66 * math.pow(self.radiation_length * self.Z / self.A, 1.1)


# Particle Data Group, Review of Particle Physics, "Atomic and nuclear properties of materials"
TUNGSTEN = Element("tungsten", 74, 183.84, 19.30, 6.76, 1.145, 191.9)
LEAD = Element("lead", 82, 207.2, 11.35, 6.37, 1.122, 199.6)
IRON = Element("iron", 26, 55.845, 7.874, 13.84, 1.451, 132.1)
COPPER = Element("copper", 29, 63.546, 8.960, 12.86, 1.403, 137.3)
SILICON = Element("silicon", 14, 28.0855, 2.329, 21.82, 1.664, 108.4)
ARGON = Element("liquid argon", 18, 39.948, 1.396, 19.55, 1.508, 119.7)
# Compounds: Z is the mean by mass, A gives their Z/A
POLYSTYRENE = Element("polystyrene", 5.6, 10.42, 1.060, 43.79, 1.936, 77.1)
LEAD_TUNGSTATE = Element("lead tungstate", 68.4, 165.5, 8.300, 7.39, 1.229, 168.3)
CAESIUM_IODIDE = Element("caesium iodide", 54.0, 129.9, 4.510, 8.39, 1.243, 171.5)

ELEMENTS: Mapping[str, Element] = MappingProxyType(
    {
        known.name: known
        for known in (
            *(TUNGSTEN, LEAD, IRON, COPPER),
            *(SILICON, ARGON, POLYSTYRENE, LEAD_TUNGSTATE, CAESIUM_IODIDE),
        )
    }
)
"""Materials by name."""


@dataclass(frozen=True)
class Medium:
    """What the longitudinal and radial profiles of a shower depend on (hep-ex/0001020, section 2).

    Parameters
    ----------
    radiation_length, moliere_radius
        X0 and R_M, mm.
    critical_energy
        E_c, MeV.
    Z
        Mean atomic number.
    sampling_frequency
        F_S = X0/(d_a + d_p): sampling layers in one radiation length; None in a homogeneous medium.
    e_over_mip
        ê = 1/(1 + 0.007 (Z_p - Z_a)): signal of a shower relative to that of minimally ionising particles.
    mip_fraction
        Share of the energy loss of a minimally ionising particle that is in the active material.

    Examples
    --------
    >>> Medium(5.6, 16.0, 7.4, 82.0).visible_fraction
    1.0
    """

    radiation_length: float
    moliere_radius: float
    critical_energy: float
    Z: float
    sampling_frequency: float | None = None
    e_over_mip: float = 1.0
    mip_fraction: float = 1.0

    @property
    def visible_fraction(self) -> float:
        """ê f_mip: share of the energy of a shower that is deposited in the active material."""
        return self.e_over_mip * self.mip_fraction


def mixture(parts: Sequence[tuple[Element, float]]) -> Medium:
    """A homogeneous medium of elements that share one volume.

    With the mass fractions w: 1/X0 = Σ w/X0_i, E_c = X0 Σ w E_c,i/X0_i, 1/R_M = Σ w E_c,i/(X0_i E_s), Z = Σ w Z_i.

    Parameters
    ----------
    parts
        Each element with its share of the volume; a stack of slabs has their thicknesses here.

    Raises
    ------
    GeometryError
        If there is no part, or a share is not positive.

    Examples
    --------
    >>> lead = Element("Pb", 82, 207.2, 11.35, 5.612, 12.74)
    >>> round(mixture([(lead, 1.0)]).radiation_length, 3)
    4.944
    """
    if not parts or min(share for _, share in parts) <= 0:
        raise GeometryError(f"a mixture needs parts of positive volume, got {[share for _, share in parts]}")
    volume = sum(share for _, share in parts)
    mass = sum(element.density * share for element, share in parts)
    weights = [(element, element.density * share / mass) for element, share in parts]
    radiation_length = 1.0 / sum(w / element.radiation_length for element, w in weights)
    scattering = sum(w * element.critical_energy / element.radiation_length for element, w in weights)
    centimetres_to_mm = 10.0 * volume / mass
    return Medium(
        radiation_length=radiation_length * centimetres_to_mm,
        moliere_radius=SCALE_ENERGY / scattering * centimetres_to_mm,
        critical_energy=radiation_length * scattering,
        Z=sum(w * element.Z for element, w in weights),
    )


def sampling_medium(passive: Element, passive_mm: float, active: Element, active_mm: float) -> Medium:
    """A stack of `passive` and `active` slabs of these thicknesses in mm.

    >>> par04 = sampling_medium(TUNGSTEN, 1.4, SILICON, 0.3)
    >>> round(par04.radiation_length, 2), round(par04.critical_energy, 2), round(par04.moliere_radius, 1)
    (4.22, 8.23, 10.9)

    Raises
    ------
    GeometryError
        If a thickness is not positive.
    """
    average = mixture([(passive, passive_mm), (active, active_mm)])
    loss_passive = passive.ionisation * passive.density * passive_mm
    loss_active = active.ionisation * active.density * active_mm
    return Medium(
        radiation_length=average.radiation_length,
        moliere_radius=average.moliere_radius,
        critical_energy=average.critical_energy,
        Z=average.Z,
        sampling_frequency=average.radiation_length / (passive_mm + active_mm),
        e_over_mip=1.0 / (1.0 + 0.007 * (passive.Z - active.Z)),
        mip_fraction=loss_active / (loss_passive + loss_active),
    )
