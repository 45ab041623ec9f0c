"""Where a sampler loses: mean weights and shares of their spread are where they were put."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nisampler.errors import ConfigError
from nisampler.ui.losses import MOST, losses
from nisampler.unweighting.explanation import explain


def meshes(figure, row, column, size=3):
    """The colours of a panel of size × size, as an array."""
    (mesh,) = figure.axes[row * size + column].collections
    return np.ma.filled(mesh.get_array(), np.nan)


def test_a_corner_is_where_it_was_put():
    x = np.random.default_rng(1).random((20_000, 3))
    weights = 1.0 + 9.0 * ((x[:, 0] > 0.9) & (x[:, 2] < 0.1))
    figure = losses({f"u{k + 1}": x[:, k] for k in range(3)}, weights)
    means = meshes(figure, 2, 0)  # u3 upwards, u1 to the right
    bins = len(means)
    assert np.unravel_index(np.nanargmax(means), means.shape) == (0, bins - 1)
    assert np.nanmedian(means) == pytest.approx(1.0 / weights.mean())
    shares = meshes(figure, 0, 2)  # u1 upwards, u3 to the right
    assert np.unravel_index(np.nanargmax(shares), shares.shape) == (bins - 1, 0)
    assert np.nansum(shares) == pytest.approx(1.0)
    # Negative control: nothing of the second coordinate tells.
    assert np.nanmax(meshes(figure, 1, 0).mean(axis=1)) < 1.2 * np.nanmin(meshes(figure, 1, 0).mean(axis=1))


def test_quantities_that_few_points_have_and_long_tails():
    rng = np.random.default_rng(2)
    x, tail = rng.random(3000), np.exp(rng.normal(3.0, 2.0, 3000))
    tail[::2] = np.nan
    figure = losses({"u1": x, "pT(j1)": tail}, rng.random(3000))
    assert figure.axes[3].get_xscale() == "log" and figure.axes[2].get_yscale() == "log"
    assert losses({"u1": x}, np.ones(3000)).axes[0].get_xlabel() == "u1"
    assert losses({"u1": x[:40], "u2": x[40:80]}, np.ones(40)).axes


def test_what_cannot_be_drawn_is_said():
    x = np.random.default_rng(3).random(1000)
    for quantities, message in (
        ({}, "0 quantities: choose 1 to"),
        ({f"u{k}": x for k in range(MOST + 1)}, "7 quantities"),
        ({"m": np.full(1000, 3.0)}, "m is the same for all points"),
        ({"m": np.full(1000, np.nan)}, "no point has it"),
    ):
        with pytest.raises(ConfigError, match=message):
            losses(quantities, np.ones(1000))


def test_an_explanation_draws_its_coordinates_or_what_is_named():
    u = torch.rand(3000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    named = {f"u{k + 1}": u[:, k] for k in range(8)} | {"m": u[:, 0] * u[:, 1]}
    found = explain(u, 1.0 + 9.0 * (u[:, 6] > 0.9), named, worst=30)
    labels = [axis.get_xlabel() for axis in found.losses().axes[:36]][-6:]
    assert "u7" in labels and len(labels) == 6 and labels == sorted(labels)
    assert [axis.get_xlabel() for axis in found.losses(["m", "u7"]).axes[2:4]] == ["m", "u7"]
    with pytest.raises(ConfigError, match="no quantity 'x'; there are u1, u2"):
        found.losses(["x"])
