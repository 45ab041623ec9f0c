"""Windows of statistical tests: a right program stays inside at any seed, except with a probability that is given.

A test is to pass for a right program with probability above 0.999, so each of its few checks fails with at most
`LEVEL`. All windows follow from the distribution of the statistic; none was found by trying seeds. (Not called
`statistics`: this folder is on the path, and the standard library has a module of that name.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nisampler.base.estimate import student_t_factor

LEVEL = 1e-4
"""Probability that one check of a right program fails."""
FEWEST_DOF = 23
"""Degrees of freedom of the error of an integration with the fewest batches, 24."""


def limit(checks: int = 1, dof: float = math.inf, level: float = LEVEL) -> float:
    """Bound in standard errors that all of `checks` pulls keep together, except with probability `level`.

    With finite `dof` the standard error itself comes from so few values, and the pull follows Student's t.

    >>> round(limit(), 2), round(limit(checks=20), 2), round(limit(dof=FEWEST_DOF), 2)
    (3.89, 4.56, 4.69)
    """
    tail = level / checks / 2
    return float(stats.norm.isf(tail) if math.isinf(dof) else stats.t.isf(tail, dof))


def p_limit(checks: int = 1, level: float = LEVEL) -> float:
    """Bound that all of `checks` p-values exceed together, except with probability `level`."""
    return level / checks


PULL_LIMIT = limit(checks=4, dof=FEWEST_DOF)
"""Bound of the pulls of a test that looks at up to four integrations, 5.25."""


@dataclass(frozen=True)
class PullWindows:
    """Where mean, width and covered fractions of n pulls of a right program lie."""

    mean: float
    width: tuple[float, float]
    covered: dict[float, tuple[float, float]]


def pull_windows(n: int, level: float = LEVEL, dof: float = math.inf) -> PullWindows:
    """Windows of n independent pulls, each of which is left with probability `level`.

    With finite `dof` a pull is Student's t over `student_t_factor`, as `Estimate.from_batch_means` has it: 68.27 %
    lie within 1, but the width is above 1 and scatters more (Satterthwaite: its square is a chi² of fewer degrees).
    """
    factor, variance, excess = 1.0, 1.0, 0.0
    if not math.isinf(dof):
        factor = student_t_factor(int(dof))
        variance, excess = dof / (dof - 2) / factor**2, 6.0 / (dof - 4)
    effective = 2.0 * (n - 1) / (2.0 + excess * (n - 1) / n)
    tails = (level / 2, 1 - level / 2)
    low, high = (math.sqrt(variance * stats.chi2.ppf(tail, effective) / effective) for tail in tails)
    covered = {}
    for bound in (1.0, 2.0):
        share = math.erf(bound / math.sqrt(2)) if math.isinf(dof) else 1 - 2 * stats.t.sf(bound * factor, dof)
        fewest, most = (float(stats.binom.ppf(tail, n, share)) / n for tail in tails)
        covered[bound] = (fewest, most)
    return PullWindows(limit(level=level) * math.sqrt(variance / n), (float(low), float(high)), covered)


def assert_calibrated(pulls: Sequence[float], dof: float = math.inf, level: float = LEVEL) -> None:
    """Pulls of mean 0 and the right width, and intervals that cover what they promise; four checks."""
    values = np.asarray(pulls, dtype=float)
    assert np.isfinite(values).all()
    windows = pull_windows(len(values), level, dof)
    assert abs(values.mean()) <= windows.mean, f"mean pull {values.mean():.3f} beyond {windows.mean:.3f}"
    low, high = windows.width
    assert low <= values.std() <= high, f"width of pulls {values.std():.3f} outside {low:.3f} to {high:.3f}"
    for bound, (low, high) in windows.covered.items():
        share = float((np.abs(values) <= bound).mean())
        assert low <= share <= high, f"{bound} sigma cover {share:.3f} instead of {low:.3f} to {high:.3f}"


def ks_accepts(values: Sequence[float], distribution: object, checks: int = 1, level: float = LEVEL) -> bool:
    """Whether a Kolmogorov–Smirnov test finds nothing against the distribution (its name or its cdf)."""
    return bool(stats.kstest(values, distribution).pvalue > p_limit(checks, level))
