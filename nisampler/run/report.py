"""The report of a run: headline numbers, figures and tables on one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.run.result import efficiency_rows, integral_text
from nisampler.ui import page as report_page
from nisampler.ui import plots
from nisampler.ui.distributions import Comparison


@dataclass(frozen=True)
class ReportData:
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
        Of the figures, from `plots.style_sheet`.
    """

    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    batches: Sequence[tuple[float, float]]
    weight_edges: NDArray[np.float64]
    weight_counts: NDArray[np.float64]
    w_max: float | None
    comparisons: Sequence[Comparison]
    style: plots.Sheet = field(default_factory=lambda: plots.PLAIN)


def render(data: ReportData) -> str:
    """The page as HTML."""
    result = data.result
    subtitle = f"seed {result['seed']} · {result['device']} · nisampler {result['versions']['nisampler']}"
    return report_page.page(
        title=str(result["process"]),
        subtitle=f"{subtitle} · sampler: {result['sampler']['name']}",
        cards=_cards(result),
        warning_box=report_page.warnings([str(text) for text in result["warnings"]]),
        run_plots=_run_plots(data),
        distributions=_distribution_plots(data),
        tables=_tables(result),
    )


def _cards(result: Mapping[str, Any]) -> list[str]:
    integral, numbers = result["integral"], result["unweighting"]
    relative = None
    if integral["error"] is not None and integral["value"]:
        relative = f"{100 * integral['error'] / abs(integral['value']):.2g} % error, "
    agreement = "" if integral["chi2_per_dof"] is None else f", χ²/dof {integral['chi2_per_dof']:.2f}"
    cards = [
        report_page.card(
            "integral", integral_text(result), f"{relative or ''}{integral['n_points']:,} points{agreement}"
        ),
        report_page.card(
            "unweighting efficiency",
            _share(numbers["efficiency_0p1"]),
            f"with 0.1 % of the integral overweight; {_share(numbers['efficiency_strict'])} at the largest weight",
        ),
        report_page.card("effective sample size", _share(numbers["ess_fraction"]), "of the points, after training"),
    ]
    if numbers["n_events"]:
        seconds = result["seconds"].get("generation", 0.0)
        speed = f"{numbers['n_events'] / seconds:,.0f} per second" if seconds else ""
        cards.append(report_page.card("unweighted events", f"{numbers['n_events']:,}", speed))
    else:
        total = sum(result["seconds"].values())
        cards.append(report_page.card("time", f"{total:.0f} s", "all stages"))
    return cards


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _run_plots(data: ReportData) -> list[str]:
    result = data.result
    integral = result["integral"]
    error = 0.0 if integral["error"] is None else integral["error"]
    agreement = integral["chi2_per_dof"]
    note = "" if agreement is None else f"$\\chi^2$/dof = {agreement:.2f}"
    excess = 100 * float(result["unweighting"]["overweight_fraction"] or 0.0)
    values, errors = [v for v, _ in data.batches], [e for _, e in data.batches]
    figures = [
        (
            "training",
            plots.training(data.history, data.style),
            "Training, measured on points drawn before the step that learns from them.",
        ),
        (
            "weights",
            plots.weights(data.weight_edges, data.weight_counts, data.w_max, data.style),
            "Weights f/q of the final integration."
            + (f" The excess of events above w_max is {excess:.2g} % of the integral." if data.w_max else ""),
        ),
        (
            "batches",
            plots.batches(values, errors, (integral["value"], error), integral["unit"], note, data.style),
            "The integral in independent batches of the final integration; the bars are their spread.",
        ),
    ]
    return [report_page.plot(plots.data_uri(figure, data.style), name, caption) for name, figure, caption in figures]


def _distribution_plots(data: ReportData) -> list[str]:
    made = []
    for item in data.comparisons:
        figure = plots.comparison(item, data.result["integral"]["unit"], data.style)
        uri = plots.data_uri(figure, data.style)
        made.append(report_page.plot(uri, f"distribution-{item.axis.name}", item.axis.name.replace("_", " ")))
    return made


def _tables(result: Mapping[str, Any]) -> list[str]:
    calls = [(name, f"{count:,}") for name, count in result["calls"].items()]
    seconds = [(name, f"{value:.1f}") for name, value in result["seconds"].items()]
    seconds.append(("total", f"{sum(result['seconds'].values()):.1f}"))
    candidates = [
        (f"{item['name']}{' (chosen)' if item['chosen'] else ''}", _share(item["efficiency_0p1"]))
        for item in result["sampler"]["candidates"]
    ]
    return [
        report_page.table("Efficiencies", efficiency_rows(result)),
        report_page.table("Integrand calls", calls),
        report_page.table("Seconds", seconds),
        report_page.table("Samplers compared, efficiency at 0.1 %", candidates),
        report_page.table("Versions", [(name, str(text)) for name, text in result["versions"].items()]),
    ]
