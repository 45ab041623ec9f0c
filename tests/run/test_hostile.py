"""Cards and JSON files that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

import pytest
from hostile_files import KINDS, named_and_cheap


@pytest.mark.parametrize("name", KINDS["cards"])
def test_cards_that_ask_for_much(name: str) -> None:
    assert named_and_cheap("cards", name) == "CardError"


@pytest.mark.parametrize("name", KINDS["json"])
def test_json_files_that_ask_for_much(name: str) -> None:
    assert named_and_cheap("json", name) == "CorruptFileError"
