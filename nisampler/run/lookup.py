"""Find processes through the entry-point group `nisampler.processes`, so that the core imports none of them."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.described import Setting
from nisampler.base.findings import Finding
from nisampler.base.storage import sha256
from nisampler.errors import ProcessError, UnknownProcessError
from nisampler.events import EventBatch, Observable
from nisampler.events.weights import WeightGroup
from nisampler.ui.monitor import Monitor

GROUP = "nisampler.processes"
LIBRARY = "umami:"
"""What stands in front of the file of a shared library with matrix elements, UMAMI being its interface."""


class Beams(Protocol):
    """The two beams, the one along +z first.

    >>> beams = create("ee_to_3jets").beams
    >>> beams.pdg_ids, beams.energies
    ((11, -11), (45.5938, 45.5938))
    """

    @property
    def pdg_ids(self) -> tuple[int, int]:
        """Particle codes."""
        ...

    @property
    def energies(self) -> tuple[float, float]:
        """In GeV."""
        ...


class Variations(Protocol):
    """Weights of events at other scales and with other parton densities.

    >>> def names(found: Variations) -> list[str]:
    ...     return [weight.id for group in found.groups for weight in group.weights]
    """

    @property
    def groups(self) -> tuple[WeightGroup, ...]:
        """What the weights are, in the order of their columns."""
        ...

    def weights(self, batch: EventBatch, start: int = 0) -> NDArray[np.float64]:
        """The weights (n, k) of events; `start` events came before."""
        ...


class RunProcess(Protocol):
    """What a run needs of a process; `nisampler.processes.base.Process` has it all.

    >>> peaks = create("camel4")
    >>> peaks.dim, peaks.has_events, tuple(peaks(torch.rand(5, 4, dtype=torch.float64)).shape)
    (4, False, (5,))
    """

    name: str
    dim: int
    unit: str
    has_events: bool

    @property
    def beams(self) -> Beams | None:
        """The beams, None without an event record."""
        ...

    @property
    def observables(self) -> Sequence[Observable]:
        """What the report draws."""
        ...

    @property
    def parameters(self) -> Any:
        """What it was built from, None where that is not known."""
        ...

    @property
    def header(self) -> Mapping[str, str]:
        """What a file of its events tells besides: texts by name."""
        ...

    @property
    def event_groups(self) -> Mapping[int, str]:
        """Codes of groups of sub-processes in its events, and their names; none if all events have the code 1."""
        ...

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) at the cube points u (n, dim)."""
        ...

    def prepare_events(self) -> None:
        """What `events` will need, beforehand."""
        ...

    def events(self, u: Tensor, weights: Tensor, generator: torch.Generator) -> EventBatch:
        """Events at the cube points u (n, dim) with weights (n,)."""
        ...


def _load(name: str) -> Callable[..., Any]:
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise ProcessError(
            f"no installed package offers the entry point {name!r} of the group {GROUP!r}: install nisampler "
            "with pip, a source folder on the path is not enough"
        )
    return cast(Callable[..., Any], found[0].load())


def available() -> dict[str, str]:
    """The names of all processes, each with a line of description.

    Raises
    ------
    ProcessError
        If no registry is installed.

    Examples
    --------
    >>> "camel" in available()
    True
    """
    return dict(_load("available")())


def parameters_of(name: str) -> tuple[Setting, ...]:
    """The parameters of a process, none where its registry does not describe them; code of one's own is run.

    Raises
    ------
    UnknownProcessError
        If there is none of that name; the nearest one is suggested.
    ProcessError
        If the string of a process cannot be read, or code of one's own fails.

    Examples
    --------
    >>> [found.name for found in parameters_of("camel4")]
    ['sigma']
    """
    describe = getattr(_registry(), "parameters", None)
    with _suggesting(name):
        return cast(tuple[Setting, ...], describe(name)) if describe is not None else ()


def findings() -> list[Finding]:
    """What processes need of the machine and how that is, nothing where their registry does not look.

    >>> {found.part for found in findings()}
    {...'parton densities'...}
    """
    look = getattr(_registry(), "findings", None)
    return list(look()) if look is not None else []


def _registry() -> ModuleType:
    """The module of the entry point `create`; beside it may stand ``parameters(name)`` and ``findings()``."""
    return sys.modules[_load("create").__module__]


@contextmanager
def _suggesting(name: str) -> Iterator[None]:
    """Add the nearest known name to the message about an unknown one."""
    try:
        yield
    except UnknownProcessError as error:
        near = difflib.get_close_matches(name, available(), n=1) if ":" not in name else []
        if near:
            raise UnknownProcessError(f"{error}. Did you mean {near[0]!r}?") from error
        raise


def create(name: str, parameters: Mapping[str, Any] | None = None) -> RunProcess:
    """The process `name`, or ``module:object`` / ``file.py:object`` for a callable of one's own.

    Raises
    ------
    UnknownProcessError
        If there is none of that name; the nearest one is suggested.
    ProcessError, ConfigError
        If a parameter is unknown or out of range.

    Examples
    --------
    >>> create("camel", {"dim": 3}).dim
    3
    >>> create("camle")
    Traceback (most recent call last):
    nisampler.errors.UnknownProcessError: ...Did you mean 'camel'?
    """
    with _suggesting(name):
        return cast(RunProcess, _load("create")(name, **dict(parameters or {})))


def variations(
    header: Mapping[str, str],
    scales: str | Sequence[tuple[float, float]] | None,
    pdfs: Sequence[str],
    alpha_s: bool,
) -> Variations:
    """What makes weights of other scales and parton densities for events whose file has this header.

    Raises
    ------
    ConfigError
        If the header does not tell how the events were made, or a scale or a set is none.
    PdfError, MissingExtraError
        If a set or a member is missing.

    Examples
    --------
    >>> variations({}, "7-point", (), True)
    Traceback (most recent call last):
    nisampler.errors.ConfigError: the header of the events does not tell pdf, alpha_s, alpha_s_power: ...
    """
    return cast(Variations, _load("variations")(header, scales, pdfs, alpha_s))


def process(name: str, /, **parameters: Any) -> RunProcess:
    """Build a registered process, or a callable of one's own given as ``module:object`` or ``file.py:object``.

    Parameters
    ----------
    name
        One of `nisampler.processes()`.
    parameters
        Of the process.

    Returns
    -------
    RunProcess
        A function of the unit cube, for `nisampler.integrate`.

    Raises
    ------
    UnknownProcessError
        If there is none of that name; the nearest one is suggested.
    ProcessError, ConfigError
        If a parameter is unknown or out of range.

    Examples
    --------
    >>> import nisampler
    >>> nisampler.process("camel", dim=2).dim
    2
    """
    return create(name, parameters)


def absolute(name: str) -> str:
    """`name` with the path of a ``file.py:object`` made absolute, so that it works from any folder.

    >>> absolute("camel4")
    'camel4'
    >>> absolute("mine.py:density") == f"{Path('mine.py').resolve()}:density"
    True
    """
    library, string = _library(name)
    if library:
        return f"{LIBRARY}{Path(library).resolve()} {string}"
    place, colon, attribute = name.rpartition(":")
    if colon and place.endswith(".py"):
        return f"{Path(place).resolve()}:{attribute}"
    return name


def below(folder: Path, name: str) -> str:
    """The full name of what `name` is, its file counted from a folder.

    >>> below(Path("/packs"), "sources/mine.py:density"), below(Path("/packs"), "umami:sources/dy.so p p > e- e+")
    ('/packs/sources/mine.py:density', 'umami:/packs/sources/dy.so p p > e- e+')
    """
    library = name.startswith(LIBRARY)
    return f"{LIBRARY if library else ''}{folder / name.removeprefix(LIBRARY)}"


def renamed(name: str, file: str) -> str:
    """The name of the same object or process string of another file.

    >>> renamed("mine.py:density", "sources/mine.py"), renamed("umami:dy.so p p > e- e+", "sources/dy.so")
    ('sources/mine.py:density', 'umami:sources/dy.so p p > e- e+')
    """
    if name.startswith(LIBRARY):
        return f"{LIBRARY}{file} {_library(name)[1]}".rstrip()
    return f"{file}:{name.rpartition(':')[2]}"


def _library(name: str) -> tuple[str, str]:
    """The file of the shared library in front of a process string, and the string; both empty where there is none."""
    if not name.startswith(LIBRARY):
        return "", ""
    before, arrow, after = name.removeprefix(LIBRARY).partition(">")
    library, *beams = before.rsplit(maxsplit=2)
    return (library, f"{' '.join(beams)} {arrow}{after}") if len(beams) == 2 else ("", "")


def same_process(card: str, full: str) -> bool:
    """Whether the process of a card can be the one of this full name, which `absolute` made of it elsewhere.

    >>> same_process("mine.py:density", "/home/me/mine.py:density"), same_process("camel4", "mine:density")
    (True, False)
    """
    (library, string), (other, same) = _library(card), _library(full)
    if library:
        return string == same and Path(library).name == Path(other).name
    place, colon, attribute = card.rpartition(":")
    if not (colon and place.endswith(".py")):
        return card == full
    found, _, name = full.rpartition(":")
    return name == attribute and Path(found).name == Path(place).name


def source(name: str) -> str | None:
    """The file of a ``file.py:object``, ``module:object`` or shared library, None for a process that is registered.

    >>> source("camel4") is None, source("mine.py:density"), source("umami:dy.so p p > e- e+")
    (True, 'mine.py', 'dy.so')
    """
    if name.startswith(LIBRARY):
        return _library(name)[0] or name.removeprefix(LIBRARY)
    place, colon, _ = name.rpartition(":")
    if not colon:
        return None
    return place if place.endswith(".py") else str(_module_file(place) or place)


def code_of(value: Any) -> str | None:
    """The file of a ``file.py:object`` or shared library that a parameter names, None where it names none.

    >>> code_of("mine.py:veto"), code_of("umami:dy.so"), code_of("pt(e+) > 20"), code_of(3)
    ('mine.py', 'dy.so', None, None)
    """
    if not isinstance(value, str):
        return None
    return source(value) if value.startswith(LIBRARY) or value.rpartition(":")[0].endswith(".py") else None


def sources(name: str, parameters: Mapping[str, Any]) -> list[str]:
    """The files with code of a process and of its parameters, each once.

    >>> sources("mine.py:density", {"cuts": ["pt(e+) > 20", "cuts.py:veto"], "scale": "mine.py:mu"})
    ['mine.py', 'cuts.py']
    """
    values = itertools.chain.from_iterable(v if isinstance(v, list | tuple) else [v] for v in parameters.values())
    found = [source(name), *map(code_of, values)]
    return list(dict.fromkeys(file for file in found if file))


def announce(name: str, parameters: Mapping[str, Any], monitor: Monitor) -> None:
    """Say that code of a user's own file or package is about to run, if it is.

    >>> from nisampler.ui.progress import PlainMonitor, make_console
    >>> announce("mine.py:density", {}, PlainMonitor(make_console()))
    runs code from mine.py
    """
    for file in sources(name, parameters):
        monitor.line(f"runs code from {file}")


def source_sha256(name: str, parameters: Mapping[str, Any] = MappingProxyType({})) -> str | None:
    """Checksum of the file that defines a process of one's own, None if there is no such file.

    Registered processes have None too: they are known by the version of their package. With parameters that name code,
    it is the checksum of those of all files.

    Raises
    ------
    StorageError
        If the file cannot be read.

    Examples
    --------
    >>> source_sha256("camel4") is None, len(source_sha256("nisampler.run.lookup:create"))
    (True, 64)
    """
    # In a pack a file may lie in several places.
    found = sorted({sha256(file) for file in sources(name, parameters) if Path(file).is_file()})
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest() if found else None


def _module_file(module: str) -> Path | None:
    """The file of a module that is installed or lies in the working directory."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
