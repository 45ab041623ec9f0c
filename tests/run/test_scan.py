"""Scans: a run for each value, as the card alone would make it; failures are told, and mended by starting again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import call

from nisampler.base.storage import read_sealed
from nisampler.errors import CardError, ConfigError, IntegrandError, StorageError
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.workers import Crew
from nisampler.run.pipeline import execute, start
from nisampler.run.submission import scan as scanning
from nisampler.run.submission.scan import Scan, scan, settings_of

CARD = """
process = "genz_gaussian"
training = {calls = 4000, sampler = "vegas"}
integration = {points = 2048}
events = {n = 0}
[parameters]
dim = 2
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.toml"
    path.write_text(CARD)
    return path


def run(order: Scan, output: Path) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as executor:
        return scan(order, output, Crew(executor))


def test_every_run_is_that_of_the_card(card: Path, tmp_path: Path) -> None:
    """By two processes and the command line, tables inside tables of the card among the keys."""
    given = ("--set", "parameters.dim=2,-1", "--set", "training.tree.leaves=20,40", "--seed", 5, "--workers", 2)
    code, text, _ = call("scan", card, *given, "--output", tmp_path / "scan")
    assert code == 1 and text.count("CardError: parameters: dim") == 4
    points = read_sealed(tmp_path / "scan" / "scan.json")["points"]
    assert [point["folder"] for point in points] == [f"dim={d},leaves={k}" for d in (2, -1) for k in (20, 40)]
    assert ["error" in point for point in points] == [False, False, True, True]
    alone = {"parameters.dim": 2, "training.tree.leaves": 40, "seed": 5}
    with start(card, tmp_path / "alone", alone) as directory:
        assert points[1]["integral"] == execute(directory)["integral"]
    with RunDirectory.open(tmp_path / "scan" / "dim=2,leaves=40") as directory:
        assert directory.card.training.tree.leaves == 40
    assert (tmp_path / "scan" / "scan.png").read_bytes()[1:4] == b"PNG"


def test_a_run_that_fails_is_told_and_made_again(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, true = Scan(card, {"seed": [1, 2, 3]}), scanning.execute
    began: list[int] = []

    def failing(directory: Any) -> Any:
        began.append(directory.card.seed)
        if directory.card.seed == 2:
            raise IntegrandError("no luck")
        return true(directory)

    monkeypatch.setattr(scanning, "execute", failing)
    found = run(order, tmp_path / "scan")["points"]
    assert [point.get("error") for point in found] == [None, "IntegrandError: no luck", None]
    monkeypatch.undo()
    again = run(order, tmp_path / "scan")["points"]
    assert ["error" in point for point in again] == [False, False, False]
    assert [again[0]["integral"], again[2]["integral"]] == [found[0]["integral"], found[2]["integral"]]
    assert began.count(1) == 1
    with pytest.raises(StorageError, match="holds another scan: choose another --output"):
        run(Scan(card, {"seed": [1, 2]}), tmp_path / "scan")


def test_wrong_values_are_found_before_anything_is_made(card: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"card\.toml with seed=-1: seed"):
        run(Scan(card, {"seed": [1, -1]}), tmp_path / "scan")
    with pytest.raises(CardError, match="unknown key sead"):
        run(Scan(card, {"sead": [1]}), tmp_path / "scan")
    with pytest.raises(ConfigError, match="the values make 10001 runs, more than 10000"):
        run(Scan(card, {"seed": list(range(10_001))}), tmp_path / "scan")
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize("texts", [["mass"], ["mass="], ["=1"], ["mass=1", "mass=2"], ["mass=1,1"]])
def test_wrong_settings_are_named(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="--set"):
        settings_of(texts)


def test_values_are_those_of_toml() -> None:
    found = settings_of(["a.b=1, 2.5,true", "c=one,two", 'd=["x"],["y", "z"]', "e=1e3"])
    assert found == {"a.b": [1, 2.5, True], "c": ["one", "two"], "d": [["x"], ["y", "z"]], "e": [1000.0]}


def test_folders_of_odd_values_are_plain_and_differ() -> None:
    order = Scan(Path("card.toml"), {"process": ["a/b.py:f", "a/b.py:g", "x" * 300]})
    names = [order.folder(point) for point in order.points()]
    assert len(set(names)) == 3
    assert all("/" not in name and len(name) < 120 for name in names)
