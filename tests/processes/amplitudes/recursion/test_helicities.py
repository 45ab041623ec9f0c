"""Single helicities: they add up to the sum, point by point, whatever way they are asked for."""

from __future__ import annotations

import pytest
import torch

from nisampler.errors import AmplitudeError, ShapeError
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.plan import restricted
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.parameters import StandardModel

MODEL = StandardModel().on_shell()
PROCESSES = [
    ((11, -11), (13, -13), {0}),
    ((21, 21), (21, 21), {2}),
    ((21, 21), (6, -6), {2}),
    ((21, 21), (6, -6, 21), {3}),
    ((2, -2), (1, -1, 21), {3}),
    ((2, -1), (24, 21), {1}),
    ((2, -1), (-11, 12, 21, 21), {2}),
    ((2, 4), (24, 24, 1, 3), {0}),
    ((2, -2), (24, -24, 23), {0}),
    ((5, 2), (6, 1), {0}),
    ((11, -11), (23, 25), {0}),
    ((2, 1), (2, 1), {0, 2}),
]


def made(process: tuple[tuple[int, ...], tuple[int, ...], set[int]]) -> MatrixElement:
    initial, final, strong = process
    return MatrixElement(initial, final, Couplings(MODEL), strong)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_all_classes_add_up_to_the_sum(process: tuple[tuple[int, ...], tuple[int, ...], set[int]]) -> None:
    element = made(process)
    p = probe_momenta([leg.mass for leg in element.legs], points=40)
    alpha_s = torch.linspace(0.1, 0.13, 40, dtype=torch.float64)
    parts = torch.stack([element.squared_of(k, p, alpha_s) for k in range(element.helicity_count)])
    whole = element.squared(p, alpha_s)
    torch.testing.assert_close(parts.sum(0), whole, rtol=1e-12, atol=0.0)
    # Control: no class is empty, so that one left out would be seen.
    assert ((parts / whole).amax(1) > 1e-10).all()
    drawn = torch.arange(40) % element.helicity_count
    torch.testing.assert_close(
        element.squared_of(drawn, p, alpha_s), parts[drawn, torch.arange(40)], rtol=1e-12, atol=0
    )
    q = p.clone().requires_grad_()
    torch.testing.assert_close(element.squared_of(drawn, q, alpha_s).detach(), parts[drawn, torch.arange(40)])


def test_members_of_classes_are_all_helicities_that_contribute() -> None:
    element = made(((2, -1), (24, 21), {1}))
    members = [member for kept in element.helicity_classes for member in kept]
    assert len(members) == len(set(members))
    assert {(member[0], member[1]) for member in members} == {(-1, 1)}
    assert element.contributing_helicities() == [{-1}, {1}, {-1, 0, 1}, {-1, 1}]
    assert [len(element.of_class(k).helicity_classes[0]) for k in range(element.helicity_count)] == [
        len(kept) for kept in element.helicity_classes
    ]


def test_the_plan_of_a_class_is_smaller_and_the_whole_of_a_plan_is_itself() -> None:
    element = made(((21, 21), (6, -6, 21), {3}))
    whole = restricted(element.plan, range(len(element.plan.results)))
    assert (whole.rows, len(whole.steps)) == (element.plan.rows, len(element.plan.steps))
    assert element.of_class(0).plan.rows < element.plan.rows / 3


def test_classes_that_do_not_exist_are_refused() -> None:
    element = made(((2, -1), (24, 21), {1}))
    p = probe_momenta([leg.mass for leg in element.legs])
    alpha_s = torch.tensor([0.118])
    with pytest.raises(AmplitudeError, match=rf"classes of helicities are 0 to {element.helicity_count - 1}, got -1"):
        element.squared_of(-1, p, alpha_s)
    with pytest.raises(AmplitudeError, match="got 99"):
        element.squared_of(torch.tensor([0, 1, 99]), p, alpha_s)
    with pytest.raises(ShapeError, match=r"classes must be \(3,\) integers"):
        element.squared_of(torch.zeros(2, dtype=torch.long), p, alpha_s)
    with pytest.raises(ShapeError, match=r"got torch\.float32 \(3,\)"):
        element.squared_of(torch.zeros(3), p, alpha_s)
