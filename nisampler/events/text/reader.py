"""Events of a Les Houches file in bulk, as long as they are written in the common way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.base.kernels import tried
from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.events.text.powers import powers_of_ten

_END, _FULL, _UNUSUAL = range(3)
_HEAD, _PARTICLE, _EXTRA = 6, 13, 8
_TAG = re.compile(rb"<wgt id=(?:'[^'<>]*'|\"[^\"<>]*\")\s*>")
_ENDING = re.compile(rb"\s*</LesHouchesEvents\s*>\s*")
# Where the columns stand in the line of an event and of a particle.
_HEAD_COLUMNS = {"process_ids": 1, "weights": 2, "scales": 3, "alpha_em": 4, "alpha_s": 5}
_PARTICLE_COLUMNS: dict[str, Any] = {
    "pdg_ids": 0,
    "status": 1,
    "mothers": slice(2, 4),
    "colours": slice(4, 6),
    "momenta": [9, 6, 7, 8],
    "masses": 10,
    "lifetimes": 11,
    "spins": 12,
}
_EXTRA_COLUMNS: dict[str, Any] = {"mu_r": 0, "pdf_x": slice(3, 5), "pdf_xf": slice(6, 8)}


@cache
def reader() -> Callable[..., tuple[int, int, int]] | None:
    """The compiled function that reads events, None where numba does not work; it is compiled now.

    >>> reader() is reader()
    True
    """

    def load() -> Callable[..., tuple[int, int, int]]:
        from nisampler.events.text.numba_events import events

        empty = np.zeros(0, np.int64)
        events(np.zeros(1, np.uint8), empty.astype(np.uint8), empty, (0, 0, 0), powers_of_ten(), *_space(1, 0))
        return events

    return tried(load, "event files are read by pylhe, many times slower")


def _space(size: int, events: int) -> tuple[NDArray[Any], ...]:
    """Room for what is read from a text, see `numba_events`."""
    return (
        np.empty(size),
        np.empty(events, np.int64),
        np.empty(events, np.int64),
        np.zeros((size // 8 + 2, 3), np.int64),
    )


@dataclass(frozen=True)
class Tags:
    """How events write their named weights.

    Attributes
    ----------
    texts
        The tag of each in its order.
    columns
        Which of them are wanted.

    Examples
    --------
    >>> Tags.of(b"<rwgt><wgt id='b'>1.0</wgt><wgt id='a'>2.0</wgt></rwgt></event>", ["b", "a"], ["a"])
    Tags(texts=(b"<wgt id='b'>", b"<wgt id='a'>"), columns=(1,))
    """

    texts: tuple[bytes, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, text: bytes, written: Sequence[str], wanted: Sequence[str]) -> Tags | None:
        """Those of the first event in a text, which writes these names; None where they are not written plainly."""
        texts = tuple(_TAG.findall(text[: text.find(b"</event>")]))
        names = [unescape(tag[9 : tag.rindex(tag[8:9])].decode("utf-8", "replace")) for tag in texts]
        if names != list(written):
            return None
        return cls(texts, tuple(names.index(name) for name in wanted))


@dataclass
class _Group:
    """Events that are going to be one batch."""

    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    events: int = 0
    most: int = 0
    size: int = 0

    def add(self, values: NDArray[np.float64], begins: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.parts.append((values, begins + self.size, counts))
        self.events, self.size = self.events + len(counts), self.size + len(values)
        self.most = max(self.most, int(counts.max()))

    def columns(self, tags: Tags) -> dict[str, NDArray[Any]]:
        """The columns of a batch."""
        values, begins, counts = (np.concatenate(parts) for parts in zip(*self.parts, strict=True))
        n, p, k = self.events, self.most, len(tags.texts)
        head, extra, named = np.empty((n, _HEAD)), np.empty((n, _EXTRA)), np.empty((n, k))
        particles, clustered = np.zeros((n, p, _PARTICLE)), np.zeros((n, p))
        particles[..., _PARTICLE_COLUMNS["spins"]] = UNKNOWN_SPIN
        for count in np.unique(counts).tolist():
            same = slice(None) if count == p and (counts == p).all() else np.flatnonzero(counts == count)
            width = _HEAD + _PARTICLE * count + _EXTRA + count + k
            if isinstance(same, slice):
                rows = values.reshape(n, width)
            else:
                rows = values[begins[same][:, None] + np.arange(width)]
            at = np.cumsum([0, _HEAD, _PARTICLE * count, _EXTRA, count, k])
            head[same], extra[same] = rows[:, : at[1]], rows[:, at[2] : at[3]]
            particles[same, :count] = rows[:, at[1] : at[2]].reshape(-1, count, _PARTICLE)
            clustered[same, :count] = rows[:, at[3] : at[4]]
            named[same] = rows[:, at[4] :]
        found: dict[str, NDArray[Any]] = {name: head[:, place] for name, place in _HEAD_COLUMNS.items()}
        found |= {name: particles[..., place] for name, place in _PARTICLE_COLUMNS.items()}
        found |= {name: extra[:, place] for name, place in _EXTRA_COLUMNS.items()}
        found["pt_clust"] = clustered
        return found | ({"named_weights": named[:, list(tags.columns)]} if tags.columns else {})


class BulkReader:
    """Reads the events of a text that comes in pieces, each of whole events.

    Parameters
    ----------
    kernel
        What `reader` gives.
    header
        What stands before it.
    text
        The first piece.
    tags
        Of the named weights.
    most_slots, most_bytes
        Of the events of a batch.

    Attributes
    ----------
    count
        Events that are read.

    Examples
    --------
    >>> text = b"<event>\\n1 1 1.0 2.0 0.0 0.1\\n11 1 0 0 0 0 0.0 0.0 1.0 1.0 0.0 0.0 9.0\\n</event>\\n"
    >>> kernel = reader()
    >>> if kernel is not None:
    ...     found = BulkReader(kernel, b"", text + text + b"</LesHouchesEvents>", Tags((), ()), 100, 1000)
    ...     batches = list(found.batches(lambda: b"", 10))
    ...     assert batches[0]["scales"].tolist() == [2.0, 2.0] and found.finished
    """

    def __init__(
        self,
        kernel: Callable[..., tuple[int, int, int]],
        header: bytes,
        text: bytes,
        tags: Tags,
        most_slots: int,
        most_bytes: int,
    ) -> None:
        self._kernel, self._tags, self._limits = kernel, tags, (most_slots, most_bytes)
        self._marks = np.array(bytearray(b"".join(tags.texts)), np.uint8)
        self._ends = np.cumsum([len(text) for text in tags.texts], dtype=np.int64)
        self._header, self._lines, self._text, self.count = header, 0, text, 0

    @property
    def finished(self) -> bool:
        """Whether nothing but the end of the document is left."""
        return _ENDING.fullmatch(self._text) is not None

    @property
    def remains(self) -> bytes:
        """A document of what is not read, in which places have the numbers of lines that they have in the whole."""
        return self._header + b"\n" * self._lines + self._text

    def batches(self, more: Callable[[], bytes], chunk: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of at most `chunk` events at a time, up to the first that is not common or the end of the text.

        What raises while `more` is called is raised again after the events that precede it.
        """
        group, passed = _Group(), 0
        while True:
            stop, length = self._read(group, chunk)
            passed += length
            if stop == _FULL or passed > self._limits[1]:
                yield group.columns(self._tags)
                group, passed = _Group(), 0
            if stop == _FULL:
                continue
            try:
                piece = more() if stop == _END else b""
            except Exception:
                if group.events:
                    yield group.columns(self._tags)
                raise
            if not piece:
                if group.events:
                    yield group.columns(self._tags)
                return
            self._text = piece

    def _read(self, group: _Group, chunk: int) -> tuple[int, int]:
        """Read on in what is left: why that stopped, and how many bytes it was."""
        text = np.array(bytearray(self._text + b"\0"), np.uint8)
        values, begins, counts, unsure = _space(len(text), min(chunk - group.events, len(text) // 30 + 1))
        limits = group.events, group.most, self._limits[0]
        n, at, stop = self._kernel(
            text, self._marks, self._ends, limits, powers_of_ten(), values, begins, counts, unsure
        )
        for place, begin, end in unsure[1 : 1 + unsure[0, 0]].tolist():
            values[place] = float(self._text[begin:end])
        if n:
            last = int(begins[n - 1]) + _HEAD + (_PARTICLE + 1) * int(counts[n - 1]) + _EXTRA + len(self._ends)
            group.add(values[:last], begins[:n], counts[:n])
        self._lines += self._text.count(b"\n", 0, at)
        self._text, self.count = self._text[at:], self.count + n
        return stop, at
