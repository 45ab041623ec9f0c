"""Processes that sample their matrix elements: unbiased, with the events of the sum, and bound to what they learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sampled_elements import Halves, points, setup
from torch import Tensor

import nisampler
from nisampler import Integrand, IntegrationConfig, TrainingConfig, integrate
from nisampler.base import tuning
from nisampler.base.rng import Streams
from nisampler.errors import AmplitudeError, ConfigError, CorruptFileError
from nisampler.events.rules import violations
from nisampler.processes.amplitudes.protocol import SampledAmplitude
from nisampler.processes.amplitudes.qcd import Qcd
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.discrete.choice import Choice, fresh_weights
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create


def pull(differences: Tensor) -> float:
    return float(differences.mean() / differences.std() * math.sqrt(len(differences)))


def test_the_mean_is_the_sum_and_a_probability_that_was_not_used_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, summed = HadronProcess(setup()), HadronProcess(setup(elements="summed"))
    assert sampled.dim == summed.dim + 1
    u = points(sampled, 60_000, 11)
    exact = summed(u[:, :-1])
    values = sampled(u)
    assert not torch.allclose(values, exact)
    assert abs(pull(values - exact)) < 4
    assert float((values - exact).std() / exact.mean()) < 0.5 * float(exact.std() / exact.mean())
    draw = Choice.draw

    def another(self: Choice, features: Tensor, sizes: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        chosen, _ = draw(self, features, sizes, number)
        table = Choice(fresh_weights(self.terms, self.features)).probabilities(features, sizes)
        return chosen, table.gather(1, chosen.unsqueeze(1)).squeeze(1)

    monkeypatch.setattr(Choice, "draw", another)
    assert abs(pull(sampled(u) - exact)) > 5


def test_events_have_the_sub_processes_of_the_sum() -> None:
    """One event at each point, with its weight over the sum there, whose mean is 1: large weights hide nothing."""
    sampled, summed = HadronProcess(setup()), HadronProcess(setup(elements="summed"))
    u = points(sampled, 20_000, 12)
    u = u[sampled.passes(sampled.momenta(u))]
    weights = sampled(u) / summed(u[:, :-1])
    batch = sampled.events(u, weights, torch.Generator().manual_seed(1))
    assert not list(violations(batch))
    p = summed.momenta(u[:, :-1])
    found = summed.evaluate(p)
    assert torch.equal(torch.from_numpy(batch.pdf_x), found.x)
    assert torch.equal(torch.from_numpy(batch.alpha_s), found.alpha_s)
    shares = summed.luminosity.by_subprocess(found.densities, found.squared)
    shares = shares / shares.sum(1, keepdim=True)
    codes = torch.from_numpy(batch.pdg_ids)
    initial = torch.tensor([item.initial for item in summed.setup.amplitude.subprocesses])
    pulls = []
    for kind in ((2, -2), (-2, 2), (2, 21), (21, 2), (1, 21), (21, -1)):
        drawn = weights * (codes[:, :2] == torch.tensor(kind)).all(1)
        pulls.append(pull(drawn - shares[:, (initial == torch.tensor(kind)).all(1)].sum(1)))
    assert max(map(abs, pulls)) < 4
    others = weights * (codes[:, :2] == torch.tensor((21, 2))).all(1)
    assert abs(pull(others - shares[:, (initial == torch.tensor((2, 21))).all(1)].sum(1))) < 4, "beams are alike"
    assert abs(pull(others - shares[:, (initial == torch.tensor((2, -2))).all(1)].sum(1))) > 5


def test_channels_fit_together() -> None:
    process = HadronProcess(setup())
    process.multichannel.self_test(Streams(3))
    assert process.momenta(points(process, 3, 1)).shape == (3, 3, 4)


def test_the_survey_is_not_counted() -> None:
    process = HadronProcess(setup())
    inside = process.passes(process.momenta(points(process, 500, 3)))
    process(points(process, 500, 3))
    assert process.limits()["points"] == int(inside.sum())


def test_a_nan_of_a_channel_is_not_hidden() -> None:
    process = HadronProcess(setup())
    x = process.multichannel.points(points(process, 4, 1))[1]
    x[1, 0, 2] = math.nan
    assert process.differential_of_choice(x).isnan().tolist() == [False, True, False, False]


RECURSIVE = {"p p > e+ ve j j": 60, "p p > t t~ j": 7, "p p > w+ w+ j j QCD=0": 18}


@pytest.mark.parametrize("name", RECURSIVE)
def test_one_element_of_a_recursion_is_that_of_all(name: str) -> None:
    process = create(name)
    amplitude = process.setup.amplitude  # type: ignore[attr-defined]
    assert isinstance(amplitude, RecursiveAmplitude) and isinstance(amplitude, SampledAmplitude)
    assert amplitude.elements == RECURSIVE[name] == len(amplitude.operations)
    p = process.momenta(points(process, 1500, 5))  # type: ignore[arg-type]
    found = process._parts(p[process.passes(p)])  # type: ignore[attr-defined]
    at = found.incoming, found.outgoing, found.alpha_s
    choice = torch.arange(len(found.alpha_s)) % amplitude.elements
    wanted = amplitude.squared(*at).gather(1, choice.unsqueeze(1)).squeeze(1)
    assert len(set(choice.tolist())) == amplitude.elements
    assert torch.allclose(amplitude.chosen(choice, *at), wanted, rtol=1e-12, atol=0.0)


def test_a_call_is_taken_to_cost_what_its_operations_do() -> None:
    process = HadronProcess(setup())
    assert process.seconds_assumed == pytest.approx(tuning.ASSUMED_CALL + 30_000 * tuning.OPERATION)
    summed = HadronProcess(setup(elements="summed"))
    every = 30_000 * len(Halves().choices)
    assert Integrand(summed).expected_seconds == pytest.approx(tuning.ASSUMED_CALL + every * tuning.OPERATION)
    assert HadronProcess(setup(amplitude=Qcd())).seconds_assumed == tuning.ASSUMED_CALL


def test_auto_counts_operations() -> None:
    dims = {name: create(name).dim for name in ("p p > e- e+ j j j", "p p > e+ ve j j", "p p > z z")}
    fixed = {name: create(name, elements="summed").dim for name in dims}
    assert [dims[name] - fixed[name] for name in dims] == [1, 0, 0]
    assert create("p p > z z", elements="sampled").dim == fixed["p p > z z"] + 1
    assert HadronProcess(setup(amplitude=Qcd(), elements="auto")).choice is None


def quick(process: HadronProcess) -> nisampler.Result:
    training = TrainingConfig(calls=6000, sampler="vegas")
    return integrate(process, seed=3, training=training, integration=IntegrationConfig(points=8192))


def test_results_keep_what_was_learned(tmp_path: Path) -> None:
    process = HadronProcess(setup())
    process.restore(Choice(disturbed(process)).state())
    result = quick(process)
    drawn = result.unweight(200)
    result.save(tmp_path / "saved")
    other = HadronProcess(setup())
    before = other(points(other, 100, 1))
    assert not torch.equal(before, process(points(process, 100, 1))), "this one learned by itself"
    again = nisampler.load(tmp_path / "saved", other)
    assert torch.equal(again.unweight(200).x, drawn.x) and drawn.x.shape == (200, 3, 4)
    assert torch.equal(other(points(other, 100, 1)), process(points(process, 100, 1)))
    without = nisampler.load(tmp_path / "saved")
    without.save(tmp_path / "copy")
    third = HadronProcess(setup())
    assert torch.equal(nisampler.load(tmp_path / "copy", third).unweight(200).x, drawn.x)


def disturbed(process: HadronProcess) -> Any:
    weights = Choice.from_state(process.learned()).weights
    weights.net.output.bias.data += 0.3 * torch.arange(float(len(weights.active)))
    return weights


class FewChoices(Halves):
    def __init__(self) -> None:
        super().__init__()
        self.choices = self.choices[1:3]


class WrongShape(Halves):
    def chosen(self, *arguments: Any) -> Tensor:
        return super().chosen(*arguments)[:, None]


ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no word": (
        lambda: HadronProcess(setup(elements="some")),
        ConfigError,
        '"auto", "summed" or "sampled", got \'some\'',
    ),
    "no word on a card": (lambda: create("p p > z z", elements="all"), ConfigError, 'elements = "all": must be'),
    "not one by one": (
        lambda: HadronProcess(setup(amplitude=Qcd(), elements="sampled")),
        AmplitudeError,
        r'needs an amplitude with choices, operations and chosen\(\), which Qcd has not: use "summed"',
    ),
    "an element without a choice": (
        lambda: HadronProcess(setup(amplitude=FewChoices())),
        AmplitudeError,
        r"choices must name each of the elements 0 to 11, .* got 2 choices of the elements \[0, 1\] and 24 operations",
    ),
    "values of another shape": (
        lambda: HadronProcess(setup(amplitude=WrongShape())).learned(),
        AmplitudeError,
        r"chosen must return shape \(\d+,\), got \(\d+, 1\)",
    ),
    "something else was learned": (
        lambda: HadronProcess(setup()).restore({"active": torch.ones(2)}),
        CorruptFileError,
        "toy: what was learned of its elements cannot be read",
    ),
    "of other terms": (
        lambda: HadronProcess(setup()).restore(Choice(fresh_weights(3, 5)).state()),
        CorruptFileError,
        "a choice among 3 terms, there are 24",
    ),
    "learned, but summed": (
        lambda: HadronProcess(setup(elements="summed")).restore(Choice(fresh_weights(3, 5)).state()),
        AmplitudeError,
        "toy sums its matrix elements: there is none to choose",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_is_named(case: str) -> None:
    make, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        make()
