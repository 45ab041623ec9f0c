"""AdamW over one row of numbers: the steps of torch's AdamW, whatever has a gradient and wherever it lies."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nisampler.base.flat_adamw import FlatAdamW, leaf_of, shrinking
from nisampler.base.optim import Stepper, adamw
from nisampler.errors import ConfigError

TORCH = partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1)


class _Joined(torch.autograd.Function):
    """The sum of squares of several tensors, whose gradients lie side by side."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        return torch.stack([part.square().sum() for part in parts]).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        flat = torch.cat([2.0 * grads[0] * part.reshape(-1) for part in ctx.saved_tensors])
        rows = flat.split([part.numel() for part in ctx.saved_tensors])
        return tuple(row.view_as(part) for row, part in zip(rows, ctx.saved_tensors, strict=True))


def joined(parameters: list[Tensor]) -> Tensor:
    leaf = leaf_of(parameters)
    found: Tensor = _Joined.apply(*(parameters if leaf is None else [leaf]))  # type: ignore[no-untyped-call]
    return found


def module() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 1)).double()


def plain(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    found: Tensor = net(x).square().mean()
    return found


def of_some(net: nn.Module, step: int) -> Tensor:
    return plain(net, step) if step % 3 else next(net.parameters()).square().sum()


def together(net: nn.Module, step: int) -> Tensor:
    return joined(list(net.parameters())[:4])


def together_and_alone(net: nn.Module, step: int) -> Tensor:
    return joined(list(net.parameters())[:4]) + (plain(net, step) if step % 2 else 0.0)


@pytest.mark.parametrize("clip", [math.inf, 0.05])
@pytest.mark.parametrize("loss", [plain, of_some, together, together_and_alone])
def test_steps_are_those_of_torch(loss: Any, clip: float) -> None:
    trained, numbers = [], []
    for optimizer in (adamw(0.05, 0.1), TORCH):
        net = module()
        stepper = Stepper(net, optimizer, clip=clip)
        values = []
        for step in range(8):
            with stepper.collecting():
                value = loss(net, step)
            values.append(stepper.step(value, step / 8))
        numbers.append(values)
        trained.append([parameter.detach() for parameter in net.parameters()])
    assert isinstance(Stepper(module(), adamw(0.1)).optimizer, FlatAdamW)
    assert torch.allclose(torch.tensor(numbers[0]), torch.tensor(numbers[1]), rtol=1e-9)
    for ours, theirs in zip(*trained, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_common_gradient_gives_the_same_bytes() -> None:
    found = []
    for collect in (False, True):
        net = module()
        stepper = Stepper(net, adamw(0.05), clip=0.1)
        for step in range(4):
            with stepper.collecting() if collect else nullcontext():
                value = together(net, step)
            stepper.step(value, 0.0)
        found.append(torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()]))
    assert torch.allclose(found[0], found[1], rtol=1e-12)


def test_states_go_on_with_torch_and_back() -> None:
    steppers = [Stepper(module(), adamw(0.05, 0.1)), Stepper(module(), TORCH)]
    for step in range(3):
        steppers[0].step(plain(steppers[0].module, step), 0.0)
    steppers[1].load_state(steppers[0].state())
    for step in range(3, 6):
        for stepper in steppers:
            stepper.step(plain(stepper.module, step), 0.0)
    steppers[0].load_state(steppers[1].state())
    values = [stepper.step(plain(stepper.module, 6), 0.0)[0] for stepper in steppers]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert steppers[0].state().keys() == steppers[1].state().keys()


def test_a_graph_from_before_a_step_is_refused() -> None:
    net = module()
    stepper, old = Stepper(net, adamw(0.05)), plain(net, 0)
    stepper.step(plain(net, 1), 0.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        old.backward()


def test_gradients_outside_of_a_step_are_as_ever() -> None:
    net = module()
    stepper, (first, *_) = Stepper(net, adamw(0.05)), net.parameters()
    with stepper.collecting():
        pass
    (found,) = torch.autograd.grad(together(net, 0), first)
    assert torch.equal(found, 2.0 * first)


def test_weights_that_were_put_elsewhere_are_gathered_again() -> None:
    net = module()
    stepper = Stepper(net, adamw(0.05))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.data = parameter.data.clone()
    before = copy.deepcopy(net)
    value = stepper.step(plain(net, 0), 0.0)[0]
    assert value == float(plain(before, 0).detach())
    assert all(not torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))
    net.float()
    with pytest.raises(ConfigError, match="moved or cast"):
        stepper.step(net(torch.zeros(1, 3)).sum(), 0.0)


def test_frozen_parameters_stay() -> None:
    net = module()
    stepper, (first, *others) = Stepper(net, adamw(0.05, 0.1)), net.parameters()
    first.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in (first, *others)]
    with stepper.collecting():
        assert leaf_of([first, others[0]]) is None
        stepper.step(plain(net, 0), 0.0)
    assert torch.equal(first, before[0])
    assert not any(torch.equal(a, b) for a, b in zip(others, before[1:], strict=True))


def test_parameters_of_two_kinds_are_left_to_torch() -> None:
    mixed = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1).double()])
    assert isinstance(Stepper(mixed, adamw(0.1)).optimizer, torch.optim.AdamW)
    with pytest.raises(ConfigError, match="one dtype"):
        FlatAdamW(mixed.parameters())


def test_shrinking_is_that_of_torch() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    for norm in (0.3, 5.0):
        parameter.grad = torch.tensor([norm, 0.0])
        expected = torch.tensor([norm, 0.0]) / shrinking(norm, 1.0)
        nn.utils.clip_grad_norm_([parameter], 1.0)
        assert torch.allclose(parameter.grad, expected)
