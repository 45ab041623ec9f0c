"""Where a command may put what it makes: nothing is overwritten, and a new folder is complete or absent."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from nisampler.base.locks import LOCK_NAME, lock_folder
from nisampler.base.storage import STALE_SUFFIX, make_folder, naming, refuse_special, remove_stale
from nisampler.errors import StorageError

_PARTIAL = ".partial"


def new_file(path: str | Path) -> Path:
    """The path of a file that is not there yet, in a folder that is; what dead processes left of files there goes.

    Raises
    ------
    StorageError
        If something has that name already, be it a link or a device, or there is no such folder.

    Examples
    --------
    >>> new_file("nowhere/a.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot write nowhere/a.h5: there is no folder nowhere; make it first
    """
    target = Path(path)
    refuse_special(target)
    if target.exists():
        raise StorageError(f"{target} exists: choose another --output, or delete the file first")
    if not target.parent.is_dir():
        raise StorageError(f"cannot write {target}: there is no folder {target.parent}; make it first")
    remove_stale(target.parent)
    return target


def new_folder(path: str | Path, own: Collection[str] = ()) -> Path:
    """The path of a folder that is not there yet, or is empty.

    Parameters
    ----------
    path
        Not a link, and not the folder in which this process is.
    own
        Names that may be in it, since an earlier attempt may have left them; those of locks and partial files may, too.

    Raises
    ------
    StorageError
        If it holds anything else, or is no folder.

    Examples
    --------
    >>> new_folder(".")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: . is the current folder, or above it: choose another --output
    """
    target = Path(path)
    if target.is_symlink():
        raise StorageError(f"{target} is a link: give as --output the folder itself or a new name")
    if not target.exists():
        return target
    if not target.is_dir():
        raise StorageError(f"{target} is a file: choose another --output")
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise StorageError(f"{target} is the current folder, or above it: choose another --output")
    with naming(target, "read"):
        names = {item.name for item in target.iterdir() if not item.name.endswith(STALE_SUFFIX)}
    if names - {LOCK_NAME, *own}:
        raise StorageError(f"{target} exists and is not empty: choose another --output")
    return target


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[tuple[Path, IO[str]]]:
    """A locked folder, and its lock, that becomes `path` when the block ends without an exception.

    What killed attempts to make the same folder left is removed; those of living processes are locked and stay.

    Parameters
    ----------
    path
        As for `new_folder`.

    Raises
    ------
    StorageError
        If it cannot be made, or another process was faster.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as above:
    ...     with atomic_folder(f"{above}/new") as (folder, lock):
    ...         _ = (folder / "a.txt").write_text("a")
    ...     lock.close()
    ...     sorted(item.name for item in Path(above, "new").iterdir())
    ['.lock', 'a.txt']
    """
    target = new_folder(path)
    parent = make_folder(target.absolute().parent)
    for stale in parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 32}{_PARTIAL}"):
        with suppress(OSError), lock_folder(stale):
            shutil.rmtree(stale, ignore_errors=True)
    temporary = parent / f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}"
    with naming(target, "make"):
        temporary.mkdir()
    with ExitStack() as failed:
        failed.callback(shutil.rmtree, temporary, ignore_errors=True)
        lock = failed.enter_context(lock_folder(temporary))
        yield temporary, lock
        new_folder(target)
        with naming(target, "make"):
            os.rename(temporary, target)
        failed.pop_all()
