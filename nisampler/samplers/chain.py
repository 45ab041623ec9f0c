"""Samplers one behind the other, which are a sampler again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from nisampler.base.checkpoints import part, prefixed
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.samplers.base import Sampler, State
from nisampler.samplers.registry import sampler_from_state


class ChainSampler(Sampler):
    """x = s_0(s_1(... s_k(u))): each sampler works in the latent cube of the one before it.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> ChainSampler([UniformSampler(2), UniformSampler(2)]).describe()
    'uniform + uniform'
    """

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
            tensors |= prefixed(own, f"{index}.")
            parts.append(meta)
        return tensors, {"kind": self.kind, "dim": self.dim, "parts": parts}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        return cls([sampler_from_state(part(tensors, f"{index}."), own) for index, own in enumerate(meta["parts"])])

    @property
    def mixture(self) -> bool:  # type: ignore[override]
        """Whether every channel is evaluated for each point."""
        return any(sampler.mixture for sampler in self.samplers)

    def cost(self, costs: Mapping[str, float]) -> float:
        return sum(sampler.cost(costs) for sampler in self.samplers)


def chain(*samplers: Sampler | None) -> Sampler:
    """The samplers that are given, in a chain if there are several.

    >>> from nisampler.samplers.base import UniformSampler
    >>> chain(None, UniformSampler(2)).describe()
    'uniform'
    """
    present = [sampler for sampler in samplers if sampler is not None]
    return present[0] if len(present) == 1 else ChainSampler(present)
