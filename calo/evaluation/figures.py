"""Figures of samples of showers, but those of single voxels: histograms, profiles, correlations, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy
from nisampler.calo.evaluation.bands import VOXELS, Band
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts
from nisampler.ui.plots import BLUE, GREEN, GREY, INK, ORANGE, PLAIN, PURPLE, Sheet

Floats = NDArray[np.float64]
Line = dict[str, Any]

FLOOR = "reference, other half"
"""What the second half of the reference is called: no figure of a candidate can be expected below its own."""

SOFT = "#5c6b78"

_WIDTH = 8.0
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_FAINT = 0.3
_ENERGY_BINS = 12
_MOST_NUMBERS = 8
"""Columns of a table of colours up to which its numbers are written too."""


def lines(names: Sequence[str]) -> dict[str, Line]:
    """A line of its own colour and dashes for every sample, told apart without colours too; the floor is grey."""
    styles = cycle(zip(_COLOURS, _DASHES, strict=True))
    found: dict[str, Line] = {}
    for name in names:
        colour, dash = (SOFT, (0, (2.5, 1.0))) if name == FLOOR else next(styles)
        found[name] = {"color": colour, "linestyle": dash}
    return found


def panels(rows: Sequence[float], height: float, top: float = 0.2) -> tuple[Figure, list[Axes]]:
    """Panels one above the other with a common horizontal axis, and so many inches above them."""
    figure, left = Figure(figsize=(_WIDTH, height)), 0.16
    margins = {"left": left, "right": 0.97, "bottom": 0.72 / height, "top": 1.0 - top / height, "hspace": 0.08}
    grid: Any = {"height_ratios": list(rows), **margins}
    axes = list(figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0])
    for axis in axes:
        axis.yaxis.set_label_coords(0.03 - left, 0.5)
    return figure, axes


def histogram(
    reference: Counts, others: Mapping[str, Counts], style: Sheet = PLAIN, bands: Mapping[str, Band] | None = None
) -> Figure:
    """The reference as a filled step, each candidate as a line, and their ratios below.

    The grey band of the ratios is the counting error of the reference.

    Parameters
    ----------
    reference
        Bins and counts.
    others
        Candidates by name, in the same bins; at least one.
    style
        From `nisampler.ui.plots.style_sheet`.
    bands
        By candidate, the spread over draws of its weights: one standard deviation up and down from its line.
    """
    with mpl.rc_context(style):
        figure, (main, lower) = panels((3.0, 1.2), *_above(1 + len(others)))
        edges, log = reference.axis.edges, reference.axis.log
        values, error = reference.density()
        main.stairs(values, edges, fill=True, color=GREY, alpha=0.35, label="reference")
        main.stairs(values, edges, color=INK, linewidth=1.2)
        ratio_error = _divide(error, values)
        lower.stairs(1 + ratio_error, edges, baseline=1 - ratio_error, fill=True, color=GREY, alpha=0.35)
        lower.axhline(1.0, color=INK, linewidth=1.2)
        reach = []
        for name, line in lines(list(others)).items():
            other, other_error = others[name].density()
            main.stairs(other, edges, label=name, linewidth=2.0, **line)
            filled = (values > 0) & (other > 0)
            ratio = np.where(filled, _divide(other, values), np.nan)
            lower.stairs(ratio, edges, linewidth=1.6, baseline=None, **line)
            spread = _divide(other_error, other)
            if bands and name in bands:
                deviation = bands[name].deviation
                _band(main, edges, other, deviation, line["color"])
                _band(lower, edges, ratio, _divide(deviation, values), line["color"])
                spread = np.maximum(spread, _divide(deviation, values))
            reach.append((np.abs(ratio - 1.0) + np.hypot(spread, ratio_error))[filled])
        _scale(main, [reference, *others.values()])
        spans = np.concatenate(reach)
        span = float(np.clip(1.15 * np.quantile(spans, 0.8), 0.03, 0.95)) if spans.size else 0.5
        lower.set_ylim(1 - span, 1 + span)
        lower.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
        if log:
            main.set_xscale("log")
            lower.xaxis.set_minor_formatter(NullFormatter())
        first, last = _filled(edges, [reference, *others.values()])
        lower.set_xlim(first, last)
        main.set_ylabel("showers per decade" if log else "density")
        if reference.axis.name == VOXELS:
            main.set_ylabel("voxels per decade")
        lower.set_ylabel("ratio")
        lower.set_xlabel(reference.axis.label)
        _legend(main, bands or {})
    return figure


def _band(axis: Axes, edges: Floats, centre: Floats, half: Floats, colour: str) -> None:
    low, high = np.maximum(centre - half, 0.0), centre + half
    axis.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=_FAINT, linewidth=0)


def _above(entries: int) -> tuple[float, float]:
    """Height of a figure with two panels, and room above them for a legend."""
    rows = -(-entries // 2)
    return 6.2 + 0.29 * rows, 0.2 + 0.29 * rows


def _legend(axis: Axes, bands: Mapping[str, Band]) -> None:
    """Above the panel, where it hides nothing; a line with a band has both in its entry."""
    handles, labels = axis.get_legend_handles_labels()
    keys: list[Any] = [
        (Patch(color=cast(Patch, handle).get_edgecolor(), alpha=_FAINT, linewidth=0), handle)
        if label in bands
        else handle
        for handle, label in zip(handles, labels, strict=True)
    ]
    texts = [f"{label} ± its draws" if label in bands else label for label in labels]
    axis.legend(keys, texts, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.3)


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _filled(edges: Floats, counts: Sequence[Counts]) -> tuple[float, float]:
    """The range in which any of the histograms has entries."""
    places = np.flatnonzero(sum(item.inside for item in counts))
    return (float(edges[places[0]]), float(edges[places[-1] + 1])) if places.size else (edges[0], edges[-1])


def _scale(axis: Axes, counts: Sequence[Counts]) -> None:
    """Logarithmic if the entries span three decades."""
    values = np.concatenate([item.density()[0] for item in counts])
    positive = values[values > 0]
    if positive.size and positive.max() > 1000.0 * positive.min():
        axis.set_yscale("log")
        axis.set_ylim(0.5 * float(positive.min()), 2.0 * float(positive.max()))
    elif positive.size:
        axis.set_ylim(0.0, 1.08 * float(positive.max()))


def layer_profile(
    reference: Features, others: Mapping[str, Features], geometry: Geometry, style: Sheet = PLAIN
) -> Figure:
    """Mean energy of the layers over the incident energy, with the ratio to the reference."""
    with mpl.rc_context(style):
        figure, (main, lower) = panels((3.0, 1.2), *_above(1 + len(others)))
        edges = np.arange(geometry.n_layers + 1) - 0.5
        mean, error = _layer_shares(reference)
        main.stairs(mean, edges, fill=True, color=GREY, alpha=0.35, label="reference")
        main.stairs(mean, edges, color=INK, linewidth=1.2)
        band = _divide(error, mean)
        lower.stairs(1 + band, edges, baseline=1 - band, fill=True, color=GREY, alpha=0.35)
        lower.axhline(1.0, color=INK, linewidth=1.2)
        span = 0.02
        for name, line in lines(list(others)).items():
            other, other_error = _layer_shares(others[name])
            ratio = np.where(mean > 0, _divide(other, mean), np.nan)
            main.stairs(other, edges, label=name, linewidth=2.0, **line)
            lower.stairs(ratio, edges, linewidth=1.6, baseline=None, **line)
            reach = np.abs(ratio - 1.0) + np.hypot(_divide(other_error, mean), band)
            span = max(span, float(np.nanquantile(reach, 0.95)) if np.isfinite(reach).any() else 0.0)
        positive = mean[mean > 0]
        if positive.size and positive.max() > 100 * positive.min():
            main.set_yscale("log")
        else:
            main.set_ylim(bottom=0.0)
        main.margins(y=0.05)
        lower.set_ylim(1 - min(1.15 * span, 1.0), 1 + min(1.15 * span, 1.0))
        lower.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
        lower.set_xlim(edges[0], edges[-1])
        _layer_ticks(lower, geometry)
        main.set_ylabel(r"$\langle E_\mathrm{layer}\,/\,E_\mathrm{inc} \rangle$")
        lower.set_ylabel("ratio")
        _legend(main, {})
    return figure


def _layer_shares(features: Features) -> tuple[Floats, Floats]:
    """Mean share of the incident energy in each layer, and its error."""
    shares = features.energy / features.incident[:, None]
    return shares.mean(axis=0), shares.std(axis=0) / np.sqrt(max(len(features), 1))


def _layer_ticks(axis: Axes, geometry: Geometry, most: int = 16) -> None:
    step = -(-geometry.n_layers // most)
    places = range(0, geometry.n_layers, step)
    axis.set_xticks(list(places), [str(geometry.layers[place].id) for place in places])
    axis.set_xlabel("layer")


def response(
    reference: Features, others: Mapping[str, Features], incident: IncidentEnergy, style: Sheet = PLAIN
) -> Figure:
    """Mean of E_tot/E_inc above, its relative width below, against the incident energy."""
    with mpl.rc_context(style):
        figure, axes = panels((1.0, 1.0), 6.6, top=0.3 + 0.28 * -(-(len(others) + 1) // 2))
        samples = {"reference": reference, **others}
        look: dict[str, Line] = {"reference": {"color": INK, "linestyle": "none"}, **lines(list(others))}
        for number, (name, features) in enumerate(samples.items()):
            energy, mean, mean_error, width, width_error = _response_points(features, incident)
            shift = 1.0 + 0.02 * (number - 0.5 * len(others))
            for axis, value, error in ((axes[0], mean, mean_error), (axes[1], width, width_error)):
                axis.errorbar(
                    energy * shift / 1e3,
                    value,
                    yerr=error,
                    marker="s" if name == "reference" else "o",
                    markersize=6 if name == "reference" else 4,
                    linewidth=1.2,
                    elinewidth=1.3,
                    label=name,
                    **look[name],
                )
        low, high = incident.values[0] / 1e3, incident.values[-1] / 1e3
        axes[1].set_xlim(0.8 * low, 1.25 * high)
        axes[1].set_xscale("log")
        if axes[1].dataLim.minposy < np.inf:
            axes[1].set_yscale("log")
        axes[1].yaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel(r"mean of $E_\mathrm{tot}/E_\mathrm{inc}$")
        axes[1].set_ylabel("relative width")
        axes[1].set_xlabel(r"$E_\mathrm{inc}$ [GeV]")
        axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _response_points(features: Features, incident: IncidentEnergy) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Incident energy, mean and relative width of the response with errors, at each energy that ten showers have."""
    if incident.kind == "discrete":
        place = np.abs(np.log(features.incident[:, None] / np.asarray(incident.values))).argmin(axis=1)
    else:
        edges = np.geomspace(incident.values[0], incident.values[-1], _ENERGY_BINS + 1)
        place = np.clip(np.searchsorted(edges, features.incident, "right") - 1, 0, _ENERGY_BINS - 1)
    points = []
    for number in np.unique(place):
        value = features.response[place == number]
        if len(value) >= 10 and value.mean() > 0:
            mean, width, root = value.mean(), value.std() / value.mean(), np.sqrt(len(value))
            energy = np.exp(np.log(features.incident[place == number]).mean())
            points.append((energy, mean, value.std() / root, width, width / root / np.sqrt(2.0)))
    table = np.array(points).reshape(-1, 5)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4]


def correlations(reference: Floats, others: Mapping[str, Floats], geometry: Geometry, style: Sheet = PLAIN) -> Figure:
    """Pearson matrices of the layer energies: the reference, then each candidate and its difference to the former.

    Parameters
    ----------
    reference
        (L, L).
    others
        (L, L) by name.
    geometry
        For the numbers of the layers.
    style
        From `nisampler.ui.plots.style_sheet`.
    """
    with mpl.rc_context(style):
        rows = max(len(others), 1)
        figure = Figure(figsize=(3 * 4.1, 4.0 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, 3, squeeze=False)
        step = -(-geometry.n_layers // 8)
        ids = [str(layer.id) for layer in geometry.layers][::step]
        for row, name in enumerate(others):
            difference = others[name] - reference
            limit = max(0.05, float(np.abs(difference).max()))
            shown = (("reference", reference, 1.0), (name, others[name], 1.0), ("difference", difference, limit))
            for axis, (title, matrix, top) in zip(axes[row], shown, strict=True):
                image = axis.imshow(matrix, cmap="RdBu_r", vmin=-top, vmax=top, origin="lower")
                axis.set_title(title)
                axis.grid(False)
                places = np.arange(0, geometry.n_layers, step)
                axis.set_xticks(places, ids)
                axis.set_yticks(places, ids)
                axis.set_xlabel("layer")
                figure.colorbar(image, ax=axis, shrink=0.8)
            axes[row, 0].set_ylabel("layer")
    return figure


def separations(
    tables: Mapping[str, Mapping[str, Mapping[int, float]]], geometry: Geometry, style: Sheet = PLAIN
) -> Figure:
    """Separation powers as tables of colours: families of quantities against layers, one table for each sample.

    Parameters
    ----------
    tables
        By sample and family, {position of the layer: separation}.
    geometry
        For the numbers of the layers.
    style
        From `nisampler.ui.plots.style_sheet`.
    """
    with mpl.rc_context(style):
        families = list(next(iter(tables.values())))
        figure = Figure(figsize=(_WIDTH, 0.8 + (0.36 * len(families) + 0.75) * len(tables)), layout="constrained")
        axes = figure.subplots(len(tables), 1, squeeze=False, sharex=True)[:, 0]
        norm = LogNorm(1e-4, 1.0)
        for axis, (name, table) in zip(axes, tables.items(), strict=True):
            values = np.full((len(families), geometry.n_layers), np.nan)
            for row, family in enumerate(families):
                for place, value in table[family].items():
                    values[row, place] = value
            image = axis.imshow(np.maximum(values, 1e-4), norm=norm, cmap="cividis", aspect="auto")
            axis.set_title(name)
            axis.grid(False)
            axis.set_yticks(range(len(families)), [family.replace("_", " ") for family in families], fontsize=12)
            if geometry.n_layers <= _MOST_NUMBERS:
                _write_numbers(axis, values)
        _layer_ticks(axes[-1], geometry)
        figure.colorbar(image, ax=list(axes), label="separation power", shrink=0.9)
    return figure


def _write_numbers(axis: Axes, values: Floats) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < 0.01 else INK
            axis.text(column, row, f"{value:.1g}", ha="center", va="center", fontsize=10.5, color=colour)


def training(records: Mapping[str, Sequence[Mapping[str, Any]]], style: Sheet = PLAIN) -> Figure:
    """Loss of the training and of the validation part, one panel for each part of a model.

    Parameters
    ----------
    records
        By part, records with ``epoch`` and ``loss``, and with ``validation`` where it was measured.
    style
        From `nisampler.ui.plots.style_sheet`.
    """
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, 0.6 + 3.0 * len(records)), layout="constrained")
        axes = figure.subplots(len(records), 1, squeeze=False)[:, 0]
        for axis, (name, history) in zip(axes, records.items(), strict=True):
            for key, label, line in (
                ("loss", "training", {"color": BLUE, "linestyle": "solid"}),
                ("validation", "validation", {"color": ORANGE, "linestyle": (0, (5, 1.6))}),
            ):
                found = [(record["epoch"], record[key]) for record in history if record.get(key) is not None]
                if found:
                    marker = "o" if len(found) < 40 else ""
                    axis.plot(*zip(*found, strict=True), marker=marker, markersize=4, label=label, **line)
            axis.set_title(name)
            axis.set_ylabel("loss")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.legend(loc="upper right")
        axes[-1].set_xlabel("epoch")
    return figure
