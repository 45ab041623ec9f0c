r"""The divergences that a proposal can be trained with, by name; what they share is in `divergence`.

Sources: i-flow, 2001.05486, and its code for the f-divergences; log-variance 2005.05409, 2010.10436, and
2311.01548 for phase space; Rényi divergence 1206.2459, eq. (1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from nisampler.base.checks import Finite, Positive, settings
from nisampler.errors import ConfigError
from nisampler.training.divergence import Divergence, FDivergence

Share = Annotated[Finite, Field(ge=0.0, le=1.0)]
Inner = Annotated[Finite, Field(gt=0.0, lt=1.0)]


@settings
class ForwardKL(FDivergence):
    r"""Kullback-Leibler :math:`\int p \log(p/q)`, with :math:`\varphi = t \log t + c\,(1 - t)`.

    Attributes
    ----------
    control
        Weight c of the control variate. 1 makes the gradient noise-free at q = p; 0 leaves
        :math:`-\frac{p}{g} \nabla \log q`, quieter for points from a g far narrower than q. `ConfigError` unless it
        lies between 0 and 1.

    Examples
    --------
    >>> round(float(ForwardKL()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.1308
    """

    name: ClassVar[str] = "forward_kl"
    control: Share = 1.0

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t + self.control * (q - p)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return self.control * q - p

    def _at_zero(self) -> float:
        return self.control


@settings
class ReverseKL(FDivergence):
    r"""Kullback-Leibler :math:`\int q \log(q/p)`, with :math:`\varphi = t - 1 - \log t`.

    It is infinite if q leaks out of the support. Below `floor` the generator is therefore continued along its
    tangent, which keeps it convex and its minimum at q = p: :math:`\varphi(0) = -\log` floor.

    >>> round(float(ReverseKL()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.1438
    """

    name: ClassVar[str] = "reverse_kl"
    floor: Inner = 1e-6

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        log_floor = math.log(self.floor)
        above = p - q * (1.0 + log_t.clamp(min=log_floor))
        below = -log_floor * q + (1.0 - 1.0 / self.floor) * p
        return torch.where(log_t >= log_floor, above, below)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return -q * log_t.clamp(min=math.log(self.floor))

    def _at_zero(self) -> float:
        return -math.log(self.floor)


@settings
class Jeffreys(FDivergence):
    r""":math:`\int (p - q) \log(p/q)`, the sum of `ForwardKL` and `ReverseKL`; floor as in the latter.

    >>> round(float(Jeffreys()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.2747
    """

    name: ClassVar[str] = "jeffreys"
    floor: Inner = 1e-6

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return ForwardKL()._terms(log_t, q, p) + ReverseKL(self.floor)._terms(log_t, q, p)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return ForwardKL()._slopes(log_t, q, p) + ReverseKL(self.floor)._slopes(log_t, q, p)

    def _at_zero(self) -> float:
        return 1.0 - math.log(self.floor)


@settings
class Variance(FDivergence):
    r"""Neyman's :math:`\chi^2 = \int (p - q)^2 / q`: the relative variance of the weights f/q.

    With :math:`\varphi = t^2 - t + c\,(1 - t)`; `control` is c, as in `ForwardKL`.

    >>> round(float(Variance()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.25
    """

    name: ClassVar[str] = "variance"
    control: Share = 1.0

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.exp() - p + self.control * (q - p)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return self.control * q - p * log_t.exp()

    def _at_zero(self) -> float:
        return self.control


@settings
class PearsonChi2(FDivergence):
    r"""Pearson's :math:`\chi^2 = \int (p - q)^2 / p`, with :math:`\varphi = t - 2 + 1/t`.

    Infinite if q leaks out of the support; continued along its tangent below `floor`, as in `ReverseKL`.

    >>> round(float(PearsonChi2()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.3333
    """

    name: ClassVar[str] = "pearson"
    floor: Inner = 1e-3

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        log_floor = math.log(self.floor)
        above = q * (-log_t.clamp(min=log_floor)).exp() - 2.0 * q + p
        below = self._at_zero() * q + (1.0 - self.floor**-2) * p
        return torch.where(log_t >= log_floor, above, below)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        above = 2.0 * q * (-log_t.clamp(min=math.log(self.floor))).exp() - 2.0 * q
        return torch.where(log_t >= math.log(self.floor), above, self._at_zero() * q)

    def _at_zero(self) -> float:
        return 2.0 / self.floor - 2.0


@settings
class Hellinger(FDivergence):
    r"""Squared Hellinger distance :math:`\tfrac12 \int (\sqrt p - \sqrt q)^2`, between 0 and 1.

    >>> round(float(Hellinger()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.0341
    """

    name: ClassVar[str] = "hellinger"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 0.5 * (p + q) - q * (0.5 * log_t).exp()

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 0.5 * q * (1.0 - (0.5 * log_t).exp())

    def _at_zero(self) -> float:
        return 0.5


@settings
class JensenShannon(FDivergence):
    r""":math:`\tfrac12 \int p \log(p/m) + q \log(q/m)` with :math:`m = (p + q)/2`, between 0 and log 2.

    >>> round(float(JensenShannon()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.0338
    """

    name: ClassVar[str] = "jensen_shannon"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 0.5 * (p * (math.log(2.0) - softplus(-log_t)) + q * (math.log(2.0) - softplus(log_t)))

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 0.5 * q * (math.log(2.0) - softplus(log_t))

    def _at_zero(self) -> float:
        return 0.5 * math.log(2.0)


@settings
class Exponential(FDivergence):
    r""":math:`\int p \log^2(p/q)`. Leakage is felt only through the mass that q lacks on the support.

    >>> round(float(Exponential()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.2434
    """

    name: ClassVar[str] = "exponential"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.square()

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return -2.0 * p * log_t


@settings
class SquaredExponential(FDivergence):
    r""":math:`\int p^2/q\, \log^2(p/q)`, which weighs large weights most; leakage as in `Exponential`.

    >>> round(float(SquaredExponential()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.245
    """

    name: ClassVar[str] = "squared_exponential"

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return p * log_t.exp() * log_t.square()

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return -p * log_t.exp() * log_t * (log_t + 2.0)


@settings
class ABProduct(FDivergence):
    r"""(α, β)-product :math:`\frac{2}{(1-\alpha)(1-\beta)} \int p\,(1 - (q/p)^a)(1 - (q/p)^b)`.

    Here a = (1 - α)/2 and b = (1 - β)/2. Leakage as in `Exponential`. `ConfigError` unless α and β lie between 0 and 1.

    >>> round(float(ABProduct()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.1274
    """

    name: ClassVar[str] = "ab_product"
    alpha: Inner = 0.5
    beta: Inner = 0.5

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        a, b = 0.5 * (1.0 - self.alpha), 0.5 * (1.0 - self.beta)
        powers = (log_t * (1.0 - a - b)).exp() - (log_t * (1.0 - a)).exp() - (log_t * (1.0 - b)).exp()
        return (p + q * powers) / (2.0 * a * b)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        a, b = 0.5 * (1.0 - self.alpha), 0.5 * (1.0 - self.beta)
        both = (a + b) * (log_t * (1.0 - a - b)).exp()
        return q * (both - a * (log_t * (1.0 - a)).exp() - b * (log_t * (1.0 - b)).exp()) / (2.0 * a * b)


def _alpha_terms(log_t: Tensor, q: Tensor, p: Tensor, order: float) -> Tensor:
    """q (t^a - 1 - a (t - 1)) / (a (a - 1)) over g."""
    return (q * (order * log_t).exp() - q - order * (p - q)) / (order * (order - 1.0))


def _alpha_slopes(log_t: Tensor, q: Tensor, order: float) -> Tensor:
    return q * (1.0 - (order * log_t).exp()) / order


@settings
class Chernoff(FDivergence):
    r"""Chernoff's :math:`\frac{4}{1-\alpha^2} \left(1 - \int p^{(1-\alpha)/2} q^{(1+\alpha)/2}\right)`.

    The convention for α is i-flow's; 0 gives four times `Hellinger`. `ConfigError` unless α lies between -1 and 1.

    >>> round(float(Chernoff()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.1398
    """

    name: ClassVar[str] = "chernoff"
    alpha: Annotated[Finite, Field(gt=-1.0, lt=1.0)] = 0.5

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_terms(log_t, q, p, 0.5 * (1.0 - self.alpha))

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_slopes(log_t, q, 0.5 * (1.0 - self.alpha))

    def _at_zero(self) -> float:
        return 2.0 / (1.0 - self.alpha)


def _check_order(alpha: float) -> None:
    if alpha == 1.0:
        raise ConfigError("alpha must not be 1: its limit there is forward_kl")


@settings
class Alpha(FDivergence):
    r""":math:`\frac{1}{\alpha(\alpha-1)} \left(\int p^\alpha q^{1-\alpha} - 1\right)`.

    The unbiased twin of `Renyi`. For α = 2 it is half the variance.
    `ConfigError` unless α is positive and not 1.

    >>> round(float(Alpha()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.1302
    """

    name: ClassVar[str] = "alpha"
    alpha: Positive = 4.0

    def __post_init__(self) -> None:
        _check_order(self.alpha)

    def _terms(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_terms(log_t, q, p, self.alpha)

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return _alpha_slopes(log_t, q, self.alpha)

    def _at_zero(self) -> float:
        return 1.0 / self.alpha


@settings
class Renyi(Divergence):
    r"""Rényi's :math:`\frac{1}{\alpha-1} \log \int p^\alpha q^{1-\alpha}` (1206.2459, eq. 1).

    A large order sees the tail of large weights and little else: train with it last. Its gradient is that of
    `Alpha` times :math:`\alpha / \int p^\alpha q^{1-\alpha}`, and dividing by the batch's estimate of this
    integral keeps the gradient bounded however large a weight is. The price is a bias of order 1/n of a
    ratio of means; `Alpha` has none. `ConfigError` unless α is positive and not 1.

    >>> round(float(Renyi()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.3137
    """

    name: ClassVar[str] = "renyi"
    unbiased: ClassVar[bool] = False
    alpha: Positive = 4.0

    def __post_init__(self) -> None:
        _check_order(self.alpha)

    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        return self._parts(log_t, log_q_g, log_p_g, inside)[0]

    def _with_slope(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        value, power, q, total = self._parts(log_t, log_q_g, log_p_g, inside)
        return value, (q - torch.where(inside, power, 0.0)) / (total * len(q))

    def _parts(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        """The value, p^α q^{1-α} and q at each point, divided by g and a common scale, and the scaled integral."""
        a = self.alpha
        exponent = a * log_t + log_q_g
        scale = exponent.detach().max().clamp(min=0.0)
        power, q, p = (exponent - scale).exp(), (log_q_g - scale).exp(), (log_p_g - scale).exp()
        shifted = power + (a - 1.0) * q - a * p
        total = torch.where(inside, shifted, (a - 1.0) * q).mean() + (-scale).exp()
        return (total.log() + scale) / (a - 1.0), power, q, total


@settings
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
        λ; `ConfigError` unless it is positive and finite.

    Examples
    --------
    >>> round(float(LogVariance()(torch.zeros(2), torch.tensor([0.5, 1.5]), torch.zeros(2))), 4)
    0.6035
    """

    name: ClassVar[str] = "log_variance"
    leak: Positive = 1.0

    def _log_norm(self, f: Tensor, log_g: Tensor, norm: float | Tensor | None) -> float | Tensor:
        return 0.0

    def _estimate(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> Tensor:
        return self._parts(log_t, log_q_g, inside)[0]

    def _with_slope(self, log_t: Tensor, log_q_g: Tensor, log_p_g: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        value, deviation, count, leaked = self._parts(log_t, log_q_g, inside)
        return value, self.leak * leaked / len(leaked) - 2.0 * deviation / count

    def _parts(self, log_t: Tensor, log_q_g: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        """The value, deviations of the log weights, the number of those less one, and q/g where f = 0."""
        zero = torch.zeros_like(log_t)
        number = inside.sum()
        deviation = torch.where(inside, log_t - log_t.sum() / number.clamp(min=1), zero)
        leaked = torch.where(inside, zero, torch.where(inside, zero, log_q_g).exp())
        count = (number - 1).clamp(min=1)
        return deviation.square().sum() / count + self.leak * leaked.mean(), deviation, count, leaked


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
