"""Whether showers look alike from all sides: the test, what a fit makes of it, and what then is learned from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.detector import detector
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, Layer
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import describe, load_model
from nisampler.calo.fitting.symmetry import SIGNIFICANCE, asymmetry, choose_symmetry
from nisampler.calo.models import FlowConfig, ModelConfig, ShowerModel
from nisampler.calo.models.base import symmetry_table
from nisampler.calo.models.presets.preset import clear_noise
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.calo.simulation.simulator import Simulator
from nisampler.errors import ConfigError
from nisampler.flows import NetConfig

TOY = geometry("toy")
NOT_DIVISIBLE = Geometry(
    "mirrored", "photon", 22, (Layer.polar(0, 3, (0, 1, 2)), Layer.polar(1, 4, (0, 1))), 0.01, TOY.incident
)
_FLOW = FlowConfig(blocks=2, net=NetConfig(hidden=8, layers=1))
TINY = ModelConfig("two-step", clear_noise(TOY), (_FLOW, _FLOW), (Recipe(1, 500, 1e-3),) * 2, symmetric=True)


@pytest.fixture(scope="module")
def showers() -> Showers:
    incident = TOY.incident.sample(3000, np.random.default_rng(1))
    return Showers(incident, Simulator(TOY, detector(TOY)).simulate(incident, np.random.default_rng(2)))


def by_azimuth(showers: Showers, amplitude: float, phases: Any = 0.0, twist: float = 0.0) -> Showers:
    """Voxels weighted by 1 + a cos(alpha - phase - twist * layer)."""
    weights = []
    for number, layer in enumerate(TOY.layers):
        alpha = np.asarray(layer.first)[:-1] + np.pi / layer.shape[0]
        angle = alpha[:, None] - twist * number - np.atleast_1d(phases)
        weights.append(np.repeat(1 + amplitude * np.cos(angle).T, layer.shape[1], axis=1))
    return Showers(showers.incident, (showers.voxels * np.concatenate(weights, axis=1)).astype(np.float32))


def turned_at_random(showers: Showers, rng: np.random.Generator) -> Showers:
    table = symmetry_table(TOY)
    rows = table[rng.integers(len(table), size=len(showers))]
    return Showers(showers.incident, np.take_along_axis(showers.voxels, rows, axis=1))


def sectors(voxels: Any) -> Any:
    """Mean energy of each angular bin in each layer."""
    mean = np.asarray(voxels, dtype=np.float64).mean(axis=0)
    return np.concatenate([mean[TOY.slice(i)].reshape(layer.shape).sum(axis=1) for i, layer in enumerate(TOY.layers)])


def write(path: Path, showers: Showers) -> Path:
    with ShowerWriter(path, TOY) as writer:
        writer.append(showers)
    return path


def test_symmetric_showers_pass_as_often_as_stated(showers: Showers) -> None:
    """p-values of samples that are symmetric by construction are not smaller than they should be."""
    rng = np.random.default_rng(3)
    found = np.array([asymmetry(turned_at_random(showers, rng)[:500].voxels, TOY) for _ in range(100)])
    assert np.mean(found < 0.05) <= 0.12 and np.mean(found < SIGNIFICANCE) <= 0.02 and found.max() > 0.3


@pytest.mark.parametrize(("amplitude", "n"), [(0.02, 3000), (0.2, 200)])
def test_an_azimuth_is_found(showers: Showers, amplitude: float, n: int) -> None:
    found = asymmetry(by_azimuth(showers, amplitude)[:n].voxels, TOY)
    assert found is not None and found < SIGNIFICANCE


def test_a_sense_of_rotation_is_found(showers: Showers) -> None:
    """Each shower leans somewhere, and further layers to the left of it: all sectors are equal, mirrors are not."""
    phases = 2 * np.pi * np.random.default_rng(4).integers(8, size=len(showers)) / 8
    leaning = turned_at_random(by_azimuth(showers, 0.5, phases), np.random.default_rng(5))
    twisted = by_azimuth(showers, 0.5, phases, twist=0.6)
    straight, found = asymmetry(leaning.voxels, TOY), asymmetry(twisted.voxels, TOY)
    assert straight is not None and found is not None and found < SIGNIFICANCE < straight


def test_layers_without_a_common_turn_are_mirrored() -> None:
    voxels = np.random.default_rng(6).exponential(size=(1000, 10)).astype(np.float32)
    assert len(symmetry_table(NOT_DIVISIBLE)) == 2
    found = [
        asymmetry(voxels * np.asarray(weights), NOT_DIVISIBLE)
        for weights in ([1] * 6 + [2, 1, 1, 2], [2] * 2 + [1] * 8)
    ]
    assert found[0] is not None and found[1] is not None and found[1] < SIGNIFICANCE < found[0]


def test_what_is_said(showers: Showers) -> None:
    lopsided, few, empty = by_azimuth(showers, 0.1), showers[:30], Showers(np.ones(50), np.zeros((50, 240)))
    cases = [
        ("auto", True, showers, True, False, "look alike from all sides"),
        ("auto", True, lopsided, False, True, f"do not look alike from all sides .*tested at {SIGNIFICANCE:g}"),
        ("auto", False, showers, False, False, "settings of the model"),
        ("auto", True, few, True, True, "30 are too few to test"),
        ("auto", True, empty, True, True, "too few"),
        ("on", False, lopsided, True, True, "as asked, though they do not look alike"),
        ("off", True, showers, False, False, "stay as they are: as asked"),
    ]
    for choice, preset, data, turned, warning, text in cases:
        found = choose_symmetry(choice, preset, data, TOY)  # type: ignore[arg-type]
        assert (found.turned, found.warning) == (turned, warning)
        assert re.search(text, found.text)
    boxes = geometry("getting-high")
    assert not choose_symmetry("auto", True, few, boxes).turned
    with pytest.raises(ConfigError, match="choose --symmetry off"):
        choose_symmetry("on", True, few, boxes)
    with pytest.raises(ConfigError, match="symmetry"):
        FitOptions(symmetry="maybe")  # type: ignore[arg-type]


def learned_from(model: ShowerModel, data: Showers) -> Any:
    """Sector energies of the showers that a model's losses see, there and back through its coordinates."""
    source = torch.Generator().manual_seed(1)
    voxels, incident = torch.as_tensor(data.voxels), torch.as_tensor(data.incident, dtype=torch.float32)
    y, _ = model.coordinates(voxels, incident, source, turned=True)
    return sectors(model.preprocessing.showers(y, incident))


def test_an_asymmetric_sample_is_learned_as_it_is(showers: Showers, tmp_path: Path) -> None:
    lopsided = by_azimuth(showers, 0.2)
    found = {}
    for name, data, options in (
        ("symmetric", showers, FitOptions()),
        ("auto", lopsided, FitOptions()),
        ("on", lopsided, FitOptions(symmetry="on")),
    ):
        fitted = fit(DataOptions(write(tmp_path / f"{name}.h5", data)), TOY, TINY, tmp_path / name, options)
        model = found[name] = fitted.model
        assert fitted.symmetry is not None
        assert fitted.symmetry.turned == model.symmetric == load_model(tmp_path / name).symmetric
        assert describe(tmp_path / name)["config"]["symmetric"] == model.symmetric
        assert fitted.symmetry.text in (tmp_path / name / "fit.log").read_text()
    assert [model.symmetric for model in found.values()] == [True, False, True]
    # what is above the threshold, as the models make it
    truth = sectors(np.where(lopsided.voxels < TOY.threshold, 0, lopsided.voxels))
    assert learned_from(found["auto"], lopsided) == pytest.approx(truth, rel=0.02)
    assert np.abs(learned_from(found["on"], lopsided) / truth - 1).max() > 0.1, "the negative control"
    assert found["auto"].preprocessing.cells.marginals is not None
    resumed = fit(DataOptions(tmp_path / "auto.h5"), TOY, TINY, tmp_path / "auto", resume=True)
    assert not resumed.model.symmetric
    with pytest.raises(ConfigError, match="begun with another config, symmetry"):
        fit(DataOptions(tmp_path / "auto.h5"), TOY, TINY, tmp_path / "auto", FitOptions(symmetry="on"), resume=True)
