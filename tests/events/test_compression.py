"""Packing beside the one who writes: the same bytes however they come, and errors that are not lost."""

from __future__ import annotations

import gzip
import io
import threading

import numpy as np
import pytest

from nisampler.errors import StorageError
from nisampler.events.compression import packed

TEXT = np.random.default_rng(2).integers(48, 58, 3_000_000).astype(np.uint8).tobytes()


@pytest.mark.parametrize("name", ("a.gz", "a.zst"))
def test_pieces_do_not_matter(name: str) -> None:
    if name.endswith("zst"):
        pytest.importorskip("backports.zstd")
    found = []
    for size in (1000, 1 << 20, len(TEXT)):
        file = io.BytesIO()
        with packed(file, name) as stream:
            for begin in range(0, len(TEXT), size):
                assert stream.write(TEXT[begin : begin + size]) == len(TEXT[begin : begin + size])
        found.append(file.getvalue())
    assert found[0] == found[1] == found[2]
    if name.endswith("gz"):
        assert gzip.decompress(found[0]) == TEXT


class Full(io.BytesIO):
    """A disk with room for 100 kB."""

    def write(self, data: object, /) -> int:
        if self.tell() > 100_000:
            raise StorageError("cannot write a.gz: No space left on device")
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("pieces", (1, 20))
def test_a_full_disk_is_told(pieces: int) -> None:
    with pytest.raises(StorageError, match="No space left"), packed(Full(), "a.gz") as stream:
        for _ in range(pieces):
            stream.write(TEXT)
    assert not [thread for thread in threading.enumerate() if thread.name == "packing"]


def test_an_error_of_the_writer_ends_the_thread() -> None:
    with pytest.raises(ValueError, match="mine"), packed(io.BytesIO(), "a.gz") as stream:
        stream.write(b"a")
        raise ValueError("mine")
    assert not [thread for thread in threading.enumerate() if thread.name == "packing"]
