"""What a training is told and what it reports: configuration, records, candidates, result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from nisampler.base.weights import efficiency_at, kish_ess
from nisampler.errors import ConfigError
from nisampler.samplers.base import Sampler
from nisampler.training.costs import Choice, Costs
from nisampler.training.divergences import divergence


@dataclass(frozen=True)
class TrainingConfig:
    """How a sampler adapts to an integrand. The defaults are meant to be good without tuning.

    Parameters
    ----------
    calls
        Integrand calls for the whole adaptation: survey, training, tree and validation.
    sampler
        "auto" compares flow and VEGAS on unseen points; "flow" or "vegas" keeps to one.
    batch
        Fresh points per step. None takes calls/4000, from 128 to 1024; for channels calls/2000, from 128 to 512, and
        calls/800 with `events`.
    reuse
        Steps on stored points after each step on fresh ones. Costs time but no integrand calls. None takes one; for
        channels three, as their flows share the calls.
    learning_rate
        Peak of a cosine schedule.
    weight_decay
        Of AdamW; 0 is plain Adam.
    clip
        Largest norm of a gradient.
    divergence, tail_divergence
        Losses (see `nisampler.training.divergences`) after a short start with the forward KL divergence, and in the
        last quarter; "none" for no tail stage. The order of "renyi" follows the efficiency, from 4 to 30.
    bins, hidden, layers
        Of the splines and their networks.
    fourier
        Fourier features of the networks; -1 decides by a short trial between none and four.
    vegas_start
        How a flow starts from the VEGAS grid of the survey. "bins": the cells become bins of its first splines, which
        go on learning. "under": the grid stays under the flow, exact to its narrowest cell. "never": not at all.
        "auto": "under" where a uniform start finds next to nothing, else "bins" for the flows of channels, and "never"
        for a single flow.
    learned_weights
        Train the weights of the channels; otherwise they stay at their prior. Without meaning for one channel.
    mixture
        After the training, try the weights α_i ∝ s_i g_i q_i of the trained flows q, see
        `nisampler.samplers.multichannel.MixtureWeights`; they are kept if unseen points show a gain. They are the best
        ones and cost one evaluation of every channel for each point.
    freeze
        Fraction of the steps after which channel weights and shares stand still.
    drop
        Channels that together carry less than this fraction of the integral are dropped when the weights freeze; the
        others take over their part.
    tree
        Try a density tree in the latent cube; it is kept if unseen points show a gain.
    leaves
        Largest number of leaves of the tree.
    buffer
        Number of points that are kept for reuse.
    events
        Unweighted events that will be asked for. With a number, "auto" takes the sampler that makes them in the least
        time, training included, and trains it no longer than that needs: seconds per integrand call, per point and
        per training step are measured, rounded, and stored with the decision, which a resumed training does not take
        again. "vegas" shortens its training likewise, by counting calls alone; "flow" spends them all. 0 chooses by the
        efficiency alone and reads no clock. None is 0, and in a run card the events of the card.
    costs
        Seconds to choose by, in place of measured ones, so that the same seed gives the same bytes for certain.
    """

    calls: int = 1_000_000
    sampler: str = "auto"
    batch: int | None = None
    reuse: int | None = None
    learning_rate: float = 4e-3
    weight_decay: float = 0.0
    clip: float = 1.0
    divergence: str = "exponential"
    tail_divergence: str = "renyi"
    bins: int = 10
    hidden: int = 64
    layers: int = 3
    fourier: int = -1
    vegas_start: str = "auto"
    learned_weights: bool = True
    mixture: bool = True
    freeze: float = 0.75
    drop: float = 1e-3
    tree: bool = True
    leaves: int = 4000
    buffer: int = 300_000
    events: int | None = None
    costs: Costs | None = None

    def __post_init__(self) -> None:
        choices = {"sampler": ("auto", "flow", "vegas"), "vegas_start": ("auto", "bins", "under", "never")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        lowest = {
            "calls": 5000,
            "bins": 3,
            "hidden": 1,
            "layers": 1,
            "fourier": -1,
            "leaves": 1,
            "reuse": 0,
            "events": 0,
        }
        optional = ("batch", "reuse", "events")
        for name in (*lowest, "batch", "buffer"):
            if not isinstance(getattr(self, name), int | None if name in optional else int):
                raise ConfigError(f"{name} must be an integer, got {getattr(self, name)!r}")
        for name, limit in lowest.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise ConfigError(f"{name} must be at least {limit}, got {value}")
        if not isinstance(self.costs, Costs | None):
            raise ConfigError(f"costs must be nisampler.training.costs.Costs, got {self.costs!r}")
        if self.batch is not None and not 2 <= self.batch <= self.calls // 20:
            raise ConfigError(f"batch must be between 2 and calls/20 = {self.calls // 20}, got {self.batch}")
        if self.buffer < self.fresh_batch:
            raise ConfigError(f"buffer must hold at least one batch of {self.fresh_batch}, got {self.buffer}")
        for name in ("learning_rate", "clip"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay must be non-negative and finite, got {self.weight_decay}")
        if not (0.0 < self.freeze <= 1.0 and 0.0 <= self.drop < 1.0):
            raise ConfigError(f"freeze must lie in (0, 1] and drop in [0, 1), got {self.freeze} and {self.drop}")
        divergence(self.divergence)
        if self.tail_divergence != "none":
            divergence(self.tail_divergence)

    @property
    def fresh_batch(self) -> int:
        """Fresh points per step."""
        return self.batch or min(1024, max(128, self.calls // 4000))


@dataclass(frozen=True)
class TrainingRecord:
    """A window of the adaptation, measured on points drawn before the step that learned from them."""

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
    """A sampler that was compared on unseen points, with its efficiency at 0.1 % overweight and its ESS.

    `seconds_per_event` follows from the costs; None where the efficiency alone decided.
    """

    name: str
    efficiency_0p1: float
    ess_fraction: float
    chosen: bool = False
    seconds_per_event: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where the adaptation stands: integrand calls done of those planned, and the latest record."""

    stage: str
    done: int
    total: int
    record: TrainingRecord | None


@dataclass(frozen=True)
class TrainingResult:
    """The frozen sampler, how training went, what was compared, and what a user should know.

    `steps` optimizer steps were made, and each integrand call of the flow training served `steps_per_call` of them.
    `choice` tells what was chosen for a number of events.
    """

    sampler: Sampler
    history: list[TrainingRecord] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    steps: int = 0
    steps_per_call: float = 0.0
    choice: Choice | None = None

    @property
    def efficiency(self) -> float:
        """Of the chosen candidate at 0.1 % overweight."""
        return next((candidate.efficiency_0p1 for candidate in self.candidates if candidate.chosen), 0.0)


def make_record(
    stage: str, calls: int, weights: Tensor, step: int = 0, loss: float = 0.0, learning_rate: float = 0.0
) -> TrainingRecord:
    """A record of the weights f/q of fresh points; signs do not matter."""
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
