"""VEGAS grids: adaptation, very narrow peaks, nothing to adapt to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.samplers.grid import VegasAdapter, VegasGrid


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spike(x: Tensor, width: float) -> Tensor:
    norm = (width * math.sqrt(2 * math.pi)) ** x.shape[1]
    return torch.exp(-((x - 0.3) ** 2).sum(1) / (2 * width**2)) / norm


def adapted(width: float, dim: int, iterations: int, n: int = 4000, scale: float = 1.0) -> VegasGrid:
    adapter = VegasAdapter(dim, increments=64)
    for iteration in range(iterations):
        u = rand(n, dim, iteration)
        x, log_q = adapter.grid().map(u)
        adapter.add(u, scale * spike(x, width) * torch.exp(-log_q))
        adapter.refine()
    return adapter.grid()


def spread(grid: VegasGrid, width: float) -> tuple[float, float]:
    """Mean and relative deviation of the weights."""
    x, log_q = grid.map(rand(20_000, grid.dim, 999))
    weights = spike(x, width) * torch.exp(-log_q)
    return float(weights.mean()), float(weights.std() / weights.mean())


def test_a_fresh_grid_is_uniform() -> None:
    grid = VegasAdapter(3, increments=10).grid()
    assert (grid.dim, grid.increments) == (3, 10)
    u = rand(100, 3, 1)
    x, log_q = grid.map(u)
    assert torch.allclose(x, u) and torch.allclose(log_q, torch.zeros(100).double(), atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_it_adapts_to_a_peak(dim: int) -> None:
    mean, deviation = spread(adapted(0.05, dim, 8), 0.05)
    assert mean == pytest.approx(1, abs=5 * deviation / math.sqrt(20_000))
    assert deviation < 0.6
    assert deviation < 0.4 * spread(VegasAdapter(dim).grid(), 0.05)[1]


@pytest.mark.parametrize("width", [3e-4, 1e-6, 1e-9])
def test_a_very_narrow_peak_stays_finite(width: float) -> None:
    grid = adapted(width, 1, 60, n=20_000)
    assert bool(torch.isfinite(grid.nodes).all())
    assert bool((grid.nodes.diff(dim=1) > 0).all())
    assert grid.nodes[0, 0] == 0 and grid.nodes[0, -1] == 1
    u = rand(20_000, 1, 3)
    x, log_q = grid.map(u)
    assert bool(torch.isfinite(log_q).all()) and bool(((x >= 0) & (x <= 1)).all())
    back, again = grid.unmap(x)
    assert bool(torch.isfinite(again).all())
    assert float((back - u).abs().max()) < 1e-3


def test_a_narrow_peak_is_found_from_its_far_tail() -> None:
    """In the first iteration all weights are below 1e-200, so that their squares vanish in float64."""
    u = rand(500, 2, 0)
    far = u[(u - 0.3).norm(dim=1) > 0.02]  # where the peak vanishes in float64, and one point where it does not
    u = torch.cat([far, torch.full((1, 2), 0.307, dtype=torch.float64)])
    assert 0.0 < float(spike(u, 3e-4).max()) < 1e-200
    adapter = VegasAdapter(2, increments=64)
    adapter.add(u, spike(u, 3e-4))
    adapter.refine()
    density = adapter.grid().unmap(torch.tensor([[0.3, 0.3], [0.9, 0.9]]).double())[1].exp()
    assert float(density[0]) > 3 > 0.7 > float(density[1])
    mean, deviation = spread(adapted(3e-4, 2, 60, n=5000), 3e-4)
    assert deviation < 5
    assert mean == pytest.approx(1, abs=5 * deviation / math.sqrt(20_000))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dim", [1, 2])
def test_no_wide_cell_reaches_into_a_peak(dim: int, seed: int) -> None:
    """The flanks of a spike get their share of points: without it, integrals are low and do not show it."""
    adapter = VegasAdapter(dim, increments=16)
    for iteration in range(40):
        u = rand(400, dim, 100 * seed + iteration)
        x, log_q = adapter.grid().map(u)
        adapter.add(u, spike(x, 3e-3) * torch.exp(-log_q))
        adapter.refine()
    width = adapter.grid().nodes.diff(dim=1)
    assert float((width[:, 1:] / width[:, :-1]).log().abs().max()) < math.log(12)
    mean, deviation = spread(adapter.grid(), 3e-3)
    assert deviation < 2
    assert mean == pytest.approx(1, abs=4.5 * deviation / math.sqrt(20_000))


@pytest.mark.parametrize("scale", [1e-250, 1e-30, 1e30, 1e250, -1.0])
def test_neither_scale_nor_sign_matters(scale: float) -> None:
    assert torch.allclose(adapted(0.05, 2, 4).nodes, adapted(0.05, 2, 4, scale=scale).nodes, rtol=1e-6)


def test_zero_weights_do_no_harm() -> None:
    adapter = VegasAdapter(2, increments=8)
    adapter.add(rand(100, 2, 0), torch.zeros(100))
    adapter.refine()
    adapter.add(torch.zeros(0, 2), torch.zeros(0))
    adapter.refine()
    grid = adapter.grid()
    assert torch.allclose(grid.nodes, torch.linspace(0, 1, 9, dtype=torch.float64).expand(2, 9))
    adapter.add(rand(1000, 2, 0), spike(rand(1000, 2, 0), 0.1))
    adapter.refine()
    assert not torch.allclose(adapter.grid().nodes, grid.nodes)


def test_one_single_non_zero_weight_does_no_harm() -> None:
    adapter = VegasAdapter(2, increments=8)
    weights = torch.zeros(100)
    weights[17] = 1e-300
    for iteration in range(10):
        adapter.add(rand(100, 2, iteration), weights)
        adapter.refine()
    grid = adapter.grid()
    assert bool(torch.isfinite(grid.nodes).all()) and bool((grid.nodes.diff(dim=1) > 0).all())


def test_an_adapter_continues_from_a_grid() -> None:
    first = adapted(0.05, 2, 3)
    again = VegasAdapter(2, first.increments, nodes=first.nodes).grid()
    assert torch.allclose(again.nodes, first.nodes, atol=1e-14)


@pytest.mark.parametrize(("increments", "alpha"), [(1, 0.5), (0, 0.5), (16, 0.0), (16, -1.0)])
def test_settings_out_of_range(increments: int, alpha: float) -> None:
    with pytest.raises(ConfigError):
        VegasAdapter(2, increments, alpha)
