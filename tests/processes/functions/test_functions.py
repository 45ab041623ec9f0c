"""Test functions: integrals, shapes, dtypes and look-up."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy.special import erf

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, ShapeError, UnknownProcessError
from nisampler.processes.functions.functions import TestFunction, names, test_function
from nisampler.processes.functions.genz import GENZ_FAMILIES, GenzFamily

ALL = ["gauss4", "camel4", "circles2", "annulus", "box", "poly18", *(f"genz_{f}5" for f in GENZ_FAMILIES)]


def panels(edges: list[float], nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on every interval between the edges."""
    x, w = leggauss(nodes)
    ends = np.asarray(sorted(set(edges)))
    half = np.diff(ends)[:, None] / 2
    return (ends[:-1, None] + half * (x + 1)).ravel(), (half * w).ravel()


def quadrature(function: TestFunction, edges: list[list[float]], nodes: int) -> float:
    """Tensor-product quadrature with a list of panel edges for each dimension."""
    axes = [panels(e, nodes) for e in edges]
    grid = np.stack(np.meshgrid(*(x for x, _ in axes), indexing="ij"), -1).reshape(-1, function.dim)
    weight = np.prod(np.stack(np.meshgrid(*(w for _, w in axes), indexing="ij"), -1), axis=-1).ravel()
    return float(function(torch.from_numpy(grid)).numpy() @ weight)


@pytest.mark.parametrize("name", ["gauss", "camel", "poly", *(f"genz_{f}" for f in GENZ_FAMILIES)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_integrals_agree_with_quadrature(name: str, dim: int) -> None:
    function = test_function(name, dim)
    edges = [[0.0, 1.0]] * dim
    if name.startswith("genz"):
        edges = [[0.0, w, 1.0] for w in GenzFamily.default(name.removeprefix("genz_"), dim).w]
    assert quadrature(function, edges, 40) == pytest.approx(function.integral, rel=1e-11)


def test_box_agrees_with_quadrature_and_with_the_published_value() -> None:
    function = test_function("box")
    assert quadrature(function, [[0.0, 1.0]] * 3, 30) == pytest.approx(function.integral, rel=1e-13)
    assert function.integral == pytest.approx(1.9369640238e-10, rel=1e-10)


def test_circles_agree_with_quadrature_along_the_circle() -> None:
    function = test_function("circles2")
    kinks = [0.15, 0.65, 0.35, 0.85]
    fine = [k + s * 0.25 * 2.0**-j for k in kinks for j in range(20) for s in (-1, 1)]
    outer, outer_weight = panels([0.0, 1.0, *kinks, *(k for k in fine if 0 < k < 1), *np.linspace(0, 1, 21)], 16)
    total = 0.0
    for x2, weight in zip(outer, outer_weight, strict=True):
        edges = list(np.linspace(0, 1, 9))
        for c1, c2 in ((0.4, 0.6), (0.6, 0.4)):
            if abs(x2 - c2) < 0.25:
                chord = math.sqrt(0.0625 - (x2 - c2) ** 2)
                edges += [c1 - chord, c1 + chord]
        x1, inner_weight = panels(edges, 20)
        points = torch.from_numpy(np.stack([x1, np.full_like(x1, x2)], 1))
        total += weight * float(function(points).numpy() @ inner_weight)
    assert total == pytest.approx(function.integral, rel=1e-11)
    assert function.integral == pytest.approx(0.0136848, abs=5e-8)


def test_annulus_agrees_with_the_area_on_a_fine_grid() -> None:
    function = test_function("annulus")
    axis = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    grid = torch.cartesian_prod(axis, axis)
    assert function(grid).mean().item() == pytest.approx(function.integral, rel=2e-5)


@pytest.mark.parametrize("name", ["gauss4", "camel8", "poly96", *(f"genz_{f}8" for f in GENZ_FAMILIES)])
def test_monte_carlo_pull_in_higher_dimension(name: str) -> None:
    function = test_function(name)
    generator = Streams(11).generator("test", *(ord(c) for c in name))
    values = function(torch.rand(200_000, function.dim, dtype=torch.float64, generator=generator))
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item() - function.integral) < 4 * error


def test_corner_peak_agrees_with_the_exact_alternating_sum() -> None:
    member = GenzFamily.default("corner_peak", 10)
    a = [Fraction(value) for value in member.a]
    total = Fraction(0)
    for size in range(len(a) + 1):
        for subset in itertools.combinations(a, size):
            total += Fraction((-1) ** size) / (1 + sum(subset))
    exact = float(total / math.prod(a)) / math.factorial(len(a))
    value, error = member.integral()
    assert value == pytest.approx(exact, rel=1e-12)
    assert error >= abs(value - exact)


def test_camel_and_gauss_follow_the_published_formulae() -> None:
    assert test_function("gauss", 3).integral == pytest.approx(erf(1 / 0.4) ** 3)
    assert test_function("camel", 3).integral == pytest.approx(((erf(1 / 0.6) + erf(2 / 0.6)) / 2) ** 3)
    assert test_function("poly", 96).integral == 16.0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_shape_are_kept(name: str, dtype: torch.dtype) -> None:
    function = test_function(name)
    x = torch.rand(7, function.dim, dtype=torch.float64, generator=Streams(3).generator("x")).to(dtype)
    values = function(x)
    assert values.shape == (7,)
    assert values.dtype == dtype
    assert bool(torch.isfinite(values).all())
    reference = function(x.double())
    assert torch.allclose(values.double(), reference, rtol=2e-3, atol=1e-6 * float(reference.abs().max()))


def test_every_name_is_found_and_described() -> None:
    for name, text in names().items():
        function = test_function(name)
        assert text
        assert function.source
        assert test_function(function.name) == test_function(name) or function.name.startswith(name)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(n, 4\)"):
        test_function("gauss4")(torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("name", "dim", "options", "message"),
    [
        ("camel4", 5, {}, "contradicts"),
        ("camel", 0, {}, "dim = 0: must be"),
        ("camel", True, {}, "dim = true: must be"),
        ("camel0", None, {}, "at least 1"),
        ("annulus", 3, {}, "dim = 2 only"),
        ("box4", None, {}, "dim = 3 only"),
        ("gauss", 2, {"width": 0.1}, "width"),
        ("gauss", 2, {"sigma": 0.0}, "sigma"),
        ("camel", 2, {"sigma": -1.0}, "sigma"),
        ("annulus", None, {"inner": 0.5, "outer": 0.2}, "inner"),
        ("genz_gaussian", 2, {"difficulty": -1.0}, "difficulty"),
    ],
)
def test_wrong_options_are_named(name: str, dim: int | None, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        test_function(name, dim, **options)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownProcessError, match=r"camel.*gauss"):
        test_function("banana")
    with pytest.raises(UnknownProcessError, match="oscillatory"):
        from nisampler.processes.functions.functions import genz

        genz("banana")


@pytest.mark.parametrize(
    ("family", "a", "w", "message"),
    [
        ("banana", (1.0,), (0.5,), "banana"),
        ("gaussian", (1.0,), (0.5, 0.5), "one entry a dimension"),
        ("gaussian", (), (), "one entry a dimension"),
        ("gaussian", (0.0,), (0.5,), r"a\[1\] = 0.0: must be"),
        ("gaussian", (1.0,), (1.5,), r"w\[1\] = 1.5: must be"),
    ],
)
def test_genz_parameters_are_checked(family: str, a: tuple[float, ...], w: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenzFamily(family, a, w)


def test_genz_default_needs_a_dimension() -> None:
    with pytest.raises(ConfigError, match="dim"):
        GenzFamily.default("gaussian", 0)
