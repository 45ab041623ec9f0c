"""U-Net conditioners and embeddings: cyclic padding, context, layout, norms, named errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import ConstantMaps, ConvEmbedding, UNet, UNetConfig

CONFIG = UNetConfig(hidden=5, kernels=((2, 1), (3, 2)), cyclic=0)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int, size: tuple[int, int], seed: int = 2) -> Tensor:
    return torch.randn(n, channels, *size, generator=generator(seed), dtype=torch.float64)


def network(size: tuple[int, int], config: UNetConfig = CONFIG, context_channels: int = 2) -> UNet:
    """A U-Net from 3 to 4 channels whose last layer is not zero, with running statistics, in evaluation mode."""
    net = UNet((3, 4), size, config, generator(), context_channels).double().train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(5), dtype=torch.float64)
        net(images(4, 3, size).flatten(1), images(4, context_channels, size, 3).flatten(1))
    return net.eval()


def distance_from_commuting(axis: int, cyclic: Literal[0, 1] | None, shift: int) -> float:
    """How far a U-Net on 12 bins of the axis, with a total stride of 6, is from commuting with a roll of that axis."""
    size, kernels = ((12, 4), ((2, 1), (3, 2))) if axis == 0 else ((4, 12), ((1, 2), (2, 3)))
    net = network(size, replace(CONFIG, kernels=kernels, cyclic=cyclic))
    x, context = images(2, 3, size), images(2, 2, size, 7)
    with torch.no_grad():
        y = net(x.flatten(1), context.flatten(1)).reshape(2, 4, *size)
        rolled = net(x.roll(shift, axis + 2).flatten(1), context.roll(shift, axis + 2).flatten(1))
    return float((rolled.reshape(2, 4, *size) - y.roll(shift, axis + 2)).abs().max())


@pytest.mark.parametrize("axis", [0, 1])
def test_a_cyclic_network_commutes_with_a_roll_by_its_total_stride(axis: Literal[0, 1]) -> None:
    assert distance_from_commuting(axis, axis, 6) < 1e-12
    assert distance_from_commuting(axis, None, 6) > 1e-3, "zero padding breaks the symmetry"
    assert distance_from_commuting(axis, 0 if axis else 1, 6) > 1e-3, "and so does the wrong axis"
    assert distance_from_commuting(axis, axis, 3) > 1e-3, "3 bins are no multiple of the stride"


def test_the_other_axis_is_padded_with_zeros() -> None:
    """A first convolution with all weights one sums the neighbours that it sees."""
    net = UNet((1, 1), (4, 4), UNetConfig(1, ((2, 2),), cyclic=0), generator())
    first = net.before[0].first
    torch.nn.init.ones_(first.weight)
    torch.nn.init.zeros_(first.bias)
    sums = first(torch.ones(1, 1, 4, 4))[0, 0]
    assert torch.equal(sums, torch.tensor([6.0, 9.0, 9.0, 6.0]).expand(4, 4))


def test_the_output_starts_at_zero() -> None:
    net = UNet((3, 4), (12, 4), CONFIG, generator())
    y = net(torch.randn(6, 144, generator=generator()))
    assert y.shape == (6, 192)
    assert torch.equal(y, torch.zeros_like(y))


def test_a_float32_network_takes_float64_points() -> None:
    net = network((12, 4)).float()
    x, context = images(2, 3, (12, 4)).flatten(1), images(2, 2, (12, 4), 7).flatten(1)
    assert net(x, context).dtype == torch.float32


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_images_are_independent_in_evaluation_mode(norm: Literal["batch", "group", "none"]) -> None:
    net = network((12, 4), replace(CONFIG, norm=norm), context_channels=0)
    x = images(5, 3, (12, 4)).flatten(1)
    assert torch.allclose(net(x)[:2], net(x[:2]), atol=1e-12)
    together = torch.allclose(net.train()(x)[:2], net(x[:2]), atol=1e-6)
    assert together == (norm != "batch")


def test_the_number_of_parameters_is_that_of_the_layers() -> None:
    """One level with 32 maps, kernel (3, 5), from 10 to 46 channels, by hand."""
    net = UNet((2, 46), (9, 25), UNetConfig(32, ((3, 5),)), generator(), context_channels=8)
    blocks = (10 + 32 + 64) * 32 * 9 + 32 * 46 * 9 + 3 * 32 + 46 + 3 * 64
    strided = 2 * 32 * 64 * 15 + 64 + 32
    assert sum(parameter.numel() for parameter in net.parameters()) == blocks + strided


def test_the_embedding_is_the_published_stack_of_convolutions() -> None:
    net = ConvEmbedding(2, 1, (6, 4), (3, 2), 5, generator()).double()
    context = torch.cat([images(3, 2, (6, 4)).flatten(1), torch.tensor([[0.5], [1.0], [-2.0]])], 1)
    assert net.context_dim == 49
    x = torch.cat([context[:, :48].view(3, 2, 6, 4), context[:, 48:, None, None].expand(3, 1, 6, 4)], 1)
    w = dict(net.named_parameters())
    assert [tuple(value.shape) for value in w.values() if value.dim() == 4] == [
        (5, 3, 1, 1),
        (5, 5, 3, 3),
        (5, 5, 3, 2),
        (5, 5, 3, 3),
    ]
    x = functional.leaky_relu(functional.conv2d(x, w["first.weight"], w["first.bias"]), 0.01)
    x = functional.leaky_relu(functional.conv2d(x, w["second.weight"], w["second.bias"], padding=1), 0.01)
    x = functional.leaky_relu(functional.conv2d(x, w["squeeze.weight"], w["squeeze.bias"], stride=(3, 2)), 0.01)
    x = functional.conv2d(x, w["last.weight"], w["last.bias"], padding=1)
    assert torch.allclose(net(context), x.flatten(1), atol=1e-12)


@pytest.mark.parametrize("cyclic", [0, None])
def test_a_cyclic_embedding_commutes_with_a_roll_by_its_factor(cyclic: int | None) -> None:
    net = ConvEmbedding(1, 0, (6, 4), (2, 2), 3, generator(), cyclic).double()
    x = images(2, 1, (6, 4))
    y, rolled = net(x.flatten(1)).view(2, 3, 3, 2), net(x.roll(2, 2).flatten(1)).view(2, 3, 3, 2)
    assert torch.allclose(rolled, y.roll(1, 2), atol=1e-12) == (cyclic == 0)


def test_numbers_become_constant_maps() -> None:
    numbers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(ConstantMaps(2, (2, 3))(numbers), numbers.repeat_interleave(6, dim=1))


def test_networks_are_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        net = UNet((3, 4), (12, 4), CONFIG, generator(), 2)
        embedding = ConvEmbedding(1, 1, (12, 4), (2, 2), 3, generator())
    assert all(parameter.is_meta for module in (net, embedding) for parameter in module.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": 0},
        {"kernels": ()},
        {"kernels": ((2, 2, 2),)},
        {"kernels": ((2, 0),)},
        {"cyclic": 2},
        {"norm": "layer"},
        {"activation": "step"},
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        replace(CONFIG, **options)


def test_sizes_and_contexts_that_do_not_fit_are_refused() -> None:
    for size in ((12, 3), (8, 4)):
        with pytest.raises(ConfigError, match="not divisible"):
            UNet((3, 4), size, CONFIG, generator())
    with pytest.raises(ConfigError, match="not divisible"):
        ConvEmbedding(1, 1, (6, 4), (4, 2), 3, generator())
    for wrong in ({"images": 0}, {"scalars": -1}, {"channels": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .*must be a whole number"):
            ConvEmbedding(
                **{"images": 1, "scalars": 1, "channels": 3, **wrong},  # type: ignore[arg-type]
                size=(6, 4),
                factor=(2, 2),
                generator=generator(),
            )
    net = network((12, 4))
    embedding, maps = ConvEmbedding(1, 1, (6, 4), (2, 2), 3, generator()), ConstantMaps(2, (3, 2))
    for wrong_context in (None, torch.zeros(2, 5)):
        with pytest.raises(ShapeError, match="context"):
            net(torch.zeros(2, 144), wrong_context)
        with pytest.raises(ShapeError, match="context"):
            embedding(wrong_context)
        with pytest.raises(ShapeError, match="context"):
            maps(wrong_context)
