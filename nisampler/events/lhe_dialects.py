"""LHE files of other programs as bytes that an XML parser reads, and the end of a document found in a longer stream.

Others write comments before the root or with ``--`` inside, Latin-1 text, bare ampersands, and weights without
``<initrwgt>`` (POWHEG). The stream is passed on event by event; a header or an event that is larger than any real one
is refused before memory is taken for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from nisampler.errors import CorruptFileError, EventFormatError

# Bytes of a header, or of an event; an XML parser and its objects take up to fifty times as much. A header of MadGraph
# with thousands of weights has one MiB.
_LARGEST = 8 << 20
_FIRST_READ, _TAKEN = 1 << 16, 1 << 20
_DECLARATION = re.compile(rb"^\s*<\?xml.*?\?>", re.DOTALL)
_QUOTED = re.compile(rb"<!--|<!\[CDATA\[")
_INIT = re.compile(rb"<init[\s>]")
_BARE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_WEIGHTS = re.compile(rb"<weights[\s>]")
_CLOSINGS = {b"<!--": b"-->", b"<![C": b"]]>", b"<wei": b"</weights>"}
_EVENT_END, _END = b"</event>", re.compile(rb"</LesHouchesEvents\s*>")


class PlainLHE:
    """A binary stream of one LHE document, in UTF-8 and without what parsers stumble over; closing is the owner's.

    Parameters
    ----------
    stream
        The file, unpacked.
    path
        Its name, for messages.

    Raises
    ------
    EventFormatError
        While it is read, if the header or an event is larger than 8 MiB, or entities are declared.
    CorruptFileError
        If something follows the end of the document.

    Attributes
    ----------
    passed
        Bytes that were read from it.
    heard
        These bytes, until `take` is called.

    Examples
    --------
    >>> import io
    >>> text = "<!-- made by me --><LesHouchesEvents><header>R&D</header><init>"
    >>> PlainLHE(io.BytesIO(text.encode("latin-1")), Path("a.lhe")).read()
    b'<LesHouchesEvents><header>R&amp;D</header><init>'
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._raw, self._ready = b"", b""
        self._started = self._finished = self._ended = False
        self._keeps_weights, self._after, self.passed = True, b"", 0
        self.heard: bytearray | None = bytearray()
        self._error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all of them by default; none at the end."""
        while not self._finished and (size < 0 or not self._ready):
            if self._error is not None:
                raise self._error
            self._advance()
        if size < 0:
            size = len(self._ready)
        part, self._ready = self._ready[:size], self._ready[size:]
        self.passed += len(part)
        if self.heard is not None:
            self.heard += part
        return part

    def take(self, least: int = _TAKEN) -> bytes:
        """What is at hand, and so many bytes at least where there are more, of whole events; none at the end."""
        self.heard = None
        if self._error is not None:
            raise self._error
        parts = [self._ready]
        self._ready = b""
        while not self._finished and sum(map(len, parts)) < least:
            try:
                self._advance()
            except Exception as error:
                # First comes what precedes it.
                if not any(parts):
                    raise
                self._error = error
                break
            parts.append(self._ready)
            self._ready = b""
        return b"".join(parts)

    def put_back(self, text: bytes) -> None:
        """Give a text before all that is left."""
        self.heard, self._ready = None, text + self._ready

    def __enter__(self) -> PlainLHE:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def drain(self) -> None:
        """Read to the end, so that gzip compares its checksum and nothing is found after the document."""
        while self.read(_FIRST_READ):
            pass

    def _advance(self) -> None:
        """Read on, and pass on what is complete."""
        more = self._stream.read(max(_FIRST_READ, len(self._raw)))
        self._finished = not more
        if self._ended:
            self._require_end(more)
            return
        self._raw += more
        if not self._started:
            self._begin()
        if self._started:
            self._events()
        if len(self._raw) > _LARGEST and not self._ended:
            raise self._too_large("an event" if self._started else "the header")

    def _too_large(self, what: str) -> EventFormatError:
        return EventFormatError(f"{self._path}: {what} is larger than {_LARGEST >> 20} MiB")

    def _begin(self) -> None:
        """The header without comments and quoted text, once it is complete."""
        text = _without(self._raw, _QUOTED)
        found = _INIT.search(text)
        head = text if found is None else text[: found.start()]
        if not self._finished and (found is None or _QUOTED.search(head)):
            return
        if len(head) > _LARGEST:
            raise self._too_large("the header")
        if b"<!DOCTYPE" in head:
            raise EventFormatError(f"{self._path}: a document type is declared, which event files have no use for")
        self._started = True
        self._keeps_weights = b"<initrwgt" in head
        self._ready += _plain(_DECLARATION.sub(b"", head.removeprefix(b"\xef\xbb\xbf"))).lstrip()
        self._raw = text[len(head) :]

    def _events(self) -> None:
        """All complete events, and at the end what is left."""
        end = _END.search(self._raw)
        if end is not None:
            whole, rest = self._raw[: end.end()], self._raw[end.end() :]
            self._ended, self._raw = True, b""
        else:
            cut = len(self._raw) if self._finished else self._raw.rfind(_EVENT_END) + len(_EVENT_END)
            if cut < len(_EVENT_END) and not self._finished:
                return
            whole, rest = self._raw[:cut], b""
            self._raw = self._raw[cut:]
        if len(whole) > _LARGEST and max(map(len, whole.split(_EVENT_END))) > _LARGEST:
            raise self._too_large("an event")
        if not self._keeps_weights and b"<weights" in whole:
            whole = _without(whole, _WEIGHTS)
        self._ready += _plain(whole)
        self._after = rest

    def _require_end(self, more: bytes) -> None:
        if (self._after + more).strip():
            raise CorruptFileError(
                f"{self._path}: something follows the end of the document, as where files were put one after the other;"
                " read them one by one, or merge them"
            )
        self._after = b""


def _without(text: bytes, opening: re.Pattern[bytes]) -> bytes:
    """The text without what each opening begins, up to its end; from one that has none on, the text stays."""
    kept, at = [], 0
    while found := opening.search(text, at):
        closing = _CLOSINGS[found[0][:4]]
        end = text.find(closing, found.end())
        if end < 0:
            break
        kept.append(text[at : found.start()])
        at = end + len(closing)
    return b"".join([*kept, text[at:]])


def _plain(text: bytes) -> bytes:
    """The same in UTF-8, ampersands that begin no entity written out."""
    if b"&" in text:
        text = _BARE.sub(b"&amp;", text)
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
    return text
