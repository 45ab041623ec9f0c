"""Small event files that ask for the memory of the machine: a sentence in the report, and no such memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_files import KINDS, cases_of


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("events")
    return cases_of("events", folder)


@pytest.mark.parametrize("name", KINDS["events"])
def test_events_that_ask_for_much(name: str, events: dict[str, dict[str, Any]]) -> None:
    found = events[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert not found["error"]
