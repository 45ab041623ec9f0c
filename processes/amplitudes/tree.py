"""What the matrix elements share: their list of sub-processes, colour tags from colour lines, checks of the momenta,
and points that are evaluated by groups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.events.columns import FIRST_COLOUR_TAG, UNKNOWN_SPIN
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.constants import GLUON

# A colour flow: pairs (leg whose colour, leg whose anticolour) of one line, legs counted from 0 with the two incoming
# ones first, colours as if every leg were outgoing.
ColourFlow = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Element:
    """Colour flows and helicities that belong to one column of the squared matrix elements.

    Attributes
    ----------
    flows
        Colour flows of leading colour.
    spins
        Helicity +1 or -1 of each leg, 9 where it is not known; incoming legs first.

    Examples
    --------
    >>> Element(flows=(((1, 0),),), spins=(9.0, 9.0, 9.0, 9.0)).flows
    (((1, 0),),)
    """

    flows: tuple[ColourFlow, ...]
    spins: tuple[float, ...]


def colour_tags(flow: ColourFlow, legs: int) -> list[list[int]]:
    """Les Houches tags [[colour, anticolour], ...] of the legs from the colour lines of one flow.

    An incoming leg absorbs what an outgoing one would emit, so that its colour is the anticolour of the line.

    >>> colour_tags(((1, 0),), 4)
    [[501, 0], [0, 501], [0, 0], [0, 0]]
    """
    tags = [[0, 0] for _ in range(legs)]
    for tag, (start, end) in enumerate(flow, FIRST_COLOUR_TAG):
        tags[start][0 if start > 1 else 1] = tag
        tags[end][1 if end > 1 else 0] = tag
    return tags


def chiral_spins(pdg_ids: Sequence[int]) -> tuple[float, ...]:
    """Helicities where a W selects left-handed fermions: -1 for particles, +1 for antiparticles, 9 for gluons.

    >>> chiral_spins((2, -1, -11, 12, 21))
    (-1.0, 1.0, 1.0, -1.0, 9.0)
    """
    return tuple(UNKNOWN_SPIN if pdg == GLUON else (-1.0 if pdg > 0 else 1.0) for pdg in pdg_ids)


def momentum_products(incoming: Tensor, outgoing: Tensor) -> dict[tuple[int, int], Tensor]:
    """Products p_i.p_j (n,) in GeV^2 of all pairs of different legs: incoming (n, 2, 4), then outgoing (n, m, 4).

    Points stand last, so that every operation works on contiguous numbers: several times as fast as leg by leg.

    >>> incoming = torch.tensor([[[5.0, 0, 0, 5.0], [5.0, 0, 0, -5.0]]])
    >>> outgoing = torch.tensor([[[5.0, 5.0, 0, 0], [5.0, -5.0, 0, 0]]])
    >>> momentum_products(incoming, outgoing)[0, 1]
    tensor([50.])
    """
    e, x, y, z = torch.cat([incoming, outgoing], dim=1).permute(2, 1, 0).contiguous()
    products = {}
    for i in range(len(e) - 1):
        row = e[i] * e[i + 1 :]
        for component in (x, y, z):
            row = torch.addcmul(row, component[i], component[i + 1 :], value=-1)
        for j, value in enumerate(row, i + 1):
            products[i, j] = products[j, i] = value
    return products


def joined_momenta(process: str, incoming: Tensor, outgoing: Tensor, final: int) -> Tensor:
    """Momenta (n, 2 + final, 4) of all legs of a process string, the incoming ones first.

    Raises
    ------
    ShapeError
        Unless they are (n, 2, 4) and (n, final, 4).

    Examples
    --------
    >>> joined_momenta("p p > e+ ve", torch.zeros(5, 2, 4), torch.zeros(5, 2, 4), final=2).shape
    torch.Size([5, 4, 4])
    """
    n = len(outgoing)
    if incoming.shape != (n, 2, 4) or outgoing.shape != (n, final, 4):
        wanted = f"expected momenta of shape (n, 2, 4) and (n, {final}, 4) for {process!r}"
        raise ShapeError(f"{wanted}, got {tuple(incoming.shape)} and {tuple(outgoing.shape)}")
    return torch.cat([incoming, outgoing], 1)


class TreeAmplitude(ABC):
    """A squared matrix element at leading order, see :class:`nisampler.processes.amplitudes.protocol.Amplitude`.

    Parameters
    ----------
    subprocesses
        All flavour combinations.
    columns
        Flows and helicities of every element, in the order of the columns of `squared`.

    Examples
    --------
    >>> class Constant(TreeAmplitude):
    ...     def squared(self, incoming, outgoing, alpha_s):
    ...         return incoming.new_ones(len(incoming), self.elements)
    >>> one = Constant([SubProcess((2, -2), (11, -11), 0)], [Element((((1, 0),),), (9.0,) * 4)])
    >>> one.elements, one.legs
    (1, 4)
    """

    def __init__(self, subprocesses: Sequence[SubProcess], columns: Sequence[Element]) -> None:
        self.subprocesses = tuple(subprocesses)
        self.legs = len(columns[0].spins)
        self._tags = tuple(torch.tensor([colour_tags(flow, self.legs) for flow in c.flows]) for c in columns)
        self._spins = tuple(torch.tensor(c.spins, dtype=torch.float64) for c in columns)

    @property
    def elements(self) -> int:
        """Number of distinct matrix elements."""
        return len(self._tags)

    @abstractmethod
    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """|M|^2 (n, elements) in GeV^(4 - 2 m), averaged over initial and summed over final spins and colours.

        Parameters
        ----------
        incoming
            (n, 2, 4) in GeV, massless, the beam along +z first.
        outgoing
            (n, m, 4) in GeV, in the order of the final legs of the sub-processes.
        alpha_s
            (n,), the strong coupling at the renormalisation scale.

        Raises
        ------
        ShapeError
            If the momenta are not those of the legs.
        """

    def colour_flows(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Leading-colour weights (n, flows), which need not be normalised, and tags (flows, 2 + m, 2) of an element.

        Raises
        ------
        AmplitudeError
            If there is no such element.
        ShapeError
            If the momenta are not those of the legs.
        """
        tags = self._of_element(self._tags, element).to(incoming.device)
        self._check(incoming, outgoing)
        single = incoming.new_ones((len(incoming), 1))
        return single if len(tags) == 1 else self._flow_weights(element, incoming, outgoing), tags

    def spins(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Helicities (n, 2 + m) of the legs, +1, -1 or 9 for unknown; raises as `colour_flows` does."""
        spins = self._of_element(self._spins, element).to(incoming)
        self._check(incoming, outgoing)
        return spins.expand(len(incoming), self.legs)

    def _flow_weights(self, element: int, incoming: Tensor, outgoing: Tensor) -> Tensor:
        """Weights (n, flows) of an element with more than one flow; equal ones unless a subclass knows better."""
        return incoming.new_ones((len(incoming), len(self._tags[element])))

    def _of_element(self, columns: tuple[Tensor, ...], element: int) -> Tensor:
        if not 0 <= element < len(columns):
            raise AmplitudeError(f"{type(self).__name__} has elements 0 to {len(columns) - 1}, not {element}")
        return columns[element]

    def _check(self, incoming: Tensor, outgoing: Tensor) -> None:
        final = self.legs - 2
        n = len(incoming)
        if tuple(incoming.shape) != (n, 2, 4) or tuple(outgoing.shape) != (n, final, 4):
            raise ShapeError(
                f"{type(self).__name__} takes incoming momenta (n, 2, 4) and outgoing ones (n, {final}, 4), "
                f"got {tuple(incoming.shape)} and {tuple(outgoing.shape)}"
            )


def by_number(numbers: Tensor, value: Callable[[int, Tensor], Tensor], like: Tensor) -> Tensor:
    """Values (n,) of points that have numbers (n,), all points of one number together.

    Parameters
    ----------
    numbers
        Integers (n,).
    value
        Takes a number and the rows (k,) that have it, in rising order; returns their values (k,).
    like
        Whose type and device the values have.

    Examples
    --------
    >>> by_number(torch.tensor([2, 5, 2]), lambda number, rows: 10.0 * number + rows, torch.ones(1))
    tensor([20., 51., 22.])
    """
    order = torch.argsort(numbers, stable=True)
    found, counts = torch.unique_consecutive(numbers[order], return_counts=True)
    values = [
        value(number, rows) for number, rows in zip(found.tolist(), torch.split(order, counts.tolist()), strict=True)
    ]
    return like.new_zeros(len(numbers)).index_copy(0, order, torch.cat(values)) if values else like.new_zeros(0)
