r"""Divergences between a target p = f / I and a proposal q, estimated from points of any density g.

Almost all of them are f-divergences :math:`D = \int q\,\varphi(t)`, :math:`t = p/q`, with a generator shifted
so that :math:`\varphi(1) = \varphi'(1) = 0` (adding :math:`c\,(t - 1)` changes no divergence, as
:math:`\int p = \int q = 1`). The estimate over points :math:`x_i \sim g` is

.. math:: \hat D = \frac1n \sum_i \frac{q(x_i)}{g(x_i)}\,\varphi\!\left(\frac{f(x_i)}{I\,q(x_i)}\right).

The points do not depend on the parameters of q, so value and gradient are unbiased for the given norm I, with
fresh points and stored ones alike, as long as g > 0 wherever f > 0 or q > 0. The shift makes no term negative
and lets the gradient's noise vanish at q = p. Where f = 0, a term is :math:`\varphi(0)\,q/g`: the price of
the mass that q leaks out of the support. The shift needs q/g to be moderate: where g is far narrower than q,
`ForwardKL` and `Variance` can do without it (`control = 0`), and `LogVariance` never uses it.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nisampler.errors import DomainError, NonFiniteError, ShapeError


@dataclasses.dataclass(frozen=True)
class Divergence(abc.ABC):
    """One signature for every divergence; subclasses give the integrand.

    Attributes
    ----------
    name
        Under which `divergence` finds it.
    unbiased
        Whether value and gradient are exactly unbiased for a given norm. Where it is false, the docstring says how
        large the bias is.

    Examples
    --------
    >>> from nisampler.training.divergences import Variance
    >>> log_q, f, log_g = torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2)
    >>> Variance()(log_q, f, log_g)
    tensor(0.2500)
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool] = True

    def __call__(self, log_q: Tensor, f: Tensor, log_g: Tensor, norm: float | Tensor | None = None) -> Tensor:
        """Estimate of the divergence, differentiable in `log_q`, and in `f` where channel weights are learned.

        Parameters
        ----------
        log_q
            Log density of the proposal to be trained at the points, shape (n,).
        f
            Absolute values of the target, unnormalised, shape (n,); zero is fine.
        log_g
            Log density the points were drawn from, shape (n,); never differentiated.
        norm
            Integral I of `f`, so that p = f / I. Default: the mean of f / g over these points, which costs a bias of
            order 1/n; pass a running estimate to be free of it.

        Returns
        -------
        A scalar in the widest dtype of the inputs.

        Raises
        ------
        ShapeError
            If the shapes differ or are not (n,) with n > 0.
        NonFiniteError
            If `f` has NaN or infinite entries or `norm` is not finite.
        DomainError
            If `f` has negative entries or `norm` is not positive.
        """
        _check(log_q, f, log_g)
        dtype = torch.promote_types(torch.promote_types(log_q.dtype, f.dtype), log_g.dtype)
        f, log_g = f.to(dtype), log_g.detach().to(dtype)
        log_q, log_norm = log_q.to(dtype), self._log_norm(f, log_g, norm)
        if torch.is_grad_enabled() and log_q.requires_grad and not f.requires_grad:
            given = self._numbers(log_q.detach(), f, log_g, log_norm)
            found = self._with_slope(*given)
            if found is not None:
                return _Closed.apply(self, log_q, f, log_g, log_norm, *found)  # type: ignore[no-any-return,no-untyped-call]
        return self._estimate(*self._numbers(log_q, f, log_g, log_norm))

    @staticmethod
    def _numbers(log_q: Tensor, f: Tensor, log_g: Tensor, log_norm: float | Tensor) -> tuple[Tensor, ...]:
        """What `_estimate` takes."""
        inside = f > 0
        zero = torch.zeros_like(log_q)
        log_p = torch.where(inside, f, 1.0).log() - log_norm
        return (
            torch.where(inside, log_p - log_q, zero),
            log_q - log_g,
            torch.where(inside, log_p - log_g, zero),
            inside,
        )

    def parameters(self) -> dict[str, float]:
        """The settings: `divergence(d.name, **d.parameters())` equals `d`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _log_norm(self, f: Tensor, log_g: Tensor, norm: float | Tensor | None) -> float | Tensor:
        if norm is None:
            log_norm = torch.logsumexp(f.log() - log_g, 0) - math.log(len(log_g))
            return torch.where((f > 0).any(), log_norm, torch.zeros_like(log_norm))
        if isinstance(norm, Tensor) and norm.ndim != 0:
            raise ShapeError(f"norm must be a single number, got shape {tuple(norm.shape)}")
        value = float(norm)
        if not math.isfinite(value):
            raise NonFiniteError(f"norm must be finite, got {value}")
        if not value > 0:
            raise DomainError(f"norm must be positive, got {value}: estimate the integral of |f| first")
        return math.log(value)

    @abc.abstractmethod
    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        """Mean over the points, from log p/q, log q/g and log p/g; those with p are 0 where f = 0."""

    def _with_slope(
        self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Value and derivatives in each log q where these are known in closed form; None leaves them to autograd."""
        return None


class _Closed(torch.autograd.Function):
    """A divergence whose derivatives in log q are at hand."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        *numbers, value, slope = given
        ctx.numbers = numbers
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slope,), (divergence, log_q, *others) = ctx.saved_tensors, ctx.numbers
        if torch.is_grad_enabled():  # a second derivative is wanted
            plain = divergence._estimate(*divergence._numbers(log_q, *others))
            (slope,) = torch.autograd.grad(plain, log_q, create_graph=True)
        return (None, grads[0] * slope, *[None] * 5)


@dataclasses.dataclass(frozen=True)
class FDivergence(Divergence):
    """Those of the form ∫ q φ(p/q): a subclass gives φ and its limit where p = 0.

    >>> class Hellinger(FDivergence):
    ...     def _terms(self, log_t, q, p):
    ...         return 0.5 * (p + q) - q * (0.5 * log_t).exp()
    ...     def _at_zero(self):
    ...         return 0.5
    >>> Hellinger()(torch.zeros(2), torch.tensor([2.0, 0.0]), torch.zeros(2))
    tensor(0.2929)
    """

    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        q = log_q_g.exp()
        return torch.where(inside, self._terms(log_t, q, log_p_g.exp()), self._at_zero() * q).mean()

    @abc.abstractmethod
    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        """q φ(t) / g inside the support, from log t and from `q`, `p`, each divided by g."""

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor | None:
        """Derivatives of `_terms` in log q, q (φ(t) - t φ'(t)) / g, where they are known in closed form."""
        return None

    def _with_slope(
        self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        q, p = log_q_g.exp(), log_p_g.exp()
        slopes = self._slopes(log_t, q, p)
        if slopes is None:
            return None
        leaked = self._at_zero() * q
        value = torch.where(inside, self._terms(log_t, q, p), leaked).mean()
        return value, torch.where(inside, slopes, leaked) / len(q)

    def _at_zero(self) -> float:
        """φ(0), the price of a unit of proposal mass where f = 0."""
        return 0.0


def _check(log_q: Tensor, f: Tensor, log_g: Tensor) -> None:
    shapes = {"log_q": tuple(log_q.shape), "f": tuple(f.shape), "log_g": tuple(log_g.shape)}
    if len(set(shapes.values())) > 1 or f.ndim != 1 or len(f) == 0:
        raise ShapeError(f"log_q, f and log_g must share one shape (n,) with n > 0, got {shapes}")
    lowest, highest = torch.aminmax(f.detach())  # NaN if there is one
    if not (lowest >= 0 and highest < math.inf):
        if bool(torch.isfinite(f).all()):
            raise DomainError("f must not be negative: pass absolute values of a signed integrand")
        raise NonFiniteError("f has NaN or infinite entries: remove or zero them before training")
