"""Layers of the classifiers: dropout with random numbers of its own, standardised inputs, the perceptron."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from nisampler.flows.nets.mlp import make_linear


class Dropout(nn.Module):
    """Dropout whose masks come from a generator of its own.

    Examples
    --------
    >>> Dropout(0.5, torch.Generator().manual_seed(1))(torch.ones(4)).unique().tolist()
    [0.0, 2.0]
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self._probability, self._generator = probability, generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self._probability == 0.0:
            return x
        uniform = torch.rand(x.shape, generator=self._generator, device=x.device, dtype=x.dtype)
        return x * (uniform >= self._probability) / (1.0 - self._probability)


class Standardise(nn.Module):
    """(x - mean)/scale with constants that are set before training.

    Examples
    --------
    >>> layer = Standardise(1)
    >>> layer.set_from(iter([torch.tensor([[1.0], [3.0]])]))
    >>> layer(torch.tensor([[4.0]])).item()
    2.0
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def set_from(self, batches: Iterator[Tensor]) -> None:
        """Take mean and standard deviation of all rows; a constant input keeps the scale 1."""
        n = 0
        shift = total = squares = torch.zeros_like(self.mean, dtype=torch.float64)
        for batch in batches:
            rows = batch.double()
            shift = rows.mean(dim=0) if n == 0 else shift  # so that the squares do not cancel
            n, total, squares = n + len(rows), total + (rows - shift).sum(0), squares + (rows - shift).square().sum(0)
        mean = total / n
        deviation = (squares / n - mean.square()).clamp(min=0.0).sqrt()
        self.mean.copy_(mean + shift)
        self.scale.copy_(torch.where(deviation > 1e-8, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


def perceptron(
    sizes: tuple[int, ...], outputs: int, dropout: float, weights: torch.Generator, masks: torch.Generator
) -> nn.Module:
    """Linear layers with leaky ReLU and dropout between them.

    Parameters
    ----------
    sizes, outputs
        Numbers of inputs and of neurons in each hidden layer; number of outputs.
    dropout
        Probability that an output of a hidden layer is set to zero in training.
    weights, masks
        Sources of the initial weights and of the dropout.

    Examples
    --------
    >>> perceptron((3, 8), 1, 0.1, torch.Generator(), torch.Generator())(torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(sizes):
        layers += [make_linear(d_in, d_out, weights), nn.LeakyReLU(), Dropout(dropout, masks)]
    return nn.Sequential(*layers, make_linear(sizes[-1], outputs, weights))
