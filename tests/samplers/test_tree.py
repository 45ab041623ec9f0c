"""Density trees: gain on sharp edges, shrinkage against the tail, a floor for the empty, every point found."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from training_settings import training

from nisampler.base.rng import Streams
from nisampler.base.weights import efficiency_at, kish_ess
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.processes.functions.functions import annulus
from nisampler.samplers.tree import DensityTree, TreeConfig, explore_tree, grow_tree
from nisampler.samplers.tree import growth as trees
from nisampler.training.config import TrainingConfig
from nisampler.training.trainer import Trainer


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def worth(tree: DensityTree, weights_of: object, dim: int, n: int = 40_000) -> tuple[float, float]:
    """ESS fraction and efficiency at 0.1 % on points that the tree has not seen."""
    x, log_q = tree.map(rand(n, dim, 4321))
    weights = weights_of(x) * torch.exp(-log_q)  # type: ignore[operator]
    return kish_ess(weights) / n, efficiency_at(weights, 1e-3)[1]


def heavy_tail(u: Tensor) -> Tensor:
    """Weights of a good but imperfect proposal: log-normal noise that no box can describe."""
    phase = torch.sin(1e5 * u[:, 0] + 3e5 * u[:, 1]) * torch.cos(7e4 * u[:, 1])
    return torch.exp(1.2 * phase)


@cache
def typical(config: TreeConfig) -> tuple[float, float]:
    """ESS fraction and efficiency on an annulus, medians over nine sets of points: one in ten has an unlucky leaf."""
    function, sets = annulus(), [rand(40_000, 2, seed) for seed in range(9)]
    found = [worth(grow_tree(u, function(u), config), function, 2) for u in sets]
    return median(ess for ess, _ in found), median(efficiency for _, efficiency in found)


def test_gain_on_an_annulus() -> None:
    """A high order protects the largest weights, at the price of some of the effective points."""
    (ess, efficiency), (high_ess, high_efficiency) = (typical(TreeConfig(order=order)) for order in (2.0, 8.0))
    assert annulus().integral < 0.52
    assert ess > 0.8 and 0.7 < high_ess < ess
    assert high_efficiency > 1.5 * efficiency


def test_more_leaves_gain_more() -> None:
    gains = [typical(TreeConfig(leaves=n, order=2.0))[0] for n in (1, 10, 100)]
    assert all(more > 1.1 * less for less, more in pairwise(gains))
    assert typical(TreeConfig(order=2.0))[0] > 0.95 * gains[-1]
    assert gains[0] == pytest.approx(annulus().integral, abs=0.015)


def test_exploring_finds_an_edge_with_fewer_points() -> None:
    """Beside trees that know as many uniform points, with as many points and pseudo-points in a leaf."""
    function = annulus()
    config = TreeConfig(20_000, min_points=10, shrinkage=3.0, order=8.0)
    asked: list[Tensor] = []

    def weigh(u: Tensor) -> Tensor:
        asked.append(u)
        return function(u)

    found, plain = [], []
    for seed in range(3):
        u = rand(20_000, 2, seed)
        generator = torch.Generator().manual_seed(seed)
        tree = explore_tree(weigh, 20_000, (u[:6000], function(u[:6000])), config, generator=generator)
        found.append(worth(tree, function, 2)[1])
        plain.append(worth(grow_tree(u, function(u), config), function, 2)[1])
    radius = (torch.cat(asked) - 0.5).norm(dim=1)
    near = ((radius - 0.2).abs() < 0.03) | ((radius - 0.45).abs() < 0.03)
    assert sum(len(u) for u in asked) == 60_000 and float(near.double().mean()) > 0.5
    assert median(found) > 1.15 * median(plain)


def test_training_explores_where_there_are_few_coordinates() -> None:
    """And where efficiency alone counts: it then has more of the calls than the training of grids."""
    chosen = {}
    for events in (0, 10_000):
        config = TrainingConfig(calls=60_000, sampler="vegas", events=events)
        result = Trainer(Integrand(annulus()), config, Streams(1)).fit()
        explored = [candidate for candidate in result.candidates if "explored" in candidate.name]
        assert len(explored) == (events == 0)
        chosen[events] = next(candidate for candidate in result.candidates if candidate.chosen)
    assert "explored" in chosen[0].name
    assert chosen[0].efficiency_0p1 > 1.2 * chosen[10_000].efficiency_0p1


def test_exploring_stands_a_peak_that_was_unknown() -> None:
    """One that is 1e30 times higher than all that was known, so that powers of its weights would overflow."""
    u = rand(500, 2, 1) * 0.5
    peak = lambda x: torch.where((x > 0.75).all(1), 1e30, 1e-3 + x[:, 0])  # noqa: E731
    config = TreeConfig(min_points=10, shrinkage=3.0, order=8.0)
    tree = explore_tree(peak, 20_000, (u, peak(u)), config, generator=torch.Generator().manual_seed(1))
    inside = tree.unmap(torch.tensor([[0.9, 0.9]], dtype=torch.float64))[1].exp()
    assert 10.0 < float(inside) < 16.1


def test_exploring_looks_everywhere_where_all_that_is_known_is_even() -> None:
    """A step that none of the first points has seen is found, and points of a later round count in their leaves."""
    u = rand(300, 1, 1) * 0.9
    step = lambda x: 1.0 + 9.0 * (x[:, 0] > 0.95).double()  # noqa: E731
    config = TreeConfig(min_points=10, shrinkage=3.0)
    tree = explore_tree(step, 6000, (u, step(u)), config, generator=torch.Generator().manual_seed(1))
    density = tree.unmap(torch.tensor([[0.5], [0.98]], dtype=torch.float64))[1].exp()
    assert density.tolist() == pytest.approx([1 / 1.45, 10 / 1.45], rel=0.02)


def test_exploring_keeps_what_is_even() -> None:
    """Where all weights are equal there is nothing to ask for: points are uniform, and so is the density."""
    u = rand(1000, 2, 1)
    tree = explore_tree(lambda x: torch.ones(len(x)), 5003, (u, torch.ones(1000)), generator=torch.Generator())
    assert torch.allclose(tree.unmap(rand(50, 2, 2))[1], torch.zeros(50).double(), atol=1e-9)


def test_shrinkage_protects_the_tail() -> None:
    """Where nothing can be learned, a tree without shrinkage makes things worse on unseen points, one with it not."""
    u = rand(20_000, 2, 2)
    learned = heavy_tail(u)
    unseen = heavy_tail(rand(40_000, 2, 4321))
    before = kish_ess(unseen) / 40_000, efficiency_at(unseen, 1e-3)[1]
    small = TreeConfig(min_points=5, shrinkage=0.0, order=4.0)
    without = worth(grow_tree(u, learned, small), heavy_tail, 2)
    protected = worth(grow_tree(u, learned, TreeConfig(min_points=5, shrinkage=50.0, order=4.0)), heavy_tail, 2)
    assert without[0] < 0.95 * before[0] and without[1] < 0.7 * before[1]
    assert protected[0] > without[0] and protected[1] > 1.25 * without[1]
    default = worth(grow_tree(u, learned), heavy_tail, 2)
    assert default[0] > 0.98 * before[0] and default[1] > 0.8 * before[1]


def test_only_a_gain_on_unseen_points_keeps_the_tree() -> None:
    config = TrainingConfig(calls=40_000, sampler="vegas", events=0)
    noise = Trainer(Integrand(heavy_tail, 2), config, Streams(1)).fit()
    assert any("tree" in candidate.name for candidate in noise.candidates)
    assert "tree" not in noise.sampler.describe()
    slope = Integrand(lambda x: annulus()(x) * torch.exp(6.0 * x.sum(1)), 2, kind="torch")
    edges = Trainer(slope, config, Streams(1)).fit()
    assert "tree" in edges.sampler.describe()
    chosen = [candidate for candidate in edges.candidates if candidate.chosen]
    assert len(chosen) == 1 and chosen[0].efficiency_0p1 > edges.candidates[0].efficiency_0p1


def test_a_training_without_tree() -> None:
    result = Trainer(Integrand(annulus()), training(calls=20_000, sampler="vegas", on=False), Streams(1)).fit()
    assert [candidate.name.split()[0] for candidate in result.candidates] == ["uniform", "vegas"]


@pytest.mark.parametrize("floor", [1e-3, 1e-2, 0.5])
def test_empty_leaves_keep_a_floor(floor: float) -> None:
    u = rand(20_000, 2, 3)
    weights = (u[:, 0] > 0.5).double()
    tree = grow_tree(u, weights, TreeConfig(shrinkage=0.0, floor=floor))
    empty = rand(1000, 2, 5) * torch.tensor([0.499, 1.0])
    density = tree.unmap(empty)[1].exp()
    assert float(density.min()) >= 0.999 * floor / (1 + floor)
    assert float(density.max()) < 1.001 * floor
    assert float(tree.probability.min()) > 0


def test_nothing_but_zeros_gives_the_uniform_density() -> None:
    for weights in (torch.zeros(1000), torch.zeros(0)):
        tree = grow_tree(rand(len(weights), 2, 1), weights)
        assert torch.allclose(tree.unmap(rand(50, 2, 2))[1], torch.zeros(50).double(), atol=1e-12)


def test_signs_and_scale_do_not_matter() -> None:
    u = rand(5000, 2, 1)
    weights = annulus()(u) + 0.1
    one = grow_tree(u, weights)
    for factor in (-1.0, 1e-200, 1e200):
        other = grow_tree(u, factor * weights)
        assert torch.equal(one.low, other.low) and torch.allclose(one.probability, other.probability)


def test_importance_undoes_the_density_of_the_points() -> None:
    """Points that crowd on the left, with the factor that makes them uniform, give the density of uniform points."""
    u = rand(60_000, 1, 1)
    crowded = u**2
    factor = 2 * crowded.sqrt().squeeze(1)
    target = lambda x: 0.2 + x[:, 0]  # noqa: E731
    config = TreeConfig(leaves=40, order=2.0)
    right = grow_tree(crowded, target(crowded), config, factor)
    x = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    expected = (0.2 + x[:, 0]) / 0.7
    assert torch.allclose(right.unmap(x)[1].exp(), expected, rtol=0.15)
    assert worth(right, target, 1)[0] > 0.98


def test_leaves_fill_the_cube_without_overlap() -> None:
    tree = grow_tree(rand(20_000, 3, 1), heavy_tail(rand(20_000, 3, 1)), TreeConfig(leaves=300, min_points=20))
    assert 100 < tree.leaves <= 300
    assert float((tree.high - tree.low).prod(1).sum()) == pytest.approx(1, abs=1e-12)
    assert float(tree.probability.sum()) == pytest.approx(1, abs=1e-12)
    x = rand(2000, 3, 2)
    inside = ((x.unsqueeze(1) >= tree.low) & (x.unsqueeze(1) < tree.high)).all(2)
    assert bool((inside.sum(1) == 1).all())
    assert torch.equal(tree._index.find(x), inside.long().argmax(1))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 60))
def test_every_point_finds_its_leaf(seed: int, dim: int, leaves: int) -> None:
    u = rand(800, dim, seed)
    tree = grow_tree(u, u[:, 0] ** 3 + 0.01, TreeConfig(leaves=leaves, min_points=5, shrinkage=1.0))
    x = rand(200, dim, seed + 1)
    inside = ((x.unsqueeze(1) >= tree.low) & (x.unsqueeze(1) < tree.high)).all(2)
    assert torch.equal(tree._index.find(x), inside.long().argmax(1))
    back = tree.map(tree.unmap(x)[0])[0]
    assert float((back - x).abs().max()) < 1e-9


@given(seed=st.integers(0, 2**16), dim=st.integers(1, 4), cells=st.integers(2, 9))
def test_compiled_counts_have_the_same_bits(seed: int, dim: int, cells: int) -> None:
    random = np.random.default_rng(seed)
    points, powers, factor = random.random((200, dim)), random.random(200) ** 8, random.random(200)
    low = 0.5 * random.random(dim)
    arguments = points, powers, factor, np.flatnonzero(random.random(200) < 0.5), low, cells / (0.9 - low)
    plain, each, compiled = (np.zeros((3, dim, cells)) for _ in range(3))
    trees.count_cells(*arguments, plain)
    trees.count_each(*arguments, each)
    (trees._compiled_count() or trees.count_each)(*arguments, compiled)
    assert plain.tobytes() == each.tobytes() == compiled.tobytes()
    assert plain[0].sum() == dim * len(arguments[3])


def test_growth_is_reproducible() -> None:
    u = rand(5000, 2, 1)
    one, other = (grow_tree(u, heavy_tail(u)) for _ in range(2))
    assert torch.equal(one.low, other.low) and torch.equal(one.probability, other.probability)


@pytest.mark.parametrize(
    "settings",
    [
        {"leaves": 0},
        {"min_points": 0},
        {"cuts": 1},
        {"shrinkage": -1.0},
        {"order": 0.5},
        {"floor": 0.0},
        {"floor": 1.5},
    ],
)
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TreeConfig(**settings)  # type: ignore[arg-type]
