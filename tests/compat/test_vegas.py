"""The face of vegas: the same integrals within errors, the same names, and what is kept between calls."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gvar
import numpy as np
import pytest
import vegas as original
from numpy.typing import NDArray

import nisampler.compat.vegas as vegas
from nisampler.compat.vegas.options import Options
from nisampler.errors import ConfigError, IntegrandCallError, NonFiniteError, UnsupportedError

Array = NDArray[np.float64]
BOX = [[-1, 1], [0, 1], [0, 1], [0, 1]]
NORM = 1013.2118364296088
CIRCLE = 2 * math.pi * 0.3 * 0.02 * math.sqrt(math.pi)


def gauss(x: Any) -> float:
    return float(math.exp(-100 * sum((x[d] - 0.5) ** 2 for d in range(4))) * NORM)


@vegas.lbatchintegrand
def batch(x: Array) -> Any:
    return np.exp(-100 * ((x - 0.5) ** 2).sum(1)) * NORM


@vegas.rbatchintegrand
def turned(x: Array) -> Any:
    return np.exp(-100 * ((x - 0.5) ** 2).sum(0)) * NORM


class Moments(vegas.LBatchIntegrand):  # type: ignore[misc]
    """Norm and first two moments of an axis, as an array."""

    def __call__(self, x: Array) -> Any:
        f = batch(x)
        return np.stack([f, f * x[:, 0], f * x[:, 0] ** 2], 1)


def named(x: Any) -> dict[str, Any]:
    f = gauss(x)
    return {"1": f, "x": [f * x[0], f * x[1]]}


@vegas.lbatchintegrand
def circle(x: Array) -> Any:
    return np.exp(-(((np.hypot(x[:, 0] - 0.5, x[:, 1] - 0.5) - 0.3) / 0.02) ** 2))


def sphere(x: Any) -> float:
    """Volume element of a five-dimensional sphere."""
    return float(x["r"] ** 4 * np.prod(np.sin(x["phi"][:3]) ** np.array([3, 2, 1])))


SPHERE = {"r": (0, 1), "phi": 3 * [(0, np.pi)] + [(0, 2 * np.pi)]}


@vegas.rbatchintegrand
def peaks(x: Array, jac: Array) -> dict[str, Array]:
    """An integral over both axes, and one over the first alone."""
    both = np.exp(-100 * x[1]) / ((x[0] - x[1]) ** 2 + 0.01)
    return {"both": both, "one": 1 / (x[0] ** 2 + 0.01) / jac[1]}


def adapted(module: Any, f: Any, region: Any, neval: int, seed: int = 1, **options: Any) -> Any:
    """The second of two calls, which starts from an adapted grid."""
    gvar.ranseed(seed)
    integ = module.Integrator(region)
    integ(f, nitn=6, neval=neval, **options)
    return integ(f, nitn=6, neval=neval, **options)


def flat(result: Any) -> Any:
    return np.reshape(result.buf if isinstance(result, gvar.BufferDict) else result, -1)


CASES: dict[str, tuple[Any, Any, int, dict[str, Any], list[float]]] = {
    "scalar": (gauss, BOX, 1000, {}, [1.0]),
    "lbatch": (batch, BOX, 4000, {}, [1.0]),
    "rbatch": (turned, BOX, 4000, {"adapt_to_errors": False, "beta": 0.0}, [1.0]),
    "batches": (batch, BOX, 6000, {"min_neval_batch": 500}, [1.0]),
    "array": (Moments(), BOX, 4000, {}, [1.0, 0.5, 0.255]),
    "dict": (named, BOX, 1000, {"correlate_integrals": False}, [1.0, 0.5, 0.5]),
    "circle": (circle, 2 * [[0, 1]], 4000, {"adapt_to_errors": True}, [CIRCLE]),
    "unadapted": (circle, 2 * [[0, 1]], 4000, {"adapt": False}, [CIRCLE]),
    "sphere": (sphere, SPHERE, 2000, {"alpha": 0.2}, [8 * math.pi**2 / 15]),
}


@pytest.mark.parametrize("case", CASES)
def test_integrals_and_errors_are_those_of_vegas(case: str) -> None:
    f, region, neval, options, exact = CASES[case]
    ours, theirs = (adapted(module, f, region, neval, **options) for module in (vegas, original))
    assert type(ours) is type(theirs) and ours.nitn == theirs.nitn == 6
    for own, other, value in zip(flat(ours), flat(theirs), exact, strict=True):
        assert abs(own.mean - value) < 4 * own.sdev and abs(other.mean - value) < 4 * other.sdev
        assert 0.6 < own.sdev / other.sdev < 1.6
        assert abs(own.mean - 1.2 * value) > 6 * own.sdev  # negative control
    assert ours.sum_neval == pytest.approx(theirs.sum_neval, rel=0.15) and ours.sum_neval <= 6 * neval


def test_correlations_are_those_of_vegas() -> None:
    ours, theirs = (adapted(module, Moments(), BOX, 10_000) for module in (vegas, original))
    assert np.abs(gvar.evalcorr(ours) - gvar.evalcorr(theirs)).max() < 0.05 < gvar.evalcorr(ours)[0, 1] - 0.8
    ratio = ours[1] / ours[0]
    alone = gvar.gvar(ours[1].mean, ours[1].sdev) / gvar.gvar(ours[0].mean, ours[0].sdev)
    assert abs(ratio.mean - 0.5) < 4 * ratio.sdev and ratio.sdev < 0.3 * alone.sdev
    loose = adapted(vegas, Moments(), BOX, 2000, correlate_integrals=False)
    assert np.abs(gvar.evalcorr(loose) - np.eye(3)).max() < 1e-12


def pulls(shift: float) -> Array:
    """(value - truth) / error of replicas without adaptation; `shift` is added to the values, in errors."""
    gvar.ranseed(5)
    integ = vegas.Integrator(BOX, nitn=4, neval=2000)
    integ(batch, nitn=5)
    results = [integ(batch, adapt=False) for _ in range(60)]
    return np.array([(r.mean - 1) / r.sdev + shift for r in results])


@pytest.mark.parametrize(("shift", "fair"), [(0.0, True), (0.7, False)])
def test_errors_are_calibrated(shift: float, fair: bool) -> None:
    found = pulls(shift)
    assert bool(abs(found.mean()) < 4 / math.sqrt(60)) is fair and 0.7 < found.std() < 1.35


def test_several_iterations_agree_as_they_should() -> None:
    gvar.ranseed(2)
    integ = vegas.Integrator(BOX, neval=4000)
    integ(batch)
    q = [integ(batch, nitn=8, adapt=False).Q for _ in range(20)]
    assert min(q) > 1e-3 and 0.25 < np.mean(q) < 0.75


def test_the_grid_is_kept_between_calls() -> None:
    gvar.ranseed(1)
    integ = vegas.Integrator(BOX)
    first, second = integ(batch, neval=4000), integ(batch, neval=4000)
    assert second.itn_results[0].sdev < 0.2 * first.itn_results[0].sdev
    before = np.array(integ.map.grid)
    frozen = integ(batch, neval=4000, adapt=False)
    assert np.array_equal(integ.map.grid, before) and not frozen.weighted and second.weighted
    assert frozen.mean == pytest.approx(np.mean([r.mean for r in frozen.itn_results]))
    integ(batch, neval=4000, adapt=True, alpha=0.0)
    assert np.array_equal(integ.map.grid, before)
    copy = vegas.Integrator(integ, nitn=2)
    copy(batch, alpha=0.5)
    assert np.array_equal(integ.map.grid, before) and not np.array_equal(copy.map.grid, before)
    assert (copy.neval, copy.nitn, integ.nitn) == (4000, 2, 10)


def test_maps_of_vegas_are_taken_and_given() -> None:
    gvar.ranseed(1)
    theirs = original.Integrator(BOX, neval=4000)
    theirs(batch)
    for source in (theirs.map, theirs):
        taken = vegas.Integrator(source, neval=4000, alpha=0.0)
        assert taken(batch, nitn=1).sdev < 0.02 < vegas.Integrator(BOX, neval=4000, alpha=0.0)(batch, nitn=1).sdev
    back = original.Integrator(taken.map, neval=4000, alpha=0.0)
    assert back(batch, nitn=1).sdev < 0.02
    uneven = vegas.Integrator(vegas.AdaptiveMap([[0, 0.1, 1], [-1, 0, 0.5, 1, 3]]), alpha=0.0)
    volume = uneven(lambda x: 1.0, nitn=2)
    assert volume.mean == pytest.approx(4.0, abs=5 * volume.sdev) and uneven.map.region(1) == (-1.0, 3.0)
    start = np.array(taken.map.grid)
    old = taken.set(map=2 * [[0, 1]], nitn=3)
    assert taken.dim == 2 and old["nitn"] == 1
    taken.set(old)
    assert taken.dim == 4 and taken.nitn == 1 and np.allclose(taken.map.grid, start)


def test_options_are_set_and_restored() -> None:
    integ = vegas.Integrator(2 * [[0, 1]], neval=1e3, nstrat=[4, 5])
    assert list(integ.nstrat) == [4, 5] and integ.nhcube == 20
    old = integ.set(neval=5e3, beta=0.5)
    assert (
        integ.neval == 5000
        and list(integ.nstrat) == [25, 25]
        and old == {"neval": 1000, "beta": 0.75, "nstrat": (4, 5)}
    )
    integ.set(old)
    assert list(integ.nstrat) == [4, 5] and integ.beta == 0.75
    given = vegas.Integrator(2 * [[0, 1]], nstrat=np.array([10, 3]))
    assert given.neval == original.Integrator(2 * [[0, 1]], nstrat=[10, 3]).neval


@pytest.mark.parametrize("dim", [1, 2, 4, 9])
@pytest.mark.parametrize(
    "options", [{}, {"neval": 30_000}, {"beta": 0.0}, {"neval_frac": 0.1}, {"uniform_nstrat": True}]
)
def test_strata_are_those_of_vegas(dim: int, options: dict[str, Any]) -> None:
    ours, theirs = (module.Integrator(dim * [[0, 1]], **options) for module in (vegas, original))
    assert int(np.prod(ours.nstrat)) == pytest.approx(int(np.prod(theirs.nstrat)), rel=0.35)
    assert ours.min_neval_hcube >= 2 and max(ours.nstrat) - min(ours.nstrat) <= (
        0 if "uniform_nstrat" in options else 1
    )
    list(ours.random_batch())
    assert ours.last_neval <= ours.neval


def test_jacobians_make_integrals_of_fewer_axes_exact() -> None:
    region = 2 * [(0.0, np.pi / 2)]

    @vegas.lbatchintegrand
    def turned(x: Array, jac: Array) -> Any:  # vegas itself fails with the other one
        return {name: values.T for name, values in peaks(x.T, jac.T).items()}

    ours, again = (adapted(vegas, f, region, 5000, uses_jac=True) for f in (peaks, turned))
    theirs = adapted(original, turned, region, 5000, uses_jac=True)
    exact = 10 * math.atan(5 * math.pi)
    assert abs(ours["one"].mean - exact) < 4 * ours["one"].sdev and ours["one"].sdev < 2 * theirs["one"].sdev
    difference = ours["both"] - theirs["both"]
    assert abs(difference.mean) < 4 * difference.sdev and ours["both"].mean == again["both"].mean
    rows = adapted(vegas, vegas.rbatchintegrand(lambda x, jac: np.stack([x[0], x[1]])), region, 500, uses_jac=True)
    assert rows.shape == (2,) and abs(rows[1].mean - (np.pi / 2) ** 3 / 2) < 4 * rows[1].sdev


def test_own_sums_over_points() -> None:
    gvar.ranseed(1)
    integ = vegas.Integrator(BOX, neval=4000, min_neval_batch=500)
    integ(batch)
    total, variance, seen = 0.0, 0.0, []
    for x, y, wgt, hcube in integ.random_batch(yield_hcube=True, yield_y=True):
        assert np.allclose(integ.map(y), x)
        part = wgt * batch(x)
        seen.append(len(x))
        for i in range(hcube[0], hcube[-1] + 1):
            own = part[hcube == i]
            total += own.sum()
            variance += own.var(ddof=1) * len(own)
    result = integ(batch, nitn=1, adapt=False)
    assert (
        len(seen) > 3 and sum(seen) == integ.last_neval and integ.neval_hcube_range[1] > integ.neval_hcube_range[0] > 1
    )
    assert abs(total - 1) < 4 * math.sqrt(variance) and variance == pytest.approx(result.sdev**2, rel=0.5)
    flat_grid = vegas.Integrator(BOX, neval=4000)
    assert sum(wgt.sum() for _, wgt in flat_grid.random_batch()) == pytest.approx(2.0)
    gvar.ranseed(4)
    alone = sum(wgt * gauss(x) for x, wgt in integ.random())
    gvar.ranseed(4)
    assert alone == pytest.approx(sum(wgt @ batch(x) for x, wgt in integ.random_batch()))
    assert len(next(iter(integ.random(yield_hcube=True, yield_y=True)))) == 4


def test_samples_have_the_layout_of_the_region() -> None:
    integ = vegas.Integrator(SPHERE, neval=500)
    wgt, x = integ.sample(1200)
    assert len(wgt) >= 1200 and x["phi"].shape == (4, len(wgt)) and wgt.sum() == pytest.approx(2 * np.pi**4)
    wgt, x = integ.sample(mode="lbatch")
    assert x["phi"].shape == (len(wgt), 4) and x["r"].max() <= 1
    shaped = vegas.Integrator(np.array(4 * [[0.0, 1.0]]).reshape(2, 2, 2))
    assert shaped.sample()[1].shape[:2] == (2, 2) and shaped(lambda x: x[1, 1], nitn=2).mean == pytest.approx(
        0.5, abs=0.05
    )
    with pytest.raises(ConfigError, match="rbatch"):
        integ.sample(mode="middle")


def test_the_seed_of_gvar_repeats_a_script() -> None:
    results = [adapted(vegas, batch, BOX, 1000, seed=seed) for seed in (1, 1, 2)]
    assert results[0].mean == results[1].mean != results[2].mean
    draws = np.random.default_rng(3)
    own = [vegas.Integrator(BOX, ran_array_generator=draws.random)(batch, nitn=1).mean for _ in range(2)]
    draws = np.random.default_rng(3)
    again = vegas.Integrator(BOX, ran_array_generator=draws.random)(batch, nitn=1).mean
    assert own[0] == again != own[1]


def test_workers_give_the_same_numbers() -> None:
    with ThreadPoolExecutor(2) as executor:
        gvar.ranseed(1)
        shared = vegas.Integrator(BOX, executor=executor)(batch, nitn=2, neval=2000)
        with pytest.raises(UnsupportedError, match="uses_jac"):
            vegas.Integrator(BOX, executor=executor)(lambda x, jac: 1.0, uses_jac=True)
    gvar.ranseed(1)
    assert vegas.Integrator(BOX)(batch, nitn=2, neval=2000).mean == shared.mean


def test_analyzers_are_told_and_tolerances_end_the_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    integ = vegas.Integrator(BOX, analyzer=vegas.reporter(ngrid=3), neval=2000)
    integ(batch, nitn=4)
    result = integ(batch, nitn=50, rtol=0.02)
    assert 1 <= result.nitn < 50 and result.sdev < 0.02 * result.mean
    told = capsys.readouterr().out
    assert told.count("all itn's") == 4 + result.nitn and "strata/axis" in told


def test_constants_and_zeros_have_an_answer() -> None:
    constant = vegas.Integrator([[0, 2]])(lambda x: 3.0)
    zero = vegas.Integrator([[0, 2]])(lambda x: [0.0, 0.0])
    assert constant.mean == pytest.approx(6.0) and constant.sdev < 1e-12 and gvar.mean(zero).tolist() == [0.0, 0.0]


# Names


def test_every_name_of_vegas_is_here_or_says_what_to_use() -> None:
    names = [n for n in dir(original) if not n.startswith("_") and not inspect.ismodule(getattr(original, n))]
    missing = []
    for name in names:
        try:
            getattr(vegas, name)
        except UnsupportedError as error:
            missing.append(name)
            assert re.search(f"{name} of vegas is not here: \\w+", str(error))
    assert {"Integrator", "PDFIntegrator", "AdaptiveMap", "ravg", "reporter", "RAvgDict"} <= set(names) - set(missing)
    assert set(missing) >= {"restratify", "MPIintegrand"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vegas.nothing


@pytest.mark.parametrize("name", ["random_batch", "random", "sample", "settings"])
def test_methods_take_the_arguments_of_vegas(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(m.Integrator, name)).parameters for m in (vegas, original))
    assert {k: p.default for k, p in ours.items()} == {k: p.default for k, p in theirs.items()}


def test_pdf_integrators_take_the_arguments_of_vegas() -> None:
    ours, theirs = (inspect.signature(m.PDFIntegrator.__init__).parameters for m in (vegas, original))
    assert [(k, p.default) for k, p in ours.items()][:-1] == [(k, p.default) for k, p in theirs.items()][:-1]


def test_options_have_the_defaults_of_vegas() -> None:
    defaults = original.Integrator.defaults
    for name, default in defaults.items():
        if name == "map":
            continue
        vegas.Integrator(BOX, **{name: default})
        if hasattr(Options(), name):
            assert getattr(Options(), name) == default, name
        else:
            with pytest.raises(UnsupportedError, match=name):
                vegas.Integrator(BOX, **{name: not default if isinstance(default, bool) else default + 1})
    with pytest.raises(UnsupportedError, match="ProcessPoolExecutor"):
        vegas.Integrator(BOX)(gauss, nproc=8)


def test_attributes_are_there_or_say_what_to_use() -> None:
    theirs, ours = original.Integrator(BOX), vegas.Integrator(BOX)
    have = {name for name in dir(theirs) if not name.startswith("_") and hasattr(ours, name)}
    assert have >= {"map", "nstrat", "neval", "dim", "nhcube", "sigf", "last_neval", "xsample", "random", "settings"}
    for name in {"sigf_h5", "mpi_rank", "synchronize_random"}:
        with pytest.raises(UnsupportedError, match=name):
            getattr(ours, name)
    with pytest.raises(AttributeError, match="no nothing"):
        _ = ours.nothing
    assert "(-1, 1)" in ours.settings() and len(ours.settings(ngrid=5)) > len(ours.settings())


# Errors


def refuse(x: Any) -> float:
    raise KeyError("mass")


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (refuse, IntegrandCallError, "refuse raised KeyError: 'mass'"),
        (vegas.lbatchintegrand(lambda x: np.full(len(x), np.nan)), NonFiniteError, "NaN or infinite"),
        (lambda x: [][0], IntegrandCallError, "IndexError"),
        (lambda x: "one", IntegrandCallError, "raised"),
    ],
)
def test_functions_that_fail(f: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vegas.Integrator(BOX)(f)


@pytest.mark.parametrize(
    ("region", "options", "message"),
    [
        ([0, 1], {}, "region must be"),
        ([[0, 1, 2]], {}, "AdaptiveMap"),
        ([["a", 1]], {}, "pairs of numbers"),
        ({"r": 3}, {}, "region must be|pairs"),
        (BOX, {"neval": 1}, "neval = 1"),
        (BOX, {"neval": 10, "nstrat": [2, 2, 2, 2]}, "16 strata need at least 128"),
        (BOX, {"nstrat": [2, 2]}, "each of 4 axes"),
        (BOX, {"nval": 10}, "nval is no option"),
        (BOX, {"sampler": "flows"}, "sampler"),
        (BOX, {"alpha": -1.0}, "alpha"),
        (BOX, {"executor": 3}, "must have map"),
    ],
)
def test_wrong_settings(region: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vegas.Integrator(region, **options)


def test_a_region_must_have_a_volume() -> None:
    with pytest.raises(ConfigError, match="low < high"):
        vegas.Integrator([[1, 0]])(lambda x: 1.0)
