"""Cards and JSON files that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_files import KINDS, cases_of


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("cards")
    return cases_of("cards", folder)


@pytest.mark.parametrize("name", KINDS["cards"])
def test_cards_that_ask_for_much(name: str, cards: dict[str, dict[str, Any]]) -> None:
    found = cards[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert found["error"] == "CardError"


@pytest.fixture(scope="module")
def json_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("json")
    return cases_of("json", folder)


@pytest.mark.parametrize("name", KINDS["json"])
def test_json_files_that_ask_for_much(name: str, json_files: dict[str, dict[str, Any]]) -> None:
    found = json_files[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert found["error"] == "CorruptFileError"
