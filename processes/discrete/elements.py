"""One of the matrix elements of a process at each point, drawn with learned probabilities."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nisampler.base.device import cpu_threads
from nisampler.base.kept import kept
from nisampler.errors import AmplitudeError, ConfigError, CorruptFileError
from nisampler.processes.amplitudes.protocol import Amplitude, SampledAmplitude
from nisampler.processes.discrete.choice import Choice
from nisampler.processes.discrete.learning import Sums, learned

Elements = Literal["auto", "summed", "sampled"]
"""Whether all matrix elements are evaluated at a point, or one."""

# Operations that a choice must save at a point: fewer do not pay for weights that vary more. W + 3 jets would save
# 77,000: with 60,000 calls its efficiency is .10 where elements are summed and .04 where they are sampled, and events
# take about as long.
_WORTH_A_CHOICE = 1e5
_KIND = "choice-2"
# Points of the survey, and those of them that tell one sum from another.
_POINTS, _PROBES = 24576, 256


def sampled_amplitude(name: str, amplitude: Amplitude, elements: Elements) -> SampledAmplitude | None:
    """The amplitude where its elements are to be sampled, None where they are to be summed.

    With "auto" that depends on counts of operations alone.

    Raises
    ------
    AmplitudeError
        If they are to be sampled and the amplitude cannot evaluate one alone, or its choices contradict its elements.
    ConfigError
        If `elements` is none of the words.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.qcd import Qcd
    >>> sampled_amplitude("dijets", Qcd(), "auto") is None
    True
    >>> sampled_amplitude("dijets", Qcd(), "sampled")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: dijets: elements = "sampled" needs an amplitude with choices, operations and ...
    """
    if elements not in ("auto", "summed", "sampled"):
        raise ConfigError(f'{name}: elements must be "auto", "summed" or "sampled", got {elements!r}')
    if elements == "summed":
        return None
    if not isinstance(amplitude, SampledAmplitude):
        if elements == "auto":
            return None
        raise AmplitudeError(
            f'{name}: elements = "sampled" needs an amplitude with choices, operations and chosen(), which '
            f'{type(amplitude).__name__} has not: use "summed"'
        )
    choices, operations = tuple(amplitude.choices), tuple(amplitude.operations)
    if set(choices) != set(range(amplitude.elements)) or len(operations) != len(choices):
        raise AmplitudeError(
            f"{name}: choices must name each of the elements 0 to {amplitude.elements - 1}, with as many operations; "
            f"got {len(choices)} choices of the elements {sorted(set(choices))} and {len(operations)} operations"
        )
    saved = sum(operations) - sum(operations) / len(operations)
    if len(choices) < 2 or (elements == "auto" and saved < _WORTH_A_CHOICE):
        return None
    return amplitude


Point = tuple[Tensor, Tensor, Tensor]
"""Momenta of the incoming and the outgoing partons, (n, 2, 4) and (n, m, 4), and the strong coupling (n,)."""


@dataclass(frozen=True)
class Drawn:
    """One choice at each of n points, not evaluated.

    Attributes
    ----------
    choice, element
        Its number (n,), and that of the matrix element (n,) that it is a part of.
    luminosity
        Summed products of parton densities (n,) of that element.
    probability
        With which it was chosen, (n,).

    Examples
    --------
    >>> one = torch.ones(1)
    >>> Drawn(one.long(), one.long(), one, one).choice
    tensor([1])
    """

    choice: Tensor
    element: Tensor
    luminosity: Tensor
    probability: Tensor


@dataclass(frozen=True)
class Chosen:
    """One choice at each of n points.

    Attributes
    ----------
    element
        The matrix element (n,) that it is a part of.
    luminosity
        Summed products of parton densities (n,) of that element.
    squared
        The value (n,) of the choice.
    probability
        With which it was chosen, (n,).

    Examples
    --------
    >>> one = torch.ones(1)
    >>> Chosen(torch.tensor([1]), one, 2 * one, one).table(elements=3)
    tensor([[0., 2., 0.]])
    """

    element: Tensor
    luminosity: Tensor
    squared: Tensor
    probability: Tensor

    def table(self, elements: int) -> Tensor:
        """Squared matrix elements (n, elements), all but the chosen one zero."""
        empty = self.squared.new_zeros(len(self.squared), elements)
        return empty.scatter(1, self.element.unsqueeze(1), self.squared.unsqueeze(1))


class ElementChoice:
    """The choices of an amplitude with their probabilities, learned when they are first asked for.

    Parameters
    ----------
    name
        Of the process, for messages.
    amplitude
        Evaluates one choice at each point.
    survey
        Evaluates all of them at so many points, always the same ones.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> def survey(n):
    ...     x = torch.rand(n, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ...     return Sums(x, torch.ones(n, 2).double(), torch.cat([x, 1 - x], 1), torch.ones(n).double())
    >>> choice = ElementChoice("toy", SimpleNamespace(choices=(0, 1)), survey)
    >>> bool(choice.probabilities(torch.tensor([[0.9]]), torch.ones(1, 2).double())[0, 0] > 0.8)
    True
    """

    def __init__(self, name: str, amplitude: SampledAmplitude, survey: Callable[[int], Sums]) -> None:
        self.name, self.amplitude = name, amplitude
        self.element = torch.tensor(tuple(amplitude.choices))
        self._survey = survey
        self._learned: Choice | None = None

    def sizes(self, luminosities: Tensor) -> Tensor:
        """What is known of each choice, (n, choices), from the luminosities of the elements (n, elements)."""
        return luminosities.abs().index_select(1, self.element.to(luminosities.device))

    def probabilities(self, features: Tensor, luminosities: Tensor) -> Tensor:
        """p(choice | point) (n, choices) from features (n, F) and luminosities of the elements (n, elements)."""
        return self._choice.probabilities(features, self.sizes(luminosities))

    def evaluate(self, features: Tensor, luminosities: Tensor, u: Tensor, point: Point) -> Chosen:
        """The choices that numbers u (n,) of [0, 1] make, evaluated; AmplitudeError if they have another shape."""
        drawn = self.draw(features, luminosities, u)
        return Chosen(drawn.element, drawn.luminosity, self._values(drawn.choice, point), drawn.probability)

    def draw(self, features: Tensor, luminosities: Tensor, u: Tensor) -> Drawn:
        """The choices that numbers u (n,) of [0, 1] make, from features (n, F) and luminosities (n, elements)."""
        choice, probability = self._choice.draw(features, self.sizes(luminosities), u)
        element = self.element.to(choice.device)[choice]
        return Drawn(choice, element, luminosities.gather(1, element.unsqueeze(1)).squeeze(1), probability)

    def all(self, luminosities: Tensor, point: Point) -> tuple[Tensor, Tensor]:
        """Sizes and contributions (n, choices) of every choice."""
        every = [self._values(torch.full((len(luminosities),), k), point) for k in range(len(self.element))]
        return self.sizes(luminosities), luminosities.index_select(1, self.element) * torch.stack(every, 1)

    def _values(self, choice: Tensor, point: Point) -> Tensor:
        values = self.amplitude.chosen(choice, *point)
        if values.shape != choice.shape:
            raise AmplitudeError(
                f"{self.name}: chosen must return shape {tuple(choice.shape)}, got {tuple(values.shape)}"
            )
        return values

    def state(self) -> dict[str, Tensor]:
        """What was learned, as tensors."""
        return self._choice.state()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what another one learned.

        Raises
        ------
        CorruptFileError
            If the tensors are not those of a choice among as many terms.
        """
        try:
            found = Choice.from_state(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CorruptFileError(f"{self.name}: what was learned of its elements cannot be read: {error}") from error
        if found.terms != len(self.element):
            raise CorruptFileError(
                f"{self.name}: what was learned is a choice among {found.terms} terms, there are {len(self.element)}"
            )
        self._learned = found

    @property
    def _choice(self) -> Choice:
        if self._learned is None:
            with cpu_threads(1):
                probes = self._survey(_PROBES)
            parts = (probes.features, probes.sizes, probes.values)
            source = b"".join(tensor.double().contiguous().numpy().tobytes() for tensor in parts)
            digest = hashlib.sha256(source).digest()
            self._learned = Choice.from_state(kept(_KIND, digest, self._learn))
        return self._learned

    def _learn(self) -> dict[str, Tensor]:
        with cpu_threads(1):
            return Choice(learned(self._survey(_POINTS))).state()
