"""LHE and HDF5 twins: what is written is read back, bit by bit; damage is named; nothing partial is left."""

from __future__ import annotations

import builtins
import gzip
from dataclasses import replace

import h5py
import numpy as np
import pylhe
import pytest

from nisampler.errors import (
    ConfigError,
    CorruptFileError,
    EventCountError,
    EventFormatError,
    MissingExtraError,
    StorageError,
)
from nisampler.events import (
    EventBatch,
    EventFile,
    InitInfo,
    PointBatch,
    ProcessInfo,
    check_file,
    iterate_points,
    read_events,
    write_events,
    write_points,
)
from nisampler.events.hdf5 import iterate_hdf5, read_points_header
from nisampler.events.rules import require_valid

SUFFIXES = (".lhe", ".lhe.gz", ".lhe.zst", ".h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(suffix, events, resonant, info, same, tmp_path):
    path = tmp_path / f"events{suffix}"
    weights = np.ones(40)
    weights[3] = 2.0 / 3.0 + 1.0
    batch = EventBatch.concatenate([events(40, weights=weights), resonant(10)])
    batch.lifetimes[2, 3] = 0.1
    assert write_events(path, batch, info) == 50
    file = EventFile.open(path)
    assert file.declared == file.count() == 50
    assert (file.info.beam_ids, file.info.beam_energies) == (info.beam_ids, info.beam_energies)
    assert file.info == info
    same(file.read(), batch)
    same(EventBatch.concatenate(list(file.batches(chunk=7))), batch)
    assert [len(part) for part in file.batches(chunk=20)] == [20, 20, 10]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_streams_of_batches_and_signed_weights(suffix, events, resonant, same, tmp_path):
    path = tmp_path / f"events{suffix}"
    processes = (ProcessInfo(-3.5, 0.25, 2.0), ProcessInfo(1e-30, 1e-33, 1.0, 7))
    info = InitInfo((-11, 11), (45.5938, 45.5938), processes, (0, 3), (0, 331900), -3, "mine", "1.2")
    parts = [events(5, weights=-np.ones(5)), resonant(6), events(0), events(4, 3)]
    assert write_events(path, iter(parts), info, n_events=15) == 15
    file = EventFile.open(path)
    assert file.info == info and file.info.signed and file.info.cross_section == -3.5
    same(file.read(), EventBatch.concatenate(parts))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_events_give_equal_bytes(suffix, events, info, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_events(tmp_path / name / f"a{suffix}", events(30), info)
    write_events(tmp_path / f"other-name{suffix}", events(30), info)
    write_events(tmp_path / f"other-seed{suffix}", events(30, seed=8), info)
    first, second = ((tmp_path / name / f"a{suffix}").read_bytes() for name in ("one", "two"))
    assert first == second == (tmp_path / f"other-name{suffix}").read_bytes()
    assert first != (tmp_path / f"other-seed{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_events(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    assert write_events(path, events(0), info) == 0
    assert EventFile.open(path).count() == 0 and len(read_events(path)) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_events_leave_the_old_file(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, events(5), info)
    before = path.read_bytes()
    spoiled = events(5)
    spoiled.weights[3] = np.nan
    with pytest.raises(EventFormatError, match=r"after event 5: event 4: column weights is not finite"):
        write_events(path, iter([events(5), spoiled]), info)
    with pytest.raises(EventCountError, match=r"7 .* declared, 5 were made"):
        write_events(path, iter([events(5)]), info, n_events=7)

    def interrupted():
        yield events(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_events(path, interrupted(), info)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fraction", (0.02, 0.5, 0.9, 0.999))
def test_truncated_files_are_refused(suffix, fraction, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, events(400), info)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CorruptFileError, match=path.name):
        read_events(path)


def test_truncated_lhe_yields_what_precedes(events, info, same, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(20), info)
    lines = path.read_text().split("<event>")
    path.write_text("<event>".join(lines[:13]))
    found = []
    with pytest.raises(CorruptFileError, match="after event 12"):
        found.extend(EventFile.open(path).batches(chunk=5))
        raise AssertionError("the truncation was not noticed")
    stream, found = EventFile.open(path).batches(chunk=5), []
    for _ in range(3):
        found.append(next(stream))
    assert [len(part) for part in found] == [5, 5, 2]
    same(EventBatch.concatenate(found), events(20).select(slice(0, 12)))


def test_events_cut_from_the_middle_are_missed(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(5), info)
    head, *rest = path.read_text().split("<event>")
    path.write_text("<event>".join([head, *rest[1:]]))
    with pytest.raises(CorruptFileError, match="declares 5 events and holds 4"):
        read_events(path)


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("suffix", (".lhe.gz", ".lhe.zst"))
def test_every_flipped_bit_of_a_packed_file_is_found(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, events(20), info)
    content = path.read_bytes()
    positions = np.random.default_rng(4).integers(10, len(content), 60)
    for position in positions:
        path.write_bytes(flipped(content, int(position), int(position) % 8))
        with pytest.raises((CorruptFileError, EventFormatError), match=path.name):
            read_events(path)


def test_flipped_bits_in_the_columns_of_hdf5_are_found(events, info, tmp_path):
    path = tmp_path / "events.h5"
    batch = events(2000)
    write_events(path, batch, info)
    content = path.read_bytes()
    for name in ("momenta", "weights", "pdg_ids"):
        with h5py.File(path, "r") as file:
            chunk = file["events"][name].id.get_chunk_info(0)
        position = chunk.byte_offset + 1001
        path.write_bytes(flipped(content, position, 3))
        with pytest.raises(CorruptFileError, match=path.name):
            read_events(path)
        path.write_bytes(content)


def test_malformed_lhe_is_named(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(3), info)
    text = path.read_text()
    for old, new, error in (
        ("-11 -1 ", "-1x -1 ", "after event 0"),
        ("5 1 1.0", "6 1 1.0", "6 particles declared, 5 found"),
        ("501 0 ", "50100 0 ", "column colours"),
        (" 9.0\n", "\n", "malformed"),
        ("<init>", "<initial>", "malformed|truncated"),
        ("LesHouchesEvents", "SomethingElse", "malformed"),
        ('events="3"', 'events="x"', "<header>"),
        ("3 1\n", "3 2\n", "2 processes declared, 1 found"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises((EventFormatError, CorruptFileError), match=error):
            read_events(path)


def test_files_of_other_generators_are_read(tmp_path):
    path = tmp_path / "foreign.lhe"
    path.write_text(
        '<LesHouchesEvents version="1.0">\n<!-- a comment -->\n<init>\n'
        " 2212 2212 6500 6500 0 0 10042 10042 -4 1\n"
        " 50.1 0.2 1.0 66\n</init>\n<event>\n 4 66 2.5e-3 91.2 0.0078 0.118\n"
        " 21 -1 0 0 501 502 0 0 10 10 0 0 9\n 21 -1 0 0 503 501 0 0 -10 10 0 0 9\n"
        " 21 1 1 2 503 504 10 0 0 10 0 0 9\n 21 1 1 2 504 502 -10 0 0 10 0 0 9\n"
        "# a remark\n</event>\n</LesHouchesEvents>\n"
    )
    file = EventFile.open(path)
    assert file.declared is None and file.count() == 1
    assert file.info.strategy == -4 and file.info.pdf_sets == (10042, 10042) and file.info.generator == ""
    batch = file.read()
    require_valid(batch)
    assert batch.weights[0] == 2.5e-3 and batch.process_ids[0] == 66


FOREIGN = (
    "<init>\n 2212 2212 6500 6500 0 0 10042 10042 -4 1\n 50.1 0.2 1.0 66\n</init>\n",
    "<event>\n 4 66 2.5e-3 91.2 0.0078 0.118\n 21 -1 0 0 501 502 0 0 10 10 0 0 9\n 21 -1 0 0 503 501 0 0 -10 10 0 0 9\n"
    " 21 1 1 2 503 504 10 0 0 10 0 0 9\n 21 1 1 2 504 502 -10 0 0 10 0 0 9\n{}</event>\n",
    "</LesHouchesEvents>\n",
)
ROOT = '<LesHouchesEvents version="3.0">\n'
# what stands before <init>, what stands in each event, encoding
DIALECTS = {
    "a comment before the root": ("<!-- made -- by <init > -->\n" + ROOT, "", "utf-8"),
    "comments everywhere": (
        f"<!-- a -->{ROOT}<!-- b --><!-- c --><header><!-- d & -- e --></header><!-- f -->",
        "",
        "utf-8",
    ),
    "a declared Latin-1": (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n' + ROOT + "<header>Jürgen</header>",
        "",
        "latin-1",
    ),
    "Latin-1 that nobody declares": (ROOT + "<header>Jürgen</header>", "# Müller\n", "latin-1"),
    "bare ampersands": (ROOT + "<header>R&D &c; &amp; &#38;</header>", "# a & b\n", "utf-8"),
    "a quoted card": (f"{ROOT}<header><card><![CDATA[ a < b <!-- <init> & ]]></card></header>", "", "utf-8"),
    "weights of POWHEG": (ROOT, "<weights>\n1.0 2.0 3.0\n</weights>\n", "utf-8"),
    "weights that are declared": (
        f"{ROOT}<header><initrwgt><weight id='1'>a</weight></initrwgt></header>",
        "<weights>1.0</weights>\n",
        "utf-8",
    ),
    "a byte-order mark": ("\ufeff" + ROOT, "", "utf-8"),
}


@pytest.mark.parametrize("piece", (7, 1 << 16))
@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_other_generators_are_read(name, piece, tmp_path, monkeypatch):
    monkeypatch.setattr("nisampler.events.lhe_dialects._FIRST_READ", piece)
    before, inside, encoding = DIALECTS[name]
    init, event, end = FOREIGN
    path = tmp_path / "foreign.lhe"
    path.write_bytes((before + init + 3 * event.format(inside) + end).encode(encoding))
    file = EventFile.open(path)
    assert file.info.processes[0].process_id == 66
    assert [len(batch) for batch in file.batches(2)] == [2, 1]


@pytest.mark.parametrize("n", (3, 200))
def test_files_put_one_after_the_other_are_refused(n, events, info, tmp_path):
    for suffix in (".lhe", ".lhe.gz", ".lhe.zst"):
        path = tmp_path / f"events{suffix}"
        write_events(path, events(n), info)
        assert check_file(path).passed
        one = path.read_bytes()
        path.write_bytes(one + one)
        report = check_file(path)
        assert report.n_events == n and "something follows the end" in report.problems[0]
        # Two members of one document, as bgzip writes them, are one file.
        if suffix == ".lhe.gz":
            text = gzip.decompress(one)
            path.write_bytes(gzip.compress(text[:1000]) + gzip.compress(text[1000:]))
            assert check_file(path).passed


def test_levels_and_magic_of_packed_files(events, info, same, tmp_path):
    batch = events(200)
    sizes = {}
    for suffix, low, other, high in ((".lhe.gz", 0, 0, 9), (".lhe.zst", 1, 2, 19)):
        for level in (None, other, high):
            path = tmp_path / f"{level}{suffix}"
            write_events(path, batch, info, compression_level=level)
            same(read_events(path), batch)
            sizes[suffix, level] = path.stat().st_size
        assert len({size for (ending, _), size in sizes.items() if ending == suffix}) == 3
        with pytest.raises(ConfigError, match=f"compression_level = {high + 1}: .*{low} to {high}"):
            write_events(tmp_path / f"new{suffix}", batch, info, compression_level=high + 1)
        assert not (tmp_path / f"new{suffix}").exists()
    # The first bytes say how a file is packed, whatever its name is.
    (tmp_path / "named.lhe").write_bytes((tmp_path / "None.lhe.zst").read_bytes())
    same(read_events(tmp_path / "named.lhe"), batch)


def test_missing_zstandard_names_the_extra(events, info, tmp_path, monkeypatch):
    write_events(tmp_path / "a.lhe.zst", events(2), info)

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr("nisampler.events.compression.importlib.import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[zstd\]"):
        write_events(tmp_path / "b.lhe.zst", events(2), info)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[zstd\]"):
        EventFile.open(tmp_path / "a.lhe.zst")
    assert not (tmp_path / "b.lhe.zst").exists()


@pytest.mark.parametrize("place", ("the header", "an event"))
def test_what_is_larger_than_any_real_one_is_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr("nisampler.events.lhe_dialects._LARGEST", 1 << 20)
    init, event, end = FOREIGN
    filler = " " * (3 << 20)
    head = ROOT + f"<header>{filler}</header>" if place == "the header" else ROOT
    path = tmp_path / "bomb.lhe.gz"
    path.write_bytes(
        gzip.compress((head + init + event.format(f"#{filler}\n" if place == "an event" else "") + end).encode())
    )
    with pytest.raises(EventFormatError, match=f"{place} is larger than 1 MiB"):
        EventFile.open(path).read()


def test_lhe_is_what_pylhe_reads(events, info, tmp_path):
    path = tmp_path / "events.lhe.gz"
    batch = events(3)
    write_events(path, batch, info)
    document = pylhe.LHEFile.fromfile(path)
    assert document.init.initInfo.weightingStrategy == 3 and document.init.procInfo[0].xSection == 1234.5
    records = list(document.events)
    assert [record.eventinfo.weight for record in records] == [1, 1, 1]
    particle = records[2].particles[4]
    assert (particle.px, particle.py, particle.pz, particle.e) == tuple(batch.momenta[2, 4, [1, 2, 3, 0]])
    assert (particle.id, particle.mother1, particle.mother2, particle.color1) == (21, 1, 2, 502)
    header = gzip.decompress(path.read_bytes())[:200]
    assert b'events="3"' in header and path.read_bytes()[4:8] == bytes(4)


def test_names_decide_the_format(events, info, tmp_path):
    for name in ("events.txt", "events.lhe.bz2", "lhe"):
        with pytest.raises(EventFormatError, match="ends in one of"):
            write_events(tmp_path / name, events(1), info)
        with pytest.raises(EventFormatError, match="ends in one of"):
            EventFile.open(tmp_path / name)
    with pytest.raises(ConfigError, match="chunk = 0: must be"):
        write_events(tmp_path / "a.lhe", events(1), info)
        EventFile.open(tmp_path / "a.lhe").batches(0)
    for suffix in SUFFIXES:
        with pytest.raises(StorageError, match="cannot read"):
            EventFile.open(tmp_path / f"missing{suffix}")
        with pytest.raises(StorageError, match="cannot write"):
            write_events(tmp_path / "no" / f"folder{suffix}", events(1), info)


def test_missing_pylhe_names_the_extra(events, info, tmp_path, monkeypatch):
    write_events(tmp_path / "a.lhe", events(1), info)
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pylhe":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[lhe\]"):
        write_events(tmp_path / "b.lheh5", events(1), info)
    with pytest.raises(MissingExtraError):
        EventFile.open(tmp_path / "a.lhe")
    write_events(tmp_path / "b.h5", events(1), info)
    write_events(tmp_path / "b.lhe", events(1), info)
    assert not (tmp_path / "b.lheh5").exists()
    assert (tmp_path / "b.lhe").read_bytes() == (tmp_path / "a.lhe").read_bytes()


def test_points_round_trip(tmp_path):
    path, rng = tmp_path / "points.h5", np.random.default_rng(1)
    parts = [PointBatch(rng.random((n, 3)), rng.normal(size=n)) for n in (10, 0, 5)]
    assert write_points(path, iter(parts), unit="pb", n_points=15) == 15
    assert read_points_header(path) == ("pb", 15)
    found, wanted = PointBatch.concatenate(list(iterate_points(path, 4))), PointBatch.concatenate(parts)
    np.testing.assert_array_equal(found.x, wanted.x)
    np.testing.assert_array_equal(found.weights, wanted.weights)
    assert write_points(tmp_path / "none.h5", iter([])) == 0
    assert list(iterate_points(tmp_path / "none.h5")) == []


def test_bad_points_are_refused(tmp_path):
    path = tmp_path / "points.h5"
    good, spoiled = (PointBatch(np.zeros((2, 3)), np.array([1.0, value])) for value in (1.0, np.inf))
    with pytest.raises(EventFormatError, match="after point 2: point 2: weights"):
        write_points(path, [good, spoiled])
    with pytest.raises(EventFormatError, match="dimension 1 after 3"):
        write_points(path, [good, PointBatch(np.zeros((2, 1)), np.ones(2))])
    with pytest.raises(EventCountError, match="3 rows were declared, 2 were made"):
        write_points(path, good, n_points=3)
    with pytest.raises(EventFormatError, match="must end in"):
        write_points(tmp_path / "points.npz", good)
    assert not list(tmp_path.iterdir())


def test_hdf5_of_another_kind_or_version(events, info, tmp_path):
    path = tmp_path / "events.h5"
    write_events(path, events(3), info)
    with pytest.raises(EventFormatError, match="need format nisampler-points"):
        list(iterate_points(path))
    with h5py.File(path, "r+") as file:
        file.attrs["n"] = 4
    with pytest.raises(CorruptFileError, match="declares 4 rows"):
        list(iterate_hdf5(path))
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 9
    with pytest.raises(StorageError, match="schema version 9"):
        list(iterate_hdf5(path))
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
        file.attrs["n"] = 3
        del file["events"]["spins"]
    with pytest.raises(CorruptFileError, match="spins"):
        list(iterate_hdf5(path))


@pytest.mark.parametrize("n", (1, 100, 5000))
def test_an_hdf5_file_is_as_large_as_its_events(n, events, info, tmp_path):
    """Some kilobytes for each column, and half as much again as the numbers take."""
    path, batch = tmp_path / "events.h5", events(n)
    numbers = sum(column.nbytes for column in batch.columns().values())
    size = []
    for batches in (batch, iter([batch])):
        write_events(path, batches, info, n)
        size.append(path.stat().st_size)
    assert size[0] == size[1] < 80_000 + 1.8 * numbers
    write_events(path, iter([batch]), info)
    assert path.stat().st_size < 80_000 + 1.8 * max(numbers, 256 * numbers / n)
    write_points(path, PointBatch(np.zeros((n, 3)), np.ones(n)))
    assert path.stat().st_size < 15_000 + 1.8 * n * 32


def test_hdf5_does_not_depend_on_who_holds_its_datasets(events, info, tmp_path, monkeypatch):
    """A profiler, or a debugger, keeps some datasets open for longer: the bytes are the same."""
    told = replace(info, header=tuple((f"text-{k}", "word " * 300 * k) for k in range(5)))
    batches = [events(300, seed=seed) for seed in (1, 2)]
    write_events(tmp_path / "plain.h5", batches, told)
    held = []

    def holding(call):
        def held_now_and_then(*given, **more):
            found = call(*given, **more)
            held.append(found if len(held) % 3 == 0 else None)
            return found

        return held_now_and_then

    for name in ("create_dataset", "__getitem__"):
        monkeypatch.setattr(h5py.Group, name, holding(getattr(h5py.Group, name)))
    write_events(tmp_path / "held.h5", batches, told)
    assert len(held) > 20
    assert (tmp_path / "held.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()
