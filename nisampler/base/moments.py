"""Sums over weights that can be merged in any order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nisampler.errors import ConfigError


def power_of_two(largest: float) -> float:
    """The power of two just below a largest absolute value, by which numbers are divided exactly; 1 for zero.

    Squares of numbers beyond 1e±150 overflow or vanish, and their sums know nothing of them.

    >>> power_of_two(5.0), power_of_two(0.0), 1e-200 / power_of_two(1e-200) < 2
    (4.0, 1.0, True)
    """
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if 0.0 < largest < math.inf else 1.0


def unit_scale(weights: Tensor) -> tuple[Tensor, float]:
    """Weights (any shape) over the power of two of the largest of them, and this power.

    >>> unit_scale(torch.tensor([1.0, -6.0]))
    (tensor([ 0.2500, -1.5000]), 4.0)
    """
    scale = power_of_two(float(weights.detach().abs().max())) if weights.numel() else 1.0
    return weights / scale, scale


@dataclasses.dataclass(frozen=True)
class Moments:
    r"""Sums over a set of weights that can be merged in any order, over batches, shards and machines.

    Merging uses the pairwise update :math:`M_2 = M_2^a + M_2^b + \delta^2 n_a n_b / (n_a + n_b)` with
    :math:`\delta = \bar w_b - \bar w_a` (Chan, Golub, LeVeque 1983), which loses no digits to cancellation, and those
    of Pébay (2008) for higher powers.
    Non-finite weights are not hidden: they make mean and error NaN or infinite. Weights beyond 1e±75, whose fourth
    powers are no numbers any more, are to be scaled before, see `unit_scale`.

    Attributes
    ----------
    count
        Number of weights.
    mean
        Their mean.
    m2, m3, m4
        Sums of the second to fourth powers of the deviations from the mean.
    sum_abs
        Sum of absolute weights.
    sum_squares
        Sum of squared weights.
    minimum
        Smallest weight, `inf` without any.
    maximum
        Largest weight, `-inf` without any.
    zeros
        Number of weights that are exactly zero.
    negatives
        Number of negative weights.

    Examples
    --------
    >>> parts = [Moments.from_tensor(torch.tensor(w)) for w in ([1.0, 2.0], [3.0])]
    >>> whole = Moments.merge_all(parts)
    >>> whole.count, whole.mean, whole.variance
    (3, 2.0, 1.0)
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    sum_abs: float = 0.0
    sum_squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0
    negatives: int = 0
    m3: float = 0.0
    m4: float = 0.0

    @classmethod
    def from_tensor(cls, weights: Tensor) -> Moments:
        """Moments of all entries of `weights` (any shape and device), summed in float64."""
        return cls.of_rows(weights.reshape(1, -1))[0]

    @classmethod
    def of_rows(cls, weights: Tensor) -> list[Moments]:
        """Moments of each row of weights (rows, n), summed in float64.

        >>> [row.mean for row in Moments.of_rows(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))]
        [1.5, 4.0]
        """
        w = weights.detach().to(torch.float64)
        n = w.shape[1]
        if n == 0:
            return [cls() for _ in w]
        mean = w.mean(1)
        centred = w - mean.unsqueeze(1)
        square = centred.square()
        low, high = torch.aminmax(w, dim=1)
        parts = [mean, square.sum(1), w.abs().sum(1), w.square().sum(1), low, high]
        counts = [(w == 0).sum(1).to(torch.float64), (w < 0).sum(1).to(torch.float64)]
        higher = [(square * centred).sum(1), square.square().sum(1)]
        return [
            cls(n, average, m2, sum_abs, sum_squares, least, most, int(zeros), int(negatives), m3, m4)
            for average, m2, sum_abs, sum_squares, least, most, zeros, negatives, m3, m4 in torch.stack(
                parts + counts + higher, 1
            ).tolist()
        ]

    @classmethod
    def merge_all(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all parts together; without parts, those of the empty set."""
        total = cls()
        for part in parts:
            total = total + part
        return total

    def __add__(self, other: Moments) -> Moments:
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        delta = other.mean - self.mean
        here, there = self.count / count, other.count / count
        square = delta * delta * (self.count * there)
        return Moments(
            count=count,
            mean=(self.count * self.mean + other.count * other.mean) / count,
            m2=self.m2 + other.m2 + square,
            sum_abs=self.sum_abs + other.sum_abs,
            sum_squares=self.sum_squares + other.sum_squares,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            zeros=self.zeros + other.zeros,
            negatives=self.negatives + other.negatives,
            m3=self.m3 + other.m3 + square * delta * (here - there) + 3.0 * delta * (here * other.m2 - there * self.m2),
            m4=self.m4
            + other.m4
            + square * delta * delta * (here * here - here * there + there * there)
            + 6.0 * delta * delta * (here * here * other.m2 + there * there * self.m2)
            + 4.0 * delta * (here * other.m3 - there * self.m3),
        )

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return self.count * self.mean

    @property
    def max_abs(self) -> float:
        """Largest absolute weight, 0 without any."""
        return max(abs(self.minimum), abs(self.maximum)) if self.count else 0.0

    @property
    def variance(self) -> float:
        """Unbiased variance of one weight; infinite, that is unknown, from fewer than two."""
        return self.m2 / (self.count - 1) if self.count > 1 else math.inf

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; infinite, that is unknown, from fewer than two weights."""
        return math.sqrt(self.variance / self.count) if self.count > 1 else math.inf

    @property
    def skew(self) -> float:
        """Skewness of the mean, that of the weights over √n: a pull is -skew/2 on average. 0 for equal weights."""
        return self.m3 / self.m2 / math.sqrt(self.m2) if self.m2 != 0.0 else 0.0

    @property
    def excess(self) -> float:
        """Relative error of the variance beyond that of normal weights, the root of their excess kurtosis over n.

        The standard error is known half as well as this tells.

        >>> round(Moments.from_tensor(torch.tensor([1.0] + 99 * [0.0])).excess, 2)
        0.97
        """
        if self.m2 == 0.0:
            return 0.0
        return math.sqrt(max(self.m4 / self.m2 / self.m2 - 3.0 / self.count, 0.0))

    @property
    def ess_fraction(self) -> float:
        r"""Kish's effective sample size over n, :math:`(\sum w)^2 / (n \sum w^2)`; 0 if all vanish."""
        if self.sum_squares == 0.0:
            return 0.0
        return self.total * self.mean / self.sum_squares

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers under the attributes' names; `from_dict` gives back an equal object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float | int]) -> Moments:
        """The moments `to_dict` wrote; `ConfigError` where keys are missing or unknown."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(values) != expected:
            raise ConfigError(f"moments need exactly the keys {sorted(expected)}, got {sorted(values)}")
        integers = {"count", "zeros", "negatives"}
        return cls(**{key: int(v) if key in integers else float(v) for key, v in values.items()})  # type: ignore[arg-type]
