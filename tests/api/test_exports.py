"""What `import nisampler` offers, and what it leaves alone until it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import nisampler
from nisampler.errors import UnknownProcessError

HEAVY = ("torch", "numpy", "scipy", "pydantic", "vegas", "gvar", "matplotlib", "numba", "h5py")
# What a first call may need before it is made: torch and NumPy, and pydantic for the settings.
LATER = ("scipy.stats", "vegas", "gvar", "matplotlib", "numba", "torch._dynamo")


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of these modules a fresh interpreter has after some code."""
    tell = f"import sys; sys.stdout.write(' '.join(name for name in {names!r} if name in sys.modules))"
    command = [sys.executable, "-W", "error", "-c", f"{code}\n{tell}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split("\n")[-1].split()


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    assert loaded("import nisampler", HEAVY) == []
    assert loaded("import nisampler; nisampler.integrate", LATER) == []


def test_a_flow_needs_no_numba() -> None:
    code = "import torch; from nisampler.flows import coupling_flow; x, flow = torch.rand(3, 2), coupling_flow(2)"
    code += "; flow.log_prob(x).sum().backward()"
    assert loaded(code, ("numba", "llvmlite", "matplotlib")) == ["llvmlite"]


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("active", "active")])
def test_threads_that_wait_sleep_unless_told_otherwise(own: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    command = [sys.executable, "-c", "import nisampler, os, sys; sys.stdout.write(os.environ['OMP_WAIT_POLICY'])"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == expected


def test_the_import_check_can_fail() -> None:
    """Negative control."""
    assert loaded("import nisampler; nisampler.integrate", ("torch", "numpy")) == ["torch", "numpy"]


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_command_line_imports_nothing_heavy(option: str) -> None:
    code = f"import sys; sys.argv = ['nisampler', '{option}']\nfrom nisampler.cli import main\n"
    assert loaded(code + "try: main()\nexcept SystemExit: pass", HEAVY) == []


def test_all_names_are_there() -> None:
    assert all(hasattr(nisampler, name) for name in nisampler.__all__)
    assert {"integrate", "Result", "Channel", "Multichannel", "Costs"} <= set(dir(nisampler))
    stars: dict[str, Any] = {}
    exec("from nisampler import *", stars)
    assert set(nisampler.__all__) <= stars.keys()


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'integrat'"):
        getattr(nisampler, "integrat")  # noqa: B009


def test_processes_by_name() -> None:
    names = nisampler.processes()
    assert {"drell_yan", "camel"} <= names.keys()
    assert nisampler.process("camel", dim=3).dim == 3
    assert nisampler.processes is sys.modules["nisampler.processes"]
    with pytest.raises(UnknownProcessError, match="Did you mean 'camel"):
        nisampler.process("camell")
