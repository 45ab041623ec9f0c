"""Quantities of some legs between two limits: what cuts given by text are, where no kind of its own says the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.base.four_vectors import pt
from nisampler.events.quantities import OF_EVENTS, QUANTITIES


@dataclass(frozen=True)
class Pick:
    """Each of some legs, or that of the highest transverse momentum (rank 1), the next one (rank 2) and so on.

    >>> Pick((2, 3), rank=1).legs
    (2, 3)
    """

    legs: tuple[int, ...]
    rank: int = 0

    def momenta(self, p: Tensor) -> Tensor:
        """Momentum (n, 4) of the leg of this rank in p (n, m, 4)."""
        chosen = p[:, list(self.legs)]
        order = pt(chosen).argsort(dim=1, descending=True, stable=True)[:, self.rank - 1]
        return torch.take_along_dim(chosen, order[:, None, None], 1).squeeze(1)


@dataclass(frozen=True)
class Condition:
    """low < quantity < high for every choice of one leg by each pick, or, of events, for all of them together.

    Attributes
    ----------
    text
        As it was given, for headers and reports.
    quantity
        A name in `QUANTITIES`.
    picks
        What it is a quantity of.
    low, high
        Limits, infinite for none.
    absolute
        Whether the quantity counts without its sign.
    sums
        Legs of particles that decay, which picks count behind the legs.

    Examples
    --------
    >>> cut = Condition("dphi(j1, j2) < 2", "dphi", (Pick((0, 1), 1), Pick((0, 1), 2)), high=2.0)
    >>> p = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [2.0, 0.0, 2.0, 0.0]], [[1.0, 1.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0]]])
    >>> cut.mask(p), str(cut)
    (tensor([ True, False]), 'dphi(j1, j2) < 2')
    """

    text: str
    quantity: str
    picks: tuple[Pick, ...]
    low: float = -math.inf
    high: float = math.inf
    absolute: bool = False
    sums: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def legs(self) -> tuple[int, ...]:
        """The legs it looks at, those of particles that decay left out."""
        return () if self.sums else tuple(sorted({leg for pick in self.picks for leg in pick.legs}))

    @property
    def least_energy(self) -> float:
        """Least energy of the partons in GeV that it asks for, 0 for none."""
        return max(self.low, 0.0) if self.quantity in ("ht", "m") and not self.sums else 0.0

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        if self.sums:
            p = torch.cat([p, *(p[:, list(legs)].sum(1, keepdim=True) for legs in self.sums)], 1)
        for momenta in self._choices(p):
            value = QUANTITIES[self.quantity](momenta)
            value = value.abs() if self.absolute else value
            passed = passed & (value > self.low) & (value < self.high)
        return passed

    def _choices(self, p: Tensor) -> Iterator[list[Tensor]]:
        if self.quantity in OF_EVENTS:
            yield [p[:, leg] for leg in dict.fromkeys(leg for pick in self.picks for leg in pick.legs)]
            return
        ranked = [pick.momenta(p) if pick.rank else None for pick in self.picks]
        for chosen in choices(self.picks):
            legs = iter(chosen)
            yield [p[:, next(legs)] if found is None else found for found in ranked]


def choices(picks: Sequence[Pick]) -> list[tuple[int, ...]]:
    """Different legs for the picks without a rank, those that differ by their order alone once.

    >>> choices([Pick((0, 1, 2)), Pick((0, 1, 2))])
    [(0, 1), (0, 2), (1, 2)]
    >>> choices([Pick((0,)), Pick((0,))])
    []
    """
    found: dict[frozenset[int], tuple[int, ...]] = {}
    for chosen in itertools.product(*(pick.legs for pick in picks if not pick.rank)):
        if len(set(chosen)) == len(chosen):
            found.setdefault(frozenset(chosen), chosen)
    return list(found.values())
