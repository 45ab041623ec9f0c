"""What a training reports: records on the way, the candidates that were compared, and the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from nisampler.base.weights import efficiency_at, kish_ess
from nisampler.samplers.base import Sampler
from nisampler.training.costs import Choice


@dataclass(frozen=True)
class TrainingRecord:
    """A window of the adaptation, measured on points drawn before the step that learned from them.

    Attributes
    ----------
    stage
        "survey", "vegas" or "flow".
    calls, step
        Integrand calls and steps so far.
    loss, learning_rate
        Of a flow; 0 for VEGAS.
    ess_fraction, efficiency_0p1, relative_error
        Kish's effective sample size over the number of points, unweighting efficiency at 0.1 % overweight, and what
        the integral over these points would be known to.

    Examples
    --------
    >>> TrainingRecord("vegas", 500, 1, 0.0, 0.0, 0.4, 0.2, 0.05).stage
    'vegas'
    """

    stage: str
    calls: int
    step: int
    loss: float
    learning_rate: float
    ess_fraction: float
    efficiency_0p1: float
    relative_error: float


@dataclass(frozen=True)
class Candidate:
    """A sampler that was compared on unseen points, with its efficiency at 0.1 % overweight and its ESS fraction.

    `seconds_per_event` follows from the costs; None where the efficiency alone decided.

    >>> Candidate("vegas", 0.3, 0.6).chosen
    False
    """

    name: str
    efficiency_0p1: float
    ess_fraction: float
    chosen: bool = False
    seconds_per_event: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where the adaptation stands: integrand calls done of those planned, and the latest record.

    >>> import torch
    >>> Progress("flow", 10, 40, make_record("flow", 10, torch.tensor([1.0, 1.0]), 1, -0.25, 1e-3)).figures()
    {'calls': '10', 'error': '0.0e+00', 'efficiency': '100.0 %', 'loss': '-0.25'}
    """

    stage: str
    done: int
    total: int
    record: TrainingRecord | None

    def figures(self) -> dict[str, str]:
        """What a screen shows of the latest record."""
        calls = {"calls": f"{self.done:,}"}
        if self.record is None:
            return calls
        loss = {"loss": f"{self.record.loss:.4g}"} if self.record.learning_rate > 0 else {}
        error, efficiency = self.record.relative_error, self.record.efficiency_0p1
        return calls | {"error": f"{error:.1e}", "efficiency": f"{100 * efficiency:.1f} %"} | loss


@dataclass(frozen=True)
class Known:
    """What a training knows of the weights of its frozen sampler.

    `met` is the weight f/q of largest size that one of its points has; `lost` tells that the sampler has lost a region.

    >>> Known(met=2.5).lost
    False
    """

    met: float = 0.0
    lost: bool = False


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """The frozen sampler, how training went, what was compared, and what a user should know.

    `steps` optimizer steps were made, and each integrand call of the flow training served `steps_per_call` of them.
    `choice` tells what was chosen for a number of events, `known` what an integration should know of the weights.

    >>> from nisampler.samplers.base import UniformSampler
    >>> TrainingResult(UniformSampler(2), candidates=[Candidate("uniform", 0.3, 0.6, chosen=True)]).efficiency
    0.3
    """

    sampler: Sampler
    history: list[TrainingRecord] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    steps: int = 0
    steps_per_call: float = 0.0
    choice: Choice | None = None
    known: Known = Known()

    def __repr__(self) -> str:
        counts = f"{self.steps} steps, {len(self.history)} records, {len(self.warnings)} warnings"
        return f"TrainingResult({self.sampler!r}, efficiency {100 * self.efficiency:.1f} %, {counts})"

    @property
    def efficiency(self) -> float:
        """Of the chosen candidate at 0.1 % overweight."""
        return next((candidate.efficiency_0p1 for candidate in self.candidates if candidate.chosen), 0.0)


def make_record(
    stage: str, calls: int, weights: Tensor, step: int = 0, loss: float = 0.0, learning_rate: float = 0.0
) -> TrainingRecord:
    """A record of the weights f/q (n,) of fresh points; signs do not matter.

    >>> import torch
    >>> round(make_record("vegas", 2, torch.tensor([1.0, 3.0])).ess_fraction, 9)
    0.8
    """
    weights = weights.abs()
    ess = kish_ess(weights) / len(weights)
    efficiency = efficiency_at(weights, 1e-3)[1] if ess > 0 else 0.0
    return TrainingRecord(
        stage,
        calls,
        step,
        loss,
        learning_rate,
        ess,
        efficiency,
        math.sqrt(max(0.0, 1.0 / ess - 1.0) / len(weights)) if ess > 0 else 0.0,
    )
