"""A flow as a distribution of `torch.distributions`, for code that expects one."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from nisampler.errors import ShapeError

_CUBE = constraints.independent(constraints.unit_interval, 1)  # type: ignore[no-untyped-call]


class Samples(Protocol):
    """What a `FlowDistribution` needs of a flow: that of `nisampler.flows.Flow`.

    >>> from nisampler.flows import coupling_flow
    >>> flow: Samples = coupling_flow(2)
    >>> flow.dim, flow.domain
    (2, 'unit')
    """

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        ...

    domain: Any
    context_dim: int

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density (n,) at x (n, dim)."""
        ...

    def sample(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n points (n, dim) and their log densities (n,)."""
        ...


class FlowDistribution(Distribution):
    """A flow, given its context, as torch knows distributions; made by `Flow.distribution`.

    One event is a point (dim,); contexts (*batch_shape, context_dim) make a batch of distributions. Points are drawn
    from torch's global generator (`torch.manual_seed`) in the dtype of the weights. Gradients of `rsample` reach the
    weights and the context, those of `log_prob` the point too. Mean, variance and entropy of a flow are not known: they
    raise NotImplementedError, as everywhere in torch.

    Parameters
    ----------
    flow
        A `nisampler.flows.Flow`.
    context
        Shape (*batch_shape, context_dim); none for a flow without one.
    validate_args
        Whether contexts and points are checked, by default what `Distribution.set_default_validate_args` says. A point
        outside the unit cube of a flow is an error in any case.

    Raises
    ------
    ShapeError
        If the context does not fit the flow.

    Examples
    --------
    >>> from nisampler.flows import AutoregressiveConfig, NetConfig, maf
    >>> flow = maf(2, AutoregressiveConfig(net=NetConfig(context_dim=1), blocks=2))
    >>> energies = flow.distribution(torch.tensor([[1.0], [2.0], [5.0]]))
    >>> energies.batch_shape, energies.event_shape, energies.sample((10,)).shape
    (torch.Size([3]), torch.Size([2]), torch.Size([10, 3, 2]))
    >>> torch.distributions.Independent(energies, 1).log_prob(torch.zeros(3, 2)).shape
    torch.Size([])
    """

    has_rsample = True

    def __init__(self, flow: Samples, context: Tensor | None = None, validate_args: bool | None = None) -> None:
        wanted = flow.context_dim
        if (context is None) != (wanted == 0) or (context is not None and context.shape[-1:] != (wanted,)):
            shape = None if context is None else tuple(context.shape)
            raise ShapeError(f"expected a context of shape {f'(..., {wanted})' if wanted else None}, got {shape}")
        self.flow, self.context = flow, context
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size([flow.dim]), validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """Contexts are real vectors."""
        return {} if self.context is None else {"context": constraints.real_vector}

    @property
    def support(self) -> constraints.Constraint:
        """The unit cube, or all real vectors."""
        return _CUBE if self.flow.domain == "unit" else constraints.real_vector

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The same distributions in a larger batch, without a copy of anything."""
        new: FlowDistribution = self._get_checked_instance(FlowDistribution, _instance)  # type: ignore[no-untyped-call]
        batch = torch.Size(batch_shape)
        new.flow = self.flow
        new.context = None if self.context is None else self.context.expand(*batch, self.flow.context_dim)
        super(FlowDistribution, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at points of a shape that broadcasts with (*batch_shape, dim).

        Raises
        ------
        ValueError, DomainError
            If arguments are validated and a point has the wrong shape or leaves the support; of the unit cube anyway.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)  # type: ignore[no-untyped-call]
        points = value.expand(*shape, value.shape[-1]).reshape(-1, value.shape[-1])
        return self.flow.log_prob(points, self._contexts(shape)).reshape(shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Points (*sample_shape, *batch_shape, dim) that are differentiable in weights and context."""
        shape = self._extended_shape(torch.Size(sample_shape))
        points, _ = self.flow.sample(shape[:-1].numel(), self._contexts(shape[:-1]))
        return points.reshape(shape)

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        """A context for each point of this shape, or one for all of them."""
        if self.context is None or self.context.dim() == 1:
            return self.context
        return self.context.expand(*shape, -1).reshape(-1, self.context.shape[-1])
