"""How many integrand calls each stage of a training may spend."""

from __future__ import annotations

import math

from nisampler.base import tuning
from nisampler.samplers.base import Sampler
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import points_of
from nisampler.training.prices import Prices


class CallBudget:
    """Calls of each stage: all that it may have, or, for a number of events, what these are worth.

    Parameters
    ----------
    config
        `events`, and the limit `calls`. A flow that is named spends all of them.
    prices
        Seconds of calls and points.

    Attributes
    ----------
    for_integral
        Whether the integral is all that is wanted.

    Examples
    --------
    >>> config = TrainingConfig(events=100_000)
    >>> budget = CallBudget(config, Prices(config))
    >>> budget.survey(80_000), budget.vegas(0.5, 800_000), CallBudget(TrainingConfig(), budget.prices).survey(80_000)
    (10000, 20000, 80000)
    """

    def __init__(self, config: TrainingConfig, prices: Prices) -> None:
        self.config, self.prices = config, prices
        self.events = 0 if config.sampler == "flow" else config.events or 0
        self.for_integral = config.events is None and config.sampler != "flow"

    def explores(self, dim: int) -> bool:
        """Whether trees with so many coordinates throw points where they are needed: where efficiency alone counts."""
        efficient = self.config.events is not None and not self.events
        return self.config.tree.on and efficient and dim <= tuning.EXPLORED

    def before_trees(self, dim: int) -> float:
        """Share of the calls that are spent before trees and comparison."""
        return tuning.EXPLORED_TRAINING if self.explores(dim) else tuning.TRAINING_SHARE

    def _wanted(self, share: float, efficiency: float) -> int:
        """This share of the points that the events take with an efficiency."""
        return int(share * self.events / max(efficiency, 1e-9))

    def survey(self, most: int) -> int:
        """Calls of the survey."""
        return min(most, max(tuning.SURVEY_FEWEST, int(tuning.SURVEY_OF_EVENTS * self.events))) if self.events else most

    def vegas(self, efficiency: float, most: int) -> int:
        """Calls after which VEGAS is trained well enough, the survey included."""
        return min(most, self._wanted(tuning.VEGAS_OF_POINTS, efficiency)) if self.events else most

    def finish(self, efficiency: float, most: int) -> int:
        """Calls for trees and the comparison of the candidates."""
        wanted = max(tuning.FINISH_FEWEST, self._wanted(tuning.FINISH_OF_POINTS, efficiency))
        return min(most, wanted) if self.events else most

    def pilot(self, efficiency: float, most: int) -> int:
        """Calls that tell what VEGAS and a tree are worth, more of them where it may come to a comparison with a flow.

        They are few beside the generation, whatever sampler it will have.
        """
        if points_of(self.events, efficiency) * self.prices.call() < tuning.WORTH_A_FLOW:
            return min(most, tuning.PILOT_QUICK)
        wanted = min(self._wanted(tuning.PILOT_OF_POINTS, efficiency), self.events // 5)
        return min(most, max(tuning.PILOT_QUICK, wanted))

    def tree(self, efficiency: float, sampler: Sampler, trees: int) -> int:
        """Points that so many trees may learn from if growing them is to be quick beside the generation."""
        if not self.events or not self.config.tree.on:
            return 2**62
        seconds = (
            -tuning.TREE_TIME
            * math.log(min(max(efficiency, 1e-6), 1.0))
            * points_of(self.events, efficiency)
            * self.prices.point(sampler)
        )
        return int(seconds / (trees * self.prices.growth()))
