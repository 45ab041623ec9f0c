"""Teacher and student as one model: the terms of the distillation fall, and showers come from the student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

import numpy as np
import pytest
import torch
from small_models import generator
from torch import Tensor

from nisampler.calo.data.batches import MemorySource, ShowerData
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.fitting.records import PartResult
from nisampler.calo.fitting.training import fit_part
from nisampler.calo.models import FlowConfig, ModelConfig, build_model
from nisampler.calo.models.student import StudentModel
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ModelError
from nisampler.flows import NetConfig, Spline

THRESHOLD = 0.5
GEOMETRY = Geometry(
    "small", "electron", 11, (Layer.polar(0, 2, (0, 1, 2)), Layer.polar(1, 2, (0, 1))), THRESHOLD,
    IncidentEnergy("log-uniform", (1e2, 1e3)),
)  # fmt: skip
SPLINE = Spline(bins=5, domain="line", bound=5.0)
TERMS = ("z", "x", "z_steps", "x_steps", "z_parameters", "x_parameters")


def showers(n: int, seed: int) -> Showers:
    """About 0.7 of the incident energy, shared at random; neighbours are correlated, many voxels empty."""
    rng = np.random.default_rng(seed)
    incident = GEOMETRY.incident.sample(n, rng)
    shares = np.exp(1.5 * rng.standard_normal((n, GEOMETRY.n_voxels)) @ np.tri(GEOMETRY.n_voxels).T / 1.5)
    total = 0.7 * incident * np.exp(0.1 * rng.standard_normal(n))
    voxels = total[:, None] * shares / shares.sum(1, keepdims=True)
    return Showers(incident, np.where(voxels < THRESHOLD, 0.0, voxels))


def config(guided: bool = True, hidden: int = 48) -> ModelConfig:
    preprocessing = PreprocessingConfig(
        threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", levels=4
    )
    energies = FlowConfig("coupling", 4, NetConfig(hidden=16, layers=2), SPLINE)
    teacher = FlowConfig("maf", 3, NetConfig(hidden=32, layers=1), SPLINE, "alternate")
    student = FlowConfig("maf", 3, NetConfig(hidden=hidden, layers=1), SPLINE, "alternate")
    recipes = Recipe(1, 100, 5e-3), Recipe(6, 100, 5e-3), Recipe(16, 100, 7e-3)
    return ModelConfig("student", preprocessing, (energies, teacher, student), recipes, guided=guided)


def fresh(settings: ModelConfig) -> StudentModel:
    model = build_model(settings, GEOMETRY)
    model.prepare(showers(2000, 1), generator(1))
    assert isinstance(model, StudentModel)
    return model


@dataclass(frozen=True)
class Trained:
    """A trained model, the records of its parts, and the state of the teacher before and after the distillation."""

    model: StudentModel
    results: dict[str, PartResult]
    before: dict[str, Tensor]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    model = fresh(config())
    data = ShowerData(MemorySource(showers(2000, 1)), MemorySource(showers(500, 2)))
    results, before = {}, {}
    for part in model.parts:
        if part.name == "student":
            before = {name: value.clone() for name, value in model.state_dict().items()}
        results[part.name] = fit_part(part, data, tmp_path_factory.mktemp(part.name), FitOptions())
    return Trained(model.eval(), results, before)


def conditions(model: StudentModel, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of layer energies, incident energies and the condition of flow II."""
    incident = torch.from_numpy(showers(n, 5).incident).float()
    energies, _ = model.energy_flow.sample(n, model.condition(incident), generator(6))
    return energies, incident, model.voxel_condition(energies, incident)


def test_the_teacher_learned_something(trained: Trained) -> None:
    voxels, incident = torch.from_numpy(showers(500, 2).voxels), torch.from_numpy(showers(500, 2).incident).float()
    start = fresh(config()).parts[1].loss(voxels, incident, generator(1))
    assert isinstance(start, Tensor)
    assert trained.results["voxels"].best_loss < start.mean() - 0.1


@pytest.mark.parametrize("term", TERMS)
def test_every_term_of_the_distillation_falls(trained: Trained, term: str) -> None:
    """The parameters fall least: the student starts with those of its teacher; one far shower may spoil an epoch."""
    history = trained.results["student"].history
    last = median(record.terms[term] for record in history[-5:])
    assert 0 < last < (0.9 if "parameters" in term else 0.25) * history[0].terms[term]


def test_the_loss_of_the_student_falls_in_validation_too(trained: Trained) -> None:
    history = trained.results["student"].history
    assert history[-1].validation < 0.25 * history[0].validation


def test_the_teacher_is_untouched_by_its_student(trained: Trained) -> None:
    after = trained.model.state_dict()
    changed = {name.split(".")[0] for name, value in trained.before.items() if not torch.equal(value, after[name])}
    assert changed == {"student"}


@torch.no_grad()
def test_student_and_teacher_agree_at_the_same_latent_points(trained: Trained) -> None:
    model = trained.model
    _, _, condition = conditions(model, 500)
    z = torch.randn(500, GEOMETRY.n_voxels, generator=generator(7))
    theirs, _ = model.voxel_flow.from_latent(z, condition)
    ours, _ = model.student.from_latent(z, condition)
    distance = (ours - theirs).square().mean().sqrt()
    untrained, _ = fresh(config()).student.from_latent(z, condition)
    assert distance < 0.2 * theirs.std()
    # the controls: a student that was not trained, and showers that are not the same
    assert (untrained - theirs).square().mean().sqrt() > 3 * distance
    assert (ours.roll(1, 0) - theirs).square().mean().sqrt() > 5 * distance


@torch.no_grad()
def test_the_student_has_a_finite_density_of_the_samples_of_its_teacher(trained: Trained) -> None:
    model = trained.model
    _, _, condition = conditions(model, 500)
    x, theirs = model.voxel_flow.sample(500, condition, generator(8))
    ours = model.student.log_prob(x, condition)
    assert torch.isfinite(ours).all()
    # KL(teacher || student) per shower, in nats
    gap = theirs - ours
    assert -3 * gap.std() / math.sqrt(500) < gap.mean() < 1.0


@torch.no_grad()
def test_showers_come_from_the_student_and_the_density_from_the_teacher(trained: Trained) -> None:
    model, data = trained.model, showers(300, 9)
    voxels, incident = torch.from_numpy(data.voxels), torch.from_numpy(data.incident).float()
    before, density = model.sample(incident, generator(1)), model.log_prob(voxels, incident, generator(1))
    state = {name: value.clone() for name, value in model.student.state_dict().items()}
    for parameter in model.student.parameters():
        parameter.mul_(0.5)
    after, same = model.sample(incident, generator(1)), model.log_prob(voxels, incident, generator(1))
    model.student.load_state_dict(state)
    assert not torch.equal(before, after)
    assert torch.equal(density, same)
    assert ((before == 0) | (before >= THRESHOLD)).all()
    # the mean share of every voxel is that of the showers it learned from
    shares = before.sum(0) / before.sum()
    torch.testing.assert_close(shares, voxels.sum(0) / voxels.sum(), rtol=0, atol=0.05)


def test_generation_needs_flow_one_and_the_student() -> None:
    model = fresh(config())
    needed = {id(p) for module in model.generation_modules() for p in module.parameters()}
    assert needed == {id(p) for flow in (model.energy_flow, model.student) for p in flow.parameters()}


def test_an_unguided_student_is_compared_at_the_end_points_alone() -> None:
    voxels, incident = torch.from_numpy(showers(50, 3).voxels), torch.from_numpy(showers(50, 3).incident).float()
    for guided in (True, False):
        part = fresh(config(guided)).parts[2]
        part.begin()
        terms = part.loss(voxels, incident, generator(1))
        assert isinstance(terms, dict)
        names = TERMS if guided else ("z", "x")
        torch.testing.assert_close(terms["loss"], 0.5 * torch.stack([terms[name] for name in names]).sum())


def test_the_loss_depends_on_the_generator_alone() -> None:
    voxels, incident = torch.from_numpy(showers(50, 3).voxels), torch.from_numpy(showers(50, 3).incident).float()
    part, state = fresh(config()).parts[2], torch.random.get_rng_state()
    part.begin()
    losses = [part.loss(voxels, incident, generator(seed)) for seed in (1, 1, 2)]
    values = [loss["loss"] for loss in losses if isinstance(loss, dict)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_coupling_flow_cannot_teach() -> None:
    coupling = FlowConfig("coupling", 3, NetConfig(hidden=8, layers=1), SPLINE)
    settings = config()
    wrong = ModelConfig("student", settings.preprocessing, (coupling, coupling, coupling), settings.recipes)
    with pytest.raises(ModelError, match="distillation needs a flow of permutations and autoregressive blocks"):
        build_model(wrong, GEOMETRY)
