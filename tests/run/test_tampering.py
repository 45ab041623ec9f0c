"""Runs that somebody touched: nothing altered is taken for their own, and what only reads them runs no code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import call

from nisampler.base.storage import read_json, read_sealed, write_sealed
from nisampler.errors import CorruptFileError, StorageError
from nisampler.events.shards import merge_shards
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.pipeline import execute, start
from nisampler.run.report.drawing import redraw


@pytest.fixture
def run(points_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(points_run, tmp_path / "run"))


def scaled(data: Any, factor: float) -> Any:
    """JSON data with every float in it multiplied."""
    if isinstance(data, dict):
        return {name: scaled(value, factor) for name, value in data.items()}
    if isinstance(data, list):
        return [scaled(value, factor) for value in data]
    return data * factor if isinstance(data, float) else data


def resume(run: Path) -> None:
    with RunDirectory.open(run) as directory:
        execute(directory)


def test_no_shard_is_added(run: Path) -> None:
    for name in ("events-00003.h5", "events-00003.lhe.gz", "events-00012.h5"):
        stranger = run / "events" / name
        shutil.copy(run / "events" / "events-00001.h5", stranger)
        (run / "events.h5").unlink(missing_ok=True)
        with pytest.raises(StorageError, match=rf"{name}, which is not of the 3 shards that belong there"):
            resume(run)
        stranger.unlink()
    resume(run)


def test_no_shard_takes_the_place_of_another(run: Path, points_card: Path, tmp_path: Path) -> None:
    shards, place = run / "events", run / "events" / "events-00001"
    for ending in (".h5", ".json"):
        shutil.copy(shards / f"events-00000{ending}", place.with_suffix(ending))
    with pytest.raises(CorruptFileError, match=r"events-00001\.h5 is not of this run"):
        resume(run)
    with start(points_card, tmp_path / "other", {"seed": 9}) as directory:
        execute(directory)
    for ending in (".h5", ".json"):
        shutil.copy(tmp_path / "other" / "events" / f"events-00001{ending}", place.with_suffix(ending))
    with pytest.raises(CorruptFileError, match=r"events-00001\.h5 is not of this run"):
        resume(run)


@pytest.mark.parametrize("change", [{"trials": 1}, {"overweight_sum": 7.0}, {"events": 249}, {"color": 1}])
def test_records_of_shards_are_not_altered(run: Path, change: dict[str, Any]) -> None:
    record = run / "events" / "events-00001.json"
    record.write_text(json.dumps(read_json(record) | change))
    with pytest.raises(CorruptFileError, match=r"events-00001\.json was altered"):
        resume(run)
    record.write_text("{}")
    with pytest.raises(CorruptFileError, match=r"events-00001\.json is not what this release writes"):
        resume(run)


def test_every_file_of_json_is_sealed(run: Path) -> None:
    files = sorted(run.rglob("*.json"))
    assert {"run.json", "result.json", "checksums.json", "seconds.json", "checkpoint.json"} <= {f.name for f in files}
    for path in files:
        assert read_sealed(path, "manifest_sha256" if path.name == "checkpoint.json" else "checksum"), path


def test_a_result_is_not_altered(run: Path) -> None:
    path = run / "result.json"
    path.write_text(json.dumps(scaled(read_json(path), 3.0)))
    with pytest.raises(CorruptFileError, match=r"result\.json was altered"):
        redraw(RunDirectory.read(run))
    code, _, err = call("report", run)
    assert code == 1 and "result.json was altered" in err
    resume(run)
    assert redraw(RunDirectory.read(run)) == []
    whole = read_sealed(path)
    for name in ("files", "warnings", "unweighting", "integral", "versions"):
        write_sealed(path, {key: value for key, value in whole.items() if key != name})
        with pytest.raises(CorruptFileError, match=rf"result\.json does not hold .*{name}"):
            redraw(RunDirectory.read(run))


def test_a_report_says_what_is_wrong_with_the_events(run: Path) -> None:
    (run / "events" / "events-00001.h5").write_bytes(b"damaged")
    (run / "events" / "events-00002.json").unlink()
    shutil.copy(run / "events" / "events-00000.h5", run / "events" / "events-00012.h5")
    with (run / "events.h5").open("ab") as handle:
        handle.write(b"more")
    code, out, err = call("report", run, "--output", run / "again.html")
    assert code == 0 and err == "" and "again.html" in out
    for text in (
        "events-00001.h5 was altered",
        "events-00002.h5 is missing",
        "events.h5 was altered",
        "events-00012.h5",
    ):
        assert text in out and text in (run / "again.html").read_text()


def test_a_report_that_cannot_be_written_says_what_helps(run: Path) -> None:
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*report\.html: .*; --output writes it elsewhere"):
        redraw(RunDirectory.read(run))


def test_distributions_are_not_altered(run: Path) -> None:
    (tensors,) = (run / "distributions").glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CorruptFileError, match="distributions"):
        redraw(RunDirectory.read(run))


def test_orders_of_events_are_not_altered(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "more"
    generate_events(RunDirectory.read(run), 20, 7, target)
    order = read_json(target / "order.json")
    (target / "order.json").write_text(json.dumps(order | {"seed": 8}))
    with pytest.raises(CorruptFileError, match=r"order\.json was altered"):
        generate_events(RunDirectory.read(run), 20, 8, target)


def test_copies_are_not_merged(events_run: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(events_run / "events", tmp_path / "events"))
    shutil.copy(shards / "events-00001.h5", shards / "events-00003.h5")
    with pytest.raises(StorageError, match=r"events-00003\.h5 is a copy of events-00001\.h5"):
        merge_shards(shards, tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()


TRAINING = '[training]\ncalls = 5000\nsampler = "vegas"\n[integration]\npoints = 3000\n'
OWN = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()

def f(x):
    return 1.0 + x[:, 0]
f.dim = 2
"""


def test_only_what_needs_the_function_runs_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    card, run, ran = tmp_path / "card.toml", tmp_path / "run", tmp_path / "ran"
    text = f'process = "{tmp_path}/mine.py:f"\n{TRAINING}[events]\nn = 20\n'
    card.write_text(text)
    says = f"runs code from {tmp_path}/mine.py"

    def runs(*words: Any) -> bool:
        ran.unlink(missing_ok=True)
        code, out, err = call(*words)
        assert code == 0, err
        assert (says in out + err) == ran.exists(), words
        return ran.exists()

    assert runs("run", card, "--output", run)
    assert says in (run / "run.log").read_text()
    assert runs("resume", run)
    assert runs("generate", run, "--events", 10, "--seed", 5, "--output", tmp_path / "more")
    assert not runs("report", run)
