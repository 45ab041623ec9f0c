"""Training of a chain: voxels of a window, resume in its middle, several processes, and what it does at the end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, build, bytes_of, write_file
from torch import Tensor

from nisampler.calo.data.batches import MemorySource, ShowerData, StreamedSource, source
from nisampler.calo.data.files import ShowerReader
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.part_queue import PartQueue, waves
from nisampler.calo.fitting.ranks import Ranks, ranks
from nisampler.calo.fitting.store import load_base, load_model, save_base
from nisampler.calo.models import FlowConfig, ModelConfig, build_model
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import NetConfig, Spline
from nisampler.ui.monitor import LogMonitor, Monitor

TOY = geometry("toy")
DEEP = Geometry(
    "deep",
    "photon",
    22,
    tuple(Layer(k, "rectangular", (0, 1, 2), (0, 1, 2)) for k in range(24)),
    0.01,
    IncidentEnergy("uniform", (1e3, 1e5)),
)
_FLOW = FlowConfig("coupling", 2, NetConfig(hidden=4, layers=1), Spline(bins=3, domain="line", bound=6.0))
_RECIPE = Recipe(2, 50, 1e-3)
TINY_CHAIN = ModelConfig("chain", PreprocessingConfig(), (_FLOW, _FLOW), (_RECIPE, _RECIPE), history=2)


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("toy") / "showers.h5", TOY, 500)


@pytest.fixture(scope="module")
def deep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("deep") / "showers.h5", DEEP, 150)


@pytest.fixture(scope="module", autouse=True)
def chain() -> Iterator[None]:
    """The preset "chain" is a tiny one, all others are the tiny model of the other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nisampler.calo.fitting.fit.build_model",
            lambda name, known, seed: build_model(TINY_CHAIN, known, seed) if name == "chain" else build(name, known),
        )
        patch.setattr(
            "nisampler.calo.fitting.store.build_model",
            lambda config, known: (build if "broken" in config else build_model)(config, known),
        )
        yield


class Watch(Monitor):
    """Keeps what it is told, and interrupts at a stage."""

    def __init__(self, stage: str = "", done: int = 0) -> None:
        self.stop, self.stages, self.lines, self.planned = (stage, done), [], [], {}  # type: ignore[var-annotated]

    def line(self, text: str) -> None:
        self.lines.append(text)

    def plan(self, stages: Mapping[str, int]) -> None:
        self.planned = dict(stages)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        if not self.stages or self.stages[-1] != stage:
            self.stages.append(stage)
        if stage == self.stop[0] and done > self.stop[1]:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def once(deep_file: Path, tmp_path_factory: pytest.TempPathFactory, chain: None) -> tuple[Path, Watch]:
    """The tiny chain, trained in one go, and what was told."""
    folder, watch = tmp_path_factory.mktemp("once") / "model", Watch()
    fit(DataOptions(deep_file), DEEP, "chain", folder, FitOptions(seed=3), monitor=watch)
    return folder, watch


# Windows


def test_a_window_of_held_and_streamed_showers(toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.calo.data.files.ShowerReader.block", 64)
    rows, columns = np.flatnonzero(np.arange(500) % 3), slice(TOY.starts[1], TOY.starts[3])
    held, streamed = source(toy_file, TOY, rows), source(toy_file, TOY, rows, memory=2e5)
    narrow = source(toy_file, TOY, rows, memory=1e4)
    kinds = [type(s.window(columns)) for s in (held, streamed, narrow)]
    assert kinds == [MemorySource, MemorySource, StreamedSource] and isinstance(streamed, StreamedSource)
    whole = torch.cat([voxels for voxels, _ in held.ordered(100)])
    for kind in (held, streamed, narrow):
        window = kind.window(columns)
        found = list(window.ordered(64))
        assert torch.equal(torch.cat([voxels for voxels, _ in found]), whole[:, columns])
        assert len(window) == len(rows) and sum(len(incident) for _, incident in found) == len(rows)
        shuffled = torch.cat([voxels for voxels, _ in window.shuffled(64, np.random.default_rng(1))])
        assert shuffled.shape == (len(rows), columns.stop - columns.start)
        assert torch.allclose(shuffled.sum(0), whole[:, columns].sum(0), rtol=1e-4)
        inner = window.window(slice(1, 4))
        assert torch.equal(next(inner.ordered(10))[0], whole[:10, columns.start + 1 : columns.start + 4])
    # The same random order with all columns and with a few.
    pair = [torch.cat([v for v, _ in s.shuffled(64, np.random.default_rng(1))]) for s in (held, held.window(columns))]
    assert torch.equal(pair[0][:, columns], pair[1])


def test_a_streamed_window_reads_its_columns_only(toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    read = ShowerReader.read

    def watched(self: ShowerReader, start: int, stop: int, columns: slice | None = None) -> Any:
        showers = read(self, start, stop, columns)
        seen.append(showers.voxels.shape[1])
        return showers

    monkeypatch.setattr(ShowerReader, "read", watched)
    data = ShowerData(*(StreamedSource(toy_file, TOY, np.arange(k, 500, 2), memory=1e4) for k in (0, 1)))
    window = data.window(TOY.slice(2))
    assert seen == []
    for batches in (window.training.shuffled(50, np.random.default_rng(1)), window.validation.ordered(50)):
        assert sum(len(incident) for _, incident in batches) == 250
    assert set(seen) == {TOY.sizes[2]}


class WindowModel(TinyModel):
    """The shape is learned from two layers alone, and after the total."""

    def __init__(self, known: Geometry) -> None:
        super().__init__(known)
        self.shape = type(self.shape)(known.starts[3] - known.starts[1])
        self.register_buffer("learned", torch.zeros(()))
        self.finishes = 0

    @property
    def parts(self) -> Any:
        total, shape = super().parts
        shape.layers, shape.after = (1, 3), ("total",)
        return total, shape

    def finish(self, training: Any, generator: torch.Generator) -> None:
        self.finishes += 1
        assert len(training) == 450 and not self.total.training
        voxels = torch.cat([voxels for voxels, _ in training.ordered(100)])
        assert voxels.shape == (450, self.geometry.n_voxels)
        noise = torch.rand((), generator=generator)
        self.learned.copy_(self.learned + voxels.mean() + noise)


def test_a_part_is_given_its_layers(toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = WindowModel(TOY)
    monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", lambda name, known, seed: model)
    fit(DataOptions(toy_file), TOY, "window", tmp_path / "held")
    voxels, incident = next(source(toy_file, TOY, np.arange(500)).ordered(500))
    expected = voxels[:, TOY.starts[1] : TOY.starts[3]]
    learned = model.shape.values.detach().softmax(0)
    mean = (expected / expected.sum(1, keepdim=True)).mean(0)
    before = (torch.full_like(mean, 1 / len(mean)) - mean).abs().mean()
    assert (learned - mean).abs().mean() < 0.7 * before and len(incident) == 500


# The end of a fit


def test_the_end_happens_once(toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[WindowModel] = []

    def make(name: Any, known: Geometry, seed: int = 1) -> WindowModel:
        models.append(WindowModel(known))
        return models[-1]

    monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", make)
    monkeypatch.setattr("nisampler.calo.fitting.store.build_model", make)
    options = FitOptions(epochs=1)
    fit(DataOptions(toy_file), TOY, "window", tmp_path / "a", options)
    before = bytes_of(tmp_path / "a")
    fit(DataOptions(toy_file), TOY, "window", tmp_path / "a", options, resume=True)
    assert [model.finishes for model in models] == [1, 0] and bytes_of(tmp_path / "a") == before
    assert models[0].learned != 0 and torch.equal(models[0].learned, models[1].learned)
    assert torch.equal(load_model(tmp_path / "a").learned, models[0].learned)

    def stop(folder: Path, model: Any, finished: bool) -> None:
        if finished:
            raise KeyboardInterrupt
        save_base(folder, model, finished)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nisampler.calo.fitting.part_queue.save_base", stop)
        fit(DataOptions(toy_file), TOY, "window", tmp_path / "b", options)
    with pytest.raises(ModelError, match="not finished"):
        load_model(tmp_path / "b")
    assert not load_base(tmp_path / "b", WindowModel(TOY))
    fit(DataOptions(toy_file), TOY, "window", tmp_path / "b", options, resume=True)
    assert bytes_of(tmp_path / "b") == before


# Resume in the middle of a chain


def test_resume_in_the_twentieth_flow(
    once: tuple[Path, Watch], deep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = DataOptions(deep_file), FitOptions(seed=3, checkpoint_seconds=0.0)
    folder, whole = once
    names = list(whole.planned)
    assert len(names) == 25 and whole.stages == names and set(whole.planned.values()) == {2 * 135}
    twentieth = names[19]
    with pytest.raises(KeyboardInterrupt):
        fit(data, DEEP, "chain", tmp_path / "twice", options, monitor=Watch(twentieth, 150))
    done = bytes_of(tmp_path / "twice")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "twice" / "parts").rglob("tensors-*")}
    trained: list[str] = []
    losses = _count_losses(monkeypatch, trained)
    again = Watch()
    fitted = fit(data, DEEP, "chain", tmp_path / "twice", options, monitor=again, resume=True)
    assert bytes_of(tmp_path / "twice") == bytes_of(folder)
    # Parts 1 to 19 are neither computed nor written again, and the twentieth has one epoch left.
    assert again.lines[1] == "19 of 25 parts were trained" and again.lines[2].endswith("1 of 2 epochs were done")
    assert losses[twentieth.removeprefix("fit ")] == 3 + 1
    assert losses[names[20].removeprefix("fit ")] == 2 * (3 + 1)
    assert [f"fit {name}" for name in dict.fromkeys(trained)] == names[19:]
    early = [path for path in stamps if f"fit {path.parent.name}" in names[:19]]
    assert len(early) == 19 and all(path.stat().st_mtime_ns == stamps[path] for path in early)
    assert all(done[name] == content for name, content in bytes_of(folder).items() if "layer-17" in name)
    assert [result.name for result in fitted.parts] == [name.removeprefix("fit ") for name in names]
    loaded = load_model(tmp_path / "twice", DEEP)
    assert all(torch.equal(t, fitted.model.state_dict()[name]) for name, t in loaded.state_dict().items())


def _count_losses(monkeypatch: pytest.MonkeyPatch, trained: list[str]) -> dict[str, int]:
    """Calls of the losses by part, from now on."""
    from nisampler.calo.fitting import trainer

    counts: dict[str, int] = {}
    losses = trainer.PartTrainer._losses

    def counted(self: Any, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        counts[self.part.name] = counts.get(self.part.name, 0) + 1
        trained.append(self.part.name)
        return losses(self, voxels, incident, generator)

    monkeypatch.setattr(trainer.PartTrainer, "_losses", counted)
    return counts


def test_lines_number_the_parts(toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.ui.monitor._SECONDS_BETWEEN_LINES", 0.0)
    fit(DataOptions(toy_file), TOY, "tiny", tmp_path / "m", FitOptions(epochs=1))
    text = (tmp_path / "m" / "fit.log").read_text()
    assert "part 1 of 2, fit total" in text and "part 2 of 2, fit shape 100 %: epoch 1, loss" in text
    assert "part 2 of 2, shape: validation loss" in text


# Order


class _Part:
    def __init__(self, name: str, *after: str) -> None:
        self.name, self.after = name, after


def test_waves() -> None:
    parts: list[Any] = [_Part("a"), _Part("b"), _Part("c", "a"), _Part("d"), _Part("e", "c", "d")]
    assert [[part.name for part in wave] for wave in waves(parts)] == [["a", "b", "d"], ["c"], ["e"]]
    for wrong in ([_Part("a", "b"), _Part("b")], [_Part("a", "none")]):
        with pytest.raises(ModelError, match="part a comes after"):
            waves(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["small-student", "small-icaloflow-student"])
def test_students_wait_for_their_teachers(preset: str) -> None:
    parts = build_model(preset, geometry("ds2") if "icalo" in preset else TOY).parts
    assert all(bool(part.after) == ("student" in part.name) for part in parts) and len(waves(parts)) == 2


# Processes

_DRIVER = """
import sys
sys.path[:0] = {folders!r}
from test_chain_training import TINY_CHAIN, DEEP
from nisampler.calo.models import build_model
import nisampler.calo.fitting.fit, nisampler.calo.given

sys.modules["nisampler.calo.fitting.fit"].build_model = lambda name, known, seed: build_model(TINY_CHAIN, known, seed)
nisampler.calo.given.given_geometry = lambda *given: DEEP
{more}
from nisampler.cli import main
main()
"""


def driver(folder: Path, data: Path, more: str = "") -> list[str]:
    """The command line, with the tiny chain as a preset."""
    script, here = folder / "driver.py", Path(__file__).parent
    folders = [str(here), str(here.parents[1] / "helpers")]
    script.write_text(_DRIVER.format(folders=folders, more=more))
    words = ["calo", "fit", "--geometry", "deep", "--model", "chain", "--device", "cpu", "--seed", "3"]
    return [str(script), *words, "--data", str(data), "--output", str(folder / "two")]


def test_processes_share_the_parts(once: tuple[Path, Watch], deep_file: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*torchrun, *driver(tmp_path, deep_file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "two") == bytes_of(once[0])
    assert done.stdout.count("part layer-23") == 1 and "in the first of 2 processes" in done.stdout
    log = (tmp_path / "two" / "fit.log").read_text()
    # lines of progress come by the clock, the line of a finished part once
    finished = [int(k) for k in re.findall(r"part (\d+) of 25, \S+: validation loss", log)]
    assert sorted(finished) == list(range(1, 26))


def test_a_process_that_fails(once: tuple[Path, Watch], deep_file: Path, tmp_path: Path) -> None:
    """One process goes on with what two began, of which one failed."""
    breaks = """
from nisampler.calo.fitting import part_queue
from nisampler.errors import TrainingDivergedError
from nisampler.ui.monitor import Monitor

train = part_queue.PartQueue._train

def broken(self, part):
    if part.name == "layer-20":
        raise TrainingDivergedError("it broke")
    return train(self, part)

part_queue.PartQueue._train = broken
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command, processes = [sys.executable, *driver(tmp_path, deep_file, breaks)], []
    for rank in "01":
        environment = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    told = [process.communicate()[1].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert {text[:25] for text in told} == {"error: it broke", "error: another process of"}, told
    trained = {path.parent.name for path in (tmp_path / "two" / "parts").glob("*/training.json")}
    assert "layer-18" in trained and "layer-20" not in trained
    fit(DataOptions(deep_file), DEEP, "chain", tmp_path / "two", FitOptions(seed=3), resume=True)
    assert bytes_of(tmp_path / "two") == bytes_of(once[0])


class _Counters:
    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, key: str, amount: int) -> int:
        self.values[key] = self.values.get(key, 0) + amount
        return self.values[key]


def test_every_number_is_claimed_once() -> None:
    counters = _Counters()
    first, second = Ranks(0, 2, 0, counters), Ranks(1, 2, 1, counters)
    one, two = first.claim("a", 5), second.claim("a", 5)
    assert [next(one), next(two), next(two), next(one), next(two)] == [0, 1, 2, 3, 4]
    assert list(one) == list(two) == [] and list(first.claim("b", 2)) == [0, 1]
    assert list(Ranks().claim("a", 3)) == [0, 1, 2]
    Ranks().barrier()


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    second, third = Ranks(1, 3, 1, _Counters()), Ranks(2, 3, 2, _Counters())
    assert second.device("cuda") == torch.device("cuda", 1) and second.device("cpu") == torch.device("cpu")
    assert third.device("cuda:0") == torch.device("cuda:0") and Ranks().device("cuda") == torch.device("cuda")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU, there are 2"):
        third.device("cuda")


def test_processes_that_cannot_work_together(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr("torch.distributed.barrier", fails)
    with pytest.raises(ModelError, match="another process of this training failed"):
        Ranks(0, 2, 0, _Counters()).barrier()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="start them with torchrun"), ranks():
        pass
    monkeypatch.setattr("torch.distributed.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no torch.distributed"):
        fit(DataOptions(toy_file), TOY, "tiny", tmp_path / "m")


def test_processes_need_one_folder(toy_file: Path, tmp_path: Path) -> None:
    """The second process finds that another one took all parts, but their files are not there."""
    model = build("tiny", TOY)
    data = source(toy_file, TOY, np.arange(100))
    counters = _Counters()
    counters.add("parts of wave 0", 2)

    class Alone(Ranks):
        def barrier(self) -> None:
            """Nobody to wait for."""

    queue = PartQueue(
        model,  # type: ignore[arg-type]
        ShowerData(data, data),
        tmp_path,
        FitOptions(),
        torch.device("cpu"),
        LogMonitor(tmp_path / "fit.log"),
        False,
        Alone(1, 2, 1, counters),
    )
    with pytest.raises(ModelError, match="lacks part total, which another process trained"):
        queue.run()
