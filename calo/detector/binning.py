"""The XML binnings of the CaloChallenge, read and written.

``<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,5,10" n_bin_alpha="1"/>...</Bin></Bins>``: radial edges in
mm, equal bins of the angle in [-π, π]. Layers without cells have a single edge and stand in for numbers that are not
used, since the scripts of the challenge count layers by position.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from nisampler.base.checks import shown
from nisampler.base.storage import atomic_write, read_bounded
from nisampler.calo.detector.geometries import GEOMETRIES
from nisampler.calo.detector.geometry import MOST_VOXELS, Geometry, IncidentEnergy, Layer
from nisampler.errors import GeometryError

_Entry = tuple[dict[str, str], list[dict[str, str]]]
_MOST_BYTES = 4 << 20
_PARTICLE_DEPTH = 2
_LAYER_DEPTH = 3


class _Handler:
    """Collects the attributes of every particle and of its layers."""

    def __init__(self) -> None:
        self.depth = 0
        self.particles: list[_Entry] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth == _PARTICLE_DEPTH:
            self.particles.append((attributes, []))
        elif self.depth == _LAYER_DEPTH and tag == "Layer":
            self.particles[-1][1].append(attributes)

    def end(self, _: str) -> None:
        self.depth -= 1


def _refuse_entities(*_: object) -> NoReturn:
    """Entities can grow without bound, and a binning has none."""
    raise GeometryError("entity declarations are refused")


def _parse(content: bytes) -> list[_Entry]:
    handler, parser = _Handler(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end
    parser.EntityDeclHandler = _refuse_entities
    parser.Parse(content, True)
    return handler.particles


def _layer(attributes: dict[str, str]) -> tuple[int, int, list[float]]:
    """Number, cells of the angle and radial edges of a layer."""
    edges = [float(edge) for edge in attributes["r_edges"].split(",") if edge.strip()]
    number, n_alpha = int(attributes["id"]), int(attributes["n_bin_alpha"])
    if n_alpha < 1:
        raise GeometryError(f"layer {number}: n_bin_alpha must be at least 1, got {n_alpha}")
    return number, n_alpha, edges


def _particle(entries: list[_Entry], particle: str | None) -> tuple[str, int, tuple[Layer, ...]]:
    """Name, PDG code and layers of one of the particles of a file."""
    named = {attributes["name"]: (int(attributes["pid"]), layers) for attributes, layers in entries}
    chosen = next(iter(named)) if particle is None and len(named) == 1 else particle
    if chosen is None or chosen not in named:
        raise GeometryError(f"no particle {chosen!r} to read; the file has {', '.join(named) or 'none'}")
    pdg, layers = named[chosen]
    found = [(number, n_alpha, edges) for number, n_alpha, edges in map(_layer, layers) if len(edges) > 1]
    cells = sum(n_alpha * (len(edges) - 1) for _, n_alpha, edges in found)
    if cells > MOST_VOXELS:
        raise GeometryError(f"{shown(cells)} cells, a calorimeter can have {MOST_VOXELS}")
    return chosen, pdg, tuple(Layer.polar(*layer) for layer in found)


def read_binning(
    path: str | Path,
    particle: str | None = None,
    *,
    name: str | None = None,
    threshold: float | None = None,
    incident: IncidentEnergy | None = None,
) -> Geometry:
    """The geometry of an XML binning.

    A binning knows neither the threshold nor the law of the incident energy. What is not given is taken from the
    registered geometry that has the same particle and cells, if there is one.

    Parameters
    ----------
    path
        The file.
    particle
        Its ``name`` there, e.g. "photon"; may be left out if the file has one particle.
    name
        What to call the geometry; by default as the registered one, or else as the file.
    threshold
        MeV.
    incident
        Law of the incident energy.

    Raises
    ------
    StorageError
        If the file cannot be read, or is larger than 4 MiB.
    GeometryError
        If it is not a binning, has more than 1,048,576 cells, does not have the particle, or is not registered and
        something is not given.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_binning(f"{folder}/binning.xml", geometry("toy"))
    ...     read_binning(f"{folder}/binning.xml") == geometry("toy")
    True
    """
    try:
        particle, pdg, layers = _particle(_parse(read_bounded(path, _MOST_BYTES, "a binning")), particle)
        for known in GEOMETRIES.values():
            if (known.pdg, known.layers) == (pdg, layers):
                given: dict[str, Any] = {"name": name, "threshold": threshold, "incident": incident}
                return replace(known, **{key: value for key, value in given.items() if value is not None})
        if threshold is None or incident is None:
            raise GeometryError(
                "no registered geometry has these cells: give the threshold and the law of the incident energies "
                "(--threshold and --energies), or a TOML file that names this binning"
            )
        return Geometry(name or Path(path).stem, particle, pdg, layers, threshold, incident)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    except (expat.ExpatError, LookupError, ValueError, StopIteration) as error:
        raise GeometryError(f"{path} is not a binning of the CaloChallenge: {error!r}") from error


def write_binning(path: str | Path, geometry: Geometry) -> None:
    """Write the XML binning with which the scripts of the CaloChallenge read showers of `geometry`.

    Raises
    ------
    GeometryError
        If cells are not polar with equal angles, or layer numbers do not increase from 0 or more: a binning cannot
        say that.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_binning(f"{folder}/binning.xml", geometry("toy"))
    ...     Path(folder, "binning.xml").read_text().count("<Layer ")
    5
    """
    numbered = {layer.id: layer for layer in geometry.layers}
    if list(numbered) != sorted(numbered) or min(numbered) < 0:
        raise GeometryError(f"{geometry.name}: layer numbers must increase from 0 or more, got {list(numbered)}")
    lines = ["<Bins>", f'   <Bin pid="{geometry.pdg}" name={quoteattr(geometry.particle)}>']
    for number in range(max(numbered) + 1):
        layer = numbered.get(number)
        if layer is not None and (layer.kind != "polar" or layer != Layer.polar(number, layer.shape[0], layer.second)):
            raise GeometryError(
                f"{geometry.name}, layer {number}: a binning holds polar cells with equal angles only; the scripts of "
                "the CaloChallenge cannot read other cells"
            )
        edges = "0" if layer is None else ",".join(_decimal(edge) for edge in layer.second)
        n_alpha = 1 if layer is None else layer.shape[0]
        lines.append(f'      <Layer id="{number}" r_edges="{edges}" n_bin_alpha="{n_alpha}" />')
    with atomic_write(path, "w") as handle:
        handle.write("\n".join([*lines, "   </Bin>", "</Bins>", ""]))


def _decimal(edge: float) -> str:
    """The shortest decimal that reads back as the same number."""
    return str(int(edge)) if edge.is_integer() else repr(edge)
