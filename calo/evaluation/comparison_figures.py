"""Figures that set models against each other: scores, fidelity against time, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from nisampler.calo.evaluation.figures import FLOOR, SOFT, lines
from nisampler.calo.evaluation.published import Speed
from nisampler.ui.panels import WIDTH
from nisampler.ui.plots import GREY, INK, PALE, PLAIN, Sheet

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_MOST_NUMBERS = 10
_WIDEST = 36
"""Letters that find room below the columns of a table."""


def scores(table: Mapping[str, Mapping[str, Sequence[float]]], style: Sheet = PLAIN) -> Figure:
    """Areas under the ROC curve: one row for each classifier, a point for each training, a bar at their mean.

    Parameters
    ----------
    table
        By classifier and sample, the AUC of each seed.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> scores({"small-low": {"model": [0.6, 0.62], FLOOR: [0.5]}}).axes[0].get_xlabel()[:24]
    'area under the ROC curve'
    """
    with mpl.rc_context(style):
        samples = list(dict.fromkeys(name for row in table.values() for name in row))
        height = 1.3 + len(table) * (0.25 + 0.26 * len(samples))
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axis = figure.subplots()
        step = 0.8 / len(samples)
        for number, (sample, line) in enumerate(lines(samples).items()):
            for row, name in enumerate(table):
                values = table[name].get(sample, ())
                y = row + (number - 0.5 * (len(samples) - 1)) * step
                axis.plot(values, [y] * len(values), marker="o", linestyle="none", color=line["color"], alpha=0.6)
                if values:
                    axis.plot([float(np.mean(values))], [y], marker="|", markersize=16, color=line["color"])
            axis.plot([], [], marker="o", linestyle="none", color=line["color"], label=sample)
        axis.axvline(0.5, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        for row in range(1, len(table)):
            axis.axhline(row - 0.5, color=PALE, linewidth=0.9)
        found = [value for row in table.values() for values in row.values() for value in values]
        axis.set_xlim(min(0.48, *found) - 0.01, 1.01)
        axis.set_ylim(len(table) - 0.5, -0.5)
        axis.set_yticks(range(len(table)), list(table))
        axis.grid(False, axis="y")
        axis.set_xlabel("area under the ROC curve (0.5: indistinguishable)")
        figure.legend(loc="outside upper left", ncols=min(len(samples), 4))
    return figure


def auc_time(
    models: Mapping[str, Speed],
    floor: Speed,
    classifier: str,
    published: Mapping[str, Speed] | None = None,
    style: Sheet = PLAIN,
) -> Figure:
    """Area under the ROC curve against milliseconds for each shower: below and to the left is better.

    Markers tell the batch sizes; they are filled on a CPU and open on a GPU.

    Parameters
    ----------
    models
        Timed candidates by name, with the standard deviation of the AUC between trainings as error bar.
    floor
        The reference against itself.
    classifier
        Gave the AUCs.
    published
        Drawn in pale grey: other hardware, other data, another classifier.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> speed = Speed(0.7, 0.01, {("cpu", 1): 30.0, ("cpu", 100): 2.0})
    >>> auc_time({"model": speed}, Speed(0.5, 0.01), "small-low").axes[0].get_xscale()
    'log'
    """
    with mpl.rc_context(style):
        known = published or {}
        sizes = sorted({size for item in (*models.values(), *known.values()) for _, size in item.milliseconds})
        markers = {size: _MARKERS[place % len(_MARKERS)] for place, size in enumerate(sizes)}
        looks = lines(list(models))
        devices = {device for item in models.values() for device, _ in item.milliseconds}
        keys = [
            *(Line2D([], [], color=look["color"], linewidth=3, label=name) for name, look in looks.items()),
            *(_key(GREY, markers[size], f"batch {size:,}") for size in sizes),
            *([_key(GREY, "o", "open: GPU", "none")] if devices - {"cpu"} else []),
            *([_key(GREY, "", "published: other hardware and data", alpha=0.6)] if known else []),
        ]
        columns = 2 if known else 3
        rows = -(-len(keys) // columns)
        figure = Figure(figsize=(WIDTH, 5.4 + 0.29 * rows), layout="constrained")
        axis = figure.subplots()
        axis.set_xscale("log")
        for name, item in known.items():
            _published(axis, name, item, markers)
        axis.axhline(floor.auc, color=SOFT, linestyle=(0, (2.5, 1.0)), linewidth=1.4)
        if floor.error is not None:
            axis.axhspan(floor.auc - floor.error, floor.auc + floor.error, color=SOFT, alpha=0.18, linewidth=0)
        for name, look in looks.items():
            _timed(axis, models[name], look["color"], markers)
        _time_axis(axis, [floor, *models.values(), *known.values()], bool(known))
        axis.annotate(
            FLOOR, (0.01, floor.auc), xycoords=("axes fraction", "data"), xytext=(0, -4), textcoords="offset points",
            va="top", fontsize=11, color=SOFT,
        )  # fmt: skip
        axis.set_ylabel(f"AUC, {classifier}")
        figure.legend(handles=keys, loc="outside upper left", ncols=columns, columnspacing=1.2)
    return figure


def _key(colour: str, marker: str, label: str, face: str | None = None, alpha: float = 1.0) -> Line2D:
    """An entry of the legend."""
    return Line2D(
        [], [], color=colour, marker=marker, markerfacecolor=face or colour, linestyle="" if marker else "solid",
        linewidth=1.2, label=label, alpha=alpha,
    )  # fmt: skip


def _timed(axis: Axes, item: Speed, colour: str, markers: Mapping[int, str]) -> None:
    """The points of a model, those of a device joined by a line."""
    for device in dict.fromkeys(device for device, _ in item.milliseconds):
        found = sorted((size, time) for (other, size), time in item.milliseconds.items() if other == device)
        axis.plot([time for _, time in found], [item.auc] * len(found), color=colour, linewidth=1.2, alpha=0.6)
        for size, time in found:
            axis.errorbar(
                time, item.auc, yerr=item.error, color=colour, marker=markers[size], markersize=9, elinewidth=1.6,
                capsize=3, markerfacecolor=colour if device == "cpu" else "white", markeredgecolor=colour,
            )  # fmt: skip


def _published(axis: Axes, name: str, item: Speed, markers: Mapping[int, str]) -> None:
    """The points of a published model with its name at the slowest one, or the published floor."""
    if not item.milliseconds:
        axis.axhline(item.auc, color=GREY, linestyle=":", linewidth=1.2, alpha=0.6)
        axis.annotate(
            f"{name}, published", (0.99, item.auc), xycoords=("axes fraction", "data"), xytext=(0, -3),
            textcoords="offset points", ha="right", va="top", fontsize=9.5, color=GREY,
        )  # fmt: skip
        return
    found = sorted((time, size) for (_, size), time in item.milliseconds.items())
    axis.plot([time for time, _ in found], [item.auc] * len(found), color=GREY, linewidth=0.8, alpha=0.45, zorder=1)
    for time, size in found:
        axis.plot(time, item.auc, color=GREY, marker=markers[size], markersize=5, alpha=0.45, zorder=1)
    axis.annotate(
        name, (found[-1][0], item.auc), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9.5,
        color=GREY, zorder=1,
    )  # fmt: skip


def _time_axis(axis: Axes, items: Sequence[Speed], named: bool) -> None:
    """Limits with room for the names of published models on the right, and ticks at whole powers of ten."""
    times = [time for item in items for time in item.milliseconds.values()]
    low, high = min(times), max(times)
    decades = max(np.log10(high / low), 1.0)
    room = 10.0 ** (0.06 * decades)
    axis.set_xlim(low / room, high * room ** (4.0 if named else 1.0))
    ends = [item.auc + sign * (item.error or 0.0) for item in items for sign in (-1, 1)]
    axis.set_ylim(min(0.47, min(ends) - 0.03), min(max(max(ends) + 0.04, 0.6), 1.02))
    axis.xaxis.set_major_locator(LogLocator(numticks=9))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("time of a shower [ms]")


def posteriors(
    names: Sequence[str], reference: Sequence[float], confusion: Sequence[Sequence[float]], style: Sheet = PLAIN
) -> Figure:
    """Mean log-posteriors of a multiclass classifier: a row for the reference, and one for each sample.

    Parameters
    ----------
    names
        Of the N samples.
    reference
        (N,) mean of log p(sample | x) over reference showers, in nats.
    confusion
        (N, N) the same over the test showers of each sample.
    style
        From `nisampler.ui.plots.style_sheet`.

    Examples
    --------
    >>> len(posteriors(["a", "b"], [-0.7, -0.7], [[-0.1, -2.0], [-2.0, -0.1]]).axes)
    2
    """
    with mpl.rc_context(style):
        values = np.array([list(reference), *(list(row) for row in confusion)])
        n = len(names)
        figure = Figure(figsize=(WIDTH, 2.2 + 0.55 * (n + 1)), layout="constrained")
        axis = figure.subplots()
        low = min(-2.0 * np.log(n), float(np.quantile(values, 0.1)))
        image = axis.imshow(values, cmap="cividis", aspect="auto", vmin=low, vmax=0.0)
        axis.axhline(0.5, color="white", linewidth=5)
        axis.grid(False)
        turned = n * max(map(len, names)) > _WIDEST
        axis.set_xticks(range(n), list(names), rotation=25 if turned else 0, ha="right" if turned else "center")
        axis.set_yticks(range(n + 1), ["reference", *names])
        axis.set_xlabel("sample that the classifier names")
        axis.set_ylabel("showers of")
        if n <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(values):
                colour = "white" if value < 0.35 * low else INK
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=12, color=colour)
        extend = "min" if values.min() < low else "neither"
        figure.colorbar(image, ax=axis, label="mean log-posterior", extend=extend, shrink=0.9)
    return figure
