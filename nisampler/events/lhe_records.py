"""Events as pylhe has them, one object for each particle: what is written or read in no other way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import CorruptFileError, EventFormatError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import MOST_SLOTS, UNKNOWN_SPIN
from nisampler.events.compression import unpacking_errors
from nisampler.events.lhe_dialects import PlainLHE
from nisampler.events.lhe_extras import extra_columns
from nisampler.events.lhe_weights import named_weights

# Of the events that are held at a time: bytes in the file, and slots of the columns.
BYTES_READ, SLOTS_READ = 32 << 20, 1 << 19


@contextmanager
def named_errors(path: Path, where: str) -> Iterator[None]:
    """Errors and warnings of pylhe, the unpacker and the XML parser as errors that name the file and the place.

    >>> with named_errors(Path("a.lhe"), "after event 3"):
    ...     float("x")
    Traceback (most recent call last):
    nisampler.errors.EventFormatError: a.lhe: malformed after event 3 (could not convert string to float: 'x')
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
    except unpacking_errors(RuntimeWarning, ParseError) as error:
        raise CorruptFileError(f"{path}: truncated or altered {where} ({error}); write it again") from error
    except (ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise EventFormatError(f"{path}: malformed {where} ({error})") from error


def event_records(module: Any, batch: EventBatch, ids: Sequence[str]) -> Iterator[Any]:
    """pylhe's events for a batch, without the lines that only text has.

    >>> import pylhe
    >>> list(event_records(pylhe, EventBatch.empty(4), ()))
    []
    """
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
    rows = zip(heads, integers, reals, batch.mu_r.tolist(), batch.named_weights.tolist(), strict=True)
    for head, whole, real, mu_r, values in rows:
        particles = [particle(*whole[slot], *real[slot]) for slot in range(head[0])]
        scales = {"muf": head[3], "mur": mu_r} if mu_r > 0 else {}
        yield module.LHEEvent(module.LHEEventInfo(*head), particles, dict(zip(ids, values, strict=True)), scales)


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


def batch_of(records: list[Any], start: int, ids: Sequence[str]) -> EventBatch:
    """Columns from pylhe's events, at least one, with the weights of these ids; `start` events came before.

    >>> from types import SimpleNamespace
    >>> head = SimpleNamespace(nparticles=2)
    >>> batch_of([SimpleNamespace(eventinfo=head, particles=[])], 0, ())
    Traceback (most recent call last):
    nisampler.errors.EventFormatError: event 1: 2 particles declared, 0 found

    Raises
    ------
    EventFormatError
        If an event has other particles or weights than it should; it is named.
    """
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


def records_of(document: Any, source: PlainLHE, path: Path, count: int = 0) -> Iterator[Any]:
    """pylhe's events, `count` of which came before; an error names the file and the number of the event before it.

    >>> import io
    >>> from types import SimpleNamespace
    >>> list(records_of(SimpleNamespace(events=iter(())), PlainLHE(io.BytesIO(), Path("a.lhe")), Path("a.lhe")))
    []
    """
    while True:
        with named_errors(path, f"after event {count}"):
            record = next(document.events, None)
            if record is None:
                return source.drain()
            if len(record.particles) > MOST_SLOTS:
                raise ValueError(f"an event of {len(record.particles)} particles, it can have {MOST_SLOTS}")
        yield record
        count += 1


def groups_of(records: Iterator[Any], source: PlainLHE, chunk: int) -> Iterator[list[Any]]:
    """At most `chunk` events together, fewer where they are large; what precedes a damaged place, then its error.

    >>> import io
    >>> from types import SimpleNamespace
    >>> source, record = PlainLHE(io.BytesIO(), Path("a.lhe")), SimpleNamespace(particles=[])
    >>> [len(group) for group in groups_of(iter([record] * 5), source, 2)]
    [2, 2, 1]
    """
    group: list[Any] = []
    slots, begin = 0, source.passed
    try:
        for record in records:
            slots = max(slots, len(record.particles))
            large = (len(group) + 1) * slots > SLOTS_READ or source.passed - begin > BYTES_READ
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
