"""The formulas of operations as sums of products, found by running them on polynomials: for code that is generated."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from nisampler.processes.amplitudes.recursion.graph import COMPONENTS, KINDS


class Polynomial:
    """A sum of products of components, for formulas to be run on.

    Parameters
    ----------
    terms
        How often each product occurs: sorted numbers of components.
    inverse
        Whether one over it is meant.

    Examples
    --------
    >>> x, y = (Polynomial({(k,): 1}) for k in range(2))
    >>> ((x + y) * (x - y)).terms
    {(0, 0): 1, (1, 1): -1}
    """

    def __init__(self, terms: dict[tuple[int, ...], int], inverse: bool = False) -> None:
        self.terms, self.inverse = {product: number for product, number in terms.items() if number}, inverse

    def __add__(self, other: Polynomial) -> Polynomial:
        """Their sum."""
        found = Counter(self.terms)
        for product, number in other.terms.items():
            found[product] += number
        return Polynomial(found)

    def __neg__(self) -> Polynomial:
        """Minus this."""
        return Polynomial({product: -number for product, number in self.terms.items()})

    def __sub__(self, other: Polynomial) -> Polynomial:
        """Their difference."""
        return self + (-other)

    def __mul__(self, other: Polynomial) -> Polynomial:
        """Their product."""
        found: Counter[tuple[int, ...]] = Counter()
        for one, number in self.terms.items():
            for two, times in other.terms.items():
                found[tuple(sorted(one + two))] += number * times
        return Polynomial(found)

    def __rtruediv__(self, one: float) -> Polynomial:
        """One over this."""
        return Polynomial(self.terms, inverse=True)


Form = tuple[tuple[tuple[bool, int], ...], tuple[tuple[tuple[int, ...], ...], ...], bool]


@cache
def forms() -> tuple[Form, ...]:
    """For each kind of operation its inputs (momentum or not, components), its sums, and whether they are inverted.

    A sum has for each product its factor and the numbers of its components; the coefficient of `inverse_square` is its
    last one.

    >>> dict(zip(KINDS, forms()))["spinor_product"]
    (((False, 2), (False, 2)), (((1, 0, 2), (1, 1, 3)),), False)
    """
    return tuple(_form(name) for name in KINDS)


def _form(name: str) -> Form:
    kind, count = KINDS[name], 0
    inputs: list[tuple[Polynomial, ...]] = []
    for shape in kind.inputs:
        inputs.append(tuple(Polynomial({(count + c,): 1}) for c in range(COMPONENTS[shape])))
        count += COMPONENTS[shape]
    given: list[Any] = [*inputs, Polynomial({(count,): 1})] if name == "inverse_square" else list(inputs)
    values = kind.formula(*given)
    sums = tuple(tuple((number, *product) for product, number in sorted(value.terms.items())) for value in values)
    sizes = tuple((shape == "momentum", COMPONENTS[shape]) for shape in kind.inputs)
    return sizes, sums, any(value.inverse for value in values)
