"""Shards: names, order, gaps, one merged view, merging in any format."""

from __future__ import annotations

import numpy as np
import pytest

from nisampler.errors import CorruptFileError, EventFormatError, StorageError
from nisampler.events import (
    EventBatch,
    EventFile,
    InitInfo,
    ShardSet,
    check_file,
    find_shards,
    merge_shards,
    shard_path,
    write_events,
)


def write_shard(directory, index, batch, info, suffix=".lhe.gz"):
    write_events(shard_path(directory, index, suffix), batch, info, len(batch))


@pytest.fixture
def folder(events, info, tmp_path):
    """Three shards of 10, 7 and 4 events, and files that are none."""
    for index, n in enumerate((10, 7, 4)):
        write_shard(tmp_path, index, events(n, seed=index), info)
    (tmp_path / ".events-00003.lhe.gz.0.nisampler-partial").write_bytes(b"half")
    (tmp_path / "events.lhe").write_text("merged")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_names():
    assert shard_path("a", 3).name == "events-00003.lhe.gz"
    assert shard_path("a", 123456, ".h5").name == "events-123456.h5"
    for index, suffix in ((-1, ".h5"), (0, ".root")):
        with pytest.raises(EventFormatError):
            shard_path("a", index, suffix)


def test_merged_view(folder, events, same):
    shards = ShardSet.open(folder)
    assert shards.counts() == (10, 7, 4) and shards.count() == 21
    assert list(find_shards(folder)) == [0, 1, 2] and find_shards(folder / "none") == {}
    wanted = EventBatch.concatenate([events(n, seed=index) for index, n in enumerate((10, 7, 4))])
    same(EventBatch.concatenate(list(shards.batches(3))), wanted)


@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz", ".h5"))
def test_merge(suffix, folder, same):
    target = folder / f"all{suffix}"
    assert merge_shards(folder, target, chunk=4) == 21
    same(EventFile.open(target).read(), EventBatch.concatenate(list(ShardSet.open(folder).batches())))
    assert check_file(target).passed
    again = folder / f"again{suffix}"
    merge_shards(folder, again, chunk=21)
    assert again.read_bytes() == target.read_bytes()


def test_shards_of_different_runs_need_information(folder, events, info):
    other = InitInfo(info.beam_ids, info.beam_energies, info.processes, generator="another")
    write_shard(folder, 3, events(2), other, ".h5")
    with pytest.raises(EventFormatError, match="different runs"):
        merge_shards(folder, folder / "all.lhe")
    assert not (folder / "all.lhe").exists()
    assert merge_shards(folder, folder / "all.lhe", other) == 23


def test_gaps_doubles_and_damage(folder, events, info, tmp_path):
    with pytest.raises(StorageError, match="no event shards"):
        ShardSet.open(folder / "empty")
    write_shard(folder, 5, events(1), info)
    with pytest.raises(StorageError, match=r"lacks the event shards \[3, 4\]"):
        ShardSet.open(folder)
    (folder / "events-00005.lhe.gz").unlink()
    write_shard(folder, 2, events(1), info, ".h5")
    with pytest.raises(EventFormatError, match="shard 2 exists twice"):
        find_shards(folder)
    (folder / "events-00002.h5").unlink()
    damaged = folder / "events-00001.lhe.gz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(CorruptFileError, match=r"events-00001\.lhe\.gz"):
        merge_shards(folder, folder / "all.h5")
    assert not (folder / "all.h5").exists()


def test_weights_that_average_to_the_cross_section(folder, info):
    weights = np.concatenate([batch.weights for batch in ShardSet.open(folder).batches()])
    for suffix in (".lhe.gz", ".h5"):
        merge_shards(folder, folder / f"all{suffix}", chunk=4, average=True)
        file = EventFile.open(folder / f"all{suffix}")
        assert file.info.strategy == 4 and file.info.processes[0].max_weight == pytest.approx(info.cross_section)
        np.testing.assert_allclose(file.read().weights, info.cross_section * weights)
        assert file.sums().total == pytest.approx(21 * info.cross_section)


def test_weights_of_no_sum_cannot_be_averaged(events, info, tmp_path):
    signed = InitInfo(info.beam_ids, info.beam_energies, info.processes, strategy=-3)
    for weights in ([1.0, -1.0], [-1.0, -1.0]):
        write_shard(tmp_path, 0, events(2, weights=np.array(weights)), signed, ".h5")
        with pytest.raises(EventFormatError, match="make more events"):
            merge_shards(tmp_path, tmp_path / "all.h5", average=True)
    assert not (tmp_path / "all.h5").exists()


def test_unit_weights_survive(folder):
    weights = np.concatenate([batch.weights for batch in ShardSet.open(folder).batches()])
    assert (weights == 1).all()


def test_what_is_trusted_is_counted_and_not_checked_again(events, info, same, tmp_path, monkeypatch):
    for index in range(2):
        write_events(shard_path(tmp_path, index, ".h5"), events(20), info)
    checked = []
    monkeypatch.setattr("nisampler.events.rules.violations", lambda batch, info: checked.append(len(batch)) or ())
    assert merge_shards(tmp_path, tmp_path / "trusted.lhe", trusted=True) == 40 and checked == []
    with pytest.raises(StorageError, match="is a copy of"):
        merge_shards(tmp_path, tmp_path / "all.lhe")
    write_events(shard_path(tmp_path, 1, ".h5"), events(20, seed=8), info)
    checked.clear()
    assert merge_shards(tmp_path, tmp_path / "all.lhe") == 40 and checked == [20, 20]
