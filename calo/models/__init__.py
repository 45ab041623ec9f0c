"""Shower models: which flows, under which conditions, with which settings."""

from __future__ import annotations

from typing import Any

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart, ShowerModel
from nisampler.calo.models.build import build, register
from nisampler.calo.models.config import FlowConfig, ModelConfig, model_streams
from nisampler.calo.models.files import model_toml, read_model, widened
from nisampler.calo.models.generative import GenerativeModel
from nisampler.calo.models.presets.catalogue import PRESETS, preset

__all__ = [
    "PRESETS",
    "FlowConfig",
    "GenerativeModel",
    "ModelConfig",
    "ModelPart",
    "ShowerModel",
    "build_model",
    "model_config",
    "model_streams",
    "model_toml",
    "preset",
    "register",
    "widened",
]


def build_model(model: str | dict[str, Any] | ModelConfig, geometry: Geometry, seed: int = 1) -> GenerativeModel:
    """A fresh model for a geometry: from the name of a preset or a TOML file, from settings, or from their JSON form.

    Its initial weights, permutations and masks belong to the seed and the settings.

    Raises
    ------
    ModelError
        If there is no such preset, or the settings are wrong or do not fit the geometry.
    ConfigError
        If a network or a flow refuses its settings, or a file is wrong.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> [part.name for part in build_model("small", geometry("toy")).parts]
    ['energies', 'voxels']
    """
    if isinstance(model, str):
        model = model_config(model, geometry)
    return build(model if isinstance(model, ModelConfig) else ModelConfig.from_dict(model), geometry, seed)


def model_config(name: str, geometry: Geometry) -> ModelConfig:
    """The settings of a preset for a geometry, or those of a file if the name ends with .toml.

    Raises
    ------
    ModelError
        If there is no such preset, or it was published for another geometry.
    ConfigError, StorageError, CorruptFileError
        If the file is wrong, or cannot be read.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> model_config("small", geometry("toy")).family
    'two-step'
    """
    return read_model(name) if name.endswith(".toml") else preset(name, geometry)
