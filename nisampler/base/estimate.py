"""Numbers with honest errors: `Estimate`, how it is computed with and printed, and pulls."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import torch

from nisampler.base.covariance import Gradient, Source, as_gvar, combined, standard_error
from nisampler.base.moments import Moments, power_of_two, unit_scale
from nisampler.base.notation import MARK, format_with_error
from nisampler.errors import ConfigError, DomainError

ONE_SIGMA = math.erf(1.0 / math.sqrt(2.0))
"""Probability within one standard deviation of a normal distribution, 0.6827."""


# A width and an alignment, for tables.
_ALIGNED = re.compile(r"(.?[<>^])?\d*")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its standard error; prints as `0.98874(12)`.

    The digits in parentheses are the error in units of the last digits shown, rounded as the Particle Data
    Group does (two digits from 100 to 354, one from 355 to 949, then 10).

    Estimates are added, subtracted, multiplied and divided, with numbers and with each other, raised to a power
    and given to `abs`. Errors spread to first order: integrals of one integration are correlated as their points
    are, an estimate with itself entirely, all others are independent. `format(estimate, "pm")` writes
    `0.98874 ± 0.00012`; a format of numbers, such as `.3f` or `.2e`, is applied to value and error alike. An error that
    is not to be trusted, or follows from such ones, carries the mark `(?)`: `0.98874(12) (?)`.

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
    dof, dof_within
        Degrees of freedom of the spread between batches, and of the variance it is compared with; 0 for the latter
        where that is known as well as exactly.
    ess_fraction
        Kish's effective sample size over `n`.
    unit
        Such as `pb`; empty for a pure number.
    trusted
        Whether the error can be trusted: not where a few points make it up, or a peak was hardly sampled.

    Raises
    ------
    ConfigError
        If `error`, `n`, `dof` or `dof_within` is negative.

    Examples
    --------
    >>> sigma = Estimate(1603.214, 0.41, n=1_000_000, unit="pb")
    >>> print(sigma)
    1603.2(4)
    >>> f"{sigma:pm} {sigma.unit}", f"{2 * sigma:.1f}", str(sigma / sigma)
    ('1603.2 ± 0.4 pb', '3206.4 ± 0.8', '1(0)')
    """

    value: float
    error: float
    n: int
    chi2_per_dof: float = math.nan
    dof: int = 0
    ess_fraction: float = math.nan
    unit: str = ""
    trusted: bool = True
    dof_within: int = dataclasses.field(default=0, repr=False)

    def __post_init__(self) -> None:
        for name in ("error", "n", "dof", "dof_within"):
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
        return dataclasses.replace(whole, chi2_per_dof=chi2 / dof, dof=dof, dof_within=inner)

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
        scaled, scale = unit_scale(torch.tensor(means, dtype=torch.float64))
        moments, error = Moments.from_tensor(scaled), math.inf
        if moments.count > 1:
            error = scale * moments.standard_error * student_t_factor(moments.count - 1)
        chi2, dof, within = _between_groups(scaled.tolist())
        n = moments.count * points_per_batch
        return cls(scale * moments.mean, error, n, chi2, dof, ess_fraction, unit, dof_within=within)

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
        error = math.hypot(*(part.n / n * part.error for part in filled))
        chi2 = _between(filled, value, n)
        dof = len(filled) - 1
        for part in filled:
            if part.dof:
                chi2 += part.dof * part.chi2_per_dof
                dof += part.dof
        within = sum(part.dof_within for part in filled) if all(part.dof_within for part in filled) else 0
        trusted = all(part.trusted for part in filled)
        return cls(value, error, n, chi2 / dof, dof, _combined_ess(filled, value, n), units.pop(), trusted, within)

    @property
    def relative_error(self) -> float:
        """Error over absolute value; infinite where the value is zero."""
        return self.error / abs(self.value) if self.value else math.inf

    @property
    def q_value(self) -> float:
        """Probability of less agreement than was seen, by an F-test; NaN without degrees of freedom.

        With few batches their own variance is uncertain, so that `chi2_per_dof` follows Fisher's F distribution.
        """
        if self.dof == 0:
            return math.nan
        from scipy.special import chdtrc, fdtrc  # scipy takes long to import, and few ask for this

        if self.dof_within:
            return float(fdtrc(self.dof, self.dof_within, self.chi2_per_dof))
        return float(chdtrc(self.dof, self.chi2_per_dof * self.dof))

    @property
    def gradient(self) -> Gradient:
        """Derivatives with respect to the measured numbers behind it: itself alone, where it is one of them."""
        found: Gradient | None = self.__dict__.get("_gradient")
        if found is None:
            found = {Source(np.array([self.error]), np.eye(1), self.n): np.ones(1)}
            object.__setattr__(self, "_gradient", found)
        return found

    def depending(self, gradient: Gradient) -> Estimate:
        """The same number, known to depend on these measured ones."""
        other = dataclasses.replace(self)
        object.__setattr__(other, "_gradient", gradient)
        return other

    def gvar(self) -> Any:
        """The number as a `gvar.GVar`, correlated with those of the same integration.

        Raises
        ------
        MissingExtraError
            If gvar is not installed.
        """
        return as_gvar(self.value, self.gradient)

    def __float__(self) -> float:
        return float(self.value)

    def __neg__(self) -> Estimate:
        return _function(-self.value, [(-1.0, self)], self.unit)

    def __pos__(self) -> Estimate:
        return self

    def __abs__(self) -> Estimate:
        return self if self.value >= 0.0 else -self

    def __add__(self, other: Estimate | float) -> Estimate:
        return _binary(self, other, lambda a, b: (a.value + b.value, 1.0, 1.0, _same_unit(a, b)))

    __radd__ = __add__

    def __sub__(self, other: Estimate | float) -> Estimate:
        return _binary(self, other, lambda a, b: (a.value - b.value, 1.0, -1.0, _same_unit(a, b)))

    def __rsub__(self, other: float) -> Estimate:
        return -self + other

    def __mul__(self, other: Estimate | float) -> Estimate:
        return _binary(
            self, other, lambda a, b: (a.value * b.value, b.value, a.value, " ".join(filter(None, (a.unit, b.unit))))
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Estimate | float) -> Estimate:
        return _binary(self, other, _ratio)

    def __rtruediv__(self, other: float) -> Estimate:
        return _binary(self, other, lambda a, b: _swapped(_ratio(b, a)))

    def __pow__(self, power: float) -> Estimate:
        if not _is_number(power):
            return NotImplemented
        try:
            value = math.pow(self.value, power)
            slope = power * math.pow(self.value, power - 1.0) if power else 0.0
        except (ValueError, OverflowError) as error:
            raise DomainError(f"{self} to the power {power} is no finite real number with an error") from error
        return _function(value, [(slope, self)], f"{self.unit}^{power:g}" if self.unit else "")

    def __str__(self) -> str:
        return format_with_error(self.value, self.error, trusted=self.trusted)

    def __format__(self, spec: str) -> str:
        if spec == "pm":
            return format_with_error(self.value, self.error, plus_minus=True, trusted=self.trusted)
        if _ALIGNED.fullmatch(spec):
            return format(str(self), spec)
        try:
            return f"{self.value:{spec}} ± {self.error:{spec}}{'' if self.trusted else MARK}"
        except ValueError as error:
            raise ConfigError(
                f"format {spec!r} of an estimate: use '' for 1.23(4), 'pm' for 1.23 ± 0.04, a width, or a format of "
                "numbers such as '.3f'"
            ) from error

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Plain data for a JSON file, None for what is not finite; `from_dict` gives back an equal estimate."""
        fields = dataclasses.asdict(self).items()
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in fields}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Estimate:
        """What `to_dict` wrote."""
        unknown = {"error": math.inf, "chi2_per_dof": math.nan, "ess_fraction": math.nan}
        known: dict[str, Any] = {name: unknown[name] if v is None else v for name, v in fields.items()}
        return cls(**known)

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


def _function(value: float, terms: Sequence[tuple[float, Estimate]], unit: str) -> Estimate:
    """A function of estimates from its value and its partial derivatives."""
    gradient = combined((factor, estimate.gradient) for factor, estimate in terms)
    n, trusted = sum(source.n for source in gradient), all(estimate.trusted for factor, estimate in terms if factor)
    return Estimate(value, standard_error(gradient), n, unit=unit, trusted=trusted).depending(gradient)


def _binary(
    a: Estimate, b: Estimate | float, rule: Callable[[Estimate, Estimate], tuple[float, float, float, str]]
) -> Estimate:
    """The result of a rule that gives a value, its derivatives by a and b, and a unit."""
    if isinstance(b, Estimate):
        value, by_a, by_b, unit = rule(a, b)
        return _function(value, [(by_a, a), (by_b, b)], unit)
    if not _is_number(b):
        return NotImplemented  # type: ignore[no-any-return]
    value, by_a, _, unit = rule(a, Estimate(float(b), 0.0, 0))
    return _function(value, [(by_a, a)], unit)


def _swapped(result: tuple[float, float, float, str]) -> tuple[float, float, float, str]:
    value, by_a, by_b, unit = result
    return value, by_b, by_a, unit


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def _same_unit(a: Estimate, b: Estimate) -> str:
    """The unit of a sum, in which numbers without points have the unit of the estimate."""
    if a.unit != b.unit and a.n and b.n:
        raise ConfigError(f"estimates in different units cannot be added: {a.unit!r} and {b.unit!r}")
    return a.unit or b.unit


def _ratio(a: Estimate, b: Estimate) -> tuple[float, float, float, str]:
    if b.value == 0.0:
        raise DomainError(f"{a} cannot be divided by {b}")
    value = a.value / b.value
    unit = "" if a.unit == b.unit else f"{a.unit or 1}/{b.unit}" if b.unit else a.unit
    return value, 1.0 / b.value, -value / b.value, unit


def _between_groups(means: Sequence[float]) -> tuple[float, int, int]:
    """Variance of group means over the variance within groups of consecutive batches, and the dof of both."""
    groups = min(8, len(means) // 3)
    if groups < 2:
        return math.nan, 0, 0
    edges = [len(means) * k // groups for k in range(groups + 1)]
    parts = [Moments.from_tensor(torch.tensor(means[a:b], dtype=torch.float64)) for a, b in pairwise(edges)]
    whole = Moments.merge_all(parts)
    spread = math.fsum(part.count * (part.mean - whole.mean) ** 2 for part in parts)
    within = len(means) - groups
    variance = math.fsum(part.m2 for part in parts) / within
    return _chi2(spread, variance, len(means) * whole.max_abs * whole.max_abs) / (groups - 1), groups - 1, within


def _chi2(spread: float, variance: float, rounding_scale: float) -> float:
    """`spread / variance`; exact parts (variance 0) agree if they differ by rounding only."""
    if variance > 0.0 or math.isnan(variance) or math.isnan(spread):
        return spread / variance
    return 0.0 if spread <= 1e-24 * rounding_scale else math.inf


def _between(parts: Sequence[Estimate], value: float, n: int) -> float:
    """Chi-square of the parts' values about their combination, scaled to a mean of `len(parts) - 1`."""
    scale = power_of_two(max(abs(part.value) for part in parts))
    errors = [part.error / scale for part in parts]
    variances = [part.n * (error * error) for part, error in zip(parts, errors, strict=True)]
    pooled = math.fsum(part.n * s2 for part, s2 in zip(parts, variances, strict=True)) / n
    variance = (math.fsum(variances) - pooled) / (len(parts) - 1)
    spread = math.fsum(part.n * (part.value / scale - value / scale) ** 2 for part in parts)
    return _chi2(spread, variance, n * max(abs(part.value / scale) for part in parts) ** 2)


def _combined_ess(parts: Sequence[Estimate], value: float, n: int) -> float:
    """Kish fraction of all points together, from the parts' values and fractions."""
    squares, scale = 0.0, power_of_two(max(abs(part.value) for part in parts))
    for part in parts:
        if part.value != 0.0:
            if part.ess_fraction == 0.0:
                return 0.0
            squares += part.n * (part.value / scale) ** 2 / part.ess_fraction
    return n * (value / scale) ** 2 / squares if squares else 0.0


def pull(estimate: Estimate, truth: float) -> float:
    """Deviation from the truth in standard errors; 0 for an exact hit without error.

    >>> pull(Estimate(1.5, 0.25, 10), 1.0)
    2.0
    """
    difference = estimate.value - truth
    if estimate.error == 0.0:
        return 0.0 if difference == 0.0 else math.copysign(math.inf, difference)
    return difference / estimate.error


def student_t_factor(dof: int) -> float:
    """Factor from the standard error of `dof + 1` independent means to half a 68.27 % interval.

    It is 1.84 for 1 degree of freedom, 1.03 for 15 and tends to 1. `ConfigError` if `dof` is below 1.

    >>> round(student_t_factor(1), 2), round(student_t_factor(15), 2)
    (1.84, 1.03)
    """
    if dof < 1:
        raise ConfigError(f"dof must be at least 1, got {dof}")
    from scipy.special import stdtrit  # scipy takes long to import, and a training does not need it

    return float(stdtrit(dof, 0.5 + 0.5 * ONE_SIGMA))
