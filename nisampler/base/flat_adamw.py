"""AdamW over one row of numbers: the parameters of a CPU module lie side by side, and a step is a few operations.

With fifty small parameters the optimizer of torch spends its time between them: clipping, moments and weights are each
a walk through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatAdamW:
    """AdamW (1711.05101) for parameters on the CPU, which are moved into one piece of memory.

    It has what a `Stepper` asks of an optimizer of torch, and the same memory under the same names. Parameters without
    a gradient stay as they are.

    Parameters
    ----------
    parameters
        Of one dtype, on the CPU.
    lr, weight_decay, betas, eps
        As for `torch.optim.AdamW`.

    Raises
    ------
    ConfigError
        If the parameters do not fit.

    Examples
    --------
    >>> weight = nn.Parameter(torch.ones(2))
    >>> optimizer = FlatAdamW([weight], lr=0.1, weight_decay=0.0)
    >>> weight.sum().backward()
    >>> optimizer.norm(), optimizer.step()
    (tensor(1.4142), None)
    >>> weight.data
    tensor([0.9000, 0.9000])
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        if not self.fits(self.parameters):
            raise ConfigError("FlatAdamW takes parameters of one dtype on the CPU; take torch.optim.AdamW")
        self.defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        self.param_groups: list[dict[str, Any]] = [{"params": self.parameters, **self.defaults}]
        self._edges = [0, *accumulate(parameter.numel() for parameter in self.parameters)]
        self._flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self._moments = tuple(torch.zeros_like(self._flat) for _ in _MOMENTS)
        self._counts = [0] * len(self.parameters)
        self._places: list[int] = []
        self._leaves: dict[tuple[int, int], Tensor] = {}
        self._gather()

    @staticmethod
    def fits(parameters: list[nn.Parameter]) -> bool:
        """Whether parameters are some that this optimizer takes.

        >>> FlatAdamW.fits([nn.Parameter(torch.ones(2, device="meta"))])
        False
        """
        dtypes = {parameter.dtype for parameter in parameters}
        plain = all(type(p) is nn.Parameter and p.is_cpu and not p.is_inference() for p in parameters)
        return plain and len(dtypes) == 1 and dtypes <= {torch.float32, torch.float64}

    def _gather(self) -> None:
        """Move the parameters side by side, where they are not yet, or no longer."""
        if self._places == [parameter.data_ptr() for parameter in self.parameters]:
            return
        if any(parameter.dtype != self._flat.dtype or not parameter.is_cpu for parameter in self.parameters):
            raise ConfigError("parameters were moved or cast under their optimizer; make another one after that")
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters):
                part = self._flat[self._edges[number] : self._edges[number + 1]].view(parameter.shape)
                part.copy_(parameter)
                parameter.data = part
        self._places = [parameter.data_ptr() for parameter in self.parameters]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Let operations that take many of these parameters take them as one, which then has their gradient.

        For code that asks for no other gradients than those of the next step.
        """
        self._gather()
        token = _COLLECTING.set(self)
        try:
            yield
        finally:
            _COLLECTING.reset(token)

    def leaf(self, parameters: list[Tensor]) -> Tensor | None:
        """What stands for these parameters in a graph, if they are some of those here in their order."""
        try:
            first = self._places.index(parameters[0].data_ptr())
        except ValueError:
            return None
        last = first + len(parameters)
        own = self.parameters[first:last]
        if len(own) < len(parameters) or not all(
            a is b and a.requires_grad for a, b in zip(own, parameters, strict=True)
        ):
            return None
        if (first, last) not in self._leaves:
            part = self._flat[self._edges[first] : self._edges[last]].detach()
            self._leaves[first, last] = part.requires_grad_()
        return self._leaves[first, last]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for tensor in (*self.parameters, *self._leaves.values()):
            tensor.grad = None

    def _runs(self) -> list[tuple[int, int, Tensor]]:
        """Numbers of parameters (first, last) with a gradient; those whose gradients are side by side share a row."""
        found: list[tuple[int, int, Tensor]] = []
        number, known = 0, {first: last for (first, last), leaf in self._leaves.items() if leaf.grad is not None}
        while number < len(self.parameters):
            last = known.get(number, number)
            own, counts = self.parameters[number:last], self._counts[number:last]
            if own and len(set(counts)) == 1 and all(parameter.grad is None for parameter in own):
                found.append((number, last, self._leaves[number, last].grad))  # type: ignore[arg-type]
                number = last
                continue
            self._hand_out(number, last)
            grad = self.parameters[number].grad
            if grad is not None:
                found.append((number, number + 1, grad.detach().reshape(-1)))
            number += 1
        return found

    def _hand_out(self, first: int, last: int) -> None:
        """Give each parameter its part of a common gradient."""
        leaf = self._leaves.get((first, last))
        if leaf is None or leaf.grad is None:
            return
        for number in range(first, last):
            parameter, start = self.parameters[number], self._edges[first]
            part = leaf.grad[self._edges[number] - start : self._edges[number + 1] - start].view(parameter.shape)
            parameter.grad = part if parameter.grad is None else parameter.grad + part
        leaf.grad = None

    def norm(self) -> Tensor:
        """Of the gradient."""
        norms = [torch.linalg.vector_norm(row) for _, _, row in self._runs()]
        return torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else sum(norms, start=torch.zeros(()))

    def step(self, shrink: float = 1.0) -> None:
        """Follow the gradient, divided by `shrink`."""
        group = self.param_groups[0]
        self._gather()
        runs = self._runs()
        with torch.no_grad():
            torch.autograd.graph.increment_version(self.parameters)
            for first, last, row in runs:
                span = slice(self._edges[first], self._edges[last])
                for number in range(first, last):
                    self._counts[number] += 1
                count = torch.tensor(float(self._counts[first]))
                torch._fused_adamw_(
                    *([self._flat[span]], [row], *([moment[span]] for moment in self._moments), [], [count]),
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                    grad_scale=None if shrink == 1.0 else torch.tensor(shrink),
                )

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of each parameter that was ever moved, by its number."""
        state: dict[int, dict[str, Tensor]] = {}
        for number, count in enumerate(self._counts):
            if count:
                span, shape = slice(*self._edges[number : number + 2]), self.parameters[number].shape
                own = {name: moment[span].view(shape) for name, moment in zip(_MOMENTS, self._moments, strict=True)}
                state[number] = {"step": torch.tensor(float(count)), **own}
        return {"state": state, "param_groups": [dict(self.defaults)]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember what `state_dict` returned, here or of AdamW of torch."""
        state = state_dict["state"]
        for number in range(len(self.parameters)):
            own, span = state.get(number), slice(*self._edges[number : number + 2])
            self._counts[number] = int(own["step"]) if own else 0
            for name, moment in zip(_MOMENTS, self._moments, strict=True):
                moment[span] = own[name].reshape(-1) if own else 0.0


def leaf_of(parameters: list[Tensor]) -> Tensor | None:
    """One tensor that stands for parameters in a graph, inside `FlatAdamW.collecting`; None for others.

    >>> leaf_of([torch.ones(2)]) is None
    True
    """
    optimizer = _COLLECTING.get()
    return None if optimizer is None else optimizer.leaf(parameters)


def shrinking(norm: float, clip: float) -> float:
    """What a gradient of this norm is divided by so that it is not longer than `clip`.

    >>> shrinking(0.5, 1.0), round(shrinking(3.0, 1.5), 3)
    (1.0, 2.0)
    """
    return max(1.0, (norm + 1e-6) / clip) if math.isfinite(clip) else 1.0


_COLLECTING: ContextVar[FlatAdamW | None] = ContextVar("the optimizer whose gradients are collected", default=None)
