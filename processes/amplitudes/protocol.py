"""What a matrix element tells a hadron process: its sub-processes, its values and its colour flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class SubProcess:
    """One combination of parton flavours and the matrix element it uses.

    Attributes:
        initial: PDG codes of the parton of beam 1 (along +z) and of the parton of beam 2.
        final: PDG codes of the outgoing legs, in the order of the process's legs.
        element: column of :meth:`Amplitude.squared` that this flavour combination shares with others.
        factor: constant that multiplies that column, such as a squared CKM element and the share of one order of jets.

    >>> SubProcess((2, -2), (11, -11), element=0).factor
    1.0
    """

    initial: tuple[int, int]
    final: tuple[int, ...]
    element: int
    factor: float = 1.0


class Amplitude(Protocol):
    """A squared matrix element of a hadron process, evaluated on batches.

    Momenta are laboratory-frame four-vectors (E, px, py, pz) in GeV: ``incoming`` (n, 2, 4) with beam 1 first and
    ``outgoing`` (n, m, 4) in the order of the process's legs; ``alpha_s`` (n,) is the strong coupling at the
    renormalisation scale of each point.

    >>> from nisampler.processes.amplitudes.qcd import Qcd
    >>> amplitude: Amplitude = Qcd()
    >>> len(amplitude.subprocesses), amplitude.elements
    (176, 18)
    """

    @property
    def subprocesses(self) -> tuple[SubProcess, ...]:
        """All flavour combinations, both orders of the beams included."""

    @property
    def elements(self) -> int:
        """Number of distinct matrix elements evaluated at each point."""

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Return the squared matrix elements (n, elements) in GeV^(4 - 2m).

        Averaged over the spins and colours of the incoming partons, summed over those of the outgoing legs, the
        factor for identical outgoing particles included.
        """

    def colour_flows(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return leading-colour weights (n, flows) and Les Houches colour tags (flows, 2 + m, 2) of one element.

        The weights are positive and need not be normalised; the tags (colour, anticolour) start at 501, are zero
        for no line, and list the incoming partons first.
        """


@runtime_checkable
class SampledAmplitude(Protocol):
    """What an `Amplitude` offers besides, where its sums need not be evaluated term by term at every point.

    A choice is a matrix element, or a part of one such as a helicity: those of one element add up to it.

    >>> from nisampler.processes.amplitudes.qcd import Qcd
    >>> isinstance(Qcd(), SampledAmplitude)
    False
    """

    @property
    def choices(self) -> tuple[int, ...]:
        """For each choice the matrix element that it is a part of."""

    @property
    def operations(self) -> tuple[float, ...]:
        """About how many operations each choice takes at a point."""

    def chosen(self, choice: Tensor, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Return the values (n,) of one choice (n,) at each point, in the unit and with the averages of `squared`.

        Other arguments are those of `squared`.
        """
