"""CaloClouds (2305.04847, 2309.05704): points by diffusion, each alone given its layer; or in one distilled step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart
from nisampler.calo.models.clouds.base import DIM, Groups, PointModel, group_context
from nisampler.calo.models.clouds.layers import LayerFlow
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.generative import GenerativeModel
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import ConsistentDenoiser, Denoiser, EDMConfig, PointwiseConfig, PointwiseNet

_PIECE = 1 << 13  # points that are generated at a time: what a processor keeps at hand


class CloudsModel(PointModel):
    """Point clouds by diffusion of single points.

    Unlike the published model, which sorts points into layers after their diffusion, a point is given its layer, with
    the numbers and energies of all layers.

    Parameters
    ----------
    geometry, layer_flow, symmetric
        As for every `PointModel`.
    denoiser
        Of the points.
    recipes
        Of the flow and of the denoiser.
    most
        Points of a batch that its loss looks at; 0 for all.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-clouds", geometry("toy")).parts]
    ['layers', 'points']
    """

    def __init__(
        self,
        geometry: Geometry,
        layer_flow: LayerFlow,
        denoiser: Denoiser,
        recipes: tuple[Recipe, Recipe],
        symmetric: bool = False,
        most: int = 0,
    ) -> None:
        super().__init__(geometry, layer_flow, recipes[0], symmetric)
        self.denoiser, self.point_recipe, self.most = denoiser, recipes[1], most

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The flow of the layers, and the denoiser."""
        return (*super().parts, ModelPart("points", self.denoiser, self.point_recipe, self._point_loss))

    def _point_loss(self, points: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, groups = self._some(*self.learned(points, incident, generator), generator)
        given = (groups.context, groups.rows)
        losses = self.denoiser.loss(y, len(groups.context), generator, *given, rows=groups.rows)
        return self.of_showers(losses, groups, len(points))

    def _some(self, y: Tensor, groups: Groups, generator: torch.Generator) -> tuple[Tensor, Groups]:
        """Coordinates (m, 3) and groups of points chosen at random, if there are too many."""
        if not 0 < self.most < len(y):
            return y, groups
        chosen = torch.randperm(len(y), generator=generator, device=generator.device)[: self.most].to(y.device)
        return y[chosen], groups._replace(rows=groups.rows[chosen])

    def _draw(self, groups: Groups, generator: torch.Generator) -> Tensor:
        return self._draw_with(self.denoiser, groups, generator)

    def _draw_with(self, denoiser: Denoiser, groups: Groups, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(groups.rows), DIM, generator=generator, device=generator.device)
        noise = noise.to(groups.context.device)
        if not len(noise):
            return noise
        pieces = []
        for part, rows in zip(torch.split(noise, _PIECE), torch.split(groups.rows, _PIECE), strict=True):
            # points of a group stand together
            first, last = int(rows[0]), int(rows[-1]) + 1
            context, own = groups.context[first:last], rows - first
            pieces.append(denoiser.draw(part, context, own, groups=last - first, rows=own))
        return torch.cat(pieces)


class OneStepCloudsModel(CloudsModel):
    """The same with a student that makes points in one evaluation; the teacher stays in the model.

    Parameters
    ----------
    geometry, layer_flow, denoiser, symmetric, most
        As for the teacher.
    recipes
        Of the flow, the teacher and the student.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-clouds-onestep", geometry("toy")).parts]
    ['layers', 'points', 'onestep']
    """

    def __init__(
        self,
        geometry: Geometry,
        layer_flow: LayerFlow,
        denoiser: Denoiser,
        recipes: tuple[Recipe, Recipe, Recipe],
        symmetric: bool = False,
        most: int = 0,
    ) -> None:
        super().__init__(geometry, layer_flow, denoiser, recipes[:2], symmetric, most)
        self.student_recipe = recipes[2]
        self.student = ConsistentDenoiser(copy.deepcopy(denoiser.network), denoiser.config)

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The flow of the layers, the teacher, the student."""
        layers, points = super().parts
        after = (points.name,)
        student = ModelPart("onestep", self.student, self.student_recipe, self._student_loss, self._begin, None, after)
        return layers, points, student

    def generation_modules(self) -> Iterator[nn.Module]:
        """The flow of the layers and the student."""
        yield from (self.layer_flow, self.student)

    @torch.no_grad()
    def _begin(self) -> None:
        """The student starts where the teacher ended."""
        self.student.network.load_state_dict(self.denoiser.network.state_dict())

    def _student_loss(self, points: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, groups = self._some(*self.learned(points, incident, generator), generator)
        given, count = (groups.context, groups.rows), len(groups.context)
        losses = self.student.lesson(self.denoiser, y, count, generator, *given, rows=groups.rows)
        return self.of_showers(losses, groups, len(points))

    def _draw(self, groups: Groups, generator: torch.Generator) -> Tensor:
        return self._draw_with(self.student, groups, generator)


def build_clouds(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> GenerativeModel:
    """The model of a "clouds" or "clouds-onestep" config, with fresh weights.

    Raises
    ------
    ModelError
        If its settings are not those of a flow and a network of points.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> config = preset("small-clouds", geometry("toy"))
    >>> type(build_clouds(config, geometry("toy"), torch.Generator().manual_seed(0))).__name__
    'CloudsModel'
    """
    flow, net = config.flows[:2]
    if not isinstance(flow, FlowConfig) or not isinstance(net, PointwiseConfig):
        raise ModelError("a model of clouds is made of a flow and a network of points: FlowConfig and PointwiseConfig")
    layer_flow = LayerFlow(geometry.n_layers, flow, geometry.context, generator)
    denoiser = Denoiser(PointwiseNet(DIM, group_context(geometry), net, generator), EDMConfig())
    first, second, *third = config.recipes
    if third:
        recipes = (first, second, third[0])
        return OneStepCloudsModel(geometry, layer_flow, denoiser, recipes, config.symmetric, net.points)
    return CloudsModel(geometry, layer_flow, denoiser, (first, second), config.symmetric, net.points)
