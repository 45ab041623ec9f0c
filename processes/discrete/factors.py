"""What is known of a cross-section without its matrix elements: a surrogate of the weights learns the rest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nisampler.density.factors import Factors
from nisampler.processes.amplitudes.protocol import SampledAmplitude, SubProcess
from nisampler.processes.discrete.elements import Drawn, Point
from nisampler.processes.hadron.groups import group_codes
from nisampler.processes.phase_space.kinematics import dot

# Brings logs of invariants to order one, in GeV; the least product of momenta in GeV², and the least luminosity.
_TYPICAL, _FLOOR, _LEAST = 50.0, 1e-6, 1e-300


@runtime_checkable
class PlacedAmplitude(Protocol):
    """A sampled amplitude that knows which of its elements are one function, with the legs in another order.

    >>> from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
    >>> amplitude = RecursiveAmplitude("p p > e- e+ j")
    >>> isinstance(amplitude, PlacedAmplitude), amplitude.elements, amplitude.kinds
    (True, 12, 4)
    """

    @property
    def kinds(self) -> int:
        """Number of these functions."""

    def placed(self, choice: Tensor, incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
        """For each choice (n,) the number of its function (n,), and the momenta (n, 2 + m, 4) in its order of legs."""


class GroupShares:
    """Shares of the luminosity that groups of sub-processes have, see `group_codes`.

    Parameters
    ----------
    subprocesses, elements
        Of an amplitude.

    Examples
    --------
    >>> shares = GroupShares([SubProcess((2, -2), (6, -6), 0), SubProcess((21, 21), (6, -6), 1)], elements=2)
    >>> shares(torch.tensor([[1.0, 3.0]]))
    tensor([[0.7500, 0.2500]])
    """

    def __init__(self, subprocesses: Sequence[SubProcess], elements: int) -> None:
        names, codes = group_codes(subprocesses)
        self._member = torch.zeros(elements, len(names))
        for item, code in zip(subprocesses, codes, strict=True):
            self._member[item.element] = 0.0
            self._member[item.element, code - 1] = 1.0

    def __call__(self, sizes: Tensor) -> Tensor:
        """Shares (n, groups) from the sizes of the luminosities of the elements (n, elements)."""
        total = sizes.sum(1, keepdim=True).clamp(min=_LEAST)
        return (sizes / total) @ self._member.to(sizes)


def factors_of_sum(log_common: Tensor, luminosities: Tensor, features: Tensor, shares: GroupShares) -> Factors:
    """Of a sum over all elements the whole luminosity is known, and what groups of sub-processes share of it.

    Parameters
    ----------
    log_common
        Log of what all elements have in common, (n,).
    luminosities, features
        Of the elements (n, elements), and of the points (n, F).
    shares
        Of these elements.

    Examples
    --------
    >>> shares = GroupShares([SubProcess((2, -2), (6, -6), 0)], elements=1)
    >>> factors_of_sum(torch.zeros(2), torch.ones(2, 1), torch.zeros(2, 3), shares).features.shape
    torch.Size([2, 4])
    """
    sizes = luminosities.abs()
    log_factor = log_common + torch.log(sizes.sum(1))
    seen = torch.cat([features, shares(sizes)], 1)
    return Factors(log_factor, seen, torch.zeros(len(features), dtype=torch.long, device=features.device), 1)


def factors_of_choice(
    log_common: Tensor, drawn: Drawn, features: Tensor, amplitude: SampledAmplitude, point: Point
) -> Factors:
    """Of one choice, over its probability, the matrix element is missing, which many of them may have in common.

    Where the amplitude tells which (`PlacedAmplitude`) the invariants of the legs in its order are features too.

    Parameters
    ----------
    log_common, features
        As for `factors_of_sum`.
    drawn
        The choices.
    amplitude, point
        Whose choices they are, and what it takes.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
    >>> amplitude = RecursiveAmplitude("p p > e- e+ j")
    >>> p, one = torch.ones(1, 5, 4), torch.ones(1)
    >>> drawn = Drawn(one.long(), one.long(), one, 0.5 * one)
    >>> factors_of_choice(one, drawn, torch.zeros(1, 3), amplitude, (p[:, :2], p[:, 2:], one)).features.shape
    torch.Size([1, 13])
    """
    log_factor = log_common + torch.log(drawn.luminosity.abs() / drawn.probability)
    if not isinstance(amplitude, PlacedAmplitude):
        return Factors(log_factor, features, drawn.choice, len(amplitude.choices))
    kind, p = amplitude.placed(drawn.choice, *point[:2])
    first, second = zip(*itertools.combinations(range(p.shape[1]), 2), strict=True)
    invariants = dot(p[:, list(first)], p[:, list(second)]).abs().clamp(min=_FLOOR)
    seen = torch.cat([features, 0.5 * torch.log(2.0 * invariants / _TYPICAL**2)], 1)
    return Factors(log_factor, seen, kind, amplitude.kinds)
