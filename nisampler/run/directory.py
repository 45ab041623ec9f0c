"""The run directory: the card, the state of every stage, the log, events, result and report of one run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from nisampler import stored
from nisampler.base.locks import lock_folder
from nisampler.base.outputs import atomic_folder, new_folder
from nisampler.base.storage import atomic_write, read_json, remove_stale, write_json
from nisampler.errors import CorruptFileError, StorageError
from nisampler.run import lookup
from nisampler.run.card import Card, parse_card
from nisampler.stored import SECONDS

FORMAT, VERSION = "nisampler-run", 1
_FIELDS = {"format", "version", "card_sha256", "overrides", "process", "device", "threads", "versions"}


class RunDirectory:
    """One run on disk, locked for this process; a context manager.

    It holds ``card.toml`` (as given), ``run.json`` (what the command line and the machine added to the card),
    ``run.log``, ``checkpoint/`` (training), ``sampler/`` (frozen), ``integration/``, ``two_stage/`` (a surrogate, if it
    pays), ``events/`` (shards), the finished event files ``events.*``, ``result.json`` and ``report.html``. `create`
    and `open` make one.

    Attributes
    ----------
    path
        The folder.
    card
        Its card, overrides applied.
    settings
        The content of ``run.json``.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(folder, 'process = "camel4"', settings):
    ...         pass
    ...     with RunDirectory.open(folder) as run:
    ...         run.card.process, run.sampler.name, run.seconds()
    ('camel4', 'sampler', {})
    """

    def __init__(self, path: Path, card: Card, settings: Mapping[str, Any], lock: IO[str]) -> None:
        self.path, self.card, self.settings = path, card, dict(settings)
        self._lock = lock

    @classmethod
    def create(
        cls,
        path: str | Path,
        card_text: str,
        settings: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
    ) -> RunDirectory:
        """Make a new run; the folder appears with its card and settings, or not at all.

        Parameters
        ----------
        path
            Must not exist, or be an empty folder.
        card_text
            The card as given.
        settings
            ``process`` (its full name), ``device``, ``threads`` and ``versions`` of this run.
        overrides
            Values of the command line that replace those of the card, by full path.

        Raises
        ------
        CardError
            If the card is wrong.
        StorageError
            If the folder holds anything already, or cannot be made.
        """
        target = Path(path)
        card = parse_card(card_text, "card.toml", overrides)
        _refuse_occupied(target)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "card_sha256": _digest(card_text),
            "overrides": dict(overrides or {}),
            "source_sha256": lookup.source_sha256(settings["process"]),
            **settings,
        }
        with atomic_folder(target) as (temporary, lock):
            with atomic_write(temporary / "card.toml", "w") as handle:
                handle.write(card_text)
            write_json(temporary / "run.json", content)
        return cls(target, card, content, lock)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run to continue or read it.

        Raises
        ------
        StorageError
            If it is no run directory, another process uses it, or its card or the file of its process was changed
            since it began.
        CorruptFileError
            If ``run.json`` is damaged.
        """
        target = Path(path)
        if not (target / "run.json").is_file():
            raise StorageError(f"{target} is not a run directory: `nisampler run CARD --output DIR` makes one")
        lock = lock_folder(target)
        try:
            settings, card = read_settings(target)
            _check_source(target, settings)
        except BaseException:
            lock.close()
            raise
        remove_stale(target)
        return cls(target, card, settings, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder."""
        self._lock.close()

    @property
    def checkpoint(self) -> Path:
        """State of the training."""
        return self.path / stored.CHECKPOINT

    @property
    def sampler(self) -> Path:
        """The frozen sampler with the record of its training."""
        return self.path / stored.SAMPLER

    @property
    def integration(self) -> Path:
        """The integral, its batches and the distribution of weights."""
        return self.path / stored.INTEGRATION

    @property
    def two_stage(self) -> Path:
        """The surrogate of a two-stage unweighting, where it pays."""
        return self.path / stored.TWO_STAGE

    @property
    def events(self) -> Path:
        """The event shards."""
        return self.path / "events"

    @property
    def log(self) -> Path:
        """Plain lines."""
        return self.path / "run.log"

    @property
    def result(self) -> Path:
        """The figures of the run."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        """The page with the figures and plots."""
        return self.path / "report.html"

    def seconds(self) -> dict[str, float]:
        """Seconds spent so far in each stage, over all sessions; nothing else depends on them."""
        path = self.path / SECONDS
        if not path.is_file():
            return {}
        with suppress(CorruptFileError):
            return {str(name): float(value) for name, value in read_json(path).items()}
        return {}

    def store_seconds(self, seconds: Mapping[str, float]) -> None:
        """Remember the seconds spent in each stage."""
        write_json(self.path / SECONDS, dict(seconds))


def read_settings(path: str | Path) -> tuple[dict[str, Any], Card]:
    """The content of ``run.json`` and the card of a run; nothing is locked or changed.

    Raises
    ------
    StorageError
        If another release made the run, or its card was changed since it began.
    CorruptFileError
        If ``run.json`` is damaged.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(folder, 'process = "camel4"', settings, {"events.n": 20}):
    ...         stored, card = read_settings(folder)
    >>> stored["overrides"], card.events.n
    ({'events.n': 20}, 20)
    """
    target = Path(path)
    settings = read_json(target / "run.json")
    if not isinstance(settings, dict) or not settings.keys() >= _FIELDS:
        raise CorruptFileError(f"{target / 'run.json'} is incomplete: restore it from a copy")
    if (settings["format"], settings["version"]) != (FORMAT, VERSION):
        raise StorageError(f"{target} was made by another release, which has to continue it")
    return settings, parse_card(_card_text(target, settings), str(target / "card.toml"), settings["overrides"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _card_text(target: Path, settings: Mapping[str, Any]) -> str:
    try:
        text = (target / "card.toml").read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {target / 'card.toml'}: {error}") from error
    if _digest(text) != settings["card_sha256"]:
        raise StorageError(
            f"{target / 'card.toml'} is not the card this run began with: put the old one back to resume, or "
            "start a new run with the new card in another directory"
        )
    return text


def _check_source(target: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with another integrand than the run began with."""
    if lookup.source_sha256(settings["process"]) != settings.get("source_sha256"):
        place = settings["process"].rpartition(":")[0]
        raise StorageError(
            f"{place} is missing or was changed since {target} began: restore the file to resume, or start a new run "
            "in another directory"
        )


def _refuse_occupied(target: Path) -> None:
    if (target / "run.json").is_file():
        raise StorageError(
            f"{target} already holds a run: `nisampler resume {target}` continues it, or choose another --output"
        )
    new_folder(target)
