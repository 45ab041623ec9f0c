"""Models of jets: learned, stored, continued, drawn from; same seed, same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_jets import small_jets

from nisampler.calo.jets.files import read_jets, write_jets
from nisampler.calo.jets.fit import JetData, fit
from nisampler.calo.jets.generation import draw_jets, generate
from nisampler.calo.jets.jets import Jets
from nisampler.calo.jets.kinematics import totals
from nisampler.calo.jets.model import JetModel, JetSource, properties_of
from nisampler.calo.jets.presets import PRESETS, JetConfig, preset, stored_config
from nisampler.calo.jets.properties import PropertyFlow
from nisampler.calo.jets.store import DESCRIPTION, load_model
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ConfigError, CorruptFileError, JetDataError, ModelError, StorageError
from nisampler.flows.nets.epic import EpicConfig
from nisampler.ui.monitor import Monitor

QUICK = replace(
    preset("small-epic-fm"),
    net=EpicConfig(layers=1, hidden=16, shared=4, frequencies=4),
    recipe=Recipe(2, 100, 2e-3, warm_up=0.1, ema=0.9),
    properties=Recipe(2, 100, 2e-3),
    steps=4,
    blocks=2,
    hidden=16,
)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of jets and a fitted model."""
    path = tmp_path_factory.mktemp("jets")
    write_jets(path / "jets.hdf5", small_jets(400))
    fit(JetData((path / "jets.hdf5",)), QUICK, path / "model", FitOptions(seed=3))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the log and the lock."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix in {".json", ".safetensors"}
    }


class EndedError(Exception):
    """Stands for a signal."""


class Ending(Monitor):
    """Ends a fit when a stage has come so far."""

    def __init__(self, stage: str, share: float) -> None:
        self.stage, self.share = stage, share

    def progress(self, stage: str, done: int, total: int, figures: dict[str, str]) -> None:  # type: ignore[override]
        if stage == self.stage and done > self.share * total:
            raise EndedError


@pytest.mark.parametrize(("stage", "share"), [("fit properties", 0.3), ("fit constituents", 0.6)])
def test_interrupted_fits_end_with_the_same_bytes(folder: Path, tmp_path: Path, stage: str, share: float) -> None:
    data, options = JetData((folder / "jets.hdf5",)), FitOptions(seed=3, checkpoint_seconds=0.0)
    with pytest.raises(EndedError):
        fit(data, QUICK, tmp_path / "model", options, monitor=Ending(stage, share))
    with pytest.raises(ModelError, match="not finished: `nisampler jets fit --resume` continues"):
        load_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="begun with another seed"):
        fit(data, QUICK, tmp_path / "model", replace(options, seed=4), resume=True)
    fit(data, QUICK, tmp_path / "model", options, resume=True)
    assert contents(tmp_path / "model") == contents(folder / "model")
    assert len(contents(folder / "model")) >= 6


def test_generation_depends_on_seed_and_shard_alone(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        made = generate(model, 50, tmp_path / f"{name}.hdf5", seed, shard=20)
        assert made.jets == 50 and 900 < made.pt < 1100
    first, again, other = (read_jets(tmp_path / f"{name}.hdf5") for name in "abc")
    assert np.array_equal(first.constituents, again.constituents) and np.array_equal(first.pt, again.pt)
    assert not np.array_equal(first.constituents, other.constituents)
    assert np.array_equal(draw_jets(model, 20, 5, 1).constituents, first[20:40].constituents)
    assert set(first.types.tolist()) == {0, 2}


def test_types_and_conditions_can_be_said(folder: Path, tmp_path: Path) -> None:
    model, jets = load_model(folder / "model"), small_jets(60, seed=9)
    generate(model, 30, tmp_path / "t.hdf5", types=["t"])
    assert read_jets(tmp_path / "t.hdf5").types.tolist() == [2] * 30
    made = generate(model, None, tmp_path / "like.hdf5", like=jets)
    found = read_jets(tmp_path / "like.hdf5")
    assert made.jets == 60 and np.array_equal(found.types, jets.types) and np.array_equal(found.count, jets.count)
    np.testing.assert_allclose(found.pt, jets.pt, rtol=1e-6)
    np.testing.assert_allclose(totals(found.constituents)[0], totals(jets.constituents)[0], rtol=1e-4)
    one = read_jets(tmp_path / "like.hdf5")[:1]
    with pytest.raises(ModelError, match="makes jets of g, t, not of w"):
        generate(model, None, tmp_path / "x", like=Jets(one.constituents, one.mask, [3], one.pt, one.eta, one.mass))
    with pytest.raises(ConfigError, match="give one of the two"):
        generate(model, None, tmp_path / "x", types=["t"], like=jets)
    with pytest.raises(ConfigError, match="say how many jets"):
        generate(model, None, tmp_path / "x")
    with pytest.raises(ConfigError, match="70 jets are wanted, but there are 60"):
        generate(model, 70, tmp_path / "x", like=jets)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("calibrate", [True, False])
def test_calibration_gives_the_mass_that_was_drawn(folder: Path, calibrate: bool) -> None:
    model = load_model(folder / "model")
    known = model.draw(["g"] * 200, seeded())
    model.config = replace(model.config, calibrate=False)
    # What is asked for lies near what an untrained model makes.
    known[:, 3] = torch.as_tensor(1.2 * totals(model.sample(known, seeded(2)).constituents)[1])
    model.config = replace(model.config, calibrate=calibrate)
    made = model.sample(known, seeded(2))
    right = np.abs(totals(made.constituents)[1] / known[:, 3].numpy() - 1) < 0.01
    assert (right.mean() > 0.5) == calibrate, right.mean()


@pytest.mark.parametrize("name", ["small-epic-fm", "small-epic-jedi"])
def test_a_short_training_learns_what_tells_the_types_apart(name: str) -> None:
    jets = small_jets(1500)
    model = JetModel(replace(preset(name), net=EpicConfig(2, 24, 6, 6), steps=12, calibrate=False), "gt", jets.most)
    model.prepare(jets, seeded())
    source, (_, part) = JetSource(jets), model.parts
    optimizer = torch.optim.Adam(part.module.parameters(), lr=4e-3)
    for epoch in range(12):
        for sets, known in source.shuffled(150, np.random.default_rng(epoch)):
            optimizer.zero_grad()
            part.loss(sets, known, seeded(epoch)).mean().backward()
            optimizer.step()
    like = small_jets(400, seed=2)
    made = model.sample(properties_of(like), seeded())
    wanted, found = (totals(jets.constituents)[1] for jets in (like, made))
    for kind in (0, 2):
        rows = like.types == kind
        assert np.median(found[rows]) == pytest.approx(np.median(wanted[rows]), rel=0.25)
    assert np.median(found[like.types == 2]) > 1.5 * np.median(found[like.types == 0])


def test_properties_are_those_of_the_training_jets() -> None:
    jets = small_jets(2000)
    known = properties_of(jets)
    flow = PropertyFlow(2, jets.most, 2, 16, seeded())
    kinds = (known[:, 0] == 2).long()
    flow.fit(known[:, 1:], kinds, seeded())
    drawn = flow.draw(kinds, seeded(4))
    for kind in (0, 1):  # marginals are right before any training
        one, other = (torch.quantile(x[kinds == kind], 0.5, dim=0) for x in (known[:, 1:], drawn))
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.15)
    assert drawn[:, 4].eq(drawn[:, 4].round()).all() and drawn[:, 4].min() >= 4 and drawn[:, 4].max() <= 8
    with pytest.raises(JetDataError, match="10 jets of one type are too few"):
        flow.fit(known[:20, 1:], kinds[:20], seeded())


def test_initial_weights_are_those_of_the_seed() -> None:
    first, again, other = (JetModel(QUICK, "gt", 8, seed).constituents.net.enter.layer.bias for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_folders_that_hold_no_model_are_refused(folder: Path, tmp_path: Path) -> None:
    data = JetData((folder / "jets.hdf5",))
    with pytest.raises(StorageError, match="holds a fit: choose another"):
        fit(data, QUICK, folder / "model")
    with pytest.raises(StorageError, match="holds no model to resume"):
        fit(data, QUICK, tmp_path / "new", resume=True)
    with pytest.raises(StorageError, match="not the folder of a model of jets"):
        load_model(tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps({"format": "other"}))
    with pytest.raises(CorruptFileError):
        load_model(tmp_path)


def test_wrong_settings_are_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "jets.hdf5"
    with pytest.raises(ConfigError, match="no model of jets called 'epic'"):
        fit(JetData((path,)), "epic", tmp_path / "a")
    with pytest.raises(ConfigError, match="30 constituents are wanted, the files hold 8"):
        fit(JetData((path,), constituents=30), QUICK, tmp_path / "b")
    with pytest.raises(ConfigError, match="too few to train"):
        fit(JetData((path,), limit=1), QUICK, tmp_path / "c")
    with pytest.raises(ModelError, match="another release"):
        stored_config({"colour": "red"})
    with pytest.raises(JetDataError, match="no jets to learn from"):
        JetSource(small_jets(2)[:0])


def test_models_that_explode_say_so(folder: Path) -> None:
    model = load_model(folder / "model")
    model.scale.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite"):
        draw_jets(model, 2, 1, 0)


def test_published_settings_are_those_of_the_papers() -> None:
    for name in ("epic-fm", "epic-jedi"):
        config = PRESETS[name].config
        assert (config.net.layers, config.net.hidden, config.net.shared, config.net.frequencies) == (6, 128, 10, 16)
        assert (config.recipe.batch, config.recipe.learning_rate, config.recipe.weight_decay) == (1024, 1e-3, 5e-5)
        assert config.spread == 5.0 or config.kind == "diffusion"
        assert JetModel(config, "gqt", 150).constituents.dim == 3
    assert isinstance(preset("epic-fm"), JetConfig)
