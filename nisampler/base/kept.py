"""What takes long to make, kept in the user's cache as tensors under the checksum of what it was made from.

Nothing depends on it: where there is no place to write it is made again, and a file that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from nisampler.base.storage import atomic_write, read_bounded
from nisampler.errors import StorageError

VARIABLE, OWN = "NISAMPLER_CACHE", "NISAMPLER_OWN_CACHE"
"""The folder of the cache; and that of the user where the first one is the folder of a pack, which is only read."""
SUFFIX = ".kept"
_MOST = 256 << 20
_DIGEST = 32


def cache_folder(kind: str, own: bool = False) -> Path:
    """``$NISAMPLER_CACHE/KIND``, or ``~/.cache/nisampler/KIND`` where that variable is not set.

    Parameters
    ----------
    kind
        What is kept there.
    own
        Whether in a pack it is the user's own cache that is meant, in place of the pack's.

    Examples
    --------
    >>> cache_folder("amplicol").name
    'amplicol'
    """
    chosen = (os.environ.get(OWN) if own else None) or os.environ.get(VARIABLE)
    base = Path(chosen) if chosen else Path("~", ".cache", "nisampler")
    return base.expanduser() / kind


def kept(kind: str, source: bytes, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that `make` made of these bytes, now or earlier.

    Parameters
    ----------
    kind
        Of tensors, with a number that changes with what `make` does.
    source
        What they are made from.
    make
        Makes them; what it raises is raised.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from unittest.mock import patch
    >>> with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {VARIABLE: folder}):
    ...     for _ in range(2):
    ...         print(kept("ones-1", b"two", lambda: print("made") or {"x": torch.ones(2)})["x"].tolist())
    made
    [1.0, 1.0]
    [1.0, 1.0]
    """
    try:
        path = cache_folder(kind, own=True) / f"{hashlib.sha256(source).hexdigest()}{SUFFIX}"
    except RuntimeError:  # nobody's home
        return dict(make())
    found = _read(path)
    if found is None:
        found = dict(make())
        content = dump_tensors({name: tensor.contiguous() for name, tensor in found.items()})
        with suppress(StorageError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as handle:
                handle.write(hashlib.sha256(content).digest() + content)
    return found


def _read(path: Path) -> dict[str, Tensor] | None:
    """None if there is no such file, or it is not as it was written."""
    try:
        content = read_bounded(path, _MOST, "a file of the cache")
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        return dict(load_tensors(content[_DIGEST:]))
    except (StorageError, SafetensorError, OSError):
        return None
