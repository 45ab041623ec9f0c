"""What a shower file holds where.

| layout        | incident energies           | voxels                                                       |
|---------------|-----------------------------|--------------------------------------------------------------|
| calochallenge | incident_energies (N,1) MeV | showers (N, n_voxels) MeV                                    |
| calogan       | energy (N,1) GeV            | layer_0 (N,3,96), layer_1, ... MeV; overflow (N, layers) MeV |
| getting-high  | 30x30/energy (N,1) GeV      | 30x30/layers (N,30,30,30) MeV                                |

`Geometry.files` says where a file differs: other names in the first of them, and other units.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

from nisampler.calo.detector.geometry import Geometry, Layout
from nisampler.errors import GeometryError


class Columns(NamedTuple):
    """Where a file keeps what: incident energies and voxels with name, place and shape, and their units in MeV.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> columns_of(geometry("calogan"), None).factor
    1000.0
    """

    energy: str
    factor: float
    voxels: tuple[tuple[str, slice, tuple[int, ...]], ...]
    overflow: bool = False
    unit: float = 1.0

    @property
    def energy_unit(self) -> str:
        """Name of the unit of the incident energies."""
        return {1e-3: "keV", 1.0: "MeV", 1e3: "GeV"}.get(self.factor, f"units of {self.factor:g} MeV")


def columns_of(geometry: Geometry, layout: Layout | None) -> Columns:
    """The datasets of a layout (default: that of the geometry).

    Raises
    ------
    GeometryError
        If there is no such layout, or it cannot hold the geometry.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> columns_of(geometry("toy"), None).energy
    'incident_energies'
    """
    found, own = _columns(geometry, layout or geometry.layout), geometry.files
    factor = found.factor if own.incident_unit is None else own.incident_unit
    return found._replace(factor=factor, unit=own.unit or found.unit)


def _columns(geometry: Geometry, chosen: str) -> Columns:
    """Those of a layout in its own units."""
    everything = slice(0, geometry.n_voxels)
    if chosen == "calochallenge":
        return Columns(geometry.files.incident, 1.0, ((geometry.files.showers, everything, (geometry.n_voxels,)),))
    if chosen == "calogan":
        parts = tuple(
            (f"layer_{position}", geometry.slice(position), layer.shape)
            for position, layer in enumerate(geometry.layers)
        )
        return Columns("energy", 1e3, parts, overflow=True)
    if chosen != "getting-high":
        known = ", ".join(get_args(Layout))
        raise GeometryError(f"no file layout is called {chosen!r}; there are {known}")
    if geometry.grid is None or geometry.layers[0].kind != "rectangular":
        raise GeometryError(
            f"{geometry.name}: the layout getting-high holds equal layers of rectangular cells only; "
            "use layout='calochallenge'"
        )
    group = "x".join(str(cells) for cells in geometry.layers[0].shape)
    return Columns(f"{group}/energy", 1e3, ((f"{group}/layers", everything, geometry.grid),))
