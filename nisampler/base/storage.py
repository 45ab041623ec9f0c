"""Files that are complete or absent: atomic writes, strict JSON, checksums."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from nisampler.base.locks import is_free
from nisampler.errors import CorruptFileError, NisamplerError, StorageError

STALE_SUFFIX = ".nisampler-partial"
SEAL = "checksum"
"""Where a sealed file has the checksum of all else in it."""
MIB = 1 << 20
_CHUNK = MIB
# Of a JSON file. Python's objects take up to forty times the space of their text.
_MOST_JSON = 16 * MIB


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` durable (a no-op where directories cannot be opened)."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def naming(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Errors of the system as `StorageError` with the file and the reason.

    >>> with naming("a.txt", "read"):
    ...     open("a.txt")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read a.txt: No such file or directory
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot {doing} {path}: {error.strerror or error}") from error


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it, unless it is there.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     make_folder(f"{folder}/a/b").is_dir()
    True

    Raises
    ------
    StorageError
        If that fails; the message says why.
    """
    folder = Path(path)
    with naming(folder, "make"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


class _PartialFile(io.FileIO):
    """A new file whose errors name the file that it is going to be; its writer holds its lock."""

    def __init__(self, path: Path, target: Path) -> None:
        self._target = target
        super().__init__(path, "x+")
        # Where a file system has no locks, nobody can take one either, and partial files are left alone.
        with suppress(OSError):
            fcntl.flock(self, fcntl.LOCK_EX)

    def write(self, data: Any, /) -> int:
        with naming(self._target):
            return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        with naming(self._target):
            return super().truncate(size)


def refuse_special(target: Path) -> None:
    """Refuse what a file must not replace: links, folders, devices, pipes.

    >>> refuse_special(Path("/dev/null"))
    Traceback (most recent call last):
    nisampler.errors.StorageError: cannot write /dev/null: it is a device or pipe, not a file; give the name of a file

    Raises
    ------
    StorageError
        If `target` is one of them.
    """
    try:
        mode = os.lstat(target).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "device or pipe"
        raise StorageError(f"cannot write {target}: it is a {kind}, not a file; give the name of a file")


def _open_partial(target: Path) -> tuple[Path, _PartialFile]:
    """A partial file beside `target`."""
    _clean(target.parent)
    while True:
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}{STALE_SUFFIX}"
        try:
            raw = _PartialFile(temporary, target)
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
        # Between its creation and its lock another process may have taken the file for a dead one.
        if temporary.exists():
            return temporary, raw
        raw.close()


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an exception.

    The temporary file lies in the same folder, is flushed and synchronised to disk, and then renamed over
    `path`: a reader sees the old or the new content, never a part of it. If the block raises, the temporary
    file is removed and `path` is untouched. What killed processes left of the same file is removed, too.

    Parameters
    ----------
    path
        The file to make or replace; its folder must exist. Only a regular file is replaced.
    mode
        ``"wb"``, ``"w+b"`` (both may be read back) or ``"w"`` (text is UTF-8 with ``\\n`` line ends).

    Raises
    ------
    StorageError
        If the folder is missing, the file cannot be written, e.g. because the disk is full, `path` is a link, a folder
        or a device, or the mode does not write a new file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "a.txt", "w") as handle:
    ...         _ = handle.write("whole or not at all")
    ...     (Path(folder) / "a.txt").read_text(), len(sha256(Path(folder) / "a.txt")), remove_stale(folder)
    ('whole or not at all', 64, [])
    """
    target = Path(path)
    if "w" not in mode:
        raise StorageError(f"atomic_write makes new files: mode must contain 'w', got {mode!r}")
    refuse_special(target)
    temporary, raw = _open_partial(target)
    try:
        # Closing the raw file rather than the buffer drops, after an error, what waits to be written.
        with raw:
            handle: Any = io.BufferedRandom(raw, _CHUNK)
            if "b" not in mode:
                handle = io.TextIOWrapper(handle, "utf-8", newline="\n")
            yield handle
            handle.flush()
            with naming(target):
                os.fsync(raw.fileno())
                os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def remove_stale(directory: str | Path) -> list[Path]:
    """Delete the temporary files that dead processes left in `directory`; returns what was removed.

    Those of living processes are locked and stay. A missing directory counts as an empty one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, f".a.txt.0{STALE_SUFFIX}").write_text("left by a killed process")
    ...     [path.name for path in remove_stale(folder)]
    ['.a.txt.0.nisampler-partial']
    """
    removed = []
    for path in sorted(Path(directory).glob(f".*{STALE_SUFFIX}")):
        with suppress(OSError), path.open("rb") as handle:
            if is_free(handle):
                path.unlink()
                removed.append(path)
    return removed


@lru_cache(maxsize=256)
def _clean(folder: Path) -> None:
    """`remove_stale`, when this process first writes in a folder: looking each time is slow where there are many."""
    with suppress(OSError):
        remove_stale(folder)


def encode_json(data: object, where: object) -> bytes:
    """JSON text with sorted keys; `where` names it in the `StorageError` about what is no JSON.

    >>> encode_json({"b": 1, "a": 2.5}, "a.json")
    b'{\\n  "a": 2.5,\\n  "b": 1\\n}\\n'
    """
    try:
        text = json.dumps(data, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    except (ValueError, TypeError) as error:
        refused = "NaN, infinity and objects are refused"
        raise StorageError(f"{where}: cannot be written as JSON ({error}); {refused}") from error
    return text.encode() + b"\n"


def write_json(path: str | Path, data: object) -> None:
    """Write `data` atomically as JSON with sorted keys and a final newline: equal data give equal bytes.

    Raises
    ------
    StorageError
        If `data` holds NaN, infinity or something JSON has no form for, or the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_json(Path(folder) / "a.json", {"b": 1.5})
    ...     read_json(Path(folder) / "a.json")
    {'b': 1.5}
    """
    content = encode_json(data, path)
    with atomic_write(path) as handle:
        handle.write(content)


def amount(size: float) -> str:
    """Bytes as a message says them.

    >>> amount(10), amount(64 * MIB), amount(3.2e12)
    ('10 bytes', '64 MiB', '2.91 TiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def read_bounded(path: str | Path, most: int, what: str) -> bytes:
    """The content of a file that can have at most `most` bytes; of a longer one no more is read.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that such a file may have.
    what
        What it should be, for the message.

    Raises
    ------
    StorageError
        If it cannot be read.
    CorruptFileError
        If it is longer.

    Examples
    --------
    >>> read_bounded("/dev/zero", 64 * MIB, "a run card")
    Traceback (most recent call last):
    nisampler.errors.CorruptFileError: /dev/zero is larger than 64 MiB, the most that a run card may have
    """
    with naming(path, "read"), open(path, "rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise CorruptFileError(f"{path} is larger than {amount(most)}, the most that {what} may have")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite_number(text: str) -> float:
    """A number of JSON; ValueError where it is too large for a float."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def read_json(path: str | Path) -> Any:
    """Read strict JSON.

    >>> read_json("nowhere.json")
    Traceback (most recent call last):
    nisampler.errors.StorageError: cannot read nowhere.json: No such file or directory

    Raises
    ------
    StorageError
        If the file is missing or unreadable.
    CorruptFileError
        If it is not valid JSON (NaN and Infinity included), is nested too deeply, or has more than 16 MiB.
    """
    content = read_bounded(path, _MOST_JSON, "a JSON file")
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant, parse_float=_finite_number)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} is not JSON ({error}): it is truncated or was altered") from error


@contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """What goes wrong in making sense of stored data, as a CorruptFileError that names their file or folder.

    >>> with understood("a.json"):
    ...     float({"x": "y"}["x"])
    Traceback (most recent call last):
    nisampler.errors.CorruptFileError: a.json does not hold what this release stores: could not convert string to ...
    """
    try:
        yield
    except NisamplerError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptFileError(f"{path} does not hold what this release stores: {what}") from error


def write_sealed(path: str | Path, data: Mapping[str, Any], seal: str = SEAL) -> None:
    """Write an object as `write_json` does, with the checksum of all else under `seal`; raises as `write_json`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_sealed(Path(folder) / "a.json", {"b": 1.5})
    ...     read_sealed(Path(folder) / "a.json")
    {'b': 1.5}
    """
    write_json(path, sealed(data, path, seal))


def sealed(data: Mapping[str, Any], where: object, seal: str = SEAL) -> dict[str, Any]:
    """An object with the checksum of all else in it; `where` names it in errors.

    >>> sorted(sealed({"b": 1.5}, "a.json"))
    ['b', 'checksum']
    """
    return {**data, seal: _digest(data, where)}


def read_sealed(path: str | Path, seal: str = SEAL, mend: str = "restore it from a copy") -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its checksum.

    >>> read_sealed("nowhere.json")
    Traceback (most recent call last):
    nisampler.errors.StorageError: cannot read nowhere.json: No such file or directory

    Raises
    ------
    StorageError
        If the file is missing or unreadable.
    CorruptFileError
        If it was truncated or altered; the message ends with `mend`.
    """
    data = read_json(path)
    if not isinstance(data, dict) or seal not in data:
        raise CorruptFileError(f"{path} is not what this release writes, it has no {seal}: {mend}")
    body = {name: value for name, value in data.items() if name != seal}
    if _digest(body, path) != data[seal]:
        raise CorruptFileError(f"{path} was altered, its checksum does not match: {mend}")
    return body


def _digest(data: Mapping[str, Any], where: object) -> str:
    return hashlib.sha256(encode_json(dict(data), where)).hexdigest()


def sha256(path: str | Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal, read in pieces of 1 MiB.

    >>> sha256("/dev/null")[:16]
    'e3b0c44298fc1c14'

    Raises
    ------
    StorageError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    with naming(path, "read"), open(path, "rb") as handle:
        while piece := handle.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
