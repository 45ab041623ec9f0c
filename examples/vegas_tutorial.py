"""The kinds of examples that the tutorial of vegas has, with one changed import.

    python examples/vegas_tutorial.py              # by nisampler
    python examples/vegas_tutorial.py --original   # by vegas itself

Each example takes the module that stands for `vegas` and returns its numbers by name, as gvars, and its result.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import gvar as gv
import numpy as np

import nisampler.compat.vegas

BOX = [[-1, 1], [0, 1], [0, 1], [0, 1]]
NORM = 1013.2118364296088  # makes the integral of the peak one


def scalar(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """A peak in four dimensions, one point at a time: adapt, then estimate."""

    def f(x: Any) -> float:
        return math.exp(-100 * sum((coordinate - 0.5) ** 2 for coordinate in x)) * NORM

    integ = vegas.Integrator(BOX)
    integ(f, nitn=10, neval=1000)
    result = integ(f, nitn=10, neval=1000)
    return {"integral": result}, result


def batch(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """The same, many points at once, which is what makes it quick."""

    @vegas.lbatchintegrand
    def f(x: Any) -> Any:
        return np.exp(-100 * ((x - 0.5) ** 2).sum(1)) * NORM

    integ = vegas.Integrator(BOX)
    integ(f, nitn=10, neval=20_000)
    result = integ(f, nitn=10, neval=20_000, adapt=False)
    return {"integral": result}, result


def correlated(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """Norm, mean and width of an axis: the integrals share their points, so that errors cancel in the ratios."""

    @vegas.rbatchintegrand
    def f(x: Any) -> dict[str, Any]:
        peak = np.exp(-100 * ((x - 0.5) ** 2).sum(0)) * NORM
        return {"norm": peak, "moments": [x[0] * peak, x[0] ** 2 * peak]}

    integ = vegas.Integrator(BOX)
    integ(f, nitn=10, neval=10_000)
    result = integ(f, nitn=10, neval=10_000)
    mean, square = result["moments"] / result["norm"]
    return {"norm": result["norm"], "mean": mean, "width^2": square - mean**2}, result


def distribution(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """A histogram of the radius as integrals of their own."""

    @vegas.rbatchintegrand
    def f(x: Any) -> dict[str, Any]:
        peak = np.exp(-100 * ((x - 0.5) ** 2).sum(0)) * NORM
        place = np.digitize(np.sqrt(((x - 0.5) ** 2).sum(0)), [0.1, 0.2])
        return {"all": peak, "bins": [peak * (place == number) for number in range(3)]}

    integ = vegas.Integrator(BOX)
    integ(f, nitn=10, neval=10_000)
    result = integ(f, nitn=10, neval=10_000)
    shares = result["bins"] / result["all"]
    return {f"bin {number}": share for number, share in enumerate(shares)}, result


def expectation(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """Expectation values over a correlated Gaussian of two parameters."""
    parameters = gv.gvar([0.5, 2.0], [[0.04, 0.03], [0.03, 0.09]])

    @vegas.rbatchintegrand
    def f(p: Any) -> Any:
        return [p[0] * p[1], p[0] ** 2 * p[1] ** 2]

    expval = vegas.PDFIntegrator(parameters)
    expval(f, neval=4000, nitn=10)
    result = expval(f, neval=4000, nitn=10, adapt=False)
    return {"product": result[0], "width": np.sqrt(result[1] - result[0] ** 2)}, result


def points(vegas: ModuleType) -> tuple[dict[str, Any], Any]:
    """An integral of one's own from the points and weights of an adapted integrator."""

    def f(x: Any) -> Any:
        return np.exp(-100 * ((x - 0.5) ** 2).sum(-1)) * NORM

    integ = vegas.Integrator(BOX)
    integ(vegas.lbatchintegrand(f), nitn=10, neval=10_000)
    found = [sum(float((weights * f(x)).sum()) for x, weights in integ.random_batch()) for _ in range(20)]
    return {"integral": gv.gvar(np.mean(found), np.std(found, ddof=1) / math.sqrt(len(found)))}, None


EXAMPLES = {
    "scalar": scalar,
    "batch": batch,
    "correlated": correlated,
    "distribution": distribution,
    "expectation": expectation,
    "points": points,
}


def main() -> None:
    module: ModuleType = nisampler.compat.vegas
    if "--original" in sys.argv[1:]:
        import vegas

        module = vegas
    gv.ranseed(1)
    for name, example in EXAMPLES.items():
        values, result = example(module)
        print(f"{name}: " + ", ".join(f"{what} {value}" for what, value in values.items()))
        if name == "scalar":
            print(result.summary())


if __name__ == "__main__":
    main()
