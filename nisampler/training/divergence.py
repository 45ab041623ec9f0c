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
from typing import ClassVar

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
        log_q = log_q.to(dtype)
        inside = f > 0
        log_f = torch.where(inside, f, torch.ones_like(f)).log()
        log_p = log_f - self._log_norm(log_f, inside, log_g, norm)
        zero = torch.zeros_like(log_q)
        log_t = torch.where(inside, log_p - log_q, zero)
        return self._estimate(log_t, log_q - log_g, torch.where(inside, log_p - log_g, zero), inside)

    def parameters(self) -> dict[str, float]:
        """The settings: `divergence(d.name, **d.parameters())` equals `d`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _log_norm(self, log_f: Tensor, inside: Tensor, log_g: Tensor, norm: float | Tensor | None) -> Tensor:
        if norm is None:
            log_w = torch.where(inside, log_f - log_g, torch.full_like(log_g, -math.inf))
            log_norm = torch.logsumexp(log_w, 0) - math.log(len(log_g))
            return torch.where(inside.any(), log_norm, torch.zeros_like(log_norm))
        value = torch.as_tensor(norm, dtype=log_f.dtype, device=log_f.device).detach()
        if value.ndim != 0:
            raise ShapeError(f"norm must be a single number, got shape {tuple(value.shape)}")
        if not bool(torch.isfinite(value)):
            raise NonFiniteError(f"norm must be finite, got {float(value)}")
        if not bool(value > 0):
            raise DomainError(f"norm must be positive, got {float(value)}: estimate the integral of |f| first")
        return value.log()

    @abc.abstractmethod
    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        """Mean over the points, from log p/q, log q/g and log p/g; those with p are 0 where f = 0."""


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

    def _at_zero(self) -> float:
        """φ(0), the price of a unit of proposal mass where f = 0."""
        return 0.0


def _check(log_q: Tensor, f: Tensor, log_g: Tensor) -> None:
    shapes = {"log_q": tuple(log_q.shape), "f": tuple(f.shape), "log_g": tuple(log_g.shape)}
    if len(set(shapes.values())) > 1 or f.ndim != 1 or len(f) == 0:
        raise ShapeError(f"log_q, f and log_g must share one shape (n,) with n > 0, got {shapes}")
    if not bool(((f >= 0) & (f < math.inf)).all()):
        if bool(torch.isfinite(f).all()):
            raise DomainError("f must not be negative: pass absolute values of a signed integrand")
        raise NonFiniteError("f has NaN or infinite entries: remove or zero them before training")
