"""Integrands: adapters, boxes, counters and every way in which a function can misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.api import integrate
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import (
    ConfigError,
    DomainError,
    IntegrandCallError,
    IntegrandDtypeError,
    IntegrandError,
    IntegrandShapeError,
    NonFiniteError,
    ShapeError,
)
from nisampler.integration.integrator import IntegrationConfig, Integrator
from nisampler.samplers.base import UniformSampler
from nisampler.training.config import TrainingConfig


def points(n: int, dim: int, seed: int = 5) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_place(x: Tensor) -> Tensor:
    x -= 0.5
    return x.sum(1)


def branches(x: Any) -> float:
    return 1.0 if x[0] < x[1] else 2.0


ADAPTED: dict[str, tuple[Callable[[Any], Any], str, Callable[[Tensor], Tensor]]] = {
    "torch": (lambda x: torch.sin(x).sum(1), "torch", lambda x: torch.sin(x).sum(1)),
    "torch in float32": (lambda x: torch.sin(9 * x.float()).prod(1), "torch", lambda x: torch.sin(9 * x).prod(1)),
    "torch logical": (lambda x: x[:, 0] > 0.5, "torch", lambda x: (x[:, 0] > 0.5).double()),
    "torch in place": (in_place, "torch", lambda x: (x - 0.5).sum(1)),
    "torch cancelling": (lambda x: (1 + x).sum(1) - x.sum(1) - 3, "torch", lambda x: torch.zeros(len(x)).double()),
    "numpy": (lambda x: np.exp(-x).sum(axis=1), "numpy", lambda x: torch.exp(-x).sum(1)),
    "numpy interpolation": (lambda x: np.interp(x[:, 0], [0, 1], [2, 4]), "any", lambda x: 2 + 2 * x[:, 0]),
    "numpy integers": (lambda x: np.floor(3 * x[:, 0]).astype(int), "any", lambda x: torch.floor(3 * x[:, 0])),
    "scalar index": (lambda x: x[0] * x[1], "scalar", lambda x: x[:, 0] * x[:, 1]),
    "scalar math": (lambda x: math.log(x[0]) + math.log(x[2]), "scalar", lambda x: (x[:, 0] * x[:, 2]).log()),
    "scalar reciprocal": (lambda x: 1 / float(x[2]), "scalar", lambda x: 1 / x[:, 2]),
    "scalar unpacked": (lambda x: float(np.prod(x)) + 1, "scalar", lambda x: x.prod(1) + 1),
    "scalar branches": (branches, "scalar", lambda x: torch.where(x[:, 0] < x[:, 1], 1.0, 2.0).double()),
    "scalar tensor": (lambda x: torch.tensor(float(x[0])), "scalar", lambda x: x[:, 0]),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_any_kind_of_function_is_adapted(name: str) -> None:
    function, kind, reference = ADAPTED[name]
    integrand = Integrand(function, 3)
    assert kind in (integrand.kind, "any")
    u = points(50, 3)
    before = u.clone()
    values = integrand(u)
    assert values.dtype == torch.float64
    assert values.shape == (50,)
    assert torch.equal(u, before)
    assert torch.allclose(values, reference(u), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 5, 17])
def test_detection_in_any_dimension(dim: int) -> None:
    assert Integrand(lambda x: x.sum(1), dim).kind == "torch"
    assert Integrand(lambda x: np.asarray(x).sum(axis=1), dim).kind in ("torch", "numpy")
    assert Integrand(lambda x: math.fsum(math.log(c) + 1 / c for c in x), dim).kind == "scalar"


@pytest.mark.parametrize("kind", ["torch", "numpy", "scalar"])
def test_a_named_kind_is_not_tried_out(kind: Any) -> None:
    seen: list[type] = []

    def function(x: Any) -> Any:
        seen.append(type(x))
        return x.sum(-1)

    integrand = Integrand(function, 2, kind=kind)
    assert integrand.calls == 0 and not seen
    assert torch.allclose(integrand(points(3, 2)), points(3, 2).sum(1))
    assert set(seen) == {Tensor if kind == "torch" else np.ndarray}


def test_detection_costs_counted_calls() -> None:
    evaluated = 0

    def function(x: Tensor) -> Tensor:
        nonlocal evaluated
        evaluated += len(x)
        return x.sum(1)

    assert Integrand(function, 4).calls == evaluated == 9


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1) / x.sum(),
        lambda x: x.sum(1) - x.mean(),
        lambda x: x[:, 0] * len(x),
        lambda x: x[:, 0] * x[0, 1],
        lambda x: torch.cumsum(x[:, 0], 0),
        lambda x: torch.linspace(1.0, 2.0, len(x)),
    ],
)
def test_a_function_of_the_batch_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(IntegrandShapeError, match="depends on the other points"):
        Integrand(function, 2)


def test_a_box_is_mapped_with_its_volume() -> None:
    domain = [(-1.0, 3.0), (2.0, 2.5)]
    integrand = Integrand(lambda x: x[:, 0] ** 2 * x[:, 1], domain=domain)
    assert integrand.dim == 2
    u = points(20, 2)
    x = integrand.to_domain(u)
    assert torch.allclose(x, torch.stack([-1 + 4 * u[:, 0], 2 + 0.5 * u[:, 1]], 1))
    assert torch.allclose(integrand(u), x[:, 0] ** 2 * x[:, 1] * 2.0)
    result = integrate_plainly(integrand)
    truth = (27 + 1) / 3 * (2.5**2 - 4) / 2
    assert result.value == pytest.approx(truth, abs=5 * result.error)


def integrate_plainly(integrand: Integrand, n: int = 4096) -> Any:
    return Integrator(integrand, UniformSampler(integrand.dim), IntegrationConfig(points=n), Streams(1)).run().estimate


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).map(lambda u: [*u, 0.0, 1.0, 1.0 - 2.0**-53]),
)
def test_no_point_leaves_its_box(low: float, width: float, u: list[float]) -> None:
    high = low + width
    integrand = Integrand(lambda x: x.sum(1), domain=[(low, high)], kind="torch")
    x = integrand.to_domain(torch.tensor(u, dtype=torch.float64).unsqueeze(1))
    assert bool(((x >= low) & (x <= high)).all())


def test_dimension_comes_from_argument_domain_or_function() -> None:
    class Process:
        dim = 3
        name = "mine"
        unit = "pb"

        def __call__(self, x: Tensor) -> Tensor:
            return x.sum(1)

    integrand = Integrand(Process())
    assert (integrand.dim, integrand.name, integrand.unit) == (3, "mine", "pb")
    assert integrate_plainly(integrand).unit == "pb"
    assert type(Integrand(lambda x: x[:, 0], np.int64(2)).dim) is int  # type: ignore[arg-type]
    assert Integrand(lambda x: x[:, 0], 2).dim == Integrand(lambda x: x[:, 0], domain=[(0, 1), (0, 2)]).dim == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dim": 0},
        {"dim": -1},
        {"dim": 2.0},
        {"dim": True},
        {"dim": 3, "domain": [(0, 1)]},
        {"domain": []},
        {"domain": [(0, 0)]},
        {"domain": [(1, 0)]},
        {"domain": [(0, math.inf)]},
        {"domain": [(math.nan, 1)]},
        {"domain": [0, 1]},
        {"domain": [("a", 1)]},
        {"dim": 1, "kind": "fortran"},
        {"dim": 1, "nonfinite": 1.0},
        {"dim": 1, "nonfinite": -0.1},
        {"dim": 1, "nonfinite": math.nan},
        {"dim": 1, "nonfinite": "0.1"},
        {"dim": 1, "device": "cuda:77"},
        {"dim": 1, "device": "abacus"},
        {"dim": 1, "device": 1.5},
        {"dim": 1, "kind": None},
    ],
)
def test_contradictory_settings_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Integrand(lambda x: x.sum(1), **arguments)


def test_something_that_cannot_be_called() -> None:
    with pytest.raises(ConfigError, match="callable"):
        Integrand(3.0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3), (3, 2, 1), ()])
def test_wrong_shape_of_points(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        Integrand(lambda x: x.sum(1), 2)(torch.zeros(shape).double())


@pytest.mark.parametrize("bad", [-1e-12, 1 + 1e-12, math.nan, math.inf, -math.inf])
def test_points_outside_the_cube(bad: float) -> None:
    u = points(5, 2)
    u[3, 1] = bad
    integrand = Integrand(lambda x: x.sum(1), 2)
    calls = integrand.calls
    with pytest.raises(DomainError):
        integrand(u)
    assert integrand.calls == calls


def test_the_corners_and_no_points_are_fine() -> None:
    integrand = Integrand(lambda x: x.sum(1), 2)
    assert integrand(torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()).tolist() == [0.0, 2.0]
    calls = integrand.calls
    assert integrand(torch.zeros(0, 2).double()).shape == (0,)
    assert integrand.calls == calls


BAD_RETURNS: dict[str, tuple[Callable[[Any], Any], type[IntegrandError]]] = {
    "three dimensions": (lambda x: x[..., None, None], IntegrandShapeError),
    "no columns": (lambda x: x[..., :0], IntegrandShapeError),
    "one number": (lambda x: torch.tensor(1.0), IntegrandShapeError),
    "too few": (lambda x: x[1:, 0], IntegrandShapeError),
    "complex": (lambda x: torch.exp(1j * x).sum(1), IntegrandDtypeError),
    "numpy complex": (lambda x: np.exp(1j * np.asarray(x)).sum(axis=-1), IntegrandDtypeError),
    "float16": (lambda x: x.half().sum(1), IntegrandDtypeError),
    "bfloat16": (lambda x: x.bfloat16().sum(1), IntegrandDtypeError),
    "numpy float16": (lambda x: np.asarray(x).astype(np.float16).sum(axis=-1), IntegrandDtypeError),
    "text": (lambda x: "many", IntegrandDtypeError),
    "none": (lambda x: None, IntegrandDtypeError),
    "dictionary of text": (lambda x: {"value": "many"}, IntegrandDtypeError),
    "dictionary of columns": (lambda x: {"value": x[..., None]}, IntegrandShapeError),
    "empty dictionary": (lambda x: {}, IntegrandShapeError),
    "tuple": (lambda x: (x[:, 0], x[:, 1]), IntegrandShapeError),
    "raises": (lambda x: x.no_such_method(), IntegrandCallError),
    "divides by zero": (lambda x: 1 / 0, IntegrandCallError),
}


@pytest.mark.parametrize("kind", ["auto", "torch", "numpy", "scalar"])
@pytest.mark.parametrize("name", BAD_RETURNS)
def test_bad_returns_are_named(name: str, kind: Any) -> None:
    function, error = BAD_RETURNS[name]
    expected: type[IntegrandError] | tuple[type[IntegrandError], ...] = error
    if kind in ("numpy", "scalar"):
        expected = (error, IntegrandCallError, IntegrandShapeError)
    if kind in ("auto", "scalar") and name == "one number":
        return
    with pytest.raises(expected) as caught:
        Integrand(function, 2, kind=kind)(points(5, 2))
    assert isinstance(caught.value, IntegrandError)


def test_the_users_own_exception_is_the_cause() -> None:
    def function(x: Tensor) -> Tensor:
        raise KeyError("alpha_s")

    with pytest.raises(IntegrandCallError, match="alpha_s") as caught:
        Integrand(function, 2)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_is_not_swallowed() -> None:
    def function(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Integrand(function, 2)


def with_bad(value: float, limit: float = 0.1) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(x[:, 0] < limit, torch.full_like(x[:, 0], value), 1.0 + x[:, 1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_raise_by_default(value: float) -> None:
    integrand = Integrand(with_bad(value), 2)
    with pytest.raises(NonFiniteError, match=r"f\(\[0\.0") as caught:
        integrand(points(1000, 2))
    assert "nonfinite=" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_counted_and_zeroed_where_allowed(value: float) -> None:
    integrand = Integrand(with_bad(value), 2, nonfinite=0.2)
    u = points(20_000, 2)
    bad = u[:, 0] < 0.1
    values = integrand(u)
    assert integrand.nonfinite == int(bad.sum())
    assert integrand.zeros == 0
    assert bool((values[bad] == 0).all()) and torch.equal(values[~bad], 1.0 + u[~bad, 1])


def test_more_non_finite_values_than_allowed_raise() -> None:
    integrand = Integrand(with_bad(math.nan), 2, nonfinite=0.05)
    with pytest.raises(NonFiniteError, match=r"0\.05"):
        for seed in range(10):
            integrand(points(1000, 2, seed))


def test_the_first_non_finite_values_are_not_held_against_a_small_fraction() -> None:
    integrand = Integrand(with_bad(math.nan, 1e-5), 2, nonfinite=0.01)
    u = points(500, 2)
    u[0, 0] = 0.0
    integrand(u)
    assert integrand.nonfinite == 1


def test_the_policy_is_visible_in_the_result() -> None:
    integrand = Integrand(with_bad(math.inf, 0.05), 2, nonfinite=0.1)
    result = integrate_plainly_with_warnings(integrand)
    assert any("NaN or infinite" in warning for warning in result.warnings)
    whole = integrate(
        Integrand(with_bad(math.inf, 0.05), 2, nonfinite=0.1),
        training=TrainingConfig(calls=10_000, sampler="vegas"),
        integration=IntegrationConfig(points=4096),
    )
    assert whole.calls["nonfinite"] > 0
    assert f"{whole.calls['nonfinite']} not finite" in whole.summary()
    assert any("NaN or infinite" in warning for warning in whole.warnings)
    assert "warning" in whole.summary()
    assert whole.estimate.value == pytest.approx(0.95 * 1.5, abs=5 * whole.estimate.error)


def integrate_plainly_with_warnings(integrand: Integrand) -> Any:
    return Integrator(integrand, UniformSampler(integrand.dim), IntegrationConfig(points=4096), Streams(1)).run()


def test_counters() -> None:
    integrand = Integrand(lambda x: (x[:, 0] > 0.25) * x[:, 1], 2)
    start = integrand.calls
    for seed in range(3):
        integrand(points(1000, 2, seed))
    expected = sum(int((points(1000, 2, seed)[:, 0] <= 0.25).sum()) for seed in range(3))
    assert integrand.counts() == {"calls": start + 3000, "zeros": expected, "nonfinite": 0}
    other = Integrand(lambda x: x[:, 0], 2, kind="torch")
    other.restore_counts(integrand.counts())
    assert other.counts() == integrand.counts()


def test_gradients_are_not_recorded() -> None:
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not Integrand(lambda x: x @ weight, 2)(points(4, 2)).requires_grad


def test_options_of_an_integrand_cannot_be_given_twice() -> None:
    integrand = Integrand(lambda x: x.sum(1), 2)
    for options in ({"dim": 3}, {"domain": [(0, 2), (0, 2)]}, {"kind": "numpy"}):
        with pytest.raises(ConfigError, match="Integrand"):
            integrate(integrand, **options)  # type: ignore[arg-type]
