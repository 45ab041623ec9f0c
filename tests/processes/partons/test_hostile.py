"""Grid files that ask for the memory of the machine: a named error, before memory is taken."""

from __future__ import annotations

import pytest
from hostile_files import KINDS, named_and_cheap


@pytest.mark.parametrize("name", KINDS["grids"])
def test_grids_that_ask_for_much(name: str) -> None:
    assert named_and_cheap("grids", name) == "PdfError"
