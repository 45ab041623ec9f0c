"""One distribution of several samples over each other, with their uncertainties and their ratio to the first one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from nisampler.errors import ConfigError
from nisampler.ui.distributions import Comparison, Shade
from nisampler.ui.histograms import Axis, Floats
from nisampler.ui.palette import BLUE, GREEN, GREY, INK, ORANGE, PURPLE
from nisampler.ui.panels import Curve, draw_ratio, drawn_with, ratio_panels
from nisampler.ui.plots import PLAIN, Sheet, per

if TYPE_CHECKING:
    from nisampler.ui.drawing import Drawing

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#c98a14", INK, GREY)
_SHADES = (GREEN, PURPLE, ORANGE)
_FAINT = 0.25
# Letters of a legend that do not fit in one of two columns.
_LONG = 32


@dataclass(frozen=True)
class Layer:
    """A distribution of one sample.

    Attributes
    ----------
    label
        In the legend.
    values, error
        (b,) densities and their statistical errors.
    shades
        Uncertainties from the named weights of the events.

    Examples
    --------
    >>> layer = Layer("events", np.array([1.0]), np.array([0.1]), (Shade("scales", np.array([0.7]), np.array([1.4])),))
    >>> low, high = layer.total()
    >>> low.round(12).tolist(), high.round(12).tolist()
    ([0.7], [1.4])
    """

    label: str
    values: Floats
    error: Floats
    shades: tuple[Shade, ...] = ()

    def total(self) -> tuple[Floats, Floats]:
        """Ends (b,) of all uncertainties but the statistical one, in quadrature."""
        above = [np.clip(shade.high - self.values, 0.0, None) for shade in self.shades]
        below = [np.clip(self.values - shade.low, 0.0, None) for shade in self.shades]
        size = [np.sqrt(np.square(part).sum(axis=0)) if part else np.zeros_like(self.values) for part in (below, above)]
        return self.values - size[0], self.values + size[1]


def overlay(axis: Axis, layers: Sequence[Layer], unit: str, style: Sheet | None = PLAIN) -> Drawing:
    """Distributions over each other, and below them their ratios to the first one.

    One sample alone shows each of its uncertainties; several show all of theirs in quadrature, each in its colour.
    The legend says the chi-square to the first one.

    Parameters
    ----------
    axis
        The bins.
    layers
        At least one, at most as many as there are colours.
    unit
        Of an integral; empty for distributions of unit area.
    style
        From `nisampler.ui.plots.style_sheet`; None for a `Sketch`.

    Raises
    ------
    ConfigError
        If there are no samples or too many.

    Examples
    --------
    >>> axis = Axis("x", "$x$ [GeV]", np.linspace(0.0, 1.0, 3))
    >>> layers = [Layer(name, np.array([1.0, 2.0]), np.array([0.1, 0.1])) for name in ("first", "second")]
    >>> figure = overlay(axis, layers, "pb")
    >>> [panel.get_ylabel() for panel in figure.axes]
    ['$d\\\\sigma / dx$ [pb / GeV]', 'ratio']
    """
    if not 1 <= len(layers) <= len(COLOURS):
        raise ConfigError(f"{len(layers)} samples in one figure: choose 1 to {len(COLOURS)}")
    curves = _curves(axis, layers)
    bands = list(_bands(layers))
    with drawn_with(style):
        texts = [curve.label for curve in curves] + [band.name for band in bands if band.name]
        columns = 2 if max(map(len, texts)) < _LONG else 1
        figure, main, lower = ratio_panels(len(texts), style, columns)
        for band in bands:
            look: dict[str, Any] = {"fill": True, "color": band.colour, "alpha": _FAINT, "linewidth": 0}
            main.stairs(band.high, axis.edges, baseline=band.low, label=band.name, **look)
            low, high = band.over(layers[0].values)
            lower.stairs(high, axis.edges, baseline=low, **look)
        draw_ratio(main, lower, axis, curves[0], curves[1:], columns=columns)
        if main.get_yscale() == "linear":
            top = max([main.get_ylim()[1], *(1.05 * float(np.nanmax(band.high)) for band in bands)])
            main.set_ylim(main.get_ylim()[0], top)
        span = max([_reach(layers[0]), *(band.reach(layers[0].values) for band in bands)])
        span = max(span, lower.get_ylim()[1] - 1.0) if curves[1:] else span
        lower.set_ylim(1.0 - min(span, 1.0), 1.0 + min(span, 1.0))
        lower.set_ylabel("ratio" if curves[1:] else "relative")
        main.set_ylabel(_density(unit, axis.label))
    return figure


@dataclass(frozen=True)
class _Band:
    """Ends (b,) of an uncertainty, with a name where the legend has it."""

    name: str | None
    colour: str
    low: Floats
    high: Floats

    def over(self, reference: Floats) -> tuple[Floats, Floats]:
        """Both ends in units of a reference, NaN where that is zero."""
        below = np.where(reference != 0.0, reference, np.nan)
        return self.low / below, self.high / below

    def reach(self, reference: Floats) -> float:
        """How far from one nearly all of it lies in these units."""
        return _most(np.abs(np.stack(self.over(reference)) - 1.0))


def _bands(layers: Sequence[Layer]) -> Iterator[_Band]:
    """Each uncertainty of one sample alone, the wider ones first; of several the sum in quadrature of each."""
    if len(layers) == 1:
        widest = sorted(layers[0].shades, key=lambda shade: -float(np.abs(shade.high - shade.low).sum()))
        for shade, colour in zip(widest, cycle(_SHADES)):
            yield _Band(shade.name, colour, shade.low, shade.high)
        return
    for layer, colour in zip(layers, COLOURS, strict=False):
        if layer.shades:
            yield _Band(None, colour, *layer.total())


def _curves(axis: Axis, layers: Sequence[Layer]) -> list[Curve]:
    """The first sample as a line with its errors, another one as points, several others as lines."""
    first = layers[0]
    curves = [Curve(first.label, first.values, first.error, {"color": COLOURS[0]})]
    for layer, colour in zip(layers[1:], COLOURS[1:], strict=False):
        chi2, bins = Comparison(axis, first.values, first.error, layer.values, layer.error).chi2()
        label = f"{layer.label}, $\\chi^2$/bins = {chi2:.1f}/{bins}"
        look = {"color": colour}
        if len(layers) == 2:
            curves.append(Curve(label, layer.values, layer.error, look, form="points"))
        else:
            curves.append(Curve(label, layer.values, layer.error, look, layer.error))
    return curves


def _reach(layer: Layer) -> float:
    """How far from one nearly all relative statistical errors of a sample reach."""
    return _most(layer.error / np.where(layer.values != 0.0, np.abs(layer.values), np.nan))


def _most(sizes: Floats) -> float:
    found = sizes[np.isfinite(sizes)]
    return float(np.clip(1.25 * np.quantile(found, 0.9), 0.02, 1.0)) if found.size else 0.5


def _density(unit: str, label: str) -> str:
    """The label of the vertical axis."""
    own = re.search(r"\[([^\[\]]+)\]\s*$", label)
    if not unit:
        return f"density [1 / {own[1]}]" if own else "density"
    return f"$d\\sigma / dx$ [{per(unit, label)}]"
