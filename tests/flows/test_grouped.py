"""Grouped flows and grids: the laws of a flow in every group, and equality with flows and grids of their own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows import (
    CouplingConfig,
    Flow,
    GridSpline,
    GroupedFlow,
    NetConfig,
    Spline,
    coupling_flow,
)
from nisampler.flows.grouped import _Tiles
from nisampler.samplers.grid import VegasGrid

NET = NetConfig(hidden=10, layers=2)
CONFIGS = {
    "plain": CouplingConfig(Spline(bins=5), NET),
    "fourier": CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=1, fourier=2, centre=True, activation="tanh")),
    "random": CouplingConfig(Spline(bins=4), NET, masks="random", blocks=3),
    "circle": CouplingConfig(Spline(bins=4, domain="circle"), NET),
    "quadratic": CouplingConfig(Spline("quadratic", 5), NET),
}
COUNTS = {
    "even": [20, 20, 20],
    "uneven": [150, 0, 3],
    "one": [0, 1, 0],
    "none": [0, 0, 0],
    "alone": [0, 0, 70],
}


def disturb(flow: Flow | GroupedFlow, seed: int = 21, scale: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def separate_and_grouped(
    dim: int, groups: int, config: CouplingConfig, dtype: torch.dtype = torch.float64
) -> tuple[list[Flow], GroupedFlow]:
    """Flows with weights of their own, and the grouped flow that holds the same weights."""
    flows = [coupling_flow(dim, config).to(dtype) for _ in range(groups)]
    for seed, flow in enumerate(flows):
        disturb(flow, seed)
    states = [flow.state_dict() for flow in flows]
    grouped = GroupedFlow(dim, groups, config).to(dtype)
    grouped.load_state_dict(
        {k: v if k.endswith("mask") else torch.stack([state[k] for state in states]) for k, v in states[0].items()}
    )
    return flows, grouped


def batch(counts: list[int], dim: int, seed: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Points in random order with the given number in each group."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.repeat_interleave(torch.tensor(counts))
    group = group[torch.randperm(len(group), generator=generator)]
    return torch.rand(len(group), dim, generator=generator, dtype=dtype), group


def one_by_one(flows: list[Flow], x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    z, log_q = torch.zeros_like(x), x.new_zeros(len(x))
    for g, flow in enumerate(flows):
        at = (group == g).nonzero().squeeze(1)
        z_g, log_q_g = flow.to_latent(x[at])
        z, log_q = z.index_copy(0, at, z_g), log_q.index_copy(0, at, log_q_g)
    return z, log_q


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_equals_separate_flows_in_value_and_gradient(config: CouplingConfig, counts: list[int]) -> None:
    flows, grouped = separate_and_grouped(4, 3, config)
    x, group = batch(counts, 4)
    z, log_q = grouped.to_latent(x, group)
    z_each, log_q_each = one_by_one(flows, x, group)
    torch.testing.assert_close((z, log_q), (z_each, log_q_each), rtol=1e-10, atol=1e-10)
    (log_q.sum() + z.sin().sum()).backward()
    (log_q_each.sum() + z_each.sin().sum()).backward()
    separate = [dict(flow.named_parameters()) for flow in flows]
    for name, parameter in grouped.named_parameters():
        grads = [torch.zeros_like(p[name]) if p[name].grad is None else p[name].grad for p in separate]
        torch.testing.assert_close(parameter.grad, torch.stack(grads), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_group_is_the_coupling_flow_of_the_same_seed(dtype: torch.dtype) -> None:
    single = coupling_flow(5, generator=torch.Generator().manual_seed(3)).to(dtype)
    grouped = GroupedFlow(5, 1, generator=torch.Generator().manual_seed(3)).to(dtype)
    disturb(single, scale=0.05)
    disturb(grouped, scale=0.05)
    x, group = batch([40], 5, dtype=dtype)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(grouped.log_prob(x, group), single.log_prob(x), rtol=tolerance, atol=tolerance)


def test_float32_weights_on_float64_points_invert_to_float64_precision() -> None:
    flows, grouped = separate_and_grouped(3, 3, CONFIGS["plain"], torch.float32)
    x, group = batch([30, 2, 9], 3)
    z, log_q = grouped.to_latent(x, group)
    back, log_q_back = grouped.from_latent(z, group)
    assert z.dtype == log_q.dtype == torch.float64
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_q_back, log_q, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_q, one_by_one(flows, x, group)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_inverse_and_log_det(name: str, dim: int) -> None:
    grouped = separate_and_grouped(dim, 3, CONFIGS[name])[1]
    z, group = batch([4, 0, 3], dim)
    x, log_q = grouped.from_latent(z, group)
    back, log_q_back = grouped.to_latent(x, group)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_q_back, log_q, rtol=0, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda u: grouped.from_latent(u, group)[0].sum(0), z)
    each = jacobian.permute(1, 0, 2)
    torch.testing.assert_close(-torch.linalg.slogdet(each).logabsdet, log_q, rtol=1e-8, atol=1e-8)


def test_points_do_not_see_each_other() -> None:
    grouped = separate_and_grouped(3, 3, CONFIGS["plain"])[1]
    x, group = batch([4, 1, 3], 3)
    jacobian = torch.autograd.functional.jacobian(lambda u: grouped.to_latent(u, group)[0], x)
    across = jacobian.abs().sum(dim=(1, 3))
    assert (across.diag() > 0).all()
    assert float((across - across.diag().diag()).max()) == 0.0


def test_gradients_match_finite_differences() -> None:
    config = CouplingConfig(Spline(bins=3), NetConfig(hidden=3, layers=1))
    grouped = separate_and_grouped(2, 2, config)[1]
    x, group = batch([3, 2], 2)
    parameters = list(grouped.parameters())

    def loss(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(dict(grouped.named_parameters()), values, strict=True))
        result: Tensor = torch.func.functional_call(grouped, named, (x, group))
        return result

    grouped.forward = grouped.log_prob
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), *parameters))


def test_every_group_is_normalised_and_has_its_own_density() -> None:
    grouped = separate_and_grouped(2, 3, CONFIGS["plain"])[1]
    side = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    points = torch.cartesian_prod(side, side)
    group = torch.arange(3).repeat_interleave(len(points))
    with torch.no_grad():
        density = grouped.log_prob(points.repeat(3, 1), group).exp().view(3, -1)
    torch.testing.assert_close(density.mean(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=5e-4)
    assert float((density[0] - density[1]).abs().mean()) > 0.01


@given(
    counts=st.lists(st.integers(0, 90), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
    cut=st.floats(0, 1),
)
def test_independent_of_order_and_split(counts: list[int], seed: int, cut: float) -> None:
    grouped = separate_and_grouped(2, 4, CONFIGS["plain"])[1]
    x, group = batch(counts, 2, seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    first = int(cut * len(x))
    with torch.no_grad():
        z, log_q = grouped.to_latent(x, group)
        z_shuffled, log_q_shuffled = grouped.to_latent(x[order], group[order])
        parts = [grouped.log_prob(x[:first], group[:first]), grouped.log_prob(x[first:], group[first:])]
    torch.testing.assert_close((z_shuffled, log_q_shuffled), (z[order], log_q[order]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(parts), log_q, rtol=1e-10, atol=1e-10)


def test_the_wrong_group_gives_another_density() -> None:
    flows, grouped = separate_and_grouped(3, 3, CONFIGS["plain"])
    x, group = batch([20, 20, 20], 3)
    with torch.no_grad():
        difference = grouped.log_prob(x, (group + 1) % 3) - one_by_one(flows, x, group)[1]
    assert float(difference.abs().median()) > 0.05


def test_starts_as_the_identity_and_samples_reproducibly() -> None:
    grouped = GroupedFlow(3, 4)
    group = torch.tensor([3, 0, 0, 2, 3], dtype=torch.int32)
    x, log_q = grouped.sample(group, torch.Generator().manual_seed(2), torch.float64)
    again, _ = grouped.sample(group, torch.Generator().manual_seed(2), torch.float64)
    assert x.shape == (5, 3) and x.dtype == torch.float64
    torch.testing.assert_close(x, torch.rand(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    assert torch.equal(x, again)
    torch.testing.assert_close(log_q, torch.zeros_like(log_q), rtol=0, atol=1e-12)
    assert grouped.sample(group)[0].dtype == torch.float32
    assert (grouped.dim, grouped.groups) == (3, 4)


def test_samples_follow_the_density_of_their_group() -> None:
    grouped = separate_and_grouped(2, 2, CONFIGS["plain"])[1]
    group = torch.arange(2).repeat_interleave(20000)
    with torch.no_grad():
        x, log_q = grouped.sample(group, torch.Generator().manual_seed(4))
    weight = torch.exp(-log_q).view(2, -1)
    value = (weight * x.prod(dim=1).view(2, -1)).mean(1)
    error = (weight * x.prod(dim=1).view(2, -1)).std(1) / 20000**0.5
    assert bool(((value - 0.25).abs() < 4 * error).all())


@pytest.mark.parametrize("counts", [[1000], [400] * 9, [3000, 700, 90, 2], [100000] + [1] * 200, [0, 5, 0]])
def test_padding_stays_small(counts: list[int]) -> None:
    _, group = batch(counts, 1)
    tiles = _Tiles.of(group, len(counts))
    assert len(tiles.source) <= 1.25 * len(group)
    assert torch.equal(tiles.source[tiles.place], torch.arange(len(group)))
    assert torch.equal(tiles.group.repeat_interleave(len(tiles.source) // len(tiles.group))[tiles.place], group)


def test_masks_are_saved() -> None:
    config = CONFIGS["random"]
    saved = GroupedFlow(5, 2, config, torch.Generator().manual_seed(8))
    disturb(saved)
    loaded = GroupedFlow(5, 2, config, torch.Generator().manual_seed(9))
    x, group = batch([10, 4], 5, dtype=torch.float32)
    assert not torch.allclose(loaded.log_prob(x, group), saved.log_prob(x, group))
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.log_prob(x, group), saved.log_prob(x, group))


@pytest.mark.parametrize("make", [lambda: GroupedFlow(2, 3).log_prob, lambda: grid(3, 2, 8).map], ids=["flow", "grid"])
def test_bad_points_and_groups_are_refused(make: object) -> None:
    call = make()  # type: ignore[operator]
    x, group = batch([2, 2, 2], 2)
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        call(x[:, :1], group)
    for wrong in (group[:5], group.double(), group > 1, group.unsqueeze(1)):
        with pytest.raises(ShapeError, match="6 groups"):
            call(x, wrong)
    for bad in (1.1, -0.1, float("nan"), float("inf")):
        with pytest.raises(DomainError, match=r"\[0, 1\]"):
            call(x.index_fill(0, torch.tensor([3]), bad), group)
    with pytest.raises(DomainError, match="group 3 does not exist"):
        call(x, group + 1)
    with pytest.raises(DomainError, match="group -1 does not exist"):
        call(x, group - 1)


@pytest.mark.parametrize(
    "config",
    [
        CouplingConfig(Spline(domain="line")),
        CouplingConfig(net=NetConfig(kind="residual")),
        CouplingConfig(net=NetConfig(context_dim=1)),
    ],
)
def test_unsupported_configs_are_refused(config: CouplingConfig) -> None:
    with pytest.raises(ConfigError, match="a grouped flow takes"):
        GroupedFlow(2, 2, config)


def test_no_group_and_no_coordinate_are_refused() -> None:
    with pytest.raises(ConfigError, match="groups = 0: must be a whole number, at least 1"):
        GroupedFlow(2, 0)
    with pytest.raises(ConfigError, match="dim = 0: must be"):
        GroupedFlow(0, 2)


def nodes_of(widths: Tensor) -> Tensor:
    edges = torch.nn.functional.pad(widths.cumsum(-1), (1, 0))
    return edges / edges[..., -1:]


def grid(groups: int, dim: int, cells: int, smooth: bool = True, power: float = 2.0) -> GridSpline:
    """Random cells; the larger the power, the more uneven they are."""
    generator = torch.Generator().manual_seed(7)
    widths = torch.rand(groups, dim, cells, generator=generator, dtype=torch.float64) ** power
    return GridSpline(nodes_of(widths + 1e-6), smooth)


def test_linear_grid_is_the_vegas_map() -> None:
    linear = grid(3, 4, 50, smooth=False)
    u, group = batch([40, 0, 25], 4)
    x, log_q = linear.map(u, group)
    back, log_q_back = linear.unmap(u, group)
    for g in range(3):
        vegas = VegasGrid(linear.nodes[g])
        at = group == g
        torch.testing.assert_close((x[at], log_q[at]), vegas.map(u[at]), rtol=0, atol=1e-13)
        torch.testing.assert_close((back[at], log_q_back[at]), vegas.unmap(u[at]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("cells", [1, 2, 3, 64, 100])
def test_grid_inverse_and_log_det(smooth: bool, cells: int) -> None:
    made = grid(3, 2, cells, smooth)
    u, group = batch([40, 0, 25], 2)
    x, log_q = made.map(u.requires_grad_(), group)
    back, log_q_back = made.unmap(x.detach(), group)
    torch.testing.assert_close(back, u, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_q_back, log_q, rtol=0, atol=1e-7)
    (slope,) = torch.autograd.grad(x.sum(), u)
    torch.testing.assert_close(-slope.log().sum(1), log_q, rtol=1e-9, atol=1e-9)


def test_smooth_grid_runs_through_the_nodes_with_a_continuous_density() -> None:
    made = grid(1, 1, 20)
    group = torch.zeros(21, dtype=torch.long)
    u = torch.linspace(0, 1, 21, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(made.map(u, group)[0], made.nodes[0, 0].unsqueeze(1), rtol=0, atol=1e-12)
    below, above = (made.map((u + shift).clamp(0, 1), group)[1] for shift in (-1e-11, 1e-11))
    torch.testing.assert_close(below, above, rtol=0, atol=1e-4)
    density = 1 / (20 * made.nodes[0, 0].diff())
    torch.testing.assert_close(below[1:-1].exp(), 0.5 * (density[1:] + density[:-1]), rtol=1e-5, atol=0)
    jump = GridSpline(made.nodes, smooth=False)
    below, above = (jump.map((u + shift).clamp(0, 1), group)[1] for shift in (-1e-11, 1e-11))
    assert float((below - above).abs().max()) > 0.1


def test_smooth_density_is_at_least_half_of_that_of_vegas() -> None:
    smooth = grid(4, 1, 40, power=8.0)
    x, group = batch([3000] * 4, 1)
    ratio = smooth.unmap(x, group)[1] - GridSpline(smooth.nodes, smooth=False).unmap(x, group)[1]
    assert -0.6932 < float(ratio.min()) < -0.3


def test_densities_of_grids_are_normalised() -> None:
    smooth = grid(3, 1, 12, power=1.0)
    u = (torch.arange(60000, dtype=torch.float64).unsqueeze(1) + 0.5) / 60000
    group = torch.arange(3).repeat_interleave(60000)
    x, log_vegas = GridSpline(smooth.nodes, smooth=False).map(u.repeat(3, 1), group)
    total = (smooth.unmap(x, group)[1] - log_vegas).exp().view(3, -1).mean(1)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
def test_narrow_cells_stay_finite(smooth: bool) -> None:
    widths = torch.full((2, 1, 32), 1e-12, dtype=torch.float64)
    widths[0, 0, 20] = widths[1, 0, :2] = 1.0
    made = GridSpline(nodes_of(widths), smooth)
    u, group = batch([2000, 2000], 1)
    u = torch.cat([u, torch.tensor([[0.0], [1.0], [0.0], [1.0]], dtype=torch.float64), made.nodes[1].t()])
    group = torch.cat([group, torch.tensor([0, 0, 1, 1] + [1] * 33)])
    x, log_q = made.map(u, group)
    back, log_q_back = made.unmap(x, group)
    for value in (x, log_q, back, log_q_back, *made.unmap(u, group)):
        assert bool(value.isfinite().all())
    assert float(x.min()) == 0.0 and float(x.max()) == 1.0
    torch.testing.assert_close(back, u, rtol=0, atol=1e-3)


def test_grid_takes_empty_and_float32_batches() -> None:
    made = grid(2, 3, 10)
    x, log_q = made.map(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert x.shape == (0, 3) and log_q.shape == (0,)
    x, log_q = made.unmap(*batch([3, 3], 3, dtype=torch.float32))
    assert x.dtype == log_q.dtype == torch.float64


def test_bad_nodes_are_refused() -> None:
    for shape in ((2, 5), (2, 3, 1), (0, 3, 5)):
        with pytest.raises(ShapeError, match="nodes"):
            GridSpline(torch.zeros(shape))
    for row in ([0.0, 0.5, 0.5, 1.0], [0.0, 0.6, 0.5, 1.0], [0.1, 0.5, 1.0], [0.0, 0.5, 0.9], [0.0, float("nan"), 1.0]):
        with pytest.raises(ConfigError, match="rise strictly"):
            GridSpline(torch.tensor([[row]]))


def test_a_flow_on_top_of_a_grid_starts_as_vegas() -> None:
    made, grouped = grid(2, 3, 10, smooth=False), GroupedFlow(3, 2)
    u, group = batch([9, 5], 3)
    v, log_flow = grouped.from_latent(u, group)
    x, log_grid = made.map(v, group)
    expected = made.map(u, group)
    torch.testing.assert_close((x, log_flow + log_grid), expected, rtol=0, atol=1e-9)
