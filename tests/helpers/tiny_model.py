"""A shower model of two parts with a handful of weights, which fits showers that are made here in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.calo.data.kinds import VOXELS
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError


def showers(geometry: Geometry, n: int, seed: int = 0) -> Showers:
    """E_tot/E_inc is log-normal around 0.7, voxels share it around a fixed profile."""
    rng = np.random.default_rng(seed)
    incident = geometry.incident.sample(n, rng)
    total = incident * 0.7 * np.exp(0.1 * rng.standard_normal(n))
    profile = np.exp(-5.0 * np.arange(geometry.n_voxels) / geometry.n_voxels)
    shape = profile * np.exp(0.5 * rng.standard_normal((n, geometry.n_voxels)))
    return Showers(incident, total[:, None] * shape / shape.sum(1, keepdims=True))


def write_file(path: Path, geometry: Geometry, n: int, seed: int = 0) -> Path:
    with ShowerWriter(path, geometry) as writer:
        writer.append(showers(geometry, n, seed))
    return path


class TinyPart:
    """What `nisampler.calo.recipe.Part` asks for."""

    def __init__(self, name: str, module: nn.Module, loss: Any) -> None:
        self.name, self.module, self.loss = name, module, loss
        self.recipe = Recipe(epochs=3, batch=50, learning_rate=0.05)
        self.layers, self.after = None, ()

    def begin(self) -> None:
        """Nothing to do."""


class Numbers(nn.Module):
    """Free numbers."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(n))


class TinyModel(nn.Module):
    """log-normal E_tot/E_inc, and the mean share of each voxel; `mean` is a constant of the preprocessing."""

    kind = VOXELS
    trained_energies = None

    def __init__(self, geometry: Geometry, broken: float = 0.0) -> None:
        super().__init__()
        self.geometry, self.config, self.broken = geometry, {"broken": broken}, broken
        self.symmetric = False
        self.total, self.shape = Numbers(2), Numbers(geometry.n_voxels)
        self.register_buffer("mean", torch.zeros(()))
        self.sizes: list[int] = []

    @property
    def parts(self) -> Sequence[TinyPart]:
        return TinyPart("total", self.total, self._total_loss), TinyPart("shape", self.shape, self._shape_loss)

    def turn(self, symmetric: bool) -> None:
        """Nothing to do."""

    def prepare(self, data: Showers, generator: torch.Generator) -> None:
        ratio = torch.as_tensor(data.voxels.sum(1) / data.incident)
        self.mean.copy_(ratio.log().mean())

    def finish(self, training: Any, generator: torch.Generator) -> None:
        """Nothing to do."""

    def _total_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        location, log_spread = self.total.values
        noise = 1e-3 * torch.randn(len(voxels), generator=generator, device=voxels.device)
        z = ((voxels.sum(1) / incident).log() + noise - self.mean - location) * torch.exp(-log_spread)
        return 0.5 * z**2 + log_spread + 0.5 * math.log(2 * math.pi)

    def _shape_loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        return -(voxels / voxels.sum(1, keepdim=True) * self.shape.values.log_softmax(0)).sum(1)

    @torch.inference_mode()
    def sample(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        self.sizes.append(len(incident))
        location, log_spread = self.total.values
        z = torch.randn(len(incident), generator=generator, device=incident.device)
        total = incident * torch.exp(self.mean + location + log_spread.exp() * z)
        broken = torch.rand(len(incident), generator=generator, device=incident.device) < self.broken
        return torch.where(broken, math.nan, total).unsqueeze(1) * self.shape.values.softmax(0)

    def generation_modules(self) -> Iterator[nn.Module]:
        yield self.total


def build(name: str | dict[str, Any], geometry: Geometry, seed: int = 1) -> TinyModel:
    if isinstance(name, str) and name not in ("tiny", "tiny-broken"):
        raise ModelError(f"no model is called {name!r}")
    broken = name["broken"] if isinstance(name, dict) else 0.5 * (name == "tiny-broken")
    return TinyModel(geometry, broken)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The files of a fitted model, but for those that tell the time."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".log", ".csv") and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
