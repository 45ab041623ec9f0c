"""Points of a training whose weights were large, for the frozen sampler to be held against."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.samplers.base import Sampler


class Memory:
    """Points with the largest weights of each iteration, and the values of the integrand there.

    A peak that the frozen sampler hardly reaches shows in none of its own weights; but some point of the training may
    have met it.

    Parameters
    ----------
    dim, device
        Coordinates of the points, and where they are kept.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> memory = Memory(1, torch.device("cpu"))
    >>> memory.add(torch.tensor([[0.25], [0.75]]), torch.tensor([1.0, -3.0]), torch.tensor([1.0, -3.0]))
    >>> memory.met(UniformSampler(1))
    -3.0
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        self.x = torch.zeros(0, dim, dtype=torch.float64, device=device)
        self.f = torch.zeros(0, dtype=torch.float64, device=device)

    def add(self, x: Tensor, f: Tensor, weights: Tensor, most: int = tuning.REMEMBERED) -> None:
        """Of points x (n, dim) with values f (n,), keep those with the largest weights (n,); signs do not matter."""
        largest = torch.topk(weights.abs(), min(most, len(weights))).indices
        self.x = torch.cat([self.x, x[largest].to(self.x)])
        self.f = torch.cat([self.f, f[largest].to(self.f)])

    def met(self, sampler: Sampler) -> float:
        """The weight f/q of largest size that one of the points has under a sampler, a finite number; 0 for none."""
        log_q = sampler.log_prob(self.x)
        weights = torch.where(torch.isfinite(log_q), self.f * torch.exp(-log_q), 0.0).nan_to_num()
        return float(weights[weights.abs().argmax()]) if len(weights) else 0.0

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {"x": self.x, "f": self.f}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Hold the points whose state this is."""
        self.x, self.f = tensors["x"].to(self.x), tensors["f"].to(self.f)
