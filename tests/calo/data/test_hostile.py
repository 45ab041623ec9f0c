"""Small files of showers and binnings that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_files import KINDS, cases_of


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("showers")
    return cases_of("showers", folder)


@pytest.mark.parametrize("name", KINDS["showers"])
def test_showers_that_ask_for_much(name: str, showers: dict[str, dict[str, Any]]) -> None:
    found = showers[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert found["error"] in ("ShowerDataError", "CorruptFileError")


@pytest.fixture(scope="module")
def binnings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("binnings")
    return cases_of("binnings", folder)


@pytest.mark.parametrize("name", KINDS["binnings"])
def test_binnings_that_ask_for_much(name: str, binnings: dict[str, dict[str, Any]]) -> None:
    found = binnings[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert found["error"] in ("GeometryError", "CorruptFileError")
