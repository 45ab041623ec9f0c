"""What a training asks of a sampler, whatever it is made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from nisampler.density.integrand import Integrand
from nisampler.samplers.base import Sampler, State
from nisampler.samplers.chain import chain


class TrainableSampler(Sampler):
    """A sampler whose density comes from a torch module, which gradient steps improve.

    A subclass gives `model` and `log_q` besides `dim`, `_map` and `_unmap`. Everything else has a default that suits
    a sampler without channels, and that is made from its dimension alone (`state` and `from_state`).

    Attributes
    ----------
    model
        The module whose parameters are trained, and whose state is kept.
    extra
        Number of columns that `observe` adds to a stored point.
    channels
        Number of channels that share the integral.

    Examples
    --------
    >>> class Powers(TrainableSampler):
    ...     kind = "powers"
    ...     def __init__(self, dim):
    ...         self.dim, self.model = dim, nn.ParameterDict({"power": torch.zeros(dim)})
    ...     def log_q(self, x):
    ...         power = self.model["power"]
    ...         return (power + (power.exp() - 1.0) * torch.log(x)).sum(1)
    ...     def _map(self, u):
    ...         x = u ** torch.exp(-self.model["power"])
    ...         return x.double(), self.log_q(x).double()
    ...     def _unmap(self, x):
    ...         return (x ** torch.exp(self.model["power"])).double(), self.log_q(x).double()
    >>> Powers(1).log_prob(torch.tensor([[0.3]])).item()
    0.0
    """

    model: nn.Module
    extra: int = 0
    channels: int = 1

    def state(self) -> State:
        return dict(self.model.state_dict()), {"kind": self.kind, "dim": self.dim}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        sampler = cls(meta["dim"])  # type: ignore[call-arg]
        sampler.model.load_state_dict(dict(tensors))
        return sampler

    @abstractmethod
    def log_q(self, x: Tensor) -> Tensor:
        """log q(x) (n,) of points x (n, dim) in the dtype of the weights, differentiable in the model's parameters."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, and of the points inside the model."""
        return next(self.model.parameters()).dtype

    def latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Latent points (n, dim) for a batch of the training, uniform in the cube."""
        return torch.rand(n, self.dim, generator=generator, dtype=torch.float64, device=self.device)

    def observe(self, integrand: Integrand, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) of the integrand, and what else is to be stored with each point (n, extra)."""
        return integrand(x), x.new_zeros(x.shape[0], 0)

    def target(self, x: Tensor, f: Tensor, extra: Tensor) -> Tensor:
        """What q is to learn (n,), from stored points x, |f| and extra columns: |f|."""
        return f

    def on(self, base: Sampler | None) -> Sampler:
        """This sampler in the latent cube of another one."""
        return chain(base, self)

    def start_from(self, nodes: Tensor) -> None:
        """Begin as VEGAS grids with these nodes (groups, d, m + 1), if such a start is known."""

    def freeze_channels(self, frozen: bool) -> None:
        """Whether channel weights stand still from here; nothing to do without channels."""

    def learn_shares(self, x: Tensor, weights: Tensor, least: float) -> None:
        """Move the shares of the channels as points x (n, dim) and their weights (n,) advise; `least` bounds them."""

    def drop_channels(
        self,
        integrand: Integrand,
        stored: Sequence[Tensor],
        x: Tensor,
        weights: Tensor,
        fraction: float,
    ) -> str:
        """Drop the channels that together carry less than a fraction of the integral, for good.

        Parameters
        ----------
        integrand
            What is learned.
        stored
            Points that the buffer holds: x (m, dim), |f| (m,), log g (m,) and extra columns (m, extra).
        x, weights
            Fresh points (n, dim) and their weights (n,).
        fraction
            Of the integral.

        Returns
        -------
        str
            What was dropped, in words; empty for nothing.
        """
        return ""
