"""Generated files: exact counts, seeds, incident energies, the layout of the challenge, and showers that fail."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny_model import TinyModel, showers, write_file

from nisampler.calo.data.files import read_showers
from nisampler.calo.data.particles import read_particles
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.generation import freeze_draw, generate
from nisampler.calo.models import ShowerModel, build_model
from nisampler.errors import ConfigError, ModelError, StorageError
from nisampler.ui.monitor import Monitor

TOY = geometry("toy")


def model(broken: float = 0.0, name: str = "toy") -> TinyModel:
    made = TinyModel(geometry(name), broken)
    with torch.no_grad():
        made.total.values.copy_(torch.tensor([-0.5, -2.0]))
    return made.eval()


def test_exact_count_and_seeds(tmp_path: Path) -> None:
    tiny = model()
    made = generate(tiny, 250, tmp_path / "a.h5", seed=5, shard=100)
    assert (made.showers, made.redrawn, made.empty) == (250, 0, 0) and tiny.sizes == [100, 100, 50]
    first = read_showers(tmp_path / "a.h5", TOY)
    assert len(first) == 250 and made.energy_ratio == pytest.approx(np.exp(-0.5), rel=0.05)
    assert made.energy_ratio == pytest.approx(float(np.mean(first.voxels.sum(1) / first.incident)), rel=1e-5)
    assert made.occupancy == pytest.approx(float(np.mean(first.voxels > TOY.threshold)))
    generate(model(), 250, tmp_path / "b.h5", seed=5, shard=100)
    generate(model(), 120, tmp_path / "short.h5", seed=5, shard=100)
    generate(model(), 250, tmp_path / "c.h5", seed=6, shard=100)
    again, short, other = (read_showers(tmp_path / f"{name}.h5", TOY) for name in ("b", "short", "c"))
    assert np.array_equal(again.voxels, first.voxels) and np.array_equal(again.incident, first.incident)
    assert np.array_equal(short.voxels[:100], first.voxels[:100])
    assert not np.array_equal(other.voxels, first.voxels)


def test_incident_energies_of_the_law_and_of_a_file(tmp_path: Path) -> None:
    generate(model(), 500, tmp_path / "law.h5")
    low, high = TOY.incident.values
    law = read_showers(tmp_path / "law.h5", TOY).incident
    assert law.min() >= low and law.max() <= high and law.max() / law.min() > 20
    given = read_particles(write_file(tmp_path / "given.h5", TOY, 60), TOY, None)
    generate(model(), 60, tmp_path / "same.h5", incident=given, shard=25)
    assert np.array_equal(read_showers(tmp_path / "same.h5", TOY).incident, given)
    assert len(read_particles(tmp_path / "given.h5", TOY, 20)) == 20
    with pytest.raises(ConfigError, match="has 60 incident energies, 61"):
        read_particles(tmp_path / "given.h5", TOY, 61)


@pytest.mark.parametrize(("name", "voxels"), [("ds1-photons", 368), ("ds2", 6480), ("ds3", 40500)])
def test_layout_of_the_challenge(tmp_path: Path, name: str, voxels: int) -> None:
    """What its evaluation script reads: two datasets, MeV, showers flat, one incident energy in each row."""
    generate(model(name=name), 3, tmp_path / "showers.h5")
    with h5py.File(tmp_path / "showers.h5") as file:
        assert set(file) == {"incident_energies", "showers"}
        incident, showers = file["incident_energies"][:], file["showers"][:]
    assert incident.shape == (3, 1) and incident.dtype == np.float64
    assert showers.shape == (3, voxels) and showers.dtype.kind == "f" and bool((showers >= 0).all())
    low, high = geometry(name).incident.values[0], geometry(name).incident.values[-1]
    assert bool(((incident >= low) & (incident <= high)).all())
    assert showers.sum(1) / incident[:, 0] == pytest.approx(np.exp(-0.5), rel=0.5)


def test_failed_showers_are_drawn_again_and_counted(tmp_path: Path) -> None:
    made = generate(model(broken=0.005), 1000, tmp_path / "a.h5", shard=400)
    assert 0 < made.redrawn <= 20
    showers = read_showers(tmp_path / "a.h5", TOY)
    assert len(showers) == 1000 and bool(np.isfinite(showers.voxels).all())
    sound = generate(model(), 1000, tmp_path / "b.h5", shard=400)
    assert sound.redrawn == 0
    same = (read_showers(tmp_path / "b.h5", TOY).voxels == showers.voxels).all(1)
    assert np.count_nonzero(~same) <= made.redrawn


def test_too_many_failed_showers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"too many showers that are not finite.*MeV; train it longer"):
        generate(model(broken=0.5), 200, tmp_path / "a.h5")
    with pytest.raises(ModelError, match="too many"):
        generate(model(broken=1.0), 1, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def variational(preset: str = "small-inn-bayesian") -> ShowerModel:
    made = build_model(preset, TOY)
    made.prepare(showers(TOY, 200), torch.Generator().manual_seed(1))
    return made.eval()


def test_draws_of_the_weights_are_numbered(tmp_path: Path) -> None:
    """Each number is a draw of its own, the same for the same seed, and nothing but the weights differs."""
    made, bayesian = {}, variational()
    for name, seed, draw in (("means", 3, None), ("1", 3, 1), ("0", 3, 0), ("other", 4, 1), ("1 again", 3, 1)):
        if draw is not None:
            freeze_draw(bayesian, seed, draw)
        generate(bayesian, 20, tmp_path / f"{name}.h5", seed=3)
        made[name] = read_showers(tmp_path / f"{name}.h5", TOY)
    assert np.array_equal(made["1"].voxels, made["1 again"].voxels)
    different = [made[name].voxels for name in ("means", "0", "1", "other")]
    for first in range(4):
        for second in range(first):
            assert not np.array_equal(different[first], different[second])
    assert all(np.array_equal(item.incident, made["means"].incident) for item in made.values())


def test_only_variational_weights_can_be_drawn() -> None:
    with pytest.raises(ModelError, match="choose a Bayesian preset"):
        freeze_draw(variational("small-inn"), 1, 0)
    with pytest.raises(ConfigError, match="draw = -1: must be a whole number, at least 0"):
        freeze_draw(variational(), 1, -1)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n = 0: must be a whole number, at least 1"):
        generate(model(), 0, tmp_path / "a.h5")
    with pytest.raises(ConfigError, match="shard = 0: must be a whole number, at least 1"):
        generate(model(), 1, tmp_path / "a.h5", shard=0)
    with pytest.raises(ConfigError, match=r"shape \(5,\)"):
        generate(model(), 5, tmp_path / "a.h5", incident=np.ones(4))
    with pytest.raises(StorageError, match="cannot write"):
        generate(model(), 5, tmp_path / "none" / "a.h5")


def test_progress_is_told(tmp_path: Path) -> None:
    told = []

    class Listen(Monitor):
        def progress(self, stage: str, done: int, total: int, figures: object) -> None:
            told.append((stage, done, total))

    generate(model(), 25, tmp_path / "a.h5", shard=10, monitor=Listen())
    assert told == [("generating", 10, 25), ("generating", 20, 25), ("generating", 25, 25)]
