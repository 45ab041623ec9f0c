"""The sampler of channels: shares, dropping, stored state, and the integrand that it brings its weights to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from channel_examples import (
    PARTED_INTEGRAL,
    RIDGE_INTEGRAL,
    Flat,
    Peak,
    ProductChannel,
    parted,
    parted_channels,
    ridge_channels,
    ridge_function,
    ridges,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from windows import PULL_LIMIT

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiency_at
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import ChannelError, ConfigError, CorruptFileError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.flows.grouped import GridSpline
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.samplers.base import UniformSampler
from nisampler.samplers.chain import chain
from nisampler.samplers.multichannel import ChannelModel, MultichannelSampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.samplers.shares import best_shares, dispensable, followed
from nisampler.samplers.tree import TreeConfig, TreeSampler, grow_tree
from nisampler.unweighting.unweighter import Unweighter

CONFIG = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=2))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=generator(seed), dtype=torch.float64)


def sampler(
    dim: int = 4, groups: tuple[int, ...] = (0, 1, 2), features: int = 3, size: float = 0.15
) -> MultichannelSampler:
    """Flows and channel weights that are random, and unequal shares."""
    made = MultichannelSampler.create(dim, groups, features, CONFIG, generator(1))
    disturb = generator(2)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=disturb)
    share = torch.arange(1.0, len(groups) + 1.0, dtype=torch.float64)
    return made.with_shares(share)


def plain(share: list[float], dim: int = 4) -> MultichannelSampler:
    """Shares alone, without flows, grids and weights."""
    model = ChannelModel(torch.tensor(share, dtype=torch.float64))
    return MultichannelSampler(dim, tuple(range(len(share))), model)


def integral(function: Multichannel, used: MultichannelSampler, points: int = 100_000) -> float:
    """What a frozen sampler finds."""
    return Integrator(Integrand(function), used, IntegrationConfig(points=points), Streams(3)).run().estimate.value


def pull_of(function: Multichannel, used: Any, truth: float, method: str = "sobol", points: int = 50_000) -> float:
    config = IntegrationConfig(points=points, method=method)
    return pull(Integrator(Integrand(function), used, config, Streams(5)).run().estimate, truth)


def weights_of(function: Multichannel, used: MultichannelSampler, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Channels and weights of fresh points."""
    u = rand(n, used.dim, seed)
    x, log_q = used.map(u)
    return used.latent_channel(u), used.view(Integrand(function))(x) * torch.exp(-log_q)


def test_points_are_drawn_by_their_shares_in_channels_intervals() -> None:
    used = sampler()
    u = rand(60_000, 4, 1)
    x, _ = used.map(u)
    channel = used.channel(x)
    assert torch.equal(channel, used.latent_channel(u)) and torch.equal(channel, (3 * x[:, 0]).long())
    seen = torch.bincount(channel, minlength=3) / 60_000
    torch.testing.assert_close(seen.double(), used.share, rtol=0, atol=0.01)
    torch.testing.assert_close(used.share, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) / 6.0)


def test_channels_of_a_group_share_their_flow() -> None:
    used = sampler(groups=(0, 1, 0))
    inner = rand(100, 3, 2)
    densities = []
    for channel in range(3):
        first = torch.full((100, 1), (channel + 0.5) / 3, dtype=torch.float64)
        densities.append(used.log_prob(torch.cat([first, inner], 1)) - torch.log(3 * used.share[channel]))
    torch.testing.assert_close(densities[0], densities[2], rtol=0, atol=1e-12)
    assert float((densities[0] - densities[1]).abs().max()) > 0.01
    assert used.model.flow is not None and used.model.flow.groups == 2


def test_training_draws_are_stratified_in_the_channel() -> None:
    used = sampler()
    u = used.latent(600, generator(4))
    assert u.shape == (600, 4) and torch.equal((600 * u[:, 0]).long(), torch.arange(600))
    counts = torch.bincount(used.latent_channel(u), minlength=3)
    assert (counts - 600 * used.share).abs().max() <= 1.0


@pytest.mark.parametrize("share", [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
def test_channels_without_a_share_are_never_drawn(share: list[float]) -> None:
    used = plain(share)
    u = torch.cat([rand(2000, 4, 1), torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)] * 4)])
    x, log_q = used.map(u)
    assert bool(torch.isfinite(log_q).all()) and bool(((x >= 0.0) & (x <= 1.0)).all())
    assert all(share[k] > 0.0 for k in used.channel(x).unique().tolist())
    back, again = used.unmap(x)
    inner = u[:, 0] > 1e-5
    assert float((back - u)[inner].abs().max()) < 1e-5 and torch.equal(again, log_q)
    lost = used.log_prob(torch.full((1, 4), (share.index(0.0) + 0.5) / 3, dtype=torch.float64))
    assert float(lost) == -math.inf
    middle = (torch.arange(300, dtype=torch.float64) + 0.5) / 300
    density = used.log_prob(torch.stack([middle, *[middle.flip(0)] * 3], 1)).exp()
    assert float(density.mean()) == pytest.approx(1.0, abs=1e-12)


@given(share=st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=12), seed=st.integers(0, 100))
def test_any_shares_give_a_density_that_integrates_to_one(share: list[float], seed: int) -> None:
    used = plain([s / sum(share) for s in share], dim=2)
    first = (torch.arange(len(share), dtype=torch.float64) + 0.5) / len(share)
    density = used.log_prob(torch.stack([first, first], 1)).exp()
    assert float(density.mean()) == pytest.approx(1.0, abs=1e-12)
    u = rand(200, 2, seed)
    x, log_q = used.map(u)
    assert torch.equal(used.channel(x), used.latent_channel(u))
    torch.testing.assert_close(used.unmap(x)[1], log_q, rtol=0, atol=0)


def test_an_untrained_sampler_gives_the_integral() -> None:
    for method in ("sobol", "mc"):
        assert abs(pull_of(ridge_function(), sampler(), RIDGE_INTEGRAL, method)) < PULL_LIMIT
        assert abs(pull_of(ridge_function(), sampler().with_mixture(), RIDGE_INTEGRAL, method)) < PULL_LIMIT
    nodes = (torch.linspace(0.0, 1.0, 9, dtype=torch.float64) ** 1.3).expand(3, 3, -1)
    used = sampler()
    under = MultichannelSampler(4, (0, 1, 2), ChannelModel(torch.full((3,), 1.0 / 3.0)), GridSpline(nodes))
    assert abs(pull_of(ridge_function(), used.on(under), RIDGE_INTEGRAL)) < PULL_LIMIT


def test_a_wrong_share_is_seen() -> None:
    """Negative control: one density is 3 % too high."""

    class Wrong(MultichannelSampler):
        def _log_share(self) -> Tensor:
            return super()._log_share() + math.log(1.03)

    honest = sampler()
    wrong = Wrong(4, honest.groups, honest.model, None, honest.config)
    assert abs(pull_of(ridge_function(), wrong, RIDGE_INTEGRAL)) > 6.0


def test_weights_come_with_the_sampler() -> None:
    """Integrator and unweighter see the learned weights; without them a dropped channel would be lost."""
    function = ridge_function()
    used = sampler()
    integrand = Integrand(function)
    seen = used.view(integrand)
    assert isinstance(seen.function, Multichannel) and seen.function.weights is used.model.weights
    u = rand(50, 4, 1)
    with torch.no_grad():
        assert not torch.allclose(seen(u), integrand(u))
    assert seen.calls == integrand.calls
    behind = chain(used, UniformSampler(4)).view(integrand).function
    assert isinstance(behind, Multichannel) and behind.weights is used.model.weights
    other = Integrand(lambda x: x.sum(1), 4, kind="torch")
    assert used.view(other) is other and plain([0.5, 0.5]).view(integrand) is integrand
    for made in (Integrator(integrand, used), Unweighter(integrand, used, 1.0, 0.5, Streams(1))):
        assert isinstance(made.integrand.function, Multichannel)
        assert made.integrand.function.weights is used.model.weights


def test_what_is_observed_makes_the_target() -> None:
    used, function = sampler(), ridge_function()
    integrand = Integrand(function)
    x, _ = used.sample(500, generator(3))
    before = integrand.calls
    f, extra = used.observe(integrand, x)
    assert integrand.calls == before + 500
    assert f.shape == (500,) and extra.shape == (500, used.extra) == (500, 6)
    with torch.no_grad():
        target = used.target(x, f, extra)
    torch.testing.assert_close(target, used.view(integrand)(x), rtol=1e-9, atol=0)
    torch.testing.assert_close(f, function.evaluate(x).value, rtol=1e-12, atol=0)
    bare = plain([0.5, 0.2, 0.3])
    assert bare.extra == 0
    values, none = bare.observe(integrand, x)
    assert torch.equal(values, integrand(x)) and none.shape == (500, 0)
    assert torch.equal(bare.target(x, f, none), f)


def test_gradients_reach_flows_and_weights_until_they_are_frozen() -> None:
    used = sampler()
    x, _ = used.sample(64, generator(3))
    f, extra = used.observe(Integrand(ridge_function()), x)
    used.standardise(ridge_function(), generator(4))
    loss = (used.target(x, f, extra).log() - used.log_q(x)).square().mean()
    loss.backward()
    assert used.model.flow is not None and used.model.weights is not None
    assert any(float(p.grad.abs().max()) > 0.0 for p in used.model.weights.parameters() if p.grad is not None)
    assert any(float(p.grad.abs().max()) > 0.0 for p in used.model.flow.parameters() if p.grad is not None)
    used.model.zero_grad()
    used.freeze_channels(True)
    (used.target(x, f, extra).log() - used.log_q(x)).square().mean().backward()
    assert all(p.grad is None for p in used.model.weights.parameters())
    assert used.model.share.requires_grad is False
    used.freeze_channels(False)
    assert all(p.requires_grad for p in used.model.weights.parameters())
    log_q = used.log_q(x.float())
    torch.testing.assert_close(log_q.double(), used.log_prob(x), rtol=0, atol=1e-4)


def learn(used: MultichannelSampler, channel: Tensor, weights: Tensor, least: float = 0.1) -> None:
    """Let the shares follow weights of points in these channels."""
    used.model.share.copy_(followed(used.share, channel, weights, least))


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_shares_follow_the_second_moment(least: float) -> None:
    used = plain([0.25, 0.25, 0.5])
    channel = torch.tensor([0] * 100 + [1] * 100 + [2] * 200)
    size = torch.tensor([3.0] * 100 + [1.0] * 100 + [0.0] * 200, dtype=torch.float64)
    for _ in range(60):
        # weights are f / q with q ∝ share, as they would be if the shares had drawn them
        learn(used, channel, size / (3.0 * used.share[channel]), least)
    assert float(used.share.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(used.share.min()) >= least / 3
    if least == 0.0:
        torch.testing.assert_close(used.share, torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64))
    bare = plain([0.25, 0.25, 0.5])
    learn(bare, channel, torch.zeros(400))
    assert bare.share.tolist() == [0.25, 0.25, 0.5]


def test_shares_of_dropped_channels_stay_zero() -> None:
    used = plain([0.0, 0.4, 0.6])
    channel, weights = weights_of(ridge_function(), used, 5000, 1)
    learn(used, channel, weights)
    assert float(used.share[0]) == 0.0 and float(used.share.sum()) == pytest.approx(1.0)


def test_learned_shares_lower_the_variance() -> None:
    used = plain([1 / 3, 1 / 3, 1 / 3])
    before = float(weights_of(ridge_function(), used, 40_000, 1)[1].var())
    for seed in range(6):
        learn(used, *weights_of(ridge_function(), used, 10_000, 10 + seed))
    after = float(weights_of(ridge_function(), used, 40_000, 2)[1].var())
    assert after < 0.6 * before
    assert abs(pull_of(ridge_function(), used, RIDGE_INTEGRAL)) < PULL_LIMIT


def test_best_shares_raise_the_efficiency() -> None:
    function, used = ridge_function(), plain([0.6, 0.2, 0.2])
    better = used.with_shares(best_shares(used.share, *weights_of(function, used, 40_000, 1)))
    before, after = (efficiency_at(weights_of(function, s, 80_000, 2)[1], 1e-3)[1] for s in (used, better))
    assert after > 1.2 * before
    assert abs(pull_of(function, better, RIDGE_INTEGRAL)) < PULL_LIMIT
    learned = plain([0.6, 0.2, 0.2])
    for seed in range(8):
        learn(learned, *weights_of(function, learned, 10_000, 10 + seed), 0.0)
    assert after > efficiency_at(weights_of(function, learned, 80_000, 2)[1], 1e-3)[1]


def test_best_shares_of_constant_weights_are_their_parts() -> None:
    """Each channel has constant weights: shares in proportion to its part make all weights equal."""
    used = plain([0.5, 0.3, 0.2])
    channel = used.latent_channel(rand(3000, 4, 1))
    part = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    found = best_shares(used.share, channel, part[channel] / used.share[channel])
    torch.testing.assert_close(found, part / 8.0)
    nothing = best_shares(used.share, channel, torch.zeros(3000))
    torch.testing.assert_close(nothing, used.share)


@pytest.mark.parametrize("missing", [True, False], ids=["no points", "zeros"])
def test_best_shares_never_starve_a_channel(missing: bool) -> None:
    """A channel without a weight among few points keeps a share: what it has may not have been seen."""
    used = plain([0.5, 0.4, 0.1])
    channel = used.latent_channel(rand(400, 4, 1))
    weights = torch.where(channel == 2, 0.0, 1.0).double()
    keep = channel != 2 if missing else torch.ones_like(channel, dtype=torch.bool)
    found = best_shares(used.share, channel[keep], weights[keep])
    assert bool((found > 0.0).all()) and float(found.sum()) == pytest.approx(1.0)
    gone = used.with_shares(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    channel = gone.latent_channel(rand(400, 4, 2))
    assert float(best_shares(gone.share, channel, torch.ones(400))[2]) == 0.0


def overlapping() -> Multichannel:
    """The ridges, the flat cube, and a needle of a channel that hardly counts."""
    needle = ProductChannel("needle", [Peak(0.9, 1e-5), Flat(), Flat()])
    return Multichannel(ridges, [*ridge_channels(flat=True), needle])


def observed(function: Multichannel, used: MultichannelSampler, n: int = 8000) -> tuple[tuple[Tensor, Tensor], ...]:
    """Channels and log prior weights of stored points with f > 0, and channels and weights of all points."""
    integrand = Integrand(function)
    x, log_q = used.sample(n, generator(9))
    f, extra = used.observe(integrand, x)
    with torch.no_grad():
        weights = used.target(x, f, extra) * torch.exp(-log_q)
    channel, inside = used.channel(x), f > 0.0
    return (channel[inside], extra[inside, : used.channels]), (channel, weights)


def test_a_dispensable_channel_is_found_and_dropped_without_bias() -> None:
    function = overlapping()
    used = MultichannelSampler.create(4, range(5), 3, CONFIG, generator(1))
    points = observed(function, used)
    chosen, part = dispensable(used.share, *points, 1e-2)
    assert chosen.tolist() == [False, False, False, False, True] and 0.0 < part < 1e-2
    assert not bool(dispensable(used.share, *points, 0.0)[0].any())
    before = used.describe()
    used.drop(chosen)
    assert "5 channels" in before and "4 of 5 channels" in used.describe()
    assert float(used.share[4]) == 0.0 and float(used.share.sum()) == pytest.approx(1.0)
    assert 4 not in used.channel(used.sample(20_000, generator(2))[0]).tolist()
    for method in ("sobol", "mc"):
        assert abs(pull_of(function, used, RIDGE_INTEGRAL, method)) < PULL_LIMIT
        assert abs(pull_of(function, used.with_mixture(), RIDGE_INTEGRAL, method)) < PULL_LIMIT


def test_a_large_channel_may_be_dropped_too() -> None:
    """The others take over, at the price of larger weights."""
    function = Multichannel(ridges, ridge_channels(flat=True))
    used = MultichannelSampler.create(4, range(4), 3, CONFIG, generator(1))
    used.drop(torch.tensor([False, False, True, False]))
    assert abs(pull_of(function, used, RIDGE_INTEGRAL, points=200_000)) < PULL_LIMIT


def test_a_channel_that_covers_a_region_alone_is_not_dispensable() -> None:
    function = Multichannel(parted, parted_channels(0.01))
    used = MultichannelSampler.create(3, (0, 1, 2), 2, CONFIG, generator(1))
    assert dispensable(used.share, *observed(function, used), 0.02)[0].tolist() == [False, False, False]
    right = dispensable(used.share, *observed(function, used), 0.8)[0]
    assert not bool(right[0]) and int(right.sum()) <= 1
    small = torch.tensor([True, False, False])
    used.drop(small)
    assert pull_of(function, used, PARTED_INTEGRAL) < -6.0  # what a forced drop of it costs
    rest = integral(function, used)
    assert rest == pytest.approx(PARTED_INTEGRAL - 0.01 * 1.005, rel=1e-3)


def test_two_channels_that_cover_a_region_together_are_not_both_dispensable() -> None:
    channels = [
        ProductChannel("left", [Flat(0.0, 0.01), Flat()]),
        ProductChannel("left again", [Flat(0.0, 0.01), Peak(0.5, 0.2)]),
        ProductChannel("right", [Flat(0.01, 1.0), Flat()]),
    ]
    function = Multichannel(parted, channels)
    used = MultichannelSampler.create(3, (0, 1, 2), 2, CONFIG, generator(1))
    chosen, _ = dispensable(used.share, *observed(function, used), 0.5)
    assert chosen.tolist().count(True) <= 1 and not bool(chosen[2])
    if bool(chosen.any()):
        used.drop(chosen)
    assert abs(pull_of(function, used, PARTED_INTEGRAL, "mc")) < PULL_LIMIT


def test_drops_that_cannot_be_are_named() -> None:
    with pytest.raises(ConfigError, match="learned channel weights"):
        plain([0.5, 0.5]).drop(torch.tensor([True, False]))
    with pytest.raises(ChannelError, match="at least one"):
        sampler().drop(torch.tensor([True, True, True]))


@pytest.mark.parametrize("share", [torch.ones(2), torch.ones(4), torch.ones(3, 1)])
def test_shares_and_groups_must_fit(share: Tensor) -> None:
    with pytest.raises(ConfigError, match="a share for each of 3 channels"):
        MultichannelSampler(4, (0, 1, 2), ChannelModel(share))


def with_everything() -> MultichannelSampler:
    """Grids, flows, weights, groups and a dropped channel."""
    used = sampler(groups=(0, 1, 0))
    nodes = torch.rand(2, 3, 9, generator=generator(6), dtype=torch.float64).cumsum(2)
    nodes = torch.nn.functional.pad(nodes, (1, 0)) / nodes[..., -1:]
    used.standardise(ridge_function(), generator(1))
    used = MultichannelSampler(4, used.groups, used.model, GridSpline(nodes, smooth=True), used.config)
    used.drop(torch.tensor([False, True, False]))
    return used


@pytest.mark.parametrize("mixture", [False, True])
def test_the_stored_sampler_gives_the_same_bytes(mixture: bool, tmp_path: Path) -> None:
    used = with_everything()
    used = used.with_mixture() if mixture else used
    tree = TreeSampler(grow_tree(rand(2000, 4, 1), rand(2000, 1, 2)[:, 0], TreeConfig(leaves=5)))
    for number, one in enumerate((used, chain(used, tree))):
        save_checkpoint(tmp_path / f"{number}", *one.state())
        again = sampler_from_state(*load_checkpoint(tmp_path / f"{number}"))
        save_checkpoint(tmp_path / f"{number} again", *again.state())
        files = [sorted(folder.iterdir()) for folder in (tmp_path / f"{number}", tmp_path / f"{number} again")]
        assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
        assert again.describe() == one.describe()
        integrand = Integrand(ridge_function(groups=[0, 1, 0]))
        x, log_q = one.sample(500, generator(3))
        other, again_log_q = again.sample(500, generator(3))
        assert torch.equal(x, other) and torch.equal(log_q, again_log_q)
        with torch.no_grad():
            assert torch.equal(one.view(integrand)(x), again.view(integrand)(x))


DAMAGE: dict[str, dict[str, Any]] = {
    "no share": {"model.share": None},
    "shape of the share": {"model.share": torch.ones(2)},
    "no weights": {"model.weights.shift": None},
    "shape of a weight": {"model.weights.shift": torch.zeros(5)},
    "nodes that fall": {"nodes": torch.tensor([1.0, 0.5, 0.0]).expand(2, 3, 3)},
    "nodes of another shape": {"nodes": torch.tensor([0.0, 0.5, 1.0])},
    "number of channels": {"groups": [0, 1]},
    "no channels": {"groups": []},
    "channels that are no numbers": {"groups": "abc"},
    "number of coordinates": {"dim": 6},
    "number of features": {"features": 9},
    "no configuration": {"config": None},
    "no smoothness": {"smooth": None},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_named(damage: str) -> None:
    tensors, meta = with_everything().state()
    for name, value in DAMAGE[damage].items():
        place: dict[str, Any] = tensors if name in tensors else meta
        if value is None:
            del place[name]
        else:
            place[name] = value
    with pytest.raises(CorruptFileError, match="cannot be rebuilt"):
        sampler_from_state(tensors, meta)


def test_the_description_counts_everything() -> None:
    said = with_everything().describe()
    assert "2 of 3 channels" in said and "2 VEGAS grids of 9 increments" in said
    assert "2 flows 2x8, 4 bins" in said and "learned weights" in said
    assert "mixture weights" in with_everything().with_mixture().describe()
    assert plain([0.5, 0.5]).describe() == "multichannel (2 channels)"


def test_what_a_sampler_tells_of_itself() -> None:
    used = sampler()
    assert (used.channels, used.dim, used.dtype, used.device.type) == (3, 4, torch.float32, "cpu")
    assert plain([0.5, 0.5]).dtype == torch.float64
