"""Small event files that ask for the memory of the machine: a sentence in the report, and no such memory."""

from __future__ import annotations

import pytest
from hostile_files import KINDS, named_and_cheap


@pytest.mark.parametrize("name", KINDS["events"])
def test_events_that_ask_for_much(name: str) -> None:
    assert not named_and_cheap("events", name)
