"""Channels of other kinds: without an inverse, of NumPy, and with an inverse that answers anything where it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from channel_examples import (
    PARTED_INTEGRAL,
    RIDGE_INTEGRAL,
    ProductChannel,
    parted,
    parted_channels,
    ridge_channels,
    ridge_function,
    ridges,
)
from torch import Tensor

from nisampler.api import integrate
from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.density.maps import Channel, as_torch, inverses, invertible
from nisampler.errors import ChannelError
from nisampler.flows import CouplingConfig, NetConfig
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.training.config import FlowSettings, TrainingConfig

TINY = TrainingConfig(calls=5000, sampler="flow", flow=FlowSettings(hidden=8, layers=1, fourier=0))
POINTS = IntegrationConfig(points=24_576)
FLOW = CouplingConfig(net=NetConfig(hidden=8, layers=1))


class OneWay:
    """A channel without its inverse."""

    def __init__(self, channel: ProductChannel) -> None:
        self.name, self.dim, self._channel = f"one-way {channel.name}", channel.dim, channel

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._channel.forward(u)


def ridge_prior(x: Tensor) -> Tensor:
    """The densities of the ridges, known without asking the channels."""
    return torch.stack([channel.inverse(x)[1] for channel in ridge_channels()], 1)


def one_way(**settings: Any) -> Multichannel:
    return Multichannel(ridges, [OneWay(channel) for channel in ridge_channels()], **settings)


def test_channels_without_an_inverse_need_a_prior() -> None:
    with pytest.raises(ChannelError, match=r"'one-way ridge 0', 'one-way ridge 1', .*Give prior="):
        one_way()
    assert Multichannel(ridges, [OneWay(ridge_channels()[0])]).dim == 3


def test_with_a_prior_they_give_the_same_values() -> None:
    function = one_way(prior=ridge_prior)
    u = torch.rand(500, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(function(u), ridge_function()(u), rtol=1e-9, atol=1e-9)
    assert not function.invertible and ridge_function().invertible
    function.self_test()
    for ask in (function.log_densities, function.inverses):
        with pytest.raises(ChannelError, match="mixture weights"):
            ask(torch.zeros(2, 3))


def test_they_are_trained_integrated_and_unweighted() -> None:
    result = integrate(one_way(prior=ridge_prior), training=TINY, integration=POINTS, seed=3)
    assert abs(pull(result.estimate, RIDGE_INTEGRAL)) < 4.5
    assert isinstance(result.sampler, MultichannelSampler) and not result.sampler.mixture
    assert any("mixture weights were not tried" in warning for warning in result.warnings)
    points = result.unweight(50)
    assert points.x.shape == (50, 3) and points.u.shape == (50, 4)


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        (lambda x: x.new_zeros(len(x), 2), r"returned shape \(1536, 2\)"),
        (lambda x: x.new_full((len(x), 3), math.nan), "NaN"),
        (lambda x: x.new_full((len(x), 3), math.inf), "NaN"),
    ],
)
def test_a_wrong_prior_is_named(prior: Callable[[Tensor], Tensor], match: str) -> None:
    with pytest.raises(ChannelError, match=match):
        one_way(prior=prior).self_test()


class Careless:
    """A channel whose inverse answers with any u where it does not reach."""

    def __init__(self, channel: ProductChannel, nonsense: float) -> None:
        self.name, self.dim, self._channel, self._nonsense = channel.name, channel.dim, channel, nonsense

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._channel.forward(u)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_g = self._channel.inverse(x)
        return torch.where((log_g == -math.inf).unsqueeze(1), self._nonsense, u), log_g


def shared(function: Multichannel, mixture: bool) -> Integrator:
    share = torch.full((3,), 1.0 / 3.0, dtype=torch.float64)
    groups = range(3)
    sampler = MultichannelSampler.create(3, groups, 2, FLOW, torch.Generator().manual_seed(1)).with_shares(share)
    return Integrator(Integrand(function), sampler.with_mixture() if mixture else sampler, POINTS, Streams(4))


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -7.0, 3.0])
def test_an_inverse_may_answer_anything_where_it_ends(nonsense: float) -> None:
    function = Multichannel(parted, [Careless(channel, nonsense) for channel in parted_channels()])
    function.self_test()
    u, log_g = function.inverses(torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert u.shape == (3, 100, 2) and bool(((u >= 0.0) & (u <= 1.0)).all())
    assert bool((log_g == -math.inf).any()) and not bool(torch.isnan(log_g).any())
    careless, careful = (shared(f, mixture=True).run() for f in (function, Multichannel(parted, parted_channels())))
    assert careless.batch_means == careful.batch_means
    assert abs(pull(careless.estimate, PARTED_INTEGRAL)) < 4.5


class Lying(Careless):
    """A channel whose inverse leaves the cube where it reaches, but not at its own points."""

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_g = self._channel.inverse(x)
        foreign = x[:, 1:] > 0.999999
        return torch.where(foreign, self._nonsense, u), log_g


@pytest.mark.parametrize("nonsense", [math.nan, 2.0])
def test_an_inverse_that_leaves_the_cube_is_the_channels_fault(nonsense: float) -> None:
    channels: list[Channel] = [*parted_channels()[:2], Lying(parted_channels()[2], nonsense)]
    x = torch.tensor([[0.7, 0.5], [0.7, 0.9999999]], dtype=torch.float64)
    assert bool((inverses(channels, x[:1])[0] <= 1.0).all())
    with pytest.raises(ChannelError, match=r"'right again'.*outside the unit cube"):
        inverses(channels, x)
    x[1, 0] = math.nan  # whoever made this point is to blame, not the inverse
    assert inverses(channels, x)[0].shape == (3, 2, 2)


def test_the_fault_of_a_channel_is_not_blamed_on_the_function() -> None:
    def function(u: Tensor) -> Tensor:
        raise ChannelError("channel 'c' is wrong")

    with pytest.raises(ChannelError, match="channel 'c' is wrong"):
        Integrand(function, 2, kind="torch")(torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_density_that_is_no_number_elsewhere_is_refused(value: float) -> None:
    class Undefined(Careless):
        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            u, log_g = self._channel.inverse(x)
            return u, torch.where(log_g == -math.inf, self._nonsense, log_g)

    channels = [Undefined(channel, value) for channel in parted_channels()]
    with pytest.raises(ChannelError, match=r"'right': the log density.*another channel"):
        Multichannel(parted, channels).self_test()


class ArrayChannel:
    """x_axis = u_axis², everything else flat, in NumPy."""

    def __init__(self, axis: int) -> None:
        self.name, self.dim, self.axis = f"array {axis}", 2, axis
        self.seen: set[type] = set()

    def forward(self, u: Any) -> Any:
        x = np.array(u)
        self.seen.add(type(u))
        x[:, self.axis] = np.square(u[:, self.axis])
        return x, -np.log(2.0 * np.maximum(u[:, self.axis], 1e-300))

    def inverse(self, x: Any) -> Any:
        u = np.array(x)
        self.seen.add(type(x))
        u[:, self.axis] = np.sqrt(x[:, self.axis])
        return u, -np.log(2.0 * np.maximum(u[:, self.axis], 1e-300))


def test_channels_of_numpy_are_channels() -> None:
    channels = [ArrayChannel(0), ArrayChannel(1)]
    function = Multichannel(lambda x: 4.0 * x.prod(1), channels)
    function.self_test()
    for channel in channels:
        channel.seen.clear()
    result = Integrator(
        Integrand(function),
        MultichannelSampler.create(3, (0, 1), 0, FLOW, torch.Generator().manual_seed(1)),
        POINTS,
        Streams(1),
    ).run()
    assert abs(pull(result.estimate, 1.0)) < 4.5
    assert all(channel.seen == {np.ndarray} for channel in channels)


def test_kinds_of_channels_are_told_apart() -> None:
    torch_channel = ridge_channels()[0]
    assert as_torch(torch_channel) is torch_channel
    untried = SimpleNamespace(name="untried", dim=1, kind="torch", forward=None)
    assert as_torch(untried) is untried
    adapted = as_torch(ArrayChannel(0))
    assert adapted.name == "array 0" and adapted.dim == 2 and invertible(adapted)

    class Forward:
        name, dim = "forward", 1

        def forward(self, u: Any) -> Any:
            return np.sqrt(u), np.log(2.0 * np.sqrt(u[:, 0]))

    assert not invertible(as_torch(Forward()))

    class Broken:
        name, dim = "broken", 1

        def forward(self, u: Any) -> Any:
            raise RuntimeError("no licence")

    assert isinstance(as_torch(Broken()), Broken)
