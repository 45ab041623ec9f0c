"""The figures of a result, as one looks at them in a notebook or stores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from nisampler.base.checks import Count, Natural, checked
from nisampler.stored import WeightDistribution
from nisampler.training.records import TrainingResult
from nisampler.unweighting.points import WeightedPoints

if TYPE_CHECKING:
    from nisampler.ui.drawing import Drawing


@dataclass(frozen=True, repr=False)
class Figures:
    """Figures of a result: `result.plot.training()`, `result.plot.weights()`, `result.plot.marginals()`.

    Each is a matplotlib figure: a notebook shows it, `savefig` stores it. Matplotlib is imported with the first one.

    Parameters
    ----------
    result
        The training behind it.
    distribution, max_weight
        Of the weights of its integration, and w_max.
    box
        Low and high end (dim, 2) of the coordinates of its points; None where channels make them.
    sample
        Draws weighted points, from their number and that of a shard.

    Examples
    --------
    >>> import nisampler
    >>> quick = nisampler.TrainingConfig(calls=5000), nisampler.IntegrationConfig(points=4096)
    >>> result = nisampler.integrate(lambda x: x[:, 0], dim=2, training=quick[0], integration=quick[1])
    >>> result.plot.weights().axes[0].get_xscale()
    'log'
    """

    result: TrainingResult
    distribution: WeightDistribution
    max_weight: float
    box: torch.Tensor | None
    sample: Callable[[int, int], WeightedPoints]

    def __repr__(self) -> str:
        return "figures of a result: training(), weights(), marginals(n)"

    def training(self) -> Drawing:
        """Loss, effective sample size and unweighting efficiency against calls of the function."""
        from nisampler.ui import panels, plots

        figure = plots.training([asdict(record) for record in self.result.history])
        return panels.titled(figure, "Training, measured on points before they are learned", plots.PLAIN)

    def weights(self) -> Drawing:
        """Distribution of the weights of the integration, with their mean and w_max."""
        from nisampler.ui import panels, plots

        weights = self.distribution
        figure = plots.weights(weights.edges, weights.counts, self.max_weight / weights.mean)
        return panels.titled(figure, "Weights f/q of the integration", plots.PLAIN)

    def marginals(
        self,
        n: int = 20_000,
        coordinates: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        shard: int = 0,
    ) -> Drawing:
        """Distributions of one and of two coordinates: the function beside what the sampler draws.

        Parameters
        ----------
        n
            Points that are drawn, each with a call of the function.
        coordinates
            Which of them, from 0; by default the first six that differ from point to point. Points of channels count
            their components one after the other.
        labels
            Of these coordinates, instead of x1, x2, ...; mathtext such as `$p_T$` is understood.
        shard
            Another number draws other points.

        Raises
        ------
        MissingFunctionError
            If the result was read without its function.
        ConfigError
            If a coordinate is not there or the same for all points, or if there is not one label for each.
        """
        points = self.sample(checked("n", n, Count), checked("shard", shard, Natural))
        weights, x = points.weights.cpu().numpy(), points.x.reshape(n, -1).double().cpu().numpy()
        from nisampler.ui import marginals, panels, plots

        axes = marginals.marginal_axes(x, None if self.box is None else self.box.cpu().numpy(), coordinates, labels)
        figure = marginals.marginals(x[:, list(axes)], weights, list(axes.values()))
        return panels.titled(figure, f"The function and what the sampler draws, {n:,} points", plots.PLAIN)
