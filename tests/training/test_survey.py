"""The survey: VEGAS grids of the cube or of each channel, side by side, exact to very narrow peaks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from channel_examples import (
    RIDGE_INTEGRAL,
    Flat,
    ProductChannel,
    ridge_channels,
    ridge_function,
    ridges,
)
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.base.weights import kish_ess
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.grid import VegasGrid, VegasSampler
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.training.call_budget import CallBudget
from nisampler.training.candidates import Finish
from nisampler.training.channel_survey import ChannelSurvey
from nisampler.training.config import TrainingConfig, TreeSettings
from nisampler.training.evaluation import Evaluation
from nisampler.training.prices import Prices
from nisampler.training.survey import CubeSurvey, Survey
from nisampler.training.surveys import make_survey
from nisampler.training.trainer import Trainer

CPU = torch.device("cpu")


def rand(n: int, dim: int, seed: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(function: Callable[[Tensor], Tensor], sampler: Sampler, u: Tensor) -> Tensor:
    x, log_q = sampler.map(u)
    return function(x) * torch.exp(-log_q)


def refine(survey: Survey, function: Callable[[Tensor], Tensor], dim: int, iterations: int, n: int = 4000) -> None:
    for iteration in range(iterations):
        u = rand(n, dim, iteration)
        survey.refine(u, weights_of(function, survey.sampler(), u), 128)


def ess(function: Callable[[Tensor], Tensor], sampler: Sampler, n: int = 40_000) -> float:
    return kish_ess(weights_of(function, sampler, rand(n, sampler.dim, 99))) / n


def flat_pair() -> Multichannel:
    """The ridges through two flat channels, which know nothing of the peaks, and one that does."""
    flat = [ProductChannel(f"flat {k}", [Flat()] * 3) for k in range(2)]
    return Multichannel(ridges, [*flat, ridge_channels()[0]])


def test_grids_of_channels_improve_on_uniform_points() -> None:
    for function, gain in ((ridge_function(), 1.05), (flat_pair(), 2.0)):
        survey = ChannelSurvey(function, CPU)
        before = ess(function, survey.sampler())
        refine(survey, function, 4, 6)
        assert ess(function, survey.sampler()) > gain * before
        weights = weights_of(function, survey.sampler(), rand(40_000, 4, 5))
        error = float(weights.std()) / 200.0
        assert abs(float(weights.mean()) - RIDGE_INTEGRAL) < 4.0 * error


def test_each_group_has_a_grid_of_its_own() -> None:
    """Channel k of the ridges sees waves in the coordinate after its own, as channel 0 sees them in coordinate 1."""
    function = ridge_function()
    survey = ChannelSurvey(function, CPU)
    refine(survey, function, 4, 6)
    assert survey.grids().shape[:2] == (3, 3) and len({tuple(g.flatten().tolist()) for g in survey.grids()}) == 3
    shared = ChannelSurvey(ridge_function(groups=[0, 1, 0]), CPU)
    refine(shared, ridge_function(groups=[0, 1, 0]), 4, 2)
    assert shared.grids().shape[:2] == (2, 3)
    assert isinstance(shared.sampler(), MultichannelSampler) and shared.sampler().groups == (0, 1, 0)


def test_shares_follow_the_channels() -> None:
    function = ridge_function()
    survey = ChannelSurvey(function, CPU)
    refine(survey, function, 4, 6)
    assert float(survey.share.sum()) == pytest.approx(1.0) and float(survey.share.min()) >= 0.1 / 3 - 1e-9
    assert survey.share.argmax() == 1
    assert torch.equal(survey.sampler().share, survey.share)


def test_what_a_flow_stands_on() -> None:
    function = ridge_function()
    survey = ChannelSurvey(function, CPU)
    assert survey.under_flow() is None and not survey.found
    assert torch.equal(survey.grids(), torch.tensor([0.0, 1.0], dtype=torch.float64).expand(3, 3, 2))
    refine(survey, function, 4, 5)
    under = survey.under_flow()
    assert under is not None and under.grid is not None and under.grid.smooth
    assert under.grid.nodes.shape == (3, 3, 65)
    torch.testing.assert_close(under.share, torch.full((3,), 1.0 / 3.0, dtype=torch.float64))
    u = rand(1000, 4, 1)
    assert torch.equal(under.channel(under.map(u)[0]), (3 * u[:, 0]).long())
    assert survey.found


@pytest.mark.parametrize("groups", [None, [0, 1, 0]])
@pytest.mark.parametrize("iterations", [0, 3])
def test_the_state_is_complete(groups: list[int] | None, iterations: int) -> None:
    function = ridge_function(groups=groups)
    survey = ChannelSurvey(function, CPU)
    refine(survey, function, 4, iterations)
    again = ChannelSurvey(function, CPU)
    again.load_state(survey.state())
    assert again.found == survey.found == bool(iterations)
    for one in (survey, again):
        refine(one, function, 4, 2)
    for name, tensor in survey.state().items():
        assert torch.equal(tensor, again.state()[name])
    u = rand(500, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(survey.sampler().map(u), again.sampler().map(u), strict=True))


def test_the_state_of_the_cube_is_complete() -> None:
    def peak(x: Tensor) -> Tensor:
        return torch.exp(-((x - 0.3) ** 2).sum(1) / 0.02)

    survey, again = CubeSurvey(2, CPU), CubeSurvey(2, CPU)
    again.load_state(survey.state())
    assert isinstance(survey.sampler(), UniformSampler) and survey.under_flow() is None and not again.found
    assert torch.equal(survey.grids(), torch.tensor([[[0.0, 1.0]] * 2], dtype=torch.float64))
    refine(survey, peak, 2, 4)
    again.load_state(survey.state())
    assert again.found and isinstance(again.sampler(), VegasSampler) and again.under_flow() is not None
    assert torch.equal(again.grids(), survey.grids()) and survey.grids().shape[:2] == (1, 2)
    assert ess(peak, survey.sampler()) > 2.0 * ess(peak, UniformSampler(2))


def test_a_survey_suits_its_integrand() -> None:
    assert isinstance(make_survey(Integrand(ridge_function()), CPU), ChannelSurvey)
    assert isinstance(make_survey(Integrand(Multichannel(ridges, ridge_channels()[:1])), CPU), CubeSurvey)
    assert isinstance(make_survey(Integrand(ridges, 3, kind="torch"), CPU), CubeSurvey)


def test_channels_without_points_or_values_keep_their_grids() -> None:
    function = flat_pair()
    survey = ChannelSurvey(function, CPU)
    refine(survey, function, 4, 3)
    before = survey.grids()
    u = rand(3000, 4, 40)
    u = u[survey.sampler().latent_channel(u) != 1]
    weights = weights_of(function, survey.sampler(), u)
    weights[survey.sampler().latent_channel(u) == 2] = 0.0
    survey.refine(u, weights, before.shape[2] - 1)
    share = survey.share
    assert float(share.min()) > 0.0 and float(share.sum()) == pytest.approx(1.0)
    old, new = (MultichannelSampler(4, (0, 1, 2), survey.sampler().model, g) for g in (None, survey.sampler().grid))
    assert old.dim == new.dim
    for channel in (1, 2):
        coarse = survey.grids()[channel]
        place = torch.linspace(0.0, 1.0, coarse.shape[1], dtype=torch.float64)
        knots = torch.linspace(0.0, 1.0, before.shape[2], dtype=torch.float64)
        index = (torch.searchsorted(knots, place) - 1).clamp(0, len(knots) - 2)
        low, high = before[channel][:, index], before[channel][:, index + 1]
        expected = low + (high - low) * ((place - knots[index]) / (knots[index + 1] - knots[index]))
        assert float((coarse - expected).abs().max()) < 0.05


@pytest.mark.parametrize("width", [1e-3, 1e-6, 1e-9])
def test_very_narrow_peaks_stay_finite(width: float) -> None:
    """A peak that the channels do not know, found through its tails."""

    def narrow(x: Tensor) -> Tensor:
        return width / ((x[:, 0] - 0.4) ** 2 + width**2) * (1.0 + x[:, 1])

    channels = [ProductChannel(f"flat {k}", [Flat()] * 3) for k in range(2)]
    function = Multichannel(narrow, channels)
    survey = ChannelSurvey(function, CPU)
    refine(survey, function, 4, 14)
    samplers: list[Sampler] = [survey.sampler()]
    under = survey.under_flow()
    assert under is not None
    for sampler in [*samplers, under]:
        u = torch.cat([rand(20_000, 4, 3), torch.zeros(1, 4), torch.ones(1, 4)])
        x, log_q = sampler.map(u)
        back, again = sampler.unmap(x)
        assert all(bool(torch.isfinite(value).all()) for value in (x, log_q, back, again))
        weights = function(x) * torch.exp(-log_q)
        assert bool(torch.isfinite(weights).all())
        if width > 1e-9:
            assert kish_ess(weights) / len(weights) > 0.1
            assert float(weights.mean()) == pytest.approx(1.5 * math.pi, rel=0.1)
    assert bool((survey.grids().diff(dim=2) > 0.0).all())


@pytest.mark.parametrize(("dim", "calls"), [(40, 5000), (100, 5000), (200, 5000)])
def test_grids_of_many_axes_do_not_fit_noise(dim: int, calls: int) -> None:
    """The sum of uniform numbers is nearly constant: a grid must not be worse than no grid."""
    config = TrainingConfig(calls=calls, sampler="vegas")
    integrand = Integrand(lambda x: x.sum(1), dim, kind="torch")
    result = Trainer(integrand, config, Streams(1)).fit()
    candidates = {candidate.name: candidate for candidate in result.candidates}
    assert min(candidate.ess_fraction for candidate in candidates.values()) > 0.95
    assert "uniform" in candidates
    found = Integrator(integrand, result.sampler, IntegrationConfig(points=5000), Streams(1)).run().estimate
    assert abs(found.value - 0.5 * dim) < 5.0 * found.error < 0.01 * dim


def test_plain_monte_carlo_is_taken_where_it_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64).expand(2, -1)

    def misled(self: CubeSurvey, u: Tensor, weights: Tensor, most_increments: int) -> None:
        self.grid, self.found = VegasGrid(narrow), True

    monkeypatch.setattr(CubeSurvey, "refine", misled)
    config = TrainingConfig(calls=5000, sampler="vegas", tree=TreeSettings(on=False))
    result = Trainer(Integrand(lambda x: x.sum(1), 2, kind="torch"), config, Streams(1)).fit()
    assert result.sampler.describe() == "uniform"


def test_plain_monte_carlo_is_not_taken_where_it_missed_a_peak() -> None:
    """A peak that uniform points hardly see is in the points of VEGAS, by which both are rated."""
    nodes = torch.tensor([[0.0, 0.2999, 0.3001, 1.0]], dtype=torch.float64)
    peak = Integrand(lambda x: 1.0 + 3000.0 * ((x[:, 0] - 0.3).abs() < 1e-4), 1, kind="torch")
    config = TrainingConfig(calls=8000)
    budget = CallBudget(config, Prices(config))
    finish = Finish(budget, Evaluation(peak, Streams(1), CPU, budget.prices), 0.5)
    comparison = finish.run([VegasSampler(VegasGrid(nodes))], 8000, {}, False, plain=UniformSampler(1))
    uniform, vegas = (candidate for candidate, _ in comparison.entries)
    assert uniform.name == "uniform" and uniform.efficiency_0p1 < 0.01 < vegas.efficiency_0p1
    assert comparison.judged()[1].kind == "vegas"


def test_a_sampler_that_lost_a_region_is_noticed_whatever_was_asked_for() -> None:
    """One half of the cube gets a millionth of the points: VEGAS goes on with its tree, and a flow is warned of."""
    cells = torch.linspace(0.0, 0.5, 1_000_001, dtype=torch.float64)
    blind = VegasSampler(VegasGrid(torch.cat([cells, torch.ones(1, dtype=torch.float64)]).expand(2, -1)))
    integrand = Integrand(lambda x: 1.0 + (x[:, 0] > 0.5) * (x[:, 1] > 0.3), 2, kind="torch")
    config = TrainingConfig(calls=40_000)
    budget = CallBudget(config, Prices(config))
    for told in (False, True):
        finish = Finish(budget, Evaluation(integrand, Streams(1), CPU, budget.prices), 0.5)
        names = [
            candidate.name for candidate, _ in finish.run([UniformSampler(2), blind], 10_000, {}, True, told).entries
        ]
        assert len(finish.warnings) == 1 and "has lost a region" in finish.warnings[0]
        assert (names[0] == "uniform" and any("uniform + " in name for name in names)) != told
        assert any(name.startswith("vegas") for name in names) == told
