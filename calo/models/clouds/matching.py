"""AllShowers (2601.11716): the points of a shower together, by flow matching with a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart
from nisampler.calo.models.clouds.base import DIM, SPREAD, Groups, PointModel, group_context
from nisampler.calo.models.clouds.layers import LayerFlow
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.generative import GenerativeModel
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import PointTransformer, PointTransformerConfig, paired
from nisampler.flows.solvers import SOLVERS, integrate


class AllShowersModel(PointModel):
    """Point clouds by flow matching; points see those of neighbouring layers.

    Noise is paired with the points of each layer of a shower by optimal transport.

    Parameters
    ----------
    geometry, layer_flow, symmetric
        As for every `PointModel`.
    network
        The velocity of the points.
    config
        How it is integrated.
    recipes
        Of the flow and of the velocity.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-allshowers", geometry("toy")).parts]
    ['layers', 'points']
    """

    def __init__(
        self,
        geometry: Geometry,
        layer_flow: LayerFlow,
        network: PointTransformer,
        config: PointTransformerConfig,
        recipes: tuple[Recipe, Recipe],
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, layer_flow, recipes[0], symmetric)
        self.network, self.velocity, self.point_recipe = network, config, recipes[1]

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The flow of the layers, and the velocity of the points."""
        return (*super().parts, ModelPart("points", self.network, self.point_recipe, self._point_loss))

    def _point_loss(self, points: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, groups = self.learned(points, incident, generator)
        y = y / SPREAD
        n, device = len(points), generator.device
        noise = paired(torch.randn(y.shape, generator=generator, device=device).to(y.device), y, groups.rows)
        # one time from each of as many equal parts of [0, 1]
        stratum = torch.randperm(n, generator=generator, device=device)
        t = ((stratum + torch.rand(n, generator=generator, device=device)) / n).to(y.device).unsqueeze(1)
        own = t[groups.shower]
        every = t.repeat_interleave(groups.layers, dim=0)
        found = self.network((1 - own) * noise + own * y, every, groups.context, groups.rows)
        return self.of_showers((found - (y - noise)).square().mean(1), groups, n)

    def _draw(self, groups: Groups, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(groups.rows), DIM, generator=generator, device=generator.device)
        every = groups.context.new_ones(len(groups.context), 1)

        def velocity(t: float, x: Tensor) -> Tensor:
            found: Tensor = self.network(x, t * every, groups.context, groups.rows)
            return found

        solver = SOLVERS[self.velocity.solver]
        return SPREAD * integrate(velocity, noise.to(every.device), 0.0, 1.0, self.velocity.steps, solver)


def build_allshowers(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> GenerativeModel:
    """The model of an "allshowers" config, with fresh weights.

    Raises
    ------
    ModelError
        If its settings are not those of a flow and a transformer of points.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> config = preset("small-allshowers", geometry("toy"))
    >>> type(build_allshowers(config, geometry("toy"), torch.Generator().manual_seed(0))).__name__
    'AllShowersModel'
    """
    flow, net = config.flows
    if not isinstance(flow, FlowConfig) or not isinstance(net, PointTransformerConfig):
        raise ModelError("a model of whole clouds is made of a FlowConfig and a PointTransformerConfig")
    layer_flow = LayerFlow(geometry.n_layers, flow, geometry.context, generator)
    network = PointTransformer(DIM, group_context(geometry), geometry.n_layers, net, generator)
    first, second = config.recipes
    return AllShowersModel(geometry, layer_flow, network, net, (first, second), config.symmetric)
