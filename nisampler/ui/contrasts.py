"""Quantities of some points beside those of all others."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from nisampler.ui.drawing import Drawing
from nisampler.ui.histograms import Floats
from nisampler.ui.palette import BLUE, ORANGE
from nisampler.ui.panels import WIDTH
from nisampler.ui.plots import PLAIN

MOST = 6
"""Most panels."""
_BINS, _COLUMNS, _HEIGHT, _TOP = 25, 2, 2.6, 0.6
# Above this ratio of the ends a positive quantity has a logarithmic axis.
_DECADES = 50.0


def contrasts(quantities: Mapping[str, Floats], weights: Floats, chosen: NDArray[np.bool_]) -> Drawing:
    """Distributions of quantities (n,) with weights (n,), and of the chosen points without weights, both of unit area.

    >>> x = np.linspace(0.0, 1.0, 200)
    >>> figure = contrasts({"u1": x}, np.ones(200), x > 0.9)
    >>> figure.axes[0].get_xlabel()
    'u1'
    """
    rows = -(-max(1, len(quantities)) // _COLUMNS)
    height = _HEIGHT * rows + _TOP
    with mpl.rc_context(PLAIN):
        figure = Drawing(figsize=(WIDTH, height), layout="constrained")
        figure.style = PLAIN
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
        for panel, (name, value) in zip(grid, quantities.items(), strict=False):
            there = np.isfinite(value)
            inside = np.concatenate([value[there & chosen], np.quantile(value[there], [0.001, 0.999])])
            low, high = float(inside.min()), float(inside.max())
            logarithmic = low > 0.0 and high / low > _DECADES
            edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
            for part, size, colour, label in (
                (there & ~chosen, weights, BLUE, "all others, by their weight"),
                (there & chosen, np.ones_like(weights), ORANGE, "largest weights"),
            ):
                counts, _ = np.histogram(value[part], edges, weights=size[part])
                share = counts / (size[part].sum() or 1.0)
                panel.stairs(share, edges, fill=True, color=colour, alpha=0.3)
                panel.stairs(share, edges, color=colour, label=label, linewidth=1.6)
            panel.set(xlabel=name, xlim=(low, high), xscale="log" if logarithmic else "linear")
            panel.tick_params(labelsize=10)
            panel.tick_params(axis="x", which="minor", labelbottom=False)
        for panel in grid[len(quantities) :]:
            panel.set_visible(False)
        for panel in grid[::_COLUMNS]:
            panel.set_ylabel("share of a bin")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure
