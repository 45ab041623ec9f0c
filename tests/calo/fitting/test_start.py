"""Trainings as people do them: from another model, for longer, on other cells, of several files, and watched."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import build, bytes_of, write_file

from nisampler.calo.data.batches import source
from nisampler.calo.data.files import read_showers
from nisampler.calo.data.joined import JoinedReader
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.fitting.fit import DataOptions, Fitted, fit
from nisampler.calo.fitting.store import describe, load_model
from nisampler.calo.models import ModelConfig, preset
from nisampler.calo.recipe import FitOptions
from nisampler.errors import ConfigError, MissingExtraError, ModelError, ShapeError, ShowerDataError
from nisampler.ui.monitor import Monitor

TOY = geometry("toy")
# as many layers, and other voxels
OTHER = replace(
    TOY, name="other", layers=(*TOY.layers[:-1], replace(TOY.layers[-1], second=TOY.layers[-1].second[:-1]))
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", build)
    monkeypatch.setattr("nisampler.calo.fitting.store.build_model", build)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("start") / "showers.h5", TOY, 500)


@pytest.fixture
def fitted(file: Path, tmp_path: Path) -> Path:
    fit(DataOptions(file), TOY, "tiny", tmp_path / "old", FitOptions(seed=2))
    return tmp_path / "old"


class Interrupt(Monitor):
    """Ends a training in the second epoch of a part."""

    def progress(self, stage: str, done: int, total: int, figures: object) -> None:
        if stage == "fit shape" and done > 500:
            raise KeyboardInterrupt


# From another model


def longer(file: Path, folder: Path, start: Path | None, monitor: Monitor | None = None, **more: Any) -> Fitted:
    options = FitOptions(seed=2, epochs=3, start=start, checkpoint_seconds=0.0)
    return fit(DataOptions(file), TOY, "tiny", folder, options, monitor=monitor or Monitor(), **more)


def test_a_training_goes_on_from_the_end_of_another(fitted: Path, file: Path, tmp_path: Path) -> None:
    before = load_model(fitted)
    first = longer(file, tmp_path / "new", fitted)
    fresh = longer(file, tmp_path / "fresh", None)
    assert first.start is not None and first.start.text == "total, shape" and fresh.start is None
    for part, other in zip(first.parts, fresh.parts, strict=True):
        assert part.history[0].loss < 0.5 * other.history[0].loss or part.history[0].loss < other.history[0].loss - 0.1
        assert part.best_loss <= other.best_loss + 0.01
    assert float(first.model.get_buffer("mean")) == float(before.get_buffer("mean"))
    stored = describe(tmp_path / "new")
    assert stored["start"]["model"] == "tiny" and len(stored["start"]["sha256"]) == 64
    assert describe(fitted)["start"] is None


def test_weights_are_kept_where_nothing_is_better(fitted: Path, file: Path, tmp_path: Path) -> None:
    before = load_model(fitted)
    options = FitOptions(seed=2, epochs=1, learning_rate=10.0, start=fitted)
    spoiled = fit(DataOptions(file), TOY, "tiny", tmp_path / "new", options)
    assert [part.best_epoch for part in spoiled.parts] == [0, 0]
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), spoiled.model.parameters(), strict=True))


def test_a_start_is_resumed_with_the_same_bytes(fitted: Path, file: Path, tmp_path: Path) -> None:
    longer(file, tmp_path / "once", fitted)
    with pytest.raises(KeyboardInterrupt):
        longer(file, tmp_path / "twice", fitted, Interrupt())
    with pytest.raises(ConfigError, match="another start: resume with the same"):
        longer(file, tmp_path / "twice", None, resume=True)
    longer(file, tmp_path / "twice", fitted, resume=True)
    assert bytes_of(tmp_path / "twice") == bytes_of(tmp_path / "once")


def test_more_epochs_are_another_training(fitted: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"another epochs.*train a finished fit for longer by --from .*old"):
        fit(DataOptions(file), TOY, "tiny", fitted, FitOptions(seed=2, epochs=6), resume=True)


def test_other_cells_take_over_what_fits(fitted: Path, tmp_path: Path) -> None:
    data = write_file(tmp_path / "other.h5", OTHER, 300)
    made = fit(DataOptions(data), OTHER, "tiny", tmp_path / "new", FitOptions(seed=2, epochs=1, start=fitted))
    assert made.start is not None and made.start.text == "total; fresh are shape"
    assert made.start.fresh == {"shape": f"values has the shape (240,), here ({OTHER.n_voxels},)"}
    assert torch.equal(made.start.weights["total"]["values"], load_model(fitted).total.values)


def test_starts_that_cannot_be(fitted: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go(words: str) -> None:
        with pytest.raises(ModelError, match=words):
            fit(DataOptions(file), TOY, "tiny", tmp_path / "new", FitOptions(start=fitted))
        assert not (tmp_path / "new" / "model.json").exists()

    def changed(**changes: Any) -> Any:
        def other(name: Any, cells: Any, seed: int = 1) -> Any:
            model = build(name, cells, seed)
            for key, value in changes.items():
                setattr(model, key, value)
            return model

        monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", other)

    changed(config={"family": "matching", "broken": 0.0})
    go("is a None model, --model is matching: choose one of the same family")
    changed(total=type(build("tiny", TOY).total)(3))
    go(r"do not fit: total: values has the shape \(2,\), here \(3,\); leave --model and --hidden")
    changed(total=torch.nn.Linear(1, 2))
    go("total: bias is in one of them only")


# Several files


def test_several_files_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write_file(tmp_path / f"{number}.h5", TOY, 40 + number, seed=number) for number in range(3)]
    apart = [read_showers(file, TOY) for file in files]
    rows = np.array([0, 39, 40, 45, 80, 81, 122])
    with JoinedReader(files, TOY) as reader:
        assert len(reader) == 123 and reader.name == "0.h5, 1.h5, 2.h5"
        found = reader.select(rows, slice(3, 9))
        assert np.array_equal(found.voxels, np.concatenate([part.voxels for part in apart])[rows, 3:9])
        assert np.array_equal(found.incident, np.concatenate([part.incident for part in apart])[rows])
        assert list(reader.blocks(rows)) == [0, 0, 1, 1, 1, 2, 2]
        with pytest.raises(ShowerDataError, match=r"0.h5, 1.h5, 2.h5: numbers .* within 0 to 122"):
            reader.select(np.array([122, 3]))
        with pytest.raises(ShapeError):
            reader.select(rows, slice(0, 241))
    held = source(files, TOY, np.arange(123))
    monkeypatch.setattr("nisampler.calo.data.files._BLOCK_BYTES", 4 * 240 * 10)
    streamed = source(files, TOY, np.arange(123), memory=4.0 * 240 * 30)
    assert type(streamed) is not type(held)
    for one, other in zip(held.ordered(50), streamed.ordered(50), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    seen = torch.cat([incident for _, incident in streamed.shuffled(20, np.random.default_rng(1))])
    assert torch.equal(seen.sort().values, torch.cat([incident for _, incident in held.ordered(50)]).sort().values)
    assert not torch.equal(seen, torch.cat([incident for _, incident in held.ordered(50)]))


def test_files_are_fitted_together(tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{number}.h5", TOY, 60, seed=number) for number in range(2)]
    fit(DataOptions(files), TOY, "tiny", tmp_path / "both", FitOptions(epochs=1))
    data = describe(tmp_path / "both")["data"]
    assert (data["file"], data["showers"]) == ("0.h5, 1.h5", 120)
    for wrong, words in (([], "at least one file"), ([files[0], files[0]], "0.h5 is given twice")):
        with pytest.raises(ConfigError, match=words):
            fit(DataOptions(wrong), TOY, "tiny", tmp_path / "wrong", FitOptions(epochs=1))


# Other settings


def test_rates_and_widths(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = fit(DataOptions(file), TOY, "tiny", tmp_path / "slow", FitOptions(epochs=1, learning_rate=1e-4))
    assert slow.parts[0].history[0].learning_rate < 1e-4 and describe(tmp_path / "slow")["learning_rate"] == 1e-4
    asked: list[Any] = []
    monkeypatch.setattr(
        "nisampler.calo.fitting.fit.build_model", lambda *given: asked.append(given) or build("tiny", TOY)
    )
    fit(DataOptions(file), TOY, "small", tmp_path / "wide", FitOptions(epochs=1, hidden=48))
    ((config, *_),) = asked
    assert isinstance(config, ModelConfig) and [flow.net.hidden for flow in config.plain_flows] == [48, 48]
    assert replace(config, flows=preset("small", TOY).flows) == preset("small", TOY)
    for wrong in ({"hidden": 0}, {"learning_rate": 0.0}):
        with pytest.raises(ConfigError):
            FitOptions(**wrong)


# Watched


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_losses_are_written_while_it_runs(file: Path, tmp_path: Path) -> None:
    options = FitOptions(seed=2, checkpoint_seconds=1e9)
    with pytest.raises(KeyboardInterrupt):
        fit(DataOptions(file), TOY, "tiny", tmp_path / "model", options, monitor=Interrupt())
    expected = [("total", "1"), ("total", "2"), ("total", "3"), ("shape", "1")]
    assert [(line["part"], line["epoch"]) for line in lines(tmp_path / "model")] == expected
    with (tmp_path / "model" / "losses.csv").open("a") as handle:
        handle.write("2,sha")
    # the first epoch of the second part has no checkpoint: it is trained again, and told once
    made = fit(DataOptions(file), TOY, "tiny", tmp_path / "model", options, resume=True)
    found = lines(tmp_path / "model")
    assert [(line["part"], line["epoch"]) for line in found] == [*expected, ("shape", "2"), ("shape", "3")]
    records = [record for part in made.parts for record in part.history]
    for line, record in zip(found, records, strict=True):
        assert float(line["training_loss"]) == record.loss and float(line["validation_loss"]) == record.validation
        assert float(line["learning_rate"]) == record.learning_rate and float(line["seconds"]) >= 0


def test_curves_of_tensorboard(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "model" / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def flush(self) -> None:
            """Nothing to do."""

    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    made = fit(DataOptions(file), TOY, "tiny", tmp_path / "model", FitOptions(tensorboard=True))
    validation = [value for name, value, _ in told if name == "validation loss/shape"]
    assert validation == [record.validation for record in made.parts[1].history]
    assert {name for name, *_ in told if name.endswith("total")} == {
        f"{name}/total" for name in ("training loss", "validation loss", "learning rate", "seconds")
    }
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"--tensorboard needs tensorboard: pip install .*tensorboard"):
        fit(DataOptions(file), TOY, "tiny", tmp_path / "none", FitOptions(tensorboard=True))
    assert not (tmp_path / "none").exists()
