"""Events of one order by one job or many, in one process or many: the same bytes, nothing missing or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import call
from other_process import Dying

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import ConfigError, StorageError, WorkerError
from nisampler.events import check_file
from nisampler.run.directory import RunDirectory
from nisampler.run.generation import workers
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.merge import merge
from nisampler.run.generation.order import Order, share
from nisampler.ui.monitor import Monitor

N, SIZE, SEED = 130, 20, 7


def make(run: Path, target: Path, part: int = 1, parts: int = 1, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"n": N, "seed": SEED, "shard_size": SIZE} | more
    return generate_events(RunDirectory.read(run), target=target, part=(part, parts), **given)


@pytest.fixture(scope="module")
def whole(events_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All events by one job; not to be changed."""
    target = tmp_path_factory.mktemp("jobs") / "whole"
    make(events_run, target)
    return target


@pytest.mark.parametrize("parts", [2, 7, 9])
def test_many_jobs_make_the_events_of_one(events_run: Path, whole: Path, tmp_path: Path, parts: int) -> None:
    before = {path: path.stat().st_mtime_ns for path in events_run.rglob("*")}
    folders = [tmp_path / str(part) for part in range(1, parts + 1)]
    made = [make(events_run, folder, part, parts) for part, folder in enumerate(folders, 1)]
    assert {path: path.stat().st_mtime_ns for path in events_run.rglob("*")} == before
    assert sum(result["n"] for result in made) == N
    for ending in ("lhe.gz", "h5"):
        target = tmp_path / f"all.{ending}"
        result = merge(folders[::-1], target)
        assert target.read_bytes() == (whole / f"events.{ending}").read_bytes()
        assert read_sealed(tmp_path / f"all.{ending}.json") == result
    assert (result["n"], result["shards"], result["missing_shards"]) == (N, 7, 0)
    idle = [text for found in made for text in found["warnings"] if "no shard of 20 events falls to job" in text]
    assert len(idle) == max(parts - 7, 0)


def test_all_trials_give_the_integral(whole: Path, points_run: Path, tmp_path: Path) -> None:
    """The events of a job say what their trials give, a pull of order one from the integral."""
    found = read_sealed(whole / "generated.json")
    assert found["n"] == N and found["sum_of_weights"] >= N and found["trials"] > N
    signal_, trials = found["integral"], found["of_trials"]
    assert abs(trials["value"] - signal_["value"]) < 4 * (trials["error"] ** 2 + signal_["error"] ** 2) ** 0.5
    many = make(points_run, tmp_path / "many", n=4000, shard_size=1000)
    pull = (many["of_trials"]["value"] - many["integral"]["value"]) / many["of_trials"]["error"]
    assert abs(pull) < 4 and many["of_trials"]["error"] < 0.05 * many["of_trials"]["value"]


def test_points_are_merged_too(points_run: Path, tmp_path: Path) -> None:
    for part in (1, 2):
        make(points_run, tmp_path / str(part), part, 2)
    make(points_run, tmp_path / "whole")
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all.h5")
    assert (tmp_path / "all.h5").read_bytes() == (tmp_path / "whole" / "events.h5").read_bytes()


def test_workers_make_the_same_events(events_run: Path, whole: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    class Lines(Monitor):
        def line(self, text: str) -> None:
            lines.append(text)

    make(events_run, tmp_path / "spread", workers=2, watcher=Lines())
    assert (tmp_path / "spread" / "events.lhe.gz").read_bytes() == (whole / "events.lhe.gz").read_bytes()
    assert any("2 workers, at most" in text for text in lines)


def test_a_worker_that_dies_is_named(tmp_path: Path) -> None:
    died = pytest.raises(WorkerError, match="a worker died, perhaps for lack of memory: start the command again")
    with died, workers.processes(2) as crew:
        workers.spread(Dying(), tmp_path, [(0, 10)], crew, Monitor())


def test_an_interrupted_job_goes_on(
    events_run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, stop = tmp_path / "job", Generator._make

    def interrupted(self: Generator, folder: Path, index: int, size: int) -> Any:
        if index == 3:
            raise KeyboardInterrupt
        return stop(self, folder, index, size)

    monkeypatch.setattr(Generator, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(events_run, target)
    with pytest.raises(StorageError, match="is not finished: start its command again"):
        merge([target], tmp_path / "all.h5")
    monkeypatch.undo()
    make(events_run, target)
    assert (target / "events.lhe").read_bytes() == (whole / "events.lhe").read_bytes()


Change = Callable[[Path, Path, Path], list[Path]]


def _twice(first: Path, second: Path, whole: Path) -> list[Path]:
    return [first, Path(shutil.copytree(first, first.with_name("copy"))), second]


def _again(first: Path, second: Path, whole: Path) -> list[Path]:
    return [first, second, whole]


def _lacking(first: Path, second: Path, whole: Path) -> list[Path]:
    return [second]


def _lost(first: Path, second: Path, whole: Path) -> list[Path]:
    (first / "shards" / "events-00001.h5").unlink()
    return [first, second]


def _altered(first: Path, second: Path, whole: Path) -> list[Path]:
    path = first / "shards" / "events-00001.h5"
    path.write_bytes(path.read_bytes() + b"more")
    return [first, second]


def _exchanged(first: Path, second: Path, whole: Path) -> list[Path]:
    for ending in (".h5", ".json"):
        place = first / "shards" / f"events-00001{ending}"
        shutil.copy(place.with_name(f"events-00000{ending}"), place)
    return [first, second]


def _of_another_run(first: Path, second: Path, whole: Path) -> list[Path]:
    write_sealed(second / "order.json", read_sealed(second / "order.json") | {"run": "0" * 16})
    return [first, second]


def _of_another_size(first: Path, second: Path, whole: Path) -> list[Path]:
    write_sealed(second / "order.json", read_sealed(second / "order.json") | {"n_events": 140})
    return [first, second]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_twice, r"hold the same events, shard 0: leave one of them out"),
        (_again, r"hold the same events, shard 0: leave one of them out"),
        (_lacking, r"3 shards are missing, shard 0 of seed 7 first: name all jobs, or add --partial"),
        (_lost, r"events-00001\.h5 is missing: start the command of its job again"),
        (_altered, r"events-00001\.h5 was altered"),
        (_exchanged, r"events-00001\.h5 is not of the job in"),
        (_of_another_run, r"are not of the same run"),
        (_of_another_size, r"are not of the same order of seed 7"),
    ],
)
def test_what_does_not_fit_is_not_merged(
    events_run: Path, whole: Path, tmp_path: Path, change: Change, message: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make(events_run, first, 1, 2)
    make(events_run, second, 2, 2)
    folders = change(first, second, whole)
    with pytest.raises(StorageError, match=message):
        merge(folders, tmp_path / "all.lhe.gz")
    assert not list(tmp_path.glob("all*"))


@pytest.mark.parametrize(("ending", "level"), [("lhe.gz", 9), ("lhe.zst", 15), ("lhe.gz", 0)])
def test_merged_files_are_packed_as_the_card_says(
    events_run: Path, whole: Path, tmp_path: Path, ending: str, level: int
) -> None:
    """To the byte; and by default where the other packing has no such level."""
    run = RunDirectory.read(events_run).with_events(n=N, formats=(ending,), compression_level=level)
    for folder, part in (("1", (1, 2)), ("2", (2, 2)), ("all", (1, 1))):
        generate_events(run, N, SEED, tmp_path / folder, part=part, shard_size=SIZE)
    jobs, wanted = [tmp_path / "1", tmp_path / "2"], (tmp_path / "all" / f"events.{ending}").read_bytes()
    merge(jobs, tmp_path / f"all.{ending}")
    assert (tmp_path / f"all.{ending}").read_bytes() == wanted
    merge(jobs, tmp_path / "other.lhe.gz")
    usual = (whole / "events.lhe.gz").read_bytes()
    assert ((tmp_path / "other.lhe.gz").read_bytes() == usual) == (level == 15)


def test_what_is_missing_is_counted(events_run: Path, tmp_path: Path) -> None:
    make(events_run, tmp_path / "second", 2, 2)
    code, out, err = call("merge", tmp_path / "second", "-o", tmp_path / "all.lhe", "--partial")
    assert code == 0 and err == "" and "4, 3 missing" in out
    assert check_file(tmp_path / "all.lhe").n_events == 70


def test_seeds_are_joined(events_run: Path, whole: Path, tmp_path: Path) -> None:
    make(events_run, tmp_path / "eight", seed=8, n=30, shard_size=30)
    result = merge([tmp_path / "eight", whole], tmp_path / "all.h5")
    assert result["seeds"] == [7, 8] and result["n"] == N + 30 and result["shards"] == 8


def test_jobs_of_the_command_line(events_run: Path, whole: Path, tmp_path: Path) -> None:
    order = ["generate", events_run, "--events", N, "--seed", SEED, "--shard-size", SIZE, "-q"]
    for part in (1, 2, 3):
        assert call(*order, "--job", f"{part}/3", "-o", tmp_path / str(part))[0] == 0
    code, out, err = call("merge", *(tmp_path / str(part) for part in (1, 2, 3)), "-o", tmp_path / "all.lhe.gz")
    assert code == 0 and err == "" and "of all trials" in out
    assert (tmp_path / "all.lhe.gz").read_bytes() == (whole / "events.lhe.gz").read_bytes()
    code, _, err = call(*order, "--job", "4/3", "-o", tmp_path / "4")
    assert code == 1 and "--job must be K/N" in err and not (tmp_path / "4").exists()
    code, _, err = call("merge", tmp_path, "-o", tmp_path / "more.lhe")
    assert code == 1 and "holds no events of `nisampler generate`" in err


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "-1/2", "1/2/3", "a/b"])
def test_wrong_shares(text: str) -> None:
    with pytest.raises(ConfigError, match="--job must be K/N"):
        share(text)


def test_orders_have_the_limits_of_cards(events_run: Path, tmp_path: Path) -> None:
    order = ["generate", events_run, "--seed", SEED, "-o", tmp_path / "none"]
    for words, message in (
        (["--events", 10**15, "--shard-size", 1], "makes more than 1000000 shards"),
        (["--events", 10, "--shard-size", 10**7], "shard_size = 10000000: must be"),
        (["--events", 10, "--format", "root"], "formats"),
        (["--events", 10, "--format", "lhe", "--format", "lhe"], "formats must name at least one format, each once"),
    ):
        code, _, err = call(*order, *words)
        assert code == 2 and message in err, err
    assert not (tmp_path / "none").exists()


def test_the_advised_command_repeats_the_formats(
    events_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "fill", stop)
    formats = ["--format", "lhe", "--format", "h5"]
    code, _, err = call("generate", events_run, "--events", 10, "--seed", 7, "-o", tmp_path / "more", *formats)
    assert code == 130 and f"{' '.join(formats)}` continues" in err


def test_every_shard_belongs_to_one_job() -> None:
    for n, size, parts in ((1, 1, 1), (130, 20, 7), (1000, 10, 7), (25, 10, 200)):
        jobs = [list(Order("", 1, n, size, part, parts).shards()) for part in range(1, parts + 1)]
        assert [shard for job in jobs for shard in job] == list(Order("", 1, n, size).shards())
        assert max(map(len, jobs)) - min(map(len, jobs)) <= 1


def test_two_commands_do_not_share_a_target(events_run: Path, whole: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(whole, tmp_path / "whole"))
    with Order.read(target).claimed(target), pytest.raises(StorageError, match="in use by process"):
        make(events_run, target)
