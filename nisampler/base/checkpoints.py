"""Checkpoints without pickle: tensors as safetensors and a JSON manifest with checksums, complete or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from nisampler.base.storage import (
    atomic_write,
    encode_json,
    make_folder,
    naming,
    read_sealed,
    remove_stale,
    write_sealed,
)
from nisampler.errors import CorruptFileError, StorageError

CHECKPOINT_FORMAT = "nisampler-checkpoint"
CHECKPOINT_VERSION = 1
MANIFEST_NAME = "checkpoint.json"
_SEAL = "manifest_sha256"
_TENSOR_PREFIX = "tensors-"
_TENSOR_SUFFIX = ".safetensors"
_MEND = "restore the folder from a copy and resume from it, or delete the checkpoint to start again"


def _plain(tensor: Tensor) -> Tensor:
    """A contiguous CPU copy that shares no memory with any other tensor of the checkpoint."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()


def save_checkpoint(directory: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Store tensors and JSON metadata: a kill at any moment leaves the old or the new checkpoint, complete.

    The tensors go to ``tensors-<sha256>.safetensors``; then the manifest ``checkpoint.json``, naming that
    file, its size and its checksum, replaces the old one atomically; then older tensor files are deleted.

    Parameters
    ----------
    directory
        Made if missing. It holds one checkpoint; one process writes to it at a time.
    tensors
        Any names, shapes, devices and strides. Tensors that share memory are stored separately.
    meta
        JSON data: finite numbers, strings, lists, dictionaries with string keys.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    StorageError
        If the metadata is not JSON, or the folder cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = save_checkpoint(folder, {"x": torch.ones(2)}, {"step": 3})
    ...     has_checkpoint(folder), load_checkpoint(folder)
    (True, ({'x': tensor([1., 1.])}, {'step': 3}))
    """
    folder = Path(directory)
    encode_json(dict(meta), f"the metadata of {folder / MANIFEST_NAME}")
    make_folder(folder)
    content = dump_tensors({name: _plain(tensor) for name, tensor in sorted(tensors.items())})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{_TENSOR_PREFIX}{digest}{_TENSOR_SUFFIX}"
    with atomic_write(folder / name) as handle:
        handle.write(content)
    body = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "file": name,
        "bytes": len(content),
        "sha256": digest,
        "tensors": {key: [str(value.dtype), list(value.shape)] for key, value in tensors.items()},
        "meta": dict(meta),
    }
    write_sealed(folder / MANIFEST_NAME, body, _SEAL)
    for old in folder.glob(f"{_TENSOR_PREFIX}*{_TENSOR_SUFFIX}"):
        if old.name != name:
            old.unlink(missing_ok=True)
    remove_stale(folder)
    return folder / MANIFEST_NAME


def has_checkpoint(directory: str | Path) -> bool:
    """Whether `directory` holds a checkpoint manifest (complete or damaged).

    >>> has_checkpoint("nowhere")
    False
    """
    return (Path(directory) / MANIFEST_NAME).is_file()


def _read_manifest(manifest: Path) -> dict[str, Any]:
    """The verified manifest: its own checksum, format and version are right."""
    if not manifest.is_file():
        raise StorageError(f"{manifest} does not exist: no checkpoint was saved there")
    data = read_sealed(manifest, _SEAL, _MEND)
    fields = {"format", "version", "file", "bytes", "sha256", "tensors", "meta"}
    if not data.keys() >= fields or Path(str(data["file"])).name != data["file"]:
        raise CorruptFileError(f"{manifest} is not a checkpoint manifest: {_MEND}")
    if data["format"] != CHECKPOINT_FORMAT or data["version"] != CHECKPOINT_VERSION:
        found = f"{data['format']} version {data['version']}"
        raise StorageError(
            f"{manifest} is {found}, this release reads {CHECKPOINT_FORMAT} version {CHECKPOINT_VERSION}: "
            "use the release that wrote it"
        )
    return data


def load_checkpoint(
    directory: str | Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `save_checkpoint` stored, after checking sizes and checksums.

    >>> load_checkpoint("nowhere")
    Traceback (most recent call last):
    nisampler.errors.StorageError: nowhere/checkpoint.json does not exist: no checkpoint was saved there

    Returns
    -------
    tuple
        The tensors on `device`, with the names, shapes and dtypes that were saved, and the metadata.

    Raises
    ------
    StorageError
        If there is no checkpoint, or another release wrote it in a newer format.
    CorruptFileError
        If a file is missing, truncated or altered; the message names it and says how to go on.
    """
    folder = Path(directory)
    data = _read_manifest(folder / MANIFEST_NAME)
    path = folder / data["file"]
    if not path.is_file():
        raise CorruptFileError(f"{path} is missing although the manifest names it: {_MEND}")
    with naming(path, "read"):
        size = path.stat().st_size
        if size != data["bytes"]:
            raise CorruptFileError(f"{path} has {size} bytes instead of {data['bytes']}: {_MEND}")
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != data["sha256"]:
        raise CorruptFileError(f"{path} was altered, its checksum does not match: {_MEND}")
    try:
        stored = load_tensors(content)
    except safetensors.SafetensorError as error:
        raise CorruptFileError(f"{path} is not a safetensors file ({error}): {_MEND}") from error
    found = {key: [str(value.dtype), list(value.shape)] for key, value in stored.items()}
    if found != data["tensors"]:
        raise CorruptFileError(f"{path} does not hold the tensors that the manifest lists: {_MEND}")
    return {key: value.to(device) for key, value in stored.items()}, data["meta"]


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix before each name, so that several states can lie in one checkpoint.

    >>> list(prefixed({"weight": torch.ones(1)}, "flow."))
    ['flow.weight']
    """
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it: what `prefixed` got.

    >>> list(part({"flow.weight": torch.ones(1), "grid": torch.ones(1)}, "flow."))
    ['weight']
    """
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
