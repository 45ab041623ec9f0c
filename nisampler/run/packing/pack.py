"""Packs: a plain tar of a finished run and all that it needs, with checksums, which makes the same events elsewhere."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nisampler.base.outputs import new_file
from nisampler.base.storage import atomic_write, encode_json, naming, sealed, sha256
from nisampler.base.versions import versions
from nisampler.errors import CorruptFileError
from nisampler.run.directory import PACK, PACK_FORMAT, PACK_VERSION, RunDirectory, pack_environment, read_pack
from nisampler.run.packing.contents import contents_of

_RUN = "run"
_PARTS = ("card.toml", "run.json", "seconds.json", "sampler", "integration", "two_stage")
_SCRIPTS = ("run.sh", "runcmsgrid.sh")
_MEND = "fetch or make the pack again"
_SCRIPT = """#!/bin/sh
# {name} EVENTS SEED [WORKERS]: makes {result} in the current folder; this folder is only read.
set -e
here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d "$PWD/events.XXXXXX")
"${{NISAMPLER:-nisampler}}" generate "$here" --events "$1" --seed "$2" --workers "${{3:-1}}"{options} --output "$place"
mv "$place/{made}" {result}
mv "$place/generated.json" {result}.json
rm -r "$place"
"""


def pack(run: RunDirectory, output: Path, with_pdf: bool = True) -> dict[str, Any]:
    """Write a finished run, and what it needs elsewhere, to one file.

    Parameters
    ----------
    run
        With frozen sampler and integral.
    output
        A new file.
    with_pdf
        Whether grids of parton densities are taken, or only their names.

    Returns
    -------
    dict
        The manifest: ``files`` with their checksums, ``process``, ``parameters``, ``pdf``, ``outside``, ``versions``.

    Raises
    ------
    StorageError
        If the run is not finished, the file is there already or cannot be written.
    NisamplerError
        As the generation of a few events does.

    Examples
    --------
    >>> pack(RunDirectory.read("nowhere"), Path("all.nispack"))
    Traceback (most recent call last):
    nisampler.errors.StorageError: nowhere is not a run directory: ...
    """
    new_file(output)
    run.require_integral()
    contents = contents_of(run, with_pdf)
    files: dict[str, Path | bytes] = {
        f"{_RUN}/{path.relative_to(run.path)}": path for part in _PARTS for path in _below(run.path / part)
    }
    files |= contents.files
    files |= {name: _script(name, contents.has_events) for name in _SCRIPTS}
    manifest = {
        "format": PACK_FORMAT,
        "version": PACK_VERSION,
        "process": contents.process,
        "parameters": contents.parameters,
        "pdf": contents.pdf,
        "outside": contents.outside,
        "versions": versions(),
        "files": {name: _checksum(content) for name, content in sorted(files.items())},
    }
    with atomic_write(output) as handle, tarfile.open(fileobj=handle, mode="w") as archive:
        _add(archive, PACK, encode_json(sealed(manifest, output), output))
        for name, content in sorted(files.items()):
            _add(archive, name, content if isinstance(content, bytes) else content.read_bytes())
    return manifest


@contextmanager
def opened(path: str | Path, beside: Path | None = None) -> Iterator[RunDirectory]:
    """A run directory, a pack, or the folder of an unpacked pack, to be read; a pack is unpacked for that time.

    Parameters
    ----------
    path
        Where it is.
    beside
        Folder in which a pack is unpacked; that of temporary files by default.

    Raises
    ------
    StorageError
        If there is none, or another release made it.
    CorruptFileError
        If a file of the pack is missing or was altered; it is named.

    Examples
    --------
    >>> with opened("nowhere") as run:
    ...     run.path
    Traceback (most recent call last):
    nisampler.errors.StorageError: nowhere is not a run directory: `nisampler run CARD --output DIR` makes one
    """
    target = Path(path)
    if (target / PACK).is_file():
        with pack_environment(run := _checked(target) / _RUN):
            yield RunDirectory.read(run)
    elif target.is_file():
        with tempfile.TemporaryDirectory(prefix="nispack-", dir=beside) as folder:
            with pack_environment(run := _checked(_unpack(target, Path(folder))) / _RUN):
                yield RunDirectory.read(run)
    else:
        yield RunDirectory.read(target)


def _unpack(path: Path, folder: Path) -> Path:
    """Unpack to a folder; links, devices and places outside it are refused."""
    with naming(path, "read"):
        try:
            with tarfile.open(path, mode="r:") as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise CorruptFileError(f"{path} is not a pack, or was truncated ({error}): {_MEND}") from error
    if not (folder / PACK).is_file():
        raise CorruptFileError(f"{path} is not a pack, it has no {PACK}: `nisampler pack RUN -o FILE` makes one")
    return folder


def _checked(root: Path) -> Path:
    """The folder of a pack whose files are those of its manifest."""
    for name, checksum in read_pack(root)["files"].items():
        path = root / name
        if not path.is_file():
            raise CorruptFileError(f"the pack lacks {name}: {_MEND}")
        if sha256(path) != checksum:
            raise CorruptFileError(f"{name} in the pack was altered: {_MEND}")
    return root


def _below(path: Path) -> list[Path]:
    """The files of a folder, or the file itself; nothing if there is none."""
    found = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    return [item for item in found if not item.name.startswith(".")]


def _script(name: str, lhe: bool) -> bytes:
    made, result, options = ("events.lhe", "cmsgrid_final.lhe", " --format lhe") if lhe else ("events.h5",) * 2 + ("",)
    return _SCRIPT.format(name=name, made=made, result=result, options=options).encode()


def _checksum(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256(content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """An entry without owner and time, so that equal runs give equal packs."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755 if name in _SCRIPTS else 0o644
    archive.addfile(entry, io.BytesIO(content))
