"""The evaluation of generated showers: every figure of merit, with the floor of the reference against itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from nisampler.base.checks import Count, Natural, Row, Several, settings
from nisampler.base.device import resolve_device
from nisampler.base.rng import Streams
from nisampler.base.storage import atomic_write, make_folder, write_json
from nisampler.base.versions import versions
from nisampler.calo.data.files import ShowerReader, split
from nisampler.calo.data.point_files import PointReader
from nisampler.calo.data.projected import in_cells, open_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.bands import Bands, measure_bands
from nisampler.calo.evaluation.classifiers import classifier_config, classify_many
from nisampler.calo.evaluation.conditions import condition_notes
from nisampler.calo.evaluation.controls import shuffle_voxels
from nisampler.calo.evaluation.distances import fpd, kpd, neighbour_metrics
from nisampler.calo.evaluation.figures import CONTROL, FLOOR
from nisampler.calo.evaluation.measure import Kind, Measured, differences, measure
from nisampler.calo.evaluation.multiclass import multiclass
from nisampler.calo.evaluation.points import PointSamples
from nisampler.calo.evaluation.report import EvaluationReport
from nisampler.calo.evaluation.table import markdown
from nisampler.errors import ConfigError, ShowerDataError
from nisampler.ui.monitor import SILENT, Monitor

REFERENCE = "reference"
FORMAT = "nisampler-calo-evaluation"
VERSION = 2
_EMPTY = 0.1
_COPIES = 1e-9


@settings
class EvaluationOptions:
    """What is evaluated, and how.

    Parameters
    ----------
    classifiers
        Names in `nisampler.calo.evaluation.classifiers.CLASSIFIERS`.
    seeds
        One training of every classifier for each; the CaloChallenge makes ten.
    showers
        At most so many of each sample are used, chosen at random; they are held in memory. None uses half of the
        reference for the comparison, the other half for the floor.
    distances
        Compute FPD and KPD.
    neighbour_metrics
        Showers of each sample for precision, recall, density and coverage; time grows as its square, 0 leaves it out.
    multiclass
        A classifier that is also trained over all candidates at once, see `multiclass`; needs two of them.
    control
        Also judge reference showers with shuffled voxels, which the classifiers have to recognise.
    control_neighbours
        Voxels are shuffled among so many showers of the same incident energy, see `shuffle_voxels`; None shuffles them
        over all showers, which is much easier to recognise.
    seed
        Of the choice of showers, the control and the distances.
    device
        Of the classifiers.
    report
        Draw figures and write the page.
    layers
        Histograms are drawn of at most so many layers; all are in the JSON.
    timing
        What `nisampler calo time` measured, by candidate: goes into the tables and the figure of AUC against time.
    training
        By part of the model, the records of its training, for a figure.
    bands
        By candidate, files of showers that were made with draws of its weights from their posterior, at least two:
        the spread of their histograms is drawn as a band, see `nisampler.calo.evaluation.bands`.

    Raises
    ------
    ConfigError
        If a number is out of range or a classifier unknown.

    Examples
    --------
    >>> EvaluationOptions(layers=0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: layers = 0: must be a whole number, at least 1
    """

    classifiers: Row[str] = ("small-low", "small-high")
    seeds: Row[Natural] = (1, 2, 3)
    showers: Several | None = None
    distances: bool = True
    neighbour_metrics: Natural = 0
    multiclass: str | None = None
    control: bool = True
    control_neighbours: Several | None = 50
    seed: Natural = 1
    device: str = "cpu"
    report: bool = True
    layers: Count = 5
    timing: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    bands: Mapping[str, Sequence[str | Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.classifiers, *([self.multiclass] if self.multiclass else [])):
            classifier_config(name)
        if self.classifiers and (not self.seeds or len(set(self.seeds)) != len(self.seeds)):
            raise ConfigError(f"seeds must be at least one and all different, got {list(self.seeds)}")
        if self.multiclass and not self.seeds:
            raise ConfigError("a multiclass comparison needs a seed")


@dataclass(frozen=True)
class _Sample:
    """Showers with their name and origin."""

    name: str
    kind: Kind
    source: str
    showers: Showers


def evaluate(
    reference: str | Path,
    candidates: Mapping[str, str | Path],
    geometry: Geometry,
    output: str | Path,
    options: EvaluationOptions | None = None,
    monitor: Monitor = SILENT,
) -> dict[str, Any]:
    """Compare files of generated showers with a file of reference showers.

    The reference is dealt at random into two halves. Everything is compared with the first: the candidates, the
    second half, which gives the floor, and the shuffled second half, which gives a control.

    Parameters
    ----------
    reference
        File of showers or point clouds, best twice as many as each candidate has, none of them used in the training
        of a candidate.
    candidates
        Files of generated showers by name. Point clouds are projected to the cells; where the reference has them too,
        points are compared with points besides.
    geometry
        Of all files.
    output
        Folder to make: ``evaluation.json``, ``table.md``, and with a report ``report.html`` and ``figures``.
    options
        Default: `EvaluationOptions()`.
    monitor
        Is told the progress.

    Returns
    -------
    dict
        The content of ``evaluation.json``.

    Raises
    ------
    ConfigError
        If a candidate has a name that the evaluation uses itself, a multiclass comparison has only one, or bands or
        times are of none of them or cannot be used.
    ShowerDataError, GeometryError, CorruptFileError
        If a file is not one of showers of this geometry.
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.simulation.simulator import simulate_file
    >>> options = EvaluationOptions(classifiers=(), distances=False, report=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed, name in enumerate(("reference", "model")):
    ...         made = simulate_file(f"{folder}/{name}.h5", geometry("toy"), 40, seed)
    ...     files = {"model": f"{folder}/model.h5"}
    ...     result = evaluate(f"{folder}/reference.h5", files, geometry("toy"), f"{folder}/out", options)
    >>> list(result["samples"])
    ['model', 'reference, other half', 'shuffled voxels']
    """
    wanted = options or EvaluationOptions()
    _check_candidates(candidates, wanted)
    folder = make_folder(output)
    notes: list[str] = []
    halves = _halves(Path(reference), geometry, wanted, notes)
    base = measure(REFERENCE, "reference", str(reference), halves[0], geometry, None, halves[0])
    bands = {name: measure_bands(name, files, geometry, base.features, monitor) for name, files in wanted.bands.items()}
    measured, results = [], {}
    total = len(candidates) + 1 + wanted.control
    for done, sample in enumerate(_samples(halves, str(reference), candidates, geometry, wanted, notes)):
        monitor.progress("evaluating", done, total, {"sample": sample.name})
        found = measure(sample.name, sample.kind, sample.source, sample.showers, geometry, base, halves[0])
        band = bands.get(sample.name)
        found = found if band is None else replace(found, bands=band.histograms)
        measured.append(found)
        results[sample.name] = _judge(sample, found, base, halves[0], geometry, wanted, monitor)
        results[sample.name] |= {} if band is None else {"band": band.as_dict()}
        notes += _notes(sample, halves[0], results[sample.name], band, geometry)
    monitor.progress("evaluating", total, total, {})
    points = PointSamples.read(reference, FLOOR, candidates, geometry, len(halves[0]), wanted.seed)
    for name, metrics in points.metrics().items():
        results[name]["points"] = metrics
    result = _result(base, results, notes, geometry, wanted)
    if wanted.multiclass:
        result["multiclass"] = _multiclass(halves, candidates, geometry, wanted, monitor)
    write_json(folder / "evaluation.json", result)
    with atomic_write(folder / "table.md", "w") as handle:
        handle.write(markdown(result))
    if wanted.report:
        report = EvaluationReport(result, base, tuple(measured), geometry, wanted.training, wanted.layers)
        replace(report, points=points).write(folder)
    for note in notes:
        monitor.line(f"warning: {note}")
    return result


def _check_candidates(candidates: Mapping[str, str | Path], options: EvaluationOptions) -> None:
    for name in candidates:
        if name in (REFERENCE, FLOOR, CONTROL) or not name.strip():
            raise ConfigError(f"a candidate cannot be called {name!r}")
    if options.multiclass and len(candidates) < 2:
        raise ConfigError(f"a multiclass comparison needs at least two candidates, got {len(candidates)}")
    for what, given in (("band", options.bands), ("timing", options.timing)):
        for name in given:
            if name not in candidates:
                raise ConfigError(f"a {what} belongs to {name!r}, the candidates are {', '.join(candidates) or 'none'}")
    for name, found in options.timing.items():
        rows = found.get("rows") if isinstance(found, Mapping) else None
        fields = {"device", "batch", "generate"}
        if not (isinstance(rows, list) and all(isinstance(row, Mapping) and row.keys() >= fields for row in rows)):
            raise ConfigError(f"the timing of {name} is not what `nisampler calo time --output FILE` writes")


def _halves(path: Path, geometry: Geometry, options: EvaluationOptions, notes: list[str]) -> tuple[Showers, Showers]:
    """Two disjoint, random, equally large parts of the reference; `notes` gets what is odd about the file."""
    with open_showers(path, geometry) as reader:
        notes += reader.notes()
        size = len(reader) // 2 if options.showers is None else min(options.showers, len(reader) // 2)
        if size < 2:
            raise ShowerDataError(f"{path} has {len(reader)} showers; the two halves of a reference need at least four")
        first, second = split(len(reader), (size / len(reader), size / len(reader)), options.seed)
        halves = _shuffled(reader, first, options.seed), _shuffled(reader, second, options.seed)
    empty, total = sum(half.empty for half in halves), 2 * len(halves[0])
    notes += [f"{empty} of {total} showers of the reference have no energy in any voxel"] if empty else []
    return halves


def _shuffled(reader: ShowerReader | PointReader, index: np.ndarray[Any, np.dtype[np.int64]], seed: int) -> Showers:
    """Showers of a file in random order: files may be sorted by energy, parts of a sample must not be."""
    showers = in_cells(reader, index)
    return showers[Streams(seed).numpy("order of showers", len(showers)).permutation(len(showers))]


def _samples(
    halves: tuple[Showers, Showers],
    source: str,
    candidates: Mapping[str, str | Path],
    geometry: Geometry,
    options: EvaluationOptions,
    notes: list[str],
) -> Iterator[_Sample]:
    """The candidates, the floor and the control, one in memory at a time, none larger than a half."""
    yield from _candidates(candidates, len(halves[0]), geometry, options.seed, notes)
    yield _Sample(FLOOR, "floor", source, halves[1])
    if options.control:
        rng = Streams(options.seed).numpy("shuffled voxels")
        yield _Sample(CONTROL, "control", source, shuffle_voxels(halves[1], geometry, rng, options.control_neighbours))


def _candidates(
    files: Mapping[str, str | Path], most: int, geometry: Geometry, seed: int, notes: list[str]
) -> Iterator[_Sample]:
    for name, path in files.items():
        with open_showers(path, geometry) as reader:
            notes += reader.notes()
            size = min(len(reader), most)
            (index,) = split(len(reader), (size / len(reader),), seed)
            yield _Sample(name, "candidate", str(path), _shuffled(reader, index, seed))


def _judge(
    sample: _Sample,
    found: Measured,
    base: Measured,
    reference: Showers,
    geometry: Geometry,
    options: EvaluationOptions,
    monitor: Monitor,
) -> dict[str, Any]:
    """All that is known of a sample, as JSON data."""
    device = resolve_device(options.device)
    result: dict[str, Any] = {
        "kind": sample.kind,
        "file": sample.source,
        "showers": len(sample.showers),
        **differences(found, base, geometry),
        "classifiers": {
            name: classify_many(
                reference, sample.showers, geometry, classifier_config(name), options.seeds, device, monitor
            ).as_dict()
            for name in options.classifiers
        },
    }
    if options.distances:
        vectors = base.features.high_level_vector(), found.features.high_level_vector()
        result["fpd"] = fpd(*vectors, seed=options.seed).as_dict()
        result["kpd"] = kpd(*vectors, seed=options.seed).as_dict()
    if options.neighbour_metrics:
        n = options.neighbour_metrics
        true, made = _logarithms(reference[:n], geometry), _logarithms(sample.showers[:n], geometry)
        result["neighbour_metrics"] = neighbour_metrics(true, made).as_dict()
    if sample.name in options.timing:
        result["timing"] = options.timing[sample.name]
    return result


def _multiclass(
    halves: tuple[Showers, Showers],
    candidates: Mapping[str, str | Path],
    geometry: Geometry,
    options: EvaluationOptions,
    monitor: Monitor,
) -> dict[str, Any]:
    """One classifier over all candidates, which are in memory together, asked about the second half."""
    made = {item.name: item.showers for item in _candidates(candidates, len(halves[0]), geometry, options.seed, [])}
    config, device = classifier_config(str(options.multiclass)), resolve_device(options.device)
    return multiclass(halves[1], made, geometry, config, options.seeds[0], device, monitor).as_dict()


def _logarithms(showers: Showers, geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """log10 of the voxels, those below the threshold at 0.1 MeV as in the CaloChallenge."""
    lit = np.where(showers.voxels >= max(geometry.threshold, 1e-30), showers.voxels, _EMPTY)
    return np.log10(lit, dtype=np.float64)


def _notes(
    sample: _Sample, reference: Showers, found: Mapping[str, Any], bands: Bands | None, geometry: Geometry
) -> list[str]:
    """What a reader has to know before the figures of a sample are compared with others."""
    notes = []
    if len(sample.showers) < len(reference):
        notes.append(
            f"{sample.name} has {len(sample.showers)} showers, the halves of the reference {len(reference)}: "
            "its figures carry more noise than the floor"
        )
    if sample.kind == "candidate" and sample.showers.empty:
        notes.append(
            f"{sample.showers.empty} of {len(sample.showers)} showers of {sample.name} have no energy in any voxel"
        )
    if ks_2samp(sample.showers.incident, reference.incident).pvalue < 1e-6:
        notes.append(
            f"the incident energies of {sample.name} follow another law than those of the reference: "
            "every figure contains that difference"
        )
    notes += condition_notes(sample.name, sample.showers.conditions, reference.conditions, geometry)
    copies = found["copies"]
    if copies and copies["copies"]:
        notes.append(
            f"{copies['copies']} of {copies['showers']} showers of {sample.name} are copies of reference showers"
        )
    if bands is not None and bands.over_counting() < _COPIES:
        notes.append(f"the draws of {sample.name} are the same showers: its band is empty")
    return notes


def _result(
    base: Measured, results: dict[str, Any], notes: list[str], geometry: Geometry, options: EvaluationOptions
) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(options).items() if key not in ("timing", "training", "bands")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "geometry": {"name": geometry.name, "cells": geometry.digest, "voxels": geometry.n_voxels},
        "threshold": geometry.threshold,
        "reference": {"file": base.source, "showers": len(base.features)},
        "samples": results,
        "options": settings | {"classifiers": list(options.classifiers), "seeds": list(options.seeds)},
        "warnings": notes,
        "versions": versions(),
    }
