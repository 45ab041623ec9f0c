"""Distributions of coordinates: what is drawn are the densities that the points have."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import QuadMesh
from matplotlib.patches import StepPatch

from nisampler.ui.marginals import marginal_axes, marginals
from nisampler.ui.panels import panels, titled


def test_densities_of_weighted_points_and_of_drawn_ones() -> None:
    """Points of density 1 with weights 2x, -2x: both halves of the figure, and the coordinate without weights."""
    x = np.random.default_rng(1).random((200_000, 2))
    axes = list(marginal_axes(x, np.array([[0.0, 1.0], [0.0, 1.0]])).values())
    for sign in (1.0, -1.0):
        figure = marginals(x, sign * 2.0 * x[:, 0], axes)
        first, above, below, second = figure.axes
        lines = [
            [p.get_data().values for p in panel.patches if isinstance(p, StepPatch) and not p.get_fill()]
            for panel in (first, second)
        ]
        centres = axes[0].centres
        assert np.abs(lines[0][0] - 2.0 * centres).max() < 0.08 and np.abs(lines[0][1] - 1.0).max() < 0.08
        assert all(np.abs(line - 1.0).max() < 0.08 for line in lines[1])
        plain, weighted = (
            np.asarray(next(c for c in p.collections if isinstance(c, QuadMesh)).get_array()) for p in (above, below)
        )
        assert np.corrcoef(weighted.mean(0), np.arange(weighted.shape[1]))[0, 1] > 0.99
        assert plain.std() / plain.mean() < 0.15 < weighted.mean(0).std() / weighted.mean()


def test_awkward_points() -> None:
    """A single point, weights that are all zero, and a range of many decades draw without a warning."""
    rng = np.random.default_rng(2)
    for x, weights in (
        (np.array([[0.5, 0.5]]), np.ones(1)),
        (rng.random((100, 2)), np.zeros(100)),
        (np.exp(8.0 * rng.normal(size=(500, 1))), np.ones(500)),
    ):
        box = np.array([[0.0, 1.0]] * x.shape[1]) if x.shape[1] > 1 else None
        figure = marginals(x, weights, list(marginal_axes(x, box).values()))
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_many_coordinates_are_cut_to_six() -> None:
    x = np.random.default_rng(3).random((50, 9))
    assert list(marginal_axes(x)) == [0, 1, 2, 3, 4, 5]
    assert list(marginal_axes(x, coordinates=[8, 0])) == [8, 0]


@pytest.mark.parametrize("height", [4.0, 9.0])
def test_titles_move_panels_and_legends_without_changing_their_size(height: float) -> None:
    figure, (axis, _) = panels((1.0, 1.0), height)
    axis.plot([0.0, 1.0], label="line")
    figure.legend(loc="upper left", bbox_to_anchor=(0.2, 0.98))
    figure.canvas.draw()
    before = [box.get_window_extent().bounds for box in (axis, figure.legends[0])]
    titled(figure, "A title", {})
    figure.canvas.draw()
    after = [box.get_window_extent().bounds for box in (axis, figure.legends[0])]
    assert after == [pytest.approx(bounds, abs=0.01) for bounds in before]


def test_a_figure_is_drawn_in_its_style() -> None:
    """Wherever that happens: what matplotlib makes late, such as ticks, takes what holds then."""
    seen = []

    class Witness(Artist):
        def draw(self, renderer: RendererBase) -> None:
            seen.append(mpl.rcParams["xtick.labelsize"])

    figure = titled(panels((1.0,), 4.0)[0], "", {"xtick.labelsize": 23.0})
    figure.add_artist(Witness())
    figure._repr_png_()
    assert seen == [23.0] and mpl.rcParams["xtick.labelsize"] != 23.0
