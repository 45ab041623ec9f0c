"""Numbers with honest errors: mergeable moments, `Estimate` and pulls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import pairwise

import torch
from torch import Tensor

from nisampler.errors import ConfigError

ONE_SIGMA = math.erf(1.0 / math.sqrt(2.0))
"""Probability within one standard deviation of a normal distribution, 0.6827."""


@dataclasses.dataclass(frozen=True)
class Moments:
    r"""Sums over a set of weights that can be merged in any order, over batches, shards and machines.

    Merging uses the pairwise update :math:`M_2 = M_2^a + M_2^b + \delta^2 n_a n_b / (n_a + n_b)` with
    :math:`\delta = \bar w_b - \bar w_a` (Chan, Golub, LeVeque 1983), which loses no digits to cancellation.
    Non-finite weights are not hidden: they make mean and error NaN or infinite.

    Attributes
    ----------
    count
        Number of weights.
    mean
        Their mean.
    m2
        Sum of squared deviations from the mean.
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

    @classmethod
    def from_tensor(cls, weights: Tensor) -> Moments:
        """Moments of all entries of `weights` (any shape and device), summed in float64."""
        w = weights.detach().reshape(-1).to(torch.float64)
        if w.numel() == 0:
            return cls()
        mean = w.mean()
        parts = [mean, (w - mean).square().sum(), w.abs().sum(), w.square().sum(), w.min(), w.max()]
        counts = [(w == 0).sum().to(torch.float64), (w < 0).sum().to(torch.float64)]
        average, m2, sum_abs, sum_squares, low, high, zeros, negatives = torch.stack(parts + counts).tolist()
        return cls(w.numel(), average, m2, sum_abs, sum_squares, low, high, int(zeros), int(negatives))

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
        return Moments(
            count=count,
            mean=(self.count * self.mean + other.count * other.mean) / count,
            m2=self.m2 + other.m2 + delta * delta * (self.count * other.count / count),
            sum_abs=self.sum_abs + other.sum_abs,
            sum_squares=self.sum_squares + other.sum_squares,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            zeros=self.zeros + other.zeros,
            negatives=self.negatives + other.negatives,
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


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its standard error; prints as `0.98874(12)`.

    The digits in parentheses are the error in units of the last digits shown, rounded as the Particle Data
    Group does (two digits from 100 to 354, one from 355 to 949, then 10).

    Attributes
    ----------
    value
        The estimate.
    error
        Its standard error; infinite where it is unknown.
    n
        Number of points behind it, zeros included.
    chi2_per_dof
        Agreement of independent batches, NaN without any.
    dof
        Degrees of freedom behind `chi2_per_dof`.
    ess_fraction
        Kish's effective sample size over `n`.
    unit
        Such as `pb`; empty for a pure number.

    Raises
    ------
    ConfigError
        If `error`, `n` or `dof` is negative.

    Examples
    --------
    >>> print(Estimate(1603.214, 0.41, n=1_000_000, unit="pb"))
    1603.2(4)
    """

    value: float
    error: float
    n: int
    chi2_per_dof: float = math.nan
    dof: int = 0
    ess_fraction: float = math.nan
    unit: str = ""

    def __post_init__(self) -> None:
        for name in ("error", "n", "dof"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} of an estimate must not be negative, got {getattr(self, name)}")

    @classmethod
    def from_moments(cls, moments: Moments, unit: str = "") -> Estimate:
        """Mean and standard error of the weights; `ConfigError` if there are none."""
        if moments.count == 0:
            raise ConfigError("an estimate needs at least one point, got none")
        return cls(moments.mean, moments.standard_error, moments.count, ess_fraction=moments.ess_fraction, unit=unit)

    @classmethod
    def from_batches(cls, batches: Sequence[Moments], unit: str = "") -> Estimate:
        r"""Mean over all points of independent batches, with their agreement.

        :math:`\chi^2 = \sum_i n_i (\bar w_i - \bar w)^2 / s^2` with one variance :math:`s^2` pooled within
        the batches, because a batch's own variance is correlated with its mean. `ConfigError` without points.
        """
        filled = [batch for batch in batches if batch.count]
        total = Moments.merge_all(filled)
        whole = cls.from_moments(total, unit)
        dof = len(filled) - 1
        inner = total.count - len(filled)
        if dof == 0 or inner == 0:
            return whole
        variance = math.fsum(batch.m2 for batch in filled) / inner
        spread = math.fsum(batch.count * (batch.mean - total.mean) ** 2 for batch in filled)
        scale = max(abs(batch.mean) for batch in filled)
        chi2 = _chi2(spread, variance, total.count * scale * scale)
        return dataclasses.replace(whole, chi2_per_dof=chi2 / dof, dof=dof)

    @classmethod
    def from_batch_means(
        cls, means: Sequence[float], points_per_batch: int, *, ess_fraction: float = math.nan, unit: str = ""
    ) -> Estimate:
        """Mean of equally sized, independent batch means, for points that are dependent within a batch.

        The error comes from the spread of the means alone, as independent scramblings of a Sobol sequence
        need it, times `student_t_factor`, so that it covers 68.27 % with few batches too. Infinite for a
        single batch. `chi2_per_dof` compares the spread between groups of consecutive batches with the spread
        within them: it grows if batches are not alike.

        Raises
        ------
        ConfigError
            Without batches or points.
        """
        if not means or points_per_batch < 1:
            raise ConfigError(f"need batches with points, got {len(means)} with {points_per_batch} points")
        moments = Moments.from_tensor(torch.tensor(means, dtype=torch.float64))
        error = math.inf
        if moments.count > 1:
            error = moments.standard_error * student_t_factor(moments.count - 1)
        chi2, dof = _between_groups(means)
        n = moments.count * points_per_batch
        return cls(moments.mean, error, n, chi2, dof, ess_fraction, unit)

    @classmethod
    def combine(cls, parts: Sequence[Estimate]) -> Estimate:
        r"""One estimate from independent ones of the same quantity, weighted by their numbers of points.

        Weights :math:`n_i/N`, never inverse variances: a part that missed a peak has a value too low *and* an
        error too small, so inverse-variance weights pull the result down, however many parts there are.
        :math:`\chi^2` adds those of the parts and one between them, with the variance scaled so that its
        mean is the number of parts minus one.

        Raises
        ------
        ConfigError
            Without parts or points, or if their units differ.
        """
        filled = [part for part in parts if part.n]
        if not filled:
            raise ConfigError("cannot combine estimates: none of them has points")
        units = {part.unit for part in filled}
        if len(units) > 1:
            raise ConfigError(f"cannot combine estimates in different units: {sorted(units)}")
        if len(filled) == 1:
            return filled[0]
        n = sum(part.n for part in filled)
        value = math.fsum(part.n * part.value for part in filled) / n
        error = math.sqrt(math.fsum((part.n * part.error) ** 2 for part in filled)) / n
        chi2 = _between(filled, value, n)
        dof = len(filled) - 1
        for part in filled:
            if part.dof:
                chi2 += part.dof * part.chi2_per_dof
                dof += part.dof
        return cls(value, error, n, chi2 / dof, dof, _combined_ess(filled, value, n), units.pop())

    @property
    def relative_error(self) -> float:
        """Error over absolute value; infinite where the value is zero."""
        return self.error / abs(self.value) if self.value else math.inf

    @property
    def q_value(self) -> float:
        """Probability of a larger chi-square than the one seen; NaN without degrees of freedom."""
        if self.dof == 0:
            return math.nan
        from scipy.special import chdtrc  # scipy takes long to import, and few ask for this

        return float(chdtrc(self.dof, self.chi2_per_dof * self.dof))

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return format_with_error(self.value, self.error)

    def summary(self) -> str:
        """Several lines: value, relative error, points, agreement of batches, effective sample size."""
        rows = [
            ("value", f"{self} {self.unit}".rstrip()),
            ("relative error", f"{self.relative_error:.2g}"),
            ("points", f"{self.n}"),
        ]
        if self.dof:
            rows.append(("chi2/dof", f"{self.chi2_per_dof:.2f} (dof {self.dof}, Q {self.q_value:.2g})"))
        if not math.isnan(self.ess_fraction):
            rows.append(("ESS/n", f"{self.ess_fraction:.3g}"))
        return "\n".join(f"{name:<15} {text}" for name, text in rows)


def _between_groups(means: Sequence[float]) -> tuple[float, int]:
    """Variance of group means over the variance within groups of consecutive batches, and its dof."""
    groups = min(8, len(means) // 3)
    if groups < 2:
        return math.nan, 0
    edges = [len(means) * k // groups for k in range(groups + 1)]
    parts = [Moments.from_tensor(torch.tensor(means[a:b], dtype=torch.float64)) for a, b in pairwise(edges)]
    whole = Moments.merge_all(parts)
    spread = math.fsum(part.count * (part.mean - whole.mean) ** 2 for part in parts)
    variance = math.fsum(part.m2 for part in parts) / (len(means) - groups)
    return _chi2(spread, variance, len(means) * whole.max_abs * whole.max_abs) / (groups - 1), groups - 1


def _chi2(spread: float, variance: float, rounding_scale: float) -> float:
    """`spread / variance`; exact parts (variance 0) agree if they differ by rounding only."""
    if variance > 0.0 or math.isnan(variance) or math.isnan(spread):
        return spread / variance
    return 0.0 if spread <= 1e-24 * rounding_scale else math.inf


def _between(parts: Sequence[Estimate], value: float, n: int) -> float:
    """Chi-square of the parts' values about their combination, scaled to a mean of `len(parts) - 1`."""
    variances = [part.n * part.error**2 for part in parts]
    pooled = math.fsum(part.n * s2 for part, s2 in zip(parts, variances, strict=True)) / n
    variance = (math.fsum(variances) - pooled) / (len(parts) - 1)
    spread = math.fsum(part.n * (part.value - value) ** 2 for part in parts)
    return _chi2(spread, variance, n * max(abs(part.value) for part in parts) ** 2)


def _combined_ess(parts: Sequence[Estimate], value: float, n: int) -> float:
    """Kish fraction of all points together, from the parts' values and fractions."""
    squares = 0.0
    for part in parts:
        if part.value != 0.0:
            if part.ess_fraction == 0.0:
                return 0.0
            squares += part.n * part.value**2 / part.ess_fraction
    return n * value**2 / squares if squares else 0.0


def format_with_error(value: float, error: float) -> str:
    """`value` with `error` in units of its last digits, such as `0.98874(12)` or `1.23(4)e-15`.

    A missing error (infinite, NaN) or a value that is not finite is written out: `0.5 ± inf`.

    >>> format_with_error(0.988741, 0.000118)
    '0.98874(12)'
    >>> format_with_error(1.234e-15, 3.9e-17)
    '1.23(4)e-15'
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:.6g} ± {error:.6g}"
    if error == 0.0:
        return f"{value:.12g}(0)"
    leading = Decimal(f"{error:.2e}")
    head = leading.scaleb(2 - leading.adjusted())
    last = leading.adjusted() - (1 if head < 355 else 0)
    exact_value, exact_error = Decimal(value + 0.0), Decimal(error)
    if head >= 950:
        exact_error = leading = Decimal(1).scaleb(leading.adjusted() + 1)
        last = leading.adjusted() - 1
    exponent = max(exact_error.adjusted(), exact_value.adjusted() if value else exact_error.adjusted())
    shift = exponent if exponent < -4 or exponent > 9 or last > 0 else 0
    step = Decimal(1).scaleb(last - shift)
    digits = max(28, exponent - last + 5)
    shown = _quantize(exact_value.scaleb(-shift), step, digits)
    units = int(_quantize(exact_error.scaleb(-last), Decimal(1), digits))
    return f"{shown:f}({units})" + (f"e{shift}" if shift else "")


def _quantize(number: Decimal, step: Decimal, digits: int) -> Decimal:
    """Round to a multiple of `step`, with as many digits as the result needs."""
    return number.quantize(step, rounding=ROUND_HALF_EVEN, context=Context(prec=digits))


def pull(estimate: Estimate, truth: float) -> float:
    """Deviation from the truth in standard errors; 0 for an exact hit without error."""
    difference = estimate.value - truth
    if estimate.error == 0.0:
        return 0.0 if difference == 0.0 else math.copysign(math.inf, difference)
    return difference / estimate.error


def student_t_factor(dof: int) -> float:
    """Factor from the standard error of `dof + 1` independent means to half a 68.27 % interval.

    It is 1.84 for 1 degree of freedom, 1.03 for 15 and tends to 1. `ConfigError` if `dof` is below 1.
    """
    if dof < 1:
        raise ConfigError(f"dof must be at least 1, got {dof}")
    from scipy.special import stdtrit  # scipy takes long to import, and a training does not need it

    return float(stdtrit(dof, 0.5 + 0.5 * ONE_SIGMA))
