"""Small files of showers and binnings that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

import pytest
from hostile_files import KINDS, named_and_cheap


@pytest.mark.parametrize("name", KINDS["showers"])
def test_showers_that_ask_for_much(name: str) -> None:
    assert named_and_cheap("showers", name) in ("ShowerDataError", "CorruptFileError")


@pytest.mark.parametrize("name", KINDS["binnings"])
def test_binnings_that_ask_for_much(name: str) -> None:
    assert named_and_cheap("binnings", name) in ("GeometryError", "CorruptFileError")
