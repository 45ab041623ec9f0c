"""Matrix products inside compiled code: the BLAS that torch brings along, called without Python in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from nisampler.flows.fused.products import NAMES
from nisampler.flows.splines.numba_maths import OPTIONS, compiled
from nisampler.flows.splines.numba_memory import stack

_PLAIN, _TURNED = 78, 84  # the letters N and T


def _declared(name: str, real: Any) -> Any:
    pointer: Any = types.CPointer
    number, letter, size = (pointer(kind) for kind in (real, types.uint8, types.int32))
    arguments = (letter, letter, size, size, size, number, number, size, number, size, number, number, size)
    return types.ExternalFunction(name, types.void(*arguments))


_SINGLE, _DOUBLE = _declared(NAMES["sgemm_"], types.float32), _declared(NAMES["dgemm_"], types.float64)


def _gemm(letters: Any, sizes: Any, scales: Any, a: Any, b: Any, c: Any) -> None:
    """The routine of BLAS itself, whose matrices have their columns in memory; the overload is what is compiled."""


@overload(_gemm, jit_options=OPTIONS)
def _compile_gemm(letters: Any, sizes: Any, scales: Any, a: Any, b: Any, c: Any) -> Callable[..., None]:
    routine = _SINGLE if a.dtype == types.float32 else _DOUBLE

    def call(letters: Any, sizes: Any, scales: Any, a: Any, b: Any, c: Any) -> None:
        m, n, k, of_a, of_b, of_c = sizes, sizes[1:], sizes[2:], sizes[3:], sizes[4:], sizes[5:]
        routine(
            letters.ctypes,
            letters[1:].ctypes,
            m.ctypes,
            n.ctypes,
            k.ctypes,
            scales.ctypes,
            a.ctypes,
            of_a.ctypes,
            b.ctypes,
            of_b.ctypes,
            scales[1:].ctypes,
            c.ctypes,
            of_c.ctypes,
        )

    return call


@compiled
def multiply(a: Any, b: Any, c: Any, turned: Any, size: Any, steps: Any, add: bool) -> None:
    """c (m, n) = a b, or with `add` c + a b.

    `a`, `b` and `c` begin in memory where their matrices do. `turned` says whether a and b are given as their
    transposes, `size` is (m, n, k) for a (m, k), and `steps` are the lengths of the rows in memory.

    >>> from nisampler.flows.fused.products import lent
    >>> c = np.zeros(2)
    >>> if lent():
    ...     multiply(np.array([1.0, 2.0]), np.array([10.0, 20.0]), c, (False, False), (2, 1, 1), (1, 1, 1), False)
    ...     assert c.tolist() == [10.0, 20.0]
    """
    letters, sizes, scales = stack(np.uint8, 2), stack(np.int32, 6), stack(a.dtype, 2)
    # for a library whose matrices lie by columns these are all transposes: c' = b' a'
    letters[0], letters[1] = _TURNED if turned[1] else _PLAIN, _TURNED if turned[0] else _PLAIN
    sizes[0], sizes[1], sizes[2] = size[1], size[0], size[2]
    sizes[3], sizes[4], sizes[5] = steps[1], steps[0], steps[2]
    scales[0], scales[1] = a.dtype.type(1.0), a.dtype.type(1.0 if add else 0.0)
    _gemm(letters, sizes, scales, b, a, c)
