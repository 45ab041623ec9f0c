"""What leaves a density on the unit cube as it is: reflections, turns and exchanges of coordinates.

`nisampler.flows.folding` takes them from the flow that learns the density.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nisampler.base.checks import Natural, Row, Whole, settings

NONE = -1
"""No coordinate, see `Action`."""


@settings
class Action:
    """What a symmetry does to coordinates of the cube; those that are not named stay as they are.

    Parameters
    ----------
    rows
        (column, plus, minus, halves) each: x[column] becomes x[plus] - x[minus] + halves / 2 modulo 1, where a term of
        column -1 is missing.

    Examples
    --------
    >>> Action.reflection(0, 2) == Action(((0, -1, 0, 0), (2, -1, 2, 0)))
    True
    """

    rows: Row[Row[Whole]]

    @classmethod
    def reflection(cls, *columns: int) -> Action:
        """Some coordinates x become 1 - x.

        >>> Action.reflection(1).rows
        ((1, -1, 1, 0),)
        """
        return cls(tuple((k, NONE, k, 0) for k in columns))

    @classmethod
    def exchange(cls, *pairs: tuple[int, int]) -> Action:
        """Pairs of coordinates change their places.

        >>> Action.exchange((0, 1)).rows
        ((0, 1, -1, 0), (1, 0, -1, 0))
        """
        return cls(tuple((a, b, NONE, 0) for pair in pairs for a, b in (pair, pair[::-1])))

    @property
    def diagonal(self) -> bool:
        """Whether no coordinate depends on another one."""
        return all(source in (NONE, column) for column, plus, minus, _ in self.rows for source in (plus, minus))

    def columns(self) -> set[int]:
        """All coordinates that it names."""
        return {k for *named, _ in self.rows for k in named if k != NONE}

    def of(self, x: Tensor) -> Tensor:
        """What it makes of points x (n, dim).

        >>> Action.exchange((0, 1)).of(torch.tensor([[0.25, 0.75]]))
        tensor([[0.7500, 0.2500]])
        """
        found = x.clone()
        for column, plus, minus, halves in self.rows:
            if (plus, minus, halves) == (NONE, column, 0):
                found[:, column] = 1.0 - x[:, column]
            elif minus == NONE and not halves:
                found[:, column] = x[:, plus]
            else:
                ends = (x[:, k] if k != NONE else torch.zeros_like(x[:, 0]) for k in (plus, minus))
                found[:, column] = torch.remainder(next(ends) - next(ends) + 0.5 * halves, 1.0)
        return found


@settings
class Symmetry:
    """Under what a density on the cube does not change.

    Parameters
    ----------
    turned
        Coordinates that may be moved together by any number, modulo 1: azimuths about an axis. The first of them is
        left out, and the others are counted from it.
    actions
        Of what is left then; each is its own inverse.

    Examples
    --------
    >>> bool(Symmetry()), bool(Symmetry(turned=(3,), actions=(Action.reflection(0, 2),)))
    (False, True)
    """

    turned: Row[Natural] = ()
    actions: Row[Action] = ()

    def __bool__(self) -> bool:
        return bool(self.actions or self.turned)

    def columns(self) -> set[int]:
        """All coordinates that it names."""
        return set(self.turned).union(*(action.columns() for action in self.actions))

    def counted(self, x: Tensor) -> Tensor:
        """Points x (n, dim) with the coordinates that turn counted from the first of them, which becomes zero.

        >>> Symmetry(turned=(0, 1)).counted(torch.tensor([[0.75, 0.5, 0.25]]))
        tensor([[0.0000, 0.7500, 0.2500]])
        """
        columns, found = list(self.turned), x.clone()
        if columns:
            found[:, columns] = torch.remainder(x[:, columns] - x[:, columns[:1]], 1.0)
        return found


def symmetry_of(function: Any) -> tuple[Symmetry, ...]:
    """The symmetries that a function states by a method `symmetry`, one for each group of channels; none by default.

    >>> symmetry_of(torch.sin)
    ()
    """
    stated = getattr(function, "symmetry", None)
    found = stated() if callable(stated) else ()
    known = isinstance(found, tuple) and all(isinstance(own, Symmetry) for own in found)
    return found if known and any(found) else ()
