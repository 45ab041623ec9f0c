"""Figures without matplotlib: ticks, texts and places, beside matplotlib where both draw the same."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nisampler.run.report.page import RunReport, render
from nisampler.ui import plots
from nisampler.ui.distributions import Comparison
from nisampler.ui.histograms import Axis, Histogram
from nisampler.ui.sketch import Panel, Scale, Sketch, UnknownNotationError
from nisampler.ui.sketch.notation import pieces, spans, width
from nisampler.ui.sketch.panel import Box
from nisampler.ui.sketch.ticks import labels, linear_ticks, log_ticks

LABELS = (
    "thrust axis $|\\cos\\theta|$",
    "leading-jet $2 E / \\sqrt{s}$",
    "$|w|\\,/\\,\\langle |w| \\rangle$",
    "$w_{\\max}$ = 2.4 × mean",
    "$\\Delta R$ of the leading jets",
    "$y_{23}$ (Durham)",
    "$m_{\\mathrm{jj}}^2$",
    "mass of $t\\bar t$ [GeV]",
    "$E_T^{\\hat{\\phi}}$",
)
numbers = st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9)


def comparison(label: str = "$x$ [GeV]", log: bool = False, seed: int = 3) -> Comparison:
    rng = np.random.default_rng(seed)
    axis = Axis("x", label, np.geomspace(0.1, 10.0, 11) if log else np.linspace(0.0, 1.0, 11), log)
    weighted, unweighted = Histogram(axis), Histogram(axis)
    for histogram in (weighted, unweighted):
        histogram.fill(rng.exponential(0.1, 4000) + axis.edges[0])
    return Comparison.of(weighted, unweighted, 5.0)


@given(numbers, numbers, st.integers(3, 12), st.booleans())
def test_linear_ticks_are_round_even_and_inside(a: float, b: float, most: int, whole: bool) -> None:
    low, high = sorted((a, b))
    assume(high - low > 1e-6 * max(abs(low), abs(high)))
    found = linear_ticks(low, high, most, whole)
    room = 1e-6 * (high - low)
    assert len(found) <= most + 1 and all(low - room <= place <= high + room for place in found)
    if len(found) > 2:
        steps = np.diff(found)
        assert steps.min() > 0 and np.ptp(steps) < 1e-6 * (high - low)
        # As many as fit: twice as many steps of the next size would be too many.
        assert (high - low) / steps[0] > most / 5 - 1 or whole
    assert not whole or all(place == round(place) for place in found)
    assert len(set(labels(found)[0])) == len(found)


@given(st.floats(-30, 30), st.floats(0.5, 40), st.integers(4, 12))
def test_log_ticks_are_inside_and_differ(begin: float, decades: float, most: int) -> None:
    low, high = 10.0**begin, 10.0 ** (begin + decades)
    places, texts = log_ticks(low, high, most)
    assert len(places) == len(texts) == len(set(texts)) >= 2
    assert all(low * 0.999 <= place <= high * 1.001 for place in places)
    assert len(places) <= most + 1 or high / low < 500


def test_numbers_as_people_write_them() -> None:
    assert labels(linear_ticks(0, 1.2)) == (["0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2"], "")
    assert labels([0.0, 20_000.0, 1e6], "thousands")[0] == ["0", "20k", "1M"]
    assert labels([-1.5, 0.0])[0] == ["−1.5", "0.0"] and labels([]) == ([], "")
    assert labels([0.0, 1e7, 2.5e7]) == (["0.0", "1.0", "2.5"], "$×10^{7}$")
    assert linear_ticks(1.0, 1.0) == [1.0] and linear_ticks(float("nan"), 1.0) == []


@pytest.mark.parametrize("text", LABELS)
def test_labels_of_processes_are_known(text: str) -> None:
    assert not re.search(r"[\\{}_^]", "".join(part.text for part in pieces(text)))
    assert 0 < width(text, 14.0) < 400


@pytest.mark.parametrize(
    "text", (r"$\frac{a}{b}$", "$x", "$x_$", "$x_{1$", "$1}$", r"$\bar{tt}$", r"$\bar$", "$x_{y_z}$", r"$\mathrm{a_b}$")
)
def test_what_is_not_known_is_said(text: str) -> None:
    with pytest.raises(UnknownNotationError):
        spans(text, 14.0)


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20))
def test_any_text_is_well_formed_or_refused(text: str) -> None:
    try:
        found = spans(text, 14.0)
    except UnknownNotationError:
        assert "$" in text
    else:
        read = "".join(ElementTree.fromstring(f"<text>{found}</text>").itertext())
        assert "$" in text or read == text


def test_numbers_are_where_they_belong() -> None:
    panel = Panel(Box(100.0, 50.0, 400.0, 200.0), Scale())
    panel.errorbar([1.0, 100.0, np.nan], [2.0, 0.0, 1.0], yerr=[0.5, 0.0, 0.1], color="red", label="a < b")
    panel.set_xscale("log")
    panel.set_xlim(1.0, 100.0)
    panel.set_ylim(0.0, 4.0)
    panel.legend(loc="upper right")
    text = "".join(panel.svg("clip"))
    assert '<circle cx="100.00" cy="150.00"' in text and '<circle cx="500.00" cy="250.00"' in text
    assert "M100.00 175.00V125.00" in text and "nan" not in text and "a &lt; b" in text
    ElementTree.fromstring(f"<svg>{text}</svg>")


def test_steps_fill_down_to_the_lower_end_of_a_logarithmic_axis_and_leave_gaps() -> None:
    panel = Panel(Box(0.0, 0.0, 300.0, 100.0), Scale())
    panel.set_yscale("log")
    panel.set_ylim(1.0, 100.0)
    panel.set_xlim(0.0, 3.0)
    panel.stairs([10.0, np.nan, 0.0], [0.0, 1.0, 2.0, 3.0], fill=True, color="blue")
    way = re.search(r'<path d="([^"]*)" fill="blue"', "".join(panel.svg("clip")))
    assert way is not None and way[1].count("M") == way[1].count("Z") == 2
    assert way[1].startswith("M0.00 300.00V50.00H100.00V300.00"), way[1]


@pytest.mark.parametrize("log", (False, True))
def test_both_draw_over_the_same_axes(log: bool) -> None:
    item = comparison(log=log)
    here, there = (plots.comparison(item, "pb", style) for style in (None, plots.PLAIN))
    assert isinstance(here, Sketch)
    for panel, axis in zip(here.panels, there.axes, strict=True):
        assert panel.get_ylim() == pytest.approx(axis.get_ylim())
        assert panel.xaxis.ends() == pytest.approx(axis.get_xlim())
        assert (panel.xaxis.log, panel.yaxis.log) == (axis.get_xscale() == "log", axis.get_yscale() == "log")
        place = axis.get_position()
        assert panel.box.left == pytest.approx(here.width * place.x0)
        assert panel.box.bottom == pytest.approx(here.height * (1 - place.y0))
        assert panel.box.height == pytest.approx(here.height * place.height)


def record(calls: int, loss: float | None, stage: str = "flow") -> dict[str, object]:
    rate = 0.0 if loss is None else 1e-3
    figures = {"ess_fraction": 0.5, "efficiency_0p1": None}
    return {"stage": stage, "calls": calls, "loss": loss, "learning_rate": rate, **figures}


HISTORIES = (
    [],
    [record(1000, 0.5)],
    [record(1000, None, "vegas"), record(2000, None, "vegas")],
    [record(1000, None, "vegas"), record(2000, 1e-3), record(3000, 0.9), record(4000, float("nan"))],
)


@pytest.mark.parametrize("history", HISTORIES)
def test_trainings_of_all_kinds(history: list[dict[str, object]]) -> None:
    figure = plots.training(history, None)
    ElementTree.fromstring(plots.svg(figure, None))
    assert plots.svg(figure, None) == plots.svg(plots.training(history, None), None)
    assert len(figure.panels) == len(plots.training(history).axes)  # type: ignore[attr-defined]


def test_integrals_of_all_kinds() -> None:
    empty = plots.weights(np.array([1.0, 2.0]), np.array([0.0]), None, None)
    full = plots.weights(np.geomspace(1e-9, 1e3, 400), np.arange(399.0), 4.0, None)
    means = [
        ([1.0], [float("inf")], (1.0, 0.0)),
        ([1e-9, 1.1e-9], [1e-10] * 2, (1e-9, 1e-10)),
        ([0.0], [0.0], (0.0, 0.0)),
    ]
    for figure in (empty, full, *(plots.batches(*item, "pb", "$\\chi^2$/dof = 1", None) for item in means)):
        ElementTree.fromstring(plots.svg(figure, None))


def page(label: str) -> str:
    shares = ("efficiency_strict", "efficiency_0p1", "efficiency_1", "ess_fraction", "cut_efficiency")
    result = {
        "process": "camel4",
        "seed": 1,
        "device": "cpu",
        "versions": {"nisampler": "0.1"},
        "warnings": [],
        "sampler": {"name": "vegas", "candidates": []},
        "calls": {},
        "seconds": {},
        "integral": {"value": 1.0, "error": 0.1, "unit": "", "trusted": True, "chi2_per_dof": 1.0, "n_points": 9},
        "unweighting": dict.fromkeys(shares, 0.5) | {"two_stage": None, "n_events": 0, "overweight_fraction": 0.0},
    }
    edges, counts = np.array([0.5, 1.0, 2.0]), np.array([30.0, 70.0])
    return render(RunReport(result, [], [(0.9, 0.1), (1.1, 0.1)], edges, counts, None, [comparison(label)]))


def test_matplotlib_draws_what_only_it_can_write() -> None:
    known, unknown = (page(label) for label in ("$x$", r"$\frac{x}{2}$"))
    assert len(unknown) > len(known) + 10_000
    assert known == page("$x$")


def test_a_run_needs_no_matplotlib() -> None:
    code = "import sys, nisampler.run.pipeline; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
