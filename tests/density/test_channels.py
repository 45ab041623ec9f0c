"""Channel weights sum to one, and a function seen through channels keeps its integral, whatever the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from channel_examples import (
    PARTED_INTEGRAL,
    RIDGE_INTEGRAL,
    Flat,
    Peak,
    ProductChannel,
    gentle_function,
    grid_mean,
    parted,
    parted_channels,
    ridge_channels,
    ridge_function,
    ridges,
    z_prime_function,
    z_prime_integral,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.density.channels import ChannelWeights, Multichannel, multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.density.maps import Channel, channel_coordinate, channel_of
from nisampler.errors import ChannelError, ConfigError, ShapeError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=generator(seed), dtype=torch.float64)


def disturbed(channels: int, features: int, size: float = 0.5, seed: int = 5) -> ChannelWeights:
    """Weights of an untrained random network, far from the prior."""
    weights = ChannelWeights(channels, features, hidden=16, generator=generator(seed))
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator(seed + parameter.numel()))
    return weights


def alphas(weights: ChannelWeights, features: Tensor, log_prior: Tensor) -> Tensor:
    with torch.no_grad():
        return weights(features, log_prior).exp()


def log_priors(channels: int) -> st.SearchStrategy[list[float]]:
    """Log priors of one point, of which at least one is finite."""
    one = st.one_of(st.floats(-800.0, 800.0), st.just(-math.inf))
    return st.lists(one, min_size=channels, max_size=channels).filter(lambda row: max(row) > -math.inf)


@given(
    data=st.data(),
    channels=st.integers(2, 9),
    count=st.integers(1, 3),
    size=st.sampled_from([0.0, 0.3, 3.0, 100.0]),
)
def test_weights_sum_to_one(data: st.DataObject, channels: int, count: int, size: float) -> None:
    rows = data.draw(st.lists(log_priors(channels), min_size=1, max_size=6))
    values = st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count)
    features = data.draw(st.lists(values, min_size=len(rows), max_size=len(rows)))
    prior = torch.tensor(rows, dtype=torch.float64)
    alpha = alphas(disturbed(channels, count, size), torch.tensor(features, dtype=torch.float64), prior)
    assert alpha.dtype == torch.float64 and alpha.shape == prior.shape
    assert float((alpha.sum(1) - 1.0).abs().max()) <= 1e-12
    assert bool((alpha[prior == -math.inf] == 0.0).all())


@given(data=st.data(), channels=st.integers(2, 6))
def test_weights_start_at_the_prior(data: st.DataObject, channels: int) -> None:
    prior = torch.tensor(data.draw(st.lists(log_priors(channels), min_size=1, max_size=5)), dtype=torch.float64)
    weights = ChannelWeights(channels, 2, generator=generator(3))
    alpha = alphas(weights, rand(len(prior), 2, 1), prior)
    assert torch.equal(alpha, torch.log_softmax(prior, 1).exp())
    torch.testing.assert_close(alpha, torch.softmax(prior, 1), rtol=1e-12, atol=1e-15)


@given(channels=st.integers(2, 7), mask=st.integers(1, 126), size=st.sampled_from([0.0, 1.0, 30.0]))
def test_dropped_channels_are_exactly_zero(channels: int, mask: int, size: float) -> None:
    gone = torch.tensor([bool(mask >> k & 1) for k in range(channels)])
    weights = disturbed(channels, 2, size)
    features, prior = rand(50, 2, 1), torch.randn(50, channels, generator=generator(2), dtype=torch.float64)
    before = alphas(weights, features, prior)
    if bool(gone.all()):
        with pytest.raises(ChannelError, match="at least one"):
            weights.drop(gone)
        assert torch.equal(alphas(weights, features, prior), before)
        return
    weights.drop(gone)
    after = alphas(weights, features, prior)
    assert bool((after[:, gone] == 0.0).all())
    assert float((after.sum(1) - 1.0).abs().max()) <= 1e-12
    rest = before[:, ~gone].sum(1, keepdim=True)
    torch.testing.assert_close(after[:, ~gone] * rest, before[:, ~gone], rtol=1e-9, atol=1e-12)


def test_channels_are_dropped_one_after_the_other_but_never_all() -> None:
    weights = ChannelWeights(3, 1)
    weights.drop(torch.tensor([True, False, False]))
    weights.drop(torch.tensor([False, False, True]))
    assert weights.active.tolist() == [False, True, False]
    with pytest.raises(ChannelError, match="every channel"):
        weights.drop(torch.tensor([False, True, False]))
    assert torch.equal(alphas(weights, rand(4, 1, 1), torch.zeros(4, 3))[:, 1], torch.ones(4, dtype=torch.float64))


def test_features_are_standardised() -> None:
    weights = disturbed(2, 2, 0.3)
    features = rand(1000, 2, 3) * torch.tensor([1000.0, 1e-3]) + torch.tensor([5000.0, 0.0])
    prior = torch.zeros(1000, 2, dtype=torch.float64)
    assert float(alphas(weights, features, prior)[:, 0].std()) < 0.05
    weights.standardise(features.float())
    scaled = (features - weights.shift) * weights.scale
    torch.testing.assert_close(scaled.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(scaled.std(0), torch.ones(2, dtype=torch.float64), rtol=1e-3, atol=0)
    constant = torch.full((10, 2), 3.0)
    weights.standardise(constant)
    assert bool(torch.isfinite(alphas(weights, constant, prior[:10])).all())


@pytest.mark.parametrize(("channels", "features"), [(1, 2), (0, 1), (2, 0)])
def test_weights_need_channels_and_features(channels: int, features: int) -> None:
    with pytest.raises(ConfigError, match="two channels and a feature"):
        ChannelWeights(channels, features)


@given(count=st.integers(2, 120), seed=st.integers(0, 1000))
def test_the_first_coordinate_keeps_its_channel_in_single_precision(count: int, seed: int) -> None:
    channel = torch.randint(count, (200,), generator=generator(seed))
    position = rand(200, 1, seed)[:, 0]
    position[:2] = torch.tensor([0.0, 1.0])
    first = channel_coordinate(channel, position, count)
    assert torch.equal(channel_of(first, count), channel)
    assert torch.equal(channel_of(first.float(), count), channel)


def check_integral(function: Multichannel, integral: float, n: int = 60_000) -> None:
    value, error = grid_mean(function, n, 7)
    assert error < 0.05 * integral
    assert abs(value - integral) < 4.0 * error, f"{value} ± {error} instead of {integral}"


def flat_prior(x: Tensor) -> Tensor:
    return x.new_zeros(len(x), 3)


def propagator_prior(x: Tensor) -> Tensor:
    """Some weights that have nothing to do with the densities."""
    return -torch.log((x - torch.tensor([0.3, 0.7, 0.5])) ** 2 + 1e-3)


SPLITS: dict[str, dict[str, Any]] = {
    "prior of the densities": {},
    "flat prior": {"prior": flat_prior},
    "prior of propagators": {"prior": propagator_prior},
    "random network": {"weights": disturbed(3, 3)},
    "random network on a flat prior": {"weights": disturbed(3, 3, seed=8), "prior": flat_prior},
    "random network on other features": {
        "weights": disturbed(3, 2, seed=9),
        "features": lambda x: torch.stack([x[:, 0] * x[:, 1], torch.sin(9.0 * x[:, 2])], 1),
    },
}


@pytest.mark.parametrize("split", SPLITS)
def test_the_integral_does_not_depend_on_the_weights(split: str) -> None:
    check_integral(gentle_function(**SPLITS[split]), 1.0)


@pytest.mark.parametrize("split", ["prior of the densities", "random network"])
def test_peaks_have_their_integral_too(split: str) -> None:
    check_integral(ridge_function(**SPLITS[split]), RIDGE_INTEGRAL)


def test_the_prior_is_the_quietest_of_them() -> None:
    errors = {name: grid_mean(ridge_function(**settings), 20_000, 3)[1] for name, settings in SPLITS.items()}
    assert errors["prior of the densities"] < 0.2 * errors["flat prior"]


@pytest.mark.parametrize("weights", [None, disturbed(3, 3, 0.2)])
def test_the_z_prime_has_its_integral(weights: ChannelWeights | None) -> None:
    check_integral(z_prime_function().with_weights(weights), z_prime_integral(), 100_000)


@pytest.mark.parametrize("weights", [None, disturbed(3, 2)])
def test_channels_may_cover_the_space_in_parts(weights: ChannelWeights | None) -> None:
    check_integral(Multichannel(parted, parted_channels(), weights=weights), PARTED_INTEGRAL)


def test_weights_that_do_not_sum_to_one_are_seen() -> None:
    """Negative control: the same check fails for weights that are 5 % too large."""

    class TooLarge(ChannelWeights):
        def forward(self, features: Tensor, log_prior: Tensor) -> Tensor:
            return super().forward(features, log_prior) + math.log(1.05)

    with pytest.raises(AssertionError, match="instead of"):
        check_integral(gentle_function(weights=TooLarge(3, 3)), 1.0)


def test_a_prior_where_a_channel_does_not_reach_is_seen() -> None:
    """Negative control: a flat prior over channels that cover the space in parts loses some of the integral."""
    with pytest.raises(AssertionError, match="instead of"):
        check_integral(Multichannel(parted, parted_channels(), prior=flat_prior), PARTED_INTEGRAL)


def test_one_channel_is_a_change_of_variables() -> None:
    channel = ProductChannel("only", [Peak(0.3, 0.02), Flat(), Flat()])
    function = Multichannel(ridges, [channel])
    assert function.dim == 3 and multichannel_of(function) is None and function.multichannel is function
    u = rand(500, 3, 1)
    x, log_g = channel.forward(u)
    assert torch.equal(function(u), ridges(x) * torch.exp(-log_g))
    assert torch.equal(function.points(u)[1], x) and function.points(u)[0].tolist() == [0] * 500
    found = function.evaluate(u)
    assert torch.equal(found.value, function(u)) and torch.equal(
        found.log_prior.exp(), torch.ones_like(found.log_prior)
    )
    check_integral(Multichannel(ridges, [ProductChannel("flat", [Flat()] * 3)]), RIDGE_INTEGRAL, 400_000)


@given(n=st.integers(0, 60), seed=st.integers(0, 100))
def test_values_do_not_depend_on_the_order_or_the_batch(n: int, seed: int) -> None:
    function = ridge_function(weights=disturbed(3, 3))
    u = rand(n, 4, seed)
    order = torch.randperm(n, generator=generator(seed))
    with torch.no_grad():
        values = function(u)
        assert values.shape == (n,)
        torch.testing.assert_close(function(u[order]), values[order], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(
            torch.cat([function(u[: n // 3]), function(u[n // 3 :])]), values, rtol=1e-5, atol=1e-9
        )


def test_what_evaluate_returns_makes_the_value() -> None:
    weights = disturbed(3, 3)
    function = ridge_function(weights=weights)
    u = rand(400, 4, 2)
    channel, x, log_g = function.points(u)
    found = function.evaluate(u)
    assert torch.equal(channel, (3 * u[:, 0]).long()) and torch.equal(found.channel, channel)
    for k, member in enumerate(function.channels):
        mine = channel == k
        assert torch.equal(x[mine], member.forward(u[mine, 1:])[0])
    torch.testing.assert_close(found.value, 3 * ridges(x) / log_g.exp(), rtol=1e-12, atol=0)
    densities = function.log_densities(x)
    torch.testing.assert_close(densities.gather(1, channel.unsqueeze(1)).squeeze(1), log_g, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.log_prior, torch.log_softmax(densities, 1), rtol=0, atol=1e-9)
    assert torch.equal(found.features, x)
    alpha = weights(found.features, found.log_prior).exp()
    torch.testing.assert_close(function.log_weights(x, channel, log_g).exp(), alpha, rtol=1e-12, atol=0)
    expected = found.value * alpha[torch.arange(400), channel]
    torch.testing.assert_close(function(u).detach(), expected.detach(), rtol=1e-12, atol=0)
    assert function.feature_count() == 3 and function.names == ("ridge 0", "ridge 1", "ridge 2")
    assert torch.equal(function.with_weights(None)(u), ridge_function()(u)) and function.weights is weights


def test_every_edge_of_the_cube_is_finite() -> None:
    function = ridge_function(weights=disturbed(3, 3))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0], dtype=torch.float64)] * 4)
    assert bool(torch.isfinite(function(corners)).all())


def test_zeros_of_the_function_need_no_densities() -> None:
    """Outside the support neither the other channels nor the function's values matter."""
    function = Multichannel(lambda x: parted(x) * (x[:, 0] < 0.4), parted_channels())
    found = function.evaluate(rand(600, 3, 3))
    zero = found.value == 0.0
    assert bool(zero.any()) and bool((found.log_prior[zero] == -math.log(3.0)).all())


def test_gradients_reach_points_and_weights() -> None:
    function = ridge_function(weights=disturbed(3, 3))
    u = rand(20, 4, 4).requires_grad_()
    function(u).sum().backward()
    assert u.grad is not None and bool(torch.isfinite(u.grad).all()) and float(u.grad[:, 1:].abs().sum()) > 0.0
    assert function.weights is not None
    assert all(bool(torch.isfinite(p.grad).all()) for p in function.weights.parameters() if p.grad is not None)
    assert sum(float(p.grad.abs().sum()) for p in function.weights.parameters() if p.grad is not None) > 0.0


def test_an_integrand_takes_channels_as_any_function() -> None:
    integrand = Integrand(ridge_function())
    assert integrand.dim == 4 and integrand.kind == "torch" and integrand.name == "ridges"
    before = integrand.calls
    u = rand(100, 4, 1)
    seen = integrand.view(ridge_function(weights=disturbed(3, 3)))
    assert not torch.equal(seen(u), integrand(u))
    assert integrand.calls == seen.calls == before + 200
    assert multichannel_of(integrand.function) is integrand.function and multichannel_of(ridges) is None


@pytest.mark.parametrize("shape", [(4, 3), (4, 5), (4,), (2, 2, 4)])
def test_points_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(n, 4\)"):
        ridge_function()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("channels", "settings", "match"),
    [
        ([], {}, "must be given"),
        ([*ridge_channels(), ProductChannel("square", [Flat()] * 2)], {}, "common dimension.*'square': 2"),
        (ridge_channels(), {"groups": [0, 1]}, "for each of 3 channels"),
        (ridge_channels(), {"groups": [0, 2, 2]}, "groups"),
        (ridge_channels(), {"groups": [1, 1, 2]}, "groups"),
        (ridge_channels(), {"groups": [0, -1, 1]}, "groups"),
    ],
)
def test_channels_that_contradict_each_other_are_named(
    channels: Sequence[Channel], settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(ChannelError, match=match):
        Multichannel(ridges, channels, **settings)


def test_groups_share_flows() -> None:
    assert ridge_function().groups == (0, 1, 2)
    assert ridge_function(groups=[0, 0, 1]).groups == (0, 0, 1)


class Tampered:
    """A channel with a wrong map, inverse or density."""

    def __init__(
        self,
        honest: Channel,
        forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, g: (x, g),
        inverse: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda u, g, x: (u, g),
    ) -> None:
        self.honest, self.name, self.dim = honest, f"tampered {honest.name}", honest.dim
        self._forward, self._inverse = forward, inverse

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._forward(*self.honest.forward(u))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._inverse(*self.honest.inverse(x), x)


def nan_at_some(x: Tensor) -> Tensor:
    return torch.where(x > 0.9, math.nan, x)


LIES: dict[str, tuple[Callable[[Channel], Channel], str]] = {
    "inverse": (lambda c: Tampered(c, inverse=lambda u, g, x: (u**1.01, g)), "inverse misses"),
    "inverse of one coordinate": (lambda c: Tampered(c, inverse=lambda u, g, x: (u.flip(1), g)), "inverse misses"),
    "nan of the inverse": (lambda c: Tampered(c, inverse=lambda u, g, x: (nan_at_some(u), g)), "inverse misses"),
    "shape of the inverse": (lambda c: Tampered(c, inverse=lambda u, g, x: (u[:, :2], g)), "inverse returns"),
    "density of the map": (lambda c: Tampered(c, forward=lambda x, g: (x, g + 0.01)), "density times jacobian"),
    "density of the inverse": (lambda c: Tampered(c, inverse=lambda u, g, x: (u, g * 1.001)), "density times jacobian"),
    "nan of the inverse's density": (
        lambda c: Tampered(c, inverse=lambda u, g, x: (u, g * math.nan)),
        "density times jacobian",
    ),
    "no reach": (lambda c: Tampered(c, inverse=lambda u, g, x: (u, g - math.inf)), "density times jacobian"),
    "nan point": (lambda c: Tampered(c, forward=lambda x, g: (nan_at_some(x), g)), "not finite"),
    "infinite density": (lambda c: Tampered(c, forward=lambda x, g: (x, g + math.inf)), "not finite"),
}


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("lie", LIES)
def test_the_self_test_names_the_channel_that_fails(lie: str, which: int) -> None:
    channels: list[Channel] = list(ridge_channels())
    tamper, match = LIES[lie]
    channels[which] = tamper(channels[which])
    with pytest.raises(ChannelError, match=f"'tampered ridge {which}'.*{match}"):
        Multichannel(ridges, channels).self_test()


def same_lie(honest: Channel, lie: Callable[[Tensor], Tensor]) -> Tampered:
    """A density that is wrong in the map and in the inverse, which agree with each other."""
    return Tampered(honest, lambda x, g: (x, g + lie(x)), lambda u, g, x: (u, g + lie(x)))


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("factor", [0.3, 0.98, 1.02, 3.0])
def test_a_jacobian_that_is_wrong_both_ways_is_refused(which: int, factor: float) -> None:
    channels: list[Channel] = list(ridge_channels())
    channels[which] = same_lie(channels[which], lambda x: torch.full_like(x[:, 0], math.log(factor)))
    for seed in range(3):
        with pytest.raises(ChannelError, match=f"'tampered ridge {which}'.*density times jacobian is not one"):
            Multichannel(ridges, channels).self_test(Streams(seed))


def test_a_density_of_a_wrong_shape_is_refused() -> None:
    """Normalised, so that no total could tell."""
    channels: list[Channel] = list(ridge_channels())
    channels[1] = same_lie(channels[1], lambda x: torch.log(0.9 + 0.2 * x[:, 2]))
    with pytest.raises(ChannelError, match="'tampered ridge 1'"):
        Multichannel(ridges, channels).self_test()


@pytest.mark.parametrize("seed", range(20))
def test_honest_channels_pass(seed: int) -> None:
    ridge_function().self_test(Streams(seed))
    z_prime_function().self_test(Streams(seed))
    Multichannel(parted, parted_channels()).self_test(Streams(seed))
    Multichannel(ridges, ridge_channels(flat=True), support=lambda x: x[:, 0] < 0.35).self_test(Streams(seed))
    for line in (Flat(0.9, 0.9001), Flat(0.9, 0.9 + 1e-8), Peak(0.9, 1e-5)):
        needle = ProductChannel("needle", [line, Flat(), Flat()])
        Multichannel(ridges, [*ridge_channels(flat=True), needle]).self_test(Streams(seed))


def test_the_self_test_looks_at_the_support_alone() -> None:
    """A map may do what it likes with points that the function never counts."""

    def outside(x: Tensor) -> Tensor:
        return x[:, :1] > 0.5

    channels: list[Channel] = list(ridge_channels())
    channels[1] = Tampered(channels[1], inverse=lambda u, g, x: (torch.where(outside(x), 0.5, u), g))
    Multichannel(ridges, channels, support=lambda x: x[:, 0] <= 0.5).self_test()
    with pytest.raises(ChannelError, match="tampered"):
        Multichannel(ridges, channels).self_test()


def test_points_of_any_shape_pass_through() -> None:
    """Momenta, say: a channel may return (n, m, 4)."""

    class Folded:
        name, dim = "folded", 3

        def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
            x, log_g = ridge_channels()[0].forward(u)
            return x.unsqueeze(1).expand(-1, 2, -1).contiguous(), log_g

        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return ridge_channels()[0].inverse(x[:, 0])

    class Other(Folded):
        name = "other"

        def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
            x, log_g = ridge_channels()[1].forward(u)
            return x.unsqueeze(1).expand(-1, 2, -1).contiguous(), log_g

        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return ridge_channels()[1].inverse(x[:, 1])

    function = Multichannel(lambda p: ridges(p[:, 0]), [Folded(), Other()])
    function.self_test()
    assert function.feature_count() == 6
    u = rand(50, 4, 1)
    assert function.points(u)[1].shape == (50, 2, 3) and function.evaluate(u).features.shape == (50, 6)
    assert function.points(u[:0])[1].shape == (0, 2, 3) and function(u[:0]).shape == (0,)
    check_integral(function.with_weights(disturbed(2, 6)), RIDGE_INTEGRAL, 400_000)


def test_channels_are_values() -> None:
    """The examples themselves: inverse, density and normalisation."""
    for channel in (*ridge_channels(flat=True), *parted_channels(), *z_prime_function().channels):
        u = rand(1000, channel.dim, 1)
        x, log_g = channel.forward(u)
        back, again = channel.inverse(x)
        torch.testing.assert_close((back, again), (u, log_g), rtol=0, atol=1e-7)
        moved = replace(channel, name="moved") if isinstance(channel, ProductChannel) else channel
        assert torch.equal(moved.forward(u)[0], x)
        slope = torch.autograd.functional.jacobian(lambda v, c=channel: c.forward(v)[0].sum(0), u[:50])
        numeric = -torch.linalg.slogdet(slope.permute(1, 0, 2)).logabsdet
        torch.testing.assert_close(numeric, log_g[:50], rtol=0, atol=1e-9)


def test_what_is_no_channel_is_named() -> None:
    class Nameless:
        dim = 1

        def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return u, torch.zeros(len(u))

    def function(x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)

    channels: Any = [Nameless()]
    with pytest.raises(ChannelError, match=r"channel 0 \(Nameless\) lacks name: a channel has a name, its number"):
        Multichannel(function, channels)
    with pytest.raises(ChannelError, match=r"channel 0 \(function\) lacks name, dim, forward"):
        Multichannel(function, [function])  # type: ignore[list-item]
    with pytest.raises(ChannelError, match="must be a list of them, got Nameless"):
        Multichannel(function, channels[0])
    with pytest.raises(ChannelError, match="must be given"):
        Multichannel(function, [])
    channels[0].name, channels[0].dim = "one", 1.5
    with pytest.raises(ConfigError, match=r"dim of channel 'one' = 1\.5"):
        Multichannel(function, channels)
