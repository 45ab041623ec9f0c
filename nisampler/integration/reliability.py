"""Whether an error can be trusted: what the weights of an integration, and those met in the training, say of it.

The standard error of a mean is itself measured, from the same weights. Where a few of them make it up, value and error
are too low together until one more large weight is found; where the sampler hardly reaches a peak, nothing of it shows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.moments import Moments
from nisampler.base.weights import pareto_shape

_ADVICE = "train longer or on more points, or map the variables closer to the peak"


def heavy(moments: Moments, weights: Tensor | None = None) -> str:
    """Why the weights of an integration do not tell its error; empty where they do.

    Parameters
    ----------
    moments
        Of the weights.
    weights
        Those that were kept (n,), which tell their tail.

    Examples
    --------
    >>> heavy(Moments.from_tensor(torch.rand(1000))), heavy(Moments.from_tensor(torch.tensor([1.0] + 999 * [0.0])))
    ('', 'a single point makes up 100 % of the variance: ...')
    """
    if not _spread(moments):
        return ""
    largest = max(moments.maximum - moments.mean, moments.mean - moments.minimum)
    share = largest / moments.m2 * largest
    if share > tuning.LARGEST_SPREAD:
        return (
            f"a single point makes up {100 * share:.0f} % of the variance: there may be a peak that has hardly been "
            f"seen, and the error is not reliable; {_ADVICE}"
        )
    if not _benign(moments):
        return (
            f"a few of the {moments.count} weights make up the variance (skewness of the mean {moments.skew:.2f}, the "
            f"variance known to {100 * moments.excess:.0f} %): the error is not reliable; {_ADVICE}"
        )
    if weights is not None and moments.excess > tuning.TAIL_EXCESS:
        shape = pareto_shape(weights)
        if shape > tuning.HEAVY_TAIL:
            return (
                f"the weights have a heavy tail (Pareto shape {shape:.1f}; from 0.5 on their variance is infinite): "
                f"the error is not reliable; {_ADVICE}"
            )
    return ""


def missed(moments: Moments, met: float) -> str:
    """What the training knows better than an integration with these weights; empty for nothing.

    `met` is the largest weight that a point of the training has under the sampler, in the units of `moments`. One such
    point more must leave the error as it is.

    >>> even = Moments.from_tensor(torch.rand(1000))
    >>> missed(even, met=2.0), missed(even, met=1000.0)
    ('', 'the training met a weight 1e+03 times the largest one of the integration: ...')
    """
    if abs(met) <= moments.max_abs:
        return ""
    with_met = moments + Moments.from_tensor(torch.tensor([met], dtype=torch.float64))
    if not _spread(with_met) or _benign(with_met):
        return ""
    return (
        f"the training met a weight {abs(met) / moments.max_abs:.2g} times the largest one of the integration: a peak "
        f"is hardly sampled, and value and error are not reliable; {_ADVICE}"
    )


def _spread(moments: Moments) -> bool:
    """Whether weights differ by more than rounding."""
    return not moments.m2 <= 1e-20 * moments.sum_squares < math.inf


def _benign(moments: Moments) -> bool:
    """Whether so many weights make up the error that it is known, and deviations are nearly symmetric."""
    return abs(moments.skew) <= tuning.LARGEST_SKEW and moments.excess <= tuning.LARGEST_EXCESS
