"""The report: every figure is there, nothing is loaded from elsewhere, text is escaped, numbers are right."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.events import EventBatch, Observable
from nisampler.run.directory import RunDirectory
from nisampler.run.pipeline import execute, start
from nisampler.run.report.drawing import redraw
from nisampler.run.report.summary import summary
from nisampler.ui import plots
from nisampler.ui.distributions import Comparison, coordinate_axes, fill_events, observable_axes
from nisampler.ui.histograms import Axis, Histogram
from nisampler.ui.page import Card, Page, Picture, Table

RUN_FIGURES = ["training", "weights", "batches"]
OBSERVABLES = ["thrust", "y23", "x1", "x_gluon", "cos_theta_jet", "cos_theta_thrust"]


class Parsed(HTMLParser):
    """Figures, loaded addresses and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "figure":
            self.figures.append(values["id"] or "")
        self.scripts += tag in ("script", "link", "iframe")
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(path: Path) -> Parsed:
    page = Parsed(path.read_text())
    assert page.open == []
    assert page.scripts == 0
    assert len(page.sources) == len(page.figures)
    for source in page.sources:
        head, _, body = source.partition(",")
        assert head == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(body)).tag.endswith("svg")
    return page


def test_report_of_events_has_every_figure(events_run: Path) -> None:
    page = parse(events_run / "report.html")
    assert page.figures == RUN_FIGURES + [f"distribution-{name}" for name in OBSERVABLES]
    text = (events_run / "report.html").read_text()
    for word in (
        "ee_to_3jets",
        "Efficiencies",
        "Integrand calls",
        "Seconds",
        "Versions",
        "torch",
        "χ²/dof",
        "viewport",
    ):
        assert word in text
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)


def test_report_of_points_has_coordinates(points_run: Path) -> None:
    page = parse(points_run / "report.html")
    assert page.figures == [*RUN_FIGURES, "distribution-x1", "distribution-x2"]


def test_report_shows_the_result(points_run: Path) -> None:
    result = json.loads((points_run / "result.json").read_text())
    text = (points_run / "report.html").read_text()
    assert f"{result['integral']['n_points']:,} points" in text
    assert f"{100 * result['unweighting']['efficiency_0p1']:.1f} %" in text


def redrawn(run: Path, style: str | None = None) -> Path:
    directory = RunDirectory.read(run)
    assert redraw(directory, style) == []
    return directory.report


def test_what_a_process_counts_is_shown(points_run: Path, tmp_path: Path) -> None:
    """A process that counts nothing says nothing; one that does has a row in the summary and a table in the report."""
    shutil.copytree(points_run, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    result = read_sealed(path)
    assert result["limits"] == {} and "limits" not in dict(summary(result, tmp_path))
    result["limits"] = {"points": 1234, "scales below 1 GeV": 56, "x below the grid": 0}
    assert dict(summary(result, tmp_path))["limits"] == "56 scales below 1 GeV (of 1,234 points)"
    write_sealed(path, result)
    page = redrawn(tmp_path / "run").read_text()
    assert re.search(r"Limits.*scales below 1 GeV.*56", page, re.DOTALL)


def test_redrawn_report_is_the_same(points_run: Path, tmp_path: Path) -> None:
    shutil.copytree(points_run, tmp_path / "run")
    first = redrawn(tmp_path / "run").read_bytes()
    assert redrawn(tmp_path / "run").read_bytes() == first


def test_text_is_escaped() -> None:
    evil = '<script>alert("x")</script>'
    card, table, picture = Card(evil, evil, evil), Table(evil, [(evil, evil)]), Picture(evil, evil, b"")
    page = Page(evil, evil, [card], [table], [evil], {evil: [picture], "empty": []})
    text = page.html()
    assert "<script>" not in text and "empty" not in text
    assert [piece.html().count("&lt;script&gt;") for piece in (card, table, picture)] == [3, 3, 3]
    assert text.count("&lt;script&gt;") == 3 + 3 + 3 + 5
    assert list(page.pictures) == [picture]
    assert "Warnings" not in Page(evil, evil).html()
    assert 'class="table wide"' in Table("", [("a", "b", "c")]).html()


def histogram(values: np.ndarray, weights: np.ndarray, edges: ArrayLike = (0.0, 0.5, 1.0)) -> Histogram:
    made = Histogram(Axis("x", "x", np.array(edges)))
    made.fill(values, weights)
    return made


def test_densities_and_errors() -> None:
    """Two bins of width 1/2; one of four values lies outside."""
    made = histogram(np.array([0.1, 0.2, 0.7, 2.0]), np.array([1.0, 3.0, 2.0, 2.0]))
    density, error = made.density(10.0)
    assert density.tolist() == [10.0 * 4 / 4 / 0.5, 10.0 * 2 / 4 / 0.5]
    assert error[0] == pytest.approx(10.0 / 4 / 0.5 * np.sqrt(10 - 16 / 4))
    assert error[1] == pytest.approx(10.0 / 4 / 0.5 * np.sqrt(4 - 4 / 4))


def test_comparison_is_normalised_and_can_fail() -> None:
    generator = np.random.default_rng(5)
    edges = np.linspace(0.0, 1.0, 21)
    x = generator.random(200_000)
    weighted = histogram(x, 3.0 * 2.0 * x, edges)
    same = Comparison.of(weighted, histogram(np.sqrt(generator.random(20_000)), np.ones(20_000), edges), 3.0)
    assert (same.unweighted * 0.05).sum() == pytest.approx(3.0)
    chi2, bins = same.chi2()
    assert bins == 20 and stats.chi2(19).ppf(5e-5) < chi2 < stats.chi2(19).isf(5e-5)
    assert (np.abs(same.unweighted / same.weighted - 1) < 5 * same.unweighted_error / same.weighted).all()
    wrong = Comparison.of(weighted, histogram(generator.random(20_000), np.ones(20_000), edges), 3.0)
    assert wrong.chi2()[0] > 1000
    negative = Comparison.of(weighted, histogram(x, -np.ones(len(x)), edges), -3.0)
    assert (negative.unweighted < 0).all()


def test_axes() -> None:
    axes = coordinate_axes(np.array([[0.0, 2.0]] * 9))
    assert len(axes) == 6 and axes[5].name == "x6" and axes[0].edges[-1] == 2.0
    energy = Observable("e", "$E$", 1.0, 100.0, 4, lambda batch: batch.momenta[:, 2, 0], log=True)
    (axis,) = observable_axes([energy])
    assert axis.log and axis.edges[2] == pytest.approx(10.0)
    made = Histogram(axis)
    fill_events((made,), [energy], EventBatch.empty(5))
    assert made.inside.sum() == 0


def test_plots_take_awkward_input() -> None:
    """Empty, negative, one-bin, missing and constant input gives figures without warnings."""
    records = [
        {"stage": "vegas", "calls": 10, "loss": 0.0, "learning_rate": 0.0, "ess_fraction": 0.1, "efficiency_0p1": 0.1},
        {"stage": "flow", "calls": 20, "loss": None, "learning_rate": 1.0, "ess_fraction": None, "efficiency_0p1": 0.2},
        {"stage": "flow", "calls": 30, "loss": -1.0, "learning_rate": 1.0, "ess_fraction": 0.3, "efficiency_0p1": 0.2},
    ]
    edges, counts = np.geomspace(0.1, 10, 11), np.zeros(10)
    one = counts.copy()
    one[5] = 7
    flat = histogram(np.array([0.1, 0.7]), np.array([-1.0, -1.0]))
    empty = histogram(np.zeros(0), np.zeros(0))
    figures = [
        plots.training(records),
        plots.training(records[:1]),
        plots.training([]),
        plots.weights(edges, counts, None),
        plots.weights(edges, one, 3.0),
        plots.batches([1.0], [float("inf")], (1.0, 0.0), "", ""),
        plots.batches([-2.0, -2.0], [0.0, 0.0], (-2.0, 0.1), "pb", "note"),
        plots.comparison(Comparison.of(flat, flat, -1.0), ""),
        plots.comparison(Comparison.of(flat, empty, 1.0), "pb"),
        plots.comparison(Comparison.of(empty, empty, 1.0), "pb"),
    ]
    for figure in figures:
        assert plots.svg(figure).startswith(b"<?xml")


def test_styles_need_mplhep_and_a_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mplhep", None)
    assert plots.style_sheet(None) is plots.PLAIN
    with pytest.raises(MissingExtraError, match=r"the style cms needs mplhep: pip install .*\[plots\]"):
        plots.style_sheet("cms")
    with pytest.raises(ConfigError, match="no style 'opal' for the report; known: atlas, cms, lhcb, alice"):
        plots.style_sheet("opal")


@pytest.mark.parametrize("style", plots.STYLES)
def test_styles_change_the_figures(style: str, points_run: Path, tmp_path: Path) -> None:
    shutil.copytree(points_run, tmp_path / "run")
    plain = parse(redrawn(tmp_path / "run"))
    styled = parse(redrawn(tmp_path / "run", style))
    assert styled.figures == plain.figures
    assert not set(styled.sources) & set(plain.sources)
    sheet = plots.style_sheet(style)
    assert sheet["xtick.direction"] == "in" and sheet["font.size"] == plots.PLAIN["font.size"]


def test_an_error_that_is_not_trusted_is_marked_in_result_and_report(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    settings = '[training]\ncalls = 1000\nsampler = "vegas"\n[integration]\npoints = 500\n[events]\nn = 0\n'
    card.write_text('process = "camel"\nseed = 3\n[parameters]\ndim = 8\n' + settings)
    with start(card, tmp_path / "run", {}) as directory:
        result = execute(directory)
    assert not result["integral"]["trusted"] and " (?)" in dict(summary(result, tmp_path))["integral"]
    assert " (?)" in (tmp_path / "run" / "report.html").read_text()
    assert " (?)" in (tmp_path / "run" / "run.log").read_text()
