"""From a file of showers to a fitted model."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from nisampler.base.checks import Count, Positive, Row, settings
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.data.files import Indices, split
from nisampler.calo.data.joined import JoinedPoints, JoinedReader, listed
from nisampler.calo.data.kinds import POINTS
from nisampler.calo.data.point_files import holds_points
from nisampler.calo.data.points import PointShowers, project
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.fitting.losses import (
    LOSSES,
    TENSORBOARD,
    LossCurves,
    LossFile,
    require_tensorboard,
    summary_writer,
    told_to,
)
from nisampler.calo.fitting.part_queue import PartQueue
from nisampler.calo.fitting.ranks import ranks
from nisampler.calo.fitting.records import PartResult
from nisampler.calo.fitting.start import Start, start_from
from nisampler.calo.fitting.store import DESCRIPTION, LOG, claim, describe, save_model
from nisampler.calo.fitting.symmetry import Symmetry, choose_symmetry
from nisampler.calo.models import GenerativeModel, ModelConfig, build_model, model_config, model_streams, widened
from nisampler.calo.recipe import FitOptions
from nisampler.errors import ConfigError, ShowerDataError
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end

# Most showers that standardisation looks at, and copies of them that it needs at once.
_MOST, _COPIES = 50_000, 8


@settings
class DataOptions:
    """Which showers of files are used, and how much memory they may take.

    Parameters
    ----------
    path
        The file, or several, whose showers are taken together.
    validation
        Share of the showers that is kept for validation.
    limit
        Only the first showers of them all; None for all.
    memory
        Bytes of showers that a process may hold; what is larger is streamed in every epoch. A part of a model that
        looks at some layers alone needs their voxels only.

    Raises
    ------
    ConfigError
        If the share is not between 0 and 1, or the others are not positive.

    Examples
    --------
    >>> DataOptions("a.h5", validation=1.5)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: validation = 1.5: must be a number, more than 0 and less than 1
    """

    path: str | Path | Row[str | Path]
    validation: Annotated[Positive, Field(lt=1.0)] = 0.1
    limit: Count | None = None
    memory: Positive = 4e9


@dataclass(frozen=True)
class Fitted:
    """A fitted model, how its parts were trained, the seconds that this process needed, and how many there were.

    `warnings` say what of the showers was not used, or of no use; `symmetry` whether they were
    turned and mirrored, and why; `start` what was taken over from a fitted model.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> Fitted(build_model("small-inn", geometry("toy")), [], 1.0, 1.0).processes
    1
    """

    model: GenerativeModel
    parts: list[PartResult]
    seconds: float
    cpu_seconds: float
    processes: int = 1
    warnings: tuple[str, ...] = ()
    symmetry: Symmetry | None = None
    start: Start | None = None


def fit(
    data: DataOptions,
    geometry: Geometry,
    preset: str | ModelConfig,
    output: str | Path,
    options: FitOptions | None = None,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
    resume: bool = False,
) -> Fitted:
    """Fit a model to the showers of a file, or several, and store it.

    Processes that torchrun started share out the parts of the model, each with its own GPU for the device "cuda"; the
    folder has the same bytes as with one process, and may be resumed with another number of them.

    Parameters
    ----------
    data, geometry
        The showers and their cells.
    preset
        The name of one of `nisampler.calo.models`, a TOML file, or settings.
    output
        Folder of the model.
    options
        Default: `FitOptions()`.
    device, monitor
        Where to compute; who is told the progress, in the first process.
    resume
        Continue what was interrupted in `output`; it ends with the same bytes as a fit in one go.

    Raises
    ------
    StorageError
        If `output` holds a fit and `resume` is not set, or anything else, or nothing is there to resume, or another
        process fits there.
    ConfigError
        If a fit is resumed with other settings, or too few showers are there.
    ModelError
        If another process failed, or the model of `options.start` does not fit.
    MissingExtraError
        If TensorBoard is asked for and not installed.
    NisamplerError
        As reading, building and training do.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.simulation.simulator import simulate_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = simulate_file(f"{folder}/a.h5", geometry("toy"), 30, seed=1)
    ...     data, options = DataOptions(f"{folder}/a.h5"), FitOptions(epochs=1)
    ...     fitted = fit(data, geometry("toy"), "small-teacher", f"{folder}/model", options)
    >>> [part.name for part in fitted.parts]
    ['energies', 'voxels']
    """
    options, folder = options or FitOptions(), Path(output)
    if options.tensorboard:
        require_tensorboard()
    began, cpu_began = time.monotonic(), time.process_time()
    with ranks() as group, ExitStack() as stack:
        model = build_model(_chosen(preset, geometry, options), geometry, options.seed)
        _check_kind(data, model)
        with model.kind.reader(data.path, geometry) as reader:
            training, validation, facts = _rows(reader, data, options.seed)
            if group.rank == 0:
                stack.enter_context(claim(folder, DESCRIPTION, resume))
            group.barrier()
            begun = (folder / DESCRIPTION).is_file()
            stack.enter_context(log_end(folder / LOG))
            symmetry, notes = _prepare(model, reader, training, data.memory, options)
            start = None if options.start is None else start_from(options.start, model)
            model.trained_energies = (facts["incident_mev"][0], facts["incident_mev"][1])
            model.trained_conditions = facts.get("conditions", {})
        name = preset.family if isinstance(preset, ModelConfig) else Path(preset).name
        settings = _settings(options, start)
        group.barrier()
        if begun:
            _check_same(folder, model, name, settings, facts)
        elif group.rank == 0:
            save_model(folder, model, name, settings, facts)
        group.barrier()
        place, told = group.device(device), Monitors([LogMonitor(folder / LOG), SILENT if group.rank else monitor])
        told.line(f"warning: {symmetry.text}" if symmetry.warning else symmetry.text)
        for note in notes:
            told.line(f"warning: {note}")
        memory = data.memory / (len(training) + len(validation))
        showers = ShowerData(
            *(
                model.kind.source(data.path, geometry, rows, place, memory * len(rows))
                for rows in (training, validation)
            )
        )
        losses, weights = LossFile(folder / LOSSES), {} if start is None else start.weights
        curves = [LossCurves(summary_writer(folder / TENSORBOARD)).add] if options.tensorboard else []
        watch = told_to([losses.add, *curves])
        where = (options, place, told, resume, group)
        results = PartQueue(model.to(place), showers, folder, *where, weights, watch, losses).run()
    seconds = time.monotonic() - began, time.process_time() - cpu_began
    return Fitted(model, results, *seconds, group.count, tuple(notes), symmetry, start)


def _chosen(preset: str | ModelConfig, geometry: Geometry, options: FitOptions) -> str | ModelConfig:
    """The settings of the model, with networks of the width that is asked for."""
    if options.hidden is None:
        return preset
    return widened(model_config(preset, geometry) if isinstance(preset, str) else preset, options.hidden)


def _settings(options: FitOptions, start: Start | None) -> dict[str, Any]:
    """What a fit that is resumed must have been begun with."""
    said = ("seed", "epochs", "batch", "patience", "symmetry", "learning_rate", "hidden")
    return {key: getattr(options, key) for key in said} | {"start": None if start is None else dict(start.facts)}


def _check_kind(data: DataOptions, model: GenerativeModel) -> None:
    """ShowerDataError if a file holds points and the model learns from voxels, or the other way round."""
    for path in listed(data.path):
        points = holds_points(path)
        if path.is_file() and points != (model.kind is POINTS):
            found, mend = (
                ("points", "choose small-clouds") if points else ("voxels", "`simulate --points` makes others")
            )
            raise ShowerDataError(f"{path} holds {found}, and this model learns from {model.kind.name}: {mend}")


def _rows(reader: JoinedReader | JoinedPoints, data: DataOptions, seed: int) -> tuple[Indices, Indices, dict[str, Any]]:
    """The showers for training and for validation, and facts that identify them."""
    n = len(reader) if data.limit is None else min(data.limit, len(reader))
    training, validation = split(n, (1.0 - data.validation, data.validation), seed)
    if not len(training) or not len(validation):
        raise ConfigError(f"{reader.name}: {n} showers are too few to train with and to validate with")
    incident = np.ascontiguousarray(reader.incident[:n])
    facts = {
        "file": reader.name,
        "showers": n,
        "training": len(training),
        "validation": len(validation),
        "incident_mev": [float(incident.min()), float(incident.max())],
        "incident_sha256": hashlib.sha256(incident.tobytes()).hexdigest(),
    }
    known = reader.geometry.conditions
    if known:
        columns = np.ascontiguousarray(reader.conditions[:n])
        facts["conditions"] = {one.name: one.trained(part) for one, part in zip(known, columns.T, strict=True)}
        facts["conditions_sha256"] = hashlib.sha256(columns.tobytes()).hexdigest()
    return training, validation, facts


def _prepare(
    model: GenerativeModel,
    reader: JoinedReader | JoinedPoints,
    training: Indices,
    memory: float,
    options: FitOptions,
) -> tuple[Symmetry, list[str]]:
    """Give a model its symmetry and the constants of its standardisation, from as many showers as the memory allows.

    Returns what was decided about the symmetry, and warnings.
    """
    # Evenly spaced, since a file may be sorted by energy.
    most = min(_MOST, max(1000, int(memory / (_COPIES * 4 * reader.geometry.n_voxels))))
    few = reader.select(training[:: math.ceil(len(training) / most)])
    if few.empty == len(few):
        raise ShowerDataError(
            f"{reader.name}: no shower of {len(few)} has energy in any voxel: there is nothing to learn"
        )
    notes = reader.notes()
    if few.empty:
        notes.append(f"{few.empty} of {len(few)} showers that were looked at have no energy in any voxel")
    cells = project(few, model.geometry).showers if isinstance(few, PointShowers) else few
    symmetry = choose_symmetry(options.symmetry, model.symmetric, cells, model.geometry)
    model.turn(symmetry.turned)
    model.prepare(few, model_streams(model.config, options.seed).generator("prepare"))
    model.training_size = len(training)
    return symmetry, notes


def _check_same(
    folder: Path, model: GenerativeModel, name: str, settings: dict[str, Any], facts: dict[str, Any]
) -> None:
    """ConfigError unless the folder was begun with the same model, settings and showers."""
    stored = describe(folder)
    wanted = {"model": name, "config": model.config, "cells": model.geometry.digest, "data": facts, **settings}
    changed = [key for key, value in wanted.items() if stored.get(key) != value]
    if changed == ["epochs"]:
        raise ConfigError(
            f"{folder} was begun with another epochs, on which learning rates depend: resume with the same, or train "
            f"a finished fit for longer by --from {folder} and a new --output"
        )
    if changed:
        raise ConfigError(f"{folder} was begun with another {', '.join(changed)}: resume with the same, or begin anew")
