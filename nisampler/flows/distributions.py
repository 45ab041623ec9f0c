"""Base distributions of a flow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nisampler.base.checks import Coordinates, checked

_ROUNDING = 1e-6


def traced() -> bool:
    """Whether torch follows this code for all points at once, by compiling or vmap: no value may be looked at.

    >>> traced()
    False
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


class Base(nn.Module, ABC):
    """A density on the latent space that can be evaluated and sampled.

    Raises
    ------
    ConfigError
        If `dim` is less than one.

    Examples
    --------
    >>> base: Base = UniformCube(2)
    >>> base.sample(3, torch.Generator().manual_seed(1)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim: int = checked("dim", dim, Coordinates)

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at z (n, dim), shape (n,)."""

    @abstractmethod
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """`n` independent points, shape (n, dim)."""


class UniformCube(Base):
    """The uniform density on [0, 1]^d; minus infinity outside (beyond rounding).

    >>> UniformCube(2).log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
    tensor([0., -inf])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        zero = z.new_zeros(z.shape[0])
        if z.numel() and not traced():
            low, high = torch.aminmax(z.detach())  # ten times quicker than a look at every point
            if low >= -_ROUNDING and high <= 1 + _ROUNDING:
                return zero
        inside = ((z >= -_ROUNDING) & (z <= 1 + _ROUNDING)).all(dim=1)
        return torch.where(inside, zero, zero - math.inf)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return torch.rand(n, self.dim, generator=generator, device=device, dtype=dtype)


class StandardNormal(Base):
    """Independent standard normal coordinates.

    >>> StandardNormal(2).log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(dim=1) - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, device=device, dtype=dtype)
