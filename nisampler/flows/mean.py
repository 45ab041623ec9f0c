"""Mean velocities of continuous flows: points in one step or two in place of many (MeanFlow, 2505.13447).

u(x, t, s) is the mean of the velocity v from the time t to a later time s along the way through x at t, so that
x_s = x_t + (s - t) u(x_t, t, s). Along the way, with s fixed, u = v + (s - t) du/dt with du/dt = v·∂u/∂x + ∂u/∂t: one
product of the Jacobian with (v, 1), in forward mode. (The paper runs time from data to noise.) Here v is that of a
trained flow, which a student of the same network learns to jump along: the target has no noise.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.errors import ModelError
from nisampler.flows.continuous import ContinuousFlow, velocity_network
from nisampler.flows.distributions import StandardNormal
from nisampler.flows.nets.velocity import Sizes, TimeFeatures, VelocityConfig

# Frequencies of the length of a step, which mean velocities depend on smoothly; and the share of steps of no length.
_FREQUENCIES, _STILL = 2, 0.25


@cache
def _ready() -> None:
    """Forward mode takes parts of torch at its first use that warn of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


class MeanFlow(nn.Module):
    r"""A normal density carried along a mean velocity, in `config.steps` jumps of equal length.

    u = 2x (s + t - 1) / (r_t (r_s + r_t)) + net(x / r_t, t, c, s - t) with r_t^2 = t^2 + (1 - t)^2. The first term is
    exact for independent normal coordinates; for s = t it is that of `ContinuousTransform`.

    Parameters
    ----------
    dim, context_dim
        Numbers of coordinates and conditions.
    config
        The network, and `steps`.
    generator
        Source of the initial weights.
    grid
        As for `continuous_flow`.

    Examples
    --------
    >>> flow = MeanFlow(3, 0, VelocityConfig(hidden=8, layers=1, steps=1), torch.Generator().manual_seed(1))
    >>> flow.draw(4, generator=torch.Generator().manual_seed(1)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self, dim: int, context_dim: int, config: VelocityConfig, generator: torch.Generator, grid: Sizes | None = None
    ) -> None:
        super().__init__()
        self.dim, self.context_dim, self.config = dim, context_dim, config
        self.base, self.length = StandardNormal(dim), TimeFeatures(_FREQUENCIES)
        self.network = velocity_network(dim, context_dim + self.length.d_out, config, generator, grid)

    def mean_velocity(self, x: Tensor, t: Tensor, s: Tensor, context: Tensor | None = None) -> Tensor:
        """u (n, dim) at points (n, dim) between the times t and s, (n, 1) each, given a context (n, context_dim)."""
        here, there = (time.square() + (1 - time).square() for time in (t, s))
        known = self.length(s - t) if context is None else torch.cat([context, self.length(s - t)], dim=1)
        learned: Tensor = self.network(x / here.sqrt(), t, known)
        return x * (2 * (s + t - 1) / (here + (here * there).sqrt())) + learned.to(x.dtype)

    def begin(self, teacher: ContinuousFlow) -> None:
        """Take the weights of a flow of the same network: the mean velocity of no step is its velocity.

        Raises
        ------
        ModelError
            If its network is another one.
        """
        own, known = self.network.state_dict(), teacher.transform.network.state_dict()
        if own.keys() != known.keys():
            raise ModelError("a student of a flow has the same kind of network and as many layers")
        for name, weight in known.items():
            if own[name].shape != weight.shape and own[name].shape[:-1] != weight.shape[:-1]:
                raise ModelError(f"a student of a flow has networks of the same width: {name} differs")
            # what is longer depends on the length of the step as well, which comes last
            own[name].zero_()
            own[name][..., : weight.shape[-1]] = weight

    def loss(self, teacher: ContinuousFlow, x: Tensor, context: Tensor | None, generator: torch.Generator) -> Tensor:
        """|u - (v + (s - t) du/dt)|^2 / dim for x (n, dim), a normal x_0 and times t <= s: shape (n,).

        The target, in brackets, is a constant; v is the velocity of the teacher at x_t = (1 - t) x_0 + t x. A mean over
        the `pairs` of each point. In a quarter of them s = t.

        Outside of the training, since small steps rule that number: |x - x_1|^2 / dim of where jumps from x_0 end and
        where the way of the teacher ends.
        """
        if not self.training:
            start = _normal(x, generator)
            with torch.no_grad():
                end = teacher.transform.transport(start, context, 0.0, 1.0)
            return (self.transport(start, context) - end).square().mean(1)
        pairs = self.config.pairs
        x, context = x.repeat(pairs, 1), None if context is None else context.repeat(pairs, 1)
        n, device = len(x), generator.device
        start = _normal(x, generator)
        numbers = torch.rand(n, 3, generator=generator, dtype=x.dtype, device=device).to(x.device)
        t, s = numbers[:, :2].amin(1, keepdim=True), numbers[:, :2].amax(1, keepdim=True)
        s = torch.where(numbers[:, 2:] < _STILL, t, s)
        point = (1 - t) * start + t * x
        with torch.no_grad():
            v = teacher.transform.velocity(point, t, context)
        _ready()
        ways: Any = torch.func.jvp(
            lambda x, t: self.mean_velocity(x, t, s, context), (point, t), (v, torch.ones_like(t))
        )
        u, rate = ways
        found: Tensor = (u - (v + (s - t) * rate).detach()).square().mean(1).reshape(pairs, -1).mean(0)
        return found

    def draw(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """`n` points (n, dim) given a context (n, context_dim), on the device of the weights."""
        weight = next(self.parameters())
        return self.transport(self.base.sample(n, generator, device=weight.device, dtype=weight.dtype), context)

    def transport(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The points (n, dim) at which the ways from latent points x (n, dim) end."""
        for step in range(self.config.steps):
            t, s = (torch.full_like(x[:, :1], (step + end) / self.config.steps) for end in (0, 1))
            x = x + (s - t) * self.mean_velocity(x, t, s, context)
        return x


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
