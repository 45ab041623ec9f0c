"""A flow that starts from VEGAS grids is at once about as good as they are, and finite for any grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nisampler.base.weights import efficiency_at, kish_ess
from nisampler.errors import ConfigError
from nisampler.flows import CouplingConfig, NetConfig, Spline, coupling_flow
from nisampler.flows.grid_start import start_from_grid
from nisampler.flows.grouped import GroupedFlow
from nisampler.samplers.grid import VegasAdapter, VegasGrid

Line = Callable[[Tensor], Tensor]
NET = NetConfig(hidden=8, layers=2)


def cauchy(width: float) -> Line:
    return lambda x: width / ((x - 0.4) ** 2 + width**2)


def gauss(width: float) -> Line:
    return lambda x: torch.exp(-((x - 0.4) ** 2) / (2.0 * width**2))


LINES: dict[str, Line] = {
    "constant": torch.ones_like,
    "linear": lambda x: 2.0 * x,
    "waves": lambda x: 1.0 + 0.9 * torch.cos(6.28 * x),
    "exponential": lambda x: torch.exp(-5.0 * x),
    "root": lambda x: (x + 1e-3) ** -0.5,
    **{f"cauchy {width}": cauchy(width) for width in (0.1, 0.01, 0.001)},
    **{f"gauss {width}": gauss(width) for width in (0.1, 0.01, 0.003)},
}


def product(line: Line) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.stack([line(x[:, k]) for k in range(x.shape[1])]).prod(0)


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapted(line: Line, dim: int = 2, iterations: int = 8) -> VegasGrid:
    adapter = VegasAdapter(dim, increments=96)
    for iteration in range(iterations):
        u = rand(3000, dim, iteration)
        x, log_q = adapter.grid().map(u)
        adapter.add(u, product(line)(x) * torch.exp(-log_q))
        adapter.refine()
    return adapter.grid()


def worth(line: Line, draw: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[float, float, float]:
    """ESS fraction, efficiency at 0.1 % overweight and mean of the weights of a proposal for a product of lines."""
    with torch.no_grad():
        x, log_q = draw(rand(40_000, 2, 99))
    weights = product(line)(x.double()) * torch.exp(-log_q.double())
    return kish_ess(weights) / len(weights), efficiency_at(weights, 1e-3)[1], float(weights.mean())


@pytest.mark.parametrize("bins", [10, 24])
@pytest.mark.parametrize("name", LINES)
def test_step_zero_is_about_as_good_as_vegas(name: str, bins: int) -> None:
    line = LINES[name]
    grid = adapted(line)
    flow = coupling_flow(2, CouplingConfig(Spline(bins=bins), NET))
    start_from_grid(flow, grid.nodes.unsqueeze(0))
    vegas = worth(line, grid.map)
    ess, efficiency, mean = worth(line, lambda u: flow.from_latent(u.float()))
    assert ess > 0.9 * vegas[0]
    assert efficiency > 0.8 * vegas[1]
    assert mean == pytest.approx(vegas[2], rel=0.01)


def test_the_start_is_more_than_the_identity() -> None:
    """Negative control: an untouched flow is far worse for a peak, and so is the grid of another function."""
    line = LINES["cauchy 0.01"]
    flow = coupling_flow(2, CouplingConfig(Spline(bins=10), NET))
    assert worth(line, lambda u: flow.from_latent(u.float()))[0] < 0.05
    start_from_grid(flow, adapted(LINES["waves"]).nodes.unsqueeze(0))
    assert worth(line, lambda u: flow.from_latent(u.float()))[0] < 0.1


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_every_coordinate_takes_its_own_grid_once(dim: int) -> None:
    """Along each coordinate the map runs through the knots of the grid, in any number of blocks."""
    power = torch.linspace(0.6, 2.0, dim, dtype=torch.float64).unsqueeze(1)
    nodes = torch.linspace(0.0, 1.0, 11, dtype=torch.float64) ** power
    flow = coupling_flow(dim, CouplingConfig(Spline(bins=10), NET)).double()
    start_from_grid(flow, nodes.unsqueeze(0))
    u = torch.linspace(0.0, 1.0, 11, dtype=torch.float64).unsqueeze(1).expand(-1, dim)
    with torch.no_grad():
        x, _ = flow.from_latent(u)
    torch.testing.assert_close(x, nodes.t(), rtol=0, atol=3e-4)


def test_groups_start_from_their_own_grids() -> None:
    lines = [LINES["cauchy 0.01"], LINES["waves"], LINES["exponential"]]
    grids = [adapted(line) for line in lines]
    config = CouplingConfig(Spline(bins=10), NET)
    grouped = GroupedFlow(2, 3, config)
    start_from_grid(grouped, torch.stack([grid.nodes for grid in grids]))
    for index, (line, grid) in enumerate(zip(lines, grids, strict=True)):

        def draw(u: Tensor, index: int = index) -> tuple[Tensor, Tensor]:
            return grouped.from_latent(u.float(), torch.full((len(u),), index))

        assert worth(line, draw)[0] > 0.9 * worth(line, grid.map)[0]
        single = coupling_flow(2, config)
        start_from_grid(single, grid.nodes.unsqueeze(0))
        u = rand(200, 2, 5).float()
        with torch.no_grad():
            torch.testing.assert_close(draw(u), single.from_latent(u), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dim", "masks"), [(1, "binary"), (2, "binary"), (3, "random")])
def test_few_coordinates_and_random_masks_start_too(dim: int, masks: str) -> None:
    line = LINES["cauchy 0.01"]
    grid = adapted(line, dim)
    flow = coupling_flow(dim, CouplingConfig(Spline(bins=10), NET, masks=masks))
    start_from_grid(flow, grid.nodes.unsqueeze(0))
    u = rand(10_000, dim, 3)
    worths = []
    with torch.no_grad():
        for x, log_q in (flow.from_latent(u.float()), grid.map(u)):
            weights = product(line)(x.double()) * torch.exp(-log_q.double())
            worths.append(kish_ess(weights))
    assert worths[0] > 0.9 * worths[1]


@pytest.mark.parametrize("width", [1e-4, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("groups", [1, 3])
def test_very_narrow_grids_stay_finite(width: float, groups: int) -> None:
    """Cells below the least bin of a spline are widened; the flow can be inverted and trained."""
    widths = torch.full((groups, 2, 64), width, dtype=torch.float64)
    widths[:, 0, 20], widths[:, 1, 63] = 1.0, 1.0
    nodes = torch.nn.functional.pad(widths.cumsum(2), (1, 0))
    nodes = nodes / nodes[..., -1:]
    flow = GroupedFlow(2, groups, CouplingConfig(Spline(bins=10), NET))
    start_from_grid(flow, nodes)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in flow.parameters())
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 2)
    u = torch.cat([rand(3000, 2, 1).float(), corners])
    group = torch.arange(len(u)) % groups
    x, log_q = flow.from_latent(u, group)
    back, again = flow.to_latent(x, group)
    assert bool(((x >= 0.0) & (x <= 1.0)).all())
    assert all(bool(torch.isfinite(value).all()) for value in (x, log_q, back, again))
    assert float((back - u).detach().abs().mean()) < 1e-2
    again.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in flow.parameters() if p.grad is not None)


def test_the_density_is_still_normalised() -> None:
    grid = adapted(LINES["cauchy 0.01"])
    flow = coupling_flow(2, CouplingConfig(Spline(bins=10), NET)).double()
    start_from_grid(flow, grid.nodes.unsqueeze(0))
    u = rand(200_000, 2, 8)
    x, log_grid = grid.map(u)
    with torch.no_grad():
        ratio = torch.exp(flow.log_prob(x) - log_grid)
    assert float(ratio.mean()) == pytest.approx(1.0, abs=5 * float(ratio.std()) / 200_000**0.5)


@pytest.mark.parametrize("cells", [1, 2, 3, 7, 10, 500])
def test_grids_of_any_size_start_a_flow(cells: int) -> None:
    nodes = (torch.linspace(0.0, 1.0, cells + 1, dtype=torch.float64) ** 1.5).expand(1, 2, -1)
    flow = coupling_flow(2, CouplingConfig(Spline(bins=10), NET)).double()
    start_from_grid(flow, nodes)
    with torch.no_grad():
        x, log_q = flow.from_latent(rand(2000, 2, 1))
    expected, log_vegas = VegasGrid(nodes[0]).map(rand(2000, 2, 1))
    torch.testing.assert_close(x, expected, rtol=0, atol=0.08)
    if cells >= 10:
        assert float((log_q - log_vegas).abs().quantile(0.95)) < 0.3


@pytest.mark.parametrize(
    "spline",
    [
        Spline(kind="linear"),
        Spline(kind="quadratic"),
        Spline(kind="cubic"),
        Spline(domain="line"),
        Spline(domain="circle"),
    ],
    ids=lambda spline: f"{spline.kind} on {spline.domain}",
)
def test_other_splines_are_refused_by_name(spline: Spline) -> None:
    flow = coupling_flow(2, CouplingConfig(spline, NET))
    before = [parameter.clone() for parameter in flow.parameters()]
    with pytest.raises(ConfigError, match="rational-quadratic splines on the unit interval"):
        start_from_grid(flow, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).expand(1, 2, -1))
    assert all(torch.equal(one, other) for one, other in zip(before, flow.parameters(), strict=True))
