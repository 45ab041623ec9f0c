"""Where progress is shown: bars in a terminal, bars of text in a notebook, plain lines elsewhere."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from nisampler.ui.monitor import SILENT, LineMonitor, Monitor
from nisampler.ui.stage_table import StageTable, clock, worker_table

_BAR_WIDTH, _SHORT_BAR = 24, 6
# A terminal with fewer columns gets a short bar and no pace, so that there is room for the figures.
_NARROW = 115
_SECONDS_BETWEEN_DRAWINGS = 0.25
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def make_console() -> Console:
    """A console on stdout that breaks lines in a terminal only.

    >>> make_console().is_terminal
    False
    """
    return Console(soft_wrap=not sys.stdout.isatty())


@contextmanager
def monitor_for(progress: bool | Monitor | None = None) -> Iterator[Monitor]:
    """The monitor that a user of a long call asks for, as long as it is shown.

    Parameters
    ----------
    progress
        None shows bars in a terminal and in a notebook, and nothing elsewhere; True shows plain lines there; False
        shows nothing; a monitor of one's own is taken as it is.

    Examples
    --------
    >>> with monitor_for(False) as monitor:
    ...     monitor.progress("training", 1, 2, {"loss": "0.5"})
    """
    if isinstance(progress, Monitor):
        yield progress
        return
    console = make_console()
    if progress is not False and console.is_jupyter:
        yield NotebookMonitor()
    elif progress is not False and console.is_terminal:
        with BarMonitor(console) as bar:
            yield bar
    else:
        yield PlainMonitor(console) if progress else SILENT


def pace(per_second: float) -> str:
    """Units of work in a second.

    >>> pace(0.25), pace(1234.5), pace(2e6)
    ('0.25/s', '1.23k/s', '2M/s')
    """
    scale, prefix = next(((scale, prefix) for scale, prefix in _PREFIXES if per_second >= scale), _PREFIXES[-1])
    return f"{per_second / scale:.3g}{prefix}/s"


class PlainMonitor(LineMonitor):
    """Plain lines on a console that is no terminal.

    Parameters
    ----------
    console
        Lines are never broken.

    Examples
    --------
    >>> PlainMonitor(make_console()).line("trained")
    trained
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def line(self, text: str) -> None:
        """Show `text`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Pace(ProgressColumn):
    """Units of work in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(pace(speed) if speed else "", style="dim")


class _Figures(ProgressColumn):
    """Figures of a stage, cut off where the terminal ends."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], style="dim", no_wrap=True, overflow="ellipsis")


class _Bars(Progress):
    """Bars with something below them."""

    below: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


class BarMonitor(Monitor):
    """Progress bars with pace, time left and figures, or a table of planned stages, for a terminal.

    A context manager: what it draws stays on the screen when it is left.

    Parameters
    ----------
    console
        Of the terminal.

    Examples
    --------
    >>> import io
    >>> screen = io.StringIO()
    >>> with BarMonitor(Console(file=screen, width=90)) as bar:
    ...     bar.progress("training", 2, 2, {"loss": "0.5"})
    >>> "training" in screen.getvalue() and "loss 0.5" in screen.getvalue()
    True
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        narrow = console.width < _NARROW
        self._progress = _Bars(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=_SHORT_BAR if narrow else _BAR_WIDTH),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            *([] if narrow else [_Pace(table_column=Column(no_wrap=True))]),
            _Figures(),
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

    def workers(self, figures: Mapping[str, Mapping[str, str]]) -> None:
        """Show a table of the workers below the bars."""
        self._progress.below = worker_table(figures)


class NotebookMonitor(Monitor):
    """One line of progress for each stage below a cell of a notebook, drawn again at most four times a second.

    Examples
    --------
    >>> class Shown(NotebookMonitor):
    ...     def draw(self, text):
    ...         self.text = text
    >>> shown = Shown()
    >>> shown.progress("training", 5, 5, {"loss": "0.5"})
    >>> shown.text
    'training     ████████████████████████ 100 %  loss 0.5'
    """

    def __init__(self) -> None:
        self._begins: dict[str, tuple[float, int]] = {}
        self._figures: dict[str, dict[str, str]] = {}
        self._lines: dict[str, str] = {}
        self._drawn = 0.0
        self._handle: Any = None

    def line(self, text: str) -> None:
        """Show `text` below the bars."""
        self._lines[f"{len(self._lines)}"] = text
        self.draw("\n".join(self._lines.values()))

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Move the bar of a stage; without new figures the old ones stay."""
        now = time.monotonic()
        begin, before = self._begins.setdefault(stage, (now, done))
        known = self._figures.setdefault(stage, {})
        known.update(figures)
        finished = done >= total
        filled = _BAR_WIDTH if finished else _BAR_WIDTH * done // total
        parts = [f"{stage:<12} {'█' * filled:░<{_BAR_WIDTH}} {100 if finished else 100 * done // total:3d} %"]
        if done > before and now > begin:
            speed = (done - before) / (now - begin)
            parts += [pace(speed), *([] if finished else [f"{clock((total - done) / speed)} left"])]
        self._lines[stage] = "  ".join([*parts, *(f"{name} {value}" for name, value in known.items())])
        if finished or now - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._drawn = now
            self.draw("\n".join(self._lines.values()))

    def draw(self, text: str) -> None:
        """Show `text` in the place of what was shown."""
        bundle = {"text/plain": text}
        if self._handle is None:
            display: Any = importlib.import_module("IPython.display").display
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
