"""Showers that depend on angles and on the kind of particle, from their file to a report, by the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from nisampler.calo.data.files import read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.conditions import Condition
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.evaluation.classifiers import classifier_config, classify_many
from nisampler.calo.evaluation.conditions import compared_by_condition
from nisampler.calo.evaluation.features import Features
from nisampler.calo.export.plain import PlainShowers
from nisampler.calo.fitting.store import describe, load_model, stored_geometry
from nisampler.cli import app
from nisampler.errors import ConfigError, ModelError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "detectors" / "inclined.toml"
SIDE = Condition("side", "category", (0.0, 1.0), ("left", "right"))
PAIR = Geometry(
    "pair",
    "electron",
    11,
    (Layer(0, "rectangular", (-2, 0, 2), (-1, 1)), Layer(1, "rectangular", (-2, 0, 2), (-1, 1))),
    0.1,
    IncidentEnergy("uniform", (1e3, 2e3)),
    conditions=(SIDE,),
)


def call(*arguments: object, code: int = 0) -> str:
    """What `nisampler calo` prints, or says is wrong."""
    done = CliRunner().invoke(app, ["calo", *(str(argument) for argument in arguments)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def one_sided(n: int, seed: int) -> Showers:
    """Nine tenths of the energy on the side that the condition says."""
    rng = np.random.default_rng(seed)
    incident, side = PAIR.incident.sample(n, rng), SIDE.sample(n, rng)
    share = np.where(side == 1.0, 0.9, 0.1) + 0.02 * rng.standard_normal(n)
    layer = np.stack([1 - share, share], axis=1)
    first = 0.3 + 0.02 * rng.standard_normal(n)[:, None]
    voxels = 0.8 * incident[:, None] * np.hstack([first * layer, (1 - first) * layer])
    return Showers(incident, voxels, side[:, None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Showers of the example with two small layers, and a model of them."""
    path = tmp_path_factory.mktemp("conditions")
    text = EXAMPLE.read_text().replace("repeat = 8", "repeat = 3").replace("cells = 8", "cells = 4")
    (path / "own.toml").write_text(text.replace("slabs = 2", "slabs = 5"))
    call("simulate", "--geometry", path / "own.toml", "--showers", 400, "-o", path / "data.h5", "-q")
    arguments = ["--model", "small", "--epochs", 1, "--batch", 100, "--device", "cpu", "-q"]
    call("fit", "--geometry", path / "own.toml", "--data", path / "data.h5", "-o", path / "model", *arguments)
    return path


def test_the_model_remembers_what_it_saw(folder: Path) -> None:
    own = read_geometry(folder / "own.toml")
    assert stored_geometry(folder / "model") == own
    seen = describe(folder / "model")["data"]["conditions"]
    assert seen["particle"] == [11.0, 22.0] and 0 <= seen["theta"][0] < 1 and 39 < seen["theta"][1] <= 40


def test_generation_for_what_is_said(folder: Path, tmp_path: Path) -> None:
    own, model = stored_geometry(folder / "model"), folder / "model"
    said = ["--energy", 5, "--theta", "10:20", "--phi", "0,90", "--particle", "photon"]
    shown = call("generate", model, "--showers", 50, *said, "-o", tmp_path / "a.h5")
    assert "warning" not in shown
    made = read_showers(tmp_path / "a.h5", own)
    theta, phi, particle = made.conditions.T
    assert set(made.incident) == {5e3} and set(phi) == {0.0, 90.0} and set(particle) == {22.0}
    assert 10 <= theta.min() < 12 and 18 < theta.max() <= 20
    call("generate", model, "--incident", folder / "data.h5", "--showers", 30, "-o", tmp_path / "b.h5", "-q")
    given = read_showers(folder / "data.h5", own)
    np.testing.assert_array_equal(read_showers(tmp_path / "b.h5", own).conditions, given.conditions[:30])
    (tmp_path / "p.csv").write_text("energy,theta,phi,particle\n5,10,20,electron\n6,20,30,22\n")
    call("generate", model, "--incident", tmp_path / "p.csv", "-o", tmp_path / "c.h5", "-q")
    assert read_showers(tmp_path / "c.h5", own).conditions.tolist() == [[10, 20, 11], [20, 30, 22]]


def test_other_programs_cannot_be_told(folder: Path) -> None:
    with pytest.raises(ModelError, match="depend on theta, phi, particle"):
        PlainShowers(load_model(folder / "model"))


def test_extrapolation_warns(folder: Path, tmp_path: Path) -> None:
    shown = call("generate", folder / "model", "--showers", 20, "--theta", 50, "-o", tmp_path / "a.h5")
    assert "20 of 20 values of theta lie outside those that the model learned from" in shown
    shown = call("generate", folder / "model", "--showers", 20, "--phi", 200, "-o", tmp_path / "b.h5")
    assert "outside" not in shown  # an angle that comes round


def test_wrong_options_are_named_errors(folder: Path, tmp_path: Path) -> None:
    start = ["generate", folder / "model", "--showers", 5, "-o", tmp_path / "a.h5"]
    for words, message in (
        (["--tetha", 1], "no option --tetha: showers of inclined depend on --energy, --theta, --phi, --particle"),
        (["--particle", "muon"], "--particle is one of electron, photon"),
        (["--theta", "x"], "--theta is a number, a range"),
        (["--theta"], "is no option with a value"),
        (["--theta", 1, "--incident", folder / "data.h5"], "give one of the two"),
    ):
        assert message in call(*start, *words, code=1)
    assert "no option --speed" in call(
        *("simulate", "--geometry", "toy", "--showers", 5, "--speed", 1, "-o", tmp_path / "a.h5"), code=1
    )
    data, rest = folder / "data.h5", ["--model", "small", "--device", "cpu", "-o", tmp_path / "m"]
    assert "no dataset 'eta'" in call("fit", "--geometry", folder / "own.toml", "--data", data, *rest,
                                      "--condition", "eta", code=1)  # fmt: skip
    assert "names that differ" in call("fit", "--geometry", folder / "own.toml", "--data", data, *rest,
                                       "--condition", "theta", code=1)  # fmt: skip
    assert not (tmp_path / "a.h5").exists()


def test_a_report_in_bins_of_each_condition(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr("nisampler.calo.evaluation.report.EvaluationReport.write", lambda *data: reports.append(data))
    model = folder / "model"
    call("generate", model, "--showers", 200, "--seed", 2, "--theta", "0:10", "-o", tmp_path / "new.h5", "-q")
    pair = ["--reference", folder / "data.h5", "--candidate", f"small={tmp_path / 'new.h5'}", "--model", model]
    shown = call("evaluate", *pair, "--trainings", 0, "-o", tmp_path / "report")
    assert "particle = electron" in shown and "separation of all histograms, phi" in shown
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    rows = found["samples"]["reference, other half"]["conditions"]
    assert set(rows) == {"theta", "phi", "particle"} and [row["bin"] for row in rows["particle"]] == [
        "particle = electron",
        "particle = photon",
    ]
    assert any("theta of small follows another law" in note for note in found["warnings"])
    assert "In bins of the conditions" in (tmp_path / "report" / "table.md").read_text()
    shown = call("time", model, "--batch", 2, "--repeats", 1)
    assert "cpu" in shown


def test_columns_of_a_registered_calorimeter(tmp_path: Path) -> None:
    call("simulate", "--geometry", "toy", "--showers", 90, "-o", tmp_path / "a.h5", "-q")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["position"] = np.linspace(-5.0, 5.0, 90)
        file["run"] = np.arange(90) % 3
    fit = ["fit", "--geometry", "toy", "--data", tmp_path / "a.h5", "--model", "small-matching", "--epochs", 1]
    given = ["--condition", "position", "--condition", "run=category", "--device", "cpu"]
    shown = call(*fit, *given, "-o", tmp_path / "model")
    assert "also holds" not in shown and "point to a side" in shown
    position, run = stored_geometry(tmp_path / "model").conditions
    assert position.values == (-5.0, 5.0) and run.values == (0.0, 1.0, 2.0)
    call("generate", tmp_path / "model", "--showers", 5, "--position", 2, "--run", "1,2", "-o", tmp_path / "b.h5", "-q")
    assert "begun with another" in call(*fit, "-o", tmp_path / "model", "--device", "cpu", "--resume", code=1)


def test_a_model_learns_what_its_condition_says(tmp_path: Path) -> None:
    """And one that is not told the side mixes both."""
    with ShowerWriter(tmp_path / "a.h5", PAIR) as writer:
        writer.append(one_sided(1000, 1))
    (tmp_path / "pair.toml").write_text(
        'name = "pair"\nthreshold = 0.1\nincident = { law = "uniform", energies = [1000, 2000] }\n'
        "[[layers]]\nrepeat = 2\nx = [-2, 0, 2]\ny = [-1, 1]\n"
    )
    shares = {}
    for name, given in (("told", ["--condition", "side=category"]), ("blind", [])):
        arguments = ["--geometry", tmp_path / "pair.toml", "--model", "small-inn", "--epochs", 5, "--batch", 100]
        call("fit", *arguments, *given, "--data", tmp_path / "a.h5", "-o", tmp_path / name, "--device", "cpu", "-q")
        for side in ("0", "1") if given else ("",):
            said = ["--side", side] if side else []
            path = tmp_path / f"{name}{side}.h5"
            call("generate", tmp_path / name, "--showers", 300, *said, "-o", path, "-q")
            voxels = read_showers(path, stored_geometry(tmp_path / name)).voxels
            shares[name + side] = voxels[:, 1::2].sum() / voxels.sum()
    assert shares["told0"] < 0.25 and shares["told1"] > 0.75
    assert 0.35 < shares["blind"] < 0.65


def test_a_judge_is_told_the_conditions() -> None:
    """Showers of the wrong side have the right marginals: only who knows the side can tell."""
    reference, wrong = one_sided(700, 1), one_sided(700, 2)
    wrong = Showers(wrong.incident, wrong.voxels, 1.0 - wrong.conditions)
    config = classifier_config("small-low")
    areas = []
    for cells, samples in (
        (PAIR, (reference, wrong)),
        (replace(PAIR, conditions=()), tuple(Showers(s.incident, s.voxels) for s in (reference, wrong))),
    ):
        areas.append(classify_many(samples[0], samples[1], cells, config, (1,), "cpu").as_dict()["auc"])
    assert areas[0] > 0.95 and areas[1] < 0.6
    features = [Features.of(sample, PAIR) for sample in (wrong, reference)]
    rows = compared_by_condition(features[0], features[1], PAIR)["side"]
    assert [row["bin"] for row in rows] == ["side = left", "side = right"]
    assert min(row["histograms"] for row in rows) > 0.1
    right = Features.of(one_sided(700, 3), PAIR)
    assert max(row["histograms"] for row in compared_by_condition(right, features[1], PAIR)["side"]) < 0.05
    with pytest.raises(ConfigError, match="sees no conditions"):
        classify_many(reference, wrong, PAIR, classifier_config("cnn-resnet"), (1,), "cpu")
