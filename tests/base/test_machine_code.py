"""Compiled functions that come with the package: made into machine code once, kept, and called with what they take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from nisampler.base import machine_code
from nisampler.base.kept import VARIABLE
from nisampler.base.machine_code import Kernel, flatten
from nisampler.flows.fused import shipping
from nisampler.flows.splines.fused_spline import FILE, examples

pytest.importorskip("llvmlite")
NAME = "spline f4 f4"


def value(kernel: Kernel) -> float:
    """The spline with equal bins at one half."""
    arguments = examples("f4", "f4")["spline"]
    arguments[2][:] = 0.0
    kernel(*arguments)
    return float(arguments[2][0, 0])


def test_what_is_shipped_was_made_from_these_sources() -> None:
    """If this fails: python -m nisampler.flows.fused.shipping."""
    with safe_open(FILE, "np") as file:
        notes = file.metadata()
        assert notes[shipping.SOURCES] == shipping.sources()
        assert set(file.keys()) == set(notes) - {shipping.SOURCES}


def test_another_source_has_another_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shipping.sources()
    monkeypatch.setattr(shipping, "ROWS", shipping.ROWS + 1)
    assert shipping.sources() != before


def test_arguments_of_functions_are_those_that_were_shipped() -> None:
    with safe_open(FILE, "np") as file:
        notes = file.metadata()
    names = []
    for name, _, arguments in shipping.functions():
        codes: list[str] = []
        flatten(arguments, codes, [])
        assert json.loads(notes[name])["codes"] == codes
        names.append(name)
    assert {shipping.SOURCES, *names} == set(notes)


def test_it_is_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    made = []
    compile_it = machine_code._object

    def counted(code: bytes) -> bytes:
        made.append(len(code))
        return compile_it(code)

    monkeypatch.setattr(machine_code, "_object", counted)
    assert [value(Kernel(FILE, NAME)) for _ in range(2)] == [0.5, 0.5]
    assert len(made) == 1
    (file,) = tmp_path.rglob("*.kept")
    file.write_bytes(file.read_bytes()[:-1] + b"?")  # damaged: its checksum tells, and it is made anew
    assert value(Kernel(FILE, NAME)) == 0.5
    assert len(made) == 2
    monkeypatch.setattr(machine_code, "_processor", lambda: ("x86-64", ""))  # another machine with the same home
    Kernel(FILE, NAME)
    assert len(made) == 3


def test_it_works_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert value(Kernel(FILE, NAME)) == 0.5


def test_other_arguments_are_refused() -> None:
    kernel, arguments = Kernel(FILE, NAME), examples("f4", "f4")["spline"]
    double = examples("f8", "f8")["spline"]
    for wrong in (double, arguments[:-1], (arguments[0][0], *arguments[1:]), (*arguments[:6], 0, *arguments[7:])):
        with pytest.raises(TypeError, match="compiled for arguments"):
            kernel(*wrong)
    with pytest.raises(TypeError, match="contiguous"):
        kernel(np.zeros((2, 2), np.float32).T, *arguments[1:])
    with pytest.raises(KeyError, match="no function 'nothing'"):
        Kernel(FILE, "nothing")
