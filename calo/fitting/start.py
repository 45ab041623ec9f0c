"""What a fit takes over from a fitted model: weights where they fit, and the preprocessing where cells are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nisampler.base.checkpoints import MANIFEST_NAME
from nisampler.base.optim import copies
from nisampler.calo.fitting.store import BASE, describe, load_base, load_model, part_folder
from nisampler.calo.models import GenerativeModel, ModelConfig
from nisampler.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Start:
    """Weights to begin with.

    Parameters
    ----------
    weights
        Of the parts that are taken over, by name.
    fresh
        Why the others are not, by name.
    facts
        What identifies the model that they are of, JSON data.

    Examples
    --------
    >>> Start({"energies": {}}, {"voxels": "net.weight has the shape (2, 3), here (2, 4)"}, {}).text
    'energies; fresh are voxels'
    """

    weights: Mapping[str, Mapping[str, Tensor]]
    fresh: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Which parts are taken over, and which are not."""
        return ", ".join(self.weights) + (f"; fresh are {', '.join(self.fresh)}" if self.fresh else "")


def start_from(folder: str | Path, model: GenerativeModel) -> Start:
    """Weights of a fitted model for another one of the same family.

    Where both have the same cells all parts must fit, and `model` gets the constants of the preprocessing, too: then
    it is the fitted model. For other cells those parts are taken whose weights have the same names and shapes.

    Parameters
    ----------
    folder
        Of the fitted model.
    model
        Prepared, and not trained.

    Raises
    ------
    ModelError
        If its training is not finished, it is of another family, or its weights do not fit.
    StorageError, CorruptFileError
        If its files are missing or damaged.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> start_from("nowhere", build_model("small-inn", geometry("toy")))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    description, known = describe(folder), load_model(folder)
    families = known.config.get("family"), model.config.get("family")
    if families[0] != families[1]:
        raise ModelError(f"{folder} is a {families[0]} model, --model is {families[1]}: choose one of the same family")
    states = {part.name: part.module.state_dict() for part in known.parts}
    found = {part.name: _misfit(states.get(part.name), part.module.state_dict()) for part in model.parts}
    fresh = {name: why for name, why in found.items() if why}
    same = known.geometry.digest == model.geometry.digest
    if fresh and (same or len(fresh) == len(found)):
        told = "; ".join(f"{name}: {why}" for name, why in fresh.items())
        raise ModelError(f"the weights of {folder} do not fit: {told}; leave --model and --hidden as they were there")
    if same:
        load_base(folder, model)
    weights = {name: copies(states[name]) for name in found if name not in fresh}
    places = [Path(folder) / BASE, *(part_folder(folder, part.name) for part in known.parts)]
    digest = hashlib.sha256(b"".join((place / MANIFEST_NAME).read_bytes() for place in places))
    return Start(weights, fresh, {"model": description["model"], "sha256": digest.hexdigest()})


def _misfit(found: Mapping[str, Tensor] | None, wanted: Mapping[str, Tensor]) -> str:
    """Why a state is not one of a module, in a few words; empty if it is."""
    if found is None:
        return "it has no such part"
    if different := sorted(found.keys() ^ wanted.keys()):
        return f"{different[0]} is in one of them only"
    shapes = ((name, tuple(found[name].shape), tuple(tensor.shape)) for name, tensor in wanted.items())
    return next((f"{name} has the shape {a}, here {b}" for name, a, b in shapes if a != b), "")


def settings_of(folder: str | Path, cells: str) -> ModelConfig:
    """The settings of a fitted model of these cells.

    Parameters
    ----------
    folder
        Of the model.
    cells
        The digest of the geometry.

    Raises
    ------
    ConfigError
        If it has other cells, since settings such as thresholds go with them.
    StorageError, CorruptFileError, ModelError
        If it cannot be read.

    Examples
    --------
    >>> settings_of("nowhere", "")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    description = describe(folder)
    if description["cells"] != cells:
        raise ConfigError(f"the model in {folder} has other cells: say with --model which settings these cells need")
    return ModelConfig.from_dict(description["config"])
