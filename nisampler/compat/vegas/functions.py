"""Functions as vegas takes them, of one point or of batches, as functions of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import vegas
from numpy.typing import NDArray

from nisampler.base.blame import place_of
from nisampler.errors import IntegrandCallError

Array = NDArray[np.float64]


def name_of(fcn: Any) -> str:
    """What a message calls a function.

    >>> name_of(np.sum), name_of(vegas.LBatchIntegrand(np.sum))
    ('sum', 'LBatchIntegrand')
    """
    return str(fcn.__name__) if inspect.isroutine(fcn) else type(fcn).__name__


def standard(fcn: Any, sample: Any, uses_jac: bool = False) -> vegas.VegasIntegrand:
    """A function of points that look like `sample` as vegas brings all of them into one form.

    Its `eval(x, jac)` gives (n, size) of points x (n, dim); it is called with one point to see what it returns.

    Raises
    ------
    IntegrandCallError
        If the function raises there.

    Examples
    --------
    >>> standard(lambda x: [x[0], x[1]], np.ones(2)).eval(np.array([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """
    if isinstance(fcn, vegas.VegasIntegrand):
        return fcn
    turned = uses_jac and getattr(fcn, "fcntype", "") == "rbatch" and np.ndim(sample) == 1
    try:
        return vegas.VegasIntegrand(_Turned(fcn) if turned else fcn, None, uses_jac, sample, False)
    except Exception as error:
        raise IntegrandCallError(
            f"{name_of(fcn)} raised {type(error).__name__}: {error} ({place_of(error)}; called with one point)"
        ) from error


class _Turned:
    """A function of batches (dim, n) as one of (n, dim): of dictionaries vegas 6.4 turns the Jacobian alone."""

    fcntype = "lbatch"

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, x: Array, jac: Array) -> Any:
        found = self.function(x.T, jac=jac.T)
        if isinstance(found, Mapping):
            return {name: np.moveaxis(np.asarray(values), -1, 0) for name, values in found.items()}
        return np.moveaxis(np.asarray(found), -1, 0)


class Points:
    """A function in the form of vegas as an integrand of this package calls it, with points (n, dim) for (n, k).

    Parameters
    ----------
    form
        What `standard` made.
    grid
        Gives the present `vegas.AdaptiveMap`, if the function is to get its Jacobian.
    name
        For messages.

    Examples
    --------
    >>> Points(standard(lambda x: x[0] ** 2, np.ones(1)), name="square")(np.array([[3.0]])).tolist()
    [[9.0]]
    """

    def __init__(
        self, form: vegas.VegasIntegrand, grid: Callable[[], vegas.AdaptiveMap] | None = None, name: str = "function"
    ) -> None:
        self.evaluate, self.grid, self.name = form.eval, grid, name

    def __call__(self, x: Array) -> Array:
        jac = None
        if self.grid is not None:
            grid, y, volume = self.grid(), np.empty_like(x), np.empty(len(x))
            grid.invmap(x, y, volume)
            jac = np.asarray(grid.jac1d(y))
        return np.asarray(self.evaluate(x, jac=jac), dtype=float)
