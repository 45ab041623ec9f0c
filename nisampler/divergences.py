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

Sources: i-flow, 2001.05486, and its code for the f-divergences; log-variance 2005.05409, 2010.10436, and
2311.01548 for phase space; Rényi divergence 1206.2459, eq. (1).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from nisampler.errors import ConfigError, DomainError, NonFiniteError, ShapeError


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
    """Those of the form ∫ q φ(p/q): a subclass gives φ and its limit where p = 0."""

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


def _check_control(control: float) -> None:
    if not 0.0 <= control <= 1.0:
        raise ConfigError(f"control must lie between 0 and 1, got {control!r}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ConfigError(f"{name} must lie between {low:g} and {high:g} (exclusive), got {value!r}")


@dataclasses.dataclass(frozen=True)
class ForwardKL(FDivergence):
    r"""Kullback-Leibler :math:`\int p \log(p/q)`, with :math:`\varphi = t \log t + c\,(1 - t)`.

    Attributes
    ----------
    control
        Weight c of the control variate. 1 makes the gradient noise-free at q = p; 0 leaves
        :math:`-\frac{p}{g} \nabla \log q`, quieter for points from a g far narrower than q.

    Raises
    ------
    ConfigError
        Unless `control` lies between 0 and 1.
    """

    name: ClassVar[str] = "forward_kl"
    control: float = 1.0

    def __post_init__(self) -> None:
        _check_control(self.control)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t + self.control * (q - p)

    def _at_zero(self) -> float:
        return self.control


@dataclasses.dataclass(frozen=True)
class ReverseKL(FDivergence):
    r"""Kullback-Leibler :math:`\int q \log(q/p)`, with :math:`\varphi = t - 1 - \log t`.

    It is infinite if q leaks out of the support. Below `floor` the generator is therefore continued along its
    tangent, which keeps it convex and its minimum at q = p: :math:`\varphi(0) = -\log` floor.
    """

    name: ClassVar[str] = "reverse_kl"
    floor: float = 1e-6

    def __post_init__(self) -> None:
        _between("floor", self.floor, 0.0, 1.0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        log_floor = math.log(self.floor)
        above = p - q * (1.0 + log_t.clamp(min=log_floor))
        below = -log_floor * q + (1.0 - 1.0 / self.floor) * p
        return torch.where(log_t >= log_floor, above, below)

    def _at_zero(self) -> float:
        return -math.log(self.floor)


@dataclasses.dataclass(frozen=True)
class Jeffreys(FDivergence):
    r""":math:`\int (p - q) \log(p/q)`, the sum of `ForwardKL` and `ReverseKL`; floor as in the latter."""

    name: ClassVar[str] = "jeffreys"
    floor: float = 1e-6

    def __post_init__(self) -> None:
        _between("floor", self.floor, 0.0, 1.0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return ForwardKL()._terms(log_t, q, p) + ReverseKL(self.floor)._terms(log_t, q, p)

    def _at_zero(self) -> float:
        return 1.0 - math.log(self.floor)


@dataclasses.dataclass(frozen=True)
class Variance(FDivergence):
    r"""Neyman's :math:`\chi^2 = \int (p - q)^2 / q`: the relative variance of the weights f/q.

    With :math:`\varphi = t^2 - t + c\,(1 - t)`; `control` is c, as in `ForwardKL`.
    """

    name: ClassVar[str] = "variance"
    control: float = 1.0

    def __post_init__(self) -> None:
        _check_control(self.control)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.exp() - p + self.control * (q - p)

    def _at_zero(self) -> float:
        return self.control


@dataclasses.dataclass(frozen=True)
class PearsonChi2(FDivergence):
    r"""Pearson's :math:`\chi^2 = \int (p - q)^2 / p`, with :math:`\varphi = t - 2 + 1/t`.

    Infinite if q leaks out of the support; continued along its tangent below `floor`, as in `ReverseKL`.
    """

    name: ClassVar[str] = "pearson"
    floor: float = 1e-3

    def __post_init__(self) -> None:
        _between("floor", self.floor, 0.0, 1.0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        log_floor = math.log(self.floor)
        above = q * (-log_t.clamp(min=log_floor)).exp() - 2.0 * q + p
        below = self._at_zero() * q + (1.0 - self.floor**-2) * p
        return torch.where(log_t >= log_floor, above, below)

    def _at_zero(self) -> float:
        return 2.0 / self.floor - 2.0


@dataclasses.dataclass(frozen=True)
class Hellinger(FDivergence):
    r"""Squared Hellinger distance :math:`\tfrac12 \int (\sqrt p - \sqrt q)^2`, between 0 and 1."""

    name: ClassVar[str] = "hellinger"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 0.5 * (p + q) - q * (0.5 * log_t).exp()

    def _at_zero(self) -> float:
        return 0.5


@dataclasses.dataclass(frozen=True)
class JensenShannon(FDivergence):
    r""":math:`\tfrac12 \int p \log(p/m) + q \log(q/m)` with :math:`m = (p + q)/2`, between 0 and log 2."""

    name: ClassVar[str] = "jensen_shannon"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        softplus = torch.nn.functional.softplus
        return 0.5 * (p * (math.log(2.0) - softplus(-log_t)) + q * (math.log(2.0) - softplus(log_t)))

    def _at_zero(self) -> float:
        return 0.5 * math.log(2.0)


@dataclasses.dataclass(frozen=True)
class Exponential(FDivergence):
    r""":math:`\int p \log^2(p/q)`. Leakage is felt only through the mass that q lacks on the support."""

    name: ClassVar[str] = "exponential"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.square()


@dataclasses.dataclass(frozen=True)
class SquaredExponential(FDivergence):
    r""":math:`\int p^2/q\, \log^2(p/q)`, which weighs large weights most; leakage as in `Exponential`."""

    name: ClassVar[str] = "squared_exponential"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.exp() * log_t.square()


@dataclasses.dataclass(frozen=True)
class ABProduct(FDivergence):
    r"""(α, β)-product :math:`\frac{2}{(1-\alpha)(1-\beta)} \int p\,(1 - (q/p)^a)(1 - (q/p)^b)`.

    Here a = (1 - α)/2 and b = (1 - β)/2. Leakage as in `Exponential`.
    `ConfigError` unless α and β lie between 0 and 1.
    """

    name: ClassVar[str] = "ab_product"
    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        _between("alpha", self.alpha, 0.0, 1.0)
        _between("beta", self.beta, 0.0, 1.0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        a, b = 0.5 * (1.0 - self.alpha), 0.5 * (1.0 - self.beta)
        powers = (log_t * (1.0 - a - b)).exp() - (log_t * (1.0 - a)).exp() - (log_t * (1.0 - b)).exp()
        return (p + q * powers) / (2.0 * a * b)


def _alpha_terms(log_t: Tensor, q: Tensor, p: Tensor, order: float) -> Tensor:
    """q (t^a - 1 - a (t - 1)) / (a (a - 1)) over g."""
    return (q * (order * log_t).exp() - q - order * (p - q)) / (order * (order - 1.0))


@dataclasses.dataclass(frozen=True)
class Chernoff(FDivergence):
    r"""Chernoff's :math:`\frac{4}{1-\alpha^2} \left(1 - \int p^{(1-\alpha)/2} q^{(1+\alpha)/2}\right)`.

    The convention for α is i-flow's; 0 gives four times `Hellinger`.
    `ConfigError` unless α lies between -1 and 1.
    """

    name: ClassVar[str] = "chernoff"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _between("alpha", self.alpha, -1.0, 1.0)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_terms(log_t, q, p, 0.5 * (1.0 - self.alpha))

    def _at_zero(self) -> float:
        return 2.0 / (1.0 - self.alpha)


def _check_order(alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha > 0.0) or alpha == 1.0:
        raise ConfigError(f"alpha must be positive and not 1 (use forward_kl for 1), got {alpha!r}")


@dataclasses.dataclass(frozen=True)
class Alpha(FDivergence):
    r""":math:`\frac{1}{\alpha(\alpha-1)} \left(\int p^\alpha q^{1-\alpha} - 1\right)`.

    The unbiased twin of `Renyi`. For α = 2 it is half the variance.
    `ConfigError` unless α is positive and not 1.
    """

    name: ClassVar[str] = "alpha"
    alpha: float = 4.0

    def __post_init__(self) -> None:
        _check_order(self.alpha)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_terms(log_t, q, p, self.alpha)

    def _at_zero(self) -> float:
        return 1.0 / self.alpha


@dataclasses.dataclass(frozen=True)
class Renyi(Divergence):
    r"""Rényi's :math:`\frac{1}{\alpha-1} \log \int p^\alpha q^{1-\alpha}` (1206.2459, eq. 1).

    A large order sees the tail of large weights and little else: train with it last. Its gradient is that of
    `Alpha` times :math:`\alpha / \int p^\alpha q^{1-\alpha}`, and dividing by the batch's estimate of this
    integral keeps the gradient bounded however large a weight is. The price is a bias of order 1/n of a
    ratio of means; `Alpha` has none. `ConfigError` unless α is positive and not 1.
    """

    name: ClassVar[str] = "renyi"
    unbiased: ClassVar[bool] = False
    alpha: float = 4.0

    def __post_init__(self) -> None:
        _check_order(self.alpha)

    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        a = self.alpha
        exponent = a * log_t + log_q_g
        scale = exponent.detach().max().clamp(min=0.0)
        q, p = (log_q_g - scale).exp(), (log_p_g - scale).exp()
        shifted = (exponent - scale).exp() + (a - 1.0) * q - a * p
        total = torch.where(inside, shifted, (a - 1.0) * q).mean() + (-scale).exp()
        return (total.log() + scale) / (a - 1.0)


@dataclasses.dataclass(frozen=True)
class LogVariance(Divergence):
    r"""Variance of the log weight over the points, plus the proposal's mass where f = 0.

    .. math:: D = \mathrm{Var}_{x \sim g,\,f > 0}\left[\log\frac{f}{q}\right] + \lambda \int_{f = 0} q

    The variance is taken over the points as they come, that is in the measure g restricted to f > 0, and is
    the unbiased one (n - 1); at least two such points are needed to see it. It ignores the norm, and its
    gradient is noise-free at q ∝ f (2005.05409, 2010.10436). Alone it is blind to leakage: q = c f on the
    support is a minimum for every c ≤ 1/I. The second term, q/g summed over the points with f = 0 and divided
    by n, makes q = f/I the only minimum. With λ = 1 and g = q, the sum agrees to leading order with the
    relative variance of the weights.

    Attributes
    ----------
    leak
        λ, positive.

    Raises
    ------
    ConfigError
        If `leak` is not positive and finite.
    """

    name: ClassVar[str] = "log_variance"
    leak: float = 1.0

    def __post_init__(self) -> None:
        _between("leak", self.leak, 0.0, math.inf)

    def _log_norm(self, log_f: Tensor, inside: Tensor, log_g: Tensor, norm: float | Tensor | None) -> Tensor:
        return log_f.new_zeros(())

    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        zero = torch.zeros_like(log_t)
        count = inside.sum()
        mean = log_t.sum() / count.clamp(min=1)
        squares = torch.where(inside, (log_t - mean).square(), zero)
        variance = squares.sum() / (count - 1).clamp(min=1)
        leaked = torch.where(inside, zero, torch.where(inside, zero, log_q_g).exp())
        return variance + self.leak * leaked.mean()


DIVERGENCES: Mapping[str, type[Divergence]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ABProduct,
            Alpha,
            Chernoff,
            Exponential,
            ForwardKL,
            Hellinger,
            Jeffreys,
            JensenShannon,
            LogVariance,
            PearsonChi2,
            Renyi,
            ReverseKL,
            SquaredExponential,
            Variance,
        )
    }
)
"""Every divergence by its name."""


def divergence(name: str, **parameters: Any) -> Divergence:
    """The divergence of that name with its parameters, such as `divergence("renyi", alpha=4)`.

    Raises
    ------
    ConfigError
        For an unknown name or parameter (the known ones are listed) or a value out of range.

    Examples
    --------
    >>> divergence("renyi", alpha=2.5)
    Renyi(alpha=2.5)
    """
    if name not in DIVERGENCES:
        raise ConfigError(f"no divergence is called {name!r}; known are {', '.join(sorted(DIVERGENCES))}")
    kind = DIVERGENCES[name]
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        raise ConfigError(f"divergence {name!r} has no parameter {', '.join(unknown)}; it {takes}")
    return kind(**parameters)
