"""Crossings of active layers: their mean, a sharp lower edge, and peaks at one and two of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.detector.detector import detector
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.simulation.crossings import Crossings
from nisampler.calo.simulation.simulator import Simulator, simulator
from nisampler.cli import app
from nisampler.errors import GeometryError

MIP = 3.2
SHARP, SMOOTH = Crossings.of(6.0, MIP, 6.25), Crossings.of(6.0, 0.0, 6.25)
SLAB = """
name = "slab"
threshold = 0.0
incident = { law = "uniform", energies = [1000, 5000] }

[[layers]]
repeat = 5
r = [0, 20, 40, 80]
alpha = 4
absorber = 3.5
active = 0.3

[material]
absorber = "tungsten"
active = "silicon"
"""


def energies(law: Crossings, count: int, n: int = 40_000) -> np.ndarray:
    return law.sums(np.full(n, count), np.random.default_rng(count))


def between(x: np.ndarray, low: float, high: float) -> float:
    return float(((x >= low) & (x < high)).mean())


@pytest.mark.parametrize("law", [SHARP, SMOOTH], ids=["sharp", "smooth"])
@pytest.mark.parametrize("count", [1, 2, 32, 33, 200])
def test_crossings_add_up_to_their_mean_with_the_variance_of_one(law: Crossings, count: int) -> None:
    x = energies(law, count, 20_000)
    assert x.mean() == pytest.approx(count * law.mean, rel=0.015)
    assert x.var() == pytest.approx(count * law.mean**2 / law.shape, rel=0.15)
    assert law.mean == 6.0


def test_none_leave_nothing() -> None:
    assert np.array_equal(SHARP.sums(np.array([0, 3, 0]), np.random.default_rng(1)) > 0, [False, True, False])


def test_one_crossing_has_a_sharp_lower_edge_and_a_long_tail() -> None:
    x = energies(SHARP, 1)
    assert between(x, 0, 0.8 * MIP) < 1e-3
    assert between(x, 0.94 * MIP, 1.12 * MIP) > 8 * between(x, 0.7 * MIP, 0.88 * MIP)
    assert between(x, 3 * MIP, np.inf) > 0.05
    # the control: a smooth law of the same mean has no edge there
    smooth = energies(SMOOTH, 1)
    assert between(smooth, 0, 0.8 * MIP) > 0.03
    assert between(smooth, 0.94 * MIP, 1.12 * MIP) < 4 * between(smooth, 0.7 * MIP, 0.88 * MIP)


@pytest.mark.parametrize("mean", [2.0, 3.0, 5.0, 9.0])
def test_a_mean_that_no_path_has_becomes_the_nearest(mean: float) -> None:
    law = Crossings.of(mean, MIP, 6.25)
    assert 1.0 < law.mean / MIP < 2.0
    assert energies(law, 1).mean() == pytest.approx(law.mean, rel=0.015)


def spectrum(name: str) -> np.ndarray:
    """Hits of showers of electrons of 1 to 10 GeV."""
    known, rng = geometry(name), np.random.default_rng(1)
    voxels = simulator(known).simulate(np.exp(rng.uniform(*np.log([1e3, 1e4]), 1500)), rng)
    return voxels[voxels > 0]


def test_cells_of_silicon_have_a_peak_at_one_crossing() -> None:
    sharp, smooth = spectrum("toy-silicon"), spectrum("toy")
    # hits below the edge, and in the valley before two crossings
    assert between(sharp, 3.0, 3.6) > 3 * between(sharp, 2.2, 2.8)
    assert between(sharp, 3.0, 3.6) > 1.2 * between(sharp, 4.6, 5.2)
    assert between(smooth, 3.0, 3.6) < 2 * between(smooth, 2.2, 2.8)
    assert len(sharp) == pytest.approx(len(smooth), rel=0.03)


def test_energies_and_resolution_stay() -> None:
    incident = np.full(1500, 5e3)
    sums = [
        simulator(geometry(name)).simulate(incident, np.random.default_rng(2)).sum(1) for name in ("toy", "toy-silicon")
    ]
    assert sums[1].mean() == pytest.approx(sums[0].mean(), rel=0.006)
    assert sums[1].std() == pytest.approx(sums[0].std(), rel=0.12)


def test_a_file_of_ones_own_asks_for_them(tmp_path: Path) -> None:
    path = tmp_path / "slab.toml"
    for law in ("smooth", "landau"):
        path.write_text(SLAB + f'crossings = "{law}"\n')
        own = read_geometry(path)
        mip = detector(own).response.mip
        assert (mip > 0) == (law == "landau")
        assert own == type(own).from_dict(own.to_dict())
    assert mip == pytest.approx(0.75 * 0.388 * 0.3, rel=0.02)  # MeV: density times ionisation times thickness
    voxels = simulator(own).simulate(np.full(400, 3e3), np.random.default_rng(1))
    assert between(voxels[voxels > 0], 0.95 * mip, 1.12 * mip) > 2 * between(voxels[voxels > 0], 0.7 * mip, 0.87 * mip)
    path.write_text(SLAB + 'crossings = "sharp"\n')
    with pytest.raises(GeometryError, match=r'material\.crossings = "sharp"'):
        read_geometry(path)


def test_the_command_line_makes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    arguments = ["simulate", "--geometry", "toy-silicon", "--showers", "300", "-o", str(path), "-q"]
    assert CliRunner().invoke(app, ["calo", *arguments]).exit_code == 0
    voxels = read_showers(path, geometry("toy-silicon")).voxels
    assert between(voxels[voxels > 0], 3.0, 3.6) > 2.5 * between(voxels[voxels > 0], 2.2, 2.8)


def test_early_layers_have_the_same_peak() -> None:
    """Where crossings of single slices have a mean of their own, the peak stays: the paths differ."""
    ds2 = geometry("ds2")
    plain = detector(ds2)
    engine = Simulator(ds2, dataclasses.replace(plain, response=dataclasses.replace(plain.response, mip=MIP)))
    assert {law.mip for law in engine._crossings} == {MIP}
    assert engine._crossings[0].mean < engine._crossings[-1].mean
