"""Locks that the system frees when their process ends, however it ends: who uses a folder, who writes a file."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from nisampler.errors import StorageError

LOCK_NAME = ".lock"


def is_free(handle: IO[Any]) -> bool:
    """Take the lock of an open file and say whether it was to be had; a file system without locks has none.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
    ...     is_free(first), is_free(second)
    (True, False)
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lock_folder(folder: str | Path) -> IO[str]:
    """Reserve a folder for this process until the handle is closed or the process ends.

    Raises
    ------
    StorageError
        If another process uses the folder, or it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, lock_folder(folder):
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['.lock']
    """
    place = Path(folder) / LOCK_NAME
    try:
        handle = place.open("a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {place}: {error.strerror or error}") from error
    if not is_free(handle):
        handle.seek(0)
        owner = handle.read().strip() or "another process"
        handle.close()
        raise StorageError(f"{folder} is in use by {owner}: wait for it, or end it")
    # The name of the owner is a courtesy: the lock holds without it, on a full disk, too.
    with suppress(OSError):
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle
