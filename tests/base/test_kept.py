"""What is kept in the user's cache: the same tensors again, whatever became of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nisampler.base.kept import OWN, VARIABLE, cache_folder, kept


class Making:
    """Makes tensors, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.times += 1
        return {"a": torch.arange(6).reshape(2, 3).T, "b": torch.tensor([0.1, -0.0, float("inf")], dtype=torch.float64)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], tensor) for name, tensor in Making()().items())


def test_it_is_made_once_for_each_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    make = Making()
    assert all(same(kept("some-1", b"source", make)) for _ in range(3)) and make.times == 1
    assert same(kept("some-1", b"sourcf", make)) and same(kept("some-2", b"source", make)) and make.times == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some-1", "some-2"]


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_a_damaged_file_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes | None) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    make = Making()
    kept("some-1", b"source", make)
    (file,) = (tmp_path / "some-1").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    assert same(kept("some-1", b"source", make)) and make.times == 2
    assert file.read_bytes() == whole and same(kept("some-1", b"source", make)) and make.times == 2


@pytest.mark.parametrize("place", ["file", "/proc/nothing"])
def test_without_a_place_it_is_made_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / place))
    make = Making()
    assert all(same(kept("some-1", b"source", make)) for _ in range(2)) and make.times == 2


def test_the_cache_of_a_pack_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "pack"))
    monkeypatch.setenv(OWN, str(tmp_path / "user"))
    kept("some-1", b"source", Making())
    assert not (tmp_path / "pack").exists() and (tmp_path / "user" / "some-1").is_dir()
    assert cache_folder("amplicol") == tmp_path / "pack" / "amplicol"


def test_errors_of_what_makes_it_come_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def broken() -> dict[str, torch.Tensor]:
        raise ValueError("no grid")

    with pytest.raises(ValueError, match="no grid"):
        kept("some-1", b"source", broken)
    assert not list(tmp_path.iterdir())
