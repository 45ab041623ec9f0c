"""Flows as samplers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from nisampler.errors import StorageError
from nisampler.flows import CouplingConfig, CouplingTransform, Flow, NetConfig, Spline, coupling_flow
from nisampler.flows.grid_start import start_from_grid
from nisampler.samplers.base import State
from nisampler.samplers.trainable import TrainableSampler


class FlowSampler(TrainableSampler):
    """A flow on the unit cube, such as a coupling flow (2001.05486).

    Points pass through the network and the splines in the dtype of the weights (float32 unless converted), so the
    density of a point is known to about 1e-6 relative in float32.

    Parameters
    ----------
    flow
        Over the unit cube.
    config
        What a coupling flow was made of; None for a flow of one's own.

    Examples
    --------
    >>> config = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=1))
    >>> FlowSampler.create(2, config, torch.Generator()).describe()
    'flow (2 blocks, 1x8, 4 bins)'
    """

    kind = "flow"

    def __init__(self, flow: Flow, config: CouplingConfig | None = None) -> None:
        self.flow = flow
        self.config = config
        self.dim = flow.dim

    @classmethod
    def create(
        cls, dim: int, config: CouplingConfig, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> FlowSampler:
        """A fresh flow, the identity at the start, in evaluation mode."""
        return cls(coupling_flow(dim, config, generator=generator).to(device).eval(), config)

    @property
    def model(self) -> nn.Module:
        return self.flow

    def log_q(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    def start_from(self, nodes: Tensor) -> None:
        start_from_grid(self.flow, nodes)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_q = self.flow.from_latent(u.to(self.dtype))
        return x.double(), log_q.double()

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_q = self.flow.to_latent(x.to(self.dtype))
        return u.double(), log_q.double()

    def cost(self, costs: Mapping[str, float]) -> float:
        return costs["flow"]

    def describe(self) -> str:
        if self.config is None:
            return f"flow of its own making ({type(self.flow.transform).__name__})"
        net, spline = self.config.net, self.config.spline
        extra = f", {net.fourier} Fourier features" if net.fourier else ""
        blocks = sum(isinstance(module, CouplingTransform) for module in self.flow.modules())
        return f"flow ({blocks} blocks, {net.layers}x{net.hidden}, {spline.bins} bins{extra})"

    def state(self) -> State:
        if self.config is None:
            raise StorageError("a sampler from a flow of one's own cannot be stored: keep the flow itself")
        return dict(self.flow.state_dict()), {
            "kind": self.kind,
            "dim": self.dim,
            "config": dataclasses.asdict(self.config),
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        config = coupling_config(meta["config"])
        weight = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
        flow = coupling_flow(meta["dim"], config).to(weight.device, weight.dtype)
        flow.load_state_dict(dict(tensors))
        return cls(flow.eval(), config)


def coupling_config(settings: Mapping[str, Any]) -> CouplingConfig:
    """The configuration whose `dataclasses.asdict` this is.

    >>> config = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=1))
    >>> coupling_config(dataclasses.asdict(config)) == config
    True
    """
    parts = {"spline": Spline(**settings["spline"]), "net": NetConfig(**settings["net"])}
    return CouplingConfig(**{**settings, **parts})
