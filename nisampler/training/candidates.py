"""The end of a training: candidates are compared on points that none of them has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.moments import Moments, unit_scale
from nisampler.samplers.base import Sampler
from nisampler.samplers.chain import chain
from nisampler.samplers.tree import DensityTree, TreeConfig, TreeSampler, explore_tree, grow_tree
from nisampler.training.call_budget import CallBudget
from nisampler.training.evaluation import Evaluation, rated
from nisampler.training.records import Candidate

Replay = Callable[[int], tuple[Tensor, Tensor, Tensor]]
"""Latent points, weights and importance of up to so many stored points."""


@dataclass
class Comparison:
    """Candidates and what they are worth, in the order of their complexity.

    The best of several has a figure that is too good, because its luck has helped to choose it. How much so, two halves
    of the points tell: each chooses, and the other one rates the choice. The efficiency of the chosen one is lowered by
    that.

    Parameters
    ----------
    budget
        With events it is the seconds of an event that count, otherwise the efficiency.

    Attributes
    ----------
    entries
        Candidates and their samplers.
    halves
        Each candidate by one half of its points, and by the other.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> from nisampler.training.config import TrainingConfig
    >>> from nisampler.training.prices import Prices
    >>> config = TrainingConfig()
    >>> comparison = Comparison(CallBudget(config, Prices(config)))
    >>> comparison.add("poor", UniformSampler(1), torch.tensor([1.0, 3.0]))
    >>> comparison.add("even", UniformSampler(1), torch.tensor([2.0, 2.0]))
    >>> [candidate.chosen for candidate in comparison.judged()[0]]
    [False, True]
    """

    budget: CallBudget
    entries: list[tuple[Candidate, Sampler]] = field(default_factory=list)
    halves: list[tuple[Candidate, Candidate]] = field(default_factory=list)

    def add(self, name: str, sampler: Sampler, weights: Tensor, counts: Tensor | None = None) -> None:
        """A candidate with weights f/q (n,) of unseen points, which stand for `counts` (n,) draws each."""
        half = len(weights) // 2
        self.entries.append((rated(name, weights, counts), sampler))
        first, second = (
            rated(name, weights[part], None if counts is None else counts[part])
            for part in (slice(half), slice(half, None))
        )
        self.halves.append((first, second))

    def value(self, index: int) -> float:
        """What candidates are compared by: events per second, or the efficiency, and less where points cost more."""
        candidate, sampler = self.entries[index]
        return self._value(candidate, sampler)

    def _value(self, candidate: Candidate, sampler: Sampler) -> float:
        if self.budget.events:
            return candidate.efficiency_0p1 / self.budget.prices.point(sampler)
        return candidate.efficiency_0p1 / (tuning.PRICE_OF_MIXTURE if sampler.mixture else 1.0)

    def judged(self) -> tuple[list[Candidate], Sampler]:
        """The candidates, one of them chosen, and its sampler: a later one must be clearly better."""
        figures = [candidate for candidate, _ in self.entries]
        best = self._best(figures)
        figures[best] = replace(figures[best], efficiency_0p1=figures[best].efficiency_0p1 * self._luck(), chosen=True)
        candidates = [
            replace(candidate, seconds_per_event=self._seconds(candidate, sampler))
            for candidate, (_, sampler) in zip(figures, self.entries, strict=True)
        ]
        return candidates, self.entries[best][1]

    def _best(self, candidates: Sequence[Candidate]) -> int:
        """Number of the one to choose by these figures of all candidates."""
        samplers = [sampler for _, sampler in self.entries]
        best, values = 0, [self._value(*pair) for pair in zip(candidates, samplers, strict=True)]
        for index, candidate in enumerate(candidates):
            enough = candidate.ess_fraction >= tuning.ESS_KEPT * candidates[best].ess_fraction
            if enough and values[index] > tuning.CANDIDATE_MARGIN * values[best]:
                best = index
        return best

    def _luck(self) -> float:
        """Efficiency of what one half of the points chooses by the other half, over its own figure; at most 1."""
        first, second = ([figures[k].efficiency_0p1 for figures in self.halves] for k in (0, 1))
        one, other = (self._best([figures[k] for figures in self.halves]) for k in (0, 1))
        own, fresh = first[one] * second[other], second[one] * first[other]
        return min(1.0, math.sqrt(fresh / own)) if own > 0.0 else 1.0

    def _seconds(self, candidate: Candidate, sampler: Sampler) -> float | None:
        """Seconds of an event; None where nothing is known of them."""
        prices = self.budget.prices
        known = self.budget.events and prices.told
        return prices.point(sampler) / max(candidate.efficiency_0p1, 1e-9) if known else None


@dataclass(frozen=True)
class Grown:
    """A sampler that trees are to grow behind, with unseen points (n, dim) of its latent cube and their weights (n,).

    Each stands for `counts` (n,) draws of the sampler, where another one has drawn them.

    >>> from nisampler.samplers.base import UniformSampler
    >>> Grown(UniformSampler(1), torch.rand(3, 1), torch.ones(3), torch.ones(3)).base.kind
    'uniform'
    """

    base: Sampler
    unseen: Tensor
    weights: Tensor
    counts: Tensor


@dataclass
class Finish:
    """Compares samplers, their twins and the trees behind the best of them.

    Parameters
    ----------
    budget, evaluate
        Calls of the stages, and what draws points.
    efficiency
        As the training has last seen it.

    Attributes
    ----------
    warnings
        Samplers that have lost a part of the integral.
    lost
        Whether one of these is used all the same.

    Examples
    --------
    >>> from nisampler.base.rng import Streams
    >>> from nisampler.density.integrand import Integrand
    >>> from nisampler.samplers.base import UniformSampler
    >>> from nisampler.training.config import TrainingConfig
    >>> from nisampler.training.prices import Prices
    >>> config = TrainingConfig(calls=5000)
    >>> budget, integrand = CallBudget(config, Prices(config)), Integrand(lambda x: x[:, 0], 1, kind="torch")
    >>> evaluate = Evaluation(integrand, Streams(1), torch.device("cpu"), budget.prices)
    >>> comparison = Finish(budget, evaluate, 0.5).run([UniformSampler(1)], 1000, {}, trees=False)
    >>> [candidate.name for candidate, _ in comparison.entries]
    ['uniform']
    """

    budget: CallBudget
    evaluate: Evaluation
    efficiency: float
    warnings: list[str] = field(default_factory=list)
    lost: bool = False

    def run(
        self,
        bases: list[Sampler],
        left: int,
        replays: Mapping[int, Replay],
        trees: bool,
        told: bool = False,
        plain: Sampler | None = None,
    ) -> Comparison:
        """Compare samplers, and trees behind the best one.

        Parameters
        ----------
        bases
            The samplers, the one that is known to see everything first.
        left
            Integrand calls that are left.
        replays
            Points that the sampler of this number has learned from, for trees behind it.
        trees
            Whether trees may grow.
        told
            The first sampler is no candidate: it only tells whether the others see everything.
        plain
            The sampler before any adaptation, as the simplest candidate. It is rated on the points of the first one,
            which has found what few points of its own may miss.
        """
        calls = self.budget.config.calls
        most = max(min(200, calls // 5), min(left, calls // 4))
        rest = self.budget.finish(self.efficiency, most)
        test, comparison = rest // (2 * len(bases)), Comparison(self.budget)
        first, below, scale = Moments(), None, 1.0
        for number, base in enumerate(bases):
            unseen, weights = self.evaluate(base, test, "validation", number)
            scale = scale if number else unit_scale(weights)[1]
            found = Moments.from_tensor(weights.abs() / scale)
            first = first if number else found
            if self._lost(first, found):
                self.warnings.append(
                    f"{base.describe()} finds less of the integral than {bases[0].describe()}, "
                    f"{scale * found.mean:.6g} instead of {scale * first.mean:.6g}: it has lost a region"
                    + (
                        ", and the integral will be wrong; train longer or on more points"
                        if told
                        else " and is not used"
                    )
                )
                self.lost |= told
                if not told:
                    break
            if told and not number:
                continue
            before = comparison.value(-1) if comparison.entries else -1.0
            if plain is not None and not number:
                below = (-1, self._add_plain(comparison, plain, base, unseen, weights))
                before = comparison.value(-1)
            comparison.add(base.describe(), base, weights)
            simple = not base.mixture and not self.budget.events
            if (simple and number) or comparison.value(-1) > before:
                below = (number, Grown(base, unseen, weights, torch.ones_like(weights)))
            self._add_twin(comparison, base, unseen, weights)
        if below is not None and trees:
            spared = left - most if self._explores(below[1].base) else 0
            self._add_trees(comparison, below[1], rest + spared - test * len(bases), replays.get(below[0]))
        return comparison

    def _explores(self, base: Sampler) -> bool:
        """Whether trees behind a sampler throw points where they are needed; never at edges of what is not finite."""
        return self.budget.explores(base.dim) and not self.evaluate.integrand.nonfinite

    def _lost(self, first: Moments, found: Moments) -> bool:
        deviation = math.hypot(found.standard_error, first.standard_error)
        return first.mean - found.mean > tuning.LOST_ERRORS * deviation

    def _add_plain(
        self, comparison: Comparison, plain: Sampler, base: Sampler, unseen: Tensor, weights: Tensor
    ) -> Grown:
        """The sampler before any adaptation, rated on the points of an adapted one."""
        x, log_q = base.map(unseen)
        latent, log_plain = plain.unmap(x)
        counts = torch.exp(log_plain - log_q)
        comparison.add(plain.describe(), plain, weights / counts, counts)
        return Grown(plain, latent, weights / counts, counts)

    def _add_twin(self, comparison: Comparison, base: Sampler, unseen: Tensor, weights: Tensor) -> None:
        """The same sampler with shares for unweighting, which learn from one half of the unseen points."""
        twin = base.for_unweighting(unseen, weights)
        if twin is not None:
            sampler, ratio = twin
            name = f"{base.describe()}, shares for unweighting"
            comparison.add(name, sampler, weights[len(unseen) // 2 :] / ratio, ratio)

    def _add_trees(self, comparison: Comparison, grown: Grown, n: int, replay: Replay | None) -> None:
        """Density trees behind a sampler, of several orders; they learn from n fresh points and those of the replay."""
        settings, orders = self.budget.config.tree, tuning.TREE_ORDERS[1 if self.budget.events else 0 :]
        most = self.budget.tree(self.efficiency, grown.base, len(orders))
        n = min(n, most)
        if not settings.on or n < tuning.TREE_FEWEST:
            return
        explores = self._explores(grown.base)
        asked = int(tuning.EXPLORED_SHARE * n) if explores else 0
        seen, learned = fresh = self.evaluate(grown.base, n - asked, "tree")
        importance = torch.ones_like(learned)
        if replay is not None:
            old_seen, old_learned, old_importance = replay(most - n)
            seen, learned = torch.cat([seen, old_seen]), torch.cat([learned.abs(), old_learned])
            importance = torch.cat([importance, old_importance])
        for order in orders:
            tree = grow_tree(seen, learned, TreeConfig(leaves=settings.leaves, order=order), importance)
            self._add_tree(comparison, grown, tree, f"order {order:g}")
        if explores:
            points, pseudo = tuning.EXPLORED_LEAVES
            config = TreeConfig(settings.leaves, min_points=points, shrinkage=pseudo, order=orders[-1])
            weigh = partial(self.evaluate.weights, grown.base)
            generator = self.evaluate.streams.generator("exploration", device=self.evaluate.device)
            tree = explore_tree(weigh, asked, fresh, config, generator=generator)
            self._add_tree(comparison, grown, tree, f"order {orders[-1]:g}, explored")

    def _add_tree(self, comparison: Comparison, grown: Grown, tree: DensityTree, kind: str) -> None:
        """A tree behind a sampler, rated on the unseen points."""
        behind, density = TreeSampler(tree), tree.unmap(grown.unseen)[1].exp()
        name = f"{grown.base.describe()} + {behind.describe()}, {kind}"
        comparison.add(name, chain(grown.base, behind), grown.weights / density, grown.counts * density)
