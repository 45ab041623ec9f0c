"""The distances of samples of jets: zero for the same, at the floor for the same law, far for others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import call
from scipy.stats import wasserstein_distance
from small_jets import small_jets

from nisampler.calo.jets.evaluation import CONTROL, FLOOR, evaluate
from nisampler.calo.jets.files import write_jets
from nisampler.calo.jets.jets import Jets
from nisampler.calo.jets.kinematics import calibrated, totals
from nisampler.calo.jets.metrics import COUNT, MASS, POLYNOMIALS, PT, Numbers, distances, measure, mixed
from nisampler.errors import ConfigError, JetDataError, ShapeError


@pytest.fixture(scope="module")
def reference() -> Numbers:
    return Numbers.of(small_jets(1200, seed=1))


def heavier(jets: Jets, factor: float) -> Jets:
    pt, mass = totals(jets.constituents)
    return Jets(calibrated(jets.constituents, pt, factor * mass), jets.mask, jets.types, jets.pt, jets.eta, jets.mass)


def test_a_sample_has_no_distance_from_itself(reference: Numbers) -> None:
    assert set(dict(distances(reference, reference)).values()) == {0.0}


def test_the_distance_of_a_shift_is_the_shift(reference: Numbers) -> None:
    jets = reference.jets
    shifted = Numbers.of(Jets(jets.constituents, jets.mask, jets.types, 1.1 * jets.pt, jets.eta, jets.mass))
    found = dict(distances(reference, shifted))
    assert found[PT] == pytest.approx(0.1 * reference.single[PT].mean(), rel=1e-6)
    assert found[MASS] == pytest.approx(0.1 * reference.single[MASS].mean(), rel=1e-6)
    assert found[COUNT] == found[POLYNOMIALS] == found["etarel"] == 0.0
    assert found[f"{MASS}, g"] < found[f"{MASS}, t"]


def test_samples_of_one_law_are_at_the_floor_and_others_are_not(reference: Numbers) -> None:
    floor = measure("floor", reference, None)
    same = measure("same", reference, Numbers.of(small_jets(1200, seed=2))).times_floor(floor)
    assert all(value < 3.0 for value in same.values()), same
    other = measure("heavier", reference, Numbers.of(heavier(small_jets(1200, seed=2), 1.3)))
    times = other.times_floor(floor)
    assert times[MASS] > 3.0 and times[POLYNOMIALS] > 3.0 and times[PT] < 3.0
    assert other.fpd is not None and floor.fpd is not None and other.fpd.value > 3 * floor.fpd.value


def test_mixed_constituents_keep_spectra_and_are_recognised(reference: Numbers) -> None:
    jets = mixed(reference.jets, 1)
    for index in range(3):
        first, second = (sample.constituents[sample.mask][:, index] for sample in (jets, reference.jets))
        np.testing.assert_array_equal(np.sort(first), np.sort(second))
    floor, control = measure("floor", reference, None), measure("mixed", reference, Numbers.of(jets))
    times = control.times_floor(floor)
    assert times[MASS] > 3.0 and times["ptrel"] < 3.0
    assert control.kpd is not None and floor.kpd is not None and control.kpd.value > floor.kpd.value


def test_polynomials_are_compared_one_by_one(reference: Numbers) -> None:
    other = Numbers.of(small_jets(500, seed=3))
    one_by_one = [
        wasserstein_distance(reference.polynomials[:, index], other.polynomials[:, index]) for index in range(5)
    ]
    assert dict(distances(reference, other))[POLYNOMIALS] == pytest.approx(np.mean(one_by_one))


def test_few_jets_are_refused(reference: Numbers) -> None:
    with pytest.raises(JetDataError, match="30 jets of few or of the reference are too few"):
        measure("few", reference, Numbers.of(small_jets(30)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_jets(folder / "reference.hdf5", small_jets(400, seed=1))
    write_jets(folder / "good.hdf5", small_jets(200, seed=2))
    write_jets(folder / "heavy.hdf5", heavier(small_jets(200, seed=3), 1.4))
    write_jets(folder / "few.hdf5", small_jets(200, seed=3).leading(4))
    write_jets(folder / "top.hdf5", small_jets(200, seed=3, types=(2,)))
    return folder


def test_the_command_writes_a_report(files: Path, tmp_path: Path) -> None:
    words = ["--reference", files / "reference.hdf5", "-o", tmp_path / "report"]
    for name in ("good", "heavy"):
        words += ["--candidate", f"{name}={files / name}.hdf5"]
    code, out, err = call("jets", "evaluate", *words)
    assert code == 0, err
    assert "W1 mass [GeV]" in out and "FPD × 1000" in out and CONTROL in out and "warning" not in out
    result = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    times = {name: item["times_floor"][MASS] for name, item in result["samples"].items()}
    assert times["heavy"] > 2 * times["good"] and times[FLOOR] == 1.0
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'id="mass_t"' in page and 'id="images"' in page and "times the floor" in page
    pictures = {path.stem for path in (tmp_path / "report" / "figures").iterdir()}
    assert {"mass", "pt", "constituents", "images", "ptrel", "polynomials"} <= pictures
    rows = (tmp_path / "report" / "table.md").read_text().splitlines()
    assert rows[0] == f"|  | good | heavy | {FLOOR} | {CONTROL} |" and len(rows) > 10
    again = evaluate(files / "reference.hdf5", {"good": files / "good.hdf5"}, tmp_path / "again")
    assert again["samples"]["good"]["w1"] == result["samples"]["good"]["w1"]


def test_another_composition_is_said(files: Path, tmp_path: Path) -> None:
    result = evaluate(files / "reference.hdf5", {"top": files / "top.hdf5"}, tmp_path / "out")
    assert "top has 100 % of jets of type t, the reference 50 %" in " ".join(result["warnings"])


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "Missing option '--candidate'"),
        (["good"], "--candidate must be NAME=FILE, got 'good'"),
        (["a=good.hdf5", "a=good.hdf5"], "names that differ"),
        ([f"{FLOOR}=good.hdf5"], "names other than 'reference'"),
        (["a=nowhere.hdf5"], "no such file"),
        (["a=few.hdf5"], "places for 4 constituents, the reference for 8"),
    ],
)
def test_wrong_candidates_are_named(files: Path, tmp_path: Path, candidates: list[str], message: str) -> None:
    words = [word for text in candidates for word in ("--candidate", text.replace("=", f"={files}/"))]
    code, _, err = call("jets", "evaluate", "--reference", files / "reference.hdf5", *words, "-o", tmp_path / "new")
    assert code in (1, 2) and message in err.replace("\n", " ")
    assert not (tmp_path / "new").exists()


def test_errors_of_the_function(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got none"):
        evaluate(files / "reference.hdf5", {}, tmp_path / "a")
    with pytest.raises(ShapeError):
        evaluate(files / "reference.hdf5", {"few": files / "few.hdf5"}, tmp_path / "a")
