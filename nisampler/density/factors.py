"""What is known of an integrand at points for little: factors, features, and which function of them is left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.errors import ChannelError


@dataclass(frozen=True)
class Factors:
    """|f| = exp(log_factor) r_kind(features) at n points, where only the functions r are costly.

    So a process states what it knows without its matrix elements, such as parton densities and couplings, and which
    matrix element a point has: a surrogate then learns the rest alone.

    Attributes
    ----------
    log_factor
        Log of the known factor, (n,): -inf where f is zero.
    features
        What the rest depends on, (n, F), finite.
    kind
        For each point the number of the function r, (n,).
    kinds
        How many of them there are.

    Raises
    ------
    ChannelError
        If shapes do not fit, a feature is not finite, a factor is NaN or infinite, or a kind is out of range.

    Examples
    --------
    >>> Factors(torch.zeros(2), torch.ones(2, 3), torch.tensor([0, 1]), kinds=2).features.shape
    torch.Size([2, 3])
    >>> Factors(torch.zeros(2), torch.ones(2, 3), torch.tensor([0, 5]), kinds=2)
    Traceback (most recent call last):
    ...
    nisampler.errors.ChannelError: factors: kind must be from 0 to 1, got 0 to 5
    """

    log_factor: Tensor
    features: Tensor
    kind: Tensor
    kinds: int

    def __post_init__(self) -> None:
        n, shapes = len(self.features), [tuple(part.shape) for part in (self.log_factor, self.features, self.kind)]
        if (shapes[0], shapes[2]) != ((n,), (n,)) or len(shapes[1]) != 2:
            raise ChannelError(f"factors: expected log_factor (n,), features (n, F) and kind (n,), got {shapes}")
        if not bool(torch.isfinite(self.features).all()):
            raise ChannelError("factors: a feature is not finite: clamp the arguments of logarithms and the like")
        if not bool((self.log_factor < torch.inf).all()):
            raise ChannelError("factors: a log_factor is NaN or +inf; where the function is zero it is -inf")
        low, high = (int(self.kind.min()), int(self.kind.max())) if n else (0, 0)
        if low < 0 or high >= self.kinds:
            raise ChannelError(f"factors: kind must be from 0 to {self.kinds - 1}, got {low} to {high}")
