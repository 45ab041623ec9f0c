"""New HDF5 files whose writing can fail, or be interrupted, at any byte without harm to the process.

The HDF5 library crashes when it cannot write what it still holds while it closes a file. So it never sees an error
here: it writes through a stream that notes the first one, goes on in memory, and is asked after each step.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

from nisampler.base.signals import signals_wait
from nisampler.base.storage import atomic_write


class _Stream(io.RawIOBase):
    """A file for HDF5: after an error its further bytes go to memory, so that they can be read back."""

    def __init__(self, handle: IO[bytes]) -> None:
        super().__init__()
        self._handle, self._patches, self._at, self._end = handle, list[tuple[int, bytes]](), 0, 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        start, size = self._at, len(buffer)
        found = bytearray(size)
        try:
            self._handle.seek(start)
            kept = self._handle.read(size)
            found[: len(kept)] = kept
        except OSError as error:
            self.failure = self.failure or error
        for first, data in self._patches:
            low, high = max(first, start), min(first + len(data), start + size)
            if low < high:
                found[low - start : high - start] = data[low - first : high - first]
        buffer[:] = found
        self._at += size
        return size

    def write(self, data: Any, /) -> int:
        size = len(data)
        try:
            if self.failure is None:
                self._handle.seek(self._at)
                self._handle.write(data)
        except OSError as error:
            self.failure = error
        if self.failure is not None:
            self._patches.append((self._at, bytes(data)))
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        self._end = self._at if size is None else size
        try:
            if self.failure is None:
                self._handle.truncate(self._end)
        except OSError as error:
            self.failure = error
        return self._end

    def flush(self) -> None:
        """What is buffered is written when the file is complete."""


class HDF5Output:
    """A new HDF5 file.

    Attributes
    ----------
    file
        The `h5py.File`; write to it within `writing`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, new_hdf5(f"{folder}/a.h5") as output:
    ...     with output.writing():
    ...         output.file.attrs["n"] = 3
    ...     dict(output.file.attrs) == {"n": 3}
    True
    """

    def __init__(self, file: Any, stream: _Stream) -> None:
        self.file, self._stream = file, stream

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A step that signals do not cut.

        Raises
        ------
        StorageError
            If the file cannot be written, e.g. because the disk is full.
        """
        with signals_wait():
            yield
        if self._stream.failure is not None:
            raise self._stream.failure


@contextmanager
def new_hdf5(path: str | Path, **options: Any) -> Iterator[HDF5Output]:
    """An HDF5 file that appears under `path` when the block ends without an exception.

    Parameters
    ----------
    path
        As for `nisampler.base.storage.atomic_write`.
    options
        Of `h5py.File`.

    Raises
    ------
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with new_hdf5(f"{folder}/a.h5") as output, output.writing():
    ...         output.file["x"] = [1.0, 2.0]
    ...     with h5py.File(f"{folder}/a.h5") as file:
    ...         file["x"].shape
    (2,)
    """
    with atomic_write(path, "w+b") as handle:
        stream, file = _Stream(handle), None
        try:
            # A signal that waited is raised at the end of this step: the file is closed then, too.
            with signals_wait():
                file = h5py.File(stream, "w", **options)
            output = HDF5Output(file, stream)
            yield output
        finally:
            if file is not None:
                with signals_wait():
                    file.close()
        with output.writing():
            """Nothing more: errors of the last bytes are raised."""
