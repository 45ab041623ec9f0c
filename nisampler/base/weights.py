"""What a set of weights is worth: effective sample size, and unweighting efficiencies at an allowed overweight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.base.checks import Fraction, checked
from nisampler.errors import NonFiniteError, ShapeError, UnweightingError

# Fewer weights tell nothing of a tail.
_FEWEST_IN_TAIL = 10


def importance_weights(values: Tensor, log_q: Tensor) -> Tensor:
    """The weights f/q of points with values f, (n,) or (n, k), and log densities log q (n,), where these are.

    >>> importance_weights(torch.tensor([3.0]), torch.tensor([0.0]))
    tensor([3.])
    """
    per_density = torch.exp(-log_q)
    return values.to(log_q.device) * (per_density if values.dim() == 1 else per_density.unsqueeze(1))


def kish_ess(weights: Tensor, counts: Tensor | None = None) -> float:
    r"""Kish's effective sample size :math:`(\sum w)^2 / \sum w^2` of weights (any shape); 0 if all vanish.

    With `counts` of the same shape, each weight stands for that many draws.

    >>> kish_ess(torch.tensor([1.0, 1.0, 2.0]))
    2.6666666666666665
    """
    w = weights.detach().reshape(-1).to(torch.float64)
    if w.numel() == 0:
        return 0.0
    largest = w.abs().max()
    if float(largest) == 0.0:
        return 0.0
    w = w / largest
    weighted = w if counts is None else w * counts.detach().reshape(-1)
    return float(weighted.sum().square() / (weighted * w).sum())


def efficiencies_at(
    weights: Tensor, overweight_fractions: Sequence[float], counts: Tensor | None = None
) -> list[tuple[float, float]]:
    r"""`(w_cut, efficiency)` for every fraction of the integral that may sit in overweights.

    The cut is the smallest with :math:`\sum_{|w| > w_{cut}} |w| \le \epsilon \sum |w|`; the efficiency is
    :math:`\langle |w| \rangle / w_{cut}`, at most 1, as in 2001.10028. :math:`\epsilon = 0` is the strict
    maximum. In float64; sorts once, and no more than the largest weights where it can.

    Parameters
    ----------
    weights
        Shape (n,); signs are dropped.
    overweight_fractions
        Each in [0, 1).
    counts
        How many draws each weight stands for, shape (n,); one by default.

    Raises
    ------
    ConfigError
        For a fraction outside [0, 1).
    ShapeError
        If `weights` is not of shape (n,) with n > 0.
    NonFiniteError
        For weights that are NaN or infinite.
    UnweightingError
        If all weights vanish.

    Examples
    --------
    >>> efficiencies_at(torch.tensor([1.0, 1.0, 2.0]), [0.0, 0.5])
    [(2.0, 0.6666666666666666), (1.0, 1.0)]
    """
    for fraction in overweight_fractions:
        checked("overweight_fraction", fraction, Fraction)
    if weights.ndim != 1 or weights.numel() == 0:
        raise ShapeError(f"weights must have shape (n,) with n > 0, got {tuple(weights.shape)}")
    w = weights.detach().to(torch.float64).abs()
    draws = None if counts is None else counts.to(w)
    total = float(w.sum() if draws is None else (w * draws).sum())
    largest, mean = float(w.max()), total / (w.numel() if draws is None else float(draws.sum()))
    if not math.isfinite(largest):
        raise NonFiniteError("weights must be finite: remove or zero non-finite ones before unweighting")
    if largest == 0.0:
        raise UnweightingError("all weights are zero: there is nothing to unweight")
    if not any(overweight_fractions):
        return [(largest, mean / largest) for _ in overweight_fractions]
    # The largest k of n weights carry at least k/n of the sum: no more of them are looked at.
    most = w.numel() if draws is not None else min(w.numel(), int(max(overweight_fractions) * w.numel()) + 2)
    ordered, order = w.topk(most) if most < w.numel() else w.sort(descending=True)
    carried = (ordered if draws is None else ordered * draws[order]).cumsum(0)
    allowed = torch.tensor(overweight_fractions, dtype=torch.float64, device=w.device) * total
    index = torch.searchsorted(carried, allowed, right=True).clamp(max=most - 1)
    return [(cut, min(1.0, mean / cut)) if cut else (0.0, 1.0) for cut in ordered[index].tolist()]


def efficiency_at(weights: Tensor, overweight_fraction: float) -> tuple[float, float]:
    """`(w_cut, efficiency)` at one fraction; see `efficiencies_at`.

    >>> efficiency_at(torch.tensor([1.0, 1.0, 2.0]), 0.0)
    (2.0, 0.6666666666666666)
    """
    return efficiencies_at(weights, [overweight_fraction])[0]


def pareto_shape(weights: Tensor) -> float:
    """Shape k of the generalised Pareto distribution that the largest weights follow; NaN where these are too few.

    The variance is infinite from k = 1/2 on. The largest min(n/5, 3√n) of the weights (n,), signs dropped, tell it, by
    the estimate of Zhang and Stephens (2009) with the prior of 1507.02646, whose k ≤ 0.7 is what importance sampling
    can still work with.

    >>> u = torch.rand(100_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> round(pareto_shape(u**-0.5), 1), round(pareto_shape(u**-1.0), 1)
    (0.5, 1.0)
    """
    size = weights.detach().reshape(-1).to(torch.float64).abs()
    count = min(size.numel() // 5, int(3.0 * math.sqrt(size.numel())))
    if count < _FEWEST_IN_TAIL:
        return math.nan
    largest = torch.topk(size, count + 1).values.flip(0)
    tail = largest[1:] - largest[0]
    tail = tail[tail > 0.0] / largest[-1]
    n = tail.numel()
    if n < _FEWEST_IN_TAIL:
        return math.nan
    grid = torch.arange(1, 31 + int(math.sqrt(n)), dtype=torch.float64, device=tail.device)
    theta = 1.0 / tail[-1] + (1.0 - (len(grid) / (grid - 0.5)).sqrt()) / (3.0 * tail[int(n / 4 + 0.5) - 1])
    shape = torch.log1p(-theta.unsqueeze(1) * tail).mean(1)
    likelihood = n * (torch.log(-theta / shape) - shape - 1.0)
    best = (torch.softmax(likelihood, 0) * theta).sum()
    found = float(torch.log1p(-best * tail).mean())
    return (n * found + 5.0) / (n + 10.0)
