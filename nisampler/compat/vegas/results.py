"""What a vegas integrator returns, and how it is kept: averages of iterations, as numbers of gvar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gvar
import numpy as np
import vegas

from nisampler.base.checkpoints import save_checkpoint
from nisampler.base.storage import write_sealed
from nisampler.errors import ConfigError, StorageError
from nisampler.samplers.base import State

_FORMAT, _VERSION = "nisampler-vegas-result", 1
_EXPECTATIONS = (vegas.PDFEV, vegas.PDFEVArray, vegas.PDFEVDict)


def empty(standard: vegas.VegasIntegrand, weighted: bool) -> Any:
    """An average without iterations, for what a function in standard form returns.

    >>> standard = vegas.VegasIntegrand(lambda x: [x[0], 1.0], map=None, uses_jac=False, xsample=np.ones(1), mpi=False)
    >>> type(empty(standard, weighted=True)).__name__
    'RAvgArray'
    """
    if standard.shape is None:
        return vegas.RAvgDict(standard.bdict, weighted=weighted)
    return vegas.RAvg(weighted=weighted) if standard.shape == () else vegas.RAvgArray(standard.shape, weighted=weighted)


def expectation(results: Any) -> Any:
    """The ratio of the integrals that a `PDFIntegrator` makes, as vegas has it for a number, an array, a dictionary.

    >>> sums = vegas.RAvgDict(itn_results=[{"pdf": gvar.gvar("2.0(1)"), "f(p)*pdf": gvar.gvar("4.0(1)")}])
    >>> str(expectation(sums))
    '2.00(11)'
    """
    if "f(p)*pdf" not in results:
        return vegas.PDFEVDict(results)
    return vegas.PDFEV(results) if np.ndim(results["f(p)*pdf"]) == 0 else vegas.PDFEVArray(results)


def to_data(result: Any) -> dict[str, Any]:
    """A result as JSON data; `from_data` gives back an equal one.

    Raises
    ------
    ConfigError
        If names of integrals are no strings or numbers.

    Examples
    --------
    >>> result = vegas.RAvg(itn_results=[gvar.gvar("1.00(2)"), gvar.gvar("1.02(2)")], sum_neval=100)
    >>> again = from_data(to_data(result))
    >>> str(again) == str(result), float(again.chi2 - result.chi2), again.sum_neval
    (True, 0.0, 100)
    """
    average = result.results if isinstance(result, _EXPECTATIONS) else result
    found = average.itn_results
    flat = [np.reshape(part.buf if isinstance(part, gvar.BufferDict) else part, -1) for part in found]
    first = found[0]
    keys = [[_plain(key), list(np.shape(first[key]))] for key in first] if isinstance(first, gvar.BufferDict) else None
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "expectation": isinstance(result, _EXPECTATIONS),
        "weighted": bool(average.weighted),
        "evaluations": int(average.sum_neval),
        "keys": keys,
        "shape": None if keys else list(np.shape(first)),
        "mean": [gvar.mean(part).tolist() for part in flat],
        "covariance": [gvar.evalcov(part).tolist() for part in flat],
    }


def _plain(key: Any) -> Any:
    """The name of an integral as JSON has it."""
    if isinstance(key, tuple):
        return [_plain(part) for part in key]
    if not isinstance(key, str | int | float):
        raise ConfigError(f"the result cannot be saved: {key!r}, the name of an integral, is no string or number")
    return key


def _key(plain: Any) -> Any:
    return tuple(_key(part) for part in plain) if isinstance(plain, list) else plain


def from_data(data: Mapping[str, Any]) -> Any:
    """The result that `to_data` wrote.

    Raises
    ------
    StorageError
        If this is something else, or of a later release.

    Examples
    --------
    >>> from_data({"format": "other"})
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: no result of a vegas integrator, but other version None: use the ...
    """
    if (data.get("format"), data.get("version")) != (_FORMAT, _VERSION):
        raise StorageError(
            f"no result of a vegas integrator, but {data.get('format')} version {data.get('version')}: "
            "use the release that wrote it"
        )
    given = zip(data["mean"], data["covariance"], strict=True)
    flat = [gvar.gvar(np.array(mean), np.array(covariance)) for mean, covariance in given]
    options = {"weighted": data["weighted"], "sum_neval": data["evaluations"]}
    if data["keys"] is not None:
        layout = gvar.BufferDict({_key(key): np.zeros(shape) for key, shape in data["keys"]})
        average = vegas.RAvgDict(itn_results=[gvar.BufferDict(layout, buf=part) for part in flat], **options)
        return expectation(average) if data["expectation"] else average
    if not data["shape"]:
        return vegas.RAvg(itn_results=[part[0] for part in flat], **options)
    return vegas.RAvgArray(itn_results=[part.reshape(data["shape"]) for part in flat], **options)


def check(save: Any, saveall: Any) -> None:
    """Refuse places to save that this package does not write to.

    Raises
    ------
    ConfigError
        If one is an open file, or named as a pickle.

    Examples
    --------
    >>> check("result.pkl", None)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: save = result.pkl: nisampler writes no pickles, which run code where they are ...
    """
    for name, place in (("save", save), ("saveall", saveall)):
        if place is None:
            continue
        if not isinstance(place, str | Path) or Path(place).suffix in (".pkl", ".pickle", ".p"):
            raise ConfigError(
                f"{name} = {place}: nisampler writes no pickles, which run code where they are read; give the name of "
                f"a {'JSON file' if name == 'save' else 'folder'}, and read it with nisampler.compat.vegas.load"
            )


def store(result: Any, save: Any, saveall: Any, state: Callable[[], State]) -> None:
    """Write a result to a file, and with the state of its integrator to a folder, where these are given.

    >>> store(None, None, None, dict)
    """
    if save is not None:
        write_sealed(save, to_data(result))
    if saveall is not None:
        tensors, meta = state()
        save_checkpoint(saveall, tensors, {"integrator": meta, "result": to_data(result)})
