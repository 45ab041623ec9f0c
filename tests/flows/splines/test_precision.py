"""Splines in single precision: the result is the exact one of a point and a value that are wrong by a few roundings.

The bound is that of backward stability, which holds for parameters of any size: where the curve is so steep or so flat
that a rounding of the point moves the exact result, no arithmetic in single precision can do better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from nisampler.flows import Spline
from nisampler.flows.splines import families, fused_spline, rational_quadratic
from nisampler.flows.splines.rational_quadratic import segment

# Allowed error of point and value in units of the last digit of the domain's size, and of the log slope beyond that.
ROUNDINGS, LOG_SLOPE = 16, 0.01
BOUND = 3.0
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
Window = tuple[Tensor, Tensor, Tensor, Tensor]


def drawn(spline: Spline, n: int, spread: float, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    x = torch.rand(n, 2, generator=generator)
    x = 2 * BOUND * (x - 0.5) if spline.domain == "line" else x
    return x.to(device), (spread * torch.randn(n, 2, spline.n_params, generator=generator)).to(device)


def allowed(spline: Spline, point: Tensor, found: Tensor, params: Tensor, inverse: bool, roundings: float) -> Window:
    """Least and largest value and log slope of the float64 spline around a point and the value found there."""
    size = 2 * BOUND if spline.domain == "line" else 1.0
    reach = roundings * torch.finfo(torch.float32).eps * size
    point, found, params = point.double(), found.double(), params.double()
    places = torch.linspace(-reach, reach, 9, dtype=torch.float64, device=point.device)
    near = [spline(point + place, params, inverse) for place in places]
    low, high = near[0][0] - reach, near[-1][0] + reach
    beside = [found + place for place in places] + [low + (high - low) * k / 16 for k in range(17)]
    logs = torch.stack([log for _, log in near] + [-spline(y, params, not inverse)[1] for y in beside])
    return low, high, logs.amin(0), logs.amax(0)


def misses(spline: Spline, x: Tensor, params: Tensor, inverse: bool, roundings: float = ROUNDINGS) -> int:
    """Number of points whose value or log slope lies outside of what is allowed."""
    y, log_slope = spline(x, params, inverse)
    assert y.dtype == log_slope.dtype == torch.float32
    low, high, least, most = allowed(spline, x, y, params, inverse, roundings)
    inside = (y >= low) & (y <= high)
    if spline.domain == "circle":  # a full turn is zero again
        inside |= ((y + 1 >= low) & (y + 1 <= high)) | ((y - 1 >= low) & (y - 1 <= high)) | (high < low)
    right = (log_slope >= least - LOG_SLOPE) & (log_slope <= most + LOG_SLOPE)
    return int((~(inside & right)).sum())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", get_args(fused_spline.Backend))
@pytest.mark.parametrize("domain", ["unit", "line", "circle"])
@pytest.mark.parametrize("kind", ["linear", "quadratic", "cubic", "rational_quadratic"])
def test_both_directions_are_backward_stable(
    kind: str, domain: str, backend: fused_spline.Backend, device: str
) -> None:
    spline = Spline(kind, 10, domain, BOUND)  # type: ignore[arg-type]
    with fused_spline.using(backend):
        found = {}
        for spread in (1.0, 3.0, 10.0):
            x, params = drawn(spline, 1500, spread, device)
            found[spread, "forward"] = misses(spline, x, params, False)
            found[spread, "inverse"] = misses(spline, spline(x, params)[0], params, True)
    assert {key: count for key, count in found.items() if count} == {}


def textbook(
    rise: Tensor, left: Tensor, width: Tensor, height: Tensor, slope_0: Tensor, slope_1: Tensor
) -> tuple[Tensor, Tensor]:
    """1906.04032 eqs. (6)-(8) as they stand."""
    mean, eta = height / width, (rise / height).clamp(0.0, 1.0)
    bend = slope_0 + slope_1 - 2.0 * mean
    a, b, c = mean - slope_0 + eta * bend, slope_0 - eta * bend, -mean * eta
    theta = (2.0 * c / (-b - torch.sqrt((b * b - 4.0 * a * c).clamp(min=0.0)))).clamp(0.0, 1.0)
    return left + width * theta, segment(theta, mean, slope_0, slope_1)[1]


def raised_by_difference(heights: Tensor, widths: Tensor) -> Tensor:
    first, last = 0.5 * (heights[..., :1] + widths[..., :1]), 0.5 * (heights[..., -1:] + widths[..., -1:])
    inner = heights[..., 1:-1]
    return torch.cat([first, inner * ((1 - first - last) / inner.sum(dim=-1, keepdim=True)), last], dim=-1)


@pytest.mark.parametrize(
    ("module", "name", "wrong", "spline", "spread"),
    [
        (rational_quadratic, "solve_segment", textbook, Spline(), 3.0),
        (families, "_raise_ends", raised_by_difference, Spline("cubic", 10, "line", BOUND), 10.0),
    ],
)
def test_differences_of_large_numbers_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    wrong: Callable[..., Tensor],
    spline: Spline,
    spread: float,
) -> None:
    x, params = drawn(spline, 20_000, spread)
    with fused_spline.using("reference"):
        y, _ = spline(x, params)
        low, high, *_ = allowed(spline, y, x, params, True, ROUNDINGS)
        monkeypatch.setattr(module, name, wrong)
        found, _ = spline(y, params, inverse=True)
    assert int(((found < low) | (found > high)).sum()) > 0
