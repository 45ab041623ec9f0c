"""One suite for all samplers: inverse, exact density, normalisation, draws, stored state. A sampler that lies fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.errors import ConfigError, CorruptFileError, DomainError, ShapeError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.flows.grouped import GridSpline
from nisampler.samplers.base import Sampler, State, UniformSampler
from nisampler.samplers.chain import ChainSampler, chain
from nisampler.samplers.flow import FlowSampler
from nisampler.samplers.grid import VegasAdapter, VegasSampler
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.samplers.tree import TreeConfig, TreeSampler, grow_tree


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=generator(seed), dtype=torch.float64)


def peak(x: Tensor) -> Tensor:
    return torch.exp(-((x - 0.4) ** 2).sum(1) / 0.06) + 0.05


def uniform(dim: int) -> Sampler:
    return UniformSampler(dim)


def vegas(dim: int) -> Sampler:
    adapter = VegasAdapter(dim, increments=16)
    for iteration in range(4):
        u = rand(2000, dim, iteration)
        x, log_q = adapter.grid().map(u)
        adapter.add(u, peak(x) * torch.exp(-log_q))
        adapter.refine()
    return VegasSampler(adapter.grid())


def tree(dim: int) -> Sampler:
    u = rand(4000, dim, 7)
    return TreeSampler(grow_tree(u, peak(u) * (0.5 + (u[:, 0] < 0.7)), TreeConfig(leaves=24, min_points=30)))


def flow(dim: int) -> FlowSampler:
    config = CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=2, fourier=2))
    sampler = FlowSampler.create(dim, config, generator(11))
    disturb = generator(12)
    with torch.no_grad():
        for parameter in sampler.flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=disturb)
    sampler.flow.double()
    return sampler


def single_flow(dim: int) -> Sampler:
    sampler = flow(dim)
    sampler.flow.float()
    return sampler


def channels(dim: int, grid: bool = False) -> MultichannelSampler:
    """Four channels that share three flows and grids, with unequal shares."""
    config = CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=2))
    model = MultichannelSampler.create(dim, (0, 1, 2, 0), 2, config, generator(11)).model
    disturb = generator(12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=disturb)
        model.share.copy_(torch.tensor([0.4, 0.1, 0.3, 0.2]))
    for part in model.children():
        part.double()
    edges = torch.linspace(0.0, 1.0, 9, dtype=torch.float64) ** torch.tensor([[[1.0]], [[1.5]], [[0.8]]])
    spline = GridSpline(edges.expand(-1, dim - 1, -1)) if grid else None
    return MultichannelSampler(dim, (0, 1, 2, 0), model, spline, config)


def single_channels(dim: int) -> Sampler:
    sampler = channels(dim)
    for part in sampler.model.children():
        part.float()
    return sampler


MAKERS: dict[str, Callable[[int], Sampler]] = {
    "uniform": uniform,
    "vegas": vegas,
    "tree": tree,
    "flow": flow,
    "flow in float32": single_flow,
    "channels": channels,
    "channels in float32": single_channels,
    "channels with grids": lambda dim: channels(dim, grid=True),
    "channels+tree": lambda dim: chain(channels(dim), tree(dim)),
    "vegas+tree": lambda dim: chain(vegas(dim), tree(dim)),
    "flow+tree": lambda dim: chain(flow(dim), tree(dim)),
    "vegas+flow": lambda dim: chain(vegas(dim), flow(dim)),
    "vegas+flow+tree": lambda dim: chain(vegas(dim), flow(dim), tree(dim)),
}
EXACT = [name for name in MAKERS if "float32" not in name]


class Liar(Sampler):
    """A sampler whose density is wrong, by a factor or in shape."""

    kind = "liar"

    def __init__(self, honest: Sampler, lie: Callable[[Tensor], Tensor]) -> None:
        self.honest, self.lie, self.dim = honest, lie, honest.dim

    @property
    def device(self) -> torch.device:
        return self.honest.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_q = self.honest._map(u)
        return x, log_q + self.lie(x)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_q = self.honest._unmap(x)
        return u, log_q + self.lie(x)

    def state(self) -> State:
        return self.honest.state()


def check_inverse(sampler: Sampler, tolerance: float) -> None:
    u = rand(3000, sampler.dim, 1)
    x, log_q = sampler.map(u)
    assert x.shape == u.shape and log_q.shape == (3000,)
    assert x.dtype == log_q.dtype == torch.float64
    assert bool(((x >= 0) & (x <= 1)).all()) and bool(torch.isfinite(log_q).all())
    back, again = sampler.unmap(x)
    assert float((back - u).abs().max()) < tolerance
    assert float((again - log_q).abs().quantile(0.999)) < 10 * tolerance
    assert torch.equal(sampler.log_prob(x), again)


def check_density(sampler: Sampler) -> None:
    """log q = -log|det dx/du|, by central differences where the map is smooth around the point."""
    dim, step = sampler.dim, 1e-6
    u = rand(400, dim, 2) * 0.98 + 0.01
    _, log_q = sampler.map(u)
    columns, smooth = [], torch.ones(len(u), dtype=torch.bool)
    for axis in range(dim):
        shift = torch.zeros(dim, dtype=torch.float64)
        shift[axis] = step
        high, log_high = sampler.map(u + shift)
        low, log_low = sampler.map(u - shift)
        columns.append((high - low) / (2 * step))
        smooth &= (log_high - log_low).abs() < 1e-3
    jacobian = torch.stack(columns, 2)
    numeric = -torch.linalg.slogdet(jacobian)[1]
    assert int(smooth.sum()) > 300
    assert float((numeric - log_q)[smooth].abs().max()) < 2e-3


def check_normalisation(sampler: Sampler) -> None:
    """The mean of 1/q over the sampler's own points is the volume of the cube."""
    _, log_q = sampler.sample(40_000, generator(3))
    inverse = torch.exp(-log_q)
    error = float(inverse.std()) / 200 + 1e-9
    assert abs(float(inverse.mean()) - 1) < 4.5 * error
    assert error < 0.03


def check_quadrature(sampler: Sampler, tolerance: float = 4e-3) -> None:
    n = 400
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.cartesian_prod(middle, middle)
    assert abs(float(sampler.log_prob(grid).exp().mean()) - 1) < tolerance


def check_draws(sampler: Sampler) -> None:
    """Binned draws follow the density integrated over the bins."""
    bins, fine, n = 8, 50, 60_000
    middle = (torch.arange(bins * fine, dtype=torch.float64) + 0.5) / (bins * fine)
    grid = torch.cartesian_prod(middle, middle)
    cell = (grid * bins).long()
    expected = torch.zeros(bins * bins, dtype=torch.float64)
    expected.index_add_(0, cell[:, 0] * bins + cell[:, 1], sampler.log_prob(grid).exp() / len(grid))
    x, _ = sampler.sample(n, generator(4))
    place = (x * bins).long().clamp(max=bins - 1)
    seen = torch.bincount(place[:, 0] * bins + place[:, 1], minlength=bins * bins).double()
    chi2 = float(((seen - n * expected) ** 2 / (n * expected)).sum())
    assert scipy_stats.chi2.sf(chi2, bins * bins) > 1e-4


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_unmap_inverts_map(name: str, dim: int) -> None:
    check_inverse(MAKERS[name](dim), 1e-9 if name in EXACT else 3e-5)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", EXACT)
def test_the_density_is_the_jacobian(name: str, dim: int) -> None:
    check_density(MAKERS[name](dim))


@pytest.mark.parametrize("dim", [2, 4])
@pytest.mark.parametrize("name", MAKERS)
def test_the_volume_is_one(name: str, dim: int) -> None:
    check_normalisation(MAKERS[name](dim))


@pytest.mark.parametrize("name", MAKERS)
def test_the_density_integrates_to_one(name: str) -> None:
    check_quadrature(MAKERS[name](2))


@pytest.mark.parametrize("name", MAKERS)
def test_draws_follow_the_density(name: str) -> None:
    check_draws(MAKERS[name](2))


@pytest.mark.parametrize("name", ["uniform", "vegas", "tree", "flow", "vegas+flow+tree"])
def test_one_dimension(name: str) -> None:
    sampler = MAKERS[name](1)
    check_inverse(sampler, 1e-9)
    check_density(sampler)
    check_normalisation(sampler)


@pytest.mark.parametrize("name", MAKERS)
def test_the_stored_sampler_is_the_same(name: str, tmp_path: Path) -> None:
    sampler = MAKERS[name](3)
    save_checkpoint(tmp_path, *sampler.state())
    again = sampler_from_state(*load_checkpoint(tmp_path))
    assert type(again) is type(sampler)
    assert again.describe() == sampler.describe() and again.dim == 3
    u = rand(500, 3, 6)
    for one, other in zip((*sampler.map(u), *sampler.unmap(u)), (*again.map(u), *again.unmap(u)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MAKERS)
def test_draws_depend_on_the_generator_alone(name: str) -> None:
    sampler = MAKERS[name](2)
    state = torch.random.get_rng_state()
    first = sampler.sample(20_000, generator(9))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    second = sampler.sample(20_000, generator(9))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], sampler.sample(20_000, generator(10))[0])


@pytest.mark.parametrize("name", MAKERS)
def test_edges_of_the_cube_and_no_points(name: str) -> None:
    sampler = MAKERS[name](2)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0 - 2.0**-53, 1.0], dtype=torch.float64)] * 2)
    for function in (sampler.map, sampler.unmap):
        points, log_q = function(corners)
        assert bool(((points > 0) & (points < 1)).all()) and bool(torch.isfinite(log_q).all())
        empty, none = function(torch.zeros(0, 2, dtype=torch.float64))
        assert empty.shape == (0, 2) and none.shape == (0,)


@pytest.mark.parametrize("name", MAKERS)
def test_points_are_not_rounded(name: str) -> None:
    """Latent points closer together than single precision tells apart stay apart, also next to the edges."""
    sampler = MAKERS[name](2)
    steps = torch.arange(1.0, 65.0, dtype=torch.float64)
    for first in (2.0**-40 * steps, 0.3 + 2.0**-40 * steps, 1.0 - 2.0**-40 * steps):
        points = torch.stack([torch.full_like(first, 0.4), first], 1)
        for function in (sampler.map, sampler.unmap):
            found, log_q = function(points)
            assert all(len(column.unique()) in (1, 64) for column in found.t())
            assert any(len(column.unique()) == 64 for column in found.t())
            assert bool(((found > 0) & (found < 1)).all()) and bool(torch.isfinite(log_q).all())
            single = found.float().double()
            assert int((single == found).sum()) <= 2 + found.numel() // 2


def test_a_function_with_an_infinite_edge_stays_finite() -> None:
    near = torch.tensor([0.0, 2.0**-53, 1.0 - 2.0**-26, 1.0 - 2.0**-53, 1.0], dtype=torch.float64)
    u = torch.cartesian_prod(near, near)
    for make in MAKERS.values():
        x, _ = make(2).map(u)
        assert bool(torch.isfinite(x.rsqrt() + (1.0 - x).rsqrt()).all())


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_points_are_named(name: str) -> None:
    sampler = MAKERS[name](2)
    for function in (sampler.map, sampler.unmap, sampler.log_prob):
        for shape in ((4,), (4, 3), (4, 1), (1, 4, 2)):
            with pytest.raises(ShapeError, match=r"\(n, 2\)"):
                function(torch.zeros(shape))
        for bad in (-1e-9, 1 + 1e-9, float("nan"), float("inf")):
            points = rand(5, 2, 1)
            points[2, 1] = bad
            with pytest.raises(DomainError):
                function(points)


def test_gradients_are_not_recorded() -> None:
    x, log_q = flow(2).sample(10, generator(1))
    assert not x.requires_grad and not log_q.requires_grad


def test_a_wrong_factor_is_found() -> None:
    liar = Liar(vegas(2), lambda x: torch.full_like(x[:, 0], 0.02))
    for check in (check_density, check_quadrature, check_normalisation):
        with pytest.raises(AssertionError):
            check(liar)


@pytest.mark.parametrize("name", ["uniform", "tree", "flow"])
def test_a_wrong_shape_is_found(name: str) -> None:
    """The lie is normalised, so quadrature cannot see it; Jacobian and draws can."""
    honest = MAKERS[name](2)
    n = 400
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.cartesian_prod(middle, middle)
    norm = float((honest.log_prob(grid).exp() * (0.8 + 0.4 * grid[:, 0])).mean())
    liar = Liar(honest, lambda x: torch.log((0.8 + 0.4 * x[:, 0]) / norm))
    check_quadrature(liar)
    for check in (check_density, check_draws):
        with pytest.raises(AssertionError):
            check(liar)


def test_a_biased_generator_is_found() -> None:
    class Biased(Liar):
        def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
            return self.honest._map(u**1.05)

    with pytest.raises(AssertionError):
        check_draws(Biased(flow(2), lambda x: x[:, 0]))


def test_the_perturbed_flow_is_not_the_identity() -> None:
    u = rand(1000, 2, 1)
    x, log_q = flow(2).map(u)
    assert float((x - u).abs().max()) > 0.1 and float(log_q.std()) > 0.1
    fresh = FlowSampler.create(2, CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=2)), generator(1))
    x, log_q = fresh.map(u)
    assert float((x - u).abs().max()) < 1e-5 and float(log_q.abs().max()) < 1e-5


def test_a_chain_is_a_composition() -> None:
    first, second = vegas(2), tree(2)
    u = rand(1000, 2, 1)
    y, log_second = second.map(u)
    x, log_first = first.map(y)
    got, log_q = ChainSampler([first, second]).map(u)
    assert torch.equal(got, x) and torch.allclose(log_q, log_first + log_second)
    assert chain(None, first, None) is first
    assert "vegas" in chain(first, second).describe() and "tree" in chain(first, second).describe()


@pytest.mark.parametrize("parts", [[], [UniformSampler(2), UniformSampler(3)]])
def test_chains_that_cannot_be(parts: list[Sampler]) -> None:
    with pytest.raises(ConfigError):
        ChainSampler(parts)


@pytest.mark.parametrize("damage", ["kind", "missing", "shape", "arguments"])
def test_a_damaged_state_is_named(damage: str) -> None:
    tensors, meta = flow(2).state()
    name = next(iter(tensors))
    if damage == "kind":
        meta = meta | {"kind": "oracle"}
    elif damage == "missing":
        tensors = {key: value for key, value in tensors.items() if key != name}
    elif damage == "shape":
        tensors = tensors | {name: torch.zeros(1, 2, 3)}
    else:
        meta = {key: value for key, value in meta.items() if key != "arguments"}
    with pytest.raises(CorruptFileError):
        sampler_from_state(tensors, meta)
    with pytest.raises(CorruptFileError):
        sampler_from_state({}, flow(2).state()[1])
