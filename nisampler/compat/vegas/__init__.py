"""The face of vegas: scripts run with one changed import, `import nisampler.compat.vegas as vegas`.

`Integrator` and `PDFIntegrator` are those of this package: the same calls and results, saved without pickles, with
errors that name what was wrong, and with a flow in place of a grid by `Integrator(region, sampler="flow")`. `load`
reads what they saved. Results, decorators and maps are those of vegas (Lepage, 2009.05112) itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import vegas as _vegas
from vegas import (
    PDFEV,
    AdaptiveMap,
    BatchIntegrand,
    LBatchIntegrand,
    PDFEVArray,
    PDFEVDict,
    RAvg,
    RAvgArray,
    RAvgDict,
    RBatchIntegrand,
    VegasIntegrand,
    batchintegrand,
    lbatchintegrand,
    ravg,
    rbatchintegrand,
    reporter,
)

from nisampler.compat.vegas.integrator import Integrator
from nisampler.compat.vegas.loading import load
from nisampler.compat.vegas.pdf import PDFIntegrator
from nisampler.errors import UnsupportedError

__all__ = [
    "PDFEV",
    "AdaptiveMap",
    "BatchIntegrand",
    "Integrator",
    "LBatchIntegrand",
    "PDFEVArray",
    "PDFEVDict",
    "PDFIntegrator",
    "RAvg",
    "RAvgArray",
    "RAvgDict",
    "RBatchIntegrand",
    "VegasIntegrand",
    "batchintegrand",
    "lbatchintegrand",
    "load",
    "ravg",
    "rbatchintegrand",
    "reporter",
]

# Names of vegas that are not here, and what to use instead.
_INSTEAD = {
    "MPIintegrand": "executor=mpi4py.futures.MPIPoolExecutor() shares the points of a function",
    "VecIntegrand": "BatchIntegrand is the same",
    "restratify": "Integrator(region, nstrat=...) takes the strata of each axis",
    "vecintegrand": "batchintegrand is the same",
}


def _refuse(name: str) -> NoReturn:
    """Say what to use in place of what is not here."""
    if name in _INSTEAD or (hasattr(_vegas, name) and not name.startswith("_")):
        advice = _INSTEAD.get(name, f"import it from vegas itself: from vegas import {name}")
        raise UnsupportedError(f"{name} of vegas is not here: {advice}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:
    # A type checker is not to take any name for a public one.
    __getattr__ = _refuse
