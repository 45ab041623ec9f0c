"""Examples of the kinds that the tutorial of vegas has: the same numbers within errors, the same attributes."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import gvar
import numpy as np
import pytest
import vegas as original

import nisampler.compat.vegas as vegas

SCRIPT = Path(__file__).parents[2] / "examples" / "vegas_tutorial.py"


@cache
def examples() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("vegas_tutorial", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.EXAMPLES
    return found


def chi(radius: float) -> float:
    """Share of a normal density in four dimensions within a radius, for the width of the peak."""
    z = 100 * radius**2
    return 1 - math.exp(-z) * (1 + z)


# <p0 p1> = .5 2 + .03; var(p0 p1) = m0^2 v1 + m1^2 v0 + 2 m0 m1 c + v0 v1 + c^2
WIDTH = math.sqrt(0.25 * 0.09 + 4 * 0.04 + 2 * 0.5 * 2.0 * 0.03 + 0.04 * 0.09 + 0.03**2)
EXACT = {
    "scalar": {"integral": 1.0},
    "batch": {"integral": 1.0},
    "correlated": {"norm": 1.0, "mean": 0.5, "width^2": 0.005},
    "distribution": {"bin 0": chi(0.1), "bin 1": chi(0.2) - chi(0.1), "bin 2": 1 - chi(0.2)},
    "expectation": {"product": 1.03, "width": WIDTH},
    "points": {"integral": 1.0},
}
# What scripts read of a result, and what is compared of it.
ATTRIBUTES = ("chi2", "dof", "Q", "itn_results", "sum_neval", "nitn", "avg_neval", "weighted", "summary")


@cache
def found(name: str, module: ModuleType) -> tuple[dict[str, Any], Any]:
    gvar.ranseed(7)
    values: tuple[dict[str, Any], Any] = examples()[name](module)
    return values


def test_every_example_has_its_truth() -> None:
    assert EXACT.keys() == examples().keys()


@pytest.mark.parametrize("name", EXACT)
def test_numbers_are_right_and_those_of_vegas(name: str) -> None:
    ours, theirs = (found(name, module)[0] for module in (vegas, original))
    assert ours.keys() == theirs.keys() == EXACT[name].keys()
    for what, exact in EXACT[name].items():
        own, other = ours[what], theirs[what]
        assert abs(own.mean - exact) < 4.5 * own.sdev, what
        assert abs(own.mean - other.mean) < 5 * math.hypot(own.sdev, other.sdev), what
        assert 0.5 < own.sdev / other.sdev < 2, what
        assert own.sdev < 0.05 * exact, what
        assert abs(own.mean - 1.3 * exact) > 6 * own.sdev, what  # negative control


@pytest.mark.parametrize("name", [name for name in EXACT if name != "points"])
def test_attributes_are_those_of_vegas(name: str) -> None:
    ours, theirs = (found(name, module)[1] for module in (vegas, original))
    assert type(ours) is type(theirs)
    public = {word for word in dir(theirs) if not word.startswith("_")}
    assert public <= set(dir(ours))
    assert [word for word in ATTRIBUTES if not (hasattr(ours, word) and hasattr(theirs, word))] == []
    assert hasattr(ours, "pdfnorm") is hasattr(theirs, "pdfnorm") is (name == "expectation")
    for word in ("dof", "nitn", "weighted"):
        assert getattr(ours, word) == getattr(theirs, word), word
    assert len(ours.itn_results) == len(theirs.itn_results)
    assert ours.sum_neval == pytest.approx(theirs.sum_neval, rel=0.15)
    assert 0 < ours.Q <= 1 and 0 < ours.chi2
    lines, others = (result.summary().splitlines() for result in (ours, theirs))
    assert len(lines) == len(others) and lines[0] == others[0]


def test_correlations_are_those_of_vegas() -> None:
    ours, theirs = (gvar.evalcorr(found("correlated", module)[1].buf) for module in (vegas, original))
    assert ours.shape == (3, 3) and np.abs(ours - theirs).max() < 0.1
    assert ours[0, 1] > 0.7  # the integrals share their points
    values, result = found("correlated", vegas)
    alone = [gvar.gvar(value.mean, value.sdev) for value in (result["moments"][0], result["norm"])]
    assert values["mean"].sdev < 0.5 * (alone[0] / alone[1]).sdev


@pytest.mark.parametrize("arguments", [[], ["--original"]])
def test_the_script_runs(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert [line for line in lines if line in EXACT] == list(EXACT) and "itn   integral" in done.stdout
