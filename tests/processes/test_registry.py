"""Processes by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, ProcessError, UnknownProcessError
from nisampler.processes import registry
from nisampler.processes.base import Process
from nisampler.processes.lepton.ee_to_3jets import EEToThreeJets

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_matrix_element.py"

MODULE = """
import torch
from nisampler.processes.functions.functions import camel
from nisampler.processes.base import FunctionProcess

class Peak:
    dim = 2
    unit = "pb"
    def __init__(self, width=0.1):
        self.width = width
    def __call__(self, u):
        return torch.exp(-((u - 0.5) ** 2).sum(1) / self.width**2)

class Event(Peak):
    def momenta(self, u):
        return u.unsqueeze(-1)
    record_calls = 3
    def events(self, u, weights, generator):
        return "events"
    def limits(self):
        return {"low scales": 2}

def build(power=1):
    def f(u):
        return u[:, 0] ** power
    f.dim = 1
    return f

def ready(u):
    return u.sum(1)
ready.dim = 3

function = camel(3)
process = FunctionProcess(function)
number = 7

def no_dim():
    return len

def bad_dim():
    def f(u):
        return u
    f.dim = 0
    return f

def fails(width=1):
    raise TypeError("inner trouble")

class Space:
    peak = Peak

import subprocess
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_module_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module_of_a_test", raising=False)
    return "own_module_of_a_test"


def test_every_available_name_can_be_created() -> None:
    names = registry.available()
    assert {"ee_to_3jets", "gauss", "camel", "circles", "annulus", "box", "poly"} <= set(names)
    for name, description in names.items():
        process = registry.create(name)
        assert isinstance(process, Process)
        assert description
        values = process(torch.rand(5, process.dim, dtype=torch.float64, generator=Streams(1).generator("u")))
        assert values.shape == (5,)


def test_parameters_reach_the_process() -> None:
    process = registry.create("ee_to_3jets", sqrt_s=200.0, flavours=[1, 2])
    assert isinstance(process, EEToThreeJets)
    assert process.parameters.sqrt_s == 200.0
    assert process.parameters.flavours == (1, 2)
    assert process.unit == "pb"
    assert process.has_events


def test_test_functions_as_processes() -> None:
    process = registry.create("gauss", dim=4)
    assert (process.name, process.dim, process.unit, process.has_events) == ("gauss4", 4, "", False)
    assert registry.create("camel8").dim == 8
    assert process.integral == pytest.approx(0.99837, abs=1e-4)  # type: ignore[attr-defined]
    with pytest.raises(ProcessError, match="no event record"):
        process.events(torch.zeros(1, 4), torch.ones(1), Streams(1).generator("x"))
    with pytest.raises(ProcessError, match="without momenta"):
        process.momenta(torch.zeros(1, 4))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownProcessError, match=r"ee_to_2jets.*camel.*ee_to_3jets.*gauss"):
        registry.create("ee_to_2jets")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ee_to_3jets", {"sqrts": 91.0}, "sqrts.*sqrt_s"),
        ("gauss", {"dims": 4}, "dims"),
        ("camel4", {"dim": 5}, "contradicts"),
        ("ee_to_3jets", {"y_cut": "small"}, "y_cut"),
    ],
)
def test_wrong_parameters_are_named(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.create(name, **parameters)


def test_value_outside_its_range() -> None:
    with pytest.raises(ConfigError, match="y_cut"):
        registry.create("ee_to_3jets", y_cut=0.5)


def test_own_class_function_and_callable(module: str) -> None:
    peak = registry.create(f"{module}:Peak", width=0.5)
    assert (peak.dim, peak.unit, peak.has_events) == (2, "pb", False)
    assert peak(torch.full((1, 2), 0.5)).item() == 1.0
    assert registry.create(f"{module}:build", power=2)(torch.tensor([[3.0]])).item() == 9.0
    assert registry.create(f"{module}:ready")(torch.ones(1, 3)).item() == 3.0
    assert registry.create(f"{module}:function").name == "camel3"
    assert registry.create(f"{module}:process").name == "camel3"
    assert registry.create(f"{module}:Space.peak").dim == 2
    with pytest.raises(ProcessError, match="no event record"):
        peak.events(torch.zeros(1, 2), torch.ones(1), Streams(1).generator("x"))
    with pytest.raises(ProcessError, match="without momenta"):
        peak.momenta(torch.zeros(1, 2))


def test_own_events_are_used(module: str) -> None:
    process = registry.create(f"{module}:Event")
    assert process.has_events
    assert (process.record_calls, process.limits()) == (3, {"low scales": 2})
    assert registry.create("camel", dim=2).limits() == {}
    assert process.momenta(torch.zeros(1, 2)).shape == (1, 2, 1)
    assert process.events(torch.zeros(1, 2), torch.ones(1), Streams(1).generator("x")) == "events"


def test_own_file(module: str) -> None:
    process = registry.create(f"{module}.py:Peak", width=2.0)
    assert process.dim == 2
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("attribute", "parameters", "error", "message"),
    [
        ("Missing", {}, UnknownProcessError, "no object 'Missing'"),
        ("Peak", {"height": 1}, ConfigError, "height.*width"),
        ("ready", {"power": 1}, ConfigError, "takes no parameters"),
        ("number", {}, ConfigError, "not callable"),
        ("no_dim", {}, ConfigError, "dim"),
        ("bad_dim", {}, ConfigError, "dim of .* must be a whole number, at least 1"),
    ],
)
def test_own_processes_that_do_not_fit(
    module: str, attribute: str, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.create(f"{module}:{attribute}", **parameters)


def test_an_error_of_the_user_names_its_line(module: str) -> None:
    line = 1 + MODULE.splitlines().index('    raise TypeError("inner trouble")')
    with pytest.raises(ProcessError, match=rf"TypeError: inner trouble \(.*{module}\.py, line {line}\)"):
        registry.create(f"{module}:fails")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("subprocess:run", {"args": ["touch", "ran"]}, "part of Python itself"),
        ("os:system", {"command": "touch ran"}, "part of Python itself"),
        ("os.path:join", {"a": "b"}, "part of Python itself"),
        ("torch:load", {"f": "ran"}, "does not say that it is a process"),
        ("torch.utils.cpp_extension:load", {"name": "ran", "sources": []}, "does not say that it is a process"),
        ("numpy:load", {"file": "ran"}, "neither a class, nor a function|does not say"),
        ("MODULE:subprocess.run", {"args": ["touch", "ran"]}, "defined in subprocess, not there"),
        ("MODULE.py:subprocess.run", {"args": ["touch", "ran"]}, "defined in subprocess, not there"),
        ("MODULE:subprocess.os.system", {"command": "touch ran"}, "neither a class, nor a function"),
        ("MODULE:ready.__call__", {"u": "ran"}, "neither a class, nor a function"),
        ("MODULE.py:exec", {}, "no object 'exec'"),
        ("MODULE.py:__builtins__.exec", {}, "no object|neither"),
    ],
)
def test_a_card_names_no_other_code(module: str, name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises((ProcessError, ConfigError), match=message):
        registry.create(name.replace("MODULE", module), **parameters)
    assert not Path("ran").exists()


def test_modules_that_cannot_be_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "needs_another.py").write_text("import a_module_nobody_has\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UnknownProcessError, match="cannot import 'not_there'"):
        registry.create("not_there:f")
    with pytest.raises(UnknownProcessError, match="no file"):
        registry.create("not_there.py:f")
    with pytest.raises(ProcessError, match="a_module_nobody_has"):
        registry.create("needs_another:f")
    with pytest.raises(ProcessError, match="ZeroDivisionError"):
        registry.create("broken.py:f")
    with pytest.raises(ProcessError, match="importing '' failed"):
        registry.create(":f")


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))

    def build(sqrt_s: float = 1.0) -> EEToThreeJets:
        return registry.create("ee_to_3jets", sqrt_s=sqrt_s)  # type: ignore[return-value]

    registry.register("mine", build, "my own")
    assert registry.available()["mine"] == "my own"
    assert registry.create("mine", sqrt_s=50.0).parameters.sqrt_s == 50.0
    with pytest.raises(ConfigError, match=r"colour.*sqrt_s"):
        registry.create("mine", colour=1)
    for name, message in (("mine", "already"), ("camel4", "already"), ("a:b", "colon"), ("", "empty")):
        with pytest.raises(ProcessError, match=message):
            registry.register(name, build, "again")


def test_the_documented_example_gives_the_muon_pair_cross_section() -> None:
    process = registry.create(f"{EXAMPLE}:MuonPair", sqrt_s=10.0)
    values = process(torch.rand(50_000, 2, dtype=torch.float64, generator=Streams(2).generator("u")))
    exact = 4 * torch.pi / (3 * 137.036**2 * 100.0) * 0.3893793721e9
    assert abs(values.mean().item() - exact) < 4 * values.std().item() / 50_000**0.5
