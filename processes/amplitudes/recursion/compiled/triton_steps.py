"""The steps of a plan on a GPU: one kernel of Triton for all plans, which reads what to do from the table.

A program takes a block of points through the whole table. The numbers of its points lie in memory, those of a row side
by side, so that every line of memory is used as a whole; what an operation does with them stays in registers. The
formulas come as sums of products, see `polynomials`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nisampler.processes.amplitudes.recursion.compiled.polynomials import forms
from nisampler.processes.amplitudes.recursion.graph import KINDS
from nisampler.processes.amplitudes.recursion.plan import Plan

# Points of a program, one for each thread of its warps: what a thread writes, no other one reads.
BLOCK, WARPS = 128, 4
_COLUMNS = 6


@triton.jit
def _times(ar: tl.tensor, ai: tl.tensor, br: tl.tensor, bi: tl.tensor) -> Any:
    """Product of complex numbers."""
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _operation(
    numbers: tl.tensor,
    momenta: tl.tensor,
    op: tl.tensor,
    factor: tl.tensor,
    place: tl.tensor,
    stride: tl.tensor,
    inside: tl.tensor,
    form: tl.constexpr,
) -> None:
    """One operation on a block of points."""
    reals = ()
    imaginaries = ()
    for k in tl.static_range(len(form[0])):
        row = tl.load(op + 2 + k)
        for c in tl.static_range(form[0][k][1]):
            if form[0][k][0]:
                at = momenta + (4 * row + c) * stride + place
            else:
                at = numbers + (row + c) * stride + place
            reals = reals + (tl.load(at, mask=inside, other=1.0),)  # noqa: RUF005
            imaginaries = imaginaries + (tl.load(at + 1, mask=inside, other=0.0),)  # noqa: RUF005
    fr = tl.load(factor)
    fi = tl.load(factor + 1)
    if form[2]:
        reals = reals + (fr + tl.zeros_like(reals[0]),)  # noqa: RUF005
        imaginaries = imaginaries + (fi + tl.zeros_like(reals[0]),)  # noqa: RUF005
    output = tl.load(op + 1)
    for c in tl.static_range(len(form[1])):
        total_r = tl.zeros_like(reals[0])
        total_i = tl.zeros_like(reals[0])
        for m in tl.static_range(len(form[1][c])):
            xr = form[1][c][m][0] * reals[form[1][c][m][1]]
            xi = form[1][c][m][0] * imaginaries[form[1][c][m][1]]
            for j in tl.static_range(2, len(form[1][c][m])):
                xr, xi = _times(xr, xi, reals[form[1][c][m][j]], imaginaries[form[1][c][m][j]])
            total_r += xr
            total_i += xi
        if form[2]:
            size = total_r * total_r + total_i * total_i
            total_r = total_r / size
            total_i = -total_i / size
        else:
            total_r, total_i = _times(total_r, total_i, fr, fi)
        at = numbers + (output + c) * stride + place
        tl.store(at, tl.load(at, mask=inside) + total_r, mask=inside)
        tl.store(at + 1, tl.load(at + 1, mask=inside) + total_i, mask=inside)


@triton.jit(do_not_specialize=["n", "count"])
def _steps(
    numbers: tl.tensor,
    momenta: tl.tensor,
    ops: tl.tensor,
    factors: tl.tensor,
    n: tl.tensor,
    count: tl.tensor,
    table: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """All operations on a block of points."""
    point = tl.program_id(0) * block + tl.arange(0, block)
    inside = point < n
    place = 2 * point.to(tl.int64)
    stride = 2 * n.to(tl.int64)
    for k in range(count):
        op = ops + columns * k
        code = tl.load(op)
        for kind in tl.static_range(len(table)):
            if code == kind:
                _operation(numbers, momenta, op, factors + 2 * k, place, stride, inside, table[kind])
        tl.debug_barrier()


class Steps:
    """The steps of a plan as a table on a GPU.

    Parameters
    ----------
    plan
        The plan.
    device
        Where its tables are kept.
    dtype
        Of the complex numbers.

    Examples
    --------
    >>> bool(Steps.__doc__)
    True
    """

    def __init__(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> None:
        names, ops, factors = list(KINDS), [], []
        for step in plan.steps:
            for output, inputs, coefficient in zip(step.outputs, step.inputs, step.coefficients, strict=True):
                ops.append([names.index(step.kind), output, *inputs, *[0] * (_COLUMNS - 2 - len(inputs))])
                factors.append(coefficient)
        self._ops = torch.tensor(ops, dtype=torch.int64, device=device)
        self._factors = torch.view_as_real(torch.tensor(factors, dtype=dtype, device=device))

    def __call__(self, numbers: Tensor, momenta: Tensor) -> None:
        """Add all operations to the numbers (rows, n), of which the waves are filled in and the others zero."""
        n = numbers.shape[1]
        _steps[(triton.cdiv(n, BLOCK),)](
            torch.view_as_real(numbers),
            torch.view_as_real(momenta),
            self._ops,
            self._factors,
            n,
            len(self._ops),
            table=forms(),
            columns=_COLUMNS,
            block=BLOCK,
            num_warps=WARPS,
        )
