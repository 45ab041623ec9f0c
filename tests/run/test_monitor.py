"""Progress: plain lines in the log and where there is no terminal, bars in a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from nisampler.run import monitor
from nisampler.run.monitor import BarMonitor, LogMonitor, Monitors, PlainMonitor


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_SECONDS_BETWEEN_LINES", 0.0)


def test_log_lines_have_the_time(tmp_path: Path, often: None) -> None:
    log = LogMonitor(tmp_path / "run.log")
    log.line("first [bold]\nsecond")
    log.progress("training", 1, 4, {"loss": "0.5"})
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line[20:] for line in lines] == ["first [bold]", "second", "training 25 %: loss 0.5"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)


def test_progress_lines_are_rare(tmp_path: Path) -> None:
    log = LogMonitor(tmp_path / "run.log")
    for done in range(1000):
        log.progress("training", done, 1000, {})
    assert not (tmp_path / "run.log").exists()


def test_plain_lines_are_left_alone(often: None) -> None:
    console = Console(file=io.StringIO(), width=20)
    plain = PlainMonitor(console)
    plain.line("a line [that] is longer than the console is wide")
    plain.progress("events", 0, 0, {})
    assert console.file.getvalue() == "a line [that] is longer than the console is wide\nevents 100 %\n"  # type: ignore[attr-defined]


def test_bars_show_figures() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with BarMonitor(console) as bar:
        Monitors([bar, bar]).line("hello")
        Monitors([bar]).progress("training", 5, 10, {"loss": "0.25", "error": "1e-3"})
        bar.progress("training", 10, 10, {"loss": "0.125"})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "hello" in text and "training" in text and "loss 0.125" in text and "100%" in text
