"""The report of a run: headline numbers, figures and tables on one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.run.report.summary import efficiency_rows, integral_text
from nisampler.ui import plots
from nisampler.ui.distributions import Comparison
from nisampler.ui.page import Card, Page, Picture, Table
from nisampler.ui.sketch import UnknownNotationError

_Draw = Callable[[plots.Sheet | None], Any]


@dataclass(frozen=True)
class RunReport:
    """All that a report shows.

    Attributes
    ----------
    result
        The content of ``result.json``.
    history
        Training records as dictionaries.
    batches
        (value, error) of each independent batch of the integral.
    weight_edges, weight_counts
        Histogram of |w| over its mean: (b + 1,) edges and (b,) counts.
    w_max
        Maximum weight used in unweighting over the mean weight, None without events.
    comparisons
        Weighted against unweighted distributions.
    style
        Of the figures, from `plots.style_sheet`; None draws them without matplotlib.

    Examples
    --------
    >>> edges, counts = np.array([0.5, 1.0, 2.0]), np.array([30.0, 70.0])
    >>> data = RunReport({"process": "camel4"}, [], [(0.9, 0.1)], edges, counts, w_max=None, comparisons=())
    >>> data.batches, data.w_max is None
    ([(0.9, 0.1)], True)
    """

    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    batches: Sequence[tuple[float, float]]
    weight_edges: NDArray[np.float64]
    weight_counts: NDArray[np.float64]
    w_max: float | None
    comparisons: Sequence[Comparison]
    style: plots.Sheet | None = None


def render(data: RunReport) -> str:
    """The page as HTML.

    >>> shares = ("efficiency_strict", "efficiency_0p1", "efficiency_1", "ess_fraction", "cut_efficiency")
    >>> result = {
    ...     "process": "camel4", "seed": 1, "device": "cpu", "versions": {"nisampler": "0.1"}, "warnings": [],
    ...     "sampler": {"name": "vegas", "candidates": []}, "calls": {"training": 5000}, "seconds": {"training": 0.1},
    ...     "integral": {"value": 1.0, "error": 0.1, "unit": "", "trusted": True, "chi2_per_dof": 1.0, "n_points": 100},
    ...     "unweighting": dict.fromkeys(shares, 0.5) | {"two_stage": None, "n_events": 0, "overweight_fraction": 0.0},
    ... }
    >>> edges, counts = np.array([0.5, 1.0, 2.0]), np.array([30.0, 70.0])
    >>> page = render(RunReport(result, [], [(0.9, 0.1), (1.1, 0.1)], edges, counts, w_max=None, comparisons=()))
    >>> page.count("<figure id"), "1.00(10)" in page
    (3, True)
    """
    result = data.result
    subtitle = f"seed {result['seed']} · {result['device']} · nisampler {result['versions']['nisampler']}"
    return Page(
        title=str(result["process"]),
        subtitle=f"{subtitle} · sampler: {result['sampler']['name']}",
        cards=_cards(result),
        tables=_tables(result),
        warnings=[str(text) for text in result["warnings"]],
        sections={
            "Figures of the run": _run_pictures(data),
            "Distributions: weighted against unweighted": _distribution_pictures(data),
        },
    ).html()


def _cards(result: Mapping[str, Any]) -> list[Card]:
    integral, numbers = result["integral"], result["unweighting"]
    relative = None
    if integral["error"] is not None and integral["value"]:
        relative = f"{100 * integral['error'] / abs(integral['value']):.2g} % error, "
    agreement = "" if integral["chi2_per_dof"] is None else f", χ²/dof {integral['chi2_per_dof']:.2f}"
    cards = [
        Card("integral", integral_text(result), f"{relative or ''}{integral['n_points']:,} points{agreement}"),
        Card(
            "unweighting efficiency",
            share_text(numbers["efficiency_0p1"]),
            f"with 0.1 % of the integral overweight; {share_text(numbers['efficiency_strict'])} at the largest weight",
        ),
        Card("effective sample size", share_text(numbers["ess_fraction"]), "of the points, after training"),
    ]
    if numbers["n_events"]:
        seconds = result["seconds"].get("generation", 0.0)
        speed = f"{numbers['n_events'] / seconds:,.0f} per second" if seconds else ""
        return [*cards, Card("unweighted events", f"{numbers['n_events']:,}", speed)]
    return [*cards, Card("time", f"{sum(result['seconds'].values()):.0f} s", "all stages")]


def share_text(value: float | None) -> str:
    """A share in percent.

    >>> share_text(0.123), share_text(None)
    ('12.3 %', 'unknown')
    """
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _run_pictures(data: RunReport) -> list[Picture]:
    result = data.result
    integral = result["integral"]
    error = 0.0 if integral["error"] is None else integral["error"]
    agreement = integral["chi2_per_dof"]
    note = "" if agreement is None else f"$\\chi^2$/dof = {agreement:.2f}"
    excess = 100 * float(result["unweighting"]["overweight_fraction"] or 0.0)
    values, errors = [v for v, _ in data.batches], [e for _, e in data.batches]
    over = f" The excess of events above w_max is {excess:.2g} % of the integral." if data.w_max else ""
    figures: dict[str, tuple[str, _Draw]] = {
        "training": (
            "Training, measured on points drawn before the step that learns from them.",
            lambda style: plots.training(data.history, style),
        ),
        "weights": (
            f"Weights f/q of the final integration.{over}",
            lambda style: plots.weights(data.weight_edges, data.weight_counts, data.w_max, style),
        ),
        "batches": (
            "The integral in independent batches of the final integration; the bars are their spread.",
            lambda style: plots.batches(values, errors, (integral["value"], error), integral["unit"], note, style),
        ),
    }
    return [Picture(name, caption, svg_of(draw, data.style)) for name, (caption, draw) in figures.items()]


def svg_of(draw: _Draw, style: plots.Sheet | None) -> bytes:
    """The figure; by matplotlib, too, where a label has mathematics that only it knows.

    >>> svg_of(lambda style: plots.batches([1.0, 1.1], [0.1, 0.1], (1.05, 0.07), "pb", style=style), None)[:4]
    b'<svg'
    """
    try:
        return plots.svg(draw(style), style)
    except UnknownNotationError:
        return plots.svg(draw(plots.PLAIN), plots.PLAIN)


def _distribution_pictures(data: RunReport) -> list[Picture]:
    unit = data.result["integral"]["unit"]
    return [
        Picture(
            f"distribution-{item.axis.name}",
            item.axis.name.replace("_", " "),
            svg_of(partial(plots.comparison, item, unit), data.style),
        )
        for item in data.comparisons
    ]


def _tables(result: Mapping[str, Any]) -> list[Table]:
    limits = result.get("limits", {})
    seconds = {**result["seconds"], "total": sum(result["seconds"].values())}
    candidates = [
        (f"{item['name']}{' (chosen)' if item['chosen'] else ''}", share_text(item["efficiency_0p1"]))
        for item in result["sampler"]["candidates"]
    ]
    return [
        Table("Efficiencies", efficiency_rows(result)),
        Table("Integrand calls", [(name, f"{count:,}") for name, count in result["calls"].items()]),
        *([Table("Limits", [(name, f"{count:,}") for name, count in limits.items()])] if limits else []),
        Table("Seconds", [(name, f"{value:.1f}") for name, value in seconds.items()]),
        Table("Samplers compared, efficiency at 0.1 %", candidates),
        Table("Versions", [(name, str(text)) for name, text in result["versions"].items()]),
    ]
