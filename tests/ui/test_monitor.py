"""Progress: plain lines in the log and where there is no terminal, bars in a terminal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from nisampler.ui import monitor, progress, stage_table
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors
from nisampler.ui.progress import BarMonitor, NotebookMonitor, PlainMonitor, monitor_for
from nisampler.ui.stage_table import StageTable


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


def test_planned_lines_are_numbered(often: None) -> None:
    console = Console(file=io.StringIO(), width=200)
    plain = PlainMonitor(console)
    Monitors([plain]).plan({"fit a": 10, "fit b": 10})
    plain.progress("fit b", 5, 10, {"loss": "0.5"})
    plain.progress("end", 1, 2, {})
    assert console.file.getvalue() == "part 2 of 2, fit b 50 %: loss 0.5\nend 50 %\n"  # type: ignore[attr-defined]


def test_a_monitor_says_only_what_it_wants_to_hear() -> None:
    class Simple(Monitor):
        heard: list[str] = []  # noqa: RUF012

        def line(self, text: str) -> None:
            self.heard.append(text)

    both = Monitors([Simple(), SILENT])
    both.plan({"a": 1})
    both.progress("a", 1, 1, {})
    both.line("end")
    assert Simple.heard == ["end"]


def test_monitors_by_what_a_user_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(progress, "make_console", lambda: console)
    own = Monitor()

    def made(wanted: bool | Monitor | None) -> type[Monitor]:
        with monitor_for(wanted) as given:
            assert given is own or wanted is not own
            return type(given)

    assert [made(wanted) for wanted in (None, True, False, own)] == [Monitor, PlainMonitor, Monitor, Monitor]
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    assert [made(wanted) for wanted in (None, True, False)] == [BarMonitor, BarMonitor, Monitor]
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert [made(wanted) for wanted in (None, True, False)] == [NotebookMonitor, NotebookMonitor, Monitor]


class Display:
    """Stands where IPython.display does."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def display(self, bundle: dict[str, str], raw: bool, display_id: bool) -> Display:
        assert raw and display_id and not self.texts
        self.texts.append(bundle["text/plain"])
        return self

    def update(self, bundle: dict[str, str], raw: bool) -> None:
        assert raw
        self.texts.append(bundle["text/plain"])


def test_notebooks_show_one_line_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    monkeypatch.setitem(sys.modules, "IPython", display)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    clock = Clock(monkeypatch)
    book = NotebookMonitor()
    book.progress("training", 0, 4000, {})
    clock.now += 0.1
    book.progress("training", 10, 4000, {"loss": "0.5"})  # too soon after the last one to be drawn
    clock.now += 1.9
    book.progress("training", 1000, 4000, {})
    clock.now += 1.0
    book.progress("training", 4000, 4000, {"loss": "0.25"})
    book.line("done")
    assert [text.splitlines() for text in display.texts] == [
        ["training     ░░░░░░░░░░░░░░░░░░░░░░░░   0 %"],
        ["training     ██████░░░░░░░░░░░░░░░░░░  25 %  500/s  0:00:06 left  loss 0.5"],
        ["training     ████████████████████████ 100 %  1.33k/s  loss 0.25"],
        ["training     ████████████████████████ 100 %  1.33k/s  loss 0.25", "done"],
    ]


def drawn(table: StageTable, width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table.render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


class Clock:
    """Time that passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(stage_table.time, "monotonic", lambda: self.now)


def test_table_of_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    table = StageTable({"a": 100, "b": 100, "c": 200})
    assert [line.split() for line in drawn(table)[1:4]] == [["a", "waiting"], ["b", "waiting"], ["c", "waiting"]]
    # What was done before counts as done, but says nothing about the pace.
    table.progress("a", 100, 100, {"loss": "1"})
    assert drawn(table)[-1] == "1 of 3 done, 25 %"
    table.progress("b", 20, 100, {"loss": "2", "best": "0.5"})
    clock.now += 30
    table.progress("b", 80, 100, {"loss": "1.5"})
    lines = drawn(table)
    assert lines[0].split() == ["loss", "best", "time"]
    assert lines[1].split() == ["a", "done", "1"] and lines[3].split() == ["c", "waiting"]
    assert re.fullmatch(r"b +━+╸? *━* +1\.5 +0\.5 +0:00:30", lines[2])
    # 60 units in 30 seconds, 220 are left.
    assert lines[-1] == "1 of 3 done, 45 %, 0:00:30 so far, 0:01:50 left"
    clock.now += 10
    table.progress("b", 100, 100, {})
    assert drawn(table)[2].split() == ["b", "done", "1.5", "0.5", "0:00:40"]
    table.progress("d", 0, 100, {})
    table.progress("d", 100, 100, {})
    table.progress("c", 200, 200, {})
    assert drawn(table)[-1].startswith("4 of 4 done, 100 %")


def test_tables_of_many_stages_show_those_around_the_running_one() -> None:
    table = StageTable({f"s{k:02d}": 10 for k in range(46)})
    shown = [line.split()[0] for line in drawn(table)[1:-1]]
    assert shown == [f"s{k:02d}" for k in range(12)]
    table.progress("s19", 5, 10, {})
    lines = drawn(table)
    assert [line.split()[0] for line in lines[1:-1]] == [f"s{k:02d}" for k in range(13, 25)]
    assert lines[-1].endswith("(13 more above, 21 more below)")
    table.progress("s45", 5, 10, {})
    assert [line.split()[0] for line in drawn(table)[1:-1]] == [f"s{k:02d}" for k in range(34, 46)]
    assert len(drawn(StageTable({}))) == 2


def test_terminals_show_the_table() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with BarMonitor(console) as bar:
        Monitors([bar]).progress("reading", 1, 2, {})
        Monitors([bar]).plan({"fit a": 10, "fit b": 10})
        bar.progress("fit a", 10, 10, {"loss": "0.25"})
        bar.progress("fit b", 3, 10, {"loss": "0.125"})
        bar.line("a line above")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in text for word in ("reading", "fit b", "0.125", "done", "1 of 2 done, 65 %", "a line above"))
