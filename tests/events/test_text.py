"""Text in bulk: digits that read back, the same bytes and events with and without numba, and no damage overlooked."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nisampler.base.kernels import FastPathWarning, tried
from nisampler.errors import NisamplerError
from nisampler.events import EventBatch, EventFile, InitInfo, read_events, write_events
from nisampler.events import lhe as lhe_module
from nisampler.events.text.fields import INTEGER, REAL
from nisampler.events.text.powers import GREATEST, LEAST, powers_of_ten
from nisampler.events.text.reader import BulkReader, Tags, reader
from nisampler.events.text.templates import Renderer, Template
from nisampler.events.weights import WeightGroup, WeightInfo

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="compares with numba")
NAMED = ("MUR0.5_MUF1.0", "a & <b> % \u03bc", "3")


@pytest.fixture
def in_bulk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """in_bulk(whether) decides how files are read and written."""

    def choose(bulk: bool) -> None:
        monkeypatch.setattr(lhe_module, "at_work", lambda: bulk)
        monkeypatch.setattr(lhe_module, "Renderer", lambda: Renderer(bulk))

    return choose


@pytest.fixture
def rich(events: Callable[..., EventBatch], resonant: Callable[..., EventBatch]) -> EventBatch:
    """Events of different lengths, with and without scales, densities and clustering, and three named weights."""
    batch = EventBatch.concatenate([events(7), resonant(9), events(3, seed=5)])
    rng = np.random.default_rng(3)
    n, p = batch.status.shape
    some = rng.integers(0, 2, (3, n)).astype(bool)
    return replace(
        batch,
        mu_r=np.where(some[0], 91.1876, 0.0),
        pdf_x=np.where(some[1][:, None], rng.uniform(1e-6, 1, (n, 2)), 0.0),
        pdf_xf=rng.normal(size=(n, 2)) * some[1][:, None],
        pt_clust=np.where(some[2][:, None] & (batch.status == 1), rng.uniform(1, 99, (n, p)), 0.0),
        named_weights=rng.normal(size=(n, 3)),
    )


@pytest.fixture
def rich_info(info: InitInfo) -> InitInfo:
    return replace(info, weight_groups=(WeightGroup("", weights=tuple(map(WeightInfo, NAMED))),))


def rendered(values: np.ndarray, compiled: bool, kind: int = REAL) -> list[str]:
    blocks = Renderer(compiled).blocks(
        values[:, None], np.zeros(len(values), int), [Template(("", "\n"), ((0, kind),))]
    )
    return b"".join(blocks).decode().splitlines()


def numbers_read(texts: list[str]) -> np.ndarray:
    """The numbers of texts by the compiled reader, as the weights of events."""
    event = "<event>\n1 1 {} 1 1 1\n11 1 0 0 0 0 0 0 1 1 0 0 9\n</event>\n"
    text = "".join(map(event.format, texts)) + "</LesHouchesEvents>"
    kernel = reader()
    assert kernel is not None
    bulk = BulkReader(kernel, b"", text.encode(), Tags((), ()), 1 << 19, 1 << 25)
    found = np.concatenate([batch["weights"] for batch in bulk.batches(lambda: b"", 1 << 20)])
    assert bulk.finished
    return found


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values, float).view(np.uint64).tolist()


FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_BITS = st.integers(0, 2**64 - 1).map(lambda b: struct.unpack("d", struct.pack("Q", b))[0]).filter(np.isfinite)
ROUND = st.builds(lambda d, k: float(f"{d}e{k}"), st.integers(-9999, 9999), st.integers(-330, 304))


@settings(deadline=None, max_examples=100)
@example([0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e23, 9007199254740993.0])
@example([1e-4, 1e-5, 9.999e-5, 1e15, 1e16, 9999999999999998.0, 123456789012345680.0, 6500.0, -1.0, 0.1])
@given(st.lists(FINITE | ANY_BITS | ROUND, min_size=1, max_size=200))
def test_numbers_are_written_as_repr_does_and_read_back(values: list[float]) -> None:
    array = np.array(values)
    texts = rendered(array, compiled=True)
    assert texts == [repr(value) for value in values]
    assert rendered(array, compiled=False) == texts
    assert bits(numbers_read(texts)) == bits(array)


def test_powers_of_two_and_ten_and_their_neighbours() -> None:
    centres = np.concatenate([2.0 ** np.arange(-1074, 1024), [float(f"1e{k}") for k in range(-323, 309)]])
    values = np.concatenate([centres, np.nextafter(centres, 0), np.nextafter(centres[:-1], 1e308)])
    texts = rendered(values, compiled=True)
    assert texts == list(map(repr, values.tolist()))
    assert bits(numbers_read(texts)) == bits(values)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
def test_whole_numbers(values: list[int]) -> None:
    for compiled in (True, False):
        assert rendered(np.array(values, float), compiled, INTEGER) == list(map(str, values))


DECIMAL = st.from_regex(r"[-+]?([0-9]{1,25}\.?[0-9]{0,25}|\.[0-9]{1,25})([eE][-+]?[0-9]{1,3})?", fullmatch=True)


@settings(deadline=None, max_examples=200)
@example(
    ["0.1e1", "+1.", "00.10", "1E5", "1e-400", "0e999", "1e308", "123456789012345678901e-30", "0." + 30 * "0" + "7"]
)
@example([str(2**53 + 1), "9007199254740993.0000000000", "4503599627370496.5", "4503599627370497.5", "1e-1000000"])
@given(st.lists(DECIMAL, min_size=1, max_size=50))
def test_any_decimal_is_rounded_to_the_nearest(texts: list[str]) -> None:
    assert bits(numbers_read(texts)) == bits(np.array([float(text) for text in texts]))


def test_halfway_between_two_numbers() -> None:
    rng = np.random.default_rng(8)
    odd = 2 * rng.integers(2**52, 2**53, 500) + 1
    texts = [str(int(value)) for value in odd] + [f"{int(value) // 2}.5" for value in odd]
    assert bits(numbers_read(texts)) == bits(np.array([float(text) for text in texts]))


def test_powers_are_the_next_whole_numbers() -> None:
    for k, (high, low) in zip(range(LEAST, GREATEST + 1), powers_of_ten().T.tolist(), strict=True):
        value, up, down = (high << 64) + low, 10 ** max(k, 0), 10 ** max(-k, 0)
        assert 2**127 <= value < 2**128
        # The power of two that belongs to it brings both to one denominator.
        shift = (up << 400 + down.bit_length()) // down
        assert abs(shift.bit_length() - value.bit_length() - (shift.bit_length() - 128)) == 0
        exponent = shift.bit_length() - 128 - 400 - down.bit_length()
        left, right = (value * down << max(exponent, 0)), up << max(-exponent, 0)
        assert 0 <= left - right < down << max(exponent, 0)


@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz"))
def test_files_are_the_same_with_and_without_numba(suffix, rich, rich_info, in_bulk, same, tmp_path) -> None:
    contents = []
    for bulk in (True, False):
        in_bulk(bulk)
        path = tmp_path / f"events{suffix}"
        write_events(path, (rich.select(part) for part in np.array_split(np.arange(len(rich)), 3)), rich_info)
        contents.append(path.read_bytes())
        same(rich, read_events(path))
    assert contents[0] == contents[1]


def test_pylhe_reads_what_is_written(rich, rich_info, tmp_path) -> None:
    pylhe = pytest.importorskip("pylhe")
    path = tmp_path / "events.lhe"
    write_events(path, rich, rich_info)
    found = list(pylhe.LHEFile.fromfile(path).events)
    assert len(found) == len(rich)
    for index, event in enumerate(found):
        count = int((rich.status[index] != 0).sum())
        assert [item.px for item in event.particles] == rich.momenta[index, :count, 1].tolist()
        assert event.weights == dict(zip(NAMED, rich.named_weights[index].tolist(), strict=True))
        assert event.scales.get("mur", 0.0) == rich.mu_r[index]
        known = {f"pt_clust_{i + 1}": value for i, value in enumerate(rich.pt_clust[index].tolist()) if value}
        assert {name: value for name, value in event.scales.items() if name.startswith("pt")} == known


def outcome(path: Path, chunk: int) -> tuple[list[EventBatch], str]:
    found: list[EventBatch] = []
    try:
        found.extend(EventFile.open(path).batches(chunk))
    except NisamplerError as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


@pytest.fixture
def agree(in_bulk, same, tmp_path) -> Callable[[bytes], str]:
    """Read a text in bulk and by pylhe: the same events, the same error; that error, if there is one."""
    path = tmp_path / "events.lhe"

    def compare(content: bytes) -> str:
        path.write_bytes(content)
        found = []
        for bulk in (True, False):
            in_bulk(bulk)
            found.append(outcome(path, 5))
        (bulk_batches, bulk_error), (batches, error) = found
        assert bulk_error == error
        left, right = EventBatch.concatenate(bulk_batches), EventBatch.concatenate(batches)
        # Of the batch with the damage, more events that precede it are read.
        assert len(left) >= len(right) and (error or len(left) == len(right))
        same(left.select(slice(0, len(right))).padded(6), right.padded(6)) if len(right) else None
        return error

    return compare


def test_altered_files_are_read_alike(rich, rich_info, agree, tmp_path) -> None:
    path = tmp_path / "whole.lhe"
    write_events(path, rich, rich_info)
    content = path.read_bytes()
    begin = content.find(b"</init>")
    rng = np.random.default_rng(11)
    letters = b"0129 \n\t.-+eE<>/&#'\"=x\xe9\r\0_"
    errors = []
    for _ in range(120):
        changed = bytearray(content)
        for _ in range(int(rng.integers(1, 3))):
            place = int(rng.integers(begin, len(changed)))
            letter = letters[int(rng.integers(len(letters)))]
            kind = rng.integers(3)
            changed[place : place + (kind != 1)] = b"" if kind == 0 else bytes([letter])
        errors.append(agree(bytes(changed)))
    assert 30 < sum(map(bool, errors)) < 110
    assert len(set(errors)) > 20


PIECES = {
    "spaces": (b"\n-11 -1 ", b"\n \t-11   -1\t"),
    "an attribute": (b"<event>", b"<event trials='3'>"),
    "a comment of XML": (b"</event>", b"</event><!-- <event> -->"),
    "a comment": (b"</event>", b"# made by me\n</event>"),
    "an early comment": (b"\n-11 -1", b"\n# 1 2 3\n-11 -1"),
    "two densities": (b"\n#pdf", b"\n#pdf 1 2 3 4 5 6 7.00000000000000000000001\n#pdf"),
    "no density": (b"\n#pdf", b"\n#pdfs"),
    "other quotes": (b"'", b'"'),
    "another order": (b"muf='91.1876' mur=", b"mur='1.0' muf="),
    "mups": (b"<scales ", b"<scales mups='91.2' "),
    "a scale of nothing": (b"<scales ", b"<scales pt_clust_9='91.2' "),
    "another element": (b"<scales ", b"<mgrwt>\n1 2 3\n</mgrwt>\n<scales "),
    "scales with an end": (b"'/>", b"'></scales>"),
    "windows": (b"\n", b"\r\n"),
    "another weight": (b"</rwgt>", b"<wgt id='4'>5.0</wgt></rwgt>"),
    "a weight less": (b'<wgt id="3">', b'<wgt id="5">'),
    "spaces about weights": (b"</wgt>", b" </wgt>"),
    "Fortran": (b" 9.0\n", b" 9.0d0\n"),
    "a fraction": (b"501 ", b"501.5 "),
    "a large code": (b"501 ", b"50100000 "),
    "many digits": (b" 9.0\n", b" 8.99999999999999999999999999\n"),
    "nothing behind": (b"</LesHouchesEvents>", b""),
    "something behind": (b"</LesHouchesEvents>", b"</LesHouchesEvents>x"),
    "another element at the end": (b"</LesHouchesEvents>", b"<run>5</run></LesHouchesEvents>"),
    "a particle more": (b"\n-11 -1", b"\n-11 -1 0 0 0 0 0 0 1 1 0 0 9\n-11 -1"),
    "an empty line": (b"\n-11 -1", b"\n\n-11 -1"),
    "Latin-1": (b"</event>", b"#caf\xe9\n</event>"),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("last", (False, True))
def test_other_ways_to_write_are_read_alike(name, last, rich, rich_info, agree, tmp_path) -> None:
    path = tmp_path / "whole.lhe"
    write_events(path, rich, rich_info)
    content, (old, new) = path.read_bytes(), PIECES[name]
    assert old in content
    head, _, rest = content.rpartition(old) if last else (b"", b"", content.replace(old, new))
    agree(head + new + rest if last else rest)


def test_what_is_common_is_read_in_bulk(rich, rich_info, in_bulk, tmp_path, monkeypatch) -> None:
    path = tmp_path / "events.lhe"
    write_events(path, rich, rich_info)
    in_bulk(True)
    monkeypatch.setattr(lhe_module, "records_of", lambda document, *_: document.events)
    monkeypatch.setattr(lhe_module, "batch_of", None)
    assert [len(batch) for batch in EventFile.open(path).batches(8)] == [8, 8, 3]


def test_long_and_short_events_share_no_large_batch(events, info, in_bulk, tmp_path, monkeypatch) -> None:
    path = tmp_path / "events.lhe"
    write_events(path, events(20), info)
    in_bulk(True)
    monkeypatch.setattr(lhe_module, "SLOTS_READ", 30)
    assert [len(batch) for batch in EventFile.open(path).batches()] == [6, 6, 6, 2]
    monkeypatch.setattr(lhe_module, "BYTES_READ", 10)
    monkeypatch.setattr("nisampler.events.lhe_dialects._TAKEN", 10)
    assert sum(len(batch) for batch in EventFile.open(path).batches()) == 20


def broken() -> Iterator[None]:
    raise OSError("a library is missing")


def test_a_numba_that_does_not_work_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(FastPathWarning, match=r"files are slow, because numba does not work here \(OSError: a library"):
        assert tried(broken, "files are slow") is None
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tried(broken, "files are slow") is None


def test_little_is_written_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.events.text.templates.at_work", lambda: False)
    monkeypatch.setattr("nisampler.events.text.templates._WORTH_COMPILING", 10)
    calls = []
    monkeypatch.setattr("nisampler.events.text.templates.filler", lambda: calls.append(1))
    renderer, template = Renderer(), [Template(("", ";"), ((0, REAL),))]
    for expected in (0, 0, 1):
        assert b"".join(renderer.blocks(np.ones((4, 1)), np.zeros(4, int), template)) == b"1.0;" * 4
        assert len(calls) == expected
