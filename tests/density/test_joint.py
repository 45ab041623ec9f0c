"""Functions of the form (u, channel) -> f, y, α: the integral, the training, and what is refused."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  (that it can be sent to other processes is what is tested)
from typing import Any

import pytest
import torch
from channel_examples import RIDGE_INTEGRAL, ridge_channels, ridges
from torch import Tensor

from nisampler.api import integrate
from nisampler.base.estimate import pull
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.density.joint import joint_channels
from nisampler.errors import ChannelError, ConfigError
from nisampler.integration.integrator import IntegrationConfig
from nisampler.training.config import TrainingConfig


def prior(x: Tensor) -> Tensor:
    return torch.stack([channel.inverse(x)[1] for channel in ridge_channels()], 1)


def joint(u: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ridges as MadNIS would have them."""
    assert len(set(channel.tolist())) <= 1
    x, log_g = ridge_channels()[int(channel[0]) if len(channel) else 0].forward(u)
    return ridges(x) * torch.exp(-log_g), x, torch.softmax(prior(x), 1)


def test_it_is_the_same_integrand_as_with_channels() -> None:
    function = joint_channels(joint, 3, 3)
    plain = Multichannel(ridges, ridge_channels(), prior=prior)
    u = torch.rand(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(function(u), plain(u), rtol=1e-9, atol=1e-12)
    assert (function.name, function.dim, function.feature_count(), function.invertible) == ("joint", 4, 3, False)
    torch.testing.assert_close(function.evaluate(u).features, plain.evaluate(u).features)
    for other in (copy.deepcopy(function), pickle.loads(pickle.dumps(function))):
        assert torch.equal(other(u), function(u))


def test_it_is_trained_and_integrated() -> None:
    training = TrainingConfig(calls=5000, sampler="vegas")
    result = integrate(joint_channels(joint, 3, 3), training=training, integration=IntegrationConfig(points=24_576))
    assert abs(pull(result.estimate, RIDGE_INTEGRAL)) < 4.5
    assert len(result.unweight(20).weights) == 20


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f, y, a: (f[:, None], y, a), "must have shapes"),
        (lambda f, y, a: (f, y[1:], a), "must have shapes"),
        (lambda f, y, a: (f, y, a[:, :2]), "must have shapes"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: Any, match: str) -> None:
    function = joint_channels(lambda u, channel: change(*joint(u, channel)), 3, 3)
    with pytest.raises(ChannelError, match=match):
        Integrand(function, kind="torch")(torch.full((5, 4), 0.5, dtype=torch.float64))


def test_weights_may_be_zero_but_not_negative() -> None:
    def cut(u: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f, y, alpha = joint(u, channel)
        return f, y, torch.where(alpha < 0.01, lowest, alpha)

    lowest = 0.0
    joint_channels(cut, 3, 3).self_test()
    lowest = -0.1
    with pytest.raises(ChannelError, match="prior of a point is NaN"):
        joint_channels(cut, 3, 3).self_test()


def test_numbers_of_channels_are_counts() -> None:
    with pytest.raises(ConfigError, match="channels = 0"):
        joint_channels(joint, 3, 0)
