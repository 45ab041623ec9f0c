"""High-level features against slow sums over cells, their dimensions, pieces against one go, wrong showers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.evaluation.controls import shuffle_voxels
from nisampler.calo.evaluation.correlations import layer_correlations, mean_difference, rank_correlations
from nisampler.calo.evaluation.features import CHUNK, Features, angular_layers
from nisampler.calo.evaluation.neighbours import nearest
from nisampler.errors import ConfigError, ShapeError, ShowerDataError

TINY = Geometry(
    name="tiny",
    particle="electron",
    pdg=11,
    layers=(
        Layer.polar(0, 1, (0, 1, 3)),
        Layer.polar(3, 4, (0, 2, 5, 6)),
        Layer(7, "rectangular", (-4.0, 0.0, 1.0), (-3.0, -1.0, 1.0, 3.0)),
    ),
    threshold=0.5,
    incident=IncidentEnergy("log-uniform", (1e3, 1e5)),
)


def random_showers(geometry: Geometry, n: int, seed: int = 0, empty: float = 0.5) -> Showers:
    rng = np.random.default_rng(seed)
    voxels = rng.lognormal(1.0, 2.0, (n, geometry.n_voxels)) * (rng.random((n, geometry.n_voxels)) > empty)
    return Showers(geometry.incident.sample(n, rng), voxels.astype(np.float32))


def slow_layer(layer: Layer, cells: list[float], threshold: float) -> dict[str, float]:
    """The features of one layer of one shower, cell by cell."""
    entries = []
    for i in range(len(layer.first) - 1):
        for j in range(len(layer.second) - 1):
            energy = cells[i * (len(layer.second) - 1) + j]
            u, v = (layer.first[i] + layer.first[i + 1]) / 2, (layer.second[j] + layer.second[j + 1]) / 2
            x, y = (u, v) if layer.kind == "rectangular" else (v * math.cos(u), v * math.sin(u))
            r = math.hypot(u, v) if layer.kind == "rectangular" else v
            entries.append((energy if energy >= threshold else 0.0, x, y, r))
    total = sum(entry[0] for entry in entries)
    found = {"energy": total, "sparsity": sum(entry[0] == 0 for entry in entries) / len(entries)}
    for place, name in ((1, "eta"), (2, "phi"), (3, "r")):
        mean = sum(entry[0] * entry[place] for entry in entries) / total if total else 0.0
        square = sum(entry[0] * entry[place] ** 2 for entry in entries) / total if total else 0.0
        found[name], found[f"{name}_width"] = mean, math.sqrt(max(0.0, square - mean**2))
    return found


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_features_agree_with_sums_over_cells(seed: int, empty: float) -> None:
    showers = random_showers(TINY, 5, seed, empty)
    found = Features.of(showers, TINY)
    assert angular_layers(TINY) == (1, 2)
    for i in range(5):
        for position, layer in enumerate(TINY.layers):
            expected = slow_layer(layer, showers.voxels[i, TINY.slice(position)].tolist(), TINY.threshold)
            for name in ("energy", "sparsity", "r", "r_width"):
                assert getattr(found, name)[i, position] == pytest.approx(expected[name], rel=1e-9, abs=1e-6), name
            if position:
                for name in ("eta", "phi", "eta_width", "phi_width"):
                    value = getattr(found, name)[i, position - 1]
                    assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-6), name
    lit = np.where(showers.voxels >= TINY.threshold, showers.voxels, 0.0)
    np.testing.assert_allclose(found.total, lit.sum(axis=1, dtype=np.float64))
    np.testing.assert_allclose(found.response, lit.sum(axis=1, dtype=np.float64) / showers.incident)
    np.testing.assert_allclose(found.hottest, lit.max(axis=1))
    np.testing.assert_allclose(found.occupancy(TINY), (lit > 0).mean(axis=1))


@pytest.mark.parametrize(("name", "dim"), [("ds1-photons", 30), ("ds1-pions", 46), ("ds2", 362), ("ds3", 362)])
def test_high_level_vectors_have_the_dimensions_of_the_challenge(name: str, dim: int) -> None:
    known = geometry(name)
    vector = Features.of(random_showers(known, 3), known).high_level_vector()
    assert vector.shape == (3, dim)
    assert np.isfinite(vector).all()


def test_high_level_vector_in_the_order_of_the_challenge() -> None:
    found = Features.of(random_showers(TINY, 4), TINY)
    vector = found.high_level_vector()
    np.testing.assert_allclose(vector[:, 0], np.log10(found.incident))
    np.testing.assert_allclose(vector[:, 1:4], np.log10(found.energy + 1e-8))
    np.testing.assert_allclose(vector[:, 4:6], found.eta / 100)
    np.testing.assert_allclose(vector[:, 10:12], found.phi_width / 100)
    np.testing.assert_allclose(vector[:, 12], np.log10(found.total + 1e-8))
    np.testing.assert_allclose(vector[:, 13:16], found.sparsity)
    np.testing.assert_allclose(vector[:, 19:22], found.r_width / 100)
    assert vector.shape[1] == 22


def test_an_empty_shower_has_finite_features() -> None:
    showers = Showers(np.array([1e3]), np.zeros((1, TINY.n_voxels), dtype=np.float32))
    found = Features.of(showers, TINY)
    assert found.sparsity.tolist() == [[1.0, 1.0, 1.0]]
    for item in dataclasses.fields(found):
        assert np.isfinite(getattr(found, item.name)).all()
    assert np.isfinite(found.high_level_vector()).all()


def test_features_in_pieces_are_those_in_one_go() -> None:
    showers = random_showers(TINY, CHUNK + 37)
    whole = Features.of(showers, TINY)
    pieces = Features.stream((showers[start : start + 700] for start in range(0, len(showers), 700)), TINY)
    assert len(whole) == len(pieces) == len(showers)
    for item in dataclasses.fields(whole):
        np.testing.assert_allclose(getattr(whole, item.name), getattr(pieces, item.name), rtol=1e-12, atol=1e-7)


def test_threshold_is_part_of_the_features() -> None:
    showers = random_showers(TINY, 50)
    assert (Features.of(showers, TINY, 0.0).total > Features.of(showers, TINY).total).any()


def test_wrong_showers_are_refused() -> None:
    showers = random_showers(TINY, 3)
    with pytest.raises(ShapeError, match="tiny has showers"):
        Features.of(Showers(showers.incident, showers.voxels[:, :-1]), TINY)
    voxels = showers.voxels.copy()
    voxels[1, 3] = np.nan
    with pytest.raises(ShowerDataError, match=r"shower 1 .* layer 3"):
        Features.of(Showers(showers.incident, voxels), TINY)
    with pytest.raises(ShowerDataError, match="incident"):
        Features.of(Showers(np.array([1.0, -1.0, 2.0]), showers.voxels), TINY)
    with pytest.raises(ShapeError, match="concatenated"):
        Features.concatenate([])


def test_correlations_agree_with_numpy() -> None:
    energies = np.random.default_rng(0).normal(size=(200, 5)) @ np.random.default_rng(1).normal(size=(5, 4)) + 10.0
    np.testing.assert_allclose(layer_correlations(energies), np.corrcoef(energies, rowvar=False), atol=1e-12)
    energies[:, 2] = 0.1
    matrix = layer_correlations(energies)
    assert matrix[2].tolist() == [0.0, 0.0, 1.0, 0.0]
    first, second = np.eye(3), np.array([[1.0, 0.3, 0.0], [0.3, 1.0, -0.6], [0.0, -0.6, 1.0]])
    assert mean_difference(first, second) == pytest.approx(0.3)
    assert mean_difference(np.eye(1), np.eye(1)) == 0.0
    with pytest.raises(ShapeError, match="cannot be compared"):
        mean_difference(np.eye(2), np.eye(3))
    for correlations in (layer_correlations, rank_correlations):
        with pytest.raises(ShapeError, match="two showers"):
            correlations(energies[:1])


def test_rare_leakage_does_not_rule_rank_correlations() -> None:
    """Ten showers in a thousand with a thousand times the energy in both layers make independent layers look alike."""
    energies = np.random.default_rng(2).exponential(size=(1000, 2))
    clean = rank_correlations(energies)
    np.testing.assert_allclose(clean[0, 1], spearmanr(energies).statistic)
    energies[:10] *= 1e3
    assert layer_correlations(energies)[0, 1] > 0.3
    assert abs(rank_correlations(energies)[0, 1] - clean[0, 1]) < 0.03


@pytest.mark.parametrize("neighbours", [None, 20])
def test_shuffled_voxels_keep_every_spectrum_and_lose_correlations(neighbours: int | None) -> None:
    rng = np.random.default_rng(0)
    incident = TINY.incident.sample(2000, rng)
    common = rng.lognormal(0.0, 1.0, (2000, 1))
    voxels = (common * rng.lognormal(0.0, 0.1, (2000, TINY.n_voxels))).astype(np.float32)
    showers = Showers(incident, voxels)
    shuffled = shuffle_voxels(showers, TINY, np.random.default_rng(1), neighbours)
    np.testing.assert_array_equal(shuffled.incident, incident)
    np.testing.assert_array_equal(np.sort(shuffled.voxels, axis=0), np.sort(voxels, axis=0))
    before, after = np.corrcoef(voxels, rowvar=False), np.corrcoef(shuffled.voxels, rowvar=False)
    assert before[0, 1] > 0.9
    assert abs(after[0, 1]) < 0.1


def test_shuffling_among_neighbours_keeps_the_energy_dependence() -> None:
    rng = np.random.default_rng(0)
    incident = TINY.incident.sample(1000, rng)
    showers = Showers(incident, np.repeat(incident[:, None], TINY.n_voxels, axis=1).astype(np.float32))
    near = shuffle_voxels(showers, TINY, np.random.default_rng(1), 10)
    far = shuffle_voxels(showers, TINY, np.random.default_rng(1), None)
    assert np.corrcoef(np.log(incident), np.log(near.voxels[:, 0]))[0, 1] > 0.99
    assert abs(np.corrcoef(np.log(incident), np.log(far.voxels[:, 0]))[0, 1]) < 0.1
    with pytest.raises(ConfigError, match="neighbours = 1: must be a whole number, at least 2"):
        shuffle_voxels(showers, TINY, rng, 1)


def test_nearest_neighbour_of_a_copy_is_the_original() -> None:
    reference = random_showers(TINY, 300)
    found = nearest(reference[10:20], reference, TINY)
    np.testing.assert_array_equal(found.index, np.arange(10, 20))
    np.testing.assert_array_equal(found.distance, 0.0)
    other = nearest(random_showers(TINY, 10, seed=5), reference, TINY)
    assert (other.distance > 0.1).all()


def test_nearest_neighbour_agrees_with_a_search_over_all() -> None:
    reference, showers = random_showers(TINY, 60), random_showers(TINY, 5, seed=1)
    found = nearest(showers, reference, TINY, pool=60)
    logs = [np.log10(np.maximum(item.voxels.astype(np.float64), TINY.threshold)) for item in (showers, reference)]
    distance = np.sqrt(((logs[0][:, None] - logs[1][None]) ** 2).mean(axis=2))
    np.testing.assert_array_equal(found.index, distance.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distance.min(axis=1), rtol=1e-5)


def test_nearest_neighbour_has_about_the_same_energy() -> None:
    rng = np.random.default_rng(2)
    voxels = random_showers(TINY, 400).voxels
    discrete = Showers(rng.choice([1e3, 2e3, 4e3], 400), voxels)
    found = nearest(discrete[:20], discrete[20:], TINY, pool=50)
    np.testing.assert_array_equal(discrete.incident[20:][found.index], discrete.incident[:20])
    smooth = Showers(np.geomspace(1e3, 1e5, 400), voxels)
    found = nearest(smooth[::50], smooth, TINY, pool=5)
    assert (np.abs(found.index - np.arange(0, 400, 50)) <= 5).all()
    with pytest.raises(ShapeError, match="no reference shower"):
        nearest(discrete[:2], discrete[:0], TINY)


def test_shuffling_keeps_the_spectrum_at_each_discrete_energy() -> None:
    incident = np.repeat([1e3, 2e3], 60)
    rng = np.random.default_rng(3)
    voxels = np.where(incident[:, None] < 1.5e3, 1.0, 100.0) * rng.exponential(size=(120, TINY.n_voxels))
    order = rng.permutation(120)
    showers = Showers(incident[order], voxels[order].astype(np.float32))
    mixed = shuffle_voxels(showers, TINY, np.random.default_rng(4), neighbours=50)
    for energy in (1e3, 2e3):
        here = showers.incident == energy
        np.testing.assert_array_equal(np.sort(mixed.voxels[here], axis=0), np.sort(showers.voxels[here], axis=0))
    assert not np.array_equal(mixed.voxels, showers.voxels)
