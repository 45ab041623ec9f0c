"""Conditioner networks of many flows side by side: points sorted by group, and weights stacked along the first axis."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nisampler.flows.nets.mlp import ACTIVATIONS, Activation, FourierFeatures, NetConfig, make_linear


class GroupedLinear(nn.Module):
    """One linear layer per group, (T, d_in, t) -> (T, d_out, t): W_g x + b_g for the group g of each tile.

    `weight` (G, d_out, d_in) and `bias` (G, d_out) are the stacked parameters of single layers, with the same initial
    values, or zero.

    >>> layer = GroupedLinear(3, 2, 4, torch.Generator().manual_seed(1))
    >>> layer(torch.zeros(5, 2, 8), torch.tensor([0, 0, 1, 2, 2])).shape
    torch.Size([5, 4, 8])
    """

    def __init__(
        self, groups: int, d_in: int, d_out: int, generator: torch.Generator | None, gain: float = 1.0
    ) -> None:
        super().__init__()
        if generator is None:
            self.weight = nn.Parameter(torch.zeros(groups, d_out, d_in))
            self.bias = nn.Parameter(torch.zeros(groups, d_out))
        else:
            layers = [make_linear(d_in, d_out, generator, gain) for _ in range(groups)]
            self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
            self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        weight, bias = self.weight.index_select(0, group), self.bias.index_select(0, group)
        return torch.baddbmm(bias.unsqueeze(2), weight, x)


class GroupedMLP(nn.Module):
    """A multilayer perceptron per group: points (n', d_in) in T tiles of groups (T,) -> (n', d_out).

    As with a single network the samples of the result are fastest in memory, which makes the splines fast.

    >>> net = GroupedMLP(3, 2, 4, NetConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(10, 2), torch.tensor([0, 0, 1, 2, 2])).shape
    torch.Size([10, 4])
    """

    def __init__(self, groups: int, d_in: int, d_out: int, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.features = FourierFeatures(d_in, config.fourier, config.centre)
        sizes = [self.features.d_out] + [config.hidden] * config.layers
        self.hidden = nn.ModuleList(GroupedLinear(groups, a, b, generator, config.gain) for a, b in pairwise(sizes))
        self.output = GroupedLinear(groups, config.hidden, d_out, None)
        self.activation: Activation = config.activation
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        features = self.features(x.to(self.output.bias.dtype))
        tiles = len(group)
        hidden = features.view(tiles, len(x) // max(tiles, 1), features.shape[1]).transpose(1, 2)
        for layer in self.hidden:
            hidden = self._activation(layer(hidden, group))
        return _samples_fastest(self.output(hidden, group))


class GroupedConstant(nn.Module):
    """A conditioner without inputs: `d_out` free numbers per group, zero at the start.

    >>> GroupedConstant(3, 4)(torch.zeros(10, 0), torch.tensor([0, 0, 1, 2, 2])).shape
    torch.Size([10, 4])
    """

    def __init__(self, groups: int, d_out: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(groups, d_out))

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        values = self.values.index_select(0, group).unsqueeze(2)
        return _samples_fastest(values.expand(-1, -1, len(x) // max(len(group), 1)))


def _samples_fastest(x: Tensor) -> Tensor:
    """(T, d, t) as (T t, d), with the first axis fastest in memory."""
    return x.transpose(0, 1).reshape(x.shape[1], x.shape[0] * x.shape[2]).t()
