"""The laboratory of the training: its questions, its stored points, its table and its figure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from nisampler.errors import ConfigError
from nisampler.training.config import TrainingConfig

KEY = ("question", "value", "case", "calls", "stored", "seed")


@pytest.fixture
def learning(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("learning")


def row(value: str, seed: int, efficiency: float, case: str = "camel4", stored: int = 0) -> dict[str, object]:
    asked = ("" if value == "default" else "flow.bins", value)
    place = dict(zip(KEY, (*asked, case, 5000, stored, seed), strict=True))
    figures = {"efficiency": efficiency, "flow": efficiency, "spread": 0.5, "seconds": 2.0, "hardware": "here"}
    return place | figures


def test_settings_and_constants_can_be_asked_for(learning: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"question": "flow.bins", "value": "6"}
    assert learning.configured(job, 5000).flow.bins == 6
    assert learning.configured(job | {"question": "sampler", "value": "vegas"}, 5000).sampler == "vegas"
    assert learning.configured(job | {"value": learning.DEFAULT}, 5000) == TrainingConfig(5000, "flow", events=0)
    monkeypatch.setattr(learning.tuning, "TAIL", 0.75)
    monkeypatch.setattr(learning.tuning, "REUSE", (1, 3))
    several = {"question": "several", "value": '{"flow.batch": 64, "flow.reuse": 2}'}
    assert learning.configured(several, 5000).flow.reuse == 2
    with pytest.raises(ConfigError, match="are JSON objects"):
        learning.configured(several | {"value": "64"}, 5000)
    learning.configured({"question": "tuning.TAIL", "value": "0.5"}, 5000)
    learning.configured({"question": "tuning.REUSE", "value": "[2, 2]"}, 5000)
    assert learning.tuning.TAIL == 0.5 and learning.tuning.REUSE == (2, 2)


@pytest.mark.parametrize("question", ["flow.nothing", "nothing.bins", "tuning.NOTHING", "flow.bins.more"])
def test_questions_about_nothing_are_refused(learning: ModuleType, question: str) -> None:
    with pytest.raises(ConfigError, match=r"is called|has no"):
        learning.configured({"question": question, "value": "1"}, 5000)


def test_jobs(learning: ModuleType) -> None:
    options = learning.parse(
        ["--question", "flow.bins", "--values", "6", "8", "--cases", "camel4", "--seeds", "1", "2"]
    )
    jobs = learning.jobs_of(options)
    assert [(job["value"], job["seed"]) for job in jobs][:3] == [("default", 1), ("6", 1), ("8", 1)] and len(jobs) == 6
    for wrong in (["--seeds", "0"], ["--stored", "-1"], ["--values", "3"]):
        with pytest.raises(ConfigError, match=r"positive|need a --question"):
            learning.jobs_of(learning.parse(wrong))


def test_table_and_figure(learning: ModuleType, tmp_path: Path) -> None:
    rows = [row("default", 1, 0.2), row("default", 2, 0.4), row("6", 1, 0.1), row("6", 2, 0.3), row("16", 1, 0.6)]
    lines = learning.table_lines(rows)
    assert [line[1] for line in lines] == ["default", "6", "16"]
    assert [line[8] for line in lines] == ["1.000", "0.625", "3.000"]
    learning.draw(rows, "flow.bins", tmp_path / "bins.svg")
    assert (tmp_path / "bins.svg").read_text().lstrip().startswith("<?xml")
    options = learning.parse(["--question", "flow.bins", "--output", str(tmp_path / "rows.json")])
    learning.show(Console(width=200, file=io.StringIO()), rows, options)
    assert "flow.bins" in (tmp_path / "rows.rows.md").read_text()


@pytest.mark.parametrize("stored", [0, 20_000])
def test_a_row_is_measured(learning: ModuleType, stored: int, tmp_path: Path) -> None:
    asked = ("flow.hidden", "16", "camel4", 6000, stored, 1)
    job = dict(zip(learning.KEY, asked, strict=True)) | {"points": 20_000, "cache": str(tmp_path)}
    first = learning.measure(job)
    assert 0.0 < first["efficiency"] <= 1.0 and first["spread"] > 0.0 and first["seconds"] > 0.0
    assert learning.measure(job)["efficiency"] == first["efficiency"]
    assert bool(list(tmp_path.iterdir())) is bool(stored)
