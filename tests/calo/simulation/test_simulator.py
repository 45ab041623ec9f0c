"""The simulator against reference statistics, Geant4's layer correlations, and its own controls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.detector import Stack, detector
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.simulation import simulator as module
from nisampler.calo.simulation.gflash import average_profile
from nisampler.calo.simulation.simulator import Simulator, shard_size, simulate_file, simulator
from nisampler.errors import ConfigError, GeometryError, ShowerDataError

DATA = Path(__file__).parent / "data"
DS2 = geometry("ds2")


def _simulate(engine: Simulator, n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    incident = engine.geometry.incident.sample(n, rng)
    return incident, engine.simulate(incident, rng)


def _distance(voxels: np.ndarray, name: str) -> np.ndarray:
    published = json.loads((DATA / "geant4_layer_correlations.json").read_text())[name]
    layers = geometry(name).layer_energies(voxels)
    return np.abs(np.corrcoef(layers.T) - np.asarray(published))


@pytest.fixture(scope="module")
def ds2() -> tuple[np.ndarray, np.ndarray]:
    return _simulate(simulator(DS2), 4000)


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_every_geometry_gives_finite_showers(name: str) -> None:
    engine = simulator(geometry(name))
    incident, voxels = _simulate(engine, 30)
    assert voxels.dtype == np.float32 and voxels.shape == (30, engine.geometry.n_voxels)
    assert np.isfinite(voxels).all() and (voxels >= 0).all()
    ratio = voxels.sum(axis=1) / incident
    low, high = {"getting-high": (0.015, 0.04), "ds1-pions": (0.5, 1.0)}.get(name, (0.75, 1.05))
    assert low < ratio.mean() < high
    assert 0 < np.count_nonzero(voxels) < voxels.size


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_low_energies_are_finite(name: str) -> None:
    incident = np.linspace(50.0, 1000.0, 20)
    voxels = simulator(geometry(name)).simulate(incident, np.random.default_rng(1))
    assert np.isfinite(voxels).all() and (voxels >= 0).all()
    assert voxels.sum() > 0


def test_hits_energy_and_profiles_of_the_cascade(ds2: tuple[np.ndarray, np.ndarray]) -> None:
    reference = json.loads((DATA / "cascade_reference.json").read_text())
    incident, voxels = ds2
    edges = np.asarray(reference["edges_GeV"]) * 1e3
    for row, low, high in zip(reference["rows"], edges[:-1], edges[1:], strict=True):
        chosen = (incident >= low) & (incident < high)
        showers, energies = voxels[chosen], incident[chosen]
        assert np.count_nonzero(showers, axis=1).mean() == pytest.approx(row["hits"], rel=0.1)
        ratio = showers.sum(axis=1, dtype=np.float64) / energies
        assert ratio.mean() == pytest.approx(row["energy_ratio"][0], abs=0.01)
        assert ratio.std() == pytest.approx(row["energy_ratio"][1], rel=0.25)
        layers = (DS2.layer_energies(showers) / energies[:, None]).mean(axis=0)
        expected = np.asarray(row["layer_fraction"])
        assert np.abs(layers - expected).max() < 0.015
        assert np.abs(layers - expected).sum() < 0.08
        rings = showers.reshape(len(showers), 45, 16, 9).sum(axis=(1, 2), dtype=np.float64)
        rings = (rings / rings.sum(axis=1, keepdims=True)).mean(axis=0)
        assert np.abs(rings - row["ring_fraction"]).max() < 0.03


def test_layer_correlations_of_geant4(ds2: tuple[np.ndarray, np.ndarray]) -> None:
    distance = _distance(ds2[1], "ds2")
    assert distance.mean() <= 0.06
    assert distance[:30, :30].mean() <= 0.04
    # deep layers hold 1e-4 of the energy; GFLASH's tail follows the shape of the shower too closely
    assert distance[40:].mean() <= 0.16


def test_without_the_early_layers_the_correlations_are_wrong() -> None:
    plain = dataclasses.replace(detector(DS2), early=None)
    distance = _distance(_simulate(Simulator(DS2, plain), 3000)[1], "ds2")
    assert distance.mean() > 0.08
    assert distance[0].mean() > 0.3


def test_layer_correlations_of_photons() -> None:
    distance = _distance(_simulate(simulator(geometry("ds1-photons")), 6000)[1], "ds1-photons")
    assert distance.mean() <= 0.12


def test_ds1_photons_have_the_resolution_of_the_calorimeter() -> None:
    incident = np.full(1500, 65_536.0)
    voxels = simulator(geometry("ds1-photons")).simulate(incident, np.random.default_rng(1))
    ratio = voxels.sum(axis=1, dtype=np.float64) / incident
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert ratio.std() * np.sqrt(65.536) == pytest.approx(0.105, abs=0.015)


def test_total_absorption_never_exceeds_the_incident_energy() -> None:
    incident, voxels = _simulate(simulator(geometry("calogan")), 300)
    ratio = voxels.sum(axis=1, dtype=np.float64) / incident
    assert ratio.max() <= 1 + 1e-5
    assert ratio.mean() > 0.97


def test_mean_longitudinal_profile_is_that_of_gflash() -> None:
    incident = np.full(600, 50e3)
    layers = DS2.layer_energies(simulator(DS2).simulate(incident, np.random.default_rng(2))).mean(axis=0)
    medium, stack = detector(DS2).medium, detector(DS2).stack
    expected = average_profile(np.asarray([50.0]), medium).fractions(np.zeros(1), stack.edges)[0]
    shares = layers / layers.sum()
    assert np.abs(shares - expected)[4:].max() < 0.1 * expected.max()
    assert abs(int(shares.argmax()) - int(expected.argmax())) <= 1


def test_photons_start_later_than_electrons() -> None:
    photons = dataclasses.replace(DS2, particle="photon", pdg=22)
    incident = np.full(400, 20e3)
    depths = []
    for known in (DS2, photons):
        voxels = Simulator(known, detector(DS2)).simulate(incident, np.random.default_rng(3))
        layers = known.layer_energies(voxels)
        depths.append(float((layers * np.arange(45)).sum() / layers.sum()))
    expected = 9 / 7 * detector(DS2).medium.radiation_length / 3.4
    assert depths[1] - depths[0] == pytest.approx(expected, rel=0.25)


def test_pions_are_deeper_and_wider_than_photons() -> None:
    fluctuation = {}
    for name in ("ds1-photons", "ds1-pions"):
        known = geometry(name)
        voxels = simulator(known).simulate(np.full(400, 65_536.0), np.random.default_rng(4))
        layers = known.layer_energies(voxels)
        behind = layers[:, [layer.id >= 12 for layer in known.layers]].sum() / layers.sum()
        fluctuation[name] = (voxels.sum(axis=1).std(), behind)
    assert fluctuation["ds1-pions"][0] > 3 * fluctuation["ds1-photons"][0]
    assert fluctuation["ds1-pions"][1] > 10 * fluctuation["ds1-photons"][1]


def test_the_seed_decides() -> None:
    engine = simulator(geometry("toy"))
    first, again, other = (_simulate(engine, 50, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_threshold_of_the_silicon(ds2: tuple[np.ndarray, np.ndarray]) -> None:
    voxels = ds2[1]
    assert voxels[voxels > 0].min() >= np.float32(DS2.threshold)


def test_no_showers_is_an_empty_array() -> None:
    assert simulator(DS2).simulate(np.zeros(0), np.random.default_rng(1)).shape == (0, 6480)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_impossible_energies(value: float) -> None:
    with pytest.raises(ShowerDataError, match="shower 1: the incident energy must be positive"):
        simulator(DS2).simulate(np.asarray([1e3, value]), np.random.default_rng(1))
    with pytest.raises(ShowerDataError, match=r"shape \(n,\)"):
        simulator(DS2).simulate(np.ones((2, 1)), np.random.default_rng(1))


def _stack(**changes: Any) -> Stack:
    arrays: Mapping[str, Any] = {
        "edges": np.arange(3.0),
        "layer": np.asarray([0, 1]),
        "moliere_radius": np.ones(2),
        "scale": np.ones(2),
        **changes,
    }
    return Stack(**arrays)


def test_named_errors_of_detectors() -> None:
    with pytest.raises(GeometryError, match=r"cannot simulate 'muon' \(PDG 13\)"):
        simulator(dataclasses.replace(DS2, particle="muon", pdg=13))
    with pytest.raises(GeometryError, match="no detector is known for the geometry 'mine'"):
        simulator(dataclasses.replace(DS2, name="mine"))
    with pytest.raises(GeometryError, match="interaction lengths"):
        simulator(dataclasses.replace(DS2, particle="pion", pdg=211))
    with pytest.raises(GeometryError, match="cannot be shared by 44 layers"):
        simulator(dataclasses.replace(DS2, layers=DS2.layers[:-1]))
    with pytest.raises(GeometryError, match="depths are known for the layers"):
        simulator(dataclasses.replace(DS2, name="ds1-photons"))
    with pytest.raises(GeometryError, match="has 3 layers"):
        simulator(dataclasses.replace(DS2, name="calogan"))
    with pytest.raises(GeometryError, match="every one of the 45 layers needs a slice"):
        Simulator(DS2, detector(geometry("calogan")))
    with pytest.raises(GeometryError, match="must increase"):
        _stack(edges=np.zeros(3))
    with pytest.raises(GeometryError, match="a stack of 2 slices"):
        _stack(scale=np.ones(3), interaction_edges=np.arange(3.0))


class _Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def line(self, text: str) -> None:
        raise NotImplementedError(text)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        self.seen.append((stage, done, total))
        assert set(figures) == {"E_tot/E_inc"}


def test_file_depends_on_the_seed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD_SHOWERS", 40)
    toy, recorder = geometry("toy"), _Recorder()
    figures = simulate_file(tmp_path / "a.h5", toy, 100, seed=7, monitor=recorder)
    simulate_file(tmp_path / "b.h5", toy, 100, seed=7)
    simulate_file(tmp_path / "c.h5", toy, 80, seed=7)
    simulate_file(tmp_path / "d.h5", toy, 100, seed=8)
    a, b, c, d = (read_showers(tmp_path / f"{name}.h5", toy) for name in "abcd")
    assert recorder.seen == [("simulating", done, 100) for done in (40, 80, 100)]
    assert np.array_equal(a.voxels, b.voxels) and np.array_equal(a.incident, b.incident)
    assert np.array_equal(a.voxels[:80], c.voxels)
    assert not np.array_equal(a.voxels, d.voxels)
    assert not np.array_equal(a.voxels[:20], a.voxels[40:60])
    assert figures["showers"] == 100
    assert figures["energy_ratio"] == pytest.approx(np.mean(a.voxels.sum(axis=1) / a.incident), rel=1e-5)
    assert figures["occupancy"] == pytest.approx(np.mean(a.voxels > toy.threshold))


def test_file_has_the_names_of_the_challenge(tmp_path: Path) -> None:
    simulate_file(tmp_path / "ds2.h5", DS2, 3, seed=1)
    with h5py.File(tmp_path / "ds2.h5") as handle:
        assert handle["incident_energies"].shape == (3, 1)
        assert handle["showers"].shape == (3, 6480)


def test_memory_of_a_shard_is_bounded() -> None:
    for known in GEOMETRIES.values():
        assert 1 <= shard_size(known) and 4 * shard_size(known) * known.n_voxels <= 2**26


def test_named_errors_of_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n = 0: must be a whole number, at least 1"):
        simulate_file(tmp_path / "a.h5", DS2, 0, seed=1)
    with pytest.raises(ConfigError, match="seed = "):
        simulate_file(tmp_path / "a.h5", DS2, 1, seed=-1)
    assert not list(tmp_path.iterdir())
