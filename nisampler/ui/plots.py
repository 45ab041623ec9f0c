"""The figures of a report, drawn without global state: as matplotlib figures, or as SVG that needs no matplotlib."""

from __future__ import annotations

import importlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nisampler.base.extras import install
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.ui.distributions import Comparison
from nisampler.ui.palette import BLUE as BLUE
from nisampler.ui.palette import GREEN as GREEN
from nisampler.ui.palette import GREY as GREY
from nisampler.ui.palette import INK as INK
from nisampler.ui.palette import ORANGE as ORANGE
from nisampler.ui.palette import PALE as PALE
from nisampler.ui.palette import PURPLE as PURPLE
from nisampler.ui.panels import Curve, decades, draw_ratio, drawn_with, panels, ratio_panels, ticks
from nisampler.ui.sketch import Sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nisampler.ui.drawing import Drawing

Floats = NDArray[np.float64]
Sheet = dict[Any, Any]

STYLES = {"atlas": "ATLAS", "cms": "CMS", "lhcb": "LHCb2", "alice": "ALICE"}

_HEIGHT = 5.2
_DPI = 200
_UNDATED: dict[str, Any] = {"CreationDate": None}
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

    Examples
    --------
    >>> style_sheet(None) is PLAIN
    True
    """
    if name is None:
        return PLAIN
    if name not in STYLES:
        raise ConfigError(f"no style {name!r} for the report; known: {', '.join(STYLES)}")
    try:
        sheets = importlib.import_module("mplhep").style
    except ImportError as error:
        raise MissingExtraError(f"the style {name} needs mplhep: {install('plots')}") from error
    sheet: Sheet = getattr(sheets, STYLES[name])
    kept = {key: value for key, value in sheet.items() if not key.startswith(_OF_SIZE) and not key.endswith(_SIZES)}
    return {**PLAIN, **_FRAMED, **kept}


def svg(figure: Figure | Sketch, style: Sheet | None = PLAIN) -> bytes:
    """The figure as SVG; equal figures give equal bytes.

    >>> svg(batches([1.0, 1.1], [0.1, 0.1], (1.05, 0.07), "pb"))[:14]
    b'<?xml version='
    """
    if isinstance(figure, Sketch):
        return figure.svg()
    buffer = io.BytesIO()
    with drawn_with(style):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def image(figure: Figure, kind: str, style: Sheet = PLAIN) -> bytes:
    """The figure as "svg", "png" or "pdf"; equal figures give equal bytes.

    >>> image(batches([1.0, 1.1], [0.1, 0.1], (1.05, 0.07), "pb"), "png")[1:4]
    b'PNG'
    """
    if kind == "svg":
        return svg(figure, style)
    buffer = io.BytesIO()
    with drawn_with(style):
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=_UNDATED if kind == "pdf" else None)
    return buffer.getvalue()


def pages(figures: Sequence[Figure], style: Sheet = PLAIN) -> bytes:
    """A PDF with a page for each figure.

    >>> pages([batches([1.0, 1.1], [0.1, 0.1], (1.05, 0.07), "pb")] * 2)[:4]
    b'%PDF'
    """
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = io.BytesIO()
    with drawn_with(style), PdfPages(buffer, metadata=_UNDATED) as book:
        for figure in figures:
            book.savefig(figure)
    return buffer.getvalue()


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


def training(history: Sequence[Mapping[str, Any]], style: Sheet | None = PLAIN) -> Drawing:
    """Loss above, where there is one, effective sample size and efficiency below, against the integrand calls.

    Parameters
    ----------
    history
        Records with ``stage``, ``calls``, ``loss``, ``learning_rate``, ``ess_fraction`` and ``efficiency_0p1``.
        A stage without a learning rate has no loss.
    style
        From `style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> record = {"stage": "flow", "loss": 0.5, "learning_rate": 1e-3, "ess_fraction": 0.4, "efficiency_0p1": 0.2}
    >>> training([record | {"calls": 1000}, record | {"calls": 2000}]).axes[1].get_xlabel()
    'integrand calls'
    """

    def column(name: str) -> Floats:
        return np.array([np.nan if r[name] is None else r[name] for r in history], dtype=np.float64)

    loss = np.where(column("learning_rate") > 0.0, column("loss"), np.nan)
    known = bool(np.isfinite(loss).any())
    with drawn_with(style):
        figure, axes = panels((1.0, 1.0), 6.2, style=style) if known else panels((1.0,), _HEIGHT, style=style)
        calls = column("calls")
        marker = "o" if len(history) < 40 else ""
        if known:
            _curve(axes[0], calls, loss, history, marker)
            axes[0].set_ylabel("loss")
        below = axes[-1]
        for name, colour, label in (
            ("ess_fraction", BLUE, "effective sample size"),
            ("efficiency_0p1", ORANGE, "unweighting efficiency at 0.1 %"),
        ):
            values = column(name)
            kept = np.isfinite(values)
            below.plot(calls[kept], values[kept], color=colour, label=label, marker=marker, markersize=4)
        below.set_ylim(0.0, 1.25)
        below.set_yticks(np.linspace(0.0, 1.0, 6))
        below.set_ylabel("fraction")
        below.set_xlabel("integrand calls")
        below.legend(loc="upper left", ncols=2, borderaxespad=0.2, frameon=True, framealpha=1.0, edgecolor="none")
        ticks(below.xaxis, "thousands")
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
        decades(axis.yaxis, float(shown.min()), float(shown.max()))


def weights(edges: Floats, counts: Floats, w_max: float | None, style: Sheet | None = PLAIN) -> Drawing:
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
        From `style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> weights(np.geomspace(0.1, 10.0, 5), np.array([1.0, 5.0, 3.0, 1.0]), 4.0).axes[0].get_xscale()
    'log'
    """
    with drawn_with(style):
        figure, (axis,) = panels((1.0,), _HEIGHT, style=style)
        low, high, lowest, highest = 0.1, 10.0, 0.1, 10.0
        edges, counts = coarser(edges, counts)
        if counts.size:
            density = counts / counts.sum() / np.diff(np.log10(edges))
            floor = 0.5 * float(density[counts > 0].min())
            shown = np.maximum(density, floor)
            axis.stairs(shown, edges, baseline=floor, fill=True, color=BLUE, alpha=0.22)
            axis.stairs(shown, edges, baseline=floor, color=BLUE)
            lowest, highest = floor, 3.0 * float(shown.max())
            low, high = edges[0], edges[-1]
        axis.axvline(1.0, color=GREY, linewidth=1.2, label="mean weight")
        if w_max is not None:
            label = f"$w_{{\\max}}$ = {w_max:.3g} × mean"
            axis.axvline(w_max, color=ORANGE, linestyle=(0, (5, 2)), label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(lowest, highest)
        decades(axis.xaxis, low, high)
        decades(axis.yaxis, lowest, highest)
        axis.set_xlabel(r"$|w|\,/\,\langle |w| \rangle$")
        axis.set_ylabel(r"points per decade, normalised")
        axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def coarser(edges: Floats, counts: Floats, most: int = 60) -> tuple[Floats, Floats]:
    """The part of a histogram that is filled, with at most about `most` bins.

    >>> coarser(np.arange(5.0), np.array([0.0, 2.0, 3.0, 0.0]))[1].tolist()
    [2.0, 3.0]
    """
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
    style: Sheet | None = PLAIN,
) -> Drawing:
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
        From `style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> batches([1.0, 1.1], [0.1, 0.1], (1.05, 0.07), "pb").axes[0].get_ylabel()
    'integral [pb]'
    """
    with drawn_with(style):
        figure, (axis,) = panels((1.0,), _HEIGHT, left=0.2, style=style)
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
        ticks(axis.xaxis, "whole")
        ticks(axis.yaxis, "plain")
        axis.margins(y=0.25)
        axis.set_title(note)
        axis.legend(loc="upper right", ncols=2)
    return figure


def comparison(item: Comparison, unit: str, style: Sheet | None = PLAIN) -> Drawing:
    """One distribution of weighted points (area) and unweighted events (points), with their ratio.

    Parameters
    ----------
    item
        The distribution.
    unit
        Of the integral; empty for a density.
    style
        From `style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis, Histogram
    >>> weighted = Histogram(Axis("x", "$x$", np.linspace(0.0, 1.0, 3)))
    >>> weighted.fill([0.2, 0.4, 0.7])
    >>> comparison(Comparison.of(weighted, weighted, 1.0), "pb").axes[1].get_ylabel()
    'ratio'
    """
    chi2, bins = item.chi2()
    look = {"color": BLUE, "edgecolor": BLUE}
    weighted = Curve("weighted points", item.weighted, item.weighted_error, look, form="area")
    label = f"unweighted events, $\\chi^2$/bins = {chi2:.1f}/{bins}"
    unweighted = Curve(label, item.unweighted, item.unweighted_error, {"color": ORANGE}, form="points")
    with drawn_with(style):
        figure, main, lower = ratio_panels(2, style)
        draw_ratio(main, lower, item.axis, weighted, [unweighted])
        _shades(lower, item)
        main.set_ylabel(f"$d\\sigma / dx$ [{per(unit, item.axis.label)}]" if unit else "density")
    return figure


def _shades(lower: Axes, item: Comparison) -> None:
    """Uncertainties of the events around one, in the ratio panel, which grows with them up to 0 and 2."""
    reach = 0.0
    with np.errstate(all="ignore"):
        for shade, colour in zip(item.shades, itertools.cycle((GREEN, PURPLE)), strict=False):
            known = item.unweighted > 0
            low, high = (np.where(known, edge / item.unweighted, 1.0) for edge in (shade.low, shade.high))
            lower.stairs(high, item.axis.edges, baseline=low, fill=True, color=colour, alpha=0.3, label=shade.name)
            reach = max(reach, float(np.abs(np.stack([low, high]) - 1).max(initial=0.0)))
    if item.shades:
        span = min(1.0, max(1.05 * reach, lower.get_ylim()[1] - 1))
        lower.set_ylim(1 - span, 1 + span)
        lower.legend(loc="upper left", fontsize="x-small", ncols=len(item.shades))


def per(unit: str, label: str) -> str:
    """The unit of a distribution in an observable whose label may end in its own unit: pb, or pb / GeV.

    >>> per("pb", "$p_T$ [GeV]")
    'pb / GeV'
    """
    own = re.search(r"\[([^\[\]]+)\]\s*$", label)
    return f"{unit} / {own[1]}" if own else unit
