"""Runs that sample matrix elements: the same bytes with workers, threads and packs, by what was learned once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pdf_grids import write_set
from torch import Tensor

from nisampler.errors import CardError
from nisampler.events import read_events
from nisampler.processes.discrete.choice import Choice
from nisampler.processes.discrete.elements import ElementChoice
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.packing.pack import opened, pack
from nisampler.run.pipeline import execute, start

CARD = """process = "w_plus_jets"
threads = 1
[parameters]
n_jets = 2
elements = "sampled"
pdf = "{grids}"
[training]
calls = 4000
sampler = "vegas"
[training.tree]
leaves = 20
[integration]
points = 8192
[events]
n = 60
shard_size = 20
formats = ["h5"]
variations = {{scales = "7-point"}}
"""


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    grids = write_set(folder / "sets", "Grids") / "Grids_0000.dat"
    (folder / "card.toml").write_text(CARD.format(grids=grids))
    return folder / "card.toml"


def make(card: Path, run: Path, workers: int = 1, threads: int = 1) -> Path:
    with start(card, run, {"threads": threads}) as directory:
        execute(directory, workers=workers)
    return run


@pytest.fixture(scope="module")
def run(card: Path) -> Path:
    """A finished run; not to be changed."""
    return make(card, card.with_name("run"))


def events_of(run: Path, target: Path) -> bytes:
    with opened(run) as directory:
        generate_events(directory, 40, 7, target, shard_size=20, formats=["h5"])
    return (target / "events.h5").read_bytes()


def test_workers_and_threads_change_no_number(card: Path, run: Path, tmp_path: Path) -> None:
    other = make(card, tmp_path / "other", workers=2, threads=2)
    for stage in ("sampler", "integration"):
        (first,), (second,) = ([*(place / stage).glob("*.safetensors")] for place in (run, other))
        assert first.read_bytes() == second.read_bytes()
    batch, again = (read_events(place / "events.h5") for place in (run, other))
    for name in ("momenta", "pdg_ids", "colours", "weights", "named_weights"):
        assert np.array_equal(getattr(batch, name), getattr(again, name))
    assert len({tuple(row) for row in batch.pdg_ids[:, :2].tolist()}) > 5
    assert batch.named_weights.shape == (60, 7)
    first = batch.named_weights[:, 0] / batch.weights
    assert ((first > 0.2) & (first < 5.0)).all()


def test_packs_and_later_events_use_what_the_run_learned(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = events_of(run, tmp_path / "first")
    pack(RunDirectory.read(run), tmp_path / "w.nispack")
    learn = ElementChoice._learn

    def otherwise(self: ElementChoice) -> dict[str, Tensor]:
        weights = Choice.from_state(learn(self)).weights
        weights.net.output.bias.data += 0.5 * torch.arange(float(len(weights.active))).sin()
        return Choice(weights).state()

    monkeypatch.setattr(ElementChoice, "_learn", otherwise)
    monkeypatch.setenv("NISAMPLER_CACHE", str(tmp_path / "cache"))
    assert events_of(tmp_path / "w.nispack", tmp_path / "second") == wanted
    assert events_of(run, tmp_path / "third") == wanted
    monkeypatch.setattr(ElementChoice, "restore", lambda self, tensors: None)
    assert events_of(run, tmp_path / "fourth") != wanted


def test_a_card_with_another_word_is_refused(card: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match='elements = "some": must be "auto" or "summed" or "sampled"'):
        start(card, tmp_path / "run", {"parameters.elements": "some"})
