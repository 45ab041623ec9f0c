"""From external particles and coupling orders to a graph of currents: recursion over subsets of legs.

Source: Berends and Giele, Nucl. Phys. B306 (1988) 759; colour flows as in hep-ph/0209271.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.recursion.colours import NUMBERS, Colour, Flow, Indices, String
from nisampler.processes.amplitudes.recursion.graph import Graph, Ref, Term
from nisampler.processes.amplitudes.recursion.model import MASSLESS_BOSONS, Couplings
from nisampler.processes.amplitudes.recursion.resonances import Chains
from nisampler.processes.amplitudes.recursion.skeleton import partitions
from nisampler.processes.amplitudes.recursion.vertices import Vertex, Vertices
from nisampler.processes.constants import COLOURS, GLUON, HIGGS
from nisampler.processes.particles import NAMES, conjugate, is_fermion, is_quark

Parts = tuple[Ref | None, ...]
"""The components of a current: one, or for a fermion the parts that meet the left and the right part of a column."""


@dataclass(frozen=True)
class State:
    """What tells currents of one set of legs apart.

    Attributes
    ----------
    code
        Particle whose quantum numbers the set has.
    flow
        Its colour.
    strong
        Power of the strong coupling.
    helicities
        Index of the helicity of each leg, two bits a leg; 0 where helicities are not told apart.

    Examples
    --------
    >>> State(21, Flow("word", left=((2,), -1)), strong=0, helicities=1 << 4).code
    21
    """

    code: int
    flow: Colour
    strong: int
    helicities: int


@dataclass(frozen=True)
class Output:
    """A partial amplitude: helicities of all legs, complete colour strings and the power of the strong coupling.

    >>> Output(5, ((0, (2,), 1),), 1).strings
    ((0, (2,), 1),)
    """

    helicities: int
    strings: tuple[String, ...]
    strong: int


Acc = dict[State, list[list[Term]]]


class Recursion:
    """Builds the graph of one process.

    Parameters
    ----------
    codes
        PDG codes of all legs as outgoing particles.
    couplings
        The Feynman rules.
    helicities
        For each leg the helicities that are told apart; ``(None,)`` for one wave function that holds any.
    strong
        Powers of the strong coupling that the amplitude may have.
    incoming
        How many of the legs, the first ones, come in.
    chains
        Sets of legs that come from a resonance each; only diagrams with all of these resonances are taken.
    on_shell
        Whether resonances are on shell: then their other propagators are beside a particle that is as good as stable.
    colours
        Colours of the legs, which currents then have in place of strings of legs: there are far fewer of them for many
        gluons. A gluon's matrix is that of its indices without its trace.

    Raises
    ------
    AmplitudeError
        If a particle without width could be on shell with complex masses.

    Examples
    --------
    >>> from nisampler.processes.parameters import StandardModel
    >>> couplings = Couplings(StandardModel())
    >>> recursion = Recursion([-11, 11, 13, -13], couplings, [(-1, 1)] * 4, {0})
    >>> len(recursion.outputs)  # the helicities with a vector current
    4
    """

    def __init__(
        self,
        codes: Sequence[int],
        couplings: Couplings,
        helicities: Sequence[Sequence[int | None]],
        strong: set[int],
        incoming: int = 2,
        chains: Chains | None = None,
        on_shell: bool = True,
        colours: Sequence[Indices] | None = None,
    ) -> None:
        self._colours = colours
        self._incoming = (1 << incoming) - 1
        self._whole, self._on_shell = chains or Chains({}), on_shell
        self._chains = self._whole.without_last(len(codes))
        self.codes, self.helicities, self.strong = tuple(codes), [tuple(h) for h in helicities], strong
        self.couplings, self.vertices, self.graph = couplings, Vertices(couplings), Graph()
        self.legs = len(self.codes)
        self._fermions = sum(1 << leg for leg, code in enumerate(self.codes) if is_fermion(code))
        self._currents: dict[int, dict[int, list[tuple[State, Parts]]]] = {}
        self.outputs = self._run()

    def _external(self, leg: int) -> Iterator[tuple[State, Parts]]:
        code = self.codes[leg]
        if self._colours is not None:
            yield from self._coloured(leg, self._colours[leg])
            return
        if not is_quark(code):
            flow = Flow("word", left=((leg,), -1)) if code == GLUON else Flow()
        else:
            flow = Flow("quark", right=(leg, ())) if code > 0 else Flow("antiquark", left=((), leg))
        for index, helicity in enumerate(self.helicities[leg]):
            yield State(code, flow, 0, index << 2 * leg), self._wave(leg, helicity)

    def _coloured(self, leg: int, own: Indices) -> Iterator[tuple[State, Parts]]:
        matrices = {own: 1.0}
        # The part of a gluon that is a singlet meets quarks alone.
        if own.left == own.right > 0 and any(map(is_quark, self.codes)):
            matrices = {Indices(i, i): float(i == own.left) - 1 / COLOURS for i in NUMBERS}
        for index, helicity in enumerate(self.helicities[leg]):
            parts = self._wave(leg, helicity)
            for colour, factor in matrices.items():
                times = tuple(part and Ref(part.node, factor * part.factor) for part in parts)
                yield State(self.codes[leg], colour, 0, index << 2 * leg), times

    def _wave(self, leg: int, helicity: int | None) -> Parts:
        code = self.codes[leg]
        if code == HIGGS:
            return (self.graph.external("number", leg, helicity, 0),)
        if not is_fermion(code):
            return (self.graph.external("vector", leg, helicity, 0),)
        # A massless outgoing fermion of helicity -1 is a left-handed row, an antifermion of helicity +1 a left-handed
        # column; a left-handed row meets the right part of a column.
        present = [True, True]
        if helicity is not None and not self.couplings.mass(code):
            present[0 if helicity == -1 else 1] = False
        return tuple(
            self.graph.external("spinor", leg, helicity, part) if here else None for part, here in enumerate(present)
        )

    def _run(self) -> dict[Output, Ref]:
        rest = self.legs - 1
        for leg in range(rest):
            self._store(1 << leg, list(self._external(leg)))
        for size in range(2, rest):
            for legs in map(sum, itertools.combinations([1 << leg for leg in range(rest)], size)):
                sources = self._sources(legs, self._chains.codes.get(legs)) if self._chains.allow(legs) else {}
                self._store(legs, [(s, p) for s, t in sources.items() if (p := self._propagated(legs, s, t))])
        return self._closed(self._sources((1 << rest) - 1, conjugate(self.codes[-1])))

    def _store(self, legs: int, currents: list[tuple[State, Parts]]) -> None:
        table: dict[int, list[tuple[State, Parts]]] = defaultdict(list)
        for state, parts in currents:
            table[state.code].append((state, parts))
        self._currents[legs] = table

    def _sources(self, legs: int, only: int | None = None) -> Acc:
        """Sums of vertices over the partitions of a set, for one code or for all."""
        found: Acc = defaultdict(lambda: [[], []])
        for a, b in partitions(legs):
            for (code_a, first), (code_b, second) in itertools.product(
                self._currents[a].items(), self._currents[b].items()
            ):
                for vertex in self.vertices.pair(code_a, code_b):
                    if only in (None, vertex.output):
                        for inputs in itertools.product(first, second):
                            self._combine(found, vertex, (a, b), inputs)
            for b_, c in partitions(b):
                if self._chains.allow_vertex((a, b_, c)):
                    self._add_triples(found, (a, b_, c), only)
        return found

    def _add_triples(self, found: Acc, sets: tuple[int, int, int], only: int | None) -> None:
        for entries in itertools.product(*(self._currents[legs].items() for legs in sets)):
            for vertex in self.vertices.triple(*(code for code, _ in entries)):
                if only in (None, vertex.output):
                    for inputs in itertools.product(*(currents for _, currents in entries)):
                        self._combine(found, vertex, sets, inputs)

    def _combine(
        self, found: Acc, vertex: Vertex, sets: tuple[int, ...], inputs: tuple[tuple[State, Parts], ...]
    ) -> None:
        strong = vertex.strong + sum(state.strong for state, _ in inputs)
        if strong > max(self.strong):
            return
        helicities = sum(state.helicities for state, _ in inputs)
        places = [vertex.order[i] for i in range(len(inputs))]
        ordered, legs = [inputs[place] for place in places], [sets[place] for place in places]
        sign = self._permutation_sign(legs)
        for flow, factor, turned in _flows(vertex, [state.flow for state, _ in ordered]):
            if flow is None:
                continue
            parts = [ordered[place][1] for place in turned]
            where = [legs[place] for place in turned]
            state = State(vertex.output, flow, strong, helicities)
            for part, term in self._terms(vertex, parts, where, sign * factor):
                found[state][part].append(term)

    def _permutation_sign(self, sets: Sequence[int]) -> int:
        """Sign of sorting the fermions of sets that follow each other."""
        swaps = 0
        for first, second in itertools.combinations(sets, 2):
            remaining = second & self._fermions
            while remaining:
                lowest = remaining & -remaining
                swaps += (first & self._fermions & ~(2 * lowest - 1)).bit_count()
                remaining ^= lowest
        return -1 if swaps % 2 else 1

    def _terms(
        self, vertex: Vertex, parts: Sequence[Parts], sets: Sequence[int], factor: complex
    ) -> Iterator[tuple[int, Term]]:
        if vertex.kind == "current":
            yield from self._current_terms(vertex, parts[0], parts[1], factor)
        elif vertex.kind == "emission":
            yield from self._emission_terms(vertex, parts[0][0], parts[1], factor)
        else:
            inputs: list[Ref | int] = [part for (part,) in parts if part is not None]
            if vertex.kind == "three_vectors":
                inputs += sets
            yield 0, self.graph.term(vertex.kind, inputs, factor * vertex.couplings[0])

    def _current_terms(self, vertex: Vertex, row: Parts, column: Parts, factor: complex) -> Iterator[tuple[int, Term]]:
        if len(vertex.couplings) == 1:
            pairs = [("spinor_product", part, part, vertex.couplings[0]) for part in (0, 1)]
        else:
            left, right = vertex.couplings
            pairs = [("left_current", 1, 0, left), ("right_current", 0, 1, right)]
        for kind, first, second, coupling in pairs:
            one, two = row[first], column[second]
            if one is not None and two is not None and coupling:
                yield 0, self.graph.term(kind, (one, two), factor * coupling)

    def _emission_terms(
        self, vertex: Vertex, boson: Ref | None, fermion: Parts, factor: complex
    ) -> Iterator[tuple[int, Term]]:
        if boson is None:
            return
        if len(vertex.couplings) == 1:
            moves = [("number_spinor", part, part, vertex.couplings[0]) for part in (0, 1)]
        else:
            left, right = vertex.couplings
            moves = (
                [("row_sigma_bar", 1, 0, left), ("row_sigma", 0, 1, right)]
                if vertex.output > 0
                else [("sigma_bar", 0, 1, left), ("sigma", 1, 0, right)]
            )
        for kind, source, target, coupling in moves:
            part = fermion[source]
            if part is not None and coupling:
                yield target, self.graph.term(kind, (boson, part), factor * coupling)

    def _propagated(self, legs: int, state: State, terms: list[list[Term]]) -> Parts | None:
        """Sources times propagators: -(p-slash + m) / D, (g - p p / M^2) / D or -1 / D; None where nothing is."""
        code, graph = state.code, self.graph
        sources = [graph.sum(part) for part in terms]
        if not any(sources):
            return None
        mass_squared = self._mass_squared(legs, code)
        over = graph.inverse_square(legs, mass_squared)
        if code == HIGGS:
            return (graph.add("number_number", (over, _given(sources[0])), -1.0),)
        if not is_fermion(code):
            whole = graph.term("number_vector", (over, _given(sources[0])), 1.0)
            if code in MASSLESS_BOSONS:
                return (graph.sum([whole]),)
            inverse = -1 / mass_squared
            return (graph.sum([whole, graph.term("along", (_given(sources[0]), legs, over), inverse)]),)
        kinds, sign = (
            (("slash_row_sigma_bar", "slash_row_sigma"), -1.0)
            if code > 0
            else (("slash_sigma", "slash_sigma_bar"), 1.0)
        )
        mass = self.couplings.numerator_mass(code)
        parts: list[Ref | None] = []
        for part, kind in enumerate(kinds):
            sums = [graph.term(kind, (legs, other, over), sign)] if (other := sources[1 - part]) else []
            if mass and (own := sources[part]):
                sums.append(graph.term("number_spinor", (over, own), -mass))
            parts.append(graph.sum(sums))
        return tuple(parts)

    def _mass_squared(self, legs: int, code: int) -> complex:
        """M^2 - i M Gamma of a propagator; M^2 where it is beside a leg of the same particle, and never on shell."""
        couplings = self.couplings
        sides = [(legs, code), (((1 << self.legs) - 1) ^ legs, conjugate(code))]
        decaying = [side for side in sides if not side[0] & self._incoming]
        beside = any(code in self._codes_of(side) for side, code in decaying or sides)
        full = couplings.mass_squared(code)
        if beside and couplings.scheme == "fixed":
            return complex(full.real)
        if decaying and not beside and abs(code) in couplings.stable and couplings.decay_width(code):
            least = sum(map(couplings.mass, self._codes_of(decaying[0][0])))
            if least < couplings.mass(code):
                raise AmplitudeError(
                    f"{NAMES[abs(code)]} is a leg and a resonance at once, which complex masses do not allow: take the "
                    'scheme "fixed"'
                )
        return full

    def _codes_of(self, legs: int) -> list[int]:
        chains = self._whole if self._on_shell else Chains({})
        return chains.particles(legs, self.codes)

    def _closed(self, sources: Acc) -> dict[Output, Ref]:
        """Amplitudes: the sources of all legs but one, times the wave function of that one."""
        found: dict[Output, list[Term]] = defaultdict(list)
        last = list(self._external(self.legs - 1))
        for state, terms in sources.items():
            if state.strong not in self.strong:
                continue
            parts = [self.graph.sum(part) for part in terms]
            for end, wave in last:
                closed = _closed_flow(state.flow, end.flow)
                if closed is None:
                    continue
                output = Output(state.helicities + end.helicities, closed.strings, state.strong)
                for source, leg in zip(parts, wave, strict=False):
                    if source is not None and leg is not None:
                        kind = self.graph.nodes[leg.node].shape
                        name = {"vector": "vector_product", "spinor": "spinor_product", "number": "number_number"}[kind]
                        pair = (leg, source) if self.codes[-1] > 0 else (source, leg)
                        found[output].append(self.graph.term(name, pair, 1.0))
        summed = {output: self.graph.sum(terms) for output, terms in found.items()}
        return {output: ref for output, ref in summed.items() if ref is not None}


def _given(ref: Ref | None) -> Ref:
    if ref is None:
        raise RuntimeError("a boson has one part")
    return ref


def _flows(vertex: Vertex, flows: Sequence[Colour]) -> Iterator[tuple[Colour | None, complex, tuple[int, ...]]]:
    """Colours of the output, their factors, and which input stands where."""
    as_given = tuple(range(len(flows)))
    if vertex.colour == "joined":
        yield flows[0].joined(flows[1]), 1.0, as_given
    elif vertex.colour == "cut":
        yield flows[0].cut(flows[1]), 1.0, as_given
    elif vertex.colour == "times":
        boson, fermion = flows
        yield (fermion.times(boson) if vertex.output > 0 else boson.times(fermion)), 1.0, as_given
    elif vertex.colour == "commutator":
        yield flows[0].times(flows[1]), 1.0, as_given
        yield flows[1].times(flows[0]), -1.0, as_given
    elif vertex.colour == "ordered":
        for order in itertools.permutations(range(3)):
            first, middle, last = (flows[place] for place in order)
            start = first.times(middle)
            yield start and start.times(last), 1.0, (order[1], order[0], order[2])
    else:
        flow: Colour | None = flows[0]
        for other in flows[1:]:
            flow = flow and flow.beside(other)
        yield flow, 1.0, as_given


def _closed_flow(source: Colour, last: Colour) -> Colour | None:
    if last.kind == "none":
        return source
    if last.kind == "word":
        product = source.times(last)
        return product and product.traced()
    return source.times(last) if last.kind == "antiquark" else last.times(source)
