"""Training: gain, budget, exact resume, divergence, contradictory settings, no hidden random state."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_settings import training

from nisampler.base import tuning
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.base.rng import Streams
from nisampler.base.weights import kish_ess
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, TrainingDivergedError, ZeroIntegrandError
from nisampler.flows import CouplingConfig, NetConfig, Spline
from nisampler.processes.functions.functions import camel
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.flow import FlowSampler
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.training.config import TrainingConfig
from nisampler.training.flow_trainer import FlowTrainer
from nisampler.training.records import Progress, TrainingResult
from nisampler.training.trainer import Trainer

TINY: dict[str, Any] = {"calls": 20_000, "hidden": 16, "layers": 2, "events": 0}


class SimpleChannel:
    """The identity, under a name."""

    dim = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, torch.zeros_like(u[:, 0])

    inverse = forward


def trainer(
    function: Callable[..., Any] | None = None, dim: int | None = None, seed: int = 3, **settings: Any
) -> Trainer:
    integrand = Integrand(function or camel(2), dim)
    return Trainer(integrand, training(**(TINY | settings)), Streams(seed))


def ess_fraction(sampler: Sampler, n: int = 20_000) -> float:
    x, log_q = sampler.sample(n, torch.Generator().manual_seed(77))
    return kish_ess(Integrand(camel(sampler.dim))(x) * torch.exp(-log_q)) / n


@pytest.fixture(scope="module")
def trained() -> TrainingResult:
    return trainer(calls=30_000).fit()


def test_training_beats_uniform_and_vegas(trained: TrainingResult) -> None:
    learned = ess_fraction(trained.sampler)
    vegas = ess_fraction(trainer(calls=30_000, sampler="vegas", on=False).fit().sampler)
    assert learned > 0.95
    assert learned > vegas + 0.1
    assert vegas > ess_fraction(UniformSampler(2))


def test_the_history_shows_the_gain(trained: TrainingResult) -> None:
    flow = [record for record in trained.history if record.stage == "flow"]
    assert [record.calls for record in trained.history] == sorted(record.calls for record in trained.history)
    assert [record.step for record in flow] == sorted({record.step for record in flow})
    assert flow[-1].ess_fraction > 0.9 > flow[0].ess_fraction
    rates = [record.learning_rate for record in flow]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.01 * rates[0]
    assert all(math.isfinite(value) for r in flow for value in (r.loss, r.efficiency_0p1, r.relative_error))


def test_candidates_are_compared_and_one_is_chosen(trained: TrainingResult) -> None:
    chosen = [candidate for candidate in trained.candidates if candidate.chosen]
    assert len(chosen) == 1
    assert chosen[0].efficiency_0p1 >= max(c.efficiency_0p1 for c in trained.candidates) / 1.03
    assert any("vegas" in c.name for c in trained.candidates) and any("flow" in c.name for c in trained.candidates)


@pytest.mark.parametrize("settings", [{}, {"sampler": "flow"}, {"sampler": "vegas"}, {"vegas_start": "under"}], ids=str)
def test_the_budget_holds_everything(settings: dict[str, Any]) -> None:
    one = trainer(**{"calls": 12_000} | settings)
    before = one.integrand.calls
    result = one.fit()
    assert 0.9 * 12_000 <= one.integrand.calls - before <= 12_000
    describe = result.sampler.describe()
    if "sampler" in settings:
        assert settings["sampler"] in describe
    if "vegas_start" in settings:
        assert any(c.name.startswith("vegas") and "+ flow" in c.name for c in result.candidates)


def test_a_constant_needs_no_training() -> None:
    one = trainer(lambda x: torch.full_like(x[:, 0], 3.0), 2)
    result = one.fit()
    _, log_q = result.sampler.sample(1000, torch.Generator().manual_seed(1))
    assert isinstance(result.sampler, UniformSampler)
    assert float(log_q.abs().max()) < 1e-10
    assert not any(record.stage == "flow" for record in result.history)


def test_nothing_but_zeros_is_named() -> None:
    one = trainer(lambda x: 0 * x[:, 0], 2)
    with pytest.raises(ZeroIntegrandError, match="zero at all"):
        one.fit()
    assert one.calls >= 20_000


def test_a_small_support_is_searched_for_with_the_whole_budget() -> None:
    result = trainer(lambda x: ((x - 0.7).abs() < 0.01).all(1).double(), 2, sampler="vegas", seed=4).fit()
    x, _ = result.sampler.sample(10_000, torch.Generator().manual_seed(1))
    assert float(((x - 0.7).abs() < 0.01).all(1).double().mean()) > 0.05


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


SHORT = {"calls": 8_000}
RESUMED: dict[str, dict[str, Any]] = {
    "flow": {"sampler": "flow"},
    "two arms": {},
    "vegas": {"sampler": "vegas"},
    "vegas under the flow": {"vegas_start": "under", "fourier": 0, "reuse": 0},
    "small buffer": {"buffer": 700, "reuse": 1, "fourier": 3, "weight_decay": 0.01},
    "roll-backs": {"learning_rate": 3.0, "fourier": 0, "calls": 20_000},
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    settings = SHORT | RESUMED[name]
    checkpoints: list[tuple[str, int]] = []

    def keep(one: Trainer) -> None:
        checkpoints.append((one.stage, one.flow.roll_backs.count if one.flow else 0))
        snapshot(one, tmp_path / str(len(checkpoints)))

    whole = trainer(**settings)
    expected = stored_result(whole.fit(keep), tmp_path / "whole")
    end = snapshot(whole, tmp_path / "whole end")
    stages = [stage for stage, _ in checkpoints]
    chosen = {stages.index(stage) for stage in stages} | {len(stages) - 1}
    flow = [k for k, stage in enumerate(stages) if stage == "flow"]
    chosen |= {flow[len(flow) * part // 10] for part in (1, 6)} if flow else {len(stages) // 2}
    rolled = [k for k in flow[1:] if checkpoints[k][1] > checkpoints[k - 1][1]]
    assert bool(rolled) == (name == "roll-backs")
    chosen |= set(rolled[:1])
    for k in sorted(chosen):
        again = trainer(**settings)
        again.load_state(*load_checkpoint(tmp_path / str(k + 1)))
        assert snapshot(again, tmp_path / f"{k} again") == snapshot_bytes(tmp_path / str(k + 1))
        assert stored_result(again.fit(), tmp_path / f"{k} result") == expected, f"resumed at {stages[k]} {k}"
        assert snapshot(again, tmp_path / f"{k} end") == end
        assert again.integrand.counts() == whole.integrand.counts()


def snapshot_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    one = trainer()
    save_checkpoint(tmp_path, *one.state())
    with pytest.raises(ConfigError, match="other training settings"):
        trainer(bins=12).load_state(*load_checkpoint(tmp_path))


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = stored_result(trainer(calls=6_000).fit(), tmp_path / "1")
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = stored_result(trainer(calls=6_000).fit(), tmp_path / "2")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == second
    assert stored_result(trainer(calls=6_000, seed=4).fit(), tmp_path / "3") != first


@pytest.mark.parametrize("rate", [0.5, 3.0, 1e2, 1e6, 1e30])
def test_a_huge_learning_rate_is_rolled_back_or_named(rate: float) -> None:
    one = trainer(sampler="flow", learning_rate=rate, calls=10_000)
    try:
        result = one.fit()
    except TrainingDivergedError as error:
        assert "learning_rate" in str(error) and rate > 10
        return
    told = any("rolled back" in w or "effective points" in w for w in result.warnings)
    assert told or ess_fraction(result.sampler) > 0.5


def test_a_rate_that_is_somewhat_too_high_recovers() -> None:
    result = trainer(sampler="flow", learning_rate=0.5, fourier=0, on=False).fit()
    assert any("rolled back" in warning for warning in result.warnings)
    assert ess_fraction(result.sampler) > 0.6


class Poison:
    """Turns the loss of one step into NaN."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, log_q: Tensor, f: Tensor, log_g: Tensor, norm: float) -> Tensor:
        self.seen += 1
        loss = -(f * torch.exp(-log_g) / norm * log_q).mean()
        return loss * math.nan if self.seen == self.at else loss


def test_a_loss_that_is_not_finite_is_rolled_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """During the trial of two arms too, whose comparison must not be spoilt."""
    poison = Poison(at=42)
    monkeypatch.setattr(FlowTrainer, "_loss", lambda self: poison)
    one = trainer()
    saw: list[list[float]] = []

    def checkpoint(now: Trainer) -> None:
        save_checkpoint(tmp_path, *now.state())
        if now.flow is not None:
            saw.append([sum(arm.unseen) for arm in now.flow.arms])

    result = one.fit(checkpoint)
    assert len([w for w in result.warnings if "not finite" in w and "rolled back" in w]) == 1
    assert len(saw[0]) == 2 and len(saw[-1]) == 1
    assert all(math.isfinite(loss) for losses in saw for loss in losses)


def test_a_loss_that_is_never_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowTrainer, "_loss", lambda self: lambda log_q, f, log_g, norm: log_q.mean() * math.nan)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        trainer(sampler="flow").fit()
    result = trainer().fit()
    assert any("in favour of VEGAS" in warning for warning in result.warnings)
    assert "flow" not in result.sampler.describe() and ess_fraction(result.sampler) > 0.6


def test_progress_is_told() -> None:
    told: list[Progress] = []
    integrand = Integrand(camel(2))
    Trainer(integrand, training(**(TINY | {"calls": 10_000})), Streams(1), callback=told.append).fit()
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert all(0 < p.done <= p.total == 10_000 and p.record is not None for p in told)
    assert {"survey", "flow", "finish", "done"} >= {p.stage for p in told}


def test_a_negative_integrand_is_learned_by_its_size() -> None:
    result = trainer(lambda x: -camel(2)(x), 2).fit()
    assert ess_fraction(result.sampler) > 0.9


CONTRADICTIONS: list[dict[str, Any]] = [
    {"calls": 99},
    {"calls": 1e6},
    {"sampler": "magic"},
    {"batch": 1},
    {"batch": 100_000},
    {"batch": 12.5},
    {"reuse": -1},
    {"learning_rate": 0.0},
    {"learning_rate": -1e-3},
    {"learning_rate": math.nan},
    {"learning_rate": math.inf},
    {"weight_decay": -0.1},
    {"weight_decay": math.nan},
    {"clip": 0.0},
    {"divergence": "nonsense"},
    {"tail_divergence": "nonsense"},
    {"bins": 2},
    {"hidden": 0},
    {"layers": 0},
    {"fourier": -2},
    {"vegas_start": "maybe"},
    {"leaves": 0},
    {"buffer": 10},
    {"batch": 500, "buffer": 400},
]


@pytest.mark.parametrize("settings", CONTRADICTIONS, ids=str)
def test_contradictory_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        training(**settings)
    assert any(name in str(caught.value) for name in (*settings, "divergence"))


def test_settings_are_frozen_and_sizes_follow_the_budget() -> None:
    config = TrainingConfig()
    with pytest.raises(AttributeError):
        config.calls = 3  # type: ignore[misc]
    sizes = {100: 5, 1000: 50, 5000: 128, 1_000_000: 250, 10_000_000: 1024}
    assert {calls: TrainingConfig(calls=calls).fresh_batch for calls in sizes} == sizes
    assert training(batch=300).fresh_batch == 300


def test_a_trial_ends_early_where_one_network_leads_and_not_where_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: dict[str, int] = {}
    honest = FlowTrainer._lead
    for name, lead in {"clear": honest, "none": lambda self: 0}.items():
        monkeypatch.setattr(FlowTrainer, "_lead", lead)
        one, steps = trainer(lambda x: torch.exp(-((x[:, 0] - 0.5) ** 2) / 0.02), 2, sampler="flow"), []

        def seen(progress: Progress, one: Trainer = one, steps: list[int] = steps) -> None:
            if one.flow is not None and len(one.flow.arms) > 1:
                steps.append(one.flow.step)
                assert len(one.flow.arms[0].unseen) == len(one.flow.arms[1].unseen)

        one.callback = seen
        one.fit()
        assert one.flow is not None and len(one.flow.arms) == 1
        ended[name] = max(steps)
    assert ended["clear"] <= ended["none"]


def test_the_lead_of_a_trial_counts_batches_and_not_sizes() -> None:
    one = trainer(camel(2), 2, sampler="flow")
    flow = one._make_flow(2000)
    first, second = flow.arms
    first.unseen, second.unseen = [1.0, 1.0, 9.0, 1.0], [2.0, 2.0, 2.0, 1.0]
    assert flow._lead() == 1 and not flow._decided()
    flow.end_trial()
    assert flow.arms == [first]
    flow.arms = [first, second]
    first.unseen, second.unseen = [2.0] * 17, [1.0] * 17
    assert flow._decided()
    flow.end_trial()
    assert flow.arms == [second]


def test_points_that_are_drawn_together_keep_the_density_they_were_drawn_from() -> None:
    sizes: list[int] = []

    def function(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.prod(1)

    def fresh(fourier: int) -> FlowSampler:
        net = NetConfig(hidden=8, layers=1, fourier=fourier)
        return FlowSampler.create(2, CouplingConfig(Spline(bins=4), net), torch.Generator().manual_seed(1))

    config = training(calls=100_000, batch=16, fourier=0, reuse=0)
    flow = FlowTrainer(
        *(Integrand(function, 2, kind="torch"), config, Streams(1), fresh, None, 16 * 700, 0.25, torch.device("cpu"))
    )
    together = 16 * flow.together
    assert flow.together == tuning.DRAWN_TOGETHER[0] > 1
    stages, honest = [], flow._draw

    def drawing(*arguments: Any) -> Any:
        stages.append({name: tensor.clone() for name, tensor in flow.arms[0].sampler.model.state_dict().items()})
        return honest(*arguments)

    flow._draw = drawing  # type: ignore[method-assign]
    flow.advance(0)
    x, _, log_g, _ = flow.buffer.newest(len(flow.buffer))
    assert set(sizes) == {together} and len(x) == 16 * flow.step
    sampler = flow.arms[0].sampler
    found = []
    for number, state in enumerate(stages):
        sampler.model.load_state_dict(state)
        part = slice(number * together, (number + 1) * together)
        found.append(float((sampler.log_prob(x[part].double()) - log_g[part]).abs().max()))
    assert max(found) < 1e-4
    assert float((sampler.log_prob(x[:together].double()) - log_g[:together]).abs().max()) > 1e-3


def test_batches_that_are_drawn_together_see_every_channel() -> None:
    whole = [SimpleChannel(name) for name in "abc"]
    flow = MultichannelSampler.create(2, (0, 0, 0), 0, CouplingConfig(Spline(bins=4)), torch.Generator().manual_seed(1))
    integrand = Integrand(Multichannel(lambda x: x[:, 0], whole), 2)
    config = training(calls=100_000, batch=30)
    trainer = FlowTrainer(
        *(integrand, config, Streams(1), lambda fourier: flow, None, 30 * 400, 0.5, torch.device("cpu"))
    )
    batches = trainer._draw(flow, 8, torch.Generator().manual_seed(2))
    assert batches is not None and len(batches) == 8
    counts = [torch.bincount(flow.channel(batch.y), minlength=3).tolist() for batch in batches]
    assert all(abs(count - 10) <= 1 for batch in counts for count in batch)
