"""Scales and parton densities of an event: written, read back bit by bit, and absent where nothing is known."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from nisampler.errors import EventFormatError
from nisampler.events import EventBatch, read_events, write_events

SUFFIXES = (".lhe", ".lhe.gz", ".h5")


@pytest.fixture
def hadronic(events):
    """Ten events with scales and densities, the third without."""
    columns = events(10).columns()
    rng = np.random.default_rng(3)
    columns["mu_r"], columns["pdf_x"] = rng.uniform(10, 100, 10), rng.uniform(1e-4, 1, (10, 2))
    columns["pdf_xf"] = rng.uniform(0, 3, (10, 2))
    for name in ("mu_r", "pdf_x", "pdf_xf"):
        columns[name][2] = 0
    return EventBatch(**columns)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(suffix, hadronic, info, same, tmp_path):
    path = tmp_path / f"events{suffix}"
    write_events(path, hadronic, info)
    same(read_events(path), hadronic)


def test_line_is_the_one_that_pythia_reads(hadronic, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, hadronic, info)
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("#pdf")).split()
    assert [int(code) for code in line[1:3]] == hadronic.pdg_ids[0, :2].tolist()
    numbers = [*hadronic.pdf_x[0], hadronic.scales[0], *hadronic.pdf_xf[0]]
    assert [float(number) for number in line[3:]] == numbers
    assert text.count("#pdf") == text.count("<scales") == 9


def test_events_without_them_have_no_such_lines(events, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, events(3), info)
    assert "#pdf" not in path.read_text() and "<scales" not in path.read_text()


def test_malformed_line_is_named(hadronic, info, tmp_path):
    path = tmp_path / "events.lhe"
    write_events(path, hadronic, info)
    for wrong in ("#pdf 1 2\n", "#pdf 1 2 a b c d e\n"):
        lines = [wrong if line.startswith("#pdf") else line for line in path.read_text().splitlines(keepends=True)]
        broken = tmp_path / "broken.lhe"
        broken.write_text("".join(lines))
        with pytest.raises(EventFormatError, match=r"broken\.lhe"):
            read_events(broken)


def test_files_without_the_columns_stay_readable(hadronic, info, same, tmp_path):
    path = tmp_path / "events.h5"
    write_events(path, hadronic, info)
    with h5py.File(path, "r+") as file:
        for name in ("mu_r", "pdf_x", "pdf_xf"):
            del file["events"][name]
    batch = read_events(path)
    assert not batch.mu_r.any() and batch.pdf_x.shape == (10, 2)
    assert np.array_equal(batch.momenta, hadronic.momenta)
