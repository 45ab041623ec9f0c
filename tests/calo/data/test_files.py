"""Shower files: layouts, blocks, atomic writing, splits, and a named error for everything that can be wrong."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
import xml.etree.ElementTree as Tree
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisampler.calo.data.files import ShowerReader, read_showers, split
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.binning import write_binning
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.errors import (
    ConfigError,
    CorruptFileError,
    GeometryError,
    ShapeError,
    ShowerDataError,
    StorageError,
)

TOY = geometry("toy")
RAW_SILICON = 0.025
CHALLENGE = {"ds1-photons": "1-photons", "ds2": "2", "ds3": "3"}


def showers_of(known: Geometry, n: int, seed: int = 0) -> Showers:
    """Sparse random showers that deposit about all energy, or what silicon keeps of it."""
    rng = np.random.default_rng(seed)
    incident = known.incident.sample(n, rng)
    voxels = rng.exponential(size=(n, known.n_voxels)) * (rng.random((n, known.n_voxels)) < 0.3)
    response = RAW_SILICON if known.layout == "getting-high" else 0.9
    return Showers(incident, voxels * (response * incident / voxels.sum(axis=1))[:, None])


def write(path: Path, known: Geometry, showers: Showers, **options: Any) -> Path:
    with ShowerWriter(path, known, **options) as writer:
        writer.append(showers)
    return path


def write_plain(path: Path, incident: Any, voxels: Any, **options: Any) -> Path:
    """A CaloChallenge file as other programs make it."""
    with h5py.File(path, "w") as file:
        file.create_dataset("incident_energies", data=incident)
        file.create_dataset("showers", data=voxels, **options)
    return path


def plain_toy(path: Path, n: int = 20, *, energy: float = 1.0, voxel: float = 1.0, seed: int = 0) -> Path:
    """The same for `toy`, with both energies multiplied by factors."""
    showers = showers_of(TOY, n, seed)
    return write_plain(path, showers.incident[:, None] * energy, showers.voxels.astype(np.float64) * voxel)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_file_gives_back_what_was_written(name: str, tmp_path: Path) -> None:
    known = geometry(name)
    showers = showers_of(known, 7)
    read = read_showers(write(tmp_path / "s.h5", known, showers), known)
    np.testing.assert_allclose(read.incident, showers.incident, rtol=1e-15)
    np.testing.assert_array_equal(read.voxels, showers.voxels)


@pytest.mark.parametrize("layout", ["calochallenge", "calogan", "getting-high"])
def test_a_geometry_may_use_another_layout(layout: Any, tmp_path: Path) -> None:
    cells = tuple(Layer(k, "rectangular", (0, 1, 2), (0, 1, 2, 3)) for k in range(4))
    known = Geometry("box", "photon", 22, cells, 0.0, IncidentEnergy("uniform", (1e3, 1e5)))
    showers = showers_of(known, 5)
    path = write(tmp_path / "s.h5", known, showers, layout=layout)
    with ShowerReader(path, known, layout=layout) as reader:
        np.testing.assert_array_equal(reader.read(0, 5).voxels, showers.voxels)
        np.testing.assert_allclose(reader.incident, showers.incident, rtol=1e-15)


def test_the_calogan_layout(tmp_path: Path) -> None:
    known = geometry("calogan")
    showers = showers_of(known, 4)
    path = write(tmp_path / "s.h5", known, showers)
    with h5py.File(path) as file:
        assert {name: data.shape for name, data in file.items()} == {
            "energy": (4, 1),
            "layer_0": (4, 3, 96),
            "layer_1": (4, 12, 12),
            "layer_2": (4, 12, 6),
            "overflow": (4, 3),
        }
        np.testing.assert_allclose(file["energy"][:, 0], showers.incident / 1000)
        np.testing.assert_array_equal(file["layer_1"][2].ravel(), showers.voxels[2, 288:432])
    with ShowerReader(path, known) as reader:
        np.testing.assert_array_equal(reader.overflow(), np.zeros((4, 3)))


def test_the_getting_high_layout(tmp_path: Path) -> None:
    known = geometry("getting-high")
    showers = showers_of(known, 2)
    path = write(tmp_path / "s.h5", known, showers)
    with h5py.File(path) as file:
        assert file["30x30/layers"].shape == (2, 30, 30, 30)
        np.testing.assert_allclose(file["30x30/energy"][:, 0], showers.incident / 1000)
        assert file["30x30/layers"][1, 3, 4, 5] == showers.voxels[1, 3 * 900 + 4 * 30 + 5]
    with ShowerReader(path, known) as reader:
        assert reader.overflow() is None


@pytest.mark.parametrize("name", CHALLENGE)
def test_the_challenge_can_evaluate_a_file(name: str, tmp_path: Path) -> None:
    """What the public evaluation script asks of a file, done the way it does it."""
    known = geometry(name)
    path = write(tmp_path / "submission.hdf5", known, showers_of(known, 3))
    write_binning(tmp_path / "binning.xml", known)
    given = h5py.File(path, "r")
    voxels_of = {"1-photons": 368, "1-pions": 533, "2": 6480, "3": 40500}[CHALLENGE[name]]
    assert given["showers"].shape == (given["incident_energies"].shape[0], voxels_of) == (3, voxels_of)
    shower, energy = given["showers"][:], given["incident_energies"][:]
    given.close()
    assert (energy.shape, energy.dtype) == ((3, 1), np.float64)
    edges, radii = challenge_edges(tmp_path / "binning.xml")
    assert edges[-1] == voxels_of
    for layer in known.layers:
        cells = shower[:, edges[layer.id] : edges[layer.id + 1]]
        assert cells.shape == (3, layer.n_voxels)
        np.testing.assert_allclose(layer.radii(), radii[layer.id])
    np.testing.assert_allclose(shower.sum(axis=-1), 0.9 * energy[:, 0], rtol=1e-4)
    assert np.concatenate([np.log10(energy), 100.0 * shower / energy], axis=1).dtype == np.float64


def challenge_edges(path: Path) -> tuple[list[int], list[list[float]]]:
    """First voxel of every layer of a binning, empty ones included, and the flat radii of its cells."""
    edges, radii = [0], []
    for particle in Tree.parse(path).getroot():
        for layer in particle:
            r = [float(edge) for edge in layer.attrib["r_edges"].split(",")]
            n_alpha = int(layer.attrib["n_bin_alpha"])
            radii.append(n_alpha * [0.5 * (a + b) for a, b in itertools.pairwise(r)])
            edges.append(edges[-1] + n_alpha * (len(r) - 1))
    return edges, radii


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("column", [True, False])
def test_any_float_is_read_and_energies_may_lack_the_axis(dtype: str, column: bool, tmp_path: Path) -> None:
    showers = showers_of(TOY, 3)
    incident = showers.incident[:, None] if column else showers.incident
    path = write_plain(tmp_path / "s.h5", incident, showers.voxels.astype(dtype))
    np.testing.assert_allclose(read_showers(path, TOY).voxels, showers.voxels, rtol=2e-3, atol=1e-6)


def test_chunks_select_and_read_agree_with_the_whole(tmp_path: Path) -> None:
    showers = showers_of(TOY, 2500)
    path = write(tmp_path / "s.h5", TOY, showers)
    with ShowerReader(path, TOY) as reader:
        assert len(reader) == 2500
        for size in (None, 700, 10_000):
            again = Showers.concatenate(list(reader.chunks(size)))
            np.testing.assert_array_equal(again.voxels, showers.voxels)
            np.testing.assert_array_equal(again.incident, showers.incident)
        index = np.array([0, 3, 4, 999, 2499])
        np.testing.assert_array_equal(reader.select(index).voxels, showers.voxels[index])
        assert len(reader.select([])) == len(reader.read(7, 7)) == 0
        np.testing.assert_array_equal(reader.read(5, 9).voxels, showers.voxels[5:9])
    assert len(read_showers(path, TOY, limit=12)) == 12
    assert len(read_showers(path, TOY, limit=99_999)) == 2500


def test_appending_in_parts_gives_the_same_showers(tmp_path: Path) -> None:
    showers = showers_of(TOY, 3000)
    with ShowerWriter(tmp_path / "s.h5", TOY) as writer:
        for start in range(0, 3000, 431):
            writer.append(showers[start : start + 431])
        assert writer.count == 3000
    np.testing.assert_array_equal(read_showers(tmp_path / "s.h5", TOY).voxels, showers.voxels)


def test_same_showers_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, TOY, showers_of(TOY, 50)) for name in ("a.h5", "b.h5"))
    assert first.read_bytes() == second.read_bytes()


def test_blocks_follow_the_chunks_of_the_file_and_stay_small(tmp_path: Path) -> None:
    known = geometry("ds3")
    data = np.zeros((60, known.n_voxels))
    data[:, 0] = 900.0
    path = write_plain(tmp_path / "s.h5", np.full((60, 1), 1e3), data, chunks=(15, 900), compression="gzip")
    with ShowerReader(path, known) as reader:
        assert reader.block % 15 == 0
        assert reader.block * known.n_voxels * 4 <= 1 << 26
    contiguous = write_plain(tmp_path / "c.h5", np.full((60, 1), 1e3), data)
    with ShowerReader(contiguous, known) as reader:
        assert reader.block * known.n_voxels * 4 <= 1 << 26


def test_memory_is_bounded_by_the_block_not_by_the_file(tmp_path: Path) -> None:
    known = geometry("ds3")
    piece = showers_of(known, 10)
    with ShowerWriter(tmp_path / "s.h5", known) as writer:
        for _ in range(20):
            writer.append(piece)
    whole = 200 * known.n_voxels * 4
    with ShowerReader(tmp_path / "s.h5", known) as reader:
        tracemalloc.start()
        try:
            assert sum(len(part) for part in reader.chunks(20)) == 200
            assert tracemalloc.get_traced_memory()[1] < whole / 2
        finally:
            tracemalloc.stop()


def test_an_error_while_writing_leaves_the_previous_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 5))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), ShowerWriter(path, TOY) as writer:
        writer.append(showers_of(TOY, 9, seed=1))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_is_not_written(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 5))
    with pytest.raises(ShowerDataError, match="no shower was written"), ShowerWriter(path, TOY):
        pass
    assert len(read_showers(path, TOY)) == 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-3])
def test_the_writer_refuses_impossible_voxels(value: float, tmp_path: Path) -> None:
    wrong = showers_of(TOY, 6)
    wrong.voxels[4, 100] = value
    with (
        pytest.raises(ShowerDataError, match=r"s\.h5: event 14, voxel 100 \(layer 2\)"),
        ShowerWriter(tmp_path / "s.h5", TOY) as writer,
    ):
        writer.append(showers_of(TOY, 10))
        writer.append(wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -5.0, 0.0])
def test_impossible_incident_energies(value: float, tmp_path: Path) -> None:
    wrong = showers_of(TOY, 6)
    wrong.incident[3] = value
    with pytest.raises(ShowerDataError, match="event 3 has the incident energy"):
        write(tmp_path / "w.h5", TOY, wrong)
    path = write_plain(tmp_path / "s.h5", wrong.incident[:, None], wrong.voxels)
    with pytest.raises(ShowerDataError, match=r"s\.h5: event 3 has the incident energy"):
        ShowerReader(path, TOY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3, 1e300])
def test_the_reader_refuses_impossible_voxels(value: float, tmp_path: Path) -> None:
    showers = showers_of(TOY, 30)
    voxels = showers.voxels.astype(np.float64)
    voxels[21, 239] = value
    path = write_plain(tmp_path / "s.h5", showers.incident[:, None], voxels)
    with ShowerReader(path, TOY) as reader:
        assert len(reader.read(0, 21)) == 21
        for fails in (lambda: reader.read(20, 25), lambda: reader.select([3, 21]), lambda: list(reader.chunks(8))):
            with pytest.raises(ShowerDataError, match=r"s\.h5: event 21, voxel 239 \(layer 4\)"):
                fails()


def test_the_writer_refuses_another_number_of_voxels(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="240"), ShowerWriter(tmp_path / "s.h5", TOY) as writer:
        writer.append(Showers(np.ones(2), np.ones((2, 239))))


@pytest.mark.parametrize(("n_voxels", "guess"), [(368, "ds1-photons"), (6480, "ds2"), (7, "TOML")])
def test_a_wrong_voxel_count_names_both_geometries(n_voxels: int, guess: str, tmp_path: Path) -> None:
    path = write_plain(tmp_path / "s.h5", np.full((2, 1), 2e3), np.ones((2, n_voxels)))
    with pytest.raises(ShowerDataError, match=rf"toy needs \(N, 240\).*{guess}"):
        ShowerReader(path, TOY)


def test_voxels_that_are_not_flat_are_refused(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "s.h5", np.full((2, 1), 2e3), np.ones((2, 5, 8, 6)))
    with pytest.raises(ShowerDataError, match="240 voxels are those of toy"):
        ShowerReader(path, TOY)


def test_a_file_of_other_cells_with_the_same_count(tmp_path: Path) -> None:
    other = dataclasses.replace(
        TOY, name="wide", layers=tuple(Layer.polar(k, 8, (0, 3, 6, 12, 20, 35, 60)) for k in range(5))
    )
    path = write(tmp_path / "s.h5", other, showers_of(other, 3))
    with pytest.raises(GeometryError, match=r"'wide'.*toy"):
        ShowerReader(path, TOY)


@pytest.mark.parametrize(
    ("incident", "voxels", "message"),
    [
        (np.full((3, 1), 2e3), np.ones((2, 240)), "2 rows in showers, but 3 in incident_energies"),
        (np.full((2, 1), 2e3), np.ones((3, 240)), "3 rows in showers, but 2"),
        (np.zeros((0, 1)), np.zeros((0, 240)), "holds no showers"),
        (np.float64(3.0), np.ones((2, 240)), "holds no showers"),
        (np.full((2, 2), 2e3), np.ones((2, 240)), r"must be \(2, 1\)"),
        (np.full((2, 1), 2000), np.ones((2, 240)), "has the type int64"),
        (np.full((2, 1), 2e3), np.ones((2, 240), dtype=np.int32), "showers has the type int32"),
    ],
)
def test_wrong_structure(incident: Any, voxels: Any, message: str, tmp_path: Path) -> None:
    path = write_plain(tmp_path / "s.h5", incident, voxels)
    with pytest.raises(ShowerDataError, match=message):
        ShowerReader(path, TOY)


def test_another_layout_lists_what_the_file_has(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 3))
    with pytest.raises(ShowerDataError, match=r"no dataset 'energy', only incident_energies, showers"):
        ShowerReader(path, TOY, layout="calogan")


def test_layouts_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="calochallenge, calogan, getting-high"):
        ShowerWriter(tmp_path / "s.h5", TOY, layout="root")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="equal layers of rectangular cells"):
        ShowerWriter(tmp_path / "s.h5", TOY, layout="getting-high")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        ShowerReader(tmp_path / "none.h5", TOY)
    with pytest.raises(StorageError, match="no such file"):
        ShowerReader(tmp_path, TOY)
    with pytest.raises(StorageError, match="cannot write"):
        ShowerWriter(tmp_path / "none" / "s.h5", TOY)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file(kept: float, tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 500))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CorruptFileError, match=r"s\.h5: not HDF5, truncated or altered.*again"):
        read_showers(path, TOY)


def test_a_file_that_is_not_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_text("incident_energies,showers\n" * 100)
    with pytest.raises(CorruptFileError, match=r"s\.h5: not HDF5"):
        ShowerReader(path, TOY)


def test_altered_voxels(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 500))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with ShowerReader(path, TOY) as reader, pytest.raises(CorruptFileError, match=r"s\.h5"):
        reader.read(0, 500)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(
    ("energy", "voxel", "message"),
    [
        (1e-3, 1e-3, "they look like GeV"),
        (1e-3, 1.0, "they look like GeV"),
        (1e3, 1e3, "they look like keV"),
        (1.0, 1e-3, "voxels look like GeV"),
        (1.0, 1e3, "voxels look like keV"),
    ],
)
def test_mixed_units(name: str, energy: float, voxel: float, message: str, tmp_path: Path) -> None:
    known = dataclasses.replace(geometry(name), layout="calochallenge", response=1.0)
    if name in ("ds3", "getting-high"):  # large files, the same code
        known = dataclasses.replace(known, layers=known.layers[:2])
    showers = showers_of(known, 40)
    path = write_plain(tmp_path / "s.h5", showers.incident[:, None] * energy, showers.voxels * np.float32(voxel))
    with pytest.raises(ShowerDataError, match=message):
        read_showers(path, known)


def test_units_of_layouts_in_gev(tmp_path: Path) -> None:
    known = geometry("calogan")
    path = write(tmp_path / "s.h5", known, showers_of(known, 20))
    with h5py.File(path, "r+") as file:
        file["energy"][...] *= 1000
    with pytest.raises(ShowerDataError, match="look like MeV, this layout has GeV"):
        ShowerReader(path, known)


def test_silicon_deposits_of_getting_high_are_not_taken_for_a_wrong_unit(tmp_path: Path) -> None:
    known = geometry("getting-high")
    path = write(tmp_path / "s.h5", known, showers_of(known, 12))
    with h5py.File(path, "r+") as file:
        file["30x30/layers"][...] /= 1000
    with pytest.raises(ShowerDataError, match=r"getting-high has about 0\.025"):
        read_showers(path, known)


def test_law_abiding_extremes_pass(tmp_path: Path) -> None:
    """Empty showers, single weak ones, pions of 6.9 times their energy, energies of no data set."""
    known = geometry("ds1-pions")
    showers = showers_of(known, 30)
    showers.voxels[:25] = 0
    assert len(read_showers(write(tmp_path / "empty.h5", known, showers), known)) == 30
    showers.voxels[:] = 0
    assert len(read_showers(write(tmp_path / "all.h5", known, showers), known)) == 30
    weak = showers_of(known, 1)
    weak.voxels[...] *= np.float32(1e-4)
    assert len(read_showers(write(tmp_path / "weak.h5", known, weak), known)) == 1
    strong = showers_of(known, 30)
    strong.voxels[...] *= np.float32(6.93 / 0.9)
    assert len(read_showers(write(tmp_path / "strong.h5", known, strong), known)) == 30
    beam = showers_of(known, 30)
    beam = Showers(np.full(30, 5e7), beam.voxels * (5e7 / beam.incident)[:, None])
    assert len(read_showers(write(tmp_path / "beam.h5", known, beam), known)) == 30


def core(n: int) -> Showers:
    """Showers of `toy` whose energy falls by three with each ring."""
    rng = np.random.default_rng(2)
    rings = 3.0 ** -np.arange(6) * rng.exponential(size=(n, 5, 8, 6))
    incident = TOY.incident.sample(n, rng)
    voxels = rings.reshape(n, -1)
    return Showers(incident, voxels * (0.9 * incident / voxels.sum(axis=1))[:, None])


def test_voxels_with_the_radius_slow_are_refused(tmp_path: Path) -> None:
    right = core(200)
    swapped = right.voxels.reshape(-1, 5, 8, 6).swapaxes(2, 3).reshape(200, -1)
    assert len(read_showers(write(tmp_path / "right.h5", TOY, right), TOY)) == 200
    wrong = write(tmp_path / "wrong.h5", TOY, Showers(right.incident, swapped))
    with pytest.raises(ShowerDataError, match="r fastest"):
        read_showers(wrong, TOY)


def test_numbers_outside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", TOY, showers_of(TOY, 10))
    with ShowerReader(path, TOY) as reader:
        for start, stop in ((-1, 3), (5, 11), (6, 5)):
            with pytest.raises(ShowerDataError, match="showers 0 to 9"):
                reader.read(start, stop)
        for index in ([3, 2], [3, 3], [-1, 2], [9, 10]):
            with pytest.raises(ShowerDataError, match="increase within 0 to 9"):
                reader.select(index)
        with pytest.raises(ConfigError, match="size"):
            list(reader.chunks(0))
    with pytest.raises(StorageError, match="is closed"):
        reader.read(0, 1)
    with pytest.raises(ConfigError, match="limit"):
        read_showers(path, TOY, limit=0)


def test_showers_check_their_shapes() -> None:
    for incident, voxels in ((np.ones((2, 1)), np.ones((2, 3))), (np.ones(2), np.ones((3, 3))), (np.ones(2), 1.0)):
        with pytest.raises(ShapeError, match="n_voxels"):
            Showers(incident, np.asarray(voxels))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no showers"):
        Showers.concatenate([])
    with pytest.raises(ShapeError, match=r"\[2, 3\]"):
        Showers.concatenate([Showers(np.ones(1), np.ones((1, k), np.float32)) for k in (2, 3)])


def test_showers_are_indexed_by_slice_numbers_and_mask() -> None:
    showers = showers_of(TOY, 5)
    mask = np.array([True, False, False, True, False])
    for index in (slice(0, 4, 3), np.array([0, 3]), mask):
        np.testing.assert_array_equal(showers[index].voxels, showers.voxels[[0, 3]])
        assert len(showers[index]) == 2


@given(st.integers(0, 400), st.lists(st.floats(0, 0.33), max_size=3), st.integers(0, 2**40))
def test_splits_are_disjoint_increasing_and_of_the_right_size(n: int, fractions: list[float], seed: int) -> None:
    parts = split(n, fractions, seed)
    joined = np.concatenate([np.zeros(0, int), *parts])
    assert len(np.unique(joined)) == len(joined) <= n
    assert all(0 <= number < n for number in joined)
    for part, fraction in zip(parts, fractions, strict=True):
        assert np.all(np.diff(part) > 0)
        assert abs(len(part) - fraction * n) <= 1
    for first, second in zip(parts, split(n, fractions, seed), strict=True):
        np.testing.assert_array_equal(first, second)


def test_fractions_of_sum_one_use_every_shower() -> None:
    parts = split(1001, (0.7, 0.2, 0.1), seed=4)
    assert [len(part) for part in parts] == [701, 200, 100]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1001))
    assert not np.array_equal(parts[0], split(1001, (0.7, 0.2, 0.1), seed=5)[0])


@pytest.mark.parametrize("fractions", [(0.7, 0.4), (-0.1, 0.5), (np.nan,), (np.inf,)])
def test_wrong_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        split(10, fractions, seed=0)


# Columns


@pytest.mark.parametrize(("name", "layout"), [("toy", None), ("calogan", None), ("getting-high", None), ("ds2", None)])
def test_columns_are_those_of_whole_showers(name: str, layout: Any, tmp_path: Path) -> None:
    known = geometry(name)
    n, last = known.n_voxels, known.starts[-2]
    path = write(tmp_path / "s.h5", known, showers_of(known, 9), layout=layout)
    whole = read_showers(path, known)
    with ShowerReader(path, known) as reader:
        for columns in (slice(0, n), slice(last, n), slice(1, 2), slice(known.starts[1] - 1, last + 1)):
            part = reader.read(2, 7, columns)
            np.testing.assert_array_equal(part.voxels, whole.voxels[2:7, columns])
            np.testing.assert_array_equal(part.incident, whole.incident[2:7])
            np.testing.assert_array_equal(reader.select([0, 3, 8], columns).voxels, whole.voxels[[0, 3, 8], columns])
        assert reader.read(4, 4, slice(1, 3)).voxels.shape == (0, 2)
        for wrong in (slice(0, n + 1), slice(-1, 3), slice(5, 5), slice(0, 4, 2)):
            with pytest.raises(ShapeError, match=f"has voxels 0 to {n - 1}, got the columns"):
                reader.read(0, 1, wrong)
            with pytest.raises(ShapeError, match="got the columns"):
                reader.select([0], wrong)


def test_wrong_values_of_columns_are_named(tmp_path: Path) -> None:
    showers = showers_of(TOY, 20)
    showers.voxels[7, 100] = np.nan
    path = write_plain(tmp_path / "s.h5", showers.incident[:, None], showers.voxels)
    layer = TOY.layers[int(TOY.layer_of_voxel[100])].id
    with ShowerReader(path, TOY) as reader:
        reader.read(0, 20, slice(0, 100))
        reader.select([3, 6, 8], slice(101, 110))
        for read in (lambda c: reader.read(5, 20, c), lambda c: reader.select([3, 7], c)):
            with pytest.raises(ShowerDataError, match=rf"event 7, voxel 100 \(layer {layer}\) is nan"):
                read(slice(90, 110))
