"""The run directory: the card, the state of every stage, the log, events, result and report of one run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from nisampler import stored
from nisampler.base import kept
from nisampler.base.checkpoints import MANIFEST_NAME
from nisampler.base.locks import lock_folder
from nisampler.base.outputs import atomic_folder, new_folder
from nisampler.base.storage import atomic_write, read_sealed, remove_stale, sha256, write_sealed
from nisampler.errors import CardError, ConfigError, CorruptFileError, StorageError, command
from nisampler.run import lookup
from nisampler.run.card import Card, parse_card, read_card_text

FORMAT, VERSION = "nisampler-run", 2
PACK, PACK_FORMAT, PACK_VERSION = "manifest.json", "nisampler-pack", 1
PDF, CACHE = "pdf", "cache"
"""Folders of a pack: grids of parton densities, and amplitudes."""
_FIELDS = {
    "card_sha256": str,
    "overrides": dict,
    "process": str,
    "source_sha256": str | None,
    "device": str,
    "threads": int,
    "versions": dict,
}


class RunDirectory:
    """One run on disk; a context manager.

    It holds ``card.toml`` (as given), ``run.json`` (what the command line and the machine added to the card),
    ``run.log``, ``checkpoint/`` (training), ``sampler/`` (frozen), ``integration/``, ``two_stage/`` (a surrogate, if it
    pays), ``events/`` (shards), the finished event files ``events.*``, ``distributions/`` (of weighted points and of
    events), ``result.json`` and ``report.html``. `create` and `open` make one that is locked for this process; one of
    `read` may be used by many at once, and nothing is written in it.

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

    def __init__(self, path: Path, card: Card, settings: Mapping[str, Any], lock: IO[str] | None = None) -> None:
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
            "source_sha256": lookup.source_sha256(settings["process"], card.parameters),
            **settings,
        }
        with atomic_folder(target) as (temporary, lock):
            with atomic_write(temporary / "card.toml", "w") as handle:
                handle.write(card_text)
            write_sealed(temporary / "run.json", content)
        return cls(target, card, content, lock)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run to continue it.

        Raises
        ------
        StorageError
            If it is no run directory, another process uses it, or its card or the file of its process was changed
            since it began.
        CorruptFileError
            If ``run.json`` is damaged.
        """
        target = _run(path)
        lock = lock_folder(target)
        try:
            run = cls.read(path)
            run.check_source()
        except BaseException:
            lock.close()
            raise
        run._lock = lock
        remove_stale(target)
        return run

    @classmethod
    def read(cls, path: str | Path) -> RunDirectory:
        """Open an existing run to read it: no lock is taken, nothing is written, no code is run.

        Raises
        ------
        StorageError
            If it is no run directory, another release made it, or its card was changed since it began.
        CorruptFileError
            If ``run.json`` is damaged, or does not agree with the card.

        Examples
        --------
        >>> RunDirectory.read("nowhere")
        Traceback (most recent call last):
        nisampler.errors.StorageError: nowhere is not a run directory: `nisampler run CARD --output DIR` makes one
        """
        target = _run(path)
        settings, card = _settings(target)
        if (target.parent / PACK).is_file():
            settings, card = _relocated(target.parent, settings, card)
        return cls(target, card, settings)

    def with_events(self, **settings: Any) -> RunDirectory:
        """The same run, to be read, with other settings of `[events]`.

        Raises
        ------
        CardError
            If one is wrong, as in a card.
        """
        try:
            events = replace(self.card.events, **settings)
        except ConfigError as error:
            raise CardError(f"events: {error}") from error
        return RunDirectory(self.path, self.card.model_copy(update={"events": events}), self.settings)

    def check_source(self) -> None:
        """Refuse to go on with another integrand than the run began with.

        Raises
        ------
        StorageError
            If the file of the process is missing or was changed.
        """
        name = self.settings["process"]
        if lookup.source_sha256(name, self.card.parameters) != self.settings["source_sha256"]:
            files = ", ".join(lookup.sources(name, self.card.parameters))
            raise StorageError(
                f"{files} is missing or was changed since {self.path} began: restore the file to "
                "resume, or start a new run in another directory"
            )

    def identity(self) -> str:
        """Which run this is: a checksum of its frozen sampler and its integral."""
        manifests = (self.sampler / MANIFEST_NAME, self.integration / MANIFEST_NAME)
        return hashlib.sha256("".join(map(sha256, manifests)).encode()).hexdigest()[:16]

    def require_integral(self, *more: Path) -> None:
        """StorageError unless the frozen sampler, its integral and `more` are there."""
        if not all(place.exists() for place in (self.sampler, self.integration, *more)):
            raise StorageError(f"{self.path} is not finished: `{command('resume', self.path)}` first")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
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
    def distributions(self) -> Path:
        """What the report draws of weighted points and events."""
        return self.path / "distributions"

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
        return stored.stored_seconds(self.path)

    def store_seconds(self, seconds: Mapping[str, float]) -> None:
        """Remember the seconds spent in each stage."""
        write_sealed(self.path / stored.SECONDS, seconds)

    def store_timeline(self, timeline: stored.Timeline) -> None:
        """Remember when the training had made how many calls."""
        write_sealed(self.path / stored.TIMELINE, {"calls": timeline.calls, "seconds": timeline.seconds})


def _run(path: str | Path) -> Path:
    target = Path(path)
    if not (target / "run.json").is_file():
        raise StorageError(f"{target} is not a run directory: `nisampler run CARD --output DIR` makes one")
    return target


def _settings(target: Path) -> tuple[dict[str, Any], Card]:
    """The content of ``run.json``, and the card with its overrides."""
    place = target / "run.json"
    settings = read_sealed(place)
    if (settings.get("format"), settings.get("version")) != (FORMAT, VERSION):
        raise StorageError(f"{target} was made by another release, which has to continue it")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(settings.get(name), kind)]
    if wrong:
        raise CorruptFileError(f"{place} is incomplete, {', '.join(wrong)}: restore it from a copy")
    card = parse_card(_card_text(target, settings), str(target / "card.toml"), settings["overrides"])
    if not lookup.same_process(card.process, settings["process"]):
        raise CorruptFileError(
            f"{place} names the process {settings['process']!r} and the card {card.process!r}: restore both from a copy"
        )
    return settings, card


def read_pack(root: Path) -> dict[str, Any]:
    """The manifest of an unpacked pack.

    >>> read_pack(Path("nowhere"))
    Traceback (most recent call last):
    nisampler.errors.StorageError: cannot read nowhere/manifest.json: No such file or directory

    Raises
    ------
    StorageError
        If another release made it.
    CorruptFileError
        If it was altered.
    """
    manifest = read_sealed(root / PACK, mend="fetch or make the pack again")
    if (manifest.get("format"), manifest.get("version")) != (PACK_FORMAT, PACK_VERSION):
        raise StorageError(f"{root / PACK} is of a pack that another release made, which has to read it")
    return manifest


@contextmanager
def pack_environment(run: Path) -> Iterator[None]:
    """Where a run lies in the folder of a pack, amplitudes and parton densities are looked up in the pack first.

    >>> with pack_environment(Path("no/pack")):
    ...     pass
    """
    root = run.resolve().parent
    if not (root / PACK).is_file():
        yield
        return
    grids = os.pathsep.join([str(root / PDF), *filter(None, [os.environ.get("LHAPDF_DATA_PATH")])])
    wanted = {"LHAPDF_DATA_PATH": grids}
    if (root / CACHE).is_dir():
        wanted[kept.OWN] = str(kept.cache_folder("", own=True))
        wanted[kept.VARIABLE] = str(root / CACHE)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _relocated(root: Path, settings: dict[str, Any], card: Card) -> tuple[dict[str, Any], Card]:
    """Settings and card of a run in a pack, with its process and its files where they are now."""
    manifest = read_pack(root)
    if manifest["process"] is not None:
        settings = settings | {"process": lookup.below(root.resolve(), manifest["process"])}
    moved = {name: _below(root.resolve(), place) for name, place in manifest["parameters"].items()}
    return settings, card.moved(moved, manifest["pdf"])


def _below(root: Path, place: str | list[str]) -> str | list[str]:
    """A file or folder of a pack, or the items of a list of which some name code in it."""
    if isinstance(place, str):
        return lookup.below(root, place)
    return [lookup.below(root, item) if lookup.code_of(item) else item for item in place]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _card_text(target: Path, settings: Mapping[str, Any]) -> str:
    try:
        text = read_card_text(target / "card.toml")
    except CardError as error:
        raise StorageError(str(error)) from error
    if _digest(text) != settings["card_sha256"]:
        raise StorageError(
            f"{target / 'card.toml'} is not the card this run began with: put the old one back to resume, or "
            "start a new run with the new card in another directory"
        )
    return text


def _refuse_occupied(target: Path) -> None:
    if (target / "run.json").is_file():
        raise StorageError(
            f"{target} already holds a run: `{command('resume', target)}` continues it, or choose another --output"
        )
    new_folder(target)
