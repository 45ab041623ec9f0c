"""Flows: normalisation, sampling, domains and the ready-made assemblies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows import (
    Affine,
    AutoregressiveConfig,
    Composition,
    CouplingConfig,
    Flow,
    Logit,
    NetConfig,
    Permutation,
    Spline,
    StandardNormal,
    UniformCube,
    coupling_flow,
    iaf,
    maf,
)

KINDS = ("linear", "quadratic", "cubic", "rational_quadratic")
NET = NetConfig(hidden=10, layers=2)
WITH_CONTEXT = NetConfig(hidden=10, layers=2, context_dim=2)


def disturbed(flow: Flow, seed: int = 21, scale: float = 0.25) -> Flow:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return flow.double()


def midpoints(low: float, high: float, n: int) -> Tensor:
    grid = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.cartesian_prod(grid, grid)


def total_probability(flow: Flow, low: float, high: float, n: int, context: Tensor | None = None) -> float:
    points = midpoints(low, high, n)
    given = None if context is None else context.expand(len(points), -1)
    with torch.no_grad():
        return float(flow.log_prob(points, given).exp().mean()) * (high - low) ** 2


COUPLINGS = {
    f"coupling-{kind}-{domain}": CouplingConfig(Spline(kind, 5, domain, 3.0), NET)  # type: ignore[arg-type]
    for kind in KINDS
    for domain in ("unit", "line", "circle")
}
UNIT = AutoregressiveConfig(Spline(bins=5), NET, blocks=2)
LINE = AutoregressiveConfig(Spline(bins=5, domain="line", bound=3.0), NET, blocks=2)
AUTOREGRESSIVE = {"maf-unit": UNIT, "maf-line": LINE, "iaf-unit": UNIT, "iaf-line": LINE}
NAMES = [*COUPLINGS, *AUTOREGRESSIVE]


def fresh(name: str) -> Flow:
    if name in COUPLINGS:
        return coupling_flow(2, COUPLINGS[name])
    return (maf if name.startswith("maf") else iaf)(2, AUTOREGRESSIVE[name])


@pytest.mark.parametrize("name", NAMES)
def test_total_probability_is_one(name: str) -> None:
    flow = disturbed(fresh(name))
    low, high = (-7.0, 7.0) if flow.domain == "line" else (0.0, 1.0)
    tolerance = 5e-3 if "coupling-linear" in name else 5e-4
    assert total_probability(flow, low, high, 300) == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("domain", ["unit", "line"])
def test_total_probability_is_one_for_each_context(domain: str) -> None:
    config = CouplingConfig(Spline("rational_quadratic", 5, domain, 3.0), WITH_CONTEXT)  # type: ignore[arg-type]
    flow = disturbed(coupling_flow(2, config))
    low, high = (-7.0, 7.0) if domain == "line" else (0.0, 1.0)
    densities = []
    for context in ([[0.0, 0.0]], [[3.0, -2.0]]):
        given = torch.tensor(context, dtype=torch.float64)
        assert total_probability(flow, low, high, 300, given) == pytest.approx(1, abs=5e-4)
        densities.append(flow.log_prob(torch.full((1, 2), 0.4, dtype=torch.float64), given))
    assert abs(float((densities[0] - densities[1]).detach())) > 1e-3


def test_a_wrong_density_is_noticed() -> None:
    class Careless(Affine):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            y, log_det = super().forward(x, context)
            return y, log_det + 0.01

    flow = disturbed(Flow(StandardNormal(2), Careless(2)))
    assert abs(total_probability(flow, -9, 9, 300) - 1) > 5e-3


@pytest.mark.parametrize("name", NAMES)
def test_samples_come_with_their_density(name: str) -> None:
    flow = disturbed(fresh(name), scale=0.1)
    x, log_q = flow.sample(300, generator=torch.Generator().manual_seed(3))
    assert x.shape == (300, 2)
    assert log_q.shape == (300,)
    assert torch.allclose(flow.log_prob(x), log_q, atol=1e-6, rtol=0)
    again, _ = flow.sample(300, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, again)


@pytest.mark.parametrize("name", ["coupling-rational_quadratic-unit", "maf-line", "coupling-cubic-circle"])
def test_samples_follow_the_density(name: str) -> None:
    """Means of x and x² over drawn points against quadrature of the density, within five standard errors."""
    flow = disturbed(fresh(name))
    low, high = (-7.0, 7.0) if flow.domain == "line" else (0.0, 1.0)
    points = midpoints(low, high, 300)
    with torch.no_grad():
        weights = flow.log_prob(points).exp()
        weights = weights / weights.sum()
        x, _ = flow.sample(20_000, generator=torch.Generator().manual_seed(6))
    for power in (1, 2):
        expected = (weights[:, None] * points**power).sum(dim=0)
        values = x**power
        pull = (values.mean(dim=0) - expected) / (values.std(dim=0) / math.sqrt(len(x)))
        assert pull.abs().max() < 5


@pytest.mark.parametrize("assemble", [maf, iaf])
@pytest.mark.parametrize("kind", ["mlp", "residual"])
@pytest.mark.parametrize("hidden", [5, 30])
def test_slow_and_fast_direction_agree_in_many_dimensions(assemble: type, kind: str, hidden: int) -> None:
    """Also with fewer hidden units than coordinates."""
    net = NetConfig(kind, hidden, 2, context_dim=2)  # type: ignore[arg-type]
    config = AutoregressiveConfig(Spline(bins=4), net, blocks=2, order="random")
    flow = disturbed(assemble(12, config), scale=0.1)
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    x, log_q = flow.sample(50, context, generator)
    assert torch.allclose(flow.log_prob(x, context), log_q, atol=1e-7, rtol=0)


@pytest.mark.parametrize("masks", ["binary", "exchange", "random"])
@pytest.mark.parametrize("dim", [1, 2, 3, 9])
def test_fresh_flows_are_their_base(masks: str, dim: int) -> None:
    for domain in ("unit", "line"):
        config = CouplingConfig(Spline("rational_quadratic", 6, domain), NET, masks)  # type: ignore[arg-type]
        flow = coupling_flow(dim, config).double()
        x, log_q = flow.sample(20, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(log_q, flow.base.log_prob(x), atol=1e-9)
        assert torch.allclose(x, flow.base.sample(20, torch.Generator().manual_seed(1), dtype=x.dtype))


def orders(
    dim: int, config: AutoregressiveConfig, assemble: Callable[..., Flow] = maf, seed: int = 1
) -> list[list[int]]:
    transform = assemble(dim, config, generator=torch.Generator().manual_seed(seed)).transform
    return [part.order.tolist() for part in transform.modules() if isinstance(part, Permutation)]


@pytest.mark.parametrize("assemble", [maf, iaf])
def test_coordinates_stay_in_their_groups(assemble: Callable[..., Flow]) -> None:
    groups = (1, 3, 8)
    config = AutoregressiveConfig(net=NET, blocks=5, order="alternate", groups=groups)
    found = orders(12, config, assemble)
    assert len(found) == 4
    for number, order in enumerate(found):
        assert order[0] == 0
        assert sorted(order[1:4]) == [1, 2, 3]
        assert sorted(order[4:]) == list(range(4, 12))
        assert (order == [0, 3, 2, 1, *range(11, 3, -1)]) == (number % 2 == 0)
    assert found[1] != found[3]
    assert found != orders(12, config, assemble, seed=2)
    assert orders(12, replace(config, order="reverse"), assemble) == [found[0]] * 4


def test_one_group_is_the_default() -> None:
    for order in ("reverse", "random", "alternate"):
        config = AutoregressiveConfig(net=NET, blocks=3, order=order)  # type: ignore[arg-type]
        assert orders(5, config) == orders(5, replace(config, groups=(5,)))
        assert (sorted(orders(5, config)[1]) == [0, 1, 2, 3, 4]) and (orders(5, config)[1] == [4, 3, 2, 1, 0]) == (
            order == "reverse"
        )


@pytest.mark.parametrize("assemble", [maf, iaf])
def test_groups_must_add_up(assemble: Callable[..., Flow]) -> None:
    with pytest.raises(ConfigError, match="groups"):
        assemble(5, AutoregressiveConfig(net=NET, groups=(2, 2)))


def test_number_of_blocks() -> None:
    for dim, blocks, expected in ((1, None, 1), (2, None, 2), (5, None, 6), (5, 8, 8), (5, 1, 1)):
        flow = coupling_flow(dim, CouplingConfig(net=NET, blocks=blocks))
        assert isinstance(flow.transform, Composition)
        assert len(flow.transform.transforms) == expected


def test_one_dimension_learns() -> None:
    flow = coupling_flow(1, CouplingConfig(net=NET)).double()
    x = torch.rand(500, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64).square()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < -0.2  # the entropy is 1 - log 2 - 1 = -0.307


@pytest.mark.parametrize("bad", [-1e-3, 1.001, math.nan, math.inf])
def test_points_outside_the_cube_are_refused(bad: float) -> None:
    flow = coupling_flow(3, CouplingConfig(net=NET))
    x = torch.full((4, 3), 0.5)
    x[2, 1] = bad
    with pytest.raises(DomainError):
        flow.log_prob(x)
    with pytest.raises(DomainError):
        flow.from_latent(x)


def test_rounding_at_the_edges_of_the_cube_is_forgiven() -> None:
    flow = coupling_flow(2, CouplingConfig(net=NET))
    x = torch.tensor([[-5e-7, 0.5], [1 + 5e-7, 1.0], [0.0, 1.0]])
    assert torch.isfinite(flow.log_prob(x)).all()


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_non_finite_points_are_refused_on_the_line(bad: float) -> None:
    flow = maf(2, AutoregressiveConfig(net=NET))
    with pytest.raises(DomainError, match="finite"):
        flow.log_prob(torch.tensor([[0.0, bad]]))
    assert torch.isfinite(flow.log_prob(torch.tensor([[0.0, 100.0]]))).all()


def test_domain_of_a_logit_flow_can_be_the_cube() -> None:
    flow = Flow(StandardNormal(2), Logit(1e-6), domain="unit")
    with pytest.raises(DomainError):
        flow.log_prob(torch.tensor([[0.5, 1.5]]))
    x, log_q = flow.sample(50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.allclose(flow.log_prob(x), log_q, atol=1e-8)


def test_wrong_shapes_and_contexts_are_refused() -> None:
    plain = coupling_flow(3, CouplingConfig(net=NET))
    conditional = coupling_flow(3, CouplingConfig(net=WITH_CONTEXT))
    x = torch.rand(4, 3)
    for wrong in (x[:, :2], x[0], x[None]):
        with pytest.raises(ShapeError, match="points"):
            plain.log_prob(wrong)
    with pytest.raises(ShapeError, match="context"):
        plain.log_prob(x, torch.rand(4, 1))
    for context in (None, torch.rand(4, 3), torch.rand(3, 2)):
        with pytest.raises(ShapeError, match="context"):
            conditional.log_prob(x, context)
    assert conditional.log_prob(x, torch.rand(4, 2)).shape == (4,)


def test_no_points_give_no_densities() -> None:
    for flow in (coupling_flow(3, CouplingConfig(net=NET)), maf(3, AutoregressiveConfig(net=NET))):
        assert flow.log_prob(torch.empty(0, 3)).shape == (0,)
        assert flow.sample(0)[0].shape == (0, 3)


def test_bases() -> None:
    cube, normal = UniformCube(2), StandardNormal(2)
    z = torch.tensor([[0.0, 1.0], [0.3, 1.1]])
    assert cube.log_prob(z).tolist() == [0.0, -math.inf]
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    assert torch.allclose(normal.log_prob(z), expected)
    for base in (cube, normal):
        one, two = (base.sample(7, torch.Generator().manual_seed(1), dtype=torch.float64) for _ in range(2))
        assert one.shape == (7, 2)
        assert one.dtype == torch.float64
        assert torch.equal(one, two)
    with pytest.raises(ConfigError, match="dim = 0: must be"):
        UniformCube(0)


def test_bad_settings_are_refused() -> None:
    for options in ({"masks": "checkerboard"}, {"blocks": 0}):
        with pytest.raises(ConfigError):
            CouplingConfig(**options)  # type: ignore[arg-type]
    for options in (
        {"order": "sorted"},
        {"blocks": 0},
        {"net": NetConfig(fourier=1)},
        {"groups": ()},
        {"groups": (2, 0)},
    ):
        with pytest.raises(ConfigError):
            AutoregressiveConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="domain"):
        Flow(UniformCube(1), Affine(1), domain="disc")  # type: ignore[arg-type]
