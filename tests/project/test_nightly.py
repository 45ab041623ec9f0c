"""The nightly script, with a stand-in for the command: it runs every card and the page, and tells what failed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Refuses the card "broken", and the events of the card "wrong".
COMMAND = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
case "$*" in *broken.toml*) echo no such process >&2; exit 1 ;; "check "*wrong*) exit 1 ;; esac
"""


def nightly(tmp_path: Path, *cards: str, page: str = "true") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script in a clone of these cards, and what the command was asked for."""
    for folder in (".ci", "examples", "docs/how-to", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "nightly", tmp_path / ".ci")
    for card in cards:
        (tmp_path / "examples" / f"{card}.toml").touch()
    (tmp_path / "docs" / "how-to" / "showers.md").write_text(f"words\n```bash\n{page}\n```\n```bash\nfalse\n```\n")
    command = tmp_path / ".venv" / "bin" / "nisampler"
    command.write_text(COMMAND)
    command.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / ".ci" / "nightly"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, (command.parent / "calls").read_text().splitlines()


def test_every_card_and_the_page_run(tmp_path: Path) -> None:
    done, calls = nightly(tmp_path, "one", "two", page=".venv/bin/nisampler calo models")
    assert done.returncode == 0 and done.stderr == ""
    assert [call.split()[0] for call in calls] == ["run", "check", "run", "check", "calo"]
    assert calls[1] == f"check {tmp_path}/out/one/events.lhe.gz"
    assert [line.split("s  ")[1] for line in done.stdout.splitlines()] == [
        "one",
        "two",
        "calorimeter",
        "total, 0 failed",
    ]


@pytest.mark.parametrize(("cards", "page", "failed"), [(["broken"], "true", 1), (["wrong", "one"], "false; true", 2)])
def test_failures_are_told_and_the_rest_goes_on(tmp_path: Path, cards: list[str], page: str, failed: int) -> None:
    done, _ = nightly(tmp_path, *cards, page=page)
    assert done.returncode == 1
    assert (
        f"total, {failed} failed" in done.stdout and f"{cards[0]} FAILED: {tmp_path}/out/{cards[0]}.log" in done.stdout
    )
    assert ("no such process" in done.stdout) is (cards[0] == "broken")
    assert "one FAILED" not in done.stdout and ("calorimeter FAILED" in done.stdout) is ("false" in page)


@pytest.mark.parametrize("script", ["run", "nightly", "pythons"])
def test_the_scripts_parse(script: str) -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / ".ci" / script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
