"""Adaptation: survey with VEGAS, training of a flow with buffered steps, and a density tree on top.

All integrand calls of the adaptation come out of one budget. Every random number has a named stream, and nothing
depends on the clock but the choice of a sampler for a number of events, which is taken once and stored: an interrupted
training that is resumed ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.base.storage import part, prefixed
from nisampler.base.weights import efficiencies_at, kish_ess
from nisampler.density.channels import multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, CorruptFileError, TrainingDivergedError, ZeroIntegrandError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.samplers.base import Sampler
from nisampler.samplers.chain import chain
from nisampler.samplers.trainable import TrainableSampler
from nisampler.samplers.tree import TreeConfig, TreeSampler, grow_tree
from nisampler.training.config import Candidate, Progress, TrainingConfig, TrainingRecord, TrainingResult, make_record
from nisampler.training.costs import Choice, Option
from nisampler.training.flow_trainer import FlowTrainer
from nisampler.training.planner import Planner
from nisampler.training.survey import make_survey

# Shares of the budget and numbers of VEGAS iterations, of the survey and of a training by VEGAS alone.
_SURVEY, _SURVEY_ITERATIONS, _VEGAS_ITERATIONS = 1 / 12, 10, 9
# VEGAS alone will do from these on: efficiency at 0.1 % overweight, and ESS over the number of points.
_NOTHING_TO_GAIN, _SATURATED = 0.97, 0.999
# The grid goes under the flow where uniform points have a smaller ESS fraction, or fewer effective points.
_HOPELESS, _FEWEST_EFFECTIVE = 5e-4, 10.0
# A later candidate must be better by this factor; one whose integral is lower by so many errors has lost a region.
_MARGIN, _LOST = 1.01, 5.0
# ... and keep this much of the effective sample size: with heavy tails an efficiency of few points may be luck.
_ESS_KEPT = 0.98
# The efficiency must gain this factor for a sampler to evaluate every channel for each point.
_PRICE_OF_MIXTURE = 1.1
# Density trees: fewest points to grow one, and the moment norms that are tried.
_FEWEST_FOR_TREE, _ORDERS = 1000, (2.0, 4.0, 8.0)
# Points of a flow that is timed.
_REHEARSED = 2048


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
    on_progress
        Called with a `Progress` after each unit of work.

    Raises
    ------
    ZeroIntegrandError
        If no point of the survey's budget has a non-zero value.
    TrainingDivergedError
        If training diverges again after every roll-back and `sampler` is "flow"; otherwise VEGAS takes over.
    """

    def __init__(
        self,
        integrand: Integrand,
        config: TrainingConfig | None = None,
        streams: Streams | None = None,
        device: torch.device | str = "cpu",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.integrand = integrand
        self.config = config or TrainingConfig()
        self.streams = (streams or Streams(0)).child("training")
        self.device = torch.device(device)
        self.on_progress = on_progress
        self.stage = "survey"
        self.iteration = 0
        self.uniform_ess, self.norm = 1.0, 0.0
        self.first_call = integrand.calls
        self.history: list[TrainingRecord] = []
        self.warnings: list[str] = []
        self.candidates: list[Candidate] = []
        self.survey = make_survey(integrand, self.device)
        self.plan = Planner(self.config, self.survey.flows)
        self.flow: FlowTrainer | None = None
        self.result: TrainingResult | None = None

    @property
    def calls(self) -> int:
        """Integrand calls of this adaptation so far."""
        return self.integrand.calls - self.first_call

    def fit(self, checkpoint: Callable[[Trainer], None] | None = None) -> TrainingResult:
        """Run all stages from wherever the trainer stands; `checkpoint` is called between units of work."""
        stages = {"survey": self._survey, "vegas": self._vegas, "flow": self._flow, "finish": self._finish}
        while self.result is None:
            stages[self.stage]()
            if self.on_progress is not None:
                record, planned = self.history[-1] if self.history else None, self.plan.planned
                self.on_progress(Progress(self.stage, min(self.calls, planned), planned, record))
            if checkpoint is not None and self.result is None:
                checkpoint(self)
        return self.result

    def _evaluate(self, sampler: Sampler, n: int, name: str, index: int = 0) -> tuple[Tensor, Tensor]:
        """Fresh latent points (n, dim) of a frozen sampler and their weights f/q (n,)."""
        generator = self.streams.generator(name, index, device=self.device)
        with self._timed("grid", n):
            u = torch.rand(n, self.integrand.dim, generator=generator, dtype=torch.float64, device=self.device)
            x, log_q = sampler.map(u)
        with self._timed("call", n):
            f = sampler.view(self.integrand)(x).to(self.device)
        return u, f * torch.exp(-log_q)

    def _timed(self, name: str, points: int) -> AbstractContextManager[None]:
        return self.plan.meter.timed(name, points) if self.plan.measures else nullcontext()

    def _refine_grid(self, n: int, most_increments: int = 128) -> Tensor:
        """One VEGAS iteration with n points; returns its weights."""
        u, weights = self._evaluate(self.survey.sampler(), n, "vegas", self.iteration)
        if _constant(weights):
            self.survey.found |= bool((weights != 0).any())
        else:
            self.survey.refine(u, weights, most_increments)
        self.iteration += 1
        self.norm = float(weights.abs().mean())
        self.history.append(make_record("vegas", self.calls, weights, self.iteration))
        return weights

    def _survey(self) -> None:
        """Short VEGAS iterations: is the integrand non-zero, is there anything to learn, where to start?"""
        whole = int(_SURVEY * self.config.calls)
        budget = self.plan.survey_calls(whole)
        blind = not self.survey.found
        if blind:
            self.survey.self_test(self.streams)
        # Where the points of a short survey were worth too little, larger iterations follow.
        size = budget if self.calls < budget else whole
        weights = self._refine_grid(max(32, size // _SURVEY_ITERATIONS))
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
        enough = record.ess_fraction * len(weights) >= _FEWEST_EFFECTIVE
        last = self.calls >= (budget if enough else int(0.8 * self.config.calls)) or _constant(weights)
        if not last:
            return
        little = record.efficiency_0p1 >= _NOTHING_TO_GAIN or record.ess_fraction >= _SATURATED or not enough
        vegas_only = self.config.sampler == "vegas" or (self.config.sampler == "auto" and little)
        calls = int(0.8 * (self.config.calls - self.calls))
        if self.plan.events and self.config.sampler == "vegas":
            self.plan.choice = Choice(self.plan.events, "VEGAS", "as told")
        elif self.plan.events:
            self._choose("there is little to gain" if little else "")
            vegas_only, calls = not self.plan.takes_flow, self.plan.calls
        self.stage = "vegas" if vegas_only else "flow"
        if not vegas_only:
            self.flow = self._make_flow(calls)

    def _choose(self, reason: str) -> None:
        """The quickest way to the events: VEGAS if there is a reason for it, else by the seconds that are foreseen."""
        plan, base = self.plan, self.survey.sampler()
        points = plan.pilot_calls(self.history[-1].efficiency_0p1, self.config.calls // 20)
        u, weights = self._evaluate(base, points, "pilot")
        plan.note("call", "grid")
        efficiency = _candidate("", weights, torch.ones_like(weights)).efficiency_0p1
        options = [plan.vegas("VEGAS", base, efficiency, self.calls)]
        if self.config.tree and plan.tree_points(efficiency, base, 1) >= _FEWEST_FOR_TREE:
            half = points // 2
            with self._timed("growth", half):
                behind = TreeSampler(grow_tree(u[:half], weights[:half], self._tree_config(_ORDERS[-1])))
                density = behind.log_prob(u[half:]).exp()
            for _ in range(2):
                with self._timed("tree", points):
                    behind.map(u)
            plan.note("growth", "tree")
            narrowed = _candidate("", weights[half:] / density, density).efficiency_0p1
            options.append(plan.vegas("VEGAS + tree", chain(base, behind), narrowed, self.calls))
        flows: list[Option] = []
        for name, size in plan.sizes().items():
            most = int(0.8 * (self.config.calls - self.calls))
            if not reason and plan.worth_timing(name, options + flows, efficiency, most):
                self._rehearse(name, size)
                flows.append(plan.flow(name, efficiency, most))
        plan.decide(options, flows, reason or ("" if flows else "a flow would take longer at best"), self.calls)

    def _rehearse(self, name: str, size: tuple[int, int]) -> None:
        """Measure training and points of a flow of this size, which is thrown away."""
        if not self.plan.measures:
            return
        flow, meter = self._make_flow(0, size), self.plan.meter
        sampler, generator = flow.sampler(), self.streams.generator("rehearsal", device=self.device)
        for again in range(3):
            with meter.timed(f"{name}_training", flow.batch) if again else nullcontext():
                flow.rehearse()
            with meter.timed(name, _REHEARSED) if again else nullcontext():
                sampler.sample(_REHEARSED, generator)
        self.plan.note(name, f"{name}_training")

    def _tree_config(self, order: float) -> TreeConfig:
        return TreeConfig(leaves=self.config.leaves, order=order)

    def _make_flow(self, calls: int, size: tuple[int, int] | None = None) -> FlowTrainer:
        config = self.plan.flow_config(calls, size)
        points = max(256, self.plan.survey_calls(int(_SURVEY * self.config.calls)) // _SURVEY_ITERATIONS)
        start = self.config.vegas_start
        if start == "auto" and self.uniform_ess < max(_HOPELESS, _FEWEST_EFFECTIVE / points):
            start = "under"
        elif start == "auto":
            start = self.survey.start(config.bins)
        base = self.survey.under_flow() if start == "under" else None

        def fresh(fourier: int) -> TrainableSampler:
            net = NetConfig(hidden=config.hidden, layers=config.layers, fourier=fourier, centre=True)
            coupling = CouplingConfig(Spline(bins=config.bins), net)
            sampler = self.survey.flow(coupling, self.streams, config.learned_weights)
            if start == "bins":
                sampler.start_from(self.survey.grids())
            return sampler

        return FlowTrainer(self.integrand, config, self.streams, fresh, base, calls, self.norm, self.device)

    def _vegas(self) -> None:
        """Longer VEGAS iterations on a finer grid, with what the survey and the validation leave."""
        known, most = self.history[-1].efficiency_0p1, int(0.8 * self.config.calls)
        enough = self.plan.vegas_calls(known, most)
        points = int((0.8 - _SURVEY) * self.config.calls / _VEGAS_ITERATIONS) * enough // most
        if enough - self.calls < points // 2 or known >= _SATURATED:
            self.stage = "finish"
            return
        self._refine_grid(points, min(1000, max(128, points // 50)))

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
        """Grow trees, compare the candidates on unseen points, and freeze the best."""
        rest = max(200, min(self.config.calls - self.calls, self.config.calls // 4))
        rest = self.plan.finish_calls(self.history[-1].efficiency_0p1, rest)
        bases: list[Sampler] = [self.survey.sampler()]
        trained = None if self.flow is None else self.flow.sampler()
        if trained is not None:
            bases = [*bases, trained] if self.config.sampler == "auto" else [trained]
            bases += self._variants(trained) if self.config.mixture else []
        test = rest // (2 * len(bases))
        options: list[tuple[Candidate, Sampler]] = []
        first = Moments()
        below: tuple[Sampler, Tensor, Tensor] | None = None
        for number, base in enumerate(bases):
            unseen, weights = self._evaluate(base, test, "validation", number)
            found = Moments.from_tensor(weights.abs())
            first = first if number else found
            deviation = math.hypot(found.standard_error, first.standard_error)
            if first.mean - found.mean > _LOST * deviation:
                lost = f"{found.mean:.6g} instead of {first.mean:.6g}: it has lost a region and is not used"
                than = bases[0].describe()
                self.warnings.append(f"{base.describe()} finds less of the integral than {than}, {lost}")
                below = None
                break
            before = options[-1:]
            options.append((_candidate(base.describe(), weights, torch.ones_like(weights)), base))
            simple = not base.mixture and not self.plan.events
            if simple or self._value(*options[-1]) > max((self._value(*option) for option in before), default=-1.0):
                below = (base, unseen, weights)
            options += self._shares(base, unseen, weights)
        if below is not None:
            options += self._trees(*below, rest - test * len(bases), below[0] is trained)
        best = 0
        for index, option in enumerate(options):
            enough = option[0].ess_fraction >= _ESS_KEPT * options[best][0].ess_fraction
            if enough and self._value(*option) > _MARGIN * self._value(*options[best]):
                best = index
        self.candidates = [
            replace(c, chosen=index == best, seconds_per_event=self.plan.seconds_per_event(c.efficiency_0p1, sampler))
            for index, (c, sampler) in enumerate(options)
        ]
        self.stage = "done"
        if self.integrand.nonfinite:
            self.warnings.append(
                f"{self.integrand.nonfinite} of {self.integrand.calls} values up to the end of the training were NaN "
                "or infinite and count as zero"
            )
        steps, fresh = (0, 1) if self.flow is None else (self.flow.optimizer_steps, max(1, self.flow.step))
        self.result = TrainingResult(
            options[best][1],
            self.history,
            self.candidates,
            self.warnings,
            steps,
            steps / fresh,
            self.plan.choice,
        )

    def _variants(self, trained: Sampler) -> list[Sampler]:
        """Other ways to use what was trained, where the channels have the inverses that these need."""
        function = multichannel_of(self.integrand.function)
        if function is not None and not function.invertible:
            self.warnings.append("mixture weights were not tried: they need channels that all have an inverse")
            return []
        return trained.variants()

    def _value(self, candidate: Candidate, sampler: Sampler) -> float:
        """What candidates are compared by: events per second, or the efficiency, and less where points cost more."""
        if self.plan.events:
            return candidate.efficiency_0p1 / self.plan.point_cost(sampler)
        return candidate.efficiency_0p1 / (_PRICE_OF_MIXTURE if sampler.mixture else 1.0)

    def _shares(self, base: Sampler, unseen: Tensor, weights: Tensor) -> list[tuple[Candidate, Sampler]]:
        """A multichannel sampler with the best shares for unweighting, learned on one half of the unseen points."""
        twin = base.for_unweighting(unseen, weights)
        if twin is None:
            return []
        sampler, ratio = twin
        name = f"{base.describe()}, shares for unweighting"
        return [(_candidate(name, weights[len(unseen) // 2 :] / ratio, ratio), sampler)]

    def _trees(
        self, base: Sampler, unseen: Tensor, weights: Tensor, n: int, trained: bool
    ) -> list[tuple[Candidate, Sampler]]:
        """Density trees behind a sampler, with their figures on unseen points.

        They grow on n fresh points and, behind the flow as it was trained, on those of the training.
        """
        orders = _ORDERS[1:] if self.plan.events else _ORDERS
        most = self.plan.tree_points(self.history[-1].efficiency_0p1, base, len(orders))
        n = min(n, most)
        if not self.config.tree or n < _FEWEST_FOR_TREE:
            return []
        seen, learned = self._evaluate(base, n, "tree")
        importance = torch.ones_like(learned)
        if self.flow is not None and trained:
            old_seen, old_learned, old_importance = self.flow.replay(most - n)
            seen, learned = torch.cat([seen, old_seen]), torch.cat([learned.abs(), old_learned])
            importance = torch.cat([importance, old_importance])
        found: list[tuple[Candidate, Sampler]] = []
        for order in orders:
            tree = grow_tree(seen, learned, self._tree_config(order), importance)
            density = tree.unmap(unseen)[1].exp()
            behind = TreeSampler(tree)
            name = f"{base.describe()} + {behind.describe()}, order {order:g}"
            found.append((_candidate(name, weights / density, density), chain(base, behind)))
        return found

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to continue, as tensors and JSON metadata."""
        tensors = prefixed(self.survey.state(), "survey.")
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
            "config": asdict(self.config),
        }
        if self.plan.events:
            meta["plan"] = self.plan.state()
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
        if meta["config"] != asdict(self.config):
            raise ConfigError("the checkpoint was made with other training settings; resume with the same ones")
        self.stage, self.iteration = meta["stage"], meta["iteration"]
        self.first_call, self.uniform_ess = meta["first_call"], meta["uniform_ess"]
        self.norm = meta["norm"]
        self.integrand.restore_counts(meta["counts"])
        self.history = [TrainingRecord(**record) for record in meta["history"]]
        self.warnings = list(meta["warnings"])
        self.survey.load_state(part(tensors, "survey."))
        self.survey.found = meta["found"]
        if "plan" in meta:
            self.plan.load_state(meta["plan"])
        self.flow = None
        if "flow" in meta:
            flow = self._make_flow(meta["flow"]["calls"])
            flow.load_state(part(tensors, "flow."), meta["flow"])
            self.flow = flow


def _constant(weights: Tensor) -> bool:
    """Whether there is nothing to learn from these weights: all zero, or equal but for rounding errors."""
    return float(weights.std()) <= 1e-9 * float(weights.abs().mean())


def _candidate(name: str, weights: Tensor, counts: Tensor) -> Candidate:
    """Figures of weights (n,) that stand for `counts` draws each."""
    if not bool((weights != 0.0).any()):
        return Candidate(name, 0.0, 0.0)
    efficiency = efficiencies_at(weights, [1e-3], counts)[0][1]
    return Candidate(name, efficiency, kish_ess(weights.abs(), counts) / float(counts.sum()))
