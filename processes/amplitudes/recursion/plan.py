"""The graph as tables: what is computed in which order, and where it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nisampler.processes.amplitudes.recursion.graph import COMPONENTS, KINDS, Graph, Node, Shape


@dataclass(frozen=True)
class Step:
    """Operations of one kind that can be done at once.

    Attributes
    ----------
    kind
        Name of the operation.
    outputs
        First row of each result.
    inputs
        First row of each input, or for momenta the place of the set of legs.
    coefficients
        One number each.

    Examples
    --------
    >>> Step("number_number", outputs=(2,), inputs=((0, 1),), coefficients=(1.0,)).kind
    'number_number'
    """

    kind: str
    outputs: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]
    coefficients: tuple[complex, ...]


@dataclass(frozen=True)
class Wave:
    """A wave function: leg, helicity (None: any), which part of a spinor, and its first row.

    >>> Wave(leg=0, helicity=-1, part=1, shape="spinor", row=4).row
    4
    """

    leg: int
    helicity: int | None
    part: int
    shape: Shape
    row: int


@dataclass(frozen=True)
class Plan:
    """All that is needed of a graph for some of its nodes.

    Attributes
    ----------
    rows
        Complex numbers a point.
    sets
        Sets of legs, as bits, whose momenta are needed.
    waves
        External wave functions.
    steps
        What is computed, in order.
    results
        Row and factor of each amplitude asked for.

    Examples
    --------
    >>> print(Plan(0, (), (), (), ()))
    0 wave functions, 0 steps, 0 numbers a point
    """

    rows: int
    sets: tuple[int, ...]
    waves: tuple[Wave, ...]
    steps: tuple[Step, ...]
    results: tuple[tuple[int, complex], ...]

    def __str__(self) -> str:
        """A line for each operation."""
        lines = [f"{len(self.waves)} wave functions, {len(self.steps)} steps, {self.rows} numbers a point"]
        for step in self.steps:
            for output, inputs, coefficient in zip(step.outputs, step.inputs, step.coefficients, strict=True):
                lines.append(f"{output:6d} += {coefficient:.6g} {step.kind}{inputs}")
        return "\n".join(lines)


def needed(graph: Graph, results: Iterable[int]) -> list[int]:
    """Places of all nodes that the results are made of, in order.

    >>> graph = Graph()
    >>> one, two = (graph.external("number", leg, 0, 0) for leg in (0, 1))
    >>> needed(graph, [graph.add("number_number", [one, one]).node])
    [0, 2]
    """
    wanted = set(results)
    for place in range(len(graph.nodes) - 1, -1, -1):
        if place in wanted:
            wanted.update(_sources(graph.nodes[place]))
    return sorted(wanted)


def _sources(node: Node) -> list[int]:
    return [
        entry
        for term in node.terms
        for entry, shape in zip(term.inputs, KINDS[term.kind].inputs, strict=True)
        if shape != "momentum"
    ]


def levels(graph: Graph, nodes: Sequence[int]) -> list[list[int]]:
    """Nodes by how many operations lie before them.

    >>> graph = Graph()
    >>> one = graph.external("number", 0, 0, 0)
    >>> levels(graph, [one.node, graph.add("number_number", [one, one]).node])
    [[0], [1]]
    """
    depth: dict[int, int] = {}
    found: dict[int, list[int]] = defaultdict(list)
    for place in nodes:
        node = graph.nodes[place]
        depth[place] = 0 if node.external else 1 + max((depth[source] for source in _sources(node)), default=0)
        found[depth[place]].append(place)
    return [found[level] for level in sorted(found)]


def lowered(graph: Graph, results: Sequence[tuple[int, complex]]) -> Plan:
    """The plan of some nodes with their factors, level by level.

    >>> graph = Graph()
    >>> one, two = (graph.external("number", leg, 0, 0) for leg in (0, 1))
    >>> product = graph.add("number_number", [one, two], 2.0)
    >>> print(lowered(graph, [(product.node, product.factor)]))
    2 wave functions, 1 steps, 3 numbers a point
         2 += 1+0j number_number(0, 1)
    """
    nodes = needed(graph, (node for node, _ in results))
    rows: dict[int, int] = {}
    count = 0
    waves: list[Wave] = []
    steps: list[Step] = []
    sets: dict[int, int] = {}
    for level in levels(graph, nodes):
        for place in level:
            rows[place] = count
            node = graph.nodes[place]
            count += COMPONENTS[node.shape]
            if node.external:
                waves.append(Wave(*node.external, node.shape, rows[place]))
        steps += _steps(graph, level, rows, sets)
    found = tuple((rows[node], factor) for node, factor in results)
    return Plan(count, tuple(sets), tuple(waves), tuple(steps), found)


def _steps(graph: Graph, level: Sequence[int], rows: dict[int, int], sets: dict[int, int]) -> list[Step]:
    """Operations by kind, and by how many terms of the same node stand before: no step writes a row twice."""
    groups: dict[tuple[int, str], list[tuple[int, tuple[int, ...], complex]]] = defaultdict(list)
    for place in level:
        for index, term in enumerate(graph.nodes[place].terms):
            inputs = tuple(
                sets.setdefault(entry, len(sets)) if shape == "momentum" else rows[entry]
                for entry, shape in zip(term.inputs, KINDS[term.kind].inputs, strict=True)
            )
            groups[index, term.kind].append((rows[place], inputs, term.coefficient))
    return [
        Step(kind, *(tuple(column) for column in zip(*entries, strict=True)))
        for (_, kind), entries in sorted(groups.items())
    ]


def restricted(plan: Plan, results: Sequence[int]) -> Plan:
    """The part of a plan that some of its results need, given by their places; rows and sets are numbered anew.

    >>> graph = Graph()
    >>> one, two = (graph.external("number", leg, 0, 0) for leg in (0, 1))
    >>> products = [graph.add("number_number", [one, other]) for other in (one, two)]
    >>> print(restricted(lowered(graph, [(product.node, product.factor) for product in products]), [0]))
    1 wave functions, 1 steps, 2 numbers a point
         1 += 1+0j number_number(0, 0)
    """
    wanted = {plan.results[place][0] for place in results}
    steps: list[Step] = []
    for step in reversed(plan.steps):
        kept = [place for place, output in enumerate(step.outputs) if output in wanted]
        shapes = KINDS[step.kind].inputs
        for place in kept:
            wanted.update(row for row, shape in zip(step.inputs[place], shapes, strict=True) if shape != "momentum")
        if kept:
            outputs, inputs = (tuple(step.outputs[k] for k in kept), tuple(step.inputs[k] for k in kept))
            steps.append(Step(step.kind, outputs, inputs, tuple(step.coefficients[k] for k in kept)))
    steps.reverse()
    components = {wave.row: COMPONENTS[wave.shape] for wave in plan.waves if wave.row in wanted}
    for step in steps:
        components |= dict.fromkeys(step.outputs, COMPONENTS[KINDS[step.kind].output])
    rows: dict[int, int] = {}
    count = 0
    for row, size in components.items():
        rows[row] = count
        count += size
    sets: dict[int, int] = {}
    moved = [
        Step(
            step.kind,
            tuple(rows[output] for output in step.outputs),
            tuple(
                tuple(
                    sets.setdefault(plan.sets[entry], len(sets)) if shape == "momentum" else rows[entry]
                    for entry, shape in zip(inputs, KINDS[step.kind].inputs, strict=True)
                )
                for inputs in step.inputs
            ),
            step.coefficients,
        )
        for step in steps
    ]
    waves = tuple(replace(wave, row=rows[wave.row]) for wave in plan.waves if wave.row in rows)
    found = tuple((rows[row], factor) for row, factor in (plan.results[place] for place in results))
    return Plan(count, tuple(sets), waves, tuple(moved), found)
