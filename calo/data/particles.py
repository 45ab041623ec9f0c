"""The particles that showers are made for: incident energies and conditions, drawn, said or read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nisampler.base.rng import Streams
from nisampler.calo.data.columns import read_column
from nisampler.calo.data.joined import Paths, listed
from nisampler.calo.data.projected import open_showers
from nisampler.calo.data.showers import particles
from nisampler.calo.detector.conditions import Condition, spoken
from nisampler.calo.detector.geometry import Floats, Geometry, IncidentEnergy
from nisampler.calo.detector.tables import read_rows
from nisampler.errors import ConfigError, CorruptFileError, ShowerDataError

ENERGY = "energy"
"""What options and files of particles call the incident energy, in GeV."""

_MOST_BYTES = 1 << 30
_MOST_CODES = 20


def draw_particles(geometry: Geometry, n: int, streams: Streams, shard: int) -> Floats:
    """`n` particles of the laws of a geometry: incident energies (n,) in MeV, with k conditions (n, 1 + k).

    Parameters
    ----------
    geometry
        Whose laws they follow.
    n
        Their number.
    streams, shard
        Each column of a shard has a stream of its own.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> draw_particles(geometry("toy"), 3, Streams(1), 0).shape
    (3,)
    """
    incident = geometry.incident.sample(n, streams.numpy("incident", shard))
    columns = [known.sample(n, streams.numpy(f"condition {known.name}", shard)) for known in geometry.conditions]
    return np.column_stack([incident, *columns]) if columns else incident


def spoken_options(words: Sequence[str]) -> dict[str, str]:
    """Values by name of the words "--theta 30" or "--theta=30" of a command line.

    Raises
    ------
    ConfigError
        If they are no such words.

    Examples
    --------
    >>> spoken_options(["--theta", "20:40", "--energy=50"])
    {'theta': '20:40', 'energy': '50'}
    """
    said: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name or not (equals or rest) or name in said:
            raise ConfigError(f"{word!r} is no option with a value; conditions are said once as --NAME VALUE")
        said[name] = value if equals else rest.pop(0)
    return said


def conditions_of(paths: Paths, named: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions that are columns of files of showers, with their range, or all values where they are few.

    Parameters
    ----------
    paths
        The file, or several.
    named
        "NAME" for a number, "NAME=deg" or "NAME=rad" for an azimuth, "NAME=category" for codes.

    Raises
    ------
    ConfigError
        If a kind is unknown.
    ShowerDataError
        If a file has no such column of finite numbers, or more than twenty codes.
    StorageError, CorruptFileError
        If it cannot be read.

    Examples
    --------
    >>> conditions_of("nowhere.h5", [])
    ()
    """
    return tuple(_condition_of(listed(paths), *text.partition("=")[::2]) for text in named)


def _condition_of(paths: Sequence[Path], name: str, kind: str) -> Condition:
    if kind not in ("", "deg", "rad", "category"):
        raise ConfigError(f"--condition {name}={kind}: an azimuth is deg or rad, codes are category")
    values, path = np.concatenate([read_column(path, name) for path in paths]), ", ".join(map(str, paths))
    if not len(values) or not np.isfinite(values).all():
        raise ShowerDataError(f"{path}: {name} must hold a finite number for each shower")
    found = np.unique(values)
    few = len(found) <= _MOST_CODES
    if kind == "category":
        if not few:
            raise ShowerDataError(f"{path}: {name} has {len(found)} different values, too many for a category")
        return Condition(name, "category", tuple(found.tolist()))
    given = tuple(found.tolist()) if few else (float(found[0]), float(found[-1]))
    if kind in ("deg", "rad"):
        return Condition(name, "azimuth", given, (), "deg" if kind == "deg" else "rad", few)
    return Condition(name, "number", given, discrete=few)


def narrowed(geometry: Geometry, said: Mapping[str, str]) -> Geometry:
    """The same calorimeter with other laws of its particles, as a user says them.

    Parameters
    ----------
    geometry
        Has the names.
    said
        By the name of a condition, or "energy" in GeV: "30", a range "20:40", or a list "10,20,30". In a range
        energies follow the kind of law that they had, uniform for discrete ones.

    Raises
    ------
    ConfigError
        If there is no such condition.
    GeometryError
        If a text says nothing of the kind.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> narrowed(geometry("toy"), {"energy": "5:20"}).incident
    IncidentEnergy(kind='log-uniform', values=(5000.0, 20000.0), counts=())
    """
    known = {condition.name: condition for condition in geometry.conditions}
    for name in said:
        if name != ENERGY and name not in known:
            names = ", ".join(f"--{word}" for word in (ENERGY, *known))
            raise ConfigError(f"there is no option --{name}: showers of {geometry.name} depend on {names}")
    incident = geometry.incident
    if ENERGY in said:
        gev, discrete = spoken(said[ENERGY], ENERGY)
        values = tuple(1e3 * value for value in gev)
        kind = "uniform" if incident.kind == "discrete" else incident.kind
        incident = IncidentEnergy("discrete", values, (1,) * len(values)) if discrete else IncidentEnergy(kind, values)
    chosen = (one.parse(said[one.name]) if one.name in said else one for one in geometry.conditions)
    return replace(geometry, incident=incident, conditions=tuple(chosen))


def read_particles(path: str | Path, geometry: Geometry, n: int | None) -> Floats:
    """The first `n` particles of a file, all without `n`: (n,) in MeV, or (n, 1 + k) with conditions.

    Parameters
    ----------
    path
        A file of showers or point clouds, or a CSV file with a head: ``energy`` in GeV and the conditions by name.
    geometry
        Has the conditions.
    n
        At most so many; None for all.

    Raises
    ------
    ConfigError
        If the file has fewer.
    CorruptFileError
        If a column is missing or no numbers.
    NisamplerError
        As the reader does.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text("energy\\n1.5\\n20\\n")
    ...     read_particles(f"{folder}/a.csv", geometry("toy"), None)
    array([ 1500., 20000.])
    """
    if str(path).endswith(".csv"):
        found = _table(Path(path), geometry)
    else:
        with open_showers(path, geometry) as reader:
            found = particles(reader.incident, reader.conditions)
    if n is not None and n > len(found):
        raise ConfigError(f"{path} has {len(found)} incident energies, {n} showers were asked for")
    return found[:n]


def _table(path: Path, geometry: Geometry) -> Floats:
    rows = read_rows(path, _MOST_BYTES, "a table of particles")
    names = [ENERGY, *(known.name for known in geometry.conditions)]
    try:
        columns = [[float(row[ENERGY]) for row in rows]]
        columns += [[known.read(row[known.name]) for row in rows] for known in geometry.conditions]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} needs a head and rows with the columns {', '.join(names)}: {error}") from error
    if not rows:
        raise CorruptFileError(f"{path} lists no particles: it needs a row for each below its head")
    table = np.asarray(columns, dtype=np.float64).T
    for known, values in zip(geometry.conditions, table.T[1:], strict=True):
        known.check(values, path)
    return particles(1e3 * table[:, 0], table[:, 1:])
