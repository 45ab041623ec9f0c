"""Weighted points of a frozen sampler."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nisampler.base.weights import importance_weights
from nisampler.errors import MissingFunctionError


@dataclass(frozen=True)
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
    """

    u: Tensor
    log_q: Tensor
    _x: Tensor | MissingFunctionError
    _values: Tensor | MissingFunctionError

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
