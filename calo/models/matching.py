"""Flow matching: two-step models whose energies and voxels are carried along learned velocities (2405.09629)."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ShowerModel, TwoStepModel, voxel_context
from nisampler.calo.models.config import ModelConfig
from nisampler.calo.models.generative import energy_of
from nisampler.errors import ModelError
from nisampler.flows import ContinuousFlow, VelocityConfig, continuous_flow

_REACH = 8.0


class MatchingModel(TwoStepModel):
    """p(E_layers | E_inc) and p(voxels | E_layers, E_inc) as continuous flows, trained by flow matching.

    Marginals go on linearly beyond the quantiles that were counted, where one shower in thousands has coordinates of
    hundreds. One such shower would rule a squared loss: in losses, coordinates beyond ±8 are set to ±8, and so are
    conditions at all times.

    Parameters
    ----------
    geometry, preprocessing, recipes, symmetric
        As for every two-step model.
    energy_flow, voxel_flow
        Their losses train them; their densities are needed by `log_prob` only.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-matching", geometry("toy")).parts]
    ['energies', 'voxels']
    """

    energy_flow: ContinuousFlow
    voxel_flow: ContinuousFlow

    def voxel_condition(self, y: Tensor, incident: Tensor) -> Tensor:
        """What the voxels are given, each number cut at ±8."""
        return super().voxel_condition(y, incident).clamp(-_REACH, _REACH)

    def energy_task(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What a velocity of the energies learns: coordinates (n, L) and their conditions."""
        energies = self.preprocessing.cells.layer_energies(voxels, generator)
        y, _ = self.preprocessing.energy_coordinates(energies, energy_of(incident))
        return y.clamp(-_REACH, _REACH), self.condition(incident)

    def voxel_task(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What a velocity of the voxels learns: coordinates (n, V) and their conditions."""
        y, _ = self.coordinates(voxels, incident, generator, turned=True)
        y, energies = self.geometry.divide(y)
        return y.clamp(-_REACH, _REACH), self.voxel_condition(energies, incident)

    def _energy_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.energy_flow.loss(*self.energy_task(voxels, incident, generator), generator)

    def _voxel_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.voxel_flow.loss(*self.voxel_task(voxels, incident, generator), generator)

    def _sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        energies = self.energy_flow.draw(incident.shape[0], self.condition(incident), generator)
        return torch.cat([self._sample_voxels(energies, incident, generator), energies], dim=1)

    def _sample_voxels(self, energies: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.voxel_flow.draw(incident.shape[0], self.voxel_condition(energies, incident), generator)


def build_matching(config: ModelConfig, geometry: Geometry, generator: torch.Generator) -> ShowerModel:
    """The model of a "matching" config, with fresh weights.

    The patches of a velocity over the voxels are cut from the grid of layers, angles and radii.

    Raises
    ------
    ModelError
        If its flows have no velocities.
    ConfigError
        If patches are asked for, and the layers are not alike or patches do not fill them.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> config = preset("small-matching", geometry("toy"))
    >>> type(build_matching(config, geometry("toy"), torch.Generator().manual_seed(0))).__name__
    'MatchingModel'
    """
    energies, voxels = config.flows
    if not isinstance(energies, VelocityConfig) or not isinstance(voxels, VelocityConfig):
        raise ModelError("a model of flow matching is made of two velocities: give a VelocityConfig for each")
    first, second = config.recipes
    return MatchingModel(
        geometry,
        config.preprocessing,
        continuous_flow(geometry.n_layers, energies, geometry.context, generator),
        continuous_flow(geometry.n_voxels, voxels, voxel_context(geometry), generator, geometry.grid),
        (first, second),
        config.symmetric,
    )
