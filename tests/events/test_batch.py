"""EventBatch: shapes, dtypes, selection, and every rule of the event record with an event that breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from nisampler.errors import ConfigError, EventFormatError, ShapeError
from nisampler.events import EventBatch, InitInfo, Observable, PointBatch, ProcessInfo
from nisampler.events.rules import require_valid, violations


def altered(batch, **changes):
    """A copy of the batch in which entries are replaced: column = (index, value)."""
    columns = {name: column.copy() for name, column in batch.columns().items()}
    for name, (index, value) in changes.items():
        columns[name][index] = value
    return EventBatch(**columns)


def test_good_events_pass(events, resonant, info):
    for batch in (events(50), resonant(50)):
        require_valid(batch, 1e-12)
        assert not list(violations(batch, 1e-12, info))
        assert np.abs(batch.momentum_balance()).max() < 1e-12
        assert np.abs(batch.mass_balance()).max() < 1e-10


def test_dtypes_are_fixed(events):
    batch = events(3)
    found = {name: column.dtype.name for name, column in batch.columns().items()}
    assert found["momenta"] == "float64" and found["pdg_ids"] == "int32" and found["status"] == "int8"
    assert found["mothers"] == found["colours"] == "int16" and found["process_ids"] == "int32"
    assert batch.lifetimes.shape == (3, 5) and not batch.lifetimes.any()


def test_concatenate_pads_and_select_picks(events, resonant, same):
    short, long = events(4), resonant(3)
    both = EventBatch.concatenate([short, long])
    assert len(both) == 7 and both.slots == 6
    assert (both.status[:4, 5] == 0).all() and (both.spins[:4, 5] == 9).all()
    require_valid(both)
    same(both.select(slice(4, 7)), long)
    same(both.select(np.arange(7) >= 4), long)
    same(EventBatch.concatenate([]), EventBatch.empty())
    momenta, codes = both.final_state()
    assert momenta.shape == (7, 3, 4) and codes.shape == (7, 3)
    np.testing.assert_array_equal(momenta[:4], short.momenta[:, 2:])
    np.testing.assert_array_equal(codes[4:], long.pdg_ids[:, 3:])


def test_final_state_of_unequal_lengths(events):
    batch = altered(events(2), status=((0, 4), 0))
    momenta, codes = batch.final_state()
    assert momenta.shape == (2, 3, 4)
    assert not momenta[0, 2].any() and codes[0, 2] == 0 and codes[1, 2] == 21


BROKEN = {
    "NaN momentum": ({"momenta": ((2, 3, 1), np.nan)}, "momenta is not finite"),
    "infinite energy": ({"momenta": ((2, 3, 0), np.inf)}, "momenta is not finite"),
    "NaN weight": ({"weights": (2, np.nan)}, "weights is not finite"),
    "NaN coupling": ({"alpha_s": (2, np.nan)}, "alpha_s is not finite"),
    "unknown status": ({"status": ((2, 4), 7)}, "column status"),
    "third incoming": ({"status": ((2, 2), -1)}, "column status"),
    "no final leg": ({"status": ((2, slice(2, 5)), 0)}, "no final leg"),
    "hole": ({"status": ((2, 3), 0)}, "empty slot"),
    "no code": ({"pdg_ids": ((2, 4), 0)}, "code 0"),
    "no mothers": ({"mothers": ((2, 4), 0)}, "need mothers"),
    "mother of itself": ({"mothers": ((2, 4), 5)}, "need mothers"),
    "mother out of range": ({"mothers": ((2, 4), 9)}, "need mothers"),
    "mother of a beam": ({"mothers": ((2, 1), 1)}, "incoming particles have none"),
    "final mother": ({"mothers": ((2, 4), 3)}, "a final leg"),
    "colourless gluon": ({"colours": ((2, 4), 0)}, "column colours"),
    "swapped quark colour": ({"colours": ((2, 2), (0, 501))}, "column colours"),
    "coloured lepton": ({"colours": ((2, 0), (501, 0))}, "column colours"),
    "open line": ({"colours": ((2, 2), (503, 0))}, "colour line"),
    "line used twice": ({"colours": ((2, slice(2, 5)), [[501, 0], [0, 501], [501, 501]])}, "colour line"),
    "momentum lost": ({"momenta": ((2, 4, 1), 1.0)}, "not conserved"),
    "off shell": ({"masses": ((2, 4), 5.0)}, "E² − p² = m²"),
    "beams exchanged": ({"momenta": ((2, slice(0, 2), 3), [-45.5938, 45.5938])}, "particle 1 must run"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_rule_is_enforced(name, events, info):
    change, text = BROKEN[name]
    batch = altered(events(5), **change)
    with pytest.raises(EventFormatError, match=r"^event 3"):
        require_valid(batch)
    assert any(text in str(problem) for problem in violations(batch, 1e-8, info))
    assert all((problem.count, problem.first) == (1, 3) for problem in violations(batch, 1e-8, info))


def test_beams_processes_and_signs_are_compared_with_the_declaration(events, info):
    good = events(3)

    def texts(batch, header):
        return [problem.text for problem in violations(batch, 1e-8, header)]

    positron = InitInfo((11, -11), info.beam_energies, info.processes)
    assert any("is not the beam" in text for text in texts(good, positron))
    hotter = InitInfo(info.beam_ids, (50.0, 50.0), info.processes)
    assert any("is not the beam" in text for text in texts(good, hotter))
    colder = InitInfo(info.beam_ids, (40.0, 40.0), info.processes)
    assert any("more energy than its beam" in text for text in texts(good, colder))
    protons = InitInfo((2212, 2212), (6500.0, 6500.0), info.processes)
    assert texts(good, protons) == []
    other = InitInfo(info.beam_ids, info.beam_energies, (ProcessInfo(1.0, 0.1, process_id=4),))
    assert any("process_ids" in text for text in texts(good, other))
    negative = altered(good, weights=(1, -1.0))
    assert any("IDWTUP" in text for text in texts(negative, info))
    signed = InitInfo(info.beam_ids, info.beam_energies, info.processes, strategy=-3)
    assert texts(negative, signed) == []


def test_decay_products_must_add_up(resonant):
    batch = altered(resonant(3), mothers=((1, 5), (1, 2)))
    with pytest.raises(EventFormatError, match=r"event 2: .*decay products"):
        require_valid(batch)


def test_wrong_columns_are_refused(events):
    columns = events(3).columns()
    for name, value in {
        "momenta": np.zeros((3, 5)),
        "masses": np.zeros((3, 4)),
        "weights": np.zeros(2),
        "pdg_ids": np.full((3, 5), 0.5),
        "colours": np.full((3, 5, 2), 40_000),
        "status": np.full((3, 5), 200),
        "scales": np.zeros(3, dtype=complex),
    }.items():
        with pytest.raises(EventFormatError, match=name):
            EventBatch(**(columns | {name: value}))
    with pytest.raises(EventFormatError, match="5 particles in 4"):
        events(3).padded(4)


def test_init_info_refuses_nonsense():
    process = ProcessInfo(1.0, 0.1)
    for energies, processes, strategy in (
        ((0.0, 1.0), (process,), 3),
        ((np.inf, 1.0), (process,), 3),
        ((1.0, 1.0), (), 3),
        ((1.0, 1.0), (process, process), 3),
        ((1.0, 1.0), (process,), 7),
    ):
        with pytest.raises(EventFormatError):
            InitInfo((11, -11), energies, processes, strategy=strategy)
    with pytest.raises(EventFormatError, match="finite"):
        ProcessInfo(np.nan, 0.1)
    with pytest.raises(EventFormatError, match="negative"):
        ProcessInfo(1.0, -0.1)


def test_points():
    points = PointBatch(np.arange(6).reshape(3, 2), np.ones(3))
    assert len(points) == 3 and points.dim == 2 and points.x.dtype == np.float64
    assert len(PointBatch.concatenate([points, points]).select([0, 5])) == 2
    points.validate()
    with pytest.raises(EventFormatError, match="need x"):
        PointBatch(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(EventFormatError, match="point 2: weights"):
        PointBatch(np.zeros((3, 2)), np.array([1, np.nan, 1])).validate()
    with pytest.raises(EventFormatError, match="one dimension"):
        PointBatch.concatenate([points, PointBatch(np.zeros((3, 1)), np.zeros(3))])


def test_observable_edges():
    energy = Observable("e", "$E$ [GeV]", 1.0, 50.0, 10, lambda b: b.momenta[:, 2, 0], log=True)
    np.testing.assert_allclose(np.diff(np.log(energy.edges())), np.log(50) / 10)
    linear = Observable("e", "E", 0.0, 50.0, 10, energy.function)
    np.testing.assert_allclose(np.diff(linear.edges()), 5.0)


def test_observable_refuses_nonsense(events):
    def zeros(batch):
        return np.zeros(len(batch))

    for low, high, bins, log in ((1, 1, 5, False), (0, 1, 5, True), (0, np.inf, 5, False)):
        with pytest.raises(ConfigError, match=r"thrust|high = inf"):
            Observable("thrust", "T", low, high, bins, zeros, log)
    with pytest.raises(ConfigError, match="bins = 0"):
        Observable("thrust", "T", 0, 1, 0, zeros)
    with pytest.raises(ShapeError, match="wrong"):
        Observable("wrong", "", 0, 1, 5, lambda batch: np.zeros(3))(events(4))
