"""Points, and steps by the clock if asked for, that tell what VEGAS, a tree and flows are worth for some events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from nisampler.base import tuning
from nisampler.samplers.base import Sampler
from nisampler.samplers.chain import chain
from nisampler.samplers.tree import TreeConfig, TreeSampler, grow_tree
from nisampler.training.chooser import Chooser
from nisampler.training.costs import Option
from nisampler.training.evaluation import Evaluation, rated

if TYPE_CHECKING:
    from nisampler.training.flow_trainer import FlowTrainer


@dataclass(frozen=True)
class Pilot:
    """Measures what the choice of a sampler needs, and has it taken.

    Parameters
    ----------
    chooser
        Decides.
    evaluate
        Draws points.
    make_flow
        A trainer for a flow with these layers and hidden units.
    spent
        Integrand calls before the choice is taken, without those of the pilot.

    Examples
    --------
    The `Trainer` runs one at the end of its survey, where a number of events is given:

    >>> from nisampler.density.integrand import Integrand
    >>> from nisampler.training.config import TrainingConfig
    >>> from nisampler.training.costs import Costs
    >>> from nisampler.training.trainer import Trainer
    >>> config = TrainingConfig(calls=5000, events=100, costs=Costs(1e-6))
    >>> Trainer(Integrand(lambda x: x.prod(1), 2, kind="torch"), config).fit().choice.chosen
    'VEGAS'
    """

    chooser: Chooser
    evaluate: Evaluation
    make_flow: Callable[[tuple[int, int]], FlowTrainer]
    spent: Callable[[], int]

    def run(self, base: Sampler, efficiency: float, reason: str) -> None:
        """Take the quickest way to the events: VEGAS if there is a reason for it, else by the seconds foreseen.

        Parameters
        ----------
        base
            VEGAS as it stands.
        efficiency
            Its efficiency in the survey.
        reason
            Why no flow comes into question, if none does.
        """
        chooser, config = self.chooser, self.chooser.config
        points = chooser.budget.pilot(efficiency, config.calls // 20)
        u, weights = self.evaluate(base, points, "pilot")
        chooser.prices.note("call", "grid")
        known = rated("", weights).efficiency_0p1
        options = [chooser.vegas("VEGAS", base, known, self.spent())]
        if config.tree.on and chooser.budget.tree(known, base, 1) >= tuning.TREE_FEWEST:
            options.append(self._with_tree(base, u, weights))
        flows: list[Option] = []
        for name, size in chooser.sizes().items():
            most = int(tuning.TRAINING_SHARE * (config.calls - self.spent()))
            if not reason and chooser.worth_timing(name, options + flows, known, most):
                self._rehearse(name, size)
                flows.append(chooser.flow(name, known, most))
        chooser.decide(options, flows, reason or ("" if flows else "a flow would take longer at best"), self.spent())

    def _with_tree(self, base: Sampler, u: Tensor, weights: Tensor) -> Option:
        """VEGAS with a tree behind it, grown on one half of the points and rated on the other."""
        prices, half = self.chooser.prices, len(u) // 2
        with prices.timed("growth", half):
            settings = TreeConfig(leaves=self.chooser.config.tree.leaves, order=tuning.TREE_ORDERS[-1])
            behind = TreeSampler(grow_tree(u[:half], weights[:half], settings))
            density = behind.log_prob(u[half:]).exp()
        for _ in range(2):
            with prices.timed("tree", len(u)):
                behind.map(u)
        prices.note("growth", "tree")
        narrowed = rated("", weights[half:] / density, density).efficiency_0p1
        return self.chooser.vegas("VEGAS + tree", chain(base, behind), narrowed, self.spent())

    def _rehearse(self, name: str, size: tuple[int, int]) -> None:
        """Measure training and points of a flow of this size, which is thrown away."""
        prices, streams, device = self.chooser.prices, self.evaluate.streams, self.evaluate.device
        if not prices.measures:
            return
        flow = self.make_flow(size)
        sampler, generator = flow.sampler(), streams.generator("rehearsal", device=device)
        for again in range(3):
            with prices.timed(f"{name}_training", flow.rehearsed) if again else nullcontext():
                flow.rehearse()
            with prices.timed(name, tuning.REHEARSED) if again else nullcontext():
                sampler.sample(tuning.REHEARSED, generator)
        prices.note(name, f"{name}_training")
