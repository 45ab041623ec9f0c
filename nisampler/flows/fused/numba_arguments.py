"""Arguments of compiled functions read from a row of numbers, as `nisampler.base.machine_code` writes them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from nisampler.flows.splines.numba_memory import array_at, intrinsic

_WORD = ir.IntType(64)


def reader(kinds: Any) -> Any:
    """A function for compiled code that reads a tuple of these numba types; its argument points to the numbers.

    >>> callable(reader)
    True
    """

    @intrinsic
    def read(typing: Any, numbers: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _built(context, builder, kinds, arguments[0], 0)

        return kinds(numbers), build

    return read


def _built(context: Any, builder: Any, kind: Any, numbers: Any, at: int) -> Any:
    """The argument of that kind whose numbers begin at a place in the row."""

    def number(k: int) -> Any:
        return builder.load(builder.gep(numbers, [ir.Constant(_WORD, k)]))

    if isinstance(kind, types.BaseTuple):
        parts = []
        for own in _inside(kind):
            parts.append(_built(context, builder, own, numbers, at))
            at += _size(own)
        return context.make_tuple(builder, kind, parts)
    if isinstance(kind, types.Array):
        place = builder.inttoptr(number(at), context.get_data_type(kind.dtype).as_pointer())
        return array_at(context, builder, kind, place, [number(at + 1 + axis) for axis in range(kind.ndim)])
    if kind == types.float64:
        return builder.bitcast(number(at), ir.DoubleType())
    return context.cast(builder, number(at), types.int64, kind)


def _inside(kind: Any) -> tuple[Any, ...]:
    """The types of a tuple."""
    return tuple(kind.types)


def _size(kind: Any) -> int:
    """How many numbers an argument has."""
    if isinstance(kind, types.BaseTuple):
        return sum(map(_size, _inside(kind)))
    return 1 + kind.ndim if isinstance(kind, types.Array) else 1
