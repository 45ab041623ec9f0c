"""Where commands may write: nothing is replaced, dead attempts are cleared away, folders are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nisampler.base.locks import lock_folder
from nisampler.base.outputs import atomic_folder, new_file, new_folder
from nisampler.base.storage import STALE_SUFFIX
from nisampler.errors import StorageError

DIGITS = "0" * 32


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of everything."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "exists: choose another --output"),
        ("empty", "it is a folder"),
        ("link", "it is a link"),
        ("broken", "it is a link"),
        ("pipe", "device or pipe"),
        ("/dev/null", "device or pipe"),
        ("no/file", "there is no folder"),
    ],
)
def test_what_is_no_new_file(name: str, words: str, place: Path) -> None:
    with pytest.raises(StorageError, match=words):
        new_file(place / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "is a file: choose another --output"),
        ("full", "exists and is not empty"),
        ("link", "is a link"),
        ("broken", "is a link"),
        ("pipe", "is a file"),
        (".", "is the current folder"),
        ("empty", "is the current folder"),
        ("..", "is the current folder, or above"),
    ],
)
def test_what_is_no_new_folder(name: str, words: str, place: Path) -> None:
    target = Path(name) if name.startswith(".") else place / name
    with pytest.raises(StorageError, match=words):
        new_folder(target)
    with pytest.raises(StorageError, match=words), atomic_folder(target):
        pass
    assert len(list(place.iterdir())) == 6


def test_new_places_and_own_leftovers(place: Path) -> None:
    (place / f".a.{DIGITS}{STALE_SUFFIX}").write_text("left by a killed process")
    assert new_file(place / "a") == place / "a" and len(list(place.iterdir())) == 6
    assert new_folder(place / "new") == place / "new"
    assert new_folder(place / "full", {"notes.txt"}) == place / "full"


def test_folders_are_whole_or_absent(place: Path) -> None:
    for name in (f".new.{DIGITS}.partial", f".new.{'1' * 32}.partial"):
        (place / name).mkdir()
    with lock_folder(place / f".new.{DIGITS}.partial"):
        with pytest.raises(KeyboardInterrupt), atomic_folder(place / "new"):
            raise KeyboardInterrupt
        assert not (place / "new").exists() and not (place / f".new.{'1' * 32}.partial").exists()
        with atomic_folder(place / "new") as (folder, lock), lock:
            (folder / "a").write_text("a")
        with pytest.raises(StorageError, match="not empty"), atomic_folder(place / "other"):
            (place / "other").mkdir()
            (place / "other" / "a").write_text("another process was faster")
    assert sorted(path.name for path in place.glob(".*")) == [f".new.{DIGITS}.partial"]
    assert (place / "new" / "a").read_text() == "a"
