"""What tests of small shower models share: showers of a simple law, disturbed flows, a short training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models import ModelPart


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def profile_showers(geometry: Geometry, n: int, seed: int) -> Showers:
    """About 0.7 of the incident energy, shared at random around a profile that falls with the radius; gaps too."""
    rng = np.random.default_rng(seed)
    incident = geometry.incident.sample(n, rng)
    radii = np.concatenate([layer.radii() for layer in geometry.layers])
    shares = np.exp(-2 * radii - geometry.layer_of_voxel) * rng.gamma(0.4, size=(n, geometry.n_voxels))
    total = 0.7 * incident * np.exp(0.1 * rng.standard_normal(n))
    voxels = total[:, None] * shares / shares.sum(1, keepdims=True)
    return Showers(incident, np.where(voxels < geometry.threshold, 0.0, voxels))


def tensors(data: Showers) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.voxels), torch.from_numpy(data.incident).float()


def disturb(module: nn.Module, scale: float, seed: int = 3) -> None:
    """Flows that start as the identity become some other ones."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype)


def learn(part: ModelPart, voxels: Tensor, incident: Tensor, steps: int, rate: float = 5e-3, size: int = 200) -> None:
    """Train a part with batches of `size`."""
    optimizer = torch.optim.Adam(part.module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    source = generator(4)
    part.module.train()
    for _ in range(steps):
        rows = torch.randint(len(voxels), (size,), generator=source)
        loss = part.loss(voxels[rows], incident[rows], source)
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        schedule.step()
    part.module.eval()
