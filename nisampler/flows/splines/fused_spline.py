"""The fused rational-quadratic spline: one operator with a kernel for the CPU, one for the GPU, and their gradient.

`torch.ops.nisampler.rational_quadratic` takes raw parameters to values and log slopes in one pass. On the CPU its
kernel comes with the package and llvmlite makes it into code of the processor, on a GPU Triton compiles it. Where
neither is installed or works, and for other numbers than single and double precision, `rational_quadratic` does the
same in plain torch; `using` chooses by hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nisampler.base import notices
from nisampler.base.checks import checked
from nisampler.base.device import threads_for_points
from nisampler.base.extras import install
from nisampler.base.kernels import FastPathWarning as FastPathWarning
from nisampler.base.machine_code import Kernel
from nisampler.errors import ConfigError
from nisampler.flows.splines.rational_quadratic import (
    BOUNDARIES,
    MIN_SIZE,
    MIN_SLOPE,
    Boundary,
    count_bins,
    rational_quadratic,
)

Backend = Literal["auto", "reference"]
# Fewest points for which several threads are worth their start, and the most bins that a number of a bin can name.
_THREADED, _MOST_BINS = 8192, 32_767
FILE = Path(__file__).with_name("kernels.safetensors")
"""Compiled functions of flows, which `nisampler.flows.fused.shipping` writes."""
BLOCK, ROWS = 128, 21
"""Samples that kernels take at once, and rows of their scratch, to which the shares of the bins are added."""

_chosen: Backend = "auto"


class Shape(NamedTuple):
    """What a spline looks like, as the kernels read it.

    Attributes
    ----------
    bins
        Number of bins K.
    boundary
        0: both end slopes are learned; 1: they are one; 2: they are equal.
    min_width, min_height, min_slope
        Least size of a bin along either axis, and least slope at a knot.
    bound
        Half width of the box outside of which points stay what they are; 0 for the unit interval, where points outside
        are clamped.

    Examples
    --------
    >>> Shape(10, 0, MIN_SIZE, MIN_SIZE, MIN_SLOPE, 0.0).bins
    10
    """

    bins: int
    boundary: int
    min_width: float
    min_height: float
    min_slope: float
    bound: float


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Choose how splines are evaluated: "auto", fused where a kernel is there, or "reference".

    Raises
    ------
    ConfigError
        If there is no such backend.

    Examples
    --------
    >>> with using("reference"):
    ...     fused(torch.zeros(1))
    False
    """
    global _chosen
    before, _chosen = _chosen, checked("backend", backend, Backend)
    try:
        yield
    finally:
        _chosen = before


def fused(x: Tensor) -> bool:
    """Whether splines of such points run in the fused kernel.

    >>> fused(torch.zeros(0)), fused(torch.zeros(1, dtype=torch.float16))
    (False, False)
    """
    if not compilable(x):
        return False
    compiler = {"cpu": "llvmlite", "cuda": "triton"}.get(x.device.type)
    return compiler is not None and _usable(compiler, x.dtype == torch.float32)


def compilable(x: Tensor) -> bool:
    """Whether points are such that compiled code takes them, and nobody has chosen the reference.

    >>> compilable(torch.zeros(1)), compilable(torch.zeros(1, dtype=torch.float16))
    (True, False)
    """
    return _chosen != "reference" and x.dtype in (torch.float32, torch.float64) and x.numel() > 0


def _usable(compiler: str, single: bool) -> bool:
    """Whether a compiler works here, which torch.compile asks once."""
    return _works(compiler, single)


# What torch.compiler.assume_constant_result does, which imports all of torch's compiler: two seconds at every start.
_usable._dynamo_marked_constant = True  # type: ignore[attr-defined]


COMPILING = "compiling the kernels of flows for this machine, once; `nisampler warmup` does it beforehand"
"""What is said when kernels are not there yet."""


@cache
def _works(compiler: str, single: bool) -> bool:
    """Looks for a compiler and, on the CPU, tries its kernels in this precision; says once what is wrong."""
    command = install("fast") if compiler == "llvmlite" else "pip install triton"
    try:
        if importlib.util.find_spec(compiler) is None:
            reason = f"than with {compiler}: {command}"
        else:
            if compiler == "llvmlite":
                with notices.if_slow(COMPILING):
                    kind = "f4" if single else "f8"
                    for name, arguments in examples(kind, kind).items():
                        _kernel(name, kind, kind)(*arguments)
            else:
                _triton()
            return True
    except Exception as error:
        # An installed compiler can fail in any way: libraries that do not fit, no place to write, an unknown processor.
        text = " ".join(str(error).split())
        reason = f"because {compiler} does not work here ({type(error).__name__}: {text[:200]}); mend or uninstall it"
    warnings.warn(f"splines run in plain torch, several times slower, {reason}", FastPathWarning, stacklevel=3)
    return False


@cache
def _kernel(name: str, points: str, raw: str) -> Kernel:
    return Kernel(FILE, f"{name} {points} {raw}")


def examples(points: str, raw: str) -> dict[str, tuple[Any, ...]]:
    """Arguments of the compiled functions for points and parameters of these types, by the names of the functions.

    >>> {name: len(arguments) for name, arguments in examples("f8", "f4").items()}
    {'spline': 10, 'spline_gradient': 9}
    """
    shape, span = Shape(2, 0, MIN_SIZE, MIN_SIZE, MIN_SLOPE, 0.0), (0, 1)
    x, params, y, log_slope = np.full((1, 1), 0.5, points), np.zeros((7, 1, 1), raw), *np.zeros((2, 1, 1), points)
    index, rows, work = np.zeros((1, 1), np.int16), np.arange(1), workspace(shape.bins, points, raw)
    layer, grads = (rows, np.zeros((7, 1), raw), 0), (x, x, y, np.zeros_like(params))
    return {
        "spline": (x, params, y, log_slope, index, layer, False, shape, span, work),
        "spline_gradient": (x, params, index, grads, (rows, 0), False, shape, span, work),
    }


def workspace(bins: int, points: Any, raw: Any) -> tuple[Any, Any]:
    """Memory that kernels write to on their way: for points and for parameters, of these types.

    >>> [len(memory) for memory in workspace(10, "f8", "f4")]
    [5248, 256]
    """
    return np.empty((ROWS + 2 * bins) * BLOCK, points), np.empty(2 * BLOCK, raw)


def spline(
    x: Tensor, params: Tensor, inverse: bool = False, *, boundary: Boundary = "free", bound: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline on the unit interval, or on a box with the identity outside.

    Parameters
    ----------
    x
        Points, shape (..., d).
    params
        Raw parameters (..., d, P), as for `rational_quadratic`; fastest where the first axis of x is the fastest one
        in memory.
    inverse
        Evaluate the inverse function instead.
    boundary
        Condition at the ends, one of those of `rational_quadratic`.
    bound
        Half width of the box; 0 for [0, 1], where points outside are clamped.

    Returns
    -------
    y, log_slope
        Both of shape (..., d).

    Raises
    ------
    ShapeError
        If the number of raw parameters fits no number of bins.

    Examples
    --------
    >>> y, log_slope = spline(torch.tensor([[0.4], [7.0]]), torch.zeros(2, 1, 29), boundary="linear", bound=3.0)
    >>> y
    tensor([[0.4000],
            [7.0000]])
    """
    bins = count_bins(x, params, boundary)
    if not fused(x) or bins > _MOST_BINS:
        plain = partial(rational_quadratic, params=params.to(x.dtype), inverse=inverse, boundary=boundary)
        return boxed(plain, x, bound) if bound else plain(x)
    # on a CPU double points take single parameters as they are: their exponentials are what costs time
    mixed = x.device.type == "cpu" and (x.dtype, params.dtype) == (torch.float64, torch.float32)
    points, raw = _reversed(x), _reversed(params if mixed else params.to(x.dtype))
    flat, flat_raw = points.reshape(-1, points.shape[-1]), raw.reshape(raw.shape[0], -1, points.shape[-1])
    inside = torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling()
    operator: Any = _Spline.apply if inside else torch.ops.nisampler.rational_quadratic
    y, log_slope, _ = operator(flat, flat_raw, inverse, BOUNDARIES.index(boundary), bound)
    return _reversed(y.view(points.shape)), _reversed(log_slope.view(points.shape))


def _reversed(tensor: Tensor) -> Tensor:
    """The tensor with its axes in the opposite order."""
    return tensor.permute([-1 - axis for axis in range(tensor.dim())])


def boxed(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """A map of the unit interval, with its log slope, on the box [-bound, bound] with the identity outside.

    >>> boxed(lambda u: (u, torch.zeros_like(u)), torch.tensor([0.5, 7.0]), 3.0)
    (tensor([0.5000, 7.0000]), tensor([0., 0.]))
    """
    inside = x.abs() <= bound
    y, log_slope = function((x.clamp(-bound, bound) + bound) / (2 * bound))
    y = (y * (2 * bound) - bound).clamp(-bound, bound)
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(log_slope))


def _shape(raw: Tensor, boundary: int, bound: float) -> Shape:
    bins = (raw.shape[0] - (1, -1, 0)[boundary]) // 3
    return Shape(bins, boundary, MIN_SIZE, MIN_SIZE, MIN_SLOPE, bound)


def _forward(x: Tensor, raw: Tensor, inverse: bool, boundary: int, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    x, raw = x.contiguous(), raw.contiguous()
    y, log_slope, index = torch.empty_like(x), torch.zeros_like(x), torch.empty_like(x, dtype=torch.int16)
    if x.is_cuda:
        _triton().spline(x, raw, y, log_slope, index, inverse, _shape(raw, boundary, bound))
    else:
        layer = np.arange(len(x)), raw.new_zeros(raw.shape[:2]).numpy(), 0
        _run("spline", (x, raw, y, log_slope, index), (layer,), inverse, _shape(raw, boundary, bound))
    return y, log_slope, index


def _backward(
    x: Tensor,
    raw: Tensor,
    index: Tensor,
    g_y: Tensor,
    g_log: Tensor,
    inverse: bool,
    boundary: int,
    bound: float,
) -> tuple[Tensor, Tensor]:
    tensors = tuple(t.contiguous() for t in (x, raw, index, g_y, g_log))
    g_x, g_raw = torch.empty_like(tensors[0]), torch.empty_like(tensors[1])
    shape = _shape(raw, boundary, bound)
    if x.is_cuda:
        _triton().spline_gradient(*tensors, g_x, g_raw, inverse, shape)
    else:
        grads = tuple(t.numpy() for t in (*tensors[3:], g_x, g_raw))
        _run("spline_gradient", tensors[:3], (grads, (np.arange(len(x)), 0)), inverse, shape)
    return g_x, g_raw


def _run(name: str, tensors: tuple[Tensor, ...], rest: tuple[Any, ...], inverse: bool, shape: Shape) -> None:
    """Call a kernel of the CPU with as many threads as may share the points of a batch."""
    arrays, n = [t.numpy() for t in tensors], tensors[0].shape[1]
    kernel = _kernel(name, *(array.dtype.str[1:] for array in arrays[:2]))
    threads = threads_for_points() if tensors[0].numel() >= _THREADED else 1
    edges = [n * part // threads for part in range(threads + 1)]

    def run(span: tuple[int, int]) -> None:
        kernel(*arrays, *rest, inverse, shape, span, workspace(shape.bins, arrays[0].dtype, arrays[1].dtype))

    if threads == 1:
        run((0, n))
    else:
        for done in [_pool().submit(run, span) for span in itertools.pairwise(edges)]:
            done.result()


@cache
def _triton() -> ModuleType:
    return importlib.import_module("nisampler.flows.splines.triton_spline")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, "spline")


def _fake(x: Tensor, raw: Tensor, inverse: bool, boundary: int, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and types of the results, for a compiler."""
    kept = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return kept, torch.empty_like(kept), torch.empty_like(kept, dtype=torch.int16)


def _fake_gradient(
    x: Tensor, raw: Tensor, index: Tensor, g_y: Tensor, g_log: Tensor, inverse: bool, boundary: int, bound: float
) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, raw))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:2], output[2])
    ctx.settings = inputs[2:]
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.nisampler.rational_quadratic_gradient(*ctx.saved_tensors, *grads[:2], *ctx.settings)
    return (*found, None, None, None)


def _refuse(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    raise ConfigError("rational-quadratic splines have first derivatives only: take a cubic one for second derivatives")


def _batched(operator: Callable[..., Any], tensors: int, info: Any, in_dims: tuple[Any, ...], *given: Any) -> Any:
    """The operator under vmap: the batch joins the samples, the last axis of the first `tensors` of `given`."""
    count = info.batch_size

    def joined(tensor: Tensor, axis: int | None) -> Tensor:
        whole = tensor.unsqueeze(-2).expand(*tensor.shape[:-1], count, -1) if axis is None else tensor.movedim(axis, -2)
        return whole.flatten(-2)

    found = operator(*(joined(t, axis) for t, axis in zip(given[:tensors], in_dims, strict=False)), *given[tensors:])
    return tuple(t.unflatten(-1, (count, -1)) for t in found), tuple(t.dim() - 1 for t in found)


class _Spline(torch.autograd.Function):
    """The operator inside `torch.func` and `torch.vmap`, which do not see through operators of a library."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.nisampler.rational_quadratic(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient: Any = _SplineGradient.apply
        return (*gradient(*ctx.saved_tensors, *grads[:2], *ctx.settings), None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _batched(_Spline.apply, 2, info, in_dims, *arguments)


class _SplineGradient(torch.autograd.Function):
    """The gradient of the operator there."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return torch.ops.nisampler.rational_quadratic_gradient(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept: there are no second derivatives."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _refuse(ctx, *grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _batched(_SplineGradient.apply, 5, info, in_dims, *arguments)


def _register() -> torch.library.Library:
    """The operator: points x (A, n) and raw parameters (P, A, n) to values, log slopes and numbers of bins, (A, n)."""
    library: Any = torch.library.Library("nisampler", "DEF")  # type: ignore[no-untyped-call]
    options = "bool inverse, int boundary, float bound"
    library.define(f"rational_quadratic(Tensor x, Tensor raw, {options}) -> (Tensor, Tensor, Tensor)")
    library.define(
        "rational_quadratic_gradient(Tensor x, Tensor raw, Tensor index, Tensor g_y, Tensor g_log, "
        f"{options}) -> (Tensor, Tensor)"
    )
    for device in ("CPU", "CUDA"):
        library.impl("rational_quadratic", _forward, device)
        library.impl("rational_quadratic_gradient", _backward, device)
    for name, fake, gradient, keep in (
        ("nisampler::rational_quadratic", _fake, _gradient, _keep),
        ("nisampler::rational_quadratic_gradient", _fake_gradient, _refuse, None),
    ):
        torch.library.register_fake(name, fake, lib=library)
        torch.library.register_autograd(name, gradient, setup_context=keep, lib=library)
    return library  # type: ignore[no-any-return]


_LIBRARY = _register()
