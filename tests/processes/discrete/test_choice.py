"""Probabilities of a choice: exact, the same compiled or not, drawn as they say, and learned well."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nisampler.errors import ShapeError
from nisampler.processes.discrete.choice import FLOOR, Choice, fresh_weights
from nisampler.processes.discrete.learning import Sums, learned

TERMS, FEATURES = 5, 3


def trained(seed: int = 1) -> Choice:
    """A network that says something."""
    weights = fresh_weights(TERMS, FEATURES)
    generator = torch.Generator().manual_seed(seed)
    for parameter in weights.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    weights.standardise(torch.randn(50, FEATURES, generator=generator))
    return Choice(weights)


def inputs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
    sizes = torch.rand(n, TERMS, generator=generator, dtype=torch.float64).pow(4) * 1e3
    return features, sizes * (torch.rand(n, TERMS, generator=generator) > 0.3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_probabilities_sum_to_one_and_reach_all_that_is_not_zero(seed: int, n: int) -> None:
    choice, (features, sizes) = trained(seed), inputs(n, seed)
    p = choice.probabilities(features, sizes)
    assert torch.allclose(p.sum(1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)
    some = sizes.sum(1) > 0
    assert bool((p[some] >= FLOOR * sizes[some] / sizes[some].sum(1, keepdim=True) * (1 - 1e-12)).all())
    assert torch.equal((p > 0)[some], (sizes > 0)[some])
    assert bool((p[~some] == 1 / TERMS).all())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_compiled_code_and_torch_agree(seed: int) -> None:
    choice, (features, sizes) = trained(seed), inputs(30, seed)
    u = torch.rand(30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table, drawn = choice.probabilities(features, sizes), choice.draw(features, sizes, u)
    plain = Choice(choice.weights)
    plain.__dict__["_kernel"] = None
    other, again = plain.probabilities(features, sizes), plain.draw(features, sizes, u)
    assert torch.allclose(table, other, rtol=1e-4, atol=1e-7)
    assert int((drawn[0] != again[0]).sum()) == 0
    assert torch.equal(drawn[1], table.gather(1, drawn[0].unsqueeze(1)).squeeze(1))


def test_no_batch_changes_a_bit() -> None:
    choice, (features, sizes) = trained(), inputs(101, 2)
    whole = choice.probabilities(features, sizes)
    parts = [choice.probabilities(features[k : k + 7], sizes[k : k + 7]) for k in range(0, 101, 7)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("compiled", [True, False])
def test_numbers_choose_as_often_as_the_probabilities_say(compiled: bool) -> None:
    choice, n = trained(), 50_000
    if not compiled:
        choice.__dict__["_kernel"] = None
    features, sizes = inputs(1, 4)[0], torch.tensor([[1.0, 0.0, 2.0, 3.0, 4.0]]).double()
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    chosen, own = choice.draw(features.expand(n, -1), sizes.expand(n, -1), u)
    p = choice.probabilities(features, sizes)[0]
    assert int((p > 0).sum()) > 2
    assert torch.allclose(torch.bincount(chosen, minlength=TERMS).double() / n, p, rtol=0, atol=1.5 / n)
    terms = torch.arange(1.0, TERMS + 1).double() * (sizes[0] > 0)
    assert abs(float((terms[chosen] / own).mean() / terms.sum()) - 1) < 1e-3
    wrong = own.flip(0)
    assert abs(float((terms[chosen] / wrong).mean() / terms.sum()) - 1) > 1e-2


@pytest.mark.parametrize("compiled", [True, False])
def test_the_ends_of_the_interval_choose_what_can_be(compiled: bool) -> None:
    choice = trained()
    if not compiled:
        choice.__dict__["_kernel"] = None
    sizes = torch.tensor([[0.0, 1.0, 2.0, 3.0, 0.0]]).double().expand(2, -1)
    chosen, own = choice.draw(torch.zeros(2, FEATURES), sizes, torch.tensor([0.0, 1.0]))
    assert chosen.tolist() == [1, 3] and bool((own > 0).all())


@pytest.mark.parametrize("compiled", [True, False])
def test_nan_is_not_hidden(compiled: bool) -> None:
    choice = trained()
    if not compiled:
        choice.__dict__["_kernel"] = None
    sizes = torch.tensor([[1.0, torch.nan, 1.0, 1.0, 1.0]]).double()
    assert bool(choice.draw(torch.zeros(1, FEATURES), sizes, torch.tensor([0.5]))[1].isnan().all())


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"takes features \(4, 3\) and sizes \(4, 5\), got \(4, 3\) and \(3, 5\)"):
        trained().probabilities(torch.zeros(4, FEATURES), torch.ones(3, TERMS))


def table(n: int) -> Sums:
    x = 4 * torch.rand(n, FEATURES, generator=torch.Generator().manual_seed(8), dtype=torch.float64) - 2
    slopes = torch.linspace(-1.5, 1.5, TERMS, dtype=torch.float64)
    values = torch.exp(x[:, :1] * slopes + 0.5 * x[:, 1:2] * slopes.square())
    values[:, 2] *= -1.0
    sizes = torch.ones(n, TERMS, dtype=torch.float64)
    sizes[::3, 4] = values[::3, 4] = 0.0
    return Sums(x, sizes, values, values.sum(1))


def second_moment(choice: Choice, sums: Sums) -> float:
    share = sums.values.abs() / sums.values.abs().sum(1, keepdim=True)
    p = choice.probabilities(sums.features, sums.sizes)
    return float(torch.where(p > 0, share.square() / p, 0.0).sum(1).mean())


def test_what_is_learned_comes_close_to_the_shares_and_the_same_again() -> None:
    sums = table(4000)
    choice = Choice(learned(sums))
    assert second_moment(choice, sums) < 1.02
    assert second_moment(Choice(fresh_weights(TERMS, FEATURES)), sums) > 1.5
    again = learned(sums)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in choice.state().items())


def test_nothing_is_learned_from_hardly_any_point() -> None:
    features, sizes = inputs(4, 1)
    choice, prior = Choice(learned(table(60))), Choice(fresh_weights(TERMS, FEATURES))
    assert torch.equal(choice.probabilities(features, sizes), prior.probabilities(features, sizes))


def test_states_are_read_again() -> None:
    choice, (features, sizes) = trained(), inputs(20, 6)
    again = Choice.from_state(choice.state())
    assert torch.equal(again.probabilities(features, sizes), choice.probabilities(features, sizes))
