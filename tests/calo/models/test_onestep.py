"""Flow matching in one step: the students of a model, and what each part learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import disturb, generator, learn, profile_showers, tensors
from torch import Tensor

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.fitting.part_queue import waves
from nisampler.calo.models import ModelConfig, build_model
from nisampler.calo.models.onestep import OneStepMatchingModel
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import VelocityConfig

GEOMETRY = Geometry(
    "small", "electron", 11, (Layer.polar(0, 4, (0, 1, 2)), Layer.polar(1, 4, (0, 1, 2))), 0.5,
    IncidentEnergy("log-uniform", (1e2, 1e3)),
)  # fmt: skip
CLEAR = PreprocessingConfig(
    threshold=0.5, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.8, levels=4
)
NET = VelocityConfig(hidden=24, layers=2, frequencies=2, solver="rk4", steps=8)
JUMP = replace(NET, steps=1)
CONFIG = ModelConfig("matching-student", CLEAR, (NET, NET, JUMP, JUMP), (Recipe(2, 100, 1e-3),) * 4, symmetric=True)
SHOWERS = profile_showers(GEOMETRY, 600, 1)


def make(scale: float) -> OneStepMatchingModel:
    """A prepared model whose velocities are disturbed, and whose students begin with them."""
    model = build_model(CONFIG, GEOMETRY, 5)
    assert isinstance(model, OneStepMatchingModel)
    model.prepare(SHOWERS, generator(2))
    disturb(model.energy_flow, scale)
    disturb(model.voxel_flow, scale)
    for part in model.parts[2:]:
        part.begin()
    return model.eval()


def test_each_loss_reaches_its_own_part() -> None:
    model = make(0.05)
    assert [[part.name for part in wave] for wave in waves(model.parts)] == [
        ["energies", "voxels"],
        ["energies-student", "voxels-student"],
    ]
    voxels, incident = tensors(SHOWERS[:9])
    for part in model.parts:
        model.zero_grad()
        part.module.train()
        loss = part.loss(voxels, incident, generator(1))
        assert isinstance(loss, Tensor) and loss.shape == (9,)
        loss.sum().backward()
        touched = {id(p) for p in model.parameters() if p.grad is not None and bool((p.grad != 0).any())}
        assert touched and touched <= {id(p) for p in part.module.parameters()}
    generating = {id(p) for module in model.generation_modules() for p in module.parameters()}
    assert generating == {id(p) for part in model.parts[2:] for p in part.module.parameters()}


def test_showers_come_from_the_students_and_densities_from_the_teachers() -> None:
    model = make(0.05)
    voxels, incident = tensors(SHOWERS[:50])
    made, again = (model.sample(incident, generator(1)) for _ in range(2))
    density = model.log_prob(voxels, incident, generator(1)).detach()
    assert torch.equal(made, again) and made.shape == (50, 16) and ((made == 0) | (made >= 0.5)).all()
    disturb(model.voxel_student, 0.1)
    assert not torch.equal(model.sample(incident, generator(1)), made)
    assert torch.equal(model.log_prob(voxels, incident, generator(1)).detach(), density)


def test_a_student_comes_nearer_to_the_showers_of_its_teacher() -> None:
    model = make(0.15)
    voxels, incident = tensors(SHOWERS)
    y, condition = model.voxel_task(voxels, incident, generator(3))
    start = torch.randn(y.shape, generator=generator(3))
    part = model.parts[3]

    def missed() -> float:
        """What is validated: squared distances of the ends of ways."""
        with torch.no_grad():
            found = part.loss(voxels, incident, generator(3))
        assert isinstance(found, Tensor)
        return float(found.mean())

    with torch.no_grad():
        end = model.voxel_flow.transform.transport(start, condition, 0.0, 1.0)
        distance = float((model.voxel_student.transport(start, condition) - end).square().mean())
    before = missed()
    assert abs(before / distance - 1) < 0.2
    learn(part, voxels, incident, 80)
    assert missed() < 0.6 * before


def test_students_that_do_not_fit() -> None:
    for other in (replace(JUMP, hidden=16), replace(JUMP, layers=3)):
        with pytest.raises(ModelError, match="a student of a flow has"):
            build_model(replace(CONFIG, flows=(NET, NET, JUMP, other)), GEOMETRY)
    with pytest.raises(ConfigError, match="has 4 flows and recipes"):
        replace(CONFIG, flows=(NET, NET))
