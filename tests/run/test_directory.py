"""Run directories: complete or absent, one owner at a time, true to their card."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import CardError, CorruptFileError, StorageError
from nisampler.run.directory import RunDirectory
from nisampler.run.lookup import source_sha256

CARD = 'process = "camel4"\nseed = 5\n'
SETTINGS: dict[str, Any] = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}


def create(path: Path, text: str = CARD, **overrides: Any) -> RunDirectory:
    return RunDirectory.create(path, text, SETTINGS, overrides)


def test_create_and_open(tmp_path: Path) -> None:
    text = "# a comment\r\n" + CARD
    with create(tmp_path / "a" / "run", text, seed=8) as made:
        assert made.card.seed == 8
    assert (tmp_path / "a" / "run" / "card.toml").read_bytes() == text.encode()
    with RunDirectory.open(tmp_path / "a" / "run") as again:
        assert again.card == made.card and again.settings == made.settings
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    create(tmp_path / "run").close()


def test_occupied_places_are_refused_by_name(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    with pytest.raises(StorageError, match=r"run already holds a run: `nisampler resume .*run` continues"):
        create(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(StorageError, match="other exists and is not empty"):
        create(tmp_path / "other")
    with pytest.raises(StorageError, match=r"thesis.tex is a file"):
        create(tmp_path / "other" / "thesis.tex")
    with pytest.raises(StorageError, match="cannot make"):
        create(tmp_path / "other" / "thesis.tex" / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


def test_wrong_card_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"card\.toml: unknown key sede"):
        create(tmp_path / "run", CARD + "sede = 1\n")
    assert list(tmp_path.iterdir()) == []


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a run directory"):
        RunDirectory.open(tmp_path)
    with pytest.raises(StorageError, match="is not a run directory"):
        RunDirectory.open(tmp_path / "none")


def test_a_changed_card_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    card = tmp_path / "run" / "card.toml"
    card.write_text(CARD + "# later thought\n")
    with pytest.raises(StorageError, match=r"card\.toml is not the card this run began with"):
        RunDirectory.open(tmp_path / "run")
    card.unlink()
    with pytest.raises(StorageError, match=r"cannot read .*card\.toml"):
        RunDirectory.open(tmp_path / "run")
    card.write_text(CARD)
    RunDirectory.open(tmp_path / "run").close()


@pytest.mark.parametrize("name", ["{folder}/own_density.py:f", "own_density:f"])
def test_a_changed_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "own_density.py"
    content = "def f(x):\n    return x.sum(1)\nf.dim = 2\n"
    source.write_text(content)
    importlib.invalidate_caches()
    full = name.format(folder=tmp_path)
    RunDirectory.create(tmp_path / "run", f'process = "{full}"', SETTINGS | {"process": full}).close()
    RunDirectory.open(tmp_path / "run").close()
    source.write_text(content.replace("sum", "prod"))
    with pytest.raises(StorageError, match=r"own_density.* was changed since .*run began: restore the file"):
        RunDirectory.open(tmp_path / "run")
    source.unlink()
    importlib.invalidate_caches()
    with pytest.raises(StorageError, match=r"own_density.* is missing"):
        RunDirectory.open(tmp_path / "run")
    source.write_text(content)
    importlib.invalidate_caches()
    RunDirectory.open(tmp_path / "run").close()


def test_only_own_sources_have_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_bytes(b"f = 1\n")
    digest = hashlib.sha256(b"f = 1\n").hexdigest()
    assert source_sha256(f"{tmp_path}/own.py:f") == digest
    assert source_sha256("camel4") is None
    assert source_sha256("no_such_package_anywhere.part:f") is None
    assert source_sha256("sys:f") is None


def test_what_killed_attempts_left_is_removed(tmp_path: Path) -> None:
    names = {name: f".{name}.{'0' * 31}{digit}.partial" for name, digit in (("run", "a"), ("running", "b"))}
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.toml").write_text(CARD)
    living = tmp_path / f".run.{'f' * 32}.partial"
    living.mkdir()
    with (living / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        create(tmp_path / "run").close()
        assert {path.name for path in tmp_path.iterdir()} == {"run", names["running"], living.name}


def test_damaged_settings_are_refused(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    path = tmp_path / "run" / "run.json"
    content = path.read_text()
    path.write_text(content[:-20])
    with pytest.raises(CorruptFileError, match=r"run\.json is not JSON"):
        RunDirectory.open(tmp_path / "run")
    path.write_text("{}")
    with pytest.raises(CorruptFileError, match=r"run\.json is not what this release writes"):
        RunDirectory.open(tmp_path / "run")
    for key, value in (("version", 99), ("overrides", {"events.n": 5}), ("threads", "many"), ("process", 5)):
        path.write_text(json.dumps(json.loads(content) | {key: value}))
        with pytest.raises(CorruptFileError, match=r"run\.json was altered"):
            RunDirectory.read(tmp_path / "run")
    path.write_text(content)
    sealed = read_sealed(path)
    write_sealed(path, sealed | {"version": 99})
    with pytest.raises(StorageError, match="another release"):
        RunDirectory.read(tmp_path / "run")
    write_sealed(path, {name: value for name, value in sealed.items() if name != "overrides"})
    with pytest.raises(CorruptFileError, match=r"run\.json is incomplete, overrides: restore"):
        RunDirectory.read(tmp_path / "run")
    for key, value in (("overrides", [1]), ("process", 5), ("threads", "many"), ("versions", None)):
        write_sealed(path, sealed | {key: value})
        with pytest.raises(CorruptFileError, match=rf"run\.json is incomplete, {key}"):
            RunDirectory.read(tmp_path / "run")
    write_sealed(path, sealed)
    (tmp_path / "run" / "card.toml").unlink()
    with pytest.raises(StorageError, match=r"cannot read the card .*card\.toml: No such file or directory$"):
        RunDirectory.read(tmp_path / "run")


def test_run_and_card_name_one_process(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w')\ndef f(x):\n    return x[:, 0]\nf.dim = 4\n")
    create(tmp_path / "run").close()
    path = tmp_path / "run" / "run.json"
    for name in (f"{tmp_path}/evil.py:f", "evil:f", "camel8"):
        write_sealed(path, read_sealed(path) | {"process": name})
        with pytest.raises(CorruptFileError, match=r"names the process .* and the card 'camel4'"):
            RunDirectory.read(tmp_path / "run")


def test_many_read_a_run_that_cannot_be_written(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    before = sorted((tmp_path / "run").iterdir())
    with RunDirectory.read(tmp_path / "run") as first, RunDirectory.read(tmp_path / "run") as second:
        assert first.settings == second.settings
    with RunDirectory.open(tmp_path / "run"), RunDirectory.read(tmp_path / "run") as reader:
        assert reader.card.seed == 5
    assert sorted((tmp_path / "run").iterdir()) == before


def test_two_owners_are_refused(tmp_path: Path) -> None:
    with create(tmp_path / "run"):
        with pytest.raises(StorageError, match=rf"run is in use by process {os.getpid()} on "):
            RunDirectory.open(tmp_path / "run")
    RunDirectory.open(tmp_path / "run").close()


def hold(path: Path, ready: Any) -> None:
    with RunDirectory.open(path):
        ready.set()
        signal.pause()


def test_the_lock_of_a_killed_owner_is_free(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    owner = context.Process(target=hold, args=(tmp_path / "run", ready))
    owner.start()
    assert ready.wait(timeout=30)
    with pytest.raises(StorageError, match=rf"in use by process {owner.pid}"):
        RunDirectory.open(tmp_path / "run")
    owner.kill()
    owner.join()
    RunDirectory.open(tmp_path / "run").close()


def test_seconds_survive_damage(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        assert run.seconds() == {}
        run.store_seconds({"training": 1.5})
        assert run.seconds() == {"training": 1.5}
        (run.path / "seconds.json").write_text("{")
        assert run.seconds() == {}
