"""What every model of showers has, of voxels or of points: parts that are trained, and showers of given particles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.calo.data.batches import ShowerSource
from nisampler.calo.data.kinds import VOXELS, DataKind
from nisampler.calo.detector.conditions import encode
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.calo.recipe import Part
from nisampler.errors import ModelError, ShapeError
from nisampler.flows import VariationalLinear, draw


class GenerativeModel(nn.Module, ABC):
    """p(shower | E_inc) for one geometry.

    Parameters
    ----------
    geometry
        The calorimeter.
    symmetric
        Turn and mirror training showers at random.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model: GenerativeModel = build_model("small-clouds", geometry("toy")).eval()
    >>> model.kind.name, [part.name for part in model.parts]
    ('points', ['layers', 'points'])
    """

    config: dict[str, Any]
    kind: DataKind = VOXELS
    training_size = 1  # number of training showers, by which the divergence of variational weights is divided
    trained_energies: tuple[float, float] | None = None  # lowest and highest incident energy it learned from, MeV
    trained_conditions: Mapping[str, Sequence[float]] = MappingProxyType({})  # the range or the codes of each

    def __init__(self, geometry: Geometry, symmetric: bool = False) -> None:
        super().__init__()
        self.geometry, self.symmetric, self.config = geometry, symmetric, {}
        self.incident = Standardise(1)

    @property
    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The networks in the order in which they are trained."""

    @abstractmethod
    def prepare(self, showers: Any, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers; before any training, on the CPU."""

    def turn(self, symmetric: bool) -> None:
        """Turn and mirror training showers from now on, or leave them as they are; before `prepare`."""
        self.symmetric, self.config["symmetric"] = symmetric, symmetric

    def finish(self, training: ShowerSource, generator: torch.Generator) -> None:
        """Called once after all parts are trained; may set constants that no part holds, from those of `prepare` on."""

    def condition(self, incident: Tensor) -> Tensor:
        """The standardised logarithm of the incident energies and the conditions, shape (n, `Geometry.context`)."""
        energies = self.incident(energy_of(incident).log())[0]
        if not self.geometry.conditions:
            return energies
        return torch.cat([energies, encode(self.geometry.conditions, incident[:, 1:])], dim=1)

    @torch.inference_mode()
    def sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a shower for each incident energy (n,) in MeV: voxels (n, V) in MeV, zero below the threshold.

        With k conditions they stand beside the energies, (n, 1 + k). A model of points gives them instead of voxels,
        (n, P, 4) with zeros behind those of each shower.

        A shower that is not finite is returned as it is; the caller counts it and draws again.

        Raises
        ------
        ShapeError
            If the energies are not a vector.
        """
        self._check(incident)
        return self._showers(incident, generator)

    @abstractmethod
    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        """New showers, in MeV."""

    def draw_posterior(self, generator: torch.Generator) -> None:
        """Freeze variational weights at a draw from their posterior; the spread over draws is an error band.

        Raises
        ------
        ModelError
            If the model has no variational weights.
        """
        if not self.is_bayesian:
            raise ModelError("this model has no variational weights to draw; choose a Bayesian preset")
        draw(self, generator)

    @property
    def is_bayesian(self) -> bool:
        """Whether weights have a posterior."""
        return any(isinstance(module, VariationalLinear) for module in self.modules())

    def generation_modules(self) -> Iterator[nn.Module]:
        """The modules that generation needs."""
        yield self

    def _check(self, incident: Tensor) -> None:
        k = len(self.geometry.conditions)
        if incident.dim() != (2 if k else 1) or (k and incident.shape[1] != 1 + k):
            names = "".join(f", {known.name}" for known in self.geometry.conditions)
            shape = f"(n, {1 + k}): energy{names}" if k else "(n,)"
            raise ShapeError(f"expected incident energies of shape {shape}, got {tuple(incident.shape)}")


def energy_of(incident: Tensor) -> Tensor:
    """Incident energies (n, 1) of what a model is given: (n,), or (n, 1 + k) with conditions.

    >>> energy_of(torch.ones(3)).shape, energy_of(torch.ones(3, 2)).shape
    (torch.Size([3, 1]), torch.Size([3, 1]))
    """
    return incident.unsqueeze(1) if incident.dim() == 1 else incident[:, :1]
