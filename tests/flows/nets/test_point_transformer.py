"""The transformer of points: sets without order, padding and other sets unseen, attention to near layers alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.flows import PointTransformer, PointTransformerConfig, paired

DEPTH = 6


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(reach: int = 2, blocks: int = 1) -> PointTransformer:
    config = PointTransformerConfig(hidden=16, layers=blocks, heads=2, reach=reach)
    made = PointTransformer(3, 2, DEPTH, config, generator())
    with torch.no_grad():
        for weight in made.parameters():
            if not weight.any():
                weight.normal_(0, 0.3, generator=generator(2))
    return made.eval()


def sets(counts: tuple[int, ...] = (9, 4, 0, 17), seed: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, times, contexts and groups of sets with so many points."""
    n = len(counts)
    owner = torch.repeat_interleave(torch.arange(n), torch.tensor(counts))
    layer = torch.randint(DEPTH, (len(owner),), generator=generator(seed))
    x = torch.randn(len(owner), 3, generator=generator(seed + 1))
    t = torch.rand(n, 1, generator=generator(seed)).repeat_interleave(DEPTH, dim=0)
    return x, t, torch.randn(n * DEPTH, 2, generator=generator(seed + 2)), owner * DEPTH + layer


def test_points_have_no_order() -> None:
    x, t, context, rows = sets()
    found = net()(x, t, context, rows)
    order = torch.randperm(len(x), generator=generator(9))
    assert torch.allclose(net()(x[order], t, context, rows[order]), found[order], atol=1e-5)


def test_sets_do_not_see_each_other() -> None:
    x, t, context, rows = sets()
    found = net()(x, t, context, rows)
    first = rows < DEPTH
    alone = net()(x[first], t[:DEPTH], context[:DEPTH], rows[first])
    assert torch.allclose(alone, found[first], atol=1e-5)
    moved = net()(torch.where(first.unsqueeze(1), x + 1, x), t, context, rows)
    assert torch.allclose(moved[~first], found[~first], atol=1e-5)
    assert not torch.allclose(moved[first], found[first], atol=1e-2)


@pytest.mark.parametrize("reach", [0, 2])
def test_a_block_reaches_so_many_layers(reach: int) -> None:
    """Moving a point of layer 0 changes points of layers up to the reach, and no others."""
    x, t, context, _ = sets((DEPTH * 2,))
    rows = torch.arange(DEPTH).repeat(2)
    moved = x.clone()
    moved[0] += 2.0
    change = (net(reach)(moved, t, context, rows) - net(reach)(x, t, context, rows)).abs().amax(1)
    seen = change[6:] > 1e-5
    assert seen.tolist() == [layer <= reach for layer in range(DEPTH)]
    deep = (net(reach, 2)(moved, t, context, rows) - net(reach, 2)(x, t, context, rows)).abs().amax(1)[6:]
    assert (deep > 1e-6).tolist() == [layer <= 2 * reach for layer in range(DEPTH)]


def test_nothing_gives_nothing() -> None:
    x, t, context, rows = sets((0, 0))
    assert net()(x, t, context, rows).shape == (0, 3)


def test_gradients_are_finite_beside_padding() -> None:
    x, t, context, rows = sets()
    module = net()
    module(x, t, context, rows).square().mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters() if weight.grad is not None)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="3 heads"):
        PointTransformerConfig(hidden=64, heads=3)


# Pairing


def cost(noise: Tensor, points: Tensor) -> float:
    return (noise - points).square().sum().item()


def test_pairs_are_the_closest_within_a_group() -> None:
    noise, points = (torch.randn(60, 3, generator=generator(seed)) for seed in (1, 2))
    rows = torch.randint(4, (60,), generator=generator(3))
    found = paired(noise, points, rows)
    assert cost(found, points) < 0.8 * cost(noise, points)
    source = generator()
    for group in range(4):
        own = rows == group
        assert torch.equal(found[own].sort(0).values, noise[own].sort(0).values)
        for _ in range(200):
            pair = torch.nonzero(own).flatten()[torch.randperm(int(own.sum()), generator=source)[:2]]
            swapped = found.clone()
            swapped[pair] = found[pair.flip(0)]
            assert cost(swapped, points) >= cost(found, points) - 1e-4


def test_large_groups_are_paired_in_parts() -> None:
    noise, points = (torch.randn(90, 3, generator=generator(seed)) for seed in (1, 2))
    rows = torch.zeros(90, dtype=torch.long)
    costs = [cost(paired(noise, points, rows, most), points) for most in (1, 15, 90)]
    assert costs[0] == pytest.approx(cost(noise, points)) and costs[0] > costs[1] > costs[2]
    assert paired(noise[:0], points[:0], rows[:0]).shape == (0, 3)
