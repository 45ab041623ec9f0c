"""What a run tells while it runs: a log file, plain lines or a progress bar."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nisampler.ui.stage_table import StageTable

_SECONDS_BETWEEN_LINES = 10.0


class Monitor(Protocol):
    """Receives what happens in a run."""

    def line(self, text: str) -> None:
        """Something to be read by a person."""
        ...

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """`done` of `total` units of a stage, with figures such as the loss."""
        ...


@runtime_checkable
class Planner(Protocol):
    """A monitor that also wants to know what is to come."""

    def plan(self, stages: Mapping[str, int]) -> None:
        """The stages to come, in order, with the units of each."""
        ...


def progress_line(stage: str, done: int, total: int, figures: Mapping[str, str]) -> str:
    """One plain line of progress.

    >>> progress_line("training", 5, 20, {"loss": "0.1"})
    'training 25 %: loss 0.1'
    """
    share = 100 * done // total if total else 100
    details = ", ".join(f"{name} {value}" for name, value in figures.items())
    return f"{stage} {share} %" + (f": {details}" if details else "")


class _LineMonitor(ABC):
    """Tells progress in plain lines, one every ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stages: list[str] = []

    @abstractmethod
    def line(self, text: str) -> None:
        """Tell `text`."""

    def plan(self, stages: Mapping[str, int]) -> None:
        """From now on lines say which part of how many a stage is."""
        self._stages = list(stages)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Tell a line of progress, at most every ten seconds."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        known = stage in self._stages
        place = f"part {self._stages.index(stage) + 1} of {len(self._stages)}, " if known else ""
        self.line(place + progress_line(stage, done, total, figures))


class LogMonitor(_LineMonitor):
    """Appends plain lines with the time of day to a file.

    Parameters
    ----------
    path
        The log file; made if missing.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)

    def line(self, text: str) -> None:
        """Append `text`, every line of it with the time."""
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        with self._path.open("a", encoding="utf-8") as handle:
            handle.writelines(f"{stamp} {part}\n" for part in text.splitlines())


class PlainMonitor(_LineMonitor):
    """Plain lines on a console that is no terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def line(self, text: str) -> None:
        """Show `text`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class BarMonitor:
    """Progress bars with the time left, or a table of planned stages, for a terminal; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._table: StageTable | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        """End what is drawn; it stays on the screen."""
        if self._tasks:
            self._progress.stop()
        if self._live is not None:
            self._live.stop()

    def line(self, text: str) -> None:
        """Show `text` above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def plan(self, stages: Mapping[str, int]) -> None:
        """From now on show a table of these stages."""
        self._stop()
        self._table = StageTable(stages)
        self._live = Live(get_renderable=self._table.render, console=self._console, refresh_per_second=4)
        self._live.start()

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Move the bar of a stage; without new figures the old ones stay."""
        if self._table is not None:
            self._table.progress(stage, done, total, figures)
            return
        self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, figures="")
        text = "  ".join(f"{name} {value}" for name, value in figures.items())
        shown: dict[str, Any] = {"figures": text} if text else {}
        self._progress.update(self._tasks[stage], completed=done, total=total, **shown)


class Monitors:
    """Several monitors as one.

    Parameters
    ----------
    members
        None of them means silence.
    """

    def __init__(self, members: Sequence[Monitor] = ()) -> None:
        self._members = tuple(members)

    def line(self, text: str) -> None:
        """Pass `text` on."""
        for member in self._members:
            member.line(text)

    def plan(self, stages: Mapping[str, int]) -> None:
        """Tell those who want to know what is to come."""
        for member in self._members:
            if isinstance(member, Planner):
                member.plan(stages)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Pass progress on."""
        for member in self._members:
            member.progress(stage, done, total, figures)
