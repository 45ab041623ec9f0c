"""Flows as samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from nisampler.flows import CouplingConfig, CouplingTransform, Flow, coupling_flow
from nisampler.flows.grid_start import start_from_grid
from nisampler.samplers.base import State
from nisampler.samplers.trainable import TrainableSampler


class FlowSampler(TrainableSampler):
    """A flow on the unit cube, such as a coupling flow (2001.05486).

    Points are float64 and so are the splines that move them, whatever the dtype of the weights: the networks are
    evaluated in their own, float32 unless converted. Point and density come from the same splines.

    Parameters
    ----------
    flow
        Over the unit cube.

    Examples
    --------
    >>> from nisampler.flows import NetConfig, Spline
    >>> config = CouplingConfig(Spline(bins=4), NetConfig(hidden=8, layers=1))
    >>> FlowSampler(coupling_flow(2, config)).describe()
    'flow (2 blocks, 1x8, 4 bins)'
    """

    kind = "flow"

    def __init__(self, flow: Flow) -> None:
        self.flow = self.model = flow
        self.dim = flow.dim

    @classmethod
    def create(
        cls, dim: int, config: CouplingConfig, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> FlowSampler:
        """A fresh coupling flow, the identity at the start, in evaluation mode."""
        return cls(coupling_flow(dim, config, generator=generator).to(device).eval())

    def log_q(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    def start_from(self, nodes: Tensor) -> None:
        start_from_grid(self.flow, nodes)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.from_latent(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.to_latent(x)

    def cost(self, costs: Mapping[str, float]) -> float:
        return costs["flow"]

    def describe(self) -> str:
        name, made = self.flow.origin or ("", {})
        config = made.get("config")
        if not isinstance(config, CouplingConfig):
            return f"flow of its own making ({name or type(self.flow.transform).__name__})"
        net, spline = config.net, config.spline
        extra = f", {net.fourier} Fourier features" if net.fourier else ""
        blocks = sum(isinstance(module, CouplingTransform) for module in self.flow.modules())
        return f"flow ({blocks} blocks, {net.layers}x{net.hidden}, {spline.bins} bins{extra})"

    def state(self) -> State:
        tensors, meta = self.flow.blueprint()
        return tensors, {"kind": self.kind, "dim": self.dim, **meta}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        return cls(Flow.rebuild(tensors, meta))
