"""What a vegas integrator is told: its own options, and those that this one has besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, InstanceOf

from nisampler.base.checks import Count, Fraction, NonNegative, Row, Whole, settings
from nisampler.errors import ConfigError, UnsupportedError
from nisampler.samplers.base import Sampler


def _whole(value: Any) -> Any:
    """Numbers such as 1e4 as whole ones, as vegas takes them."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return int(value) if number and np.isfinite(value) else value


_Calls = Annotated[Whole, BeforeValidator(_whole), Field(ge=2, le=10**12)]
_EXECUTOR = "give executor=concurrent.futures.ProcessPoolExecutor(n), or mpi4py.futures.MPIPoolExecutor()"
# Options of vegas that are not here: the value that is no wish for anything, and what to use instead.
_ELSEWHERE: Mapping[str, tuple[Any, str]] = {
    "nproc": (1, _EXECUTOR),
    "mpi": (False, _EXECUTOR),
    "sync_ran": (True, "with an executor one process draws all points, so that nothing needs to be synchronised"),
    "minimize_mem": (False, "counts of points stay in memory; give nstrat for fewer strata"),
    "max_mem": (1e9, "give min_neval_batch for smaller batches, or nstrat for fewer strata"),
    "gpu_pad": (False, "batches are not padded; nisampler.integrate calls torch functions on a GPU"),
}


@settings
class Options:
    """Options of an `Integrator`, with the names and defaults of vegas.

    Parameters
    ----------
    nitn, neval
        Iterations of a call, and evaluations of the function in each of them (about so many, never many more).
    alpha
        Damping of the grid; 0 keeps it as it is.
    beta, neval_frac
        Damping of the numbers of points of the strata, and the fraction of the points that is moved between them.
    adapt
        Whether grid, strata or flow learn. If not, iterations are averaged without weights.
    nstrat, uniform_nstrat
        Strata of each axis, by default as many as `neval` allows; whether all axes have the same number.
    max_neval_hcube, min_neval_batch
        Most evaluations in a stratum; the function gets batches of about so many points.
    maxinc_axis
        Most cells of an axis of the grid.
    rtol, atol
        Errors at which iterations stop; 0 never. Stopping by an error that is itself estimated shifts the value.
    adapt_to_errors
        Adapt the grid to the variances of the strata, and leave their numbers of points equal.
    correlate_integrals
        Whether several integrals know their correlations.
    uses_jac
        Call the function with the Jacobian dx/dy of each axis of the grid too, `f(x, jac=jac)`.
    analyzer
        Its `begin(itn, integrator)` and `end(itn_result, result)` are called around every iteration.
    ran_array_generator
        Makes uniform numbers in [0, 1) of a shape; by default gvar's generator (`gvar.ranseed`).
    sampler
        Not of vegas: "flow" learns a flow in place of a grid. A sampler, such as that of a `nisampler.Result`, is used
        as it is.
    executor
        Not of vegas: anything with `map`, whose workers share the points, see `nisampler.integrate`.
    device
        Not of vegas: where a flow lives.

    Raises
    ------
    ConfigError
        If a value is out of range.

    Examples
    --------
    >>> Options(neval=1e4).neval
    10000
    """

    nitn: Count = 10
    neval: _Calls = 1000
    alpha: NonNegative = 0.5
    beta: NonNegative = 0.75
    neval_frac: Fraction = 0.75
    adapt: bool = True
    nstrat: Row[Count] | None = None
    uniform_nstrat: bool = False
    max_neval_hcube: Annotated[Count, BeforeValidator(_whole)] = 50_000
    min_neval_batch: Annotated[Count, BeforeValidator(_whole)] = 100_000
    maxinc_axis: Annotated[Count, BeforeValidator(_whole)] = 1000
    rtol: NonNegative = 0.0
    atol: NonNegative = 0.0
    adapt_to_errors: bool = False
    correlate_integrals: bool = True
    uses_jac: bool = False
    analyzer: Any = None
    ran_array_generator: Callable[..., Any] | None = None
    sampler: Literal["vegas", "flow"] | InstanceOf[Sampler] = "vegas"
    executor: Any = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.executor is not None and not callable(getattr(self.executor, "map", None)):
            raise ConfigError(f"executor = {self.executor!r}: must have map, as those of concurrent.futures do")

    def changed(self, values: Mapping[str, Any]) -> Options:
        """The same with other values, as `Integrator.set` takes them.

        Raises
        ------
        UnsupportedError
            If an option of vegas is asked for that is not here; it says what to use instead.
        ConfigError
            If an option is unknown or its value is out of range.
        """
        known = {item.name for item in fields(self)}
        wanted = dict(values)
        for name, (nothing, instead) in _ELSEWHERE.items():
            if wanted.pop(name, nothing) != nothing:
                raise UnsupportedError(f"{name} = {values[name]!r} is an option of vegas, not of nisampler: {instead}")
        for name in wanted.keys() - known:
            raise ConfigError(f"{name} is no option of an integrator; it has {', '.join(sorted(known))}")
        if wanted.get("nstrat") is not None:
            wanted["nstrat"] = tuple(int(n) for n in wanted["nstrat"])
            wanted.setdefault("neval", _least_calls(wanted["nstrat"], self.moved))
        elif "neval" in wanted or "neval_frac" in wanted:
            wanted["nstrat"] = None
        return replace(self, **wanted)

    @property
    def moved(self) -> float:
        """The fraction of the points that is moved between the strata."""
        return 0.0 if self.beta == 0.0 or self.adapt_to_errors else self.neval_frac


def _least_calls(strata: tuple[int, ...], moved: float) -> int:
    """Evaluations that leave two for each stratum."""
    return int(2.0 * np.prod(strata, dtype=float) / (1.0 - moved))
