"""The folder of a model of jets: ``jets.json``, the constants that no part holds, and the weights of each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nisampler._version import __version__
from nisampler.base.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.checkpoints import part as named
from nisampler.base.storage import read_sealed, understood, write_sealed
from nisampler.calo.fitting.store import BASE, part_folder
from nisampler.calo.jets.model import JetModel
from nisampler.calo.jets.presets import stored_config
from nisampler.errors import CorruptFileError, ModelError, StorageError

DESCRIPTION = "jets.json"
FORMAT, VERSION = "nisampler-jet-model", 1
_MEND = "restore the folder from a copy, or fit the model again"
_FIELDS = {"format", "version", "model", "config", "types", "constituents", "seed", "data"}


def save_model(
    folder: str | Path, model: JetModel, name: str, settings: Mapping[str, Any], data: Mapping[str, Any]
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
    settings, data
        "seed" and other options; facts about the training jets. JSON data.

    Raises
    ------
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.jets.presets import preset
    >>> model = JetModel(preset("small-epic-fm"), ("g",), most=30)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(folder, model, "small-epic-fm", {"seed": 1}, {})
    ...     describe(folder)["types"]
    ['g']
    """
    save_checkpoint(Path(folder) / BASE, model.state_dict(), {})
    body = {"format": FORMAT, "version": VERSION, "package": __version__, "model": name, **model.described()}
    write_sealed(Path(folder) / DESCRIPTION, body | dict(settings) | {"data": dict(data)})


def describe(folder: str | Path) -> dict[str, Any]:
    """The content of ``jets.json``, checked.

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
    nisampler.errors.StorageError: nowhere is not the folder of a model of jets: `nisampler jets fit` makes one
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise StorageError(f"{folder} is not the folder of a model of jets: `nisampler jets fit` makes one")
    data = read_sealed(path, mend=_MEND)
    if not data.keys() >= _FIELDS or data["format"] != FORMAT:
        raise CorruptFileError(f"{path} does not describe a model of jets: {_MEND}")
    if data["version"] != VERSION:
        raise StorageError(
            f"{path} has format {data['version']}, this release reads {VERSION}: use the release that wrote it"
        )
    return data


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> JetModel:
    """A fitted model, ready to generate.

    Parameters
    ----------
    folder
        What `nisampler jets fit` made.
    device
        Where the model goes.

    Raises
    ------
    ModelError
        If its training is not finished, or its weights do not fit its settings.
    StorageError, CorruptFileError
        If files are missing, truncated or altered.

    Examples
    --------
    >>> load_model("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a model of jets: `nisampler jets fit` makes one
    """
    data = describe(folder)
    with understood(Path(folder) / DESCRIPTION):
        model = JetModel(stored_config(data["config"]), data["types"], int(data["constituents"]), data["seed"])
    states = {"": load_checkpoint(Path(folder) / BASE)[0]}
    for part in model.parts:
        place = part_folder(folder, part.name)
        tensors, meta = load_checkpoint(place) if has_checkpoint(place) else ({}, {"done": False})
        if not meta["done"]:
            raise ModelError(f"the training of {folder} is not finished: `nisampler jets fit --resume` continues it")
        states[part.name] = named(tensors, "best.")
    try:
        model.load_state_dict(states.pop(""))
        for part in model.parts:
            part.module.load_state_dict(states[part.name])
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit its settings: {error}") from error
    return model.to(device).eval()
