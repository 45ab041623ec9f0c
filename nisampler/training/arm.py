"""A sampler with its optimizer, the points that it learns from, and what is kept of a training that goes wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.optim import RollBacks, Stepper, adamw
from nisampler.base.weights import kish_ess
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training import spent
from nisampler.training.config import FlowSettings
from nisampler.training.divergence import Divergence
from nisampler.training.divergences import divergence

_WEIGHTS_LOSS = divergence("forward_kl")


class Arm:
    """A sampler with its optimizer, and its losses on unseen points during a trial.

    Parameters
    ----------
    sampler
        What is trained.
    settings
        Optimizer, learning rate and clip.
    fourier
        Number of Fourier features of its networks.
    roll_backs
        Those of the training.

    Attributes
    ----------
    unseen
        Losses of a trial.
    safe
        The last state that has shown to be good.

    Examples
    --------
    >>> from nisampler.flows import CouplingConfig, NetConfig, Spline
    >>> from nisampler.samplers.flow import FlowSampler
    >>> config = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=1))
    >>> arm = Arm(FlowSampler.create(2, config, torch.Generator()), FlowSettings(), 0, RollBacks())
    >>> points = torch.rand(64, 2), torch.ones(64), torch.zeros(64), torch.zeros(64, 0)
    >>> abs(arm.step(points, divergence("variance"), 1.0, fraction=0.0)) < 1e-3
    True
    """

    def __init__(self, sampler: TrainableSampler, settings: FlowSettings, fourier: int, roll_backs: RollBacks) -> None:
        self.sampler, self.fourier = sampler, fourier
        optimizer = settings.optimizer or adamw(settings.learning_rate, settings.weight_decay)
        self.stepper = Stepper(sampler.model, optimizer, clip=settings.clip, roll_backs=roll_backs)
        self.unseen: list[float] = []
        self.safe = self.stepper.state()

    def step(self, points: tuple[Tensor, ...], loss_of: Divergence, norm: float, fraction: float) -> float:
        """One optimizer step; returns the loss before it, NaN if loss or gradient are not finite.

        Parameters
        ----------
        points
            As the buffer stores them: x (n, dim), |f| (n,), log g (n,) and extra columns (n, extra).
        loss_of, norm
            The divergence, and the integral of |f| for it.
        fraction
            Of the training that is done, for the learning rate.
        """
        with spent.timed("networks"):
            return self._step(points, loss_of, norm, fraction)

    def _step(self, points: tuple[Tensor, ...], loss_of: Divergence, norm: float, fraction: float) -> float:
        x, f, log_g, extra = points
        with self.stepper.collecting():
            log_q, target = self.sampler.log_q(x), self.sampler.target(x, f, extra)
        loss = loss_of(log_q, target.detach(), log_g, norm)
        if target.requires_grad:
            # Whatever the divergence of the flows, channel weights follow the one of Kullback and Leibler: its minimum
            # is at the weights that are best for all divergences, and it does not let one channel take everything.
            loss = loss + _WEIGHTS_LOSS(log_q.detach(), target, log_g, norm)
        value, size = self.stepper.step(loss, fraction)
        return value if math.isfinite(value + size) else math.nan


@dataclass(frozen=True)
class Batch:
    """Fresh points of a flow.

    Attributes
    ----------
    y
        In the flow's own cube (n, dim), float64.
    weights
        f/q (n,) as the flow and its channel weights were, in units of the scale of the training.
    columns
        What the buffer stores: y, |f|, log g and extra columns, in the dtype of the flow.

    Examples
    --------
    >>> Batch(torch.zeros(3, 2), torch.ones(3), ()).weights.sum()
    tensor(3.)
    """

    y: Tensor
    weights: Tensor
    columns: tuple[Tensor, ...]


@dataclass
class Window:
    """The batches of some consecutive steps, and the loss of each before its step.

    >>> window = Window()
    >>> window.add(Batch(torch.zeros(2, 1), torch.ones(2), ()), 0.5)
    >>> len(window), window.weights
    (1, tensor([1., 1.]))
    """

    batches: list[Batch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batches)

    def add(self, batch: Batch, loss: float) -> None:
        """A step more."""
        self.batches.append(batch)
        self.losses.append(loss)

    @property
    def y(self) -> Tensor:
        """All points."""
        return torch.cat([batch.y for batch in self.batches])

    @property
    def weights(self) -> Tensor:
        """All weights."""
        return torch.cat([batch.weights for batch in self.batches])


@dataclass
class Watch:
    """Watches the quality of a training: its best moment, a collapse, and when nothing is left to gain.

    Attributes
    ----------
    best_ess
        The best quality that was measured on enough points; 0 for none.
    best
        The state of the arm then, empty during a trial.
    collapsed
        Whether the last window looked like a collapse.
    saturated
        Windows in a row that left next to nothing to gain.

    Examples
    --------
    >>> watch = Watch()
    >>> watch.note(0.9, 1000, {})
    >>> watch.collapses(0.01, found=1.0), watch.collapses(0.01, found=2.0)
    (True, False)
    """

    best_ess: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    collapsed: bool = False
    saturated: int = 0

    def note(self, quality: float, points: int, state: dict[str, Tensor]) -> None:
        """Remember the best state so far, if its quality was measured on enough points."""
        if quality * points >= tuning.TELLING_POINTS and quality >= self.best_ess:
            self.best_ess, self.best = quality, state

    def collapses(self, quality: float, found: float) -> bool:
        """Whether a quality is far below the best, unless the integral was `found` to be larger: a new peak."""
        if quality >= tuning.COLLAPSE * self.best_ess:
            return False
        if found > tuning.DISCOVERY:
            self.best_ess, self.best = 0.0, {}
            return False
        return True

    def rate(self, efficiency: float) -> None:
        """Count windows whose efficiency leaves next to nothing to gain."""
        self.saturated = self.saturated + 1 if efficiency >= tuning.EFFICIENCY_SATURATED else 0


def tail_order(efficiency: float) -> float:
    """Order α at which a weight w_cut = 1/efficiency counts w_cut^α = 30 times as much as one in the bulk.

    The closer the weights are to each other, the higher the order that still sees the largest of them.

    >>> round(tail_order(0.5), 2), tail_order(0.01), tail_order(1.0)
    (4.91, 4.0, 30.0)
    """
    width = -math.log(min(max(efficiency, 1e-6), 1.0 - 1e-6))
    lowest, highest = tuning.TAIL_ORDERS
    return min(max(math.log(tuning.TAIL_COUNTS) / width, lowest), highest)


def quality_of(weights: Tensor, norm: float) -> float:
    """ESS fraction of weights f/q, lowered where their mean falls short of the integral `norm`.

    A flow that has lost a part of the integrand has even weights, but too small ones.

    >>> quality_of(torch.tensor([1.0, 1.0]), 2.0)
    0.5
    """
    return kish_ess(weights) / len(weights) * min(1.0, float(weights.mean()) / norm)
