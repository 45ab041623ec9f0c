"""A transformer over patches of a regular grid, as the velocity of a continuous flow (2010.11929, 2212.09748)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nisampler.errors import ConfigError
from nisampler.flows.nets.mlp import Linear, join_context, make_linear
from nisampler.flows.nets.velocity import Sizes, TimeFeatures, VelocityConfig

_POSITION = 0.02  # spread of the initial embedding of positions


class Patches(nn.Module):
    """Points (n, a b c) on a grid of shape (a, b, c), the last index fastest, as tokens (n, tokens, size), and back.

    Parameters
    ----------
    grid, patch
        Shapes of the grid and of a patch, which must divide it.

    Raises
    ------
    ConfigError
        If the patches do not fill the grid.

    Examples
    --------
    >>> patches = Patches((1, 2, 4), (1, 1, 2))
    >>> tokens = patches(torch.arange(8.0).unsqueeze(0))
    >>> tokens.shape, patches.inverse(tokens)
    (torch.Size([1, 4, 2]), tensor([[0., 1., 2., 3., 4., 5., 6., 7.]]))
    """

    def __init__(self, grid: Sizes, patch: Sizes) -> None:
        super().__init__()
        if any(cells < 1 or width < 1 or cells % width for cells, width in zip(grid, patch, strict=True)):
            raise ConfigError(f"patches of {patch} do not fill a grid of {grid}: choose divisors of its sizes")
        self.counts = tuple(cells // width for cells, width in zip(grid, patch, strict=True))
        self.patch = patch
        self.tokens, self.size = math.prod(self.counts), math.prod(patch)

    def forward(self, x: Tensor) -> Tensor:
        (a, b, c), (i, j, k) = self.counts, self.patch
        return x.reshape(-1, a, i, b, j, c, k).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.tokens, self.size)

    def inverse(self, tokens: Tensor) -> Tensor:
        (a, b, c), (i, j, k) = self.counts, self.patch
        return tokens.reshape(-1, a, b, c, i, j, k).permute(0, 1, 4, 2, 5, 3, 6).flatten(1)


class Modulation(nn.Module):
    """Shifts, scales and gates from a condition (n, width): `parts` tensors (n, 1, width), zero at the start.

    >>> [part.shape for part in Modulation(4, 2)(torch.zeros(5, 4))]
    [torch.Size([5, 1, 4]), torch.Size([5, 1, 4])]
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.output = Linear(width, parts * width)
        self._parts = parts

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        parts: Tensor = self.output(functional.silu(condition))
        return parts.unsqueeze(1).chunk(self._parts, dim=2)


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm that the condition shifts and scales, and before a gate.

    Parameters
    ----------
    width, heads, expansion
        Width of the tokens, heads of the attention, and width of the perceptron over that of the tokens.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> block = TransformerBlock(4, 2, 2, torch.Generator().manual_seed(1))
    >>> block(torch.zeros(5, 3, 4), torch.zeros(5, 4)).shape
    torch.Size([5, 3, 4])
    """

    def __init__(self, width: int, heads: int, expansion: int, generator: torch.Generator) -> None:
        super().__init__()
        self._heads = heads
        self.mixed = make_linear(width, 3 * width, generator)
        self.attended = make_linear(width, width, generator)
        self.first = make_linear(width, expansion * width, generator)
        self.second = make_linear(expansion * width, width, generator)
        self.modulation = Modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(condition)
        x = x + gate * self._attention(_normed(x, shift, scale))
        x = x + gate_2 * self.second(functional.gelu(self.first(_normed(x, shift_2, scale_2))))
        return x

    def _attention(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        heads = self.mixed(x).reshape(n, tokens, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads.unbind(0))
        attended: Tensor = self.attended(mixed.transpose(1, 2).reshape(n, tokens, width))
        return attended


class VelocityViT(nn.Module):
    """A transformer whose tokens are the patches of a grid; time and context steer every block.

    Parameters
    ----------
    grid
        Shape of the grid, the last index the fastest.
    context_dim
        Number of conditions.
    config
        Settings, of which `hidden`, `layers`, `frequencies`, `patch`, `heads` and `expansion` are used.
    generator
        Source of the initial weights.

    Raises
    ------
    ConfigError
        If the patches do not fill the grid.

    Examples
    --------
    >>> config = VelocityConfig("velocity-vit", hidden=8, layers=1, patch=(1, 1, 2))
    >>> net = VelocityViT((1, 2, 4), 0, config, torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 8), torch.zeros(5, 1)).shape
    torch.Size([5, 8])
    """

    def __init__(self, grid: Sizes, context_dim: int, config: VelocityConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim, width = context_dim, config.hidden
        self.patches = Patches(grid, config.patch)
        self.time = TimeFeatures(config.frequencies)
        self.embedding = make_linear(self.patches.size, width, generator)
        self.position = nn.Parameter(torch.empty(self.patches.tokens, width))
        nn.init.normal_(self.position, std=_POSITION, generator=generator)
        self.condition = nn.Sequential(
            make_linear(self.time.d_out + context_dim, width, generator),
            nn.SiLU(),
            make_linear(width, width, generator),
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, config.expansion, generator) for _ in range(config.layers)
        )
        self.modulation = Modulation(width, 2)
        self.output = Linear(width, self.patches.size)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        dtype = self.output.weight.dtype
        condition = self.condition(join_context(self.time(t).to(dtype), context, self.context_dim))
        tokens = self.embedding(self.patches(x.to(dtype))) + self.position
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)
        return self.patches.inverse(self.output(_normed(tokens, shift, scale).flatten(0, 1)))


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed: Tensor = functional.layer_norm(x, x.shape[-1:])
    return normed * (1 + scale) + shift
