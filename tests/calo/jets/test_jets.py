"""Jets in memory and in files: round trips, the layouts that are read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_jets import small_jets

from nisampler.calo.jets.files import JETS, PARTICLES, TYPE, JetWriter, read_all, read_jets, write_jets
from nisampler.calo.jets.jets import Jets, type_number
from nisampler.errors import ConfigError, CorruptFileError, JetDataError, ShapeError, StorageError


def same(first: Jets, second: Jets) -> bool:
    names = ("constituents", "mask", "types", "pt", "eta", "mass")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    jets = small_jets(300)
    write_jets(tmp_path / "a.hdf5", jets)
    assert same(read_jets(tmp_path / "a.hdf5"), jets)
    assert same(read_jets(tmp_path / "a.hdf5", limit=7), jets[:7])
    with JetWriter(tmp_path / "b.hdf5", jets.most) as writer:
        for start in range(0, 300, 70):
            writer.append(jets[start : start + 70])
    assert same(read_jets(tmp_path / "b.hdf5"), jets)
    both = read_all([tmp_path / "a.hdf5", tmp_path / "b.hdf5"])
    assert len(both) == 600 and same(both[300:], jets)


def plain(path: Path, jets: Jets, columns: int = 4) -> Path:
    """A file as JetNet has it, of one type and without saying so; with five columns the type comes first."""
    particles = np.concatenate([jets.constituents, jets.mask[..., None]], axis=2)
    features = np.column_stack([jets.types, jets.pt, jets.eta, jets.mass, jets.count])[:, 5 - columns :]
    with h5py.File(path, "w") as file:
        file[PARTICLES], file[JETS] = particles, features
    return path


def test_published_files_are_read_by_their_name(tmp_path: Path) -> None:
    jets = small_jets(20, types=(2,))
    for name in ("t.hdf5", "t30.hdf5", "t150.hdf5"):
        assert same(read_jets(plain(tmp_path / name, jets)), jets)
    assert read_jets(plain(tmp_path / "w.hdf5", jets)).types.tolist() == [3] * 20
    assert read_jets(plain(tmp_path / "mine.hdf5", jets), kind="q").types.tolist() == [1] * 20
    assert same(read_jets(plain(tmp_path / "five.hdf5", jets, 5)), jets)


def test_the_package_jetnet_finds_its_columns(tmp_path: Path) -> None:
    """pt, eta, mass, num_particles in this order, and the mask as fourth number of a constituent."""
    jets = small_jets(5)
    write_jets(tmp_path / "g.hdf5", jets)
    with h5py.File(tmp_path / "g.hdf5") as file:
        np.testing.assert_allclose(file[JETS][:], np.column_stack([jets.pt, jets.eta, jets.mass, jets.count]))
        assert np.array_equal(file[PARTICLES][..., 3] > 0.5, jets.mask)


def test_the_hardest_come_first() -> None:
    jets = small_jets(50)
    few = jets.leading(3)
    assert few.most == 3 and np.all(np.diff(few.constituents[..., 2], axis=1) <= 0)
    hardest = np.sort(np.where(jets.mask, jets.constituents[..., 2], 0), axis=1)[:, ::-1][:, :3]
    np.testing.assert_array_equal(few.constituents[..., 2], hardest)


def spoiled(**changes: Any) -> Jets:
    jets = small_jets(4)
    values = {name: np.array(getattr(jets, name)) for name in ("constituents", "mask", "types", "pt", "eta", "mass")}
    for name, (place, value) in changes.items():
        values[name][place] = value
    return Jets(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constituents": ((1, 0, 0), np.nan)}, "jet 1 has constituents that are not finite, as 1 of 4"),
        ({"constituents": ((2, 0, 2), -0.1)}, "jet 2 has a constituent of negative ptrel"),
        ({"mask": (3, False)}, "jet 3 has no constituent"),
        ({"pt": (0, 0.0)}, "jet 0 has a pt that is not positive"),
        ({"pt": (0, np.inf)}, "jet 0 has a pt that is not positive"),
        ({"eta": (0, np.nan)}, "jet 0 has an eta that is not finite"),
        ({"mass": (1, -1.0)}, "jet 1 has a mass that is negative"),
        ({"types": (1, 7)}, "jet 1 has a type beyond 0 to 4"),
    ],
)
def test_malformed_jets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(JetDataError, match=message):
        spoiled(**changes)


def test_shapes_are_checked() -> None:
    jets = small_jets(4)
    with pytest.raises(ShapeError, match=r"constituents \(n, m, 3\)"):
        Jets(jets.constituents[..., :2], jets.mask, jets.types, jets.pt, jets.eta, jets.mass)
    with pytest.raises(ShapeError, match=r"4 jets need eta \(4,\)"):
        Jets(jets.constituents, jets.mask, jets.types, jets.pt, jets.eta[:3], jets.mass)
    with pytest.raises(ShapeError, match="equal numbers of places"):
        Jets.concatenate([jets, jets.leading(3)])
    with pytest.raises(ConfigError, match="no jets of type 'b'"):
        type_number("b")


def test_files_that_are_no_jets_are_refused(tmp_path: Path) -> None:
    jets = small_jets(10, types=(0,))
    with pytest.raises(StorageError, match="no such file"):
        read_jets(tmp_path / "nowhere.hdf5")
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(CorruptFileError, match=r"text\.hdf5: not HDF5"):
        read_jets(tmp_path / "text.hdf5")
    with pytest.raises(JetDataError, match="does not say of which type"):
        read_jets(plain(tmp_path / "mine.hdf5", jets))
    with h5py.File(plain(tmp_path / "g.hdf5", jets), "a") as file:
        file[PARTICLES][3, 0, 1] = np.inf
    with pytest.raises(JetDataError, match=r"g\.hdf5: jet 3 has constituents that are not finite"):
        read_jets(tmp_path / "g.hdf5")
    with pytest.raises(ShapeError, match="no file of jets"):
        read_all([])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (PARTICLES, None, "jets need particle_features and jet_features"),
        (PARTICLES, (10, 8, 3), r"must be \(jets, constituents, 4\)"),
        (JETS, (10, 3), r"must be \(10, 4\) with pt, eta, mass"),
        (JETS, (9, 4), r"must be \(10, 4\)"),
        (TYPE, (9,), "a number for each of 10 jets"),
    ],
)
def test_wrong_datasets_are_named(tmp_path: Path, name: str, shape: tuple[int, ...] | None, message: str) -> None:
    path = tmp_path / "a.hdf5"
    write_jets(path, small_jets(10))
    with h5py.File(path, "a") as file:
        del file[name]
        if shape is not None:
            file[name] = np.ones(shape)
    with pytest.raises(JetDataError, match=message):
        read_jets(path)


def test_writers_refuse_what_does_not_fit_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="8 constituents a jet, got jets of 3"), JetWriter(tmp_path / "a", 8) as writer:
        writer.append(small_jets(4).leading(3))
    with pytest.raises(JetDataError, match="no jet was written"), JetWriter(tmp_path / "a", 8):
        pass
    assert list(tmp_path.iterdir()) == []
