"""The calorimeter that a user names: a registered one, a file, or that of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nisampler.calo.detector.binning import read_binning
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy
from nisampler.calo.fitting.store import stored_geometry
from nisampler.errors import GeometryError


def given_geometry(
    name: str | Path, threshold: float | None = None, energies: str | None = None, particle: str | None = None
) -> Geometry:
    """The calorimeter of that name, file or folder.

    Parameters
    ----------
    name
        One that is registered, a TOML file (`nisampler.calo.detector.description`), an XML binning of the
        CaloChallenge, or the folder of a model.
    threshold
        Instead of its own, MeV; for all layers.
    energies
        Law of the incident energy instead of its own, as in `incident_law`.
    particle
        Which of those that an XML binning has.

    Raises
    ------
    GeometryError
        If there is none, or it or what is given is wrong.
    StorageError, CorruptFileError
        If a file or folder cannot be read.

    Examples
    --------
    >>> given_geometry("toy", threshold=0.5, energies="discrete:1:2").incident.values
    (1000.0, 2000.0)
    """
    text, law = str(name), None if energies is None else incident_law(energies)
    if text.endswith(".xml"):
        return read_binning(text, particle, threshold=threshold, incident=law)
    if text in GEOMETRIES:
        found = geometry(text)
    elif text.endswith(".toml"):
        found = read_geometry(text)
    elif Path(text).is_dir():
        found = stored_geometry(text)
    else:
        raise GeometryError(
            f"no geometry is called {text!r}; registered are {', '.join(GEOMETRIES)}; others come from a .toml or "
            ".xml file or the folder of a model"
        )
    if particle not in (None, found.particle):
        raise GeometryError(f"{text} is for {found.particle}, not for {particle}: only an XML binning has several")
    changed = found if threshold is None else replace(found, threshold=threshold, thresholds=())
    return changed if law is None else replace(changed, incident=law)


def incident_law(text: str) -> IncidentEnergy:
    """The law of incident energies of a text such as "log-uniform:1:100" or "discrete:5:10:20", in GeV.

    Raises
    ------
    GeometryError
        If it is none.

    Examples
    --------
    >>> incident_law("uniform:1:2")
    IncidentEnergy(kind='uniform', values=(1000.0, 2000.0), counts=())
    """
    kind, *ends = text.split(":")
    try:
        values = tuple(1e3 * float(end) for end in ends)
    except ValueError as error:
        raise GeometryError(f"energies are LAW:LOW:HIGH or discrete:E1:E2..., in GeV, got {text!r}") from error
    return IncidentEnergy(kind, values, (1,) * len(values) if kind == "discrete" else ())  # type: ignore[arg-type]


def geometry_table(chosen: Sequence[Geometry]) -> list[list[str]]:
    """Cells of a table of calorimeters, with a head.

    >>> geometry_table([geometry("toy")])[1]
    ['toy', 'electron', '5', '240', '0.01515', '1-100', 'log-uniform', 'calochallenge']
    """
    rows = [["name", "particle", "layers", "voxels", "threshold/MeV", "E_inc/GeV", "law", "layout"]]
    for known in chosen:
        low, high = known.incident.values[0] / 1e3, known.incident.values[-1] / 1e3
        cells = [str(known.n_layers), str(known.n_voxels), f"{known.threshold:.4g}", f"{low:.4g}-{high:.4g}"]
        rows.append([known.name, known.particle, *cells, known.incident.kind, known.layout])
    return rows


def layer_table(cells: Geometry) -> list[list[str]]:
    """Cells of a table of the layers, with a head: what they are, and how deep where their material is known.

    >>> layer_table(geometry("toy"))[1]
    ['0', 'polar', '8 x 6', '60 mm', '0.01515', '-', '-']
    """
    rows = [["layer", "cells", "number", "reach", "threshold/MeV", "depth/X0", "visible"]]
    material = cells.material
    thresholds = cells.thresholds or (cells.threshold,) * cells.n_layers
    for position, (layer, threshold) in enumerate(zip(cells.layers, thresholds, strict=True)):
        reach = layer.second[-1] if layer.kind == "polar" else max(map(abs, (*layer.first, *layer.second)))
        number = str(layer.n_voxels) if layer.kind == "cells" else "{} x {}".format(*layer.shape)
        depth = "-" if material is None else f"{material.depths[position]:.3g}"
        visible = "-" if material is None else f"{100 * material.media[position].visible_fraction:.3g} %"
        rows.append([str(layer.id), layer.kind, number, f"{reach:.4g} mm", f"{threshold:.4g}", depth, visible])
    return rows
