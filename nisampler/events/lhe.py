"""Les Houches event files (hep-ph/0609017, version 3), plain or packed, as streams through pylhe.

Numbers carry 17 significant digits: what is read back is what was written, bit by bit. Equal events give
equal bytes, packed files included. ``<init>`` holds IDWTUP, beams in GeV and cross-sections in pb; the
header element ``<nisampler events="N"/>`` holds the number of events where it is known beforehand. Scales and parton
densities stand in each event as `nisampler.events.lhe_extras` says, where they are known; named weights and the texts
of the header as `nisampler.events.lhe_weights` says.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray

from nisampler._version import __version__
from nisampler.base.hdf5_output import new_hdf5
from nisampler.base.storage import atomic_write
from nisampler.errors import (
    CorruptFileError,
    EventCountError,
    EventFormatError,
    MissingExtraError,
)
from nisampler.events.batch import EventBatch
from nisampler.events.columns import DEFAULT_CHUNK, MOST_SLOTS, UNKNOWN_SPIN
from nisampler.events.compression import level_of, open_unpacked, packed, unpacking_errors
from nisampler.events.info import InitInfo, ProcessInfo
from nisampler.events.lhe_dialects import PlainLHE
from nisampler.events.lhe_extras import extra_columns, extra_lines
from nisampler.events.lhe_weights import header_block, listed, named_weights, read_header_block, weight_lines
from nisampler.events.rules import CheckedBatches
from nisampler.events.weights import only

# Of the events that are held at a time: bytes in the file, and slots of the columns.
_BYTES_READ, _SLOTS_READ = 32 << 20, 1 << 19
LHE = (".lhe", ".lhe.gz", ".lhe.zst")
"""Endings of Les Houches event files as text."""
BULK = ".lheh5"
"""Ending of LHEH5, which is written and not read here."""
_EVENT_FORMAT = "{nparticles:d} {pid:d} {weight:.16e} {scale:.16e} {aqed:.16e} {aqcd:.16e}"
_PARTICLE_FORMAT = (
    "{id:8d} {status:2d} {mother1:3d} {mother2:3d} {color1:4d} {color2:4d} "
    "{px:23.16e} {py:23.16e} {pz:23.16e} {e:22.16e} {m:22.16e} {lifetime:.16e} {spin:.16g}"
)
_INIT_FORMAT = (
    "{beamA:d} {beamB:d} {energyA:.16e} {energyB:.16e} {PDFgroupA:d} {PDFgroupB:d} {PDFsetA:d} {PDFsetB:d} "
    "{weightingStrategy:d} {numProcesses:d}"
)
_PROCESS_FORMAT = "{xSection:.16e} {error:.16e} {unitWeight:.16e} {procId:d}"


def _import_pylhe() -> Any:
    try:
        import pylhe
    except ImportError as error:
        raise MissingExtraError("LHE files need pylhe: pip install 'nisampler[lhe]'") from error
    return pylhe


def _format(module: Any) -> Any:
    return module.LHEXMLFormat(
        weights=module.LHEWeightFormat.NONE,
        eventinfo=_EVENT_FORMAT,
        particle=_PARTICLE_FORMAT,
        initinfo=_INIT_FORMAT,
        procinfo=_PROCESS_FORMAT,
    )


def _init_block(module: Any, info: InitInfo) -> Any:
    first, second = info.beam_ids
    init = module.LHEInitInfo(
        beamA=first,
        beamB=second,
        energyA=info.beam_energies[0],
        energyB=info.beam_energies[1],
        PDFgroupA=info.pdf_groups[0],
        PDFgroupB=info.pdf_groups[1],
        PDFsetA=info.pdf_sets[0],
        PDFsetB=info.pdf_sets[1],
        weightingStrategy=info.strategy,
        numProcesses=len(info.processes),
    )
    processes = [
        module.LHEProcInfo(item.cross_section, item.error, item.max_weight, item.process_id) for item in info.processes
    ]
    generator = module.LHEGenerator(info.generator, info.version or __version__, "")
    return module.LHEInit(initInfo=init, procInfo=processes, generators=[generator])


def _event_records(module: Any, batch: EventBatch, ids: Sequence[str]) -> Iterator[Any]:
    """pylhe's events for a batch; columns become Python numbers once, not entry by entry."""
    momenta = batch.momenta[..., [1, 2, 3, 0]]
    reals = np.concatenate(
        [momenta, batch.masses[..., None], batch.lifetimes[..., None], batch.spins[..., None]], axis=-1
    ).tolist()
    codes = np.stack([batch.pdg_ids, batch.status], axis=-1).astype(np.int64)
    integers = np.concatenate([codes, batch.mothers, batch.colours], axis=-1).tolist()
    counts = (batch.status != 0).sum(axis=1).tolist()
    heads = zip(
        counts,
        batch.process_ids.tolist(),
        batch.weights.tolist(),
        batch.scales.tolist(),
        batch.alpha_em.tolist(),
        batch.alpha_s.tolist(),
        strict=True,
    )
    particle = module.LHEParticle
    named = zip(batch.named_weights.tolist(), weight_lines(batch, ids), strict=True)
    rows = zip(heads, integers, reals, extra_lines(batch), named, strict=True)
    for head, whole, real, (scales, lines), (values, block) in rows:
        particles = [particle(*whole[slot], *real[slot]) for slot in range(head[0])]
        weights = dict(zip(ids, values, strict=True))
        yield module.LHEEvent(module.LHEEventInfo(*head), particles, weights, scales, optional=[*lines, *block])


@contextmanager
def _text_stream(handle: IO[bytes], name: str, level: int | None) -> Iterator[io.TextIOWrapper]:
    """A text stream into `handle`, packed as the name says."""
    with packed(handle, name, level) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n", write_through=stream is handle)
        try:
            yield text
        finally:
            text.detach()


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
        Of ``.lhe.gz`` from 0, not at all, to 9, of ``.lhe.zst`` from 1 to 19; by default 4 and 3.

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
        If pylhe, or Zstandard, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_lhe(f"{folder}/events.lhe", EventBatch.empty(4), info)
    >>> count
    0
    """
    module, target = _import_pylhe(), Path(path)
    if not target.name.endswith((*LHE, BULK)):
        raise EventFormatError(f"{target}: the name of an LHE file must end in one of {', '.join((*LHE, BULK))}")
    level_of(target.name, compression_level)
    if isinstance(batches, EventBatch) and n_events is None:
        n_events = len(batches)
    source = CheckedBatches(batches, info, target)
    document = module.LHEFile(
        init=_init_block(module, info),
        header=header_block(module, info, n_events),
        events=(
            event for batch in _writable(source, target) for event in _event_records(module, batch, info.weight_ids)
        ),
    )
    with _written(target, module, document, compression_level):
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
def _written(target: Path, module: Any, document: Any, level: int | None) -> Iterator[None]:
    """The file with a document in it, which appears when the block ends without an exception."""
    if target.name.endswith(BULK):
        with new_hdf5(target) as output:
            with output.writing():
                module.lheh5.write(document, output.file, module.LHEHDF5Format())
            yield
        return
    with atomic_write(target) as handle, _text_stream(handle, target.name, level) as text:
        document.write(text, _format(module))
        text.write("\n")
        yield


@contextmanager
def _named_errors(path: Path, where: str) -> Iterator[None]:
    """Errors and warnings of pylhe, the unpacker and the XML parser as errors that name the file and the place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
    except unpacking_errors(RuntimeWarning, ParseError) as error:
        raise CorruptFileError(f"{path}: truncated or altered {where} ({error}); write it again") from error
    except (ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise EventFormatError(f"{path}: malformed {where} ({error})") from error


@contextmanager
def _open_document(path: Path) -> Iterator[tuple[Any, PlainLHE]]:
    module = _import_pylhe()
    with open_unpacked(path) as stream:
        source = PlainLHE(stream, path)
        with _named_errors(path, "before the first event"):
            document = module.LHEFile.frombuffer(source)
        try:
            yield document, source
        finally:
            document.events.close()


def _header_of(document: Any, path: Path) -> tuple[InitInfo, int | None]:
    init, block = document.init, document.init.initInfo
    with _named_errors(path, "in <header> or <init>"):
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
            with suppress(CorruptFileError, EventFormatError), _named_errors(target, "after event 0"):
                first = list(islice(document.events, 1))
            known = listed(info.weight_groups, first[0]) if first else info.weight_ids
            info = replace(info, weight_groups=only(info.weight_groups, known))
        return info, declared


_HEAD_FIELDS = {
    "weights": "weight",
    "scales": "scale",
    "alpha_em": "aqed",
    "alpha_s": "aqcd",
    "process_ids": "pid",
}
_PARTICLE_FIELDS = (
    *("e", "px", "py", "pz", "m", "spin", "lifetime"),
    *("id", "status", "mother1", "mother2", "color1", "color2"),
)
# Where the columns of a batch stand among these fields.
_PARTICLE_COLUMNS: dict[str, int | slice] = {
    "momenta": slice(0, 4),
    "masses": 4,
    "spins": 5,
    "lifetimes": 6,
    "pdg_ids": 7,
    "status": 8,
    "mothers": slice(9, 11),
    "colours": slice(11, 13),
}
_particle_fields = attrgetter(*_PARTICLE_FIELDS)


def _batch_of(records: list[Any], start: int, ids: Sequence[str]) -> EventBatch:
    """Columns from pylhe's events, at least one, with the weights of these ids; `start` events came before."""
    counts = np.array([len(record.particles) for record in records])
    heads = [record.eventinfo for record in records]
    wrong = counts != np.array([head.nparticles for head in heads])
    if wrong.any():
        index = int(np.argmax(wrong))
        found, declared = counts[index], heads[index].nparticles
        raise EventFormatError(f"event {start + index + 1}: {declared} particles declared, {found} found")
    particles = _particle_table(records, counts)
    columns: dict[str, Any] = {name: particles[..., where] for name, where in _PARTICLE_COLUMNS.items()}
    for name, attribute in _HEAD_FIELDS.items():
        columns[name] = np.array([getattr(head, attribute) for head in heads])
    return EventBatch(**(columns | extra_columns(records, int(counts.max())) | named_weights(records, ids, start)))


def _particle_table(records: list[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """All fields of all particles (n, p, fields), empty slots at the end of events with few of them."""
    flat = np.array([_particle_fields(item) for record in records for item in record.particles])
    row = np.repeat(np.arange(len(records)), counts)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((len(records), int(counts.max()), len(_PARTICLE_FIELDS)))
    table[..., _PARTICLE_COLUMNS["spins"]] = UNKNOWN_SPIN
    table[row, slot] = flat.reshape(-1, len(_PARTICLE_FIELDS))
    return table


def _records(document: Any, source: PlainLHE, path: Path) -> Iterator[Any]:
    """pylhe's events; an error names the file and the number of the event before it."""
    count = 0
    while True:
        with _named_errors(path, f"after event {count}"):
            record = next(document.events, None)
            if record is None:
                return source.drain()
            if len(record.particles) > MOST_SLOTS:
                raise ValueError(f"an event of {len(record.particles)} particles, it can have {MOST_SLOTS}")
        yield record
        count += 1


def _groups(records: Iterator[Any], source: PlainLHE, chunk: int) -> Iterator[list[Any]]:
    """At most `chunk` events together, fewer where they are large; what precedes a damaged place, then its error."""
    group: list[Any] = []
    slots, begin = 0, source.passed
    try:
        for record in records:
            slots = max(slots, len(record.particles))
            large = (len(group) + 1) * slots > _SLOTS_READ or source.passed - begin > _BYTES_READ
            if group and (large or len(group) == chunk):
                yield group
                group, slots, begin = [], len(record.particles), source.passed
            group.append(record)
    except (CorruptFileError, EventFormatError):
        if group:
            yield group
        raise
    if group:
        yield group


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
        ids: Sequence[str] | None = None
        for records in _groups(_records(document, source, target), source, chunk):
            if ids is None:
                ids = listed(info.weight_groups, records[0])
            with _named_errors(target, "event record"):
                batch = _batch_of(records, count, ids)
            count += len(batch)
            yield batch
    if declared is not None and count != declared:
        raise CorruptFileError(f"{target} declares {declared} events and holds {count}: write it again")
