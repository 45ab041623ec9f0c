"""Sampled colours: squared amplitudes of legs with given colours, for many gluons far fewer currents than colour flows.

Gluons have a row and a column, as in hep-ph/0209271. Amplitudes of legs that differ by the names of the three colours,
or by the order of gluons, are one: few plans serve all colours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.recursion.colours import NUMBERS, Indices
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.skeleton import strong_powers
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.amplitudes.tree import by_number
from nisampler.processes.constants import GLUON
from nisampler.processes.particles import conjugate, is_quark

_RENAMINGS = [(0, *order) for order in itertools.permutations(NUMBERS)]
_SIZE = 1 + len(NUMBERS)


class SampledColours:
    """|M|^2 of a process for given colours of its legs; the sum over all colours is `MatrixElement.squared`.

    Colours of a leg are a row and a column, 1 to 3, of the particle as an outgoing one: a quark has the column, an
    antiquark the row, a gluon both, anything else has 0. What the sums of rows and columns do not allow is zero.

    Parameters
    ----------
    initial, final
        PDG codes.
    couplings
        The Feynman rules.
    strong
        Powers of g_s that the amplitude may have.

    Raises
    ------
    AmplitudeError
        If no diagram exists.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.probes import probe_momenta
    >>> from nisampler.processes.parameters import StandardModel
    >>> couplings = Couplings(StandardModel())
    >>> sampled = SampledColours((2, -1), (24, 21), couplings, {1})
    >>> p, alpha_s = probe_momenta([0.0, 0.0, couplings.mass(24), 0.0], points=1), torch.ones(1)
    >>> every = sampled.all_colours()
    >>> values = sampled.squared_of(every, p.expand(len(every), -1, -1), alpha_s)
    >>> whole = MatrixElement((2, -1), (24, 21), couplings, {1}).squared(p, alpha_s)
    >>> torch.allclose(values.sum(), whole)
    True
    """

    def __init__(self, initial: Sequence[int], final: Sequence[int], couplings: Couplings, strong: set[int]) -> None:
        self._process = tuple(initial), tuple(final), couplings, set(strong)
        self.outgoing = tuple(conjugate(code) for code in initial) + tuple(final)
        if not strong & strong_powers(self.outgoing, Vertices(couplings)):
            raise AmplitudeError(f"no tree diagram of {initial} > {final} with {sorted(strong)} as the power of g_s")
        kinds = [(code < 0 or code == GLUON, code > 0) if _coloured(code) else (False, False) for code in self.outgoing]
        self._rows, self._columns = ([leg for leg, kind in enumerate(kinds) if kind[side]] for side in (0, 1))
        gluons = [leg for leg, code in enumerate(self.outgoing) if code == GLUON]
        # Gluons of one side may change places.
        self._groups = [[leg for leg in gluons if (leg < len(initial)) == first] for first in (True, False)]
        self._elements: dict[tuple[int, ...], MatrixElement | None] = {}

    @property
    def kinds(self) -> int:
        """Kinds of colours that have been asked for, each with a plan of its own."""
        return len(self._elements)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Colours (n, legs, 2), rows and columns, and their probabilities (n,).

        Columns are uniform, rows a permutation of them: no colour that contributes has probability zero.
        """
        device, count = generator.device, len(self._columns)
        columns = torch.randint(1, _SIZE, (n, count), generator=generator, device=device)
        order = torch.rand(n, count, generator=generator, device=device).argsort(1)
        found = torch.zeros(n, len(self.outgoing), 2, dtype=torch.long, device=device)
        found[:, self._columns, 1] = columns
        found[:, self._rows, 0] = columns.gather(1, order)
        return found, self.probability(found)

    def probability(self, colours: Tensor) -> Tensor:
        """With which `draw` makes colours (n, legs, 2)."""
        numbers = torch.arange(1, _SIZE, device=colours.device)
        rows, columns = ((colours[..., side, None] == numbers).sum(1).double() for side in (0, 1))
        count = len(self._columns)
        logs = torch.lgamma(columns + 1).sum(1) - math.lgamma(count + 1) - count * math.log(len(NUMBERS))
        return torch.where((rows == columns).all(1), logs.exp(), 0.0)

    def all_colours(self) -> Tensor:
        """Every choice (k, legs, 2) that `draw` can make, once."""
        pairs = [
            (rows, columns)
            for columns in itertools.product(NUMBERS, repeat=len(self._columns))
            for rows in sorted(set(itertools.permutations(columns)))
        ]
        found = torch.zeros(len(pairs), len(self.outgoing), 2, dtype=torch.long)
        for side, legs in enumerate((self._rows, self._columns)):
            found[:, legs, side] = torch.tensor([pair[side] for pair in pairs], dtype=torch.long)
        return found

    def squared_of(self, colours: Tensor, p: Tensor, alpha_s: Tensor) -> Tensor:
        """What the colours (n, legs, 2) contribute to |M|^2 (n,) at momenta p (n, legs, 4) in GeV, incoming ones first.

        Divided by their probabilities its average is |M|^2. alpha_s (n,) or (1,) is the strong coupling.

        Raises
        ------
        ShapeError
            On colours or momenta of another shape.
        """
        legs = len(self.outgoing)
        if p.ndim != 3 or p.shape[1:] != (legs, 4) or colours.shape != (len(p), legs, 2):
            raise ShapeError(
                f"momenta must be (n, {legs}, 4) and colours (n, {legs}, 2), got {tuple(p.shape)} and "
                f"{tuple(colours.shape)}"
            )
        keys, order = self._canonical(colours)
        placed, alpha_s = torch.take_along_dim(p, order.unsqueeze(2), 1), alpha_s.expand(len(p))

        def value(key: int, rows: Tensor) -> Tensor:
            element = self._element(key)
            return p.new_zeros(len(rows)) if element is None else element.squared(placed[rows], alpha_s[rows])

        return by_number(keys, value, p)

    def _canonical(self, colours: Tensor) -> tuple[Tensor, Tensor]:
        """A number (n,) for each kind of colours, and which leg (n, legs) stands at each place of it."""
        names = colours.new_tensor(_RENAMINGS)[:, colours]
        codes = _SIZE * names[..., 0] + names[..., 1]
        orders = torch.arange(codes.shape[2], device=codes.device).expand(codes.shape).clone()
        for group in self._groups:
            orders[..., group] = codes.new_tensor(group)[codes[..., group].argsort(dim=2, stable=True)]
        sorted_ = codes.gather(2, orders)
        powers = (_SIZE**2) ** torch.arange(codes.shape[2], device=codes.device)
        keys, best = (sorted_ * powers).sum(2).min(0)
        return keys, orders[best, torch.arange(len(best), device=best.device)]

    def _element(self, key: int) -> MatrixElement | None:
        """The amplitude of a kind of colours, None where it is zero."""
        codes = tuple(key // _SIZE ** (2 * leg) % _SIZE**2 for leg in range(len(self.outgoing)))
        if codes not in self._elements:
            initial, final, couplings, strong = self._process
            indices = [Indices(code // _SIZE, code % _SIZE) for code in codes]
            try:
                self._elements[codes] = MatrixElement(initial, final, couplings, strong, colours=indices)
            except AmplitudeError:
                self._elements[codes] = None
        return self._elements[codes]


def _coloured(code: int) -> bool:
    return code == GLUON or is_quark(code)
