"""Training through channels: unbiased at every stage, calibrated errors, exact resume, freezing and dropping."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from channel_examples import (
    RIDGE_INTEGRAL,
    Flat,
    Peak,
    ProductChannel,
    line_shape,
    ridge_channels,
    ridge_function,
    ridges,
    z_prime_function,
    z_prime_integral,
)
from torch import Tensor
from training_settings import training
from windows import PULL_LIMIT, assert_calibrated

from nisampler.api import integrate
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.base.weights import kish_ess
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import ChannelError, ConfigError, NonFiniteError, TrainingDivergedError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.result import Result
from nisampler.samplers.base import Sampler, State
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.training.flow_trainer import FlowTrainer
from nisampler.training.records import TrainingResult
from nisampler.training.trainer import Trainer
from nisampler.unweighting.unweighter import Unweighter

TINY: dict[str, Any] = {"calls": 20_000, "hidden": 16, "layers": 2, "events": 0}
INTEGRAL = z_prime_integral()
STREAMS = Streams(31)
REPLICAS, REPLICA_POINTS = 240, 46 * 32
DOF = {"sobol": 45, "mc": math.inf}


def trainer(function: Callable[..., Any] | None = None, seed: int = 3, **settings: Any) -> Trainer:
    return Trainer(Integrand(function or z_prime_function()), training(**(TINY | settings)), Streams(seed))


def pull_of(sampler: Sampler, function: Multichannel, truth: float, method: str = "sobol", n: int = 30_000) -> float:
    config = IntegrationConfig(points=n, method=method)
    return pull(Integrator(Integrand(function), sampler, config, STREAMS).run().estimate, truth)


def ess_fraction(sampler: Sampler, function: Multichannel, n: int = 20_000) -> float:
    x, log_q = sampler.sample(n, torch.Generator().manual_seed(77))
    with torch.no_grad():
        return kish_ess(sampler.view(Integrand(function))(x) * torch.exp(-log_q)) / n


def copy_of(sampler: Sampler) -> Sampler:
    tensors, meta = sampler.state()
    return sampler_from_state({name: tensor.clone() for name, tensor in tensors.items()}, meta)


class Trained:
    """A training on the Z′-like integrand, with its sampler at the start, in the middle and at the end."""

    def __init__(self, **settings: Any) -> None:
        self.trainer = trainer(**settings)
        moments: list[Sampler] = []

        def look(one: Trainer) -> None:
            if one.flow is not None:
                moments.append(copy_of(one.flow.sampler()))

        self.result = self.trainer.fit(look)
        self.moments = {"untrained": moments[0], "half-trained": moments[len(moments) // 2], "trained": moments[-1]}


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained(sampler="flow")


@pytest.mark.parametrize("moment", ["untrained", "half-trained", "trained"])
def test_every_moment_of_the_training_gives_the_same_integral(trained: Trained, moment: str) -> None:
    sampler = trained.moments[moment]
    assert isinstance(sampler, MultichannelSampler)
    for used in (sampler, sampler.with_mixture()):
        for method in ("sobol", "mc"):
            assert abs(pull_of(used, z_prime_function(), INTEGRAL, method)) < PULL_LIMIT


def test_training_pays(trained: Trained) -> None:
    worth = [ess_fraction(trained.moments[name], z_prime_function()) for name in ("untrained", "trained")]
    assert worth[1] > worth[0] and worth[1] > 0.95
    assert ess_fraction(trained.result.sampler, z_prime_function()) > 0.95
    flow = [record for record in trained.result.history if record.stage == "flow"]
    assert flow and all(math.isfinite(value) for r in flow for value in (r.loss, r.efficiency_0p1, r.relative_error))
    assert sum(candidate.chosen for candidate in trained.result.candidates) == 1


class Wrapped(Sampler):
    """Another sampler's points and densities, to be tampered with."""

    kind = "wrapped"

    def __init__(self, inner: Sampler) -> None:
        self.inner, self.dim = inner, inner.dim

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner._map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner._unmap(x)

    def view(self, integrand: Integrand) -> Integrand:
        return self.inner.view(integrand)

    def state(self) -> State:
        return self.inner.state()


def replicas(sampler: Sampler, method: str) -> list[float]:
    """Pulls of independent integrations with a frozen sampler."""
    config = IntegrationConfig(points=REPLICA_POINTS, method=method)
    integrand = Integrand(z_prime_function(), kind="torch")
    runs = (Integrator(integrand, sampler, config, STREAMS.child("replica", r)).run() for r in range(REPLICAS))
    return [pull(run.estimate, INTEGRAL) for run in runs]


@pytest.mark.parametrize("method", ["sobol", "mc"])
def test_errors_are_calibrated(trained: Trained, method: str) -> None:
    assert_calibrated(replicas(trained.moments["trained"], method), DOF[method])


def test_errors_with_mixture_weights_are_calibrated(trained: Trained) -> None:
    sampler = trained.moments["trained"]
    assert isinstance(sampler, MultichannelSampler)
    assert_calibrated(replicas(sampler.with_mixture(), "mc"))


def test_a_wrong_share_fails(trained: Trained) -> None:
    """Negative control: the density of one channel is 3 % too high."""

    class WrongShare(Wrapped):
        def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
            x, log_q = self.inner._map(u)
            return x, log_q + math.log(1.03) * (x[:, 0] < 1.0 / 3.0)

    with pytest.raises(AssertionError, match="mean pull"):
        assert_calibrated(replicas(WrongShare(trained.moments["trained"]), "mc"))


def test_lost_weights_fail(trained: Trained) -> None:
    """Negative control: with the prior instead of weights that dropped a channel, its part is lost."""

    class WithoutWeights(Wrapped):
        def view(self, integrand: Integrand) -> Integrand:
            return integrand

    sampler = copy_of(trained.moments["trained"])
    assert isinstance(sampler, MultichannelSampler)
    sampler.drop(torch.tensor([False, True, False]))
    with pytest.raises(AssertionError, match="mean pull"):
        assert_calibrated(replicas(WithoutWeights(sampler), "mc"))


def test_learned_weights_leave_the_prior_and_sum_to_one(trained: Trained) -> None:
    sampler = trained.moments["trained"]
    assert isinstance(sampler, MultichannelSampler) and sampler.model.weights is not None
    function = z_prime_function()
    u = torch.rand(5000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = function.evaluate(sampler.map(u)[0])
    with torch.no_grad():
        alpha = sampler.model.weights(found.features, found.log_prior).exp()
        mixture = sampler.with_mixture().view(Integrand(function)).function
        assert isinstance(mixture, Multichannel)
        best = mixture.log_weights(*_made(function, sampler.map(u)[0])).exp()
    for weights in (alpha, best):
        assert float((weights.sum(1) - 1.0).abs().max()) < 1e-12
        assert float((weights - found.log_prior.exp()).abs().mean()) > 0.01
    shift = sampler.model.weights.shift
    assert float((shift - found.features.mean(0)).abs().max()) < 1.0 and float(shift[0]) > 3.0


def _made(function: Multichannel, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    channel, point, log_g = function.points(x)
    return point, channel, log_g


def test_the_weights_can_be_left_at_the_prior() -> None:
    one = trainer(sampler="flow", learned_weights=False, mixture=False, on=False, calls=10_000)
    result = one.fit()
    sampler = result.sampler
    assert isinstance(sampler, MultichannelSampler) and sampler.model.weights is None and sampler.extra == 0
    assert abs(pull_of(sampler, z_prime_function(), INTEGRAL)) < PULL_LIMIT
    assert "weights" not in sampler.describe()


def test_the_buffer_holds_prior_and_features(trained: Trained) -> None:
    flow = trained.trainer.flow
    assert flow is not None
    x, f, _, extra = flow.buffer.newest(10_000)
    assert extra.shape[1] == 3 + 3 and bool(torch.isfinite(extra).all())
    assert float((extra[:, :3].double().exp().sum(1) - 1.0).abs().max()) < 1e-6
    function = z_prime_function()
    found = function.evaluate(x.double())
    torch.testing.assert_close(extra[:, 3:].double(), found.features, rtol=1e-3, atol=1e-3)
    close = torch.isclose(f.double() * flow.scale, found.value, rtol=0.05, atol=0.0)
    assert float(close.double().mean()) > 0.95
    assert torch.equal(found.channel, flow.sampler().channel(x.double()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("reuse", [0, 3])
def test_steps_per_call_are_reported(reuse: int) -> None:
    one = trainer(sampler="flow", reuse=reuse, calls=6000, on=False)
    result = one.fit()
    assert one.flow is not None
    assert result.steps_per_call == 1 + reuse and result.steps == one.flow.step * (1 + reuse)
    assert one.calls <= 6000


def test_weights_and_shares_stand_still_after_the_freeze() -> None:
    seen: list[tuple[float, bool, dict[str, Tensor], Tensor]] = []

    def look(one: Trainer) -> None:
        if one.flow is not None:
            model = one.flow.arms[0].sampler.model
            state = {name: t.clone() for name, t in model.state_dict().items()}
            weights = {name: t for name, t in state.items() if name.startswith("weights.net")}
            flow = next(t for name, t in state.items() if name.startswith("flow.") and t.numel() > 10)
            seen.append((one.flow._fraction(), one.flow.channels_frozen, weights | {"share": state["share"]}, flow))

    trainer(sampler="flow", freeze=0.5, drop=0.0, calls=30_000, on=False).fit(look)
    frozen = [entry for entry in seen if entry[1]]
    moving = [entry for entry in seen if not entry[1]]
    assert len(frozen) >= 2 and len(moving) >= 2
    assert max(entry[0] for entry in moving) < 0.5 <= min(entry[0] for entry in frozen)
    for _, _, state, _ in frozen[1:]:
        assert all(torch.equal(state[name], frozen[0][2][name]) for name in state)
    assert any(not torch.equal(moving[-1][2][name], moving[-2][2][name]) for name in moving[0][2])
    assert not torch.equal(frozen[-1][3], frozen[0][3])


def with_needle() -> Multichannel:
    """The ridges and a channel that carries at most 0.2 %."""
    needle = ProductChannel("needle", [Flat(0.9, 0.902), Flat(), Flat()])
    return Multichannel(ridges, [*ridge_channels(), needle])


@pytest.mark.parametrize("reuse", [0, 2])
def test_a_dropped_channel_is_counted_and_costs_nothing(reuse: int) -> None:
    one = trainer(with_needle(), sampler="flow", reuse=reuse, mixture=False, drop=5e-3)
    result = one.fit()
    told = [warning for warning in result.warnings if "dropped" in warning]
    assert len(told) == 1 and told[0].startswith("1 of 4 channels were dropped: needle; together they had ")
    assert "of the integral, which the others took over" in told[0]
    assert not any("rolled back" in warning for warning in result.warnings[result.warnings.index(told[0]) :])
    assert one.flow is not None
    sampler = one.flow.sampler()
    assert isinstance(sampler, MultichannelSampler)
    assert float(sampler.share[3]) == 0.0 and float(sampler.share[:3].min()) > 0.0
    assert "3 of 4 channels" in result.sampler.describe()
    for method in ("sobol", "mc"):
        assert abs(pull_of(result.sampler, with_needle(), RIDGE_INTEGRAL, method)) < PULL_LIMIT
    u, weights, importance = one.flow.replay()
    assert all(bool(torch.isfinite(part).all()) for part in (u, weights, importance))
    assert all(math.isfinite(c.efficiency_0p1 + c.ess_fraction) for c in result.candidates)


def test_nothing_brings_a_dropped_channel_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a roll-back after the drop nor the return to the best moment."""
    honest = FlowTrainer._loss
    poisoned: list[int] = []

    def loss(self: FlowTrainer) -> Any:
        if self.channels_frozen and self._fraction() > 0.9 and not poisoned:
            poisoned.append(self.step)
            return lambda log_q, f, log_g, norm: log_q.mean() * math.nan
        return honest(self)

    monkeypatch.setattr(FlowTrainer, "_loss", loss)
    one = trainer(with_needle(), sampler="flow", on=False, drop=5e-3)
    result = one.fit()
    assert poisoned and any("rolled back" in warning for warning in result.warnings)
    assert one.flow is not None
    sampler = one.flow.sampler()
    assert isinstance(sampler, MultichannelSampler) and float(sampler.share[3]) == 0.0
    assert abs(pull_of(result.sampler, with_needle(), RIDGE_INTEGRAL)) < PULL_LIMIT


def test_unweighted_events_know_the_weights(trained: Trained) -> None:
    """Events of a sampler that dropped a channel have the right moments; without its weights they have not."""
    sampler = copy_of(trained.moments["trained"])
    assert isinstance(sampler, MultichannelSampler)
    sampler.drop(torch.tensor([True, False, False]))
    function = z_prime_function()
    integrand = Integrand(function)
    expected, shares = z_prime_part(81.0, 101.0), []
    for bare in (False, True):
        unweighter = Unweighter(integrand, sampler, 4.0 * INTEGRAL, 0.2, Streams(4))
        unweighter.integrand = integrand if bare else unweighter.integrand
        events = unweighter.generate(6000)
        m = function.points(events.u)[1][:, 0]
        shares.append(float((events.weights * ((m > 81.0) & (m < 101.0))).sum() / events.weights.sum()))
    assert shares[0] == pytest.approx(expected, abs=0.04)
    assert shares[1] < expected - 0.15


def z_prime_part(low: float, high: float) -> float:
    """Fraction of the integral between two masses, from the middle of many cells."""
    cells = torch.linspace(50.0, 1000.0, 400_001, dtype=torch.float64)
    middle = 0.5 * (cells[1:] + cells[:-1])
    shape = line_shape(middle)
    return float(shape[(middle > low) & (middle < high)].sum() / shape.sum())


@pytest.fixture(scope="module")
def result() -> Result:
    return integrate(
        z_prime_function(),
        training=training(**TINY),
        integration=IntegrationConfig(points=60_000),
    )


def test_the_whole_chain(result: Result) -> None:
    assert abs(pull(result.estimate, INTEGRAL)) < PULL_LIMIT and result.estimate.relative_error < 3e-3
    assert "multichannel (3 channels" in result.summary() and "steps" in result.summary()
    assert result.calls["training"] <= 20_000 and result.efficiencies.at_0p1 > 0.5
    assert result.training.steps_per_call == 4.0


def test_events_of_the_whole_chain(result: Result) -> None:
    points = result.unweight(8000)
    assert points.u.shape == (8000, 4) and points.overweight_fraction < 5e-3
    assert torch.equal(points.x, z_prime_function().points(points.u)[1])
    m, c, y = points.x.unbind(1)
    weights = points.weights / points.weights.sum()
    assert float((weights * c**2).sum()) == pytest.approx(0.4, abs=5 * 0.3 / 8000**0.5)
    assert float((weights * y).sum()) == pytest.approx(0.5, abs=5 * 0.23 / 8000**0.5)
    for low, high in ((85.0, 97.0), (390.0, 410.0), (50.0, 80.0)):
        expected = z_prime_part(low, high)
        seen = float((weights * ((m > low) & (m < high))).sum())
        assert seen == pytest.approx(expected, abs=5 * (expected / 8000) ** 0.5)
    # Matrix products of slices of other sizes may differ in the last digit of single precision.
    torch.testing.assert_close(result.unweight(100).x, points.x[:100], rtol=1e-5, atol=1e-5)


def test_one_channel_needs_no_weights() -> None:
    channel = ProductChannel("only", [Peak(0.7, 0.01), Flat(), Flat()])

    def ridge(x: Tensor) -> Tensor:
        return Peak(0.7, 0.012).inverse(x[:, 0])[1].exp() * (1.0 + 0.5 * torch.cos(2.0 * math.pi * x[:, 1]))

    result = integrate(
        Multichannel(ridge, [channel]),
        training=training(calls=8000, hidden=16, layers=2, fourier=0),
        integration=IntegrationConfig(points=30_000),
    )
    assert abs(pull(result.estimate, 1.0)) < PULL_LIMIT and "multichannel" not in result.sampler.describe()
    assert result.unweight(10).x.shape == (10, 3)


def test_a_wrong_channel_is_refused_before_the_training() -> None:
    class Wrong(ProductChannel):
        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            u, log_g = super().inverse(x)
            return u.roll(1, 1), log_g

    evaluated: list[int] = []

    def counted(x: Tensor) -> Tensor:
        evaluated.append(len(x))
        return ridges(x)

    wrong = Wrong("crossed", ridge_channels()[1].lines)
    function = Multichannel(counted, [*ridge_channels()[:1], wrong])
    one = Trainer(Integrand(function, kind="torch"), training(**TINY), Streams(1))
    with pytest.raises(ChannelError, match="'crossed' fails its self-test"):
        one.fit()
    assert not evaluated


def poisoned(x: Tensor) -> Tensor:
    return torch.where((x[:, 1] * 1000.0 % 1.0) < 0.1, math.nan, ridges(x))


def test_nan_for_a_tenth_of_the_points_is_named() -> None:
    with pytest.raises(NonFiniteError, match=r"ridges|poisoned.*NaN or infinite.*nonfinite="):
        integrate(Integrand(Multichannel(poisoned, ridge_channels()), kind="torch"), training=training(**TINY))


def test_nan_for_a_tenth_of_the_points_is_counted_on_demand() -> None:
    integrand = Integrand(Multichannel(poisoned, ridge_channels()), kind="torch", nonfinite=0.2)
    result = integrate(integrand, training=training(**TINY), integration=IntegrationConfig(points=60_000), seed=2)
    lines = [warning for warning in result.warnings if "NaN" in warning]
    assert len(lines) == 2 and all("count as zero" in line for line in lines)
    assert result.calls["nonfinite"] / integrand.calls == pytest.approx(0.1, abs=0.02)
    assert f"{result.calls['nonfinite']} not finite" in result.summary()
    assert result.estimate.value == pytest.approx(0.9 * RIDGE_INTEGRAL, rel=0.02)


def snapshot(one: Trainer, folder: Path) -> bytes:
    """The bytes of a checkpoint of everything the trainer holds."""
    save_checkpoint(folder, *one.state())
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def stored_result(result: TrainingResult, folder: Path) -> bytes:
    tensors, meta = result.sampler.state()
    history = [vars(record) for record in result.history]
    candidates = [vars(candidate) for candidate in result.candidates]
    save_checkpoint(folder, tensors, {"m": meta, "h": history, "c": candidates, "w": result.warnings})
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


SHORT = {"calls": 6000, "hidden": 8}
RESUMED: dict[str, dict[str, Any]] = {
    "default": {},
    "flow": {"sampler": "flow", "mixture": False},
    "vegas": {"sampler": "vegas"},
    "grids under the flows": {"vegas_start": "under", "reuse": 0},
    "never": {"vegas_start": "never", "learned_weights": False},
    "small buffer": {"buffer": 700, "fourier": 2, "weight_decay": 0.01, "freeze": 0.3},
    "dropped": {"drop": 0.9},
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    settings = SHORT | RESUMED[name]
    stages: list[tuple[str, bool]] = []

    def keep(one: Trainer) -> None:
        stages.append((one.stage, one.flow is not None and one.flow.channels_frozen))
        snapshot(one, tmp_path / f"{len(stages)}")

    whole = trainer(**settings)
    expected = stored_result(whole.fit(keep), tmp_path / "whole")
    end = snapshot(whole, tmp_path / "whole end")
    chosen = {stages.index(stage) for stage in stages} | {len(stages) // 2, len(stages) - 1}
    flow = [k for k, (stage, _) in enumerate(stages) if stage == "flow"]
    chosen |= {flow[len(flow) // 2]} if flow else set()
    assert name != "dropped" or any(frozen for _, frozen in stages)
    for k in sorted(chosen):
        again = trainer(**settings)
        again.load_state(*load_checkpoint(tmp_path / f"{k + 1}"))
        assert snapshot(again, tmp_path / f"{k} again") == contents(tmp_path / f"{k + 1}")
        assert stored_result(again.fit(), tmp_path / f"{k} result") == expected, f"resumed at {stages[k]} {k}"
        assert snapshot(again, tmp_path / f"{k} end") == end
        assert again.integrand.counts() == whole.integrand.counts()


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = stored_result(trainer(calls=6000).fit(), tmp_path / "1")
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = stored_result(trainer(calls=6000).fit(), tmp_path / "2")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == second
    assert stored_result(trainer(calls=6000, seed=4).fit(), tmp_path / "3") != first


def test_shared_flows_are_trained_together() -> None:
    """Two channels that are images of each other use one flow."""
    channels = [
        ProductChannel("left", [Peak(0.3, 0.02), Flat(), Flat()]),
        ProductChannel("right", [Flat(), Peak(0.3, 0.02), Flat()]),
    ]

    def symmetric(x: Tensor) -> Tensor:
        a, b = (Peak(0.3, 0.02).inverse(x[:, k])[1].exp() for k in (0, 1))
        return (a + b) * (1.0 + 0.5 * torch.cos(2.0 * math.pi * x[:, 2]))

    function = Multichannel(symmetric, channels, groups=[0, 0])
    result = trainer(function, sampler="flow", on=False).fit()
    sampler = result.sampler
    assert isinstance(sampler, MultichannelSampler)
    assert sampler.model.flow is not None and sampler.model.flow.groups == 1
    assert abs(pull_of(sampler, function, 2.0)) < PULL_LIMIT and ess_fraction(sampler, function) > 0.95


def test_a_loss_that_is_never_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowTrainer, "_loss", lambda self: lambda log_q, f, log_g, norm: log_q.mean() * math.nan)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        trainer(sampler="flow", calls=6000).fit()
    result = trainer(calls=6000).fit()
    assert any("in favour of VEGAS" in warning for warning in result.warnings)
    assert abs(pull_of(result.sampler, z_prime_function(), INTEGRAL)) < PULL_LIMIT


@pytest.mark.parametrize(
    "settings", [{"freeze": 0.0}, {"freeze": 1.1}, {"freeze": math.nan}, {"drop": -0.1}, {"drop": 1.0}], ids=str
)
def test_fractions_that_cannot_be_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        training(**settings)


def test_a_fresh_sampler_is_made_of_the_settings() -> None:
    config = CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=2))
    fresh = MultichannelSampler.create(4, (0, 1, 2), 3, config, torch.Generator().manual_seed(1))
    assert abs(pull_of(fresh, ridge_function(), RIDGE_INTEGRAL)) < PULL_LIMIT
    assert fresh.share.tolist() == pytest.approx([1.0 / 3.0] * 3)
