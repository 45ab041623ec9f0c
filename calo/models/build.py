"""From settings and a geometry to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import OneStepModel, ShowerModel, TwoStepModel, voxel_context
from nisampler.calo.models.chain import ChainModel, layer_flow
from nisampler.calo.models.clouds.diffusion import build_clouds
from nisampler.calo.models.clouds.matching import build_allshowers
from nisampler.calo.models.config import FAMILIES, Kinds, ModelConfig, model_streams
from nisampler.calo.models.distillation import DistillationConfig
from nisampler.calo.models.flows import build_flow
from nisampler.calo.models.generative import GenerativeModel
from nisampler.calo.models.inductive import InductiveModel, InductiveStudentModel, next_context
from nisampler.calo.models.matching import build_matching
from nisampler.calo.models.onestep import build_onestep
from nisampler.calo.models.student import StudentModel
from nisampler.calo.models.vae import AutoencoderConfig, AutoencoderModel
from nisampler.errors import ConfigError
from nisampler.flows import Flow

Builder = Callable[[ModelConfig, Geometry, torch.Generator], GenerativeModel]


def build(config: ModelConfig, geometry: Geometry, seed: int = 1) -> GenerativeModel:
    """The model that settings describe, with fresh weights of a seed.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> type(build(preset("small-inn", geometry("toy")), geometry("toy"))).__name__
    'OneStepModel'
    """
    settings = config.to_dict()
    model = _BUILDERS[config.family](config, geometry, model_streams(settings, seed).generator("weights"))
    model.config = settings
    return model


def register(family: str, flows: Kinds, builder: Builder) -> None:
    """Add a family of shower models of your own, so that its settings can be built, fitted, stored and loaded.

    Parameters
    ----------
    family
        Its name in `ModelConfig`.
    flows
        The settings classes of its flows, each of which has a recipe.
    builder
        From settings, a geometry and a generator of initial weights to a `ShowerModel` or another `GenerativeModel`.

    Raises
    ------
    ConfigError
        If the name is taken.

    Examples
    --------
    >>> register("one-step", (), _one_step)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: a family of shower models is called 'one-step' already: choose another name
    """
    if family in FAMILIES:
        raise ConfigError(f"a family of shower models is called {family!r} already: choose another name")
    FAMILIES[family], _BUILDERS[family] = flows, builder


def _one_step(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    flow = build_flow(geometry.n_voxels + geometry.n_layers, config.plain_flows[0], geometry.context, generator)
    return OneStepModel(geometry, config.preprocessing, flow, config.recipes[0], config.symmetric)


def _two_flows(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> tuple[Flow, Flow]:
    first, second = config.plain_flows[:2]
    energies = build_flow(geometry.n_layers, first, geometry.context, generator)
    return energies, build_flow(geometry.n_voxels, second, voxel_context(geometry), generator, geometry.sizes)


def _two_step(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    flows, (first, second) = _two_flows(config, geometry, generator), config.recipes
    return TwoStepModel(geometry, config.preprocessing, *flows, (first, second), config.symmetric)


def _student(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    flows, (first, second, third) = _two_flows(config, geometry, generator), config.recipes
    distillation = DistillationConfig(steps=config.guided, parameters=config.guided)
    net = replace(config.plain_flows[2].net, context_dim=voxel_context(geometry))
    recipes, symmetric = (first, second, third), config.symmetric
    return StudentModel(geometry, config.preprocessing, *flows, recipes, net, distillation, generator, symmetric)


def _chain(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    energies = build_flow(geometry.n_layers, config.plain_flows[0], geometry.context, generator)
    layers = [layer_flow(geometry, i, config.history, config.flows[1], generator) for i in range(geometry.n_layers)]
    rest = ((config.recipes[0], config.recipes[1]), config.history, config.veto, config.symmetric, config.spectrum)
    return ChainModel(geometry, config.preprocessing, [energies, *layers], *rest)


def _inductive_flows(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> tuple[Flow, Flow, Flow]:
    (energies, first, further), size = config.plain_flows[:3], geometry.sizes[0]
    return (
        build_flow(geometry.n_layers, energies, geometry.context, generator),
        build_flow(size, first, geometry.context + 1, generator),
        build_flow(size, further, next_context(geometry), generator),
    )


def _inductive(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    flows, (first, second, third) = _inductive_flows(config, geometry, generator), config.recipes
    return InductiveModel(geometry, config.preprocessing, flows, (first, second, third), config.symmetric)


def _inductive_student(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    flows, (one, two, three, four, five) = _inductive_flows(config, geometry, generator), config.recipes
    nets = (config.plain_flows[3].net, config.plain_flows[4].net)
    distillation = DistillationConfig(steps=config.guided, parameters=config.guided)
    rest = (nets, distillation, generator, config.symmetric)
    return InductiveStudentModel(geometry, config.preprocessing, flows, (one, two, three, four, five), *rest)


def _autoencoder(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    (network,), (recipe,) = config.flows, config.recipes
    if not isinstance(network, AutoencoderConfig):
        raise ConfigError("an autoencoder has one AutoencoderConfig")
    return AutoencoderModel(geometry, config.preprocessing, network, recipe, generator, config.symmetric)


_BUILDERS: dict[str, Builder] = {
    "one-step": _one_step,
    "two-step": _two_step,
    "student": _student,
    "chain": _chain,
    "inductive": _inductive,
    "inductive-student": _inductive_student,
    "matching": build_matching,
    "matching-student": build_onestep,
    "clouds": build_clouds,
    "clouds-onestep": build_clouds,
    "allshowers": build_allshowers,
    "autoencoder": _autoencoder,
}
