"""The flows that settings name."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from nisampler.calo.models.config import FlowConfig
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


def build_flow(
    dim: int,
    config: FlowConfig,
    context_dim: int,
    generator: torch.Generator,
    groups: tuple[int, ...] | None = None,
) -> Flow:
    """The flow of a config over `dim` coordinates; a MAF does not mix `groups` of consecutive ones.

    >>> from nisampler.flows import NetConfig
    >>> config = FlowConfig(blocks=2, net=NetConfig(hidden=8))
    >>> build_flow(3, config, 1, torch.Generator().manual_seed(0)).log_prob(torch.zeros(4, 3), torch.ones(4, 1)).shape
    torch.Size([4])
    """
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
