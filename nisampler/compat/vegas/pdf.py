"""Expectation values over densities of parameters, as `vegas.PDFIntegrator` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gvar
import numpy as np
import torch
import vegas
from numpy.typing import NDArray
from scipy.special import ndtr

from nisampler.compat.vegas.integrator import Integrator
from nisampler.compat.vegas.regions import grid_map
from nisampler.compat.vegas.results import expectation
from nisampler.errors import ConfigError, UnsupportedError, ZeroIntegrandError

Array = NDArray[np.float64]
# The grid to start from: its cells, and the share of its points that does not follow the normal density.
_CELLS, _EVEN = 100, 0.1


class PDFIntegrator(Integrator):
    """Expectation values of functions f(p) with respect to a density of the parameters p.

    The density is the Gaussian of `param`, or a function of p, which need not be normalised. The integrals run over
    theta with chi = scale * tan(theta), where chi are independent normal parameters of the Gaussian; the grid starts as
    its density.

    Parameters
    ----------
    param
        A `gvar.GVar`, an array or a dictionary of them, or a `gvar.PDF`.
    pdf
        Density in place of the Gaussian: a function of points of the form of `param`, batched or not.
    adapt_to_pdf
        Adapt to the density, otherwise to the function times the density.
    limit
        The parameters are integrated over so many standard deviations to each side.
    scale
        Where the points are densest, in standard deviations.
    svdcut
        Smallest eigenvalue of the correlations over the largest one; see `gvar.PDF`.
    options
        Those of `Integrator`.

    Raises
    ------
    ConfigError, UnsupportedError
        As the integrator does.

    Examples
    --------
    >>> _ = gvar.ranseed(1)
    >>> expval = PDFIntegrator(gvar.gvar(["1(1)", "10(2)"]))
    >>> product = expval(lambda p: p[0] * p[1], neval=2000, nitn=5)
    >>> abs(product.mean - 10) < 5 * product.sdev < 1
    True
    """

    param_pdf: Any
    param_sample: Any
    pdf: Any
    adapt_to_pdf: bool
    limit: float
    scale: float
    # Both need no more of an integrator than what is here: samples, and expectation values of powers of f.
    stats = vegas.PDFIntegrator.stats
    sample = vegas.PDFIntegrator.sample

    def __init__(
        self,
        param: Any,
        pdf: Any = None,
        adapt_to_pdf: bool = True,
        limit: float = 100.0,
        scale: float = 1.0,
        svdcut: float | None = 1e-15,
        **options: Any,
    ) -> None:
        if isinstance(param, PDFIntegrator):
            self.param_pdf, self.param_sample, self.pdf = param.param_pdf, param.param_sample, param.pdf
            self.adapt_to_pdf, self.limit, self.scale = param.adapt_to_pdf, param.limit, param.scale
            super().__init__(param, **options)
            return
        if param is None:
            raise ConfigError("param = None: give gvars, whose Gaussian tells where the density is")
        options.pop("uses_jac", None)
        self.param_pdf = param if isinstance(param, gvar.PDF) else gvar.PDF(param, svdcut=svdcut)
        self.param_sample, self.adapt_to_pdf = self.param_pdf.sample(mode=None), adapt_to_pdf
        self.limit, self.scale = abs(limit), abs(scale)
        super().__init__(_start(self.param_pdf.size, self.limit, self.scale), **options)
        self.pdf = None if pdf is None else self._make_std_integrand(pdf, self.param_sample)

    def set(self, ka: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Change options, also `pdf` and `adapt_to_pdf`; gives the old values of those that changed.

        Raises
        ------
        ConfigError, UnsupportedError
            As the integrator does; `param` stays what it is.
        """
        wanted, old = {**options, **(ka or {})}, {}
        if "param" in wanted or "map" in wanted:
            raise ConfigError("param and map of a PDFIntegrator cannot be changed: make another one")
        wanted.pop("uses_jac", None)
        if "pdf" in wanted:
            old["pdf"], pdf = self.pdf, wanted.pop("pdf")
            self.pdf = None if pdf is None else self._make_std_integrand(pdf, self.param_sample)
        if "adapt_to_pdf" in wanted:
            old["adapt_to_pdf"], self.adapt_to_pdf = self.adapt_to_pdf, wanted.pop("adapt_to_pdf")
        return old | super().set(wanted)

    def __call__(  # type: ignore[override]
        self, f: Any = None, save: Any = None, saveall: Any = None, **options: Any
    ) -> Any:
        """The expectation value of a function of the parameters, or without one the integral of the density.

        Parameters
        ----------
        f
            Returns a number, an array or a dictionary of them.
        save
            As for `Integrator`.
        options
            To be changed before.

        Returns
        -------
        vegas.PDFEV, vegas.PDFEVArray or vegas.PDFEVDict
            With `pdfnorm`, the integral of the density, and `results`, all integrals; without f these alone.

        Raises
        ------
        ZeroIntegrandError
            If the density is zero at all points.
        UnsupportedError
            With `saveall`: the density is code.
        """
        if saveall is not None:
            raise UnsupportedError("saveall would store the density, which is code: use save, and make it again")
        self.set(options)
        function = None if f is None else self._make_std_integrand(f, self.param_sample)
        return super().__call__(_Weighted(self, function), save)

    def _finished(self, result: Any) -> Any:
        if gvar.mean(result["pdf"]) == 0.0:
            raise ZeroIntegrandError("the integral of the density vanishes: give more evaluations by neval")
        if len(result) > 1:
            return expectation(result)
        result.pdfnorm = result["pdf"]
        return result


class _Weighted:
    """The density at points theta, and the function times it, in batches."""

    fcntype = "lbatch"

    def __init__(self, integrator: PDFIntegrator, function: Any) -> None:
        self.gaussian, self.scale, self.pdf = integrator.param_pdf, integrator.scale, integrator.pdf
        self.function, self.first = function, integrator.adapt_to_pdf

    def __call__(self, theta: Array) -> dict[Any, Array]:
        tangent = np.tan(theta)
        chi = self.scale * tangent
        p = self.gaussian.pflat(chi, mode="lbatch")
        density = np.prod(self.scale * (1.0 + tangent**2), axis=1)
        if self.pdf is None:
            density *= np.exp(-0.5 * (chi**2).sum(1)) / (2.0 * np.pi) ** (0.5 * chi.shape[1])
        else:
            density *= self.gaussian.dp_dchiv * np.prod(self.pdf.eval(p, jac=None), axis=1)
        if self.function is None:
            return {"pdf": density}
        values = self.function.eval(p, jac=None)
        values = self.function.format_evalx(np.asarray(values) * density[:, None])
        named = {("f(p)*pdf", k): values[k] for k in values} if hasattr(values, "keys") else {"f(p)*pdf": values}
        return {"pdf": density, **named} if self.first else {**named, "pdf": density}


def _start(dim: int, limit: float, scale: float) -> vegas.AdaptiveMap:
    """A grid of theta for a normal density of scale * tan(theta), with some of its points everywhere."""
    end = np.arctan(limit / scale)
    theta = np.linspace(-end, end, 20_001)
    normal, even = ndtr(scale * np.tan(theta)), (theta + end) / (2.0 * end)
    share = (1.0 - _EVEN) * (normal - normal[0]) / (normal[-1] - normal[0]) + _EVEN * even
    nodes = np.interp(np.linspace(0.0, 1.0, _CELLS + 1), share, even)
    return grid_map(torch.from_numpy(np.tile(nodes, (dim, 1))), np.array([[-end, end]] * dim))
