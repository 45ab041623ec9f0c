"""Convolutional flows: the laws of all transforms, squeezing, pixels, embeddings and the assembled flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import (
    ActNorm,
    Composition,
    ConvCouplingConfig,
    CouplingTransform,
    Embedded,
    Flow,
    LULinear,
    NetConfig,
    Permutation,
    PerPixel,
    Spline,
    StandardNormal,
    Transform,
    UNet,
    UNetConfig,
    channel_mask,
    conv_flow,
    squeeze,
    squeezed_shape,
)

SHAPE = (1, 8, 6)
INNER = (4, 4, 3)
DIM = 48
UNET = UNetConfig(hidden=4, kernels=((2, 3), (2, 1)), cyclic=0)
PLAIN = ConvCouplingConfig(UNET, blocks=2)
CONFIGS = {
    "flow": PLAIN,
    "flow-scalars": replace(PLAIN, context_scalars=2),
    "flow-embedding": replace(PLAIN, context_images=2, context_scalars=1, embedding=3),
    "flow-images-only": replace(PLAIN, context_images=1),
    "flow-no-norm": replace(PLAIN, unet=replace(UNET, norm="none", cyclic=1)),
    "flow-group-norm": replace(PLAIN, unet=replace(UNET, norm="group", cyclic=None, activation="silu")),
    "flow-anisotropic": ConvCouplingConfig(UNetConfig(4, ((4, 2),)), squeeze=(1, 3), blocks=2, context_scalars=1),
}


def coupling(generator: torch.Generator, config: UNetConfig = UNET, spline: Spline | None = None) -> CouplingTransform:
    def net(d_in: int, d_out: int) -> nn.Module:
        return UNet((d_in // 12, d_out // 12), (4, 3), config, generator)

    return CouplingTransform(channel_mask(INNER), net, spline or Spline(bins=5, domain="line", bound=3.0))


def one_by_one(generator: torch.Generator) -> Transform:
    return PerPixel(Composition([Permutation.random(4, generator), LULinear(4)]), INNER)


CASES: dict[str, Callable[[torch.Generator], Transform]] = {
    "squeeze": lambda g: squeeze(SHAPE, (2, 2)),
    "actnorm": lambda g: PerPixel(ActNorm(4), INNER),
    "one-by-one": one_by_one,
    "coupling": coupling,
}
EVERY = pytest.mark.parametrize("name", [*CASES, *CONFIGS])


def build(name: str, seed: int = 3) -> tuple[Transform, int]:
    """A fresh transform and the length of its context."""
    generator = torch.Generator().manual_seed(seed)
    if name in CASES:
        return CASES[name](generator), 0
    flow = conv_flow(SHAPE, CONFIGS[name], generator=generator)
    return flow.transform, flow.context_dim


def disturbed(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """All weights moved away from their start, where splines are the identity."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def setup(name: str, n: int = 5) -> tuple[Transform, Tensor, Tensor | None]:
    """A transform after one training batch, which sets its norms, in evaluation mode and double precision."""
    transform, context_dim = build(name)
    disturbed(transform).double().train()
    generator = torch.Generator().manual_seed(2)
    x = 2 * torch.randn(n, DIM, generator=generator, dtype=torch.float64) + 1
    context = torch.randn(n, context_dim, generator=generator, dtype=torch.float64) if context_dim else None
    with torch.no_grad():
        transform(x, context)
    return transform.eval(), x, context


def log_det_by_autograd(
    function: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(log |det J| from the full Jacobian, log_det as returned)."""
    x = x.detach().requires_grad_()
    y, log_det = function(x, context)
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(DIM)]
    return torch.linalg.slogdet(torch.stack(rows, dim=1)).logabsdet, log_det.detach()


@EVERY
def test_inverse(name: str) -> None:
    transform, x, context = setup(name, n=20)
    y, up = transform(x, context)
    back, down = transform.inverse(y, context)
    assert (back - x).abs().max() < 1e-9
    assert torch.allclose(up, -down, atol=1e-8, rtol=0)
    assert up.shape == down.shape == (20,)
    assert (transform(transform.inverse(x, context)[0], context)[0] - x).abs().max() < 1e-9
    assert name == "squeeze" or up.abs().min() > 1e-3, "the transform should not be the identity here"


@EVERY
def test_log_det_against_autograd(name: str) -> None:
    transform, x, context = setup(name)
    for function, points in ((transform, x), (transform.inverse, transform(x, context)[0])):
        exact, claimed = log_det_by_autograd(function, points, context)
        assert torch.allclose(claimed, exact, atol=1e-7, rtol=0)


def test_a_log_det_of_one_pixel_only_would_be_noticed() -> None:
    transform, x, _ = setup("one-by-one")
    exact, claimed = log_det_by_autograd(transform, x, None)
    assert not torch.allclose(claimed / 12, exact, atol=1e-3, rtol=0)


@EVERY
def test_float32(name: str) -> None:
    transform, x, context = setup(name, n=100)
    exact, exact_det = transform(x, context)
    transform, x32 = transform.float(), x.float()
    y, log_det = transform(x32, context)
    back, _ = transform.inverse(y, context)
    assert y.dtype == back.dtype == log_det.dtype == torch.float32
    assert (y - exact).abs().max() < 2e-3
    assert (log_det - exact_det).abs().max() < 2e-2
    assert (back - x32).abs().max() < 2e-3


@EVERY
def test_saved_and_loaded_as_safetensors(name: str) -> None:
    transform, x, context = setup(name)
    copy = build(name, seed=77)[0].double().eval()
    copy.load_state_dict(load(save(transform.state_dict())))
    for a, b in zip(copy(x, context), transform(x, context), strict=True):
        assert torch.equal(a, b)


@EVERY
def test_weights_depend_on_the_generator_alone(name: str) -> None:
    state = torch.random.get_rng_state()
    one, two, other = (build(name, seed)[0].state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was used"
    assert name in ("squeeze", "actnorm") or any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", CONFIGS)
def test_flows_start_as_a_permutation_and_have_finite_gradients(name: str) -> None:
    flow = conv_flow(SHAPE, CONFIGS[name])
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(4, DIM, generator=generator)
    context = torch.randn(4, flow.context_dim, generator=generator) if flow.context_dim else None
    z, log_det = flow.eval().to_latent(x, context)
    assert torch.allclose(z.sort(dim=1).values, x.sort(dim=1).values, atol=1e-4)
    assert log_det.abs().max() < 1e-4
    disturbed(flow, 0.05).train()
    flow.log_prob(x, context).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in flow.parameters())
    sample, log_q = flow.eval().sample(4, context, generator)
    assert torch.allclose(flow.log_prob(sample, context), log_q, atol=2e-2)


@EVERY
def test_an_empty_batch_is_no_problem(name: str) -> None:
    transform, x, context = setup(name)
    for function in (transform, transform.inverse):
        y, log_det = function(x[:0], None if context is None else context[:0])
        assert y.shape == (0, DIM)
        assert log_det.shape == (0,)


@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 3)] * 2))
@settings(max_examples=20, deadline=None)
def test_squeezing_moves_each_tile_to_one_pixel(inner: tuple[int, int, int], factor: tuple[int, int]) -> None:
    shape = (inner[0], inner[1] * factor[0], inner[2] * factor[1])
    new = squeezed_shape(shape, factor)
    assert new == (inner[0] * factor[0] * factor[1], inner[1], inner[2])
    x = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64).expand(2, -1)
    y, log_det = squeeze(shape, factor)(x)
    assert torch.equal(log_det, torch.zeros(2, dtype=torch.float64))
    image, tile = x.view(2, *shape), y.view(2, *new)
    for row, column in ((0, 0), (inner[1] - 1, inner[2] - 1)):
        top, left = row * factor[0], column * factor[1]
        assert torch.equal(
            tile[:, :, row, column], image[:, :, top : top + factor[0], left : left + factor[1]].flatten(1)
        )
    if factor[0] == factor[1]:
        assert torch.equal(tile, functional.pixel_unshuffle(image, factor[0]))


def test_the_activation_norm_whitens_channels_over_all_pixels() -> None:
    x = 3 + 5 * torch.randn(50, DIM, generator=torch.Generator().manual_seed(1))
    y, _ = PerPixel(ActNorm(4), INNER).train()(x)
    channels = y.view(50, 4, 12).transpose(0, 1).flatten(1)
    assert channels.mean(dim=1).abs().max() < 1e-5
    assert (channels.std(dim=1, correction=0) - 1).abs().max() < 1e-5


def test_the_one_by_one_convolution_is_one() -> None:
    transform, x, _ = setup("one-by-one")
    assert isinstance(transform, PerPixel)
    columns = transform.transform(torch.eye(4, dtype=torch.float64))[0]
    bias = transform.transform(torch.zeros(1, 4, dtype=torch.float64))[0]
    weight = (columns - bias).t()[:, :, None, None]
    expected = functional.conv2d(x.view(-1, *INNER), weight, bias[0])
    assert torch.allclose(transform(x)[0], expected.flatten(1), atol=1e-12)


def test_output_channels_of_the_network_are_parameters_of_channels() -> None:
    """Channel p C_A + c holds parameter p of channel c: a bias on it moves channel c only, alike in all pixels."""
    spline = Spline(bins=5, domain="line", bound=3.0)
    block = coupling(torch.Generator().manual_seed(1), spline=spline).double().eval()
    x = torch.full((1, DIM), 0.5, dtype=torch.float64)
    assert isinstance(block.net, UNet)
    bias = block.net.after[0].second.bias
    assert bias.shape == (2 * spline.n_params,)
    for parameter, channel in ((0, 1), (7, 0), (11, 1)):
        with torch.no_grad():
            bias.zero_()[2 * parameter + channel] = 1.0
        change = (block(x)[0] - x).view(INNER)
        assert change[channel].abs().min() > 1e-4
        assert torch.allclose(change[channel], change[channel, 0, 0])
        change[channel] = 0
        assert change.abs().max() < 1e-12


def turned(x: Tensor, shape: tuple[int, int, int], shift: int) -> Tensor:
    return x.view(-1, *shape).roll(shift, dims=2).flatten(1)


@pytest.mark.parametrize("cyclic", [0, None])
def test_flows_commute_with_a_roll_by_the_total_stride(cyclic: int | None) -> None:
    """12 bins, squeezed by 2, strides 3: a roll by 6, a proper divisor; zero padding is the control."""
    shape = (1, 12, 4)
    unet = UNetConfig(4, ((3, 1),), cyclic)  # type: ignore[arg-type]
    config = ConvCouplingConfig(unet, blocks=2, context_images=1, context_scalars=1, embedding=2)
    flow = disturbed(conv_flow(shape, config)).double().eval()
    assert isinstance(flow, Flow)
    generator = torch.Generator().manual_seed(3)
    x, image = torch.randn(2, 3, 48, generator=generator, dtype=torch.float64)
    number = torch.ones(3, 1, dtype=torch.float64)
    z, log_det = flow.to_latent(x, torch.cat([image, number], 1))
    turned_context = torch.cat([turned(image, shape, 6), number], 1)
    z_turned, log_det_turned = flow.to_latent(turned(x, shape, 6), turned_context)
    apart = max(
        float((z_turned - turned(z, (4, 6, 2), 3)).detach().abs().max()),
        float((log_det_turned - log_det).detach().abs().max()),
    )
    assert apart < 1e-9 if cyclic == 0 else apart > 1e-3


def test_batch_norm_joins_the_samples_of_a_training_batch_only() -> None:
    block = coupling(torch.Generator().manual_seed(1))
    disturbed(block)
    x = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(block.train()(x)[0][:3], block(x[:3])[0], atol=1e-4)
    block.eval()
    assert torch.allclose(block(x)[0][:3], block(x[:3])[0], atol=1e-5)


def test_an_embedding_is_computed_once_per_call_and_its_context_counts() -> None:
    flow = conv_flow(SHAPE, CONFIGS["flow-embedding"]).eval()
    transform = flow.transform
    assert isinstance(transform, Embedded)
    calls: list[int] = []
    transform.embedding.register_forward_hook(lambda module, given, result: calls.append(result.shape[1]))
    x, context = torch.zeros(3, DIM), torch.zeros(3, 2 * DIM + 1)
    flow.log_prob(x, context)
    assert calls == [3 * 12]
    flow.from_latent(x, context)
    assert calls == [3 * 12] * 2
    assert flow.context_dim == transform.context_dim == 2 * DIM + 1


def test_the_context_of_a_flow_is_that_of_the_outermost_modules() -> None:
    generator = torch.Generator().manual_seed(1)
    wide = NetConfig(hidden=4, layers=1, context_dim=7)

    class Embedding(nn.Module):
        context_dim = 2

        def forward(self, context: Tensor) -> Tensor:
            return context.repeat(1, 4)[:, :7]

    def block(net: NetConfig) -> Transform:
        mask = torch.tensor([True, False])
        return CouplingTransform(mask, lambda a, b: net.build(a, b, generator), Spline(domain="line"))

    embedded = Embedded(block(wide), Embedding())
    assert Flow(StandardNormal(2), embedded).context_dim == 2
    pair = Composition([embedded, block(replace(wide, context_dim=2))])
    assert Flow(StandardNormal(2), pair).context_dim == 2
    assert Flow(StandardNormal(2), block(wide)).context_dim == 7
    assert Flow(StandardNormal(2), block(replace(wide, context_dim=0))).context_dim == 0


def count(shape: tuple[int, int, int], layers: int, config: ConvCouplingConfig) -> float:
    """Millions of parameters of one flow per layer, each conditioned on up to five layers before and two numbers."""
    total = 0
    for images in range(6):
        flow = conv_flow(shape, replace(config, context_images=images, context_scalars=2))
        flows = 1 if images < 5 else layers - 5
        total += flows * sum(parameter.numel() for parameter in flow.parameters())
    return total / 1e6


PUBLISHED = {
    "getting-high": ((1, 30, 30), 30, ConvCouplingConfig(UNetConfig(32, ((3, 3), (5, 5)))), 163.27),
    "ds3": ((1, 50, 18), 45, ConvCouplingConfig(UNetConfig(32, ((5, 3), (5, 3)), cyclic=0)), 194.96),
    "ds2": ((1, 16, 9), 45, ConvCouplingConfig(UNetConfig(32, ((1, 3), (4, 3)), cyclic=0), squeeze=(4, 1)), 158.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters_are_met_within_one_per_cent(name: str) -> None:
    """Of the causal flows (2405.20407 table 9, 2410.21611); the energy flow adds 0.3 to 0.5 million."""
    shape, layers, config, published = PUBLISHED[name]
    with torch.device("meta"):
        assert count(shape, layers, config) == pytest.approx(published, rel=0.01)
        wider = replace(config, unet=replace(config.unet, hidden=33))
        assert count(shape, layers, wider) > 1.04 * published


def test_wrong_settings_and_shapes_are_refused() -> None:
    for shape, factor in (((1, 5, 4), (2, 2)), ((1, 4, 9), (2, 2)), ((0, 4, 4), (2, 2)), ((1, 4, 4), (0, 1))):
        for function in (squeeze, squeezed_shape):
            with pytest.raises(ConfigError, match=r"squeezed|must be a list of [23] values"):
                function(shape, factor)
    with pytest.raises(ConfigError, match="two channels"):
        channel_mask((1, 4, 4))
    with pytest.raises(ConfigError, match="two channels"):
        conv_flow(SHAPE, replace(PLAIN, squeeze=(1, 1)))
    with pytest.raises(ConfigError, match="divisible"):
        conv_flow(SHAPE, replace(PLAIN, unet=replace(UNET, kernels=((2, 2),))))
    options = ({"blocks": 0}, {"embedding": 0}, {"context_images": -1}, {"context_scalars": -1}, {"squeeze": (2,)})
    for option in (*options, {"squeeze": (0, 2)}, {"spline": Spline()}):
        with pytest.raises(ConfigError, match=f"(?i){next(iter(option))}"):
            replace(PLAIN, **option)  # type: ignore[arg-type]
    for function in (PerPixel(ActNorm(4), INNER), PerPixel(ActNorm(4), INNER).inverse):
        with pytest.raises(ShapeError, match="flat images"):
            function(torch.zeros(2, 4 * 11))


@pytest.mark.parametrize("name", ["flow-scalars", "flow-embedding"])
def test_a_missing_or_misshapen_context_is_refused(name: str) -> None:
    transform, x, context = setup(name)
    assert context is not None
    for wrong in (None, context[:, :-1]):
        for function in (transform, transform.inverse):
            with pytest.raises(ShapeError, match="context"):
                function(x, wrong)
    y, _ = transform(x, context)
    assert not torch.allclose(y, transform(x, context + 1)[0])
