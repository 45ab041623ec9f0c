"""Weighted points of a frozen sampler."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nisampler.base.estimate import Estimate
from nisampler.base.moments import Moments
from nisampler.base.weights import importance_weights
from nisampler.errors import MissingFunctionError


@dataclass(frozen=True, repr=False)
class WeightedPoints:
    """Points drawn from the frozen sampler; their weighted mean is the integral.

    `x`, `values` and `weights` raise MissingFunctionError where the result was read without its function and they
    cannot be had.

    Attributes
    ----------
    u
        Points of the unit cube (n, dim), float64.
    log_q
        Log of the density (n,) that they were drawn from, per volume of the domain (of the cube, with channels).

    Examples
    --------
    >>> import torch
    >>> u = torch.tensor([[0.25], [0.75]])
    >>> points = WeightedPoints(u, torch.zeros(2), 2.0 * u, torch.tensor([1.0, 3.0]))
    >>> points, points.x[0].item()
    (WeightedPoints(u (2, 1), mean weight 2.0(10)), 0.5)
    """

    u: Tensor
    log_q: Tensor
    _x: Tensor | MissingFunctionError
    _values: Tensor | MissingFunctionError

    def __repr__(self) -> str:
        known = "values unknown" if isinstance(self._values, MissingFunctionError) else f"mean weight {self._mean()}"
        return f"WeightedPoints(u {tuple(self.u.shape)}, {known})"

    def _mean(self) -> Estimate:
        return Estimate.from_moments(Moments.from_tensor(self.weights))

    @property
    def x(self) -> Tensor:
        """Points of the domain (n, dim); with channels the points (n, ...) that they made."""
        return _present(self._x)

    @property
    def values(self) -> Tensor:
        """Values (n,) of the function; with channels each times its weight over the density of its channel."""
        return _present(self._values)

    @property
    def weights(self) -> Tensor:
        """Values over densities (n,)."""
        return importance_weights(self.values, self.log_q)


def _present(found: Tensor | MissingFunctionError) -> Tensor:
    if isinstance(found, MissingFunctionError):
        raise found
    return found
