"""How energies are named and counted in files of showers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nisampler.errors import GeometryError


@dataclass(frozen=True)
class Files:
    """What files of showers call their columns, and in which units they hold energies, where a layout is not followed.

    Parameters
    ----------
    incident, showers
        Names of the datasets of the layout "calochallenge".
    incident_unit, unit
        MeV of a unit of the incident energies and of the voxels; None for those of the layout.

    Raises
    ------
    GeometryError
        If a unit is not positive, or names are empty or equal.

    Examples
    --------
    >>> Files(incident="energy", incident_unit=1e3).unit is None
    True
    """

    incident: str = "incident_energies"
    showers: str = "showers"
    incident_unit: float | None = None
    unit: float | None = None

    def __post_init__(self) -> None:
        if not (self.incident and self.showers) or self.incident == self.showers:
            raise GeometryError(f"datasets need two names that differ, got {self.incident!r} and {self.showers!r}")
        for unit in (self.incident_unit, self.unit):
            if unit is not None and not 0 < unit < math.inf:
                raise GeometryError(f"the unit of energies in files must be positive, got {unit} MeV")
