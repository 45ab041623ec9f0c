"""Results and integrators of the face of vegas are kept without pickles, and continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gvar
import numpy as np
import pytest

import nisampler.compat.vegas as vegas
from nisampler.errors import ConfigError, CorruptFileError, StorageError, UnsupportedError

G = gvar.gvar(["1.0(5)", "2.0(5)"])


def line(x: Any) -> float:
    return float(x[0] * x[1])


FUNCTIONS: dict[str, Any] = {
    "number": line,
    "array": lambda x: [[line(x)], [x[0]]],
    "dictionary": lambda x: {"a": line(x), ("b", 2): [x[0], 2 * x[1]]},
}


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("make", [lambda: vegas.Integrator(2 * [[0, 1]]), lambda: vegas.PDFIntegrator(G)])
@pytest.mark.parametrize("adapt", [True, False])
def test_results_are_read_as_they_were(kind: str, make: Any, adapt: bool, tmp_path: Path) -> None:
    gvar.ranseed(1)
    result = make()(FUNCTIONS[kind], nitn=3, neval=500, adapt=adapt, save=tmp_path / "result.json")
    again = vegas.load(tmp_path / "result.json")
    assert type(again) is type(result) and str(again) == str(result) and again.summary() == result.summary()
    assert (again.dof, again.sum_neval, again.weighted) == (result.dof, result.sum_neval, adapt)
    assert again.chi2 == pytest.approx(result.chi2) and (tmp_path / "result.json").read_bytes().startswith(b"{")
    if kind != "number":
        one, two = (np.reshape(getattr(r, "buf", r), -1) for r in (result, again))
        assert np.allclose(gvar.evalcov(one), gvar.evalcov(two), rtol=1e-9)
    if kind == "dictionary":
        assert list(again) == ["a", ("b", 2)] and again["b", 2].shape == (2,)


@pytest.mark.parametrize("options", [{}, {"sampler": "flow"}], ids=["grid", "flow"])
@pytest.mark.parametrize("region", [2 * [[0, 1]], {"r": (0, 1), "s": [[(0, 2)]]}], ids=["box", "dictionary"])
def test_an_integrator_goes_on_where_it_was(options: Any, region: Any, tmp_path: Path) -> None:
    def f(x: Any) -> float:
        return float(np.exp(-50 * (x["r"] - 0.3) ** 2) if isinstance(region, dict) else np.exp(-50 * (x[0] - 0.3) ** 2))

    gvar.ranseed(1)
    integ = vegas.Integrator(region, neval=600, **options)
    result = integ(f, nitn=3, saveall=str(tmp_path / "all"))
    read, again = vegas.load(tmp_path / "all")
    assert str(read) == str(result) and again.neval == 600 and again.sampler.describe() == integ.sampler.describe()
    more = []
    for one in (integ, again):
        gvar.ranseed(2)
        more.append(one(f, nitn=2, adapt=not options))
    assert more[0].mean == pytest.approx(more[1].mean, rel=1e-9)
    read.extend(more[1])
    assert read.nitn == 5 and read.sum_neval == result.sum_neval + more[1].sum_neval
    late = vegas.ravg(read.itn_results[2:], weighted=False)
    assert late.nitn == 3 and not late.weighted


def test_the_sampler_of_another_result_is_stored_too(tmp_path: Path) -> None:
    integ = vegas.Integrator(2 * [[0, 1]])
    integ(line, nitn=2)
    vegas.Integrator(2 * [[0, 1]], sampler=integ.sampler)(line, nitn=1, saveall=tmp_path / "all")
    assert np.array_equal(vegas.load(tmp_path / "all")[1].map.grid, integ.map.grid)


def test_iterations_that_were_done_are_there_after_a_failure(tmp_path: Path) -> None:
    class Stop:
        def begin(self, itn: int, integrator: Any) -> None:
            if itn == 2:
                raise KeyboardInterrupt

        def end(self, *_: Any) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        vegas.Integrator(2 * [[0, 1]], analyzer=Stop())(line, save=tmp_path / "result.json")
    assert vegas.load(tmp_path / "result.json").nitn == 2


def test_what_cannot_be_saved_or_read_says_so(tmp_path: Path) -> None:
    integ = vegas.Integrator(2 * [[0, 1]])
    for name in ("save", "saveall"):
        with pytest.raises(ConfigError, match="no pickles"):
            integ(line, **{name: "result.pkl"})
    with (tmp_path / "open").open("wb") as handle, pytest.raises(ConfigError, match="no pickles"):
        integ(line, save=handle)
    with pytest.raises(ConfigError, match="name of an integral"):
        integ(lambda x: {frozenset(): 1.0}, save=tmp_path / "result.json")
    with pytest.raises(UnsupportedError, match="which is code"):
        vegas.PDFIntegrator(G)(line, saveall=tmp_path / "all")
    with pytest.raises(StorageError):
        vegas.load(tmp_path / "nothing.json")
    integ(line, nitn=1, save=tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace('"weighted": true', '"weighted": false'))
    with pytest.raises(CorruptFileError):
        vegas.load(tmp_path / "result.json")
