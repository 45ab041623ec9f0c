"""What the integrator with the names of madnis tells: points, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleBatch:
    """Weighted points, whose mean weight is the integral.

    Attributes
    ----------
    x, y
        Points of the unit cube (n, input_dim), and what the channels made of them (n, remapped_dim).
    q_sample
        Density (n,) of the channel and x together.
    func_vals, channels, alphas
        Values (n,); numbers of the channels (n,) and their weights (n, channels), None without channels.
    weights
        Shape (n,): alpha of the channel times f over q.

    Examples
    --------
    >>> from nisampler.compat.madnis import Integrand, Integrator
    >>> batch = Integrator(Integrand(lambda x: 2 * x[:, 0], 1)).sample(5)
    >>> bool((batch.weights == batch.func_vals / batch.q_sample).all()), batch.channels
    (True, None)
    """

    x: Tensor
    y: Tensor | None
    q_sample: Tensor
    func_vals: Tensor
    channels: Tensor | None
    alphas: Tensor | None
    weights: Tensor

    @classmethod
    def cat(cls, batches: Sequence[SampleBatch]) -> SampleBatch:
        """All batches as one."""
        columns = {item.name: [getattr(batch, item.name) for batch in batches] for item in fields(cls)}
        joined: dict[str, Any] = {k: None if v[0] is None else torch.cat(v) for k, v in columns.items()}
        return cls(**joined)


@dataclass(frozen=True)
class UnweightingMetrics:
    """What the weights are worth for unweighting (2001.10028): the largest weight is the median of resampled sets.

    Attributes
    ----------
    cut_eff
        Fraction of points with a weight that is not zero.
    uweff_before_cuts, uweff_before_cuts_partial
        Mean weight over the largest one; and with overweight points counted once.
    uweff_after_cuts, uweff_after_cuts_partial
        The same of the points with a weight that is not zero.
    over_weight_rate
        Fraction of them above the largest weight.

    Examples
    --------
    >>> from nisampler.compat.madnis import Integrand, Integrator
    >>> found = Integrator(Integrand(lambda x: 1.0 * (x[:, 0] > 0.5), 1)).unweighting_metrics(1000)
    >>> round(found.cut_eff, 1), found.uweff_after_cuts
    (0.5, 1.0)
    """

    cut_eff: float
    uweff_before_cuts: float
    uweff_before_cuts_partial: float
    uweff_after_cuts: float
    uweff_after_cuts_partial: float
    over_weight_rate: float


@dataclass(frozen=True)
class IntegrationMetrics:
    """How well independent points integrate.

    Attributes
    ----------
    integral, error, rel_error, rel_stddev
        Value, standard error, the same over the value, and that of a single point.
    count
        Number of points.
    channel_integrals, channel_counts, channel_errors
        The same of each channel.

    Examples
    --------
    >>> from nisampler.compat.madnis import Integrand, Integrator
    >>> found = Integrator(Integrand(lambda x: 2 * x[:, 0], 1)).integration_metrics(1000)
    >>> found.count, abs(found.integral - 1) < 5 * found.error
    (1000, True)
    """

    integral: float
    count: int
    error: float
    rel_error: float
    rel_stddev: float
    channel_integrals: list[float]
    channel_counts: list[int]
    channel_errors: list[float]
