"""What a file offers to the program that loads it: the names, units and order of its inputs and of its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nisampler.base.rng import Streams
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.export.noise import normal_noise
from nisampler.calo.export.plain import PlainShowers
from nisampler.calo.models import GenerativeModel
from nisampler.errors import ConfigError, ModelError

TargetName = Literal["showers", "par04", "ddml"]
NoiseName = Literal["input", "seed"]
_GEV = 1e3


class Target(nn.Module, ABC):
    """Showers as a program wants them.

    Parameters
    ----------
    plain
        The showers of a model.

    Attributes
    ----------
    output
        Name of what `forward` gives.
    any_batch
        Whether it takes any number of showers at once.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> target: Target = GivenNoiseShowers(PlainShowers(build_model("small-inn", geometry("toy")).eval()))
    >>> target(*target.inputs(2, seed=1).values()).shape
    torch.Size([2, 240])
    """

    output: ClassVar[str] = "voxels"
    any_batch: ClassVar[bool] = True

    def __init__(self, plain: PlainShowers) -> None:
        super().__init__()
        self.plain = plain

    @abstractmethod
    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        """The inputs by name for `count` showers, at random."""

    def _incident(self, count: int, seed: int) -> Tensor:
        """Incident energies (count,) in MeV of the geometry's law."""
        law = self.plain.model.geometry.incident
        return torch.as_tensor(law.sample(count, Streams(seed).numpy("incident", 0)), dtype=torch.float32)

    def _noise(self, count: int, seed: int) -> Tensor:
        generator = Streams(seed).generator("export")
        return torch.cat([torch.randn(count, dim, generator=generator) for dim in self.plain.sizes], dim=1)


class GivenNoiseShowers(Target):
    """Showers (n, V) in MeV of normal noise (n, d) and incident energies (n,) in MeV.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> list(GivenNoiseShowers(PlainShowers(build_model("small-inn", geometry("toy")).eval())).inputs(1, seed=1))
    ['noise', 'incident']
    """

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        return {"noise": self._noise(count, seed), "incident": self._incident(count, seed)}

    def forward(self, noise: Tensor, incident: Tensor) -> Tensor:
        showers: Tensor = self.plain(noise, incident)
        return showers


class SeededShowers(Target):
    """Showers (n, V) in MeV of energies (n,) in MeV, a seed (1,) and the number of the first shower (1,), int64.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> module = SeededShowers(PlainShowers(build_model("small-inn", geometry("toy")).eval()))
    >>> module(torch.full((2,), 1e4), torch.tensor([1]), torch.tensor([0])).shape
    torch.Size([2, 240])
    """

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        one = torch.ones(1, dtype=torch.long)
        return {"incident": self._incident(count, seed), "seed": seed * one, "first": 0 * one}

    def forward(self, incident: Tensor, seed: Tensor, first: Tensor) -> Tensor:
        noise = normal_noise(seed, first, incident.shape[0], self.plain.noise)
        showers: Tensor = self.plain(noise, incident)
        return showers


class Par04Showers(Target):
    """What the example Par04 of Geant4 gives and takes (its class `Par04OnnxInference`), for one detector.

    From rows of noise, E/E_max, θ/90° and a code of two numbers for the detector to fractions of E_inc, flat with r the
    slowest, φ, and z the fastest. A shower that is not finite comes out empty, as nobody draws it again. The model has
    one detector and no angle: θ and the code are not looked at.

    Parameters
    ----------
    plain
        Showers of a polar geometry with equal layers.
    highest
        E_max in MeV.

    Raises
    ------
    ModelError
        If the geometry has no such order.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> module = Par04Showers(PlainShowers(build_model("small-inn", geometry("toy")).eval()), 1.024e6)
    >>> module(torch.full((1, 249), 0.01)).shape
    torch.Size([1, 240])
    """

    output = "fractions"

    def __init__(self, plain: PlainShowers, highest: float) -> None:
        super().__init__(plain)
        self.highest, self.grid = highest, _grid(plain.model.geometry, "polar", "par04")

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        energy = self._incident(count, seed).unsqueeze(1) / self.highest
        rest = torch.tensor([0.0, 0.0, 1.0]).expand(count, 3)
        return {"input": torch.cat([self._noise(count, seed), energy, rest], dim=1)}

    def forward(self, input: Tensor) -> Tensor:
        energy = input[:, self.plain.noise] * self.highest
        showers = _finite(self.plain(input[:, : self.plain.noise], energy))
        fractions = showers / energy.unsqueeze(1)
        return fractions.reshape(-1, *self.grid).permute(0, 3, 2, 1).flatten(1)


class DdmlShowers(Target):
    """What `L2LFlowsModel` of Key4hep's DDML gives and takes: E in GeV, -n_x, -n_y, n_z (1, 4) to GeV (layers, x, y).

    The noise is drawn inside. A shower that is not finite comes out empty. The model has no direction: it is not looked
    at.

    Parameters
    ----------
    plain
        Showers of a rectangular geometry with equal layers.

    Raises
    ------
    ModelError
        If the geometry has no such order.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> DdmlShowers(PlainShowers(build_model("small-inn", geometry("toy")).eval()))
    Traceback (most recent call last):
    ...
    nisampler.errors.ModelError: ddml takes equal layers of rectangular cells, which toy has not: export for showers
    """

    output, any_batch = "layers", False

    def __init__(self, plain: PlainShowers) -> None:
        super().__init__(plain)
        self.grid = _grid(plain.model.geometry, "rectangular", "ddml")

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        direction = torch.tensor([0.0, 0.0, 1.0]).expand(count, 3)
        return {"particle": torch.cat([self._incident(count, seed).unsqueeze(1) / _GEV, direction], dim=1)}

    def forward(self, particle: Tensor) -> Tensor:
        noise = torch.randn(1, self.plain.noise, dtype=particle.dtype, device=particle.device)
        showers = _finite(self.plain(noise, particle[:, 0] * _GEV))
        return (showers / _GEV).reshape(self.grid)


def target_for(
    model: GenerativeModel, name: TargetName = "showers", noise: NoiseName = "input", highest: float = 1.024e6
) -> Target:
    """A model as a program wants it.

    Parameters
    ----------
    model
        A fitted model; it stays as it is.
    name
        "showers" (n, V) in MeV of incident energies (n,) in MeV; "par04", see `Par04Showers`; "ddml", see
        `DdmlShowers`.
    noise
        Of "showers": "input" for normal noise (n, d), "seed" for a seed and the number of the first shower.
    highest
        E_max of "par04" in MeV.

    Raises
    ------
    ConfigError
        If par04 or ddml is to take a seed, which these programs do not give.
    ModelError
        If the model cannot be exported, or its geometry does not fit the program.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> target = target_for(build_model("small-inn", geometry("toy")).eval(), noise="seed")
    >>> {name: tensor.dtype for name, tensor in target.inputs(1, seed=1).items()}
    {'incident': torch.float32, 'seed': torch.int64, 'first': torch.int64}
    """
    if name != "showers" and noise == "seed":
        raise ConfigError(f"{name} gives no seed: leave --noise out, it has its own way to draw noise")
    plain = PlainShowers(model)
    if name == "par04":
        return Par04Showers(plain, highest)
    if name == "ddml":
        return DdmlShowers(plain)
    return SeededShowers(plain) if noise == "seed" else GivenNoiseShowers(plain)


def _grid(geometry: Geometry, kind: str, target: str) -> tuple[int, int, int]:
    if geometry.grid is None or any(layer.kind != kind for layer in geometry.layers):
        raise ModelError(
            f"{target} takes equal layers of {kind} cells, which {geometry.name} has not: export for showers"
        )
    return geometry.grid


def _finite(showers: Tensor) -> Tensor:
    """Showers (n, V), those that are not finite empty."""
    good = torch.isfinite(showers).all(dim=1, keepdim=True)
    return torch.where(good, showers, torch.zeros_like(showers))
