"""What a shower file holds where.

| layout        | incident energies           | voxels                                                       |
|---------------|-----------------------------|--------------------------------------------------------------|
| calochallenge | incident_energies (N,1) MeV | showers (N, n_voxels) MeV                                    |
| calogan       | energy (N,1) GeV            | layer_0 (N,3,96), layer_1, ... MeV; overflow (N, layers) MeV |
| getting-high  | 30x30/energy (N,1) GeV      | 30x30/layers (N,30,30,30) MeV                                |
"""

from __future__ import annotations

from typing import NamedTuple, get_args

from nisampler.calo.detector.geometry import Geometry, Layout
from nisampler.errors import GeometryError


class Columns(NamedTuple):
    """Where a layout keeps what: the incident energies and their unit, and the name, place and shape of the voxels.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> columns_of(geometry("toy"), None).factor
    1.0
    """

    energy: str
    unit: str
    voxels: tuple[tuple[str, slice, tuple[int, ...]], ...]
    overflow: bool = False

    @property
    def factor(self) -> float:
        """From the unit of the incident energies to MeV."""
        return {"MeV": 1.0, "GeV": 1e3}[self.unit]


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
    chosen: str = geometry.layout if layout is None else layout
    everything = slice(0, geometry.n_voxels)
    if chosen == "calochallenge":
        return Columns("incident_energies", "MeV", (("showers", everything, (geometry.n_voxels,)),))
    if chosen == "calogan":
        parts = tuple(
            (f"layer_{position}", geometry.slice(position), layer.shape)
            for position, layer in enumerate(geometry.layers)
        )
        return Columns("energy", "GeV", parts, overflow=True)
    if chosen != "getting-high":
        known = ", ".join(get_args(Layout))
        raise GeometryError(f"no file layout is called {chosen!r}; there are {known}")
    if geometry.grid is None or geometry.layers[0].kind != "rectangular":
        raise GeometryError(
            f"{geometry.name}: the layout getting-high holds equal layers of rectangular cells only; "
            "use layout='calochallenge'"
        )
    group = "x".join(str(cells) for cells in geometry.layers[0].shape)
    return Columns(f"{group}/energy", "GeV", ((f"{group}/layers", everything, geometry.grid),))
