"""The sampler with the most unweighted events per second, training included.

Seconds are measured on the machine and rounded; what follows from them is decided once and stored with the training,
so that a resumed training goes on with the decision that was taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nisampler.samplers.base import Sampler
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import (
    Choice,
    Costs,
    Meter,
    Option,
    best_flow_calls,
    flow_efficiency,
    flow_seconds,
    points_of,
    rounded,
)

# Layers and hidden units of the networks of the small flow.
_SMALL = (2, 32)
# Calls of the survey: share of the events, and fewest.
_SURVEY, _FEWEST = 0.1, 5000
# Calls of a training of VEGAS, and of trees and comparison, as shares of the points of the generation.
_VEGAS, _FINISH, _FEWEST_UNSEEN = 0.1, 0.1, 4000
# Calls that tell what VEGAS and a tree are worth: as a share of the points of the generation, and where VEGAS is quick.
_PILOT, _QUICK_PILOT = 0.02, 4000
# Most time for growing trees as a share of that for the events, for each factor e by which the efficiency may rise.
_GROWTH = 0.03
# Seconds of VEGAS below which no flow is even timed, as its first steps may compile something; on a quick machine it
# may cost so much less than by default.
_WORTH, _QUICK = 20.0, 2.0
# Seconds of a call where the sampler is named, which decide only how many points a tree learns from.
_SOME_CALL = 1e-6
# A flow must be so much quicker: its efficiency is only expected.
_MARGIN = 1.3


class Planner:
    """How many calls each stage of a training may spend, and which sampler is worth its training.

    Parameters
    ----------
    config
        `events`, `costs`, and the limit `calls`. Without events every stage gets all that it may have.
    flows
        Number of flows that a sampler for this integrand trains.

    Attributes
    ----------
    measures
        Whether a clock is read: not for a sampler that is named, nor where costs are given.
    costs
        Seconds by the names of `Costs`, as far as they are known.
    choice
        What was decided, once it was.
    planned
        Integrand calls of the whole training.
    """

    def __init__(self, config: TrainingConfig, flows: int = 1) -> None:
        self.config, self.flows = config, flows
        self.events = 0 if config.sampler == "flow" else config.events or 0
        self.meter = Meter()
        self.measures = config.sampler == "auto" and config.costs is None and self.events > 0
        self.costs: dict[str, float] = {} if self.measures else asdict(config.costs or Costs(_SOME_CALL))
        self.choice: Choice | None = None
        self.planned = config.calls

    @property
    def takes_flow(self) -> bool:
        """Whether a flow was chosen."""
        return self.choice is not None and self.choice.chosen.startswith("flow")

    @property
    def calls(self) -> int:
        """Integrand calls of the training that was chosen."""
        options = [] if self.choice is None else [o for o in self.choice.options if o.name == self.choice.chosen]
        return options[0].calls if options else 0

    def note(self, *names: str) -> None:
        """Take these costs from the meter, unless they are known already."""
        for name in names:
            if name not in self.costs:
                whole = self.meter.seconds(name)
                call = self.costs["call"] if name.endswith("_training") else 0.0
                self.costs[name] = rounded(max(whole - call, 0.1 * whole))

    def survey_calls(self, most: int) -> int:
        """Calls of the survey."""
        return min(most, max(_FEWEST, int(_SURVEY * self.events))) if self.events else most

    def vegas_calls(self, efficiency: float, most: int) -> int:
        """Calls after which VEGAS is trained well enough, the survey included."""
        return min(most, int(_VEGAS * self.events / max(efficiency, 1e-9))) if self.events else most

    def finish_calls(self, efficiency: float, most: int) -> int:
        """Calls for trees and the comparison of the candidates."""
        least = min(most, max(_FEWEST_UNSEEN, int(_FINISH * self.events / max(efficiency, 1e-9))))
        return least if self.events else most

    def pilot_calls(self, efficiency: float, most: int) -> int:
        """Calls that tell what VEGAS and a tree are worth, more of them where it may come to a comparison with a flow.

        They are few beside the generation, whatever sampler it will have.
        """
        call = self.meter.seconds("call") if self.measures else self.costs["call"]
        if points_of(self.events, efficiency) * call < _WORTH:
            return min(most, _QUICK_PILOT)
        wanted = min(int(_PILOT * self.events / max(efficiency, 1e-9)), self.events // 5)
        return min(most, max(_QUICK_PILOT, wanted))

    def tree_points(self, efficiency: float, sampler: Sampler, trees: int) -> int:
        """Points that so many trees may learn from if growing them is to be quick beside the generation.

        Until it was measured, growing is taken to be as quick as on a quick machine.
        """
        if not self.events or not self.config.tree:
            return 2**62
        seconds = (
            -_GROWTH
            * math.log(min(max(efficiency, 1e-6), 1.0))
            * points_of(self.events, efficiency)
            * self.point_cost(sampler)
        )
        return int(seconds / (trees * self.costs.get("growth", Costs(1.0).growth / _QUICK)))

    def point_cost(self, sampler: Sampler) -> float:
        """Seconds of an integrand call at a point of this sampler."""
        flow = self.costs.get("small" if self._is_small() else "large", 0.0)
        grid = self.costs["grid"]
        return self.costs["call"] + sampler.cost({"grid": grid, "tree": self.costs.get("tree", grid), "flow": flow})

    def seconds_per_event(self, efficiency: float, sampler: Sampler) -> float | None:
        """Seconds of an event of this sampler; None where nothing is known of them."""
        known = self.measures or self.config.costs is not None
        return self.point_cost(sampler) / max(efficiency, 1e-9) if self.events and known else None

    def _is_small(self) -> bool:
        return self.choice is not None and self.choice.chosen == _flow_name(*_SMALL)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Layers and hidden units of the flows to be compared, by the names of their costs."""
        large = (self.config.layers, self.config.hidden)
        small = {"small": _SMALL} if _SMALL[0] * _SMALL[1] < large[0] * large[1] else {}
        return small | {"large": large}

    def flow_config(self, calls: int, size: tuple[int, int] | None = None) -> TrainingConfig:
        """The configuration for a training of the chosen flow with so many calls, or to time a flow of this size."""
        if size is None and not self.takes_flow:
            return self.config
        layers, hidden = size or (_SMALL if self._is_small() else (self.config.layers, self.config.hidden))
        scale = max(5 * calls // 4, 20 * (self.config.batch or 0), 5000)
        fourier = self.config.fourier if size is None else max(0, self.config.fourier)
        return replace(self.config, calls=scale, layers=layers, hidden=hidden, fourier=fourier)

    def vegas(self, name: str, sampler: Sampler, efficiency: float, spent: int) -> Option:
        """VEGAS as it is expected to go on after `spent` calls, from its efficiency now."""
        calls = max(0, self.vegas_calls(efficiency, self.config.calls) - spent)
        seconds = (calls + points_of(self.events, efficiency)) * self.point_cost(sampler)
        return Option(name, calls, efficiency, seconds)

    def flow(self, name: str, vegas: float, most: int, costs: Mapping[str, float] | None = None) -> Option:
        """The flow whose costs have this name, with the best number of calls up to `most`."""
        known = self.costs if costs is None else costs
        prices = (self.costs["call"], known[name], known[f"{name}_training"], self.flows)
        calls = best_flow_calls(self.events, vegas, most, *prices)
        seconds = flow_seconds(self.events, vegas, calls, *prices)
        return Option(_flow_name(*self.sizes()[name]), calls, flow_efficiency(vegas, calls, self.flows), seconds)

    def worth_timing(self, name: str, options: Sequence[Option], vegas: float, most: int) -> bool:
        """Whether this flow might be quicker than the options, if it costs no more than on a quick machine."""
        optimistic = {kind: cost / _QUICK for kind, cost in asdict(Costs(1.0)).items()}
        expected = [self.flow(name, vegas, most, optimistic).seconds]
        expected += [option.seconds / _QUICK for option in options if option.name.startswith("flow")]
        return min(option.seconds for option in options) > max(_WORTH, *expected)

    def decide(self, vegas: Sequence[Option], flows: Sequence[Option], reason: str, spent: int) -> None:
        """Take the quickest option, a flow only if it is clearly quicker, since its efficiency is not known yet."""
        best = min(vegas, key=lambda option: option.seconds)
        quickest = min(flows, key=lambda option: option.seconds, default=best)
        if _MARGIN * quickest.seconds < best.seconds:
            best = quickest
        options = sorted([*vegas, *flows], key=lambda option: option.seconds)
        self.choice = Choice(self.events, best.name, reason, options, dict(self.costs))
        self.planned = min(self.planned, spent + best.calls + self.finish_calls(best.efficiency, self.planned))

    def state(self) -> dict[str, Any]:
        """What was measured and decided, as JSON data."""
        choice = None if self.choice is None else asdict(self.choice)
        return {"times": self.meter.times, "costs": self.costs, "choice": choice, "planned": self.planned}

    def load_state(self, data: dict[str, Any]) -> None:
        """Go on with what `state` returned."""
        self.meter.times, self.costs, self.planned = dict(data["times"]), dict(data["costs"]), data["planned"]
        self.choice = None if data["choice"] is None else Choice.of(data["choice"])


def _flow_name(layers: int, hidden: int) -> str:
    return f"flow {layers}x{hidden}"
