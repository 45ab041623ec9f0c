"""A scan: the run of a card for each of several values of its keys, side by side, with a table and a figure."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nisampler.base.locks import lock_folder
from nisampler.base.outputs import new_folder
from nisampler.base.storage import atomic_write, make_folder, read_sealed, write_sealed
from nisampler.errors import ConfigError, NisamplerError, StorageError
from nisampler.run.card import parse_card, read_card_text
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.workers import Crew, as_they_end, outcome
from nisampler.run.pipeline import execute, start
from nisampler.run.report.summary import integral_text
from nisampler.run.submission.scan_figure import draw_scan
from nisampler.ui.monitor import SILENT, Monitor

NAME, FIGURE = "scan.json", "scan.png"
_MOST_RUNS, _LONG_NAME = 10_000, 100
_ONE_AT_A_TIME = threading.Lock()
"""Threads of a worker take turns: the current folder is one for all."""


def settings_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Keys of a card and the values that each takes.

    >>> settings_of(["parameters.mass=1000,2000.5", 'parameters.pdf=toy,"CT18LO/0"'])
    {'parameters.mass': [1000, 2000.5], 'parameters.pdf': ['toy', 'CT18LO/0']}
    >>> settings_of(["mass"])
    Traceback (most recent call last):
    nisampler.errors.ConfigError: --set must be KEY=VALUE,VALUE..., such as parameters.mass=1000,2000, got 'mass'

    Raises
    ------
    ConfigError
        If a text is something else, or a key or value is there twice.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not (key and equals and values.strip()):
            raise ConfigError(f"--set must be KEY=VALUE,VALUE..., such as parameters.mass=1000,2000, got {text!r}")
        taken = _values(values)
        if key in found or len({repr(value) for value in taken}) < len(taken):
            raise ConfigError(f"--set {text}: each key, and each value of a key, may be there once")
        found[key] = taken
    return found


def _values(text: str) -> list[Any]:
    """Values of TOML between commas; words without quotes are taken as text."""
    try:
        return list(tomllib.loads(f"x = [{text}]")["x"])
    except tomllib.TOMLDecodeError:
        return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


@dataclass(frozen=True)
class Scan:
    """Runs of one card.

    Attributes
    ----------
    card
        Its file.
    values
        Keys of the card, and the values that each takes; every combination is a run.
    overrides
        Values that replace those of the card in all runs.

    Examples
    --------
    >>> scan = Scan(Path("card.toml"), {"parameters.mass": [1.0, 2.0], "seed": [1, 2]})
    >>> [scan.folder(point) for point in scan.points()]
    ['mass=1.0,seed=1', 'mass=1.0,seed=2', 'mass=2.0,seed=1', 'mass=2.0,seed=2']
    """

    card: Path
    values: Mapping[str, Sequence[Any]]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def points(self) -> list[dict[str, Any]]:
        """The values of each run."""
        return [dict(zip(self.values, point, strict=True)) for point in itertools.product(*self.values.values())]

    def folder(self, point: Mapping[str, Any]) -> str:
        """The name of the folder of a run."""
        text = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())
        plain = re.sub(r"[^\w.,=+-]+", "_", text)
        if plain == text and len(plain) < _LONG_NAME:
            return plain
        return f"{plain[:_LONG_NAME]}-{hashlib.sha256(repr(point).encode()).hexdigest()[:8]}"


def scan(order: Scan, output: Path, crew: Crew, monitor: Monitor = SILENT) -> dict[str, Any]:
    """Run a card for all values; a scan that was interrupted, or in which runs failed, is continued.

    Parameters
    ----------
    order
        What to run. All values are checked before anything is made.
    output
        A new folder, or that of the same scan; the workers see it, too.
    crew
        Who runs.
    monitor
        Is told of each run that ends.

    Returns
    -------
    dict
        The content of ``scan.json`` in `output`: ``points`` with ``values``, ``folder``, and either ``integral``,
        ``efficiency_0p1`` and others of the run's ``result.json``, or ``error``. ``scan.png`` shows them.

    Raises
    ------
    CardError
        If the card is wrong with any of the values.
    ConfigError
        If there are more than 10,000 runs.
    StorageError
        If `output` holds something else, is in use, or cannot be written.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import tempfile
    >>> text = 'process = "camel4"\\ntraining = {calls = 5000, sampler = "vegas"}\\nintegration = {points = 2048}'
    >>> with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
    ...     card = Path(folder) / "card.toml"
    ...     _ = card.write_text(text)
    ...     found = scan(Scan(card, {"seed": [1, 2]}, {"events.n": 0}), card.with_name("seeds"), Crew(executor))
    >>> [point["folder"] for point in found["points"]]
    ['seed=1', 'seed=2']
    """
    points = order.points()
    if len(points) > _MOST_RUNS:
        raise ConfigError(f"the values make {len(points)} runs, more than {_MOST_RUNS}: give --set fewer of them")
    text = read_card_text(order.card)
    for point in points:
        parse_card(text, f"{order.card} with {order.folder(point)}", {**order.overrides, **point})
    asked = {"card": text, "values": dict(order.values), "overrides": dict(order.overrides)}
    place = output / NAME
    if not place.is_file():
        make_folder(new_folder(output))
    with lock_folder(output):
        if not place.is_file():
            write_sealed(place, asked | {"points": []})
        elif {name: read_sealed(place)[name] for name in asked} != asked:
            raise StorageError(f"{output} holds another scan: choose another --output")
        found = _outcomes(order, output.absolute(), crew, monitor)
        rows = [
            {"values": point, "folder": order.folder(point), **row} for point, row in zip(points, found, strict=True)
        ]
        result = asked | {"points": rows}
        write_sealed(place, result)
        with atomic_write(output / FIGURE) as handle:
            handle.write(draw_scan(list(order.values), rows))
    return result


def _outcomes(order: Scan, output: Path, crew: Crew, monitor: Monitor) -> list[dict[str, Any]]:
    """Of each run what is told of it, or its error."""
    points = order.points()
    futures: dict[Future[Any], int] = {}
    for number, point in enumerate(points):
        place, given = output / order.folder(point), {**order.overrides, **point}
        futures[crew.executor.submit(_run, order.card.absolute(), place, given, Path.cwd())] = number
    found: dict[int, dict[str, Any]] = {}
    with as_they_end(futures) as ended:
        for future in ended:
            if future is not None:
                row = found[futures[future]] = _row(future)
                monitor.line(f"{order.folder(points[futures[future]])}: {scan_text(row)}")
            failed = sum("error" in row for row in found.values())
            figures = {**({"failed": str(failed)} if failed else {}), **crew.figures()}
            monitor.progress("runs", len(found), len(points), figures)
    return [found[number] for number in range(len(points))]


def _row(future: Future[Any]) -> dict[str, Any]:
    try:
        return dict(outcome(future))
    except NisamplerError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _run(card: Path, output: Path, overrides: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """In a worker: a run from where it stands, in the folder that names in the card are meant from."""
    with _ONE_AT_A_TIME, chdir(folder):
        if (output / "run.json").is_file():
            with RunDirectory.open(output) as directory:
                finished = directory.result.is_file() and directory.report.is_file()
                result = read_sealed(directory.result) if finished else execute(directory)
        else:
            with start(card, output, overrides) as directory:
                result = execute(directory)
    told = {name: result[name] for name in ("integral", "calls", "seconds", "warnings")}
    return told | {name: result["unweighting"][name] for name in ("efficiency_0p1", "n_events")}


def scan_text(row: Mapping[str, Any]) -> str:
    """The outcome of a run in a few words.

    >>> scan_text({"error": "CardError: seed"})
    'CardError: seed'
    """
    if "error" in row:
        return str(row["error"])
    worth = f"efficiency {100 * row['efficiency_0p1']:.3g} %, " if row["efficiency_0p1"] is not None else ""
    return f"{integral_text(row)}, {worth}{sum(row['seconds'].values()):.1f} s"


def scan_summary(result: Mapping[str, Any], output: Path) -> list[tuple[str, str]]:
    """The result of `scan` in a few lines.

    >>> scan_summary({"points": [{"folder": "seed=1", "error": "CardError: seed"}]}, Path("seeds"))
    [('seed=1', 'CardError: seed'), ('', 'seeds/scan.json'), ('', 'seeds/scan.png')]
    """
    rows = [(point["folder"], scan_text(point)) for point in result["points"]]
    return [*rows, *(("", str(output / name)) for name in (NAME, FIGURE))]
