r"""Vertices and propagators on components, written once for every kind of number.

A vector V has the components (V+, V-, VT, VC) = (V0 + V3, V0 - V3, V1 + i V2, V1 - i V2), so that
2 V.W = V+ W- + V- W+ - VT WC - VC WT, and
sigma.V = ((V-, -VC), (-VT, V+)), sigmabar.V = ((V+, VC), (VT, V-)).
Dirac spinors are columns (left, right) of two Weyl spinors or rows (right, left), in the chiral basis: V-slash takes a
left column by sigmabar.V to a right one. Numbers need only `+`, `-` and `*`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Number = Any
Components = tuple[Number, ...]


def dot(v: Components, w: Components) -> Number:
    """2 V.W.

    >>> dot((5, 5, 0, 0), (3, 3, 0, 0))
    30
    """
    return v[0] * w[1] + v[1] * w[0] - v[2] * w[3] - v[3] * w[2]


def scaled(factor: Number, components: Components) -> Components:
    """Every component times a number.

    >>> scaled(2, (1, 3j))
    (2, 6j)
    """
    return tuple(factor * component for component in components)


def left_current(row: Components, column: Components) -> Components:
    """row sigmabar^mu column / 2, of the left part of a column.

    >>> left_current((1, 0), (0, 1))
    (0, 0, -1, 0)
    """
    return row[1] * column[1], row[0] * column[0], -(row[0] * column[1]), -(row[1] * column[0])


def right_current(row: Components, column: Components) -> Components:
    """row sigma^mu column / 2, of the right part of a column.

    >>> right_current((1, 0), (0, 1))
    (0, 0, 1, 0)
    """
    return row[0] * column[0], row[1] * column[1], row[0] * column[1], row[1] * column[0]


def sigma(v: Components, column: Components) -> Components:
    """sigma.V column.

    >>> sigma((2, 1, 0, 0), (1, 1))
    (1, 2)
    """
    return v[1] * column[0] - v[3] * column[1], v[0] * column[1] - v[2] * column[0]


def sigma_bar(v: Components, column: Components) -> Components:
    """sigmabar.V column.

    >>> sigma_bar((2, 1, 0, 0), (1, 1))
    (2, 1)
    """
    return v[0] * column[0] + v[3] * column[1], v[2] * column[0] + v[1] * column[1]


def row_sigma(v: Components, row: Components) -> Components:
    """row sigma.V.

    >>> row_sigma((2, 1, 0, 0), (1, 1))
    (1, 2)
    """
    return v[1] * row[0] - v[2] * row[1], v[0] * row[1] - v[3] * row[0]


def row_sigma_bar(v: Components, row: Components) -> Components:
    """row sigmabar.V.

    >>> row_sigma_bar((2, 1, 0, 0), (1, 1))
    (2, 1)
    """
    return v[0] * row[0] + v[2] * row[1], v[3] * row[0] + v[1] * row[1]


def spinor_product(row: Components, column: Components) -> Components:
    """row column.

    >>> spinor_product((1, 2), (3, 4))
    (11,)
    """
    return (row[0] * column[0] + row[1] * column[1],)


def vector_product(v: Components, w: Components) -> Components:
    """2 V.W.

    >>> vector_product((5, 5, 0, 0), (3, 3, 0, 0))
    (30,)
    """
    return (dot(v, w),)


def number_times(number: Components, components: Components) -> Components:
    """A scalar times anything.

    >>> number_times((2,), (1, 3))
    (2, 6)
    """
    return scaled(number[0], components)


def three_vectors(v: Components, w: Components, p: Components, q: Components) -> Components:
    """2 times (V.W (q - p) - V.(2 q + p) W + W.(2 p + q) V), p and q the outgoing momenta of V and W.

    >>> three_vectors((0, 0, 1, 0), (0, 0, 0, 1), (2, 2, 0, 0), (3, 3, 0, 0))
    (-1, -1, 0, 0)
    """
    vw, wp2q, vp2q = dot(v, w), dot(w, p) + dot(w, p) + dot(w, q), dot(v, q) + dot(v, q) + dot(v, p)
    return tuple(vw * (q_ - p_) - vp2q * w_ + wp2q * v_ for v_, w_, p_, q_ in zip(v, w, p, q, strict=True))


def four_vectors(v: Components, w: Components, x: Components) -> Components:
    """2 times (2 V (W.X) - W (X.V) - X (V.W)).

    >>> four_vectors((1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    (-2, 0, 0, 0)
    """
    wx, xv, vw = dot(w, x), dot(x, v), dot(v, w)
    return tuple((wx + wx) * v_ - xv * w_ - vw * x_ for v_, w_, x_ in zip(v, w, x, strict=True))


def three_numbers(a: Components, b: Components, c: Components) -> Components:
    """a b c.

    >>> three_numbers((2,), (3,), (5,))
    (30,)
    """
    return (a[0] * b[0] * c[0],)


def dot_number(v: Components, w: Components, number: Components) -> Components:
    """2 V.W times a scalar.

    >>> dot_number((5, 5, 0, 0), (3, 3, 0, 0), (2,))
    (60,)
    """
    return (dot(v, w) * number[0],)


def vector_numbers(v: Components, a: Components, b: Components) -> Components:
    """V a b.

    >>> vector_numbers((5, 5, 0, 0), (3,), (2,))
    (30, 30, 0, 0)
    """
    return scaled(a[0] * b[0], v)


def slash(product: Callable[[Components, Components], Components]) -> Callable[..., Components]:
    """A product of a momentum and a spinor, times a denominator.

    >>> slash(sigma)((2, 1, 0, 0), (1, 1), (0.5,))
    (0.5, 1.0)
    """

    def formula(p: Components, spinor: Components, over: Components) -> Components:
        return scaled(over[0], product(p, spinor))

    return formula


def along(source: Components, p: Components, over: Components) -> Components:
    """2 p (p.J) times a denominator.

    >>> along((5, 5, 0, 0), (3, 3, 0, 0), (0.5,))
    (45.0, 45.0, 0.0, 0.0)
    """
    return scaled(dot(p, source) * over[0], p)


def inverse_square(p: Components, mass_squared: Number) -> Components:
    """1 / (p^2 - M^2).

    >>> inverse_square((5, 5, 0, 0), 20)
    (0.2,)
    """
    return (1.0 / (p[0] * p[1] - p[2] * p[3] - mass_squared),)
