"""iCaloFlow: the layer energies, the first layer, and every further layer given the one before it (2305.11934)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import FIT_SHOWERS, ModelPart
from nisampler.calo.models.distillation import Distillation, DistillationConfig
from nisampler.calo.models.layerwise import LayerwiseModel
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import Flow, NetConfig


class InductiveModel(LayerwiseModel):
    """p(E_1 .. E_L | E_inc) p(v_1 | E_1, E_inc) prod_n p(v_n | v_{n-1}, E_n, E_{n-1}, E_inc, n), one flow for all n.

    The noise of a layer is independent of all others, so a layer is given the voxels of the one before it without
    noise: as they are generated, zero below the threshold. They enter as log(1 + v / threshold), the number of the
    layer as one of L - 1 switches.

    Parameters
    ----------
    geometry
        At least two layers with the same cells.
    preprocessing
        As for every model.
    flows
        Over the L layer energies with a context of c = `geometry.context` numbers, over the voxels of the first layer
        with one of c + 1, over those of a further layer with one of `next_context(geometry)`.
    recipes
        Of the three flows; batches are showers, each of which has L - 1 pairs of layers for the last flow.
    symmetric
        Turn and mirror showers at random in training, all layers alike.

    Raises
    ------
    ModelError
        If the layers differ, or a flow does not fit them.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-icaloflow", geometry("toy")).parts]
    ['energies', 'first', 'next']
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        flows: tuple[Flow, Flow, Flow],
        recipes: tuple[Recipe, Recipe, Recipe],
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, flows[0], recipes[0], symmetric)
        context = next_context(geometry)
        sizes = (
            (geometry.n_layers, geometry.context),
            (geometry.sizes[0], geometry.context + 1),
            (geometry.sizes[0], context),
        )
        for name, flow, (dim, given) in zip(("energies", "first", "next"), flows, sizes, strict=True):
            if (flow.dim, flow.context_dim) != (dim, given):
                raise ModelError(
                    f"the flow '{name}' of {geometry.name} needs {dim} coordinates and a context of {given}, "
                    f"got {flow.dim} and {flow.context_dim}"
                )
        _, self.first_flow, self.next_flow = flows
        self.standard_voxels = Standardise(geometry.sizes[0])
        self.layer_recipes = recipes[1:]

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The three flows; their losses add up to the negative log-density of a shower."""
        first, further = self.layer_recipes
        return (
            self.energy_part,
            ModelPart("first", self.first_flow, first, self._first_loss, layers=(0, 1)),
            ModelPart("next", self.next_flow, further, self._next_loss),
        )

    def prepare(self, showers: Showers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers."""
        super().prepare(showers, generator)
        voxels = torch.as_tensor(showers[:FIT_SHOWERS].voxels)
        self.standard_voxels.fit(self._by_layer(voxels[:, : -self.geometry.sizes[0]]))

    def first_condition(self, energy: Tensor, incident: Tensor) -> Tensor:
        """What the flow of the first layer is given: E_inc, conditions and the energy (n, 1) of the layer in MeV."""
        mean, spread = self.log_energies.mean[:1].to(energy.dtype), self.log_energies.spread[:1].to(energy.dtype)
        return torch.cat([self.condition(incident), (energy.log() - mean) / spread], dim=1)

    def next_condition(self, before: Tensor, energies: Tensor, incident: Tensor, first: int) -> Tensor:
        """What the flow of further layers is given: shape (n m, c), the m layers of a shower one after the other.

        Parameters
        ----------
        before
            Voxels (n, m v) in MeV, without noise, of the layers before the m layers from position `first` on.
        energies
            Energies (n, L) of all layers in MeV.
        incident
            (n,), in MeV.
        first
            At least 1.
        """
        voxels, _ = self.standard_voxels(self._by_layer(before))
        n, m = before.shape[0], before.shape[1] // self.geometry.sizes[0]
        logs, _ = self.log_energies(energies.log())
        ours, theirs = logs[:, first : first + m], logs[:, first - 1 : first + m - 1]
        known = self.condition(incident)[:, None].expand(n, m, -1)
        numbers = torch.cat([known, torch.stack([ours, theirs], dim=2)], dim=2).flatten(0, 1)
        switches = torch.eye(self.geometry.n_layers - 1, dtype=voxels.dtype, device=voxels.device)
        return torch.cat([numbers, voxels, switches[first - 1 : first + m - 1].repeat(n, 1)], dim=1)

    def _by_layer(self, voxels: Tensor) -> Tensor:
        """What is visible of voxels (n, m v), layer by layer: (n m, v)."""
        return self.visible(voxels).reshape(-1, self.geometry.sizes[0])

    def _first_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        cells = self.preprocessing.cells.window(0, 1)
        return -self._log_first(cells.augment(self.turned(voxels, generator), generator), incident)

    def _next_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        voxels = self.turned(voxels, generator)
        return -self._log_next(self.preprocessing.cells.augment(voxels, generator), voxels, incident)

    def _first_rows(self, augmented: Tensor, incident: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (n, v) of the first layer with noise (n, v + 1), their condition, and log-determinant (n,)."""
        cells = self.preprocessing.cells.window(0, 1)
        y, log_det = cells(augmented)
        return y[:, :-1], self.first_condition(y[:, -1:], incident), log_det - cells.log_scale_density

    def _log_first(self, augmented: Tensor, incident: Tensor) -> Tensor:
        """log p(v_1 | E_1, E_inc) (n,) of the first layer with noise and scale (n, v + 1)."""
        y, condition, log_det = self._first_rows(augmented, incident)
        return self.first_flow.log_prob(y, condition) + log_det

    def _next_rows(self, augmented: Tensor, clean: Tensor, incident: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (n (L - 1), v) of layers after the first, their condition, and the log-determinants (n,)."""
        size, count = self.geometry.sizes[0], self.geometry.n_layers
        energies = self.preprocessing.cells.scale.layer_energies(augmented)
        cells = self.preprocessing.cells.window(1, count)
        voxels, scales = self.geometry.divide(augmented)
        y, log_det = cells(torch.cat([voxels[:, size:], scales[:, 1:]], dim=1))
        condition = self.next_condition(clean[:, :-size], energies, incident, 1)
        return y[:, : 1 - count].reshape(-1, size), condition, log_det - cells.log_scale_density

    def _log_next(self, augmented: Tensor, clean: Tensor, incident: Tensor) -> Tensor:
        """Sum over n of log p(v_n | v_{n-1}, E_n, E_{n-1}, E_inc, n): (n,), of showers with and without noise."""
        y, condition, log_det = self._next_rows(augmented, clean, incident)
        return self.next_flow.log_prob(y, condition).reshape(len(clean), -1).sum(1) + log_det

    def _log_density(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        augmented, size = self.preprocessing.cells.augment(voxels, generator), self.geometry.sizes[0]
        scale = augmented[:, self.geometry.n_voxels : self.geometry.n_voxels + 1]
        first = self._log_first(torch.cat([augmented[:, :size], scale], dim=1), incident)
        energies = self.preprocessing.cells.scale.layer_energies(augmented)
        return self._log_energies(energies, incident) + first + self._log_next(augmented, voxels, incident)

    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        energies = self._draw_energies(incident, generator)
        first, further = self._generators()
        layers: list[Tensor] = []
        for position in range(self.geometry.n_layers):
            energy = energies[:, position : position + 1]
            if position:
                condition, flow = self.next_condition(layers[-1], energies, incident, position), further
            else:
                condition, flow = self.first_condition(energy, incident), first
            y, _ = flow.sample(incident.shape[0], condition, generator)
            cells = self.preprocessing.cells.window(position, position + 1)
            layers.append(cells.showers(torch.cat([y, energy], dim=1)))
        return torch.cat(layers, dim=1)

    def _generators(self) -> tuple[Flow, Flow]:
        """The flows that generate the first and the further layers."""
        return self.first_flow, self.next_flow


class InductiveStudentModel(InductiveModel):
    """iCaloFlow whose voxels come from inverse autoregressive students of its last two flows.

    The teachers stay in the model: they give the density, the students the showers. In latent space, too, a student
    learns under the conditions of training showers.

    Parameters
    ----------
    geometry, preprocessing, flows, symmetric
        The teacher; the last two flows are a `maf` each.
    recipes
        Of the three flows, and of the students of the last two.
    students
        Networks of the two students.
    distillation
        Which terms their losses have.
    generator
        Source of their initial weights.

    Raises
    ------
    ModelError
        If the layers differ, or a flow does not fit them or cannot teach.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-icaloflow-student", geometry("toy")).parts]
    ['energies', 'first', 'next', 'first-student', 'next-student']
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        flows: tuple[Flow, Flow, Flow],
        recipes: tuple[Recipe, Recipe, Recipe, Recipe, Recipe],
        students: tuple[NetConfig, NetConfig],
        distillation: DistillationConfig,
        generator: torch.Generator,
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, flows, recipes[:3], symmetric)
        self.first_lesson = Distillation(flows[1], students[0], distillation, generator)
        self.next_lesson = Distillation(flows[2], students[1], distillation, generator)
        self.first_student, self.next_student = self.first_lesson.student, self.next_lesson.student
        self.student_recipes = recipes[3:]

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The three flows, then the two students."""
        energies, first, further = super().parts
        first.begin, further.begin = self.first_lesson.release, self.next_lesson.release
        one, two = self.student_recipes
        return (
            energies,
            first,
            further,
            ModelPart(
                "first-student",
                self.first_student,
                one,
                self._first_student_loss,
                self.first_lesson.begin,
                first.layers,
                after=(first.name,),
            ),
            ModelPart(
                "next-student",
                self.next_student,
                two,
                self._next_student_loss,
                self.next_lesson.begin,
                after=(further.name,),
            ),
        )

    def generation_modules(self) -> Iterator[nn.Module]:
        """The flow of the energies and the students."""
        yield from (self.energy_flow, self.first_student, self.next_student)

    def _first_student_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        augmented = self.preprocessing.cells.window(0, 1).augment(self.turned(voxels, generator), generator)
        x, condition, _ = self._first_rows(augmented, incident)
        return self.first_lesson.loss(x, condition, condition, generator)

    def _next_student_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        voxels = self.turned(voxels, generator)
        x, condition, _ = self._next_rows(self.preprocessing.cells.augment(voxels, generator), voxels, incident)
        return self.next_lesson.loss(x, condition, condition, generator)

    def _generators(self) -> tuple[Flow, Flow]:
        return self.first_student, self.next_student


def next_context(geometry: Geometry) -> int:
    """Length of the condition of the flow of further layers.

    Raises
    ------
    ModelError
        If there are fewer than two layers, or they differ.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> next_context(geometry("toy"))
    55
    """
    if not geometry.alike or geometry.n_layers < 2:
        raise ModelError(
            f"iCaloFlow needs at least two layers, all with the same cells, which {geometry.name} has not: "
            "choose another model, as small or small-l2lflows"
        )
    return geometry.context + 2 + geometry.sizes[0] + geometry.n_layers - 1
