"""Training curves and weights of several runs over each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nisampler.ui.histograms import Floats
from nisampler.ui.overlays import COLOURS
from nisampler.ui.palette import GREY
from nisampler.ui.panels import decades, drawn_with, panels, ticks
from nisampler.ui.plots import PLAIN, Sheet, coarser

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nisampler.ui.drawing import Drawing

_ROW, _LONG = 0.29, 32
_HEIGHT, _DECADES = 5.2, 30.0


@dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes
    ----------
    label
        In the legend.
    place
        (n,) calls or seconds.
    efficiency, ess
        (n,) unweighting efficiency at 0.1 % overweight, and effective sample size over the number of points.

    Examples
    --------
    >>> records = [{"calls": 500, "efficiency_0p1": 0.2, "ess_fraction": None}]
    >>> course = Course.of("vegas", records, seconds_at=lambda calls: calls / 100)
    >>> course.place.tolist(), course.efficiency.tolist(), course.ess.tolist()
    ([5.0], [0.2], [nan])
    """

    label: str
    place: Floats
    efficiency: Floats
    ess: Floats

    @classmethod
    def of(
        cls,
        label: str,
        history: Sequence[Mapping[str, Any]],
        seconds_at: Callable[[Floats], Floats] | None = None,
    ) -> Self:
        """Of the records of a training, against calls, or against the seconds at these."""

        def column(name: str) -> Floats:
            return np.array([np.nan if record[name] is None else record[name] for record in history], dtype=np.float64)

        calls = column("calls")
        place = calls if seconds_at is None else seconds_at(calls)
        return cls(label, place, column("efficiency_0p1"), column("ess_fraction"))


def trainings(courses: Sequence[Course], xlabel: str, style: Sheet | None = PLAIN) -> Drawing:
    """Unweighting efficiency and effective sample size of several trainings.

    Parameters
    ----------
    courses
        The trainings.
    xlabel
        What they are drawn against.
    style
        From `nisampler.ui.plots.style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> flow = Course("flow", np.array([1e3, 2e3]), np.array([0.1, 0.3]), np.array([0.5, 0.8]))
    >>> [panel.get_ylabel() for panel in trainings([flow], "integrand calls").axes]
    ['efficiency at 0.1 %', 'ESS']
    """
    with drawn_with(style):
        figure, axes = _panels((1.2, 1.0), 6.6, [course.label for course in courses], style)
        for course, colour in zip(courses, COLOURS, strict=False):
            marker = "o" if len(course.place) < 40 else ""
            for axis, values in zip(axes, (course.efficiency, course.ess), strict=True):
                kept = np.isfinite(values) & np.isfinite(course.place)
                label = course.label if axis is axes[0] else None
                axis.plot(course.place[kept], values[kept], color=colour, marker=marker, markersize=4, label=label)
        for axis, name in zip(axes, ("efficiency at 0.1 %", "ESS"), strict=True):
            axis.set_ylabel(name)
        _share_scale(axes[0], np.concatenate([course.efficiency for course in courses]))
        _share_scale(axes[1], np.concatenate([course.ess for course in courses]))
        axes[-1].set_xlabel(xlabel)
        ticks(axes[-1].xaxis, "thousands")
        _legend(axes[0], [course.label for course in courses])
    return figure


def weights_of_runs(spreads: Sequence[tuple[str, Floats, Floats]], style: Sheet | None = PLAIN) -> Drawing:
    """Distributions of |w| over its mean of several runs, each of unit area.

    Parameters
    ----------
    spreads
        Label, edges (b + 1,) and counts (b,) of each.
    style
        From `nisampler.ui.plots.style_sheet`; None for a `Sketch`.

    Examples
    --------
    >>> edges, counts = np.geomspace(0.1, 10.0, 5), np.array([1.0, 5.0, 3.0, 1.0])
    >>> weights_of_runs([("a", edges, counts), ("b", edges, counts)]).axes[0].get_xscale()
    'log'
    """
    with drawn_with(style):
        names = [name for name, *_ in spreads]
        figure, (axis,) = _panels((1.0,), _HEIGHT, names, style)
        spans = [(*coarser(edges, counts), label) for label, edges, counts in spreads]
        floor, top, low, high = 0.1, 1.0, 1.0, 1.0
        for kept, found, _ in spans:
            if found.size:
                density = _density(kept, found)
                floor, top = min(floor, float(density[density > 0.0].min())), max(top, float(density.max()))
                low, high = min(low, float(kept[0])), max(high, float(kept[-1]))
        floor, top = 0.5 * floor, 3.0 * top
        for (kept, found, label), colour in zip(spans, COLOURS, strict=False):
            if found.size:
                shown = np.maximum(_density(kept, found), floor)
                axis.stairs(shown, kept, baseline=floor, color=colour, label=label, linewidth=1.8)
        axis.axvline(1.0, color=GREY, linewidth=1.2)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(floor, top)
        decades(axis.xaxis, low, high)
        decades(axis.yaxis, floor, top)
        axis.set_xlabel(r"$|w|\,/\,\langle |w| \rangle$")
        axis.set_ylabel("points per decade, normalised")
        _legend(axis, names)
    return figure


def _density(edges: Floats, counts: Floats) -> Floats:
    """Points per decade, of unit area."""
    density: Floats = counts / counts.sum() / np.diff(np.log10(edges))
    return density


def _panels(
    rows: Sequence[float], height: float, labels: Sequence[str], style: Sheet | None
) -> tuple[Drawing, list[Axes]]:
    """Panels with room above them for a legend."""
    room = 0.2 + _ROW * -(-len(labels) // _columns(labels))
    return panels(rows, height + room, room, style=style)


def _columns(labels: Sequence[str]) -> int:
    return 2 if max(map(len, labels)) < _LONG else 1


def _legend(axis: Axes, labels: Sequence[str]) -> None:
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=_columns(labels), borderaxespad=0.3)


def _share_scale(axis: Axes, values: Floats) -> None:
    """From zero to a little above the largest share, or logarithmic where they span decades."""
    found = values[np.isfinite(values) & (values > 0.0)]
    top = float(found.max()) if found.size else 1.0
    if found.size and top > _DECADES * float(np.quantile(found, 0.1)):
        low = 0.7 * float(np.quantile(found, 0.02))
        axis.set_yscale("log")
        axis.set_ylim(low, 1.4 * top)
        decades(axis.yaxis, low, 1.4 * top)
        return
    axis.set_ylim(0.0, 1.1 * top)
    ticks(axis.yaxis, "few")
