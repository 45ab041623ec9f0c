"""Cells, voxel order, incident energies and fingerprints of a geometry."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.errors import ConfigError, GeometryError, ShapeError

LAW = IncidentEnergy("log-uniform", (1e3, 1e5))


def ragged() -> Geometry:
    layers = (
        Layer.polar(0, 1, (0, 5, 20)),
        Layer.polar(3, 4, (0, 1, 3, 9)),
        Layer(7, "rectangular", (-1, 0, 1), (-2, 2)),
    )
    return Geometry("ragged", "photon", 22, layers, 0.5, LAW)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    sizes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=5))
    layers = tuple(Layer.polar(number, n_alpha, range(n_r + 1)) for number, (n_alpha, n_r) in enumerate(sizes))
    return Geometry("random", "electron", 11, layers, 0.0, LAW)


def test_voxels_run_over_layer_then_alpha_then_radius() -> None:
    known = ragged()
    assert known.sizes == (2, 12, 2)
    assert known.starts == (0, 2, 14, 16)
    assert known.slice(1) == slice(2, 14)
    np.testing.assert_array_equal(known.layer_of_voxel, [0] * 2 + [1] * 12 + [2] * 2)
    np.testing.assert_allclose(known.layers[1].radii(), [0.5, 2, 6] * 4)


def test_centres_of_polar_cells_are_those_of_the_challenge() -> None:
    layer = Layer.polar(0, 4, (0, 1, 3))
    x, y = layer.centres()
    alpha = np.repeat([-0.75 * math.pi, -0.25 * math.pi, 0.25 * math.pi, 0.75 * math.pi], 2)
    r = np.tile([0.5, 2.0], 4)
    np.testing.assert_allclose(x, r * np.cos(alpha), atol=1e-14)
    np.testing.assert_allclose(y, r * np.sin(alpha), atol=1e-14)
    np.testing.assert_allclose(np.hypot(x, y), layer.radii())


def test_centres_of_rectangular_cells() -> None:
    x, y = Layer(0, "rectangular", (0, 2, 4), (0, 1, 2, 3)).centres()
    np.testing.assert_array_equal(x, [1, 1, 1, 3, 3, 3])
    np.testing.assert_array_equal(y, [0.5, 1.5, 2.5] * 2)


@given(geometries(), st.integers(0, 2**32 - 1))
def test_layer_sums_are_the_same_in_numpy_and_torch_and_keep_the_total(known: Geometry, seed: int) -> None:
    voxels = np.random.default_rng(seed).exponential(size=(4, known.n_voxels))
    sums = known.layer_energies(voxels)
    assert sums.shape == (4, known.n_layers)
    np.testing.assert_allclose(sums.sum(axis=1), voxels.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(known.layer_sums(torch.from_numpy(voxels)).numpy(), sums, rtol=1e-12)
    slices = np.stack([voxels[:, known.slice(k)].sum(axis=1) for k in range(known.n_layers)], axis=1)
    np.testing.assert_allclose(sums, slices, rtol=1e-12)


def test_layer_sums_of_float32_are_added_in_float64() -> None:
    voxels = np.full((1, 16), 0.1, dtype=np.float32)
    assert ragged().layer_energies(voxels).dtype == np.float64


def test_gradients_pass_through_layer_sums() -> None:
    voxels = torch.ones(2, 16, dtype=torch.float64, requires_grad=True)
    (ragged().layer_sums(voxels) * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert voxels.grad is not None
    np.testing.assert_array_equal(voxels.grad[0].numpy(), [1] * 2 + [10] * 12 + [100] * 2)


@pytest.mark.parametrize("shape", [(3, 15), (16,), (2, 2, 8)])
def test_another_number_of_voxels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"ragged has showers of shape \(n, 16\)"):
        ragged().layer_energies(np.zeros(shape))
    with pytest.raises(ShapeError, match="16"):
        ragged().layer_sums(torch.zeros(shape))


@given(geometries())
def test_json_round_trip(known: Geometry) -> None:
    again = Geometry.from_dict(json.loads(json.dumps(known.to_dict())))
    assert again == known
    assert again.digest == known.digest


def test_the_fingerprint_is_of_the_cells_alone() -> None:
    known = ragged()
    assert dataclasses.replace(known, name="other", threshold=1.0).digest == known.digest
    moved = (*known.layers[:2], Layer(7, "rectangular", (-1, 0, 1), (-2, 2.5)))
    assert dataclasses.replace(known, layers=moved).digest != known.digest
    assert dataclasses.replace(known, layers=known.layers[::-1]).digest != known.digest


@pytest.mark.parametrize(
    "change",
    [{"layers": None}, {"layers": [{"id": 0}]}, {"incident": {"kind": "uniform"}}, {"colour": "red"}, {"layers": []}],
)
def test_a_wrong_description_is_a_named_error(change: dict[str, Any]) -> None:
    with pytest.raises(GeometryError):
        Geometry.from_dict({**ragged().to_dict(), **change})


def test_a_missing_field_is_a_named_error() -> None:
    data = ragged().to_dict()
    del data["threshold"]
    with pytest.raises(GeometryError, match="threshold"):
        Geometry.from_dict(data)


@pytest.mark.parametrize("edges", [(0.0,), (0.0, 0.0), (0.0, 2.0, 1.0), (0.0, math.nan), ()])
def test_edges_must_increase(edges: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="layer 4"):
        Layer.polar(4, 2, edges)


@pytest.mark.parametrize("n_alpha", [0, -1])
def test_a_layer_needs_a_bin_of_the_angle(n_alpha: int) -> None:
    with pytest.raises(ConfigError, match=rf"n_alpha = {n_alpha}: must be a whole number, at least 1"):
        Layer.polar(4, n_alpha, (0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "layers must be"),
        ({"layers": (Layer.polar(0, 1, (0, 1)),) * 2}, "different ids"),
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
    ],
)
def test_a_geometry_that_contradicts_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        dataclasses.replace(ragged(), **change)


@pytest.mark.parametrize(
    ("kind", "values", "counts"),
    [
        ("gaussian", (1.0, 2.0), ()),
        ("uniform", (2.0, 1.0), ()),
        ("uniform", (0.0, 1.0), ()),
        ("uniform", (1.0,), ()),
        ("uniform", (1.0, 2.0), (1, 1)),
        ("log-uniform", (1.0, 2.0, 3.0), ()),
        ("discrete", (1.0, 2.0), (1,)),
        ("discrete", (), ()),
        ("uniform", (math.nan, 2.0), ()),
        ("discrete", (1.0, 2.0), (0, 0)),
        ("discrete", (1.0, 2.0), (3, -1)),
        ("uniform", (1.0, math.inf), ()),
    ],
)
def test_a_wrong_law_is_refused(kind: Any, values: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError):
        IncidentEnergy(kind, values, counts)


def test_laws_have_their_moments() -> None:
    n, rng = 100_000, np.random.default_rng(5)
    logs = np.log(IncidentEnergy("log-uniform", (1e3, 1e6)).sample(n, rng))
    width = math.log(1e3)
    assert abs(logs.mean() - math.log(1e3) - width / 2) < 5 * width / math.sqrt(12 * n)
    flat = IncidentEnergy("uniform", (10.0, 100.0)).sample(n, rng)
    assert abs(flat.mean() - 55.0) < 5 * 90.0 / math.sqrt(12 * n)
    drawn = IncidentEnergy("discrete", (1.0, 2.0, 4.0), (1, 2, 1)).sample(n, rng)
    assert set(np.unique(drawn)) == {1.0, 2.0, 4.0}
    assert abs(np.mean(drawn == 2.0) - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_energies_depend_on_the_generator_alone() -> None:
    first, second = (LAW.sample(10, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("kind", "first", "second", "message"),
    [
        ("hexagonal", (0, 1), (0, 1), "'polar', 'rectangular' or 'cells'"),
        ("polar", (0, 1), (-1, 1), "r >= 0"),
        ("polar", (0, 7), (0, 1), "within one turn"),
    ],
)
def test_cells_of_no_known_kind_are_refused(kind: Any, first: Any, second: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Layer(4, kind, first, second)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(GeometryError, match="layout must be one of"):
        dataclasses.replace(ragged(), layout="root")


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_a_named_error(layer: int) -> None:
    with pytest.raises(GeometryError, match="ragged has layers 0 to 2"):
        ragged().slice(layer)
