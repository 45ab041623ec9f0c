"""Where a sampler loses: mean weights and their spread over single quantities and over pairs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from nisampler.errors import ConfigError
from nisampler.ui.distributions import MAX_COORDINATES
from nisampler.ui.drawing import Drawing
from nisampler.ui.histograms import Axis, Floats, Histogram
from nisampler.ui.marginals import label_panel, square_grid
from nisampler.ui.plots import BLUE, GREY, INK, ORANGE, PLAIN, Sheet

MOST = MAX_COORDINATES
"""Most quantities."""
_FEWEST_BINS, _MOST_BINS, _FEWEST_POINTS = 5, 24, 4
_POINTS_PER_BIN, _OUTSIDE, _DECADES = 60, 1e-3, 50.0
_LEAST_SPAN, _MOST_SPAN = 1.25, 4.0
_ABOVE = 1.25
_SIDES: Colormap = LinearSegmentedColormap.from_list("sides", [BLUE, "white", ORANGE])
_SHARES: Colormap = LinearSegmentedColormap.from_list("shares", ["white", ORANGE, INK])


def losses(quantities: Mapping[str, Floats], weights: Floats, style: Sheet = PLAIN) -> Drawing:
    """Weights |f|/q over quantities and pairs of them.

    Below the diagonal stands the mean weight over that of all points: where it is above one, q draws too few points,
    where it is below one, too many. Above it stands the share of each bin in the spread of the weights, Σ(w − 1)²,
    which is what costs effective points; on it both. Bins with fewer than four points are left white.

    Parameters
    ----------
    quantities
        By name, of all points (n,); NaN where a point has none. Those named u1, u2, ... are coordinates of the cube.
    weights
        |f|/q (n,).
    style
        From `nisampler.ui.plots.style_sheet`.

    Raises
    ------
    ConfigError
        If there are no quantities, too many, or one is the same for all points.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((2000, 2))
    >>> figure = losses({"u1": x[:, 0], "u2": x[:, 1]}, 1.0 + 9.0 * (x[:, 0] > 0.9))
    >>> [axis.get_xlabel() for axis in figure.axes[:4]]
    ['', '', 'u1', 'u2']
    """
    if not 1 <= len(quantities) <= MAX_COORDINATES:
        raise ConfigError(f"{len(quantities)} quantities: choose 1 to {MAX_COORDINATES}")
    values, size = list(quantities.values()), weights / weights.mean()
    bins = int(np.clip(np.sqrt(len(size) / _POINTS_PER_BIN), _FEWEST_BINS, _MOST_BINS))
    axes = [_axis(name, value, bins) for name, value in quantities.items()]
    pairs = {
        (i, j): _pair((axes[j], axes[i]), (values[j], values[i]), size)
        for i in range(len(axes))
        for j in range(len(axes))
        if i != j
    }
    colours = _colours(pairs)
    with mpl.rc_context(style):
        figure, grid = square_grid(len(axes), _ABOVE)
        figure.style = style
        for i, row in enumerate(grid):
            for j, panel in enumerate(row):
                if i == j:
                    _single(panel, axes[i], values[i], size)
                else:
                    norm, colour = colours[i > j]
                    drawn = pairs[i, j][0 if i > j else 1]
                    panel.pcolormesh(axes[j].edges, axes[i].edges, drawn.T, norm=norm, cmap=colour, rasterized=True)
                    panel.set_yscale("log" if axes[i].log else "linear")
                    panel.set_ylim(axes[i].edges[0], axes[i].edges[-1])
                    panel.grid(False)
                panel.set_xscale("log" if axes[j].log else "linear")
                panel.set_xlim(axes[j].edges[0], axes[j].edges[-1])
                label_panel(panel, axes, i, j, "even = 1")
        _keys(figure, grid, colours)
    return figure


def _axis(name: str, value: Floats, bins: int) -> Axis:
    """The unit interval for a coordinate of the cube, else the range that nearly all values lie in."""
    found = value[np.isfinite(value)]
    if name[:1] == "u" and name[1:].isdecimal():
        return Axis(name, name, np.linspace(0.0, 1.0, bins + 1))
    low, high = (float(end) for end in np.quantile(found, [_OUTSIDE, 1.0 - _OUTSIDE])) if found.size else (0.0, 0.0)
    if not low < high:
        raise ConfigError(f"{name} is the same for all points, or no point has it: choose another quantity")
    log = low > 0.0 and high > _DECADES * low
    return Axis(name, name, np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1), log)


def _single(panel: Axes, axis: Axis, value: Floats, size: Floats) -> None:
    """Mean weights with their errors, and the share of each bin in the spread times the number of bins."""
    histogram, spread = Histogram(axis), Histogram(axis)
    histogram.fill(value, size)
    spread.fill(value, (size - 1.0) ** 2)
    counts, _ = np.histogram(value[np.isfinite(value)], axis.edges)
    with np.errstate(all="ignore"):
        mean = np.where(counts >= _FEWEST_POINTS, histogram.inside / counts, np.nan)
        error = np.sqrt(np.clip(histogram.squares / counts - mean**2, 0.0, None) / counts)
    share = spread.inside / (spread.sum_weights or 1.0) * len(counts)
    panel.stairs(share, axis.edges, fill=True, color=ORANGE, alpha=0.3, linewidth=0)
    panel.axhline(1.0, color=GREY, linewidth=1.0)
    panel.stairs(mean + error, axis.edges, baseline=mean - error, fill=True, color=BLUE, alpha=0.35)
    panel.stairs(mean, axis.edges, baseline=None, color=BLUE, linewidth=1.6)
    panel.set_ylim(0.0, 1.1 * max(1.0, float(np.nanmax([*share, *(mean + error)], initial=1.0))))


def _pair(axes: tuple[Axis, Axis], values: tuple[Floats, Floats], size: Floats) -> tuple[Floats, Floats]:
    """Mean weights, NaN where there are few points, and shares of the spread, in bins of two quantities."""
    edges, there = [axis.edges for axis in axes], np.isfinite(values[0]) & np.isfinite(values[1])
    parts = (None, size[there], (size[there] - 1.0) ** 2)
    counts, sums, spread = (np.histogram2d(values[0][there], values[1][there], edges, weights=w)[0] for w in parts)
    few = counts < _FEWEST_POINTS
    with np.errstate(all="ignore"):
        return np.where(few, np.nan, sums / counts), np.where(few, np.nan, spread / ((size - 1.0) ** 2).sum())


def _colours(pairs: Mapping[tuple[int, int], tuple[Floats, Floats]]) -> dict[bool, tuple[Normalize, Colormap]]:
    """The scales of shares (False) and of mean weights (True), each the same in all panels."""
    means = np.concatenate([[1.0], *(pair[0][pair[0] > 0.0] for pair in pairs.values())])
    span = float(np.clip(np.exp(np.quantile(np.abs(np.log(means)), 0.98)), _LEAST_SPAN, _MOST_SPAN))
    shares = np.concatenate([[0.0], *(pair[1][np.isfinite(pair[1])] for pair in pairs.values())])
    return {
        True: (LogNorm(1.0 / span, span), _SIDES),
        False: (Normalize(0.0, float(shares.max()) or 1.0), _SHARES),
    }


def _keys(figure: Drawing, grid: Sequence[Sequence[Axes]], colours: Mapping[bool, tuple[Normalize, Colormap]]) -> None:
    """What the colours mean, above the panels."""
    height = figure.get_figheight()
    left, right = grid[0][0].get_position().x0, grid[0][-1].get_position().x1
    keys: list[Any] = [Patch(color=BLUE, alpha=0.6), Patch(color=ORANGE, alpha=0.35)]
    names = ["mean weight", "share of the spread × bins"]
    place: dict[str, Any] = {
        "loc": "upper left",
        "borderaxespad": 0.0,
        "columnspacing": 1.2,
        "ncols": 2,
        "fontsize": 12,
    }
    figure.legend(keys, names, bbox_to_anchor=(left, 1.0 - 0.08 / height), **place)
    if len(grid) < 2:
        return
    for place_of, below in ((left, True), (0.5 * (left + right) + 0.01, False)):
        norm, colour = colours[below]
        bar = figure.add_axes((place_of, 1.0 - 0.78 / height, 0.45 * (right - left), 0.1 / height))
        drawn = figure.colorbar(ScalarMappable(norm, colour), cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=11, pad=2)
        bar.xaxis.set_minor_locator(NullLocator())
        top = float(norm.vmax or 1.0)
        if below:
            drawn.set_ticks([1.0 / top, 1.0, top], labels=[f"≤ {1.0 / top:.2g}", "1", f"≥ {top:.2g}"])
        else:
            drawn.set_ticks([0.0, top], labels=["0", f"{100 * top:.2g} %"])
        bar.set_title(
            "below: mean weight" if below else "above: share of the spread",
            fontsize=12,
            fontweight="normal",
            loc="left",
        )
