"""Les Houches event files (hep-ph/0609017, version 3), plain or packed, as streams.

Numbers have the fewest digits that read back to the same bits. Equal events give equal bytes, packed files included.
`nisampler.events.text` writes them, and reads the events as long as they are written in the common way; pylhe reads
what stands before them and all others. ``<init>`` holds IDWTUP, beams in GeV and cross-sections in pb; the header
element ``<nisampler events="N"/>`` holds the number of events where it is known beforehand. Scales and parton densities
stand in each event as `nisampler.events.lhe_extras` says, where they are known; named weights and the texts of the
header as `nisampler.events.lhe_weights` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nisampler.base.extras import install
from nisampler.base.hdf5_output import new_hdf5
from nisampler.base.kernels import at_work
from nisampler.base.storage import atomic_write
from nisampler.errors import (
    CorruptFileError,
    EventCountError,
    EventFormatError,
    MissingExtraError,
)
from nisampler.events.batch import EventBatch
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.compression import GZIP, ZSTD, level_of, open_unpacked, packed, packing_of
from nisampler.events.info import InitInfo, ProcessInfo
from nisampler.events.lhe_dialects import PlainLHE
from nisampler.events.lhe_records import (
    BYTES_READ,
    SLOTS_READ,
    batch_of,
    event_records,
    groups_of,
    named_errors,
    records_of,
)
from nisampler.events.lhe_weights import listed, read_header_block
from nisampler.events.rules import CheckedBatches
from nisampler.events.text.layout import Layout
from nisampler.events.text.preamble import ROOT_END, preamble
from nisampler.events.text.reader import BulkReader, Tags, reader
from nisampler.events.text.templates import Renderer
from nisampler.events.weights import only

# Unpacked and packed bytes that pylhe reads in the time that numba takes to start.
_WORTH_COMPILING = {"": 16 << 20, GZIP: 6 << 20, ZSTD: 6 << 20}
LHE = (".lhe", ".lhe.gz", ".lhe.zst")
"""Endings of Les Houches event files as text."""
BULK = ".lheh5"
"""Ending of LHEH5, which is written and not read here."""
_INIT_END = b"</init>"


def _import_pylhe() -> Any:
    try:
        import pylhe
    except ImportError as error:
        raise MissingExtraError(f"reading LHE files, and writing LHEH5, needs pylhe: {install('lhe')}") from error
    return pylhe


def write_lhe(
    path: str | Path,
    batches: EventBatch | Iterable[EventBatch],
    info: InitInfo,
    n_events: int | None = None,
    compression_level: int | None = None,
) -> int:
    """Write events to ``.lhe``, ``.lhe.gz``, ``.lhe.zst`` or ``.lheh5``; the file appears complete or not at all.

    Parameters
    ----------
    path
        The ending decides about compression; ``.lheh5`` is the format LHEH5 (1905.05120, 2309.13154) in HDF5, as pylhe
        writes and reads it.
    batches
        One batch, or any iterable of batches: only one is held at a time.
    info
        Beams and cross-sections.
    n_events
        Number of events to declare in the header; known by itself for a single batch. Another number is an
        error.
    compression_level
        Of ``.lhe.gz`` from 0, not at all, to 9, of ``.lhe.zst`` from 1 to 19; 1 by default.

    Returns
    -------
    int
        The number of events written.

    Raises
    ------
    EventFormatError
        If an event breaks a rule of the record (NaN, momenta, mothers, colours, beams), or LHEH5 lacks what it has; no
        file is left then.
    EventCountError
        If the number of events is not the declared one.
    ConfigError
        If the compression has no such level.
    MissingExtraError
        If Zstandard, or pylhe for LHEH5, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_lhe(f"{folder}/events.lhe", EventBatch.empty(4), info)
    >>> count
    0
    """
    target = Path(path)
    if not target.name.endswith((*LHE, BULK)):
        raise EventFormatError(f"{target}: the name of an LHE file must end in one of {', '.join((*LHE, BULK))}")
    level_of(target.name, compression_level)
    if isinstance(batches, EventBatch) and n_events is None:
        n_events = len(batches)
    source = CheckedBatches(batches, info, target)
    with _written(target, source, n_events, compression_level):
        if n_events is not None and source.count != n_events:
            raise EventCountError(f"{target}: {n_events} events were declared, {source.count} were made")
    return source.count


def _writable(batches: Iterable[EventBatch], target: Path) -> Iterator[EventBatch]:
    """The batches, unless the format of the file lacks what they have."""
    for batch in batches:
        if target.name.endswith(BULK) and batch.pt_clust.any():
            raise EventFormatError(
                f"{target}: LHEH5 has no place for the scales of MLM matching (pt_clust): write .lhe.gz, or .h5"
            )
        yield batch


@contextmanager
def _written(target: Path, source: CheckedBatches, n_events: int | None, level: int | None) -> Iterator[None]:
    """The file with its events, which appears when the block ends without an exception."""
    info, batches = source.info, _writable(source, target)
    head = preamble(info, n_events)
    if target.name.endswith(BULK):
        module = _import_pylhe()
        document = module.LHEFile.fromstring(head + ROOT_END)
        document.events = (event for batch in batches for event in event_records(module, batch, info.weight_ids))
        with new_hdf5(target) as output:
            with output.writing():
                module.lheh5.write(document, output.file, module.LHEHDF5Format())
            yield
        return
    renderer = Renderer()
    with atomic_write(target) as handle:
        with packed(handle, target.name, level) as stream:
            stream.write(head.encode())
            for batch in batches:
                layout = Layout(batch, info.weight_ids)
                for block in renderer.blocks(layout.table, layout.which, layout.templates):
                    stream.write(block)
            stream.write(f"{ROOT_END}\n".encode())
        yield


@contextmanager
def _open_document(path: Path) -> Iterator[tuple[Any, PlainLHE]]:
    module = _import_pylhe()
    with open_unpacked(path) as stream:
        source = PlainLHE(stream, path)
        with named_errors(path, "before the first event"):
            document = module.LHEFile.frombuffer(source)
        try:
            yield document, source
        finally:
            document.events.close()


def _header_of(document: Any, path: Path) -> tuple[InitInfo, int | None]:
    init, block = document.init, document.init.initInfo
    with named_errors(path, "in <header> or <init>"):
        attributes, told = read_header_block(document.header)
        declared = int(attributes["events"]) if "events" in attributes else None
        if block.numProcesses != len(init.procInfo):
            raise ValueError(f"{block.numProcesses} processes declared, {len(init.procInfo)} found")
        generator = init.generators[-1] if init.generators else None
        info = InitInfo(
            beam_ids=(block.beamA, block.beamB),
            beam_energies=(block.energyA, block.energyB),
            processes=tuple(
                ProcessInfo(item.xSection, item.error, item.unitWeight, item.procId) for item in init.procInfo
            ),
            pdf_groups=(block.PDFgroupA, block.PDFgroupB),
            pdf_sets=(block.PDFsetA, block.PDFsetB),
            strategy=block.weightingStrategy,
            generator=generator.name if generator else "",
            version=generator.version if generator else "",
            **told,
        )
    return info, declared


def read_lhe_header(path: str | Path) -> tuple[InitInfo, int | None]:
    """The run information and the declared number of events (None where the file does not declare it).

    Of the named weights that it declares those are told that its first event lists.

    Raises
    ------
    StorageError
        If the file cannot be opened.
    CorruptFileError, EventFormatError
        If it is damaged or malformed.
    MissingExtraError
        If pylhe is not installed.

    Examples
    --------
    >>> read_lhe_header("nowhere.lhe")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.lhe: No such file or directory
    """
    target = Path(path)
    with _open_document(target) as (document, _):
        info, declared = _header_of(document, target)
        if info.weight_groups:
            first: list[Any] = []
            with suppress(CorruptFileError, EventFormatError), named_errors(target, "after event 0"):
                first = list(islice(document.events, 1))
            known = listed(info.weight_groups, first[0]) if first else info.weight_ids
            info = replace(info, weight_groups=only(info.weight_groups, known))
        return info, declared


def iterate_lhe(path: str | Path, chunk: int = DEFAULT_CHUNK) -> Iterator[EventBatch]:
    """The events of a file, at most `chunk` at a time; what precedes a damaged place is still yielded.

    Named weights are those that the header declares and the first event lists. Comments of other generators, except
    ``#pdf``, are not read.

    Raises
    ------
    StorageError
        If the file cannot be opened.
    CorruptFileError
        If it is truncated or altered, or holds another number of events than it declares, or something follows its
        end, such as a second file.
    EventFormatError
        If an event is malformed; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_lhe(f"{folder}/events.lhe", EventBatch.empty(4), info)
    ...     batches = list(iterate_lhe(f"{folder}/events.lhe"))
    >>> len(batches)
    0
    """
    target, count = Path(path), 0
    with _open_document(target) as (document, source):
        info, declared = _header_of(document, target)
        records = records_of(document, source, target)
        first = next(records, None)
        if first is None:
            records = iter(())
        else:
            ids = listed(info.weight_groups, first)
            bulk = _bulk_reader(target, source, first, ids)
            if bulk is None:
                records = chain([first], records)
            else:
                for columns in bulk.batches(partial(_next_piece, bulk, source, target), chunk):
                    with named_errors(target, "event record"):
                        batch = EventBatch(**columns)
                    count += len(batch)
                    yield batch
                records = _rest(bulk, source, target)
            for group in groups_of(records, source, chunk):
                with named_errors(target, "event record"):
                    batch = batch_of(group, count, ids)
                count += len(batch)
                yield batch
    if declared is not None and count != declared:
        raise CorruptFileError(f"{target} declares {declared} events and holds {count}: write it again")


def _bulk_reader(path: Path, source: PlainLHE, first: Any, ids: Sequence[str]) -> BulkReader | None:
    """What reads the events in bulk, if that pays off; `source` has been heard as far as to the first of them."""
    begin = -1 if source.heard is None else source.heard.find(_INIT_END) + len(_INIT_END)
    if begin < len(_INIT_END) or not (at_work() or path.stat().st_size >= _WORTH_COMPILING[packing_of(path.name)]):
        return None
    kernel, heard = reader(), bytes(source.heard or b"")
    tags = Tags.of(heard[begin:], list(first.weights), ids)
    if kernel is None or tags is None:
        return None
    return BulkReader(kernel, heard[:begin], heard[begin:] + source.take(0), tags, SLOTS_READ, BYTES_READ)


def _next_piece(bulk: BulkReader, source: PlainLHE, path: Path) -> bytes:
    with named_errors(path, f"after event {bulk.count}"):
        return source.take()


def _rest(bulk: BulkReader, source: PlainLHE, path: Path) -> Iterator[Any]:
    """What is not read in bulk, if only the end of the document, as pylhe's events."""
    with named_errors(path, f"after event {bulk.count}"):
        if bulk.finished:
            return source.drain()
        source.put_back(bulk.remains)
        document = _import_pylhe().LHEFile.frombuffer(source)
    try:
        yield from records_of(document, source, path, bulk.count)
    finally:
        document.events.close()
