"""A table of all stages of a long work: which are done, which runs and how far, which wait, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

_MOST_ROWS, _BAR_WIDTH = 12, 10


@dataclass
class _Row:
    """A stage: its progress, its figures, when it began here, and how long it took."""

    done: int
    total: int
    figures: dict[str, str] = field(default_factory=dict)
    begin: float | None = None
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        return self.done >= self.total


class StageTable:
    """The stages of a work with a row for each; of many, those around the one that was heard of last.

    Parameters
    ----------
    stages
        Units of work of each stage, in order.

    Examples
    --------
    >>> table = StageTable({"flow I": 10, "flow II": 30})
    >>> table.progress("flow I", 10, 10, {"loss": "0.5"})
    >>> table.total()
    '1 of 2 done, 25 %'
    """

    def __init__(self, stages: Mapping[str, int]) -> None:
        self._rows = {name: _Row(0, total) for name, total in stages.items()}
        self._current = next(iter(self._rows), "")
        self._begin: float | None = None
        self._before = 0

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """`done` of `total` units of a stage; without new figures the old ones stay."""
        now = time.monotonic()
        # What another thread may be drawing is replaced, never changed.
        if stage not in self._rows:
            self._rows = self._rows | {stage: _Row(0, total)}
        row = self._rows[stage]
        row.done, row.total, row.figures, self._current = done, total, {**row.figures, **figures}, stage
        if not row.finished:
            row.begin = now if row.begin is None else row.begin
            if self._begin is None:
                self._begin, self._before = now, self._done()
        row.seconds = 0.0 if row.begin is None else now - row.begin

    def _done(self) -> int:
        return sum(min(row.done, row.total) for row in self._rows.values())

    def render(self) -> RenderableType:
        """The table as it is now, and a line about everything."""
        names = list(self._rows)
        first = max(0, min(names.index(self._current) - _MOST_ROWS // 2, len(names) - _MOST_ROWS)) if names else 0
        shown = names[first : first + _MOST_ROWS]
        titles = list(dict.fromkeys(title for row in self._rows.values() for title in row.figures))
        columns = [Column("", no_wrap=True), Column("", width=_BAR_WIDTH)]
        columns += [Column(title, no_wrap=True, justify="right") for title in (*titles, "time")]
        table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        for name in shown:
            row = self._rows[name]
            spent = clock(row.seconds) if row.begin is not None else ""
            table.add_row(Text(name), _state(row), *(Text(row.figures.get(title, "")) for title in titles), spent)
        hidden = [(first, "above"), (len(names) - first - len(shown), "below")]
        more = ", ".join(f"{count} more {where}" for count, where in hidden if count)
        return Group(table, Text(self.total() + (f" ({more})" if more else ""), style="bold"))

    def total(self) -> str:
        """How much of everything is done, for how long, and the time left at the pace so far."""
        work, done = sum(row.total for row in self._rows.values()), self._done()
        finished = sum(row.finished for row in self._rows.values())
        text = f"{finished} of {len(self._rows)} done, {100 * done // work if work else 100} %"
        if self._begin is None:
            return text
        spent = time.monotonic() - self._begin
        text += f", {clock(spent)} so far"
        gained = done - self._before
        return text + (f", {clock(spent * (work - done) / gained)} left" if gained > 0 else "")


def _state(row: _Row) -> RenderableType:
    if row.finished:
        return Text("done", style="green")
    if row.begin is None:
        return Text("waiting", style="dim")
    return ProgressBar(total=row.total, completed=row.done, width=_BAR_WIDTH)


def worker_table(figures: Mapping[str, Mapping[str, str]]) -> RenderableType:
    """A row of figures for each worker; of many, the first ones and how many more there are.

    >>> worker_table({"node1:4711": {"shards": "3"}}).row_count
    1
    """
    titles = list(dict.fromkeys(title for row in figures.values() for title in row))
    columns = [Column(title, no_wrap=True, justify="right") for title in titles]
    table = Table(Column("worker", no_wrap=True), *columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in list(figures)[:_MOST_ROWS]:
        table.add_row(Text(name), *(Text(figures[name].get(title, "")) for title in titles))
    hidden = len(figures) - _MOST_ROWS
    return Group(table, Text(f"and {hidden} more", style="dim")) if hidden > 0 else table


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(61.4)
    '0:01:01'
    """
    return str(timedelta(seconds=round(seconds)))
