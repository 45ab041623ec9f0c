"""The folder of a fitted model: ``model.json``, the constants of its preprocessing, and the weights of each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from nisampler._version import __version__
from nisampler.base.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.checkpoints import part as named
from nisampler.base.locks import lock_folder
from nisampler.base.outputs import new_folder
from nisampler.base.storage import make_folder, read_sealed, remove_stale, understood, write_sealed
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.fitting.records import RECORD
from nisampler.calo.models import GenerativeModel, build_model
from nisampler.errors import CorruptFileError, GeometryError, ModelError, StorageError

DESCRIPTION = "model.json"
BASE = "base"
"""Folder of the constants that no part holds."""
LOG = "fit.log"
FORMAT, VERSION = "nisampler-shower-model", 2
_MEND = "restore the folder from a copy, or fit the model again"
_FIELDS = {"format", "version", "package", "geometry", "cells", "model", "config", "seed", "parts", "data"}


def part_folder(folder: str | Path, name: str) -> Path:
    """Where the checkpoint and the records of a part are.

    >>> part_folder("model", "energies").as_posix()
    'model/parts/energies'
    """
    return Path(folder) / "parts" / name


def claim(folder: Path, description: str, resume: bool) -> IO[str]:
    """The lock of a folder that holds a fit to resume, or none: to be held as long as somebody fits there.

    Parameters
    ----------
    folder
        Of the model; it is made where it is missing.
    description
        The file that describes the model, there as soon as a fit has begun.
    resume
        Whether a fit is to be continued.

    Raises
    ------
    StorageError
        If a fit is there and not to be resumed, or anything else, or nothing to resume, or another process fits there.

    Examples
    --------
    >>> claim(Path("nowhere"), "model.json", resume=True)
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere holds no model to resume: leave --resume out to begin one
    """
    begun = (folder / description).is_file()
    if begun and not resume:
        raise StorageError(f"{folder} exists and holds a fit: choose another --output, or continue with --resume")
    if resume and not folder.is_dir():
        raise StorageError(f"{folder} holds no model to resume: leave --resume out to begin one")
    if not begun:
        # A fit that was ended before its description was written left no more than these, and is begun again.
        new_folder(folder, (BASE, LOG))
    lock = lock_folder(make_folder(folder))
    remove_stale(folder)
    return lock


def _base_folder(folder: str | Path) -> Path:
    return Path(folder) / BASE


def _base(model: GenerativeModel) -> dict[str, torch.Tensor]:
    """The constants that no part holds."""
    parts = {id(tensor) for part in model.parts for tensor in part.module.state_dict(keep_vars=True).values()}
    return {name: t for name, t in model.state_dict(keep_vars=True).items() if id(t) not in parts}


def save_base(folder: str | Path, model: GenerativeModel, finished: bool) -> None:
    """Write the constants that no part holds, as they are before or after the model's `finish`.

    Raises
    ------
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> model = build_model("small-inn", geometry("toy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_base(folder, model, finished=True)
    ...     load_base(folder, model)
    True
    """
    save_checkpoint(_base_folder(folder), _base(model), {"finished": finished})


def load_base(folder: str | Path, model: GenerativeModel) -> bool:
    """Put the constants of a finished model in their place; False, and nothing done, if it is not finished.

    Raises
    ------
    ModelError
        If they are those of another model.
    StorageError, CorruptFileError
        If they are missing, truncated or altered.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> model = build_model("small-inn", geometry("toy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_base(folder, model, finished=False)
    ...     load_base(folder, model)
    False
    """
    base, meta = load_checkpoint(_base_folder(folder))
    # Folders without a word about it are of models with nothing to finish.
    if not meta.get("finished", True):
        return False
    own = _base(model)
    if base.keys() != own.keys():
        raise ModelError(
            f"the constants in {folder} do not fit its settings: {', '.join(sorted(base.keys() ^ own.keys()))}"
        )
    try:
        model.load_state_dict(base, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the constants in {folder} do not fit its settings: {error}") from error
    return True


def save_model(
    folder: str | Path, model: GenerativeModel, name: str, settings: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Write what the folder of a prepared model holds before its parts are trained.

    Parameters
    ----------
    folder
        Made if missing.
    model
        After `prepare`.
    name
        Of its preset.
    settings
        "seed" and other options of the training, JSON data.
    data
        Facts about the training data, JSON data.

    Raises
    ------
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> model = build_model("small-inn", geometry("toy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(f"{folder}/model", model, "small-inn", {"seed": 1}, {})
    ...     describe(f"{folder}/model")["model"]
    'small-inn'
    """
    save_base(folder, model, finished=False)
    described = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "geometry": model.geometry.to_dict(),
        "cells": model.geometry.digest,
        "model": name,
        "config": model.config,
        "parts": [part.name for part in model.parts],
        "data": dict(data),
    }
    write_sealed(Path(folder) / DESCRIPTION, described | dict(settings))


def describe(folder: str | Path) -> dict[str, Any]:
    """The content of ``model.json``, checked.

    Raises
    ------
    StorageError
        If there is none, or another release wrote it in a newer format.
    CorruptFileError
        If it is truncated or altered.

    Examples
    --------
    >>> describe("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise StorageError(f"{folder} is not the folder of a shower model: `nisampler calo fit` makes one")
    data = read_sealed(path, mend=_MEND)
    if not data.keys() >= _FIELDS or data["format"] != FORMAT:
        raise CorruptFileError(f"{path} does not describe a shower model: {_MEND}")
    if data["version"] != VERSION:
        raise StorageError(
            f"{path} has format {data['version']}, this release reads {VERSION}: use the release that wrote it"
        )
    return data


def training_records(folder: str | Path) -> dict[str, list[dict[str, Any]]]:
    """The records of all epochs, by part of the model.

    Raises
    ------
    StorageError, CorruptFileError
        If there is no model whose training is finished.

    Examples
    --------
    >>> training_records("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    names = describe(folder)["parts"]
    return {name: read_sealed(part_folder(folder, name) / RECORD, mend=_MEND)["history"] for name in names}


def stored_geometry(folder: str | Path) -> Geometry:
    """The calorimeter that a model belongs to.

    Raises
    ------
    StorageError, CorruptFileError
        If there is no model, or its description was altered.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> model = build_model("small-inn", geometry("toy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(f"{folder}/model", model, "small-inn", {"seed": 1}, {})
    ...     stored_geometry(f"{folder}/model").name
    'toy'
    """
    data = describe(folder)
    try:
        with understood(Path(folder) / DESCRIPTION):
            geometry = Geometry.from_dict(data["geometry"])
    except GeometryError as error:
        raise CorruptFileError(f"{Path(folder) / DESCRIPTION}: {error}; restore the folder") from error
    if geometry.digest != data["cells"]:
        raise CorruptFileError(f"{Path(folder) / DESCRIPTION}: the geometry was altered; restore the folder")
    return geometry


def load_model(
    folder: str | Path, geometry: Geometry | None = None, device: torch.device | str = "cpu"
) -> GenerativeModel:
    """A fitted model, ready to generate.

    Parameters
    ----------
    folder
        What `nisampler calo fit` made.
    geometry
        The calorimeter that is wanted; by default the model's own.
    device
        Where the model goes.

    Raises
    ------
    GeometryError
        If the model belongs to other cells.
    ModelError
        If its training is not finished, or its weights do not fit its settings.
    StorageError, CorruptFileError
        If files are missing, truncated or altered.

    Examples
    --------
    >>> load_model("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    own = stored_geometry(folder)
    if geometry is not None and geometry.digest != own.digest:
        raise GeometryError(
            f"the model in {folder} belongs to {_cells(own)}, not to {_cells(geometry)}: fit one for that geometry"
        )
    with understood(folder):
        data = describe(folder)
        model = build_model(data["config"], own)
        finished, states = load_base(folder, model), {}
        for part in model.parts:
            place = part_folder(folder, part.name)
            tensors, meta = load_checkpoint(place) if has_checkpoint(place) else ({}, {"done": False})
            if not (finished and meta["done"]):
                raise ModelError(
                    f"the training of {folder} is not finished: `nisampler calo fit --resume` continues it"
                )
            states[part.name] = named(tensors, "best.")
    try:
        for part in model.parts:
            part.module.load_state_dict(states[part.name])
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit its settings: {error}") from error
    with understood(folder):
        energies = data["data"].get("incident_mev")
        model.trained_energies = None if energies is None else (float(energies[0]), float(energies[1]))
        model.trained_conditions = {name: list(map(float, v)) for name, v in data["data"].get("conditions", {}).items()}
    return model.to(device).eval()


def _cells(geometry: Geometry) -> str:
    return f"{geometry.name} ({geometry.n_layers} layers, {geometry.n_voxels} voxels, cells {geometry.digest})"
