"""Samplers: invertible maps of the unit cube that know the density of every point they make.

A sampler takes uniform points u of the cube to points x with density q(x) = |du/dx|. All of them are twins behind
`Sampler`, so that every feature works with each of them, and a chain of samplers is a sampler again.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, CorruptFileError, DomainError, ShapeError
from nisampler.flows import CouplingConfig, CouplingTransform, Flow, NetConfig, Spline, coupling_flow
from nisampler.samplers.grid import VegasGrid
from nisampler.samplers.tree import DensityTree

State = tuple[dict[str, Tensor], dict[str, Any]]

_TILE = 8192


class Sampler(ABC):
    """A map of the unit cube onto itself together with the density it gives to its points.

    All points are float64 on `device`; densities come as log_q of shape (n,). No gradients are recorded.
    """

    kind: ClassVar[str]
    dim: int

    @abstractmethod
    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, dim), log q(x) (n,)."""

    @abstractmethod
    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, dim) -> u (n, dim), log q(x) (n,)."""

    @abstractmethod
    def state(self) -> State:
        """Tensors and JSON metadata from which `sampler_from_state` makes the same sampler."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where points are made."""

    def describe(self) -> str:
        """One line for a summary."""
        return self.kind

    def view(self, integrand: Integrand) -> Integrand:
        """The integrand as this sampler is to be used with it: a multichannel sampler brings its channel weights."""
        return integrand

    def map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Points x (n, dim) of the cube and their log density log q(x) (n,), from latent points u (n, dim).

        Raises
        ------
        ShapeError, DomainError
            If u is not (n, dim) or leaves the unit cube.
        """
        return self._tiled(self._map, u)

    def unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latent point u (n, dim) of each x (n, dim), and log q(x) (n,); raises as `map` does."""
        return self._tiled(self._unmap, x)

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x), shape (n,); raises as `map` does."""
        return self.unmap(x)[1]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n independent points: x (n, dim) and log q(x) (n,). The generator lives on `device`."""
        u = torch.rand(n, self.dim, generator=generator, dtype=torch.float64, device=self.device)
        return self.map(u)

    def _tiled(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], points: Tensor) -> tuple[Tensor, Tensor]:
        if points.dim() != 2 or points.shape[1] != self.dim:
            raise ShapeError(f"expected points of shape (n, {self.dim}), got {tuple(points.shape)}")
        points = points.to(self.device, torch.float64)
        if not bool(((points >= 0.0) & (points <= 1.0)).all()):
            raise DomainError(f"points of a {self.kind} sampler must lie in the unit cube")
        size = _TILE if self.device.type == "cpu" else max(1, points.shape[0])
        with torch.no_grad():
            parts = [function(tile) for tile in torch.split(points, size)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([x for x, _ in parts]), torch.cat([log_q for _, log_q in parts])


class UniformSampler(Sampler):
    """q = 1 on the cube: plain Monte Carlo."""

    kind = "uniform"

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.dim = dim
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, u.new_zeros(u.shape[0])

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x)

    def state(self) -> State:
        return {}, {"kind": self.kind, "dim": self.dim}


class VegasSampler(Sampler):
    """An adapted VEGAS grid: a product of one-dimensional piecewise-constant densities (Lepage, 2009.05112)."""

    kind = "vegas"

    def __init__(self, grid: VegasGrid) -> None:
        self.grid = grid
        self.dim = grid.dim

    @property
    def device(self) -> torch.device:
        return self.grid.nodes.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.unmap(x)

    def describe(self) -> str:
        return f"vegas ({self.grid.increments} increments)"

    def state(self) -> State:
        return {"nodes": self.grid.nodes}, {"kind": self.kind, "dim": self.dim}


class TreeSampler(Sampler):
    """A density tree: draws a leaf by its probability and a point uniformly in it."""

    kind = "tree"

    def __init__(self, tree: DensityTree) -> None:
        self.tree = tree
        self.dim = int(tree.low.shape[1])

    @property
    def device(self) -> torch.device:
        return self.tree.low.device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.tree.map(u)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.tree.unmap(x)

    def describe(self) -> str:
        return f"density tree ({self.tree.leaves} leaves)"

    def state(self) -> State:
        tree = self.tree
        tensors = {"low": tree.low, "high": tree.high, "probability": tree.probability}
        return tensors, {"kind": self.kind, "dim": self.dim}


class FlowSampler(Sampler):
    """A coupling flow on the unit cube (2001.05486).

    Points pass through the network and the splines in the dtype of the weights (float32 unless converted), so the
    density of a point is known to about 1e-6 relative in float32.
    """

    kind = "flow"

    def __init__(self, flow: Flow, config: CouplingConfig) -> None:
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
    def device(self) -> torch.device:
        return next(self.flow.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and points inside the flow."""
        return next(self.flow.parameters()).dtype

    @property
    def model(self) -> torch.nn.Module:
        """What is trained."""
        return self.flow

    @property
    def extra(self) -> int:
        """Number of columns that `observe` adds to a stored point."""
        return 0

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform latent points (n, dim) for training."""
        return torch.rand(n, self.dim, generator=generator, dtype=torch.float64, device=self.device)

    def observe(self, integrand: Integrand, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) of the integrand, and what else is to be stored with each point (n, extra)."""
        return integrand(x), x.new_zeros(x.shape[0], 0)

    def log_q(self, x: Tensor) -> Tensor:
        """log q(x) (n,) in the dtype of the weights, differentiable in the model's parameters."""
        return self.flow.log_prob(x)

    def target(self, x: Tensor, f: Tensor, extra: Tensor) -> Tensor:
        """What q is to learn (n,), from stored points x, |f| and extra columns: |f|."""
        return f

    def freeze_channels(self, frozen: bool) -> None:
        """Whether channel weights stand still from here: a single flow has none."""

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_q = self.flow.from_latent(u.to(self.dtype))
        return x.double(), log_q.double()

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_q = self.flow.to_latent(x.to(self.dtype))
        return u.double(), log_q.double()

    def on(self, base: Sampler | None) -> Sampler:
        """The flow in the latent cube of another sampler."""
        return chain(base, self)

    def describe(self) -> str:
        net, spline = self.config.net, self.config.spline
        extra = f", {net.fourier} Fourier features" if net.fourier else ""
        blocks = sum(isinstance(module, CouplingTransform) for module in self.flow.modules())
        return f"flow ({blocks} blocks, {net.layers}x{net.hidden}, {spline.bins} bins{extra})"

    def state(self) -> State:
        return dict(self.flow.state_dict()), {
            "kind": self.kind,
            "dim": self.dim,
            "config": dataclasses.asdict(self.config),
        }


class ChainSampler(Sampler):
    """x = s_0(s_1(... s_k(u))): each sampler works in the latent cube of the one before it."""

    kind = "chain"

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        if not samplers or len({sampler.dim for sampler in samplers}) != 1:
            raise ConfigError("a chain needs samplers of one and the same dimension")
        self.samplers = tuple(samplers)
        self.dim = samplers[0].dim

    @property
    def device(self) -> torch.device:
        return self.samplers[0].device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_q = u.new_zeros(u.shape[0])
        for sampler in reversed(self.samplers):
            u, part = sampler._map(u)
            log_q = log_q + part
        return u, log_q

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_q = x.new_zeros(x.shape[0])
        for sampler in self.samplers:
            x, part = sampler._unmap(x.clamp(0.0, 1.0))
            log_q = log_q + part
        return x, log_q

    def describe(self) -> str:
        return " + ".join(sampler.describe() for sampler in self.samplers)

    def view(self, integrand: Integrand) -> Integrand:
        for sampler in self.samplers:
            integrand = sampler.view(integrand)
        return integrand

    def state(self) -> State:
        tensors: dict[str, Tensor] = {}
        parts = []
        for index, sampler in enumerate(self.samplers):
            own, meta = sampler.state()
            tensors |= {f"{index}.{name}": tensor for name, tensor in own.items()}
            parts.append(meta)
        return tensors, {"kind": self.kind, "dim": self.dim, "parts": parts}


def chain(*samplers: Sampler | None) -> Sampler:
    """The samplers that are given, in a chain if there are several."""
    present = [sampler for sampler in samplers if sampler is not None]
    return present[0] if len(present) == 1 else ChainSampler(present)


def coupling_config(settings: Mapping[str, Any]) -> CouplingConfig:
    """The configuration whose `dataclasses.asdict` this is."""
    parts = {"spline": Spline(**settings["spline"]), "net": NetConfig(**settings["net"])}
    return CouplingConfig(**{**settings, **parts})


def _flow_from_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Sampler:
    config = coupling_config(meta["config"])
    flow = coupling_flow(meta["dim"], config)
    flow.to(next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()))
    flow.load_state_dict(dict(tensors))
    return FlowSampler(flow.eval(), config)


def _chain_from_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Sampler:
    parts = []
    for index, part in enumerate(meta["parts"]):
        prefix = f"{index}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        parts.append(sampler_from_state(own, part))
    return ChainSampler(parts)


Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Sampler]

READERS: dict[str, Reader] = {
    "uniform": lambda tensors, meta: UniformSampler(meta["dim"]),
    "vegas": lambda tensors, meta: VegasSampler(VegasGrid(tensors["nodes"])),
    "flow": _flow_from_state,
    "tree": lambda tensors, meta: TreeSampler(DensityTree(**tensors)),
    "chain": _chain_from_state,
}


def sampler_from_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Sampler:
    """The sampler whose `state` this is, on the device of the tensors.

    Raises
    ------
    CorruptFileError
        If the state describes no known sampler or does not fit its tensors.
    """
    try:
        sampler = READERS[meta["kind"]](tensors, meta)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise CorruptFileError(f"the stored sampler cannot be rebuilt: {error}") from error
    if isinstance(sampler, FlowSampler) and tensors:
        sampler.flow.to(next(iter(tensors.values())).device)
    return sampler
