"""Shares of channels: of least variance, best for unweighting, and the channels that can be spared."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.moments import unit_scale


def followed(share: Tensor, channel: Tensor, weights: Tensor, least: float = tuning.LEAST_SHARE) -> Tensor:
    """Shares (K,) half way to those of least variance (2311.01548): s_i ∝ s_i √⟨w²⟩_i.

    `weights` (n,) are those of points that were drawn in each channel (n,) with the shares `share` (K,). No share falls
    below `least` times an equal one; channels without a share stay so.

    >>> followed(torch.tensor([0.5, 0.5]), torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 1.0, 3.0, 3.0]), least=0.0)
    tensor([0.3750, 0.6250])
    """
    count = torch.bincount(channel, minlength=len(share)).clamp(min=1)
    scaled, _ = unit_scale(weights.to(share.dtype))
    square = torch.zeros_like(share).index_add_(0, channel, scaled**2) / count
    size = share * square.sqrt()
    if not float(size.sum()) > 0.0:
        return share.clone()
    active = share > 0.0
    moved = torch.where(active, tuning.SHARE_FOLLOWS * size / size.sum() + (1.0 - tuning.SHARE_FOLLOWS) * share, 0.0)
    return torch.where(active, (1.0 - least) * moved + least / float(active.sum()), 0.0)


def dispensable(
    share: Tensor, stored: tuple[Tensor, Tensor], drawn: tuple[Tensor, Tensor], fraction: float
) -> tuple[Tensor, float]:
    """Mask (K,) of channels that together carry at most `fraction` of the integral, and what they carry.

    Parameters
    ----------
    share
        Shares (K,) of the channels.
    stored
        For stored points with f > 0 the channels (m,) that made them, and the log prior weights (m, K): no channel is
        dispensable that made a point where no remaining one has prior weight.
    drawn
        Channels (n,) of fresh points and their weights f/q (n,), which tell the parts of the integral.
    fraction
        Of the integral.

    Examples
    --------
    >>> share, prior = torch.tensor([0.5, 0.5]), torch.zeros(4, 2)
    >>> channel, weights = torch.tensor([0, 0, 1, 1]), torch.tensor([5.0, 5.0, 0.01, 0.01])
    >>> dispensable(share, (channel, prior), (channel, weights), 0.01)[0]
    tensor([False,  True])
    """
    size = torch.zeros_like(share).index_add_(0, drawn[0], drawn[1].abs().to(share.dtype))
    part = size / size.sum()
    order = torch.argsort(part)
    small = torch.zeros_like(part, dtype=torch.bool)
    small[order] = part[order].cumsum(0) <= fraction
    small &= share > 0.0
    channel, prior = stored
    for index in torch.nonzero(small).squeeze(1).tolist():
        others = prior[channel == index].masked_fill(small | (share == 0.0), -torch.inf)
        small[index] = bool((others > -torch.inf).any(1).all())
    return small, float(part[small].sum())


def best_shares(share: Tensor, channel: Tensor, weights: Tensor, fraction: float = 1e-3) -> Tensor:
    """Shares (K,) under which a fraction `fraction` of the integral lies above w_max and the efficiency is highest.

    w_max times the share of a channel is the largest weight that the channel is allowed. The sum of these is least if
    the same fraction of all points lies above it in each channel; that common quantile is found by bisection.
    `weights` (n,) are those of points that were drawn in each channel (n,) with the shares `share` (K,).

    >>> best_shares(torch.tensor([0.5, 0.5]), torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 1.0, 3.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    size = weights.double().abs()
    own = [
        (size[channel == index] * float(part)).sort().values if float(part) > 0.0 else size[:0]
        for index, part in enumerate(share)
    ]
    total = sum(float(part.mean()) for part in own if len(part))

    def limits(rank: float) -> tuple[Tensor, float]:
        """Largest allowed s_i w of each channel if a fraction `rank` of its points exceeds it, and what exceeds it."""
        largest, beyond = torch.zeros_like(share), 0.0
        for index, part in enumerate(own):
            if len(part):
                above = min(int(rank * len(part)), len(part) - 1)
                largest[index] = part[len(part) - 1 - above]
                beyond += float(part[len(part) - above :].sum()) / len(part)
        return largest, beyond

    low, high = 0.0, 0.5
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if limits(middle)[1] <= fraction * total else (low, middle)
    best = limits(low)[0]
    if not float(best.sum()) > 0.0:
        return share.clone()
    # zeros at a few points do not prove that a channel has nothing
    least = tuning.LEAST_UNWEIGHTING_SHARE * float(best.sum()) / len(best)
    best = torch.where(share > 0.0, best.clamp(min=least), 0.0)
    return best / best.sum()
