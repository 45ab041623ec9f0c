"""A detector of one's own, from its file to a report, by the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from typer.testing import CliRunner

from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.evaluation.shower_figures import average_showers
from nisampler.calo.fitting.store import stored_geometry
from nisampler.cli import app

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "detectors" / "sandwich.toml"


def call(*arguments: object, code: int = 0) -> str:
    """What `nisampler calo` prints, or says is wrong."""
    done = CliRunner().invoke(app, ["calo", *(str(argument) for argument in arguments)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Showers of the example and a model of them, whose file is gone."""
    path = tmp_path_factory.mktemp("own")
    own = shutil.copy(EXAMPLE, path / "own.toml")
    call("simulate", "--geometry", own, "--showers", 300, "-o", path / "data.h5", "-q")
    arguments = ["--model", "small", "--epochs", 1, "--batch", 64, "--device", "cpu", "-q"]
    call("fit", "--geometry", own, "--data", path / "data.h5", "-o", path / "model", *arguments)
    Path(own).unlink()
    return path


def test_a_geometry_is_shown(folder: Path) -> None:
    shown = call("geometries", EXAMPLE)
    assert shown == call("geometries", folder / "model")
    assert "sandwich  electron  10" in shown and "7 x 4" in shown and "cells" in shown and "2.86" in shown


def test_the_model_knows_its_detector(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[tuple[object, Path]] = []
    monkeypatch.setattr("nisampler.calo.evaluation.report.EvaluationReport.write", lambda *data: reports.append(data))
    own = read_geometry(EXAMPLE)
    assert stored_geometry(folder / "model") == own
    call("generate", folder / "model", "--incident", folder / "data.h5", "-o", tmp_path / "new.h5", "-q")
    call("simulate", "--geometry", folder / "model", "--showers", 100, "--seed", 2, "-o", tmp_path / "more.h5", "-q")
    with h5py.File(tmp_path / "new.h5") as file:
        energies, hits = file["E_inc"][:, 0], file["hits"][:]
    assert 1 <= energies.min() and energies.max() <= 20 and hits.shape == (300, own.n_voxels)
    assert hits[hits > 0].min() >= 0.5 * (1 - 1e-5) and hits[:, -7:][hits[:, -7:] > 0].min() >= 1 - 1e-5
    assert len(read_showers(tmp_path / "more.h5", own)) == 100
    candidate = ["--candidate", f"small={tmp_path / 'new.h5'}", "--reference", folder / "data.h5", "--trainings", 0]
    shown = call("evaluate", *candidate, "--model", folder / "model", "-o", tmp_path / "report")
    assert "occupancy over the reference" in shown and reports[0][1] == tmp_path / "report"
    assert "--geometry NAME" in call("evaluate", *candidate, "-o", tmp_path / "none", code=1)
    assert "belongs to sandwich" in call(
        *("generate", folder / "model", "--showers", 1, "--geometry", "toy", "-o", tmp_path / "none.h5"), code=1
    )


def test_listed_cells_are_drawn(folder: Path) -> None:
    own = read_geometry(EXAMPLE)
    mean = read_showers(folder / "data.h5", own).voxels.mean(axis=0)
    figure = average_showers(mean, mean, "same", own)
    drawn = [part for axis in figure.axes for part in axis.collections if isinstance(part, PolyCollection)]
    squares = [part for part in drawn if len(part.get_paths()) == 7]
    assert len(squares) == 3
    np.testing.assert_allclose(squares[0].get_array(), mean[-7:])


def test_showers_of_ones_own_need_no_material(tmp_path: Path) -> None:
    text = EXAMPLE.read_text().partition("[material]")[0]
    (tmp_path / "own.toml").write_text(text)
    own = read_geometry(tmp_path / "own.toml")
    assert own.material is None
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["E_inc"] = np.exp(rng.uniform(0, 3, 200))
        file["hits"] = rng.exponential(0.3, (200, own.n_voxels)) * file["E_inc"][:][:, None]
    arguments = ["--geometry", tmp_path / "own.toml", "--data", tmp_path / "own.h5", "--epochs", 1, "--device", "cpu"]
    call("fit", *arguments, "--model", "small-inn", "-o", tmp_path / "model", "-q")
    call("generate", tmp_path / "model", "--showers", 20, "-o", tmp_path / "new.h5", "-q")
    assert "say its material" in call(
        *("simulate", "--geometry", tmp_path / "own.toml", "--showers", 5, "-o", tmp_path / "none.h5"), code=1
    )
    with h5py.File(tmp_path / "own.h5", "a") as file:
        file["hits"][:] *= 1e4
    assert "both must be in MeV" in call("fit", *arguments, "--model", "small", "-o", tmp_path / "none", code=1)


def test_a_binning_with_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "own.xml").write_text(
        '<Bins><Bin pid="11" name="electron"><Layer id="0" r_edges="0,5,10" n_bin_alpha="3"/></Bin></Bins>'
    )
    given = ["--geometry", tmp_path / "own.xml", "--threshold", 1, "--energies", "uniform:1:2"]
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["incident_energies"] = rng.uniform(1e3, 2e3, (200, 1))
        file["showers"] = rng.exponential(200.0, (200, 6))
    rest = ["--data", tmp_path / "own.h5", "--model", "small", "--epochs", 1, "--device", "cpu", "-q"]
    call("fit", *given, *rest, "-o", tmp_path / "model")
    known = stored_geometry(tmp_path / "model")
    assert (known.name, known.threshold, known.incident.values) == ("own", 1.0, (1e3, 2e3))
    assert "--threshold and --energies" in call("fit", *given[:2], *rest, "-o", tmp_path / "none", code=1)
    assert "only an XML binning" in call("fit", "--geometry", "toy", "--bin", "pion", *rest, "-o", "x", code=1)
