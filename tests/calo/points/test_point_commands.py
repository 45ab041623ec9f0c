"""Point clouds on the command line, from the simulator to the report."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from nisampler.calo.data.files import read_showers
from nisampler.calo.data.point_files import PointReader, holds_points
from nisampler.calo.data.points import PointShowers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.evaluation.evaluate import EvaluationOptions, evaluate
from nisampler.calo.evaluation.points import PointFeatures, shares
from nisampler.calo.given import given_geometry
from nisampler.calo.simulation.points import simulate_points
from nisampler.cli import app

TOY = geometry("toy")
LAW = ("--geometry", "toy", "--energies", "log-uniform:1:4")


def call(folder: Path, *arguments: object) -> Result:
    """A command as a user gives it, in a folder."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, ["calo", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("points")
    for seed, name in ((1, "train.h5"), (2, "test.h5")):
        done = call(place, "simulate", *LAW, "--points", "--finer", 2, "--showers", 80, "--seed", seed, "-o", name)
        assert done.exit_code == 0, done.output
        assert "points a shower" in done.stdout
    fit = ("fit", *LAW, "--data", "train.h5", "--model", "small-clouds-onestep", "--epochs", 1, "-o", "model")
    assert call(place, *fit, "--quiet").exit_code == 0
    return place


def test_generate_and_evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for section in ("_scores", "_shower_pictures", "_histograms", "_training"):
        monkeypatch.setattr(f"nisampler.calo.evaluation.report.{section}", lambda _: [])
    words = ("--showers", 40, "-o", "made.h5", "--projected", "cells.h5")
    made = call(folder, "generate", "model", *words)
    assert made.exit_code == 0, made.output
    assert "beside all cells" in made.stdout and "points a shower" in made.stdout and holds_points(folder / "made.h5")
    assert len(read_showers(folder / "cells.h5", TOY)) == 40
    words = ("--candidate", "clouds=made.h5", "--candidate", "cells=cells.h5", "--model", "model", "--trainings", 0)
    done = call(folder, "evaluate", "--reference", "test.h5", *words, "-o", "report")
    assert done.exit_code == 0, done.output
    assert "radial profile of the energy" in done.stdout
    result = json.loads((folder / "report" / "evaluation.json").read_text())
    result = result.get("content", result)
    samples = result["samples"]
    assert "points" in samples["clouds"] and "points" not in samples["cells"]
    assert samples["clouds"]["summary"] == pytest.approx(samples["cells"]["summary"], rel=1e-5)
    floor, control = samples["reference, other half"], samples["shuffled voxels"]
    assert floor["points"]["beside_points"] == 0 and "points" not in control
    for name in ("clouds", "points"):
        assert (folder / "report" / "figures" / f"{name}.svg").stat().st_size > 3000


def test_incident_energies_of_a_file_of_points(folder: Path) -> None:
    done = call(folder, "generate", "model", "--incident", "test.h5", "--showers", 10, "-o", "same.h5")
    assert done.exit_code == 0, done.output
    with PointReader(folder / "same.h5", TOY) as same, PointReader(folder / "test.h5", TOY) as test:
        np.testing.assert_allclose(same.incident, test.incident[:10], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("fit", *LAW, "--data", "train.h5", "--model", "small", "-o", "other"), "holds points"),
        (("export", "model", "-o", "a.onnx"), "point clouds are not exported"),
        (("simulate", *LAW, "--points", "--finer", 0, "--showers", 2, "-o", "b.h5"), "--finer"),
        (("generate", "model", "--showers", 2, "-o", "made2.h5", "--projected", "train.h5"), "train.h5"),
    ],
)
def test_errors_are_one_message(folder: Path, words: tuple[object, ...], text: str) -> None:
    done = call(folder, *words)
    assert done.exit_code != 0 and text in done.output and "Traceback" not in done.output


def clouds(seed: int, scale: float = 1.0) -> PointShowers:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(40, 200)
    m = int(counts.sum())
    points = np.column_stack([scale * rng.normal(0, 5, (m, 2)), rng.integers(0, 5, m), rng.exponential(3, m) + 1e-3])
    return PointShowers(np.full(200, 2e3), points, counts)


def test_metrics_are_near_their_floor_for_equal_laws_alone() -> None:
    reference, same, wider = (PointFeatures.of(made, TOY) for made in (clouds(1), clouds(2), clouds(3, 1.3)))
    near, far = same.against(reference), wider.against(reference)
    assert near["number"] == pytest.approx(1, abs=0.05) and near["radial_profile"] < 0.2 and near["spectrum"] < 0.15
    assert far["radial_profile"] > 0.3 and far["spectrum"] < 0.15 and far["centre_width"] > 1.15
    itself = reference.against(reference)
    assert itself["radial_profile"] < 0.01 and itself["spectrum"] < 0.01 and itself["layer_numbers"] == 0


def test_shares_of_weights() -> None:
    values = np.random.default_rng(1).uniform(0, 1, 10_000)
    found = shares(values, values, values, values)
    assert np.abs(10 * found - 1).max() < 0.01
    assert np.abs(10 * shares(values, values, values) - 1).max() > 0.5


def test_evaluation_of_points_is_that_of_their_cells(tmp_path: Path) -> None:
    cells = given_geometry("toy", energies="log-uniform:1:4")
    for seed, name in ((1, "a"), (2, "b")):
        simulate_points(tmp_path / f"{name}.h5", cells, 40, seed, 2)
    options = EvaluationOptions(classifiers=(), distances=False, report=False)
    result = evaluate(tmp_path / "a.h5", {"b": tmp_path / "b.h5"}, cells, tmp_path / "out", options)
    assert set(result["samples"]["b"]["points"]) >= {"number", "radial_profile", "beside_energy"}
    assert "points of a layer" in (tmp_path / "out" / "table.md").read_text()
