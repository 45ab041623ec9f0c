"""Showers that are read, but not without a word: without energy, with angles, at energies that no model has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny_model import TinyModel, showers, write_file

from nisampler.calo.data.files import ShowerReader, read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.evaluation.evaluate import EvaluationOptions, evaluate
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import load_model
from nisampler.calo.generation import generate
from nisampler.calo.recipe import FitOptions
from nisampler.errors import ModelError, ShowerDataError

TOY = geometry("toy")
QUICK = EvaluationOptions(classifiers=(), distances=False, report=False, control=False)


def odd_file(path: Path, empty: int = 0, **angles: Any) -> Path:
    """Forty showers, some of which have no energy, with further datasets."""
    made = showers(TOY, 40)
    made.voxels[:empty] = 0.0
    with ShowerWriter(path, TOY) as writer:
        writer.append(made)
    with h5py.File(path, "a") as file:
        for name, values in angles.items():
            file[name] = values
    return path


@pytest.mark.parametrize("wrong", [1e30, -1e3, 0.0, np.nan, np.inf])
def test_impossible_incident_energies_are_refused(wrong: float, tmp_path: Path) -> None:
    path = odd_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["incident_energies"][17] = wrong
    with pytest.raises(ShowerDataError, match=r"event 17 has the incident energy .* positive and at most 1e\+15"):
        ShowerReader(path, TOY)
    energies = np.full(3, 1e4)
    energies[1] = wrong
    with pytest.raises(ShowerDataError, match="the incident energies: event 1"):
        generate(TinyModel(TOY).eval(), 3, tmp_path / "b.h5", incident=energies)


def test_an_impossible_voxel_is_refused(tmp_path: Path) -> None:
    path = odd_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["showers"][3, 5] = 1e30
    with pytest.raises(ShowerDataError, match=r"event 3, voxel 5 .* is 1e\+30 MeV"):
        read_showers(path, TOY)


def test_angles_and_empty_showers_are_said(tmp_path: Path) -> None:
    path = odd_file(tmp_path / "a.h5", 8, theta=np.zeros(40), incident_phi=np.zeros((40, 1)), note=np.zeros(3))
    with ShowerReader(path, TOY) as reader:
        assert reader.unused == ("incident_phi", "theta")
    assert read_showers(path, TOY).empty == 8
    plain = write_file(tmp_path / "plain.h5", TOY, 40)
    told = evaluate(path, {"same": plain}, TOY, tmp_path / "first", QUICK)["warnings"]
    assert sum("also holds incident_phi, theta for each shower" in text for text in told) == 1
    assert any("of the reference have no energy" in text for text in told)
    told = evaluate(plain, {"odd": path}, TOY, tmp_path / "second", QUICK)["warnings"]
    assert any("showers of odd have no energy in any voxel" in text for text in told)


def test_a_fit_says_so_too_and_generation_knows_its_range(tmp_path: Path) -> None:
    path = odd_file(tmp_path / "a.h5", 8, theta=np.zeros(40))
    fitted = fit(DataOptions(path), TOY, "small-teacher", tmp_path / "model", FitOptions(epochs=1, batch=20))
    angles, empty = fitted.warnings
    assert "theta" in angles and "showers that were looked at have no energy" in empty
    model = load_model(tmp_path / "model")
    low, high = fitted.model.trained_energies or (0.0, 0.0)
    assert model.trained_energies == (low, high) and 0 < low < high
    made = generate(model, 4, tmp_path / "b.h5", incident=np.array([low, high, 3 * high, 0.5 * low]))
    assert made.outside == 2 and "2 of 4 incident energies lie outside" in made.warnings[0]
    with pytest.raises(ModelError, match="60 times the highest that the model learned from"):
        generate(model, 1, tmp_path / "c.h5", incident=np.array([60 * high]))
    assert not (tmp_path / "c.h5").exists()


def test_nothing_can_be_learned_from_showers_without_energy(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with ShowerWriter(path, TOY) as writer:
        writer.append(Showers(np.full(40, 1e4), np.zeros((40, 240), dtype=np.float32)))
    assert read_showers(path, TOY).empty == 40
    with pytest.raises(ShowerDataError, match="nothing to learn"):
        fit(DataOptions(path), TOY, "small-teacher", tmp_path / "model", FitOptions(epochs=1))
