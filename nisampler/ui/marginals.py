"""Distributions of one and of two coordinates of weighted points, beside those of the points as they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from nisampler.errors import ConfigError
from nisampler.ui.distributions import MAX_COORDINATES
from nisampler.ui.drawing import Drawing
from nisampler.ui.histograms import Axis, Floats, Histogram
from nisampler.ui.panels import WIDTH, panels
from nisampler.ui.plots import BLUE, INK, ORANGE, PLAIN, Sheet

_FEWEST_BINS, _MOST_BINS = 8, 40
# Of points without a box: the range that all but this share of them on either side lies in.
_OUTSIDE = 1e-3
# Inches of a panel among others, and of the room beside and above all of them.
_PANEL, _BESIDE, _BELOW, _ABOVE, _MARGIN = 2.0, 1.15, 0.8, 0.5, 0.2
_SMALL = 12
# Numbers from here on are written as 2.5k.
_LONG = 1e3


def marginal_axes(
    x: Floats, box: Floats | None = None, coordinates: Sequence[int] | None = None, labels: Sequence[str] | None = None
) -> dict[int, Axis]:
    """The bins of the coordinates to be drawn, by their numbers.

    Parameters
    ----------
    x
        Points (n, k).
    box
        Low and high end (k, 2) of each coordinate; without it the range that nearly all points lie in.
    coordinates
        Which ones, from 0; by default the first six that differ from point to point.
    labels
        Of these, in mathtext.

    Raises
    ------
    ConfigError
        If a coordinate is not there or the same for all points, or if there is not one label for each.

    Examples
    --------
    >>> x = np.array([[0.1, 7.0, 3.0], [0.4, 7.0, 5.0], [0.2, 7.0, 4.0]])
    >>> {number: axis.label for number, axis in marginal_axes(x).items()}
    {0: '$x_{1}$', 2: '$x_{3}$'}
    """
    ends = np.quantile(x, [_OUTSIDE, 1.0 - _OUTSIDE], axis=0).T if box is None else np.asarray(box, dtype=np.float64)
    varied = [k for k in range(x.shape[1]) if ends[k, 1] - ends[k, 0] > 1e-9 * np.abs(ends[k]).max()]
    chosen = varied[:MAX_COORDINATES] if coordinates is None else list(coordinates)
    unknown = sorted(set(chosen) - set(varied))
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"coordinates = {chosen}: choose different ones among {varied}, which differ between points")
    names = [f"$x_{{{k + 1}}}$" for k in chosen] if labels is None else list(labels)
    if len(names) != len(chosen):
        raise ConfigError(f"{len(names)} labels for {len(chosen)} coordinates: give one for each")
    bins = int(np.clip(np.sqrt(len(x)) / 3.0, _FEWEST_BINS, _MOST_BINS))
    edges = {k: np.linspace(ends[k, 0], ends[k, 1], bins + 1) for k in chosen}
    return {k: Axis(f"x{k + 1}", name, edges[k]) for k, name in zip(chosen, names, strict=True)}


def marginals(x: Floats, weights: Floats, axes: Sequence[Axis], style: Sheet = PLAIN) -> Drawing:
    """Densities of one and of two coordinates: of points with weights |f|/q, and of the points as q draws them.

    Single coordinates stand on the diagonal, pairs with weights below it, and pairs without above it: where q has
    learned |f| the two halves mirror each other.

    Parameters
    ----------
    x
        Points (n, k), a column for each axis.
    weights
        f/q (n,); of a function with both signs |f| is drawn.
    axes
        k of them, such as `marginal_axes` gives.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((1000, 2))
    >>> figure = marginals(x, 2.0 * x[:, 0], list(marginal_axes(x).values()))
    >>> [axis.get_xlabel() for axis in figure.axes]
    ['', '', '$x_{1}$', '$x_{2}$']
    """
    name = "|f|" if bool((weights < 0.0).any()) else "f"
    names = [f"function {name}: weighted points", "sampler q: points as drawn"]
    size = np.abs(weights)
    with mpl.rc_context(style):
        if len(axes) == 1:
            figure, (panel,) = panels((1.0,), 5.2)
            _single(panel, axes[0], x[:, 0], size)
            panel.set_ylabel("density")
            panel.set_xlabel(axes[0].label)
            _legend(figure, names, panel.get_position().x0, 1.0 - 0.05 / 5.2)
        else:
            figure, grid = square_grid(len(axes))
            for i, row in enumerate(grid):
                for j, panel in enumerate(row):
                    if i == j:
                        _single(panel, axes[i], x[:, i], size)
                    else:
                        _pair(panel, (axes[j], axes[i]), x[:, [j, i]], size if i > j else None)
                    label_panel(panel, axes, i, j)
            _legend(figure, names, grid[0][0].get_position().x0, 1.0 - 0.1 / figure.get_figheight())
    return figure


def square_grid(k: int, above: float = _ABOVE) -> tuple[Drawing, list[list[Axes]]]:
    """k × k square panels, and so many inches above them.

    >>> len(square_grid(3)[1])
    3
    """
    side = max(WIDTH - _BESIDE - _MARGIN, _PANEL * k)
    width, height = side + _BESIDE + _MARGIN, side + _BELOW + above
    figure = Drawing(figsize=(width, height))
    place: Any = {
        "left": _BESIDE / width,
        "right": 1.0 - _MARGIN / width,
        "bottom": _BELOW / height,
        "top": 1.0 - above / height,
        "hspace": 0.08,
        "wspace": 0.08,
    }
    found = figure.subplots(k, k, sharex="col", squeeze=False, gridspec_kw=place)
    return figure, [list(row) for row in found]


def _single(panel: Axes, axis: Axis, x: Floats, size: Floats) -> None:
    """Densities of one coordinate, each of unit area."""
    for weights, colour in ((size, BLUE), (None, ORANGE)):
        histogram = Histogram(axis)
        histogram.fill(x, weights)
        norm = histogram.sum_weights / len(x) or 1.0
        density, error = histogram.density(1.0 / norm)
        if weights is not None:
            panel.stairs(density, axis.edges, fill=True, color=colour, alpha=0.25, linewidth=0)
        panel.stairs(density + error, axis.edges, baseline=density - error, fill=True, color=colour, alpha=0.35)
        panel.stairs(density, axis.edges, baseline=None, color=colour, linewidth=1.6)
    panel.set_xlim(axis.edges[0], axis.edges[-1])
    panel.set_ylim(0.0, 1.08 * panel.get_ylim()[1])


def _pair(panel: Axes, axes: tuple[Axis, Axis], x: Floats, size: Floats | None) -> None:
    """Density of two coordinates, in the colour of points with weights or without."""
    edges = [np.linspace(axis.edges[0], axis.edges[-1], 3 * len(axis.centres) // 5 + 1) for axis in axes]
    colours = LinearSegmentedColormap.from_list("density", ["white", ORANGE if size is None else BLUE, INK])
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], edges, weights=size)
    panel.pcolormesh(*edges, counts.T, cmap=colours, vmin=0.0, rasterized=True)
    panel.set_xlim(edges[0][0], edges[0][-1])
    panel.set_ylim(edges[1][0], edges[1][-1])
    panel.grid(False)


def label_panel(panel: Axes, axes: Sequence[Axis], i: int, j: int, single: str = "density") -> None:
    """Numbers and names at the lower and left edge of all panels alone; single coordinates have no scale.

    >>> panel = square_grid(1)[1][0][0]
    >>> label_panel(panel, [Axis("x", "$x$", np.linspace(0.0, 1.0, 3))], 0, 0)
    >>> panel.get_xlabel(), panel.get_ylabel()
    ('$x$', 'density')
    """
    for scale, axis in ((panel.xaxis, axes[j]), (panel.yaxis, axes[i])):
        if axis.log:
            continue
        scale.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10], prune="both"))
        if np.abs(axis.edges).max() >= _LONG:
            scale.set_major_formatter(EngFormatter(sep=""))
    panel.tick_params(labelbottom=i == len(axes) - 1, labelleft=j == 0 and i > 0, left=i != j, labelsize=_SMALL)
    if i == len(axes) - 1:
        panel.set_xlabel(axes[j].label)
    if j == 0:
        panel.set_ylabel(axes[i].label if i else single)
        inches = panel.get_window_extent().width / panel.figure.dpi
        panel.yaxis.set_label_coords(-(_BESIDE - 0.25) / inches, 0.5)


def _legend(figure: Figure, names: Sequence[str], left: float, top: float) -> None:
    keys = [Patch(facecolor=colour, edgecolor=colour, alpha=0.6) for colour in (BLUE, ORANGE)]
    figure.legend(
        keys, names, loc="upper left", bbox_to_anchor=(left, top), ncols=2, borderaxespad=0.0, columnspacing=1.2
    )
