"""What a run needs besides its folder: the user's file, what that imports and reads, amplitudes, parton densities."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nisampler.base.device import point_threads
from nisampler.base.kept import SUFFIX, cache_folder
from nisampler.errors import StorageError
from nisampler.run import lookup
from nisampler.run.directory import CACHE, PDF, RunDirectory
from nisampler.run.generation.generate import generator_of
from nisampler.run.job import Job
from nisampler.ui.monitor import SILENT

SOURCES, FILES = "sources", "files"
_GRID = re.compile(r"(.+?)(_\d{4}\.dat|\.info)")
# Where installed things and the system's own are, which no pack holds.
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/bin", "/run", "/var")
_EVENTS = 3


@dataclass
class Contents:
    """What goes into a pack.

    Attributes
    ----------
    files
        Where they lie, by their place in the pack.
    process
        Of one's own file: its name in the pack; None for a registered process or an installed package.
    parameters
        Parameters of the card that are files or folders: their place in the pack.
    pdf
        Names of the sets of parton densities that were read.
    outside
        Files that were read and are not taken, since nothing says where they would have to lie.
    has_events
        Whether the process has an event record.

    Examples
    --------
    >>> Contents().process is None
    True
    """

    files: dict[str, Path] = field(default_factory=dict)
    process: str | None = None
    parameters: dict[str, str | list[str]] = field(default_factory=dict)
    pdf: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    has_events: bool = False


def contents_of(run: RunDirectory, with_pdf: bool = True) -> Contents:
    """What a finished run needs; it makes some events to find out.

    Parameters
    ----------
    run
        The run.
    with_pdf
        Whether grids of parton densities that were found by name are taken, too.

    Raises
    ------
    StorageError
        If a file that the process names is not there.
    NisamplerError
        As the generation of events does.

    Examples
    --------
    >>> contents_of(RunDirectory.read("nowhere"))
    Traceback (most recent call last):
    nisampler.errors.StorageError: nowhere is not a run directory: ...
    """
    with _opened() as opened, tempfile.TemporaryDirectory() as folder, point_threads(run.settings["threads"]):
        generator, job, _ = generator_of(run, run.card.seed)
        job.process.prepare_events()
        generator.fill(Path(folder), [(0, _EVENTS)], SILENT)
    read = {path for path in (Path(name).resolve() for name in opened) if path.is_file()}
    read = {
        path for path in read if not path.is_relative_to(run.path.resolve()) and path.suffix not in (".pyc", SUFFIX)
    }
    found = Contents(has_events=job.process.has_events)
    _take_sources(run, job, read, found)
    _take_parameters(run, read, found)
    _take_amplitudes(read, found)
    _take_grids(read, found, with_pdf, varied=bool(run.card.events.variations.pdfs))
    taken = {path.resolve() for path in found.files.values()}
    found.outside = sorted(str(path) for path in read - taken if not (_is_system(path) or _GRID.fullmatch(path.name)))
    return found


_LISTENING: list[set[str]] = []
_hooked = False


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _LISTENING and isinstance(arguments[0], str | bytes):
        _LISTENING[-1].add(os.fsdecode(arguments[0]))


@contextmanager
def _opened() -> Iterator[set[str]]:
    """Names of the files that are opened meanwhile, for reading or writing."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_listen)
        _hooked = True
    names: set[str] = set()
    _LISTENING.append(names)
    try:
        yield names
    finally:
        _LISTENING.remove(names)


def _is_system(path: Path) -> bool:
    """Whether a file belongs to the system, to Python or to an installed package, or is temporary."""
    installed = [*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), *site.getsitepackages()]
    places = [*_SYSTEM, sys.prefix, sys.base_prefix, tempfile.gettempdir(), *installed, str(Path(__file__).parents[2])]
    return any(path.is_relative_to(Path(place).resolve()) for place in places) or "__pycache__" in path.parts


def _take_sources(run: RunDirectory, job: Job, read: Iterable[Path], found: Contents) -> None:
    """The user's file and what lies in its folder and was imported, loaded, read or named by the process."""
    name = run.settings["process"]
    source = lookup.source(name)
    if source is None or not Path(source).is_file() or _is_installed(Path(source)):
        return
    file = Path(source).resolve()
    root = file.parent
    imported = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    loaded = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line)
    paths = {Path(place).resolve() for place in (*imported, *loaded) if place} | set(read) | {file}
    for path in sorted(paths):
        if path.is_relative_to(root) and path.is_file() and not _is_installed(path):
            found.files[f"{SOURCES}/{path.relative_to(root)}"] = path
    for given in getattr(getattr(job.process, "function", job.process), "files", ()):
        path = (root / given).resolve()
        if not (path.is_file() and path.is_relative_to(root)):
            raise StorageError(f"{name} names the file {given}, which is not in {root} or below")
        found.files[f"{SOURCES}/{path.relative_to(root)}"] = path
    found.process = lookup.renamed(name, f"{SOURCES}/{file.name}")


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts or "dist-packages" in path.parts or "__pycache__" in path.parts


def _take_parameters(run: RunDirectory, read: Iterable[Path], found: Contents) -> None:
    """Files and folders that parameters of the card name, with those of the same set beside a grid."""
    for name, value in run.card.parameters.items():
        if any(map(lookup.code_of, value if isinstance(value, list) else [value])):
            _take_code(name, value, found)
            continue
        path = Path(value).resolve() if isinstance(value, str) and value else None
        if path is None or not path.exists():
            continue
        folder = path.parent
        below = {item for item in read if item.is_relative_to(path)}
        # The name of a set or a scale may be that of a folder that happens to lie there.
        if not (below or os.sep in value or Path(value).suffix):
            continue
        if path.is_dir():
            wanted = below or {item for item in path.rglob("*") if item.is_file()}
        else:
            wanted = {item for item in read if item.parent == folder and _GRID.fullmatch(path.name)} | {path}
        for item in wanted:
            found.files[f"{FILES}/{name}/{item.relative_to(folder)}"] = item
        found.parameters[name] = f"{FILES}/{name}/{path.name}"


def _take_code(name: str, value: str | list[str], found: Contents) -> None:
    """The files of functions or libraries that a parameter, or an item of it, names."""
    items = [value] if isinstance(value, str) else value
    moved: list[str] = []
    for number, item in enumerate(items):
        file = lookup.code_of(item)
        if file is None:
            moved.append(item)
            continue
        place = f"{FILES}/{name}/{number}/{Path(file).name}"
        found.files[place] = Path(file).resolve()
        moved.append(lookup.renamed(item, place))
    found.parameters[name] = moved[0] if isinstance(value, str) else moved


def _take_amplitudes(read: Iterable[Path], found: Contents) -> None:
    """The folders of generated amplitudes of which anything was read."""
    cache = cache_folder("").resolve()
    keys = {path.relative_to(cache).parts[:2] for path in read if path.is_relative_to(cache)}
    for key in sorted(key for key in keys if len(key) == 2 and cache.joinpath(*key).is_dir()):
        for path in sorted(cache.joinpath(*key).rglob("*")):
            if path.is_file():
                found.files[f"{CACHE}/{path.relative_to(cache)}"] = path


def _take_grids(read: Iterable[Path], found: Contents, with_pdf: bool, varied: bool) -> None:
    """Grids of parton densities: those that no parameter names, and all where variations may name them, too."""
    taken = set() if varied else {path.resolve() for path in found.files.values()}
    for path in sorted(set(read) - taken):
        match = _GRID.fullmatch(path.name)
        if match is None:
            continue
        if match[1] not in found.pdf:
            found.pdf.append(match[1])
        if with_pdf:
            found.files[f"{PDF}/{match[1]}/{path.name}"] = path
