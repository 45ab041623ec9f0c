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

from nisampler.base import tuning
from nisampler.base.checkpoints import part, prefixed
from nisampler.base.optim import RollBacks
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.samplers.base import Sampler
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training import spent
from nisampler.training.arm import Arm, Batch, Watch, Window, quality_of, tail_order
from nisampler.training.buffer import Buffer
from nisampler.training.config import TrainingConfig
from nisampler.training.divergence import Divergence
from nisampler.training.divergences import divergence
from nisampler.training.memory import Memory
from nisampler.training.records import TrainingRecord, make_record

_KEPT = ("step", "optimizer_steps", "channels_frozen", "tail_order", "norm", "safe_norm", "scale", "warnings")
_WATCHED = ("best_ess", "collapsed", "saturated")


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

    Examples
    --------
    >>> from nisampler.flows import CouplingConfig, NetConfig, Spline
    >>> from nisampler.samplers.flow import FlowSampler
    >>> def fresh(fourier):
    ...     net = NetConfig(hidden=8, layers=1, fourier=fourier)
    ...     return FlowSampler.create(2, CouplingConfig(Spline(bins=4), net), torch.Generator())
    >>> integrand = Integrand(lambda x: x.prod(1), 2, kind="torch")
    >>> trainer = FlowTrainer(integrand, TrainingConfig(), Streams(1), fresh, None, 4000, 0.25, torch.device("cpu"))
    >>> trainer.advance(0)[0].stage
    'flow'
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
        self.fresh, self.device, self.calls = fresh, device, calls
        self.roll_backs = RollBacks()
        self.arms = [self._arm(max(0, config.flow.fourier))]
        several = self.arms[0].sampler.channels > 1
        if config.flow.fourier < 0 and not several:
            self.arms.append(self._arm(tuning.TRIAL_FOURIER))
        # With no events to make, calls and efficiency count, and hardly the time of the training.
        thorough = several or config.events == 0 or integrand.expected_seconds >= tuning.REUSE_FROM
        self.reuse = tuning.REUSE[thorough] if config.flow.reuse is None else config.flow.reuse
        self.batch = config.fresh_batch
        if several and config.flow.batch is None:
            # Several flows learn from it. Twice the points take hardly longer: where time counts, steps are fewer.
            wanted = tuning.CHANNEL_STEPS_QUICK if config.events else tuning.CHANNEL_STEPS
            self.batch = min(512, max(128, config.calls // wanted))
        self.stored_batch = tuning.STORED_POINTS[several] * self.batch
        self.steps = max(1, calls // self.batch)
        self.together = max(1, min(tuning.DRAWN_TOGETHER[0], self.steps // tuning.DRAWN_TOGETHER[1]))
        self.window = max(-(-tuning.WINDOW_POINTS // self.batch), self.steps // tuning.WINDOWS)
        capacity = max(self.batch, min(config.flow.buffer, self.steps * self.batch))
        self.buffer = Buffer(integrand.dim, capacity, device, extra=self.arms[0].sampler.extra)
        self.scale = norm if 0.0 < norm < math.inf else 1.0
        self.norm = self.safe_norm = 1.0
        self.step = self.optimizer_steps = 0
        self.channels_frozen = False
        self.tail_order = tuning.TAIL_ORDERS[0]
        self.watch = Watch()
        self.memory = Memory(integrand.dim, device)
        self.warnings: list[str] = []

    def _arm(self, fourier: int) -> Arm:
        return Arm(self.fresh(fourier), self.config.flow, fourier, self.roll_backs)

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or three windows in a row left next to nothing to gain.

        A plateau on the way is no reason to stop: the efficiency rises to the end of the cosine schedule.
        """
        return self.step >= self.steps or self.watch.saturated >= 3

    def sampler(self) -> Sampler:
        """The flow as it is, on top of its base."""
        return self.arms[0].sampler.on(self.base)

    def advance(self, calls_before: int) -> list[TrainingRecord]:
        """One window of steps: its record, or nothing if it ended in a roll-back."""
        first, norm = self.integrand.calls, self.norm
        entry = [arm.stepper.state() for arm in self.arms]
        window = Window()
        while len(window) < self.window and self.step < self.steps:
            if not self._round(window, min(self.together, self.steps - self.step)):
                self._roll_back("the loss or its gradient was not finite")
                return []
        calls = calls_before + self.integrand.calls - first
        loss, rate = sum(window.losses) / len(window), self.arms[0].stepper.rate(self._fraction())
        record = make_record("flow", calls, window.weights, self.step, loss, rate)
        self._judge(window, record.efficiency_0p1, entry, norm)
        return [record]

    def _judge(self, window: Window, efficiency: float, entry: list[dict[str, Tensor]], norm: float) -> None:
        """Go on from a window, or back: the states at its entry and the integral that was known then are at hand."""
        watch, weights = self.watch, window.weights
        known = entry[0] if len(self.arms) == 1 else {}
        if watch.best_ess == 0.0:
            watch.note(quality_of(window.batches[0].weights, norm), self.batch, known)
        quality = quality_of(weights, norm)
        if watch.collapses(quality, found=float(weights.mean()) / norm):
            if watch.collapsed:
                self._roll_back(f"the effective sample size fell to {quality:.1e} of the points")
            watch.collapsed = not watch.collapsed  # once may be a single large weight, twice in a row is a collapse
            return
        watch.collapsed, self.safe_norm = False, norm
        for arm, state in zip(self.arms, entry, strict=True):
            arm.safe = state  # the window has shown that it was good; what came of it is not known yet
        watch.note(quality, len(weights), known)
        if self._fraction() >= tuning.TRIAL or self._decided():
            self.end_trial()
        self._adjust_channels(window.y, weights)
        self.tail_order = tail_order(efficiency)
        watch.rate(efficiency)
        if self.done:
            self._end(quality, len(weights))

    def _end(self, quality: float, points: int) -> None:
        """At the end, after a last window of this quality: say that the training failed, or take its best moment."""
        if self.watch.best_ess == 0.0:
            self.warnings.append(
                f"the flow did not learn the integrand: the last {points} points of its training were worth "
                f"{quality * points:.1f} effective points"
            )
        elif self.watch.best and quality < tuning.RESTORE_BEST * self.watch.best_ess:
            self.arms[0].stepper.load_state(self.watch.best)
            self.warnings.append("the end of the training was worse than its best moment, which was restored")

    @property
    def rehearsed(self) -> int:
        """Points that `rehearse` draws."""
        return tuning.DRAWN_TOGETHER[0] * self.batch

    def rehearse(self) -> None:
        """Steps whose outcome does not matter, to be timed."""
        self._round(Window(), tuning.DRAWN_TOGETHER[0])

    def replay(self, most: int = tuning.REPLAY) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `most` stored points seen from the trained flow: latent points, weights f/q, importance q/g.

        The last says how many uniform latent points each of them stands for.
        """
        x, f, log_g, extra = self.buffer.newest(min(most, tuning.REPLAY))
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
        """The divergence of the present moment: of the start, of the settings, or of their tail."""
        flow, done = self.config.flow, self._fraction()
        if done < tuning.WARM_UP:
            return divergence("forward_kl", control=0.0)
        tail = done >= tuning.TAIL and flow.tail_divergence != "none"
        chosen = flow.tail_divergence if tail else flow.divergence
        if isinstance(chosen, Divergence):
            return chosen
        return divergence(chosen, alpha=self.tail_order) if tail and chosen == "renyi" else divergence(chosen)

    def _adjust_channels(self, y: Tensor, weights: Tensor) -> None:
        """Shares of the channels from the points of a window; when they freeze, unimportant channels are dropped."""
        if self.channels_frozen:
            return
        arm, settings = self.arms[0], self.config.channels
        moving = max(0.0, 1.0 - self._fraction() / settings.freeze)
        arm.sampler.learn_shares(y, weights, tuning.LEAST_SHARES[0] + tuning.LEAST_SHARES[1] * moving)
        self.channels_frozen = self._fraction() >= settings.freeze
        if self.channels_frozen:
            stored = self.buffer.newest(len(self.buffer))
            dropped = arm.sampler.drop_channels(self.integrand, stored, y, weights, settings.drop)
            if dropped:
                self.watch.best, arm.safe = {}, arm.stepper.state()  # no way back to dropped channels
                self.warnings.append(dropped)

    def _round(self, window: Window, count: int) -> bool:
        """Draw the points of so many steps, and take these steps; False where something was not finite."""
        first, generator = self.step, self.streams.generator("flow", self.step, device=self.device)
        drawing = self.arms[first // self.together % len(self.arms)]
        for member in self.arms:
            member.sampler.freeze_channels(self.channels_frozen)
        batches = self._draw(drawing.sampler, count, generator)
        self.step = first + count if batches is None else first
        for batch in batches or []:
            loss = self._learn(batch, drawing, generator)
            self.step += 1
            if not math.isfinite(loss):
                self.step = first + count
                return False
            window.add(batch, loss)
        return batches is not None

    def _learn(self, batch: Batch, drawing: Arm, generator: torch.Generator) -> float:
        """Store a batch of fresh points, learn from it and from stored points; the loss of one arm before that."""
        self.norm = max(
            tuning.NORM_MEMORY * self.norm + (1.0 - tuning.NORM_MEMORY) * float(batch.weights.mean()),
            1.0 / tuning.LARGEST_VALUE,
        )
        self.buffer.add(*batch.columns)
        loss_of, loss = self._loss(), 0.0
        for k in range(1 + self.reuse):
            points = batch.columns if k == 0 else self.buffer.draw(self.stored_batch, generator)
            self.optimizer_steps += 1
            losses = {}
            for member in self.arms:
                found = losses[member] = member.step(points, loss_of, self.norm, self._fraction(k / (1 + self.reuse)))
                if not math.isfinite(found):
                    return found
            if k == 0:
                loss = losses[drawing]
                if len(self.arms) > 1 and self._fraction() >= tuning.TRIAL_RATED:
                    for member, found in losses.items():
                        member.unseen.append(found)
        return loss

    def _draw(self, sampler: TrainableSampler, count: int, generator: torch.Generator) -> list[Batch] | None:
        """So many batches of fresh points; None if something of them is not finite."""
        with spent.timed("networks"):
            y, log_g = sampler.map(sampler.latent(count * self.batch, generator))
        if not bool(torch.isfinite(y).all() & torch.isfinite(log_g).all()):
            return None
        x, log_base = (y, torch.zeros_like(log_g)) if self.base is None else self.base.map(y)
        with spent.timed("functions"):
            value, extra = sampler.observe(self.integrand, x)
        f = (value.to(self.device).abs() * torch.exp(-log_base) / self.scale).clamp(max=tuning.LARGEST_VALUE)
        with torch.no_grad():
            weights = sampler.target(y, f, extra) * torch.exp(-log_g)
        if not bool(torch.isfinite(weights).all()):
            return None
        if not extra.shape[1]:
            self.memory.add(x, value, weights, most=count)
        columns = tuple(column.to(sampler.dtype) for column in (y, f, log_g, extra.to(self.device)))
        # Neighbours go to different batches, so that each has points of every channel.
        parts = (column.view(self.batch, count, *column.shape[1:]).unbind(1) for column in (y, weights, *columns))
        return [
            Batch(y, weights, tuple(part.contiguous() for part in stored))
            for y, weights, *stored in zip(*parts, strict=True)
        ]

    def end_trial(self) -> None:
        """Keep the arm that was better at most batches of points that it had not seen."""
        if len(self.arms) > 1:
            self.arms = [self.arms[int(self._lead() < 0)]]

    def _lead(self) -> int:
        """Batches of a trial that the first network knew better, less those that the second one did.

        A few large weights make up most of a mean loss, so that means tell less.
        """
        pairs = zip(self.arms[0].unseen, self.arms[1].unseen, strict=True)
        return sum((first < second) - (first > second) for first, second in pairs)

    def _decided(self) -> bool:
        """Whether one network of a trial is better at far more batches than by chance."""
        if len(self.arms) < 2:
            return False
        return abs(self._lead()) > tuning.TRIAL_DECIDED * math.sqrt(len(self.arms[0].unseen))

    def _roll_back(self, why: str) -> None:
        rate, advice = self.arms[0].stepper.peak, f"raise batch (now {self.batch})"
        self.warnings.append(self.roll_backs.again(f"at step {self.step}", why, rate, advice))
        for arm in self.arms:
            arm.stepper.load_state(self.watch.best or arm.safe)
        self.norm = self.safe_norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue."""
        tensors = prefixed(self.buffer.state(), "buffer.") | prefixed(self.watch.best, "best.")
        tensors |= prefixed(self.memory.state(), "memory.")
        for index, arm in enumerate(self.arms):
            tensors |= prefixed(arm.stepper.state(), f"arm.{index}.") | prefixed(arm.safe, f"safe.{index}.")
        meta: dict[str, Any] = {name: getattr(self, name) for name in ("calls", *_KEPT)}
        meta |= {name: getattr(self.watch, name) for name in _WATCHED}
        meta["roll_backs"] = asdict(self.roll_backs)
        meta["fouriers"] = [arm.fourier for arm in self.arms]
        meta["unseen_losses"] = [arm.unseen for arm in self.arms]
        return tensors, meta

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Stand where the trainer stood that returned this state."""
        self.roll_backs = RollBacks(**meta["roll_backs"])
        self.arms = [self._arm(fourier) for fourier in meta["fouriers"]]
        for index, arm in enumerate(self.arms):
            arm.stepper.load_state(part(tensors, f"arm.{index}."))
            arm.safe = part(tensors, f"safe.{index}.")
            arm.unseen = list(meta["unseen_losses"][index])
        watched = {name: meta[name] for name in _WATCHED}
        self.watch = Watch(best=part(tensors, "best."), **watched)
        self.buffer.load_state(part(tensors, "buffer."))
        self.memory.load_state(part(tensors, "memory."))
        for name in _KEPT:
            setattr(self, name, meta[name])
