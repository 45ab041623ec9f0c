"""The survey of an integrand with several channels: a VEGAS grid for each group of them, and their shares."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.rng import Streams
from nisampler.density.channels import Multichannel
from nisampler.flows import CouplingConfig
from nisampler.flows.grid_start import resampled
from nisampler.flows.grouped import GridSpline
from nisampler.samplers.multichannel import ChannelModel, MultichannelSampler
from nisampler.samplers.shares import followed
from nisampler.training.survey import Survey, even, refined


class ChannelSurvey(Survey):
    """A grid for each group of channels, and a share for each channel.

    >>> class Whole:
    ...     name, dim = "whole", 1
    ...     def forward(self, u):
    ...         return u, torch.zeros_like(u[:, 0])
    >>> function = Multichannel(lambda x: x[:, 0], [Whole(), Whole()], prior=lambda x: torch.zeros(len(x), 2))
    >>> survey = ChannelSurvey(function, torch.device("cpu"))
    >>> survey.share, survey.invertible
    (tensor([0.5000, 0.5000], dtype=torch.float64), False)
    """

    starts_in_bins = True

    def __init__(self, function: Multichannel, device: torch.device) -> None:
        super().__init__(function, device)
        self.channels, self.dim, self.groups = function, function.dim, function.groups
        count = len(self.groups)
        self.share = torch.full((count,), 1.0 / count, dtype=torch.float64, device=device)
        self.nodes: list[Tensor] = []

    @property
    def invertible(self) -> bool:
        return self.channels.invertible

    def flow(self, config: CouplingConfig, streams: Streams, learned_weights: bool) -> MultichannelSampler:
        features = self.channels.feature_count(self.device) if learned_weights else 0
        generator = streams.generator("weights", config.net.fourier)
        sampler = MultichannelSampler.create(self.dim, self.groups, features, config, generator, self.device)
        sampler.standardise(self.channels, streams.generator("features", device=self.device))
        sampler.model.share.copy_(self.share)
        return sampler

    def sampler(self) -> MultichannelSampler:
        return MultichannelSampler(self.dim, self.groups, ChannelModel(self.share), self._grid(smooth=False))

    def plain(self) -> MultichannelSampler:
        return MultichannelSampler(self.dim, self.groups, ChannelModel(self._equal()))

    def under_flow(self) -> MultichannelSampler | None:
        """Smooth splines through the nodes of the grids; the shares belong to the flow."""
        grid = self._grid(smooth=True)
        return None if grid is None else MultichannelSampler(self.dim, self.groups, ChannelModel(self._equal()), grid)

    def _equal(self) -> Tensor:
        return torch.full_like(self.share, 1.0 / len(self.groups))

    def refine(self, u: Tensor, weights: Tensor, most_increments: int) -> None:
        channel = self.sampler().latent_channel(u)
        group = torch.tensor(self.groups, device=u.device)[channel]
        size = weights * self.share[channel]
        grids = []
        for index in range(max(self.groups) + 1):
            mine = group == index
            nodes = self.nodes[index] if self.nodes else None
            grids.append(refined(nodes, u[mine, 1:], size[mine], most_increments))
        most = max(nodes.shape[1] for nodes in grids) - 1
        self.nodes = [resampled(nodes, most).to(self.device) for nodes in grids]
        self.share, self.found = followed(self.share, channel, weights), True

    def grids(self) -> Tensor:
        if self.nodes:
            return torch.stack(self.nodes)
        return even(self.dim - 1).expand(max(self.groups) + 1, -1, -1)

    def state(self) -> dict[str, Tensor]:
        return {"share": self.share} | ({"nodes": torch.stack(self.nodes)} if self.nodes else {})

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.share = tensors["share"].to(self.device)
        self.nodes = list(tensors["nodes"].to(self.device)) if "nodes" in tensors else []
        self.found = bool(self.nodes)

    def _grid(self, smooth: bool) -> GridSpline | None:
        if not self.nodes:
            return None
        nodes = self.grids()
        return GridSpline(resampled(nodes, tuning.CELLS_UNDER_FLOW) if smooth else nodes, smooth)
