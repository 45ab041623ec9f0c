"""The sampler with the most unweighted events per second, training included.

Seconds are stated, or, where a clock is asked for, measured and rounded; what follows from them is decided once and
stored with the training, so that a resumed training goes on with the decision that was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nisampler.base import tuning
from nisampler.samplers.base import Sampler
from nisampler.training.call_budget import CallBudget
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import (
    Choice,
    Costs,
    Option,
    best_flow_calls,
    flow_efficiency,
    flow_seconds,
    integral_gain,
    points_of,
)
from nisampler.training.records import TrainingRecord

_SMALL = tuning.SMALL_FLOW


class Chooser:
    """Foresees the seconds of each way to the events, and decides.

    Parameters
    ----------
    config
        See `TrainingConfig`.
    budget
        Calls of the stages, for the events.
    flows
        Number of flows that a sampler for this integrand trains.

    Attributes
    ----------
    choice
        What was decided, once it was.
    planned
        Integrand calls of the whole training.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> from nisampler.training.prices import Prices
    >>> config = TrainingConfig(events=1000, costs=Costs(1e-6))
    >>> chooser = Chooser(config, CallBudget(config, Prices(config)))
    >>> chooser.decide([chooser.vegas("VEGAS", UniformSampler(2), 0.5, 5000)], [], "", 5000)
    >>> chooser.choice.chosen
    'VEGAS'
    """

    def __init__(self, config: TrainingConfig, budget: CallBudget, flows: int = 1) -> None:
        self.config, self.budget, self.prices, self.flows = config, budget, budget.prices, flows
        self.choice: Choice | None = None
        self.planned = config.calls

    @property
    def takes_flow(self) -> bool:
        """Whether a flow was chosen."""
        return self.choice is not None and self.choice.chosen.startswith("flow")

    @property
    def calls(self) -> int:
        """Integrand calls of the training that was chosen."""
        options = [] if self.choice is None else self.choice.options
        return next((option.calls for option in options if self.choice and option.name == self.choice.chosen), 0)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Layers and hidden units of the flows to be compared, by the names of their costs."""
        large = (self.config.flow.layers, self.config.flow.hidden)
        small = {"small": _SMALL} if _SMALL[0] * _SMALL[1] < large[0] * large[1] else {}
        return small | {"large": large}

    def flow_config(self, calls: int, size: tuple[int, int] | None = None) -> TrainingConfig:
        """The configuration for a training of the chosen flow with so many calls, or to time a flow of this size."""
        if size is None and not (self.takes_flow and self.budget.events):
            return self.config
        flow = self.config.flow
        layers, hidden = size or (_SMALL if self.prices.flow == "small" else (flow.layers, flow.hidden))
        scale = max(5 * calls // 4, 20 * (flow.batch or 0), 5000)
        fourier = flow.fourier if size is None else max(0, flow.fourier)
        return replace(self.config, calls=scale, flow=replace(flow, layers=layers, hidden=hidden, fourier=fourier))

    def vegas(self, name: str, sampler: Sampler, efficiency: float, spent: int) -> Option:
        """VEGAS as it is expected to go on after `spent` calls, from its efficiency now."""
        calls = max(0, self.budget.vegas(efficiency, self.config.calls) - spent)
        seconds = (calls + points_of(self.budget.events, efficiency)) * self.prices.point(sampler)
        return Option(name, calls, efficiency, seconds)

    def flow(self, name: str, vegas: float, most: int, costs: Mapping[str, float] | None = None) -> Option:
        """The flow whose costs have this name, with the best number of calls up to `most`."""
        known, events = self.prices.known if costs is None else costs, self.budget.events
        size = (self.flows, name == "small")
        prices = (self.prices.known["call"], known[name], known[f"{name}_training"], *size)
        calls = best_flow_calls(events, vegas, most, *prices)
        seconds = flow_seconds(events, vegas, calls, *prices)
        return Option(_flow_name(*self.sizes()[name]), calls, flow_efficiency(vegas, calls, *size), seconds)

    def worth_timing(self, name: str, options: Sequence[Option], vegas: float, most: int) -> bool:
        """Whether this flow might be quicker than the options, if it costs no more than on a quick machine."""
        optimistic = {kind: cost / tuning.QUICK_MACHINE for kind, cost in asdict(Costs(1.0)).items()}
        expected = [self.flow(name, vegas, most, optimistic).seconds]
        expected += [option.seconds / tuning.QUICK_MACHINE for option in options if option.name.startswith("flow")]
        return min(option.seconds for option in options) > max(tuning.WORTH_A_FLOW, *expected)

    def decide(self, vegas: Sequence[Option], flows: Sequence[Option], reason: str, spent: int) -> None:
        """Take the quickest option, a flow only if it is clearly quicker, since its efficiency is not known yet."""
        best = min(vegas, key=lambda option: option.seconds)
        quickest = min(flows, key=lambda option: option.seconds, default=best)
        if tuning.FLOW_MARGIN * quickest.seconds < best.seconds:
            best = quickest
        options = sorted([*vegas, *flows], key=lambda option: option.seconds)
        self.take(Choice(self.budget.events, best.name, reason, options, dict(self.prices.known), self.prices.measures))
        self.planned = min(self.planned, spent + best.calls + self.budget.finish(best.efficiency, self.planned))

    def for_integral(self, record: TrainingRecord, dim: int, reason: str) -> None:
        """Take a flow only where it reaches its error clearly sooner than VEGAS does, from the last record of that.

        An integration with as many points as the training has calls is expected to follow. `reason` says why no flow
        comes into question, if none does.
        """
        costs, calls, vegas = self.prices.settled(), self.config.calls, record.efficiency_0p1
        trained = int(tuning.TRAINING_SHARE * calls)
        gain = integral_gain(1.0 / max(record.ess_fraction, 1e-9) - 1.0, dim, trained, self.flows)
        call, grid, extra = costs["call"], costs["grid"], costs["large_training"] + costs["large"]
        grids = Option("VEGAS", calls, vegas, gain * 2 * calls * (call + grid))
        name = _flow_name(*self.sizes()["large"])
        flow = Option(name, calls, flow_efficiency(vegas, trained, self.flows), calls * (2 * call + extra))
        pays = grids.seconds > max(tuning.WORTH_A_FLOW, tuning.FLOW_MARGIN * flow.seconds)
        if not (pays or reason) and gain > tuning.FLOW_MARGIN:
            least = (tuning.FLOW_MARGIN * extra / 2 - gain * grid) / (gain - tuning.FLOW_MARGIN)
            least = max(least, tuning.WORTH_A_FLOW / (gain * 2 * calls) - grid)
            reason = f"a flow pays from {least:.2g} s a call on"
        chosen = flow if pays and not reason else grids
        options = sorted([grids, flow], key=lambda option: option.seconds)
        self.take(Choice(0, chosen.name, reason, options, costs, self.prices.measures))

    def take(self, choice: Choice | None) -> None:
        """Go on with this choice."""
        self.choice = choice
        self.prices.flow = "small" if choice is not None and choice.chosen == _flow_name(*_SMALL) else "large"

    def state(self) -> dict[str, Any]:
        """What was measured and decided, as JSON data."""
        choice = None if self.choice is None else asdict(self.choice)
        prices = self.prices
        return {"times": prices.meter.times, "costs": prices.known, "choice": choice, "planned": self.planned}

    def load_state(self, data: Mapping[str, Any]) -> None:
        """Go on with what `state` returned."""
        self.prices.meter.times, self.prices.known = dict(data["times"]), dict(data["costs"])
        self.planned = data["planned"]
        self.take(None if data["choice"] is None else Choice.of(data["choice"]))


def _flow_name(layers: int, hidden: int) -> str:
    return f"flow {layers}x{hidden}"
