"""The three-dimensional residual network: its published number of weights, its inputs, its determinism."""

from __future__ import annotations

import pytest
import torch

from nisampler.calo.detector.geometries import geometry
from nisampler.calo.evaluation.resnet import ResNet3D
from nisampler.errors import GeometryError, ShapeError


def _network(grid: tuple[int, int, int] | None, d_out: int = 1, seed: int = 0) -> ResNet3D:
    return ResNet3D(grid, d_out, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "grid"), [("ds2", (45, 16, 9)), ("ds3", (45, 50, 18))])
def test_published_number_of_weights(name: str, grid: tuple[int, int, int]) -> None:
    assert geometry(name).grid == grid
    assert sum(weight.numel() for weight in _network(geometry(name).grid).parameters()) == 2_516_644


def test_outputs_for_every_shower_and_class() -> None:
    network = _network((5, 8, 6), 3)
    assert network(torch.rand(4, 241)).shape == (4, 3)
    assert torch.isfinite(network(torch.rand(4, 241))).all()


@pytest.mark.parametrize("grid", [(5, 8, 6), (2, 3, 1)])
def test_gradients_on_grids_smaller_than_the_first_kernel(grid: tuple[int, int, int]) -> None:
    network = _network(grid)
    network(torch.rand(16, 1 + grid[0] * grid[1] * grid[2])).square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_cells_keep_their_place() -> None:
    network = _network((5, 8, 6)).eval()
    x = torch.zeros(2, 241)
    x[0, 1] = x[1, 240] = 50.0  # the first cell of the first layer, the last one of the last layer
    first, last = network(x).flatten().tolist()
    assert abs(first - last) > 1e-4


def test_the_incident_energy_enters() -> None:
    network = _network((5, 8, 6)).eval()
    x = torch.rand(2, 241)
    x[1] = x[0]
    x[1, 0] += 1.0
    low, high = network(x)
    torch.testing.assert_close((high - low)[0], network.output.weight[0, -1] / (1 + 1e-5) ** 0.5)


def test_weights_come_from_the_generator_only() -> None:
    state = torch.get_rng_state()
    first, again, other = _network((3, 4, 4)), _network((3, 4, 4)), _network((3, 4, 4), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(GeometryError, match="same cells in every layer"):
        _network(geometry("ds1-photons").grid)
    with pytest.raises(ShapeError, match=r"shape \(n, 241\), got \(2, 240\)"):
        _network((5, 8, 6))(torch.rand(2, 240))
