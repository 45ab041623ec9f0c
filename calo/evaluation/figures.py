"""Figures of samples of showers, but those of single voxels: histograms, profiles, correlations, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy
from nisampler.calo.evaluation.bands import VOXELS, Band
from nisampler.calo.evaluation.energies import responses
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts
from nisampler.ui.histograms import Axis, Floats
from nisampler.ui.panels import WIDTH, Curve, draw_ratio, drawn_with, panels, ratio_panels
from nisampler.ui.plots import BLUE, GREEN, GREY, INK, ORANGE, PLAIN, PURPLE, Sheet

Line = dict[str, Any]

FLOOR = "reference, other half"
"""What the second half of the reference is called: no figure of a candidate can be expected below its own."""

CONTROL = "shuffled voxels"
"""What reference showers with shuffled voxels are called: in figures of scores only."""

SOFT = "#5c6b78"
_NEUTRAL = {FLOOR: (SOFT, (0, (2.5, 1.0))), CONTROL: ("#a89f91", (0, (1.0, 1.6)))}

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_AREA: dict[str, Any] = {"look": {"color": GREY, "edgecolor": INK}, "form": "area"}
_MOST_NUMBERS = 8
"""Columns of a table of colours up to which its numbers are written too."""


def lines(names: Sequence[str]) -> dict[str, Line]:
    """A line of its own colour and dashes for every sample, told apart without colours too; floor and control are grey.

    >>> list(lines(["model", FLOOR]))
    ['model', 'reference, other half']
    """
    n = len(_COLOURS)
    styles = cycle((_COLOURS[k % n], _DASHES[(k + k // n) % n]) for k in range(n * n))
    found: dict[str, Line] = {}
    for name in names:
        colour, dash = _NEUTRAL[name] if name in _NEUTRAL else next(styles)
        found[name] = {"color": colour, "linestyle": dash}
    return found


def histogram(
    reference: Counts,
    others: Mapping[str, Counts],
    style: Sheet | None = PLAIN,
    bands: Mapping[str, Band] | None = None,
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
        From `nisampler.ui.plots.style_sheet`; None draws without matplotlib, which takes a quarter of the bytes.
    bands
        By candidate, the spread over draws of its weights: one standard deviation up and down from its line.

    Examples
    --------
    >>> first, second = (Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0]))) for _ in range(2))
    >>> first.fill([0.5, 1.5])
    >>> second.fill([0.5, 0.6])
    >>> histogram(first, {"model": second}).axes[0].get_ylabel()
    'density'
    """
    log, title = reference.axis.log, "voxels" if reference.axis.name == VOXELS else "showers"
    curves = []
    for name, look in lines(list(others)).items():
        band = (bands or {}).get(name)
        label, spread = (name, None) if band is None else (f"{name} ± its draws", band.deviation)
        curves.append(Curve(label, *others[name].density(), look, spread))
    with drawn_with(style):
        figure, main, lower = ratio_panels(1 + len(curves), None if style is None else {})
        draw_ratio(main, lower, reference.axis, Curve("reference", *reference.density(), **_AREA), curves, 1000.0)
        lower.set_xlim(*_filled(reference.axis.edges, [reference, *others.values()]))
        main.set_ylabel(f"{title} per decade" if log else "density")
    return figure


def _filled(edges: Floats, counts: Sequence[Counts]) -> tuple[float, float]:
    """The range in which any of the histograms has entries."""
    places = np.flatnonzero(sum(item.inside for item in counts))
    return (float(edges[places[0]]), float(edges[places[-1] + 1])) if places.size else (edges[0], edges[-1])


def layer_profile(
    reference: Features, others: Mapping[str, Features], geometry: Geometry, style: Sheet = PLAIN
) -> Figure:
    """Mean energy of the layers over the incident energy, with the ratio to the reference.

    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> features = Features.of(Showers(np.full(5, 1e3), np.ones((5, 240), dtype=np.float32)), geometry("toy"))
    >>> layer_profile(features, {"model": features}, geometry("toy")).axes[1].get_xlabel()
    'layer'
    """
    label = r"$\langle E_{\mathrm{layer}}\,/\,E_{\mathrm{inc}} \rangle$"
    return _layers(_layer_shares, label, reference, others, geometry, style)


def layer_occupancy(
    reference: Features, others: Mapping[str, Features], geometry: Geometry, style: Sheet = PLAIN
) -> Figure:
    """Share of the showers that have energy in a layer, with the ratio to the reference.

    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> features = Features.of(Showers(np.full(5, 1e3), np.ones((5, 240), dtype=np.float32)), geometry("toy"))
    >>> layer_occupancy(features, {"model": features}, geometry("toy")).axes[0].get_ylabel()
    'share of showers with energy'
    """
    return _layers(_filled_shares, "share of showers with energy", reference, others, geometry, style)


def _layers(
    values: Callable[[Features], tuple[Floats, Floats]],
    label: str,
    reference: Features,
    others: Mapping[str, Features],
    geometry: Geometry,
    style: Sheet,
) -> Figure:
    """One number for each layer with its error, and the ratio to the reference."""
    axis = Axis("layer", "layer", np.arange(geometry.n_layers + 1, dtype=np.float64) - 0.5)
    curves = [Curve(name, *values(others[name]), look) for name, look in lines(list(others)).items()]
    with mpl.rc_context(style):
        figure, main, lower = ratio_panels(1 + len(curves))
        draw_ratio(main, lower, axis, Curve("reference", *values(reference), **_AREA), curves, 100.0)
        _layer_ticks(lower, geometry)
        main.set_ylabel(label)
    return figure


def _filled_shares(features: Features) -> tuple[Floats, Floats]:
    """Share of the showers with energy in each layer, and its error."""
    shares = features.filled.mean(axis=0)
    return shares, np.sqrt(shares * (1.0 - shares) / max(len(features), 1))


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
    """Linearity (mean of E_tot/E_inc) above, resolution (its relative width) below, against the incident energy.

    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> voxels = np.random.default_rng(0).random((20, 240)).astype(np.float32)
    >>> features = Features.of(Showers(np.full(20, 1e3), voxels), geometry("toy"))
    >>> response(features, {"model": features}, geometry("toy").incident).axes[1].get_ylabel()
    'resolution'
    """
    with mpl.rc_context(style):
        figure, axes = panels((1.0, 1.0), 6.6, top=0.3 + 0.28 * -(-(len(others) + 1) // 2))
        samples = {"reference": reference, **others}
        look: dict[str, Line] = {"reference": {"color": INK, "linestyle": "none"}, **lines(list(others))}
        for number, (name, features) in enumerate(samples.items()):
            found = responses(features, incident)
            shift = 1.0 + 0.02 * (number - 0.5 * len(others))
            for axis, quantity in zip(axes, ("linearity", "resolution"), strict=True):
                axis.errorbar(
                    np.array([response.energy for response in found]) * shift / 1e3,
                    np.array([getattr(response, quantity) for response in found]),
                    yerr=np.array([getattr(response, f"{quantity}_error") for response in found]),
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
        axes[0].set_ylabel(r"mean of $E_{\mathrm{tot}}/E_{\mathrm{inc}}$")
        axes[1].set_ylabel("resolution")
        axes[1].set_xlabel(r"$E_{\mathrm{inc}}$ [GeV]")
        axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def correlations(reference: Floats, others: Mapping[str, Floats], geometry: Geometry, style: Sheet = PLAIN) -> Figure:
    """Rank correlations of the layer energies: the reference, then each candidate and its difference to the former.

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

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> len(correlations(np.eye(5), {"model": np.eye(5)}, geometry("toy")).axes)
    6
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

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> separations({"model": {"energy": {0: 1e-3, 1: 1e-2}}}, geometry("toy")).axes[0].get_title(loc="left")
    'model'
    """
    with mpl.rc_context(style):
        families = list(next(iter(tables.values())))
        figure = Figure(figsize=(WIDTH, 0.8 + (0.36 * len(families) + 0.75) * len(tables)), layout="constrained")
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

    Examples
    --------
    >>> training({"energies": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]}).axes[0].get_xlabel()
    'epoch'
    """
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * len(records)), layout="constrained")
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
            axis.set_ylim(*_without_outliers(history))
            axis.set_title(name)
            axis.set_ylabel("loss")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.legend(loc="upper right")
        axes[-1].set_xlabel("epoch")
    return figure


def _without_outliers(history: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Limits that show all losses but those far above the others, which one shower can be to blame for."""
    losses = np.array(
        [record[key] for record in history for key in ("loss", "validation") if record.get(key) is not None]
    )
    low, middle, high = np.quantile(losses, [0.0, 0.5, 0.75])
    inside = losses[losses <= high + 10.0 * max(high - low, abs(middle) * 1e-3)]
    room = 0.05 * (inside.max() - low) or 0.05 * abs(low) or 1.0
    return float(low - room), float(inside.max() + room)
