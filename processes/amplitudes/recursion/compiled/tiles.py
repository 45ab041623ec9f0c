"""The tables of a plan as compiled code takes them, and the call of that code, which comes with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nisampler.base.machine_code import Kernel
from nisampler.processes.amplitudes.recursion.graph import NAMES
from nisampler.processes.amplitudes.recursion.plan import Plan
from nisampler.processes.amplitudes.recursion.waves import Leg, recipe

Floats = npt.NDArray[np.float64]
TILE = 32
"""Points that pass through the whole plan together."""
KINDS = ("one", "spinor", "massless", "transverse", "longitudinal")
"""Wave functions, in the order of their numbers."""
TINY = 1e-150
FILE = Path(__file__).with_name("kernels.safetensors")
"""The compiled function, which `shipping` writes."""


@cache
def kernel() -> Kernel:
    """The compiled loop; raises what `Kernel` raises.

    >>> kernel().codes[:2]
    ['3f8', '1f8']
    """
    return Kernel(FILE, "squared")


class Tiles:
    """The tables of a plan, and the compiled loop over them.

    Parameters
    ----------
    plan
        What to compute.
    legs
        The external particles.
    results
        (helicities, flow, power of the strong coupling) of each result of the plan, sorted by helicities.
    times
        How many helicities each of them stands for.
    matrix
        Colour matrix (flows, flows).

    Examples
    --------
    See `MatrixElement`, which makes one where llvmlite is installed.

    >>> TILE
    32
    """

    def __init__(
        self,
        plan: Plan,
        legs: Sequence[Leg],
        results: Sequence[tuple[int, int, int]],
        times: Mapping[int, int],
        matrix: Floats,
    ) -> None:
        self._legs = np.array([leg.mass for leg in legs]), np.array([-1.0 if leg.incoming else 1.0 for leg in legs])
        waves = np.array([_wave_row(legs[w.leg], w) for w in plan.waves], dtype=np.int64)
        ops: list[tuple[int, ...]] = []
        numbers: list[tuple[float, float]] = []
        written: set[int] = set()
        for step in plan.steps:
            for output, inputs, coefficient in zip(step.outputs, step.inputs, step.coefficients, strict=True):
                code = 2 * NAMES.index(step.kind) + (coefficient.imag != 0.0)
                padded = (*inputs, *(0,) * (4 - len(inputs)))
                ops.append((code, output, *padded, int(output in written)))
                numbers.append((coefficient.real, coefficient.imag))
                written.add(output)
        sets = np.array(plan.sets, dtype=np.int64)
        self._table = sets, waves, np.array(ops, dtype=np.int64).reshape(-1, 7), np.array(numbers).reshape(-1, 2)
        table = [(flow, row, power) for (_, flow, power), (row, _) in zip(results, plan.results, strict=True)]
        factors = np.array([(factor.real, factor.imag) for _, factor in plan.results])
        starts = [k for k in range(len(results)) if k == 0 or results[k][0] != results[k - 1][0]]
        groups = np.array([*starts, len(results)], dtype=np.int64)
        weights = np.array([float(times[results[k][0]]) for k in starts])
        self._ends = np.array(table, dtype=np.int64), factors, groups, weights, matrix
        powers, flows = 1 + max(power for _, _, power in table), len(matrix)
        self._shapes: list[tuple[int, ...]] = [(2 * plan.rows,), (4 * len(sets),), (len(legs), 6), (len(legs), 7)]
        self._shapes += [(powers,), (2 * flows,), (2 + flows,)]

    def squared(self, p: Floats, g: Floats, flows: bool = False) -> tuple[Floats, Floats]:
        """Sums over helicities and colours (n,), and with `flows` those of each colour flow alone (flows, n).

        p (n, legs, 4) physical momenta in GeV, g (n,) the strong coupling.
        """
        kernel()(*(arguments := self.arguments(p, g, flows)))
        return arguments[-2], arguments[-1]

    def arguments(self, p: Floats, g: Floats, flows: bool) -> tuple[Any, ...]:
        """What the compiled function takes; the last two are filled in."""
        scratch = tuple(np.empty((*shape, TILE)) for shape in self._shapes)
        rows = len(self._ends[-1]) if flows else 0
        return p, g, self._legs, self._table, self._ends, scratch, np.empty(len(p)), np.empty((rows, len(p)))


def _wave_row(leg: Leg, item: Any) -> tuple[int, ...]:
    how = recipe(leg, item.helicity or 0, item.part)
    return item.leg, item.row, KINDS.index(how.kind), int(how.minus), int(how.conjugated), int(how.large), how.sign
