"""Point clouds: projection, files of showerdata, and the simulator, with what each has to refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nisampler.calo.data.point_batches import PointSource, point_source
from nisampler.calo.data.point_files import PointReader, PointWriter, holds_points
from nisampler.calo.data.points import ENERGY, LAYER, PointShowers, project
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.conditions import Condition
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, Layer
from nisampler.calo.detector.places import cells_at, finer, places_in
from nisampler.calo.simulation.points import PointSimulator, simulate_points
from nisampler.calo.simulation.simulator import simulator
from nisampler.errors import (
    ConfigError,
    CorruptFileError,
    GeometryError,
    NisamplerError,
    ShapeError,
    ShowerDataError,
    StorageError,
)

TOY = geometry("toy")
GRID = Layer(0, "rectangular", (-10.0, -2.0, 3.0, 10.0), (-4.0, 0.0, 6.0))
LISTED = Layer(0, "cells", (0.0, 4.0, 0.0, 20.0), (0.0, 0.0, 4.0, 20.0), (4.0, 4.0, 4.0, 10.0))
POLAR = Layer.polar(0, 6, (0, 2, 5, 11))


def some(n: int = 7, seed: int = 1, cells: Geometry = TOY) -> PointShowers:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, n)
    counts[0] = 0
    m = int(counts.sum())
    layers = rng.integers(0, cells.n_layers, m)
    points = np.column_stack([rng.normal(0, 30, (m, 2)), layers, rng.exponential(3, m) + 1e-3])
    return PointShowers(rng.uniform(2e3, 9e4, n), points, counts)


def written(path: Path, clouds: PointShowers, cells: Geometry = TOY) -> Path:
    with PointWriter(path, cells) as writer:
        writer.append(clouds[: len(clouds) // 2])
        writer.append(clouds[len(clouds) // 2 :])
    return path


def by_hand(layer: Layer, x: float, y: float) -> int:
    """The cell of a place, found by looking at every one."""
    for index in range(layer.n_voxels):
        slow, fast = divmod(index, layer.shape[1])
        if layer.kind == "cells":
            half = 0.5 * layer.widths[index]
            inside = abs(x - layer.first[index]) <= half and abs(y - layer.second[index]) <= half
        else:
            a, b = (x, y) if layer.kind == "rectangular" else (np.arctan2(y, x), np.hypot(x, y))
            inside = layer.first[slow] <= a < layer.first[slow + 1] and layer.second[fast] <= b < layer.second[fast + 1]
        if inside:
            return index
    return -1


@pytest.mark.parametrize("layer", [GRID, LISTED, POLAR], ids=lambda layer: layer.kind)
def test_cells_of_places(layer: Layer) -> None:
    x, y = np.random.default_rng(2).uniform(-14, 14, (2, 400))
    found = cells_at(layer, x, y)
    assert found.tolist() == [by_hand(layer, *place) for place in zip(x, y, strict=True)]
    assert (found < 0).any() and len(np.unique(found)) > layer.n_voxels // 2


def test_edges_belong_to_a_cell() -> None:
    assert cells_at(GRID, np.array([-10.0, 10.0, -2.0]), np.array([-4.0, 6.0, 0.0])).tolist() == [0, 5, 3]
    assert cells_at(POLAR, np.array([-1.0, 11.0]), np.array([0.0, 0.0])).min() >= 0


@pytest.mark.parametrize("layer", [GRID, LISTED, POLAR], ids=lambda layer: layer.kind)
def test_finer_cells_lie_in_their_cell(layer: Layer) -> None:
    """Random places in the parts of a cell are in that cell, and all parts are there."""
    coarse = replace(TOY, layers=(layer,))
    parts = finer(coarse, 3).layers[0]
    assert parts.n_voxels == 9 * layer.n_voxels
    index = np.repeat(np.arange(parts.n_voxels), 5)
    x, y = places_in(parts, index, np.random.default_rng(3))
    assert np.array_equal(cells_at(parts, x, y), index)
    assert np.bincount(cells_at(layer, x, y), minlength=layer.n_voxels).tolist() == [45] * layer.n_voxels
    with pytest.raises(ConfigError, match="times = 0"):
        finer(coarse, 0)


def test_projection_keeps_energy_and_counts_the_rest() -> None:
    clouds = some(20)
    made = project(clouds, TOY)
    inside = made.showers.voxels.sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(inside + made.energy_outside, clouds.totals, rtol=1e-5)
    beside = np.hypot(*clouds.points.T[:2]) > 60.0
    assert made.outside.sum() == beside.sum() > 0
    np.testing.assert_allclose(made.energy_outside.sum(), clouds.points[beside, ENERGY].sum(), rtol=1e-5)
    order = np.random.default_rng(1).permutation(clouds.counts[3])
    one = clouds[3:4]
    mixed = PointShowers(one.incident, one.points[order], one.counts)
    np.testing.assert_allclose(project(mixed, TOY).showers.voxels, project(one, TOY).showers.voxels, rtol=1e-6)


def test_projection_cuts_at_the_thresholds_of_layers_afterwards() -> None:
    """Two points of one cell may pass together what neither passes alone."""
    cells = replace(TOY, thresholds=(1.0,) * 5)
    points = np.array([[1, 0, 0, 0.7], [1, 0.1, 0, 0.7], [20, 0, 1, 0.7]])
    assert project(PointShowers(np.array([1e3]), points, np.array([3])), cells).showers.voxels.sum() == pytest.approx(
        1.4
    )


def test_rows_and_padding() -> None:
    clouds = some(9)
    back = PointShowers.unpadded(clouds.incident, clouds.padded())
    assert np.array_equal(back.points, clouds.points) and np.array_equal(back.counts, clouds.counts)
    rows = np.array([5, 0, 2])
    picked = clouds[rows]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(picked[place : place + 1].points, clouds[row : row + 1].points)
    assert clouds.empty == int(np.count_nonzero(clouds.counts == 0)) > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones(2), np.ones((3, 4)), np.array([1, 1])), "sum to 3"),
        ((np.ones(2), np.ones((3, 3)), np.array([1, 2])), r"points \(m, 4\)"),
        ((np.ones(2), np.ones((3, 4)), np.array([1, 2]), np.ones((3, 1))), "a row for each"),
    ],
)
def test_shapes_are_checked(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        PointShowers(*arguments)


@pytest.mark.parametrize("point", [(0, 0, 0, -1), (0, np.nan, 0, 1), (0, 0, 5, 1), (0, 0, 0.5, 1), (0, 0, 0, np.inf)])
def test_points_that_no_calorimeter_has(point: tuple[float, ...]) -> None:
    clouds = PointShowers(np.array([1e3]), np.array([point]), np.array([1]))
    with pytest.raises(ShowerDataError, match="shower 0 has the point"):
        project(clouds, TOY)


# Files


def test_file_and_back(tmp_path: Path) -> None:
    clouds = some(8)
    with PointReader(written(tmp_path / "a.h5", clouds), TOY) as reader:
        back = reader.select(np.arange(8))
        part = reader.select([1, 4])
    assert np.array_equal(back.points, clouds.points) and np.array_equal(back.counts, clouds.counts)
    np.testing.assert_allclose(back.incident, clouds.incident, rtol=1e-6)
    assert np.array_equal(part.points, clouds[np.array([1, 4])].points)
    assert holds_points(tmp_path / "a.h5") and not holds_points(tmp_path / "none.h5")


def test_layout_is_that_of_showerdata(tmp_path: Path) -> None:
    written(tmp_path / "a.h5", some(6))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["showerdata_version"] == "0.7.0"
        shapes = {name: data.shape for name, data in file.items()}
        assert h5py.check_vlen_dtype(file["showers"].dtype) == np.dtype("float32")
        assert file["shape"][()].tolist() == [6, some(6).counts.max(), 5]
        assert file["directions"][0].tolist() == [0, 0, 1] and set(file["pdg"][()]) == {11}
        np.testing.assert_allclose(file["energies"][:, 0], some(6).incident / 1e3, rtol=1e-6)
    rows = {"showers": (6,), "energies": (6, 1), "directions": (6, 3), "pdg": (6,), "shower_ids": (6,)}
    assert shapes == rows | {"shape": (3,), "num_points": (6,)}


def test_showerdata_itself_reads_and_writes_them(tmp_path: Path) -> None:
    showerdata = pytest.importorskip("showerdata")
    clouds = some(6)
    found = showerdata.load(str(written(tmp_path / "a.h5", clouds)))
    np.testing.assert_array_equal(found.points[:, :, :4], clouds.padded())
    found.save(str(tmp_path / "b.h5"))
    with PointReader(tmp_path / "b.h5", TOY) as reader:
        assert np.array_equal(reader.select(np.arange(6)).points, clouds.points)


def test_rows_of_one_length(tmp_path: Path) -> None:
    points = np.tile([0.0, 1.0, 0.0, 5.0], (6, 1))
    for name, counts in {"two": [2, 2, 2], "one": [6], "none": [0, 0]}.items():
        clouds = PointShowers(np.full(len(counts), 5e3), points[: sum(counts)], np.array(counts))
        with PointWriter(tmp_path / f"{name}.h5", TOY) as writer:
            writer.append(clouds)
        with PointReader(tmp_path / f"{name}.h5", TOY) as reader:
            assert reader.select(np.arange(len(counts))).counts.tolist() == counts


def test_conditions_are_read_from_columns_and_directions(tmp_path: Path) -> None:
    angles = (
        Condition("theta", "number", (0.0, 40.0), unit="deg"),
        Condition("phi", "azimuth", (-180.0, 180.0), unit="deg"),
    )
    cells = replace(TOY, conditions=(*angles, Condition("particle", "category", (11.0, 22.0))))
    table = np.array([[10.0, 90.0, 11.0], [30.0, -45.0, 22.0]])
    clouds = PointShowers(np.array([5e3, 6e3]), np.array([[0, 1, 0, 5]]), np.array([1, 0]), table)
    written(tmp_path / "a.h5", clouds, cells)
    with PointReader(tmp_path / "a.h5", cells) as reader:
        np.testing.assert_allclose(reader.conditions, table)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for name in ("theta", "phi", "particle"):
            del file[name]
    with PointReader(tmp_path / "a.h5", cells) as reader:
        np.testing.assert_allclose(reader.conditions, table, atol=1e-4)
    bent = replace(TOY, conditions=(Condition("x", "number", (0.0, 1.0), unit="mm"),))
    with pytest.raises(ShowerDataError, match="no dataset 'x'"):
        PointReader(tmp_path / "a.h5", bent)
    with pytest.raises(ShapeError, match="1 conditions"):
        written(tmp_path / "b.h5", some(4), bent)


def spoil(path: Path, how: str) -> None:
    """Damage a file of six showers."""
    with h5py.File(path, "a") as file:
        if how.startswith("without "):
            del file[how.removeprefix("without ")]
        elif how == "rows":
            file["num_points"][1] = 99
        elif how == "many":
            file["num_points"][1] = 2**30
        elif how == "lengths":
            file["pdg"].resize(5, axis=0)
        elif how == "columns":
            file["shape"][2] = 3
        elif how == "MeV":
            file["energies"][:] = 1e3 * file["energies"][:]
        elif how == "energy":
            file["energies"][3] = -1
        elif how == "doubles":
            del file["showers"]
            file.create_dataset("showers", (6,), h5py.vlen_dtype(np.float64))
        elif how == "cells":
            file.attrs["cells"] = "0" * 16


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("without energies", ShowerDataError, "needs the dataset 'energies'"),
        ("without num_points", ShowerDataError, "needs the dataset 'num_points'"),
        ("rows", CorruptFileError, "not as long as num_points"),
        ("many", ShowerDataError, "0 to 1048576 points"),
        ("lengths", ShowerDataError, "one row for each"),
        ("columns", ShowerDataError, "4 or 5 columns"),
        ("MeV", ShowerDataError, "GeV"),
        ("energy", ShowerDataError, "event 3"),
        ("doubles", ShowerDataError, "must be float32"),
        ("cells", GeometryError, "was written for the geometry"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, how: str, error: type[NisamplerError], text: str) -> None:
    path = written(tmp_path / "a.h5", some(6))
    spoil(path, how)
    with pytest.raises(error, match=text), PointReader(path, TOY) as reader:
        reader.select(np.arange(6))


def test_other_errors_of_files(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        PointReader(tmp_path / "none.h5", TOY)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(CorruptFileError, match="not HDF5"):
        PointReader(tmp_path / "text.h5", TOY)
    with pytest.raises(ShowerDataError, match="no shower was written"), PointWriter(tmp_path / "b.h5", TOY):
        pass
    assert not (tmp_path / "b.h5").exists()
    path = written(tmp_path / "a.h5", some(6))
    with PointReader(path, TOY) as reader, pytest.raises(ShowerDataError, match="must increase"):
        reader.select([3, 2])
    with pytest.raises(ConfigError, match="may take"):
        point_source(path, TOY, np.arange(6), memory=100.0)
    with pytest.raises(ShowerDataError, match="no showers to learn"):
        PointSource(some(3)[:0])


def test_batches_have_every_shower_once(tmp_path: Path) -> None:
    clouds = some(11)
    source = point_source(written(tmp_path / "a.h5", clouds), TOY, np.arange(11))
    batches = list(source.shuffled(4, np.random.default_rng(1)))
    energies = np.concatenate([points[:, :, ENERGY].sum(1).numpy() for points, _ in batches])
    np.testing.assert_allclose(np.sort(energies), np.sort(clouds.totals), rtol=1e-5)
    ordered = np.concatenate([incident.numpy() for _, incident in source.window(slice(0, 9)).ordered(4)])
    np.testing.assert_allclose(ordered, clouds.incident, rtol=1e-6)


# The simulator


def test_points_add_up_to_what_is_simulated_in_cells() -> None:
    energies = np.full(1500, 5e3)
    clouds = PointSimulator(TOY, 3).simulate(energies, np.random.default_rng(1))
    made, known = project(clouds, TOY), simulator(TOY).simulate(energies, np.random.default_rng(2))
    assert made.outside.sum() == 0

    def facts(voxels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        lit = np.where(voxels < 2 * TOY.threshold, 0.0, voxels)
        spread = lit.sum(axis=1).std()
        return np.array([(lit > 0).sum(axis=1).mean(), spread, *TOY.layer_energies(lit).mean(axis=0)[:4]])

    errors = np.array([0.01, 0.08, 0.02, 0.02, 0.04, 0.15])
    assert (np.abs(facts(made.showers.voxels) / facts(known) - 1) < errors).all()
    other = simulator(TOY).simulate(1.1 * energies, np.random.default_rng(2))
    assert not (np.abs(facts(made.showers.voxels) / facts(other) - 1) < errors).all()


def test_points_are_finer_than_cells() -> None:
    rng = np.random.default_rng(1)
    few, many = (PointSimulator(TOY, times).simulate(np.full(50, 5e3), rng) for times in (1, 4))
    assert len(many.points) > 2 * len(few.points)
    assert many.totals.mean() == pytest.approx(few.totals.mean(), rel=0.03)
    assert set(np.unique(many.points[:, LAYER])) <= set(range(5))


def test_simulated_files_belong_to_their_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made = simulate_points(tmp_path / f"{name}.h5", TOY, 12, seed, times=2)
    a, b, c = (PointReader(tmp_path / f"{name}.h5", TOY).select(np.arange(12)) for name in "abc")
    assert np.array_equal(a.points, b.points) and not np.array_equal(a.points[:9], c.points[:9])
    assert made["points"] == pytest.approx(len(c.points) / 12)
    with pytest.raises(ConfigError, match="n = 0"):
        simulate_points(tmp_path / "d.h5", TOY, 0, 1)


def test_voxels_are_no_points(tmp_path: Path) -> None:
    from nisampler.calo.data.showers import Showers

    with ShowerWriter(tmp_path / "v.h5", TOY) as writer:
        writer.append(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)))
    assert not holds_points(tmp_path / "v.h5")
    with pytest.raises(ShowerDataError, match="no file of showerdata"):
        PointReader(tmp_path / "v.h5", TOY)
