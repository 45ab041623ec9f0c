"""A network of points that do not see each other: each is moved by what is known of its group."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nisampler.base.checks import Depth, Natural, Width, settings
from nisampler.flows.nets.mlp import ACTIVATIONS, Activation, FourierFeatures, make_linear


@settings
class PointwiseConfig:
    """What a `PointwiseNet` looks like.

    Parameters
    ----------
    kind
        Says which network settings belong to.
    hidden, layers
        Width and number of the residual blocks.
    activation
        A key of `ACTIVATIONS`.
    frequencies
        Number of frequencies of the noise level or time.
    points
        Most points of a batch that a loss looks at, chosen at random, as they do not see each other; 0 for all.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> PointwiseConfig(hidden=64).layers
    4
    """

    kind: Literal["pointwise"] = "pointwise"
    hidden: Width = 128
    layers: Depth = 4
    activation: Activation = "silu"
    frequencies: Natural = 8
    points: Natural = 0


class Embedding(nn.Module):
    """(t (g, 1), context (g, c)) -> (g, hidden): a perceptron over sines and cosines of t and the context.

    >>> Embedding(2, 8, 3, torch.Generator().manual_seed(1))(torch.zeros(5, 1), torch.zeros(5, 2)).shape
    torch.Size([5, 8])
    """

    def __init__(self, context_dim: int, hidden: int, frequencies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.features = FourierFeatures(1, frequencies)
        self.first = make_linear(self.features.d_out + context_dim, hidden, generator)
        self.second = make_linear(hidden, hidden, generator)

    def forward(self, t: Tensor, context: Tensor) -> Tensor:
        # an eighth, as log(σ)/4 and times lie within one half of a turn then
        joined = torch.cat([self.features(0.125 * t), context], dim=1)
        found: Tensor = nn.functional.silu(self.second(nn.functional.silu(self.first(joined))))
        return found


class PointwiseNet(nn.Module):
    """Points (m, d) -> (m, d), all alike but for their group.

    Groups, of which there are few, have a noise level and a context; what a block takes from them is computed for each
    group and handed to its points as factors and shifts. The last layer starts at zero.

    Parameters
    ----------
    dim, context_dim
        Numbers of coordinates of a point and of conditions of a group.
    config
        Width, depth and features.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> net = PointwiseNet(3, 2, PointwiseConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 3), torch.zeros(2, 1), torch.zeros(2, 2), torch.tensor([0, 0, 1, 1, 1])).shape
    torch.Size([5, 3])
    """

    def __init__(self, dim: int, context_dim: int, config: PointwiseConfig, generator: torch.Generator) -> None:
        super().__init__()
        hidden = config.hidden
        self.embedding = Embedding(context_dim, hidden, config.frequencies, generator)
        self.input = make_linear(dim, hidden, generator)
        self.first = nn.ModuleList(make_linear(hidden, hidden, generator) for _ in range(config.layers))
        self.second = nn.ModuleList(make_linear(hidden, hidden, generator) for _ in range(config.layers))
        self.gates = nn.ModuleList(make_linear(hidden, 2 * hidden, generator) for _ in range(config.layers))
        self.output = make_linear(hidden, dim, generator, gain=0.0)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, t: Tensor, context: Tensor, rows: Tensor) -> Tensor:
        """Points (m, d) of groups `rows` (m,) with t (g, 1) and a context (g, c)."""
        groups = self.embedding(t, context)
        x = self.input(x)
        for first, second, gate in zip(self.first, self.second, self.gates, strict=True):
            factor, shift = gate(groups)[rows].chunk(2, dim=1)
            x = x + second(self._activation(first(x) * (1 + factor) + shift))
        found: Tensor = self.output(self._activation(x))
        return found
