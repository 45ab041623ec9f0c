"""What a run tells while it runs: a log file, plain lines or a progress bar."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class Monitor(Protocol):
    """Receives what happens in a run."""

    def line(self, text: str) -> None:
        """Something to be read by a person."""
        ...

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """`done` of `total` units of a stage, with figures such as the loss."""
        ...


def progress_line(stage: str, done: int, total: int, figures: Mapping[str, str]) -> str:
    """One plain line of progress.

    >>> progress_line("training", 5, 20, {"loss": "0.1"})
    'training 25 %: loss 0.1'
    """
    share = 100 * done // total if total else 100
    details = ", ".join(f"{name} {value}" for name, value in figures.items())
    return f"{stage} {share} %" + (f": {details}" if details else "")


class _Throttle:
    """Lets one progress line through every ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = now
        return True


class LogMonitor:
    """Appends plain lines with the time of day to a file.

    Parameters
    ----------
    path
        The log file; made if missing.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._throttle = _Throttle()

    def line(self, text: str) -> None:
        """Append `text`, every line of it with the time."""
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        with self._path.open("a", encoding="utf-8") as handle:
            handle.writelines(f"{stamp} {part}\n" for part in text.splitlines())

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Append a line of progress, at most every ten seconds."""
        if self._throttle.due():
            self.line(progress_line(stage, done, total, figures))


class PlainMonitor:
    """Plain lines on a console that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._throttle = _Throttle()

    def line(self, text: str) -> None:
        """Show `text`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Show a line of progress, at most every ten seconds."""
        if self._throttle.due():
            self.line(progress_line(stage, done, total, figures))


class BarMonitor:
    """A progress bar with the time left, for a terminal; a context manager."""

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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Show `text` above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Move the bar of a stage; without new figures the old ones stay."""
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

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Pass progress on."""
        for member in self._members:
            member.progress(stage, done, total, figures)
