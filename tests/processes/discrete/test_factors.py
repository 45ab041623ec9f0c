"""What processes know without their matrix elements: value over factor is the matrix element alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sampled_elements import points, setup
from torch import Tensor

from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.discrete.factors import PlacedAmplitude
from nisampler.processes.discrete.points import choice_of, momenta_of
from nisampler.processes.hadron.groups import group_codes
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.partons.variations import Nominal


def recursive(elements: str) -> HadronProcess:
    nominal = Nominal("toy", alpha_s_power=1)
    return HadronProcess(setup(amplitude=RecursiveAmplitude("p p > e- e+ j"), elements=elements, nominal=nominal))


def inside(process: HadronProcess, n: int = 4000) -> Tensor:
    x = process.multichannel.points(points(process, n, 5))[1]
    return x[process.multichannel.inside(x)]


def test_of_a_choice_the_matrix_element_is_left() -> None:
    process = recursive("sampled")
    x = inside(process)
    factors = process.multichannel.factors_of(x)
    rest = process.differential_of_choice(x) * torch.exp(-factors.log_factor)
    choice = process.choice
    assert choice is not None and isinstance(choice.amplitude, PlacedAmplitude)
    found = process._parts(momenta_of(x))
    luminosities = process.luminosity.by_element(found.densities)
    drawn = choice.draw(process.features(momenta_of(x)), luminosities, choice_of(x))
    one = torch.ones_like(found.alpha_s)
    squared = choice.amplitude.chosen(drawn.choice, found.incoming, found.outgoing, one)
    torch.testing.assert_close(rest, squared, rtol=1e-9, atol=0.0)
    assert factors.kinds == choice.amplitude.kinds < choice.amplitude.elements
    assert len(factors.kind.unique()) == factors.kinds


def test_choices_of_one_kind_are_one_function_of_the_invariants() -> None:
    """The rest is the same wherever kind and invariants are, and not where the kind alone is."""
    amplitude = RecursiveAmplitude("p p > e- e+ j")
    process = recursive("sampled")
    p = momenta_of(inside(process, 500))
    found = process._parts(p)
    one = torch.ones_like(found.alpha_s)
    kinds = [int(amplitude.placed(torch.tensor([k]), found.incoming[:1], p[:1])[0]) for k in range(amplitude.elements)]
    first, second = next((a, b) for b in range(amplitude.elements) for a in range(b) if kinds[a] == kinds[b])
    placed = {k: amplitude.placed(torch.full((len(p),), k), found.incoming, p)[1] for k in (first, second)}
    matrix = amplitude._elements[first].matrix
    for k in (first, second):
        squared = amplitude.chosen(torch.full((len(p),), k), found.incoming, p, one)
        torch.testing.assert_close(matrix.squared(placed[k], one), squared)
    assert not torch.allclose(placed[first], placed[second])


def test_of_a_sum_the_mean_matrix_element_is_left() -> None:
    process = recursive("summed")
    x = inside(process)
    factors = process.multichannel.factors_of(x)
    found = process._parts(x)
    squared = process.setup.amplitude.squared(found.incoming, x, torch.ones_like(found.alpha_s))
    luminosities = process.luminosity.by_element(found.densities)
    mean = (luminosities * squared).sum(1) / luminosities.sum(1)
    torch.testing.assert_close(process.differential(x) * torch.exp(-factors.log_factor), mean, rtol=1e-9, atol=0.0)
    subprocesses = process.setup.amplitude.subprocesses
    codes = torch.tensor(group_codes(subprocesses)[1])
    each = process.luminosity.by_subprocess(found.densities, torch.ones_like(squared))
    shares = torch.stack([each[:, codes == code].sum(1) / each.sum(1) for code in process.event_groups], 1)
    torch.testing.assert_close(factors.features[:, -len(process.event_groups) :], shares)
    assert factors.kinds == 1 and len(process.event_groups) == 2


def test_an_amplitude_that_cannot_place_its_choices_has_each_for_itself() -> None:
    process = HadronProcess(setup())
    factors = process.multichannel.factors_of(inside(process))
    assert process.choice is not None
    assert factors.kinds == len(process.choice.amplitude.choices) == len(factors.kind.unique())


@pytest.mark.parametrize("elements", ["summed", "sampled"])
def test_nothing_is_counted(elements: str) -> None:
    process = recursive(elements)
    x = inside(process)
    before = process.limits()
    process.multichannel.factors_of(x)
    assert process.limits() == before
    process.multichannel.function(x)
    assert process.limits() != before


def test_a_power_of_the_coupling_that_nobody_states_is_left_to_be_learned() -> None:
    process = recursive("summed")
    other = HadronProcess(replace(process.setup, nominal=None))
    x = inside(process, 100)
    change = process.factors(x).log_factor - other.factors(x).log_factor
    torch.testing.assert_close(change, torch.log(process._parts(x).alpha_s))
