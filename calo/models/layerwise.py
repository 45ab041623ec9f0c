"""What models that go from layer to layer share: the layer energies, which a flow of their own draws first."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import FIT_SHOWERS, ModelPart, ShowerModel
from nisampler.calo.models.generative import energy_of
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.calo.recipe import Recipe
from nisampler.flows import Flow


class LayerwiseModel(ShowerModel):
    """p(E_1 ... E_L | E_inc), and voxels layer after layer.

    Parameters
    ----------
    geometry, preprocessing, symmetric
        As for every model.
    energy_flow
        Flow over L coordinates with a context of `geometry.context` numbers.
    energy_recipe
        How it is trained.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> isinstance(build_model("small-icaloflow", geometry("toy")), LayerwiseModel)
    True
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        energy_flow: Flow,
        energy_recipe: Recipe,
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, symmetric)
        self.energy_flow, self.energy_recipe = energy_flow, energy_recipe
        self.log_energies = Standardise(geometry.n_layers)

    @property
    def energy_part(self) -> ModelPart:
        """The flow of the energies."""
        return ModelPart("energies", self.energy_flow, self.energy_recipe, self._energy_loss)

    def prepare(self, showers: Showers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers."""
        super().prepare(showers, generator)
        voxels = torch.as_tensor(showers[:FIT_SHOWERS].voxels)
        self.log_energies.fit(self.preprocessing.cells.layer_energies(voxels, generator).log())

    def _energy_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return -self._log_energies(self.preprocessing.cells.layer_energies(voxels, generator), incident)

    def _log_energies(self, energies: Tensor, incident: Tensor) -> Tensor:
        """log p(E_1 ... E_L | E_inc) (n,) of layer energies (n, L) in MeV."""
        y, log_det = self.preprocessing.energy_coordinates(energies, energy_of(incident))
        return self.energy_flow.log_prob(y, self.condition(incident)) + log_det

    def _draw_energies(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Layer energies (n, L) in MeV."""
        y, _ = self.energy_flow.sample(incident.shape[0], self.condition(incident), generator)
        return self.preprocessing.layer_energies(y, energy_of(incident))[0]
