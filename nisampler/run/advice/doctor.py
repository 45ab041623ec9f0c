"""Whether an installation is complete: packages, extras, compiled kernels, the machine, caches, parton densities."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nisampler._version import __version__
from nisampler.base.extras import EXTRAS, NAME, install, installed
from nisampler.base.findings import KERNELS, Finding, State, kernel

# Modules whose names are not those of their distributions; mpich has none.
_MODULES = {"scikit-learn": "sklearn", "mpich": ""}
_PYTHON = (3, 11)
_UNITS = ("B", "kB", "MB", "GB")


def examined() -> list[Finding]:
    """Everything that is looked at; what fails while it is looked at is a finding, too.

    >>> {found.part for found in examined()} >= {"packages", "extras", "kernels", "machine", "caches"}
    True
    """
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": _packages,
        "extras": _extras,
        KERNELS: _kernels,
        "processes": _processes,
        "machine": _machine,
        "caches": _caches,
    }
    return [found for part, look in parts.items() for found in _guarded(part, look)]


def is_healthy(findings: list[Finding]) -> bool:
    """Whether all that is required works.

    >>> is_healthy([Finding("extras", "[lhe]", "missing")]), is_healthy([Finding("packages", "torch", "broken")])
    (True, False)
    """
    return all(found.state != "broken" for found in findings)


def as_data(findings: list[Finding]) -> dict[str, Any]:
    """The findings as JSON data.

    >>> as_data([])
    {'healthy': True, 'findings': []}
    """
    return {"healthy": is_healthy(findings), "findings": [asdict(found) for found in findings]}


def rows(findings: list[Finding]) -> Iterator[list[str]]:
    """The findings as a table, a heading for each part, what mends something below it.

    >>> for row in rows([Finding("extras", "[lhe]", "missing", "reads LHE files", "pip install pylhe")]):
    ...     row
    ['extras', '', '']
    ['  missing', '[lhe]', 'reads LHE files']
    ['', '', '-> pip install pylhe']
    """
    part = ""
    for found in findings:
        if found.part != part:
            yield [found.part, "", ""]
        part = found.part
        yield [f"  {'' if found.state == 'note' else found.state}", found.name, found.text]
        if found.mend:
            yield ["", "", f"-> {found.mend}"]


def _guarded(part: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:  # whatever is wrong here is what a doctor is asked for
        yield Finding(part, "looking at it", "broken", f"{type(error).__name__}: {error}")


def _packages() -> Iterator[Finding]:
    state: State = "good" if sys.version_info >= _PYTHON else "broken"
    yield Finding("packages", "python", state, f"{platform.python_version()} at {sys.executable}")
    where = Path(__file__).parents[2]
    if installed() is None:
        text = f"{__version__} in {where} is on the path, and not installed: no process has a name"
        yield Finding("packages", NAME, "broken", text, install())
    else:
        yield Finding("packages", NAME, "good", f"{__version__} in {where}")
    for requirement in _requirements():
        yield _package(requirement)


def _package(requirement: Requirement) -> Finding:
    """A package that has to be there, imported."""
    name = requirement.name
    mend = f"pip install '{requirement}'"
    try:
        importlib.import_module(_module(name))
        text = version(name)
    except Exception as error:  # libraries that do not fit raise anything
        return Finding("packages", name, "broken", f"{type(error).__name__}: {error}", mend)
    if not requirement.specifier.contains(text, prereleases=True):
        return Finding("packages", name, "broken", f"{text} is none of {requirement.specifier}", mend)
    return Finding("packages", name, "good", text)


def _extras() -> Iterator[Finding]:
    for extra, purpose in EXTRAS.items():
        there, missing, wrong = [], [], []
        for requirement in _requirements(extra):
            found = _version(requirement.name)
            if found is None:
                missing.append(requirement.name)
            elif not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{requirement.name} {found} is none of {requirement.specifier}")
            else:
                there.append(f"{requirement.name} {found}")
        texts = [purpose, *(f"missing: {', '.join(missing)}" for _ in missing[:1]), *wrong]
        if missing or wrong:
            state: State = "failing" if wrong else "missing"
            yield Finding("extras", f"[{extra}]", state, "; ".join(texts), install(extra))
        else:
            yield Finding("extras", f"[{extra}]", "good", f"{purpose} ({', '.join(there)})")


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """What is required here, or by an extra, those that it names included."""
    for line in (requires(NAME) or ()) if installed() is not None else ():
        requirement = Requirement(line)
        asked = requirement.marker
        if extra and (asked is None or asked.evaluate({"extra": ""})):
            continue
        if asked is not None and not asked.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == NAME:
            for inner in sorted(requirement.extras):
                yield from _requirements(inner)
        else:
            yield requirement


def _module(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


def _version(name: str) -> str | None:
    """The version of an installed package, None where it, or its module, is not there."""
    module = _module(name)
    try:
        if module and importlib.util.find_spec(module) is None:
            return None
        return version(name)
    except (ImportError, PackageNotFoundError, ValueError):
        return None


def _kernels() -> Iterator[Finding]:
    import torch

    from nisampler.base.kernels import tried
    from nisampler.flows.splines.fused_spline import fused

    yield kernel("flows", lambda: fused(torch.zeros(1)) and fused(torch.zeros(1, dtype=torch.float64)))
    yield kernel("event files, density trees", lambda: tried(_compiled, "plain Python runs"), "numba")


def _compiled() -> bool:
    """Whether numba makes code that works."""
    from nisampler.base.kernels import kept

    return bool(kept(_next)(1) == 2)


def _next(number: int) -> int:
    return number + 1


def _machine() -> Iterator[Finding]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    omp = os.environ.get("OMP_NUM_THREADS", "not set")
    text = (
        f"{os.cpu_count()} cores, {usable} of them for this process; OMP_NUM_THREADS {omp}; threads of a run: its card"
    )
    yield Finding("machine", platform.machine(), "note", text)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            text = f"{about.name}, {_size(about.total_memory)}, CUDA {torch.version.cuda}"
            yield Finding("machine", f"cuda:{number}", "good", text)
        if importlib.util.find_spec("triton") is None:
            yield Finding(KERNELS, "flows on a GPU", "missing", "splines run in plain torch", "pip install triton")
    elif torch.version.cuda is not None:
        yield Finding("machine", "GPU", "note", f"none that torch (built for CUDA {torch.version.cuda}) can use")
    else:
        yield Finding("machine", "GPU", "note", "torch is built for the CPU alone")


def _caches() -> Iterator[Finding]:
    from nisampler.base.kept import VARIABLE, cache_folder

    try:
        folder = cache_folder("kept", own=True).parent
    except RuntimeError:
        yield Finding("caches", NAME, "note", f"no home folder: nothing is kept; ${VARIABLE} names a place")
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    above = next(path for path in (folder, *folder.parents) if path.exists())
    chosen = f" (${VARIABLE})" if os.environ.get(VARIABLE) else ""
    text = f"{_size(size)} in {folder}{chosen}"
    if os.access(above, os.W_OK):
        yield Finding("caches", NAME, "good", text)
    else:
        mend = f"set {VARIABLE} to a folder that can be written"
        yield Finding("caches", NAME, "failing", f"{text}, which cannot be written: kernels are made anew", mend)
    place = os.environ.get("NUMBA_CACHE_DIR", "beside the source, or in the user's cache where that cannot be written")
    yield Finding("caches", "numba", "note", place)


def _processes() -> Iterator[Finding]:
    from nisampler.run.lookup import findings

    yield from findings()


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.3g} {unit}"
