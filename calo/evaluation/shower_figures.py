"""Figures of showers cell by cell: averages over a sample and nearest neighbours, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from nisampler.calo.detector.geometry import Geometry, Layer
from nisampler.ui.plots import GREY, PLAIN, Sheet

Floats = NDArray[np.float64]

_ENERGY_COLOURS = "magma_r"
_RATIO_COLOURS = "RdBu_r"
_DECADES = 6.0
_SMALLEST_ARC = np.pi / 48
_DPI = 72


def chosen_layers(geometry: Geometry, most: int = 6) -> tuple[int, ...]:
    """Positions of at most so many layers, evenly spaced, the first and the last among them.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> chosen_layers(geometry("ds2"))
    (0, 9, 18, 26, 35, 44)
    """
    count = min(most, geometry.n_layers)
    return tuple(int(place) for place in np.unique(np.linspace(0, geometry.n_layers - 1, count).round()))


def average_showers(
    reference: NDArray[Any], other: NDArray[Any], name: str, geometry: Geometry, style: Sheet = PLAIN
) -> Figure:
    """The average shower of the reference and of a candidate, and their ratio, in some of the layers.

    Parameters
    ----------
    reference, other
        (n_voxels,) mean energies in MeV.
    name
        Of the candidate.
    geometry
        Of both.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> len(average_showers(np.ones(240), np.ones(240), "model", geometry("toy")).axes)
    17
    """
    layers = chosen_layers(geometry)
    with mpl.rc_context(style):
        figure, axes = _grid(["reference", name, "ratio"], layers, geometry)
        norm = _energy_norm(np.concatenate([reference, other]))
        both = (reference > 0) & (other > 0)
        ratio = np.divide(other, reference, out=np.full(len(reference), np.nan), where=both)
        ratios = LogNorm(0.5, 2.0)
        for column, position in enumerate(layers):
            layer, cells = geometry.layers[position], geometry.slice(position)
            mesh = _draw(axes[0][column], layer, reference[cells], norm, _ENERGY_COLOURS)
            _draw(axes[1][column], layer, other[cells], norm, _ENERGY_COLOURS)
            difference = _draw(axes[2][column], layer, ratio[cells], ratios, _RATIO_COLOURS)
        figure.colorbar(mesh, ax=[axis for row in axes[:2] for axis in row], label="mean energy [MeV]", pad=0.02)
        bar = figure.colorbar(difference, ax=list(axes[2]), label="ratio", extend="both", pad=0.02)
        bar.set_ticks([0.5, 0.7, 1.0, 1.4, 2.0], labels=["0.5", "0.7", "1", "1.4", "2"])
        bar.ax.minorticks_off()
    return figure


def pairs(showers: Sequence[tuple[str, NDArray[Any]]], geometry: Geometry, style: Sheet = PLAIN) -> Figure:
    """Single showers, one in a row, in some of the layers.

    Parameters
    ----------
    showers
        Label and (n_voxels,) energies in MeV of each; cells below the threshold are left empty.
    geometry
        Their cells.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> len(pairs([("a shower", np.ones(240))], geometry("toy")).axes)
    6
    """
    layers = chosen_layers(geometry)
    with mpl.rc_context(style):
        figure, axes = _grid([label for label, _ in showers], layers, geometry)
        norm = _energy_norm(np.concatenate([voxels for _, voxels in showers]), geometry.threshold)
        for row, (_, voxels) in zip(axes, showers, strict=True):
            shown = np.where(voxels >= geometry.threshold, voxels, 0.0)
            for axis, position in zip(row, layers, strict=True):
                mesh = _draw(axis, geometry.layers[position], shown[geometry.slice(position)], norm, _ENERGY_COLOURS)
        bars = [axis for row in axes for axis in row]
        figure.colorbar(mesh, ax=bars, label="energy [MeV]", pad=0.02, aspect=35)
    return figure


def _grid(rows: Sequence[str], layers: Sequence[int], geometry: Geometry) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(2.0 * len(layers) + 2.2, 2.0 * len(rows) + 0.6), layout="constrained", dpi=_DPI)
    axes: list[list[Axes]] = [list(row) for row in figure.subplots(len(rows), len(layers), squeeze=False)]
    for row, label in zip(axes, rows, strict=True):
        row[0].set_ylabel(label, fontsize=13)
    for axis, position in zip(axes[0], layers, strict=True):
        layer = geometry.layers[position]
        x, y = (max(edges) - min(edges) for edges in (layer.first, layer.second))
        reach = f"r < {layer.second[-1]:g} mm" if layer.kind == "polar" else f"{x:.4g} × {y:.4g} mm"
        axis.set_title(f"layer {layer.id}\n", fontsize=13, loc="center")
        axis.annotate(reach, (0.5, 1.03), xycoords="axes fraction", ha="center", fontsize=11, color=GREY)
    return figure, axes


def _energy_norm(values: NDArray[Any], threshold: float = 0.0) -> Normalize:
    """Logarithmic, over at most six decades below the largest value."""
    top = float(values.max(initial=0.0)) or 1.0
    positive = values[values > threshold]
    bottom = float(positive.min()) if positive.size else 0.1 * top
    return LogNorm(max(bottom, top * 10.0**-_DECADES, threshold), top * 1.001)


def _draw(axis: Axes, layer: Layer, cells: NDArray[Any], norm: Normalize, colours: str) -> Any:
    """The cells of one layer; white where they are not positive. Unequal rings are drawn equally wide."""
    values = np.ma.masked_invalid(cells.reshape(layer.shape))
    values = np.ma.masked_less_equal(values, 0.0)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(layer.kind != "polar")
    if layer.kind == "cells":
        return _draw_squares(axis, layer, values.ravel(), norm, colours)
    if layer.kind == "rectangular":
        x, y = np.meshgrid(np.asarray(layer.first), np.asarray(layer.second), indexing="ij")
    else:
        widths = np.diff(layer.second)
        equal = np.allclose(widths, widths[0])
        rings = np.asarray(layer.second) if equal else np.arange(len(layer.second), dtype=np.float64)
        parts = max(1, int(np.ceil(2 * np.pi / layer.shape[0] / _SMALLEST_ARC)))
        # arcs need corners between the edges of the angular bins
        first = np.asarray(layer.first)
        alpha = np.append((first[:-1, None] + np.diff(first)[:, None] * np.arange(parts) / parts).ravel(), first[-1])
        values = np.ma.repeat(values, parts, axis=0)
        x, y = np.outer(np.cos(alpha), rings), np.outer(np.sin(alpha), rings)
        axis.add_patch(Circle((0.0, 0.0), rings[-1], fill=False, color=GREY, linewidth=0.6))
    return axis.pcolormesh(x, y, values, norm=norm, cmap=colours, rasterized=True)


def _draw_squares(axis: Axes, layer: Layer, values: NDArray[Any], norm: Normalize, colours: str) -> Any:
    """Listed cells as squares of their widths."""
    corners = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.asarray(layer.widths)[:, None, None]
    squares = np.stack(layer.centres(), axis=1)[:, None] + corners
    drawn = PolyCollection(list(squares), array=values, norm=norm, cmap=colours, rasterized=True)
    axis.add_collection(drawn)
    axis.set_xlim(squares[..., 0].min(), squares[..., 0].max())
    axis.set_ylim(squares[..., 1].min(), squares[..., 1].max())
    return drawn
