"""Sampling through several channels: a share, a VEGAS grid and a flow for each, and learned channel weights.

The first coordinate of the cube chooses the channel (see `nisampler.density.channels.Multichannel`), the others are
those of the channel's own cube. The sampler is therefore a map of the cube like any other, with an honest density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from nisampler.base import tuning
from nisampler.base.checkpoints import part, prefixed
from nisampler.base.checks import from_data, to_data
from nisampler.density.channels import ChannelValues, ChannelWeights, Multichannel, multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.density.maps import channel_coordinate, channel_of
from nisampler.errors import ConfigError
from nisampler.flows import CouplingConfig
from nisampler.flows.grid_start import start_from_grid
from nisampler.flows.grouped import GridSpline, GroupedFlow
from nisampler.samplers.base import Sampler, State
from nisampler.samplers.mixture import MixtureWeights
from nisampler.samplers.shares import best_shares, dispensable, followed
from nisampler.samplers.trainable import TrainableSampler


class ChannelModel(nn.Module):
    """What is trained of a multichannel sampler: its flows, its channel weights, and the shares of the channels.

    >>> ChannelModel(torch.tensor([0.5, 0.5])).share
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    share: Tensor

    def __init__(self, share: Tensor, flow: GroupedFlow | None = None, weights: ChannelWeights | None = None) -> None:
        super().__init__()
        self.flow, self.weights = flow, weights
        self.register_buffer("share", share.to(torch.float64, copy=True))


class MultichannelSampler(TrainableSampler):
    """Draws a channel by its share, and a point of its cube from the channel's flow on top of its VEGAS grid.

    Parameters
    ----------
    dim
        1 + d: the coordinate that chooses the channel, and the d of the channels.
    groups
        For each channel, which flow and grid it uses.
    model
        Shares (K,), flows and channel weights.
    grid
        VEGAS grids under the flows; the bare cube by default.
    config
        Of the flows.
    mixture
        Bring `MixtureWeights` to the integrand instead of the learned channel weights.

    Examples
    --------
    >>> sampler = MultichannelSampler(2, (0, 1), ChannelModel(torch.tensor([0.2, 0.8])))
    >>> x, log_q = sampler.sample(1000, torch.Generator().manual_seed(1))
    >>> bool((sampler.channel(x) == 1).double().mean() > 0.7)
    True
    """

    kind = "multichannel"
    model: ChannelModel

    def __init__(
        self,
        dim: int,
        groups: Sequence[int],
        model: ChannelModel,
        grid: GridSpline | None = None,
        config: CouplingConfig | None = None,
        mixture: bool = False,
    ) -> None:
        if model.share.shape != (len(groups),) or (model.flow is None) != (config is None):
            raise ConfigError(f"a multichannel sampler needs a share for each of {len(groups)} channels")
        if not (bool((model.share >= 0.0).all()) and 0.0 < float(model.share.sum()) < torch.inf):
            raise ConfigError(f"shares of channels must be finite and not negative, got {model.share.tolist()}")
        flows = set() if model.flow is None else {model.flow.groups}
        flows |= set() if grid is None else {len(grid.nodes)}
        if min(groups) < 0 or flows - {max(groups) + 1}:
            raise ConfigError(f"groups {list(groups)} do not fit the numbers of flows and grids, {sorted(flows)}")
        self.dim, self.groups, self.grid, self.config = dim, tuple(groups), grid, config
        self.model, self.mixture, self.channels = model, mixture, len(groups)
        self._group = torch.tensor(self.groups, device=self.device)

    @classmethod
    def create(
        cls,
        dim: int,
        groups: Sequence[int],
        features: int,
        config: CouplingConfig,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> MultichannelSampler:
        """Fresh flows, the identity at the start, channel weights at their prior, and equal shares."""
        count = len(groups)
        flow = GroupedFlow(dim - 1, max(groups) + 1, config, generator=generator)
        weights = ChannelWeights(count, features, generator=generator) if features else None
        model = ChannelModel(torch.full((count,), 1.0 / count), flow, weights)
        return cls(dim, groups, model.to(device).eval(), config=config)

    @property
    def device(self) -> torch.device:
        return self.model.share.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights of the flows."""
        return next((p.dtype for p in self.model.parameters()), torch.float64)

    @property
    def share(self) -> Tensor:
        """Probability of each channel (K,), float64."""
        return self.model.share

    @property
    def extra(self) -> int:  # type: ignore[override]
        """Number of columns that `observe` adds to a stored point: log prior weights and features."""
        weights = self.model.weights
        return 0 if weights is None else self.channels + len(weights.shift)

    def channel(self, x: Tensor) -> Tensor:
        """The channel (n,) of points x (n, dim)."""
        return channel_of(x[:, 0], self.channels)

    def latent_channel(self, u: Tensor) -> Tensor:
        """The channel (n,) of latent points u (n, dim)."""
        edges = self._edges()[1:]
        last = (edges < 1.0).sum()  # the last channel with a share, which u_0 = 1 belongs to
        return torch.searchsorted(edges[:-1], u[:, 0].contiguous(), right=True).clamp(max=last)

    def view(self, integrand: Integrand) -> Integrand:
        found = multichannel_of(integrand.function)
        weights = MixtureWeights(self) if self.mixture else self.model.weights
        if found is None or weights is None:
            return integrand
        return integrand.view(found.with_weights(weights))

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform latent points (n, dim), stratified in the coordinate that chooses the channel."""
        u = torch.rand(n, self.dim, generator=generator, dtype=torch.float64, device=self.device)
        u[:, 0] = (torch.arange(n, dtype=torch.float64, device=self.device) + u[:, 0]) / n
        return u

    def observe(self, integrand: Integrand, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values before channel weights (n,); log prior weights and features (n, extra)."""
        function = multichannel_of(integrand.function)
        if function is None or self.model.weights is None:
            return integrand(x), x.new_zeros(x.shape[0], 0)
        found: list[ChannelValues] = []

        def value(points: Tensor) -> Any:
            found.append(function.evaluate(points))
            return found[0].value

        f = integrand.view(value)(x)
        return f, torch.cat([found[0].log_prior, found[0].features.double()], 1)

    def log_q(self, x: Tensor) -> Tensor:
        """log q(x) (n,) in the dtype of x, differentiable in the flows' parameters."""
        channel = self.channel(x)
        log_q = self._log_share()[channel].to(x.dtype)
        if self.model.flow is not None:
            log_q = log_q + self.model.flow.log_prob(x[:, 1:], self._group[channel])
        return log_q

    def target(self, x: Tensor, f: Tensor, extra: Tensor) -> Tensor:
        """α |f| (n,), differentiable in the channel weights."""
        if self.model.weights is None:
            return f
        log_alpha: Tensor = self.model.weights(extra[:, self.channels :], extra[:, : self.channels])
        return f * log_alpha.gather(1, self.channel(x).unsqueeze(1)).squeeze(1).exp().to(f.dtype)

    def standardise(self, function: Multichannel, generator: torch.Generator) -> None:
        """Adapt the scales of the weight network to features of points of the bare channels."""
        if self.model.weights is not None:
            u = torch.rand(
                tuning.FEATURE_POINTS, self.dim, generator=generator, dtype=torch.float64, device=self.device
            )
            self.model.weights.standardise(function.checked_features(function.points(u)[1]).to(self.dtype))

    def freeze_channels(self, frozen: bool) -> None:
        """Whether the channel weights stand still in the training from here."""
        if self.model.weights is not None:
            self.model.weights.requires_grad_(not frozen)

    def learn_shares(self, x: Tensor, weights: Tensor, least: float = tuning.LEAST_SHARE) -> None:
        """Move the shares towards those of least variance, see `nisampler.samplers.shares.followed`.

        `weights` (n,) are those of points x (n, dim) that this sampler drew with its present shares. No share falls
        below `least` times an equal one.
        """
        self.model.share.copy_(followed(self.share, self.channel(x), weights, least))

    def start_from(self, nodes: Tensor) -> None:
        start_from_grid(self.model, nodes)

    def on(self, base: Sampler | None) -> MultichannelSampler:
        """These flows on top of the grids of another multichannel sampler with equal shares."""
        grid = base.grid if isinstance(base, MultichannelSampler) else None
        return MultichannelSampler(self.dim, self.groups, self.model, grid, self.config)

    def with_shares(self, share: Tensor) -> MultichannelSampler:
        """The same flows and learned weights with other shares (K,)."""
        model = ChannelModel(share / share.sum(), self.model.flow, self.model.weights)
        return MultichannelSampler(self.dim, self.groups, model, self.grid, self.config)

    def with_mixture(self) -> MultichannelSampler:
        """The same sampler, bringing `MixtureWeights`."""
        return MultichannelSampler(self.dim, self.groups, self.model, self.grid, self.config, mixture=True)

    def variants(self) -> list[Sampler]:
        return [self.with_mixture()]

    def for_unweighting(self, u: Tensor, weights: Tensor) -> tuple[Sampler, Tensor] | None:
        if self.mixture:
            return None
        channel, half = self.latent_channel(u), len(u) // 2
        share = best_shares(self.share, channel[:half], weights[:half])
        ratio = torch.where(self.share > 0.0, share / self.share, 1.0)[channel[half:]]
        return (self.with_shares(share), ratio) if bool((ratio > 0.0).all()) else None

    def cost(self, costs: Mapping[str, float]) -> float:
        once = costs["grid" if self.config is None else "flow"]
        return once * (1 + self.channels) if self.mixture else once

    def drop_channels(
        self, integrand: Integrand, stored: Sequence[Tensor], x: Tensor, weights: Tensor, fraction: float
    ) -> str:
        function, inside = multichannel_of(integrand.function), stored[1] > 0.0
        if function is None or self.model.weights is None:
            return ""
        seen, prior = self.channel(stored[0][inside]), stored[3][inside, : self.channels]
        chosen, lost = dispensable(self.share, (seen, prior), (self.channel(x), weights), fraction)
        if not bool(chosen.any()):
            return ""
        self.drop(chosen)
        names = [name for name, gone in zip(function.names, chosen.tolist(), strict=True) if gone]
        return (
            f"{len(names)} of {self.channels} channels were dropped: {', '.join(names)}; together they had "
            f"{100.0 * lost:.2g} % of the integral, which the others took over"
        )

    def drop(self, channels: Tensor) -> None:
        """Never use the channels of this mask (K,) again; the others take over their part of the integral."""
        if self.model.weights is None:
            raise ConfigError("only learned channel weights can drop a channel: the others must take over its part")
        self.model.weights.drop(channels)
        share = torch.where(channels, 0.0, self.share)
        self.model.share.copy_(share / share.sum())

    def _edges(self) -> Tensor:
        total = self.share.cumsum(0)
        return torch.cat([total.new_zeros(1), total / total[-1]])

    def _log_share(self) -> Tensor:
        return torch.log(self.share * self.channels)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        channel, edges = self.latent_channel(u), self._edges()
        low = edges[channel]
        position = (u[:, 0] - low) / (edges[channel + 1] - low).clamp(min=torch.finfo(torch.float64).tiny)
        log_q, inner = self._log_share()[channel], u[:, 1:]
        group = self._group[channel]
        if self.model.flow is not None:
            inner, log_flow = self.model.flow.from_latent(inner, group)
            log_q = log_q + log_flow
        if self.grid is not None:
            inner, log_grid = self.grid.map(inner, group)
            log_q = log_q + log_grid
        first = channel_coordinate(channel, position, self.channels)
        return torch.cat([first.unsqueeze(1), inner], 1), log_q

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channel, edges = self.channel(x), self._edges()
        position = (x[:, 0] * self.channels - channel).clamp(0.0, 1.0)
        log_q, inner = self._log_share()[channel], x[:, 1:]
        group = self._group[channel]
        if self.grid is not None:
            inner, log_grid = self.grid.unmap(inner, group)
            log_q = log_q + log_grid
        if self.model.flow is not None:
            inner, log_flow = self.model.flow.to_latent(inner, group)
            log_q = log_q + log_flow
        first = torch.lerp(edges[channel], edges[channel + 1], position)
        return torch.cat([first.unsqueeze(1), inner], 1), log_q

    def describe(self) -> str:
        flows = max(self.groups) + 1
        used = int((self.share > 0.0).sum())
        parts = [f"{used} of {self.channels} channels" if used < self.channels else f"{used} channels"]
        if self.grid is not None:
            parts.append(f"{flows} VEGAS grids of {self.grid.nodes.shape[2] - 1} increments")
        if self.config is not None:
            net, spline = self.config.net, self.config.spline
            parts.append(f"{flows} flows {net.layers}x{net.hidden}, {spline.bins} bins")
        if self.mixture or self.model.weights is not None:
            parts.append("mixture weights" if self.mixture else "learned weights")
        return f"multichannel ({', '.join(parts)})"

    def state(self) -> State:
        tensors = prefixed(self.model.state_dict(), "model.")
        weights = self.model.weights
        meta: dict[str, Any] = {
            "kind": self.kind,
            "dim": self.dim,
            "groups": list(self.groups),
            "mixture": self.mixture,
            "features": 0 if weights is None else len(weights.shift),
            "config": None if self.config is None else to_data(self.config),
        }
        if self.grid is not None:
            tensors["nodes"] = self.grid.nodes
            meta["smooth"] = self.grid.smooth
        return tensors, meta

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        grid = GridSpline(tensors["nodes"], meta["smooth"]) if "nodes" in tensors else None
        own = part(tensors, "model.")
        dim, groups, share = meta["dim"], meta["groups"], own["share"]
        if meta["config"] is None:
            return cls(dim, groups, ChannelModel(share), grid, mixture=meta["mixture"])
        config = from_data(CouplingConfig, meta["config"])
        model = cls.create(dim, groups, meta["features"], config, torch.Generator().manual_seed(0)).model
        flows = part(own, "flow.")
        for member in model.children():
            member.to(next(tensor.dtype for tensor in flows.values() if tensor.is_floating_point()))
        model.load_state_dict(own)
        return cls(dim, groups, model.to(share.device), grid, config, meta["mixture"])
