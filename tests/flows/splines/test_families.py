"""Laws of the one-dimensional splines, on random and on extreme inputs, and reference formulas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import Spline
from nisampler.flows.splines import fused_spline
from nisampler.flows.splines.families import cubic, linear, quadratic
from nisampler.flows.splines.rational_quadratic import rational_quadratic

KINDS = ("linear", "quadratic", "cubic", "rational_quadratic")
DOMAINS = ("unit", "line", "circle")
BOUND = 2.5
BINS = 6
BOTH = pytest.mark.parametrize("kind", KINDS)
ALL_DOMAINS = pytest.mark.parametrize("domain", DOMAINS)


@pytest.fixture(autouse=True, params=["reference", "auto"])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with fused_spline.using(request.param):
        yield


def make(kind: str, domain: str) -> Spline:
    return Spline(kind, BINS, domain, BOUND)  # type: ignore[arg-type]


def draw(spline: Spline, n: int, scale: float = 1.0, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    if spline.domain == "line":
        x = 3 * BOUND * (x - 0.5)
    params = scale * torch.randn(n, 2, spline.n_params, generator=generator, dtype=torch.float64)
    return x, params


def distance(spline: Spline, a: Tensor, b: Tensor) -> float:
    gap = (a - b).detach().abs()
    if spline.domain == "circle":
        gap = torch.minimum(gap, 1 - gap)
    return float(gap.max())


@BOTH
@ALL_DOMAINS
def test_inverse_undoes_forward(kind: str, domain: str) -> None:
    spline = make(kind, domain)
    x, params = draw(spline, 400)
    y, up = spline(x, params)
    back, down = spline(y, params, inverse=True)
    assert distance(spline, back, x) < 1e-10
    # a rounding at a jump of the density picks the neighbouring bin; none of these points sits on one
    assert torch.allclose(up, -down, atol=1e-8, rtol=0)


@BOTH
@ALL_DOMAINS
@pytest.mark.parametrize("inverse", [False, True])
def test_slope_is_the_derivative(kind: str, domain: str, inverse: bool) -> None:
    spline = make(kind, domain)
    x, params = draw(spline, 400, seed=4)
    x.requires_grad_()
    y, log_slope = spline(x, params, inverse)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope.log(), log_slope, atol=1e-7, rtol=0)


@BOTH
@ALL_DOMAINS
def test_parameter_gradients_agree_in_both_directions(kind: str, domain: str) -> None:
    """From f(g(y)) = y: dg/dp = -(df/dp) / f', which the gradient of the inverse has to reproduce."""
    spline = make(kind, domain)
    x, params = draw(spline, 200, seed=5)
    params.requires_grad_()
    y, log_slope = spline(x, params)
    (forward,) = torch.autograd.grad(y.sum(), params, retain_graph=True)
    expected = -forward / log_slope.detach().exp().unsqueeze(-1)
    (backward,) = torch.autograd.grad(spline(y.detach(), params, inverse=True)[0].sum(), params)
    assert torch.allclose(backward, expected, atol=1e-7, rtol=1e-6)


@BOTH
@ALL_DOMAINS
def test_zero_parameters_are_the_identity(kind: str, domain: str) -> None:
    spline = make(kind, domain)
    x, params = draw(spline, 100, scale=0.0)
    for inverse in (False, True):
        y, log_slope = spline(x, params, inverse)
        assert distance(spline, y, x) < 1e-12
        assert log_slope.abs().max() < 1e-11


@BOTH
@ALL_DOMAINS
def test_strictly_increasing_onto_the_domain(kind: str, domain: str) -> None:
    spline = make(kind, domain)
    _, params = draw(spline, 20, scale=2.0, seed=6)
    ends = (-BOUND, BOUND) if domain == "line" else (0.0, 1.0)
    if domain == "circle":
        params[..., 0] = 0  # without rotation
        ends = (0.0, 1 - 1e-15)  # a full turn is zero again
    grid = torch.linspace(*ends, 1001, dtype=torch.float64)
    y, _ = spline(grid[:, None, None].expand(-1, 20, 2).reshape(-1, 2), params.repeat(1001, 1, 1))
    y = y.reshape(1001, 20, 2)
    assert (y.diff(dim=0) > 0).all()
    assert torch.allclose(y[0], torch.full_like(y[0], ends[0]), atol=1e-12)
    assert torch.allclose(y[-1], torch.full_like(y[0], ends[1]), atol=1e-12)


@BOTH
def test_line_continues_as_identity_with_slope_one(kind: str) -> None:
    spline = make(kind, "line")
    _, params = draw(spline, 50)
    for end in (-BOUND, BOUND):
        y, log_slope = spline(torch.full((50, 2), end, dtype=torch.float64), params)
        assert torch.allclose(y, torch.full_like(y, end), atol=1e-12)
        assert log_slope.abs().max() < 1e-9
    far = torch.tensor([[-1e6, 0.3], [0.3, 40.0]], dtype=torch.float64)
    y, log_slope = spline(far, params[:2])
    assert y[0, 0] == -1e6
    assert y[1, 1] == 40.0
    assert log_slope[0, 0] == 0
    assert y[0, 1] != 0.3, "a coordinate inside the box is still transformed when its neighbour is outside"


@BOTH
def test_circle_has_equal_slopes_at_its_seam(kind: str) -> None:
    spline = make(kind, "circle")
    _, params = draw(spline, 50)
    params[..., 0] = 0
    ends = [torch.full((50, 2), end, dtype=torch.float64) for end in (1e-13, 1 - 1e-13)]
    slopes = [spline(end, params)[1] for end in ends]
    assert torch.allclose(slopes[0], slopes[1], atol=1e-7)


def test_circle_rotates() -> None:
    spline = make("rational_quadratic", "circle")
    params = torch.zeros(3, 1, spline.n_params, dtype=torch.float64)
    params[..., 0] = 0.75
    y, _ = spline(torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64), params)
    assert torch.allclose(y, torch.tensor([[0.75], [0.25], [0.75]], dtype=torch.float64))


@BOTH
@ALL_DOMAINS
def test_float32_round_trip(kind: str, domain: str) -> None:
    spline = make(kind, domain)
    x, params = draw(spline, 2000)
    x32, params32 = x.float(), params.float()
    y, up = spline(x32, params32)
    exact, exact_up = spline(x32.double(), params32.double())
    assert y.dtype == torch.float32
    # an error of x grows by the slope, one of y by the slope of the inverse
    assert distance(spline, y.double() / (1 + exact_up.exp()), exact / (1 + exact_up.exp())) < 3e-6
    back, down = spline(y, params32, inverse=True)
    error = (back - x32).abs()
    error = torch.minimum(error, 1 - error) if domain == "circle" else error
    assert (error / (1 + down.exp())).max() < 3e-6
    if kind != "linear":  # a piecewise-constant slope jumps where rounding changes the bin
        assert (up.double() - exact_up).abs().max() < 5e-3
        assert (up + down).abs().max() < 5e-3


@st.composite
def extreme_case(draw_: st.DrawFn, spline: Spline) -> tuple[list[float], list[list[float]]]:
    corners = [0.0, 1.0, 1e-300, 1e-38, 1e-8, 1 - 6e-8, 1 - 1e-16, *(k / BINS for k in range(1, BINS))]
    coordinate = st.one_of(st.sampled_from(corners), st.floats(0, 1))
    raw = st.one_of(st.sampled_from([-50.0, 0.0, 50.0]), st.floats(-50, 50))
    x = draw_(st.lists(coordinate, min_size=3, max_size=3))
    size = spline.n_params
    params = draw_(st.lists(st.lists(raw, min_size=size, max_size=size), min_size=3, max_size=3))
    return x, params


@BOTH
@ALL_DOMAINS
@given(data=st.data())
@settings(max_examples=25)
def test_extreme_inputs_stay_finite(kind: str, domain: str, data: st.DataObject) -> None:
    """Ends, knots and raw parameters of ±50: values, slopes and gradients are finite."""
    spline = make(kind, domain)
    points, raw = data.draw(extreme_case(spline))
    for dtype in (torch.float32, torch.float64):
        for inverse in (False, True):
            x = torch.tensor([points], dtype=dtype)
            x = (2.2 * BOUND * (x - 0.5) if domain == "line" else x).requires_grad_()
            params = torch.tensor([raw], dtype=dtype, requires_grad=True)
            y, log_slope = spline(x, params, inverse)
            assert torch.isfinite(y).all()
            assert torch.isfinite(log_slope).all()
            if domain != "line":
                assert ((y >= 0) & (y <= 1)).all()
            for gradient in torch.autograd.grad(y.sum() + log_slope.sum(), (x, params)):
                assert torch.isfinite(gradient).all()


@BOTH
@ALL_DOMAINS
def test_points_exactly_at_learned_knots(kind: str, domain: str) -> None:
    """Images of knots come back, with finite gradients, whichever neighbouring bin they fall into."""
    spline = make(kind, domain)
    _, params = draw(spline, 1)
    low, high = (-BOUND, BOUND) if domain == "line" else (0.0, 1.0)
    if domain == "circle":
        params[..., 0] = 0
    function = {"linear": linear, "quadratic": quadratic, "cubic": cubic}.get(kind)
    shares = torch.softmax(params[0, 0, (domain == "circle") :][:BINS], 0)
    shares = 1e-4 + (1 - BINS * 1e-4) * shares
    edges = torch.arange(BINS + 1) / BINS if function is linear else torch.cumsum(shares, 0)
    x = (low + (high - low) * edges.double()).unsqueeze(1).requires_grad_()
    rows = params[:, :1].expand(len(edges), 1, -1).detach().requires_grad_()
    y, log_slope = spline(x, rows)
    back, _ = spline(y, rows, inverse=True)
    assert distance(spline, back, x) < 1e-9
    for gradient in torch.autograd.grad(y.sum() + back.sum() + log_slope.sum(), (x, rows)):
        assert torch.isfinite(gradient).all()


def _shares(raw: np.ndarray) -> np.ndarray:
    shares = np.exp(raw) / np.exp(raw).sum()
    return 1e-4 + (1 - len(raw) * 1e-4) * shares


def _reference(kind: str, x: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """The four splines from their definitions, one curve at a time."""
    if kind == "linear":
        return np.interp(x, np.linspace(0, 1, len(raw) + 1), np.r_[0, np.cumsum(_shares(raw))])
    widths = _shares(raw[:BINS])
    knots = np.r_[0, np.cumsum(widths)]
    if kind == "quadratic":
        density = np.exp(raw[BINS:])
        density = 1e-4 + (1 - 1e-4) * density / np.trapezoid(density, knots)
        return np.array(
            [
                np.trapezoid(np.interp(grid, knots, density), grid)
                for grid in (np.sort(np.r_[knots[knots < point], point]) for point in x)
            ]
        )
    heights = _shares(raw[BINS : 2 * BINS])
    if kind == "cubic":
        secant = heights / widths
        left, right = widths[:-1], widths[1:]
        parabola = (secant[:-1] * right + secant[1:] * left) / (left + right)
        inner = np.minimum(parabola, 2 * np.minimum(secant[:-1], secant[1:]))
        ends = 3 / (1 + 2 * np.exp(-raw[2 * BINS :]))
        slopes = np.r_[ends[0] * secant[0], inner, ends[1] * secant[-1]]
        curve = CubicHermiteSpline(knots, np.r_[0, np.cumsum(heights)], slopes)
        return 1e-4 * x + (1 - 1e-4) * curve(x)
    levels = np.r_[0, np.cumsum(heights)]
    offset = np.log(np.expm1(1 - 1e-4))
    slopes = 1e-4 + np.log1p(np.exp(raw[2 * BINS :] + offset))
    k = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, BINS - 1)
    t, s = (x - knots[k]) / widths[k], heights[k] / widths[k]
    top = s * t**2 + slopes[k] * t * (1 - t)
    return levels[k] + heights[k] * top / (s + (slopes[k + 1] + slopes[k] - 2 * s) * t * (1 - t))


@BOTH
def test_agrees_with_the_definition(kind: str) -> None:
    spline = make(kind, "unit")
    rng = np.random.default_rng(12)
    x = rng.random(200)
    for _ in range(5):
        raw = rng.normal(size=spline.n_params)
        params = torch.from_numpy(raw).expand(len(x), 1, -1)
        y, _ = spline(torch.from_numpy(x)[:, None], params)
        assert np.abs(y[:, 0].numpy() - _reference(kind, x, raw)).max() < 1e-12


def test_a_wrong_reference_is_noticed() -> None:
    spline = make("cubic", "unit")
    rng = np.random.default_rng(13)
    x, raw = rng.random(50), rng.normal(size=spline.n_params)
    y, _ = spline(torch.from_numpy(x)[:, None], torch.from_numpy(raw).expand(50, 1, -1))
    assert np.abs(y[:, 0].numpy() - _reference("cubic", x, raw[::-1])).max() > 1e-3


def test_memory_layout_does_not_change_the_result() -> None:
    for kind in KINDS:
        spline = make(kind, "unit")
        x, params = draw(spline, 30)
        other = params.permute(2, 1, 0).contiguous().permute(2, 1, 0)
        assert torch.equal(other, params)
        assert torch.allclose(spline(x, params)[0], spline(x, other)[0], atol=1e-14)


def test_empty_batch() -> None:
    for kind in KINDS:
        spline = make(kind, "unit")
        y, log_slope = spline(torch.empty(0, 2), torch.empty(0, 2, spline.n_params))
        assert y.shape == log_slope.shape == (0, 2)


@pytest.mark.parametrize(
    "settings_",
    [{"kind": "quintic"}, {"domain": "sphere"}, {"bins": 2}, {"bound": 0.0}, {"bound": float("inf")}],
)
def test_bad_settings_are_refused(settings_: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings_))} = .*: must be"):
        Spline(**settings_)  # type: ignore[arg-type]


def test_wrong_numbers_of_parameters_are_refused() -> None:
    x = torch.rand(4, 1)
    for function, count in ((quadratic, 8), (cubic, 7), (rational_quadratic, 12), (linear, 0)):
        with pytest.raises(ShapeError):
            function(x, torch.zeros(4, 1, count))


def test_too_many_bins_are_refused() -> None:
    with pytest.raises(ConfigError, match="bins"):
        linear(torch.rand(1, 1), torch.zeros(1, 1, 20_000))
