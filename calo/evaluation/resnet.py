"""A three-dimensional residual network that tells showers apart, for geometries with the same cells in every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nisampler.errors import GeometryError, ShapeError
from nisampler.flows.nets.mlp import make_linear

PLANES = (32, 64, 64, 128)
"""Channels of the four stages."""


def _convolution(n_in: int, n_out: int, size: int, stride: int, generator: torch.Generator) -> nn.Module:
    """A convolution without bias that keeps the extent divided by the stride; He's weights for what leaves it."""
    layer: nn.Conv3d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv3d, n_in, n_out, size, stride=stride, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    # Padding apart from the convolution: torch 2.13 writes outside its memory in the backward pass on a CPU where a
    # padded 7x7x7 convolution meets an extent of 5.
    return nn.Sequential(nn.ConstantPad3d(size // 2, 0.0), layer) if size > 1 else layer


class BasicBlock(nn.Module):
    """relu(x + f(x)) with two 3x3x3 convolutions in f; the shortcut is a 1x1x1 convolution where shapes change.

    >>> BasicBlock(2, 4, 2, torch.Generator().manual_seed(0))(torch.zeros(1, 2, 4, 4, 4)).shape
    torch.Size([1, 4, 2, 2, 2])
    """

    def __init__(self, n_in: int, n_out: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _convolution(n_in, n_out, 3, stride, generator)
        self.first_norm = nn.BatchNorm3d(n_out)
        self.second = _convolution(n_out, n_out, 3, 1, generator)
        self.second_norm = nn.BatchNorm3d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(_convolution(n_in, n_out, 1, stride, generator), nn.BatchNorm3d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet3D(nn.Module):
    """The 18-layer residual network (1512.03385) in three dimensions, as the CaloChallenge uses it (2410.21611).

    A 7x7x7 convolution of stride 2 and a maximum over 3x3x3 come first, then four stages of two blocks, all but the
    first of stride 2, and the mean over what is left of the grid. The first input, log10 of the incident energy,
    goes through batch normalisation and joins the 128 features before the last linear layer. 2,516,644 weights for
    one output.

    Parameters
    ----------
    grid
        (layers, first axis, second axis) of the cells.
    d_out
        Number of outputs.
    generator
        Source of the initial weights.

    Raises
    ------
    GeometryError
        If the geometry has no grid.

    Examples
    --------
    >>> network = ResNet3D((5, 8, 6), 1, torch.Generator().manual_seed(0)).eval()
    >>> network(torch.ones(2, 241)).shape
    torch.Size([2, 1])
    """

    def __init__(self, grid: tuple[int, int, int] | None, d_out: int, generator: torch.Generator) -> None:
        super().__init__()
        if grid is None:
            raise GeometryError(
                "the convolutional classifier needs the same cells in every layer; this geometry has none such: use "
                "a classifier with linear layers"
            )
        self.grid = grid
        self.stem = _convolution(1, PLANES[0], 7, 2, generator)
        self.stem_norm = nn.BatchNorm3d(PLANES[0])
        blocks: list[BasicBlock] = []
        n_in = PLANES[0]
        for stage, n_out in enumerate(PLANES):
            blocks.append(BasicBlock(n_in, n_out, 1 if stage == 0 else 2, generator))
            blocks.append(BasicBlock(n_out, n_out, 1, generator))
            n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.energy_norm = nn.BatchNorm1d(1)
        self.output = make_linear(PLANES[-1] + 1, d_out, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (n, d_out) of inputs (n, 1 + n_voxels): log10 of the incident energy, then the cells."""
        expected = 1 + self.grid[0] * self.grid[1] * self.grid[2]
        if inputs.ndim != 2 or inputs.shape[1] != expected:
            raise ShapeError(f"expected inputs of shape (n, {expected}), got {tuple(inputs.shape)}")
        x = inputs[:, 1:].reshape(-1, 1, *self.grid)
        x = functional.max_pool3d(functional.relu(self.stem_norm(self.stem(x))), 3, stride=2, padding=1)
        features = self.blocks(x).mean(dim=(2, 3, 4))
        return self.output(torch.cat([features, self.energy_norm(inputs[:, :1])], dim=1))  # type: ignore[no-any-return]
