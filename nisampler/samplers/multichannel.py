"""Sampling through several channels: a share, a VEGAS grid and a flow for each, and learned channel weights.

The first coordinate of the cube chooses the channel (see `nisampler.density.channels.Multichannel`), the others are
those of the channel's own cube. The sampler is therefore a map of the cube like any other, with an honest density.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.density.channels import (
    ChannelValues,
    ChannelWeights,
    Multichannel,
    channel_coordinate,
    channel_of,
    multichannel_of,
)
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.flows import CouplingConfig
from nisampler.flows.grouped import GridSpline, GroupedFlow
from nisampler.samplers.base import READERS, Sampler, State, coupling_config

# Least share of a channel in units of an equal one, and how fast shares follow what is found.
_LEAST_SHARE, _FOLLOW = 0.1, 0.5
# Points that the scales of features are taken from.
_SCALE_POINTS = 4096
# Least share for unweighting, in the same units.
_RARE_SHARE = 0.01


class ChannelModel(nn.Module):
    """What is trained of a multichannel sampler: its flows, its channel weights, and the shares of the channels."""

    share: Tensor

    def __init__(self, share: Tensor, flow: GroupedFlow | None = None, weights: ChannelWeights | None = None) -> None:
        super().__init__()
        self.flow, self.weights = flow, weights
        self.register_buffer("share", share.to(torch.float64, copy=True))


class MixtureWeights:
    """α_i = s_i g_i q_i / Σ_j s_j g_j q_j: the weights under which every divergence of a given sampler is least.

    With them the weight of a point is f / Σ_j s_j g_j q_j, whatever channel made it. The price is one evaluation of
    all maps and flows for each point.

    Parameters
    ----------
    sampler
        Whose shares s and flows q to use.
    """

    def __init__(self, sampler: MultichannelSampler) -> None:
        self.sampler = sampler

    def log_alpha(self, function: Multichannel, x: Tensor, channel: Tensor, log_g: Tensor) -> Tensor:
        """log α (n, K), float64, a function of x alone."""
        count = len(function.channels)
        cube, log_density = zip(*(member.inverse(x) for member in function.channels), strict=True)
        index = torch.arange(count, device=x.device).repeat_interleave(len(x))
        first = channel_coordinate(index, torch.full_like(index, 0.5, dtype=torch.float64), count)
        log_q = self.sampler.log_prob(torch.cat([first.unsqueeze(1), torch.cat(cube)], 1)).view(count, -1).t()
        density, place = torch.stack(log_density, 1), channel.unsqueeze(1)
        own = density.gather(1, place)  # at the edge of its own channel rounding may put a point outside
        density = density.scatter(1, place, torch.where(own == -torch.inf, log_g.unsqueeze(1), own))
        return torch.log_softmax(density + log_q, 1)


class MultichannelSampler(Sampler):
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
    """

    kind = "multichannel"

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
        self.dim, self.groups, self.model, self.grid, self.config = dim, tuple(groups), model, grid, config
        self.mixture = mixture
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
    def channels(self) -> int:
        """Number of channels K."""
        return len(self.groups)

    @property
    def device(self) -> torch.device:
        return self.model.share.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and points inside the flows."""
        return next((p.dtype for p in self.model.parameters()), torch.float64)

    @property
    def share(self) -> Tensor:
        """Probability of each channel (K,), float64."""
        return self.model.share

    @property
    def extra(self) -> int:
        """Number of columns that `observe` adds to a stored point."""
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

        def value(points: Tensor) -> Tensor:
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
            u = torch.rand(_SCALE_POINTS, self.dim, generator=generator, dtype=torch.float64, device=self.device)
            self.model.weights.standardise(function.checked_features(function.points(u)[1]).to(self.dtype))

    def freeze_channels(self, frozen: bool) -> None:
        """Whether the channel weights stand still in the training from here."""
        if self.model.weights is not None:
            self.model.weights.requires_grad_(not frozen)

    def learn_shares(self, channel: Tensor, weights: Tensor, least: float = _LEAST_SHARE) -> None:
        """Move the shares towards those of least variance (2311.01548): s_i ∝ s_i √⟨w²⟩_i.

        `weights` (n,) are those of points that this sampler drew in each channel (n,) with its present shares. No share
        falls below `least` times an equal one.
        """
        count = torch.bincount(channel, minlength=self.channels).clamp(min=1)
        square = torch.zeros_like(self.share).index_add_(0, channel, weights.double() ** 2) / count
        size = self.share * square.sqrt()
        if not float(size.sum()) > 0.0:
            return
        active = self.share > 0.0
        share = torch.where(active, _FOLLOW * size / size.sum() + (1.0 - _FOLLOW) * self.share, 0.0)
        self.model.share.copy_(torch.where(active, (1.0 - least) * share + least / float(active.sum()), 0.0))

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

    def dispensable(
        self, stored: Tensor, extra: Tensor, drawn: Tensor, weights: Tensor, fraction: float
    ) -> tuple[Tensor, float]:
        """Mask (K,) of channels that together carry at most `fraction` of the integral, and what they carry.

        Weights f/q (n,) of points drawn in these channels (n,) tell the parts of the integral. No channel is among
        them that made a stored point, with f > 0 and these extra columns, where no remaining one has prior weight.
        """
        size = torch.zeros_like(self.share).index_add_(0, drawn, weights.double().abs())
        part = size / size.sum()
        order = torch.argsort(part)
        small = torch.zeros_like(part, dtype=torch.bool)
        small[order] = part[order].cumsum(0) <= fraction
        small &= self.share > 0.0
        channel, prior = self.channel(stored), extra[:, : self.channels]
        for index in torch.nonzero(small).squeeze(1).tolist():
            others = prior[channel == index].masked_fill(small | (self.share == 0.0), -torch.inf)
            small[index] = bool((others > -torch.inf).any(1).all())
        return small, float(part[small].sum())

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
            moved, part = self.model.flow.from_latent(inner.to(self.dtype), group)
            inner, log_q = moved.double(), log_q + part.double()
        if self.grid is not None:
            inner, part = self.grid.map(inner, group)
            log_q = log_q + part
        first = channel_coordinate(channel, position, self.channels)
        return torch.cat([first.unsqueeze(1), inner], 1), log_q

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channel, edges = self.channel(x), self._edges()
        position = (x[:, 0] * self.channels - channel).clamp(0.0, 1.0)
        log_q, inner = self._log_share()[channel], x[:, 1:]
        group = self._group[channel]
        if self.grid is not None:
            inner, part = self.grid.unmap(inner, group)
            log_q = log_q + part
        if self.model.flow is not None:
            moved, part = self.model.flow.to_latent(inner.to(self.dtype), group)
            inner, log_q = moved.double(), log_q + part.double()
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
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        weights = self.model.weights
        meta: dict[str, Any] = {
            "kind": self.kind,
            "dim": self.dim,
            "groups": list(self.groups),
            "mixture": self.mixture,
            "features": 0 if weights is None else len(weights.shift),
            "config": None if self.config is None else dataclasses.asdict(self.config),
        }
        if self.grid is not None:
            tensors["nodes"] = self.grid.nodes
            meta["smooth"] = self.grid.smooth
        return tensors, meta


def _from_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Sampler:
    grid = GridSpline(tensors["nodes"], meta["smooth"]) if "nodes" in tensors else None
    own = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    groups, share = meta["groups"], own["share"]
    if meta["config"] is None:
        return MultichannelSampler(meta["dim"], groups, ChannelModel(share), grid, mixture=meta["mixture"])
    config = coupling_config(meta["config"])
    features, generator = meta["features"], torch.Generator().manual_seed(0)
    model = MultichannelSampler.create(meta["dim"], groups, features, config, generator).model
    for part in model.children():
        part.to(next(t.dtype for name, t in own.items() if name.startswith("flow.") and t.is_floating_point()))
    model.load_state_dict(own)
    return MultichannelSampler(meta["dim"], groups, model.to(share.device), grid, config, meta["mixture"])


READERS[MultichannelSampler.kind] = _from_state


def best_shares(sampler: MultichannelSampler, channel: Tensor, weights: Tensor, fraction: float = 1e-3) -> Tensor:
    """Shares (K,) under which a fraction `fraction` of the integral lies above w_max and the efficiency is highest.

    w_max times the share of a channel is the largest weight that the channel is allowed. The sum of these is least if
    the same fraction of all points lies above it in each channel; that common quantile is found by bisection.
    `weights` (n,) are those of points that the sampler drew in each channel (n,) with its present shares.
    """
    size = weights.double().abs()
    own = [
        (size[channel == index] * float(share)).sort().values if float(share) > 0.0 else size[:0]
        for index, share in enumerate(sampler.share)
    ]
    total = sum(float(part.mean()) for part in own if len(part))

    def limits(rank: float) -> tuple[Tensor, float]:
        """Largest allowed s_i w of each channel if a fraction `rank` of its points exceeds it, and what exceeds it."""
        largest, beyond = torch.zeros_like(sampler.share), 0.0
        for index, part in enumerate(own):
            if len(part):
                above = min(int(rank * len(part)), len(part) - 1)
                largest[index] = part[len(part) - 1 - above]
                beyond += float(part[len(part) - above :].sum()) / len(part)
        return largest, beyond

    low, high = 0.0, 0.5
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if limits(middle)[1] <= fraction * total else (low, middle)
    share = limits(low)[0]
    if not float(share.sum()) > 0.0:
        return sampler.share.clone()
    # zeros at a few points do not prove that a channel has nothing
    least = _RARE_SHARE * float(share.sum()) / len(share)
    share = torch.where(sampler.share > 0.0, share.clamp(min=least), 0.0)
    return share / share.sum()
