"""Convolutional conditioners: U-Nets for the coupling blocks of image flows, and embeddings of image conditions.

Images are flat vectors in C order, (n, C H W), as everywhere in this package. Axis 0 of an image is its height H, axis
1 its width W; one of the two may be an angle, along which padding is then cyclic.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.checks import Count, Natural, Row, Width, checked, settings
from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.nets.mlp import ACTIVATIONS, Activation, join_context

Size = Annotated[tuple[Count, Count], Field(strict=False)]
"""Height and width."""
Shape = Annotated[tuple[Count, Count, Count], Field(strict=False)]
"""Channels, height and width."""


@settings
class UNetConfig:
    """What a U-Net looks like.

    With `norm="batch"` the samples of a batch see each other while the network is in training mode, through the means
    and variances of the batch: the density of a flow is defined, and its two directions are inverse to each other, in
    evaluation mode only, where running averages take their place.

    Parameters
    ----------
    hidden
        Feature maps at full resolution; each level down has twice as many.
    kernels
        (height, width) of the kernel, and of the stride, of each down-sampling and of the up-sampling that undoes it.
    cyclic
        The axis (0 or 1) along which images are periodic; None pads all sides with zeros.
    norm
        "batch", "group" (up to 8 groups of maps, each image for itself) or "none", after the inner convolutions.
    activation
        A key of `ACTIVATIONS`.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> UNetConfig(hidden=4, kernels=((2, 3), (2, 1)), cyclic=0).norm
    'batch'
    """

    hidden: Width = 32
    kernels: Row[Size] = ()
    cyclic: Literal[0, 1] | None = None
    norm: Literal["batch", "group", "none"] = "batch"
    activation: Activation = "leaky_relu"

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ConfigError("a U-Net needs kernels of the form (height, width), one for each level, got none")


class UNet(nn.Module):
    """A U-Net (1505.04597) on images of fixed size, (n, C_in H W), (n, C_context H W) -> (n, C_out H W).

    Each level has a block of two 3x3 convolutions before a down-sampling with stride = kernel, which doubles the number
    of feature maps, and one after the up-sampling that undoes it, which joins the feature maps kept from before; there
    is no block at the bottom (2405.20407, figure 3, and its code). The last convolution starts at zero.

    Parameters
    ----------
    channels
        C_in and C_out.
    size
        H and W.
    config
        Width, levels, padding and norm.
    generator
        Source of the initial weights, uniform in ±1/sqrt(number of inputs that an output sums).
    context_channels
        C_context: feature maps that join the input; 0 for none.

    Raises
    ------
    ConfigError
        If the size is not divisible by the kernels.

    Examples
    --------
    >>> config = UNetConfig(hidden=4, kernels=((2, 3),))
    >>> net = UNet((1, 2), (4, 3), config, torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 12)).shape
    torch.Size([5, 24])
    """

    def __init__(
        self,
        channels: tuple[int, int],
        size: Size,
        config: UNetConfig,
        generator: torch.Generator,
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        _check_levels(size, config.kernels)
        self.context_dim = context_channels * size[0] * size[1]
        self._activation = ACTIVATIONS[config.activation]
        self._shape = (channels[0] + context_channels, *size)
        before, down, up, after = [], [], [], []
        width, inputs = config.hidden, self._shape[0]
        for level, kernel in enumerate(config.kernels):
            before.append(_Block(inputs, width, config, generator))
            down.append(_strided(nn.Conv2d, width, 2 * width, kernel, generator))
            up.append(_strided(nn.ConvTranspose2d, 2 * width, width, kernel, generator))
            after.append(_Block(2 * width, width, config, generator, last=channels[1] if level == 0 else None))
            inputs = width = 2 * width
        self.before, self.down = nn.ModuleList(before), nn.ModuleList(down)
        self.up, self.after = nn.ModuleList(up), nn.ModuleList(after)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x.to(next(self.parameters()).dtype)
        x = join_context(x, context, self.context_dim).view(-1, *self._shape)
        kept = []
        for block, down in zip(self.before, self.down, strict=True):
            x = block(x)
            kept.append(x)
            x = down(x)
        x = self._activation(x)
        for block, up in zip(reversed(self.after), reversed(self.up), strict=True):
            x = block(torch.cat([up(x), kept.pop()], dim=1))
        return x.flatten(1)


class Convolution(nn.Module):
    """A convolution that keeps the size of an image, cyclic along one axis if so asked; its kernel has odd sides.

    Weights are uniform in ±1/sqrt(C_in kernel²), or zero where no generator is given.

    >>> layer = Convolution(1, 2, 3, 0, torch.Generator().manual_seed(1))
    >>> layer(torch.zeros(5, 1, 4, 3)).shape
    torch.Size([5, 2, 4, 3])
    """

    def __init__(
        self, d_in: int, d_out: int, kernel: int, cyclic: int | None, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_out, d_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(d_out))
        if generator is not None:
            _draw((self.weight, self.bias), d_in * kernel * kernel, generator)
        reach = kernel // 2
        self._zeros = tuple(0 if axis == cyclic else reach for axis in (0, 1))
        # the padding of torch starts with the last axis
        self._around = None if cyclic is None else ((0, 0, reach, reach), (reach, reach, 0, 0))[cyclic]

    def forward(self, x: Tensor) -> Tensor:
        if self._around is not None:
            x = functional.pad(x, self._around, mode="circular")
        return functional.conv2d(x, self.weight, self.bias, padding=self._zeros)


class _Block(nn.Module):
    """Two 3x3 convolutions, each with norm and activation; as the last block of a U-Net it ends in a plain one."""

    def __init__(
        self, d_in: int, width: int, config: UNetConfig, generator: torch.Generator, last: int | None = None
    ) -> None:
        super().__init__()
        self.first = Convolution(d_in, width, 3, config.cyclic, generator)
        self.first_norm = _norm(config.norm, width)
        if last is None:
            self.second = Convolution(width, width, 3, config.cyclic, generator)
            self.second_norm = _norm(config.norm, width)
        else:
            self.second = Convolution(width, last, 3, config.cyclic, None)
        self._last = last is not None
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self._activation(self.first_norm(self.first(x))))
        return x if self._last else self._activation(self.second_norm(x))


class ConvEmbedding(nn.Module):
    """Feature maps for the conditions of an image: earlier images and numbers, (n, context_dim) -> (n, C_e H W).

    Four convolutions, 1x1, 3x3, one with kernel and stride equal to the squeezing factor, and 3x3, with leaky ReLUs of
    slope 0.01 in between (2405.20407, table 7). Numbers enter as constant maps. The context holds the images one after
    the other, each flat in C order, then the numbers.

    Parameters
    ----------
    images, scalars
        Feature maps of the condition at the resolution before squeezing, and numbers; at least one image.
    size
        Height and width before squeezing.
    factor
        Squeezing factor in height and width.
    channels
        C_e.
    generator
        Source of the initial weights.
    cyclic
        The axis (0 or 1) along which images are periodic; None pads all sides with zeros.

    Raises
    ------
    ConfigError
        If there is no image, or the size is not divisible by the factor.

    Examples
    --------
    >>> embedding = ConvEmbedding(1, 2, (4, 6), (2, 2), 3, torch.Generator().manual_seed(1))
    >>> embedding(torch.zeros(5, 26)).shape
    torch.Size([5, 18])
    """

    def __init__(
        self,
        images: int,
        scalars: int,
        size: Size,
        factor: Size,
        channels: int,
        generator: torch.Generator,
        cyclic: int | None = None,
    ) -> None:
        super().__init__()
        images, scalars = checked("images", images, Count), checked("scalars", scalars, Natural)
        channels = checked("channels", channels, Count)
        _check_levels(size, (factor,))
        self.size, self.images = size, images
        self.context_dim = images * size[0] * size[1] + scalars
        self.first = Convolution(images + scalars, channels, 1, None, generator)
        self.second = Convolution(channels, channels, 3, cyclic, generator)
        self.squeeze = _strided(nn.Conv2d, channels, channels, factor, generator)
        self.last = Convolution(channels, channels, 3, cyclic, generator)

    def forward(self, context: Tensor | None) -> Tensor:
        context = _given(context, self.context_dim)
        pixels = self.images * self.size[0] * self.size[1]
        context = context.to(self.first.bias.dtype)
        images = context[:, :pixels].reshape(-1, self.images, *self.size)
        x = torch.cat([images, constant_maps(context[:, pixels:], self.size)], dim=1)
        for layer in (self.first, self.second, self.squeeze):
            x = functional.leaky_relu(layer(x), 0.01)
        maps: Tensor = self.last(x)
        return maps.flatten(1)


class ConstantMaps(nn.Module):
    """Numbers as feature maps that are the same everywhere, (n, s) -> (n, s H W), where there is no image to embed.

    >>> ConstantMaps(2, (1, 3))(torch.tensor([[4.0, 5.0]]))
    tensor([[4., 4., 4., 5., 5., 5.]])
    """

    def __init__(self, scalars: int, size: Size) -> None:
        super().__init__()
        self.context_dim, self.size = scalars, size

    def forward(self, context: Tensor | None) -> Tensor:
        return constant_maps(_given(context, self.context_dim), self.size).flatten(1)


def _given(context: Tensor | None, dim: int) -> Tensor:
    """The context, which must be (n, dim)."""
    if context is None or context.shape[1:] != (dim,):
        shape = None if context is None else tuple(context.shape)
        raise ShapeError(f"expected a context of shape (n, {dim}), got {shape}")
    return context


def constant_maps(scalars: Tensor, size: Size) -> Tensor:
    """Numbers (n, s) as constant images (n, s, H, W).

    >>> constant_maps(torch.tensor([[4.0]]), (1, 3))
    tensor([[[[4., 4., 4.]]]])
    """
    return scalars[:, :, None, None].expand(-1, -1, *size)


def _check_levels(size: Size, kernels: tuple[Size, ...]) -> None:
    """ConfigError unless an image can be reduced by all kernels in turn."""
    height, width = size
    for kernel in kernels:
        if height % kernel[0] or width % kernel[1]:
            raise ConfigError(
                f"an image of {size} is not divisible by the strides {kernels}: {height} x {width} is left"
            )
        height, width = height // kernel[0], width // kernel[1]


def _strided(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], d_in: int, d_out: int, kernel: Size, generator: torch.Generator
) -> nn.Module:
    """A convolution with stride = kernel, or its transpose."""
    device = torch.get_default_device()
    layer = nn.utils.skip_init(kind, d_in, d_out, kernel, stride=kernel, device=device)  # type: ignore[no-untyped-call]
    # each output of the transpose sums one pixel of all maps, not the whole kernel
    inputs = d_in * (math.prod(kernel) if kind is nn.Conv2d else 1)
    _draw((layer.weight, layer.bias), inputs, generator)
    return layer  # type: ignore[no-any-return]


def _draw(parameters: tuple[Tensor, ...], inputs: int, generator: torch.Generator) -> None:
    for parameter in parameters:
        nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    # groups of few pixels have variances near zero: at least 4 maps each
    return nn.GroupNorm(math.gcd(8, channels // 4, channels), channels) if kind == "group" else nn.Identity()
