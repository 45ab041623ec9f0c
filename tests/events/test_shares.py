"""Cross-sections of groups of sub-processes: shares of the events, whole in every format, the same for any merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyhepmc
import pylhe
import pytest

from nisampler.errors import EventFormatError
from nisampler.events import (
    EventBatch,
    EventFile,
    InitInfo,
    ProcessInfo,
    check_file,
    merge_shards,
    shard_path,
    write_events,
)
from nisampler.events.shares import ProcessSums
from nisampler.events.story import story

TOTAL = (1234.5, 0.6)
MADE = Callable[..., EventBatch]


@pytest.fixture
def several(info: InitInfo) -> InitInfo:
    """Three processes with a total and no shares yet."""
    return replace(info, processes=tuple(ProcessInfo(0.0, 0.0, 1.0, code) for code in (1, 2, 3)), total=TOTAL)


def grouped(events: MADE, n: int, seed: int = 7) -> EventBatch:
    """Events of the processes 1 and 2 with weights of their own."""
    rng = np.random.default_rng(seed)
    batch = events(n, seed, weights=1 + (rng.random(n) < 0.1) * rng.random(n))
    return replace(batch, process_ids=1 + (rng.random(n) < 0.3))


def shared(info: InitInfo, *batches: EventBatch) -> InitInfo:
    sums = ProcessSums()
    for batch in batches:
        sums.add(batch.process_ids, batch.weights)
    return sums.shared(info)


@pytest.mark.parametrize("signed", [False, True])
def test_errors_of_shares_are_their_spread(several: InitInfo, signed: bool) -> None:
    rng, n = np.random.default_rng(3), 2000
    found = []
    for _ in range(400):
        codes = rng.choice([1, 2, 3], n, p=[0.6, 0.3, 0.1])
        weights = np.where(codes == 2, 2.0, 1.0) * (np.where(rng.random(n) < 0.2, -1, 1) if signed else 1)
        sums = ProcessSums()
        sums.add(codes, weights)
        info = sums.shared(several)
        assert sum(item.cross_section for item in info.processes) == pytest.approx(TOTAL[0], rel=1e-14)
        assert (info.cross_section, info.error) == TOTAL
        found.append([(item.cross_section, item.error) for item in info.processes])
    values, errors = np.moveaxis(np.array(found), 2, 0)
    expected = TOTAL[0] * np.array([0.6, 0.6, 0.1]) / 1.3
    spread = values.std(0)
    assert (np.abs(values.mean(0) - expected) < 4 * spread / 20).all()
    assert np.abs(errors.mean(0) / spread - 1).max() < 0.15


def test_the_error_of_the_integral_is_part_of_those_of_its_shares(several: InitInfo) -> None:
    sums = ProcessSums()
    sums.add(np.repeat([1, 2], 10**6), np.ones(2 * 10**6))
    certain, doubtful, none = sums.shared(replace(several, total=(100.0, 10.0))).processes
    assert certain.cross_section == 50 and certain.error == doubtful.error == pytest.approx(5, rel=1e-3)
    # A process without events: fewer than about one of them.
    assert none.cross_section == 0 and none.error == pytest.approx(100 / (2e6))


def test_weights_that_cancel_leave_shares_of_numbers(several: InitInfo) -> None:
    sums = ProcessSums()
    assert [item.cross_section for item in sums.shared(several).processes] == [0, 0, 0]
    sums.add(np.array([1, 1, 2, 2]), np.array([1.0, -1.0, 1.0, -1.0]))
    assert [item.cross_section for item in sums.shared(several).processes] == [TOTAL[0] / 2, TOTAL[0] / 2, 0]


@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz", ".lhe.zst", ".h5"))
def test_totals_and_shares_are_in_every_file(suffix: str, events: MADE, several: InitInfo, tmp_path: Path) -> None:
    batch = grouped(events, 50)
    info = shared(several, batch)
    path = tmp_path / f"events{suffix}"
    write_events(path, batch, info)
    file = EventFile.open(path)
    assert file.info == info and file.info.total == TOTAL
    np.testing.assert_array_equal(file.read().process_ids, batch.process_ids)
    assert check_file(path).passed
    rows = dict(story(path))
    assert rows["cross-section"] == "1234.5 ± 0.6 pb" and rows["cross-section of 3"].startswith("0 ±")
    if suffix in (".lhe", ".lhe.gz"):
        document = pylhe.LHEFile.fromfile(str(path))
        assert sum(item.xSection for item in document.init.procInfo) == pytest.approx(TOTAL[0], rel=1e-14)
        assert [item.procId for item in document.init.procInfo] == [1, 2, 3]
        assert [event.eventinfo.pid for event in document.events] == batch.process_ids.tolist()


def test_groups_in_lheh5_and_hepmc(events: MADE, several: InitInfo, tmp_path: Path) -> None:
    batch = grouped(events, 20)
    info = shared(several, batch)
    write_events(tmp_path / "events.lheh5", batch, info)
    document = pylhe.LHEFile.fromfile(str(tmp_path / "events.lheh5"))
    assert [item.xSection for item in document.init.procInfo] == [item.cross_section for item in info.processes]
    assert [event.eventinfo.pid for event in document.events] == batch.process_ids.tolist()
    write_events(tmp_path / "events.hepmc", batch, info)
    with pyhepmc.open(tmp_path / "events.hepmc") as file:
        found = list(file)
    assert [event.attributes["signal_process_id"].astype(int) for event in found] == batch.process_ids.tolist()
    assert (found[0].cross_section.xsec(), found[0].cross_section.xsec_err()) == TOTAL


def test_wrong_shares_are_found(events: MADE, several: InitInfo, tmp_path: Path) -> None:
    batch = grouped(events, 50)
    info = shared(several, batch)
    first, second, third = info.processes
    moved = (replace(first, cross_section=first.cross_section + 1), replace(second, cross_section=1.0), third)
    write_events(tmp_path / "wrong.lhe", batch, replace(info, processes=moved))
    report = check_file(tmp_path / "wrong.lhe")
    assert [line[:10] for line in report.problems] == ["process 1 ", "process 2 "]
    assert "declared with 1 pb" in report.problems[1]


@pytest.mark.parametrize("text", ["nan", "-1", "much"])
def test_a_total_that_is_none_is_named(text: str, events: MADE, several: InitInfo, tmp_path: Path) -> None:
    path = tmp_path / "events.lhe"
    batch = grouped(events, 3)
    write_events(path, batch, shared(several, batch))
    path.write_text(path.read_text().replace('error="0.6"', f'error="{text}"'))
    with pytest.raises(EventFormatError, match="<header>"):
        EventFile.open(path)


@pytest.mark.parametrize("average", [False, True])
def test_merged_shares_do_not_depend_on_the_folders(
    average: bool, events: MADE, several: InitInfo, tmp_path: Path
) -> None:
    batches = [grouped(events, n, seed) for seed, n in enumerate((7, 40, 13))]
    for index, batch in enumerate(batches):
        # Each shard has the shares of its own events.
        write_events(shard_path(tmp_path, index, ".h5"), batch, shared(several, batch))
    merge_shards(tmp_path, tmp_path / "all.lhe", average=average)
    merge_shards(tmp_path, tmp_path / "again.lhe", average=average, chunk=5)
    assert (tmp_path / "all.lhe").read_bytes() == (tmp_path / "again.lhe").read_bytes()
    found, expected = EventFile.open(tmp_path / "all.lhe").info, shared(several, EventBatch.concatenate(batches))
    for item, other in zip(found.processes, expected.processes, strict=True):
        assert item.cross_section == pytest.approx(other.cross_section, rel=1e-14)
        assert item.error == pytest.approx(other.error, rel=1e-12)
    assert check_file(tmp_path / "all.lhe").passed
    if average:
        merged = EventFile.open(tmp_path / "all.lhe").read()
        means = [merged.weights[merged.process_ids == code].sum() / len(merged) for code in (1, 2, 3)]
        np.testing.assert_allclose(means, [item.cross_section for item in found.processes], rtol=1e-12)


def test_shards_of_another_total_are_of_another_run(events: MADE, several: InitInfo, tmp_path: Path) -> None:
    for index, total in enumerate((TOTAL, (1234.6, 0.6))):
        batch = grouped(events, 10, index)
        write_events(shard_path(tmp_path, index, ".h5"), batch, shared(replace(several, total=total), batch))
    with pytest.raises(EventFormatError, match="different runs"):
        merge_shards(tmp_path, tmp_path / "all.h5")
