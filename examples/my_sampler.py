"""A sampler of your own: each coordinate follows a Kumaraswamy law x = (1 - (1 - u)^(1/b))^(1/a) with a, b learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import nisampler
from nisampler.samplers.registry import register
from nisampler.samplers.trainable import TrainableSampler


@register
class Kumaraswamy(TrainableSampler):
    kind = "kumaraswamy"

    def __init__(self, dim: int) -> None:
        self.dim, self.model = dim, nn.ParameterDict({"log_ab": torch.zeros(2, dim, dtype=torch.float64)})

    def log_q(self, x: Tensor) -> Tensor:
        a, b = self.model["log_ab"].exp()
        x = x.clamp(1e-12, 1 - 1e-12)
        return (torch.log(a * b) + (a - 1) * torch.log(x) + (b - 1) * torch.log1p(-(x**a))).sum(1)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.model["log_ab"].exp()
        x = (1 - (1 - u) ** (1 / b)) ** (1 / a)
        return x, self.log_q(x)

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.model["log_ab"].exp()
        return 1 - (1 - x**a) ** b, self.log_q(x)


if __name__ == "__main__":
    result = nisampler.integrate(lambda x: (x**2 * (1 - x)).prod(1), dim=3, sampler=Kumaraswamy(3))  # exact: 12^-3
    print(result.summary())
    result.save("kumaraswamy")
