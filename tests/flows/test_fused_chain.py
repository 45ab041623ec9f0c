"""The fused chain of coupling blocks: the laws of a flow, and plain torch as the reference for values and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nisampler.base.device import cpu_threads, point_threads
from nisampler.errors import ConfigError
from nisampler.flows import (
    Composition,
    CouplingConfig,
    CouplingTransform,
    Flow,
    GroupedFlow,
    NetConfig,
    Permutation,
    Spline,
    StandardNormal,
    coupling_flow,
)
from nisampler.flows.fused import chain
from nisampler.flows.fused.plan import ACTIVATIONS, plan_of

AnyFlow = Flow | GroupedFlow
Domain = Literal["unit", "line"]
CONFIGS = st.builds(
    CouplingConfig,
    st.builds(Spline, bins=st.integers(3, 12), domain=st.sampled_from(["unit", "line"]), bound=st.just(2.0)),
    st.builds(
        NetConfig,
        hidden=st.integers(1, 20),
        layers=st.integers(1, 3),
        activation=st.sampled_from(ACTIVATIONS),
        fourier=st.integers(0, 2),
        context_dim=st.integers(0, 2),
        centre=st.booleans(),
    ),
    masks=st.sampled_from(["binary", "random"]),
)
UNIT = CouplingConfig(Spline(bins=5), NetConfig(hidden=12, layers=2))
SIZES = st.sampled_from([1, 5, 64, 70])


def disturbed(flow: Any, seed: int = 3, scale: float = 0.2) -> Any:
    """A flow in double precision whose splines are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    flow.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return flow


def points(flow: AnyFlow, n: int, domain: Domain = "unit", seed: int = 4) -> tuple[Tensor, Tensor | None]:
    """Points of both sides of the edges of the box, and a context or groups."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, flow.dim, generator=generator, dtype=torch.float64)
    x = 6 * x - 3 if domain == "line" else x
    if isinstance(flow, GroupedFlow):
        return x, torch.randint(flow.groups, (n,), generator=generator)
    size = (n, flow.context_dim)
    return x, torch.randn(size, generator=generator, dtype=torch.float64) if flow.context_dim else None


@contextmanager
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A list that gets an entry for each evaluation by the compiled chain: whether it keeps what a gradient needs."""
    found: list[bool] = []
    before = chain._evaluate

    def noted(*arguments: Any, keep: bool) -> Any:
        found.append(keep)
        return before(*arguments, keep=keep)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "_evaluate", noted)
        yield found


@contextmanager
def plainly() -> Iterator[None]:
    """Block by block, with the splines that have a law battery of their own."""
    with mock.patch.object(chain, "_plan_for", return_value=None):
        yield


def everything(
    flow: AnyFlow, x: Tensor, given: Tensor | None, inverse: bool, plain: bool = False
) -> dict[str, Tensor | None]:
    """Values of a direction, and the gradients of a function of them with respect to all that goes in."""
    x = x.clone().requires_grad_()
    wanted: dict[str, Tensor] = {"x": x, **dict(flow.named_parameters())}
    if given is not None and given.is_floating_point():
        given = wanted["context"] = given.clone().requires_grad_()
    with plainly() if plain else nullcontext():
        y, log = (flow.from_latent if inverse else flow.to_latent)(x, given)  # type: ignore[arg-type, operator]
        loss = y.sin().sum() + (log * torch.linspace(0.0, 1.0, len(log), dtype=log.dtype)).sum()
        grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {"y": y.detach(), "log": log.detach(), **dict(zip(wanted, grads, strict=True))}


def worst(found: dict[str, Tensor | None], wanted: dict[str, Tensor | None]) -> float:
    """The largest difference, in units of the largest number of its kind or one."""
    errors = [0.0]
    for name, value in wanted.items():
        other = found[name]
        assert (value is None) == (other is None), name
        if value is not None and other is not None and value.numel():
            errors.append(float((value - other).abs().max() / value.abs().max().clamp(min=1.0)))
    return max(errors)


@given(CONFIGS, st.integers(1, 6), SIZES, st.booleans())
@example(CouplingConfig(Spline(domain="line", bound=2.0), NetConfig(hidden=9, fourier=1, context_dim=2)), 5, 70, True)
@settings(max_examples=40)
def test_values_and_gradients_are_those_of_plain_torch(config: CouplingConfig, dim: int, n: int, inverse: bool) -> None:
    flow = disturbed(coupling_flow(dim, config))
    x, context = points(flow, n, config.spline.domain)  # type: ignore[arg-type]
    found = everything(flow, x, context, inverse)
    assert plan_of(flow.transform) is not None
    assert worst(found, everything(flow, x, context, inverse, plain=True)) < 1e-10
    with torch.no_grad():
        y, log = (flow.from_latent if inverse else flow.to_latent)(x, context)
    assert worst({"y": y, "log": log}, {name: found[name] for name in ("y", "log")}) < 1e-12


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.sampled_from([1, 2, 5]), st.booleans())
@settings(max_examples=20)
def test_groups_are_those_of_plain_torch(counts: list[int], dim: int, inverse: bool) -> None:
    flow = disturbed(GroupedFlow(dim, len(counts), UNIT))
    group = torch.repeat_interleave(torch.tensor(counts))
    group = group[torch.randperm(len(group), generator=torch.Generator().manual_seed(1))]
    x, _ = points(flow, len(group))
    found = everything(flow, x, group, inverse)
    assert worst(found, everything(flow, x, group, inverse, plain=True)) < 1e-10


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_more_points_than_a_tile_holds(grouped: bool, inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_TILE", 32)
    flow = disturbed(GroupedFlow(3, 2, UNIT) if grouped else coupling_flow(3, UNIT))
    x, given = points(flow, 150)
    with fused_calls(monkeypatch) as calls:
        found = everything(flow, x, given, inverse)
    assert calls == [True]
    assert worst(found, everything(flow, x, given, inverse, plain=True)) < 1e-10


@pytest.mark.parametrize("domain", ["unit", "line"])
def test_inverse_and_log_determinant(domain: Domain) -> None:
    net = NetConfig(hidden=12, layers=2, fourier=1, centre=True)
    flow = disturbed(coupling_flow(4, CouplingConfig(Spline(bins=5, domain=domain, bound=2.0), net)))
    x, _ = points(flow, 6, domain)
    z, log_det = flow.to_latent(x)
    back, log_q = flow.from_latent(z)
    assert torch.allclose(back, x, atol=1e-9)
    assert torch.allclose(log_q, flow.base.log_prob(z) + log_det, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.to_latent(x)[0].sum(0), x).movedim(1, 0)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_single_precision_is_as_precise_as_plain_torch(inverse: bool) -> None:
    flow = disturbed(coupling_flow(4, UNIT), scale=0.1)
    x, _ = points(flow, 500)
    exact = everything(flow, x, None, inverse, plain=True)
    flow.float()
    ours, plain = (everything(flow, x.float(), None, inverse, plain) for plain in (False, True))
    for names in ({"y"}, {"log"}, exact.keys() - {"y", "log"}):
        errors = [sum(float((side[name] - exact[name]).abs().mean()) for name in names) for side in (ours, plain)]  # type: ignore[operator]
        assert errors[0] <= 1.5 * errors[1], names


@pytest.mark.parametrize("inverse", [False, True])
def test_double_points_with_single_networks(inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = disturbed(coupling_flow(4, UNIT)).float()
    x, _ = points(flow, 50)
    with fused_calls(monkeypatch) as calls:
        found = everything(flow, x, None, inverse)
    assert calls == [True]
    assert found["y"].dtype == torch.float64  # type: ignore[union-attr]
    assert worst(found, everything(flow, x, None, inverse, plain=True)) < 1e-4
    with torch.no_grad():
        z, _ = flow.to_latent(x)
        assert torch.allclose(flow.from_latent(z)[0], x, atol=1e-10)


@pytest.mark.parametrize("inverse", [False, True])
def test_permutations_between_the_blocks(inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, mask = torch.Generator().manual_seed(1), torch.tensor([True, False, True, False, False])

    def net(n: int, m: int) -> nn.Module:
        return NetConfig(hidden=8, layers=1).build(n, m, generator)

    parts: list[Any] = []
    for _ in range(3):
        parts += [CouplingTransform(mask, net, Spline(bins=4, domain="line")), Permutation.random(5, generator)]
    flow = disturbed(Flow(StandardNormal(5), Composition(parts)))
    x, _ = points(flow, 20, "line")
    with fused_calls(monkeypatch) as calls:
        found = everything(flow, x, None, inverse)
    assert calls == [True]
    assert worst(found, everything(flow, x, None, inverse, plain=True)) < 1e-10


def test_second_derivatives_are_refused_and_first_ones_with_a_graph_are_right() -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    x, _ = points(flow, 5)
    x.requires_grad_()
    (plain,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    (slope,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    assert torch.allclose(slope, plain, atol=1e-12)
    with pytest.raises(ConfigError, match="first derivatives only"):
        slope.sum().backward()


def test_graphs_that_live_side_by_side_do_not_share_memory() -> None:
    flow = disturbed(coupling_flow(3, UNIT))
    weights = list(flow.parameters())
    (x, _), (other, _) = points(flow, 40), points(flow, 40, seed=9)
    expected = torch.autograd.grad(flow.log_prob(x).sum(), weights)
    first, second = flow.log_prob(x).sum(), flow.log_prob(other).sum()
    torch.autograd.grad(second, weights)
    with torch.no_grad():
        flow.log_prob(other)
    for _ in range(2):
        found = torch.autograd.grad(first, weights, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_weights_that_were_changed_meanwhile_are_noticed() -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    loss = flow.log_prob(points(flow, 5)[0]).sum()
    with torch.no_grad():
        next(flow.parameters()).mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_weights_get_no_gradient() -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    first, *others = flow.parameters()
    first.requires_grad_(False)
    flow.log_prob(points(flow, 5)[0]).sum().backward()
    assert first.grad is None
    assert all(parameter.grad is not None for parameter in others)


def _with_hook(flow: Flow) -> Any:
    block: Any = flow.transform.transforms[0]  # type: ignore[union-attr, index]
    return block.net.hidden[0].register_forward_hook(lambda module, inputs, output: 2.0 * output)


def _with_parametrization(flow: Flow) -> Any:
    block: Any = flow.transform.transforms[0]  # type: ignore[union-attr, index]
    return nn.utils.parametrizations.weight_norm(block.net.output)


@pytest.mark.parametrize("change", [_with_hook, _with_parametrization])
def test_what_listens_at_a_part_is_heard(change: Callable[[Flow], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    x, _ = points(flow, 5)
    flow.log_prob(x)
    change(flow)
    with fused_calls(monkeypatch) as calls:
        found = flow.log_prob(x)
    assert calls == []
    with plainly():
        assert torch.allclose(found, flow.log_prob(x), atol=1e-12)


def test_exchanged_parts_and_loaded_masks_are_seen() -> None:
    config = CouplingConfig(Spline(bins=5), NetConfig(hidden=12, layers=2), "random", 2)
    flow, other = (disturbed(coupling_flow(5, config, generator=torch.Generator().manual_seed(k)), k) for k in (1, 2))
    x, _ = points(flow, 5)
    flow.log_prob(x)
    flow.load_state_dict(other.state_dict())
    assert torch.equal(flow.log_prob(x), other.log_prob(x))
    third = disturbed(coupling_flow(5, config), 3)
    flow.transform.transforms[1] = third.transform.transforms[1]  # type: ignore[index, union-attr]
    with plainly():
        expected = flow.log_prob(x)
    assert torch.allclose(flow.log_prob(x), expected, atol=1e-12)


def test_a_copy_makes_its_own_plan() -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    flow.log_prob(points(flow, 5)[0])
    assert "_plan" in flow.transform.__dict__
    assert "_plan" not in copy.deepcopy(flow).transform.__dict__


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_digit(threads: int) -> None:
    flow = disturbed(coupling_flow(4, CouplingConfig())).float()
    x = points(flow, 2000)[0].float()

    def found() -> list[Tensor]:
        loss = flow.log_prob(x)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), list(flow.parameters()))]

    with point_threads(1):
        expected = found()
    with point_threads(threads):
        assert all(torch.equal(a, b) for a, b in zip(found(), expected, strict=True))


def test_products_take_one_thread_whatever_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, seen = disturbed(coupling_flow(3, UNIT)), []
    kernel = chain._kernel("forward", torch.float64, torch.float64)
    assert kernel is not None

    def counted(*arguments: Any) -> None:
        seen.append(torch.get_num_threads())
        kernel(*arguments)

    monkeypatch.setattr(chain, "_kernel", lambda *_: counted)
    with cpu_threads(2), torch.no_grad():
        flow.log_prob(points(flow, 20)[0])
        assert torch.get_num_threads() == 2
    assert seen == [1]


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_nothing_is_lost_without_the_products_of_torch(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = disturbed(coupling_flow(3, UNIT))
    x, _ = points(flow, 20)
    with mode():
        expected = flow.log_prob(x)
        monkeypatch.setattr(chain, "_kernel", lambda *_: None)
        with fused_calls(monkeypatch) as calls:
            found = flow.log_prob(x)
    assert calls == []
    assert torch.allclose(found, expected, atol=1e-12)


def test_what_is_not_finite_shows() -> None:
    flow = disturbed(coupling_flow(2, UNIT))
    with torch.no_grad():
        next(flow.parameters())[0] = torch.nan
    assert bool(flow.log_prob(points(flow, 5)[0]).isnan().all())
