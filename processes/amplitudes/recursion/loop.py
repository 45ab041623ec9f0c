"""A plan run by torch, on any device, differentiable; on a GPU by a kernel of Triton where no gradient is wanted."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nisampler.base.kernels import tried
from nisampler.processes.amplitudes.recursion.graph import COMPONENTS, KINDS
from nisampler.processes.amplitudes.recursion.plan import Plan

_SLOW = "matrix elements on a GPU run in plain torch, some times as slowly"
# Numbers that a loop holds at a time where it may choose: 1 GiB in double precision.
_MOST = 1 << 26


class Loop:
    """The tables of a plan as tensors.

    Parameters
    ----------
    plan
        What to compute.
    device
        Where.
    dtype
        Of the complex numbers.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.graph import Graph
    >>> from nisampler.processes.amplitudes.recursion.plan import lowered
    >>> graph = Graph()
    >>> product = graph.add("number_number", [graph.external("number", leg, 0, 0) for leg in (0, 1)], 2.0)
    >>> loop = Loop(lowered(graph, [(product.node, product.factor)]), torch.device("cpu"), torch.complex64)
    >>> loop(torch.tensor([[3.0 + 0j], [5.0]]), torch.empty(0, 4, 1, dtype=torch.complex64)).real
    tensor([[30.]])
    """

    def __init__(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> None:
        self.plan, self.device, self.dtype = plan, device, dtype
        self._steps = [
            (
                KINDS[step.kind],
                step.kind == "inverse_square",
                [torch.tensor(column, device=device) for column in zip(*step.inputs, strict=True)],
                torch.tensor(step.outputs, device=device),
                torch.tensor(step.coefficients, dtype=dtype, device=device).unsqueeze(-1),
            )
            for step in plan.steps
        ]
        self._places = torch.tensor([row for row, _ in plan.results], device=device)
        self._factors = torch.tensor([factor for _, factor in plan.results], dtype=dtype, device=device).unsqueeze(-1)

    @property
    def most(self) -> int:
        """Points at a time."""
        return max(_MOST // self.plan.rows, 1024)

    def __call__(self, waves: Tensor, momenta: Tensor) -> Tensor:
        """Amplitudes (results, n).

        Parameters
        ----------
        waves
            Components (sum of the components of all waves, n), in the order of the plan.
        momenta
            (sets, 4, n) complex: components of the outgoing momenta of the plan's sets of legs.
        """
        numbers = torch.cat([waves, waves.new_zeros(self.plan.rows - len(waves), waves.shape[1])])
        differentiated = torch.is_grad_enabled() and (waves.requires_grad or momenta.requires_grad)
        if waves.device.type == "cuda" and not differentiated and self._kernel is not None:
            self._kernel(numbers, momenta.contiguous())
        else:
            self._run(numbers, momenta)
        return numbers.index_select(0, self._places) * self._factors

    def _run(self, numbers: Tensor, momenta: Tensor) -> None:
        """Add all operations; gradients need no number that is overwritten."""
        for kind, inverse, columns, outputs, coefficients in self._steps:
            inputs = []
            for shape, column in zip(kind.inputs, columns, strict=True):
                if shape == "momentum":
                    inputs.append(tuple(momenta.index_select(0, column).unbind(1)))
                else:
                    inputs.append(tuple(numbers.index_select(0, column + c) for c in range(COMPONENTS[shape])))
            if inverse:
                values = kind.formula(*inputs, coefficients)
            else:
                values = tuple(coefficients * value for value in kind.formula(*inputs))
            for c, value in enumerate(values):
                numbers.index_add_(0, outputs + c, value)

    @cached_property
    def _kernel(self) -> Any:
        """The kernel of Triton, or None where that is not installed."""

        def load() -> Any:
            from nisampler.processes.amplitudes.recursion.compiled.triton_steps import Steps

            steps = Steps(self.plan, self.device, self.dtype)
            sizes = (self.plan.rows, 1), (len(self.plan.sets), 4, 1)
            steps(*(torch.ones(size, dtype=self.dtype, device=self.device) for size in sizes))
            return steps

        return tried(load, _SLOW, "triton")
