"""The tables of a file that describes a calorimeter, see `nisampler.calo.detector.description`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from nisampler.base.checks import Count, Finite, Natural, NonNegative, Positive, Row, Whole, settings
from nisampler.calo.detector.conditions import Condition, ConditionKind, Unit
from nisampler.calo.detector.geometry import (
    Angles,
    Floats,
    IncidentEnergy,
    Layer,
    Layout,
)
from nisampler.calo.detector.tables import read_rows
from nisampler.errors import ConfigError, CorruptFileError, GeometryError

MOST_BYTES = 64 << 20
_MOST_LAYERS = 10_000
UNITS = {"eV": 1e-6, "keV": 1e-3, "MeV": 1.0, "GeV": 1e3, "TeV": 1e6}
LENGTHS = {"mm": 1.0, "cm": 10.0, "m": 1e3}
_Unit = Literal["eV", "keV", "MeV", "GeV", "TeV"] | Positive


@settings
class Span:
    """Equal cells between two ends.

    >>> Span(cells=4, low=-2.0, high=2.0).edges
    (-2.0, -1.0, 0.0, 1.0, 2.0)
    """

    cells: Angles
    low: Finite
    high: Finite

    @property
    def edges(self) -> tuple[float, ...]:
        """All of them."""
        return tuple(float(edge) for edge in np.linspace(self.low, self.high, self.cells + 1))


_Edges = Span | Row[Finite]


@settings
class LayerEntry:
    """One of ``[[layers]]``: `r` and `alpha`, or `x` and `y`, or `cells`.

    Parameters
    ----------
    repeat
        So many layers alike, one behind the other.
    id
        Number of the first of them; by default they are counted.
    r, alpha
        Edges of the rings, and either the number of equal angular bins or their edges in radians.
    x, y
        Edges of rectangular cells.
    cells
        Centres [x, y] or [x, y, width] of single cells, or the name of a CSV file with such columns and a head.
    width
        Side of the squares for which listed cells stand in the simulator and in figures; by default the distance of
        each to the nearest.
    threshold
        Of this layer; by default that of all.
    absorber, active, slabs
        Thicknesses of a slab, and how many such pairs the layer adds up; for the simulator.

    Examples
    --------
    >>> LayerEntry(r=(0.0, 5.0, 10.0), alpha=4).layer(7, 1.0, Path()).shape
    (4, 2)
    """

    repeat: Annotated[Whole, Field(ge=1, le=_MOST_LAYERS)] = 1
    id: Natural | None = None
    r: _Edges | None = None
    alpha: Angles | Row[Finite] = 1
    x: _Edges | None = None
    y: _Edges | None = None
    cells: Annotated[str, Field(min_length=1)] | Row[Row[Finite]] | None = None
    width: Positive | None = None
    threshold: NonNegative | None = None
    absorber: NonNegative = 0.0
    active: Positive | None = None
    slabs: Count = 1

    def __post_init__(self) -> None:
        kinds = [self.r is not None, self.x is not None and self.y is not None, self.cells is not None]
        if sum(kinds) != 1 or (self.x is None) != (self.y is None):
            raise ConfigError("cells of a layer are given by r (and alpha), by x and y, or by cells: one of the three")

    def layer(self, number: int, unit: float, folder: Path) -> Layer:
        """The layer of that number, for lengths in a unit of so many mm and files in a folder.

        Raises
        ------
        GeometryError
            If cells are wrong.
        StorageError, CorruptFileError
            If a list of cells cannot be read.
        """
        if self.cells is not None:
            places = _places(folder / self.cells) if isinstance(self.cells, str) else self.cells
            return _listed(number, places, self.width, unit)
        if self.r is not None:
            edges = _edges(self.r, unit)
            if isinstance(self.alpha, int):
                return Layer.polar(number, self.alpha, edges)
            return Layer(number, "polar", tuple(self.alpha), edges)
        x, y = (_edges(edges or (), unit) for edges in (self.x, self.y))
        return Layer(number, "rectangular", x, y)


@settings
class LawEntry:
    """``incident``: law and energies, in the unit of the incident energies.

    >>> LawEntry("uniform", (1.0, 10.0)).in_mev(1e3).values
    (1000.0, 10000.0)
    """

    law: Literal["discrete", "log-uniform", "uniform"]
    energies: Row[Positive]
    counts: Row[Natural] = ()

    def in_mev(self, unit: float) -> IncidentEnergy:
        """The law, for energies in a unit of so many MeV; discrete ones are equally frequent without counts."""
        counts = self.counts or ((1,) * len(self.energies) if self.law == "discrete" else ())
        return IncidentEnergy(self.law, tuple(unit * energy for energy in self.energies), tuple(counts))


@settings
class UnitsEntry:
    """``[units]``: of lengths in this file, and of energies in this file and in those of showers.

    `showers` is the unit of the voxels and of thresholds, `incident` that of the incident energies; a number is one of
    so many MeV, such as the energy of a crossing.

    >>> UnitsEntry(showers=0.15).length
    'mm'
    """

    length: Literal["mm", "cm", "m"] = "mm"
    incident: _Unit = "MeV"
    showers: _Unit = "MeV"


@settings
class FilesEntry:
    """``[files]``: layout of the HDF5 files of showers, and names of their datasets.

    >>> FilesEntry(showers="hits").layout
    'calochallenge'
    """

    layout: Layout = "calochallenge"
    incident: str = "incident_energies"
    showers: str = "showers"


@settings
class ElementEntry:
    """One of ``[elements.NAME]``: a material that is not known, in the units of `Element`.

    >>> ElementEntry(Z=29.3, A=63.9, density=8.5, radiation_length=12.7, ionisation=1.4).interaction_length is None
    True
    """

    Z: Positive
    A: Positive
    density: Positive
    radiation_length: Positive
    ionisation: Positive
    interaction_length: Positive | None = None


@settings
class ConditionEntry:
    """One of ``[[conditions]]``: a column beside the incident energy, as in `nisampler.calo.detector.conditions`.

    `values` are the ends of a range or, with `discrete`, all of them; `categories` are the codes of a category by name.

    >>> ConditionEntry("particle", categories={"photon": 22, "electron": 11}).condition.labels
    ('electron', 'photon')
    """

    name: Annotated[str, Field(min_length=1)]
    values: Row[Finite] = ()
    azimuth: bool = False
    unit: Unit = ""
    discrete: bool = False
    categories: dict[str, Finite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.categories):
            raise ConfigError(f"condition {self.name}: give values or categories: one of the two")

    @property
    def condition(self) -> Condition:
        """As the geometry has it."""
        if self.categories:
            labels, codes = zip(*sorted(self.categories.items(), key=lambda item: item[1]), strict=True)
            return Condition(self.name, "category", codes, labels, self.unit)
        kind: ConditionKind = "azimuth" if self.azimuth else "number"
        return Condition(self.name, kind, tuple(self.values), (), self.unit, self.discrete)


@settings
class MaterialEntry:
    """``[material]``: what layers are made of, as in `nisampler.calo.detector.material.Material`.

    >>> MaterialEntry(active="silicon").signal
    'deposited'
    """

    active: str
    absorber: str | None = None
    upstream: NonNegative = 0.0
    signal: Literal["deposited", "calibrated"] = "deposited"
    crossings: Literal["smooth", "landau"] = "smooth"
    resolution: Positive | None = None


def _edges(given: Span | Sequence[float], unit: float) -> tuple[float, ...]:
    return tuple(unit * edge for edge in (given.edges if isinstance(given, Span) else given))


def _listed(number: int, places: Sequence[Sequence[float]], width: float | None, unit: float) -> Layer:
    """A layer of single cells; those without a width get the distance to their nearest neighbour."""
    if not places or {len(place) for place in places} not in ({2}, {3}):
        raise GeometryError(f"layer {number}: cells are [x, y] or [x, y, width], all alike and at least one")
    table = unit * np.asarray(places, dtype=np.float64)
    x, y = (tuple(column.tolist()) for column in table.T[:2])
    if table.shape[1] == 3:
        return Layer(number, "cells", x, y, tuple(table[:, 2].tolist()))
    widths = np.full(len(table), unit * width) if width is not None else _nearest(table)
    return Layer(number, "cells", x, y, tuple(widths.tolist()))


def _nearest(places: Floats) -> Floats:
    """Distance (n,) of each place (n, 2) to the nearest other."""
    from scipy.spatial import KDTree

    if len(places) < 2:
        raise GeometryError("a single cell has no neighbour: give its width")
    if not np.isfinite(places).all():
        raise GeometryError("places of cells must be finite")
    distances: Floats = KDTree(places).query(places, k=2)[0][:, 1]
    if not np.all(distances > 0):
        raise GeometryError("listed cells need places that all differ")
    return distances


def _places(path: Path) -> list[list[float]]:
    """The columns x, y and, where there is one, width of a CSV file."""
    rows = read_rows(path, MOST_BYTES, "a list of cells")
    if not rows:
        raise CorruptFileError(f"{path} lists no cells: it needs a head with x, y and maybe width, and a row for each")
    names = ["x", "y", *(["width"] if "width" in rows[0] else [])]
    try:
        table = [[float(row[name]) for name in names] for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} is not a list of cells with the columns {', '.join(names)}: {error}") from error
    if not all(math.isfinite(number) for row in table for number in row):
        raise CorruptFileError(f"{path} has places of cells that are not finite")
    return table
