"""Test functions on the unit cube, each with its exact or high-precision integral.

The set of i-flow (arXiv:2001.05486, section 4) and Genz's six families. Every function is written in torch,
works for any floating dtype and on any device, and maps points of shape (n, dim) to values of shape (n,).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nisampler.base.checks import Dimension, Positive, checked
from nisampler.base.described import Setting, described
from nisampler.errors import ConfigError, ShapeError, UnknownProcessError
from nisampler.processes.functions.genz import GENZ_FAMILIES, Family, GenzFamily

I_FLOW = "arXiv:2001.05486, section 4"

# Gauss-Legendre quadrature with panels that end on the circle; 32 and 40 nodes a panel agree to 1e-15.
CIRCLES_INTEGRAL = 0.013684776724938
# Gauss-Legendre quadrature; 40 and 60 nodes a dimension agree to 1e-23. The paper has 1.9369640238e-10.
BOX_INTEGRAL = 1.936964023868338e-10


@dataclass(frozen=True)
class TestFunction:
    """An integrand on [0, 1]^dim whose integral is known.

    Parameters
    ----------
    name
        The look-up name, for example "camel4".
    dim
        Number of dimensions.
    function
        Maps points (n, dim) to values (n,), any floating dtype, any device.
    integral
        Integral over the unit cube.
    integral_error
        Bound on the numerical error of `integral`; 0 for a closed form.
    source
        Paper and equation.

    Examples
    --------
    >>> half = TestFunction("half", 1, lambda x: x[:, 0], integral=0.5, integral_error=0.0, source="an example")
    >>> half(torch.tensor([[0.25]]))
    tensor([0.2500])
    """

    __test__ = False

    name: str
    dim: int
    function: Callable[[Tensor], Tensor]
    integral: float
    integral_error: float
    source: str

    def __call__(self, x: Tensor) -> Tensor:
        """Values of shape (n,) at the points x of shape (n, dim).

        Raises
        ------
        ShapeError
            If x is not of shape (n, dim).
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ShapeError(f"{self.name} takes points of shape (n, {self.dim}), got {tuple(x.shape)}")
        return self.function(x)


def _gauss(x: Tensor, sigma: float) -> Tensor:
    norm = (sigma * math.sqrt(math.pi)) ** x.shape[1]
    return torch.exp(-((x - 0.5) ** 2).sum(1) / sigma**2) / norm


def _camel(x: Tensor, sigma: float) -> Tensor:
    norm = (sigma * math.sqrt(math.pi)) ** x.shape[1]
    first = torch.exp(-((x - 1 / 3) ** 2).sum(1) / sigma**2)
    second = torch.exp(-((x - 2 / 3) ** 2).sum(1) / sigma**2)
    return 0.5 * (first + second) / norm


def _circles(x: Tensor) -> Tensor:
    p1, p2, radius, width, power = 0.4, 0.6, 0.25, 1 / 0.004, 3
    x1, x2 = x[:, 0], x[:, 1]
    first = torch.exp(-width * ((x2 - p2) ** 2 + (x1 - p1) ** 2 - radius**2).abs())
    second = torch.exp(-width * ((x2 - 1 + p2) ** 2 + (x1 - 1 + p1) ** 2 - radius**2).abs())
    return x2**power * first + (1 - x2) ** power * second


def _annulus(x: Tensor, inner: float, outer: float) -> Tensor:
    radius2 = ((x - 0.5) ** 2).sum(1)
    return ((radius2 > inner**2) & (radius2 < outer**2)).to(x.dtype)


def _polynomial(x: Tensor) -> Tensor:
    return (x - x**2).sum(1)


def _box(x: Tensor, s12: float, s23: float, leg_masses2: tuple[float, ...], mass2: float) -> Tensor:
    """Scalar box with equal propagator masses: four sectors, in each another Feynman parameter is largest."""
    one = torch.ones_like(x[:, 0])
    total = torch.zeros_like(one)
    for sector in range(4):
        t = list(x.unbind(1))
        t.insert(sector, one)
        f = mass2 * (t[0] + t[1] + t[2] + t[3]) ** 2 - s12 * t[0] * t[2] - s23 * t[1] * t[3]
        for i, leg in enumerate(leg_masses2):
            f = f - leg * t[i] * t[(i + 1) % 4]
        total = total + 1 / f**2
    return total


def gauss(dim: int = 4, sigma: float = 0.2) -> TestFunction:
    """Gaussian exp(-|x - 1/2|^2 / sigma^2) / (sigma sqrt(pi))^dim (2001.05486).

    Integral erf(1 / (2 sigma))^dim.

    Parameters
    ----------
    dim
        Number of coordinates.
    sigma
        Width.

    Raises
    ------
    ConfigError
        If sigma is not positive.

    Examples
    --------
    >>> round(gauss(2).integral, 6)
    0.999186
    >>> gauss(2, sigma=0.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: sigma = 0.0: must be a number, more than 0
    """
    checked("dim", dim, Dimension)
    checked("sigma", sigma, Positive)
    integral = math.erf(1 / (2 * sigma)) ** dim
    return TestFunction(f"gauss{dim}", dim, partial(_gauss, sigma=sigma), integral, 0.0, I_FLOW)


def camel(dim: int = 4, sigma: float = 0.2) -> TestFunction:
    """Two Gaussians at 1/3 and 2/3 on the diagonal, half the weight each (2001.05486).

    Integral ((erf(1/(3 sigma)) + erf(2/(3 sigma))) / 2)^dim.

    Parameters
    ----------
    dim
        Number of coordinates.
    sigma
        Width of each Gaussian.

    Raises
    ------
    ConfigError
        If sigma is not positive.

    Examples
    --------
    >>> round(camel(4).integral, 6)
    0.963657
    """
    checked("dim", dim, Dimension)
    checked("sigma", sigma, Positive)
    integral = (0.5 * (math.erf(1 / (3 * sigma)) + math.erf(2 / (3 * sigma)))) ** dim
    return TestFunction(f"camel{dim}", dim, partial(_camel, sigma=sigma), integral, 0.0, I_FLOW)


def circles() -> TestFunction:
    """Two entangled circles of radius 0.25 and thickness 0.004 in the square (2001.05486).

    >>> circles().dim
    2
    """
    return TestFunction("circles2", 2, _circles, CIRCLES_INTEGRAL, 1e-15, I_FLOW)


def annulus(inner: float = 0.2, outer: float = 0.45) -> TestFunction:
    """One between two radii around the centre of the square, zero elsewhere (2001.05486).

    Parameters
    ----------
    inner, outer
        The radii, at most 1/2.

    Raises
    ------
    ConfigError
        Unless 0 <= inner < outer <= 0.5.

    Examples
    --------
    >>> annulus()(torch.tensor([[0.5, 0.5], [0.5, 0.8]]))
    tensor([0., 1.])
    >>> annulus(inner=0.5, outer=0.2)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: annulus needs 0 <= inner < outer <= 0.5, got inner=0.5, outer=0.2
    """
    if not 0 <= inner < outer <= 0.5:
        raise ConfigError(f"annulus needs 0 <= inner < outer <= 0.5, got inner={inner}, outer={outer}")
    integral = math.pi * (outer**2 - inner**2)
    return TestFunction("annulus", 2, partial(_annulus, inner=inner, outer=outer), integral, 0.0, I_FLOW)


def box() -> TestFunction:
    r"""One-loop scalar box in three Feynman parameters, in GeV^-4 (2001.05486).

    Sum over the sectors k of \int d^3t F(t_k = 1)^-2 with
    F = m^2 (\sum t)^2 - s12 t1 t3 - s23 t2 t4 - \sum_i p_i^2 t_i t_{i+1}: a top loop (m = 175 GeV) with three
    massless legs and one of mass 125 GeV, s12 = (130 GeV)^2, s23 = -s12 / 2, below every threshold.

    >>> box()(torch.zeros(1, 3, dtype=torch.float64)).shape
    torch.Size([1])
    """
    s12 = 130.0**2
    function = partial(_box, s12=s12, s23=-s12 / 2, leg_masses2=(0.0, 0.0, 0.0, 125.0**2), mass2=175.0**2)
    return TestFunction("box", 3, function, BOX_INTEGRAL, 1e-22, I_FLOW)


def poly(dim: int = 18) -> TestFunction:
    """Polynomial sum_i (x_i - x_i^2), integral dim / 6; dim = 18, 54, 96 in the paper (2001.05486).

    Parameters
    ----------
    dim
        Number of coordinates.

    >>> poly(54).integral
    9.0
    """
    checked("dim", dim, Dimension)
    return TestFunction(f"poly{dim}", dim, _polynomial, dim / 6, 0.0, I_FLOW)


def genz(family: Family, dim: int = 5, difficulty: float | None = None) -> TestFunction:
    """A member of one of Genz's families with fixed, documented parameters (see `GenzFamily.default`).

    Parameters
    ----------
    family
        Which one.
    dim
        Number of coordinates.
    difficulty
        Sum of the parameters that make the function vary; by default that of the family.

    Raises
    ------
    UnknownProcessError
        If there is no such family.
    ConfigError
        If dim or difficulty is outside its range.

    Examples
    --------
    >>> genz("gaussian", dim=3).name
    'genz_gaussian3'
    """
    if family not in GENZ_FAMILIES:
        raise UnknownProcessError(f"no Genz family {family!r}; known: {', '.join(sorted(GENZ_FAMILIES))}")
    member = GenzFamily.default(family, dim, difficulty)
    integral, error = member.integral()
    return TestFunction(f"genz_{family}{dim}", dim, member, integral, error, GenzFamily.source)


def parameters(name: str) -> tuple[Setting, ...]:
    """The parameters of a test function; none where the name has its dimension, and the function no other.

    >>> [found.name for found in parameters("camel")], [found.name for found in parameters("camel4")]
    (['dim', 'sigma'], ['sigma'])
    """
    base, in_name = _split(name)
    return tuple(item for item in described(_TABLE[base].build) if in_name is None or item.name != "dim")


@dataclass(frozen=True)
class _Entry:
    build: Callable[..., TestFunction]
    summary: str
    fixed_dim: int | None = None


_TABLE: dict[str, _Entry] = {
    "gauss": _Entry(gauss, "Gaussian of width 0.2 in any dimension (2001.05486)"),
    "camel": _Entry(camel, "two Gaussians on the diagonal, any dimension (2001.05486)"),
    "circles": _Entry(circles, "two entangled circles in the square (2001.05486)", fixed_dim=2),
    "annulus": _Entry(annulus, "annulus with sharp cuts in the square (2001.05486)", fixed_dim=2),
    "box": _Entry(box, "one-loop scalar box in three Feynman parameters (2001.05486)", fixed_dim=3),
    "poly": _Entry(poly, "quadratic polynomial in up to 96 dimensions and more (2001.05486)"),
}
_TABLE.update(
    {
        f"genz_{family}": _Entry(partial(genz, family), f"Genz's {family.replace('_', ' ')}, any dimension")
        for family in GENZ_FAMILIES
    }
)


def names() -> dict[str, str]:
    """The base names of the test functions, each with a one-line description.

    >>> names()["poly"]
    'quadratic polynomial in up to 96 dimensions and more (2001.05486)'
    """
    return {name: entry.summary for name, entry in _TABLE.items()}


def is_test_function(name: str) -> bool:
    """Whether `test_function(name)` knows this name, with or without a trailing dimension.

    >>> is_test_function("camel4"), is_test_function("dromedary")
    (True, False)
    """
    return _split(name)[0] in _TABLE


def _split(name: str) -> tuple[str, int | None]:
    if name in _TABLE:
        return name, None
    match = re.fullmatch(r"([a-z_]+?)(\d+)", name)
    return (match.group(1), int(match.group(2))) if match else (name, None)


def test_function(name: str, dim: int | None = None, **options: float) -> TestFunction:
    """Look a test function up by name, for example `test_function("camel", 4)` or `test_function("camel4")`.

    Parameters
    ----------
    name
        One of `names()`, optionally followed by the dimension.
    dim
        Number of dimensions; may be left out where the name has it or the function has only one.
    options
        Further parameters of that function, such as `sigma`.

    Raises
    ------
    UnknownProcessError
        If there is no such function; the message lists the known ones.
    ConfigError
        If the dimension is missing, contradictory or not positive, or an option is unknown.

    Examples
    --------
    >>> test_function("camel4").dim
    4
    >>> test_function("annulus", dim=3)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: annulus exists in dim = 2 only, got dim = 3
    """
    base, in_name = _split(name)
    if base not in _TABLE:
        raise UnknownProcessError(f"no test function {name!r}; known: {', '.join(sorted(_TABLE))}")
    entry = _TABLE[base]
    checked("dim", dim, Dimension | None)
    if in_name is not None and dim not in (None, in_name):
        raise ConfigError(f"dim = {dim} contradicts the name {name!r}")
    wanted = in_name if dim is None else dim
    if entry.fixed_dim is not None and wanted not in (None, entry.fixed_dim):
        raise ConfigError(f"{base} exists in dim = {entry.fixed_dim} only, got dim = {wanted}")
    dimension = {} if wanted is None or entry.fixed_dim is not None else {"dim": wanted}
    try:
        return entry.build(**dimension, **options)
    except TypeError as error:
        raise ConfigError(f"{base} cannot take the options {options}: {error}") from error


test_function.__test__ = False  # type: ignore[attr-defined]
