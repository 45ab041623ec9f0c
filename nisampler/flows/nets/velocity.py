"""Velocities of continuous flows: their settings, the features of the time, and a residual network.

The last layer starts at zero. Networks take points (n, dim), times (n, 1) and a context (n, context_dim), cast to the
dtype of their weights.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nisampler.base.checks import Count, Depth, Natural, Width, settings
from nisampler.errors import ConfigError
from nisampler.flows.nets.mlp import Activation, FourierFeatures, NetConfig, join_context
from nisampler.flows.solvers import SolverName

Sizes = Annotated[tuple[Count, Count, Count], Field(strict=False)]
"""The cells of a grid or a patch along its three axes."""
Divergence = Literal["exact", "hutchinson"]


@settings
class VelocityConfig:
    """A continuous flow: the network of its velocity, and how that is integrated.

    Parameters
    ----------
    kind
        "velocity-mlp", a residual network; or "velocity-vit", a transformer over patches of a grid.
    hidden, layers
        Width, and number of blocks.
    activation
        A key of `ACTIVATIONS`, for "velocity-mlp".
    frequencies
        Number of frequencies of the time, which the network is given as sines and cosines.
    patch, heads, expansion
        For "velocity-vit": shape of a patch, heads of the attention, and width of its perceptrons over `hidden`.
    solver, steps
        "euler", "midpoint" or "rk4", which take one, two and four evaluations in each of the equal steps.
    divergence
        "exact" takes as many derivatives as coordinates for each evaluation, "hutchinson" one; for densities only.
    pairs
        Normal points and times that a loss draws for each point: more than one where points are dearer than velocities.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> VelocityConfig(solver="rk4", steps=4).divergence
    'exact'
    >>> VelocityConfig("velocity-vit", hidden=10, heads=4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: 4 heads do not divide a width of 10
    """

    kind: Literal["velocity-mlp", "velocity-vit"] = "velocity-mlp"
    hidden: Width = 128
    layers: Depth = 3
    activation: Activation = "silu"
    frequencies: Natural = 8
    patch: Sizes = (1, 1, 1)
    heads: Width = 4
    expansion: Depth = 4
    solver: SolverName = "midpoint"
    steps: Count = 16
    divergence: Divergence = "exact"
    pairs: Width = 1

    def __post_init__(self) -> None:
        if self.kind == "velocity-vit" and self.hidden % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide a width of {self.hidden}")


class TimeFeatures(nn.Module):
    """t (n, 1) -> (t/2, sin πkt, cos πkt) with k = 1..m: different at the two ends of [0, 1].

    >>> TimeFeatures(1)(torch.tensor([[1.0]])).round(decimals=3).abs()
    tensor([[0.5000, 0.0000, 1.0000]])
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        self.features = FourierFeatures(1, m)
        self.d_out = self.features.d_out

    def forward(self, t: Tensor) -> Tensor:
        features: Tensor = self.features(0.5 * t)
        return features


class VelocityMLP(nn.Module):
    """A residual network; time and context enter at its input.

    Parameters
    ----------
    dim, context_dim
        Numbers of coordinates and conditions.
    config
        Settings, of which `hidden`, `layers`, `activation` and `frequencies` are used.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> net = VelocityMLP(3, 2, VelocityConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 3), torch.zeros(5, 1), torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, dim: int, context_dim: int, config: VelocityConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.time = TimeFeatures(config.frequencies)
        width = context_dim + self.time.d_out
        net = NetConfig("residual", config.hidden, config.layers, config.activation, context_dim=width)
        self.net = net.build(dim, dim, generator)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        velocity: Tensor = self.net(x, join_context(self.time(t), context, self.context_dim))
        return velocity
