"""Adaptation: survey with VEGAS, training of a flow with buffered steps, and a density tree on top.

All integrand calls of the adaptation come out of one budget. Every random number has a named stream, and nothing
depends on the clock, unless the choice of a sampler for a number of events is to be taken by it: then it is taken once
and stored. An interrupted training that is resumed ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.checkpoints import part, prefixed
from nisampler.base.moments import unit_scale
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, CorruptFileError, TrainingDivergedError, ZeroIntegrandError
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.trainable import TrainableSampler
from nisampler.training import spent
from nisampler.training.call_budget import CallBudget
from nisampler.training.candidates import Finish
from nisampler.training.chooser import Chooser
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import Choice
from nisampler.training.evaluation import Evaluation
from nisampler.training.memory import Memory
from nisampler.training.pilot import Pilot
from nisampler.training.prices import Prices
from nisampler.training.records import Known, Progress, TrainingRecord, TrainingResult, make_record
from nisampler.training.surveys import make_survey
from nisampler.ui.monitor import Monitor

if TYPE_CHECKING:
    from nisampler.flows import Flow
    from nisampler.training.flow_trainer import FlowTrainer

Callback = Callable[[Progress], bool | None]
"""Called after each unit of work; where it returns True the training stops, and what was learned is kept."""


class Trainer:
    """Adapts a sampler to an integrand.

    Parameters
    ----------
    integrand
        What to learn; its counters go on.
    config
        See `TrainingConfig`.
    streams
        Source of all random numbers.
    device
        Where the sampler lives.
    monitor
        Is told the progress of the stage "training", and in words what happens to it.
    callback
        Called with a `Progress` after each unit of work; True ends the training: candidates are compared as they are.
    start
        A sampler or flow of one's own. One that can be trained (a `TrainableSampler`, or a `Flow` over the unit cube)
        is trained in place, with all the calls and without VEGAS or a trial of networks. Any other is used as it is.

    Raises
    ------
    ConfigError
        If `start` does not fit the integrand, the device or `config.sampler`.
    ZeroIntegrandError
        If no point of the survey's budget has a non-zero value.
    TrainingDivergedError
        If training diverges again after every roll-back and `sampler` is "flow"; otherwise VEGAS takes over.

    Examples
    --------
    >>> integrand = Integrand(lambda x: 2.0 * x[:, 0], 1, kind="torch")
    >>> result = Trainer(integrand, TrainingConfig(calls=5000, sampler="vegas")).fit()
    >>> result.sampler.describe().startswith("vegas")
    True
    """

    def __init__(
        self,
        integrand: Integrand,
        config: TrainingConfig | None = None,
        streams: Streams | None = None,
        device: torch.device | str = "cpu",
        monitor: Monitor | None = None,
        callback: Callback | None = None,
        start: Sampler | Flow | None = None,
    ) -> None:
        self.integrand, self.device = integrand, torch.device(device)
        self.config = _with_start(config or TrainingConfig(), start is not None)
        self.streams = (streams or Streams(0)).child("training")
        self.monitor, self.callback = monitor, callback
        self.stage = "survey"
        self.iteration = 0
        self.uniform_ess, self.norm = 1.0, 0.0
        self.first_call = integrand.calls
        self.history: list[TrainingRecord] = []
        self.warnings: list[str] = []
        self.survey = make_survey(integrand, self.device, start)
        self.budget = CallBudget(self.config, Prices(self.config, integrand.expected_seconds))
        self.chooser = Chooser(self.config, self.budget, self.survey.flows)
        self.evaluate = Evaluation(integrand, self.streams, self.device, self.budget.prices)
        self.flow: FlowTrainer | None = None
        self.result: TrainingResult | None = None

    @property
    def calls(self) -> int:
        """Integrand calls of this adaptation so far."""
        return self.integrand.calls - self.first_call

    @property
    def choice(self) -> Choice | None:
        """What was chosen for a number of events, once it was."""
        return self.chooser.choice

    def fit(self, checkpoint: Callable[[Trainer], None] | None = None) -> TrainingResult:
        """Run all stages from wherever the trainer stands; `checkpoint` is called between units of work."""
        stages = {"survey": self._survey, "vegas": self._vegas, "flow": self._flow, "finish": self._finish}
        with spent.measured() as seconds:
            while self.result is None:
                stages[self.stage]()
                self._tell()
                if checkpoint is not None and self.result is None:
                    checkpoint(self)
        if self.monitor is not None:
            self.monitor.log(spent.line(seconds))
        return self.result

    def _tell(self) -> None:
        """Progress for the monitor and the callback, which may end the training."""
        record, planned = self.history[-1] if self.history else None, self.chooser.planned
        progress = Progress(self.stage, min(self.calls, planned), planned, record)
        if self.monitor is not None:
            self.monitor.progress("training", progress.done, progress.total, progress.figures())
        wanted = self.callback is not None and self.callback(progress)
        if wanted and self.survey.found and self.stage in ("survey", "vegas", "flow"):
            self.warnings.append(
                f"the training was stopped after {self.calls} of {planned} calls; what was learned until then is kept"
            )
            if self.monitor is not None:
                self.monitor.line(self.warnings[-1])
            if self.flow is not None:
                self.flow.end_trial()
            self.stage = "finish"

    def _survey(self) -> None:
        """Short VEGAS iterations: is the integrand non-zero, is there anything to learn, where to start?"""
        whole = int(tuning.SURVEY_SHARE * self.config.calls)
        budget, blind = self.budget.survey(whole), not self.survey.found
        if blind:
            self.survey.self_test(self.streams)
        # Where the points of a short survey were worth too little, larger iterations follow.
        size = budget if self.calls < budget else whole
        # Fewer iterations of more points where many axes are to learn from few.
        least = int(tuning.FEWEST_CELLS * self.integrand.dim / tuning.CELLS_OF_POINTS)
        weights = self._refine_grid(max(32, size // tuning.SURVEY_ITERATIONS, min(size, least)))
        if not self.survey.found:
            if self.calls >= self.config.calls:
                raise ZeroIntegrandError(
                    f"{self.integrand.name} is zero at all {self.calls} points that were tried: check its domain "
                    "and cuts, or map the variables so that the support fills more of the cube"
                )
            return
        record = self.history[-1]
        if blind:
            self.uniform_ess = record.ess_fraction / self.iteration
        enough = record.ess_fraction * len(weights) >= tuning.FEWEST_EFFECTIVE
        known = self.calls >= (budget if enough else int(self._share() * self.config.calls))
        if known or _constant(weights) or not self.survey.refines:
            self._end_survey(record, enough)

    def _share(self) -> float:
        """Of the calls, before trees and comparison."""
        return self.budget.before_trees(self.integrand.dim)

    def _end_survey(self, record: TrainingRecord, enough: bool) -> None:
        """Decide how the training goes on; `enough` points were worth something."""
        config = self.config
        if not self.survey.trains:
            self.stage = "finish"
            self.warnings.append(f"{self.survey.sampler().describe()} cannot be trained and was used as it is")
            return
        saturated = record.efficiency_0p1 >= tuning.NOTHING_TO_GAIN or record.ess_fraction >= tuning.ESS_SATURATED
        little = saturated or not enough
        vegas_only = config.sampler == "vegas" or (config.sampler == "auto" and little)
        calls = int(self._share() * (config.calls - self.calls))
        reason = "there is little to gain" if little else ""
        if self.budget.for_integral and config.sampler == "auto":
            self.chooser.for_integral(record, self.integrand.dim, reason)
            vegas_only = not self.chooser.takes_flow
        elif self.budget.events and config.sampler == "vegas":
            self.chooser.take(Choice(self.budget.events, "VEGAS", "as told"))
        elif self.budget.events:
            pilot = Pilot(self.chooser, self.evaluate, lambda size: self._make_flow(0, size), lambda: self.calls)
            pilot.run(self.survey.sampler(), record.efficiency_0p1, reason)
            vegas_only, calls = not self.chooser.takes_flow, self.chooser.calls
        self.stage = "vegas" if vegas_only else "flow"
        if not vegas_only:
            self.flow = self._make_flow(calls)

    def _refine_grid(self, n: int, most_increments: int = 128) -> Tensor:
        """One VEGAS iteration with n points; returns its weights."""
        u, weights = self.evaluate(self.survey.sampler(), n, "vegas", self.iteration)
        if _constant(weights):
            self.survey.found |= bool((weights != 0).any())
        else:
            self.survey.refine(u, weights, most_increments)
        self.iteration += 1
        self.norm = float(weights.abs().mean())
        self.history.append(make_record("vegas", self.calls, weights, self.iteration))
        return weights

    def _vegas(self) -> None:
        """Longer VEGAS iterations on a finer grid, with what the survey and the validation leave."""
        known, most = self.history[-1].efficiency_0p1, int(self._share() * self.config.calls)
        enough = self.budget.vegas(known, most)
        share = self._share() - tuning.SURVEY_SHARE
        points = int(share * self.config.calls / tuning.VEGAS_ITERATIONS) * enough // most
        if enough - self.calls < points // 2 or known >= tuning.ESS_SATURATED:
            self.stage = "finish"
            return
        self._refine_grid(points, min(1000, max(128, points // 50)))

    def _make_flow(self, calls: int, size: tuple[int, int] | None = None) -> FlowTrainer:
        """A trainer for the flow that was chosen, or for one with these layers and hidden units."""
        from nisampler.flows import CouplingConfig, NetConfig, Spline  # not before there is a flow
        from nisampler.flows.symmetry import symmetry_of
        from nisampler.training.flow_trainer import FlowTrainer

        config, survey = self.chooser.flow_config(calls, size), self.survey
        start = self._flow_start()
        # A grid under the flow would bend the mirrors.
        symmetry = () if start == "under" else symmetry_of(self.integrand.function)

        def fresh(fourier: int) -> TrainableSampler:
            flow = config.flow
            gain = tuning.INITIAL_GAIN[survey.starts_in_bins]
            net = NetConfig(hidden=flow.hidden, layers=flow.layers, fourier=fourier, centre=True, gain=gain)
            coupling = CouplingConfig(Spline(bins=flow.bins), net, symmetry=symmetry)
            sampler = survey.flow(coupling, self.streams, config.channels.learned_weights)
            if start == "bins":
                sampler.start_from(survey.grids())
            return sampler

        base = survey.under_flow() if start == "under" else None
        return FlowTrainer(self.integrand, config, self.streams, fresh, base, calls, self.norm, self.device)

    def _flow_start(self) -> str:
        """How a flow starts from the grids of the survey: "bins", "under" or "never"."""
        flow = self.config.flow
        points = self.budget.survey(int(tuning.SURVEY_SHARE * self.config.calls)) // tuning.SURVEY_ITERATIONS
        if flow.vegas_start != "auto":
            return flow.vegas_start
        hopeless = max(tuning.HOPELESS_ESS, tuning.FEWEST_EFFECTIVE / max(256, points))
        return "under" if self.uniform_ess < hopeless else self.survey.start(flow.bins)

    def _flow(self) -> None:
        if self.flow is None:
            raise CorruptFileError("the training state names the flow stage but holds no flow")
        try:
            self.history += self.flow.advance(self.calls)
        except TrainingDivergedError as error:
            if self.config.sampler == "flow":
                raise
            self.warnings = [*self.flow.warnings, f"{error}; the flow was given up in favour of VEGAS"]
            self.flow, self.stage = None, "vegas"
            return
        self.warnings = [*self.flow.warnings]
        if self.flow.done:
            self.stage = "finish"

    def _finish(self) -> None:
        """Compare the candidates on unseen points, and freeze the best."""
        flow, config = self.flow, self.config
        bases: list[Sampler] = [self.survey.sampler()]
        replays = {}
        if flow is not None:
            trained = flow.sampler()
            bases = [*bases, trained] if self.survey.refines else [trained]
            replays[len(bases) - 1] = flow.replay
            if config.channels.mixture and self.survey.invertible:
                bases += trained.variants()
            elif config.channels.mixture:
                self.warnings.append("mixture weights were not tried: they need channels that all have an inverse")
        finish = Finish(self.budget, self.evaluate, self.history[-1].efficiency_0p1)
        told = config.sampler == "flow" and len(bases) > 1 and self.survey.refines
        plain = self.survey.plain()
        scouts = self._scouts(plain)
        left, simplest = config.calls - self.calls, None if config.sampler == "flow" else plain
        if self.calls < 0.9 * self._share() * config.calls:
            left = min(left, config.calls // 4)  # what ended early leaves no calls to trees
        trees = self.survey.trains and (flow is not None or not self.budget.for_integral)
        comparison = finish.run(bases, left, replays, trees, told, simplest)
        candidates, sampler = comparison.judged()
        self.warnings += finish.warnings
        self.stage = "done"
        if self.integrand.nonfinite:
            self.warnings.append(
                f"{self.integrand.nonfinite} of {self.integrand.calls} values up to the end of the training were NaN "
                "or infinite and count as zero"
            )
        steps, fresh = (0, 1) if flow is None else (flow.optimizer_steps, max(1, flow.step))
        known = Known(self._met(sampler, scouts), finish.lost)
        self.result = TrainingResult(
            sampler, self.history, candidates, self.warnings, steps, steps / fresh, self.choice, known
        )

    def _scouts(self, plain: Sampler | None) -> Memory:
        """Uniform points, all remembered: they reach what no grid and no flow does."""
        scouts = Memory(self.integrand.dim, self.device)
        n = min(int(tuning.SCOUTS * self.calls), (self.config.calls - self.calls) // 4)
        if isinstance(plain, UniformSampler) and n > 0:
            u, weights = self.evaluate(plain, n, "scouts")
            scouts.add(u, weights, weights, most=n)
        return scouts

    def _met(self, sampler: Sampler, scouts: Memory) -> float:
        """The weight of largest size that a point of the training has under a sampler; 0 where that is not known."""
        if sampler.view(self.integrand) is not self.integrand:
            return 0.0
        memories = [scouts, self.evaluate.memory, *([] if self.flow is None else [self.flow.memory])]
        return max((memory.met(sampler) for memory in memories), key=abs)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue, as tensors and JSON metadata."""
        tensors = prefixed(self.survey.state(), "survey.") | prefixed(self.evaluate.memory.state(), "memory.")
        meta: dict[str, Any] = {
            "found": self.survey.found,
            "stage": self.stage,
            "iteration": self.iteration,
            "first_call": self.first_call,
            "counts": self.integrand.counts(),
            "history": [asdict(record) for record in self.history],
            "warnings": self.warnings,
            "uniform_ess": self.uniform_ess,
            "norm": self.norm,
            "config": self.config.plain(),
        }
        if self.budget.events or self.choice is not None:
            meta["choice"] = self.chooser.state()
        if self.flow is not None:
            own, meta["flow"] = self.flow.state()
            tensors |= prefixed(own, "flow.")
        return tensors, meta

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Stand where the trainer stood that returned this state.

        Raises
        ------
        ConfigError
            If the state was made under another configuration.
        """
        if meta["config"] != self.config.plain():
            raise ConfigError("the checkpoint was made with other training settings; resume with the same ones")
        self.stage, self.iteration = meta["stage"], meta["iteration"]
        self.first_call, self.uniform_ess = meta["first_call"], meta["uniform_ess"]
        self.norm = meta["norm"]
        self.integrand.restore_counts(meta["counts"])
        self.history = [TrainingRecord(**record) for record in meta["history"]]
        self.warnings = list(meta["warnings"])
        self.survey.load_state(part(tensors, "survey."))
        self.evaluate.memory.load_state(part(tensors, "memory."))
        self.survey.found = meta["found"]
        if "choice" in meta:
            self.chooser.load_state(meta["choice"])
        self.flow = None
        if "flow" in meta:
            flow = self._make_flow(meta["flow"]["calls"])
            flow.load_state(part(tensors, "flow."), meta["flow"])
            self.flow = flow


def _with_start(config: TrainingConfig, given: bool) -> TrainingConfig:
    """The settings where a sampler of one's own is given: it gets all the calls, and no network is tried."""
    if not given:
        return config
    if config.sampler == "vegas":
        raise ConfigError('a sampler was given and sampler = "vegas" asks for another one: leave it at "auto"')
    flow = replace(config.flow, fourier=max(0, config.flow.fourier), vegas_start="never")
    return replace(config, sampler="flow", flow=flow)


def _constant(weights: Tensor) -> bool:
    """Whether there is nothing to learn from these weights: all zero, or equal but for rounding errors."""
    scaled, _ = unit_scale(weights)
    return float(scaled.std()) <= 1e-9 * float(scaled.abs().mean())
