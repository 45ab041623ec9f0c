"""Training of a flow on fresh and stored points (2001.05486, and the buffered steps of 2212.06172).

Points are drawn from the flow as it is, and stored with the density they were drawn from; every loss is off-policy
and takes that density into account, so a stored point may be used again at any later time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from nisampler.base.optim import RollBacks, Stepper, adamw
from nisampler.base.rng import Streams
from nisampler.base.storage import part, prefixed
from nisampler.base.weights import kish_ess
from nisampler.density.integrand import Integrand
from nisampler.samplers.base import Sampler
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training.buffer import Buffer
from nisampler.training.config import TrainingConfig, TrainingRecord, make_record
from nisampler.training.divergence import Divergence
from nisampler.training.divergences import divergence

# Fractions of the steps: forward KL at the start, trial of the arms, and where the tail divergence begins.
_WARM_UP, _TRIAL, _TAIL = 0.08, 0.16, 0.75
# Fourier features of the second arm of the trial.
_TRIAL_FOURIER = 4
# Steps on stored points for each on fresh ones: of one flow, and where the flows of several channels share the calls.
_REUSE = (1, 3)
# Calls over those of a fresh batch for channels: where efficiency counts, and where the time to the events does.
_STEPS, _QUICK_STEPS = 2000, 800
# Order of the Rényi divergence for the tail: lowest and highest one, and what a weight at the edge of the tail counts.
_ORDERS, _TAIL_COUNTS = (4.0, 30.0), 30.0
# Number of windows that a training is measured in, and fewest points in one of them.
_WINDOWS, _WINDOW_POINTS = 50, 2000
# Weight of the past in the running integral of |f|.
_MEMORY = 0.98
# A quality below this share of the best one is a collapse, unless the integral grew by the second factor: a new peak.
_COLLAPSE, _DISCOVERY = 0.1, 1.2
# Efficiency at 0.1 % overweight that leaves next to nothing to gain.
_SATURATED = 0.99
# Effective points without which a measured quality tells nothing.
_TELLING = 10.0
# Largest value of the scaled integrand in single precision.
_LARGEST = 1e30
# Least share of a channel, in units of an equal one: when shares freeze, and what is added at the start.
_LEAST_SHARES = (0.01, 0.1)
_WEIGHTS_LOSS = divergence("forward_kl")
# Stored points that a density tree may learn from.
_REPLAY = 300_000
_KEPT = (
    *("step", "optimizer_steps", "channels_frozen", "saturated", "best_ess"),
    *("collapsed", "tail_order", "norm", "safe_norm", "scale", "warnings"),
)


class _Arm:
    """A sampler with its optimizer, and its losses on unseen points during a trial."""

    def __init__(self, sampler: TrainableSampler, config: TrainingConfig, fourier: int, roll_backs: RollBacks) -> None:
        self.sampler, self.fourier = sampler, fourier
        optimizer = adamw(config.learning_rate, config.weight_decay)
        self.stepper = Stepper(sampler.model, optimizer, clip=config.clip, roll_backs=roll_backs)
        self.unseen_loss = 0.0
        self.safe = self.stepper.state()

    def step(self, points: tuple[Tensor, ...], loss_of: Divergence, norm: float, fraction: float) -> float:
        """One optimizer step; returns the loss before it, NaN if loss or gradient are not finite."""
        x, f, log_g, extra = points
        log_q, target = self.sampler.log_q(x), self.sampler.target(x, f, extra)
        loss = loss_of(log_q, target.detach(), log_g, norm)
        if target.requires_grad:
            # Whatever the divergence of the flows, channel weights follow the one of Kullback and Leibler: its minimum
            # is at the weights that are best for all divergences, and it does not let one channel take everything.
            loss = loss + _WEIGHTS_LOSS(log_q.detach(), target, log_g, norm)
        value, size = self.stepper.step(loss, fraction)
        return value if math.isfinite(value + size) else math.nan


class FlowTrainer:
    """Trains one flow, or at first several to choose from, within a budget of integrand calls.

    Parameters
    ----------
    integrand, config, streams
        As for the `Trainer`.
    fresh
        Makes a sampler to be trained, given the number of Fourier features of its networks.
    base
        A sampler under the flow, such as a VEGAS grid; None for the bare cube.
    calls
        Integrand calls that may be spent here.
    norm
        First estimate of the integral of |f|.
    device
        Where flow and buffer live.
    """

    def __init__(
        self,
        integrand: Integrand,
        config: TrainingConfig,
        streams: Streams,
        fresh: Callable[[int], TrainableSampler],
        base: Sampler | None,
        calls: int,
        norm: float,
        device: torch.device,
    ) -> None:
        self.integrand, self.config, self.streams, self.base = integrand, config, streams, base
        self.fresh, self.device = fresh, device
        self.roll_backs = RollBacks()
        self.arms = [self._arm(max(0, config.fourier))]
        several = self.arms[0].sampler.channels > 1
        if config.fourier < 0 and not several:
            self.arms.append(self._arm(_TRIAL_FOURIER))
        self.reuse = _REUSE[several] if config.reuse is None else config.reuse
        self.batch = config.fresh_batch
        if several and config.batch is None:
            # Several flows learn from it. Twice the points take hardly longer: where time counts, steps are fewer.
            self.batch = min(512, max(128, config.calls // (_QUICK_STEPS if config.events else _STEPS)))
        self.calls = calls
        self.steps = max(1, calls // self.batch)
        self.window = max(-(-_WINDOW_POINTS // self.batch), self.steps // _WINDOWS)
        capacity = max(self.batch, min(config.buffer, self.steps * self.batch))
        self.buffer = Buffer(integrand.dim, capacity, device, extra=self.arms[0].sampler.extra)
        self.scale = norm if 0.0 < norm < math.inf else 1.0
        self.norm = self.safe_norm = 1.0
        self.step = self.optimizer_steps = self.saturated = 0
        self.channels_frozen = self.collapsed = False
        self.tail_order = _ORDERS[0]
        self.best_ess = 0.0
        self.best: dict[str, Tensor] = {}
        self.warnings: list[str] = []

    def _arm(self, fourier: int) -> _Arm:
        return _Arm(self.fresh(fourier), self.config, fourier, self.roll_backs)

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or three windows in a row left next to nothing to gain.

        A plateau on the way is no reason to stop: the efficiency rises to the end of the cosine schedule.
        """
        return self.step >= self.steps or self.saturated >= 3

    def sampler(self) -> Sampler:
        """The flow as it is, on top of its base."""
        return self.arms[0].sampler.on(self.base)

    def advance(self, calls_before: int) -> list[TrainingRecord]:
        """One window of steps: its record, or nothing if it ended in a roll-back."""
        first = self.integrand.calls
        entry, norm = [arm.stepper.state() for arm in self.arms], self.norm
        points: list[Tensor] = []
        batches: list[Tensor] = []
        losses: list[float] = []
        while len(losses) < self.window and self.step < self.steps:
            point, weight, loss = self._fresh_step()
            self.step += 1
            if not math.isfinite(loss):
                self._roll_back("the loss or its gradient was not finite")
                return []
            points.append(point)
            batches.append(weight)
            losses.append(loss)
        weights = torch.cat(batches)
        record = make_record(
            "flow",
            calls_before + self.integrand.calls - first,
            weights,
            self.step,
            sum(losses) / len(losses),
            self.arms[0].stepper.rate(self._fraction()),
        )
        if self.best_ess == 0.0:
            self._note(_quality(batches[0], norm), self.batch, entry)
        quality = _quality(weights, norm)
        found = float(weights.mean()) / norm
        if quality < _COLLAPSE * self.best_ess and found > _DISCOVERY:
            self.best_ess, self.best = 0.0, {}
        elif quality < _COLLAPSE * self.best_ess:
            if self.collapsed:
                self._roll_back(f"the effective sample size fell to {quality:.1e} of the points")
            self.collapsed = not self.collapsed  # once may be a single large weight, twice in a row is a collapse
            return [record]
        self.collapsed = False
        self.safe_norm = norm
        for arm, state in zip(self.arms, entry, strict=True):
            arm.safe = state  # the window has shown that it was good; what came of it is not known yet
        self._note(quality, len(weights), entry)
        self._end_trial()
        self._adjust_channels(torch.cat(points), weights)
        self.tail_order = _tail_order(record.efficiency_0p1)
        self.saturated = self.saturated + 1 if record.efficiency_0p1 >= _SATURATED else 0
        if self.done and self.best_ess == 0.0:
            self.warnings.append(
                f"the flow did not learn the integrand: the last {len(weights)} points of its training were worth "
                f"{quality * len(weights):.1f} effective points"
            )
        elif self.done and self.best and quality < 0.8 * self.best_ess:
            self.arms[0].stepper.load_state(self.best)
            self.warnings.append("the end of the training was worse than its best moment, which was restored")
        return [record]

    def rehearse(self) -> None:
        """A step whose outcome does not matter, to be timed."""
        self._fresh_step()
        self.step += 1

    def replay(self, most: int = _REPLAY) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `most` stored points seen from the trained flow: latent points, weights f/q, importance q/g.

        The last says how many uniform latent points each of them stands for.
        """
        x, f, log_g, extra = self.buffer.newest(min(most, _REPLAY))
        sampler = self.arms[0].sampler
        u, log_q = sampler.unmap(x)
        with torch.no_grad():
            f = sampler.target(x, f, extra)
        kept = log_q > -math.inf  # the others lie in channels that were dropped
        weights = self.scale * f[kept].double() * torch.exp(-log_q[kept])
        return u[kept], weights, torch.exp(log_q - log_g)[kept]

    def _fraction(self, part: float = 0.0) -> float:
        return (self.step + part) / self.steps

    def _loss(self) -> Divergence:
        if self._fraction() < _WARM_UP:
            return divergence("forward_kl", control=0.0)
        if self._fraction() >= _TAIL and self.config.tail_divergence == "renyi":
            return divergence("renyi", alpha=self.tail_order)
        if self._fraction() >= _TAIL and self.config.tail_divergence != "none":
            return divergence(self.config.tail_divergence)
        return divergence(self.config.divergence)

    def _adjust_channels(self, x: Tensor, weights: Tensor) -> None:
        """Shares of the channels from the points of a window; when they freeze, unimportant channels are dropped."""
        if self.channels_frozen:
            return
        sampler, freeze = self.arms[0].sampler, self.config.freeze
        least = _LEAST_SHARES[0] + _LEAST_SHARES[1] * max(0.0, 1.0 - self._fraction() / freeze)
        sampler.learn_shares(x, weights, least)
        self.channels_frozen = self._fraction() >= freeze
        if self.channels_frozen:
            stored = self.buffer.newest(len(self.buffer))
            dropped = sampler.drop_channels(self.integrand, stored, x, weights, self.config.drop)
            if dropped:
                self.best, self.arms[0].safe = {}, self.arms[0].stepper.state()  # no way back to dropped channels
                self.warnings.append(dropped)

    def _fresh_step(self) -> tuple[Tensor, Tensor, float]:
        """Draw, evaluate and store a batch, then learn from it and from stored points."""
        generator = self.streams.generator("flow", self.step, device=self.device)
        arm = self.arms[self.step % len(self.arms)]
        y, log_g = arm.sampler.map(arm.sampler.latent(self.batch, generator))
        if not bool(torch.isfinite(y).all() & torch.isfinite(log_g).all()):
            return y, torch.zeros_like(log_g), math.nan
        x, log_base = (y, torch.zeros_like(log_g)) if self.base is None else self.base.map(y)
        value, extra = arm.sampler.observe(self.integrand, x)
        f = (value.to(self.device).abs() * torch.exp(-log_base) / self.scale).clamp(max=_LARGEST)
        with torch.no_grad():
            weights = arm.sampler.target(y, f, extra) * torch.exp(-log_g)
        if not bool(torch.isfinite(weights).all()):
            return y, weights, math.nan
        self.norm = max(_MEMORY * self.norm + (1.0 - _MEMORY) * float(weights.mean()), 1.0 / _LARGEST)
        dtype = arm.sampler.dtype
        fresh = tuple(column.to(dtype) for column in (y, f, log_g, extra.to(self.device)))
        self.buffer.add(*fresh)
        loss_of, loss = self._loss(), 0.0
        for member in self.arms:
            member.sampler.freeze_channels(self.channels_frozen)
        for k in range(1 + self.reuse):
            points = fresh if k == 0 else self.buffer.draw(self.batch, generator)
            self.optimizer_steps += 1
            for member in self.arms:
                found = member.step(points, loss_of, self.norm, self._fraction(k / (1 + self.reuse)))
                if not math.isfinite(found):
                    return y, weights, found
                if k == 0:
                    loss = found if member is arm else loss
                    if self._fraction() >= 0.5 * _TRIAL:
                        member.unseen_loss += found
        return y, weights, loss

    def _note(self, quality: float, points: int, entry: list[dict[str, Tensor]]) -> None:
        """Remember the best state so far, if its quality was measured on enough points."""
        if quality * points >= _TELLING and quality >= self.best_ess:
            self.best_ess, self.best = quality, entry[0] if len(self.arms) == 1 else {}

    def _end_trial(self) -> None:
        """Keep the arm with the lowest loss on points it had not seen."""
        if len(self.arms) > 1 and self._fraction() >= _TRIAL:
            self.arms = [min(self.arms, key=lambda arm: arm.unseen_loss)]

    def _roll_back(self, why: str) -> None:
        rate, advice = self.config.learning_rate, f"raise batch (now {self.batch})"
        self.warnings.append(self.roll_backs.again(f"at step {self.step}", why, rate, advice))
        for arm in self.arms:
            arm.stepper.load_state(self.best or arm.safe)
        self.norm = self.safe_norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue."""
        tensors = prefixed(self.buffer.state(), "buffer.") | prefixed(self.best, "best.")
        for index, arm in enumerate(self.arms):
            tensors |= prefixed(arm.stepper.state(), f"arm.{index}.") | prefixed(arm.safe, f"safe.{index}.")
        meta: dict[str, Any] = {name: getattr(self, name) for name in ("calls", *_KEPT)}
        meta["roll_backs"] = asdict(self.roll_backs)
        meta["fouriers"] = [arm.fourier for arm in self.arms]
        meta["unseen_losses"] = [arm.unseen_loss for arm in self.arms]
        return tensors, meta

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Stand where the trainer stood that returned this state."""
        self.roll_backs = RollBacks(**meta["roll_backs"])
        self.arms = [self._arm(fourier) for fourier in meta["fouriers"]]
        for index, arm in enumerate(self.arms):
            arm.stepper.load_state(part(tensors, f"arm.{index}."))
            arm.safe = part(tensors, f"safe.{index}.")
            arm.unseen_loss = meta["unseen_losses"][index]
        self.best = part(tensors, "best.")
        self.buffer.load_state(part(tensors, "buffer."))
        for name in _KEPT:
            setattr(self, name, meta[name])


def _tail_order(efficiency: float) -> float:
    """Order α at which a weight w_cut = 1/efficiency counts w_cut^α = 30 times as much as one in the bulk.

    The closer the weights are to each other, the higher the order that still sees the largest of them.
    """
    width = -math.log(min(max(efficiency, 1e-6), 1.0 - 1e-6))
    return min(max(math.log(_TAIL_COUNTS) / width, _ORDERS[0]), _ORDERS[1])


def _quality(weights: Tensor, norm: float) -> float:
    """ESS fraction of weights f/q, lowered where their mean falls short of the integral `norm`.

    A flow that has lost a part of the integrand has even weights, but too small ones.
    """
    return kish_ess(weights) / len(weights) * min(1.0, float(weights.mean()) / norm)
