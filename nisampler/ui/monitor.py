"""What a long call tells while it works: the one protocol of progress, silence, several monitors as one, a log file.

Screens are in `nisampler.ui.progress`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from nisampler.base.storage import naming
from nisampler.errors import NisamplerError

_SECONDS_BETWEEN_LINES = 10.0


class Monitor:
    """Receives what happens in a long call; each method does nothing until a subclass says what it does.

    Examples
    --------
    >>> class Lines(Monitor):
    ...     def __init__(self) -> None:
    ...         self.seen = []
    ...     def line(self, text):
    ...         self.seen.append(text)
    >>> lines = Lines()
    >>> lines.line("begin"), lines.progress("training", 1, 2, {})
    (None, None)
    >>> lines.seen
    ['begin']
    """

    def line(self, text: str) -> None:
        """Something to be read by a person."""

    def log(self, text: str) -> None:
        """Something for a log, and too much for a screen."""

    def plan(self, stages: Mapping[str, int]) -> None:
        """The stages to come, in order, with the units of work of each."""

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """`done` of `total` units of a stage, with figures such as the loss."""

    def workers(self, figures: Mapping[str, Mapping[str, str]]) -> None:
        """What each of several workers has done so far, by its name."""


SILENT = Monitor()
"""Tells nothing."""


class Monitors(Monitor):
    """Several monitors as one.

    Parameters
    ----------
    members
        Are told everything, in their order.

    Examples
    --------
    >>> Monitors([SILENT, SILENT]).line("to both")
    """

    def __init__(self, members: Sequence[Monitor]) -> None:
        self._members = tuple(members)

    def line(self, text: str) -> None:
        """Pass `text` on."""
        for member in self._members:
            member.line(text)

    def log(self, text: str) -> None:
        """Pass `text` on."""
        for member in self._members:
            member.log(text)

    def plan(self, stages: Mapping[str, int]) -> None:
        """Pass the plan on."""
        for member in self._members:
            member.plan(stages)

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Pass progress on."""
        for member in self._members:
            member.progress(stage, done, total, figures)

    def workers(self, figures: Mapping[str, Mapping[str, str]]) -> None:
        """Pass the figures on."""
        for member in self._members:
            member.workers(figures)


def progress_line(stage: str, done: int, total: int, figures: Mapping[str, str]) -> str:
    """One plain line of progress.

    >>> progress_line("training", 5, 20, {"loss": "0.1"})
    'training 25 %: loss 0.1'
    """
    share = 100 * done // total if total else 100
    details = ", ".join(f"{name} {value}" for name, value in figures.items())
    return f"{stage} {share} %" + (f": {details}" if details else "")


class LineMonitor(Monitor):
    """Tells progress in plain lines, one every ten seconds; a subclass says where a line goes.

    Examples
    --------
    >>> class Last(LineMonitor):
    ...     def line(self, text):
    ...         self.last = text
    >>> last = Last()
    >>> last.line("trained")
    >>> last.last
    'trained'
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stages: list[str] = []

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


class LogMonitor(LineMonitor):
    """Appends plain lines with the time of day to a file.

    Parameters
    ----------
    path
        The log file; made if missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LogMonitor(f"{folder}/run.log").line("trained")
    ...     Path(folder, "run.log").read_text()
    '2... trained\\n'
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)

    def line(self, text: str) -> None:
        """Append `text`, every line of it with the time."""
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        with naming(self._path), self._path.open("a", encoding="utf-8") as handle:
            handle.writelines(f"{stamp} {part}\n" for part in text.splitlines())

    def log(self, text: str) -> None:
        """Append `text` as a line."""
        self.line(text)


@contextmanager
def log_end(path: str | Path) -> Iterator[None]:
    """Errors, Ctrl-C and requests to end that leave the block are told in the log file, too, if it can be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         with log_end(f"{folder}/run.log"):
    ...             raise KeyboardInterrupt
    ...     except KeyboardInterrupt:
    ...         Path(folder, "run.log").read_text()
    '2... KeyboardInterrupt\\n'
    """
    try:
        yield
    except (NisamplerError, OSError, MemoryError, KeyboardInterrupt) as error:
        with suppress(OSError):
            LogMonitor(path).line(f"{type(error).__name__}: {error}".removesuffix(": "))
        raise
