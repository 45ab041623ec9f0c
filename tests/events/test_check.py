"""check_file: good files pass, and every kind of damage is reported by name."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from nisampler.errors import EventFormatError, StorageError
from nisampler.events import InitInfo, PointBatch, check_file, write_events, write_points

SUFFIXES = (".lhe", ".lhe.gz", ".h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_good_files_pass(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    weights = np.ones(30)
    weights[7] = 1.5
    write_events(path, events(30, weights=weights), info)
    report = check_file(path, tolerance=1e-10)
    assert report.passed and report.problems == ()
    assert report.n_events == report.declared == 30
    assert report.weight_sum == pytest.approx(30.5) and report.weight_square_sum == pytest.approx(31.25)
    assert (report.n_overweight, report.n_negative, report.cross_section) == (1, 0, 1234.5)
    assert report.momentum_violation < 1e-14 and report.mass_shell_violation < 1e-14
    rows = dict(report.rows())
    assert rows["events found"] == "30" and rows["result"] == "good" and rows["overweight events"] == "1"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_signed_weights_are_counted(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    signed = InitInfo(info.beam_ids, info.beam_energies, info.processes, strategy=-3)
    write_events(path, events(10, weights=np.where(np.arange(10) < 3, -1.0, 1.0)), signed)
    report = check_file(path)
    assert report.passed and report.n_negative == 3 and report.n_overweight == 0
    assert report.weight_sum == 4


EDITS = {
    "lost momentum": (r"^(21 1 \d+ \d+ \d+ \d+) \S+", r"\1 3.0", "not conserved"),
    "off shell": (r"^(21 1 (?:\S+ ){8})\S+( \S+ 9\.0)$", r"\g<1>5.0\2", "E² − p² = m²"),
    "NaN": (r"^5 1 \S+", "5 1 nan", "weights is not finite"),
    "no mothers": (r"21 1 1 2", "21 1 0 0", "column mothers"),
    "wrong colour": (r"21 1 1 2 502 501", "21 1 1 2 502 509", "colour line"),
    "no colour": (r"21 1 1 2 502 501", "21 1 1 2 0 0", "column colours"),
    "wrong beam": (r"-11 -1", "-13 -1", "is not the beam"),
    "wrong process": (r"^5 1 ", "5 8 ", "process_ids"),
    "negative weight": (r"^5 1 1", "5 1 -1", "IDWTUP"),
    "beam energy": (r"-11 11 4\.55938", "-11 11 4.0", "more energy than its beam"),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz"))
def test_edited_lhe_is_reported(name, suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, events(12), info)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if suffix.endswith("gz") else raw).decode()
    pattern, new, expected = EDITS[name]
    edited = re.sub(pattern, new, text, count=1, flags=re.MULTILINE)
    assert edited != text
    path.write_bytes(gzip.compress(edited.encode()) if suffix.endswith("gz") else edited.encode())
    report = check_file(path)
    assert not report.passed and report.n_events == 12
    assert any(expected in line for line in report.problems), report.problems
    assert dict(report.rows())["result"] == f"{len(report.problems)} problems"


def test_edited_hdf5_is_reported(events, info, tmp_path):
    path = tmp_path / "events.h5"
    for name, index, value, expected in (
        ("momenta", (4, 3, 1), 20.0, "not conserved"),
        ("momenta", (4, 3, 1), np.nan, "not finite"),
        ("colours", (4, 3, 1), 77, "colour line"),
        ("mothers", (4, 3, 1), 9, "column mothers"),
        ("pdg_ids", (4, 0), 13, "is not the beam"),
    ):
        write_events(path, events(12), info)
        with h5py.File(path, "r+") as file:
            file["events"][name][index] = value
        report = check_file(path)
        assert not report.passed and report.n_events == 12
        assert any("event 5" in line and expected in line for line in report.problems), report.problems


def test_problems_of_many_events_are_one_line(events, info, tmp_path, monkeypatch):
    monkeypatch.setattr("nisampler.events.check.DEFAULT_CHUNK", 5)
    path = tmp_path / "events.lhe"
    write_events(path, events(12), info)
    path.write_text(path.read_text().replace("21 1 1 2", "21 1 0 0"))
    problems = check_file(path).problems
    assert len(problems) == 1 and problems[0].startswith("event 1 (and 11 more): column mothers")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncation_is_a_problem(suffix, events, info, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, events(300), info)
    path.write_bytes(path.read_bytes()[:-3000])
    report = check_file(path)
    assert not report.passed and "truncated" in report.problems[-1] and report.n_events < 300


def test_an_event_removed_is_a_problem(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(5), info)
    head, *rest = path.read_text().split("<event>")
    path.write_text("<event>".join([head, *rest[1:]]))
    report = check_file(path)
    assert (report.n_events, report.declared) == (4, 5)
    assert "declares 5 events and holds 4" in report.problems[0]


def test_empty_foreign_and_missing_files(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(0), info)
    assert "holds no events" in check_file(path).problems[0]
    path.write_text("no XML at all")
    assert not check_file(path).passed
    path.write_bytes(b"")
    assert not check_file(path).passed
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["data"] = np.zeros(3)
    assert "need format nisampler-events" in check_file(other).problems[0]
    other.write_bytes(b"no HDF5")
    assert "truncated or altered" in check_file(other).problems[0]
    for name in ("missing.lhe", "missing.h5"):
        with pytest.raises(StorageError):
            check_file(tmp_path / name)
    with pytest.raises(EventFormatError, match="ends in one of"):
        check_file(tmp_path / "events.root")


def test_points_are_checked(tmp_path):
    path = tmp_path / "points.h5"
    write_points(path, PointBatch(np.zeros((4, 2)), np.array([1.0, -1.0, 1.0, 1.0])))
    report = check_file(path)
    assert report.passed and report.kind == "points"
    assert (report.n_events, report.n_negative, report.weight_sum) == (4, 1, 2)
    assert dict(report.rows())["points found"] == "4"
    with h5py.File(path, "r+") as file:
        file["points"]["weights"][2] = np.nan
    assert "point 3: weights is not finite" in check_file(path).problems[0]


RANGES = {
    "momenta": (2, -1e300),
    "masses": (2, 1e300),
    "spins": (2, 1e3),
    "weights": ((), -1e300),
    "scales": ((), -1e300),
    "alpha_em": ((), 1e300),
    "alpha_s": ((), -1e300),
    "lifetimes": (2, -1.0),
    "mu_r": ((), -1e300),
    "pdf_x": (1, -1e300),
    "pdf_xf": (0, 1e300),
    "pt_clust": (2, 1e300),
}


def test_numbers_that_no_event_has_are_reported(events, info, tmp_path):
    path = tmp_path / "events.h5"
    missed = []
    for name, (where, value) in RANGES.items():
        write_events(path, replace(events(12), pt_clust=np.ones((12, 5))), info)
        with h5py.File(path, "r+") as file:
            index = (4, where) if where != () else (4,)
            file["events"][name][index] = value
        if not any(f"event 5: column {name} must lie in" in line for line in check_file(path).problems):
            missed.append(name)
    assert not missed
    with pytest.raises(EventFormatError, match="pdf_x must lie in"):
        write_events(path, replace(events(2), pdf_x=np.full((2, 2), 1.5)), info)


def test_points_outside_their_domain_are_reported(tmp_path):
    path, domain = tmp_path / "points.h5", [[0.0, 2.0], [-1.0, 1.0]]
    x = np.tile([2.0, -1.0], (20, 1))
    write_points(path, PointBatch(x, np.ones(20)), domain=domain)
    assert check_file(path).passed
    with h5py.File(path, "r+") as file:
        file["points"]["x"][3, 0] = -1e300
        file["points"]["x"][7, 1] = 1.5
    assert check_file(path).problems == ("point 4 (and 1 more): x lies outside the domain of the file",)
    with h5py.File(path, "r+") as file:
        file.attrs["domain"] = np.zeros((3, 2))
    assert "the points have dimension 2" in check_file(path).problems[0]
    write_points(path, PointBatch(x, np.ones(20)))
    assert check_file(path).passed
