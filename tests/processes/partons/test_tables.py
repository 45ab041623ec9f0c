"""Tables of cubics: exact polynomials, and the same bits from compiled code and from plain torch."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from nisampler.base.kernels import FastPathWarning
from nisampler.base.machine_code import flatten
from nisampler.flows.fused.shipping import SOURCES
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.partons.interpolation import compiled as choice
from nisampler.processes.partons.interpolation import shipping
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.tables import Bicubics, Cubics
from nisampler.processes.partons.luminosity import Luminosity


@st.composite
def axes(draw: st.DrawFn) -> tuple[CubicAxis, int]:
    """An axis of some segments, with equal or very unequal steps, and its number of knots."""
    lengths = draw(st.lists(st.integers(2, 7), min_size=1, max_size=3))
    steps = draw(st.lists(st.floats(0.1, 30.0), min_size=sum(lengths), max_size=sum(lengths)))
    segments, start = [], draw(st.floats(-20.0, 5.0))
    for length in lengths:
        knots = start + torch.tensor([0.0, *steps[: length - 1]], dtype=torch.float64).cumsum(0)
        segments.append(knots)
        start, steps = float(knots[-1]), steps[length - 1 :]
    return CubicAxis(segments), sum(lengths)


def places(axis: CubicAxis, seed: int) -> Tensor:
    """Places within, outside and on the knots of an axis, and one that is NaN."""
    random = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    span = axis.high - axis.low
    ends = torch.tensor([axis.low, axis.high, -math.inf, math.inf, math.nan], dtype=torch.float64)
    return torch.cat([axis.low - 0.1 * span + 1.2 * span * random, axis.starts, ends])


def both(table: Cubics | Bicubics, *where: Tensor) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
    """Rows and counts by plain torch and by compiled code."""
    assert choice.compiled() is not None
    found = []
    for rows, below in (table.rows(*where), choice.rows(table, *where)):
        found.append((rows, below if isinstance(below, int) else int(below.sum())))
    return found[0], found[1]


@given(axes(), axes(), st.integers(1, 16), st.integers(0, 99))
def test_compiled_code_and_torch_give_the_same_bits(
    inner: tuple[CubicAxis, int], outer: tuple[CubicAxis, int], columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(outer[1], inner[1], columns, dtype=torch.float64, generator=generator)
    x = places(inner[0], seed)
    y = places(outer[0], seed + 1)
    count = min(len(x), len(y))
    two = Bicubics(padded(padded(values), 1), inner[0], outer[0], lowest=0.0)
    one = Cubics(padded(values[0]), inner[0], lowest=-0.5)
    for table, where in ((two, (x[:count], y[:count])), (one, (x,))):
        (plain, plain_count), (fast, count_of_kernel) = both(table, *where)
        assert torch.equal(plain.nan_to_num(nan=-7.0), fast.nan_to_num(nan=-7.0))
        assert plain_count == count_of_kernel
    assert both(one, x)[0][0].isnan().any()


@given(axes(), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_cubics_are_exact_and_one_place_of_the_outer_axis_gives_them(
    axis: tuple[CubicAxis, int], slope: float, square: float
) -> None:
    segments = torch.linspace(1.0, 3.0, 6, dtype=torch.float64), torch.linspace(3.0, 9.0, 5, dtype=torch.float64)
    long, knots = CubicAxis(segments), torch.cat(segments)

    def polynomial(t: Tensor) -> Tensor:
        return 2.0 + slope * t + square * t**2 - 0.1 * t**3

    values = polynomial(knots).unsqueeze(1)
    outer = torch.ones(axis[1], 1, 1, dtype=torch.float64) * padded(values)
    table = Bicubics(padded(outer), long, axis[0])
    x = torch.linspace(0.0, 10.0, 31, dtype=torch.float64)
    y = places(axis[0], 3)[:31]
    expected = polynomial(x.clamp(1.0, 9.0)).unsqueeze(1)
    for rows, _ in (*both(table, x, y), *both(table.at(y[:1]), x)):
        torch.testing.assert_close(rows, expected, rtol=1e-8, atol=1e-8)


def luminosities(luminosity: Luminosity, densities: Tensor, kernels: choice.Kernels | None) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "compiled", lambda: kernels)
        return luminosity.by_element(densities)


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, st.integers(0, 3), st.floats(0.1, 3.0)), min_size=1, max_size=40))
def test_luminosities_have_the_same_bits_and_are_the_sums_of_their_subprocesses(
    terms: list[tuple[int, int, int, float]],
) -> None:
    found = [SubProcess((a, b), (a, b, place), element, f) for place, (a, b, element, f) in enumerate(terms)]
    luminosity = Luminosity(found, 4, lambda code: code)
    densities = torch.rand(9, 2, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(len(terms)))
    plain = luminosities(luminosity, densities, None)
    assert torch.equal(plain, luminosities(luminosity, densities, choice.compiled()))
    squared = torch.rand(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    each = luminosity.by_subprocess(densities, squared)
    torch.testing.assert_close((plain * squared).sum(1), each.sum(1), rtol=1e-12, atol=0.0)


def test_a_kernel_that_rounds_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = choice.compiled()
    assert kernels is not None

    def off(file: Path, name: str) -> Callable[..., None]:
        def changed(*arguments: Any) -> None:
            getattr(kernels, name)(*arguments)
            if name == "cubic":
                arguments[4][0] *= 1 + 1e-15

        return changed

    monkeypatch.setattr(choice, "Kernel", off)
    choice.compiled.cache_clear()
    try:
        with pytest.warns(FastPathWarning, match="rounds otherwise"):
            assert choice.compiled() is None
        axis = CubicAxis([torch.tensor([0.0, 1.0], dtype=torch.float64)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = Cubics(padded(torch.ones(2, 1, dtype=torch.float64)), axis)
            rows, _ = choice.rows(table, torch.zeros(1, dtype=torch.float64))
        assert rows.item() == pytest.approx(1.0)
    finally:
        choice.compiled.cache_clear()


def test_derivatives_are_taken_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(choice, "compiled", lambda: asked.append(True))
    axis = CubicAxis([torch.tensor([0.0, 1.0], dtype=torch.float64)])
    table = Cubics(padded(torch.ones(2, 1, dtype=torch.float64)), axis)
    choice.rows(table, torch.zeros(200, dtype=torch.float64, requires_grad=True))
    assert not asked
    choice.rows(table, torch.zeros(200, dtype=torch.float64))
    assert asked


def test_what_is_shipped_was_made_from_these_sources() -> None:
    """If this fails: python -m nisampler.processes.partons.interpolation.shipping."""
    with safe_open(choice.FILE, "np") as file:
        notes = file.metadata()
    assert notes[SOURCES] == shipping.sources()
    for name, _, arguments in shipping.functions():
        codes: list[str] = []
        flatten(arguments, codes, [])
        assert json.loads(notes[name])["codes"] == codes
