"""One way to open, write and count event files, whatever their format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nisampler.base.checks import Count, checked
from nisampler.errors import EventFormatError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.hdf5 import iterate_hdf5, iterate_weights, read_hdf5_header, write_hdf5
from nisampler.events.hepmc import SUFFIXES as HEPMC
from nisampler.events.hepmc import write_hepmc
from nisampler.events.info import InitInfo
from nisampler.events.lhe import BULK, LHE, iterate_lhe, read_lhe_header, write_lhe
from nisampler.events.shares import ProcessSums

SUFFIXES = (*LHE, ".h5", ".hdf5")


def file_suffix(path: str | Path) -> str:
    """The ending that decides the format.

    Raises
    ------
    EventFormatError
        If it is none of ``.lhe``, ``.lhe.gz``, ``.lhe.zst``, ``.h5``, ``.hdf5``.

    Examples
    --------
    >>> file_suffix("run/events-00000.lhe.gz")
    '.lhe.gz'
    >>> file_suffix("events.root")
    Traceback (most recent call last):
    ...
    nisampler.errors.EventFormatError: events.root: an event file ends in one of .lhe, .lhe.gz, .lhe.zst, .h5, .hdf5
    """
    return _ending(path, SUFFIXES)


def written_suffix(path: str | Path) -> str:
    """The ending of a file to be written: besides those that can be read, ``.lheh5``, ``.hepmc`` and ``.hepmc.gz``.

    Raises
    ------
    EventFormatError
        If it is no other.

    Examples
    --------
    >>> written_suffix("events.hepmc.gz")
    '.hepmc.gz'
    """
    return _ending(path, (*SUFFIXES, BULK, *HEPMC))


def _ending(path: str | Path, known: tuple[str, ...]) -> str:
    name = Path(path).name
    for suffix in sorted(known, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise EventFormatError(f"{path}: an event file ends in one of {', '.join(known)}")


@dataclass(frozen=True)
class EventFile:
    """An event file on disk: its run information, and its events as a stream.

    Attributes
    ----------
    path
        Where it is.
    info
        Beams, cross-sections, weighting strategy.
    declared
        Number of events it declares, or None.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_events(f"{folder}/events.h5", EventBatch.empty(4), info)
    ...     file = EventFile.open(f"{folder}/events.h5")
    >>> file.info == info, file.count()
    (True, 0)
    """

    path: Path
    info: InitInfo
    declared: int | None

    @classmethod
    def open(cls, path: str | Path) -> EventFile:
        """Read the header.

        Raises
        ------
        StorageError, CorruptFileError, EventFormatError
            If the file is missing, damaged or of an unknown format.
        MissingExtraError
            If it is an LHE file and pylhe is not installed.
        """
        lhe = file_suffix(path).startswith(".lhe")
        info, declared = read_lhe_header(path) if lhe else read_hdf5_header(path)
        return cls(Path(path), info, declared)

    def batches(self, chunk: int = DEFAULT_CHUNK) -> Iterator[EventBatch]:
        """The events, at most `chunk` at a time.

        Raises
        ------
        CorruptFileError, EventFormatError
            If the file is truncated, altered or malformed; the message names the event.
        """
        checked("chunk", chunk, Count)
        if file_suffix(self.path).startswith(".lhe"):
            return iterate_lhe(self.path, chunk)
        return iterate_hdf5(self.path, chunk)

    def sums(self) -> ProcessSums:
        """Of the weights, by process; of an HDF5 file nothing else is read."""
        sums, lhe = ProcessSums(), file_suffix(self.path).startswith(".lhe")
        events = ((batch.process_ids, batch.weights) for batch in self.batches()) if lhe else iterate_weights(self.path)
        for process_ids, weights in events:
            sums.add(process_ids, weights)
        return sums

    def count(self) -> int:
        """The declared number of events, or, where none is declared, the number found by reading the file."""
        return sum(len(batch) for batch in self.batches()) if self.declared is None else self.declared

    def read(self) -> EventBatch:
        """All events at once."""
        return EventBatch.concatenate(list(self.batches()))


def read_events(path: str | Path) -> EventBatch:
    """All events of a file in memory; `EventFile.open(path).batches()` streams a long one.

    >>> read_events("nowhere.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    return EventFile.open(path).read()


def write_events(
    path: str | Path,
    batches: EventBatch | Iterable[EventBatch],
    info: InitInfo,
    n_events: int | None = None,
    compression_level: int | None = None,
) -> int:
    """Write events in the format that the ending of `path` names; see `write_lhe`, `write_hdf5` and `write_hepmc`.

    Returns the number of events written.

    Raises
    ------
    EventFormatError, EventCountError, MissingExtraError, StorageError
        As the writers do; no partial file is ever left under `path`.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_events(f"{folder}/events.h5", EventBatch.empty(4), info)
    >>> count
    0
    """
    suffix = written_suffix(path)
    if suffix.startswith(".lhe"):
        return write_lhe(path, batches, info, n_events, compression_level)
    if suffix in HEPMC:
        return write_hepmc(path, batches, info, n_events, compression_level)
    return write_hdf5(path, batches, info, n_events)
