"""Continuous flows: solvers, densities, flow matching and the networks of velocities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows.continuous import ContinuousFlow, ContinuousTransform, continuous_flow
from nisampler.flows.nets.velocity import TimeFeatures, VelocityConfig, VelocityMLP
from nisampler.flows.nets.vit import Patches, VelocityViT
from nisampler.flows.solvers import SOLVERS, SolverName, integrate

MLP = VelocityConfig(hidden=16, layers=2, frequencies=2, solver="rk4", steps=20)
VIT = replace(MLP, kind="velocity-vit", patch=(1, 2, 1), heads=2, expansion=2)
GRID = (2, 4, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disturbed(flow: ContinuousFlow, seed: int = 21, scale: float = 0.3) -> ContinuousFlow:
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator(seed))
    return flow.double()


def normal(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.randn(n, dim, generator=generator(seed), dtype=torch.float64)


class LinearField(nn.Module):
    """dx/dt = A x + b, whatever the transform adds to the network; records the times it was asked for."""

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix), nn.Parameter(shift)
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        self.times.append(t.detach())
        square = t.square() + (1 - t).square()
        x = x * square.sqrt()
        return x @ self.matrix.T + self.shift - x * ((2 * t - 1) / square)


MATRIX = torch.tensor([[0.4, -0.9, 0.1], [0.7, -0.3, 0.2], [0.0, 0.5, 0.6]], dtype=torch.float64)
SHIFT = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)


def linear_flow(**changes: Any) -> ContinuousFlow:
    field = LinearField(MATRIX.clone(), SHIFT.clone())
    return ContinuousFlow(ContinuousTransform(3, field, replace(MLP, **changes)))


def its_density() -> torch.distributions.MultivariateNormal:
    """x_1 = e^A x_0 + (integral of e^{As}) b, from one matrix exponential."""
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:3, :3], block[:3, 3] = MATRIX, SHIFT
    carried = torch.linalg.matrix_exp(block)
    return torch.distributions.MultivariateNormal(carried[:3, 3], carried[:3, :3] @ carried[:3, :3].T)


def error_of(name: SolverName, steps: int) -> float:
    """At t = 1 of dx/dt = 2 x t."""
    x = torch.ones(1, 1, dtype=torch.float64)
    found = integrate(lambda t, x: 2 * x * t, x, 0.0, 1.0, steps, SOLVERS[name])
    return abs(float(found) - math.e)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_converges_with_its_order(name: str) -> None:
    order = math.log2(error_of(name, 64) / error_of(name, 128))
    assert order == pytest.approx(SOLVERS[name].order, abs=0.15)


def test_the_orders_are_one_two_and_four() -> None:
    assert {name: solver.order for name, solver in SOLVERS.items()} == {"euler": 1, "midpoint": 2, "rk4": 4}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_tableau_is_explicit_and_consistent(name: str) -> None:
    solver = SOLVERS[name]
    assert [len(row) for row in solver.matrix] == list(range(len(solver.nodes)))
    assert [sum(row) for row in solver.matrix] == pytest.approx(list(solver.nodes))
    assert sum(solver.weights) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SOLVERS)
def test_there_and_back_is_the_identity_to_the_order_of_the_solver(name: str) -> None:
    errors = []
    for steps in (16, 32):
        flow = disturbed(continuous_flow(3, replace(MLP, solver=name, steps=steps)))  # type: ignore[arg-type]
        x = normal(50, 3)
        with torch.no_grad():
            back = flow.transform.transport(flow.transform.transport(x, None, 1.0, 0.0), None, 0.0, 1.0)
        errors.append(float((back - x).norm()))
    # the leading errors of the two ways cancel where the order is even, so that it can only be better
    assert math.log2(errors[0] / errors[1]) > SOLVERS[name].order - 0.3


@pytest.mark.parametrize("kind", ["velocity-mlp", "velocity-vit"])
def test_a_fresh_flow_is_the_identity(kind: Any) -> None:
    flow = continuous_flow(24, replace(VIT, kind=kind, steps=8), 2, grid=GRID).double()
    x, context = normal(5, 24), normal(5, 2, 5)
    with torch.no_grad():
        z, log_det = flow.to_latent(x, context)
        assert torch.allclose(z, x, atol=1e-3)
        assert torch.allclose(log_det, torch.zeros_like(log_det), atol=1e-3)
        assert torch.allclose(flow.log_prob(x, context), flow.base.log_prob(x), atol=1e-2)


def test_a_fresh_flow_has_the_loss_of_independent_normal_coordinates() -> None:
    """The mean over t of 1 / (t^2 + (1 - t)^2) is π/2."""
    flow = continuous_flow(50, MLP).double()
    with torch.no_grad():
        loss = float(flow.loss(normal(4000, 50), None, generator()).mean())
    assert loss == pytest.approx(math.pi / 2, abs=0.01)


def test_the_density_of_a_linear_field_is_exact() -> None:
    flow, exact = linear_flow(), its_density()
    x = exact.mean + normal(100, 3) @ exact.scale_tril.T
    assert torch.allclose(flow.log_prob(x), exact.log_prob(x), atol=1e-5)
    drawn, log_q = flow.sample(100, generator=generator())
    assert torch.allclose(log_q, exact.log_prob(drawn), atol=1e-5)


def test_the_density_converges_with_the_order_of_the_solver() -> None:
    exact = its_density()
    x = exact.mean + normal(100, 3) @ exact.scale_tril.T
    for name, solver in SOLVERS.items():
        errors = [
            float((linear_flow(solver=name, steps=steps).log_prob(x) - exact.log_prob(x)).detach().norm())
            for steps in (16, 32)
        ]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(solver.order, abs=0.35)


@torch.no_grad()
def test_draws_follow_the_density() -> None:
    x, exact = linear_flow().draw(40_000, generator=generator()), its_density()
    assert torch.allclose(x.mean(0), exact.mean, atol=0.03)
    assert torch.allclose(torch.cov(x.T), exact.covariance_matrix, atol=0.08)


def test_the_log_det_is_that_of_the_map() -> None:
    flow = disturbed(continuous_flow(3, replace(MLP, steps=40), 2))
    x, context = normal(3, 3), normal(3, 2, 3)
    _, log_det = flow.to_latent(x, context)
    for i in range(3):

        def latent(row: Tensor, i: int = i) -> Tensor:
            return flow.transform.transport(row.unsqueeze(0), context[i : i + 1], 1.0, 0.0)[0]

        jacobian = torch.autograd.functional.jacobian(latent, x[i])
        assert float(torch.linalg.slogdet(jacobian)[1]) == pytest.approx(float(log_det[i].detach()), abs=1e-5)


def test_total_probability_is_one_for_each_context() -> None:
    flow = disturbed(continuous_flow(2, replace(MLP, steps=6), 2), scale=0.2)
    line = -6 + 12 * (torch.arange(70, dtype=torch.float64) + 0.5) / 70
    points = torch.cartesian_prod(line, line)
    densities = []
    for context in ([[0.0, 0.0]], [[2.0, -2.0]]):
        given_ = torch.tensor(context, dtype=torch.float64).expand(len(points), -1)
        with torch.no_grad():
            density = flow.log_prob(points, given_).exp()
        assert float(density.mean()) * 144 == pytest.approx(1, abs=1e-3)
        densities.append(density)
    assert not torch.allclose(densities[0], densities[1], rtol=0.1)


def test_hutchinsons_estimate_is_unbiased() -> None:
    """Over 2000 draws of the signs; the control estimates the divergence of another field."""
    flow = disturbed(continuous_flow(4, MLP))
    x = normal(1, 4).expand(2000, 4)
    with torch.no_grad():
        exact = float(flow.log_prob(x[:1]))
        flow.transform.config = replace(MLP, divergence="hutchinson")
        found = flow.log_prob(x, generator=generator(3))
        other = disturbed(flow, seed=22, scale=0.1).log_prob(x, generator=generator(3))
    error = float(found.std()) / math.sqrt(2000)
    assert error > 0
    assert abs(float(found.mean()) - exact) < 4 * error
    assert abs(float(other.mean()) - exact) > 8 * error


def test_hutchinsons_signs_come_from_the_generator() -> None:
    flow = disturbed(continuous_flow(4, replace(MLP, divergence="hutchinson")))
    x = normal(5, 4)
    first, again, other = (flow.log_prob(x, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(flow.log_prob(x), flow.log_prob(x))


def test_one_coordinate_needs_no_estimate() -> None:
    flow = disturbed(continuous_flow(1, MLP))
    x = normal(5, 1)
    exact = flow.log_prob(x)
    flow.transform.config = replace(MLP, divergence="hutchinson")
    assert torch.allclose(flow.log_prob(x), exact)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_densities_need_no_gradients_of_the_caller(divergence: Any) -> None:
    flow = disturbed(continuous_flow(3, replace(MLP, divergence=divergence), 2))
    x, context = normal(5, 3), normal(5, 2)
    wanted = flow.log_prob(x, context)
    with torch.no_grad():
        plain = flow.log_prob(x, context)
    with torch.inference_mode():
        inside = flow.log_prob(x * 1.0, context * 1.0)
    assert wanted.requires_grad
    assert not plain.requires_grad
    assert torch.allclose(plain, wanted)
    assert torch.allclose(inside, wanted)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_the_gradient_of_a_density_is_its_slope(divergence: Any) -> None:
    flow = disturbed(continuous_flow(3, replace(MLP, divergence=divergence, steps=4)))
    x = normal(4, 3).requires_grad_()
    weight = flow.transform.network.net.output.weight  # type: ignore[union-attr]
    by_x, by_weight = torch.autograd.grad(flow.log_prob(x).sum(), [x, weight])
    step = 1e-5
    with torch.no_grad():
        moved = torch.zeros_like(x)
        moved[:, 1] = step
        slope = (flow.log_prob(x + moved) - flow.log_prob(x - moved)) / (2 * step)
        assert torch.allclose(slope, by_x[:, 1], atol=1e-6)
        weight[1, 2] += step
        above = float(flow.log_prob(x).sum())
        weight[1, 2] -= 2 * step
        assert (above - float(flow.log_prob(x).sum())) / (2 * step) == pytest.approx(float(by_weight[1, 2]), abs=1e-5)


@pytest.mark.parametrize("kind", ["velocity-mlp", "velocity-vit"])
def test_the_loss_reaches_every_weight(kind: Any) -> None:
    flow = disturbed(continuous_flow(24, replace(VIT, kind=kind), 2, grid=GRID))
    flow.loss(normal(8, 24), normal(8, 2), generator()).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in flow.parameters())


def test_the_loss_is_smallest_for_the_true_mean_velocity() -> None:
    """For a point mass at c, x_1 - x_0 = (c - x_t) / (1 - t) is known: no loss is left."""

    class Towards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
            square = t.square() + (1 - t).square()
            x = x * square.sqrt()
            return (2.0 - x) / (1 - t) - x * ((2 * t - 1) / square)

    flow = ContinuousFlow(ContinuousTransform(2, Towards(), MLP))
    x = torch.full((500, 2), 2.0, dtype=torch.float64)
    assert float(flow.loss(x, None, generator()).abs().max()) < 1e-12
    assert float(flow.loss(x + 0.1, None, generator()).min()) > 0.005


def test_the_times_of_a_batch_are_stratified_and_shuffled() -> None:
    flow = linear_flow()
    flow.loss(normal(100, 3), None, generator())
    (times,) = flow.transform.network.times  # type: ignore[union-attr,misc]
    cells = (times.flatten() * 100).floor().long()
    assert torch.equal(cells.sort().values, torch.arange(100))
    assert not torch.equal(cells, torch.arange(100))


def two_bumps(n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """At +-(1.5, c) with the context c."""
    context = 2 * torch.rand(n, 1, generator=source) - 1
    sign = 2.0 * torch.randint(2, (n, 1), generator=source) - 1
    centre = torch.cat([1.5 * sign, context * sign], dim=1)
    return centre + 0.2 * torch.randn(n, 2, generator=source), context


def share_in_bumps(x: Tensor, context: Tensor) -> float:
    centre = torch.cat([torch.full_like(context, 1.5), context], dim=1)
    near = torch.minimum((x - centre).norm(dim=1), (x + centre).norm(dim=1))
    return float((near < 0.6).double().mean())


def test_training_learns_two_bumps() -> None:
    """Controls: the fresh flow, and the trained one given the context of another point."""
    source = generator(4)
    flow = continuous_flow(2, replace(MLP, hidden=48, solver="midpoint"), 1, source)
    context = two_bumps(2000, source)[1]
    fresh = share_in_bumps(flow.draw(2000, context, source).detach(), context)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for _ in range(500):
        optimizer.zero_grad()
        flow.loss(*two_bumps(200, source), source).mean().backward()
        optimizer.step()
    with torch.no_grad():
        x = flow.draw(2000, context, source)
        truth, conditions = two_bumps(2000, source)
        log_prob = float(flow.log_prob(truth, conditions).mean())
    exact = -math.log(2) - math.log(2 * math.pi * 0.04) - 1.0  # up to the overlap of the bumps
    assert share_in_bumps(x, context) > 0.93
    assert fresh < 0.3
    assert share_in_bumps(x, -context) < 0.75
    assert abs(float((x[:, 0] > 0).double().mean()) - 0.5) < 0.06
    assert exact - 0.35 < log_prob < exact + 0.05


@given(counts=st.tuples(*[st.integers(1, 4)] * 3), patch=st.tuples(*[st.integers(1, 3)] * 3), n=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_patches_are_put_back_where_they_were(
    counts: tuple[int, int, int], patch: tuple[int, int, int], n: int
) -> None:
    a, b, c = (count * width for count, width in zip(counts, patch, strict=True))
    patches = Patches((a, b, c), patch)
    x = torch.arange(n * a * b * c, dtype=torch.float64).reshape(n, -1)
    tokens = patches(x)
    assert tokens.shape == (n, math.prod(counts), math.prod(patch))
    assert torch.equal(patches.inverse(tokens), x)
    block = x.reshape(n, a, b, c)[:, : patch[0], : patch[1], : patch[2]]
    assert torch.equal(tokens[:, 0], block.flatten(1))


@torch.no_grad()
def test_patches_tell_each_other_apart_and_showers_do_not_mix() -> None:
    flow = disturbed(continuous_flow(24, VIT, grid=GRID))
    x, t = normal(3, 24), torch.full((3, 1), 0.3, dtype=torch.float64)
    v = flow.transform.velocity(x, t)
    assert torch.allclose(flow.transform.velocity(x[1:2], t[1:2]), v[1:2])
    moved = x.clone()
    moved[1, 0] += 1.0
    change = (flow.transform.velocity(moved, t) - v).abs()
    assert float(change[[0, 2]].max()) == 0
    assert float(change[1].min()) > 0
    rolled = x.reshape(3, 2, 12).roll(1, 1).flatten(1)
    assert not torch.allclose(flow.transform.velocity(rolled, t).reshape(3, 2, 12).roll(1, 1).flatten(1), v)


@pytest.mark.parametrize("kind", ["velocity-mlp", "velocity-vit"])
def test_weights_depend_on_the_generator_alone(kind: Any) -> None:
    config = replace(VIT, kind=kind)
    state = torch.random.get_rng_state()
    first, again, other = (continuous_flow(24, config, 2, generator(seed), GRID).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_number_of_weights_of_a_transformer() -> None:
    """12 width^2 of a block with perceptrons of four widths, and 6 width^2 of what steers it, up to biases."""
    config = VelocityConfig("velocity-vit", 480, 6, patch=(3, 16, 1), heads=6)
    with torch.device("meta"):
        network = VelocityViT((45, 16, 9), 46, config, generator())
    weights = sum(p.numel() for block in network.blocks for p in block.parameters())
    assert weights == pytest.approx(6 * 18 * 480**2, rel=0.005)


def test_the_time_is_told_apart_at_its_ends() -> None:
    features = TimeFeatures(3)(torch.tensor([[0.0], [1.0]]))
    assert features.shape == (2, 7)
    assert not torch.allclose(features[0], features[1], atol=0.1)


def test_single_precision_networks_serve_double_precision_points() -> None:
    for config in (MLP, VIT):
        flow = continuous_flow(24, config, 2, grid=GRID)
        assert flow.draw(4, torch.randn(4, 2, generator=generator()), generator(), torch.float64).dtype == torch.float64
        assert flow.loss(normal(4, 24), normal(4, 2), generator()).dtype == torch.float64


def test_draws_are_reproducible() -> None:
    flow = disturbed(continuous_flow(3, MLP))
    assert torch.equal(flow.draw(5, None, generator(1)), flow.draw(5, None, generator(1)))
    assert torch.allclose(flow.draw(5, None, generator(1)), flow.sample(5, None, generator(1))[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "mlp"}, 'must be "velocity-mlp" or "velocity-vit"'),
        ({"hidden": 0}, "hidden = 0: must be a whole number, at least 1"),
        ({"layers": 0}, "layers = 0: must be"),
        ({"steps": 0}, "steps = 0: must be"),
        ({"frequencies": -1}, "frequencies = -1: must be a whole number, at least 0"),
        ({"kind": "velocity-vit", "hidden": 10, "heads": 4}, "4 heads do not divide a width of 10"),
        ({"divergence": "trace"}, 'divergence = "trace": must be "exact" or "hutchinson"'),
        ({"activation": "step"}, 'activation = "step": must be "silu" or'),
        ({"solver": "dopri5"}, 'solver = "dopri5": must be "euler" or "midpoint" or "rk4"'),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VelocityConfig(**changes)


def test_grids_and_patches_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"do not fill a grid of \(2, 4, 3\)"):
        continuous_flow(24, replace(VIT, patch=(1, 3, 1)), grid=GRID)
    for grid in (None, (2, 4, 4)):
        with pytest.raises(ConfigError, match="needs a grid of 24 cells"):
            continuous_flow(24, VIT, grid=grid)


def test_points_and_contexts_are_checked() -> None:
    flow = continuous_flow(3, MLP, 2)
    x, context = torch.zeros(4, 3), torch.zeros(4, 2)
    for call in (lambda x, c: flow.log_prob(x, c), lambda x, c: flow.loss(x, c, generator())):
        with pytest.raises(ShapeError, match="points of shape"):
            call(torch.zeros(4, 2), context)
        with pytest.raises(ShapeError, match="context of shape"):
            call(x, None)
        with pytest.raises(DomainError, match="finite"):
            call(torch.full((4, 3), math.nan), context)
    with pytest.raises(ShapeError, match="context of shape"):
        flow.draw(4, torch.zeros(3, 2), generator())
    with pytest.raises(ShapeError, match="context"):
        VelocityMLP(3, 2, MLP, generator())(x, torch.zeros(4, 1))
