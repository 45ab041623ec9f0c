"""A chain of coupling blocks evaluated and differentiated as one operation on the CPU.

Points go through all blocks tile by tile in compiled code, which calls the matrix products of torch's own library.
Autograd sees one operation, whose gradient is written by hand. What this does not cover is left to the plain path:
then the functions here give None.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.base import notices
from nisampler.base.device import cpu_threads
from nisampler.base.flat_adamw import leaf_of
from nisampler.base.machine_code import Kernel
from nisampler.flows.distributions import traced
from nisampler.flows.fused.plan import COLUMNS, Plan, plan_of
from nisampler.flows.fused.products import lent
from nisampler.flows.fused.work import matrices, size_of
from nisampler.flows.splines import fused_spline
from nisampler.flows.splines.rational_quadratic import MIN_SIZE, MIN_SLOPE

Pair = tuple[Tensor, Tensor]
Plain = Callable[[Tensor, Any], Pair]
# Points of a tile.
_TILE = 512
_KINDS: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_BINS: Any = np.dtype(np.int16)


@dataclass
class _Call:
    """One evaluation: the chain, its direction, tiles (group, first, last) of points in some order, and plain torch.

    `space` is memory that the gradient will need, and `flat` the weights in one row.
    """

    plan: Plan
    composition: nn.Module
    plain: Plain
    inverse: bool
    tiles: Any
    order: Tensor | None
    flat: Any = None
    space: tuple[Any, ...] = field(default=())


class _Plain(nn.Module):
    """A direction of a composition as a module, so that it can be called with other weights."""

    def __init__(self, composition: nn.Module, plain: Plain) -> None:
        super().__init__()
        self.composition, self.plain = composition, plain

    def forward(self, x: Tensor, context: Tensor | None) -> Pair:
        return self.plain(x, context)


def coupling_chain(composition: Any, x: Tensor, context: Tensor | None, inverse: bool) -> Pair | None:
    """A direction of a composition at points x (n, d), or None where the plain path has to be taken.

    >>> from nisampler.flows import coupling_flow
    >>> coupling_chain(coupling_flow(2).transform, torch.zeros(3, 2, dtype=torch.float16), None, False) is None
    True
    """
    plan = _plan_for(composition, x)
    if plan is None or plan.grouped or (context is None and plan.context_dim):
        return None
    n = len(x)
    tiles = np.array([(0, first, min(first + _TILE, n)) for first in range(0, n, _TILE)], np.int64)
    plain = composition.inverse if inverse else composition
    return _run(_Call(plan, composition, plain, inverse, tiles, None), x, context)


def grouped_chain(composition: Any, x: Tensor, group: Tensor, inverse: bool, plain: Plain) -> Pair | None:
    """The same for points x (n, d) that belong to groups (n,) with weights of their own.

    >>> from nisampler.flows import GroupedFlow
    >>> x, group = torch.zeros(3, 2, dtype=torch.float16), torch.zeros(3, dtype=torch.long)
    >>> grouped_chain(GroupedFlow(2, 1).transform, x, group, False, lambda x, group: (x, x)) is None
    True
    """
    plan = _plan_for(composition, x)
    if plan is None or not plan.grouped:
        return None
    tiles, first = [], 0
    for number, count in enumerate(torch.bincount(group, minlength=plan.groups).tolist()):
        tiles += [(number, first + k, first + min(k + _TILE, count)) for k in range(0, count, _TILE)]
        first += count
    order = None if plan.groups == 1 else torch.argsort(group, stable=True)
    return _run(_Call(plan, composition, plain, inverse, np.array(tiles, np.int64), order), x, group)


@cache
def _kernel(name: str, points: torch.dtype, weights: torch.dtype) -> Kernel | None:
    """The compiled chain for numbers of these types; None where that fails, or torch does not lend its products.

    The plain path then asks for the splines alone and says what is wrong.
    """
    try:
        if not lent():
            return None
        with notices.if_slow(fused_spline.COMPILING):
            return Kernel(fused_spline.FILE, f"{name} {_KINDS[points].str[1:]} {_KINDS[weights].str[1:]}")
    except Exception:
        # An installed compiler can fail in any way: libraries that do not fit, no place to write, an unknown processor.
        return None


def examples(points: str, weights: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of the compiled functions for points and weights of these types, by the names of the functions.

    >>> {name: len(arguments) for name, arguments in examples("f8", "f4").items()}
    {'forward': 14, 'backward': 17}
    """
    wide, narrow = np.empty((1, 1), points), np.empty((1, 1), weights)
    table, tiles, some = np.empty((0, len(COLUMNS)), np.int64), np.empty((0, 3), np.int64), np.empty(1, np.int64)
    shape = fused_spline.Shape(3, 0, MIN_SIZE, MIN_SIZE, MIN_SLOPE, 0.0)
    space, form = (narrow[None], wide[None], np.empty((1, 1, 1), _BINS)), (shape, 0, 1)
    work, scratch = (wide[0], narrow[0]), (narrow, wide, np.empty(1, np.uint8))
    before, settings = (tiles, 1, table, some, narrow[0]), (1, False, form, work)
    return {
        "forward": (wide, wide, wide[0], *before, narrow, space, *settings),
        "backward": (wide, wide[0], wide, *before, narrow[0], narrow, space, scratch, *settings, False),
    }


def _plan_for(composition: nn.Module, x: Tensor) -> Plan | None:
    """The plan of a composition, where it serves for these points."""
    if traced() or not x.is_cpu or not fused_spline.compilable(x):
        return None
    if type(x) not in (Tensor, nn.Parameter) or torch._C._get_tracing_state() or torch._C._len_torch_dispatch_stack():
        return None
    plan = plan_of(composition)
    weights = None if plan is None else plan.weights()
    if plan is None or weights is None:
        return None
    dtype = weights[0].dtype
    lowered = dtype == torch.float32 and torch.is_autocast_enabled("cpu")
    if dtype not in _KINDS or lowered or (x.dtype, dtype) == (torch.float32, torch.float64):
        return None
    if not all(type(w) in (nn.Parameter, Tensor) and w.dtype == dtype and w.is_cpu for w in weights):
        return None
    wanted = ("forward", "backward") if torch.is_grad_enabled() else ("forward",)
    return None if any(_kernel(name, x.dtype, dtype) is None for name in wanted) else plan


def _launch(name: str, points: torch.dtype, weights: torch.dtype, *arguments: Any) -> None:
    """Call a kernel that `_plan_for` has seen, with one thread: each product is too small to be shared out."""
    kernel = _kernel(name, points, weights)
    if kernel is None:
        raise RuntimeError(f"no compiled {name} for {points}")
    with cpu_threads(1) if torch.get_num_threads() > 1 else nullcontext():
        kernel(*arguments)


def _run(call: _Call, x: Tensor, context: Tensor | None) -> Pair:
    """Evaluate, with a record for autograd where one is wanted."""
    weights = call.plan.weights() or []
    inputs = [x, *weights] if context is None else [x, context, *weights]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        leaf = leaf_of(weights)
        given = weights if leaf is None else [leaf]
        found: Pair = _Chain.apply(call, x, context, *given)  # type: ignore[no-untyped-call]
        return found
    with torch.no_grad():
        return _evaluate(call, x, context, weights, keep=False)


class _Chain(torch.autograd.Function):
    """The chain as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, context: Tensor | None, *weights: Tensor) -> Pair:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, context, *weights)
        return _evaluate(call, x, context, list(weights), keep=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, context, *weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return (None, *_differentiable(ctx.call, (x, context, *weights), needs, grads))
        with torch.no_grad():
            return (None, *_gradient(ctx.call, (x, context, *weights), needs, grads))


def _differentiable(
    call: _Call, inputs: tuple[Any, ...], needs: tuple[bool, ...], grads: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradient with a graph of its own, by the plain path."""
    x, context, *weights = inputs
    with torch.enable_grad():
        own = call.plan.weights() or []
        if len(weights) < len(own):
            parts = torch.split(weights[0], [weight.numel() for weight in own])
            weights = [part.view_as(weight) for part, weight in zip(parts, own, strict=True)]
        names = (f"composition.{name}" for name in call.plan.names)
        given = dict(zip(names, weights, strict=True))
        outputs = torch.func.functional_call(_Plain(call.composition, call.plain), given, (x, context))
        used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if grad is not None]
        wanted = [tensor for tensor, need in zip(inputs, needs, strict=True) if need]
        found = iter(
            torch.autograd.grad(
                *([out for out, _ in used], wanted, [grad for _, grad in used]), create_graph=True, allow_unused=True
            )
        )
    return [next(found) if need else None for need in needs]


def _in_a_row(weights: list[Tensor]) -> Tensor:
    """All weights one after the other: where they lie, if they do so already, as those of `FlatAdamW`, or as a copy."""
    start, step = weights[0].data_ptr(), weights[0].element_size()
    place = start
    for weight in weights:
        if weight.data_ptr() != place or not weight.is_contiguous():
            return torch.cat([weight.detach().reshape(-1) for weight in weights])
        place += weight.numel() * step
    first, size = weights[0].detach(), (place - start) // step
    if first.untyped_storage().nbytes() - first.storage_offset() * step < place - start:  # neighbours by chance
        return torch.cat([weight.detach().reshape(-1) for weight in weights])
    return first.as_strided((size,), (1,))


def _columns(call: _Call, x: Tensor) -> Tensor:
    """Points (n, d) as (d, n), sorted by group."""
    columns = x.detach().t()
    return columns.contiguous() if call.order is None else columns.index_select(1, call.order)


def _unsorted(call: _Call, columns: Tensor, dim: int) -> Tensor:
    """Numbers of sorted points in the order of the points, along this axis."""
    return columns if call.order is None else torch.empty_like(columns).index_copy_(dim, call.order, columns)


def _given(call: _Call, context: Tensor | None, n: int, dtype: torch.dtype) -> Any:
    """The context as the kernels take it, (c, n)."""
    if context is None or not call.plan.context_dim:
        return torch.empty(0, n, dtype=dtype)
    return context.detach().t().to(dtype).contiguous()


def _evaluate(call: _Call, x: Tensor, context: Tensor | None, weights: list[Tensor], keep: bool) -> Pair:
    plan, dtype = call.plan, weights[0].dtype
    columns = _columns(call, x)
    y, log_det = torch.empty_like(columns), columns.new_empty(len(x))
    call.flat = _in_a_row(weights)
    table, rows, needed = plan.table(call.inverse, keep)
    most = int((call.tiles[:, 2] - call.tiles[:, 1]).max())
    count, length = (len(call.tiles) if keep else 1), -(-most // 16) * 16
    kinds = (_KINDS[dtype], _KINDS[x.dtype], _BINS)
    piece = plan.spare.borrowed(size_of(count, length, needed, kinds))
    call.space = matrices(piece, count, length, needed, kinds)
    given, mode = _given(call, context, len(x), dtype), 2 if keep and x.dtype == dtype else 1
    arrays = columns, y, log_det, call.tiles, plan.groups, table, rows, call.flat, given
    work = fused_spline.workspace(plan.form[0].bins, _KINDS[x.dtype], _KINDS[dtype])
    _launch("forward", x.dtype, dtype, *arrays, call.space, mode, call.inverse, plan.form, work)
    if keep:
        weakref.finalize(call, plan.spare.give_back, piece).atexit = False
    else:
        plan.spare.give_back(piece)
    results = plan.directions[call.inverse].results
    y = y if results is None else y.index_select(0, results)
    return _unsorted(call, y, 1).t(), _unsorted(call, log_det, 0)


def _gradient(
    call: _Call, inputs: tuple[Any, ...], needs: tuple[bool, ...], grads: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    x, context, *weights = inputs
    plan, dtype, results = call.plan, weights[0].dtype, call.plan.directions[call.inverse].results
    g_y = x.new_zeros(x.shape[1], len(x)) if grads[0] is None else _columns(call, grads[0].to(x.dtype))
    if results is not None:
        g_y = torch.empty_like(g_y).index_copy_(0, results, g_y)
    g_log = x.new_zeros(len(x)) if grads[1] is None else grads[1].to(x.dtype)
    g_log = g_log.contiguous() if call.order is None else g_log.index_select(0, call.order)
    make = torch.zeros if plan.grouped else torch.empty
    g_flat, g_x = make(len(call.flat), dtype=dtype), torch.empty_like(g_y)
    inner, with_context = needs[0] or needs[1], context is not None and plan.context_dim > 0
    g_given = torch.zeros(plan.context_dim if with_context else 0, len(x), dtype=dtype)
    table, rows, _ = plan.table(call.inverse, True)
    kinds, wanted, length = (_KINDS[dtype], _KINDS[x.dtype]), plan.scratch(), call.space[0].numbers[-1]
    piece = plan.spare.borrowed(size_of(1, length, wanted, kinds))
    done = np.empty(plan.groups, np.uint8)
    scratch = (*matrices(piece, None, length, wanted, kinds), done)
    arrays = g_y, g_log, g_x, call.tiles, plan.groups, table, rows, call.flat, g_flat
    mode = 2 if x.dtype == dtype else 1
    work = fused_spline.workspace(plan.form[0].bins, _KINDS[x.dtype], _KINDS[dtype])
    settings = call.space, scratch, mode, call.inverse, plan.form, work, inner
    _launch("backward", x.dtype, dtype, *arrays, g_given, *settings)
    plan.spare.give_back(piece)
    parts = torch.split(g_flat, [weight.numel() for weight in weights])
    own = [part.view_as(w) if need else None for part, w, need in zip(parts, weights, needs[2:], strict=True)]
    outer = g_given.t().to(context.dtype) if context is not None and needs[1] else None
    return [_unsorted(call, g_x, 1).t() if needs[0] else None, outer, *own]
