"""Plans run by torch on any device and in both precisions, and by the kernel of Triton where its interpreter is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.recursion import loop
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.compiled.polynomials import forms
from nisampler.processes.amplitudes.recursion.graph import COMPONENTS, KINDS
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.parameters import StandardModel

ALPHA_S = torch.full((1,), 0.118, dtype=torch.float64)
LEGS = [((21, 21), (6, -6), 2), ((2, -2), (24, -24, 25), 0), ((11, -11), (13, -13, 22), 0)]


def element(initial: Sequence[int], final: Sequence[int], strong: int) -> MatrixElement:
    return MatrixElement(initial, final, Couplings(StandardModel()), {strong})


def momenta(matrix: MatrixElement, points: int = 40) -> torch.Tensor:
    return probe_momenta([leg.mass for leg in matrix.legs], points=points)


@pytest.mark.parametrize(("initial", "final", "strong"), LEGS)
def test_torch_stays_on_the_device_of_the_momenta(initial: Sequence[int], final: Sequence[int], strong: int) -> None:
    matrix = element(initial, final, strong)
    there = momenta(matrix).to("meta"), ALPHA_S.to("meta")
    assert matrix.squared(*there).device.type == "meta"
    assert matrix.flow_weights(*there).shape == (40, len(matrix.flows))


@pytest.mark.parametrize(("initial", "final", "strong"), LEGS)
def test_torch_and_compiled_code_agree_piece_by_piece(
    initial: Sequence[int], final: Sequence[int], strong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = element(initial, final, strong)
    p = momenta(matrix)
    fast, flows = matrix.squared(p, ALPHA_S), matrix.flow_weights(p, ALPHA_S)
    monkeypatch.setattr(loop.Loop, "most", 7)
    slow = p.clone().requires_grad_()
    assert torch.allclose(matrix.squared(slow, ALPHA_S), fast, rtol=1e-11, atol=0.0)
    assert torch.allclose(matrix.flow_weights(slow, ALPHA_S), flows, rtol=1e-11, atol=1e-11 * float(flows.max()))


def test_single_precision_where_nothing_cancels() -> None:
    plain, single = RecursiveAmplitude("g g > t t~ g"), RecursiveAmplitude("g g > t t~ g", precision="single")
    p = momenta(next(iter(plain.matrices.values()))).requires_grad_()
    exact, found = (item.squared(p[:, :2], p[:, 2:], ALPHA_S)[:, 0] for item in (plain, single))
    error = ((found - exact) / exact).detach().abs()
    assert 1e-9 < float(error.max()) < 1e-3
    with pytest.raises(AmplitudeError, match="need double precision"):
        RecursiveAmplitude("u c > w+ w+ d s QCD=0", precision="single")


def test_sums_of_products_are_the_formulas() -> None:
    generator = torch.Generator().manual_seed(4)
    for (name, kind), (sizes, sums, inverse) in zip(KINDS.items(), forms(), strict=True):
        assert [size for _, size in sizes] == [COMPONENTS[shape] for shape in kind.inputs]
        flat = torch.randn(sum(size for _, size in sizes) + 1, dtype=torch.complex128, generator=generator)
        given = [tuple(part) for part in flat[:-1].split([size for _, size in sizes])]
        expected = kind.formula(*given, *([flat[-1]] if name == "inverse_square" else []))
        for value, products in zip(expected, sums, strict=True):
            found = sum(factor * flat[list(numbers)].prod() for factor, *numbers in products)
            assert torch.allclose(torch.as_tensor(1 / found if inverse else found), value, rtol=1e-12)


INTERPRETED = """
import torch
from test_loop import ALPHA_S, LEGS, element, momenta
from nisampler.processes.amplitudes.recursion.compiled.triton_steps import BLOCK, Steps
from nisampler.processes.amplitudes.recursion.loop import Loop

for initial, final, strong in LEGS:
    matrix = element(initial, final, strong)
    p = momenta(matrix, BLOCK + 3)
    exact, plain = matrix.amplitudes(p), Loop._run
    Loop._run = lambda self, numbers, sets: Steps(self.plan, self.device, self.dtype)(numbers, sets.contiguous())
    found = matrix.amplitudes(p)
    Loop._run = plain
    assert float((found - exact).abs().max()) < 1e-12 * float(exact.abs().max()), (initial, final)
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_of_a_gpu_in_its_interpreter() -> None:
    places = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": places}
    command = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "equal", done.stderr
