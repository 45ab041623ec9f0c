"""Named weights and the texts of the header: written, read back bit by bit, scaled with the nominal weight."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pylhe
import pytest

from nisampler.errors import CorruptFileError, EventCountError, EventFormatError
from nisampler.events import (
    EventBatch,
    EventFile,
    check_file,
    merge_shards,
    read_events,
    shard_path,
    write_events,
)
from nisampler.events.text.preamble import ROOT_END, preamble
from nisampler.events.weights import WeightGroup, WeightInfo, only

SUFFIXES = (".lhe", ".lhe.gz", ".h5")
TEXT = 'seed = 1  # R&D\n[events]\nname = "<init> ]]> ü"\n'


def weight(mu_r: float, mu_f: float, pdf: int) -> WeightInfo:
    pairs = (("MUR", str(mu_r)), ("MUF", str(mu_f)), ("PDF", str(pdf)))
    return WeightInfo(f"MUR{mu_r}_MUF{mu_f}_PDF{pdf}", " ".join("=".join(pair) for pair in pairs), pairs)


GROUPS = (
    WeightGroup("Central scale variation", "envelope", (weight(0.5, 0.5, 315000), weight(2.0, 1.0, 315000))),
    WeightGroup(
        "PDF4LHC21_40_pdfas",
        "symmhessian+as",
        tuple(weight(1.0, 1.0, 93300 + member) for member in range(3)),
        (("confidence", "90"),),
    ),
)


@pytest.fixture
def varied(events):
    """Twelve events with five named weights."""
    rng = np.random.default_rng(4)
    return replace(events(12), named_weights=rng.uniform(-2, 3, (12, 5)))


@pytest.fixture
def named(info):
    return replace(info, weight_groups=GROUPS, header=(("process", "ee"), ("card", TEXT), ("note", "")))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(suffix, varied, named, same, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, varied, named)
    file = EventFile.open(path)
    assert file.info == named
    same(file.read(), varied)
    assert check_file(path).passed
    again = tmp_path / f"again{suffix}"
    write_events(again, file.batches(5), file.info, 12)
    if suffix != ".h5":  # the blocks of an HDF5 file follow the first batch
        assert again.read_bytes() == path.read_bytes()


def test_what_stands_before_the_events_is_what_pylhe_writes(named):
    formats = {
        "initinfo": "{beamA:d} {beamB:d} {energyA:.16e} {energyB:.16e} {PDFgroupA:d} {PDFgroupB:d} {PDFsetA:d} "
        "{PDFsetB:d} {weightingStrategy:d} {numProcesses:d}",
        "procinfo": "{xSection:.16e} {error:.16e} {unitWeight:.16e} {procId:d}",
    }
    apart = WeightGroup("", weights=(WeightInfo("3 <&> ü", attributes=(("id", "no"), ("MUR", "2"))),))
    for info in (named, replace(named, weight_groups=(*GROUPS, apart), total=(1.5, 0.1)), replace(named, header=())):
        text = preamble(info, 12) + ROOT_END
        assert pylhe.LHEFile.fromstring(text).tolhe(pylhe.LHEXMLFormat(**formats)) == text


def test_pylhe_reads_a_dictionary_by_id(varied, named, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, varied, named)
    file = pylhe.LHEFile.fromfile(path)
    groups = file.header.initrwgt.entries
    assert [(group.name, group.combine) for group in groups] == [(group.name, group.combine) for group in GROUPS]
    assert groups[0].weights[0].attributes == {"MUR": "0.5", "MUF": "0.5", "PDF": "315000", "id": GROUPS[0].ids[0]}
    assert groups[0].weights[0].name == "MUR=0.5 MUF=0.5 PDF=315000"
    for row, event in zip(varied.named_weights, file.events, strict=True):
        assert event.weights == dict(zip(named.weight_ids, row, strict=True))


def test_pylhe_reads_lheh5(varied, named, tmp_path):
    """Momenta, scales, texts and every weight by its id, in every bit."""
    varied = replace(varied, mu_r=np.linspace(10, 100, 12))
    path = tmp_path / "events.lheh5"
    assert write_events(path, varied, named) == 12
    file = pylhe.LHEFile.fromfile(path)
    assert file.header.initrwgt.list_weights_ids() == list(named.weight_ids)
    for index, event in enumerate(file.events):
        weights = [event.weights[name] for name in named.weight_ids]
        assert weights == varied.named_weights[index].tolist()
        momenta = [[item.e, item.px, item.py, item.pz] for item in event.particles]
        assert momenta == varied.momenta[index].tolist()
        assert event.scales["rscale"] == varied.mu_r[index] and event.eventinfo.weight == varied.weights[index]
    with pytest.raises(EventFormatError, match="ends in one of"):
        EventFile.open(path)
    with pytest.raises(EventCountError):
        write_events(tmp_path / "other.lheh5", varied, named, 13)
    assert [item.name for item in tmp_path.iterdir()] == ["events.lheh5"]


def test_files_without_them_have_the_bytes_they_had(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(3), info)
    text = path.read_text()
    assert "rwgt" not in text and '<nisampler events="3" />' in text
    write_events(tmp_path / "events.h5", events(3), info)
    with h5py.File(tmp_path / "events.h5") as file:
        assert set(file) == {"events", "init"} and set(file["init"]) == {"processes"}
        assert "named_weights" not in file["events"]


@pytest.mark.parametrize("suffix", (".lhe", ".h5"))
def test_merging_scales_all_weights_alike(suffix, varied, named, tmp_path):
    for index in (0, 1):
        write_events(shard_path(tmp_path, index, ".h5"), varied, named)
        varied = varied.scaled(0.5)
    merge_shards(tmp_path, tmp_path / f"all{suffix}", average=True)
    file = EventFile.open(tmp_path / f"all{suffix}")
    batch = file.read()
    assert file.info.weight_groups == GROUPS and file.info.header == named.header
    assert batch.weights.mean() == pytest.approx(named.cross_section)
    first = read_events(shard_path(tmp_path, 0, ".h5"))
    np.testing.assert_allclose(
        batch.named_weights[:12] / batch.weights[:12, None], first.named_weights / first.weights[:, None], rtol=1e-14
    )
    assert check_file(file.path).passed


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wrong_numbers_are_refused(suffix, varied, named, info, events, tmp_path):
    path = tmp_path / f"events{suffix}"
    for batch, run in ((varied, info), (events(12), named)):
        with pytest.raises(EventFormatError, match=r"column named_weights: [05] weights, the file declares"):
            write_events(path, batch, run)
    varied.named_weights[3, 1] = np.nan
    with pytest.raises(EventFormatError, match="event 4: column named_weights is not finite"):
        write_events(path, varied, named)
    assert not path.exists()


def test_batches_are_cut_and_joined_with_their_weights(varied, events, same):
    same(EventBatch.concatenate([varied.select(slice(0, 5)), EventBatch.empty(), varied.select(slice(5, 12))]), varied)
    assert varied.padded(8).named_weights.shape == (12, 5)
    with pytest.raises(EventFormatError, match="0 and 5 named weights"):
        EventBatch.concatenate([varied, events(3)])
    with pytest.raises(EventFormatError, match="column named_weights"):
        replace(varied, named_weights=np.zeros((11, 5)))


def test_an_event_that_lacks_a_weight_is_named(varied, named, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, varied, named)
    lines = path.read_text().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if "<wgt" in line)
    path.write_text("".join(lines[:last] + lines[last + 1 :]))
    with pytest.raises(EventFormatError, match=r"event 12 lacks the weight 'MUR1.0_MUF1.0_PDF93302'"):
        read_events(path)
    assert not check_file(path).passed


def test_weights_that_are_declared_and_not_written_are_none(varied, named, events, info, same, tmp_path):
    """Files of others declare weights that their events lack, or declare one twice, or outside of groups."""
    path = tmp_path / "events.lhe"
    write_events(path, events(12), info)
    old = '<weightgroup type="old"><weight id="a"/><weight id="b"/></weightgroup>'
    extra = f'<initrwgt><weight id="a">A</weight>{old}</initrwgt></header>'
    path.write_text(path.read_text().replace("</header>", extra))
    file = EventFile.open(path)
    assert file.info.weight_groups == ()
    same(file.read(), events(12))
    path.write_text(path.read_text().replace("</event>", "<rwgt><wgt id='b'>2</wgt><wgt id='a'>3</wgt></rwgt></event>"))
    file = EventFile.open(path)
    assert file.info.weight_groups == (
        WeightGroup("", weights=(WeightInfo("a", "A"),)),
        WeightGroup("old", weights=(WeightInfo("b"),)),
    )
    assert np.array_equal(file.read().named_weights, np.tile([3.0, 2.0], (12, 1)))


def test_names_are_checked(info):
    with pytest.raises(EventFormatError, match=r"'a' is declared 2 times"):
        replace(info, weight_groups=(WeightGroup("", weights=(WeightInfo("a"), WeightInfo("a"))),))
    with pytest.raises(EventFormatError, match="the group 'empty' has no weights"):
        replace(info, weight_groups=(WeightGroup("empty"),))
    with pytest.raises(EventFormatError, match="'card' is declared 2 times"):
        replace(info, header=(("card", ""), ("card", "x")))
    with pytest.raises(EventFormatError, match="cannot name a text of the header"):
        replace(info, header=(("a card", ""),))
    with pytest.raises(EventFormatError, match="needs an id"):
        WeightInfo("")
    for text in ("a\x00b", "a\rb", "\ud800"):
        with pytest.raises(EventFormatError, match="the text 'card' of the header has characters"):
            replace(info, header=(("card", text),))
    for wrong in (
        {"id": "\x01"},
        {"text": "two\nlines"},
        {"attributes": (("a=b", "c"),)},
        {"attributes": (("a", "b\n"),)},
    ):
        with pytest.raises(EventFormatError, match="weights"):
            WeightInfo(**({"id": "a"} | wrong))
    assert only(GROUPS, ["MUR1.0_MUF1.0_PDF93301"])[0].attributes == (("confidence", "90"),)


def test_altered_names_in_hdf5_are_refused(varied, named, tmp_path):
    path = tmp_path / "events.h5"
    changes = {
        "init/weights": np.zeros((5, 4, 3), np.uint8),
        "init/weight_groups": np.zeros((2, 3)),
        "header/card": np.array([b"text"]),
    }
    for name, data in changes.items():
        write_events(path, varied, named)
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = data
        with pytest.raises((EventFormatError, CorruptFileError), match=r"events\.h5"):
            EventFile.open(path)
        assert not check_file(path).passed
    write_events(path, varied, named)
    with h5py.File(path, "r+") as file:
        groups = file["init/weights"][()]
        groups[0, 0, 0] = ord("7")
        file["init/weights"][...] = groups
    with pytest.raises(CorruptFileError, match="truncated or altered"):
        EventFile.open(path)
    write_events(path, varied, named)
    with h5py.File(path, "r+") as file:
        del file["header/card"]
        file["header"].create_dataset("card", shape=(1 << 40,), dtype=np.uint8, chunks=(1 << 16,))
    with pytest.raises((EventFormatError, CorruptFileError), match=r"at most 8 MiB|declares"):
        EventFile.open(path)
