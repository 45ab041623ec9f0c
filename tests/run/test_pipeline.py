"""Whole runs: contents, reproducibility, continuation, refusal of damaged files, generation of more events."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nisampler.api import Chain
from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import CorruptFileError, NonFiniteError, StorageError, ZeroIntegrandError
from nisampler.events import EventFile, check_file, iterate_points, read_events
from nisampler.events.shards import find_shards
from nisampler.run.card import parse_card
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.files import finish, overweight_warnings
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.shards import Generated, Shard
from nisampler.run.job import build_job
from nisampler.run.pipeline import execute, start
from nisampler.run.report import drawing
from nisampler.run.report.drawing import redraw
from nisampler.training.trainer import Trainer

CHANGING = {"run.log", "seconds.json", "timeline.json", "result.json", "report.html", ".lock"}


def contents(run: Path) -> dict[str, bytes]:
    """The bytes of every file that may not depend on the clock."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in CHANGING]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    del result["seconds"], result["checksum"]
    result["unweighting"].pop("events_per_second", None)
    return result


def make(card: Path, path: Path, **overrides: Any) -> dict[str, Any]:
    with start(card, path, overrides) as directory:
        return execute(directory)


def test_result_of_a_process_with_events(events_run: Path) -> None:
    result = json.loads((events_run / "result.json").read_text())
    assert result["process"] == "ee_to_3jets" and result["seed"] == 1 and result["device"] == "cpu"
    integral = result["integral"]
    assert integral["unit"] == "pb" and integral["n_points"] > 2000
    assert 0 < integral["error"] < 0.02 * integral["value"]
    assert 0.05 < integral["chi2_per_dof"] < 5
    numbers = result["unweighting"]
    assert 0 < numbers["efficiency_strict"] <= numbers["efficiency_0p1"] <= numbers["efficiency_1"] <= 1
    assert 0 < numbers["ess_fraction"] <= 1 and numbers["n_events"] == 300
    assert 0 <= numbers["overweight_fraction"] < 0.05
    calls = result["calls"]
    assert 5000 <= calls["training"] <= 6600 and calls["integration"] == integral["n_points"]
    assert calls["generation"] >= 300 and calls["nonfinite"] == 0
    # Each record costs one more matrix element; for the points of the report at most a twentieth of what was spent.
    spent = calls["training"] + calls["integration"]
    assert calls["events"] == 300 and 0.6 * spent < 20 * calls["report"] <= spent
    assert numbers["weights"] == "average" and numbers["events_per_call"] == 300 / (calls["generation"] + 300)
    assert set(result["seconds"]) == {"training", "integration", "generation", "report"}
    assert {"nisampler", "torch", "numpy", "python"} <= result["versions"].keys()
    assert sum(item["chosen"] for item in result["sampler"]["candidates"]) == 1
    assert result["files"] == ["events.lhe.gz", "events.lhe", "events.h5"]


def test_event_files_agree_and_are_good(events_run: Path) -> None:
    lhe, zipped, bulk = (read_events(events_run / f"events.{end}") for end in ("lhe", "lhe.gz", "h5"))
    for name, column in lhe.columns().items():
        assert np.array_equal(column, zipped.columns()[name]), name
        assert np.array_equal(column, bulk.columns()[name]), name
    for ending in ("lhe", "lhe.gz", "h5"):
        report = check_file(events_run / f"events.{ending}")
        assert report.passed and report.n_events == report.declared == 300
    integral = json.loads((events_run / "result.json").read_text())["integral"]
    assert report.cross_section == pytest.approx(integral["value"])
    assert EventFile.open(events_run / "events.lhe").info.strategy == 4
    assert lhe.weights.mean() == pytest.approx(integral["value"], rel=1e-12)
    assert len(set(lhe.pdg_ids[:, 2].tolist())) == 5


def test_unit_weights_where_they_are_wanted(events_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(events_run, run)
    for name in ("checksums.json", "result.json"):
        (run / name).unlink()
    card = parse_card('process = "ee_to_3jets"\n[events]\nformats = ["h5"]\nweights = "unit"')
    job = build_job(card, "ee_to_3jets", "cpu")
    assert finish(job, list(find_shards(run / "events").values()), run, 300) == ["events.h5"]
    file, averaged = EventFile.open(run / "events.h5"), EventFile.open(events_run / "events.h5")
    assert file.info.strategy == 3 and file.info.cross_section == averaged.info.cross_section
    weights = file.read().weights
    assert weights.min() == 1
    assert np.allclose(averaged.read().weights, weights * file.info.cross_section / weights.mean())
    shards = [Shard("", 1, 0, 100, 200, 0, 0, 150, 100.5, overweight) for overweight in (0.5, 0.0)]
    assert "IDWTUP = ±3" in overweight_warnings(Generated(shards), job)[0]
    assert not overweight_warnings(Generated(shards[1:]), job)


def test_points_of_a_function(points_run: Path) -> None:
    batches = list(iterate_points(points_run / "events.h5"))
    x, weights = np.concatenate([b.x for b in batches]), np.concatenate([b.weights for b in batches])
    # No point is drawn twice, in one shard or in two. Single coordinates lie on the float32 grid: two of 1200 fall on
    # the same number now and then, and which do hangs on the last bits of a processor's matrix products.
    assert x.shape == (600, 2) and len(np.unique(x, axis=0)) == 600
    assert all(len(np.unique(column)) > 590 for column in x.T)
    assert (weights >= 1).all()
    assert abs(np.average(x[:, 0], weights=weights) - 0.5) < 5 * 0.22 / math.sqrt(600)
    result = result_of(points_run)
    assert abs(result["integral"]["value"] - 0.98122) < 6 * result["integral"]["error"] + 0.01


def test_same_card_and_seed_same_bytes(points_card: Path, points_run: Path, tmp_path: Path) -> None:
    make(points_card, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(points_run)
    assert result_of(tmp_path / "again") == result_of(points_run)


def test_another_seed_other_events(points_card: Path, points_run: Path, tmp_path: Path) -> None:
    """Negative control of the comparison of bytes."""
    make(points_card, tmp_path / "other", seed=4)
    here, there = contents(tmp_path / "other"), contents(points_run)
    assert here["events/events-00000.h5"] != there["events/events-00000.h5"]
    assert here["card.toml"] == there["card.toml"]


def test_checkpoints_do_not_change_the_result(
    points_card: Path, points_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in training after each of several checkpoints, and in every later stage, a run ends the same."""
    path = tmp_path / "run"
    start(points_card, path).close()
    original = Trainer.state
    calls = 0

    def state(self: Trainer) -> Any:
        nonlocal calls
        calls += 1
        if calls in (3, 6, 10):
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Trainer, "state", state)
    stops = 0
    for _ in range(10):
        try:
            with RunDirectory.open(path) as directory:
                execute(directory, checkpoint_seconds=0.0)
            break
        except KeyboardInterrupt:
            stops += 1
            assert "KeyboardInterrupt" in (path / "run.log").read_text()
    assert stops == 3
    assert contents(path) == contents(points_run)
    assert result_of(path) == result_of(points_run)


@pytest.mark.parametrize(
    "lost",
    [
        ["events.h5"],
        ["events/events-00001.h5"],
        ["integration/*", "events/*"],
        ["report.html"],
        ["distributions/*", "report.html"],
    ],
)
def test_what_is_lost_is_made_again(points_run: Path, tmp_path: Path, lost: list[str]) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    for pattern in lost:
        for file in path.glob(pattern):
            file.unlink()
    with RunDirectory.open(path) as directory:
        execute(directory)
    assert contents(path) == contents(points_run)
    assert result_of(path) == result_of(points_run)
    assert (path / "report.html").is_file()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize("name", ["checkpoint.json", "tensors-*.safetensors"])
@pytest.mark.parametrize("folder", ["checkpoint", "sampler", "integration"])
def test_damaged_checkpoints_are_refused_by_name(
    points_run: Path, tmp_path: Path, folder: str, name: str, how: str
) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    if folder == "checkpoint":
        shutil.rmtree(path / "sampler")
    (file,) = (path / folder).glob(name)
    damage(file, how)
    with RunDirectory.open(path) as directory, pytest.raises(CorruptFileError) as caught:
        execute(directory)
    assert str(file) in str(caught.value)
    assert "CorruptFileError" in (path / "run.log").read_text()


def test_damaged_shards_are_refused_by_name(points_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    damage(path / "events" / "events-00001.h5", "flipped")
    with RunDirectory.open(path) as directory, pytest.raises(CorruptFileError, match=r"events-00001\.h5 was altered"):
        execute(directory)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize("name", ["events.h5", "checksums.json"])
def test_damaged_event_files_are_made_again(points_run: Path, tmp_path: Path, name: str, how: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    damage(path / name, how)
    assert contents(path) != contents(points_run)
    with RunDirectory.open(path) as directory:
        execute(directory)
    assert contents(path) == contents(points_run)


def test_far_too_much_overweight_is_told(points_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    assert not any("excess of overweight" in text for text in result_of(points_run)["warnings"])
    record = path / "events" / "events-00000.json"
    shard = read_sealed(record)
    write_sealed(record, shard | {"overweight_sum": 0.1 * shard["weight_sum"]})
    with RunDirectory.open(path) as directory:
        result = execute(directory)
        target = tmp_path / "more"
        generate_events(directory, 100, 5, target)
        record = target / "shards" / "events-00000.json"
        shard = read_sealed(record)
        write_sealed(record, shard | {"overweight_sum": 0.5 * shard["weight_sum"]})
        more = generate_events(directory, 100, 5, target)
    assert any("excess of overweight" in text and "above 1 %" in text for text in result["warnings"])
    assert "excess of overweight events is 50 %" in more["warnings"][0]


def test_a_failing_report_does_not_lose_the_run(
    points_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    shutil.copytree(points_run, path)
    (path / "report.html").unlink()
    shutil.rmtree(path / "distributions")

    def fail(*_: Any) -> Any:
        raise NonFiniteError("too many holes")

    monkeypatch.setattr(drawing, "fill_points", fail)
    with RunDirectory.open(path) as directory:
        result = execute(directory)
        redraw(directory)
    text = "the report lacks the distributions, NonFiniteError: too many holes"
    assert result["warnings"].count(text) == 1 and text in (path / "run.log").read_text()
    assert read_sealed(path / "result.json") == result
    assert result["calls"]["report"] == result_of(points_run)["calls"]["report"] == 0
    drawn = {f"distributions/{file.name}" for file in (points_run / "distributions").iterdir()}
    assert contents(points_run).keys() - contents(path).keys() == drawn
    page = (path / "report.html").read_text()
    assert "too many holes" in page and "distribution-" not in page and 'id="batches"' in page


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("no memory")])
def test_errors_of_the_system_reach_the_log(
    points_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Chain, "train", fail)
    with start(points_card, tmp_path / "run") as directory, pytest.raises(type(error)):
        execute(directory)
    assert f"{type(error).__name__}: {error}" in (tmp_path / "run" / "run.log").read_text()


def test_no_events_only_integrates(points_card: Path, tmp_path: Path) -> None:
    result = make(points_card, tmp_path / "run", **{"events.n": 0})
    assert result["unweighting"]["n_events"] == 0 and result["files"] == []
    assert result["calls"]["generation"] == result["calls"]["report"] == 0
    numbers = result["unweighting"]
    assert numbers["efficiency_strict"] <= numbers["events_per_call"] <= 1 and numbers["events_per_second"] > 0
    assert not (tmp_path / "run" / "events").exists()
    assert "distribution-" not in (tmp_path / "run" / "report.html").read_text()


def test_errors_reach_the_log(points_card: Path, tmp_path: Path) -> None:
    (tmp_path / "zero.py").write_text("def f(x):\n    return 0.0 * x[:, 0]\nf.dim = 2\n")
    text = points_card.read_text().replace('"camel"', f'"{tmp_path}/zero.py:f"').replace("[parameters]\ndim = 2\n", "")
    (tmp_path / "zero.toml").write_text(text)
    with start(tmp_path / "zero.toml", tmp_path / "run") as directory, pytest.raises(ZeroIntegrandError):
        execute(directory)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "ZeroIntegrandError: " in log and "zero.py:f is zero at all" in log
    with RunDirectory.open(tmp_path / "run") as directory, pytest.raises(StorageError, match="is not finished"):
        redraw(directory)


def test_nonfinite_values_are_counted_in_the_result(points_card: Path, tmp_path: Path) -> None:
    code = "import torch\ndef f(x):\n    return torch.where(x[:, 0] < 0.01, x[:, 0] / 0.0, 1.0 + x[:, 1])\nf.dim = 2\n"
    (tmp_path / "holes.py").write_text(code)
    text = points_card.read_text().replace('"camel"', f'"{tmp_path}/holes.py:f"').replace("[parameters]\ndim = 2\n", "")
    (tmp_path / "holes.toml").write_text(text + "[integrand]\nnonfinite = 0.1\n")
    result = make(tmp_path / "holes.toml", tmp_path / "run")
    assert result["calls"]["nonfinite"] > 10
    assert any("NaN or infinite" in text for text in result["warnings"])
    assert "NaN or infinite" in (tmp_path / "run" / "report.html").read_text()


def test_generate_more_events(events_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(events_run, run)
    with RunDirectory.open(run) as directory:
        same = generate_events(directory, 300, 1, tmp_path / "same")
        other = generate_events(directory, 130, 2, tmp_path / "other")
        assert generate_events(directory, 130, 2, tmp_path / "other") == other
        with pytest.raises(StorageError, match="other holds other events"):
            generate_events(directory, 131, 2, tmp_path / "other")
        with pytest.raises(StorageError, match="exists and is not empty"):
            generate_events(directory, 131, 2, tmp_path)
    assert (tmp_path / "same" / "events.lhe").read_bytes() == (events_run / "events.lhe").read_bytes()
    assert "repeat the run's own" in same["warnings"][0] and not other["warnings"]
    assert check_file(tmp_path / "other" / "events.lhe.gz").n_events == 130
    first, second = read_events(tmp_path / "other" / "events.h5"), read_events(events_run / "events.h5")
    assert not np.isin(first.momenta[:, 2, 1], second.momenta[:, 2, 1]).any()


def test_generate_needs_a_finished_run(points_card: Path, tmp_path: Path) -> None:
    with start(points_card, tmp_path / "run") as directory, pytest.raises(StorageError, match="is not finished"):
        generate_events(directory, 10, 1, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_changed_versions_are_told(points_run: Path, tmp_path: Path) -> None:
    shutil.copytree(points_run, tmp_path / "run")
    settings = read_sealed(tmp_path / "run" / "run.json")
    settings["versions"]["torch"] = "1.0"
    write_sealed(tmp_path / "run" / "run.json", settings)
    with RunDirectory.open(tmp_path / "run") as directory:
        result = execute(directory)
    assert any("torch 1.0 then" in text for text in result["warnings"])
