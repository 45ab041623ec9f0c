"""Convolutional flows on images (1807.03039, 2405.20407): squeezing, layers applied to every pixel, image conditions.

An image (C, H, W) is a flat vector of C H W coordinates in C order, so that all transforms of this package apply to it.
The activation norm of GLOW is `PerPixel(ActNorm(C), ...)`, its invertible 1x1 convolution
`PerPixel(Composition([Permutation.random(C), LULinear(C)]), ...)`, and a coupling block that splits the channels is a
`CouplingTransform` with a `channel_mask` and a `UNet`.
"""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor, nn

from nisampler.base.checks import Depth, Natural, Width, checked, settings
from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.distributions import StandardNormal
from nisampler.flows.flow import Flow
from nisampler.flows.nets.unet import ConstantMaps, ConvEmbedding, Shape, Size, UNet, UNetConfig
from nisampler.flows.splines.families import Spline
from nisampler.flows.transforms import ActNorm, Composition, LULinear, Permutation, Transform


def squeezed_shape(shape: Shape, factor: Size) -> Shape:
    """(C, H, W) -> (C fh fw, H/fh, W/fw), the shape after squeezing.

    Raises
    ------
    ConfigError
        If a side is not divisible by its factor.

    Examples
    --------
    >>> squeezed_shape((1, 16, 9), (2, 1))
    (2, 8, 9)
    """
    channels, height, width = checked("shape", shape, Shape)
    checked("factor", factor, Size)
    if height % factor[0] or width % factor[1]:
        raise ConfigError(f"images of shape {shape} cannot be squeezed by {factor}: each side must be divisible")
    return channels * factor[0] * factor[1], height // factor[0], width // factor[1]


def squeeze(shape: Shape, factor: Size) -> Permutation:
    """Space to channels (1605.08803): each tile of fh x fw pixels becomes one pixel with fh fw times the channels.

    On flat vectors that is a permutation. Channel c and place (i, j) in the tile give channel (c fh + i) fw + j.

    Raises
    ------
    ConfigError
        If a side is not divisible by its factor.

    Examples
    --------
    >>> squeeze((1, 2, 4), (1, 2)).order
    tensor([0, 2, 4, 6, 1, 3, 5, 7])
    """
    _, rows, columns = squeezed_shape(shape, factor)
    index = torch.arange(shape[0] * shape[1] * shape[2], device="cpu")
    tiles = index.view(shape[0], rows, factor[0], columns, factor[1])
    return Permutation(tiles.permute(0, 2, 4, 1, 3).flatten())


def channel_mask(shape: Shape) -> Tensor:
    """The coupling mask that transforms the first half of the channels of an image; its complement is `~mask`.

    Raises
    ------
    ConfigError
        If the image has a single channel.

    Examples
    --------
    >>> channel_mask((2, 1, 3))
    tensor([ True,  True,  True, False, False, False])
    """
    channels, height, width = shape
    if channels < 2:
        raise ConfigError(f"images of shape {shape} have no two channels to couple; squeeze them first")
    return (torch.arange(channels, device="cpu") < channels // 2).repeat_interleave(height * width)


class PerPixel(Transform):
    """A transform of C coordinates applied to the channels of every pixel: y_:hw = T(x_:hw); takes no context.

    Parameters
    ----------
    transform
        T, over C coordinates.
    shape
        (C, H, W).

    Raises
    ------
    ShapeError
        If the points are not images of this shape.

    Examples
    --------
    >>> mixing = PerPixel(LULinear(2), (2, 4, 3))
    >>> y, log_det = mixing(torch.zeros(5, 24))
    >>> y.shape, log_det.shape
    (torch.Size([5, 24]), torch.Size([5]))
    """

    def __init__(self, transform: Transform, shape: Shape) -> None:
        super().__init__()
        self.transform = transform
        self.shape = shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self.transform(self._to_pixels(x))
        return self._to_images(y), self._per_image(log_det)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.transform.inverse(self._to_pixels(y))
        return self._to_images(x), self._per_image(log_det)

    def _to_pixels(self, images: Tensor) -> Tensor:
        channels, height, width = self.shape
        if images.dim() != 2 or images.shape[1] != channels * height * width:
            raise ShapeError(f"expected flat images of shape {self.shape}, got points of shape {tuple(images.shape)}")
        return images.reshape(-1, channels, height * width).transpose(1, 2).reshape(-1, channels)

    def _to_images(self, pixels: Tensor) -> Tensor:
        channels, height, width = self.shape
        return pixels.view(-1, height * width, channels).transpose(1, 2).flatten(1)

    def _per_image(self, log_det: Tensor) -> Tensor:
        return log_det.reshape(-1, self.shape[1] * self.shape[2]).sum(dim=1)


class Embedded(Transform):
    """A transform whose context is the embedding of another: T(x; e(context)), with e computed once per call.

    Parameters
    ----------
    transform
        T.
    embedding
        e, a module (n, context_dim) -> (n, context of T) with the attribute `context_dim`.

    Examples
    --------
    >>> inner = PerPixel(LULinear(2), (2, 4, 3))
    >>> Embedded(inner, ConstantMaps(2, (4, 3))).context_dim
    2
    """

    def __init__(self, transform: Transform, embedding: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.embedding = embedding
        self.context_dim = int(embedding.context_dim)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, self.embedding(context))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(y, self.embedding(context))


@settings
class ConvCouplingConfig:
    """Settings of a convolutional coupling flow; the defaults are those of 2405.20407, tables 5 to 7.

    Parameters
    ----------
    unet
        Conditioners, at the resolution after squeezing; their cyclic axis is that of the embedding too.
    squeeze
        Squeezing factor in height and width.
    blocks
        Number of blocks of activation norm, coupling and 1x1 convolution.
    spline
        Must be on the line.
    context_images, context_scalars
        Images (single-channel maps of the size of the data) and numbers in the context, in this order; without images
        the numbers join the U-Nets as constant maps, without an embedding.
    embedding
        Feature maps that the embedding of the context has.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> ConvCouplingConfig(UNetConfig(hidden=4, kernels=((2, 3),)), squeeze=(2, 1), context_scalars=2).blocks
    8
    """

    unet: UNetConfig
    squeeze: Size = (2, 2)
    blocks: Depth = 8
    spline: Spline = field(default_factory=lambda: Spline(bins=8, domain="line", bound=15.0))
    context_images: Natural = 0
    context_scalars: Natural = 0
    embedding: Width = 8

    def __post_init__(self) -> None:
        if self.spline.domain != "line":
            raise ConfigError("convolutional flows are flows on the line: choose Spline(domain='line')")


def conv_flow(shape: Shape, config: ConvCouplingConfig, *, generator: torch.Generator | None = None) -> Flow:
    """A convolutional coupling flow of images (C, H, W) as flat vectors, equally fast in both directions.

    Squeezing, then blocks of activation norm, coupling of half the channels with a U-Net, and invertible 1x1
    convolution; a normal base. Up to the permutations of the channels it is the identity at the start. `generator`
    fixes the initial weights and the permutations; without one a fixed seed is used. The global random state is never
    touched.

    Raises
    ------
    ConfigError
        If the sides of the image are not divisible by the squeezing factor and then by the kernels of the U-Net, or
        fewer than two channels are left.

    Examples
    --------
    >>> unet = UNetConfig(hidden=4, kernels=((4, 3), (2, 1)), cyclic=0)
    >>> flow = conv_flow((1, 16, 9), ConvCouplingConfig(unet, squeeze=(2, 1), blocks=2, context_scalars=2)).eval()
    >>> x, log_q = flow.sample(5, torch.zeros(5, 2), torch.Generator().manual_seed(1))
    >>> x.shape, flow.context_dim
    (torch.Size([5, 144]), 2)
    """
    generator = generator or torch.Generator().manual_seed(0)
    shape = checked("shape", shape, Shape)
    inner = squeezed_shape(shape, config.squeeze)
    mask, size, channels = channel_mask(inner), inner[1:], inner[0]
    embedding: nn.Module | None = None
    maps = 0
    if config.context_images:
        maps = config.embedding
        embedding = ConvEmbedding(
            config.context_images,
            config.context_scalars,
            shape[1:],
            config.squeeze,
            maps,
            generator,
            config.unet.cyclic,
        )
    elif config.context_scalars:
        maps = config.context_scalars
        embedding = ConstantMaps(maps, size)

    def conditioner(d_in: int, d_out: int) -> nn.Module:
        pixels = size[0] * size[1]
        return UNet((d_in // pixels, d_out // pixels), size, config.unet, generator, maps)

    transforms: list[Transform] = [squeeze(shape, config.squeeze)]
    for _ in range(config.blocks):
        mixing = Composition([Permutation.random(channels, generator), LULinear(channels)])
        transforms.append(PerPixel(ActNorm(channels), inner))
        transforms.append(CouplingTransform(mask, conditioner, config.spline))
        transforms.append(PerPixel(mixing, inner))
    whole: Transform = Composition(transforms)
    if embedding is not None:
        whole = Embedded(whole, embedding)
    flow = Flow(StandardNormal(shape[0] * shape[1] * shape[2]), whole)
    return flow.assembled("convolutional", shape=shape, config=config)
