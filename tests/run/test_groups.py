"""Groups of sub-processes in the files of runs: codes, names and cross-sections, by one job or many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call
from pdf_grids import write_set

from nisampler.errors import CardError, ProcessError
from nisampler.events import EventFile, check_file
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.merge import merge
from nisampler.run.pipeline import execute, start
from nisampler.run.reweight import reweight

CARD = """
process = "{process}"
{parameters}
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 3000
[events]
n = {n}
shard_size = 50
formats = ["lhe", "h5"]
"""
OWN = """
from dataclasses import replace

import numpy as np

from nisampler.processes.registry import create

INNER = create("ee_to_3jets")


class Grouped:
    dim, unit, beams, record_calls = INNER.dim, "pb", INNER.beams, INNER.record_calls
    event_groups = {groups}

    def __call__(self, u):
        return INNER(u)

    def events(self, u, weights, generator):
        batch = INNER.events(u, weights, generator)
        return replace(batch, process_ids=np.where(batch.pdg_ids[:, 2] % 2, 10, 20))
"""


def make(folder: Path, process: str, parameters: str = "", n: int = 0) -> Path:
    (folder / "card.toml").write_text(CARD.format(process=process, parameters=parameters, n=n))
    with start(folder / "card.toml", folder / "run") as directory:
        execute(directory)
    return folder / "run"


@pytest.fixture(scope="module")
def tops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of top pairs, 120 events of gluons and quarks; not to be changed."""
    folder = tmp_path_factory.mktemp("tops")
    grid = write_set(folder / "sets") / "toyset_0000.dat"
    return make(folder, "ttbar", f'[parameters]\npdf = "{grid}"', 120)


def test_every_event_names_its_group(tops: Path) -> None:
    for name in ("events.lhe", "events.h5"):
        file = EventFile.open(tops / name)
        batch, info = file.read(), file.info
        gluons = (batch.pdg_ids[:, :2] == 21).all(axis=1)
        assert 0 < gluons.sum() < len(batch) == 120
        np.testing.assert_array_equal(batch.process_ids, np.where(gluons, 1, 2))
        assert dict(info.header)["groups"] == "1 g g > t t~\n2 q q > t t~"
        assert info.total is not None and check_file(file.path).passed
        for process, own in zip(info.processes, (gluons, ~gluons), strict=True):
            assert process.cross_section == pytest.approx(batch.weights[own].sum() / len(batch))
            assert process.error > 0.01 * info.cross_section > 5 * info.error
    code, out, _ = call("info", tops / "events.lhe")
    assert code == 0 and "cross-section of 2" in out and "q q > t t~" in out


def test_jobs_make_the_groups_of_one(tops: Path, tmp_path: Path) -> None:
    run = RunDirectory.read(tops)
    formats = ("lhe", "lhe.zst", "h5")
    generate_events(run, 130, 7, tmp_path / "one", shard_size=20, formats=formats)
    for parts in (2, 5):
        jobs = [tmp_path / f"{part} of {parts}" for part in range(1, parts + 1)]
        for part, job in enumerate(jobs, 1):
            generate_events(run, 130, 7, job, part=(part, parts), shard_size=20)
        shares = {EventFile.open(job / "events.lhe").info.processes[0].cross_section for job in jobs}
        assert len(shares) > 1
        for ending in formats:
            merge(jobs[::-1], tmp_path / f"{parts}.{ending}")
            assert (tmp_path / f"{parts}.{ending}").read_bytes() == (tmp_path / f"one/events.{ending}").read_bytes()


def test_commands_take_files_of_zstandard(tops: Path, tmp_path: Path) -> None:
    order = ("generate", tops, "--events", 60, "--seed", 3, "--shard-size", 20, "--format", "lhe.zst", "-q")
    for part in (1, 2):
        assert call(*order, "--job", f"{part}/2", "-o", tmp_path / str(part))[0] == 0
    path = tmp_path / "all.lhe.zst"
    assert call("merge", tmp_path / "1", tmp_path / "2", "-o", path)[0] == 0
    code, out, _ = call("check", path)
    assert code == 0 and "good" in out
    code, out, _ = call("info", path)
    assert code == 0 and "cross-section of 2" in out and "events               60" in out
    assert call("reweight", path, "--scales", "7-point", "-o", tmp_path / "new.lhe.zst")[0] == 0
    assert call("uncertainty", tmp_path / "new.lhe.zst")[0] == 0


def test_reweighted_files_keep_their_groups(tops: Path, tmp_path: Path) -> None:
    reweight(tops / "events.lhe", tmp_path / "new.h5", "7-point")
    old, new = EventFile.open(tops / "events.lhe"), EventFile.open(tmp_path / "new.h5")
    assert new.info.processes == old.info.processes and new.info.total == old.info.total
    assert check_file(tmp_path / "new.h5").passed


def own(folder: Path, groups: str) -> str:
    (folder / "mine.py").write_text(OWN.format(groups=groups))
    return f"{folder / 'mine.py'}:Grouped"


def test_a_process_of_ones_own_names_its_groups(tmp_path: Path) -> None:
    run = make(tmp_path, own(tmp_path, "{10: 'down', 20: 'up'}"), n=80)
    file = EventFile.open(run / "events.lhe")
    assert [process.process_id for process in file.info.processes] == [10, 20]
    assert dict(file.info.header)["groups"] == "10 down\n20 up"
    assert sum(process.cross_section for process in file.info.processes) == pytest.approx(file.info.cross_section)


@pytest.mark.parametrize(
    "groups", ["{0: 'none'}", "{1: ''}", "{'one': 'x'}", "{1.5: 'x'}", "['a']", "{1: 'two\\nlines'}"]
)
def test_groups_that_are_none_are_named(groups: str, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"event_groups of mine\.py:Grouped"):
        make(tmp_path, own(tmp_path, groups))


@pytest.mark.parametrize("groups", ["{}", "{10: 'down'}", "{10: 'down', 30: 'up'}"])
def test_events_of_other_groups_are_named(groups: str, tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"name the groups \[.*20\] .* event_groups"):
        make(tmp_path, own(tmp_path, groups), n=20)
