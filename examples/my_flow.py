"""A flow of your own: coordinates of a circle are turned by learned angles between two blocks of coupling splines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import nisampler
from nisampler import flows


class Turn(flows.Transform):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x + self.angle) % 1.0, x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.angle) % 1.0, y.new_zeros(len(y))


@flows.assembly("turned")  # how Flow.load and nisampler.load find it again
def turned(dim: int, hidden: int = 32) -> flows.Flow:
    config = flows.CouplingConfig(net=flows.NetConfig(hidden=hidden, layers=2))
    parts = [flows.coupling_flow(dim, config).transform, Turn(dim), flows.coupling_flow(dim, config).transform]
    return flows.Flow(flows.UniformCube(dim), flows.Composition(parts)).assembled("turned", dim=dim, hidden=hidden)


def ring(x: Tensor) -> Tensor:  # two angles, in units of a turn, that follow each other
    return torch.exp(3.0 * torch.cos(2 * torch.pi * (x[:, 0] - x[:, 1])))


if __name__ == "__main__":
    result = nisampler.integrate(ring, dim=2, sampler=turned(2))  # exact: the Bessel function I_0(3) = 4.880793
    print(result.summary())
    result.save("turned")
