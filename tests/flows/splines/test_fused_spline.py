"""The fused spline against plain torch with autograd, on every kernel that this machine has."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from nisampler.errors import ConfigError
from nisampler.flows import Spline
from nisampler.flows.splines import fused_spline
from nisampler.flows.splines.rational_quadratic import BOUNDARIES, MIN_SIZE, MIN_SLOPE, Boundary, n_params, segment

BOUND = 2.5


@pytest.fixture(autouse=True)
def _fused() -> Iterator[None]:
    with fused_spline.using("auto"):
        yield


def draw(n: int, boundary: Boundary, bins: int, scale: float = 1.0, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return x, scale * torch.randn(n, 3, n_params(bins, boundary), generator=generator, dtype=torch.float64)


def textbook(x: Tensor, raw: Tensor, boundary: Boundary) -> tuple[Tensor, Tensor]:
    """The spline of 1906.04032 with nothing but differentiable torch functions."""
    bins = (raw.shape[-1] - {"free": 1, "linear": -1, "periodic": 0}[boundary]) // 3
    width = MIN_SIZE + (1 - bins * MIN_SIZE) * torch.softmax(raw[..., :bins], -1)
    height = MIN_SIZE + (1 - bins * MIN_SIZE) * torch.softmax(raw[..., bins : 2 * bins], -1)
    slope = softplus(raw[..., 2 * bins :] + math.log(math.expm1(1 - MIN_SLOPE))) + MIN_SLOPE
    if boundary == "linear":
        slope = torch.nn.functional.pad(slope, (1, 1), value=1.0)
    elif boundary == "periodic":
        slope = torch.cat([slope, slope[..., :1]], -1)
    right, top = width.cumsum(-1), height.cumsum(-1)
    index = (x.detach().unsqueeze(-1) >= right.detach()[..., :-1]).sum(-1, keepdim=True)

    def at(values: Tensor, shift: int = 0) -> Tensor:
        return values.gather(-1, index + shift).squeeze(-1)

    theta = (x - at(right) + at(width)) / at(width)
    rise, log_slope = segment(theta, at(height) / at(width), at(slope), at(slope, 1))
    return at(top) - at(height) + at(height) * rise, log_slope


def gradients(function: object, x: Tensor, raw: Tensor, weights: Tensor, **options: object) -> tuple[Tensor, ...]:
    x, raw = x.clone().requires_grad_(), raw.clone().requires_grad_()
    y, log_slope = function(x, raw, **options)  # type: ignore[operator]
    loss = (weights[0] * y + weights[1] * log_slope).sum()
    return torch.autograd.grad(loss, (x, raw))


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference of one point's values or parameters, over the size of them all."""
    a, b = (t.double().reshape(t.shape[0], -1) for t in (a, b))
    return float(((a - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-3)).max())


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("bins", [3, 10, 33])
def test_values_are_those_of_the_textbook(boundary: Boundary, bins: int) -> None:
    x, raw = draw(500, boundary, bins)
    y, log_slope = fused_spline.spline(x, raw, boundary=boundary)
    expected = textbook(x, raw, boundary)
    assert torch.allclose(y, expected[0], rtol=0, atol=1e-12)
    assert torch.allclose(log_slope, expected[1], rtol=0, atol=1e-10)
    back, down = fused_spline.spline(y, raw, inverse=True, boundary=boundary)
    assert torch.allclose(back, x, rtol=0, atol=1e-10)
    assert torch.allclose(down, -log_slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.0, 3.0), bins=st.integers(3, 20))
@settings(max_examples=25, deadline=None)
def test_gradients_are_those_of_autograd(boundary: Boundary, seed: int, scale: float, bins: int) -> None:
    x, raw = draw(40, boundary, bins, scale, seed)
    weights = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    expected = gradients(textbook, x, raw, weights, boundary=boundary)
    found = gradients(fused_spline.spline, x, raw, weights, boundary=boundary)
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-10


@pytest.mark.parametrize("boundary", BOUNDARIES)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_gradients_of_the_inverse_follow_from_those_of_the_spline(boundary: Boundary, seed: int, scale: float) -> None:
    """With y = f(x, p) and x = g(y, p): dg = (dx - f_p dp)/f_x; and log g' = -log f' at the same place."""
    x, raw = draw(40, boundary, 8, scale, seed)
    weights = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    y, log_slope = (t.detach() for t in textbook(x, raw, boundary))
    pull = torch.autograd.functional.jvp(lambda t: textbook(t, raw, boundary)[1], x, torch.ones_like(x))[1]
    along = (weights[0] - weights[1] * pull) / log_slope.exp()
    expected = gradients(textbook, x, raw, torch.stack([-along, -weights[1]]), boundary=boundary)[1]
    found = gradients(fused_spline.spline, y, raw, weights, inverse=True, boundary=boundary)
    assert relative(found[0], along) < 1e-8
    assert relative(found[1], expected) < 1e-8


@pytest.mark.parametrize("inverse", [False, True])
def test_single_precision_gradients_are_close_to_double_ones(inverse: bool) -> None:
    x, raw = draw(4000, "free", 10, 0.3)
    weights = torch.ones(2, 4000, 3, dtype=torch.float64)
    expected = gradients(fused_spline.spline, x.float().double(), raw.float().double(), weights, inverse=inverse)
    found = gradients(fused_spline.spline, x.float(), raw.float(), weights.float(), inverse=inverse)
    for a, b in zip(found, expected, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("inverse", [False, True])
def test_box_with_the_identity_outside(inverse: bool) -> None:
    x, raw = draw(600, "linear", 6, 2.0)
    x = 3 * BOUND * (x - 0.5)
    weights = torch.randn(2, 600, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    outside = x.abs() > BOUND
    y, log_slope = fused_spline.spline(x, raw, inverse, boundary="linear", bound=BOUND)
    assert torch.equal(y[outside], x[outside])
    assert not log_slope[outside].any()
    found = gradients(fused_spline.spline, x, raw, weights, inverse=inverse, boundary="linear", bound=BOUND)
    assert torch.equal(found[0][outside], weights[0][outside])
    assert not found[1][outside].any()
    with fused_spline.using("reference"):
        expected = gradients(fused_spline.spline, x, raw, weights, inverse=inverse, boundary="linear", bound=BOUND)
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_split_of_a_batch(dtype: torch.dtype) -> None:
    x, raw = draw(1000, "free", 10)
    x, raw = x.to(dtype), raw.to(dtype)
    weights = torch.ones(2, 1000, 3, dtype=dtype)
    whole = [*fused_spline.spline(x, raw), *gradients(fused_spline.spline, x, raw, weights)]
    parts = []
    for part in (slice(0, 1), slice(1, 130), slice(130, 999), slice(999, 1000)):
        values = fused_spline.spline(x[part], raw[part])
        parts.append([*values, *gradients(fused_spline.spline, x[part], raw[part], weights[:, part])])
    for tensor, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(tensor, torch.cat(pieces))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, raw = draw(9000, "free", 5)
    one = fused_spline.spline(x, raw)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        three = fused_spline.spline(x, raw)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], three[0])
    assert torch.equal(one[1], three[1])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bound", [0.0, BOUND])
def test_nan_stays_nan(inverse: bool, bound: float) -> None:
    x, raw = draw(200, "linear", 5)
    x[3, 1] = math.nan
    raw[7, 0, 2] = raw[9, 2, 6] = math.inf
    y, log_slope = fused_spline.spline(x, raw, inverse, boundary="linear", bound=bound)
    wrong = torch.zeros(200, 3, dtype=torch.bool)
    wrong[3, 1] = wrong[7, 0] = wrong[9, 2] = True
    assert torch.equal(y.isnan(), wrong)
    assert torch.equal(log_slope.isnan(), wrong)


def test_extreme_parameters_stay_finite() -> None:
    x, raw = draw(500, "free", 10, 60.0)
    for dtype in (torch.float32, torch.float64):
        for inverse in (False, True):
            weights = torch.ones(2, 500, 3, dtype=dtype)
            values = fused_spline.spline(x.to(dtype), raw.to(dtype), inverse)
            found = gradients(fused_spline.spline, x.to(dtype), raw.to(dtype), weights, inverse=inverse)
            assert all(t.isfinite().all() for t in (*values, *found))


@pytest.mark.parametrize("shape", [(4,), (2, 4), (5, 2, 4), (0, 4), (3, 0)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    raw = torch.randn(*shape, 16, generator=generator, dtype=torch.float64)
    y, log_slope = fused_spline.spline(x, raw)
    with fused_spline.using("reference"):
        expected = fused_spline.spline(x, raw)
    assert y.shape == log_slope.shape == shape
    assert torch.allclose(y, expected[0], atol=1e-12)
    assert torch.allclose(log_slope, expected[1], atol=1e-10)


def test_second_derivatives_are_refused() -> None:
    x, raw = draw(10, "free", 5)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(fused_spline.spline(x, raw)[0].sum(), x, create_graph=True)
    with pytest.raises(ConfigError, match="first derivatives only"):
        slope.sum().backward()


def test_half_precision_takes_the_reference() -> None:
    x, raw = (t.bfloat16() for t in draw(10, "free", 5))
    assert not fused_spline.fused(x)
    assert fused_spline.spline(x, raw)[0].dtype == torch.bfloat16


def test_unknown_backend_is_named() -> None:
    with (
        pytest.raises(ConfigError, match='backend = "fast": must be "auto" or "reference"'),
        fused_spline.using("fast"),  # type: ignore[arg-type]
    ):
        pass


def test_without_llvmlite_it_says_once_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fused_spline._works.cache_clear()
    x, raw = draw(100, "free", 5)
    try:
        with pytest.warns(fused_spline.FastPathWarning, match=r"pip install .*\[fast\]"):
            slow = Spline(bins=5)(x, raw)
        Spline(bins=5)(x, raw)  # a second warning would be an error
    finally:
        fused_spline._works.cache_clear()
        monkeypatch.undo()
    assert torch.allclose(slow[0], Spline(bins=5)(x, raw)[0], atol=1e-12)


@pytest.mark.parametrize(
    "error", [ImportError("no such library"), SystemError("unknown processor"), RuntimeError("LLVM is too old")]
)
def test_an_llvmlite_that_does_not_work_is_left_alone(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fail when it is imported, when it reads code, and when it compiles."""
    pytest.importorskip("llvmlite")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(fused_spline, "_kernel", fail)
    fused_spline._works.cache_clear()
    x, raw = draw(100, "free", 5)
    raw.requires_grad_()
    reason = re.escape(f"llvmlite does not work here ({type(error).__name__}: {error})")
    try:
        with pytest.warns(fused_spline.FastPathWarning, match=reason):
            slow = Spline(bins=5)(x, raw)
        Spline(bins=5)(x, raw)[1].sum().backward()  # a second warning would be an error
    finally:
        fused_spline._works.cache_clear()
        monkeypatch.undo()
    assert raw.grad is not None and torch.allclose(slow[0], Spline(bins=5)(x, raw)[0], atol=1e-12)


def _twice(x: float) -> float:
    return x + x


def test_without_a_place_for_its_cache_numba_compiles_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    from nisampler.base.kernels import kept

    def refuse(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", refuse)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(_twice)
    assert kept(_twice)(2.0) == 4.0
