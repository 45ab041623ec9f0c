"""CaloFlow's student: a flow II that generates in one pass, distilled from a masked autoregressive teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart, TwoStepModel
from nisampler.calo.models.distillation import Distillation, DistillationConfig
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.flows import Flow, NetConfig


class StudentModel(TwoStepModel):
    """A two-step model whose voxels come from an inverse autoregressive student of flow II (2110.11377).

    The teacher stays in the model: it gives the density, the student the showers.

    Parameters
    ----------
    geometry, preprocessing, energy_flow, voxel_flow
        The teacher; `voxel_flow` is a `maf`.
    recipes
        Of flow I, of the teacher and of the student.
    student
        Networks of the student.
    distillation
        Which terms its loss has.
    generator
        Source of its initial weights.
    symmetric
        Turn and mirror showers at random in training.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-student", geometry("toy")).parts]
    ['energies', 'voxels', 'student']
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        energy_flow: Flow,
        voxel_flow: Flow,
        recipes: tuple[Recipe, Recipe, Recipe],
        student: NetConfig,
        distillation: DistillationConfig,
        generator: torch.Generator,
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, energy_flow, voxel_flow, recipes[:2], symmetric)
        self.lesson = Distillation(voxel_flow, student, distillation, generator)
        self.student, self.student_recipe, self.distillation = self.lesson.student, recipes[2], distillation

    @property
    def parts(self) -> Sequence[ModelPart]:
        """Flow I, the teacher, the student."""
        energies, teacher = super().parts
        teacher.begin = self.lesson.release
        student = ModelPart(
            "student",
            self.student,
            self.student_recipe,
            self._student_loss,
            self.lesson.begin,
            after=(energies.name, teacher.name),
        )
        return energies, teacher, student

    def generation_modules(self) -> Iterator[nn.Module]:
        """Flow I and the student."""
        yield from (self.energy_flow, self.student)

    def _student_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        y, _ = self.coordinates(voxels, incident, generator, turned=True)
        x, energies = self.geometry.divide(y)
        with torch.no_grad():
            drawn, _ = self.energy_flow.sample(incident.shape[0], self.condition(incident), generator)
            drawn_condition = self.voxel_condition(drawn, incident)
        condition = self.voxel_condition(energies, incident)
        return self.lesson.loss(x, condition, drawn_condition, generator)

    def _sample_voxels(self, energies: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.student.sample(incident.shape[0], self.voxel_condition(energies, incident), generator)[0]
