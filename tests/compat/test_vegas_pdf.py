"""Expectation values over Gaussian and other densities, beside those of vegas."""

from __future__ import annotations

from typing import Any

import gvar
import numpy as np
import pytest
import vegas as original

import nisampler.compat.vegas as vegas
from nisampler.errors import ConfigError, ZeroIntegrandError


def parameters() -> Any:
    """Two that depend on each other, and a uniform one."""
    g = gvar.BufferDict()
    g["a"] = gvar.gvar([0.0, 1.0], [[1.0, 0.9], [0.9, 1.0]])
    g["fb(b)"] = gvar.BufferDict.uniform("fb", 0.0, 2.0)
    return g


def product(p: Any) -> Any:
    f = p["a"][0] * p["a"][1] + p["b"]
    return [f, f**2]


# <a0 a1 + b> = 0.9 + 1; <(a0 a1)^2> = 1 * 2 + 2 * .81, 2 <a0 a1> <b> = 1.8, <b^2> = 4/3
EXACT = [1.9, 2 + 2 * 0.81 + 1.8 + 4 / 3]


@pytest.mark.parametrize("adapt_to_pdf", [True, False])
def test_expectation_values_are_those_of_vegas(adapt_to_pdf: bool) -> None:
    results = []
    for module in (vegas, original):
        gvar.ranseed(3)
        results.append(module.PDFIntegrator(parameters(), adapt_to_pdf=adapt_to_pdf)(product, neval=4000, nitn=8))
    ours, theirs = results
    assert type(ours) is type(theirs) is original.PDFEVArray
    for own, other, exact in zip(ours, theirs, EXACT, strict=True):
        assert abs(own.mean - exact) < 4 * own.sdev < 0.2 and own.sdev < 2 * other.sdev
        assert abs(own.mean - 1.2 * exact) > 6 * own.sdev  # negative control
    norm = ours.pdfnorm
    assert abs(norm.mean - 1) < 4 * norm.sdev and ours.nitn == 8 and "itn" in ours.summary()


def test_numbers_dictionaries_and_the_norm_alone() -> None:
    expval = vegas.PDFIntegrator(gvar.gvar("2.0(5)"), neval=1000, nitn=4)
    square = expval(lambda p: p**2)
    assert isinstance(square, original.PDFEV) and abs(square.mean - 4.25) < 4 * square.sdev < 0.2
    several = expval(vegas.rbatchintegrand(lambda p: {"p": p, "two": np.array([p, 2 * p])}))
    assert isinstance(several, original.PDFEVDict) and several["two"].shape == (2,)
    assert abs(several["p"].mean - 2) < 4 * several["p"].sdev
    norm = expval()
    assert norm.pdfnorm is norm["pdf"] and abs(norm["pdf"].mean - 1) < 4 * norm["pdf"].sdev


def bimodal(p: Any) -> Any:
    """Two peaks, the first twice as high as the second."""
    return sum(h * np.exp(-np.sum((p - m) ** 2, axis=0) / 0.02) for h, m in ((1.0, 0.3), (0.5, 0.6)))


@pytest.mark.parametrize("options", [{}, {"sampler": "flow", "beta": 0.0}], ids=["grid", "flow"])
def test_other_densities(options: Any) -> None:
    gvar.ranseed(1)
    density = vegas.rbatchintegrand(bimodal)
    expval = vegas.PDFIntegrator(gvar.gvar([0.5, 0.5], [[0.25, 0.2], [0.2, 0.25]]), pdf=density, **options)
    expval(neval=4000, nitn=8)
    mean = expval(vegas.rbatchintegrand(lambda p: p), neval=4000, nitn=4, adapt=False)
    assert all(abs(m.mean - 0.4) < 4 * m.sdev < 0.05 for m in mean)
    assert abs(mean.pdfnorm.mean - 1.5 * 2 * np.pi * 0.01) < 4 * mean.pdfnorm.sdev
    wgts, p = expval.sample(8000)
    assert wgts.sum() == pytest.approx(1.0) and (wgts * p[0]).sum() == pytest.approx(0.4, abs=0.02)
    spread = expval.stats()
    assert spread[0].sdev == pytest.approx(np.sqrt(0.02 + 0.01), rel=0.05)
    assert abs(spread.vegas_mean[0].mean - 0.4) < 4 * spread.vegas_mean[0].sdev


def test_statistics_have_moments_and_histograms() -> None:
    gvar.ranseed(1)
    expval = vegas.PDFIntegrator(gvar.gvar("1.0(5)"), neval=2000, nitn=4)
    expval()
    found = expval.stats(vegas.rbatchintegrand(lambda p: p**2), moments=True, histograms=True)
    assert found.mean == pytest.approx(1.25, abs=0.05) and found.sdev == pytest.approx(np.sqrt(1.125), rel=0.1)
    skew = found.stats.skew
    assert abs(skew.mean - 1.362) < 4 * skew.sdev < 1 and expval.adapt


def test_options_and_copies() -> None:
    expval = vegas.PDFIntegrator(parameters(), neval=2000)
    old = expval.set(adapt_to_pdf=False, pdf=lambda p: 1.0, nitn=2)
    assert old["nitn"] == 10 and old["pdf"] is None and expval.pdf is not None and not expval.adapt_to_pdf
    expval.set(old)
    copy = vegas.PDFIntegrator(expval, nitn=3)
    assert copy.nitn == 3 and copy(product).nitn == 3 and copy.pdf is None
    for wrong in ({"param": parameters()}, {"map": [[0, 1]]}):
        with pytest.raises(ConfigError, match="make another one"):
            expval.set(**wrong)
    with pytest.raises(ConfigError, match="give gvars"):
        vegas.PDFIntegrator(None)
    with pytest.raises(ZeroIntegrandError, match="density vanishes"):
        expval(pdf=lambda p: 0.0)
