"""Errors that belong together: what numbers have in common, and how it spreads to first order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
    covariance
        Of the numbers, (k, k).
    n
        Points behind them.

    Examples
    --------
    >>> both = Source(np.array([[0.04, 0.03], [0.03, 0.09]]), n=100)
    >>> round(standard_error({both: np.array([1.0, -1.0])}), 6)
    0.264575
    """

    def __init__(self, covariance: Array, n: int) -> None:
        self.covariance, self.n = covariance, n


Gradient = Mapping[Source, Array]
"""Derivatives of a number with respect to all numbers (k,) of each source that it depends on."""

_GVARS: WeakKeyDictionary[Source, Any] = WeakKeyDictionary()


def combined(terms: Iterable[tuple[float, Gradient]]) -> Gradient:
    """The gradient of a function from its partial derivatives and the gradients of its arguments.

    >>> one = Source(np.array([[0.04]]), n=100)
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

    >>> standard_error({Source(np.array([[0.25]]), n=100): np.array([2.0])})
    1.0
    """
    variance = 0.0
    for source, part in gradient.items():
        used = np.flatnonzero(part)
        block = source.covariance[np.ix_(used, used)]
        known = bool(np.isfinite(block).all())
        variance += max(0.0, float(part[used] @ block @ part[used])) if known else math.inf
    return math.sqrt(variance)


def covariance_of(gradients: list[Gradient]) -> Array:
    """Covariance matrix of numbers (m, m): infinite on the diagonal, and as if independent, where one is unknown.

    >>> one = Source(np.array([[0.25]]), n=100)
    >>> covariance_of([{one: np.array([1.0])}, {one: np.array([-2.0])}])
    array([[ 0.25, -0.5 ],
           [-0.5 ,  1.  ]])
    """
    total = np.zeros((len(gradients), len(gradients)))
    for source in dict.fromkeys(source for gradient in gradients for source in gradient):
        nothing = np.zeros(len(source.covariance))
        rows = np.stack([gradient.get(source, nothing) for gradient in gradients])
        known = np.isfinite(source.covariance)
        total += rows @ np.where(known, source.covariance, 0.0) @ rows.T
        unknown = rows[:, ~np.diag(known)].any(1)
        total[unknown, unknown] = math.inf
    return total


def as_gvar(value: float, gradient: Gradient) -> Any:
    """A number as a `gvar.GVar`, correlated with all others of its sources.

    Raises
    ------
    MissingExtraError
        If gvar is not installed.

    Examples
    --------
    >>> str(as_gvar(1.0, {Source(np.array([[0.25]]), n=100): np.array([1.0])}))
    '1.00(50)'
    """
    try:
        module = import_module("gvar")
    except ImportError as error:
        raise MissingExtraError("gvar is not installed; it comes with vegas: pip install vegas") from error
    number = module.gvar(value, 0.0)
    for source, part in gradient.items():
        if source not in _GVARS:
            _GVARS[source] = module.gvar(np.zeros(len(source.covariance)), source.covariance)
        number = number + part @ _GVARS[source]
    return number
