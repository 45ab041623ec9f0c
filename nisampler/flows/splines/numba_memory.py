"""Memory inside compiled code that is neither taken from the heap nor counted: short arrays, and arrays seen anew."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.np.arrayobj import make_array, populate_array

intrinsic: Any = extending.intrinsic


def array_at(context: Any, builder: Any, kind: Any, data: Any, shape: Any) -> Any:
    """A C-contiguous array of that kind at a place in memory that somebody else looks after.

    >>> callable(array_at)
    True
    """
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides: list[Any] = []
    step = size
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    array = make_array(kind)(context, builder)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic(prefer_literal=True)
def stack(typing: Any, like: Any, count: Any) -> Any:
    """An array of `count` numbers, a constant, of the type of those of `like`, which lives as long as the function.

    >>> bool(stack)
    True
    """
    kind = types.Array(like.dtype, 1, "C")
    length = count.literal_value

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(kind.dtype), length))
        data = builder.bitcast(place, context.get_data_type(kind.dtype).as_pointer())
        return array_at(context, builder, kind, data, [context.get_constant(types.intp, length)])

    return kind(like, count), build


@intrinsic
def view(typing: Any, array: Any, shape: Any) -> Any:
    """A C-contiguous array as one of another shape.

    >>> bool(view)
    True
    """
    kind = types.Array(array.dtype, len(shape), "C")

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(array)(context, builder, arguments[0]).data
        lengths = [
            context.cast(builder, length, own, types.intp)
            for length, own in zip(cgutils.unpack_tuple(builder, arguments[1]), shape, strict=True)
        ]
        return array_at(context, builder, kind, data, lengths)

    return kind(array, shape), build
