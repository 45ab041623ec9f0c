"""Several integrals at once: forms, kinds, what steers, and every way in which they can go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from channel_examples import ridge_channels, ridges
from torch import Tensor

from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, IntegrandDtypeError, IntegrandShapeError, NonFiniteError


def points(n: int, dim: int) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def logs(x: Any) -> dict[str, float]:
    """Of one point."""
    return {"f": math.exp(x[0]), "x": x[0] * math.sqrt(x[1])}


FORMS: dict[str, tuple[Callable[[Any], Any], str, tuple[str, ...]]] = {
    "torch table": (lambda x: torch.stack([x[:, 0].exp(), x[:, 0] * x[:, 1].sqrt()], 1), "torch", ("0", "1")),
    "torch names": (lambda x: {"f": x[:, 0].exp(), "x": x[:, 0] * x[:, 1].sqrt()}, "torch", ("f", "x")),
    "numpy table": (lambda x: np.stack([np.exp(x[:, 0]), x[:, 0] * np.sqrt(x[:, 1])], axis=1), "numpy", ("0", "1")),
    "numpy names": (lambda x: {"f": np.exp(x[:, 0]), "x": x[:, 0] * np.sqrt(x[:, 1])}, "numpy", ("f", "x")),
    "scalar table": (lambda x: [math.exp(x[0]), x[0] * math.sqrt(x[1])], "scalar", ("0", "1")),
    "scalar names": (logs, "scalar", ("f", "x")),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_every_kind(form: str, named: bool) -> None:
    function, kind, names = FORMS[form]
    integrand = Integrand(function, domain=[(0, 2), (0, 1)], kind=kind if named else "auto")  # type: ignore[arg-type]
    u = points(20, 2)
    expected = torch.stack([(2 * u[:, 0]).exp(), 2 * u[:, 0] * u[:, 1].sqrt()], 1) * 2.0
    torch.testing.assert_close(integrand.values(u), expected, rtol=1e-12, atol=0)
    assert torch.equal(integrand(u), integrand.values(u)[:, 0])
    assert (integrand.kind, integrand.names, integrand.steered) == (kind, names, 0)


@pytest.mark.parametrize("steer", [1, "x"])
def test_the_one_that_steers(steer: Any) -> None:
    integrand = Integrand(FORMS["torch names"][0], 2, steer=steer)
    u = points(20, 2)
    assert integrand.steered == 1 and torch.equal(integrand(u), u[:, 0] * u[:, 1].sqrt())
    assert integrand.values(u).shape == (20, 2)


def test_one_integral_is_the_special_case() -> None:
    integrand = Integrand(lambda x: x[:, 0], 2)
    u = points(5, 2)
    assert integrand.names == () and integrand.steered == 0
    assert torch.equal(integrand.values(u), integrand(u).unsqueeze(1))
    column = Integrand(lambda x: x[:, :1], 2)
    assert column.names == ("0",) and torch.equal(column(u), integrand(u))


def test_no_points_have_no_values() -> None:
    integrand = Integrand(FORMS["torch names"][0], 2)
    assert integrand(torch.zeros(0, 2)).shape == (0,) and integrand.values(torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize("steer", ["y", 2, "0"])
def test_a_name_that_is_not_there_is_named(steer: Any) -> None:
    with pytest.raises(ConfigError, match=r"steer = .*returns f, x"):
        Integrand(FORMS["torch names"][0], 2, steer=steer)
    late = Integrand(FORMS["torch names"][0], 2, steer=steer, kind="torch")
    with pytest.raises(ConfigError, match=r"steer = .*returns f, x"):
        late(points(3, 2))


@pytest.mark.parametrize("steer", ["f", 0, -1, 1.5, True])
def test_steering_needs_several_integrals(steer: Any) -> None:
    with pytest.raises(ConfigError, match="steer"):
        Integrand(lambda x: x[:, 0], 2, steer=steer)


BAD: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "shape": (lambda x: {"f": x[:, 0], "g": x[1:, 0]}, IntegrandShapeError, r"\['g'\] returned shape \(4,\) for 5"),
    "dtype": (lambda x: {"f": x[:, 0], "g": x[:, 0].half()}, IntegrandDtypeError, r"\['g'\] returned torch.float16"),
    "text": (lambda x: {"f": x[:, 0], "g": "no"}, IntegrandDtypeError, r"\['g'\]"),
}


@pytest.mark.parametrize("which", BAD)
def test_the_one_that_is_wrong_is_named(which: str) -> None:
    function, error, match = BAD[which]
    with pytest.raises(error, match=match):
        Integrand(function, 2, kind="torch")(points(5, 2))


def test_all_points_must_give_the_same_integrals() -> None:
    def changing(x: Tensor) -> dict[str, Tensor]:
        return {"f": x[:, 0]} if len(x) > 3 else {"g": x[:, 0]}

    integrand = Integrand(changing, 2, kind="torch")
    integrand(points(5, 2))
    with pytest.raises(IntegrandShapeError, match="returned g after f"):
        integrand(points(2, 2))
    with pytest.raises(IntegrandShapeError):
        Integrand(changing, 2)
    with pytest.raises(IntegrandShapeError, match="same names everywhere"):
        Integrand(lambda x: {"f" if x[0] > 0.5 else "g": 1.0}, 2, kind="scalar")(points(9, 2))


def test_a_function_of_the_batch_is_refused_among_several() -> None:
    with pytest.raises(IntegrandShapeError, match="depends on the other points"):
        Integrand(lambda x: {"f": x[:, 0], "g": x[:, 0] - x[:, 0].mean()}, 2)
    with pytest.raises(IntegrandShapeError, match="kind='scalar'"):
        Integrand(lambda x: x[0] * x, 2)
    assert Integrand(lambda x: x[0] * x, 2, kind="scalar").values(points(4, 2)).shape == (4, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_point_with_a_value_that_is_not_finite_counts_once_and_is_zero(bad: float) -> None:
    def holes(x: Tensor) -> dict[str, Tensor]:
        return {"f": x[:, 0], "g": torch.where(x[:, 1] < 0.1, bad, x[:, 1]), "h": torch.where(x[:, 1] < 0.05, bad, 1.0)}

    with pytest.raises(NonFiniteError, match=r"= \[0\.\d+, (nan|inf)"):
        Integrand(holes, 2, kind="torch")(points(1000, 2))
    integrand = Integrand(holes, 2, kind="torch", nonfinite=0.2)
    u = points(1000, 2)
    values, low = integrand.values(u), u[:, 1] < 0.1
    assert bool((values[low] == 0.0).all()) and bool((values[~low] != 0.0).all())
    assert integrand.counts() == {"calls": 1000, "zeros": 0, "nonfinite": int(low.sum())}


def moments(x: Any) -> dict[str, Any]:
    return {"norm": ridges(x), "mean": ridges(x) * x[:, 0]}


def table(x: Any) -> Any:
    return torch.stack(list(moments(x).values()), 1)


@pytest.mark.parametrize("function", [moments, table])
def test_channels_carry_all_of_them(function: Callable[[Any], Any]) -> None:
    several = Integrand(Multichannel(function, ridge_channels()))
    one = Integrand(Multichannel(ridges, ridge_channels()))
    other = Integrand(Multichannel(lambda x: ridges(x) * x[:, 0], ridge_channels()))
    u = points(300, 4)
    assert torch.equal(several(u), one(u))
    torch.testing.assert_close(several.values(u), torch.stack([one(u), other(u)], 1), rtol=1e-14, atol=0)


def in_numpy(x: np.ndarray) -> dict[str, Any]:
    assert isinstance(x, np.ndarray)
    return {name: value.numpy() for name, value in moments(torch.from_numpy(x)).items()}


def of_one_point(x: np.ndarray) -> dict[str, float]:
    assert x.shape == (3,)
    return {name: float(value) for name, value in moments(torch.from_numpy(x)[None]).items()}


@pytest.mark.parametrize(("function", "kind"), [(in_numpy, "numpy"), (of_one_point, "scalar")])
def test_channels_take_functions_of_every_kind(function: Callable[[Any], Any], kind: str) -> None:
    def prior(x: Any) -> Any:
        assert isinstance(x, np.ndarray)
        return np.zeros((len(x), 3))

    integrand = Integrand(Multichannel(function, ridge_channels(), prior=prior))
    plain = Multichannel(moments, ridge_channels(), prior=lambda x: x.new_zeros(len(x), 3))
    u = points(50, 4)
    assert integrand.kind == kind
    torch.testing.assert_close(integrand.values(u), Integrand(plain).values(u), rtol=1e-12, atol=1e-12)
