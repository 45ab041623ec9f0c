"""The formulas as machine code: one switch over all operations, each a loop over vectors of points.

LLVM cannot turn such loops into vector instructions by itself, since it does not know that inputs and outputs lie
apart. So the formulas run once on values of LLVM's builder and leave the instructions behind.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nisampler.processes.amplitudes.recursion.compiled.tiles import TILE
from nisampler.processes.amplitudes.recursion.graph import COMPONENTS, KINDS

WIDTH = 8
"""Points in one vector instruction; LLVM splits it where the processor has shorter ones."""
_CHUNKS = TILE // WIDTH
_INT = ir.IntType(64)
_LANES = ir.VectorType(ir.DoubleType(), WIDTH)
_FUSED = ("contract",)


class _Real:
    """Some points' real numbers."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: _Real) -> _Real:
        return _Real(self.builder, self.builder.fadd(self.value, other.value, flags=_FUSED))

    def __sub__(self, other: _Real) -> _Real:
        return _Real(self.builder, self.builder.fsub(self.value, other.value, flags=_FUSED))

    def __mul__(self, other: _Real) -> _Real:
        return _Real(self.builder, self.builder.fmul(self.value, other.value, flags=_FUSED))

    def __truediv__(self, other: _Real) -> _Real:
        return _Real(self.builder, self.builder.fdiv(self.value, other.value))

    def __neg__(self) -> _Real:
        return _Real(self.builder, self.builder.fneg(self.value))


class _Complex:
    """Some points' complex numbers; `imaginary` is None where they are real."""

    def __init__(self, real: _Real, imaginary: _Real | None) -> None:
        self.real, self.imaginary = real, imaginary

    def __add__(self, other: _Complex) -> _Complex:
        return _Complex(self.real + other.real, _either(self.imaginary, other.imaginary))

    def __sub__(self, other: _Complex) -> _Complex:
        if other.imaginary is None:
            return _Complex(self.real - other.real, self.imaginary)
        imaginary = -other.imaginary if self.imaginary is None else self.imaginary - other.imaginary
        return _Complex(self.real - other.real, imaginary)

    def __mul__(self, other: _Complex) -> _Complex:
        if other.imaginary is None:
            return _Complex(self.real * other.real, None if self.imaginary is None else self.imaginary * other.real)
        if self.imaginary is None:
            return other * self
        return _Complex(
            self.real * other.real - self.imaginary * other.imaginary,
            self.real * other.imaginary + self.imaginary * other.real,
        )

    def __neg__(self) -> _Complex:
        return _Complex(-self.real, None if self.imaginary is None else -self.imaginary)

    def __rtruediv__(self, one: float) -> _Complex:
        if self.imaginary is None:
            return _Complex(_constant(self.real.builder, one) / self.real, None)
        size = _constant(self.real.builder, one) / (self.real * self.real + self.imaginary * self.imaginary)
        return _Complex(self.real * size, -(self.imaginary * size))


def _either(one: _Real | None, other: _Real | None) -> _Real | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _constant(builder: Any, value: float) -> _Real:
    return _Real(builder, ir.Constant(_LANES, [value] * WIDTH))


class _Rows:
    """Rows of TILE numbers, as a pointer to vectors."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        self.builder, self.pointer = builder, builder.bitcast(pointer, _LANES.as_pointer())

    def _at(self, row: Any, chunk: Any) -> Any:
        place = self.builder.add(self.builder.mul(row, _INT(_CHUNKS)), chunk)
        return self.builder.gep(self.pointer, [place])

    def load(self, row: Any, chunk: Any) -> _Real:
        value = self.builder.load(self._at(row, chunk))
        value.align = 8
        return _Real(self.builder, value)

    def store(self, row: Any, chunk: Any, number: _Real) -> None:
        self.builder.store(number.value, self._at(row, chunk)).align = 8


def _splat(builder: Any, scalar: Any) -> _Real:
    undefined = ir.Constant(_LANES, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return _Real(builder, builder.shuffle_vector(first, undefined, places))


def _complex_row(rows: _Rows, row: Any, chunk: Any) -> _Complex:
    """Row 2 k holds the real part of number k, row 2 k + 1 its imaginary part."""
    builder = rows.builder
    return _Complex(
        rows.load(builder.mul(row, _INT(2)), chunk), rows.load(builder.add(builder.mul(row, _INT(2)), _INT(1)), chunk)
    )


def _momentum(rows: _Rows, legs: Any, chunk: Any) -> tuple[_Complex, ...]:
    """Rows 4 k ... hold p+, p-, px, py of set k."""
    builder = rows.builder
    plus, minus, x, y = (rows.load(builder.add(builder.mul(legs, _INT(4)), _INT(c)), chunk) for c in range(4))
    return _Complex(plus, None), _Complex(minus, None), _Complex(x, y), _Complex(x, -y)


def _emit(
    builder: Any, name: str, is_real: bool, work: Any, momenta: Any, places: list[Any], numbers: list[Any]
) -> None:
    """Instructions of one operation; `places` are output, inputs and whether to add; `numbers` the coefficient."""
    kind = KINDS[name]
    output, inputs, adds = places[0], places[1:-1], builder.icmp_signed("!=", places[-1], _INT(0))
    rows, legs = _Rows(builder, work), _Rows(builder, momenta)
    factor = _Complex(_splat(builder, numbers[0]), None if is_real else _splat(builder, numbers[1]))
    with cgutils.for_range(builder, _INT(_CHUNKS)) as loop:
        chunk = loop.index
        given: list[tuple[_Complex, ...]] = []
        for shape, place in zip(kind.inputs, inputs, strict=False):
            if shape == "momentum":
                given.append(_momentum(legs, place, chunk))
            else:
                count = COMPONENTS[shape]
                given.append(tuple(_complex_row(rows, builder.add(place, _INT(c)), chunk) for c in range(count)))
        if name == "inverse_square":
            values = kind.formula(*given, factor)
        else:
            values = tuple(factor * value for value in kind.formula(*given))
        zero = _constant(builder, 0.0)
        for c, value in enumerate(values):
            row = builder.mul(builder.add(output, _INT(c)), _INT(2))
            for part, number in enumerate((value.real, value.imaginary or zero)):
                target = builder.add(row, _INT(part))
                before = builder.select(adds, rows.load(target, chunk).value, zero.value)
                rows.store(target, chunk, _Real(builder, before) + number)


def _execute(  # type: ignore[no-untyped-def]
    context, work, momenta, code, output, first, second, third, fourth, adds, real, imaginary
):
    """Do one operation on a tile: `code` is twice the place of its kind, plus 1 for a complex coefficient."""
    integers, floats = (types.int64,) * 7, (types.float64,) * 2
    signature = types.void(work, momenta, *integers, *floats)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointers = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], values[:2], strict=True)
        ]
        done = builder.append_basic_block("done")
        switch = builder.switch(values[2], done)
        for index, name in enumerate(KINDS):
            for is_real in (True, False):
                block = builder.append_basic_block(name)
                switch.add_case(_INT(2 * index + (not is_real)), block)
                builder.position_at_end(block)
                _emit(builder, name, is_real, pointers[0], pointers[1], list(values[3:9]), list(values[9:]))
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


execute: Any = intrinsic(_execute)
"""`_execute` for compiled code."""
