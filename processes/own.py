"""A user's own process, named in a card as ``file.py:object`` or ``module:object``.

A card is data from anywhere, so that it may name only what is meant to be a process: a class or function that the file
itself defines, a callable with `dim`, and of installed packages nothing but what declares a `dim`.
"""

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
from typing import Any, get_type_hints

from nisampler.base.blame import blaming
from nisampler.base.described import Setting, described
from nisampler.errors import ConfigError, ProcessError, UnknownProcessError
from nisampler.processes.base import CallableProcess, FunctionProcess, Process
from nisampler.processes.functions.functions import TestFunction

# Names of modules made of a user's file begin with it.
_PREFIX = "nisampler_user_process_"


def own_process(name: str, parameters: dict[str, Any]) -> Process:
    """The process that ``file.py:object`` or ``module:object`` is, or builds from `parameters`.

    Raises
    ------
    UnknownProcessError
        If there is no such file, module or object.
    ConfigError
        If a parameter is unknown or of the wrong type, or the object is no callable with `dim`.
    ProcessError
        If the object is not meant to be a process, or the user's code raises an error; file and line are named.

    Examples
    --------
    >>> own_process("nisampler.processes.functions.functions:camel", {"dim": 3}).dim
    3
    >>> own_process("subprocess:run", {"args": ["date"]})
    Traceback (most recent call last):
    ...
    nisampler.errors.ProcessError: subprocess:run is part of Python itself: a card names code of a file or of an ...
    """
    place, _, attribute = name.rpartition(":")
    shown = f"{Path(place).name}:{attribute}"
    module, target = _named(name)
    if not callable(target):
        raise ConfigError(f"{name} is not callable: it must be a process, or build one")
    if _is_ready(target):
        if parameters:
            raise ConfigError(f"{name} is a ready callable and takes no parameters, got {sorted(parameters)}")
        return _adopt(target, shown)
    _refuse_other(target, name, module)
    check_parameters(name, target, parameters)
    with blaming(f"{name} failed", ProcessError):
        made = target(**parameters)
    return _adopt(made, shown)


def own_parameters(name: str) -> tuple[Setting, ...]:
    """The parameters that ``file.py:object`` or ``module:object`` takes, none of a ready callable; runs its code.

    Raises
    ------
    UnknownProcessError, ProcessError
        As `own_process` does where the object cannot be found.

    Examples
    --------
    >>> [found.name for found in own_parameters("nisampler.processes.functions.functions:camel")]
    ['dim', 'sigma']
    """
    target = _named(name)[1]
    return () if _is_ready(target) else described(target)


def own_function(name: str) -> Callable[..., Any]:
    """The function ``file.py:function`` that a card names as a cut, a scale or an amplitude.

    Raises
    ------
    UnknownProcessError
        If it is not of that form, or there is no such file or function.
    ConfigError
        If it is no function or class.
    ProcessError
        If importing the file raises an error, or the function is defined elsewhere.

    Examples
    --------
    >>> own_function("os:getcwd")
    Traceback (most recent call last):
    ...
    nisampler.errors.UnknownProcessError: 'os:getcwd' names no function of a file: write file.py:function
    """
    if not name.rpartition(":")[0].endswith(".py"):
        raise UnknownProcessError(f"{name!r} names no function of a file: write file.py:function")
    module, target = _named(name)
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        raise ConfigError(f"{name} is no function")
    if target.__module__ != module.__name__:
        raise ProcessError(f"{name} is defined in {target.__module__}, not there: a card names code where it is")
    found: Callable[..., Any] = target
    return found


def resolved(function: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """The name of a function of one's own and the function, which is given itself or as ``file.py:function``.

    Raises
    ------
    UnknownProcessError, ConfigError, ProcessError
        As `own_function` does.

    Examples
    --------
    >>> resolved(len)[0]
    'len'
    """
    if isinstance(function, str):
        return function, own_function(function)
    return getattr(function, "__name__", type(function).__name__), function


def _named(name: str) -> tuple[ModuleType, Any]:
    """A module and the object in it that a name means."""
    place, _, attribute = name.rpartition(":")
    module = _import(place, name)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise UnknownProcessError(f"{place!r} has no object {attribute!r}")
        target = getattr(target, part)
    return module, target


def check_parameters(name: str, factory: Callable[..., Any], parameters: dict[str, Any]) -> None:
    """Compare with the signature, so that no TypeError from inside the factory passes for a wrong name.

    Raises
    ------
    ConfigError
        If they do not fit.

    Examples
    --------
    >>> check_parameters("square", lambda side: side, {"length": 1})
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: parameters of square: missing a required argument: 'side'; it takes side
    """
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return
    try:
        signature.bind(**parameters)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigError(f"parameters of {name}: {error}; it takes {known}") from error


def _is_ready(target: Any) -> bool:
    return not isinstance(target, type) and hasattr(target, "dim")


def _adopt(target: Any, name: str) -> Process:
    if isinstance(target, Process):
        return target
    if isinstance(target, TestFunction):
        return FunctionProcess(target)
    return CallableProcess(target, name)


def _refuse_other(factory: Any, name: str, module: ModuleType) -> None:
    """Refuse what builds a process only by chance: of other files, or of a package that does not say so."""
    if not (inspect.isclass(factory) or inspect.isfunction(factory)):
        raise ConfigError(f"{name} is neither a class, nor a function, nor a callable with an attribute dim")
    if factory.__module__.partition(".")[0] != module.__name__.partition(".")[0]:
        raise ProcessError(f"{name} is defined in {factory.__module__}, not there: a card names code where it is")
    if _is_installed(module) and not _declares_dim(factory):
        raise ProcessError(
            f"{name} does not say that it is a process: give the class an attribute `dim: int`, or annotate that the "
            "function returns such a class"
        )


def _is_installed(module: ModuleType) -> bool:
    """Whether a module is of a package, rather than a file that was named or lies in the working directory."""
    file = getattr(module, "__file__", None)
    alone = module.__name__.startswith(_PREFIX)
    return not alone and (file is None or not Path(file).resolve().is_relative_to(Path.cwd()))


def _declares_dim(factory: Any) -> bool:
    """Whether a class, or what a function is annotated to return, has a dim that is no method."""
    if inspect.isfunction(factory):
        try:
            made = get_type_hints(factory).get("return")
        except (NameError, TypeError):
            return False
        return inspect.isclass(made) and _declares_dim(made)
    annotated = any("dim" in vars(kind).get("__annotations__", {}) for kind in factory.__mro__)
    return annotated or isinstance(inspect.getattr_static(factory, "dim", None), int | property)


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
    if place.partition(".")[0] in sys.stdlib_module_names:
        raise ProcessError(f"{name} is part of Python itself: a card names code of a file or of an installed package")
    if place.endswith(".py") and not Path(place).is_file():
        raise UnknownProcessError(f"no file {place!r} to take {name!r} from")
    try:
        with blaming(f"importing {place!r} failed", ProcessError):
            if place.endswith(".py"):
                return _import_file(Path(place))
            with _importable(Path.cwd()):
                return importlib.import_module(place)
    except ProcessError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError):
            raise
        missing = cause.name or ""
        if place == missing or place.startswith(missing + "."):
            raise UnknownProcessError(f"cannot import {place!r} for the process {name!r}") from cause
        raise ProcessError(f"{place!r} needs the module {missing!r}, which is not installed") from cause


def _import_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"{_PREFIX}{digest}", path)
    if spec is None or spec.loader is None:
        raise UnknownProcessError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _importable(path.parent):
        spec.loader.exec_module(module)
    return module
