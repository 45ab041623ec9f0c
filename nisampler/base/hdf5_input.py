"""HDF5 files of others, looked at before their numbers are read.

A file of a few kilobytes can declare any number of rows, hold chunks that were never written, and chunks that unpack to
gigabytes. What is read passes `require_readable` first; attributes are taken by `attribute`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nisampler.base.storage import MIB, amount
from nisampler.errors import CorruptFileError

MOST_CHUNK = 256 * MIB
"""Bytes of a chunk: the library unpacks whole ones."""
MOST_ROW = 64 * MIB
"""Bytes of a row, the least that can be read at a time."""
_MOST_ATTRIBUTE = MIB
# Files of so many bytes must hold at least the stated part of them: what is measured compresses ten times, or fifty.
_UNSUSPICIOUS, _MOST_COMPRESSED = 256 * MIB, 250
# One byte that zlib packed gives at most so many.
_MOST_DEFLATED = 1032
_PIECE = MIB
_MEND = "write the file again, in smaller chunks and with all of its rows"


def require_readable(path: str | Path, datasets: Mapping[str, Any]) -> None:
    """Refuse datasets that hold no numbers, or whose rows or chunks need more memory than those of any real file.

    Parameters
    ----------
    path
        The file, for messages.
    datasets
        Datasets by name, all that are going to be read.

    Raises
    ------
    CorruptFileError
        Naming the dataset, what is too large, and the limit.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, h5py.File(f"{folder}/a.h5", "w") as file:
    ...     data = file.create_dataset("showers", shape=(10**9, 240), chunks=(1, 240), dtype="f4")
    ...     try:
    ...         require_readable("a.h5", {"showers": data})
    ...     except CorruptFileError as error:
    ...         str(error).split(":")[0]
    'a.h5 declares 894 GiB of numbers and holds 0 bytes, less than a 250th'
    """
    declared, held = 0, 0
    for name, data in datasets.items():
        if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf":
            kind = getattr(data, "dtype", type(data).__name__)
            raise CorruptFileError(f"{path}: {name} holds no numbers, but {kind}; write the file again")
        # Asked of the library itself: each property of h5py asks anew.
        layout, shape, width = data.id.get_create_plist(), data.shape, data.dtype.itemsize
        kind = layout.get_layout()
        if kind == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise CorruptFileError(f"{path}: {name} lies in other files; copy it into this one, e.g. by h5repack")
        size, row = width * math.prod(shape), width * math.prod(shape[1:])
        chunk = width * math.prod(layout.get_chunk()) if kind == h5py.h5d.CHUNKED else 0
        for what, found, most in (("rows", row, MOST_ROW), ("chunks", chunk, MOST_CHUNK)):
            if found > most:
                raise CorruptFileError(
                    f"{path}: the {what} of {name} have {amount(found)}, more than {amount(most)}; {_MEND}"
                )
        _require_honest_chunks(path, name, data, layout, chunk)
        declared, held = declared + size, held + data.id.get_storage_size()
    if declared > _UNSUSPICIOUS and declared > _MOST_COMPRESSED * held:
        raise CorruptFileError(
            f"{path} declares {amount(declared)} of numbers and holds {amount(held)}, less than a "
            f"{_MOST_COMPRESSED}th: rows were never written, or repeat; {_MEND}"
        )


def _require_honest_chunks(path: str | Path, name: str, data: Any, layout: Any, size: int) -> None:
    """Refuse chunks that unpack to more than their `size`: the library would take memory for all of it."""
    filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise CorruptFileError(f"{path}: {name} is compressed twice; write the file again")
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    suspicious: list[tuple[int, ...]] = []

    def look(chunk: Any) -> None:
        if chunk.size * _MOST_DEFLATED > _UNSUSPICIOUS:
            suspicious.append(chunk.chunk_offset)

    data.id.chunk_iter(look)
    for place in suspicious:
        mask, packed = data.id.read_direct_chunk(place)
        # Filters before the compression may have added a checksum or a head.
        if not mask and _unpacked(packed, size + _PIECE) > size + _PIECE:
            raise CorruptFileError(f"{path}: a chunk of {name} unpacks to more than its {amount(size)}; {_MEND}")


def _unpacked(packed: bytes, most: int) -> int:
    """How many bytes zlib unpacks, counted until they exceed `most`."""
    unpacker, count = zlib.decompressobj(), 0
    # What is damaged is left to the library, which says so.
    with suppress(zlib.error):
        while packed and count <= most:
            count += len(unpacker.decompress(packed, _PIECE))
            packed = unpacker.unconsumed_tail
    return count


def attribute(group: Any, name: str, *default: Any) -> Any:
    """An attribute of a group, or the default, if one is given, where there is none.

    Raises
    ------
    KeyError
        If there is neither.
    CorruptFileError
        If it has more than 1 MiB; real ones are single numbers and names.

    Examples
    --------
    >>> import io
    >>> with h5py.File(io.BytesIO(), "w") as file:
    ...     file.attrs["format"] = "nisampler-events"
    ...     attribute(file, "format"), attribute(file, "version", 1)
    ('nisampler-events', 1)
    """
    if default and name not in group.attrs:
        return default[0]
    found = group.attrs.get_id(name)
    count, dtype = math.prod(found.shape), np.dtype(found.dtype)
    # Texts of variable length are references, of which many may go to one long text.
    if dtype.itemsize * count * (MIB if dtype.hasobject and count > 1 else 1) > _MOST_ATTRIBUTE:
        raise CorruptFileError(
            f"{group.file.filename}: the attribute {name} is larger than {amount(_MOST_ATTRIBUTE)}; write it again"
        )
    return group.attrs[name]
