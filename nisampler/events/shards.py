"""Events in numbered shards, ``events-00000.lhe.gz`` and so on: each appears complete or not at all."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nisampler.base.storage import sha256
from nisampler.errors import EventFormatError, StorageError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.files import SUFFIXES, EventFile, write_events, written_suffix
from nisampler.events.info import InitInfo
from nisampler.events.rules import TrustedBatches
from nisampler.events.shares import ProcessSums

_PATTERN = re.compile(r"events-(\d{5,})(\.lhe|\.lhe\.gz|\.lhe\.zst|\.h5|\.hdf5)")
_DIGITS = 5
_SEED = "seed"


def shard_path(directory: str | Path, index: int, suffix: str = ".lhe.gz") -> Path:
    """The name of shard `index` ≥ 0.

    Raises
    ------
    EventFormatError
        If the suffix is no event format or the index is negative.

    Examples
    --------
    >>> shard_path("run", 3).name
    'events-00003.lhe.gz'
    >>> shard_path("run", -1)
    Traceback (most recent call last):
    ...
    nisampler.errors.EventFormatError: shard -1.lhe.gz: need an index ≥ 0 and one of .lhe, .lhe.gz, .lhe.zst, .h5, .hdf5
    """
    if suffix not in SUFFIXES or index < 0:
        raise EventFormatError(f"shard {index}{suffix}: need an index ≥ 0 and one of {', '.join(SUFFIXES)}")
    return Path(directory) / f"events-{index:0{_DIGITS}d}{suffix}"


def find_shards(directory: str | Path) -> dict[int, Path]:
    """The shards in a folder by index, in order; a missing folder holds none.

    Raises
    ------
    EventFormatError
        If one index occurs in two formats.

    Examples
    --------
    >>> find_shards("nowhere")
    {}
    """
    found: dict[int, Path] = {}
    folder = Path(directory)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _PATTERN.fullmatch(path.name)
        if match is None:
            continue
        index = int(match[1])
        if index in found:
            raise EventFormatError(f"shard {index} exists twice: {found[index].name} and {path.name}; delete one")
        found[index] = path
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class ShardSet:
    """All shards of a folder, seen as one sequence of events.

    Attributes
    ----------
    files
        The shards in order.

    Examples
    --------
    >>> ShardSet.open("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere holds no event shards
    """

    files: tuple[EventFile, ...]

    @classmethod
    def open(cls, directory: str | Path | Sequence[Path]) -> ShardSet:
        """Read the headers of shards 0, 1, … of a folder, or of shards in a given order.

        Raises
        ------
        StorageError
            If there is no shard, or one is missing in between.
        """
        if not isinstance(directory, str | Path):
            return cls(tuple(EventFile.open(path) for path in directory))
        shards = find_shards(directory)
        if not shards:
            raise StorageError(f"{directory} holds no event shards")
        missing = sorted(set(range(max(shards) + 1)) - shards.keys())
        if missing:
            raise StorageError(f"{directory} lacks the event shards {missing}: resume the run to make them")
        return cls(tuple(EventFile.open(path) for path in shards.values()))

    def counts(self) -> tuple[int, ...]:
        """The number of events of each shard."""
        return tuple(file.count() for file in self.files)

    def count(self) -> int:
        """The number of events of all shards."""
        return sum(self.counts())

    def refuse_copies(self) -> None:
        """Refuse shards with the same bytes: their events would come twice.

        Raises
        ------
        StorageError
            If there are any; both are named.
        """
        sizes = Counter(file.path.stat().st_size for file in self.files)
        seen: dict[str, EventFile] = {}
        for file in self.files:
            if sizes[file.path.stat().st_size] == 1 or file.count() == 0:
                continue
            first = seen.setdefault(sha256(file.path), file)
            if first is not file:
                raise StorageError(f"{file.path} is a copy of {first.path.name}: move one of them away")

    def batches(self, chunk: int = DEFAULT_CHUNK) -> Iterator[EventBatch]:
        """The events of all shards in order, at most `chunk` at a time."""
        for file in self.files:
            yield from file.batches(chunk)

    def info(self) -> InitInfo:
        """The run information that all shards share; of a header with several seeds, which may differ, all of them.

        Processes with a total known to all may differ in their shares of it: those are of the first shard.

        Raises
        ------
        EventFormatError
            If they differ otherwise.
        """
        first = self.files[0]
        seeds = dict.fromkeys(dict(file.info.header).get(_SEED, "") for file in self.files)
        for file in self.files[1:]:
            if _alike(file.info) != _alike(first.info):
                names = f"{first.path} and {file.path}"
                raise EventFormatError(f"{names} declare different runs: give the merged file its own information")
        return _with_seed(first.info, ", ".join(seeds))


def _with_seed(info: InitInfo, seed: str) -> InitInfo:
    """The same with another seed in its header, where that has one."""
    return replace(info, header=tuple((name, seed if name == _SEED else text) for name, text in info.header))


def _alike(info: InitInfo) -> InitInfo:
    """What shards must agree in."""
    shared = ProcessSums().shared(info)
    return _with_seed(shared, "")


def merge_shards(
    directory: str | Path | Sequence[Path],
    target: str | Path,
    info: InitInfo | None = None,
    chunk: int = DEFAULT_CHUNK,
    average: bool = False,
    compression_level: int | None = None,
    trusted: bool = False,
) -> int:
    """Write all shards of a folder to one file, in any format, `chunk` events in memory at a time.

    Parameters
    ----------
    directory
        Holds the shards 0, 1, …; or the shards in their order.
    target
        The ending decides the format.
    info
        Run information of the merged file; by default the one that all shards share. Where it has a total, each process
        gets the share that its events have.
    chunk
        Events held at a time.
    average
        Whether all weights are multiplied by one factor, such that they average to the cross-section (IDWTUP = ±4): a
        shower then hands on those of overweight events, too. The largest weight that the file declares is that of
        an event that is not overweight.
    compression_level
        How hard a ``.gz`` or ``.zst`` file is packed, see `write_events`.
    trusted
        Whether the caller knows that each shard is another one and as it was written: they are not checked again.

    Returns
    -------
    int
        The number of events.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError, EventCountError
        If shards are missing, damaged, copies of each other or of different runs, or weights to be averaged add up to
        nothing of the sign of the cross-section; no partial file is left.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_events(shard_path(folder, 0, ".h5"), EventBatch.empty(4), info)
    ...     count = merge_shards(folder, f"{folder}/all.h5")
    >>> count
    0
    """
    shards = ShardSet.open(directory)
    if not trusted:
        shards.refuse_copies()
    written_suffix(target)
    batches: Iterable[EventBatch] = shards.batches(chunk)
    info, count = info or shards.info(), shards.count()
    if count and (average or info.total is not None):
        sums = ProcessSums.joined(file.sums() for file in shards.files)
        info = sums.shared(info)
    if average and count:
        info, factor = _averaged(info, count, sums.total)
        batches = (batch.scaled(factor) for batch in batches)
    return write_events(target, TrustedBatches(batches) if trusted else batches, info, count, compression_level)


def _averaged(info: InitInfo, count: int, total: float) -> tuple[InitInfo, float]:
    """The information of a file whose weights, `total` in sum, shall average to its cross-section, and their factor."""
    factor = info.cross_section * count / total if total else math.nan
    if not 0 < factor < math.inf:
        raise EventFormatError(
            f"the weights of {count} events add up to {total:g}: they cannot average to {info.cross_section:g} pb; "
            "make more events"
        )
    processes = tuple(replace(process, max_weight=factor * process.max_weight) for process in info.processes)
    return replace(info, processes=processes, strategy=-4 if info.signed else 4), factor
