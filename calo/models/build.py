"""From settings and a geometry to a model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from nisampler.calo.distillation import DistillationConfig
from nisampler.calo.geometry import Geometry
from nisampler.calo.models.base import OneStepModel, ShowerModel, TwoStepModel, voxel_context
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.student import StudentModel
from nisampler.flows import (
    ActNorm,
    AutoregressiveConfig,
    Composition,
    CouplingTransform,
    Flow,
    StandardNormal,
    Transform,
    maf,
    random_masks,
)

# Initial weights are the same for every training; the seed of a training moves the order and the noise of its data.
_WEIGHTS_SEED = 20240519


def build(config: ModelConfig, geometry: Geometry) -> ShowerModel:
    """The model that settings describe, with fresh weights."""
    generator = torch.Generator().manual_seed(_WEIGHTS_SEED)
    model: ShowerModel
    if config.family == "one-step":
        flow = build_flow(geometry.n_voxels + geometry.n_layers, config.flows[0], 1, generator)
        model = OneStepModel(geometry, config.preprocessing, flow, config.recipes[0], config.symmetric)
    else:
        energies = build_flow(geometry.n_layers, config.flows[0], 1, generator)
        context = voxel_context(geometry)
        voxels = build_flow(geometry.n_voxels, config.flows[1], context, generator, geometry.sizes)
        pair = (geometry, config.preprocessing, energies, voxels)
        first, second, *third = config.recipes
        if config.family == "two-step":
            model = TwoStepModel(*pair, (first, second), config.symmetric)
        else:
            distillation = DistillationConfig(steps=config.guided, parameters=config.guided)
            net = replace(config.flows[2].net, context_dim=context)
            recipes = (first, second, third[0])
            model = StudentModel(*pair, recipes, net, distillation, generator, config.symmetric)
    model.config = config.to_dict()
    return model


def build_flow(
    dim: int,
    config: FlowConfig,
    context_dim: int,
    generator: torch.Generator,
    groups: tuple[int, ...] | None = None,
) -> Flow:
    """The flow of a config over `dim` coordinates; a MAF does not mix `groups` of consecutive ones."""
    net = replace(config.net, context_dim=context_dim)
    if config.kind == "maf":
        order = AutoregressiveConfig(config.spline, net, config.blocks, config.order, groups)
        return maf(dim, order, generator=generator)

    def conditioner(d_in: int, d_out: int) -> nn.Module:
        return net.build(d_in, d_out, generator)

    transforms: list[Transform] = []
    for mask in random_masks(dim, config.blocks, generator):
        if config.actnorm:
            transforms.append(ActNorm(dim))
        transforms.append(CouplingTransform(mask, conditioner, config.spline))
    return Flow(StandardNormal(dim), Composition(transforms))
