"""`nisampler calo`: every command, its table, its exit code, and one clear message for each error."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import build
from typer.testing import CliRunner

from nisampler.base.storage import write_sealed
from nisampler.calo.commands import app as calo
from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.models import PRESETS, build_model
from nisampler.cli import GROUP, app

TOY = geometry("toy")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Any:
    """A preset that is fitted in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nisampler.calo.fitting.fit.build_model", build)
        patch.setattr("nisampler.calo.fitting.store.build_model", build)
        yield


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `nisampler calo` in this process."""
    done = CliRunner().invoke(app, ["calo", *(str(argument) for argument in arguments)])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with simulated showers, a model, and showers of it."""
    path = tmp_path_factory.mktemp("commands")
    data = path / "data.h5"
    for arguments in (
        ["simulate", "--geometry", "toy", "--showers", 600, "--seed", 3, "--output", data],
        ["fit", "--geometry", "toy", "--data", data, "--model", "tiny", "--output", path / "model", "--device", "cpu"],
        ["generate", path / "model", "--showers", 400, "--output", path / "new.h5", "--device", "cpu", "--seed", 2],
    ):
        code, out, err = call(*arguments)
        assert code == 0 and err == ""
        (path / f"{arguments[0]}.txt").write_text(out)
    return path


def table(folder: Path, command: str) -> dict[str, str]:
    lines = (folder / f"{command}.txt").read_text().splitlines()
    return dict(line.split("   ", 1) for line in lines if "   " in line)


def test_simulate(folder: Path) -> None:
    shown = {name: value.strip() for name, value in table(folder, "simulate").items()}
    assert shown["showers"] == "600, seed 3" and str(folder / "data.h5") in shown["file"]
    made = read_showers(folder / "data.h5", TOY)
    assert len(made) == 600
    assert float(shown["E_tot/E_inc"]) == pytest.approx(float(np.mean(made.voxels.sum(1) / made.incident)), abs=1e-4)


def test_fit(folder: Path, tmp_path: Path) -> None:
    shown = {name.strip(): value.strip() for name, value in table(folder, "fit").items()}
    assert shown["model"] == "tiny for toy, seed 1, cpu, 1 thread(s)"
    assert shown["parameters"] == "242 trained, 2 for generation"
    assert "after epoch 3 of 3" in shown["part shape"]
    arguments = ["fit", "--geometry", "toy", "--data", folder / "data.h5", "--model", "tiny", "--device", "cpu"]
    code, out, err = call(*arguments, "--output", tmp_path / "m", "--epochs", 1, "--showers", 100, "--quiet")
    assert (code, out, err) == (0, "", "")
    code, _, err = call(*arguments, "--output", tmp_path / "m")
    assert code == 1 and "--resume" in err
    code, out, _ = call(*arguments, "--output", tmp_path / "m", "--epochs", 1, "--showers", 100, "--resume")
    assert code == 0 and "after epoch 1 of 1" in out
    code, _, err = call(*arguments, "--output", tmp_path / "m", "--epochs", 2, "--showers", 100, "--resume")
    assert code == 1 and "begun with another epochs" in err


def test_generate(folder: Path, tmp_path: Path) -> None:
    assert len(read_showers(folder / "new.h5", TOY)) == 400
    model, given = folder / "model", folder / "data.h5"
    code, out, err = call("generate", model, "--incident", given, "--output", tmp_path / "a.h5", "--batch", 250)
    assert code == 0 and err == "" and "600, seed 1" in out
    assert np.array_equal(read_showers(tmp_path / "a.h5", TOY).incident, read_showers(given, TOY).incident)
    code, out, _ = call("generate", model, "--incident", given, "--showers", 5, "-o", tmp_path / "b.h5", "-q")
    assert code == 0 and out == "" and len(read_showers(tmp_path / "b.h5", TOY)) == 5
    code, _, err = call("generate", model, "--output", tmp_path / "c.h5")
    assert code == 1 and "--showers" in err and "--incident" in err
    code, _, err = call("generate", model, "--showers", 5, "--geometry", "ds2", "--output", tmp_path / "c.h5")
    assert code == 1 and "belongs to toy" in err and "not to ds2" in err
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    (weights,) = (broken / "parts" / "total").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    code, _, err = call("generate", broken, "--showers", 5, "--output", tmp_path / "c.h5")
    assert code == 1 and "bytes instead of" in err
    assert not (tmp_path / "c.h5").exists()


def test_evaluate(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr("nisampler.calo.evaluation.report.EvaluationReport.write", lambda *data: reports.append(data))
    code, _, _ = call("time", folder / "model", "--batch", 2, "--repeats", 1, "--output", tmp_path / "t.json", "-q")
    assert code == 0
    common = ["evaluate", "--reference", folder / "data.h5", "--geometry", "toy", "--output", tmp_path / "report"]
    candidates = ["--candidate", f"tiny={folder / 'new.h5'}", "--timing", f"tiny={tmp_path / 't.json'}"]
    code, out, err = call(*common, *candidates, "--trainings", 0, "--showers", 150, "--model", folder / "model")
    assert code == 0 and err == ""
    head = next(line for line in out.splitlines() if "tiny" in line)
    assert "shuffled voxels" in head and "parameters for generation" in out and "report.html" in out
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert found["samples"]["tiny"]["showers"] == 150 and found["samples"]["tiny"]["timing"]["rows"][0]["batch"] == 2
    (report,) = reports
    assert report[1] == tmp_path / "report" and len(report[0].training["shape"]) == 3
    for wrong in ("tiny", "=x", "tiny="):
        code, _, err = call(*common, "--candidate", wrong)
        assert code == 1 and "NAME=FILE" in err
    code, _, err = call(*common, *candidates, "--classifier", "none")
    assert code == 1 and "classifier must be one of" in err


def test_several_models_in_one_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr("nisampler.calo.evaluation.report.EvaluationReport.write", lambda *data: reports.append(data))
    assert call("simulate", "--geometry", "toy", "--showers", 400, "--seed", 8, "-o", tmp_path / "b.h5", "-q")[0] == 0
    assert call("time", folder / "model", "--batch", 2, "--repeats", 1, "-o", tmp_path / "t.json", "-q")[0] == 0
    common = ["evaluate", "--reference", folder / "data.h5", "--geometry", "toy", "--output", tmp_path / "report"]
    pair = ["--candidate", f"tiny={folder / 'new.h5'}", "--candidate", f"b={tmp_path / 'b.h5'}"]
    small = ["--classifier", "small-high", "--showers", 100]
    timing = ["--timing", f"tiny={tmp_path / 't.json'}"]
    bands = ["--band", f"b={tmp_path / 'b.h5'}", "--band", f"b={folder / 'new.h5'}"]
    code, out, err = call(*common, *pair, *small, *timing, *bands, "--trainings", 1, "--multiclass", "small-high")
    assert code == 0 and err == "" and "log-posterior small-high" in out and "(2 draws)" in out
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert found["multiclass"]["names"] == ["tiny", "b"] and found["samples"]["b"]["band"]["draws"] == 2
    assert "voxels" in reports[0][0].samples[1].bands and found["samples"]["tiny"]["timing"]["rows"]
    write_sealed(tmp_path / "sealed.json", {"rows": 1})
    for wrong, message in (
        (["--band", f"ghost={folder / 'new.h5'}"], "a band belongs to 'ghost'"),
        (["--band", f"b={folder / 'new.h5'}"], "at least two draws"),
        (["--band", "b"], "--band must be NAME=FILE"),
        (["--candidate", "b=x"], "names that differ, got 'b' 2 times"),
        (["--multiclass", "none"], "classifier must be one of"),
        (["--timing", f"ghost={tmp_path / 't.json'}"], "a timing belongs to 'ghost'"),
        (["--timing", f"b={tmp_path / 'report' / 'evaluation.json'}"], "is not what this release writes"),
        (["--timing", f"b={tmp_path / 'sealed.json'}"], "the timing of b is not what"),
    ):
        code, _, err = call(*common, *pair, *wrong, "--trainings", 0)
        assert code == 1 and message in err


def test_draws_of_the_posterior(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.calo.fitting.fit.build_model", build_model)
    monkeypatch.setattr("nisampler.calo.fitting.store.build_model", build_model)
    arguments = ["fit", "--geometry", "toy", "--data", folder / "data.h5", "--showers", 100, "--epochs", 1, "-q"]
    for preset in ("small-inn-bayesian", "small-inn"):
        assert call(*arguments, "--model", preset, "--output", tmp_path / preset, "--device", "cpu")[0] == 0
    model, voxels = tmp_path / "small-inn-bayesian", []
    for number, draw in enumerate(([], ["--posterior-draw", 0], ["--posterior-draw", 1], ["--posterior-draw", 1])):
        path = tmp_path / f"{number}.h5"
        code, out, err = call("generate", model, "--showers", 10, "--output", path, "--device", "cpu", *draw)
        assert code == 0 and err == ""
        assert f"draw {draw[1]} of their posterior" in out if draw else "weights" not in out
        voxels.append(read_showers(path, TOY).voxels)
    assert np.array_equal(voxels[2], voxels[3])
    assert not any(np.array_equal(voxels[i], voxels[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    arguments = ["--showers", 10, "--output", tmp_path / "none.h5", "--device", "cpu"]
    code, _, err = call("generate", tmp_path / "small-inn", *arguments, "--posterior-draw", 0)
    assert code == 1 and "no variational weights" in err
    assert call("generate", model, *arguments, "--posterior-draw", -1)[0] == 2
    assert not (tmp_path / "none.h5").exists()


def test_time(folder: Path, tmp_path: Path) -> None:
    code, out, err = call(
        "time", folder / "model", "--batch", 1, "--batch", 10, "--repeats", 2, "--output", tmp_path / "time.json"
    )
    assert code == 0 and err == "" and "ms/shower" in out and "242 trained, 2 for generation" in out
    rows = json.loads((tmp_path / "time.json").read_text())["rows"]
    assert [(row["device"], row["batch"], row["repeats"]) for row in rows] == [("cpu", 1, 2), ("cpu", 10, 2)]


def test_lists() -> None:
    code, out, _ = call("geometries")
    assert code == 0 and all(name in out for name in GEOMETRIES) and "40500" in out
    code, out, _ = call("models")
    assert code == 0 and all(name in out for name in PRESETS)


def test_xml_binning(tmp_path: Path) -> None:
    from nisampler.calo.detector.binning import write_binning

    write_binning(tmp_path / "toy.xml", TOY)
    path = tmp_path / "a.h5"
    assert call("simulate", "--geometry", tmp_path / "toy.xml", "--showers", 5, "--output", path, "-q")[0] == 0
    assert len(read_showers(path, TOY)) == 5


def test_errors_are_one_message(folder: Path, tmp_path: Path) -> None:
    code, out, err = call("simulate", "--geometry", "ds9", "--showers", 5, "--output", tmp_path / "a.h5")
    assert code == 1 and out == "" and "registered are" in err
    bad = tmp_path / "bad.h5"
    bad.write_bytes((folder / "data.h5").read_bytes()[:2000])
    code, _, err = call("fit", "--geometry", "toy", "--data", bad, "--model", "tiny", "--output", tmp_path / "m")
    assert code == 1 and str(bad) in err and "truncated" in err
    code, _, err = call("time", tmp_path)
    assert code == 1 and "not the folder of a shower model" in err
    assert call("simulate", "--geometry", "toy")[0] == 2
    assert call("nonsense")[0] == 2


def test_interrupt_says_how_to_resume(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nisampler.calo.fitting.part_queue.fit_part", stop)
    model = tmp_path / "a model"
    arguments = ["--geometry", "toy", "--data", folder / "data.h5", "--model", "tiny", "--output", model, "--seed", 7]
    code, _, err = call("fit", *arguments)
    again = shlex.split(err.split("`")[1])
    assert code == 130 and again[:3] == ["nisampler", "calo", "fit"] and str(model) in again and "--resume" in again
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nisampler.calo.fitting.fit.build_model", build)
        assert call(*again[2:], "--quiet")[0] == 0


def test_the_systems_request_to_end(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    for place in (
        "simulation.simulator.Simulator.simulate",
        "generation.ShowerGenerator.draw",
        "fitting.fit._prepare",
    ):
        monkeypatch.setattr(f"nisampler.calo.{place}", end)
    monkeypatch.setattr("nisampler.calo.evaluation.evaluate.evaluate", end)
    toy, data = ["--geometry", "toy"], ["--data", folder / "data.h5", "--model", "tiny"]
    candidates = ["--reference", folder / "data.h5", "--candidate", f"new={folder / 'new.h5'}"]
    for arguments in (
        ["simulate", *toy, "--showers", 5],
        ["generate", folder / "model", "--showers", 5],
        ["fit", *toy, *data],
        ["evaluate", *toy, *candidates],
    ):
        code, _, err = call(*arguments, "--output", tmp_path / str(arguments[0]), "--quiet")
        assert code == 143 and err == "ended by SIGTERM: start the command again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]
    assert "SIGTERM" in (tmp_path / "fit" / "fit.log").read_text()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.h5"
    old.write_text("precious")
    (tmp_path / "link.h5").symlink_to("old.h5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old").write_text("precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    model, toy = folder / "model", ["--geometry", "toy"]
    data = ["--data", folder / "data.h5", "--model", "tiny"]
    pair = ["--reference", folder / "data.h5", "--candidate", f"new={folder / 'new.h5'}"]
    files = (["simulate", *toy, "--showers", 5], ["generate", model, "--showers", 5], ["time", model, "--batch", 1])
    cases = [
        (command, name) for command in files for name in (old, tmp_path / "link.h5", "/dev/null", tmp_path / "empty")
    ]
    folders = (["fit", *toy, *data], ["evaluate", *toy, *pair])
    cases += [(command, tmp_path / name) for command in folders for name in ("old.h5", "full", "link")]
    for command, name in cases:
        code, _, err = call(*command, "--output", name, "--quiet")
        assert code == 1 and err.startswith("error: ") and str(name) in err and "Errno" not in err, (command, name)
    assert old.read_text() == "precious" and (tmp_path / "link.h5").is_symlink() and (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 5


def test_the_installed_entry_point_is_this_group_of_commands() -> None:
    (found,) = entry_points(group=GROUP, name="calo")
    assert found.dist is not None and found.dist.name == "nisampler"
    assert found.load() is calo
    code, out, _ = call("--help")
    assert code == 0 and all(command.name in out for command in calo.registered_commands if command.name)


def test_help_as_a_command_of_its_own(tmp_path: Path) -> None:
    """The core finds the commands by their entry point, and listing them imports nothing heavy of this package."""
    for arguments, words in ((["--help"], ["run", "calo"]), (["calo", "--help"], ["simulate", "fit", "evaluate"])):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-X", "importtime", "-m", "nisampler", *arguments],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 and all(word in done.stdout for word in words)
        assert "nisampler.calo.models" not in done.stderr and "h5py" not in done.stderr


def test_a_model_of_ones_own(folder: Path, tmp_path: Path) -> None:
    """Settings are printed, and what goes into a fit beside them is said by options."""
    code, text, _ = call("models", "small-inn", "--geometry", "toy")
    assert code == 0 and text.startswith('family = "one-step"')
    (tmp_path / "my.toml").write_text(text.replace("hidden = 256", "hiden = 16"))
    data = ["--geometry", "toy", "--data", folder / "data.h5", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nisampler.calo.fitting.fit.build_model", build_model)
        code, _, err = call("fit", *data, "--model", tmp_path / "my.toml", "-o", tmp_path / "own")
    assert code == 1 and "my.toml: flows[1]: unknown setting net.hiden" in err
    code, _, err = call("models", "small-inn")
    assert code == 1 and "depend on the cells: say which with --geometry" in err
    assert call("models", "caloinn-ds2")[0] == 0
    code, _, err = call("models", "none")
    assert code == 1 and "no preset is called 'none'" in err


def test_fits_that_begin_with_another(folder: Path, tmp_path: Path) -> None:
    more = folder.parent / "more.h5"
    call("simulate", "--geometry", "toy", "--showers", 50, "--seed", 5, "--output", more)
    data = ["--geometry", "toy", "--data", folder / "data.h5", "--data", more, "--device", "cpu"]
    options = ["--from", folder / "model", "--model", "tiny", "--epochs", 1, "--learning-rate", 0.01]
    code, out, err = call("fit", *data, *options, "--output", tmp_path / "new")
    assert code == 0 and err == "" and f"those of {folder / 'model'} for total, shape" in out.replace("\n", " ")
    assert len((tmp_path / "new" / "losses.csv").read_text().splitlines()) == 3
    code, _, err = call("fit", *data, *options, "--output", tmp_path / "new")
    assert code == 1 and "continue with --resume" in err
    code, _, err = call("fit", *data, "--output", tmp_path / "other")
    assert code == 1 and "say which model with --model, or with --from" in err
    code, _, err = call("fit", *data, "--from", tmp_path, "--output", tmp_path / "other")
    assert code == 1 and "is not the folder of a shower model" in err
