"""Variational layers: their KL, noise and draws, known posteriors, and flows that are steered by them."""

from __future__ import annotations

import copy
import dataclasses
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from nisampler.errors import ConfigError
from nisampler.flows import (
    AutoregressiveConfig,
    CouplingConfig,
    Flow,
    NetConfig,
    Spline,
    VariationalLinear,
    coupling_flow,
    draw,
    kl,
    training_noise,
    use_map,
)

NET = NetConfig(kind="bayesian", hidden=12, layers=2, context_dim=2)
DIM = 4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(d_in: int = 5, d_out: int = 3, seed: int = 1, log_variance: float = -2.0) -> VariationalLinear:
    """A layer in float64 with weights of different widths."""
    layer = VariationalLinear(d_in, d_out, 4.0, log_variance, seeded(seed)).double()
    layer.log_variance.data += torch.randn(d_out, d_in, generator=seeded(seed + 1), dtype=torch.float64)
    return layer


def bayesian_flow(domain: str = "line", seed: int = 3) -> Flow:
    """A flow in evaluation mode whose weights are away from their start."""
    config = CouplingConfig(Spline(bins=5, domain=domain, bound=3.0), NET)  # type: ignore[arg-type]
    flow = coupling_flow(DIM, config, generator=seeded(seed)).double().eval()
    generator = seeded(seed + 1)
    for parameter in flow.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return flow


def data(n: int, domain: str = "line", seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    x = torch.rand(n, DIM, generator=generator, dtype=torch.float64)
    return 8 * x - 4 if domain == "line" else x, torch.randn(n, 2, generator=generator, dtype=torch.float64)


# The layer


@settings(max_examples=20)
@given(
    precision=st.floats(1e-2, 1e4),
    log_variance=st.floats(-20, 5),
    d_in=st.integers(1, 6),
    d_out=st.integers(1, 6),
)
def test_kl_against_torch_distributions(precision: float, log_variance: float, d_in: int, d_out: int) -> None:
    layer = VariationalLinear(d_in, d_out, precision, log_variance, seeded(1)).double()
    layer.log_variance.data += torch.randn(d_out, d_in, generator=seeded(2), dtype=torch.float64)
    prior = Normal(0.0, torch.tensor(precision, dtype=torch.float64).rsqrt())
    posterior = Normal(layer.mean, (0.5 * layer.log_variance).exp())
    assert torch.allclose(layer.kl(), kl_divergence(posterior, prior).sum(), rtol=1e-10)
    two = nn.Sequential(layer, nn.ReLU(), VariationalLinear(d_out, 2, 1.0, 0.0, None).double())
    assert torch.allclose(kl(two), layer.kl(), rtol=1e-12), "the second layer is its prior, and biases cost nothing"


def test_kl_is_that_of_published_settings() -> None:
    """1/2 (500 e^-9 + 9 - 1 - log 500) for each weight with mean zero."""
    net = NetConfig(kind="bayesian", hidden=4, layers=1).build(3, 2, seeded(1))
    for layer in net.modules():
        if isinstance(layer, VariationalLinear):
            nn.init.zeros_(layer.mean)
    expected = 0.5 * (500 * math.exp(-9) + 8 - math.log(500)) * (3 * 4 + 4 * 2)
    assert kl(net).item() == pytest.approx(expected, rel=1e-6)


def pulls(layer: VariationalLinear, outputs: Tensor, x: Tensor, weight_noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Deviations of mean and variance of outputs (m, n, d_out) from those of sampled weights, in standard errors."""
    weight = layer.mean + weight_noise * (0.5 * layer.log_variance).exp() * torch.randn(
        len(outputs), *layer.mean.shape, generator=seeded(9), dtype=torch.float64
    )
    sampled = x @ weight.transpose(1, 2) + layer.bias
    errors = (sampled.var(0) + outputs.var(0)).div(len(outputs)).sqrt()
    ratio = (outputs.var(0) / sampled.var(0)).log() / math.sqrt(4 / len(outputs))
    return ((outputs.mean(0) - sampled.mean(0)) / errors).detach(), ratio.detach()


def test_local_reparametrisation_has_the_law_of_sampled_weights() -> None:
    layer, m = linear(), 20_000
    x = torch.randn(4, 5, generator=seeded(3), dtype=torch.float64)
    with training_noise(layer, seeded(4)):
        outputs = layer(x.repeat(m, 1)).view(m, 4, 3)
    for pull in pulls(layer, outputs, x):
        assert pull.abs().max() < 4.5
    assert pulls(layer, outputs, x, weight_noise=1.1)[1].abs().max() > 10, "the wrong width is noticed"
    correlation = torch.corrcoef(outputs[:, :, 0].t()) - torch.eye(4)
    assert correlation.abs().max() < 5 / math.sqrt(m), "every point has weights of its own"


def test_draws_have_the_law_of_the_posterior() -> None:
    layer, generator = linear().eval(), seeded(4)
    x = torch.randn(4, 5, generator=seeded(3), dtype=torch.float64)
    outputs = []
    for _ in range(2000):
        draw(layer, generator)
        outputs.append(layer(x))
    for pull in pulls(layer, torch.stack(outputs), x):
        assert pull.abs().max() < 4.5


def test_noise_comes_from_the_generator_alone() -> None:
    flow = bayesian_flow().train()
    x, context = data(20)
    state = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        with training_noise(flow, seeded(seed)):
            results.append(flow.log_prob(x, context))
    draw(flow, seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_gradients_are_finite_where_the_variance_vanishes() -> None:
    layer = VariationalLinear(3, 2, 1.0, -9.0, seeded(1))
    for low in (False, True):
        x = torch.tensor([[0.0, 0.0, 0.0], [1e-30, 0.0, 0.0], [1.0, -2.0, 3.0]], requires_grad=True)
        layer.zero_grad()
        with training_noise(layer, seeded(2)), torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
            layer(x).square().sum().backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()
        for parameter in layer.parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any()


# Draws and the mean


def test_a_draw_is_frozen_and_another_differs() -> None:
    flow = bayesian_flow()
    x, context = data(20)
    values = []
    for seed in (1, 2, 1):
        draw(flow, seeded(seed))
        values.append(flow.log_prob(x, context))
        assert torch.equal(flow.log_prob(x, context), values[-1])
        assert torch.allclose(flow.log_prob(x[:3], context[:3]), values[-1][:3]), "all points share the weights"
    assert torch.equal(values[0], values[2])
    assert not torch.allclose(values[0], values[1])
    use_map(flow)
    assert not torch.allclose(flow.log_prob(x, context), values[0])


def test_a_draw_depends_on_the_seed_alone() -> None:
    """Not on the dtype of the weights, nor on what was drawn before; a copy keeps it, a state dict does not."""
    flow, single = bayesian_flow(), bayesian_flow().float()
    x, context = data(20)
    for module in (flow, single):
        draw(module, seeded(7))
    value = flow.log_prob(x, context)
    assert torch.allclose(single.log_prob(x.float(), context.float()).double(), value, atol=1e-3)
    assert torch.equal(copy.deepcopy(flow).log_prob(x, context), value)
    loaded = bayesian_flow(seed=30)
    loaded.load_state_dict(load(save(flow.state_dict())))
    use_map(flow)
    assert torch.equal(loaded.log_prob(x, context), flow.log_prob(x, context))
    draw(loaded, seeded(7))
    assert torch.equal(loaded.log_prob(x, context), value)


def test_map_is_the_limit_of_no_width() -> None:
    flow = bayesian_flow()
    x, context = data(20)
    means = flow.log_prob(x, context)
    start = {name: p.clone() for name, p in flow.named_parameters() if name.endswith("log_variance")}
    draw(flow, seeded(1))
    distances = []
    for shift in (0.0, -8.0, -80.0):
        for name, value in start.items():
            flow.get_parameter(name).data = value + shift
        distances.append((flow.log_prob(x, context) - means).abs().max().item())
        with training_noise(flow.train(), seeded(2)):
            distances.append((flow.log_prob(x, context) - means).abs().max().item())
        flow.eval()
    assert distances[0] > 20 * distances[2] > 0
    assert max(distances[4:]) < 1e-8, "all widths are zero"


def test_fresh_flows_are_the_identity_at_the_means_and_nearly_so_in_a_draw() -> None:
    flow = coupling_flow(DIM, CouplingConfig(net=NET)).double().eval()
    x, context = data(50, "unit")
    assert flow.log_prob(x, context).abs().max() < 1e-12
    draw(flow, seeded(1))
    assert 1e-6 < flow.log_prob(x, context).abs().max() < 0.3


# Flows


@pytest.mark.parametrize("domain", ["unit", "line"])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_laws_of_a_flow_in_a_frozen_draw(domain: str, seed: int) -> None:
    flow = bayesian_flow(domain)
    draw(flow, seeded(seed))
    x, context = data(10, domain, seed)
    y, log_det = flow.transform(x, context)
    back, back_det = flow.transform.inverse(y, context)
    assert (back - x).abs().max() < 1e-9
    assert torch.allclose(log_det, -back_det, atol=1e-8, rtol=0)
    for function, point, claimed in ((flow.transform, x, log_det), (flow.transform.inverse, y, back_det)):

        def total(p: Tensor, f: Any = function) -> Tensor:
            result: Tensor = f(p, context)[0].sum(0)
            return result

        jacobian = torch.autograd.functional.jacobian(total, point.detach()).permute(1, 0, 2)  # type: ignore[no-untyped-call]
        assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, claimed, atol=1e-7, rtol=0)
    assert (y - x).abs().max() > 1e-3


def test_laws_do_not_hold_across_draws() -> None:
    """The negative control: noise that is not frozen, or another draw, breaks the inverse."""
    flow = bayesian_flow()
    x, context = data(20)
    draw(flow, seeded(1))
    y, _ = flow.transform(x, context)
    draw(flow, seeded(2))
    assert (flow.transform.inverse(y, context)[0] - x).abs().max() > 1e-3
    with training_noise(flow.train(), seeded(3)):
        y, _ = flow.transform(x, context)
        assert (flow.transform.inverse(y, context)[0] - x).abs().max() > 1e-3


def test_samples_have_the_density_of_their_draw() -> None:
    flow = bayesian_flow()
    draw(flow, seeded(1))
    _, context = data(50)
    x, log_q = flow.sample(50, context, seeded(2))
    assert torch.allclose(flow.log_prob(x, context), log_q, atol=1e-8)


# Known posteriors


def minimise(module: nn.Module, nll: Any, n: int, steps: int, rate: float, kl_weight: float = 1.0) -> None:
    """Minimise NLL + KL / n with a rate that falls to zero."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with training_noise(module.train(), seeded(11)):
        for _ in range(steps):
            optimizer.zero_grad()
            (nll() + kl_weight * kl(module) / n).backward()
            optimizer.step()
            schedule.step()
    module.eval()


def regression(n: int, kl_weight: float = 1.0) -> tuple[VariationalLinear, Tensor, Tensor]:
    """A fitted layer, and the exact optimum of its means and log variances, for y = w x + b with noise 0.5."""
    x = torch.randn(n, 2, generator=seeded(1), dtype=torch.float64) * torch.tensor([0.5, 2.0], dtype=torch.float64)
    noise = 0.5 * torch.randn(n, generator=seeded(2), dtype=torch.float64)
    y = x @ torch.tensor([1.0, -0.4], dtype=torch.float64) + 0.3 + noise
    layer = VariationalLinear(2, 1, 2.0, -4.0, seeded(3)).double()
    many = x.repeat(-(-1000 // n), 1), y.repeat(-(-1000 // n))
    minimise(layer, lambda: (layer(many[0]).squeeze(1) - many[1]).square().mean() / 0.5, n, 1500, 0.05, kl_weight)
    # the bias has no prior; the best independent widths are the diagonal of the precision
    design = torch.cat([x, torch.ones(n, 1, dtype=torch.float64)], 1)
    precision = design.t() @ design / 0.25 + torch.diag(torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64))
    means = torch.linalg.solve(precision, design.t() @ y / 0.25)
    return layer, means[:2], -precision.diagonal()[:2].log()


@pytest.mark.parametrize("n", [10, 160])
def test_linear_regression_finds_its_exact_posterior(n: int) -> None:
    layer, means, log_variances = regression(n)
    assert torch.allclose(layer.log_variance[0], log_variances, atol=0.05)
    assert ((layer.mean[0] - means).abs() / (0.5 * log_variances).exp()).max() < 0.05


def test_a_wrong_weight_of_the_kl_is_noticed() -> None:
    layer, _, log_variances = regression(10, kl_weight=0.5)
    assert (layer.log_variance[0] - log_variances).abs().max() > 0.3


def test_error_band_of_a_flow_shrinks_with_the_number_of_points() -> None:
    spreads = []
    grid = torch.linspace(0.05, 0.95, 10)
    points = torch.cartesian_prod(grid, grid)
    for n in (50, 5000):
        x = torch.rand(n, 2, generator=seeded(1)).sqrt()
        net = NetConfig(kind="bayesian", hidden=16, layers=1, prior_precision=1.0, initial_log_variance=-4.0)
        flow = coupling_flow(2, CouplingConfig(Spline(bins=4), net), generator=seeded(2))
        chosen = seeded(3)

        def nll(x: Tensor = x, flow: Flow = flow, chosen: torch.Generator = chosen) -> Tensor:
            return -flow.log_prob(x[torch.randint(len(x), (500,), generator=chosen)]).mean()

        minimise(flow, nll, n, 300, 0.02)
        densities, generator = [], seeded(4)
        for _ in range(20):
            draw(flow, generator)
            densities.append(flow.log_prob(points).exp().detach())
        spreads.append(torch.stack(densities).std(0).mean().item())
    assert spreads[0] > 2 * spreads[1] > 0.01


# Settings and errors


def test_settings_survive_the_way_of_a_stored_model() -> None:
    net = dataclasses.replace(NET, prior_precision=30.0, initial_log_variance=-7.0)
    assert NetConfig(**dataclasses.asdict(net)) == net
    layers = [layer for layer in net.build(2, 3, seeded(1)).modules() if isinstance(layer, VariationalLinear)]
    assert len(layers) == net.layers + 1
    assert all(layer.prior_precision == 30.0 and (layer.log_variance == -7.0).all() for layer in layers)


def test_errors_are_named() -> None:
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="prior_precision"):
            NetConfig(prior_precision=value)
        with pytest.raises(ConfigError, match="prior_precision"):
            VariationalLinear(2, 2, value, -9.0, None)
    for value in (math.nan, math.inf):
        with pytest.raises(ConfigError, match="initial_log_variance"):
            NetConfig(initial_log_variance=value)
    with pytest.raises(ConfigError, match="coupling flows"):
        AutoregressiveConfig(net=NET)
    plain = coupling_flow(2)
    for use in (kl, use_map, lambda m: draw(m, seeded(1)), lambda m: training_noise(m, seeded(1)).__enter__()):
        with pytest.raises(ConfigError, match="kind='bayesian'"):
            use(plain)


def test_training_without_noise_is_refused() -> None:
    flow = bayesian_flow().train()
    x, context = data(3)
    with pytest.raises(ConfigError, match="training_noise"):
        flow.log_prob(x, context)
    with training_noise(flow, seeded(1)):
        with training_noise(flow, seeded(2)):
            inner = flow.log_prob(x, context)
        outer = flow.log_prob(x, context)
    assert not torch.equal(inner, outer)
    with pytest.raises(ConfigError, match="training_noise"):
        flow.log_prob(x, context)
    with pytest.raises(ConfigError, match="generator on"), training_noise(flow.to("meta"), seeded(1)):
        pass
