"""Continuous flows: the transport of a normal density along a learned velocity, and its training by flow matching.

Conditional flow matching (2210.02747; for showers CaloDREAM, 2405.09629): on the line x_t = (1 - t) x_0 + t x_1 between
a normal point x_0 and a point x_1 of the data, a network learns the mean velocity x_1 - x_0 that is seen at (t, x_t).
No density is needed for that, and no bijective network. Points are made by a solver with a fixed step; their density
takes the divergence of the velocity along the way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.base.checks import Coordinates, Natural, checked
from nisampler.errors import ConfigError
from nisampler.flows.distributions import StandardNormal
from nisampler.flows.flow import Flow
from nisampler.flows.nets.velocity import Sizes, VelocityConfig, VelocityMLP
from nisampler.flows.nets.vit import VelocityViT
from nisampler.flows.solvers import SOLVERS, integrate
from nisampler.flows.transforms import Transform

_PROBE_SEED = 20181002


class ContinuousTransform(Transform):
    r"""The solution of dx/dt = v(x, t, c) from data (t = 1) to latent points (t = 0), by steps of a fixed length.

    v = x (2t - 1) / s^2 + net(x / s, t, c) with s^2 = t^2 + (1 - t)^2. The first term is the mean velocity towards
    independent normal coordinates, whose flow x_t = s x_0 ends where it began: a network that starts at zero starts at
    the identity, and learns only in what the data differ from normal ones. Its input has unit variance at all times.

    The log-determinant is the integral of the divergence of v: exact, one derivative for each coordinate; or
    Hutchinson's estimate ε·∂(v·ε)/∂x with one random sign ε for each coordinate, the same along the whole path
    (1810.01367, eq. 7), unbiased and as dear as two evaluations whatever the dimension.

    Parameters
    ----------
    dim
        Number of coordinates.
    network
        A module that takes points (n, dim), times (n, 1) and a context to velocities (n, dim); its `context_dim` is
        that of the transform.
    config
        Settings, of which `solver`, `steps` and `divergence` are used.

    Examples
    --------
    >>> config = VelocityConfig(hidden=8, layers=1, steps=2)
    >>> network = VelocityMLP(3, 0, config, torch.Generator().manual_seed(1))
    >>> z, log_det = ContinuousTransform(3, network, config)(torch.zeros(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, dim: int, network: nn.Module, config: VelocityConfig) -> None:
        super().__init__()
        self.dim, self.network = dim, network
        self.context_dim: int = getattr(network, "context_dim", 0)
        self.config, self.solver = config, SOLVERS[config.solver]

    def velocity(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """v (n, dim) at points (n, dim) and times (n, 1) given a context."""
        square = t.square() + (1 - t).square()
        learned: Tensor = self.network(x / square.sqrt(), t, context)
        return x * ((2 * t - 1) / square) + learned.to(x.dtype)

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Data to latent; `generator` draws the signs of Hutchinson's estimate."""
        return self._with_density(x, context, 1.0, 0.0, generator)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latent to data; `generator` draws the signs of Hutchinson's estimate."""
        return self._with_density(y, context, 0.0, 1.0, generator)

    def transport(self, x: Tensor, context: Tensor | None, start: float, end: float) -> Tensor:
        """The points (n, dim) at the time `end` that are at x at the time `start`, without their density."""

        def velocity(t: float, x: Tensor) -> Tensor:
            return self.velocity(x, torch.full_like(x[:, :1], t), context)

        return integrate(velocity, x, start, end, self.config.steps, self.solver)

    def _with_density(
        self, x: Tensor, context: Tensor | None, start: float, end: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        if torch.is_inference_mode_enabled():  # copies, as tensors of the inference mode have no derivatives
            with torch.inference_mode(False), torch.no_grad():
                x, context = x.clone(), None if context is None else context.clone()
                return self._with_density(x, context, start, end, generator)
        signs = self._signs(x, generator) if self.config.divergence == "hutchinson" else None

        def rates(t: float, state: Tensor) -> Tensor:
            return self._rates(t, state[:, :-1], context, signs)

        state = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        state = integrate(rates, state, start, end, self.config.steps, self.solver)
        return state[:, :-1], state[:, -1]

    def _signs(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            generator = torch.Generator(device=x.device).manual_seed(_PROBE_SEED)
        bits = torch.randint(2, x.shape, generator=generator, device=generator.device)
        return (2 * bits - 1).to(x.device, x.dtype)

    def _rates(self, t: float, x: Tensor, context: Tensor | None, signs: Tensor | None) -> Tensor:
        """d(x, log det)/dt (n, dim + 1)."""
        time = torch.full_like(x[:, :1], t)
        found: Any = torch.func.vjp(lambda x: self.velocity(x, time, context), x)
        v, pull = found
        if signs is None:
            unit = torch.eye(self.dim, dtype=v.dtype, device=v.device)
            columns = [pull(unit[i].expand_as(v))[0][:, i] for i in range(self.dim)]
            divergence = torch.stack(columns, dim=1).sum(1)
        else:
            divergence = (pull(signs)[0] * signs).sum(1)
        return torch.cat([v, divergence.unsqueeze(1)], dim=1)


class ContinuousFlow(Flow):
    """A normal density carried along a velocity; stands where a `Flow` stands, and brings its own loss.

    A density takes many derivatives: `draw` makes points without one.

    Parameters
    ----------
    transform
        The velocity and its solver.

    Examples
    --------
    >>> flow = continuous_flow(3, VelocityConfig(hidden=8, layers=1, steps=2))
    >>> flow.loss(torch.zeros(5, 3), None, torch.Generator().manual_seed(1)).shape
    torch.Size([5])
    >>> flow.draw(4, generator=torch.Generator().manual_seed(1)).shape
    torch.Size([4, 3])
    """

    transform: ContinuousTransform

    def __init__(self, transform: ContinuousTransform) -> None:
        super().__init__(StandardNormal(transform.dim), transform)

    def loss(self, x: Tensor, context: Tensor | None, generator: torch.Generator) -> Tensor:
        r"""|v(x_t, t, c) - (x_1 - x_0)|^2 / dim with x_1 = x (n, dim), a normal x_0 and a time t: shape (n,).

        It is a mean over the `pairs` (x_0, t) of each point. The times of a batch are stratified: shuffled, one from
        each of as many equal parts of [0, 1]. Any one is uniform.

        Raises
        ------
        ShapeError, DomainError
            For the reasons that `log_prob` has.
        """
        context = self._context(x, context)
        self._check_domain(x, "line")
        pairs = self.transform.config.pairs
        x, context = x.repeat(pairs, 1), None if context is None else context.repeat(pairs, 1)
        n, device = len(x), generator.device
        start = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
        stratum = torch.randperm(n, generator=generator, device=device)
        t = (stratum + torch.rand(n, generator=generator, dtype=x.dtype, device=device)) / n
        t = t.to(x.device).unsqueeze(1)
        v = self.transform.velocity((1 - t) * start + t * x, t, context)
        return (v - (x - start)).square().mean(1).reshape(pairs, -1).mean(0)

    def log_prob(self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Log density at x (n, dim) given a context (n, context_dim): shape (n,).

        `generator` draws the signs of Hutchinson's estimate; without one they are the same at every call.

        Raises
        ------
        ShapeError, DomainError
            For the reasons that the `log_prob` of a `Flow` has.
        """
        context = self._context(x, context)
        self._check_domain(x, "line")
        z, log_det = self.transform(x, context, generator)
        return self.base.log_prob(z) + log_det

    def draw(
        self,
        n: int,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """`n` points (n, dim) without their density, on the device of the weights; arguments as those of `sample`.

        Raises
        ------
        ShapeError
            If the context has the wrong shape.
        """
        weight = next(self.parameters())
        z = self.base.sample(n, generator, device=weight.device, dtype=dtype or weight.dtype)
        context = self._context(z, context)
        return self.transform.transport(z, context, 0.0, 1.0)


def continuous_flow(
    dim: int,
    config: VelocityConfig,
    context_dim: int = 0,
    generator: torch.Generator | None = None,
    grid: Sizes | None = None,
) -> ContinuousFlow:
    """The continuous flow of a config over `dim` coordinates; a fresh one is the identity.

    Parameters
    ----------
    dim, context_dim
        Numbers of coordinates and conditions.
    config
        Network and solver.
    generator
        Source of the initial weights; without one those of seed 0.
    grid
        Shape of the grid that "velocity-vit" cuts into patches, its last index the fastest.

    Raises
    ------
    ConfigError
        If a "velocity-vit" has no grid of `dim` cells, or its patches do not fill it.

    Examples
    --------
    >>> flow = continuous_flow(3, VelocityConfig(hidden=8, layers=1, steps=2), context_dim=2)
    >>> flow.draw(4, torch.zeros(2), torch.Generator().manual_seed(1)).shape
    torch.Size([4, 3])
    """
    generator = generator or torch.Generator().manual_seed(0)
    dim, context_dim = checked("dim", dim, Coordinates), checked("context_dim", context_dim, Natural)
    grid = checked("grid", grid, Sizes | None)
    network = velocity_network(dim, context_dim, config, generator, grid)
    flow = ContinuousFlow(ContinuousTransform(dim, network, config))
    return flow.assembled("continuous", dim=dim, config=config, context_dim=context_dim, grid=grid)


def velocity_network(
    dim: int, context_dim: int, config: VelocityConfig, generator: torch.Generator, grid: Sizes | None
) -> nn.Module:
    """The fresh network of a config: points (n, dim), times (n, 1) and a context to velocities (n, dim).

    Raises
    ------
    ConfigError
        If a "velocity-vit" has no grid of `dim` cells, or its patches do not fill it.

    Examples
    --------
    >>> network = velocity_network(3, 0, VelocityConfig(hidden=8, layers=1), torch.Generator().manual_seed(1), None)
    >>> network(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5, 3])
    """
    if config.kind == "velocity-mlp":
        return VelocityMLP(dim, context_dim, config, generator)
    if grid is None or math.prod(grid) != dim:
        raise ConfigError(f"a velocity over patches needs a grid of {dim} cells, got {grid}")
    return VelocityViT(grid, context_dim, config, generator)
