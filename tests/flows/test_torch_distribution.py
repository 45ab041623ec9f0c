"""Flows as distributions of torch: shapes, densities, draws, gradients, and torch's own compositions of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    SigmoidTransform,
    TransformedDistribution,
)

from nisampler.errors import DomainError, ShapeError
from nisampler.flows import (
    AutoregressiveConfig,
    CouplingConfig,
    Flow,
    FlowDistribution,
    NetConfig,
    Spline,
    coupling_flow,
    iaf,
    maf,
)

NET = NetConfig(hidden=10, layers=2, context_dim=2)
LINE = AutoregressiveConfig(Spline(domain="line", bins=4), NET, blocks=2)


def disturbed(flow: Flow) -> Flow:
    """A flow that is far from the identity, in double precision."""
    generator = torch.Generator().manual_seed(21)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.25 * torch.randn(parameter.shape, generator=generator)
    return flow.double()


def cube(context_dim: int = 0) -> Flow:
    return disturbed(
        coupling_flow(2, CouplingConfig(Spline(bins=5), NetConfig(hidden=10, layers=2, context_dim=context_dim)))
    )


def contexts(*shape: int) -> Tensor:
    return torch.rand(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("assemble", [maf, iaf])
def test_densities_and_shapes_are_those_of_the_flow(assemble: object) -> None:
    flow = disturbed(assemble(3, LINE))  # type: ignore[operator]
    given = contexts(4, 5)
    found = flow.distribution(given)
    x = found.sample((7,))
    assert (found.batch_shape, found.event_shape, x.shape) == ((4, 5), (3,), (7, 4, 5, 3))
    log_prob = found.log_prob(x)
    assert log_prob.shape == (7, 4, 5)
    for row, column in ((0, 0), (3, 1)):
        alone = flow.log_prob(x[:, row, column], given[row, column])
        assert torch.allclose(log_prob[:, row, column], alone)
        assert torch.allclose(found.log_prob(x[0, 0, 0])[row, column], flow.log_prob(x[0, 0, :1], given[row, column]))


def test_one_context_is_no_batch_and_none_is_needed_by_a_flow_without() -> None:
    assert disturbed(maf(3, LINE)).distribution(contexts()).batch_shape == ()
    assert cube().distribution().sample().shape == (2,)
    assert cube().distribution().sample((0,)).shape == (0, 2)


def test_draws_follow_the_global_seed_as_those_of_the_flow_do() -> None:
    flow = cube()
    torch.manual_seed(5)
    first = flow.distribution().sample((6,))
    torch.manual_seed(5)
    second, other = flow.distribution().sample((6,)), flow.distribution().sample((6,))
    torch.manual_seed(5)
    assert torch.equal(first, second) and torch.equal(first, flow.sample(6)[0]) and not torch.equal(first, other)
    assert not first.requires_grad


def test_draws_have_the_density() -> None:
    """Mean of 1/p over draws in the cube is its volume; the draws of another flow fail the same test."""
    torch.manual_seed(1)
    found, flat = cube().distribution(), coupling_flow(2).double().distribution()
    for drawn, fails in ((found, False), (flat, True)):
        weights = (-found.log_prob(drawn.sample((20_000,)))).exp().detach()
        assert bool((weights.mean() - 1).abs() > 5 * weights.std() / 20_000**0.5) is fails


def test_gradients_of_draws_are_those_of_finite_differences() -> None:
    flow, given = disturbed(maf(2, LINE)), contexts().requires_grad_()

    def mean(context: Tensor) -> Tensor:
        torch.manual_seed(2)
        return flow.distribution(context).rsample((20,)).square().mean()

    found = torch.autograd.grad(mean(given), [given, *flow.parameters()], allow_unused=True)
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    numeric = torch.stack([(mean(given + e) - mean(given - e)) / 2e-6 for e in step])
    assert torch.allclose(found[0], numeric, rtol=1e-5)
    assert any(part is not None and bool(part.abs().max() > 0) for part in found[1:])


def test_expanded_distributions_share_everything() -> None:
    given = contexts(3)
    found = disturbed(maf(2, LINE)).distribution(given, validate_args=True)
    large = found.expand((4, 3))
    x = found.sample()
    assert isinstance(large, FlowDistribution) and large.sample((2,)).shape == (2, 4, 3, 2)
    assert torch.allclose(large.log_prob(x), found.log_prob(x).expand(4, 3))
    assert large.flow is found.flow and large.context.data_ptr() == given.data_ptr()  # type: ignore[union-attr]
    assert cube().distribution().expand((3,)).sample().shape == (3, 2)
    with pytest.raises(ValueError, match="inf"):
        large.log_prob(torch.full((2,), torch.inf, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="expand"):
        found.expand((4,))


def test_inside_the_compositions_of_torch() -> None:
    flow, given = cube(2), contexts(3)
    found = flow.distribution(given)
    x = found.sample((50,))
    whole = Independent(found, 1)
    assert whole.event_shape == (3, 2) and torch.allclose(whole.log_prob(x), found.log_prob(x).sum(-1))
    share = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    mixture = MixtureSameFamily(Categorical(share), found)
    points = mixture.sample((50,))
    each = torch.stack([flow.log_prob(points, context).exp() for context in given], 1)
    assert torch.allclose(mixture.log_prob(points).exp(), each @ share)
    scaled = TransformedDistribution(found, AffineTransform(2.0, 3.0, event_dim=1))
    assert torch.allclose(scaled.log_prob(2 + 3 * x), found.log_prob(x) - 2 * torch.log(torch.tensor(3.0)))
    assert scaled.rsample((4,)).shape == (4, 3, 2) and scaled.has_rsample
    line = disturbed(maf(2, LINE)).distribution(contexts())
    squeezed = TransformedDistribution(line, SigmoidTransform())
    assert squeezed.event_shape == (2,) and bool((squeezed.sample((9,)) < 1).all())


def test_the_support_is_checked() -> None:
    found = cube().distribution(validate_args=True)
    inside = torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert bool(found.support.check(inside)) and not bool(found.support.check(inside + 0.2))
    assert found.log_prob(inside).shape == ()
    with pytest.raises(ValueError, match="within the support"):
        found.log_prob(inside + 0.2)
    with pytest.raises(DomainError, match=r"\[0, 1\]\^2"):
        cube().distribution(validate_args=False).log_prob(inside + 0.2)
    with pytest.raises(ValueError, match="context"):
        cube(2).distribution(torch.full((2,), torch.nan), validate_args=True)


def test_what_is_not_known_says_so() -> None:
    found: Distribution = cube().distribution()
    for name in ("mean", "variance"):
        with pytest.raises(NotImplementedError):
            getattr(found, name)
    with pytest.raises(NotImplementedError):
        found.entropy()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("given", [None, torch.zeros(3), torch.zeros(4, 1)])
def test_contexts_must_fit(given: Tensor | None) -> None:
    with pytest.raises(ShapeError, match=r"\(\.\.\., 2\)"):
        cube(2).distribution(given)
    with pytest.raises(ShapeError, match="shape None"):
        cube().distribution(torch.zeros(3))
