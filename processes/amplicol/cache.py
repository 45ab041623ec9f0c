"""Generated matrix elements on disk: made once by pyamplicol, checked at every opening, complete or absent."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nisampler.base.extras import install
from nisampler.base.kept import cache_folder
from nisampler.base.storage import read_sealed, sha256, write_sealed
from nisampler.errors import AmplitudeError, CorruptFileError, MissingExtraError, NisamplerError, StorageError

ColourAccuracy = Literal["full", "lc"]
Progress = Callable[[str], None]

MANIFEST = "manifest.json"
ARTIFACT = "artifact"
_FORMAT = "nisampler-amplicol"
_VERSION = 1
_RESTRICTION = "no_b_mass"
_OPTIONS = ("--execution-mode", "compiled", "--no-jit-compress", "--no-emit-api-bundle")
_QUIET = ("--progress", "log", "--color", "never", "--no-symbolica-suggestion")
_PARTIAL = ".partial-"
_LOG_LINES = 12
# Its lines about a stage as a whole, `generation:jit 7/24: ...`; those about single processes come by the hundred.
_PROGRESS = re.compile(r"INFO pyamplicol\.progress: (generation(?::[\w-]+)? \d+/\d+): ")
_SYMBOLICA = re.compile(r"symbolica.*licen[sc]e|licen[sc]e.*symbolica|one instance|restricted mode", re.IGNORECASE)
_SYMBOLICA_HELP = (
    "pyamplicol generates with symbolica, which without a licence runs in one process of a user at a time: "
    "end the other process that has it imported (another generation, a notebook), or give a licence in the "
    "environment variable SYMBOLICA_LICENSE (free for hobbyists and students, see symbolica.io)"
)


def ignore_progress(text: str) -> None:
    """A progress hook that shows nothing.

    >>> ignore_progress("generation 3/7")
    """


def default_cache() -> Path:
    """``$NISAMPLER_CACHE/amplicol``, or ``~/.cache/nisampler/amplicol`` where that variable is not set.

    >>> default_cache().name
    'amplicol'
    """
    return cache_folder("amplicol")


@dataclass(frozen=True)
class Request:
    """What an artifact holds and what made it; equal requests share a folder of the cache.

    >>> request = Request(("u u~ > e- e+",), "full", pyamplicol="1.0", model_sha256="0" * 64)
    >>> request.key.rpartition("-")[0]
    'u_ux_to_e_e_-1-full'
    """

    processes: tuple[str, ...]
    colour: ColourAccuracy
    pyamplicol: str
    model_sha256: str
    restriction: str = _RESTRICTION
    options: tuple[str, ...] = _OPTIONS

    @property
    def key(self) -> str:
        """Name of its folder: the first process, made safe for a file name, and a checksum of the whole."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
        first = re.sub(r"[^a-z0-9]+", "_", self.processes[0].lower().replace("~", "x").replace(">", "to"))
        return f"{first}-{len(self.processes)}-{self.colour}-{digest}"


def _model_file() -> Path:
    """The Standard Model that pyamplicol ships; raises MissingExtraError without pyamplicol."""
    found = importlib.util.find_spec("pyamplicol")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f"matrix elements of general Standard Model processes need pyamplicol: {install('sm')}; those of"
            " of a pack are only evaluated, for which `pip install --no-deps pyamplicol` is enough"
        )
    return Path(found.submodule_search_locations[0]) / "assets" / "models" / "json" / "sm" / "sm.json"


def request_for(processes: tuple[str, ...], colour: ColourAccuracy) -> Request:
    """The request for `processes` made by the pyamplicol that is installed.

    Raises
    ------
    MissingExtraError
        If pyamplicol is not installed.

    Examples
    --------
    >>> from contextlib import suppress
    >>> with suppress(MissingExtraError, importlib.metadata.PackageNotFoundError):
    ...     assert request_for(("u u~ > e- e+",), "lc").colour == "lc"
    """
    model = sha256(_model_file())
    return Request(processes, colour, importlib.metadata.version("pyamplicol"), model)


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in (folder / ARTIFACT).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def _check(folder: Path, request: Request) -> None:
    """Raise StorageError or CorruptFileError if `folder` is not what `request` made."""
    manifest = read_sealed(folder / MANIFEST)
    expected = {"format": _FORMAT, "version": _VERSION, "request": json.loads(json.dumps(asdict(request)))}
    if {key: manifest.get(key) for key in expected} != expected:
        raise CorruptFileError(f"{folder / MANIFEST} describes another artifact")
    recorded = manifest.get("files")
    present = _files(folder)
    if recorded != present:
        names = set(present) | set(recorded if isinstance(recorded, dict) else ())
        wrong = sorted(n for n in names if not isinstance(recorded, dict) or recorded.get(n) != present.get(n))
        raise CorruptFileError(f"{folder} is damaged: {', '.join(wrong[:3])} missing, added or altered")


@contextmanager
def _generation_lock(cache: Path, on_progress: Progress) -> Iterator[None]:
    """Hold the lock of this cache's generations; the kernel releases it when a process ends, however it ends."""
    with (cache / "generate.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another generation of matrix elements to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def open_artifact(
    request: Request, cache: Path, check: Callable[[Path], None], on_progress: Progress = ignore_progress
) -> Path:
    """The artifact of `request`: from the cache, or generated now.

    Parameters
    ----------
    request
        The processes and how they are generated.
    cache
        Folder of all artifacts; made if missing.
    check
        Called with a fresh artifact before it enters the cache; an exception keeps it out.
    on_progress
        Receives one line of text now and then while generating.

    Raises
    ------
    AmplitudeError
        If the generation fails, or `cache` is that of a pack, into which nothing is generated; the message says what
        to do.
    StorageError
        If the cache cannot be written.

    Examples
    --------
    >>> request = Request(("u u~ > e- e+",), "full", pyamplicol="1.0", model_sha256="0" * 64)
    >>> open_artifact(request, Path("/dev/null"), check=print)
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: the cache /dev/null cannot be written: [Errno 17] File exists: '/dev/null'
    """
    folder = cache / request.key
    if not _usable(folder, request, on_progress):
        _refuse_in_pack(request, cache)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _generation_lock(cache, on_progress):
                if not _usable(folder, request, ignore_progress):
                    _make(request, folder, check, on_progress)
        except OSError as error:
            if isinstance(error, NisamplerError):
                raise
            raise StorageError(f"the cache {cache} cannot be written: {error}") from error
    return folder / ARTIFACT


def _usable(folder: Path, request: Request, on_progress: Progress) -> bool:
    if not folder.exists():
        return False
    try:
        _check(folder, request)
    except StorageError as error:
        on_progress(f"cached matrix elements are not used and made again: {error}")
        return False
    return True


def _refuse_in_pack(request: Request, cache: Path) -> None:
    """Raise AmplitudeError in a pack: it holds what its run needs, made by the pyamplicol that is to evaluate it."""
    if cache == cache_folder("amplicol", own=True) or cache != cache_folder("amplicol"):
        return
    requests = [read_sealed(path).get("request") for path in sorted(cache.glob(f"*/{MANIFEST}"))]
    made = sorted({str(found.get("pyamplicol")) for found in requests if isinstance(found, dict)})
    mend = f"pip install --no-deps pyamplicol=={made[0]}" if made else "make the pack again"
    raise AmplitudeError(
        f"the pack has matrix elements of pyamplicol {', '.join(made) or 'no version'}, and none of the installed "
        f"{request.pyamplicol} for {request.processes[0]}: {mend}"
    )


def _make(request: Request, folder: Path, check: Callable[[Path], None], on_progress: Progress) -> None:
    for stale in folder.parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = folder.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        _generate(request, partial / ARTIFACT, on_progress)
        check(partial / ARTIFACT)
        body = {"format": _FORMAT, "version": _VERSION, "request": asdict(request), "files": _files(partial)}
        write_sealed(partial / MANIFEST, body)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    on_progress(f"matrix elements stored in {folder}")


def child_environment(**values: str) -> dict[str, str]:
    """The environment of a Python child that finds the modules of this process, with further variables.

    Examples
    --------
    >>> child_environment(OMP_NUM_THREADS="1")["OMP_NUM_THREADS"]
    '1'
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)} | values


def _command(request: Request, output: Path) -> list[str]:
    command = [sys.executable, "-P", "-m", "pyamplicol", "generate", *_QUIET, *request.options]
    command += ["--model", str(_model_file()), "--restriction", request.restriction]
    command += ["--color-accuracy", request.colour, "--set", f"generation.output={output}"]
    for process in request.processes:
        command += ["--process", process]
    return command


def _generate(request: Request, output: Path, on_progress: Progress) -> None:
    on_progress(f"generating {len(request.processes)} matrix elements ({request.colour} colour), once for this cache")
    child = subprocess.Popen(  # noqa: S603
        _command(request, output),
        env=child_environment(SYMBOLICA_HIDE_BANNER="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: list[str] = []
    try:
        for line in child.stdout or ():
            lines.append(line.rstrip())
            _show_stage(lines, on_progress)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()
    if code or not output.exists():
        _explain(request, code, lines)


def _show_stage(lines: list[str], on_progress: Progress) -> None:
    """Report the stage that the last line names, unless the stage before was the same."""
    stage = _PROGRESS.match(lines[-1])
    if stage is None:
        return
    earlier = next(filter(None, map(_PROGRESS.match, reversed(lines[:-1]))), None)
    if earlier is None or earlier[1] != stage[1]:
        on_progress(stage[1])


def _explain(request: Request, code: int, lines: list[str]) -> None:
    told = "\n".join(line for line in lines[-_LOG_LINES:] if line)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    text = f"pyamplicol {how} while generating {', '.join(request.processes[:3])}"
    # symbolica aborts (SIGABRT) when it finds another process of the same user.
    if code == -6 or _SYMBOLICA.search(told):
        text += f". {_SYMBOLICA_HELP}"
    raise AmplitudeError(f"{text}. It said: {told or 'nothing'}")
