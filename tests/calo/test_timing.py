"""The timing protocol: what is counted and in what order; never how long it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import TinyModel

from nisampler.base.storage import write_json
from nisampler.calo import timing
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.timing import count_parameters, time_model
from nisampler.errors import ConfigError

MODEL = TinyModel(geometry("toy"))


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> TinyModel:
        MODEL.sizes.clear()
        return MODEL

    monkeypatch.setattr(timing, "load_model", load)


def test_batches_repeats_and_table(tmp_path: Path) -> None:
    found = time_model(tmp_path, batches=(20, 1), repeats=3)
    assert MODEL.sizes == [1] * 4 + [10] + [20] * 4
    assert [(row.device, row.batch, row.repeats) for row in found.rows] == [("cpu", 1, 3), ("cpu", 20, 3)]
    for row in found.rows:
        assert row.generate is not None and row.fastest is not None and row.slowest is not None
        assert 0 < row.fastest <= row.generate <= row.slowest and row.write is not None and row.write > 0
    table = found.table()
    assert table[0][:3] == ["device", "batch", "ms/shower"] and len(table) == 3
    assert found.load_seconds.keys() == {"cpu"} and found.machine["threads"] >= 1
    write_json(tmp_path / "timing.json", found.to_dict())


def test_what_does_not_fit_the_budget(tmp_path: Path) -> None:
    found = time_model(tmp_path, batches=(1, 10**9), repeats=2, budget=100.0)
    assert found.rows[0].repeats == 2
    assert MODEL.sizes == [1] * 3 + [10]
    assert found.rows[1].generate is None and "did not run: about" in found.rows[1].reason
    assert found.table()[2][2] == "-" and "did not run" in found.table()[2][-1]
    few = time_model(tmp_path, batches=(1,), repeats=10**6, budget=0.05)
    assert few.rows[0].generate is None or 1 <= few.rows[0].repeats < 10**6


def test_out_of_memory_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(MODEL, "sample", fail)
    (row,) = time_model(tmp_path, batches=(5,)).rows
    assert row.generate is None and row.reason == "did not run: out of memory"


def test_parameters_of_training_and_generation() -> None:
    assert count_parameters(MODEL) == (242, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batches": (0,)}, r"batches = \[0\]: must be a list, each a whole number, at least 1"),
        ({"repeats": 0}, "repeats = 0: must be a whole number, at least 1"),
        ({"budget": 0.0}, "budget = 0.0: must be a number, more than 0"),
        ({"batches": ()}, "batches must name at least one size"),
    ],
)
def test_wrong_use(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        time_model(tmp_path, **wrong)
