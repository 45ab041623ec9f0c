"""The figures of a report, drawn without global state and returned as matplotlib figures."""

from __future__ import annotations

import base64
import importlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from nisampler.errors import ConfigError, MissingExtraError
from nisampler.ui.distributions import Comparison

Floats = NDArray[np.float64]
Sheet = dict[Any, Any]

STYLES = {"atlas": "ATLAS", "cms": "CMS", "lhcb": "LHCb2", "alice": "ALICE"}

BLUE, ORANGE, GREEN, PURPLE = "#1f5fa6", "#d1495b", "#2a8c6e", "#7a4fa3"
INK, GREY, PALE = "#22303c", "#8795a1", "#e6ebef"
_WIDTH, _HEIGHT = 8.0, 5.2
PLAIN: Sheet = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 14,
    "axes.labelsize": 15,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.9,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 13,
    "lines.linewidth": 2.0,
    "mathtext.fontset": "dejavusans",
    "svg.hashsalt": "nisampler",
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "savefig.facecolor": "white",
}
_FRAMED: Sheet = {"axes.spines.top": True, "axes.spines.right": True, "axes.grid": False, "axes.edgecolor": "black"}
_OF_SIZE = ("figure.", "savefig.", "legend.", "lines.", "errorbar.")
_SIZES = ("size", "width", "pad", "margin")


def style_sheet(name: str | None) -> Sheet:
    """Matplotlib settings of an experiment, from mplhep, at the sizes of the report; the package's own for None.

    Raises
    ------
    ConfigError
        If there is no such style.
    MissingExtraError
        If mplhep is not installed.
    """
    if name is None:
        return PLAIN
    if name not in STYLES:
        raise ConfigError(f"no style {name!r} for the report; known: {', '.join(STYLES)}")
    try:
        sheets = importlib.import_module("mplhep").style
    except ImportError as error:
        raise MissingExtraError(f"the style {name} needs mplhep: pip install 'nisampler[plots]'") from error
    sheet: Sheet = getattr(sheets, STYLES[name])
    kept = {key: value for key, value in sheet.items() if not key.startswith(_OF_SIZE) and not key.endswith(_SIZES)}
    return {**PLAIN, **_FRAMED, **kept}


def data_uri(figure: Figure, style: Sheet = PLAIN) -> str:
    """The figure as an SVG data URI; equal figures give equal text."""
    buffer = io.BytesIO()
    with mpl.rc_context(style):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(rows: Sequence[float] = (1.0,), height: float = _HEIGHT, left: float = 0.16) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH, height))
    margins = {"left": left, "right": 0.97, "bottom": 0.68 / height, "top": 1.0 - 0.45 / height, "hspace": 0.07}
    grid: Any = {"height_ratios": list(rows), **margins}
    axes = list(figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0])
    for axis in axes:
        axis.yaxis.set_label_coords(0.025 - left, 0.5)
    return figure, axes


def _decades(axis: Axis, low: float, high: float) -> None:
    """Plain numbers at 1, 2 and 5 where an axis spans few decades, powers of ten where it spans many."""
    if high / low < 500:
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _mark_stages(axes: Sequence[Axes], calls: Floats, stages: Sequence[str]) -> None:
    """A vertical line where a stage of the training begins, with its name where there is room."""
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    places = [0.5 * (calls[i - 1] + calls[i]) if i else calls[0] for i in starts] + [calls[-1]]
    span = float(calls[-1] - calls[0])
    for number, start in enumerate(starts):
        where, room = places[number], places[number + 1] - places[number]
        if start:
            for axis in axes:
                axis.axvline(where, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        if len(starts) == 1 or room > 0.12 * span:
            axes[0].annotate(
                stages[start],
                (where, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                ha="center",
                textcoords="offset points",
                va="bottom",
                fontsize=13,
                color=GREY,
            )


def training(history: Sequence[Mapping[str, Any]], style: Sheet = PLAIN) -> Figure:
    """Loss above, effective sample size and efficiency below, against the integrand calls.

    Parameters
    ----------
    history
        Records with ``stage``, ``calls``, ``loss``, ``learning_rate``, ``ess_fraction`` and ``efficiency_0p1``.
        A stage without a learning rate has no loss.
    style
        From `style_sheet`.
    """

    def column(name: str) -> Floats:
        return np.array([np.nan if r[name] is None else r[name] for r in history], dtype=np.float64)

    with mpl.rc_context(style):
        figure, axes = _figure((1.0, 1.0), 6.2)
        calls = column("calls")
        marker = "o" if len(history) < 40 else ""
        loss = np.where(column("learning_rate") > 0.0, column("loss"), np.nan)
        _curve(axes[0], calls, loss, history, marker)
        axes[0].set_ylabel("loss")
        for name, colour, label in (
            ("ess_fraction", BLUE, "effective sample size"),
            ("efficiency_0p1", ORANGE, "unweighting efficiency at 0.1 %"),
        ):
            values = column(name)
            kept = np.isfinite(values)
            axes[1].plot(calls[kept], values[kept], color=colour, label=label, marker=marker, markersize=4)
        axes[1].set_ylim(0.0, 1.03)
        axes[1].set_ylabel("fraction")
        axes[1].set_xlabel("integrand calls")
        axes[1].legend(loc="lower right")
        axes[1].xaxis.set_major_formatter(EngFormatter(sep=""))
        if history:
            _mark_stages(axes, calls, [str(record["stage"]) for record in history])
    return figure


def _curve(axis: Axes, calls: Floats, loss: Floats, history: Sequence[Mapping[str, Any]], marker: str) -> None:
    """The loss, interrupted where a stage with another loss begins; logarithmic if it spans decades."""
    stages = np.array([str(record["stage"]) for record in history])
    finite = np.isfinite(loss)
    for stage in dict.fromkeys(stages):
        kept = finite & (stages == stage)
        axis.plot(calls[kept], loss[kept], color=PURPLE, marker=marker, markersize=4)
    shown = loss[finite]
    if shown.size and shown.min() > 0 and shown.max() / shown.min() > 30:
        axis.set_yscale("log")


def weights(edges: Floats, counts: Floats, w_max: float | None, style: Sheet = PLAIN) -> Figure:
    """Distribution of |w| over its mean, both axes logarithmic, with the weight of certain acceptance.

    Parameters
    ----------
    edges
        (b + 1,) of |w| / mean, increasing.
    counts
        (b,) points in each bin.
    w_max
        The maximum used in unweighting, over the mean weight; None if nothing was unweighted.
    style
        From `style_sheet`.
    """
    with mpl.rc_context(style):
        figure, (axis,) = _figure()
        low, high = 0.1, 10.0
        edges, counts = _coarser(edges, counts)
        if counts.size:
            density = counts / counts.sum() / np.diff(np.log10(edges))
            floor = 0.5 * float(density[counts > 0].min())
            shown = np.maximum(density, floor)
            axis.stairs(shown, edges, baseline=floor, fill=True, color=BLUE, alpha=0.22)
            axis.stairs(shown, edges, baseline=floor, color=BLUE)
            axis.set_ylim(floor, 3.0 * float(shown.max()))
            low, high = edges[0], edges[-1]
        axis.axvline(1.0, color=GREY, linewidth=1.2, label="mean weight")
        if w_max is not None:
            label = f"$w_{{\\max}}$ = {w_max:.3g} × mean"
            axis.axvline(w_max, color=ORANGE, linestyle=(0, (5, 2)), label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        _decades(axis.xaxis, low, high)
        axis.set_xlabel(r"$|w|\,/\,\langle |w| \rangle$")
        axis.set_ylabel(r"points per decade, normalised")
        axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _coarser(edges: Floats, counts: Floats, most: int = 60) -> tuple[Floats, Floats]:
    """The part of a histogram that is filled, with at most about `most` bins."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return edges[:1], counts[:0]
    first, last = int(filled[0]), int(filled[-1]) + 1
    step = -(-(last - first) // most)
    last = min(len(counts), first + -(-(last - first) // step) * step)
    starts = np.arange(first, last, step)
    return edges[[*starts, last]], np.add.reduceat(counts[:last], starts)


def batches(
    values: Sequence[float],
    errors: Sequence[float],
    total: tuple[float, float],
    unit: str,
    note: str = "",
    style: Sheet = PLAIN,
) -> Figure:
    """The integral of every independent batch, with the combined value and its error as a band.

    Parameters
    ----------
    values, errors
        Of each batch; an infinite or NaN error is not drawn.
    total
        Combined value and error.
    unit
        Of all of them.
    note
        Shown above the plot, such as the chi-square.
    style
        From `style_sheet`.
    """
    with mpl.rc_context(style):
        figure, (axis,) = _figure(left=0.2)
        value, error = total
        bars = np.array([e if np.isfinite(e) else 0.0 for e in errors])
        axis.axhspan(value - error, value + error, color=BLUE, alpha=0.2, linewidth=0, label="total ± error")
        axis.axhline(value, color=BLUE)
        index = np.arange(1, len(values) + 1)
        axis.errorbar(
            index,
            values,
            yerr=bars if bars.any() else None,
            fmt="o",
            color=INK,
            markersize=5,
            elinewidth=1.4,
            capsize=0,
            label="batch",
        )
        axis.set_xlabel("batch")
        axis.set_ylabel(f"integral [{unit}]" if unit else "integral")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        axis.margins(y=0.25)
        axis.set_title(note)
        axis.legend(loc="upper right", ncols=2)
    return figure


def comparison(item: Comparison, unit: str, style: Sheet = PLAIN) -> Figure:
    """One distribution of weighted points (line, band) and unweighted events (points), with their ratio."""
    with mpl.rc_context(style):
        figure, (main, lower) = _figure((3.0, 1.15), 6.4)
        edges = item.axis.edges
        centres = np.sqrt(edges[1:] * edges[:-1]) if item.axis.log else 0.5 * (edges[1:] + edges[:-1])
        filled = item.unweighted_error > 0
        low, high = item.weighted - item.weighted_error, item.weighted + item.weighted_error
        _band(main, edges, low, high)
        main.stairs(item.weighted, edges, color=BLUE, linewidth=1.8, label="weighted points")
        main.errorbar(
            centres[filled],
            item.unweighted[filled],
            yerr=item.unweighted_error[filled],
            fmt="o",
            color=ORANGE,
            markersize=4,
            elinewidth=1.3,
            label="unweighted events",
        )
        positive = item.weighted[item.weighted > 0]
        if positive.size and positive.max() / positive.min() > 50 and item.weighted.min() >= 0:
            main.set_yscale("log")
            main.set_ylim(bottom=0.3 * float(positive.min()))
        else:
            bottom = min(0.0, float((item.unweighted - item.unweighted_error).min()), float(item.weighted.min()))
            top = max(0.0, float((item.unweighted + item.unweighted_error).max()), float(item.weighted.max()))
            main.set_ylim(bottom, bottom + 1.3 * ((top - bottom) or 1.0))
        chi2, bins = item.chi2()
        if item.axis.log:
            main.set_xscale("log")
            _decades(lower.xaxis, float(edges[0]), float(edges[-1]))
        main.set_ylabel(f"$d\\sigma / dx$ [{_per(unit, item.axis.label)}]" if unit else "density")
        main.legend(loc="best", title=f"$\\chi^2$/bins = {chi2:.1f}/{bins}", title_fontsize=13)
        ratio, error, band = item.ratio
        _band(lower, edges, 1 - band, 1 + band)
        lower.axhline(1.0, color=BLUE, linewidth=1.4)
        lower.errorbar(
            centres[filled], ratio[filled], yerr=error[filled], fmt="o", color=ORANGE, markersize=4, elinewidth=1.3
        )
        span = _ratio_span(ratio[filled], error[filled])
        lower.set_ylim(1 - span, 1 + span)
        lower.set_ylabel("events /\nweighted", fontsize=13)
        lower.set_xlabel(item.axis.label)
        lower.set_xlim(edges[0], edges[-1])
    return figure


def _per(unit: str, label: str) -> str:
    """The unit of a distribution in an observable whose label may end in its own unit: pb, or pb / GeV.

    >>> _per("pb", "$p_T$ [GeV]")
    'pb / GeV'
    """
    own = re.search(r"\[([^\[\]]+)\]\s*$", label)
    return f"{unit} / {own[1]}" if own else unit


def _band(axis: Axes, edges: Floats, low: Floats, high: Floats) -> None:
    axis.stairs(
        np.nan_to_num(high, nan=1.0),
        edges,
        baseline=np.nan_to_num(low, nan=1.0),
        fill=True,
        color=BLUE,
        alpha=0.22,
    )


def _ratio_span(ratio: Floats, error: Floats) -> float:
    """Half the height of the ratio panel: most points with their errors inside, between 2 % and 100 %."""
    reach = (np.abs(ratio - 1.0) + error)[np.isfinite(ratio)]
    if not reach.size:
        return 0.5
    return float(np.clip(1.1 * np.quantile(reach, 0.9), 0.02, 1.0))
