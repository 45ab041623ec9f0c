"""Explicit Runge-Kutta methods with a fixed step: a solver is its tableau and its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

SolverName = Literal["euler", "midpoint", "rk4"]


@dataclass(frozen=True)
class Solver:
    r"""x_{k+1} = x_k + h \sum_i b_i v_i with v_i = v(t_k + c_i h, x_k + h \sum_{j<i} a_ij v_j).

    Parameters
    ----------
    order
        The error at the end is proportional to h^order.
    nodes, matrix, weights
        c_i, the rows of a_ij with j < i, and b_i.

    Examples
    --------
    >>> SOLVERS["midpoint"].order, len(SOLVERS["rk4"].nodes)
    (2, 4)
    """

    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


SOLVERS: dict[SolverName, Solver] = {
    "euler": Solver(1, (0.0,), ((),), (1.0,)),
    "midpoint": Solver(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "rk4": Solver(
        4, (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    ),
}  # fmt: skip


def integrate(
    velocity: Callable[[float, Tensor], Tensor], x: Tensor, start: float, end: float, steps: int, solver: Solver
) -> Tensor:
    """x(end) of dx/dt = v(t, x) from x(start), in equal steps.

    Parameters
    ----------
    velocity
        A function that takes the time and x (n, d) to dx/dt (n, d).
    x
        Where the solution starts, (n, d).
    start, end
        Times; the solution runs backwards where end < start.
    steps
        Number of steps.
    solver
        Gives `len(solver.nodes)` evaluations of the velocity in each step.

    Examples
    --------
    >>> import torch
    >>> found = integrate(lambda t, x: 2 * t * x, torch.ones(1, 1), 0.0, 1.0, 10, SOLVERS["rk4"])
    >>> round(float(found), 3)
    2.718
    """
    h = (end - start) / steps
    for step in range(steps):
        t = start + step * h
        slopes: list[Tensor] = []
        for node, row in zip(solver.nodes, solver.matrix, strict=True):
            slopes.append(velocity(t + node * h, _advanced(x, h, row, slopes)))
        x = _advanced(x, h, solver.weights, slopes)
    return x


def _advanced(x: Tensor, h: float, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (h * weight) * slope
    return x
