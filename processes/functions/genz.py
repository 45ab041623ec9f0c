"""Genz's six families of test integrands on the unit cube, with exact integrals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Dimension, Finite, Positive, Row, checked, settings
from nisampler.errors import ConfigError

Array = NDArray[np.float64]


def _oscillatory(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return torch.cos(2 * math.pi * w[0] + x @ a)


def _product_peak(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return (1 / (a**-2 + (x - w) ** 2)).prod(1)


def _corner_peak(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return (1 + x @ a) ** -(x.shape[1] + 1)


def _gaussian(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return torch.exp(-(a**2 * (x - w) ** 2).sum(1))


def _continuous(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return torch.exp(-(a * (x - w).abs()).sum(1))


def _discontinuous(x: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return torch.exp(x @ a) * (x[:, :2] <= w[:2]).all(1)


def _oscillatory_integral(a: Array, w: Array) -> tuple[float, float]:
    return float((np.exp(2j * math.pi * w[0]) * np.prod(np.expm1(1j * a) / (1j * a))).real), 0.0


def _product_peak_integral(a: Array, w: Array) -> tuple[float, float]:
    return float(np.prod(a * (np.arctan(a * (1 - w)) + np.arctan(a * w)))), 0.0


def _corner_peak_integral(a: Array, w: Array) -> tuple[float, float]:
    r"""1/d! \int_0^\infty t^d e^-t \prod_i (1 - e^{-a_i t})/(a_i t) dt, stable in any dimension."""
    dim = len(a)
    width = 12 * math.sqrt(dim + 1) + 40
    edges = np.linspace(0.0, dim + width, 41)
    nodes, weights = np.polynomial.legendre.leggauss(30)
    half = np.diff(edges)[:, None] / 2
    t = (edges[:-1, None] + half * (nodes + 1)).ravel()
    log_value = dim * np.log(t) - t - math.lgamma(dim + 1)
    log_value += np.log(-np.expm1(-np.outer(t, a)) / np.outer(t, a)).sum(1)
    value = float(np.sum((half * weights).ravel() * np.exp(log_value)))
    return value, 1e-12 * value


def _gaussian_integral(a: Array, w: Array) -> tuple[float, float]:
    terms = [
        math.sqrt(math.pi) / (2 * ai) * (math.erf(ai * (1 - wi)) + math.erf(ai * wi))
        for ai, wi in zip(a, w, strict=True)
    ]
    return math.prod(terms), 0.0


def _continuous_integral(a: Array, w: Array) -> tuple[float, float]:
    return float(np.prod(-(np.expm1(-a * w) + np.expm1(-a * (1 - w))) / a)), 0.0


def _discontinuous_integral(a: Array, w: Array) -> tuple[float, float]:
    upper = np.ones_like(a)
    upper[:2] = w[:2]
    return float(np.prod(np.expm1(a * upper) / a)), 0.0


_Function = Callable[[Tensor, Tensor, Tensor], Tensor]
_Integral = Callable[[Array, Array], tuple[float, float]]

Family = Literal["oscillatory", "product_peak", "corner_peak", "gaussian", "continuous", "discontinuous"]
Position = Annotated[Finite, Field(ge=0.0, le=1.0)]
"""A coordinate of the unit cube."""

# family: (function, integral, default difficulty sum_i a_i)
GENZ_FAMILIES: dict[Family, tuple[_Function, _Integral, float]] = {
    "oscillatory": (_oscillatory, _oscillatory_integral, 9.0),
    "product_peak": (_product_peak, _product_peak_integral, 7.25),
    "corner_peak": (_corner_peak, _corner_peak_integral, 1.85),
    "gaussian": (_gaussian, _gaussian_integral, 7.03),
    "continuous": (_continuous, _continuous_integral, 20.4),
    "discontinuous": (_discontinuous, _discontinuous_integral, 4.3),
}


@settings
class GenzFamily:
    """A member of a Genz family, with widths a_i > 0 and positions 0 <= w_i <= 1.

    oscillatory cos(2 pi w_1 + a.x); product_peak prod 1/(a_i^-2 + (x_i - w_i)^2);
    corner_peak (1 + a.x)^-(dim+1); gaussian exp(-sum a_i^2 (x_i - w_i)^2);
    continuous exp(-sum a_i |x_i - w_i|); discontinuous exp(a.x) where x_1 <= w_1 and x_2 <= w_2, else 0.

    Raises
    ------
    ConfigError
        If the family is unknown, lengths differ, or a parameter is outside its range.

    Examples
    --------
    >>> member = GenzFamily("continuous", a=(1.0, 2.0), w=(0.5, 0.5))
    >>> member(torch.tensor([[0.5, 0.5]])), round(member.integral()[0], 6)
    (tensor([1.]), 0.49744)
    >>> GenzFamily("continuous", a=(0.0, 2.0), w=(0.5, 0.5))
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: a[1] = 0.0: must be a number, more than 0
    """

    source: ClassVar[str] = "A. Genz, Testing multidimensional integration routines (1984)"

    family: Family
    a: Row[Positive]
    w: Row[Position]

    def __post_init__(self) -> None:
        if len(self.a) != len(self.w) or not self.a:
            raise ConfigError(f"a and w need one entry a dimension, got {len(self.a)} and {len(self.w)}")

    @classmethod
    def default(cls, family: Family, dim: int, difficulty: float | None = None) -> GenzFamily:
        """Fixed parameters: a_i linear in i with sum `difficulty`, w_i the golden-ratio sequence.

        The default difficulties are those of Barthelmann, Novak and Ritter, Adv. Comput. Math. 12 (2000) 273.

        Raises
        ------
        ConfigError
            If dim < 1 or difficulty is not positive.
        """
        checked("dim", dim, Dimension)
        checked("difficulty", difficulty, Positive | None)
        total = GENZ_FAMILIES[family][2] if difficulty is None else difficulty
        golden = (math.sqrt(5) - 1) / 2
        shares = [(i + 0.5) / (dim * dim / 2) for i in range(dim)]
        positions = tuple((i + 1) * golden % 1.0 for i in range(dim))
        return cls(family, tuple(total * share for share in shares), positions)

    def __call__(self, x: Tensor) -> Tensor:
        """Values of shape (n,) at points x of shape (n, dim)."""
        function = GENZ_FAMILIES[self.family][0]
        return function(x, x.new_tensor(self.a), x.new_tensor(self.w))

    def integral(self) -> tuple[float, float]:
        """Integral over the unit cube and a bound on its numerical error."""
        return GENZ_FAMILIES[self.family][1](np.asarray(self.a), np.asarray(self.w))
