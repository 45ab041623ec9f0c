"""Processes by name, the built-in ones and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from nisampler.base.described import Setting, described
from nisampler.base.findings import Finding, kernel
from nisampler.errors import ProcessError, UnknownProcessError
from nisampler.processes.base import FunctionProcess, Process
from nisampler.processes.functions import functions
from nisampler.processes.own import check_parameters, own_parameters, own_process

Factory = Callable[..., Process]

_LHC, _EE = "nisampler.processes.hadron.lhc", "nisampler.processes.lepton.ee_to_3jets"
_CARDS = "nisampler.processes.hadron.lhc_parameters"
# Module and function that build each process, imported when it is asked for, a line about it, and module and class of
# its parameters.
_BUILT_IN = {
    "ee_to_3jets": (
        _EE,
        "create_ee_to_3jets",
        "e- e+ -> q qbar g at leading order, photon and Z, Durham cut, in pb",
        ("nisampler.processes.lepton.ee_matrix_element", "EEToThreeJetsParameters"),
    ),
    "z_prime": (
        _LHC,
        "create_z_prime",
        "p p -> e+ e- through photon, Z and a narrow Z', m_ll 50-1000 GeV, in pb",
        (_CARDS, "ZPrimeParameters"),
    ),
    "drell_yan": (
        _LHC,
        "create_drell_yan",
        "p p -> e+ e- through photon and Z, m_ll > 50 GeV, in pb",
        (_CARDS, "LeptonPairParameters"),
    ),
    "w_plus_jets": (
        _LHC,
        "create_w_plus_jets",
        "p p -> W+ (e+ nu_e) + n_jets = 0 to 3 jets, in pb",
        (_CARDS, "WJetsParameters"),
    ),
    "w_minus_jets": (
        _LHC,
        "create_w_minus_jets",
        "p p -> W- (e- nubar_e) + n_jets = 0 to 3 jets, in pb",
        (_CARDS, "WJetsParameters"),
    ),
    "z_jets": (
        _LHC,
        "create_z_jets",
        "p p -> photon, Z (e+ e-) + n_jets = 0 to 3 jets, in pb",
        (_CARDS, "ZJetsParameters"),
    ),
    "ttbar": (_LHC, "create_ttbar", "p p -> t tbar, stable tops, in pb", (_CARDS, "TopPairParameters")),
    "ttbar_jet": (_LHC, "create_ttbar_jet", "p p -> t tbar jet, stable tops, in pb", (_CARDS, "TopPairParameters")),
}
_FACTORIES: dict[str, tuple[Factory, str]] = {}
"""Those that others have registered."""


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
    if name in _BUILT_IN or name in _FACTORIES or functions.is_test_function(name):
        raise ProcessError(f"a process named {name!r} is registered already")
    _FACTORIES[name] = (factory, description)


def available() -> dict[str, str]:
    """The names that `create` knows, each with a one-line description.

    >>> available()["ttbar"]
    'p p -> t tbar, stable tops, in pb'
    """
    built_in = {name: text for name, (_, _, text, _) in _BUILT_IN.items()}
    return built_in | {name: text for name, (_, text) in _FACTORIES.items()} | functions.names()


def create(name: str, /, **parameters: Any) -> Process:
    """Build a process by its name.

    Parameters
    ----------
    name
        A registered name ("ee_to_3jets"), a process by its particles ("p p > w+ w+ j j QCD=0"), also with a library of
        matrix elements ("umami:libX.so p p > e- e+"), a test function ("camel4", or "camel" with dim=4), or
        "module:object" / "file.py:object" for a user's own process: a class or function that builds one from
        `parameters`, or a ready callable with an attribute `dim`. Of installed packages only what declares a `dim` is
        taken.
    parameters
        Passed to whatever builds the process.

    Raises
    ------
    UnknownProcessError
        If there is nothing of that name; the message lists the known ones.
    ConfigError
        If a parameter is unknown or of the wrong type; the message names it.
    ProcessError
        If a value is outside its range, or a user's own code raises an error; its file and line are named.

    Examples
    --------
    >>> create("camel", dim=3).name
    'camel3'
    >>> create("ee_to_3jets", y_cut=0.5)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: y_cut = 0.5: must be a number, more than 0 and less than 0.333333
    """
    process = _built(name, parameters)
    vars(process)["rebuild"] = partial(create, name, **parameters)
    return process


def parameters(name: str, /) -> tuple[Setting, ...]:
    """What `create` takes for a process besides its name; code of one's own is run.

    Raises
    ------
    UnknownProcessError, ProcessError
        As `create` does where there is no such process.

    Examples
    --------
    >>> [found.name for found in parameters("ee_to_3jets")][:2], parameters("ttbar")[-1].default
    (['sqrt_s', 'y_cut'], 173.0)
    """
    if ">" in name or name.startswith("umami:"):
        from nisampler.processes.standard_model.process import string_parameters

        return string_parameters(name)
    if ":" in name:
        return own_parameters(name)
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name][3]
        return described(getattr(import_module(module), attribute))
    if name in _FACTORIES:
        return described(_FACTORIES[name][0])
    if functions.is_test_function(name):
        return functions.parameters(name)
    raise _unknown(name)


def findings() -> Iterator[Finding]:
    """Whether the compiled kernels of processes work here, and which parton densities are found.

    >>> [found.name for found in findings() if found.part == "kernels"]
    ['matrix elements', 'parton densities']
    """
    from nisampler.processes.amplitudes.recursion.compiled import tiles
    from nisampler.processes.partons.interpolation.compiled import compiled
    from nisampler.processes.partons.sets import stored_sets

    yield kernel("matrix elements", tiles.kernel)
    yield kernel("parton densities", compiled)
    yield from stored_sets()


def _unknown(name: str) -> UnknownProcessError:
    known = ", ".join(sorted(available()))
    return UnknownProcessError(
        f"no process {name!r}; known: {known}; particles such as 'p p > e+ ve j'; or module:object for one of your own"
    )


def _built(name: str, parameters: dict[str, Any]) -> Process:
    if ">" in name or name.startswith("umami:"):
        return _from_string(name, parameters)
    if ":" in name:
        return own_process(name, parameters)
    if name in _BUILT_IN or name in _FACTORIES:
        factory = _factory(name)
        check_parameters(name, factory, parameters)
        return factory(**parameters)
    if functions.is_test_function(name):
        return FunctionProcess(functions.test_function(name, **parameters))
    raise _unknown(name)


def _from_string(name: str, parameters: dict[str, Any]) -> Process:
    from nisampler.processes.standard_model.process import create_from_string

    return create_from_string(name, **parameters)


def _factory(name: str) -> Factory:
    if name in _FACTORIES:
        return _FACTORIES[name][0]
    module, attribute, *_ = _BUILT_IN[name]
    found: Factory = getattr(import_module(module), attribute)
    return found
