"""Arithmetic of estimates: errors spread to first order, correlations kept where numbers were measured together."""

from __future__ import annotations

import copy
import math
import pickle  # noqa: TID251  (that estimates can be sent to other processes is what is tested)
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gvar
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisampler.base.estimate import Estimate
from nisampler.base.estimates import Estimates
from nisampler.base.storage import read_json, write_json
from nisampler.errors import ConfigError, DomainError, MissingExtraError, ShapeError

COVARIANCE = np.array([[0.04, 0.03, -0.01], [0.03, 0.09, 0.0], [-0.01, 0.0, 0.01]])
VALUES = (2.0, 5.0, -3.0)


def three() -> Estimates:
    error = np.sqrt(np.diag(COVARIANCE))
    members = {name: Estimate(v, e, 100, unit="pb") for name, v, e in zip("abc", VALUES, error, strict=True)}
    return Estimates.correlated(members, COVARIANCE / error / error[:, None])


def alone(value: float = 4.0, error: float = 0.5, **more: Any) -> Estimate:
    return Estimate(value, error, 50, **more)


def absolute(x: Any) -> Any:
    return abs(x) if isinstance(x, Estimate) else gvar.fabs(x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda a, b, c: a + b,
    "difference": lambda a, b, c: a - b - c,
    "product": lambda a, b, c: a * b,
    "ratio": lambda a, b, c: a / b,
    "with numbers": lambda a, b, c: 3.0 - 2 * a / 7 + b * 0.5 - 1.0,
    "inverse": lambda a, b, c: 2.0 / b,
    "powers": lambda a, b, c: a**2 * b**-0.5,
    "absolute": lambda a, b, c: absolute(c) + absolute(a),
    "negative": lambda a, b, c: -(+a),
    "asymmetry": lambda a, b, c: (a - b) / (a + b),
    "everything": lambda a, b, c: absolute(c) * a / b**2 - c / a + a * b * c,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_those_of_gvar(name: str) -> None:
    members = [replace_unit(e) for e in three().values()]
    found = FUNCTIONS[name](*members)
    expected = FUNCTIONS[name](*gvar.gvar(list(VALUES), COVARIANCE))
    assert found.value == pytest.approx(expected.mean, rel=1e-14)
    assert found.error == pytest.approx(expected.sdev, rel=1e-10)
    assert found.gvar().mean == pytest.approx(expected.mean) and found.gvar().sdev == pytest.approx(expected.sdev)


def replace_unit(estimate: Estimate) -> Estimate:
    return replace(estimate, unit="").depending(estimate.gradient)


def test_ignoring_the_covariance_is_another_answer() -> None:
    """Negative control: the same numbers as independent ones."""
    a, b, _ = three().values()
    loose = Estimate(a.value, a.error, 1) / Estimate(b.value, b.error, 1)
    assert loose.error > 1.3 * (a / b).error


def test_a_number_is_entirely_correlated_with_itself_and_with_no_other() -> None:
    a = alone()
    assert (a - a).error == 0.0 == (a - a).value and (a / a).error == pytest.approx(0.0, abs=1e-16)
    assert (a + a).error == 1.0 and (a * a).error == pytest.approx(4.0)
    twin = alone()
    assert a == twin and (a + twin).error == pytest.approx(math.hypot(0.5, 0.5))
    assert (a + twin).n == 100 and (a + a).n == 50
    assert sum([a, twin, a]).value == 12.0


def test_relations_survive_copies_together() -> None:
    both = three()
    for copied in (copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert (copied["a"] / copied["b"]).error == (both["a"] / both["b"]).error
        np.testing.assert_array_equal(copied.covariance, both.covariance)


@given(st.floats(-1e3, 1e3), st.floats(0, 10), st.floats(0.1, 1e3), st.floats(0, 10))
def test_laws(x: float, dx: float, y: float, dy: float) -> None:
    a, b = Estimate(x, dx, 1), Estimate(y, dy, 1)
    back = a * b / b
    assert back.value == pytest.approx(x, rel=1e-12, abs=1e-12)
    assert back.error == pytest.approx(dx, rel=1e-6, abs=1e-9 * (1 + dy * abs(x)))
    assert ((a + b) - b).error == pytest.approx(dx, rel=1e-6, abs=1e-7 * (1 + dy))
    assert (a - b).error == (b - a).error


@pytest.mark.parametrize(
    ("action", "error", "match"),
    [
        (lambda: alone() / Estimate(0.0, 1.0, 1), DomainError, "divided"),
        (lambda: 1.0 / Estimate(0.0, 1.0, 1), DomainError, "divided"),
        (lambda: alone(-4.0) ** 0.5, DomainError, "power 0.5"),
        (lambda: alone(0.0) ** -1, DomainError, "power -1"),
        (lambda: alone(unit="pb") + alone(unit="fb"), ConfigError, "'pb' and 'fb'"),
        (lambda: f"{alone():nonsense}", ConfigError, "'pm'"),
        (lambda: Estimates.correlated({"a": alone()}, np.eye(2)), ShapeError, "as many rows"),
        (lambda: Estimates.combine([]), ConfigError, "combine"),
        (lambda: Estimates.combine([three(), Estimates({"a": alone()})]), ConfigError, "different names"),
        (lambda: three()["d"], KeyError, "there are a, b, c"),
        (lambda: three()[3], KeyError, "no integral 3"),
        (lambda: alone() + "1", TypeError, "unsupported"),
        (lambda: alone() ** "2", TypeError, "unsupported"),
        (lambda: "2" / alone(), TypeError, "unsupported"),
    ],
)
def test_what_cannot_be_computed_is_named(action: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        action()


def test_units() -> None:
    a, b = alone(unit="pb"), alone(unit="GeV")
    units = [(a + 1).unit, (a * b).unit, (a / b).unit, (a / a).unit, (2 / a).unit, (a**2).unit, (a * 3).unit]
    assert units == ["pb", "pb GeV", "pb/GeV", "", "1/pb", "pb^2", "pb"]


def test_an_unknown_error_stays_unknown() -> None:
    a = alone(error=math.inf)
    assert (a + 1).error == math.inf == (a * alone()).error
    both = Estimates.correlated({"a": a, "b": alone()}, [[1.0, 0.5], [0.5, 1.0]])
    assert both["b"].error == (2 * both["b"]).error / 2 == 0.5


@pytest.mark.parametrize(
    ("spec", "text"),
    [("", "1603.2(4)"), ("pm", "1603.2 ± 0.4"), (".2f", "1603.21 ± 0.41"), (".1e", "1.6e+03 ± 4.1e-01")],
)
def test_formats(spec: str, text: str) -> None:
    assert f"{Estimate(1603.214, 0.41, 10):{spec}}" == text
    assert f"{Estimate(1603.214, 0.41, 10):>12}" == "   1603.2(4)"
    assert f"{Estimate(2.0, 0.0, 10):pm}" == "2 ± 0" and f"{Estimate(0.5, math.inf, 1):pm}" == "0.5 ± inf"


def test_estimates_by_name_and_number() -> None:
    found = three()
    assert list(found) == ["a", "b", "c"] and len(found) == 3 and "a" in found and "d" not in found
    assert found[0] is found["a"] and found[-1] is found["c"]
    assert found.value.tolist() == list(VALUES)
    np.testing.assert_allclose(found.error, np.sqrt(np.diag(COVARIANCE)))
    np.testing.assert_allclose(found.covariance, COVARIANCE, atol=1e-17)
    assert str(found) == "a = 2.00(20), b = 5.00(30), c = -3.00(10)"
    made = Estimates({"ratio": found["a"] / found["b"], "a": found["a"]})
    a, b, _ = gvar.gvar(list(VALUES), COVARIANCE)
    expected = gvar.evalcov([a / b, a])
    np.testing.assert_allclose(made.covariance, expected)


def test_gvars_are_correlated_however_they_are_made() -> None:
    found = three()
    np.testing.assert_allclose(gvar.evalcov(found.gvar()), COVARIANCE, atol=1e-17)
    apart = [found["a"].gvar(), (found["a"] - found["b"]).gvar()]
    assert gvar.sdev(apart[0] - apart[1]) == pytest.approx(0.3)
    assert gvar.evalcov([alone().gvar(), alone().gvar()])[0, 1] == 0.0


def test_without_gvar_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gvar", None)
    with pytest.raises(MissingExtraError, match="pip install vegas"):
        alone().gvar()


def test_json_gives_back_the_numbers(tmp_path: Any) -> None:
    members = {"a": Estimate(1.5, math.inf, 10), "b": Estimate(2.5, 0.1, 10, 1.1, 4, 0.9, "pb")}
    for found in (three(), Estimates(members)):
        write_json(tmp_path / "estimates.json", found.to_dict())
        again = Estimates.from_dict(read_json(tmp_path / "estimates.json"))
        assert str(again) == str(found) and again.names == found.names
        assert [e.to_dict() for e in again.values()] == [e.to_dict() for e in found.values()]
        np.testing.assert_allclose(again.correlation, found.correlation)


def test_combination_keeps_covariances() -> None:
    whole = Estimates.combine([three(), three(), three()])
    np.testing.assert_allclose(whole.covariance, COVARIANCE / 3)
    assert whole["a"].n == 300 and whole["a"].value == 2.0
    one = three()
    assert Estimates.combine([one]) is one
