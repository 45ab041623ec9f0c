"""The best weights of channels for given proposals, which cost an evaluation of every channel for each point."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.density.channels import Multichannel
from nisampler.density.maps import channel_coordinate
from nisampler.samplers.base import Sampler


class MixtureWeights:
    """α_i = s_i g_i q_i / Σ_j s_j g_j q_j: the weights under which every divergence of a given sampler is least.

    With them the weight of a point is f / Σ_j s_j g_j q_j, whatever channel made it. The price is one evaluation of
    all maps and flows for each point.

    Parameters
    ----------
    sampler
        Whose shares s and flows q to use.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> class Whole:
    ...     name, dim = "whole", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros_like(u[:, 0])
    ...     inverse = forward
    >>> function, weights = Multichannel(lambda x: x[:, 0], [Whole(), Whole()]), MixtureWeights(UniformSampler(2))
    >>> weights.log_alpha(function, torch.tensor([[0.5]]), torch.tensor([1]), torch.zeros(1)).exp()
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def log_alpha(self, function: Multichannel, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """log α (n, K), float64, a function of x alone."""
        count = len(function.channels)
        cube, density = function.inverses(x)
        index = torch.arange(count, device=x.device).repeat_interleave(len(x))
        first = channel_coordinate(index, torch.full_like(index, 0.5, dtype=torch.float64), count)
        log_q = self.sampler.log_prob(torch.cat([first.unsqueeze(1), cube.flatten(0, 1)], 1)).view(count, -1).t()
        place = channel.unsqueeze(1)
        own = density.gather(1, place)  # at the edge of its own channel rounding may put a point outside
        density = density.scatter(1, place, torch.where(own == -torch.inf, log_g.unsqueeze(1), own))
        return torch.log_softmax(density + log_q, 1)
