"""Errors that belong together: what numbers have in common, and how it spreads to first order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import MissingExtraError

Array = NDArray[np.float64]


class Source:
    """Numbers that were measured together, such as the integrals of one integration.

    Attributes
    ----------
    error
        Standard errors of the numbers, (k,), infinite where unknown. They are kept beside the correlation, because
        squares of errors such as 1e-200 vanish.
    correlation
        Of the numbers, (k, k).
    n
        Points behind them.

    Examples
    --------
    >>> both = Source(np.array([0.2, 0.3]), np.array([[1.0, 0.5], [0.5, 1.0]]), n=100)
    >>> round(standard_error({both: np.array([1.0, -1.0])}), 6)
    0.264575
    """

    def __init__(self, error: Array, correlation: Array, n: int) -> None:
        self.error, self.correlation, self.n = error, correlation, n


Gradient = Mapping[Source, Array]
"""Derivatives of a number with respect to all numbers (k,) of each source that it depends on."""

_GVARS: WeakKeyDictionary[Source, Any] = WeakKeyDictionary()


def combined(terms: Iterable[tuple[float, Gradient]]) -> Gradient:
    """The gradient of a function from its partial derivatives and the gradients of its arguments.

    >>> one = Source(np.array([0.2]), np.eye(1), n=100)
    >>> combined([(2.0, {one: np.array([1.0])}), (3.0, {one: np.array([1.0])})])[one]
    array([5.])
    """
    total: dict[Source, Array] = {}
    for factor, gradient in terms:
        for source, part in gradient.items():
            total[source] = factor * part + total[source] if source in total else factor * part
    return total


def standard_error(gradient: Gradient) -> float:
    """First-order error of a number, infinite where one of those it depends on is unknown.

    >>> standard_error({Source(np.array([0.5]), np.eye(1), n=100): np.array([2.0])})
    1.0
    """
    steps = [(source.correlation, _steps(source, part)) for source, part in gradient.items()]
    largest = max((float(np.abs(step).max()) for _, step in steps), default=0.0)
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(
        sum(max(0.0, float(step @ correlation @ step)) for correlation, step in ((c, s / largest) for c, s in steps))
    )


def _steps(source: Source, part: Array) -> Array:
    """What one standard error of each number (k,) of a source changes."""
    used = part != 0.0
    with np.errstate(over="ignore"):
        return np.where(used, part * np.where(used, source.error, 0.0), 0.0)


def correlation_of(gradients: Sequence[Gradient]) -> Array:
    """Correlations of numbers (m, m): 0 beside one that is exact or unknown.

    >>> one = Source(np.array([0.5]), np.eye(1), n=100)
    >>> correlation_of([{one: np.array([1.0])}, {one: np.array([-2.0])}])
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    error = np.array([standard_error(gradient) for gradient in gradients])
    known = np.isfinite(error) & (error > 0.0)
    size = np.where(known, error, 1.0)[:, None]
    total = np.zeros((len(gradients), len(gradients)))
    for source in dict.fromkeys(source for gradient in gradients for source in gradient):
        nothing = np.zeros(len(source.error))
        steps = np.stack([_steps(source, gradient.get(source, nothing)) for gradient in gradients])
        steps = np.where(known[:, None], steps, 0.0) / size
        total += steps @ source.correlation @ steps.T
    np.fill_diagonal(total, 1.0)
    return total


def covariance_of(gradients: Sequence[Gradient]) -> Array:
    """Covariance matrix of numbers (m, m): infinite on the diagonal, and as if independent, where one is unknown.

    >>> one = Source(np.array([0.5]), np.eye(1), n=100)
    >>> covariance_of([{one: np.array([1.0])}, {one: np.array([-2.0])}])
    array([[ 0.25, -0.5 ],
           [-0.5 ,  1.  ]])
    """
    error = np.array([standard_error(gradient) for gradient in gradients])
    correlation = correlation_of(gradients)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(correlation == 0.0, 0.0, correlation * error * error[:, None])


def as_gvar(value: float, gradient: Gradient) -> Any:
    """A number as a `gvar.GVar`, correlated with all others of its sources.

    Raises
    ------
    MissingExtraError
        If gvar is not installed.

    Examples
    --------
    >>> str(as_gvar(1.0, {Source(np.array([0.5]), np.eye(1), n=100): np.array([1.0])}))
    '1.00(50)'
    """
    try:
        module = import_module("gvar")
    except ImportError as error:
        raise MissingExtraError("gvar is not installed; it comes with vegas: pip install vegas") from error
    number = module.gvar(value, 0.0)
    for source, part in gradient.items():
        if source not in _GVARS:
            _GVARS[source] = module.gvar(np.zeros(len(source.error)), source.correlation)
        number = number + _steps(source, part) @ _GVARS[source]
    return number
