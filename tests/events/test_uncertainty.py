"""Uncertainties of a cross-section: the rules of LHAPDF on its own figures, envelopes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nisampler.errors import EventFormatError
from nisampler.events import write_events
from nisampler.events.uncertainty import band_of, pdf_uncertainty, uncertainties
from nisampler.events.weights import WeightGroup, WeightInfo

REFERENCE = json.loads((Path(__file__).parent / "data" / "pdf4lhc21_uncertainty.json").read_text())["rows"]


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"x = {row['x']}")
def test_rules_give_the_figures_of_lhapdf(row):
    members = row["members"]
    central, plus, minus = pdf_uncertainty(members, "symmhessian+as")
    assert central == members[0]
    assert (plus, minus) == (pytest.approx(row["plus"], rel=1e-9), pytest.approx(row["minus"], rel=1e-9))
    eigenvectors = pdf_uncertainty(members[:41], "symmhessian")
    assert eigenvectors[1:] == (pytest.approx(row["plus_pdf"], rel=1e-9), pytest.approx(row["minus_pdf"], rel=1e-9))


def test_rules_on_numbers_done_by_hand():
    assert pdf_uncertainty([10, 13, 14, 6, 7], "hessian") == (10, 4, 4)
    assert pdf_uncertainty([10, 13, 9, 6, 12], "hessian") == (10, pytest.approx(13**0.5), pytest.approx(17**0.5))
    assert pdf_uncertainty([99, 1, 2, 3], "replicas") == (2, 1, 1)
    # Both couplings on one side: nothing is added on the other one.
    assert pdf_uncertainty([10, 13, 14, 11], "symmhessian+as") == (10, 5, 3)
    wide = pdf_uncertainty([10, 13, 9], "hessian", confidence=90.0)
    assert wide[1] == pytest.approx(3 / 1.6448536269514722, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ([1, 2], "replicas"),
        ([1, 2, 3, 4], "hessian"),
        ([1], "symmhessian"),
        ([1, 2, 3], "symmhessian+as"),
        ([1, 2], "x"),
    ],
)
def test_rules_without_enough_members_are_refused(values, rule):
    with pytest.raises(EventFormatError, match=r"too few|no rule"):
        pdf_uncertainty(values, rule)


def group(rule, numbers, total, *more):
    weights = [WeightInfo(f"w{number}", attributes=(("MEMBER", f"{number}/{total}"), *more)) for number in numbers]
    return WeightGroup("a set", rule, tuple(weights))


def test_members_are_taken_by_their_number():
    band = band_of(group("symmhessian", [2, 0, 1], 3), np.array([6.0, 10.0, 13.0]), 10.0)
    assert (band.central, band.plus, band.minus) == (10, 5, 5)
    weights = tuple(WeightInfo(number, attributes=(("PDF", number),)) for number in ("7", "5", "6"))
    numbered = WeightGroup("set", "hessian", weights)
    assert band_of(numbered, np.array([6.0, 10.0, 13.0]), 10.0).plus == 3
    for wrong in (group("symmhessian", [0, 1], 3), group("symmhessian+as", [1, 2, 3, 4], 5)):
        with pytest.raises(EventFormatError, match=r"a set: the rule symmhessian.* needs"):
            band_of(wrong, np.ones(len(wrong.weights)), 1.0)
    wide = group("hessian", [0, 1, 2], 3, ("CONFIDENCE", "90"))
    assert band_of(wide, np.array([10.0, 13.0, 6.0]), 10.0).plus == pytest.approx(3 / 1.6448536269514722, rel=1e-6)
    some = band_of(group("replicas", [0, 3, 7], 101), np.array([5.0, 1.0, 3.0]), 5.0)
    assert (some.central, some.plus) == (2, pytest.approx(2**0.5))


def test_a_file_tells_its_uncertainties(events, info, tmp_path):
    """Weights of the events are 1 and 3, so that sums and not means of ratios count."""
    weights = np.tile([1.0, 3.0], 10)
    scales = WeightGroup("Central scale variation", "envelope", (WeightInfo("up"), WeightInfo("down")))
    alone = WeightGroup("", "", (WeightInfo("mine"),))
    groups = (scales, group("symmhessian", [0, 1, 2], 3), alone)
    factors = np.array([1.1, 0.8, 1.0, 1.03, 0.96, 2.0])
    named = weights[:, None] * np.where(weights[:, None] == 1, 1.0, factors)
    path = tmp_path / "events.h5"
    write_events(path, replace(events(20, weights=weights), named_weights=named), replace(info, weight_groups=groups))
    found = uncertainties(path)
    shifts = info.cross_section * 0.75 * (factors - 1)
    assert found.values["up"] == pytest.approx(info.cross_section + shifts[0])
    scale, members, mine = found.bands
    assert (scale.plus, scale.minus) == (pytest.approx(shifts[0]), pytest.approx(-shifts[1]))
    assert members.plus == pytest.approx(np.hypot(shifts[3], shifts[4]))
    assert mine.text(found.cross_section) == "no rule"
    rows = dict(found.rows())
    assert rows["Central scale variation (envelope, 2)"] == "+7.5 % -15 %"
    assert rows["a set (symmhessian, 3)"] == "+3.75 % -3.75 %"


def test_files_without_named_weights_say_how_to_make_them(events, info, tmp_path):
    path = tmp_path / "events.h5"
    write_events(path, events(3), info)
    with pytest.raises(EventFormatError, match="nisampler reweight"):
        uncertainties(path)
    weights = np.array([1.0, -1.0])
    one = (WeightGroup("", "", (WeightInfo("a"),)),)
    batch = replace(events(2, weights=weights), named_weights=np.ones((2, 1)))
    write_events(path, batch, replace(info, strategy=-3, weight_groups=one))
    with pytest.raises(EventFormatError, match="add up to zero"):
        uncertainties(path)
