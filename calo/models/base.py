"""What every shower model has: preprocessing, conditions, a density of showers, and generation.

A model is a chain of flows over the coordinates of `Preprocessing`: one over all of them (CaloINN), or one over the
layer energies and one over the voxels given the energies (CaloFlow). Each is a `ModelPart` and trained by itself, as
the log-likelihood is a sum.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.generative import GenerativeModel, energy_of
from nisampler.calo.models.turns import symmetry_table
from nisampler.calo.preprocessing.preprocessing import Preprocessing, PreprocessingConfig
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import Flow, kl, training_noise

FIT_SHOWERS = 50_000
_FINEST = 1e-3  # MeV, what voxels are compared with where none is cut


class ModelPart:
    """One flow of a model with its recipe; what the training loop trains.

    Parameters
    ----------
    name
        Names its checkpoint.
    module
        Holds the weights that are trained.
    recipe
        How they are trained.
    loss
        From voxels (n, V) in MeV, incident energies (n,) in MeV and a generator to the loss of each shower (n,), or
        to a dictionary with "loss" and its named terms.
    begin
        Called before the training, with the parts of `after` trained.
    layers
        Positions of the first layer that the loss needs and of the one behind the last: it is given these voxels alone,
        shape (n, v). None for all layers.
    after
        Names of the parts that must be trained before this one; all others may be trained at the same time.

    Examples
    --------
    >>> recipe = Recipe(10, 100, 1e-3)
    >>> part = ModelPart("energies", nn.Identity(), recipe, lambda voxels, incident, generator: voxels.sum(1))
    >>> part.name, part.after
    ('energies', ())
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        recipe: Recipe,
        loss: Callable[[Tensor, Tensor, torch.Generator], Tensor | dict[str, Tensor]],
        begin: Callable[[], object] = lambda: None,
        layers: tuple[int, int] | None = None,
        after: tuple[str, ...] = (),
    ) -> None:
        self.name, self.module, self.recipe, self.loss, self.begin = name, module, recipe, loss, begin
        self.layers, self.after = layers, after


class ShowerModel(GenerativeModel):
    """A `GenerativeModel` of voxels: their preprocessing, and a density.

    Parameters
    ----------
    geometry
        The calorimeter.
    preprocessing
        From showers to the coordinates of the flows.
    symmetric
        Turn and mirror training showers at random.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model: ShowerModel = build_model("small-inn", geometry("toy")).eval()
    >>> model.sample(torch.full((2,), 1e4), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 240])
    """

    symmetries: Tensor

    def __init__(self, geometry: Geometry, preprocessing: PreprocessingConfig, symmetric: bool = False) -> None:
        super().__init__(geometry, symmetric)
        self.preprocessing = Preprocessing(geometry, preprocessing)
        self.register_buffer("symmetries", torch.as_tensor(symmetry_table(geometry)), persistent=False)

    @property
    @abstractmethod
    def parts(self) -> Sequence[ModelPart]:
        """The flows in the order in which they are trained."""

    def prepare(self, showers: Showers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers; before any training, on the CPU."""
        showers = showers[:FIT_SHOWERS]
        voxels = torch.as_tensor(showers.voxels)
        incident = torch.as_tensor(showers.incident, dtype=voxels.dtype).unsqueeze(1)
        orbits = self.symmetries.amin(0) if self.symmetric else torch.arange(self.geometry.n_voxels)
        self.preprocessing.fit(self.preprocessing.cells.augment(voxels, generator), incident, orbits)
        self.incident.fit(incident.log())

    def coordinates(
        self, voxels: Tensor, incident: Tensor, generator: torch.Generator, turned: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Coordinates (n, V + L) of showers with fresh noise, and what their log-density in MeV needs (n,).

        With `turned` each shower is turned and mirrored at random first, if the model is symmetric.
        """
        if turned:
            voxels = self.turned(voxels, generator)
        y, log_det = self.preprocessing(self.preprocessing.cells.augment(voxels, generator), energy_of(incident))
        return y, log_det - self.preprocessing.cells.log_scale_density

    def turned(self, voxels: Tensor, generator: torch.Generator, first: int = 0) -> Tensor:
        """Voxels (n, v) of layers from position `first` on, each shower turned and mirrored at random.

        All layers of a shower turn alike. They stay as they are if the model is not symmetric.
        """
        if not self.symmetric:
            return voxels
        start = self.geometry.starts[first]
        pick = torch.randint(len(self.symmetries), (len(voxels),), generator=generator, device=generator.device)
        table = self.symmetries[pick.to(voxels.device), start : start + voxels.shape[1]]
        return voxels.gather(1, table - start)

    def visible(self, voxels: Tensor) -> Tensor:
        """log(1 + v / threshold) of voxels in MeV as they are generated, zero below the threshold."""
        cut = self.preprocessing.config.cut
        return torch.where(voxels < cut, torch.zeros_like(voxels), voxels / (cut or _FINEST)).log1p()

    def log_prob(self, voxels: Tensor, incident: Tensor, generator: torch.Generator, draws: int = 1) -> Tensor:
        """Log-density of showers in MeV, of the showers with noise: shape (n,).

        With `draws` > 1 the density is averaged over that many noises, which tightens the bound.

        Parameters
        ----------
        voxels, incident
            (n, V) and (n,), in MeV; with k conditions (n, 1 + k), these beside the energies.
        generator
            Source of the noise and of the auxiliary scales.
        draws
            Number of noises for each shower.

        Raises
        ------
        ShapeError
            If the showers do not fit the geometry.
        """
        self._check(incident)
        terms = [self._log_density(voxels, incident, generator) for _ in range(draws)]
        return torch.logsumexp(torch.stack(terms), dim=0) - math.log(draws)

    @abstractmethod
    def _log_density(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Log-density (n,) of showers with one noise."""


class CoordinateModel(ShowerModel):
    """A density of all coordinates of `Preprocessing` together.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> isinstance(build_model("small-inn", geometry("toy")), CoordinateModel)
    True
    """

    @abstractmethod
    def _log_prob(self, y: Tensor, incident: Tensor) -> Tensor:
        """Log-density of coordinates (n, V + L)."""

    @abstractmethod
    def _sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Coordinates (n, V + L) of new showers."""

    def _log_density(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, log_det = self.coordinates(voxels, incident, generator)
        return self._log_prob(y, incident) + log_det

    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.preprocessing.showers(self._sample(incident, generator), energy_of(incident).squeeze(1))


class TwoStepModel(CoordinateModel):
    """p(E_layers | E_inc) and p(voxels | E_layers, E_inc): flows I and II of CaloFlow (2106.05285).

    Parameters
    ----------
    geometry, preprocessing
        As for every model.
    energy_flow
        Flow over L coordinates with a context of `geometry.context` numbers.
    voxel_flow
        Flow over V coordinates with a context of `voxel_context(geometry)` numbers.
    recipes
        Of the two flows.
    symmetric
        Turn and mirror showers at random in training.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small", geometry("toy"))
    >>> type(model).__name__, len(model.parts)
    ('TwoStepModel', 2)
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        energy_flow: Flow,
        voxel_flow: Flow,
        recipes: tuple[Recipe, Recipe],
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, symmetric)
        expected = {"energies": (energy_flow, geometry.n_layers, geometry.context)}
        expected["voxels"] = (voxel_flow, geometry.n_voxels, voxel_context(geometry))
        for name, (flow, dim, context) in expected.items():
            if (flow.dim, flow.context_dim) != (dim, context):
                raise ModelError(
                    f"the flow of the {name} of {geometry.name} needs {dim} coordinates and a context of {context}, "
                    f"got {flow.dim} and {flow.context_dim}"
                )
        self.energy_flow, self.voxel_flow = energy_flow, voxel_flow
        self.log_energies = Standardise(geometry.n_layers)
        self.recipes = recipes

    @property
    def parts(self) -> Sequence[ModelPart]:
        """Flow I and flow II."""
        energies = ModelPart("energies", self.energy_flow, self.recipes[0], self._energy_loss)
        return energies, ModelPart("voxels", self.voxel_flow, self.recipes[1], self._voxel_loss)

    def prepare(self, showers: Showers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers."""
        super().prepare(showers, generator)
        voxels = torch.as_tensor(showers[:FIT_SHOWERS].voxels)
        self.log_energies.fit(self.preprocessing.cells.layer_energies(voxels, generator).log())

    def voxel_condition(self, y: Tensor, incident: Tensor) -> Tensor:
        """What flow II is given: E_inc, the coordinates of the energies, and their logarithms (n, c + 2 L)."""
        energies, _ = self.preprocessing.layer_energies(y, energy_of(incident))
        return torch.cat([self.condition(incident), y, self.log_energies(energies.log())[0]], dim=1)

    def _energy_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        energies = self.preprocessing.cells.layer_energies(voxels, generator)
        y, _ = self.preprocessing.energy_coordinates(energies, energy_of(incident))
        return -self.energy_flow.log_prob(y, self.condition(incident))

    def _voxel_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, log_det = self.coordinates(voxels, incident, generator, turned=True)
        y, energies = self.geometry.divide(y)
        return -self.voxel_flow.log_prob(y, self.voxel_condition(energies, incident)) - log_det

    def _log_prob(self, y: Tensor, incident: Tensor) -> Tensor:
        y, energies = self.geometry.divide(y)
        log_prob = self.energy_flow.log_prob(energies, self.condition(incident))
        return log_prob + self.voxel_flow.log_prob(y, self.voxel_condition(energies, incident))

    def _sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        energies, _ = self.energy_flow.sample(incident.shape[0], self.condition(incident), generator)
        return torch.cat([self._sample_voxels(energies, incident, generator), energies], dim=1)

    def _sample_voxels(self, energies: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Voxel coordinates (n, V) given those of the energies (n, L)."""
        return self.voxel_flow.sample(incident.shape[0], self.voxel_condition(energies, incident), generator)[0]


class OneStepModel(CoordinateModel):
    """p(voxels, E_layers | E_inc) as one flow over V + L coordinates (CaloINN, 2312.09290).

    Parameters
    ----------
    geometry, preprocessing
        As for every model.
    flow
        Over V + L coordinates with a context of `geometry.context` numbers.
    recipe
        How it is trained.
    symmetric
        Turn and mirror showers at random in training.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small-inn", geometry("toy"))
    >>> type(model).__name__, len(model.parts)
    ('OneStepModel', 1)
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        flow: Flow,
        recipe: Recipe,
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, symmetric)
        dim = geometry.n_voxels + geometry.n_layers
        if (flow.dim, flow.context_dim) != (dim, geometry.context):
            raise ModelError(
                f"a flow of {geometry.name} needs {dim} coordinates and a context of {geometry.context}, got "
                f"{flow.dim} and {flow.context_dim}"
            )
        self.flow, self.recipe = flow, recipe

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The only flow."""
        return (ModelPart("showers", self.flow, self.recipe, self._loss),)

    def _loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, log_det = self.coordinates(voxels, incident, generator, turned=True)
        if not (self.is_bayesian and self.flow.training):
            return -self._log_prob(y, incident) - log_det
        with training_noise(self.flow, generator):
            return kl(self.flow) / self.training_size - self._log_prob(y, incident) - log_det

    def _log_prob(self, y: Tensor, incident: Tensor) -> Tensor:
        return self.flow.log_prob(y, self.condition(incident))

    def _sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        return self.flow.sample(incident.shape[0], self.condition(incident), generator)[0]


def voxel_context(geometry: Geometry) -> int:
    """Length of the condition of flow II.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> voxel_context(geometry("toy"))
    11
    """
    return geometry.context + 2 * geometry.n_layers
