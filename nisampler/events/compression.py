"""Text files of events packed by gzip or Zstandard, as their names say; what is read is told by its first bytes."""

from __future__ import annotations

import gzip
import importlib
import queue
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from nisampler.base.extras import install
from nisampler.base.storage import naming
from nisampler.errors import ConfigError, MissingExtraError

GZIP, ZSTD = ".gz", ".zst"
# Beyond these, files shrink little and take long. Zstandard's levels above 19 need 128 MiB to be read.
_DEFAULTS = {GZIP: 1, ZSTD: 1}
_LEVELS = {GZIP: (0, 9), ZSTD: (1, 19)}
HIGHEST_LEVEL = max(high for _, high in _LEVELS.values())
# Bytes that are packed at once, beside the one who writes, and how many such pieces may wait.
_PIECE, _PIECES = 1 << 20, 4
_MAGIC = {b"\x1f\x8b": GZIP, b"\x28\xb5\x2f\xfd": ZSTD}
# The most that an unpacker of Zstandard may keep, as a power of two: what files of `zstd --long` need.
_WINDOW_LOG = 27


def _zstd() -> Any:
    """Python's own module, or the same for earlier versions."""
    try:
        return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError as error:
        raise MissingExtraError(f"files in .zst need backports.zstd: {install('zstd')}") from error


def packing_of(name: str) -> str:
    """``".gz"``, ``".zst"`` or, for a file that is not packed, nothing.

    >>> packing_of("events.lhe.zst"), packing_of("events.lhe")
    ('.zst', '')
    """
    return next((ending for ending in _LEVELS if name.endswith(ending)), "")


def level_of(name: str, level: int | None = None) -> int:
    """How hard to pack a file of this name: as asked, or as its packing does by default.

    Raises
    ------
    ConfigError
        If its packing has no such level.

    Examples
    --------
    >>> level_of("events.lhe.gz"), level_of("events.lhe.zst", 19), level_of("events.lhe", 19)
    (1, 19, 0)
    >>> level_of("lhe.gz", 19)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: compression_level = 19: lhe.gz has levels from 0 to 9
    """
    packing = packing_of(name)
    if not packing:
        return 0
    low, high = _LEVELS[packing]
    if level is None:
        return _DEFAULTS[packing]
    if not low <= level <= high:
        raise ConfigError(f"compression_level = {level}: {name} has levels from {low} to {high}")
    return level


def possible_level(name: str, level: object) -> int | None:
    """A stored level if the packing of this name has it; else None, its default.

    >>> possible_level("events.lhe.gz", 9), possible_level("events.lhe.gz", 19), possible_level("events.lhe.gz", "9")
    (9, None, None)
    """
    low, high = _LEVELS.get(packing_of(name), (0, HIGHEST_LEVEL))
    return level if isinstance(level, int) and low <= level <= high else None


def require_packing(name: str) -> None:
    """Raise `MissingExtraError` if files of this name need a package that is not installed.

    >>> require_packing("events.lhe.gz")
    """
    if packing_of(name) == ZSTD:
        _zstd()


@contextmanager
def packed(handle: IO[bytes], name: str, level: int | None = None) -> Iterator[IO[bytes]]:
    """A stream into `handle` that packs as `name` says. Equal content gives equal bytes: no name or time is in them.

    Raises
    ------
    ConfigError
        If its packing has no such level.
    MissingExtraError
        If Zstandard is not installed.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> with packed(file, "events.lhe.gz") as stream:
    ...     _ = stream.write(b"<LesHouchesEvents>")
    >>> gzip.decompress(file.getvalue())
    b'<LesHouchesEvents>'
    """
    packing, chosen = packing_of(name), level_of(name, level)
    if packing == ZSTD:
        module = _zstd()
        parameter = module.CompressionParameter
        options = {parameter.compression_level: chosen, parameter.checksum_flag: 1}
        with module.ZstdFile(handle, "wb", options=options) as stream, _behind(stream) as writer:
            yield writer
    elif packing == GZIP:
        with gzip.GzipFile("", "wb", chosen, handle, mtime=0) as stream, _behind(stream) as writer:
            yield writer
    else:
        yield handle


class _Behind:
    """Hands on what is written to a thread that packs it; its errors are raised at the next piece, or at the end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="packing", daemon=True)
        self._thread.start()

    def write(self, text: bytes) -> int:
        self._parts.append(bytes(text))
        self._size += len(text)
        if self._size >= _PIECE:
            self._hand_on()
        return len(text)

    def finish(self, whole: bool) -> None:
        if whole:
            self._hand_on()
        self._pieces.put(None)
        self._thread.join()
        if whole and self._error is not None:
            raise self._error

    def _hand_on(self) -> None:
        piece, self._parts, self._size = b"".join(self._parts), [], 0
        if self._error is not None:
            raise self._error
        self._pieces.put(piece)

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            # After an error the rest is taken away, so that nobody waits.
            if self._error is None:
                try:
                    self._stream.write(piece)
                except BaseException as error:
                    self._error = error


@contextmanager
def _behind(stream: Any) -> Iterator[IO[bytes]]:
    writer = _Behind(stream)
    try:
        yield cast(IO[bytes], writer)
    except BaseException:
        writer.finish(whole=False)
        raise
    writer.finish(whole=True)


def open_unpacked(path: Path) -> IO[bytes]:
    """What a file holds, unpacked while it is read; at no time more of it is kept than 128 MiB.

    Raises
    ------
    StorageError
        If it cannot be opened.
    MissingExtraError
        If it is packed by Zstandard, which is not installed.

    Examples
    --------
    >>> open_unpacked(Path("nowhere.lhe"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.lhe: No such file or directory
    """
    with naming(path, "read"):
        with open(path, "rb") as stream:
            start = stream.read(4)
        packing = next((ending for magic, ending in _MAGIC.items() if start.startswith(magic)), "")
        if packing == ZSTD:
            module = _zstd()
            options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
            return cast(IO[bytes], module.ZstdFile(path, "rb", options=options))
        return cast(IO[bytes], gzip.open(path, "rb")) if packing == GZIP else open(path, "rb")


def unpacking_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a damaged file raises, and others.

    >>> EOFError in unpacking_errors()
    True
    """
    loaded = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    zstd = () if loaded is None else (loaded.ZstdError,)
    return (EOFError, zlib.error, gzip.BadGzipFile, *zstd, *others)
