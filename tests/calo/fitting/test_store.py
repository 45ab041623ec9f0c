"""The folder of a model: fitted, stored, read back, resumed; and every way in which it can be wrong."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, build, bytes_of, write_file

from nisampler.base.checkpoints import save_checkpoint
from nisampler.base.locks import lock_folder
from nisampler.base.storage import read_sealed, write_sealed
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import describe, load_model, stored_geometry
from nisampler.calo.recipe import FitOptions
from nisampler.errors import (
    ConfigError,
    CorruptFileError,
    GeometryError,
    ModelError,
    NisamplerError,
    ShowerDataError,
    StorageError,
)
from nisampler.ui.monitor import Monitor

TOY = geometry("toy")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", build)
    monkeypatch.setattr("nisampler.calo.fitting.store.build_model", build)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("store") / "showers.h5", TOY, 500)


@pytest.fixture(scope="module")
def fitted(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nisampler.calo.fitting.fit.build_model", build)
        fit(DataOptions(file), TOY, "tiny", folder, FitOptions(seed=2))
    return folder


@pytest.fixture
def folder(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "model"))


def edit(folder: Path, **changes: Any) -> None:
    """Another description, with a checksum of its own."""
    path = folder / "model.json"
    write_sealed(path, read_sealed(path) | changes)


def test_stored_and_read_back(fitted: Path, file: Path, tmp_path: Path) -> None:
    made = fit(DataOptions(file), TOY, "tiny", tmp_path / "model", FitOptions(seed=2))
    assert [part.name for part in made.parts] == ["total", "shape"]
    assert bytes_of(tmp_path / "model") == bytes_of(fitted)
    loaded = load_model(fitted, TOY)
    assert isinstance(loaded, TinyModel) and not loaded.training
    assert loaded.state_dict().keys() == made.model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in made.model.state_dict().items())
    assert loaded.mean.item() == pytest.approx(np.log(0.7), abs=0.02)
    data = describe(fitted)
    assert data["model"] == "tiny" and data["seed"] == 2 and data["parts"] == ["total", "shape"]
    assert (data["data"]["showers"], data["data"]["training"], data["data"]["validation"]) == (500, 450, 50)
    assert stored_geometry(fitted) == TOY
    assert "validation loss" in (fitted / "fit.log").read_text()
    records = json.loads((fitted / "parts" / "shape" / "training.json").read_text())
    assert records["history"][-1]["validation"] < records["history"][0]["validation"]


def test_resume_gives_the_same_bytes(fitted: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt(Monitor):
        def __init__(self) -> None:
            self.stage = ""

        def progress(self, stage: str, done: int, total: int, figures: object) -> None:
            if stage == "fit shape" and done > 950:
                raise KeyboardInterrupt

    options = FitOptions(seed=2, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(DataOptions(file), TOY, "tiny", tmp_path / "model", options, monitor=Interrupt())
    with pytest.raises(ModelError, match="not finished"):
        load_model(tmp_path / "model")
    with pytest.raises(StorageError, match="--resume"):
        fit(DataOptions(file), TOY, "tiny", tmp_path / "model", options)
    fit(DataOptions(file), TOY, "tiny", tmp_path / "model", options, resume=True)
    assert bytes_of(tmp_path / "model") == bytes_of(fitted)
    assert "2 of 3 epochs were done" in (tmp_path / "model" / "fit.log").read_text()


def test_streamed_showers_are_learned_too(file: Path, tmp_path: Path) -> None:
    made = fit(DataOptions(file, memory=2e5, limit=400), TOY, "tiny", tmp_path / "model", FitOptions(epochs=1))
    assert describe(tmp_path / "model")["data"]["showers"] == 400
    assert all(np.isfinite(part.best_loss) for part in made.parts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": FitOptions(seed=3)}, "another seed"),
        ({"options": FitOptions(seed=2, epochs=9)}, "another epochs"),
        ({"preset": "tiny-broken"}, "another model, config"),
        ({"limit": 100}, "another data"),
    ],
)
def test_resume_refuses_other_settings(folder: Path, file: Path, changes: dict[str, Any], words: str) -> None:
    arguments = {"preset": "tiny", "options": FitOptions(seed=2)} | changes
    data = DataOptions(file, limit=arguments.pop("limit", None))
    with pytest.raises(ConfigError, match=words):
        fit(data, TOY, output=folder, resume=True, **arguments)


def test_fit_needs_showers_and_a_place(folder: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds a fit: choose another --output, or continue with --resume"):
        fit(DataOptions(file), TOY, "tiny", folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(StorageError, match="exists and is not empty"):
            fit(DataOptions(file), TOY, "tiny", tmp_path / "full", resume=resume)
    with lock_folder(folder), pytest.raises(StorageError, match=f"in use by process {os.getpid()} on"):
        fit(DataOptions(file), TOY, "tiny", folder, FitOptions(seed=2), resume=True)
    with pytest.raises(StorageError, match="no model to resume"):
        fit(DataOptions(file), TOY, "tiny", tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match="too few"):
        fit(DataOptions(file, limit=1), TOY, "tiny", tmp_path / "none")
    with pytest.raises(ModelError, match="no model is called 'big'"):
        fit(DataOptions(file), TOY, "big", tmp_path / "none")
    with pytest.raises(ShowerDataError, match="ds1-photons needs"):
        fit(DataOptions(file), geometry("ds1-photons"), "tiny", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for wrong in ({"validation": 0.0}, {"memory": 0.0}, {"limit": 0}):
        with pytest.raises(ConfigError):
            DataOptions(file, **wrong)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("where", ["fit._prepare", "store.save_base", "store.write_sealed"])
def test_a_fit_that_was_ended_early_is_begun_again(
    where: str, resume: bool, fitted: Path, file: Path, tmp_path: Path
) -> None:
    """Before its description is written there is nothing to resume, and nothing that stands in the way."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    module, _, name = where.partition(".")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(importlib.import_module(f"nisampler.calo.fitting.{module}"), name, stop)
        fit(DataOptions(file), TOY, "tiny", tmp_path / "model", FitOptions(seed=2))
    assert "KeyboardInterrupt" in (tmp_path / "model" / "fit.log").read_text()
    fit(DataOptions(file), TOY, "tiny", tmp_path / "model", FitOptions(seed=2), resume=resume)
    assert bytes_of(tmp_path / "model") == bytes_of(fitted)


def test_another_geometry(fitted: Path) -> None:
    with pytest.raises(GeometryError, match=r"belongs to toy \(5 layers, 240 voxels.*not to ds2 \(45 layers, 6480"):
        load_model(fitted, geometry("ds2"))
    moved = replace(TOY, layers=(replace(TOY.layers[0], id=99), *TOY.layers[1:]))
    with pytest.raises(GeometryError, match="not to toy"):
        load_model(fitted, moved)
    load_model(fitted, replace(TOY, threshold=1.0))


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    (weights,) = (folder / "parts" / "shape").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(CorruptFileError, match="bytes instead of"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(CorruptFileError, match="missing"):
        load_model(folder)
    weights.write_bytes(whole)
    shutil.rmtree(folder / "parts" / "total")
    with pytest.raises(ModelError, match="not finished"):
        load_model(folder)
    shutil.rmtree(folder / "base")
    with pytest.raises(StorageError, match="no checkpoint"):
        load_model(folder)
    with pytest.raises(StorageError, match="not the folder of a shower model"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"format": "other"}, CorruptFileError, "does not describe"),
        ({"version": 99}, StorageError, "has format 99"),
        ({"cells": "0"}, CorruptFileError, "geometry was altered"),
        ({"geometry": {"name": "toy"}}, CorruptFileError, "not the description of a geometry"),
    ],
)
def test_altered_descriptions(folder: Path, changes: dict[str, Any], error: type[NisamplerError], words: str) -> None:
    edit(folder, **changes)
    with pytest.raises(error, match=words):
        load_model(folder)


def test_a_number_that_is_none(folder: Path) -> None:
    described = describe(folder)["geometry"]
    for name, value in described["layers"][0].items():
        if not isinstance(value, int):
            described["layers"][0][name] = ["x"]
    edit(folder, geometry=described)
    with pytest.raises(CorruptFileError, match=r"model\.json"):
        load_model(folder)


def test_careless_changes_of_a_description(folder: Path) -> None:
    path = folder / "model.json"
    content = json.loads(path.read_text())
    del content["config"][next(iter(content["config"]))]
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptFileError, match=r"model\.json was altered"):
        load_model(folder)


def test_truncated_description(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(CorruptFileError, match="not JSON"):
        load_model(folder)


def test_weights_of_another_model(folder: Path) -> None:
    save_checkpoint(folder / "parts" / "shape", {"best.values": torch.zeros(3)}, {"done": True})
    with pytest.raises(ModelError, match="do not fit its settings"):
        load_model(folder)
    save_checkpoint(folder / "base", {"median": torch.zeros(())}, {})
    with pytest.raises(ModelError, match="mean, median"):
        load_model(folder)
