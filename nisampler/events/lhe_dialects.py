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

_LARGEST = 64 << 20
_FIRST_READ = 1 << 16
_DECLARATION = re.compile(rb"^\s*<\?xml.*?\?>", re.DOTALL)
_OPENINGS = (b"<!--", b"<![CDATA[")
_SKIPPED = re.compile(rb"<!\[CDATA\[.*?\]\]>|<!--.*?-->", re.DOTALL)
_INIT = re.compile(rb"<init[\s>]")
_BARE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_WEIGHTS = re.compile(rb"<weights\b[^>]*>.*?</weights>", re.DOTALL)
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
        While it is read, if the header or an event is larger than 64 MiB.
    CorruptFileError
        If something follows the end of the document.

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
        self._keeps_weights, self._after = True, b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all of them by default; none at the end."""
        while not self._finished and (size < 0 or not self._ready):
            self._advance()
        if size < 0:
            size = len(self._ready)
        part, self._ready = self._ready[:size], self._ready[size:]
        return part

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
        if self._ended:
            self._require_end(more)
        self._raw += more
        self._finished = not more
        if not self._started:
            self._begin()
        if self._started and not self._ended:
            self._events()
        if len(self._raw) > _LARGEST and not self._ended:
            what = "an event" if self._started else "the header"
            raise EventFormatError(f"{self._path}: {what} is larger than {_LARGEST >> 20} MiB")

    def _begin(self) -> None:
        """The header without comments and quoted text, once it is complete."""
        text = _SKIPPED.sub(b"", self._raw)
        found = _INIT.search(text)
        head = text if found is None else text[: found.start()]
        if not self._finished and (found is None or any(mark in head for mark in _OPENINGS)):
            return
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
        if not self._keeps_weights and b"<weights" in whole:
            whole = _WEIGHTS.sub(b"", whole)
        self._ready += _plain(whole)
        self._after = rest

    def _require_end(self, more: bytes) -> None:
        if (self._after + more).strip():
            raise CorruptFileError(
                f"{self._path}: something follows the end of the document, as where files were put one after the other;"
                " read them one by one, or merge them"
            )
        self._after = b""


def _plain(text: bytes) -> bytes:
    """The same in UTF-8, ampersands that begin no entity written out."""
    if b"&" in text:
        text = _BARE.sub(b"&amp;", text)
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
    return text
