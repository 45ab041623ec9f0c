"""What a training remembers of its points, and that the integration hears of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from training_settings import training

from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.samplers.base import UniformSampler
from nisampler.training.call_budget import CallBudget
from nisampler.training.candidates import Comparison
from nisampler.training.memory import Memory
from nisampler.training.prices import Prices
from nisampler.training.trainer import Trainer

WIDTH = 0.1


def two_peaks(x: Tensor) -> Tensor:
    """Two normal densities in eight dimensions; a grid of few calls follows one of them alone."""
    norm = (WIDTH * math.sqrt(2 * math.pi)) ** -8
    return norm * sum(
        share * torch.exp(-((x - centre) ** 2).sum(1) / (2 * WIDTH**2)) for share, centre in ((0.7, 0.3), (0.3, 0.65))
    )


def test_the_largest_weights_are_remembered() -> None:
    memory, x = Memory(1, torch.device("cpu")), torch.linspace(0, 1, 100).unsqueeze(1)
    memory.add(x, x[:, 0], x[:, 0], most=3)
    assert memory.f.tolist() == x[[99, 98, 97], 0].double().tolist()
    memory.add(x, -5.0 * x[:, 0], x[:, 0])
    assert memory.met(UniformSampler(1)) == -5.0
    assert Memory(1, torch.device("cpu")).met(UniformSampler(1)) == 0.0
    memory.add(x, torch.full((100,), math.inf), x[:, 0])
    assert memory.met(UniformSampler(1)) == torch.finfo(torch.float64).max


def test_a_peak_that_the_training_met_is_known_at_its_end() -> None:
    for kind in ("vegas", "auto"):
        config = training(calls=5000, sampler=kind, hidden=16, layers=1)
        trainer = Trainer(Integrand(two_peaks, 8, kind="torch"), config, Streams(1))
        result = trainer.fit()
        u, _ = result.sampler.sample(1000, torch.Generator().manual_seed(1))
        typical = float((two_peaks(u) / result.sampler.log_prob(u).exp()).mean())
        assert result.known.met > 1000 * typical


def test_what_was_met_survives_a_checkpoint() -> None:
    config = training(calls=5000, hidden=8, layers=1, fourier=0)
    whole = Trainer(Integrand(two_peaks, 8, kind="torch"), config, Streams(1))
    states = []
    expected = whole.fit(lambda trainer: states.append(trainer.state())).known
    for tensors, meta in states[:: max(1, len(states) // 4)]:
        again = Trainer(Integrand(two_peaks, 8, kind="torch"), config, Streams(1))
        again.load_state({name: tensor.clone() for name, tensor in tensors.items()}, meta)
        assert again.fit().known == expected


def test_the_best_of_several_is_not_praised_for_its_luck() -> None:
    """Eight samplers that are alike, each with points of its own: one is chosen, and its figure is that of all."""
    config = training(calls=5000)
    stated, best = [], []
    generator = torch.Generator().manual_seed(2)
    for _ in range(60):
        comparison = Comparison(CallBudget(config, Prices(config)))
        for number in range(8):
            weights = torch.rand(400, generator=generator, dtype=torch.float64) ** -0.25
            comparison.add(str(number), UniformSampler(1), weights)
        stated.append(next(candidate.efficiency_0p1 for candidate in comparison.judged()[0] if candidate.chosen))
        best.append([candidate.efficiency_0p1 for candidate, _ in comparison.entries])
    figures = torch.tensor(best)
    true, praised, found = float(figures.mean()), float(figures.amax(1).mean()), float(torch.tensor(stated).mean())
    assert praised > 1.15 * true  # what the best figure would be
    assert abs(found / true - 1) < 0.5 * (praised / true - 1)
