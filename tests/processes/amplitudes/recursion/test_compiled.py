"""The compiled loop over a plan: made from the sources at hand, and not needed."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors import safe_open

from nisampler.base.kernels import FastPathWarning
from nisampler.base.machine_code import flatten
from nisampler.flows.fused.shipping import SOURCES
from nisampler.processes.amplitudes.recursion.compiled import shipping, tiles
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.parameters import StandardModel


def element() -> MatrixElement:
    return MatrixElement((21, 21), (6, -6), Couplings(StandardModel()), {2})


def squared(matrix: MatrixElement) -> torch.Tensor:
    momenta = probe_momenta([leg.mass for leg in matrix.legs], points=tiles.TILE + 1)
    return matrix.squared(momenta, torch.full((1,), 0.118, dtype=torch.float64))


def test_what_is_shipped_was_made_from_these_sources() -> None:
    """If this fails: python -m nisampler.processes.amplitudes.recursion.compiled.shipping."""
    with safe_open(tiles.FILE, "np") as file:
        notes = file.metadata()
    assert notes[SOURCES] == shipping.sources()
    for name, _, arguments in shipping.functions():
        codes: list[str] = []
        flatten(arguments, codes, [])
        assert json.loads(notes[name])["codes"] == codes


def test_another_source_has_another_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shipping.sources()
    monkeypatch.setattr(tiles, "TILE", 64)
    assert shipping.sources() != before


def test_without_compiled_code_there_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = squared(element())

    def broken() -> None:
        raise OSError("no place")

    monkeypatch.setattr(tiles, "kernel", broken)
    with pytest.warns(FastPathWarning, match="llvmlite does not work here"):
        slow = squared(element())
    assert torch.allclose(fast, slow, rtol=1e-12, atol=0.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(squared(element()), slow)
