"""The `Transform` contract, and the transforms that need no conditioner network.

`forward` maps data to latent space, `inverse` maps back. Both take a batch of shape (n, d) and an optional
context of shape (n, c), and return the image together with the log of the absolute Jacobian determinant of
*that* direction, shape (n,), so that nothing is computed twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.checks import Positive, checked
from nisampler.errors import ConfigError, ShapeError


class Transform(nn.Module, ABC):
    """An invertible map with a tractable Jacobian.

    >>> transform: Transform = Affine(2)
    >>> y, log_det = transform(torch.zeros(5, 2))
    >>> torch.equal(transform.inverse(y)[0], torch.zeros(5, 2))
    True
    """

    __call__: Callable[..., tuple[Tensor, Tensor]]

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: y (n, d) and log |det dy/dx| (n,)."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: x (n, d) and log |det dx/dy| (n,)."""


class Composition(Transform):
    """Several transforms, applied in the order given (and undone in the opposite order).

    >>> both = Composition([Permutation.reverse(2), Affine(2)])
    >>> both(torch.tensor([[1.0, 2.0]]))[0]
    tensor([[2., 1.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, here or in another process, makes its own plan of how it is evaluated (`fused.plan`)."""
        return {name: value for name, value in self.__dict__.items() if name != "_plan"}

    def _parts(self) -> list[Transform]:
        return cast(list[Transform], list(self.transforms))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for transform in self._parts():
            x, log_det = transform(x, context)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = y.new_zeros(y.shape[0])
        for transform in reversed(self._parts()):
            y, log_det = transform.inverse(y, context)
            total = total + log_det
        return y, total


class Inverse(Transform):
    """A transform with its two directions exchanged: the inverse of a MAF block is an IAF block.

    >>> Inverse(Logit()).inverse(torch.tensor([[0.5]]))[0]
    tensor([[0.]])
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(y, context)


class Permutation(Transform):
    """y_i = x_{order[i]}; the order is saved with the model.

    Raises
    ------
    ConfigError
        If `order` is not a permutation of 0..d-1.

    Examples
    --------
    >>> Permutation(torch.tensor([2, 0, 1]))(torch.tensor([[5.0, 6.0, 7.0]]))[0]
    tensor([[7., 5., 6.]])
    """

    order: Tensor
    undo: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        if order.dim() != 1 or not torch.equal(order.sort().values, torch.arange(len(order), device=order.device)):
            raise ConfigError("the order of a permutation must hold each of 0..d-1 once")
        self.register_buffer("order", order.clone())
        self.register_buffer("undo", torch.argsort(order))

    @classmethod
    def reverse(cls, dim: int) -> Permutation:
        """The last coordinate becomes the first."""
        return cls(torch.arange(dim - 1, -1, -1, device="cpu"))

    @classmethod
    def random(cls, dim: int, generator: torch.Generator) -> Permutation:
        """A random order."""
        return cls(torch.randperm(dim, generator=generator, device=generator.device).cpu())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.index_select(1, self.undo), y.new_zeros(y.shape[0])


class Affine(Transform):
    """y = x exp(log_scale) + shift, coordinate by coordinate, with learned scale and shift.

    >>> y, log_det = Affine(2)(torch.ones(5, 2))
    >>> y.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.log_scale.to(x.dtype), self.shift.to(x.dtype)
        return x * log_scale.exp() + shift, log_scale.sum().expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.log_scale.to(y.dtype), self.shift.to(y.dtype)
        return (y - shift) * (-log_scale).exp(), (-log_scale.sum()).expand(y.shape[0])


class ActNorm(Affine):
    """An affine map that gives the first training batch zero mean and unit variance (1807.03039).

    Whether that has happened is saved with the model. Evaluation mode and `inverse` never initialise.

    Raises
    ------
    ShapeError
        If the first training batch has fewer than two points.

    Examples
    --------
    >>> norm = ActNorm(1)
    >>> norm(torch.tensor([[2.0], [4.0]]))[0].detach()
    tensor([[-1.],
            [ 1.]])
    """

    initialised: Tensor

    def __init__(self, dim: int, smallest_scale: float = 1e-6) -> None:
        super().__init__(dim)
        self._smallest_scale = smallest_scale
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialised:
            self._initialise(x.detach())
        return super().forward(x, context)

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        if x.shape[0] < 2:
            raise ShapeError(f"ActNorm needs at least 2 points in its first training batch, got {x.shape[0]}")
        scale = x.std(dim=0, correction=0).clamp_min(self._smallest_scale)
        self.log_scale.copy_(-scale.log())
        self.shift.copy_(-x.mean(dim=0) / scale)
        self.initialised.fill_(True)


class Logit(Transform):
    """[0, 1] to the line: y = log(u / (1 - u)) with u = alpha + (1 - 2 alpha) x (2106.05285).

    The image of [0, 1] is the interval ±logit(alpha); a latent point beyond it comes back up to alpha
    outside [0, 1].

    Raises
    ------
    ConfigError
        If alpha is not in (0, 1/2).

    Examples
    --------
    >>> Logit()(torch.tensor([[0.5]]))[0]
    tensor([[0.]])
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        self.alpha: float = checked("alpha", alpha, Annotated[Positive, Field(lt=0.5)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = 1 - 2 * self.alpha
        tiny = torch.finfo(x.dtype).tiny
        log_u = torch.log((self.alpha + scale * x).clamp_min(tiny))
        log_rest = torch.log((self.alpha + scale * (1 - x)).clamp_min(tiny))
        return log_u - log_rest, (math.log(scale) - log_u - log_rest).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = 1 - 2 * self.alpha
        log_slope = functional.logsigmoid(y) + functional.logsigmoid(-y) - math.log(scale)
        return (torch.sigmoid(y) - self.alpha) / scale, log_slope.sum(dim=1)


class LULinear(Transform):
    """y = L U x + b with a unit lower triangle L and a positive diagonal of U (1807.03039, section 3.2).

    >>> linear = LULinear(2)
    >>> y, log_det = linear(torch.ones(5, 2))
    >>> y.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        entries = dim * (dim - 1) // 2
        self.lower = nn.Parameter(torch.zeros(entries))
        self.upper = nn.Parameter(torch.zeros(entries))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("_below", torch.tril_indices(dim, dim, -1), persistent=False)
        self.register_buffer("_above", torch.triu_indices(dim, dim, 1), persistent=False)

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        lower = _triangle(self.lower.to(dtype), self._below, torch.ones_like(self.bias, dtype=dtype))
        upper = _triangle(self.upper.to(dtype), self._above, self.log_diagonal.to(dtype).exp())
        return lower, upper

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors(x.dtype)
        y = x @ (lower @ upper).t() + self.bias.to(x.dtype)
        return y, self.log_diagonal.to(x.dtype).sum().expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors(y.dtype)
        rest = torch.linalg.solve_triangular(lower, (y - self.bias.to(y.dtype)).t(), upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, rest, upper=True).t()
        return x, (-self.log_diagonal.to(y.dtype).sum()).expand(y.shape[0])


def _triangle(entries: Tensor, indices: Any, diagonal: Tensor) -> Tensor:
    """A triangular matrix from its off-diagonal entries and its diagonal."""
    dim = diagonal.shape[0]
    flat = entries.new_zeros(dim * dim).scatter(0, indices[0] * dim + indices[1], entries)
    return flat.view(dim, dim) + torch.diag(diagonal)
