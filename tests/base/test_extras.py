"""How to install an extra: from a clone, a repository, a file or an index."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from nisampler.base import extras
from nisampler.base.extras import install

ROOT = Path(__file__).resolve().parents[2]


class Installed:
    """A distribution with this text in direct_url.json."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_text(self, name: str) -> str | None:
        return self.text if name == "direct_url.json" else None


def advice(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | str | None) -> str:
    text = json.dumps(origin) if isinstance(origin, dict) else origin
    monkeypatch.setattr(extras, "distributions", lambda name: [Installed(None), Installed(text)])
    return install("lhe")


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clone is "." where one stands in it, and its path elsewhere, as pip and a shell take it."""
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    origin: dict[str, Any] = {"url": clone.as_uri(), "dir_info": {}}
    assert "%20" in origin["url"]
    monkeypatch.chdir(clone)
    assert advice(monkeypatch, origin) == "pip install '.[lhe]'"
    assert install("lhe", "plots") == "pip install '.[lhe,plots]'"
    assert advice(monkeypatch, origin | {"dir_info": {"editable": True}}) == "pip install -e '.[lhe]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(advice(monkeypatch, origin)) == ["pip", "install", f"{clone}[lhe]"]
    (clone / "pyproject.toml").unlink()
    assert advice(monkeypatch, origin) == "pip install 'nisampler[lhe]'"


def test_index_repository_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice(monkeypatch, None) == "pip install 'nisampler[lhe]'"
    assert advice(monkeypatch, "no json") == advice(monkeypatch, "[]") == "pip install 'nisampler[lhe]'"
    git = {"url": "https://example.org/n.git", "vcs_info": {"vcs": "git", "commit_id": "0"}}
    assert advice(monkeypatch, git) == "pip install 'nisampler[lhe] @ git+https://example.org/n.git'"
    wheel = {"url": "file:///tmp/nisampler-0.1.0-py3-none-any.whl", "archive_info": {}}
    assert advice(monkeypatch, wheel) == f"pip install 'nisampler[lhe] @ {wheel['url']}'"


def test_folder_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installed distribution the folder of the source is named."""
    monkeypatch.setattr(extras, "distributions", lambda name: [])
    monkeypatch.setattr(extras, "__file__", str(ROOT / "nisampler" / "base" / "extras.py"))
    monkeypatch.chdir(ROOT)
    assert install("lhe") == "pip install '.[lhe]'"


def test_unknown_extra() -> None:
    with pytest.raises(KeyError):
        install("lhee")
