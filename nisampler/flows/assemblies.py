"""Ready-made flows: coupling, MAF and IAF, each from one small frozen config."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor

from nisampler.base.checks import Coordinates, Count, Depth, Row, checked, settings
from nisampler.errors import ConfigError
from nisampler.flows.autoregressive import (
    AutoregressiveTransform,
    InverseAutoregressiveTransform,
    MaskedAutoregressiveTransform,
)
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.distributions import Base, StandardNormal, UniformCube
from nisampler.flows.flow import Flow
from nisampler.flows.folding import Folded, folded
from nisampler.flows.masks import binary_masks, exchange_masks, random_masks
from nisampler.flows.nets.mlp import NetConfig
from nisampler.flows.splines.families import Spline
from nisampler.flows.symmetry import Symmetry
from nisampler.flows.transforms import Composition, Permutation, Transform


@settings
class CouplingConfig:
    """Settings of a coupling flow.

    Parameters
    ----------
    spline
        Family of splines; its domain sets the base: uniform cube for "unit" and "circle", normal for "line".
    net
        Conditioner networks; holds the length of the context too.
    masks
        "binary" (all pairs of coordinates meet in 2 ceil(log2 d) blocks), "exchange" or "random".
    blocks
        Number of coupling blocks; None for 2 ceil(log2 d), two for d = 2, one for d = 1.
    symmetry
        Of the density, on the unit cube: the flow has it from the start and learns what is left. Of a `GroupedFlow`
        one for each group, or one for all.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range, or a symmetry is asked for off the unit cube.

    Examples
    --------
    >>> config = CouplingConfig(Spline(bins=8), NetConfig(hidden=32), blocks=4)
    >>> coupling_flow(3, config).dim
    3
    """

    spline: Spline = field(default_factory=Spline)
    net: NetConfig = field(default_factory=NetConfig)
    masks: Literal["binary", "exchange", "random"] = "binary"
    blocks: Depth | None = None
    symmetry: Row[Symmetry] = ()

    def __post_init__(self) -> None:
        if any(self.symmetry) and self.spline.domain != "unit":
            raise ConfigError(f"symmetries are those of the unit cube, but the splines are on {self.spline.domain!r}")


@settings
class AutoregressiveConfig:
    """Settings of a masked autoregressive flow.

    Parameters
    ----------
    spline, net
        Family of splines, and networks, as in `CouplingConfig`.
    blocks
        Number of autoregressive blocks.
    order
        How the coordinates are reordered between the blocks: "reverse", "random", or "alternate" between the two.
    groups
        Sizes of consecutive groups of coordinates that the reordering does not mix, such as the layers of a
        calorimeter (2106.05285); None for a single group.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> AutoregressiveConfig(blocks=2, groups=(2, 3)).order
    'reverse'
    >>> AutoregressiveConfig(blocks=0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: blocks = 0: must be a whole number, at least 1 and at most 1000
    """

    spline: Spline = field(default_factory=lambda: Spline(domain="line"))
    net: NetConfig = field(default_factory=NetConfig)
    blocks: Depth = 4
    order: Literal["reverse", "random", "alternate"] = "reverse"
    groups: Row[Count] | None = None

    def __post_init__(self) -> None:
        if self.groups == ():
            raise ConfigError("groups = (): must be the sizes of one group or more, or None for a single one")
        if self.net.fourier:
            raise ConfigError("Fourier features are for coupling flows; set fourier = 0")
        if self.net.kind == "bayesian":
            raise ConfigError("Bayesian networks are for coupling flows; set kind = 'mlp' or 'residual'")


def coupling_flow(dim: int, config: CouplingConfig | None = None, *, generator: torch.Generator | None = None) -> Flow:
    """A coupling flow in `dim` dimensions, equally fast in both directions; the identity at the start.

    `generator` fixes the initial weights and random masks; without one a fixed seed is used. The global
    random state is never touched.

    Examples
    --------
    >>> flow = coupling_flow(3, CouplingConfig(Spline(bins=8)))
    >>> x, log_q = flow.sample(5, generator=torch.Generator().manual_seed(1))
    >>> x.shape, bool((log_q.abs() < 1e-5).all())
    (torch.Size([5, 3]), True)
    """
    dim = checked("dim", dim, Coordinates)
    config = CouplingConfig() if config is None else checked("config", config, CouplingConfig)
    generator = generator or torch.Generator().manual_seed(0)

    def build(d_in: int, d_out: int) -> torch.nn.Module:
        return config.net.build(d_in, d_out, generator)

    fold = folded(dim, 1, config.symmetry)
    masks = coupling_masks(dim if fold is None else fold.inner_dim, config, generator)
    blocks = Composition(CouplingTransform(m, build, config.spline) for m in masks)
    flow = Flow(_base(dim, config.spline), blocks if fold is None else Folded(blocks, fold))
    return flow.assembled("coupling", dim=dim, config=config)


def maf(dim: int, config: AutoregressiveConfig | None = None, *, generator: torch.Generator | None = None) -> Flow:
    """A masked autoregressive flow (1705.07057): parallel `log_prob`, sequential `sample`.

    `generator` fixes the initial weights and random orders; without one a fixed seed is used.

    Raises
    ------
    ConfigError
        If the groups of the config do not add up to `dim`.

    Examples
    --------
    >>> flow = maf(3, AutoregressiveConfig(Spline(domain="line", bins=4), blocks=2))
    >>> flow.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """
    return _autoregressive("maf", dim, config, generator)


def iaf(dim: int, config: AutoregressiveConfig | None = None, *, generator: torch.Generator | None = None) -> Flow:
    """An inverse autoregressive flow (1606.04934): parallel `sample`, sequential `log_prob`.

    Arguments and errors are those of `maf`.

    >>> flow = iaf(3, AutoregressiveConfig(Spline(domain="line", bins=4), blocks=2))
    >>> flow.sample(5, generator=torch.Generator().manual_seed(1))[0].shape
    torch.Size([5, 3])
    """
    return _autoregressive("iaf", dim, config, generator)


_AUTOREGRESSIVE: dict[str, type[AutoregressiveTransform]] = {
    "maf": MaskedAutoregressiveTransform,
    "iaf": InverseAutoregressiveTransform,
}


def _autoregressive(
    name: str, dim: int, config: AutoregressiveConfig | None, generator: torch.Generator | None
) -> Flow:
    dim = checked("dim", dim, Coordinates)
    config = AutoregressiveConfig() if config is None else checked("config", config, AutoregressiveConfig)
    generator = generator or torch.Generator().manual_seed(0)
    groups = (dim,) if config.groups is None else config.groups
    if sum(groups) != dim:
        raise ConfigError(f"the groups {groups} hold {sum(groups)} coordinates, but the flow has {dim}")
    transforms: list[Transform] = []
    for block in range(config.blocks):
        if block and dim > 1:
            reverse = config.order == "reverse" or (config.order == "alternate" and block % 2 == 1)
            transforms.append(_reorder(groups, None if reverse else generator))
        transforms.append(_AUTOREGRESSIVE[name](dim, config.spline, config.net, generator))
    flow = Flow(_base(dim, config.spline), Composition(transforms))
    return flow.assembled(name, dim=dim, config=config)


def _reorder(groups: tuple[int, ...], generator: torch.Generator | None) -> Permutation:
    """A random order of each group of consecutive coordinates, or without a generator the reversed one."""
    orders, start = [], 0
    for size in groups:
        part = Permutation.reverse(size) if generator is None else Permutation.random(size, generator)
        orders.append(part.order + start)
        start += size
    return Permutation(torch.cat(orders))


def _base(dim: int, spline: Spline) -> Base:
    return StandardNormal(dim) if spline.domain == "line" else UniformCube(dim)


def coupling_masks(dim: int, config: CouplingConfig, generator: torch.Generator) -> list[Tensor]:
    """The masks of the blocks of a coupling flow, bool tensors of shape (dim,); `generator` draws random ones.

    >>> coupling_masks(3, CouplingConfig(blocks=1), torch.Generator())
    [tensor([False,  True, False])]
    """
    full = binary_masks(dim)
    count = config.blocks or len(full)
    if config.masks == "exchange":
        return exchange_masks(dim, count)
    if config.masks == "random":
        return random_masks(dim, count, generator)
    return [full[k % len(full)] for k in range(count)]
