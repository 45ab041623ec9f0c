"""Every flow can be copied, pickled, sent to other processes, compiled, wrapped, and used under vmap."""

from __future__ import annotations

import copy
import multiprocessing
import pickle  # noqa: TID251
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import get_args

import pytest
import torch
import torch.distributed
from other_process import densities
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nisampler.errors import ShapeError
from nisampler.flows import (
    AutoregressiveConfig,
    ConvCouplingConfig,
    CouplingConfig,
    CudaGraphs,
    Flow,
    GroupedFlow,
    NetConfig,
    Spline,
    UNetConfig,
    VelocityConfig,
    continuous_flow,
    conv_flow,
    coupling_flow,
    iaf,
    maf,
)
from nisampler.flows.nets.mlp import ACTIVATIONS
from nisampler.flows.splines import fused_spline

DIM, CONTEXT = 3, 2
NET = NetConfig(hidden=6, layers=2, context_dim=CONTEXT)
UNIT = Spline(bins=4)
LINE = Spline(bins=4, domain="line", bound=3.0)
VELOCITY = VelocityConfig(hidden=4, layers=1, steps=1, frequencies=1)
VIT = VelocityConfig("velocity-vit", hidden=4, layers=1, heads=2, steps=1, patch=(1, 1, 3), divergence="hutchinson")
IMAGES = ConvCouplingConfig(
    UNetConfig(hidden=4, kernels=((2, 1),), cyclic=1), (2, 1), blocks=1, spline=LINE, context_scalars=CONTEXT
)
EMBEDDED = ConvCouplingConfig(
    UNetConfig(hidden=4, kernels=((2, 1),)), (2, 1), blocks=1, spline=LINE, context_images=1, embedding=2
)
FLOWS: dict[str, Callable[[], Flow]] = {
    **{
        f"coupling-{kind}-{domain}": partial(
            coupling_flow, DIM, CouplingConfig(Spline(kind, 4, domain, 3.0), NET, blocks=2)
        )  # type: ignore[arg-type]
        for kind in ("linear", "quadratic", "cubic", "rational_quadratic")
        for domain in ("unit", "line", "circle")
    },
    **{
        f"coupling-{name}": partial(coupling_flow, DIM, CouplingConfig(UNIT, NetConfig("mlp", 6, 1, name)))
        for name in ACTIVATIONS
    },
    "coupling-residual": partial(coupling_flow, DIM, CouplingConfig(UNIT, NetConfig("residual", 6, 1))),
    "coupling-bayesian": partial(coupling_flow, DIM, CouplingConfig(UNIT, NetConfig("bayesian", 6, 1))),
    "coupling-fourier": partial(coupling_flow, DIM, CouplingConfig(UNIT, NetConfig(hidden=6, layers=1, fourier=2))),
    "coupling-random": partial(coupling_flow, DIM, CouplingConfig(UNIT, NetConfig(hidden=6, layers=1), "random", 2)),
    "coupling-small": partial(coupling_flow, 2, CouplingConfig(UNIT, NetConfig(hidden=4, layers=1), blocks=1)),
    "maf": partial(maf, DIM, AutoregressiveConfig(LINE, NET, 2)),
    "maf-residual": partial(maf, DIM, AutoregressiveConfig(UNIT, NetConfig("residual", 6, 1), 2, "random")),
    "iaf": partial(iaf, DIM, AutoregressiveConfig(LINE, NET, 2, "alternate", (1, 2))),
    "images": partial(conv_flow, (1, 4, 3), IMAGES),
    "images-embedded": partial(conv_flow, (1, 4, 3), EMBEDDED),
    "continuous": partial(continuous_flow, DIM, VELOCITY, CONTEXT),
    "continuous-vit": partial(continuous_flow, DIM, VIT, CONTEXT, grid=(1, 1, 3)),
}
COMPILED = ("coupling-cubic-circle", "coupling-bayesian", "maf", "images", "continuous")
# Torch's fused attention has first derivatives only: densities of this flow have no gradient.
TRANSFORMER = "continuous-vit"
EVERY = pytest.mark.parametrize("name", FLOWS)


def of_torch(test: Callable[..., None]) -> Callable[..., None]:
    """Lets pass what torch's compiler warns of while it looks at its own classes and at tensors of a graph."""
    for message in ("ignore:.*should not be instantiated", "ignore:The .grad attribute"):
        test = pytest.mark.filterwarnings(message)(test)
    return test


def build(name: str) -> Flow:
    """A flow in evaluation mode whose weights are not those of its start."""
    flow = FLOWS[name]()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return flow.eval()


def given(flow: Flow, n: int = 6) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(8)
    x = torch.rand(n, flow.dim, generator=generator)
    return x, torch.randn(n, flow.context_dim, generator=generator) if flow.context_dim else None


def both(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return flow.log_prob(x, context), flow.from_latent(x, context)[0]


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@EVERY
def test_copied_and_pickled(name: str) -> None:
    flow = build(name)
    flow.graphs = CudaGraphs()
    expected = both(flow, *given(flow))
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert same(both(other, *given(flow)), expected)
        next(other.parameters()).data += 1.0
    assert same(both(flow, *given(flow)), expected)


def test_sent_to_a_process_pool() -> None:
    flows = [build(name) for name in FLOWS]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(densities, flows))
    here = [densities(flow) for flow in flows]
    assert {pid for pid, _ in found}.isdisjoint({pid for pid, _ in here})
    for (_, there), (_, own), name in zip(found, here, FLOWS, strict=True):
        assert there == pytest.approx(own, abs=1e-5), name


@EVERY
def test_one_context_for_all_points(name: str) -> None:
    flow = build(name)
    x, context = given(flow)
    if context is None:
        with pytest.raises(ShapeError, match="context"):
            flow.log_prob(x, torch.zeros(1))
        return
    every = context[:1].repeat(len(x), 1)
    for one in (context[0], context[:1]):
        assert same(both(flow, x, one), both(flow, x, every))
    assert not torch.equal(both(flow, x, context)[0], both(flow, x, every)[0]), "the context matters"
    with pytest.raises(ShapeError, match="context"):
        flow.log_prob(x, context[:2])


@pytest.mark.parametrize("name", [name for name in FLOWS if name != TRANSFORMER])
def test_vmap_and_derivatives_of_functions(name: str) -> None:
    """vmap over points, over stacked weights, and over gradients with respect to single points."""
    flow = build(name)
    x, context = given(flow)
    axes = (0, None if context is None else 0)
    expected = flow.log_prob(x, context)

    def single(x: Tensor, context: Tensor | None) -> Tensor:
        return flow.log_prob(x.unsqueeze(0), context).squeeze(0)

    assert torch.allclose(torch.vmap(single, axes)(x, context), expected, atol=2e-5)
    gradients = torch.vmap(torch.func.grad(single), axes)(x, context)
    points = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(flow.log_prob(points, context).sum(), points)
    assert torch.allclose(gradients, wanted, atol=2e-4, rtol=2e-4)

    other = FLOWS[name]().eval()
    weights, buffers = torch.func.stack_module_state([flow, other])

    def density(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(flow, (weights, buffers), (x, context))
        return found

    if "random" not in name and name not in ("maf-residual", "images", "images-embedded"):  # their orders differ
        stacked = torch.vmap(density)(weights, buffers)
        assert torch.allclose(stacked, torch.stack([expected, other.log_prob(x, context)]), atol=2e-5)


@pytest.fixture(scope="module")
def single_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@EVERY
def test_distributed_data_parallel(name: str, single_process: None) -> None:
    flow = build(name)
    x, context = given(flow)
    wrapped = DistributedDataParallel(flow)
    found = wrapped(x, context)
    assert torch.equal(found, flow.log_prob(x, context))
    if name == TRANSFORMER:
        return
    (-found.mean()).backward()
    used = [p for key, p in flow.named_parameters() if not key.endswith("log_variance")]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in used)


@of_torch
@pytest.mark.parametrize("backend", get_args(fused_spline.Backend))
def test_compiled_with_and_without_the_fused_kernel(backend: fused_spline.Backend) -> None:
    """Value and gradients of both directions through the compiler's tracing; its last step is torch's own affair."""
    torch.compiler.reset()
    flow = build("coupling-small")
    x, context = given(flow)

    def loss(x: Tensor) -> Tensor:
        y, log_q = flow.from_latent(x, context)
        return flow.log_prob(x, context).sum() + log_q.sum() + y.square().sum()

    with fused_spline.using(backend):
        weights = list(flow.parameters())
        expected = loss(x)
        wanted = torch.autograd.grad(expected, weights, allow_unused=True)
        found = torch.compile(loss, backend="aot_eager", fullgraph=True)(x)
        gradients = torch.autograd.grad(found, weights, allow_unused=True)
    assert torch.allclose(found, expected, atol=1e-4)
    for a, b in zip(gradients, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-3, rtol=1e-3)


@of_torch
@pytest.mark.parametrize("name", COMPILED)
def test_traced_by_the_compiler(name: str) -> None:
    torch.compiler.reset()
    flow = build(name)
    x, context = given(flow)
    found = torch.compile(flow, backend="eager")(x, context)
    assert torch.allclose(found, flow.log_prob(x, context), atol=1e-5)


@of_torch
def test_grouped_flows_too(single_process: None) -> None:
    """Tiles hang on how many points each group has, so that a grouped flow is no subject of vmap."""
    flow: nn.Module = GroupedFlow(DIM, 2, CouplingConfig(UNIT, NetConfig(hidden=6, layers=1)))
    x, group = torch.rand(5, DIM, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1, 0, 1])
    expected = flow(x, group)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), DistributedDataParallel(flow)):
        assert torch.equal(other(x, group), expected)
    torch.compiler.reset()
    assert torch.allclose(torch.compile(flow, backend="eager")(x, group), expected, atol=1e-5)
