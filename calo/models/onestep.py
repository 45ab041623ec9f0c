"""Flow matching in one step or two: students that jump along the ways of a trained model (MeanFlow, 2505.13447)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart, ShowerModel, voxel_context
from nisampler.calo.models.config import ModelConfig
from nisampler.calo.models.matching import MatchingModel, build_matching
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import MeanFlow, VelocityConfig


class OneStepMatchingModel(MatchingModel):
    """A model of flow matching with a student for each velocity; it gives the density, the students the showers.

    Parameters
    ----------
    teacher
        A fresh model of flow matching, whose networks and settings this one takes over.
    energies, voxels
        The students.
    recipes
        How they are trained.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-matching-onestep", geometry("toy")).parts]
    ['energies', 'voxels', 'energies-student', 'voxels-student']
    """

    def __init__(
        self, teacher: MatchingModel, energies: MeanFlow, voxels: MeanFlow, recipes: tuple[Recipe, Recipe]
    ) -> None:
        config, flows = teacher.preprocessing.config, (teacher.energy_flow, teacher.voxel_flow)
        super().__init__(teacher.geometry, config, *flows, teacher.recipes, teacher.symmetric)
        self.energy_student, self.voxel_student, self.student_recipes = energies, voxels, recipes

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The velocities of the energies and of the voxels, and a student of each."""
        teachers, (first, second) = super().parts, self.student_recipes
        energies = ModelPart(
            "energies-student", self.energy_student, first, self._energy_student_loss,
            lambda: self.energy_student.begin(self.energy_flow), after=("energies",),
        )  # fmt: skip
        voxels = ModelPart(
            "voxels-student", self.voxel_student, second, self._voxel_student_loss,
            lambda: self.voxel_student.begin(self.voxel_flow), after=("voxels",),
        )  # fmt: skip
        return (*teachers, energies, voxels)

    def generation_modules(self) -> Iterator[nn.Module]:
        """The students."""
        yield from (self.energy_student, self.voxel_student)

    def _energy_student_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.energy_student.loss(self.energy_flow, *self.energy_task(voxels, incident, generator), generator)

    def _voxel_student_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.voxel_student.loss(self.voxel_flow, *self.voxel_task(voxels, incident, generator), generator)

    def _sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        energies = self.energy_student.draw(incident.shape[0], self.condition(incident), generator)
        return torch.cat([self._sample_voxels(energies, incident, generator), energies], dim=1)

    def _sample_voxels(self, energies: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.voxel_student.draw(incident.shape[0], self.voxel_condition(energies, incident), generator)


def build_onestep(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    """The model of a "matching-student" config, with fresh weights.

    Raises
    ------
    ModelError
        If a student is another kind of network than its teacher.
    ConfigError
        As `build_matching`.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> config = preset("small-matching-onestep", geometry("toy"))
    >>> type(build_onestep(config, geometry("toy"), torch.Generator().manual_seed(0))).__name__
    'OneStepMatchingModel'
    """
    teachers, students = config.flows[:2], [flow for flow in config.flows[2:] if isinstance(flow, VelocityConfig)]
    taught = replace(config, family="matching", flows=teachers, recipes=config.recipes[:2])
    teacher = build_matching(taught, geometry, generator)
    if not isinstance(teacher, MatchingModel) or len(students) != 2:
        raise ModelError("a model of flow matching and its students are made of velocities alone")
    energies = MeanFlow(geometry.n_layers, geometry.context, students[0], generator)
    voxels = MeanFlow(geometry.n_voxels, voxel_context(geometry), students[1], generator, geometry.grid)
    for student, flow in ((energies, teacher.energy_flow), (voxels, teacher.voxel_flow)):
        student.begin(flow)
    first, second = config.recipes[2:]
    return OneStepMatchingModel(teacher, energies, voxels, (first, second))
