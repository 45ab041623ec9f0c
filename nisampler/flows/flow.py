"""A flow: a base density seen through an invertible map."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nisampler.base.checks import Natural, checked
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows.cuda_graphs import CudaGraphs
from nisampler.flows.distributions import Base, UniformCube, traced
from nisampler.flows.fused.chain import coupling_chain
from nisampler.flows.saving import Saved
from nisampler.flows.torch_distribution import FlowDistribution
from nisampler.flows.transforms import Transform

Domain = Literal["unit", "line"]

_ROUNDING = 1e-6
# Points that go through a flow at a time on a CPU where no gradient is wanted: their hidden units stay in its cache.
_TILE = 1536


class Flow(Saved):
    """log q(x) = log base(T(x)) + log |det dT/dx|.

    Weights and points may have different dtypes: a float32 network on float64 points is inverted to float64
    precision. Gradients flow through every method; use `torch.no_grad()` where none are wanted.

    On a GPU small batches wait for the launch of one kernel after the other. With `flow.graphs = CudaGraphs()` both
    directions are recorded where no gradient is wanted, and replayed for every batch of the same shape.

    Parameters
    ----------
    base
        The latent density.
    transform
        T, whose `forward` maps data to latent space.
    domain
        Where data may lie: "unit" for [0, 1]^d, "line" for all finite points. By default that of the base.

    Raises
    ------
    ConfigError
        If the domain is unknown.

    Examples
    --------
    >>> from nisampler.flows import Affine, StandardNormal
    >>> flow = Flow(StandardNormal(2), Affine(2))
    >>> x, log_q = flow.sample(5, generator=torch.Generator().manual_seed(1))
    >>> torch.allclose(flow.log_prob(x), log_q)
    True
    """

    def __init__(self, base: Base, transform: Transform, domain: Domain | None = None) -> None:
        super().__init__()
        self.base = base
        self.transform = transform
        given: Domain | None = checked("domain", domain, Domain | None)
        self.domain: Domain = given or ("unit" if isinstance(base, UniformCube) else "line")
        self.context_dim: int = _context_dim(transform)
        self.graphs: CudaGraphs | None = None

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.base.dim

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        """What `log_prob` gives: a wrapper such as `DistributedDataParallel` calls a module by this name."""
        return self.log_prob(*arguments, **options)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density at x (n, dim) given a context (n, context_dim), or (context_dim,) for all points: shape (n,).

        Raises
        ------
        ShapeError
            If x or the context has the wrong shape.
        DomainError
            If a point lies outside the domain by more than 1e-6, or is not finite.
        """
        z, log_det = self.to_latent(x, context)
        return self.base.log_prob(z) + log_det

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The latent point z (n, dim) of x and log |det dz/dx| (n,); its errors are those of `log_prob`."""
        context = self._context(x, context)
        self._check_domain(x, self.domain)
        return self._tiled(x, context, inverse=False)

    def from_latent(
        self, z: Tensor, context: Tensor | None = None, products: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """The point x (n, dim) of a latent point z and its log density log q(x) (n,).

        Parameters
        ----------
        z, context
            Latent points (n, dim), and contexts (n, context_dim), or one context (context_dim,) for all points.
        products
            `torch.bfloat16` or `torch.float16`: multiply the matrices of float32 networks in this precision, which is
            quicker where the hardware has it. The networks then give slightly other splines, but x and log q(x) come
            from the same ones: the density is that which this point was drawn from, and weights f/q stay unbiased for
            every f. It is not what `log_prob`, in full precision, finds at x.

        Raises
        ------
        ShapeError
            If z or the context has the wrong shape.
        DomainError
            If z lies outside the support of the base, or is not finite.
        ConfigError
            If products cannot be made in this precision.
        """
        if products not in (None, torch.bfloat16, torch.float16):
            raise ConfigError(f"products must be None, torch.bfloat16 or torch.float16, got {products}")
        context = self._context(z, context)
        self._check_domain(z, "unit" if isinstance(self.base, UniformCube) else "line")
        if products is None:
            x, log_det = self._tiled(z, context, inverse=True)
        else:
            with torch.autocast(z.device.type, products, cache_enabled=not z.is_cuda):
                x, log_det = self._tiled(z, context, inverse=True)
        return x, self.base.log_prob(z) - log_det

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        products: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw `n` points: x (n, dim) and log q(x) (n,), on the device of the weights.

        `dtype` is that of the points, by default that of the weights. `generator` must live on the same
        device. `products` as in `from_latent`.
        """
        if not traced():
            checked("n", n, Natural)
        weight = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        z = self.base.sample(n, generator, device=weight.device, dtype=dtype or weight.dtype)
        return self.from_latent(z, context, products)

    def distribution(self, context: Tensor | None = None, validate_args: bool | None = None) -> FlowDistribution:
        """The flow, given contexts (*batch_shape, context_dim), as a `torch.distributions.Distribution`.

        >>> from nisampler.flows import coupling_flow
        >>> coupling_flow(2).distribution().rsample((3,)).shape
        torch.Size([3, 2])
        """
        return FlowDistribution(self, context, validate_args)

    def _tiled(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """Apply one direction of the transform, tile by tile and without any records where that is faster."""
        function = self.transform.inverse if inverse else self.transform
        found = coupling_chain(self.transform, x, context, inverse)
        if found is not None:
            return found
        if torch.is_grad_enabled() or traced():
            return function(x, context)
        if x.is_cuda and self.graphs is not None:
            return self.graphs(self.transform, function, x, context, inverse)
        if x.device.type != "cpu":
            return function(x, context)
        y, log_det = torch.empty_like(x), x.new_empty(len(x))
        with torch.inference_mode():
            for start in range(0, len(x), _TILE):
                part = slice(start, start + _TILE)
                y[part], log_det[part] = function(x[part], None if context is None else context[part])
        return y, log_det

    def _context(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """The context of each point x, once the shapes are known to fit."""
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ShapeError(f"expected points of shape (n, {self.dim}), got {tuple(x.shape)}")
        wanted = (x.shape[0], self.context_dim)
        if context is None and self.context_dim == 0:
            return None
        if context is None or self.context_dim == 0 or context.shape not in (wanted, (1, wanted[1]), wanted[1:]):
            shape = None if context is None else tuple(context.shape)
            raise ShapeError(f"expected a context of shape {wanted if wanted[1] else None}, got {shape}")
        return context.expand(wanted)

    def _check_domain(self, x: Tensor, domain: str) -> None:
        """One reduction for the whole batch; NaN fails it too."""
        if x.shape[0] == 0 or traced():
            return
        low, high = (float(bound) for bound in torch.aminmax(x.detach()))
        if domain == "unit" and not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise DomainError(f"points must lie in [0, 1]^{self.dim}; found coordinates from {low} to {high}")
        if not (low > -math.inf and high < math.inf):
            raise DomainError(f"points must be finite; found coordinates from {low} to {high}")


def _context_dim(module: nn.Module) -> int:
    """The length of the context: what the outermost modules that take one say, such as an embedding for its nets."""
    own: int | None = getattr(module, "context_dim", None)
    return max(map(_context_dim, module.children()), default=0) if own is None else own
