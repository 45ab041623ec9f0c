"""The example that calls a compiled C matrix element: right, and clear about a missing compiler."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nisampler.errors import ProcessError
from nisampler.processes import registry
from nisampler.processes.constants import GEV2_PB

NAME = f"{Path(__file__).parents[3] / 'examples' / 'ctypes_matrix_element.py'}:MuonPairInC"


def test_the_compiled_matrix_element_integrates_to_the_known_cross_section() -> None:
    process = registry.create(NAME, sqrt_s=20.0)
    u = torch.rand(40_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = process(u)
    exact = 4 * math.pi / (137.036**2 * 3 * 20.0**2) * GEV2_PB
    error = float(values.std() / len(u) ** 0.5)
    assert abs(float(values.mean()) - exact) < 4 * error
    assert error < 0.003 * exact


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessError, match=r"no C compiler 'cc' in PATH: install gcc or clang"):
        registry.create(NAME)


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -DUNKNOWN --no-such-option")
    with pytest.raises(ProcessError, match="no-such-option"):
        registry.create(NAME)
