"""Squared matrix elements of one process by recursion."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nisampler.base.kernels import tried
from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.recursion.build import Output, Recursion
from nisampler.processes.amplitudes.recursion.colours import Indices, String, colour_matrix
from nisampler.processes.amplitudes.recursion.loop import Loop
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.plan import lowered, restricted
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.amplitudes.recursion.resonances import Chains, Shape, identical
from nisampler.processes.amplitudes.recursion.waves import Leg, light_cone, wave
from nisampler.processes.amplitudes.strings import Product, Resonance
from nisampler.processes.amplitudes.tree import ColourFlow, by_number
from nisampler.processes.constants import GLUON, HIGGS
from nisampler.processes.particles import conjugate, is_fermion, is_quark

_ZERO, _EQUAL = 1e-24, 1e-9
# Operations of a plan in whose time wave functions and momenta, and one entry of a colour sum, are done.
_OVERHEAD, _CONTRACTION = 75.0, 0.4
_SLOW = "matrix elements run in plain torch, many times as slowly"


def spins(code: int, mass: float) -> tuple[int, ...]:
    """Helicities of a particle.

    >>> spins(24, 80.4), spins(21, 0.0), spins(25, 125.0)
    ((-1, 0, 1), (-1, 1), (0,))
    """
    if code == HIGGS:
        return (0,)
    return (-1, 0, 1) if mass and not is_fermion(code) else (-1, 1)


class MatrixElement:
    r"""|M|^2 of a process with given legs, averaged over initial and summed over final spins and colours.

    Helicities whose amplitudes vanish, or are equal to those of another one at every momentum, are found at a few
    momenta when it is made, and not computed. Points run through compiled code where llvmlite is installed, and through
    a kernel of Triton on a GPU; where gradients are asked for, or either is missing, through plain torch.

    Particles that are legs are stable: their propagators have no width where they cannot be on shell, such as that of a
    top that radiates, and with complex masses none at all.

    Parameters
    ----------
    initial, final
        PDG codes.
    couplings
        The Feynman rules.
    strong
        Powers of g_s that the amplitude may have, all other couplings being electroweak; amplitudes of different powers
        interfere.
    produced
        What the collision makes, if some of it decays to the final legs: only diagrams with these resonances are taken,
        each with its propagator of fixed width. By default it makes the final legs.
    shape
        Whether resonances are on shell.
    colours
        Of all legs, as outgoing ones; by default their sum is taken. `SampledColours` says more.

    Raises
    ------
    AmplitudeError
        If no diagram exists, or a particle with a complex mass would be a leg and a resonance at once.

    Examples
    --------
    Muon pairs far below the Z: e^4 (1 + cos^2) at a right angle.

    >>> from nisampler.processes.parameters import StandardModel
    >>> model = StandardModel()
    >>> element = MatrixElement((11, -11), (13, -13), Couplings(model, "zero"), {0})
    >>> p = torch.tensor([[[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5], [0.5, 0.5, 0, 0], [0.5, -0.5, 0, 0]]]).double()
    >>> (element.squared(p, torch.tensor([0.118])) / model.charge_squared**2).round(decimals=3).item()
    1.0
    """

    def __init__(
        self,
        initial: Sequence[int],
        final: Sequence[int],
        couplings: Couplings,
        strong: set[int],
        produced: Sequence[Product] = (),
        shape: Shape = "on_shell",
        colours: Sequence[Indices] | None = None,
    ) -> None:
        self.initial, self.final, self.strong = tuple(initial), tuple(final), set(strong)
        codes = (*self.initial, *self.final)
        if couplings.scheme == "complex":
            couplings = replace(couplings, stable=frozenset(map(abs, codes)))
        self.couplings, self.dtype = couplings, torch.complex128
        self.legs = [Leg(code, place < len(self.initial), couplings.mass(code)) for place, code in enumerate(codes)]
        self.outgoing = tuple(conjugate(leg.code) if leg.incoming else leg.code for leg in self.legs)
        self.helicities = [spins(leg.code, leg.mass) for leg in self.legs]
        produced = produced or range(len(self.final))
        resonances = [item for part in produced if isinstance(part, Resonance) for item in part.chain]
        chains = Chains.of(resonances, len(self.initial))
        incoming, on_shell = len(self.initial), shape == "on_shell"
        recursion = Recursion(self.outgoing, couplings, self.helicities, strong, incoming, chains, on_shell, colours)
        if not recursion.outputs:
            raise AmplitudeError(
                f"no tree diagram of {self.initial} > {self.final} with {sorted(strong)} as the power of g_s: "
                "a charge or a flavour is not conserved, or these orders do not exist"
            )
        self._lower(recursion, {output.helicities: 1 for output in recursion.outputs})
        self._alike = self._different_helicities()
        self._lower(recursion, {kept: len(alike) for kept, alike in self._alike.items()})
        self._singles: dict[int, MatrixElement] = {}
        self.average = 1.0
        for leg, helicities in zip(self.legs, self.helicities, strict=True):
            if leg.incoming:
                count = 8 if leg.code == GLUON else 3 if is_quark(leg.code) else 1
                self.average /= count * len(helicities)
        self.average /= identical(produced, self.final)

    def use_single_precision(self) -> None:
        """Let plain torch and GPUs compute amplitudes in complex64: four to five digits, in half the memory.

        Raises
        ------
        AmplitudeError
            If a massive vector boson is exchanged: large terms cancel then, as (E / M)^2.

        Examples
        --------
        >>> from nisampler.processes.parameters import StandardModel
        >>> couplings = Couplings(StandardModel())
        >>> MatrixElement((21, 21), (6, -6), couplings, {2}).use_single_precision()
        >>> MatrixElement((2, -2), (24, -24), couplings, {0}).use_single_precision()
        Traceback (most recent call last):
        ...
        nisampler.errors.AmplitudeError: amplitudes with massive vector bosons need double precision: ...
        """
        if any(step.kind == "along" for step in self.plan.steps) or any(
            leg.mass and len(found) == 3 for leg, found in zip(self.legs, self.helicities, strict=True)
        ):
            raise AmplitudeError(
                "amplitudes with massive vector bosons need double precision: their parts cancel as (E / M)^2"
            )
        self.dtype = torch.complex64

    def _lower(self, recursion: Recursion, times: dict[int, int]) -> None:
        """Keep the outputs of these helicities, each so many times."""
        outputs = [output for output in recursion.outputs if output.helicities in times]
        self.outputs: list[Output] = sorted(outputs, key=lambda o: (o.helicities, o.strings, o.strong))
        refs = [recursion.outputs[output] for output in self.outputs]
        self.plan = lowered(recursion.graph, [(ref.node, ref.factor) for ref in refs])
        self.flows: list[tuple[String, ...]] = sorted({output.strings for output in self.outputs})
        self.matrix = torch.from_numpy(colour_matrix(self.flows))
        self._times = times
        self._tables: dict[tuple[torch.device, torch.dtype], _Tables] = {}

    def _different_helicities(self) -> dict[int, list[int]]:
        """One of each class of equal helicities, and those that it stands for."""
        momenta = probe_momenta([leg.mass for leg in self.legs], len(self.initial))
        sums = self._by_helicity(momenta, torch.ones(1, dtype=torch.float64))
        values = dict(zip(sorted(self._times), sums, strict=True))
        largest = torch.stack(list(values.values())).amax(0)
        found: dict[int, list[int]] = {}
        # Representatives agree in the first legs as far as they can: then they share currents.
        for helicities in sorted(values, key=lambda h: [h >> 2 * leg & 3 for leg in range(len(self.legs))]):
            value = values[helicities]
            if bool((value <= _ZERO * largest).all()):
                continue
            alike = (k for k in found if torch.allclose(values[k], value, rtol=_EQUAL, atol=0.0))
            found.setdefault(next(alike, helicities), []).append(helicities)
        return found

    @property
    def helicity_count(self) -> int:
        """Classes of helicities whose squared amplitudes differ."""
        return len(self._times)

    @cached_property
    def helicity_classes(self) -> list[list[tuple[int, ...]]]:
        """Members of each class: the helicity of each leg, of incoming particles as they come in.

        All members of a class have the same squared amplitude everywhere.
        """
        return [[self._physical(member) for member in self._alike[kept]] for kept in sorted(self._alike)]

    def _physical(self, helicities: int) -> tuple[int, ...]:
        outgoing = [self.helicities[leg][helicities >> 2 * leg & 3] for leg in range(len(self.legs))]
        return tuple(-h if leg.incoming else h for leg, h in zip(self.legs, outgoing, strict=True))

    @property
    def operations(self) -> float:
        """About how many operations of the plan a point takes: wave functions and colour sums count as some of them."""
        steps = sum(len(step.outputs) for step in self.plan.steps)
        return _OVERHEAD + steps + _CONTRACTION * len(self._times) * len(self.flows) ** 2

    def contributing_helicities(self) -> list[set[int]]:
        """For each leg the helicities that contribute, of incoming particles as they come in."""
        members = itertools.chain.from_iterable(self.helicity_classes)
        return [set(column) for column in zip(*members, strict=True)]

    def of_class(self, helicities: int) -> MatrixElement:
        """What one class of helicities contributes, with a plan of its own; those of all classes add up to this.

        >>> from nisampler.processes.parameters import StandardModel
        >>> element = MatrixElement((11, -11), (13, -13), Couplings(StandardModel()), {0})
        >>> element.helicity_count, len(element.of_class(1).plan.waves), len(element.plan.waves)
        (3, 4, 8)

        Raises
        ------
        AmplitudeError
            If there is no such class.
        """
        if not 0 <= helicities < self.helicity_count:
            raise AmplitudeError(f"classes of helicities are 0 to {self.helicity_count - 1}, got {helicities}")
        if helicities not in self._singles:
            kept = sorted(self._times)[helicities]
            places = [place for place, output in enumerate(self.outputs) if output.helicities == kept]
            single = copy.copy(self)
            for cached in ("_tiles", "helicity_classes"):
                single.__dict__.pop(cached, None)
            single.outputs, single.plan = [self.outputs[place] for place in places], restricted(self.plan, places)
            single._alike, single._times, single._singles = {kept: self._alike[kept]}, {kept: self._times[kept]}, {}
            single._tables = {}
            self._singles[helicities] = single
        return self._singles[helicities]

    def squared_of(self, helicities: int | Tensor, p: Tensor, alpha_s: Tensor) -> Tensor:
        """What the class of helicities (n,), or one for all, contributes to |M|^2 (n,) at each point.

        The sum over all classes is `squared`; so is the average of a class drawn with any probabilities, divided by its
        own. Points are sorted by class, and each class runs through its own plan. Other arguments as `squared`.

        >>> from nisampler.processes.parameters import StandardModel
        >>> element = MatrixElement((11, -11), (13, -13), Couplings(StandardModel()), {0})
        >>> p, alpha_s = probe_momenta([0.0] * 4), torch.ones(1)
        >>> parts = [element.squared_of(k, p, alpha_s) for k in range(element.helicity_count)]
        >>> torch.allclose(sum(parts), element.squared(p, alpha_s))
        True

        Raises
        ------
        AmplitudeError
            If there is no such class.
        ShapeError
            On momenta or classes of another shape.
        """
        self._check(p)
        if isinstance(helicities, int):
            return self.of_class(helicities).squared(p, alpha_s)
        if helicities.shape != p.shape[:1] or helicities.is_floating_point():
            raise ShapeError(f"classes must be ({len(p)},) integers, got {helicities.dtype} {tuple(helicities.shape)}")
        alpha_s = alpha_s.expand(len(p))
        return by_number(helicities, lambda kept, rows: self.of_class(kept).squared(p[rows], alpha_s[rows]), p)

    @cached_property
    def colour_lines(self) -> list[ColourFlow]:
        """The colour lines of each flow, as `nisampler.processes.amplitudes.tree.colour_tags` takes them."""
        lines: list[ColourFlow] = []
        for strings in self.flows:
            found: list[tuple[int, int]] = []
            for quark, word, antiquark in strings:
                ends = [quark, *word, antiquark] if quark >= 0 else [*word, word[0]]
                found += itertools.pairwise(ends)
            lines.append(tuple(found))
        return lines

    @cached_property
    def _tiles(self) -> Any:
        """The compiled loop, or None where llvmlite is not installed."""

        def load() -> Any:
            from nisampler.processes.amplitudes.recursion.compiled.tiles import Tiles, kernel

            kernel()
            places = {strings: place for place, strings in enumerate(self.flows)}
            results = [(o.helicities, places[o.strings], o.strong) for o in self.outputs]
            return Tiles(self.plan, self.legs, results, self._times, self.matrix.numpy())

        return tried(load, _SLOW, "llvmlite")

    def tables(self, device: torch.device) -> _Tables:
        """What plain torch needs on a device."""
        if (device, self.dtype) not in self._tables:
            self._tables[device, self.dtype] = _Tables(self, device)
        return self._tables[device, self.dtype]

    def _momenta(self, p: Tensor) -> Tensor:
        """Components (sets, 4, n) of the outgoing momenta of the plan's sets of legs."""
        cones = torch.stack([light_cone(p[:, i], leg.mass) for i, leg in enumerate(self.legs)], dim=1)
        plus, minus, x, y = torch.einsum("sl,nlc->csn", self.tables(p.device).members, cones)
        zero = torch.zeros_like(plus)
        parts = torch.complex(plus, zero), torch.complex(minus, zero), torch.complex(x, y), torch.complex(x, -y)
        return torch.stack(parts, dim=1)

    def amplitudes(self, p: Tensor) -> Tensor:
        """Partial amplitudes (outputs, n) without the strong coupling, by torch; p (n, legs, 4) in GeV."""
        self._check(p)
        waves = [wave(self.legs[w.leg], p[:, w.leg], w.helicity or 0, w.part) for w in self.plan.waves]
        return self.tables(p.device).loop(torch.cat(waves).to(self.dtype), self._momenta(p).to(self.dtype))

    def _flow_amplitudes(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """Amplitudes (helicities, flows, n) of the helicities kept, in the order of their numbers."""
        tables, g = self.tables(p.device), (4 * math.pi * alpha_s).sqrt()
        values = self.amplitudes(p) * g**tables.powers
        sums = values.new_zeros(len(self._times) * len(self.flows), len(p)).index_add(0, tables.places, values)
        return sums.view(len(self._times), len(self.flows), len(p))

    def _by_helicity(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """Colour sums (helicities, n) of the helicities kept, in the order of their numbers."""
        vectors = self._flow_amplitudes(p, alpha_s)
        matrix = self.tables(p.device).matrix.to(vectors)
        return (vectors.conj() * torch.einsum("fg,hgn->hfn", matrix, vectors)).sum(1).real

    def squared(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n,) in GeV^(8 - 2 legs) of physical momenta p (n, legs, 4) in GeV, incoming ones first.

        alpha_s (n,) or (1,) is the strong coupling of each point. Raises ShapeError on momenta of another shape.
        """
        self._check(p)
        if self._compiled(p, alpha_s):
            return self._tile_sums(p, alpha_s)[0].to(p) * self.average
        return torch.cat([self._weighted(*part) for part in self._pieces(p, alpha_s)]).to(p) * self.average

    def _weighted(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """Sums (n,) over helicities and colours by torch."""
        return self.tables(p.device).times @ self._by_helicity(p, alpha_s).double()

    def _flow_weights(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """Sums (flows, n) over helicities by torch."""
        vectors = self._flow_amplitudes(p, alpha_s)
        return torch.einsum("h,hfn->fn", self.tables(p.device).times, (vectors.conj() * vectors).real.double())

    def _pieces(self, p: Tensor, alpha_s: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Momenta and couplings, at most as many as the loop takes at a time."""
        most = self.tables(p.device).loop.most
        return zip(torch.split(p.double(), most), torch.split(alpha_s.double().expand(len(p)), most), strict=True)

    def flow_weights(self, p: Tensor, alpha_s: Tensor) -> Tensor:
        """Squared amplitudes (n, flows) of each colour flow alone, summed over helicities; arguments as `squared`."""
        self._check(p)
        if self._compiled(p, alpha_s):
            return self._tile_sums(p, alpha_s, flows=True)[1].T
        return torch.cat([self._flow_weights(*part) for part in self._pieces(p, alpha_s)], 1).T.to(p)

    def _tile_sums(self, p: Tensor, alpha_s: Tensor, flows: bool = False) -> tuple[Tensor, Tensor]:
        """Sums (n,) and, if asked for, (flows, n) of the compiled loop."""
        g = (4 * math.pi * alpha_s).sqrt().expand(len(p)).double().contiguous()
        squares, sums = self._tiles.squared(p.double().contiguous().numpy(), g.numpy(), flows)
        return torch.from_numpy(squares), torch.from_numpy(sums)

    def _compiled(self, p: Tensor, alpha_s: Tensor) -> bool:
        differentiated = torch.is_grad_enabled() and (p.requires_grad or alpha_s.requires_grad)
        return p.device.type == "cpu" and not differentiated and self._tiles is not None

    def _check(self, p: Tensor) -> None:
        if p.ndim != 3 or p.shape[1:] != (len(self.legs), 4):
            raise ShapeError(f"momenta must be (n, {len(self.legs)}, 4), got {tuple(p.shape)}")


class _Tables:
    """What plain torch needs beside the plan, on a device.

    Attributes
    ----------
    loop
        The plan.
    members
        (sets, legs): 1 or -1 for legs of a set that go out or come in, else 0.
    powers, places
        Of each result: its power (results, 1) of g, and where it stands among (helicities, flows).
    times
        (helicities,): how many each stands for.
    matrix
        Of colours.
    """

    def __init__(self, element: MatrixElement, device: torch.device) -> None:
        self.loop = Loop(element.plan, device, element.dtype)
        signs = [-1.0 if leg.incoming else 1.0 for leg in element.legs]
        rows = [[sign * (legs >> i & 1) for i, sign in enumerate(signs)] for legs in element.plan.sets]
        self.members = torch.tensor(rows, dtype=torch.float64, device=device).reshape(-1, len(signs))
        kept, flows = sorted(element._times), {strings: place for place, strings in enumerate(element.flows)}
        places = [kept.index(o.helicities) * len(flows) + flows[o.strings] for o in element.outputs]
        self.places = torch.tensor(places, device=device)
        self.powers = torch.tensor([[o.strong] for o in element.outputs], device=device)
        self.times = torch.tensor([float(element._times[h]) for h in kept], dtype=torch.float64, device=device)
        self.matrix = element.matrix.to(device)
