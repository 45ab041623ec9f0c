"""Figures of point clouds: single clouds, and the distributions of their points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from nisampler.calo.data.points import ENERGY, LAYER, PointShowers, X, Y
from nisampler.calo.detector.geometry import Floats
from nisampler.calo.evaluation.points import PointFeatures
from nisampler.ui.plots import PLAIN, Sheet

_BINS = 40
_EDGE = 0.995  # quantile of the places that the axes of single clouds show
_DEPTH = 0.35  # of a layer in the picture, to both sides


def clouds(samples: Mapping[str, PointShowers], style: Sheet = PLAIN) -> Figure:
    """A shower of each sample, of about the same incident energy: seen along the axis, and from the side.

    Parameters
    ----------
    samples
        Point clouds by name, one column for each.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> cloud = PointShowers(np.array([1e3]), np.array([[3, 4, 0, 5], [3, 4, 1, 5]]), np.array([2]))
    >>> len(clouds({"reference": cloud}).axes)
    3
    """
    wanted = float(np.median(next(iter(samples.values())).incident))
    picked = {name: _near(sample, wanted) for name, sample in samples.items()}
    every = np.concatenate([cloud.points for cloud in picked.values()])
    edge = float(np.quantile(np.abs(every[:, (X, Y)]), _EDGE)) or 1.0
    energies, layers = every[:, ENERGY], int(every[:, LAYER].max()) + 1
    norm = LogNorm(float(np.quantile(energies, 0.02)), float(energies.max()) * 1.01)
    with mpl.rc_context(style):
        size = (3.2 * len(picked) + 0.8, 6.0)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(2, len(picked), squeeze=False, sharex="row", sharey="row")
        for (name, cloud), (front, side) in zip(picked.items(), axes.T, strict=True):
            order = np.argsort(cloud.points[:, ENERGY])
            x, y, layer, energy = cloud.points[order].T
            mesh = front.scatter(x, y, s=4, c=energy, norm=norm, cmap="viridis", linewidths=0, rasterized=True)
            spread = np.random.default_rng(1).uniform(-_DEPTH, _DEPTH, len(layer))
            side.scatter(layer + spread, x, s=4, c=energy, norm=norm, cmap="viridis", linewidths=0, rasterized=True)
            front.set_title(f"{name}\n{label_of(cloud)}", fontsize="small")
            front.set(xlabel="x [mm]", xlim=(-edge, edge), ylim=(-edge, edge))
            side.set(xlabel="layer", ylim=(-edge, edge), xlim=(-0.5, layers - 0.5))
            side.xaxis.set_major_locator(MaxNLocator(integer=True))
            front.set_aspect("equal")
        axes[0][0].set_ylabel("y [mm]")
        axes[1][0].set_ylabel("x [mm]")
        bar = figure.colorbar(mesh, ax=axes, label="energy of a point [MeV]", shrink=0.8)
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


def _near(sample: PointShowers, energy: float) -> PointShowers:
    """The shower whose incident energy is closest."""
    row = int(np.argmin(np.abs(np.log(sample.incident / energy))))
    return sample[row : row + 1]


def label_of(cloud: PointShowers) -> str:
    """Incident energy and number of points of one cloud.

    >>> label_of(PointShowers(np.array([2e3]), np.array([[3, 4, 0, 5]]), np.array([1])))
    '2 GeV, 1 points'
    """
    return f"{cloud.incident[0] / 1e3:.3g} GeV, {len(cloud.points)} points"


def distributions(reference: PointFeatures, samples: Mapping[str, PointFeatures], style: Sheet = PLAIN) -> Figure:
    """Number of points, points of the layers, radial profile of the energy, and energies of points.

    Parameters
    ----------
    reference, samples
        What is known of the clouds.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> cloud = PointShowers(np.array([1e3]), np.array([[3, 4, 0, 5], [3, 4, 1, 5]]), np.array([2]))
    >>> found = PointFeatures.of(cloud, geometry("toy"))
    >>> len(distributions(found, {"model": found}).axes)
    4
    """
    known = {"reference": reference, **samples}
    count = np.concatenate([found.numbers.sum(axis=1) for found in known.values()])
    radius = float(np.quantile(reference.radii, _EDGE)) or 1.0
    low, high = (float(np.quantile(reference.weights, q)) for q in (0.001, 0.999))
    with mpl.rc_context(style):
        figure = Figure(figsize=(8.4, 6.0), layout="constrained")
        (number, layers), (radial, spectrum) = figure.subplots(2, 2)
        for index, (name, found) in enumerate(known.items()):
            colour, width = ("0.3", 1.6) if index == 0 else (f"C{index - 1}", 1.1)
            look: dict[str, Any] = {"color": colour, "lw": width, "label": name}
            total = found.numbers.sum(axis=1)
            _steps(number, np.linspace(0, count.max() + 1, _BINS), total, np.ones(len(total)) / len(total), look)
            layers.plot(np.arange(found.numbers.shape[1]), found.numbers.mean(axis=0), marker=".", **look)
            part = found.weights / found.weights.sum()
            _steps(radial, np.linspace(0, radius, _BINS), found.radii, part, look)
            each = np.ones(len(part)) / len(part)
            _steps(spectrum, np.geomspace(low, high * 1.01, _BINS), found.weights, each, look)
        number.set(xlabel="points of a shower", ylabel="share of showers")
        layers.set(xlabel="layer", ylabel="points of a layer")
        radial.set(xlabel="distance from the axis [mm]", ylabel="share of the energy", yscale="log")
        spectrum.set(xlabel="energy of a point [MeV]", ylabel="share of the points", xscale="log")
        number.legend(frameon=False)
    return figure


def _steps(axis: Axes, edges: Floats, values: Floats, weights: Floats, look: Mapping[str, Any]) -> None:
    heights, _ = np.histogram(values, edges, weights=weights)
    axis.stairs(heights, edges, **look)
