"""Panels one above the other, and the one way to draw curves over a reference with their ratio to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nisampler.ui.histograms import Axis
from nisampler.ui.sketch import Kind, Panel, Scale, Sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as Ruler

    from nisampler.ui.drawing import Drawing

Floats = NDArray[np.float64]

WIDTH = 8.0
"""Inches, of every figure with a single column."""
_LEFT, _BETWEEN = 0.16, 0.08
_TITLE = 0.42
"""Inches that a title needs."""
_FAINT = 0.25
_ROW = 0.29
"""Inches that a row of a legend needs."""
_SMALLEST_SPAN, _INSIDE = 0.02, 0.85
"""The ratio panel reaches at least so far from 1, and so far that this share of its points lies inside."""


@dataclass(frozen=True)
class Curve:
    """Values with errors in the bins of an axis.

    Attributes
    ----------
    label
        In the legend.
    values, error
        (b,) each.
    look
        Colour and dashes as matplotlib takes them.
    spread
        (b,) half the height of a band around the curve; none by default.
    form
        A "line", "points" with error bars, or a filled "area".

    Examples
    --------
    >>> Curve("model", np.ones(2), np.array([0.1, 0.2]), {"color": "k"}).over(np.array([2.0, 0.0])).values
    array([0.5, nan])
    """

    label: str
    values: Floats
    error: Floats
    look: Mapping[str, Any] = field(default_factory=dict)
    spread: Floats | None = None
    form: Literal["line", "points", "area"] = "line"

    def over(self, reference: Floats) -> Curve:
        """The curve in units of the reference; NaN where that is zero."""
        below = np.where(reference != 0.0, reference, np.nan)
        error = np.abs(self.error / below)
        spread = None if self.spread is None else np.abs(self.spread / below)
        return Curve(self.label, self.values / below, error, self.look, spread, self.form)


def drawn_with(style: Mapping[Any, Any] | None) -> AbstractContextManager[None]:
    """Settings of matplotlib meanwhile; none where a figure is drawn without it.

    >>> with drawn_with(None):
    ...     pass
    """
    if style is None:
        return nullcontext()
    import matplotlib as mpl

    return mpl.rc_context(dict(style))


def panels(
    rows: Sequence[float],
    height: float,
    top: float = 0.45,
    left: float = _LEFT,
    style: Mapping[Any, Any] | None = MappingProxyType({}),
) -> tuple[Drawing, list[Axes]]:
    """Panels one above the other with a common horizontal axis, and so many inches above them.

    Parameters
    ----------
    rows
        Relative heights.
    height, top
        Of the figure, and of the room above the panels, in inches.
    left
        Share of the width for the labels of the vertical axes.
    style
        None for a `Sketch` and its panels, which have what the figures of reports use of matplotlib's.

    Examples
    --------
    >>> figure, axes = panels((3.0, 1.0), 6.0)
    >>> len(axes)
    2
    """
    shares = {"left": left, "right": 0.97, "bottom": 0.72 / height, "top": 1.0 - top / height}
    if style is None:
        sketch = Sketch(WIDTH, height, rows, **shares, between=_BETWEEN)
        return cast("Drawing", sketch), cast("list[Axes]", sketch.panels)
    from nisampler.ui.drawing import Drawing

    figure = Drawing(figsize=(WIDTH, height))
    grid: Any = {"height_ratios": list(rows), **shares, "hspace": _BETWEEN}
    axes = list(figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0])
    for axis in axes:
        axis.yaxis.set_label_coords(0.03 - left, 0.5)
    return figure, axes


def titled(figure: Drawing, title: str, style: Mapping[Any, Any]) -> Drawing:
    """The figure with a title above all that it holds, and its style, for those who see it without a page around it.

    Examples
    --------
    >>> figure, _ = panels((1.0,), 5.0)
    >>> float(titled(figure, "Weights", {}).get_figheight())
    5.42
    """
    width, before = figure.get_size_inches()
    height = before + _TITLE
    share = before / height
    for axis in figure.axes:
        x, y, wide, high = axis.get_position().bounds
        axis.set_position((x, share * y, wide, share * high))
    for legend in figure.legends:
        left, top = figure.transFigure.inverted().transform(legend.get_bbox_to_anchor().p0)
        legend.set_bbox_to_anchor((left, share * top), figure.transFigure)
    figure.set_size_inches(width, height)
    figure.style = style
    import matplotlib as mpl

    with mpl.rc_context(dict(style)):
        look = {"fontsize": mpl.rcParams["axes.titlesize"], "fontweight": "bold", "va": "top", "ha": "left"}
        figure.text(figure.axes[0].get_position().x0, 1.0 - 0.12 / height, title, **look)
    return figure


def ratio_panels(
    entries: int, style: Mapping[Any, Any] | None = MappingProxyType({}), columns: int = 2
) -> tuple[Drawing, Axes, Axes]:
    """A main panel, one for ratios below it, and room above for a legend of so many entries in its columns.

    Examples
    --------
    >>> figure, main, ratio = ratio_panels(2)
    >>> bool(main.get_position().height > ratio.get_position().height)
    True
    """
    room = 0.2 + _ROW * -(-entries // columns)
    figure, (main, lower) = panels((3.0, 1.2), 6.0 + room, room, style=style)
    return figure, main, lower


def draw_ratio(
    main: Axes,
    lower: Axes,
    axis: Axis,
    reference: Curve,
    others: Sequence[Curve],
    logarithmic: float = 50.0,
    columns: int = 2,
) -> None:
    """Curves over a reference in the main panel, and below it their ratios with the error of the reference as a band.

    Parameters
    ----------
    main, lower
        Of `ratio_panels`.
    axis
        The bins of all curves.
    reference, others
        The curves; where the reference is zero there is no ratio.
    logarithmic
        The main panel is logarithmic if the positive values span this factor and none is negative.
    columns
        Of the legend.

    Examples
    --------
    >>> axis = Axis("x", "$x$", np.linspace(0.0, 1.0, 3))
    >>> _, main, lower = ratio_panels(2)
    >>> truth = Curve("truth", np.array([1.0, 2.0]), np.array([0.1, 0.1]), {"color": "k"}, form="area")
    >>> draw_ratio(main, lower, axis, truth, [Curve("model", np.array([1.1, 2.0]), np.array([0.1, 0.1]))])
    >>> lower.get_ylabel(), main.get_yscale()
    ('ratio', 'linear')
    """
    for curve in (reference, *others):
        _draw(main, axis, curve, label=curve.label)
    unit = reference.over(reference.values)
    _band(lower, axis.edges, np.ones_like(unit.values), np.nan_to_num(unit.error), _colour(reference))
    lower.axhline(1.0, color=reference.look.get("edgecolor", _colour(reference)), linewidth=1.3)
    ratios = [curve.over(reference.values) for curve in others]
    for curve, ratio in zip(others, ratios, strict=True):
        filled = np.isfinite(ratio.values) & ((curve.values != 0.0) | (curve.error > 0.0))
        _draw(lower, axis, ratio, filled)
    span = _span(unit, ratios)
    lower.set_ylim(1 - span, 1 + span)
    ticks(lower.yaxis, "few")
    _limits(main, [reference, *others], logarithmic)
    if axis.log:
        main.set_xscale("log")
        decades(lower.xaxis, float(axis.edges[0]), float(axis.edges[-1]))
    lower.set_xlim(axis.edges[0], axis.edges[-1])
    lower.set_xlabel(axis.label)
    lower.set_ylabel("ratio")
    _legend(main, [reference, *others], columns)


def ticks(scale: Ruler, kind: Kind) -> None:
    """Ticks of a linear axis: plain numbers, whole ones, a few that are not at its ends, or such as 20k.

    Examples
    --------
    >>> _, (axis,) = panels((1.0,), 5.0)
    >>> ticks(axis.xaxis, "thousands")
    >>> axis.xaxis.get_major_formatter()(20_000.0)
    '20k'
    """
    if isinstance(scale, Scale):
        scale.kind = kind
        return
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if kind == "plain":
        scale.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    elif kind == "whole":
        scale.set_major_locator(MaxNLocator(integer=True))
    elif kind == "few":
        scale.set_major_locator(MaxNLocator(4, prune="both"))
    else:
        scale.set_major_formatter(EngFormatter(sep=""))


def decades(scale: Ruler, low: float, high: float) -> None:
    """Plain numbers at 1, 2 and 5 where an axis spans few decades, powers of ten where it spans many; no other ticks.

    Ticks take most of the time that a figure takes, and those between decades were nine tenths of them.

    Examples
    --------
    >>> _, (axis,) = panels((1.0,), 5.0)
    >>> axis.set_xscale("log")
    >>> decades(axis.xaxis, 1.0, 50.0)
    >>> axis.xaxis.get_major_formatter()(20.0)
    '20'
    """
    if isinstance(scale, Scale):
        return  # it does so by itself
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if high / low < 500:
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0)
        scale.set_major_locator(LogLocator(subs=subs))
        scale.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    scale.set_minor_locator(NullLocator())


def _colour(curve: Curve) -> Any:
    return curve.look.get("color", "black")


def _band(axes: Axes, edges: Floats, centre: Floats, half: Floats, colour: Any) -> None:
    """A band around steps, nothing where one is NaN; around what is not negative it does not reach below zero."""
    high = centre + half
    low = np.where(centre >= 0.0, np.maximum(centre - half, 0.0), centre - half)
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=_FAINT, linewidth=0)


def _draw(
    axes: Axes, axis: Axis, curve: Curve, filled: NDArray[np.bool_] | None = None, label: str | None = None
) -> None:
    """A curve in its form; only the bins of `filled` if they are given."""
    shown = curve.values if filled is None else np.where(filled, curve.values, np.nan)
    if curve.form == "points":
        here = curve.error > 0.0 if filled is None else filled
        look: dict[str, Any] = {"fmt": "o", "markersize": 4, "elinewidth": 1.3, **curve.look}
        axes.errorbar(axis.centres[here], shown[here], yerr=curve.error[here], label=label, **look)
        return
    if curve.form == "area":
        axes.stairs(shown, axis.edges, fill=True, color=_colour(curve), alpha=0.35, label=label)
        axes.stairs(shown, axis.edges, color=curve.look.get("edgecolor", _colour(curve)), linewidth=1.2)
        return
    if curve.spread is not None:
        _band(axes, axis.edges, shown, curve.spread, _colour(curve))
    baseline = 0.0 if filled is None else None
    axes.stairs(shown, axis.edges, baseline=baseline, label=label, **{"linewidth": 1.8, **curve.look})


def _span(reference: Curve, ratios: Sequence[Curve]) -> float:
    """Half the height of the ratio panel."""
    wide = [np.maximum(ratio.error, 0.0 if ratio.spread is None else ratio.spread) for ratio in ratios]
    reach = [np.abs(r.values - 1.0) + np.hypot(w, reference.error) for r, w in zip(ratios, wide, strict=True)]
    found = [part[np.isfinite(part) & (ratio.values != 0.0)] for part, ratio in zip(reach, ratios, strict=True)]
    spans = np.concatenate(found) if found else np.zeros(0)
    return float(np.clip(1.15 * np.quantile(spans, _INSIDE), _SMALLEST_SPAN, 1.0)) if spans.size else 0.5


def _limits(axes: Axes, curves: Sequence[Curve], logarithmic: float) -> None:
    """A logarithmic scale where the values span a large factor, and room around them."""
    values = np.concatenate([curve.values for curve in curves])
    positive = values[values > 0]
    if positive.size and values.min() >= 0.0 and positive.max() > logarithmic * positive.min():
        low, high = 0.5 * float(positive.min()), 2.0 * float(positive.max())
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        decades(axes.yaxis, low, high)
        return
    ends = [curve.values + sign * curve.error for curve in curves for sign in (-1, 1) if curve.form == "points"]
    low, high = (float(choose([0.0, *np.concatenate([values, *ends])])) for choose in (min, max))
    room = 0.08 * ((high - low) or 1.0)
    axes.set_ylim(low - (room if low < 0.0 else 0.0), high + (room if high > 0.0 or low == 0.0 else 0.0))


def _legend(axes: Axes, curves: Sequence[Curve], columns: int) -> None:
    """Above the panel, where it hides nothing; a line with a band has both in its entry."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": columns, "borderaxespad": 0.3}
    if isinstance(cast(object, axes), Panel):
        axes.legend(**place)
        return
    from matplotlib.patches import Patch

    handles, labels = axes.get_legend_handles_labels()
    banded = {curve.label for curve in curves if curve.spread is not None}
    keys: list[Any] = [
        (Patch(color=cast(Patch, handle).get_edgecolor(), alpha=_FAINT, linewidth=0), handle)
        if label in banded
        else handle
        for handle, label in zip(handles, labels, strict=True)
    ]
    axes.legend(keys, labels, **place)
