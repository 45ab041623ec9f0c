"""Processes by name, the built-in ones and a user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nisampler.errors import ConfigError, ProcessError, UnknownProcessError
from nisampler.processes.base import CallableProcess, FunctionProcess, Process
from nisampler.processes.functions import functions
from nisampler.processes.hadron.lhc import (
    create_drell_yan,
    create_ttbar,
    create_ttbar_jet,
    create_w_minus_jets,
    create_w_plus_jets,
    create_z_jets,
    create_z_prime,
)
from nisampler.processes.lepton.ee_to_3jets import create_ee_to_3jets

Factory = Callable[..., Process]

_FACTORIES: dict[str, tuple[Factory, str]] = {}


def register(name: str, factory: Factory, description: str) -> None:
    """Make `create(name, **parameters)` call `factory(**parameters)`.

    Raises
    ------
    ProcessError
        If the name is empty, holds a colon or is taken.

    Examples
    --------
    >>> from nisampler.processes.functions.functions import gauss
    >>> register("narrow_gauss", lambda: FunctionProcess(gauss(2, sigma=0.01)), "a narrow Gaussian")
    >>> create("narrow_gauss").dim
    2
    >>> del _FACTORIES["narrow_gauss"]
    """
    if not name or ":" in name:
        raise ProcessError(f"a process name is not empty and has no colon, got {name!r}")
    if name in _FACTORIES or functions.is_test_function(name):
        raise ProcessError(f"a process named {name!r} is registered already")
    _FACTORIES[name] = (factory, description)


def available() -> dict[str, str]:
    """The names that `create` knows, each with a one-line description.

    >>> available()["ttbar"]
    'p p -> t tbar, stable tops, in pb'
    """
    return {name: text for name, (_, text) in _FACTORIES.items()} | functions.names()


def create(name: str, **parameters: Any) -> Process:
    """Build a process by its name.

    Parameters
    ----------
    name
        A registered name ("ee_to_3jets"), a test function ("camel4", or "camel" with dim=4), or "module:object" /
        "file.py:object" for a user's own process: a class or function that builds one from `parameters`, or a ready
        callable with an attribute `dim`.
    parameters
        Passed to whatever builds the process.

    Raises
    ------
    UnknownProcessError
        If there is nothing of that name; the message lists the known ones.
    ConfigError
        If a parameter is unknown or of the wrong type; the message names it.
    ProcessError
        If a value is outside its range.

    Examples
    --------
    >>> create("camel", dim=3).name
    'camel3'
    >>> create("ee_to_3jets", y_cut=0.5)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: y_cut = 0.5: must be a number, more than 0 and less than 0.333333
    """
    if ":" in name:
        return _own_process(name, parameters)
    if name in _FACTORIES:
        factory = _FACTORIES[name][0]
        _check_parameters(name, factory, parameters)
        return factory(**parameters)
    if functions.is_test_function(name):
        return FunctionProcess(functions.test_function(name, **parameters))
    known = ", ".join(sorted(available()))
    raise UnknownProcessError(f"no process {name!r}; known: {known}; or module:object for one of your own")


def _own_process(name: str, parameters: dict[str, Any]) -> Process:
    place, _, attribute = name.rpartition(":")
    module = _import(place, name)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise UnknownProcessError(f"{place!r} has no object {attribute!r}")
        target = getattr(target, part)
    if _is_ready(target):
        if parameters:
            raise ConfigError(f"{name} is a ready callable and takes no parameters, got {sorted(parameters)}")
        return _adopt(target, name)
    if not callable(target):
        raise ConfigError(f"{name} is not callable: it must be a process, or build one")
    _check_parameters(name, target, parameters)
    return _adopt(target(**parameters), name)


def _is_ready(target: Any) -> bool:
    return not isinstance(target, type) and callable(target) and hasattr(target, "dim")


def _adopt(target: Any, name: str) -> Process:
    if isinstance(target, Process):
        return target
    if isinstance(target, functions.TestFunction):
        return FunctionProcess(target)
    return CallableProcess(target, name)


def _check_parameters(name: str, factory: Callable[..., Any], parameters: dict[str, Any]) -> None:
    """Compare with the signature, so that no TypeError from inside the factory passes for a wrong name."""
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return
    try:
        signature.bind(**parameters)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigError(f"parameters of {name}: {error}; it takes {known}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _import(place: str, name: str) -> ModuleType:
    """Import a module or a file, with the working directory or the file's own on the path."""
    if place.endswith(".py") and not Path(place).is_file():
        raise UnknownProcessError(f"no file {place!r} to take the process {name!r} from")
    try:
        if place.endswith(".py"):
            return _import_file(Path(place))
        with _importable(Path.cwd()):
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if place == missing or place.startswith(missing + "."):
            raise UnknownProcessError(f"cannot import {place!r} for the process {name!r}") from error
        raise ProcessError(f"{place!r} needs the module {missing!r}, which is not installed") from error
    except Exception as error:
        raise ProcessError(f"importing {place!r} failed with {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"nisampler_user_process_{digest}", path)
    if spec is None or spec.loader is None:
        raise UnknownProcessError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _importable(path.parent):
        spec.loader.exec_module(module)
    return module


register("ee_to_3jets", create_ee_to_3jets, "e- e+ -> q qbar g at leading order, photon and Z, Durham cut, in pb")
register("z_prime", create_z_prime, "p p -> e+ e- through photon, Z and a narrow Z', m_ll 50-1000 GeV, in pb")
register("drell_yan", create_drell_yan, "p p -> e+ e- through photon and Z, m_ll > 50 GeV, in pb")
register("w_plus_jets", create_w_plus_jets, "p p -> W+ (e+ nu_e) + n_jets = 0 to 3 jets, in pb")
register("w_minus_jets", create_w_minus_jets, "p p -> W- (e- nubar_e) + n_jets = 0 to 3 jets, in pb")
register("z_jets", create_z_jets, "p p -> photon, Z (e+ e-) + n_jets = 0 to 3 jets, in pb")
register("ttbar", create_ttbar, "p p -> t tbar, stable tops, in pb")
register("ttbar_jet", create_ttbar_jet, "p p -> t tbar jet, stable tops, in pb")
