"""Figures of samples of jets: spectra over each other, and the average jet as an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nisampler.calo.jets.jets import TYPES, Floats, Jets
from nisampler.calo.jets.metrics import COUNT, MASS, POLYNOMIALS, PT, Numbers
from nisampler.ui.drawing import Drawing
from nisampler.ui.histograms import Axis, Histogram
from nisampler.ui.overlays import Layer, overlay
from nisampler.ui.panels import WIDTH
from nisampler.ui.plots import PLAIN, Sheet

_BINS = 40
_CELLS = 32
_REACH = 0.6
_EDGES = (0.002, 0.998)
_DARK = 3.5  # decades of an image


def spectra(samples: Mapping[str, Numbers], style: Sheet | None = None) -> Iterator[tuple[str, str, Drawing]]:
    """Name, caption and figure of each number that is compared; the first sample is the reference.

    Parameters
    ----------
    samples
        By name, at most seven.
    style
        From `nisampler.ui.plots.style_sheet`; None draws without matplotlib, in a quarter of the bytes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> points, whole, one = rng.random((9, 3, 3)), np.ones((9, 3), dtype=bool), np.ones(9)
    >>> jets = Jets(points, whole, 0 * one, 500 * one, one, one)
    >>> [name for name, _, _ in spectra({"reference": Numbers.of(jets), "model": Numbers.of(jets)})][:3]
    ['mass', 'pt', 'constituents']
    """
    first = next(iter(samples.values()))
    known = {"mass": (MASS, "$m$ [GeV]"), "pt": (PT, "$p_T$ [GeV]"), "constituents": (COUNT, "constituents")}
    for name, (key, label) in known.items():
        values = {sample: numbers.single[key] for sample, numbers in samples.items()}
        yield name, f"{key.split(' [')[0]} of the constituents together, all types.", _drawn(name, label, values, style)
    for number in np.unique(first.jets.types):
        values = {name: numbers.single[MASS][numbers.jets.types == number] for name, numbers in samples.items()}
        if all(len(part) for part in values.values()):
            kind = TYPES[int(number)]
            yield f"mass_{kind}", f"Mass of jets of type {kind}.", _drawn("mass", "$m$ [GeV]", values, style)
    values = {name: numbers.polynomials[:, 0] for name, numbers in samples.items()}
    label = r"energy-flow polynomial, square, $\times 10^4$"
    yield POLYNOMIALS, "The polynomial of the square.", _drawn(POLYNOMIALS, label, values, style, log=True)
    for index, (name, label) in enumerate((("etarel", r"$\eta_{rel}$"), ("phirel", r"$\phi_{rel}$"))):
        points = {key: _of_constituents(numbers.jets, index) for key, numbers in samples.items()}
        yield name, "Of all constituents.", _drawn(name, label, points, style)
    points = {key: _of_constituents(numbers.jets, 2) for key, numbers in samples.items()}
    yield "ptrel", "Of all constituents.", _drawn("ptrel", r"$p_{T,rel}$", points, style, log=True)


def _of_constituents(jets: Jets, index: int) -> Floats:
    return jets.constituents[jets.mask][:, index].astype(np.float64)


def _drawn(name: str, label: str, values: Mapping[str, Floats], style: Sheet | None, log: bool = False) -> Drawing:
    """Densities of all samples in bins that hold nearly all of the first."""
    first = next(iter(values.values()))
    low, high = np.quantile(first, _EDGES)
    whole = bool(np.all(first == first.round()))
    if whole:
        low, high = first.min() - 0.5, first.max() + 0.5
        edges = np.linspace(low, high, min(_BINS, int(high - low)) + 1)
    elif log:
        edges = np.geomspace(max(low, 1e-6 * high, 1e-12), max(high, 1e-11), _BINS + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    axis = Axis(name, label, edges, log)
    layers = []
    for sample, found in values.items():
        histogram = Histogram(axis)
        histogram.fill(found)
        density, error = histogram.density()
        layers.append(Layer(sample, density, error))
    return overlay(axis, layers, "", style)


def images(samples: Mapping[str, Jets], style: Sheet = PLAIN) -> Figure:
    """The mean share of the pT in cells of pseudorapidity and azimuth: a row for each type, a column for each sample.

    >>> rng = np.random.default_rng(0)
    >>> points, whole, one = rng.random((9, 3, 3)), np.ones((9, 3), dtype=bool), np.ones(9)
    >>> jets = Jets(points, whole, 0 * one, 500 * one, one, one)
    >>> len(images({"reference": jets, "model": jets}).axes)
    3
    """
    kinds = np.unique(next(iter(samples.values())).types)
    edges = np.linspace(-_REACH, _REACH, _CELLS + 1)
    with mpl.rc_context({**style, "axes.grid": False}):
        height = 0.6 + (WIDTH / len(samples)) * len(kinds) * 0.8
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(len(kinds), len(samples), squeeze=False, sharex=True, sharey=True)
        found = {
            (kind, name): _image(jets[jets.types == kind], edges) for kind in kinds for name, jets in samples.items()
        }
        top = max(float(image.max()) for image in found.values()) or 1.0
        norm = LogNorm(top * 10.0**-_DARK, top, clip=True)
        for row, kind in enumerate(kinds):
            for column, name in enumerate(samples):
                axis = grid[row][column]
                mesh = axis.pcolormesh(edges, edges, found[kind, name].T, norm=norm, cmap="magma_r", rasterized=True)
                axis.set_aspect("equal")
                axis.set_title(f"{name}, {TYPES[int(kind)]}", fontsize=12)
                if row == len(kinds) - 1:
                    axis.set_xlabel(r"$\eta_{rel}$")
                if column == 0:
                    axis.set_ylabel(r"$\phi_{rel}$")
        figure.colorbar(mesh, ax=grid.ravel().tolist(), label="mean share of the $p_T$", shrink=0.8)
    return figure


def _image(jets: Jets, edges: Floats) -> Floats:
    """Mean ptrel (cells, cells) of some jets."""
    points = jets.constituents[jets.mask].astype(np.float64)
    sums, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges), weights=points[:, 2])
    shares: Floats = sums / max(len(jets), 1)
    return shares
