"""Sampled colours: all of them add up to the exact colour sum, and draws of them average to it."""

from __future__ import annotations

import pytest
import torch

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.recursion.dressed import SampledColours
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.parameters import StandardModel

COUPLINGS = Couplings(StandardModel().on_shell())
ALPHA_S = torch.tensor([0.118], dtype=torch.float64)
Process = tuple[tuple[int, ...], tuple[int, ...], set[int]]
PROCESSES: list[Process] = [
    ((11, -11), (1, -1, 21), {1}),
    ((2, -2), (1, -1), {0, 2}),
    ((2, 1), (2, 1), {0, 2}),
    ((21, 21), (21, 21), {2}),
    ((21, 21), (6, -6, 21), {3}),
    ((2, -2), (21, 21, 21), {3}),
    ((2, -1), (-11, 12, 21, 21), {2}),
    ((2, 21), (24, 1, 2, -2), {3}),
    ((11, -11), (13, -13), {0}),
]


def made(process: Process) -> tuple[SampledColours, MatrixElement]:
    initial, final, strong = process
    return SampledColours(initial, final, COUPLINGS, strong), MatrixElement(initial, final, COUPLINGS, strong)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_all_colours_add_up_to_the_exact_sum(process: Process) -> None:
    sampled, exact = made(process)
    every = sampled.all_colours()
    assert len(torch.unique(every, dim=0)) == len(every)
    assert sampled.probability(every).sum().item() == pytest.approx(1)
    p = probe_momenta([leg.mass for leg in exact.legs], points=2)
    for point in p:
        values = sampled.squared_of(every, point.expand(len(every), -1, -1), ALPHA_S)
        torch.testing.assert_close(values.sum(), exact.squared(point[None], ALPHA_S)[0], rtol=1e-11, atol=0.0)
        assert (values >= 0).all()


def test_draws_of_colours_average_to_the_exact_sum() -> None:
    sampled, exact = made(((2, -1), (-11, 12, 21, 21, 21), {3}))
    p = probe_momenta([leg.mass for leg in exact.legs], points=8000)
    colours, probability = sampled.draw(len(p), torch.Generator().manual_seed(31))
    ratios = sampled.squared_of(colours, p, ALPHA_S) / probability / exact.squared(p, ALPHA_S)

    def pull(values: torch.Tensor) -> float:
        return (values.mean().item() - 1) / (values.std().item() / len(values) ** 0.5)

    assert abs(pull(ratios)) < 3
    uniform = ratios * probability / probability.mean()
    assert abs(pull(uniform)) > 5


def test_names_of_colours_and_the_order_of_gluons_do_not_matter() -> None:
    sampled, _ = made(((21, 21), (21, 21, 21), {3}))
    p = probe_momenta([0.0] * 5, points=1000)
    colours, _ = sampled.draw(1000, torch.Generator().manual_seed(2))
    values = sampled.squared_of(colours, p, ALPHA_S)
    named = torch.tensor([0, 3, 1, 2])[colours]
    order = [1, 0, 4, 2, 3]
    torch.testing.assert_close(sampled.squared_of(named, p, ALPHA_S), values, rtol=1e-9, atol=1e-20)
    torch.testing.assert_close(
        sampled.squared_of(colours[:, order], p[:, order], ALPHA_S), values, rtol=1e-9, atol=1e-20
    )
    moved = sampled.squared_of(colours[:, order], p, ALPHA_S)
    assert not torch.allclose(moved, values, rtol=1e-3)
    assert sampled.kinds < 0.2 * len(torch.unique(colours, dim=0))


def test_impossible_colours_are_zero_and_wrong_shapes_are_refused() -> None:
    sampled, exact = made(((2, -1), (24, 21), {1}))
    p = probe_momenta([leg.mass for leg in exact.legs], points=2)
    colours = torch.tensor([[[1, 0], [0, 2], [0, 0], [1, 1]], [[1, 0], [0, 1], [0, 0], [1, 1]]])
    assert sampled.probability(colours)[0] == 0
    values = sampled.squared_of(colours, p, ALPHA_S)
    assert values[0] == 0
    assert values[1] > 0
    assert sampled.squared_of(colours[:0], p[:0], ALPHA_S).shape == (0,)
    with pytest.raises(ShapeError, match=r"momenta must be \(n, 4, 4\) and colours \(n, 4, 2\), got"):
        sampled.squared_of(colours[:1], p, ALPHA_S)
    with pytest.raises(AmplitudeError, match="no tree diagram"):
        SampledColours((2, -1), (24, 21), COUPLINGS, {0})
