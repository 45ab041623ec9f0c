"""What a process is: an integrand on the unit cube, and, where it has one, its event record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.blame import blaming
from nisampler.base.checks import Dimension, Natural, Whole, checked
from nisampler.errors import ConfigError, ProcessError
from nisampler.events.batch import EventBatch
from nisampler.events.observables import Observable
from nisampler.processes.functions.functions import TestFunction

EventGroups = dict[Annotated[Whole, Field(ge=1, lt=2**31)], Annotated[str, Field(min_length=1, pattern=r"^[^\n]*$")]]
"""Codes of groups of sub-processes with a line of text for each."""


@dataclass(frozen=True)
class BeamInfo:
    """The two beams, the one along +z first: PDG codes, energies in GeV, LHAPDF ids of the densities (0 for none).

    >>> BeamInfo((11, -11), (45.6, 45.6)).pdf_sets
    (0, 0)
    """

    pdg_ids: tuple[int, int]
    energies: tuple[float, float]
    pdf_sets: tuple[int, int] = (0, 0)


class Process(ABC):
    """An integrand f(u) on [0, 1]^dim.

    `__call__` returns d sigma / d u, everything included (flux, phase-space weight, cuts), zero outside the
    cuts. A process with an event record overrides `momenta` and `events` and sets `has_events`.

    >>> class Flat(Process):
    ...     name, dim = "flat", 2
    ...     def __call__(self, u):
    ...         return torch.ones(len(u))
    >>> Flat()(torch.rand(3, 2))
    tensor([1., 1., 1.])
    >>> Flat().momenta(torch.rand(3, 2))
    Traceback (most recent call last):
    ...
    nisampler.errors.ProcessError: flat is an integrand without momenta; (3, 2) points given
    """

    name: str
    dim: int
    unit: str = ""
    seconds_per_call: float | None = None
    # What a call is taken to cost where `seconds_per_call` states nothing; None for next to nothing.
    seconds_assumed: float | None = tuning.ASSUMED_CALL
    parameters: Any = None
    has_events: bool = False
    # Evaluations of the matrix element that an event record costs: the sub-process is drawn by its share there.
    record_calls: int = 1
    beams: BeamInfo | None = None
    observables: tuple[Observable, ...] = ()
    # Makes the process anew in another process; set by the registry.
    rebuild: Callable[[], Process] | None = None
    # Groups of sub-processes, each with its own cross-section in an event file: the code that events name (IDPRUP), and
    # what it stands for. Without any all events have the code 1.
    event_groups: Mapping[int, str] = MappingProxyType({})

    @property
    def header(self) -> Mapping[str, str]:
        """What a file of its events tells besides: texts by name, such as its cuts."""
        return {}

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Values of shape (n,), in `unit`, at the cube points u of shape (n, dim)."""

    def momenta(self, u: Tensor) -> Tensor:
        """Momenta (n, legs, 4) in GeV of the final state at the cube points u (n, dim).

        Raises
        ------
        ProcessError
            If this process has no final state.
        """
        raise ProcessError(f"{self.name} is an integrand without momenta; {tuple(u.shape)} points given")

    def quantities(self, u: Tensor) -> dict[str, Tensor]:
        """Numbers (n,) by name that tell what kind of points the cube points u (n, dim) are; none where not known.

        They are for those who ask what large weights have in common. NaN stands for what a point does not have.
        """
        return {}

    def learned(self) -> dict[str, Tensor]:
        """What the process learned of itself, by name: a result stores it beside its sampler."""
        return {}

    def restore(self, learned: Mapping[str, Tensor]) -> None:  # noqa: B027 (most processes learn nothing)
        """Take over what `learned` returned, so that the values are those that it stands for."""

    def limits(self) -> dict[str, int]:
        """How often a part of the process was at the end of its range since it was made, by name; see a run's result.

        Under "points" and "densities" stands how often there were any.
        """
        return {}

    def prepare_events(self) -> None:  # noqa: B027 (most processes need nothing)
        """Do beforehand what `events` will need, so that a failure comes before a long training."""

    def events(self, u: Tensor, weights: Tensor, generator: torch.Generator) -> EventBatch:
        """Events at the cube points u (n, dim) with the given weights (n,).

        Raises
        ------
        ProcessError
            If this process has no event record.
        """
        raise ProcessError(f"{self.name} has no event record; it can be integrated and unweighted as points")


def draw(shares: Tensor, uniform: Tensor) -> Tensor:
    """An index (n,) for each row of non-negative shares (n, k), with their probabilities, by numbers in [0, 1) (n,).

    >>> draw(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), torch.tensor([0.5, 0.5]))
    tensor([1, 0])
    """
    cumulative = shares.cumsum(1)
    return (uniform.unsqueeze(1) * cumulative[:, -1:] >= cumulative[:, :-1]).sum(1)


@dataclass(frozen=True)
class FunctionParameters:
    """Parameters of a test function as a process.

    >>> FunctionParameters(3).dim
    3
    """

    dim: int


class FunctionProcess(Process):
    """A test function as a process: dimensionless, with its exact integral and without events.

    Parameters
    ----------
    function
        The test function.

    Examples
    --------
    >>> from nisampler.processes.functions.functions import poly
    >>> process = FunctionProcess(poly(3))
    >>> process.name, process.integral, process(torch.full((1, 3), 0.5)).tolist()
    ('poly3', 0.5, [0.75])
    """

    seconds_assumed = None

    def __init__(self, function: TestFunction) -> None:
        self.function = function
        self.parameters = FunctionParameters(function.dim)
        self.name = function.name
        self.dim = function.dim

    @property
    def integral(self) -> float:
        """The exact integral."""
        return self.function.integral

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim); raises ShapeError on another shape."""
        return self.function(u)


class CallableProcess(Process):
    """A user's own callable with a `dim` attribute.

    Of the other attributes of `Process` (`name`, `unit`, `seconds_per_call`, `parameters`, `beams`, `observables`,
    `event_groups`, `limits`, `learned`, `restore`, `header`, `momenta`, `events`) it uses those that the callable has.

    Parameters
    ----------
    function
        Maps points (n, dim) to values (n,).
    name
        The name under which it was looked up.

    Raises
    ------
    ConfigError
        If `function` is not callable, its `dim` is not a positive integer, or its `event_groups` do not map numbers
        to names.

    Examples
    --------
    >>> def square(u):
    ...     return u.square().sum(1)
    >>> square.dim = 2
    >>> CallableProcess(square, "square")(torch.ones(1, 2))
    tensor([2.])
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        if not callable(function):
            raise ConfigError(f"{name} is not callable: a process maps points (n, dim) to values (n,)")
        self.function = function
        self.dim = checked(f"dim of {name}", getattr(function, "dim", None), Dimension)
        self.name = str(getattr(function, "name", name))
        self.unit = str(getattr(function, "unit", ""))
        self.seconds_per_call = getattr(function, "seconds_per_call", None)
        self.parameters = getattr(function, "parameters", None)
        self.beams = getattr(function, "beams", None)
        self.observables = tuple(getattr(function, "observables", ()))
        self.has_events = callable(getattr(function, "events", None))
        self.record_calls = checked(f"record_calls of {name}", getattr(function, "record_calls", 1), Natural)
        groups = getattr(function, "event_groups", {})
        self.event_groups = checked(f"event_groups of {name}", groups, EventGroups)
        self._limits: Callable[[], dict[str, int]] = getattr(function, "limits", dict)
        self._learned: Callable[[], dict[str, Tensor]] = getattr(function, "learned", dict)
        self._restore: Callable[[Mapping[str, Tensor]], Any] | None = getattr(function, "restore", None)

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim), as the user's callable returns them."""
        return self.function(u)

    @property
    def header(self) -> dict[str, str]:
        """What the user's callable tells of itself; nothing where it has no `header`."""
        with blaming(f"{self.name}.header failed", ProcessError):
            return {str(name): str(text) for name, text in dict(getattr(self.function, "header", {})).items()}

    def learned(self) -> dict[str, Tensor]:
        """What the user's callable learned; nothing where it has no `learned`."""
        with blaming(f"{self.name}.learned failed", ProcessError):
            return self._learned()

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        """Hand it back to the user's callable, where that has a `restore`."""
        with blaming(f"{self.name}.restore failed", ProcessError):
            if self._restore is not None:
                self._restore(learned)

    def limits(self) -> dict[str, int]:
        """What the user's callable counts; nothing where it has no `limits`."""
        with blaming(f"{self.name}.limits failed", ProcessError):
            return self._limits()

    def quantities(self, u: Tensor) -> dict[str, Tensor]:
        """Numbers as the user's callable gives them; none where it has no `quantities`."""
        own: Callable[[Tensor], dict[str, Tensor]] | None = getattr(self.function, "quantities", None)
        with blaming(f"{self.name}.quantities failed", ProcessError):
            return {} if own is None else {str(name): torch.as_tensor(value) for name, value in own(u).items()}

    def momenta(self, u: Tensor) -> Tensor:
        """Momenta as the user's callable gives them; raises ProcessError where it has none."""
        own: Callable[[Tensor], Tensor] | None = getattr(self.function, "momenta", None)
        with blaming(f"{self.name}.momenta failed", ProcessError):
            return super().momenta(u) if own is None else own(u)

    def events(self, u: Tensor, weights: Tensor, generator: torch.Generator) -> EventBatch:
        """Events as the user's callable gives them; raises ProcessError where it has none."""
        own: Callable[[Tensor, Tensor, torch.Generator], EventBatch] | None
        own = getattr(self.function, "events", None)
        with blaming(f"{self.name}.events failed", ProcessError):
            return super().events(u, weights, generator) if own is None else own(u, weights, generator)
