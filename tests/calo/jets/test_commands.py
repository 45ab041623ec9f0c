"""`nisampler jets` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call, shell
from small_jets import small_jets

from nisampler.calo.jets.files import read_jets, write_jets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of jets, and a model that a command fitted to it."""
    path = tmp_path_factory.mktemp("jets")
    write_jets(path / "jets.hdf5", small_jets(300))
    words = ("--model", "small-epic-fm", "--epochs", 1, "--constituents", 6, "--device", "cpu")
    done = shell("jets", "fit", "--data", "jets.hdf5", *words, "-o", "model", cwd=path)
    assert done.returncode == 0, done.stderr
    assert "g, t, up to 6 constituents" in done.stdout and "part constituents" in done.stdout
    return path


def test_generated_jets_are_in_their_file(folder: Path, tmp_path: Path) -> None:
    words = ("--jets", 30, "--batch", 20, "--seed", 4, "--device", "cpu")
    code, out, err = call("jets", "generate", folder / "model", *words, "-o", tmp_path / "a.hdf5")
    assert code == 0, err
    assert "30, seed 4" in out and "ms/jet" in out and "GeV" in out
    assert call("jets", "generate", folder / "model", *words, "-q", "-o", tmp_path / "b.hdf5") == (0, "", "")
    first, second = read_jets(tmp_path / "a.hdf5"), read_jets(tmp_path / "b.hdf5")
    assert len(first) == 30 and first.most == 6 and np.array_equal(first.constituents, second.constituents)
    like = ("--like", tmp_path / "a.hdf5", "--jets", 10, "-q", "-o", tmp_path / "c.hdf5")
    assert call("jets", "generate", folder / "model", *like)[0] == 0
    assert read_jets(tmp_path / "c.hdf5").types.tolist() == first.types[:10].tolist()
    top = ("--type", "t", "--jets", 5, "-q", "-o", tmp_path / "t.hdf5")
    assert call("jets", "generate", folder / "model", *top)[0] == 0
    assert read_jets(tmp_path / "t.hdf5").types.tolist() == [2] * 5


def test_models_are_listed() -> None:
    code, out, _ = call("jets", "models")
    assert code == 0 and {"epic-fm", "epic-jedi", "small-epic-fm", "small-epic-jedi"} <= set(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "--data", "{jets}", "--model", "epic", "-o", "{new}"], "choose epic-fm"),
        (["fit", "--data", "nowhere.hdf5", "--model", "epic-fm", "-o", "{new}"], "no such file"),
        (["fit", "--data", "{jets}", "--model", "epic-fm", "-o", "{model}"], "continue with --resume"),
        (["generate", "{jets}", "--jets", "3", "-o", "{new}"], "not the folder of a model of jets"),
        (["generate", "{model}", "-o", "{new}"], "say how many jets with --jets"),
        (["generate", "{model}", "--jets", "3", "--type", "w", "-o", "{new}"], "makes jets of g, t, not of w"),
        (["generate", "{model}", "--jets", "3", "-o", "{jets}"], "exists: choose another --output"),
    ],
)
def test_errors_say_what_to_do(folder: Path, tmp_path: Path, words: list[str], message: str) -> None:
    places = {"jets": folder / "jets.hdf5", "model": folder / "model", "new": tmp_path / "new"}
    code, out, err = call("jets", *(word.format(**places) for word in words))
    assert code == 1 and message in err and not out
    assert not (tmp_path / "new").is_file()
