"""The registered geometries against the numbers of the published data sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.errors import GeometryError

SIZES = {
    "ds1-photons": (8, 160, 190, 5, 5),
    "ds1-pions": (8, 100, 100, 5, 150, 160, 10),
    "ds2": (144,) * 45,
    "ds3": (900,) * 45,
    "calogan": (288, 144, 72),
    "getting-high": (900,) * 30,
    "toy": (48,) * 5,
    "ds2-reduced": (144,) * 9,
    "toy-silicon": (48,) * 5,
}
TOTALS = {
    "ds1-photons": 368,
    "ds1-pions": 533,
    "ds2": 6480,
    "ds3": 40500,
    "calogan": 504,
    "getting-high": 27000,
    "toy": 240,
    "ds2-reduced": 1296,
    "toy-silicon": 240,
}


def test_the_registry_has_every_geometry() -> None:
    assert set(GEOMETRIES) == set(SIZES)
    assert all(geometry(name).name == name for name in GEOMETRIES)


@pytest.mark.parametrize("name", SIZES)
def test_voxels_of_every_layer(name: str) -> None:
    known = geometry(name)
    assert known.sizes == SIZES[name]
    assert known.n_voxels == TOTALS[name]


@pytest.mark.parametrize(
    ("name", "ids"), [("ds1-photons", [0, 1, 2, 3, 12]), ("ds1-pions", [0, 1, 2, 3, 12, 13, 14]), ("ds2", range(45))]
)
def test_layer_numbers_are_those_of_the_challenge(name: str, ids: list[int]) -> None:
    assert [layer.id for layer in geometry(name).layers] == list(ids)


@pytest.mark.parametrize(
    ("name", "particle", "pdg", "layout"),
    [
        ("ds1-photons", "photon", 22, "calochallenge"),
        ("ds1-pions", "pion", 211, "calochallenge"),
        ("ds2", "electron", 11, "calochallenge"),
        ("ds3", "electron", 11, "calochallenge"),
        ("calogan", "positron", -11, "calogan"),
        ("getting-high", "photon", 22, "getting-high"),
        ("toy", "electron", 11, "calochallenge"),
    ],
)
def test_particle_and_layout(name: str, particle: str, pdg: int, layout: str) -> None:
    known = geometry(name)
    assert (known.particle, known.pdg, known.layout) == (particle, pdg, layout)


@pytest.mark.parametrize(
    ("name", "threshold"),
    [("ds1-photons", 1.0), ("ds1-pions", 1.0), ("ds2", 1 / 66), ("ds3", 1 / 66), ("calogan", 0.01),
     ("getting-high", 0.1), ("toy", 1 / 66)],
)  # fmt: skip
def test_thresholds(name: str, threshold: float) -> None:
    assert geometry(name).threshold == pytest.approx(threshold, rel=1e-12)


@pytest.mark.parametrize(("name", "total"), [("ds1-photons", 121_000), ("ds1-pions", 120_800)])
def test_discrete_energies_have_the_counts_of_one_file(name: str, total: int) -> None:
    law = geometry(name).incident
    assert (law.kind, len(law.values), law.values[0], law.values[-1]) == ("discrete", 15, 256.0, 4_194_304.0)
    assert sum(law.counts) == total


@pytest.mark.parametrize(
    ("name", "kind", "low", "high"),
    [
        ("ds2", "log-uniform", 1e3, 1e6),
        ("ds3", "log-uniform", 1e3, 1e6),
        ("calogan", "uniform", 1e3, 1e5),
        ("getting-high", "uniform", 1e4, 1e5),
        ("toy", "log-uniform", 1e3, 1e5),
    ],
)
def test_continuous_energy_laws(name: str, kind: str, low: float, high: float) -> None:
    law = geometry(name).incident
    assert (law.kind, law.values) == (kind, (low, high))


def test_cells_of_data_sets_2_and_3() -> None:
    for name, n_alpha, step in (("ds2", 16, 4.65), ("ds3", 50, 2.325)):
        layer = geometry(name).layers[7]
        assert layer.shape == (n_alpha, round(41.85 / step))
        np.testing.assert_allclose(np.diff(layer.second), step, rtol=1e-9)
        assert layer.second[-1] == 41.85
        np.testing.assert_allclose(np.diff(layer.first), 2 * math.pi / n_alpha, rtol=1e-9)
    assert geometry("ds2").layers[0].second[3] == 13.95  # the decimal of the binning file, not 3 × 4.65


def test_cells_of_calogan_cover_480_mm() -> None:
    first, second, third = geometry("calogan").layers
    cells = [(layer.first[1] - layer.first[0], layer.second[1] - layer.second[0]) for layer in (first, second, third)]
    assert cells == [(160.0, 5.0), (40.0, 40.0), (40.0, 80.0)]
    assert {(layer.first[0], layer.second[-1]) for layer in (first, second, third)} == {(-240.0, 240.0)}


def test_cells_of_getting_high_are_square() -> None:
    layer = geometry("getting-high").layers[0]
    np.testing.assert_allclose(np.diff([layer.first, layer.second]), 5.0883, rtol=1e-9)


def test_only_equal_layers_make_a_grid() -> None:
    assert geometry("ds3").grid == (45, 50, 18)
    assert geometry("ds1-photons").grid is None


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(GeometryError, match=r"'ds4'.*ds1-photons.*getting-high.*toy"):
        geometry("ds4")


@pytest.mark.parametrize("name", SIZES)
def test_json_round_trip_keeps_the_fingerprint(name: str) -> None:
    known = geometry(name)
    again = Geometry.from_dict(known.to_dict())
    assert (again, again.digest) == (known, known.digest)


def test_fingerprints_tell_all_geometries_apart() -> None:
    others = {name: known.digest for name, known in GEOMETRIES.items() if name != "toy-silicon"}
    assert len(set(others.values())) == len(others)
    assert geometry("toy-silicon").digest == geometry("toy").digest  # the same cells
