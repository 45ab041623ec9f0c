"""Grid files that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_files import KINDS, cases_of


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("grids")
    return cases_of("grids", folder)


@pytest.mark.parametrize("name", KINDS["grids"])
def test_grids_that_ask_for_much(name: str, grids: dict[str, dict[str, Any]]) -> None:
    found = grids[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    assert found["error"] == "PdfError"
