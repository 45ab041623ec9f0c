"""The comparison of models of jets: a small one and its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from small_jets import small_jets

from nisampler.calo.jets.files import write_jets


def test_models_stand_beside_each_other_and_the_floor(
    imported: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jets(tmp_path / "jets.hdf5", small_jets(360))
    words = ["--jets", str(tmp_path / "jets.hdf5"), "--work", str(tmp_path / "work"), "--epochs", "1"]
    words += ["--constituents", "5", "--presets", "small-epic-jedi"]
    script = imported("jets")
    assert script.main(words) == 0
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if line.startswith("| "))
    assert [cell.strip() for cell in head.split("|")[2:5]] == [
        "small-epic-jedi",
        "small-epic-jedi, raw",
        "reference, other half",
    ]
    assert "60 jets of each sample, 240 for the fits" in out and "CPU-ms a jet" in out
