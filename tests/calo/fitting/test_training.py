"""Training of parts: what is learned, what is kept, what is undone, and that resume changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nisampler.base.rng import Streams
from nisampler.calo.data.batches import MemorySource, ShowerData, StreamedSource, pieces, source
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.fitting.trainer import PartTrainer, trimmed_mean
from nisampler.calo.fitting.training import fit_part
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ConfigError, CorruptFileError, ModelError, ShowerDataError, TrainingDivergedError
from nisampler.ui.monitor import Monitor

SPREAD = 0.2
# Of the logarithm of E_tot/E_inc.
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * SPREAD**2)


def showers(n: int, seed: int = 0, voxels: int = 4) -> Showers:
    """The logarithm of E_tot/E_inc is normal with mean 0.1 log E_inc - 1."""
    rng = np.random.default_rng(seed)
    incident = np.exp(rng.uniform(math.log(1e3), math.log(1e5), n))
    total = incident * np.exp(0.1 * np.log(incident) - 1.0 + SPREAD * rng.standard_normal(n))
    return Showers(incident, total[:, None] * rng.dirichlet(np.ones(voxels), n))


class Line(nn.Module):
    """A straight line and a spread, for the mean of the logarithm of E_tot/E_inc."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Parameter(torch.zeros(2))
        self.log_spread = nn.Parameter(torch.zeros(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, voxels: Tensor, incident: Tensor) -> Tensor:
        z = (voxels.sum(1) / incident).log() - self.line[0] - self.line[1] * (incident.log() - 9.2)
        return 0.5 * (z * torch.exp(-self.log_spread)) ** 2 + self.log_spread + 0.5 * math.log(2 * math.pi)


@dataclass
class Gaussian:
    """A part; losses of the calls in `broken` are not finite."""

    recipe: Recipe
    name: str = "total"
    module: nn.Module = field(default_factory=Line)
    noise: float = 0.0
    broken: tuple[int, ...] = ()
    calls: int = 0

    def begin(self) -> None:
        """Nothing to do."""

    def loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        noise = 1.0 + self.noise * torch.rand(len(voxels), 1, generator=generator)
        loss: Tensor = self.module(voxels * noise, incident)
        return loss * (math.nan if self.calls in self.broken else 1.0)


@pytest.fixture(scope="module")
def data() -> ShowerData:
    return ShowerData(MemorySource(showers(2000)), MemorySource(showers(1000, 1)))


RECIPE = Recipe(epochs=12, batch=100, learning_rate=0.1)


class Watch(Monitor):
    """A monitor that stops the training at some point, as Ctrl-C does."""

    def __init__(self, stop: float = math.inf) -> None:
        self.stop, self.lines, self.figures = stop, [], {}  # type: ignore[var-annotated]

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        self.figures = {"stage": stage, "done": done, "total": total, **figures}
        if done > self.stop:
            raise KeyboardInterrupt


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_learns_the_density(data: ShowerData, tmp_path: Path) -> None:
    part, watch = Gaussian(RECIPE), Watch()
    before = torch.get_rng_state()
    result = fit_part(part, data, tmp_path, FitOptions(), monitor=watch)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.best_loss == pytest.approx(ENTROPY, abs=0.05)
    assert part.module.state_dict()["line"].tolist() == pytest.approx([-0.08, 0.1], abs=0.02)
    assert len(result.history) == 12 and result.roll_backs == 0 and not part.module.training
    assert result.best_loss == min(record.validation for record in result.history)
    assert json.loads((tmp_path / "training.json").read_text())["best_loss"] == result.best_loss
    assert watch.figures["done"] == watch.figures["total"] == 24_000
    assert {"loss", "validation", "rate", "left"} <= watch.figures.keys()


def test_wrong_showers_are_noticed(data: ShowerData, tmp_path: Path) -> None:
    """Negative control: without the relation to E_inc the density cannot be learned."""
    good = showers(2000)
    mixed = Showers(np.random.default_rng(2).permutation(good.incident), good.voxels)
    wrong = ShowerData(MemorySource(mixed), data.validation)
    assert fit_part(Gaussian(RECIPE), wrong, tmp_path, FitOptions()).best_loss > ENTROPY + 0.5


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resume_gives_the_same_bytes(data: ShowerData, tmp_path: Path, ema: float) -> None:
    recipe = Recipe(5, 100, 0.05, ema=ema, clip=1.0, weight_decay=0.01)
    options = FitOptions(seed=3, checkpoint_seconds=0.0)
    fit_part(Gaussian(recipe, noise=0.3), data, tmp_path / "once", options)
    for stop in (4100, 6500):
        with pytest.raises(KeyboardInterrupt):
            fit_part(Gaussian(recipe, noise=0.3), data, tmp_path / "twice", options, "cpu", Watch(stop), resume=True)
    watch = Watch()
    fit_part(Gaussian(recipe, noise=0.3), data, tmp_path / "twice", options, "cpu", watch, resume=True)
    assert watch.lines[0] == "total: 3 of 5 epochs were done"
    assert content(tmp_path / "once") == content(tmp_path / "twice")
    done = Gaussian(recipe)
    fit_part(done, data, tmp_path / "twice", options, resume=True)
    assert done.calls == 0 and content(tmp_path / "once") == content(tmp_path / "twice")
    fit_part(Gaussian(recipe, noise=0.3), data, tmp_path / "other", FitOptions(seed=4))
    assert content(tmp_path / "once") != content(tmp_path / "other")


def test_resume_needs_the_same_recipe_and_whole_files(data: ShowerData, tmp_path: Path) -> None:
    fit_part(Gaussian(RECIPE), data, tmp_path, FitOptions(epochs=1))
    with pytest.raises(ConfigError, match="another batch, epochs"):
        fit_part(Gaussian(RECIPE), data, tmp_path, FitOptions(epochs=2, batch=50), resume=True)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CorruptFileError, match="bytes instead of"):
        fit_part(Gaussian(RECIPE), data, tmp_path, FitOptions(epochs=1), resume=True)


def test_roll_back_undoes_the_epoch(data: ShowerData, tmp_path: Path) -> None:
    part = Gaussian(RECIPE, broken=(35,))
    result = fit_part(part, data, tmp_path, FitOptions(epochs=3))
    assert result.roll_backs == 1 and len(result.history) == 3
    assert "in epoch 2 of total" in result.warnings[0]
    assert result.history[-1].learning_rate == pytest.approx(
        0.3 * RECIPE.learning_rate * RECIPE.rates(1 - 1 / 60), rel=1e-6
    )
    validation = Gaussian(RECIPE, broken=(25,))
    assert fit_part(validation, data, tmp_path / "b", FitOptions(epochs=1)).roll_backs == 1
    with pytest.raises(
        TrainingDivergedError, match=r"diverged 6 times, last in epoch 1 of total because .*; lower learning_rate"
    ):
        fit_part(Gaussian(RECIPE, broken=tuple(range(1000))), data, tmp_path / "c", FitOptions())


def test_roll_back_restores_everything(data: ShowerData) -> None:
    recipe = Recipe(2, 100, 0.1, ema=0.9)
    part = Gaussian(recipe, broken=(55,))
    trainer = PartTrainer(part, recipe, data, Streams(1))
    trainer.advance(Watch())
    before = trainer.state()
    trainer.advance(Watch())
    after = trainer.state()
    assert trainer.stepper.roll_backs.count == 1 and before[0].keys() == after[0].keys()
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items())
    assert {key: v for key, v in after[1].items() if before[1][key] != v}.keys() == {
        "roll_backs",
        "warnings",
    }


@dataclass
class Rising(Gaussian):
    """Validation becomes worse the longer it trains: each step moves the only weight by the learning rate."""

    def loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Any:
        move = self.module.state_dict(keep_vars=True)["line"][0]
        value = move.expand(len(voxels))
        return {
            "loss": -value if self.module.training else (value - 0.45) ** 2,
            "moved": value.detach(),
            "one": 1 + 0 * move,
        }


def test_best_weights_patience_and_terms(data: ShowerData, tmp_path: Path) -> None:
    recipe = Recipe(30, 500, 0.05, schedule="constant", patience=3)
    part = Rising(recipe)
    result = fit_part(part, data, tmp_path, FitOptions())
    assert result.best_epoch == 2 and len(result.history) == 5
    assert "stopped after 5 of 30 epochs, 3 without gain" in result.warnings[0]
    assert part.module.state_dict()["line"][0].item() == pytest.approx(0.4, abs=1e-3)
    assert result.history[1].terms == {"moved": pytest.approx(0.275, abs=1e-3), "one": pytest.approx(1.0)}


def test_average_is_what_is_kept(data: ShowerData, tmp_path: Path) -> None:
    recipe = Recipe(1, 500, 0.1, schedule="constant", ema=0.5)
    part = Rising(recipe)
    fit_part(part, data, tmp_path, FitOptions())
    # Weights 0.1 k after step k; decays 2/11, 3/12, 4/13 and 5/14 of the past.
    expected = 0.0
    for step in range(1, 5):
        share = min(0.5, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * 0.1 * step
    assert part.module.state_dict()["line"][0].item() == pytest.approx(expected, rel=1e-4)


def test_clip_bounds_a_step(data: ShowerData, tmp_path: Path) -> None:
    result = fit_part(Gaussian(Recipe(1, 2000, 0.1, clip=1e-3)), data, tmp_path, FitOptions())
    assert result.history[0].gradient > 1e-3


def test_nothing_to_train(data: ShowerData, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="total has no weights"):
        fit_part(Gaussian(RECIPE, module=nn.Identity()), data, tmp_path, FitOptions())


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant", "milestones", "exponential"])
def test_schedules(schedule: Any) -> None:
    recipe = Recipe(10, 1, 1e-2, schedule, warm_up=0.4, milestones=(0.25, 0.5))
    rates = [recipe.learning_rate * recipe.rates(share) for share in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1e-2) and min(rates) >= 0.0
    ends = {"one-cycle": (4e-4, 4e-8), "cosine": (1e-2, 0), "constant": (1e-2, 1e-2), "milestones": (1e-2, 2.5e-3)}
    assert (rates[0], rates[-1]) == pytest.approx(ends.get(schedule, (1e-2, 3e-5)), abs=1e-12)
    assert np.argmax(rates) == (40 if schedule == "one-cycle" else 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": math.inf},
        {"schedule": "linear"},
        {"precision": "float16"},
        {"warm_up": 1.0},
        {"milestones": (1.5,)},
        {"weight_decay": -1.0},
        {"clip": 0.0},
        {"ema": 1.0},
        {"patience": -1},
    ],
)
def test_recipes_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Recipe(**{"epochs": 1, "batch": 1, "learning_rate": 1e-3} | wrong)


# Batches


def test_pieces_leave_nothing_over() -> None:
    for n, size in ((10, 3), (7, 100), (1000, 1), (11, 2)):
        parts = pieces(n, size)
        assert np.concatenate(parts).tolist() == list(range(n))
        assert max(map(len, parts)) <= 1.5 * size and max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = geometry("toy")
    path = tmp_path_factory.mktemp("batches") / "showers.h5"
    with ShowerWriter(path, toy) as writer:
        for start in range(0, 3000, 500):
            rng = np.random.default_rng(start)
            incident = np.exp(rng.uniform(math.log(1e3), math.log(1e5), 500))
            voxels = incident[:, None] * rng.dirichlet(np.ones(toy.n_voxels), 500) * 0.9
            voxels[:, 0] = np.arange(start, start + 500) * 1e-3
            writer.append(Showers(incident, voxels))
    return path


def test_streamed_and_held_showers_are_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.calo.data.files.ShowerReader.block", 128)
    toy, rows = geometry("toy"), np.flatnonzero(np.arange(3000) % 3)
    held, streamed = source(file, toy, rows), StreamedSource(file, toy, rows, memory=1e6)
    assert len(held) == len(streamed) == 2000
    for kind in (held, streamed):
        seen = [voxels[:, 0] for voxels, _ in kind.shuffled(64, np.random.default_rng(1))]
        numbers = (1e3 * torch.cat(seen)).round().long()
        assert sorted(numbers.tolist()) == rows.tolist() and numbers.tolist() != rows.tolist()
        again = torch.cat([voxels[:, 0] for voxels, _ in kind.shuffled(64, np.random.default_rng(1))])
        other = torch.cat([voxels[:, 0] for voxels, _ in kind.shuffled(64, np.random.default_rng(2))])
        assert torch.equal(again, torch.cat(seen)) and not torch.equal(other, again)
        # Neighbours in the file are far apart in the order of an epoch.
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < (0.1 if kind is held else 0.9)
    pairs = zip(held.ordered(300), streamed.ordered(300), strict=True)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert isinstance(source(file, toy, rows, memory=1e5), StreamedSource)


def test_no_showers(file: Path) -> None:
    with pytest.raises(ShowerDataError, match="no showers"):
        source(file, geometry("toy"), np.arange(0))
    with pytest.raises(ShowerDataError, match="no showers"):
        StreamedSource(file, geometry("toy"), np.arange(0))
    with pytest.raises(ConfigError, match="memory"):
        source(file, geometry("toy"), np.arange(5), memory=0.0)


def test_one_odd_shower_does_not_choose_the_best_epoch() -> None:
    losses = torch.cat([torch.full((999,), 23.0), torch.tensor([42484.0 * 1000])])
    assert trimmed_mean(losses) == 23.0
    assert trimmed_mean(torch.tensor([1.0, 2.0, 6.0])) == 3.0
    assert math.isnan(trimmed_mean(torch.tensor([1.0] * 50 + [math.nan])))
    assert math.isnan(trimmed_mean(torch.tensor([1.0] * 50 + [math.inf])))
