"""Numbers of a recursion as a graph: every node a sum of vertices of earlier nodes, equal nodes stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from nisampler.processes.amplitudes.recursion import formulas

Shape = Literal["vector", "spinor", "number", "momentum"]
COMPONENTS: dict[Shape, int] = {"vector": 4, "spinor": 2, "number": 1, "momentum": 4}


@dataclass(frozen=True)
class Kind:
    """A multilinear operation between components.

    Attributes
    ----------
    formula
        Takes the components of all inputs.
    inputs, output
        Shapes; momenta are real and belong to a set of legs, not to a node.
    factor
        What the formula is to be multiplied with.
    order
        Brings inputs that may change places into an order: returns them and a sign.

    Examples
    --------
    >>> KINDS["vector_product"].output, KINDS["vector_product"].factor
    ('number', 0.5)
    """

    formula: Callable[..., formulas.Components]
    inputs: tuple[Shape, ...]
    output: Shape
    factor: float = 1.0
    order: Callable[[tuple[int, ...]], tuple[tuple[int, ...], int]] | None = None


def _sorted_pair(first: int) -> Callable[[tuple[int, ...]], tuple[tuple[int, ...], int]]:
    """Sorts the two inputs that start at `first`."""

    def order(inputs: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        pair = sorted(inputs[first : first + 2])
        return (*inputs[:first], *pair, *inputs[first + 2 :]), 1

    return order


def _all_sorted(inputs: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    return tuple(sorted(inputs)), 1


def _antisymmetric(inputs: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    v, w, p, q = inputs
    return (inputs, 1) if v <= w else ((w, v, q, p), -1)


KINDS: dict[str, Kind] = {
    "left_current": Kind(formulas.left_current, ("spinor", "spinor"), "vector", 2.0),
    "right_current": Kind(formulas.right_current, ("spinor", "spinor"), "vector", 2.0),
    "sigma": Kind(formulas.sigma, ("vector", "spinor"), "spinor"),
    "sigma_bar": Kind(formulas.sigma_bar, ("vector", "spinor"), "spinor"),
    "row_sigma": Kind(formulas.row_sigma, ("vector", "spinor"), "spinor"),
    "row_sigma_bar": Kind(formulas.row_sigma_bar, ("vector", "spinor"), "spinor"),
    "spinor_product": Kind(formulas.spinor_product, ("spinor", "spinor"), "number"),
    "number_spinor": Kind(formulas.number_times, ("number", "spinor"), "spinor"),
    "number_vector": Kind(formulas.number_times, ("number", "vector"), "vector"),
    "number_number": Kind(formulas.number_times, ("number", "number"), "number", order=_all_sorted),
    "vector_product": Kind(formulas.vector_product, ("vector", "vector"), "number", 0.5, _all_sorted),
    "three_vectors": Kind(
        formulas.three_vectors, ("vector", "vector", "momentum", "momentum"), "vector", 0.5, _antisymmetric
    ),
    "four_vectors": Kind(formulas.four_vectors, ("vector",) * 3, "vector", 0.5, _sorted_pair(1)),
    "three_numbers": Kind(formulas.three_numbers, ("number",) * 3, "number", order=_all_sorted),
    "vectors_number": Kind(formulas.dot_number, ("vector", "vector", "number"), "number", 0.5, _sorted_pair(0)),
    "vector_numbers": Kind(formulas.vector_numbers, ("vector", "number", "number"), "vector", order=_sorted_pair(1)),
    "slash_sigma": Kind(formulas.slash(formulas.sigma), ("momentum", "spinor", "number"), "spinor"),
    "slash_sigma_bar": Kind(formulas.slash(formulas.sigma_bar), ("momentum", "spinor", "number"), "spinor"),
    "slash_row_sigma": Kind(formulas.slash(formulas.row_sigma), ("momentum", "spinor", "number"), "spinor"),
    "slash_row_sigma_bar": Kind(formulas.slash(formulas.row_sigma_bar), ("momentum", "spinor", "number"), "spinor"),
    "along": Kind(formulas.along, ("vector", "momentum", "number"), "vector", 0.5),
    "inverse_square": Kind(formulas.inverse_square, ("momentum",), "number"),
}
"""All operations; `inverse_square` takes its coefficient as the squared mass, everything else is linear in it."""

NAMES = tuple(KINDS)
_CANCELLED = 1e-13


@dataclass(frozen=True)
class Term:
    """A vertex of earlier nodes times a number: places of the inputs, sets of legs where momenta are asked for.

    >>> Term("vector_product", (3, 4), 0.5 + 0j).inputs
    (3, 4)
    """

    kind: str
    inputs: tuple[int, ...]
    coefficient: complex


@dataclass(frozen=True)
class Node:
    """A sum of terms, or the wave function of a leg.

    Attributes
    ----------
    shape
        What it is.
    terms
        What is summed; empty for wave functions.
    external
        (leg, helicity or None, part) of a wave function.

    Examples
    --------
    >>> Node("vector", external=(2, -1, 0)).terms
    ()
    """

    shape: Shape
    terms: tuple[Term, ...] = ()
    external: tuple[int, int | None, int] | None = None


@dataclass(frozen=True)
class Ref:
    """A node times a number.

    >>> Ref(3).factor
    (1+0j)
    """

    node: int
    factor: complex = 1.0 + 0.0j


@dataclass
class Graph:
    """Nodes in an order in which each needs only earlier ones.

    >>> graph = Graph()
    >>> one, two = (graph.external("spinor", leg, 0, 0) for leg in (0, 1))
    >>> graph.add("left_current", [one, two], 2.0), graph.add("left_current", [one, two], -1.0)
    (Ref(node=2, factor=(4+0j)), Ref(node=2, factor=(-2+0j)))
    """

    nodes: list[Node] = field(default_factory=list)
    _known: dict[Node, int] = field(default_factory=dict)

    def _place(self, node: Node) -> int:
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def external(self, shape: Shape, leg: int, helicity: int | None, part: int) -> Ref:
        """The wave function of a leg."""
        return Ref(self._place(Node(shape, external=(leg, helicity, part))))

    def inverse_square(self, legs: int, mass_squared: complex) -> Ref:
        """1 / (p^2 - M^2) of a set of legs."""
        return Ref(self._place(Node("number", (Term("inverse_square", (legs,), mass_squared),))))

    def term(self, kind: str, inputs: Iterable[Ref | int], coefficient: complex) -> Term:
        """A vertex of references and sets of legs, their factors taken out."""
        rule = KINDS[kind]
        value = coefficient * rule.factor
        places: list[int] = []
        for entry in inputs:
            if isinstance(entry, Ref):
                value *= entry.factor
                places.append(entry.node)
            else:
                places.append(entry)
        ordered, sign = (tuple(places), 1) if rule.order is None else rule.order(tuple(places))
        return Term(kind, ordered, sign * value)

    def sum(self, terms: Iterable[Term]) -> Ref | None:
        """A node for a sum, normalised to the coefficient of its first term; None where nothing is left.

        Equal operations that cancel are left out. Coefficients of different ones do not compare: those of massive
        bosons carry a factor 1 / M^2 each.
        """
        merged: dict[tuple[str, tuple[int, ...]], complex] = {}
        largest: dict[tuple[str, tuple[int, ...]], float] = {}
        for term in terms:
            key = (term.kind, term.inputs)
            merged[key] = merged.get(key, 0.0) + term.coefficient
            largest[key] = max(largest.get(key, 0.0), abs(term.coefficient))
        kept = sorted((key, value) for key, value in merged.items() if abs(value) > _CANCELLED * largest[key])
        if not kept:
            return None
        factor = kept[0][1]
        normal = tuple(Term(kind, inputs, _rounded(value / factor)) for (kind, inputs), value in kept)
        return Ref(self._place(Node(KINDS[normal[0].kind].output, normal)), complex(factor))

    def add(self, kind: str, inputs: Iterable[Ref | int], coefficient: complex = 1.0) -> Ref:
        """A node of one vertex."""
        term = self.term(kind, inputs, coefficient)
        normal = Term(term.kind, term.inputs, 1.0 + 0.0j)
        return Ref(self._place(Node(KINDS[kind].output, (normal,))), complex(term.coefficient))


def _rounded(value: complex) -> complex:
    """Without the last digits, which depend on the order of products: equal sums are to be one node."""
    scale = max(abs(value.real), abs(value.imag))
    return complex(_digits(value.real, scale), _digits(value.imag, scale))


def _digits(value: float, scale: float) -> float:
    return 0.0 if abs(value) < 1e-14 * scale else float(f"{value:.14e}")
