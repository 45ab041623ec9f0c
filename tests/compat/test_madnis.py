"""Integrands of madnis: the same integrals with channels, priors and groups, and the names of its integrator."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nisampler
from nisampler.compat import madnis
from nisampler.compat.madnis.integrator import _INSTEAD
from nisampler.density.channels import multichannel_of
from nisampler.errors import ChannelError, ConfigError, NonFiniteError, UnsupportedError

WIDTH = 0.02
RANGE = 2 * math.atan(0.5 / WIDTH)
EXACT = 2 * 1.5 * RANGE / WIDTH


def ridges(x: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two ridges that cross; a channel follows the one or the other. Their prior weights are those of the densities."""
    row, y = torch.arange(len(x)), x.clone()
    y[row, channel] = 0.5 + WIDTH * torch.tan((x[row, channel] - 0.5) * RANGE)
    g = WIDTH / RANGE / ((y - 0.5) ** 2 + WIDTH**2)
    f = ((1 + y.flip(1)) / ((y - 0.5) ** 2 + WIDTH**2)).sum(1)
    return f / g[row, channel], y, g / g.sum(1, keepdim=True)


class StandIn(nn.Module):
    """An integrand as madnis makes it: a module that returns f, y and alpha, or None for what it has not."""

    def __init__(self, function: Any, input_dim: int, channels: int | None, groups: Any = None, **more: Any) -> None:
        super().__init__()
        self.function, self.input_dim, self.channel_count = function, input_dim, channels
        self.remapped_dim, self.has_channel_weight_prior = input_dim, False
        self.channel_grouping = groups
        self.discrete_dims: list[int] = []
        self.function_includes_sampling = False
        self.__dict__.update(more)

    def forward(self, x: Tensor, channels: Tensor | None) -> Any:
        return self.function(x, channels)


def own() -> madnis.Integrand:
    return madnis.Integrand(ridges, 2, channel_count=2, remapped_dim=2, has_channel_weight_prior=True)


CHANNELS: dict[str, Any] = {
    "own": own(),
    "stand-in": StandIn(ridges, 2, 2),
    "no prior": StandIn(lambda x, c: (*ridges(x, c)[:2], None), 2, 2),
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_channels_are_trained_and_integrated(kind: str) -> None:
    training = nisampler.TrainingConfig(calls=5000, sampler="vegas", channels=nisampler.ChannelSettings(mixture=False))
    integration = nisampler.IntegrationConfig(points=8192)
    result = nisampler.integrate(madnis.as_integrand(CHANNELS[kind]), training=training, integration=integration)
    found = result.estimate
    assert abs(found.value - EXACT) < 4 * found.error < 0.02 * EXACT
    assert abs(found.value - 1.1 * EXACT) > 6 * found.error  # negative control
    assert result.sample(5).x.shape == (5, 2) and len(result.unweight(20).weights) == 20


def test_values_and_weights_are_those_of_the_function() -> None:
    function = multichannel_of(madnis.as_integrand(own()).function)
    assert function is not None
    u = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    channel = (2 * u[:, 0]).long()
    f, y, alpha = ridges(u[:, 1:], channel)
    wanted = 2 * f * alpha.gather(1, channel[:, None])[:, 0]
    assert torch.allclose(function(u), wanted) and torch.allclose(function.shown(u), y)


def test_functions_of_one_channel_and_none() -> None:
    gauss = madnis.Integrand(lambda x: x[:, 0] * x[:, 1] ** 2, 2, bounds=[[0.0, 2.0], [1.0, 2.0]])
    alone = madnis.Integrand(lambda x, c: (3 * x[:, 0] ** 2, x), 1, channel_count=1, remapped_dim=1)
    for integrand, exact in ((gauss, 14 / 3), (alone, 1.0)):
        integrator = madnis.Integrator(integrand)
        value, error = integrator.integrate(4096)
        assert abs(value - exact) < 4 * error < 0.1 * exact
        assert float(integrator.sample(4000).weights.mean()) == pytest.approx(exact, rel=0.1)
    assert madnis.Integrator(gauss).sample(10).channels is None


def test_a_prior_without_a_map_leaves_the_weights_to_it() -> None:
    """Cube points of two channels are no common space, so that the network sees nothing of them."""

    def function(x: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        f, _, alpha = ridges(x, channel)
        return f, alpha

    integrand = madnis.Integrand(function, 2, channel_count=2, has_channel_weight_prior=True)
    integrator = madnis.Integrator(integrand, batch_size=100)
    integrator.train(30)
    value, error = integrator.integrate(8192)
    assert abs(value - EXACT) < 4 * error < 0.02 * EXACT
    assert integrator.sample(50).y.unique().tolist() == [0.0]  # type: ignore[union-attr]


def test_groups_share_a_flow() -> None:
    group = [SimpleNamespace(group=SimpleNamespace(group_index=index)) for index in (0, 1, 0)]
    assignment = madnis.ChannelGrouping([None, None, 0])
    for grouping in (assignment, SimpleNamespace(channels=group)):
        integrand = StandIn(lambda x, c: (x[:, 0], x, None), 1, 3, grouping)
        found = multichannel_of(madnis.as_integrand(integrand).function)
        assert found is not None and found.groups == (0, 1, 0)
    with pytest.raises(ConfigError, match="channel 2 is assigned to 1"):
        madnis.ChannelGrouping([None, 0, 1])


@pytest.fixture(scope="module")
def trained() -> madnis.Integrator:
    integrator = madnis.Integrator(own(), batch_size=500, seed=2)
    before = integrator.integrate(4096)[1]
    seen = []
    integrator.train(10, callback=lambda progress: seen.append(progress.done))
    assert seen and before > 2 * integrator.integrate(4096)[1]
    return integrator


def test_the_integrator_has_the_methods_of_madnis(trained: madnis.Integrator) -> None:
    values = [trained.integrate(4096) for _ in range(2)]
    value, error = trained.integral()
    assert values[0] != values[1] and error < values[0][1] and abs(value - EXACT) < 4 * error
    batch = trained.sample(3000, batch_size=1000)
    assert batch.channels is not None and batch.alphas is not None and batch.y is not None
    spread = float(batch.weights.std()) / math.sqrt(3000)
    assert abs(float(batch.weights.mean()) - EXACT) < 4 * spread
    f, y, _ = ridges(batch.x, batch.channels)
    assert torch.allclose(f, batch.func_vals) and torch.allclose(y, batch.y)
    alpha = batch.alphas.gather(1, batch.channels[:, None])[:, 0]
    assert torch.allclose(batch.weights, alpha * f / batch.q_sample)
    assert torch.allclose(batch.alphas.sum(1), torch.ones_like(alpha))
    metrics = trained.integration_metrics(3000)
    assert metrics.count == 3000 == sum(metrics.channel_counts) and len(metrics.channel_errors) == 2
    assert sum(metrics.channel_integrals) == pytest.approx(metrics.integral)
    assert abs(metrics.integral - EXACT) < 4 * metrics.error == pytest.approx(4 * metrics.rel_error * metrics.integral)


def test_training_goes_on(trained: madnis.Integrator) -> None:
    sampler, before = trained.sampler, trained.unweighting_metrics(4000).uweff_after_cuts
    trained.train(10)
    assert trained.sampler is not sampler and trained.training is not None
    assert trained.unweighting_metrics(4000).uweff_after_cuts > before - 0.05
    with pytest.raises(ConfigError, match="call integrate"):
        trained.integral()


def test_unweighting_is_that_of_the_weights() -> None:
    integrator = madnis.Integrator(madnis.Integrand(lambda x: torch.where(x[:, 0] < 0.5, 2 * x[:, 0], 0.0), 1))
    found = integrator.unweighting_metrics(20_000)
    assert found.cut_eff == pytest.approx(0.5, abs=0.02) and found.uweff_after_cuts == pytest.approx(0.5, abs=0.02)
    assert found.uweff_before_cuts == pytest.approx(found.cut_eff * found.uweff_after_cuts)
    assert found.uweff_before_cuts_partial <= found.uweff_before_cuts + 1e-12 and found.over_weight_rate < 1e-3
    events = integrator.unweight(4000)
    assert events.x.shape == (4000, 1) and float(events.x.mean()) == pytest.approx(1 / 3, abs=0.02)


def test_the_seed_repeats_everything() -> None:
    results = []
    for seed in (1, 1, 2):
        integrator = madnis.Integrator(own(), batch_size=100, seed=seed)
        integrator.train(5)
        results.append((integrator.integrate(1024), integrator.sample(5).x.tolist()))
    assert results[0] == results[1] != results[2]


def test_functions_alone_are_taken() -> None:
    value, error = madnis.Integrator(lambda x: 3 * x[:, 0] ** 2, dims=2).integrate(2048)
    assert abs(value - 1) < 4 * error
    half = madnis.Integrator(lambda x: x[:, 0].float(), 1, dtype=torch.float32)
    assert half.integrate(1024)[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("integrand", "error", "message"),
    [
        (StandIn(ridges, 2, 2, discrete_dims=[3]), UnsupportedError, "floor"),
        (StandIn(ridges, 2, 2, function_includes_sampling=True), UnsupportedError, "points are drawn here"),
        (SimpleNamespace(input_dim=2), ConfigError, "lacks channel_count, function"),
        (SimpleNamespace(input_dim=2, channel_count=1, function=ridges), ConfigError, "lacks a call"),
    ],
)
def test_integrands_that_do_not_fit(integrand: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        madnis.as_integrand(integrand)


def test_weights_and_shapes_that_do_not_fit() -> None:
    wrong = StandIn(lambda x, c: (x[:, 0], x, torch.ones(len(x), 2)), 1, 2)
    with pytest.raises(ChannelError, match="add up to 2"):
        madnis.as_integrand(wrong)(torch.rand(5, 2))
    short = StandIn(lambda x, c: (x[:, 0], x, torch.ones(len(x), 1)), 1, 2)
    with pytest.raises(ChannelError, match="must have shapes"):
        madnis.as_integrand(short)(torch.rand(5, 2))
    with pytest.raises(ConfigError, match="2 pairs low < high"):
        madnis.Integrand(ridges, 2, bounds=[[0.0, 1.0]])


def test_samples_are_counted_and_finite() -> None:
    integrator = madnis.Integrator(own())
    integrator.sample(100, batch_size=30)
    assert integrator.integrand.calls == 100
    wrong = StandIn(lambda x, c: (x[:, 0] / 0, x, None), 1, 2)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        madnis.Integrator(wrong).sample(10)
    with pytest.raises(ConfigError, match="batch_size"):
        integrator.sample(10, batch_size=0)


def test_points_that_are_cut_away_need_no_sense() -> None:
    def cut(x: Tensor, channel: Tensor) -> Any:
        f, y, alpha = ridges(x, channel)
        inside = y[:, 0] > 0.5
        nothing = torch.full_like(y, torch.nan)
        return f * inside, torch.where(inside[:, None], y, nothing), torch.where(inside[:, None], alpha, 0.0)

    integrator = madnis.Integrator(StandIn(cut, 2, 2))
    value, error = integrator.integrate(8192)
    exact = RANGE / WIDTH * (0.5 * 1.5 + 0.5 * 1.75)  # half of the ridge in y0, and 1 + y0 over y0 > 1/2 of the other
    assert abs(value - exact) < 4 * error < abs(value - EXACT / 2)
    assert 0.4 < integrator.unweighting_metrics(2000).cut_eff < 0.6


def test_arguments_of_madnis_name_their_place() -> None:
    for name, place in {"flow_kwargs": "FlowSettings", "loss": "divergence", "buffer_capacity": "buffer"}.items():
        with pytest.raises(UnsupportedError, match=f"{name} of madnis is not here.*{place}"):
            madnis.Integrator(own(), **{name: 1})
    with pytest.raises(UnsupportedError, match=r"nisampler\.TrainingConfig"):
        madnis.Integrator(own(), uniform_channel_ratio=0.5)


def test_the_table_of_names_is_true() -> None:
    known = {cls.__name__: cls for cls in (nisampler.FlowSettings, nisampler.ChannelSettings, nisampler.TrainingConfig)}
    text = " ".join([madnis.__doc__ or "", *_INSTEAD.values()])
    used = re.findall(r"(FlowSettings|ChannelSettings|TrainingConfig)\(([^()]*)", text)
    assert len(used) > 12
    for name, arguments in used:
        for argument in re.findall(r"(\w+)=", arguments):
            assert argument in known[name].__dataclass_fields__, f"{name} has no {argument}"
