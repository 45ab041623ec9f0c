"""A calorimeter of one's own in a TOML file: cells, threshold, units, law of the incident energy, material.

```toml
name = "sandwich"
particle = "electron"
threshold = 0.1
incident = { law = "log-uniform", energies = [1000, 50000] }

[[layers]]
repeat = 10
x = { cells = 12, low = -60, high = 60 }
y = { cells = 12, low = -60, high = 60 }
absorber = 3.5
active = 0.5

[material]
absorber = "tungsten"
active = "silicon"
```
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from nisampler.base.checks import NonNegative, Positive, Row, Whole, from_data, settings
from nisampler.base.storage import read_bounded
from nisampler.calo.detector.binning import read_binning
from nisampler.calo.detector.entries import (
    LENGTHS,
    MOST_BYTES,
    UNITS,
    ConditionEntry,
    ElementEntry,
    FilesEntry,
    LawEntry,
    LayerEntry,
    MaterialEntry,
    UnitsEntry,
)
from nisampler.calo.detector.geometries import GEOMETRIES
from nisampler.calo.detector.geometry import (
    Geometry,
    Layer,
)
from nisampler.calo.detector.material import Material, Slabs
from nisampler.calo.detector.media import ELEMENTS, Element
from nisampler.calo.detector.stored import Files
from nisampler.errors import ConfigError, GeometryError

PARTICLES: Mapping[str, int] = {
    **{"electron": 11, "positron": -11, "muon": 13, "photon": 22, "pion": 211},
    **{"kaon": 321, "proton": 2212, "neutron": 2112},
}
"""PDG codes of the particles that need no `pdg`."""


@settings
class Description:
    """The whole file.

    Parameters
    ----------
    name
        None of those that are registered.
    particle, pdg
        Name, and PDG code where the name is not in `PARTICLES`.
    threshold
        Cells below it count as empty.
    incident
        Law of the incident energy.
    layers
        At least one, in the order of the files.
    binning
        Instead of layers, an XML binning of the CaloChallenge beside the file.
    response
        Typical E_tot/E_inc, by which files in wrong units are recognised.
    conditions
        What showers depend on beside the incident energy.
    units, files, material, elements
        See their classes.

    Raises
    ------
    ConfigError
        If a setting is unknown, missing or wrong.

    Examples
    --------
    >>> law = LawEntry("uniform", (1e3, 1e5))
    >>> entry = LayerEntry(x=(-1.0, 0.0, 1.0, 2.0), y=(-5.0, 5.0), repeat=2)
    >>> Description("slab", 0.1, law, layers=(entry,)).geometry(Path()).sizes
    (3, 3)
    """

    name: Annotated[str, Field(min_length=1)]
    threshold: NonNegative
    incident: LawEntry
    particle: Annotated[str, Field(min_length=1)] = "electron"
    pdg: Whole | None = None
    layers: Row[LayerEntry] = ()
    binning: str | None = None
    response: Positive | None = None
    units: UnitsEntry = field(default_factory=UnitsEntry)
    files: FilesEntry = field(default_factory=FilesEntry)
    material: MaterialEntry | None = None
    elements: dict[str, ElementEntry] = field(default_factory=dict)
    conditions: Row[ConditionEntry] = ()

    def __post_init__(self) -> None:
        if self.name in GEOMETRIES:
            raise ConfigError(f"name = {self.name!r} is that of a registered geometry: choose another")
        if bool(self.layers) == (self.binning is not None):
            raise ConfigError("cells are given by [[layers]] or by binning: one of the two")
        if self.pdg is None and self.particle not in PARTICLES:
            raise ConfigError(f"pdg is missing: it is known for {', '.join(PARTICLES)}, not for {self.particle!r}")

    def geometry(self, folder: Path) -> Geometry:
        """The calorimeter; files that are named lie in the folder.

        Raises
        ------
        GeometryError
            If cells, thresholds or materials are wrong.
        StorageError, CorruptFileError
            If a file that is named cannot be read.
        """
        energy, voxel = (_unit(unit) for unit in (self.units.incident, self.units.showers))
        incident = self.incident.in_mev(energy)
        if self.binning is not None:
            cells = read_binning(folder / self.binning, self.particle, name=self.name, threshold=0.0, incident=incident)
            layers, entries = cells.layers, []
        else:
            entries = [entry for entry in self.layers for _ in range(entry.repeat)]
            layers = tuple(self._layers(folder))
        thresholds = tuple(voxel * (self.threshold if e.threshold is None else e.threshold) for e in entries)
        lowest = min((voxel * self.threshold, *thresholds))
        plain = set(thresholds) <= {lowest}
        return Geometry(
            name=self.name,
            particle=self.particle,
            pdg=PARTICLES[self.particle] if self.pdg is None else self.pdg,
            layers=layers,
            threshold=lowest if plain else min(thresholds),
            incident=incident,
            layout=self.files.layout,
            response=self.response,
            thresholds=() if plain else thresholds,
            files=Files(
                self.files.incident,
                self.files.showers,
                None if self.units.incident == "MeV" else energy,
                None if self.units.showers == "MeV" else voxel,
            ),
            material=self._material(entries),
            conditions=tuple(entry.condition for entry in self.conditions),
        )

    def _layers(self, folder: Path) -> Iterator[Layer]:
        number, unit = 0, LENGTHS[self.units.length]
        for entry in self.layers:
            number = number if entry.id is None else entry.id
            first = entry.layer(number, unit, folder)
            for step in range(entry.repeat):
                yield first if not step else Layer(number + step, first.kind, first.first, first.second, first.widths)
            number += entry.repeat

    def _material(self, entries: Sequence[LayerEntry]) -> Material | None:
        if self.material is None:
            return None
        if not entries or any(entry.active is None for entry in entries):
            raise GeometryError("each layer needs the thickness of its active slab where there is a [material]")
        unit = LENGTHS[self.units.length]
        absorber = self.material.absorber
        return Material(
            active=self._element(self.material.active),
            absorber=None if absorber is None else self._element(absorber),
            layers=tuple(Slabs(unit * (e.active or 0.0), unit * e.absorber, e.slabs) for e in entries),
            upstream=self.material.upstream,
            calibrated=self.material.signal == "calibrated",
            resolution=self.material.resolution,
            landau=self.material.crossings == "landau",
        )

    def _element(self, name: str) -> Element:
        """One of this file, or one that is known."""
        if name in self.elements:
            return Element(name, **vars(self.elements[name]))
        if name not in ELEMENTS:
            known = ", ".join(ELEMENTS)
            raise GeometryError(f"no material is called {name!r}: choose {known}, or add [elements.{name}]")
        return ELEMENTS[name]


def read_geometry(path: str | Path) -> Geometry:
    """The calorimeter of a TOML file, see `Description` for its keys.

    Raises
    ------
    StorageError
        If the file or one that it names cannot be read.
    CorruptFileError
        If one is larger than 64 MiB.
    GeometryError
        If it is not TOML, or a key is unknown, missing or wrong; the message says which.

    Examples
    --------
    >>> import tempfile
    >>> text = __doc__.split("```")[1].removeprefix("toml")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder, "sandwich.toml")
    ...     _ = place.write_text(text)
    ...     read_geometry(place).grid
    (10, 12, 12)
    """
    try:
        data = tomllib.loads(read_bounded(path, MOST_BYTES, "a geometry").decode())
        return from_data(Description, data).geometry(Path(path).parent)
    except (ConfigError, GeometryError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GeometryError(f"{path}: {error}") from error


def _unit(unit: str | float) -> float:
    """MeV of a unit of energy."""
    return UNITS[unit] if isinstance(unit, str) else unit
